/* SPDX-License-Identifier: Apache-2.0
 *
 * test_bpe_load.c - checkpoints whose text is in tokenizer.json: what the model says of
 * them, limits that take too many bytes for a folder of tests/data, every allocation
 * failed, every byte damaged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/bpe.h"
#include "../../core/microgpt.h"
#include "allocfail.h"
#include "bpe_tool.h"
#include "folder.h"
#include "make_model.h"

#define CHAT "tests/golden-bpe/en500-chat"

/* ---- the model --------------------------------------------------------------------- */

static void test_model(void **state) {
    (void)state;
    struct mg_error err = {0};
    struct mg_model *m = mg_model_open(CHAT, NULL, &err);
    assert_string_equal(err.text, "");
    assert_non_null(m);
    const struct mg_model_info *info = mg_model_info(m);
    assert_string_equal(info->tokenizer, "bpe");
    assert_int_equal(info->vocab_size, 500);
    assert_int_equal(info->has_chat, 1);
    assert_int_equal(info->max_token_bytes, 13);
    assert_int_equal(info->max_sample_bytes, 48 * 13 * 3 + 3);
    mg_model_close(m);
}

static void test_compat_is_refused(void **state) {
    (void)state;
    struct mg_error err = {0};
    const struct mg_model_options compat = {.compat_05 = 1};
    assert_null(mg_model_open(CHAT, &compat, &err));
    assert_int_equal(err.code, MG_EFILE);
    assert_string_equal(err.text,
                        CHAT ": found a BPE tokenizer (tokenizer.json, format B), "
                             "expected chars in meta.json (format A), to which "
                             "compat 0.5 belongs");
}

/* The digest of CHAT with a file in it replaced. */
static void digest_with(const char *name, const char *data, size_t len, char hex[17]) {
    static const char *const names[] = {"meta.json", "tokenizer.json",
                                        "weights.safetensors"};
    char *dir = folder_new();
    for (int i = 0; i < 3; i++) {
        size_t n;
        char *whole = folder_read(CHAT, names[i], &n);
        int other = name && !strcmp(name, names[i]);
        folder_write(dir, names[i], other ? data : whole, other ? len : n);
        free(whole);
    }
    struct mg_error err = {0};
    struct mg_model *m = mg_model_open(dir, NULL, &err);
    if (!m) fail_msg("%s", err.text);
    mg_model_digest(m, hex);
    mg_model_close(m);
    remove_model(dir);
}

static void test_digest_covers_the_tokenizer(void **state) {
    (void)state;
    char whole[17], again[17], other[17];
    size_t len;
    char *text = folder_read(CHAT, "tokenizer.json", &len);
    digest_with(NULL, NULL, 0, whole);
    digest_with("tokenizer.json", text, len, again);
    assert_string_equal(whole, again);
    text[len++] = '\n'; /* in place of the NUL */
    digest_with("tokenizer.json", text, len, other);
    assert_string_not_equal(whole, other);
    free(text);
}

/* ---- limits ------------------------------------------------------------------------ */

/* A tokenizer with n merges, as pairs or in the old form. */
static void open_with_merges(long n, int old, struct mg_error *err) {
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    fputs("{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
          "\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"vocab\":{\"<bos>\":0,"
          "\"a\":1,\"aa\":2},\"merges\":[",
          f);
    for (long i = 0; i < n; i++) {
        if (i > 0) putc(',', f);
        fputs(old ? "\"a a\"" : "[\"a\",\"a\"]", f);
    }
    fputs("]}}", f);
    fclose(f);
    mg_tokenizer_free(mg_tokenizer_bpe("x", text, len, err));
    free(text);
}

