/* SPDX-License-Identifier: Apache-2.0
 *
 * test_load.c - every folder of tests/data/bad is refused with its exact message, every
 * folder of tests/data/good and the recorded checkpoints load as what they are. Run from
 * the root of the project; how the folders were made: tests/data/make_bad.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/microgpt.h"
#include "folder.h"

#define BAD    "tests/data/bad"
#define GOOD   "tests/data/good"
#define GOLDEN "../shared/golden"

static const char *status_name(enum mg_status code) {
    static const char *const names[] = {
        [MG_OK] = "MG_OK",
        [MG_EINPUT] = "MG_EINPUT",
        [MG_ENOFILE] = "MG_ENOFILE",
        [MG_EFILE] = "MG_EFILE",
        [MG_ENOMEM] = "MG_ENOMEM",
        [MG_ESYSTEM] = "MG_ESYSTEM",
        [MG_ENUMERIC] = "MG_ENUMERIC",
    };
    return names[code];
}

/* One line, printable. */
static void assert_line(const char *text) {
    for (const char *p = text; *p; p++)
        assert_true((unsigned char)*p >= 0x20 && *p != 0x7f);
}

/* Write text with each dir in it as DIR to out. */
static void hide_dir(const char *text, const char *dir, char *out, size_t cap) {
    size_t n = strlen(dir), len = 0;
    while (*text && len + 4 < cap) {
        if (!strncmp(text, dir, n)) {
            memcpy(out + len, "DIR", 3);
            len += 3;
            text += n;
        } else {
            out[len++] = *text++;
        }
    }
    out[len] = '\0';
}

/* text is line, or begins with it if line ends with a star. */
static void assert_matches(const char *text, char *line) {
    size_t n = strlen(line);
    if (n > 0 && line[n - 1] == '*' && !strncmp(text, line, n - 1)) return;
    assert_string_equal(text, line);
}

static void test_bad(void **state) {
    const char *name = *state;
    char *dir = folder_path(BAD, name);
    size_t len;
    char *expected = folder_read(dir, "expected", &len);
    expected[strcspn(expected, "\n")] = '\0';
    struct mg_error err = {0};
    assert_null(mg_model_open(dir, NULL, &err));
    assert_line(err.text);
    char shown[512], line[600];
    hide_dir(err.text, dir, shown, sizeof shown);
    snprintf(line, sizeof line, "%s %s", status_name(err.code), shown);
    assert_matches(line, expected);
    assert_null(mg_model_open(dir, NULL, NULL)); /* the error may be NULL */
    free(expected);
    free(dir);
}

/* "dtype weights", then the warnings, a line each. */
static void describe(const struct mg_model *m, const char *dir, char *out, size_t cap) {
    const struct mg_model_info *info = mg_model_info(m);
    size_t len =
        (size_t)snprintf(out, cap, "%s %ju\n", info->dtype, (uintmax_t)info->n_params);
    for (int i = 0; mg_model_warning(m, i); i++) {
        if (strstr(mg_model_warning(m, i), "vector kernels"))
            continue; /* of the machine */
        assert_line(mg_model_warning(m, i));
        char line[400];
        hide_dir(mg_model_warning(m, i), dir, line, sizeof line);
        len += (size_t)snprintf(out + len, cap - len, "%s\n", line);
    }
}

static void test_good(void **state) {
    const char *name = *state;
    char *dir = folder_path(GOOD, name), found[1000];
    size_t len;
    char *expected = folder_read(dir, "expected", &len);
    struct mg_error err = {0};
    struct mg_model *m = mg_model_open(dir, NULL, &err);
    assert_string_equal(err.text, "");
    assert_non_null(m);
    describe(m, dir, found, sizeof found);
    assert_string_equal(found, expected);
    mg_model_close(m);
    free(expected);
    free(dir);
}

static const struct golden {
    const char *name;
    struct mg_model_info info;
} goldens[] = {
    {"names", {27, 16, 4, 1, 16, 0, 4192, 17440, 1, "F32", "char", "", 19, 0.5}},
    {"names-f16", {27, 16, 4, 1, 16, 0, 4192, 9048, 1, "F16", "char", "", 19, 0.5}},
    {"chat-small", {59, 32, 4, 2, 64, 1, 30400, 122752, 1, "F32", "char", "", 67, 0.5}},
    {"unicode-chat",
     {58, 32, 8, 2, 48, 1, 29824, 120448, 4, "F32", "char", "", 195, 0.5}},
    {"escapes-shuffled",
     {43, 16, 2, 2, 24, 1, 7904, 32832, 1, "F32", "char", "", 27, 0.5}},
};

