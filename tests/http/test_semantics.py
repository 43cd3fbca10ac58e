# SPDX-License-Identifier: Apache-2.0
"""MG_SEMANTICS is raised when a byte of any reply changes. tests/golden/semantics.json has, for each
number there was, the digest of every reply in a section: caches and receipts out there hold
these bytes under that number. A change that is meant: raise MG_SEMANTICS in core/microgpt.h and add
its digests, which the failure prints; the lines of earlier numbers stay."""
import hashlib
import json
import re

import fcgi
import pytest
import stack
from lib import CHAT, GENERATE

RECORD = stack.ROOT / "tests/golden/semantics.json"
NUMBER = re.search(r"#define MG_SEMANTICS (\d+)", (stack.ROOT / "core/microgpt.h").read_text()).group(1)
SECTIONS = {
    "names": ("tests/golden/names", {}), "names-f16": ("tests/golden/names-f16", {}),
    "chat-small": ("tests/golden/chat-small", {}), "unicode-chat": ("tests/golden/unicode-chat", {}),
    "escapes-shuffled": ("tests/golden/escapes-shuffled", {}),
    "chat-small kv=f16": ("tests/golden/chat-small", {"kv": "f16"}),
    "chat-small compat=0.5": ("tests/golden/chat-small", {"compat": "0.5"}),
    "bpe": ("tests/golden-bpe/en500-chat", {}), "bpe kv=f16": ("tests/golden-bpe/en500-chat", {"kv": "f16"}),
    "bpe compat=0.6": ("tests/golden-bpe/en500-chat", {"compat": "0.6"}),
    "demo chat": ("deploy/demo/chat", {}), "demo names": ("deploy/demo/names", {}),
}


def bodies(model, has_chat):
    """(path, body) of the recorded requests where there are some, and of some more."""
    recorded = model / "requests.jsonl"
    if recorded.exists():
        for line in recorded.read_bytes().split(b"\n")[:-1]:
            yield {"generate": GENERATE, "chat": CHAT}[json.loads(line)["endpoint"]], line
    for temperature in (0, 0.5, 1.5):
        more = {"temperature": temperature, "seed": 7}
        yield GENERATE, {**more, "num_samples": 8}
        yield GENERATE, {**more, "stream": True}  # of one sample: the order of its events is fixed
        for text in ("hello", "What can you do?", "the river and the sea, the river " * 9) if has_chat else ():
            yield CHAT, {**more, "messages": [{"role": "user", "content": text}]}
            yield CHAT, {**more, "messages": [{"role": "user", "content": text}], "stream": True}


def digest(model, keys):
    """SHA-256 of status and bytes of every reply."""
    h = hashlib.sha256()
    with stack.Service(model, program=stack.FAST, workers=1, **keys) as s:
        status = json.loads(fcgi.ask(s.address, method="GET", path="/status", content_type="")[2])
        for path, body in bodies(model, status["model"]["chat"]):
            got = fcgi.ask(s.address, body, path=path)
            h.update(b"%d %d\n%b" % (got[0], len(got[2]), got[2]))
    return h.hexdigest()


@pytest.mark.parametrize("section", SECTIONS)
def test_no_byte_changes_under_one_number(section):
    record = json.loads(RECORD.read_text())
    model, keys = SECTIONS[section]
    found = digest(stack.ROOT / model, keys)
    assert record.get(NUMBER, {}).get(section) == found, (
        f"replies of {section} have other bytes than MG_SEMANTICS {NUMBER} stands for: undo that, or "
        f'raise MG_SEMANTICS and add to {RECORD.name} under the new number: "{section}": "{found}"')


def test_a_number_stands_for_something():
    """Every number has all sections of its time, and differs from the one before."""
    record = json.loads(RECORD.read_text())
    assert list(record) == [str(i + 1) for i in range(len(record))] and NUMBER == list(record)[-1]
    assert set(record[NUMBER]) == set(SECTIONS)
    for a, b in zip(record.values(), list(record.values())[1:]):
        assert any(b[k] != v for k, v in a.items() if k in b), "raised, though no byte changed"
