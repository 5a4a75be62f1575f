/* batch_norm: y = relu?((x - mean_c) rstd_c weight_c + bias_c + residual?) over all but the channels.
 *
 * Shapes: x, residual, y [N,C] or [N,C,H,W]; weight, bias, running_mean, running_var, mean, rstd [C]. R = N H W rows of C channels.
 * training: mean and (biased) variance of x; running_mean and running_var (unbiased) move by `momentum`. Otherwise the running ones normalise.
 * Saved: x, weight, bias, mean, rstd, and a bit mask of the ReLU where a residual makes recomputing it from x impossible (1/32 of an f32
 * activation; without a residual the mask is recomputed from x). y itself is made again from these and the residual (remake.h). Gradients: with g = the sum of dy's addends where the ReLU let through,
 *   dresidual = g, dbias = sum g, dweight = rstd sum g (x - mean), dx = weight rstd (g - dbias/R - (x - mean) rstd dweight/R).
 * Bits: any_threads. Rows are cut into fixed chunks with one partial result each, joined in order in f64. Statistics are taken in two
 * passes over a tile that is in L1 and joined by the rule of Chan, Golub and LeVeque (1983), so that neither a large mean nor an outlier costs digits.
 *
 * Memory is channels-last or channels in blocks of 8 or 16, each operand on its own. Work goes by tiles of 8 rows x 128 channels (channels-last:
 * short enough that the rows stream side by side, long enough that per-channel sums are rarely stored) or 64 rows of one block. It is memory-bound.
 *
 * This op is where a network enters the blocked layout (f32, channels divisible): its result is blocked whatever x is, for nothing, and the
 * convolutions that follow keep the layout of what they are given. Measured with oneDNN 2.6 and AVX2, ResNet-50's convolutions take 15 % less
 * time blocked than channels-last.
 *
 * Over 500 lines: five loops, the kernels around them and the plain f64 form belong to one op. */
#include "channels.h"

enum { X, WEIGHT, BIAS, RUNNING_MEAN, RUNNING_VAR, RESIDUAL, TRAINING, MOMENTUM, EPS, RELU };
enum { Y, MEAN, RSTD, MASK };

/* Rows of a group (and bits of a mask's byte); groups of a tile in blocked memory, where rows are short; floats of a tile. */
enum { ROWS = 8, SPAN = 8, TALL = 4, TILE = TALL * ROWS * UNIC_CHANNELS, PAD = UNIC_CHANNELS_PAD };

struct work {
  int64_t channels, padded;          /* C, and C rounded up to PAD */
  int64_t pixels, groups;            /* rows of a plane; groups of up to ROWS rows in it */
  int64_t all, chunk;                /* groups altogether and per chunk */
  int64_t width, span;               /* channels and groups of a tile */
  int64_t from, to;                  /* channels of this pass */
  bool back;                         /* the last rows first: those that the pass before has left in the cache */
  bool low;                          /* memory is bf16 */
  bool past;                         /* y or dx is written past the caches */
  int64_t pitch;                     /* between the rows of a tile in a buffer */
  bool rows_first;                   /* order inside a chunk: all tiles of a row before the next row (channels-last), or the other way round */
  bool relu, masked, accumulate, accumulate_residual;
  unic_place x, residual, y, dy, dy2, dx, dresidual;
  float *partial;                    /* [chunks][2][padded] */
  const float *mean, *scale, *bias;  /* [padded] */
  const float *mean_g, *mean_gx;     /* what is taken from g: mean_g + (x - mean) mean_gx */
  uint8_t *mask;                     /* [all][padded]: bit r of a byte belongs to row r of the group */
  /* join */
  double rows;
  const float *weight;
  float *joined;                     /* [2][padded] */
  bool backward;
};

#if UNIC_LOOPS

#define INLINE static inline __attribute__((always_inline))

struct tile { int64_t plane, pixel, channel, group; int rows, width; };
struct rows { const void *p; int64_t stride; };
typedef float tile_buffer[TILE];

INLINE int64_t where(const unic_place *a, const struct tile *t) { return unic_place_at(a, t->plane, t->pixel, t->channel); }

/* A tile as rows of whole vectors: in place (bf16 where `low` says so when compiled, f32 otherwise), or converted to f32 and padded with zeros
 * into the buffer. */
INLINE struct rows tile_load(const struct work *w, const unic_place *a, const struct tile *t, float *restrict buffer, bool low) {
  int64_t at = where(a, t);
  if (low) return (struct rows){(const uint16_t *)a->data + at, a->pixel};
  if (a->dtype == UNIC_F32 && t->width % LANES == 0) return (struct rows){(const float *)a->data + at, a->pixel};
  for (int r = 0; r < t->rows; r++) unic_channels_load(a, at + r * a->pixel, t->width, buffer + r * w->pitch);
  return (struct rows){buffer, w->pitch};
}

/* Where to write a tile that tile_store will bring to its place. `low` never comes with accumulation. */
INLINE struct rows tile_place(const struct work *w, const unic_place *a, const struct tile *t, float *buffer, bool accumulate, bool low) {
  if (low) return (struct rows){(const uint16_t *)a->data + where(a, t), a->pixel};
  if (a->dtype == UNIC_F32 && t->width % LANES == 0 && !accumulate) return (struct rows){(const float *)a->data + where(a, t), a->pixel};
  return (struct rows){buffer, w->pitch};
}
INLINE void tile_store(const struct work *w, const unic_place *a, const struct tile *t, const float *buffer, struct rows from, bool accumulate) {
  if (from.p != buffer) return;
  int64_t at = where(a, t);
  for (int r = 0; r < t->rows; r++) unic_row_put(a->data, a->dtype, at + r * a->pixel, t->width, buffer + r * w->pitch, accumulate);
}

INLINE vf row_get(struct rows x, int r, int c, bool low) {
  int64_t at = r * x.stride + c;
  return low ? vf_of_bf16((const uint16_t *)x.p + at) : vf_load((const float *)x.p + at);
}
INLINE void row_set(struct rows x, int r, int c, vf v, bool low) {
  int64_t at = r * x.stride + c;
  if (low) vf_store_bf16((uint16_t *)(uintptr_t)x.p + at, v);
  else vf_store((float *)(uintptr_t)x.p + at, v);
}

