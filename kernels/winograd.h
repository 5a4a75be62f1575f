/* conv2d's dense 3x3 convolutions of stride 1 by Winograd's algorithm F(2x2, 3x3), in f32 on channels in blocks.
 *
 *   y[2i..2i+1, 2j..2j+1] = A' [ sum over c of (G g_c G') o (B' d_c B) ] A,  d_c the 4x4 pixels they see, g_c the 3x3 filter, o element by element
 *
 * (S. Winograd, Arithmetic Complexity of Computations, 1980; A. Lavin and S. Gray, 2016): 16 products for four results instead of 36. x [N,I,H,W] and
 * y [N,O,Oh,Ow] lie in blocks of LANES channels, weight [O,I,3,3] row-major. The gradient with respect to x is the same convolution of dy, its filters
 * [I,O] turned by 180 degrees. A thread takes `block` tiles of 2x2 results at a time: (1) v [16][I / LANES][block + 1][LANES] = B'dB of all input channels;
 * then, for every WIDTH output channels, (2) 16 matrix products m [16][block + 1][WIDTH] = v u, and (3) y = A'mA. v and m stay near the thread.
 * u [O / WIDTH][16][I][WIDTH] = GgG' is made before, of all filters.
 *
 * Where the last row or column of tiles sticks out of y, the products that only its missing half needs (row or column 3 of the 16) are left out: 7x7 pixels
 * take 225 products instead of 256. v and m of such an element are lists without these tiles.
 *
 * Measured against oneDNN's direct convolution, two threads, AVX-512, batch 16, with what each does to the weights: 64 channels of 56x56 pixels 7.5 -> 4.7 ms,
 * 128 of 28x28 7.5 -> 4.0, 256 of 14x14 7.6 -> 4.1, 512 of 7x7 7.9 -> 5.4; about 2 times as fast where there are more pixels. The matrix products
 * run at the processor's peak; the transforms are as fast as that because what they read and write is fetched ahead (64 channels: 4.9 ms without).
 *
 * Error, of the largest value, against f64, with x of mean 1 or after a ReLU: 3e-7 to 4.4e-7 at ResNet-50's shapes (direct: 2e-7); sums of all 512 channels at
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
  const float *x, *weight, *bias;           /* bias may be NULL */
  float *y, *u, *scratch;                   /* scratch: v and m of every thread */
  int64_t images, height, width, rows, columns, before[2];   /* of x; of y; zeros above and to the left of x */
  int64_t in, out, in_step, out_step;       /* channels, and where their filters lie in weight, in filters */
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

/* Rows and columns of LANES x LANES floats change places: in each step the off-diagonal blocks of this size. */
WINOGRAD_INLINE void winograd_transpose(vf *rows) {
  vi lane;
  for (int l = 0; l < LANES; l++) lane[l] = l;
  #pragma GCC unroll 4
  for (int step = 1; step < LANES; step *= 2) {
    vi odd = (lane & step) != 0, first = vi_choose(odd, lane - step + LANES, lane), second = vi_choose(odd, lane + LANES, lane + step);
    #pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
      if (!(i & step)) {
        vf a = rows[i], b = rows[i + step];
        rows[i] = __builtin_shuffle(a, b, first);
        rows[i + step] = __builtin_shuffle(a, b, second);
      }
  }
}

/* LANES input channels from `first` on of LANES output channels from `o` on, as vectors of these: to [input][9]. One of the two
 * kinds of channels lies densely in the weight. */
