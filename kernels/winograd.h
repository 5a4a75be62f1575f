/* conv2d's dense 3x3 convolutions of stride 1 by Winograd's algorithm F(2x2, 3x3): in f32 on channels in blocks, in bf16 on channels-last images.
 *
 *   y[2i..2i+1, 2j..2j+1] = A' [ sum over c of (G g_c G') o (B' d_c B) ] A,  d_c the 4x4 pixels they see, g_c the 3x3 filter, o element by element
 *
 * (S. Winograd, Arithmetic Complexity of Computations, 1980; A. Lavin and S. Gray, 2016): 16 products for four results instead of 36. x [N,I,H,W] and
 * y [N,O,Oh,Ow] lie in blocks of LANES channels or (`low`) channels-last, weight [O,I,3,3] f32 row-major. The gradient with respect to x is the same convolution
 * of dy, its filters [I,O] turned by 180 degrees. A thread takes `block` tiles of 2x2 results at a time: (1) v [16][words / LANES][block + 1][LANES] = B'dB of
 * all input channels; then, for every WIDTH output channels, (2) 16 matrix products m [16][block + 1][WIDTH] = v u, and (3) y = A'mA. v and m stay near the
 * thread. u [O / WIDTH][16][words][WIDTH] = GgG' is made before, of all filters. A word is an input channel's float, or a pair of channels in bf16, which the
 * processor multiplies at once; transforms and sums are f32 in both. Which channels are a pair is the same in u and v (winograd_word).
 *
 * Where the last row or column of tiles sticks out of y, the products that only its missing half needs (row or column 3 of the 16) are left out: 7x7 pixels
 * take 225 products instead of 256. v and m of such an element are lists without these tiles.
 *
 * Measured against oneDNN's direct convolution, two threads, AVX-512, batch 16, with what each does to the weights: 64 channels of 56x56 pixels 7.5 -> 4.7 ms,
 * 128 of 28x28 7.5 -> 4.0, 256 of 14x14 7.6 -> 4.1, 512 of 7x7 7.9 -> 5.4; about 2 times as fast where there are more pixels. The matrix products
 * run at the processor's peak; the transforms are as fast as that because what they read and write is fetched ahead (64 channels: 4.9 ms without).
 *
 * In bf16, against oneDNN's direct convolution on a Zen 4, two threads, batch 16: the same four layers 8.2 -> 5.3 ms, 9.0 -> 4.6, 8.1 -> 4.4, 10.6 -> 6.2. What its
 * transforms round comes to what rounding the weight and the result cost any bf16 form: root of the mean square against f64, 2.4e-3 -> 3.9e-3, largest
 * error 1.3 to 1.5 times as large (within the 2 that is allowed). Weight gradients, f32 sums of unrounded products, would lose all of theirs: they stay direct.
 *
 * Error in f32, of the largest value, against f64, with x of mean 1 or after a ReLU: 3e-7 to 4.4e-7 at ResNet-50's shapes (direct: 2e-7); sums of all 512 channels at
 * once would make it 6e-7, so they are taken TERMS at a time. Larger tiles, F(2x4) or F(4x4), would leave the 1e-6 that f32 is allowed.
 * A NaN reaches the results that it reaches in the direct form; an infinity makes NaN of them.
 *
 * Bits: a result is a sum in one order, whatever the blocks and the threads: any_threads. */
#ifndef UNIC_WINOGRAD_H
#define UNIC_WINOGRAD_H

#include "channels.h"

/* Tiles of a block, at most: fewer read u more often, with more v leaves L2 (24 to 96 are within 10 %; 512 channels want most). And tiles of a product in
 * registers: 6 of 4 vectors of 16 are 24 sums of 32 registers, of 2 vectors of 8 12 of 16. */
enum { WINOGRAD_TILES = 66, WINOGRAD_ROWS = 6 };

struct winograd {
  const char *x;
  const float *weight, *bias;               /* bias may be NULL */
  char *y;
  float *u, *scratch;                       /* words; scratch: v and m of every thread */
  bool low;
  int64_t images, height, width, rows, columns, before[2];   /* of x; of y; zeros above and to the left of x */
  int64_t in, out, in_step, out_step;       /* channels, and where their filters lie in weight, in filters */
  int64_t words;                            /* of an x pixel */
  int64_t x_pixel, x_plane, y_pixel, y_plane;   /* bytes from pixel to pixel, and from one set of LANES channels to the next */
  bool turned;                              /* filters by 180 degrees */
  int64_t down, across, tiles, block;
  int64_t v_step, m_step, u_step;           /* floats between the 16 elements: odd numbers of cache lines, which do not share the sets of a cache */
  int64_t own;                              /* floats of scratch of a thread */
};

