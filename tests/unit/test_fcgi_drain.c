/* SPDX-License-Identifier: Apache-2.0
 * A worker that drains: its idle connections go to others; where nobody takes them they
 * end one by one and none with a request on it. The clock is the test's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../fcgi/clock.h"
#include "../../fcgi/drain.h"
#include "../../fcgi/log.h"
#include "../../fcgi/startup.h"

enum { CONNS = 5 };

static struct config config = {
    .model_dir = "tests/golden/chat-small",
    .lanes = 2,
    .queue = 2,
    .chunk = 16,
    .workers = 1,
    .timeout_ms = 30000,
    .send_timeout_ms = 5000,
    .drain_timeout_ms = 40000,
    .max_body = 1 << 20,
    .max_json = 1 << 20,
    .max_text = 1 << 20,
    .parked = 8,
    .log_level = LOG_LEVEL_ERROR,
};
static struct server server;
static struct handover pair;
static struct drain drain;
static int far[CONNS];

/* A server with idle connections, the first being the oldest, that begins to drain. */
static int open_all(void **state) {
    char text[512];
    int fds[2];
    (void)state;
    if (log_open(&config) || handover_open(&pair)) return -1;
    if (startup_open(&server, &config, text, sizeof text)) return -1;
    for (int i = 0; i < CONNS; i++) {
        if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds)) return -1;
        conn_adopt(server.pool, fds[0], 1, NS_PER_S + i);
        far[i] = fds[1];
    }
    server.now_ns = 10 * NS_PER_S;
    drain = (struct drain){.handover = &pair, .master = getppid()};
    drain_begin(&drain, &server, "test");
    return 0;
}

static int close_all(void **state) {
    (void)state;
    for (int i = 0; i < CONNS; i++) close(far[i]);
    close(pair.give);
    close(pair.take);
    server.draining = 0;
    startup_close(&server);
    return 0;
}

static int turn_after(int64_t ms) {
    server.now_ns += ms * NS_PER_MS;
    return drain_turn(&drain, &server, 0);
}

static int has_ended(int fd) {
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0;
}

static int count_ended(void) {
    int n = 0;
    for (int i = 0; i < CONNS; i++) n += has_ended(far[i]);
    return n;
}

/* Fill the pair with copies of fd, of which nobody takes one. */
static void fill_pair(int fd) {
    while (handover_give(&pair, fd, 1) == 1) continue;
}

static void empty_pair(void) {
    int fd, parked;
    while ((fd = handover_take(&pair, &parked)) >= 0) close(fd);
}

static void test_all_are_given(void **state) {
    int parked, n = 0, fd;
    (void)state;
    assert_int_equal(turn_after(0), 1); /* nothing is left to do */
    assert_int_equal(drain.n_given, CONNS);
    assert_int_equal(count_ended(), 0);
    for (; (fd = handover_take(&pair, &parked)) >= 0; n++) {
        assert_true(parked);
        close(fd);
    }
    assert_int_equal(n, CONNS);
    assert_int_equal(count_ended(), CONNS);
}

/* A full pair: wait for two seconds, then one every 20 ms, the oldest first; room again:
 * the rest is given. */
static void test_nobody_takes(void **state) {
    (void)state;
    fill_pair(far[0]);
    for (int i = 0; i < 19; i++) assert_int_equal(turn_after(100), 0);
    assert_int_equal(count_ended(), 0);
    assert_int_equal(turn_after(100), 0);
    assert_true(has_ended(far[0]));
    for (int n = 1; n < 3; n++) {
        assert_int_equal(turn_after(DRAIN_GAP_MS - 1), 0);
        assert_int_equal(count_ended(), n);
        assert_int_equal(turn_after(1), 0);
        assert_true(has_ended(far[n]));
        assert_int_equal(count_ended(), n + 1);
    }
    empty_pair();
    assert_int_equal(turn_after(1), 1);
    assert_int_equal(drain.n_given, CONNS - 3);
    assert_int_equal(count_ended(), 3);
}

/* The service stops: what was given and nobody took comes back, and all end one by one,
 * but not one on which a request has arrived. */
static void test_pair_has_ended(void **state) {
    struct conn *oldest = conn_at(server.pool, 0);
    (void)state;
    assert_int_equal(handover_give(&pair, oldest->fd, 1), 1);
    conn_close(oldest);
    handover_end(&pair);
    assert_int_equal(write(far[1], "x", 1), 1);
    assert_int_equal(turn_after(0), 0);
    assert_int_equal(conn_count(server.pool), CONNS); /* the oldest now has a request */
    assert_int_equal(drain.n_given, 0);
    for (int i = 0; i < 100; i++) assert_int_equal(turn_after(DRAIN_GAP_MS), 0);
    assert_int_equal(count_ended(), 0);
    assert_int_equal(conn_read(conn_at(server.pool, 1), server.now_ns), 0); /* in part */
    for (int n = 1; n < CONNS; n++) {
        assert_int_equal(turn_after(DRAIN_GAP_MS), 0);
        assert_int_equal(count_ended(), n);
    }
    assert_false(has_ended(far[1]));
}

/* Workers that lost their master do not give to one another. */
static void test_master_is_gone(void **state) {
    (void)state;
    drain.master = 1;
    if (getppid() == 1) skip();
    for (int n = 1; n < CONNS; n++) {
        assert_int_equal(turn_after(DRAIN_GAP_MS), 0);
        assert_int_equal(count_ended(), n);
    }
    assert_int_equal(turn_after(DRAIN_GAP_MS), 1);
    assert_int_equal(drain.n_given, 0);
}

static void test_without_a_master(void **state) {
    (void)state;
    drain.handover = NULL;
    for (int n = 1; n <= CONNS; n++) {
        assert_int_equal(turn_after(DRAIN_GAP_MS), n == CONNS);
        assert_true(has_ended(far[n - 1]));
        assert_int_equal(count_ended(), n);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_all, close_all)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_all_are_given),  TEST(test_nobody_takes),     TEST(test_pair_has_ended),
        TEST(test_master_is_gone), TEST(test_without_a_master),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
