/* SPDX-License-Identifier: Apache-2.0
 * The configuration: every key's default, units, the order of sources, and each error
 * with its whole text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../fcgi/config_keys.h"

static char file_path[64];

static int make_file(void **state) {
    (void)state;
    strcpy(file_path, "/tmp/microgpt-config-XXXXXX");
    int fd = mkstemp(file_path);
    return fd < 0 ? -1 : close(fd);
}

static int remove_file(void **state) {
    (void)state;
    return unlink(file_path);
}

static void write_file(const char *text, size_t len) {
    FILE *f = fopen(file_path, "w");
    assert_non_null(f);
    fwrite(text, 1, len, f);
    fclose(f);
}

static struct config config;
static struct config_action action;
static char error[512];

/* Load with up to four flags. */
static int load(const char *a, const char *b, const char *c, const char *d) {
    const char *argv[] = {"microgpt-fcgi", a, b, c, d, NULL};
    int argc = 1;
    while (argv[argc]) argc++;
    *error = 0;
    return config_load(&config, &action, argc, (char **)(uintptr_t)argv, error,
                       sizeof error);
}

static int load_text(const char *text) {
    write_file(text, strlen(text));
    return load("-c", file_path, NULL, NULL);
}

/* What -T prints; the caller frees. */
static char *dump(void) {
    static char *text; /* not on the stack: gcc takes it for what it points to */
    size_t len;
    FILE *f = open_memstream(&text, &len);
    config_dump(f);
    fclose(f);
    return text;
}

/* The value and origin that -T shows for a key. */
static void assert_dumped(const char *key, const char *value, const char *origin) {
    char want[200], *text = dump();
    snprintf(want, sizeof want, "%s = %s", key, value);
    char *line = strstr(text, want);
    assert_non_null(line);
    assert_true(line == text || line[-1] == '\n');
    line[strcspn(line, "\n")] = 0;
    assert_string_equal(strstr(line, "# ") + 2, origin);
    free(text);
}

static void test_defaults(void **state) {
    (void)state;
    assert_int_equal(load(NULL, NULL, NULL, NULL), 0);
    assert_string_equal(config.listen, "unix:/run/microgpt/fcgi.sock");
    assert_int_equal(config.socket_mode, 0660);
    assert_string_equal(config.socket_group, "");
    assert_int_equal(config.backlog, 1024);
    assert_string_equal(config.model_dir, "./output");
    assert_in_range(config.workers, 1, 128);
    assert_int_equal(config.lanes, 0);
    assert_int_equal(config.queue, 128);
    assert_int_equal(config.chunk, 96);
    assert_int_equal(config.kv, MG_KV_F32);
    assert_int_equal(config.kernels, MG_KERNELS_AUTO);
    assert_int_equal(config.timeout_ms, 30000);
    assert_int_equal(config.send_timeout_ms, 5000);
    assert_int_equal(config.max_body, 4 << 20);
    assert_int_equal(config.max_json, 32 << 20);
    assert_int_equal(config.max_text, 64 << 20);
    assert_int_equal(config.parked, 64);
    assert_int_equal(config.max_requests, 0);
    assert_int_equal(config.drain_timeout_ms, 40000);
    assert_int_equal(config.watchdog_ms, 30000);
    assert_int_equal(config.log_level, LOG_LEVEL_INFO);
    assert_int_equal(config.log_format, LOG_LOGFMT);
    assert_string_equal(config.log_file, "");
    assert_string_equal(config.metrics, "");
    assert_int_equal(config.compat, 0);
    assert_int_equal(config_n_keys, 25);
    assert_dumped("workers", "", "default, auto");
    assert_dumped("timeout", "30s", "default");
}

/* What -T prints is a configuration file with the same effect. */
static void test_dump_is_a_file(void **state) {
    (void)state;
    assert_int_equal(
        load_text("log_file = \"/a b#c\"\nmax_json = 40000\nsocket_mode = 0600\n"
                  "watchdog = off\ntimeout=1500ms\nkv=f16\ncompat = 0.5\n"
                  "max_requests=12\nlisten = [::1]:9000\nworkers=3\n"),
        0);
    struct config before = config;
    char *text = dump();
    assert_int_equal(load_text(text), 0);
    free(text);
    assert_memory_equal(&before, &config, sizeof config);
    assert_string_equal(config.log_file, "/a b#c");
    assert_int_equal(config.watchdog_ms, 0);
    assert_int_equal(config.compat, 1);
}

