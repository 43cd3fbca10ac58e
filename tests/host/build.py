# SPDX-License-Identifier: Apache-2.0
"""The package for a suite: `make deb` here for the Debian this is, in a build system of the other for
that, where the C tests and the golden replies run too; and the same as an older package, to upgrade from."""
import os
import re
import shutil
import subprocess
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / os.environ.get("B", "build")
TOOLS = ("systemd,systemd-dev,nginx-light,curl,ca-certificates,procps,make,gcc,libc6-dev,build-essential,debhelper,lintian,pkgconf,"
         "dpkg-dev,libfcgi-dev,libjansson-dev,nettle-dev,libblis-pthread-dev,libedit-dev,libcmocka-dev,python3,python3-pytest,"
         "spawn-fcgi,mandoc,util-linux,iproute2,systemd-sysv,dbus,openssl")
DEB = "DEB_BUILD_OPTIONS='parallel=2 noautodbgsym' make -s --no-print-directory deb"
PROGRAMS = "usr/bin/microgpt", "usr/sbin/microgpt-fcgi"
CONFFILES = "etc/microgpt/microgpt.conf", "etc/nginx/conf.d/microgpt.conf"


def this_suite():
    return re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text()).group(1)


def said(done):
    text = done.stdout + done.stderr
    assert done.returncode == 0, (text[text.find("FAILED"):] if "FAILED" in text else text[-2500:])[:2500]
    return done.stdout + done.stderr


def here(script):
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "MFLAGS"}
    env["B"] = os.path.relpath(BUILD, ROOT)
    return said(subprocess.run(["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True))


# In a throw-away overlay of the build system: /src a copy of the sources, /out ours.
ENTER = r"""
    set -e; p=$(mktemp -d); mount -t tmpfs t $p; mkdir $p/u $p/w $p/r
    mount -t overlay o -o lowerdir=$1,upperdir=$p/u,workdir=$p/w $p/r
    mount -t proc proc $p/r/proc
    for d in sys dev; do mount --rbind /$d $p/r/$d; done
    mkdir $p/r/out $p/r/src; mount --bind $3 $p/r/out
    tar -C $2 -c --exclude=./build --exclude=./.git . | tar -x -C $p/r/src
    ip link set lo up
    exec chroot $p/r env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 bash -ec "cd /src; $4"
"""


class Package:
    """For one suite: where it is built, then deb, older and programs."""

    def __init__(self, suite):
        self.suite = suite
        self.is_here = suite == this_suite()
        self.out = BUILD / "host" / suite
        shutil.rmtree(self.out, ignore_errors=True)
        self.out.mkdir(parents=True)
        self.programs = self.out / "programs"
        self.programs.mkdir()

    def there(self, script):
        root = machine.cached(f"{self.suite}-build", self.suite, TOOLS)
        return said(subprocess.run(["unshare", "-mnpf", "--kill-child", "bash", "-c", ENTER, "sh", root, ROOT, self.out, script],
                                   capture_output=True, text=True))

    def tested(self):
        """Not on the Debian this is: make test does more there. Leaves the programs."""
        text = self.there("nice make -s -j2 WERROR=1 all unit; cp build/microgpt build/microgpt-fcgi /out/programs; ln -s . build/san; "
                          "tests/run tests/unit/ test_golden.py test_api.py test_stream.py")
        print("       " + text.strip().splitlines()[-1])

    def built(self):
        self.said = here(f"{DEB} && cp build/deb/*.deb {self.out}") if self.is_here else self.there(f"nice env {DEB}; cp build/deb/*.deb /out")

    def lintian(self):
        tags = re.findall(r"^[EWI]: .*", self.said, re.M)
        assert not tags and "not checked" not in self.said, self.said[-1500:]

    def given(self, deb):
        """Built before; its programs serve for those of make."""
        shutil.copy(deb, self.out / "microgpt-serve_given.deb")
        subprocess.run(["dpkg-deb", "-x", deb, self.out / "x"], check=True)
        for program in PROGRAMS:
            shutil.copy(self.out / "x" / program, self.programs)

    def take(self):
        """The package is there: the programs of make, and the older one."""
        self.deb = next(self.out.glob("microgpt-serve_*.deb"))
        if self.is_here:
            for program in PROGRAMS:
                shutil.copy(BUILD / Path(program).name, self.programs)
        self.older = older(self.deb)


def older(deb, version="0.9"):
    """The same package under a lower version, with conffiles that differ."""
    tree = deb.parent / "older"
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*", f"Version: {version}", control.read_text(), flags=re.M))
    for name in CONFFILES:
        with open(tree / name, "a") as f:
            f.write("# as the older package has it\n")
    to = deb.parent / f"older_{version}.pkg"
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "-b", tree, to], check=True, capture_output=True)
    return to
