/* SPDX-License-Identifier: Apache-2.0
 *
 * allocfail.c - allocation functions that can fail on demand. Those of the C library are
 * replaced for the whole program, shared libraries included; under the address sanitizer
 * the work is handed on to its own, so that leaks and overruns are still seen. */
#include "allocfail.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static __thread long countdown, calls;
static __thread int counting, hit;

void allocfail_arm(long n) {
    countdown = n;
    calls = 0;
    hit = 0;
    counting = 1;
}

int allocfail_disarm(void) {
    counting = 0;
    return hit;
}

long allocfail_count(void) {
    return calls;
}

/* 1 if this allocation is the one that fails. */
static int is_failing(void) {
    if (!counting) return 0;
    calls++;
    if (countdown == 0 || --countdown > 0) return 0;
    hit = 1;
    errno = ENOMEM;
    return 1;
}

/* The sanitizer's allocator where there is one, else the C library's. */
#if defined(__SANITIZE_ADDRESS__)
#define REAL(name) __interceptor_##name
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define REAL(name) __interceptor_##name
#endif
#endif
#ifndef REAL
#define REAL(name) __libc_##name
#endif

void *REAL(malloc)(size_t);
void *REAL(calloc)(size_t, size_t);
void *REAL(realloc)(void *, size_t);
void *REAL(memalign)(size_t, size_t);

/* Seen by the shared libraries too. */
#pragma GCC visibility push(default)

void *malloc(size_t size) {
    return is_failing() ? NULL : REAL(malloc)(size);
}

void *calloc(size_t n, size_t size) {
    return is_failing() ? NULL : REAL(calloc)(n, size);
}

void *realloc(void *p, size_t size) {
    return is_failing() ? NULL : REAL(realloc)(p, size);
}

void *memalign(size_t align, size_t size); /* obsolete, but still called */

void *memalign(size_t align, size_t size) {
    return is_failing() ? NULL : REAL(memalign)(align, size);
}

void *aligned_alloc(size_t align, size_t size) {
    return is_failing() ? NULL : REAL(memalign)(align, size);
}

int posix_memalign(void **out, size_t align, size_t size) {
    void *p = is_failing() ? NULL : REAL(memalign)(align, size);
    if (!p) return ENOMEM;
    *out = p;
    return 0;
}

static char *copy_text(const char *s, size_t len) {
    char *copy = malloc(len + 1);
    if (!copy) return NULL;
    memcpy(copy, s, len);
    copy[len] = '\0';
    return copy;
}

char *strdup(const char *s) {
    return copy_text(s, strlen(s));
}

char *strndup(const char *s, size_t max) {
    return copy_text(s, strnlen(s, max));
}

void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset) {
    if (is_failing()) return MAP_FAILED;
    return (void *)syscall(SYS_mmap, addr, len, prot, flags, fd, offset);
}

#pragma GCC visibility pop
