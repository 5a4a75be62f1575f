/* Attention's products on AVX-512: part of attention.c's loops, which choose it by `tiles`. f32, and bf16 where the processor multiplies pairs of bf16
 * numbers (AVX512-BF16).
 *
 * oneDNN's product of a head's small matrices copies both sides first; here a left side is read as it lies, one word broadcast at a time, and
 * a right side stands in panels: 16 columns of an inner index after another. A word is a float, or in bf16 a pair of numbers along the inner dimension.
 * Softmax is f32, rows of scores in cache. In bf16 q, k, v and dy multiply as they lie; drop(p), not yet divided by its sum, and ds are rounded first, as
 * other implementations in bf16 have it.
 * Measured on a Zen 5, two threads, against oneDNN's f32 products (ms, forward and backward):
 *   bf16: ViT-B/16, batch 8: 3.3, 6.6 -> 1.9, 3.9; BERT-base, 8 sequences of 128, dropout: 1.6, 3.2 -> 1.0, 2.0; ViT-L/32, batch 8: 0.53, 0.94 -> 0.37, 0.63;
 *   f32:  3.1, 6.5 -> 3.0, 6.3; 1.55, 3.1 -> 1.4, 3.0; 0.73, 1.35 -> 0.48, 0.89. */
#ifndef UNIC_ATTENTION_TILES_H
#define UNIC_ATTENTION_TILES_H

#include "tiles.h"

enum { WIDE = TILE_WIDE, TALL = TILE_TALL, BROAD = TILE_BROAD };

typedef tile_word word;

/* c[m][n] = alpha sum over k of a(m, k) b(k, n), or that added. Strides in words, of a in bytes; n is rounded up to panels. */
struct product {
  const char *a;
  int64_t a_row, a_next;     /* rows; inner indices */
  const word *b;
  int64_t b_panel, b_next;   /* panels; inner indices */
  int64_t inner;
  float *c;
  int64_t c_row;
  float alpha;
  bool add;
};

static inline __attribute__((always_inline)) void tile(const int rows, const bool low, const int panels, const struct product *p, const char *a, const word *b, float *c) {
  __m512 sum[TALL][BROAD];
  tile_sums(low, rows, panels, a, p->a_row, p->a_next, b, p->b_panel, p->b_next, p->inner, NULL, 0, sum);
  const __m512 alpha = _mm512_set1_ps(p->alpha);
  #pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
    #pragma GCC unroll 4
    for (int v = 0; v < panels; v++) {
      float *to = c + r * p->c_row + v * WIDE;
      _mm512_storeu_ps(to, p->add ? _mm512_fmadd_ps(alpha, sum[r][v], _mm512_loadu_ps(to)) : _mm512_mul_ps(alpha, sum[r][v]));
    }
}

typedef void tiles(int64_t rows, const struct product *p, const char *a, const word *b, float *c);
#define TILES(name, low, panels) \
  static __attribute__((noinline)) void name(int64_t rows, const struct product *p, const char *a, const word *b, float *c) { TILE_ROWS(rows, tile, low, panels, p, a, b, c) }
TILES(tiles_1, false, 1)
TILES(tiles_2, false, 2)
TILES(tiles_3, false, 3)
TILES(tiles_4, false, 4)
#if defined(__AVX512BF16__)
TILES(tiles_low_1, true, 1)
TILES(tiles_low_2, true, 2)
TILES(tiles_low_3, true, 3)
TILES(tiles_low_4, true, 4)
#endif
#undef TILES

static void product(const struct attention *a, const struct product p, int64_t m, int64_t n) {
  tiles *const wide[BROAD] = {tiles_1, tiles_2, tiles_3, tiles_4}, *const *of = wide;
#if defined(__AVX512BF16__)
  tiles *const low[BROAD] = {tiles_low_1, tiles_low_2, tiles_low_3, tiles_low_4};
  if (a->low) of = low;
#endif
  (void)a;
  const int64_t panels = (n + WIDE - 1) / WIDE;
  for (int64_t v = 0; v < panels; v += BROAD) {
    const int64_t across = panels - v < BROAD ? panels - v : BROAD;
    for (int64_t i = 0; i < m; i += TALL) of[across - 1](m - i < TALL ? m - i : TALL, &p, p.a + i * p.a_row, p.b + v * p.b_panel, p.c + i * p.c_row + v * WIDE);
  }
}

/* Words along `n` numbers: pairs in bf16. */
static inline int64_t words(const struct attention *a, int64_t n) { return a->low ? (n + 1) / 2 : n; }

