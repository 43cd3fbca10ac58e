/* SPDX-License-Identifier: Apache-2.0
 *
 * sampler.c - random state and the choice of a token: xorshift64 from a mixed seed, and
 * softmax over the logits. Everything is double and in a fixed order, and exp comes
 * from the kernels, whose bits are the same on every machine. Knows no lanes, texts or
 * roles. */
#include "sampler.h"

#include "ops.h"

void mg_sampler_init(struct mg_sampler *s, uint64_t seed, double temperature,
                     int compat) {
    uint64_t z = seed;
    if (!compat) { /* splitmix64: near seeds get far states */
        z += 0x9E3779B97F4A7C15u;
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
        z = (z ^ z >> 27) * 0x94D049BB133111EBu;
        z ^= z >> 31;
    }
    s->state = z ? z : 1;
    s->temperature = temperature;
}

/* The next u in [0, 1]: xorshift64. 1 itself comes from the last 2^10 states. */
static double next_uniform(struct mg_sampler *s) {
    uint64_t x = s->state;
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    s->state = x;
    return (double)x / 18446744073709551616.0;
}

static int is_suppressed(int id, const int *suppress, int n_suppress) {
    for (int i = 0; i < n_suppress; i++)
        if (suppress[i] == id) return 1;
    return 0;
}

/* The largest logit that is not suppressed, when top is the largest of all. Mostly that
 * one; the scan is for the step in which a suppressed token would have won. */
static float max_allowed(const float *l, int n, float top, const int *suppress,
                         int n_suppress) {
    int taken = 0;
    for (int i = 0; i < n_suppress; i++) taken |= l[suppress[i]] == top;
    if (!taken) return top;
    float max = -__builtin_inff();
    for (int i = 0; i < n; i++)
        if (l[i] > max && !is_suppressed(i, suppress, n_suppress)) max = l[i];
    return max;
}

/* The last token that is not suppressed and whose logit is max. */
static int pick_greedy(const float *l, int n, float max, const int *suppress,
                       int n_suppress) {
    int i = n - 1;
    while (i > 0 && (l[i] != max || is_suppressed(i, suppress, n_suppress))) i--;
    return i;
}

/* The first i with u * c_last < c_i, else the last i with p_i > 0. Turns p[n] into its
 * running sums: the additions wait for each other, the search over their results need
 * not. */
static int pick_weighted(double *p, int n, double u) {
    double c = 0;
    int last = 0;
    for (int i = 0; i < n; i++) {
        last = p[i] > 0 ? i : last;
        c += p[i];
        p[i] = c;
    }
    double threshold = u * c;
    for (int i = 0; i < n; i++)
        if (threshold < p[i]) return i;
    return last;
}

int mg_sampler_draw(struct mg_sampler *s, const struct mg_ops *ops, const float *logits,
                    int n, const int *suppress, int n_suppress, double *scratch) {
    float max;
    if (ops->max_finite(n, logits, &max) < 0) return -1;
    max = max_allowed(logits, n, max, suppress, n_suppress);
    if (s->temperature == 0) return pick_greedy(logits, n, max, suppress, n_suppress);
    ops->weights(n, logits, max, s->temperature, scratch);
    for (int i = 0; i < n_suppress; i++) scratch[suppress[i]] = 0;
    return pick_weighted(scratch, n, next_uniform(s));
}
