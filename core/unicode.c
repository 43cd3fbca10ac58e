/* SPDX-License-Identifier: Apache-2.0
 * unicode.c - see unicode.h. Texts stay in a range for many characters, so a caller keeps
 * the last one and asks again only when it leaves it. */
#include "unicode.h"

#include <stddef.h>

/* Code point << 2 | class, where the class changes; ascending. */
static const uint32_t change[] = {
#include "unicode_classes.inc.h"
};

enum { N_CHANGES = sizeof change / sizeof *change };

struct mg_class_range mg_unicode_range(uint32_t c) {
    size_t low = 0, high = N_CHANGES; /* change[low] <= c < change[high] */
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (change[middle] >> 2 <= c)
            low = middle;
        else
            high = middle;
    }
    return (struct mg_class_range){
        .first = change[low] >> 2,
        .end = high < N_CHANGES ? change[high] >> 2 : UINT32_MAX,
        .class = (enum mg_class)(change[low] & 3),
    };
}
