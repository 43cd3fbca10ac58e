/* SPDX-License-Identifier: Apache-2.0
 * record.h - is this a whole, well-formed FastCGI request? A scanner of record frames
 * that looks at the bytes before libfcgi does, so that libfcgi never waits for the rest
 * of one and never meets the sequences that make it abort. It keeps no content. */
#ifndef RECORD_H
#define RECORD_H

#include <stddef.h>
#include <stdint.h>

#define RECORD_MAX_PARAMS (256u << 10) /* bytes of all PARAMS content of one request */

enum record_state {
    RECORD_MORE, /* a valid beginning; the end is still to come */
    RECORD_DONE, /* the whole request was seen; nothing after it was looked at */
    RECORD_BAD,  /* not a request that a web server sends */
};

struct record_scan {
    enum record_state state;
    int stage;   /* which record type is due */
    unsigned id; /* request id of BEGIN_REQUEST */
    unsigned char head[8];
    size_t n_head;          /* header bytes held */
    size_t content;         /* content bytes of this record still to come */
    size_t padding;         /* padding bytes still to come */
    size_t params;          /* PARAMS bytes seen */
    uint64_t body;          /* STDIN bytes seen */
    unsigned char begin[8]; /* body of BEGIN_REQUEST */
    size_t n_begin;
    size_t nv_need; /* length bytes of the current pair still to come */
    size_t nv_skip; /* name and value bytes still to come */
    int nv_stage;   /* 0: at a pair; 1, 2: reading the length of name, value; 3:
                         skipping */
    uint32_t nv_length;
};

void record_scan_init(struct record_scan *);

/* Look at n more bytes. Returns the state; *used = bytes that belong to this request. */
enum record_state record_scan(struct record_scan *, const unsigned char *p, size_t n,
                              size_t *used);

#endif
