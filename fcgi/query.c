/* SPDX-License-Identifier: Apache-2.0
 * query.c - see query.h. */
#include "query.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {"num_samples", "temperature", "seed", "max_tokens"};
enum { N_NAMES = sizeof names / sizeof *names, VALUE_MAX = 64 };

struct writer {
    char *body;
    size_t size, at;
    unsigned seen; /* bit i: names[i] */
    struct refusal *why;
};

__attribute__((format(printf, 2, 3))) static int fail(struct refusal *why,
                                                      const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    why->status = 400;
    vsnprintf(why->text, sizeof why->text, fmt, ap);
    va_end(ap);
    return -1;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The n characters at s without their escapes; only what a number or a name may have
 * survives: another byte becomes '?', and so no number. */
static int decode(const char *s, size_t n, char out[VALUE_MAX], struct refusal *why) {
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        int c = (unsigned char)s[i];
        if (c == '%') {
            int high = i + 2 < n ? hex_digit(s[i + 1]) : -1;
            int low = i + 2 < n ? hex_digit(s[i + 2]) : -1;
            if (high < 0 || low < 0)
                return fail(why, "the query has a %% without two hexadecimal digits");
            c = high << 4 | low;
            i += 2;
        }
        if (at + 1 >= VALUE_MAX)
            return fail(why, "a parameter of the query is longer than %d characters",
                        VALUE_MAX - 1);
        int plain = c >= '-' && c < 0x7f && c != '"' && c != '\\';
        out[at++] = (char)(plain || c == '+' ? c : '?');
    }
    out[at] = '\0';
    return 0;
}

/* Is s a number as JSON has them? */
static int is_number(const char *s) {
    s += *s == '-';
    size_t whole = strspn(s, "0123456789");
    if (whole == 0 || (whole > 1 && *s == '0')) return 0;
    s += whole;
    if (*s == '.') {
        size_t digits = strspn(s + 1, "0123456789");
        if (digits == 0) return 0;
        s += 1 + digits;
    }
    if (*s == 'e' || *s == 'E') {
        s += 1 + (s[1] == '+' || s[1] == '-');
        size_t digits = strspn(s, "0123456789");
        if (digits == 0) return 0;
        s += digits;
    }
    return *s == '\0';
}

static int find_name(const char *name) {
    int i = 0;
    while (i < N_NAMES && strcmp(name, names[i]) != 0) i++;
    return i;
}

static int add(struct writer *w, const char *name, const char *value) {
    int i = find_name(name);
    if (i == N_NAMES)
        return fail(w->why,
                    "unknown parameter \"%s\": there are num_samples, "
                    "temperature, seed and max_tokens",
                    name);
    if (w->seen & 1u << i) return fail(w->why, "\"%s\" is given twice", name);
    const char *quote = is_number(value) ? "" : "\"";
    int n = snprintf(w->body + w->at, w->size - w->at, "%s\"%s\":%s%s%s",
                     w->seen ? "," : "", name, quote, value, quote);
    w->seen |= 1u << i;
    if (n < 0 || (size_t)n >= w->size - w->at)
        return fail(w->why, "the query is too long");
    w->at += (size_t)n;
    return 0;
}

static int add_pair(struct writer *w, const char *s, size_t n) {
    char name[VALUE_MAX], value[VALUE_MAX];
    const char *equals = memchr(s, '=', n);
    size_t len = equals ? (size_t)(equals - s) : n;
    const char *rest = equals ? equals + 1 : s + n;
    if (decode(s, len, name, w->why)) return -1;
    if (decode(rest, (size_t)(s + n - rest), value, w->why)) return -1;
    return add(w, name, value);
}

int64_t query_to_json(const char *query, char *body, size_t size, struct refusal *why) {
    struct writer w = {.body = body, .size = size - 2, .at = 1, .why = why};
    body[0] = '{';
    while (*query) {
        size_t n = strcspn(query, "&");
        if (n > 0 && add_pair(&w, query, n)) return -1;
        query += n + (query[n] == '&');
    }
    body[w.at++] = '}';
    return (int64_t)w.at;
}
