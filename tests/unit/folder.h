/* SPDX-License-Identifier: Apache-2.0
 *
 * folder.h - folders and files for tests. A failing system call ends the test program. */
#ifndef FOLDER_H
#define FOLDER_H

#include <stddef.h>

/* A new temporary folder; give the path to remove_model (make_model.h). */
char *folder_new(void);
/* dir/name in new memory. */
char *folder_path(const char *dir, const char *name);
/* The whole of dir/name in new memory, NUL-terminated. */
char *folder_read(const char *dir, const char *name, size_t *len);
void folder_write(const char *dir, const char *name, const void *data, size_t len);
/* Names in dir, sorted, without those that start with a dot; NULL after the last. */
char **folder_list(const char *dir, size_t *n);

#endif
