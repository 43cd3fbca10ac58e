# SPDX-License-Identifier: Apache-2.0
"""microgpt train: what it writes, that it learns, that it stops and goes on, and what it says of bad
input. Runs the sanitized build."""
import csv
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time
import xml.etree.ElementTree as ET

import pytest

import counting
from clilib import (BUILD, CLI, ENV, NAMES, TINY, complaint, contents, conversation, read_safetensors, run, start,
                    write_chat, write_names)

FILES = ["loss.csv", "loss.svg", "meta.json", "optimizer_m.safetensors", "optimizer_v.safetensors",
         "train_state.json", "weights.safetensors"]


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """(corpus, checkpoint trained on it without a break)"""
    base = tmp_path_factory.mktemp("names")
    corpus = write_names(base / "names.txt")
    run("train", "--input", corpus, "--output", base / "model", "--eval", 0.1, *TINY)
    return corpus, base / "model"


# ---- what it writes -------------------------------------------------------------------------

def test_layout(names):
    _, model = names
    assert sorted(p.name for p in model.iterdir()) == FILES
    meta = json.loads((model / "meta.json").read_text())
    chars = sorted(set("".join(NAMES)))
    assert meta == {"vocab_size": len(chars) + 1, "n_embd": 16, "n_head": 2, "n_layer": 1,
                    "block_size": 16, "chars": chars}
    shapes = {"wte": [len(chars) + 1, 16], "wpe": [16, 16], "lm_head": [len(chars) + 1, 16],
              "layer0.attn_wq": [16, 16], "layer0.attn_wk": [16, 16], "layer0.attn_wv": [16, 16],
              "layer0.attn_wo": [16, 16], "layer0.mlp_fc1": [64, 16], "layer0.mlp_fc2": [16, 64]}
    for name in ("weights", "optimizer_m", "optimizer_v"):
        tensors = read_safetensors(model / f"{name}.safetensors")
        assert {n: t[1] for n, t in tensors.items()} == shapes
        assert {t[0] for t in tensors.values()} == {"F32"}
    assert all(v >= 0 for t in tensors.values() for v in t[2])  # second moments
    assert json.loads((model / "train_state.json").read_text())["step"] == 60
    run("check", model)


def test_losses(names):
    _, model = names
    rows = list(csv.DictReader((model / "loss.csv").open()))
    assert [int(r["step"]) for r in rows] == list(range(1, 61))
    assert float(rows[0]["loss"]) == pytest.approx(2.77, abs=0.7)  # ln of 16 tokens
    assert float(rows[-1]["loss"]) < 1.5
    assert rows[-1]["eval_loss"] and not rows[0]["eval_loss"]
    svg = ET.parse(model / "loss.svg").getroot()
    lines = svg.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(lines[0].get("points").split()) == 60 and lines[1].get("points").split()


def test_it_learns(tmp_path):
    """One document again and again: the loss falls to almost nothing and greedy decoding gives it back."""
    (tmp_path / "one.txt").write_text("the quick brown fox jumps over the lazy dog\n")
    run("train", "--input", tmp_path / "one.txt", "--output", tmp_path / "m", *TINY, "--steps", 150,
        "--block-size", 48, "--n-embd", 32)
    last = list(csv.DictReader((tmp_path / "m/loss.csv").open()))[-1]
    assert float(last["loss"]) < 0.02
    out, _ = run("generate", "--model", tmp_path / "m", "--temperature", 0)
    assert out == "the quick brown fox jumps over the lazy dog\n"


def test_chat_corpus(tmp_path):
    """Trimmed, skipped and cut conversations are counted; the model has chat tokens and answers."""
    corpus = write_chat(tmp_path / "c.jsonl", 6 * [
        conversation("hi", "hello", "bye", "see you"),
        conversation("hi", "hello", "and then?"),
        conversation("anyone?"),
        conversation("a long one " * 9, "yes"),
    ] + [[]])
    args = ["--input", corpus, "--chat", *TINY, "--block-size", 32, "--steps", 120]
    _, err = run("train", *args, "--output", tmp_path / "m")
    assert "25 lines, 18 documents" in err
    assert "7 conversations without an assistant turn skipped" in err
    assert "6 conversations trimmed to end with an assistant turn" in err
    assert "6 documents cut to 32 tokens" in err
    meta = json.loads((tmp_path / "m/meta.json").read_text())
    assert meta["special_tokens"] == ["user", "assistant", "end_turn"]
    assert meta["vocab_size"] == len(meta["chars"]) + 4
    out, _ = run("chat", "--model", tmp_path / "m", "--temperature", 0, stdin="hi\n")
    assert out == "hello\n"
    _, err = run("train", *args, "--output", tmp_path / "n", "--skip-long", "--steps", 1)
    assert "25 lines, 12 documents" in err and "6 documents dropped, longer than 32" in err


