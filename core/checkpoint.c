/* SPDX-License-Identifier: Apache-2.0
 * checkpoint.c - weights.safetensors: map, check all of it before any of it is used, hand
 * out tensors by name. Knows the file format, not the model.
 *
 * The file is mapped read-only and shared and is never copied. The rule to keep: no
 * number of the header is used before it was compared with the size of the file. */
#include "checkpoint.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "error.h"
#include "file.h"
#include "json.h"

#define HEADER_MAX 100000000u /* bytes, as the format's own reader has it */

struct tensor {
    const char *name;    /* in names of the file */
    uint64_t begin, end; /* bytes of the data */
    uint64_t rows, cols;
    enum mg_dtype dtype;
    int bound;
};

struct mg_weights {
    char *path; /* for messages */
    const unsigned char *map;
    size_t size;               /* bytes of the file */
    const unsigned char *data; /* what the offsets count from */
    uint64_t data_size;
    struct tensor *tensor; /* [n_tensors], sorted by name once the layout is checked */
    size_t n_tensors;
    char *names; /* all names, each with its NUL */
};

/* An error about one tensor; -1. Names come from the file and are shown in part. */
static int fail_tensor(const struct mg_weights *w, const char *name, struct mg_error *err,
                       const char *fmt, ...) __attribute__((format(printf, 4, 5)));
static int fail_tensor(const struct mg_weights *w, const char *name, struct mg_error *err,
                       const char *fmt, ...) {
    char text[200];
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return mg_fail(err, MG_EFILE, "%s: tensor \"%.80s\": %s", w->path, name, text);
}

static int map_file(struct mg_weights *w, int dirfd, const char *name,
                    struct mg_error *err) {
    int fd = mg_file_open(dirfd, name, w->path, &w->size, err);
    if (fd < 0) return -1;
    if (w->size < 8) {
        mg_fail(err, MG_EFILE,
                "%s: found %zu bytes, expected at least 8: a header length", w->path,
                w->size);
    } else {
        void *map = mmap(NULL, w->size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED)
            mg_fail(err, errno == ENOMEM ? MG_ENOMEM : MG_ESYSTEM, "%s: mmap: %s",
                    w->path, strerror(errno));
        else
            w->map = map;
    }
    close(fd);
    return w->map ? 0 : -1;
}

/* Two integers >= 0: entry[key] = [a, b]. */
static int read_pair(const struct mg_weights *w, const char *name,
                     const struct mg_json *entry, const char *key, uint64_t out[2],
                     struct mg_error *err) {
    const struct mg_json *pair = mg_json_get(entry, key);
    char found[MG_JSON_DESCRIBE];
    if (!mg_json_is_array(pair))
        return fail_tensor(w, name, err, "%s: found %s, expected an array of 2 integers",
                           key, mg_json_describe(pair, found));
    if (mg_json_size(pair) != 2)
        return fail_tensor(w, name, err, "%s: found %zu elements, expected 2", key,
                           mg_json_size(pair));
    for (size_t i = 0; i < 2; i++) {
        int64_t v;
        if (mg_json_int(mg_json_at(pair, i), &v) || v < 0)
            return fail_tensor(w, name, err,
                               "%s[%zu]: found %s, expected an integer >= 0", key, i,
                               mg_json_describe(mg_json_at(pair, i), found));
        out[i] = (uint64_t)v;
    }
    return 0;
}

static int read_dtype(const struct mg_weights *w, const struct mg_json *entry,
                      struct tensor *t, struct mg_error *err) {
    const struct mg_json *v = mg_json_get(entry, "dtype");
    size_t len;
    const char *text = mg_json_string(v, &len);
    char found[MG_JSON_DESCRIBE];
    if (!text)
        return fail_tensor(w, t->name, err, "dtype: found %s, expected F32, F16 or BF16",
                           mg_json_describe(v, found));
    for (int i = 0; i < MG_N_DTYPES; i++) {
        const char *name = mg_dtypes[i].name;
        if (len != strlen(name) || memcmp(text, name, len)) continue;
        t->dtype = (enum mg_dtype)i;
        return 0;
    }
    return fail_tensor(w, t->name, err,
                       "dtype: found \"%.20s\", expected F32, F16 or BF16", text);
}

