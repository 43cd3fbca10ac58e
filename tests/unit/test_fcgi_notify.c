/* SPDX-License-Identifier: Apache-2.0
 * What systemd would get: datagrams on a path and on an abstract name, the watchdog's
 * pace, and nothing at all without NOTIFY_SOCKET. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../fcgi/clock.h"
#include "../../fcgi/notify.h"

/* A socket at that name ('@': abstract), and NOTIFY_SOCKET set to it. */
static int listen_at(const char *name) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t len = strlen(name);
    memcpy(a.sun_path, name, len);
    if (*name == '@') a.sun_path[0] = 0;
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a,
                          (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len)),
                     0);
    setenv("NOTIFY_SOCKET", name, 1);
    return fd;
}

/* The datagram that is there; "" if there is none. */
static const char *take(int fd) {
    static char text[600];
    ssize_t n = recv(fd, text, sizeof text - 1, MSG_DONTWAIT);
    text[n > 0 ? n : 0] = 0;
    return text;
}

static void check_at(const char *name) {
    int fd = listen_at(name);
    notify_init();
    assert_null(getenv("NOTIFY_SOCKET"));
    notify_send("READY=1\nSTATUS=%d workers", 4);
    assert_string_equal(take(fd), "READY=1\nSTATUS=4 workers");
    int64_t before = clock_ns() / 1000;
    notify_reloading();
    long long usec;
    assert_int_equal(sscanf(take(fd), "RELOADING=1\nMONOTONIC_USEC=%lld", &usec), 1);
    assert_in_range(usec, before, clock_ns() / 1000);
    assert_int_equal(notify_wait_ms(0), -1);
    notify_alive(clock_ns());
    assert_string_equal(take(fd), "");
    notify_forget();
    notify_send("READY=1");
    assert_string_equal(take(fd), "");
    close(fd);
}

static void test_path(void **state) {
    char dir[] = "/tmp/microgpt-notify-XXXXXX", path[64];
    (void)state;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/s", dir);
    check_at(path);
    unlink(path);
    rmdir(dir);
}

static void test_abstract(void **state) {
    char name[64];
    (void)state;
    snprintf(name, sizeof name, "@microgpt-test-%d", (int)getpid());
    check_at(name);
}

/* 2 s of WATCHDOG_USEC: a sign of life every second, and not for another process. */
static void test_watchdog(void **state) {
    char name[64], pid[20];
    (void)state;
    snprintf(name, sizeof name, "@microgpt-test-w%d", (int)getpid());
    int fd = listen_at(name);
    setenv("WATCHDOG_USEC", "2000000", 1);
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    setenv("WATCHDOG_PID", pid, 1);
    notify_init();
    assert_null(getenv("WATCHDOG_USEC"));
    int64_t t = 5 * NS_PER_S;
    notify_alive(t);
    assert_string_equal(take(fd), "WATCHDOG=1");
    assert_in_range(notify_wait_ms(t), 1000, 1001);
    notify_alive(t + NS_PER_S - 1);
    assert_string_equal(take(fd), "");
    assert_int_equal(notify_wait_ms(t + 2 * NS_PER_S), 0);
    notify_alive(t + NS_PER_S);
    assert_string_equal(take(fd), "WATCHDOG=1");
    notify_forget();
    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", "2000000", 1);
    setenv("WATCHDOG_PID", "1", 1);
    notify_init();
    assert_int_equal(notify_wait_ms(t), -1);
    notify_forget();
    close(fd);
}

static void test_without(void **state) {
    (void)state;
    notify_init();
    notify_send("READY=1");
    notify_reloading();
    notify_alive(1);
    setenv("NOTIFY_SOCKET", "relative", 1); /* not a name the protocol knows */
    notify_init();
    notify_send("READY=1");
    notify_forget();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_path),
        cmocka_unit_test(test_abstract),
        cmocka_unit_test(test_watchdog),
        cmocka_unit_test(test_without),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
