# SPDX-License-Identifier: Apache-2.0
"""What takes longer than `make test` should: thousands of requests, a hundred reloads, ten seconds
of overload. Run by `make soak`; figures are printed."""
import random
import signal
import threading

import conftest
import lib
import stack
from counting import note
from lib import CHAT, GENERATE, Connection, request_bytes
from test_drain import Load, replies
from test_many import WITHIN, lanes_are, overload, queue_is, random_request

REQUESTS, FIRST = 10000, 1000


def test_ten_thousand_requests():
    """A random mix, one in twenty leaves: all others are answered, memory after the first thousand does
    not grow, no descriptor is left over."""
    rng = random.Random(10000)
    plan = [(*random_request(rng), rng.random()) for _ in range(REQUESTS)]
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), program=stack.FAST, workers=2,
                     lanes=8) as s:
        workers = s.service.workers()

        def one(path, body, chance):
            streamed = rng.random() < 0.5
            if chance < 0.05:  # leaves: now, or after the first bytes
                c = Connection(s.port)
                c.send(request_bytes("POST", path, {**body, "stream": streamed}))
                if chance < 0.025:
                    c.sock.recv(100)
                c.reset()
            elif streamed:
                assert lib.stream(s.port, path, body)[-1] == "[DONE]"
            else:
                assert lib.ask(s.port, "POST", path, body).status == 200

        def run(part):
            lib.together([lambda p=p: one(*p) for p in part], threads=16)
            lanes_are(s, 0)
            queue_is(s, 0)
            return [stack.resident(w) for w in workers], [len(stack.descriptors(w)) for w in workers]

        first_memory, first_fds = run(plan[:FIRST])
        last_memory, last_fds = run(plan[FIRST:])
        assert s.service.workers() == workers
        cancelled = s.sum("microgpt_cancelled_total")
    grown = [b - a for a, b in zip(first_memory, last_memory)]
    note(f"{REQUESTS} requests, {cancelled:.0f} cancelled; private memory of the workers after {FIRST}:"
         f" {[m // 1024 for m in first_memory]} KiB, growth to the end {[g // 1024 for g in grown]} KiB;"
         f" descriptors {first_fds} then {last_fds}")
    assert max(grown) < 256 << 10
    assert max(last_fds) <= max(first_fds) + 16  # kept connections come and go


def test_hundred_reloads():
    """Two models by turns under load: zero failed requests, each reply exactly one model's."""
    models = [stack.model(**conftest.CHAT_MODEL), stack.model(**{**conftest.CHAT_MODEL, "seed": 99})]
    wanted = []
    for m in models:
        with stack.Stack(m, program=stack.FAST, workers=1) as s:
            wanted.append(replies(s))
    either = [a + b for a, b in zip(*wanted)]
    with stack.Stack(models[0], program=stack.FAST, workers=2) as s:
        with Load(s.port, either) as load:
            for i in range(1, 101):
                load.more(5)
                before = set(s.service.workers())
                s.service.write_config(model_dir=models[i % 2])
                s.service.process.send_signal(signal.SIGHUP)
                lib.eventually(lambda: not before & set(s.service.workers())
                               and len(s.service.workers()) == 2, WITHIN)
                if i % 10 == 0:
                    assert replies(s) == wanted[i % 2]
        assert not load.failed, (load.failed[:3], s.nginx.log()[-2000:])
        assert s.sum("microgpt_reloads_total", result="ok") == 100
        note(f"100 reloads under {load.clients} clients: {load.done} replies, 0 failed")


def test_overload_for_ten_seconds():
    overload(10, stack.FAST)


def test_many_streams_for_long():
    """64 clients, checked replies all the time for a minute's worth of requests, sanitized build."""
    rng = random.Random(3)
    requests = [random_request(rng) for _ in range(300)]
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), workers=2, lanes=16) as s:
        alone = [lib.ask(s.port, "POST", *r).body for r in requests]
        done, lock = [0], threading.Lock()

        def one(i):
            path, body = requests[i]
            if i % 2:
                got = lib.ask(s.port, "POST", path, body).body
                assert got == alone[i]
            else:
                events = lib.stream(s.port, path, body)
                joined = (lib.joined_chat if path == CHAT else lib.joined_samples)(events)[0]
                assert joined == lib.Reply(200, [], alone[i]).json()
            with lock:
                done[0] += 1

        for _ in range(5):
            order = list(range(len(requests)))
            rng.shuffle(order)
            lib.together([lambda i=i: one(i) for i in order], threads=64)
        assert done[0] == 5 * len(requests)
        assert lib.ask(s.port, "POST", GENERATE, {}).status == 200
