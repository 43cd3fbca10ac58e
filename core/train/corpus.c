/* SPDX-License-Identifier: Apache-2.0
 * corpus.c - see corpus.h. The first pass lays documents out as code points, special
 * tokens as negative numbers, and marks the characters it meets; when the vocabulary is
 * known the second pass turns them into ids and cuts what is too long. Bad input is told
 * with its place. */
#include "corpus.h"

#include "say.h"
#include "texts.h"
#include "utf8.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { N_CODES = 0x110000 };

struct reader {
    struct corpus *c;
    const struct corpus_options *opt;
    uint8_t *seen; /* [N_CODES] */
    size_t *start; /* [n_docs + 1]: first token of each document */
    int32_t cap_docs;
    int64_t line; /* the one being read, from 1 */
    int indent;   /* blanks before its text */
};

/* ---- growing arrays -------------------------------------------------------------- */

static int out_of_memory(void) {
    return say_error(EX_OSERR, "out of memory for the corpus");
}

static int add_token(struct corpus *c, int32_t t) {
    if (c->n_tokens == c->cap_tokens) {
        size_t cap = c->cap_tokens ? c->cap_tokens * 2 : 4096;
        int32_t *p = realloc(c->tokens, cap * sizeof *p);
        if (!p) return out_of_memory();
        c->tokens = p, c->cap_tokens = cap;
    }
    c->tokens[c->n_tokens++] = t;
    return 0;
}

/* The document that began at the last start ends here. */
static int end_doc(struct reader *r) {
    struct corpus *c = r->c;
    if (c->n_docs + 2 > r->cap_docs) {
        int32_t cap = r->cap_docs * 2 + 1024;
        size_t *p = realloc(r->start, (size_t)cap * sizeof *p);
        if (!p) return out_of_memory();
        if (!r->start) p[0] = 0;
        r->start = p, r->cap_docs = cap;
    }
    r->start[++c->n_docs] = c->n_tokens;
    return 0;
}

/* ---- characters ------------------------------------------------------------------ */

/* A character that is no text, the n-th of the line or of a message (message >= 0). */
static int bad_text(const struct reader *r, int message, int64_t n, const char *what) {
    if (message < 0)
        return say_error(EX_DATAERR, "%s:%lld:%lld: %s", r->opt->path, (long long)r->line,
                         (long long)(r->indent + n), what);
    return say_error(EX_DATAERR, "%s:%lld: messages[%d]: character %lld: %s",
                     r->opt->path, (long long)r->line, message, (long long)n, what);
}

/* Append the characters of text; message: its index in a conversation, -1 in a text. */
static int add_text(struct reader *r, const char *text, size_t len, int message) {
    const char *p = text, *end = p + len;
    for (int64_t n = 1; p < end; n++) {
        int32_t code = 0;
        int bytes = utf8_decode(p, end, &code);
        if (bytes == 0) return bad_text(r, message, n, "not UTF-8");
        if (code == 0) return bad_text(r, message, n, "NUL is not text");
        int rc = add_token(r->c, code);
        if (rc) return rc;
        r->seen[code] = 1;
        p += bytes;
    }
    return 0;
}

static int is_space(char c) {
    return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f';
}

static void trim(const char **text, size_t *len) {
    while (*len && is_space(**text)) ++*text, --*len;
    while (*len && is_space((*text)[*len - 1])) --*len;
}

/* ---- a line of either kind ------------------------------------------------------- */

/* [bos, characters, bos] */
static int read_text_line(struct reader *r, const char *line, size_t len) {
    int rc = add_token(r->c, TEXTS_BOS);
    if (!rc) rc = add_text(r, line, len, -1);
    if (!rc) rc = add_token(r->c, TEXTS_BOS);
    return rc ? rc : end_doc(r);
}

static int bad_turn(const struct reader *r, size_t i, const char *what,
                    const char *found) {
    return say_error(EX_DATAERR, "%s:%lld: messages[%zu]: %s%.40s%s", r->opt->path,
                     (long long)r->line, i, what, found, *found ? "'" : "");
}

/* role, characters, end_turn. Sets *role. */
static int read_turn(struct reader *r, const json_t *turn, size_t i, int32_t *role) {
    const json_t *role_j = json_object_get(turn, "role");
    const json_t *content = json_object_get(turn, "content");
    if (!json_is_string(role_j) || !json_is_string(content))
        return bad_turn(r, i, "wants {\"role\": string, \"content\": string}", "");
    const char *name = json_string_value(role_j);
    *role = strcmp(name, "user") == 0        ? TEXTS_USER
            : strcmp(name, "assistant") == 0 ? TEXTS_ASSISTANT
                                             : 0;
    if (!*role) return bad_turn(r, i, "unknown role '", name);
    size_t len = json_string_length(content);
    if (mg_text_is_blank(json_string_value(content), len))
        return bad_turn(r, i, "content is blank", "");
    int rc = add_token(r->c, *role);
    if (!rc) rc = add_text(r, json_string_value(content), len, (int)i);
    return rc ? rc : add_token(r->c, TEXTS_END_TURN);
}

