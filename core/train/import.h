/* SPDX-License-Identifier: Apache-2.0
 * import.h - the JSON dumps of the microgpt family (Karpathy's single file of 2026 and
 * its ports) as a checkpoint. Weights go to a spool file as they are read, since a dump
 * may hold them before the sizes; import_plan then says what the whole of it is, and
 * import_rows hands out rows as the checkpoint wants them. Memory grows with the number
 * of tensors and characters, never with the weights. */
#ifndef TRAIN_IMPORT_H
#define TRAIN_IMPORT_H

#include "../tensors.h"
#include "pull.h"

enum import_size {
    IMPORT_EMBD,
    IMPORT_HEAD,
    IMPORT_LAYER,
    IMPORT_BLOCK,
    IMPORT_VOCAB,
    IMPORT_HEAD_DIM,
    IMPORT_KV_HEAD,
    IMPORT_SIZES
};

enum { IMPORT_NOTES = 8, IMPORT_BUFFER = 1 << 14 /* floats */ };

/* A tensor as it lies in the spool. */
struct import_tensor {
    int seen, rows, cols;
    int transposed; /* set by import_plan */
    int64_t at;     /* in floats */
};

/* In the place of a code point: no token has that id; its text is no single character. */
#define IMPORT_HOLE  UINT32_MAX
#define IMPORT_NAMED (UINT32_MAX - 1)

/* The list of tokens: what each id stands for, and which one is bos. */
struct import_vocab {
    char path[PULL_PATH]; /* where the list was, "" when none was yet */
    uint32_t *code;       /* [n] code points, or one of the two above */
    int n, cap;
    int named;         /* the one id whose text is no single character, -1 = none */
    char name[32];     /* ... and that text */
    int64_t bos;       /* as given, -1 = not given */
    char bos_text[32]; /* as given, "" = not given */
    int has_special;   /* special_tokens is there */
};

struct import {
    const char *file;             /* the one that is or was read last, for messages */
    struct mg_error *err;         /* of the call that runs */
    int spool;                    /* descriptor, borrowed */
    int spool_failed;             /* 1: it could not be written */
    int64_t spooled;              /* floats, those in the buffer too */
    float *buffer;                /* [IMPORT_BUFFER] */
    char weights[PULL_PATH];      /* path of the object of tensors with a dot, or "" */
    struct import_tensor *tensor; /* [n_tensors], in the order of tensors.h */
    int n_tensors;
    int64_t size[IMPORT_SIZES]; /* as given, 0 = not given */
    struct import_vocab vocab;
    /* set by import_plan */
    struct mg_sizes sizes;
    uint32_t *chars; /* [n_chars] */
    int n_chars, has_chat;
    int bos_row;                  /* of the dump; the last one in the checkpoint */
    char note[IMPORT_NOTES][160]; /* what was decided, for the user */
    int n_notes;
};

struct import_options {
    int n_head; /* where the dump does not say, 0 = not given */
    int in_out; /* the linear layers are [in, out] */
};

/* spool: an empty file, written and read. NULL: out of memory. */
struct import *import_new(int spool, struct mg_error *err);
void import_free(struct import *);

/* Read a dump, or one of the files that it consists of. -1: the text has the file and
 * the path in it. */
int import_read(struct import *, int fd, const char *file, struct mg_error *err);

/* When all is read: everything that the model needs must be there and fit. */
int import_plan(struct import *, const struct import_options *, struct mg_error *err);

/* Rows row ... row + n - 1 of tensor i of a model of these sizes (tensors.h), [n][cols],
 * [out, in], the token ids those of the checkpoint. -1: the spool cannot be read. */
int import_rows(struct import *, int i, int row, int n, float *out, struct mg_error *err);

/* ---- between the files of the importer --------------------------------------------- */

/* import_read.c: send what is left in the buffer to the spool, after the last tensor. */
int import_flush(struct import *);

/* import_vocab.c: a member that holds the list, or bos, read from its first token on. */
int import_read_vocab(struct import *, struct pull *, enum pull_token);
int import_read_bos(struct import *, struct pull *, enum pull_token);
/* Match the list with the rows of wte: sets chars, n_chars, has_chat, bos_row. */
int import_plan_vocab(struct import *, int rows);

/* import_refuse.c: 1 when a member of that name says what kind of model it is. */
int import_is_flag(const char *name);
/* ... and -1 when that is another one than ours. */
int import_read_flag(struct pull *, enum pull_token);
/* A tensor that ours has not: says what it is. Always -1. */
int import_refuse_tensor(struct pull *);

/* Fail with "FILE: text". Always -1. */
int import_fail(struct import *, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
int import_no_memory(struct import *);
void import_note(struct import *, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

#endif
