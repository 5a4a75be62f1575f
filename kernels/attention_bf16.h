/* Attention's products in bf16, for processors that multiply pairs of bf16 numbers (AVX512-BF16): part of attention.c's loops, which choose it by `low`.
 *
 * Softmax stays in f32, rows of scores in cache. What multiplies is bf16: q, k, v and dy as they lie; drop(p), not yet divided by its sum, and ds rounded,
 * as other implementations in bf16 have it. Measured on a Zen 5, two threads, against f32 products (ms, forward and backward): ViT-B/16, batch 8: 3.3, 6.6
 * -> 1.9, 3.9; BERT-base, 8 sequences of 128, dropout: 1.6, 3.2 -> 1.0, 2.0; ViT-L/32, batch 8: 0.53, 0.94 -> 0.37, 0.63.
 *
 * A product's left side is read as it lies, one 32-bit word (a pair along the inner dimension) broadcast at a time; its right side stands in panels: 16
 * columns of a pair of inner indices after another. */
#ifndef UNIC_ATTENTION_BF16_H
#define UNIC_ATTENTION_BF16_H

enum { WIDE = 16, TALL = 6, BROAD = 4 };   /* columns of a panel; rows and panels of a tile, whose sums fill 24 registers */

/* c[m][n] = alpha sum over k of a(m, k) b(k, n), or that added. Strides of a in bytes; c's rows lie c_row floats apart and are written in whole panels. */
struct low_product {
  const char *a;
  int64_t a_row, a_pair;
  const uint32_t *b;
  int64_t pairs;             /* inner dimension, in pairs; words between panels of b: 16 times this */
  float *c;
  int64_t c_row;
  float alpha;
  bool add;
};

typedef int32_t low_word __attribute__((aligned(2), may_alias));

static inline __attribute__((always_inline)) void low_tile(const int rows, const int panels, const struct low_product *p, const char *a, const uint32_t *b, float *c) {
  __m512 sum[TALL][BROAD];
  const int64_t a_row = p->a_row, a_pair = p->a_pair, step = p->pairs * WIDE, pairs = p->pairs;
  #pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
    #pragma GCC unroll 4
    for (int v = 0; v < panels; v++) sum[r][v] = _mm512_setzero_ps();
  for (int64_t k = 0; k < pairs; k++, a += a_pair, b += WIDE) {
    __m512bh from[BROAD];
    #pragma GCC unroll 4
    for (int v = 0; v < panels; v++) from[v] = (__m512bh)_mm512_loadu_si512(b + v * step);
    #pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
      __m512bh by = (__m512bh)_mm512_set1_epi32(*(const low_word *)(const void *)(a + r * a_row));
      #pragma GCC unroll 4
      for (int v = 0; v < panels; v++) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], from[v], by);
    }
  }
  const __m512 alpha = _mm512_set1_ps(p->alpha);
  #pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
    #pragma GCC unroll 4
    for (int v = 0; v < panels; v++) {
      float *to = c + r * p->c_row + v * WIDE;
      __m512 value = p->add ? _mm512_fmadd_ps(alpha, sum[r][v], _mm512_loadu_ps(to)) : _mm512_mul_ps(alpha, sum[r][v]);
      _mm512_storeu_ps(to, value);
    }
}

#define LOW_ROWS(panels) \
  switch (rows) { \
    case 1: low_tile(1, panels, p, a, b, c); break; \
    case 2: low_tile(2, panels, p, a, b, c); break; \
    case 3: low_tile(3, panels, p, a, b, c); break; \
    case 4: low_tile(4, panels, p, a, b, c); break; \
    case 5: low_tile(5, panels, p, a, b, c); break; \
    default: low_tile(6, panels, p, a, b, c); \
  }
static __attribute__((noinline)) void low_tiles_1(int64_t rows, const struct low_product *p, const char *a, const uint32_t *b, float *c) { LOW_ROWS(1) }
static __attribute__((noinline)) void low_tiles_2(int64_t rows, const struct low_product *p, const char *a, const uint32_t *b, float *c) { LOW_ROWS(2) }
static __attribute__((noinline)) void low_tiles_3(int64_t rows, const struct low_product *p, const char *a, const uint32_t *b, float *c) { LOW_ROWS(3) }
static __attribute__((noinline)) void low_tiles_4(int64_t rows, const struct low_product *p, const char *a, const uint32_t *b, float *c) { LOW_ROWS(4) }
#undef LOW_ROWS

/* All of it: m rows, n columns rounded up to panels. */
static void low_product(struct low_product p, int64_t m, int64_t n) {
  void (*const tiles[BROAD])(int64_t, const struct low_product *, const char *, const uint32_t *, float *) = {low_tiles_1, low_tiles_2, low_tiles_3, low_tiles_4};
  const int64_t panels = (n + WIDE - 1) / WIDE;
  for (int64_t v = 0; v < panels; v += BROAD) {
    const int64_t across = panels - v < BROAD ? panels - v : BROAD;
    for (int64_t i = 0; i < m; i += TALL)
      tiles[across - 1](m - i < TALL ? m - i : TALL, &p, p.a + i * p.a_row, p.b + v * p.pairs * WIDE, p.c + i * p.c_row + v * WIDE);
  }
}

