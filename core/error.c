/* SPDX-License-Identifier: Apache-2.0
 * error.c - filling the caller's mg_error: one line, printable, cut to fit.
 *
 * Texts quote file names and pieces of damaged files, so nothing in them is trusted:
 * control characters and ill-formed UTF-8 are shown as \xNN and can neither break a log
 * line nor reach a terminal. Knows no file format. */
#include "error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
    RAW_MAX = 4608,
    HEAD = 100
}; /* a path of PATH_MAX and a sentence; kept before a cut */

/* Length of the printable character at p (NUL-terminated), 0 if it must be escaped. */
static int printable_length(const unsigned char *p) {
    if (p[0] < 0x80) return p[0] >= 0x20 && p[0] != 0x7f;
    int n = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4) return 0;
    for (int i = 1; i < n; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    unsigned second = p[1];
    if (p[0] == 0xc2 && second < 0xa0) return 0; /* C1 controls */
    if ((p[0] == 0xe0 && second < 0xa0) || (p[0] == 0xed && second > 0x9f)) return 0;
    if ((p[0] == 0xf0 && second < 0x90) || (p[0] == 0xf4 && second > 0x8f)) return 0;
    return n;
}

/* Copy raw to out (cap bytes, NUL-terminated), escaped; stops when out is full. */
static void escape_text(const char *raw, char *out, size_t cap) {
    size_t len = 0;
    for (const unsigned char *p = (const unsigned char *)raw; *p && len + 5 <= cap;) {
        int n = printable_length(p);
        if (n > 0) {
            memcpy(out + len, p, (size_t)n);
            len += (size_t)n;
            p += n;
        } else {
            len += (size_t)snprintf(out + len, 5, "\\x%02x", *p++);
        }
    }
    out[len] = '\0';
}

static int is_continuation(char c) {
    return ((unsigned char)c & 0xc0) == 0x80;
}

/* Copy line to out[cap]. What does not fit is left out in the middle: a text begins with
 * a file and ends with what was expected. */
static void fit_text(const char *line, char *out, size_t cap) {
    size_t len = strlen(line);
    if (len < cap) {
        memcpy(out, line, len + 1);
        return;
    }
    size_t head = HEAD;
    while (is_continuation(line[head])) head--;
    size_t tail = len - (cap - 1 - head - 3);
    while (is_continuation(line[tail])) tail++;
    snprintf(out, cap, "%.*s...%s", (int)head, line, line + tail);
}

int mg_fail(struct mg_error *err, enum mg_status code, const char *fmt, ...) {
    if (!err || err->code != MG_OK) return -1;
    char raw[RAW_MAX], line[RAW_MAX];
    va_list args;
    va_start(args, fmt);
    vsnprintf(raw, sizeof raw, fmt, args);
    va_end(args);
    escape_text(raw, line, sizeof line);
    fit_text(line, err->text, sizeof err->text);
    err->code = code;
    return -1;
}
