/* SPDX-License-Identifier: Apache-2.0
 * check.c - `microgpt check`: everything the service does with a checkpoint when it
 * starts, and one generation over the whole context. */
#include "session.h"

#include <jansson.h>
#include <stdio.h>

/* One sample to the end of the context. 0 or an exit code. */
static int generate_once(const struct mg_model *model, struct mg_error *err) {
    struct mg_batch *b = session_batch(model, session_lanes(model));
    if (!b) return EX_OSERR;
    struct mg_job job = {.sampling = {.temperature = 1}, .seed = 42};
    mg_job_text(model, &job);
    int lane = mg_batch_admit(b, &job, err), fault = 0;
    if (lane >= 0) {
        while (mg_batch_step(b) > 0) continue;
        fault = mg_batch_output(b, lane)->finish == MG_FAULT;
    }
    mg_batch_free(b);
    if (lane < 0) return say_model_error(err);
    if (!fault) return 0;
    snprintf(err->text, sizeof err->text,
             "the model computes a logit that is not finite");
    return say_error(EX_DATAERR, "%s", err->text);
}

static int print_json(const char *dir, int rc, const char *error) {
    json_t *j = json_pack("{s:s,s:b,s:i}", "model", dir, "ok", rc == 0, "code", rc);
    if (j && rc) json_object_set_new(j, "error", json_string(error));
    json_dumpf(j, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(j);
    int out = cli_finish();
    return rc ? rc : out;
}

static int print_text(const char *dir, const struct mg_model_info *m) {
    printf("%s: ok, %s, %d x %d x %d, context %d, %s tokenizer%s\n", dir, m->dtype,
           m->n_embd, m->n_head, m->n_layer, m->block_size, m->tokenizer,
           m->has_chat ? ", chat" : "");
    return cli_finish();
}

int check_checkpoint(const char *dir, int json) {
    struct mg_model *model;
    struct mg_error err = {0};
    int rc = session_open(dir, NULL, &model, &err);
    if (!rc) rc = generate_once(model, &err);
    if (json && dir)
        rc = print_json(dir, rc, err.text);
    else if (!rc)
        rc = print_text(dir, mg_model_info(model));
    mg_model_close(model);
    return rc;
}

int check_main(const struct cli_command *self, int argc, char **argv) {
    const char *dir = NULL;
    int json = 0;
    struct cli_option table[] = {
        {"model", "DIR", CLI_STRING, &dir, 0, 0, "the checkpoint", 0},
        {"json", NULL, CLI_FLAG, &json, 0, 0, "for programs", 0},
        {0},
    };
    int rc = cli_parse(self, table, argc, argv, &dir);
    return rc >= 0 ? rc : check_checkpoint(dir, json);
}
