/* Character properties: the runs of unicode_data.h spread into pages of 256 characters, equal pages stored once. */
#include "unicode.h"

#include <pthread.h>
#include <string.h>

#include "unicode_data.h"

enum {
  PAGE = 256,
  HANGUL_FIRST = 0xAC00, HANGUL_LAST = 0xD7A3,
  HANGUL = 0xFFFF  /* the decomposition that is computed */
};

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

const unic_char *unic_char_pages[0x1100];

static unic_char pages[DATA_PAGES][PAGE];
static const run data_hangul[] = {{HANGUL_FIRST, HANGUL_LAST, HANGUL}};

typedef enum property { FLAG, COMBINING, LOWER, DECOMPOSITION } property;

typedef struct source {
  const run *runs;
  size_t count;
  property property;
  int32_t value;  /* of runs that give none */
} source;

static const source sources[] = {
  {data_drop, COUNT(data_drop), FLAG, UNIC_CHAR_DROP},
  {data_space, COUNT(data_space), FLAG, UNIC_CHAR_SPACE},
  {data_cjk, COUNT(data_cjk), FLAG, UNIC_CHAR_CJK},
  {data_punctuation, COUNT(data_punctuation), FLAG, UNIC_CHAR_PUNCTUATION},
  {data_mark, COUNT(data_mark), FLAG, UNIC_CHAR_MARK},
  {data_combining, COUNT(data_combining), COMBINING, 0},
  {data_lower, COUNT(data_lower), LOWER, 0},
  {data_hangul, COUNT(data_hangul), DECOMPOSITION, 0}
};

static void char_set(unic_char *c, property which, int32_t value) {
  switch (which) {
    case FLAG: c->flags |= (uint8_t)value; break;
    case COMBINING: c->combining = (uint8_t)value; break;
    case LOWER: c->lower = value; break;
    case DECOMPOSITION: c->decomposition = (uint16_t)value; break;
  }
}

/* Write what the source says about the page from `base` on; *cursor is the first run that can reach it. */
static void source_spread(const source *s, size_t *cursor, int32_t base, unic_char *page) {
  while (*cursor < s->count && s->runs[*cursor][1] < base) ++*cursor;
  for (size_t i = *cursor; i < s->count && s->runs[i][0] < base + PAGE; i++) {
    const int32_t first = s->runs[i][0], last = s->runs[i][1], value = s->value ? s->value : s->runs[i][2];
    const int32_t step = s->runs[i][3] ? s->runs[i][3] : 1;
    int32_t c = first;
    if (c < base) c += (base - c + step - 1) / step * step;
    for (; c <= last && c < base + PAGE; c += step) char_set(&page[c - base], s->property, value);
  }
}

static void pages_make(void) {
  size_t cursors[COUNT(sources)] = {0}, row = 0;
  int used = 0;
  for (uint32_t p = 0; p < COUNT(unic_char_pages); p++) {
    unic_char page[PAGE];
    const uint32_t base = p * PAGE;
    memset(page, 0, sizeof page);
    for (size_t s = 0; s < COUNT(sources); s++) source_spread(&sources[s], &cursors[s], (int32_t)base, page);
    for (; row < COUNT(data_decomposition) && data_decomposition[row][0] < base + PAGE; row++)
      page[data_decomposition[row][0] - base].decomposition = (uint16_t)(row + 1);
    int same = 0;
    while (same < used && memcmp(pages[same], page, sizeof page) != 0) same++;
    if (same == used) memcpy(pages[used++], page, sizeof page);  /* DATA_PAGES counts exactly these */
    unic_char_pages[p] = pages[same];
  }
}

void unic_unicode_init(void) {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, pages_make);
}

int unic_char_decompose(uint32_t code, uint32_t *out) {
  const unsigned which = unic_char_find(code)->decomposition;
  if (which == 0) { out[0] = code; return 1; }
  if (which == HANGUL) {  /* a syllable is leading consonant, vowel and perhaps a trailing consonant, in a regular order */
    const uint32_t s = code - HANGUL_FIRST;
    out[0] = 0x1100 + s / 588;
    out[1] = 0x1161 + s % 588 / 28;
    if (s % 28 == 0) return 2;
    out[2] = 0x11A7 + s % 28;
    return 3;
  }
  const uint32_t *row = data_decomposition[which - 1];
  int n = 0;
  while (n < 4 && row[n + 1] != 0) { out[n] = row[n + 1]; n++; }
  return n;
}

int unic_char_lower(uint32_t code, uint32_t *out) {
  if (code == 0x130) { out[0] = 'i'; out[1] = 0x307; return 2; }  /* I with dot above: the only letter whose lower case is two */
  out[0] = (uint32_t)((int32_t)code + unic_char_find(code)->lower);
  return 1;
}
