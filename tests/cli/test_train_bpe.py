# SPDX-License-Identifier: Apache-2.0
"""microgpt train with a byte-level BPE tokenizer: what it writes, which tokenizer it takes and why, stopping
and going on, bits per byte. That tokenizer.json is the reference's is tests/clients' to show."""
import csv
import json
import math
import signal

import pytest

from clilib import TINY, complaint, contents, conversation, run, start, write_chat, write_names
from test_train_cli import FILES, saved_step, wait_for

BPE = ["--tokenizer", "bpe"]
LINES = ["the cat sat on the mat", "the dog sat on the cat", "a naïve café, 12½ km", "the mat and the dog"]


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """(corpus, checkpoint trained on it without a break)"""
    base = tmp_path_factory.mktemp("text")
    (base / "text").write_text("\n".join(6 * LINES) + "\n")
    run("train", "--input", base / "text", "--output", base / "model", "--eval", 0.2, *BPE, "--vocab-size", 50, *TINY)
    return base / "text", base / "model"


def tokens(model, line):
    out, _ = run("tokenize", "--jsonl", "--model", model, stdin=json.dumps(line) + "\n")
    return json.loads(out)


def test_layout(text):
    _, model = text
    assert sorted(p.name for p in model.iterdir()) == sorted([*FILES, "tokenizer.json"])
    assert json.loads((model / "meta.json").read_text()) == {
        "vocab_size": 50, "n_embd": 16, "n_head": 2, "n_layer": 1, "block_size": 16}
    vocab = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
    assert len(vocab) == 50 and vocab["<bos>"] == 0 and "<user>" not in vocab and "Ġthe" in vocab
    run("check", model)
    assert "bpe" in run("info", model)[0]
    run("export", "--model", model, "--output", model.parent / "half", "--dtype", "f16")
    assert contents(model.parent / "half").keys() == {"meta.json", "tokenizer.json", "weights.safetensors"}
    for name in ("meta.json", "tokenizer.json"):
        assert contents(model.parent / "half")[name] == contents(model)[name]


def test_it_learns(tmp_path):
    (tmp_path / "one").write_text("the café at the corner, the quick brown fox\n")
    run("train", "--input", tmp_path / "one", "--output", tmp_path / "m", *TINY, *BPE, "--steps", 150, "--block-size",
        48, "--n-embd", 32)
    assert run("generate", "--model", tmp_path / "m", "--temperature", 0)[0] == (tmp_path / "one").read_text()


def test_chat(tmp_path):
    corpus = write_chat(tmp_path / "c", 8 * [conversation("hi there", "hello <user>\nagain", "bye", "so long")])
    run("train", "--chat", "--input", corpus, "--output", tmp_path / "m", *TINY, *BPE, "--block-size", 48, "--steps", 150,
        "--n-embd", 32)
    meta = json.loads((tmp_path / "m/meta.json").read_text())
    assert meta["special_tokens"] == ["user", "assistant", "end_turn"] and "chars" not in meta
    vocab = json.loads((tmp_path / "m/tokenizer.json").read_text())["model"]["vocab"]
    assert list(vocab)[:4] == ["<bos>", "<user>", "<assistant>", "<end_turn>"]
    out, _ = run("chat", "--model", tmp_path / "m", "--temperature", 0, stdin="hi there\nbye\n")
    assert out == "hello <user>\nagain\nso long\n"


# ---- which one, and how many tokens ---------------------------------------------------------

def told(*args):
    _, err = run("train", *args, *TINY, "--steps", 1)
    return next(line for line in err.splitlines() if line.startswith("  tokenizer: "))


def test_which_tokenizer_and_why(tmp_path):
    small, large = write_names(tmp_path / "small"), tmp_path / "large"
    large.write_text("the cat sat on the mat\n" * 45591)
    assert large.stat().st_size == (1 << 20) + 17
    out = ["--output", tmp_path / "m", "--overwrite"]
    why = "since the corpus is smaller than 1 MiB"
    assert told("--input", small, *out) == f"  tokenizer: char, 16 characters, {why}"
    assert told("--input", small, *out, "--tokenizer", "char").endswith(", as was asked for")
    assert told("--input", small, *out, "--vocab-size", 20) == (
        "  tokenizer: bpe, 20 tokens, 0.77 bytes each in this corpus, as was asked for")
    assert told("--input", large, *out).endswith("since the corpus has 1 MiB or more")
    large.write_bytes(large.read_bytes()[:(1 << 20) - 1])
    assert told("--input", large, *out).endswith(why)


def test_fewer_and_more_tokens_than_wanted(tmp_path):
    corpus = write_names(tmp_path / "names")
    args = ["train", "--input", corpus, "--output", tmp_path / "m", "--overwrite", *TINY, *BPE, "--steps", 1]
    _, err = run(*args, "--vocab-size", 5000)
    assert "  5000 tokens were wanted: the corpus has no more pairs to merge\n" in err
    _, err = run(*args, "--vocab-size", 2)
    assert "tokenizer: bpe, 18 tokens, " in err and "wanted" not in err


