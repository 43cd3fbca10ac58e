/* SPDX-License-Identifier: Apache-2.0
 * vec.h - the elementwise work of training on rows of floats, written so that compilers
 * vectorise it. Sums run in 16 lanes and one fixed tree, so the bits do not depend on the
 * width of the vectors. Knows neither network nor text. */
#ifndef TRAIN_VEC_H
#define TRAIN_VEC_H

#include <stddef.h>

/* Before a function: compile it for wider vectors too, the loader picks. Without
 * contraction of products and sums (Makefile) all versions give the same bits. */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) &&              \
    !defined(__SANITIZE_THREAD__)
#define VEC_CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define VEC_CLONES
#endif

/* y[i] = x[i] * s with s = 1 / sqrt(mean(x^2) + 1e-5), which is returned. */
float vec_rmsnorm(int n, const float *x, float *y);
/* dx[i] += the gradient of the norm, from dy and what vec_rmsnorm gave (y, s). */
void vec_rmsnorm_grad(int n, const float *dy, const float *y, float s, float *dx);
/* x = max(x, 0) */
void vec_relu(size_t n, float *x);
/* dy[i] = 0 where y[i], the output of vec_relu, is 0 */
void vec_relu_grad(size_t n, const float *y, float *dy);
/* p = softmax(p) over p[0 ... n-1]; p[n ... full-1] = 0. Returns log(sum exp) of the
 * input. */
float vec_softmax(int n, int full, float *p);
/* ds[i] = p[i] * (ds[i] - sum_j p[j] ds[j]) * scale: the gradient of a softmax row. */
void vec_softmax_grad(int n, const float *p, float scale, float *ds);
/* y += x */
void vec_add(size_t n, const float *x, float *y);

#endif
