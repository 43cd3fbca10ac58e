/* SPDX-License-Identifier: Apache-2.0
 * When the next worker may start, and how long poll() waits for a moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../fcgi/backoff.h"
#include "../../fcgi/clock.h"

static const int64_t start = 1000 * NS_PER_S;

/* Deaths of the young, each as soon as the wait before it is over: 0, 0.5, 1, 2, 4, 8,
 * 10. */
static void test_waits_grow(void **state) {
    static const int64_t want_ms[] = {0,    500,   1000,  2000, 4000,
                                      8000, 10000, 10000, 10000};
    struct backoff b = {0};
    int64_t now = start;
    (void)state;
    for (int i = 0; i < 9; i++) {
        assert_int_equal(backoff_death(&b, now, NS_PER_S), want_ms[i] * NS_PER_MS);
        if (want_ms[i]) assert_int_equal(b.until_ns, now + want_ms[i] * NS_PER_MS);
        now += want_ms[i] * NS_PER_MS;
    }
}

/* Several that die together are one reason to wait, not several. */
static void test_one_wave(void **state) {
    struct backoff b = {0};
    (void)state;
    backoff_death(&b, start, 0);
    assert_int_equal(backoff_death(&b, start, 0), NS_PER_S / 2);
    for (int i = 0; i < 5; i++) assert_int_equal(backoff_death(&b, start + 1, 0), 0);
    assert_int_equal(b.until_ns, start + NS_PER_S / 2);
}

/* One that has served for a while is no reason to wait, and ends the row. */
static void test_old_age(void **state) {
    struct backoff b = {0};
    (void)state;
    for (int i = 0; i < 5; i++)
        assert_int_equal(backoff_death(&b, start + i, 3 * NS_PER_S), 0);
    assert_int_equal(backoff_death(&b, start + 5, 0), 0);
    assert_int_equal(backoff_death(&b, start + 6, 0), NS_PER_S / 2);
    assert_int_equal(backoff_death(&b, b.until_ns, 3 * NS_PER_S), 0);
    assert_int_equal(backoff_death(&b, b.until_ns, 0), 0);
}

static void test_wait(void **state) {
    struct backoff b = {0};
    (void)state;
    backoff_wait(&b, start, 10 * NS_PER_S);
    assert_int_equal(b.until_ns, start + 10 * NS_PER_S);
    assert_int_equal(backoff_death(&b, start + NS_PER_S, 0), 0);
    assert_int_equal(b.until_ns, start + 10 * NS_PER_S);
}

/* Never early, never for ever because a moment has just passed. */
static void test_poll_time(void **state) {
    (void)state;
    assert_int_equal(clock_wait_ms(INT64_MAX, start), -1);
    for (int64_t past = 0; past < 5 * NS_PER_MS; past += NS_PER_MS / 4)
        assert_int_equal(clock_wait_ms(start - past, start), 0);
    assert_int_equal(clock_wait_ms(0, start), 0);
    assert_int_equal(clock_wait_ms(start + 1, start), 1);
    assert_int_equal(clock_wait_ms(start + NS_PER_MS, start), 1);
    assert_int_equal(clock_wait_ms(start + NS_PER_MS + 1, start), 2);
    assert_int_equal(clock_wait_ms(INT64_MAX - 1, start), 3600000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_waits_grow), cmocka_unit_test(test_one_wave),
        cmocka_unit_test(test_old_age),    cmocka_unit_test(test_wait),
        cmocka_unit_test(test_poll_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
