# SPDX-License-Identifier: Apache-2.0
"""Format B a second time, slowly: tokenizer, forward pass in double, sampling and the layout of a chat
as the specification has them, with nothing of the service's. What it says a reply is, the service
must say too, byte for byte."""
import json
import math
import random
import re
import struct
import unicodedata
from functools import lru_cache
from pathlib import Path

MASK = (1 << 64) - 1
WHITE = set(map(chr, [*range(9, 14), 0x20, 0x85, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F,
                      0x205F, 0x3000]))
PUNCTUATION = set(map(chr, [*range(0x21, 0x30), *range(0x3A, 0x41), *range(0x5B, 0x61), *range(0x7B, 0x7F)]))
PLAIN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]


def byte_symbols():
    symbols = {b: chr(b) for b in PLAIN}
    rest = [b for b in range(256) if b not in symbols]
    return {**symbols, **{b: chr(0x100 + i) for i, b in enumerate(rest)}}


def is_white(c):
    return c in WHITE


def trim(text):
    first = next((i for i, c in enumerate(text) if not is_white(c)), len(text))
    last = next((i for i in range(len(text), first, -1) if not is_white(text[i - 1])), first)
    return text[first:last]


class Tokenizer:
    SYMBOL = byte_symbols()
    BYTE = {s: b for b, s in SYMBOL.items()}

    def __init__(self, path):
        file = json.loads(Path(path).read_text())
        vocab = file["model"]["vocab"]
        self.vocab, self.rank = dict(vocab), {}
        for i, (a, b) in enumerate(file["model"]["merges"]):
            self.rank[a, b] = i
        self.token = {i: t for t, i in vocab.items()}
        self.special = {}
        for added in file["added_tokens"]:
            at = vocab.get(added["content"], len(self.token))
            self.token[at] = added["content"]
            self.special[added["content"]] = at

    @staticmethod
    def kind(c):
        name = unicodedata.category(c)[0]
        return "s" if is_white(c) else name if name in "LN" else "o"

    def pieces(self, text):
        at = 0
        while at < len(text):
            end = at
            found = re.compile("'(s|t|re|ve|m|ll|d)").match(text, at)
            if found:
                end = found.end()
            else:
                start = at + (text[at] == " " and at + 1 < len(text) and not is_white(text[at + 1]))
                kind, end = self.kind(text[start]), start
                while end < len(text) and self.kind(text[end]) == kind:
                    end += 1
                if kind == "s" and end < len(text) and end - at > 1:
                    end -= 1
            yield text[at:end]
            at = end

    def encode(self, text):
        """Special tokens in it stay text."""
        ids = []
        for piece in self.pieces(text):
            word = [self.SYMBOL[b] for b in piece.encode() if self.SYMBOL[b] in self.vocab]
            while True:
                ranks = [(self.rank.get(pair, math.inf), i) for i, pair in enumerate(zip(word, word[1:]))]
                rank, i = min(ranks, default=(math.inf, 0))
                if rank == math.inf:
                    break
                word[i:i + 2] = [word[i] + word[i + 1]]
            ids += [self.vocab[symbol] for symbol in word]
        return ids

    def bytes_of(self, i, spelled=False):
        text = self.token.get(i, "")
        if text in self.special and not spelled:
            return b""
        if all(c in self.BYTE for c in text):
            return bytes(self.BYTE[c] for c in text)
        return text.encode()

    def decode(self, ids):
        return b"".join(map(self.bytes_of, ids)).decode("utf-8", "replace")

    def spell(self, ids):
        """Each alone, special ones as they are written."""
        return "".join(self.bytes_of(i, spelled=True).decode("utf-8", "replace") for i in ids)


