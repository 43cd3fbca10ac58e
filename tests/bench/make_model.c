/* SPDX-License-Identifier: Apache-2.0
 *
 * make_model.c - writes a random checkpoint for the bench and prints its folder:
 *   make-model VOCAB N_EMBD N_HEAD N_LAYER BLOCK_SIZE f32|f16|bf16 [chat] */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../unit/make_model.h"

/* A size in the arguments. */
static int size(const char *text) {
    char *end;
    const long n = strtol(text, &end, 10);
    if (end == text || *end || n < 1 || n > 100000) {
        fprintf(stderr, "a size must be 1 to 100000: %s\n", text);
        exit(64);
    }
    return (int)n;
}

int main(int argc, char **argv) {
    if (argc < 7) {
        fprintf(stderr,
                "usage: %s VOCAB N_EMBD N_HEAD N_LAYER BLOCK_SIZE f32|f16|bf16 [chat]\n",
                argv[0]);
        return 64;
    }
    struct make_model m = {.vocab_size = size(argv[1]),
                           .n_embd = size(argv[2]),
                           .n_head = size(argv[3]),
                           .n_layer = size(argv[4]),
                           .block_size = size(argv[5]),
                           .chat = argc > 7,
                           .align = 64, /* as `microgpt export` and `train` write it */
                           .seed = 1};
    m.dtype = !strcmp(argv[6], "f16")    ? MAKE_F16
              : !strcmp(argv[6], "bf16") ? MAKE_BF16
                                         : MAKE_F32;
    puts(make_model(&m));
    return 0;
}
