/* Deflate, unpacked twice as fast as by zlib, which has to stop and go on at any byte of either side.
 *
 * Codes of up to WIDE bits are looked up at once, and where two literals fit into WIDE bits the table holds both. 56 bits or more lie ready before
 * each turn, enough for a length and a distance with their extra bits (15 + 5 + 15 + 13). Both buffers have room behind their ends, so a turn asks
 * for the ends once. Source: RFC 1951. */
#include "inflate.h"

#include <string.h>
#include <zlib.h>

enum { WIDE = 12, WIDE_DISTANCE = 10, WIDE_LENGTHS = 7, LONGEST = 15, SYMBOLS = 288, DISTANCES = 32 };

/* An entry: bits 0-3 of the code to drop, 4-7 extra bits, 8-23 value, 24-27 kind. Of a pair of literals the second stands in bits 16-23 and `drop`
 * is the length of both (at most WIDE). Subtables: value is where it begins, extra how many bits index it. */
enum { ONE = 0, TWO = 1, LENGTH = 2, SUBTABLE = 3, END = 4, BAD = 5 };
#define ENTRY(kind, value, extra, drop) ((uint32_t)(kind) << 24 | (uint32_t)(value) << 8 | (uint32_t)(extra) << 4 | (uint32_t)(drop))
#define KIND(e) ((e) >> 24)
#define VALUE(e) ((e) >> 8 & 0xFFFF)
#define EXTRA(e) ((e) >> 4 & 15)
#define DROP(e) ((e) & 15)

/* Subtables need at most one entry for each longer code's padded space; twice the symbols is more than any complete code asks for. */
typedef struct tables {
  uint32_t symbols[(1 << WIDE) + 2 * (1 << (LONGEST - WIDE)) * SYMBOLS];
  uint32_t distances[(1 << WIDE_DISTANCE) + (1 << (LONGEST - WIDE_DISTANCE)) * DISTANCES];
} tables;

typedef struct reader {
  const uint8_t *at, *end;   /* `at` may stand up to UNIC_INFLATE_BEFORE - 8 bytes behind the end */
  uint64_t bits;
  unsigned have;
} reader;

static inline void refill(reader *r) {
  uint64_t next = 0;
  memcpy(&next, r->at, 8);
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  next = __builtin_bswap64(next);
#endif
  r->bits |= next << r->have;
  r->at += (63 - r->have) >> 3;
  r->have |= 56;
}

static inline void drop(reader *r, unsigned n) {
  r->bits >>= n;
  r->have -= n;
}

static inline unsigned take(reader *r, unsigned n) {
  unsigned value = (unsigned)(r->bits & ((UINT64_C(1) << n) - 1));
  drop(r, n);
  return value;
}

/* More was read than there is. */
static inline bool beyond(const reader *r) { return r->at > r->end + 8 || (r->at > r->end && (size_t)(r->at - r->end) * 8 > r->have); }

static unsigned reversed(unsigned code, unsigned length) {
  unsigned out = 0;
  for (unsigned i = 0; i < length; i++) out |= (code >> i & 1) << (length - 1 - i);
  return out;
}

/* A table of a code's lengths. `entries`: what a symbol's entry is but for the bits to drop. `lone`: the code may be one symbol of one bit, or empty
 * (a block without repeats has no distances); any other incomplete code is refused. */
static bool build(uint32_t *table, unsigned wide, const uint8_t *lengths, int n, const uint32_t *entries, size_t room, bool lone) {
  unsigned count[LONGEST + 1] = {0}, next[LONGEST + 2] = {0}, used = 0;
  for (int s = 0; s < n; s++) count[lengths[s]]++;
  used = (unsigned)n - count[0];
  count[0] = 0;
  int64_t left = 1;
  for (unsigned l = 1; l <= LONGEST; l++) {
    left = 2 * left - count[l];
    if (left < 0) return false;
    next[l + 1] = (next[l] + count[l]) << 1;
  }
  if (left > 0 && !(lone && used <= 1 && count[1] == used)) return false;
  const size_t first = (size_t)1 << wide;
  for (size_t i = 0; i < first; i++) table[i] = ENTRY(BAD, 0, 0, 0);
  size_t end = first;
  /* Subtables are as wide as the longest code that begins with their bits. */
  uint8_t below[1 << WIDE];
  bool longer = false;
  for (unsigned l = wide + 1; l <= LONGEST; l++) longer = longer || count[l];
  unsigned place[LONGEST + 2];
  if (longer) {
    memset(below, 0, first);
    memcpy(place, next, sizeof place);
    for (int s = 0; s < n; s++) {
      const unsigned l = lengths[s];
      if (l == 0) continue;
      const unsigned code = place[l]++;
      if (l > wide) {
        const unsigned prefix = reversed(code >> (l - wide), wide);
        if (l - wide > below[prefix]) below[prefix] = (uint8_t)(l - wide);
      }
    }
    for (size_t i = 0; i < first; i++) {
      if (!below[i]) continue;
      if (end + ((size_t)1 << below[i]) > room) return false;
      table[i] = ENTRY(SUBTABLE, end, below[i], wide);
      for (size_t k = 0; k < (size_t)1 << below[i]; k++) table[end + k] = ENTRY(BAD, 0, 0, 0);
      end += (size_t)1 << below[i];
    }
  }
  for (int s = 0; s < n; s++) {
    const unsigned l = lengths[s];
    if (l == 0) continue;
    const unsigned code = reversed(next[l]++, l);
    if (l <= wide) {
      for (size_t i = code; i < first; i += (size_t)1 << l) table[i] = entries[s] | l;
    } else {
      const uint32_t sub = table[code & (first - 1)];
      for (size_t i = code >> wide; i < (size_t)1 << EXTRA(sub); i += (size_t)1 << (l - wide)) table[VALUE(sub) + i] = entries[s] | (l - wide);
    }
  }
  return true;
}

