/* SPDX-License-Identifier: Apache-2.0
 * drain.h - how a worker stops serving: nothing new, what is in flight is finished, and
 * no connection is closed that the web server may be writing to. */
#ifndef DRAIN_H
#define DRAIN_H

#include "handover.h"
#include "serve.h"

#include <sys/types.h>

struct drain {
    const struct handover *handover; /* NULL: nobody takes connections */
    pid_t master;                    /* which must live for that */
    uint64_t n_given;
    int64_t until_ns;       /* what is not finished then is given up */
    int64_t keep_until_ns;  /* nobody took any until then: every answer ends its own */
    int64_t close_after_ns; /* when the next idle connection may end */
};

enum { DRAIN_GAP_MS = 20 }; /* between the ends of two idle connections */

void drain_begin(struct drain *, struct server *, const char *why);
/* One turn: 1 = nothing is left to do, or no time (now: at once). */
int drain_turn(struct drain *, struct server *, int now);

/* Idle after an answer, or for so long since it was accepted that no request can be under
 * way. */
int drain_is_parked(const struct server *, const struct conn *);

#endif
