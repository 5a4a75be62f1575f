#!/usr/bin/env python3
"""Makes spec/golden/wordpiece.safetensors: token ids and words by Hugging Face's tokenizers.

    pip install tokenizers==0.23.3
    python3 spec/golden/wordpiece.py

Texts are chosen to break tokenisers. The vocabulary is made of the characters that are left of them, so that a wrong character or order shows;
a few are missing, for [UNK]. For the code points of PAGES, 256 at a time as "x<c>Y ...", there is a hash of the words; of the real sentences in
../shared/data/real, which this repository does not hold, the number of ids and a hash of them.
"""
import json
import os
import random
import struct
import tokenizers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

RULES = {  # name: lowercase, strip_accents, cjk
    "uncased": (True, True, True),
    "cased": (False, False, True),
    "uncased_accents": (True, False, True),
    "cased_stripped": (False, True, True),
    "uncased_no_cjk": (True, True, False),
}

# Planes 0 and 1, where nearly all characters are, and what is special elsewhere: ends of CJK ranges, tags, private use.
PAGES = [*range(0x200), 0x2A6, 0x2A7, 0x2B7, 0x2B8, 0x2B9, 0x2CE, *range(0x2F8, 0x2FB), 0x300, 0xE00, 0xE01, 0xF00, 0xFFF, 0x1000, 0x10FF]

NASTY = [
    "", " ", "\n\t\r", "a", "A", "the cat", "  the\tcat\r\nthe\u2028cat\u2029the\u00a0cat\u3000the ", "unaffable", "unaffablex",
    "naïve café", "NAÏVE CAFÉ",
    "ñandú Ñandú n\u0303andu\u0301", "ÁÉÍÓÚÜ áéíóúü", "Tórax: sin derrame; índice 0,48.", "¿Qué? ¡No!",
    "1.5mm (3/4) 50% a+b=c <x> $5 ^ ` | ~",
    "\u0130stanbul I\u0307 \u0131", "ΑΣ ΣΑΣ όσος ΌΣΟΣ", "Straße STRASSE ẞ", "ﬁ ﬂ ǆ Ǆ ǅ", "K Å Ω \u212a \u212b \u2126", "北京大学 x北y",
    "\uf900\ufa0e \U0002f800x",
    "かな カナ ｶﾅ が か\u3099", "한국어 \u1112\u1161\u11ab", "हिन्दी क़ ड़", "ไทย กำ", "ಕೋ ಕೊ ொ", "\u0344 a\u0344 \u0345 α\u0345",
    "e\u0301\u0323 e\u0323\u0301 ẹ́ ậ",
    "\U0001d15e\U0001d15f a\U0001d165\u0301\U0001d16d\u302e b\u302e\U0001d165", "a\u302f\u0301\U0001d165\u0345\U0001d16d", "\U0001d165a",
    "a\U00011446\u302e", "\u226e \u2260 \u1fef \u037e \u0387",
    "a\u0000b a\u200bb a\u00adb a\ufeffb a\ufffdb a\u0085b a\u000bb", "a\ue000b a\U000f0000b a\u0378b",
    "\U0001f600 \U0001f468\u200d\U0001f469\u200d\U0001f467", "\u2e43 \u166d \U00011c41 \u055a",
    "a\u2014b \u201cq\u201d \u2018s\u2019 \u00ab\u00bb \u2026", "Ⅷ ⅷ ① ª º ² ½",
    "\ua7ae \u1c89 \U00010d50 \U00016ea0 \U0001e900 \U00010400",
    "x" * 100, "x" * 101, "é" * 100, "é" * 101, "e\u0301" * 100, "e\u0301" * 101, "\U0001d15f" * 50, "\U0001d15f" * 51, "xy" * 60 + " cat",
    "[CLS] the [SEP] [MASK] [UNK] [PAD]", "[MASK]cat[MASK]", "[MAS the [[SEP]]", "[ mask ]", "##s a##s # ##", "catss", "cats", "dogs",
    "d-o_g", "cat's dont",
]


def random_texts(n):
    rng = random.Random(7)
    marks = [0x300, 0x301, 0x303, 0x308, 0x323, 0x327, 0x334, 0x345, 0x93C, 0x94D, 0x302E, 0x302F, 0x1D165, 0x1D16D, 0x1133C, 0x1E94A, 0x11446]
    def one():
        r = rng.random()
        if r < 0.35: return rng.choice("abctheCATdogs ")
        if r < 0.5: return chr(rng.choice(marks))
        if r < 0.6: return chr(rng.choice([9, 32, 0xA0, 0xAD, 0x200B, 0x2009, 0x3000, 0x85, 0x4E00, 0xF900]))
        if r < 0.8: return chr(rng.randrange(0x21, 0x250))
        while True:
            c = rng.choice([rng.randrange(0x250, 0x3000), rng.randrange(0x3000, 0x20000)])
            if not 0xD800 <= c < 0xE000: return chr(c)
    return ["".join(one() for _ in range(rng.randrange(1, 40))) for _ in range(n)]