/* Per-channel results of a vector. A block may be narrower than a vector; the next block's channels are not this tile's to write. */
INLINE void channels_put(const struct work *w, const struct tile *t, float *p, int c, vf v) {
  if (t->width - c >= LANES || w->rows_first) vf_store(p + c, v);
  else for (int l = 0; l < t->width - c; l++) p[c + l] = v[l];
}
INLINE void bits_put(const struct work *w, const struct tile *t, int64_t group, int c, vi v) {
  uint8_t *p = w->mask + group * w->padded + t->channel + c;
  if (t->width - c >= LANES || w->rows_first) vi_store_bytes(p, v);
  else for (int l = 0; l < t->width - c; l++) p[l] = (uint8_t)v[l];
}

typedef void visitor(const struct work *w, const struct tile *t, float *partial, bool first);

/* Every tile of the groups begin .. end-1 and the channels of this pass. */
INLINE void each_tile(const struct work *w, int64_t begin, int64_t end, visitor *visit) {
  if (w->back) {   /* only passes without partial results */
    int64_t mirrored = w->all - end;
    end = w->all - begin;
    begin = mirrored;
  }
  float *partial = w->partial ? w->partial + begin / w->chunk * 2 * w->padded : NULL;
  int64_t tiles = (w->to - w->from + w->width - 1) / w->width;
  for (int64_t g = begin; g < end;) {
    int64_t plane = g / w->groups, last = (plane + 1) * w->groups, n = (last < end ? last : end) - g, steps = (n + w->span - 1) / w->span;
    for (int64_t i = 0; i < steps * tiles; i++) {
      int64_t step = w->rows_first ? i / tiles : i % steps, channel = w->from + (w->rows_first ? i % tiles : i / steps) * w->width;
      int64_t group = g + step * w->span, stop = group + w->span < g + n ? group + w->span : g + n;
      struct tile t = {.plane = plane, .pixel = (group - plane * w->groups) * ROWS, .channel = channel, .group = group};
      int64_t rows = (stop - group) * ROWS;
      t.rows = (int)(w->pixels - t.pixel < rows ? w->pixels - t.pixel : rows);
      t.width = (int)(w->to - channel < w->width ? w->to - channel : w->width);
      visit(w, &t, partial, group == begin);
    }
    g += n;
  }
}

/* Rows in the groups begin .. end-1. */
static inline int64_t rows_of(const struct work *w, int64_t begin, int64_t end) {
  int64_t first = begin / w->groups, last = end / w->groups;
  return (last * w->pixels + (end - last * w->groups) * ROWS) - (first * w->pixels + (begin - first * w->groups) * ROWS);
}

/* Loops over the vectors of a tile go by strips of K side by side: four in channels-last memory, so that rows are read in whole cache lines and sums
 * do not wait for each other; one in a block of channels. Everything is unrolled over k, which is a constant. */
enum { STRIP = 4 };
#define EACH(k) _Pragma("GCC unroll 4") for (int k = 0; k < K; k++)

/* `strip` for the columns of a tile. */
#define EACH_STRIP(t, strip, ...) \
  do { \
    int c_ = 0; \
    for (; c_ + STRIP * LANES <= (t)->width; c_ += STRIP * LANES) strip(STRIP, c_, __VA_ARGS__); \
    for (; c_ < (t)->width; c_ += LANES) strip(1, c_, __VA_ARGS__); \
  } while (0)

/* Rows q + r of a tile, eight at a time as a mask's byte holds them; unrolled where that is what lets them overlap. */
#define EACH_GROUP(t, BEFORE, AFTER, ...) \
  for (int q = 0; q < (t)->rows; q += ROWS) { \
    BEFORE; \
    if (K == 1 && q + ROWS <= (t)->rows) { \
      _Pragma("GCC unroll 8") \
      for (int r = 0; r < ROWS; r++) { __VA_ARGS__ } \
    } else { \
      for (int r = 0, n = (t)->rows - q < ROWS ? (t)->rows - q : ROWS; r < n; r++) { __VA_ARGS__ } \
    } \
    AFTER; \
  }

/* K vectors into a row. past: past the caches, for what is too large to be found in them; in whole cache lines, so bf16 goes by pairs. */
INLINE void strip_set(const int K, struct rows x, int r, int c, const vf *v, bool low, bool past) {
  int64_t at = r * x.stride + c;
  if (past && low && K == STRIP) {
    vf_store_past_bf16((uint16_t *)(uintptr_t)x.p + at, v[0], v[1]);
    vf_store_past_bf16((uint16_t *)(uintptr_t)x.p + at + 2 * LANES, v[2], v[3]);
  } else if (past && !low) {
    EACH(k) vf_store_past((float *)(uintptr_t)x.p + at + k * LANES, v[k]);
  } else {
    EACH(k) row_set(x, r, c + k * LANES, v[k], low);
  }
}

/* Forward: mean and sum of squares about it of the chunk so far, joined with those of the tile. The first tile is gone over twice, in L1; the others
 * once, with sums of x less the mean so far: what that rounds is small beside what the distance of the two means itself adds to the sum of squares. */
INLINE void moments_strip(const int K, int c, const struct work *w, const struct tile *t, struct rows x, float *mean, float *m2, float one, float part, float cross, bool first, bool low) {
  vf from[STRIP], sum[STRIP], squares[STRIP], odd = {0}, odd_squares = {0};
  EACH(k) from[k] = first ? (vf){0} : vf_load(mean + c + k * LANES);
  for (int pass = first ? 0 : 1; pass < 2; pass++) {
    EACH(k) sum[k] = squares[k] = (vf){0};
    odd = odd_squares = (vf){0};
    int r = 0;
    if (K == 1)   /* a lone sum would wait for its own additions */
      for (; r + 4 <= t->rows; r += 4) {
        vf d0 = row_get(x, r, c, low) - from[0], d1 = row_get(x, r + 1, c, low) - from[0], d2 = row_get(x, r + 2, c, low) - from[0], d3 = row_get(x, r + 3, c, low) - from[0];
        sum[0] += d0 + d2;
        odd += d1 + d3;
        squares[0] += d0 * d0;
        odd_squares += d1 * d1;
        squares[0] += d2 * d2;
        odd_squares += d3 * d3;
      }
    for (; r < t->rows; r++)
      EACH(k) {
        vf d = row_get(x, r, c + k * LANES, low) - from[k];
        sum[k] += d;
        squares[k] += d * d;
      }
    if (K == 1) {
      sum[0] += odd;
      squares[0] += odd_squares;
    }
    if (pass == 0) EACH(k) from[k] = sum[k] * one;
  }
  EACH(k) {
    int at = c + k * LANES;
    vf d = sum[k] * one;
    squares[k] -= sum[k] * d;
    if (first) {
      sum[k] = from[k] + d;
    } else {
      sum[k] = from[k] + d * part;
      squares[k] = vf_load(m2 + at) + squares[k] + d * d * cross;
    }
    channels_put(w, t, mean, at, sum[k]);
    channels_put(w, t, m2, at, squares[k]);
  }
}

