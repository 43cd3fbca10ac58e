# SPDX-License-Identifier: Apache-2.0
"""The rate limit as shipped, counted against nginx: 5 a second per address, burst 10, one zone for
both POST endpoints. Eleven at once pass: one on schedule and ten in excess."""
import time

import pytest

import conftest
import lib
import stack
from lib import CHAT, GENERATE, get, says


@pytest.fixture(scope="module")
def limited():
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), limits=None) as s:
        yield s


@pytest.fixture
def rested(limited):
    """nginx begins to count anew with each start."""
    limited.nginx.stop()
    limited.nginx.start()
    limited.port = limited.nginx.port
    return limited


def at_once(port, requests, source=None):
    """Send requests [(path, body)] on connections opened before; (replies, seconds from first to last)."""
    connections = [lib.Connection(port, source) for _ in requests]
    start = time.monotonic()
    for connection, (path, body) in zip(connections, requests):
        connection.send(lib.request_bytes("POST", path, body))
    replies = []
    for connection in connections:
        reply = connection.head()
        reply.body = connection.body(reply)
        replies.append(reply)
        connection.close()
    return replies, time.monotonic() - start


def check(replies, seconds, rested=True):
    """Every reply is a 200 or a proper 429; how many passed fits the time that was measured."""
    passed = [r for r in replies if r.status == 200]
    for reply in replies:
        if reply.status != 200:
            assert reply.status == 429, reply
            assert int(reply.get("Retry-After")) >= 1
            assert len(reply.get("X-Request-Id")) == 32
            assert reply.get("Cache-Control") == "no-store"
            reply.error()
    assert len(passed) >= 11
    assert len(passed) <= 11 + 5 * seconds
    return len(passed)


ONE = (GENERATE, {"max_tokens": 1})
TALK = (CHAT, says("hi", max_tokens=1))


def test_thirty_at_once(rested):
    replies, seconds = at_once(rested.port, [ONE] * 30)
    check(replies, seconds)


def test_both_endpoints_share_one_budget(rested):
    replies, seconds = at_once(rested.port, [ONE, TALK] * 15)
    check(replies, seconds)
    assert {r.status for r in replies[1::2]} == {200, 429}


def test_two_addresses_do_not_share(rested):
    first, seconds = at_once(rested.port, [ONE] * 30)
    check(first, seconds)
    second, seconds = at_once(rested.port, [TALK] * 30, source="127.0.0.2")
    check(second, seconds)


def test_then_five_a_second(rested):
    """After the burst, asking all the time for three seconds lets five a second through."""
    replies, _ = at_once(rested.port, [ONE] * 30)
    start, passed = time.monotonic(), 0
    while time.monotonic() - start < 3:
        reply = lib.ask(rested.port, "POST", *ONE)
        assert reply.status in (200, 429)
        passed += reply.status == 200
    seconds = time.monotonic() - start
    assert 5 * seconds - 6 <= passed <= 5 * seconds + 2


def test_refused_requests_cost_nothing(rested):
    """A 429 does not push the moment away at which the next request passes."""
    at_once(rested.port, [ONE] * 60)
    lib.eventually(lambda: lib.ask(rested.port, "POST", *ONE).status == 200, 5, every=0.05)


def test_bad_requests_count_too(rested):
    replies, _ = at_once(rested.port, [(GENERATE, b"{")] * 20)
    assert {r.status for r in replies} == {400, 429}


def test_health_and_operators_are_exempt(rested):
    at_once(rested.port, [ONE] * 20)
    for path in ("/health", "/microgpt/health", "/status", "/metrics"):
        assert {get(rested.port, path).status for _ in range(20)} == {200}


def test_operators_pages_are_for_this_host_only(rested):
    for path in ("/metrics", "/status", "/microgpt/metrics", "/microgpt/status"):
        assert get(rested.port, path, source="127.0.0.1").status == 200
        reply = get(rested.port, path, source="127.0.0.2")
        assert reply.status == 403
        reply.error()
    assert get(rested.port, "/health", source="127.0.0.2").status == 200
