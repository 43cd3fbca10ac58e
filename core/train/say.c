/* SPDX-License-Identifier: Apache-2.0
 * say.c - see say.h. */
#include "say.h"

#include <stdarg.h>
#include <stdio.h>

int say_error(int code, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    fputs("microgpt: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return code;
}

void say_note(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
}

int say_model_error(const struct mg_error *err) {
    static const int code[] = {
        [MG_EINPUT] = EX_DATAERR, [MG_ENOFILE] = EX_NOINPUT, [MG_EFILE] = EX_DATAERR,
        [MG_ENOMEM] = EX_OSERR,   [MG_ESYSTEM] = EX_OSERR,   [MG_ENUMERIC] = EX_DATAERR,
    };
    return say_error(code[err->code] ? code[err->code] : EX_SOFTWARE, "%s", err->text);
}
