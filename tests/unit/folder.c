/* SPDX-License-Identifier: Apache-2.0
 *
 * folder.c - folders and files for tests. */
#include "folder.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void die(const char *what) {
    perror(what);
    exit(2);
}

char *folder_new(void) {
    const char *tmp = getenv("TMPDIR");
    char *dir = folder_path(tmp ? tmp : "/tmp", "mg-test-XXXXXX");
    if (!mkdtemp(dir)) die(dir);
    return dir;
}

char *folder_path(const char *dir, const char *name) {
    char *path = NULL;
    if (asprintf(&path, "%s/%s", dir, name) < 0) die("asprintf");
    return path;
}

char *folder_read(const char *dir, const char *name, size_t *len) {
    char *path = folder_path(dir, name);
    FILE *f = fopen(path, "rb");
    if (!f) die(path);
    size_t cap = 1 << 20, n = 0;
    char *data = malloc(cap + 1);
    for (size_t got; data && (got = fread(data + n, 1, cap - n, f)) > 0;) {
        n += got;
        if (n == cap) data = realloc(data, (cap *= 2) + 1);
    }
    if (!data || ferror(f)) die(path);
    fclose(f);
    free(path);
    data[n] = '\0';
    *len = n;
    return data;
}

void folder_write(const char *dir, const char *name, const void *data, size_t len) {
    char *path = folder_path(dir, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, len, f) != len || fclose(f)) die(path);
    free(path);
}

static int is_shown(const struct dirent *e) {
    return e->d_name[0] != '.';
}

char **folder_list(const char *dir, size_t *n) {
    struct dirent **entries;
    int count = scandir(dir, &entries, is_shown, alphasort);
    if (count < 0) die(dir);
    char **names = calloc((size_t)count + 1, sizeof *names);
    if (!names) die("calloc");
    for (int i = 0; i < count; i++) {
        names[i] = strdup(entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
    *n = (size_t)count;
    return names;
}
