// SPDX-License-Identifier: Apache-2.0
// What the reference's library says. Commands, JSON lines on standard output:
//   encode FILE < JSON strings      ids of each, special tokens matched
//   decode FILE skip|keep < arrays  the text of each
//   train CORPUS SIZE CHAT OUT      a tokenizer.json as the reference's trainer writes it
"use strict";
const fs = require("fs");
const { Tokenizer } = require("tokenizers");

const lines = () =>
  fs.readFileSync(0, "utf8").split("\n").filter((line) => line !== "").map((line) => JSON.parse(line));
const print = (values) => fs.writeSync(1, values.map((v) => JSON.stringify(v) + "\n").join(""));
const BATCH = 5000;

async function inBatches(items, work) {
  for (let i = 0; i < items.length; i += BATCH) print(await work(items.slice(i, i + BATCH)));
}

// a tokenizer around a vocabulary, by the library's own reader
function assemble(vocab, merges, specials) {
  const level = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return Tokenizer.fromString(JSON.stringify({
    version: "1.0", truncation: null, padding: null,
    added_tokens: specials.map((content, id) => ({
      id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special: true,
    })),
    normalizer: null, pre_tokenizer: level, post_processor: null,
    decoder: { ...level, add_prefix_space: true },
    model: {
      type: "BPE", dropout: null, unk_token: null, continuing_subword_prefix: null,
      end_of_word_suffix: null, fuse_unk: false, byte_fallback: false, ignore_merges: false, vocab, merges,
    },
  }));
}

// The library trains 30,000 tokens without special ones from here. Merges come one by one, by count and
// then by ids, which special tokens shift all alike: a smaller vocabulary is the beginning of it.
function train(corpus, size, chat, out) {
  const specials = chat ? ["<bos>", "<user>", "<assistant>", "<end_turn>"] : ["<bos>"];
  const t = assemble({}, [], []);
  t.train([corpus]);
  t.save(out);
  const { vocab, merges } = JSON.parse(fs.readFileSync(out, "utf8")).model;
  const alphabet = Object.keys(vocab).filter((token) => [...token].length === 1);
  const tokens = new Map([...specials, ...alphabet.sort((a, b) => vocab[a] - vocab[b])].map((s, i) => [s, i]));
  const kept = [];
  for (const [a, b] of merges) {
    if (tokens.size >= size) break;
    kept.push([a, b]);
    if (!tokens.has(a + b)) tokens.set(a + b, tokens.size);
  }
  assemble(Object.fromEntries(tokens), kept, specials).save(out);
}

async function main([command, file, ...more]) {
  if (command === "train") return train(file, Number(more[0]), more[1] === "1", more[2]);
  const t = Tokenizer.fromFile(file);
  if (command === "encode")
    return inBatches(lines(), async (texts) =>
      (await t.encodeBatch(texts, { addSpecialTokens: false })).map((e) => e.getIds()));
  return inBatches(lines(), (ids) => t.decodeBatch(ids, more[0] === "skip"));
}

main(process.argv.slice(2));
