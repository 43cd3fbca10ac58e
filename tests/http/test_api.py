# SPDX-License-Identifier: Apache-2.0
"""Bodies of the two POSTs: every field, type and bound of microgpt-api(7), and what the replies say."""
import array

import pytest

import models
import stack
from lib import CHAT, ask, chat, generate, says

TOP = 2 ** 64 - 1
WHITE_SPACE = [*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000]


def fails(reply, status, *words):
    """The reply is this error and its text holds the words."""
    assert reply.status == status, reply
    text = reply.error()
    for word in words:
        assert word in text, reply
    return text


# ---- generate ----

def test_generate_defaults(names_stack):
    reply = generate(names_stack.port)
    assert reply.status == 200
    assert list(reply.json()) == ["samples"] and len(reply.json()["samples"]) == 1
    assert reply.body == generate(names_stack.port, {"num_samples": 1, "temperature": 0.5, "seed": 42,
                                                     "max_tokens": None, "stream": False}).body
    assert reply.body == generate(names_stack.port, {"max_tokens": 16}).body
    assert reply.body != generate(names_stack.port, {"seed": 43}).body


def test_same_request_same_bytes(names_stack, chat_stack):
    for s in (names_stack, chat_stack):
        body = {"num_samples": 7, "seed": 9, "temperature": 1.3}
        assert len({generate(s.port, body).body for _ in range(6)}) == 1


@pytest.mark.parametrize("n, got", [(1, 1), (2, 2), (49, 49), (50, 50), (51, 50), (1000, 50), (2 ** 63, 50), (TOP, 50)])
def test_num_samples(names_stack, n, got):
    assert len(generate(names_stack.port, {"num_samples": n, "max_tokens": 2}).json()["samples"]) == got


def test_sample_i_has_seed_plus_i(names_stack):
    port = names_stack.port
    many = generate(port, {"num_samples": 50, "seed": 1000, "temperature": 1}).json()["samples"]
    singles = [generate(port, {"seed": 1000 + i, "temperature": 1}).json()["samples"][0] for i in range(50)]
    assert many == singles
    assert len(set(many)) > 25


def test_seed_is_exact_up_to_2_64(names_stack):
    def samples(seed, n=1):
        return generate(names_stack.port, {"seed": seed, "num_samples": n, "temperature": 1}).json()["samples"]
    top = samples(TOP)
    assert top != samples(TOP - 1)
    assert samples(TOP - 1, 2)[1:] == top
    assert samples(TOP, 3)[1:] == samples(0, 2)  # wraps
    for seed in (2 ** 53, 2 ** 63 - 1, 2 ** 63, 12345678901234567890):  # neighbours are told apart
        assert samples(seed, 2)[1:] == samples(seed + 1) != samples(seed)


NO_INT = ["-1", "1.0", "1e0", "1E2", "0.5", "-0.0", str(2 ** 64), "1" + "0" * 30, "-" + "9" * 30, '"1"', "true",
          "false", "[]", "{}", "[1]"]


@pytest.mark.parametrize("value", [*NO_INT, "null"])
@pytest.mark.parametrize("field", ["seed", "num_samples", "max_tokens"])
def test_no_int(names_stack, field, value):
    reply = generate(names_stack.port, b'{"%s": %s}' % (field.encode(), value.encode()))
    if (field, value) == ("max_tokens", "null"):
        assert reply.status == 200
    else:
        fails(reply, 422, field)


@pytest.mark.parametrize("value", [*NO_INT, "null"])
@pytest.mark.parametrize("field", ["seed", "max_tokens"])
def test_no_int_in_chat(chat_stack, field, value):
    body = b'{"messages":[{"role":"user","content":"hi"}], "%s": %s}' % (field.encode(), value.encode())
    reply = ask(chat_stack.port, "POST", CHAT, body)
    if (field, value) == ("max_tokens", "null"):
        assert reply.status == 200
    else:
        fails(reply, 422, field)


@pytest.mark.parametrize("value", ["1", "16", "17", str(2 ** 63), str(TOP)])
def test_max_tokens(names_stack, value):
    samples = generate(names_stack.port, b'{"num_samples": 5, "max_tokens": %s}' % value.encode()).json()["samples"]
    assert max(len(s) for s in samples) <= min(int(value), 16)


