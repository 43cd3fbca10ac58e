# SPDX-License-Identifier: Apache-2.0
"""Bytes at the service's socket that no web server sends. It answers or closes, and the next good
request is served. All against the sanitized build; no worker may die."""
import json
import random
import struct

import pytest

import conftest
import fcgi
import lib
import stack
from fcgi import BEGIN, DATA, END, GET_VALUES, PARAMS, STDIN, STDOUT, Peer, begin, environment, pair, params, record
from lib import CHAT, generate, says

TIME_LIMIT = "2s"


@pytest.fixture(scope="module")
def target():
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), workers=1, lanes=4, timeout=TIME_LIMIT,
                     send_timeout="1s") as s:
        s.pids = s.service.workers()
        yield s
        assert s.service.workers() == s.pids, "a worker died"


def good(s):
    """The next good request is served, by the same worker."""
    body = says("hi", max_tokens=5)
    reply = fcgi.ask(s.service.address, body, path=CHAT, timeout=30)
    assert reply and reply[0] == 200, reply
    assert lib.chat(s.port, body).body == reply[2]
    assert s.service.workers() == s.pids


BODY = b'{"max_tokens":1}'
WHOLE = fcgi.request(BODY)
ENV = params(environment(length=len(BODY)))
SILENT = {
    "nothing": b"",
    "one byte": b"\x01",
    "half a header": WHOLE[:5],
    "a header": WHOLE[:8],
    "begin only": begin(),
    "half the params": WHOLE[:100],
    "params without an end": begin() + record(PARAMS, pair("A", "b")),
    "no stdin": begin() + ENV,
    "half the stdin": begin() + ENV + record(STDIN, BODY[:3]),
    "stdin without an end": begin() + ENV + record(STDIN, BODY),
    "a header that promises 65535 bytes": begin() + ENV + struct.pack(">BBHHBx", 1, STDIN, 1, 65535, 255) + b"x",
}


@pytest.mark.parametrize("what", SILENT)
@pytest.mark.parametrize("then", ["close", "finish", "wait"])
def test_silence(target, what, then):
    """What stops half-way: held open, half closed, or closed; others are served meanwhile."""
    with Peer(target.service.address) as peer:
        peer.send(SILENT[what])
        if then == "finish":
            peer.finish()
        if then != "close":
            good(target)
            if what != "nothing" or then == "finish":
                peer.rest()  # the service closes it, by its time limit at the latest
    good(target)


GARBAGE = {
    "text": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "zeros": bytes(4096),
    "ones": b"\xff" * 4096,
    "version 0": record(BEGIN, struct.pack(">HB5x", 1, 0), version=0),
    "version 2": record(BEGIN, struct.pack(">HB5x", 1, 0), version=2),
    "stdin first": record(STDIN, b"{}"),
    "params first": params(environment()),
    "end request": record(END, bytes(8)),
    "stdout": record(STDOUT, b"x"),
    "abort first": record(fcgi.ABORT),
    "unknown type": record(99, b"x"),
    "unknown management type": record(200, b"x", request_id=0),
    "get values": record(GET_VALUES, pair("FCGI_MAX_CONNS", ""), request_id=0),
    "get values many times": record(GET_VALUES, pair("FCGI_MPXS_CONNS", "") * 500, request_id=0) * 20,
    "get values, huge lengths": record(GET_VALUES, b"\xff\xff\xff\xfe\xff\xff\xff\xfe", request_id=0),
    "begin too short": record(BEGIN, b"\0\1"),
    "begin too long": record(BEGIN, struct.pack(">HB5x", 1, 0) + bytes(100)),
    "begin twice": begin() + begin(),
    "begin of another id": begin() + begin(request_id=2),
    "authorizer": begin(role=2) + ENV + record(STDIN),
    "filter": begin(role=3) + ENV + record(STDIN) + record(DATA),
    "role 0": begin(role=0) + ENV,
    "id 0": begin(request_id=0) + params(environment(), 0),
    "other id": begin() + params(environment(), 2) + record(STDIN, b"", 2),
    "data": begin() + ENV + record(DATA, b"x" * 100),
    "huge name": begin() + record(PARAMS, b"\xff\xff\xff\xff\x01abc"),
    "huge value": begin() + record(PARAMS, b"\x01\xff\xff\xff\xffabc"),
    "lengths that overflow": begin() + record(PARAMS, b"\xff\xff\xff\xfe\xff\xff\xff\xfeabc") + record(PARAMS),
    "lengths near 2^31": begin() + record(PARAMS, struct.pack(">II", 0xFFFFFFFE, 0xFFFFFFFE) * 3) + record(PARAMS),
    "pair cut by the end": begin() + record(PARAMS, b"\x05\x05ab") + record(PARAMS) + record(STDIN),
    "length cut by the end": begin() + record(PARAMS, b"\x80\x00") + record(PARAMS) + record(STDIN),
    "ten megabytes of params": begin() + record(PARAMS, pair("X" * 100, "y" * 60000)) * 170,
    "no params": begin() + record(PARAMS) + record(STDIN),
    "names with NUL": begin() + params([("A\0B", "c\0d"), ("REQUEST_METHOD", "PO\0ST")]) + record(STDIN),
}


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage(target, what):
    """The service answers or closes; it does not keep us waiting."""
    with Peer(target.service.address) as peer:
        if peer.send(GARBAGE[what]):
            peer.finish()
        peer.rest()
    good(target)


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_held_open(target, what):
    with Peer(target.service.address) as peer:
        peer.send(GARBAGE[what])
        good(target)
        peer.rest()


