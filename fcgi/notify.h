/* SPDX-License-Identifier: Apache-2.0
 * notify.h - telling systemd (Type=notify) how we are: a datagram to NOTIFY_SOCKET.
 * Without that variable every call does nothing. */
#ifndef NOTIFY_H
#define NOTIFY_H

#include <stdint.h>

/* Take NOTIFY_SOCKET and WATCHDOG_USEC out of the environment into this process. Call
 * once. */
void notify_init(void);
/* A worker of our master keeps quiet from here on. */
void notify_forget(void);

/* One state or several, a line each: "READY=1\nSTATUS=4 workers". */
void notify_send(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* A state with a descriptor: "FDSTORE=1\nFDNAME=x" has systemd keep it over a restart. -1
 * if there is nobody to send it to. */
int notify_send_fd(const char *text, int fd);
/* RELOADING=1 with the time systemd wants; READY=1 must follow. */
void notify_reloading(void);
/* Call from the loop: pets systemd's watchdog when half of its time has passed. */
void notify_alive(int64_t monotonic_ns);
/* Milliseconds until notify_alive wants to be called, -1 = never. */
int64_t notify_wait_ms(int64_t monotonic_ns);

#endif
