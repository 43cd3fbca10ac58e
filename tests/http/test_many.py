# SPDX-License-Identifier: Apache-2.0
"""Many requests at once in a worker: each is what it would be alone, none keeps another out, and
overload is answered. (Clients that leave or stall: test_cancel.py.)  tests/run: first"""
import multiprocessing
import os
import random
import select
import signal
import threading
import time

import pytest

import conftest
import lib
import stack
from counting import note
from lib import CHAT, GENERATE, Stream, ask, chat, generate, get, joined_chat, joined_samples, says

# Greedy replies of this one run to the end of its long context.
LONG_MODEL = dict(n_embd=64, n_head=4, n_layer=2, block_size=4096, endless=True, seed=11)
# A prompt of this one takes seconds.
BIG_MODEL = dict(n_embd=256, n_head=8, n_layer=4, block_size=4096, endless=True, seed=12)
ENDLESS = {"temperature": 0}
WITHIN = 30  # seconds for a state to be reached


def lanes_are(s, n):
    lib.eventually(lambda: s.sum("microgpt_lanes_busy") == n, WITHIN)


def queue_is(s, n):
    lib.eventually(lambda: s.sum("microgpt_queue_length") == n, WITHIN)


def random_request(rng):
    """(path, body) of any sort."""
    more = {"seed": rng.getrandbits(64), "temperature": rng.choice([0, 0.5, 1, 2])}
    if rng.random() < 0.4:
        more["max_tokens"] = rng.randrange(1, 80)
    if rng.random() < 0.3:
        return GENERATE, {"num_samples": rng.choice([1, 1, 2, 5, 20]), **more}
    words = lambda n: "".join(rng.choice(stack.models.TEXT) for _ in range(n)) + "x"
    messages = [{"role": rng.choice(["user", "assistant"]), "content": words(rng.choice([1, 5, 20, 60]))}
                for _ in range(rng.choice([1, 1, 2, 5]))]
    return CHAT, {"messages": messages, **more}


def streamed(port, path, body):
    """What the stream of this request says, in the form of the plain reply."""
    with Stream(port, path, body) as s:
        events = list(s.events())
    return (joined_chat if path == CHAT else joined_samples)(events)[0]


def plain(port, path, body):
    reply = ask(port, "POST", path, body)
    assert reply.status == 200, reply
    return reply.json()


@pytest.mark.parametrize("more", [{}, {"lanes": 5, "chunk": 7}, {"workers": 1, "lanes": 64, "chunk": 1}])
def test_64_at_once_equal_themselves_alone(more):
    rng = random.Random(64)
    requests = [random_request(rng) for _ in range(64)]
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), **more) as s:
        alone = [plain(s.port, *r) for r in requests]
        crowd = [lambda r=r: streamed(s.port, *r) for r in requests]
        assert lib.together(crowd) == alone
        mixed = [lambda r=r, f=rng.choice([streamed, plain]): f(s.port, *r) for r in requests]
        assert lib.together(mixed) == alone
        lanes_are(s, 0)


def test_workers_and_chunks_do_not_matter():
    """The same replies from one worker with one lane as from three with many."""
    rng = random.Random(7)
    requests = [random_request(rng) for _ in range(30)]
    found = []
    for more in ({"workers": 1, "lanes": 1, "chunk": 1}, {"workers": 3, "lanes": 9, "chunk": 33}):
        with stack.Stack(stack.model(**conftest.CHAT_MODEL), **more) as s:
            found.append(lib.together([lambda r=r: plain(s.port, *r) for r in requests]))
    assert found[0] == found[1]


def has_bytes(connection):
    """Whether a reply has begun to arrive, without waiting."""
    return bool(select.select([connection.sock], [], [], 0)[0])


def test_short_chat_passes_a_long_prompt():
    """A prompt of 3/4 of the context enters in chunks: streams go on, and a chat that came later has its
    reply before the long prompt is even computed."""
    with stack.Stack(stack.model(**BIG_MODEL), workers=1, lanes=4, chunk=32, timeout="300s",
                     send_timeout="60s") as s:
        with Stream(s.port, GENERATE, ENDLESS) as running:
            events = running.events()
            next(events)
            with Stream(s.port, CHAT, says("x" * 3000, max_tokens=1)) as long:
                lanes_are(s, 2)
                assert chat(s.port, says("hi", max_tokens=2, **ENDLESS)).status == 200
                assert sum(1 for _ in zip(range(40), events)) == 40
                assert not has_bytes(long.connection), \
                    "the long prompt was done before a short chat and 40 events"
        lanes_are(s, 0)


