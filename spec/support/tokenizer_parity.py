#!/usr/bin/env python3
"""What Hugging Face's tokenizers makes of many texts, for spec/check/tokenizer.lua to compare with.

    python3 spec/support/tokenizer_parity.py OUT [REAL]

OUT gets texts.bin, characters.vocab.txt, ids.<case>.bin for each case and facts.txt (key, blank, value; a line each). A .bin is a run of records:
a 32-bit count, then so many bytes (texts) or 32-bit ids. REAL is the folder of real data, if there is one.
"""
import csv
import glob
import os
import random
import struct
import sys
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
import tokenizers  # noqa: E402
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors  # noqa: E402

SURROGATES = range(0xD800, 0xE000)


def real_texts(real):
    """Every line and every cell of the text files."""
    out = []
    files = glob.glob(real + "/text-*/*") + glob.glob(real + "/*/*.csv") + glob.glob(real + "/cxr-vqa-rad/*.json") + glob.glob(real + "/*/README.md")
    for path in sorted(set(files)):
        with open(path, encoding="utf-8", newline="") as f:
            text = f.read()
        out += text.split("\n")
        if path.endswith(".csv"):
            out += [cell for row in csv.reader(text.splitlines()) for cell in row]
    return [t for t in dict.fromkeys(out) if t]


def random_texts(count):
    """Unicode strings; a third of them mostly marks, where canonical order matters."""
    rng = random.Random(20)
    nfd = normalizers.NFD().normalize_str
    marks = [c for c in range(0x300, 0x1F000) if c not in SURROGATES and nfd("a\u0345" + chr(c)) != "a\u0345" + chr(c)]
    marks += [0x1D165, 0x1D16D, 0x302E, 0x302F, 0x16FF0, 0x1E94A, 0x11446, 0x0901, 0x0E31, 0x344] * 20
    odd = [0, 9, 10, 11, 12, 13, 32, 0x85, 0xA0, 0xAD, 0x130, 0x3A3, 0x200B, 0x200D, 0x2028, 0x3000, 0xFEFF, 0xFFFD, 0x4E00, 0xF900, 0x2F800]

    def character(kind):
        r = rng.random()
        if kind == 1 and r < 0.6: return rng.choice(marks)
        if r < 0.35: return rng.randrange(32, 127)
        if r < 0.5: return rng.randrange(0xA0, 0x250)
        if r < 0.6: return rng.choice(odd)
        while True:
            c = rng.choice((rng.randrange(0x250, 0x10000), rng.randrange(0x10000, 0x20000), rng.randrange(0x20000, 0x110000)))
            if c not in SURROGATES: return c
    return ["".join(chr(character(i % 3)) for _ in range(rng.randrange(1, rng.choice((5, 30, 200))))) for i in range(count)]


def code_points():
    return ["x%sY" % chr(c) for c in range(0x110000) if c not in SURROGATES]


def characters_vocabulary(path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    for c in range(0x21, 0x1F000):
        if c in SURROGATES or chr(c).isspace() or c == 0x85: continue
        tokens += [chr(c), "##" + chr(c)]
    with open(path, "w", encoding="utf-8", newline="\n") as f:
        f.write("\n".join(dict.fromkeys(tokens)) + "\n")


def make(vocabulary, lowercase, strip_accents):
    vocab = models.WordPiece.read_file(vocabulary)
    tok = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
    tok.normalizer = normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents, lowercase=lowercase)
    tok.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tok.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
    return tok


def main(out, real=None):
    os.makedirs(out, exist_ok=True)
    facts = {"tokenizers": tokenizers.__version__}
    found = real_texts(real) if real else []
    texts = found + random_texts(30000) + code_points()
    facts.update(texts=len(texts), real_texts=len(found))
    with open(out + "/texts.bin", "wb") as f:
        for t in texts:
            b = t.encode()
            f.write(struct.pack("<I", len(b)) + b)
    characters = out + "/characters.vocab.txt"
    characters_vocabulary(characters)
    cases = {"characters_uncased": (characters, True, True), "characters_cased": (characters, False, False), "characters_accents": (characters, True, False),
             "characters_stripped": (characters, False, True)}
    if real:
        cases["bert_base_uncased"] = (real + "/vocab/bert-base-uncased.vocab.txt", True, True)
        cases["beto_cased"] = (real + "/vocab/beto-spanish.vocab.txt", False, False)
    for name, case in cases.items():
        tok = make(*case)
        with open("%s/ids.%s.bin" % (out, name), "wb") as f:
            for at in range(0, len(texts), 1000):
                for e in tok.encode_batch_fast(texts[at:at + 1000]):
                    f.write(struct.pack("<%dI" % (len(e.ids) + 1), len(e.ids), *e.ids))
        if real and not name.startswith("characters"):
            lines = [t for t in open(real + "/text-es-nubes/sentences.txt", encoding="utf-8").read().split("\n") if t]
            best = float("inf")
            for _ in range(5):
                start = time.perf_counter()
                tok.encode_batch_fast(lines)
                best = min(best, time.perf_counter() - start)
            facts["mb_per_s." + name] = "%.3f" % (sum(len(t.encode()) for t in lines) / best / 1e6)
    with open(out + "/facts.txt", "w") as f:
        f.writelines("%s %s\n" % kv for kv in facts.items())


if __name__ == "__main__":
    main(*sys.argv[1:])
