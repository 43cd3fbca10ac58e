/* SPDX-License-Identifier: Apache-2.0
 *
 * make_model.h - random checkpoints for tests, written to a temporary folder as
 * microgpt-checkpoint(5) says. Uses nothing of core. A failing system call ends the test
 * program. */
#ifndef MAKE_MODEL_H
#define MAKE_MODEL_H

#include <stddef.h>
#include <stdint.h>

enum make_dtype { MAKE_F32, MAKE_F16, MAKE_BF16, MAKE_MIXED };

struct make_model {
    int vocab_size; /* characters + 1, or + 4 with chat */
    int n_embd, n_head, n_layer, block_size;
    int chat;
    enum make_dtype dtype; /* MAKE_MIXED: the three in turn */
    double std;            /* 0: 0.08 */
    uint64_t seed;
    int pad;               /* spaces behind the header: 1 misaligns all data */
    int align;             /* as many more as align the data to so many bytes */
    const uint32_t *chars; /* [vocab_size - specials], NULL: a-z, space, newline, then
                              others */
};

/* Write the checkpoint into a new folder; returns its path (give it to remove_model). */
char *make_model(const struct make_model *);
void remove_model(char *dir);

/* Random numbers for tests: one fixed sequence per state, the same everywhere. */
uint64_t random_u64(uint64_t *state);
int random_int(uint64_t *state, int from, int to); /* both included */
double random_normal(uint64_t *state);

#endif
