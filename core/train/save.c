/* SPDX-License-Identifier: Apache-2.0
 * save.c - see save.h. The folder is ".NAME.saving" beside NAME, so that the rename stays
 * on one file system; one that a killed run left is cleared first. The swap is renameat2
 * with RENAME_EXCHANGE: at no moment is there no checkpoint under the name. */
#include "save.h"

#include "say.h"
#include "convert.h"
#include "utf8.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* All that a checkpoint directory may hold; a directory with other files is not replaced.
 */
static const char *const known_files[] = {
    "weights.safetensors",
    "meta.json",
    "tokenizer.json",
    "train_state.json",
    "optimizer_m.safetensors",
    "optimizer_v.safetensors",
    "loss.csv",
    "loss.svg",
    NULL,
};

enum { MAX_NAME = NAME_MAX - 16 }; /* room for what is put around it */

struct save {
    char target[PATH_MAX];   /* for messages */
    int parent, dir;         /* open directories: where the target is, and the folder */
    char name[MAX_NAME + 1]; /* of the target in parent */
    char temporary[NAME_MAX + 1];
    int failed;
};

static int tell(const char *path, const char *what) {
    int code = errno == EACCES || errno == EPERM || errno == EROFS ? EX_NOPERM : EX_IOERR;
    return say_error(code, "cannot %s %s: %s", what, path, strerror(errno));
}

/* ---- what is there --------------------------------------------------------------- */

static int is_known(const char *name) {
    for (int i = 0; known_files[i]; i++)
        if (strcmp(known_files[i], name) == 0) return 1;
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Number of entries of an open directory (closed here); *other = one that is not ours. */
static int count_entries(DIR *d, char other[NAME_MAX + 1]) {
    int n = 0;
    other[0] = '\0';
    for (struct dirent *e; (e = readdir(d));) {
        n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
        if (!is_known(e->d_name)) snprintf(other, NAME_MAX + 1, "%s", e->d_name);
    }
    closedir(d);
    return n;
}

static int check_parent(const char *target) {
    char copy[PATH_MAX];
    if ((size_t)snprintf(copy, sizeof copy, "%s", target) >= sizeof copy)
        return say_error(EX_CANTCREAT, "output: the path is too long");
    const char *parent = dirname(copy);
    if (access(parent, W_OK | X_OK) == 0) return 0;
    return say_error(errno == EACCES || errno == EROFS ? EX_NOPERM : EX_CANTCREAT,
                     "cannot make %s: %s: %s", target, parent, strerror(errno));
}

int save_check(const char *target, int replace) {
    DIR *d = opendir(target);
    if (!d && errno == ENOENT) return check_parent(target);
    if (!d)
        return say_error(errno == EACCES ? EX_NOPERM : EX_CANTCREAT, "output %s: %s",
                         target, strerror(errno));
    char other[NAME_MAX + 1];
    int n = count_entries(d, other);
    if (n && other[0])
        return say_error(EX_CANTCREAT,
                         "output %s exists and holds '%s', which is no part of "
                         "a checkpoint: give a new directory",
                         target, other);
    if (n && !replace)
        return say_error(EX_CANTCREAT, "output %s exists: give another, or --overwrite",
                         target);
    return check_parent(target);
}

/* ---- the folder ------------------------------------------------------------------ */

/* Take away a folder of ours in parent, if it is there. */
static void remove_folder(int parent, const char *name) {
    int dir = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0) return;
    for (int i = 0; known_files[i]; i++) unlinkat(dir, known_files[i], 0);
    close(dir);
    unlinkat(parent, name, AT_REMOVEDIR);
}

/* The real path of target: a symbolic link to a checkpoint stays a link. */
static int resolve(struct save *s, const char *target) {
    char path[PATH_MAX], copy[PATH_MAX];
    if (!realpath(target, path) &&
        (size_t)snprintf(path, sizeof path, "%s", target) >= sizeof path) {
        errno = ENAMETOOLONG;
        return -1;
    }
    snprintf(s->target, sizeof s->target, "%s", target);
    snprintf(copy, sizeof copy, "%s", path);
    if ((size_t)snprintf(s->name, sizeof s->name, "%s", basename(copy)) > MAX_NAME) {
        errno = ENAMETOOLONG;
        return -1;
    }
    snprintf(copy, sizeof copy, "%s", path);
    s->parent = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return s->parent < 0 ? -1 : 0;
}

/* A new folder in parent. One that a killed run left is cleared; one that cannot be,
 * because somebody put a file into what was the output, is let be. */
