# SPDX-License-Identifier: Apache-2.0
"""The Debian package: built, without errors for lintian, then in an overlay of this system with a
network of its own installed, served from through Debian's nginx with its default site, and purged.
tests/run: first"""
import os
import shutil
import subprocess

import pytest

import stack
from counting import not_possible

# In a mount and network namespace: / with everything that is written going to memory.
ENTER = r"""
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
for d in proc sys dev; do mount --rbind /$d "$1/root/$d"; done
mount -t tmpfs tmpfs "$1/root/run"
mount -t tmpfs tmpfs "$1/root/tmp"
cp "$2" "$3" "$1/root/tmp/"
ip link set lo up
exec chroot "$1/root" bash -e /tmp/inside.sh
"""

INSIDE = r"""
cd /tmp
dpkg -i ./*.deb > /tmp/dpkg.log 2>&1 || { cat /tmp/dpkg.log; exit 1; }
id microgpt
test "$(readlink /var/lib/microgpt/models/current)" = /usr/share/microgpt/demo/chat
microgpt check /var/lib/microgpt/models/current
man=$(dpkg -L microgpt-serve | grep -c /usr/share/man/man); test "$man" -ge 3
systemctl is-enabled microgpt-fcgi.service
if systemctl is-enabled microgpt-fcgi.socket; then exit 1; fi

# what the unit would do
mkdir -p /run/microgpt && chown microgpt: /run/microgpt
setpriv --reuid=microgpt --regid=microgpt --groups=www-data \
    /usr/sbin/microgpt-fcgi -c /etc/microgpt/microgpt.conf 2> /tmp/service.log &
service=$!

# an existing nginx with Debian's default site and one line more
site=/etc/nginx/sites-available/default
test -e $site
ln -sf $site /etc/nginx/sites-enabled/default
sed -i '0,/server_name _;/s//server_name _;\n\tinclude snippets\/microgpt.conf;/' $site
grep -q microgpt $site
nginx -t -q
nginx -g 'daemon off;' &
nginx=$!
for i in $(seq 200); do
    curl -fs http://localhost/microgpt/health > /tmp/health && break
    kill -0 $service || { cat /tmp/service.log; exit 1; }
    sleep 0.1
done
test "$(cat /tmp/health)" = Ok
curl -fsS http://localhost/microgpt/v1/chat -H 'Content-Type: application/json' \
    -d '{"messages":[{"role":"user","content":"hello"}]}' | tee /tmp/reply
grep -q '"role":"assistant"' /tmp/reply
curl -fsS http://localhost/ | grep -qi '<html'
stat -c 'socket %a %U %G' /run/microgpt/fcgi.sock
kill -TERM $service && wait $service
kill -QUIT $nginx && wait $nginx

# an operator's model and what a purge leaves
mkdir /var/lib/microgpt/models/mine
dpkg -r microgpt-serve >> /tmp/dpkg.log 2>&1
test -e /etc/microgpt/microgpt.conf
test ! -e /usr/sbin/microgpt-fcgi
sed -i '/microgpt/d' $site
nginx -t -q  # conf.d/microgpt.conf, which stays until the purge, is whole without the package
dpkg -P microgpt-serve >> /tmp/dpkg.log 2>&1
nginx -t -q
find /etc /usr /lib /var -xdev -name '*microgpt*' -not -path '/var/lib/microgpt*' \
    -not -path '*/deb-systemd*' | tee /tmp/left
test ! -s /tmp/left
test -d /var/lib/microgpt/models/mine
test ! -L /var/lib/microgpt/models/current
echo ALL-DONE
"""


@pytest.fixture(scope="module")
def package():
    for tool in ("dpkg-buildpackage", "dh", "lintian"):
        if not shutil.which(tool):
            not_possible(f"{tool} is not installed", 2)
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    env["DEB_BUILD_OPTIONS"] = "parallel=2 noautodbgsym"
    build = os.path.relpath(stack.BUILD, stack.ROOT)
    done = subprocess.run(["make", "-s", "--no-print-directory", "deb", f"B={build}"], cwd=stack.ROOT, env=env,
                          capture_output=True, text=True)
    return done, stack.BUILD / "deb"


@pytest.mark.limit(400)
def test_it_builds_and_lintian_finds_no_error(package):
    done, directory = package
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert not [x for x in (done.stdout + done.stderr).splitlines() if x.startswith("E: ")]
    assert len(list(directory.glob("microgpt-serve_*.deb"))) == 1


def test_install_serve_purge(package, tmp_path):
    if os.geteuid():
        not_possible("an overlay of / needs root")
    if not os.path.exists("/etc/nginx/sites-available/default"):
        not_possible("Debian's nginx with its default site is not installed")
    probe = subprocess.run(["unshare", "-mn", "bash", "-c", f"mount -t tmpfs t {tmp_path} && mkdir {tmp_path}/u {tmp_path}/w "
                            f"{tmp_path}/r && mount -t overlay o -o lowerdir=/,upperdir={tmp_path}/u,workdir={tmp_path}/w "
                            f"{tmp_path}/r"], capture_output=True, text=True)
    if probe.returncode:
        not_possible(f"no overlay of /: {probe.stderr.strip()}")
    (tmp_path / "place").mkdir()
    (tmp_path / "inside.sh").write_text(INSIDE)
    deb = next(package[1].glob("microgpt-serve_*.deb"))
    done = subprocess.run(["unshare", "-mnpf", "--kill-child", "bash", "-c", ENTER, "sh", tmp_path / "place", deb, tmp_path / "inside.sh"],
                          capture_output=True, text=True)
    assert done.returncode == 0 and "ALL-DONE" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    assert "socket 660 microgpt www-data" in done.stdout, done.stdout
