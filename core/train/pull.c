/* SPDX-License-Identifier: Apache-2.0
 * pull.c - see pull.h. A fixed buffer over the file, a stack of the containers that are
 * open, and nothing else: no token is kept but a number's text, so a text of any size and
 * shape costs the same memory. Every refusal of the grammar says line, column and path.
 * */
#include "pull.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../error.h"
#include "utf8.h"

enum { BUFFER = 1 << 16, DEPTH = 64, NOTHING = -1 };

struct frame {
    int is_array;
    int64_t index; /* members or elements begun, less one */
    char key[PULL_KEY];
};

struct pull {
    int fd;
    const char *name;
    struct mg_error *err;
    struct frame frame[DEPTH];
    int depth;
    int opened;            /* the last token opened frame[depth - 1] */
    int in_string;         /* a string's text comes next */
    int64_t line, line_at; /* from 1; offset of its first byte */
    int64_t base;          /* offset of buf[0] */
    size_t at, end;
    char number[PULL_NUMBER_TEXT];
    unsigned char buf[BUFFER];
};

struct pull *pull_open(int fd, const char *name, struct mg_error *err) {
    struct pull *p = calloc(1, sizeof *p);
    if (!p) {
        mg_fail(err, MG_ENOMEM, "%s: out of memory", name);
        return NULL;
    }
    p->fd = fd, p->name = name, p->err = err, p->line = 1;
    return p;
}

void pull_close(struct pull *p) {
    free(p);
}

/* ---- places and messages ----------------------------------------------------------- */

/* Frames on the way to the last token: one that has just ended is not on it. */
static size_t write_step(const struct frame *f, int first, char *out, size_t cap) {
    int n = f->index < 0  ? 0
            : f->is_array ? snprintf(out, cap, "[%lld]", (long long)f->index)
                          : snprintf(out, cap, "%s%s", first ? "" : ".", f->key);
    return n < 0 || (size_t)n >= cap ? cap - 1 : (size_t)n;
}

const char *pull_path(const struct pull *p, char buf[PULL_PATH]) {
    size_t len = 0;
    buf[0] = '\0';
    for (int i = 0; i < p->depth; i++)
        len += write_step(&p->frame[i], i == 0, buf + len, PULL_PATH - len);
    return buf;
}

const char *pull_describe(const struct pull *p, enum pull_token token,
                          char buf[PULL_DESCRIBE]) {
    static const char *const names[] = {
        [PULL_EOF] = "the end",
        [PULL_OBJECT] = "an object",
        [PULL_OBJECT_END] = "the end of an object",
        [PULL_ARRAY] = "an array",
        [PULL_ARRAY_END] = "the end of an array",
        [PULL_STRING] = "a string",
        [PULL_NUMBER] = "a number",
        [PULL_NONFINITE] = "a number",
        [PULL_TRUE] = "true",
        [PULL_FALSE] = "false",
        [PULL_NULL] = "null",
    };
    int as_text = token == PULL_NUMBER || token == PULL_NONFINITE;
    snprintf(buf, PULL_DESCRIBE, "%.40s%s", as_text ? p->number : names[token],
             as_text && strlen(p->number) > 40 ? "..." : "");
    return buf;
}

int pull_fail(struct pull *p, const char *fmt, ...) {
    char text[1024], path[PULL_PATH];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    pull_path(p, path);
    return mg_fail(p->err, MG_EFILE, "%s: %s%s%s", p->name, path, *path ? ": " : "",
                   text);
}

/* The grammar is broken at the byte that comes next. */
static int fail_grammar(struct pull *p, const char *what) {
    char path[PULL_PATH];
    int64_t column = p->base + (int64_t)p->at - p->line_at + 1;
    pull_path(p, path);
    return mg_fail(p->err, MG_EFILE, "%s: not valid JSON: line %lld, column %lld%s%s: %s",
                   p->name, (long long)p->line, (long long)column, *path ? ": " : "",
                   path, what);
}

/* ---- bytes ------------------------------------------------------------------------- */

/* More bytes into the empty buffer; 0 at the end or on error, which is told. */
static int refill(struct pull *p) {
    p->base += (int64_t)p->at;
    p->at = p->end = 0;
    ssize_t n;
    do n = read(p->fd, p->buf, sizeof p->buf);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        mg_fail(p->err, MG_ESYSTEM, "%s: cannot read: %s", p->name, strerror(errno));
    if (n <= 0) return 0;
    p->end = (size_t)n;
    return 1;
}

/* The byte that comes next, NOTHING at the end. */
static int peek(struct pull *p) {
    return p->at < p->end || refill(p) ? p->buf[p->at] : NOTHING;
}

static int peek_token(struct pull *p) {
    for (int c; (c = peek(p)) != NOTHING; p->at++) {
        if (c != ' ' && c != '\n' && c != '\t' && c != '\r') return c;
        if (c == '\n') p->line++, p->line_at = p->base + (int64_t)p->at + 1;
    }
    return NOTHING;
}