static void test_order_of_sources(void **state) {
    char origin[100];
    (void)state;
    setenv("MODEL_DIR", "/env/old", 1);
    assert_int_equal(load_text("model_dir = /file\nqueue = 7\n\n# c\nchunk = 3 # c\n"),
                     0);
    assert_string_equal(config.model_dir, "/env/old");
    assert_dumped("model_dir", "/env/old", "environment MODEL_DIR");
    snprintf(origin, sizeof origin, "%s:5", file_path);
    assert_dumped("chunk", "3", origin);
    setenv("MICROGPT_MODEL_DIR", "/env/new", 1);
    setenv("MICROGPT_QUEUE", "8", 1);
    assert_int_equal(load("-c", file_path, "--chunk=4", "--log-format=json"), 0);
    assert_string_equal(config.model_dir, "/env/new");
    assert_int_equal(config.queue, 8);
    assert_int_equal(config.chunk, 4);
    assert_int_equal(config.log_format, LOG_JSON);
    assert_dumped("chunk", "4", "flag --chunk");
    assert_int_equal(load("-m", "/flag", "--queue", "9"), 0);
    assert_string_equal(config.model_dir, "/flag");
    assert_int_equal(config.queue, 9);
    setenv("MICROGPT_QUEUE", "many", 1);
    assert_int_equal(load(NULL, NULL, NULL, NULL), EX_CONFIG);
    assert_string_equal(error,
                        "environment MICROGPT_QUEUE: queue: \"many\" is no whole number "
                        "from 0 to 65535");
    unsetenv("MODEL_DIR");
    unsetenv("MICROGPT_MODEL_DIR");
    unsetenv("MICROGPT_QUEUE");
}

static void test_actions(void **state) {
    (void)state;
    assert_int_equal(load("-tTf", "-c", "/dev/null", NULL), 0);
    assert_true(action.test && action.dump && !action.help && !action.version);
    assert_int_equal(load("--help", "-V", NULL, NULL), 0);
    assert_true(action.help && action.version && !action.test);
    assert_int_equal(load("-n3", "-s", "*:80", NULL), 0);
    assert_int_equal(config.workers, 3);
    assert_string_equal(config.listen, "*:80");
}

static const struct {
    const char *line, *error; /* the error follows "FILE:1: " */
} bad_lines[] = {
    {"nonsense", "\"nonsense\" is not of the form key = value"},
    {"listn = x", "unknown key \"listn\" (microgpt-fcgi --help lists them)"},
    {"= 3", "unknown key \"\" (microgpt-fcgi --help lists them)"},
    {"work\x1b[1mers = 3",
     "unknown key \"work?[1mers\" (microgpt-fcgi --help lists them)"},
    {"queue =", "queue: \"\" is no whole number from 0 to 65535"},
    {"queue = -1", "queue: \"-1\" is no whole number from 0 to 65535"},
    {"queue = 1.5", "queue: \"1.5\" is no whole number from 0 to 65535"},
    {"queue = 0x10", "queue: \"0x10\" is no whole number from 0 to 65535"},
    {"queue = 99999999999999999999",
     "queue: \"99999999999999999999\" is no whole number from 0 to 65535"},
    {"workers = 0", "workers: \"0\" is no whole number from 1 to 128, or auto"},
    {"workers = 129", "workers: \"129\" is no whole number from 1 to 128, or auto"},
    {"socket_mode = 0680", "socket_mode: \"0680\" is no octal mode from 0 to 0777"},
    {"socket_mode = 1777", "socket_mode: \"1777\" is no octal mode from 0 to 0777"},
    {"timeout = 5d", "timeout: \"5d\" is no time (30s, 500ms, 2m) from 100ms to 24h"},
    {"timeout = 99ms", "timeout: \"99ms\" is no time (30s, 500ms, 2m) from 100ms to 24h"},
    {"timeout = 9223372036854775807h",
     "timeout: \"9223372036854775807h\" is no time (30s, 500ms, 2m) from 100ms to 24h"},
    {"watchdog = never",
     "watchdog: \"never\" is no time (30s, 500ms, 2m) from 1s to 24h, or off"},
    {"max_body = 4t", "max_body: \"4t\" is no size (4m, 256k) from 1k to 1g"},
    {"kv = f64", "kv: \"f64\" is not one of: f32 f16"},
    {"log_level = inf", "log_level: \"inf\" is not one of: error warn info debug"},
    {"compat = 0.4", "compat: \"0.4\" is not one of: none 0.5 0.6"},
    {"model_dir = ", "model_dir: \"\" has 0 bytes, allowed are 1 to 4095"},
    {"log_file = \"a", "log_file: quotes go around the whole value"},
    {"log_file = \"a\" b", "log_file: quotes go around the whole value"},
    {"listen = /run/x.sock",
     "listen: \"/run/x.sock\" is no address: unix:/path (at most 107 bytes), "
     "host:port, [v6]:port or *:port"},
};

