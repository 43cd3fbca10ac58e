# SPDX-License-Identifier: Apache-2.0
"""FastCGI as bytes: records, requests and replies, for tests that talk to the service's socket
themselves, correctly or not."""
import json
import socket
import struct

BEGIN, ABORT, END, PARAMS, STDIN, STDOUT, STDERR, DATA, GET_VALUES = range(1, 10)
RESPONDER, AUTHORIZER = 1, 2


def record(kind, body=b"", request_id=1, padding=0, version=1):
    return struct.pack(">BBHHBx", version, kind, request_id, len(body), padding) + body + bytes(padding)


def begin(role=RESPONDER, keep=0, request_id=1):
    return record(BEGIN, struct.pack(">HB5x", role, keep), request_id)


def pair(name, value):
    name, value = (x.encode() if isinstance(x, str) else x for x in (name, value))
    size = lambda x: bytes([len(x)]) if len(x) < 128 else struct.pack(">I", len(x) | 1 << 31)
    return size(name) + size(value) + name + value


def params(items, request_id=1):
    data = b"".join(pair(k, v) for k, v in items)
    cut = range(0, len(data), 65535)
    return b"".join(record(PARAMS, data[i:i + 65535], request_id) for i in cut) + record(PARAMS, b"", request_id)


def stdin(body, size=65535, request_id=1):
    return b"".join(record(STDIN, body[i:i + size], request_id) for i in range(0, len(body), size))


def environment(method="POST", path="/microgpt/v1/generate", length=0, content_type="application/json", **more):
    """The params of a request as the shipped nginx configuration sends them."""
    items = {"REQUEST_METHOD": method, "SCRIPT_NAME": path, "REQUEST_URI": path, "DOCUMENT_URI": path,
             "QUERY_STRING": "", "CONTENT_TYPE": content_type, "CONTENT_LENGTH": str(length),
             "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1",
             "GATEWAY_INTERFACE": "CGI/1.1", "REQUEST_ID": "0123456789abcdef0123456789abcdef", **more}
    return [(k, v) for k, v in items.items() if v is not None]


def request(body=b"", keep=0, **more):
    """All records of one good request."""
    more.setdefault("length", len(body))
    return begin(keep=keep) + params(environment(**more)) + stdin(body) + record(STDIN)


class Peer:
    """A connection to the service's socket: unix:/path or host:port."""

    def __init__(self, address, timeout=60):
        if address.startswith("unix:"):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            self.sock.connect(address[5:])
        else:
            host, port = address.rsplit(":", 1)
            self.sock = socket.create_connection((host.strip("[]"), int(port)), timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def close(self):
        self.sock.close()

    def send(self, data):
        """Send what the service takes; False when it has closed."""
        try:
            self.sock.sendall(data)
            return True
        except (BrokenPipeError, ConnectionResetError):
            return False

    def finish(self):
        """No more bytes from us."""
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def exactly(self, n):
        data = b""
        while len(data) < n:
            try:
                more = self.sock.recv(n - len(data))
            except ConnectionResetError:
                more = b""
            if not more:
                return None
            data += more
        return data

    def next(self):
        """(kind, request id, content) of the next record; None at the end."""
        head = self.exactly(8)
        if head is None:
            return None
        _, kind, request_id, length, padding = struct.unpack(">BBHHBx", head)
        body = self.exactly(length + padding)
        return None if body is None else (kind, request_id, body[:length])

    def rest(self):
        """Everything up to the end of the connection."""
        while self.next():
            pass

    def reply(self):
        """A whole reply: (status, headers, body); None if the service closed before its end."""
        out = b""
        while (got := self.next()):
            kind, _, content = got
            if kind == STDOUT:
                out += content
            elif kind == END:
                head, _, body = out.partition(b"\r\n\r\n")
                headers = dict(line.split(": ", 1) for line in head.decode("latin-1").split("\r\n"))
                return int(headers.get("Status", "200").split()[0]), headers, body
        return None


def ask(address, body=b"", timeout=60, **more):
    """One good request on a connection of its own; its reply."""
    if not isinstance(body, bytes):
        body = json.dumps(body).encode()
    with Peer(address, timeout) as peer:
        peer.send(request(body, **more))
        return peer.reply()
