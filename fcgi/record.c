/* SPDX-License-Identifier: Apache-2.0
 * record.c - the frame scanner. What it lets through: version 1, one BEGIN_REQUEST for a
 * responder, PARAMS up to an empty one with well-formed pairs, STDIN up to an empty one,
 * all with the same id. That is what web servers send; management records, aborts,
 * multiplexing and oversized parameters end the connection. */
#include "record.h"

#include <string.h>

enum { TYPE_BEGIN = 1, TYPE_PARAMS = 4, TYPE_STDIN = 5, ROLE_RESPONDER = 1 };

void record_scan_init(struct record_scan *s) {
    memset(s, 0, sizeof *s);
    s->stage = TYPE_BEGIN;
}

static size_t smaller(size_t a, size_t b) {
    return a < b ? a : b;
}

/* The 8 bytes of a record header are complete: 0, or -1 if this record is not due
 * here. */
static int check_header(struct record_scan *s) {
    const unsigned char *h = s->head;
    unsigned id = (unsigned)h[2] << 8 | h[3];
    s->content = (size_t)h[4] << 8 | h[5];
    s->padding = h[6];
    if (h[0] != 1 || h[1] != s->stage || id == 0) return -1;
    if (s->stage == TYPE_BEGIN) {
        s->id = id;
        return s->content == sizeof s->begin ? 0 : -1;
    }
    if (id != s->id) return -1;
    if (s->stage == TYPE_PARAMS) {
        s->params += s->content;
        if (s->params > RECORD_MAX_PARAMS) return -1;
        if (s->content == 0 && s->nv_stage != 0) return -1; /* ends within a pair */
    } else {
        s->body += s->content;
    }
    return 0;
}

/* One length of a name-value pair is known: on to the next part of the pair. */
static int end_length(struct record_scan *s) {
    s->nv_skip += s->nv_length;
    if (s->nv_skip > RECORD_MAX_PARAMS) return -1;
    s->nv_stage++;
    if (s->nv_stage == 3 && s->nv_skip == 0) s->nv_stage = 0;
    return 0;
}

/* Follow the name-value pairs through n bytes of PARAMS content. */
static int check_pairs(struct record_scan *s, const unsigned char *p, size_t n) {
    while (n > 0) {
        if (s->nv_stage == 3) {
            size_t k = smaller(n, s->nv_skip);
            s->nv_skip -= k;
            p += k;
            n -= k;
            if (s->nv_skip == 0) s->nv_stage = 0;
            continue;
        }
        if (s->nv_stage == 0) {
            s->nv_stage = 1;
            s->nv_skip = s->nv_need = 0;
        }
        if (s->nv_need > 0) {
            s->nv_length = s->nv_length << 8 | *p;
            if (--s->nv_need == 0 && end_length(s) < 0) return -1;
        } else if (*p & 0x80) {
            s->nv_length = *p & 0x7f;
            s->nv_need = 3;
        } else {
            s->nv_length = *p;
            if (end_length(s) < 0) return -1;
        }
        p++;
        n--;
    }
    return 0;
}

/* k bytes of content of the record at hand. */
static int take_content(struct record_scan *s, const unsigned char *p, size_t k) {
    if (s->stage == TYPE_PARAMS) return check_pairs(s, p, k);
    if (s->stage == TYPE_BEGIN) {
        memcpy(s->begin + s->n_begin, p, k);
        s->n_begin += k;
        if (s->n_begin == sizeof s->begin)
            return s->begin[0] == 0 && s->begin[1] == ROLE_RESPONDER ? 0 : -1;
    }
    return 0;
}

/* The record at hand is over, padding included: what is due next. */
static void end_record(struct record_scan *s) {
    int empty = s->head[4] == 0 && s->head[5] == 0;
    s->n_head = 0;
    if (s->stage == TYPE_BEGIN)
        s->stage = TYPE_PARAMS;
    else if (s->stage == TYPE_PARAMS && empty)
        s->stage = TYPE_STDIN;
    else if (s->stage == TYPE_STDIN && empty)
        s->state = RECORD_DONE;
}

enum record_state record_scan(struct record_scan *s, const unsigned char *p, size_t n,
                              size_t *used) {
    const unsigned char *start = p, *end = p + n;
    while (s->state == RECORD_MORE && p < end) {
        size_t left = (size_t)(end - p), k;
        if (s->n_head < sizeof s->head) {
            k = smaller(left, sizeof s->head - s->n_head);
            memcpy(s->head + s->n_head, p, k);
            s->n_head += k;
            p += k;
            if (s->n_head < sizeof s->head) break;
            if (check_header(s) < 0) s->state = RECORD_BAD;
        } else if (s->content > 0) {
            k = smaller(left, s->content);
            if (take_content(s, p, k) < 0) s->state = RECORD_BAD;
            s->content -= k;
            p += k;
        } else {
            k = smaller(left, s->padding);
            s->padding -= k;
            p += k;
        }
        if (s->state == RECORD_MORE && s->n_head == sizeof s->head && s->content == 0 &&
            s->padding == 0)
            end_record(s);
    }
    *used = (size_t)(p - start);
    return s->state;
}
