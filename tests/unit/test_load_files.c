/* SPDX-License-Identifier: Apache-2.0
 *
 * test_load_files.c - what a path may lead to instead of a file, files too large to be
 * kept as data, sharing of the mapping, the digest, and the text of errors. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../core/digest.h"
#include "../../core/error.h"
#include "../../core/model.h"
#include "folder.h"
#include "make_model.h"

enum { HEADER_MAX = 100000000, META_MAX = 16 << 20 };

/* A copy of tiny without the file called except (NULL: all of it). */
static char *copy_tiny(const char *except) {
    static const char *const names[] = {"weights.safetensors", "meta.json"};
    char *dir = folder_new();
    for (int i = 0; i < 2; i++) {
        size_t len;
        if (except && !strcmp(names[i], except)) continue;
        char *data = folder_read("tests/data/tiny", names[i], &len);
        folder_write(dir, names[i], data, len);
        free(data);
    }
    return dir;
}

/* Opening dir fails with code and a text that begins with dir/name and holds what. */
static void assert_refused(const char *dir, const char *name, enum mg_status code,
                           const char *what) {
    struct mg_error err = {0};
    char *path = *name ? folder_path(dir, name) : strdup(dir);
    assert_null(mg_model_open(dir, NULL, &err));
    assert_int_equal(err.code, code);
    assert_int_equal(strncmp(err.text, path, strlen(path)), 0);
    if (!strstr(err.text, what)) assert_string_equal(err.text, what);
    free(path);
}

static void test_no_folder(void **state) {
    (void)state;
    const char *want = "expected a folder with meta.json and weights.safetensors";
    assert_refused("/nonexistent", "", MG_ENOFILE, want);
    assert_refused("tests/data/tiny/meta.json", "", MG_ENOFILE, want);
    assert_refused("tests/data/tiny/meta.json/x", "", MG_ENOFILE, want);
    assert_refused("", "", MG_ENOFILE, want);
}

/* A fifo without a writer: opening must not wait for one. */
static void test_fifo(void **state) {
    (void)state;
    static const char *const names[] = {"weights.safetensors", "meta.json"};
    alarm(60); /* a loader that waits dies here */
    for (int i = 0; i < 2; i++) {
        char *dir = copy_tiny(names[i]), *path = folder_path(dir, names[i]);
        assert_int_equal(mkfifo(path, 0600), 0);
        assert_refused(dir, names[i], MG_EFILE,
                       "found a device, pipe or socket, expected a regular file");
        assert_int_equal(unlink(path), 0);
        assert_int_equal(symlink("/dev/zero", path), 0);
        assert_refused(dir, names[i], MG_EFILE, "expected a regular file");
        free(path);
        remove_model(dir);
    }
    alarm(0);
}

static void test_symlinks(void **state) {
    (void)state;
    char *dir = copy_tiny("weights.safetensors");
    char *path = folder_path(dir, "weights.safetensors"), cwd[4096];
    assert_int_equal(symlink("gone", path), 0);
    assert_refused(dir, "weights.safetensors", MG_ENOFILE, "No such file");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(symlink("weights.safetensors", path), 0);
    assert_refused(dir, "weights.safetensors", MG_ENOFILE, "symbolic links");
    assert_int_equal(unlink(path), 0);
    assert_non_null(getcwd(cwd, sizeof cwd));
    char *target = folder_path(cwd, "tests/data/tiny/weights.safetensors");
    assert_int_equal(symlink(target, path), 0);
    struct mg_model *m = mg_model_open(dir, NULL, NULL);
    assert_non_null(m);
    mg_model_close(m);
    free(target);
    free(path);
    remove_model(dir);
}

/* Exit code 0 if dir is refused by someone who is not root, with what in the text. */
static void open_as_nobody(const char *dir, const char *what) {
    struct mg_error err = {0};
    if (geteuid() == 0 && seteuid(65534)) _exit(2);
    struct mg_model *m = mg_model_open(dir, NULL, &err);
    _exit(!m && err.code == MG_ENOFILE && strstr(err.text, what) ? 0 : 1);
}

