/* SPDX-License-Identifier: Apache-2.0
 * handover.c - see handover.h. One packet of one byte carries one descriptor. */
#include "handover.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FRESH = 'f', PARKED = 'p' };

union control { /* aligned as a cmsghdr must be */
    struct cmsghdr head;
    char bytes[CMSG_SPACE(sizeof(int))];
};

static struct msghdr packet_of(struct iovec *iov, union control *control) {
    return (struct msghdr){.msg_iov = iov,
                           .msg_iovlen = 1,
                           .msg_control = control->bytes,
                           .msg_controllen = sizeof control->bytes};
}

int handover_open(struct handover *h) {
    int fds[2];
    *h = (struct handover){-1, -1};
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds))
        return -1;
    *h = (struct handover){.give = fds[0], .take = fds[1]};
    return 0;
}

int handover_give(const struct handover *h, int fd, int parked) {
    char byte = parked ? PARKED : FRESH;
    union control control = {0};
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr packet = packet_of(&iov, &control);
    struct cmsghdr *c = CMSG_FIRSTHDR(&packet);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
    if (sendmsg(h->give, &packet, MSG_DONTWAIT | MSG_NOSIGNAL) == 1) return 1;
    switch (errno) {
    case EAGAIN:
    case EINTR:
    case ENOBUFS:
    case ENOMEM:
    case ETOOMANYREFS: return 0; /* too many on their way already */
    default: return -1;
    }
}

/* The kernel drops a descriptor for which the receiver has no number left. */
static int has_free_number(int some_fd) {
    int fd = fcntl(some_fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0) return 0;
    close(fd);
    return 1;
}

int handover_take(const struct handover *h, int *parked) {
    char byte = FRESH;
    int fd = -1;
    union control control = {0};
    struct iovec iov = {.iov_base = &byte, .iov_len = 1};
    struct msghdr packet = packet_of(&iov, &control);
    if (!has_free_number(h->take)) return -1;
    ssize_t n = recvmsg(h->take, &packet, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n < 0) return -1;
    errno = n ? ECONNABORTED : EPIPE;
    struct cmsghdr *c = CMSG_FIRSTHDR(&packet);
    if (c && c->cmsg_type == SCM_RIGHTS) memcpy(&fd, CMSG_DATA(c), sizeof fd);
    *parked = byte == PARKED;
    return fd;
}

void handover_end(const struct handover *h) {
    shutdown(h->give, SHUT_WR);
}
