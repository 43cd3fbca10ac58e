# SPDX-License-Identifier: Apache-2.0
"""Stopping, dying and restarting under load: what is in flight ends well, and nobody else notices."""
import os
import signal
import threading

import pytest

import conftest
import fcgi
import lib
import stack
from counting import note
from lib import CHAT, GENERATE, Stream, chat, generate, says
from test_many import BIG_MODEL, ENDLESS, LONG_MODEL, WITHIN, lanes_are

TALK = [says(text, seed=i, temperature=1) for i, text in enumerate(["hello", "how are you?", "x", "tell me more"])]


class Load:
    """Clients that ask in a loop, each reply compared with what the request gets alone. .failed has
    every reply that was neither, .done counts the good ones."""

    def __init__(self, port, wanted, clients=8):
        self.port, self.wanted, self.clients = port, wanted, clients
        self.stop, self.lock = threading.Event(), threading.Lock()
        self.done, self.failed = 0, []

    def client(self, number):
        i = number
        while not self.stop.is_set():
            body = TALK[i % len(TALK)]
            i += 1
            try:
                if i % 3 == 0:
                    got = lib.stream(self.port, CHAT, body)
                    value = lib.joined_chat(got)[0] if isinstance(got, list) else got
                else:
                    got = chat(self.port, body)
                    value = got.json() if got.status == 200 else got
            except Exception as error:
                value = error
            with self.lock:
                if value in self.wanted[TALK.index(body)]:
                    self.done += 1
                else:
                    self.failed.append(value)

    def more(self, n=50):
        """Wait until so many more are done."""
        goal = self.done + n
        lib.eventually(lambda: self.done + len(self.failed) >= goal, 60)

    def __enter__(self):
        self.threads = [threading.Thread(target=self.client, args=(i,)) for i in range(self.clients)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()


def replies(s):
    """What each request gets, as a list of one acceptable reply."""
    return [[chat(s.port, body).json()] for body in TALK]


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_all_streams_end_before_the_service_does(sig):
    with stack.Stack(stack.model(**LONG_MODEL), lanes=8, timeout="120s", drain_timeout="120s") as s:
        body = {"max_tokens": 300, **ENDLESS} # over before nginx gives a plain reply up, also on a busy machine
        whole = generate(s.port, body).json()
        streams = [Stream(s.port, GENERATE, body) for _ in range(8)]
        assert all(stream.open() for stream in streams)
        plain = lib.Connection(s.port)
        plain.send(lib.request_bytes("POST", GENERATE, body))
        lanes_are(s, 9)
        s.service.process.send_signal(sig)
        events = lib.together([lambda x=x: list(x.events()) for x in streams])
        assert all(lib.joined_samples(e)[0] == whole for e in events)
        reply = plain.head()
        reply.body = plain.body(reply)
        assert (reply.status, reply.json()) == (200, whole)
        assert s.service.process.wait(60) == 0
        assert generate(s.port).status == 502


def test_drain_timeout():
    """What does not end in time is cut off; the service still ends well."""
    with stack.Stack(stack.model(**BIG_MODEL), workers=1, timeout="300s", drain_timeout="500ms") as s:
        stream = Stream(s.port, GENERATE, {"num_samples": 50, **ENDLESS})
        assert stream.open()
        s.service.process.send_signal(signal.SIGTERM)
        s.service.process.wait(30)
        stream.close()
        s.service.process = None
        s.service.check_reports()


def test_second_term_ends_at_once():
    with stack.Stack(stack.model(**BIG_MODEL), workers=1, timeout="300s", drain_timeout="300s") as s:
        stream = Stream(s.port, GENERATE, {"num_samples": 50, **ENDLESS})
        assert stream.open()
        worker, = s.service.workers()
        s.service.process.send_signal(signal.SIGTERM)
        lib.eventually(lambda: "drain" in s.service.log() or "stop" in s.service.log(), WITHIN)
        s.service.process.send_signal(signal.SIGTERM)
        s.service.process.wait(30)
        lib.eventually(lambda: not stack.is_alive(worker), WITHIN)
        stream.close()
        s.service.process = None


def test_idle_connections_do_not_delay_the_end():
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), drain_timeout="60s") as s:
        for _ in range(4):
            chat(s.port, "hi")  # leaves kept connections behind
        silent = [fcgi.Peer(s.service.address) for _ in range(5)]
        half = fcgi.Peer(s.service.address)
        half.send(fcgi.request(b"{}")[:30])
        s.service.process.send_signal(signal.SIGTERM)
        assert s.service.process.wait(30) == 0
        for peer in (*silent, half):
            peer.close()


