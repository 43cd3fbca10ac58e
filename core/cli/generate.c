/* SPDX-License-Identifier: Apache-2.0
 * generate.c - `microgpt generate`: samples, one a line, in order. Sample i has seed + i,
 * as in the endpoint; the lanes of a batch compute many at a time. */
#include "session.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct generation {
    const struct mg_model *model;
    struct mg_job job; /* of sample 0 */
    int64_t n;
    struct sample {
        char *text;
        size_t len;
        int done;
    } * sample;       /* [n] */
    int64_t *of_lane; /* [lanes] the sample on each lane, -1: none */
    int lanes;
};

static int keep(struct sample *s, const struct mg_output *out) {
    if (out->finish == MG_FAULT)
        return say_error(EX_DATAERR, "the model computed a logit that is not finite");
    s->text = malloc(out->len + 1);
    if (!s->text) return say_error(EX_OSERR, "out of memory for the samples");
    memcpy(s->text, out->text, out->len);
    s->len = out->len, s->done = 1;
    return 0;
}

static int admit(struct generation *g, struct mg_batch *b, int64_t i) {
    struct mg_error err = {0};
    struct mg_job job = g->job;
    job.seed += (uint64_t)i;
    int lane = mg_batch_admit(b, &job, &err);
    if (lane < 0) return say_model_error(&err);
    g->of_lane[lane] = i;
    return 0;
}

/* Take what has ended off its lane. */
static int collect(struct generation *g, struct mg_batch *b) {
    for (int lane = 0; lane < g->lanes; lane++) {
        if (g->of_lane[lane] < 0) continue;
        const struct mg_output *out = mg_batch_output(b, lane);
        if (out->finish == MG_RUNNING) continue;
        int rc = keep(&g->sample[g->of_lane[lane]], out);
        if (rc) return rc;
        mg_batch_release(b, lane);
        g->of_lane[lane] = -1;
    }
    return 0;
}

/* Print the samples from *printed on that are complete. */
static void print_lines(struct generation *g, int64_t *printed) {
    for (; *printed < g->n && g->sample[*printed].done; ++*printed) {
        struct sample *s = &g->sample[*printed];
        fwrite(s->text, 1, s->len, stdout);
        putchar('\n');
    }
}

static int run(struct generation *g, struct mg_batch *b, int json) {
    int64_t admitted = 0, printed = 0, busy = 0;
    do {
        for (; admitted < g->n && busy < g->lanes; admitted++, busy++) {
            int rc = admit(g, b, admitted);
            if (rc) return rc;
        }
        mg_batch_step(b);
        int rc = collect(g, b);
        if (rc) return rc;
        busy = 0;
        for (int i = 0; i < g->lanes; i++) busy += g->of_lane[i] >= 0;
        if (!json) print_lines(g, &printed);
    } while (busy || admitted < g->n);
    return 0;
}

/* {"samples": [...]}, as the endpoint replies. */
static int print_json(const struct generation *g) {
    json_t *list = json_array();
    for (int64_t i = 0; i < g->n; i++)
        json_array_append_new(list, json_stringn(g->sample[i].text, g->sample[i].len));
    json_t *j = json_pack("{s:o}", "samples", list);
    if (!j) return say_error(EX_OSERR, "out of memory for the samples");
    json_dumpf(j, stdout, JSON_COMPACT);
    putchar('\n');
    json_decref(j);
    return 0;
}

static int generate(struct generation *g, int json) {
    g->lanes = session_lanes(g->model);
    if (g->n < g->lanes) g->lanes = (int)g->n;
    struct mg_batch *b = session_batch(g->model, g->lanes);
    if (!b) return EX_OSERR;
    g->sample = calloc((size_t)g->n, sizeof *g->sample);
    g->of_lane = calloc((size_t)g->lanes, sizeof *g->of_lane);
    int rc = g->sample && g->of_lane ? 0 : say_error(EX_OSERR, "out of memory");
    for (int i = 0; !rc && i < g->lanes; i++) g->of_lane[i] = -1;
    if (!rc) rc = run(g, b, json);
    if (!rc && json) rc = print_json(g);
    for (int64_t i = 0; g->sample && i < g->n; i++) free(g->sample[i].text);
    free(g->sample);
    free(g->of_lane);
    mg_batch_free(b);
    return rc ? rc : cli_finish();
}

int generate_main(const struct cli_command *self, int argc, char **argv) {
    const char *dir = NULL, *compat = NULL;
    struct generation g = {.n = 1, .job = {.sampling = {.temperature = 0.5}, .seed = 42}};
    int json = 0;
    struct cli_option table[] = {
        {"model", "DIR", CLI_STRING, &dir, 0, 0, "the checkpoint", 0},
        {"num-samples", "N", CLI_INT, &g.n, 1, 1e7, "how many", 0},
        {"temperature", "X", CLI_REAL, &g.job.sampling.temperature, 0, 1e308,
         "0 takes the likeliest token", 0},
        {"seed", "N", CLI_SEED, &g.job.seed, 0, 0, "sample i has seed + i", 0},
        {"max-tokens", "N", CLI_COUNT, &g.job.max_tokens, 0, 0,
         "longest sample; the context", 0},
        {"compat", "0.5|0.6", CLI_STRING, &compat, 0, 0,
         "generate as that version of the reference did", 0},
        {"json", NULL, CLI_FLAG, &json, 0, 0, "as the reply of the HTTP endpoint", 0},
        {0},
    };
    int rc = cli_parse(self, table, argc, argv, &dir);
    if (rc >= 0) return rc;
    struct mg_model *model;
    struct mg_error err = {0};
    rc = session_open(dir, compat, &model, &err);
    g.model = model;
    if (!rc && !cli_given(table, "temperature"))
        g.job.sampling.temperature = mg_model_info(model)->temperature;
    if (!rc) mg_job_text(model, &g.job);
    if (!rc) rc = generate(&g, json);
    mg_model_close(model);
    return rc;
}
