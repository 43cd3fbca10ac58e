#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Lay out a prefix for nginx -p DIR -c nginx.conf: the shipped configuration with another port and
# another socket (/path or host:port), and nothing else changed. Used by make run and by the tests.
set -eu
[ $# = 3 ] || { echo "usage: $0 DIR PORT SOCKET" >&2; exit 64; }
dir=$1 port=$2 socket=$3
case $socket in /*) socket=unix:$socket ;; esac
from=$(dirname "$0")
mkdir -p "$dir/conf.d" "$dir/snippets" "$dir/logs" "$dir/tmp"
for f in nginx.conf conf.d/microgpt.conf conf.d/microgpt-pool.conf snippets/microgpt.conf snippets/microgpt-common.conf \
         snippets/microgpt-limits.conf snippets/microgpt-api.conf snippets/microgpt-headers.conf snippets/microgpt-cache.conf; do
    sed -e "s|127\.0\.0\.1:8080|127.0.0.1:$port|" -e "s|unix:/run/microgpt/fcgi\.sock|$socket|" \
        "$from/$f" > "$dir/$f"
done
