/* SPDX-License-Identifier: Apache-2.0
 * health.c - see health.h. One GET in FastCGI by hand: libfcgi is no client. */
#include "health.h"

#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_S = 3, BEGIN_REQUEST = 1, PARAMS = 4, STDIN = 5, STDOUT = 6, HEAD = 8 };

static int fail(int code, const char *address, const char *why) {
    fprintf(stderr, "microgpt-fcgi: health: %s: %s\n", address, why);
    return code;
}

/* ---- the connection: fd, or -1 with errno ---- */

static int connect_unix(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    if (snprintf(a.sun_path, sizeof a.sun_path, "%s", path) >= (int)sizeof a.sun_path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0 && !connect(fd, (struct sockaddr *)&a, sizeof a)) return fd;
    int why = errno;
    if (fd >= 0) close(fd);
    errno = why;
    return -1;
}

/* host of len bytes (brackets of a v6 address off), port after the colon */
static int connect_tcp(const char *host, size_t len, const char *port) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    struct addrinfo *found;
    struct timeval patience = {.tv_sec = PATIENCE_S};
    char name[256];
    int is_v6 = len > 1 && *host == '[' && host[len - 1] == ']';
    snprintf(name, sizeof name, "%.*s", (int)(is_v6 ? len - 2 : len), host + is_v6);
    errno = EADDRNOTAVAIL;
    if (getaddrinfo(name, port, &hints, &found)) return -1;
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd >= 0) setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    int rc = fd < 0 ? -1 : connect(fd, found->ai_addr, found->ai_addrlen), why = errno;
    freeaddrinfo(found);
    if (rc && fd >= 0) close(fd);
    errno = why;
    return rc ? -1 : fd;
}

/* ---- the request, the reply ---- */

static size_t put_record(unsigned char *to, int type, const void *body, size_t n) {
    unsigned char head[HEAD] = {1, (unsigned char)type, 0, 1, 0, (unsigned char)n, 0, 0};
    memcpy(to, head, HEAD);
    if (n) memcpy(to + HEAD, body, n);
    return HEAD + n;
}

static int send_request(int fd) {
    static const char begin[8] = {0, 1}; /* a responder, the connection ends with it */
    static const char params[] =
        "\x0e\x03REQUEST_METHODGET\x0b\x07SCRIPT_NAME/health"
        "\x0b\x07REQUEST_URI/health\x0f\x08SERVER_PROTOCOLHTTP/1.1";
    unsigned char request[256], *p = request;
    p += put_record(p, BEGIN_REQUEST, begin, sizeof begin);
    p += put_record(p, PARAMS, params, sizeof params - 1);
    p += put_record(p, PARAMS, NULL, 0);
    p += put_record(p, STDIN, NULL, 0);
    size_t n = (size_t)(p - request);
    return send(fd, request, n, MSG_NOSIGNAL) == (ssize_t)n ? 0 : -1;
}

/* What comes until the end, at most size bytes and about three seconds. */
static size_t receive(int fd, unsigned char *to, size_t size) {
    struct timeval patience = {.tv_sec = PATIENCE_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    time_t until = time(NULL) + PATIENCE_S;
    size_t have = 0;
    ssize_t n;
    while (have < size && time(NULL) <= until &&
           (n = recv(fd, to + have, size - have, 0)) > 0)
        have += (size_t)n;
    return have;
}

/* The text of the STDOUT records, moved to the front; its length. */
static size_t take_text(unsigned char *p, size_t n) {
    size_t at = 0, len = 0;
    while (n - at >= HEAD) {
        size_t content = (size_t)p[at + 4] << 8 | p[at + 5], padding = p[at + 6];
        int is_text = p[at + 1] == STDOUT;
        at += HEAD;
        if (content + padding > n - at) break;
        if (is_text) {
            memmove(p + len, p + at, content);
            len += content;
        }
        at += content + padding;
    }
    return len;
}

int health_ask(const char *address) {
    unsigned char reply[4096];
    const char *path = strncmp(address, "unix:", 5) ? address : address + 5;
    const char *colon = strrchr(path, ':');
    if (*path != '/' && (path != address || !colon))
        return fail(EX_USAGE, address, "unix:/path or host:port is expected");
    int fd = *path == '/' ? connect_unix(path)
                          : connect_tcp(path, (size_t)(colon - path), colon + 1);
    if (fd < 0) return fail(EX_UNAVAILABLE, address, strerror(errno));
    int rc = send_request(fd);
    size_t n = rc ? 0 : receive(fd, reply, sizeof reply);
    close(fd);
    n = take_text(reply, n);
    if (!n) return fail(EX_UNAVAILABLE, address, "no worker answers");
    if (!memmem(reply, n, "\r\n\r\nOk", 6)) return fail(EX_PROTOCOL, address, "not Ok");
    return puts("Ok") == EOF ? EX_OSERR : 0;
}
