# SPDX-License-Identifier: Apache-2.0
"""Receipts, and `microgpt verify`: what the service answered is computed again, on each instruction
set, and what has changed since is named. MG_RECEIPTS=N writes N receipts instead of a few (2000
is the long form)."""
import array
import base64
import hashlib
import json
import os
import random
import shutil
import subprocess

import conftest
import fcgi
import lib
import models
import pytest
import stack
from counting import note, not_possible
from lib import CHAT, GENERATE, says

RECEIPTS = int(os.environ.get("MG_RECEIPTS", 240))
MODEL = stack.model(**conftest.CHAT_MODEL)
ARM = stack.BUILD / "arm/microgpt"


def verify(text, *arguments, model=MODEL, program=stack.BUILD / "san/microgpt", prefix=(), timeout=80):
    """(exit code, lines, complaint) of microgpt verify with text as standard input."""
    env = dict(os.environ, ASAN_OPTIONS="detect_leaks=1:exitcode=99")
    done = subprocess.run([*prefix, program, "verify", "--model", model, *arguments], input=text, env=env,
                          capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout.splitlines(), done.stderr


@pytest.fixture(scope="module")
def service():
    with stack.Service(MODEL, workers=1) as s:
        yield s


def reply(s, body, path=GENERATE, **more):
    status, headers, text = fcgi.ask(s.address, body, path=path, **more)
    return status, {k.lower(): v for k, v in headers.items()}, text


def digest_of(text):
    return f"sha-256=:{base64.b64encode(hashlib.sha256(text).digest()).decode()}:"


def receipt_of(s, body, path=GENERATE):
    """A receipt, checked against the plain reply in all its members."""
    plain = reply(s, body, path)
    status, headers, text = reply(s, {**body, "receipt": True}, path)
    assert status == plain[0] == 200
    whole = json.loads(text)
    receipt = whole.pop("receipt")
    assert whole == json.loads(plain[2]) and text.startswith(plain[2][:-1] + b',"receipt":')
    assert headers["repr-digest"] == digest_of(text) and headers["etag"] != plain[1]["etag"]
    assert receipt == {"fingerprint": headers["x-model-fingerprint"], "route": path, "request": receipt["request"],
                       "status": 200, "digest": digest_of(plain[2]), "etag": plain[1]["etag"].strip('"')}
    return receipt


BODIES = [(GENERATE, {}), (GENERATE, {"num_samples": 5, "seed": 2**64 - 1, "temperature": 0.1, "max_tokens": 7}),
          (CHAT, says("hello")), (CHAT, says('a "quote" \\ \n \t \u0001 \u0000 é', seed=2**63, temperature=0))]


@pytest.mark.parametrize("path, body", BODIES)
def test_a_receipt_says_it_all(service, path, body):
    receipt = receipt_of(service, body, path)
    members = ["messages"] if path == CHAT else ["num_samples"]
    assert list(receipt["request"]) == members + ["temperature", "seed", "max_tokens"]
    for name in ("messages", "seed", "temperature"):
        assert name not in body or receipt["request"][name] == body[name]
    again = reply(service, {**receipt["request"], "receipt": True}, path)  # the receipt's request is a body
    assert json.loads(again[2])["receipt"] == receipt
    assert verify(json.dumps(receipt)) == (0, ["-:1: equal"], "")


@pytest.mark.parametrize("path, body", BODIES)
def test_a_stream_ends_with_the_same_receipt(service, path, body):
    """It is that of the plain reply, which the pieces make up."""
    text = reply(service, {**body, "stream": True, "receipt": True}, path)[2]
    *events, last, done, empty = text.split(b"\n\n")
    assert (done, empty) == (b"data: [DONE]", b"") and last.startswith(b'data: {"receipt":')
    assert json.loads(last[6:])["receipt"] == receipt_of(service, body, path)
    plain = reply(service, {**body, "stream": True}, path)[2]
    assert plain.split(b"\n\n")[:-2] == events or body.get("num_samples")
    assert b"receipt" not in plain


def test_a_long_conversation_has_a_receipt(service):
    """One that is encoded in slices, and of which only the end fits the model."""
    messages = [{"role": ("user", "assistant")[i % 2], "content": "word " * 2000} for i in range(9)]
    receipt = receipt_of(service, {"messages": messages}, CHAT)
    assert receipt["request"]["messages"] == messages
    assert verify(json.dumps(receipt))[0] == 0


def test_refusals(service):
    assert reply(service, {"receipt": 1})[0] == 422
    assert reply(service, {"receipt": False})[2] == reply(service, {})[2]
    got = reply(service, b"", method="GET", QUERY_STRING="receipt=true", content_type="", length="")
    assert got[0] == 400
    with stack.Service(MODEL, workers=1, kernels="blis") as s:
        status, _, text = reply(s, {"receipt": True})
        assert status == 400 and "BLIS" in json.loads(text)["error"]


@pytest.mark.parametrize("keys, arguments", [({"kv": "f16"}, ["--kv", "f16"]), ({"compat": "0.5"}, ["--compat", "0.5"])])
def test_modes(keys, arguments):
    with stack.Service(MODEL, workers=1, **keys) as s:
        text = json.dumps(receipt_of(s, {"num_samples": 3}))
    assert verify(text, *arguments)[:2] == (0, ["-:1: equal"])
    code, lines, _ = verify(text)
    assert code == 1 and lines[0].startswith("-:1: weights: ")


# ---- every machine computes the same ----

def written_under_load(n):
    """n receipts of all sorts, from two workers with lanes full."""
    rng = random.Random(14)

    def body():
        more = {"seed": rng.getrandbits(64), "temperature": rng.choice([0, 0.3, 0.5, 1, 1.7]), "receipt": True,
                "max_tokens": rng.randrange(1, 40)}
        if rng.random() < 0.5:
            return GENERATE, {**more, "num_samples": rng.randrange(1, 4)}
        words = ["".join(rng.choices("abc def.?", k=rng.randrange(1, 30))) + "x" for _ in range(rng.choice([1, 1, 3]))]
        return CHAT, {**more, "messages": [{"role": ("user", "assistant")[i % 2], "content": w}
                                           for i, w in enumerate(words)]}
    plan = [body() for _ in range(n)]
    with stack.Service(MODEL, program=stack.FAST, workers=2, lanes=8, queue=64) as s:
        def one(path, ask):
            if ask["seed"] % 3:
                return json.loads(reply(s, ask, path)[2])["receipt"]
            text = reply(s, {**ask, "stream": True}, path)[2]
            return json.loads(text.split(b"\n\n")[-3][6:])["receipt"]
        return lib.together([lambda p=p: one(*p) for p in plan], threads=16)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("receipts") / "all.jsonl"
    path.write_text("".join(json.dumps(r) + "\n" for r in written_under_load(RECEIPTS)))
    return path


def all_equal(code, lines, complaint):
    assert (code, complaint) == (0, "") and len(lines) == RECEIPTS
    assert {line.rpartition(": ")[2] for line in lines} == {"equal"}


@pytest.mark.limit(900)
@pytest.mark.parametrize("kernels", ["auto", "avx2", "plain"])
def test_each_instruction_set_gives_it_again(written, kernels):
    all_equal(*verify("", "--kernels", kernels, written, program=stack.BUILD / "microgpt", timeout=800))
    note(f"{RECEIPTS} receipts written under load are equal with kernels {kernels}")


@pytest.mark.limit(1800)
def test_aarch64_gives_it_again(written):
    """The program built for aarch64, under qemu-user: its NEON kernels, its libraries."""
    if not shutil.which("qemu-aarch64") or not ARM.exists():
        not_possible(f"no qemu-aarch64, or no {ARM} (make arm)")
    all_equal(*verify("", written, program=ARM, prefix=["qemu-aarch64"], timeout=1700))
    note(f"{RECEIPTS} receipts written under load are equal on aarch64 (NEON, qemu-user)")


# ---- what has changed is named ----

def flipped(text, at, bit=0):
    return text[:at] + chr(ord(text[at]) ^ 1 << bit) + text[at + 1:]


def test_one_bit_of_the_request_or_the_digest(service):
    receipt = receipt_of(service, {"num_samples": 2, "seed": 77, "max_tokens": 12})
    text = json.dumps(receipt, separators=(",", ":"))
    spans = {name: (text.index(json.dumps(receipt[name], separators=(",", ":"))), name)
             for name in ("fingerprint", "route", "request", "digest", "etag")}
    wanted = {"fingerprint": {"weights"}, "route": {"request"}, "request": {"request"}, "digest": {"digest"},
              "etag": {"etag"}}
    lines, names = [], []
    for name, (start, _) in spans.items():
        size = len(json.dumps(receipt[name], separators=(",", ":")))
        for at in range(start, start + size):
            for bit in range(7):
                bad = flipped(text, at, bit)
                if "\n" not in bad:
                    lines.append(bad)
                    names.append(name)
    code, found, _ = verify("\n".join(lines))
    first = {}  # what is no JSON any more may end twice in its line
    for line in found:
        first.setdefault(int(line.split(":")[1]), line)
    assert code == 65 and len(first) == len(lines)
    named = 0
    for i, (name, bad) in enumerate(zip(names, lines), 1):
        line = first[i]
        assert not line.endswith(": equal"), bad
        try:
            json.loads(bad)
        except ValueError:
            continue
        word = line.split(": ")[1]
        named += word in wanted[name]
        assert word in wanted[name] or word == "no receipt", (name, bad, line)
    note(f"{len(lines)} receipts with one bit changed: {named} named, the others no JSON or no receipt")


def test_one_bit_of_the_weights(service, tmp_path):
    text = json.dumps(receipt_of(service, {}))
    for name in ("meta.json", "weights.safetensors"):
        shutil.copy(MODEL / name, tmp_path)
    weights = bytearray((tmp_path / "weights.safetensors").read_bytes())
    weights[-4] ^= 1  # the least bit of the last float
    (tmp_path / "weights.safetensors").write_bytes(weights)
    code, lines, _ = verify(text, model=tmp_path)
    assert code == 1 and lines[0].startswith("-:1: weights: the receipt is of the fingerprint ")


# ---- files, exit codes ----

def test_files(service, tmp_path):
    receipts = [receipt_of(service, {"seed": i, "max_tokens": 3}) for i in range(3)]
    lines, laid_out = tmp_path / "lines", tmp_path / "laid out"
    lines.write_text("\n".join(json.dumps(r) for r in receipts))
    laid_out.write_text("\n\n" + json.dumps(receipts[0], indent=1) + "\n" + json.dumps(receipts[1]))
    code, found, _ = verify("", lines, laid_out)
    at = 3 + len(json.dumps(receipts[0], indent=1).splitlines())
    assert code == 0
    assert found == [f"{lines}:{i}: equal" for i in (1, 2, 3)] + [f"{laid_out}:{i}: equal" for i in (3, at)]
    assert verify(lines.read_text(), "-")[1] == [f"-:{i}: equal" for i in (1, 2, 3)]
    by_hand = {k: v for k, v in receipts[0].items() if k != "etag"}
    assert verify(json.dumps(by_hand))[0] == 0


@pytest.mark.parametrize("text, word", [
    ("x", "not JSON"), ("{}", "fingerprint"), ("[]", "no object"), ('{"a": {', "not JSON"), ('"', "not JSON"),
    ("}", "not JSON"), ('{"fingerprint": 1}', "fingerprint"), ("{" * 5000, "not JSON"), ('{"\\u0000": 1}', "not JSON"),
])
def test_what_is_no_receipt(service, text, word):
    good = json.dumps(receipt_of(service, {}))
    code, lines, _ = verify(f"{text}\n{good}\n")
    assert code == 65 and len(lines) == 2, lines
    assert word in lines[0] and lines[1] == "-:2: equal"


def test_exit_codes(service, tmp_path):
    good = receipt_of(service, {})
    assert verify(json.dumps({**good, "status": 201}))[:2] == (1, ["-:1: status: only replies with 200 have receipts"])
    assert verify("")[0] == 65
    assert verify("", tmp_path / "none")[0] == 66
    assert verify("", model=tmp_path / "none")[0] == 66
    assert verify("", "--kernels", "sse")[0] == 64
    done = subprocess.run([stack.BUILD / "san/microgpt", "verify"], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (64, "microgpt: give the model: --model DIR\n")
    big = says("x" * (40 << 20))
    code, lines, _ = verify(json.dumps({**good, "request": big}))
    assert code == 65 and len(lines[0]) < 200


def test_hostile_requests(service):
    """What a receipt asks for is checked as what a client asks for is."""
    good = receipt_of(service, {})
    asked = [{"num_samples": 10**9}, {"temperature": -1}, {"temperature": "x"}, {"seed": 1e300}, {"max_tokens": 0},
             {"stream": True}, {"receipt": True}, {}, {"num_samples": 1, "temperature": 0.5, "seed": 42, "max_tokens": 65}]
    code, lines, _ = verify("\n".join(json.dumps({**good, "request": r}) for r in asked))
    assert code == 1 and all(": request: " in line for line in lines), lines


def test_a_bpe_model_too():
    model = stack.ROOT / "tests/golden-bpe/en500-chat"
    with stack.Service(model, workers=1) as s:
        receipts = [receipt_of(s, {"num_samples": 2}), receipt_of(s, says("the river and the sea"), CHAT)]
    assert verify("\n".join(map(json.dumps, receipts)), model=model)[0] == 0
