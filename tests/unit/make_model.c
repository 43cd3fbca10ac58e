/* SPDX-License-Identifier: Apache-2.0
 *
 * make_model.c - see make_model.h. Numbers are rounded to half and bfloat16 by arithmetic
 * on doubles, not by the conversions that core uses. */
#include "make_model.h"

#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TENSORS = 3 + 6 * 64 };

struct tensor {
    char name[40];
    int rows, cols;
    enum make_dtype dtype;
};

uint64_t random_u64(uint64_t *state) {
    uint64_t z = *state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return z ^ z >> 31;
}

int random_int(uint64_t *state, int from, int to) {
    return from + (int)(random_u64(state) % (uint64_t)(to - from + 1));
}

double random_normal(uint64_t *state) {
    double u = ((double)(random_u64(state) >> 11) + 0.5) / 9007199254740992.0;
    double v = (double)(random_u64(state) >> 11) / 9007199254740992.0;
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}

static void die(const char *what) {
    perror(what);
    abort();
}

static uint16_t to_half(double x) {
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    double a = fabs(x);
    int e;
    frexp(a, &e); /* a = m 2^e, 0.5 <= m < 1 */
    e = a == 0 || e < -13 ? -13 : e;
    double steps = nearbyint(ldexp(a, 11 - e)); /* 10 bits behind the leading one */
    if (steps == 2048) {
        steps = 1024;
        e++;
    }
    if (steps < 1024) return (uint16_t)(sign | (int)steps); /* subnormal */
    return (uint16_t)(sign | (e + 14) << 10 | ((int)steps - 1024));
}

static uint16_t to_bfloat(double x) {
    float f = (float)x;
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x7FFF + (u >> 16 & 1)) >> 16);
}

static void write_number(FILE *f, enum make_dtype dtype, double x) {
    float full = (float)x;
    uint16_t half = dtype == MAKE_F16 ? to_half(x) : to_bfloat(x);
    if (fwrite(dtype == MAKE_F32 ? (void *)&full : (void *)&half,
               dtype == MAKE_F32 ? 4 : 2, 1, f) != 1)
        die("fwrite");
}

static int list_tensors(const struct make_model *m, struct tensor *t) {
    static const char *const square[] = {"attn_wq", "attn_wk", "attn_wv", "attn_wo"};
    int n = 0, d = m->n_embd;
    t[n++] = (struct tensor){"wte", m->vocab_size, d, 0};
    t[n++] = (struct tensor){"wpe", m->block_size, d, 0};
    t[n++] = (struct tensor){"lm_head", m->vocab_size, d, 0};
    for (int l = 0; l < m->n_layer; l++) {
        for (int i = 0; i < 4; i++, n++) {
            t[n] = (struct tensor){"", d, d, 0};
            snprintf(t[n].name, sizeof t[n].name, "layer%d.%s", l, square[i]);
        }
        t[n] = (struct tensor){"", 4 * d, d, 0};
        snprintf(t[n].name, sizeof t[n].name, "layer%d.mlp_fc1", l);
        n++;
        t[n] = (struct tensor){"", d, 4 * d, 0};
        snprintf(t[n].name, sizeof t[n].name, "layer%d.mlp_fc2", l);
        n++;
    }
    for (int i = 0; i < n; i++)
        t[i].dtype = m->dtype == MAKE_MIXED ? (enum make_dtype)(i % 3) : m->dtype;
    return n;
}

static FILE *create_file(const char *dir, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    if (!f) die(path);
    return f;
}

static void close_file(FILE *f) {
    if (fclose(f) != 0) die("fclose");
}

static void write_weights(const struct make_model *m, const char *dir) {
    static const char *const names[] = {"F32", "F16", "BF16"};
    struct tensor t[MAX_TENSORS];
    int n = list_tensors(m, t);
    char *header = NULL;
    size_t len = 0, at = 0;
    FILE *h = open_memstream(&header, &len);
    for (int i = 0; i < n; i++) {
        size_t bytes =
            (size_t)t[i].rows * (size_t)t[i].cols * (t[i].dtype == MAKE_F32 ? 4 : 2);
        fprintf(
            h, "%c\"%s\":{\"dtype\":\"%s\",\"shape\":[%d,%d],\"data_offsets\":[%zu,%zu]}",
            i ? ',' : '{', t[i].name, names[t[i].dtype], t[i].rows, t[i].cols, at,
            at + bytes);
        at += bytes;
    }
    fprintf(h, "}%*s", m->pad, "");
    while (m->align && (8 + ftell(h)) % m->align != 0) putc(' ', h);
    close_file(h);

    FILE *f = create_file(dir, "weights.safetensors");
    for (int i = 0; i < 8; i++) putc((int)(len >> 8 * i & 0xFF), f);
    fwrite(header, 1, len, f);
    free(header);
    uint64_t state = m->seed;
    double std = m->std > 0 ? m->std : 0.08;
    for (int i = 0; i < n; i++)
        for (long k = 0; k < (long)t[i].rows * t[i].cols; k++)
            write_number(f, t[i].dtype, std * random_normal(&state));
    close_file(f);
}

static uint32_t nth_char(const struct make_model *m, int i) {
    if (m->chars) return m->chars[i];
    if (i < 28) return i < 26 ? 'a' + (uint32_t)i : i == 26 ? ' ' : '\n';
    return (i % 5 == 0 ? 0x1F000 : 0x3400) + (uint32_t)i;
}

static void write_meta(const struct make_model *m, const char *dir) {
    FILE *f = create_file(dir, "meta.json");
    fprintf(
        f,
        "{\"vocab_size\":%d,\"n_embd\":%d,\"n_head\":%d,\"n_layer\":%d,\"block_size\":%d,"
        "\"special_tokens\":%s,\"chars\":[",
        m->vocab_size, m->n_embd, m->n_head, m->n_layer, m->block_size,
        m->chat ? "[\"user\",\"assistant\",\"end_turn\"]" : "null");
    int n = m->vocab_size - (m->chat ? 4 : 1);
    for (int i = 0; i < n; i++) {
        uint32_t c = nth_char(m, i);
        fprintf(f, i ? ",\"" : "\"");
        if (c >= 0x10000)
            fprintf(f, "\\u%04X\\u%04X", 0xD800 + (c - 0x10000) / 0x400,
                    0xDC00 + (c - 0x10000) % 0x400);
        else
            fprintf(f, "\\u%04X", c);
        putc('"', f);
    }
    fprintf(f, "]}\n");
    close_file(f);
}

char *make_model(const struct make_model *m) {
    const char *tmp = getenv("TMPDIR");
    char *dir = NULL;
    if (m->n_layer > 64 || asprintf(&dir, "%s/mg-model-XXXXXX", tmp ? tmp : "/tmp") < 0)
        die("make_model");
    if (!mkdtemp(dir)) die(dir);
    write_meta(m, dir);
    write_weights(m, dir);
    return dir;
}

static int remove_entry(const char *path, const struct stat *st, int type,
                        struct FTW *ftw) {
    (void)st, (void)type, (void)ftw;
    return remove(path);
}

void remove_model(char *dir) {
    if (nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS) != 0) die(dir);
    free(dir);
}
