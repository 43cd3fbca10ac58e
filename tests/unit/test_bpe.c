/* SPDX-License-Identifier: Apache-2.0
 *
 * test_bpe.c - the parts of byte-level BPE: classes of code points, symbols of bytes, the
 * pattern, merges against a search that anyone can check, and what all of it costs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../core/bpe.h"
#include "../../core/bpe_split.h"
#include "../../core/text.h"
#include "bpe_tool.h"
#include "folder.h"
#include "make_model.h"

static uint64_t rng = 7;

/* ---- classes and symbols ----------------------------------------------------------- */

/* Every code point, against the list that the table was made from. */
static void test_classes(void **state) {
    (void)state;
    static unsigned char want[0x110000];
    size_t len;
    int n = 0;
    char *list = folder_read("tests/data", "unicode-classes.txt", &len);
    for (char *line = strtok(list, "\n"); line; line = strtok(NULL, "\n")) {
        char name;
        unsigned first, last;
        if (sscanf(line, "%c %x %x", &name, &first, &last) != 3 || *line == '#') continue;
        int class = name == 'L' ? MG_LETTER : name == 'N' ? MG_NUMBER : MG_SPACE;
        for (; first <= last; first++, n++) want[first] = (unsigned char)class;
    }
    assert_true(n > 100000);
    for (uint32_t c = 0; c < 0x110000; c++) {
        struct mg_class_range r = mg_unicode_range(c);
        assert_int_equal(r.class, want[c]);
        assert_true(r.first <= c && c < r.end);
        assert_int_equal(r.class == MG_SPACE, mg_is_white_space(c));
        if (c + 1 < r.end && c + 1 < 0x110000) assert_int_equal(want[c + 1], want[c]);
    }
    assert_int_equal(mg_unicode_range(0x1FFFFF).class, MG_OTHER);
    free(list);
}

static void test_symbols(void **state) {
    (void)state;
    assert_int_equal(mg_bpe_symbol(' '), 0x120);
    assert_int_equal(mg_bpe_symbol('\n'), 0x10A);
    assert_int_equal(mg_bpe_symbol('\t'), 0x109);
    assert_int_equal(mg_bpe_symbol(0x7F), 0x121);
    assert_int_equal(mg_bpe_symbol(0xAD), 0x143);
    int n = 0;
    for (int byte = 0; byte < 256; byte++) {
        uint32_t c = mg_bpe_symbol((unsigned char)byte);
        assert_int_equal(mg_bpe_byte(c), byte);
        if (c < 0x100) assert_int_equal(c, byte);
    }
    for (uint32_t c = 0; c < 0x110000; c++) n += mg_bpe_byte(c) >= 0;
    assert_int_equal(n, 256);
}

/* ---- the pattern ------------------------------------------------------------------- */

/* The pieces of text with a bar between, found in slices of that budget. */
static void split(const char *text, size_t budget, char *out) {
    struct mg_split s;
    size_t len = strlen(text);
    mg_split_init(&s, text, 0, len);
    while (s.end < len) {
        size_t from = s.end, left = budget;
        while (!mg_split_next(&s, &left)) left = budget;
        assert_int_equal(s.begin, from);
        assert_true(s.end > s.begin);
        memcpy(out, text + s.begin, s.end - s.begin);
        out += s.end - s.begin;
        if (s.end < len) *out++ = '|';
    }
    *out = '\0';
}

static void test_split(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"", ""},
        {"Hello world", "Hello| world"},
        {"a  b", "a| | b"},
        {"a\n\nb", "a|\n|\n|b"},
        {"a \nb", "a| |\n|b"},
        {"a  ", "a|  "},
        {"a ", "a| "},
        {" ", " "},
        {"   ", "   "},
        {"a\tb", "a|\t|b"},
        {"a\t b", "a|\t| b"},
        {"a\xC2\xA0"
         "b",
         "a|\xC2\xA0|b"},
        {"it's 'llama", "it|'s| '|llama"},
        {"'llama", "'ll|ama"},
        {" 's", " '|s"},
        {"!'s", "!'|s"},
        {"'S'Re", "'|S|'|Re"},
        {"'re've'm'll'd't's'", "'re|'ve|'m|'ll|'d|'t|'s|'"},
        {"'r", "'|r"},
        {"''s", "''|s"},
        {"abc123!?x", "abc|123|!?|x"},
        {" 12 ab", " 12| ab"},
        {"\xC2\xBD\xE2\x85\xA3 x",
         "\xC2\xBD\xE2\x85\xA3| x"}, /* numbers: half, roman four */
        {"e\xCC\x81"
         "e",
         "e|\xCC\x81|e"},                       /* a combining mark is other */
        {"x\xE2\x80\x8By", "x|\xE2\x80\x8B|y"}, /* and U+200B no white space */
        {"a\xE3\x80\x80\xE3\x80\x80z", "a|\xE3\x80\x80|\xE3\x80\x80|z"},
        {"\x1C\x1D", "\x1C\x1D"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t budget = 1; budget < 9; budget++) {
            char out[100];
            split(cases[i][0], budget, out);
            assert_string_equal(out, cases[i][1]);
        }
}

