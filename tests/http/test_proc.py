# SPDX-License-Identifier: Apache-2.0
"""The process side of the service: ways to start it, what it says of itself, signals, supervision, and bad
situations with their line and exit code. Talks to the service's own socket; events are waited for."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import conftest
import fcgi
import lib
import stack
from counting import not_possible, note

PROGRAM = str(stack.CHECKED)
TAKEN = "another process is listening there: stop it, or set listen to another address"


@pytest.fixture
def room():
    """A directory that others may enter."""
    path = stack.temporary()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def model():
    return stack.model(**conftest.NAMES_MODEL)


def environment(**more):
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MICROGPT_", "MODEL_DIR"))}
    return {**env, **more}


def run(*arguments, prefix=(), env=None, **more):
    """The program to its end: (code, stdout, stderr)."""
    done = subprocess.run([*prefix, PROGRAM, *map(str, arguments)], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=60, env=env or environment(), **more)
    return done.returncode, done.stdout, done.stderr


def message(stderr):
    """The text of the last line of ours, logged or not."""
    line = [x for x in stderr.splitlines() if x.startswith(("time=", "microgpt-fcgi: "))][-1]
    found = re.search(r'msg="(.*)"$', line)
    return found.group(1).replace('\\"', '"') if found else line.removeprefix("microgpt-fcgi: ")


def health(address):
    got = fcgi.ask(address, method="GET", path="/health", content_type="", timeout=20)
    return got and (got[0], got[2])


def status(address):
    got = fcgi.ask(address, method="GET", path="/status", content_type="", timeout=20)
    assert got and got[0] == 200, got
    return json.loads(got[2])


def serves(address):
    """The service answers at address."""
    try:
        return health(address) == (200, b"Ok")
    except OSError:
        return False


def logged(service, pattern, n=1):
    """n log lines match."""
    return lib.eventually(lambda: len(re.findall(pattern, service.log())) >= n, 30)


def title(pid):
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


class Running:
    """A process that must end with the test."""

    def __init__(self, command, **more):
        self.process = subprocess.Popen(command, **more)
        self.pid = self.process.pid

    def __enter__(self):
        return self.process

    def __exit__(self, *_):
        pids = [p for child in stack.children(self.pid) for p in (child, *stack.children(child))]
        for pid in (self.pid, *pids):
            if stack.is_alive(pid):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()


# ---- what it says of itself ----

def test_version():
    code, out, err = run("-V")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"microgpt-fcgi \d+\.\d+\.\d+\ncompiler: (gcc|clang) .*\nBLIS: \S+\n"
                        r"instruction set: (avx512|avx2|neon|plain)\n", out), out


GOLDEN = """\
listen = unix:/run/microgpt/fcgi.sock       # default
socket_mode = 0660                          # default
socket_group = none                         # default
backlog = 1024                              # default
model_dir = /models/a                       # flag --model_dir
workers = 3                                 # flag --workers
lanes = auto                                # default
queue = 128                                 # default
chunk = 96                                  # default
kv = f16                                    # environment MICROGPT_KV
kernels = auto                              # default
timeout = 1500ms                            # conf:2
send_timeout = 5s                           # default
max_body = 256k                             # conf:4
max_json = 32m                              # default
max_text = 64m                              # default
parked = 64                                 # default
max_requests = never                        # default
drain_timeout = 40s                         # default
watchdog = off                              # conf:5
log_level = info                            # default
log_format = logfmt                         # default
log_file = "/a b"                           # conf:3
metrics = memory                            # default
compat = none                               # default
"""


def test_dump(room):
    (room / "conf").write_text('# mine\ntimeout = 1500ms\n'
                               'log_file = "/a b" # with a blank\nmax_body = 262144\nwatchdog=off\n'
                               'model_dir = /models/file\n')
    code, out, err = run("-T", "-c", "conf", "-n", "3", "--model-dir=/models/a", cwd=room,
                         env=environment(MICROGPT_KV="f16", MODEL_DIR="/models/env"))
    assert (code, err, out) == (0, "", GOLDEN)


def test_keys_agree_with_manual_and_file():
    """Table (by -T), commented configuration file and manual: the same keys, order and defaults."""
    text = run("-T")[1]
    table = [(m[1], m[2]) for m in re.finditer(r'^(\w+) = "?(.*?)"?\s+# default(, auto)?$', text, re.M)]
    table = [(k, "auto" if k == "workers" else v) for k, v in table]
    assert len(table) == 25 == len(text.splitlines())
    manual = (stack.ROOT / "deploy/man/microgpt.conf.5").read_text()
    assert re.findall(r"^\.It Ic (\w+) No = (.*)$", manual, re.M) == table
    conf = (stack.ROOT / "conf/microgpt.conf").read_text()
    assert sorted(re.findall(r"^#(\w+) = (.*)$", conf, re.M)) == sorted(table)
    code, out, err = run("-T", "-c", stack.ROOT / "conf/microgpt.conf")
    assert (code, err) == (0, ""), err
    for key in table:
        assert f"  {key[0]}" in run("--help")[1]


def test_alerts_and_dashboard_name_what_there_is(model):
    with stack.Service(model) as s:
        text = fcgi.ask(s.address, method="GET", path="/metrics", content_type="")[2].decode()
    there = set(re.findall(r"^(microgpt_\w+)", text, re.M))
    for folder in ("examples/prometheus", "grafana"):
        files = list((stack.ROOT / "deploy" / folder).iterdir())
        used = {name for f in files for name in re.findall(r"microgpt_\w+", f.read_text())}
        assert used and used <= there, used - there


def test_help():
    code, out, err = run("--help")
    assert (code, err) == (0, "") and out.startswith("microgpt-fcgi: ")
    assert run("-h")[1] == out


# ---- bad configuration ----

@pytest.mark.parametrize("text, line", [
    ("queue = 1\n\nqueu = 2\n", '3: unknown key "queu" (microgpt-fcgi --help lists them)'),
    ("timeout = soon\n", '1: timeout: "soon" is no time (30s, 500ms, 2m) from 100ms to 24h'),
    ("queue = 1\nqueue = 2\n", "2: queue is already set on line 1"),
    ("queue\n", '1: "queue" is not of the form key = value'),
])
def test_bad_file(room, text, line):
    (room / "c.conf").write_text(text)
    for flag in ("-t", "-T", "-f"):
        assert run("-c", "c.conf", flag, cwd=room) == (78, "", f"microgpt-fcgi: c.conf:{line}\n")


def test_bad_flags():
    assert run("-q")[::2] == (64, "microgpt-fcgi: unknown option -q (see --help)\n")
    assert run("--lanes=many")[0] == 64
    assert run("-c", "/nonexistent")[::2] == (78, "microgpt-fcgi: /nonexistent: No such file or directory\n")
    assert run("-T", env=environment(MICROGPT_LANES="x"))[0] == 78


# ---- -t and starts that fail ----

def test_check(room, model):
    code, out, err = run("-t", "-s", f"unix:{room}/s", "-m", model)
    assert code == 0, err
    assert out.startswith(f"configuration ok, unix:{room}/s free, ") and out.count("\n") == 1
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(f"{room}/s")
        taken.listen()
        code, out, _ = run("-t", "-s", f"unix:{room}/s", "-m", model)
        assert code == 0 and f"unix:{room}/s in use now, " in out
    assert run("-t", "-s", "unix:/nonexistent/s", "-m", model)[::2] == (
        78, "microgpt-fcgi: unix:/nonexistent/s: directory /nonexistent: No such file or directory: "
        "create it, or set listen\n")


def broken_model(room, model):
    path = room / "broken"
    shutil.copytree(model, path)
    with open(path / "weights.safetensors", "r+b") as f:
        f.truncate(1000)
    return path


def test_bad_checkpoints(room, model):
    """By -t and by a start: the code, and a line that names the file. The master gives up as well."""
    bad = [(room / "none", 66, "none"), (broken_model(room, model), 65, "weights.safetensors")]
    for path, want, name in bad:
        code, _, err = run("-t", "-s", f"unix:{room}/s", "-m", path)
        assert code == want and name in err and err.count("\n") == 1, err
        code, out, err = run("-s", f"unix:{room}/s", "-m", path)
        assert (code, out) == (want, ""), err
        assert f"not starting (exit code {want})" in message(err)
        assert name in err
        assert not (room / "s").exists()


def test_taken_socket(room, model):
    with stack.Service(model, program=stack.CHECKED) as s:
        code, _, err = run("-s", s.address, "-m", model)
        assert (code, message(err)) == (69, f"{s.address}: {TAKEN}")
        assert serves(s.address)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_tcp_and_taken_port(model, host):
    with socket.socket(socket.AF_INET6 if host == "[::1]" else socket.AF_INET) as free:
        try:
            free.bind((host.strip("[]"), 0))
        except OSError:
            not_possible(f"no address {host}")
        address = f"{host}:{free.getsockname()[1]}"
    with stack.Service(model, listen=address) as s:
        assert health(address) == (200, b"Ok")
        code, _, err = run("-s", address, "-m", model)
        assert (code, message(err)) == (69, f"{address}: {TAKEN}")
        assert s.process.poll() is None


def test_no_permission(room, model):
    if os.geteuid():
        not_possible("only root can become another user")
    as_nobody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
    program = shutil.copy(PROGRAM, room / "program")
    done = subprocess.run([*as_nobody, program, "-s", f"unix:{room}/s", "-m", str(model)], timeout=60,
                          capture_output=True, text=True, stdin=subprocess.DEVNULL, env=environment())
    if "setpriv" in done.stderr or "No such file" in done.stderr and "program" in done.stderr:
        not_possible("another user cannot reach the build directory")
    assert (done.returncode, message(done.stderr)) == (
        77, f"unix:{room}/s: no access to directory {room}: Permission denied: "
        "make it writable for uid 65534, or set listen")


def test_file_in_the_way(room, model):
    (room / "s").write_text("precious")
    code, _, err = run("-s", f"unix:{room}/s", "-m", model)
    assert (code, message(err)) == (69, f"unix:{room}/s: a file that is no socket is there: "
                                    "remove it, or set listen to another address")
    assert (room / "s").read_text() == "precious"


def test_bad_log_file_and_metrics(room, model):
    code, _, err = run("-s", f"unix:{room}/s", "-m", model, "--log-file=/nonexistent/log")
    assert (code, err) == (78, "microgpt-fcgi: log_file: /nonexistent/log: No such file or directory\n")
    (room / "m").write_text("something else")
    code, _, err = run("-s", f"unix:{room}/s", "-m", model, f"--metrics={room}/m")
    assert (code, message(err)) == (78, f"metrics: {room}/m is not a counter file of this version: remove it")
    assert not (room / "s").exists()


def test_exit_code_without_anybody_to_tell(room, model):
    """The line that says why is lost, the code is still of what went wrong."""
    if os.geteuid():
        not_possible("only root can become another user")
    program = shutil.copy(PROGRAM, room / "program")
    with open("/dev/full", "w") as full:
        done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", program, "-s",
                               f"unix:{room}/s", "-m", str(model), f"--log-file={room}/log"], stderr=full,
                              stdin=subprocess.DEVNULL, timeout=60, env=environment())
    assert done.returncode == 77


# ---- signals ----

@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_stop(model, sig):
    with stack.Service(model) as s:
        path = Path(s.address.removeprefix("unix:"))
        assert path.is_socket()
        s.stop(sig)
        assert not path.exists()
        assert re.search(r"msg=stopped$", s.log().strip())


def test_titles(model):
    with stack.Service(model) as s:
        version = run("-V")[1].split("\n")[0]
        assert f'msg="{version}, 2 workers, listening on {s.address}"' in s.log()
        assert title(s.process.pid) == f"microgpt-fcgi: master ({model.name})"
        assert sorted(map(title, s.workers())) == [f"microgpt-fcgi: worker {i} ({model.name})" for i in (1, 2)]


def test_more_and_fewer_workers(model):
    with stack.Service(model) as s:
        for sig, n in ((signal.SIGTTIN, 3), (signal.SIGTTIN, 4), (signal.SIGTTOU, 3), (signal.SIGTTOU, 2),
                       (signal.SIGTTOU, 1)):
            s.process.send_signal(sig)
            lib.eventually(lambda: len(s.workers()) == n)
        s.process.send_signal(signal.SIGTTOU)
        logged(s, "1 workers wanted", 2)
        assert serves(s.address)
        assert status(s.address)["worker_restarts_total"] == 0


def test_log_is_reopened(room, model):
    log = room / "log"
    with stack.Service(model, log_file=log) as s:
        assert serves(s.address)
        log.rename(room / "log.1")
        s.process.send_signal(signal.SIGUSR1)
        lib.eventually(lambda: log.exists())
        lib.eventually(lambda: serves(s.address) and re.search(r"from=worker-[12].*endpoint=health", log.read_text()))
        s.process.send_signal(signal.SIGTTIN)
        lib.eventually(lambda: "from=master" in log.read_text())
        assert "wanted" not in (room / "log.1").read_text()


def test_full_disk_for_the_log(model):
    """The log cannot be written: requests do not notice, lost lines are counted."""
    with stack.Service(model, log_file="/dev/full", workers=1) as s:
        for _ in range(5):
            assert fcgi.ask(s.address, {})[0] == 200

        def counted():
            text = fcgi.ask(s.address, method="GET", path="/metrics", content_type="")[2].decode()
            return int(re.search(r"^microgpt_log_lines_dropped_total (\d+)$", text, re.M)[1]) >= 5
        lib.eventually(counted)


# ---- supervision ----

def test_respawn(model):
    with stack.Service(model) as s:
        victim = s.workers()[0]
        os.kill(victim, signal.SIGKILL)
        lib.eventually(lambda: len(s.workers()) == 2 and victim not in s.workers())
        logged(s, r"worker \d \(pid %d\) was killed by signal 9" % victim)
        lib.eventually(lambda: status(s.address)["workers"]["ready"] == 2)
        assert status(s.address)["worker_restarts_total"] == 1


def test_back_off(model):
    """Workers that die at once are not started in a loop: the waits grow, and are said."""
    with stack.Service(model, workers=1) as s:
        for wait in (None, "0.5", "1.0", "2.0"):
            worker, = lib.eventually(s.workers, 20)
            os.kill(worker, signal.SIGKILL)
            lib.eventually(lambda: worker not in s.workers(), 20)
            if wait:
                logged(s, rf"workers die young: next start in {wait} s")
        lib.eventually(lambda: serves(s.address), 20)


def test_watchdog(model):
    with stack.Service(model, watchdog="1s") as s:
        stuck = s.workers()[0]
        os.kill(stuck, signal.SIGSTOP)
        logged(s, rf"worker \d \(pid {stuck}\) is killed: its loop has not moved")
        lib.eventually(lambda: len(s.workers()) == 2 and stuck not in s.workers())
        assert serves(s.address)
        assert len(re.findall("is killed", s.log())) == 1


def test_truncated_while_mapped(room, model):
    """The checkpoint loses its pages under a worker: 65 with a line that helps, and another attempt
    every ten seconds that finds the mended one."""
    path = room / "model"
    shutil.copytree(model, path)
    weights = path / "weights.safetensors"
    whole = weights.read_bytes()
    with stack.Service(path, workers=1) as s:
        with open(weights, "r+b") as f:
            f.truncate(4096)
        assert fcgi.ask(s.address, {}, timeout=20) is None
        logged(s, r"level=error from=worker-1 .*weights\.safetensors")
        logged(s, r"worker 1 \(pid \d+\) ended with code 65")
        logged(s, "next attempt to open the checkpoint in 10 s")
        (path / "new").write_bytes(whole)
        (path / "new").rename(weights)
        lib.eventually(lambda: serves(s.address), 30)
        assert fcgi.ask(s.address, {})[0] == 200


def test_max_requests(model):
    with stack.Service(model, workers=1, max_requests=20) as s:
        first = s.workers()[0]
        for _ in range(23):
            assert serves(s.address)
        lib.eventually(lambda: s.workers() and first not in s.workers())
        logged(s, "max_requests: asking to be replaced")
        logged(s, rf"worker 1 \(pid {first}\) ended with code 0")
        lib.eventually(lambda: serves(s.address))
        assert status(s.address)["worker_restarts_total"] == 0


def test_workers_do_not_outlive_their_master(model):
    """kill -9 of the master: the workers go, the stale socket is replaced by the next start."""
    s = stack.Service(model)
    s.start()
    workers = s.workers()
    s.process.kill()
    s.process.wait()
    lib.eventually(lambda: not any(map(stack.is_alive, workers)))
    assert Path(s.address[5:]).is_socket()
    with s:
        assert serves(s.address)


def test_descriptor_limit(room, model):
    """Too few descriptors for queue, lanes and parked: said at the start, with the figures."""
    (room / "low").write_text(f'#!/bin/sh\nulimit -n 100\nexec "{PROGRAM}" "$@"\n')
    (room / "low").chmod(0o755)
    with stack.Service(model, program=room / "low") as s:
        assert "the descriptor limit is 100, queue, parked and lanes may need 320: raise it" in s.log()
        assert serves(s.address)


def test_memory_limit(room):
    """Too little memory for the lanes: 78, and how many would fit; with those it starts."""
    if not stack.FAST.exists():
        not_possible("sanitizers need more address space than a limit leaves; make all builds the other")
    chat = stack.model(**{**conftest.CHAT_MODEL, "block_size": 256, "n_embd": 128})
    command = ["prlimit", "--as=220000000", stack.FAST, "-n", "1", "-s", f"unix:{room}/s", "-m", chat]
    done = subprocess.run([*command, "--lanes=200"], capture_output=True, text=True, timeout=60, env=environment())
    found = re.search(r"a worker may need \d+ MiB but the memory limit is 209 MiB: set lanes = (\d+),", done.stderr)
    assert done.returncode == 78 and found, done.stderr
    with Running([*command, f"--lanes={found[1]}"], env=environment(), stderr=subprocess.DEVNULL) as p:
        lib.eventually(lambda: serves(f"unix:{room}/s"))
        assert status(f"unix:{room}/s")["lanes"]["total"] == int(found[1])
        p.terminate()
        assert p.wait(20) == 0


# ---- other ways to start ----

def test_notify(room, model):
    """Type=notify: ready, reloading, stopping, and a sign of life in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(f"{room}/notify")
        systemd.settimeout(30)
        said = []

        def until(what):
            while what not in said:
                said.extend(systemd.recv(1000).decode().split("\n"))
        with stack.Service(model, environment={"NOTIFY_SOCKET": f"{room}/notify", "WATCHDOG_USEC": "1000000"}) as s:
            until("READY=1")
            until("WATCHDOG=1")
            until(f"STATUS=2 of 2 workers ready, 0 draining, generation 1, model {model.name}")
            said.clear()
            s.process.send_signal(signal.SIGHUP)
            until("RELOADING=1")
            assert "READY=1" not in said
            until("READY=1")
            assert any(re.fullmatch(r"MONOTONIC_USEC=\d+", x) for x in said)
            s.process.send_signal(signal.SIGTERM)
            until("STOPPING=1")
            assert s.process.wait(20) == 0


