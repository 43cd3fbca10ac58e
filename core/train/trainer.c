/* SPDX-License-Identifier: Apache-2.0
 * trainer.c - see trainer.h. The documents of a batch are dealt into slices by their
 * lengths alone; each slice has its own gradient; the gradients are summed in the order
 * of the slices. Threads only decide who computes a slice, so their number does not touch
 * a bit. */
#include "trainer.h"

#include "adam.h"
#include "pool.h"
#include "vec.h"

#include <stdlib.h>

enum {
    MAX_SLICES = 16,
    SLICE_ROWS = 384, /* wanted at least: smaller products are slow */
    EVAL_ROWS = 4096, /* about so many at a time in trainer_eval */
    CHUNK = 1 << 14,  /* parameters in a job of the update */
};

struct slice {
    struct net_doc *docs; /* in deal */
    int n_docs, rows;
    double loss;
};

struct trainer_private {
    struct pool *pool;
    int threads;
    struct net_work **work; /* [threads] */
    struct net_doc *deal;   /* the documents of a step, slice by slice */
    int *order, cap;        /* documents from long to short; capacity of both */
    struct slice *slice;
    int n_slices, cap_slices;
    float *grad[MAX_SLICES]; /* [n_params], made when first needed */
    float scale;             /* of the loss, for the gradient; 0: no gradient wanted */
    struct adam_step adam;
    int failed;
};

struct trainer *trainer_new(const struct net_shape *shape, int threads) {
    struct trainer *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    t->shape = *shape, t->n_params = net_params(shape);
    t->params = calloc(t->n_params, sizeof(float));
    t->m = calloc(t->n_params, sizeof(float));
    t->v = calloc(t->n_params, sizeof(float));
    struct trainer_private *p = t->own = calloc(1, sizeof *p);
    int ok = t->params && t->m && t->v && p;
    if (ok) p->threads = threads, p->work = calloc((size_t)threads, sizeof *p->work);
    ok = ok && p->work;
    for (int i = 0; ok && i < threads; i++) ok = (p->work[i] = net_work_new()) != NULL;
    if (ok && (p->pool = pool_new(threads))) return t;
    trainer_free(t);
    return NULL;
}

void trainer_free(struct trainer *t) {
    if (!t) return;
    struct trainer_private *p = t->own;
    if (p) {
        pool_free(p->pool);
        for (int i = 0; p->work && i < p->threads; i++) net_work_free(p->work[i]);
        for (int i = 0; i < MAX_SLICES; i++) free(p->grad[i]);
        free(p->work), free(p->deal), free(p->order), free(p->slice);
    }
    free(p), free(t->params), free(t->m), free(t->v);
    free(t);
}

/* ---- dealing --------------------------------------------------------------------- */

static int reserve(struct trainer_private *p, int n_docs, int n_slices) {
    if (n_docs > p->cap) {
        free(p->deal), free(p->order);
        p->deal = calloc((size_t)n_docs, sizeof *p->deal);
        p->order = calloc((size_t)n_docs, sizeof *p->order);
        p->cap = p->deal && p->order ? n_docs : 0;
    }
    if (n_slices > p->cap_slices) {
        free(p->slice);
        p->slice = calloc((size_t)n_slices, sizeof *p->slice);
        p->cap_slices = p->slice ? n_slices : 0;
    }
    return n_docs > p->cap || n_slices > p->cap_slices ? -1 : 0;
}

/* Indices by length, longest first, equal ones in their order. */
static void sort_by_length(const struct net_doc *docs, int n, int *order) {
    for (int i = 0; i < n; i++) {
        int j = i;
        for (; j > 0 && docs[order[j - 1]].n < docs[i].n; j--) order[j] = order[j - 1];
        order[j] = i;
    }
}

/* Each document, from long to short, goes to the slice that has the fewest rows. Two
 * rounds over the same choice: the first counts, so that the second can lay the slices
 * end to end. */
