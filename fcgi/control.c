/* SPDX-License-Identifier: Apache-2.0
 * control.c - see control.h. The socket is in the abstract namespace, so that it needs no
 * directory that both sides may use: a unit's ExecReload has the service's network
 * namespace, and root enters it. Who is who the kernel says (SO_PEERCRED): the client
 * believes only the process that it named, the master root and its own user only. */
#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

enum {
    MAX_ASKERS = 16,
    TEXT_MAX_BYTES = 600,
    PATIENCE_MS = 300000, /* two reloads, each with the time that a start may take */
};

static int ear = -1;
static struct asker {
    int fd;
    int heard; /* a reload began after it asked */
} asker[MAX_ASKERS];
static int n_askers;

/* The name of the master with that pid. Processes in containers may share a network, and
 * have the same pids: the namespace of the pids belongs to the name. */
static socklen_t address_of(pid_t pid, struct sockaddr_un *a) {
    struct stat ns;
    if (stat("/proc/self/ns/pid", &ns)) ns.st_ino = 0;
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    int n = snprintf(a->sun_path + 1, sizeof a->sun_path - 1, "microgpt-fcgi/%ju/%d",
                     (uintmax_t)ns.st_ino, (int)pid);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

static struct ucred peer_of(int fd) {
    struct ucred cred = {.pid = -1, .uid = (uid_t)-1};
    socklen_t len = sizeof cred;
    getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len);
    return cred;
}

/* ---- the master ---- */

int control_open(void) {
    struct sockaddr_un a;
    socklen_t len = address_of(getpid(), &a);
    ear = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (ear >= 0 && (bind(ear, (struct sockaddr *)&a, len) || listen(ear, MAX_ASKERS))) {
        int why = errno;
        close(ear);
        ear = -1;
        errno = why;
    }
    return ear;
}

int control_take(void) {
    int fd, n = 0;
    while (ear >= 0 && (fd = accept4(ear, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
        uid_t uid = peer_of(fd).uid;
        if (n_askers == MAX_ASKERS || (uid != 0 && uid != geteuid())) {
            close(fd);
            continue;
        }
        asker[n_askers++] = (struct asker){.fd = fd};
        n++;
    }
    return n;
}

void control_begin(void) {
    control_take(); /* before the reload looks at anything */
    for (int i = 0; i < n_askers; i++) asker[i].heard = 1;
}

void control_answer(int code, const char *text) {
    char packet[TEXT_MAX_BYTES];
    int left = 0;
    int n = snprintf(packet, sizeof packet, "%d %s", code, text);
    size_t len = n < (int)sizeof packet ? (size_t)n : sizeof packet - 1;
    for (int i = 0; i < n_askers; i++) {
        if (!asker[i].heard) {
            asker[left++] = asker[i];
            continue;
        }
        send(asker[i].fd, packet, len, MSG_DONTWAIT | MSG_NOSIGNAL);
        close(asker[i].fd);
    }
    n_askers = left;
}

void control_forget(void) {
    if (ear >= 0) close(ear);
    for (int i = 0; i < n_askers; i++) close(asker[i].fd);
    ear = -1;
    n_askers = 0;
}

/* ---- --reload PID ---- */

__attribute__((format(printf, 2, 3))) static int fail(int code, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    fputs("microgpt-fcgi: reload: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
    return code;
}

/* The connected socket, or -1 with errno. */
static int connect_to(pid_t pid) {
    struct sockaddr_un a;
    socklen_t len = address_of(pid, &a);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0 || !connect(fd, (struct sockaddr *)&a, len)) return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

/* Into the network namespace of the service. 0 if that is another one. */
static int enter_network(pid_t pid) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/ns/net", (int)pid);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 ? -1 : setns(fd, CLONE_NEWNET);
    if (fd >= 0) close(fd);
    return rc;
}

/* Connected to that process and no other: the socket, or -1 with *code. */
static int reach_master(pid_t pid, int *code) {
    int fd = connect_to(pid);
    if (fd < 0 && errno == ECONNREFUSED && !geteuid() && !enter_network(pid))
        fd = connect_to(pid);
    if (fd < 0) {
        *code = fail(EX_UNAVAILABLE,
                     "process %d does not listen as a master of microgpt-fcgi does (%s)",
                     (int)pid, strerror(errno));
        return -1;
    }
    if (peer_of(fd).pid == pid) return fd;
    close(fd);
    *code = fail(EX_UNAVAILABLE, "another process listens in the name of %d", (int)pid);
    return -1;
}

static int say_outcome(char *packet, size_t len) {
    packet[len] = 0;
    char *text;
    long code = strtol(packet, &text, 10);
    if (*text != ' ' || code < 0 || code > 255)
        return fail(EX_PROTOCOL, "an answer that is none");
    if (code) return fail((int)code, "%s", text + 1);
    printf("reload: %s\n", text + 1);
    return fflush(stdout) ? EX_OSERR : 0;
}

int control_reload(const char *pid_text) {
    char packet[TEXT_MAX_BYTES + 1], *end;
    long pid = strtol(pid_text, &end, 10);
    int code = 0;
    if (pid <= 0 || *end || pid > INT32_MAX)
        return fail(EX_USAGE, "\"%.20s\" is no process id", pid_text);
    int fd = reach_master((pid_t)pid, &code);
    if (fd < 0) return code;
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int rc = poll(&p, 1, PATIENCE_MS);
    ssize_t n = rc == 1 ? recv(fd, packet, TEXT_MAX_BYTES, 0) : -1;
    close(fd);
    if (rc == 0) return fail(EX_TEMPFAIL, "no answer within five minutes");
    if (n > 0) return say_outcome(packet, (size_t)n);
    if (n == 0) return fail(EX_UNAVAILABLE, "it stops, or it does not hear this user");
    return fail(EX_OSERR, "%s", strerror(errno));
}
