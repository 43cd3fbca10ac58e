/* SPDX-License-Identifier: Apache-2.0
 * pool.c - see pool.h. One mutex guards the round; jobs of a round are handed out under
 * it (they are milliseconds long). Threads sleep between rounds. */
#include "pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t start, done;
    pool_job *job;
    void *ctx;
    int n, next, running; /* jobs of the round, first not handed out, being computed */
    int quit;
    int threads, n_started;
    struct member {
        struct pool *pool;
        int index;
        pthread_t id;
    } * member;
};

/* Take jobs until none is left. Called and left with the lock held. */
static void work(struct pool *p, int thread) {
    while (p->next < p->n) {
        int i = p->next++;
        p->running++;
        pthread_mutex_unlock(&p->lock);
        p->job(p->ctx, i, thread);
        pthread_mutex_lock(&p->lock);
        p->running--;
    }
}

static void *run_member(void *arg) {
    struct member *m = arg;
    struct pool *p = m->pool;
    pthread_mutex_lock(&p->lock);
    while (!p->quit) {
        work(p, m->index);
        if (p->running == 0) pthread_cond_signal(&p->done);
        pthread_cond_wait(&p->start, &p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

/* Signals are for the main thread: the members start with all of them blocked. */
static int start_members(struct pool *p) {
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = 0;
    for (int i = 1; i < p->threads && rc == 0; i++) {
        p->member[i] = (struct member){.pool = p, .index = i};
        rc = pthread_create(&p->member[i].id, NULL, run_member, &p->member[i]);
        p->n_started += rc == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

struct pool *pool_new(int threads) {
    struct pool *p = calloc(1, sizeof *p);
    if (!p) return NULL;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->start, NULL);
    pthread_cond_init(&p->done, NULL);
    p->threads = threads;
    p->member = calloc((size_t)threads, sizeof *p->member);
    if (p->member && start_members(p) == 0) return p;
    pool_free(p);
    return NULL;
}

void pool_free(struct pool *p) {
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->quit = 1;
    pthread_cond_broadcast(&p->start);
    pthread_mutex_unlock(&p->lock);
    for (int i = 1; i <= p->n_started; i++) pthread_join(p->member[i].id, NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->start);
    pthread_mutex_destroy(&p->lock);
    free(p->member);
    free(p);
}

void pool_run(struct pool *p, pool_job *job, void *ctx, int n) {
    pthread_mutex_lock(&p->lock);
    p->job = job, p->ctx = ctx, p->n = n, p->next = 0;
    if (n > 1) pthread_cond_broadcast(&p->start);
    work(p, 0);
    while (p->running > 0) pthread_cond_wait(&p->done, &p->lock);
    p->n = 0;
    pthread_mutex_unlock(&p->lock);
}

int pool_cpus(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = CPU_COUNT(&set);
    return n > 0 ? n : 1;
}
