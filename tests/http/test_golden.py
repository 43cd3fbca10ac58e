# SPDX-License-Identifier: Apache-2.0
"""Replies of the reference 0.5.0, line by line, over HTTP through nginx in compatibility mode. Takes
all of ../shared/golden where it is, else the part in tests/golden."""
import json

import pytest

import lib
import stack
from counting import note, not_possible
from lib import CHAT, GENERATE

HOMES = [stack.ROOT / "../shared/golden", stack.ROOT / "tests/golden"]
FOLDERS = ["names", "names-f16", "chat-small", "unicode-chat", "escapes-shuffled"]


def lines_of(path):
    """The texts hold U+2028: split at \\n only."""
    return [line for line in path.read_bytes().split(b"\n") if line]


@pytest.mark.parametrize("name", FOLDERS)
def test_golden(name):
    home = next((h for h in HOMES if (h / name / "responses.jsonl").exists()), None)
    if home is None:
        not_possible(f"golden/{name} is not here")
    requests = lines_of(home / name / "requests.jsonl")
    wanted = [json.loads(line) for line in lines_of(home / name / "responses.jsonl")]
    assert len(requests) == len(wanted) > 0
    with stack.Stack(home / name, compat="0.5") as s:
        def one(i):
            path = {"generate": GENERATE, "chat": CHAT}[json.loads(requests[i])["endpoint"]]
            reply = lib.ask(s.port, "POST", path, requests[i])
            return reply.status, reply.json()
        got = lib.together([lambda i=i: one(i) for i in range(len(requests))], threads=8)
    wrong = [i for i, reply in enumerate(got) if reply != (200, wanted[i])]
    note(f"golden/{name}: {len(wanted) - len(wrong)} of {len(wanted)} lines over HTTP ({home.parent.name})")
    assert not wrong, [(i + 1, requests[i][:300], got[i], wanted[i]) for i in wrong[:3]]
