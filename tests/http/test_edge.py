# SPDX-License-Identifier: Apache-2.0
"""A reply has a name before it is computed: fingerprint, ETag, 304, GET, Repr-Digest."""
import base64
import hashlib
import itertools
import json
import random
import re
import subprocess
import threading

import attempts
import conftest
import fcgi
import lib
import pytest
import stack
from lib import CHAT, GENERATE, Stream, ask, chat, generate, says
from test_many import BIG_MODEL, ENDLESS, lanes_are


@pytest.fixture(scope="module")
def service():
    with stack.Service(stack.model(**conftest.CHAT_MODEL), workers=1) as s:
        yield s


def reply(s, body=b"", **more):
    """(status, headers in lower case, body) of one request on the service's socket."""
    status, headers, text = fcgi.ask(s.address, body, **more)
    return status, {k.lower(): v for k, v in headers.items()}, text


def etag(s, body, **more):
    status, headers, _ = reply(s, body, **more)
    assert status == 200, (status, body)
    assert re.fullmatch('"[0-9a-f]{32}"', headers["etag"])
    return headers["etag"]


def fingerprint(s):
    text = reply(s, method="GET", path="/status", content_type="")[2]
    return json.loads(text)["model"]["fingerprint"]


def query(s, text, path=GENERATE, method="GET", **more):
    return reply(s, method=method, path=path, QUERY_STRING=text, content_type="", length="", **more)


# ---- one name for a request, however it is spelled ----

def spelled(rng, members):
    """The same members in another order, spacing and form, with some that mean nothing."""
    items = list(members.items()) + [(f"x{rng.random()}", rng.choice([None, [], "y"]))] * rng.randrange(2)
    rng.shuffle(items)
    blank = lambda: rng.choice(["", " ", "\n", "\t "])
    parts = []
    for k, v in items:
        text = json.dumps(v)
        if k == "temperature":
            text = rng.choice(["0.5", "5e-1", "0.50", "0.5e0", "50E-2"])
        if k == "messages":
            v = [dict(sorted(m.items(), reverse=rng.random() < 0.5)) for m in v]
            text = json.dumps(v, indent=rng.choice([None, 1]))
            text = text.replace("hello", "".join(rng.choice([c, "\\u%04x" % ord(c)]) for c in "hello"))
        parts.append(f'{blank()}"{k}"{blank()}:{blank()}{text}{blank()}')
    return ("{" + ",".join(parts) + "}").encode()


@pytest.mark.parametrize("path, given, defaults", [
    (GENERATE, {}, {"num_samples": 1, "temperature": 0.5, "seed": 42, "stream": False, "receipt": False,
                    "max_tokens": conftest.CHAT_MODEL["block_size"]}),
    (CHAT, {"max_tokens": 2, "messages": [{"role": "user", "content": "hello"}]},
     {"temperature": 0.5, "seed": 42, "stream": False, "receipt": False}),
])
def test_spellings(service, path, given, defaults):
    rng = random.Random(1)
    first = etag(service, given, path=path)
    for _ in range(250):
        members = {**given, **{k: v for k, v in defaults.items() if rng.random() < 0.5}}
        assert etag(service, spelled(rng, members), path=path) == first


