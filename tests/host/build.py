# SPDX-License-Identifier: Apache-2.0
"""The package for a suite: `make deb` here for the Debian this is, in a build system of the other
for that; and the same package with a lower version, to upgrade from."""
import os
import re
import shutil
import subprocess
from pathlib import Path

import machine

ROOT = Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / os.environ.get("B", "build")
TOOLS = ("systemd,systemd-dev,nginx-light,curl,ca-certificates,procps,make,gcc,libc6-dev,build-essential,debhelper,lintian,pkgconf,"
         "dpkg-dev,libfcgi-dev,libjansson-dev,libblis-pthread-dev,libedit-dev,libcmocka-dev,python3,python3-pytest,"
         "spawn-fcgi,mandoc,util-linux,iproute2,systemd-sysv,dbus,openssl")


def this_suite():
    return re.search(r"VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text()).group(1)


def tail(done):
    assert done.returncode == 0, (done.stdout + done.stderr)[-2500:]


def make_deb_here():
    env = {k: v for k, v in os.environ.items() if not k.startswith("MAKE") and k != "MFLAGS"}
    env["DEB_BUILD_OPTIONS"] = "parallel=2 noautodbgsym"
    tail(subprocess.run(["make", "-s", "--no-print-directory", "deb", f"B={os.path.relpath(BUILD, ROOT)}"], cwd=ROOT, env=env,
                        capture_output=True, text=True))
    return next((BUILD / "deb").glob("*.deb"))


def build_system(suite):
    at = machine.CACHE / f"{suite}-build"
    if not at.exists():
        shutil.rmtree(f"{at}.tmp", ignore_errors=True)
        subprocess.run(["mmdebstrap", "--quiet", "--variant=minbase", f"--include={TOOLS}", suite, f"{at}.tmp"], check=True,
                       capture_output=True, text=True)
        Path(f"{at}.tmp").rename(at)
    return at


def in_build_system(suite, script, timeout=1500):
    """A script in a throw-away overlay of the build system, /src a copy of the sources, /out ours."""
    out = BUILD / "host" / suite
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    enter = r"""
        set -e; p=$(mktemp -d); mount -t tmpfs t $p; mkdir $p/u $p/w $p/r
        mount -t overlay o -o lowerdir=$1,upperdir=$p/u,workdir=$p/w $p/r
        for d in proc sys dev; do mount --rbind /$d $p/r/$d; done
        mkdir $p/r/out $p/r/src; mount --bind $3 $p/r/out
        tar -C $2 -c --exclude=./build --exclude=./.git . | tar -x -C $p/r/src
        ip link set lo up
        exec chroot $p/r env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8 bash -ec "$4"
    """
    return subprocess.run(["unshare", "-mnpf", "--kill-child", "bash", "-c", enter, "sh", build_system(suite), ROOT, out, script],
                          capture_output=True, text=True, timeout=timeout), out


def make_deb_there(suite):
    done, out = in_build_system(suite, "cd /src; DEB_BUILD_OPTIONS='parallel=2 noautodbgsym' nice make -s deb; cp build/deb/*.deb /out")
    tail(done)
    assert "\nE: " not in done.stdout, done.stdout[-2000:]
    return next(out.glob("*.deb"))


def lower(deb, version="0.9"):
    """The same package under a lower version."""
    tree = deb.parent / "lower"
    shutil.rmtree(tree, ignore_errors=True)
    subprocess.run(["dpkg-deb", "-R", deb, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"^Version: .*", f"Version: {version}", control.read_text(), flags=re.M))
    to = deb.parent / f"lower_{version}.pkg"
    subprocess.run(["dpkg-deb", "-Zgzip", "-z1", "-b", tree, to], check=True, capture_output=True)
    return to


def package(suite, given):
    deb = Path(given) if given else make_deb_here() if suite == this_suite() else make_deb_there(suite)
    return deb, lower(deb)
