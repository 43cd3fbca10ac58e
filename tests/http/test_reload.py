# SPDX-License-Identifier: Apache-2.0
"""Reloads: by HUP and by --reload, which tells how it went; what is refused, what goes on meanwhile."""
import os
import re
import shutil
import signal
import subprocess
import threading

import pytest

import conftest
import fcgi
import lib
import stack
from counting import not_possible, note
from test_drain import Load, replies
from test_proc import PROGRAM, broken_model, environment, logged, model, room, run, serves, status

# ---- by HUP ----

def test_reload(room, model):
    """New workers, new settings, new model behind a link; counters go on, the socket stays."""
    other = stack.model(**{**conftest.NAMES_MODEL, "seed": 77})
    link = room / "current"
    link.symlink_to(model)
    with stack.Service(link) as s:
        before, inode = s.workers(), os.stat(s.address[5:]).st_ino
        digest = status(s.address)["model"]["digest"]
        want = {i: fcgi.ask(s.address, {"seed": i})[2] for i in range(4)}
        (room / "next").symlink_to(other)
        (room / "next").rename(link)
        # a worker that dies before the reload is replaced by one with the model of its generation
        os.kill(before[0], signal.SIGKILL)
        lib.eventually(lambda: len(s.workers()) == 2 and before[0] not in s.workers())
        lib.eventually(lambda: status(s.address)["workers"]["ready"] == 2)
        assert {w["digest"] for w in status(s.address)["worker"]} == {digest}
        s.write_config(workers=3)
        s.process.send_signal(signal.SIGHUP)
        logged(s, "generation 2 serves")
        lib.eventually(lambda: len(s.workers()) == 3 and not set(before) & set(s.workers()))
        lib.eventually(lambda: status(s.address)["workers"] == {"ready": 3, "starting": 0, "draining": 0})
        now = status(s.address)
        assert now["reloads"] == {"ok": 1, "failed": 0} and now["requests_total"] > 4
        assert now["model"]["name"] == other.name and now["model"]["digest"] != digest
        assert {w["generation"] for w in now["worker"]} == {2}
        assert os.stat(s.address[5:]).st_ino == inode
        assert {i: fcgi.ask(s.address, {"seed": i})[2] for i in range(4)} != want


def test_reload_that_fails(room, model):
    """A bad file, a bad checkpoint, no checkpoint: the old generation stays, with its reason in the log."""
    with stack.Service(model) as s:
        before = sorted(s.workers())
        attempts = [({"queue": "x"}, r'conf:\d+: queue: \\"x\\" is no whole number'),
                    ({"queue": 5, "model_dir": room / "none"}, "its first worker ended with code 66"),
                    ({"model_dir": broken_model(room, model)}, "its first worker ended with code 65")]
        for n, (keys, why) in enumerate(attempts, 1):
            s.write_config(**keys)
            s.process.send_signal(signal.SIGHUP)
            logged(s, "reload failed, generation 1 stays: .*" + why)
            assert sorted(s.workers()) == before
            assert status(s.address)["reloads"] == {"ok": 0, "failed": n}
        s.write_config(model_dir=model, listen="unix:/elsewhere/s", backlog=7)
        s.process.send_signal(signal.SIGHUP)
        logged(s, "listen, socket_mode, socket_group and backlog need a restart")
        lib.eventually(lambda: not set(before) & set(s.workers()))
        assert serves(s.address)


@pytest.mark.limit(300)
def test_hundred_reloads_under_load(room):
    """Two models by turns behind one link, through nginx: no request fails, every reply is exactly one
    model's, and what is asked after a reload is answered by the new one."""
    models = [stack.model(**{**conftest.CHAT_MODEL, "seed": seed}) for seed in (3, 99)]
    wanted, link = [], room / "current"
    for path in models:
        with stack.Stack(path, workers=1) as s:
            wanted.append(replies(s))
    link.symlink_to(models[0])
    with stack.Stack(link, workers=2) as s:
        with Load(s.port, [a + b for a, b in zip(*wanted)], clients=4) as load:
            for i in range(1, 101):
                (room / "next").symlink_to(models[i % 2])
                (room / "next").rename(link)
                before = set(s.service.workers())
                s.service.process.send_signal(signal.SIGHUP)
                lib.eventually(lambda: len(now := s.service.workers()) == 2 and not before & set(now), 60)
                if i % 20 < 2:
                    assert replies(s) == wanted[i % 2]
        assert not load.failed, load.failed[:3]
        assert s.sum("microgpt_reloads_total", result="ok") == 100
        assert s.sum("microgpt_worker_restarts_total") == 0
        assert load.done > 100
        note(f"100 reloads by turns of two models under {load.clients} clients: {load.done} replies, 0 failed")


