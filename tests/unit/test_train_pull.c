/* SPDX-License-Identifier: Apache-2.0
 * test_train_pull.c - the reader of large JSON: tokens and paths, what it refuses and
 * where it says so, tokens that lie across the end of its buffer, memory. */
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

#include "../../core/train/pull.h"
#include "../../core/train/utf8.h"
#include "allocfail.h"

enum { BUFFER = 1 << 16 }; /* as in pull.c */

/* A file with pad blanks and then the text, at its beginning. */
static int write_file(const char *text, size_t len, size_t pad) {
    char *blanks = malloc(pad + 1);
    int fd = memfd_create("text", MFD_CLOEXEC);
    assert_true(blanks && fd >= 0);
    memset(blanks, ' ', pad);
    assert_int_equal(write(fd, blanks, pad), (ssize_t)pad);
    assert_int_equal(write(fd, text, len), (ssize_t)len);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    free(blanks);
    return fd;
}

/* All tokens of a text as one line, each with its path: "{ a:[ a[0]:1 ...". Strings are
 * read when read_strings is set. On error the message. */
static void list_tokens(const char *text, size_t len, size_t pad, int read_strings,
                        char *out, size_t cap) {
    static const char *const marks[] = {[PULL_OBJECT] = "{",
                                        [PULL_OBJECT_END] = "}",
                                        [PULL_ARRAY] = "[",
                                        [PULL_ARRAY_END] = "]"};
    struct mg_error err = {0};
    int fd = write_file(text, len, pad);
    struct pull *p = pull_open(fd, "f", &err);
    enum pull_token t;
    size_t n = 0;
    assert_non_null(p);
    while ((t = pull_next(p)) > PULL_EOF) {
        char path[PULL_PATH], what[PULL_DESCRIBE];
        const char *mark = t <= PULL_ARRAY_END ? marks[t] : pull_describe(p, t, what);
        if (t == PULL_STRING && read_strings && !pull_string(p, what, PULL_DESCRIBE))
            mark = what;
        pull_path(p, path);
        n += (size_t)snprintf(out + n, cap - n, "%s%s%s ", path, *path ? ":" : "", mark);
        assert_true(n < cap);
    }
    assert_int_equal(t == PULL_ERROR, err.code != MG_OK);
    if (t == PULL_ERROR) snprintf(out, cap, "%s", err.text);
    pull_close(p);
    close(fd);
}

static const char sample[] =
    "{\"a\": [1, -2.5e+3 , [], {\"b\":null}],\r\n\t\"c\\u00e9\": "
    "{\"d\":\"x\\ud83d\\ude00y\"},"
    "\"\":true,\"e\":[[false],[NaN,-Infinity,Infinity]], \"f\":\"\\\"\\\\\\/\\b\\t\"}\n ";
static const char sample_tokens[] =
    "{ a:[ a[0]:1 a[1]:-2.5e+3 a[2]:[ a[2]:] a[3]:{ a[3].b:null a[3]:} a:] "
    "c\u00e9:{ c\u00e9.d:x\U0001F600y c\u00e9:} true e:[ e[0]:[ e[0][0]:false e[0]:] "
    "e[1]:[ e[1][0]:NaN e[1][1]:-Infinity e[1][2]:Infinity e[1]:] e:] "
    "f:\"\\/\b\t } ";

static void test_tokens(void **state) {
    (void)state;
    char out[1024];
    list_tokens(sample, strlen(sample), 0, 1, out, sizeof out);
    assert_string_equal(out, sample_tokens);
}

/* The same with every byte of the text first in a new buffer. */
static void test_buffer_ends(void **state) {
    (void)state;
    char out[1024], unread[1024], first[1024] = "";
    for (size_t k = 0; k <= strlen(sample); k++) {
        list_tokens(sample, strlen(sample), BUFFER - k, 1, out, sizeof out);
        assert_string_equal(out, sample_tokens);
        list_tokens(sample, strlen(sample), BUFFER - k, 0, unread, sizeof unread);
        if (k == 0) memcpy(first, unread, sizeof first);
        assert_string_equal(unread, first);
    }
    assert_non_null(strstr(first, "c\u00e9.d:a string "));
}

