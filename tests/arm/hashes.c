/* SPDX-License-Identifier: Apache-2.0
 *
 * hashes.c - prints a hash of every kernel over many shapes (tests/unit/op_hashes.c).
 * make test-arm runs it here and, under qemu, built for aarch64, and compares what they
 * print. Links no library, so that a cross compiler is all it takes. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "../../core/gemm.h"
#include "../unit/op_hashes.h"

/* There is no BLIS for the other machine, and nothing here asks for it. */
const struct mg_ops *mg_ops_blis(const struct mg_ops *native) {
    return native;
}

int main(void) {
    static struct op_hash first[OP_HASHES], other[OP_HASHES];
    const int n = hash_ops(mg_ops_get(0), first);
    int bad = 0;
    for (int t = 1; mg_ops_get(t); t++) {
        hash_ops(mg_ops_get(t), other);
        for (int i = 0; i < n; i++)
            if (first[i].value != other[i].value) {
                fprintf(stderr, "%s and %s differ: %s\n", mg_ops_get(0)->name,
                        mg_ops_get(t)->name, first[i].name);
                bad = 1;
            }
    }
    for (int i = 0; i < n; i++)
        printf("%016" PRIx64 " %s\n", first[i].value, first[i].name);
    fprintf(stderr, "%s: %d hashes\n", mg_ops_get(0)->name, n);
    return bad;
}
