# SPDX-License-Identifier: Apache-2.0
"""What can be wrong with a tokenizer.json, and what is unusual but legal: the part of make_bad.py that
is about format B. The whole file that the cases change is that of a tokenizer of four tokens."""
import json

ADDED = {"id": 0, "content": "<bos>", "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
MODEL = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
         "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
         "ignore_merges": False, "vocab": {"<bos>": 0, "a": 1, "b": 2, "ab": 3},
         "merges": [["a", "b"]]}
WHOLE = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [ADDED],
         "normalizer": None, "pre_tokenizer": LEVEL, "post_processor": None,
         "decoder": {**LEVEL, "add_prefix_space": True}, "model": MODEL}
FOUND = {None: "null", True: "true", False: "false"}


def text(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()


def changed(place, **fields):
    """The whole with fields of one part replaced ("absent": taken out)."""
    out = json.loads(text(WHOLE))
    part = out[place] if place else out
    for key, value in fields.items():
        part[key] = value
        if value == "absent":
            del part[key]
    return text(out)


def model(**fields):
    return changed("model", **fields)


def vocab(tokens, merges=()):
    return model(vocab=tokens, merges=list(merges))


def added(*tokens):
    return changed(None, added_tokens=list(tokens))


def one_added(**fields):
    token = {**ADDED, **fields}
    return added({k: v for k, v in token.items() if v != "absent"})


def replaced(old, new):
    raw = text(WHOLE)
    assert raw.count(old) == 1, old
    return raw.replace(old, new)


def add_settings(bad):
    """A setting that would change ids or text is refused by its path, whatever it is set to."""
    for key in ("truncation", "padding", "normalizer", "post_processor"):
        bad(key, "%s: found an object, expected null" % key,
            changed(None, **{key: {"type": "ByteLevel"}}))
    for key in ("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"):
        value = 0.1 if key == "dropout" else ""
        bad("model-" + key, "model.%s: found %s, expected null"
            % (key, "a string" if value == "" else "the real number 0.10000000000000001"),
            model(**{key: value}))
    for key in ("byte_fallback", "ignore_merges"):
        bad("model-" + key, "model.%s: found true, expected false" % key, model(**{key: True}))
    bad("model-fuse_unk", "model.fuse_unk: found a string, expected true or false",
        model(fuse_unk="no"))
    for key in ("pre_tokenizer", "decoder", "model"):
        bad(key + "-missing", key + ": found nothing, expected an object",
            changed(None, **{key: "absent"}))
        bad(key + "-null", key + ": found null, expected an object",
            changed(None, **{key: None}))
    for key in ("pre_tokenizer", "decoder"):
        bad(key + "-type", key + '.type: found "Whitespace", expected "ByteLevel"',
            changed(key, type="Whitespace"))
        bad(key + "-no-type", key + '.type: found nothing, expected "ByteLevel"',
            changed(key, type="absent"))
    bad("pre_tokenizer-sequence", 'pre_tokenizer.type: found "Sequence", expected "ByteLevel"',
        changed(None, pre_tokenizer={"type": "Sequence", "pretokenizers": [LEVEL]}))
    bad("pre_tokenizer-add_prefix_space",
        "pre_tokenizer.add_prefix_space: found true, expected false",
        changed("pre_tokenizer", add_prefix_space=True))
    bad("pre_tokenizer-no-add_prefix_space",
        "pre_tokenizer.add_prefix_space: found nothing, expected false",
        changed("pre_tokenizer", add_prefix_space="absent"))
    bad("pre_tokenizer-use_regex", "pre_tokenizer.use_regex: found false, expected true",
        changed("pre_tokenizer", use_regex=False))
    bad("model-type", 'model.type: found "WordPiece", expected "BPE"', model(type="WordPiece"))
    bad("model-type-case", 'model.type: found "bpe", expected "BPE"', model(type="bpe"))
    bad("model-type-null", 'model.type: found null, expected "BPE"', model(type=None))
    bad("version", 'version: found "2.0", expected "1.0"', changed(None, version="2.0"))
    bad("version-null", 'version: found null, expected "1.0"', changed(None, version=None))
    bad("version-number", 'version: found the real number 1, expected "1.0"',
        replaced(b'"version":"1.0"', b'"version":1.0'))
    bad("unknown-key", "lowercase: found an unknown key, expected those of tokenizer.json "
        "version 1.0", changed(None, lowercase=True))
    bad("of-another-kind", "vocab: found an unknown key, expected those of tokenizer.json "
        "version 1.0", text({"vocab": MODEL["vocab"]}))


def add_vocab(bad, meta):
    bad("vocab-missing", "model.vocab: found nothing, expected an object", model(vocab="absent"))
    bad("vocab-array", "model.vocab: found an array, expected an object",
        model(vocab=["<bos>", "a", "b", "ab"]))
    bad("vocab-empty", "model.vocab: found 0 tokens, expected 1 to 1114116", vocab({}))
    ids = "expected an id from 0 to 3 (4 tokens, no id left out)"
    for name, value, found in (("negative", -1, "-1"), ("fraction", 1.5, "the real number 1.5"),
                               ("real", 1.0, "the real number 1"), ("string", "1", "a string"),
                               ("null", None, "null"), ("beyond", 4, "4"),
                               ("2-32", 1 << 32, "4294967296"),
                               ("2-32-and-1", (1 << 32) + 1, "4294967297")):
        bad("vocab-id-" + name, 'model.vocab["a"]: found %s, %s' % (found, ids),
            vocab({"<bos>": 0, "a": value, "b": 2, "ab": 3}))
    bad("vocab-hole", 'model.vocab["ab"]: found 4, ' + ids,
        vocab({"<bos>": 0, "a": 1, "b": 2, "ab": 4}))
    bad("vocab-hole-at-start", 'model.vocab["ab"]: found 4, ' + ids,
        vocab({"<bos>": 1, "a": 2, "b": 3, "ab": 4}))
    bad("vocab-same-id", 'model.vocab["b"]: found id 1 again ("a" has it), expected another',
        vocab({"<bos>": 0, "a": 1, "b": 1, "ab": 3}))
    bad("vocab-same-token", "not valid JSON: line 1*", replaced(b'"a":1', b'"a":1,"a":1'))
    bad("vocab-same-token-escaped", "not valid JSON: line 1*",
        replaced(b'"a":1', b'"a":1,"\\u0061":1'))
    bad("vocab-empty-token", 'model.vocab[""]: found a token of 0 bytes, expected 1 to 4096',
        vocab({"<bos>": 0, "a": 1, "b": 2, "": 3}))
    bad("vocab-long-token", 'model.vocab["%s"]: found a token of 4097 bytes, expected 1 to 4096'
        % ("a" * 40), vocab({"<bos>": 0, "a": 1, "b": 2, "a" * 4097: 3}))
    bad("vocab-lone-surrogate", "not valid JSON: line 1*", replaced(b'"a":1', b'"\\ud800":1'))
    bad("vocab-latin1", "not valid JSON: line 1*", replaced(b'"a":1', b'"\xe9":1'))
    bad("vocab-nul", "not valid JSON: line 1*", replaced(b'"a":1', b'"\\u0000":1'))
    size = "found 4 tokens, expected %d, the vocab_size of meta.json"
    for name, n in (("more", 5), ("fewer", 3)):
        bad("vocab_size-" + name, size % n, text(WHOLE), meta(chars="absent", vocab_size=n))
    bad("vocab_size-added", "found 5 tokens, expected 4, the vocab_size of meta.json",
        added(ADDED, {**ADDED, "id": 4, "content": "<x>"}))


def add_merges(bad):
    bad("merges-missing", "model.merges: found nothing, expected an array",
        model(merges="absent"))
    bad("merges-object", "model.merges: found an object, expected an array", model(merges={}))
    at = "model.merges[%d]: "
    for name, merges, expected in (
            ("number", [5], at % 0 + "found 5, expected 2 strings"),
            ("later-number", [["a", "b"], 5], at % 1 + "found 5, expected an array, as the first "
             "one"),
            ("one-part", [["a"]], at % 0 + "found 1 elements, expected 2"),
            ("three-parts", [["a", "b", "a"]], at % 0 + "found 3 elements, expected 2"),
            ("part-number", [["a", 2]], at % 0 + "found 2, expected 2 strings"),
            ("mixed", [["a", "b"], "a b"], at % 1 + "found a string, expected an array, as the "
             "first one"),
            ("mixed-old", ["a b", ["a", "b"]], at % 1 + "found an array, expected a string, as "
             "the first one"),
            ("unknown-left", [["c", "b"]], at % 0 + 'found the part "c", expected a token of '
             "model.vocab"),
            ("unknown-right", [["a", "b"], ["a", "\u00e9"]], at % 1 + 'found the part "\u00e9", '
             "expected a token of model.vocab"),
            ("unknown-product", [["b", "a"]], at % 0 + 'found the product "ba", expected a token '
             "of model.vocab"),
            ("empty-part", [["", "ab"]], at % 0 + 'found the part "", expected a token of '
             "model.vocab"),
            ("cycle", [["a", "b"], ["ab", ""]], at % 1 + 'found the part "", expected a token of '
             "model.vocab"),
            ("nul", [["a\0", "b"]], at % 0 + 'found the part "a", expected a token of '
             "model.vocab"),
            ("old-two-spaces", ["a  b"], at % 0 + 'found "a  b", expected two tokens with one '
             "space between"),
            ("old-no-space", ["ab"], at % 0 + 'found "ab", expected two tokens with one space '
             "between"),
            ("old-space-at-end", ["a b", "ab "], at % 1 + 'found the part "", expected a token '
             "of model.vocab"),
            ("old-empty", [""], at % 0 + 'found "", expected two tokens with one space between'),
            ("hostile", [["\x1b[31m", "b"]], at % 0 + 'found the part "\\x1b[31m", expected a '
             "token of model.vocab")):
        bad("merges-" + name, expected, model(merges=merges))


def add_added(bad):
    bad("added-object", "added_tokens: found an object, expected an array",
        changed(None, added_tokens={}))
    bad("added-null", "added_tokens: found null, expected an array",
        changed(None, added_tokens=None))
    bad("added-string", "added_tokens[1]: found a string, expected an object",
        added(ADDED, "<user>"))
    for key in ("single_word", "lstrip", "rstrip", "normalized"):
        bad("added-" + key, "added_tokens[0].%s: found true, expected false" % key,
            one_added(**{key: True}))
        bad("added-no-" + key, "added_tokens[0].%s: found nothing, expected false" % key,
            one_added(**{key: "absent"}))
    bad("added-special", "added_tokens[0].special: found false, expected true",
        one_added(special=False))
    bad("added-no-special", "added_tokens[0].special: found nothing, expected true",
        one_added(special="absent"))
    for name, value, found in (("missing", "absent", "nothing"), ("negative", -1, "-1"),
                               ("fraction", 0.5, "the real number 0.5"),
                               ("2-32", 1 << 32, "4294967296"), ("string", "0", "a string")):
        bad("added-id-" + name, "added_tokens[0].id: found %s, expected an integer from 0 to "
            "4294967295" % found, one_added(id=value))
    bad("added-no-content", "added_tokens[0].content: found nothing, expected a string",
        one_added(content="absent"))
    bad("added-content-number", "added_tokens[0].content: found 7, expected a string",
        one_added(content=7))
    bad("added-content-empty", "added_tokens[0].content: found a token of 0 bytes, expected 1 to "
        "4096", one_added(content=""))
    bad("added-content-long", "added_tokens[1].content: found a token of 5000 bytes, expected 1 "
        "to 4096", added(ADDED, {**ADDED, "content": "x" * 5000}))
    bad("added-twice", 'added_tokens[1].content: found "<bos>" again (as added_tokens[0]), '
        "expected another", added(ADDED, {**ADDED, "id": 4}))
    bad("no-bos", 'found no token "<bos>" in added_tokens or model.vocab, expected one',
        changed(None, added_tokens=[], model={**MODEL, "vocab": {"x": 0, "a": 1, "b": 2,
                                                                 "ab": 3}}))
    for missing, there in (("<assistant>", "<end_turn>"), ("<end_turn>", "<assistant>")):
        bad("no-" + missing.strip("<>"), 'found a token "<user>" but no "%s" in added_tokens or '
            "model.vocab, expected both (chat) or neither" % missing,
            vocab({"<bos>": 0, "<user>": 1, there: 2, "a": 3}))


def add_files(bad):
    bad("empty", "not valid JSON: line 1*", b"")
    bad("array", "found JSON that is an array, expected an object", b"[" + text(WHOLE) + b"]")
    bad("bom", "not valid JSON: line 1*", b"\xef\xbb\xbf" + text(WHOLE))
    bad("trailing-text", "not valid JSON: line 1*", text(WHOLE) + b"x")
    bad("trailing-object", "not valid JSON: line 1*", text(WHOLE) + b"{}")
    bad("trailing-nul", "not valid JSON: line 1*", text(WHOLE) + b"\0")
    bad("cut", "not valid JSON: line 1*", text(WHOLE)[:-1])
    bad("too-deep", "not valid JSON: line 1*",
        replaced(b'"fuse_unk":false', b'"fuse_unk":' + b"[" * 2100 + b"]" * 2100))
    bad("utf16", "not valid JSON: line 1*", text(WHOLE).decode().encode("utf-16"))
    bad("directory", "found a directory, expected a regular file", {"keep": b""})


def add_bad(bad, meta):
    add_files(bad)
    add_settings(bad)
    add_vocab(bad, meta)
    add_merges(bad)
    add_added(bad)


def add_good(good):
    good("plain", text(WHOLE))
    good("pretty", json.dumps(WHOLE, indent=2).encode() + b"\n")
    good("few-keys", text({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False},
                           "decoder": {"type": "ByteLevel"},
                           "model": {"vocab": MODEL["vocab"], "merges": []}}))
    good("old-merges", model(merges=["#version: 0.2", "a b"]))
    good("old-merges-version-later", model(merges=["a b", "#version: 0.2", "a b"]))
    good("merge-twice", model(merges=[["a", "b"], ["a", "b"]]))
    good("added-id-elsewhere", one_added(id=77))
    good("added-beyond-vocab", changed(None, model={**MODEL, "vocab": {"a": 0, "b": 1, "ab": 2}}))
    good("added-unknown-field", one_added(note="kept"))
    good("unknown-model-field", model(note={"a": [1]}))
    good("ids-in-another-order", vocab({"ab": 3, "b": 0, "<bos>": 2, "a": 1}, [["a", "b"]]))
    good("no-symbols", vocab({"<bos>": 0, "\u4e2d\u6587": 1, "\\u0001": 2, "\U0001f600": 3}))
    good("chat", vocab({"<bos>": 0, "<user>": 1, "<assistant>": 2, "<end_turn>": 3}))
    good("meta-special-of-no-part", text(WHOLE), special_tokens=["user"])
