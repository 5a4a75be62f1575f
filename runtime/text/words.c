/* BERT's basic tokeniser in one pass over the text.
 *
 * The rules are stated as four passes (clean; part Chinese characters; decompose, order and remove marks; lower-case), then a split. One
 * pass gives the same because every step but the ordering of marks looks at single characters; the ordering is done in the word's buffer.
 */
#include "words.h"

#include <string.h>

#include "unicode.h"

void unic_word_rules_set(unic_word_rules *rules, bool lowercase, bool strip_accents, bool cjk) {
  unic_unicode_init();
  memset(rules, 0, sizeof *rules);
  rules->lowercase = lowercase;
  rules->strip_accents = strip_accents;
  rules->cjk = cjk;
  for (uint32_t c = 0; c < 128; c++) {
    const unic_char *info = unic_char_find(c);
    if (info->flags == 0) rules->ascii[c] = (uint8_t)(lowercase ? (int32_t)c + info->lower : (int32_t)c);
  }
}

void unic_words_begin(unic_words *words, const unic_word_rules *rules, const char *text, size_t size, bool offsets) {
  words->rules = rules;
  words->text = words->next = (const uint8_t *)text;
  words->limit = words->text + size;
  words->offsets = offsets;
  words->size = words->chars = words->run = 0;
}

/* Room for n bytes at position `at` of the word, which come from the text bytes [from, to). */
static uint8_t *bytes_insert(unic_words *w, int at, int n, const uint8_t *from, const uint8_t *to) {
  const int moved = w->size - at;
  if (moved > 0) memmove(w->bytes + at + n, w->bytes + at, (size_t)moved);
  if (w->offsets) {
    if (moved > 0) {
      memmove(w->begin + at + n, w->begin + at, (size_t)moved * sizeof w->begin[0]);
      memmove(w->end + at + n, w->end + at, (size_t)moved * sizeof w->end[0]);
    }
    for (int i = 0; i < n; i++) {
      w->begin[at + i] = (uint32_t)(from - w->text);
      w->end[at + i] = (uint32_t)(to - w->text);
    }
    w->stop = to - w->text;
  }
  w->size += n;
  return w->bytes + at;
}

/* Append a character that is kept, in its final case. `class` is its canonical combining class if marks are being ordered, else 0. */
static void char_append(unic_words *w, uint32_t code, int class, const uint8_t *from, const uint8_t *to) {
  if (++w->chars > UNIC_WORD_CHARS) {  /* the word is unknown whatever follows */
    w->stop = to - w->text;
    return;
  }
  uint8_t utf8[4];
  const int n = unic_utf8_encode(code, utf8);
  int at = w->size;
  if (class != 0) {
    if (w->marks_end != w->size) w->marks = 0;  /* something that is no mark came between */
    int m = w->marks;
    for (; m > 0 && w->classes[m - 1] > class; m--) {
      w->classes[m] = w->classes[m - 1];
      do at--; while ((w->bytes[at] & 0xC0) == 0x80);
    }
    w->classes[m] = (uint8_t)class;
    w->marks++;
  }
  memcpy(bytes_insert(w, at, n, from, to), utf8, (size_t)n);
  if (class != 0) w->marks_end = w->size;
}

/* Note a mark for run_end; `kept`: it was appended to the word as well. */
static void run_add(unic_words *w, int class, bool kept, bool added, const uint8_t *from, const uint8_t *to) {
  if (w->run == 0) {
    w->run_at = w->size;
    w->run_kept = 0;
  }
  if (w->run < UNIC_WORD_MARKS)
    w->run_marks[w->run] = (struct unic_word_mark){(uint32_t)(from - w->text), (uint32_t)(to - w->text), (uint8_t)class, kept, added};
  w->run++;
  w->run_kept += kept;
}

/* The marks on a letter are all there. Canonical order may have moved those that are kept. Hugging Face hands out places in the text after
 * it has put the marks in order: the first one gets the place of the first in the text, whichever that was. Do the same. */
