# SPDX-License-Identifier: Apache-2.0
"""make deps where things are missing: in an overlay of this system nginx and others are removed, then
make deps brings them back from Debian's archive, and nothing is started."""
import os
import subprocess

import stack
from counting import not_possible

ENTER = r"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
for d in proc sys dev; do mount --rbind /$d "$1/root/$d"; done
mount -t tmpfs tmpfs "$1/root/tmp"
exec chroot "$1/root" bash -e -c '
    export DEBIAN_FRONTEND=noninteractive
    rm -f /usr/sbin/policy-rc.d /run/nginx.pid
    apt-get purge -y -q libjansson-dev "nginx*" >/tmp/purge 2>&1 </dev/null || { cat /tmp/purge; exit 3; }
    cd "$1"
    conf/deps.sh
    echo RESULT $(command -v nginx) $(ls /usr/include/jansson.h)
    if ls /usr/sbin/policy-rc.d; then echo POLICY; fi
    if systemctl is-enabled nginx.service; then echo ENABLED; fi
    if [ -s /run/nginx.pid ]; then echo STARTED; fi
    printf "#!/bin/sh\nexit 101\n" > /usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d
    apt-get purge -y -q libjansson-dev >/tmp/purge 2>&1 </dev/null
    conf/deps.sh
    ls /usr/sbin/policy-rc.d && echo KEPT
    conf/deps.sh
    echo ALL-DONE
' sh "$2"
"""


def test_deps_installs_what_is_missing_and_starts_nothing(tmp_path):
    if os.geteuid():
        not_possible("an overlay of / needs root")
    probe = subprocess.run(["apt-get", "install", "--download-only", "-y", "-qq", "--reinstall",
                            "-o", f"Dir::Cache::archives={tmp_path}", "libjansson-dev"], capture_output=True, text=True)
    if probe.returncode:
        not_possible(f"Debian's archive is not reached: {probe.stderr.strip()[-100:]}")
    (tmp_path / "place").mkdir()
    done = subprocess.run(["unshare", "-m", "bash", "-c", ENTER, "sh", tmp_path / "place", stack.ROOT],
                          capture_output=True, text=True)
    out = done.stdout
    assert done.returncode == 0 and "ALL-DONE" in out, out[-3000:] + done.stderr[-3000:]
    assert "RESULT /usr/sbin/nginx /usr/include/jansson.h" in out, out[-3000:]
    assert not [w for w in ("POLICY", "ENABLED", "STARTED") if w in out], out[-3000:]
    assert "KEPT" in out