static void test_golden(void **state) {
    const struct golden *g = *state;
    const struct mg_model_info *want = &g->info;
    char *dir = folder_path(GOLDEN, g->name);
    if (access(dir, R_OK)) {
        printf("1 not possible here: %s is not there\n", dir);
        free(dir);
        skip();
    }
    struct mg_error err = {0};
    struct mg_model *m = mg_model_open(dir, NULL, &err);
    assert_string_equal(err.text, "");
    assert_non_null(m);
    const struct mg_model_info *info = mg_model_info(m);
    assert_int_equal(info->vocab_size, want->vocab_size);
    assert_int_equal(info->n_embd, want->n_embd);
    assert_int_equal(info->n_head, want->n_head);
    assert_int_equal(info->n_layer, want->n_layer);
    assert_int_equal(info->block_size, want->block_size);
    assert_int_equal(info->has_chat, want->has_chat);
    assert_int_equal(info->n_params, want->n_params);
    assert_int_equal(info->weights_bytes, want->weights_bytes);
    assert_int_equal(info->max_token_bytes, want->max_token_bytes);
    assert_int_equal(info->max_sample_bytes, want->max_sample_bytes);
    assert_true(info->temperature == want->temperature);
    assert_string_equal(info->dtype, want->dtype);
    assert_string_equal(info->tokenizer, want->tokenizer);
    mg_model_close(m);
    free(dir);
}

static const struct mg_model_options compat = {.compat_05 = 1};

static void test_kernels_named(void **state) {
    (void)state;
    struct mg_error err = {0};
    const enum mg_kernels all[] = {MG_KERNELS_AUTO, MG_KERNELS_NATIVE, MG_KERNELS_BLIS};
    for (size_t i = 0; i < 3; i++) {
        struct mg_model_options opt = {.kernels = all[i]};
        struct mg_model *m = mg_model_open("tests/data/tiny", &opt, &err);
        assert_string_equal(err.text, "");
        const char *name = mg_model_info(m)->kernels;
        assert_int_equal(!strcmp(name, "blis"), all[i] == MG_KERNELS_BLIS);
        mg_model_close(m);
    }
    struct mg_model_options kept = {.no_better = "plain"};
    struct mg_model *m = mg_model_open("tests/data/tiny", &kept, &err);
    assert_string_equal(mg_model_info(m)->kernels, "plain");
    mg_model_close(m);
    m = mg_model_open("tests/data/tiny/", &compat, &err);
    assert_non_null(m);
    mg_model_close(m);
}

/* A test for every folder of dir, behind those in tests. */
static size_t add_folders(struct CMUnitTest *tests, const char *dir,
                          CMUnitTestFunction run, size_t at_least) {
    size_t n;
    char **names = folder_list(dir, &n);
    if (n < at_least) {
        fprintf(stderr, "%s: found %zu folders, expected at least %zu\n", dir, n,
                at_least);
        exit(2);
    }
    for (size_t i = 0; i < n; i++)
        tests[i] = (struct CMUnitTest){names[i], run, NULL, NULL, names[i]};
    free(names);
    return n;
}

int main(void) {
    static struct CMUnitTest tests[1000];
    size_t n = add_folders(tests, BAD, test_bad, 200);
    n += add_folders(tests + n, GOOD, test_good, 15);
    size_t folders = n;
    for (size_t i = 0; i < sizeof goldens / sizeof *goldens; i++)
        tests[n++] = (struct CMUnitTest){goldens[i].name, test_golden, NULL, NULL,
                                         (void *)&goldens[i]};
    tests[n++] = (struct CMUnitTest)cmocka_unit_test(test_kernels_named);
    int failed = _cmocka_run_group_tests("load", tests, n, NULL, NULL);
    for (size_t i = 0; i < folders; i++) free((void *)tests[i].name);
    return failed;
}
