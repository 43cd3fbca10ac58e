/* SPDX-License-Identifier: Apache-2.0
 * error.h - filling the caller's mg_error. Internal to core. */
#ifndef MG_ERROR_H
#define MG_ERROR_H

#include "microgpt.h"

/* Record an error unless err is NULL or already holds one (the first error stays). Always
 * -1. The text is cut to fit at a whole UTF-8 character, control characters are escaped.
 */
int mg_fail(struct mg_error *err, enum mg_status code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
