# SPDX-License-Identifier: Apache-2.0
"""Several hosts, as network namespaces on one bridge: nginx on one, workers on TCP on three others (the
upstream is the recipe in conf.d/microgpt.conf, word for word). Under load one host is killed and
another is cut off, both at once. No request fails but event streams that had begun on those two:
nginx may not repeat what it has passed on. This file is also what runs inside the namespace."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import lib
import stack

HOSTS = ["10.0.0.2", "10.0.0.3", "10.0.0.4"]  # the last one is the backup
MODEL = dict(n_embd=32, n_head=4, n_layer=2, block_size=512, seed=3, endless=True)
READ_TIMEOUT = 5  # instead of 40 s, so that the test does not wait for that


# ---- inside the namespace ------------------------------------------------------------------------

def sh(*words):
    subprocess.run(words, check=True)


def build_network():
    sh("mount", "--make-rprivate", "/")
    os.makedirs("/run/netns", exist_ok=True)
    sh("mount", "-t", "tmpfs", "tmpfs", "/run/netns")
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("ip", "addr", "add", "10.0.0.1/24", "dev", "br0")
    sh("ip", "link", "set", "br0", "up")
    for i, address in enumerate(HOSTS):
        sh("ip", "netns", "add", f"h{i}")
        sh("ip", "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", f"h{i}")
        sh("ip", "link", "set", f"port{i}", "master", "br0", "up")
        sh("ip", "-n", f"h{i}", "addr", "add", f"{address}/24", "dev", "eth0")
        sh("ip", "-n", f"h{i}", "link", "set", "eth0", "up")
        sh("ip", "-n", f"h{i}", "link", "set", "lo", "up")


def start_service(i, model_dir):
    """The service of host i: a process that leads its own group."""
    return subprocess.Popen(["ip", "netns", "exec", f"h{i}", stack.FAST, "-n", "1", "-m", model_dir,
                             f"--listen={HOSTS[i]}:9000", "--log_level=warn"],
                            stdin=subprocess.DEVNULL, start_new_session=True)


class ManyHosts(stack.Nginx):
    """nginx as shipped, with the example for several hosts."""

    def render(self):
        super().render()
        (self.prefix / "microgpt.d").mkdir(exist_ok=True)
        for name in ("hosts.http.conf", "hosts.pool.conf"):
            shutil.copy(stack.ROOT / "deploy/examples/several-hosts" / name, self.prefix / "microgpt.d")
        text = (self.prefix / "microgpt.d/hosts.http.conf").read_text()
        assert re.findall(r"server ([\d.]+):9000", text) == HOSTS
        path = self.prefix / "snippets/microgpt-common.conf"
        text = path.read_text()
        assert "_tries   2;" in text and "fastcgi_read_timeout      40s;" in text
        path.write_text(text.replace("_tries   2;", "_tries   3;").replace(
            "fastcgi_read_timeout      40s;", f"fastcgi_read_timeout {READ_TIMEOUT}s;"))

    def served(self):
        """request id -> the hosts that were tried"""
        text = (self.prefix / "logs/access.json").read_text()
        return {r["id"]: r["upstream"] for r in map(json.loads, text.splitlines()) if r["upstream"]}


class Clients:
    """Six that ask for plain replies and two that read streams, until told to stop."""

    def __init__(self, port):
        self.port, self.done, self.lock = port, threading.Event(), threading.Lock()
        self.plain, self.streams = [], []  # (begun, id or None, what went wrong or None)
        jobs = [self.ask_plain] * 6 + [self.read_stream] * 2
        self.threads = [threading.Thread(target=self.loop, args=(job,)) for job in jobs]
        for t in self.threads:
            t.start()

    def loop(self, job):
        while not self.done.wait(0.01):
            job()

    def ask_plain(self):
        begun, name, wrong = time.monotonic(), None, None
        try:
            reply = lib.generate(self.port, {"max_tokens": 100, "num_samples": 2})
            name = reply.get("X-Request-Id")
            if reply.status != 200:
                wrong = f"{reply.status} {reply.body[:80]}"
        except (OSError, ConnectionError) as error:
            wrong = repr(error)
        with self.lock:
            self.plain.append((begun, name, wrong))

    def read_stream(self):
        begun, name, wrong = time.monotonic(), None, None
        try:
            with lib.Stream(self.port, lib.GENERATE, {"max_tokens": 500, "num_samples": 50}) as s:
                begins = s.open()
                name = s.reply.get("X-Request-Id")
                if not begins:
                    wrong = f"{s.reply.status} before it began"
                elif list(s.events())[-1:] != ["[DONE]"]:
                    wrong = "broken off"
        except (OSError, ConnectionError, ValueError) as error:
            wrong = f"broken off: {error!r}"
        with self.lock:
            self.streams.append((begun, name, wrong))

    def more(self, n, seconds=30):
        """Wait for n more plain replies and one more stream."""
        start, streams = len(self.plain), len(self.streams)
        lib.eventually(lambda: len(self.plain) >= start + n and len(self.streams) > streams, seconds)

    def stop(self):
        self.done.set()
        for t in self.threads:
            t.join()


def inside(model_dir):
    build_network()
    services = [start_service(i, model_dir) for i in range(3)]
    try:
        with ManyHosts("unix:/nowhere") as nginx:
            lib.eventually(lambda: lib.get(nginx.port, "/health").status == 200, 20)
            clients = Clients(nginx.port)
            try:
                clients.more(100)
                os.killpg(services[0].pid, signal.SIGKILL)
                killed = time.monotonic()
                clients.more(100)
                sh("ip", "link", "set", "port1", "down")
                cut = time.monotonic()
                clients.more(100)
                lib.eventually(lambda: time.monotonic() > cut + READ_TIMEOUT + 3, 60)
                clients.more(100)
                services[0] = start_service(0, model_dir)
                sh("ip", "link", "set", "port1", "up")
                back = time.monotonic()
                time.sleep(6)  # fail_timeout
                clients.more(100)
            finally:
                clients.stop()
            lib.eventually(lambda: set(n for _, n, _ in clients.plain if n) <= set(nginx.served()))
            print("RESULT " + json.dumps({"plain": clients.plain, "streams": clients.streams, "served": nginx.served(),
                                          "killed": killed, "cut": cut, "back": back}))
    finally:
        for s in services:
            os.killpg(s.pid, signal.SIGTERM)
        for s in services:
            s.wait()


# ---- the test ------------------------------------------------------------------------------------

def test_one_host_killed_and_one_cut_off_under_load():
    from counting import not_possible, note
    if os.geteuid():
        not_possible("network namespaces need root")
    for tool in ("ip", "unshare"):
        if not shutil.which(tool):
            not_possible(f"{tool} is not installed")
    probe = subprocess.run(["unshare", "-mn", "ip", "link", "add", "v0", "type", "bridge"], capture_output=True, text=True)
    if probe.returncode:
        not_possible(f"network namespaces: {probe.stderr.strip()}")
    done = subprocess.run(["unshare", "-mnpf", "--kill-child", "--mount-proc", sys.executable, __file__,
                           str(stack.model(**MODEL))],
                          env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
                          capture_output=True, text=True)
    found = re.search(r"^RESULT (.*)$", done.stdout, re.M)
    assert done.returncode == 0 and found, done.stdout[-2000:] + done.stderr[-4000:]
    r = json.loads(found.group(1))
    plain, streams, served = r["plain"], r["streams"], r["served"]
    assert len(plain) >= 500 and len(streams) >= 10
    last = lambda name: served.get(name, "").split(", ")[-1].split(":")[0]
    # every plain request was answered, by whichever host
    wrong = [(name, what, served.get(name)) for _, name, what in plain if what]
    assert not wrong, wrong
    # a stream that failed had begun, on one of the two hosts, when that went
    broken = [s for s in streams if s[2]]
    for begun, name, what in broken:
        assert what.startswith("broken off"), (name, what, served.get(name))
        assert (last(name), begun < r["killed"]) == (HOSTS[0], True) or (last(name), begun < r["cut"]) == (HOSTS[1], True), \
            (name, what, served.get(name))
    assert len(broken) <= 4
    # all three took part: the backup when the others were away, the others again when back
    hosts = lambda since, until: {last(name) for begun, name, _ in plain if since < begun < until and name}
    assert hosts(0, r["killed"]) == set(HOSTS[:2])
    assert HOSTS[2] in hosts(r["cut"], r["back"])
    assert set(HOSTS[:2]) <= hosts(r["back"], 1e18)
    repeated = sum(", " in served.get(name, "") for _, name, _ in plain)
    note(f"three hosts, one killed and one cut off: {len(plain)} plain requests, 0 failed, {repeated} "
         f"repeated elsewhere; {len(streams)} streams, {len(broken)} broken that had begun there")


if __name__ == "__main__":
    inside(sys.argv[1])
