# SPDX-License-Identifier: Apache-2.0
"""The snippets in an existing host: Debian's own nginx.conf with a site that has its own /, /health
and error pages. What is the host's stays as it was; what lies under /microgpt/ is ours. And who
counts as one client: IPv4 by address, IPv6 by /64, real_ip."""
import os
import re
import shutil
import socket
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import lib
import stack
from counting import not_possible

CHAT_MODEL = dict(n_embd=32, n_head=4, n_layer=2, block_size=64, seed=3)
NAMES_MODEL = dict(n_embd=16, n_head=4, n_layer=1, block_size=16, chars=stack.models.LETTERS,
                   chat=False, seed=5)
STOCK = Path("/etc/nginx/nginx.conf")
SNIPPETS = ["snippets/microgpt.conf", "snippets/microgpt-common.conf", "snippets/microgpt-limits.conf",
            "snippets/microgpt-api.conf", "snippets/microgpt-headers.conf", "snippets/microgpt-cache.conf", "conf.d/microgpt-pool.conf"]
EXAMPLES = stack.ROOT / "deploy/examples"

# A site with a character of its own: everything that could leak into our locations or suffer from them
SITE = """
real_ip_header X-Forwarded-For;
real_ip_recursive on;
server {
    listen 127.0.0.1:PORT;
    server_name site.example;
    root ROOT;
    set_real_ip_from 127.0.0.1;
    add_header X-Site yes always;
    charset utf-8;
    fastcgi_intercept_errors on;
    recursive_error_pages on;
    client_max_body_size 1k;
    error_page 400 404 413 429 500 502 503 504 /errors.html;
    location = /health { default_type text/plain; return 200 "the site's own health\\n"; }
    location = /private { deny all; }
    location ~ \\.php$ { return 200 "the site's php\\n"; }
    # HERE
}
"""


class Host:
    """Debian's nginx.conf with a site, in a prefix of the test's."""

    def __init__(self, address, site=SITE, limits=stack.NO_LIMITS, ours=True, more="", http=""):
        self.prefix = stack.temporary()
        self.address, self.site, self.limits, self.ours = address, site, limits, ours
        self.more, self.http = more, http

    def render(self):
        p = self.prefix
        for d in ("conf.d", "snippets", "sites-enabled", "www", "log", "lib", "modules-enabled"):
            (p / d).mkdir(exist_ok=True)
        (p / "www/index.html").write_text("<h1>the site</h1>\n")
        (p / "www/errors.html").write_text("<h1>the site's error page</h1>\n")
        shutil.copy("/etc/nginx/mime.types", p)
        text = STOCK.read_text()
        text = re.sub(r"^user .*", "user root;" if os.geteuid() == 0 else "", text, flags=re.M)
        text = text.replace("/etc/nginx/", f"{p}/").replace("/var/log/nginx", f"{p}/log")
        text = re.sub(r"^pid .*", f"pid {p}/pid;", text, flags=re.M)
        temp = "".join(f"{k}_temp_path {p}/lib/{k};\n"
                       for k in ("client_body", "fastcgi", "proxy", "uwsgi", "scgi"))
        (p / "conf.d/test.conf").write_text(temp + self.http)
        (p / "nginx.conf").write_text(text)
        site = self.site.replace("PORT", str(self.port)).replace("ROOT", f"{p}/www")
        if self.ours:
            conf = (stack.ROOT / "conf/conf.d/microgpt.conf").read_text()
            (p / "conf.d/microgpt.conf").write_text(
                conf.replace("unix:/run/microgpt/fcgi.sock", self.address))
            for name in SNIPPETS:
                shutil.copy(stack.ROOT / "conf" / name, p / name)
            if self.limits is not None:
                (p / SNIPPETS[2]).write_text(self.limits)
            site = site.replace("# HERE", "include snippets/microgpt[.]conf;" + self.more)
        (p / "sites-enabled/site").write_text(site)

    def command(self, *more):
        return [stack.NGINX, "-p", f"{self.prefix}/", "-c", f"{self.prefix}/nginx.conf", *more]

    def __enter__(self):
        for _ in range(5):
            self.port = stack.free_port()
            self.render()
            with open(self.prefix / "log/stderr", "wb") as log:
                self.process = subprocess.Popen(
                    self.command("-e", f"{self.prefix}/log/start", "-g", "daemon off;"),
                    stdout=log, stderr=log)
            if self.wait_ready():
                return self
        raise AssertionError(self.log())

    def wait_ready(self):
        def up():
            """nginx listens, or has ended"""
            if self.process.poll() is not None:
                return "ended"
            try:
                socket.create_connection(("127.0.0.1", self.port), 5).close()
                return "up"
            except OSError:
                return None
        if lib.eventually(up, 20) == "up":
            return True
        assert "Address already in use" in self.log(), self.log()
        return False

    def log(self):
        return "".join(f.read_text(errors="replace") for f in sorted((self.prefix / "log").iterdir()))

    def __exit__(self, kind, *_):
        self.process.terminate()
        self.process.wait(timeout=20)
        if kind is None:
            shutil.rmtree(self.prefix, ignore_errors=True)
        else:
            print(self.log()[-3000:])


