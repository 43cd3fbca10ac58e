/* SPDX-License-Identifier: Apache-2.0
 * backoff.h - when may the next worker start after some have died? At once, and later and
 * later while they die young. Knows no process and no clock: times are given. */
#ifndef BACKOFF_H
#define BACKOFF_H

#include <stdint.h>

struct backoff {
    int young;        /* deaths of the young in a row */
    int64_t until_ns; /* no start before; {0} is the beginning */
};

/* A worker that had served for served_ns (0: it never was ready, however long it took)
 * has died. Returns the wait that begins now, 0 = none, or one is under way. */
int64_t backoff_death(struct backoff *, int64_t now_ns, int64_t served_ns);
/* No start for wait_ns, whatever died. */
void backoff_wait(struct backoff *, int64_t now_ns, int64_t wait_ns);

#endif
