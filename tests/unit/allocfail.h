/* SPDX-License-Identifier: Apache-2.0
 *
 * allocfail.h - makes the n-th allocation of the test program fail: malloc, calloc,
 * realloc, the aligned ones, strdup, strndup and mmap, whoever calls them (Jansson and
 * libc included).
 *
 *     for (long n = 1;; n++) {
 *         allocfail_arm(n);
 *         result = the_thing();
 *         if (!allocfail_disarm()) break;   // fewer than n allocations: all have failed
 * once the_thing must have said so, and left nothing behind
 *     }
 */
#ifndef ALLOCFAIL_H
#define ALLOCFAIL_H

/* From now on the n-th allocation (1 = the next) of this thread fails, once; 0: none,
 * count. */
void allocfail_arm(long n);
/* Back to normal; returns 1 if an allocation was made to fail since allocfail_arm. */
int allocfail_disarm(void);
/* Allocations of this thread since the last allocfail_arm, the failed one included. */
long allocfail_count(void);

#endif
