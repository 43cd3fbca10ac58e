/* SPDX-License-Identifier: Apache-2.0
 *
 * test_load_alloc.c - every allocation of mg_model_open, of Jansson and of the C library
 * fails once in turn: an error each time, no crash, and (leak sanitizer) nothing left
 * behind. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/microgpt.h"
#include "allocfail.h"

static int count_descriptors(void) {
    DIR *d = opendir("/proc/self/fd");
    int n = 0;
    assert_non_null(d);
    while (readdir(d)) n++;
    closedir(d);
    return n;
}

/* Mappings of the file called name. */
static int count_mappings(const char *name) {
    FILE *f = fopen("/proc/self/maps", "r");
    char line[1000];
    int n = 0;
    assert_non_null(f);
    while (fgets(line, sizeof line, f)) n += strstr(line, name) != NULL;
    fclose(f);
    return n;
}

/* Fail each allocation of opening dir; returns how many there are. */
static long fail_each(const char *dir) {
    int descriptors = count_descriptors();
    for (long n = 1;; n++) {
        struct mg_error err = {0};
        allocfail_arm(n);
        struct mg_model *m = mg_model_open(dir, NULL, &err);
        int hit = allocfail_disarm();
        if (m) {
            assert_int_equal(err.code, MG_OK);
            mg_model_close(m);
        } else {
            assert_int_equal(err.code, MG_ENOMEM);
            assert_non_null(strstr(err.text, "memory"));
        }
        assert_int_equal(count_descriptors(), descriptors);
        assert_int_equal(count_mappings("weights.safetensors"), 0);
        if (!hit) {
            assert_non_null(m);
            return n - 1;
        }
    }
}

static void test_tiny(void **state) {
    (void)state;
    assert_true(fail_each("tests/data/tiny") > 50);
}

/* With warnings, whose texts are allocated too. */
static void test_extra_tensors(void **state) {
    (void)state;
    assert_true(fail_each("tests/data/good/extra-tensors") > 50);
}

static void test_both_tokenizers(void **state) {
    (void)state;
    assert_true(fail_each("tests/data/good/both-tokenizers") > 50);
}

static void test_bpe(void **state) {
    (void)state;
    assert_true(fail_each("tests/data/good/tokenizer-chat") > 100);
}

/* The interposer itself: it sees the calls of others, and only while armed. */
static void test_counts(void **state) {
    (void)state;
    allocfail_arm(0);
    struct mg_model *m = mg_model_open("tests/data/tiny", NULL, NULL);
    assert_int_equal(allocfail_disarm(), 0);
    long n = allocfail_count();
    mg_model_close(m);
    assert_int_equal(fail_each("tests/data/tiny"), n);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_extra_tensors),
        cmocka_unit_test(test_both_tokenizers),
        cmocka_unit_test(test_bpe),
        cmocka_unit_test(test_counts),
    };
    return cmocka_run_group_tests_name("load_alloc", tests, NULL, NULL);
}
