/* Products of bf16 rows with a packed weight (pairs.h), sums in f32, rounded once.
 *
 * A tile of 6 rows by 64 columns stays in registers while it goes through all of k: a pair of numbers of a row, broadcast, times four vectors of a packed row.
 * The rows are read where they lie. A thread packs 64 columns and goes through all rows with them: so a weight that passes by once, as in a training step, is
 * never written to memory (400 rows, 4096 to 1024: 9.3 -> 8.3 ms), and few rows keep all threads at work. Where the columns are too few or the rows too many,
 * it takes a block of rows that stays in L2 and goes through all columns with it. The rows of the tile after the next are fetched meanwhile (56 x 56 pixels of 256 channels to 64: 4.4 -> 3.6 ms), and what a tile
 * will write when it begins: a store that misses holds up those behind it.
 * Measured on a Zen 4, two threads, oneDNN's products with what rounded and packed the weight for them, against this, GFLOP/s of 469: linear, forward and
 * data gradient, 1576 rows 768 to 2304 406, 402 -> 442, 449; 3072 to 768 408, 400 -> 447, 449; 400 rows 1024 to 3072 341, 334 -> 401, 420, 4096
 * to 1024 323, 326 -> 402, 417; 1x1 convolutions from 512 to 2048 channels of 7 x 7 pixels 358, 358 -> 410, 397, 256 to 64 of 56 x 56 350 -> 450.
 * A NaN or infinity reaches its own row or column only. */
#include "pairs.h"
#include "channels.h"
#include "tiles.h"

enum { WIDE = TILE_WIDE, TALL = TILE_TALL, BROAD = TILE_BROAD, COLUMNS = WIDE * BROAD };
enum { BLOCK = 512 << 10 };   /* bytes of a block of rows, at most: half of L2 */
enum { NEAR = 16 << 20 };     /* bytes of rows that all panels may pass by */

struct pack { const unic_pairs *p; const void *from; uint32_t *to; int dtype; };
struct run { const unic_pairs *p; const char *a; const uint32_t *b; const float *bias; uint16_t *c; bool accumulate; struct pack pack; };

#if UNIC_LOOPS

#if defined(__AVX512BF16__)

/* ---------------------------------------------------------------- packing */

enum { DEEP = 2 * LANES };   /* rows of the weight that are packed at a time */

/* `count` numbers of the weight from element `at` on as bf16, zeros behind them. */
static inline __m512i bf16_at(const struct pack *s, int64_t at, int64_t count) {
  const __mmask32 m = count >= DEEP ? ~0u : (1u << count) - 1;
  if (s->dtype != UNIC_F32) return _mm512_maskz_loadu_epi16(m, (const uint16_t *)s->from + at);
  const float *from = (const float *)s->from + at;
  return (__m512i)_mm512_cvtne2ps_pbh(_mm512_maskz_loadu_ps((__mmask16)(m >> WIDE), from + WIDE), _mm512_maskz_loadu_ps((__mmask16)m, from));
}

/* Rows k .. of COLUMNS columns from `n` on; the weight's columns lie as rows in memory. */
static void pack_turned(const struct pack *s, int64_t k, int64_t rows, int64_t n, int64_t count, uint32_t *restrict to) {
  for (int64_t j = 0; j < COLUMNS; j += WIDE) {
    vf line[LANES];
    for (int64_t i = 0; i < WIDE; i++) {
      const int64_t at = (n + j + i) * s->p->n_step + k;
      line[i] = j + i < count ? (vf)bf16_at(s, at, rows) : (vf){0};
      const char *next = (const char *)s->from + (at + 2 * DEEP) * (s->dtype == UNIC_F32 ? 4 : 2);   /* more streams than the processor follows by itself */
      _mm_prefetch(next, _MM_HINT_T0);
      _mm_prefetch(next + 64, _MM_HINT_T0);
    }
    vf_transpose(line);
    for (int64_t r = 0; r < rows / 2; r++) vf_store((float *)(void *)(to + r * COLUMNS + j), line[r]);
  }
}

