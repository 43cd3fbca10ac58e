/* SPDX-License-Identifier: Apache-2.0
 * file.h - opening the files of a checkpoint: never blocks, says what to do when it
 * cannot. Internal to core. */
#ifndef MG_FILE_H
#define MG_FILE_H

#include "microgpt.h"

/* dir/name in new memory, NULL if there is none left. */
char *mg_file_path(const char *dir, const char *name);

/* The directory itself, for mg_file_open: files opened through it belong together even
 * when a symbolic link on the way is switched meanwhile. -1 on error. */
int mg_dir_open(const char *dir, struct mg_error *err);

/* Open name below dirfd (or AT_FDCWD) for reading; only regular files. path is for
 * messages. Returns the descriptor, or -1. */
int mg_file_open(int dirfd, const char *name, const char *path, size_t *size,
                 struct mg_error *err);

/* The whole of a small file in new memory, at most max bytes. NULL on error. */
char *mg_file_read(int dirfd, const char *name, const char *path, size_t max, size_t *len,
                   struct mg_error *err);

#endif
