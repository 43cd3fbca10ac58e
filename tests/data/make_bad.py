#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How tests/data/tiny, good/ and bad/ were made: run it to write them again, to the same bytes.

tiny is a whole checkpoint of 236 weights. Each folder of bad/ is tiny with one thing wrong; the
file `expected` in it holds the status and the message of mg_model_open, DIR standing for the
folder; a message that ends with * is compared up to there. Each folder of good/ is tiny with
something unusual but legal; `expected` holds dtype, number of weights and the warnings.
"""
import json
import os
import shutil
import struct
import sys

import bad_tokenizer as of_tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
META = {"vocab_size": 4, "n_embd": 4, "n_head": 2, "n_layer": 1, "block_size": 3,
        "chars": ["a", "b", "c"]}
SHAPES = {"wte": (4, 4), "wpe": (3, 4), "lm_head": (4, 4),
          "layer0.attn_wq": (4, 4), "layer0.attn_wk": (4, 4), "layer0.attn_wv": (4, 4),
          "layer0.attn_wo": (4, 4), "layer0.mlp_fc1": (16, 4), "layer0.mlp_fc2": (4, 16)}
SIZE = {"F32": 4, "F16": 2, "BF16": 2}
DATA = 944  # bytes of data in tiny
HEADER_LIMIT = 100000000


def number(name, i):
    """A weight: some fixed value in (-0.5, 0.5), exact in every dtype."""
    return ((sum(name.encode()) * 31 + i * 37) % 127 - 63) / 128


def pack(dtype, values):
    if dtype == "BF16":
        return b"".join(struct.pack("<f", v)[2:] for v in values)
    return struct.pack("<%d%s" % (len(values), {"F32": "f", "F16": "e"}[dtype]), *values)


def tensors(dtype="F32", special=None):
    """name -> [dtype, shape, bytes]; special: {name: (index, value)} or {name: dtype}."""
    out = {}
    for name, (rows, cols) in SHAPES.items():
        values = [number(name, i) for i in range(rows * cols)]
        what = (special or {}).get(name)
        kind = what if isinstance(what, str) else dtype
        if isinstance(what, tuple):
            values[what[0]] = what[1]
        out[name] = [kind, [rows, cols], pack(kind, values)]
    return out


def layout(parts):
    """Header entries and data for tensors laid one after the other."""
    header, data = {}, b""
    for name, (dtype, shape, raw) in parts.items():
        header[name] = {"dtype": dtype, "shape": shape,
                        "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    return header, data


def text(header):
    return json.dumps(header, separators=(",", ":")).encode()


def join(raw_header, data, length=None):
    return struct.pack("<Q", len(raw_header) if length is None else length) + raw_header + data


HEADER, TINY_DATA = layout(tensors())
TINY = join(text(HEADER), TINY_DATA)


def changed(name=None, **fields):
    """tiny with fields of one header entry replaced (None: taken out)."""
    header = json.loads(text(HEADER))
    for key, value in fields.items():
        if value is None:
            del header[name][key]
        else:
            header[name][key] = value
    return join(text(header), TINY_DATA)


def entry(name, value):
    """tiny with a whole header entry replaced or added."""
    return join(text({**HEADER, name: value}), TINY_DATA)


def without(name):
    parts = tensors()
    del parts[name]
    return join(*[f(x) for f, x in zip((text, bytes), layout(parts))])


def replaced(old, new):
    """tiny with bytes of the header replaced."""
    raw = text(HEADER)
    assert raw.count(old) >= 1, old
    return join(raw.replace(old, new, 1), TINY_DATA)


def meta(**fields):
    out = {**META, **fields}
    return json.dumps({k: v for k, v in out.items() if v != "absent"}).encode()


def raw_meta(old, new):
    raw = meta()
    assert raw.count(old) >= 1, old
    return raw.replace(old, new, 1)


BAD, GOOD = {}, {}
W, M = "DIR/weights.safetensors: ", "DIR/meta.json: "


def bad(name, expected, status="MG_EFILE", weights=TINY, meta_json=meta(), **files):
    assert name not in BAD, name
    BAD[name] = ({"weights.safetensors": weights, "meta.json": meta_json,
                  **{k.replace("__", "."): v for k, v in files.items()}},
                 "%s %s" % (status, expected))


def bad_meta(name, expected, raw, **files):
    """meta.json is read first, so these need no weights."""
    bad("meta-" + name, M + expected, meta_json=raw, weights=None, **files)


def good(name, dtype, n_params, *warnings, weights=TINY, meta_json=meta(), **files):
    GOOD[name] = ({"weights.safetensors": weights, "meta.json": meta_json,
                   **{k.replace("__", "."): v for k, v in files.items()}},
                  "\n".join(["%s %d" % (dtype, n_params), *warnings]))


def tensor(name, what):
    return W + 'tensor "%s": %s' % (name, what)


# ---- files -----------------------------------------------------------------------------------
bad("weights-missing", W + "No such file or directory; expected a file of a checkpoint",
    "MG_ENOFILE", weights=None)
bad("weights-directory", W + "found a directory, expected a regular file",
    weights={"keep": b""})
bad("meta-missing", M + "No such file or directory; expected a file of a checkpoint",
    "MG_ENOFILE", meta_json=None)
bad("meta-directory", M + "found a directory, expected a regular file", meta_json={"keep": b""})
bad("swapped-files", M + "not valid JSON*", weights=meta(), meta_json=TINY)

# ---- header length ---------------------------------------------------------------------------
LEN = len(text(HEADER))
bad("weights-empty", W + "found 0 bytes, expected at least 8: a header length", weights=b"")
bad("weights-7-bytes", W + "found 7 bytes, expected at least 8: a header length",
    weights=TINY[:7])
bad("weights-8-bytes", W + "header length: found %d, expected at most 0, the rest of the file"
    % LEN, weights=TINY[:8])
bad("weights-9-bytes", W + "header length: found %d, expected at most 1, the rest of the file"
    % LEN, weights=TINY[:9])
bad("weights-cut-in-header",
    W + "header length: found %d, expected at most %d, the rest of the file" % (LEN, LEN - 1),
    weights=TINY[:8 + LEN - 1])
for label, n in (("0", 0), ("1", 1)):
    bad("header-length-" + label, W + 'header: expected JSON that starts with "{"',
        weights=join(text(HEADER), TINY_DATA, n))
for label, n in (("2-63", 1 << 63), ("2-64", (1 << 64) - 1), ("beyond-file", LEN + DATA + 1),
                 ("100-mb", HEADER_LIMIT), ("big-endian", LEN << 48)):
    bad("header-length-" + label,
        W + "header length: found %d, expected at most %d, the rest of the file"
        % (n, LEN + DATA), weights=join(text(HEADER), TINY_DATA, n))
bad("header-length-one-short", W + "not valid JSON: line 1*",
    weights=join(text(HEADER), TINY_DATA, LEN - 1))
bad("header-length-one-long", W + "not valid JSON: line 1*",
    weights=join(text(HEADER), b"\x01" + TINY_DATA[1:], LEN + 1))
bad("header-length-whole-file", W + "not valid JSON: line 1*",
    weights=join(text(HEADER), TINY_DATA, LEN + DATA))

# ---- header text -----------------------------------------------------------------------------
bad("header-array", W + 'header: expected JSON that starts with "{"',
    weights=join(b"[]", TINY_DATA))
bad("header-leading-space", W + 'header: expected JSON that starts with "{"',
    weights=join(b" " + text(HEADER), TINY_DATA))
bad("header-bom", W + 'header: expected JSON that starts with "{"',
    weights=join(b"\xef\xbb\xbf" + text(HEADER), TINY_DATA))
bad("header-not-json", W + "not valid JSON: line 1, column 6: *",
    weights=join(b"{wrong", b""))
bad("header-not-closed", W + "not valid JSON: line 1*", weights=join(text(HEADER)[:-1], TINY_DATA))
bad("header-trailing-text", W + "not valid JSON: line 1*",
    weights=join(text(HEADER) + b"x", TINY_DATA))
bad("header-padded-with-nul", W + "not valid JSON: line 1*",
    weights=join(text(HEADER) + b"\0\0", TINY_DATA))
bad("header-two-objects", W + "not valid JSON: line 1*",
    weights=join(text(HEADER) + b"{}", TINY_DATA))
bad("header-empty-object", W + "found 944 bytes after the last tensor, expected none",
    weights=join(b"{}", TINY_DATA))
bad("header-empty-object-no-data", tensor("wte", "missing; expected shape [4, 4]"),
    weights=join(b"{}", b""))
for label, raw in (("lone-byte", b"w\xfft"), ("overlong", b"w\xc0\xaft"),
                   ("surrogate", b"w\xed\xa0\x80t"), ("too-large", b"w\xf4\x90\x80\x80t"),
                   ("cut-short", b"w\xe2\x82t"), ("latin1", b"w\xe9t")):
    bad("header-utf8-" + label, W + "not valid JSON: line 1*", weights=replaced(b"wte", raw))
bad("header-utf8-in-padding", W + "not valid JSON: line 1*",
    weights=join(text(HEADER) + b" \xff", TINY_DATA))
bad("header-lone-surrogate-escape", W + "not valid JSON: line 1*",
    weights=replaced(b"wte", b"w\\ud800"))
bad("header-nul-in-name", W + "not valid JSON: line 1*", weights=replaced(b"wte", b"w\\u0000"))
bad("header-control-in-name", W + "not valid JSON: line 1*", weights=replaced(b"wte", b"w\n"))
bad("header-too-deep", W + "not valid JSON: line 1*",
    weights=join(b'{"a":' + b"[" * 2100 + b"]" * 2100 + b"}", b""))
bad("header-duplicate-tensor", W + "not valid JSON: line 1, column 64: duplicate object key near*",
    weights=join(b'{"wte":' + text(HEADER["wte"]) + b"," + text(HEADER)[1:], TINY_DATA))
bad("header-duplicate-escaped", W + "not valid JSON: line 1*",
    weights=join(b'{"\\u0077te":' + text(HEADER["wte"]) + b"," + text(HEADER)[1:], TINY_DATA))
bad("header-duplicate-field", W + "not valid JSON: line 1*",
    weights=replaced(b'"dtype":', b'"dtype":"F32","dtype":'))
bad("header-integer-too-big", W + "not valid JSON: line 1*",
    weights=replaced(b"[4,4]", b"[4,18446744073709551616]"))
bad("header-real-too-big", W + "not valid JSON: line 1*", weights=replaced(b"[4,4]", b"[4,1e999]"))

# ---- __metadata__ ----------------------------------------------------------------------------
bad("metadata-array", W + "__metadata__: found an array, expected an object",
    weights=entry("__metadata__", []))
bad("metadata-string", W + "__metadata__: found a string, expected an object",
    weights=entry("__metadata__", "pt"))
bad("metadata-number", W + "__metadata__: step: found 5, expected a string",
    weights=entry("__metadata__", {"format": "pt", "step": 5}))
bad("metadata-nested", W + "__metadata__: a: found an object, expected a string",
    weights=entry("__metadata__", {"a": {}}))

# ---- entries ---------------------------------------------------------------------------------
for label, value, found in (("null", None, "null"), ("array", [], "an array"),
                            ("string", "F32", "a string"), ("number", 1, "1"),
                            ("true", True, "true")):
    bad("entry-" + label, tensor("wpe", "found %s, expected an object" % found),
        weights=entry("wpe", value))
KINDS = "expected F32, F16 or BF16"
for label, value, found in (("f64", "F64", '"F64"'), ("lower-case", "f32", '"f32"'),
                            ("empty", "", '""'), ("i8", "I8", '"I8"'), ("long", "F32 ", '"F32 "'),
                            ("fp8", "F8_E4M3", '"F8_E4M3"'), ("number", 32, "32"),
                            ("false", False, "false"), ("array", ["F32"], "an array"),
                            ("missing", None, "nothing")):
    bad("dtype-" + label, tensor("wpe", "dtype: found %s, %s" % (found, KINDS)),
        weights=changed("wpe", dtype=value))
bad("dtype-hostile", tensor("wpe", 'dtype: found "\\x1b[31m\\x0aroot\\xc2\\x9b", ' + KINDS),
    weights=changed("wpe", dtype="\x1b[31m\nroot\x9b"))
bad("dtype-f16-size", tensor("wpe", "data_offsets: found 48 bytes, expected 3 x 4 x 2"),
    weights=changed("wpe", dtype="F16"))

# ---- shapes ----------------------------------------------------------------------------------
for label, value, found in (("rank-0", [], 0), ("rank-1", [12], 1), ("rank-3", [3, 4, 1], 3),
                            ("rank-9", [1] * 9, 9)):
    bad("shape-" + label, tensor("wpe", "shape: found %d elements, expected 2" % found),
        weights=changed("wpe", shape=value))
for label, value, found in (("missing", None, "nothing"), ("string", "3x4", "a string"),
                            ("number", 12, "12"), ("object", {}, "an object")):
    bad("shape-" + label,
        tensor("wpe", "shape: found %s, expected an array of 2 integers" % found),
        weights=changed("wpe", shape=value))
for label, value, i, found in (("negative", [-3, 4], 0, "-3"), ("both-negative", [-3, -4], 0, "-3"),
                               ("fraction", [3, 4.5], 1, "the real number 4.5"),
                               ("real", [3.0, 4], 0, "the real number 3"),
                               ("of-strings", ["3", "4"], 0, "a string"),
                               ("of-null", [3, None], 1, "null")):
    bad("shape-" + label, tensor("wpe", "shape[%d]: found %s, expected an integer >= 0"
                                 % (i, found)), weights=changed("wpe", shape=value))
for label, (r, c) in (("2-32-squared", (1 << 32, 1 << 32)), ("2-62", (1 << 62, 4)),
                      ("wraps-to-right", ((1 << 62) + 3, 4)), ("zero", (0, 4)), ("int64-max",
                      ((1 << 63) - 1, (1 << 63) - 1)), ("too-many-rows", (4, 4))):
    bad("shape-" + label, tensor("wpe", "data_offsets: found 48 bytes, expected %d x %d x 4"
                                 % (r, c)), weights=changed("wpe", shape=[r, c]))
bad("shape-swapped-fc1", tensor("layer0.mlp_fc1", "shape: found [4, 16], expected [16, 4]"),
    weights=changed("layer0.mlp_fc1", shape=[4, 16]))
bad("shape-swapped-fc2", tensor("layer0.mlp_fc2", "shape: found [16, 4], expected [4, 16]"),
    weights=changed("layer0.mlp_fc2", shape=[16, 4]))
bad("shape-swapped-wpe", tensor("wpe", "shape: found [4, 3], expected [3, 4]"),
    weights=changed("wpe", shape=[4, 3]))
bad("shape-flat-wte", tensor("wte", "shape: found [1, 16], expected [4, 4]"),
    weights=changed("wte", shape=[1, 16]))
bad("shape-2-by-8-wq", tensor("layer0.attn_wq", "shape: found [2, 8], expected [4, 4]"),
    weights=changed("layer0.attn_wq", shape=[2, 8]))

# ---- offsets ---------------------------------------------------------------------------------
for label, value, found in (("missing", None, "nothing"), ("number", 64, "64")):
    bad("offsets-" + label,
        tensor("wpe", "data_offsets: found %s, expected an array of 2 integers" % found),
        weights=changed("wpe", data_offsets=value))
for value in ([64], [64, 112, 112]):
    bad("offsets-%d-elements" % len(value),
        tensor("wpe", "data_offsets: found %d elements, expected 2" % len(value)),
        weights=changed("wpe", data_offsets=value))
bad("offsets-negative", tensor("wpe", "data_offsets[0]: found -64, expected an integer >= 0"),
    weights=changed("wpe", data_offsets=[-64, 112]))
bad("offsets-real", tensor("wpe", "data_offsets[1]: found the real number 112, expected an "
                           "integer >= 0"), weights=changed("wpe", data_offsets=[64, 112.0]))
bad("offsets-backwards", tensor("wpe", "data_offsets: found [112, 64], expected begin <= end"),
    weights=changed("wpe", data_offsets=[112, 64]))
END = ("data_offsets: found end %d, expected at most the %d bytes of data in the file "
       "(was it cut short?)")
bad("offsets-beyond-by-one", tensor("layer0.mlp_fc2", END % (945, 944)),
    weights=changed("layer0.mlp_fc2", data_offsets=[689, 945]))
bad("offsets-huge", tensor("wpe", END % ((1 << 63) - 1, 944)),
    weights=changed("wpe", data_offsets=[64, (1 << 63) - 1]))
bad("offsets-of-another-size", tensor("wpe", "data_offsets: found 47 bytes, expected 3 x 4 x 4"),
    weights=changed("wpe", data_offsets=[64, 111]))
bad("offsets-empty", tensor("wpe", "data_offsets: found 0 bytes, expected 3 x 4 x 4"),
    weights=changed("wpe", data_offsets=[64, 64]))
PLACE = "data_offsets: found begin %d, expected %d (%s)"
bad("offsets-overlap", tensor("wpe", PLACE % (63, 64, "tensors overlap")),
    weights=changed("wpe", data_offsets=[63, 111]))
bad("offsets-same-place", tensor("layer0.attn_wk", PLACE % (176, 240, "tensors overlap")),
    weights=changed("layer0.attn_wk", data_offsets=[176, 240]))
bad("offsets-hole", tensor("wpe", PLACE % (65, 64, "a hole")),
    weights=changed("wpe", data_offsets=[65, 113]))
bad("offsets-hole-at-start", tensor("wte", PLACE % (4, 0, "a hole")),
    weights=join(text({k: {**v, "data_offsets": [x + 4 for x in v["data_offsets"]]}
                       for k, v in HEADER.items()}), b"\0" * 4 + TINY_DATA))
bad("data-trailing-byte", W + "found 1 bytes after the last tensor, expected none",
    weights=TINY + b"\0")
bad("data-trailing-bytes", W + "found 100 bytes after the last tensor, expected none",
    weights=TINY + b"\0" * 100)
for label, n in (("by-one", 943), ("by-a-float", 940), ("before-last", 688)):
    bad("data-cut-" + label, tensor("layer0.mlp_fc2", END % (944, n)),
        weights=TINY[:8 + LEN + n])
bad("data-cut-whole", tensor("wte", END % (64, 0)), weights=TINY[:8 + LEN])

# ---- what the model needs --------------------------------------------------------------------
for name, (rows, cols) in SHAPES.items():
    bad("missing-" + name, tensor(name, "missing; expected shape [%d, %d]" % (rows, cols)),
        weights=without(name))
bad("missing-second-layer", tensor("layer1.attn_wq", "missing; expected shape [4, 4]"),
    meta_json=meta(n_layer=2))
bad("name-case", tensor("wte", "missing; expected shape [4, 4]"),
    weights=replaced(b'"wte"', b'"WTE"'))
bad("name-prefixed", tensor("wte", "missing; expected shape [4, 4]"),
    weights=replaced(b'"wte"', b'"transformer.wte"'))
bad("vocab-larger-than-weights", tensor("wte", "shape: found [4, 4], expected [5, 4]"),
    meta_json=meta(vocab_size=5, chars=["a", "b", "c", "d"]))
bad("vocab-smaller-than-weights", tensor("wte", "shape: found [4, 4], expected [3, 4]"),
    meta_json=meta(vocab_size=3, chars=["a", "b"]))
bad("embd-larger-than-weights", tensor("wte", "shape: found [4, 4], expected [4, 8]"),
    meta_json=meta(n_embd=8))
bad("block-larger-than-weights", tensor("wpe", "shape: found [3, 4], expected [4, 4]"),
    meta_json=meta(block_size=4))
bad("block-smaller-than-weights", tensor("wpe", "shape: found [3, 4], expected [2, 4]"),
    meta_json=meta(block_size=2))
PARTS = {**tensors(), "lm_head": ["F32", [5, 4], pack("F32", [0.25] * 20)]}
bad("lm-head-rows", tensor("lm_head", "shape: found [5, 4], expected [4, 4]"),
    weights=join(*[f(x) for f, x in zip((text, bytes), layout(PARTS))]))
NAN, INF = float("nan"), float("inf")
for kind in SIZE:
    for label, value in (("nan", NAN), ("inf", INF), ("minus-inf", -INF)):
        bad("%s-%s" % (label, kind.lower()),
            tensor("layer0.attn_wo", "found %s at index 13 (row 3, column 1), expected a finite "
                   "number" % ("NaN" if value != value else "Inf")),
            weights=join(*[f(x) for f, x in zip((text, bytes), layout(
                tensors(kind, {"layer0.attn_wo": (13, value)})))]))
bad("nan-first", tensor("wte", "found NaN at index 0 (row 0, column 0), expected a finite "
                        "number"), weights=join(*[f(x) for f, x in zip((text, bytes), layout(
                            tensors("F32", {"wte": (0, NAN)})))]))
bad("nan-last", tensor("layer0.mlp_fc2", "found NaN at index 63 (row 3, column 15), expected a "
                       "finite number"), weights=join(*[f(x) for f, x in zip(
                           (text, bytes), layout(tensors("F32", {"layer0.mlp_fc2": (63, NAN)})))]))

# ---- meta.json -------------------------------------------------------------------------------
LIMITS = {"vocab_size": 1114116, "n_embd": 65536, "n_head": 65536, "n_layer": 4096,
          "block_size": 1048576}
for key, limit in LIMITS.items():
    for label, value, found in (("missing", "absent", "nothing"), ("zero", 0, "0"),
                                ("negative", -4, "-4"), ("fraction", 4.5, "the real number 4.5"),
                                ("huge", (1 << 63) - 1, str((1 << 63) - 1))):
        bad_meta("%s-%s" % (key, label),
                 "%s: found %s, expected an integer from 1 to %d" % (key, found, limit),
                 meta(**{key: value}))
    bad_meta("%s-over-limit" % key, "%s: found %d, expected an integer from 1 to %d"
             % (key, limit + 1, limit), meta(**{key: limit + 1}))
for label, value, found in (("real", 4.0, "the real number 4"), ("string", "4", "a string"),
                            ("null", None, "null"), ("true", True, "true"),
                            ("array", [4], "an array"), ("2-32", 4294967300, "4294967300")):
    bad_meta("n_embd-" + label, "n_embd: found %s, expected an integer from 1 to 65536" % found,
             meta(n_embd=value))
bad_meta("n_embd-exponent", "n_embd: found the real number 4, expected an integer from 1 to 65536",
         raw_meta(b'"n_embd": 4', b'"n_embd": 4e0'))
bad_meta("integer-too-big", "not valid JSON: line 1*",
         raw_meta(b'"n_embd": 4', b'"n_embd": 9223372036854775808'))
bad_meta("n_head-not-dividing", "n_embd: found 4, expected a multiple of n_head, 3",
         meta(n_head=3))
bad_meta("n_head-larger", "n_embd: found 4, expected a multiple of n_head, 8", meta(n_head=8))
VOCAB = "vocab_size: found %d, expected %d: 3 chars + %s"
bad_meta("vocab_size-off-by-one", VOCAB % (3, 4, "1"), meta(vocab_size=3))
bad_meta("vocab_size-chat-without-special", VOCAB % (7, 4, "1"), meta(vocab_size=7))
bad_meta("vocab_size-special-without-chat", VOCAB % (4, 7, "4 (special_tokens is there)"),
         meta(special_tokens=["user", "assistant", "end_turn"]))
bad_meta("vocab_size-empty-special", VOCAB % (4, 7, "4 (special_tokens is there)"),
         meta(special_tokens=[]))
for label, value, found in (("string", "user", "a string"), ("number", 3, "3"),
                            ("object", {}, "an object"), ("false", False, "false")):
    bad_meta("special_tokens-" + label,
             "special_tokens: found %s, expected an array or null" % found,
             meta(special_tokens=value))
bad_meta("format-unknown", "found neither chars in meta.json nor a file tokenizer.json beside "
         "it, expected one of them", meta(chars="absent"))
for label, value, found in (("string", "abc", "a string"), ("null", None, "null"),
                            ("object", {"a": 0}, "an object"), ("number", 3, "3")):
    bad_meta("chars-" + label, "chars: found %s, expected an array of strings" % found,
             meta(chars=value))
for label, value, found in (("of-numbers", ["a", 98, "c"], "98"), ("of-null", ["a", None], "null"),
                            ("of-arrays", ["a", ["b"]], "an array")):
    bad_meta("chars-" + label, "chars[1]: found %s, expected a string" % found, meta(chars=value))
bad_meta("chars-empty-string", "chars[2]: found an empty string, expected one character",
         meta(chars=["a", "b", ""]))
for label, value in (("two", "bc"), ("two-wide", "\u4e2d\u6587"), ("combining", "e\u0301"),
                     ("flag", "\U0001f1e9\U0001f1ea"), ("joined-emoji", "\U0001f469\u200d\U0001f4bb")):
    bad_meta("chars-" + label, 'chars[1]: found "%s", expected one character' % value,
             meta(chars=["a", value, "c"]))
bad_meta("chars-nul-and-more", 'chars[0]: found "", expected one character',
         meta(chars=["\0a", "b", "c"]))
bad_meta("chars-bom-and-more", 'chars[0]: found "\ufeffa", expected one character',
         meta(chars=["\ufeffa", "b", "c"]))
AGAIN = "chars[%d]: found U+%04X again (as chars[%d]), expected no duplicates"
bad_meta("chars-duplicate", AGAIN % (2, 97, 0), meta(chars=["a", "b", "a"]))
bad_meta("chars-duplicate-escaped", AGAIN % (1, 97, 0), raw_meta(b'"b"', b'"\\u0061"'))
bad_meta("chars-duplicate-emoji", AGAIN % (2, 0x1f600, 1),
         '{"vocab_size":4,"n_embd":4,"n_head":2,"n_layer":1,"block_size":3,'
         '"chars":["a","\U0001f600","\\ud83d\\ude00"]}'.encode())
bad_meta("chars-duplicate-nul", AGAIN % (1, 0, 0), meta(chars=["\0", "\0", "c"]))
bad_meta("chars-lone-surrogate", "not valid JSON: line 1*", raw_meta(b'"b"', b'"\\ud800"'))
bad_meta("chars-utf8", "not valid JSON: line 1*", raw_meta(b'"b"', b'"\xe9"'))
bad_meta("chars-raw-newline", "not valid JSON: line 1*", raw_meta(b'"b"', b'"\n"'))
bad_meta("empty", "not valid JSON: line 1*", b"")
bad_meta("blank", "not valid JSON: line 3*", b" \n\n ")
bad_meta("cut-short", "not valid JSON: line 1*", meta()[:-1])
bad_meta("cut-in-half", "not valid JSON: line 1*", meta()[:50])
bad_meta("array", "found JSON that is an array, expected an object", b"[" + meta() + b"]")
bad_meta("bom", "not valid JSON: line 1*", b"\xef\xbb\xbf" + meta())
bad_meta("utf16", "not valid JSON: line 1*", meta().decode().encode("utf-16"))
bad_meta("trailing-comma", "not valid JSON: line 1*", meta()[:-1] + b",}")
bad_meta("trailing-text", "not valid JSON: line 2*", meta() + b"\nx")
bad_meta("trailing-nul", "not valid JSON: line 1*", meta() + b"\0")
bad_meta("comment", "not valid JSON: line 1*", b"// sizes\n" + meta())
bad_meta("duplicate", "not valid JSON: line 1*", raw_meta(b'"n_head"', b'"n_embd": 4, "n_head"'))
bad_meta("nan", "not valid JSON: line 1*", raw_meta(b'"n_embd": 4', b'"n_embd": NaN'))
bad_meta("too-deep", "not valid JSON: line 1*",
         meta()[:-1] + b',"x":' + b"[" * 2100 + b"]" * 2100 + b"}")

# ---- tokenizer.json --------------------------------------------------------------------------
def bad_tokenizer(name, expected, raw, meta_json=None, status="MG_EFILE"):
    """It is read before the weights, so these need none."""
    bad("tokenizer-" + name, "DIR/tokenizer.json: " + expected, status, weights=None,
        meta_json=meta_json or meta(chars="absent"), tokenizer__json=raw)


def good_tokenizer(name, raw, **fields):
    good("tokenizer-" + name, "F32", 236, meta_json=meta(chars="absent", **fields),
         tokenizer__json=raw)


of_tokenizer.add_bad(bad_tokenizer, meta)
of_tokenizer.add_good(good_tokenizer)

# ---- unusual but legal -----------------------------------------------------------------------
MIXED = {"wte": "F16", "wpe": "BF16", "layer0.mlp_fc1": "BF16"}


def packed(parts, extra=None):
    header, data = layout(parts)
    return join(text({**header, **(extra or {})}), data)


def misaligned():
    """A header of odd length, one byte before the first tensor, all dtypes."""
    parts = {"pad": ["F16", [0, 7], b""], **tensors("F32", MIXED)}
    header, data = layout(dict(reversed(list(parts.items()))))
    raw = text(header)
    return join(raw + b" " * (1 - len(raw) % 2), data)


good("plain", "F32", 236)
good("f16", "F16", 236, weights=packed(tensors("F16")))
good("bf16", "BF16", 236, weights=packed(tensors("BF16")))
good("mixed", "mixed", 236, weights=packed(tensors("F32", MIXED)))
good("misaligned", "mixed", 236,
     W + '1 tensor not part of the model, ignored: "pad"', weights=misaligned())
good("reversed", "F32", 236, weights=packed(dict(reversed(list(tensors().items())))))
good("padded-header", "F32", 236, weights=join(text(HEADER) + b" " * 57, TINY_DATA))
good("metadata", "F32", 236, weights=entry("__metadata__", {"format": "pt", "a": "\0,{["}))
good("unknown-field", "F32", 236, weights=changed("wpe", note="kept from training"))
good("extra-tensor", "F32", 236, W + '1 tensor not part of the model, ignored: "bias"',
     weights=packed({**tensors(), "bias": ["F32", [1, 2], pack("F32", [NAN, INF])]}))
good("extra-tensors", "F32", 236, W + '2 tensors not part of the model, ignored: "a\\x0a", ...',
     weights=packed({"z": ["F16", [1, 1], b"\0\0"], **tensors(), "a\n": ["F32", [0, 0], b""]}))
good("second-layer-unused", "F32", 236,
     W + '1 tensor not part of the model, ignored: "layer1.attn_wq"',
     weights=packed({**tensors(), "layer1.attn_wq": tensors()["layer0.attn_wq"]}))
good("both-tokenizers", "F32", 236, "DIR: meta.json has chars, so tokenizer.json is ignored",
     tokenizer__json=b"not even JSON")
good("special-null", "F32", 236, meta_json=meta(special_tokens=None))
good("special-empty-no-chars", "F32", 236, meta_json=meta(special_tokens=[], chars=[]))
good("one-char-of-each-length", "F32", 236, meta_json=meta(chars=["\0", "\u00e9", "\U0010ffff"]))
good("unknown-keys", "F32", 236, meta_json=meta(name="tiny", chars2=[1.5, None]))
good("training-files", "F32", 236, train_state__json=b"{", optimizer_m__safetensors=b"")


def write(folder, files):
    os.makedirs(folder)
    for name, content in files.items():
        path = os.path.join(folder, name)
        if isinstance(content, dict):
            write(path, content)
        elif content is not None:
            with open(path, "wb") as f:
                f.write(content)


def main():
    assert len(TINY_DATA) == DATA
    for kind, cases in (("bad", BAD), ("good", GOOD)):
        shutil.rmtree(os.path.join(HERE, kind), ignore_errors=True)
        for name, (files, expected) in cases.items():
            write(os.path.join(HERE, kind, name), {**files, "expected": expected.encode() + b"\n"})
    shutil.rmtree(os.path.join(HERE, "tiny"), ignore_errors=True)
    write(os.path.join(HERE, "tiny"), {"weights.safetensors": TINY, "meta.json": meta() + b"\n"})
    print("%d bad, %d good" % (len(BAD), len(GOOD)), file=sys.stderr)


if __name__ == "__main__":
    main()
