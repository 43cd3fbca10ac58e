/* SPDX-License-Identifier: Apache-2.0
 * fuzz.h - what the targets share. A target is a file fuzz_NAME.c with the one function
 * that libFuzzer calls; `make fuzz` links it with clang's engine, `make test` with
 * driver.c. A property that does not hold ends the program: FUZZ_CHECK. */
#ifndef FUZZ_H
#define FUZZ_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
/* Before the first input, where a target needs it; the engines look for it. */
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define FUZZ_CHECK(what) ((what) ? (void)0 : fuzz_fail(__FILE__, __LINE__, #what))
_Noreturn void fuzz_fail(const char *file, int line, const char *what);

/* The input as a stream of decisions: bytes are taken from its front. */
struct fuzz_bytes {
    const uint8_t *at;
    size_t left;
};
uint8_t fuzz_byte(struct fuzz_bytes *); /* 0 when all are taken */

/* A descriptor of a file in memory with these bytes, at its beginning. */
int fuzz_file(const void *data, size_t size);
/* One line, and nothing that is no text: what every error must be. */
void fuzz_check_line(const char *text);
/* The input as valid UTF-8: what is none becomes '?'. Caller frees; NUL-terminated. */
char *fuzz_utf8(const uint8_t *data, size_t size);

#endif
