# SPDX-License-Identifier: Apache-2.0
"""The systemd units: what systemd-analyze thinks of them, and run for real by a systemd --user in a
namespace of its own. A user's systemd cannot give what needs root (other users, namespaces of
mounts and network): those lines are left out there, everything else is as shipped."""
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest

import fcgi
import lib
import stack
from counting import not_possible

UNITS = stack.ROOT / "deploy/systemd"
SERVICES = ["microgpt-fcgi.service", "microgpt-fcgi@.service", "microgpt-worker@.service"]
SOCKETS = ["microgpt-fcgi.socket", "microgpt-worker.socket"]
HARDENING = "microgpt-.service.d/10-hardening.conf"
UID = 12345
MODEL = dict(n_embd=32, n_head=4, n_layer=2, block_size=64, seed=3)

# what a user's systemd cannot do
NEEDS_ROOT = re.compile(
    r"^(User|Group|SupplementaryGroups|SocketUser|SocketGroup|CapabilityBoundingSet|AmbientCapabilities|"
    r"Protect\w+|ProcSubset|Private\w+|IPAddress\w+|LogsDirectory|KeyringMode|RemoveIPC|LimitNOFILE|"
    r"OOMPolicy|Conflicts)=.*\n", re.M)


def analyze():
    if not shutil.which("systemd-analyze"):
        not_possible("systemd-analyze is not installed")


def copy_units(to, program=stack.FAST):
    """The units as they are, but that the program is the one that was built."""
    for name in SERVICES + SOCKETS + [HARDENING]:
        target = to / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text((UNITS / name).read_text().replace("/usr/sbin/microgpt-fcgi", str(program)))
    return to


@pytest.mark.parametrize("name", SERVICES + SOCKETS)
def test_verify_prints_nothing(name, tmp_path):
    analyze()
    unit = copy_units(tmp_path) / name
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.parametrize("name", SERVICES)
def test_exposure_is_below_one(name, tmp_path):
    analyze()
    unit = copy_units(tmp_path) / name
    done = subprocess.run(["systemd-analyze", "security", "--no-pager", "--offline=true", unit],
                          capture_output=True, text=True)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found and float(found.group(1)) < 1.0, done.stdout[-2000:] + done.stderr


def test_tcp_drop_in_opens_no_more_than_it_says(tmp_path):
    """The drop-in for TCP, in force over the hardening: still below 2, and verify is silent."""
    analyze()
    unit = copy_units(tmp_path) / SERVICES[0]
    drop = tmp_path / "microgpt-fcgi.service.d/50-tcp.conf"
    drop.parent.mkdir()
    shutil.copy(stack.ROOT / "deploy/examples/several-hosts/50-tcp.conf", drop)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    done = subprocess.run(["systemd-analyze", "security", "--no-pager", "--offline=true", unit],
                          capture_output=True, text=True)
    level = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout).group(1))
    assert 0.4 < level < 2.0, done.stdout[-2000:]


