# SPDX-License-Identifier: Apache-2.0
"""Clients that leave, stall or drip, at every stage: lanes come back, nothing is left over, and
nobody else notices."""
import json
import threading

import pytest

import conftest
import fcgi
import lib
import stack
from lib import CHAT, GENERATE, Connection, Stream, chat, generate, request_bytes, says
from test_many import BIG_MODEL, ENDLESS, WITHIN, lanes_are, queue_is

QUICK_MODEL = dict(n_embd=16, n_head=4, n_layer=1, block_size=4096, endless=True, seed=13)


@pytest.fixture(scope="module")
def slow():
    """One worker with two lanes whose requests run for seconds."""
    with stack.Stack(stack.model(**BIG_MODEL), workers=1, lanes=2, queue=4, chunk=32, timeout="300s",
                     send_timeout="60s", parked=4) as s:
        for _ in range(8):  # as many kept connections as there will ever be
            lib.get(s.port, "/health")
        yield s


class Watch:
    """Around the leaving of a client: everything it had is free again, and it was counted."""

    def __init__(self, s, cancelled=1):
        self.s, self.cancelled = s, cancelled

    def sockets(self):
        worker, = self.s.service.workers()
        return len(stack.descriptors(worker))

    def __enter__(self):
        lanes_are(self.s, 0)
        self.before = self.s.sum("microgpt_cancelled_total"), self.others()

    def others(self):
        """Descriptors of the worker that are not connections."""
        worker, = self.s.service.workers()
        return [d for d in stack.descriptors(worker) if d != "socket"]

    def __exit__(self, kind, *_):
        if kind:
            return
        lanes_are(self.s, 0)
        queue_is(self.s, 0)
        cancelled, others = self.before
        lib.eventually(lambda: self.s.sum("microgpt_cancelled_total") == cancelled + self.cancelled, WITHIN)
        assert self.others() == others
        lib.eventually(lambda: self.sockets() <= len(others) + 2 + 4 + 3, WITHIN)  # listening, parked, this one
        assert generate(self.s.port, {"max_tokens": 1}).status == 200


LEAVE = [Connection.close, Connection.reset]


@pytest.mark.parametrize("leave", LEAVE)
def test_before_the_body_ends(slow, leave):
    with Watch(slow, cancelled=0):
        c = Connection(slow.port)
        c.send(request_bytes("POST", CHAT, says("hi"))[:-5])
        leave(c)


@pytest.mark.parametrize("cut", [4, 8, 20, 120, 300, -9, -1])
def test_before_the_request_ends_at_the_socket(slow, cut):
    whole = fcgi.request(json.dumps(says("hi")).encode(), path=CHAT)
    with Watch(slow, cancelled=0):
        with fcgi.Peer(slow.service.address) as peer:
            peer.send(whole[:cut])


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("streamed", [False, True])
def test_while_queued(slow, leave, streamed):
    with Watch(slow, cancelled=3):
        held = [Stream(slow.port, GENERATE, ENDLESS) for _ in range(2)]
        assert all(s.open() for s in held)
        c = Connection(slow.port)
        c.send(request_bytes("POST", CHAT, says("hi", stream=streamed)))
        queue_is(slow, 1)
        leave(c)
        queue_is(slow, 0)
        for s in held:
            s.close()


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("streamed", [False, True])
def test_in_prefill(slow, leave, streamed):
    with Watch(slow):
        c = Connection(slow.port)
        c.send(request_bytes("POST", CHAT, says("x" * 3060, max_tokens=1, stream=streamed)))
        lanes_are(slow, 1)
        leave(c)


@pytest.mark.parametrize("leave", LEAVE)
def test_in_a_plain_reply(slow, leave):
    with Watch(slow):
        c = Connection(slow.port)
        c.send(request_bytes("POST", GENERATE, ENDLESS))
        lanes_are(slow, 1)
        leave(c)


