/* SPDX-License-Identifier: Apache-2.0
 * log.c - one line per event, as logfmt or JSON. A write(2) holds whole lines and at most
 * PIPE_BUF bytes, so lines of several workers never mix; the lines of requests wait for
 * the end of the loop's turn (log_flush), all others go out at once. Allocates nothing,
 * so that it works in every state of the process; that is why it escapes its own strings
 * and leaves Jansson to the replies. Knows nothing of what is logged. */
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LINE_MAX_BYTES 4096 /* PIPE_BUF: one write is one piece */
#define PATIENCE_MS    100  /* for a full pipe, once; then none until it takes a line */

static struct {
    int fd; /* 2, or log_file */
    int level, format;
    int journald;    /* stderr is journald's: it adds the time */
    char file[4096]; /* "" = stderr */
    char who[32];
    int stuck; /* the last line was dropped */
    uint64_t dropped;
    pid_t pid;
    size_t n_held; /* lines of requests, not yet written */
    int held_lines;
    char held[LINE_MAX_BYTES];
} state = {.fd = 2, .level = LOG_LEVEL_INFO, .who = "main"};

/* ---- where it goes ---- */

/* systemd names device and inode of the stream it gave us. */
static int is_journald(void) {
    const char *stream = getenv("JOURNAL_STREAM");
    struct stat st;
    char text[64];
    if (!stream || fstat(2, &st)) return 0;
    snprintf(text, sizeof text, "%ju:%ju", (uintmax_t)st.st_dev, (uintmax_t)st.st_ino);
    return !strcmp(stream, text);
}

int log_reopen(void) {
    log_flush();
    int fd = 2;
    if (*state.file) {
        fd = open(state.file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0640);
        if (fd < 0) return -1;
    }
    if (state.fd != 2) close(state.fd);
    state.fd = fd;
    state.stuck = 0;
    state.journald = fd == 2 && is_journald();
    return 0;
}

int log_open(const struct config *c) {
    char before[sizeof state.file];
    memcpy(before, state.file, sizeof before);
    state.level = c->log_level;
    state.format = c->log_format;
    snprintf(state.file, sizeof state.file, "%s", c->log_file);
    if (!log_reopen()) return 0;
    memcpy(state.file, before, sizeof before);
    return -1;
}

void log_name(const char *who) {
    snprintf(state.who, sizeof state.who, "%s", who);
    if (state.pid && state.pid != getpid())
        state.dropped = 0; /* those were the parent's */
    state.pid = getpid();
}

uint64_t log_dropped(void) {
    return state.dropped;
}

/* ---- building a line ---- */

struct line {
    char text[LINE_MAX_BYTES];
    size_t len; /* always leaves room for the end of the line */
    int full;
};

#define TAIL 8 /* closing quote, brace, newline */

static void put_bytes(struct line *l, const char *s, size_t n) {
    if (l->full || n > sizeof l->text - TAIL - l->len) {
        l->full = 1;
        return;
    }
    memcpy(l->text + l->len, s, n);
    l->len += n;
}

