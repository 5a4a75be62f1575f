#!/usr/bin/env python3
"""Makes runtime/text/unicode_data.h: the character properties that BERT's tokeniser depends on.

    pip install tokenizers==0.23.3
    python3 spec/support/unicode_data.py > runtime/text/unicode_data.h

Every property is asked of Hugging Face's `tokenizers` itself, one code point at a time, because that package mixes
several editions of Unicode (general categories of about 8.0, decompositions of 9.0, lower case of 17.0) and a tokeniser
that is to give its ids must mix them in the same way. No library on this machine does, and a table of our own gives the
same ids on every system besides.
"""
import sys
import tokenizers
from tokenizers import normalizers, pre_tokenizers


def bert(**on):
    off = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return normalizers.BertNormalizer(**{**off, **on}).normalize_str


clean, cjk, strip, lower = (bert(**{k: True}) for k in ("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"))
nfd = normalizers.NFD().normalize_str
split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)


def ranges(values):
    """{code point: value} -> [first, last, value] for runs of one value."""
    out = []
    for c in sorted(values):
        if out and out[-1][1] == c - 1 and out[-1][2] == values[c]:
            out[-1][1] = c
        else:
            out.append([c, c, values[c]])
    return out


def combining_classes(plain):
    """The canonical order, found by watching which of two marks changes places. Classes are numbered from 1 in their
    order: only the order matters."""
    def before(x, y):  # y, written after x, is moved in front of it
        return x != y and nfd("a" + chr(x) + chr(y)) == "a" + chr(y) + chr(x)

    high, low = 0x0345, 0x0334  # marks of the highest and of the lowest class
    assert before(high, low)
    marks = [c for c in plain if c in (high, low) or before(high, c) or before(c, low)]
    classes = []  # one mark of each class, in order

    def rank(c):  # classes not above c's
        return sum(not before(k, c) for k in classes)

    for c in marks:
        at = rank(c)
        if at == 0 or before(c, classes[at - 1]):
            classes.insert(at, c)
    return {c: rank(c) for c in marks}


def lower_runs(mapping):
    """{code point: lower-case code point} -> [first, last, difference, step]; alternating capitals have step 2."""
    out = []
    for c, to in sorted(mapping.items()):
        d = to - c
        if out and out[-1][2] == d:
            first, last, _, step = out[-1]
            if c - last == step or (first == last and c - last <= 2):
                out[-1][1:] = [c, d, c - last]
                continue
        out.append([c, c, d, 1])
    return [r if r[3] > 1 else r[:3] for r in out]


def table(declaration, rows, comment, code_points=False):
    print("\n/* %s */\n%s = {" % (comment, declaration))
    line = " "
    for row in rows:
        item = " {%s}," % ", ".join(hex(v) if i < 2 or code_points else str(v) for i, v in enumerate(row))
        if len(line) + len(item) > 150:
            print(line)
            line = " "
        line += item
    print(line + "\n};")


def main():
    cleaned = {c: clean(chr(c)) for c in ALL}
    assert all(v in ("", " ", chr(c)) for c, v in cleaned.items())
    decomposed = {c: [ord(x) for x in nfd(chr(c))] for c in ALL if nfd(chr(c)) != chr(c)}
    plain = [c for c in ALL if c not in decomposed]
    lowered = {c: [ord(x) for x in lower(chr(c))] for c in ALL if lower(chr(c)) != chr(c)}
    drop = {c: "" for c in ALL if cleaned[c] == ""}
    space = {c: "" for c in ALL if cleaned[c] == " "}
    punct = {c: "" for c in ALL if len(split("a" + chr(c) + "a")) == 3}
    chinese = {c: "" for c in ALL if cjk(chr(c)) != chr(c)}
    mark = {c: "" for c in plain if strip(chr(c)) == ""}
    combining = combining_classes(plain)

    # What the C code takes for granted.
    assert {c for c in ALL if split("a" + chr(c) + "a") == [("a", (0, 1)), ("a", (2, 3))]} <= set(space) | set(drop)
    assert [c for c in lowered if len(lowered[c]) != 1] == [0x130] and lowered[0x130] == [0x69, 0x307]
    assert not any(v in drop or v in space or v in punct for vs in lowered.values() for v in vs)
    for c in space:  # blanks long before they are decomposed
        decomposed.pop(c, None)
    assert not any(c in drop or v in drop or v in space for c, vs in decomposed.items() for v in vs)
    assert not any(c in punct or c in chinese or c in lowered for c in combining if c not in mark)
    kept = {c: [v for v in vs if v not in mark] for c, vs in decomposed.items()}
    assert not any(len(vs) > 1 and any(v in punct for v in vs) for vs in kept.values())
    assert all(vs[0] in punct for vs in decomposed.values() if any(v in punct for v in vs))
    assert not any(c in chinese and len(vs) > 1 for c, vs in decomposed.items())
    assert not any(c in mark and (c in punct or c in chinese or c in drop or c in lowered) for c in ALL)
    assert all(sum(v not in mark for v in vs) <= len(chr(c).encode()) for c, vs in decomposed.items())
    for c in HANGUL:
        s = c - HANGUL.start
        assert decomposed.pop(c) == [0x1100 + s // 588, 0x1161 + s % 588 // 28] + ([0x11A7 + s % 28] if s % 28 else [])
    assert max(len(v) for v in decomposed.values()) == 4 and len(set(combining.values())) < 256

    pages = set()  # pages of 256 code points that differ, after the first all-plain one
    every = [dict.fromkeys(d, 1 << i) for i, d in enumerate((drop, space, punct, chinese, mark))]
    for p in range(0x1100):
        row = []
        for c in range(p << 8, (p + 1) << 8):
            part = c if c in decomposed else c in HANGUL
            row.append((sum(d.get(c, 0) for d in every), combining.get(c, 0), part, c in lowered and lowered[c][0] - c))
        pages.add(tuple(row))

    print("""/* Character properties for BERT's tokeniser, as Hugging Face's tokenizers %s has them. Made by spec/support/unicode_data.py; do not edit.
 * Included by unicode.c alone, which spreads these runs into pages when it is first used. Long, because it is data. */
#ifndef UNIC_UNICODE_DATA_H
#define UNIC_UNICODE_DATA_H

#include <stdint.h>

enum { DATA_PAGES = %d /* different pages of 256 code points */ };

/* A run is {first, last, value, step}: every step-th code point from first to last has the value; a step of 0 means 1. */
typedef int32_t run[4];""" % (tokenizers.__version__, len(pages)))
    bare = lambda values: [r[:2] for r in ranges(values)]
    table("static const run data_drop[]", bare(drop), "removed: control, format, private use, NUL, U+FFFD")
    table("static const run data_space[]", bare(space), "becomes a blank")
    table("static const run data_cjk[]", bare(chinese), "Chinese characters: each a word of its own")
    table("static const run data_punctuation[]", bare(punct), "punctuation: each a word of its own")
    table("static const run data_mark[]", bare(mark), "nonspacing marks: what 'strip accents' removes after decomposition")
    table("static const run data_combining[]", ranges(combining),
          "canonical combining classes, numbered from 1 in their order (equal numbers keep their places)")
    table("static const run data_lower[]", lower_runs({c: v[0] for c, v in lowered.items() if c != 0x130}),
          "lower case: the difference to add; U+0130, which becomes two, is in unicode.c")
    table("static const uint32_t data_decomposition[][5]", [[c] + v for c, v in sorted(decomposed.items())],
          "canonical decompositions in full: code point, then up to four, ended by 0; Hangul syllables are computed", True)
    print("\n#endif")


if __name__ == "__main__":
    sys.exit(main())
