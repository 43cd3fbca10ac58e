#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make install and make uninstall, from one list. Environment: B, DESTDIR, PREFIX, SYSCONFDIR.
# Configuration that is there already is kept (the new one goes beside it as .new), and uninstall
# leaves configuration and models alone.
set -euo pipefail
mode=$1
: "${B:=build}" "${DESTDIR:=}" "${PREFIX:=/usr/local}" "${SYSCONFDIR:=/etc}"
lib=$PREFIX/lib
# in /usr the units lie where systemd says (/lib on Debian 12, /usr/lib on 13)
units=$lib/systemd/system
[ "$PREFIX" != /usr ] || units=${UNITS:-$(pkg-config --variable=systemdsystemunitdir systemd 2>/dev/null || echo /lib/systemd/system)}
share=$PREFIX/share
cd "$(dirname "$0")/.."
made=()     # directories that may be ours alone

# put MODE SOURCE TARGET: one file that comes and goes with the installation
put() {
    if [ "$mode" = install ]; then
        install -D -m "$1" "$2" "$DESTDIR$3"
    else
        rm -f "$DESTDIR$3"
        made+=("$(dirname "$3")")
    fi
}
# as put, with the paths of this installation in the text
put_text() {
    local text=
    if [ "$mode" = install ]; then
        text=$(mktemp)
        sed -e "s|/usr/sbin/microgpt-fcgi|$PREFIX/sbin/microgpt-fcgi|g" \
            -e "s|/usr/share/microgpt|$share/microgpt|g" \
            -e "s|/etc/microgpt|$SYSCONFDIR/microgpt|g" "$2" > "$text"
    fi
    put "$1" "$text" "$3"
    rm -f "$text"
}
# configuration: never overwritten, never removed
put_conf() { # SOURCE TARGET
    local at=$DESTDIR$2
    [ "$mode" = install ] || return 0
    [ ! -e "$at" ] || cmp -s "$1" "$at" || {
        echo "kept $2; the new one is $2.new"
        at=$at.new
    }
    install -D -m 644 "$1" "$at"
}

put 755 "$B/microgpt-fcgi" "$PREFIX/sbin/microgpt-fcgi"
put 755 "$B/microgpt" "$PREFIX/bin/microgpt"

put_conf conf/microgpt.conf "$SYSCONFDIR/microgpt/microgpt.conf"
put_conf conf/conf.d/microgpt.conf "$SYSCONFDIR/nginx/conf.d/microgpt.conf"
put_conf conf/conf.d/microgpt-pool.conf "$SYSCONFDIR/nginx/conf.d/microgpt-pool.conf"
for f in microgpt microgpt-common microgpt-limits microgpt-api microgpt-headers microgpt-cache; do
    put_conf conf/snippets/$f.conf "$SYSCONFDIR/nginx/snippets/$f.conf"
done
put_conf deploy/logrotate/microgpt "$SYSCONFDIR/logrotate.d/microgpt"

for f in microgpt-fcgi.service microgpt-fcgi.socket microgpt-fcgi@.service \
         microgpt-worker@.service microgpt-worker.socket \
         microgpt-.service.d/10-hardening.conf; do
    put_text 644 "deploy/systemd/$f" "$units/$f"
done
put_text 644 deploy/sysusers.d/microgpt.conf "$lib/sysusers.d/microgpt.conf"
put_text 644 deploy/tmpfiles.d/microgpt.conf "$lib/tmpfiles.d/microgpt.conf"

for model in chat names; do
    for f in weights.safetensors meta.json; do
        put 644 deploy/demo/$model/$f "$share/microgpt/demo/$model/$f"
    done
done
doc=$share/doc/microgpt-serve
while read -r f; do
    mode_of=644; [ ! -x "deploy/examples/$f" ] || mode_of=755
    put_text $mode_of "deploy/examples/$f" "$doc/examples/$f"
done < <(cd deploy/examples && find . -type f -printf '%P\n' | sort)
put 644 deploy/grafana/dashboard.json "$doc/examples/grafana-dashboard.json"
put 644 NOTICE "$doc/NOTICE"
[ ! -e README.md ] || put 644 README.md "$doc/README.md"

for page in microgpt.1 microgpt.conf.5 microgpt-checkpoint.5 microgpt-api.7 microgpt-fcgi.8; do
    put_text 644 "deploy/man/$page" "$share/man/man${page##*.}/$page"
done
for program in microgpt microgpt-fcgi; do
    put 644 deploy/completion/$program "$share/bash-completion/completions/$program"
done

if [ "$mode" = uninstall ] && [ -z "$DESTDIR" ] && [ -d /run/systemd/system ]; then
    for unit in $(systemctl list-units --all --plain --no-legend 'microgpt-*' | awk '{print $1}'); do
        systemctl disable --now "$unit" 2>/dev/null || true
    done
    rm -f "$SYSCONFDIR"/systemd/system/*.wants/microgpt-*
    systemctl daemon-reload
fi
if [ "$mode" = uninstall ]; then
    # what is empty now and not a directory of the system goes too, from the bottom up
    for d in "${made[@]}"; do
        while [[ $d == *microgpt* ]] && rmdir "$DESTDIR$d" 2>/dev/null; do d=$(dirname "$d"); done
    done
    echo "left: $SYSCONFDIR/microgpt, $SYSCONFDIR/nginx/{conf.d,snippets}/microgpt*, /var/lib/microgpt"
elif [ -z "$DESTDIR" ]; then
    cat <<TEXT
installed. Next, as root:
  systemd-sysusers && systemd-tmpfiles --create && systemctl daemon-reload
  systemctl enable microgpt-fcgi && systemctl restart microgpt-fcgi
  in a server { } of nginx:   include snippets/microgpt[.]conf;
  then:   nginx -t && systemctl reload nginx && curl http://localhost/microgpt/health
TEXT
fi
