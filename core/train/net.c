/* SPDX-License-Identifier: Apache-2.0
 * net.c - forward and backward of a slice (microgpt-checkpoint(5), forward pass). The R
 * rows of all its documents stand below each other, so that a linear is one matrix
 * product over all of them; only attention goes document by document. Owns the layout
 * of the parameter array and what the forward pass keeps for the backward pass. */
#include "net.h"

#include "../gemm.h"
#include "attention.h"
#include "vec.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- parameters ------------------------------------------------------------------ */

/* The array: wte, wpe, lm_head, then per layer wq wk wv wo fc1 fc2. wq, wk, wv lie
 * together, so they are one [3 d, d] matrix. */
enum { PER_LAYER = 6 };

static size_t embd_squared(const struct net_shape *s) {
    return (size_t)s->n_embd * (size_t)s->n_embd;
}

static size_t find_layer(const struct net_shape *s, int layer) {
    return (2 * (size_t)s->vocab_size + (size_t)s->block_size) * (size_t)s->n_embd +
           12 * embd_squared(s) * (size_t)layer;
}

size_t net_params(const struct net_shape *s) {
    return find_layer(s, s->n_layer);
}

int net_tensors(const struct net_shape *s) {
    return 3 + PER_LAYER * s->n_layer;
}

static struct net_tensor layer_tensor(const struct net_shape *s, int layer, int i) {
    static const struct {
        const char *name;
        int rows, cols, at; /* in n_embd, n_embd, n_embd^2 */
    } part[PER_LAYER] = {{"attn_wq", 1, 1, 0}, {"attn_wk", 1, 1, 1},
                         {"attn_wv", 1, 1, 2}, {"attn_wo", 1, 1, 3},
                         {"mlp_fc1", 4, 1, 4}, {"mlp_fc2", 1, 4, 8}};
    struct net_tensor t = {.rows = part[i].rows * s->n_embd,
                           .cols = part[i].cols * s->n_embd,
                           .at = find_layer(s, layer) +
                                 (size_t)part[i].at * embd_squared(s)};
    snprintf(t.name, sizeof t.name, "layer%d.%s", layer, part[i].name);
    return t;
}

struct net_tensor net_tensor(const struct net_shape *s, int i) {
    int v = s->vocab_size, d = s->n_embd, b = s->block_size;
    struct net_tensor head[3] = {
        {"wte", v, d, 0},
        {"wpe", b, d, (size_t)v * (size_t)d},
        {"lm_head", v, d, ((size_t)v + (size_t)b) * (size_t)d},
    };
    return i < 3 ? head[i] : layer_tensor(s, (i - 3) / PER_LAYER, (i - 3) % PER_LAYER);
}

/* ---- activations ----------------------------------------------------------------- */

/* What the backward pass of one layer needs; R rows each. */
struct stash {
    float *n1, *s1; /* [R][d], [R]: input of the attention and the factor of its norm */
    float *qkv;     /* [R][3 d] */
    float *probs;   /* per document [n_head][n][ld] */
    float *o;       /* [R][d]: concatenated heads */
    float *n2, *s2; /* [R][d], [R]: input of the MLP */
    float *h;       /* [R][4 d]: relu(fc1) */
};

struct net_work {
    float *memory;
    size_t size; /* floats */
    struct stash *layer;
    int n_layer;
    float *x0, *s0; /* [R][d], [R]: the normed embedding */
    float *x;       /* [R][d]: the residual stream */
    float *logits;  /* [R][vocab] */
    float *dx;      /* [R][d] */
    float *dn;      /* [R][d] */
    float *dh;      /* [R][4 d]; also d qkv [R][3 d] */
    float *ds;      /* of the attention: attention_scratch */
};

struct net_work *net_work_new(void) {
    return calloc(1, sizeof(struct net_work));
}

void net_work_free(struct net_work *w) {
    if (!w) return;
    free(w->memory);
    free(w->layer);
    free(w);
}

static float *take(struct net_work *w, size_t *used, size_t n) {
    float *p = w->memory ? w->memory + *used : NULL;
    *used += (n + 15) & ~(size_t)15;
    return p;
}

/* Place every array in w->memory and return how many floats they take (memory may be
 * NULL). */
static size_t lay_out(struct net_work *w, const struct net_shape *s, size_t rows,
                      size_t probs, int longest) {
    size_t used = 0, rd = rows * (size_t)s->n_embd;
    w->x0 = take(w, &used, rd), w->s0 = take(w, &used, rows);
    w->x = take(w, &used, rd);
    w->logits = take(w, &used, rows * (size_t)s->vocab_size);
    w->dx = take(w, &used, rd), w->dn = take(w, &used, rd);
    w->dh = take(w, &used, 4 * rd);
    w->ds = take(w, &used, attention_scratch(s->n_head, s->n_embd, longest));
    for (int i = 0; i < s->n_layer; i++) {
        struct stash *l = &w->layer[i];
        l->n1 = take(w, &used, rd), l->s1 = take(w, &used, rows);
        l->qkv = take(w, &used, 3 * rd);
        l->probs = take(w, &used, probs);
        l->o = take(w, &used, rd);
        l->n2 = take(w, &used, rd), l->s2 = take(w, &used, rows);
        l->h = take(w, &used, 4 * rd);
    }
    return used;
}