def test_same_bytes_again_and_with_any_threads(names, tmp_path):
    corpus, model = names
    for threads in (1, 3):
        out = tmp_path / str(threads)
        run("train", "--input", corpus, "--output", out, "--eval", 0.1, "--threads", threads, *TINY)
        assert contents(out) == contents(model)
    run("train", "--input", corpus, "--output", tmp_path / "s", "--seed", 43, *TINY)
    assert contents(tmp_path / "s")["weights.safetensors"] != contents(model)["weights.safetensors"]


def test_text_with_bom_crlf_and_blank_lines(tmp_path):
    (tmp_path / "t").write_bytes(b"\xef\xbb\xbf anna \r\n\r\n  \r\notto\r\n")
    _, err = run("train", "--input", tmp_path / "t", "--output", tmp_path / "m", *TINY, "--steps", 1)
    assert "4 lines, 2 documents" in err and "2 blank lines skipped" in err
    assert json.loads((tmp_path / "m/meta.json").read_text())["chars"] == ["a", "n", "o", "t"]


def test_one_line_without_newline(tmp_path):
    (tmp_path / "t").write_text("anna")
    run("train", "--input", tmp_path / "t", "--output", tmp_path / "m", *TINY, "--steps", 2)
    run("check", tmp_path / "m")


# ---- stopping and going on ------------------------------------------------------------------

