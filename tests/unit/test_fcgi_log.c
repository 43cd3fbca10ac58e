/* SPDX-License-Identifier: Apache-2.0
 * The log: form of a line, whole lines only, escapes, levels, reopening, and that a full
 * disk or a reader that has stopped costs lines and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../fcgi/log.h"

static char dir[64];
static struct config config;

static int make_dir(void **state) {
    (void)state;
    strcpy(dir, "/tmp/microgpt-log-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state) {
    char command[100];
    (void)state;
    snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command);
}

static void open_log(enum log_format format, enum log_level level, const char *name) {
    memset(&config, 0, sizeof config);
    config.log_format = (int)format;
    config.log_level = (int)level;
    snprintf(config.log_file, sizeof config.log_file, "%s/%s", dir, name);
    assert_int_equal(log_open(&config), 0);
}

/* What is in the file, and the file is empty again. */
static char *take(void) {
    static char text[20000];
    FILE *f = fopen(config.log_file, "r+");
    assert_non_null(f);
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    assert_int_equal(ftruncate(fileno(f), 0), 0);
    fclose(f);
    return text;
}

static void assert_matches(const char *text, const char *pattern) {
    regex_t re;
    assert_int_equal(regcomp(&re, pattern, REG_EXTENDED | REG_NOSUB), 0);
    if (regexec(&re, text, 0, NULL, 0)) fail_msg("no match:\n%s\n%s", text, pattern);
    regfree(&re);
}

#define TIME "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-6][0-9]\\.[0-9]{3}Z"

static void test_logfmt(void **state) {
    (void)state;
    open_log(LOG_LOGFMT, LOG_LEVEL_INFO, "a");
    log_name("worker-3");
    log_info("plain");
    assert_matches(take(),
                   "^time=" TIME " level=info from=worker-3 pid=[0-9]+ msg=plain\n$");
    log_warn("say \"%s\"\n\x01=\\", "hi");
    assert_matches(take(),
                   "level=warn .* msg=\"say \\\\\"hi\\\\\"\\\\n\\\\u0001=\\\\\\\\\"\n$");
    log_error("%s", "");
    assert_matches(take(), "msg=\"\"\n$");
    log_debug("not at this level");
    assert_string_equal(take(), "");
}

static void test_json(void **state) {
    (void)state;
    open_log(LOG_JSON, LOG_LEVEL_DEBUG, "j");
    log_debug("a \"quote\", a \\, a\ttab, \x7f and \xc3\xa9 and \xff\xc3(");
    json_error_t why;
    json_t *o = json_loads(take(), 0, &why);
    assert_non_null(o);
    assert_string_equal(json_string_value(json_object_get(o, "level")), "debug");
    assert_string_equal(json_string_value(json_object_get(o, "msg")),
                        "a \"quote\", a \\, a\ttab, \x7f and \xc3\xa9 and \?\?(");
    json_decref(o);
}

