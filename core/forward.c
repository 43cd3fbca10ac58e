/* SPDX-License-Identifier: Apache-2.0
 * forward.c - the forward pass of microgpt-checkpoint(5) over a ragged batch: some rows
 * of some lanes.
 *
 * Owns one reservation: this struct, activations, logits, then the KV caches of all
 * lanes. Pages that were never written cost nothing. Products run over the rows of all
 * spans at once, attention span by span. Knows nothing of sampling, text or requests. */
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include "error.h"
#include "forward.h"
#include "ops.h"

/* Some rows of one lane as the layers see them. */
struct piece {
    int lane, pos, row, n; /* rows row ... row+n-1 stand at positions pos ... */
};

struct mg_forward {
    const struct mg_model *model;
    struct mg_kv_shape kv;
    size_t kv_bytes; /* of one lane and layer */
    size_t bytes;    /* reserved, this struct included */
    int lanes, max_rows;
    /* floats between rows; not a power of two, which would put all rows in the same cache
     * sets */
    size_t ld, ld_hidden, ld_logits;
    struct piece *piece; /* [lanes] */
    float *x,
        *norm; /* [max_rows][ld]: residual stream, its rmsnorm or attention's output */
    float *q, *k, *v; /* [max_rows][ld] */
    float *hidden;    /* [max_rows][ld_hidden] */
    float *logits;    /* [lanes][ld_logits] */
    float *scratch;   /* for attend */
    char *cache;      /* [lanes][n_layer][kv_bytes] */
};

/* Sizes add up to SIZE_MAX rather than wrap: such a reservation is refused by the kernel.
 */
static size_t multiply(size_t a, size_t b) {
    size_t r;
    return __builtin_mul_overflow(a, b, &r) ? SIZE_MAX : r;
}

/* Take n bytes of a reservation that has *used so far; returns their offset. */
static size_t take(size_t *used, size_t n) {
    size_t at = *used, rounded;
    if (__builtin_add_overflow(n, 63, &rounded) ||
        __builtin_add_overflow(at, rounded & ~(size_t)63, used))
        *used = SIZE_MAX - 63;
    return at;
}

static size_t padded(size_t n) {
    return (n + 15) / 16 * 16 + 16;
}

static void measure(struct mg_forward *f) {
    const struct mg_model_info *info = &f->model->info;
    f->kv = (struct mg_kv_shape){info->n_head, f->model->head_dim, info->block_size,
                                 f->kv.type};
    f->kv_bytes = mg_kv_bytes(&f->kv);
    f->ld = padded((size_t)info->n_embd);
    f->ld_hidden = padded(4 * (size_t)info->n_embd);
    f->ld_logits = padded((size_t)info->vocab_size);
}

/* base + at; NULL stays NULL. */
static void *place(char *base, size_t at) {
    return base ? base + at : NULL;
}

/* Lay f out at base (NULL: only count). Returns the bytes. */
static size_t lay_out(struct mg_forward *f, char *base) {
    const size_t rows = (size_t)f->max_rows, lanes = (size_t)f->lanes;
    const size_t row = multiply(rows, f->ld * sizeof(float));
    const size_t layers = multiply(f->kv_bytes, (size_t)f->model->info.n_layer);
    size_t used = 0;
    take(&used, sizeof *f);
    f->piece = place(base, take(&used, multiply(lanes, sizeof *f->piece)));
    float **rows_of[] = {&f->x, &f->norm, &f->q, &f->k, &f->v};
    for (size_t i = 0; i < sizeof rows_of / sizeof *rows_of; i++)
        *rows_of[i] = place(base, take(&used, row));
    f->hidden = place(base, take(&used, multiply(rows, f->ld_hidden * sizeof(float))));
    f->logits = place(base, take(&used, multiply(lanes, f->ld_logits * sizeof(float))));
    f->scratch =
        place(base, take(&used, mg_attend_scratch_floats(&f->kv) * sizeof(float)));
    f->cache = place(base, take(&used, multiply(lanes, layers)));
    return used;
}

size_t mg_forward_bytes(const struct mg_model *model, int lanes, int max_rows,
                        enum mg_kv kv) {
    struct mg_forward f = {
        .model = model, .lanes = lanes, .max_rows = max_rows, .kv.type = kv};
    measure(&f);
    return lay_out(&f, NULL);
}

struct mg_forward *mg_forward_new(const struct mg_model *model, int lanes, int max_rows,
                                  enum mg_kv kv, struct mg_error *err) {
    const size_t bytes = mg_forward_bytes(model, lanes, max_rows, kv);
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (base == MAP_FAILED) {
        mg_fail(err, MG_ENOMEM,
                "cannot reserve %zu MiB for %d lanes: fewer lanes need less", bytes >> 20,
                lanes);
        return NULL;
    }
    struct mg_forward *f = base;
    *f = (struct mg_forward){
        .model = model, .lanes = lanes, .max_rows = max_rows, .kv.type = kv};
    measure(f);
    f->bytes = lay_out(f, base);
    return f;
}

