/* Weight gradients of convolutions: dw[o,i,u,v] = sum over pixels of result[o] image[i under tap u, v] (conv_weights.h has the formula with its strides).
 *
 * A tile of 5 or 6 output channels by 64 input channels stays in registers while it goes through a block of pixels: a vector of input channels
 * times one output channel. Both come from panels, 16 channels of one pixel (f32) or of a pair of pixels (bf16, as vdpbf16ps multiplies them) after another.
 * A blocked image is made of such panels; where it is not (bf16, strides), a block of it is gathered into them per tap, so that strides and dilation cost
 * nothing and what lies outside is zero. A block is 128 vectors deep: four panels of input channels fit L1 beside one of output channels.
 *
 * Measured at ResNet-50's shapes, batch 16, two threads of a Zen 5, oneDNN 2.6 with its reorder into the plain gradient against this:
 *   bf16, channels-last: all but the stem 179 -> 145 ms; 1x1 at 56 x 56 pixels 570 to 650 -> 680 to 880 GFLOP/s, at 14 and 7 650 to 750 -> 890 to 980
 *   (as matrix products 860 to 980, at 28 x 28 and above 400 to 790), 3x3 700 to 900 -> 850 to 920, strided 470 to 690 -> 790 to 960;
 *   f32, blocked: 1x1 167 -> 148 ms, 280 to 460 -> 390 to 490 GFLOP/s, where the images come from memory; from a cache both are near 500. Its 3x3 ones stay
 *   with oneDNN: Winograd's algorithm where there is no stride, and with one 416, 444 and 381 against 409, 428 and 422 here.
 * The tiles of a block prefetch the next block's memory, a line per step: without that it would be 159 and 185 ms.
 *
 * A NaN or infinity in the result reaches all taps of its channel, those under which the image ends too.
 * Bits: same_threads. Sums run over a block's pixels in f32, then over blocks, then over the pieces that threads take. */
#include "conv_weights.h"
#include "loops.h"

enum { WIDE = 16 };      /* channels of a panel: a vector of floats, or of pairs of bf16 */
enum { ACROSS = 4 };     /* panels of input channels in a tile */
enum { DEPTH = 128 };    /* vectors of a panel in a block: 8 KB (96 and 160 are as fast, more are slower) */
enum { GROUP = 16 };     /* panels of input channels that are gathered at a time: 128 KB, and 512 bytes of a bf16 pixel */
enum { SLICE = 32 };     /* most panels of output channels: 256 KB, which stay in L2 while all input channels pass by */
/* Where the gradient itself is large (LARGE bytes, bf16), it comes from far away each time that a block adds to it: fewer, deeper blocks of fewer channels. On a
 * Zen 4, ms: 512 channels of 7 x 7 pixels 3x3 11.6 -> 9.5 and 1x1 to 2048 4.5 -> 4.0; linear from 768 to 2304, 1576 rows 14.3 (oneDNN) -> 13.5. */
enum { LARGE = 1 << 20, DEEP = 4 * DEPTH, DEEP_GROUP = GROUP / 2, DEEP_SLICE = SLICE / 2 };
enum { PARTIAL = 16 << 20 };   /* most bytes of the pieces' sums, if there are several */

/* The first tap of a pixel: row and column in the image, and its place among the image's pixels (of one channel panel in blocked memory). */
struct pixel { int32_t row, column; int64_t at; };

struct job {
  const unic_conv_weights *p;
  const void *image, *result;
  float *dw;
  bool accumulate;
  char *scratch;
};

static inline int64_t up(int64_t n, int64_t by) { return (n + by - 1) / by; }
static inline int64_t panels(int64_t channels) { return up(channels, WIDE); }
static inline int64_t taps(const unic_conv_weights *p) { return p->kernel[0] * p->kernel[1]; }
/* Most panels of the result that a slice packs. */
static inline int64_t slice_panels(const unic_conv_weights *p) { return p->blocked ? 0 : (panels(p->out) + p->slices - 1) / p->slices; }
/* A piece's sums: [tap][o][i]. */
static inline float *partial(const struct job *j, int64_t piece) {
  return (float *)(void *)(j->scratch + j->p->threads * j->p->packed) + piece * taps(j->p) * j->p->out * j->p->in;
}

