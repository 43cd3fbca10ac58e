/* SPDX-License-Identifier: Apache-2.0
 * unicode.h - the classes of code points that the pattern of byte-level BPE knows
 * (Unicode 16.0). Internal to core. */
#ifndef MG_UNICODE_H
#define MG_UNICODE_H

#include <stdint.h>

/* General category L*, N*, the property White_Space; all else is other. */
enum mg_class { MG_OTHER, MG_LETTER, MG_NUMBER, MG_SPACE };

struct mg_class_range {
    uint32_t first, end; /* code points first ... end - 1 */
    enum mg_class class; /* are all of this class */
};

/* The longest range around code point c. What follows the last code point is other. */
struct mg_class_range mg_unicode_range(uint32_t c);

#endif