#if UNIC_LOOPS

#define WINOGRAD_INLINE static inline __attribute__((always_inline))

#if defined(__AVX512F__)
enum { VECTORS = 4 };
#else
enum { VECTORS = 2 };
#endif
/* Output channels of a product; input channels it sums; and how many tiles before it is written v is fetched: a store that misses L1 holds up those
 * behind it. */
enum { WIDTH = VECTORS * LANES, TERMS = 128, AHEAD = 2 };

/* G of three: 1 0 0 | 1/2 1/2 1/2 | 1/2 -1/2 1/2 | 0 0 1. */
WINOGRAD_INLINE void winograd_g(vf a, vf b, vf c, vf *to) {
  vf sum = a + c;
  to[0] = a;
  to[1] = 0.5f * (sum + b);
  to[2] = 0.5f * (sum - b);
  to[3] = c;
}

/* GgG' of a filter. */
WINOGRAD_INLINE void winograd_filter(const vf *f, bool turned, vf *to) {
  vf half[3][4];
  #pragma GCC unroll 3
  for (int e = 0; e < 3; e++)
    if (turned) winograd_g(f[8 - e], f[5 - e], f[2 - e], half[e]);
    else winograd_g(f[e], f[3 + e], f[6 + e], half[e]);
  #pragma GCC unroll 4
  for (int r = 0; r < 4; r++) winograd_g(half[0][r], half[1][r], half[2][r], to + 4 * r);
}

/* In bf16 a vector of x's channels is read as the even ones of 32 and as the odd ones, which takes a shift and a mask, and is rounded to LANES / 2 words
 * as it is. So a word's two channels are neighbours among the even, or among the odd ones. */
WINOGRAD_INLINE vf winograd_half(int half, const char *p) {
  vu pairs = *(const vu *)(const void *)p;
  return half ? (vf)(pairs & 0xffff0000u) : (vf)(pairs << 16);
}
/* The word of a channel c with c % 4 < 2; the word's other channel is c + 2. */
WINOGRAD_INLINE int64_t winograd_word(int64_t c) { return c / 32 * 16 + c % 2 * 8 + c % 32 / 4; }

#if defined(__AVX512BF16__)
WINOGRAD_INLINE vf winograd_pair(vf first, vf second) {
  __m512i a = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)first)), b = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh((__m512)second));
  return (vf)_mm512_or_si512(a, _mm512_slli_epi32(b, 16));
}
WINOGRAD_INLINE vf winograd_multiply(bool low, const float *by, vf u, vf sum) {
  __m512 f = _mm512_set1_ps(*by);
  return low ? (vf)_mm512_dpbf16_ps((__m512)sum, (__m512bh)u, (__m512bh)f) : (vf)_mm512_fmadd_ps((__m512)u, f, (__m512)sum);
}
#else
/* Never called for bf16: without the instruction there is no plan for it. */
WINOGRAD_INLINE vf winograd_pair(vf first, vf second) { return first + second; }
WINOGRAD_INLINE vf winograd_multiply(bool low, const float *by, vf u, vf sum) {
  (void)low;
  vf f = *by - (vf){0};
  return sum + f * u;
}
#endif

/* LANES input channels from `first` on of LANES output channels from `o` on, as vectors of these: to [input][9]. One of the two
 * kinds of channels lies densely in the weight. */
