# SPDX-License-Identifier: Apache-2.0
"""The bundled models and what they were made from: the corpora are what their generator writes,
and the models say what deploy/demo/README.md claims."""
import subprocess
import sys

from clilib import BUILD, ROOT

DEMO = ROOT / "deploy/demo"


def test_chat_corpus_is_what_its_generator_writes(tmp_path):
    made = tmp_path / "corpus.jsonl"
    subprocess.run([sys.executable, DEMO / "chat/make_corpus.py", made], check=True,
                   capture_output=True)
    assert made.read_bytes() == (DEMO / "chat/corpus.jsonl").read_bytes()


def test_names_are_names():
    names = (DEMO / "names/names.txt").read_text(encoding="ascii").split("\n")
    assert names.pop() == ""
    assert len(set(names)) == len(names) >= 2000
    assert all(name.isascii() and name.isalpha() and name.islower() for name in names)


def test_models_are_small_and_for_inference_only():
    sizes = {p.relative_to(DEMO).as_posix(): p.stat().st_size for p in DEMO.rglob("*.safetensors")}
    assert set(sizes) == {"chat/weights.safetensors", "names/weights.safetensors"}
    assert sizes["chat/weights.safetensors"] <= 3_000_000


def test_models_say_what_is_claimed():
    """1300 replies and 200 names, by the program that people run (some seconds)."""
    done = subprocess.run([sys.executable, DEMO / "check_demo.py", "--bounds", BUILD / "microgpt"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