def test_every_parameter_counts(service):
    says_a, says_b = [{"role": "user", "content": "a"}], [{"role": "user", "content": "b"}]
    bodies = [(GENERATE, b) for b in (
        {"max_tokens": 2}, {"max_tokens": 3}, {"max_tokens": 2, "seed": 43}, {"max_tokens": 2, "seed": 2**64 - 1},
        {"max_tokens": 2, "temperature": 0.5000000000000001}, {"max_tokens": 2, "temperature": 0},
        {"max_tokens": 2, "num_samples": 2}, {"max_tokens": 2, "stream": True}, {"max_tokens": 2, "receipt": True},
        {"max_tokens": 2, "receipt": True, "stream": True}, {"max_tokens": 2, "temperature": 5e-324},
        {"max_tokens": conftest.CHAT_MODEL["block_size"] - 1}, {})]
    bodies += [(CHAT, {"max_tokens": 2, "messages": m, **more}) for m, more in (
        (says_a, {}), (says_b, {}), (says_a, {"seed": 43}), (says_a, {"temperature": 0.5000000000000001}),
        (says_a, {"max_tokens": 3}), (says_a, {"stream": True}), (says_a, {"receipt": True}),
        ([{"role": "user", "content": "a "}], {}), ([{"role": "user", "content": "a\u0000"}], {}),
        ([{"role": "user", "content": "a\\u0000"}], {}), (says_a[:1] + [{"role": "assistant", "content": "a"}], {}),
        (says_a + [{"role": "assistant", "content": "b"}] + says_a, {}), (says_a * 2, {}),
        ([{"role": "user", "content": "ab"}], {}))]
    found = [etag(service, body, path=path) for path, body in bodies]
    assert len(set(found)) == len(found)
    at_most = conftest.CHAT_MODEL["block_size"]
    assert len({etag(service, b) for b in ({}, {"max_tokens": at_most}, {"max_tokens": 10**9}, {"max_tokens": None})}) == 1
    assert etag(service, {"num_samples": 50}) == etag(service, {"num_samples": 51})
    assert etag(service, {"temperature": 0}) == etag(service, b'{"temperature": -0.0}')
    assert query(service, "max_tokens=2")[1]["etag"] == found[0]  # GET and POST are one


def test_models_differ(service):
    """Another checkpoint, kv or compat has another fingerprint; workers and kernels do not matter."""
    mine = fingerprint(service)
    assert re.fullmatch("[0-9a-f]{32}", mine)
    shape = conftest.CHAT_MODEL
    there = set()
    for path, more in ((stack.model(**{**shape, "seed": 4}), {}), (stack.model(**shape), {"kv": "f16"}),
                       (stack.model(**shape), {"compat": "0.5"})):
        with stack.Service(path, workers=1, **more) as s:
            there.add(fingerprint(s))
    assert len(there | {mine}) == 4
    with stack.Service(stack.model(**shape), program=stack.FAST, workers=2) as s:
        assert fingerprint(s) == mine
    info = subprocess.run([stack.BUILD / "microgpt", "info", "--json", "--model", stack.model(**shape)],
                          capture_output=True, text=True, check=True)
    assert json.loads(info.stdout)["fingerprint"] == mine
    with stack.Service(stack.model(**shape), workers=1, kernels="blis") as s:
        assert fingerprint(s) == ""
        headers = reply(s, {"max_tokens": 2})[1]
        assert not {"etag", "x-model-fingerprint", "repr-digest"} & set(headers)


def test_spacing_of_meta_does_not_matter(service, tmp_path):
    """The fingerprint is of what decides, not of the bytes of meta.json."""
    source = stack.model(**conftest.CHAT_MODEL)
    meta = json.loads((source / "meta.json").read_text())
    (tmp_path / "meta.json").write_text(json.dumps({"note": 1, **meta}, indent=3))
    (tmp_path / "weights.safetensors").symlink_to(source / "weights.safetensors")
    with stack.Service(tmp_path, workers=1) as s:
        assert fingerprint(s) == fingerprint(service)


# ---- not again what the client has ----

def test_304(service):
    for path, body in ((GENERATE, {"max_tokens": 2}), (CHAT, says("hi", max_tokens=2)),
                       (GENERATE, {"max_tokens": 2, "stream": True})):
        tag = etag(service, body, path=path)
        for given in (tag, f"W/{tag}", f'"x", {tag}', f'"x",W/"y" , {tag}', "*"):
            status, headers, text = reply(service, body, path=path, HTTP_IF_NONE_MATCH=given)
            assert (status, text, headers["etag"]) == (304, b"", tag)
            assert headers["cache-control"] == "no-store" and headers["x-model-fingerprint"] == fingerprint(service)
        for given in ('"x"', tag.strip('"'), tag[:-2] + '"', '"', f'x{tag}', ""):
            assert reply(service, body, path=path, HTTP_IF_NONE_MATCH=given)[0] == 200
    text = reply(service, method="GET", path="/metrics", content_type="")[2].decode()
    assert 'microgpt_requests_total{endpoint="generate",status="304"} 10' in text
    assert reply(service, {"max_tokens": 0}, HTTP_IF_NONE_MATCH="*")[0] == 400  # no reply, no name


