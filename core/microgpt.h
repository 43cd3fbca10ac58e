/* SPDX-License-Identifier: Apache-2.0
 *
 * microgpt.h - the public interface of libmicrogpt, and all that a program may see of it.
 *
 * The contract:
 *  - A model is immutable once open; its weights are mapped read-only and shared by every
 *    process that maps the same file. A batch is the one mutable thing: it owns the
 *    lanes, their KV caches and all scratch, and belongs to one thread.
 *  - What a lane produces depends on its own job and on the checkpoint, never on the
 *    other lanes, the chunk size, the instruction set or the process (the BLIS engine: on
 *    one host).
 *  - Nothing here prints, exits, or installs a handler. A failing call returns -1 or NULL
 *    and fills the caller's mg_error (which may be NULL); the first error stays.
 *  - Memory is taken in mg_model_open and mg_batch_new only; nothing is allocated in a
 *    step.
 */
#ifndef MICROGPT_H
#define MICROGPT_H

#include <stddef.h>
#include <stdint.h>

#include "sha256.h"

#define MG_VERSION "1.0.0"

/* ---- errors ------------------------------------------------------------------------ */

enum mg_status {
    MG_OK = 0,
    MG_EINPUT,   /* the caller's data breaks a rule: a client's fault */
    MG_ENOFILE,  /* the checkpoint, or a file it needs, is not there or not readable */
    MG_EFILE,    /* a file of the checkpoint is damaged, contradictory or not supported */
    MG_ENOMEM,   /* out of memory */
    MG_ESYSTEM,  /* another system call failed */
    MG_ENUMERIC, /* a logit was not finite */
};

struct mg_error {
    enum mg_status code;
    char text[320]; /* one line, no newline, NUL-terminated; names file, field, found,
                       expected */
};

/* ---- model ------------------------------------------------------------------------- */

struct mg_model;

enum mg_kernels { MG_KERNELS_AUTO, MG_KERNELS_NATIVE, MG_KERNELS_BLIS };
enum mg_kv { MG_KV_F32, MG_KV_F16 };

struct mg_model_options {
    enum mg_kernels kernels;
    const char *no_better; /* "avx2", "plain": keep to it on a machine with more */
    int compat_05;         /* 1: generation follows the reference implementation 0.5.0 */
    int compat_06; /* 1: ... 0.6.0, the first with format B; at most one of the two */
};

struct mg_model_info {
    int vocab_size, n_embd, n_head, n_layer, block_size;
    int has_chat;            /* trained with role tokens */
    uint64_t n_params;       /* weights in the file that the model uses */
    size_t weights_bytes;    /* size of weights.safetensors */
    size_t max_token_bytes;  /* longest text of one token, bytes of UTF-8 */
    const char *dtype;       /* "F32", "F16", "BF16" or "mixed" */
    const char *tokenizer;   /* "char", "bpe" */
    const char *kernels;     /* "avx512", "avx2", "neon", "plain", "blis" */
    size_t max_sample_bytes; /* longest text of one lane */
    double temperature;      /* of who does not say one */
};

/* Open the checkpoint directory dir: read meta.json (and tokenizer.json, if it has no
 * chars), map and check weights.safetensors, bind every tensor, choose kernels. opt may
 * be NULL (all defaults). NULL on error. */
struct mg_model *mg_model_open(const char *dir, const struct mg_model_options *opt,
                               struct mg_error *err);
void mg_model_close(struct mg_model *);
const struct mg_model_info *mg_model_info(const struct mg_model *);

/* The i-th thing worth a warning that was met on opening (one line), NULL after the
 * last. */
const char *mg_model_warning(const struct mg_model *, int i);

/* Digest of weights.safetensors, meta.json and, where it is used, tokenizer.json: 16
 * hexadecimal digits and NUL. Reads every byte of the mapping (a few ms per 25 MB); same
 * on every machine. */
void mg_model_digest(const struct mg_model *, char hex[17]);

/* What decides the bytes of every reply, as 32 hexadecimal digits and NUL: SHA-256 of
 * "microgpt", MG_SEMANTICS, the model (sizes, tokenizer, weights), kv and compat; never
 * of the instruction set, the build or how many work on it. "" with BLIS, which
 * promises no bits. Reads every byte of the weights (1 ms a megabyte, or a third with
 * SHA-NI). */
#define MG_SEMANTICS 1 /* raised by a change that may change a byte of any reply */
enum { MG_FINGERPRINT = 32 };
void mg_model_fingerprint(const struct mg_model *, enum mg_kv,
                          char hex[MG_FINGERPRINT + 1]);

/* 1 if addr lies in the mapped weights: for a SIGBUS handler that wants to name the file.
 * Async-signal-safe. */
int mg_model_maps(const struct mg_model *, const void *addr);

/* For a program that says what it is: the instruction set that is used on this machine
 * ("avx512", "avx2", "neon", "plain"), and the version of BLIS. Neither starts BLIS. */
const char *mg_instruction_set(void);
const char *mg_blis_version(void);

/* ---- chat prompt ------------------------------------------------------------------- */

enum mg_role { MG_USER, MG_ASSISTANT };

struct mg_message {
    enum mg_role role;
    const char *content; /* valid UTF-8, may hold NUL; borrowed */
    size_t len;          /* bytes */
};

/* 1 if the len bytes of valid UTF-8 are all Unicode White_Space (or there are none). */
int mg_text_is_blank(const char *text, size_t len);

/* The prompt of a chat in the making: bos, then for each message its role, the tokens of
 * its content and end_turn, then assistant. What is over block_size - block_size / 4
 * tokens is dropped from the front in whole messages; of a last message that is too long
 * alone the end stays. (compat 0.5 and 0.6: no bos, or only in front of what was cut, and
 * their own way to cut.) One at a time,
 * reused for the next; all memory is taken in mg_prompt_new. */