/* Too long: cut, and still one whole line of its format. */
static void test_long_lines(void **state) {
    char long_text[9000];
    (void)state;
    memset(long_text, '"', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    for (int format = LOG_LOGFMT; format <= LOG_JSON; format++) {
        open_log((enum log_format)format, LOG_LEVEL_INFO, "l");
        log_info("%s", long_text);
        char *line = take();
        size_t len = strlen(line);
        assert_in_range(len, 2000, 4096);
        assert_string_equal(line + len - (format == LOG_JSON ? 3 : 2),
                            format == LOG_JSON ? "\"}\n" : "\"\n");
        if (format == LOG_LOGFMT) continue;
        json_t *o = json_loads(line, 0, NULL);
        assert_non_null(o);
        json_decref(o);
    }
}

static void test_request_line(void **state) {
    (void)state;
    open_log(LOG_LOGFMT, LOG_LEVEL_INFO, "r");
    struct log_request r = {.id = "ab\ncd \xc3\xa9",
                            .endpoint = "chat",
                            .status = 200,
                            .prompt_tokens = 5,
                            .output_tokens = 7,
                            .dropped = 1,
                            .queued_ns = 1500,
                            .prefill_ns = 2000000,
                            .decode_ns = 1234567890,
                            .total_ns = 1236569390,
                            .reason = "stop"};
    log_request(&r);
    log_flush();
    assert_matches(
        take(), " msg=request id=ab\\?cd\\?\\?\\? endpoint=chat status=200 "
                "prompt_tokens=5 output_tokens=7 dropped=1 queued_ms=0.001 "
                "prefill_ms=2.000 decode_ms=1234.567 total_ms=1236.569 reason=stop\n$");
    open_log(LOG_JSON, LOG_LEVEL_WARN, "r");
    log_request(&r);
    log_flush();
    assert_string_equal(take(), "");
    r.status = 500;
    r.id = "";
    log_request(&r);
    log_flush();
    json_t *o = json_loads(take(), 0, NULL);
    assert_int_equal(json_integer_value(json_object_get(o, "status")), 500);
    assert_true(json_is_real(json_object_get(o, "decode_ms")));
    json_decref(o);
}

static void test_errno_is_kept(void **state) {
    (void)state;
    open_log(LOG_LOGFMT, LOG_LEVEL_INFO, "e");
    errno = EXDEV;
    log_info("x");
    assert_int_equal(errno, EXDEV);
    snprintf(config.log_file, sizeof config.log_file, "/dev/full");
    assert_int_equal(log_open(&config), 0);
    uint64_t before = log_dropped();
    errno = EXDEV;
    log_info("x");
    assert_int_equal(errno, EXDEV);
    assert_int_equal(log_dropped(), before + 1);
}

static void test_reopen(void **state) {
    char moved[100];
    struct stat st;
    (void)state;
    open_log(LOG_LOGFMT, LOG_LEVEL_INFO, "o");
    snprintf(moved, sizeof moved, "%s/o.1", dir);
    log_info("one");
    assert_int_equal(rename(config.log_file, moved), 0);
    log_info("two");
    assert_int_equal(log_reopen(), 0);
    log_info("three");
    assert_matches(take(), "^[^\n]*msg=three\n$");
    assert_int_equal(stat(moved, &st), 0);
    assert_true(st.st_size > 100);
    /* a file that cannot be opened: the log stays where it was */
    struct config bad = config;
    strcpy(bad.log_file, "/nonexistent/x");
    assert_int_equal(log_open(&bad), -1);
    assert_int_equal(errno, ENOENT);
    log_info("four");
    assert_matches(take(), "msg=four\n$");
    assert_int_equal(log_reopen(), 0);
}

/* Run body with fd 2 replaced by fd. */
static void with_stderr(int fd, void (*body)(void)) {
    int kept = dup(2);
    dup2(fd, 2);
    memset(&config, 0, sizeof config);
    config.log_level = LOG_LEVEL_INFO;
    int rc = log_open(&config);
    body();
    dup2(kept, 2);
    close(kept);
    assert_int_equal(rc, 0);
}

static void say_three(void) {
    log_info("one");
    log_warn("two \"and\" a half");
    log_error("three");
}

/* A socket that keeps the borders of writes shows that a line is one. */
static void test_one_write_each(void **state) {
    int s[2];
    char text[5000];
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s), 0);
    with_stderr(s[0], say_three);
    for (int i = 0; i < 3; i++) {
        ssize_t n = recv(s[1], text, sizeof text - 1, MSG_DONTWAIT);
        assert_true(n > 0);
        text[n] = 0;
        assert_ptr_equal(strchr(text, '\n'), text + n - 1);
    }
    assert_int_equal(recv(s[1], text, sizeof text, MSG_DONTWAIT), -1);
    close(s[0]);
    close(s[1]);
}

/* journald is told by JOURNAL_STREAM: priority first, no time. */
static void test_journald(void **state) {
    int s[2];
    char text[5000];
    struct stat st;
    (void)state;
    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, s), 0);
    assert_int_equal(fstat(s[0], &st), 0);
    snprintf(text, sizeof text, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    setenv("JOURNAL_STREAM", text, 1);
    with_stderr(s[0], say_three);
    unsetenv("JOURNAL_STREAM");
    static const char *const heads[] = {"<6>level=info", "<4>level=warn",
                                        "<3>level=error"};
    for (int i = 0; i < 3; i++) {
        assert_true(recv(s[1], text, sizeof text, MSG_DONTWAIT) > 20);
        assert_memory_equal(text, heads[i], strlen(heads[i]));
    }
    close(s[0]);
    close(s[1]);
}

static void say_much(void) {
    for (int i = 0; i < 2000; i++)
        log_info("a line of a few words for a pipe that nobody reads, number %d", i);
}

/* A reader that has stopped: lines are dropped and counted, the caller goes on (a
 * blocking write here would hang the test). A reader that has gone: the same. */
static void test_stuck_reader(void **state) {
    int p[2];
    char text[65536];
    (void)state;
    uint64_t before = log_dropped();
    assert_int_equal(pipe(p), 0);
    with_stderr(p[1], say_much);
    assert_true(log_dropped() > before + 500);
    assert_int_equal(fcntl(p[0], F_SETFL, O_NONBLOCK), 0);
    while (read(p[0], text, sizeof text) > 0) continue;
    before = log_dropped();
    with_stderr(p[1], say_three); /* it reads again: nothing is lost */
    assert_int_equal(log_dropped(), before);
    close(p[0]);
    with_stderr(p[1], say_three);
    assert_int_equal(log_dropped(), before + 3);
    close(p[1]);
}

/* A child counts its own lost lines: those of its parent were counted already. */
static void test_dropped_lines_are_not_inherited(void **state) {
    int status;
    (void)state;
    log_name("parent");
    snprintf(config.log_file, sizeof config.log_file, "/dev/full");
    assert_int_equal(log_open(&config), 0);
    log_info("x");
    uint64_t before = log_dropped();
    assert_true(before > 0);
    pid_t pid = fork();
    if (!pid) {
        log_name("child");
        int wrong = log_dropped() != 0;
        log_info("x");
        _exit(wrong || log_dropped() != 1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    log_name("main");
    assert_int_equal(log_dropped(), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_logfmt),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_request_line),
        cmocka_unit_test(test_errno_is_kept),
        cmocka_unit_test(test_reopen),
        cmocka_unit_test(test_one_write_each),
        cmocka_unit_test(test_journald),
        cmocka_unit_test(test_stuck_reader),
        cmocka_unit_test(test_dropped_lines_are_not_inherited),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