def test_304_needs_no_lane():
    """With every lane taken and the queue full a known reply is answered at once; another is shed."""
    with stack.Stack(stack.model(**BIG_MODEL), workers=1, lanes=1, queue=1, timeout="300s") as s:
        tag = ask(s.port, "POST", GENERATE, {"max_tokens": 1}).get("ETag")
        held = [Stream(s.port, GENERATE, ENDLESS)]
        assert held[0].open()
        lanes_are(s, 1)
        held.append(Stream(s.port, GENERATE, ENDLESS))
        lib.eventually(lambda: s.sum("microgpt_queue_length") == 1)
        got = ask(s.port, "POST", GENERATE, {"max_tokens": 1}, [("If-None-Match", tag)])
        assert (got.status, got.get("ETag")) == (304, tag)
        assert ask(s.port, "POST", GENERATE, {"max_tokens": 2}).status == 503
        for stream in held:
            stream.close()


def test_digest_is_of_the_body(chat_stack):
    for path, body in ((GENERATE, {"num_samples": 3, "seed": 5}), (CHAT, says("hello"))):
        got = ask(chat_stack.port, "POST", path, body)
        digest = base64.b64encode(hashlib.sha256(got.body).digest()).decode()
        assert got.get("Repr-Digest") == f"sha-256=:{digest}:"
        assert got.get("X-Model-Fingerprint") == json.loads(ask(chat_stack.port, "GET", "/status").body)["model"]["fingerprint"]
    events = Stream(chat_stack.port, GENERATE, {"seed": 5})
    assert events.open()
    list(events.events())


# ---- GET ----

def test_get_is_post(chat_stack):
    rng = random.Random(2)
    for _ in range(50):
        body = {"num_samples": rng.randrange(1, 4), "seed": rng.randrange(2**64), "temperature": rng.random() * 2,
                "max_tokens": rng.randrange(1, 30)}
        body = {k: v for k, v in body.items() if rng.random() < 0.7}
        text = "&".join(f"{k}={v}" for k, v in rng.sample(list(body.items()), len(body)))
        got, whole = ask(chat_stack.port, "GET", f"{GENERATE}?{text}"), ask(chat_stack.port, "POST", GENERATE, body)
        assert (got.status, got.body, got.get("ETag")) == (200, whole.body, whole.get("ETag"))
        assert got.get("Cache-Control") == "no-cache" and whole.get("Cache-Control") == "no-store"
        head = ask(chat_stack.port, "HEAD", f"{GENERATE}?{text}")
        assert (head.status, head.body, head.get("ETag")) == (200, b"", got.get("ETag"))


@pytest.mark.parametrize("text, status, word", [
    ("seed=1&seed=1", 400, "twice"), ("sed=1", 400, "sed"), ("stream=true", 400, "stream"), ("seed", 422, "seed"),
    ("seed=", 422, "seed"), ("seed=x", 422, "seed"), ("seed=1.5", 422, "seed"), ("seed=-1", 422, "seed"),
    ("seed=01", 422, "seed"), ("seed=+1", 422, "seed"), ("seed=18446744073709551616", 422, "seed"),
    ("temperature=nan", 422, "temperature"), ("temperature=-1", 400, "temperature"), ("temperature=1e999", 400, "large"),
    ("max_tokens=0", 400, "max_tokens"), ("num_samples=0", 400, "num_samples"), ("seed=%3", 400, "hexadecimal"),
    ("seed=%zz", 400, "hexadecimal"), ("seed=1%22%7D", 422, "seed"), ("seed=%00", 422, "seed"), ("=", 400, "unknown"),
    ("seed=" + "1" * 70, 400, "longer"), ("x" * 70 + "=1", 400, "longer"), ("messages=[]", 400, "messages"),
])
def test_bad_query(service, text, status, word):
    found, headers, body = query(service, text)
    assert found == status and word in json.loads(body)["error"], (found, body)
    assert headers["cache-control"] == "no-store" and "etag" not in headers