static void deal(struct trainer_private *p, const struct net_doc *docs, int n) {
    struct net_doc *at = p->deal;
    sort_by_length(docs, n, p->order);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < p->n_slices; i++) {
            struct slice *s = &p->slice[i];
            if (round == 1) s->docs = at, at += s->n_docs;
            s->n_docs = s->rows = 0;
        }
        for (int i = 0; i < n; i++) {
            struct slice *s = &p->slice[0];
            for (int j = 1; j < p->n_slices; j++)
                if (p->slice[j].rows < s->rows) s = &p->slice[j];
            if (round == 1) s->docs[s->n_docs] = docs[p->order[i]];
            s->n_docs++, s->rows += docs[p->order[i]].n;
        }
    }
}

static int count_rows(const struct net_doc *docs, int n) {
    int rows = 0;
    for (int i = 0; i < n; i++) rows += docs[i].n;
    return rows;
}

/* ---- jobs ------------------------------------------------------------------------ */

static void run_slice(void *ctx, int job, int thread) {
    struct trainer *t = ctx;
    struct trainer_private *p = t->own;
    struct slice *s = &p->slice[job];
    float *grad = p->scale != 0.0f ? p->grad[job] : NULL;
    if (net_run(&t->shape, t->params, s->docs, s->n_docs, p->scale, p->work[thread],
                &s->loss, grad) != 0)
        __atomic_store_n(&p->failed, 1, __ATOMIC_RELAXED);
}

/* Sum the gradients of one chunk of parameters and update it. */
static void run_update(void *ctx, int job, int thread) {
    (void)thread;
    struct trainer *t = ctx;
    struct trainer_private *p = t->own;
    size_t at = (size_t)job * CHUNK, n = t->n_params - at;
    if (n > CHUNK) n = CHUNK;
    float *g = p->grad[0] + at;
    for (int s = 1; s < p->n_slices; s++) vec_add(n, p->grad[s] + at, g);
    adam_update(p->adam, n, g, t->params + at, t->m + at, t->v + at);
}

static int make_gradients(struct trainer *t, int n) {
    for (int i = 0; i < n; i++)
        if (!t->own->grad[i] &&
            !(t->own->grad[i] = aligned_alloc(64, (t->n_params * 4 + 63) & ~(size_t)63)))
            return -1;
    return 0;
}

/* Run all documents in n_slices slices; *sum = summed loss. */
static int run_all(struct trainer *t, const struct net_doc *docs, int n, int n_slices,
                   float scale, double *sum) {
    struct trainer_private *p = t->own;
    if (reserve(p, n, n_slices) != 0) return -1;
    p->n_slices = n_slices, p->scale = scale, p->failed = 0;
    deal(p, docs, n);
    pool_run(p->pool, run_slice, t, n_slices);
    *sum = 0;
    for (int i = 0; i < n_slices; i++) *sum += p->slice[i].loss;
    return p->failed ? -1 : 0;
}

/* How many slices so many documents and rows make: a power of two, so that two, four or
 * more threads have about the same to do. */
static int count_slices(int n_docs, int rows) {
    int n = 1;
    while (2 * n <= MAX_SLICES && 2 * n <= n_docs && 2 * n * SLICE_ROWS <= rows) n *= 2;
    return n;
}

int trainer_step(struct trainer *t, const struct net_doc *docs, int n, int64_t step,
                 double lr, double *loss) {
    int rows = count_rows(docs, n);
    int n_slices = count_slices(n, rows);
    double sum;
    if (make_gradients(t, n_slices) != 0) return -1;
    if (run_all(t, docs, n, n_slices, 1.0f / (float)rows, &sum) != 0) return -1;
    *loss = sum / rows;
    t->own->adam = adam_begin(step, lr);
    pool_run(t->own->pool, run_update, t, (int)((t->n_params + CHUNK - 1) / CHUNK));
    return 0;
}

int trainer_eval(struct trainer *t, const struct net_doc *docs, int n, double *loss) {
    double rows = 0, total = 0;
    for (int i = 0, j; i < n; i = j) {
        int in_round = 0;
        for (j = i; j < n && in_round < EVAL_ROWS; j++) in_round += docs[j].n;
        double sum;
        if (run_all(t, docs + i, j - i, count_slices(j - i, in_round), 0.0f, &sum) != 0)
            return -1;
        total += sum, rows += in_round;
    }
    *loss = total / rows;
    return 0;
}
