# SPDX-License-Identifier: Apache-2.0
"""Connections outlive workers: reloads and recycled workers under load, on a machine that has no time to
spare, cost no request and no second attempt of nginx. tests/run: first

MG_RELOADS=1000 MG_RECYCLED=100 tests/run test_handover is the long form, of some minutes."""
import contextlib
import json
import os
import re
import resource
import signal
import time

import pytest

import attempts
import conftest
import fcgi
import lib
import stack
from counting import note
from test_drain import Load, replies
from test_proc import logged, model, status

RELOADS, RECYCLED = int(os.environ.get("MG_RELOADS", 150)), int(os.environ.get("MG_RECYCLED", 20))


def recycled(service):
    return len(re.findall("max_requests: asking to be replaced", service.log()))


@pytest.mark.limit(90 + 2 * RELOADS + 5 * RECYCLED)
def test_reloads_and_recycled_workers_under_load():
    program = stack.FAST if stack.FAST.exists() else stack.CHECKED
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), program=program, workers=2, max_requests=300) as s:
        with Load(s.port, replies(s), clients=12) as load, attempts.busy_cores():
            for _ in range(RELOADS):
                attempts.reload_and_wait(s.service)
            while recycled(s.service) < RECYCLED:
                load.more(30)
        assert not load.failed, load.failed[:3]
        assert s.sum("microgpt_reloads_total", result="ok") == RELOADS
        assert s.sum("microgpt_worker_restarts_total") == 0
        n, handed = recycled(s.service), re.findall(r"requests, (\d+) connections handed over", s.service.log())
        log = attempts.lines(s.nginx)
        again = attempts.repeated(log)
        assert len(log) >= load.done and not again, (len(again), again[:3])
        assert sum(map(int, handed)) >= RELOADS
        note(f"{RELOADS} reloads, {n} recycled workers, {sum(map(int, handed))} connections handed over: "
             f"{load.done} replies, 0 failed, 0 second attempts")


# ---- one connection, many workers ----

def ask_again(peer):
    """One more request on a connection that is kept."""
    assert peer.send(fcgi.request(json.dumps({"seed": 1}).encode(), keep=1))
    got = peer.reply()
    assert got and got[0] == 200, got


def others_serve(service, before):
    """Every worker of before has gone."""
    return lib.eventually(lambda: service.workers() and not set(before) & set(service.workers()), 30)


def test_a_connection_outlives_its_workers(model):
    """Reload, max_requests and TTOU: the connection stays, idle or with a request under way on it."""
    with stack.Service(model, workers=1, max_requests=4) as s, fcgi.Peer(s.address) as peer:
        first = s.workers()
        while recycled(s) < 5:  # a worker goes on until the next one is ready
            ask_again(peer)
        others_serve(s, first)
        for _ in range(5):
            attempts.reload_and_wait(s)
            ask_again(peer)
        half = fcgi.request(b"{}", keep=1)
        assert peer.send(half[:30])  # the worker that has it keeps it until it is answered
        before = s.workers()
        s.process.send_signal(signal.SIGHUP)
        lib.eventually(lambda: status(s.address)["workers"]["draining"] == 1)
        assert peer.send(half[30:]) and peer.reply()[0] == 200
        others_serve(s, before)
        ask_again(peer)


def test_fewer_workers_keep_the_connections(model):
    with stack.Service(model, workers=4) as s:
        peers = [fcgi.Peer(s.address) for _ in range(24)]
        for peer in peers:
            ask_again(peer)
        for n in (3, 2, 1):
            s.process.send_signal(signal.SIGTTOU)
            lib.eventually(lambda: len(s.workers()) == n)
        for peer in peers:
            ask_again(peer)
            peer.close()


# ---- what must not retire a generation, or kill a worker ----

@contextlib.contextmanager
def first_on_the_cpu():
    """Who wants to catch a process that has just been born must not wait for its turn."""
    policy, before = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:  # not root: more tries then
        pass
    yield
    os.sched_setscheduler(0, policy, before)


def born(s, before):
    """A worker that was not there before, held before it is ready."""
    with first_on_the_cpu():
        new = lib.eventually(lambda: set(s.workers()) - set(before), 30, every=0.0002).pop()
        os.kill(new, signal.SIGSTOP)
    return new


