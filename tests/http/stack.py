# SPDX-License-Identifier: Apache-2.0
"""The real thing under test: the service with a configuration of the test's, and nginx with the
shipped conf/nginx.conf, of which only port, socket and the included limits are replaced
(or not even those). What a test leaves behind is an error: sanitizer reports, processes, sockets."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import fcgi
import lib
import models

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = Path(os.environ.get("MG_BUILD", ROOT / "build"))
CHECKED, FAST = BUILD / "san/microgpt-fcgi", BUILD / "microgpt-fcgi"
NGINX = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")


def model(**shape):
    return models.cached(BUILD / "test/models", **shape)


def temporary():
    """A new directory: under build/tmp, or under /tmp where that is too long for a socket's name."""
    base = BUILD / "tmp"
    if len(str(base)) > 70:
        base = Path(tempfile.gettempdir())
    base.mkdir(parents=True, exist_ok=True)
    path = tempfile.mkdtemp(prefix="t", dir=base)
    os.chmod(path, 0o755)
    return Path(path)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def children(pid):
    try:
        return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def descriptors(pid):
    """Sorted descriptions of the open descriptors of a process."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found.append(re.sub(r":\[\d+\]", "", os.readlink(f"/proc/{pid}/fd/{fd}")))
        except OSError:
            pass
    return sorted(found)


def resident(pid):
    """Bytes of memory that are the process's own."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return 1024 * sum(int(n) for n in re.findall(r"^Private_\w+:\s+(\d+) kB", text, re.M))


class Service:
    """microgpt-fcgi with a configuration file made from keys. `with` starts and stops it."""

    def __init__(self, model_dir, program=CHECKED, arguments=(), environment=None, **keys):
        self.dir = temporary()
        self.address = f"unix:{self.dir}/s"
        self.program, self.arguments = program, list(arguments)
        self.environment = environment or {}
        self.keys = {"listen": self.address, "model_dir": model_dir, "workers": 2,
                     "socket_mode": "0666", **keys}
        self.address = self.keys["listen"]
        self.log_path = self.dir / "log"
        self.process, self.seen = None, set()

    def write_config(self, **keys):
        self.keys.update(keys)
        text = "".join(f"{k} = {v}\n" for k, v in self.keys.items())
        (self.dir / "conf").write_text(text)

    def start(self):
        self.write_config()
        env = {k: v for k, v in os.environ.items() if not k.startswith(("MICROGPT_", "MODEL_DIR"))}
        env.update(ASAN_OPTIONS=f"detect_leaks=1:log_path={self.dir}/asan:abort_on_error=0:exitcode=99",
                   UBSAN_OPTIONS=f"print_stacktrace=1:log_path={self.dir}/ubsan", **self.environment)
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen([str(self.program), "-c", str(self.dir / "conf"), *self.arguments],
                                            cwd=self.dir, env=env, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log)
        self.wait_ready()
        return self

    def wait_ready(self, seconds=60):
        deadline = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None, f"exit code {self.process.returncode}\n{self.log()}"
            try:
                got = fcgi.ask(self.address, method="GET", path="/health", content_type="", timeout=10)
                if got and got[0] == 200:
                    break
            except OSError:
                pass
            assert time.monotonic() < deadline, f"not ready\n{self.log()}"
            time.sleep(0.02)
        lib.eventually(lambda: len(self.workers()) >= int(self.keys["workers"]), seconds)

    def workers(self):
        found = children(self.process.pid)
        self.seen.update(found)
        return found

    def log(self):
        return self.log_path.read_text(errors="replace")

    def stop(self, sig=signal.SIGTERM, code=0, seconds=60):
        """Ask it to end and check that it did so cleanly."""
        if self.process is None:
            return
        process, self.process = self.process, None
        for pid in children(process.pid):
            self.seen.add(pid)
        try:
            if process.poll() is None:
                process.send_signal(sig)
            got = process.wait(timeout=seconds)
            assert got == code, f"exit code {got}\n{self.log()[-3000:]}"
            lib.eventually(lambda: not [p for p in self.seen if is_alive(p)], 10)
        finally:
            for pid in {process.pid, *self.seen}:
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)
            process.wait()
        self.check_reports()

    def check_reports(self):
        reports = [p for p in self.dir.iterdir() if p.name.startswith(("asan", "ubsan"))]
        assert not reports, "\n".join(p.read_text(errors="replace")[:4000] for p in reports)

    def __enter__(self):
        try:
            return self.start()
        except BaseException:
            if self.process:
                for pid in (*children(self.process.pid), self.process.pid):
                    if is_alive(pid):
                        os.kill(pid, signal.SIGKILL)
                self.process.wait()
            raise

    def __exit__(self, kind, error, trace):
        try:
            self.stop()
        except AssertionError:
            if kind is None:
                raise
            print(self.log()[-3000:])
        finally:
            if kind is None:
                shutil.rmtree(self.dir, ignore_errors=True)


