/* SPDX-License-Identifier: Apache-2.0
 * config_keys.c - the one table of keys: name, type, bounds, default and help of each;
 * and the reading and printing of a value by its type. What the file, the environment,
 * the flags, -T, the manual and the commented file have in common comes from here. */
#include "config_keys.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define AT(field)   offsetof(struct config, field)
#define ROOM(field) (int64_t)(sizeof((struct config *)0)->field - 1)
#define MIB         ((int64_t)1 << 20)
#define SECOND      ((int64_t)1000)
#define DAY         (86400 * SECOND)

const struct config_key config_keys[] = {
    {"listen", KEY_LISTEN, AT(listen), 1, ROOM(listen), "unix:/run/microgpt/fcgi.sock",
     NULL, NULL,
     "where nginx reaches the workers: unix:/path, host:port, [v6]:port or *:port"},
    {"socket_mode", KEY_OCTAL, AT(socket_mode), 0, 0777, "0660", NULL, NULL,
     "permissions of a unix socket"},
    {"socket_group", KEY_TEXT, AT(socket_group), 0, ROOM(socket_group), "none", "none",
     NULL, "group of a unix socket (nginx's)"},
    {"backlog", KEY_INT, AT(backlog), 1, 65535, "1024", NULL, NULL,
     "connections the kernel holds for us; above nginx's limit_conn"},
    {"model_dir", KEY_TEXT, AT(model_dir), 1, ROOM(model_dir), "./output", NULL, NULL,
     "the checkpoint: a directory with weights.safetensors and meta.json"},
    {"workers", KEY_INT, AT(workers), 1, 128, "auto", "auto", NULL,
     "processes, each uses one core; auto = the CPUs we may use"},
    {"lanes", KEY_INT, AT(lanes), 1, 1024, "auto", "auto", NULL,
     "sequences one worker advances together; auto = what 256 MiB of KV cache hold, 1 to "
     "64"},
    {"queue", KEY_INT, AT(queue), 0, 65535, "128", NULL, NULL,
     "requests one worker holds while all lanes are taken"},
    {"chunk", KEY_INT, AT(chunk), 1, 4096, "96", NULL, NULL, "prompt tokens per step"},
    {"kv", KEY_CHOICE, AT(kv), 0, 0, "f32", NULL, "f32 f16",
     "number format of the KV cache; f16 halves its memory"},
    {"kernels", KEY_CHOICE, AT(kernels), 0, 0, "auto", NULL, "auto native blis",
     "engine of the matrix products; auto = native"},
    {"timeout", KEY_TIME, AT(timeout_ms), 100, DAY, "30s", NULL, NULL,
     "a request, accept to last byte; below nginx's fastcgi_read_timeout"},
    {"send_timeout", KEY_TIME, AT(send_timeout_ms), 100, DAY, "5s", NULL, NULL,
     "without progress towards one client"},
    {"max_body", KEY_SIZE, AT(max_body), 1024, 1024 * MIB, "4m", NULL, NULL,
     "request body; raise nginx's client_max_body_size with it"},
    {"max_json", KEY_SIZE, AT(max_json), 16384, 4096 * MIB, "32m", NULL, NULL,
     "memory for one parsed body"},
    {"max_text", KEY_SIZE, AT(max_text), 65536, 65536 * MIB, "64m", NULL, NULL,
     "memory of one worker for long conversations, finished samples and replies"},
    {"parked", KEY_INT, AT(parked), 0, 4096, "64", NULL, NULL,
     "idle kept connections per worker"},
    {"max_requests", KEY_INT, AT(max_requests), 0, INT_MAX, "never", "never", NULL,
     "a worker is replaced after about so many requests"},
    {"drain_timeout", KEY_TIME, AT(drain_timeout_ms), 0, DAY, "40s", NULL, NULL,
     "for what is in flight at a stop or reload; above timeout, below systemd's stop "
     "time"},
    {"watchdog", KEY_TIME, AT(watchdog_ms), SECOND, DAY, "30s", "off", NULL,
     "a worker whose loop has not moved for so long is killed and replaced"},
    {"log_level", KEY_CHOICE, AT(log_level), 0, 0, "info", NULL, "error warn info debug",
     "least important line that is written"},
    {"log_format", KEY_CHOICE, AT(log_format), 0, 0, "logfmt", NULL, "logfmt json",
     "form of a line"},
    {"log_file", KEY_TEXT, AT(log_file), 0, ROOM(log_file), "stderr", "stderr", NULL,
     "stderr or a file, opened again on USR1"},
    {"metrics", KEY_TEXT, AT(metrics), 0, ROOM(metrics), "memory", "memory", NULL,
     "counters: memory of our master, or a file that workers without our master share"},
    {"compat", KEY_CHOICE, AT(compat), 0, 0, "none", NULL, "none 0.5 0.6",
     "generation exactly as the reference implementation 0.5.0 (format A) or 0.6 (BPE)"},
};
const int config_n_keys = sizeof config_keys / sizeof *config_keys;
_Static_assert(sizeof config_keys / sizeof *config_keys <= CONFIG_MAX_KEYS,
               "raise CONFIG_MAX_KEYS");