def first_of_the_next(s):
    """HUP; the first worker of the next generation, held before it is ready, and the workers before it."""
    for _ in range(20):
        before, reloads = s.workers(), status(s.address)["reloads"]["ok"]
        s.process.send_signal(signal.SIGHUP)
        new = born(s, before)
        if len(set(s.workers()) - set(before)) == 1 and status(s.address)["reloads"]["ok"] == reloads:
            return new, before
        os.kill(new, signal.SIGCONT)
        others_serve(s, before)
        lib.eventually(lambda: status(s.address)["reloads"]["ok"] > reloads, 30)
    raise AssertionError("never caught before it was ready")


@pytest.mark.skipif(not stack.FAST.exists(), reason="sanitizers need more address space than a limit leaves")
def test_later_workers_that_die_do_not_retire_the_old_generation(model):
    """The first of the new generation serves, the second cannot start: the old ones stay until it can."""
    with stack.Service(model, program=stack.FAST) as s:
        new, before = first_of_the_next(s)
        generation = status(s.address)["reloads"]["ok"] + 2
        limits = resource.prlimit(s.process.pid, resource.RLIMIT_AS)
        resource.prlimit(s.process.pid, resource.RLIMIT_AS, (120 << 20, limits[1]))
        os.kill(new, signal.SIGCONT)
        logged(s, f"generation {generation} serves")
        logged(s, r"worker 2 \(pid \d+\) ended with code 7[18]", 3)
        assert set(before) <= set(s.workers()) and status(s.address)["workers"]["draining"] == 0
        resource.prlimit(s.process.pid, resource.RLIMIT_AS, limits)
        others_serve(s, before)
        lib.eventually(lambda: {w["generation"] for w in status(s.address)["worker"]} == {generation})


def test_reopening_the_log_while_workers_start(model):
    """USR1 again and again, with a worker just born: none dies of it, no reload fails."""
    with stack.Service(model) as s:
        for i in range(1, 21):
            s.process.send_signal(signal.SIGHUP)
            while len(re.findall("generation .* serves", s.log())) < i:
                s.process.send_signal(signal.SIGUSR1)
                assert status(s.address)["reloads"]["failed"] == 0
        assert "User defined signal" not in s.log()


def test_a_model_that_loads_for_long_and_dies_is_no_old_worker(model):
    """Two that were not ready after more than two seconds: the next start waits."""
    with stack.Service(model, workers=1) as s:
        last, = s.workers()
        os.kill(last, signal.SIGKILL)
        for _ in range(2):
            slow = born(s, {last})
            since = time.monotonic()
            lib.eventually(lambda: time.monotonic() - since > 2.2)
            os.kill(slow, signal.SIGKILL)
            last = slow
        logged(s, "workers die young: next start in")


# ---- when all that nginx kept is closed ----

def test_all_kept_connections_are_dead():
    """The request is there before nginx can see one of the ends: it meets every dead connection, and has an
    entry left for a new one."""
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), workers=1) as s:
        clients = [lib.Connection(s.port) for _ in range(40)]
        for c in clients:
            c.send(lib.request_bytes("POST", lib.GENERATE, {"num_samples": 20}))
        assert all(c.body(c.head()) for c in clients)
        nginx, victim = stack.children(s.nginx.process.pid), s.service.workers()
        for pid in nginx:
            os.kill(pid, signal.SIGSTOP)
        clients[0].send(lib.request_bytes("POST", lib.GENERATE, {"seed": 1}))
        os.kill(victim[0], signal.SIGKILL)
        others_serve(s.service, victim)
        lib.eventually(lambda: s.status()["workers"]["ready"] == 1)
        for pid in nginx:
            os.kill(pid, signal.SIGCONT)
        assert clients[0].head().status == 200
        for c in clients:
            c.close()
        met = attempts.repeated(attempts.lines(s.nginx))
        assert len(met) == 1 and met[0]["upstream_status"].count("502") > 2, met
        note(f"one request met {met[0]['upstream_status'].count('502')} dead connections in a row")