/* ---- merges ------------------------------------------------------------------------ */

enum { LETTERS = 3, MAX_TOKENS = 60, MAX_TEXT = 300 };

struct table {
    char token[MAX_TOKENS][40];
    int n_tokens;
    int merge[MAX_TOKENS][2], n_merges;
};

static int find_token(const struct table *t, const char *text) {
    for (int i = 0; i < t->n_tokens; i++)
        if (!strcmp(t->token[i], text)) return i;
    return -1;
}

/* Random merges over few letters: products that several merges make, pairs twice, ranks
 * below those of their parts. */
static void make_table(struct table *t) {
    t->n_tokens = LETTERS;
    for (int i = 0; i < LETTERS; i++) snprintf(t->token[i], 2, "%c", 'a' + i);
    t->n_merges = 0;
    for (int want = random_int(&rng, 1, MAX_TOKENS - LETTERS); t->n_merges < want;) {
        int a = random_int(&rng, 0, t->n_tokens - 1),
            b = random_int(&rng, 0, t->n_tokens - 1);
        char product[80];
        snprintf(product, sizeof product, "%s%s", t->token[a], t->token[b]);
        if (strlen(product) > 12) continue;
        if (find_token(t, product) < 0) strcpy(t->token[t->n_tokens++], product);
        t->merge[t->n_merges][0] = a;
        t->merge[t->n_merges++][1] = b;
    }
    for (int i = t->n_merges - 1; i > 0; i--) { /* in any order */
        int k = random_int(&rng, 0, i), swap[2];
        memcpy(swap, t->merge[i], sizeof swap);
        memcpy(t->merge[i], t->merge[k], sizeof swap);
        memcpy(t->merge[k], swap, sizeof swap);
    }
}

static struct mg_tokenizer *open_table(const struct table *t) {
    char *text = NULL;
    size_t len;
    FILE *f = open_memstream(&text, &len);
    fputs("{\"added_tokens\":[],\"pre_tokenizer\":{\"type\":\"ByteLevel\","
          "\"add_prefix_space\":false},\"decoder\":{\"type\":\"ByteLevel\"},"
          "\"model\":{\"vocab\":{",
          f);
    for (int i = 0; i < t->n_tokens; i++) fprintf(f, "\"%s\":%d,", t->token[i], i);
    fprintf(f, "\"<bos>\":%d},\"merges\":[", t->n_tokens);
    for (int i = 0; i < t->n_merges; i++)
        fprintf(f, "%s[\"%s\",\"%s\"]", i ? "," : "", t->token[t->merge[i][0]],
                t->token[t->merge[i][1]]);
    fputs("]}}", f);
    fclose(f);
    struct mg_error err = {0};
    struct mg_tokenizer *opened = mg_tokenizer_bpe("table", text, len, &err);
    if (!opened) fail_msg("%s in %s", err.text, text);
    free(text);
    return opened;
}

/* The rank of merging a, b: its last place in the list, or n_merges. */
static int rank_of(const struct table *t, int a, int b) {
    for (int i = t->n_merges - 1; i >= 0; i--)
        if (t->merge[i][0] == a && t->merge[i][1] == b) return i;
    return t->n_merges;
}

/* As the rule says: over and over, the leftmost pair of lowest rank. */
static size_t merge_plainly(const struct table *t, const char *text, int32_t *ids) {
    size_t n = strlen(text);
    for (size_t i = 0; i < n; i++) ids[i] = text[i] - 'a';
    for (;;) {
        int best = t->n_merges;
        size_t at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            int rank = rank_of(t, ids[i], ids[i + 1]);
            if (rank < best) best = rank, at = i;
        }
        if (best == t->n_merges) return n;
        char product[80];
        snprintf(product, sizeof product, "%s%s", t->token[ids[at]],
                 t->token[ids[at + 1]]);
        ids[at] = find_token(t, product);
        memmove(&ids[at + 1], &ids[at + 2], (n - at - 2) * sizeof *ids);
        n--;
    }
}