#if UNIC_LOOPS

#if defined(__AVX512F__)

/* ---------------------------------------------------------------- tiles */

/* What all tiles of a block share. Their depth is `segments` times `length` vectors; segments lie `a_next` and `b_next` floats apart, panels of input
 * channels `step`. From `ahead` to `end` memory is prefetched, a line per `hop` bytes. */
struct depth { int64_t segments, length, a_next, b_next, step, hop; const char *ahead, *end; };

/* c[rows][across vectors] (+)= sum over the depth of a[row] b[vector]; c's rows lie `pitch` floats apart; no more than `valid` of them exist, and of the
 * last vector the lanes of `mask`. */
static inline __attribute__((always_inline)) void tile(const bool low, const int rows, const int across, const float *a, const float *b, struct depth *d,
                                                       float *c, int64_t pitch, int64_t valid, __mmask16 mask, bool add) {
  __m512 sum[6][ACROSS];
  #pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
    #pragma GCC unroll 4
    for (int v = 0; v < across; v++) sum[r][v] = _mm512_setzero_ps();
  const char *ahead = d->ahead, *end = d->end;
  const int64_t hop = d->hop;
  for (int64_t s = 0; s < d->segments; s++) {
    const float *restrict x = a + s * d->a_next, *restrict y = b + s * d->b_next;
    for (int64_t k = 0; k < d->length; k++, x += WIDE, y += WIDE) {
      __m512 from[ACROSS];
      _mm_prefetch(ahead, _MM_HINT_T1);
      ahead = ahead < end ? ahead + hop : ahead;
      #pragma GCC unroll 4
      for (int v = 0; v < across; v++) from[v] = _mm512_loadu_ps(y + v * d->step);
      #pragma GCC unroll 6
      for (int r = 0; r < rows; r++) {
        __m512 by = _mm512_set1_ps(x[r]);
        #pragma GCC unroll 4
        for (int v = 0; v < across; v++) {
#if defined(__AVX512BF16__)
          if (low) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)from[v], (__m512bh)by);
          else
#endif
          sum[r][v] = _mm512_fmadd_ps(from[v], by, sum[r][v]);
        }
      }
    }
  }
  d->ahead = ahead;
  #pragma GCC unroll 6
  for (int r = 0; r < rows; r++) {
    if (r >= valid) return;
    #pragma GCC unroll 4
    for (int v = 0; v < across; v++) {
      float *to = c + r * pitch + v * WIDE;
      __mmask16 m = v == across - 1 ? mask : 0xffff;
      if (add) sum[r][v] = _mm512_add_ps(_mm512_maskz_loadu_ps(m, to), sum[r][v]);
      _mm512_mask_storeu_ps(to, m, sum[r][v]);
    }
  }
}

#define TILES(name, low) \
  static __attribute__((noinline)) void name(int64_t rows, int64_t across, const float *a, const float *b, struct depth *d, float *c, int64_t pitch, \
                                             int64_t valid, __mmask16 mask, bool add) { \
    switch (across * 2 + (rows == 6)) { \
      case 2: tile(low, 5, 1, a, b, d, c, pitch, valid, mask, add); break; \
      case 3: tile(low, 6, 1, a, b, d, c, pitch, valid, mask, add); break; \
      case 4: tile(low, 5, 2, a, b, d, c, pitch, valid, mask, add); break; \
      case 5: tile(low, 6, 2, a, b, d, c, pitch, valid, mask, add); break; \
      case 6: tile(low, 5, 3, a, b, d, c, pitch, valid, mask, add); break; \
      case 7: tile(low, 6, 3, a, b, d, c, pitch, valid, mask, add); break; \
      case 8: tile(low, 5, 4, a, b, d, c, pitch, valid, mask, add); break; \
      default: tile(low, 6, 4, a, b, d, c, pitch, valid, mask, add); \
    } \
  }