/* Where a literal leaves room for the next one's whole code, both at once. From the end, so that what is looked up is still single. */
static void pair(uint32_t *table) {
  for (uint32_t i = (1 << WIDE); i-- > 0;) {
    const uint32_t e = table[i];
    if (KIND(e) != ONE) continue;
    const uint32_t f = table[i >> DROP(e)];
    if (KIND(f) == ONE && DROP(e) + DROP(f) <= WIDE) table[i] = ENTRY(TWO, VALUE(e) | VALUE(f) << 8, 0, DROP(e) + DROP(f));
  }
}

static const uint16_t length_base[29] = {3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258};
static const uint8_t length_extra[29] = {0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0};
static const uint16_t distance_base[30] = {1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
                                           8193, 12289, 16385, 24577};

static uint32_t symbol_entry(int s) {
  if (s < 256) return ENTRY(ONE, s, 0, 0);
  if (s == 256) return ENTRY(END, 0, 0, 0);
  return s < 257 + 29 ? ENTRY(LENGTH, length_base[s - 257], length_extra[s - 257], 0) : ENTRY(BAD, 0, 0, 0);
}

static uint32_t distance_entry(int s) { return s < 30 ? ENTRY(LENGTH, distance_base[s], s < 4 ? 0 : s / 2 - 1, 0) : ENTRY(BAD, 0, 0, 0); }

static bool build_both(tables *t, const uint8_t *lengths, int symbols, int distances) {
  uint32_t entries[SYMBOLS];
  for (int s = 0; s < symbols; s++) entries[s] = symbol_entry(s);
  if (!build(t->symbols, WIDE, lengths, symbols, entries, sizeof t->symbols / sizeof *t->symbols, true)) return false;
  pair(t->symbols);
  for (int s = 0; s < distances; s++) entries[s] = distance_entry(s);
  return build(t->distances, WIDE_DISTANCE, lengths + symbols, distances, entries, sizeof t->distances / sizeof *t->distances, true);
}

static bool fixed_codes(tables *t) {
  uint8_t lengths[SYMBOLS + DISTANCES];
  for (int s = 0; s < SYMBOLS; s++) lengths[s] = s < 144 ? 8 : s < 256 ? 9 : s < 280 ? 7 : 8;
  memset(lengths + SYMBOLS, 5, DISTANCES);
  return build_both(t, lengths, SYMBOLS, DISTANCES);
}