WINOGRAD_INLINE void winograd_gather(const struct winograd *s, int64_t o, int64_t first, vf *to) {
  const float *from = s->weight + (o * s->out_step + first * s->in_step) * 9;
  vf rows[LANES];
  if (s->in_step == 1) {
    for (int j = 0; j < 9; j++) {
      for (int l = 0; l < LANES; l++) rows[l] = vf_load(from + l * s->out_step * 9 + j * LANES);
      vf_transpose(rows);
      for (int l = 0; l < LANES; l++) to[j * LANES + l] = rows[l];
    }
    return;
  }
  for (int c = 0; c < LANES; c++, from += s->in_step * 9) {
    /* A row is a filter and what follows it; the last one's load begins earlier to end with it. */
    const int back = LANES > 9 ? LANES - 9 : 0;
    for (int l = 0; l < LANES - 1; l++) rows[l] = vf_load(from + l * 9);
    vf last = vf_load(from + (LANES - 1) * 9 - back), turned = last;
    for (int l = 0; l < LANES - back; l++) turned[l] = last[l + back];
    rows[LANES - 1] = turned;
    vf_transpose(rows);
    for (int e = 0; e < 9 && e < LANES; e++) to[c * 9 + e] = rows[e];
    for (int e = LANES; e < 9; e++) for (int l = 0; l < LANES; l++) to[c * 9 + e][l] = from[l * 9 + e];
  }
}

/* Items: (block of WIDTH output channels, input channel); a chunk is LANES of them. */
UNIC_LOOP(winograd_filters) {
  const struct winograd *s = context;
  int64_t block = begin / s->in, first = begin - block * s->in;
  for (int v = 0; v < VECTORS; v++) {
    int64_t o = block * WIDTH + v * LANES;
    vf g[LANES * 9], all[16], more[16];
    if (o < s->out) winograd_gather(s, o, first, g);
    else memset(g, 0, sizeof g);
    float *to = s->u + block * 16 * s->u_step + v * LANES;
    for (int c = 0; c < LANES; c++) {
      if (s->low && c & 2) continue;
      winograd_filter(g + 9 * c, s->turned, all);
      if (s->low) {
        winograd_filter(g + 9 * (c + 2), s->turned, more);
        for (int e = 0; e < 16; e++) all[e] = winograd_pair(all[e], more[e]);
      }
      int64_t word = s->low ? winograd_word(first + c) : first + c;
      #pragma GCC unroll 16
      for (int e = 0; e < 16; e++) vf_store(to + e * s->u_step + word * WIDTH, all[e]);
    }
  }
}

/* Where the tiles of a block are in the lists: [0] all of them; [1] those whose right half is wanted, [2] whose lower one, [3] both. The others' place is one
 * past the end, which nobody reads for a result. */
struct winograd_lists {
  int count[4];
  int16_t place[4][WINOGRAD_TILES];
  bool right[WINOGRAD_TILES], lower[WINOGRAD_TILES];
  int64_t y[WINOGRAD_TILES + WINOGRAD_ROWS];   /* where a tile's results begin, in the first vector of channels, bytes */
  int64_t x[WINOGRAD_TILES + WINOGRAD_ROWS];   /* the same of the last two rows of its pixels */
};

WINOGRAD_INLINE int winograd_list(int element) { return (element % 4 == 3) + 2 * (element / 4 == 3); }

WINOGRAD_INLINE void winograd_sort(const struct winograd *s, int64_t begin, int64_t end, struct winograd_lists *lists) {
  int64_t column = begin % s->across, row = begin / s->across % s->down, image = begin / s->across / s->down;
  int64_t x_image = s->height * s->width * s->in, y_image = s->rows * s->columns * s->out, size = s->low ? 2 : 4;
  int count[4] = {0};
  for (int64_t t = 0; t < end - begin; t++) {
    bool right = 2 * column + 1 < s->columns, lower = 2 * row + 1 < s->rows;
    const bool wanted[4] = {true, right, lower, right && lower};
    for (int i = 0; i < 4; i++) lists->place[i][t] = (int16_t)(wanted[i] ? count[i]++ : s->block);
    lists->right[t] = right;
    lists->lower[t] = lower;
    lists->y[t] = image * y_image * size + (2 * row * s->columns + 2 * column) * s->y_pixel;
    int64_t pixel_row = 2 * row + 2 - s->before[0];
    lists->x[t] = image * x_image * size + ((pixel_row > 0 ? pixel_row : 0) * s->width + 2 * column) * s->x_pixel;
    if (++column == s->across) {
      column = 0;
      if (++row == s->down) {
        row = 0;
        image++;
      }
    }
  }
  for (int i = 0; i < 4; i++) lists->count[i] = count[i];
  for (int64_t t = end - begin; t < s->block + WINOGRAD_ROWS; t++) lists->x[t] = lists->y[t] = 0;
}

