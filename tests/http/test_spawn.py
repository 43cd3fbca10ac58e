# SPDX-License-Identifier: Apache-2.0
"""The shipped script for spawn-fcgi: plain workers on one socket, counters in a shared file, a restart;
a wrong configuration fails at start and not in silent children."""
import os
import re
import shutil
import subprocess

import fcgi
import lib
import stack
from counting import not_possible

SCRIPT = stack.ROOT / "deploy/examples/spawn-fcgi/microgpt-spawn"
MODEL = dict(n_embd=32, n_head=4, n_layer=2, block_size=64, seed=3)


def script(directory, verb, **keys):
    conf = directory / "conf"
    keys = {"model_dir": stack.model(**MODEL), "log_level": "warn", **keys}
    conf.write_text("".join(f"{k} = {v}\n" for k, v in keys.items()))
    env = {**os.environ, "SERVICE": str(stack.FAST), "CONF": str(conf), "WORKERS": "3",
           "RUN": str(directory / "run"), "RUN_USER": "nobody", "RUN_GROUP": "nogroup", "NGINX_GROUP": "nogroup"}
    with open(directory / "out", "w+") as out:  # the children keep it: no pipe
        done = subprocess.run([SCRIPT, verb], env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    return done.returncode, (directory / "out").read_text()


def need_spawn_fcgi():
    if not shutil.which("spawn-fcgi"):
        not_possible("spawn-fcgi is not installed")
    if os.geteuid() == 0 and subprocess.run(["setpriv", "--reuid=nobody", "--clear-groups", "test", "-x",
                                             stack.FAST]).returncode:
        not_possible(f"{stack.FAST} is not for nobody, and spawn-fcgi does not start it as root")


def pids(directory):
    return [int(p) for p in (directory / "run/spawn.pids").read_text().split()]


def test_three_workers_restart_stop():
    need_spawn_fcgi()
    directory = stack.temporary()
    address = f"unix:{directory}/run/fcgi.sock"
    second = []
    try:
        code, said = script(directory, "start")
        assert code == 0, said
        first = pids(directory)
        assert len(first) == 3 and all(map(stack.is_alive, first))
        for _ in range(30):
            assert fcgi.ask(address, b"{}")[0] == 200
        # a worker counts a request when its reply has gone: a moment after we have it
        for line in ('requests_total{endpoint="generate",status="200"} 30\n', 'workers{state="ready"} 3\n'):
            lib.eventually(lambda: line in fcgi.ask(
                address, method="GET", path="/metrics", content_type="")[2].decode())
        code, said = script(directory, "restart")
        assert code == 0, said
        second = pids(directory)
        assert not set(first) & set(second) and not [p for p in first if stack.is_alive(p)]
        lib.eventually(lambda: fcgi.ask(address, b"{}")[0] == 200)
        text = fcgi.ask(address, method="GET", path="/metrics", content_type="")[2].decode()
        served = re.search(r'requests_total\{endpoint="generate",status="200"\} (\d+)', text).group(1)
        assert int(served) >= 31  # the file outlives the workers
    finally:
        code, said = script(directory, "stop")
    assert code == 0, said
    assert not [p for p in second if stack.is_alive(p)]
    assert not (directory / "run/fcgi.sock").exists()


def test_a_wrong_configuration_is_said_at_start():
    need_spawn_fcgi()
    directory = stack.temporary()
    code, said = script(directory, "start", model_dir="/nonexistent")
    assert code == 66 and "/nonexistent" in said, (code, said)
    assert not (directory / "run/spawn.pids").exists()
    assert script(directory, "nonsense")[0] == 64