static int fail_byte(struct pull *p, const char *expected) {
    char what[96];
    int c = peek(p);
    if (c == NOTHING)
        snprintf(what, sizeof what, "the text ends too early, expected %s", expected);
    else if (c >= 0x20 && c < 0x7F)
        snprintf(what, sizeof what, "found '%c', expected %s", c, expected);
    else
        snprintf(what, sizeof what, "found byte 0x%02x, expected %s", (unsigned)c,
                 expected);
    return fail_grammar(p, what);
}

/* ---- strings ----------------------------------------------------------------------- */

static int read_hex4(struct pull *p, uint32_t *code) {
    *code = 0;
    for (int i = 0; i < 4; i++, p->at++) {
        int c = peek(p), low = c | 0x20;
        int digit = c >= '0' && c <= '9'       ? c - '0'
                    : low >= 'a' && low <= 'f' ? low - 'a' + 10
                                               : -1;
        if (c == NOTHING || digit < 0) return fail_byte(p, "four hexadecimal digits");
        *code = *code << 4 | (uint32_t)digit;
    }
    return 0;
}

/* Behind "\u": one unit of UTF-16 or a pair of them. */
static int read_unicode(struct pull *p, uint32_t *code) {
    uint32_t low = 0;
    if (read_hex4(p, code)) return -1;
    if (*code < 0xD800 || *code > 0xDFFF) return 0;
    if (*code < 0xDC00 && peek(p) == '\\') {
        p->at++;
        if (peek(p) != 'u') return fail_byte(p, "the second half of a pair, \\u....");
        p->at++;
        if (read_hex4(p, &low)) return -1;
    }
    if (low < 0xDC00 || low > 0xDFFF)
        return fail_grammar(p, "half a surrogate pair is no character");
    *code = 0x10000 + ((*code - 0xD800) << 10) + (low - 0xDC00);
    return 0;
}

static int read_escape(struct pull *p, uint32_t *code) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    int c = peek(p);
    const char *found = c > 0 ? strchr(names, c) : NULL;
    if (c == 'u') {
        p->at++;
        return read_unicode(p, code);
    }
    if (!found) return fail_byte(p, "one of \"\\/bfnrtu behind a backslash");
    p->at++;
    *code = (uint32_t)values[found - names];
    return 0;
}

/* The n - 1 bytes behind the first byte of a character; overlong forms, surrogates and
 * what is beyond U+10FFFF are refused. */
static int read_utf8(struct pull *p, int first, uint32_t *code) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    int n = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
    if (first < 0xC2 || first > 0xF4) return fail_grammar(p, "not UTF-8");
    *code = (uint32_t)first & (0xFFu >> (n + 1));
    for (int i = 1; i < n; i++, p->at++) {
        int c = peek(p);
        if (c == NOTHING || (c & 0xC0) != 0x80) return fail_grammar(p, "not UTF-8");
        *code = *code << 6 | ((uint32_t)c & 0x3F);
    }
    if (*code < least[n] || *code > 0x10FFFF || (*code >= 0xD800 && *code <= 0xDFFF))
        return fail_grammar(p, "not UTF-8");
    return 0;
}

int pull_char(struct pull *p, uint32_t *code) {
    if (!p->in_string) return 0;
    int c = peek(p);
    if (c == NOTHING || c < 0x20) return fail_byte(p, "the rest of a string");
    p->at++;
    if (c == '"') {
        p->in_string = 0;
        return 0;
    }
    *code = (uint32_t)c;
    if (c == '\\') return read_escape(p, code) ? -1 : 1;
    if (c >= 0x80) return read_utf8(p, c, code) ? -1 : 1;
    return 1;
}

int pull_string(struct pull *p, char *buf, size_t cap) {
    size_t len = 0;
    int more, full = 0;
    for (uint32_t code; (more = pull_char(p, &code)) > 0;) {
        char bytes[4];
        size_t n = utf8_encode(code, bytes);
        if (code == 0)
            return fail_grammar(p, "a NUL, where a name or a word is expected");
        full = full || len + n >= cap;
        if (full) continue;
        memcpy(buf + len, bytes, n);
        len += n;
    }
    buf[len] = '\0';
    return more;
}

/* ---- values ------------------------------------------------------------------------ */

static int is_digit(int c) {
    return c >= '0' && c <= '9';
}

/* Move the next byte, which is there, to number[*n]. */
static int take(struct pull *p, size_t *n) {
    if (*n + 1 >= sizeof p->number)
        return fail_grammar(p, "a number of more than 1000 characters");
    p->number[(*n)++] = (char)p->buf[p->at++];
    p->number[*n] = '\0';
    return 0;
}

static int take_digits(struct pull *p, size_t *n) {
    size_t from = *n;
    while (is_digit(peek(p)))
        if (take(p, n)) return -1;
    return *n > from ? 0 : fail_byte(p, "a digit");
}