static void run_end(unic_words *w) {
  const int n = w->run, kept = w->run_kept;
  w->run = w->run_kept = 0;
  if (kept == 0 || n > UNIC_WORD_MARKS) return;
  uint8_t order[UNIC_WORD_MARKS], heads[UNIC_WORD_MARKS];
  int head_count = 0, used = 0, at = w->run_at;
  for (int i = 0; i < n; i++) {
    int k = i;
    for (; k > 0 && w->run_marks[order[k - 1]].class > w->run_marks[i].class; k--) order[k] = order[k - 1];
    order[k] = (uint8_t)i;
    if (!w->run_marks[i].added) heads[head_count++] = (uint8_t)i;
  }
  for (int i = 0; i < n; i++) {
    const struct unic_word_mark *mark = &w->run_marks[order[i]], *place = mark;
    if (!mark->added) place = &w->run_marks[heads[used++]];
    else if (used > 0) place = &w->run_marks[heads[used - 1]];
    if (!mark->kept) continue;
    w->stop = place->end;
    if (w->chars > UNIC_WORD_CHARS) continue;  /* unknown: only its ends are asked for */
    do {
      w->begin[at] = place->begin;
      w->end[at] = place->end;
    } while (++at < w->size && (w->bytes[at] & 0xC0) == 0x80);
  }
}

/* Append what the character becomes. */
static void char_take(unic_words *w, uint32_t code, const uint8_t *from, const uint8_t *to) {
  const unic_word_rules *rules = w->rules;
  uint32_t parts[4] = {code};
  const int n = rules->strip_accents ? unic_char_decompose(code, parts) : 1;
  for (int i = 0; i < n; i++) {
    const unic_char *info = unic_char_find(parts[i]);
    const bool stripped = rules->strip_accents && (info->flags & UNIC_CHAR_MARK);
    if (w->offsets && rules->strip_accents) {
      if (info->combining != 0) run_add(w, info->combining, !stripped, i > 0, from, to);
      else if (w->run > 0) run_end(w);
    }
    if (stripped) {
      if (info->combining == 0) w->marks = 0;  /* order is not restored across it */
      continue;
    }
    uint32_t lower[2] = {parts[i]};
    const int m = rules->lowercase ? unic_char_lower(parts[i], lower) : 1;
    for (int k = 0; k < m; k++) char_append(w, lower[k], rules->strip_accents ? info->combining : 0, from, to);
  }
}

/* Is what the character becomes a word by itself? Of a decomposition the first part tells: no mark that is kept follows punctuation. */
static bool char_alone(const unic_words *w, uint32_t code, const unic_char *info) {
  if ((info->flags & UNIC_CHAR_CJK) && w->rules->cjk) return true;
  if (!w->rules->strip_accents || info->decomposition == 0) return (info->flags & UNIC_CHAR_PUNCTUATION) != 0;
  uint32_t parts[4];
  unic_char_decompose(code, parts);
  return (unic_char_find(parts[0])->flags & UNIC_CHAR_PUNCTUATION) != 0;
}

bool unic_words_next(unic_words *w) {
  const unic_word_rules *rules = w->rules;
  const uint8_t *p = w->next, *const limit = w->limit;
  bool done = false;
  w->size = w->chars = w->marks = w->run = 0;
  while (p < limit && !done) {
    /* letters and digits: nearly all of a report */
    const uint8_t *const start = p;
    const int64_t room = UNIC_WORD_CHARS - w->chars;
    const uint8_t *const stop = limit - p > room ? p + (room > 0 ? room : 0) : limit;
    uint8_t *out = w->bytes + w->size;
    while (p < stop && (*out = rules->ascii[*p]) != 0) { out++; p++; }
    if (p > start) {
      if (w->offsets) {
        if (w->run > 0) run_end(w);
        for (const uint8_t *q = start; q < p; q++) {
          w->begin[w->size + (q - start)] = (uint32_t)(q - w->text);
          w->end[w->size + (q - start)] = (uint32_t)(q + 1 - w->text);
        }
        w->stop = p - w->text;
      }
      w->size += (int)(p - start);
      w->chars += (int)(p - start);
      if (p == limit) break;
    }
    uint32_t code;
    const int n = unic_utf8_decode(p, limit, &code);
    const unic_char *info = unic_char_find(code);
    if (info->flags & UNIC_CHAR_SPACE) {
      p += n;
      if (w->chars > 0) break;
    } else if (info->flags & UNIC_CHAR_DROP) {
      p += n;
    } else if (char_alone(w, code, info)) {
      if (w->chars > 0) break;  /* the word before it first */
      char_take(w, code, p, p + n);
      p += n;
      done = w->chars > 0;
    } else {
      char_take(w, code, p, p + n);
      p += n;
    }
  }
  if (w->run > 0) run_end(w);
  w->next = p;
  return w->chars > 0;
}
