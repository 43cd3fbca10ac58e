/* SPDX-License-Identifier: Apache-2.0
 * import_vocab.c - the characters of a dump and which id begins a text. The list may be
 * an array, a string or an object from token to id, with bos in it or beside it; a
 * checkpoint has bos behind the last character, so the row of bos may have to move. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "../meta.h"
#include "import.h"
#include "utf8.h"

/* One token of a list: a character, or a name. */
struct entry {
    uint32_t code; /* IMPORT_NAMED when text is not one character */
    char text[32]; /* cut */
};

static const char *show(uint32_t code, char buf[16]) {
    buf[utf8_encode(code, buf)] = '\0';
    return buf;
}

/* ---- reading ----------------------------------------------------------------------- */

static int grow(struct import *im, int n) {
    struct import_vocab *v = &im->vocab;
    while (v->cap < n) {
        int cap = v->cap ? 2 * v->cap : 256;
        uint32_t *code = realloc(v->code, (size_t)cap * sizeof *code);
        if (!code) return import_no_memory(im);
        v->code = code, v->cap = cap;
    }
    while (v->n < n) v->code[v->n++] = IMPORT_HOLE;
    return 0;
}

static int put_name(struct import_vocab *v, struct pull *p, int64_t id,
                    const struct entry *e) {
    if (v->named >= 0 && v->named != id)
        return pull_fail(p,
                         "found \"%s\" beside \"%s\", expected single characters: a "
                         "vocabulary of words or pieces is not supported",
                         e->text, v->name);
    v->named = (int)id;
    memcpy(v->name, e->text, sizeof v->name);
    return 0;
}

static int put(struct import *im, struct pull *p, int64_t id, const struct entry *e) {
    struct import_vocab *v = &im->vocab;
    if (id < 0 || id >= MG_MAX_VOCAB)
        return pull_fail(p, "found id %lld, expected 0 to %d", (long long)id,
                         MG_MAX_VOCAB - 1);
    if (grow(im, (int)id + 1)) return -1;
    if (v->code[id] != IMPORT_HOLE && v->code[id] != e->code)
        return pull_fail(p, "found \"%s\" for id %lld, which stands for another token",
                         e->text, (long long)id);
    v->code[id] = e->code;
    return e->code == IMPORT_NAMED ? put_name(v, p, id, e) : 0;
}

/* The string that begins here. */
static int read_entry(struct pull *p, struct entry *e) {
    size_t len = 0;
    int n = 0, more;
    for (uint32_t c; (more = pull_char(p, &c)) > 0; n++) {
        e->code = c;
        if (len + 4 < sizeof e->text) len += utf8_encode(c, e->text + len);
    }
    e->text[len] = '\0';
    if (n != 1) e->code = IMPORT_NAMED;
    return more;
}

static int read_array(struct import *im, struct pull *p, int64_t *n) {
    char found[PULL_DESCRIBE];
    for (enum pull_token t; (t = pull_next(p)) != PULL_ARRAY_END; ++*n) {
        struct entry e;
        if (t == PULL_ERROR) return -1;
        if (t != PULL_STRING)
            return pull_fail(p, "found %s, expected a string",
                             pull_describe(p, t, found));
        if (read_entry(p, &e) || put(im, p, *n, &e)) return -1;
    }
    return 0;
}

/* A string: each character a token. */
static int read_string(struct import *im, struct pull *p, int64_t *n) {
    int more;
    for (struct entry e; (more = pull_char(p, &e.code)) > 0; ++*n) {
        show(e.code, e.text);
        if (put(im, p, *n, &e)) return -1;
    }
    return more;
}

static void parse_key(const char *key, struct entry *e) {
    int32_t code = 0;
    size_t len = strlen(key);
    int n = len ? utf8_decode(key, key + len, &code) : 0;
    e->code = n > 0 && (size_t)n == len ? (uint32_t)code : IMPORT_NAMED;
    strncpy(e->text, key, sizeof e->text - 1);
    e->text[sizeof e->text - 1] = '\0';
}

/* An object from token to id, in any order. */
static int read_object(struct import *im, struct pull *p, int64_t *n) {
    char found[PULL_DESCRIBE];
    for (enum pull_token t; (t = pull_next(p)) != PULL_OBJECT_END;) {
        struct entry e;
        if (t == PULL_ERROR) return -1;
        if (t != PULL_NUMBER ||
            strspn(pull_number(p), "0123456789") != strlen(pull_number(p)))
            return pull_fail(p, "found %s, expected an id", pull_describe(p, t, found));
        int64_t id = strtoll(pull_number(p), NULL, 10);
        parse_key(pull_key(p), &e);
        if (put(im, p, id, &e)) return -1;
        if (id >= *n) *n = id + 1;
    }
    return 0;
}

int import_read_vocab(struct import *im, struct pull *p, enum pull_token token) {
    struct import_vocab *v = &im->vocab;
    char found[PULL_DESCRIBE], path[PULL_PATH];
    int again = v->path[0] != '\0', before = v->n, rc;
    int64_t n = 0;
    pull_path(p, path);
    if (token == PULL_ARRAY)
        rc = read_array(im, p, &n);
    else if (token == PULL_OBJECT)
        rc = read_object(im, p, &n);
    else if (token == PULL_STRING)
        rc = read_string(im, p, &n);
    else
        return pull_fail(p, "found %s, expected the characters: an array or a string",
                         pull_describe(p, token, found));
    if (rc) return -1;
    if (again && n != before)
        return pull_fail(p, "found %lld tokens, but %s has %d", (long long)n, v->path,
                         before);
    memcpy(v->path, path, sizeof path);
    return 0;
}

