# SPDX-License-Identifier: Apache-2.0
"""microgpt info, check, generate, chat, export and the frame around them. Runs the sanitized build;
replies are compared with the recorded ones and with those of the service."""
import json
import math
import os
import pty
import select
import struct
import subprocess
import time

import pytest

import lib
import models
import stack
from clilib import CLI, ENV, ROOT, complaint, read_safetensors, run

GOLDEN = ROOT / "tests/golden"
COMMANDS = ["train", "info", "check", "generate", "chat", "export"]


@pytest.fixture(scope="module")
def names():
    return stack.model(n_embd=16, n_head=4, n_layer=1, block_size=16, chars=models.LETTERS, chat=False,
                       seed=5)


@pytest.fixture(scope="module")
def chat():
    return stack.model(n_embd=32, n_head=4, n_layer=2, block_size=64, seed=3)


# ---- the frame ------------------------------------------------------------------------------

def test_help_and_version():
    out, _ = run("help")
    assert all(f"\n  {name} " in out for name in COMMANDS)
    assert run("--help") == run("-h") == (out, "")
    for name in COMMANDS:
        text, err = run(name, "--help")
        assert text.startswith(f"usage: microgpt {name} ") and "\n  --" in text and err == ""
        assert run("help", name) == (text, "")
    version, _ = run("--version")
    assert version.startswith("microgpt ") and run("-V")[0] == version


def test_wrong_usage(names):
    assert "give a command" in complaint(code=64)
    assert "no command 'fly'" in complaint("fly", code=64)
    assert "no command 'fly'" in complaint("help", "fly", code=64)
    for name in ("info", "check", "generate", "chat"):
        assert "give the directory" in complaint(name, code=64)
        assert "unknown option '--moddel'" in complaint(name, "--moddel", names, code=64)
        assert "unexpected 'two'" in complaint(name, names, "two", code=64)
    assert "--model DIR and --output DIR" in complaint("export", "--model", names, code=64)
    assert "--json takes no value" in complaint("info", "--json=1", names, code=64)
    for option, value in [("temperature", "-0.1"), ("temperature", "inf"), ("seed", "18446744073709551616"),
                          ("seed", "+1"), ("max-tokens", "0"), ("num-samples", "0"), ("compat", "0.4")]:
        said = complaint("generate", "--model", names, f"--{option}", value, code=64)
        assert said.startswith(f"--{option}: '{value}' is not"), said


def test_standard_output_that_is_full(names):
    for args in (["help"], ["info", names], ["check", names], ["generate", names, "--json"],
                 ["generate", names, "--num-samples", "3000"]):
        with open("/dev/full", "w") as full:
            done = subprocess.run([str(CLI), *map(str, args)], stdout=full, stderr=subprocess.PIPE,
                                  text=True, env=ENV)
        assert done.returncode == 74 and "cannot write to standard output: No space" in done.stderr, args


# ---- info and check -------------------------------------------------------------------------

def test_info(names, chat):
    facts = json.loads(run("info", "--json", chat)[0])
    size = (chat / "weights.safetensors").stat().st_size
    vocab = len(models.TEXT) + 4
    assert facts["parameters"] == (2 * vocab + 64) * 32 + 2 * 12 * 32 * 32
    assert (facts["vocab_size"], facts["n_embd"], facts["n_head"], facts["n_layer"],
            facts["block_size"]) == (vocab, 32, 4, 2, 64)
    assert facts["chat"] is True and facts["dtype"] == "F32" and facts["tokenizer"] == "char"
    assert facts["weights_bytes"] == size and len(facts["digest"]) == 16
    assert facts["lane_bytes"] == 2 * 2 * 64 * 32 * 4  # keys and values, layers, positions, width
    assert facts["worker_bytes"] > facts["lanes"] * facts["lane_bytes"]
    text = run("info", chat)[0]
    for part in (facts["digest"], "32 wide, 4 heads, 2 layers, context 64", "trained for chat", "0.03 MiB a lane"):
        assert part in text
    other = json.loads(run("info", names, "--json")[0])
    assert other["chat"] is False and other["digest"] != facts["digest"]