def get(host, path, **more):
    return lib.get(host.port, path, **more)


def shape(reply):
    """What a visitor sees, without what differs from request to request."""
    return reply.status, sorted((k, v) for k, v in reply.headers if k not in ("Date", "ETag", "Last-Modified")), reply.body


@pytest.fixture(scope="module")
def service():
    if not STOCK.exists():
        not_possible("no /etc/nginx/nginx.conf of Debian", 13)
    with stack.Service(stack.model(**CHAT_MODEL)) as s:
        yield s


@pytest.fixture(scope="module")
def host(service):
    with Host(service.address) as h:
        yield h


def test_every_shipped_file_passes_nginx_t(tmp_path):
    subprocess.run([stack.ROOT / "conf/prefix.sh", tmp_path, "8080", "/run/microgpt/fcgi.sock"], check=True)
    done = subprocess.run([stack.NGINX, "-t", "-p", tmp_path, "-c", "nginx.conf", "-e", "stderr"],
                          capture_output=True, text=True)
    lines = [x for x in done.stderr.splitlines() if "is ok" not in x and "is successful" not in x]
    assert done.returncode == 0 and not lines, done.stderr
    for f in (stack.ROOT / "conf").rglob("*.conf"):
        assert f.name == "microgpt.conf" or (tmp_path / f.relative_to(stack.ROOT / "conf")).exists(), f


def test_what_is_the_hosts_stays_as_it_was(service, host):
    wanted = [("GET", "/"), ("HEAD", "/"), ("GET", "/health"), ("GET", "/nope"), ("GET", "/private"),
              ("POST", "/"), ("GET", "/metrics"), ("GET", "/status"), ("GET", "/x.php"),
              ("GET", "/microgptx"), ("GET", "/a" * 9000)]
    with Host(service.address, ours=False) as before:
        for method, path in wanted:
            a, b = (shape(lib.ask(h.port, method, path)) for h in (before, host))
            assert a == b, (method, path[:20])
        big = [shape(lib.ask(h.port, "POST", "/upload", b"x" * 2000)) for h in (before, host)]
        assert big[0] == big[1] and big[0][0] == 413
        bad = []
        for h in (before, host):
            with lib.Connection(h.port) as c:
                c.send(b"GET / HTTP/1.1\r\nHo st: x\r\n\r\n")
                reply = c.head()
                reply.body = c.body(reply)
                bad.append(shape(reply))
        assert bad[0] == bad[1] and bad[0][0] == 400
    assert get(host, "/health").body == b"the site's own health\n"
    assert get(host, "/nope").body == b"<h1>the site's error page</h1>\n"


def test_the_api_is_there(host):
    reply = lib.chat(host.port, "Hi", headers=[("Host", "site.example")])
    assert reply.status == 200 and reply.json()["role"] == "assistant", reply
    assert len(reply.get("X-Request-Id")) == 32
    assert reply.get("Cache-Control") == "no-store"
    assert lib.generate(host.port).status == 200
    assert get(host, "/microgpt/health").body == b"Ok"
    events = lib.stream(host.port, lib.CHAT, lib.says("Hi"))
    assert lib.joined_chat(events)[0] == reply.json()


def test_our_errors_are_ours(host):
    """Not the site's pages, though it intercepts errors and limits bodies to 1k."""
    assert get(host, "/microgpt/nope").status == 404
    assert "/microgpt/nope" not in get(host, "/microgpt/nope").error()
    reply = get(host, lib.CHAT)
    assert reply.status == 405 and reply.get("Allow") == "POST", reply
    reply.error()
    assert lib.chat(host.port, b"{").status == 400
    lib.chat(host.port, b"{").error()
    assert lib.chat(host.port, b"x" * 100000).status == 400
    reply = lib.chat(host.port, b"x" * (4 * 1024 * 1024 + 1))
    assert reply.status == 413 and "4 MiB" in reply.error()
    assert len(reply.get("X-Request-Id")) == 32
    for path in ("/microgpt/_error/429", "/microgpt/_error/", "/microgpt/x.php"):
        assert get(host, path).status == 404, path
        get(host, path).error()


