/* SPDX-License-Identifier: Apache-2.0
 *
 * test_chat.c - messages to prompts. The rules are written out again on whole arrays of
 * tokens, for both modes, and compared over random conversations, laid out at once and in
 * slices; then the texts of errors, and content that is far longer than the context. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/microgpt.h"
#include "make_model.h"

enum { N_CHARS = 30, USER = N_CHARS, ASSISTANT, END_TURN, BOS, MAX_TOKENS = 20000 };

struct list {
    int n;
    int32_t token[MAX_TOKENS];
};

static void push(struct list *l, int token) {
    assert_true(l->n < MAX_TOKENS);
    l->token[l->n++] = token;
}

/* The test model knows a-z, space, newline, U+1F01C (28) and U+341D (29), and no
 * others. */
static const char *const spellings[] = {
    "a", "z", "m", " ", "\n", "\xF0\x9F\x80\x9C", "\xE3\x90\x9D"};
static const int spelled[] = {0, 25, 12, 26, 27, 28, 29};
static const char *const unknown[] = {"A", "\xC3\xA9", "\xE2\x80\xA8", "!",
                                      "\xF0\x9F\x98\x80"};

struct chat {
    struct mg_message message[40];
    struct list tokens[40]; /* of the content */
    char text[40][200];
    size_t n;
};

static void make_message(struct chat *c, size_t i, int longest, uint64_t *random) {
    struct mg_message *m = &c->message[i];
    char *s = c->text[i];
    c->tokens[i].n = 0;
    *s = 0;
    for (int k = random_int(random, 1, longest); k > 0; k--) {
        if (random_int(random, 0, 4) == 0) {
            strcat(s, unknown[random_int(random, 0, 4)]);
            continue;
        }
        int pick = random_int(random, 0, 6);
        strcat(s, spellings[pick]);
        push(&c->tokens[i], spelled[pick]);
    }
    *m = (struct mg_message){(enum mg_role)random_int(random, 0, 1), s, strlen(s)};
}

static int is_good(const struct chat *c, size_t i) {
    return c->tokens[i].n > 0 && !mg_text_is_blank(c->text[i], strlen(c->text[i]));
}

static void make_chat(struct chat *c, int good, uint64_t *random) {
    int longest = random_int(random, 1, 40);
    c->n = (size_t)random_int(random, 1, random_int(random, 1, 12));
    for (size_t i = 0; i < c->n; i++) do {
            make_message(c, i, longest, random);
        } while (good && !is_good(c, i));
}

static void push_message(struct list *l, const struct chat *c, size_t i, int from) {
    push(l, c->message[i].role == MG_USER ? USER : ASSISTANT);
    for (int k = from; k < c->tokens[i].n; k++) push(l, c->tokens[i].token[k]);
    push(l, END_TURN);
}

static void layout(struct list *l, const struct chat *c, size_t first, int bos) {
    l->n = 0;
    if (bos) push(l, BOS);
    for (size_t i = first; i < c->n; i++) push_message(l, c, i, 0);
    push(l, ASSISTANT);
}

/* bos, the messages, assistant; whole messages go from the front until the rest fits
 * three quarters of the block; the end of the last one stays. Returns the tokens dropped.
 */
static int layout_default(struct list *l, const struct chat *c, int block) {
    int budget = block - block / 4, total;
    size_t first = 0, last = c->n - 1;
    layout(l, c, 0, 1);
    total = l->n;
    while (l->n > budget && first < last) layout(l, c, ++first, 1);
    if (l->n > budget) {
        l->n = 0;
        push(l, BOS);
        push_message(l, c, last, c->tokens[last].n - (budget - 4));
        push(l, ASSISTANT);
    }
    return total - l->n;
}

/* As the reference 0.5.0: no bos; all up to the first end_turn that leaves no more than
 * fits, or just what is too much, is dropped. */
