/* BERT's basic tokeniser: text in, words out, one at a time and without allocation.
 *
 * Control characters go, white space parts words, a punctuation mark or a Chinese character is a word by itself, accents and case go if
 * wished. The words are those of Hugging Face's BertNormalizer and BertPreTokenizer for any text; bytes that are not UTF-8 are removed.
 */
#ifndef UNIC_WORDS_H
#define UNIC_WORDS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  UNIC_WORD_CHARS = 100,                     /* a longer word is cut here and marked; WordPiece takes it for unknown anyway */
  UNIC_WORD_BYTES = 4 * (UNIC_WORD_CHARS + 1),
  UNIC_WORD_MARKS = 128                      /* marks on one letter, up to which offsets follow Hugging Face's rule for reordered ones */
};

/* How words are made. Set once by unic_word_rules_set, then only read. */
typedef struct unic_word_rules {
  bool lowercase, strip_accents, cjk;
  uint8_t ascii[256];  /* the byte that an ASCII letter or digit becomes; 0 for all that needs a closer look */
} unic_word_rules;

void unic_word_rules_set(unic_word_rules *rules, bool lowercase, bool strip_accents, bool cjk);

typedef struct unic_words {
  /* the word that unic_words_next found */
  int size, chars;                 /* bytes, characters; chars > UNIC_WORD_CHARS: the word was cut */
  int64_t stop;                    /* if offsets: where the word's last character ends in the text, cut or not */
  uint8_t bytes[UNIC_WORD_BYTES];
  /* if offsets: the text bytes [begin, end) that each byte of the word comes from */
  uint32_t begin[UNIC_WORD_BYTES], end[UNIC_WORD_BYTES];
  /* the reader's own */
  const unic_word_rules *rules;
  const uint8_t *text, *next, *limit;
  bool offsets;
  int marks, marks_end;            /* marks at the word's end that canonical order may still move, and where that end was */
  uint8_t classes[UNIC_WORD_CHARS + 1];
  /* if offsets: the marks since the last letter, kept or not, in the order of the text */
  int run, run_at, run_kept;       /* how many; bytes of the word before them; how many are kept */
  struct unic_word_mark {
    uint32_t begin, end;           /* the character that it comes from */
    uint8_t class;
    bool kept, added;              /* added: not the first part of its character's decomposition */
  } run_marks[UNIC_WORD_MARKS];
} unic_words;

/* Begin on a text, which must stay until the end. Offsets, if wished, cost time; the text must then be under 4 GiB. */
void unic_words_begin(unic_words *words, const unic_word_rules *rules, const char *text, size_t size, bool offsets);

/* Find the next word; false at the end of the text. */
bool unic_words_next(unic_words *words);

#endif
