/* SPDX-License-Identifier: Apache-2.0
 * bpe_load.c - a parsed tokenizer.json, checked setting by setting: what would change ids
 * or text and is not built here is refused by name. Then the special tokens of the model
 * are resolved. Knows no merging (bpe_merge.c). */
#include <stdio.h>
#include <string.h>

#include "bpe.h"
#include "error.h"

/* ---- settings ---------------------------------------------------------------------- */

enum want {
    NOTHING,  /* null */
    NO,       /* false */
    YES,      /* true */
    SWITCH,   /* true or false, which is the same to us */
    THE_WORD, /* the string word */
    OBJECT,
};

struct setting {
    const char *part; /* the object that it is in, NULL = the whole */
    const char *key;
    enum want want;
    int optional; /* may be absent */
    const char *word;
};

/* In the order in which they are checked: an object before what is in it. */
static const struct setting settings[] = {
    {NULL, "version", THE_WORD, 1, "1.0"},
    {NULL, "truncation", NOTHING, 1, NULL},
    {NULL, "padding", NOTHING, 1, NULL},
    {NULL, "normalizer", NOTHING, 1, NULL},
    {NULL, "pre_tokenizer", OBJECT, 0, NULL},
    {"pre_tokenizer", "type", THE_WORD, 0, "ByteLevel"},
    {"pre_tokenizer", "add_prefix_space", NO, 0, NULL},
    {"pre_tokenizer", "trim_offsets", SWITCH, 1, NULL},
    {"pre_tokenizer", "use_regex", YES, 1, NULL},
    {NULL, "post_processor", NOTHING, 1, NULL},
    {NULL, "decoder", OBJECT, 0, NULL},
    {"decoder", "type", THE_WORD, 0, "ByteLevel"},
    {"decoder", "add_prefix_space", SWITCH, 1, NULL},
    {"decoder", "trim_offsets", SWITCH, 1, NULL},
    {"decoder", "use_regex", SWITCH, 1, NULL},
    {NULL, "model", OBJECT, 0, NULL},
    {"model", "type", THE_WORD, 1, "BPE"},
    {"model", "dropout", NOTHING, 1, NULL},
    {"model", "unk_token", NOTHING, 1, NULL},
    {"model", "continuing_subword_prefix", NOTHING, 1, NULL},
    {"model", "end_of_word_suffix", NOTHING, 1, NULL},
    {"model", "fuse_unk", SWITCH, 1, NULL},
    {"model", "byte_fallback", NO, 1, NULL},
    {"model", "ignore_merges", NO, 1, NULL},
};

enum { N_SETTINGS = sizeof settings / sizeof *settings, SHOWN = 80 };

static int is_word(const struct mg_json *v, const char *word) {
    size_t len;
    const char *text = mg_json_string(v, &len);
    return text && len == strlen(word) && !memcmp(text, word, len);
}

static int is_wanted(const struct setting *s, const struct mg_json *v) {
    switch (s->want) {
    case NOTHING: return mg_json_is_null(v);
    case NO: return mg_json_is_false(v);
    case YES: return mg_json_is_true(v);
    case SWITCH: return mg_json_is_true(v) || mg_json_is_false(v) || mg_json_is_null(v);
    case THE_WORD: return is_word(v, s->word);
    case OBJECT: return mg_json_is_object(v);
    }
    return 0;
}

static void describe_want(const struct setting *s, char out[SHOWN]) {
    static const char *const words[] = {[NOTHING] = "null",
                                        [NO] = "false",
                                        [YES] = "true",
                                        [SWITCH] = "true or false",
                                        [OBJECT] = "an object"};
    if (s->want == THE_WORD)
        snprintf(out, SHOWN, "\"%s\"", s->word);
    else
        snprintf(out, SHOWN, "%s", words[s->want]);
}

