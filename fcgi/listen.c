/* SPDX-License-Identifier: Apache-2.0
 * listen.c - where requests come from: a socket of our own (unix or TCP), systemd's, or
 * spawn-fcgi's fd 0. Two of us that start at once are kept apart by a lock on the
 * socket's directory; a socket file is created without permissions and gets them when it
 * is complete. Under systemd a socket of our own is kept in its descriptor store: what
 * arrives during a restart waits in the socket's queue. */
#include "listen.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sysexits.h>
#include <unistd.h>

#include "notify.h"

#define SYSTEMD_FIRST_FD 3
#define LOCK_TRIES       20 /* of 50 ms */
#define KEPT_NAME        "microgpt-kept"

static struct stat made; /* the socket file of listen_open; st_ino 0 = none */
static int kept = -1;    /* the socket of the process before us, from systemd's store */

/* ---- sockets that were passed in ---- */

static int is_listening(int fd) {
    int on = 0;
    socklen_t len = sizeof on;
    return !getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) && on;
}

static void make_nonblocking(int fd) {
    int flags = fcntl(fd, F_GETFL);
    if (flags >= 0) fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

/* Is the first of the names, which are parted by ':', that of a kept socket? Moves on. */
static int next_is_kept(const char **names) {
    size_t len = strcspn(*names, ":");
    int found = len == strlen(KEPT_NAME) && !strncmp(*names, KEPT_NAME, len);
    *names += len + ((*names)[len] == ':');
    return found;
}

int listen_systemd(int fds[LISTEN_MAX]) {
    const char *pid = getenv("LISTEN_PID"), *count = getenv("LISTEN_FDS");
    const char *names = getenv("LISTEN_FDNAMES");
    int n = 0;
    if (!names) names = "";
    if (pid && count && strtol(pid, NULL, 10) == getpid()) {
        long passed = strtol(count, NULL, 10);
        for (int fd = SYSTEMD_FIRST_FD; fd < SYSTEMD_FIRST_FD + passed && n < LISTEN_MAX;
             fd++) {
            int is_kept = next_is_kept(&names);
            fcntl(fd, F_SETFD, FD_CLOEXEC);
            if (!is_listening(fd)) continue;
            make_nonblocking(fd);
            if (is_kept)
                kept = fd;
            else
                fds[n++] = fd;
        }
    }
    unsetenv("LISTEN_PID");
    unsetenv("LISTEN_FDS");
    unsetenv("LISTEN_FDNAMES");
    return n;
}

int listen_is_fd0(void) {
    if (!is_listening(0)) return 0;
    make_nonblocking(0);
    return 1;
}

/* ---- errors ---- */

/* Fill error for the address, return the code. */
static int refuse(const struct config *c, int code, const char *what, const char *advice,
                  char *error, size_t size) {
    snprintf(error, size, "%s: %s%s%s", c->listen, what, *advice ? ": " : "", advice);
    return code;
}

static int refuse_errno(const struct config *c, const char *call, char *error,
                        size_t size) {
    char what[160];
    snprintf(what, sizeof what, "%s: %s", call, strerror(errno));
    return refuse(c, EX_OSERR, what, "", error, size);
}

static int refuse_in_use(const struct config *c, char *error, size_t size) {
    return refuse(c, EX_UNAVAILABLE, "another process is listening there",
                  "stop it, or set listen to another address", error, size);
}

/* ---- unix ---- */

static const char *unix_path(const struct config *c) {
    return strncmp(c->listen, "unix:", 5) ? NULL : c->listen + 5;
}

static struct sockaddr_un unix_address(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    return a;
}

/* The directory of path, "." if it names none. */
static void directory_of(const char *path, char *dir, size_t size) {
    const char *slash = strrchr(path, '/');
    size_t n = !slash ? 0 : slash == path ? 1 : (size_t)(slash - path);
    snprintf(dir, size, "%.*s", slash ? (int)n : 1, slash ? path : ".");
}

/* A missing or closed directory in words that say what to do. */
static int refuse_directory(const struct config *c, const char *dir, char *error,
                            size_t size) {
    char what[240], advice[240];
    int denied = errno == EACCES || errno == EPERM || errno == EROFS;
    snprintf(what, sizeof what, "%s %.120s: %s",
             denied ? "no access to directory" : "directory", dir, strerror(errno));
    if (denied)
        snprintf(advice, sizeof advice, "make it writable for uid %d, or set listen",
                 (int)geteuid());
    else
        snprintf(advice, sizeof advice, "create it, or set listen");
    int code = denied ? EX_NOPERM : errno == ENOENT ? EX_CONFIG : EX_OSERR;
    return refuse(c, code, what, advice, error, size);
}

enum finding { FREE, STALE, LIVE };

/* What stands at path. One of enum finding, or minus an exit code. */
static int find_socket(const struct config *c, const char *path, char *error,
                       size_t size) {
    struct stat st;
    char dir[128];
    directory_of(path, dir, sizeof dir);
    if (access(dir, W_OK | X_OK)) return -refuse_directory(c, dir, error, size);
    if (lstat(path, &st)) return FREE;
    if (!S_ISSOCK(st.st_mode))
        return -refuse(c, EX_UNAVAILABLE, "a file that is no socket is there",
                       "remove it, or set listen to another address", error, size);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -refuse_errno(c, "socket", error, size);
    struct sockaddr_un a = unix_address(path);
    int rc = connect(fd, (struct sockaddr *)&a, sizeof a), why = errno;
    close(fd);
    if (rc && why == ECONNREFUSED) return STALE;
    if (rc && why == ENOENT) return FREE;
    if (rc && why == EACCES)
        return -refuse(c, EX_NOPERM, "somebody else's socket is there",
                       "remove it, or set listen to another address", error, size);
    return LIVE;
}

/* Kept apart from another of us that starts now. The lock goes with the descriptor. */
static int lock_directory(const char *path) {
    char dir[128];
    directory_of(path, dir, sizeof dir);
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; fd >= 0 && i < LOCK_TRIES; i++) {
        if (!flock(fd, LOCK_EX | LOCK_NB)) break;
        poll(NULL, 0, 50);
    }
    return fd; /* without the lock after a second: some other program's, not one of us */
}

