/* SPDX-License-Identifier: Apache-2.0
 * config.h - the effective configuration: one table of keys in config.c is the truth for
 * the file, the environment, the flags, -T, the manual and the commented file. */
#ifndef CONFIG_H
#define CONFIG_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "../core/microgpt.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };
enum log_format { LOG_LOGFMT, LOG_JSON };

struct config {
    char listen[256];      /* unix:/path, host:port, [v6]:port */
    int socket_mode;       /* octal permission bits of a unix socket */
    char socket_group[64]; /* "" = none */
    int backlog;
    char model_dir[4096];
    int workers;        /* 0 never: resolved to the CPUs the process may use */
    int lanes;          /* 0 = as many as 256 MiB of KV cache hold, 1 ... 64 */
    int queue;          /* requests waiting for a lane, per worker */
    int chunk;          /* prompt tokens per step */
    int kv;             /* enum mg_kv */
    int kernels;        /* enum mg_kernels */
    int64_t timeout_ms; /* per request, accept to last byte */
    int64_t send_timeout_ms;
    size_t max_body;  /* bytes */
    size_t max_json;  /* bytes */
    size_t max_text;  /* bytes: texts of one worker's requests and replies */
    int parked;       /* idle kept connections per worker */
    int max_requests; /* 0 = never */
    int64_t drain_timeout_ms;
    int64_t watchdog_ms;
    int log_level;         /* enum log_level */
    int log_format;        /* enum log_format */
    char log_file[4096];   /* "" = stderr */
    char metrics[4096];    /* "" = shared memory of the master */
    int compat;            /* 1: 0.5, 2: 0.6 */
    const char *no_better; /* mg_model_options; no key sets it */
};

/* What the command line asks for besides keys. */
struct config_action {
    int test;           /* -t */
    int dump;           /* -T */
    int version;        /* -V */
    int help;           /* --help */
    const char *reload; /* --reload PID; NULL = no. Not copied */
    const char *health; /* --health SOCKET; likewise */
    char file[4096];    /* -c, "" = none */
};

/* Defaults, then file, then environment, then flags into *c. 0, or an exit code (64
 * usage, 78 configuration) with one line in error (file and line where there is one). May
 * be called again (HUP). */
int config_load(struct config *c, struct config_action *a, int argc, char **argv,
                char *error, size_t error_size);
/* -T: every key, effective value, and where it came from (default, file:line,
 * environment, flag). */
void config_dump(FILE *);
/* Usage text for --help. */
void config_usage(FILE *);

#endif