INLINE void moments(const struct work *w, const struct tile *t, float *partial, bool first, bool low) {
  tile_buffer buffer;
  struct rows x = tile_load(w, &w->x, t, buffer, low);
  float *mean = partial + t->channel, *m2 = mean + w->padded, rows = (float)t->rows;
  float before = first ? 0 : (float)rows_of(w, t->group / w->chunk * w->chunk, t->group), part = rows / (before + rows), cross = before * part;
  EACH_STRIP(t, moments_strip, w, t, x, mean, m2, 1.0f / rows, part, cross, first, low);
}

INLINE void visit_moments(const struct work *w, const struct tile *t, float *partial, bool first) {
  if (w->low && t->width % LANES == 0) moments(w, t, partial, first, true);
  else moments(w, t, partial, first, false);
}

UNIC_LOOP(batch_norm_moments) {
  const struct work *w = context;
  each_tile(w, begin, end, visit_moments);
}

/* y, and the mask where backward needs one. NaN passes the ReLU, as everywhere. */
INLINE void normalise_strip(const int K, int c, const struct work *w, const struct tile *t, struct rows x, struct rows e, struct rows y, bool residual, bool relu, bool masked, bool low, bool past) {
  vf m[STRIP], s[STRIP], b[STRIP];
  vi bits[STRIP];
  EACH(k) {
    m[k] = vf_load(w->mean + t->channel + c + k * LANES);
    s[k] = vf_load(w->scale + t->channel + c + k * LANES);
    b[k] = vf_load(w->bias + t->channel + c + k * LANES);
  }
  EACH_GROUP(t, EACH(k) bits[k] = (vi){0}, if (masked) EACH(k) bits_put(w, t, t->group + q / ROWS, c + k * LANES, bits[k]),
    vf v[STRIP];
    EACH(k) {
      vf z = (row_get(x, q + r, c + k * LANES, low) - m[k]) * s[k] + b[k];
      if (residual) z += row_get(e, q + r, c + k * LANES, low);
      if (masked) vi_set_bit(&bits[k], z, r);
      v[k] = relu ? vf_relu(z, z) : z;
    }
    strip_set(K, y, q + r, c, v, low, past);)
}

INLINE void normalise(const struct work *w, const struct tile *t, bool residual, bool relu, bool masked, bool low, bool past) {
  tile_buffer x_buffer, residual_buffer, y_buffer;
  struct rows x = tile_load(w, &w->x, t, x_buffer, low), e = {0}, y = tile_place(w, &w->y, t, y_buffer, false, low);
  if (residual) e = tile_load(w, &w->residual, t, residual_buffer, low);
  EACH_STRIP(t, normalise_strip, w, t, x, e, y, residual, relu, masked, low, past);
  if (!low) tile_store(w, &w->y, t, y_buffer, y, false);
}

INLINE void choose_normalise(const struct work *w, const struct tile *t, bool low, bool past) {
  bool residual = w->residual.data != NULL;
  if (!residual && !w->relu) normalise(w, t, false, false, false, low, past);
  else if (!residual) normalise(w, t, false, true, false, low, past);
  else if (!w->relu) normalise(w, t, true, false, false, low, past);
  else if (!w->masked) normalise(w, t, true, true, false, low, past);
  else normalise(w, t, true, true, true, low, past);
}

INLINE void visit_normalise(const struct work *w, const struct tile *t, float *partial, bool first) {
  if (w->low && t->width % LANES == 0 && w->past) choose_normalise(w, t, true, true);
  else if (w->low && t->width % LANES == 0) choose_normalise(w, t, true, false);
  else if (w->past) choose_normalise(w, t, false, true);
  else choose_normalise(w, t, false, false);
}

UNIC_LOOP(batch_norm_normalise) {
  const struct work *w = context;
  each_tile(w, begin, end, visit_normalise);
  if (w->past) vf_store_past_end();
}

/* The operands of the backward's two passes over a tile. */
struct slopes { struct rows x, dy, dy2, out; };

/* g of one vector: the addends of dy where the ReLU let through. x centred is handed in because both passes need it. */
INLINE vf gate(vf g, vf centred, vf s, vf b, vi bits, int r, bool relu, bool masked) {
  if (masked) return vf_keep_bit(bits, r, g);
  if (relu) return vf_relu(centred * s + b, g);
  return g;
}

/* Backward sums of g and g (x - mean); dresidual on the way. */
INLINE void sums_strip(const int K, int c, const struct work *w, const struct tile *t, struct slopes o, float *s1, float *s2, bool first, bool two, bool relu, bool masked, bool residual, bool low) {
  vf m[STRIP], s[STRIP], b[STRIP], a1[STRIP], a2[STRIP], odd1 = {0}, odd2 = {0};
  vi bits[STRIP];
  EACH(k) {
    m[k] = vf_load(w->mean + t->channel + c + k * LANES);
    s[k] = vf_load(w->scale + t->channel + c + k * LANES);
    b[k] = vf_load(w->bias + t->channel + c + k * LANES);
    a1[k] = a2[k] = (vf){0};
    bits[k] = (vi){0};
  }
  EACH_GROUP(t, if (masked) EACH(k) bits[k] = vi_of_bytes(w->mask + (t->group + q / ROWS) * w->padded + t->channel + c + k * LANES), (void)0,
    EACH(k) {
      int at = c + k * LANES;
      vf centred = row_get(o.x, q + r, at, low) - m[k], g = row_get(o.dy, q + r, at, low);
      if (two) g += row_get(o.dy2, q + r, at, low);
      g = gate(g, centred, s[k], b[k], bits[k], r, relu, masked);
      if (residual) row_set(o.out, q + r, at, g, low);
      if (K == 1 && r & 1) {
        odd1 += g;
        odd2 += g * centred;
      } else {
        a1[k] += g;
        a2[k] += g * centred;
      }
    })
  if (K == 1) {
    a1[0] += odd1;
    a2[0] += odd2;
  }
  EACH(k) {
    int at = c + k * LANES;
    if (!first) {
      a1[k] += vf_load(s1 + at);
      a2[k] += vf_load(s2 + at);
    }
    channels_put(w, t, s1, at, a1[k]);
    channels_put(w, t, s2, at, a2[k]);
  }
}