static void test_mark(void **state) {
    (void)state;
    char out[64];
    list_tokens("\xEF\xBB\xBF[1]", 6, 0, 0, out, sizeof out);
    assert_string_equal(out, "[ [0]:1 ] ");
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "1: the text ends too early, expected a value"},
        {"  \n\n ", "line 3, column 2: the text ends too early, expected a value"},
        {"{\"a\":[[1],[2,", "14: a[1][1]: the text ends too early, expected a value"},
        {"[1", "3: [0]: the text ends too early, expected a comma or ]"},
        {"{\"a\":1", "7: a: the text ends too early, expected a comma or }"},
        {"{\"a\":\"xy", "9: a: the text ends too early, expected the rest of a string"},
        {"[1 2]", "4: [0]: found '2', expected a comma or ]"},
        {"[1,]", "4: [1]: found ']', expected a value"},
        {"[,1]", "2: [0]: found ',', expected a value"},
        {"{\"a\":1,}", "8: a: found '}', expected the name of a member, or }"},
        {"{a:1}", "2: found 'a', expected the name of a member, or }"},
        {"{\"a\" 1}", "6: a: found '1', expected a colon"},
        {"[1}", "3: [0]: found '}', expected a comma or ]"},
        {"[] []", "4: found '[', expected nothing behind the value"},
        {"[1]x", "4: found 'x', expected nothing behind the value"},
        {"[01]", "3: [0]: found '1', expected a comma or ]"},
        {"[-]", "3: [0]: found ']', expected a digit"},
        {"[1.]", "4: [0]: found ']', expected a digit"},
        {"[.5]", "2: [0]: found '.', expected a value"},
        {"[1e]", "4: [0]: found ']', expected a digit"},
        {"[1e+]", "5: [0]: found ']', expected a digit"},
        {"[+1]", "2: [0]: found '+', expected a value"},
        {"[0x1]", "3: [0]: found 'x', expected a comma or ]"},
        {"[nan]", "5: [0]: found a word that is no value"},
        {"[tru]", "5: [0]: found a word that is no value"},
        {"[-Inf]", "6: [0]: found a word that is no value"},
        {"[\"\\x\"]",
         "4: [0]: found 'x', expected one of \"\\/bfnrtu behind a backslash"},
        {"[\"\\u12g4\"]", "7: [0]: found 'g', expected four hexadecimal digits"},
        {"[\"\\ud800\"]", "9: [0]: half a surrogate pair is no character"},
        {"[\"\\udc00\"]", "9: [0]: half a surrogate pair is no character"},
        {"[\"\\ud800\\n\"]",
         "10: [0]: found 'n', expected the second half of a pair, \\u...."},
        {"[\"\\ud800\\u0041\"]", "15: [0]: half a surrogate pair is no character"},
        {"[\"a\nb\"]", "4: [0]: found byte 0x0a, expected the rest of a string"},
        {"[\"\xFF\"]", "4: [0]: not UTF-8"},
        {"[\"\xC0\x80\"]", "4: [0]: not UTF-8"},
        {"[\"\xE2\x82\"]", "5: [0]: not UTF-8"},
        {"[\"\xED\xA0\x80\"]", "6: [0]: not UTF-8"},
        {"[\"\xF4\x90\x80\x80\"]", "7: [0]: not UTF-8"},
        {"{\"a\\u0000b\":1}", "10: a NUL, where a name or a word is expected"},
        {"\x01", "1: found byte 0x01, expected a value"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char out[512], want[512];
        list_tokens(cases[i].text, strlen(cases[i].text), 0, 0, out, sizeof out);
        snprintf(want, sizeof want, "f: not valid JSON: %s%s",
                 strncmp(cases[i].says, "line", 4) ? "line 1, column " : "",
                 cases[i].says);
        assert_string_equal(out, want);
    }
}

static void test_depth(void **state) {
    (void)state;
    char text[200], out[32768];
    memset(text, '[', 100), memset(text + 100, ']', 100);
    list_tokens(text + 36, 128, 0, 0, out, sizeof out);
    assert_null(strstr(out, "not valid"));
    list_tokens(text + 35, 130, 0, 0, out, sizeof out);
    assert_non_null(strstr(out, "column 65: [0][0]"));
    assert_non_null(strstr(out, "nested more than 64 deep"));
}