static void put_format(struct line *l, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
static void put_format(struct line *l, const char *fmt, ...) {
    char text[96];
    va_list args;
    va_start(args, fmt);
    int n = vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    if (n > 0) put_bytes(l, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

/* Length of the whole UTF-8 character at s (two bytes and more), 0 if it is none. */
static size_t utf8_length(const unsigned char *s) {
    size_t n = *s >= 0xc2 && *s < 0xe0   ? 2
               : (*s & 0xf0) == 0xe0     ? 3
               : *s >= 0xf0 && *s < 0xf5 ? 4
                                         : 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80) return 0;
    return n;
}

/* The body of a quoted string. The escapes are those of JSON, which logfmt readers
 * accept; bytes that are no UTF-8 (a file name) become question marks. */
static void put_escaped(struct line *l, const char *s) {
    while (*s && !l->full) {
        unsigned char c = (unsigned char)*s;
        size_t n = c < 0x80 ? 1 : utf8_length((const unsigned char *)s);
        if (c == '"' || c == '\\')
            put_bytes(l, c == '"' ? "\\\"" : "\\\\", 2);
        else if (c == '\n')
            put_bytes(l, "\\n", 2);
        else if (c < 0x20 || c == 0x7f)
            put_format(l, "\\u%04x", c);
        else
            put_bytes(l, n ? s : "?", n ? n : 1);
        s += n ? n : 1;
    }
}

static void put_key(struct line *l, const char *key) {
    if (state.format == LOG_JSON)
        put_format(l, "%s\"%s\":", l->len ? "," : "{", key);
    else
        put_format(l, "%s%s=", l->len ? " " : "", key);
}

/* A string; logfmt leaves plain words without quotes. */
static void put_text(struct line *l, const char *key, const char *value) {
    put_key(l, key);
    int quote = state.format == LOG_JSON || !*value;
    for (const char *p = value; *p && !quote; p++)
        quote = *p <= ' ' || *p == '"' || *p == '=' || *p == '\\' || *p == 0x7f;
    if (quote) put_bytes(l, "\"", 1);
    int open_quote = quote && !l->full;
    put_escaped(l, value);
    if (open_quote) l->text[l->len++] = '"'; /* closes even when full */
}

static void put_int(struct line *l, const char *key, uint64_t value) {
    put_key(l, key);
    put_format(l, "%" PRIu64, value);
}

static void put_ms(struct line *l, const char *key, int64_t ns) {
    put_key(l, key);
    if (ns < 0) ns = 0;
    put_format(l, "%" PRId64 ".%03d", ns / 1000000, (int)(ns / 1000 % 1000));
}

static const char *const level_names[] = {"error", "warn", "info", "debug"};

/* The fields every line begins with. Under journald the priority goes before the line,
 * where it is taken off, and the time is journald's. */
static void begin_line(struct line *l, int level) {
    char when[40];
    struct timespec now;
    struct tm tm;
    l->len = 0;
    l->full = 0;
    if (!state.journald) {
        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &tm);
        size_t n = strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
        snprintf(when + n, sizeof when - n, ".%03dZ", (int)(now.tv_nsec / 1000000));
        put_text(l, "time", when);
    }
    put_text(l, "level", level_names[level]);
    put_text(l, "from", state.who);
    if (state.pid == 0) state.pid = getpid();
    put_int(l, "pid", (uint64_t)state.pid);
}

/* ---- writing ---- */

/* 1 if all of it went out. A pipe that nobody reads must not hold up the loop. */
static int write_lines(const char *text, size_t len) {
    struct pollfd p = {.fd = state.fd, .events = POLLOUT};
    if (poll(&p, 1, state.stuck ? 0 : PATIENCE_MS) <= 0) return 0;
    ssize_t n;
    do n = write(state.fd, text, len);
    while (n < 0 && errno == EINTR);
    return n == (ssize_t)len;
}

void log_flush(void) {
    if (state.n_held == 0) return;
    int saved = errno;
    state.stuck = !write_lines(state.held, state.n_held);
    if (state.stuck) state.dropped += (uint64_t)state.held_lines;
    state.n_held = 0;
    state.held_lines = 0;
    errno = saved;
}

/* Close the line and hold it. */
static void end_line(struct line *l, int level) {
    static const char priority[] = {'3', '4', '6', '7'};
    size_t prefix = state.journald ? 3 : 0;
    if (state.format == LOG_JSON) l->text[l->len++] = '}';
    l->text[l->len++] = '\n';
    if (l->len + prefix > sizeof state.held - state.n_held) log_flush();
    char *out = state.held + state.n_held;
    if (prefix) memcpy(out, (char[]){'<', priority[level], '>'}, prefix);
    size_t n = l->len < sizeof state.held - prefix ? l->len : sizeof state.held - prefix;
    memcpy(out + prefix, l->text, n);
    out[prefix + n - 1] = '\n';
    state.n_held += prefix + n;
    state.held_lines++;
}

static void write_message(int level, const char *fmt, va_list args)
    __attribute__((format(printf, 2, 0)));
static void write_message(int level, const char *fmt, va_list args) {
    if (level > state.level) return;
    int saved = errno;
    char text[2048];
    struct line line;
    vsnprintf(text, sizeof text, fmt, args);
    begin_line(&line, level);
    put_text(&line, "msg", text);
    end_line(&line, level);
    log_flush();
    errno = saved;
}

#define DEFINE_LEVEL(name, level)                                                        \
    void name(const char *fmt, ...) {                                                    \
        va_list args;                                                                    \
        va_start(args, fmt);                                                             \
        write_message(level, fmt, args);                                                 \
        va_end(args);                                                                    \
    }
DEFINE_LEVEL(log_error, LOG_LEVEL_ERROR)
DEFINE_LEVEL(log_warn, LOG_LEVEL_WARN)
DEFINE_LEVEL(log_info, LOG_LEVEL_INFO)
DEFINE_LEVEL(log_debug, LOG_LEVEL_DEBUG)

/* Cut to 64 bytes of printable ASCII: the id comes from outside. */
static void clean_id(const char *id, char out[65]) {
    size_t n = 0;
    for (; n < 64 && id[n]; n++) out[n] = id[n] > ' ' && id[n] < 0x7f ? id[n] : '?';
    out[n] = 0;
}

void log_request(const struct log_request *r) {
    int level = r->status >= 500 && r->status != 503 ? LOG_LEVEL_WARN : LOG_LEVEL_INFO;
    if (level > state.level) return;
    int saved = errno;
    char id[65];
    struct line line;
    clean_id(r->id, id);
    begin_line(&line, level);
    put_text(&line, "msg", "request");
    put_text(&line, "id", id);
    put_text(&line, "endpoint", r->endpoint);
    put_int(&line, "status", (uint64_t)r->status);
    put_int(&line, "prompt_tokens", r->prompt_tokens);
    put_int(&line, "output_tokens", r->output_tokens);
    put_int(&line, "dropped", r->dropped);
    put_ms(&line, "queued_ms", r->queued_ns);
    put_ms(&line, "prefill_ms", r->prefill_ns);
    put_ms(&line, "decode_ms", r->decode_ns);
    put_ms(&line, "total_ms", r->total_ns);
    put_text(&line, "reason", r->reason);
    end_line(&line, level);
    errno = saved;
}
