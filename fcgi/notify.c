/* SPDX-License-Identifier: Apache-2.0
 * notify.c - the sd_notify protocol (systemd's sd_notify(3), written from its
 * description): text lines in one datagram to the unix socket named by NOTIFY_SOCKET.
 * Losing one is harmless. */
#include "notify.h"

#include "clock.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int fd = -1;
static struct sockaddr_un to;
static socklen_t to_len;
static int64_t period_ns, last_ns; /* of the watchdog; 0 = none */

void notify_init(void) {
    const char *path = getenv("NOTIFY_SOCKET"), *usec = getenv("WATCHDOG_USEC"),
               *pid = getenv("WATCHDOG_PID");
    size_t len = path ? strlen(path) : 0;
    if (len > 1 && len < sizeof to.sun_path && (*path == '/' || *path == '@')) {
        to.sun_family = AF_UNIX;
        memcpy(to.sun_path, path, len);
        if (*path == '@') to.sun_path[0] = 0; /* abstract: no NUL at the end either */
        to_len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
        fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    }
    if (fd >= 0 && usec && (!pid || strtol(pid, NULL, 10) == getpid()))
        period_ns = strtoll(usec, NULL, 10) * 1000 / 2;
    unsetenv("NOTIFY_SOCKET");
    unsetenv("WATCHDOG_USEC");
    unsetenv("WATCHDOG_PID");
}

void notify_forget(void) {
    if (fd >= 0) close(fd);
    fd = -1;
    period_ns = 0;
}

void notify_send(const char *fmt, ...) {
    char text[512];
    va_list args;
    if (fd < 0) return;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n > 0 && n < (int)sizeof text)
        sendto(fd, text, (size_t)n, MSG_NOSIGNAL, (struct sockaddr *)&to, to_len);
}

int notify_send_fd(const char *text, int passed) {
    char copy[128];
    union { /* aligned as a cmsghdr must be */
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof passed)];
    } control = {0};
    if (fd < 0) return -1;
    snprintf(copy, sizeof copy, "%s", text);
    struct iovec iov = {.iov_base = copy, .iov_len = strlen(copy)};
    struct msghdr message = {.msg_name = &to,
                             .msg_namelen = to_len,
                             .msg_iov = &iov,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof control.bytes};
    struct cmsghdr *c = CMSG_FIRSTHDR(&message);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof passed);
    memcpy(CMSG_DATA(c), &passed, sizeof passed);
    return sendmsg(fd, &message, MSG_NOSIGNAL) < 0 ? -1 : 0;
}

void notify_reloading(void) {
    notify_send("RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_ns() / 1000);
}

void notify_alive(int64_t now) {
    if (!period_ns || (last_ns && now - last_ns < period_ns)) return;
    last_ns = now;
    notify_send("WATCHDOG=1");
}

int64_t notify_wait_ms(int64_t now) {
    if (!period_ns) return -1;
    int64_t left = last_ns + period_ns - now;
    return left > 0 ? left / 1000000 + 1 : 0;
}
