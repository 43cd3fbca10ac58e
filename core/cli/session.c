/* SPDX-License-Identifier: Apache-2.0
 * session.c - see session.h. */
#include "session.h"

#include <string.h>

int session_open(const char *dir, const char *compat, struct mg_model **model,
                 struct mg_error *err) {
    *model = NULL;
    if (!dir) return say_error(EX_USAGE, "give the directory of a checkpoint");
    struct mg_model_options opt = {.compat_05 = compat && !strcmp(compat, "0.5"),
                                   .compat_06 = compat && !strcmp(compat, "0.6")};
    if (compat && !opt.compat_05 && !opt.compat_06)
        return say_error(EX_USAGE, "--compat: '%s' is not 0.5 or 0.6", compat);
    *model = mg_model_open(dir, &opt, err);
    if (!*model) return say_model_error(err);
    for (int i = 0; mg_model_warning(*model, i); i++)
        say_note("warning: %s", mg_model_warning(*model, i));
    return 0;
}

int session_lanes(const struct mg_model *model) {
    size_t lane = mg_lane_bytes(model, MG_KV_F32);
    size_t n = ((size_t)256 << 20) / (lane ? lane : 1);
    return n < 1 ? 1 : n > SESSION_MAX_LANES ? SESSION_MAX_LANES : (int)n;
}

struct mg_batch *session_batch(const struct mg_model *model, int lanes) {
    struct mg_batch_options o = {.lanes = lanes, .chunk = SESSION_CHUNK, .kv = MG_KV_F32};
    struct mg_error err = {0};
    struct mg_batch *b = mg_batch_new(model, &o, &err);
    if (!b) say_model_error(&err);
    return b;
}
