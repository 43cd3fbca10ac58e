/* SPDX-License-Identifier: Apache-2.0
 * The metrics file, which others may write to while it is mapped: whatever it holds, it
 * is counted in and shown as text that ends. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../fcgi/metrics_table.h"
#include "fuzz.h"

static char *table;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    struct config c = {.workers = 1, .metrics = "/dev/shm/mg-fuzz-metrics-XXXXXX"};
    char error[512];
    int slot, fd = mkstemp(c.metrics);
    (void)argc, (void)argv;
    if (fd < 0 || metrics_attach(&c, &slot, error, sizeof error)) return 1;
    close(fd);
    unlink(c.metrics);
    table = (char *)metrics_table();
    return 0;
}

static void show(char *(*render)(size_t *)) {
    size_t len;
    char *text = render(&len);
    if (text) FUZZ_CHECK(len > 0 && !memchr(text, 0, len));
    free(text);
}

/* The input lies over the table from the offset in its first bytes. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static char before[sizeof(struct table)];
    struct fuzz_bytes in = {data, size};
    size_t at = fuzz_byte(&in), last = sizeof before;
    at |= (size_t)fuzz_byte(&in) << 8;
    at |= (size_t)fuzz_byte(&in) << 16;
    at %= last;
    size_t n = in.left < last - at ? in.left : last - at;
    memcpy(before, table + at, n);
    if (n) memcpy(table + at, in.at, n);
    metrics_request(EP_CHAT, 200, 1000);
    show(metrics_render);
    show(metrics_status);
    memcpy(table + at, before, n);
    return 0;
}
