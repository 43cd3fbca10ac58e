/* SPDX-License-Identifier: Apache-2.0
 *
 * test_text.c - bytes to whole, trimmed characters: white space, ill-formed sequences
 * (one U+FFFD for each maximal ill-formed part), any split, and that what was visible
 * stays as it was. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/text.h"
#include "make_model.h"

#define FFFD "\xEF\xBF\xBD"

/* ---- an own, slow view of the same rules ------------------------------------------- */

static int is_space_listed(uint32_t c) {
    static const uint32_t list[] = {
        0x09,   0x0A,   0x0B,   0x0C,   0x0D,   0x20,   0x85,   0xA0,   0x1680,
        0x2000, 0x2001, 0x2002, 0x2003, 0x2004, 0x2005, 0x2006, 0x2007, 0x2008,
        0x2009, 0x200A, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
    for (size_t i = 0; i < sizeof list / sizeof *list; i++)
        if (list[i] == c) return 1;
    return 0;
}

/* Rows of Unicode's table 3-7: ranges of the bytes of well-formed sequences. */
static const unsigned char well_formed[9][8] = {
    {0x00, 0x7F},
    {0xC2, 0xDF, 0x80, 0xBF},
    {0xE0, 0xE0, 0xA0, 0xBF, 0x80, 0xBF},
    {0xE1, 0xEC, 0x80, 0xBF, 0x80, 0xBF},
    {0xED, 0xED, 0x80, 0x9F, 0x80, 0xBF},
    {0xEE, 0xEF, 0x80, 0xBF, 0x80, 0xBF},
    {0xF0, 0xF0, 0x90, 0xBF, 0x80, 0xBF, 0x80, 0xBF},
    {0xF1, 0xF3, 0x80, 0xBF, 0x80, 0xBF, 0x80, 0xBF},
    {0xF4, 0xF4, 0x80, 0x8F, 0x80, 0xBF, 0x80, 0xBF},
};

/* Bytes at s[0..n) that begin a row; *whole when they complete it. At least 1. */
static size_t match_row(const unsigned char *s, size_t n, int *whole) {
    *whole = 0;
    for (int r = 0; r < 9; r++) {
        const unsigned char *row = well_formed[r];
        size_t len = r == 0 ? 1 : r == 1 ? 2 : r < 6 ? 3 : 4, i = 0;
        while (i < len && i < n && s[i] >= row[2 * i] && s[i] <= row[2 * i + 1]) i++;
        if (i > 0) {
            *whole = i == len;
            return i;
        }
    }
    return 1;
}

/* The whole text at once: each maximal ill-formed part becomes U+FFFD. Returns its
 * length. */
static size_t decode_lossy(const unsigned char *s, size_t n, char *out) {
    size_t len = 0;
    for (size_t i = 0; i < n;) {
        int whole;
        size_t k = match_row(s + i, n - i, &whole);
        memcpy(out + len, whole ? (const char *)s + i : FFFD, whole ? k : 3);
        len += whole ? k : 3;
        i += k;
    }
    return len;
}

static size_t trim_ends(char *s, size_t n) {
    uint32_t c;
    size_t first = n, last = 0, k;
    for (size_t i = 0; i < n; i += k) {
        k = (size_t)mg_utf8_next(s + i, s + n, &c);
        if (is_space_listed(c)) continue;
        first = first == n ? i : first;
        last = i + k;
    }
    if (first == n) return 0;
    memmove(s, s + first, last - first);
    return last - first;
}

/* ---- tests ------------------------------------------------------------------------- */

static size_t encode_scalar(uint32_t c, unsigned char *s) {
    if (c < 0x80) return s[0] = (unsigned char)c, 1;
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char lead[] = {0, 0, 0xC0, 0xE0, 0xF0};
    for (size_t i = n; i-- > 1; c >>= 6) s[i] = (unsigned char)(0x80 | (c & 0x3F));
    s[0] = (unsigned char)(lead[n] | c);
    return n;
}

static void test_white_space_is_the_25_code_points(void **state) {
    (void)state;
    int n = 0;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        assert_int_equal(mg_is_white_space(c) != 0, is_space_listed(c));
        n += mg_is_white_space(c) != 0;
    }
    assert_int_equal(n, 25);
}