class Model:
    def __init__(self, directory):
        directory = Path(directory)
        self.meta = json.loads((directory / "meta.json").read_text())
        self.tokenizer = Tokenizer(directory / "tokenizer.json")
        data = (directory / "weights.safetensors").read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8:8 + size])
        self.tensor = {}
        for name, entry in header.items():
            if name == "__metadata__":
                continue
            (rows, cols), (begin, end) = entry["shape"], entry["data_offsets"]
            flat = struct.unpack(f"<{rows * cols}f", data[8 + size + begin:8 + size + end])
            self.tensor[name] = [flat[i * cols:(i + 1) * cols] for i in range(rows)]
        self.block_size = self.meta["block_size"]
        self.role = {name: self.tokenizer.special[f"<{name}>"] for name in ("bos", "user", "assistant", "end_turn")}
        self.logits = lru_cache(maxsize=None)(self._logits)
        self.state = lru_cache(maxsize=None)(self._state)

    def _product(self, name, x):
        return [math.fsum(map(float.__mul__, row, x)) for row in self.tensor[name]]

    def _state(self, ids):
        """((k, v) of each layer at the last position, its output)."""
        d, heads = self.meta["n_embd"], self.meta["n_head"]
        size = d // heads
        past = [self.state(ids[:i])[0] for i in range(1, len(ids))]
        x = norm([a + b for a, b in zip(self.tensor["wte"][ids[-1]], self.tensor["wpe"][len(ids) - 1])])
        kept = []
        for layer in range(self.meta["n_layer"]):
            at = f"layer{layer}."
            y = norm(x)
            q, k, v = (self._product(at + name, y) for name in ("attn_wq", "attn_wk", "attn_wv"))
            kept.append((k, v))
            keys = [p[layer][0] for p in past] + [k]
            values = [p[layer][1] for p in past] + [v]
            out = []
            for h in range(0, d, size):
                score = [sum(a * b for a, b in zip(q[h:h + size], key[h:h + size])) / math.sqrt(size) for key in keys]
                weight = [math.exp(s - max(score)) for s in score]
                total = sum(weight)
                out += [sum(w * value[h + i] for w, value in zip(weight, values)) / total for i in range(size)]
            x = [a + b for a, b in zip(self._product(at + "attn_wo", out), x)]
            hidden = [max(a, 0.0) for a in self._product(at + "mlp_fc1", norm(x))]
            x = [a + b for a, b in zip(self._product(at + "mlp_fc2", hidden), x)]
        return kept, x

    def _logits(self, ids):
        return self._product("lm_head", self.state(ids)[1])

    def run(self, prompt, seed, temperature, limit, end, suppress=(), first=(), mixed=True):
        """Ids that follow the prompt, and why they end."""
        state, ids, made = first_state(seed, mixed), tuple(prompt), []
        while len(made) < limit:
            logits = self.logits(ids)
            banned = {*suppress, *(first if not made else ())}
            allowed = [i for i in range(len(logits)) if i not in banned]
            state, token = draw(state, logits, allowed, temperature)
            if token == end:
                return made, "stop"
            made.append(token)
            ids += (token,)
        return made, "length"

    # ---- what the endpoints reply -----------------------------------------------------------

    def sample(self, seed=42, temperature=None, max_tokens=None, compat=False):
        temperature = (0.8 if compat else 0.5) if temperature is None else temperature
        limit = min(max_tokens or self.block_size, self.block_size)
        ids, _ = self.run([self.role["bos"]], seed & MASK, temperature, limit, self.role["bos"], mixed=not compat)
        return trim(self.tokenizer.spell(ids) if compat else self.tokenizer.decode(ids))

    def prompt(self, messages):
        """(ids, dropped)"""
        role, budget = self.role, self.block_size - self.block_size // 4
        turns = [[role[m["role"]], *self.tokenizer.encode(m["content"]), role["end_turn"]] for m in messages]
        total = 2 + sum(map(len, turns))
        kept = list(turns)
        while len(kept) > 1 and 2 + sum(map(len, kept)) > budget:
            kept.pop(0)
        if 2 + sum(map(len, kept)) > budget:
            last = kept[0]
            kept = [[last[0], *last[1:-1][-(budget - 4):], last[-1]]]
        ids = [role["bos"], *(i for turn in kept for i in turn), role["assistant"]]
        return ids, total - len(ids)

    def prompt_06(self, messages):
        role, most = self.role, self.block_size - self.block_size // 4
        ids = []
        for m in messages:
            ids += [role[m["role"]], *self.tokenizer.encode(m["content"]), role["end_turn"]]
        ids.append(role["assistant"])
        if len(ids) <= most:
            return ids, 0
        start = len(ids) - most
        turn = next((i for i in range(start, len(ids)) if ids[i] == role["end_turn"]), None)
        start = start if turn is None else turn + 1
        return [role["bos"], *ids[start:]], start

    def reply(self, messages, seed=42, temperature=None, max_tokens=None, compat=False):
        """(the JSON of the reply, its finish reason)"""
        temperature = (0.8 if compat else 0.5) if temperature is None else temperature
        ids, dropped = (self.prompt_06 if compat else self.prompt)(messages)
        room = self.block_size - len(ids)
        if compat:
            limit = max_tokens or min(max(room, 64), self.block_size // 4)
            limit = min(len(ids) - 1 + limit, self.block_size) - (len(ids) - 1)
        else:
            limit = min(max_tokens or room, room)
        role = self.role
        made, why = self.run(ids, seed, temperature, limit, role["end_turn"],
                             (role["bos"], role["user"], role["assistant"]), (role["end_turn"],), not compat)
        text = trim(self.tokenizer.decode(made))
        if compat:
            rest = next((i for i, c in enumerate(text) if c not in PUNCTUATION), len(text))
            text = text[rest:]
            text = text[next((i for i, c in enumerate(text) if not is_white(c)), len(text)):]
        return {"role": "assistant", "content": text, "tokens_dropped": dropped}, why


def norm(x):
    scale = 1 / math.sqrt(sum(a * a for a in x) / len(x) + 1e-5)
    return [a * scale for a in x]


def first_state(seed, mixed):
    if mixed:
        z = (seed + 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ z >> 30) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ z >> 27) * 0x94D049BB133111EB) & MASK
        seed = z ^ z >> 31
    return seed or 1