static int make_folder(struct save *s) {
    for (int i = 0; i < 10; i++) {
        snprintf(s->temporary, sizeof s->temporary, i ? ".%s.saving%d" : ".%s.saving",
                 s->name, i);
        remove_folder(s->parent, s->temporary);
        if (mkdirat(s->parent, s->temporary, 0777) == 0)
            return openat(s->parent, s->temporary, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (errno != EEXIST) return -1;
    }
    return -1;
}

struct save *save_begin(const char *target) {
    struct save *s = calloc(1, sizeof *s);
    if (!s) {
        say_error(EX_OSERR, "out of memory");
        return NULL;
    }
    s->parent = s->dir = -1;
    if (resolve(s, target) == 0) s->dir = make_folder(s);
    if (s->dir >= 0) return s;
    tell(target, "write");
    save_abort(s);
    return NULL;
}

void save_abort(struct save *s) {
    if (s->dir >= 0) close(s->dir);
    if (s->parent >= 0) {
        remove_folder(s->parent, s->temporary);
        close(s->parent);
    }
    free(s);
}

/* ---- files ----------------------------------------------------------------------- */

static int fail(struct save *s, const char *name) {
    char path[PATH_MAX + NAME_MAX + 2];
    snprintf(path, sizeof path, "%s/%s", s->target, name);
    s->failed = tell(path, "write");
    return s->failed;
}

static int write_all(int fd, const void *data, size_t size) {
    for (const char *p = data; size > 0;) {
        ssize_t n = write(fd, p, size < 1u << 30 ? size : 1u << 30);
        if (n < 0 && errno != EINTR) return -1;
        if (n > 0) p += n, size -= (size_t)n;
    }
    return 0;
}

static int create(struct save *s, const char *name) {
    return openat(s->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
}

/* Sync and close; rc: what came before. errno is that of the first failure. */
static int finish(int fd, int rc) {
    if (rc == 0) rc = fsync(fd);
    int saved = errno;
    if (close(fd) != 0 && rc == 0) return -1;
    errno = saved;
    return rc;
}

int save_bytes(struct save *s, const char *name, const void *data, size_t size) {
    if (s->failed) return s->failed;
    int fd = create(s, name);
    if (fd < 0 || finish(fd, write_all(fd, data, size)) != 0) return fail(s, name);
    return 0;
}

int save_json(struct save *s, const char *name, json_t *value) {
    char *text = value ? json_dumps(value, JSON_COMPACT) : NULL;
    json_decref(value);
    if (!text) return s->failed = say_error(EX_OSERR, "out of memory for %s", name);
    size_t len = strlen(text);
    text[len] = '\n'; /* in the place of the NUL: bytes, not a string, from here on */
    int rc = save_bytes(s, name, text, len + 1);
    free(text);
    return rc;
}

static json_t *make_char(uint32_t c) {
    char s[4];
    return json_stringn(s, utf8_encode(c, s));
}

static json_t *make_chars(const uint32_t *chars, int n) {
    json_t *list = json_array();
    for (int i = 0; list && i < n; i++)
        if (json_array_append_new(list, make_char(chars[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

int save_meta(struct save *s, const struct net_shape *shape, const uint32_t *chars,
              int n_chars, int chat) {
    json_t *meta = json_pack(
        "{s:i,s:i,s:i,s:i,s:i,s:o*}", "vocab_size", shape->vocab_size, "n_embd",
        shape->n_embd, "n_head", shape->n_head, "n_layer", shape->n_layer, "block_size",
        shape->block_size, "chars", chars ? make_chars(chars, n_chars) : NULL);
    if (meta && chars && !json_object_get(meta, "chars")) json_decref(meta), meta = NULL;
    if (meta && chat)
        json_object_set_new(meta, "special_tokens",
                            json_pack("[s,s,s]", "user", "assistant", "end_turn"));
    return save_json(s, "meta.json", meta);
}

int save_scratch(struct save *s) {
    static const char name[] = "scratch";
    int fd = openat(s->dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd >= 0 && unlinkat(s->dir, name, 0) == 0) return fd;
    fail(s, name);
    if (fd >= 0) close(fd);
    return -1;
}

/* ---- safetensors ----------------------------------------------------------------- */

static json_t *make_header(const struct net_shape *shape, enum mg_dtype dtype) {
    json_t *h = json_object();
    json_int_t at = 0;
    for (int i = 0; i < net_tensors(shape); i++) {
        struct net_tensor t = net_tensor(shape, i);
        json_int_t end =
            at + (json_int_t)t.rows * t.cols * (json_int_t)mg_dtype_size(dtype);
        json_t *entry = json_pack("{s:s,s:[i,i],s:[I,I]}", "dtype", mg_dtypes[dtype].name,
                                  "shape", t.rows, t.cols, "data_offsets", at, end);
        if (!h || json_object_set_new(h, t.name, entry) != 0) {
            json_decref(h);
            return NULL;
        }
        at = end;
    }
    return h;
}

/* Length (u64, little-endian) and text, padded so that the data is aligned to 64 bytes.
 */
static int write_header(int fd, const struct net_shape *shape, enum mg_dtype dtype) {
    json_t *h = make_header(shape, dtype);
    char *text = h ? json_dumps(h, JSON_COMPACT) : NULL;
    json_decref(h);
    if (!text) {
        errno = ENOMEM;
        return -1;
    }
    size_t len = strlen(text), padded = ((len + 8 + 63) & ~(size_t)63) - 8;
    unsigned char size[8];
    for (int i = 0; i < 8; i++) size[i] = (unsigned char)(padded >> 8 * i);
    int rc = write_all(fd, size, sizeof size);
    if (rc == 0) rc = write_all(fd, text, len);
    while (rc == 0 && len++ < padded) rc = write_all(fd, " ", 1);
    free(text);
    return rc;
}

/* n floats as dtype, through a small buffer. */
static int write_floats(int fd, const float *p, size_t n, enum mg_dtype dtype) {
    uint16_t half[4096];
    if (dtype == MG_F32) return write_all(fd, p, n * sizeof *p);
    while (n > 0) {
        size_t m = n < 4096 ? n : 4096;
        convert_to_half(dtype, p, m, half);
        if (write_all(fd, half, m * sizeof *half) != 0) return -1;
        p += m, n -= m;
    }
    return 0;
}

int save_tensors(struct save *s, const char *name, const struct net_shape *shape,
                 const float *params, enum mg_dtype dtype) {
    if (s->failed) return s->failed;
    int fd = create(s, name);
    if (fd < 0) return fail(s, name);
    int rc = write_header(fd, shape, dtype);
    if (rc == 0) rc = write_floats(fd, params, net_params(shape), dtype);
    return finish(fd, rc) != 0 ? fail(s, name) : 0;
}

/* All rows of tensor i through buf[SAVE_ROWS]. 0, or -1 for errno; *told: the source's
 * exit code. */
static int stream_tensor(int fd, const struct net_tensor *t, int i,
                         const struct save_source *source, float *buf, int *told) {
    int step = SAVE_ROWS / t->cols, n;
    for (int row = 0; row < t->rows; row += n) {
        n = t->rows - row < step ? t->rows - row : step;
        *told = source->read(source->from, i, row, n, buf);
        if (*told) return 0;
        if (write_all(fd, buf, (size_t)n * (size_t)t->cols * sizeof *buf) != 0) return -1;
    }
    return 0;
}

int save_stream(struct save *s, const char *name, const struct net_shape *shape,
                const struct save_source *source) {
    if (s->failed) return s->failed;
    float *buf = malloc(SAVE_ROWS * sizeof *buf);
    if (!buf) return s->failed = say_error(EX_OSERR, "out of memory for %s", name);
    int fd = create(s, name), told = 0;
    int rc = fd < 0 ? -1 : write_header(fd, shape, MG_F32);
    for (int i = 0; rc == 0 && !told && i < net_tensors(shape); i++) {
        struct net_tensor t = net_tensor(shape, i);
        rc = stream_tensor(fd, &t, i, source, buf, &told);
    }
    free(buf);
    if (fd < 0 || finish(fd, rc) != 0) return fail(s, name);
    return s->failed = told;
}

/* ---- into place ------------------------------------------------------------------ */

/* For file systems that cannot exchange (NFS). A crash between the two renames leaves the
 * old checkpoint as ".NAME.old". */
static int swap_in_two(const struct save *s) {
    char old[NAME_MAX + 1];
    snprintf(old, sizeof old, ".%s.old", s->name);
    remove_folder(s->parent, old);
    if (renameat(s->parent, s->name, s->parent, old) != 0 && errno != ENOENT) return -1;
    if (renameat(s->parent, s->temporary, s->parent, s->name) != 0) {
        int saved = errno;
        renameat(s->parent, old, s->parent, s->name);
        errno = saved;
        return -1;
    }
    fsync(s->parent);
    remove_folder(s->parent, old);
    return 0;
}

/* Give the folder the target's name; what was there has the folder's name afterwards. */
static int swap_in(const struct save *s) {
    const unsigned ways[] = {RENAME_NOREPLACE, RENAME_EXCHANGE};
    for (int i = 0; i < 2; i++) {
        if (renameat2(s->parent, s->temporary, s->parent, s->name, ways[i]) == 0)
            return 0;
        if (errno == EINVAL || errno == ENOSYS) return swap_in_two(s);
        if (errno != EEXIST) return -1;
    }
    return -1;
}

int save_commit(struct save *s) {
    int rc = s->failed;
    if (!rc && (fsync(s->dir) != 0 || swap_in(s) != 0)) rc = tell(s->target, "replace");
    if (!rc && fsync(s->parent) != 0) rc = tell(s->target, "sync the folder of");
    save_abort(s);
    return rc;
}