static int layout_compat(struct list *l, const struct chat *c, int block) {
    int budget = block - block / 4;
    layout(l, c, 0, 0);
    if (l->n <= budget) return 0;
    int start = l->n - budget, end = start;
    while (end < l->n && l->token[end] != END_TURN) end++;
    int dropped = end < l->n ? end + 1 : start;
    l->n -= dropped;
    memmove(l->token, l->token + dropped, (size_t)l->n * sizeof *l->token);
    return dropped;
}

/* ---- models ------------------------------------------------------------------------ */

static char *dir;

static struct mg_model *open_model(int block, int chat, int compat) {
    uint32_t chars[N_CHARS] = {[26] = ' ', '\n', 0x1F01C, 0x341D};
    for (uint32_t i = 0; i < 26; i++) chars[i] = 'a' + i;
    struct make_model spec = {.vocab_size = N_CHARS + (chat ? 4 : 1),
                              .n_embd = 1,
                              .n_head = 1,
                              .n_layer = 1,
                              .block_size = block,
                              .chat = chat,
                              .chars = chars};
    dir = make_model(&spec);
    struct mg_error err = {0};
    struct mg_model *m =
        mg_model_open(dir, &(struct mg_model_options){.compat_05 = compat}, &err);
    if (!m) fail_msg("%s", err.text);
    return m;
}

static void close_model(struct mg_model *m) {
    mg_model_close(m);
    remove_model(dir);
}

/* The same chat in slices of random sizes, by a prompt that was used before. */
static void compare_slices(struct mg_prompt *p, const struct chat *c,
                           const struct list *want, int want_dropped, uint64_t *random) {
    int most = random_int(random, 1, 100), n, rc;
    uint64_t dropped;
    assert_int_equal(mg_prompt_begin(p, c->message, c->n, NULL), 0);
    do {
        rc = mg_prompt_advance(p, (size_t)random_int(random, 0, most), NULL);
    } while (rc == 1);
    assert_int_equal(rc, 0);
    assert_int_equal(mg_prompt_advance(p, 10, NULL), 0); /* whole is whole */
    const int32_t *tokens = mg_prompt_tokens(p, &n, &dropped);
    assert_int_equal(n, want->n);
    assert_memory_equal(tokens, want->token, (size_t)n * sizeof *tokens);
    assert_int_equal(dropped, want_dropped);
}

static void compare_chat(const struct mg_model *m, struct mg_prompt *p,
                         const struct chat *c, int compat, uint64_t *random) {
    static struct list want;
    int block = mg_model_info(m)->block_size;
    int dropped =
        compat ? layout_compat(&want, c, block) : layout_default(&want, c, block);
    /* exactly block_size: the sanitizer watches the end */
    int32_t *got = malloc((size_t)block * sizeof *got);
    uint64_t got_dropped = 99;
    struct mg_error err = {0};
    int n = mg_chat_prompt(m, c->message, c->n, got, &got_dropped, &err);
    if (n < 0) fail_msg("%s", err.text);
    assert_int_equal(n, want.n);
    assert_memory_equal(got, want.token, (size_t)n * sizeof *got);
    assert_int_equal(got_dropped, dropped);
    free(got);
    compare_slices(p, c, &want, dropped, random);
}

static void compare_blocks(int compat, const int *blocks, int n_blocks) {
    static struct chat c;
    uint64_t random = 21;
    for (int b = 0; b < n_blocks; b++) {
        struct mg_model *m = open_model(blocks[b], 1, compat);
        struct mg_prompt *p = mg_prompt_new(m, NULL);
        for (int i = 0; i < 1500; i++) {
            make_chat(&c, !compat, &random);
            compare_chat(m, p, &c, compat, &random);
        }
        mg_prompt_free(p);
        close_model(m);
    }
}

static void test_random_chats(void **state) {
    (void)state;
    compare_blocks(0, (int[]){6, 7, 8, 9, 12, 16, 33, 64, 255, 1000}, 10);
}