/* A long name or number is cut, or refused; none of them is kept whole. */
static void test_long(void **state) {
    (void)state;
    enum { N = 1 << 20 };
    char *text = malloc(N + 64), out[2048];
    assert_non_null(text);
    size_t n = (size_t)sprintf(text, "{\"");
    memset(text + n, 'k', N);
    size_t len = n + N + (size_t)sprintf(text + n + N, "\": 7}");
    list_tokens(text, len, 0, 0, out, sizeof out);
    assert_int_equal(strspn(out + 2, "k"), PULL_KEY - 1);
    assert_string_equal(out + 2 + PULL_KEY - 1, ":7 } ");
    text[0] = '[', text[1] = '1';
    memset(text + 2, '0', N), text[N + 2] = ']';
    list_tokens(text, N + 3, 0, 0, out, sizeof out);
    assert_string_equal(out,
                        "f: not valid JSON: line 1, column 1025: [0]: a number of more "
                        "than 1000 characters");
    free(text);
}

/* Characters one at a time, a NUL among them; what is not read is passed over. */
static void test_chars(void **state) {
    (void)state;
    static const char text[] = "[\"a\\u0000\xE4\xB8\xAD\", \"rest\", 5]";
    static const uint32_t want[] = {'a', 0, 0x4E2D};
    struct mg_error err = {0};
    int fd = write_file(text, strlen(text), 0);
    struct pull *p = pull_open(fd, "f", &err);
    uint32_t c;
    assert_int_equal(pull_next(p), PULL_ARRAY);
    assert_int_equal(pull_next(p), PULL_STRING);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pull_char(p, &c), 1);
        assert_int_equal(c, want[i]);
    }
    assert_int_equal(pull_char(p, &c), 0);
    assert_int_equal(pull_char(p, &c), 0);
    assert_int_equal(pull_next(p), PULL_STRING);
    assert_int_equal(pull_char(p, &c), 1);
    assert_int_equal(pull_next(p), PULL_NUMBER);
    assert_int_equal(pull_next(p), PULL_ARRAY_END);
    assert_int_equal(pull_next(p), PULL_EOF);
    assert_int_equal(pull_next(p), PULL_EOF);
    pull_close(p);
    close(fd);
}

static void test_skip(void **state) {
    (void)state;
    static const char text[] = "{\"a\":[[1,{\"x\":[]}],\"]\"],\"b\":{\"c\":{}},\"d\":1}";
    struct mg_error err = {0};
    int fd = write_file(text, strlen(text), 0);
    struct pull *p = pull_open(fd, "f", &err);
    assert_int_equal(pull_next(p), PULL_OBJECT);
    for (int i = 0; i < 3; i++) {
        enum pull_token t = pull_next(p);
        assert_int_equal(pull_key(p)[0], "abd"[i]);
        assert_int_equal(pull_skip(p, t), 0);
    }
    assert_int_equal(pull_next(p), PULL_OBJECT_END);
    assert_int_equal(pull_skip(p, PULL_ERROR), -1);
    pull_close(p);
    close(fd);
}

static void test_file_that_cannot_be_read(void **state) {
    (void)state;
    struct mg_error err = {0};
    struct pull *p = pull_open(-1, "f", &err);
    assert_int_equal(pull_next(p), PULL_ERROR);
    assert_int_equal(err.code, MG_ESYSTEM);
    assert_string_equal(err.text, "f: cannot read: Bad file descriptor");
    pull_close(p);
}

static void test_out_of_memory(void **state) {
    (void)state;
    struct mg_error err = {0};
    allocfail_arm(1);
    struct pull *p = pull_open(0, "f", &err);
    assert_int_equal(allocfail_disarm(), 1);
    assert_null(p);
    assert_int_equal(err.code, MG_ENOMEM);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_buffer_ends),
        cmocka_unit_test(test_mark),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_depth),
        cmocka_unit_test(test_long),
        cmocka_unit_test(test_chars),
        cmocka_unit_test(test_skip),
        cmocka_unit_test(test_file_that_cannot_be_read),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
