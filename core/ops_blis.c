/* SPDX-License-Identifier: Apache-2.0
 * ops_blis.c - matrix products by BLIS; the only file that includes it.
 *
 * The typed expert interface is used with a run-time object of its own: one thread
 * whatever the environment says, and for the forward pass without "sup" (kernels for
 * small matrices), because those make the bits of a row depend on how many rows there
 * are. */
#include <blis.h>
#include "gemm.h"

#include <pthread.h>
#include <stdlib.h>
#ifdef __x86_64__
#include <cpuid.h>
#endif

enum { SCRATCH = 1 << 18 }; /* floats: weights widened at a time */

static struct mg_ops blis_ops;
static const struct mg_ops *native_ops;
static _Thread_local float
    scratch[SCRATCH]; /* bounded; touched with f16 and bf16 weights only */

/* AMD processors that are newer than this BLIS get its generic kernels, several times
 * slower than what they can run: choose for them, by the variable that BLIS reads when it
 * starts, unless the operator did. */
static void choose_kernels(void) {
#ifdef __x86_64__
    unsigned a = 0, b = 0, c = 0, d = 0;
    __get_cpuid(0, &a, &b, &c, &d);
    const int is_amd = b == signature_AMD_ebx && c == signature_AMD_ecx;
    __get_cpuid(1, &a, &b, &c, &d);
    const unsigned family = (a >> 8 & 15) + (a >> 20 & 255);
    if (!is_amd || family <= 0x19 || !__builtin_cpu_supports("avx2")) return;
    const int wide =
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
    char type[12];
    snprintf(type, sizeof type, "%d", wide ? BLIS_ARCH_SKX : BLIS_ARCH_HASWELL);
    setenv("BLIS_ARCH_TYPE", type, 0);
#endif
}

static rntm_t one_thread(int small_kernels) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, choose_kernels);
    rntm_t rt = BLIS_RNTM_INITIALIZER;
    bli_rntm_set_num_threads(1, &rt);
    if (!small_kernels) bli_rntm_disable_l3_sup(&rt);
    return rt;
}

void mg_gemm(int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a,
             size_t lda, const float *b, size_t ldb, float beta, float *c, size_t ldc) {
    rntm_t rt = one_thread(1);
    bli_sgemm_ex(trans_a ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE,
                 trans_b ? BLIS_TRANSPOSE : BLIS_NO_TRANSPOSE, m, n, k, &alpha,
                 (float *)a, (inc_t)lda, 1, (float *)b, (inc_t)ldb, 1, &beta, c,
                 (inc_t)ldc, 1, NULL, &rt);
}

/* y = x w' for outs rows of w in float. */
static void multiply(const float *w, int outs, int k, int rows, const float *x,
                     size_t ldx, float *y, size_t ldy, enum mg_epilogue op) {
    rntm_t rt = one_thread(0);
    float one = 1, beta = op == MG_ADD ? 1 : 0;
    bli_sgemm_ex(BLIS_NO_TRANSPOSE, BLIS_NO_TRANSPOSE, rows, outs, k, &one, (float *)x,
                 (inc_t)ldx, 1, (float *)w, 1, k, &beta, y, (inc_t)ldy, 1, NULL, &rt);
    if (op != MG_RELU) return;
    for (int r = 0; r < rows; r++)
        for (int o = 0; o < outs; o++)
            if (y[r * ldy + o] < 0) y[r * ldy + o] = 0;
}

static void linear(const struct mg_matrix *w, int rows, const float *x, size_t ldx,
                   float *y, size_t ldy, enum mg_epilogue op) {
    const int in_place = w->dtype == MG_F32 && (uintptr_t)w->data % 4 == 0;
    const size_t size = mg_dtype_size(w->dtype), k = (size_t)w->cols;
    if (in_place) {
        multiply(w->data, w->rows, w->cols, rows, x, ldx, y, ldy, op);
        return;
    }
    if (k > SCRATCH) { /* not one row fits */
        native_ops->linear(w, rows, x, ldx, y, ldy, op);
        return;
    }
    const int step = (int)(SCRATCH / k);
    for (int o = 0; o < w->rows; o += step) {
        const int outs = w->rows - o < step ? w->rows - o : step;
        native_ops->widen(w->dtype, (const char *)w->data + (size_t)o * k * size,
                          (size_t)outs * k, scratch);
        multiply(scratch, outs, w->cols, rows, x, ldx, y + o, ldy, op);
    }
}

const char *mg_blis_version(void) {
    return bli_info_get_version_str();
}

const struct mg_ops *mg_ops_blis(const struct mg_ops *native) {
    native_ops = native;
    blis_ops = *native;
    blis_ops.name = "blis";
    blis_ops.linear = linear;
    return &blis_ops;
}
