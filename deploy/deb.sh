#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make deb: the Debian source and binary package, built in $B/deb from deploy/debian, and lintian's
# opinion of them. VERSION=0.9 builds another version of the same (the test of an upgrade).
set -euo pipefail
: "${B:=build}"
cd "$(dirname "$0")/.."
units=systemd # systemd.pc, which from Debian 13 on is in a package of its own
apt-cache show systemd-dev >/dev/null 2>&1 && units=systemd-dev
conf/deps.sh build-essential debhelper dpkg-dev 'pkgconf|pkg-config' "$units" libfcgi-dev libjansson-dev nettle-dev \
    'libblis-pthread-dev|libblis-serial-dev' libedit-dev
version=$(sed -n 's/^#define MG_VERSION "\(.*\)"/\1/p' core/microgpt.h)
out=$B/deb tree=$B/deb/microgpt-serve-$version
rm -rf "$out"
mkdir -p "$tree"
# not $B itself, whatever it is called, nor what lies beside the sources in a working tree
tar -c --exclude=./build --exclude="./$B" --exclude=./.git . | tar -x -C "$tree"
cp -r deploy/debian "$tree/debian"
[ -z "${VERSION:-}" ] || sed -i "1s/([^)]*)/($VERSION)/" "$tree/debian/changelog"
(cd "$tree" && env -u B -u PREFIX -u DESTDIR -u SYSCONFDIR -u MAKEFLAGS -u MAKELEVEL \
    -u MODEL_DIR -u PORT -u VERSION DEB_BUILD_OPTIONS="${DEB_BUILD_OPTIONS:-parallel=$(nproc)}" dpkg-buildpackage -F -us -uc) > "$out/build.log" 2>&1 || {
    tail -n 40 "$out/build.log" >&2
    echo "deb: failed, all of it in $out/build.log" >&2
    exit 1
}
if command -v lintian >/dev/null; then
    lintian --allow-root --fail-on error "$out"/*.changes
else
    echo "lintian is not installed: not checked"
fi
ls "$out"/*.deb