/* As mg_json_describe, but a string is shown where that helps. */
static void describe_found(const struct setting *s, const struct mg_json *v,
                           char out[SHOWN]) {
    char found[MG_JSON_DESCRIBE];
    size_t len;
    const char *text = mg_json_string(v, &len);
    if (text && s->want == THE_WORD)
        snprintf(out, SHOWN, "\"%.40s\"", text);
    else
        snprintf(out, SHOWN, "%s", mg_json_describe(v, found));
}

static int check_setting(const char *path, const struct setting *s,
                         const struct mg_json *root, struct mg_error *err) {
    const struct mg_json *v =
        mg_json_get(s->part ? mg_json_get(root, s->part) : root, s->key);
    if (v ? is_wanted(s, v) : s->optional) return 0;
    char found[SHOWN], expected[SHOWN];
    describe_found(s, v, found);
    describe_want(s, expected);
    return mg_fail(err, MG_EFILE, "%s: %s%s%s: found %s, expected %s", path,
                   s->part ? s->part : "", s->part ? "." : "", s->key, found, expected);
}

/* A key of the whole that nobody here knows could mean anything. */
static int check_keys(const char *path, const struct mg_json *root,
                      struct mg_error *err) {
    void *iter = NULL;
    const char *key;
    while (mg_json_next(root, &iter, &key)) {
        int known = !strcmp(key, "added_tokens");
        for (int i = 0; i < N_SETTINGS && !known; i++)
            known = !settings[i].part && !strcmp(key, settings[i].key);
        if (!known)
            return mg_fail(err, MG_EFILE,
                           "%s: %.40s: found an unknown key, expected those of "
                           "tokenizer.json version 1.0",
                           path, key);
    }
    return 0;
}

/* ---- the special tokens of the model ----------------------------------------------- */

static int32_t find_token(const struct mg_bpe *b, const struct mg_json *vocab,
                          const char *name) {
    int64_t id;
    for (int i = 0; i < b->n_special; i++)
        if (b->special[i].len == strlen(name) &&
            !memcmp(b->special[i].content, name, strlen(name)))
            return b->special[i].id;
    return mg_json_int(mg_json_get(vocab, name), &id) ? -1 : (int32_t)id;
}

/* A <user> makes it a tokenizer for chat, which needs the others too. */
static int resolve_roles(struct mg_bpe *b, const char *path, const struct mg_json *vocab,
                         struct mg_error *err) {
    struct mg_tokenizer *t = &b->head;
    t->bos = find_token(b, vocab, "<bos>");
    t->user = find_token(b, vocab, "<user>");
    t->assistant = t->user < 0 ? -1 : find_token(b, vocab, "<assistant>");
    t->end_turn = t->user < 0 ? -1 : find_token(b, vocab, "<end_turn>");
    if (t->bos < 0)
        return mg_fail(err, MG_EFILE,
                       "%s: found no token \"<bos>\" in added_tokens or model.vocab, "
                       "expected one",
                       path);
    const char *missing = t->user < 0        ? NULL
                          : t->assistant < 0 ? "<assistant>"
                          : t->end_turn < 0  ? "<end_turn>"
                                             : NULL;
    if (!missing) return 0;
    return mg_fail(err, MG_EFILE,
                   "%s: found a token \"<user>\" but no \"%s\" in added_tokens or "
                   "model.vocab, expected both (chat) or neither",
                   path, missing);
}

/* ---- the whole --------------------------------------------------------------------- */

static int check_settings(const char *path, const struct mg_json *root,
                          struct mg_error *err) {
    if (check_keys(path, root, err)) return -1;
    for (int i = 0; i < N_SETTINGS; i++)
        if (check_setting(path, &settings[i], root, err)) return -1;
    return 0;
}

int mg_bpe_load(struct mg_bpe *b, const char *path, const struct mg_json *root,
                struct mg_error *err) {
    const struct mg_json *model = mg_json_get(root, "model");
    if (check_settings(path, root, err) || mg_bpe_load_tokens(b, path, root, err) ||
        mg_bpe_load_merges(b, path, model, err))
        return -1;
    return resolve_roles(b, path, mg_json_get(model, "vocab"), err);
}
