/* SPDX-License-Identifier: Apache-2.0
 * meta.c - meta.json, checked field by field (microgpt-checkpoint(5)). Knows nothing of
 * the weights: whether the sizes are those of the tensors is seen when the model binds
 * them.
 */
#include "meta.h"

#include <stdlib.h>
#include <sys/stat.h>

#include "digest.h"
#include "error.h"
#include "file.h"
#include "json.h"
#include "text.h"

enum { META_BYTES = 16 << 20, CODE_POINTS = 0x110000 };

static int read_size(const char *path, const struct mg_json *meta, const char *key,
                     int max, int *out, struct mg_error *err) {
    const struct mg_json *v = mg_json_get(meta, key);
    int64_t n;
    char found[MG_JSON_DESCRIBE];
    if (mg_json_int(v, &n) || n < 1 || n > max)
        return mg_fail(err, MG_EFILE,
                       "%s: %s: found %s, expected an integer from 1 to %d", path, key,
                       mg_json_describe(v, found), max);
    *out = (int)n;
    return 0;
}

static int read_sizes(const char *path, const struct mg_json *json, struct mg_meta *m,
                      struct mg_error *err) {
    if (read_size(path, json, "vocab_size", MG_MAX_VOCAB, &m->vocab_size, err) ||
        read_size(path, json, "n_embd", MG_MAX_EMBD, &m->n_embd, err) ||
        read_size(path, json, "n_head", MG_MAX_EMBD, &m->n_head, err) ||
        read_size(path, json, "n_layer", MG_MAX_LAYER, &m->n_layer, err) ||
        read_size(path, json, "block_size", MG_MAX_BLOCK, &m->block_size, err))
        return -1;
    if (m->n_embd % m->n_head)
        return mg_fail(err, MG_EFILE,
                       "%s: n_embd: found %d, expected a multiple of n_head, %d", path,
                       m->n_embd, m->n_head);
    return 0;
}

/* Present, whatever it holds: trained for chat. */
static int read_special(const char *path, const struct mg_json *json, struct mg_meta *m,
                        struct mg_error *err) {
    const struct mg_json *v = mg_json_get(json, "special_tokens");
    char found[MG_JSON_DESCRIBE];
    if (v && !mg_json_is_null(v) && !mg_json_is_array(v))
        return mg_fail(err, MG_EFILE,
                       "%s: special_tokens: found %s, expected an array or null", path,
                       mg_json_describe(v, found));
    m->has_chat = mg_json_is_array(v);
    return 0;
}

/* The i-th of chars as a code point. */
static int read_char(const char *path, const struct mg_json *chars, int i, uint32_t *c,
                     struct mg_error *err) {
    const struct mg_json *v = mg_json_at(chars, (size_t)i);
    size_t len;
    const char *text = mg_json_string(v, &len);
    char found[MG_JSON_DESCRIBE];
    if (!text)
        return mg_fail(err, MG_EFILE, "%s: chars[%d]: found %s, expected a string", path,
                       i, mg_json_describe(v, found));
    if (len == 0)
        return mg_fail(err, MG_EFILE,
                       "%s: chars[%d]: found an empty string, expected one "
                       "character",
                       path, i);
    if ((size_t)mg_utf8_next(text, text + len, c) != len)
        return mg_fail(err, MG_EFILE,
                       "%s: chars[%d]: found \"%.40s\", expected one character", path, i,
                       text);
    return 0;
}

static int check_duplicates(const char *path, const struct mg_meta *m,
                            struct mg_error *err) {
    unsigned char *seen = calloc(CODE_POINTS / 8, 1);
    if (!seen) return mg_fail(err, MG_ENOMEM, "%s: out of memory", path);
    int i = 0;
    for (; i < m->n_chars; i++) {
        uint32_t c = m->chars[i];
        if (seen[c / 8] >> c % 8 & 1) break;
        seen[c / 8] |= (unsigned char)(1 << c % 8);
    }
    free(seen);
    if (i == m->n_chars) return 0;
    int first = 0;
    while (m->chars[first] != m->chars[i]) first++;
    return mg_fail(
        err, MG_EFILE,
        "%s: chars[%d]: found U+%04X again (as chars[%d]), expected no duplicates", path,
        i, (unsigned)m->chars[i], first);
}

static int read_chars(const char *path, const struct mg_json *chars, struct mg_meta *m,
                      struct mg_error *err) {
    char found[MG_JSON_DESCRIBE];
    if (!mg_json_is_array(chars))
        return mg_fail(err, MG_EFILE, "%s: chars: found %s, expected an array of strings",
                       path, mg_json_describe(chars, found));
    m->n_chars = (int)mg_json_size(chars);
    m->chars = malloc(sizeof *m->chars * ((size_t)m->n_chars + 1));
    if (!m->chars) return mg_fail(err, MG_ENOMEM, "%s: out of memory", path);
    for (int i = 0; i < m->n_chars; i++)
        if (read_char(path, chars, i, &m->chars[i], err)) return -1;
    if (check_duplicates(path, m, err)) return -1;
    int extra = m->has_chat ? 4 : 1;
    if (m->vocab_size != m->n_chars + extra)
        return mg_fail(err, MG_EFILE,
                       "%s: vocab_size: found %d, expected %d: %d chars + %d%s", path,
                       m->vocab_size, m->n_chars + extra, m->n_chars, extra,
                       m->has_chat ? " (special_tokens is there)" : "");
    return 0;
}

static int read_fields(const char *path, const struct mg_json *json, struct mg_meta *m,
                       struct mg_error *err) {
    const struct mg_json *chars = mg_json_get(json, "chars");
    if (!chars && !m->has_bpe)
        return mg_fail(err, MG_EFILE,
                       "%s: found neither chars in meta.json nor a file "
                       "tokenizer.json beside it, expected one of them",
                       path);
    if (read_sizes(path, json, m, err) || read_special(path, json, m, err)) return -1;
    return chars ? read_chars(path, chars, m, err) : 0;
}

int mg_meta_read(int dirfd, const char *dir, struct mg_meta *m, struct mg_error *err) {
    *m = (struct mg_meta){0};
    char *path = mg_file_path(dir, "meta.json");
    if (!path) return mg_fail(err, MG_ENOMEM, "%s: out of memory", dir);
    struct mg_json_text *json = NULL;
    int result = -1;
    size_t len = 0;
    char *text = mg_file_read(dirfd, "meta.json", path, META_BYTES, &len, err);
    if (text) json = mg_json_open(path, text, len, err);
    if (json) {
        struct stat st;
        m->digest = mg_digest(text, len);
        m->has_bpe = !fstatat(dirfd, "tokenizer.json", &st, 0);
        result = read_fields(path, mg_json_root(json), m, err);
    }
    mg_json_close(json);
    free(text);
    free(path);
    return result;
}

void mg_meta_free(struct mg_meta *m) {
    free(m->chars);
    m->chars = NULL;
}