static void test_random_chats_compat(void **state) {
    (void)state;
    compare_blocks(1, (int[]){1, 2, 3, 4, 5, 6, 8, 16, 33, 64, 1000}, 11);
}

/* ---- errors ------------------------------------------------------------------------ */

static void check_error(const struct mg_model *m, const struct mg_message *messages,
                        size_t n, const char *want) {
    int32_t tokens[64];
    uint64_t dropped;
    struct mg_error err = {0};
    assert_int_equal(mg_chat_prompt(m, messages, n, tokens, &dropped, &err), -1);
    assert_int_equal(err.code, MG_EINPUT);
    assert_string_equal(err.text, want);
}

static void test_errors(void **state) {
    (void)state;
    struct mg_message m[] = {
        {MG_USER, "hello", 5}, {MG_USER, "hello", 5}, {MG_USER, "", 0}};
    struct mg_model *model = open_model(64, 1, 0);
    check_error(model, m, 3, "messages[2]: content is blank");
    m[1] = (struct mg_message){MG_ASSISTANT, " \n\xE2\x80\xA8 ", 6};
    check_error(model, m, 3, "messages[1]: content is blank"); /* the first is named */
    m[1] = (struct mg_message){MG_ASSISTANT, "A\xC3\xA9!", 4};
    check_error(model, m, 3,
                "messages[1]: no character of content is known to this model");
    m[0] = (struct mg_message){MG_USER, "\0", 1};
    check_error(model, m, 1,
                "messages[0]: no character of content is known to this model");
    check_error(model, m, 0, "messages: at least one message is needed");
    close_model(model);

    m[0] = (struct mg_message){MG_USER, "hello", 5};
    model = open_model(5, 1, 0);
    check_error(model, m, 1,
                "the model's context of 5 tokens is too short for chat, which needs 6");
    close_model(model);
    model = open_model(64, 0, 0);
    check_error(model, m, 1, "model was not trained with chat tokens");
    close_model(model);
    model = open_model(64, 0, 1);
    check_error(model, m, 1, "model was not trained with chat tokens");
    close_model(model);
}

/* ---- long content ------------------------------------------------------------------ */

static void test_four_megabytes(void **state) {
    (void)state;
    enum { LEN = 4 << 20 };
    char *text = malloc(LEN);
    for (int i = 0; i < LEN; i++) text[i] = (char)('a' + i % 26);
    struct mg_model *m = open_model(64, 1, 0);
    struct mg_message message = {MG_USER, text, LEN};
    int32_t tokens[64];
    uint64_t dropped;
    assert_int_equal(mg_chat_prompt(m, &message, 1, tokens, &dropped, NULL), 48);
    assert_int_equal(dropped, LEN + 4 - 48);
    assert_int_equal(tokens[0], BOS);
    assert_int_equal(tokens[1], USER);
    for (int i = 0; i < 44; i++) assert_int_equal(tokens[2 + i], (LEN - 44 + i) % 26);
    assert_int_equal(tokens[46], END_TURN);
    assert_int_equal(tokens[47], ASSISTANT);
    close_model(m);
    free(text);
}

static void test_a_million_messages(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    struct mg_message *m = malloc(N * sizeof *m);
    for (size_t i = 0; i < N; i++)
        m[i] = (struct mg_message){i % 2 ? MG_ASSISTANT : MG_USER, "ab", 2};
    struct mg_model *model = open_model(64, 1, 0);
    int32_t tokens[64];
    uint64_t dropped;
    assert_int_equal(mg_chat_prompt(model, m, N, tokens, &dropped, NULL), 2 + 11 * 4);
    assert_int_equal(dropped, (N - 11) * 4ull);
    assert_int_equal(tokens[1], ASSISTANT); /* 11 from the end: N - 11 is odd */
    close_model(model);
    free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_chats),
        cmocka_unit_test(test_random_chats_compat),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_four_megabytes),
        cmocka_unit_test(test_a_million_messages),
    };
    return cmocka_run_group_tests_name("chat", tests, NULL, NULL);
}
