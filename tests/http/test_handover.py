# SPDX-License-Identifier: Apache-2.0
"""Connections outlive workers: reloads and recycled workers under load, on a machine that has no time to
spare, cost no request and no second attempt of nginx. tests/run: first

MG_RELOADS=1000 MG_RECYCLED=100 tests/run test_handover is the long form, of some minutes."""
import os
import re

import pytest

import attempts
import conftest
import stack
from counting import note
from test_drain import Load, replies

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