/* B' of a column of four pixels: p[r] is where row r begins, step[r] 0 where it is outside (then p[r] is a vector of zeros). `half`: of the channels in bf16. */
WINOGRAD_INLINE void winograd_column(const bool low, const struct winograd *s, int half, const char *const *p, const int64_t *step, int64_t column, vf *to) {
  if (column < 0 || column >= s->width) {
    for (int r = 0; r < 4; r++) to[r] = (vf){0};
    return;
  }
  vf d[4];
  #pragma GCC unroll 4
  for (int r = 0; r < 4; r++) {
    const char *at = p[r] + column * step[r];
    d[r] = low ? winograd_half(half, at) : *(const vf *)(const void *)at;
  }
  to[0] = d[0] - d[2];
  to[1] = d[1] + d[2];
  to[2] = d[2] - d[1];
  to[3] = d[1] - d[3];
}

WINOGRAD_INLINE void winograd_put(const bool low, float *to, vf value) {
  if (low) vf_store_bf16((uint16_t *)(void *)to, value);
  else vf_store(to, value);
}

WINOGRAD_INLINE void winograd_images(const bool low, const struct winograd *s, int64_t begin, int64_t end, const struct winograd_lists *lists, float *restrict v) {
  static const char zeros[4 * LANES];
  int64_t image_bytes = s->height * s->width * s->in * (low ? 2 : 4), sets = s->in / LANES;
  for (int64_t t = begin; t < end;) {   /* a row of tiles, or what of it is in this block */
    int64_t image = t / (s->down * s->across), row = t / s->across % s->down, first = t % s->across;
    int64_t n = s->across - first < end - t ? s->across - first : end - t;
    for (int64_t g = 0; g < sets; g++) {   /* of LANES channels */
      const int half = low ? g % 2 : 0;
      const char *plane = s->x + image * image_bytes + (low ? g / 2 * 2 * s->x_plane : g * s->x_plane), *p[4];
      float *set = low ? v + g / 2 * (s->block + 1) * LANES + half * (LANES / 2) : v + g * (s->block + 1) * LANES;
      int64_t step[4];
      for (int r = 0; r < 4; r++) {
        int64_t y = 2 * row - s->before[0] + r;
        bool inside = y >= 0 && y < s->height;
        p[r] = inside ? plane + y * s->width * s->x_pixel : zeros;
        step[r] = inside ? s->x_pixel : 0;
      }
      int64_t x = 2 * first - s->before[1];
      vf c[4][4];
      winograd_column(low, s, half, p, step, x, c[0]);
      winograd_column(low, s, half, p, step, x + 1, c[1]);
      for (int64_t i = 0; i < n; i++, x += 2) {
        winograd_column(low, s, half, p, step, x + 2, c[2]);
        winograd_column(low, s, half, p, step, x + 3, c[3]);
        float *to[4];
        #pragma GCC unroll 4
        for (int e = 0; e < 4; e++) to[e] = set + lists->place[e][t - begin + i] * LANES;
        #pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
          float *left = to[2 * (r == 3)], *right = to[1 + 2 * (r == 3)];
          #pragma GCC unroll 4
          for (int e = 0; e < 4; e++) __builtin_prefetch((e == 3 ? right : left) + (4 * r + e) * s->v_step + AHEAD * LANES, 1, 3);
          winograd_put(low, left + (4 * r + 0) * s->v_step, c[0][r] - c[2][r]);
          winograd_put(low, left + (4 * r + 1) * s->v_step, c[1][r] + c[2][r]);
          winograd_put(low, left + (4 * r + 2) * s->v_step, c[2][r] - c[1][r]);
          winograd_put(low, right + (4 * r + 3) * s->v_step, c[1][r] - c[3][r]);
          c[0][r] = c[2][r];
          c[1][r] = c[3][r];
        }
      }
    }
    t += n;
  }
}

/* m [rows][WIDTH] = or += v u over `groups` vectors of words; v's vectors lie `step` apart. Sums spelled out: the compiler keeps arrays of
 * them in memory. */
