/* SPDX-License-Identifier: Apache-2.0
 *
 * peak.c - see peak.h. Compiled with -march=native: it measures the machine, not our
 * build. */
#include "peak.h"

#include <stdint.h>
#include <time.h>

#if defined __AVX512F__
#define BYTES 64
#elif defined __AVX__
#define BYTES 32
#else
#define BYTES 16
#endif

typedef float vec __attribute__((vector_size(BYTES)));
typedef int32_t ivec_mem __attribute__((vector_size(BYTES), aligned(1), may_alias));

enum { CHAINS = 16, REPEAT = 5 };

double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* -ffp-contract=fast makes a * b + c one instruction here. */
static double fma_seconds(long rounds) {
    vec a[CHAINS], b = {0}, c = {0};
    b += 0.999f;
    c += 0.001f;
    __asm__ volatile("" : "+x"(b), "+x"(c));
    for (int i = 0; i < CHAINS; i++) a[i] = b + (float)i;
    double start = now();
    for (long r = 0; r < rounds; r++)
#pragma GCC unroll 16
        for (int i = 0; i < CHAINS; i++) a[i] = a[i] * b + c;
    double t = now() - start;
    for (int i = 0; i < CHAINS; i++) __asm__ volatile("" ::"x"(a[i]));
    return t;
}

double peak_flops(void) {
    const long rounds = 4000000;
    double best = 0;
    for (int i = 0; i < REPEAT; i++) {
        double rate = 2.0 * (BYTES / 4) * CHAINS * (double)rounds / fma_seconds(rounds);
        best = rate > best ? rate : best;
    }
    return best;
}

static void read_all(const char *p, size_t size) {
    ivec_mem a[8] = {0};
    for (size_t i = 0; i + sizeof a <= size; i += sizeof a) {
        __builtin_prefetch(p + i + 4096);
        __builtin_prefetch(p + i + 4096 + sizeof a / 2);
#pragma GCC unroll 8
        for (size_t j = 0; j < 8; j++) a[j] |= *(const ivec_mem *)(p + i + j * BYTES);
    }
    for (int j = 0; j < 8; j++) __asm__ volatile("" ::"x"(a[j]));
}

double peak_read(const void *data, size_t size) {
    const int rounds = (int)(400e6 / (double)size) + 1;
    double best = 0;
    for (int i = 0; i <= REPEAT; i++) {
        double start = now();
        for (int r = 0; r < rounds; r++) read_all(data, size);
        double rate = (double)rounds * (double)size / (now() - start);
        best = rate > best ? rate : best;
    }
    return best;
}
