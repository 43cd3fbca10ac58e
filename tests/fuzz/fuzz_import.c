/* SPDX-License-Identifier: Apache-2.0
 * A JSON dump from a stranger: refused with one line that begins with its name, or a plan
 * whose rows can be read. */
#include <string.h>
#include <unistd.h>

#include "../../core/train/import.h"
#include "fuzz.h"

enum { ROW = 4096 };

static void read_rows(struct import *im) {
    static float row[ROW];
    struct mg_error err = {0};
    if (im->sizes.n_embd > ROW) return;
    import_rows(im, 0, 0, 1, row, &err);
    import_rows(im, 0, im->sizes.vocab_size - 1, 1, row, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mg_error err = {0};
    struct import_options o = {0};
    int file = fuzz_file(data, size), spool = fuzz_file("", 0);
    struct import *im = import_new(spool, &err);
    FUZZ_CHECK(im);
    if (import_read(im, file, "f", &err) || import_plan(im, &o, &err)) {
        fuzz_check_line(err.text);
        FUZZ_CHECK(!strncmp(err.text, "f: ", 3));
    } else {
        read_rows(im);
    }
    import_free(im);
    close(file);
    close(spool);
    return 0;
}