static int reserve(struct net_work *w, const struct net_shape *s,
                   const struct net_doc *docs, int n_docs) {
    size_t rows = 0, probs = 0;
    int longest = 0;
    for (int i = 0; i < n_docs; i++) {
        rows += (size_t)docs[i].n;
        probs += attention_probs(s->n_head, docs[i].n);
        if (docs[i].n > longest) longest = docs[i].n;
    }
    if (w->n_layer < s->n_layer) {
        free(w->layer);
        w->layer = calloc((size_t)s->n_layer, sizeof *w->layer);
        w->n_layer = w->layer ? s->n_layer : 0;
        if (!w->layer) return -1;
    }
    size_t need = lay_out(w, s, rows, probs, longest);
    if (need > w->size) {
        free(w->memory);
        w->memory = aligned_alloc(64, need * sizeof(float));
        w->size = w->memory ? need : 0;
        if (!w->memory) return -1;
    }
    lay_out(w, s, rows, probs, longest);
    return (int)rows;
}

/* ---- linears --------------------------------------------------------------------- */

/* y [rows][out] = beta y + x [rows][in] * w^T, w [out][in] */
static void linear(int rows, int out, int in, const float *x, const float *w, float beta,
                   float *y) {
    mg_gemm(0, 1, rows, out, in, 1.0f, x, (size_t)in, w, (size_t)in, beta, y,
            (size_t)out);
}

/* dx [rows][in] = dy [rows][out] * w */
static void linear_grad_input(int rows, int out, int in, const float *dy, const float *w,
                              float *dx) {
    mg_gemm(0, 0, rows, in, out, 1.0f, dy, (size_t)out, w, (size_t)in, 0.0f, dx,
            (size_t)in);
}

/* dw [out][in] = dy^T * x */
static void linear_grad_weight(int rows, int out, int in, const float *dy, const float *x,
                               float *dw) {
    mg_gemm(1, 0, out, in, rows, 1.0f, dy, (size_t)out, x, (size_t)in, 0.0f, dw,
            (size_t)in);
}

/* ---- forward --------------------------------------------------------------------- */

struct pass {
    const struct net_shape *s;
    const float *params;
    const struct net_doc *docs;
    int n_docs, rows;
    struct net_work *w;
};

static void norm_rows(const struct pass *p, const float *x, float *y, float *scale) {
    int d = p->s->n_embd;
    for (ptrdiff_t r = 0; r < p->rows; r++)
        scale[r] = vec_rmsnorm(d, x + r * d, y + r * d);
}

static void embed(const struct pass *p) {
    size_t d = (size_t)p->s->n_embd;
    const float *wte = p->params, *wpe = wte + (size_t)p->s->vocab_size * d;
    float *x = p->w->x;
    for (int i = 0; i < p->n_docs; i++)
        for (int t = 0; t < p->docs[i].n; t++, x += d) {
            memcpy(x, wte + (size_t)p->docs[i].tokens[t] * d, d * sizeof *x);
            vec_add(d, wpe + (size_t)t * d, x);
        }
    norm_rows(p, p->w->x, p->w->x0, p->w->s0);
    memcpy(p->w->x, p->w->x0, (size_t)p->rows * d * sizeof *x);
}

static void attend(const struct pass *p, struct stash *l) {
    int d = p->s->n_embd, n_head = p->s->n_head;
    const float *qkv = l->qkv;
    float *probs = l->probs, *o = l->o;
    for (int i = 0; i < p->n_docs; i++) {
        int n = p->docs[i].n;
        attention_forward(n_head, d, n, qkv, probs, o, p->w->ds);
        qkv += (ptrdiff_t)n * 3 * d, o += (ptrdiff_t)n * d;
        probs += attention_probs(n_head, n);
    }
}

static void forward_layer(const struct pass *p, int layer) {
    const float *w = p->params + find_layer(p->s, layer);
    struct stash *l = &p->w->layer[layer];
    int d = p->s->n_embd, rows = p->rows;
    size_t dd = embd_squared(p->s);
    norm_rows(p, p->w->x, l->n1, l->s1);
    linear(rows, 3 * d, d, l->n1, w, 0.0f, l->qkv);
    attend(p, l);
    linear(rows, d, d, l->o, w + 3 * dd, 1.0f, p->w->x);
    norm_rows(p, p->w->x, l->n2, l->s2);
    linear(rows, 4 * d, d, l->n2, w + 4 * dd, 0.0f, l->h);
    vec_relu((size_t)rows * 4 * (size_t)d, l->h);
    linear(rows, d, 4 * d, l->h, w + 8 * dd, 1.0f, p->w->x);
}

static const float *lm_head(const struct pass *p) {
    return p->params + net_tensor(p->s, 2).at;
}