def test_metrics_and_status_are_for_this_host_only(host):
    for path in ("/microgpt/metrics", "/microgpt/status"):
        assert get(host, path).status == 200, path
        reply = get(host, path, headers=[("X-Forwarded-For", "203.0.113.7")])
        assert reply.status == 403, reply
        reply.error()
    assert get(host, "/microgpt/health", headers=[("X-Forwarded-For", "203.0.113.7")]).status == 200
    assert get(host, "/microgpt//status", headers=[("X-Forwarded-For", "203.0.113.7")]).status == 403
    assert get(host, "/microgpt/%73tatus", headers=[("X-Forwarded-For", "203.0.113.7")]).status == 403


def test_workers_gone_is_a_json_502():
    with Host(f"unix:{stack.temporary()}/none") as h:
        reply = lib.chat(h.port, "Hi")
        assert reply.status == 502 and reply.get("Retry-After") == "2", reply
        reply.error()
        assert get(h, "/health").status == 200


@pytest.mark.parametrize("name, address, passed", [
    ("IPv4 addresses", lambda i: f"198.51.100.{i}", 20),
    ("one IPv4 address", lambda i: "198.51.100.200", 11),
    ("one /64", lambda i: f"2001:db8:1:2:{i + 1:x}::5", 11),
    ("one /64, compressed", lambda i: f"2001:db8::{i + 1:x}", 11),
    ("twenty /64", lambda i: f"2001:db8:7:{i + 1:x}:1:2:3:4", 20),
    ("one IPv4 address in IPv6", lambda i: "::ffff:203.0.113.9", 11),
    ("an address behind others that the client made up", lambda i: f"9.9.9.{i}, 203.0.113.77", 11),
])
def test_who_counts_as_one_client(service, name, address, passed):
    """20 requests at once over the shipped limits; the client is named by the trusted proxy
    127.0.0.1. A rested client may send 11 at once, and one more for each 0.2 s that it takes."""
    with Host(service.address, limits=None) as h:
        lib.get(h.port, "/microgpt/health")
        ready = [lib.Connection(h.port) for _ in range(20)]
        for i, c in enumerate(ready):
            c.send(lib.request_bytes("POST", lib.GENERATE, {"max_tokens": 1},
                                     [("X-Forwarded-For", address(i))]))
        got = []
        for c in ready:
            got.append(c.head())
            got[-1].body = c.body(got[-1])
            c.close()
        count = Counter(r.status for r in got)
        assert set(count) <= {200, 429} and count[200] + count[429] == 20, count
        assert count[200] in ((20,) if passed == 20 else range(11, 14)), (name, count)
        for r in got:
            if r.status == 429:
                assert r.get("Retry-After") == "1" and "5 requests a second" in r.error()


def test_a_second_model_by_the_example(service):
    """The files of examples/second-model, the socket's address aside."""
    location = (EXAMPLES / "second-model/names.server.conf").read_text()
    with stack.Service(stack.model(**NAMES_MODEL), workers=1) as names:
        upstream = (EXAMPLES / "second-model/names.http.conf").read_text().replace(
            "unix:/run/microgpt-names/fcgi.sock", names.address)
        with Host(service.address, more=location, http=upstream) as h:
            ask = lambda path, body={}: lib.ask(h.port, "POST", path, body)
            assert ask("/names/v1/generate").status == 200
            assert ask("/names/v1/chat", lib.says("hi")).status == 400
            assert "chat" in ask("/names/v1/chat", lib.says("hi")).error()
            assert lib.chat(h.port, "Hi").status == 200
            ten = {"num_samples": 10}
            assert ask("/names/v1/generate", ten).body != lib.generate(h.port, ten).body
            assert get(h, "/names/health").body == b"Ok"
            assert get(h, "/names/status").json()["workers"]["ready"] == 1
            assert b"microgpt_model_info" in get(h, "/names/metrics").body
            assert get(h, "/names/metrics", headers=[("X-Forwarded-For", "203.0.113.7")]).status == 403
            for path in ("/names", "/names/", "/names/nope", "/names/v1"):
                assert get(h, path).status == 404, path
                get(h, path).error()
