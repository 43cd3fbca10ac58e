/* SPDX-License-Identifier: Apache-2.0
 * Limits that others set: rlimits, affinity, and a memory cgroup where one may be made.
 * Each in a process of its own, which the limit ends with. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../fcgi/machine.h"

/* The code that body exits with in a process of its own: 0 = as it should be. */
static int in_process(int (*body)(void)) {
    int status;
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (!pid) _exit(body());
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#define LIMIT ((int64_t)1 << 40)

static int check_rlimits(void) {
    int64_t before = machine_memory();
    struct rlimit r = {LIMIT, LIMIT};
    if (before > LIMIT && (setrlimit(RLIMIT_DATA, &r) || machine_memory() != LIMIT))
        return 1;
    r.rlim_cur = LIMIT / 2;
    if (before > LIMIT && (setrlimit(RLIMIT_DATA, &r) || machine_memory() != LIMIT / 2))
        return 2;
    r = (struct rlimit){50, 100};
    if (setrlimit(RLIMIT_NOFILE, &r) || machine_raise_files() != 100) return 3;
    return getrlimit(RLIMIT_NOFILE, &r) || r.rlim_cur != 100 ? 4 : 0;
}

static void test_rlimits(void **state) {
    (void)state;
    assert_int_equal(in_process(check_rlimits), 0);
}

static int check_affinity(void) {
    cpu_set_t set, one;
    if (sched_getaffinity(0, sizeof set, &set)) return 1;
    int all = machine_cpus();
    if (all < 1 || all > CPU_COUNT(&set)) return 2;
    CPU_ZERO(&one);
    for (int i = 0; !CPU_COUNT(&one); i++)
        if (CPU_ISSET(i, &set)) CPU_SET(i, &one);
    return sched_setaffinity(0, sizeof one, &one) || machine_cpus() != 1;
}

static void test_affinity(void **state) {
    (void)state;
    assert_int_equal(in_process(check_affinity), 0);
}

/* ---- a cgroup of our own, version 2 or 1 ---- */

static char group[200];

static int write_number(const char *file, long long n) {
    char path[300];
    snprintf(path, sizeof path, "%s/%s", group, file);
    FILE *f = fopen(path, "r+"); /* never made here */
    if (!f) return -1;
    int bad = fprintf(f, "%lld\n", n) < 0;
    return fclose(f) || bad ? -1 : 0;
}

/* 1 if a group under root with that memory limit could be made. */
static int make_group(const char *root, const char *limit) {
    snprintf(group, sizeof group, "%s/microgpt-test-%d", root, (int)getpid());
    if (mkdir(group, 0755)) return 0;
    if (!write_number(limit, 300LL << 20)) return 1;
    rmdir(group);
    return 0;
}

static int check_group(void) {
    if (write_number("cgroup.procs", getpid())) return 9;
    return machine_memory() != 300LL << 20;
}

static void test_cgroup(void **state) {
    (void)state;
    if (!make_group("/sys/fs/cgroup", "memory.max") &&
        !make_group("/sys/fs/cgroup/memory", "memory.limit_in_bytes")) {
        print_message("1 not possible here: no memory cgroup may be made\n");
        skip();
    }
    int rc = in_process(check_group);
    rmdir(group);
    if (rc == 9) {
        print_message(
            "1 not possible here: no process may be moved to a memory cgroup\n");
        skip();
    }
    assert_int_equal(rc, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rlimits),
        cmocka_unit_test(test_affinity),
        cmocka_unit_test(test_cgroup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