/* Logits to probabilities; returns the summed cross entropy. */
static double cross_entropy(const struct pass *p) {
    int vocab = p->s->vocab_size;
    float *l = p->w->logits;
    double loss = 0;
    for (int i = 0; i < p->n_docs; i++)
        for (int t = 0; t < p->docs[i].n; t++, l += vocab) {
            float target = l[p->docs[i].tokens[t + 1]];
            loss += (double)vec_softmax(vocab, vocab, l) - (double)target;
        }
    return loss;
}

/* ---- backward -------------------------------------------------------------------- */

/* dx += the gradient of norm_rows, from dy. */
static void norm_rows_grad(const struct pass *p, const float *dy, const float *y,
                           const float *scale, float *dx) {
    int d = p->s->n_embd;
    for (ptrdiff_t r = 0; r < p->rows; r++)
        vec_rmsnorm_grad(d, dy + r * d, y + r * d, scale[r], dx + r * d);
}

/* Probabilities to the gradient of scale * loss by the logits; then through lm_head into
 * dx. */
static void backward_head(const struct pass *p, float scale, float *grad) {
    int vocab = p->s->vocab_size, d = p->s->n_embd;
    float *l = p->w->logits;
    for (int i = 0; i < p->n_docs; i++)
        for (int t = 0; t < p->docs[i].n; t++, l += vocab) {
            l[p->docs[i].tokens[t + 1]] -= 1.0f;
            for (int j = 0; j < vocab; j++) l[j] *= scale;
        }
    l = p->w->logits;
    linear_grad_weight(p->rows, vocab, d, l, p->w->x, grad + net_tensor(p->s, 2).at);
    linear_grad_input(p->rows, vocab, d, l, lm_head(p), p->w->dx);
}

static void backward_attend(const struct pass *p, const struct stash *l,
                            const float *dout, float *dqkv) {
    int d = p->s->n_embd, n_head = p->s->n_head;
    const float *qkv = l->qkv, *probs = l->probs;
    for (int i = 0; i < p->n_docs; i++) {
        int n = p->docs[i].n;
        attention_backward(n_head, d, n, qkv, probs, dout, dqkv, p->w->ds);
        qkv += (ptrdiff_t)n * 3 * d, dqkv += (ptrdiff_t)n * 3 * d;
        dout += (ptrdiff_t)n * d, probs += attention_probs(n_head, n);
    }
}

static void backward_layer(const struct pass *p, int layer, float *grad) {
    const float *w = p->params + find_layer(p->s, layer);
    const struct stash *l = &p->w->layer[layer];
    float *g = grad + find_layer(p->s, layer);
    float *dx = p->w->dx, *dn = p->w->dn, *dh = p->w->dh;
    int d = p->s->n_embd, rows = p->rows;
    size_t dd = embd_squared(p->s);
    linear_grad_weight(rows, d, 4 * d, dx, l->h, g + 8 * dd);
    linear_grad_input(rows, d, 4 * d, dx, w + 8 * dd, dh);
    vec_relu_grad((size_t)rows * 4 * (size_t)d, l->h, dh);
    linear_grad_weight(rows, 4 * d, d, dh, l->n2, g + 4 * dd);
    linear_grad_input(rows, 4 * d, d, dh, w + 4 * dd, dn);
    norm_rows_grad(p, dn, l->n2, l->s2, dx);

    linear_grad_weight(rows, d, d, dx, l->o, g + 3 * dd);
    linear_grad_input(rows, d, d, dx, w + 3 * dd, dn);
    backward_attend(p, l, dn, dh);
    linear_grad_weight(rows, 3 * d, d, dh, l->n1, g);
    linear_grad_input(rows, 3 * d, d, dh, w, dn);
    norm_rows_grad(p, dn, l->n1, l->s1, dx);
}

static void backward_embed(const struct pass *p, float *grad) {
    size_t d = (size_t)p->s->n_embd;
    float *wte = grad, *wpe = grad + (size_t)p->s->vocab_size * d;
    float *de = p->w->dn;
    memset(de, 0, (size_t)p->rows * d * sizeof *de);
    norm_rows_grad(p, p->w->dx, p->w->x0, p->w->s0, de);
    memset(grad, 0, net_tensor(p->s, 2).at * sizeof *grad);
    for (int i = 0; i < p->n_docs; i++)
        for (int t = 0; t < p->docs[i].n; t++, de += d) {
            vec_add(d, de, wte + (size_t)p->docs[i].tokens[t] * d);
            vec_add(d, de, wpe + (size_t)t * d);
        }
}

int net_run(const struct net_shape *s, const float *params, const struct net_doc *docs,
            int n_docs, float scale, struct net_work *w, double *loss, float *grad) {
    int rows = reserve(w, s, docs, n_docs);
    if (rows < 0) return -1;
    struct pass p = {s, params, docs, n_docs, rows, w};
    embed(&p);
    for (int i = 0; i < s->n_layer; i++) forward_layer(&p, i);
    linear(rows, s->vocab_size, s->n_embd, w->x, lm_head(&p), 0.0f, w->logits);
    *loss = cross_entropy(&p);
    if (!grad) return 0;
    backward_head(&p, scale, grad);
    for (int i = s->n_layer - 1; i >= 0; i--) backward_layer(&p, i, grad);
    backward_embed(&p, grad);
    return 0;
}
