/* SPDX-License-Identifier: Apache-2.0
 * bpe_train.c - see bpe_train.h. The most frequent pair of neighbours is merged in all
 * words, of equally frequent ones the one with the lowest ids, until there are tokens
 * enough. Pairs wait in a queue with the words that they are in; counts change by what a
 * merge takes away and brings up, and an entry whose count has changed is queued anew
 * when it comes to its turn. */
#include "bpe_train.h"

#include "../bpe.h"
#include "../digest.h"
#include "../error.h"
#include "../meta.h"

#include <stdlib.h>
#include <string.h>

struct pair {
    uint64_t key;  /* left id << 32 | right id, NO_KEY = an empty place */
    int64_t count; /* that are left; of a merged pair, what it was merged with */
    uint32_t step; /* the last one in which words were noted for it */
    uint32_t note; /* ... their index in notes */
};

struct words {
    uint32_t *index; /* [n] of words */
    size_t n, cap;
};

struct entry {
    uint64_t key;
    int64_t count;
    struct words words; /* owned */
};

struct trainer {
    const struct bpe_words *corpus;
    struct bpe_vocab *v;
    int32_t *symbols; /* [n_bytes] of all words, as corpus->bytes */
    size_t *length;   /* [corpus->n] symbols left of each word */
    struct pair *pairs;
    size_t n_pairs, n_places; /* places: a power of 2 */
    struct entry *notes;      /* [n_notes] pairs that this step has brought up */
    size_t n_notes, cap_notes;
    struct entry *queue; /* [n_queue] heap: most frequent first, then lowest ids */
    size_t n_queue, cap_queue;
    int32_t *by_text; /* [n_texts] open addressing: id + 1 of the token, 0 = empty */
    size_t n_texts;
    uint32_t step;
};

#define NO_KEY UINT64_MAX

static int reserve(void **array, size_t *cap, size_t n, size_t size) {
    if (n <= *cap) return 0;
    size_t more = n + n / 2 + 8;
    void *p = realloc(*array, more * size);
    if (!p) return -1;
    *array = p;
    *cap = more;
    return 0;
}

/* ---- tokens ------------------------------------------------------------------------ */

static int32_t *text_place(const struct trainer *t, const char *text, size_t len) {
    size_t i = mg_digest(text, len) & (t->n_texts - 1);
    for (; t->by_text[i]; i = (i + 1) & (t->n_texts - 1)) {
        const struct bpe_token *token = &t->v->token[t->by_text[i] - 1];
        if (token->len == len && !memcmp(t->v->bytes + token->at, text, len)) break;
    }
    return &t->by_text[i];
}

/* The token whose text lies at the end of bytes, len of them: it may be there already.
 * Returns its id, -1: out of memory. */
static int32_t add_token(struct trainer *t, size_t len) {
    struct bpe_vocab *v = t->v;
    int32_t *place = text_place(t, v->bytes + v->n_bytes, len);
    if (*place) return *place - 1;
    if (reserve((void **)&v->token, &v->cap_token, (size_t)v->vocab_size + 1,
                sizeof *v->token))
        return -1;
    v->token[v->vocab_size] = (struct bpe_token){v->n_bytes, len};
    v->n_bytes += len;
    *place = ++v->vocab_size;
    return v->vocab_size - 1;
}

static int32_t add_text(struct trainer *t, const char *text, size_t len) {
    struct bpe_vocab *v = t->v;
    if (reserve((void **)&v->bytes, &v->cap_bytes, v->n_bytes + len, 1)) return -1;
    memcpy(v->bytes + v->n_bytes, text, len);
    return add_token(t, len);
}

static int32_t add_product(struct trainer *t, int32_t left, int32_t right) {
    struct bpe_vocab *v = t->v;
    struct bpe_token a = v->token[left], b = v->token[right];
    if (reserve((void **)&v->bytes, &v->cap_bytes, v->n_bytes + a.len + b.len, 1))
        return -1;
    memcpy(v->bytes + v->n_bytes, v->bytes + a.at, a.len);
    memcpy(v->bytes + v->n_bytes + a.len, v->bytes + b.at, b.len);
    return add_token(t, a.len + b.len);
}

/* Special tokens, then the bytes that occur in the order of their symbols; the words
 * become symbols. */
static int add_alphabet(struct trainer *t, int chat) {
    static const char *const special[] = {"<bos>", "<user>", "<assistant>", "<end_turn>"};
    const unsigned char *bytes = (const unsigned char *)t->corpus->bytes;
    int32_t id[256];
    int seen[256] = {0};
    t->v->n_special = chat ? 4 : 1;
    for (int i = 0; i < t->v->n_special; i++)
        if (add_text(t, special[i], strlen(special[i])) < 0) return -1;
    for (size_t i = 0; i < t->corpus->n_bytes; i++) seen[bytes[i]] = 1;
    for (uint32_t symbol = 0; symbol < 0x200; symbol++) {
        int byte = mg_bpe_byte(symbol);
        if (byte < 0 || !seen[byte]) continue;
        id[byte] = add_text(t, (char[]){(char)byte}, 1);
        if (id[byte] < 0) return -1;
    }
    for (size_t i = 0; i < t->corpus->n_bytes; i++) t->symbols[i] = id[bytes[i]];
    for (size_t i = 0; i < t->corpus->n; i++) t->length[i] = t->corpus->word[i].len;
    return 0;
}

