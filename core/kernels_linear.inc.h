/* SPDX-License-Identifier: Apache-2.0
 * kernels_linear.inc.h - y = W x for weights as they lie in the file, part of kernels.c.
 *
 * A tile computes a few rows of x times a few rows of W with sixteen floats for each sum,
 * at most twenty-four of them, so that they stay in registers. Which tile computes a sum
 * never changes its value: order and operands are the same in all. */

/* One call of linear, as the tiles see it. */
struct product {
    const char *w; /* first row of this tile */
    size_t stride; /* bytes from one row of w to the next */
    int k;         /* elements in a row */
    const float *x;
    size_t ldx;
    float *y;
    size_t ldy;
    enum mg_epilogue op;
};

/* What to fetch ahead of use: a line of so many rows of weights each time, at a distance
 * of so many bytes. */
struct ahead {
    ptrdiff_t bytes;
    int rows; /* 0: nothing */
};

INLINE float finish1(float y, float s, enum mg_epilogue op) {
    return op == MG_ADD ? y + s : op == MG_RELU && s < 0 ? 0 : s;
}

INLINE void finish4(float *y, vec4 s, enum mg_epilogue op) {
    if (op == MG_ADD)
        s = *(vec4_mem *)y + s;
    else if (op == MG_RELU)
        s = (vec4)(~(s < 0) & (__typeof__(s < 0))s);
    *(vec4_mem *)y = s;
}

enum { SUMS = 24 }; /* of a tile, at most */

/* Reduce the sums of rows of six and hand them on: four of a row, then the other two. */
INLINE void tile_finish_six(const struct product *p, struct x16 a[SUMS], int rows) {
    struct x16 fours[16], twos[8];
    vec4 s[4];
    UNROLL for (int i = 0; i < 4; i++) {
        const int r = i < rows ? i : 0;
        UNROLL for (int o = 0; o < 4; o++) fours[4 * i + o] = a[6 * r + o];
        UNROLL for (int o = 0; o < 2; o++) twos[2 * i + o] = a[6 * r + 4 + o];
    }
    sum16(fours, s);
    UNROLL for (int r = 0; r < rows; r++) finish4(p->y + (size_t)r * p->ldy, s[r], p->op);
    UNROLL for (int i = 0; i < 2; i++) s[i] = sum4(twos + 4 * i);
    UNROLL for (int r = 0; r < rows; r++) {
        float *y = p->y + (size_t)r * p->ldy + 4;
        UNROLL for (int o = 0; o < 2; o++) y[o] =
            finish1(y[o], s[r / 2][r % 2 * 2 + o], p->op);
    }
}

/* Reduce the rows * outs sums of a tile and hand them on. */
INLINE void tile_finish(const struct product *p, struct x16 a[SUMS], int rows, int outs) {
    if (outs == 6) {
        tile_finish_six(p, a, rows);
    } else if (rows * outs == 16 || (outs == 4 && rows == 3)) {
        vec4 s[4];
        sum16(a, s);
        UNROLL for (int i = 0; i < rows * outs / 4; i++)
            finish4(p->y + (size_t)(4 * i / outs) * p->ldy + 4 * i % outs, s[i], p->op);
    } else if (outs % 4 == 0) {
        UNROLL for (int i = 0; i < rows * outs / 4; i++)
            finish4(p->y + (size_t)(4 * i / outs) * p->ldy + 4 * i % outs,
                    sum4(a + 4 * i), p->op);
    } else {
        UNROLL for (int i = 0; i < rows * outs; i++) {
            float *y = p->y + (size_t)(i / outs) * p->ldy + i % outs;
            *y = finish1(*y, sum1(a[i]), p->op);
        }
    }
}

/* rows of x times outs rows of w, rows * outs <= SUMS. */
INLINE void tile(enum mg_dtype type, const struct product *p, int rows, int outs,
                 struct ahead ahead) {
    const size_t size = type == MG_F32 ? 4 : 2;
    struct x16 a[SUMS], w[16];
    int k = 0;
    UNROLL for (int i = 0; i < SUMS; i++) a[i] = x16_set(0);
    for (; k + 16 <= p->k; k += 16) {
        const char *wk = p->w + (size_t)k * size;
        UNROLL for (int o = 0; o < outs; o++) {
            /* a line holds sixteen f32 but thirty-two f16 */
            if (o < ahead.rows && (type == MG_F32 || o % 2 == 0 || ahead.rows == 1))
                __builtin_prefetch(p->w + (size_t)(k * ahead.rows + o * 16) * size +
                                   ahead.bytes);
            w[o] = load(type, wk + (size_t)o * p->stride);
        }
        UNROLL for (int r = 0; r < rows; r++) {
            struct x16 x = load(MG_F32, p->x + (size_t)r * p->ldx + k);
            UNROLL for (int o = 0; o < outs; o++) a[r * outs + o] =
                x16_fma(w[o], x, a[r * outs + o]);
        }
    }
    if (k < p->k) {
        const char *wk = p->w + (size_t)k * size;
        UNROLL for (int o = 0; o < outs; o++) w[o] =
            load_some(type, wk + (size_t)o * p->stride, p->k - k);
        UNROLL for (int r = 0; r < rows; r++) {
            struct x16 x = load_some(MG_F32, p->x + (size_t)r * p->ldx + k, p->k - k);
            UNROLL for (int o = 0; o < outs; o++) a[r * outs + o] =
                x16_fma(w[o], x, a[r * outs + o]);
        }
    }
    tile_finish(p, a, rows, outs);
}

enum {
    FAR = 8192,     /* bytes that weights are fetched ahead of use, at least */
    NEAR = 7 << 10, /* floats of x that stay in the first-level cache */
    LEAST = 16      /* rows of x for which w passes by once more, at least */
};