def listening(room):
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(f"{room}/s")
    sock.listen(64)
    return sock


def test_passed_sockets(room, model):
    """LISTEN_FDS: a master on those. Descriptor 0, with or without LISTEN_FDS: a plain worker."""
    address, env = f"unix:{room}/s", environment(MODEL_DIR=str(model), MICROGPT_WORKERS="2")
    shell = 'LISTEN_PID=$$ LISTEN_FDS=1 exec "$0"'
    with listening(room) as sock:
        def pass_on(*to):
            def work():
                fd = os.dup(sock.fileno())
                for n in to:
                    os.dup2(fd, n)
            return work
        for command, fds, n_workers in ((["sh", "-c", shell, PROGRAM], (3,), 2), ([PROGRAM], (0,), 0),
                                        (["sh", "-c", shell, PROGRAM], (0, 3), 0)):
            with Running(command, preexec_fn=pass_on(*fds), close_fds=False, env=env,
                         stderr=subprocess.PIPE) as p:
                assert serves(address)
                lib.eventually(lambda: len(stack.children(p.pid)) == n_workers)
                kind = "master" if n_workers else "worker"
                assert title(p.pid) == f"microgpt-fcgi: {kind} ({model.name})"
                p.terminate()
                assert p.wait(20) == 0
            assert (room / "s").is_socket()  # it is not ours to remove


