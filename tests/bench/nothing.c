/* SPDX-License-Identifier: Apache-2.0
 *
 * nothing.c - a FastCGI program that answers without doing anything: what nginx, the
 * kernel and libfcgi cost, for the bench to compare with.
 *
 *   nothing SOCKET PROCESSES REPLY-BYTES
 *
 * Its loop is as short as can be: kept connections wait in epoll, a readable one is
 * handed to libfcgi, stdin is drained, a reply of the asked size goes out in one write.
 * No limits, no time-outs. */
#include <errno.h>
#include <fcgiapp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { MAX_FD = 1024, EVENTS = 64 };

static FCGX_Request *request[MAX_FD]; /* by descriptor, NULL: not connected */
static char reply[65536];
static int reply_len;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int listen_at(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    unlink(path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) < 0 ||
        chmod(path, 0666) < 0 || listen(fd, 1024) < 0)
        die(path);
    return fd;
}

static void watch(int ep, int fd) {
    struct epoll_event e = {.events = EPOLLIN, .data.fd = fd};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) < 0) die("epoll_ctl");
}

static void take_connection(int ep, int listener) {
    int fd = accept(listener, NULL, NULL);
    if (fd < 0) return; /* another process was faster */
    if (fd >= MAX_FD) {
        close(fd);
        return;
    }
    FCGX_Request *r = calloc(1, sizeof *r);
    if (!r || FCGX_InitRequest(r, -1, 0) != 0) die("FCGX_InitRequest");
    r->ipcFd = fd;
    r->keepConnection = 1;
    request[fd] = r;
    watch(ep, fd);
}

static void answer(int fd) {
    static char sink[65536];
    FCGX_Request *r = request[fd];
    if (FCGX_Accept_r(r) < 0) { /* closed */
        request[fd] = NULL;
        free(r);
        return;
    }
    while (FCGX_GetStr(sink, sizeof sink, r->in) > 0) continue;
    FCGX_PutStr(reply, reply_len, r->out);
    int keep = r->keepConnection;
    FCGX_Finish_r(r);
    if (!keep) {
        request[fd] = NULL;
        free(r);
    }
}

static void serve(int listener) {
    struct epoll_event ready[EVENTS];
    int ep = epoll_create1(0);
    if (ep < 0 || FCGX_Init() != 0) die("epoll_create1");
    signal(SIGTERM, SIG_DFL); /* libfcgi has put a flag behind it */
    watch(ep, listener);
    for (;;) {
        int n = epoll_wait(ep, ready, EVENTS, -1);
        for (int i = 0; i < n; i++)
            if (ready[i].data.fd == listener)
                take_connection(ep, listener);
            else
                answer(ready[i].data.fd);
    }
}

int main(int argc, char **argv) {
    if (argc != 4) {
        fprintf(stderr, "usage: %s SOCKET PROCESSES REPLY-BYTES\n", argv[0]);
        return 64;
    }
    int body = atoi(argv[3]);
    signal(SIGPIPE, SIG_IGN);
    body = body < 0 || body > 60000 ? 60000 : body;
    reply_len =
        snprintf(reply, sizeof reply,
                 "Content-Type: application/json\r\nContent-Length: %d\r\n\r\n", body);
    memset(reply + reply_len, 'x', (size_t)body);
    reply_len += body;
    int listener = listen_at(argv[1]);
    for (int i = 1; i < atoi(argv[2]); i++)
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGTERM);
            break;
        }
    serve(listener);
}
