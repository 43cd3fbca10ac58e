/* SPDX-License-Identifier: Apache-2.0
 *
 * op_hashes.h - one hash for every kernel over many shapes: what has to be the same from
 * every instruction set, compiler and machine. */
#ifndef OP_HASHES_H
#define OP_HASHES_H

#include "../../core/ops.h"

enum { OP_HASHES = 64 };

struct op_hash {
    char name[64];
    uint64_t value;
};

/* Fill out[OP_HASHES]; returns how many there are. */
int hash_ops(const struct mg_ops *, struct op_hash *out);

#endif
