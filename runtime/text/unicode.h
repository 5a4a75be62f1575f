/* Unicode as BERT's tokeniser sees it: character properties, canonical decomposition, lower case, UTF-8.
 *
 * The properties are those of Hugging Face's tokenizers, which mixes several editions of Unicode; unicode_data.h says which and how they
 * were found. They do not depend on a library's version, so token ids are the same on every system.
 */
#ifndef UNIC_UNICODE_H
#define UNIC_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
  UNIC_CHAR_DROP = 1,         /* control, format, private use, NUL, U+FFFD: removed from text */
  UNIC_CHAR_SPACE = 2,        /* white space */
  UNIC_CHAR_PUNCTUATION = 4,  /* a word of its own */
  UNIC_CHAR_CJK = 8,          /* a Chinese character: a word of its own if wished */
  UNIC_CHAR_MARK = 16         /* nonspacing mark: an accent, once decomposed */
};

typedef struct unic_char {
  uint8_t flags;           /* UNIC_CHAR_... */
  uint8_t combining;       /* canonical combining class; only the order of the numbers means something */
  uint16_t decomposition;  /* 0 = none; else for unic_char_decompose */
  int32_t lower;           /* lower case minus code point */
} unic_char;

/* Pages of 256 code points; read them through unic_char_find. */
extern const unic_char *unic_char_pages[0x1100];

/* Make the tables (under 1 ms, once per process, any thread). Everything below needs it; loading a vocabulary calls it. */
void unic_unicode_init(void);

/* Properties of a code point up to 0x10FFFF. */
static inline const unic_char *unic_char_find(uint32_t code) { return &unic_char_pages[code >> 8][code & 255]; }

/* Full canonical decomposition into out[4], marks not yet in canonical order across characters; returns how many (1: itself). */
int unic_char_decompose(uint32_t code, uint32_t *out);

/* Full lower case, independent of language and context, into out[2]; returns how many. */
int unic_char_lower(uint32_t code, uint32_t *out);

/* Decode the character at p (p < end): returns its bytes; a maximal ill-formed part gives U+FFFD, as Unicode recommends. */
static inline int unic_utf8_decode(const uint8_t *p, const uint8_t *end, uint32_t *code) {
  uint32_t c = p[0], low = 0x80, high = 0xBF;
  int more;
  if (c < 0x80) { *code = c; return 1; }
  if (c >= 0xC2 && c <= 0xDF) { more = 1; c &= 0x1F; }
  else if (c >= 0xE0 && c <= 0xEF) {
    more = 2;
    if (c == 0xE0) low = 0xA0;   /* overlong */
    if (c == 0xED) high = 0x9F;  /* surrogates */
    c &= 0x0F;
  } else if (c >= 0xF0 && c <= 0xF4) {
    more = 3;
    if (c == 0xF0) low = 0x90;   /* overlong */
    if (c == 0xF4) high = 0x8F;  /* above U+10FFFF */
    c &= 0x07;
  } else { *code = 0xFFFD; return 1; }
  for (int i = 1; i <= more; i++) {
    if (p + i >= end || p[i] < low || p[i] > high) { *code = 0xFFFD; return i; }
    c = c << 6 | (p[i] & 0x3F);
    low = 0x80; high = 0xBF;
  }
  *code = c;
  return more + 1;
}

/* Encode a code point into out[4]; returns the bytes written. */
static inline int unic_utf8_encode(uint32_t code, uint8_t *out) {
  if (code < 0x80) { out[0] = (uint8_t)code; return 1; }
  if (code < 0x800) { out[0] = (uint8_t)(0xC0 | code >> 6); out[1] = (uint8_t)(0x80 | (code & 0x3F)); return 2; }
  if (code < 0x10000) {
    out[0] = (uint8_t)(0xE0 | code >> 12); out[1] = (uint8_t)(0x80 | (code >> 6 & 0x3F)); out[2] = (uint8_t)(0x80 | (code & 0x3F));
    return 3;
  }
  out[0] = (uint8_t)(0xF0 | code >> 18); out[1] = (uint8_t)(0x80 | (code >> 12 & 0x3F));
  out[2] = (uint8_t)(0x80 | (code >> 6 & 0x3F)); out[3] = (uint8_t)(0x80 | (code & 0x3F));
  return 4;
}

#endif