/* Group and mode of the new socket. 0 or an exit code. */
static int grant_access(const struct config *c, const char *path, char *error,
                        size_t size) {
    char what[200];
    if (*c->socket_group) {
        struct group *g = getgrnam(c->socket_group);
        if (!g) {
            snprintf(what, sizeof what, "socket_group: no group \"%s\" on this host",
                     c->socket_group);
            return refuse(c, EX_CONFIG, what, "", error, size);
        }
        struct stat
            st; /* born with our own group it needs no chown, which a sandbox denies */
        int has = !lstat(path, &st) && st.st_gid == g->gr_gid;
        if (!has && chown(path, (uid_t)-1, g->gr_gid)) {
            snprintf(what, sizeof what, "may not give the socket to group \"%s\"",
                     c->socket_group);
            return refuse(c, EX_NOPERM, what, "uid must be a member of it", error, size);
        }
    }
    if (chmod(path, (mode_t)c->socket_mode)) return refuse_errno(c, "chmod", error, size);
    return 0;
}

/* Bind, grant, listen. The file is born without permissions: nobody connects before it is
 * whole. */
static int bind_unix(const struct config *c, int fd, const char *path, char *error,
                     size_t size) {
    struct sockaddr_un a = unix_address(path);
    mode_t before = umask(0777);
    int rc = bind(fd, (struct sockaddr *)&a, sizeof a);
    umask(before);
    if (rc) {
        char dir[128];
        directory_of(path, dir, sizeof dir);
        return errno == EADDRINUSE ? refuse_in_use(c, error, size)
                                   : refuse_directory(c, dir, error, size);
    }
    rc = grant_access(c, path, error, size);
    if (!rc && listen(fd, c->backlog)) rc = refuse_errno(c, "listen", error, size);
    if (rc)
        unlink(path);
    else if (lstat(path, &made))
        made.st_ino = 0;
    return rc;
}

static int open_unix(const struct config *c, const char *path, char *error, size_t size) {
    int lock = lock_directory(path), fd = -1;
    int rc = find_socket(c, path, error, size);
    if (rc == LIVE) rc = -refuse_in_use(c, error, size);
    if (rc == STALE) unlink(path);
    if (rc >= 0) {
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        rc = fd < 0 ? -refuse_errno(c, "socket", error, size)
                    : -bind_unix(c, fd, path, error, size);
    }
    if (rc < 0 && fd >= 0) close(fd);
    if (lock >= 0) close(lock);
    return rc < 0 ? rc : fd;
}

/* ---- TCP ---- */

/* The addresses of host:port, [v6]:port or *:port. 0 or an exit code. */
static int resolve(const struct config *c, struct addrinfo **found, char *error,
                   size_t size) {
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char host[256];
    snprintf(host, sizeof host, "%s", c->listen);
    char *colon = strrchr(host, ':'), *name = host;
    *colon = 0;
    if (*name == '[') {
        name++;
        colon[-1] = 0;
    }
    if (!strcmp(name, "*")) name = NULL;
    int rc = getaddrinfo(name, colon + 1, &hints, found);
    if (!rc) return 0;
    char what[160];
    snprintf(what, sizeof what, "host not found (%s)", gai_strerror(rc));
    return refuse(c, EX_CONFIG, what, "", error, size);
}

/* The fd, or -1 with errno. */
static int open_address(const struct addrinfo *a, int backlog, int any) {
    int on = 1, off = 0;
    int fd = socket(a->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (a->ai_family == AF_INET6) /* *:port answers both */
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, any ? &off : &on, sizeof on);
    if (!bind(fd, a->ai_addr, a->ai_addrlen) && !listen(fd, backlog)) return fd;
    int why = errno;
    close(fd);
    errno = why;
    return -1;
}

