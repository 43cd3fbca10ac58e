/* SPDX-License-Identifier: Apache-2.0
 * metrics.c - the table: where it lives, who has which slot, and counting. In a file, a
 * slot is claimed by a lock on its bytes that belongs to the open file and so ends with
 * the process (or with the master and all its workers), however it ends; the counters
 * stay for the next. */
#include "metrics.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <sysexits.h>
#include <unistd.h>

#include "clock.h"
#include "log.h"
#include "metrics_table.h"

#define HEAD_TRIES 100 /* of 50 ms */

const char *const endpoint_names[EP_COUNT] = {"generate", "chat",   "health",
                                              "metrics",  "status", "other"};
const int metrics_statuses[N_STATUS - 1] = {200, 304, 400, 404, 405, 406, 408,
                                            413, 415, 422, 499, 500, 503};
#define DECADE(n) 1 * (n), 5 * (n) / 2, 5 * (n)
const int64_t metrics_bounds_ns[N_BOUNDS] = {
    DECADE(10000LL),     DECADE(100000LL),     DECADE(1000000LL),     DECADE(10000000LL),
    DECADE(100000000LL), DECADE(1000000000LL), DECADE(10000000000LL), 100000000000LL};

static struct table private_table; /* until there is a shared one */
static struct table *table = &private_table;
static struct slot *self = &private_table.slot[0];
static int file = -1;      /* the metrics file, -1 = memory */
static uint64_t owner = 1; /* our id in the slots */
static const char *scope = "worker";
static int64_t start_unix, start_ns;

/* ---- counting: the slot has one writer, so a plain read and write of each word will do
 * ---- */

static void add(uint64_t *counter, uint64_t n) {
    STORE(*counter, LOAD(*counter) + n);
}

static void observe(struct histogram *h, int64_t ns, uint64_t n) {
    int b = 0;
    if (ns < 0) ns = 0;
    while (b < N_BOUNDS && ns > metrics_bounds_ns[b]) b++;
    add(&h->count[b], n);
    add(&h->sum_ns, (uint64_t)ns * n);
}

void metrics_request(enum endpoint e, int status, int64_t ns) {
    int i = 0;
    while (i < N_STATUS - 1 && metrics_statuses[i] != status) i++;
    add(&self->requests[e][i], 1);
    observe(&self->seconds[e], ns, 1);
}

void metrics_first_token(int64_t ns) {
    observe(&self->first_token, ns, 1);
}

void metrics_token_gap(int64_t ns, int n) {
    if (n > 0) observe(&self->token, ns, (uint64_t)n);
}

void metrics_tokens(uint64_t in, uint64_t out) {
    add(&self->tokens_in, in);
    add(&self->tokens_out, out);
}

void metrics_cancelled(void) {
    add(&self->cancelled, 1);
}

void metrics_shed(void) {
    add(&self->shed, 1);
}

void metrics_gauges(int lanes_busy, int queue_length, int connections) {
    STORE(self->lanes_busy, lanes_busy);
    STORE(self->queue_length, queue_length);
    STORE(self->connections, connections);
}

/* Lines the log dropped are counted here: the log itself knows nothing of the table. */
void metrics_heartbeat(int64_t monotonic_ns) {
    static uint64_t seen;
    uint64_t dropped = log_dropped();
    STORE(self->heartbeat_ns, monotonic_ns);
    if (dropped != seen) add(&self->log_dropped, dropped - seen);
    seen = dropped;
}

/* For labels: ASCII without control characters, cut to fit. */
static void copy_label(char *out, size_t size, const char *s) {
    size_t n = 0;
    for (; s && s[n] && n < size - 1; n++)
        out[n] = s[n] >= ' ' && s[n] < 0x7f ? s[n] : '_';
    out[n] = 0;
}

void metrics_worker(enum worker_state state, int lanes, int queue,
                    const struct mg_model_info *info, const char *model_name,
                    const char *digest, const char *fingerprint) {
    struct slot_model *m = &self->model;
    STORE(self->lanes, lanes);
    STORE(self->queue, queue);
    if (info && model_name) {
        copy_label(m->name, sizeof m->name, model_name);
        copy_label(m->digest, sizeof m->digest, digest);
        copy_label(m->fingerprint, sizeof m->fingerprint, fingerprint);
        copy_label(m->dtype, sizeof m->dtype, info->dtype);
        copy_label(m->tokenizer, sizeof m->tokenizer, info->tokenizer);
        copy_label(m->kernels, sizeof m->kernels, info->kernels);
        m->has_chat = info->has_chat;
        m->block_size = info->block_size;
        m->n_params = info->n_params;
    }
    __atomic_store_n(&self->state, state, __ATOMIC_RELEASE);
}

