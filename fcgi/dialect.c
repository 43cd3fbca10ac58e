/* SPDX-License-Identifier: Apache-2.0
 * dialect.c - which dialect a path speaks. */
#include "dialect.h"

#include <string.h>

static const struct dialect *const dialects[] = {&dialect_generate, &dialect_chat};

const struct dialect *dialect_of(const char *route) {
    for (size_t i = 0; i < sizeof dialects / sizeof *dialects; i++)
        if (strcmp(route, dialects[i]->route) == 0) return dialects[i];
    return NULL;
}
