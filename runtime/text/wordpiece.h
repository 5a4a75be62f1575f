/* WordPiece: text in, token ids out, equal to Hugging Face's BERT tokenisers.
 *
 * A vocabulary never changes once made: any number of threads may encode with it at once. It is counted by references.
 * Token ids count from 0 in the order of the vocabulary.
 */
#ifndef UNIC_WORDPIECE_H
#define UNIC_WORDPIECE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "status.h"

typedef struct unic_wordpiece unic_wordpiece;

/* The special tokens, found by their names in the vocabulary; the first four must be there. */
typedef enum unic_special { UNIC_PAD, UNIC_UNK, UNIC_CLS, UNIC_SEP, UNIC_MASK, UNIC_SPECIALS } unic_special;

typedef struct unic_wordpiece_options {
  bool lowercase;
  bool strip_accents;
  bool cjk;  /* make each Chinese character a word */
} unic_wordpiece_options;

/* Flags of an encoding. */
enum {
  UNIC_ENCODE_BARE = 1,     /* no [CLS] before and no [SEP] after */
  UNIC_ENCODE_SPECIALS = 2  /* "[MASK]", "[SEP]", ... written in the text are those tokens; without it they are brackets and a word */
};

/* Read a vocabulary: UTF-8, one token a line, LF or CRLF. A file that is none fails with a sentence naming path and line. */
unic_status unic_wordpiece_load(const char *path, const unic_wordpiece_options *options, unic_wordpiece **out);

/* The same from memory; `name` stands for the path in sentences. */
unic_status unic_wordpiece_parse(const char *bytes, size_t size, const char *name, const unic_wordpiece_options *options, unic_wordpiece **out);

unic_wordpiece *unic_wordpiece_retain(unic_wordpiece *vocabulary);
void unic_wordpiece_release(unic_wordpiece *vocabulary);  /* NULL is allowed */

int32_t unic_wordpiece_size(const unic_wordpiece *vocabulary);

/* Id of a special token; -1 if the vocabulary has no [MASK]. */
int32_t unic_wordpiece_special(const unic_wordpiece *vocabulary, unic_special which);

/* Id of a token as written in the vocabulary ("##s"); -1 if it is not there. */
int32_t unic_wordpiece_find(const unic_wordpiece *vocabulary, const char *token, size_t size);

/* Text of a token, 0 <= id < size; not ended by NUL. */
const char *unic_wordpiece_token(const unic_wordpiece *vocabulary, int32_t id, size_t *size);

/* FNV-1a (64 bits) over the tokens, each followed by LF: equal for equal vocabularies, whatever their line ends. */
uint64_t unic_wordpiece_hash(const unic_wordpiece *vocabulary);

/* Encode a text into at most `max` ids, [CLS] and [SEP] included (so max >= 2 unless UNIC_ENCODE_BARE); what does not fit is cut off at
 * its end. Never fails, allocates nothing, may run on any thread. spans, if not NULL, gets for each id the text bytes [begin, end) that it
 * stands for, 0 and 0 for [CLS] and [SEP]; the text must then be under 4 GiB. Returns how many ids there are.
 * A text of n bytes never gives more than n + 2 ids. */
int64_t unic_wordpiece_encode(const unic_wordpiece *vocabulary, const char *text, size_t size, int flags, int32_t *ids, int64_t max,
                              uint32_t (*spans)[2]);

/* Encode two texts as [CLS] a [SEP] b [SEP] (UNIC_ENCODE_BARE: a b) into at most `max` ids, so max >= 3 unless bare. When they do not fit, ids go
 * from the end of the longer one until both are equally long, then from both, as Hugging Face's "longest first" has it. *first gets how many
 * ids belong to a, [CLS] and its [SEP] included: the others are of token type 1. ids, and spans if not NULL, need room for a_size + b_size + 3
 * whatever max is; spans are places in the text that the id comes from. Returns how many ids there are. */
int64_t unic_wordpiece_encode_pair(const unic_wordpiece *vocabulary, const char *a, size_t a_size, const char *b, size_t b_size, int flags,
                                   int32_t *ids, int64_t max, uint32_t (*spans)[2], int64_t *first);

/* Write one row of a batch: count ids (cut to width), then [PAD]; mask (may be NULL): 1 for a token, 0 for padding. */
void unic_wordpiece_row(const unic_wordpiece *vocabulary, const int32_t *ids, int64_t count, int64_t width, int64_t *row, uint8_t *mask);

/* Text of ids into `out` (room for *size + 1 bytes; ended by NUL), or only its length into *size if out is NULL. Pieces are glued and words
 * parted by blanks; special tokens are left out if wished, and blanks before . ? ! , closed up if wished, as Hugging Face does it. Fails for
 * an id outside the vocabulary. */
unic_status unic_wordpiece_decode(const unic_wordpiece *vocabulary, const int32_t *ids, int64_t count, bool skip_specials, bool cleanup,
                                  char *out, size_t *size);

/* The rules for unic_words_begin (words.h): words before they are cut into pieces, for building vocabularies and for looking. */
struct unic_word_rules;
const struct unic_word_rules *unic_wordpiece_words(const unic_wordpiece *vocabulary);

#endif
