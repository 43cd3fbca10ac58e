# SPDX-License-Identifier: Apache-2.0
"""`microgpt import`: the forms in which public projects of the microgpt family dump their models, written
anew here from a small model, give the reply bytes of that model; what is no such model, or damaged, is
refused in one line that says where. Memory does not grow with the weights."""
import array
import json
import os
import random
import re
import struct
import subprocess

import pytest

import models
from clilib import BUILD, CLI, ENV, complaint, contents, read_safetensors, run

CHARS = list("abcdefghij\n é中")
SHAPE = dict(n_embd=16, n_head=4, n_layer=2, block_size=24)
SIZES = dict(SHAPE, vocab_size=len(CHARS) + 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("import") / "model"
    return models.write(directory, chars=CHARS, chat=False, std=0.4, **SHAPE)


def tensors_of(directory):
    """name -> rows of floats (doubles that are those floats)."""
    return {name: [list(values[r * cols:(r + 1) * cols]) for r in range(rows)]
            for name, (_, (rows, cols), values) in read_safetensors(directory / "weights.safetensors").items()}


@pytest.fixture
def tensors(model):
    return tensors_of(model)


def write(path, value, **how):
    path.write_text(json.dumps(value, **how), encoding="utf-8")
    return path


def replies(directory):
    return run("generate", directory, "--num-samples", 12, "--seed", 5, "--temperature", 0.9, "--json")


def assert_same(made, original):
    assert read_safetensors(made / "weights.safetensors") == read_safetensors(original / "weights.safetensors")
    assert replies(made) == replies(original)


# ---- forms ----------------------------------------------------------------------------------

def turned(rows):
    return [list(column) for column in zip(*rows)]


def nested_layers(t):
    out = {name: t[name] for name in ("wte", "wpe", "lm_head")}
    for name in t:
        if name.startswith("layer"):
            layer, part = name.split(".")
            out.setdefault(layer, {})[part] = t[name]
    return out


def bos_first(t):
    """The same model where bos is id 0."""
    return dict(t, **{name: t[name][-1:] + t[name][:-1] for name in ("wte", "lm_head")})


FORMS = {
    "the file and its characters": lambda t: ({"uchars": CHARS, "state_dict": t}, "--n-head", 4),
    "flat sizes": lambda t: {"uchars": CHARS, **SIZES, "state_dict": t},
    "weights first, bos, a name": lambda t: {"weights": t, "uchars": CHARS, **SIZES, "BOS": len(CHARS),
                                             "dataset": "names"},
    "no head, head_dim": lambda t: {"n_layer": 2, "n_embd": 16, "block_size": 24, "head_dim": 4,
                                    "uchars": CHARS, "state_dict": t},
    "config beside": lambda t: {"format": "x-1", "config": SIZES, "uchars": CHARS, "state_dict": t},
    "all in config": lambda t: {"config": {**SIZES, "uchars": CHARS, "BOS": len(CHARS)}, "weights": t},
    "a tokenizer": lambda t: {"format_version": 1, "config": SHAPE, "weights": t,
                              "tokenizer": {"chars": CHARS, "bos_token_id": len(CHARS), "vocab_size": SIZES["vocab_size"]}},
    "metadata": lambda t: {"state_dict": t, "metadata": {"uchars": CHARS, "bos_token_id": len(CHARS),
                                                         "config": {**SHAPE, "temperature": 0.5}}},
    "hyperparams": lambda t: {"uchars": CHARS, "hyperparams": SHAPE, "state_dict": t},
    "a string": lambda t: {**SHAPE, "uchars": "".join(CHARS), "state_dict": t},
    "a vocabulary by token": lambda t: {**SHAPE, "state_dict": t, "vocab":
                                        {"<BOS>": len(CHARS), **{c: i for i, c in reversed(list(enumerate(CHARS)))}}},
    "the list twice": lambda t: {**SHAPE, "chars": CHARS, "vocab": {c: i for i, c in enumerate(CHARS)}, "weights": t},
    "a checkpoint of training": lambda t: {"uchars": CHARS, "step": 999, "m": [[0.1, None, {"a": "]"}]] * 9, "v": [0.0] * 99,
                                           "history": [{"state_dict": 1}], **SIZES, "state_dict": t},
    "camel case": lambda t: {"nEmbd": 16, "nHead": 4, "nLayer": 2, "blockSize": 24, "vocabSize": len(CHARS) + 1,
                             "chars": CHARS, "stateDict": t},
    "layers as objects": lambda t: {**SIZES, "chars": CHARS, "weights": nested_layers(t)},
    "tensors at the top": lambda t: {**SIZES, "chars": CHARS, **t},
    "a model in it": lambda t: {"model": {**SHAPE, "state_dict": t}, "tokenizer": {"vocab": CHARS, "bos_token": "<BOS>"}},
    "flags that say nothing else": lambda t: {**SHAPE, "chars": CHARS, "activation": "ReLU", "norm": "rmsnorm",
                                              "rope": False, "bias": 0, "n_kv_head": 4, "relu2": None, "weights": t},
    "bos first in the list": lambda t: {**SHAPE, "chars": ["<BOS>", *CHARS], "weights": bos_first(t)},
    "bos first beside the list": lambda t: {**SHAPE, "BOS": 0, "chars": CHARS, "weights": bos_first(t)},
    "a character as bos": lambda t: {**SHAPE, "bos": 0, "chars": [".", *CHARS], "weights": bos_first(t)},
    "a character as bos, by its text": lambda t: {**SHAPE, "bos_token": ".", "chars": [".", *CHARS],
                                                  "weights": bos_first(t)},
    "lm_head turned": lambda t: {**SHAPE, "chars": CHARS, "weights": {**t, "lm_head": turned(t["lm_head"])}},
    "tables turned": lambda t: {**SHAPE, "chars": CHARS,
                                "weights": {**t, "wte": turned(t["wte"]), "wpe": turned(t["wpe"])}},
    "bos first and turned": lambda t: {**SHAPE, "BOS": 0, "chars": CHARS, "weights":
                                       {**bos_first(t), "lm_head": turned(bos_first(t)["lm_head"])}},
    "in, out": lambda t: ({**SHAPE, "chars": CHARS, "weights":
                           {name: rows if name in ("wte", "wpe") else turned(rows) for name, rows in t.items()}},
                          "--in-out"),
}


@pytest.mark.parametrize("form", FORMS)
def test_form(form, model, tensors, tmp_path):
    made = FORMS[form](tensors)
    dump, *options = made if isinstance(made, tuple) else (made,)
    file = write(tmp_path / "dump.json", dump)
    out, _ = run("import", file, "--output", tmp_path / "made", *options)
    assert out.startswith(f"{tmp_path}/made: ok, F32, 16 x 4 x 2, context 24")
    assert_same(tmp_path / "made", model)
    assert sorted(contents(tmp_path / "made")) == ["meta.json", "weights.safetensors"]
    assert json.loads((tmp_path / "made/meta.json").read_text())["chars"] == CHARS


def test_text_in_other_ways(model, tensors, tmp_path):
    """Indented, not escaped, a byte order mark, through a pipe; members in any order."""
    dump = {**SIZES, "uchars": CHARS, "state_dict": tensors}
    for how in ({"indent": 1}, {"ensure_ascii": False, "separators": (",", ":")}, {"indent": "\t", "sort_keys": True}):
        run("import", write(tmp_path / "d.json", dump, **how), "--output", tmp_path / "made", "--overwrite")
        assert_same(tmp_path / "made", model)
    text = "\ufeff" + json.dumps(dump).replace("],", "],\r\n")
    run("import", "-", "--output", tmp_path / "made", "--overwrite", stdin=text)
    assert_same(tmp_path / "made", model)


def test_weights_and_sizes_in_two_files(model, tensors, tmp_path):
    weights = write(tmp_path / "weights.json", tensors)
    run("import", weights, "--meta", model / "meta.json", "--output", tmp_path / "made")
    assert_same(tmp_path / "made", model)


def test_chat(tmp_path):
    original = models.write(tmp_path / "model", chars=CHARS, **SHAPE)
    meta = json.loads((original / "meta.json").read_text())
    run("import", write(tmp_path / "d.json", {**meta, "weights": tensors_of(original)}), "--output", tmp_path / "made")
    assert_same(tmp_path / "made", original)
    assert json.loads((tmp_path / "made/meta.json").read_text()) == meta
    said = run("chat", original, stdin="abc\n")
    assert run("chat", tmp_path / "made", stdin="abc\n") == said


def test_tied(model, tensors, tmp_path):
    def tie(shapes, values):
        values["lm_head"][:] = values["wte"]
    tied = models.write(tmp_path / "tied", chars=CHARS, chat=False, std=0.4, edit=tie, **SHAPE)
    del tensors["lm_head"]
    for name, t in (("a", tensors), ("b", {**tensors, "wte": turned(tensors["wte"])})):
        dump = write(tmp_path / "d.json", {**SHAPE, "uchars": CHARS, "state_dict": t})
        _, err = run("import", dump, "--output", tmp_path / name)
        assert err == f"{dump}: lm_head is missing: tied to wte\n"
        assert_same(tmp_path / name, tied)


def test_numbers(model, tensors, tmp_path):
    """Doubles are rounded to F32 as Python's struct does, however they are written."""
    rng, wrote = random.Random(4), []
    for i, row in enumerate(tensors["wte"]):
        for j in range(len(row)):
            x = rng.choice([rng.gauss(0, 0.3), rng.uniform(-1, 1) * 10 ** rng.randint(-50, 3), 0.0, -0.0, 7.0])
            wrote.append(struct.unpack("<f", struct.pack("<f", x))[0])
            row[j] = x
    text = json.dumps({**SHAPE, "uchars": CHARS, "state_dict": tensors})
    for number, other in ((r"7\.0", "7"), (r"0\.0", "0e-7"), (r"-0\.0", "-0E+5")):
        text = re.sub(rf"(?<=[ \[]){number}(?=[,\]])", other, text)
    (tmp_path / "d.json").write_text(text)
    run("import", tmp_path / "d.json", "--output", tmp_path / "made")
    values = read_safetensors(tmp_path / "made/weights.safetensors")["wte"][2]
    assert array.array("f", values).tobytes() == array.array("f", wrote).tobytes()  # with the sign of zero


def test_notes(tensors, tmp_path):
    dump = write(tmp_path / "d.json", {**SHAPE, "bos": 0, "chars": [".", *CHARS], "weights": bos_first(tensors)})
    _, err = run("import", dump, "--output", tmp_path / "made")
    assert err == (f'{dump}: "." (id 0) is bos: it begins and ends a text and is not in one\n'
                   f"{dump}: bos moves from id 0 to {len(CHARS)}\n")


# ---- refusals -------------------------------------------------------------------------------

def put(path, value):
    """An edit of the dump: the member at path (None in value: take it away)."""
    def edit(dump):
        *way, last = path
        for step in way:
            dump = dump[step]
        if value is None:
            del dump[last]
        else:
            dump[last] = value
    return edit


def weight(name, *way):
    return ("state_dict", name, *way)


BIG = [[0.0] * 16 for _ in range(16)]
REFUSED = [
    # what the tensors hold
    (put(weight("layer0.attn_wq", 3, 7), "x"), "state_dict.layer0.attn_wq[3][7]: found a string, expected a number"),
    (put(weight("wte", 1, 0), [0.5]), "state_dict.wte[1][0]: found an array, expected a number"),
    (put(weight("wte", 1, 0), {"data": 0.5}), "state_dict.wte[1][0]: found an object, expected a number"),
    (put(weight("wte", 1, 15), True), "state_dict.wte[1][15]: found true, expected a number"),
    (put(weight("wpe", 23, 2), float("nan")), "state_dict.wpe[23][2]: found NaN, expected a finite number"),
    (put(weight("wpe", 0, 2), float("-inf")), "state_dict.wpe[0][2]: found -Infinity, expected a finite number"),
    (put(weight("wpe", 0, 2), 1e39), "state_dict.wpe[0][2]: found 1e+39, expected a number that F32 can hold, up to 3.4e38"),
    (put(weight("wpe", 0, 2), 10**60), "state_dict.wpe[0][2]: found 1" + "0" * 39 + "..., expected a number that F32 "
                                       "can hold, up to 3.4e38"),
    (put(weight("wpe", 5), [0.0] * 15), "state_dict.wpe[5]: found 15 numbers, expected 16 as in the rows before"),
    (put(weight("wpe", 5), [0.0] * 17), "state_dict.wpe[5]: found 17 numbers, expected 16 as in the rows before"),
    (put(weight("wpe", 0), []), "state_dict.wpe[0]: found an empty row, expected numbers"),
    (put(weight("wpe", 5), 0.5), "state_dict.wpe[5]: found 0.5, expected a row: an array of numbers"),
    (put(weight("wpe"), []), "state_dict.wpe: found an empty array, expected rows of numbers"),
    (put(weight("wpe"), 5), "state_dict.wpe: found 5, expected an array of rows"),
    (put(("state_dict",), [0.5] * 9), "state_dict: found an array, expected an object of tensors by name (a list of "
                                      "numbers alone does not say which is which)"),
    # what is there
    (put(weight("layer1.attn_wo"), None), "state_dict.layer1.attn_wo is missing"),
    (put(weight("layer0.attn_wq"), None), "state_dict.layer0.attn_wq is missing"),
    (put(("n_layer",), 3), "state_dict.layer2.attn_wq is missing"),
    (put(weight("wte"), None), "state_dict.wte is missing: expected an object of tensors (state_dict or weights), or "
                               "tensors beside the sizes"),
    (put(("state_dict",), None), "wte is missing: expected an object of tensors (state_dict or weights), or tensors "
                                 "beside the sizes"),
    (put(("weights",), {"wte": [[1]]}), "weights.wte: wte is there twice"),
    (put(("uchars",), None), "no characters: expected uchars, chars or vocab, an array or a string of them"),
    (put(("n_head",), None), "n_head is not in the file, and no tensor shows it: give --n-head (microgpt's default is 4)"),
    # sizes
    (put(("n_layer",), 1), "n_layer is 1, but the tensors say 2"),
    (put(("n_embd",), 32), "n_embd is 32, but the tensors say 16"),
    (put(("block_size",), 32), "block_size is 32, but the tensors say 24"),
    (put(("vocab_size",), 32), "vocab_size is 32, but the tensors say 15"),
    (put(("n_head",), 3), "n_head: found 3, expected that n_head heads are n_embd, 16, wide"),
    (put(("head_dim",), 8), "n_head: found 4 and a head_dim that does not fit, expected that n_head heads are n_embd, "
                            "16, wide"),
    (put(("n_head",), 4.5), "n_head: found 4.5, expected a whole number from 1 to 2^30"),
    (put(("n_head",), 0), "n_head: found 0, expected a whole number from 1 to 2^30"),
    (put(("n_head",), "4"), "n_head: found a string, expected a whole number from 1 to 2^30"),
    (put(("config",), {"n_embd": 17}), "config.n_embd: found 17, but it was 16 before"),
    # shapes
    (put(weight("layer1.mlp_fc1"), BIG), "state_dict.layer1.mlp_fc1: found shape [16, 16], expected [64, 16], an MLP four "
                                         "times as wide as n_embd"),
    (put(weight("layer1.attn_wo"), BIG[1:]), "state_dict.layer1.attn_wo: found shape [15, 16], expected [16, 16]"),
    (put(weight("lm_head"), BIG + BIG), "state_dict.lm_head: found shape [32, 16], expected [15, 16]"),
    (put(weight("wpe"), [[0.0] * 5] * 4), "state_dict.wpe: found shape [4, 5], expected [5, 16]"),
    (put(weight("wte"), [[0.0] * 5] * 4), "state_dict.wte: found shape [4, 5], expected a side of 16, as layer0.attn_wq is "
                                          "[16, 16]"),
    (put(weight("layer0.attn_wq"), BIG + BIG), "state_dict.layer0.attn_wq: found shape [32, 16], expected a square: heads "
                                               "that are together wider or narrower than n_embd are not supported"),
    # characters
    (put(("uchars", 3), "the"), 'uchars[3]: found "the", expected single characters: a vocabulary of words or pieces is '
                                "not supported"),
    (put(("uchars", 3), 7), "uchars[3]: found 7, expected a string"),
    (put(("uchars", 3), "a"), 'uchars: "a" is there twice'),
    (put(("uchars",), CHARS[1:]), "uchars has 13 tokens and wte has 15 rows, expected 14: the characters and bos"),
    (put(("uchars",), CHARS + ["x"]), "uchars has 15 tokens and wte has 15 rows, expected 16: the characters and bos"),
    (put(("uchars",), ["<BOS>", "<EOS>"] + CHARS), 'uchars[1]: found "<EOS>" beside "<BOS>", expected single characters: '
                                                   "a vocabulary of words or pieces is not supported"),
    (put(("vocab",), {"a": 1}), 'vocab.a: found "a" for id 1, which stands for another token'),
    (put(("vocab",), {"a": 0}), "vocab: found 1 tokens, but uchars has 14"),
    (put(("vocab",), {"a": -1}), "vocab.a: found -1, expected an id"),
    (put(("vocab",), {"x": 9999999}), "vocab.x: found id 9999999, expected 0 to 1114115"),
    (put(("vocab",), True), "vocab: found true, expected the characters: an array or a string"),
    (put(("bos",), 16), "bos is 16, but uchars has ids 0 to 13"),
    (put(("bos",), [1]), "bos: found an array, expected the id of a token"),
    # other models
    (put(weight("wpe"), None), "state_dict.wpe is missing: a model without a learned table of positions (RoPE or another "
                               "scheme) is not one that the service computes"),
    (put(("rope",), True), "rope: found true: this is RoPE; the service reads models with a learned table wpe"),
    (put(("rope_theta",), 1e4), "rope_theta: found 10000.0: this is RoPE; the service reads models with a learned table wpe"),
    (put(("n_kv_head",), 2), "n_kv_head: found 2, but n_head is 4: grouped heads are not supported"),
    (put(weight("layer0.attn_wk"), BIG[:8]), "state_dict.layer0.attn_wk: found shape [8, 16], expected a square: grouped "
                                             "heads (fewer of keys and values than of queries) are not supported"),
    (put(weight("layer0.rms_1"), [1.0] * 16), "state_dict.layer0.rms_1: this is the gain of a norm, and the service's "
                                              "rmsnorm has none"),
    (put(weight("ln_f.weight"), [1.0] * 16), "state_dict.ln_f.weight: this is the gain of a norm, and the service's rmsnorm "
                                             "has none"),
    (put(weight("layer0.attn_bq_bias"), [1.0]), "state_dict.layer0.attn_bq_bias: this is a bias, and the service has none"),
    (put(("layer0.rms_1",), [1.0] * 16), "layer0.rms_1: this is the gain of a norm, and the service's rmsnorm has none"),
    (put(weight("layer0.mlp_gate"), BIG), "state_dict.layer0.mlp_gate: this is part of a gated MLP; the service's has "
                                          "mlp_fc1 and mlp_fc2"),
    (put(weight("layer0.attn_qkv"), BIG), "state_dict.layer0.attn_qkv: this is several matrices in one: write attn_wq, "
                                          "attn_wk and attn_wv"),
    (put(weight("tok_emb"), BIG), "state_dict.tok_emb: this is no tensor of this architecture, which has wte, wpe, lm_head "
                                  "and layer{i}.attn_wq, attn_wk, attn_wv, attn_wo, mlp_fc1, mlp_fc2"),
    (put(("config",), {"squared_relu": True}), "config.squared_relu: found true: this is a squared ReLU; the service "
                                               "computes max(0, x)"),
    (put(("activation",), "gelu"), "activation: found gelu: this is an activation; expected relu"),
    (put(("norm",), "layernorm"), "norm: found layernorm: this is a norm; expected rmsnorm without gain"),
    (put(("bias",), True), "bias: found true: this is biases; the service has none"),
]


def refuse(tmp_path, text, *options, code=65):
    """The complaint about a dump, without the file; nothing is left behind, and the old output is."""
    file = tmp_path / "dump.json"
    file.write_text(text) if isinstance(text, str) else file.write_bytes(text)
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    (out / "meta.json").write_text("old")
    said = complaint("import", file, "--output", out, "--overwrite", *options, code=code)
    assert sorted(os.listdir(tmp_path)) == ["dump.json", "out"]
    assert contents(out) == {"meta.json": b"old"}
    assert said.startswith(f"{file}: "), said
    return said.removeprefix(f"{file}: ")


@pytest.mark.parametrize("edit, says", REFUSED, ids=[says.split(" ")[0] + str(i) for i, (_, says) in enumerate(REFUSED)])
def test_refused(edit, says, tensors, tmp_path):
    dump = {**SIZES, "uchars": list(CHARS), "state_dict": tensors}
    edit(dump)
    assert refuse(tmp_path, json.dumps(dump)) == says


def test_transposed_that_cannot_be_seen(tensors, tmp_path):
    t = {name: turned(rows) if "mlp" in name else rows for name, rows in tensors.items()}
    dump = {**SIZES, "uchars": CHARS, "state_dict": t}
    assert refuse(tmp_path, json.dumps(dump)) == (
        "state_dict.layer1.mlp_fc2: found shape [64, 16], which is [in, out]: if all of the model is so, the square ones "
        "too, give --in-out")
    t["layer0.mlp_fc1"] = tensors["layer0.mlp_fc1"]
    assert refuse(tmp_path, json.dumps(dump)) == (
        "state_dict.layer1.mlp_fc2: found shape [64, 16], which is [in, out]: others are [out, in], and of square ones it "
        "cannot be seen")
    assert refuse(tmp_path, json.dumps(dump), "--in-out") == (
        "state_dict.layer0.mlp_fc1: found shape [64, 16], which is [out, in]: --in-out is not true of it")
    square = {**tensors, "wte": turned(tensors["wte"]), "wpe": tensors["wpe"][:16]}
    assert refuse(tmp_path, json.dumps({"n_head": 4, "uchars": CHARS, "state_dict": square})) == (
        "state_dict.wte is transposed and wpe is square: whether that one is transposed too cannot be seen")
    assert refuse(tmp_path, json.dumps({**SIZES, "uchars": CHARS, "state_dict": tensors}), "--n-head", 2) == (
        "--n-head is 2, but n_head in the file is 4")


def test_damaged(tensors, tmp_path):
    text = json.dumps({**SIZES, "uchars": CHARS, "state_dict": tensors})
    assert refuse(tmp_path, text.replace(str(tensors["wpe"][2][3]), "1e400", 1)) == (
        "state_dict.wpe[2][3]: found 1e400, expected a number that F32 can hold, up to 3.4e38")
    at = text.index(str(tensors["layer1.attn_wv"][4][6]))
    assert refuse(tmp_path, text[:at]) == (
        f"not valid JSON: line 1, column {at + 1}: state_dict.layer1.attn_wv[4][6]: the text ends too early, expected a value")
    for cut in range(0, len(text) - 1, len(text) // 40):
        assert "the text ends too early" in refuse(tmp_path, text[:cut])
    assert refuse(tmp_path, text + "{}") == (
        f"not valid JSON: line 1, column {len(text) + 1}: found '{{', expected nothing behind the value")
    assert refuse(tmp_path, "[]") == "found an array, expected an object"
    assert refuse(tmp_path, text.replace("]]", "],]", 1)).endswith("found ']', expected a value")
    twice = text.replace('"layer1.attn_wv"', '"layer1.attn_wq"')
    assert refuse(tmp_path, twice) == "state_dict.layer1.attn_wq: layer1.attn_wq is there twice"
    assert refuse(tmp_path, text.encode().replace(b"\\u00e9", b"\xe9")).endswith("not UTF-8")
    assert "found byte 0x80, expected a value" in refuse(tmp_path, b"\x80\x04\x95pickle")


def test_usage(model, tensors, tmp_path):
    dump = write(tmp_path / "d.json", {**SIZES, "uchars": CHARS, "state_dict": tensors})
    assert complaint("import", dump, code=64) == "import: give FILE.json and --output DIR"
    assert complaint("import", "--output", tmp_path / "x", code=64) == "import: give FILE.json and --output DIR"
    assert complaint("import", tmp_path / "no", "--output", tmp_path / "x", code=66) == \
        f"{tmp_path}/no: No such file or directory"
    assert complaint("import", tmp_path, "--output", tmp_path / "x", code=71) == f"{tmp_path}: cannot read: Is a directory"
    assert "exists" in complaint("import", dump, "--output", model, code=73)
    assert "no part of a checkpoint" in complaint("import", dump, "--output", tmp_path, "--overwrite", code=73)
    assert sorted(os.listdir(tmp_path)) == ["d.json"]


def test_check_follows(tensors, tmp_path):
    """A model that overflows is written, and the check says so."""
    tensors["wte"] = [[1.0] * 16] * len(tensors["wte"])
    tensors["lm_head"] = [[3e38] * 16] * len(tensors["lm_head"])
    dump = write(tmp_path / "d.json", {**SIZES, "uchars": CHARS, "state_dict": tensors})
    said = complaint("import", dump, "--output", tmp_path / "made", code=65)
    assert said == "the model computes a logit that is not finite"
    assert sorted(contents(tmp_path / "made")) == ["meta.json", "weights.safetensors"]


def test_full_disk(model, tensors, tmp_path):
    dump = write(tmp_path / "d.json", {**SIZES, "uchars": CHARS, "state_dict": tensors})
    for kib in (0, 12, 28):  # in the spool, at once and later; in the weights, which have a header too
        done = subprocess.run(["bash", "-c", f'ulimit -f {kib}; exec "$@"', "x", str(CLI), "import", str(dump), "--output",
                               str(tmp_path / "made")], capture_output=True, text=True, env=ENV)
        assert done.returncode == 74 and "File too large" in done.stderr and done.stderr.count("\n") == 1, (kib, done)
        assert os.listdir(tmp_path) == ["d.json"]


# ---- memory ---------------------------------------------------------------------------------

def write_large(path, megabytes):
    """A dump of about that size, weights first, without n_head, so that all of it is read and then refused;
    its sizes."""
    n_embd, chars = 128, [chr(0x4E00 + i) for i in range(300)]
    n_layer = max(1, round((megabytes * 1e6 / 20.7 - 700 * n_embd) / (12 * n_embd * n_embd)))
    rng = random.Random(7)
    rows = [", ".join(repr(rng.gauss(0, 0.08)) for _ in range(n_embd)) for _ in range(97)]
    with open(path, "w") as out:
        out.write('{"state_dict": {')
        for k, (name, (n, cols)) in enumerate(models.shapes_of(301, n_embd, n_layer, 64).items()):
            out.write(f'{", " if k else ""}"{name}": [')
            for r in range(n):
                parts = (rows[(k + 5 * r + 31 * i) % 97] for i in range(cols // n_embd))
                out.write(f'{", " if r else ""}[{", ".join(parts)}]')
            out.write("]")
        out.write(f'}}, "uchars": {json.dumps(chars)}, "m": [{", ".join(rows)}]}}')
    return n_layer


# A process inherits the peak of the one that forks it: from a small one, not from pytest.
LAUNCHER = """import os, sys
pid = os.posix_spawn(sys.argv[1], sys.argv[1:], {})
_, status, usage = os.wait4(pid, 0)
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss)"""


def peak_memory(*args, code):
    """Largest resident set of a run of the program as it is installed, in bytes."""
    done = subprocess.run(["/usr/bin/python3", "-ISc", LAUNCHER, str(BUILD / "microgpt"), *map(str, args)],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    got, peak = done.stdout.splitlines()[-1].split()
    assert int(got) == code
    return int(peak) * 1024


def check_memory(tmp_path, megabytes):
    """The peak while a dump is read does not depend on its size; nor does that of writing, but for the mapping
    that the check makes."""
    small, large = tmp_path / "small.json", tmp_path / "large.json"
    write_large(small, 1)
    n_layer = write_large(large, megabytes)
    assert abs(large.stat().st_size / 1e6 / megabytes - 1) < 0.15
    few, many = (peak_memory("import", f, "--output", tmp_path / "made", code=65) for f in (small, large))
    assert many - few < 1 << 20, (few, many)
    whole = peak_memory("import", large, "--output", tmp_path / "made", "--n-head", 8, code=0)
    weights = (tmp_path / "made/weights.safetensors").stat().st_size
    assert whole < few + weights + (16 << 20), (few, whole, weights)
    assert json.loads(run("info", "--json", tmp_path / "made")[0])["n_layer"] == n_layer
    return few, many, whole


def test_memory_does_not_grow(tmp_path):
    check_memory(tmp_path, 12)