/* Panels of `rows` columns, a head's rows; the inner dimension is its depth. Rows that fill the last panel are zero. */
static void pack_rows(const struct attention *a, const struct heads *x, int64_t b, int64_t h, int64_t rows, word *to) {
  const int64_t inner = words(a, a->depth);
  for (int64_t panel = 0; panel < rows; panel += WIDE, to += inner * WIDE)
    for (int64_t r = 0; r < WIDE; r++) {
      if (panel + r >= rows) {
        for (int64_t k = 0; k < inner; k++) to[k * WIDE + r] = 0;
        continue;
      }
      const word *from = head_at(x, b, h, panel + r);
      for (int64_t k = 0; k < inner; k++) to[k * WIDE + r] = from[k];
    }
}

/* The right side whose columns are a head's depth and whose inner dimension its rows. Floats are such panels as they lie; bf16 rows are paired in
 * `to`, the last one with zeros. */
static struct product depth_of(const struct attention *a, const struct heads *x, int64_t b, int64_t h, int64_t first, int64_t rows, word *to) {
  const int64_t inner = words(a, rows);
  if (!a->low) return (struct product){.b = head_at(x, b, h, first), .b_panel = WIDE, .b_next = x->row, .inner = inner, .c_row = a->depth, .alpha = 1};
  for (int64_t k = 0; k < inner; k++) {
    const uint16_t *even = head_at(x, b, h, first + 2 * k), *odd = 2 * k + 1 < rows ? head_at(x, b, h, first + 2 * k + 1) : NULL;
    for (int64_t d = 0; d < a->depth; d += WIDE) {
      __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(even + d)));
      __m512i high = odd ? _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(odd + d))) : _mm512_setzero_si512();
      _mm512_storeu_si512(to + (d * inner + k * WIDE), _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
  }
  return (struct product){.b = to, .b_panel = inner * WIDE, .b_next = WIDE, .inner = inner, .c_row = a->depth, .alpha = 1};
}

/* A head's rows times packed rows: scores, or dp. */
static void score_product(const struct attention *a, const struct heads *x, int64_t b, int64_t h, int64_t first, int64_t rows, const word *packed, int64_t n, float alpha, float *c) {
  const int64_t inner = words(a, a->depth);
  product(a, (struct product){.a = head_at(x, b, h, first), .a_row = x->row * (a->low ? 2 : 4), .a_next = 4, .b = packed, .b_panel = inner * WIDE, .b_next = WIDE,
                              .inner = inner, .c = c, .c_row = a->ld, .alpha = alpha}, rows, n);
}

#if defined(__AVX512BF16__)
static inline __m256i round_16(const float *s) { return (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(s)); }
#else
static inline __m256i round_16(const float *s) { return (void)s, _mm256_setzero_si256(); }   /* never called: without the instruction nothing is in bf16 here */
#endif

/* n floats, a multiple of 16, become bf16 in their place. */
static void round_row(float *s, int64_t n) {
  for (int64_t j = 0; j < n; j += WIDE) _mm256_storeu_si256((__m256i *)(void *)((uint16_t *)(void *)s + j), round_16(s + j));
}

/* Rows of n floats, `ld` apart, become pairs: row 2k those of rows 2k and 2k + 1, in its place. `rounded`: where rows of bf16 go as well, ld / 2 words apart. */
static void pair_rows(float *s, int64_t ld, int64_t rows, int64_t n, word *rounded) {
  for (int64_t r = 0; r < rows; r += 2) {
    float *even = s + r * ld, *odd = r + 1 < rows ? even + ld : NULL;
    for (int64_t j = 0; j < n; j += WIDE) {
      __m256i low = round_16(even + j), high = odd ? round_16(odd + j) : _mm256_setzero_si256();
      if (rounded) {
        _mm256_storeu_si256((__m256i *)(void *)(rounded + (r * ld + j) / 2), low);
        if (odd) _mm256_storeu_si256((__m256i *)(void *)(rounded + ((r + 1) * ld + j) / 2), high);
      }
      _mm512_storeu_si512(even + j, _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16)));
    }
  }
}

/* c += or = s' x: sums over the queries of rows s[query][key] times a head's rows. In bf16 the rows are in pairs. */
static void key_product(const struct attention *a, const float *s, const struct heads *x, int64_t b, int64_t h, int64_t first, int64_t rows, int64_t n, word *room, float *c, bool add) {
  struct product p = depth_of(a, x, b, h, first, rows, room);
  p.a = (const char *)s; p.a_row = 4; p.a_next = a->low ? 8 * a->ld : 4 * a->ld; p.c = c; p.add = add;
  product(a, p, n, a->depth);
}

