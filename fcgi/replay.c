/* SPDX-License-Identifier: Apache-2.0
 * replay.c - see replay.h. The members are looked at in the order in which they depend on
 * each other: another model has other replies, another request has another digest. */
#include "replay.h"

#include "dialect.h"
#include "engine.h"
#include "etag.h"
#include "receipt.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

enum { MAX_TEXT = 1 << 30, CHUNK = 96, NAMED = 64 };

struct replay {
    struct config config;
    struct engine engine;
    struct conn conn; /* nobody is at its other end */
};

/* One receipt on its way. */
struct check {
    struct replay *replay;
    struct body body;
    const char *fingerprint, *route;
    const json_t *request;
    char digest[NAMED], etag[NAMED]; /* etag "": none, as in one written by hand */
    char *text;
    size_t size;
};

__attribute__((format(printf, 3, 4))) static enum replay_verdict
say(const struct check *c, enum replay_verdict verdict, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(c->text, c->size, fmt, ap);
    va_end(ap);
    for (char *p = c->text; *p; p++) /* some of it is from outside */
        if (*p < ' ' || *p > '~') *p = '?';
    return verdict;
}

/* ---- the engine -------------------------------------------------------------------- */

static int open_engine(struct replay *p, char *text, size_t size) {
    int rc = engine_open(&p->engine, &p->config, text, size);
    if (!rc) rc = engine_reserve(&p->engine, engine_lanes(&p->engine), text, size);
    if (rc) return rc;
    if (body_init(8 * (size_t)REPLAY_MAX_RECEIPT, (size_t)REPLAY_MAX_RECEIPT) == 0)
        return 0;
    snprintf(text, size, "out of memory for receipts");
    return EX_OSERR;
}

struct replay *replay_open(const struct replay_options *o, int *code, char *text,
                           size_t size) {
    struct replay *p = calloc(1, sizeof *p);
    snprintf(text, size, "out of memory");
    *code = EX_OSERR;
    if (!p) return NULL;
    p->config = (struct config){.no_better = o->no_better,
                                .kv = (int)o->kv,
                                .compat = o->compat,
                                .chunk = CHUNK,
                                .queue = 1,
                                .max_text = MAX_TEXT};
    snprintf(p->config.model_dir, sizeof p->config.model_dir, "%s", o->model_dir);
    *code = open_engine(p, text, size);
    if (*code == 0) return p;
    replay_close(p);
    return NULL;
}

void replay_close(struct replay *p) {
    if (!p) return;
    engine_close(&p->engine);
    free(p);
}

/* ---- reading ----------------------------------------------------------------------- */

/* A member that is a string without NUL; NULL: it is not. */
static const char *text_member(const json_t *receipt, const char *name) {
    const json_t *v = json_object_get(receipt, name);
    const char *s = json_string_value(v);
    return s && strlen(s) == json_string_length(v) ? s : NULL;
}

static enum replay_verdict lacks(const struct check *c, const char *name) {
    return say(c, REPLAY_UNREADABLE, "no receipt: \"%s\" is not as receipts have it",
               name);
}

static enum replay_verdict read_members(struct check *c, const json_t *root) {
    const char *digest = text_member(root, "digest"), *etag = text_member(root, "etag");
    const json_t *status = json_object_get(root, "status");
    c->fingerprint = text_member(root, "fingerprint");
    c->route = text_member(root, "route");
    c->request = json_object_get(root, "request");
    if (!json_is_object(root)) return say(c, REPLAY_UNREADABLE, "no receipt: no object");
    if (!c->fingerprint) return lacks(c, "fingerprint");
    if (!c->route) return lacks(c, "route");
    if (!json_is_object(c->request)) return lacks(c, "request");
    if (!json_is_integer(status)) return lacks(c, "status");
    if (!digest) return lacks(c, "digest");
    snprintf(c->digest, sizeof c->digest, "%s", digest);
    snprintf(c->etag, sizeof c->etag, "%s", etag ? etag : "");
    if (json_integer_value(status) == 200) return REPLAY_EQUAL;
    return say(c, REPLAY_DIFFERS, "status: only replies with 200 have receipts");
}

static enum replay_verdict read_receipt(struct check *c, char *text, size_t len) {
    switch (body_parse(&c->body, text, len)) {
    case BODY_OK: return read_members(c, c->body.root);
    case BODY_BROKEN: return say(c, REPLAY_UNREADABLE, "not JSON: %s", c->body.error);
    case BODY_TOO_BIG: break;
    }
    return say(c, REPLAY_UNREADABLE, "too much JSON for a receipt");
}

/* ---- computing again --------------------------------------------------------------- */

