/* SPDX-License-Identifier: Apache-2.0
 * pool.h - a few threads that live as long as the training and share out numbered jobs.
 * What a job computes must not depend on which thread runs it. */
#ifndef TRAIN_POOL_H
#define TRAIN_POOL_H

struct pool;

/* job: 0 ... n-1; thread: 0 ... threads-1, at most one job at a time each. */
typedef void pool_job(void *ctx, int job, int thread);

/* The caller counts as one of the threads. NULL when a thread or memory is refused. */
struct pool *pool_new(int threads);
void pool_free(struct pool *);
/* Run jobs 0 ... n-1 and return when all are done. */
void pool_run(struct pool *, pool_job *job, void *ctx, int n);
/* CPUs this process may use. */
int pool_cpus(void);

#endif