def test_max_tokens_cuts(names_stack):
    """A shorter reply is the beginning of the longer one (no white space in this model)."""
    whole = generate(names_stack.port, {"temperature": 1}).json()["samples"][0]
    for n in range(1, 17):
        assert generate(names_stack.port, {"temperature": 1, "max_tokens": n}).json()["samples"][0] == whole[:n]


@pytest.mark.parametrize("field", ["num_samples", "max_tokens"])
def test_zero_is_out_of_range(names_stack, field):
    fails(generate(names_stack.port, {field: 0}), 400, field)


@pytest.mark.parametrize("text, status", [
    ("0", 200), ("0.0", 200), ("-0.0", 200), ("1", 200), ("1e-300", 200), ("4.9e-324", 200), ("1e308", 200),
    ("1000000", 200), ("0.5000000000000000000000001", 200), ("1E-400", 200),
    ("-1", 400), ("-0.001", 400), ("-1e-300", 400), ("1e309", 400), ("1e400", 400), ("-1e400", 400),
    ("9" * 400, 400),
    ('"0.5"', 422), ("null", 422), ("true", 422), ("[]", 422), ("{}", 422)])
def test_temperature(names_stack, chat_stack, text, status):
    replies = [generate(names_stack.port, b'{"temperature": %s}' % text.encode()),
               ask(chat_stack.port, "POST", CHAT,
                   b'{"temperature": %s, "messages":[{"role":"user","content":"hi"}]}' % text.encode())]
    for reply in replies:
        if status == 200:
            assert reply.status == 200, reply
        else:
            fails(reply, status)


def test_temperature_0_is_greedy(names_stack):
    samples = generate(names_stack.port, {"temperature": 0, "num_samples": 5}).json()["samples"]
    assert len(set(samples)) == 1 and samples[0]
    # so cold that the largest logit wins every draw
    assert generate(names_stack.port, {"temperature": 1e-9}).json()["samples"] == samples[:1]


@pytest.mark.parametrize("value, status", [("true", 200), ("false", 200), ("1", 422), ("null", 422), ('"true"', 422),
                                           ("[]", 422)])
def test_stream_is_a_bool(names_stack, value, status):
    reply = generate(names_stack.port, b'{"max_tokens": 2, "stream": %s}' % value.encode())
    assert reply.status == status


# ---- the JSON of a body ----

@pytest.mark.parametrize("body", [
    b"", b" ", b"{", b"{}}", b"{} x", b"{'a': 1}", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": 01}', b'{"a": +1}',
    b'{"a": .5}', b'{"a": 1.}', b'{"a" 1}', b'{"a": 1,}', b'{"a": "\n"}', b'{"a": "\\x"}', b'{"a": "\\ud800"}',
    b'{"a": "\\udc00\\ud800"}', b'{"a": "\xff"}', b'{"a": "\xc0\x80"}', b'{"a": "\xed\xa0\x80"}',
    b'{"a": "\xf4\x90\x80\x80"}', b"\xff\xfe{\x00}\x00", b'{"a": tru}', b'{"a": "', b"{\x00}", b'{"a": 1e}', b"[1,",
    b"[" * 100000, b'{"a":' * 100000, b"[" * 100000 + b"]" * 100000])
def test_no_json(names_stack, body):
    fails(generate(names_stack.port, body), 400, "line", "column")


@pytest.mark.parametrize("body", [b"[]", b"[{}]", b"null", b"true", b"1", b'"{}"', b"-1.5"])
def test_no_object(names_stack, body):
    fails(generate(names_stack.port, body), 400)


def test_line_and_column(names_stack):
    text = fails(generate(names_stack.port, b'{\n  "seed": 1,\n  "x": ?\n}'), 400, "line 3")
    assert "column" in text


@pytest.mark.parametrize("body", [b' \t\r\n{"seed":42}\r\n ', b'{"SEED": -1, "Seed": null, "seed ": "x"}',
                                  b'{"x": {"seed": -1}, "messages": 5, "model": "a", "top_p": null}',
                                  b'{"user": 123456789012345678901234567890}', b'{"x": [-99999999999999999999, {"y": 18446744073709551615}]}',
                                  b'{"\\u0073eed": 42}', b'{"": 1, "\xc3\xa9": 2}',
                                  b'{"x": ' + b"[" * 1000 + b"]" * 1000 + b"}"])
