/* SPDX-License-Identifier: Apache-2.0
 * log.h - one line per event, to stderr or log_file; errno is preserved by every call.
 * Writing never fails its caller and never waits long: a line that the disk or the reader
 * of a pipe does not take is dropped and counted. */
#ifndef LOG_H
#define LOG_H

#include "config.h"

/* Point the log at its file (or stderr). -1 with errno when the file cannot be opened:
 * the log stays where it was. The configuration's texts are copied. */
int log_open(const struct config *);
int log_reopen(void); /* USR1 */
/* Who writes: "master", "worker 3"; until then "main". Copied. */
void log_name(const char *who);
/* Lines this process had to drop. */
uint64_t log_dropped(void);

void log_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The line of one request; never a word of what was said. Times in ns. */
struct log_request {
    const char *id;       /* nginx's $request_id, "" = none; cut and escaped by the log */
    const char *endpoint; /* "generate", "chat", "health", ... */
    int status;           /* 499 = the client left */
    uint64_t prompt_tokens, output_tokens, dropped;
    int64_t queued_ns, prefill_ns, decode_ns, total_ns;
    const char *reason; /* why it ended: stop, length, cancelled, timeout, stalled, shed,
                           error, ok */
};
/* Held until log_flush, the next other line, or a full buffer. */
void log_request(const struct log_request *);
void log_flush(void);

#endif