static void assert_closed_to_nobody(const char *dir, const char *what) {
    int status;
    pid_t child = fork(); /* a change of user spoils the leak check of a process */
    assert_true(child >= 0);
    if (child == 0) open_as_nobody(dir, what);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static void test_permission(void **state) {
    (void)state;
    char *dir = copy_tiny(NULL), *path = folder_path(dir, "weights.safetensors");
    assert_int_equal(chmod(dir, 0755) | chmod(path, 0), 0);
    assert_closed_to_nobody(dir, "weights.safetensors: Permission denied; make it (and");
    assert_int_equal(chmod(path, 0644) | chmod(dir, 0), 0);
    assert_closed_to_nobody(dir,
                            ": Permission denied; make it (and the folders above it)");
    assert_int_equal(chmod(dir, 0755), 0);
    free(path);
    remove_model(dir);
}

/* Make dir/name longer without taking room on the disk. */
static void stretch(const char *dir, const char *name, off_t size) {
    char *path = folder_path(dir, name);
    assert_int_equal(truncate(path, size), 0);
    free(path);
}

static void write_header(const char *dir, uint64_t length, const char *text, size_t len) {
    char *data = malloc(8 + len);
    assert_non_null(data);
    for (int i = 0; i < 8; i++) data[i] = (char)(length >> 8 * i);
    memcpy(data + 8, text, len);
    folder_write(dir, "weights.safetensors", data, 8 + len);
    free(data);
}

static void test_header_over_limit(void **state) {
    (void)state;
    char *dir = copy_tiny("weights.safetensors");
    write_header(dir, HEADER_MAX + 1, "{", 1);
    stretch(dir, "weights.safetensors", HEADER_MAX + 1000);
    assert_refused(
        dir, "weights.safetensors", MG_EFILE,
        "header length: found 100000001, expected at most 100000000, the limit");
    write_header(dir, HEADER_MAX, "{", 1);
    stretch(dir, "weights.safetensors", HEADER_MAX + 1000);
    assert_refused(dir, "weights.safetensors", MG_EFILE, "not valid JSON");
    remove_model(dir);
}

/* A header of a few MB whose tree would take hundreds. */
static void test_header_tree_over_limit(void **state) {
    (void)state;
    enum { N = 2000000 };
    char *dir = copy_tiny("weights.safetensors"), *text = malloc(3 * N + 20);
    assert_non_null(text);
    size_t len = (size_t)sprintf(text, "{\"a\":[[]");
    for (int i = 0; i < N; i++, len += 3) memcpy(text + len, ",{}", 3);
    len += (size_t)sprintf(text + len, "]}");
    write_header(dir, len, text, len);
    assert_refused(dir, "weights.safetensors", MG_EFILE,
                   "found JSON that needs more than 128 MiB, expected less");
    free(text);
    remove_model(dir);
}

static void test_meta_over_limit(void **state) {
    (void)state;
    char *dir = copy_tiny(NULL);
    stretch(dir, "meta.json", META_MAX + 1);
    assert_refused(dir, "meta.json", MG_EFILE,
                   "found 16777217 bytes, expected at most 16777216");
    remove_model(dir);
}

/* What was found and expected is shown behind a path as long as paths can be. */
static void test_long_path(void **state) {
    (void)state;
    char dir[4000] = "tests/data/bad/meta-n_embd-zero";
    for (size_t len = strlen(dir); len < sizeof dir - 3; len += 2)
        strcpy(dir + len, "/.");
    struct mg_error err = {0};
    assert_null(mg_model_open(dir, NULL, &err));
    assert_int_equal(strncmp(err.text, "tests/data/bad/meta-n_embd-zero/", 32), 0);
    const char *end = "/meta.json: n_embd: found 0, expected an integer from 1 to 65536";
    assert_string_equal(err.text + strlen(err.text) - strlen(end), end);
}

/* Read-only and shared: the workers of a host keep one copy. */
static void test_mapping(void **state) {
    (void)state;
    struct mg_model *m = mg_model_open("tests/data/tiny", NULL, NULL);
    assert_non_null(m);
    FILE *f = fopen("/proc/self/maps", "r");
    char line[1000];
    int n = 0;
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (strstr(line, "weights.safetensors")) n += strstr(line, " r--s ") ? 1 : 100;
    fclose(f);
    assert_int_equal(n, 1);
    size_t size;
    const char *map = mg_weights_map(m->weights, &size);
    assert_true(mg_model_maps(m, map) && mg_model_maps(m, map + size - 1));
    assert_false(mg_model_maps(m, map - 1) || mg_model_maps(m, &size) ||
                 mg_model_maps(m, 0));
    mg_model_close(m);
    mg_model_close(NULL);
}

/* ---- digest
 * ------------------------------------------------------------------------------- */

/* Values of an independent program, from the formula in digest.c. */
static void test_digest_values(void **state) {
    (void)state;
    static const struct {
        size_t len;
        uint64_t digest;
    } cases[] = {
        {0, 0x0d543750cb302a30},  {1, 0x54e9566b61985ef9},   {7, 0xc92c16217b79d0c9},
        {8, 0x01c55d1fb7eb3902},  {63, 0x7d46e1342b42d119},  {64, 0x7d06f8076a9bb4ee},
        {65, 0x5bb0f061874b0b0a}, {512, 0x9933ab43147f94d3}, {1000, 0x331eccb41ca20625},
    };
    unsigned char data[1000];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (unsigned char)(i * 7 + 3);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_true(mg_digest(data, cases[i].len) == cases[i].digest);
}

static void test_digest_of_model(void **state) {
    (void)state;
    struct mg_model *m = mg_model_open("tests/data/tiny", NULL, NULL);
    char hex[17], other[17];
    mg_model_digest(m, hex);
    mg_model_close(m);
    assert_string_equal(hex, "e7b2ad281ad40729");
    static const char *const names[] = {"weights.safetensors", "meta.json"};
    for (int i = 0; i < 2; i++) { /* one bit of either file, and it is another model */
        char *dir = copy_tiny(NULL);
        size_t len;
        char *data = folder_read(dir, names[i], &len);
        char *at =
            i ? strstr(data, "\"c\"") + 1 : data + len - 4; /* 'c', or a last bit */
        *at ^= 4;
        folder_write(dir, names[i], data, len);
        assert_non_null(m = mg_model_open(dir, NULL, NULL));
        mg_model_digest(m, other);
        assert_string_not_equal(hex, other);
        mg_model_close(m);
        free(data);
        remove_model(dir);
    }
}

/* ---- errors
 * ------------------------------------------------------------------------------- */

static void test_first_error_stays(void **state) {
    (void)state;
    struct mg_error err = {0};
    assert_int_equal(mg_fail(NULL, MG_EFILE, "nobody asks"), -1);
    assert_int_equal(mg_fail(&err, MG_EFILE, "first %d", 1), -1);
    assert_int_equal(mg_fail(&err, MG_ENOMEM, "second"), -1);
    assert_int_equal(err.code, MG_EFILE);
    assert_string_equal(err.text, "first 1");
}

static void test_error_is_printable(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"a\nb\tc\x1b[0m\x7f", "a\\x0ab\\x09c\\x1b[0m\\x7f"},
        {"\xc3\xa9 \xe4\xb8\xad \xf0\x9f\x98\x80",
         "\xc3\xa9 \xe4\xb8\xad \xf0\x9f\x98\x80"},
        {"\xc2\x9b"
         "1m",
         "\\xc2\\x9b1m"},                             /* a control of two bytes */
        {"\xff\xc0\xaf\x80", "\\xff\\xc0\\xaf\\x80"}, /* no UTF-8 */
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"},          /* a surrogate */
        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* beyond U+10FFFF */
        {"\xe0\x9f\xbf\xf0\x8f\xbf\xbf", "\\xe0\\x9f\\xbf\\xf0\\x8f\\xbf\\xbf"},
        {"\xe4\xb8", "\\xe4\\xb8"}, /* cut short */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct mg_error err = {0};
        mg_fail(&err, MG_EINPUT, "%s", cases[i][0]);
        assert_string_equal(err.text, cases[i][1]);
    }
}

