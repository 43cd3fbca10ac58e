# SPDX-License-Identifier: Apache-2.0
"""A Debian that boots with systemd as PID 1 in systemd-nspawn: made once by mmdebstrap and cached, a
fresh overlay in memory over it for each run. Nothing here knows microgpt."""
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

CACHE = Path(os.environ.get("MG_HOST_CACHE", "/var/cache/mg-hosts"))
COMMON = ("systemd,systemd-sysv,dbus,nginx,curl,openssl,ca-certificates,procps,iproute2,logrotate,"
          "libjansson4,libnettle8,libblis4-pthread,libedit2,spawn-fcgi,python3,util-linux,passwd,")
PACKAGES = COMMON + "libfcgi0ldbl", COMMON + "libfcgi0t64"     # Debian, Ubuntu
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


UBUNTU = {"noble": "deb http://archive.ubuntu.com/ubuntu noble main universe"}


def cached(name, suite, packages):
    """A system of that suite with these packages; made if it is not there. Another list is another one."""
    at = CACHE / f"{name}-{hashlib.sha256(packages.encode()).hexdigest()[:8]}"
    if not at.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        new = tempfile.mkdtemp(prefix=f"new-{name}-", dir=CACHE)
        try:
            subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={packages}", suite, f"{new}/root",
                            *([UBUNTU[suite]] if suite in UBUNTU else [])], check=True, capture_output=True, text=True)
            if not at.exists():
                Path(f"{new}/root").rename(at)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return at


class Done:
    def __init__(self, code, out):
        self.code, self.out = code, out


class Machine:
    """with Machine("bookworm") as m: m.run("systemctl ...")"""

    def __init__(self, suite):
        self.suite, self.lower = suite, cached(suite, suite, PACKAGES[suite in UBUNTU])
        self.dir = Path(tempfile.mkdtemp(prefix=f"run-{suite}-", dir=CACHE))
        self.root, self.leader = self.dir / "root", None
        self.name = re.sub("[^a-z0-9]", "x", self.dir.name.lower())

    def __enter__(self):
        # in memory: dpkg syncs every file, and waits for the disk each time
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", self.dir], check=True)
        for d in ("upper", "work", "root"):
            (self.dir / d).mkdir()
        os.chmod(self.dir / "upper", 0o755)
        subprocess.run(["mount", "-t", "overlay", "overlay", "-o",
                        f"lowerdir={self.lower},upperdir={self.dir}/upper,workdir={self.dir}/work", self.root], check=True)
        try:
            self.boot()
        except BaseException:
            self.__exit__()
            raise
        return self

    def boot(self):
        with open(self.dir / "boot.log", "ab") as log:
            self.nspawn = subprocess.Popen(
                ["systemd-nspawn", "-q", "-D", self.root, "-M", self.name, "--boot", "--register=no", "--keep-unit",
                 "--private-network", "--console=pipe"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.eventually(self.is_up, 120)

    def is_up(self):
        """Found anew each time: at first nspawn has children that only prepare."""
        self.leader = self.find_leader()
        return self.leader and self.run("systemctl is-system-running", check=False).out.strip() in ("running", "degraded")

    def find_leader(self):
        assert self.nspawn.poll() is None, (self.dir / "boot.log").read_text()[-2000:]
        pid = self.nspawn.pid
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return found[0] if found else None

    def command(self, script):
        return ["nsenter", "-t", self.leader, "-m", "-u", "-i", "-n", "-p", "-r", "-w", "--", "env", "-i", f"PATH={PATH}", "HOME=/root",
                "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "bash", "-c", script]

    def start(self, script):
        """The same in the background."""
        return subprocess.Popen(self.command(script), stdin=subprocess.DEVNULL)

    def run(self, script, check=True, timeout=120):
        """A bash script in the machine; its code and what it said on both outputs."""
        done = subprocess.run(self.command(script), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, errors="replace", timeout=timeout)
        assert not check or done.returncode == 0, f"{script}\n-> {done.returncode}\n{done.stdout[-3000:]}"
        return Done(done.returncode, done.stdout)

    def eventually(self, ask, seconds=30):
        deadline = time.monotonic() + seconds
        while True:
            found = ask()
            if found:
                return found
            assert time.monotonic() < deadline, "did not come true in time"
            time.sleep(0.05)

    def power_off(self):
        subprocess.run(["kill", "-s", "SIGRTMIN+4", self.leader], check=False)
        self.nspawn.wait(timeout=120)

    def reboot(self):
        self.power_off()
        self.boot()

    def put(self, source, target, mode=0o644):
        at = Path(f"{self.root}{target}")
        at.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, at)
        os.chmod(at, mode)

    def write(self, target, text):
        at = Path(f"{self.root}{target}")
        at.parent.mkdir(parents=True, exist_ok=True)
        at.write_text(text)

    def read(self, path):
        return Path(f"{self.root}{path}").read_text(errors="replace")

    def __exit__(self, *_):
        try:
            if self.leader and self.nspawn.poll() is None:
                self.power_off()
        finally:
            if self.nspawn.poll() is None:
                self.nspawn.kill()
                self.nspawn.wait()
            subprocess.run(["umount", "-q", self.root], check=False)
            subprocess.run(["umount", "-q", self.dir], check=False)
            shutil.rmtree(self.dir, ignore_errors=True)
