/* SPDX-License-Identifier: Apache-2.0
 * etag.c - see etag.h. Every member of struct ask that may change a byte of a reply is
 * hashed here, each with a fixed size or its length in front. */
#include "etag.h"

#include "dialect.h"

#include <endian.h>
#include <stdio.h>
#include <string.h>

static void add_u64(struct mg_sha256 *h, uint64_t v) {
    v = htole64(v);
    mg_sha256_add(h, &v, sizeof v);
}

static void add_double(struct mg_sha256 *h, double d) {
    uint64_t bits;
    d += 0.0; /* -0 is 0 */
    memcpy(&bits, &d, sizeof bits);
    add_u64(h, bits);
}

static void add_bytes(struct mg_sha256 *h, const char *bytes, size_t len) {
    add_u64(h, len);
    mg_sha256_add(h, bytes, len);
}

/* More tokens than the context has are as many as it has. */
static uint64_t effective_max(const struct ask *a, const struct mg_model_info *m) {
    uint64_t block = (uint64_t)m->block_size;
    return a->max_tokens > block ? block : a->max_tokens;
}

static void add_ask(struct mg_sha256 *h, const struct ask *a,
                    const struct mg_model_info *m) {
    add_u64(h, (uint64_t)a->chat);
    add_u64(h, (uint64_t)a->stream);
    add_u64(h, (uint64_t)a->n_samples);
    add_double(h, a->temperature);
    add_u64(h, a->seed);
    add_u64(h, effective_max(a, m));
}

void etag_make(struct request *r, const struct mg_model_info *m,
               const char *fingerprint) {
    unsigned char digest[MG_SHA256];
    struct mg_sha256 h;
    r->etag[0] = '\0';
    if (!*fingerprint) return;
    mg_sha256_init(&h);
    add_bytes(&h, fingerprint, strlen(fingerprint));
    add_bytes(&h, r->dialect->name, strlen(r->dialect->name));
    add_ask(&h, &r->ask, m);
    add_u64(&h, r->n_messages);
    for (size_t i = 0; i < r->n_messages; i++) {
        add_u64(&h, r->messages[i].role);
        add_bytes(&h, r->messages[i].content, r->messages[i].len);
    }
    mg_sha256_end(&h, digest);
    r->etag[0] = '"';
    mg_hex(digest, ETAG_DIGITS / 2, r->etag + 1);
    memcpy(r->etag + 1 + ETAG_DIGITS, "\"", 2);
}

/* Repr-Digest of RFC 9530. */
static int add_digest(const char *body, size_t len, char *line, size_t size) {
    unsigned char digest[MG_SHA256];
    char text[MG_BASE64(MG_SHA256)];
    struct mg_sha256 h;
    mg_sha256_init(&h);
    mg_sha256_add(&h, body, len);
    mg_sha256_end(&h, digest);
    mg_base64(digest, sizeof digest, text);
    return snprintf(line, size, "Repr-Digest: sha-256=:%s:\r\n", text);
}

void etag_lines(const struct request *r, const char *fingerprint, const char *body,
                size_t len, char lines[ETAG_LINES]) {
    lines[0] = '\0';
    if (!*r->etag) return;
    int n = snprintf(lines, ETAG_LINES, "ETag: %s\r\nX-Model-Fingerprint: %s\r\n",
                     r->etag, fingerprint);
    if (body) add_digest(body, len, lines + n, (size_t)(ETAG_LINES - n));
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
