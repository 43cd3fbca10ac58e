/* SPDX-License-Identifier: Apache-2.0
 * machine.h - what the machine and its manager allow this process. */
#ifndef MACHINE_H
#define MACHINE_H

#include <stdint.h>

/* CPUs this process may use: affinity, and the quota of its cgroup rounded up. At
 * least 1. */
int machine_cpus(void);
/* Bytes this process may have: the least of RLIMIT_AS, RLIMIT_DATA and its cgroup's
 * memory.max (which all workers share), or INT64_MAX. */
int64_t machine_memory(void);
/* Raise the descriptor limit to its hard value. What it is then. */
int64_t machine_raise_files(void);

#endif