TILES(tile_wide, false)
#if defined(__AVX512BF16__)
TILES(tile_low, true)
#else
#define tile_low tile_wide   /* never called: without the instruction there is no plan for bf16 */
#endif

/* ---------------------------------------------------------------- panels */

/* The pixels of a block: the first one, how many, and in how many planes. */
static inline int64_t block_pixels(const unic_conv_weights *p, int64_t block, int64_t *n, int64_t *planes) {
  int64_t plane = block / p->parts * p->planes, from = block % p->parts * p->part, all = p->blocked ? p->images : 1;
  *planes = all - plane < p->planes ? all - plane : p->planes;
  *n = *planes * (p->plane - from < p->part ? p->plane - from : p->part);
  return plane * p->plane + from;
}

/* The pixels first .. first + n - 1 of the result. */
static void locate(const unic_conv_weights *p, int64_t first, int64_t n, struct pixel *to) {
  int64_t size = p->size[0] * p->size[1], pitch = p->blocked ? panels(p->in) * size : size;
  int64_t r = first / p->pixels[1], c = first % p->pixels[1], image = r / p->pixels[0];
  r %= p->pixels[0];
  for (int64_t k = 0; k < n; k++) {
    int64_t row = r * p->stride[0] - p->padding[0], column = c * p->stride[1] - p->padding[1];
    to[k] = (struct pixel){(int32_t)row, (int32_t)column, image * pitch + row * p->size[1] + column};
    if (++c < p->pixels[1]) continue;
    c = 0;
    if (++r < p->pixels[0]) continue;
    r = 0;
    image++;
  }
}

static const char zeros[64];

/* Where a pixel's channels begin, and bytes from one line of them to the next: zeros where there is no such pixel. */
struct source { const char *at; int64_t line; };

/* The image's pixel under the tap that is `u` rows and `v` columns after the first; `offset` is the tap's, and that of the first channel wanted. */
static inline struct source under(const struct pixel *k, int64_t u, int64_t v, const int64_t *size, const char *image, int64_t pitch, int64_t offset, int64_t line) {
  bool inside = ((uint64_t)(k->row + u) < (uint64_t)size[0]) & ((uint64_t)(k->column + v) < (uint64_t)size[1]);
  return (struct source){inside ? image + k->at * pitch + offset : zeros, inside ? line : 0};
}

/* `channels` bf16 channels of a and b as pairs, into panels `step` floats apart. */
static inline void pair(struct source a, struct source b, int64_t channels, float *to, int64_t step) {
#if defined(__AVX512BF16__)
  const __m512i low = _mm512_set_epi16(47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0);
  const __m512i high = _mm512_add_epi16(low, _mm512_set1_epi16(WIDE));
  for (; channels >= 2 * WIDE; channels -= 2 * WIDE, a.at += a.line, b.at += b.line, to += 2 * step) {
    __m512i x = _mm512_loadu_si512(a.at), y = _mm512_loadu_si512(b.at);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(x, low, y));
    _mm512_storeu_si512(to + step, _mm512_permutex2var_epi16(x, high, y));
  }
  if (channels > 0) {
    __mmask32 mask = (1u << channels) - 1;
    __m512i x = _mm512_maskz_loadu_epi16(mask, a.at), y = _mm512_maskz_loadu_epi16(mask, b.at);
    _mm512_storeu_si512(to, _mm512_permutex2var_epi16(x, low, y));
    if (channels > WIDE) _mm512_storeu_si512(to + step, _mm512_permutex2var_epi16(x, high, y));
  }
#endif
}