/* Panels of `rows` columns: the rows of a head, whose pairs lie along the depth. Rows that fill the last panel are zero. */
static void low_pack_rows(const struct heads *x, int64_t b, int64_t h, int64_t first, int64_t rows, int64_t depth, uint32_t *to) {
  const int64_t pairs = depth / 2;
  for (int64_t panel = 0; panel < rows; panel += WIDE, to += pairs * WIDE)
    for (int64_t r = 0; r < WIDE; r++) {
      if (panel + r >= rows) {
        for (int64_t k = 0; k < pairs; k++) to[k * WIDE + r] = 0;
        continue;
      }
      const low_word *from = head_at(x, b, h, first + panel + r);
      for (int64_t k = 0; k < pairs; k++) to[k * WIDE + r] = (uint32_t)from[k];
    }
}

/* Panels of `depth` columns: the depth of a head, whose pairs lie along the rows. A row that completes the last pair is zero. */
static void low_pack_depth(const struct heads *x, int64_t b, int64_t h, int64_t first, int64_t rows, int64_t depth, uint32_t *to) {
  const int64_t pairs = (rows + 1) / 2;
  for (int64_t k = 0; k < pairs; k++) {
    const uint16_t *even = head_at(x, b, h, first + 2 * k), *odd = 2 * k + 1 < rows ? head_at(x, b, h, first + 2 * k + 1) : NULL;
    for (int64_t d = 0; d < depth; d += WIDE) {
      __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(even + d)));
      __m512i high = odd ? _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)(odd + d))) : _mm512_setzero_si512();
      _mm512_storeu_si512(to + (d * pairs + k * WIDE), _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
    }
  }
}

static inline __m256i low_round(const float *s) { return (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(s)); }

/* n floats, a multiple of 16, become bf16 (to may be s). */
static void low_round_row(const float *s, int64_t n, uint16_t *to) {
  for (int64_t j = 0; j < n; j += WIDE) _mm256_storeu_si256((__m256i *)(void *)(to + j), low_round(s + j));
}

/* Rows of n floats, `ld` apart, become words: row 2k those of the pair (2k, 2k+1), in its place. `rounded`: where rows of bf16 go as well, ld / 2 words apart. */
static void low_pair_rows(float *s, int64_t ld, int64_t rows, int64_t n, uint32_t *rounded) {
  for (int64_t r = 0; r < rows; r += 2) {
    float *even = s + r * ld, *odd = r + 1 < rows ? even + ld : NULL;
    for (int64_t j = 0; j < n; j += WIDE) {
      __m256i low = low_round(even + j), high = odd ? low_round(odd + j) : _mm256_setzero_si256();
      if (rounded) {
        _mm256_storeu_si256((__m256i *)(void *)(rounded + (r * ld + j) / 2), low);
        if (odd) _mm256_storeu_si256((__m256i *)(void *)(rounded + ((r + 1) * ld + j) / 2), high);
      }
      _mm512_storeu_si512(even + j, _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16)));
    }
  }
}

/* The left side of a product: rows of a head as they lie, pairs along the depth. */
static struct low_product low_rows_of(const struct heads *x, int64_t b, int64_t h, int64_t first) {
  return (struct low_product){.a = head_at(x, b, h, first), .a_row = 2 * x->row, .a_pair = 4};
}

/* attention_forward_heads. */
static void low_forward(struct attention *a, int64_t begin, int64_t end) {
  const int64_t depth = a->depth, ld = a->ld;
  float *scores = a->scratch + unic_thread_index() * a->scratch_floats, *y = scores + attention_padded(a->rows * ld);
  uint32_t *k = (uint32_t *)(void *)(y + a->rows * depth), *v = k + attention_padded(a->keys) * depth / 2, *bits = v + attention_padded((a->keys + 1) / 2 * depth);
  int64_t now = -1, packed = -1;
  for (int64_t item = begin; item < end; item++) {
    int64_t head = item / a->blocks, b = head / a->heads, h = head % a->heads, first = item % a->blocks * a->rows;
    int64_t rows = a->queries - first < a->rows ? a->queries - first : a->rows, n = keys_needed(a, b, h, first + rows - 1), wide = attention_padded(n);
    if (head != now) low_pack_rows(&a->k, b, h, 0, keys_needed(a, b, h, a->queries - 1), depth, k);
    if (head != now || n != packed) low_pack_depth(&a->v, b, h, 0, n, depth, v);   /* how far its pairs reach is part of its layout */
    now = head;
    packed = n;
    struct low_product qk = low_rows_of(&a->q, b, h, first);
    qk.b = k; qk.pairs = depth / 2; qk.c = scores; qk.c_row = ld; qk.alpha = a->scale;
    low_product(qk, rows, n);
    float share[UNIC_ROW];
    for (int64_t r = 0; r < rows; r++) {
      float *s = scores + r * ld;
      share[r] = forward_row(a, b, h, first + r, s, n, wide, bits);
      low_round_row(s, wide, (uint16_t *)(void *)s);
    }
    low_product((struct low_product){.a = (const char *)scores, .a_row = 4 * ld, .a_pair = 4, .b = v, .pairs = (n + 1) / 2, .c = y, .c_row = depth, .alpha = 1}, rows, depth);
    for (int64_t r = 0; r < rows; r++) {
      float *restrict to = y + r * depth, f = share[r];
      #pragma omp simd
      for (int64_t d = 0; d < depth; d++) to[d] *= f;
    }
    head_store(&a->y, b, h, first, rows, depth, y, 0);
  }
}

