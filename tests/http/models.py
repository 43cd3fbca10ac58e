# SPDX-License-Identifier: Apache-2.0
"""Random checkpoints of any shape, written from microgpt-checkpoint(5) with the standard library alone.
Weights are uniform with the standard deviation asked for; the same arguments give the same bytes."""
import array
import hashlib
import json
import random
import struct
from pathlib import Path

LETTERS = [chr(c) for c in range(ord("a"), ord("z") + 1)]
TEXT = LETTERS + list(" .,!?\n'") + [chr(c) for c in range(ord("A"), ord("Z") + 1)]
UNICODE = list("abc \n.") + ["é", "ß", "Ω", "\u00a0", "\u2003", "\u2028", "\u3000", "中", "語", "😀", "\U0010ffff", "\u0301"]


def to_bytes(values, dtype):
    if dtype == "F32":
        return values.tobytes()
    if dtype == "F16":
        return struct.pack(f"<{len(values)}e", *values)
    words = array.array("H", values.tobytes())  # BF16: the upper half of each float
    return words[1::2].tobytes()


def tensor(rng, rows, cols, std):
    step = std * 3 ** 0.5 / 32768
    return array.array("f", [step * x for x in array.array("h", rng.randbytes(2 * rows * cols))])


def save(directory, meta, shapes, values, dtype="F32"):
    """Write tensors (name -> [rows, cols], name -> floats) and meta.json; the directory."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    header, data, at = {}, [], 0
    for name, shape in shapes.items():
        body = to_bytes(values[name], dtype)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(body)]}
        data.append(body)
        at += len(body)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    head = struct.pack("<Q", len(text)) + text
    (directory / "weights.safetensors").write_bytes(head + b"".join(data))
    (directory / "meta.json").write_text(json.dumps(meta))
    return directory


def shapes_of(vocab, n_embd, n_layer, block_size):
    shapes = {"wte": (vocab, n_embd), "wpe": (block_size, n_embd), "lm_head": (vocab, n_embd)}
    for i in range(n_layer):
        for name in ("attn_wq", "attn_wk", "attn_wv", "attn_wo"):
            shapes[f"layer{i}.{name}"] = (n_embd, n_embd)
        shapes[f"layer{i}.mlp_fc1"] = (4 * n_embd, n_embd)
        shapes[f"layer{i}.mlp_fc2"] = (n_embd, 4 * n_embd)
    return shapes


def write(directory, n_embd=32, n_head=4, n_layer=2, block_size=64, chars=TEXT, chat=True,
          dtype="F32", std=0.08, seed=1, endless=False, edit=None):
    """Write a checkpoint; its directory. endless: the rows of lm_head for special tokens are 0, so
    that a greedy reply hardly ever ends before max_tokens. edit(shapes, values) may change weights."""
    rng = random.Random(seed)
    vocab = len(chars) + (4 if chat else 1)
    shapes = shapes_of(vocab, n_embd, n_layer, block_size)
    values = {name: tensor(rng, *shape, std) for name, shape in shapes.items()}
    if endless:
        at = len(chars) * n_embd
        values["lm_head"][at:] = array.array("f", bytes(4 * (vocab - len(chars)) * n_embd))
    if edit:
        edit(shapes, values)
    meta = {"vocab_size": vocab, "n_embd": n_embd, "n_head": n_head, "n_layer": n_layer,
            "block_size": block_size, "chars": chars}
    if chat:
        meta["special_tokens"] = ["user", "assistant", "end_turn"]
    return save(directory, meta, shapes, values, dtype)


def cached(root, **shape):
    """The checkpoint of this shape under root, written once."""
    name = hashlib.sha256(json.dumps(shape, sort_keys=True).encode()).hexdigest()[:16]
    directory = Path(root) / name
    if not (directory / "complete").exists():
        part = Path(root) / f"{name}.{random.SystemRandom().randrange(1 << 40)}"
        write(part, **shape)
        (part / "complete").write_text("")
        try:
            part.rename(directory)
        except OSError:  # another test was first
            pass
    return directory
