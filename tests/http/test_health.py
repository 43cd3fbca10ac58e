# SPDX-License-Identifier: Apache-2.0
"""microgpt-fcgi --health SOCKET: what a probe of a container sees."""
import socket
import subprocess
import threading

import pytest

import fcgi
import stack

MODEL = dict(n_embd=16, n_head=4, n_layer=1, block_size=16)


def health(address):
    done = subprocess.run([stack.FAST, "--health", address], capture_output=True, text=True, timeout=30)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("listen", [{}, {"listen": "127.0.0.1:{port}"}, {"listen": "[::1]:{port}"}])
def test_a_worker_answers(listen):
    listen = {k: v.format(port=stack.free_port()) for k, v in listen.items()}
    with stack.Service(stack.model(**MODEL), program=stack.FAST, workers=1, **listen) as s:
        assert health(s.address) == (0, "Ok\n", "")
        assert health(s.address.removeprefix("unix:")) == (0, "Ok\n", "")


@pytest.mark.parametrize("address, code", [("unix:/nowhere/s", 69), ("/nowhere/s", 69), ("127.0.0.1:1", 69), ("nothing", 64),
                                           ("unix:nothing", 64), ("", 64), ("unix:/" + "x" * 200, 69), ("[::1:80", 69)])
def test_nobody_is_there(address, code):
    got = health(address)
    assert got[:2] == (code, "") and got[2].startswith("microgpt-fcgi: health: ") and got[2].count("\n") == 1, got


@pytest.mark.parametrize("reply, code", [
    (b"", 69), (None, 69),     # closed at once; open and silent
    (b"HTTP/1.1 400 Bad Request\r\n\r\nOk", 69),
    (fcgi.record(fcgi.STDOUT, b"Status: 503\r\n\r\nno") + fcgi.record(fcgi.END, bytes(8)), 76),
    (fcgi.record(fcgi.STDOUT, b"Status: 200\r\n\r") + fcgi.record(fcgi.STDERR, b"x", padding=7)
     + fcgi.record(fcgi.STDOUT, b"\nOk") + fcgi.record(fcgi.END, bytes(8)), 0),
    (b"\xff" * 5000, 69),
])
def test_somebody_else_answers(tmp_path, reply, code):
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(str(tmp_path / "s"))
        s.listen()
        held = []

        def answer():
            peer = s.accept()[0]
            held.append(peer)
            if reply is not None:
                peer.recv(4096)
                peer.sendall(reply)
                peer.close()
        thread = threading.Thread(target=answer)
        thread.start()
        assert health(f"{tmp_path}/s")[0] == code
        thread.join()
        for peer in held:
            peer.close()