/* The same where its rows lie as rows. */
static void pack_straight(const struct pack *s, int64_t k, int64_t rows, int64_t n, int64_t count, uint32_t *restrict to) {
  const __m512i first = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(WIDE));
  for (int64_t r = 0; r < rows; r += 2, to += COLUMNS)
    for (int64_t j = 0; j < COLUMNS; j += DEEP) {
      const int64_t at = (k + r) * s->p->k_step + n + j, have = count > j ? count - j : 0;
      const __m512i even = bf16_at(s, at, have), odd = bf16_at(s, at + s->p->k_step, have);
      _mm512_storeu_si512(to + j, _mm512_permutex2var_epi16(even, first, odd));
      _mm512_storeu_si512(to + j + WIDE, _mm512_permutex2var_epi16(even, second, odd));
    }
}

#endif

#if defined(__AVX512BF16__)
/* DEEP rows from k on, or what is left, of COLUMNS columns from n on. */
static void pack(const struct pack *s, int64_t k, int64_t n, uint32_t *to) {
  const unic_pairs *p = s->p;
  int64_t rows = p->k - k < DEEP ? p->k - k : DEEP, count = p->n - n < COLUMNS ? p->n - n : COLUMNS;
  (p->k_step == 1 ? pack_turned : pack_straight)(s, k, rows, n, count, to);
}
#endif

/* Units: COLUMNS columns of DEEP rows. */
UNIC_LOOP(pairs_pack) {
#if defined(__AVX512BF16__)
  const struct pack *s = context;
  const unic_pairs *p = s->p;
  const int64_t deep = (p->k + DEEP - 1) / DEEP;
  for (int64_t unit = begin; unit < end; unit++) {
    int64_t k = unit % deep * DEEP, n = unit / deep * COLUMNS;
    pack(s, k, n, s->to + n * p->k / 2 + k / 2 * COLUMNS);
  }
#endif
}

/* ---------------------------------------------------------------- products */

#if defined(__AVX512BF16__)

/* c[rows][vectors of columns]; `mask`: the lanes of the last vector that there are. */
static inline __attribute__((always_inline)) void tile(const int rows, const int vectors, const struct run *s, const char *a, const uint32_t *b, const float *bias,
                                                       uint16_t *c, __mmask16 mask) {
  const int64_t c_row = s->p->n;
  __m512 sum[TALL][BROAD];
  #pragma GCC unroll 6
  for (int r = 0; r < rows; r++) {
    __builtin_prefetch(c + r * c_row, 1, 3);
    __builtin_prefetch(c + r * c_row + 32, 1, 3);
  }
  tile_sums(true, rows, vectors, a, s->p->k * 2, 4, b, WIDE, COLUMNS, s->p->k / 2, a + 2 * TALL * s->p->k * 2, 24, sum);
  #pragma GCC unroll 4
  for (int v = 0; v < vectors; v++) {
    const __mmask16 m = v == vectors - 1 ? mask : 0xffff;
    const __m512 plus = bias ? _mm512_maskz_loadu_ps(m, bias + v * WIDE) : _mm512_setzero_ps();
    #pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
      uint16_t *to = c + r * c_row + v * WIDE;
      __m512 x = bias ? _mm512_add_ps(sum[r][v], plus) : sum[r][v];
      if (s->accumulate) x = _mm512_add_ps(x, (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(m, to)), 16));
      _mm256_mask_storeu_epi16(to, m, (__m256i)_mm512_cvtneps_pbh(x));
    }
  }
}

typedef void tiles(int64_t rows, const struct run *s, const char *a, const uint32_t *b, const float *bias, uint16_t *c, __mmask16 mask);
#define TILES(vectors) \
  static __attribute__((noinline)) void tiles_##vectors(int64_t rows, const struct run *s, const char *a, const uint32_t *b, const float *bias, uint16_t *c, __mmask16 mask) { \
    TILE_ROWS(rows, tile, vectors, s, a, b, bias, c, mask) \
  }
TILES(1)
TILES(2)
TILES(3)
TILES(4)
#undef TILES

/* COLUMNS columns from n on, packed in b, of rows begin .. end - 1. */
static void panel(const struct run *s, const uint32_t *b, int64_t n, int64_t begin, int64_t end) {
  const unic_pairs *p = s->p;
  int64_t columns = p->n - n < COLUMNS ? p->n - n : COLUMNS, vectors = (columns + WIDE - 1) / WIDE;
  tiles *const of[BROAD] = {tiles_1, tiles_2, tiles_3, tiles_4};
  const __mmask16 mask = (__mmask16)(0xffff >> (vectors * WIDE - columns));
  for (int64_t m = begin; m < end; m += TALL)
    of[vectors - 1](end - m, s, s->a + m * p->k * 2, b, s->bias ? s->bias + n : NULL, s->c + m * p->n + n, mask);
}

