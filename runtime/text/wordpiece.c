/* A WordPiece vocabulary and greedy longest-match encoding.
 *
 * All tokens lie in one open-addressing table keyed by a polynomial hash: the hash of any stretch of a word comes from the hashes of its
 * prefixes by one multiplication, so a whole word costs one look-up and each failed length one more. Nothing is allocated while encoding.
 */
#include "wordpiece.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "files/utf8.h"
#include "unicode.h"
#include "words.h"

typedef struct slot {
  uint32_t tag;  /* other bits of the hash than the slot's number */
  int32_t id;    /* -1: empty */
} slot;

struct unic_wordpiece {
  atomic_int references;
  unic_word_rules rules;
  int32_t size;
  int32_t specials[UNIC_SPECIALS];
  char *text;                /* the tokens, one after the other */
  uint32_t *starts;          /* [size + 1] where each begins */
  slot *slots;
  int shift;                 /* 64 - log2 of the number of slots */
  uint64_t mask;
  int longest, longest_rest; /* bytes of the longest token; of the longest "##" token without the "##" */
  uint64_t hash;
  uint64_t rest_hash[UNIC_WORD_BYTES];  /* [n]: what "##" adds to the hash of n bytes after it */
  uint64_t power[UNIC_WORD_BYTES];      /* [n]: multiplier to the n */
};

