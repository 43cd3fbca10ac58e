/* SPDX-License-Identifier: Apache-2.0
 * body.c - the arena, parsing, and exact unsigned 64-bit integers.
 *
 * Jansson's integers are signed 64 bit, and one longer digit string fails the whole
 * document. So a body that holds an integer of 19 digits or more (rare) is rewritten
 * before it is parsed:
 *   2^63 ... 2^64-1   become the negative integers -1 ... -2^63
 *   beyond 2^64-1     become reals of about the same value (at most DBL_MAX)
 *   negative integers become reals, so that they cannot be taken for the first kind
 * The API has no field that takes a negative integer, so nothing is lost. */
#include "body.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

static struct {
    char *base;
    size_t used, limit; /* limit: what body_alloc may use now */
    size_t max_json, size, touched;
    jmp_buf *full; /* where a parse ends when the arena is full; NULL = refuse */
} arena;

enum { KEEP_RESIDENT = 256 << 10, LONG_DIGITS = 19 };

void *body_alloc(size_t n) {
    size_t need = (n + 15) & ~(size_t)15;
    if (need < n || need > arena.limit - arena.used) {
        if (arena.full) longjmp(*arena.full, 1);
        return NULL;
    }
    void *p = arena.base + arena.used;
    arena.used += need;
    return p;
}

static void free_nothing(void *p) {
    (void)p;
}

int body_init(size_t max_json, size_t room) {
    size_t size = max_json + room;
    void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return -1;
    if (arena.base) munmap(arena.base, arena.size);
    arena.base = p;
    arena.max_json = max_json;
    arena.size = arena.limit = size;
    arena.used = arena.touched = 0;
    json_set_alloc_funcs(body_alloc, free_nothing);
    return 0;
}

void body_reset(void) {
    if (arena.used > arena.touched) arena.touched = arena.used;
    if (arena.touched > 2 * KEEP_RESIDENT) { /* a big body: give its pages back */
        madvise(arena.base + KEEP_RESIDENT, arena.size - KEEP_RESIDENT, MADV_DONTNEED);
        arena.touched = KEEP_RESIDENT;
    }
    arena.used = 0;
    arena.limit = arena.size;
}

/* ---- long integers ----------------------------------------------------------------- */

/* The next number token at or after *p outside strings: its start, *p behind it; NULL at
 * the end. *digits = its digits if it is an integer, 0 if it has a fraction or an
 * exponent. */
static char *next_number(char **p, char *end, size_t *digits) {
    char *s = *p;
    while (s < end) {
        if (*s == '"') {
            for (s++; s < end && *s != '"'; s++)
                if (*s == '\\') s++;
            if (s < end) s++;
        } else if (*s == '-' || (*s >= '0' && *s <= '9')) {
            char *start = s;
            int integer = 1;
            for (s++; s < end && (strchr("+-.eE", *s) || (*s >= '0' && *s <= '9')) && *s;
                 s++)
                if (*s < '0' || *s > '9') integer = 0;
            *digits = integer ? (size_t)(s - start) - (*start == '-') : 0;
            *p = s;
            return start;
        } else {
            s++;
        }
    }
    return NULL;
}

