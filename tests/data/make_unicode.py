#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""How core/unicode_classes.inc.h was made from tests/data/unicode-classes.txt: run it to write it again,
to the same bytes. A number of the table is a code point times four plus the class (core/unicode.h) of
all code points from there up to the next number's."""
import os

HERE = os.path.dirname(os.path.abspath(__file__))
OUT = os.path.join(HERE, "..", "..", "core", "unicode_classes.inc.h")
CLASSES = {"L": 1, "N": 2, "S": 3}
HEAD = """/* SPDX-License-Identifier: Apache-2.0
 * unicode_classes.inc.h - where the class of code points changes. Written by
 * tests/data/make_unicode.py; not for hand. */
"""


def boundaries():
    ranges = []
    with open(os.path.join(HERE, "unicode-classes.txt"), encoding="ascii") as f:
        for line in f:
            if line.strip() and not line.startswith("#"):
                name, first, last = line.split()
                ranges.append((int(first, 16), int(last, 16), CLASSES[name]))
    out, at = [], 0
    for first, last, number in sorted(ranges):
        assert first >= at and last >= first
        if first > at or not out:
            out.append(at << 2)
        out.append(first << 2 | number)
        at = last + 1
    return out + [at << 2]


def main():
    lines, line = [], "   "
    for number in boundaries():
        word = " 0x%X," % number
        if len(line + word) > 90:
            lines.append(line)
            line = "   "
        line += word
    text = HEAD + "// clang-format off\n" + "\n".join(lines + [line]) + "\n"
    with open(OUT, "w", encoding="ascii") as f:
        f.write(text)


if __name__ == "__main__":
    main()