def test_unknown_members_are_ignored(names_stack, body):
    reply = generate(names_stack.port, body)
    assert reply.status == 200, reply
    assert reply.body == generate(names_stack.port).body


def test_the_last_of_a_member_counts(names_stack, chat_stack):
    port = names_stack.port
    assert generate(port, b'{"seed": -1, "seed": "x", "seed": 7}').body == generate(port, {"seed": 7}).body
    assert generate(port, b'{"seed": 7, "num_samples": 2, "\\u0073eed": 18446744073709551615}').body == \
        generate(port, {"seed": TOP, "num_samples": 2}).body
    fails(generate(port, b'{"seed": 7, "seed": -1}'), 422, "seed")
    body = b'{"messages": 1, "messages": [{"role": "bot", "role": "user", "content": " ", "content": "hi"}]}'
    assert ask(chat_stack.port, "POST", CHAT, body).body == chat(chat_stack.port, "hi").body


def test_nul(names_stack, chat_stack):
    fails(generate(names_stack.port, b'{"a\\u0000b": 1}'), 400)
    fails(generate(names_stack.port, b'{"x": {"\\u0000": 1}}'), 400)
    assert generate(names_stack.port, b'{"a": "\\u0000"}').status == 200
    assert chat(chat_stack.port, says("a\0b")).json() == chat(chat_stack.port, says("ab")).json()
    fails(chat(chat_stack.port, says("\0")), 400)


def test_json_tree_over_its_memory_limit(names_stack):
    body = b'{"x": [' + b"[]," * 1300000 + b"1]}"
    assert len(body) < 4 << 20
    fails(generate(names_stack.port, body), 413)
    assert generate(names_stack.port).status == 200


# ---- chat ----

def test_chat_reply(chat_stack):
    reply = chat(chat_stack.port, "hello")
    assert reply.status == 200
    value = reply.json()
    assert list(value) == ["role", "content", "tokens_dropped"]
    assert (value["role"], value["tokens_dropped"]) == ("assistant", 0)
    assert value["content"] and value["content"] == value["content"].strip()
    assert reply.get("X-Finish-Reason") in ("stop", "length")
    assert int(reply.get("X-Prompt-Tokens")) == 9  # bos user h e l l o end_turn assistant
    assert 1 <= int(reply.get("X-Completion-Tokens")) <= 64 - 9
    more = {"temperature": 0.5, "seed": 42, "max_tokens": None, "stream": False}
    assert chat(chat_stack.port, says("hello", **more)).body == reply.body
    assert chat(chat_stack.port, says("hello", seed=43)).body != reply.body


def test_finish_reason(chat_stack):
    seen = set()
    for seed in range(40):
        whole = chat(chat_stack.port, says("hi", seed=seed, temperature=1))
        n, reason = int(whole.get("X-Completion-Tokens")), whole.get("X-Finish-Reason")
        assert (reason == "length") == (n == 64 - 6), whole
        seen.add(reason)
        if reason == "stop":
            cut = chat(chat_stack.port, says("hi", seed=seed, temperature=1, max_tokens=n))
            assert cut.get("X-Finish-Reason") == "length" and cut.json() == whole.json()
            more = chat(chat_stack.port, says("hi", seed=seed, temperature=1, max_tokens=n + 1))
            assert more.get("X-Finish-Reason") == "stop" and more.json() == whole.json()
    one = chat(chat_stack.port, says("hi", max_tokens=1))
    assert (one.get("X-Finish-Reason"), one.get("X-Completion-Tokens")) == ("length", "1")
    assert "stop" in seen


def test_generate_has_no_chat_headers_missing_fields(chat_stack):
    value = generate(chat_stack.port, {"num_samples": 3}).json()
    assert list(value) == ["samples"]
    assert all(s == s.strip() for s in value["samples"])


def drop(lengths, block=64):
    """(tokens dropped, prompt tokens) for messages of so many known characters (microgpt-api(7))."""
    budget = block - block // 4
    costs = [2 + n for n in lengths]
    dropped = 0
    while len(costs) > 1 and 2 + sum(costs) > budget:
        dropped += costs.pop(0)
    total = 2 + sum(costs)
    return dropped + max(0, total - budget), min(total, budget)