/* [bos, turns ..., bos] up to the last assistant turn; nothing when there is none. */
static int read_turns(struct reader *r, const json_t *turns) {
    size_t begin = r->c->n_tokens, keep = begin;
    int rc = add_token(r->c, TEXTS_BOS);
    for (size_t i = 0; !rc && i < json_array_size(turns); i++) {
        int32_t role = 0;
        rc = read_turn(r, json_array_get(turns, i), i, &role);
        if (!rc && role == TEXTS_ASSISTANT) keep = r->c->n_tokens;
    }
    if (rc) return rc;
    r->c->n_trimmed += keep > begin && keep < r->c->n_tokens;
    r->c->n_tokens = keep;
    if (keep == begin) {
        r->c->n_no_reply++;
        return 0;
    }
    rc = add_token(r->c, TEXTS_BOS);
    return rc ? rc : end_doc(r);
}

static int read_json_line(struct reader *r, const char *line, size_t len) {
    json_error_t e;
    json_t *j = json_loadb(line, len, JSON_ALLOW_NUL, &e);
    if (!j)
        return say_error(EX_DATAERR, "%s:%lld:%d: %s", r->opt->path, (long long)r->line,
                         r->indent + (e.column > 0 ? e.column : 1), e.text);
    int rc =
        json_is_array(j)
            ? read_turns(r, j)
            : say_error(EX_DATAERR, "%s:%lld:1: wants an array of messages, one a line",
                        r->opt->path, (long long)r->line);
    json_decref(j);
    return rc;
}

static int read_lines(struct reader *r, const char *p, size_t size) {
    const char *end = p + size;
    if (size >= 3 && memcmp(p, "\xEF\xBB\xBF", 3) == 0) p += 3;
    int rc = 0;
    while (p < end && !rc) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        const char *line = p;
        size_t len = (size_t)((nl ? nl : end) - p);
        r->line++;
        trim(&line, &len);
        r->indent = (int)(line - p);
        if (len == 0)
            r->c->n_blank++;
        else
            rc = r->opt->chat ? read_json_line(r, line, len)
                              : read_text_line(r, line, len);
        p = nl ? nl + 1 : end;
    }
    r->c->n_lines = r->line;
    return rc;
}

/* ---- vocabulary and ids ---------------------------------------------------------- */

static int make_vocabulary(struct reader *r) {
    struct corpus *c = r->c;
    for (int i = 0; i < N_CODES; i++) c->n_chars += r->seen[i];
    c->chars = calloc((size_t)c->n_chars + 1, sizeof *c->chars);
    if (!c->chars) return out_of_memory();
    int n = 0;
    for (int i = 0; i < N_CODES; i++)
        if (r->seen[i]) c->chars[n++] = (uint32_t)i;
    return 0;
}

static int take_vocabulary(struct reader *r) {
    struct corpus *c = r->c;
    c->n_chars = r->opt->vocab->n_chars;
    c->chars = calloc((size_t)c->n_chars + 1, sizeof *c->chars);
    if (!c->chars) return out_of_memory();
    memcpy(c->chars, r->opt->vocab->chars, (size_t)c->n_chars * sizeof *c->chars);
    for (int i = 0; i < c->n_chars; i++) r->seen[c->chars[i]] = 0;
    const uint8_t *other = memchr(r->seen, 1, N_CODES);
    if (!other) return 0;
    return say_error(EX_DATAERR, "%s: U+%04X is not in the vocabulary of the checkpoint",
                     r->opt->path, (unsigned)(other - r->seen));
}

static int assign_ids(struct reader *r) {
    struct corpus *c = r->c;
    int rc = r->opt->vocab ? take_vocabulary(r) : make_vocabulary(r);
    if (rc) return rc;
    c->vocab_size = c->n_chars + (r->opt->chat ? 4 : 1);
    int32_t *id = calloc(N_CODES, sizeof *id);
    if (!id) return out_of_memory();
    for (int i = 0; i < c->n_chars; i++) id[c->chars[i]] = i;
    for (size_t i = 0; i < c->n_tokens; i++) {
        int32_t t = c->tokens[i];
        c->tokens[i] = t < 0 ? c->vocab_size + t : id[t];
    }
    free(id);
    return 0;
}

static int open_bpe(struct reader *r, const struct texts *texts, const char *data,
                    size_t size) {
    struct corpus *c = r->c;
    struct bpe_options o = {.vocab_size = r->opt->vocab_size, .chat = r->opt->chat};
    struct mg_error err = {0};
    if (r->opt->vocab) {
        c->json_len = r->opt->vocab->json_len;
        c->json = malloc(c->json_len + 1);
        if (!c->json) return out_of_memory();
        memcpy(c->json, r->opt->vocab->json, c->json_len);
    } else {
        int rc = texts_learn(texts, &o, data, size, &c->json, &c->json_len);
        if (rc) return rc;
    }
    c->tokenizer = mg_tokenizer_bpe("tokenizer.json", c->json, c->json_len, &err);
    return c->tokenizer ? 0 : say_model_error(&err);
}