def test_check(names, tmp_path):
    assert run("check", names)[0].startswith(f"{names}: ok, F32, 16 x 4 x 1, context 16")
    assert json.loads(run("check", "--json", names)[0]) == {"model": str(names), "ok": True, "code": 0}
    assert "No such file or directory" in complaint("check", tmp_path / "no", code=66)
    broken = tmp_path / "broken"
    models.write(broken, n_embd=16, n_head=4, n_layer=1, block_size=16)
    data = (broken / "weights.safetensors").read_bytes()
    (broken / "weights.safetensors").write_bytes(data[:-1])
    said = complaint("check", broken, code=65)
    assert "weights.safetensors" in said
    out, _ = run("check", broken, "--json", code=65)
    assert json.loads(out) == {"model": str(broken), "ok": False, "code": 65, "error": said}
    assert said == complaint("info", broken, code=65) == complaint("generate", broken, code=65)


def test_check_of_a_model_that_overflows(tmp_path):
    """Finite weights, but a logit is not: found by the one generation."""
    def huge(shapes, values):
        for name, x in [("wte", 1), ("lm_head", 3e38)]:
            for i in range(len(values[name])):
                values[name][i] = x
    models.write(tmp_path / "m", n_embd=16, n_head=4, n_layer=1, block_size=16, edit=huge)
    assert "not finite" in complaint("check", tmp_path / "m", code=65)
    assert "not finite" in complaint("generate", tmp_path / "m", code=65)


# ---- generate -------------------------------------------------------------------------------

def requests(name, endpoint):
    """(request, recorded reply) of a golden folder."""
    lines = [(GOLDEN / name / f"{kind}.jsonl").read_text().split("\n")[:-1] for kind in ("requests", "responses")]
    pairs = [(json.loads(q), json.loads(a)) for q, a in zip(*lines)]
    return [(q, a) for q, a in pairs if q["endpoint"] == endpoint]


def options(request):
    names = {"num_samples": "--num-samples", "temperature": "--temperature", "seed": "--seed",
             "max_tokens": "--max-tokens"}
    return [x for key, option in names.items() if request.get(key) is not None
            for x in (option, min(request[key], 50) if key == "num_samples" else request[key])]


def usable(request):
    """Not every recorded request can be said on a command line: 0 tokens and the like."""
    return request.get("max_tokens") != 0 and request.get("num_samples") != 0 \
        and request.get("temperature", 1) > 0


@pytest.mark.parametrize("name", ["names", "names-f16", "chat-small", "unicode-chat", "escapes-shuffled"])
def test_generate_gives_the_recorded_samples(name):
    pairs = [(q, a) for q, a in requests(name, "generate") if usable(q)]
    assert len(pairs) >= 3
    for request, reply in pairs[:12]:
        out, _ = run("generate", "--compat", "0.5", "--json", "--model", GOLDEN / name, *options(request))
        assert json.loads(out) == reply, request


def test_generate_lines(names):
    lines = run("generate", "--model", names, "--num-samples", 150, "--seed", 7)[0].split("\n")
    assert len(lines) == 151 and lines[-1] == ""
    one = run("generate", "--model", names, "--seed", 7 + 149)[0]
    assert one == lines[149] + "\n"
    out, _ = run("generate", names, "--num-samples", 150, "--seed", 7, "--json")
    assert json.loads(out) == {"samples": lines[:-1]}
    assert all(len(s) <= 3 for s in run("generate", names, "--max-tokens=3", "--num-samples=9")[0].split("\n"))
    assert run("generate", names, "--num-samples", 2, "--seed", 2**64 - 1)[0].split("\n")[1] == \
        run("generate", names, "--seed", 0)[0].strip("\n")


