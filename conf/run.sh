#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# make run: the service with two workers and nginx in front, in the foreground, until Ctrl-C.
# Everything it writes lies in one temporary directory. Environment: B, PORT, MODEL_DIR, WORKERS.
set -u
port=${PORT:-8080} model=${MODEL_DIR:-deploy/demo/chat} workers=${WORKERS:-2}
build=${B:-build} here=$(dirname "$0")
service=$build/microgpt-fcgi
nginx=$(command -v nginx || echo /usr/sbin/nginx)
url=http://127.0.0.1:$port

die() { echo "run: $2" >&2; exit "$1"; }

if ! [[ $port =~ ^[0-9]{1,5}$ ]] || ((10#$port < 1 || 10#$port > 65535)); then
    die 64 "PORT=$port is no port number"
fi
[ -x "$service" ] || die 71 "$service is not built: make all"
[ -x "$nginx" ] || die 71 "nginx is not installed: make deps"
[ -d "$model" ] || die 66 "MODEL_DIR=$model: no such folder; it should hold weights.safetensors and meta.json"
if (: </dev/tcp/127.0.0.1/"$port") 2>/dev/null; then
    die 69 "port $port is taken (PORT=$port); try  PORT=$((port < 65535 ? port + 1 : 8080)) make run"
fi

dir=$(mktemp -d "${TMPDIR:-/tmp}/microgpt.XXXXXX") || exit 71
chmod 711 "$dir"    # nginx's workers pass through it
service_pid='' nginx_pid=''

# Each child is in a session of its own, so that Ctrl-C reaches this script only, and ends with it.
start() { setsid setpriv --pdeathsig TERM -- "$@" & }
stop() {
    trap 'kill -TERM $nginx_pid $service_pid 2>/dev/null' INT TERM  # a second one: at once
    [ -z "$nginx_pid" ] || kill -QUIT "$nginx_pid" 2>/dev/null
    [ -z "$service_pid" ] || kill -TERM "$service_pid" 2>/dev/null
    # shellcheck disable=SC2086
    while [ "$(jobs -rp)" ]; do wait $nginx_pid $service_pid; done 2>/dev/null
    rm -rf "$dir"
}
finish() { # code, text
    trap '' INT TERM
    stop
    [ -z "${2:-}" ] || echo "run: $2"
    exit "$1"
}
trap 'echo; finish 0 stopped' INT TERM HUP

# nginx's workers drop to www-data when root starts it; then the socket is for that group
user=()
if [ "$(id -u)" = 0 ]; then
    user=(-g 'user www-data;')
    export MICROGPT_SOCKET_GROUP=www-data
fi
"$here/prefix.sh" "$dir" "$port" "$dir/fcgi.sock" || finish 71 "cannot write to $dir"

export MICROGPT_LOG_LEVEL="${MICROGPT_LOG_LEVEL:-warn}"
start "$service" -s "unix:$dir/fcgi.sock" -m "$model" -n "$workers"
service_pid=$!
while [ ! -S "$dir/fcgi.sock" ]; do
    if ! kill -0 "$service_pid" 2>/dev/null; then
        wait "$service_pid"
        finish $? "the service did not start: see the line above"
    fi
    sleep 0.05
done

start "$nginx" -p "$dir" -c nginx.conf -e stderr "${user[@]}"
nginx_pid=$!
until curl -fsS -m 5 -o /dev/null "$url/health" 2>/dev/null; do
    for pid in $service_pid $nginx_pid; do
        kill -0 "$pid" 2>/dev/null && continue
        wait "$pid"; code=$?
        what="the service"; [ "$pid" = "$nginx_pid" ] && what=nginx
        finish $((code ? code : 71)) "$what ended while starting: see the lines above"
    done
    sleep 0.05
done

# What to try, and the real answers.
try() { # path, body
    local run="curl -s $url$1 -H 'Content-Type: application/json' -d '$2'"
    printf '\n  %s\n' "$run"
    printf '  %s\n' "$(eval "$run -m 40")"
}
echo
echo "microgpt serves $model with $workers workers on $url. Try:"
if grep -qE '"special_tokens"[[:space:]]*:[[:space:]]*\[' "$model/meta.json" 2>/dev/null; then
    try /microgpt/v1/chat '{"messages":[{"role":"user","content":"hello"}]}'
else
    try /microgpt/v1/generate '{"num_samples":5,"seed":1}'
fi
try /microgpt/v1/generate '{"num_samples":2}'
printf '\nRequests are logged in %s;\n' "$dir/logs/access.json"
echo 'MICROGPT_LOG_LEVEL=info make run shows those of the workers here. Ctrl-C stops.'

wait -n "$service_pid" "$nginx_pid"
code=$?
finish $((code ? code : 71)) "the service or nginx ended: see the lines above"
