# SPDX-License-Identifier: Apache-2.0
"""pytest plugin of tests/run: tells each start and end of a test in a file, and gives each test its
time limit by an alarm. A test with another limit says @pytest.mark.limit(seconds)."""
import json
import os
import signal

import pytest

EVENTS = os.environ.get("MG_EVENTS")


def tell(what, **more):
    if EVENTS:
        with open(EVENTS, "a") as f:
            f.write(json.dumps({"what": what, **more}) + "\n")


def not_possible(why, n=1):
    """Say that n tests cannot be done on this machine, and leave the test uncounted."""
    line = f"{n} not possible here: {why}"
    print(line)
    tell("impossible", line=line)
    pytest.skip(line)


def note(line):
    """A figure for the runner's output, shown although the test passed."""
    print(line)
    tell("note", line=line)


def limit_of(item):
    mark = item.get_closest_marker("limit")
    return int(mark.args[0] if mark else os.environ.get("MG_LIMIT", 90))


def ring(signum, frame):
    signal.alarm(10)  # again, should the clean-up hang too
    raise TimeoutError("the test outlived its time limit")


def pytest_configure(config):
    config.addinivalue_line("markers", "limit(seconds): time limit of this test")
    signal.signal(signal.SIGALRM, ring)


def pytest_collection_modifyitems(items):
    done = os.environ.get("MG_DONE")
    if done and os.path.exists(done):
        ids = set(open(done).read().split("\n"))
        items[:] = [i for i in items if i.nodeid not in ids]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item):
    tell("start", id=item.nodeid, limit=limit_of(item))
    signal.alarm(limit_of(item))
    yield
    signal.alarm(0)


outcomes = {}


def pytest_runtest_logreport(report):
    """passed, failed or skipped: the worst of set-up, call and tear-down."""
    was = outcomes.get(report.nodeid)
    if report.failed:
        outcomes[report.nodeid] = "failed"
    elif report.skipped and was != "failed":
        impossible = isinstance(report.longrepr, tuple) and "not possible here: " in report.longrepr[2]
        outcomes[report.nodeid] = "impossible" if impossible else "skipped"
    elif report.when == "call" and was is None:
        outcomes[report.nodeid] = "passed"
    if report.when == "teardown":
        tell("end", id=report.nodeid, outcome=outcomes[report.nodeid])