static void test_merges_are_bounded(void **state) {
    (void)state;
    struct mg_error err = {0};
    open_with_merges(1 << 19, 1, &err);
    assert_string_equal(err.text, "");
    open_with_merges((1 << 19) + 1, 1, &err);
    assert_string_equal(
        err.text, "x: model.merges: found 524289 elements, expected at most 524288");
    err = (struct mg_error){0};
    open_with_merges(1000000, 1, &err);
    assert_string_equal(
        err.text, "x: model.merges: found 1000000 elements, expected at most 524288");
    err = (struct mg_error){0};
    open_with_merges(1000000, 0, &err);
    assert_string_equal(err.text,
                        "x: found JSON that needs more than 128 MiB, expected less");
}

static void test_added_tokens_are_bounded(void **state) {
    (void)state;
    for (int n = 1024; n <= 1025; n++) {
        char *text = NULL;
        size_t len;
        FILE *f = open_memstream(&text, &len);
        fputs("{\"added_tokens\":[", f);
        for (int i = 0; i < n; i++)
            fprintf(f,
                    "%s{\"id\":%d,\"content\":\"<%d>\",\"single_word\":false,"
                    "\"lstrip\":false,\"rstrip\":false,\"normalized\":false,"
                    "\"special\":true}",
                    i ? "," : "", i, i);
        fputs("],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
              "\"decoder\":{\"type\":\"ByteLevel\"},"
              "\"model\":{\"vocab\":{\"<bos>\":0},\"merges\":[]}}",
              f);
        fclose(f);
        struct mg_error err = {0};
        struct mg_tokenizer *t = mg_tokenizer_bpe("x", text, len, &err);
        assert_int_equal(t != NULL, n == 1024);
        if (!t)
            assert_string_equal(err.text, "x: added_tokens: found 1025 elements, "
                                          "expected at most 1024");
        mg_tokenizer_free(t);
        free(text);
    }
}

static void test_the_file_is_bounded(void **state) {
    (void)state;
    char *dir = folder_new(), expected[300];
    char *path = folder_path(dir, "tokenizer.json");
    size_t len;
    char *meta = folder_read(CHAT, "meta.json", &len);
    folder_write(dir, "meta.json", meta, len);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fseek(f, 64 << 20, SEEK_SET), 0); /* a hole */
    putc('x', f);
    fclose(f);
    struct mg_error err = {0};
    assert_null(mg_model_open(dir, NULL, &err));
    snprintf(expected, sizeof expected,
             "%s: found 67108865 bytes, expected at most 67108864", path);
    assert_string_equal(err.text, expected);
    remove_model(dir);
    free(meta);
    free(path);
}

/* ---- allocations ------------------------------------------------------------------- */

static void fail_each(const char *dir) {
    size_t len;
    char *text = folder_read(dir, "tokenizer.json", &len);
    for (long n = 1;; n++) {
        struct mg_error err = {0};
        allocfail_arm(n);
        struct mg_tokenizer *t = mg_tokenizer_bpe("x", text, len, &err);
        int hit = allocfail_disarm();
        mg_tokenizer_free(t);
        if (!hit) {
            assert_non_null(t);
            assert_true(n > 100);
            break;
        }
        assert_null(t);
        assert_int_equal(err.code, MG_ENOMEM);
        assert_non_null(strstr(err.text, "memory"));
    }
    free(text);
}

static void test_every_allocation_fails_once(void **state) {
    (void)state;
    fail_each("tests/golden-bpe/edge-merges");
    fail_each("tests/data/good/tokenizer-chat");
}

/* ---- damage ------------------------------------------------------------------------ */

struct tally {
    long loaded, refused;
};

/* What has loaded encodes and decodes without harm, to ids that it has. */
static void assert_sound(const struct mg_tokenizer *t) {
    static const char text[] =
        "abcabcd aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa d\xC3\xAD<bos>a";
    for (int special = 0; special < 2; special++) {
        size_t n, len;
        struct bpe_way way = {special, NULL, 0};
        int32_t *ids = bpe_encode(t, text, sizeof text - 1, way, &n);
        for (size_t i = 0; i < n; i++) {
            assert_true(ids[i] >= 0 && ids[i] < t->vocab_size);
            mg_tokenizer_spelling(t, ids[i], &len);
            assert_true(len > 0);
            mg_tokenizer_text(t, ids[i], &len);
            assert_true(len <= t->max_bytes);
        }
        free(ids);
    }
    assert_true(t->bos >= 0 && t->bos < t->vocab_size);
}