/* ---- pairs ------------------------------------------------------------------------- */

static struct pair *pair_place(const struct trainer *t, uint64_t key) {
    uint64_t h = key * 0x9E3779B97F4A7C15u;
    size_t i = (h ^ h >> 32) & (t->n_places - 1);
    while (t->pairs[i].key != key && t->pairs[i].key != NO_KEY)
        i = (i + 1) & (t->n_places - 1);
    return &t->pairs[i];
}

static int grow_pairs(struct trainer *t) {
    struct pair *old = t->pairs;
    size_t n_old = t->n_places, n = n_old ? 2 * n_old : 1 << 12;
    struct pair *pairs = malloc(n * sizeof *pairs);
    if (!pairs) return -1;
    for (size_t i = 0; i < n; i++) pairs[i].key = NO_KEY;
    t->pairs = pairs;
    t->n_places = n;
    for (size_t i = 0; i < n_old; i++)
        if (old[i].key != NO_KEY) *pair_place(t, old[i].key) = old[i];
    free(old);
    return 0;
}

/* The pair with this key, a new one if need be; NULL: out of memory. */
static struct pair *find_pair(struct trainer *t, uint64_t key) {
    if (2 * (t->n_pairs + 1) > t->n_places && grow_pairs(t)) return NULL;
    struct pair *p = pair_place(t, key);
    if (p->key == key) return p;
    *p = (struct pair){.key = key};
    t->n_pairs++;
    return p;
}

static uint64_t key_of(int32_t left, int32_t right) {
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

/* Pair key is there count times less. */
static int lose_pair(struct trainer *t, uint64_t key, uint64_t count) {
    struct pair *p = find_pair(t, key);
    if (!p) return -1;
    p->count -= (int64_t)count;
    return 0;
}

/* ... count times more, in word, which is noted for it once. Words come in order. */
static int gain_pair(struct trainer *t, uint64_t key, uint64_t count, uint32_t word) {
    struct pair *p = find_pair(t, key);
    if (!p) return -1;
    p->count += (int64_t)count;
    if (p->step != t->step) {
        if (reserve((void **)&t->notes, &t->cap_notes, t->n_notes + 1, sizeof *t->notes))
            return -1;
        t->notes[t->n_notes] = (struct entry){.key = key};
        p->step = t->step;
        p->note = (uint32_t)t->n_notes++;
    }
    struct words *w = &t->notes[p->note].words;
    if (w->n > 0 && w->index[w->n - 1] == word) return 0;
    if (reserve((void **)&w->index, &w->cap, w->n + 1, sizeof *w->index)) return -1;
    w->index[w->n++] = word;
    return 0;
}

/* ---- the queue --------------------------------------------------------------------- */

static int is_before(const struct entry *a, const struct entry *b) {
    return a->count != b->count ? a->count > b->count : a->key < b->key;
}

/* Room is there. */
static void push(struct trainer *t, struct entry e) {
    size_t i = t->n_queue++;
    for (; i > 0 && is_before(&e, &t->queue[(i - 1) / 2]); i = (i - 1) / 2)
        t->queue[i] = t->queue[(i - 1) / 2];
    t->queue[i] = e;
}

static struct entry pop(struct trainer *t) {
    struct entry top = t->queue[0], last = t->queue[--t->n_queue];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < t->n_queue; i = child) {
        child +=
            child + 1 < t->n_queue && is_before(&t->queue[child + 1], &t->queue[child]);
        if (!is_before(&t->queue[child], &last)) break;
        t->queue[i] = t->queue[child];
    }
    t->queue[i] = last;
    return top;
}

/* A step is over: what it has brought up waits. */
static int queue_notes(struct trainer *t) {
    if (reserve((void **)&t->queue, &t->cap_queue, t->n_queue + t->n_notes,
                sizeof *t->queue))
        return -1;
    for (size_t i = 0; i < t->n_notes; i++) {
        struct entry e = t->notes[i];
        e.count = pair_place(t, e.key)->count;
        if (e.count > 0)
            push(t, e);
        else
            free(e.words.index);
    }
    t->n_notes = 0;
    return 0;
}

/* ---- merging ----------------------------------------------------------------------- */

static int count_all(struct trainer *t) {
    t->step = 1;
    for (size_t i = 0; i < t->corpus->n; i++) {
        const struct bpe_word *w = &t->corpus->word[i];
        const int32_t *s = t->symbols + w->at;
        for (size_t k = 0; k + 1 < w->len; k++)
            if (gain_pair(t, key_of(s[k], s[k + 1]), w->count, (uint32_t)i)) return -1;
    }
    return queue_notes(t);
}