int import_read_bos(struct import *im, struct pull *p, enum pull_token token) {
    struct import_vocab *v = &im->vocab;
    char found[PULL_DESCRIBE];
    const char *text = pull_number(p);
    if (token == PULL_NULL) return 0;
    if (token == PULL_STRING) return pull_string(p, v->bos_text, sizeof v->bos_text);
    if (token != PULL_NUMBER || strspn(text, "0123456789") != strlen(text))
        return pull_fail(p, "found %s, expected the id of a token",
                         pull_describe(p, token, found));
    int64_t id = strtoll(text, NULL, 10);
    if (v->bos >= 0 && v->bos != id)
        return pull_fail(p, "found %lld, but bos was %lld before", (long long)id,
                         (long long)v->bos);
    v->bos = id;
    return 0;
}

/* ---- matching ---------------------------------------------------------------------- */

static int looks_like_bos(const char *name) {
    static const char *const parts[] = {"bos", "start", "endoftext", "begin", NULL};
    if (!*name || strcmp(name, "<s>") == 0 || strcmp(name, "<S>") == 0) return 1;
    for (int i = 0; parts[i]; i++)
        if (strcasestr(name, parts[i])) return 1;
    return 0;
}

/* The id in the list that has this code, -1 if none. */
static int find_code(const struct import_vocab *v, uint32_t code) {
    for (int i = 0; i < v->n; i++)
        if (v->code[i] == code) return i;
    return -1;
}

/* The named token must be bos. */
static int check_named(struct import *im) {
    const struct import_vocab *v = &im->vocab;
    int is_bos =
        v->bos == v->named ||
        (v->bos < 0 && (strcmp(v->name, v->bos_text) == 0 || looks_like_bos(v->name)));
    if (is_bos) return v->named;
    return import_fail(im,
                       "%s[%d]: found \"%s\", expected single characters: a vocabulary "
                       "of words or pieces is not supported",
                       v->path, v->named, v->name);
}

/* The id of bos in the dump, -1 after a complaint. Where nothing says it, it is the one
 * behind the characters. */
static int find_bos(struct import *im) {
    const struct import_vocab *v = &im->vocab;
    struct entry e;
    if (v->named >= 0) return check_named(im);
    if (v->bos > v->n)
        return import_fail(im, "bos is %lld, but %s has ids 0 to %d", (long long)v->bos,
                           v->path, v->n - 1);
    if (v->bos >= 0) return (int)v->bos;
    parse_key(v->bos_text, &e);
    int id = find_code(v, e.code == IMPORT_NAMED ? IMPORT_HOLE : e.code);
    return id >= 0 ? id : v->n;
}

static int has_chat(const struct import *im, int rows) {
    const struct import_vocab *v = &im->vocab;
    return v->has_special && v->named < 0 && rows == v->n + 4 &&
           (v->bos < 0 || v->bos == v->n + 3);
}

/* Copy the list but for the id skip (-1 = none); no holes, no character twice. */
static int copy_chars(struct import *im, int skip) {
    const struct import_vocab *v = &im->vocab;
    unsigned char *seen = calloc(0x110000 / 8, 1);
    im->chars = calloc((size_t)v->n + 1, sizeof *im->chars);
    int rc = seen && im->chars ? 0 : import_no_memory(im);
    for (int i = 0; !rc && i < v->n; i++) {
        uint32_t c = v->code[i];
        char text[16];
        if (i == skip) continue;
        if (c == IMPORT_HOLE)
            rc = import_fail(im, "%s: no token has id %d", v->path, i);
        else if (seen[c / 8] >> c % 8 & 1)
            rc = import_fail(im, "%s: \"%s\" is there twice", v->path, show(c, text));
        else
            seen[c / 8] |= (unsigned char)(1 << c % 8), im->chars[im->n_chars++] = c;
    }
    free(seen);
    return rc;
}

int import_plan_vocab(struct import *im, int rows) {
    struct import_vocab *v = &im->vocab;
    char text[16];
    if (!*v->path)
        return import_fail(im, "no characters: expected uchars, chars or vocab, an array "
                               "or a string of them");
    im->has_chat = has_chat(im, rows);
    int bos = im->has_chat ? rows - 1 : find_bos(im);
    if (bos < 0) return -1;
    int listed = bos < v->n && (rows == v->n || v->code[bos] >= IMPORT_NAMED);
    if (!im->has_chat && rows != v->n + !listed)
        return import_fail(im,
                           "%s has %d tokens and wte has %d rows, expected %d: the "
                           "characters and bos",
                           v->path, v->n, rows, v->n + !listed);
    if (copy_chars(im, listed ? bos : -1)) return -1;
    if (listed && v->code[bos] < IMPORT_NAMED)
        import_note(im,
                    "\"%s\" (id %d) is bos: it begins and ends a text and is not in one",
                    show(v->code[bos], text), bos);
    if (bos != rows - 1) import_note(im, "bos moves from id %d to %d", bos, rows - 1);
    im->bos_row = bos;
    return 0;
}
