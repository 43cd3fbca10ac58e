/* SPDX-License-Identifier: Apache-2.0
 * utf8.c - see utf8.h. Refuses overlong forms, surrogates and what is beyond U+10FFFF. */
#include "utf8.h"

static int length_of(unsigned char lead) {
    if (lead < 0x80) return 1;
    if (lead < 0xC2) return 0;
    return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
}

int utf8_decode(const char *text, const char *end, int32_t *code) {
    static const int32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *p = (const unsigned char *)text;
    int n = length_of(*p);
    if (n == 0 || n > end - text) return 0;
    int32_t c = n == 1 ? *p : *p & (0xFF >> (n + 1));
    for (int i = 1; i < n; i++) {
        if ((p[i] & 0xC0) != 0x80) return 0;
        c = c << 6 | (p[i] & 0x3F);
    }
    if (c < least[n] || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return 0;
    *code = c;
    return n;
}

size_t utf8_encode(uint32_t code, char out[4]) {
    size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)(n == 1 ? code : (0xF00u >> n & 0xFF) | code);
    return n;
}

int utf8_valid(const char *text, size_t len) {
    int32_t code;
    for (const char *end = text + len; text < end;) {
        int n = utf8_decode(text, end, &code);
        if (n == 0) return 0;
        text += n;
    }
    return 1;
}
