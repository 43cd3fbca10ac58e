/* SPDX-License-Identifier: Apache-2.0
 * test_train_import.c - the importer of dumps where a program cannot reach: every
 * allocation failed, every byte of a dump changed, a spool that cannot be written. What
 * it makes of which dump is tests/cli/test_import.py's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/train/import.h"
#include "allocfail.h"

/* n_embd 2, one head, one layer, context 1, characters "ab" and bos. */
static const char dump[] =
    "{\"step\":[1,{\"m\":\"x\"}],\"weights\":{\"wte\":[[1,2],[3,4],[5,6]],"
    "\"wpe\":[[0,1]],\"layer0.attn_wq\":[[1,2],[3,4]],\"layer0.attn_wk\":[[1,2],[3,4]],"
    "\"layer0.attn_wv\":[[1,2],[3,4]],\"layer0.attn_wo\":[[1,2],[3,4]],"
    "\"layer0.mlp_fc1\":[[1,2],[3,4],[5,6],[7,8],[9,1],[2,3],[4,5],[6,7]],"
    "\"layer0.mlp_fc2\":[[1,2,3,4,5,6,7,8],[9,8,7,6,5,4,3,2]]},"
    "\"config\":{\"n_head\":1,\"BOS\":0,\"rope\":false},\"uchars\":[\"a\",\"b\"]}";

static int memory_file(const void *data, size_t len) {
    int fd = memfd_create("file", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), (ssize_t)len);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    return fd;
}

/* Read and plan; 0, or -1 with err told. out: wte as the checkpoint has it. */
static int import(const char *text, size_t len, float out[6], struct mg_error *err) {
    int file = memory_file(text, len), spool = memory_file("", 0);
    struct import_options o = {0};
    struct import *im = import_new(spool, err);
    int rc = im && !import_read(im, file, "f", err) && !import_plan(im, &o, err) ? 0 : -1;
    if (!rc && out) rc = import_rows(im, 0, 0, 3, out, err);
    import_free(im);
    close(file);
    close(spool);
    return rc;
}

static void test_rows(void **state) {
    (void)state;
    static const float want[6] = {3, 4, 5, 6, 1, 2}; /* bos, first in the dump, last */
    struct mg_error err = {0};
    float out[6];
    if (import(dump, strlen(dump), out, &err)) fail_msg("%s", err.text);
    assert_memory_equal(out, want, sizeof want);
}

static void test_out_of_memory(void **state) {
    (void)state;
    long n = 1;
    for (;; n++) {
        struct mg_error err = {0};
        allocfail_arm(n);
        int rc = import(dump, strlen(dump), NULL, &err);
        if (!allocfail_disarm()) break;
        assert_int_equal(rc, -1);
        assert_int_equal(err.code, MG_ENOMEM);
    }
    assert_true(n > 5);
}

/* Every byte replaced by each of some, taken away, and the text cut there: an answer, and
 * a refusal is one line that begins with the file. */
static void test_changed_bytes(void **state) {
    (void)state;
    static const char others[] = "\"\\{}[],:0-e\x80\xFFNt ";
    char *copy = strdup(dump);
    size_t len = strlen(dump), refused = 0;
    for (size_t i = 0; i < len; i++)
        for (size_t k = 0; k <= sizeof others; k++) {
            struct mg_error err = {0};
            size_t n = len;
            memcpy(copy, dump, len);
            if (k < sizeof others)
                copy[i] = others[k]; /* its NUL too */
            else
                n = i;
            if (!import(copy, n, NULL, &err)) continue;
            refused++;
            if (strncmp(err.text, "f: ", 3) || strchr(err.text, '\n'))
                fail_msg("%s", err.text);
        }
    assert_true(refused > 10 * len);
    free(copy);
}

static void test_spool_that_fails(void **state) {
    (void)state;
    struct mg_error err = {0};
    int file = memory_file(dump, strlen(dump));
    struct import_options o = {0};
    struct import *im = import_new(-1, &err);
    assert_int_equal(import_read(im, file, "f", &err), 0); /* it all fits the buffer */
    assert_int_equal(import_plan(im, &o, &err), -1);
    assert_string_equal(err.text, "cannot write the weights: Bad file descriptor");
    assert_int_equal(im->spool_failed, 1);
    import_free(im);
    close(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_changed_bytes),
        cmocka_unit_test(test_spool_that_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
