/* SPDX-License-Identifier: Apache-2.0
 * text.h - bytes of tokens to whole, trimmed UTF-8 text, incrementally. Internal to
 * core. */
#ifndef MG_TEXT_H
#define MG_TEXT_H

#include "microgpt.h"

struct mg_text {
    char *buf; /* borrowed, cap bytes */
    size_t cap;
    size_t len;     /* bytes held */
    size_t visible; /* bytes that are final: ends at a character, no trailing white
                       space */
    int trim;       /* 0: keep white space at both ends (compat 0.5) */
    int strip;      /* set it after init, with trim: what comes first of the text is not
                  ASCII punctuation, nor white space behind that (compat 0.6) */
    unsigned char pending[4]; /* an unfinished character */
    int n_pending;
};

void mg_text_init(struct mg_text *, char *buf, size_t cap, int trim);
/* Append the bytes of one token; ill-formed sequences become U+FFFD (one for each
 * maximal ill-formed part, as Unicode 3.9 has it). buf must hold 3 * bytes appended + 3
 * in the worst case. */
void mg_text_append(struct mg_text *, const char *bytes, size_t len);
/* What is pending will not be finished: it becomes U+FFFD. */
void mg_text_break(struct mg_text *);
/* The end: flush what is pending, drop trailing white space (unless trim is 0). */
void mg_text_finish(struct mg_text *);

/* 1 if code point c is Unicode White_Space. */
int mg_is_white_space(uint32_t c);
/* Decode one code point of valid UTF-8 at p < end; returns its length in bytes. */
int mg_utf8_next(const char *p, const char *end, uint32_t *c);

#endif
