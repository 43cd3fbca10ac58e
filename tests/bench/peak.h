/* SPDX-License-Identifier: Apache-2.0
 *
 * peak.h - what this core can do at most: the yardsticks of the bench. */
#ifndef PEAK_H
#define PEAK_H

#include <stddef.h>

/* Seconds of processor time of this thread: what other programs take does not count. */
double now(void);

/* Floating point operations per second of fused multiply-adds from registers, in the
 * widest vectors the compiler has for this machine. */
double peak_flops(void);

/* Bytes per second of reading size bytes over and over, as far as caches help. */
double peak_read(const void *data, size_t size);

#endif
