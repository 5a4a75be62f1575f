#!/usr/bin/env python3
"""What Hugging Face's tokenizers makes of many texts, for spec/check/tokenizer.lua to compare with.

    python3 spec/support/tokenizer_parity.py OUT [REAL]
    python3 spec/support/tokenizer_parity.py speed VOCABULARY uncased|cased FILE
    python3 spec/support/tokenizer_parity.py ids VOCABULARY uncased|cased FILE

OUT gets characters.vocab.txt, facts.txt (key, blank, value; a line each) and .bin files, runs of records of 32-bit numbers unless told otherwise:
texts.bin, special_texts.bin, first_texts.bin, second_texts.bin  bytes, then so many bytes of UTF-8
ids.<case>.bin     n, n ids, n pairs of offsets in characters
pairs.<case>.bin   max_length (0: none), n, n ids, n token types, n pairs of offsets
decoded.<case>.bin n, n ids; then three texts: without special tokens, with them, without them and not cleaned up
REAL is the folder of real data, if there is one. `speed` prints seconds of processor time for one pass over the lines of a file, in batches and one by one.
`ids` prints the ids of each line of a file, a line each.
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
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors  # noqa: E402

SURROGATES = range(0xD800, 0xE000)
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


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


def long_words():
    """Words about as long as WordPiece takes, alone and among others, of letters that become more or fewer."""
    letters = ["x", "é", "e\u0301", "\U0001d15f", "\u1112\u1161", "각", "\u0130", "x\u200b", "x\u0323\u0301", "\ufb01", "x\u302e", "\u212b"]
    return [before + letter * n + after for letter in letters for n in (49, 50, 51, 99, 100, 101, 102, 150, 400)
            for before, after in (("", ""), ("no ", " more."), ("(", "\u0301)"), ("\u302e\u0323", "\u302e\u0323"))]


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


def special_texts(texts):
    """Texts with names of special tokens in them, whole, broken, in other case and nested."""
    rng = random.Random(21)
    names = SPECIALS * 3 + ["[MAS", "mask]", "[mask]", "[[SEP]]", "[ CLS ]", "[", "]", "[CLS][CLS]", "\u200b[SEP]", "e\u0301[MASK]\u0301", "[UNK]s"]
    out = []
    for t in texts:
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(t) + 1)
            t = t[:at] + rng.choice(names) + t[at:]
        out.append(t)
    return out


def write_texts(path, texts):
    with open(path, "wb") as f:
        for t in texts:
            b = t.encode()
            f.write(struct.pack("<I", len(b)) + b)


def write_ids(path, tok, texts):
    with open(path, "wb") as f:
        for at in range(0, len(texts), 1000):
            for e in tok.encode_batch(texts[at:at + 1000]):
                ids = e.ids
                f.write(struct.pack("<%dI" % (3 * len(ids) + 1), len(ids), *ids, *(x for o in e.offsets for x in o)))


def write_pairs(path, tok, firsts, seconds):
    rng = random.Random(22)
    with open(path, "wb") as f:
        for a, b in zip(firsts, seconds):
            limit = rng.choice((0, 3, 4, 5, 8, 13, 32, 64, 512))
            if limit: tok.enable_truncation(limit, strategy="longest_first")
            else: tok.no_truncation()
            e = tok.encode(a, b)
            ids = e.ids
            f.write(struct.pack("<%dI" % (4 * len(ids) + 2), limit, len(ids), *ids, *e.type_ids, *(x for o in e.offsets for x in o)))
    tok.no_truncation()


def write_decoded(path, tok, texts):
    """Ids of texts, and ids that no text gives."""
    rng = random.Random(23)
    rows = [e.ids for e in tok.encode_batch(texts)]
    size = tok.get_vocab_size()
    rows += [[rng.randrange(size) for _ in range(rng.randrange(1, 40))] for _ in range(5000)]
    # tokens where English closes up, in every order
    close = [i for t, i in tok.get_vocab().items() if t in (".", "?", "!", ",", "'", "n", "t", "do", "m", "s", "ve", "re", "not", "##s", "[SEP]")]
    rows += [[rng.choice(close) for _ in range(rng.randrange(1, 12))] for _ in range(5000)]
    with open(path, "wb") as f:
        for ids in rows:
            f.write(struct.pack("<%dI" % (len(ids) + 1), len(ids), *ids))
            for cleanup, skip in ((True, True), (True, False), (False, True)):
                tok.decoder = decoders.WordPiece(prefix="##", cleanup=cleanup)
                b = tok.decode(ids, skip_special_tokens=skip).encode()
                f.write(struct.pack("<I", len(b)) + b)


def speed(vocabulary, case, path):
    tok = make(vocabulary, case == "uncased", case == "uncased")
    lines = [t for t in open(path, encoding="utf-8").read().split("\n") if t]
    for run in (lambda: tok.encode_batch_fast(lines), lambda: [tok.encode(t) for t in lines]):
        best = float("inf")
        for _ in range(3):
            start = time.process_time()
            run()
            best = min(best, time.process_time() - start)
        print("%.6f" % best)


def print_ids(vocabulary, case, path):
    tok = make(vocabulary, case == "uncased", case == "uncased")
    for line in open(path, encoding="utf-8").read().split("\n")[:-1]:
        print(*tok.encode(line).ids)


def main(out, real=None):
    os.makedirs(out, exist_ok=True)
    facts = {"tokenizers": tokenizers.__version__}
    found = real_texts(real) if real else []
    chance = random_texts(30000) + long_words()
    texts = found + chance + code_points()
    write_texts(out + "/texts.bin", texts)
    special = special_texts(found + chance)
    write_texts(out + "/special_texts.bin", special)
    pairs = (found + chance)[:: 3]
    firsts, seconds = pairs, pairs[7:] + pairs[:7]
    write_texts(out + "/first_texts.bin", firsts)
    write_texts(out + "/second_texts.bin", seconds)
    facts.update(texts=len(texts), real_texts=len(found), random_texts=len(chance), special_texts=len(special), pairs=len(pairs))
    characters = out + "/characters.vocab.txt"
    characters_vocabulary(characters)
    cases = {"characters_uncased": (characters, True, True), "characters_cased": (characters, False, False), "characters_accents": (characters, True, False),
             "characters_stripped": (characters, False, True)}
    if real:
        cases["bert_base_uncased"] = (real + "/vocab/bert-base-uncased.vocab.txt", True, True)
        cases["beto_cased"] = (real + "/vocab/beto-spanish.vocab.txt", False, False)
    for name, case in cases.items():
        tok = make(*case)
        write_ids("%s/ids.%s.bin" % (out, name), tok, texts)
        if name in ("characters_cased", "characters_stripped"):
            continue
        write_pairs("%s/pairs.%s.bin" % (out, name), tok, firsts, seconds)
        tok.add_special_tokens(SPECIALS)
        write_ids("%s/special_ids.%s.bin" % (out, name), tok, special)
        write_decoded("%s/decoded.%s.bin" % (out, name), tok, found[:: 5] + chance[:: 5])
    with open(out + "/facts.txt", "w") as f:
        f.writelines("%s %s\n" % kv for kv in facts.items())


if __name__ == "__main__":
    if sys.argv[1] == "speed":
        speed(*sys.argv[2:])
    elif sys.argv[1] == "ids":
        print_ids(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
