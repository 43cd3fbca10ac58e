/* SPDX-License-Identifier: Apache-2.0
 * sha256.c - see sha256.h. The one file that includes nettle. */
#include "sha256.h"

#include <assert.h>
#include <nettle/base64.h>
#include <nettle/sha2.h>
#include <stdalign.h>
#include <stdio.h>

static_assert(sizeof(struct mg_sha256) >= sizeof(struct sha256_ctx),
              "room for its state");
static_assert(alignof(struct mg_sha256) >= alignof(struct sha256_ctx),
              "and its alignment");

static struct sha256_ctx *state_of(struct mg_sha256 *h) {
    return (struct sha256_ctx *)h;
}

void mg_sha256_init(struct mg_sha256 *h) {
    sha256_init(state_of(h));
}

void mg_sha256_add(struct mg_sha256 *h, const void *data, size_t len) {
    sha256_update(state_of(h), len, data);
}

void mg_sha256_end(struct mg_sha256 *h, unsigned char digest[MG_SHA256]) {
    sha256_digest(state_of(h), MG_SHA256, digest);
}

void mg_hex(const unsigned char *bytes, size_t n, char *hex) {
    for (size_t i = 0; i < n; i++) snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
}

void mg_base64(const unsigned char *bytes, size_t n, char *text) {
    base64_encode_raw(text, n, bytes);
    text[MG_BASE64(n) - 1] = '\0';
}