/* ---- slots ---- */

static struct flock slot_range(int slot, short type) {
    return (struct flock){.l_type = type,
                          .l_whence = SEEK_SET,
                          .l_start = (off_t)(offsetof(struct table, slot) +
                                             (size_t)slot * sizeof(struct slot)),
                          .l_len = 1};
}

/* 1 if the slot is ours now. In memory all slots are the master's. */
static int claim_slot(int slot) {
    struct flock range = slot_range(slot, F_WRLCK);
    return file < 0 || !fcntl(file, F_OFD_SETLK, &range);
}

static void release_slot(int slot) {
    struct flock range = slot_range(slot, F_UNLCK);
    if (file >= 0) fcntl(file, F_OFD_SETLK, &range);
}

/* Everything that belongs to a worker and not to the sums. */
static void clear_gauges(struct slot *s) {
    STORE(s->state, WORKER_NONE);
    STORE(s->owner, 0);
    s->pid = s->number = s->generation = 0;
    s->lanes = s->lanes_busy = s->queue = s->queue_length = s->connections = 0;
    memset(&s->model, 0, sizeof s->model);
}

static void begin_slot(int slot, int number, int generation) {
    struct slot *s = &table->slot[slot];
    clear_gauges(s);
    s->number = number;
    s->generation = generation;
    s->started_ns = clock_ns();
    STORE(s->heartbeat_ns, s->started_ns);
    STORE(s->owner, owner);
    STORE(s->state, WORKER_STARTING);
}

int metrics_slot_begin(int number, int generation) {
    for (int i = 0; i < METRICS_SLOTS; i++) {
        int slot = (number - 1 + i) % METRICS_SLOTS; /* worker n likes slot n-1 */
        if (LOAD(table->slot[slot].owner) == owner || !claim_slot(slot)) continue;
        begin_slot(slot, number, generation);
        return slot;
    }
    return -1;
}

void metrics_slot_pid(int slot, pid_t pid) {
    STORE(table->slot[slot].pid, pid);
}

void metrics_slot_end(int slot) {
    clear_gauges(&table->slot[slot]);
    release_slot(slot);
}

void metrics_use_slot(int slot) {
    self = &table->slot[slot];
    STORE(self->pid, getpid());
}

enum worker_state metrics_slot_state(int slot) {
    return (enum worker_state)__atomic_load_n(&table->slot[slot].state, __ATOMIC_ACQUIRE);
}

int64_t metrics_slot_heartbeat(int slot) {
    return LOAD(table->slot[slot].heartbeat_ns);
}

void metrics_restart(void) {
    __atomic_fetch_add(&table->restarts, 1, __ATOMIC_RELAXED);
}

void metrics_reload(int ok) {
    __atomic_fetch_add(ok ? &table->reloads_ok : &table->reloads_failed, 1,
                       __ATOMIC_RELAXED);
}

/* ---- where the table lives ---- */

static void start_clock(void) {
    start_unix = time(NULL);
    start_ns = clock_ns();
    if (getrandom(&owner, sizeof owner, GRND_NONBLOCK) != sizeof owner)
        owner = (uint64_t)start_ns ^ (uint64_t)getpid() << 40;
    owner |= 1;
}

static void init_table(struct table *t) {
    memcpy(t->magic, TABLE_MAGIC, sizeof t->magic);
    t->version = TABLE_VERSION;
    t->n_slots = METRICS_SLOTS;
    t->size = sizeof *t;
}

static int table_fits(const struct table *t) {
    return !memcmp(t->magic, TABLE_MAGIC, sizeof t->magic) &&
           t->version == TABLE_VERSION && t->n_slots == METRICS_SLOTS &&
           t->size == sizeof *t;
}