/* Fill *t, whose name is set, from its entry in the header. */
static int read_tensor(const struct mg_weights *w, const struct mg_json *entry,
                       struct tensor *t, struct mg_error *err) {
    uint64_t shape[2], at[2], bytes;
    char found[MG_JSON_DESCRIBE];
    if (!mg_json_is_object(entry))
        return fail_tensor(w, t->name, err, "found %s, expected an object",
                           mg_json_describe(entry, found));
    if (read_dtype(w, entry, t, err) ||
        read_pair(w, t->name, entry, "shape", shape, err) ||
        read_pair(w, t->name, entry, "data_offsets", at, err))
        return -1;
    if (at[0] > at[1])
        return fail_tensor(w, t->name, err,
                           "data_offsets: found [%ju, %ju], expected begin <= end",
                           (uintmax_t)at[0], (uintmax_t)at[1]);
    if (at[1] > w->data_size)
        return fail_tensor(
            w, t->name, err,
            "data_offsets: found end %ju, expected at most the %ju bytes of "
            "data in the file (was it cut short?)",
            (uintmax_t)at[1], (uintmax_t)w->data_size);
    if (__builtin_mul_overflow(shape[0], shape[1], &bytes) ||
        __builtin_mul_overflow(bytes, mg_dtype_size(t->dtype), &bytes) ||
        bytes != at[1] - at[0])
        return fail_tensor(w, t->name, err,
                           "data_offsets: found %ju bytes, expected %ju x %ju x %zu",
                           (uintmax_t)(at[1] - at[0]), (uintmax_t)shape[0],
                           (uintmax_t)shape[1], mg_dtype_size(t->dtype));
    t->rows = shape[0];
    t->cols = shape[1];
    t->begin = at[0];
    t->end = at[1];
    return 0;
}

static int check_metadata(const struct mg_weights *w, const struct mg_json *meta,
                          struct mg_error *err) {
    void *iter = NULL;
    const char *key;
    char found[MG_JSON_DESCRIBE];
    size_t len;
    if (!mg_json_is_object(meta))
        return mg_fail(err, MG_EFILE, "%s: __metadata__: found %s, expected an object",
                       w->path, mg_json_describe(meta, found));
    for (const struct mg_json *v; (v = mg_json_next(meta, &iter, &key));)
        if (!mg_json_string(v, &len))
            return mg_fail(err, MG_EFILE,
                           "%s: __metadata__: %.80s: found %s, expected a string",
                           w->path, key, mg_json_describe(v, found));
    return 0;
}

static int is_metadata(const char *key) {
    return !strcmp(key, "__metadata__");
}

/* Room for the tensors of the header and their names. */
static int reserve_tensors(struct mg_weights *w, const struct mg_json *header,
                           struct mg_error *err) {
    void *iter = NULL;
    const char *key;
    size_t name_bytes = 1;
    while (mg_json_next(header, &iter, &key)) name_bytes += strlen(key) + 1;
    w->tensor = calloc(mg_json_size(header) + 1, sizeof *w->tensor);
    w->names = malloc(name_bytes);
    if (w->tensor && w->names) return 0;
    return mg_fail(err, MG_ENOMEM, "%s: out of memory for %zu tensors", w->path,
                   mg_json_size(header));
}

static int read_tensors(struct mg_weights *w, const struct mg_json *header,
                        struct mg_error *err) {
    void *iter = NULL;
    const char *key;
    if (reserve_tensors(w, header, err)) return -1;
    char *name = w->names;
    for (const struct mg_json *v; (v = mg_json_next(header, &iter, &key));) {
        if (is_metadata(key)) {
            if (check_metadata(w, v, err)) return -1;
            continue;
        }
        struct tensor *t = &w->tensor[w->n_tensors++];
        size_t len = strlen(key) + 1;
        t->name = memcpy(name, key, len);
        name += len;
        if (read_tensor(w, v, t, err)) return -1;
    }
    return 0;
}

