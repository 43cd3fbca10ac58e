/* SPDX-License-Identifier: Apache-2.0
 * clock.h - the one clock for deadlines and ages: monotonic, and standing still while the
 * machine sleeps. */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_MS ((int64_t)1000000)
#define NS_PER_S  ((int64_t)1000000000)

static inline int64_t clock_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * NS_PER_S + t.tv_nsec;
}

/* For poll(): the milliseconds from now to then, rounded up; 0 = it has passed; at most
 * an hour; -1 = then is INT64_MAX, no such time. */
static inline int clock_wait_ms(int64_t then_ns, int64_t now_ns) {
    if (then_ns == INT64_MAX) return -1;
    if (then_ns <= now_ns) return 0;
    int64_t ms = (then_ns - now_ns - 1) / NS_PER_MS + 1;
    return ms < 3600000 ? (int)ms : 3600000;
}

#endif