@pytest.mark.parametrize("lengths", [[44], [45], [46], [200], [10, 10], [20, 20], [21, 21], [22, 22], [21, 22], [30, 10, 30],
                                     [5] * 6, [5] * 7, [5] * 40, [44, 1], [45, 1], [100, 100], [1, 100], [100, 1], [3] * 200])
def test_truncation(chat_stack, lengths):
    messages = [{"role": ("user", "assistant")[i % 2], "content": "abcdefghij"[i % 10] * n}
                for i, n in enumerate(lengths)]
    reply = chat(chat_stack.port, {"messages": messages, "max_tokens": 1})
    got = reply.json()["tokens_dropped"], int(reply.get("X-Prompt-Tokens"))
    assert got == drop(lengths)


def test_truncated_chat_equals_the_short_one(chat_stack):
    """What was cut has no influence; unknown characters are skipped and cost nothing."""
    old = [{"role": "user", "content": "x" * 40}, {"role": "assistant", "content": "y" * 40}]
    last = {"role": "user", "content": "how are you?"}
    cut = chat(chat_stack.port, {"messages": [*old, last]}).json()
    assert (cut["content"], cut["tokens_dropped"]) == (chat(chat_stack.port, {"messages": [last]}).json()["content"], 84)
    tail = chat(chat_stack.port, says("q" * 300 + "b" * 44)).json()["content"]
    assert tail == chat(chat_stack.port, says("b" * 44)).json()["content"]
    odd = chat(chat_stack.port, says("h\u00e9\U0001F600ow a\u4e2dre you?"))
    assert odd.body == chat(chat_stack.port, says("how are you?")).body


@pytest.mark.parametrize("messages", ["null", "1", '"x"', "{}", "true", "[1]", "[null]", "[[]]", '["x"]',
                                      '[{"role":"user"}]', '[{"content":"x"}]', "[{}]", '[{"role":"user","content":null}]',
                                      '[{"role":"user","content":1}]', '[{"role":"user","content":["x"]}]',
                                      '[{"role":1,"content":"x"}]', '[{"role":null,"content":"x"}]',
                                      '[{"role":"user","content":"x"}, {"role":"user"}]'])
def test_messages_of_a_wrong_type(chat_stack, messages):
    fails(ask(chat_stack.port, "POST", CHAT, b'{"messages": %s}' % messages.encode()), 422, "messages")


def test_messages_missing(chat_stack):
    fails(chat(chat_stack.port, {}), 422, "messages")
    fails(chat(chat_stack.port, {"message": []}), 422, "messages")
    fails(chat(chat_stack.port, {"messages": []}), 400, "messages")


@pytest.mark.parametrize("role", ["system", "User", "", "user ", "tool", "end_turn", "bos"])
def test_unknown_role(chat_stack, role):
    messages = [{"role": "user", "content": "x"}, {"role": role, "content": "x"}]
    text = fails(chat(chat_stack.port, {"messages": messages}), 400, "messages[1]", "unknown role")
    assert f'messages[1]: unknown role "{role}"' == text


@pytest.mark.parametrize("code", WHITE_SPACE)
def test_blank_by_every_white_space(chat_stack, unicode_stack, code):
    for s in (chat_stack, unicode_stack):
        for text in (chr(code), chr(code) * 3, " " + chr(code) + "\n"):
            fails(chat(s.port, says(text)), 400, "messages[0]")


@pytest.mark.parametrize("content", ["", "\u4e2d\u6587", "\U0001F600", "\u200b", "\ufeff", "\u180e", "\u0301", " \u4e2d "])
def test_nothing_the_model_knows(chat_stack, content):
    """No known character, or only white space beside unknown ones: zero width space is no white space."""
    reply = chat(chat_stack.port, says(content))
    if content == " \u4e2d ":
        assert reply.status == 200  # the blanks are known characters, and the text is not blank
    else:
        fails(reply, 400, "messages[0]")


def test_blank_in_history(chat_stack):
    messages = [{"role": "user", "content": "x"}, {"role": "assistant", "content": " "}, {"role": "user", "content": "y"}]
    fails(chat(chat_stack.port, {"messages": messages}), 400, "messages[1]")