def test_fifty_samples_keep_nobody_out():
    """Two lanes are full of one request's samples: a single that comes waits for one sample at most.
    Counted in samples of the fifty that end meanwhile."""
    with stack.Stack(stack.model(**LONG_MODEL), workers=1, lanes=2, timeout="300s",
                     send_timeout="60s") as s:
        waits = []
        fifty = {"num_samples": 50, "max_tokens": 600, **ENDLESS}
        with Stream(s.port, GENERATE, fifty) as crowd:
            events = crowd.events()
            next(events)
            for _ in range(4):
                with lib.Connection(s.port) as single:
                    body = says("hi", max_tokens=600, **ENDLESS)
                    single.send(lib.request_bytes("POST", CHAT, body))
                    ended = 0
                    while not has_bytes(single):
                        event = next(events)
                        assert event != "[DONE]", "the fifty were done before a single"
                        ended += "finish_reason" in event
                    assert single.head().status == 200
                    waits.append(ended)
        assert max(waits) <= 6, waits
        note(f"samples of a fifty that ended while a single waited and ran: {waits}")


def test_two_crowds_share(names_stack):
    """Two requests of fifty samples at once: equal to themselves alone."""
    bodies = [{"num_samples": 50, "seed": i * 1000, "temperature": 1} for i in range(4)]
    alone = [plain(names_stack.port, GENERATE, b) for b in bodies]
    assert lib.together([lambda b=b: streamed(names_stack.port, GENERATE, b) for b in bodies]) == alone


# ---- time limits ----

def test_time_limit():
    """Running, streamed or waiting: 408, or an error event; then everything is free."""
    with stack.Stack(stack.model(**BIG_MODEL), workers=1, lanes=1, timeout="500ms", send_timeout="60s") as s:
        whole = {"num_samples": 50, **ENDLESS}
        reply = generate(s.port, whole)
        assert reply.status == 408
        reply.error()
        with Stream(s.port, GENERATE, whole) as late:
            events = list(late.events())
        assert set(events[-1]) == {"error"} and "[DONE]" not in events
        assert all("index" in e for e in events[:-1])
        replies = lib.together([lambda: generate(s.port, whole) for _ in range(4)])
        assert [r.status for r in replies] == [408] * 4
        long = chat(s.port, says("x" * 3072, max_tokens=1))
        assert long.status in (200, 408)
        lanes_are(s, 0)
        queue_is(s, 0)
        assert generate(s.port, {"max_tokens": 1}).status == 200
        assert s.sum("microgpt_requests_total", endpoint="generate", status="408") == 6
    # a stream that has not begun is a plain reply
    with stack.Stack(stack.model(**BIG_MODEL), workers=1, lanes=1, timeout="500ms", send_timeout="60s") as s:
        hold = Stream(s.port, GENERATE, whole)
        assert hold.open()
        waiting = lib.stream(s.port, CHAT, says("x" * 3072))
        hold.close()
        assert waiting.status == 408
        waiting.error()


# ---- overload ----

def fill(s, lanes, queue):
    """Take all lanes by endless streams and all places of the queue; what holds them."""
    held = []
    for i in range(lanes + queue):
        held.append(Stream(s.port, GENERATE, ENDLESS))
        if i < lanes:
            assert held[-1].open()
        else:
            queue_is(s, i + 1 - lanes)
    return held


def test_full_queue_is_503_at_once():
    """... and health, status, metrics and errors are still answered."""
    with stack.Stack(stack.model(**BIG_MODEL), workers=1, lanes=2, queue=3, timeout="300s",
                     send_timeout="120s") as s:
        held = fill(s, 2, 3)
        for body in ({}, {"stream": True}, {"num_samples": 50}):
            reply = generate(s.port, body)
            assert reply.status == 503, reply
            assert int(reply.get("Retry-After")) >= 1
            reply.error()
        assert chat(s.port, "hi").status == 503
        assert s.sum("microgpt_shed_total") >= 4
        slowest = 0
        for _ in range(20):
            for path in ("/health", "/status", "/metrics"):
                reply = get(s.port, path)
                assert reply.status == 200
                slowest = max(slowest, reply.seconds)
            assert generate(s.port, b"{").status == 400
            assert chat(s.port, {}).status == 422
            assert get(s.port, "/microgpt/nothing").status == 404
        note(f"health, status, metrics with all lanes and the queue taken: slowest {slowest * 1e3:.0f} ms"
             " (sanitized build, 256/8/4/4096)")
        held.pop().close()  # one that waits leaves: its place is free
        queue_is(s, 2)
        held.append(Stream(s.port, GENERATE, ENDLESS))
        queue_is(s, 3)
        for stream in held:
            stream.close()
        lanes_are(s, 0)
        queue_is(s, 0)
        assert generate(s.port, {"max_tokens": 1}).status == 200