const struct config_key *config_key_find(const char *name, size_t len) {
    for (int i = 0; i < config_n_keys; i++) {
        const char *key = config_keys[i].name;
        size_t k = 0;
        while (k < len && key[k] &&
               (name[k] == key[k] || (name[k] == '-' && key[k] == '_')))
            k++;
        if (k == len && !key[k]) return &config_keys[i];
    }
    return NULL;
}

/* ---- numbers with units ---- */

struct unit {
    const char *suffix;
    int64_t factor;
};
static const struct unit size_units[] = {
    {"", 1}, {"k", 1 << 10}, {"m", 1 << 20}, {"g", 1 << 30}, {NULL, 0}};
static const struct unit time_units[] = {{"", SECOND},         {"ms", 1},
                                         {"s", SECOND},        {"m", 60 * SECOND},
                                         {"h", 3600 * SECOND}, {NULL, 0}};
static const struct unit no_units[] = {{"", 1}, {NULL, 0}};

/* Whole number in base, at most one blank, suffix. 0, or -1: it is none or overflows. */
static int parse_number(const char *s, int base, const struct unit *units, int64_t *out) {
    if (*s < '0' || *s > '9') return -1;
    char *end;
    errno = 0;
    long long n = strtoll(s, &end, base);
    if (errno) return -1;
    if (*end == ' ') end++;
    for (; units->suffix; units++)
        if (!strcasecmp(end, units->suffix))
            return __builtin_mul_overflow((int64_t)n, units->factor, out) ? -1 : 0;
    return -1;
}

/* Shortest exact form: the largest unit that divides n. */
static void print_number(int64_t n, const struct unit *units, char *out, size_t size) {
    const struct unit *best = NULL;
    for (const struct unit *u = units; u->suffix; u++)
        if (*u->suffix && n && n % u->factor == 0 && (!best || u->factor > best->factor))
            best = u;
    if (!best) best = units; /* no suffix */
    snprintf(out, size, "%" PRId64 "%s", n / best->factor, best->suffix);
}

static const struct unit *units_of(enum key_type type) {
    return type == KEY_SIZE ? size_units : type == KEY_TIME ? time_units : no_units;
}

/* ---- errors that say what is allowed ---- */

static int refuse(const struct config_key *key, const char *value, char *error,
                  size_t size) {
    char low[32], high[32];
    const char *join = key->empty ? ", or " : "", *empty = key->empty ? key->empty : "";
    const struct unit *units = units_of(key->type);
    switch (key->type) {
    case KEY_TEXT:
        snprintf(error, size, "%s: \"%.60s\" has %zu bytes, allowed are %d to %d",
                 key->name, value, strlen(value), (int)key->min, (int)key->max);
        break;
    case KEY_LISTEN:
        snprintf(error, size,
                 "%s: \"%.60s\" is no address: unix:/path (at most 107 bytes), "
                 "host:port, [v6]:port or *:port",
                 key->name, value);
        break;
    case KEY_OCTAL:
        snprintf(error, size, "%s: \"%.60s\" is no octal mode from 0 to 0777", key->name,
                 value);
        break;
    case KEY_CHOICE:
        snprintf(error, size, "%s: \"%.60s\" is not one of: %s", key->name, value,
                 key->words);
        break;
    default:
        print_number(key->min, units, low, sizeof low);
        print_number(key->max, units, high, sizeof high);
        snprintf(error, size, "%s: \"%.60s\" is no %s from %s to %s%s%s", key->name,
                 value,
                 key->type == KEY_TIME   ? "time (30s, 500ms, 2m)"
                 : key->type == KEY_SIZE ? "size (4m, 256k)"
                                         : "whole number",
                 low, high, join, empty);
    }
    return -1;
}

