/* SPDX-License-Identifier: Apache-2.0
 * A configuration file: taken, or refused with one line and an exit code of its kind. */
#include <stdio.h>
#include <sysexits.h>
#include <unistd.h>

#include "../../fcgi/config.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char path[64], error[512] = "";
    int fd = fuzz_file(data, size);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    char name[] = "microgpt-fcgi", flag[] = "-c", *argv[] = {name, flag, path, NULL};
    static struct config c;
    static struct config_action a;
    int rc = config_load(&c, &a, 3, argv, error, sizeof error);
    if (rc) {
        FUZZ_CHECK(rc == EX_CONFIG);
        fuzz_check_line(error);
    } else {
        FUZZ_CHECK(c.workers > 0 && c.backlog > 0 && c.chunk > 0 && c.max_body > 0);
    }
    close(fd);
    return 0;
}