# ---- bits per byte --------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_bits_per_byte(tmp_path, kind):
    """Loss a token, times tokens to predict (the end is one), by bytes of text, in bits; cut documents
    count as far as they go."""
    line = "é the cat sat é"
    (tmp_path / "t").write_text((line + "\n") * 20)
    for block, known in ((64, len(line.encode())), (4, None)):
        run("train", "--input", tmp_path / "t", "--output", tmp_path / "m", "--overwrite", "--eval", 0.2, *TINY,
            "--tokenizer", kind, *(["--vocab-size", 20] if kind == "bpe" else []), "--block-size", block, "--steps", 20)
        ids = tokens(tmp_path / "m", line)
        predicted = (ids + ["end"])[:block]
        if known is None:
            known = len(run("detokenize", "--model", tmp_path / "m", stdin=" ".join(map(str, predicted)))[0].encode())
        row = list(csv.DictReader((tmp_path / "m/loss.csv").open()))[-1]
        bits = float(row["eval_loss"]) * len(predicted) / known / math.log(2)
        assert float(row["eval_bits_per_byte"]) == pytest.approx(bits, rel=1e-5)


# ---- stopping and going on ------------------------------------------------------------------

def test_interrupted_and_resumed(text, tmp_path):
    corpus, model = text
    out = tmp_path / "m"
    p = start("train", "--input", corpus, "--output", out, "--eval", 0.2, "--checkpoint-every", 1, *BPE, "--vocab-size", 50,
              "--threads", 1, *TINY)
    wait_for(lambda: saved_step(out) >= 3, p)
    p.send_signal(signal.SIGINT)
    _, err = p.communicate(timeout=60)
    assert p.returncode == 130 and 3 <= saved_step(out) < 60, err
    _, err = run("train", "--resume", out, "--input", corpus, "--threads", 3)
    assert "tokenizer: bpe, 50 tokens" in err and "as the run to resume" in err
    assert contents(out) == contents(model)


def test_resume_refuses(text, tmp_path):
    corpus, model = text
    args = ["train", "--resume", model, "--input"]
    assert complaint(*args, corpus, "--tokenizer", "char", code=64) == (
        "train: --tokenizer char, but the run to resume has bpe")
    assert complaint(*args, corpus, "--vocab-size", 61, code=64) == (
        "train: --vocab-size 61, but the run to resume has 50")
    other = tmp_path / "other"
    other.write_text("the cat\nthe zebra was wÿld\n")
    assert complaint(*args, other, code=65) == f"{other}: 7 bytes of text are in no token of the checkpoint"
    chat = write_chat(tmp_path / "chat", 3 * [conversation("the cat", "the dog")])
    broken = tmp_path / "broken"
    broken.mkdir()
    for name, data in contents(model).items():
        (broken / name).write_bytes(data.replace(b'"chat":false', b'"chat":true'))
    args[2] = broken
    assert complaint(*args, chat, code=65) == "tokenizer.json has no <user>: it is not for chat"
    (broken / "tokenizer.json").write_text("{}")
    assert "tokenizer.json" in complaint(*args, chat, code=65)
    (broken / "tokenizer.json").unlink()
    assert "nor a file tokenizer.json beside it" in complaint(*args, chat, code=65)


# ---- what is wrong --------------------------------------------------------------------------

def test_bad_options(tmp_path):
    common = ["train", "--input", write_names(tmp_path / "names"), "--output", tmp_path / "m"]
    assert complaint(*common, "--tokenizer", "word", code=64) == (
        "train: --tokenizer: 'word' is none of auto, char, bpe")
    assert complaint(*common, "--tokenizer", "char", "--vocab-size", 9, code=64) == (
        "train: --vocab-size is for --tokenizer bpe")
    for value in ("1", "x", 1 << 20):
        assert complaint(*common, "--vocab-size", value, code=64).startswith(f"--vocab-size: '{value}'")
    assert not (tmp_path / "m").exists()


def test_bad_text(tmp_path):
    for data, place in ((b"a\nb\0c\n", "2:2: NUL is not text"), (b"ab\xff\n", "1:3: not UTF-8")):
        (tmp_path / "t").write_bytes(data)
        said = complaint("train", *BPE, "--input", tmp_path / "t", "--output", tmp_path / "m", code=65)
        assert said == f"{tmp_path}/t:{place}"
    (tmp_path / "t").write_text("x" * 9000 + "\n")
    said = complaint("train", *BPE, "--input", tmp_path / "t", "--output", tmp_path / "m", code=65)
    assert "a token would have" in said and "expected at most 4096" in said