def test_systemd_socket_activate(room, model):
    if not shutil.which("systemd-socket-activate"):
        not_possible("systemd-socket-activate is not installed")
    command = ["systemd-socket-activate", "-l", f"{room}/s", "-E", f"MODEL_DIR={model}", PROGRAM, "-n", "2"]
    with Running(command, env=environment(), stderr=subprocess.DEVNULL) as p:
        lib.eventually(lambda: (room / "s").is_socket())
        assert serves(f"unix:{room}/s")
        lib.eventually(lambda: len(stack.children(p.pid)) == 2)
        p.terminate()
        assert p.wait(20) == 0


def test_spawn_fcgi(room, model):
    """Three workers without our master share the counters' file; one that dies takes its gauges along."""
    if not shutil.which("spawn-fcgi"):
        not_possible("spawn-fcgi is not installed")
    env = environment(MODEL_DIR=str(model), MICROGPT_METRICS=f"{room}/metrics")
    log = open(room / "log", "wb")
    subprocess.run(["spawn-fcgi", "-s", f"{room}/s", "-F", "3", "-P", f"{room}/pids", "--", PROGRAM], env=env,
                   stdin=subprocess.DEVNULL, stdout=log, stderr=log, timeout=60, check=True)
    log.close()
    pids = [int(x) for x in re.findall(r"\d+", (room / "pids").read_text())]
    assert len(pids) == 3
    address = f"unix:{room}/s"
    try:
        lib.eventually(lambda: serves(address))
        lib.eventually(lambda: status(address)["workers"]["ready"] == 3)
        for _ in range(10):
            assert fcgi.ask(address, {})[0] == 200
        assert all(title(pid) == f"microgpt-fcgi: worker ({model.name})" for pid in pids)
        os.kill(pids[0], signal.SIGKILL)
        lib.eventually(lambda: status(address)["workers"]["ready"] == 2)
        os.kill(pids[1], signal.SIGHUP)
        os.kill(pids[1], signal.SIGTERM)
        lib.eventually(lambda: not stack.is_alive(pids[1]))
        text = fcgi.ask(address, method="GET", path="/metrics", content_type="")[2].decode()
        assert 'microgpt_requests_total{endpoint="generate",status="200"} 10\n' in text
        assert 'microgpt_workers{state="ready"} 1\n' in text
        assert "microgpt_metrics_shared 1\n" in text
        os.kill(pids[2], signal.SIGINT)
        lib.eventually(lambda: not stack.is_alive(pids[2]))
    finally:
        for pid in pids:
            if stack.is_alive(pid):
                os.kill(pid, signal.SIGKILL)


def cgi(model, method, path, body=b"", **more):
    env = {k: v for k, v in fcgi.environment(method=method, path=path, length=len(body), **more)}
    done = subprocess.run([PROGRAM], input=body, capture_output=True, timeout=60,
                          env=environment(MODEL_DIR=str(model), **env))
    head, _, body = done.stdout.partition(b"\r\n\r\n")
    headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n"))
    return done.returncode, headers, body


def test_cgi(model):
    """GATEWAY_INTERFACE in the environment: one request, stdin to stdout; the same bytes as by FastCGI."""
    code, headers, body = cgi(model, "GET", "/health")
    assert (code, body) == (0, b"Ok") and headers["Content-Type"] == "text/plain"
    request = json.dumps({"num_samples": 3, "seed": 7}).encode()
    code, headers, body = cgi(model, "POST", "/microgpt/v1/generate", request)
    with stack.Service(model) as s:
        assert (code, body) == (0, fcgi.ask(s.address, request)[2])
    assert cgi(model, "POST", "/microgpt/v1/generate", b"{")[1]["Status"].startswith("400")
