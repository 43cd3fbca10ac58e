/* SPDX-License-Identifier: Apache-2.0
 * Requests through real sockets and a real checkpoint, with memory that runs out at every
 * point in turn: malloc's (allocfail.h) and the arena's. Each ends with an answer or a
 * closed connection, every lane and slot is free again, and nothing leaks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../fcgi/body.h"
#include "../../fcgi/log.h"
#include "../../fcgi/serve.h"
#include "../../fcgi/startup.h"
#include "allocfail.h"

static struct config config = {
    .model_dir = "tests/golden/chat-small",
    .lanes = 2,
    .queue = 2,
    .chunk = 16,
    .workers = 1,
    .timeout_ms = 30000,
    .send_timeout_ms = 5000,
    .max_body = 1 << 20,
    .max_json = 1 << 20,
    .max_text = 1 << 20,
    .parked = 4,
    .log_level = LOG_LEVEL_ERROR,
};
static struct server server;
static int listener;
static struct sockaddr_un address = {.sun_family = AF_UNIX};

static int open_server(void **state) {
    char text[512];
    (void)state;
    snprintf(address.sun_path, sizeof address.sun_path, "/tmp/microgpt-test-%d",
             getpid());
    listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) < 0) return -1;
    if (listen(listener, 8) < 0 || log_open(&config) < 0) return -1;
    return startup_open(&server, &config, text, sizeof text);
}

static int close_server(void **state) {
    (void)state;
    startup_close(&server);
    close(listener);
    unlink(address.sun_path);
    return 0;
}

enum { RECORD = 32 << 10 };

/* ---- a web server of a few lines --------------------------------------------------- */

static size_t put_record(char *p, int type, const char *content, size_t n) {
    char head[8] = {1, (char)type, 0, 1, (char)(n >> 8), (char)n, 0, 0};
    memcpy(p, head, 8);
    if (n) memcpy(p + 8, content, n);
    return 8 + n;
}

static size_t put_pair(char *p, const char *name, const char *value) {
    size_t a = strlen(name), b = strlen(value);
    p[0] = (char)a;
    p[1] = (char)b;
    memcpy(p + 2, name, a);
    memcpy(p + 2 + a, value, b);
    return 2 + a + b;
}

struct question {
    const char *method, *path;
    const char *body;
};

/* Connect and send a whole request; the client's descriptor. */
static int send_request(const struct question *a) {
    static char out[1 << 17], params[1024];
    size_t n = 0, k = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    k += put_pair(params + k, "REQUEST_METHOD", a->method);
    k += put_pair(params + k, "SCRIPT_NAME", a->path);
    k += put_pair(params + k, "CONTENT_TYPE", "application/json");
    n += put_record(out + n, 1, "\0\1\0\0\0\0\0\0", 8);
    n += put_record(out + n, 4, params, k);
    n += put_record(out + n, 4, NULL, 0);
    for (size_t at = 0, len = strlen(a->body); at < len; at += RECORD) {
        size_t part = len - at < RECORD ? len - at : RECORD;
        n += put_record(out + n, 5, a->body + at, part);
    }
    n += put_record(out + n, 5, NULL, 0);
    assert_int_equal(write(fd, out, n), n);
    return fd;
}

/* The three-digit status of the answer, 0 for a connection closed without one. The server
 * has ended it: nothing here waits. */
static int read_status(int fd, char *text, size_t size) {
    size_t n = 0;
    for (ssize_t k; n < size - 1; n += (size_t)k)
        if ((k = recv(fd, text + n, size - 1 - n, MSG_DONTWAIT)) <= 0) break;
    close(fd);
    text[n] = '\0';
    char *status = n > 16 ? memmem(text, n, "Status: ", 8) : NULL;
    return status ? (int)strtol(status + 8, NULL, 10) : 0;
}

/* Records hold NUL: strstr would end at the first. */
static char *find(char *text, size_t size, const char *what) {
    return memmem(text, size, what, strlen(what));
}

static void run_to_end(void) {
    for (int i = 0; i < 10000 && conn_count(server.pool) > 0; i++) {
        serve_tick(&server);
        serve_step(&server);
        for (int j = conn_count(server.pool) - 1; j >= 0; j--)
            if (conn_at(server.pool, j)->owed)
                conn_flush(conn_at(server.pool, j), server.now_ns);
    }
    assert_int_equal(conn_count(server.pool), 0);
    assert_int_equal(server.engine.queue.n_live, 0);
    assert_int_equal(server.engine.queue.n_busy, 0);
    assert_int_equal(server.engine.queue.n_waiting, 0);
    assert_int_equal(server.engine.queue.pending, 0);
}

/* A request that has arrived, taken by the server; the client's descriptor. */
static int take_one(const struct question *a) {
    struct conn *c;
    int fd = send_request(a);
    serve_tick(&server);
    assert_int_equal(conn_accept(server.pool, listener, server.now_ns, &c), 1);
    assert_int_equal(conn_read(c, server.now_ns), 1);
    serve_request(&server, c);
    return fd;
}

/* Serve one request; from the moment it is open the fail_at-th allocation fails (0:
 * none). *failed: one did. */