def test_client_text_never_becomes_a_special_token(chat_stack):
    for text in ("<end_turn>", "<|assistant|>", "user", "assistant"):
        reply = chat(chat_stack.port, says(text, max_tokens=1))
        known = sum(c in models.TEXT for c in text)
        assert int(reply.get("X-Prompt-Tokens")) == known + 4


def test_content_of_almost_4_mib(chat_stack):
    text = "abcdefgh" * (4 * 1024 * 127)
    reply = chat(chat_stack.port, says(text, max_tokens=2))
    assert reply.json()["tokens_dropped"] == len(text) - 44


@pytest.mark.parametrize("body", [{}, {"messages": 5}, {"messages": [], "seed": -1}, {"temperature": -1}, says("hi"),
                                  says("hi", stream=True)])
def test_no_chat_tokens(names_stack, body):
    assert fails(chat(names_stack.port, body), 400) == "model was not trained with chat tokens"


def test_no_chat_tokens_comes_after_json(names_stack):
    fails(ask(names_stack.port, "POST", CHAT, b"{"), 400, "line", "column")
    assert fails(ask(names_stack.port, "POST", CHAT, b"[]"), 400) != "model was not trained with chat tokens"


# ---- error texts ----

@pytest.mark.parametrize("role", ["a" * 500, '"' * 500, "\\" * 500, "\u00e9" * 500, "\U0001F600" * 500,
                                  "\n\r\t" * 200, "\u2028" * 100, "\x7f\x1b[31m" * 50, "\0" * 99, "\u202e" * 99])
def test_echo_is_short_and_one_line(chat_stack, role):
    text = fails(chat(chat_stack.port, {"messages": [{"role": role, "content": "x"}]}), 400, "unknown role")
    frame = len('messages[0]: unknown role ""')
    assert len(text) <= frame + 40 + 3
    assert not any(ord(c) < 32 or ord(c) == 127 or c in "\u2028\u2029\x85" for c in text)


@pytest.mark.parametrize("body", [b'{"' + b"a" * 3000 + b'": tru}', b'{"x": ' + b"z" * 3000, b'{"a": "' + b"\xff" * 3000 + b'"}',
                                  b'{"\xc3\xa9' + b"\xf0\x9f\x98\x80" * 300 + b'" 1}'])
def test_json_errors_are_short(names_stack, body):
    text = fails(generate(names_stack.port, body), 400)
    assert len(text) <= 200


# ---- a fault of the service ----

def inf_after_assistant(shapes, values):
    """Logits overflow when the token fed last is `assistant`; after bos everything is fine."""
    vocab, d = shapes["lm_head"]
    for name in values:
        if name.startswith("layer"):
            values[name] = array.array("f", bytes(4 * len(values[name])))
    values["lm_head"] = array.array("f", bytes(4 * vocab * d))
    values["lm_head"][3 * d + 0] = 3e38  # token 3, feature 0: only `assistant` has it
    for token in range(vocab):
        values["wte"][token * d] = 5.0 if token == vocab - 3 else 0.0
        values["wte"][token * d + 1] = 0.0 if token == vocab - 3 else 5.0
    for position in range(shapes["wpe"][0]):
        values["wpe"][position * d] = 0.0
    values["lm_head"][4 * d + 1] = 20.0  # token 4 after anything else


def test_logit_that_is_not_finite():
    directory = models.write(stack.temporary(), edit=inf_after_assistant)
    with stack.Stack(directory, workers=1) as s:
        assert generate(s.port).status == 200
        secret = "some words that are nobody else's"
        for body in (says(secret), says(secret, stream=True)):
            text = fails(chat(s.port, body), 500)
            assert "logit" not in text.lower()
        assert generate(s.port).status == 200
        log = s.service.log()
    assert "status=500" in log and "finite" in log
    assert "nobody" not in log


def test_log_says_nothing_of_the_content(chat_stack):
    chat(chat_stack.port, "xylophone quartz")
    chat(chat_stack.port, {"messages": [{"role": "zebra crossing", "content": "x"}]})
    log = chat_stack.service.log()
    assert "xylophone" not in log and "zebra" not in log
    assert "endpoint=chat" in log
