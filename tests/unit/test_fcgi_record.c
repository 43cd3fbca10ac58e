/* SPDX-License-Identifier: Apache-2.0
 * The frame scanner: whole requests in every split, and everything that is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../fcgi/record.h"

struct bytes {
    unsigned char p[70000];
    size_t n;
};

static void add_record(struct bytes *b, int type, int id, const void *content, size_t n,
                       int padding) {
    unsigned char *h = b->p + b->n;
    unsigned char head[8] = {1,
                             (unsigned char)type,
                             (unsigned char)(id >> 8),
                             (unsigned char)id,
                             (unsigned char)(n >> 8),
                             (unsigned char)n,
                             (unsigned char)padding,
                             0};
    memcpy(h, head, 8);
    if (n) memcpy(h + 8, content, n);
    memset(h + 8 + n, 0xee, (size_t)padding);
    b->n += 8 + n + (size_t)padding;
}

static const unsigned char begin[8] = {0, 1, 1, 0, 0, 0, 0, 0};
static const char params[] = "\x04\x05NAMEvalue\x01\x00X\x80\x00\x00\x05\x03LONGEabc";

static void add_request(struct bytes *b, int id) {
    add_record(b, 1, id, begin, sizeof begin, 0);
    add_record(b, 4, id, params, 11, 3);
    add_record(b, 4, id, params + 11, sizeof params - 1 - 11, 0);
    add_record(b, 4, id, NULL, 0, 0);
    add_record(b, 5, id, "{\"a\":1}", 7, 1);
    add_record(b, 5, id, NULL, 0, 0);
}

static enum record_state scan_all(const struct bytes *b, size_t *used) {
    struct record_scan s;
    record_scan_init(&s);
    return record_scan(&s, b->p, b->n, used);
}

static void whole_request(void **state) {
    struct bytes b = {.n = 0};
    size_t used;
    (void)state;
    add_request(&b, 1);
    assert_int_equal(scan_all(&b, &used), RECORD_DONE);
    assert_int_equal(used, b.n);
    size_t one = b.n;
    add_request(&b, 2); /* what follows belongs to nobody */
    assert_int_equal(scan_all(&b, &used), RECORD_DONE);
    assert_int_equal(used, one);
}

static void any_split_is_the_same(void **state) {
    struct bytes b = {.n = 0};
    (void)state;
    add_request(&b, 258);
    for (size_t at = 0; at <= b.n; at++) {
        struct record_scan s;
        size_t used;
        record_scan_init(&s);
        enum record_state first = record_scan(&s, b.p, at, &used);
        assert_int_equal(used, at);
        assert_int_equal(first, at == b.n ? RECORD_DONE : RECORD_MORE);
        assert_int_equal(record_scan(&s, b.p + at, b.n - at, &used), RECORD_DONE);
        assert_int_equal(s.body, 7);
        assert_int_equal(s.id, 258);
    }
    struct record_scan s;
    record_scan_init(&s);
    for (size_t i = 0; i < b.n; i++) {
        size_t used;
        assert_int_equal(record_scan(&s, b.p + i, 1, &used),
                         i + 1 < b.n ? RECORD_MORE : RECORD_DONE);
    }
}

static void check_bad(const struct bytes *b) {
    size_t used;
    assert_int_equal(scan_all(b, &used), RECORD_BAD);
}

static void what_no_server_sends(void **state) {
    (void)state;
    for (int type = 0; type < 256; type++) { /* any other first record, management ones
                                                included */
        struct bytes b = {.n = 0};
        add_record(&b, type, type >= 9 ? 0 : 1, begin, sizeof begin, 0);
        if (type != 1) check_bad(&b);
    }
    struct bytes role = {.n = 0}, id = {.n = 0}, abort = {.n = 0}, again = {.n = 0};
    add_record(&role, 1, 1, "\0\2\0\0\0\0\0\0", 8, 0); /* an authorizer */
    check_bad(&role);
    add_record(&id, 1, 1, begin, 8, 0);
    add_record(&id, 4, 2, NULL, 0, 0); /* another request's */
    check_bad(&id);
    add_record(&abort, 1, 1, begin, 8, 0);
    add_record(&abort, 2, 1, NULL, 0, 0);
    check_bad(&abort);
    add_record(&again, 1, 1, begin, 8, 0);
    add_record(&again, 1, 1, begin, 8, 0);
    check_bad(&again);
}

static void check_params(const char *text, size_t n, enum record_state want) {
    struct bytes b = {.n = 0};
    size_t used;
    add_record(&b, 1, 1, begin, 8, 0);
    add_record(&b, 4, 1, text, n, 0);
    add_record(&b, 4, 1, NULL, 0, 0);
    add_record(&b, 5, 1, NULL, 0, 0);
    assert_int_equal(scan_all(&b, &used), want);
}

static void parameters_must_add_up(void **state) {
    (void)state;
    check_params("\x01\x01"
                 "ab",
                 4, RECORD_DONE);
    check_params("\x00\x00", 2, RECORD_DONE);
    check_params("\x01\x02"
                 "ab",
                 4, RECORD_BAD); /* ends within the value */
    check_params("\x01", 1, RECORD_BAD);
    check_params("\x80\x00\x00", 3, RECORD_BAD);
    check_params("\xff\xff\xff\xfe\xff\xff\xff\xfe", 8, RECORD_BAD);
    check_params("\x7f\x80\x03\xff\xff", 5, RECORD_BAD);
}

static void parameters_are_bounded(void **state) {
    static unsigned char value[65000];
    (void)state;
    struct record_scan s;
    size_t used;
    struct bytes b = {.n = 0};
    record_scan_init(&s);
    add_record(&b, 1, 1, begin, 8, 0);
    assert_int_equal(record_scan(&s, b.p, b.n, &used), RECORD_MORE);
    for (int i = 0; i < 5; i++) { /* pairs of 65000 bytes: four fit into 256 KiB */
        memcpy(value, "\x01\x80\x00\xfd\xe2", 5);
        b.n = 0;
        add_record(&b, 4, 1, value, sizeof value, 0);
        assert_int_equal(record_scan(&s, b.p, b.n, &used),
                         i < 4 ? RECORD_MORE : RECORD_BAD);
    }
}

/* Any byte changed: some state, nothing read past the end (sanitizers watch). */
static void any_byte_changed(void **state) {
    struct bytes b = {.n = 0};
    int bad = 0;
    (void)state;
    add_request(&b, 1);
    for (size_t i = 0; i < b.n; i++)
        for (int v = 0; v < 256; v++) {
            struct bytes c = b;
            size_t used;
            c.p[i] = (unsigned char)v;
            bad += scan_all(&c, &used) == RECORD_BAD;
            assert_true(used <= c.n);
        }
    assert_true(bad > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_request),
        cmocka_unit_test(any_split_is_the_same),
        cmocka_unit_test(what_no_server_sends),
        cmocka_unit_test(parameters_must_add_up),
        cmocka_unit_test(parameters_are_bounded),
        cmocka_unit_test(any_byte_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