static int serve_one(const struct question *a, long fail_at, int *failed, char *text,
                     size_t size) {
    struct conn *c;
    int fd = send_request(a);
    serve_tick(&server);
    assert_int_equal(conn_accept(server.pool, listener, server.now_ns, &c), 1);
    assert_int_equal(conn_read(c, server.now_ns), 1);
    allocfail_arm(fail_at);
    serve_request(&server, c);
    run_to_end();
    *failed = allocfail_disarm();
    return read_status(fd, text, size);
}

static const struct question asks[] = {
    {"POST", "/microgpt/v1/generate", "{\"num_samples\":5,\"temperature\":1}"},
    {"POST", "/microgpt/v1/generate", "{\"num_samples\":3,\"stream\":true}"},
    {"POST", "/microgpt/v1/chat",
     "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}]}"},
    {"POST", "/microgpt/v1/chat",
     "{\"messages\":[{\"role\":\"user\",\"content\":\"hello\"}],\"stream\":true}"},
    {"POST", "/microgpt/v1/chat", "{\"seed\":18446744073709551615,\"messages\":7}"},
    {"POST", "/microgpt/v1/generate", "{"},
    {"GET", "/health", ""},
    {"GET", "/metrics", ""},
    {"GET", "/status", ""},
};
enum { N_ASKS = sizeof asks / sizeof *asks };

static void malloc_fails_anywhere(void **state) {
    static char text[1 << 17], want[1 << 17];
    int failed, failures = 0;
    (void)state;
    for (int i = 0; i < N_ASKS; i++) {
        int good = serve_one(&asks[i], 0, &failed, want, sizeof want);
        assert_int_equal(good, i == 4 ? 422 : i == 5 ? 400 : 200);
        for (long n = 1;; n++) {
            int status = serve_one(&asks[i], n, &failed, text, sizeof text);
            if (!failed) break;
            failures++;
            assert_true(status == good || status == 500 || status == 503 || status == 0);
        }
        assert_int_equal(serve_one(&asks[i], 0, &failed, text, sizeof text), good);
        if (i < 6) assert_string_equal(text, want);
    }
    assert_true(failures > 5); /* the pages of operators are the ones that use malloc */
}

static void the_arena_ends_anywhere(void **state) {
    static char text[1 << 17];
    int statuses[600] = {0}, failed;
    (void)state;
    for (int i = 0; i < N_ASKS - 2; i++) {
        for (size_t size = 64; size < 12288; size += 32) {
            size_t room = size % 64 ? 4096 : 0; /* for an error's reply, or not even
                                                   that */
            assert_int_equal(body_init(size, room), 0);
            int status = serve_one(&asks[i], 0, &failed, text, sizeof text);
            assert_true(status < 600);
            statuses[status]++;
        }
    }
    assert_true(statuses[200] > 100);
    assert_true(statuses[413] > 20);
    assert_true(statuses[500] > 0);
    assert_int_equal(body_init(1 << 20, 1 << 20), 0);
    assert_int_equal(serve_one(&asks[0], 0, &failed, text, sizeof text), 200);
}

static void start_up_fails_anywhere(void **state) {
    int refused = 0;
    (void)state;
    for (long n = 1;; n++) {
        struct server s = {0};
        char text[512] = "";
        allocfail_arm(n);
        int rc = startup_open(&s, &config, text, sizeof text);
        int failed = allocfail_disarm();
        if (rc)
            assert_true(*text != '\0');
        else
            startup_close(&s);
        refused += rc != 0;
        if (!failed) break;
    }
    assert_true(refused > 20);
}

/* A lane falls free between two steps while others wait for it: who comes just then does
 * not pass them, nor fill the queue beyond its end. */
static void the_queue_ends_where_it_should(void **state) {
    const struct question fifty = {"POST", "/microgpt/v1/generate",
                                   "{\"num_samples\":50}"};
    struct queue *q = &server.engine.queue;
    int late = 0, fds[4], refused[1000];
    char text[1024];
    (void)state;
    for (int i = 0; i < 3; i++) fds[i] = take_one(&fifty);
    while (q->n_waiting == 2) serve_step(&server); /* the first one has both lanes */
    fds[3] = take_one(&fifty);
    assert_int_equal(q->n_live, 4); /* two lanes and two waiting: all there is room for */
    while (q->n_live == 4 && late < 1000) {
        serve_step(&server);
        if (q->n_busy == q->n_lanes || q->n_live < 4) continue;
        refused[late++] = take_one(&fifty);
        assert_int_equal(q->n_live, 4);
        assert_int_equal(q->n_busy, q->n_lanes);
    }
    assert_true(late > 10);
    run_to_end();
    for (int i = 0; i < late; i++)
        assert_int_equal(read_status(refused[i], text, sizeof text), 503);
    for (int i = 0; i < 4; i++)
        assert_int_equal(read_status(fds[i], text, sizeof text), 200);
}

/* ---- long conversations ------------------------------------------------------------ */