/* The first address of that family (0 = any) that opens; -1 with errno. One that is taken
 * ends it: a name with two addresses (localhost) is not to be served on the other. */
static int open_first(const struct addrinfo *a, int family, int backlog, int any) {
    int fd = -1;
    errno = EADDRNOTAVAIL;
    for (; a && fd < 0; a = a->ai_next) {
        if (family && a->ai_family != family) continue;
        fd = open_address(a, backlog, any);
        if (fd < 0 && errno == EADDRINUSE) break;
    }
    return fd;
}

static int open_tcp(const struct config *c, char *error, size_t size) {
    struct addrinfo *found;
    int any = *c->listen == '*';
    int rc = resolve(c, &found, error, size);
    if (rc) return -rc;
    int fd = open_first(found, any ? AF_INET6 : 0, c->backlog, any);
    if (fd < 0 && any && errno != EADDRINUSE) /* a host without IPv6 */
        fd = open_first(found, AF_INET, c->backlog, any);
    int why = errno;
    freeaddrinfo(found);
    errno = why;
    if (fd >= 0) return fd;
    if (why == EADDRINUSE) return -refuse_in_use(c, error, size);
    if (why == EACCES)
        return -refuse(c, EX_NOPERM, "permission denied", "use a port above 1023", error,
                       size);
    if (why == EADDRNOTAVAIL)
        return -refuse(c, EX_CONFIG, "not an address of this host", "", error, size);
    return -refuse_errno(c, "bind", error, size);
}

/* ---- a socket that outlives us ---- */

/* Is fd bound to config->listen? A unix socket whose file is gone is of no use. */
static int is_bound_to(const struct config *c, int fd) {
    union {
        struct sockaddr any;
        struct sockaddr_un un;
        struct sockaddr_storage room;
    } have = {0};
    socklen_t len = sizeof have;
    struct stat st;
    struct addrinfo *found;
    const char *path = unix_path(c);
    if (getsockname(fd, &have.any, &len)) return 0;
    if (path)
        return have.any.sa_family == AF_UNIX && !strcmp(have.un.sun_path, path) &&
               !lstat(path, &st) && S_ISSOCK(st.st_mode);
    if (*c->listen == '*' || resolve(c, &found, (char[200]){0}, 200)) return 0;
    int same = found->ai_addrlen == len && !memcmp(found->ai_addr, &have, len);
    freeaddrinfo(found);
    return same;
}

/* The kept socket with what the configuration says now, -1 if it is another's address, or
 * minus an exit code. */
static int adopt(const struct config *c, char *error, size_t size) {
    int fd = kept, rc = 0;
    kept = -1;
    if (!is_bound_to(c, fd)) {
        notify_send("FDSTOREREMOVE=1\nFDNAME=" KEPT_NAME);
        close(fd);
        return -1;
    }
    const char *path = unix_path(c);
    if (path) rc = grant_access(c, path, error, size);
    if (!rc && listen(fd, c->backlog)) rc = refuse_errno(c, "listen", error, size);
    return rc ? -rc : fd;
}

void listen_keep(int fd) {
    if (!notify_send_fd("FDSTORE=1\nFDPOLL=0\nFDNAME=" KEPT_NAME, fd)) made.st_ino = 0;
}

/* ---- the public part ---- */

int listen_open(const struct config *c, char *error, size_t size) {
    const char *path = unix_path(c);
    int fd = kept >= 0 ? adopt(c, error, size) : -1;
    if (fd != -1) return fd;
    return path ? open_unix(c, path, error, size) : open_tcp(c, error, size);
}

/* -t: whether a socket there could be given to socket_group. 0 or an exit code. */
static int check_group(const struct config *c, const char *path, char *error,
                       size_t size) {
    char dir[128], trial[160];
    if (!*c->socket_group) return 0;
    directory_of(path, dir, sizeof dir);
    snprintf(trial, sizeof trial, "%s/.t%d", dir, (int)getpid());
    int fd = open(trial, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0);
    if (fd < 0) return refuse_directory(c, dir, error, size);
    close(fd);
    int rc = grant_access(c, trial, error, size);
    unlink(trial);
    return rc;
}

int listen_check(const struct config *c, char *text, size_t size) {
    const char *path = unix_path(c);
    int rc = path ? find_socket(c, path, text, size) : open_tcp(c, text, size);
    if (!path && rc >= 0) {
        close(rc);
        rc = FREE;
    }
    if (!path && rc == -EX_UNAVAILABLE) rc = LIVE;
    if (rc < 0) return -rc;
    int code = path ? check_group(c, path, text, size) : 0;
    if (code) return code;
    snprintf(text, size, "%s", rc == LIVE ? "in use now" : "free");
    return 0;
}

void listen_remove(const struct config *c) {
    struct stat st;
    const char *path = unix_path(c);
    if (path && made.st_ino && !lstat(path, &st) && st.st_ino == made.st_ino &&
        st.st_dev == made.st_dev)
        unlink(path);
}
