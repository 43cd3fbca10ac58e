/* SPDX-License-Identifier: Apache-2.0
 * If-None-Match from a client: it names our tag only if the tag stands in it, or "*". */
#include <stdlib.h>
#include <string.h>

#include "../../fcgi/etag.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char tag[] = "\"00112233445566778899aabbccddeeff\"";
    char *text = malloc(size + 1);
    FUZZ_CHECK(text);
    if (size) memcpy(text, data, size);
    text[size] = '\0';
    if (etag_matches(text, tag)) FUZZ_CHECK(strstr(text, tag) || strchr(text, '*'));
    free(text);
    return 0;
}