/* attention_forward_heads. */
static void tiles_forward(struct attention *a, int64_t begin, int64_t end) {
  const int64_t depth = a->depth, ld = a->ld;
  float *scores = a->scratch + unic_thread_index() * a->scratch_floats, *y = scores + attention_padded(a->rows * ld);
  word *k = (word *)(void *)(y + a->rows * depth), *v = k + attention_padded(a->keys) * words(a, depth);
  uint32_t *bits = v + (a->low ? attention_padded(words(a, a->keys) * depth) : 0);
  int64_t now = -1;
  for (int64_t item = begin; item < end; item++) {
    int64_t head = item / a->blocks, b = head / a->heads, h = head % a->heads, first = item % a->blocks * a->rows;
    int64_t rows = a->queries - first < a->rows ? a->queries - first : a->rows, n = keys_needed(a, b, h, first + rows - 1), wide = attention_padded(n);
    if (head != now) pack_rows(a, &a->k, b, h, keys_needed(a, b, h, a->queries - 1), k);
    now = head;
    score_product(a, &a->q, b, h, first, rows, k, n, a->scale, scores);
    float share[UNIC_ROW];
    for (int64_t r = 0; r < rows; r++) {
      share[r] = forward_row(a, b, h, first + r, scores + r * ld, n, bits);
      if (a->low) round_row(scores + r * ld, wide);
    }
    struct product p = depth_of(a, &a->v, b, h, 0, n, v);
    p.a = (const char *)scores; p.a_row = 4 * ld; p.a_next = 4; p.c = y;
    product(a, p, rows, depth);
    for (int64_t r = 0; r < rows; r++) {
      float *restrict to = y + r * depth, f = share[r];
      #pragma omp simd
      for (int64_t d = 0; d < depth; d++) to[d] *= f;
    }
    head_store(&a->y, b, h, first, rows, depth, y, 0);
  }
}

/* attention_backward_heads. */
static void tiles_backward(struct attention *a, int64_t begin, int64_t end) {
  const int64_t depth = a->depth, ld = a->ld, keys = attention_padded(a->keys), scores_room = attention_padded(a->rows * ld);
  float *scores = a->scratch + unic_thread_index() * a->scratch_floats, *dp = scores + scores_room, *dq = dp + scores_room, *dk = dq + a->rows * depth, *dv = dk + keys * depth;
  word *k = (word *)(void *)(dv + keys * depth), *v = k + keys * words(a, depth), *room = v + keys * words(a, depth), *ds = room;
  /* Pairs of q, dy or k, one after another; ds row by row beside those along the queries. */
  if (a->low) ds = room + attention_padded(words(a, a->keys > a->rows ? a->keys : a->rows) * depth);
  uint32_t *bits = a->low ? ds + attention_padded(a->rows * ld / 2) : ds;
  for (int64_t item = begin; item < end; item++) {
    int64_t b = item / a->heads, h = item % a->heads, most = keys_needed(a, b, h, a->queries - 1);
    pack_rows(a, &a->k, b, h, most, k);
    pack_rows(a, &a->v, b, h, most, v);
    int64_t written = a->queries > 0 ? most : 0;   /* keys that no query needs have gradient zero */
    row_fill(dk, written * depth, a->keys * depth, 0);
    row_fill(dv, written * depth, a->keys * depth, 0);
    bool add = false;
    /* The last block first: under causality it is the one that needs all keys. */
    for (int64_t block = a->blocks - 1; block >= 0; block--, add = true) {
      int64_t first = block * a->rows, rows = a->queries - first < a->rows ? a->queries - first : a->rows, n = keys_needed(a, b, h, first + rows - 1), wide = attention_padded(n);
      score_product(a, &a->q, b, h, first, rows, k, n, a->scale, scores);
      score_product(a, &a->dy, b, h, first, rows, v, n, 1, dp);
      for (int64_t r = 0; r < rows; r++) backward_row(a, b, h, first + r, scores + r * ld, dp + r * ld, n, bits);
      if (a->low) {
        pair_rows(scores, ld, rows, wide, NULL);
        pair_rows(dp, ld, rows, wide, ds);
      }
      if (a->dv.data) key_product(a, scores, &a->dy, b, h, first, rows, n, room, dv, add);
      if (a->dk.data) key_product(a, dp, &a->q, b, h, first, rows, n, room, dk, add);
      if (a->dq.data) {
        struct product p = depth_of(a, &a->k, b, h, 0, n, room);
        p.a = a->low ? (const char *)ds : (const char *)dp; p.a_row = a->low ? 2 * ld : 4 * ld; p.a_next = 4; p.c = dq;
        product(a, p, rows, depth);
        head_store(&a->dq, b, h, first, rows, depth, dq, a->accumulate_q);
      }
    }
    if (a->dk.data) head_store(&a->dk, b, h, 0, a->keys, depth, dk, a->accumulate_k);
    if (a->dv.data) head_store(&a->dv, b, h, 0, a->keys, depth, dv, a->accumulate_v);
  }
}

#endif