/* Texts of any length, of characters of 1 to 4 bytes, stay whole characters and keep both
 * ends. */
static void test_error_is_cut(void **state) {
    (void)state;
    static const char *const chars[] = {"x", "\xc3\xa9", "\xe4\xb8\xad",
                                        "\xf0\x9f\x98\x80", "\x01"};
    for (size_t c = 0; c < 5; c++) {
        for (int n = 0; n < 6000; n += n < 400 ? 1 : 97) {
            char *text = calloc(1, 4 * (size_t)n + 1);
            assert_non_null(text);
            for (int i = 0; i < n; i++) strcat(text + i * strlen(chars[c]), chars[c]);
            struct mg_error err = {0}, again = {0};
            mg_fail(&err, MG_EINPUT, "begin%s", text);
            assert_int_equal(strncmp(err.text, "begin", 5), 0);
            mg_fail(&again, MG_EINPUT, "%s", err.text);
            assert_string_equal(again.text,
                                err.text); /* well-formed: nothing to escape */
            if (n < 60) assert_null(strstr(err.text, "..."));
            free(text);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_folder),
        cmocka_unit_test(test_fifo),
        cmocka_unit_test(test_symlinks),
        cmocka_unit_test(test_permission),
        cmocka_unit_test(test_header_over_limit),
        cmocka_unit_test(test_header_tree_over_limit),
        cmocka_unit_test(test_meta_over_limit),
        cmocka_unit_test(test_long_path),
        cmocka_unit_test(test_mapping),
        cmocka_unit_test(test_digest_values),
        cmocka_unit_test(test_digest_of_model),
        cmocka_unit_test(test_first_error_stays),
        cmocka_unit_test(test_error_is_printable),
        cmocka_unit_test(test_error_is_cut),
    };
    return cmocka_run_group_tests_name("load_files", tests, NULL, NULL);
}