/* number[0 ... n-1] holds a sign at most. */
static enum pull_token read_number(struct pull *p, size_t n) {
    int rc = peek(p) == '0' ? take(p, &n) : take_digits(p, &n);
    if (!rc && peek(p) == '.') rc = take(p, &n) || take_digits(p, &n);
    if (!rc && (peek(p) | 0x20) == 'e') {
        rc = take(p, &n);
        if (!rc && (peek(p) == '+' || peek(p) == '-')) rc = take(p, &n);
        if (!rc) rc = take_digits(p, &n);
    }
    return rc ? PULL_ERROR : PULL_NUMBER;
}

static enum pull_token read_word(struct pull *p, size_t n) {
    static const struct {
        const char *word;
        enum pull_token token;
    } words[] = {
        {"true", PULL_TRUE},          {"false", PULL_FALSE},
        {"null", PULL_NULL},          {"NaN", PULL_NONFINITE},
        {"Infinity", PULL_NONFINITE}, {"-Infinity", PULL_NONFINITE},
    };
    for (int c = peek(p); n < 16 && c != NOTHING; c = peek(p)) {
        if ((c | 0x20) < 'a' || (c | 0x20) > 'z') break;
        take(p, &n);
    }
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (strcmp(p->number, words[i].word) == 0) return words[i].token;
    return n ? fail_grammar(p, "found a word that is no value") : fail_byte(p, "a value");
}

static enum pull_token push(struct pull *p, int is_array) {
    if (p->depth == DEPTH) return fail_grammar(p, "nested more than 64 deep");
    p->at++;
    p->opened = 1;
    p->frame[p->depth++] = (struct frame){.is_array = is_array, .index = -1};
    return is_array ? PULL_ARRAY : PULL_OBJECT;
}

static enum pull_token read_value(struct pull *p) {
    size_t n = 0;
    int c = peek_token(p);
    p->number[0] = '\0';
    if (c == '{' || c == '[') return push(p, c == '[');
    if (is_digit(c)) return read_number(p, n);
    if (c == '"') {
        p->at++;
        p->in_string = 1;
        return PULL_STRING;
    }
    if (c == '-') {
        take(p, &n);
        if (peek(p) != 'I') return read_number(p, n);
    }
    return read_word(p, n);
}

/* ---- containers -------------------------------------------------------------------- */

static enum pull_token pop(struct pull *p) {
    p->at++;
    return p->frame[--p->depth].is_array ? PULL_ARRAY_END : PULL_OBJECT_END;
}

/* The name of a member, and the colon. */
static int read_key(struct pull *p, struct frame *f) {
    if (peek_token(p) != '"') return fail_byte(p, "the name of a member, or }");
    p->at++;
    p->in_string = 1;
    if (pull_string(p, f->key, sizeof f->key)) return -1;
    f->index++;
    if (peek_token(p) != ':') return fail_byte(p, "a colon");
    p->at++;
    return 0;
}

static enum pull_token next_element(struct pull *p, struct frame *f) {
    int c = peek_token(p), closer = f->is_array ? ']' : '}';
    if (c == closer) return pop(p);
    if (f->index >= 0) {
        if (c != ',') return fail_byte(p, f->is_array ? "a comma or ]" : "a comma or }");
        p->at++;
    }
    if (!f->is_array) return read_key(p, f) ? PULL_ERROR : read_value(p);
    f->index++;
    return read_value(p);
}

static enum pull_token next_outside(struct pull *p) {
    if (p->base + (int64_t)p->at == 0) {
        static const unsigned char mark[3] = {0xEF, 0xBB, 0xBF};
        if (peek(p) == mark[0] && p->end >= 3 && memcmp(p->buf, mark, 3) == 0) p->at = 3;
        return read_value(p);
    }
    if (peek_token(p) != NOTHING) return fail_byte(p, "nothing behind the value");
    return PULL_EOF;
}

enum pull_token pull_next(struct pull *p) {
    uint32_t code;
    int more = 0;
    while (p->in_string && (more = pull_char(p, &code)) > 0) continue;
    if (more < 0) return PULL_ERROR;
    p->opened = 0;
    enum pull_token t =
        p->depth ? next_element(p, &p->frame[p->depth - 1]) : next_outside(p);
    return p->err->code ? PULL_ERROR : t;
}

int pull_skip(struct pull *p, enum pull_token token) {
    int depth = p->depth;
    if (token == PULL_ERROR) return -1;
    if (token != PULL_OBJECT && token != PULL_ARRAY) return 0;
    while (token != PULL_ERROR && p->depth >= depth) token = pull_next(p);
    return token == PULL_ERROR ? -1 : 0;
}

const char *pull_key(const struct pull *p) {
    int i = p->depth - 1 - p->opened;
    return i >= 0 ? p->frame[i].key : "";
}

const char *pull_number(const struct pull *p) {
    return p->number;
}
