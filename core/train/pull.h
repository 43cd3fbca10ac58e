/* SPDX-License-Identifier: Apache-2.0
 * pull.h - reading JSON of any size a token at a time, in memory that does not grow with
 * it: numbers as text, strings a character at a time, and for every token the path that
 * leads to it. Knows no file format. Leaf. */
#ifndef TRAIN_PULL_H
#define TRAIN_PULL_H

#include "../microgpt.h"

enum pull_token {
    PULL_ERROR = -1, /* told in the caller's mg_error; the reader is of no use any more */
    PULL_EOF,        /* after the value of the text, and nothing but white space */
    PULL_OBJECT,
    PULL_OBJECT_END,
    PULL_ARRAY,
    PULL_ARRAY_END,
    PULL_STRING,
    PULL_NUMBER,
    PULL_NONFINITE, /* NaN, Infinity, -Infinity: no JSON, but Python writes them */
    PULL_TRUE,
    PULL_FALSE,
    PULL_NULL,
};

enum {
    PULL_KEY = 64, /* bytes of a member's name that are kept, with the NUL */
    PULL_NUMBER_TEXT = 1024,
    PULL_DESCRIBE = 64,
    PULL_PATH = 256,
};

struct pull;

/* Read the text behind the descriptor fd (borrowed) until its end. name is the file, for
 * messages; borrowed like err. NULL: out of memory. */
struct pull *pull_open(int fd, const char *name, struct mg_error *err);
void pull_close(struct pull *);

/* The next token. In an object that is the beginning of a member's value, its name being
 * pull_key. A string that was not read is passed over. */
enum pull_token pull_next(struct pull *);
/* Pass over the rest of the value that token begins. 0, or -1 on error. */
int pull_skip(struct pull *, enum pull_token token);

/* Name of the member whose value came last, cut at PULL_KEY - 1 bytes. */
const char *pull_key(const struct pull *);
/* The text of the PULL_NUMBER or PULL_NONFINITE that came last. */
const char *pull_number(const struct pull *);
/* The next character of the PULL_STRING that came last: 1, 0 at its end, -1 on error. */
int pull_char(struct pull *, uint32_t *code);
/* The whole of it as UTF-8, cut to fit buf[cap], which is NUL-terminated. 0 or -1. */
int pull_string(struct pull *, char *buf, size_t cap);

/* Where the last token stands: "state_dict.wte[3][7]", cut when it is too long. After an
 * END that is the place of what has ended. Returns buf. */
const char *pull_path(const struct pull *, char buf[PULL_PATH]);
/* What the last token is, for a message: "an array", "a string", "NaN", "1e400". */
const char *pull_describe(const struct pull *, enum pull_token, char buf[PULL_DESCRIBE]);

/* Fail with "FILE: PATH: text". Always -1. */
int pull_fail(struct pull *, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

#endif