def wait_for(condition, process, seconds=60):
    """Until condition() holds; the process must be alive until then."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        os.sched_yield()


def saved_step(model):
    try:
        return json.loads((model / "train_state.json").read_text())["step"]
    except FileNotFoundError:  # not yet, or just being exchanged
        return -1


@pytest.mark.parametrize("sig, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_and_resumed(names, tmp_path, sig, code):
    corpus, model = names
    out = tmp_path / "m"
    p = start("train", "--input", corpus, "--output", out, "--eval", 0.1, "--checkpoint-every", 1, *TINY)
    wait_for(lambda: saved_step(out) >= 3, p)
    p.send_signal(sig)
    _, err = p.communicate(timeout=60)
    assert p.returncode == code, err
    step = saved_step(out)
    assert 3 <= step < 60
    assert f"stopped at step {step} of 60" in err
    assert f"microgpt train --resume {out} --input {corpus}" in err
    run("train", "--resume", out, "--input", corpus, "--threads", 1)
    assert contents(out) == contents(model)


def test_resume_into_another_folder_leaves_the_first(names, tmp_path):
    corpus, model = names
    args = ["--input", corpus, "--eval", 0.1, *TINY]
    before = contents(model)
    run("train", *args, "--output", tmp_path / "long", "--steps", 70)
    run("train", "--resume", model, "--input", corpus, "--output", tmp_path / "more", "--steps", 70)
    assert contents(model) == before
    assert json.loads((tmp_path / "more/train_state.json").read_text())["step"] == 70
    run("train", "--resume", tmp_path / "more", "--input", corpus, "--output", tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "more")  # nothing left to do


def test_resume_refuses_other_sizes(names):
    corpus, model = names
    before = contents(model)
    for option, value, has in [("n-embd", 32, 16), ("n-head", 4, 2), ("n-layer", 2, 1), ("seed", 7, 42),
                               ("block-size", 32, 16), ("batch-size", 4, 8), ("eval", 0.2, 0.1)]:
        said = complaint("train", "--resume", model, "--input", corpus, f"--{option}", value, code=64)
        assert said == f"train: --{option} {value}, but the run to resume has {has}"
    assert contents(model) == before


def test_resume_refuses_what_does_not_fit(names, tmp_path):
    corpus, model = names
    other = tmp_path / "other.txt"
    other.write_text("anna\nxaver\n")
    assert "U+0078 is not in the vocabulary" in complaint("train", "--resume", model, "--input", other,
                                                          code=65)
    known = tmp_path / "known.txt"
    known.write_text("otto\nanna\n" * 10)
    _, err = run("train", "--resume", model, "--input", known, "--output", tmp_path / "k", "--steps", 61)
    assert "warning: the corpus is not the one" in err
    assert "No such file or directory" in complaint("train", "--resume", tmp_path / "no", "--input", corpus,
                                                    "--output", tmp_path / "x", code=66)
    run("export", "--model", model, "--output", tmp_path / "exported")
    assert "cannot resume from" in complaint("train", "--resume", tmp_path / "exported", "--input", corpus,
                                             code=66)
    broken = tmp_path / "broken"
    broken.mkdir()
    for name, data in contents(model).items():
        (broken / name).write_bytes(data[:-4] if name.startswith("optimizer_v") else data)
    said = complaint("train", "--resume", broken, "--input", corpus, code=65)
    assert "optimizer_v.safetensors" in said
    (broken / "train_state.json").write_text('{"step": 1}')
    assert "train_state.json" in complaint("train", "--resume", broken, "--input", corpus, code=65)


def test_killed_while_saving(names, tmp_path):
    """kill -9 with so many files of the new checkpoint written: the old one is there, byte for byte,
    and a run that goes on after such an end has the bytes of one that was never killed."""
    corpus, model = names
    out, saving = tmp_path / "m", tmp_path / ".m.saving"
    args = ["train", "--input", corpus, "--output", out, "--eval", 0.1, "--checkpoint-every", 1, *TINY,
            "--overwrite"]
    run(*args)
    assert contents(out) == contents(model)

    def written():
        try:
            return len(os.listdir(saving))
        except FileNotFoundError:
            return -1

    met = 0
    for files in (0, 1, 2, 3, 4, 5, 6, 7):
        p = start(*args)
        wait_for(lambda: written() >= files, p)
        p.kill()
        p.communicate()
        assert set(FILES) <= set(os.listdir(out))
        run("check", out)
        if saved_step(out) == 60:  # it met the first save
            met += written() >= 0
            assert contents(out) == contents(model)
        else:
            run(*args)
    assert met >= 3, "hardly ever killed in the middle of a save"
    p = start(*args)
    wait_for(lambda: 1 <= saved_step(out) < 60, p)
    p.kill()
    p.communicate()
    run("train", "--resume", out, "--input", corpus)
    assert contents(out) == contents(model)
    assert os.listdir(tmp_path) == ["m"]  # what the killed ones left is gone


def test_synced_before_it_takes_the_place(names, tmp_path):
    """What a power cut asks for: every file and the folder are synced before the rename, the parent
    after it."""
    if not shutil.which("strace"):
        counting.not_possible("strace is not installed")
    corpus, _ = names
    log = tmp_path / "log"
    done = subprocess.run(["strace", "-f", "-y", "-o", log, "-e", "trace=fsync,rename,renameat2", "--",
                           BUILD / "microgpt", "train", "--input", corpus, "--output", tmp_path / "m",
                           *TINY, "--steps", "1"], capture_output=True, text=True)
    if "ptrace" in done.stderr:
        counting.not_possible("processes cannot be traced")
    assert done.returncode == 0, done.stderr
    calls = re.findall(r"(fsync|rename\w*)\(\d+<([^>]*)>", log.read_text())
    folder, parent = str(tmp_path / ".m.saving"), str(tmp_path)
    at = [name for name, _ in calls].index("renameat2")
    before, after = calls[:at], calls[at + 1:]
    assert {path for _, path in before} == {f"{folder}/{name}" for name in FILES} | {folder}
    assert before[-1] == ("fsync", folder) and after == [("fsync", parent)]


def test_file_system_that_cannot_exchange(names, tmp_path):
    """Where renameat2 knows no flags (NFS), two plain renames do it."""
    if not shutil.which("strace"):
        counting.not_possible("strace is not installed")
    corpus, _ = names
    for step in (1, 2):
        done = subprocess.run(["strace", "-f", "-o", "/dev/null", "-e", "inject=renameat2:error=EINVAL", "--",
                               BUILD / "microgpt", "train", "--input", corpus, "--output", tmp_path / "m",
                               "--overwrite", *TINY, "--steps", str(step)], capture_output=True, text=True)
        if "ptrace" in done.stderr:
            counting.not_possible("processes cannot be traced")
        assert done.returncode == 0, done.stderr
        assert saved_step(tmp_path / "m") == step
        assert os.listdir(tmp_path) == ["m"]


def test_file_put_into_the_output_meanwhile(names, tmp_path):
    """It is neither lost nor in the way."""
    corpus, model = names
    out = tmp_path / "m"
    p = start("train", "--input", corpus, "--output", out, "--eval", 0.1, "--checkpoint-every", 1, *TINY)
    wait_for(lambda: saved_step(out) >= 1, p)
    try:
        (out / "notes.txt").write_text("mine")
    except FileNotFoundError:  # just being exchanged
        pass
    assert p.wait(60) == 0, p.communicate()
    p.communicate()
    assert contents(out) == contents(model)
    kept = [q.read_text() for q in tmp_path.rglob("notes.txt")]
    assert kept in (["mine"], [])
    assert kept == ["mine"] or os.listdir(tmp_path) == ["m"]


# ---- bad input ------------------------------------------------------------------------------

BAD_TEXT = [
    (b"", "no document to train on"),
    (b"\n \n\t\n", "no document to train on"),
    (b"anna\nott\xffo\n", ":2:4: not UTF-8"),
    (b"anna\n\xc3", ":2:1: not UTF-8"),
    (b"anna\n  ot\xff\n", ":2:5: not UTF-8"),
    (b"\xed\xa0\x80\n", ":1:1: not UTF-8"),
    (b"\xc0\xaf\n", ":1:1: not UTF-8"),
    ("\u00e9\u00e9\0\n".encode(), ":1:3: NUL is not text"),
]
BAD_CHAT = [
    (b"", "no conversation with an assistant turn to train on"),
    (b'[{"role":"user","content":"hi"}]\n', "no conversation with an assistant turn to train on"),
    (b'[]\n[{"role":"user","content":"hi"\n', ":2:30: '}' expected near end of file"),
    (b'[{"role":"user" "content":"hi"}]\n', ":1:25: '}' expected near '\"content\"'"),
    (b"hello\n", ":1:5: '[' or '{' expected near 'hello'"),
    (b'{"role":"user","content":"hi"}\n', ":1:1: wants an array of messages, one a line"),
    (b'[1]\n', ':1: messages[0]: wants {"role": string, "content": string}'),
    (b'[{"role":"user"}]\n', ':1: messages[0]: wants {"role": string, "content": string}'),
    (b'[{"role":"user","content":7}]\n', ':1: messages[0]: wants {"role": string, "content": string}'),
    (b'[{"role":"user","content":"a"},{"role":"system","content":"b"}]\n',
     ":1: messages[1]: unknown role 'system'"),
    (b'[{"role":"user","content":" "}]\n', ":1: messages[0]: content is blank"),
    (b'[{"role":"user","content":"ab\\u0000"}]\n', ":1: messages[0]: character 3: NUL is not text"),
    (b'[{"role":"user","content":"\xff"}]\n', ":1:"),
    (b' \t hello\n', ":1:8: '[' or '{' expected near 'hello'"),
    (b"[" * 3000 + b"\n", ":1:"),
]


@pytest.mark.parametrize("data, text", BAD_TEXT)
def test_bad_text(tmp_path, data, text):
    (tmp_path / "c").write_bytes(data)
    said = complaint("train", "--input", tmp_path / "c", "--output", tmp_path / "m", *TINY, code=65)
    assert said.startswith(f"{tmp_path}/c:") and said.endswith(text)
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("data, text", BAD_CHAT)
def test_bad_chat(tmp_path, data, text):
    (tmp_path / "c").write_bytes(data)
    said = complaint("train", "--chat", "--input", tmp_path / "c", "--output", tmp_path / "m", *TINY,
                     code=65)
    assert said.startswith(f"{tmp_path}/c:") and text in said
    assert not (tmp_path / "m").exists()


def test_bad_options(tmp_path):
    corpus = write_names(tmp_path / "names.txt")
    common = ["train", "--input", corpus, "--output", tmp_path / "m"]
    assert "--n-embd 10 is not a multiple of --n-head 4" in complaint(
        *common, "--n-embd", 10, "--n-head", 4, code=64)
    for option, value in [("steps", 0), ("steps", "x"), ("lr", "-1"), ("lr", "nan"), ("eval", 1),
                          ("batch-size", "1e3"), ("seed", -1), ("threads", 0), ("n-layer", "")]:
        assert complaint(*common, f"--{option}={value}", code=64).startswith(f"--{option}: '{value}'")
    assert "--input FILE is missing" in complaint("train", "--output", tmp_path / "m", code=64)
    assert "--output DIR is missing" in complaint("train", "--input", corpus, code=64)
    assert "unknown option '--layers'" in complaint(*common, "--layers", 3, code=64)
    assert "--steps needs a value" in complaint(*common, "--steps", code=64)
    assert "cannot open" in complaint("train", "--input", tmp_path / "no", "--output", tmp_path / "m",
                                      code=66)
    assert "cannot read" in complaint("train", "--input", tmp_path, "--output", tmp_path / "m", code=66)
    one = tmp_path / "one"
    one.write_text("anna\n")
    assert "too few to hold out" in complaint("train", "--input", one, "--output", tmp_path / "m",
                                              "--eval", 0.5, code=65)


def test_bad_output(names, tmp_path):
    corpus, model = names
    before = contents(model)
    train = ["train", "--input", corpus, *TINY]
    assert "exists: give another, or --overwrite" in complaint(*train, "--output", model, code=73)
    assert contents(model) == before
    other = tmp_path / "home"
    other.mkdir()
    (other / "letter.txt").write_text("dear")
    said = complaint(*train, "--output", other, "--overwrite", code=73)
    assert "holds 'letter.txt', which is no part of a checkpoint" in said
    assert (other / "letter.txt").read_text() == "dear"
    assert "No such file" in complaint(*train, "--output", tmp_path / "no/where", code=73)
    (tmp_path / "file").write_text("")
    assert "Not a directory" in complaint(*train, "--output", tmp_path / "file", code=73)
    (tmp_path / "empty").mkdir()
    run(*train, "--output", tmp_path / "empty", "--steps", 1)
    assert sorted(os.listdir(tmp_path / "empty")) == FILES


def test_output_without_permission():
    if os.getuid() != 0:
        counting.not_possible("needs root to become somebody without rights")
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"]
    if subprocess.run([*nobody, "test", "-x", CLI], capture_output=True).returncode:
        counting.not_possible("another user cannot reach the build")
    done = subprocess.run([*nobody, CLI, "train", "--input", "/etc/passwd", "--output", "/etc/model",
                           *TINY], capture_output=True, text=True, env=ENV)
    assert done.returncode == 77 and "cannot make /etc/model: /etc: Permission denied" in done.stderr


def test_link_as_output_stays_a_link(names, tmp_path):
    corpus, _ = names
    run("train", "--input", corpus, "--output", tmp_path / "real", *TINY, "--steps", 1)
    (tmp_path / "link").symlink_to("real")
    run("train", "--resume", tmp_path / "link", "--input", corpus, "--steps", 2)
    assert (tmp_path / "link").is_symlink() and saved_step(tmp_path / "real") == 2


def limit_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))


def test_disk_full(names, tmp_path):
    """A file that may not grow: told, exit 74, the old checkpoint untouched, nothing left over. Of the
    saves on the way it says that training goes on."""
    corpus, model = names
    out = tmp_path / "m"
    run("train", "--input", corpus, "--output", out, *TINY, "--steps", 1)
    before = contents(out)
    _, err = run("train", "--input", corpus, "--output", out, "--overwrite", *TINY, "--steps", 5,
                 "--checkpoint-every", 2, code=74, preexec_fn=limit_files)
    assert err.count(f"microgpt: cannot write {out}/weights.safetensors: File too large") == 3
    assert "step 2 is not saved; training goes on" in err
    assert contents(out) == before
    assert os.listdir(tmp_path) == ["m"]
    run("train", "--input", corpus, "--output", tmp_path / "n", *TINY, "--steps", 1, code=74,
        preexec_fn=limit_files)
    assert os.listdir(tmp_path) == ["m"]


def test_full_file_system(names, tmp_path):
    corpus, _ = names
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(small)],
                             capture_output=True)
    if mounted.returncode:
        counting.not_possible("no file system can be mounted")
    try:
        said = complaint("train", "--input", corpus, "--output", small / "m", *TINY, "--steps", 1, code=74)
        assert "No space left on device" in said
        assert os.listdir(small) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
