/* SPDX-License-Identifier: Apache-2.0
 * test_train_bpe.c - training of a tokenizer where a program cannot reach: every
 * allocation failed, from the words of a corpus to its tokens; the longest token. That it
 * learns what the reference's trainer learns is tests/clients' to show. */
#include <setjmp.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/train/say.h"
#include "../../core/train/texts.h"
#include "allocfail.h"
#include "bpe_tool.h"

/* Two documents: <user> aabab <end_turn>, <user> ab é <end_turn>. */
static const int32_t two[] = {TEXTS_USER,     'a',        'a', 'b', 'a', 'b',
                              TEXTS_END_TURN, TEXTS_USER, 'a', 'b', ' ', 0xE9,
                              TEXTS_END_TURN};
enum { N_TWO = sizeof two / sizeof *two };

struct result {
    char *json;
    size_t n_tokens, lost;
    int32_t *tokens;
    size_t start[3];
};

/* Learn from the documents and encode them. 0, or the exit code. */
static int learn(struct result *r, const struct mg_tokenizer *given) {
    struct bpe_options o = {.vocab_size = 12, .chat = 1};
    size_t start[3] = {0, 7, N_TWO}, len;
    int32_t *tokens = malloc(sizeof two);
    if (!tokens) return EX_OSERR;
    memcpy(tokens, two, sizeof two);
    struct texts t = {tokens, N_TWO, start, 2};
    struct mg_error err = {0};
    struct mg_tokenizer *own = NULL;
    int rc = texts_learn(&t, &o, "", 0, &r->json, &len);
    if (!rc) own = mg_tokenizer_bpe("x", r->json, len, &err);
    if (!rc && !own) rc = -1;
    if (!rc) rc = texts_encode(&t, given ? given : own, &r->lost);
    mg_tokenizer_free(own);
    r->tokens = t.tokens, r->n_tokens = t.n_tokens;
    memcpy(r->start, start, sizeof start);
    return rc;
}

static void forget(struct result *r) {
    free(r->json);
    free(r->tokens);
    *r = (struct result){0};
}

/* Bytes that occur follow the special tokens: a b A9 C3 newline space are 4 to 9. Then
 * "ab" is 10; of four pairs that are there once the one of lowest ids, "aab", is 11. */
static void test_what_is_learned(void **state) {
    (void)state;
    static const int32_t want[] = {1, 11, 10, 3, 1, 10, 9, 7, 6, 3};
    struct result r = {0};
    assert_int_equal(learn(&r, NULL), 0);
    assert_int_equal(r.n_tokens, 10);
    assert_memory_equal(r.tokens, want, sizeof want);
    assert_int_equal(r.start[0], 0);
    assert_int_equal(r.start[1], 4);
    assert_int_equal(r.start[2], 10);
    assert_int_equal(r.lost, 0);
    assert_non_null(strstr(r.json, "\"\u010a\":8,\"\u0120\":9,\"ab\":10,\"aab\":11}"));
    forget(&r);
}

static void test_bytes_without_a_token(void **state) {
    (void)state;
    struct mg_tokenizer *english = bpe_open("tests/golden-bpe/en500-chat");
    struct result r = {0};
    assert_int_equal(learn(&r, english), 0);
    assert_int_equal(r.lost, 2);
    forget(&r);
    mg_tokenizer_free(english);
}

/* What is told goes nowhere: it is the same line again and again. Returns what stderr
 * was. */
static int hide_complaints(void) {
    int old = dup(2), nowhere = open("/dev/null", O_WRONLY);
    assert_true(old >= 0 && nowhere >= 0);
    dup2(nowhere, 2);
    close(nowhere);
    return old;
}

static void test_every_allocation_fails_once(void **state) {
    (void)state;
    int old = hide_complaints(), hit = 1, silent = 0;
    long n = 1;
    for (; hit; n++) {
        struct result r = {0};
        allocfail_arm(n);
        int rc = learn(&r, NULL);
        hit = allocfail_disarm();
        silent += hit && rc == 0;
        forget(&r);
    }
    dup2(old, 2);
    close(old);
    assert_int_equal(silent, 0);
    assert_true(n > 30);
}

/* Runs so long that the next token would be too long to load, in the bytes of its string:
 * a space has two there. */
static void test_long_tokens(void **state) {
    (void)state;
    for (int spaces = 0; spaces < 2; spaces++) {
        struct bpe_words words = {0};
        struct bpe_vocab vocab;
        struct mg_error err = {0};
        char text[8192];
        memset(text, spaces ? ' ' : 'x', sizeof text);
        assert_int_equal(bpe_words_add(&words, text, spaces ? 4096 : 8192), 0);
        struct bpe_options enough = {.vocab_size = (spaces ? 11 : 12) + 2};
        assert_int_equal(bpe_train(&words, &enough, &vocab, &err), 0);
        size_t len;
        char *json = bpe_vocab_json(&vocab, &len);
        struct mg_tokenizer *t = mg_tokenizer_bpe("x", json, len, &err);
        assert_string_equal(err.text, "");
        assert_int_equal(t->max_bytes, spaces ? 2048 : 4096);
        mg_tokenizer_free(t);
        free(json);
        bpe_vocab_free(&vocab);
        struct bpe_options more = {.vocab_size = enough.vocab_size + 1};
        assert_int_equal(bpe_train(&words, &more, &vocab, &err), -1);
        assert_int_equal(err.code, MG_EINPUT);
        assert_non_null(strstr(err.text, "expected at most 4096"));
        bpe_words_free(&words);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_learned),
        cmocka_unit_test(test_bytes_without_a_token),
        cmocka_unit_test(test_every_allocation_fails_once),
        cmocka_unit_test(test_long_tokens),
    };
    return cmocka_run_group_tests_name("train_bpe", tests, NULL, NULL);
}
