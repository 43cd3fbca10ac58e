# SPDX-License-Identifier: Apache-2.0
"""make run as a person meets it: on a terminal, with what goes wrong most often. And make deps, which
has nothing to do here and must say so by doing nothing."""
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import time

import pytest

import lib
import stack

RUN = [stack.ROOT / "conf/run.sh"]
MODEL = dict(n_embd=32, n_head=4, n_layer=2, block_size=64, seed=3)


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MICROGPT_", "MAKE", "MFLAGS"))}
    # a sanitized service would start slowly; this one is what people run
    return {**env, "B": str(stack.BUILD), "TMPDIR": str(stack.temporary()), **{k: str(v) for k, v in more.items()}}


class Terminal:
    """A command with a terminal of its own."""

    def __init__(self, command, env):
        self.text, self.env = "", env
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.chdir(stack.ROOT)
            # tests run in the background may ignore it, and a shell can not undo that
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.execvpe(str(command[0]), [str(c) for c in command], env)

    def read(self, until, seconds=60):
        """All that it says until the pattern comes, or it ends."""
        deadline = time.monotonic() + seconds
        while not (until and re.search(until, self.text)):
            left = deadline - time.monotonic()
            assert left > 0, f"no {until!r} within {seconds} s\n{self.text[-3000:]}"
            if select.select([self.fd], [], [], left)[0]:
                try:
                    data = os.read(self.fd, 65536)
                except OSError:  # the other side is closed
                    data = b""
                if not data:
                    assert until is None, f"ended without {until!r}\n{self.text[-3000:]}"
                    break
                self.text += data.decode(errors="replace")
        return self.text

    def wait(self):
        self.read(None)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.fd)
        return code


def left_behind(env):
    """Processes and files of a run that has ended."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                if env["TMPDIR"].encode() in f.read() and stack.is_alive(int(pid)):
                    found.append(pid)
        except OSError:
            pass
    return found + os.listdir(env["TMPDIR"])


@pytest.fixture
def port():
    return stack.free_port()


def test_it_says_what_to_try_and_what_comes_of_it_and_stops_on_ctrl_c(port):
    env = environment(PORT=port)
    terminal = Terminal(RUN, env)
    text = terminal.read("Ctrl-C stops")
    assert f"serves deploy/demo/chat with 2 workers on http://127.0.0.1:{port}" in text
    curls = re.findall(r"^  (curl .*?)\r?$", text, re.M)
    assert len(curls) == 2, text
    assert re.search(r'\{"role":"assistant","content":"[^"]+","tokens_dropped":0\}', text), text
    assert re.search(r'\{"samples":\["[^"]*", ?"[^"]*"\]\}', text), text
    # what it says to try gives what it said
    for curl in curls:
        out = subprocess.run(["bash", "-c", curl], capture_output=True, text=True, check=True).stdout
        assert out and out in text.replace("\r", ""), out
    assert lib.get(port, "/status").json()["workers"]["ready"] == 2
    os.write(terminal.fd, b"\x03")
    assert terminal.wait() == 0
    assert terminal.text.rstrip().endswith("stopped") and "rror" not in terminal.text.replace('"error"', ""), terminal.text
    lib.eventually(lambda: not left_behind(env))
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 1)


def test_make_passes_port_and_model_and_ctrl_c(port):
    env = environment(PORT=port, MODEL_DIR=stack.model(**MODEL))
    # the build is there: make run must not build it again with other flags
    terminal = Terminal(["make", "run", f"B={stack.BUILD}"], env)
    terminal.read("Ctrl-C stops")
    assert lib.get(port, "/health").body == b"Ok"
    assert str(stack.model(**MODEL)) in terminal.text
    os.write(terminal.fd, b"\x03")
    terminal.wait()
    assert "stopped" in terminal.text, terminal.text
    lib.eventually(lambda: not left_behind(env))


def test_a_request_in_flight_is_finished_on_ctrl_c(port):
    shape = dict(n_embd=64, n_head=4, n_layer=2, block_size=1024, seed=4, endless=True)
    env = environment(PORT=port, MODEL_DIR=stack.model(**shape))
    terminal = Terminal(RUN, env)
    terminal.read("Ctrl-C stops")
    with lib.Stream(port, lib.GENERATE, {"num_samples": 50}) as s:
        events = s.events()
        next(events)
        os.write(terminal.fd, b"\x03")
        assert list(events)[-1] == "[DONE]"
    assert terminal.wait() == 0
    lib.eventually(lambda: not left_behind(env))


def run(**more):
    env = environment(**more)
    done = subprocess.run(RUN, cwd=stack.ROOT, env=env, capture_output=True, text=True)
    assert not left_behind(env)
    return done.returncode, done.stdout + done.stderr


def test_a_wrong_model_folder(port, tmp_path):
    code, text = run(PORT=port, MODEL_DIR="/nonexistent")
    assert code == 66 and "MODEL_DIR=/nonexistent" in text and "weights.safetensors" in text, text
    code, text = run(PORT=port, MODEL_DIR=tmp_path)
    assert code == 66 and str(tmp_path) in text, (code, text)
    shutil.copytree(stack.model(**MODEL), tmp_path / "m")
    with open(tmp_path / "m/weights.safetensors", "r+b") as f:
        f.truncate(1000)
    code, text = run(PORT=port, MODEL_DIR=tmp_path / "m")
    assert code == 65 and "weights.safetensors" in text, (code, text)


def test_a_port_that_is_taken_or_none():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        code, text = run(PORT=port)
    assert code == 69 and f"port {port} is taken" in text and f"PORT={port + 1} make run" in text, text
    for wrong in ("0", "65536", "http", "99999999999999999999", "-1"):
        code, text = run(PORT=wrong)
        assert code == 64 and wrong in text, (code, text)


def test_a_worker_that_is_killed_is_replaced_and_the_service_killed_ends_the_run(port):
    env = environment(PORT=port)
    terminal = Terminal(RUN, env)
    terminal.read("Ctrl-C stops")
    workers = lib.get(port, "/status").json()["worker"]
    os.kill(workers[0]["pid"], signal.SIGKILL)
    lib.eventually(lambda: lib.get(port, "/status").json()["workers"]["ready"] == 2)
    master = int(open(f"/proc/{workers[1]['pid']}/stat").read().rsplit(")", 1)[1].split()[1])
    os.kill(master, signal.SIGKILL)
    assert terminal.wait() != 0
    assert "ended" in terminal.text, terminal.text
    lib.eventually(lambda: not left_behind(env))


def test_deps_does_nothing_where_nothing_is_missing():
    done = subprocess.run([stack.ROOT / "conf/deps.sh"], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    done = subprocess.run([stack.ROOT / "conf/deps.sh", "no-such-package|libc6"], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
