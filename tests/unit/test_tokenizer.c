/* SPDX-License-Identifier: Apache-2.0
 *
 * test_tokenizer.c - the character tokenizer: ids, unknown characters, windows into long
 * texts, vocabularies from nothing to all of Unicode. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/text.h"
#include "../../core/tokenizer.h"
#include "allocfail.h"
#include "make_model.h"

static const uint32_t chars[] = {'b', 0, 'a', 0xE9, 0x4E2D, 0x1F600, 0x10FFFF, '\n'};
enum { N = sizeof chars / sizeof *chars };

static struct mg_tokenizer *open_chars(const uint32_t *list, int n, int chat) {
    struct mg_error err = {0};
    struct mg_tokenizer *t = mg_tokenizer_chars(list, n, chat, &err);
    if (!t) fail_msg("%s", err.text);
    return t;
}

static void test_special_ids(void **state) {
    (void)state;
    struct mg_tokenizer *t = open_chars(chars, N, 0);
    assert_int_equal(t->vocab_size, N + 1);
    assert_int_equal(t->bos, N);
    assert_int_equal(t->user, -1);
    assert_int_equal(t->assistant, -1);
    assert_int_equal(t->end_turn, -1);
    mg_tokenizer_free(t);
    t = open_chars(chars, N, 1);
    assert_int_equal(t->vocab_size, N + 4);
    assert_int_equal(t->user, N);
    assert_int_equal(t->assistant, N + 1);
    assert_int_equal(t->end_turn, N + 2);
    assert_int_equal(t->bos, N + 3);
    assert_int_equal(t->max_bytes, 4);
    for (int id = -2; id < N + 6; id++) {
        size_t len = 99;
        mg_tokenizer_text(t, id, &len);
        assert_int_equal(len > 0, id >= 0 && id < N);
    }
    mg_tokenizer_free(t);
}

/* Encode with every budget and room, from one byte and one id on: the same ids. */
static void check_encode(const struct mg_tokenizer *t, const char *text, size_t len,
                         int n, const int32_t *want) {
    for (size_t budget = 1; budget <= len + 1; budget++)
        for (size_t cap = 1; cap <= (size_t)n + 1; cap++) {
            int32_t out[16];
            size_t got = 0;
            struct mg_encoding e;
            memset(out, 0xEE, sizeof out);
            mg_encoding_begin(&e, t, text, len, NULL);
            while (!e.done) got += mg_encoding_run(&e, budget, out + got, cap);
            assert_int_equal(e.at, len);
            assert_int_equal(got, n);
            assert_memory_equal(out, want, got * sizeof *out);
            assert_int_equal(out[got], (int32_t)0xEEEEEEEE);
        }
}

/* All of it at once: how many ids there are, the first cap of them in out. */
static size_t encode(const struct mg_tokenizer *t, const char *text, size_t len,
                     int32_t *out, size_t cap) {
    struct mg_encoding e;
    mg_encoding_begin(&e, t, text, len, NULL);
    return mg_encoding_run(&e, len, out, cap);
}

static void test_encode(void **state) {
    (void)state;
    struct mg_tokenizer *t = open_chars(chars, N, 1);
    check_encode(t, "", 0, 0, (int32_t[]){0, 0});
    check_encode(t, "ab", 2, 2, (int32_t[]){2, 0, 0});
    check_encode(t, "a\0b", 3, 3, (int32_t[]){2, 1, 0, 0});
    check_encode(t, "xyz", 3, 0, (int32_t[]){0, 0});
    check_encode(t, "A\xC3\xA9 \xE4\xB8\xAD\xE4\xB8\xAE\xF0\x9F\x98\x80\xF4\x8F\xBF\xBF",
                 18, 4, (int32_t[]){3, 4, 5, 6, 0});
    check_encode(t, "<user>", 6, 0, (int32_t[]){0, 0}); /* text is never a special
                                                           token */
    check_encode(t, "user", 4, 0, (int32_t[]){0, 0});
    mg_tokenizer_free(t);
}

