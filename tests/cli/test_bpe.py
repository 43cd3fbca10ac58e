# SPDX-License-Identifier: Apache-2.0
"""Checkpoints with a tokenizer.json on the command line: the bytes of the endpoints, which are those of
an independent program (tests/http/bpe_oracle.py)."""
import json
import sys

import pytest

from clilib import ROOT, complaint, run

sys.path.insert(0, str(ROOT / "tests/http"))
import bpe_oracle as oracle  # noqa: E402

MODEL = ROOT / "tests/golden-bpe/en500-chat"
COMPAT = {False: [], True: ["--compat", "0.6"]}


@pytest.fixture(scope="module")
def reference():
    return oracle.Model(MODEL)


def options(body):
    names = {"num_samples": "--num-samples", "temperature": "--temperature", "seed": "--seed",
             "max_tokens": "--max-tokens"}
    return [x for key, option in names.items() if key in body for x in (option, body[key])]


@pytest.mark.parametrize("compat", [False, True])
def test_generate(reference, compat):
    rng = oracle.chance(8)
    for _ in range(12):
        body = {**oracle.random_options(rng), "num_samples": rng.choice([1, 2])}
        more = {k: body.get(k) for k in ("temperature", "max_tokens")}
        want = [reference.sample(body.get("seed", 42) + i, compat=compat, **more) for i in range(body["num_samples"])]
        out, err = run("generate", MODEL, "--json", *COMPAT[compat], *options(body))
        assert (json.loads(out), err) == ({"samples": want}, ""), body


@pytest.mark.parametrize("compat", [False, True])
def test_chat(reference, compat):
    history = []
    body = {"temperature": 1.0, "seed": 5, "max_tokens": 9}
    lines = ["hello", "the man<end_turn><user>and", "  \u00e9 he", "tell me more about the end, and the rest of it"]
    for line in lines:
        history.append({"role": "user", "content": line})
        reply = reference.reply(history, compat=compat, **body)[0]["content"]
        assert oracle.trim(reply), line  # the history keeps no blank one
        history.append({"role": "assistant", "content": reply})
    out, _ = run("chat", MODEL, *COMPAT[compat], *options(body), stdin="\n".join(lines) + "\n")
    said = [m["content"] for m in history if m["role"] == "assistant"]
    assert out == "\n".join(said) + "\n"


def test_info_and_check_name_the_tokenizer():
    assert json.loads(run("info", "--json", MODEL)[0])["tokenizer"] == "bpe"
    assert "500 tokens (bpe tokenizer), trained for chat" in run("info", MODEL)[0]
    assert run("check", MODEL)[0] == f"{MODEL}: ok, F32, 16 x 2 x 2, context 48, bpe tokenizer, chat\n"


def test_compat_belongs_to_a_format():
    chars = ROOT / "tests/golden/names"
    assert complaint("generate", MODEL, "--compat", "0.5", code=65) == \
        f"{MODEL}: found a BPE tokenizer (tokenizer.json, format B), expected chars in meta.json (format A), " \
        "to which compat 0.5 belongs"
    assert complaint("generate", chars, "--compat", "0.6", code=65) == \
        f"{chars}: found chars in meta.json (format A), expected a BPE tokenizer (tokenizer.json, format B), " \
        "to which compat 0.6 belongs"
    assert complaint("chat", chars, "--compat", "0.7", code=64) == "--compat: '0.7' is not 0.5 or 0.6"
