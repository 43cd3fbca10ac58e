/* SPDX-License-Identifier: Apache-2.0
 * export.c - `microgpt export`: a checkpoint for serving only, its weights in another
 * format if wanted. meta.json and tokenizer.json are copied byte by byte. */
#include "cli.h"
#include "../train/save.h"

#include "../file.h"
#include "../model.h"
#include "../ops.h"

#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct net_shape shape_of(const struct mg_model_info *m) {
    return (struct net_shape){m->vocab_size, m->n_embd, m->n_head, m->n_layer,
                              m->block_size};
}

/* All weights as float, in the order of the training array; what F16 cannot hold is told.
 */
static int widen(struct mg_model *m, const struct net_shape *s, enum mg_dtype to,
                 float *out) {
    for (int i = 0; i < net_tensors(s); i++) {
        struct net_tensor t = net_tensor(s, i);
        const struct mg_matrix *w = mg_tensor_place(&m->tensors, i);
        size_t n = (size_t)t.rows * (size_t)t.cols;
        m->ops->widen(w->dtype, w->data, n, out + t.at);
        for (size_t j = 0; to == MG_F16 && j < n; j++)
            if (fabsf(out[t.at + j]) >= 65520)
                return say_error(EX_DATAERR,
                                 "%s[%zu] = %g is too large for f16: use bf16", t.name, j,
                                 (double)out[t.at + j]);
    }
    return 0;
}

static int copy_file(const char *from, const char *name, struct save *s) {
    struct mg_error err = {0};
    char path[PATH_MAX];
    size_t len;
    snprintf(path, sizeof path, "%s/%s", from, name);
    int dir = mg_dir_open(from, &err);
    char *text =
        dir < 0 ? NULL : mg_file_read(dir, name, path, (size_t)1 << 30, &len, &err);
    if (dir >= 0) close(dir);
    int rc = text ? save_bytes(s, name, text, len) : say_model_error(&err);
    free(text);
    return rc;
}

/* The files that are text. */
static int copy_texts(const struct mg_model *m, const char *from, struct save *s) {
    int rc = copy_file(from, "meta.json", s);
    int has_file = strcmp(m->tokenizer->name, "bpe") == 0;
    return !rc && has_file ? copy_file(from, "tokenizer.json", s) : rc;
}

static int write_checkpoint(struct mg_model *m, const char *from, const char *to,
                            enum mg_dtype dtype) {
    struct net_shape shape = shape_of(&m->info);
    float *params = malloc(net_params(&shape) * sizeof *params);
    if (!params) return say_error(EX_OSERR, "out of memory for the weights");
    int rc = widen(m, &shape, dtype, params);
    struct save *s = rc ? NULL : save_begin(to);
    if (!rc && !s) rc = EX_IOERR;
    if (!rc) rc = copy_texts(m, from, s);
    if (!rc) rc = save_tensors(s, "weights.safetensors", &shape, params, dtype);
    free(params);
    if (s && !rc) return save_commit(s);
    if (s) save_abort(s);
    return rc;
}

static int parse_dtype(const char *name) {
    for (int i = 0; i < MG_N_DTYPES; i++)
        if (strcmp(mg_dtypes[i].option, name) == 0) return i;
    say_error(EX_USAGE, "--dtype: '%s' is none of f32, f16, bf16", name);
    return -1;
}

int export_main(const struct cli_command *self, int argc, char **argv) {
    const char *from = NULL, *to = NULL, *type = "f32";
    int overwrite = 0;
    struct cli_option table[] = {
        {"model", "DIR", CLI_STRING, &from, 0, 0, "the checkpoint to read", 0},
        {"output", "DIR", CLI_STRING, &to, 0, 0, "the one to write", 0},
        {"dtype", "TYPE", CLI_STRING, &type, 0, 0, "f32, f16 or bf16", 0},
        {"overwrite", NULL, CLI_FLAG, &overwrite, 0, 0,
         "replace a checkpoint that is there", 0},
        {0},
    };
    int rc = cli_parse(self, table, argc, argv, NULL);
    if (rc >= 0) return rc;
    if (!from || !to)
        return say_error(EX_USAGE, "export: give --model DIR and --output DIR");
    int dtype = parse_dtype(type);
    if (dtype < 0) return EX_USAGE;
    if ((rc = save_check(to, overwrite)) != 0) return rc;
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error, not a death */
    struct mg_error err = {0};
    struct mg_model *m = mg_model_open(from, NULL, &err);
    if (!m) return say_model_error(&err);
    rc = write_checkpoint(m, from, to, (enum mg_dtype)dtype);
    mg_model_close(m);
    return rc;
}