/* Merge the pair key in a word, left to right. */
static int merge_word(struct trainer *t, uint64_t key, int32_t product, uint32_t word) {
    const struct bpe_word *w = &t->corpus->word[word];
    int32_t *s = t->symbols + w->at;
    size_t n = t->length[word], out = 0;
    for (size_t i = 0; i < n; i++) {
        if (i + 1 == n || key_of(s[i], s[i + 1]) != key) {
            s[out++] = s[i];
            continue;
        }
        int32_t left = s[i], right = s[++i];
        if (out > 0 && (lose_pair(t, key_of(s[out - 1], left), w->count) ||
                        gain_pair(t, key_of(s[out - 1], product), w->count, word)))
            return -1;
        if (i + 1 < n && (lose_pair(t, key_of(right, s[i + 1]), w->count) ||
                          gain_pair(t, key_of(product, s[i + 1]), w->count, word)))
            return -1;
        s[out++] = product;
    }
    t->length[word] = out;
    return 0;
}

static int merge_pair(struct trainer *t, const struct entry *e) {
    struct bpe_vocab *v = t->v;
    struct bpe_merge m = {(int32_t)(e->key >> 32), (int32_t)(uint32_t)e->key};
    int32_t product = add_product(t, m.left, m.right);
    if (product < 0 ||
        reserve((void **)&v->merge, &v->cap_merge, v->n_merges + 1, sizeof *v->merge))
        return -1;
    v->merge[v->n_merges++] = m;
    t->step++;
    for (size_t i = 0; i < e->words.n; i++)
        if (merge_word(t, e->key, product, e->words.index[i])) return -1;
    return queue_notes(t);
}

/* Bytes that the string of a token has in tokenizer.json. */
static size_t string_bytes(const struct bpe_vocab *v, uint32_t id) {
    const struct bpe_token *t = &v->token[id];
    size_t n = t->len;
    for (size_t i = 0; i < t->len; i++)
        n += mg_bpe_symbol((unsigned char)v->bytes[t->at + i]) >= 0x80;
    return n;
}

/* The longest token that a tokenizer may have bounds what this takes. */
static int check_product(const struct trainer *t, uint64_t key, struct mg_error *err) {
    size_t len =
        string_bytes(t->v, (uint32_t)(key >> 32)) + string_bytes(t->v, (uint32_t)key);
    if (len <= MG_BPE_MAX_TOKEN) return 0;
    return mg_fail(err, MG_EINPUT,
                   "the corpus repeats runs so long that a token would have %zu bytes, "
                   "expected at most %d: a smaller vocabulary, or shorter runs",
                   len, MG_BPE_MAX_TOKEN);
}

static int merge_all(struct trainer *t, int vocab_size, struct mg_error *err) {
    int result = count_all(t), left = 1;
    while (!result && left && t->v->vocab_size < vocab_size && t->n_queue > 0) {
        struct entry e = pop(t);
        int64_t count = pair_place(t, e.key)->count;
        if (e.count != count) { /* it has changed since it was queued */
            e.count = count;
            push(t, e);
            continue;
        }
        left = count > 0; /* else nothing is, of any pair that waits */
        if (left && !(result = check_product(t, e.key, err))) result = merge_pair(t, &e);
        free(e.words.index);
    }
    return result;
}

/* ---- the whole --------------------------------------------------------------------- */

static int reserve_all(struct trainer *t, int vocab_size) {
    const struct bpe_words *c = t->corpus;
    t->n_texts = 1 << 10;
    while (t->n_texts < 2 * ((size_t)vocab_size + 260)) t->n_texts *= 2;
    t->symbols = malloc((c->n_bytes + 1) * sizeof *t->symbols);
    t->length = malloc((c->n + 1) * sizeof *t->length);
    t->by_text = calloc(t->n_texts, sizeof *t->by_text);
    return !t->symbols || !t->length || !t->by_text || grow_pairs(t) ? -1 : 0;
}

static void free_all(struct trainer *t) {
    for (size_t i = 0; i < t->n_notes; i++) free(t->notes[i].words.index);
    for (size_t i = 0; i < t->n_queue; i++) free(t->queue[i].words.index);
    free(t->notes);
    free(t->queue);
    free(t->symbols);
    free(t->length);
    free(t->by_text);
    free(t->pairs);
}

int bpe_train(const struct bpe_words *words, const struct bpe_options *opt,
              struct bpe_vocab *v, struct mg_error *err) {
    struct trainer t = {.corpus = words, .v = v};
    *v = (struct bpe_vocab){0};
    if (opt->vocab_size < 1 || opt->vocab_size > MG_MAX_VOCAB)
        return mg_fail(err, MG_EINPUT, "a vocabulary of %d tokens: 1 to %d are possible",
                       opt->vocab_size, MG_MAX_VOCAB);
    int result = reserve_all(&t, opt->vocab_size);
    if (!result) result = add_alphabet(&t, opt->chat);
    if (!result) result = merge_all(&t, opt->vocab_size, err);
    free_all(&t);
    if (!result) return 0;
    bpe_vocab_free(v);
    return mg_fail(err, MG_ENOMEM, "out of memory for a tokenizer of %d tokens",
                   opt->vocab_size);
}

void bpe_vocab_free(struct bpe_vocab *v) {
    free(v->token);
    free(v->merge);
    free(v->bytes);
    *v = (struct bpe_vocab){0};
}
