/* SPDX-License-Identifier: Apache-2.0
 * handover.h - open connections on their way from one worker to another. The master makes
 * one SOCK_SEQPACKET pair that all workers inherit: who gives sends the descriptor, any
 * one that takes gets it. What nobody has taken yet outlives every worker, and waits as
 * new connections do in the listening socket. Unread bytes stay with the connection.
 * Knows nothing of what is said on it. */
#ifndef HANDOVER_H
#define HANDOVER_H

struct handover {
    int give, take; /* non-blocking; -1: there is none */
};

/* Make the pair, before the first fork. 0, or -1 with errno. */
int handover_open(struct handover *);
/* Send the connection fd; the caller closes its own descriptor. 1 = it is on its way;
 * 0 = not now, the pair is full; -1 = the pair has ended. */
int handover_give(const struct handover *, int fd, int parked);
/* A connection that was given (close-on-exec, the caller's) with its giver's `parked`; or
 * -1 with errno: EAGAIN there is none, EPIPE there will be none, EMFILE none is taken
 * without a free descriptor, ECONNABORTED one was lost on its way. */
int handover_take(const struct handover *, int *parked);
/* From now on handover_give says -1, in every process. What is on its way may be taken.
 * */
void handover_end(const struct handover *);

#endif
