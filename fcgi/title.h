/* SPDX-License-Identifier: Apache-2.0
 * title.h - what ps shows: "microgpt-fcgi: worker 3 (chat)". */
#ifndef TITLE_H
#define TITLE_H

/* First thing in main: the memory behind argv and environ becomes the title's. Returns a
 * copy of argv to use instead (argv itself if there is no memory for one: titles then
 * stay as they are). */
char **title_init(int argc, char **argv);
/* Cut to what fits. */
void title_set(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
