/* SPDX-License-Identifier: Apache-2.0
 * A web server that has lost its mind, over a real socket: whatever it sends, libfcgi is
 * not made to abort, answers go out, and every descriptor and buffer comes back. The
 * first byte is the largest piece that is sent at once. */
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../../fcgi/conn.h"
#include "fuzz.h"

enum { MAX_BODY = 1 << 12 };

static struct conn_pool *pool;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    pool = conn_pool_new(2, MAX_BODY);
    return pool ? 0 : 1;
}

static void answer(struct conn *c) {
    static char body[MAX_BODY];
    FUZZ_CHECK(c->state == CONN_BUSY);
    FUZZ_CHECK(strlen(conn_param(c, "REQUEST_METHOD")) < 1 << 18);
    FUZZ_CHECK(strlen(conn_param(c, "")) < 1 << 18);
    if (!conn_body_too_large(c)) {
        uint64_t size = conn_body_size(c);
        FUZZ_CHECK(size <= MAX_BODY);
        int64_t n = conn_body(c, body);
        FUZZ_CHECK(n <= (int64_t)size);
    }
    conn_put(c, "Status: 200\r\n\r\n", 15, 2);
    conn_end(c, "{}", 2, 1, 3);
}

static void drain(int fd) {
    char buf[4096];
    while (recv(fd, buf, sizeof buf, MSG_DONTWAIT) > 0) continue;
}

/* All that has arrived is read; 0 when the connection is gone. */
static int read_all(int far) {
    for (int i = 0; conn_count(pool) && i < 64; i++) {
        struct conn *c = conn_at(pool, 0);
        if (c->owed) conn_flush(c, 4);
        drain(far);
        if (!conn_count(pool)) return 0;
        if (c->state != CONN_IDLE && c->state != CONN_READING) continue;
        if (!conn_has_bytes(c)) return 1;
        int rc = conn_read(c, 1);
        if (rc < 0) return 0;
        if (rc == 1) answer(c);
    }
    return conn_count(pool) > 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct fuzz_bytes in = {data, size};
    size_t piece = 1 + fuzz_byte(&in) * 16u;
    int fds[2];
    FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds));
    conn_adopt(pool, fds[0], 0, 0);
    while (in.left && conn_count(pool)) {
        size_t n = piece < in.left ? piece : in.left;
        ssize_t k = send(fds[1], in.at, n, MSG_NOSIGNAL);
        if (k <= 0) break;
        in.at += k, in.left -= (size_t)k;
        if (!read_all(fds[1])) break;
    }
    if (conn_count(pool)) conn_close(conn_at(pool, 0));
    FUZZ_CHECK(conn_count(pool) == 0);
    close(fds[1]);
    return 0;
}
