/* SPDX-License-Identifier: Apache-2.0
 *
 * test_bpe_golden.c - recorded tokenizations of the reference's library: every text to
 * ids, whole and in slices of every small size, with special tokens matched and plain;
 * every list of ids to text, whole and as a stream. The committed subset, and the whole
 * recording when it lies beside the project. Prints the counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../core/text.h"
#include "bpe_tool.h"
#include "folder.h"

#define HERE  "tests/golden-bpe"
#define WHOLE "../shared/golden-bpe"

struct recording {
    const char *where, *name, *file;
    long at_least; /* lines */
};

static uint64_t rng = 12;

/* ---- a line ------------------------------------------------------------------------ */

static int32_t *read_ids(const json_t *list, size_t *n) {
    *n = json_array_size(list);
    int32_t *ids = malloc((*n + 1) * sizeof *ids);
    for (size_t i = 0; i < *n; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    return ids;
}

static void assert_ids(const int32_t *ids, size_t n, const json_t *want,
                       const char *text) {
    size_t n_want;
    int32_t *expected = read_ids(want, &n_want);
    if (n != n_want || memcmp(ids, expected, n * sizeof *ids))
        fail_msg("other ids for \"%.200s\"", text);
    free(expected);
}

static void check_encode(const struct mg_tokenizer *t, const json_t *text,
                         const json_t *want, int special) {
    const struct bpe_way ways[] = {
        {special, NULL, 0}, {special, &rng, 64}, {special, &rng, 5}, {special, &rng, 1}};
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        size_t n;
        int32_t *ids =
            bpe_encode(t, json_string_value(text), json_string_length(text), ways[i], &n);
        assert_ids(ids, n, want, json_string_value(text));
        free(ids);
    }
}

typedef const char *(*token_text)(const struct mg_tokenizer *, int32_t, size_t *);

/* Decode as a stream: what is visible after a token stays, is a whole number of
 * characters, and in the end is the text. by: bytes that are appended at once. */
static void check_stream(const struct mg_tokenizer *t, const int32_t *ids, size_t n,
                         token_text text_of, const json_t *want, size_t by) {
    size_t cap = 3, len, visible = 0;
    for (size_t i = 0; i < n; i++) text_of(t, ids[i], &len), cap += 3 * len;
    char *buf = malloc(cap);
    struct mg_text out;
    mg_text_init(&out, buf, cap, 0);
    for (size_t i = 0; i < n; i++) {
        const char *bytes = text_of(t, ids[i], &len);
        for (size_t at = 0; at < len; at += by)
            mg_text_append(&out, bytes + at, len - at < by ? len - at : by);
        assert_true(out.visible >= visible && out.visible <= json_string_length(want));
        assert_memory_equal(buf + visible, json_string_value(want) + visible,
                            out.visible - visible);
        visible = out.visible;
    }
    mg_text_finish(&out);
    assert_int_equal(out.visible, json_string_length(want));
    assert_memory_equal(buf, json_string_value(want), out.visible);
    free(buf);
}

/* null stands for the text that was encoded. */
static void check_decode(const struct mg_tokenizer *t, const json_t *line,
                         const char *key, token_text text_of) {
    const json_t *want = json_object_get(line, key);
    if (json_is_null(want)) want = json_object_get(line, "text");
    size_t n;
    int32_t *ids = read_ids(json_object_get(line, "ids"), &n);
    for (size_t by = 1; by <= 4; by++) check_stream(t, ids, n, text_of, want, by);
    check_stream(t, ids, n, text_of, want, SIZE_MAX / 2);
    free(ids);
}

static void check_line(const struct mg_tokenizer *t, const char *bytes, size_t len) {
    json_error_t error;
    json_t *line = json_loadb(bytes, len, JSON_ALLOW_NUL, &error);
    if (!line) fail_msg("%s in %.*s", error.text, (int)len, bytes);
    const json_t *text = json_object_get(line, "text");
    const json_t *ids = json_object_get(line, "ids");
    const json_t *plain = json_object_get(line, "plain");
    if (text) {
        check_encode(t, text, ids, 1);
        check_encode(t, text, plain ? plain : ids, 0);
    }
    check_decode(t, line, "dec", mg_tokenizer_text);
    check_decode(t, line, "raw", mg_tokenizer_spelling);
    json_decref(line);
}

/* ---- a file ------------------------------------------------------------------------ */

static void test_recording(void **state) {
    const struct recording *r = *state;
    if (access(r->where, R_OK)) {
        printf("1 not possible here: %s is not there\n", r->where);
        skip();
    }
    char *dir = folder_path(r->where, r->name);
    size_t len;
    struct mg_tokenizer *t = bpe_open(dir);
    char *lines = folder_read(dir, r->file, &len);
    long n = 0;
    for (char *p = lines, *end; p < lines + len; p = end + 1, n++) {
        end = memchr(p, '\n', (size_t)(lines + len - p));
        if (!end) end = lines + len;
        check_line(t, p, (size_t)(end - p));
    }
    printf("           %s/%s: %ld lines\n", dir, r->file, n);
    assert_true(n >= r->at_least);
    free(lines);
    mg_tokenizer_free(t);
    free(dir);
}

static void test_special_ids(void **state) {
    (void)state;
    struct mg_tokenizer *t = bpe_open(HERE "/en500-chat");
    assert_string_equal(t->name, "bpe");
    assert_int_equal(t->vocab_size, 500);
    assert_int_equal(t->bos, 0);
    assert_int_equal(t->user, 1);
    assert_int_equal(t->assistant, 2);
    assert_int_equal(t->end_turn, 3);
    assert_int_equal(t->growth, 3);
    assert_int_equal(t->max_bytes, 13);
    mg_tokenizer_free(t);
    t = bpe_open(HERE "/edge-merges");
    assert_int_equal(t->vocab_size, 22);
    assert_int_equal(t->bos, 0);
    assert_int_equal(t->user, -1);
    assert_int_equal(t->assistant, -1);
    assert_int_equal(t->end_turn, -1);
    mg_tokenizer_free(t);
}

static struct recording recordings[] = {
    {HERE, "en500-chat", "cases.jsonl", 500},
    {HERE, "en500-chat", "decode.jsonl", 500},
    {HERE, "edge-merges", "cases.jsonl", 500},
    {WHOLE, "en500-chat", "cases.jsonl", 561},
    {WHOLE, "en500-chat", "decode.jsonl", 547},
    {WHOLE, "edge-merges", "cases.jsonl", 526},
};

#define RECORDING(i, name)                                                               \
    { name, test_recording, NULL, NULL, &recordings[i] }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_special_ids),      RECORDING(0, "en500-chat cases"),
        RECORDING(1, "en500-chat decode"),       RECORDING(2, "edge-merges cases"),
        RECORDING(3, "whole en500-chat cases"),  RECORDING(4, "whole en500-chat decode"),
        RECORDING(5, "whole edge-merges cases"),
    };
    return cmocka_run_group_tests_name("bpe_golden", tests, NULL, NULL);
}