WINOGRAD_INLINE void winograd_gather(const struct winograd *s, int64_t o, int64_t first, vf *to) {
  const float *from = s->weight + (o * s->out_step + first * s->in_step) * 9;
  vf rows[LANES];
  if (s->in_step == 1) {
    for (int j = 0; j < 9; j++) {
      for (int l = 0; l < LANES; l++) rows[l] = vf_load(from + l * s->out_step * 9 + j * LANES);
      winograd_transpose(rows);
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
    winograd_transpose(rows);
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
    vf g[LANES * 9], half[3][4], whole[4];
    if (o < s->out) winograd_gather(s, o, first, g);
    else memset(g, 0, sizeof g);
    float *to = s->u + block * 16 * s->u_step + first * WIDTH + v * LANES;
    for (int c = 0; c < LANES; c++, to += WIDTH) {
      const vf *f = g + 9 * c;
      #pragma GCC unroll 3
      for (int e = 0; e < 3; e++)
        if (s->turned) winograd_g(f[8 - e], f[5 - e], f[2 - e], half[e]);
        else winograd_g(f[e], f[3 + e], f[6 + e], half[e]);
      #pragma GCC unroll 4
      for (int r = 0; r < 4; r++) {
        winograd_g(half[0][r], half[1][r], half[2][r], whole);
        #pragma GCC unroll 4
        for (int e = 0; e < 4; e++) vf_store(to + (4 * r + e) * s->u_step, whole[e]);
      }
    }
  }
}

/* Where the tiles of a block are in the lists: [0] all of them; [1] those whose right half is wanted, [2] whose lower one, [3] both. The others' place is one
 * past the end, which nobody reads for a result. */
struct winograd_lists {
  int count[4];
  int16_t place[4][WINOGRAD_TILES];
  bool right[WINOGRAD_TILES], lower[WINOGRAD_TILES];
  int64_t y[WINOGRAD_TILES + WINOGRAD_ROWS];   /* where a tile's results begin, in the first vector of channels */
  int64_t x[WINOGRAD_TILES + WINOGRAD_ROWS];   /* the same of the last two rows of its pixels */
};

WINOGRAD_INLINE int winograd_list(int element) { return (element % 4 == 3) + 2 * (element / 4 == 3); }

WINOGRAD_INLINE void winograd_sort(const struct winograd *s, int64_t begin, int64_t end, struct winograd_lists *lists) {
  int64_t column = begin % s->across, row = begin / s->across % s->down, image = begin / s->across / s->down;
  int count[4] = {0};
  for (int64_t t = 0; t < end - begin; t++) {
    bool right = 2 * column + 1 < s->columns, lower = 2 * row + 1 < s->rows;
    const bool wanted[4] = {true, right, lower, right && lower};
    for (int i = 0; i < 4; i++) lists->place[i][t] = (int16_t)(wanted[i] ? count[i]++ : s->block);
    lists->right[t] = right;
    lists->lower[t] = lower;
    lists->y[t] = image * s->out * s->rows * s->columns + (2 * row * s->columns + 2 * column) * LANES;
    int64_t pixel_row = 2 * row + 2 - s->before[0];
    lists->x[t] = image * s->in * s->height * s->width + ((pixel_row > 0 ? pixel_row : 0) * s->width + 2 * column) * LANES;
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

/* B' of a column of four pixels: p[r] is where row r begins, step[r] 0 where it is outside (then p[r] is a vector of zeros). */
WINOGRAD_INLINE void winograd_column(const struct winograd *s, const float *const *p, const int64_t *step, int64_t column, vf *to) {
  if (column < 0 || column >= s->width) {
    for (int r = 0; r < 4; r++) to[r] = (vf){0};
    return;
  }
  vf a = vf_load(p[0] + column * step[0]), b = vf_load(p[1] + column * step[1]), c = vf_load(p[2] + column * step[2]), d = vf_load(p[3] + column * step[3]);
  to[0] = a - c;
  to[1] = b + c;
  to[2] = c - b;
  to[3] = b - d;
}

WINOGRAD_INLINE void winograd_images(const struct winograd *s, int64_t begin, int64_t end, const struct winograd_lists *lists, float *restrict v) {
  static const float zeros[LANES];
  int64_t pixels = s->height * s->width, groups = s->in / LANES;
  for (int64_t t = begin; t < end;) {   /* a row of tiles, or what of it is in this block */
    int64_t image = t / (s->down * s->across), row = t / s->across % s->down, first = t % s->across;
    int64_t n = s->across - first < end - t ? s->across - first : end - t;
    for (int64_t g = 0; g < groups; g++) {
      const float *plane = s->x + (image * groups + g) * pixels * LANES, *p[4];
      int64_t step[4];
      for (int r = 0; r < 4; r++) {
        int64_t y = 2 * row - s->before[0] + r;
        bool inside = y >= 0 && y < s->height;
        p[r] = inside ? plane + y * s->width * LANES : zeros;
        step[r] = inside ? LANES : 0;
      }
      int64_t x = 2 * first - s->before[1];
      vf c[4][4];
      winograd_column(s, p, step, x, c[0]);
      winograd_column(s, p, step, x + 1, c[1]);
      for (int64_t i = 0; i < n; i++, x += 2) {
        winograd_column(s, p, step, x + 2, c[2]);
        winograd_column(s, p, step, x + 3, c[3]);
        float *to[4];
        #pragma GCC unroll 4
        for (int e = 0; e < 4; e++) to[e] = v + g * (s->block + 1) * LANES + lists->place[e][t - begin + i] * LANES;
        #pragma GCC unroll 4
        for (int r = 0; r < 4; r++) {
          float *left = to[2 * (r == 3)], *right = to[1 + 2 * (r == 3)];
          #pragma GCC unroll 4
          for (int e = 0; e < 4; e++) __builtin_prefetch((e == 3 ? right : left) + (4 * r + e) * s->v_step + AHEAD * LANES, 1, 3);
          vf_store(left + (4 * r + 0) * s->v_step, c[0][r] - c[2][r]);
          vf_store(left + (4 * r + 1) * s->v_step, c[1][r] + c[2][r]);
          vf_store(left + (4 * r + 2) * s->v_step, c[2][r] - c[1][r]);
          vf_store(right + (4 * r + 3) * s->v_step, c[1][r] - c[3][r]);
          c[0][r] = c[2][r];
          c[1][r] = c[3][r];
        }
      }
    }
    t += n;
  }
}

/* m [rows][WIDTH] = or += v u over `groups` vectors of input channels; v's vectors lie `step` apart. Sums spelled out: the compiler keeps arrays of
 * them in memory. */
WINOGRAD_INLINE void winograd_product(const float *restrict v, int64_t step, int64_t groups, const float *restrict u, const float *ahead, float *restrict m, int rows, bool add) {
  #define EACH(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
  #define BEGIN(r) vf a##r = {0}, b##r = {0}, c##r = {0}, d##r = {0};
  #define STEP(r) \
    if (rows > r) { \
      vf f = v[r * LANES + l] - (vf){0}; \
      a##r += f * u0; \
      b##r += f * u1; \
      if (VECTORS > 2) c##r += f * u2; \
      if (VECTORS > 2) d##r += f * u3; \
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
struct winograd_fetch { const float *u, *pixels; const int64_t *at; int64_t row; };

static void winograd_products(const struct winograd *s, int tiles, const float *restrict v, const float *restrict u, float *restrict m, struct winograd_fetch fetch) {
  int64_t step = (s->block + 1) * LANES;
  for (int64_t from = 0; from < s->in; from += TERMS) {
    int64_t n = s->in - from < TERMS ? s->in - from : TERMS;
    const float *restrict vs = v + from / LANES * step, *restrict us = u + from * WIDTH;
    for (int t = 0; t < tiles; t += WINOGRAD_ROWS) {
      const float *restrict vt = vs + t * LANES;
      float *restrict mt = m + t * WIDTH;
      bool add = from > 0;
      const float *ahead = t / WINOGRAD_ROWS < VECTORS ? fetch.u + from * WIDTH + t / WINOGRAD_ROWS * n * LANES : us;
      if (fetch.pixels && !add)
        for (int i = t; i < t + WINOGRAD_ROWS; i++) {
          const float *p = fetch.pixels + fetch.at[i];
          __builtin_prefetch(p, 0, 2);
          __builtin_prefetch(p + LANES, 0, 2);
          __builtin_prefetch(p + fetch.row, 0, 2);
          __builtin_prefetch(p + fetch.row + LANES, 0, 2);
        }
      switch (tiles - t) {
        case 1: winograd_product(vt, step, n / LANES, us, ahead, mt, 1, add); break;
        case 2: winograd_product(vt, step, n / LANES, us, ahead, mt, 2, add); break;
        case 3: winograd_product(vt, step, n / LANES, us, ahead, mt, 3, add); break;
        case 4: winograd_product(vt, step, n / LANES, us, ahead, mt, 4, add); break;
        case 5: winograd_product(vt, step, n / LANES, us, ahead, mt, 5, add); break;
        default: winograd_product(vt, step, n / LANES, us, ahead, mt, 6, add);
      }
    }
  }
}

WINOGRAD_INLINE void winograd_results(const struct winograd *s, int64_t tiles, const struct winograd_lists *lists, const float *restrict m, int64_t block) {
  int64_t pixels = s->rows * s->columns, channels = s->out - block * WIDTH;
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
      float *to = s->y + lists->y[t] + (block * VECTORS + i) * pixels * LANES;
      vf_store(to, top[0] + top[1] + top[2] + bias);
      if (right) vf_store(to + LANES, top[1] - top[2] - top[3] + bias);
      if (lower) {
        to += s->columns * LANES;
        vf_store(to, bottom[0] + bottom[1] + bottom[2] + bias);
        if (right) vf_store(to + LANES, bottom[1] - bottom[2] - bottom[3] + bias);
      }
    }
  }
}

/* Items: tiles; a chunk is a block. */
UNIC_LOOP(winograd_tiles) {
  const struct winograd *s = context;
  float *v = s->scratch + unic_thread_index() * s->own, *m = v + 16 * s->v_step;
  int64_t blocks = (s->out + WIDTH - 1) / WIDTH, groups = s->in / LANES, group = 0, next = end + s->block < s->tiles ? end + s->block : s->tiles;
  struct winograd_lists here, then;
  winograd_sort(s, begin, end, &here);
  winograd_sort(s, end, next, &then);
  winograd_images(s, begin, end, &here, v);
  for (int64_t block = 0; block < blocks; block++) {
    for (int e = 0; e < 16; e++) {
      const float *u = s->u + (block * 16 + e) * s->u_step;
      struct winograd_fetch fetch = {.u = block == blocks - 1 && e == 15 ? s->u : u + s->u_step};
      if (e % 4 == 0 && group < groups && next > end) {
        fetch.pixels = s->x + group++ * s->height * s->width * LANES;
        fetch.at = then.x;
        fetch.row = s->width * LANES;
      } else if (e % 4 == 2 && (block * VECTORS + e / 4) * LANES < s->out) {
        fetch.pixels = s->y + (block * VECTORS + e / 4) * s->rows * s->columns * LANES;
        fetch.at = here.y;
        fetch.row = s->columns * LANES;
      }
      winograd_products(s, here.count[winograd_list(e)], v + e * s->v_step, u, m + e * s->m_step, fetch);
    }
    winograd_results(s, end - begin, &here, m, block);
  }
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
  if (unic_isa_current() < UNIC_ISA_AVX2 || x->block != lanes || y->block != lanes || weight->shape[2] != 3 || weight->shape[3] != 3 || padding[0] > 2 ||
      padding[1] > 2 || tiles < 48 || 8 * out < 5 * winograd_up(out, width))
    return (struct winograd){.tiles = 0};
  /* As many blocks for every thread; v of a thread at most as large as for 512 channels. */
  int64_t most = in <= 512 ? WINOGRAD_TILES : WINOGRAD_TILES * 512 / in / WINOGRAD_ROWS * WINOGRAD_ROWS;
  if (most < WINOGRAD_ROWS) most = WINOGRAD_ROWS;
  int64_t blocks = winograd_up((tiles + most - 1) / most, threads), block = winograd_up((tiles + blocks - 1) / blocks, WINOGRAD_ROWS);
  struct winograd s = {.images = x->shape[0], .height = x->shape[2], .width = x->shape[3], .rows = y->shape[2], .columns = y->shape[3], .in = in, .out = out,
                       .in_step = turned ? out : 1, .out_step = turned ? 1 : in, .turned = turned, .down = down, .across = across, .tiles = tiles, .block = block,
                       .v_step = in * (block + 1) + lanes, .m_step = width * (block + 1) + lanes, .u_step = in * width + lanes};
  for (int d = 0; d < 2; d++) s.before[d] = turned ? 2 - padding[d] : padding[d];
  s.own = 16 * (s.v_step + s.m_step);
  return s;
}

/* Bytes of u, and of scratch; and u's tag as a derived form of the weight. */
static inline int64_t winograd_u_bytes(const struct winograd *s) { return winograd_up(s->out, winograd_width()) / winograd_width() * 16 * s->u_step * 4; }
static inline int64_t winograd_scratch_bytes(const struct winograd *s) { return unic_threads() * s->own * 4; }
static inline uint64_t winograd_tag(const struct winograd *s) {
  return 0x77696e6f67726164u ^ ((uint64_t)s->out << 32) ^ ((uint64_t)s->in << 1) ^ (uint64_t)winograd_width() << 56;
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
