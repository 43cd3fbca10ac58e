#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Judge the demo models by what they say: check_demo.py [--bounds] [MICROGPT [FOLDER]].

FOLDER holds chat/ and names/. chat: six canonical questions and twenty paraphrases that the
corpus does not hold, each with the seeds 1 to 50 at temperature 0.5. A reply must be made of
words that the corpus's assistant uses, of whole sentences, and be an answer of its topic. The
questions of unseen.txt are asked too and counted, and so are talks of eight turns, without a
bound; --bounds leaves these out.
names: 200 samples. Prints counts and the worst replies; exit status 1 when a bound is missed.
"""
import json
import random
import re
import subprocess
import sys
from collections import Counter, defaultdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "chat"))
import make_corpus  # noqa: E402

SEEDS = range(1, 51)
TEMPERATURE = "0.5"
TALKS, TURNS = 60, 8
CANONICAL = [("greet", "hello"), ("who", "who are you?"), ("can", "what can you do?"),
             ("how", "how are you?"), ("thanks", "thanks"), ("bye", "bye")]
NEEDED = {"spelled": 0.99, "whole": 0.99, "on topic": 0.95}  # share of all replies
VOWELS = "aeiouy"
# Runs of four consonants that names have.
CLUSTERS = re.compile(r"chr|thr|phr|sch|str|ntr|rtr|ndr|ngsl|nnfr")


def ask(program, models, seed, prompts, after="/clear\n"):
    """The reply to each prompt; alone in its conversation unless nothing is said after it."""
    script = "".join(prompt + "\n" + after for prompt in prompts)
    run = subprocess.run(
        [program, "chat", "--model", str(models / "chat"), "--temperature", TEMPERATURE,
         "--seed", str(seed)], input=script, capture_output=True, text=True, check=True)
    replies = run.stdout.splitlines()
    assert len(replies) == len(prompts), run.stdout
    return replies


def split_words(text):
    return [w.strip(".,!?:").lower() for w in text.split()]


def judge(reply, topic, topics, words):
    """{criterion: kept?}"""
    sentences = re.split(r"(?<=[.!?]) ", reply)
    return {
        "spelled": all(w in words for w in split_words(reply)),
        "whole": all(s[-1:] in (".", "!", "?") and s[:1].isupper() for s in sentences),
        "on topic": reply in topics[topic].answers,
    }


def count_unseen(program, models, topics, words):
    """How the replies to unseen.txt do; that is what they are for, so there is no bound."""
    questions = make_corpus.read_questions("unseen.txt")
    total = Counter()
    for seed in SEEDS:
        for (topic, _), reply in zip(questions, ask(program, models, seed, [q for _, q in questions])):
            kept = judge(reply, topic, topics, words)
            total.update(k for k in kept if kept[k])
    print(f"unseen: {len(questions)} questions, the same seeds: "
          + ", ".join(f"{k} {total[k]}" for k in kept) + f" of {len(questions) * len(SEEDS)}")


def count_talks(program, models, topics, words):
    """Sixty talks of eight new messages from all topics, by what the corpus gives weight to."""
    lists, rng, right = make_corpus.read_topics()[1], random.Random(777), Counter()
    names, weights = list(topics), [t.weight for t in topics.values()]
    for seed in range(1, TALKS + 1):
        about = rng.choices(names, weights, k=TURNS)
        said = [make_corpus.say(topics[name], lists, rng, set()) for name in about]
        for turn, (name, reply) in enumerate(zip(about, ask(program, models, seed, said, ""))):
            kept = judge(reply, name, topics, words)
            right[turn] += kept["spelled"] and kept["whole"]
            right["on topic"] += kept["on topic"]
    print(f"talks: {TALKS} of {TURNS} turns; spelled and whole, by turn: "
          + " ".join(str(right[turn]) for turn in range(TURNS))
          + f"; on topic {right['on topic']} of {TALKS * TURNS}")


def check_chat(program, models, bounds_only):
    topics, _ = make_corpus.read_topics()
    words = {w for t in topics.values() for a in t.answers for w in split_words(a)}
    questions = CANONICAL + make_corpus.read_questions("paraphrases.txt")
    asked = [question for _, question in questions]
    replies = {seed: ask(program, models, seed, asked) for seed in SEEDS}
    total, each, faults = Counter(), defaultdict(Counter), []
    for i, (topic, question) in enumerate(questions):
        for seed in SEEDS:
            reply = replies[seed][i]
            kept = judge(reply, topic, topics, words)
            total.update(k for k in kept if kept[k])
            each[question].update(k for k in kept if kept[k])
            missed = [k for k in kept if not kept[k]]
            if missed:
                faults.append((len(missed), question, seed, reply, ", ".join(missed)))
    n = len(questions) * len(SEEDS)
    print(f"chat: {n} replies to {len(questions)} questions, temperature {TEMPERATURE}, "
          f"seeds {SEEDS[0]} to {SEEDS[-1]}")
    for topic, question in questions:
        counts = "  ".join(f"{k} {each[question][k]:2d}" for k in kept)
        print(f"  {topic:6s} {question:45s} {counts}")
    for k in kept:
        print(f"  {k}: {total[k]} of {n}")
    print("the ten worst:")
    for _, question, seed, reply, missed in sorted(faults, key=lambda f: -f[0])[:10]:
        print(f"  {question!r}, seed {seed}: {reply!r} (not {missed})")
    print("three seeds of each:")
    for i, (_, question) in enumerate(questions):
        print(f"  {question}: " + " | ".join(replies[seed][i] for seed in (1, 2, 3)))
    if not bounds_only:
        count_unseen(program, models, topics, words)
        count_talks(program, models, topics, words)
    return all(total[k] >= share * n for k, share in NEEDED.items())


def pronounceable(name):
    """A vowel, two to twelve letters, no four consonants in a row but in known clusters."""
    if not re.fullmatch(r"[a-z]{2,12}", name) or not any(c in VOWELS for c in name):
        return False
    return all(len(run) <= 3 or (len(run) == 4 and CLUSTERS.search(run))
               for run in re.split(f"[{VOWELS}]+", name))


def check_names(program, models):
    known = set((HERE / "names" / "names.txt").read_text(encoding="ascii").split())
    run = subprocess.run(
        [program, "generate", "--model", str(models / "names"), "--num-samples", "200",
         "--temperature", TEMPERATURE, "--seed", "1", "--json"],
        capture_output=True, text=True, check=True)
    names = json.loads(run.stdout)["samples"]
    good = [n for n in names if pronounceable(n)]
    letters = Counter(n[:1] for n in names)
    old = sum(n in known for n in names)
    top, most = letters.most_common(1)[0]
    print(f"names: {len(names)} samples, temperature {TEMPERATURE}, seed 1")
    print(f"  pronounceable: {len(good)}; in the training list: {old}; different: "
          f"{len(set(names))}; first letters: {len(letters)}, most often {top!r}: {most}")
    print("  not pronounceable: " + " ".join(repr(n) for n in names if n not in good))
    print("  some: " + " ".join(names[:30]))
    return (len(good) >= 0.95 * len(names) and old <= len(names) / 2
            and len(letters) >= 12 and most <= len(names) / 4)


def main(args):
    bounds_only = args[:1] == ["--bounds"]
    args = args[bounds_only:]
    program = args[0] if args else str(HERE.parents[1] / "build" / "microgpt")
    models = Path(args[1]) if len(args) > 1 else HERE
    verdicts = [check_chat(program, models, bounds_only), check_names(program, models)]
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
