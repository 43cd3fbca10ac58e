/* SPDX-License-Identifier: Apache-2.0
 * info.c - `microgpt info`: what a checkpoint is and what serving it takes. */
#include "session.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>

struct facts {
    const char *dir;
    const struct mg_model_info *m;
    char digest[17], fingerprint[MG_FINGERPRINT + 1];
    size_t lane, worker; /* bytes */
    int lanes;
};

static struct facts collect(const char *dir, const struct mg_model *model) {
    struct facts f = {
        .dir = dir, .m = mg_model_info(model), .lanes = session_lanes(model)};
    struct mg_batch_options o = {
        .lanes = f.lanes, .chunk = SESSION_CHUNK, .kv = MG_KV_F32};
    mg_model_digest(model, f.digest);
    mg_model_fingerprint(model, MG_KV_F32, f.fingerprint);
    f.lane = mg_lane_bytes(model, MG_KV_F32);
    f.worker = mg_batch_bytes(model, &o);
    return f;
}

static int print_json(const struct facts *f) {
    const struct mg_model_info *m = f->m;
    json_t *j = json_pack(
        "{s:s,s:i,s:i,s:i,s:i,s:i,s:I,s:s,s:s,s:b,s:I,s:s,s:I,s:i,s:I,s:s,s:s}", "model",
        f->dir, "vocab_size", m->vocab_size, "n_embd", m->n_embd, "n_head", m->n_head,
        "n_layer", m->n_layer, "block_size", m->block_size, "parameters",
        (json_int_t)m->n_params, "dtype", m->dtype, "tokenizer", m->tokenizer, "chat",
        m->has_chat, "weights_bytes", (json_int_t)m->weights_bytes, "digest", f->digest,
        "lane_bytes", (json_int_t)f->lane, "lanes", f->lanes, "worker_bytes",
        (json_int_t)f->worker, "kernels", m->kernels, "fingerprint", f->fingerprint);
    if (!j)
        return say_error(EX_DATAERR, "%s: the name of the directory is not UTF-8",
                         f->dir);
    json_dumpf(j, stdout, JSON_INDENT(2));
    putchar('\n');
    json_decref(j);
    return cli_finish();
}

static int print_text(const struct facts *f) {
    const struct mg_model_info *m = f->m;
    const double mib = 1 << 20;
    printf("model       %s\n", f->dir);
    printf("sizes       %d wide, %d heads, %d layers, context %d\n", m->n_embd, m->n_head,
           m->n_layer, m->block_size);
    printf("vocabulary  %d tokens (%s tokenizer)%s\n", m->vocab_size, m->tokenizer,
           m->has_chat ? ", trained for chat" : "");
    printf("parameters  %" PRIu64 " (%s, %.2f MiB)\n", m->n_params, m->dtype,
           (double)m->weights_bytes / mib);
    printf("digest      %s\n", f->digest);
    printf("fingerprint %s\n", f->fingerprint);
    printf("memory      %.2f MiB a lane, %.1f MiB a worker of %d lanes, weights shared\n",
           (double)f->lane / mib, (double)f->worker / mib, f->lanes);
    printf("kernels     %s\n", m->kernels);
    return cli_finish();
}

int info_main(const struct cli_command *self, int argc, char **argv) {
    const char *dir = NULL;
    int json = 0;
    struct cli_option table[] = {
        {"model", "DIR", CLI_STRING, &dir, 0, 0, "the checkpoint", 0},
        {"json", NULL, CLI_FLAG, &json, 0, 0, "for programs; sizes in bytes", 0},
        {0},
    };
    int rc = cli_parse(self, table, argc, argv, &dir);
    if (rc >= 0) return rc;
    struct mg_model *model;
    struct mg_error err = {0};
    rc = session_open(dir, NULL, &model, &err);
    if (rc) return rc;
    struct facts f = collect(dir, model);
    rc = json ? print_json(&f) : print_text(&f);
    mg_model_close(model);
    return rc;
}
