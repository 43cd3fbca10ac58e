/* SPDX-License-Identifier: Apache-2.0
 * route.h - what a request is for, from its path, method and headers; the checks that
 * need no body. */
#ifndef ROUTE_H
#define ROUTE_H

#include "dialect.h"

struct route {
    enum endpoint endpoint;
    const struct dialect *dialect; /* errors are in it, and all of a post */
    int post;                      /* takes a body */
    int get;                       /* or what it asks for stands in the query */
    const char *pinned;            /* the fingerprint in its path, NULL = none */
    int head;                      /* HEAD: answer without a body */
    int accept_sse;                /* the client admits text/event-stream */
    int accept_json;
    int status;         /* 0, or the error to answer with */
    const char *error;  /* its text */
    const char *header; /* a header line it needs, or "" */
};

struct route route_request(const struct conn *);

#endif
