/* SPDX-License-Identifier: Apache-2.0
 * utf8.h - checking bytes from outside. Leaf. */
#ifndef TRAIN_UTF8_H
#define TRAIN_UTF8_H

#include <stddef.h>
#include <stdint.h>

/* Decode the character at p < end into *code: its length, or 0 when it is not UTF-8. */
int utf8_decode(const char *p, const char *end, int32_t *code);
int utf8_valid(const char *text, size_t len);

#endif