static void test_bad_lines(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_lines / sizeof *bad_lines; i++) {
        char want[600];
        assert_int_equal(load_text(bad_lines[i].line), EX_CONFIG);
        snprintf(want, sizeof want, "%s:1: %s", file_path, bad_lines[i].error);
        assert_string_equal(error, want);
    }
}

static const char *const addresses[][2] = {
    /* good, bad */
    {"unix:/run/a", "unix:"},         {"unix:relative", "9000"},
    {"127.0.0.1:9000", ":9000"},      {"localhost:1", "localhost:0"},
    {"[::1]:65535", "[::1]"},         {"*:9000", "[::1]:65536"},
    {"[fe80::1]:1", "::1:9000"},      {"a.b.c:22", "a.b.c: 22"},
    {"10.0.0.1:80", "10.0.0.1:http"}, {"[::]:80", "[]:80"},
};

static void test_addresses(void **state) {
    char flag[200];
    (void)state;
    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++) {
        assert_int_equal(load("-s", addresses[i][0], NULL, NULL), 0);
        assert_int_equal(load("-s", addresses[i][1], NULL, NULL), EX_USAGE);
    }
    memset(flag, 'a', sizeof flag);
    memcpy(flag, "unix:/", 6);
    flag[5 + 107] = 0;
    assert_int_equal(load("-s", flag, NULL, NULL), 0);
    flag[5 + 107] = 'a';
    flag[5 + 108] = 0;
    assert_int_equal(load("-s", flag, NULL, NULL), EX_USAGE);
}

/* A load that fails leaves everything as it was. */
static void test_failed_load_changes_nothing(void **state) {
    (void)state;
    assert_int_equal(load_text("queue = 5\nchunk = 6\n"), 0);
    struct config before = config;
    char *text = dump();
    assert_int_equal(load_text("queue = 9\nqueue = 10\n"), EX_CONFIG);
    assert_non_null(strstr(error, ":2: queue is already set on line 1"));
    char *after = dump();
    assert_memory_equal(&before, &config, sizeof config);
    assert_string_equal(text, after);
    free(text);
    free(after);
}

static void test_bad_files(void **state) {
    (void)state;
    assert_int_equal(load("-c", "/nonexistent/a.conf", NULL, NULL), EX_CONFIG);
    assert_string_equal(error, "/nonexistent/a.conf: No such file or directory");
    assert_int_equal(load("-c", "/tmp", NULL, NULL), EX_CONFIG);
    assert_string_equal(error, "/tmp: Is a directory");
    write_file("queue = 1\nchunk\0 = 2\n", 21);
    assert_int_equal(load("-c", file_path, NULL, NULL), EX_CONFIG);
    assert_non_null(strstr(error, ":2: a NUL byte"));
}

static void test_bad_flags(void **state) {
    (void)state;
    static const char *const bad[][3] = {
        {"-x", NULL, "unknown option -x (see --help)"},
        {"-n", NULL, "-n needs a value"},
        {"-n", "0", "workers: \"0\" is no whole number from 1 to 128, or auto"},
        {"--bogus=1", NULL, "unknown option --bogus (see --help)"},
        {"--bogus", "1", "unknown option --bogus (see --help)"},
        {"--queue", NULL, "--queue needs a value"},
        {"serve", NULL, "\"serve\" is not expected here (see --help)"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(load(bad[i][0], bad[i][1], NULL, NULL), EX_USAGE);
        assert_string_equal(error, bad[i][2]);
    }
}

/* Help names every key. */
static void test_usage(void **state) {
    (void)state;
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    config_usage(f);
    fclose(f);
    for (int i = 0; i < config_n_keys; i++)
        assert_non_null(strstr(text, config_keys[i].name));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_dump_is_a_file),
        cmocka_unit_test(test_order_of_sources),
        cmocka_unit_test(test_actions),
        cmocka_unit_test(test_bad_lines),
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_failed_load_changes_nothing),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_bad_flags),
        cmocka_unit_test(test_usage),
    };
    return cmocka_run_group_tests(tests, make_file, remove_file);
}