/* Panels of input channels from `from` to `until` under a tap. */
static void gather(const struct job *j, const struct pixel *at, int64_t n, int64_t u, int64_t v, int64_t from, int64_t until, float *to) {
  const unic_conv_weights *p = j->p;
  const char *image = j->image;
  const int64_t size[2] = {p->size[0], p->size[1]}, step = p->step, tap = u * size[1] + v;
  if (!p->blocked) {
    const struct source none = {zeros, 0};
    int64_t pitch = 2 * p->in, offset = tap * pitch + from * WIDE * 2, channels = (until < panels(p->in) ? until * WIDE : p->in) - from * WIDE;
    for (int64_t k = 0; k < n; k += 2, to += WIDE)
      pair(under(at + k, u, v, size, image, pitch, offset, 64), k + 1 < n ? under(at + k + 1, u, v, size, image, pitch, offset, 64) : none, channels, to, step);
    return;
  }
  for (int64_t i = from; i < until; i++, to += step)
    for (int64_t k = 0; k < n; k++)
      _mm512_storeu_ps(to + k * WIDE, _mm512_loadu_ps(under(at + k, u, v, size, image, 4 * WIDE, (i * size[0] * size[1] + tap) * 4 * WIDE, 0).at));
}

/* Panels of output channels from `from` to `until`, of the pixels first .. first + n - 1. */
static void gather_result(const struct job *j, int64_t first, int64_t n, int64_t from, int64_t until, float *to) {
  const unic_conv_weights *p = j->p;
  const int64_t pitch = 2 * p->out, channels = (until < panels(p->out) ? until * WIDE : p->out) - from * WIDE, step = p->step;
  const struct source none = {zeros, 0};
  struct source a = {(const char *)j->result + first * pitch + from * WIDE * 2, 64};
  for (int64_t k = 0; k < n; k += 2, a.at += 2 * pitch, to += WIDE) pair(a, k + 1 < n ? (struct source){a.at + pitch, 64} : none, channels, to, step);
}

/* ---------------------------------------------------------------- prefetching */

/* The memory that the next block will read, one run after another: of every panel of the result (those of the slice), then of the image, what lies together. */
struct ahead { int64_t block, last, run, from, until; };

static void look_ahead(const struct job *j, struct ahead *a, struct depth *d) {
  const unic_conv_weights *p = j->p;
  if (a->block >= a->last) return;
  int64_t n, planes, first = block_pixels(p, a->block, &n, &planes), length = n / planes, columns = p->pixels[1];
  int64_t out = p->blocked ? panels(p->out) : 1, own = p->blocked ? a->until - a->from : 1, in = p->blocked ? panels(p->in) : 1;
  int64_t pixel = p->blocked ? 4 * WIDE : 2 * p->in, result_pixel = p->blocked ? 4 * WIDE : 2 * p->out, run = a->run++;
  d->hop = 64;
  if (run < own * planes) {
    int64_t at = ((first / p->plane + run % planes) * out + (p->blocked ? a->from : 0) + run / planes) * p->plane + first % p->plane;
    d->ahead = (const char *)j->result + at * result_pixel;
    d->end = d->ahead + length * result_pixel;
    return;
  }
  run -= own * planes;
  /* Of an image whose rows are not all read, row by row. */
  bool sparse = p->kernel[0] < p->stride[0];
  int64_t start = first + run % planes * p->plane, rows = sparse ? (first + length - 1) / columns - first / columns + 1 : 1;
  int64_t row = run / planes % rows, panel = run / planes / rows, count = length, end = start + length;
  if (panel >= in) return;
  if (row) start = (start / columns + row) * columns;
  if (sparse) {
    count = columns - start % columns < end - start ? columns - start % columns : end - start;
    if (p->blocked) d->hop = 64 * p->stride[1];
  }
  struct pixel k;
  locate(p, start, 1, &k);
  int64_t at = k.at + p->padding[0] * p->size[1] + p->padding[1] + panel * p->size[0] * p->size[1];
  d->ahead = (const char *)j->image + at * pixel;
  d->end = d->ahead + count * p->stride[1] * (sparse ? 1 : p->stride[0]) * pixel;
}

