/* SPDX-License-Identifier: Apache-2.0
 *
 * bpe_tool.h - byte-level BPE in tests: a tokenizer from a folder, a text encoded in
 * slices of any size. What fails ends the test. */
#ifndef BPE_TOOL_H
#define BPE_TOOL_H

#include "../../core/tokenizer.h"

/* The tokenizer.json of dir. */
struct mg_tokenizer *bpe_open(const char *dir);

/* How to encode. */
struct bpe_way {
    int special;
    uint64_t *random; /* slices of 1 to `most` steps and ids; NULL = all at once */
    int most;
};

/* All ids of text, *n of them, in new memory. The scratch is as large as it must be and
 * no larger, and what run promises is checked at every slice. */
int32_t *bpe_encode(const struct mg_tokenizer *, const char *text, size_t len,
                    struct bpe_way way, size_t *n);

#endif
