/* SPDX-License-Identifier: Apache-2.0
 * canon.c - see canon.h. */
#include "canon.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put(struct canon *c, const char *bytes, size_t len) {
    mg_sha256_add(c->hash, bytes, len);
    if (c->text && !c->failed) c->failed = buffer_add(c->text, bytes, len) < 0;
}

void canon_puts(struct canon *c, const char *text) {
    put(c, text, strlen(text));
}

void canon_begin(struct canon *c, struct mg_sha256 *hash, struct buffer *text) {
    *c = (struct canon){.hash = hash, .text = text};
    canon_puts(c, "{");
}

int canon_end(struct canon *c) {
    canon_puts(c, "}");
    return c->failed ? -1 : 0;
}

/* What JSON does not take as it is: two characters, and those below the space. */
void canon_quote(struct canon *c, const char *bytes, size_t len) {
    size_t from = 0;
    canon_puts(c, "\"");
    for (size_t i = 0; i < len; i++) {
        unsigned char b = (unsigned char)bytes[i];
        char escape[8];
        if (b >= ' ' && b != '"' && b != '\\') continue;
        put(c, bytes + from, i - from);
        from = i + 1;
        snprintf(escape, sizeof escape, b < ' ' ? "\\u%04x" : "\\%c", b);
        canon_puts(c, escape);
    }
    put(c, bytes + from, len - from);
    canon_puts(c, "\"");
}

void canon_name(struct canon *c, const char *name) {
    canon_puts(c, c->n++ ? ",\"" : "\"");
    canon_puts(c, name);
    canon_puts(c, "\":");
}

/* The shortest of the forms that are read as the same number again. */
void canon_number(struct canon *c, double d) {
    char text[32];
    d += 0.0; /* -0 is 0 */
    for (int digits = 15; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, d);
        if (strtod(text, NULL) == d) break;
    }
    canon_puts(c, text);
}

void canon_u64(struct canon *c, const char *name, uint64_t v) {
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, v);
    canon_name(c, name);
    canon_puts(c, text);
}

void canon_real(struct canon *c, const char *name, double d) {
    canon_name(c, name);
    canon_number(c, d);
}

void canon_messages(struct canon *c, const char *name, const struct mg_message *m,
                    size_t n) {
    canon_name(c, name);
    canon_puts(c, "[");
    for (size_t i = 0; i < n; i++) {
        canon_puts(c, i ? ",{\"role\":\"" : "{\"role\":\"");
        canon_puts(c, m[i].role == MG_USER ? "user" : "assistant");
        canon_puts(c, "\",\"content\":");
        canon_quote(c, m[i].content, m[i].len);
        canon_puts(c, "}");
    }
    canon_puts(c, "]");
}