# Instead of snippets/microgpt-limits.conf: the same names with empty keys, which nginx does not count.
NO_LIMITS = """
map $remote_addr $microgpt_client { default ""; }
map $remote_addr $microgpt_all    { default ""; }
limit_req_zone  $microgpt_client zone=microgpt_rate:1m rate=5r/s;
limit_conn_zone $microgpt_all    zone=microgpt_conn:64k;
"""
# Rate not limited, requests in progress are.
ONLY_CONN = NO_LIMITS.replace('$microgpt_all    { default ""; }', "$microgpt_all    { default all; }")


class Nginx:
    """nginx in front of the service at address, with conf/ as shipped but for port, socket and the
    file of the limits; limits=None keeps that one too."""

    def __init__(self, address, limits=NO_LIMITS):
        self.address, self.limits = address, limits
        self.prefix, self.process, self.port = temporary(), None, None

    def render(self):
        subprocess.run([ROOT / "conf/prefix.sh", self.prefix, str(self.port),
                        self.address.removeprefix("unix:")], check=True)
        if self.limits is not None:
            (self.prefix / "snippets/microgpt-limits.conf").write_text(self.limits)

    def start(self):
        for attempt in range(5):
            self.port = free_port()
            self.render()
            user = ["-g", "user root;"] if os.geteuid() == 0 else []
            with open(self.prefix / "logs/stderr", "wb") as log:
                self.process = subprocess.Popen(
                    [NGINX, "-p", f"{self.prefix}/", "-c", "nginx.conf", "-e", "stderr", *user],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            if self.wait_ready():
                return self
        raise AssertionError(self.log())

    def wait_ready(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                if "Address already in use" in self.log():
                    return False  # another took the port: the next
                raise AssertionError(self.log())
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
                return True
            except OSError:
                time.sleep(0.02)
        raise AssertionError(self.log())

    def log(self):
        text = ""
        for path in sorted((self.prefix / "logs").iterdir()):
            text += path.read_text(errors="replace")
        return text

    def stop(self):
        process, self.process = self.process, None
        if process is None:
            return
        pids = [process.pid, *children(process.pid)]
        try:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=20)
        finally:
            for pid in pids:
                if is_alive(pid):
                    os.kill(pid, signal.SIGKILL)
            process.wait()

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, error, trace):
        self.stop()
        if kind is None:
            shutil.rmtree(self.prefix, ignore_errors=True)


class Stack:
    """A service behind nginx; .port is nginx's."""

    def __init__(self, model_dir, limits=NO_LIMITS, **more):
        self.service = Service(model_dir, **more)
        self.nginx = Nginx(self.service.address, limits)

    def __enter__(self):
        self.service.__enter__()
        try:
            self.nginx.__enter__()
        except BaseException:
            self.service.__exit__(AssertionError, None, None)
            raise
        self.port = self.nginx.port
        return self

    def __exit__(self, *error):
        try:
            self.nginx.__exit__(*error)
        finally:
            self.service.__exit__(*error)

    def status(self):
        """The service's /status, asked at its socket."""
        got = fcgi.ask(self.service.address, method="GET", path="/status", content_type="")
        assert got and got[0] == 200, got
        return json.loads(got[2])

    def metrics(self):
        """The service's /metrics as {name{labels}: value}."""
        got = fcgi.ask(self.service.address, method="GET", path="/metrics", content_type="")
        assert got and got[0] == 200, got
        values = {}
        for line in got[2].decode().splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def sum(self, name, **labels):
        """Sum of a metric over all label sets that agree with labels."""
        total = 0.0
        for key, value in self.metrics().items():
            if re.match(rf"{name}(\{{|$)", key):
                if all(f'{k}="{v}"' in key for k, v in labels.items()):
                    total += value
        return total