/* A block's own codes: lengths, themselves in a code. */
static bool read_codes(reader *r, tables *t) {
  static const uint8_t order[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
  uint8_t lengths[SYMBOLS + DISTANCES] = {0};
  uint32_t entries[19], table[1 << WIDE_LENGTHS];
  refill(r);
  const int symbols = (int)take(r, 5) + 257, distances = (int)take(r, 5) + 1, given = (int)take(r, 4) + 4;
  if (symbols > 286 || distances > 30) return false;
  for (int i = 0; i < given; i++) {
    if (r->have < 3) refill(r);
    lengths[order[i]] = (uint8_t)take(r, 3);
  }
  for (int s = 0; s < 19; s++) entries[s] = ENTRY(ONE, s, 0, 0);
  if (!build(table, WIDE_LENGTHS, lengths, 19, entries, sizeof table / sizeof *table, false)) return false;
  memset(lengths, 0, sizeof lengths);
  for (int at = 0; at < symbols + distances;) {
    refill(r);
    if (beyond(r)) return false;
    const uint32_t e = table[r->bits & ((1 << WIDE_LENGTHS) - 1)];
    if (KIND(e) != ONE) return false;
    drop(r, DROP(e));
    const int s = (int)VALUE(e);
    if (s < 16) {
      lengths[at++] = (uint8_t)s;
      continue;
    }
    if (s == 16 && at == 0) return false;
    const uint8_t value = s == 16 ? lengths[at - 1] : 0;
    const int times = s == 16 ? 3 + (int)take(r, 2) : s == 17 ? 3 + (int)take(r, 3) : 11 + (int)take(r, 7);
    if (at + times > symbols + distances) return false;
    memset(lengths + at, value, (size_t)times);
    at += times;
  }
  return lengths[256] != 0 && build_both(t, lengths, symbols, distances);
}

/* `length` bytes from `distance` back; writes up to 15 bytes more. */
static inline void repeat(uint8_t *out, size_t distance, size_t length) {
  const uint8_t *from = out - distance;
  uint8_t *const end = out + length;
  if (distance >= 16) {
    do {
      memcpy(out, from, 16);
      out += 16;
      from += 16;
    } while (out < end);
  } else if (distance == 1) {
    memset(out, *from, length);
  } else {
    while (out < end) *out++ = *from++;
  }
}

/* Literals and repeats up to the block's end; repeats from the last `window` bytes. */
static bool read_block(reader *reading, const tables *t, const uint8_t *start, size_t window, uint8_t **place, uint8_t *end) {
  reader r = *reading;   /* in registers */
  uint8_t *out = *place;
  const uint64_t mask = (1 << WIDE) - 1;
  for (;;) {
    refill(&r);
    if (r.at > r.end + 8 || out > end) return false;
    uint32_t e = t->symbols[r.bits & mask];
    /* Four looks of WIDE bits at most: 48 of the 56. A literal is written with its neighbour, which the next one overwrites. */
    for (int look = 0; look < 3 && KIND(e) <= TWO; look++) {
      out[0] = (uint8_t)(e >> 8);
      out[1] = (uint8_t)(e >> 16);
      out += 1 + KIND(e);
      drop(&r, DROP(e));
      e = t->symbols[r.bits & mask];
    }
    if (KIND(e) == ONE || KIND(e) == TWO) {
      out[0] = (uint8_t)(e >> 8);
      out[1] = (uint8_t)(e >> 16);
      out += 1 + KIND(e);
      drop(&r, DROP(e));
      continue;
    }
    refill(&r);
    if (KIND(e) == SUBTABLE) {
      const uint32_t sub = t->symbols[VALUE(e) + (r.bits >> WIDE & ((1u << EXTRA(e)) - 1))];
      drop(&r, WIDE);
      e = sub;
    }
    drop(&r, DROP(e));
    if (KIND(e) == ONE) {
      *out++ = (uint8_t)VALUE(e);
      continue;
    }
    if (KIND(e) == END) break;
    if (KIND(e) != LENGTH) return false;
    const size_t length = VALUE(e) + take(&r, EXTRA(e));
    uint32_t d = t->distances[r.bits & ((1 << WIDE_DISTANCE) - 1)];
    if (KIND(d) == SUBTABLE) {
      const uint32_t sub = t->distances[VALUE(d) + (r.bits >> WIDE_DISTANCE & ((1u << EXTRA(d)) - 1))];
      drop(&r, WIDE_DISTANCE);
      d = sub;
    }
    if (KIND(d) != LENGTH) return false;
    drop(&r, DROP(d));
    const size_t distance = VALUE(d) + take(&r, EXTRA(d));
    if (distance > (size_t)(out - start) || distance > window) return false;
    repeat(out, distance, length);
    out += length;
  }
  *reading = r;
  *place = out;
  return out <= end && !beyond(&r);
}

/* Bytes as they are, from the next whole byte on. */
static bool read_stored(reader *r, uint8_t **place, uint8_t *end) {
  r->at -= r->have >> 3;
  r->bits = r->have = 0;
  if (r->at > r->end || r->end - r->at < 4) return false;
  const size_t length = (size_t)(r->at[0] | r->at[1] << 8), inverse = (size_t)(r->at[2] | r->at[3] << 8);
  r->at += 4;
  if (length != (inverse ^ 0xFFFF) || (size_t)(r->end - r->at) < length || (size_t)(end - *place) < length) return false;
  memcpy(*place, r->at, length);
  r->at += length;
  *place += length;
  return true;
}

bool unic_inflate(const uint8_t *in, size_t bytes, uint8_t *out, size_t size) {
  tables t;
  if (bytes < 6 || (in[0] & 15) != 8 || in[0] >> 4 > 7 || (in[0] << 8 | in[1]) % 31 != 0 || in[1] & 32) return false;
  reader r = {.at = in + 2, .end = in + bytes};
  const size_t window = (size_t)256 << (in[0] >> 4);
  uint8_t *at = out, *const end = out + size;
  for (bool last = false; !last;) {
    refill(&r);
    if (beyond(&r)) return false;
    last = take(&r, 1);
    switch (take(&r, 2)) {
      case 0: if (!read_stored(&r, &at, end)) return false; break;
      case 1: if (!fixed_codes(&t) || !read_block(&r, &t, out, window, &at, end)) return false; break;
      case 2: if (!read_codes(&r, &t) || !read_block(&r, &t, out, window, &at, end)) return false; break;
      default: return false;
    }
  }
  const uint8_t *tail = r.at - (r.have >> 3);
  if (at != end || tail > r.end || r.end - tail != 4) return false;
  const uint32_t sum = (uint32_t)tail[0] << 24 | (uint32_t)tail[1] << 16 | (uint32_t)tail[2] << 8 | tail[3];
  uLong adler = adler32(0, NULL, 0);
  for (size_t done = 0; done < size;) {   /* the sum takes 32-bit lengths */
    const size_t part = size - done < (1u << 30) ? size - done : 1u << 30;
    adler = adler32(adler, out + done, (uInt)part);
    done += part;
  }
  return adler == sum;
}
