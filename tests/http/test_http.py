# SPDX-License-Identifier: Apache-2.0
"""Routes, methods, Accept, Content-Type, headers, and nginx's own errors: the HTTP side of microgpt-api(7)."""
import re
import socket
import threading

import pytest

import lib
import stack
from lib import CHAT, GENERATE, ask, chat, generate, get, says


def raw(port, data):
    """The reply to these bytes, whatever they are."""
    with lib.Connection(port) as c:
        c.send(data)
        reply = c.head()
        reply.body = c.body(reply)
        return reply


@pytest.mark.parametrize("path", ["/health", "/microgpt/health", "/health?x=1"])
def test_health(chat_stack, path):
    reply = get(chat_stack.port, path)
    assert (reply.status, reply.body) == (200, b"Ok")
    assert reply.get("Content-Type") == "text/plain"
    assert re.fullmatch("[0-9a-f]{32}", reply.get("X-Request-Id"))
    head = ask(chat_stack.port, "HEAD", path)
    assert (head.status, head.body) == (200, b"")
    assert head.get("Content-Type") == "text/plain"


@pytest.mark.parametrize("path", ["/", "/microgpt", "/microgpt/", "/microgpt/v1/", "/microgpt/v1/chat/",
                                  "/microgpt/v1/generates", "/microgpt/v2/chat", "/Health", "/health/",
                                  "/favicon.ico", "/microgpt/_error/429", "/microgpt/v1/chat%00"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_unknown_path(chat_stack, path, method):
    reply = ask(chat_stack.port, method, path, {} if method == "POST" else None)
    if "%00" in path:
        assert reply.status == 400  # nginx: no such URI
    else:
        assert reply.status == 404
    reply.error()
    assert re.fullmatch("[0-9a-f]{32}", reply.get("X-Request-Id"))


@pytest.mark.parametrize("path, methods, allow", [
    (GENERATE, ["PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"], "GET, HEAD, POST"),
    (CHAT, ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND"], "POST"),
    ("/health", ["POST", "PUT", "DELETE", "OPTIONS"], "GET, HEAD"),
    ("/microgpt/health", ["POST", "PUT", "DELETE", "OPTIONS"], "GET, HEAD"),
    ("/metrics", ["POST", "DELETE"], "GET, HEAD"),
    ("/status", ["POST", "DELETE"], "GET, HEAD"),
])
def test_other_method(chat_stack, path, methods, allow):
    for method in methods:
        reply = ask(chat_stack.port, method, path, {} if method != "GET" else None)
        assert (method, reply.status, reply.get("Allow")) == (method, 405, allow)
        reply.error()
    if path == CHAT:
        reply = ask(chat_stack.port, "HEAD", path)
        assert (reply.status, reply.get("Allow")) == (405, "POST")


ADMITTED = ["application/json", "*/*", "application/*", "APPLICATION/JSON", "text/html, */*;q=0.1",
            "text/html,application/json", "application/json;q=0.001", "text/html ; q=1 , application/json ; q=0.5",
            "*/*;q=0, application/json", "application/*;q=0,application/json;q=1",
            "application/json, text/event-stream", "text/event-stream, application/json;q=0.1"]
REFUSED = ["text/html", "application/xml", "application/json;q=0", "*/*;q=0", "application/json;q=0, */*",
           "application/json;q=0.000, application/*", "application/*;q=0, */*", "text/*", "application/jsonx",
           "application/jso", "application", "text/event-stream"]


@pytest.mark.parametrize("accept", ADMITTED)
def test_accept_admits(chat_stack, accept):
    for path, body in ((GENERATE, {"max_tokens": 1}), (CHAT, says("hi", max_tokens=1))):
        assert ask(chat_stack.port, "POST", path, body, [("Accept", accept)]).status == 200


@pytest.mark.parametrize("accept", REFUSED)
def test_accept_refuses(chat_stack, accept):
    for path, body in ((GENERATE, {"max_tokens": 1}), (CHAT, says("hi", max_tokens=1))):
        reply = ask(chat_stack.port, "POST", path, body, [("Accept", accept)])
        assert reply.status == 406
        reply.error()
    assert get(chat_stack.port, "/health", headers=[("Accept", accept)]).status == 200


@pytest.mark.parametrize("accept, status", [
    ("text/event-stream", 200), ("text/*", 200), ("application/json", 200), ("*/*", 200), ("text/html", 406),
    ("text/event-stream;q=0", 406), ("text/html, text/event-stream", 200)])
def test_accept_of_a_stream(chat_stack, accept, status):
    reply = ask(chat_stack.port, "POST", GENERATE, {"max_tokens": 1, "stream": True}, [("Accept", accept)])
    assert reply.status == status


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON", "application/json; charset=utf-8",
                                  "application/json;charset=UTF-8", 'application/json; charset="utf-8"',
                                  "application/json ; x=y", "application/vnd.api+json", "application/problem+JSON; v=1"])
def test_content_type(chat_stack, kind):
    assert generate(chat_stack.port, b'{"max_tokens":1}', headers=[("Content-Type", kind)]).status == 200


@pytest.mark.parametrize("kind", [None, "", "text/plain", "text/json", "application/jsonx", "application/json+xml",
                                  "application/x-www-form-urlencoded", "json", "application/",
                                  "text/plain; application/json", "image/vnd+json", "multipart/form-data; boundary=x"])
def test_content_type_refused(chat_stack, kind):
    for path in (GENERATE, CHAT):
        reply = ask(chat_stack.port, "POST", path, b"{}", [("Content-Type", kind)])
        assert reply.status == 415
        reply.error()


def test_headers_of_replies(chat_stack):
    """Cache-Control, X-Request-Id and the right type on good and bad replies of both POSTs."""
    port = chat_stack.port
    replies = [generate(port), chat(port, "hi"), generate(port, b"{"), chat(port, {}),
               generate(port, {"num_samples": 0}), chat(port, says(" ")),
               generate(port, headers=[("Accept", "text/html")]),
               generate(port, b"{}", headers=[("Content-Type", "text/plain")]), get(port, CHAT),
               generate(port, b" " * (4 << 20) + b"{}")]
    assert [r.status for r in replies] == [200, 200, 400, 422, 400, 400, 406, 415, 405, 413]
    for reply in replies:
        assert reply.get("Cache-Control") == "no-store", reply
        assert reply.get("Content-Type") == "application/json", reply
        assert re.fullmatch("[0-9a-f]{32}", reply.get("X-Request-Id")), reply
    assert len({r.get("X-Request-Id") for r in replies}) == len(replies)


TWO_FAULTS = [  # what is wrong: the earlier check decides
    ("GET", "/nowhere", None, [], 404),
    ("PUT", "/nowhere", b"{", [("Accept", "text/html"), ("Content-Type", "text/plain")], 404),
    ("PUT", GENERATE, b"{", [("Accept", "text/html"), ("Content-Type", "text/plain")], 405),
    ("POST", GENERATE, b"{", [("Accept", "text/html"), ("Content-Type", "text/plain")], 406),
    ("POST", GENERATE, b"{", [("Content-Type", "text/plain")], 415),
    ("POST", CHAT, b'{"messages": 1', [], 400),
    ("POST", CHAT, b'{"messages": [{"role":"system","content":" "}], "seed": -1}', [], 422),
    ("POST", CHAT, b'{"messages": [], "temperature": "x"}', [], 422),
    ("POST", GENERATE, b'{"num_samples": 0, "stream": 1}', [], 422),
    ("POST", GENERATE, b'{"temperature": -1, "max_tokens": "1"}', [], 422),
    ("POST", CHAT, b'{"messages": [{"role":"bot","content":"x"},{"role":"user"}]}', [], 422),
]


@pytest.mark.parametrize("method, path, body, headers, status", TWO_FAULTS)
def test_order_of_checks(chat_stack, method, path, body, headers, status):
    reply = ask(chat_stack.port, method, path, body, headers)
    assert reply.status == status
    reply.error()


def test_too_large_comes_before_the_type(chat_stack):
    reply = generate(chat_stack.port, b"x" * (4 << 20) + b"x", headers=[("Content-Type", "text/plain")])
    assert reply.status == 413
    assert "4 MiB" in reply.error()


def test_body_of_exactly_4_mib(chat_stack):
    body = b'{"max_tokens": 1' + b" " * ((4 << 20) - 17) + b"}"
    assert len(body) == 4 << 20
    assert generate(chat_stack.port, body).status == 200
    assert generate(chat_stack.port, body + b" ").status == 413


def test_chunked_body(chat_stack):
    """No Content-Length: nginx collects the chunks and tells the length."""
    def chunked(body):
        data = b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
        head = lib.request_bytes("POST", GENERATE, data, [("Transfer-Encoding", "chunked"), ("Connection", "close")])
        return raw(chat_stack.port, head)
    plain = generate(chat_stack.port, b'{"max_tokens": 3}')
    assert chunked(b'{"max_tokens": 3}').json() == plain.json()
    assert chunked(b" " * (4 << 20) + b"{}").status == 413


@pytest.mark.parametrize("data, status", [
    (b"GARBAGE\r\n\r\n", 400),
    (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    (b"GET /health HTTP/1.1\r\n\r\n", 400),  # no Host
    (b"GET /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
    (b"GET /health HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 40000 + b"\r\n\r\n", 431),
    (b"POST " + GENERATE.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400),
    (b"POST " + GENERATE.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 4194305\r\n\r\n", 413),
    (b"POST " + GENERATE.encode() + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    (b"TRACE /health HTTP/1.1\r\nHost: x\r\n\r\n", 405),
    (b"GET /health HTTP/9.9\r\nHost: x\r\n\r\n", 505),
    (b"GET /../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n", 400),
])
def test_errors_of_nginx(chat_stack, data, status):
    reply = raw(chat_stack.port, data)
    assert reply.status == status
    reply.error()


def test_no_worker_is_502():
    with stack.Nginx("unix:/nonexistent/socket") as nginx:
        for reply in (generate(nginx.port), chat(nginx.port, "hi"), get(nginx.port, "/health")):
            assert reply.status == 502
            assert int(reply.get("Retry-After")) >= 1
            assert re.fullmatch("[0-9a-f]{32}", reply.get("X-Request-Id"))
            reply.error()


def test_silent_worker_is_504(tmp_path):
    """nginx's read timeout, shortened for this test; the worker accepts and never answers."""
    class Impatient(stack.Nginx):
        def render(self):
            super().render()
            path = self.prefix / "snippets/microgpt-common.conf"
            text = path.read_text()
            assert "fastcgi_read_timeout" in text
            path.write_text(re.sub(r"(fastcgi_read_timeout\s+)\d+s", r"\g<1>1s", text))

    directory = stack.temporary()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{directory}/s")
        listener.listen(64)
        held = []
        threading.Thread(target=lambda: [held.append(listener.accept()) for _ in range(2)], daemon=True).start()
        with Impatient(f"unix:{directory}/s") as nginx:
            reply = generate(nginx.port)
            assert reply.status == 504
            assert int(reply.get("Retry-After")) >= 1
            reply.error()
        for peer, _ in held:
            peer.close()


def test_kept_client_connection(chat_stack):
    """Good and bad requests in turn on one connection: nobody sees another's reply."""
    with lib.Connection(chat_stack.port) as c:
        for i in range(20):
            assert c.ask("POST", GENERATE, {"seed": i, "max_tokens": 4}).json() == \
                generate(chat_stack.port, {"seed": i, "max_tokens": 4}).json()
            assert c.ask("POST", GENERATE, b"[").status == 400
            assert c.ask("GET", CHAT).status == 405
            assert c.ask("GET", "/health").body == b"Ok"