def draw(state, logits, allowed, temperature):
    """(next state, token)"""
    top = max(logits[i] for i in allowed)
    if temperature == 0:
        return state, max(i for i in allowed if logits[i] == top)
    state ^= state << 13 & MASK
    state ^= state >> 7
    state ^= state << 17 & MASK
    p = {i: math.exp((logits[i] - top) / temperature) for i in allowed}
    c, sums = 0.0, []
    for i in allowed:
        c += p[i]
        sums.append((c, i))
    u = state / 18446744073709551616.0
    return state, next((i for s, i in sums if u * c < s), max((i for i in allowed if p[i] > 0), default=0))


# ---- requests ---------------------------------------------------------------------------------

WORDS = ["the", " and", "he", "Hello", "é", "中文", "😀", " ", "  ", "\n", "\n\n", "'s", "'ll", "123", "½", "<user>",
         "<end_turn>", "<bos>", "<assistant>", "...", "!?", "\u00a0", "\u2028", "\u0301", "\x00", "of the", "ing", "Zz"]


def random_text(rng, longest):
    return "".join(rng.choice(WORDS) for _ in range(rng.randint(1, longest)))


def random_options(rng):
    body = {}
    if rng.random() < 0.7:
        body["seed"] = rng.choice([0, 1, 2, rng.randrange(1 << 16), rng.randrange(1 << 64), MASK])
    if rng.random() < 0.7:
        body["temperature"] = rng.choice([0, 0.3, 0.8, 1.0, 1.5, 3])
    if rng.random() < 0.5:
        body["max_tokens"] = rng.choice([1, 2, 5, 12, 30, 1000])
    return body


def random_chat(rng, known):
    """A chat of which each message holds something: known(text) says so."""
    messages = []
    for i in range(rng.choice([1, 1, 2, 3, 5])):
        text = random_text(rng, rng.choice([2, 5, 20, 60]))
        while not trim(text) or not known(text):
            text = random_text(rng, 9)
        messages.append({"role": rng.choice(["user", "assistant"]) if i % 2 else "user", "content": text})
    return {"messages": messages, **random_options(rng)}


def chance(seed):
    return random.Random(seed)
