/* SPDX-License-Identifier: Apache-2.0
 * import_refuse.c - models that look like ours and are not: two tables, of the flags
 * with which a dump says what it is, and of the names of tensors that ours has not.
 * Whoever gets a refusal reads what the model has and the service lacks. */
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "import.h"

/* ---- flags ------------------------------------------------------------------------- */

/* Refused unless it is false, null or 0, or one of the words. */
static const struct flag {
    const char *name;
    const char *words[3];
    const char *what;
} flags[] = {
    {"rope", {0}, "RoPE; the service reads models with a learned table wpe"},
    {"use_rope", {0}, "RoPE; the service reads models with a learned table wpe"},
    {"rope_theta", {0}, "RoPE; the service reads models with a learned table wpe"},
    {"rope_base", {0}, "RoPE; the service reads models with a learned table wpe"},
    {"pos_emb", {"learned", "absolute"}, "positions; expected a learned table wpe"},
    {"pos_encoding", {"learned", "absolute"}, "positions; expected a learned table wpe"},
    {"squared_relu", {0}, "a squared ReLU; the service computes max(0, x)"},
    {"use_squared_relu", {0}, "a squared ReLU; the service computes max(0, x)"},
    {"relu_squared", {0}, "a squared ReLU; the service computes max(0, x)"},
    {"relu2", {0}, "a squared ReLU; the service computes max(0, x)"},
    {"activation", {"relu"}, "an activation; expected relu"},
    {"activation_function", {"relu"}, "an activation; expected relu"},
    {"act", {"relu"}, "an activation; expected relu"},
    {"hidden_act", {"relu"}, "an activation; expected relu"},
    {"mlp_type", {"relu", "mlp"}, "an MLP; expected two linear layers with a relu"},
    {"swiglu", {0}, "a gated MLP (SwiGLU); expected two linear layers with a relu"},
    {"norm", {"rmsnorm", "rms", "rms_norm"}, "a norm; expected rmsnorm without gain"},
    {"norm_type",
     {"rmsnorm", "rms", "rms_norm"},
     "a norm; expected rmsnorm without gain"},
    {"layernorm", {0}, "a layer norm; expected rmsnorm without gain"},
    {"norm_gain", {0}, "gains in the norms; expected rmsnorm without gain"},
    {"final_norm", {0}, "a norm before lm_head; the service has none there"},
    {"qk_norm", {0}, "a norm of queries and keys; the service has none there"},
    {"bias", {0}, "biases; the service has none"},
    {"use_bias", {0}, "biases; the service has none"},
};

static const struct flag *find_flag(const char *name) {
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (strcasecmp(flags[i].name, name) == 0) return &flags[i];
    return NULL;
}

int import_is_flag(const char *name) {
    return find_flag(name) != NULL;
}

static int is_accepted(const struct flag *f, const char *word) {
    for (int i = 0; i < 3 && f->words[i]; i++)
        if (strcasecmp(f->words[i], word) == 0) return 1;
    return 0;
}

int import_read_flag(struct pull *p, enum pull_token token) {
    const struct flag *f = find_flag(pull_key(p));
    char word[PULL_DESCRIBE];
    if (token == PULL_FALSE || token == PULL_NULL) return 0;
    if (token == PULL_NUMBER && strtod(pull_number(p), NULL) == 0) return 0;
    pull_describe(p, token, word);
    if (token == PULL_STRING) {
        if (pull_string(p, word, sizeof word)) return -1;
        if (is_accepted(f, word)) return 0;
    }
    return pull_fail(p, "found %s: this is %s", word, f->what);
}

/* ---- tensors ----------------------------------------------------------------------- */

/* The first whose part is in the name; each part of a name that is longer first. */
static const struct foreign {
    const char *part, *what;
} foreign[] = {
    {"bias", "a bias, and the service has none"},
    {"rms", "the gain of a norm, and the service's rmsnorm has none"},
    {"norm", "the gain of a norm, and the service's rmsnorm has none"},
    {"ln_", "the gain of a norm, and the service's rmsnorm has none"},
    {"gain", "a gain, and the service's rmsnorm has none"},
    {"gamma", "a gain, and the service's rmsnorm has none"},
    {"beta", "a bias of a norm, and the service has none"},
    {"rope", "a table of RoPE; the service reads models with a learned table wpe"},
    {"freq", "a table of RoPE; the service reads models with a learned table wpe"},
    {"_cos", "a table of RoPE; the service reads models with a learned table wpe"},
    {"_sin", "a table of RoPE; the service reads models with a learned table wpe"},
    {"gate", "part of a gated MLP; the service's has mlp_fc1 and mlp_fc2"},
    {"mlp_up", "part of a gated MLP; the service's has mlp_fc1 and mlp_fc2"},
    {"mlp_down", "part of a gated MLP; the service's has mlp_fc1 and mlp_fc2"},
    {"lora", "part of an adapter: merge it into the weights first"},
    {"qkv", "several matrices in one: write attn_wq, attn_wk and attn_wv"},
    {"c_attn", "several matrices in one: write attn_wq, attn_wk and attn_wv"},
    {"", "no tensor of this architecture, which has wte, wpe, lm_head and "
         "layer{i}.attn_wq, attn_wk, attn_wv, attn_wo, mlp_fc1, mlp_fc2"},
};

int import_refuse_tensor(struct pull *p) {
    const struct foreign *f = foreign;
    while (!strcasestr(pull_key(p), f->part)) f++;
    return pull_fail(p, "this is %s", f->what);
}