def test_no_queue():
    with stack.Stack(stack.model(**BIG_MODEL), workers=1, lanes=1, queue=0, timeout="300s",
                     send_timeout="120s") as s:
        held = fill(s, 1, 0)
        assert generate(s.port).status == 503
        held[0].close()
        lanes_are(s, 0)
        assert generate(s.port, {"max_tokens": 1}).status == 200


def test_nginx_bounds_the_requests_in_progress():
    """limit_conn: 256 wait or run, the next has nginx's 503."""
    with stack.Stack(stack.model(**BIG_MODEL), limits=stack.ONLY_CONN, workers=1, lanes=1, queue=300,
                     parked=400, timeout="300s", send_timeout="120s") as s:
        held = [Stream(s.port, GENERATE, ENDLESS) for _ in range(256)]
        queue_is(s, 255)
        for _ in range(3):
            reply = generate(s.port)
            assert reply.status == 503 and int(reply.get("Retry-After")) >= 1
            reply.error()
        assert get(s.port, "/health").status == 200
        for stream in held:
            stream.close()
        lanes_are(s, 0)
        queue_is(s, 0)
        assert generate(s.port, {"max_tokens": 1}).status == 200


def at_least(n, found):
    return found if len(found) >= n else None


def test_full_listen_queue_is_502_at_once():
    """Workers that do not accept (stopped): what the kernel does not hold is refused, not hung."""
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), workers=1, backlog=1, watchdog="off") as s:
        worker, = s.service.workers()
        os.kill(worker, signal.SIGSTOP)
        try:
            sent = [lib.Connection(s.port) for _ in range(20)]
            for c in sent:
                c.send(lib.request_bytes("POST", CHAT, says("hi")))
            early = lib.eventually(lambda: at_least(12, [c for c in sent if has_bytes(c)]), WITHIN)
            for c in early:
                reply = c.head()
                reply.body = c.body(reply)
                assert reply.status == 502 and int(reply.get("Retry-After")) >= 1
                reply.error()
        finally:
            os.kill(worker, signal.SIGCONT)
        for c in sent:
            if c not in early:
                assert c.head().status in (200, 502)
            c.close()
        assert chat(s.port, "hi").status == 200


def test_overload_at_four_times_capacity():
    """Three seconds of 4 x (lanes + queue) clients: every answer is one of the four, with JSON."""
    overload(3, stack.FAST)


def health_times(port, stop):
    times = []
    while time.monotonic() < stop:
        reply = get(port, "/health")
        assert reply.status == 200
        times.append(reply.seconds)
    return sorted(times)


def overload(seconds, program):
    lanes, queue, workers = 4, 8, 2
    clients = 4 * workers * (lanes + queue)
    with stack.Stack(stack.model(**LONG_MODEL), program=program, workers=workers, lanes=lanes, queue=queue,
                     timeout="3s") as s:
        stop = time.monotonic() + seconds
        replies, lock = [], threading.Lock()

        def client(i):
            while time.monotonic() < stop:
                reply = generate(s.port, {"max_tokens": 400, "seed": i, "temperature": 0})
                with lock:
                    replies.append(reply)

        with multiprocessing.Pool(1) as other:  # a process of its own: the clients fill this one
            watch = other.apply_async(health_times, (s.port, stop))
            lib.together([lambda i=i: client(i) for i in range(clients)])
            health = watch.get()
        lanes_are(s, 0)
        queue_is(s, 0)
    for reply in replies:
        if reply.status == 200:
            assert list(reply.json()) == ["samples"]
        else:
            assert reply.status in (408, 502, 503), reply
            reply.error()
    count = {status: sum(r.status == status for r in replies) for status in (200, 408, 502, 503)}
    assert count[200] and count[503], count
    served = sorted(r.seconds for r in replies if r.status == 200)
    at = lambda q, times: times[min(len(times) - 1, int(q * len(times)))] * 1e3
    note(f"overload, {clients} clients on {workers} x ({lanes} lanes + {queue} queued), {seconds} s: {count}; served p50"
         f" {at(.5, served):.0f} ms p99 {at(.99, served):.0f} ms; health p50 {at(.5, health):.0f} ms"
         f" p99 {at(.99, health):.0f} ms (clients in Python on the same cores)")
