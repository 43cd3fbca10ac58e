/* SPDX-License-Identifier: Apache-2.0
 * Listening: unix and TCP sockets that work, are taken, stale, in the way or not allowed;
 * sockets that were passed in. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sysexits.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../fcgi/listen.h"

static char dir[64], path[100], text[400];
static struct config config;

static int make_dir(void **state) {
    (void)state;
    strcpy(dir, "/tmp/microgpt-listen-XXXXXX");
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/s", dir);
    memset(&config, 0, sizeof config);
    config.backlog = 8;
    config.socket_mode = 0640;
    snprintf(config.listen, sizeof config.listen, "unix:%s", path);
    return chmod(dir, 0755);
}

static int remove_dir(void **state) {
    (void)state;
    unlink(path);
    return rmdir(dir);
}

static int open_one(void) {
    *text = 0;
    return listen_open(&config, text, sizeof text);
}

/* What text must be: the address, then the rest. */
static void assert_text(const char *rest) {
    char want[400];
    snprintf(want, sizeof want, "%s: %s", config.listen, rest);
    assert_string_equal(text, want);
}

static int connect_unix(const char *to) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", to);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (!connect(fd, (struct sockaddr *)&a, sizeof a)) return fd;
    close(fd);
    return -1;
}

static void test_unix(void **state) {
    struct stat st;
    (void)state;
    umask(0);
    int fd = open_one();
    assert_true(fd > 2);
    assert_int_equal(fcntl(fd, F_GETFD), FD_CLOEXEC);
    assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0640);
    assert_int_equal(umask(022), 0); /* the process's umask is as it was */
    int client = connect_unix(path);
    assert_true(client >= 0);
    close(client);
    assert_int_equal(listen_check(&config, text, sizeof text), 0);
    assert_string_equal(text, "in use now");
    assert_int_equal(open_one(), -EX_UNAVAILABLE);
    assert_text(
        "another process is listening there: stop it, or set listen to another address");
    close(fd);
    fd = open_one(); /* what was left is stale now */
    assert_true(fd > 2);
    listen_remove(&config);
    assert_int_equal(stat(path, &st), -1);
    close(fd);
    assert_int_equal(listen_check(&config, text, sizeof text), 0);
    assert_string_equal(text, "free");
}

/* Somebody else's file at the end is not ours to remove. */
static void test_remove_only_ours(void **state) {
    struct stat st;
    (void)state;
    int fd = open_one();
    assert_true(fd > 2);
    assert_int_equal(unlink(path), 0);
    close(open(path, O_CREAT | O_WRONLY, 0600));
    listen_remove(&config);
    assert_int_equal(stat(path, &st), 0);
    close(fd);
    assert_int_equal(open_one(), -EX_UNAVAILABLE);
    assert_text(
        "a file that is no socket is there: remove it, or set listen to another address");
    assert_int_equal(listen_check(&config, text, sizeof text), EX_UNAVAILABLE);
}

/* A full queue is a live socket too. */
static void test_full_queue(void **state) {
    int clients[20], n = 0;
    (void)state;
    config.backlog = 1;
    int fd = open_one();
    assert_true(fd > 2);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
    for (; n < 20; n++) {
        clients[n] = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
        if (connect(clients[n], (struct sockaddr *)&a, sizeof a)) break;
    }
    assert_in_range(n, 1, 19);
    assert_int_equal(open_one(), -EX_UNAVAILABLE);
    for (int i = 0; i <= n; i++) close(clients[i]);
    close(fd);
}

/* From here on listen(2) says EIO. */
static int forbid_listen(void) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_listen, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EIO),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof code / sizeof *code, .filter = code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}

/* A socket that cannot listen leaves no file behind. */
static void test_listen_fails(void **state) {
    int status;
    struct stat st;
    (void)state;
    pid_t pid = fork();
    if (!pid) {
        setenv("CMOCKA_TEST_ABORT", "1", 1);
        if (forbid_listen()) _exit(77);
        assert_int_equal(open_one(), -EX_OSERR);
        assert_text("listen: Input/output error");
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) skip();
    assert_int_equal(status, 0);
    assert_int_equal(stat(path, &st), -1);
}

static void test_group(void **state) {
    struct stat st;
    (void)state;
    strcpy(config.socket_group, "no-such-group");
    assert_int_equal(open_one(), -EX_CONFIG);
    assert_text("socket_group: no group \"no-such-group\" on this host");
    assert_int_equal(stat(path, &st), -1);
    assert_int_equal(listen_check(&config, text, sizeof text), EX_CONFIG);
    struct group *g = getgrgid(getgid());
    if (!g) skip();
    snprintf(config.socket_group, sizeof config.socket_group, "%s", g->gr_name);
    int fd = open_one();
    assert_true(fd > 2);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_gid, getgid());
    close(fd);
}