def normalizer(lowercase, strip_accents, cjk):
    return normalizers.BertNormalizer(clean_text=True, handle_chinese_chars=cjk, strip_accents=strip_accents, lowercase=lowercase)


def words(rules, text):
    return [w for w, _ in pre_tokenizers.BertPreTokenizer().pre_tokenize_str(normalizer(*rules).normalize_str(text))]


def vocabulary(texts):
    characters = sorted({c for rules in RULES.values() for t in texts for w in words(rules, t) for c in w})
    rng = random.Random(3)
    kept = [c for c in characters if c in "xycatdogsé" or rng.random() < 0.97]
    tokens = ["the", "cat", "##s", "un", "##aff", "##able", "dog", "xx", "##xx", "no", "derrame", "tórax", "torax", "##",
              "[MASK]", "[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokens += kept + ["##" + c for c in kept]
    return list(dict.fromkeys(tokens))


def fnv(data, h=0xCBF29CE484222325):
    for b in data:
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def code_points_hash(rules):
    """As the hash of a vocabulary whose tokens are the words of one page each: the spec has no faster hash at hand."""
    h = fnv(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n")
    for page in PAGES:
        text = "".join("x%sY " % chr(c) for c in range(page << 8, (page + 1) << 8) if not 0xD800 <= c < 0xE000)
        h = fnv(("%d %s\n" % (page, " ".join(words(rules, text) + ["."]))).encode(), h)
    return "%016x" % h


def real_hashes():
    real = os.environ.get("UNIC_DATA") or os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../shared/data/real")
    out = {}
    for name, rules in (("bert-base-uncased", RULES["uncased"]), ("beto-spanish", RULES["cased"])):
        vocab = models.WordPiece.read_file(os.path.join(real, "vocab", name + ".vocab.txt"))
        tok = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]", max_input_chars_per_word=100))
        tok.normalizer, tok.pre_tokenizer = normalizer(*rules), pre_tokenizers.BertPreTokenizer()
        tok.post_processor = processors.BertProcessing(("[SEP]", vocab["[SEP]"]), ("[CLS]", vocab["[CLS]"]))
        h, count = fnv(b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n"), 0
        with open(os.path.join(real, "text-es-nubes", "sentences.txt"), encoding="utf-8", newline="\n") as lines:
            for number, line in enumerate(lines, 4):
                ids = tok.encode(line.rstrip("\n")).ids
                count += len(ids)
                h = fnv(("%d: %s\n" % (number, " ".join(map(str, ids)))).encode(), h)
        out["nubes." + name] = "%d %016x" % (count, h)
    return out


def main():
    texts = NASTY + random_texts(150)
    tokens = vocabulary(texts)
    tensors = {"vocabulary": ("U8", "\n".join(tokens).encode()), "texts": ("U8", "\n\0\n".join(texts).encode())}
    for name, rules in RULES.items():
        tok = Tokenizer(models.WordPiece({t: i for i, t in enumerate(tokens)}, unk_token="[UNK]", max_input_chars_per_word=100))
        tok.normalizer, tok.pre_tokenizer = normalizer(*rules), pre_tokenizers.BertPreTokenizer()
        tok.post_processor = processors.BertProcessing(("[SEP]", tokens.index("[SEP]")), ("[CLS]", tokens.index("[CLS]")))
        rows = [tok.encode(t).ids for t in texts]
        tensors["ids." + name] = ("I32", struct.pack("<%di" % sum(map(len, rows)), *(i for r in rows for i in r)))
        tensors["count." + name] = ("I32", struct.pack("<%di" % len(rows), *map(len, rows)))
        if name == "uncased":
            tok.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
            rows = [tok.encode(t).ids for t in texts]
            tensors["ids.specials"] = ("I32", struct.pack("<%di" % sum(map(len, rows)), *(i for r in rows for i in r)))
            tensors["count.specials"] = ("I32", struct.pack("<%di" % len(rows), *map(len, rows)))
    metadata = {"tokenizers": tokenizers.__version__}
    metadata.update(("code_points." + name, code_points_hash(rules)) for name, rules in RULES.items() if name != "uncased_no_cjk")
    metadata.update(real_hashes())
    header, at = {"__metadata__": metadata}, 0
    for name, (dtype, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": [len(data) // (4 if dtype == "I32" else 1)], "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(os.path.join(os.path.dirname(__file__), "wordpiece.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(d for _, d in tensors.values()))


if __name__ == "__main__":
    main()