@pytest.mark.parametrize("leave", LEAVE)
@pytest.mark.parametrize("path, body", [(GENERATE, {"num_samples": 50, **ENDLESS}), (CHAT, says("hi", **ENDLESS))])
def test_in_a_stream(slow, leave, path, body):
    with Watch(slow):
        s = Stream(slow.port, path, body)
        assert len([e for e, _ in zip(s.events(), range(5))]) == 5
        leave(s.connection)
    line = [r for r in requests_logged(slow) if r["status"] == "499"][-1]
    assert line["reason"] == "cancelled"
    assert 5 <= int(line["output_tokens"]) < 2000


def requests_logged(s):
    """The service's request lines as dicts."""
    lines = [line for line in s.service.log().splitlines() if "msg=request" in line]
    return [dict(word.split("=", 1) for word in line.split() if "=" in word) for line in lines]


def test_after_the_last_byte(slow):
    with Watch(slow, cancelled=0):
        for leave in LEAVE * 3:
            c = Connection(slow.port)
            assert c.ask("POST", CHAT, says("hi", max_tokens=2)).status == 200
            leave(c)


def test_stops_within_two_steps(slow):
    """A client at the socket itself that leaves: the counter of output tokens stands still at once."""
    with Watch(slow):
        with fcgi.Peer(slow.service.address) as peer:
            body = json.dumps({"stream": True, **ENDLESS}).encode()
            peer.send(fcgi.request(body))
            assert [peer.next()[0] for _ in range(3)] == [fcgi.STDOUT] * 3
        lanes_are(slow, 0)
    last = [r for r in requests_logged(slow) if r["status"] == "499"][-1]
    assert last["reason"] == "cancelled"


def test_abort_record(slow):
    """FCGI_ABORT_REQUEST, which nginx never sends: the connection ends, nothing else does."""
    with Watch(slow):
        with fcgi.Peer(slow.service.address) as peer:
            peer.send(fcgi.request(json.dumps(ENDLESS).encode(), keep=1))
            lanes_are(slow, 1)
            peer.send(fcgi.record(fcgi.ABORT))
            peer.finish()
            lanes_are(slow, 0)


# ---- clients that do not read ----

@pytest.fixture
def talkative():
    """Streams of more bytes than all buffers hold: nginx's socket alone takes over 4 MB."""
    with stack.Stack(stack.model(**QUICK_MODEL), workers=1, lanes=8, timeout="300s", send_timeout="700ms") as s:
        yield s


MUCH = {"num_samples": 50, "max_tokens": 4000, **ENDLESS}


def test_reader_that_stalls_is_dropped(talkative):
    """... at the socket: within send_timeout, while others go on with the right bytes."""
    s = talkative
    small = says("hi", max_tokens=300, **ENDLESS)
    alone = chat(s.port, small).json()
    with fcgi.Peer(s.service.address) as peer:
        peer.send(fcgi.request(json.dumps({"stream": True, **MUCH}).encode()))
        assert peer.next()
        while s.sum("microgpt_requests_total", endpoint="generate") == 0:
            assert chat(s.port, small).json() == alone
    lanes_are(s, 0)
    line = [r for r in requests_logged(s) if r["endpoint"] == "generate"][-1]
    assert line["reason"] == "stalled", line


def test_reader_that_stalls_behind_nginx(talkative):
    s = talkative
    stalled = Stream(s.port, GENERATE, MUCH, rcvbuf=4096)
    assert stalled.open()
    small = says("hi", max_tokens=300, **ENDLESS)
    alone = chat(s.port, small).json()
    while s.sum("microgpt_requests_total", endpoint="generate") == 0:
        assert chat(s.port, small).json() == alone
    lanes_are(s, 0)
    stalled.close()


