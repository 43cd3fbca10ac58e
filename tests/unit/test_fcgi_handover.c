/* SPDX-License-Identifier: Apache-2.0
 * Descriptors on their way from worker to worker: what was given is taken once, with its
 * unread bytes, whoever dies in between; a full pair, an ended one, no free descriptor.
 * */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../fcgi/handover.h"

static struct handover pair;

static int open_pair(void **state) {
    (void)state;
    return handover_open(&pair);
}

static int close_pair(void **state) {
    (void)state;
    return close(pair.give) | close(pair.take);
}

/* A connection of which the near end is given away; returns the far one. */
static int give_one(int parked) {
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    assert_int_equal(handover_give(&pair, fds[0], parked), 1);
    close(fds[0]);
    return fds[1];
}

static void assert_joined(int a, int b) {
    char byte = 0;
    assert_int_equal(write(a, "x", 1), 1);
    assert_int_equal(read(b, &byte, 1), 1);
    assert_int_equal(byte, 'x');
}

static void assert_none(int why) {
    int parked;
    assert_int_equal(handover_take(&pair, &parked), -1);
    assert_int_equal(errno, why);
}

static void test_in_order_with_bytes(void **state) {
    int far[3], fd, parked;
    char text[8] = {0};
    (void)state;
    assert_none(EAGAIN);
    for (int i = 0; i < 3; i++) far[i] = give_one(i == 1);
    assert_int_equal(write(far[0], "unread", 6), 6); /* while it is on its way */
    for (int i = 0; i < 3; i++) {
        assert_true((fd = handover_take(&pair, &parked)) > 2);
        assert_int_equal(parked, i == 1);
        assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
        if (i == 0) assert_int_equal(read(fd, text, sizeof text), 6);
        assert_joined(fd, far[i]);
        assert_joined(far[i], fd);
        close(fd);
        assert_int_equal(read(far[i], text, 1), 0); /* that was the last descriptor */
        close(far[i]);
    }
    assert_none(EAGAIN);
}

/* Bounded, without waiting, and nothing is lost. */
static void test_full(void **state) {
    int fds[2], n = 0, parked, fd;
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    while (n < 100000 && handover_give(&pair, fds[0], 1) == 1) n++;
    assert_in_range(n, 64, 99999); /* what one worker may have parked fits */
    assert_int_equal(handover_give(&pair, fds[0], 1), 0);
    while ((fd = handover_take(&pair, &parked)) >= 0) {
        close(fd);
        n--;
    }
    assert_int_equal(errno, EAGAIN);
    assert_int_equal(n, 0);
    assert_int_equal(handover_give(&pair, fds[0], 1), 1);
    close(fds[0]);
    close(fds[1]);
}

static void test_end(void **state) {
    int fd, parked, far = give_one(1);
    (void)state;
    handover_end(&pair);
    assert_int_equal(handover_give(&pair, far, 1), -1);
    assert_true((fd = handover_take(&pair, &parked)) > 2); /* given before */
    assert_joined(far, fd);
    assert_none(EPIPE);
    close(fd);
    close(far);
}

/* Without a number for it the kernel would drop it: it waits for one who has room. */
static void test_no_free_descriptor(void **state) {
    struct rlimit limit, low;
    int fd, parked, far = give_one(1);
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    low = limit;
    fd = dup(far);
    low.rlim_cur = (rlim_t)fd; /* the lowest free one, and those above */
    close(fd);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
    assert_none(EMFILE);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    assert_true((fd = handover_take(&pair, &parked)) > 2);
    assert_joined(far, fd);
    close(fd);
    close(far);
}

/* The giver has ended, a taker dies before it took: the next taker has it all the same.
 * */
static void test_deaths(void **state) {
    int fds[2], parked, status;
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    pid_t giver = fork();
    if (!giver) _exit(handover_give(&pair, fds[0], 1) != 1);
    close(fds[0]);
    assert_int_equal(waitpid(giver, &status, 0), giver);
    assert_int_equal(status, 0);
    pid_t taker = fork();
    if (!taker) _exit(0);
    assert_int_equal(waitpid(taker, &status, 0), taker);
    int fd = handover_take(&pair, &parked);
    assert_true(fd > 2);
    assert_joined(fds[1], fd);
    close(fd);
    close(fds[1]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, open_pair, close_pair)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_in_order_with_bytes), TEST(test_full),   TEST(test_end),
        TEST(test_no_free_descriptor),  TEST(test_deaths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
