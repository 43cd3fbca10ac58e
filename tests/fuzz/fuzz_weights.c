/* SPDX-License-Identifier: Apache-2.0
 * weights.safetensors from a stranger: refused with one line, or a file whose tensors lie
 * in it. */
#include <stdio.h>
#include <unistd.h>

#include "../../core/checkpoint.h"
#include "fuzz.h"

static void check(struct mg_weights *w) {
    static const char *const names[] = {"wte", "wpe", "lm_head", "layer0.attn_wq", ""};
    struct mg_error err = {0};
    struct mg_matrix m;
    size_t size, unbound;
    const char *map = mg_weights_map(w, &size);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (mg_weights_bind(w, names[i], 2, 2, &m, &err)) {
            fuzz_check_line(err.text);
            continue;
        }
        size_t bytes = 4 * mg_dtype_size(m.dtype);
        FUZZ_CHECK((const char *)m.data >= map + 8);
        FUZZ_CHECK((const char *)m.data + bytes <= map + size);
    }
    mg_weights_unbound(w, &unbound);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct mg_error err = {0};
    char path[64];
    int fd = fuzz_file(data, size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    struct mg_weights *w = mg_weights_open(path, &err);
    if (w)
        check(w);
    else
        fuzz_check_line(err.text);
    mg_weights_close(w);
    close(fd);
    return 0;
}
