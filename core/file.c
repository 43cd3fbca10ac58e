/* SPDX-License-Identifier: Apache-2.0
 * file.c - opening the files of a checkpoint. A path may lead to anything (a fifo, a
 * device, a directory): only regular files are read, and opening never waits. Knows no
 * format. */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "error.h"

char *mg_file_path(const char *dir, const char *name) {
    size_t len = strlen(dir);
    while (len > 1 && dir[len - 1] == '/') len--;
    char *path = NULL;
    if (asprintf(&path, "%.*s/%s", (int)len, dir, name) < 0) return NULL;
    return path;
}

/* Why open failed, errno, and what to do about it. */
static int fail_open(const char *path, const char *what, struct mg_error *err) {
    int e = errno;
    if (e == ENOENT || e == ENOTDIR)
        return mg_fail(err, MG_ENOFILE, "%s: %s; expected %s", path, strerror(e), what);
    if (e == EACCES || e == EPERM)
        return mg_fail(
            err, MG_ENOFILE,
            "%s: %s; make it (and the folders above it) readable for this user", path,
            strerror(e));
    return mg_fail(err, e == ELOOP || e == ENAMETOOLONG ? MG_ENOFILE : MG_ESYSTEM,
                   "%s: cannot open: %s", path, strerror(e));
}

int mg_dir_open(const char *dir, struct mg_error *err) {
    int fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) return fd;
    return fail_open(dir, "a folder with meta.json and weights.safetensors", err);
}

int mg_file_open(int dirfd, const char *name, const char *path, size_t *size,
                 struct mg_error *err) {
    int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return fail_open(path, "a file of a checkpoint", err);
    struct stat st;
    if (fstat(fd, &st))
        mg_fail(err, MG_ESYSTEM, "%s: fstat: %s", path, strerror(errno));
    else if (!S_ISREG(st.st_mode))
        mg_fail(err, MG_EFILE, "%s: found a %s, expected a regular file", path,
                S_ISDIR(st.st_mode) ? "directory" : "device, pipe or socket");
    else {
        *size = (size_t)st.st_size;
        return fd;
    }
    close(fd);
    return -1;
}

/* Read up to cap bytes; returns how many there were before the end, -1 on error. */
static ssize_t read_whole(int fd, char *buf, size_t cap) {
    size_t len = 0;
    while (len < cap) {
        ssize_t n = read(fd, buf + len, cap - len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        len += (size_t)n;
    }
    return (ssize_t)len;
}

char *mg_file_read(int dirfd, const char *name, const char *path, size_t max, size_t *len,
                   struct mg_error *err) {
    size_t size;
    char *buf = NULL;
    int fd = mg_file_open(dirfd, name, path, &size, err);
    if (fd < 0) return NULL;
    if (size > max) {
        mg_fail(err, MG_EFILE, "%s: found %zu bytes, expected at most %zu", path, size,
                max);
        goto out;
    }
    buf = malloc(size + 1);
    if (!buf) {
        mg_fail(err, MG_ENOMEM, "%s: out of memory for %zu bytes", path, size);
        goto out;
    }
    ssize_t n = read_whole(fd, buf, size);
    if (n < 0) {
        mg_fail(err, MG_ESYSTEM, "%s: cannot read: %s", path, strerror(errno));
        free(buf);
        buf = NULL;
        goto out;
    }
    buf[n] = '\0';
    *len = (size_t)n;
out:
    close(fd);
    return buf;
}
