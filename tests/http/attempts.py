# SPDX-License-Identifier: Apache-2.0
"""What nginx needed for the requests of a test (its access log), and a machine without time to spare."""
import contextlib
import json
import os
import signal
import subprocess

import lib


def lines(nginx):
    """nginx's access log; nginx is stopped, so that all of it is written."""
    nginx.stop()
    text = (nginx.prefix / "logs/access.json").read_text(errors="replace")
    return [json.loads(line) for line in text.splitlines()]


def repeated(log):
    """The lines of requests for which nginx made a second attempt."""
    return [x for x in log if "," in x["upstream_status"]]


@contextlib.contextmanager
def busy_cores():
    """Every core has something else to do."""
    burners = [subprocess.Popen(["sh", "-c", "while :; do :; done"]) for _ in range(os.cpu_count())]
    try:
        yield
    finally:
        for p in burners:
            p.kill()
            p.wait()


def reload_and_wait(service, seconds=60):
    """HUP, until every worker of before has gone and as many new ones are there."""
    before, n = set(service.workers()), int(service.keys["workers"])
    service.process.send_signal(signal.SIGHUP)
    lib.eventually(lambda: len(now := service.workers()) == n and not before & set(now), seconds)