struct mg_prompt;

struct mg_prompt *mg_prompt_new(const struct mg_model *, struct mg_error *err);
void mg_prompt_free(struct mg_prompt *);
size_t mg_prompt_bytes(const struct mg_model *); /* what mg_prompt_new reserves */

/* Bytes of content that all messages of a prompt may have together: 256 KiB where the
 * tokenizer needs memory in proportion to its text, SIZE_MAX where it needs none. */
size_t mg_prompt_max_content(const struct mg_model *);

/* Begin with n messages, borrowed until the prompt is whole. -1 (MG_EINPUT): no chat
 * tokens, block_size < 6, no message, too much content. */
int mg_prompt_begin(struct mg_prompt *, const struct mg_message *messages, size_t n,
                    struct mg_error *err);
/* Encode about budget bytes more (SIZE_MAX: all). 1: there is more to do; 0: whole; -1
 * (MG_EINPUT): blank content, or content of which no token is known; the text names
 * messages[i], and only mg_prompt_begin may follow. */
int mg_prompt_advance(struct mg_prompt *, size_t budget, struct mg_error *err);
/* A whole one: *n <= block_size ids, until the next begin; *dropped = tokens of early
 * history cut. */
const int32_t *mg_prompt_tokens(const struct mg_prompt *, int *n, uint64_t *dropped);

/* All of it at once, for a caller who has the time: the number of ids written to tokens
 * [block_size], or -1 as above, or out of memory. */
int mg_chat_prompt(const struct mg_model *, const struct mg_message *messages, size_t n,
                   int32_t *tokens, uint64_t *dropped, struct mg_error *err);

/* ---- batch ------------------------------------------------------------------------- */

struct mg_batch;

struct mg_batch_options {
    int lanes; /* sequences that advance together, >= 1 */
    int chunk; /* prompt tokens per step, shared by the lanes in prefill, >= 1 */
    enum mg_kv kv;
};

/* How a token is drawn. */
struct mg_sampling {
    double temperature; /* >= 0, finite; 0 is greedy */
};

enum { MG_MAX_SUPPRESS = 4 };

/* One sequence. The batch does not know whether it is a chat or a sample: mg_job_text and
 * mg_job_chat lay out the two that there are. */
struct mg_job {
    const int32_t *prompt; /* [n_prompt] 1 to block_size ids; copied */
    int n_prompt;
    int32_t end;                       /* this id ends the text, unseen; -1: none */
    int32_t suppress[MG_MAX_SUPPRESS]; /* [n_suppress] ids that are never drawn */
    int n_suppress;
    int32_t suppress_first; /* an id that is not drawn as the first one; -1: none */
    struct mg_sampling sampling;
    uint64_t seed;       /* sample i of a request: seed + i */
    uint64_t max_tokens; /* capped at one for each position from the prompt's last on,
                            which is what 0 means */
    int spelled;         /* 1: each token's text stands alone (half a character is
                            U+FFFD), and special tokens have what spells them */
    int strip;           /* 1: the text does not begin with ASCII punctuation */
};

/* A text that goes on after a prompt, or from bos if job->prompt is NULL: bos ends it.
 * The other members are the caller's. Cannot fail. */
void mg_job_text(const struct mg_model *, struct mg_job *);

/* A reply to job->prompt, which is from mg_chat_prompt: end_turn ends it, but not at
 * once; the other role tokens and bos are not drawn. -1 (MG_EINPUT): the model has no
 * chat tokens, none to answer with, or a prompt that leaves no room. */
int mg_job_chat(const struct mg_model *, struct mg_job *, struct mg_error *err);

enum mg_finish {
    MG_RUNNING = 0,
    MG_STOP,   /* end token */
    MG_LENGTH, /* max_tokens or context */
    MG_FAULT,  /* a logit was not finite: no output */
};

/* What a lane has produced so far. */
struct mg_output {
    const char *text; /* whole UTF-8 characters; valid until the lane is released */
    size_t len;       /* bytes that are final: trailing white space is held back while
                          running and dropped at the end (kept in compat 0.5); grows
                          only */
    int n_prompt;     /* prompt tokens */
    int n_prefilled;  /* ... of which so many are computed */
    int n_generated;  /* sampled tokens that are part of the reply (no end token) */
    enum mg_finish finish;
};

/* Bytes mg_batch_new will reserve for this model and options (KV caches, scratch,
 * text). */
size_t mg_batch_bytes(const struct mg_model *, const struct mg_batch_options *);
/* KV cache bytes of one lane. */
size_t mg_lane_bytes(const struct mg_model *, enum mg_kv kv);

/* The model is borrowed and must outlive the batch. Memory is reserved, not touched. */
struct mg_batch *mg_batch_new(const struct mg_model *, const struct mg_batch_options *,
                              struct mg_error *err);
void mg_batch_free(struct mg_batch *);

/* Put a job on a free lane. Returns the lane (0 ... lanes-1), or -1: no lane free, or a
 * bad job. */
int mg_batch_admit(struct mg_batch *, const struct mg_job *, struct mg_error *err);

/* hold = 1: the lane keeps its place but does not advance (its client's buffer is
 * full). */
void mg_batch_hold(struct mg_batch *, int lane, int hold);

/* Advance every running lane that is not held: one token each, or its share of `chunk`
 * prompt tokens. Returns the number of lanes that moved; 0 = nothing to do. Lanes that
 * end stay, with their output, until they are released. */
int mg_batch_step(struct mg_batch *);

const struct mg_output *mg_batch_output(const struct mg_batch *, int lane);

/* Free the lane, running or ended. */
void mg_batch_release(struct mg_batch *, int lane);

#endif