def test_same_bytes_as_the_service(chat):
    with stack.Stack(chat) as s:
        reply = lib.generate(s.port, {"num_samples": 20, "seed": 3, "temperature": 1.5})
        out, _ = run("generate", chat, "--num-samples", 20, "--seed", 3, "--temperature", 1.5, "--json")
        assert json.loads(out) == reply.json()
        conversation, replies = [], []
        for text in ("Hello, you!", "And then? A very long line to be cut off at last.", "ok"):
            conversation.append({"role": "user", "content": text})
            body = {"messages": conversation, "seed": 9, "temperature": 0.8}
            replies.append(lib.chat(s.port, body).json()["content"])
            conversation.append({"role": "assistant", "content": replies[-1]})
    out, err = run("chat", "--model", chat, "--seed", 9, "--temperature", 0.8,
                   stdin="Hello, you!\r\nAnd then? A very long line to be cut off at last.\n\n  \nok")
    assert out == "\n".join(replies) + "\n" and err == ""


# ---- chat -----------------------------------------------------------------------------------

@pytest.mark.parametrize("name", ["chat-small", "unicode-chat"])
def test_chat_gives_the_recorded_replies(name):
    def plain(request):
        m = request["messages"]
        return usable(request) and len(m) == 1 and m[0]["role"] == "user" and m[0]["content"].strip() \
            and not set(m[0]["content"]) & set("\n\r\0") and not m[0]["content"].startswith("/")
    pairs = [(q, a) for q, a in requests(name, "chat") if plain(q)]
    assert len(pairs) >= 3
    for request, reply in pairs[:10]:
        out, _ = run("chat", "--compat", "0.5", "--model", GOLDEN / name, *options(request),
                     stdin=request["messages"][0]["content"] + "\n")
        assert out == reply["content"] + "\n", request


def test_chat_commands_and_history(chat):
    args = ["chat", "--model", chat, "--max-tokens", 9]
    first, again = run(*args, stdin="hello\nhello\n")[0].split("\n")[:2]
    assert run(*args, stdin="hello\n/clear\nhello\n")[0] == f"{first}\n{first}\n"
    assert run(*args, stdin="hello\n/quit\nhello\n")[0] == f"{first}\n"
    assert again != first  # the second one has a history


def test_chat_goes_on_after_a_bad_line(chat):
    args = [str(CLI), "chat", "--model", str(chat), "--max-tokens", "9"]
    done = subprocess.run(args, input=b"\xff\xfe\nhello\n", capture_output=True, env=ENV)
    good = subprocess.run(args, input=b"hello\n", capture_output=True, env=ENV)
    assert done.stdout == good.stdout and good.returncode == 0
    assert done.returncode == 65 and done.stderr == b"microgpt: this line is not UTF-8\n"
    _, err = run("chat", "--model", chat, stdin="\u4e2d\u6587\n", code=65)
    assert "messages[0]" in err


def test_chat_without_chat_tokens(names):
    assert complaint("chat", "--model", names, code=65) == "model was not trained with chat tokens"


class Terminal:
    """The program on a pseudo terminal."""

    def __init__(self, *args):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(CLI, [str(CLI), *map(str, args)], dict(ENV, TERM="dumb"))
        self.seen = ""

    def wait_for(self, text):
        end = time.monotonic() + 60
        while text not in self.seen:
            assert select.select([self.fd], [], [], end - time.monotonic())[0], self.seen
            self.seen += os.read(self.fd, 4096).decode()
        before, self.seen = self.seen.split(text, 1)
        return before

    def send(self, data):
        os.write(self.fd, data)

    def end(self):
        try:
            while data := os.read(self.fd, 4096):
                self.seen += data.decode()
        except OSError:  # the other side is gone
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_chat_in_a_terminal(chat):
    """Prompt, line editing (a rubbed out character, the history), /quit."""
    reply = run("chat", chat, stdin="hello\n")[0].rstrip("\n")
    t = Terminal("chat", chat)
    t.wait_for("> ")
    t.send(b"hellp\x7fo\r")
    t.wait_for(reply.replace("\n", "\r\n"))
    t.wait_for("> ")
    t.send(b"/clear\r")
    t.wait_for("> ")
    t.send(b"\x10\x10\r")  # two lines back: hello again
    t.wait_for(reply.replace("\n", "\r\n"))
    t.wait_for("> ")
    t.send(b"/quit\r")
    assert t.end() == 0