/* Tiles for three rows of x and more: registers decide. */
#if VEC_BYTES == 64
#define TILE_ROWS 4
#define TILE_OUTS 4
#else
#define TILE_ROWS 3
#define TILE_OUTS 2
#endif

/* The next out of w is p->w; n of them are left. */
INLINE struct product move_out(struct product p, int outs) {
    p.w += (size_t)outs * p.stride;
    p.y += outs;
    return p;
}

INLINE struct product move_row(struct product p, int rows) {
    p.x += (size_t)rows * p.ldx;
    p.y += (size_t)rows * p.ldy;
    return p;
}

/* outs rows of w times all rows of x. The weights come from memory once: the first tiles
 * fetch, row by row, the stripe that lies so many bytes away while they compute. */
INLINE void stripe(enum mg_dtype type, struct product p, int rows, int outs,
                   ptrdiff_t away) {
    const struct ahead none = {0, 0};
    const int whole = rows / TILE_ROWS, rest = rows % TILE_ROWS;
    for (int i = 0; i < whole; i++, p = move_row(p, TILE_ROWS)) {
        const ptrdiff_t skip = i * (ptrdiff_t)p.stride;
        if (whole >= outs && i < outs)
            tile(type, &p, TILE_ROWS, outs, (struct ahead){away + skip, 1});
        else if (whole < outs && whole >= outs / 2 && i < outs / 2)
            tile(type, &p, TILE_ROWS, outs, (struct ahead){away + 2 * skip, 2});
        else if (whole < outs / 2 && i == 0)
            tile(type, &p, TILE_ROWS, outs, (struct ahead){away, outs});
        else
            tile(type, &p, TILE_ROWS, outs, none);
    }
    struct ahead last = {away, whole ? 0 : outs};
    if (rest == 3)
        tile(type, &p, 3, outs, last);
    else if (rest == 2)
        tile(type, &p, 2, outs, last);
    else if (rest == 1)
        tile(type, &p, 1, outs, last);
}

/* Stripes of so many outs while they last; the next one would come too late where rows of
 * w are short and those of x few. */
INLINE struct product stripes(enum mg_dtype type, struct product p, int rows, int outs,
                              int width) {
    const ptrdiff_t size = width * (ptrdiff_t)p.stride;
    const ptrdiff_t away = (FAR + size - 1) / size * size;
    for (int o = 0; o + width <= outs; o += width, p = move_out(p, width))
        stripe(type, p, rows, width, away);
    return p;
}

/* outs rows of w times the rows of x one after the other. */
INLINE void rows_alone(enum mg_dtype type, struct product p, int rows, int outs,
                       struct ahead ahead) {
    for (int r = 0; r < rows; r++, p = move_row(p, 1)) tile(type, &p, 1, outs, ahead);
}

INLINE void multiply(enum mg_dtype type, struct product p, int outs, int rows) {
    int o = 0;
    if (rows == 1 && VEC_BYTES == 64 && p.k <= 64)
        for (; o + 16 <= outs; o += 16, p = move_out(p, 16))
            tile(type, &p, 1, 16, (struct ahead){2048, 16});
    if (rows == 1) {
        for (; o + 4 <= outs; o += 4, p = move_out(p, 4))
            tile(type, &p, 1, 4, (struct ahead){FAR, 4});
    } else if (VEC_BYTES < 64 &&
               p.k <= 64) { /* four sums are reduced at the cost of one */
        for (; o + 4 <= outs; o += 4, p = move_out(p, 4))
            rows_alone(type, p, rows, 4, (struct ahead){0, 0});
    } else if (VEC_BYTES == 64 && rows == 2) {
        for (; o + 8 <= outs; o += 8, p = move_out(p, 8))
            tile(type, &p, 2, 8, (struct ahead){FAR, 8});
    } else {
        /* where x comes from the second-level cache, whose bandwidth is the limit then,
         * more outs are made of it each time it passes by */
        const size_t six = 6 * p.stride;
        if (VEC_BYTES == 64 && rows >= 2 * TILE_ROWS && p.k > NEAR / (2 * TILE_ROWS) &&
            six <= NEAR * sizeof(float)) {
            p = stripes(type, p, rows, outs, 6);
            o = outs / 6 * 6;
        }
        p = stripes(type, p, rows, outs - o, TILE_OUTS);
        o += (outs - o) / TILE_OUTS * TILE_OUTS;
    }
    for (; o < outs; o++, p = move_out(p, 1))
        rows_alone(type, p, rows, 1, (struct ahead){0, 0});
}

/* Many rows: as many at a time as stay in the first-level cache while all of w passes by.
 */
INLINE void multiply_blocks(enum mg_dtype type, struct product p, int outs, int rows) {
    int step = NEAR / p.k / TILE_ROWS * TILE_ROWS;
    if (step < LEAST) step = rows; /* w would pass by too often */
    for (int r = 0; r < rows; r += step, p = move_row(p, step))
        multiply(type, p, outs, rows - r < step ? rows - r : step);
}

static void linear(const struct mg_matrix *w, int rows, const float *x, size_t ldx,
                   float *y, size_t ldy, enum mg_epilogue op) {
    struct product p = {
        w->data, (size_t)w->cols * mg_dtype_size(w->dtype), w->cols, x, ldx, y, ldy, op};
    if (w->dtype == MG_F32)
        multiply_blocks(MG_F32, p, w->rows, rows);
    else if (w->dtype == MG_F16)
        multiply_blocks(MG_F16, p, w->rows, rows);
    else
        multiply_blocks(MG_BF16, p, w->rows, rows);
}