static void test_every_scalar_survives(void **state) {
    (void)state;
    for (uint32_t c = 0; c <= 0x10FFFF; c++) {
        if (c >= 0xD800 && c <= 0xDFFF) continue;
        unsigned char s[4];
        char buf[16];
        uint32_t back;
        size_t n = encode_scalar(c, s);
        assert_int_equal(mg_utf8_next((char *)s, (char *)s + n, &back), n);
        assert_int_equal(back, c);
        struct mg_text t;
        mg_text_init(&t, buf, sizeof buf, 0);
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(t.visible, 0); /* never a part of a character */
            mg_text_append(&t, (char *)s + i, 1);
        }
        assert_int_equal(t.visible, n);
        assert_memory_equal(buf, s, n);
    }
}

static void test_blank(void **state) {
    (void)state;
    assert_true(mg_text_is_blank("", 0));
    assert_true(
        mg_text_is_blank(" \t\r\n\v\f\xC2\x85\xC2\xA0\xE3\x80\x80\xE2\x80\xA8", 16));
    assert_false(mg_text_is_blank("\0", 1));
    assert_false(mg_text_is_blank("  x", 3));
    assert_false(mg_text_is_blank("\xE2\x80\x8B", 3));  /* U+200B is no white space */
    assert_false(mg_text_is_blank(" \xEF\xBB\xBF", 4)); /* nor U+FEFF */
}

struct text_case {
    const char *in, *raw, *trimmed;
};

static const struct text_case cases[] = {
    {"", "", ""},
    {"abc", "abc", "abc"},
    {"  a b \n", "  a b \n", "a b"},
    {" \t\n", " \t\n", ""},
    {"\xC2\xA0x\xE3\x80\x80", "\xC2\xA0x\xE3\x80\x80", "x"},
    {"\xE2\x82", FFFD, FFFD},
    {"\xF0\x9F\x98", FFFD, FFFD},
    {"\xC0\x80", FFFD FFFD, FFFD FFFD},
    {"\xED\xA0\x80", FFFD FFFD FFFD, FFFD FFFD FFFD},
    {"\xF4\x90\x80\x80", FFFD FFFD FFFD FFFD, FFFD FFFD FFFD FFFD},
    {"\xE0\x80\xAF", FFFD FFFD FFFD, FFFD FFFD FFFD},
    {"\xF0\x80\x80", FFFD FFFD FFFD, FFFD FFFD FFFD},
    {"\xE2\x82x", FFFD "x", FFFD "x"},
    {"\xE2\x82\xE2\x82\xAC", FFFD "\xE2\x82\xAC", FFFD "\xE2\x82\xAC"},
    {"a\x80"
     "b",
     "a" FFFD "b", "a" FFFD "b"},
    {"\xFF\xFE", FFFD FFFD, FFFD FFFD},
    {" \xE2\x82 ", " " FFFD " ", FFFD},
    {"\xEF\xBB\xBF x", "\xEF\xBB\xBF x", "\xEF\xBB\xBF x"},
};

/* in, cut in two at every place, with an empty token between the halves. */
static void check_case(const char *in, int trim, const char *want) {
    size_t n = strlen(in);
    for (size_t cut = 0; cut <= n; cut++) {
        char buf[64];
        struct mg_text t;
        mg_text_init(&t, buf, 3 * n + 3, trim);
        mg_text_append(&t, in, cut);
        mg_text_append(&t, "", 0);
        mg_text_append(&t, in + cut, n - cut);
        mg_text_finish(&t);
        assert_int_equal(t.visible, strlen(want));
        assert_memory_equal(buf, want, t.visible);
    }
}

static void test_cases_at_every_split(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        check_case(cases[i].in, 0, cases[i].raw);
        check_case(cases[i].in, 1, cases[i].trimmed);
    }
}

/* Leading white space, one run of ASCII punctuation, white space: at every split. */
static void test_leading_punctuation_is_stripped(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"", ""},
        {" \n", ""},
        {"!?", ""},
        {"a!", "a!"},
        {" a", "a"},
        {"!a", "a"},
        {" !? a. ", "a."},
        {"- - a", "- a"},
        {"\xC2\xA0~ \xE3\x80\x80\"b\"", "\"b\""},
        {"\xC2\xBF"
         "a",
         "\xC2\xBF"
         "a"}, /* not ASCII */
        {"!\xE2\x82 !", FFFD " !"},
        {"/0:9@A[Z`a{z", "0:9@A[Z`a{z"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        for (size_t n = strlen(pairs[i][0]), cut = 0; cut <= n; cut++) {
            char buf[64];
            struct mg_text t;
            mg_text_init(&t, buf, sizeof buf, 1);
            t.strip = 1;
            mg_text_append(&t, pairs[i][0], cut);
            mg_text_append(&t, pairs[i][0] + cut, n - cut);
            mg_text_finish(&t);
            assert_int_equal(t.visible, strlen(pairs[i][1]));
            assert_memory_equal(buf, pairs[i][1], t.visible);
        }
}