#endif

/* Items: rows; a chunk is a block. */
UNIC_LOOP(pairs_rows) {
#if defined(__AVX512BF16__)
  const struct run *s = context;
  for (int64_t n = 0; n < s->p->n; n += COLUMNS) panel(s, s->b + n * s->p->k / 2, n, begin, end);
#endif
}

/* Items: COLUMNS columns, packed already or not. */
UNIC_LOOP(pairs_panels) {
#if defined(__AVX512BF16__)
  const struct run *s = context;
  const unic_pairs *p = s->p;
  uint32_t *own = s->b ? NULL : s->pack.to + unic_thread_index() * p->k / 2 * COLUMNS;
  for (int64_t n = begin * COLUMNS; n < p->n && n < end * COLUMNS; n += COLUMNS) {
    for (int64_t k = 0; own && k < p->k; k += DEEP) pack(&s->pack, k, n, own + k / 2 * COLUMNS);
    panel(s, own ? own : s->b + n * p->k / 2, n, 0, p->m);
  }
#endif
}

#else

UNIC_LOOP_TABLE(pairs_pack);
UNIC_LOOP_TABLE(pairs_rows);
UNIC_LOOP_TABLE(pairs_panels);

bool unic_pairs_takes(int64_t k) { return unic_isa_current() >= UNIC_ISA_AVX512_BF16 && k > 0 && k % 2 == 0; }

int64_t unic_pairs_bytes(const unic_pairs *p) { return (p->n + COLUMNS - 1) / COLUMNS * COLUMNS * p->k * 2; }

void unic_pairs_pack(const unic_pairs *p, const void *weight, int dtype, void *to) {
  struct pack s = {.p = p, .from = weight, .to = to, .dtype = dtype};
  UNIC_RUN(pairs_pack, (p->n + COLUMNS - 1) / COLUMNS * ((p->k + 31) / 32), 8, &s);
}

/* Whether threads take columns instead of rows: where there are enough for all of them and the rows stay in a cache, or where the rows are too few. */
static bool by_panels(const unic_pairs *p) {
  return p->m < unic_threads() * TALL || (p->m * p->k * 2 <= NEAR && p->n >= 4 * unic_threads() * COLUMNS);
}

void unic_pairs_run(const unic_pairs *p, const void *a, const void *packed, const float *bias, void *c, bool accumulate) {
  struct run s = {.p = p, .a = a, .b = packed, .bias = bias, .c = c, .accumulate = accumulate};
  if (p->m < 1) return;
  if (by_panels(p)) {
    UNIC_RUN(pairs_panels, (p->n + COLUMNS - 1) / COLUMNS, 1, &s);
    return;
  }
  int64_t most = BLOCK / (2 * p->k) / TALL * TALL, threads = unic_threads();
  if (most < 4 * TALL) most = 4 * TALL;
  /* As many blocks for every thread, if there are rows enough. */
  int64_t blocks = ((p->m + most - 1) / most + threads - 1) / threads * threads, block = ((p->m + blocks - 1) / blocks + TALL - 1) / TALL * TALL;
  UNIC_RUN(pairs_rows, p->m, block, &s);
}

int64_t unic_pairs_scratch(const unic_pairs *p) { return by_panels(p) ? unic_threads() * p->k * 2 * COLUMNS : unic_pairs_bytes(p); }

void unic_pairs_multiply(const unic_pairs *p, const void *a, const void *weight, int dtype, const float *bias, void *c, bool accumulate, void *scratch) {
  if (!by_panels(p)) {
    unic_pairs_pack(p, weight, dtype, scratch);
    unic_pairs_run(p, a, scratch, bias, c, accumulate);
    return;
  }
  struct run s = {.p = p, .a = a, .bias = bias, .c = c, .accumulate = accumulate, .pack = {.p = p, .from = weight, .to = scratch, .dtype = dtype}};
  UNIC_RUN(pairs_panels, (p->n + COLUMNS - 1) / COLUMNS, 1, &s);
}

extern const unic_op *const unic_ops_pairs[];
const unic_op *const unic_ops_pairs[] = {0};   /* no op of its own: linear's and conv2d's */

#endif