def test_reloads_in_a_row(model):
    """Signals that come while one is being acted on: nothing is lost, nothing piles up."""
    with stack.Service(model) as s:
        for _ in range(20):
            s.process.send_signal(signal.SIGHUP)
        lib.eventually(lambda: (now := status(s.address))["reloads"]["ok"] >= 1
                       and now["workers"] == {"ready": 2, "starting": 0, "draining": 0})
        assert status(s.address)["reloads"]["failed"] == 0


# ---- --reload PID ----

def reload(s, *prefix):
    """(exit code, stdout, stderr) of --reload."""
    return run("--reload", s.process.pid, prefix=prefix)


def test_reload_that_tells(room, model):
    """Done: 0 and the generation. Refused: the code and the reason, in one line; the old one stays."""
    with stack.Service(model) as s:
        assert reload(s) == (0, f"reload: generation 2 serves, model {model.name}\n", "")
        # (the generation in front serves already; the old one leaves when the new one is complete)
        lib.eventually(lambda: {w["generation"] for w in status(s.address)["worker"]} == {2})
        before = sorted(s.workers())
        refused = [({"queue": "x"}, 78, rf'{s.dir}/conf:\d+: queue: "x" is no whole number from 0 to 65535'),
                   ({"queue": 5, "model_dir": room / "none"}, 66,
                    rf"its first worker ended with code 66: {room}/none[^\n]*"),
                   ({"model_dir": broken_model(room, model)}, 65,
                    rf"its first worker ended with code 65: {room}/broken/weights\.safetensors[^\n]*")]
        for keys, code, why in refused:
            s.write_config(**keys)
            got = reload(s)
            assert got[:2] == (code, "") and re.fullmatch(f"microgpt-fcgi: reload: {why}\n", got[2]), got
            assert sorted(s.workers()) == before
        assert status(s.address)["reloads"] == {"ok": 1, "failed": 3}


def test_reload_of_what_is_no_master(model):
    assert run("--reload", "soon")[::2] == (64, 'microgpt-fcgi: reload: "soon" is no process id\n')
    assert run("--reload=")[0] == 64
    with stack.Service(model) as s:
        code, out, err = run("--reload", s.workers()[0])
        assert (code, out) == (69, "") and "does not listen as a master" in err and err.count("\n") == 1


def test_reloads_that_overlap(model):
    """Each of two gets the outcome of a reload that began after it asked: of a good configuration for the
    first, of a bad one, written while the first was under way, for the second."""
    with stack.Service(model) as s:
        for i in range(1, 6):
            s.write_config(queue=5)
            first = []
            thread = threading.Thread(target=lambda: first.append(reload(s)))
            thread.start()
            logged(s, "reading the configuration", 2 * i - 1)
            s.write_config(queue="x")
            second = reload(s)
            thread.join()
            assert (first[0][0], second[0]) == (0, 78), (first, second)
        s.write_config(queue=5)
        got = lib.together([lambda: reload(s) for _ in range(8)])
        assert [x[0] for x in got] == [0] * 8, got


def test_stop_while_a_reload_is_waited_for(model):
    with stack.Service(model, workers=1) as s:
        before = s.workers()
        with subprocess.Popen([PROGRAM, "--reload", str(s.process.pid)], stderr=subprocess.PIPE, text=True,
                              env=environment()) as asker:
            new = lib.eventually(lambda: set(s.workers()) - set(before)).pop()
            os.kill(new, signal.SIGSTOP)  # (it may be ready already, then the answer is 0)
            s.process.send_signal(signal.SIGTERM)
            code, err = asker.wait(20), asker.stderr.read()
            os.kill(new, signal.SIGCONT)
        assert code == 0 or (code, err) == (69, "microgpt-fcgi: reload: the service stops\n")


def test_others_may_not_reload(room, model):
    if os.geteuid():
        not_possible("only root can become another user")
    program = shutil.copy(PROGRAM, room / "program")
    with stack.Service(model) as s:
        done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "--reload",
                               str(s.process.pid)], capture_output=True, text=True, timeout=60, env=environment())
        assert (done.returncode, done.stderr) == (
            69, "microgpt-fcgi: reload: it stops, or it does not hear this user\n")
        assert serves(s.address) and status(s.address)["reloads"] == {"ok": 0, "failed": 0}


def test_reload_from_another_network(room, model):
    """PrivateNetwork= hides abstract sockets: root enters the service's."""
    if os.geteuid() or subprocess.run(["unshare", "-n", "true"]).returncode:
        not_possible("only root may have another network namespace")
    (room / "alone").write_text(f'#!/bin/sh\nexec unshare -n "{PROGRAM}" "$@"\n')
    (room / "alone").chmod(0o755)
    with stack.Service(model, program=room / "alone") as s:
        assert reload(s)[:2] == (0, f"reload: generation 2 serves, model {model.name}\n")
