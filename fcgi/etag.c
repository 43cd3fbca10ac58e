/* SPDX-License-Identifier: Apache-2.0
 * etag.c - see etag.h. The dialect writes what may change a byte of a reply (canon.h). */
#include "etag.h"

#include "dialect.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

static void add_u64(struct mg_sha256 *h, uint64_t v) {
    v = htole64(v);
    mg_sha256_add(h, &v, sizeof v);
}

/* With its length in front, so that no two lists of texts look alike. */
static void add_text(struct mg_sha256 *h, const char *text) {
    size_t len = strlen(text);
    add_u64(h, len);
    mg_sha256_add(h, text, len);
}

/* The name of one representation of what h, which stays, has hashed so far. */
static void name(const struct mg_sha256 *h, int representation, char digits[]) {
    unsigned char digest[MG_SHA256];
    struct mg_sha256 copy = *h;
    add_u64(&copy, (uint64_t)representation);
    mg_sha256_end(&copy, digest);
    mg_hex(digest, ETAG_DIGITS / 2, digits);
}

int etag_make(struct request *r, const struct mg_model_info *m, const char *fingerprint) {
    struct mg_sha256 h;
    struct canon c;
    r->etag[0] = '\0';
    if (!*fingerprint) return 0;
    mg_sha256_init(&h);
    add_text(&h, fingerprint);
    add_text(&h, r->dialect->route);
    canon_begin(&c, &h, r->ask.receipt ? &r->canonical : NULL);
    r->dialect->canonical(r, m, &c);
    if (canon_end(&c)) return -1;
    name(&h, 0, r->plain_etag);
    name(&h, r->ask.stream | r->ask.receipt << 1, r->etag + 1);
    r->etag[0] = '"';
    memcpy(r->etag + 1 + ETAG_DIGITS, "\"", 2);
    return 0;
}

void etag_digest(const char *body, size_t len, char text[ETAG_DIGEST]) {
    unsigned char digest[MG_SHA256];
    char base64[MG_BASE64(MG_SHA256)];
    struct mg_sha256 h;
    mg_sha256_init(&h);
    mg_sha256_add(&h, body, len);
    mg_sha256_end(&h, digest);
    mg_base64(digest, sizeof digest, base64);
    snprintf(text, ETAG_DIGEST, "sha-256=:%s:", base64);
}

void etag_lines(const struct request *r, const char *fingerprint, const char *body,
                size_t len, char lines[ETAG_LINES]) {
    lines[0] = '\0';
    if (!*r->etag) return;
    int n = snprintf(lines, ETAG_LINES, "ETag: %s\r\nX-Model-Fingerprint: %s\r\n",
                     r->etag, fingerprint);
    if (!body) return;
    char digest[ETAG_DIGEST];
    etag_digest(body, len, digest);
    snprintf(lines + n, (size_t)(ETAG_LINES - n), "Repr-Digest: %s\r\n", digest);
}

int etag_matches(const char *s, const char *etag) {
    size_t len = strlen(etag);
    if (len == 0) return 0;
    while (*s) {
        s += strspn(s, " \t,");
        if (*s == '*') return 1;
        if (strncmp(s, "W/", 2) == 0) s += 2;
        if (strncmp(s, etag, len) == 0) return 1;
        const char *end = *s == '"' ? strchr(s + 1, '"') : NULL;
        if (!end) return 0; /* no list of tags: nothing that we have named */
        s = end + 1;
    }
    return 0;
}