def test_slow_reader_that_reads_is_served(talkative):
    """Progress, however little, is no stall: all bytes arrive."""
    s = talkative
    body = {"num_samples": 2, "max_tokens": 2000, **ENDLESS}
    whole = generate(s.port, body).json()
    with Connection(s.port, rcvbuf=4096) as c:
        c.send(request_bytes("POST", GENERATE, {**body, "stream": True}))
        data, window = b"", c.sock
        while not data.endswith(b"0\r\n\r\n"):
            more = window.recv(2048)
            assert more
            data += more
            lib.get(s.port, "/health")  # takes its time
    body = unchunk(data.split(b"\r\n\r\n", 1)[1])
    events = [json.loads(e[6:]) for e in body.decode().split("\n\n")[:-2]]
    assert lib.joined_samples([*events, "[DONE]"])[0] == whole


def unchunk(data):
    out = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        n = int(size, 16)
        out, data = out + data[:n], data[n + 2:]
    return out


# ---- clients that do not write ----

@pytest.fixture(scope="module")
def strict():
    """A short time limit, so that what is never finished is seen to be dropped."""
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), workers=1, lanes=2, timeout="1s", send_timeout="1s", parked=8) as s:
        yield s


def drip(peer, data, stop):
    for i in range(len(data)):
        if stop.wait(0.1) or not peer.send(data[i:i + 1]):
            return


def test_a_byte_at_a_time_is_cut_off(strict):
    """Ten bytes a second at the socket: others are served, and after the time limit it is closed."""
    stop = threading.Event()
    with fcgi.Peer(strict.service.address) as peer:
        dripping = threading.Thread(target=drip, args=(peer, fcgi.request(b"{}"), stop))
        dripping.start()
        watcher = threading.Thread(target=peer.rest)
        watcher.start()
        while watcher.is_alive():
            assert chat(strict.port, says("hi", max_tokens=4)).status == 200
        watcher.join()
        stop.set()
        dripping.join()


def test_unfinished_requests_are_cut_off(strict):
    """Half requests, held open, of every length: all are closed by the service, one after its time,
    each with a line and a count."""
    whole = fcgi.request(json.dumps(says("hi")).encode(), path=CHAT)
    held, before, line = [], strict.sum("microgpt_cancelled_total"), "endpoint=other status=499"
    lines = strict.service.log().count(line)
    for cut in range(1, len(whole), 23):
        held.append(fcgi.Peer(strict.service.address))
        held[-1].send(whole[:cut])
    assert chat(strict.port, says("hi", max_tokens=4)).status == 200
    for peer in held:
        peer.rest()  # returns only when the service has closed
        peer.close()
    assert chat(strict.port, says("hi", max_tokens=4)).status == 200
    lib.eventually(lambda: strict.sum("microgpt_cancelled_total") == before + len(held))
    assert strict.service.log().count(line) == lines + len(held)


def test_idle_connections_are_bounded(strict):
    """More connections than may be parked: good requests are still served, and the idle ones
    are let go rather than gathered."""
    held = [fcgi.Peer(strict.service.address) for _ in range(200)]
    for _ in range(5):
        assert chat(strict.port, says("hi", max_tokens=4)).status == 200
    worker, = strict.service.workers()
    lib.eventually(lambda: stack.descriptors(worker).count("socket") <= 30, WITHIN)
    for peer in held:
        peer.close()


def test_kept_connections_are_bounded(strict):
    """Parked after a good request: at most `parked`, the oldest go first."""
    held = []
    for _ in range(40):
        peer = fcgi.Peer(strict.service.address)
        peer.send(fcgi.request(b'{"max_tokens":1}', keep=1))
        assert peer.reply()[0] == 200
        held.append(peer)
    worker, = strict.service.workers()
    lib.eventually(lambda: stack.descriptors(worker).count("socket") <= 30, WITHIN)
    assert chat(strict.port, says("hi", max_tokens=4)).status == 200
    for peer in held:
        peer.close()


def test_hundred_requests_on_one_kept_connection(strict):
    with fcgi.Peer(strict.service.address) as peer:
        for i in range(100):
            body = json.dumps({"seed": i, "max_tokens": 5}).encode()
            peer.send(fcgi.request(body, keep=1))
            status, _, got = peer.reply()
            assert status == 200
            assert json.loads(got) == generate(strict.port, {"seed": i, "max_tokens": 5}).json()
