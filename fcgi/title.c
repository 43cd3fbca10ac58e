/* SPDX-License-Identifier: Apache-2.0
 * title.c - process titles: the kernel shows what stands in the memory that argv and
 * environ had at the start, so both are copied away and a title is written there. */
#include "title.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *room;
static size_t room_size;
static char **copied_argv, **copied_environ; /* each one block, which stays reachable */

/* NULL-terminated copy of a list of n strings, in one block: pointers, then bytes. */
static char **copy_list(char **list, size_t n) {
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) bytes += strlen(list[i]) + 1;
    char **copy = malloc((n + 1) * sizeof *copy + bytes);
    if (!copy) return NULL;
    char *to = (char *)(copy + n + 1);
    for (size_t i = 0; i < n; i++) {
        size_t size = strlen(list[i]) + 1;
        copy[i] = memcpy(to, list[i], size);
        to += size;
    }
    copy[n] = NULL;
    return copy;
}

/* How far the strings of list reach without a hole from *end. */
static void extend(char **list, char **end) {
    for (; *list; list++)
        if (!*end || *list == *end + 1) *end = *list + strlen(*list);
}

char **title_init(int argc, char **argv) {
    size_t n_environ = 0;
    while (environ[n_environ]) n_environ++;
    copied_argv = copy_list(argv, (size_t)argc);
    copied_environ = copy_list(environ, n_environ);
    if (argc < 1 || !copied_argv || !copied_environ) return argv;
    char *end = NULL;
    extend(argv, &end);
    extend(environ, &end);
    room = argv[0];
    room_size = (size_t)(end - room) + 1;
    environ = copied_environ;
    return copied_argv;
}

void title_set(const char *fmt, ...) {
    va_list args;
    if (!room) return;
    memset(room, 0, room_size);
    va_start(args, fmt);
    vsnprintf(room, room_size, fmt, args);
    va_end(args);
}