/* The same with byte-level BPE, learned from the file or taken over. */
static int assign_bpe_ids(struct reader *r, const char *data, size_t size) {
    struct corpus *c = r->c;
    struct texts texts = {c->tokens, c->n_tokens, r->start, c->n_docs};
    size_t lost;
    int rc = open_bpe(r, &texts, data, size);
    if (!rc && r->opt->chat && c->tokenizer->user < 0)
        rc = say_error(EX_DATAERR, "tokenizer.json has no <user>: it is not for chat");
    if (rc || (rc = texts_encode(&texts, c->tokenizer, &lost))) return rc;
    c->tokens = texts.tokens, c->n_tokens = c->cap_tokens = texts.n_tokens;
    c->vocab_size = c->tokenizer->vocab_size;
    if (lost == 0) return 0;
    return say_error(EX_DATAERR,
                     "%s: %zu bytes of text are in no token of the checkpoint",
                     r->opt->path, lost);
}

/* Documents of at most block_size inputs. */
static int make_docs(struct reader *r) {
    struct corpus *c = r->c;
    c->docs = calloc((size_t)c->n_docs + 1, sizeof *c->docs);
    if (!c->docs) return out_of_memory();
    int32_t n_docs = 0;
    for (int32_t i = 0; i < c->n_docs; i++) {
        size_t n = r->start[i + 1] - r->start[i] - 1;
        int too_long = n > (size_t)r->opt->block_size;
        c->n_long += too_long && r->opt->skip_long;
        c->n_cut += too_long && !r->opt->skip_long;
        if (too_long && r->opt->skip_long) continue;
        if (too_long) n = (size_t)r->opt->block_size;
        c->docs[n_docs++] = (struct net_doc){c->tokens + r->start[i], (int)n};
    }
    c->n_docs = n_docs;
    if (n_docs) return 0;
    return say_error(EX_DATAERR, "%s: no %s to train on", r->opt->path,
                     r->opt->chat ? "conversation with an assistant turn" : "document");
}

/* ---- the file -------------------------------------------------------------------- */

static int read_fd(int fd, const char *path, char **data, size_t *size) {
    size_t cap = 0;
    for (;;) {
        if (*size == cap) {
            cap = cap ? cap * 2 : 1 << 16;
            char *p = realloc(*data, cap);
            if (!p) return out_of_memory();
            *data = p;
        }
        ssize_t n = read(fd, *data + *size, cap - *size);
        if (n == 0) return 0;
        if (n < 0 && errno != EINTR)
            return say_error(EX_NOINPUT, "cannot read %s: %s", path, strerror(errno));
        *size += n > 0 ? (size_t)n : 0;
    }
}

static int read_file(const char *path, char **data, size_t *size) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return say_error(errno == EACCES ? EX_NOPERM : EX_NOINPUT, "cannot open %s: %s",
                         path, strerror(errno));
    int rc = read_fd(fd, path, data, size);
    close(fd);
    return rc;
}

static uint64_t fnv1a(const char *p, size_t n) {
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)p[i]) * 0x100000001B3u;
    return h;
}

static int is_bpe(const struct corpus_options *opt, size_t size) {
    if (opt->vocab) return opt->vocab->json != NULL;
    return opt->tokenizer == CORPUS_AUTO ? size >= CORPUS_AUTO_BPE
                                         : opt->tokenizer == CORPUS_BPE;
}

int corpus_read(struct corpus *c, const struct corpus_options *opt) {
    *c = (struct corpus){0};
    struct reader r = {.c = c, .opt = opt, .seen = calloc(N_CODES, 1)};
    char *data = NULL;
    size_t size = 0;
    int rc = r.seen ? read_file(opt->path, &data, &size) : out_of_memory();
    if (!rc) rc = read_lines(&r, data, size);
    if (!rc) rc = is_bpe(opt, size) ? assign_bpe_ids(&r, data, size) : assign_ids(&r);
    if (!rc) rc = make_docs(&r);
    if (!rc) c->digest = fnv1a(data, size);
    free(data);
    free(r.start);
    free(r.seen);
    if (rc) corpus_free(c);
    return rc;
}

void corpus_free(struct corpus *c) {
    free(c->chars);
    mg_tokenizer_free(c->tokenizer);
    free(c->json);
    free(c->docs);
    free(c->tokens);
    *c = (struct corpus){0};
}

size_t corpus_token_bytes(const struct corpus *c, int32_t id) {
    size_t len;
    char s[4];
    if (!c->tokenizer) return id < c->n_chars ? utf8_encode(c->chars[id], s) : 0;
    mg_tokenizer_text(c->tokenizer, id, &len);
    return len;
}