#endif

/* ---------------------------------------------------------------- sums */

/* Units: a piece of the blocks and a slice of the output channels each. */
UNIC_LOOP(conv_weights_sums) {
#if defined(__AVX512F__)
  const struct job *j = context;
  const unic_conv_weights *p = j->p;
  const int64_t in = panels(p->in), out = panels(p->out);
  for (int64_t unit = begin; unit < end; unit++) {
    int64_t piece = unit / p->slices, slice = unit % p->slices, from = out * slice / p->slices, until = out * (slice + 1) / p->slices;
    int64_t block = p->blocks * piece / p->pieces, last = p->blocks * (piece + 1) / p->pieces;
    float *x = (float *)(void *)(j->scratch + unic_thread_index() * p->packed), *dy = x + p->group * p->step, *sums = p->direct ? j->dw : partial(j, piece);
    struct pixel *at = (struct pixel *)(void *)(dy + slice_panels(p) * p->step);
    bool add = p->direct && j->accumulate;
    for (; block < last; block++, add = true) {
      int64_t n, planes, first = block_pixels(p, block, &n, &planes), place = first % p->plane * WIDE, a_step = p->step;
      struct depth d = {.segments = planes, .length = p->blocked ? n / planes : (n + 1) / 2, .step = p->step, .ahead = zeros, .end = zeros};
      struct ahead ahead = {block + 1, last, 0, from, until};
      const float *a = dy, *b = x;
      d.b_next = d.length * WIDE;
      if (p->blocked) {
        a_step = p->plane * WIDE;
        d.a_next = out * a_step;
        a = (const float *)j->result + first / p->plane * d.a_next + from * a_step + place;
      } else {
        gather_result(j, first, n, from, until, dy);
      }
      if (p->in_place) {
        d.step = p->plane * WIDE;
        d.b_next = in * d.step;
        b = (const float *)j->image + first / p->plane * d.b_next + place;
      } else {
        locate(p, first, n, at);
      }
      for (int64_t group = 0; group < in; group += p->group)
        for (int64_t tap = 0; tap < taps(p); tap++) {
          int64_t stop = in - group < p->group ? in : group + p->group;
          if (!p->in_place) gather(j, at, n, tap / p->kernel[1] * p->dilation[0], tap % p->kernel[1] * p->dilation[1], group, stop, x);
          for (int64_t i = group, across; i < stop; i += across) {
            across = up(stop - i, up(stop - i, ACROSS));   /* 5 panels as 3 and 2 */
            int64_t rest = p->in - (i + across - 1) * WIDE;
            __mmask16 mask = rest < WIDE ? (__mmask16)((1u << rest) - 1) : 0xffff;
            const float *from_b = b + (p->in_place ? i : i - group) * d.step;
            for (int64_t o = from; o < until; o++)
              for (int64_t r = 0, rows = 6; r < WIDE; r += rows, rows = 5) {   /* 6 + 5 + 5 */
                int64_t valid = p->out - o * WIDE - r;
                if (valid <= 0) break;
                if (d.ahead >= d.end) look_ahead(j, &ahead, &d);
                float *c = sums + ((tap * p->out + o * WIDE + r) * p->in + i * WIDE);
                (p->blocked ? tile_wide : tile_low)(rows, across, a + (o - from) * a_step + r, from_b, &d, c, p->in, valid, mask, add);
              }
          }
        }
    }
  }
#endif
}

