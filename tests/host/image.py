# SPDX-License-Identifier: Apache-2.0
"""The container image: built without a daemon, its root run read-only as an unprivileged user in
namespaces of its own, probed, and drained by TERM."""
import json
import os
import re
import signal
import subprocess
import threading
import time

from build import BUILD, ROOT

OUT = BUILD / "oci"
RUN = r"""
    mount --bind $1 $1; cd $1
    mount -t proc proc proc; mount -t tmpfs -o mode=1777 run run; mount -t tmpfs tmp tmp; mount --rbind /dev dev
    mount -o remount,ro,bind $1
    ip link set lo up
    exec chroot --userspec=microgpt:microgpt . env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin WORKERS=1 \
        setpriv --no-new-privs --bounding-set=-all /usr/libexec/microgpt-start
"""


class Container:
    def __enter__(self):
        self.log = open(OUT / "log", "wb")
        self.process = subprocess.Popen(["unshare", "-mnpf", "--kill-child", "bash", "-ec", RUN, "sh", OUT / "root"],
                                        stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        deadline = time.monotonic() + 60
        while self.probe().returncode or self.curl("http://127.0.0.1:8080/health").stdout != "Ok":
            assert self.process.poll() is None and time.monotonic() < deadline, self.said()
            time.sleep(0.1)
        return self

    def inside(self):
        pid = self.process.pid
        return open(f"/proc/{pid}/task/{pid}/children").read().split()[0]

    def enter(self, *command):
        try:
            leader = self.inside()
        except (OSError, IndexError):
            leader = "0"
        return subprocess.run(["nsenter", "-t", leader, "-m", "-n", "-p", "-r", "-w", "--", *command],
                              capture_output=True, text=True, timeout=60)

    def probe(self):
        return self.enter("/usr/sbin/microgpt-fcgi", "--health",
                          "unix:/run/microgpt/fcgi.sock")

    def curl(self, *more):
        return subprocess.run(["nsenter", "-t", self.inside(), "-n", "--", "curl", "-s", "-m", "50", *more],
                              capture_output=True, text=True)

    def said(self):
        return (OUT / "log").read_text(errors="replace")[-2000:]

    def __exit__(self, *_):
        # the one inside by its own number: with another user it no longer dies with its parent
        try:
            os.kill(int(self.inside()), signal.SIGKILL)
        except (OSError, IndexError):
            pass
        self.process.kill()
        self.process.wait()
        self.log.close()


def builds(deb):
    done = subprocess.run([ROOT / "deploy/oci/build.sh", deb, OUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    print("       " + ", ".join(done.stdout.split("\n")).strip(", "))
    if "image:" in done.stdout:
        index = json.loads((OUT / "image/index.json").read_text())
        assert index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] == "microgpt"


def serves(_):
    with Container() as c:
        assert c.curl("http://127.0.0.1:8080/health").stdout == "Ok"
        reply = c.curl("http://127.0.0.1:8080/microgpt/v1/chat", "-H", "Content-Type: application/json",
                       "-d", '{"messages":[{"role":"user","content":"hello"}]}').stdout
        assert '"role":"assistant"' in reply, reply + c.said()
        status = c.enter("bash", "-c", "cat /proc/[0-9]*/status").stdout
        users = set(re.findall(r"^Name:\t(microgpt-fcgi|nginx)\n(?:.*\n)*?Uid:\t(\d+)", status, re.M))
        assert {n for n, _ in users} == {"microgpt-fcgi", "nginx"} and "0" not in {u for _, u in users}, users
        assert c.enter("touch", "/usr/x").returncode, "the root is writable"


def drains(_):
    with Container() as c:
        got = []
        ask = threading.Thread(target=lambda: got.append(c.curl(
            "-N", "http://127.0.0.1:8080/microgpt/v1/generate", "-H", "Content-Type: application/json",
            "-d", '{"num_samples":50,"stream":true}').stdout))
        ask.start()
        deadline = time.monotonic() + 30
        while 'microgpt_requests_in_progress 1' not in (text := c.curl("http://127.0.0.1:8080/metrics").stdout):
            if got or "lanes_busy" in text and re.search(r"^microgpt_lanes_busy\S* [1-9]", text, re.M):
                break
            assert time.monotonic() < deadline, text[:500]
        os.kill(int(c.inside()), signal.SIGTERM)
        assert c.process.wait(timeout=60) == 0, c.said()
        ask.join()
        assert got[0].rstrip().endswith("data: [DONE]"), got[0][-300:]


def unhealthy(_):
    with Container() as c:
        pid = next(p for p in c.enter("bash", "-c", "grep -l '^Name:.microgpt-fcgi' /proc/[0-9]*/status").stdout.split())
        c.enter("bash", "-c", f"kill -9 {pid.split('/')[2]}")
        assert c.process.wait(timeout=30) != 0, "the container goes on without its service"


def run(count, deb):
    for name, call in (("image: builds without a daemon", builds),
                       ("image: read-only root, unprivileged user, probed and serving", serves),
                       ("image: TERM drains a stream in flight", drains),
                       ("image: ends when its service is gone", unhealthy)):
        count.take(name, lambda: call(deb))
