/* SPDX-License-Identifier: Apache-2.0
 * bpe_split.h - a text cut into the pieces that byte-level BPE merges within, by the
 * pattern of GPT-2. Internal to core. */
#ifndef MG_BPE_SPLIT_H
#define MG_BPE_SPLIT_H

#include <stddef.h>

#include "unicode.h"

struct mg_split {
    const char *text;            /* borrowed, valid UTF-8 */
    size_t len;                  /* where it ends, for the pattern too */
    size_t begin, end;           /* the piece (so far): text[begin, end) */
    size_t last;                 /* begin of its last code point, if it is white space */
    struct mg_class_range range; /* that the code point before end is in */
    int class;                   /* of the run that is being scanned, -1 = none */
};

/* Start with the pieces of text[from, len). */
void mg_split_init(struct mg_split *, const char *text, size_t from, size_t len);

/* Find the next piece: 1 = [begin, end), 0 = not yet: call again. Takes what it has
 * scanned off *budget, in code points, and stops when none is left. There must be a
 * next piece (end < len). Together the pieces are the text. */
int mg_split_next(struct mg_split *, size_t *budget);

#endif
