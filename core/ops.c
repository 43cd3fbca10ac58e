/* SPDX-License-Identifier: Apache-2.0
 * ops.c - which kernels this machine can run, and the sizes they all agree on. */
#ifdef __x86_64__
#include <cpuid.h>
#endif
#include <string.h>

#include "ops.h"
#include "gemm.h"

extern const struct mg_ops mg_ops_plain, mg_ops_avx2, mg_ops_avx512, mg_ops_neon;

#ifdef __x86_64__
/* clang has no name for it in __builtin_cpu_supports. */
static int has_f16c(void) {
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

static int has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
}

static int has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

/* Best first. */
const struct mg_ops *mg_ops_get(int i) {
    const struct mg_ops *found[4] = {0};
    int n = 0;
#ifdef __x86_64__
    if (has_avx512()) found[n++] = &mg_ops_avx512;
    if (has_avx2()) found[n++] = &mg_ops_avx2;
#elif defined __aarch64__
    found[n++] = &mg_ops_neon;
#endif
    found[n++] = &mg_ops_plain;
    return i >= 0 && i < n ? found[i] : NULL;
}

const struct mg_ops *mg_ops_choose(enum mg_kernels kernels, const char *no_better) {
    const struct mg_ops *native = mg_ops_get(0);
    for (int i = 0; no_better && mg_ops_get(i); i++)
        if (strcmp(mg_ops_get(i)->name, no_better) == 0) native = mg_ops_get(i);
    return kernels == MG_KERNELS_BLIS ? mg_ops_blis(native) : native;
}

const char *mg_instruction_set(void) {
    return mg_ops_get(0)->name;
}

size_t mg_kv_bytes(const struct mg_kv_shape *kv) {
    const size_t positions = ((size_t)kv->block_size + 15) / 16 * 16;
    const size_t size = kv->type == MG_KV_F32 ? 4 : 2;
    const size_t bytes = 2 * positions * (size_t)kv->n_head * (size_t)kv->head_dim * size;
    return (bytes + 63) / 64 * 64;
}

size_t mg_attend_scratch_floats(const struct mg_kv_shape *kv) {
    return 16 * (((size_t)kv->block_size + 15) / 16 * 16 + 16);
}
