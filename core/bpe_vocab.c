/* SPDX-License-Identifier: Apache-2.0
 * bpe_vocab.c - tokens, added tokens and merges of a tokenizer.json into the tables that
 * encoding and decoding use. All is checked against itself: ids are dense and unique,
 * parts and products of merges are tokens. Knows no settings (bpe_load.c). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bpe.h"
#include "error.h"
#include "meta.h"
#include "text.h"

/* ---- bytes and symbols ------------------------------------------------------------- */

static int is_itself(uint32_t c) {
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) ||
           (c >= 0xAE && c <= 0xFF);
}

uint32_t mg_bpe_symbol(unsigned char byte) {
    uint32_t others = 0;
    if (is_itself(byte)) return byte;
    for (uint32_t c = 0; c < byte; c++) others += !is_itself(c);
    return 0x100 + others;
}

int mg_bpe_byte(uint32_t c) {
    if (c < 0x100) return is_itself(c) ? (int)c : -1;
    if (c <= 0x120) return (int)(c - 0x100);        /* 00-20 */
    if (c <= 0x142) return (int)(c - 0x121) + 0x7F; /* 7F-A0 */
    return c == 0x143 ? 0xAD : -1;
}

/* ---- tokens ------------------------------------------------------------------------ */

struct name {
    const char *text; /* [len] borrowed from the JSON */
    size_t len;
};

struct loader {
    struct mg_bpe *bpe;
    const char *path;
    struct mg_error *err;
    const struct mg_json *vocab;
    int n_vocab;        /* tokens of vocab, ids 0 ... n_vocab - 1 */
    struct name *names; /* [n_vocab + added tokens] by id */
    char pair[2 * MG_BPE_MAX_TOKEN + 1];
};

static int fail_memory(const struct loader *l) {
    return mg_fail(l->err, MG_ENOMEM, "%s: out of memory for its tokens", l->path);
}

static int check_length(const struct loader *l, const char *where, size_t len) {
    if (len > 0 && len <= MG_BPE_MAX_TOKEN) return 0;
    return mg_fail(l->err, MG_EFILE,
                   "%s: %s: found a token of %zu bytes, expected 1 to %d", l->path, where,
                   len, MG_BPE_MAX_TOKEN);
}

/* The token called key has this id. */
static int take_token(struct loader *l, const char *key, const struct mg_json *v) {
    int64_t id;
    char found[MG_JSON_DESCRIBE], where[64];
    snprintf(where, sizeof where, "model.vocab[\"%.40s\"]", key);
    if (check_length(l, where, strlen(key))) return -1;
    if (mg_json_int(v, &id) || id < 0 || id >= l->n_vocab)
        return mg_fail(l->err, MG_EFILE,
                       "%s: %s: found %s, expected an id from 0 to %d (%d tokens, no id "
                       "left out)",
                       l->path, where, mg_json_describe(v, found), l->n_vocab - 1,
                       l->n_vocab);
    struct name *name = &l->names[id];
    if (name->text)
        return mg_fail(l->err, MG_EFILE,
                       "%s: %s: found id %d again (\"%.40s\" has it), expected another",
                       l->path, where, (int)id, name->text);
    *name = (struct name){key, strlen(key)};
    return 0;
}

static int read_vocab(struct loader *l) {
    char found[MG_JSON_DESCRIBE];
    if (!mg_json_is_object(l->vocab))
        return mg_fail(l->err, MG_EFILE, "%s: model.vocab: found %s, expected an object",
                       l->path, mg_json_describe(l->vocab, found));
    size_t n = mg_json_size(l->vocab);
    if (n < 1 || n > MG_MAX_VOCAB)
        return mg_fail(l->err, MG_EFILE,
                       "%s: model.vocab: found %zu tokens, expected 1 to %d", l->path, n,
                       MG_MAX_VOCAB);
    l->n_vocab = l->bpe->head.vocab_size = (int)n;
    l->names = calloc(n + MG_BPE_MAX_ADDED, sizeof *l->names);
    if (!l->names) return fail_memory(l);
    void *iter = NULL;
    const char *key;
    for (const struct mg_json *v; (v = mg_json_next(l->vocab, &iter, &key));)
        if (take_token(l, key, v)) return -1;
    return 0;
}

