#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write corpus.jsonl, the conversations of the chat demo, from topics.txt.

Every phrase of a user is an expansion of a hand-written pattern, sometimes with a typing
slip; every answer is a hand-written sentence, unchanged. The same topics.txt gives the same bytes.
"""
import json
import random
import re
import string
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEED = 1
CONTEXT = 256          # block_size of the model: a conversation is one document
MAX_USER = 60          # characters of a user's message
MAX_BYTES = 6_000_000  # of corpus.jsonl

QUESTION = re.compile(
    r"(who|what|whom|whats|hows|which|how|where|when|why|is|are|r|do|does|did|can|could|will|"
    r"would|should|may|must|shall|have you|was|were|am i|what's|how's|who's)\b")
OPENERS = ["hi, ", "hello, ", "hey, ", "ok, ", "so, ", "well, ", "please, ", "hello! ", "hi! ",
           "hi ", "hello ", "hey ", "and ", "but ", "so ", "good morning, ", "thanks, ", "oh, "]
# These begin or end a message by themselves; an opener would change what they mean.
NO_OPENER = {"greet", "thanks", "bye", "gibberish", "test", "yes", "no", "ok", "again"}
NO_SUFFIX = {"gibberish", "math", "meet", "language", "story"}
# Letters that stand side by side on a keyboard, for typing slips.
ROWS = ["qwertyuiop", "asdfghjkl", "zxcvbnm"]


class Topic:
    def __init__(self, name, weight):
        self.name, self.weight = name, weight
        self.phrases, self.answers, self.spread = [], [], []


def read_topics(path=HERE / "topics.txt"):
    """topics.txt -> ({name: Topic}, {list name: [words]})"""
    topics, lists, topic = {}, {}, None
    for line in path.read_text(encoding="ascii").splitlines():
        if line.startswith("["):
            name, weight = line.strip("[]").split()
            topic = topics[name] = Topic(name, int(weight))
        elif line.startswith("< "):
            topic.phrases.append(line[2:])
        elif line.startswith("> "):
            topic.answers.append(line[2:])
        elif line.startswith("{"):
            name, words = line[1:].split("} ", 1)
            lists[name] = words.split(", ")
    for topic in topics.values():
        topic.spread = [breadth(p, lists) ** 0.5 for p in topic.phrases]
    return topics, lists


def breadth(phrase, lists):
    """How many expansions a pattern has, bounded so that none drowns the others."""
    n = 1
    for group in re.findall(r"\(([^()]*)\)", phrase):
        n *= group.count("|") + 1
    for name in re.findall(r"\{(\w+)\}", phrase):
        n *= len(lists.get(name, "1234"))
    return min(n, 400)


def make_noise(rng):
    """Keyboard mash and printable characters of every kind."""
    kind = rng.random()
    if kind < 0.4:
        row = rng.choice(ROWS)
        return "".join(rng.choice(row) for _ in range(rng.randint(3, 12)))
    if kind < 0.6:
        letters = string.ascii_letters + string.digits
        return " ".join("".join(rng.choice(letters) for _ in range(rng.randint(2, 7)))
                        for _ in range(rng.randint(1, 3)))
    visible = string.ascii_letters + string.digits + string.punctuation * 3
    return "".join(rng.choice(visible) for _ in range(rng.randint(2, 14)))


def expand(phrase, lists, rng):
    """One expansion of a pattern. A choice may hold a list; choices do not nest."""
    text = re.sub(r"\(([^()]*)\)", lambda m: rng.choice(m.group(1).split("|")), phrase)
    text = re.sub(r"\{(\w+)\}", lambda m: make_noise(rng) if m.group(1) == "noise"
                  else rng.choice(lists[m.group(1)]), text)
    return re.sub(r" +", " ", text).strip()


def slip(text, rng):
    """One typing slip inside a word."""
    spots = [i for i in range(1, len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha()]
    if not spots:
        return text
    i = rng.choice(spots)
    kind = rng.randrange(4)
    if kind == 0:
        return text[:i] + text[i + 1:]
    if kind == 1:
        return text[:i] + text[i + 1] + text[i] + text[i + 2:]
    if kind == 2:
        return text[:i] + text[i] + text[i:]
    row = next((r for r in ROWS if text[i] in r), None)
    if row is None:
        return text
    near = row[max(0, row.index(text[i]) - 1):row.index(text[i]) + 2]
    return text[:i] + rng.choice(near) + text[i + 1:]


def dress(text, rng):
    """Upper case, punctuation and slips as people type them."""
    asks = QUESTION.match(text) is not None
    if rng.random() < 0.07:
        text = slip(text, rng)
    style = rng.random()
    if style < 0.55:
        text = text[:1].upper() + text[1:]
        text = re.sub(r"\bi\b", "I", text)
    elif style < 0.59:
        text = text.upper()
    elif style < 0.62:
        text = " ".join(w[:1].upper() + w[1:] for w in text.split(" "))
    if text[-1:].isalnum():
        text += rng.choice(["?", "?", "?", "?", "", "", "??", "."] if asks
                           else [".", ".", "!", "!", "", "", "", "!!"])
    return text


def plain(text):
    """Letters and digits only: two messages that differ in nothing else are the same."""
    return " ".join(re.sub(r"[^a-z0-9 ]", "", text.lower()).split())


def say(topic, lists, rng, taboo):
    """A message of a user on a topic, never one of those kept for the check."""
    while True:
        text = expand(rng.choices(topic.phrases, topic.spread)[0], lists, rng)
        if topic.name != "gibberish":
            if topic.name not in NO_OPENER and rng.random() < 0.12:
                text = rng.choice(OPENERS) + text
            if topic.name not in NO_SUFFIX and rng.random() < 0.06:
                text += rng.choice([", ", " "]) + rng.choice(lists["there"])
            text = dress(text, rng)
        if 0 < len(text) <= MAX_USER and plain(text) not in taboo and text.strip():
            return text


def cost(messages):
    """Tokens of a conversation: one for each character, role, end of turn, and both ends."""
    return 2 + sum(2 + len(m["content"]) for m in messages)


def converse(topics, lists, rng, taboo):
    """One conversation of up to five turns that fits the context."""
    names = list(topics)
    weights = [topics[n].weight for n in names]
    turns = rng.choices([1, 2, 3, 4, 5], [36, 18, 18, 20, 8])[0]
    messages = []
    for turn in range(turns):
        name = rng.choices(names, weights)[0]
        if turn == 0 and turns > 1 and rng.random() < 0.2:
            name = "greet"
        if turn and turn == turns - 1 and rng.random() < 0.2:
            name = rng.choice(["thanks", "bye"])
        pair = [{"role": "user", "content": say(topics[name], lists, rng, taboo)},
                {"role": "assistant", "content": rng.choice(topics[name].answers)}]
        if cost(messages + pair) > CONTEXT:
            break
        messages += pair
    if len(messages) > 2 and rng.random() < 0.12:
        messages = messages[1:]  # as after early history was dropped
    return messages


def read_questions(name):
    """paraphrases.txt or unseen.txt -> [(topic, message)]"""
    lines = (HERE / name).read_text(encoding="ascii").splitlines()
    return [tuple(line.split("\t")) for line in lines if line and not line.startswith("#")]


def make_corpus():
    rng = random.Random(SEED)
    topics, lists = read_topics()
    kept_out = read_questions("paraphrases.txt") + read_questions("unseen.txt")
    taboo = {plain(text) for _, text in kept_out}
    assert len(taboo) == 61 and {t for t, _ in kept_out} <= set(topics)
    for topic in topics.values():
        for answer in topic.answers:
            assert len(answer) <= 90 and answer[-1] in ".!?" and answer[0].isupper(), answer
    lines, size = [], 0
    while True:
        messages = converse(topics, lists, rng, taboo)
        line = json.dumps(messages, separators=(",", ":")) + "\n"
        size += len(line)
        if size > MAX_BYTES:
            break
        lines.append(line)
        users = (m["content"] for m in messages if m["role"] == "user")
        assert not taboo & {plain(u) for u in users}
    seen = set("".join(m["content"] for line in lines for m in json.loads(line)))
    assert seen == set(map(chr, range(32, 127))), "not every printable character is used"
    return lines


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "corpus.jsonl"
    corpus = make_corpus()
    target.write_text("".join(corpus), encoding="ascii")
    print(f"{target}: {len(corpus)} conversations, {sum(map(len, corpus))} bytes")