/* Take what has ended off its lane. */
static int collect(struct queue *q) {
    for (int lane = 0; lane < q->n_lanes; lane++) {
        struct request *r = q->place[lane].request;
        if (!r) continue;
        const struct mg_output *out = mg_batch_output(q->batch, lane);
        if (out->finish == MG_RUNNING) continue;
        if (out->finish == MG_FAULT || queue_keep(q, lane, out)) return -1;
        r->finish = out->finish;
        r->prompt_tokens = (uint64_t)out->n_prompt;
        r->output_tokens += (uint64_t)out->n_generated;
        r->done++;
        queue_release(q, lane);
    }
    return 0;
}

static int compute(struct queue *q, struct request *r, struct refusal *why) {
    if (queue_put(q, r, why)) return -1;
    while (q->n_encoding)
        if (queue_encode(q, why)) return -1;
    snprintf(why->text, sizeof why->text, "it cannot be computed here");
    while (r->done < r->ask.n_samples) {
        queue_fill(q, 0);
        mg_batch_step(q->batch);
        if (collect(q)) return -1;
    }
    return 0;
}

/* Is what was asked for as the service writes it? */
static int is_canonical(const struct check *c, const struct request *r) {
    struct body own;
    return body_parse(&own, r->canonical.bytes, r->canonical.len) == BODY_OK &&
           json_equal(own.root, c->request);
}

static int parse(struct check *c, struct request *r, struct refusal *why) {
    struct engine *e = &c->replay->engine;
    const struct mg_model_info *m = mg_model_info(e->model);
    struct dialect_limits limits = {
        .model = m, .compat_05 = e->config->compat == 1, .max_text = MAX_TEXT};
    struct body request = c->body;
    request.root = (json_t *)c->request; /* borrowed: it is not written */
    if (r->dialect->parse(r, &request, &limits, why)) return -1;
    r->ask.receipt = 1;
    snprintf(why->text, sizeof why->text, "it is not as the server wrote it");
    return etag_make(r, m, e->fingerprint) || !is_canonical(c, r) ? -1 : 0;
}

/* The entity tag binds the request: which of the two has changed is seen by it. */
static enum replay_verdict compare(const struct check *c, const struct request *r,
                                   const char *digest) {
    int same_digest = strcmp(digest, c->digest) == 0;
    int same_etag = !*c->etag || strcmp(r->plain_etag, c->etag) == 0;
    if (same_digest && same_etag) return say(c, REPLAY_EQUAL, "equal");
    if (same_digest)
        return say(c, REPLAY_DIFFERS, "etag: the receipt has %s, the request %s", c->etag,
                   r->plain_etag);
    if (!same_etag)
        return say(c, REPLAY_DIFFERS, "request: it is not the one that was answered");
    return say(c, REPLAY_DIFFERS, "digest: the receipt has %s, the reply %s", c->digest,
               digest);
}

static enum replay_verdict answer(const struct check *c, const struct request *r) {
    struct buffer whole = {.budget = r->text.budget};
    char header[256], digest[ETAG_DIGEST];
    int rc = r->dialect->whole(r, &whole, header, sizeof header);
    etag_digest(whole.bytes, whole.len, digest);
    buffer_free(&whole);
    if (rc) return say(c, REPLAY_DIFFERS, "request: its reply takes too much memory");
    return compare(c, r, digest);
}

static enum replay_verdict replay(struct check *c) {
    struct replay *p = c->replay;
    struct refusal why = {0};
    if (strcmp(c->fingerprint, p->engine.fingerprint) != 0)
        return say(c, REPLAY_DIFFERS,
                   "weights: the receipt is of the fingerprint %.*s, the model has %s",
                   NAMED, c->fingerprint, p->engine.fingerprint);
    const struct dialect *dialect = dialect_of(c->route);
    if (!dialect)
        return say(c, REPLAY_DIFFERS, "request: no such route: %.*s", NAMED, c->route);
    struct request *r = queue_open(&p->engine.queue, &p->conn);
    r->dialect = dialect;
    enum replay_verdict verdict;
    if (parse(c, r, &why) || compute(&p->engine.queue, r, &why))
        verdict = say(c, REPLAY_DIFFERS, "request: %s", why.text);
    else
        verdict = answer(c, r);
    queue_close(&p->engine.queue, r);
    return verdict;
}

enum replay_verdict replay_check(struct replay *p, char *receipt, size_t len, char *text,
                                 size_t size) {
    struct check c = {.replay = p, .text = text, .size = size};
    enum replay_verdict verdict = read_receipt(&c, receipt, len);
    if (verdict == REPLAY_EQUAL) verdict = replay(&c);
    body_reset();
    return verdict;
}