/* The id of a token of vocab, -1 = there is none. */
static int32_t id_of(const struct loader *l, const char *text, size_t len) {
    int64_t id;
    if (strlen(text) != len) return -1; /* with a NUL: no key has one */
    return mg_json_int(mg_json_get(l->vocab, text), &id) ? -1 : (int32_t)id;
}

/* ---- added tokens ------------------------------------------------------------------ */

static int fail_added(const struct loader *l, size_t i, const char *key,
                      const struct mg_json *v, const char *expected) {
    char found[MG_JSON_DESCRIBE];
    return mg_fail(l->err, MG_EFILE, "%s: added_tokens[%zu]%s%s: found %s, expected %s",
                   l->path, i, *key ? "." : "", key, mg_json_describe(v, found),
                   expected);
}

/* What an added token must be, to be found and shown as the reference does. Its id is
 * only looked at: the one of its content counts. */
static int check_added(const struct loader *l, size_t i, const struct mg_json *v) {
    static const char *const no[] = {"single_word", "lstrip", "rstrip", "normalized"};
    int64_t id;
    if (!mg_json_is_object(v)) return fail_added(l, i, "", v, "an object");
    const struct mg_json *id_value = mg_json_get(v, "id");
    if (mg_json_int(id_value, &id) || id < 0 || id > UINT32_MAX)
        return fail_added(l, i, "id", id_value, "an integer from 0 to 4294967295");
    for (int k = 0; k < 4; k++)
        if (!mg_json_is_false(mg_json_get(v, no[k])))
            return fail_added(l, i, no[k], mg_json_get(v, no[k]), "false");
    if (!mg_json_is_true(mg_json_get(v, "special")))
        return fail_added(l, i, "special", mg_json_get(v, "special"), "true");
    return 0;
}

static int check_new(const struct loader *l, size_t i, const char *text, size_t len) {
    for (int k = 0; k < l->bpe->n_special; k++) {
        const struct mg_bpe_special *s = &l->bpe->special[k];
        if (s->len == len && !memcmp(s->content, text, len))
            return mg_fail(l->err, MG_EFILE,
                           "%s: added_tokens[%zu].content: found \"%.40s\" again (as "
                           "added_tokens[%d]), expected another",
                           l->path, i, text, k);
    }
    return 0;
}

static int read_added(struct loader *l, size_t i, const struct mg_json *v) {
    struct mg_bpe *b = l->bpe;
    size_t len;
    char where[64];
    if (check_added(l, i, v)) return -1;
    const struct mg_json *content = mg_json_get(v, "content");
    const char *text = mg_json_string(content, &len);
    snprintf(where, sizeof where, "added_tokens[%zu].content", i);
    if (!text) return fail_added(l, i, "content", content, "a string");
    if (check_length(l, where, len) || check_new(l, i, text, len)) return -1;
    int32_t id = id_of(l, text, len);
    if (id < 0) { /* beyond vocab: the next free one */
        id = b->head.vocab_size++;
        l->names[id] = (struct name){text, len};
    }
    char *copy = malloc(len);
    if (!copy) return fail_memory(l);
    memcpy(copy, text, len);
    b->special[b->n_special++] = (struct mg_bpe_special){copy, len, id};
    return 0;
}

static int by_length(const void *a, const void *b) {
    size_t x = ((const struct mg_bpe_special *)a)->len;
    size_t y = ((const struct mg_bpe_special *)b)->len;
    return (x < y) - (x > y);
}