/* attention_backward_heads. */
static void low_backward(struct attention *a, int64_t begin, int64_t end) {
  const int64_t depth = a->depth, ld = a->ld, keys = attention_padded(a->keys) * depth, rows_all = attention_padded((a->rows + 1) / 2 * depth);
  float *scores = a->scratch + unic_thread_index() * a->scratch_floats, *dp = scores + attention_padded(a->rows * ld), *dq = dp + attention_padded(a->rows * ld);
  float *dk = dq + a->rows * depth, *dv = dk + keys;
  uint32_t *ds = (uint32_t *)(void *)(dv + keys), *k = ds + attention_padded(a->rows * ld / 2), *v = k + keys / 2, *kd = v + keys / 2;
  uint32_t *q = kd + attention_padded((a->keys + 1) / 2 * depth), *dy = q + rows_all, *bits = dy + rows_all;
  for (int64_t item = begin; item < end; item++) {
    int64_t b = item / a->heads, h = item % a->heads, most = keys_needed(a, b, h, a->queries - 1), packed = -1;
    low_pack_rows(&a->k, b, h, 0, most, depth, k);
    low_pack_rows(&a->v, b, h, 0, most, depth, v);
    int64_t written = a->queries > 0 ? most : 0;   /* keys that no query needs have gradient zero */
    row_clear(dk, written * depth, a->keys * depth);
    row_clear(dv, written * depth, a->keys * depth);
    bool add = false;
    /* The last block first: under causality it is the one that needs all keys. */
    for (int64_t block = a->blocks - 1; block >= 0; block--) {
      int64_t first = block * a->rows, rows = a->queries - first < a->rows ? a->queries - first : a->rows, n = keys_needed(a, b, h, first + rows - 1);
      int64_t wide = attention_padded(n), pairs = (rows + 1) / 2;
      struct low_product qk = low_rows_of(&a->q, b, h, first), dyv = low_rows_of(&a->dy, b, h, first);
      qk.b = k; qk.pairs = depth / 2; qk.c = scores; qk.c_row = ld; qk.alpha = a->scale;
      dyv.b = v; dyv.pairs = depth / 2; dyv.c = dp; dyv.c_row = ld; dyv.alpha = 1;
      low_product(qk, rows, n);
      low_product(dyv, rows, n);
      for (int64_t r = 0; r < rows; r++) backward_row(a, b, h, first + r, scores + r * ld, dp + r * ld, n, wide, bits);
      if (a->dv.data) {
        low_pair_rows(scores, ld, rows, wide, NULL);
        low_pack_depth(&a->dy, b, h, first, rows, depth, dy);
        low_product((struct low_product){.a = (const char *)scores, .a_row = 4, .a_pair = 8 * ld, .b = dy, .pairs = pairs, .c = dv, .c_row = depth, .alpha = 1, .add = add}, n, depth);
      }
      low_pair_rows(dp, ld, rows, wide, ds);
      if (a->dk.data) {
        low_pack_depth(&a->q, b, h, first, rows, depth, q);
        low_product((struct low_product){.a = (const char *)dp, .a_row = 4, .a_pair = 8 * ld, .b = q, .pairs = pairs, .c = dk, .c_row = depth, .alpha = 1, .add = add}, n, depth);
      }
      if (a->dq.data) {
        if (n != packed) low_pack_depth(&a->k, b, h, 0, n, depth, kd);
        packed = n;
        low_product((struct low_product){.a = (const char *)ds, .a_row = 2 * ld, .a_pair = 4, .b = kd, .pairs = (n + 1) / 2, .c = dq, .c_row = depth, .alpha = 1}, rows, depth);
        head_store(&a->dq, b, h, first, rows, depth, dq, a->accumulate_q);
      }
      add = true;
    }
    if (a->dk.data) head_store(&a->dk, b, h, 0, a->keys, depth, dk, a->accumulate_k);
    if (a->dv.data) head_store(&a->dv, b, h, 0, a->keys, depth, dv, a->accumulate_v);
  }
}

#endif
