/* SPDX-License-Identifier: Apache-2.0
 * config_keys.h - the table of keys and how one value is read and printed. Knows nothing
 * of files, environment or flags (config.c). */
#ifndef CONFIG_KEYS_H
#define CONFIG_KEYS_H

#include "config.h"

enum key_type {
    KEY_TEXT,   /* char[max + 1] */
    KEY_LISTEN, /* char[max + 1]: unix:/path, host:port, [v6]:port, *:port */
    KEY_INT,    /* int */
    KEY_OCTAL,  /* int */
    KEY_SIZE,   /* size_t, bytes; suffixes k, m, g (powers of 1024) */
    KEY_TIME,   /* int64_t, milliseconds; suffixes ms, s, m, h; bare = seconds */
    KEY_CHOICE, /* int: position of the word in `words` */
};

struct config_key {
    const char *name;
    enum key_type type;
    size_t offset;    /* into struct config */
    int64_t min, max; /* KEY_TEXT: lengths */
    const char *fallback;
    const char *empty; /* the word that stands for 0 or "", NULL = none */
    const char *words; /* KEY_CHOICE: separated by one space */
    const char *help;  /* one line, lower case, no full stop */
};

enum { CONFIG_MAX_KEYS = 32 }; /* room for tables beside this one */
extern const struct config_key config_keys[];
extern const int config_n_keys;

/* The key of that name, - and _ being the same; NULL if there is none. */
const struct config_key *config_key_find(const char *name, size_t len);
/* Store the value text into *c. 0, or -1 with what is wrong and what is allowed in error.
 */
int config_key_set(const struct config_key *, struct config *c, const char *value,
                   char *error, size_t size);
/* Print the value in *c as the file would have it. */
void config_key_print(const struct config_key *, const struct config *c, char *out,
                      size_t size);

#endif