INLINE void gradient_sums(const struct work *w, const struct tile *t, float *partial, bool first, bool two, bool relu, bool masked, bool residual, bool low) {
  tile_buffer x_buffer, dy_buffer, dy2_buffer, out_buffer;
  struct slopes o = {tile_load(w, &w->x, t, x_buffer, low), tile_load(w, &w->dy, t, dy_buffer, low), {0}, {0}};
  if (two) o.dy2 = tile_load(w, &w->dy2, t, dy2_buffer, low);
  if (residual) o.out = tile_place(w, &w->dresidual, t, out_buffer, w->accumulate_residual, low);
  float *s1 = partial + t->channel, *s2 = s1 + w->padded;
  EACH_STRIP(t, sums_strip, w, t, o, s1, s2, first, two, relu, masked, residual, low);
  if (residual && !low) tile_store(w, &w->dresidual, t, out_buffer, o.out, w->accumulate_residual);
}

INLINE void choose_gradient_sums(const struct work *w, const struct tile *t, float *partial, bool first, bool low) {
  bool two = w->dy2.data != NULL, residual = w->dresidual.data != NULL;
  if (!w->relu && !residual && !two) gradient_sums(w, t, partial, first, false, false, false, false, low);
  else if (w->relu && !w->masked && !two && !residual) gradient_sums(w, t, partial, first, false, true, false, false, low);
  else if (w->masked && residual && two) gradient_sums(w, t, partial, first, true, true, true, true, low);
  else if (w->masked && residual) gradient_sums(w, t, partial, first, false, true, true, true, low);
  else gradient_sums(w, t, partial, first, two, w->relu, w->masked, residual, low);
}

INLINE void visit_gradient_sums(const struct work *w, const struct tile *t, float *partial, bool first) {
  if (w->low && t->width % LANES == 0 && !(w->dresidual.data && w->accumulate_residual)) choose_gradient_sums(w, t, partial, first, true);
  else choose_gradient_sums(w, t, partial, first, false);
}

UNIC_LOOP(batch_norm_gradient_sums) {
  const struct work *w = context;
  each_tile(w, begin, end, visit_gradient_sums);
}

INLINE void input_strip(const int K, int c, const struct work *w, const struct tile *t, struct slopes o, bool two, bool relu, bool masked, bool low, bool past) {
  vf m[STRIP], s[STRIP], b[STRIP], m1[STRIP], m2[STRIP];
  vi bits[STRIP];
  EACH(k) {
    int at = t->channel + c + k * LANES;
    m[k] = vf_load(w->mean + at);
    s[k] = vf_load(w->scale + at);
    b[k] = vf_load(w->bias + at);
    m1[k] = vf_load(w->mean_g + at) * s[k];
    m2[k] = vf_load(w->mean_gx + at) * s[k];
    bits[k] = (vi){0};
  }
  EACH_GROUP(t, if (masked) EACH(k) bits[k] = vi_of_bytes(w->mask + (t->group + q / ROWS) * w->padded + t->channel + c + k * LANES), (void)0,
    vf v[STRIP];
    EACH(k) {
      int at = c + k * LANES;
      vf centred = row_get(o.x, q + r, at, low) - m[k], g = row_get(o.dy, q + r, at, low);
      if (two) g += row_get(o.dy2, q + r, at, low);
      g = gate(g, centred, s[k], b[k], bits[k], r, relu, masked);
      v[k] = g * s[k] - m1[k] - centred * m2[k];
    }
    strip_set(K, o.out, q + r, c, v, low, past);)
}

INLINE void input_gradient(const struct work *w, const struct tile *t, bool two, bool relu, bool masked, bool low, bool past) {
  tile_buffer x_buffer, dy_buffer, dy2_buffer, out_buffer;
  struct slopes o = {tile_load(w, &w->x, t, x_buffer, low), tile_load(w, &w->dy, t, dy_buffer, low), {0}, tile_place(w, &w->dx, t, out_buffer, w->accumulate, low)};
  if (two) o.dy2 = tile_load(w, &w->dy2, t, dy2_buffer, low);
  EACH_STRIP(t, input_strip, w, t, o, two, relu, masked, low, past);
  if (!low) tile_store(w, &w->dx, t, out_buffer, o.out, w->accumulate);
}

INLINE void choose_input_gradient(const struct work *w, const struct tile *t, bool low, bool past) {
  bool two = w->dy2.data != NULL;
  if (!w->relu && !two) input_gradient(w, t, false, false, false, low, past);
  else if (w->relu && !w->masked && !two) input_gradient(w, t, false, true, false, low, past);
  else if (w->masked && !two) input_gradient(w, t, false, true, true, low, past);
  else input_gradient(w, t, two, w->relu, w->masked, low, past);
}

INLINE void visit_input_gradient(const struct work *w, const struct tile *t, float *partial, bool first) {
  if (w->low && t->width % LANES == 0 && w->past) choose_input_gradient(w, t, true, true);
  else if (w->low && t->width % LANES == 0 && !w->accumulate) choose_input_gradient(w, t, true, false);
  else if (w->past) choose_input_gradient(w, t, false, true);
  else choose_input_gradient(w, t, false, false);
}

UNIC_LOOP(batch_norm_input_gradient) {
  const struct work *w = context;
  each_tile(w, begin, end, visit_input_gradient);
  if (w->past) vf_store_past_end();
}

/* Join the chunks' partial results of this pass's channels begin .. end-1 into joined[0] and joined[1]: mean and biased variance, or the two sums. */
UNIC_LOOP(batch_norm_join) {
  const struct work *w = context;
  double a[PAD], b[PAD];
  for (int64_t from = w->from + begin; from < w->from + end; from += PAD) {
    for (int i = 0; i < PAD; i++) a[i] = b[i] = 0;
    double count = 0;
    for (int64_t g = 0; g < w->all; g += w->chunk) {
      const float *restrict p = w->partial + g / w->chunk * 2 * w->padded + from, *restrict q = p + w->padded;
      if (w->backward) {
        for (int i = 0; i < PAD; i++) { a[i] += (double)p[i]; b[i] += (double)q[i]; }
        continue;
      }
      double n = (double)rows_of(w, g, g + w->chunk < w->all ? g + w->chunk : w->all), total = count + n, part = n / total, cross = count * part;
      for (int i = 0; i < PAD; i++) {
        double d = (double)p[i] - a[i];
        a[i] += d * part;
        b[i] += (double)q[i] + d * d * cross;
      }
      count = total;
    }
    for (int i = 0; i < PAD; i++) {
      w->joined[from + i] = (float)a[i];
      w->joined[w->padded + from + i] = (float)(w->backward ? b[i] : b[i] / w->rows);
    }
  }
}