def test_worker_killed_under_load():
    """kill -9, five times: its requests are retried or get a JSON 502, streams that had begun
    break off, every other reply is right; the dead are replaced."""
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), workers=2) as s:
        with Load(s.port, replies(s)) as load:
            for i in range(5):
                load.more()
                before = s.service.workers()
                os.kill(before[0], signal.SIGKILL)
                lib.eventually(lambda: before[0] not in s.service.workers() and len(s.service.workers()) == 2, WITHIN)
            load.more()
        for value in load.failed:
            if isinstance(value, lib.Reply):
                assert value.status == 502, value
                value.error()
            else:
                assert isinstance(value, (ConnectionError, AssertionError)), value
        assert len(load.failed) <= 5 * load.clients
        lib.eventually(lambda: s.sum("microgpt_worker_restarts_total") == 5, WITHIN)
        assert [[chat(s.port, b).json()] for b in TALK] == load.wanted
        note(f"5 workers killed under {load.clients} clients: {load.done} good replies, {len(load.failed)} lost")


def generation(s):
    return {w["generation"] for w in s.status()["worker"] if w["state"] == "ready"}


def test_rolling_restart_under_load():
    """HUP ten times: zero failed requests."""
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), workers=2) as s:
        with Load(s.port, replies(s)) as load:
            for i in range(10):
                load.more(20)
                before = set(s.service.workers())
                s.service.process.send_signal(signal.SIGHUP)
                lib.eventually(lambda: not before & set(s.service.workers()) and len(s.service.workers()) == 2, WITHIN)
            load.more(20)
        assert not load.failed, (load.failed[:3], s.nginx.log()[-3000:])
        assert s.sum("microgpt_reloads_total", result="ok") == 10
        note(f"10 rolling restarts under {load.clients} clients: {load.done} replies, 0 failed")


def test_reload_changes_the_model():
    """Two models by turns: every reply is exactly one model's; the new one takes over."""
    models = [stack.model(**conftest.CHAT_MODEL), stack.model(**{**conftest.CHAT_MODEL, "seed": 99})]
    wanted = []
    for m in models:
        with stack.Stack(m, workers=1) as s:
            wanted.append(replies(s))
    either = [a + b for a, b in zip(*wanted)]
    assert all(a != b for a, b in zip(*wanted))
    with stack.Stack(models[0], workers=2) as s:
        with Load(s.port, either) as load:
            for i in range(1, 5):
                load.more(20)
                before = set(s.service.workers())
                s.service.write_config(model_dir=models[i % 2])
                s.service.process.send_signal(signal.SIGHUP)
                lib.eventually(lambda: not before & set(s.service.workers()) and len(s.service.workers()) == 2, WITHIN)
                assert replies(s) == wanted[i % 2]
        assert not load.failed, load.failed[:3]


@pytest.mark.parametrize("bad", [{"model_dir": "/nonexistent"}, {"lanes": "many"}, {"workers": 0}, {"nonsense": 1}])
def test_reload_that_fails_keeps_the_old(bad):
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), workers=2) as s:
        wanted, before = replies(s), s.service.workers()
        with Load(s.port, wanted, clients=2) as load:
            s.service.write_config(**bad)
            s.service.process.send_signal(signal.SIGHUP)
            lib.eventually(lambda: s.sum("microgpt_reloads_total", result="failed") == 1, WITHIN)
            load.more(20)
        assert not load.failed, load.failed[:3]
        assert s.service.workers() == before
        assert s.sum("microgpt_reloads_total", result="ok") == 0
        for word in map(str, [*bad, *bad.values()][:1]):
            assert word in s.service.log() or "nonexistent" in s.service.log()