static int read_header(struct mg_weights *w, struct mg_error *err) {
    uint64_t len;
    memcpy(&len, w->map, 8);
    len = le64toh(len);
    uint64_t most = w->size - 8 < HEADER_MAX ? w->size - 8 : HEADER_MAX;
    if (len > most)
        return mg_fail(err, MG_EFILE,
                       "%s: header length: found %ju, expected at most %ju, the %s",
                       w->path, (uintmax_t)len, (uintmax_t)most,
                       most < HEADER_MAX ? "rest of the file" : "limit");
    const char *text = (const char *)w->map + 8;
    if (len < 2 || text[0] != '{')
        return mg_fail(err, MG_EFILE, "%s: header: expected JSON that starts with \"{\"",
                       w->path);
    w->data = w->map + 8 + len;
    w->data_size = w->size - 8 - len;
    struct mg_json_text *header = mg_json_open(w->path, text, len, err);
    if (!header) return -1;
    int result = read_tensors(w, mg_json_root(header), err);
    mg_json_close(header);
    return result;
}

static int compare_place(const void *a, const void *b) {
    const struct tensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static int compare_name(const void *a, const void *b) {
    return strcmp(((const struct tensor *)a)->name, ((const struct tensor *)b)->name);
}

/* Every byte of the data belongs to exactly one tensor. */
static int check_layout(struct mg_weights *w, struct mg_error *err) {
    qsort(w->tensor, w->n_tensors, sizeof *w->tensor, compare_place);
    uint64_t place = 0;
    for (size_t i = 0; i < w->n_tensors; i++) {
        const struct tensor *t = &w->tensor[i];
        if (t->begin != place)
            return fail_tensor(w, t->name, err,
                               "data_offsets: found begin %ju, expected %ju (%s)",
                               (uintmax_t)t->begin, (uintmax_t)place,
                               t->begin > place ? "a hole" : "tensors overlap");
        place = t->end;
    }
    if (place != w->data_size)
        return mg_fail(err, MG_EFILE,
                       "%s: found %ju bytes after the last tensor, expected none",
                       w->path, (uintmax_t)(w->data_size - place));
    qsort(w->tensor, w->n_tensors, sizeof *w->tensor, compare_name);
    return 0;
}

struct mg_weights *mg_weights_openat(int dirfd, const char *name, const char *path,
                                     struct mg_error *err) {
    struct mg_weights *w = calloc(1, sizeof *w);
    if (!w || !(w->path = strdup(path))) {
        mg_fail(err, MG_ENOMEM, "%s: out of memory", path);
    } else if (!map_file(w, dirfd, name, err) && !read_header(w, err) &&
               !check_layout(w, err)) {
        return w;
    }
    mg_weights_close(w);
    return NULL;
}

struct mg_weights *mg_weights_open(const char *path, struct mg_error *err) {
    return mg_weights_openat(AT_FDCWD, path, path, err);
}

void mg_weights_close(struct mg_weights *w) {
    if (!w) return;
    if (w->map) munmap((void *)w->map, w->size);
    free(w->tensor);
    free(w->names);
    free(w->path);
    free(w);
}

int mg_weights_bind(struct mg_weights *w, const char *name, int rows, int cols,
                    struct mg_matrix *out, struct mg_error *err) {
    struct tensor key = {.name = name};
    struct tensor *t =
        bsearch(&key, w->tensor, w->n_tensors, sizeof *w->tensor, compare_name);
    if (!t)
        return fail_tensor(w, name, err, "missing; expected shape [%d, %d]", rows, cols);
    if (t->rows != (uint64_t)rows || t->cols != (uint64_t)cols)
        return fail_tensor(w, name, err, "shape: found [%ju, %ju], expected [%d, %d]",
                           (uintmax_t)t->rows, (uintmax_t)t->cols, rows, cols);
    t->bound = 1;
    *out = (struct mg_matrix){
        .data = w->data + t->begin, .dtype = t->dtype, .rows = rows, .cols = cols};
    return 0;
}

const char *mg_weights_unbound(const struct mg_weights *w, size_t *count) {
    const char *first = NULL;
    *count = 0;
    for (size_t i = 0; i < w->n_tensors; i++) {
        if (w->tensor[i].bound) continue;
        if (!first) first = w->tensor[i].name;
        ++*count;
    }
    return first;
}

const void *mg_weights_map(const struct mg_weights *w, size_t *size) {
    *size = w->size;
    return w->map;
}