@pytest.mark.parametrize("what", GARBAGE)
def test_garbage_after_a_good_request(target, what):
    """On a kept connection, and in one go with the request: the good one is answered first."""
    with Peer(target.service.address) as peer:
        peer.send(fcgi.request(BODY, keep=1))
        assert peer.reply()[0] == 200
        peer.send(GARBAGE[what])
        peer.finish()
        peer.rest()
    with Peer(target.service.address) as peer:
        peer.send(fcgi.request(BODY, keep=0) + GARBAGE[what])
        got = peer.reply()
        assert got is None or got[0] == 200
        peer.rest()
    good(target)


@pytest.mark.parametrize("size", [1, 2, 7, 1000, 65535])
@pytest.mark.parametrize("padding", [0, 1, 255])
def test_any_cut_of_the_same_request(target, size, padding):
    """Params and stdin in records of any size, with padding: the same reply."""
    body = json.dumps(says("hello there", max_tokens=9)).encode()
    env = b"".join(pair(k, v) for k, v in environment(path=CHAT, length=len(body)))
    cut = lambda kind, data: b"".join(record(kind, data[i:i + size], 1, padding) for i in range(0, len(data), size))
    whole = begin() + cut(PARAMS, env) + record(PARAMS) + cut(STDIN, body) + record(STDIN)
    with Peer(target.service.address) as peer:
        peer.send(whole)
        assert peer.reply() == fcgi.ask(target.service.address, body, path=CHAT)


def test_padding_after_the_end_of_params(target):
    """libfcgi forgets to skip it: a reply or a 400, and then the connection is not used again."""
    for end in (record(PARAMS, b"", 1, 8) + record(STDIN, BODY) + record(STDIN),
                record(PARAMS) + record(STDIN, BODY) + record(STDIN, b"", 1, 8)):
        with Peer(target.service.address) as peer:
            peer.send(begin(keep=1) + params(environment(length=len(BODY)))[:-8] + end)
            reply = peer.reply()
            if reply and reply[0] == 200:
                peer.send(fcgi.request(BODY, keep=1))
                assert peer.reply()[0] == 200
            else:
                assert reply is None or reply[0] == 400
                peer.finish()
                peer.rest()
        good(target)


def test_four_megabytes(target):
    text = "abcdefgh" * (4 * 1024 * 127)
    body = json.dumps(says(text, max_tokens=2)).encode()
    assert len(body) < 4 << 20
    status, _, got = fcgi.ask(target.service.address, body, path=CHAT)
    assert (status, json.loads(got)["tokens_dropped"]) == (200, len(text) - 44)
    for size in (4 << 20, (4 << 20) + 1, 6 << 20):
        reply = fcgi.ask(target.service.address, b" " * size)
        assert reply[0] == (413 if size > 4 << 20 else 400)
        assert list(json.loads(reply[2])) == ["error"]
    good(target)


def test_too_large_for_a_small_limit():
    """Whatever comes in one piece with the params: 413, and the kept connection goes on."""
    with stack.Service(stack.model(**conftest.CHAT_MODEL), workers=1, max_body="2k") as s, Peer(s.address) as peer:
        for size in (2048, 2049, 60000, 65536, 70000, 200000, 2000000):
            peer.send(fcgi.request(b" " * size, keep=1))
            status, _, got = peer.reply()
            assert (status, list(json.loads(got))) == (400 if size == 2048 else 413, ["error"])


