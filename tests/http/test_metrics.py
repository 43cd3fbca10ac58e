# SPDX-License-Identifier: Apache-2.0
"""/metrics and /status: counters compared with what a client counted, with workers killed on the way."""
import collections
import os
import random
import re
import shutil
import signal
import subprocess

import conftest
import lib
import stack
from lib import CHAT, GENERATE, Stream, ask, chat, get, says
from counting import not_possible
from test_many import ENDLESS, LONG_MODEL, WITHIN, fill, lanes_are, queue_is, random_request


def test_form(chat_stack):
    """Prometheus text: HELP and TYPE before every family, each series once, our names, base units."""
    reply = get(chat_stack.port, "/metrics")
    assert reply.status == 200
    assert reply.get("Content-Type").startswith("text/plain")
    family, kinds, series = None, {}, set()
    for line in reply.body.decode("ascii").splitlines():
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in kinds
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name == family
            kinds[name] = kind
        else:
            key, value = line.rsplit(" ", 1)
            name = re.match(r"[a-z_]+", key).group()
            assert key not in series
            series.add(key)
            float(value)
            base = re.sub(r"_(bucket|sum|count)$", "", name) if kinds[family] == "histogram" else name
            assert base == family and family.startswith("microgpt_")
            assert (kinds[family] == "counter") == name.endswith("_total")
    text = reply.body.decode()
    for status in (200, 400, 404, 405, 406, 408, 413, 415, 422, 500, 503):  # there from the start
        assert f'microgpt_requests_total{{endpoint="chat",status="{status}"}}' in text
    for name in ("request_seconds", "first_token_seconds", "token_seconds"):
        assert kinds["microgpt_" + name] == "histogram"
    assert 'le="1e-05"' in text


def test_promtool(chat_stack):
    promtool = shutil.which("promtool")
    if not promtool:
        not_possible("promtool is not installed")
    text = get(chat_stack.port, "/metrics").body
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, b"")


def test_status(chat_stack):
    reply = get(chat_stack.port, "/status")
    assert reply.status == 200 and reply.get("Content-Type") == "application/json"
    value = reply.json()
    assert value["workers"] == {"ready": 2, "starting": 0, "draining": 0}
    assert value["version"] and value["uptime_seconds"] >= 0
    assert value["model"]["name"] and re.fullmatch("[0-9a-f]{16}", value["model"]["digest"])
    assert value["lanes"]["total"] >= 2 and value["queue"]["capacity"] == 2 * 128
    assert sorted(w["pid"] for w in value["worker"]) == sorted(chat_stack.service.workers())


def test_gauges():
    """Lanes and queue as they fill and empty; a killed worker's vanish."""
    with stack.Stack(stack.model(**LONG_MODEL), workers=1, lanes=2, queue=2, timeout="300s",
                     send_timeout="120s") as s:
        # the first has both lanes until a sample ends, so samples are short: a slow CPU needs a minute
        # for one of the whole context
        body = {"num_samples": 50, "max_tokens": 400, **ENDLESS}
        more = [Stream(s.port, GENERATE, body) for _ in range(3)]
        lanes_are(s, 2)
        queue_is(s, 1)
        assert s.status()["lanes"] == {"total": 2, "busy": 2}
        worker, = s.service.workers()
        os.kill(worker, signal.SIGKILL)
        lib.eventually(lambda: s.service.workers() not in ([], [worker]), WITHIN)
        for stream in more:
            stream.close()
        lanes_are(s, 0)
        queue_is(s, 0)
        assert s.status()["worker_restarts_total"] == 1


def tokens(s):
    return s.sum("microgpt_prompt_tokens_total"), s.sum("microgpt_output_tokens_total")


def answered(s):
    return sum(s.sum("microgpt_requests_total", endpoint=e) for e in ("generate", "chat"))


def test_counters_equal_what_a_client_counted():
    """A random run of good and bad requests; every now and then a worker is killed while nothing is in
    flight. Statuses, samples and tokens agree exactly."""
    rng = random.Random(5)
    bad = [(GENERATE, b"{"), (GENERATE, {"num_samples": 0}), (GENERATE, {"seed": -1}), (CHAT, {}), (CHAT, says(" "))]
    counted, prompt, output = collections.Counter(), 0, 0
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), workers=2) as s:
        base = tokens(s)
        for turn in range(6):
            jobs = []
            for _ in range(25):
                path, body = rng.choice(bad) if rng.random() < 0.2 else random_request(rng)
                jobs.append(lambda p=path, b=body: (p, ask(s.port, "POST", p, b)))
            for path, reply in lib.together(jobs, threads=6):
                counted["chat" if path == CHAT else "generate", reply.status] += 1
                if reply.status == 200 and path == CHAT:
                    prompt += int(reply.get("X-Prompt-Tokens"))
                    output += int(reply.get("X-Completion-Tokens"))
            lib.eventually(lambda: answered(s) == sum(counted.values()), WITHIN)  # its memory is in order
            victim = rng.choice(s.service.workers())
            os.kill(victim, signal.SIGKILL)
            lib.eventually(lambda: victim not in s.service.workers() and len(s.service.workers()) == 2, WITHIN)
        lib.eventually(lambda: answered(s) == sum(counted.values()), WITHIN)
        for (endpoint, status), n in counted.items():
            assert s.sum("microgpt_requests_total", endpoint=endpoint, status=status) == n
        for endpoint in ("generate", "chat"):
            total = sum(n for (e, _), n in counted.items() if e == endpoint)
            assert s.sum("microgpt_requests_total", endpoint=endpoint) == total
            assert s.metrics()[f'microgpt_request_seconds_count{{endpoint="{endpoint}"}}'] == total
        assert s.sum("microgpt_worker_restarts_total") == 6
        # exact for chat alone: count it with a second run of chats only
        before = tokens(s)
        prompt = output = 0
        for reply in lib.together([lambda i=i: chat(s.port, says("hi" * (i + 1), seed=i)) for i in range(20)], threads=4):
            prompt += int(reply.get("X-Prompt-Tokens"))
            output += int(reply.get("X-Completion-Tokens"))
        lib.eventually(lambda: tokens(s) == (before[0] + prompt, before[1] + output), 5)
        assert before[0] >= base[0] and before[1] >= base[1]


def test_shed_is_counted():
    with stack.Stack(stack.model(**LONG_MODEL), workers=1, lanes=1, queue=1, timeout="300s",
                     send_timeout="120s") as s:
        held = fill(s, 1, 1)
        assert chat(s.port, "hi").status == 503
        assert s.sum("microgpt_shed_total") == s.sum("microgpt_requests_total", endpoint="chat", status=503) >= 1
        for stream in held:
            stream.close()


def request_lines(s):
    """The lines of requests other than health, which the harness asks. They are written once a turn."""
    lines = s.service.log().splitlines()
    return [line for line in lines if "msg=request" in line and "endpoint=health" not in line]


def test_log_line_of_every_request():
    """One line per request with the id that the client saw."""
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), workers=1) as s:
        replies = [chat(s.port, "hello"), chat(s.port, {}), ask(s.port, "POST", GENERATE, {"max_tokens": 3})]
        lines = lib.eventually(lambda: (found := request_lines(s)) and len(found) >= 3 and found)
        for reply, endpoint, reason in zip(replies, ("chat", "chat", "generate"), ("reason=", "reason=refused", "reason=")):
            line, = [x for x in lines if f"id={reply.get('X-Request-Id')}" in x]
            assert f"endpoint={endpoint} status={reply.status} " in line
            assert reason in line
        assert "prompt_tokens=9 " in "".join(lines)