def test_progress_in_a_terminal(tmp_path):
    (tmp_path / "t").write_text("anna\notto\n")
    t = Terminal("train", "--input", tmp_path / "t", "--output", tmp_path / "m", "--steps", 30,
                 "--n-embd", 16, "--n-layer", 1, "--block-size", 16)
    t.wait_for("\rstep 30/30  loss ")
    t.wait_for(" tokens/s  0m00s left")
    t.wait_for("saved ")
    assert t.end() == 0


# ---- export ---------------------------------------------------------------------------------

def to_bf16(x):
    """Round to nearest even by hand."""
    bits, = struct.unpack("<I", struct.pack("<f", x))
    low, high = bits & 0xFFFF, bits >> 16
    high += low > 0x8000 or low == 0x8000 and high & 1
    return struct.unpack("<f", struct.pack("<I", high << 16))[0]


def test_export(chat, tmp_path):
    was = read_safetensors(chat / "weights.safetensors")
    rounded = {"f32": lambda x: x, "f16": lambda x: struct.unpack("<e", struct.pack("<e", x))[0], "bf16": to_bf16}
    for dtype, convert in rounded.items():
        out = tmp_path / dtype
        run("export", "--model", chat, "--output", out, "--dtype", dtype)
        assert sorted(os.listdir(out)) == ["meta.json", "weights.safetensors"]
        assert (out / "meta.json").read_bytes() == (chat / "meta.json").read_bytes()
        tensors = read_safetensors(out / "weights.safetensors")
        assert set(tensors) == set(was)
        for name, (kind, shape, values) in tensors.items():
            assert kind == dtype.upper() and shape == was[name][1]
            assert list(values) == [convert(x) for x in was[name][2]], name
        run("check", out)
    assert run("generate", tmp_path / "f32", "--num-samples", 5) == run("generate", chat, "--num-samples", 5)
    # from 16 bits back to 32: nothing is lost any more
    run("export", "--model", tmp_path / "bf16", "--output", tmp_path / "wide")
    assert run("generate", tmp_path / "wide") == run("generate", tmp_path / "bf16")


def test_export_refuses(chat, tmp_path):
    assert "is none of f32, f16, bf16" in complaint("export", "--model", chat, "--output", tmp_path / "x",
                                                    "--dtype", "f8", code=64)
    run("export", "--model", chat, "--output", tmp_path / "x")
    assert "exists" in complaint("export", "--model", chat, "--output", tmp_path / "x", code=73)
    run("export", "--model", chat, "--output", tmp_path / "x", "--dtype", "f16", "--overwrite")
    assert json.loads(run("info", "--json", tmp_path / "x")[0])["dtype"] == "F16"

    def big(shapes, values):
        values["wpe"][7] = 65520.0
    models.write(tmp_path / "big", n_embd=16, n_head=4, n_layer=1, block_size=16, edit=big)
    said = complaint("export", "--model", tmp_path / "big", "--output", tmp_path / "y", "--dtype", "f16", code=65)
    assert said == "wpe[7] = 65520 is too large for f16: use bf16"
    run("export", "--model", tmp_path / "big", "--output", tmp_path / "y", "--dtype", "bf16")
    assert math.isclose(read_safetensors(tmp_path / "y/weights.safetensors")["wpe"][2][7], 65536)
    assert sorted(os.listdir(tmp_path)) == ["big", "x", "y"]