static int read_all_added(struct loader *l, const struct mg_json *added) {
    struct mg_bpe *b = l->bpe;
    char found[MG_JSON_DESCRIBE];
    size_t n = mg_json_size(added);
    if (added && !mg_json_is_array(added))
        return mg_fail(l->err, MG_EFILE, "%s: added_tokens: found %s, expected an array",
                       l->path, mg_json_describe(added, found));
    if (n > MG_BPE_MAX_ADDED)
        return mg_fail(l->err, MG_EFILE,
                       "%s: added_tokens: found %zu elements, expected at most %d",
                       l->path, n, MG_BPE_MAX_ADDED);
    b->special = calloc(n + 1, sizeof *b->special);
    if (!b->special) return fail_memory(l);
    for (size_t i = 0; i < n; i++)
        if (read_added(l, i, mg_json_at(added, i))) return -1;
    qsort(b->special, (size_t)b->n_special, sizeof *b->special, by_length);
    return 0;
}

/* ---- texts ------------------------------------------------------------------------- */

/* The bytes that a token stands for: those of its symbols, or if one code point is no
 * symbol, its own UTF-8. Returns how many. */
static size_t put_text(const struct name *name, char *out) {
    const char *p = name->text, *end = p + name->len;
    size_t n = 0;
    while (p < end) {
        uint32_t c;
        p += mg_utf8_next(p, end, &c);
        int byte = mg_bpe_byte(c);
        if (byte < 0) {
            memcpy(out, name->text, name->len);
            return name->len;
        }
        out[n++] = (char)byte;
    }
    return n;
}

static void find_bytes(struct loader *l) {
    for (int byte = 0; byte < 256; byte++) {
        uint32_t c = mg_bpe_symbol((unsigned char)byte);
        char symbol[3] = {(char)(0xC0 | c >> 6), (char)(0x80 | (c & 0x3F)), 0};
        if (c < 0x80) memcpy(symbol, (char[]){(char)c, 0}, 2);
        l->bpe->byte_id[byte] = id_of(l, symbol, strlen(symbol));
    }
}

static int make_texts(struct loader *l) {
    struct mg_bpe *b = l->bpe;
    size_t n = (size_t)b->head.vocab_size, total = 0;
    for (size_t i = 0; i < n; i++) total += l->names[i].len;
    b->token = calloc(n, sizeof *b->token);
    b->bytes = malloc(total);
    if (!b->token || !b->bytes) return fail_memory(l);
    for (int i = 0; i < b->n_special; i++) b->token[b->special[i].id].hidden = 1;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        struct mg_bpe_token *t = &b->token[i];
        t->at = (uint32_t)at;
        t->len = (uint32_t)put_text(&l->names[i], b->bytes + at);
        at += t->len;
        if (!t->hidden && t->len > b->head.max_bytes) b->head.max_bytes = t->len;
    }
    find_bytes(l);
    return 0;
}

int mg_bpe_load_tokens(struct mg_bpe *b, const char *path, const struct mg_json *root,
                       struct mg_error *err) {
    struct loader l = {.bpe = b, .path = path, .err = err};
    l.vocab = mg_json_get(mg_json_get(root, "model"), "vocab");
    int result = -1;
    if (!read_vocab(&l) && !read_all_added(&l, mg_json_get(root, "added_tokens")))
        result = make_texts(&l);
    free(l.names);
    return result;
}

/* ---- merges ------------------------------------------------------------------------ */

static int fail_merge(const struct loader *l, size_t i, const struct mg_json *v,
                      const char *expected) {
    char found[MG_JSON_DESCRIBE];
    return mg_fail(l->err, MG_EFILE, "%s: model.merges[%zu]: found %s, expected %s",
                   l->path, i, mg_json_describe(v, found), expected);
}

/* ["a", "b"] */
static int read_array(const struct loader *l, size_t i, const struct mg_json *v,
                      struct name part[2]) {
    if (!mg_json_is_array(v))
        return fail_merge(l, i, v, i > 0 ? "an array, as the first one" : "2 strings");
    if (mg_json_size(v) != 2)
        return mg_fail(l->err, MG_EFILE,
                       "%s: model.merges[%zu]: found %zu elements, expected 2", l->path,
                       i, mg_json_size(v));
    for (size_t k = 0; k < 2; k++) {
        part[k].text = mg_json_string(mg_json_at(v, k), &part[k].len);
        if (!part[k].text) return fail_merge(l, i, mg_json_at(v, k), "2 strings");
    }
    return 0;
}

