/* SPDX-License-Identifier: Apache-2.0
 *
 * test_prompt.c - a prompt by a tokenizer that is as awkward as one may be: it keeps its
 * text in scratch, says for long that it has taken nothing, hands over all ids at the
 * end, two characters in one. The ids must be those of an encoding at once, no slice may
 * work longer than its budget, and no text may be longer than the scratch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/model.h"
#include "allocfail.h"
#include "make_model.h"

enum {
    USER = 300,
    ASSISTANT,
    END_TURN,
    BOS,
    PAIR = 256,
    BLOCK = 64,
    CONTENT = 256 << 10
};

/* ---- the tokenizer ----------------------------------------------------------------- */

/* Bytes are ids, but two 'a' are one PAIR. */
struct state {
    size_t taken, given; /* bytes of the text that lie here; that became ids */
    char text[];
};

static size_t steps; /* worked since it was set to 0 */

static size_t scratch_bytes(const struct mg_tokenizer *t, size_t longest) {
    (void)t;
    return sizeof(struct state) + longest;
}

static void begin(struct mg_encoding *e) {
    struct state *s = e->scratch;
    assert_int_equal((uintptr_t)s % 64, 0);
    s->taken = s->given = 0;
}

static size_t run(struct mg_encoding *e, size_t budget, int32_t *out, size_t cap) {
    struct state *s = e->scratch;
    size_t n = 0;
    for (; budget > 0 && s->taken < e->len; budget--, steps++) {
        s->text[s->taken] = e->text[s->taken];
        s->taken++;
    }
    if (s->taken == e->len) e->at = e->len;
    for (; budget > 0 && s->taken == e->len && s->given < e->len && n < cap; budget--) {
        int pair = e->len - s->given > 1 && !memcmp(s->text + s->given, "aa", 2);
        out[n++] = pair ? PAIR : (unsigned char)s->text[s->given];
        s->given += pair ? 2 : 1;
        steps++;
    }
    e->done = s->given == e->len;
    return n;
}

static const struct mg_tokenizer_calls calls = {
    .scratch_bytes = scratch_bytes, .begin = begin, .run = run};
static struct mg_tokenizer tokenizer = {.calls = &calls,
                                        .vocab_size = BOS + 1,
                                        .bos = BOS,
                                        .user = USER,
                                        .assistant = ASSISTANT,
                                        .end_turn = END_TURN};
static const struct mg_model model = {
    .info = {.vocab_size = BOS + 1, .block_size = BLOCK, .has_chat = 1},
    .tokenizer = &tokenizer};

/* ---- against encoding at once ------------------------------------------------------ */

static size_t encode(const char *text, size_t len, int32_t *out) {
    size_t n = 0;
    for (size_t i = 0; i < len; n++) {
        int pair = len - i > 1 && text[i] == 'a' && text[i + 1] == 'a';
        out[n] = pair ? PAIR : text[i];
        i += pair ? 2 : 1;
    }
    return n;
}

/* The last ids of a prompt of one message, and how many it has without bos. */
static uint64_t expect(const struct mg_message *m, int32_t *ids) {
    size_t n = 1;
    ids[0] = USER;
    n += encode(m->content, m->len, ids + 1);
    ids[n++] = END_TURN;
    ids[n++] = ASSISTANT;
    return n;
}

static void make_text(char *text, size_t len, uint64_t *random) {
    for (size_t i = 0; i < len; i++) text[i] = random_int(random, 0, 2) ? 'a' : 'b';
}

/* Advance to the end; no slice works for longer than its budget and one id for each
 * message that ends. */
static void advance(struct mg_prompt *p, size_t budget) {
    int rc = 1;
    while (rc == 1) {
        steps = 0;
        rc = mg_prompt_advance(p, budget, NULL);
        assert_true(steps <= budget);
    }
    assert_int_equal(rc, 0);
}

static void check_text(struct mg_prompt *p, size_t len, size_t budget, uint64_t *random) {
    char *text = malloc(len); /* exact: the sanitizer watches its end */
    int32_t *ids = malloc((len + 3) * sizeof *ids);
    make_text(text, len, random);
    struct mg_message m = {MG_USER, text, len};
    uint64_t total = expect(&m, ids), dropped;
    assert_int_equal(mg_prompt_begin(p, &m, 1, NULL), 0);
    advance(p, budget);
    int n;
    const int32_t *tokens = mg_prompt_tokens(p, &n, &dropped);
    int most = BLOCK - BLOCK / 4;
    assert_int_equal(n, total + 1 > (uint64_t)most ? (uint64_t)most : total + 1);
    assert_int_equal(dropped, total + 1 - (uint64_t)n);
    assert_int_equal(tokens[0], BOS);
    assert_int_equal(tokens[1], USER);
    assert_memory_equal(tokens + 2, ids + total - (n - 2), (size_t)(n - 2) * sizeof *ids);
    free(text);
    free(ids);
}

static void test_slices(void **state) {
    (void)state;
    uint64_t random = 5;
    struct mg_prompt *p = mg_prompt_new(&model, NULL);
    for (int i = 0; i < 2000; i++)
        check_text(p, (size_t)random_int(&random, 1, 1500),
                   (size_t)random_int(&random, 1, 700), &random);
    check_text(p, CONTENT, 4096, &random);
    check_text(p, CONTENT, SIZE_MAX, &random);
    mg_prompt_free(p);
}

/* ---- limits ------------------------------------------------------------------------ */

static void test_too_much_content(void **state) {
    (void)state;
    char *text = malloc(CONTENT);
    memset(text, 'b', CONTENT);
    struct mg_prompt *p = mg_prompt_new(&model, NULL);
    struct mg_message m[] = {{MG_USER, text, CONTENT / 2},
                             {MG_ASSISTANT, text, CONTENT / 2},
                             {MG_USER, text, 1}};
    struct mg_error err = {0};
    assert_int_equal(mg_prompt_max_content(&model), CONTENT);
    assert_true(mg_prompt_bytes(&model) > CONTENT);
    assert_int_equal(mg_prompt_begin(p, m, 2, &err), 0);
    advance(p, 100000);
    assert_int_equal(mg_prompt_begin(p, m, 3, &err), -1);
    assert_int_equal(err.code, MG_EINPUT);
    assert_string_equal(err.text, "messages: found more than 262144 bytes of content");
    m[0].len = SIZE_MAX;
    assert_int_equal(mg_prompt_begin(p, m, 1, NULL), -1);
    mg_prompt_free(p);
    free(text);
}

static void test_every_allocation_fails_once(void **state) {
    (void)state;
    long n = 1;
    for (;; n++) {
        struct mg_error err = {0};
        allocfail_arm(n);
        struct mg_prompt *p = mg_prompt_new(&model, &err);
        int failed = allocfail_disarm();
        mg_prompt_free(p);
        if (!failed) break;
        assert_null(p);
        assert_int_equal(err.code, MG_ENOMEM);
    }
    assert_true(n > 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_too_much_content),
        cmocka_unit_test(test_every_allocation_fails_once),
    };
    return cmocka_run_group_tests_name("prompt", tests, NULL, NULL);
}
