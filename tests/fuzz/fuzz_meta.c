/* SPDX-License-Identifier: Apache-2.0
 * meta.json from a stranger: refused with one line, or sizes within the limits that the
 * arithmetic of the loader counts on. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../core/meta.h"
#include "fuzz.h"

static int dir = -1;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    char path[] = "/dev/shm/mg-fuzz-XXXXXX";
    (void)argc, (void)argv;
    if (!mkdtemp(path)) return 1;
    dir = open(path, O_DIRECTORY | O_CLOEXEC);
    return dir < 0;
}

static void check(const struct mg_meta *m) {
    FUZZ_CHECK(m->vocab_size > 0 && m->vocab_size <= MG_MAX_VOCAB);
    FUZZ_CHECK(m->n_embd > 0 && m->n_embd <= MG_MAX_EMBD && m->n_head > 0);
    FUZZ_CHECK(m->n_embd % m->n_head == 0);
    FUZZ_CHECK(m->n_layer > 0 && m->n_layer <= MG_MAX_LAYER);
    FUZZ_CHECK(m->block_size > 0 && m->block_size <= MG_MAX_BLOCK);
    FUZZ_CHECK(m->chars || m->has_bpe || m->n_chars == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mg_error err = {0};
    struct mg_meta meta = {0};
    int fd = openat(dir, "meta.json", O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
    FUZZ_CHECK(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    close(fd);
    if (mg_meta_read(dir, "d", &meta, &err))
        fuzz_check_line(err.text);
    else
        check(&meta);
    mg_meta_free(&meta);
    return 0;
}
