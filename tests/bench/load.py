#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""Load through real nginx, for figures: tokens a second and the time between tokens of 1, 4, 16 and 64
streams, and requests a second of small `generate` requests.

    tests/bench/load.py [--build build] [--seconds 4] [--json FILE]

Streams are read by one process with an event loop, so that the client takes little of the machine; the
time of a token is when its event was read. nginx, workers and client share the cores.
"""
import argparse
import json
import os
import selectors
import socket
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.dont_write_bytecode = True
sys.path.insert(0, str(ROOT / "tests/http"))

import lib  # noqa: E402
import stack  # noqa: E402

DEMO_CHAT, DEMO_NAMES = ROOT / "deploy/demo/chat", ROOT / "deploy/demo/names"
LARGE = dict(n_embd=256, n_head=8, n_layer=8, block_size=512, endless=True, seed=1)


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


class Client:
    """One stream after the other, as events of a selector."""

    def __init__(self, port, body, selector):
        self.port, self.body, self.selector = port, body, selector
        self.seed, self.gaps, self.firsts, self.tokens, self.failed = 0, [], [], 0, 0
        self.sock = None

    def begin(self):
        self.sock = socket.create_connection(("127.0.0.1", self.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        body = {**self.body, "seed": id(self) % 1000003 + self.seed, "stream": True}
        self.seed += 1
        self.started = time.monotonic()
        self.sock.sendall(lib.request_bytes("POST", lib.CHAT, body, [("Connection", "close")]))
        self.last, self.tail, self.head = None, b"", b""
        self.selector.register(self.sock, selectors.EVENT_READ, self)

    def end(self):
        self.selector.unregister(self.sock)
        self.sock.close()

    def ready(self):
        data = self.sock.recv(65536)
        now = time.monotonic()
        if not data:
            self.failed += b"[DONE]" not in self.tail
            self.end()
            self.begin()
            return
        self.tail = (self.tail + data)[-64:]
        n = data.count(b'{"content":"') - data.count(b'"finish_reason"')
        if n <= 0:
            return
        if self.last is None:
            self.firsts.append(now - self.started)
            n -= 1
            self.tokens += 1
        else:
            self.gaps.append((now - self.last) / n)
        self.tokens += n
        self.last = now


def streams(name, model_dir, body, count, seconds, workers):
    with stack.Stack(model_dir, program=stack.FAST, workers=workers) as s:
        selector = selectors.DefaultSelector()
        clients = [Client(s.port, body, selector) for _ in range(count)]
        for client in clients:
            client.begin()
        start = time.monotonic()
        while time.monotonic() - start < seconds:
            for key, _ in selector.select(0.5):
                key.data.ready()
        elapsed = time.monotonic() - start
        for client in clients:
            client.end()
        time_to_first = [t for c in clients for t in c.firsts]
        gaps = [t for c in clients for t in c.gaps]
        row = {"model": name, "streams": count, "workers": workers,
               "tokens_per_second": round(sum(c.tokens for c in clients) / elapsed),
               "gap_p50_ms": round(quantile(gaps, .5) * 1e3, 3), "gap_p99_ms": round(quantile(gaps, .99) * 1e3, 3),
               "first_p50_ms": round(quantile(time_to_first, .5) * 1e3, 2),
               "first_p99_ms": round(quantile(time_to_first, .99) * 1e3, 2),
               "replies": len(time_to_first), "failed": sum(c.failed for c in clients)}
    print("{model:22} {streams:3} streams {workers} workers {tokens_per_second:8} tok/s   between tokens p50 "
          "{gap_p50_ms:7.3f} p99 {gap_p99_ms:7.3f} ms   first p50 {first_p50_ms:7.2f} p99 {first_p99_ms:7.2f} ms"
          "   failed {failed}".format(**row), flush=True)
    return row


def requests(name, model_dir, body, connections, seconds, workers):
    """wrk, where it is installed."""
    script = stack.temporary() / "post.lua"
    script.write_text(f"wrk.method='POST'\nwrk.headers['Content-Type']='application/json'\nwrk.body='{json.dumps(body)}'\n")
    with stack.Stack(model_dir, program=stack.FAST, workers=workers) as s:
        out = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script),
                              f"http://127.0.0.1:{s.port}{lib.GENERATE}"], capture_output=True, text=True).stdout
    shutil.rmtree(script.parent)
    field = lambda word: next((line.split()[-1] for line in out.splitlines() if line.strip().startswith(word)), "?")
    row = {"model": name, "body": body, "connections": connections, "workers": workers,
           "requests_per_second": field("Requests/sec"), "p50": field("50%"), "p99": field("99%"),
           "errors": "Non-2xx" in out or "Socket errors" in out}
    print("{model:22} generate {body} {connections:3} connections {workers} workers {requests_per_second:>10} r/s"
          "   p50 {p50:>8} p99 {p99:>8}   errors {errors}".format(**row), flush=True)
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json")
    options = parser.parse_args()
    rows = []
    talk = lib.says("hello, what can you do?", temperature=0.5)
    models = [("demo chat", DEMO_CHAT, talk)] if DEMO_CHAT.exists() else []
    models.append(("random 256/8/8/512", stack.model(**LARGE), {**talk, "temperature": 0.5}))
    for name, directory, body in models:
        for count in (1, 4, 16, 64):
            rows.append(streams(name, directory, body, count, options.seconds, options.workers))
    if shutil.which("wrk") and DEMO_NAMES.exists():
        for body in ({}, {"num_samples": 50}):
            for connections in (1, 8, 64):
                rows.append(requests("demo names", DEMO_NAMES, body, connections, options.seconds, options.workers))
    else:
        print("1 not possible here: wrk is not installed, requests a second are not measured")
    if options.json:
        Path(options.json).write_text(json.dumps(rows, indent=1))
    return 1 if any(row.get("failed") or row.get("errors") for row in rows) else 0


if __name__ == "__main__":
    os.chdir(ROOT)
    sys.exit(main())
