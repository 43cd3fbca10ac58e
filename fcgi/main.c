/* SPDX-License-Identifier: Apache-2.0
 * main.c - a table of contents: configuration, the questions that end the program, and
 * the way it was started. A socket on fd 0 (spawn-fcgi, StandardInput=socket) makes one
 * plain worker; sockets from systemd or of our own get a master; a CGI environment is one
 * request. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "config.h"
#include "control.h"
#include "health.h"
#include "machine.h"
#include "listen.h"
#include "log.h"
#include "master.h"
#include "metrics.h"
#include "notify.h"
#include "title.h"
#include "worker.h"

static struct config config;

static int print_version(void) {
    printf("microgpt-fcgi %s\n", MG_VERSION);
#ifdef __clang__
    printf("compiler: clang %s\n", __clang_version__);
#else
    printf("compiler: gcc %s\n", __VERSION__);
#endif
    printf("BLIS: %s\n", mg_blis_version());
    printf("instruction set: %s\n", mg_instruction_set());
    return fflush(stdout) ? EX_OSERR : 0;
}

/* -t: everything that could fail later, in one line. */
static int test_all(void) {
    char where[512], model[512];
    if (config.drain_timeout_ms <= config.timeout_ms) {
        fprintf(stderr,
                "microgpt-fcgi: drain_timeout must be above timeout (%lld ms): "
                "a stop would cut off what is in flight\n",
                (long long)config.timeout_ms);
        return EX_CONFIG;
    }
    int rc = listen_check(&config, where, sizeof where);
    if (rc) {
        fprintf(stderr, "microgpt-fcgi: %s\n", where);
        return rc;
    }
    rc = worker_check(&config, model, sizeof model);
    if (rc)
        fprintf(stderr, "microgpt-fcgi: %s\n", model);
    else
        printf("configuration ok, %s %s, %s\n", config.listen, where, model);
    return rc;
}

/* A descriptor of ours must never land on 0, 1 or 2. */
static void fill_standard_fds(void) {
    int fd;
    do fd = open("/dev/null", O_RDWR);
    while (fd >= 0 && fd <= 2);
    if (fd > 2) close(fd);
}

static void check_descriptors(void) {
    int64_t have = machine_raise_files();
    int64_t need = 64 + config.queue + config.parked + (config.lanes ? config.lanes : 64);
    if (have < need)
        log_warn("the descriptor limit is %lld, queue, parked and lanes may need %lld: "
                 "raise it (LimitNOFILE=, ulimit -n) or lower them",
                 (long long)have, (long long)need);
}

/* One of several that somebody else preforked. */
static int run_plain_worker(const int *fds, int n) {
    char error[512];
    struct worker_start start = {
        .config = &config, .listen_fds = fds, .n_listen = n, .master_fd = -1};
    log_name("worker");
    int slot, rc = metrics_attach(&config, &slot, error, sizeof error);
    if (rc) {
        log_error("%s", error);
        return rc;
    }
    const char *slash = strrchr(config.model_dir, '/');
    title_set("microgpt-fcgi: worker (%s)",
              slash && slash[1] ? slash + 1 : config.model_dir);
    log_info("microgpt-fcgi %s, a worker without our master; counters: %s", MG_VERSION,
             *config.metrics ? config.metrics : "of this worker alone (set metrics)");
    return worker_run(&start);
}

static int run_master(int argc, char **argv, const int *fds, int n, const char *where) {
    log_info("microgpt-fcgi %s, %d workers, listening on %s", MG_VERSION, config.workers,
             where);
    return master_run(&config, argc, argv, fds, n);
}

static int run_own_socket(int argc, char **argv) {
    char error[512];
    int fd = listen_open(&config, error, sizeof error);
    if (fd < 0) {
        log_error("%s", error);
        return -fd;
    }
    listen_keep(fd);
    return run_master(argc, argv, &fd, 1, config.listen);
}

/* How we were started decides who we are. */
static int run(int argc, char **argv) {
    int fds[LISTEN_MAX] = {0};
    int n = listen_systemd(fds);
    if (listen_is_fd0()) return run_plain_worker(fds, n ? n : 1); /* fds[0] is 0 */
    if (!n && getenv("GATEWAY_INTERFACE")) return worker_cgi(&config);
    check_descriptors();
    if (n) return run_master(argc, argv, fds, n, "what systemd passed");
    return run_own_socket(argc, argv);
}

int main(int argc, char **argv) {
    struct config_action action;
    char error[1024];
    argv = title_init(argc, argv);
    fill_standard_fds();
    int rc = config_load(&config, &action, argc, argv, error, sizeof error);
    if (rc) {
        fprintf(stderr, "microgpt-fcgi: %s\n", error);
        return rc;
    }
    if (action.help) {
        config_usage(stdout);
        return 0;
    }
    if (action.version) return print_version();
    if (action.reload) return control_reload(action.reload);
    if (action.health) return health_ask(action.health);
    if (action.dump) {
        config_dump(stdout);
        return fflush(stdout) ? EX_OSERR : 0;
    }
    if (action.test) return test_all();
    signal(SIGPIPE, SIG_IGN);
    notify_init();
    if (log_open(&config)) {
        int why = errno;
        fprintf(stderr, "microgpt-fcgi: log_file: %s: %s\n", config.log_file,
                strerror(why));
        return why == EACCES || why == EPERM ? EX_NOPERM : EX_CONFIG;
    }
    return run(argc, argv);
}