WINOGRAD_INLINE void winograd_product(const bool low, const float *restrict v, int64_t step, int64_t groups, const float *restrict u, const float *ahead, float *restrict m, int rows, bool add) {
  #define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
  #define BEGIN(r) vf a##r = {0}, b##r = {0}, c##r = {0}, d##r = {0};
  #define STEP(r) \
    if (rows > r) { \
      const float *f = v + r * LANES + l; \
      a##r = winograd_multiply(low, f, u0, a##r); \
      b##r = winograd_multiply(low, f, u1, b##r); \
      if (VECTORS > 2) c##r = winograd_multiply(low, f, u2, c##r); \
      if (VECTORS > 2) d##r = winograd_multiply(low, f, u3, d##r); \
    }
  #define PUT(r) \
    if (rows > r) { \
      float *to = m + r * WIDTH; \
      if (add) { \
        a##r += vf_load(to); \
        b##r += vf_load(to + LANES); \
        if (VECTORS > 2) c##r += vf_load(to + 2 * LANES); \
        if (VECTORS > 2) d##r += vf_load(to + 3 * LANES); \
      } \
      vf_store(to, a##r); \
      vf_store(to + LANES, b##r); \
      if (VECTORS > 2) vf_store(to + 2 * LANES, c##r); \
      if (VECTORS > 2) vf_store(to + 3 * LANES, d##r); \
    }
  EACH(BEGIN)
  for (int64_t g = 0; g < groups; g++, v += step)
    #pragma GCC unroll 4
    for (int l = 0; l < LANES; l++, u += WIDTH, ahead += LANES) {
      __builtin_prefetch(ahead, 0, 2);
      vf u0 = vf_load(u), u1 = vf_load(u + LANES), u2 = {0}, u3 = {0};
      if (VECTORS > 2) u2 = vf_load(u + 2 * LANES);
      if (VECTORS > 2) u3 = vf_load(u + 3 * LANES);
      EACH(STEP)
    }
  EACH(PUT)
  #undef EACH
  #undef BEGIN
  #undef STEP
  #undef PUT
}

/* What the products of one of the 16 elements fetch into the cache for later: the next element's u; and, tile by tile, pixels of the next block, or of y. */
struct winograd_fetch { const float *u; const char *pixels; const int64_t *at; int64_t pixel, row; };

WINOGRAD_INLINE void winograd_products(const bool low, const struct winograd *s, int tiles, const float *restrict v, const float *restrict u, float *restrict m, struct winograd_fetch fetch) {
  int64_t step = (s->block + 1) * LANES;
  for (int64_t from = 0; from < s->words; from += TERMS) {
    int64_t n = s->words - from < TERMS ? s->words - from : TERMS;
    const float *restrict vs = v + from / LANES * step, *restrict us = u + from * WIDTH;
    for (int t = 0; t < tiles; t += WINOGRAD_ROWS) {
      const float *restrict vt = vs + t * LANES;
      float *restrict mt = m + t * WIDTH;
      bool add = from > 0;
      const float *ahead = t / WINOGRAD_ROWS < VECTORS ? fetch.u + from * WIDTH + t / WINOGRAD_ROWS * n * LANES : us;
      if (fetch.pixels && !add)
        for (int i = t; i < t + WINOGRAD_ROWS; i++) {
          const char *p = fetch.pixels + fetch.at[i];
          __builtin_prefetch(p, 0, 2);
          __builtin_prefetch(p + fetch.pixel, 0, 2);
          __builtin_prefetch(p + fetch.row, 0, 2);
          __builtin_prefetch(p + fetch.row + fetch.pixel, 0, 2);
        }
      switch (tiles - t) {
        case 1: winograd_product(low, vt, step, n / LANES, us, ahead, mt, 1, add); break;
        case 2: winograd_product(low, vt, step, n / LANES, us, ahead, mt, 2, add); break;
        case 3: winograd_product(low, vt, step, n / LANES, us, ahead, mt, 3, add); break;
        case 4: winograd_product(low, vt, step, n / LANES, us, ahead, mt, 4, add); break;
        case 5: winograd_product(low, vt, step, n / LANES, us, ahead, mt, 5, add); break;
        default: winograd_product(low, vt, step, n / LANES, us, ahead, mt, 6, add);
      }
    }
  }
}

WINOGRAD_INLINE void winograd_results(const bool low, const struct winograd *s, int64_t tiles, const struct winograd_lists *lists, const float *restrict m, int64_t block) {
  int64_t channels = s->out - block * WIDTH, row = s->columns * s->y_pixel;
  int vectors = channels < WIDTH ? (int)(channels / LANES) : VECTORS;
  for (int64_t t = 0; t < tiles; t++) {
    bool right = lists->right[t], lower = lists->lower[t];
    const float *from[4];
    #pragma GCC unroll 4
    for (int e = 0; e < 4; e++) from[e] = m + lists->place[e][t] * WIDTH;
    for (int i = 0; i < vectors; i++) {
      vf top[4], bottom[4], bias = {0};
      #pragma GCC unroll 4
      for (int e = 0; e < 4; e++) {
        const float *p = from[e == 3] + i * LANES + e * s->m_step;
        vf b = vf_load(p + 4 * s->m_step), c = vf_load(p + 8 * s->m_step);
        top[e] = vf_load(p) + b + c;
        bottom[e] = b - c - vf_load(from[2 + (e == 3)] + i * LANES + (12 + e) * s->m_step);
      }
      if (s->bias) bias = vf_load(s->bias + block * WIDTH + i * LANES);
      char *to = s->y + lists->y[t] + (block * VECTORS + i) * s->y_plane;
      winograd_put(low, (float *)(void *)to, top[0] + top[1] + top[2] + bias);
      if (right) winograd_put(low, (float *)(void *)(to + s->y_pixel), top[1] - top[2] - top[3] + bias);
      if (lower) {
        winograd_put(low, (float *)(void *)(to + row), bottom[0] + bottom[1] + bottom[2] + bias);
        if (right) winograd_put(low, (float *)(void *)(to + row + s->y_pixel), bottom[1] - bottom[2] - bottom[3] + bias);
      }
    }
  }
}

WINOGRAD_INLINE void winograd_block(const bool low, const struct winograd *s, int64_t begin, int64_t end) {
  float *v = s->scratch + unic_thread_index() * s->own, *m = v + 16 * s->v_step;
  int64_t blocks = (s->out + WIDTH - 1) / WIDTH, lines = s->words / LANES, line = 0, next = end + s->block < s->tiles ? end + s->block : s->tiles;
  int64_t step = low ? 2 : 1;   /* sets of LANES channels in a cache line */
  struct winograd_lists here, then;
  winograd_sort(s, begin, end, &here);
  winograd_sort(s, end, next, &then);
  winograd_images(low, s, begin, end, &here, v);
  for (int64_t block = 0; block < blocks; block++) {
    for (int e = 0; e < 16; e++) {
      const float *u = s->u + (block * 16 + e) * s->u_step;
      struct winograd_fetch fetch = {.u = block == blocks - 1 && e == 15 ? s->u : u + s->u_step};
      if (e % 4 == 0 && line < lines && next > end) {
        fetch.pixels = s->x + line++ * step * s->x_plane;
        fetch.at = then.x;
        fetch.pixel = s->x_pixel;
        fetch.row = s->width * s->x_pixel;
      } else if (e % 4 == 2 && e / 4 % step == 0 && (block * VECTORS + e / 4) * LANES < s->out) {
        fetch.pixels = s->y + (block * VECTORS + e / 4) * s->y_plane;
        fetch.at = here.y;
        fetch.pixel = s->y_pixel;
        fetch.row = s->columns * s->y_pixel;
      }
      winograd_products(low, s, here.count[winograd_list(e)], v + e * s->v_step, u, m + e * s->m_step, fetch);
    }
    winograd_results(low, s, end - begin, &here, m, block);
  }
}

/* Items: tiles; a chunk is a block. */
UNIC_LOOP(winograd_tiles) {
  const struct winograd *s = context;
#if defined(__AVX512BF16__)
  if (s->low) {
    winograd_block(true, s, begin, end);
    return;
  }
#endif
  winograd_block(false, s, begin, end);
}

#else

UNIC_LOOP_TABLE(winograd_filters);
UNIC_LOOP_TABLE(winograd_tiles);

/* Output channels of a product, and channels of a block. */
static inline int64_t winograd_width(void) { return unic_isa_current() >= UNIC_ISA_AVX512 ? 64 : 16; }
static inline int64_t winograd_lanes(void) { return unic_isa_current() >= UNIC_ISA_AVX512 ? 16 : 8; }

static inline int64_t winograd_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Everything but the pointers for y = x * weight, both in blocks; `turned` for the gradient, where x stands for dy and y for dx. tiles = 0: not a convolution
 * for this algorithm, or one that the direct one is faster at. With few tiles the filters are not worth transforming (512 channels of 7x7 pixels: one
 * image 0.8 times as fast, four images 1.15 times); and products over WIDTH channels where few are wanted are wasted (40 % may be: 80 of 128
 * channels 1.24 times as fast, 32 of 64 0.93 times). */
static inline struct winograd winograd_plan(const unic_view *x, const unic_view *y, const unic_view *weight, const int64_t *padding, bool turned) {
  int64_t lanes = winograd_lanes(), width = winograd_width(), threads = unic_threads(), down = (y->shape[2] + 1) / 2, across = (y->shape[3] + 1) / 2;
  int64_t in = x->shape[1], out = y->shape[1], tiles = x->shape[0] * down * across;
  bool low = x->dtype == UNIC_BF16;
  bool lies = low ? unic_isa_current() >= UNIC_ISA_AVX512_BF16 && !x->block && !y->block && in % 32 == 0 && out % lanes == 0
                  : unic_isa_current() >= UNIC_ISA_AVX2 && x->dtype == UNIC_F32 && x->block == lanes && y->block == lanes;
  if (!lies || weight->shape[2] != 3 || weight->shape[3] != 3 || padding[0] > 2 || padding[1] > 2 || tiles < 48 || 8 * out < 5 * winograd_up(out, width))
    return (struct winograd){.tiles = 0};
  /* As many blocks for every thread; v of a thread at most as large as for 512 words. */
  int64_t words = low ? in / 2 : in, most = words <= 512 ? WINOGRAD_TILES : WINOGRAD_TILES * 512 / words / WINOGRAD_ROWS * WINOGRAD_ROWS;
  if (most < WINOGRAD_ROWS) most = WINOGRAD_ROWS;
  int64_t blocks = winograd_up((tiles + most - 1) / most, threads), block = winograd_up((tiles + blocks - 1) / blocks, WINOGRAD_ROWS);
  struct winograd s = {.low = low, .images = x->shape[0], .height = x->shape[2], .width = x->shape[3], .rows = y->shape[2], .columns = y->shape[3], .in = in,
                       .out = out, .in_step = turned ? out : 1, .out_step = turned ? 1 : in, .words = words, .turned = turned, .down = down, .across = across,
                       .tiles = tiles, .block = block, .v_step = words * (block + 1) + lanes, .m_step = width * (block + 1) + lanes,
                       .u_step = words * width + lanes};
  s.x_pixel = low ? 2 * in : 4 * lanes;
  s.y_pixel = low ? 2 * out : 4 * lanes;
  s.x_plane = low ? 2 * lanes : s.height * s.width * s.x_pixel;
  s.y_plane = low ? 2 * lanes : s.rows * s.columns * s.y_pixel;
  for (int d = 0; d < 2; d++) s.before[d] = turned ? 2 - padding[d] : padding[d];
  s.own = 16 * (s.v_step + s.m_step);
  return s;
}

/* Bytes of u, and of scratch; and u's tag as a derived form of the weight. */
static inline int64_t winograd_u_bytes(const struct winograd *s) { return winograd_up(s->out, winograd_width()) / winograd_width() * 16 * s->u_step * 4; }
static inline int64_t winograd_scratch_bytes(const struct winograd *s) { return unic_threads() * s->own * 4; }
static inline uint64_t winograd_tag(const struct winograd *s) {
  return 0x77696e6f67726164u ^ ((uint64_t)s->out << 32) ^ ((uint64_t)s->in << 1) ^ (uint64_t)winograd_width() << 56 ^ (uint64_t)s->low << 55;
}

/* weight -> u; then x, u and bias (or NULL) -> y. */
static inline void winograd_run_filters(const struct winograd *plan, const void *weight, void *u) {
  struct winograd s = *plan;
  s.weight = weight;
  s.u = u;
  UNIC_RUN(winograd_filters, winograd_up(s.out, winograd_width()) / winograd_width() * s.in, winograd_lanes(), &s);
}
static inline void winograd_run(const struct winograd *plan, const void *x, const void *u, const void *bias, void *y, void *scratch) {
  struct winograd s = *plan;
  s.x = x;
  s.u = (float *)(uintptr_t)u;
  s.bias = bias;
  s.y = y;
  s.scratch = scratch;
  UNIC_RUN(winograd_tiles, s.tiles, s.block, &s);
}

#endif
#endif
