#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# The image without a daemon and without a registry: Debian's archive by mmdebstrap, our package, and,
# where umoci is installed, an OCI layout in OUT/image.   deploy/oci/build.sh DEB OUT
set -euo pipefail
[ $# = 2 ] || { echo "usage: $0 DEB OUT" >&2; exit 64; }
deb=$(realpath "$1") out=$2 here=$(dirname "$(realpath "$0")")
root=$out/root
rm -rf "$out"
mkdir -p "$out"
# $1 below is mmdebstrap's, the root it makes
# shellcheck disable=SC2016
mmdebstrap --quiet --variant=minbase \
    --include=nginx-light,libfcgi0ldbl,libjansson4,libnettle8,libedit2,systemd-standalone-sysusers \
    --customize-hook="cp $deb \$1/microgpt.deb" \
    --customize-hook='chroot $1 dpkg -i /microgpt.deb >/dev/null && rm $1/microgpt.deb' \
    --customize-hook="cp -r $here/../../conf \$1/usr/share/microgpt/conf" \
    --customize-hook="install -D -m 755 $here/start \$1/usr/libexec/microgpt-start" \
    --customize-hook='find $1/usr/share/doc -type f ! -name copyright -delete; rm -rf $1/usr/share/man $1/usr/share/locale' \
    --customize-hook='rm -rf $1/var/lib/apt/lists/* $1/var/cache/apt/* $1/var/log/*' \
    bookworm "$root"
echo "root: $(du -sm "$root" | cut -f1) MB"
command -v umoci >/dev/null || exit 0
umoci init --layout "$out/image"
umoci new --image "$out/image:microgpt"
umoci unpack --image "$out/image:microgpt" "$out/bundle"
rmdir "$out/bundle/rootfs"
mv "$root" "$out/bundle/rootfs"
umoci repack --image "$out/image:microgpt" "$out/bundle" >/dev/null
umoci config --image "$out/image:microgpt" --config.user microgpt --config.entrypoint /usr/libexec/microgpt-start \
    --config.stopsignal SIGTERM --config.exposedports 8080/tcp
umoci gc --layout "$out/image"
mv "$out/bundle/rootfs" "$root"
rm -rf "$out/bundle"
echo "image: $(du -sm "$out/image" | cut -f1) MB compressed"
