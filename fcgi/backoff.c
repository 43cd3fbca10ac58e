/* SPDX-License-Identifier: Apache-2.0
 * backoff.c - see backoff.h. Life counts from the moment a worker serves: one that loads
 * for long and then dies is as young as one that dies at once. */
#include "backoff.h"

#include "clock.h"

#define YOUNG (2 * NS_PER_S)
#define MOST  (10 * NS_PER_S)

void backoff_wait(struct backoff *b, int64_t now_ns, int64_t wait_ns) {
    b->until_ns = now_ns + wait_ns;
}

/* The second death waits 0.5 s, then 1, 2, 4, 8, 10. */
int64_t backoff_death(struct backoff *b, int64_t now_ns, int64_t served_ns) {
    if (now_ns < b->until_ns) return 0; /* one of the same wave */
    b->young = served_ns < YOUNG ? b->young + 1 : 0;
    if (b->young < 2) return 0;
    int64_t wait = b->young > 6 ? MOST : (NS_PER_S / 2) << (b->young - 2);
    backoff_wait(b, now_ns, wait);
    return wait;
}
