/* SPDX-License-Identifier: Apache-2.0
 * machine.c - what the machine and its manager allow this process: CPUs, memory,
 * descriptors. Reads rlimits and the cgroup's files (version 2, and the controllers of
 * version 1); decides nothing. */
#include "machine.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define CGROUP "/sys/fs/cgroup"

/* The path of our cgroup: of the controller (v1) or of the unified tree (controller "").
 */
static int find_cgroup(const char *controller, char *path, size_t size) {
    FILE *f = fopen("/proc/self/cgroup", "re");
    char line[1024];
    int found = 0;
    while (f && !found && fgets(line, sizeof line, f)) {
        char *names = strchr(line, ':'), *rest = names ? strchr(names + 1, ':') : NULL;
        if (!rest) continue;
        *rest++ = 0;
        rest[strcspn(rest, "\n")] = 0;
        size_t n = strlen(controller);
        for (char *name = strtok(names + 1, ","); name && !found;
             name = strtok(NULL, ","))
            found = n && !strcmp(name, controller);
        if (!n && !names[1]) found = 1;
        if (found) snprintf(path, size, "%s", rest);
    }
    if (f) fclose(f);
    return found;
}

/* Up to two numbers from a file of the cgroup; "max" ends them. How many were read. */
static int read_numbers(const char *root, const char *group, const char *file,
                        int64_t out[2]) {
    char path[2048];
    snprintf(path, sizeof path, "%s%s/%s", root, group, file);
    FILE *f = fopen(path, "re");
    if (!f) return 0;
    int n = fscanf(f, "%" SCNd64 " %" SCNd64, &out[0], &out[1]);
    fclose(f);
    return n < 0 ? 0 : n;
}

/* The least limit on the way from our cgroup up to the root. */
static int64_t walk_up(const char *root, char *group, const char *file) {
    int64_t least = INT64_MAX, v[2];
    for (;;) {
        if (read_numbers(root, strcmp(group, "/") ? group : "", file, v) >= 1 &&
            v[0] > 0 && v[0] < least)
            least = v[0];
        char *slash = strrchr(group, '/');
        if (!slash) return least;
        *slash = 0;
    }
}

static int64_t cgroup_memory(void) {
    char group[1024];
    int64_t least = INT64_MAX, v;
    if (find_cgroup("", group, sizeof group))
        least = walk_up(CGROUP, group, "memory.max");
    if (find_cgroup("memory", group, sizeof group)) {
        v = walk_up(CGROUP "/memory", group, "memory.limit_in_bytes");
        if (v < least) least = v;
    }
    return least;
}

int64_t machine_memory(void) {
    int64_t least = cgroup_memory();
    const int which[] = {RLIMIT_AS, RLIMIT_DATA};
    for (int i = 0; i < 2; i++) {
        struct rlimit r;
        if (!getrlimit((__rlimit_resource_t)which[i], &r) &&
            r.rlim_cur != RLIM_INFINITY && (int64_t)r.rlim_cur < least)
            least = (int64_t)r.rlim_cur;
    }
    /* version 1 says "no limit" as a number near 2^63 */
    return least > INT64_MAX / 2 ? INT64_MAX : least;
}

static int cgroup_cpus(void) {
    char group[1024];
    int64_t v[2], period[2];
    if (find_cgroup("", group, sizeof group) &&
        read_numbers(CGROUP, group, "cpu.max", v) == 2 && v[0] > 0 && v[1] > 0)
        return (int)((v[0] + v[1] - 1) / v[1]);
    if (find_cgroup("cpu", group, sizeof group) &&
        read_numbers(CGROUP "/cpu", group, "cpu.cfs_quota_us", v) && v[0] > 0 &&
        read_numbers(CGROUP "/cpu", group, "cpu.cfs_period_us", period) && period[0] > 0)
        return (int)((v[0] + period[0] - 1) / period[0]);
    return 0;
}

int machine_cpus(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    int quota = cgroup_cpus();
    if (quota && quota < n) n = quota;
    return n < 1 ? 1 : n > 128 ? 128 : n;
}

int64_t machine_raise_files(void) {
    struct rlimit r;
    if (getrlimit(RLIMIT_NOFILE, &r)) return 0;
    r.rlim_cur = r.rlim_max;
    setrlimit(RLIMIT_NOFILE, &r);
    getrlimit(RLIMIT_NOFILE, &r);
    return r.rlim_cur == RLIM_INFINITY ? INT64_MAX : (int64_t)r.rlim_cur;
}
