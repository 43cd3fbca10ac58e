#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# train.sh MICROGPT SCRATCH - make both demo models again from their corpora, and judge them. The
# same machine makes the same bytes, however many threads it has. Run by `make demo`.
set -eu
microgpt=$1 scratch=$2
here=$(dirname "$0")
mkdir -p "$scratch"

# keep NAME DTYPE: the inference files of a training checkpoint, beside its corpus
keep() {
    "$microgpt" export --model "$scratch/$1" --output "$scratch/$1-$2" --dtype "$2" --overwrite
    cp "$scratch/$1-$2/meta.json" "$scratch/$1-$2/weights.safetensors" "$here/$1/"
}

"$microgpt" train --input "$here/names/names.txt" --output "$scratch/names" --overwrite \
    --n-embd 32 --n-head 4 --n-layer 1 --block-size 16 \
    --steps 6000 --lr 0.01 --warmup-steps 200 --batch-size 16 --eval 0.05 --seed 42
keep names f32

"${PYTHON:-/usr/bin/python3}" "$here/chat/make_corpus.py"
"$microgpt" train --chat --input "$here/chat/corpus.jsonl" --output "$scratch/chat" --overwrite \
    --tokenizer char \
    --n-embd 128 --n-head 4 --n-layer 4 --block-size 256 \
    --steps 14000 --lr 0.003 --warmup-steps 200 --batch-size 8 --eval 0.02 --seed 42
keep chat f16

exec "${PYTHON:-/usr/bin/python3}" "$here/check_demo.py" "$microgpt"