def test_odd_queries(service):
    whole = query(service, "seed=7&max_tokens=3")
    for text in ("&seed=7&&max_tokens=3&", "%73eed=%37&max_tokens=3", "max_tokens=3&seed=7"):
        assert query(service, text)[2] == whole[2]
    assert query(service, "")[0] == 200
    assert query(service, "seed=18446744073709551615&max_tokens=1e0")[0] == 422
    assert query(service, "", HTTP_ACCEPT="text/html")[0] == 406
    assert query(service, "", HTTP_ACCEPT="text/html,*/*;q=0.8")[0] == 200


def test_pinned(service):
    """A path that names the model may be kept for ever; with another model it is none."""
    mine = fingerprint(service)
    path = f"/microgpt/v1/m/{mine}/generate"
    status, headers, body = query(service, "seed=3", path=path)
    assert (status, headers["cache-control"]) == (200, "public, max-age=31536000, immutable")
    assert body == query(service, "seed=3")[2]
    assert query(service, "seed=3", path=path, HTTP_IF_NONE_MATCH=headers["etag"])[0] == 304
    other = mine[:-1] + ("0" if mine[-1] != "0" else "1")
    for bad in (f"/microgpt/v1/m/{other}/generate", f"/microgpt/v1/m/{mine[:-1]}/generate", f"/microgpt/v1/m/{mine}/chat",
                f"/microgpt/v1/m/{mine.upper()}x/generate", "/microgpt/v1/m//generate"):
        status, headers, _ = query(service, "seed=3", path=bad)
        assert status == 404 and headers.get("cache-control", "no-store") == "no-store"
    status, headers, _ = reply(service, {}, path=path)
    assert (status, headers["allow"]) == (405, "GET, HEAD")


def test_pinned_through_nginx(chat_stack):
    mine = json.loads(ask(chat_stack.port, "GET", "/status").body)["model"]["fingerprint"]
    got = ask(chat_stack.port, "GET", f"/microgpt/v1/m/{mine}/generate?seed=9")
    assert (got.status, got.get("Cache-Control")) == (200, "public, max-age=31536000, immutable")
    assert ask(chat_stack.port, "GET", f"/microgpt/v1/m/{mine}/generate?seed=9", None,
               [("If-None-Match", got.get("ETag"))]).status == 304


def test_curl_keeps_the_etag(chat_stack, tmp_path):
    url = f"http://127.0.0.1:{chat_stack.port}{GENERATE}?seed=11"

    def curl(*arguments):
        (tmp_path / "body").unlink(missing_ok=True)
        return subprocess.run(["curl", "-s", "-o", tmp_path / "body", "-w", "%{http_code}", *arguments, url],
                              capture_output=True, text=True, check=True).stdout
    assert curl("--etag-save", tmp_path / "tag") == "200"
    whole, tag = (tmp_path / "body").read_bytes(), (tmp_path / "tag").read_text().strip()
    assert whole == ask(chat_stack.port, "GET", f"{GENERATE}?seed=11").body
    assert curl("--etag-compare", tmp_path / "tag") == "304"
    assert curl("-H", f"If-None-Match: {tag}") == "304"
    assert curl("-H", f"If-None-Match: {tag[:-2]}x{tag[-1]}") == "200" and (tmp_path / "body").read_bytes() == whole
    post = ["-H", "Content-Type: application/json", "-d", '{"seed": 11}']
    assert curl("-H", f"If-None-Match: {tag}", *post) == "304"


# ---- kept by nginx ----

@pytest.fixture()
def cached():
    """The shipped cache, switched on by the files of the example."""
    with stack.Stack(stack.model(**conftest.CHAT_MODEL), workers=2) as s:
        s.nginx.stop()
        own = s.nginx.prefix / "microgpt.d"
        own.mkdir(exist_ok=True)
        for name in ("cache.http.conf", "cache.api.conf"):
            text = (stack.ROOT / "deploy/examples/cache" / name).read_text()
            (own / name).write_text(text.replace("/var/cache/nginx-microgpt", f"{s.nginx.prefix}/tmp/kept"))
        s.nginx.start()
        s.port = s.nginx.port
        yield s


