# SPDX-License-Identifier: Apache-2.0
"""Event streams: exact form, and the joined content equals the plain reply byte for byte."""
import random

import pytest

import conftest
import lib
import stack
from lib import CHAT, GENERATE, chat, generate, joined_chat, joined_samples, says, stream

UNICODE_WORDS = ["abc", "é", "ßß ", "Ω\n", "中語", "😀", "a\u0301", "\U0010ffff.", "c\u2028b", "\u00a0a"]


def chat_both(port, body):
    """The events of a chat after checking them against the plain reply."""
    plain = chat(port, body)
    assert plain.status == 200, plain
    events = stream(port, CHAT, body)
    reply, reason = joined_chat(events)
    assert (reply, reason) == (plain.json(), plain.get("X-Finish-Reason"))
    return events


def test_exact_bytes(chat_stack):
    """The form of microgpt-api(7), byte for byte."""
    body = says("hello", max_tokens=1, temperature=0)
    content = chat(chat_stack.port, body).json()["content"]
    with lib.Stream(chat_stack.port, CHAT, body) as s:
        events = list(s.events())
        assert s.reply.status == 200
        assert s.reply.get("Content-Type") == "text/event-stream"
        assert s.reply.get("Cache-Control") == "no-store"
        assert len(s.reply.get("X-Request-Id")) == 32
        assert s.reply.get("Content-Length") is None
        raw = s.raw
    assert len(events) == 4 and len(content) == 1
    assert raw.decode() == (
        'data: {"role":"assistant","content":"","tokens_dropped":0}\n\n'
        f'data: {{"content":"{content}"}}\n\n'
        'data: {"content":"","finish_reason":"length"}\n\n'
        "data: [DONE]\n\n")


def test_generate_exact_bytes(names_stack):
    body = {"max_tokens": 2, "temperature": 0}
    text = generate(names_stack.port, body).json()["samples"][0]
    with lib.Stream(names_stack.port, GENERATE, body) as s:
        list(s.events())
        raw = s.raw.decode()
    assert len(text) == 2
    assert raw == (f'data: {{"index":0,"content":"{text[0]}"}}\n\ndata: {{"index":0,"content":"{text[1]}"}}\n\n'
                   'data: {"index":0,"content":"","finish_reason":"length"}\n\ndata: [DONE]\n\n')


def test_no_buffering_header(chat_stack):
    """nginx takes X-Accel-Buffering for itself, so ask the worker."""
    import fcgi
    import json
    got = fcgi.ask(chat_stack.service.address, json.dumps(says("hi", stream=True)).encode(), path=CHAT)
    assert got[0] == 200
    assert got[1]["X-Accel-Buffering"] == "no"
    assert got[1]["Content-Type"] == "text/event-stream"
    assert "Content-Length" not in got[1]


@pytest.mark.parametrize("temperature", [0, 0.3, 1, 5])
def test_chat_equals_plain(chat_stack, temperature):
    rng = random.Random(temperature)
    for _ in range(15):
        text = "".join(rng.choice(stack.models.TEXT) for _ in range(rng.randrange(1, 80))) + "x"
        body = says(text, seed=rng.getrandbits(64), temperature=temperature)
        if rng.random() < 0.5:
            body["max_tokens"] = rng.randrange(1, 70)
        chat_both(chat_stack.port, body)


def test_unicode_equals_plain(unicode_stack):
    """Characters of one to four bytes, and white space of many kinds at the end of what is visible."""
    rng = random.Random(1)
    held = 0
    for _ in range(40):
        text = "".join(rng.choice(UNICODE_WORDS) for _ in range(rng.randrange(1, 12))) + "a"
        events = chat_both(unicode_stack.port, says(text, seed=rng.getrandbits(64), temperature=2))
        for event in events[1:-2]:
            content = event["content"]
            assert content == content.rstrip(), events  # white space waits for what follows it
            held += content != content.lstrip()
    assert held > 10


def test_an_event_for_every_step_with_visible_text(chat_stack):
    """One character a step in this model: an event holds one character that is not white space."""
    events = chat_both(chat_stack.port, says("tell me", seed=5, temperature=1))
    for event in events[1:-2]:
        assert len(event["content"].strip()) == 1


@pytest.mark.parametrize("n", [1, 2, 7, 50])
def test_generate_equals_plain(names_stack, chat_stack, n):
    for s in (names_stack, chat_stack):
        for seed, temperature in ((1, 0.5), (2, 1.5), (3, 0)):
            body = {"num_samples": n, "seed": seed, "temperature": temperature}
            events = stream(s.port, GENERATE, body)
            reply, reasons = joined_samples(events)
            assert reply == generate(s.port, body).json()
            assert set(reasons) <= {"stop", "length"}
            whole = [len(text) == 16 for text in reply["samples"]]
            if s is names_stack and temperature:
                assert all(r == "length" for r, w in zip(reasons, whole) if w)


def test_samples_are_interleaved(names_stack):
    events = stream(names_stack.port, GENERATE, {"num_samples": 4, "temperature": 1})
    order = [e["index"] for e in events[:-1]]
    assert order != sorted(order)
    assert set(order) == {0, 1, 2, 3}


def test_empty_samples(names_stack):
    """A sample that ends with its first token still has its end event."""
    found = 0
    for seed in range(0, 400, 50):
        body = {"num_samples": 50, "temperature": 3, "seed": seed}
        reply, reasons = joined_samples(stream(names_stack.port, GENERATE, body))
        assert reply == generate(names_stack.port, body).json()
        found += sum(text == "" and reason == "stop" for text, reason in zip(reply["samples"], reasons))
    assert found > 0


def test_dropped_tokens_in_a_stream(chat_stack):
    messages = [{"role": "user", "content": "a" * 40}, {"role": "user", "content": "b" * 40}]
    events = chat_both(chat_stack.port, {"messages": messages})
    assert events[0]["tokens_dropped"] == 42


@pytest.mark.parametrize("path, body, status", [
    (GENERATE, {"num_samples": 0}, 400), (GENERATE, {"seed": -1}, 422), (CHAT, {}, 422), (CHAT, says(" "), 400),
    (CHAT, {"messages": [{"role": "x", "content": "x"}]}, 400)])
def test_errors_before_the_first_event_are_plain(chat_stack, path, body, status):
    reply = stream(chat_stack.port, path, body)
    assert reply.status == status
    reply.error()


def test_stream_false_is_plain(chat_stack):
    assert chat(chat_stack.port, says("hi", stream=False)).body == chat(chat_stack.port, "hi").body


def test_streams_on_a_kept_connection(chat_stack):
    """Stream, plain, stream on one client connection."""
    with lib.Connection(chat_stack.port) as c:
        for i in range(5):
            streamed = c.ask("POST", CHAT, says("hi", seed=i, stream=True))
            assert streamed.body.endswith(b"data: [DONE]\n\n")
            assert c.ask("POST", CHAT, says("hi", seed=i)).body == chat(chat_stack.port, says("hi", seed=i)).body


def test_streams_through_compat():
    """In compatibility mode nothing is trimmed, streamed or not."""
    with stack.Stack(stack.model(**conftest.UNICODE_MODEL), compat="0.5") as s:
        for seed in range(1, 20):
            chat_both(s.port, says("a", seed=seed * 2 ** 40, temperature=2))