/* Rows of the gradient from the pieces' sums, in order. */
UNIC_LOOP(conv_weights_join) {
  const struct job *j = context;
  const unic_conv_weights *p = j->p;
  int64_t all = taps(p);
  float row[UNIC_ROW];
  for (int64_t o = begin; o < end; o++)
    for (int64_t i = 0; i < p->in; i += UNIC_ROW) {
      int64_t n = p->in - i < UNIC_ROW ? p->in - i : UNIC_ROW;
      for (int64_t t = 0; t < all; t++) {
        const float *sum = partial(j, 0) + (t * p->out + o) * p->in + i;
        for (int64_t piece = 1; piece < p->pieces; piece++) {
          const float *more = partial(j, piece) + (t * p->out + o) * p->in + i;
          for (int64_t e = 0; e < n; e++) row[e] = sum[e] + more[e];
          sum = row;
        }
        float *restrict to = j->dw + (o * p->in + i) * all + t;
        if (j->accumulate) for (int64_t e = 0; e < n; e++) to[e * all] += sum[e];
        else for (int64_t e = 0; e < n; e++) to[e * all] = sum[e];
      }
    }
}

#else

UNIC_LOOP_TABLE(conv_weights_sums);
UNIC_LOOP_TABLE(conv_weights_join);

static int64_t lesser(int64_t a, int64_t b) { return a < b ? a : b; }

bool unic_conv_weights_plan(unic_conv_weights *p) {
  if (unic_isa_current() < (p->blocked ? UNIC_ISA_AVX512 : UNIC_ISA_AVX512_BF16)) return false;
  const int64_t threads = p->threads = unic_threads(), pixels = p->images * p->pixels[0] * p->pixels[1], bytes = taps(p) * p->out * p->in * 4;
  const bool deep = bytes >= LARGE;
  const int64_t most = (p->blocked ? 1 : 2) * (deep ? DEEP : DEPTH), slice = deep ? DEEP_SLICE : SLICE;
  p->group = deep ? DEEP_GROUP : GROUP;
  p->plane = p->blocked ? p->pixels[0] * p->pixels[1] : pixels;
  p->part = up(p->plane, up(p->plane, most));
  if (!p->blocked) p->part += p->part % 2;
  p->parts = up(p->plane, p->part);
  p->planes = p->parts > 1 || !p->blocked ? 1 : most / p->plane;
  p->blocks = p->parts * (p->blocked ? up(p->images, p->planes) : 1);
  p->in_place = p->blocked && taps(p) == 1;
  for (int d = 0; d < 2; d++) if (p->stride[d] != 1 || p->padding[d] != 0) p->in_place = false;
  /* One vector more: panels a power of two apart would fall on each other in L1 (5 % of the time). */
  p->step = ((p->blocked ? p->planes * p->part : p->part / 2) + 1) * WIDE;
  /* Threads divide the pixels where their sums are small beside them, otherwise the output channels, although each gathers the image then. */
  p->pieces = pixels >= 16 * p->out ? lesser(lesser(threads, p->blocks), PARTIAL / bytes) : 1;
  if (p->pieces < 1) p->pieces = 1;
  p->slices = lesser(up(threads, p->pieces), panels(p->out));
  if (p->slices * slice < panels(p->out)) p->slices = up(up(panels(p->out), slice), p->slices) * p->slices;   /* as many for every thread */
  p->packed = ((p->group + slice_panels(p)) * p->step * 4 + up(p->planes * p->part * (int64_t)sizeof(struct pixel), 64) * 64);
  p->direct = p->pieces == 1 && taps(p) == 1;
  p->scratch = threads * p->packed + (p->direct ? 0 : p->pieces * bytes);
  return true;
}

void unic_conv_weights_run(const unic_conv_weights *p, const void *image, const void *result, float *dw, bool accumulate, void *scratch) {
  struct job j = {.p = p, .image = image, .result = result, .dw = dw, .accumulate = accumulate, .scratch = scratch};
  UNIC_RUN(conv_weights_sums, p->pieces * p->slices, 1, &j);
  if (!p->direct) UNIC_RUN(conv_weights_join, p->out, 1 + 4096 / (p->in * taps(p)), &j);
}

extern const unic_op *const unic_ops_conv_weights[];
const unic_op *const unic_ops_conv_weights[] = {0};   /* no op of its own: conv2d's */

#endif
