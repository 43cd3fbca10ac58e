# SPDX-License-Identifier: Apache-2.0
"""What the tests of the program `microgpt` share: running it (the sanitized build), and a reader of
safetensors that knows nothing of ours."""
import json
import os
import struct
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("MG_BUILD", ROOT / "build"))
CLI = BUILD / "san/microgpt"
ENV = dict(os.environ, ASAN_OPTIONS="detect_leaks=1:exitcode=99",
           UBSAN_OPTIONS="print_stacktrace=1:exitcode=99")
TINY = ["--n-embd", "16", "--n-head", "2", "--n-layer", "1", "--block-size", "16",
        "--warmup-steps", "10", "--steps", "60"]
NAMES = ("anna otto hanna lena nora ada eva ella nina tina mona dora flora cora clara sara lara "
         "mara tara zara").split()


def start(*args, **more):
    """The program, running; standard output and error are text pipes."""
    return subprocess.Popen([str(CLI), *map(str, args)], stdin=more.pop("stdin", subprocess.DEVNULL),
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV, **more)


def run(*args, code=0, stdin="", **more):
    """Run it to the end, expect this exit code; (standard output, standard error)."""
    done = subprocess.run([str(CLI), *map(str, args)], input=stdin, capture_output=True, text=True,
                          env=ENV, timeout=80, **more)
    assert "Sanitizer" not in done.stderr and "runtime error" not in done.stderr, done.stderr
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    return done.stdout, done.stderr


def complaint(*args, code, **more):
    """Its one line of complaint."""
    out, err = run(*args, code=code, **more)
    lines = [line for line in err.splitlines() if line.startswith("microgpt: ")]
    assert out == "" and len(lines) == 1, (out, err)
    return lines[0].removeprefix("microgpt: ")


def write_names(path):
    path.write_text("\n".join(NAMES) + "\n")
    return path


def conversation(*turns):
    return [{"role": "assistant" if i % 2 else "user", "content": t} for i, t in enumerate(turns)]


def write_chat(path, conversations):
    path.write_text("".join(json.dumps(c) + "\n" for c in conversations))
    return path


def read_safetensors(path):
    """name -> (dtype, shape, values), every rule of the header checked."""
    data = Path(path).read_bytes()
    size, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + size])
    body, tensors, at = data[8 + size:], {}, 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        begin, end = entry["data_offsets"]
        rows, cols = entry["shape"]
        width = {"F32": 4, "F16": 2, "BF16": 2}[entry["dtype"]]
        assert begin == at and end - begin == rows * cols * width, name
        raw, at = body[begin:end], end
        if entry["dtype"] == "BF16":
            raw = b"".join(b"\0\0" + raw[i:i + 2] for i in range(0, len(raw), 2))
        code = "e" if entry["dtype"] == "F16" else "f"
        values = struct.unpack(f"<{rows * cols}{code}", raw)
        tensors[name] = (entry["dtype"], [rows, cols], values)
    assert at == len(body)
    return tensors


def contents(directory):
    """name -> bytes of all files."""
    return {p.name: p.read_bytes() for p in Path(directory).iterdir()}