static void test_directory(void **state) {
    char rest[200];
    (void)state;
    strcpy(config.listen, "unix:/nonexistent/s");
    assert_int_equal(open_one(), -EX_CONFIG);
    assert_text(
        "directory /nonexistent: No such file or directory: create it, or set listen");
    if (geteuid()) skip();
    snprintf(config.listen, sizeof config.listen, "unix:%s", path);
    int status;
    pid_t pid = fork();
    if (!pid) { /* as nobody */
        setenv("CMOCKA_TEST_ABORT", "1", 1);
        if (setgroups(0, NULL) || setgid(65534) || setuid(65534)) _exit(2);
        snprintf(rest, sizeof rest,
                 "no access to directory %s: Permission denied: make it writable for uid "
                 "65534, "
                 "or set listen",
                 dir);
        assert_int_equal(open_one(), -EX_NOPERM);
        assert_text(rest);
        strcpy(config.listen, "127.0.0.1:81");
        int rc = open_one(); /* some systems let everybody */
        if (rc < 0) {
            assert_int_equal(rc, -EX_NOPERM);
            assert_text("permission denied: use a port above 1023");
        }
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

/* An address with a port that is free (it was a moment ago). */
static void set_tcp(const char *host, int family) {
    struct sockaddr_in6 a = {.sin6_family = (sa_family_t)family};
    socklen_t len = family == AF_INET ? sizeof(struct sockaddr_in) : sizeof a;
    int fd = socket(family, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&a, len), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    close(fd);
    snprintf(config.listen, sizeof config.listen, "%s:%d", host, ntohs(a.sin6_port));
}

static void test_tcp(void **state) {
    static const char *const hosts[] = {"127.0.0.1", "localhost", "[::1]", "*"};
    (void)state;
    for (int i = 0; i < 4; i++) {
        set_tcp(hosts[i], i == 2 ? AF_INET6 : AF_INET);
        assert_int_equal(listen_check(&config, text, sizeof text), 0);
        assert_string_equal(text, "free");
        int fd = open_one();
        if (fd < 0) print_message("%s\n", text);
        assert_true(fd > 2);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        assert_int_equal(open_one(), -EX_UNAVAILABLE);
        assert_text(
            "another process is listening there: stop it, or set listen to another "
            "address");
        assert_int_equal(listen_check(&config, text, sizeof text), 0);
        assert_string_equal(text, "in use now");
        close(fd);
    }
    strcpy(config.listen, "192.0.2.1:9000");
    assert_int_equal(open_one(), -EX_CONFIG);
    assert_text("not an address of this host");
    strcpy(config.listen, "no.such.host.invalid:9000");
    assert_int_equal(open_one(), -EX_CONFIG);
    assert_non_null(strstr(text, "host not found"));
}

/* LISTEN_FDS and fd 0, in a process of its own. */
static void check_passed(int fd) {
    int fds[LISTEN_MAX], other[2];
    char number[20];
    assert_false(listen_is_fd0());
    assert_int_equal(pipe(other), 0);
    dup2(other[0], 4); /* not a socket: left out */
    dup2(fd, 3);
    dup2(fd, 5);
    setenv("LISTEN_FDS", "3", 1);
    setenv("LISTEN_PID", "1", 1);
    assert_int_equal(listen_systemd(fds), 0); /* meant for another process */
    assert_null(getenv("LISTEN_FDS"));
    setenv("LISTEN_FDS", "3", 1);
    snprintf(number, sizeof number, "%d", (int)getpid());
    setenv("LISTEN_PID", number, 1);
    assert_int_equal(listen_systemd(fds), 2);
    assert_int_equal(fds[0], 3);
    assert_int_equal(fds[1], 5);
    assert_int_equal(fcntl(3, F_GETFD), FD_CLOEXEC);
    assert_null(getenv("LISTEN_PID"));
    fcntl(fd, F_SETFL, 0);
    dup2(fd, 0);
    assert_true(listen_is_fd0());
    assert_true(fcntl(0, F_GETFL) & O_NONBLOCK);
}

static void test_passed(void **state) {
    int status;
    (void)state;
    int fd = fcntl(open_one(), F_DUPFD, 20);
    pid_t pid = fork();
    if (!pid) {
        setenv("CMOCKA_TEST_ABORT", "1", 1);
        check_passed(fd);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    close(fd);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_dir, remove_dir)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_unix),   TEST(test_remove_only_ours), TEST(test_full_queue),
        TEST(test_group),  TEST(test_directory),        TEST(test_tcp),
        TEST(test_passed), TEST(test_listen_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