/* Digits as an unsigned 64-bit value; -1 if it does not fit. */
static int parse_u64(const char *s, const char *end, uint64_t *out) {
    uint64_t v = 0;
    for (; s < end; s++) {
        if (__builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return -1;
    }
    *out = v;
    return 0;
}

/* The token [s, end), an integer, as it stands in the rewritten body: into out (at least
 * as large as the token and 4 bytes more). Returns its length. */
static size_t encode_integer(const char *s, const char *end, char *out) {
    size_t n = (size_t)(end - s);
    uint64_t v;
    if (*s == '-' && n > 1 && s[1] != '0') {
        if (n > LONG_DIGITS) n = LONG_DIGITS; /* any negative number will do */
        memcpy(out, s, n);
        memcpy(out + n, ".0", 2);
        return n + 2;
    }
    if (*s == '-' || *s == '0' || n < LONG_DIGITS) { /* -0; 007 is Jansson's to refuse */
        memcpy(out, s, n);
        return n;
    }
    if (parse_u64(s, end, &v) < 0) {
        if (n > 308) return (size_t)snprintf(out, n, "%.17g", DBL_MAX);
        return (size_t)snprintf(out, n + 4, "%c.%.15se%zu", s[0], s + 1, n - 1);
    }
    if (v <= INT64_MAX) {
        memcpy(out, s, n);
        return n;
    }
    return (size_t)snprintf(out, n + 4, "-%llu", (unsigned long long)(v - INT64_MAX));
}

static int has_long_integer(char *body, size_t len) {
    char *p = body;
    size_t digits = 0;
    while (next_number(&p, body + len, &digits))
        if (digits >= LONG_DIGITS) return 1;
    return 0;
}

/* The rewritten body, in the arena. */
static char *encode_body(char *body, size_t len, size_t *out_len) {
    char *p = body, *from = body, *token;
    size_t n_tokens = 0, digits, n = 0;
    while (next_number(&p, body + len, &digits)) n_tokens++;
    char *out = body_alloc(len + 4 * n_tokens + 4);
    p = body;
    while ((token = next_number(&p, body + len, &digits))) {
        memcpy(out + n, from, (size_t)(token - from));
        n += (size_t)(token - from);
        from = p;
        if (digits > 0) {
            n += encode_integer(token, p, out + n);
        } else {
            memcpy(out + n, token, (size_t)(p - token));
            n += (size_t)(p - token);
        }
    }
    memcpy(out + n, from, (size_t)(body + len - from));
    *out_len = n + (size_t)(body + len - from);
    return out;
}

/* Long integers to short ones of the same width: a broken body then fails where it is
 * broken. */
static void blank_long_integers(char *body, size_t len) {
    char *p = body, *token;
    size_t digits;
    while ((token = next_number(&p, body + len, &digits))) {
        if (digits < LONG_DIGITS || token[*token == '-'] == '0') continue;
        memset(token, ' ', (size_t)(p - token));
        p[-1] = '1';
    }
}

/* ---- parsing ----------------------------------------------------------------------- */

static json_t *load(const char *text, size_t len, json_error_t *error) {
    return json_loadb(text, len, JSON_DECODE_ANY | JSON_ALLOW_NUL, error);
}

/* One line of ASCII: what the parser quotes of the body may hold a newline, or end within
 * a character. */
static void write_error(struct body *d, const json_error_t *e) {
    size_t size = sizeof d->error;
    size_t n =
        (size_t)snprintf(d->error, size, "line %d, column %d: ", e->line, e->column);
    for (const char *p = e->text; *p && n + sizeof "\\xff" <= size; p++) {
        int plain = *p >= ' ' && *p < 0x7f;
        n += (size_t)snprintf(d->error + n, size - n, plain ? "%c" : "\\x%02x",
                              (unsigned char)*p);
    }
}

static enum body_status parse(struct body *d, char *body, size_t len) {
    json_error_t error;
    size_t n = len;
    char *text = body;
    d->encoded = has_long_integer(body, len);
    if (d->encoded) text = encode_body(body, len, &n);
    d->root = load(text, n, &error);
    if (d->root) return BODY_OK;
    if (d->encoded) {
        blank_long_integers(body, len);
        if (load(body, len, &error))
            snprintf(error.text, sizeof error.text, "bad number");
    }
    write_error(d, &error);
    return BODY_BROKEN;
}

/* Jansson's parser does not survive a refused allocation everywhere (an assertion in its
 * lexer aborts), so it is left by longjmp. It keeps nothing outside the arena, so nothing
 * leaks. */
enum body_status body_parse(struct body *d, char *body, size_t len) {
    volatile enum body_status status = BODY_TOO_BIG;
    jmp_buf full;
    memset(d, 0, sizeof *d);
    arena.limit = arena.max_json;
    arena.full = &full;
    if (setjmp(full) == 0) status = parse(d, body, len);
    arena.full = NULL;
    arena.limit = arena.size;
    return status;
}

int body_u64(const struct body *d, const json_t *v, uint64_t *out) {
    if (!json_is_integer(v)) return -1;
    json_int_t i = json_integer_value(v);
    if (i >= 0)
        *out = (uint64_t)i;
    else if (d->encoded)
        *out = (uint64_t)INT64_MAX + (uint64_t) - (i + 1) + 1;
    else
        return -1;
    return 0;
}

int body_number(const struct body *d, const json_t *v, double *out) {
    uint64_t u;
    if (!json_is_number(v)) return -1;
    *out = body_u64(d, v, &u) == 0 ? (double)u : json_number_value(v);
    return 0;
}