/* All scalar values, in a stirred order: every one comes back as itself. */
static void test_all_of_unicode(void **state) {
    (void)state;
    enum { ALL = 0x110000 - 0x800 };
    uint32_t *list = malloc(ALL * sizeof *list);
    for (uint32_t i = 0; i < ALL; i++) {
        uint32_t c = (uint32_t)((uint64_t)i * 7919 % ALL);
        list[i] = c < 0xD800 ? c : c + 0x800;
    }
    struct mg_tokenizer *t = open_chars(list, ALL, 0);
    for (int i = 0; i < ALL; i++) {
        size_t len;
        uint32_t c;
        int32_t id;
        const char *s = mg_tokenizer_text(t, i, &len);
        assert_int_equal(mg_utf8_next(s, s + len, &c), len);
        assert_int_equal(c, list[i]);
        assert_int_equal(encode(t, s, len, &id, 1), 1);
        assert_int_equal(id, i);
    }
    mg_tokenizer_free(t);
    free(list);
}

/* Text is valid UTF-8 by contract; if it is not, nothing is read out of bounds. */
static void test_ill_formed_text_is_harmless(void **state) {
    (void)state;
    struct mg_tokenizer *t = open_chars(chars, N, 1);
    uint64_t random = 3;
    for (int round = 0; round < 20000; round++) {
        size_t n = (size_t)random_int(&random, 0, 12);
        char *exact = malloc(n ? n : 1); /* the sanitizer watches its end */
        for (size_t i = 0; i < n; i++)
            exact[i] = (char)(random_int(&random, 0, 1) ? 0xC0 | random_u64(&random)
                                                        : random_u64(&random));
        int32_t out[12];
        assert_true(encode(t, exact, n, out, 12) <= n);
        mg_text_is_blank(exact, n);
        free(exact);
    }
    mg_tokenizer_free(t);
}

static void test_bad_vocabularies(void **state) {
    (void)state;
    struct mg_error err = {0};
    const uint32_t twice[] = {'a', 'b', 'a'}, surrogate[] = {'a', 0xD800};
    const uint32_t beyond[] = {0x110000};
    assert_null(mg_tokenizer_chars(twice, 3, 0, &err));
    assert_string_equal(err.text,
                        "meta.json: chars[2]: U+0061 is there twice, first as chars[0]");
    err = (struct mg_error){0};
    assert_null(mg_tokenizer_chars(surrogate, 2, 0, &err));
    assert_string_equal(err.text, "meta.json: chars[1]: U+D800 is not a character");
    err = (struct mg_error){0};
    assert_null(mg_tokenizer_chars(beyond, 1, 0, &err));
    assert_string_equal(err.text, "meta.json: chars[0]: U+110000 is not a character");
    struct mg_tokenizer *t = open_chars(NULL, 0, 1); /* nothing but special tokens */
    assert_int_equal(t->vocab_size, 4);
    assert_int_equal(encode(t, "abc", 3, NULL, 0), 0);
    mg_tokenizer_free(t);
}

static void test_every_allocation_fails_once(void **state) {
    (void)state;
    for (long n = 1;; n++) {
        struct mg_error err = {0};
        allocfail_arm(n);
        struct mg_tokenizer *t = mg_tokenizer_chars(chars, N, 1, &err);
        int failed = allocfail_disarm();
        mg_tokenizer_free(t);
        if (!failed) {
            assert_true(n > 1);
            break;
        }
        assert_null(t);
        assert_int_equal(err.code, MG_ENOMEM);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_special_ids),
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_all_of_unicode),
        cmocka_unit_test(test_ill_formed_text_is_harmless),
        cmocka_unit_test(test_bad_vocabularies),
        cmocka_unit_test(test_every_allocation_fails_once),
    };
    return cmocka_run_group_tests_name("tokenizer", tests, NULL, NULL);
}