static void check_text(const struct table *t, const struct mg_tokenizer *tokenizer,
                       const char *text) {
    int32_t want[MAX_TEXT];
    size_t n_want = merge_plainly(t, text, want), n;
    const struct bpe_way ways[] = {{0, NULL, 0}, {0, &rng, 3}};
    for (int i = 0; i < 2; i++) {
        int32_t *ids = bpe_encode(tokenizer, text, strlen(text), ways[i], &n);
        assert_int_equal(n, n_want);
        assert_memory_equal(ids, want, n * sizeof *ids);
        free(ids);
    }
}

static void test_merges(void **state) {
    (void)state;
    for (int round = 0; round < 200; round++) {
        struct table t;
        make_table(&t);
        struct mg_tokenizer *tokenizer = open_table(&t);
        for (int k = 0; k < 20; k++) {
            char text[MAX_TEXT + 1];
            int len = random_int(&rng, 1, k % 2 ? 30 : MAX_TEXT);
            int letters = random_int(&rng, 1, LETTERS);
            for (int i = 0; i < len; i++)
                text[i] = (char)('a' + random_int(&rng, 0, letters - 1));
            text[len] = '\0';
            check_text(&t, tokenizer, text);
        }
        mg_tokenizer_free(tokenizer);
    }
}

/* ---- cost -------------------------------------------------------------------------- */

enum { LONG = 256 << 10 };

static char *long_text(int kind) {
    static const char word[] = "the cat sat on the mat and ran to the sun in the rain ";
    char *text = malloc(LONG + 1);
    for (int i = 0; i < LONG; i++)
        text[i] = kind == 0   ? 'a'
                  : kind == 1 ? (char)('a' + random_int(&rng, 0, 25))
                  : kind == 2 ? "etaoinshr"[random_int(&rng, 0, 8)]
                  : kind == 3 ? '!'
                              : word[i % (int)(sizeof word - 1)];
    text[LONG] = '\0';
    return text;
}

/* Steps of all slices: in proportion to the text, whatever it is, since the merges of one
 * piece are never more than three times its bytes; and no slice works beyond its budget.
 * (The pieces of 24 bytes that are searched at once are the exception.) */
static void test_steps_are_few(void **state) {
    (void)state;
    struct mg_tokenizer *t = bpe_open("tests/golden-bpe/en500-chat");
    size_t bytes = t->calls->scratch_bytes(t, LONG);
    assert_true(bytes <= 32 * (size_t)LONG);
    void *scratch = aligned_alloc(64, (bytes + 63) / 64 * 64);
    for (int kind = 0; kind < 5; kind++) {
        char *text = long_text(kind);
        struct mg_encoding e;
        size_t slices = 0;
        int32_t out[1000];
        mg_encoding_begin(&e, t, text, LONG, scratch);
        for (; !e.done; slices++) mg_encoding_run(&e, 1000, out, 1000);
        assert_true(slices * 1000 >= LONG && slices * 1000 < 6 * LONG);
        free(text);
    }
    free(scratch);
    mg_tokenizer_free(t);
}

/* Text is valid UTF-8 by contract; if it is not, nothing is read out of bounds. */
static void test_ill_formed_text_is_harmless(void **state) {
    (void)state;
    struct mg_tokenizer *t = bpe_open("tests/golden-bpe/en500-chat");
    for (int round = 0; round < 5000; round++) {
        size_t len = (size_t)random_int(&rng, 0, 40), n;
        char *exact = malloc(len ? len : 1); /* the sanitizer watches its end */
        for (size_t i = 0; i < len; i++)
            exact[i] = (char)(random_int(&rng, 0, 2) ? random_int(&rng, 0, 255)
                                                     : "' slvt"[random_int(&rng, 0, 5)]);
        struct bpe_way way = {round % 2, &rng, 9};
        free(bpe_encode(t, exact, len, way, &n));
        free(exact);
    }
    mg_tokenizer_free(t);
}

static void test_texts_of_ids(void **state) {
    (void)state;
    struct mg_tokenizer *t = bpe_open("tests/golden-bpe/en500-chat");
    for (int32_t id = -2; id < 503; id++) {
        size_t len = 99;
        assert_non_null(mg_tokenizer_text(t, id, &len));
        assert_int_equal(len > 0, id >= 4 && id < 500);
        assert_non_null(mg_tokenizer_spelling(t, id, &len));
        assert_int_equal(len > 0, id >= 0 && id < 500);
    }
    size_t len;
    assert_memory_equal(mg_tokenizer_spelling(t, 3, &len), "<end_turn>", 10);
    assert_int_equal(len, 10);
    mg_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_symbols),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_merges),
        cmocka_unit_test(test_steps_are_few),
        cmocka_unit_test(test_ill_formed_text_is_harmless),
        cmocka_unit_test(test_texts_of_ids),
    };
    return cmocka_run_group_tests_name("bpe", tests, NULL, NULL);
}
