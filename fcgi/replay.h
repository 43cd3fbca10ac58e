/* SPDX-License-Identifier: Apache-2.0
 * replay.h - a receipt checked: its request is computed again, by the parts that serve it
 * but without a connection, and the receipt that comes of it is compared. This is what
 * `microgpt verify` does; the service itself does not use it. One at a time in a process:
 * it takes over Jansson's allocator (body.h). */
#ifndef REPLAY_H
#define REPLAY_H

#include "../core/microgpt.h"

#include <stddef.h>

enum { REPLAY_LANES = 64, REPLAY_MAX_RECEIPT = 32 << 20 }; /* bytes of a receipt */

struct replay_options {
    const char *model_dir;
    const char *no_better; /* instruction set, as in mg_model_options */
    enum mg_kv kv;
    int compat; /* 1: 0.5, 2: 0.6 */
};

enum replay_verdict {
    REPLAY_EQUAL,
    REPLAY_DIFFERS,   /* weights, request or digest */
    REPLAY_UNREADABLE /* it is no receipt */
};

struct replay;

/* NULL: *code is the exit code, and text one line. */
struct replay *replay_open(const struct replay_options *, int *code, char *text,
                           size_t size);
void replay_close(struct replay *);

/* The len bytes of a receipt, which are changed. text: one line that begins with what
 * differs, "equal" when nothing does. */
enum replay_verdict replay_check(struct replay *, char *receipt, size_t len, char *text,
                                 size_t size);

#endif