#else

UNIC_LOOP_TABLE(batch_norm_moments);
UNIC_LOOP_TABLE(batch_norm_normalise);
UNIC_LOOP_TABLE(batch_norm_gradient_sums);
UNIC_LOOP_TABLE(batch_norm_input_gradient);
UNIC_LOOP_TABLE(batch_norm_join);

/* ---------------------------------------------------------------- shapes */

static int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Blocks of 8 may be narrower than a vector, which then reads into the next block's channels or, after the last one, into the padding. */
static int64_t padded_channels(int64_t channels, bool blocked) { return up(channels, PAD) + (blocked ? PAD : 0); }

/* Planes, pixels of a plane, groups of rows. Channels-last memory is one plane of all rows; blocked memory has a plane per image. */
static void rows_shape(int64_t n, int64_t pixels, bool blocked, int64_t *planes, int64_t *per_plane, int64_t *groups) {
  *planes = blocked ? n : 1;
  *per_plane = blocked ? pixels : n * pixels;
  *groups = (*per_plane + ROWS - 1) / ROWS;
}

static unic_status batch_norm_shape(unic_call *c) {
  const unic_tensor *x = c->in[X], *residual = c->in[RESIDUAL];
  char text[256], want[256];
  if (x->ndim != 2 && x->ndim != 4) return unic_fail_arg(c, X, "%s was given, expected [N, C] or [N, C, H, W]", unic_tensor_describe(x, text, sizeof text));
  int64_t channels = x->shape[1], pixels = x->ndim == 4 ? x->shape[2] * x->shape[3] : 1;
  for (int i = WEIGHT; i <= RUNNING_VAR; i++) {
    const unic_tensor *t = c->in[i];
    if (t && t->shape[0] != channels)
      return unic_fail_arg(c, i, "%s was given, expected [%lld], one value per channel of 'x'", unic_tensor_describe(t, text, sizeof text), (long long)channels);
  }
  if (residual && (residual->ndim != x->ndim || memcmp(residual->shape, x->shape, x->ndim * sizeof *x->shape) != 0))
    return unic_fail_arg(c, RESIDUAL, "%s was given, expected the shape of 'x', %s", unic_tensor_describe(residual, text, sizeof text),
                         unic_shape_describe(x->ndim, x->shape, want, sizeof want));
  bool training = c->arg[TRAINING].integer;
  if (training && x->shape[0] * pixels == 1)
    return unic_fail_arg(c, X, "%s was given, expected more than 1 value per channel when training", unic_tensor_describe(x, text, sizeof text));
  for (int i = RUNNING_MEAN; i <= RUNNING_VAR; i++) {
    if (!training && !c->in[i]) return unic_fail_arg(c, i, "it is missing, expected the running statistics when training = false");
    if (training && !c->in[i] && c->in[RUNNING_MEAN + RUNNING_VAR - i]) return unic_fail_arg(c, i, "it is missing, expected both running statistics or neither");
  }
  if (!(c->arg[EPS].number >= 0)) return unic_fail_arg(c, EPS, "%g was given, expected at least 0", c->arg[EPS].number);
  if (!(c->arg[MOMENTUM].number >= 0 && c->arg[MOMENTUM].number <= 1)) return unic_fail_arg(c, MOMENTUM, "%g was given, expected 0 to 1", c->arg[MOMENTUM].number);

  int block = x->block ? x->block : c->type == UNIC_F32 && x->ndim == 4 ? unic_channels_block(channels, pixels) : 0;
  unic_dtype wide = unic_dtype_wide(c->type);
  unic_out(c, Y, c->type, x->ndim, x->shape);
  if (x->ndim == 4) c->out[Y].layout = block ? UNIC_BLOCKED : UNIC_CHANNELS_LAST;
  c->out[Y].block = (uint8_t)block;
  unic_out(c, MEAN, wide, 1, &channels);
  unic_out(c, RSTD, wide, 1, &channels);
  bool blocked = block || (residual && residual->block);
  int64_t mask[2] = {0, padded_channels(channels, blocked)}, planes, per_plane, groups;
  rows_shape(x->shape[0], pixels, blocked, &planes, &per_plane, &groups);
  if (c->type == UNIC_F64) {   /* the plain form keeps a byte per element */
    mask[0] = c->arg[RELU].integer ? x->shape[0] * pixels : 0;
    mask[1] = channels;
  } else if (c->arg[RELU].integer && residual) {
    mask[0] = planes * groups;
  }
  unic_out(c, MASK, UNIC_U8, 2, mask);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- plan */

/* Scratch: floats. [scale][bias][mean][mean_g][mean_gx][joined 2] of `padded` each, then the chunks' partial results. */
enum { ARRAYS = 7 };

/* Bytes of activations that a second pass finds in the last-level cache: in blocked memory, whose blocks of channels lie apart, the two passes of
 * the forward and of the backward are made over so many channels at a time. */
enum { CACHED = 6 << 20, PAST = 12 << 20 };

struct plan { int64_t planes, pixels, groups, all, chunk, chunks, padded, width, pass; bool blocked; };

static void describe(const unic_kernel *k, struct plan *p) {
  const unic_view *x = &k->in[X];
  int64_t channels = x->shape[1];
  const int blocks[] = {x->block, k->out[Y].block, k->in[RESIDUAL].present ? k->in[RESIDUAL].block : 0};
  int block = 0;
  for (int i = 0; i < 3; i++) if (blocks[i] && (!block || blocks[i] < block)) block = blocks[i];
  p->blocked = block > 0;
  rows_shape(x->shape[0], x->ndim == 4 ? x->shape[2] * x->shape[3] : 1, p->blocked, &p->planes, &p->pixels, &p->groups);
  p->all = p->planes * p->groups;
  p->padded = padded_channels(channels, p->blocked);
  p->width = block ? block : unic_channels_width(x);
  /* Channels-last about 128 KB of f32 per chunk, so that a chunk's partial results are small beside it; at most 1024 rows, which f32 sums of
   * gradients bear. Blocked, where a chunk is a few channels' only, a number of chunks that occupies many threads. */
  p->chunk = p->blocked ? p->all / 128 : 4096 / (channels > 0 ? channels : 1);
  p->chunk = p->chunk < 4 ? 4 : p->chunk > 128 ? 128 : p->chunk;
  p->chunks = (p->all + p->chunk - 1) / p->chunk;
  /* Channels of a pass: whole blocks, or of channels-last memory pieces of two cache lines. */
  int64_t step = p->blocked ? PAD : 64, bytes = unic_dtype_size(x->dtype) * p->planes * p->pixels * (k->backward ? k->dout2[Y].data ? 3 : 2 : 1);
  p->pass = (p->blocked ? CACHED : 2 * CACHED) / (bytes > 0 ? bytes : 1) / step * step;
  if (p->pass < step) p->pass = step;
}

static unic_status batch_norm_plan(const unic_kernel *k, unic_plan *out) {
  if (k->type == UNIC_F64) return UNIC_OK;
  struct plan *p = unic_new(sizeof *p);
  if (!p) return UNIC_MEMORY;
  describe(k, p);
  out->data = p;
  out->free = unic_delete;
  out->scratch = (ARRAYS + 2 * p->chunks) * p->padded * (int64_t)sizeof(float);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- fast forms */

static struct work work_of(const unic_kernel *k, const struct plan *p) {
  return (struct work){.channels = k->in[X].shape[1], .padded = p->padded, .pixels = p->pixels, .groups = p->groups, .all = p->all, .chunk = p->chunk,
                       .width = p->width, .span = p->blocked ? SPAN : k->type == UNIC_F16 ? 1 : TALL, .pitch = p->blocked ? PAD : UNIC_CHANNELS, .rows_first = !p->blocked,
                       .to = k->in[X].shape[1], .low = k->type == UNIC_BF16, .relu = k->arg[RELU].integer, .x = unic_place_of(&k->in[X], p->pixels),
                       .rows = (double)(p->planes * p->pixels)};
}

/* Whether a result is larger than what the next op could find in a cache, and its rows are whole cache lines. */
static bool past_caches(const unic_place *y, const struct plan *p) {
  int64_t size = unic_dtype_size((unic_dtype)y->dtype);
  if (!(y->dtype == UNIC_F32 ? p->blocked : y->dtype == UNIC_BF16 && !p->blocked)) return false;
  return (uintptr_t)y->data % 64 == 0 && y->block * size % 64 == 0 && size * p->planes * y->plane > PAST;
}

/* The channels that are dealt with next, from `from` on. */
static void channels_of_pass(struct work *w, const struct plan *p, int64_t channels, int64_t from) {
  w->from = from;
  w->to = from + p->pass < channels ? from + p->pass : channels;
}

static void fill(float *to, const void *from, bool present, float otherwise, int64_t n, int64_t padded) {
  for (int64_t c = 0; c < padded; c++) to[c] = c < n && present ? ((const float *)from)[c] : otherwise;
}

static unic_status batch_norm_forward(const unic_kernel *k) {
  const struct plan *p = k->plan;
  int64_t channels = k->in[X].shape[1], padded = p->padded;
  struct work w = work_of(k, p);
  float *scale = k->scratch, *bias = scale + padded, *mean = bias + padded, *joined = mean + 3 * padded;
  float *mean_out = k->out[MEAN].data, *rstd_out = k->out[RSTD].data;
  const float *weight = k->in[WEIGHT].data;
  float *running_mean = k->in[RUNNING_MEAN].data, *running_var = k->in[RUNNING_VAR].data;
  bool training = k->arg[TRAINING].integer;
  double eps = k->arg[EPS].number, momentum = k->arg[MOMENTUM].number, unbiased = w.rows > 1 ? w.rows / (w.rows - 1) : 1;
  for (int64_t c = 0; c < 2 * padded; c++) joined[c] = 0;
  if (!training) {
    fill(joined, running_mean, true, 0, channels, padded);
    fill(joined + padded, running_var, true, 0, channels, padded);
  }
  fill(bias, k->in[BIAS].data, k->in[BIAS].present, 0, channels, padded);
  bool some = k->in[X].numel > 0;
  float *partial = joined + 2 * padded;
  w.joined = joined;
  w.mean = mean;
  w.scale = scale;
  w.bias = bias;
  w.y = unic_place_of(&k->out[Y], p->pixels);
  if (k->in[RESIDUAL].present) w.residual = unic_place_of(&k->in[RESIDUAL], p->pixels);
  w.mask = k->out[MASK].data;
  w.masked = w.relu && k->in[RESIDUAL].present && k->grad;
  for (int64_t from = 0; from < channels; from += p->pass) {
    channels_of_pass(&w, p, channels, from);
    if (training && some) {
      w.partial = partial;
      UNIC_RUN(batch_norm_moments, p->all, p->chunk, &w);
      UNIC_RUN(batch_norm_join, up(w.to - from, PAD), 64, &w);
      w.partial = NULL;
    }
    int64_t last = w.to == channels ? padded : w.to;
    for (int64_t c = from; c < last; c++) {
      float rstd = (float)(1 / sqrt((double)joined[padded + c] + eps));
      mean[c] = joined[c];
      scale[c] = c < channels ? (weight ? weight[c] * rstd : rstd) : 0;
      if (c < channels && mean_out) mean_out[c] = mean[c];
      if (c < channels && rstd_out) rstd_out[c] = rstd;
    }
    w.back = training && !p->blocked;
    w.past = past_caches(&w.y, p);
    if (some) UNIC_RUN(batch_norm_normalise, p->all, p->chunk, &w);
    w.back = false;
  }
  for (int64_t c = 0; c < channels && training && some && k->in[RUNNING_MEAN].present; c++) {
    running_mean[c] = (float)((1 - momentum) * (double)running_mean[c] + momentum * (double)joined[c]);
    running_var[c] = (float)((1 - momentum) * (double)running_var[c] + momentum * unbiased * (double)joined[padded + c]);
  }
  return UNIC_OK;
}

/* Mean, scale and bias of every channel from what the forward saved. */
static void set_norm(const unic_kernel *k, struct work *w, float *scale, float *bias, float *mean, int64_t channels, int64_t padded) {
  const float *weight = k->in[WEIGHT].data, *rstd = k->out[RSTD].data;
  for (int64_t c = 0; c < padded; c++) {
    mean[c] = c < channels ? ((const float *)k->out[MEAN].data)[c] : 0;
    scale[c] = c < channels ? (weight ? weight[c] * rstd[c] : rstd[c]) : 0;
  }
  fill(bias, k->in[BIAS].data, k->in[BIAS].present, 0, channels, padded);
  w->mean = mean;
  w->scale = scale;
  w->bias = bias;
}

/* y again from the saved mean and rstd: the last pass of the forward. */
static unic_status batch_norm_remake(const unic_kernel *k) {
  const struct plan *p = k->plan;
  int64_t channels = k->in[X].shape[1], padded = p->padded;
  struct work w = work_of(k, p);
  float *scale = k->scratch, *bias = scale + padded, *mean = bias + padded;
  set_norm(k, &w, scale, bias, mean, channels, padded);
  w.y = unic_place_of(&k->out[Y], p->pixels);
  if (k->in[RESIDUAL].present) w.residual = unic_place_of(&k->in[RESIDUAL], p->pixels);
  if (k->in[X].numel > 0) UNIC_RUN(batch_norm_normalise, p->all, p->chunk, &w);
  return UNIC_OK;
}

static unic_status batch_norm_backward(const unic_kernel *k) {
  const struct plan *p = k->plan;
  int64_t channels = k->in[X].shape[1], padded = p->padded;
  struct work w = work_of(k, p);
  float *scale = k->scratch, *bias = scale + padded, *mean = bias + padded, *mean_g = mean + padded, *mean_gx = mean_g + padded, *joined = mean_gx + padded;
  const float *rstd = k->out[RSTD].data;
  float *dweight = k->din[WEIGHT].data, *dbias = k->din[BIAS].data;
  bool training = k->arg[TRAINING].integer, want_x = k->din[X].present, want_residual = k->din[RESIDUAL].present;
  bool some = k->in[X].numel > 0 && k->dout[Y].data;
  set_norm(k, &w, scale, bias, mean, channels, padded);
  for (int64_t c = 0; c < padded; c++) mean_g[c] = mean_gx[c] = joined[c] = joined[padded + c] = 0;
  w.mean_g = mean_g;
  w.mean_gx = mean_gx;
  w.backward = true;
  if (some) {
    w.dy = unic_place_of(&k->dout[Y], p->pixels);
    if (k->dout2[Y].data) w.dy2 = unic_place_of(&k->dout2[Y], p->pixels);
    w.mask = k->out[MASK].data;
    w.masked = w.relu && k->in[RESIDUAL].present;
  }
  const bool sums = some && (dweight || dbias || want_residual || (training && want_x));
  const struct work first = w;   /* what the first pass over some channels starts from */
  for (int64_t from = 0; from < channels; from += p->pass) {
    w = first;
    channels_of_pass(&w, p, channels, from);
    w.joined = joined;
    if (sums) {
      w.partial = joined + 2 * padded;
      if (want_residual) w.dresidual = unic_place_of(&k->din[RESIDUAL], p->pixels);
      w.accumulate_residual = k->accumulate[RESIDUAL];
      UNIC_RUN(batch_norm_gradient_sums, p->all, p->chunk, &w);
      UNIC_RUN(batch_norm_join, up(w.to - from, PAD), 64, &w);
      w.partial = NULL;
      if (want_residual && (k->din[RESIDUAL].dtype == UNIC_F32 || !w.dy2.data) && !k->accumulate[RESIDUAL]) {
        /* dresidual is g: the second pass reads it instead of the addends and the mask (so that it may lie over one of them, and dx over the other;
           the sum of two in a half type is rounded there, the addends are read again and must still be there). */
        w.dy = w.dresidual;
        w.dy2.data = NULL;
        w.relu = w.masked = false;
      }
      w.dresidual.data = NULL;
    }
    for (int64_t c = from; c < w.to; c++) {
      float sum_g = joined[c], sum_gx = joined[padded + c];
      if (dbias) dbias[c] = (k->accumulate[BIAS] ? dbias[c] : 0) + sum_g;
      if (dweight) dweight[c] = (k->accumulate[WEIGHT] ? dweight[c] : 0) + rstd[c] * sum_gx;
      if (training && some) {
        mean_g[c] = (float)((double)sum_g / w.rows);
        mean_gx[c] = (float)((double)sum_gx / w.rows * (double)rstd[c] * (double)rstd[c]);
      }
    }
    if (want_x && some) {
      w.dx = unic_place_of(&k->din[X], p->pixels);
      w.accumulate = k->accumulate[X];
      w.back = sums && !p->blocked;
      w.past = !w.accumulate && past_caches(&w.dx, p);
      UNIC_RUN(batch_norm_input_gradient, p->all, p->chunk, &w);
    }
  }
  for (int i = X; i <= RESIDUAL && !some; i += RESIDUAL - X)
    if (k->din[i].present && !k->accumulate[i]) memset(k->din[i].data, 0, (size_t)(k->din[i].numel * unic_dtype_size(k->type)));
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the f64 form */

static int64_t element(const unic_view *v, int64_t n, int64_t c, int64_t p) {
  int64_t at = n * v->stride[0] + c * v->stride[1];
  return v->ndim == 4 ? at + p / v->shape[3] * v->stride[2] + p % v->shape[3] * v->stride[3] : at;
}

static int64_t pixels_of(const unic_view *v) { return v->ndim == 4 ? v->shape[2] * v->shape[3] : 1; }

/* Value before the ReLU. */
static double before_relu(const unic_kernel *k, int64_t n, int64_t c, int64_t p, double mean, double rstd) {
  const double *w = k->in[WEIGHT].data, *b = k->in[BIAS].data;
  double z = (((const double *)k->in[X].data)[element(&k->in[X], n, c, p)] - mean) * rstd * (w ? w[c] : 1) + (b ? b[c] : 0);
  if (k->in[RESIDUAL].present) z += ((const double *)k->in[RESIDUAL].data)[element(&k->in[RESIDUAL], n, c, p)];
  return z;
}

static unic_status batch_norm_reference(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  int64_t images = x->shape[0], pixels = pixels_of(x), rows = images * pixels;
  double momentum = k->arg[MOMENTUM].number;
  for (int64_t c = 0; c < x->shape[1]; c++) {
    double mean = 0, var = 0, *running_mean = k->in[RUNNING_MEAN].data, *running_var = k->in[RUNNING_VAR].data;
    if (k->arg[TRAINING].integer) {
      for (int64_t i = 0; i < rows; i++) mean += ((const double *)x->data)[element(x, i / pixels, c, i % pixels)];
      mean = rows ? mean / (double)rows : 0;
      for (int64_t i = 0; i < rows; i++) {
        double d = ((const double *)x->data)[element(x, i / pixels, c, i % pixels)] - mean;
        var += d * d;
      }
      if (running_mean && rows) {
        running_mean[c] += momentum * (mean - running_mean[c]);
        running_var[c] += momentum * (var / (double)(rows > 1 ? rows - 1 : 1) - running_var[c]);
      }
      var = rows ? var / (double)rows : 0;
    } else {
      mean = running_mean[c];
      var = running_var[c];
    }
    double rstd = 1 / sqrt(var + k->arg[EPS].number);
    if (k->out[MEAN].data) ((double *)k->out[MEAN].data)[c] = mean;
    if (k->out[RSTD].data) ((double *)k->out[RSTD].data)[c] = rstd;
    for (int64_t i = 0; i < rows; i++) {
      double z = before_relu(k, i / pixels, c, i % pixels, mean, rstd);
      bool shut = k->arg[RELU].integer && z <= 0;
      ((double *)k->out[Y].data)[element(&k->out[Y], i / pixels, c, i % pixels)] = shut ? 0 : z;
      if (k->out[MASK].data && k->arg[RELU].integer) ((uint8_t *)k->out[MASK].data)[i * x->shape[1] + c] = !shut;
    }
  }
  return UNIC_OK;
}

static unic_status batch_norm_reference_remake(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  int64_t pixels = pixels_of(x), rows = x->shape[0] * pixels;
  for (int64_t c = 0; c < x->shape[1]; c++)
    for (int64_t i = 0; i < rows; i++) {
      double z = before_relu(k, i / pixels, c, i % pixels, ((const double *)k->out[MEAN].data)[c], ((const double *)k->out[RSTD].data)[c]);
      ((double *)k->out[Y].data)[element(&k->out[Y], i / pixels, c, i % pixels)] = k->arg[RELU].integer && z <= 0 ? 0 : z;
    }
  return UNIC_OK;
}

static unic_remake_price batch_norm_remakes(const unic_call *c, int j) {
  (void)c;
  return j == Y ? UNIC_REMAKE_CHEAP : UNIC_REMAKE_NEVER;
}

static unic_status batch_norm_reference_backward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *dy = &k->dout[Y], *dy2 = &k->dout2[Y];
  int64_t images = x->shape[0], pixels = pixels_of(x), rows = images * pixels;
  const double *weight = k->in[WEIGHT].data;
  const uint8_t *mask = k->arg[RELU].integer ? k->out[MASK].data : NULL;
  for (int64_t c = 0; c < x->shape[1]; c++) {
    double mean = ((const double *)k->out[MEAN].data)[c], rstd = ((const double *)k->out[RSTD].data)[c], sum = 0, sum_x = 0;
    for (int pass = 0; pass < 2; pass++) {
      for (int64_t i = 0; i < rows; i++) {
        int64_t n = i / pixels, q = i % pixels;
        double g = dy->data ? ((const double *)dy->data)[element(dy, n, c, q)] : 0;
        if (dy2->data) g += ((const double *)dy2->data)[element(dy2, n, c, q)];
        if (mask && !mask[i * x->shape[1] + c]) g = 0;
        double hat = (((const double *)x->data)[element(x, n, c, q)] - mean) * rstd;
        if (pass == 0) {
          sum += g;
          sum_x += g * hat;
          continue;
        }
        if (k->din[RESIDUAL].present) {
          double *to = (double *)k->din[RESIDUAL].data + element(&k->din[RESIDUAL], n, c, q);
          *to = (k->accumulate[RESIDUAL] ? *to : 0) + g;
        }
        if (k->din[X].present) {
          double *to = (double *)k->din[X].data + element(&k->din[X], n, c, q);
          double d = k->arg[TRAINING].integer ? g - sum / (double)rows - hat * sum_x / (double)rows : g;
          *to = (k->accumulate[X] ? *to : 0) + d * rstd * (weight ? weight[c] : 1);
        }
      }
    }
    double *dw = k->din[WEIGHT].data, *db = k->din[BIAS].data;
    if (dw) dw[c] = (k->accumulate[WEIGHT] ? dw[c] : 0) + sum_x;
    if (db) db[c] = (k->accumulate[BIAS] ? db[c] : 0) + sum;
  }
  return UNIC_OK;
}

static const unic_op op_batch_norm = {
  .name = "batch_norm",
  .signature = "x: tensor, weight: tensor<wide>?[C], bias: tensor<wide>?[C], running_mean!: tensor<wide>?[C], running_var!: tensor<wide>?[C], residual: tensor?, "
               "training: bool = true, momentum: number = 0.1, eps: number = 1e-5, relu: bool = false -> y, (mean, rstd, mask)",
  .doc = "Batch normalisation over everything but the channels, with an optional residual and ReLU in the same pass: relu?(norm(x) weight + bias + residual?).\n"
         "x: [N, C] or [N, C, H, W]\n"
         "weight: scale of each channel; 1 when absent\n"
         "bias: shift of each channel; 0 when absent\n"
         "running_mean: moved towards the batch's mean in training, used as the mean otherwise\n"
         "running_var: the same for the variance (unbiased)\n"
         "residual: added before the ReLU, of the shape of x\n"
         "training: normalise by the batch's statistics (true) or by the running ones\n"
         "momentum: how far the running statistics move, 0 to 1\n"
         "eps: added to the variance under the root\n"
         "relu: negative results become 0",
  .saves = "x weight bias mean rstd mask",
  .grads = "x:over weight:wide bias:wide residual:over_wide",
  .remakes = batch_norm_remakes,
  .again = "residual",
  .layouts = "x:channels_last|blocked residual:channels_last|blocked",
  .shape = batch_norm_shape,
  .plan = batch_norm_plan,
  .cpu = {batch_norm_forward, batch_norm_backward, batch_norm_reference, batch_norm_reference_backward, batch_norm_remake, batch_norm_reference_remake},
  .flags = UNIC_OP_METHOD,
  .addends = 2,
};

UNIC_OPS(batch_norm, &op_batch_norm);

#endif