/* ---- reading ---- */

static int is_port(const char *s) {
    int64_t n;
    return !parse_number(s, 10, no_units, &n) && n >= 1 && n <= 65535 && !strchr(s, ' ');
}

/* Form only; whether the host exists is seen on opening. */
static int is_address(const char *s) {
    if (!strncmp(s, "unix:", 5)) return s[5] && strlen(s + 5) <= 107;
    const char *colon = strrchr(s, ':');
    if (!colon || colon == s || !is_port(colon + 1)) return 0;
    if (*s == '[') return colon[-1] == ']' && colon - s > 3;
    return strchr(s, ':') == colon;
}

static int set_text(const struct config_key *key, struct config *c, const char *value) {
    if (key->empty && !strcmp(value, key->empty)) value = "";
    size_t len = strlen(value);
    if ((int64_t)len < key->min || (int64_t)len > key->max) return -1;
    if (key->type == KEY_LISTEN && !is_address(value)) return -1;
    memcpy((char *)c + key->offset, value, len + 1);
    return 0;
}

/* The position of word in the list, -1 if it is not there. */
static int find_word(const char *words, const char *word) {
    size_t len = strlen(word);
    for (int i = 0;; i++) {
        size_t n = strcspn(words, " ");
        if (n == len && !memcmp(words, word, n)) return i;
        if (!words[n]) return -1;
        words += n + 1;
    }
}

static int set_number(const struct config_key *key, struct config *c, const char *value) {
    char *field = (char *)c + key->offset;
    int64_t n;
    if (key->type == KEY_CHOICE) {
        if ((n = find_word(key->words, value)) < 0) return -1;
    } else if (key->empty && !strcmp(value, key->empty)) {
        n = 0;
    } else if (parse_number(value, key->type == KEY_OCTAL ? 8 : 10, units_of(key->type),
                            &n) ||
               n < key->min || n > key->max) {
        return -1;
    }
    if (key->type == KEY_TIME)
        memcpy(field, &n, sizeof n);
    else if (key->type == KEY_SIZE)
        memcpy(field, &(size_t){(size_t)n}, sizeof(size_t));
    else
        memcpy(field, &(int){(int)n}, sizeof(int));
    return 0;
}

int config_key_set(const struct config_key *key, struct config *c, const char *value,
                   char *error, size_t size) {
    int text = key->type == KEY_TEXT || key->type == KEY_LISTEN;
    if (text ? set_text(key, c, value) : set_number(key, c, value))
        return refuse(key, value, error, size);
    return 0;
}

/* ---- printing ---- */

static int64_t get_number(const struct config_key *key, const struct config *c) {
    const char *field = (const char *)c + key->offset;
    int64_t time;
    size_t bytes;
    int plain;
    switch (key->type) {
    case KEY_TIME: memcpy(&time, field, sizeof time); return time;
    case KEY_SIZE: memcpy(&bytes, field, sizeof bytes); return (int64_t)bytes;
    default: memcpy(&plain, field, sizeof plain); return plain;
    }
}

void config_key_print(const struct config_key *key, const struct config *c, char *out,
                      size_t size) {
    if (key->type == KEY_TEXT || key->type == KEY_LISTEN) {
        const char *s = (const char *)c + key->offset;
        snprintf(out, size, "%s", *s || !key->empty ? s : key->empty);
        return;
    }
    int64_t n = get_number(key, c);
    if (key->type == KEY_CHOICE) {
        const char *word = key->words;
        for (; n > 0; n--) word += strcspn(word, " ") + 1;
        snprintf(out, size, "%.*s", (int)strcspn(word, " "), word);
    } else if (key->type == KEY_OCTAL) {
        snprintf(out, size, "%04o", (unsigned)n);
    } else if (!n && key->empty) {
        snprintf(out, size, "%s", key->empty);
    } else {
        print_number(n, units_of(key->type), out, size);
    }
}