static const char *const special_names[UNIC_SPECIALS] = {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"};

static const uint64_t MULTIPLIER = UINT64_C(0x9E3779B97F4A7C15);  /* odd, bits well mixed */
static const uint64_t SPREADER = UINT64_C(0xD6E8FEB86659FD93);
static const size_t MAX_FILE = (size_t)1 << 28;  /* 256 MB: a thousand times the usual */

static inline uint64_t hash_add(uint64_t hash, uint8_t byte) { return hash * MULTIPLIER + byte + 1; }

static uint64_t hash_of(const char *bytes, size_t size) {
  uint64_t hash = 0;
  for (size_t i = 0; i < size; i++) hash = hash_add(hash, (uint8_t)bytes[i]);
  return hash;
}

/* Find the token that is `prefix` (0 or 2 bytes of '#') and then `bytes`; `hash` is that of both. Returns -1 if there is none. */
static inline int32_t token_find(const unic_wordpiece *v, uint64_t hash, int prefix, const uint8_t *bytes, size_t size) {
  const uint64_t mixed = (hash ^ hash >> 32) * SPREADER;
  const uint32_t tag = (uint32_t)mixed;
  for (uint64_t at = mixed >> v->shift;; at = (at + 1) & v->mask) {
    const slot s = v->slots[at];
    if (s.id < 0) return -1;
    if (s.tag != tag) continue;
    const uint32_t start = v->starts[s.id];
    if (v->starts[s.id + 1] - start == size + (size_t)prefix && memcmp(v->text + start + prefix, bytes, size) == 0 &&
        (prefix == 0 || (v->text[start] == '#' && v->text[start + 1] == '#'))) return s.id;
  }
}

/* ---- making a vocabulary ---- */

/* Bytes of the line that are left when white space at its end is taken off; a line of nothing else stays as it is (it is somebody's token). */
static size_t line_trim(const uint8_t *line, size_t size) {
  size_t kept = 0;
  for (size_t i = 0; i < size;) {
    uint32_t code;
    i += (size_t)unic_utf8_decode(line + i, line + size, &code);
    /* vertical tab, form feed and next line are white space too, though BERT's cleaning takes them for control characters */
    const bool blank = (unic_char_find(code)->flags & UNIC_CHAR_SPACE) || code == 0x0B || code == 0x0C || code == 0x85;
    if (!blank) kept = i;
  }
  return kept > 0 ? kept : size;
}

/* Insert token `id`; returns the id of the same token that is there already, or -1. */
static int32_t slot_insert(unic_wordpiece *v, int32_t id) {
  const char *bytes = v->text + v->starts[id];
  const size_t size = v->starts[id + 1] - v->starts[id];
  const uint64_t hash = hash_of(bytes, size);
  const int32_t other = token_find(v, hash, 0, (const uint8_t *)bytes, size);
  if (other >= 0) return other;
  const uint64_t mixed = (hash ^ hash >> 32) * SPREADER;
  uint64_t at = mixed >> v->shift;
  while (v->slots[at].id >= 0) at = (at + 1) & v->mask;
  v->slots[at] = (slot){(uint32_t)mixed, id};
  return -1;
}

static unic_status tokens_read(unic_wordpiece *v, const uint8_t *bytes, size_t size, const char *name) {
  const int64_t bad = unic_utf8_check((const char *)bytes, (int64_t)size);
  if (bad >= 0) {
    size_t line = 1;
    for (int64_t i = 0; i < bad; i++) line += bytes[i] == '\n';
    return unic_fail("[wordpiece] argument 'vocabulary': %s is not UTF-8 (byte 0x%02X in line %zu); expected a text file with one token a line",
                     name, bytes[bad], line);
  }
  size_t at = size >= 3 && memcmp(bytes, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;  /* a byte order mark is no part of the first token */
  uint32_t used = 0;
  for (int32_t line = 1; at < size; line++) {
    const uint8_t *start = bytes + at;
    const uint8_t *newline = memchr(start, '\n', size - at);
    size_t length = newline ? (size_t)(newline - start) : size - at;
    at += length + (newline != NULL);
    if (length > 0 && start[length - 1] == '\r') length--;
    if (length == 0)
      return unic_fail("[wordpiece] argument 'vocabulary': line %d of %s is empty; every line is one token, since its number is the token's id", line,
                       name);
    length = line_trim(start, length);
    memcpy(v->text + used, start, length);
    v->starts[v->size++] = used;
    used += (uint32_t)length;
    v->starts[v->size] = used;
    const int32_t other = slot_insert(v, v->size - 1);
    if (other >= 0)
      return unic_fail("[wordpiece] argument 'vocabulary': line %d of %s repeats the token '%.*s' of line %d; every token stands once", line, name,
                       length > 80 ? 80 : (int)length, (const char *)start, other + 1);
    if ((int)length > v->longest) v->longest = length > UNIC_WORD_BYTES ? UNIC_WORD_BYTES : (int)length;
    if (length > 2 && start[0] == '#' && start[1] == '#' && (int)length - 2 > v->longest_rest)
      v->longest_rest = length > UNIC_WORD_BYTES ? UNIC_WORD_BYTES : (int)length - 2;
  }
  return UNIC_OK;
}

static unic_status specials_find(unic_wordpiece *v, const char *name) {
  char missing[64] = "";
  for (int i = 0; i < UNIC_SPECIALS; i++) {
    v->specials[i] = unic_wordpiece_find(v, special_names[i], strlen(special_names[i]));
    if (v->specials[i] < 0 && i != UNIC_MASK) {
      if (missing[0]) strcat(missing, ", ");
      strcat(missing, special_names[i]);
    }
  }
  if (missing[0])
    return unic_fail("[wordpiece] argument 'vocabulary': %s has no %s among its %d tokens; a BERT vocabulary has [PAD], [UNK], [CLS] and [SEP]", name,
                     missing, v->size);
  return UNIC_OK;
}

unic_status unic_wordpiece_parse(const char *bytes, size_t size, const char *name, const unic_wordpiece_options *options, unic_wordpiece **out) {
  *out = NULL;
  if (size == 0)
    return unic_fail("[wordpiece] argument 'vocabulary': %s is empty; expected a text file with one token a line", name);
  if (size > MAX_FILE)
    return unic_fail("[wordpiece] argument 'vocabulary': %s has more than %zu MB; expected a text file with one token a line", name, MAX_FILE >> 20);
  unic_unicode_init();
  size_t lines = 1;
  for (size_t i = 0; i < size; i++) lines += bytes[i] == '\n';
  int bits = 4;
  while (((size_t)1 << bits) < 2 * lines) bits++;  /* at most half full */
  unic_wordpiece *v = calloc(1, sizeof *v);
  if (v) {
    v->text = malloc(size);
    v->starts = malloc((lines + 1) * sizeof *v->starts);
    v->slots = malloc(sizeof *v->slots << bits);
  }
  if (!v || !v->text || !v->starts || !v->slots) {
    if (v) { free(v->text); free(v->starts); free(v->slots); free(v); }
    return unic_fail_memory("[wordpiece] no memory for the vocabulary %s (%zu lines)", name, lines);
  }
  atomic_init(&v->references, 1);
  unic_word_rules_set(&v->rules, options->lowercase, options->strip_accents, options->cjk);
  v->shift = 64 - bits;
  v->mask = ((uint64_t)1 << bits) - 1;
  v->starts[0] = 0;
  for (uint64_t i = 0; i <= v->mask; i++) v->slots[i] = (slot){0, -1};
  const uint64_t sharp = hash_of("##", 2);
  for (int n = 0; n < UNIC_WORD_BYTES; n++) {
    v->power[n] = n == 0 ? 1 : v->power[n - 1] * MULTIPLIER;
    v->rest_hash[n] = sharp * v->power[n];
  }
  unic_status status = tokens_read(v, (const uint8_t *)bytes, size, name);
  if (status == UNIC_OK) status = specials_find(v, name);
  if (status != UNIC_OK) {
    unic_wordpiece_release(v);
    return status;
  }
  v->hash = UINT64_C(0xCBF29CE484222325);
  for (int32_t id = 0; id < v->size; id++)
    for (uint32_t i = v->starts[id]; i <= v->starts[id + 1]; i++)
      v->hash = (v->hash ^ (i < v->starts[id + 1] ? (uint8_t)v->text[i] : '\n')) * UINT64_C(0x100000001B3);
  *out = v;
  return UNIC_OK;
}

unic_status unic_wordpiece_load(const char *path, const unic_wordpiece_options *options, unic_wordpiece **out) {
  *out = NULL;
  FILE *file = fopen(path, "rb");
  if (!file)
    return unic_fail("[wordpiece] argument 'vocabulary': cannot open %s: %s; expected a text file with one token a line", path, strerror(errno));
  unic_status status = UNIC_OK;
  char *bytes = NULL;
  size_t size = 0, room = 0;
  for (;;) {
    if (size == room) {
      room = room ? 2 * room : (size_t)1 << 19;
      char *more = realloc(bytes, room);
      if (!more) { status = unic_fail_memory("[wordpiece] no memory to read %s (%zu bytes)", path, room); goto done; }
      bytes = more;
    }
    const size_t got = fread(bytes + size, 1, room - size, file);
    size += got;
    if (got == 0 || size > MAX_FILE) break;
  }
  if (ferror(file)) {
    status = unic_fail("[wordpiece] argument 'vocabulary': cannot read %s: %s; expected a text file with one token a line", path, strerror(errno));
    goto done;
  }
  status = unic_wordpiece_parse(bytes, size, path, options, out);
done:
  free(bytes);
  fclose(file);
  return status;
}

unic_wordpiece *unic_wordpiece_retain(unic_wordpiece *v) {
  atomic_fetch_add_explicit(&v->references, 1, memory_order_relaxed);
  return v;
}

void unic_wordpiece_release(unic_wordpiece *v) {
  if (!v || atomic_fetch_sub_explicit(&v->references, 1, memory_order_acq_rel) != 1) return;
  free(v->text);
  free(v->starts);
  free(v->slots);
  free(v);
}

/* ---- asking ---- */

int32_t unic_wordpiece_size(const unic_wordpiece *v) { return v->size; }
int32_t unic_wordpiece_special(const unic_wordpiece *v, unic_special which) { return v->specials[which]; }
uint64_t unic_wordpiece_hash(const unic_wordpiece *v) { return v->hash; }
const unic_word_rules *unic_wordpiece_words(const unic_wordpiece *v) { return &v->rules; }

int32_t unic_wordpiece_find(const unic_wordpiece *v, const char *token, size_t size) {
  return token_find(v, hash_of(token, size), 0, (const uint8_t *)token, size);
}

const char *unic_wordpiece_token(const unic_wordpiece *v, int32_t id, size_t *size) {
  *size = v->starts[id + 1] - v->starts[id];
  return v->text + v->starts[id];
}

/* ---- encoding ---- */

/* Cut a word into pieces: ids and, if ends is not NULL, the word's bytes up to which each reaches. Returns 0 for an unknown word. */
static int word_cut(const unic_wordpiece *v, const unic_words *w, int32_t *pieces, int *ends) {
  if (w->chars > UNIC_WORD_CHARS) return 0;
  uint64_t hashes[UNIC_WORD_BYTES];  /* of the word's prefixes */
  const int size = w->size;
  hashes[0] = 0;
  for (int i = 0; i < size; i++) hashes[i + 1] = hash_add(hashes[i], w->bytes[i]);
  int count = 0;
  for (int start = 0; start < size;) {
    int length = size - start;
    const int most = start == 0 ? v->longest : v->longest_rest;
    if (length > most) length = most;
    int32_t id = -1;
    for (; length > 0; length--) {
      if (start + length < size && (w->bytes[start + length] & 0xC0) == 0x80) continue;  /* no token ends inside a character */
      uint64_t hash = hashes[start + length] - hashes[start] * v->power[length];
      if (start > 0) hash += v->rest_hash[length];
      id = token_find(v, hash, start > 0 ? 2 : 0, w->bytes + start, (size_t)length);
      if (id >= 0) break;
    }
    if (id < 0) return 0;
    start += length;
    pieces[count] = id;
    if (ends) ends[count] = start;
    count++;
  }
  return count;
}

typedef struct output {
  int32_t *ids;
  uint32_t (*spans)[2];
  int64_t count, max;
} output;

static void output_add(output *o, int32_t id, uint32_t begin, uint32_t end) {
  if (o->count >= o->max) return;
  if (o->spans) { o->spans[o->count][0] = begin; o->spans[o->count][1] = end; }
  o->ids[o->count++] = id;
}

/* Encode the text bytes [from, to) as ordinary text. `w` is the caller's room. */
static void stretch_encode(const unic_wordpiece *v, const char *text, size_t from, size_t to, unic_words *w, output *o) {
  int32_t pieces[UNIC_WORD_BYTES];
  int ends[UNIC_WORD_BYTES];
  unic_words_begin(w, &v->rules, text + from, to - from, o->spans != NULL);
  while (o->count < o->max && unic_words_next(w)) {
    const int count = word_cut(v, w, pieces, o->spans ? ends : NULL);
    const uint32_t base = (uint32_t)from;
    if (count == 0) {
      output_add(o, v->specials[UNIC_UNK], o->spans ? base + w->begin[0] : 0, base + (uint32_t)w->stop);
    } else if (!o->spans) {
      int64_t fit = o->max - o->count;
      if (fit > count) fit = count;
      for (int64_t i = 0; i < fit; i++) o->ids[o->count + i] = pieces[i];
      o->count += fit;
    } else {
      for (int i = 0; i < count; i++) output_add(o, pieces[i], base + w->begin[i == 0 ? 0 : ends[i - 1]], base + w->end[ends[i] - 1]);
    }
  }
}

/* The first special token written in the text at or after `from`: its place, or `size`; its number in *which. */
static size_t special_next(const unic_wordpiece *v, const char *text, size_t from, size_t size, int *which) {
  for (const char *p = text + from; (p = memchr(p, '[', size - (size_t)(p - text))) != NULL; p++)
    for (int i = 0; i < UNIC_SPECIALS; i++) {
      const size_t n = strlen(special_names[i]);
      if (v->specials[i] >= 0 && size - (size_t)(p - text) >= n && memcmp(p, special_names[i], n) == 0) {
        *which = i;
        return (size_t)(p - text);
      }
    }
  return size;
}

int64_t unic_wordpiece_encode(const unic_wordpiece *v, const char *text, size_t size, int flags, int32_t *ids, int64_t max, uint32_t (*spans)[2]) {
  const bool bare = (flags & UNIC_ENCODE_BARE) != 0;
  output o = {ids, spans, 0, max};
  unic_words words;
  if (!bare) {
    output_add(&o, v->specials[UNIC_CLS], 0, 0);
    o.max--;
  }
  if (flags & UNIC_ENCODE_SPECIALS) {
    for (size_t from = 0; from < size && o.count < o.max;) {
      int which = 0;
      const size_t at = special_next(v, text, from, size, &which);
      stretch_encode(v, text, from, at, &words, &o);
      if (at == size) break;
      from = at + strlen(special_names[which]);
      output_add(&o, v->specials[which], (uint32_t)at, (uint32_t)from);
    }
  } else {
    stretch_encode(v, text, 0, size, &words, &o);
  }
  if (!bare) {
    o.max++;
    output_add(&o, v->specials[UNIC_SEP], 0, 0);
  }
  return o.count;
}

int64_t unic_wordpiece_encode_pair(const unic_wordpiece *v, const char *a, size_t a_size, const char *b, size_t b_size, int flags, int32_t *ids,
                                   int64_t max, uint32_t (*spans)[2], int64_t *first) {
  const bool bare = (flags & UNIC_ENCODE_BARE) != 0;
  const int64_t lead = bare ? 0 : 1, fit = max - 3 * lead;
  flags |= UNIC_ENCODE_BARE;
  /* both in full: who gives what depends on which is longer */
  int64_t na = unic_wordpiece_encode(v, a, a_size, flags, ids + lead, (int64_t)a_size, spans ? spans + lead : NULL);
  const int64_t from = 2 * lead + na;
  int64_t nb = unic_wordpiece_encode(v, b, b_size, flags, ids + from, (int64_t)b_size, spans ? spans + from : NULL);
  if (na + nb > fit) {
    const int64_t shorter = na < nb ? na : nb;
    /* when both must give, the one that was longer keeps the odd id; of equals the second */
    const int64_t least = shorter < fit / 2 ? shorter : fit / 2;
    if (na > nb) { na = fit - least; nb = least; }
    else { na = least; nb = fit - least; }
  }
  const int64_t second = 2 * lead + na, end = second + nb;
  if (second != from) {
    memmove(ids + second, ids + from, (size_t)nb * sizeof *ids);
    if (spans) memmove(spans + second, spans + from, (size_t)nb * sizeof *spans);
  }
  if (!bare) {
    const int64_t places[3] = {0, second - 1, end};
    for (int i = 0; i < 3; i++) {
      ids[places[i]] = v->specials[i == 0 ? UNIC_CLS : UNIC_SEP];
      if (spans) spans[places[i]][0] = spans[places[i]][1] = 0;
    }
  }
  *first = second;
  return end + lead;
}

void unic_wordpiece_row(const unic_wordpiece *v, const int32_t *ids, int64_t count, int64_t width, int64_t *row, uint8_t *mask) {
  if (count > width) count = width;
  for (int64_t i = 0; i < count; i++) row[i] = ids[i];
  for (int64_t i = count; i < width; i++) row[i] = v->specials[UNIC_PAD];
  if (!mask) return;
  memset(mask, 1, (size_t)count);
  memset(mask + count, 0, (size_t)(width - count));
}

/* ---- decoding ---- */

/* Does a blank before the token go? These are the places where English closes up. */
static bool token_closes(const char *token, size_t size) {
  static const char *const marks[] = {".", "?", "!", ",", "n't", "'m", "'s", "'ve", "'re"};
  for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
    const size_t n = strlen(marks[i]);
    if (size >= n && memcmp(token, marks[i], n) == 0) return true;
  }
  return false;
}

static bool token_special(const unic_wordpiece *v, int32_t id) {
  for (int i = 0; i < UNIC_SPECIALS; i++)
    if (v->specials[i] == id) return true;
  return false;
}

unic_status unic_wordpiece_decode(const unic_wordpiece *v, const int32_t *ids, int64_t count, bool skip_specials, bool cleanup, char *out,
                                  size_t *size) {
  size_t used = 0;
  bool first = true;
  for (int64_t i = 0; i < count; i++) {
    if (ids[i] < 0 || ids[i] >= v->size)
      return unic_fail("[decode] argument 'ids': %d at position %lld is no id of the vocabulary, expected 0 to %d", ids[i], (long long)i + 1,
                       v->size - 1);
    if (skip_specials && token_special(v, ids[i])) continue;
    size_t n;
    const char *token = unic_wordpiece_token(v, ids[i], &n);
    if (!first && n >= 2 && token[0] == '#' && token[1] == '#') {
      token += 2;
      n -= 2;
    } else if (!first && !(cleanup && token_closes(token, n))) {
      if (out) out[used] = ' ';
      used++;
    }
    if (out) memcpy(out + used, token, n);
    used += n;
    first = false;
  }
  if (out) out[used] = '\0';
  *size = used;
  return UNIC_OK;
}