static int fail_file(const struct config *c, const char *what, char *error, size_t size) {
    int code = errno == EACCES || errno == EPERM || errno == EROFS ? EX_NOPERM
               : errno == ENOENT || errno == EISDIR                ? EX_CONFIG
                                                                   : EX_OSERR;
    snprintf(error, size, "metrics: %s %s: %s", what, c->metrics, strerror(errno));
    return code;
}

static int fail_version(const struct config *c, char *error, size_t size) {
    snprintf(error, size, "metrics: %s is not a counter file of this version: remove it",
             c->metrics);
    return EX_CONFIG;
}

/* Lock or unlock the head of the file. Others hold it for microseconds, unless they were
 * stopped. */
static int lock_head(short type) {
    struct flock head = {.l_type = type, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    for (int i = 0; i < HEAD_TRIES; i++) {
        if (!fcntl(file, F_OFD_SETLK, &head)) return 0;
        if (errno != EAGAIN && errno != EACCES) return -1;
        poll(NULL, 0, 50);
    }
    errno = EBUSY;
    return -1;
}

/* Open the file, lock it, and give a new one its size. 0 or a code. */
static int open_file(const struct config *c, char *error, size_t size) {
    struct stat st;
    file = open(c->metrics, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0640);
    if (file < 0) return fail_file(c, "may not open", error, size);
    if (lock_head(F_WRLCK) || fstat(file, &st) ||
        (!st.st_size && ftruncate(file, sizeof(struct table))))
        return fail_file(c, "may not prepare", error, size);
    return st.st_size && st.st_size != sizeof(struct table) ? fail_version(c, error, size)
                                                            : 0;
}

/* The mapped file as the table, after a look at its head. 0 or a code. */
static int use_file(const struct config *c, char *error, size_t size) {
    struct table *t = mmap(NULL, sizeof *t, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (t == MAP_FAILED) return fail_file(c, "may not map", error, size);
    if (!t->magic[0]) init_table(t);
    if (!table_fits(t)) {
        munmap(t, sizeof *t);
        return fail_version(c, error, size);
    }
    table = t;
    scope = "file";
    for (int i = 0; i < METRICS_SLOTS; i++) /* left behind by the dead */
        if (LOAD(table->slot[i].owner) && claim_slot(i)) metrics_slot_end(i);
    return 0;
}

static int map_file(const struct config *c, char *error, size_t size) {
    int rc = open_file(c, error, size);
    if (!rc) rc = use_file(c, error, size);
    if (rc && file >= 0) {
        close(file); /* and with it the lock */
        file = -1;
    }
    if (!rc) lock_head(F_UNLCK);
    return rc;
}

static int map_memory(char *error, size_t size) {
    void *p = mmap(NULL, sizeof *table, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
        snprintf(error, size, "no memory for the counters: %s", strerror(errno));
        return EX_OSERR;
    }
    table = p;
    init_table(table);
    scope = "master";
    return 0;
}

int metrics_create(const struct config *c, char *error, size_t size) {
    start_clock();
    return *c->metrics ? map_file(c, error, size) : map_memory(error, size);
}

int metrics_attach(const struct config *c, int *slot, char *error, size_t size) {
    start_clock();
    int rc = *c->metrics ? map_file(c, error, size) : 0;
    if (rc) return rc;
    *slot = metrics_slot_begin(1, 1);
    if (*slot < 0) {
        snprintf(error, size, "metrics: all %d slots of %s are taken", METRICS_SLOTS,
                 c->metrics);
        return EX_CONFIG;
    }
    metrics_use_slot(*slot);
    return 0;
}

/* ---- for metrics_render.c ---- */

const struct table *metrics_table(void) {
    return table;
}

int metrics_slot_alive(int slot) {
    const struct slot *s = &table->slot[slot];
    if (metrics_slot_state(slot) == WORKER_NONE) return 0;
    if (LOAD(s->owner) == owner || table == &private_table) return 1;
    struct flock range = slot_range(slot, F_WRLCK);
    return file >= 0 && !fcntl(file, F_OFD_GETLK, &range) && range.l_type != F_UNLCK;
}

int64_t metrics_start_unix(void) {
    return start_unix;
}

int64_t metrics_uptime_ns(void) {
    return clock_ns() - start_ns;
}

const char *metrics_scope(void) {
    return scope;
}
