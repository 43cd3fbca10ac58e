/* SPDX-License-Identifier: Apache-2.0
 * The counters: sums over living and dead processes in memory and in a file, slots that
 * are taken again, gauges that vanish with their worker, and the two renderings.
 * Processes here are real. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "../../fcgi/clock.h"
#include "../../fcgi/metrics_table.h"

static const struct mg_model_info info = {.n_params = 12345,
                                          .has_chat = 1,
                                          .block_size = 64,
                                          .dtype = "F16",
                                          .tokenizer = "char",
                                          .kernels = "plain"};
static char error[300];

/* Run body in a process of its own; it is as if the service started anew there. */
static void in_process(void (*body)(void)) {
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) {
        setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failure ends it here */
        body();
        exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* The value of a sample line in the rendering; -1: no such line. */
static double sample(const char *name) {
    size_t len, n = strlen(name);
    char *text = metrics_render(&len);
    double value = -1;
    assert_non_null(text);
    assert_int_equal(strlen(text), len);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        if (!strncmp(line, name, n) && line[n] == ' ') value = strtod(line + n + 1, NULL);
    free(text);
    return value;
}

#define SAMPLE(name) sample("microgpt_" name)

static void serve_a_little(void) {
    metrics_worker(WORKER_READY, 16, 128, &info, "m\"1\\\xc3\xa9", "0123456789abcdef",
                   "00112233445566778899aabbccddeeff");
    metrics_gauges(3, 2, 5);
    metrics_request(EP_CHAT, 200, 10000); /* a bound belongs to its bucket */
    metrics_request(EP_CHAT, 418, 25001);
    metrics_tokens(10, 20);
    metrics_first_token(2000000);
    metrics_token_gap(15000, 7);
    metrics_token_gap(1, 0);
    metrics_cancelled();
    metrics_shed();
}

/* Everything is there with 0 before anything happened, also without any table. */
static void check_zeros(void) {
    assert_true(SAMPLE("requests_total{endpoint=\"generate\",status=\"200\"}") == 0);
    assert_true(SAMPLE("requests_total{endpoint=\"other\",status=\"other\"}") == 0);
    assert_true(SAMPLE("request_seconds_bucket{endpoint=\"chat\",le=\"1e-05\"}") == 0);
    assert_true(SAMPLE("first_token_seconds_bucket{le=\"+Inf\"}") == 0);
    assert_true(SAMPLE("token_seconds_count") == 0);
    assert_true(SAMPLE("reloads_total{result=\"failed\"}") == 0);
    assert_true(SAMPLE("worker_restarts_total") == 0);
    assert_true(SAMPLE("lanes_busy") == 0);
    assert_true(SAMPLE("metrics_shared") == 0);
}

static void check_buckets(void) {
    serve_a_little();
    assert_true(SAMPLE("requests_total{endpoint=\"chat\",status=\"200\"}") == 1);
    assert_true(SAMPLE("requests_total{endpoint=\"chat\",status=\"other\"}") == 1);
    assert_true(SAMPLE("request_seconds_bucket{endpoint=\"chat\",le=\"1e-05\"}") == 1);
    assert_true(SAMPLE("request_seconds_bucket{endpoint=\"chat\",le=\"2.5e-05\"}") == 1);
    assert_true(SAMPLE("request_seconds_bucket{endpoint=\"chat\",le=\"5e-05\"}") == 2);
    assert_true(SAMPLE("request_seconds_bucket{endpoint=\"chat\",le=\"100\"}") == 2);
    assert_true(SAMPLE("request_seconds_sum{endpoint=\"chat\"}") == 0.000035001);
    assert_true(SAMPLE("token_seconds_count") == 7);
    assert_true(SAMPLE("token_seconds_sum") == 0.000105);
    metrics_first_token(200 * NS_PER_S);
    assert_true(SAMPLE("first_token_seconds_bucket{le=\"100\"}") == 1);
    assert_true(SAMPLE("first_token_seconds_bucket{le=\"+Inf\"}") == 2);
    metrics_first_token(-5); /* a clock that went wrong does not */
    assert_true(SAMPLE("first_token_seconds_bucket{le=\"1e-05\"}") == 1);
    assert_true(
        SAMPLE("model_info{model=\"m\\\"1\\\\__\",digest=\"0123456789abcdef\","
               "fingerprint=\"00112233445566778899aabbccddeeff\","
               "dtype=\"F16\",tokenizer=\"char\",kernels=\"plain\",chat=\"true\"}") == 1);
}

static void test_alone(void **state) {
    (void)state;
    in_process(check_zeros);
    in_process(check_buckets);
}

/* A child of a master: serves a little and waits to be killed. */
static pid_t start_worker(int slot) {
    int ready[2];
    char byte;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (!pid) {
        metrics_use_slot(slot);
        serve_a_little();
        if (write(ready[1], "R", 1) != 1) abort();
        for (;;) pause();
    }
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return pid;
}

static void end_worker(pid_t pid) {
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void check_master(const struct config *c) {
    assert_int_equal(metrics_create(c, error, sizeof error), 0);
    int a = metrics_slot_begin(1, 1), b = metrics_slot_begin(2, 1);
    assert_true(a >= 0 && b >= 0 && a != b);
    assert_int_equal(metrics_slot_state(a), WORKER_STARTING);
    pid_t pa = start_worker(a), pb = start_worker(b);
    assert_int_equal(metrics_slot_state(a), WORKER_READY);
    assert_true(SAMPLE("requests_total{endpoint=\"chat\",status=\"200\"}") == 2);
    assert_true(SAMPLE("lanes") == 32);
    assert_true(SAMPLE("lanes_busy") == 6);
    assert_true(SAMPLE("workers{state=\"ready\"}") == 2);
    end_worker(pa);
    metrics_slot_end(a);
    metrics_restart();
    assert_true(SAMPLE("requests_total{endpoint=\"chat\",status=\"200\"}") == 2);
    assert_true(SAMPLE("lanes_busy") == 3);
    assert_true(SAMPLE("workers{state=\"ready\"}") == 1);
    assert_true(SAMPLE("worker_restarts_total") == 1);
    int again = metrics_slot_begin(1, 2);
    assert_int_equal(again, a); /* worker 1 goes on where worker 1 was */
    pa = start_worker(again);
    assert_true(SAMPLE("output_tokens_total") == 60);
    metrics_reload(1);
    metrics_reload(0);
    assert_true(SAMPLE("reloads_total{result=\"ok\"}") == 1);
    end_worker(pa);
    end_worker(pb);
    metrics_slot_end(a);
    metrics_slot_end(b);
    assert_true(SAMPLE("connections") == 0);
    assert_true(SAMPLE("output_tokens_total") == 60);
}

static void master_in_memory(void) {
    struct config c = {.workers = 2};
    check_master(&c);
    assert_true(SAMPLE("metrics_shared") == 1);
    for (int i = 1; i <= METRICS_SLOTS; i++) assert_true(metrics_slot_begin(i, 1) >= 0);
    assert_int_equal(metrics_slot_begin(1, 1), -1);
}

static void test_master(void **state) {
    (void)state;
    in_process(master_in_memory);
}

/* ---- the file ---- */

static struct config with_file;

static int make_file(void **state) {
    (void)state;
    strcpy(with_file.metrics, "/tmp/microgpt-metrics-XXXXXX");
    int fd = mkstemp(with_file.metrics);
    return fd < 0 ? -1 : close(fd); /* empty: as good as new */
}

static int remove_file(void **state) {
    (void)state;
    return unlink(with_file.metrics);
}

/* A worker without our master; ready when this returns. */
static pid_t start_lone_worker(void) {
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (!pid) {
        int slot;
        if (metrics_attach(&with_file, &slot, error, sizeof error)) abort();
        serve_a_little();
        if (write(ready[1], "R", 1) != 1) abort();
        for (;;) pause();
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void attach(void) {
    int slot;
    assert_int_equal(metrics_attach(&with_file, &slot, error, sizeof error), 0);
}

static void look_at_two(void) {
    attach();
    assert_true(SAMPLE("requests_total{endpoint=\"chat\",status=\"200\"}") == 2);
    assert_true(SAMPLE("lanes_busy") == 6);
    assert_true(SAMPLE("workers{state=\"ready\"}") == 2);
    assert_true(SAMPLE("workers{state=\"starting\"}") == 1); /* that is us */
    assert_true(SAMPLE("metrics_shared") == 1);
}

static void look_at_one(void) {
    attach();
    assert_true(SAMPLE("requests_total{endpoint=\"chat\",status=\"200\"}") == 2);
    assert_true(SAMPLE("lanes_busy") == 3);
    assert_true(SAMPLE("workers{state=\"ready\"}") == 1);
}

static void look_at_none(void) {
    attach();
    assert_true(SAMPLE("requests_total{endpoint=\"chat\",status=\"200\"}") == 3);
    assert_true(SAMPLE("lanes") == 0);
    for (int i = 4; i < METRICS_SLOTS; i++) /* slots of the dead were taken again */
        assert_int_equal(metrics_table()->slot[i].tokens_in, 0);
}

static void take_first_slot(void) {
    int slot;
    assert_int_equal(metrics_attach(&with_file, &slot, error, sizeof error), 0);
    assert_int_equal(slot, 0);
}

static void master_with_file(void) {
    check_master(&with_file);
    in_process(take_first_slot); /* it was given back */
}

static void test_file(void **state) {
    (void)state;
    pid_t a = start_lone_worker(), b = start_lone_worker();
    in_process(look_at_two);
    end_worker(a);
    in_process(look_at_one);
    a = start_lone_worker();
    end_worker(a);
    end_worker(b);
    in_process(look_at_none);
    assert_int_equal(truncate(with_file.metrics, 0), 0);
    in_process(master_with_file);
    in_process(look_at_none); /* a master's workers, three as well, are counted on */
}

static void check_bad_file(void) {
    int slot;
    FILE *f = fopen(with_file.metrics, "w");
    fputs("something else", f);
    fclose(f);
    assert_int_equal(metrics_attach(&with_file, &slot, error, sizeof error), EX_CONFIG);
    assert_non_null(strstr(error, " is not a counter file of this version: remove it"));
    assert_int_equal(truncate(with_file.metrics, sizeof(struct table)), 0);
    assert_int_equal(metrics_create(&with_file, error, sizeof error), EX_CONFIG);
    struct config c = {.metrics = "/nonexistent/metrics"};
    assert_int_equal(metrics_create(&c, error, sizeof error), EX_CONFIG);
    assert_string_equal(
        error, "metrics: may not open /nonexistent/metrics: No such file or directory");
    assert_int_equal(truncate(with_file.metrics, 0), 0);
}

static void test_bad_file(void **state) {
    (void)state;
    in_process(check_bad_file);
}

/* ---- JSON ---- */

static void check_status(void) {
    struct config c = {0};
    size_t len;
    assert_int_equal(metrics_create(&c, error, sizeof error), 0);
    metrics_use_slot(metrics_slot_begin(7, 3));
    char *text = metrics_status(&len);
    json_t *o = json_loadb(text, len, 0, NULL);
    assert_true(json_is_null(json_object_get(o, "model"))); /* nobody has one yet */
    json_decref(o);
    free(text);
    serve_a_little();
    text = metrics_status(&len);
    assert_int_equal(text[len - 1], '\n');
    o = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    assert_non_null(o);
    int number, pid, generation, busy, ready, requests;
    const char *version, *model, *digest, *worker_state;
    assert_int_equal(
        json_unpack(o, "{s:s, s:{s:s, s:s}, s:{s:i}, s:i, s:[{s:i, s:i, s:i, s:i, s:s}]}",
                    "version", &version, "model", "name", &model, "digest", &digest,
                    "workers", "ready", &ready, "requests_total", &requests, "worker",
                    "worker", &number, "pid", &pid, "generation", &generation,
                    "lanes_busy", &busy, "state", &worker_state),
        0);
    assert_string_equal(version, MG_VERSION);
    assert_string_equal(model, "m\"1\\__");
    assert_string_equal(digest, "0123456789abcdef");
    assert_string_equal(worker_state, "ready");
    assert_int_equal(number * 100 + generation * 10 + busy, 733);
    assert_int_equal(pid, getpid());
    assert_int_equal(ready, 1);
    assert_int_equal(requests, 2);
    json_decref(o);
    free(text);
}

static int fail_at; /* the allocation of Jansson's that fails */

static void *failing_malloc(size_t n) {
    return fail_at-- == 0 ? NULL : malloc(n);
}

/* Jansson's memory may be bounded: NULL then, and nothing is left behind (the sanitizer
 * looks). */
static void check_status_without_memory(void) {
    size_t len;
    serve_a_little();
    json_set_alloc_funcs(failing_malloc, free);
    int failures = 0;
    for (int i = 0;; i++) {
        fail_at = i;
        char *text = metrics_status(&len);
        free(text);
        if (fail_at >= 0) break;
        failures += !text;
    }
    assert_true(failures > 20);
}

static void test_status(void **state) {
    (void)state;
    in_process(check_status);
    in_process(check_status_without_memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_master),
        cmocka_unit_test_setup_teardown(test_file, make_file, remove_file),
        cmocka_unit_test_setup_teardown(test_bad_file, make_file, remove_file),
        cmocka_unit_test(test_status),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