/* "a b" */
static int read_string(const struct loader *l, size_t i, const struct mg_json *v,
                       struct name part[2]) {
    size_t len;
    const char *text = mg_json_string(v, &len);
    if (!text) return fail_merge(l, i, v, "a string, as the first one");
    const char *space = memchr(text, ' ', len);
    if (!space || memchr(space + 1, ' ', len - (size_t)(space + 1 - text)))
        return mg_fail(l->err, MG_EFILE,
                       "%s: model.merges[%zu]: found \"%.40s\", expected two tokens with "
                       "one space between",
                       l->path, i, text);
    part[0] = (struct name){text, (size_t)(space - text)};
    part[1] = (struct name){space + 1, len - part[0].len - 1};
    return 0;
}

/* The id of text [len], which has to be there. */
static int32_t need_token(struct loader *l, size_t i, const struct name *name,
                          const char *what) {
    char text[MG_BPE_MAX_TOKEN + 1];
    int32_t id = -1;
    if (name->len <= MG_BPE_MAX_TOKEN) {
        memcpy(text, name->text, name->len);
        text[name->len] = '\0';
        id = id_of(l, text, name->len);
    }
    if (id < 0)
        mg_fail(
            l->err, MG_EFILE,
            "%s: model.merges[%zu]: found %s \"%.*s\", expected a token of model.vocab",
            l->path, i, what, name->len < 40 ? (int)name->len : 40, name->text);
    return id;
}

/* The merge at i, of this rank: its parts and the two together are tokens. */
static int add_merge(struct loader *l, size_t i, uint64_t rank,
                     const struct name part[2]) {
    int32_t a = need_token(l, i, &part[0], "the part");
    int32_t b = a < 0 ? -1 : need_token(l, i, &part[1], "the part");
    if (b < 0) return -1;
    memcpy(l->pair, part[0].text, part[0].len);
    memcpy(l->pair + part[0].len, part[1].text, part[1].len);
    struct name whole = {l->pair, part[0].len + part[1].len};
    int32_t product = need_token(l, i, &whole, "the product");
    if (product < 0) return -1;
    mg_bpe_put_pair(l->bpe, a, b, rank << 32 | (uint32_t)product);
    return 0;
}

/* The first line of an old file of merges, which old files of ours may hold as a merge.
 * */
static int is_version(const struct mg_json *v) {
    static const char head[] = "#version";
    size_t len;
    const char *text = mg_json_string(v, &len);
    return text && len >= sizeof head - 1 && !memcmp(text, head, sizeof head - 1);
}

static int read_merges(struct loader *l, const struct mg_json *merges, size_t n) {
    size_t len;
    int old = mg_json_string(mg_json_at(merges, 0), &len) != NULL;
    uint64_t rank = 0;
    for (size_t i = 0; i < n; i++) {
        struct name part[2];
        const struct mg_json *v = mg_json_at(merges, i);
        if (old && is_version(v)) continue;
        if (old ? read_string(l, i, v, part) : read_array(l, i, v, part)) return -1;
        if (add_merge(l, i, rank++, part)) return -1;
    }
    return 0;
}

int mg_bpe_load_merges(struct mg_bpe *b, const char *path, const struct mg_json *model,
                       struct mg_error *err) {
    struct loader l = {.bpe = b, .path = path, .err = err};
    const struct mg_json *merges = mg_json_get(model, "merges");
    char found[MG_JSON_DESCRIBE];
    l.vocab = mg_json_get(model, "vocab");
    size_t n = mg_json_size(merges);
    if (!mg_json_is_array(merges))
        return mg_fail(err, MG_EFILE, "%s: model.merges: found %s, expected an array",
                       path, mg_json_describe(merges, found));
    if (n > MG_BPE_MAX_MERGES)
        return mg_fail(err, MG_EFILE,
                       "%s: model.merges: found %zu elements, expected at most %d", path,
                       n, MG_BPE_MAX_MERGES);
    if (mg_bpe_reserve_pairs(b, n))
        return mg_fail(err, MG_ENOMEM, "%s: out of memory for %zu merges", path, n);
    return read_merges(&l, merges, n);
}
