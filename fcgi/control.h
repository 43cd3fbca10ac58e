/* SPDX-License-Identifier: Apache-2.0
 * control.h - a reload that tells how it went. The master listens on a socket that is
 * named by its pid; who connects asks for a reload and gets one packet when a reload
 * that began after that is decided. Knows nothing of what a reload is. */
#ifndef CONTROL_H
#define CONTROL_H

/* ---- the master ---- */

/* Start to listen: the descriptor to wait on, or -1 with errno (HUP still reloads). */
int control_open(void);
/* Accept who asks now: root and our own user are heard. How many are new. */
int control_take(void);
/* A reload begins: all who have asked so far will hear of this one. */
void control_begin(void);
/* It is decided: exit code (0 = it serves) and one line for them. */
void control_answer(int code, const char *text);
/* In a worker: the master's descriptors are not ours. */
void control_forget(void);

/* ---- --reload PID ---- */

/* Ask the master with that pid for a reload, wait for the outcome, say it in one line on
 * stdout (it serves) or stderr. Returns the exit code: that of the worker or
 * configuration that was refused, 69 nobody listens there, 75 no answer in five
 * minutes, 77. */
int control_reload(const char *pid);

#endif