def test_sysusers_and_tmpfiles_are_accepted(tmp_path):
    for tool, name in (("systemd-sysusers", "sysusers.d"), ("systemd-tmpfiles", "tmpfiles.d")):
        if not shutil.which(tool):
            not_possible(f"{tool} is not installed")
        if os.geteuid():
            not_possible(f"{tool} --root needs root")
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / "usr/lib" / name).mkdir(parents=True)
        shutil.copy(stack.ROOT / "deploy" / name / "microgpt.conf", tmp_path / "usr/lib" / name)
        more = ["--create"] if tool.endswith("tmpfiles") else []
        done = subprocess.run([tool, f"--root={tmp_path}", *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "microgpt:" in (tmp_path / "etc/passwd").read_text()
    models = tmp_path / "var/lib/microgpt/models"
    assert models.stat().st_uid == 0
    assert os.readlink(models / "current") == "/usr/share/microgpt/demo/chat"


# ---- for real ------------------------------------------------------------------------------------

def cgroups(name):
    """Groups for the user's systemd in every hierarchy that systemd looks at."""
    made = []
    for base in ("/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"):
        base = Path(base)
        if (base / "cgroup.procs").exists():
            (base / name).mkdir()
            for f in (base / name, base / name / "cgroup.procs", base / name / "cgroup.subtree_control"):
                if f.exists():
                    os.chown(f, UID, UID)
            made.append(base / name)
    return made


def remove_groups(groups):
    for group in groups:
        for d in sorted((x for x in group.rglob("*") if x.is_dir()), reverse=True):
            d.rmdir()
        group.rmdir()


class Systemd:
    """systemd --user of a user that does not exist, in a mount namespace with a /run of its own."""

    START = """
        mount --make-rprivate /
        mount -t tmpfs tmpfs /run
        mkdir -p /run/systemd/system
        for group; do echo $$ > $group/cgroup.procs; done
        exec setpriv --reuid={uid} --regid={uid} --clear-groups env -i PATH=$PATH HOME={dir} \
            XDG_RUNTIME_DIR={dir}/run SYSTEMD_LOG_TARGET=console SYSTEMD_LOG_LEVEL=notice \
            {systemd} --user --unit=basic.target
    """

    def __init__(self):
        self.dir = Path(tempfile.mkdtemp(prefix="mgsd", dir="/tmp"))
        self.run = self.dir / "run"
        self.units = self.dir / ".config/systemd/user"
        self.address = f"unix:{self.run}/microgpt/fcgi.sock"
        self.groups, self.process = [], None

    def prepare(self):
        """Program, models, configuration and units where that user may read them."""
        shutil.copy(stack.FAST, self.dir / "microgpt-fcgi")
        for name, seed in (("one", 3), ("two", 4)):
            shutil.copytree(stack.model(**{**MODEL, "seed": seed}), self.dir / name)
        (self.dir / "current").symlink_to("one")
        self.configure()
        self.run.mkdir(mode=0o700)
        for name in SERVICES + SOCKETS + [HARDENING]:
            text = NEEDS_ROOT.sub("", (UNITS / name).read_text())
            text = text.replace("/usr/sbin/microgpt-fcgi", f"{self.dir}/microgpt-fcgi")
            text = text.replace("/etc/microgpt", str(self.dir)).replace("/run/microgpt", f"{self.run}/microgpt")
            target = self.units / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
        (self.units / "basic.target").write_text("[Unit]\nDescription=nothing\n")
        subprocess.run(["chown", "-R", f"{UID}:{UID}", self.dir], check=True)

    def configure(self, **keys):
        keys = {"listen": self.address, "model_dir": f"{self.dir}/current", "workers": 2, **keys}
        (self.dir / "microgpt.conf").write_text("".join(f"{k} = {v}\n" for k, v in keys.items()))

    def __enter__(self):
        systemd = next((p for p in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if os.path.exists(p)), None)
        why = ("not root" if os.geteuid() else "systemd is not installed" if not systemd else None)
        if not why and not (shutil.which("setpriv") and shutil.which("unshare") and shutil.which("nsenter")):
            why = "no setpriv, unshare, nsenter"
        if why:
            shutil.rmtree(self.dir)
            not_possible(f"systemd --user: {why}", 7)
        try:
            self.groups = cgroups(f"microgpt-test-{os.getpid()}")
        except OSError as error:
            shutil.rmtree(self.dir)
            not_possible(f"systemd --user: no cgroup: {error}", 7)
        self.prepare()
        script = self.START.format(uid=UID, dir=self.dir, systemd=systemd)
        with open(self.dir / "log", "wb") as log:
            self.process = subprocess.Popen(["unshare", "-m", "bash", "-ec", script, "sh", *map(str, self.groups)],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        def up():
            """systemd --user answers"""
            return self.process.poll() is not None or (self.run / "systemd/private").exists()
        lib.eventually(up, 20)
        if self.process.poll() is not None:
            log = self.log()
            self.__exit__(None, None, None)
            not_possible(f"systemd --user does not start: {log.strip().splitlines()[-1:]}", 7)
        return self

    def ctl(self, *arguments, check=True):
        done = subprocess.run(["nsenter", "-t", str(self.process.pid), "-m", "setpriv", f"--reuid={UID}",
                               f"--regid={UID}", "--clear-groups", "env", "-i", f"PATH={os.environ['PATH']}",
                               f"XDG_RUNTIME_DIR={self.run}", "systemctl", "--user", *arguments],
                              capture_output=True, text=True)
        assert not check or done.returncode == 0, (arguments, done.stdout, done.stderr, self.log()[-3000:])
        return done.stdout.strip()

    def show(self, unit, name):
        return self.ctl("show", "-p", name, "--value", unit)

    def log(self):
        return (self.dir / "log").read_text(errors="replace")

    def health(self):
        """The service answers"""
        try:
            got = fcgi.ask(self.address, method="GET", path="/health", content_type="", timeout=20)
            return bool(got) and got[0] == 200
        except OSError:
            return False

    def clean(self):
        """Between tests: nothing runs, nothing has failed."""
        self.ctl("stop", "microgpt-*", check=False)
        self.ctl("reset-failed", check=False)
        self.configure()

    def __exit__(self, kind, *_):
        if self.process.poll() is None:
            try:
                self.ctl("stop", "microgpt-*", check=False)
                self.process.terminate()
                self.process.wait(timeout=30)
            finally:
                self.process.kill()
                self.process.wait()
        def emptied():
            """the cgroups are empty and gone"""
            for group in self.groups:
                for procs in group.rglob("cgroup.procs"):
                    for pid in procs.read_text().split():
                        os.kill(int(pid), signal.SIGKILL)
            try:
                remove_groups([g for g in self.groups if g.exists()])
                return True
            except OSError:
                return False
        lib.eventually(emptied, 20)
        shutil.rmtree(self.dir, ignore_errors=True)


@pytest.fixture(scope="module")
def manager():
    with Systemd() as s:
        yield s


@pytest.fixture
def systemd(manager):
    manager.clean()
    yield manager
    manager.clean()


class Load:
    """Clients that ask without pause until told to stop; every reply must be a 200."""

    def __init__(self, systemd, n=8):
        self.systemd, self.done, self.ok, self.bad = systemd, threading.Event(), 0, []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.ask, daemon=True) for _ in range(n)]

    def ask(self):
        while not self.done.is_set():
            try:
                got = fcgi.ask(self.systemd.address, b'{"max_tokens":8}', timeout=60)
            except OSError as error:
                got = (repr(error),)
            with self.lock:
                if got and got[0] == 200:
                    self.ok += 1
                else:
                    self.bad.append(got)

    def __enter__(self):
        for t in self.threads:
            t.start()
        return self

    def more(self, n):
        start = self.ok
        lib.eventually(lambda: self.ok >= start + n or self.bad, 30)

    def __exit__(self, *_):
        self.done.set()
        for t in self.threads:
            t.join()


def test_notify_reload_and_crash(systemd):
    unit = "microgpt-fcgi.service"
    systemd.ctl("start", unit)  # returns when READY=1 came
    assert systemd.health()
    pid = systemd.show(unit, "MainPID")
    assert "2" in systemd.show(unit, "StatusText"), systemd.show(unit, "StatusText")
    before = fcgi.ask(systemd.address, b'{"num_samples":5}')[2]
    (systemd.dir / "next").symlink_to("two")
    (systemd.dir / "next").rename(systemd.dir / "current")
    systemd.ctl("reload", unit)
    lib.eventually(lambda: fcgi.ask(systemd.address, b'{"num_samples":5}')[2] != before)
    assert systemd.show(unit, "MainPID") == pid
    os.kill(int(pid), signal.SIGKILL)
    lib.eventually(lambda: systemd.show(unit, "MainPID") not in (pid, "0") and systemd.health(), 20)
    assert systemd.show(unit, "NRestarts") == "1"
    systemd.ctl("stop", unit)
    assert systemd.show(unit, "Result") == "success"


@pytest.mark.parametrize("key, value, status", [("model_dir", "/nonexistent", "66"), ("colour", "blue", "78")])
def test_no_restart_where_it_would_not_help(systemd, key, value, status):
    systemd.configure(**{key: value})
    systemd.ctl("start", "microgpt-fcgi.service", check=False)
    lib.eventually(lambda: systemd.show("microgpt-fcgi.service", "ActiveState") == "failed")
    assert systemd.show("microgpt-fcgi.service", "ExecMainStatus") == status
    assert systemd.show("microgpt-fcgi.service", "NRestarts") == "0"


def test_watchdog(systemd):
    """A master that stands still is killed and replaced."""
    drop = systemd.units / "microgpt-fcgi.service.d/60-test.conf"
    drop.parent.mkdir()
    drop.write_text("[Service]\nWatchdogSec=1\n")
    try:
        systemd.ctl("daemon-reload")
        systemd.ctl("start", "microgpt-fcgi.service")
        pid = systemd.show("microgpt-fcgi.service", "MainPID")
        time.sleep(2.5)  # twice the watchdog: it must be fed
        assert systemd.show("microgpt-fcgi.service", "MainPID") == pid
        os.kill(int(pid), signal.SIGSTOP)
        lib.eventually(lambda: systemd.show("microgpt-fcgi.service", "MainPID") not in (pid, "0")
                       and systemd.health(), 30)
        assert systemd.show("microgpt-fcgi.service", "NRestarts") == "1"
    finally:
        shutil.rmtree(drop.parent)
        systemd.ctl("daemon-reload")


def test_socket_activation_and_restart_under_load(systemd):
    systemd.ctl("start", "microgpt-fcgi.socket")
    assert systemd.show("microgpt-fcgi.service", "ActiveState") == "inactive"
    assert systemd.health()
    lib.eventually(lambda: systemd.show("microgpt-fcgi.service", "ActiveState") == "active")
    with Load(systemd) as load:
        for _ in range(3):
            load.more(50)
            systemd.ctl("restart", "microgpt-fcgi.service")
        load.more(50)
    assert not load.bad and load.ok >= 200, (load.ok, load.bad[:3])


def test_template_workers(systemd):
    names = [f"microgpt-worker@{i}.service" for i in (1, 2, 3)]
    systemd.ctl("start", "microgpt-worker.socket", *names)
    pids = {systemd.show(n, "MainPID") for n in names}
    assert len(pids) == 3 and "0" not in pids
    with Load(systemd) as load:
        load.more(100)
        for name in names:  # one after the other, as an upgrade would
            systemd.ctl("restart", name)
            load.more(30)
    assert not load.bad, load.bad[:3]
    assert not pids & {systemd.show(n, "MainPID") for n in names}
    # one sum over six processes, three of them gone
    wanted = [f'microgpt_requests_total{{endpoint="generate",status="200"}} {load.ok}\n',
              'microgpt_workers{state="ready"} 3\n']
    metrics = lambda: fcgi.ask(systemd.address, method="GET", path="/metrics", content_type="")[2].decode()
    for line in wanted:
        lib.eventually(lambda: line in metrics())


def test_a_further_model_by_instance(systemd):
    text = (systemd.dir / "microgpt.conf").read_text()
    (systemd.dir / "names.conf").write_text(
        text.replace("run/microgpt/", "run/microgpt-names/").replace("current", "two"))
    systemd.ctl("start", "microgpt-fcgi.service", "microgpt-fcgi@names.service")
    other = systemd.address.replace("/microgpt/", "/microgpt-names/")
    body = b'{"num_samples":5}'
    assert fcgi.ask(other, body)[0] == 200
    systemd.ctl("stop", "microgpt-fcgi.service")
    assert fcgi.ask(other, body)[0] == 200