static void try_text(struct tally *tally, const char *text, size_t len) {
    struct mg_error err = {0};
    struct mg_tokenizer *t = mg_tokenizer_bpe("x", text, len, &err);
    if (t) {
        assert_int_equal(err.code, MG_OK);
        assert_sound(t);
        mg_tokenizer_free(t);
        tally->loaded++;
        return;
    }
    assert_int_equal(err.code, MG_EFILE);
    assert_int_equal(strncmp(err.text, "x: ", 3), 0);
    for (const char *p = err.text; *p; p++) assert_true((unsigned char)*p >= 0x20);
    tally->refused++;
}

static void report(const char *what, struct tally t) {
    printf("           %s: %ld refused, %ld loaded\n", what, t.refused, t.loaded);
}

/* Every bit of every byte turned, every byte made one that means something to JSON, the
 * text cut at every length. */
static void test_damaged_bytes(void **state) {
    (void)state;
    static const char telling[] = "\xff\0 \"\\{}[],:-059aA\x7f\xc3\xad\xc4\xa0";
    struct tally t = {0};
    size_t len;
    char *text = folder_read("tests/golden-bpe/edge-merges", "tokenizer.json", &len);
    for (size_t at = 0; at < len; at++) {
        char was = text[at];
        for (size_t k = 0; k < 8 + sizeof telling - 1; k++) {
            text[at] = k < 8 ? (char)(was ^ 1 << k) : telling[k - 8];
            if (text[at] != was) try_text(&t, text, len);
        }
        text[at] = was;
        try_text(&t, text, at);
    }
    report("bytes changed", t);
    assert_true(t.refused > 10000 && t.loaded > 100);
    free(text);
}

/* A stretch of the text put in another place of it. */
static size_t move_stretch(uint64_t *rng, char *text, size_t len, size_t cap) {
    char stretch[40];
    size_t n = (size_t)random_int(rng, 1, (int)sizeof stretch);
    size_t from = (size_t)random_int(rng, 0, (int)(len - n));
    size_t to = (size_t)random_int(rng, 0, (int)(len - n));
    memcpy(stretch, text + from, n);
    if (random_int(rng, 0, 1) && len + n <= cap) {
        memmove(text + to + n, text + to, len - to);
        len += n;
    }
    memcpy(text + to, stretch, n);
    return len;
}

static void test_random_damage(void **state) {
    (void)state;
    struct tally t = {0};
    uint64_t rng = 3;
    size_t len;
    char *text = folder_read("tests/golden-bpe/edge-merges", "tokenizer.json", &len);
    char *copy = malloc(2 * len);
    for (int round = 0; round < 20000; round++) {
        size_t n = len;
        memcpy(copy, text, len);
        for (int k = random_int(&rng, 1, 3); k > 0; k--)
            if (random_int(&rng, 0, 1))
                copy[random_int(&rng, 0, (int)n - 1)] ^=
                    (char)(1 << random_int(&rng, 0, 7));
            else
                n = move_stretch(&rng, copy, n, 2 * len);
        try_text(&t, copy, n);
    }
    report("random damage", t);
    assert_true(t.refused > 10000 && t.loaded > 100);
    free(copy);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model),
        cmocka_unit_test(test_compat_is_refused),
        cmocka_unit_test(test_digest_covers_the_tokenizer),
        cmocka_unit_test(test_merges_are_bounded),
        cmocka_unit_test(test_added_tokens_are_bounded),
        cmocka_unit_test(test_the_file_is_bounded),
        cmocka_unit_test(test_every_allocation_fails_once),
        cmocka_unit_test(test_damaged_bytes),
        cmocka_unit_test(test_random_damage),
    };
    return cmocka_run_group_tests_name("bpe_load", tests, NULL, NULL);
}
