/* SPDX-License-Identifier: Apache-2.0
 * utf8.h - characters from bytes from outside, and back. Leaf. */
#ifndef TRAIN_UTF8_H
#define TRAIN_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Decode the character at p < end into *code: its length, or 0 when it is not UTF-8. */
int utf8_decode(const char *p, const char *end, int32_t *code);
/* The bytes of a character into out; how many. */
size_t utf8_encode(uint32_t code, char out[4]);
int utf8_valid(const char *text, size_t len);

#endif
