# SPDX-License-Identifier: Apache-2.0
"""microgpt tokenize and detokenize: recorded tokenizations of the reference's library, both directions,
and what they say of input that is none."""
import json
import os
from pathlib import Path

import pytest

from clilib import ROOT, complaint, run

HERE = ROOT / "tests/golden-bpe"
WHOLE = ROOT / "../shared/golden-bpe"
CHAT = HERE / "en500-chat"
CHARS = ROOT / "tests/golden/names"


def lines_of(path):
    return [json.loads(line) for line in Path(path).read_bytes().split(b"\n") if line]


def as_lines(values):
    return "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values)


def ask(command, values, *more):
    """One JSON value a line in and out."""
    out, err = run(command, "--jsonl", *more, stdin=as_lines(values))
    assert err == ""
    return [json.loads(line) for line in out.split("\n")[:-1]]


def cases(folder, file):
    home = next(h for h in (WHOLE, HERE) if (h / folder / file).exists())
    return lines_of(home / folder / file)


@pytest.mark.parametrize("folder", ["en500-chat", "edge-merges"])
def test_recorded_texts(folder):
    recorded = cases(folder, "cases.jsonl")
    texts, source = [c["text"] for c in recorded], ["--tokenizer", HERE / folder / "tokenizer.json"]
    assert len(texts) >= 500
    assert ask("tokenize", texts, *source, "--special") == [c["ids"] for c in recorded]
    assert ask("tokenize", texts, *source) == [c.get("plain", c["ids"]) for c in recorded]


@pytest.mark.parametrize("folder, file", [("en500-chat", "cases.jsonl"), ("en500-chat", "decode.jsonl"),
                                          ("edge-merges", "cases.jsonl")])
def test_recorded_ids(folder, file):
    recorded, source = cases(folder, file), ["--tokenizer", HERE / folder / "tokenizer.json"]
    for key, more in (("dec", []), ("raw", ["--special"])):
        want = [c["text"] if c[key] is None else c[key] for c in recorded]
        assert ask("detokenize", [c["ids"] for c in recorded], *source, *more) == want


def test_whole_text(tmp_path):
    text = "Hello <bos>\u00e9\n\n the\ttab \"q\" \\"
    out, _ = run("tokenize", "--model", CHAT, "--special", stdin=text)
    rows = [line.split("\t", 1) for line in out.split("\n")[:-1]]
    assert [int(r[0]) for r in rows] == ask("tokenize", [text], "--model", CHAT, "--special")[0]
    assert ["0", '"<bos>"'] in rows and ["49", '"\\x0a"'] in rows
    back, _ = run("detokenize", "--model", CHAT, "--special", stdin=out)
    assert back == ask("detokenize", [[int(r[0]) for r in rows]], "--model", CHAT, "--special")[0]
    assert run("detokenize", "--model", CHAT, stdin="75 75\n\n 0 75")[0] == "thethethe"
    assert run("detokenize", "--model", CHAT, stdin="")[0] == run("tokenize", "--model", CHAT, stdin="")[0] == ""


def test_characters():
    """A checkpoint of format A has a tokenizer too."""
    assert ask("tokenize", ["ab!z", ""], "--model", CHARS) == [[0, 1, 25], []]
    assert ask("detokenize", [[0, 1, 26, 25]], "--model", CHARS) == ["abz"]


@pytest.mark.parametrize("command, stdin, text", [
    ("tokenize", '"a"\n7\n', "standard input:2: expected a JSON string"),
    ("tokenize", '"\\ud800"\n', "standard input:1: "),
    ("tokenize", "\n", "standard input:1: "),
    ("detokenize", "[1]\n[1,-1]\n", "standard input:2: expected a JSON array of token ids"),
    ("detokenize", "[1.5]\n", "standard input:1: expected a JSON array of token ids"),
    ("detokenize", '{"a":1}\n', "standard input:1: expected a JSON array of token ids"),
])
def test_bad_lines(command, stdin, text):
    out, err = run(command, "--jsonl", "--model", CHAT, stdin=stdin, code=65)
    assert err.startswith("microgpt: " + text) and err.count("\n") == 1, err


def test_bad_input():
    assert complaint("detokenize", "--model", CHAT, stdin="1 x", code=65) == "standard input, byte 3: no token id"
    assert complaint("detokenize", "--model", CHAT, stdin="1 -2", code=65) == "standard input, byte 3: no token id"
    assert complaint("detokenize", "--model", CHAT, stdin="12a", code=65) == "standard input, byte 1: no token id"
    pipe, end = os.pipe()
    os.write(end, b"a\xff")
    os.close(end)
    with os.fdopen(pipe, "rb") as broken:
        from clilib import start
        p = start("tokenize", "--model", CHAT, stdin=broken)
        assert p.communicate(timeout=60)[1] == "microgpt: standard input is not UTF-8\n" and p.returncode == 65


def test_which_tokenizer():
    both = ["--model", CHAT, "--tokenizer", CHAT / "tokenizer.json"]
    for args in ([], both):
        assert complaint("tokenize", *args, code=64) == "give either --model DIR or --tokenizer FILE"
    assert complaint("tokenize", "--tokenizer", CHAT / "meta.json", code=65).startswith(f"{CHAT}/meta.json: ")
    assert complaint("tokenize", "--tokenizer", "/nowhere", code=66).startswith("/nowhere")
