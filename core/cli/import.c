/* SPDX-License-Identifier: Apache-2.0
 * import.c - `microgpt import`: a checkpoint from a JSON dump of the microgpt family.
 * What such a dump may look like is known to core/train/import*.c; here it is opened,
 * and the result saved whole or not at all, and checked. */
#include "cli.h"
#include "../train/import.h"
#include "../train/save.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

struct command_line {
    const char *file, *meta, *output;
    int overwrite, in_out;
    int64_t n_head;
};

/* The code for what went wrong in the importer. */
static int fail(const struct import *im, const struct mg_error *err) {
    int rc = say_model_error(err);
    return im->spool_failed ? EX_IOERR : rc;
}

/* One file of the dump; "-" is standard input. */
static int read_file(struct import *im, const char *path) {
    struct mg_error err = {0};
    int is_stdin = strcmp(path, "-") == 0;
    int fd = is_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return say_error(errno == EACCES ? EX_NOPERM : EX_NOINPUT, "%s: %s", path,
                         strerror(errno));
    int rc = import_read(im, fd, is_stdin ? "standard input" : path, &err);
    if (!is_stdin) close(fd);
    return rc ? fail(im, &err) : 0;
}

static int read_rows(void *from, int i, int row, int n, float *out) {
    struct mg_error err = {0};
    return import_rows(from, i, row, n, out, &err) ? say_model_error(&err) : 0;
}

static int read_dump(struct import *im, const struct command_line *c) {
    struct import_options o = {.n_head = (int)c->n_head, .in_out = c->in_out};
    struct mg_error err = {0};
    int rc = c->meta ? read_file(im, c->meta) : 0;
    if (!rc) rc = read_file(im, c->file);
    if (!rc && import_plan(im, &o, &err)) rc = fail(im, &err);
    for (int i = 0; !rc && i < im->n_notes; i++)
        say_note("%s: %s", im->file, im->note[i]);
    return rc;
}

static int write_checkpoint(struct save *s, struct import *im) {
    const struct mg_sizes *z = &im->sizes;
    struct net_shape shape = {z->vocab_size, z->n_embd, z->n_head, z->n_layer,
                              z->block_size};
    struct save_source source = {read_rows, im};
    int rc = save_meta(s, &shape, im->chars, im->n_chars, im->has_chat);
    return rc ? rc : save_stream(s, "weights.safetensors", &shape, &source);
}

/* Read and write with everything beside the output; 0 when it is in place. */
static int convert(const struct command_line *c) {
    struct mg_error err = {0};
    struct save *s = save_begin(c->output);
    int spool = s ? save_scratch(s) : -1;
    struct import *im = spool < 0 ? NULL : import_new(spool, &err);
    int rc = im ? read_dump(im, c) : spool < 0 ? EX_IOERR : say_model_error(&err);
    if (!rc) rc = write_checkpoint(s, im);
    import_free(im);
    if (spool >= 0) close(spool);
    if (s && !rc) return save_commit(s);
    if (s) save_abort(s);
    return rc;
}

int import_main(const struct cli_command *self, int argc, char **argv) {
    struct command_line c = {0};
    struct cli_option table[] = {
        {"output", "DIR", CLI_STRING, &c.output, 0, 0, "the checkpoint to make", 0},
        {"n-head", "N", CLI_INT, &c.n_head, 1, 1 << 16,
         "attention heads, where the dump does not say", 0},
        {"meta", "FILE", CLI_STRING, &c.meta, 0, 0,
         "a file with sizes and characters, where the dump has none", 0},
        {"in-out", NULL, CLI_FLAG, &c.in_out, 0, 0,
         "its linear layers are [in, out]: y = x W", 0},
        {"overwrite", NULL, CLI_FLAG, &c.overwrite, 0, 0,
         "replace a checkpoint that is there", 0},
        {0},
    };
    int rc = cli_parse(self, table, argc, argv, &c.file);
    if (rc >= 0) return rc;
    if (!c.file || !c.output)
        return say_error(EX_USAGE, "import: give FILE.json and --output DIR");
    if ((rc = save_check(c.output, c.overwrite)) != 0) return rc;
    signal(SIGXFSZ, SIG_IGN); /* a file that may not grow is an error, not a death */
    rc = convert(&c);
    return rc ? rc : check_checkpoint(c.output, 0);
}