def test_no_parked_connections():
    """parked = 0: a connection lasts for one request, and brings it."""
    with stack.Service(stack.model(**conftest.CHAT_MODEL), workers=1, parked=0) as s:
        for _ in range(50):
            with Peer(s.address) as peer:
                peer.send(fcgi.request(BODY, keep=1))
                assert peer.reply()[0] == 200
                peer.rest()


@pytest.mark.parametrize("length", ["0", "1", "15", "17", "1000", "4194305", "99999999999999999999", "-1", "x", "", "16 ", "0x10"])
def test_content_length_that_lies(target, length):
    """A body shorter or longer than announced: an answer with JSON, or a closed connection."""
    with Peer(target.service.address) as peer:
        peer.send(fcgi.request(BODY, length=length))
        peer.finish()
        reply = peer.reply()
    if reply:
        assert reply[0] in (200, 400, 413), reply
        json.loads(reply[2])
    good(target)


def test_planted_request_in_a_body(target):
    """A body whose bytes are records is a body, answered early or not: no second request runs."""
    planted = fcgi.request(b"", method="GET", path="/health", length=0)
    for more in ({"content_type": "text/plain"}, {"method": "PUT"}, {"path": "/nowhere"}, {}):
        before = target.sum("microgpt_requests_total", endpoint="health")
        with Peer(target.service.address) as peer:
            body = planted * 3
            peer.send(fcgi.request(body, keep=1, **more))
            status, _, _ = peer.reply()
            assert status in (400, 404, 405, 415)
            peer.send(fcgi.request(BODY, keep=1))
            assert peer.reply()[0] == 200
        assert target.sum("microgpt_requests_total", endpoint="health") == before


def test_params_that_a_web_server_would_not_send(target):
    """Missing, twice, very long, not text: answered as the API says, or closed."""
    odd = [[], [("REQUEST_METHOD", "POST")], [("SCRIPT_NAME", "/health")], [*environment(), *environment()],
           environment(path="/" + "x" * 60000), environment(method="\xff\xfe" * 100), environment(HTTP_ACCEPT="," * 30000),
           environment(HTTP_ACCEPT="a/b;q=" + "9" * 20000), environment(content_type="application/" + "x" * 50000 + "+json"),
           environment(REQUEST_ID="\n\"'<>" * 1000), environment(QUERY_STRING="%00" * 9999),
           [(f"X{i}", "y") for i in range(5000)] + environment()]
    for items in odd:
        with Peer(target.service.address) as peer:
            peer.send(begin() + params(items) + record(STDIN))
            reply = peer.reply()
            assert reply is None or reply[0] in (200, 400, 404, 405, 406, 415), reply
    assert "\n\"" not in target.service.log()
    good(target)


@pytest.mark.parametrize("body", [rb'{"a":"\u00e%s"}' % "\U0001f600".encode(), rb'{"\ud8%s":1}' % ("\u4e2d" * 9).encode(),
                                  b'{"a":"b\\\n"}', b'{"a":\x7f}', b'{"a":tr\x1bue}', b'{"a":"\xff"}', b'\xef\xbb\xbf{}'])
def test_broken_json_is_quoted_in_one_line(target, body):
    """A newline behind a backslash, a character cut by a short escape: 400, printable, not 500."""
    for path in (CHAT, lib.GENERATE):
        status, _, got = fcgi.ask(target.service.address, body, path=path)
        text = json.loads(got)["error"]
        assert status == 400 and text.isprintable() and text.isascii() and text.startswith("the body is not JSON: line ")


@pytest.mark.limit(240)
@pytest.mark.parametrize("seed", range(4))
def test_fuzz(target, seed):
    """Random record sequences: good requests cut, repeated, reordered, with flipped bits."""
    rng = random.Random(seed)
    pieces = [begin(), begin(keep=1), ENV, record(PARAMS), record(STDIN), record(STDIN, BODY), WHOLE,
              fcgi.request(BODY, keep=1), fcgi.request(b"", method="GET", path="/health"), *GARBAGE.values()]
    pieces = [p for p in pieces if len(p) < 20000]
    for _ in range(150):
        data = bytearray(b"".join(rng.choice(pieces) for _ in range(rng.randrange(1, 6))))
        for _ in range(rng.choice([0, 0, 1, 3, 20])):
            data[rng.randrange(len(data))] = rng.choice([0, 1, 255, rng.randrange(256)])
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)):]
        with Peer(target.service.address, timeout=30) as peer:
            if peer.send(bytes(data)):
                peer.finish()
            peer.rest()
    good(target)
    assert generate(target.port, {"max_tokens": 1}).status == 200
