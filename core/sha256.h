/* SPDX-License-Identifier: Apache-2.0
 * sha256.h - SHA-256, which is libnettle's, for names that anybody can compute again: of
 * models, requests and replies. Part of the public interface. Leaf. */
#ifndef MG_SHA256_H
#define MG_SHA256_H

#include <stddef.h>
#include <stdint.h>

/* SHA-256 of bytes that come in pieces. Allocates nothing, cannot fail. */
enum { MG_SHA256 = 32 };
struct mg_sha256 {
    uint64_t state[16];
};
void mg_sha256_init(struct mg_sha256 *);
void mg_sha256_add(struct mg_sha256 *, const void *data, size_t len);
void mg_sha256_end(struct mg_sha256 *, unsigned char digest[MG_SHA256]);
/* n bytes as 2 n digits and NUL. */
void mg_hex(const unsigned char *bytes, size_t n, char *hex);
/* n bytes as base64 with its padding, and NUL. */
#define MG_BASE64(n) (((n) + 2) / 3 * 4 + 1)
void mg_base64(const unsigned char *bytes, size_t n, char *text);

#endif
