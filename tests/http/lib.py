# SPDX-License-Identifier: Apache-2.0
"""A plain HTTP client for the tests: whole replies, event streams, and many at once. It speaks over
sockets of its own, so that a test can stop, stall or break off wherever it likes."""
import json
import socket
import threading
import time

GENERATE, CHAT = "/microgpt/v1/generate", "/microgpt/v1/chat"
WAIT = 60  # seconds any single wait on a socket may take before the test fails


class Reply:
    def __init__(self, status, headers, body, seconds=0.0):
        self.status, self.headers, self.body, self.seconds = status, headers, body, seconds

    def __repr__(self):
        return f"<{self.status} {dict(self.headers)} {self.body[:200]!r}>"

    def get(self, name):
        """The header's value; None without it. Given twice: a failure."""
        found = [v for k, v in self.headers if k.lower() == name.lower()]
        assert len(found) < 2, f"{name} given {len(found)} times"
        return found[0] if found else None

    def json(self):
        return json.loads(self.body)

    def error(self):
        """The text of an error reply, its shape checked."""
        assert self.get("Content-Type") == "application/json", self
        value = self.json()
        assert list(value) == ["error"] and isinstance(value["error"], str), self
        assert value["error"] and "\n" not in value["error"], self
        return value["error"]


class Connection:
    """One client connection, kept open for several requests unless the server closes it."""

    def __init__(self, port, source=None, timeout=WAIT, rcvbuf=None):
        self.sock = socket.socket(socket.AF_INET)
        if rcvbuf:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        if source:
            self.sock.bind((source, 0))
        self.sock.settimeout(timeout)
        self.sock.connect(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb")

    def close(self):
        self.file.close()
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def reset(self):
        """Leave at once: the peer sees a reset, not an orderly end."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.close()

    def send(self, data):
        self.sock.sendall(data)

    def head(self):
        """Status line and headers of a reply."""
        line = self.file.readline()
        if not line:
            raise ConnectionResetError("closed before a reply")
        status = int(line.split()[1])
        headers = []
        while (line := self.file.readline().rstrip(b"\r\n")):
            name, value = line.decode("latin-1").split(":", 1)
            headers.append((name, value.strip()))
        return Reply(status, headers, b"")

    def body(self, reply, method="GET"):
        if method == "HEAD" or reply.status in (204, 304):
            return b""
        if (reply.get("Transfer-Encoding") or "").lower() == "chunked":
            return b"".join(self.chunks())
        length = reply.get("Content-Length")
        return self.file.read(int(length)) if length is not None else self.file.read()

    def chunks(self):
        while True:
            line = self.file.readline()
            if not line:
                raise ConnectionResetError("broken off in a chunked body")
            size = int(line.split(b";")[0], 16)
            data = self.file.read(size)
            if len(data) != size or self.file.read(2) != b"\r\n":
                raise ConnectionResetError("broken off in a chunked body")
            if size == 0:
                return
            yield data

    def ask(self, method, path, body=None, headers=()):
        start = time.monotonic()
        self.send(request_bytes(method, path, body, headers))
        reply = self.head()
        reply.body = self.body(reply, method)
        reply.seconds = time.monotonic() - start
        return reply


JSON_TYPE = ("Content-Type", "application/json")


def request_bytes(method, path, body=None, headers=()):
    """The bytes of a request. A body that is not bytes is sent as JSON, with its Content-Type
    unless headers has one; a header with value None is left out."""
    headers = list(headers)
    names = [k.lower() for k, _ in headers]
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    if body is not None and "content-type" not in names:
        headers.append(JSON_TYPE)
    if body is not None and "content-length" not in names and "transfer-encoding" not in names:
        headers.append(("Content-Length", str(len(body))))
    if "host" not in names:
        headers.insert(0, ("Host", "localhost"))
    head = f"{method} {path} HTTP/1.1\r\n"
    head += "".join(f"{k}: {v}\r\n" for k, v in headers if v is not None)
    return head.encode("latin-1") + b"\r\n" + (body or b"")


def ask(port, method, path, body=None, headers=(), source=None, timeout=WAIT):
    """One request on a connection of its own."""
    with Connection(port, source, timeout) as c:
        return c.ask(method, path, body, [*headers, ("Connection", "close")])


def get(port, path, **more):
    return ask(port, "GET", path, **more)


def generate(port, body=None, **more):
    return ask(port, "POST", GENERATE, {} if body is None else body, **more)


def chat(port, body, **more):
    """Chat with a body, or with one user message."""
    if isinstance(body, str):
        body = {"messages": [{"role": "user", "content": body}]}
    return ask(port, "POST", CHAT, body, **more)


def says(text, **more):
    """The body of a chat of one user message."""
    return {"messages": [{"role": "user", "content": text}], **more}


class Stream:
    """An event stream: the reply's head, then its events as they come. A reply that is no stream
    is read whole into .reply.body."""

    def __init__(self, port, path, body, headers=(), rcvbuf=None, timeout=WAIT):
        if not isinstance(body, bytes):
            body = {**body, "stream": True}
        self.connection = Connection(port, timeout=timeout, rcvbuf=rcvbuf)
        self.connection.send(request_bytes("POST", path, body, headers))
        self.raw = b""
        self.reply = None

    def open(self):
        """Wait for the head; True if events follow."""
        if self.reply is None:
            self.reply = self.connection.head()
            if self.reply.get("Content-Type") != "text/event-stream":
                self.reply.body = self.connection.body(self.reply)
        return self.reply.get("Content-Type") == "text/event-stream"

    def events(self):
        """Each event's data: a dict, or the string [DONE]. Checks the form of the lines."""
        assert self.open(), self.reply
        pending = b""
        for data in self.connection.chunks():
            self.raw += data
            pending += data
            while b"\n\n" in pending:
                event, pending = pending.split(b"\n\n", 1)
                assert event.startswith(b"data: ") and b"\n" not in event, event
                text = event[6:].decode("utf-8")  # strict: no event splits a character
                yield text if text == "[DONE]" else json.loads(text)
        assert pending == b"", pending

    def close(self):
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def stream(port, path, body, **more):
    """All events of a stream, in a list. Not a stream: the Reply."""
    with Stream(port, path, body, **more) as s:
        return list(s.events()) if s.open() else s.reply


def joined_chat(events):
    """(reply as the plain one would be, finish reason) of a chat stream; the form is checked."""
    assert events[-1:] == ["[DONE]"], events[-3:]
    first, *middle, last = events[:-1]
    assert set(first) == {"role", "content", "tokens_dropped"}, first
    assert first["role"] == "assistant" and first["content"] == "", first
    assert set(last) == {"content", "finish_reason"} and last["content"] == "", last
    for event in middle:
        assert set(event) == {"content"} and event["content"], event
    content = "".join(e["content"] for e in middle)
    return {**first, "content": content}, last["finish_reason"]


def joined_samples(events):
    """({"samples": [...]}, [finish reasons]) of a generate stream; the form is checked."""
    assert events[-1:] == ["[DONE]"], events[-3:]
    text, reason = {}, {}
    for event in events[:-1]:
        i = event["index"]
        assert i not in reason, f"an event after the end of sample {i}"
        if "finish_reason" in event:
            assert set(event) == {"index", "content", "finish_reason"}, event
            assert event["content"] == "", event
            reason[i] = event["finish_reason"]
        else:
            assert set(event) == {"index", "content"} and event["content"], event
            text[i] = text.get(i, "") + event["content"]
    n = len(reason)
    assert sorted(reason) == list(range(n)) and set(text) <= set(reason), (reason, text)
    return {"samples": [text.get(i, "") for i in range(n)]}, [reason[i] for i in range(n)]


def together(jobs, threads=None):
    """Run the callables at the same time; their results in order. The first exception is raised."""
    results, errors = [None] * len(jobs), []
    order, lock = iter(range(len(jobs))), threading.Lock()

    def work():
        while True:
            with lock:
                i = next(order, None)
            if i is None:
                return
            try:
                results[i] = jobs[i]()
            except BaseException as error:
                errors.append(error)

    workers = [threading.Thread(target=work, daemon=True) for _ in range(threads or len(jobs))]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return results


def eventually(check, seconds=10.0, every=0.02):
    """Poll until check() is true; its value. For states that nothing announces."""
    deadline = time.monotonic() + seconds
    while True:
        value = check()
        if value:
            return value
        assert time.monotonic() < deadline, f"not so after {seconds} s: {check.__doc__ or check}"
        time.sleep(every)
