/* SPDX-License-Identifier: Apache-2.0
 * bpe_json.c - a trained vocabulary as tokenizer.json: on one line, keys in the order of
 * the reference, nothing escaped that need not be. */
#include "bpe_train.h"

#include "../bpe.h"

#include <stdio.h>
#include <stdlib.h>

static void put_symbol(FILE *f, unsigned char byte) {
    uint32_t c = mg_bpe_symbol(byte);
    if (c == '"' || c == '\\') putc('\\', f);
    if (c >= 0x80) putc((int)(0xC0 | c >> 6), f);
    putc((int)(c < 0x80 ? c : 0x80 | (c & 0x3F)), f);
}

static void put_token(FILE *f, const struct bpe_vocab *v, int32_t id) {
    const struct bpe_token *t = &v->token[id];
    putc('"', f);
    for (size_t i = 0; i < t->len; i++) put_symbol(f, (unsigned char)v->bytes[t->at + i]);
    putc('"', f);
}

static void put_added(FILE *f, const struct bpe_vocab *v) {
    for (int32_t id = 0; id < v->n_special; id++) {
        fprintf(f, "%s{\"id\":%d,\"content\":", id ? "," : "", id);
        put_token(f, v, id);
        fputs(",\"single_word\":false,\"lstrip\":false,\"rstrip\":false,"
              "\"normalized\":false,\"special\":true}",
              f);
    }
}

static void put_vocab(FILE *f, const struct bpe_vocab *v) {
    for (int32_t id = 0; id < v->vocab_size; id++) {
        if (id > 0) putc(',', f);
        put_token(f, v, id);
        fprintf(f, ":%d", id);
    }
}

static void put_merges(FILE *f, const struct bpe_vocab *v) {
    for (size_t i = 0; i < v->n_merges; i++) {
        fputs(i > 0 ? ",[" : "[", f);
        put_token(f, v, v->merge[i].left);
        putc(',', f);
        put_token(f, v, v->merge[i].right);
        putc(']', f);
    }
}

char *bpe_vocab_json(const struct bpe_vocab *v, size_t *len) {
    char *text = NULL;
    FILE *f = open_memstream(&text, len);
    if (!f) return NULL;
    fputs("{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,\"added_tokens\":[",
          f);
    put_added(f, v);
    fputs("],\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\","
          "\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":true},"
          "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\","
          "\"add_prefix_space\":true,\"trim_offsets\":true,\"use_regex\":true},"
          "\"model\":{\"type\":\"BPE\",\"dropout\":null,\"unk_token\":null,"
          "\"continuing_subword_prefix\":null,\"end_of_word_suffix\":null,"
          "\"fuse_unk\":false,\"byte_fallback\":false,\"ignore_merges\":false,"
          "\"vocab\":{",
          f);
    put_vocab(f, v);
    fputs("},\"merges\":[", f);
    put_merges(f, v);
    fputs("]}}", f);
    int failed = ferror(f);
    if (!fclose(f) && !failed) return text;
    free(text);
    return NULL;
}