def other_model(s):
    """Another checkpoint behind the same socket, by a reload."""
    conf = s.service.dir / "conf"
    other = stack.model(**{**conftest.CHAT_MODEL, "seed": 4})
    conf.write_text(re.sub("(?m)^model_dir = .*", f"model_dir = {other}", conf.read_text()))
    attempts.reload_and_wait(s.service)


def test_equal_gets_compute_once(cached):
    path = f"{GENERATE}?num_samples=20&seed=3"
    replies = lib.together([lambda: ask(cached.port, "GET", path) for _ in range(50)])
    assert {(r.status, r.body) for r in replies} == {(200, replies[0].body)}
    states = [r.get("X-Cache") for r in replies]
    assert states.count("MISS") == 1 and set(states) <= {"MISS", "HIT", "REVALIDATED", "EXPIRED"}, states
    assert cached.sum("microgpt_requests_total", endpoint="generate", status="200") == 1
    assert ask(cached.port, "GET", path).get("X-Cache") == "REVALIDATED"
    got = ask(cached.port, "GET", path, None, [("If-None-Match", replies[0].get("ETag"))])
    assert got.status == 304 and got.body == b""
    assert ask(cached.port, "POST", GENERATE, {"num_samples": 20, "seed": 3}).body == replies[0].body
    assert cached.sum("microgpt_requests_total", endpoint="generate", status="200") == 2  # a POST is not kept


def test_a_reload_between_equal_gets(cached):
    """While 50 clients ask for the same the model changes: each reply is whole and of one of the two,
    with its own tag, and none of the old one is given to who asks after the reload."""
    path = f"{GENERATE}?seed=8"
    old = ask(cached.port, "GET", path)
    seen, changed = [], threading.Event()

    def client():
        after = 0
        while after < 3:
            late = changed.is_set()
            got = ask(cached.port, "GET", path)
            seen.append((late, got.status, got.body, got.get("ETag")))
            after += late
    clients = [threading.Thread(target=client) for _ in range(50)]
    for c in clients:
        c.start()
    other_model(cached)
    changed.set()
    for c in clients:
        c.join()
    new = ask(cached.port, "GET", path)
    assert new.body != old.body
    both = {(200, r.body, r.get("ETag")) for r in (old, new)}
    assert {x[1:] for x in seen} == both
    assert {x[1:] for x in seen if x[0]} == {(200, new.body, new.get("ETag"))}


def test_pinned_is_kept(cached):
    mine = cached.status()["model"]["fingerprint"]
    path = f"/microgpt/v1/m/{mine}/generate?seed=4"
    first = ask(cached.port, "GET", path)
    again = ask(cached.port, "GET", path)
    assert (first.get("X-Cache"), again.get("X-Cache")) == ("MISS", "HIT") and again.body == first.body
    assert first.get("X-Request-Id") and first.get("X-Accel-Expires") is None
    assert cached.sum("microgpt_requests_total", endpoint="generate") == 1


def test_errors_are_not_kept(cached):
    for _ in range(2):
        got = ask(cached.port, "GET", f"{GENERATE}?seed=x")
        assert (got.status, got.get("X-Cache")) == (422, "MISS")


def test_no_old_reply_after_a_reload(cached):
    path = f"{GENERATE}?seed=5"
    old = ask(cached.port, "GET", path)
    pinned = f"/microgpt/v1/m/{cached.status()['model']['fingerprint']}/generate?seed=5"
    other_model(cached)
    new = ask(cached.port, "GET", path)
    assert new.status == 200 and new.body != old.body and new.get("ETag") != old.get("ETag")
    assert new.body == ask(cached.port, "POST", GENERATE, {"seed": 5}).body
    assert ask(cached.port, "GET", pinned).status == 404
