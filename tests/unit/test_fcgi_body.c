/* SPDX-License-Identifier: Apache-2.0
 * JSON in the arena: exact integers, error positions, memory that runs out at every
 * point. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../fcgi/body.h"

enum { MAX_JSON = 1 << 20, ROOM = 1 << 16 };

static enum body_status parse(struct body *d, const char *text) {
    static char body[1 << 16];
    size_t n = strlen(text);
    body_reset();
    memcpy(body, text, n);
    return body_parse(d, body, n);
}

static void check_u64(const char *text, int rc, uint64_t want) {
    struct body d;
    uint64_t got = 0;
    assert_int_equal(parse(&d, text), BODY_OK);
    assert_int_equal(body_u64(&d, json_object_get(d.root, "v"), &got), rc);
    if (rc == 0) assert_true(got == want);
}

static void integers_are_exact(void **state) {
    (void)state;
    check_u64("{\"v\":0}", 0, 0);
    check_u64("{\"v\":-0}", 0, 0);
    check_u64("{\"v\":42}", 0, 42);
    check_u64("{\"v\":999999999999999999}", 0, 999999999999999999);
    check_u64("{\"v\":1000000000000000000}", 0, 1000000000000000000);
    check_u64("{\"v\":9223372036854775807}", 0, INT64_MAX);
    check_u64("{\"v\":9223372036854775808}", 0, (uint64_t)INT64_MAX + 1);
    check_u64("{\"v\":9999999999999999999}", 0, 9999999999999999999u);
    check_u64("{\"v\":18446744073709551614}", 0, UINT64_MAX - 1);
    check_u64("{\"v\":18446744073709551615}", 0, UINT64_MAX);
    check_u64("{\"v\":18446744073709551616}", -1, 0);
    check_u64("{\"v\":99999999999999999999999999999999999999}", -1, 0);
}

static void other_members_do_not_matter(void **state) {
    (void)state;
    check_u64("{\"v\":-1,\"w\":18446744073709551615}", -1, 0);
    check_u64("{\"v\":-9223372036854775808,\"w\":18446744073709551615}", -1, 0);
    check_u64("{\"v\":-99999999999999999999999}", -1, 0);
    check_u64("{\"v\":1.0,\"w\":18446744073709551615}", -1, 0);
    check_u64("{\"v\":1e0,\"w\":18446744073709551615}", -1, 0);
    check_u64("{\"v\":-0,\"w\":18446744073709551615}", 0, 0);
    check_u64("{\"v\":7,\"w\":-18446744073709551615}", 0, 7);
    check_u64("{\"w\":\"99999999999999999999 \\\" 9\",\"v\":8}", 0, 8);
    check_u64("{\"w\":[18446744073709551615,{\"x\":-5}],\"v\":18446744073709551615}", 0,
              UINT64_MAX);
}

static void check_number(const char *text, double want) {
    struct body d;
    double got = 0;
    assert_int_equal(parse(&d, text), BODY_OK);
    assert_int_equal(body_number(&d, json_object_get(d.root, "v"), &got), 0);
    assert_true(got == want);
}

static void numbers_keep_their_value(void **state) {
    (void)state;
    check_number("{\"v\":0.5}", 0.5);
    check_number("{\"v\":-3,\"w\":18446744073709551615}", -3);
    check_number("{\"v\":18446744073709551615}", 18446744073709551615.0);
    check_number("{\"v\":20000000000000000000}", 2e19);
    check_number("{\"v\":1e-300,\"w\":18446744073709551615}", 1e-300);
    static char many[2000];
    memset(many, '9', sizeof many - 1);
    char text[2100];
    snprintf(text, sizeof text, "{\"v\":%.400s}", many);
    check_number(text, BODY_HUGE);
}

static void check_broken(const char *text, const char *where) {
    struct body d;
    assert_int_equal(parse(&d, text), BODY_BROKEN);
    if (!strstr(d.error, where))
        fail_msg("%s: got \"%s\", want %s", text, d.error, where);
}

static void errors_say_where(void **state) {
    (void)state;
    check_broken("", "line 1, column 0");
    check_broken("{\"a\":1,}", "line 1, column 8");
    check_broken("{\"a\":18446744073709551615,}", "line 1, column 27");
    check_broken("{\"b\":-1,\n\"a\":18446744073709551615,\n \"c\" 1}",
                 "line 3, column 6");
    check_broken("{\"a\":018446744073709551615}", "line 1");
    check_broken("{\"a\":1e999}", "line 1");
    check_broken("{\"a\":--18446744073709551615}", "line 1");
    check_broken("{\"a\\u0000b\":1}", "line 1");
    check_broken("{\"a\":\"\xff\"}", "line 1");
    check_broken("\"never closed 12345678901234567890", "line 1");
    check_broken("[\"\\", "line 1");
}

static void the_last_member_counts(void **state) {
    (void)state;
    check_u64("{\"v\":1,\"v\":2}", 0, 2);
    check_u64("{\"v\":18446744073709551615,\"\\u0076\":3}", 0, 3);
}

static void nul_is_legal_in_strings(void **state) {
    struct body d;
    (void)state;
    assert_int_equal(parse(&d, "{\"s\":\"a\\u0000b\"}"), BODY_OK);
    assert_int_equal(json_string_length(json_object_get(d.root, "s")), 3);
}

/* Leave the arena less and less, so that each of Jansson's allocations fails once. */
static void memory_runs_out_anywhere(void **state) {
    static const char *const texts[] = {
        "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],\"seed\":1,\"x\":[1.5,"
        "true]}",
        "{\"a\":18446744073709551615,\"b\":-1,\"c\":[[[[]]]],\"d\":{\"e\":\"\\u00e9\"}}",
        "{\"a\":18446744073709551615,\"b\":-1,\"c\":[[[[]]]],\"d\":{\"e\":\"\\u00e9\"},}",
    };
    (void)state;
    for (size_t t = 0; t < sizeof texts / sizeof *texts; t++) {
        int refused = 0, other = 0;
        for (size_t left = 0; left < 8192; left += 16) {
            struct body d;
            static char body[512];
            size_t n = strlen(texts[t]);
            memcpy(body, texts[t], n);
            body_reset();
            assert_non_null(body_alloc(MAX_JSON - left)); /* the parser gets what is
                                                                 left */
            switch (body_parse(&d, body, n)) {
            case BODY_TOO_BIG: refused++; break;
            case BODY_OK:
            case BODY_BROKEN: other++; break;
            }
        }
        assert_true(refused > 10);
        assert_true(other > 10);
    }
}

static void a_huge_tree_is_refused(void **state) {
    static char body[MAX_JSON];
    struct body d;
    (void)state;
    memset(body, '[', 2000);
    for (size_t i = 2000; i < sizeof body; i++) body[i] = i % 2 ? ',' : '1';
    body_reset();
    assert_int_equal(body_parse(&d, body, sizeof body), BODY_TOO_BIG);
    body_reset();
    check_u64("{\"v\":5}", 0, 5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_are_exact),
        cmocka_unit_test(other_members_do_not_matter),
        cmocka_unit_test(numbers_keep_their_value),
        cmocka_unit_test(errors_say_where),
        cmocka_unit_test(the_last_member_counts),
        cmocka_unit_test(nul_is_legal_in_strings),
        cmocka_unit_test(memory_runs_out_anywhere),
        cmocka_unit_test(a_huge_tree_is_refused),
    };
    if (body_init(MAX_JSON, ROOM) < 0) return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
