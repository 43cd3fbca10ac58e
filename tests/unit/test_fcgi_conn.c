/* SPDX-License-Identifier: Apache-2.0
 * Connections by themselves, over socket pairs: one that another worker had, with the
 * request that has arrived on it; when a peer's time to take its answer begins. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../fcgi/conn.h"

/* BEGIN_REQUEST (keep the connection), PARAMS with A=b, the ends of PARAMS and STDIN. */
static const char request[] = "\1\1\0\1\0\10\0\0\0\1\1\0\0\0\0\0"
                              "\1\4\0\1\0\4\0\0\1\1Ab"
                              "\1\4\0\1\0\0\0\0"
                              "\1\5\0\1\0\0\0\0";
enum { REQUEST = sizeof request - 1 };

static struct conn_pool *pool;
static int far;

static int open_pool(void **state) {
    int fds[2];
    (void)state;
    pool = conn_pool_new(4, 1 << 16);
    if (!pool || socketpair(AF_UNIX, SOCK_STREAM, 0, fds)) return -1;
    conn_adopt(pool, fds[0], 1, 100);
    far = fds[1];
    return 0;
}

static int close_pool(void **state) {
    (void)state;
    conn_pool_free(pool);
    return close(far);
}

static void test_adopted(void **state) {
    struct conn *c = conn_at(pool, 0);
    (void)state;
    assert_int_equal(conn_count(pool), 1);
    assert_int_equal(c->state, CONN_IDLE);
    assert_true(c->parked);
    assert_false(conn_has_bytes(c));
    assert_int_equal(write(far, request, 5), 5);
    assert_true(conn_has_bytes(c));
    assert_int_equal(conn_read(c, 200), 0); /* not whole yet */
    assert_int_equal(write(far, request + 5, REQUEST - 5), REQUEST - 5);
    assert_int_equal(conn_read(c, 200), 1);
    assert_string_equal(conn_param(c, "A"), "b");
    conn_end(c, "Status: 200\r\n\r\n", 15, 1, 300);
    assert_int_equal(c->state, CONN_IDLE);
    assert_int_equal(c->since_ns, 300);
    shutdown(far, SHUT_WR);
    assert_false(conn_has_bytes(c)); /* an end is no byte */
}

/* The first byte that the socket does not take: from then on the peer is waited for, not
 * from when bytes last moved, which may be a whole queue ago. */
static void test_debt_begins(void **state) {
    static char text[4000];
    struct conn *c = conn_at(pool, 0);
    int64_t now = 1000, seen = 0;
    (void)state;
    assert_int_equal(write(far, request, REQUEST), REQUEST);
    assert_int_equal(conn_read(c, now), 1);
    for (; c->owed == 0 && now < 1000000; now += 1000) {
        seen = c->moved_ns;
        assert_int_equal(conn_put(c, text, sizeof text, now), 0);
    }
    now -= 1000;
    assert_int_equal(c->owed, sizeof text); /* nothing of the last piece moved */
    assert_int_equal(seen, now - 1000);
    assert_int_equal(c->moved_ns, now);
    assert_int_equal(conn_put(c, text, sizeof text, now + 5000), 0);
    assert_int_equal(c->moved_ns, now); /* more debt is no sign of life */
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_pool, close_pool)

int main(void) {
    const struct CMUnitTest tests[] = {TEST(test_adopted), TEST(test_debt_begins)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
