# SPDX-License-Identifier: Apache-2.0
"""The reference's tokenizer library (npm `tokenizers`) against `microgpt`: the same ids, the same text, and
a trained tokenizer.json of the same bytes. MG_FUZZ sets how many texts are tried in all."""
import json
import os
import random
import resource
import subprocess
from pathlib import Path

import pytest

from counting import not_possible, note

ROOT = Path(__file__).resolve().parent.parent.parent
CLI = Path(os.environ["MG_BUILD"]) / "microgpt"
HOME = os.environ.get("MG_CLIENTS")
GOLDEN = ROOT / "tests/golden-bpe"
FUZZ = int(os.environ.get("MG_FUZZ", 2000))
AT_ONCE = 20000
TINY = ["--n-embd", "8", "--n-head", "1", "--n-layer", "1", "--block-size", "8", "--steps", "1", "--batch-size", "1"]


@pytest.fixture(autouse=True)
def installed():
    if not HOME:
        not_possible("the npm registry is not reached")


def run(command, stdin, out):
    """Its standard output, which goes through the file out: whole, whatever a pipe takes."""
    with open(out, "wb") as f:
        subprocess.run([str(c) for c in command], input=stdin, stdout=f, check=True, timeout=600,
                       env={**os.environ, "NODE_PATH": f"{HOME}/node_modules"})
    return Path(out).read_bytes()


def theirs(out, *command, stdin=b""):
    return run(["node", ROOT / "tests/clients/tokenizer_oracle.js", *command], stdin, out)


def ours(out, *command, stdin=b""):
    return run([CLI, *command], stdin, out)


def recorded_texts(folder):
    lines = (GOLDEN / folder / "cases.jsonl").read_bytes().split(b"\n")
    return [json.loads(line)["text"] for line in lines if line]


# ---- training ---------------------------------------------------------------------------------

def words(seed, n, letters="etaoinshrdlu", spaces=(" ", " ", " ", "  ", "\n")):
    """n words of few letters: many pairs are equally frequent."""
    rng = random.Random(seed)
    return "".join("".join(rng.choices(letters, k=rng.randint(1, 7))) + rng.choice(spaces) for _ in range(n))


def licence():
    file = Path("/usr/share/common-licenses/GPL-3")
    return file.read_text() if file.exists() else (ROOT / "LICENSE").read_text()


CORPORA = {
    "licence": licence,
    "names": lambda: (ROOT / "deploy/demo/names/names.txt").read_text(),
    "sources": lambda: "".join(p.read_text() for p in sorted((ROOT / "core").glob("*.c"))),
    "every script": lambda: "\n".join(t for f in ("en500-chat", "edge-merges") for t in recorded_texts(f)
                                      if t.strip() and "\0" not in t),
    "ties": lambda: words(1, 3000, "ab"),
    "equal words": lambda: "ab ba\nab ba abab\n" * 3,
    "runs": lambda: "".join("a" * n + "\n" + " " * n + "b\n" for n in range(1, 60)),
    "end of lines": lambda: "\ufeffone\r\n\r\n two \r\n\u2028\u2029\x85 three\t\tfour\n\n\n\nfive  ",
    "one letter": lambda: "a",
}


def train(tmp, corpus, size, *more):
    """Our tokenizer.json."""
    ours(tmp / "out", "train", "--tokenizer", "bpe", "--vocab-size", size, "--input", corpus, "--output", tmp / "model",
         "--overwrite", *TINY, *more)
    return (tmp / "model/tokenizer.json").read_bytes()


def train_theirs(tmp, corpus, size, chat):
    theirs(tmp / "out", "train", corpus, size, int(chat), tmp / "theirs.json")
    return (tmp / "theirs.json").read_bytes()


@pytest.mark.parametrize("name", CORPORA)
def test_trained_on_text(name, tmp_path):
    corpus = tmp_path / "corpus"
    corpus.write_text(CORPORA[name](), newline="")
    for size in (2, 60, 300, 1024, 5000):
        assert train(tmp_path, corpus, size) == train_theirs(tmp_path, corpus, size, False), size


@pytest.mark.parametrize("name", ["licence", "sources", "ties", "every script"])
def test_trained_on_conversations(name, tmp_path):
    """Messages are what a file has that holds each of them as a line."""
    texts = [t for t in CORPORA[name]().split("\n") if t.strip()]
    (tmp_path / "lines").write_text("".join(t + "\n" for t in texts), newline="")
    with open(tmp_path / "chat", "w") as f:
        for i, t in enumerate(texts):
            first = [{"role": "user", "content": texts[i - 1]}] if i % 2 else []
            if first or i + 1 == len(texts) or i % 2:
                f.write(json.dumps([*first, {"role": "assistant", "content": t}]) + "\n")
    for size in (100, 1024):
        assert train(tmp_path, tmp_path / "chat", size, "--chat") \
            == train_theirs(tmp_path, tmp_path / "lines", size, True), size


def child_seconds():
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime


@pytest.mark.limit(500)
def test_ten_megabytes(tmp_path):
    corpus = tmp_path / "corpus"
    pool = words(3, 60000, "etaoinshrdlucmfwypvbgkjqxz").split()
    rng = random.Random(4)
    picked = rng.choices(pool, [1 / (i + 10) for i in range(len(pool))], k=2_000_000)
    corpus.write_text("\n".join(" ".join(picked[i:i + 12]) for i in range(0, len(picked), 12))[:10_000_000])
    before = child_seconds()
    mine = train(tmp_path, corpus, 4096)
    took = child_seconds() - before
    assert mine == train_theirs(tmp_path, corpus, 4096, False)
    note(f"10 MB to 4096 tokens, read, trained and encoded: {took:.1f} s of CPU; the library "
         f"{child_seconds() - before - took:.1f} s")
    assert took < 20


