#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Install what is missing to build, run and test, from Debian's archive: as root or by sudo, asks
# nothing, starts no service. "a|b" means any one of them; the first is installed if none is there.
# Another list may be given as arguments.
set -eu
[ $# -gt 0 ] || set -- gcc make libc6-dev libfcgi-dev libjansson-dev nettle-dev \
    'libblis-pthread-dev|libblis-openmp-dev|libblis-serial-dev' libedit-dev libcmocka-dev \
    'nginx-light|nginx|nginx-full|nginx-extras' python3 python3-pytest curl spawn-fcgi mandoc

command -v dpkg-query >/dev/null || {
    echo "deps: not a Debian system; needed: $*" >&2
    exit 0
}
is_installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=
for group; do
    found=
    for package in $(echo "$group" | tr '|' ' '); do
        if is_installed "$package"; then found=1; break; fi
    done
    [ "$found" ] || missing="$missing ${group%%|*}"
done
[ "$missing" ] || exit 0
echo "deps: installing$missing"

sudo=
if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
        sudo=sudo
    else
        echo "deps: not root and no sudo; as root:  apt-get install$missing" >&2
        exit 1
    fi
fi
as_root() { $sudo env DEBIAN_FRONTEND=noninteractive "$@"; }

# Debian's nginx would open port 80: a policy for invoke-rc.d while we install, and no start at boot.
# A policy that is there already is the host's own and stays.
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ] && [ ! -L $policy ]; then
    trap '$sudo rm -f $policy' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
    $sudo chmod 755 $policy
fi
had_nginx=$(command -v nginx || ls /usr/sbin/nginx 2>/dev/null || true)

install() {
    # shellcheck disable=SC2086
    as_root apt-get install -y -q --no-install-recommends $missing </dev/null
}
# package lists may be empty (a fresh image) or old: then update and try again
install || { as_root apt-get update -q </dev/null && install; }

if [ ! "$had_nginx" ] && [ -x /usr/sbin/nginx ] && command -v systemctl >/dev/null; then
    $sudo systemctl disable nginx.service >/dev/null 2>&1 || true
    echo "deps: nginx.service is installed, not started and not enabled"
fi