static void test_tokens_alone(void **state) {
    (void)state;
    char buf[32];
    struct mg_text t;
    mg_text_init(&t, buf, sizeof buf, 1);
    mg_text_append(&t, "\xE2\x82", 2);
    mg_text_break(&t);
    mg_text_break(&t);
    mg_text_append(&t, "\xAC", 1);
    mg_text_finish(&t);
    assert_int_equal(t.visible, 6);
    assert_memory_equal(buf, FFFD FFFD, 6);
}

static void test_trailing_space_is_held_back(void **state) {
    (void)state;
    char buf[32];
    struct mg_text t;
    mg_text_init(&t, buf, sizeof buf, 1);
    mg_text_append(&t, " a ", 3);
    assert_int_equal(t.visible, 1);
    mg_text_append(&t, "\xE3\x80\x80", 3);
    assert_int_equal(t.visible, 1);
    mg_text_append(&t, "b", 1);
    assert_int_equal(t.visible, 6);
    assert_memory_equal(buf,
                        "a \xE3\x80\x80"
                        "b",
                        6);
}

/* Random bytes, mostly near the borders of the table, in random pieces. */
static size_t make_bytes(uint64_t *state, unsigned char *s, size_t cap) {
    static const unsigned char near[] = {0x20, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0,
                                         0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xE2,
                                         0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF, 0x0A};
    size_t n = random_u64(state) % cap;
    for (size_t i = 0; i < n; i++) s[i] = near[random_u64(state) % sizeof near];
    return n;
}

static void test_random_bytes_as_decoded_whole(void **state) {
    (void)state;
    uint64_t random = 7;
    for (int round = 0; round < 50000; round++) {
        unsigned char in[40];
        char want[128], buf[128], seen[128];
        size_t n = make_bytes(&random, in, sizeof in), visible = 0;
        int trim = round & 1;
        struct mg_text t;
        mg_text_init(&t, buf, 3 * n + 3, trim);
        for (size_t i = 0; i < n;) {
            size_t k = 1 + random_u64(&random) % 3;
            k = k < n - i ? k : n - i;
            mg_text_append(&t, (char *)in + i, k);
            i += k;
            assert_true(t.visible >= visible); /* grows, and what was seen stays */
            memcpy(seen + visible, buf + visible, t.visible - visible);
            visible = t.visible;
            assert_memory_equal(seen, buf, visible);
        }
        mg_text_finish(&t);
        size_t len = decode_lossy(in, n, want);
        len = trim ? trim_ends(want, len) : len;
        assert_int_equal(t.visible, len);
        assert_memory_equal(buf, want, len);
        assert_memory_equal(seen, buf, visible);
    }
}

static void test_full_buffer_is_not_overrun(void **state) {
    (void)state;
    char *buf = malloc(4); /* the sanitizer watches its end */
    struct mg_text t;
    mg_text_init(&t, buf, 4, 0);
    mg_text_append(&t,
                   "abc\xE2\x82\xAC"
                   "d"
                   "e\xFF",
                   9);
    mg_text_finish(&t);
    assert_int_equal(t.visible, 4);
    assert_memory_equal(buf, "abcd", 4);
    free(buf);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_white_space_is_the_25_code_points),
        cmocka_unit_test(test_every_scalar_survives),
        cmocka_unit_test(test_blank),
        cmocka_unit_test(test_cases_at_every_split),
        cmocka_unit_test(test_leading_punctuation_is_stripped),
        cmocka_unit_test(test_tokens_alone),
        cmocka_unit_test(test_trailing_space_is_held_back),
        cmocka_unit_test(test_random_bytes_as_decoded_whole),
        cmocka_unit_test(test_full_buffer_is_not_overrun),
    };
    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
