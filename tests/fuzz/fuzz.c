/* SPDX-License-Identifier: Apache-2.0
 * fuzz.c - see fuzz.h. */
#include "fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

_Noreturn void fuzz_fail(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: does not hold: %s\n", file, line, what);
    abort();
}

uint8_t fuzz_byte(struct fuzz_bytes *b) {
    if (!b->left) return 0;
    b->left--;
    return *b->at++;
}

int fuzz_file(const void *data, size_t size) {
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    FUZZ_CHECK(fd >= 0);
    FUZZ_CHECK(pwrite(fd, data, size, 0) == (ssize_t)size);
    return fd;
}

void fuzz_check_line(const char *text) {
    FUZZ_CHECK(*text);
    for (const char *p = text; *p; p++) FUZZ_CHECK((unsigned char)*p >= 0x20);
}

/* Bytes of the well-formed character at p (Unicode, table 3-7), 0 = there is none. */
static size_t character(const uint8_t *p, size_t n) {
    if (p[0] < 0x80) return 1;
    size_t len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
    if (p[0] < 0xc2 || p[0] > 0xf4 || len > n) return 0;
    for (size_t i = 1; i < len; i++)
        if ((p[i] & 0xc0) != 0x80) return 0;
    if (p[0] == 0xe0 && p[1] < 0xa0) return 0;
    if (p[0] == 0xed && p[1] > 0x9f) return 0;
    if (p[0] == 0xf0 && p[1] < 0x90) return 0;
    return p[0] == 0xf4 && p[1] > 0x8f ? 0 : len;
}

char *fuzz_utf8(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1);
    FUZZ_CHECK(text);
    for (size_t i = 0; i < size;) {
        size_t n = character(data + i, size - i);
        if (n)
            memcpy(text + i, data + i, n);
        else
            text[i] = '?';
        i += n ? n : 1;
    }
    text[size] = '\0';
    return text;
}