/* A chat of n bytes of content, in static memory. */
static struct question long_chat(size_t n, const char *more) {
    static char body[100000];
    size_t at = (size_t)snprintf(body, sizeof body,
                                 "{\"messages\":[{\"role\":\"user\",\"content\":\"");
    assert_true(at + n + 100 < sizeof body);
    for (size_t i = 0; i < n; i++) body[at++] = "hello there "[i % 12];
    snprintf(body + at, sizeof body - at, "\"}]%s}", more);
    return (struct question){"POST", "/microgpt/v1/chat", body};
}

/* Its last words are what the model reads, so a short one that ends alike, dropped tokens
 * aside, has the same reply. */
static void a_long_chat_is_encoded_in_slices(void **state) {
    struct queue *q = &server.engine.queue;
    char sliced[4096] = "", at_once[4096] = "";
    int turns = 0;
    (void)state;
    struct question a = long_chat(60000, "");
    int fd = take_one(&a);
    assert_int_equal(q->n_encoding, 1);
    assert_int_equal(q->n_busy, 0);
    for (; q->n_encoding; turns++) serve_step(&server);
    assert_int_equal(turns, 4);
    assert_int_equal(q->budget.used, 0);
    run_to_end();
    assert_int_equal(read_status(fd, sliced, sizeof sliced), 200);
    a = long_chat(12000, "");
    fd = take_one(&a);
    assert_int_equal(q->n_encoding, 0);
    run_to_end();
    assert_int_equal(read_status(fd, at_once, sizeof at_once), 200);
    char *x = find(sliced, sizeof sliced, "\"content\""),
         *y = find(at_once, sizeof at_once, "\"content\"");
    assert_non_null(x);
    assert_non_null(y);
    assert_memory_equal(x, y, (size_t)(strchr(x + 12, '"') - x));
}

static void a_short_chat_passes_a_long_one(void **state) {
    struct queue *q = &server.engine.queue;
    char text[4096] = "";
    (void)state;
    struct question a = long_chat(90000, "");
    int slow = take_one(&a), fast = take_one(&asks[2]);
    assert_int_equal(q->n_encoding, 1);
    while (q->n_busy) serve_step(&server);
    assert_int_equal(read_status(fast, text, sizeof text), 200);
    run_to_end();
    assert_int_equal(read_status(slow, text, sizeof text), 200);
}

static void a_client_leaves_while_its_chat_is_encoded(void **state) {
    struct queue *q = &server.engine.queue;
    (void)state;
    for (int begun = 0; begun < 2; begun++) {
        struct question a = long_chat(60000, "");
        int fd = take_one(&a);
        if (begun) serve_step(&server);
        assert_int_equal(q->n_encoding, 1);
        serve_cancel(&server, conn_at(server.pool, 0), "cancelled");
        close(fd);
        assert_int_equal(q->n_encoding, 0);
        assert_null(q->encoding);
        assert_int_equal(q->budget.used, 0);
        run_to_end();
    }
}

static void what_is_wrong_with_a_long_chat_is_told(void **state) {
    char text[4096] = "";
    (void)state;
    struct question a = long_chat(60000, "");
    memset((char *)strstr(a.body, "hello"), ' ', 60000);
    int fd = take_one(&a);
    run_to_end();
    assert_int_equal(read_status(fd, text, sizeof text), 400);
    assert_non_null(find(text, sizeof text, "messages[0]: content is blank"));
}

static void texts_end_with_their_budget(void **state) {
    struct queue *q = &server.engine.queue;
    char text[8192] = "";
    (void)state;
    q->budget.limit = 50000;
    struct question a = long_chat(60000, "");
    int fd = take_one(&a);
    run_to_end();
    assert_int_equal(read_status(fd, text, sizeof text), 503);
    assert_non_null(find(text, sizeof text, "Retry-After: 1"));
    q->budget.limit = 300; /* for the samples, but not for them and the reply */
    fd = take_one(&asks[0]);
    run_to_end();
    assert_int_equal(read_status(fd, text, sizeof text), 503);
    assert_int_equal(q->budget.used, 0);
    q->budget.limit = 1 << 20;
    fd = take_one(&asks[0]);
    run_to_end();
    assert_int_equal(read_status(fd, text, sizeof text), 200);
    assert_int_equal(q->budget.used, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_queue_ends_where_it_should, open_server,
                                        close_server),
        cmocka_unit_test_setup_teardown(a_long_chat_is_encoded_in_slices, open_server,
                                        close_server),
        cmocka_unit_test_setup_teardown(a_short_chat_passes_a_long_one, open_server,
                                        close_server),
        cmocka_unit_test_setup_teardown(a_client_leaves_while_its_chat_is_encoded,
                                        open_server, close_server),
        cmocka_unit_test_setup_teardown(what_is_wrong_with_a_long_chat_is_told,
                                        open_server, close_server),
        cmocka_unit_test_setup_teardown(texts_end_with_their_budget, open_server,
                                        close_server),
        cmocka_unit_test_setup_teardown(malloc_fails_anywhere, open_server, close_server),
        cmocka_unit_test_setup_teardown(the_arena_ends_anywhere, open_server,
                                        close_server),
        cmocka_unit_test_setup_teardown(start_up_fails_anywhere, open_server,
                                        close_server),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