void mg_forward_free(struct mg_forward *f) {
    if (f) munmap(f, f->bytes);
}

size_t mg_forward_ld(const struct mg_forward *f) {
    return f->ld_logits;
}

static void *cache_of(const struct mg_forward *f, int lane, int layer) {
    return f->cache +
           ((size_t)lane * (size_t)f->model->info.n_layer + (size_t)layer) * f->kv_bytes;
}

static void normalize(const struct mg_forward *f, int rows, const float *x, float *y) {
    for (int r = 0; r < rows; r++)
        f->model->ops->rmsnorm(f->model->info.n_embd, x + r * f->ld, y + r * f->ld);
}

/* x = rmsnorm(wte[token] + wpe[pos]) for all rows, which are counted. */
static int embed_spans(struct mg_forward *f, const struct mg_span *spans, int n) {
    const struct mg_model *m = f->model;
    int row = 0;
    for (int s = 0; s < n; s++) {
        f->piece[s] = (struct piece){spans[s].lane, spans[s].pos, row, spans[s].n};
        for (int i = 0; i < spans[s].n; i++, row++)
            m->ops->embed(&m->tensors.wte, spans[s].tokens[i], &m->tensors.wpe,
                          spans[s].pos + i, f->x + row * f->ld);
    }
    normalize(f, row, f->x, f->x);
    return row;
}

static void store_keys(struct mg_forward *f, const struct mg_layer *layer, int index,
                       int rows, int pieces) {
    const struct mg_ops *ops = f->model->ops;
    ops->linear(&layer->wk, rows, f->norm, f->ld, f->k, f->ld, MG_SET);
    ops->linear(&layer->wv, rows, f->norm, f->ld, f->v, f->ld, MG_SET);
    for (int i = 0; i < pieces; i++) {
        const struct piece *p = &f->piece[i];
        ops->kv_store(&f->kv, cache_of(f, p->lane, index), p->pos, p->n,
                      f->k + p->row * f->ld, f->v + p->row * f->ld, f->ld);
    }
}

/* x += Wo attention(q, cache) for the rows of all pieces. */
static void attend(struct mg_forward *f, const struct mg_layer *layer, int index,
                   int rows, int pieces) {
    const struct mg_ops *ops = f->model->ops;
    ops->linear(&layer->wq, rows, f->norm, f->ld, f->q, f->ld, MG_SET);
    for (int i = 0; i < pieces; i++) {
        const struct piece *p = &f->piece[i];
        ops->attend(&f->kv, cache_of(f, p->lane, index), p->pos, p->n,
                    f->q + p->row * f->ld, f->ld, f->norm + p->row * f->ld, f->ld,
                    f->scratch);
    }
    ops->linear(&layer->wo, rows, f->norm, f->ld, f->x, f->ld, MG_ADD);
}

/* x += fc2 relu(fc1 rmsnorm(x)) */
static void feed_forward(struct mg_forward *f, const struct mg_layer *layer, int rows) {
    const struct mg_ops *ops = f->model->ops;
    normalize(f, rows, f->x, f->norm);
    ops->linear(&layer->fc1, rows, f->norm, f->ld, f->hidden, f->ld_hidden, MG_RELU);
    ops->linear(&layer->fc2, rows, f->hidden, f->ld_hidden, f->x, f->ld, MG_ADD);
}

/* Keep only the rows whose logits are wanted, moved to the front; the last layer needs no
 * more once keys and values are stored. Returns their number, each a piece of one row. */
static int keep_wanted(struct mg_forward *f, const struct mg_span *spans, int n) {
    const size_t bytes = (size_t)f->model->info.n_embd * sizeof(float);
    int kept = 0;
    for (int s = 0; s < n; s++) {
        if (!spans[s].want_logits) continue;
        const struct piece p = f->piece[s];
        const int row = p.row + p.n - 1;
        f->piece[kept] = (struct piece){p.lane, p.pos + p.n - 1, kept, 1};
        if (row != kept) {
            memcpy(f->x + kept * f->ld, f->x + row * f->ld, bytes);
            memcpy(f->norm + kept * f->ld, f->norm + row * f->ld, bytes);
        }
        kept++;
    }
    return kept;
}

const float *mg_forward_run(struct mg_forward *f, const struct mg_span *spans,
                            int n_spans) {
    const struct mg_model *m = f->model;
    const int last = m->info.n_layer - 1;
    int pieces = n_spans, rows = embed_spans(f, spans, n_spans);
    for (int i = 0; i <= last; i++) {
        const struct mg_layer *layer = &m->tensors.layer[i];
        normalize(f, rows, f->x, f->norm);
        store_keys(f, layer, i, rows, pieces);
        if (i == last) pieces = rows = keep_wanted(f, spans, n_spans);
        if (rows == 0) break;
        attend(f, layer, i, rows, pieces);
        feed_forward(f, layer, rows);
    }
    if (rows > 0)
        m->ops->linear(&m->tensors.lm_head, rows, f->x, f->ld, f->logits, f->ld_logits,
                       MG_SET);
    return f->logits;
}