# ---- texts to ids and back --------------------------------------------------------------------

@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Four: recorded, made by hand, and two of ours, the larger one in the older form of merges."""
    tmp = tmp_path_factory.mktemp("tokenizers")
    made = []
    for name, size, more in (("licence", 1000, []), ("every script", 4096, ["--chat"])):
        folder = tmp / str(size)
        folder.mkdir()
        (folder / "corpus").write_text(CORPORA[name]() if not more else "".join(
            json.dumps([{"role": "assistant", "content": t}]) + "\n" for t in CORPORA[name]().split("\n") if t.strip()))
        made.append((folder / "tokenizer.json", json.loads(train(folder, folder / "corpus", size, *more))))
    made[1][1]["model"]["merges"] = [" ".join(pair) for pair in made[1][1]["model"]["merges"]]
    for path, value in made:
        path.write_text(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
    return [GOLDEN / "en500-chat/tokenizer.json", GOLDEN / "edge-merges/tokenizer.json", *(path for path, _ in made)]


PIECES = [" ", " ", " ", "  ", "\n", "\t", "\r\n", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'", "'S", "<bos>", "<user>",
          "<assistant>", "<end_turn>", "<", ">", "a", "b", "c", "abc", "abcabc", "the", " the", "ing", "é", "e\u0301", "ß",
          "中文", "ไทย", "हिन्दी", "1", "½", "Ⅷ", "٣", "²", ".", ",", "!!!", "---", "\u00a0", "\u2028", "\u3000", "\u200b", "\ufeff",
          "\x00", "\x1f", "\x85", "\x7f", "😀", "👩\u200d🔬", "\U0010ffff", "\ue000", "\u0378", "aaaaaaaa", "https://x.y/z?q=1"]


def random_text(rng, corpus):
    kind = rng.random()
    if kind < 0.35:
        return "".join(rng.choices(PIECES, k=rng.randint(0, 12)))
    if kind < 0.5:
        top = rng.choice([0x80, 0x250, 0x3000, 0x10000, 0x110000])
        codes = (rng.randrange(top) for _ in range(rng.randint(1, 8)))
        return "".join(chr(c) for c in codes if not 0xD800 <= c < 0xE000)
    text = rng.choice(corpus)
    at = rng.randrange(len(text) + 1)
    text = text[at:at + rng.randint(1, 60)]
    for _ in range(rng.randint(0, 3)):
        a, b = sorted(rng.randrange(len(text) + 1) for _ in "ab")
        text = rng.choice([text[:a] + rng.choice(PIECES) + text[a:], text[:a] + text[b:], text[:b] + text[a:],
                           text[:a] + text[a:b].swapcase() + text[b:]])
    return text


def as_lines(values):
    return "".join(json.dumps(v, ensure_ascii=False) + "\n" for v in values).encode()


def assert_same(values, mine, wanted):
    mine, wanted = mine.split(b"\n"), wanted.split(b"\n")
    assert len(mine) == len(wanted) == len(values) + 1
    bad = [(v, m, w) for v, m, w in zip(values, mine, wanted) if m != w and json.loads(m) != json.loads(w)]
    assert not bad, (len(bad), bad[:3])


def plain_form(path, tmp):
    """A tokenizer.json in which nothing typed is special."""
    value = json.loads(path.read_text())
    value["added_tokens"] = []
    (tmp / "plain.json").write_text(json.dumps(value, ensure_ascii=False))
    return tmp / "plain.json"


def compare_texts(path, plain, texts, tmp):
    out, lines = tmp / "out", as_lines(texts)
    mine = ours(out, "tokenize", "--jsonl", "--tokenizer", path, stdin=lines)
    assert_same(texts, mine, theirs(out, "encode", plain, stdin=lines))
    mine = ours(out, "tokenize", "--jsonl", "--special", "--tokenizer", path, stdin=lines)
    assert_same(texts, mine, theirs(out, "encode", path, stdin=lines))
    return mine


def compare_ids(path, lines, tmp):
    lists = [json.loads(line) for line in lines.split(b"\n")[:-1]]
    for word, more in (("skip", []), ("keep", ["--special"])):
        mine = ours(tmp / "out", "detokenize", "--jsonl", *more, "--tokenizer", path, stdin=lines)
        assert_same(lists, mine, theirs(tmp / "out", "decode", path, word, stdin=lines))


@pytest.mark.limit(90 + FUZZ // 100)
@pytest.mark.parametrize("which", range(4))
def test_texts(which, tokenizers, tmp_path):
    path, rng = tokenizers[which], random.Random(which)
    corpus = [t for f in ("en500-chat", "edge-merges") for t in recorded_texts(f) if t] + licence().split("\n\n")
    plain, left = plain_form(path, tmp_path), FUZZ // 4
    while left > 0:
        texts = [random_text(rng, corpus) for _ in range(min(left, AT_ONCE))]
        compare_ids(path, compare_texts(path, plain, texts, tmp_path), tmp_path)
        left -= len(texts)
    note(f"tokenizer {which + 1} of 4: {FUZZ // 4} texts plain and with special tokens, their ids back: all the same")


@pytest.mark.parametrize("which", range(4))
def test_lists_of_ids(which, tokenizers, tmp_path):
    """Ids in any order: halves of characters, ids that there are not."""
    rng = random.Random(which)
    n = 10 + max(json.loads(tokenizers[which].read_text())["model"]["vocab"].values())
    lists = [[rng.randrange(n) for _ in range(rng.randint(0, 12))] for _ in range(FUZZ // 4)]
    compare_ids(tokenizers[which], as_lines(lists), tmp_path)
