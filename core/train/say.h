/* SPDX-License-Identifier: Apache-2.0
 * say.h - complaints and notes of the program on stderr, and the exit code that goes with
 * a complaint: one of sysexits(3). For training and the subcommands; the library has
 * none. */
#ifndef TRAIN_SAY_H
#define TRAIN_SAY_H

#include "../microgpt.h"

#include <sysexits.h>

/* Print "microgpt: text" to stderr; return code. */
int say_error(int code, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void say_note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* Print an error of the library; the exit code that fits it. */
int say_model_error(const struct mg_error *);

#endif
