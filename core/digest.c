/* SPDX-License-Identifier: Apache-2.0
 * digest.c - a fast 64-bit digest of bytes, the same on every machine.
 *
 * The bytes, padded with zeros to a multiple of 64, are little-endian words w of 64 bits.
 * Eight lanes h[0..7] start at splitmix64(lane) and take the words in turn: h[j] =
 * rotate_left(h[j] ^ w, 29) * 0x9E3779B97F4A7C15 Then d = length, and for each lane in
 * order d = splitmix64(d ^ h[j]); d is the digest. Every step is a bijection of the word
 * and of the state, so a change of one word always shows. Eight independent chains keep
 * the multiplier busy: it runs at the speed of memory. */
#include "digest.h"

#include <endian.h>
#include <string.h>

enum { LANES = 8, BLOCK = LANES * 8 };

static uint64_t splitmix64(uint64_t z) {
    z += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

static void absorb_block(uint64_t h[LANES], const unsigned char *p) {
    for (int j = 0; j < LANES; j++) {
        uint64_t w;
        memcpy(&w, p + 8 * j, 8);
        w = le64toh(w) ^ h[j];
        h[j] = (w << 29 | w >> 35) * 0x9E3779B97F4A7C15u;
    }
}

uint64_t mg_digest(const void *data, size_t len) {
    const unsigned char *p = data;
    uint64_t h[LANES];
    for (int j = 0; j < LANES; j++) h[j] = splitmix64((uint64_t)j);
    size_t whole = len / BLOCK * BLOCK;
    for (size_t i = 0; i < whole; i += BLOCK) absorb_block(h, p + i);
    if (whole < len) {
        unsigned char last[BLOCK] = {0};
        memcpy(last, p + whole, len - whole);
        absorb_block(h, last);
    }
    uint64_t d = len;
    for (int j = 0; j < LANES; j++) d = splitmix64(d ^ h[j]);
    return d;
}
