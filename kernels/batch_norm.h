/* The inner loops of batch_norm, in batch_norm.c: a tile is 8 to 64 rows of some channels, and every loop visits the tiles of its rows.
 *
 * Channels-last tiles are up to 32 whole rows of bf16 or 32 rows of 128 channels of anything else, gone through in strips of four vectors; blocked ones 64 rows
 * of one block. Operands are f32 or bf16 in place, anything else by way of buffers. A header of its own because the op's file would be too long. */
#ifndef UNIC_BATCH_NORM_H
#define UNIC_BATCH_NORM_H

#include "channels.h"

/* Rows of a group (and bits of a mask's byte); groups of a tile in blocked memory, where rows are short; floats of a tile. */
enum { ROWS = 8, SPAN = 8, TALL = 4, TILE = TALL * ROWS * UNIC_CHANNELS, PAD = UNIC_CHANNELS_PAD };

struct work {
  int64_t channels, padded;          /* C, and C rounded up to PAD */
  int64_t pixels, groups;            /* rows of a plane; groups of up to ROWS rows in it */
  int64_t all, chunk;                /* groups altogether and per chunk */
  int64_t width, span;               /* channels and groups of a tile */
  int64_t from, to;                  /* channels of this pass */
  bool back;                         /* the last rows first: those that the pass before has left in the cache */
  bool low;                          /* memory is bf16, gone through in place: whole vectors, nothing accumulated */
  int64_t ahead;                     /* bytes from a tile to what is prefetched beside it, where tiles are whole rows; 0 elsewhere */
  bool past;                         /* results are written past the caches */
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
struct rows { const void *p; int64_t stride; uintptr_t ahead; };
typedef float tile_buffer[TILE];

INLINE int64_t where(const unic_place *a, const struct tile *t) { return unic_place_at(a, t->plane, t->pixel, t->channel); }

/* A tile as rows of whole vectors: in place (bf16 where `low` says so when compiled, f32 otherwise), or converted to f32 and padded with zeros
 * into the buffer. */
INLINE struct rows tile_load(const struct work *w, const unic_place *a, const struct tile *t, float *restrict buffer, bool low) {
  int64_t at = where(a, t);
  if (low) return (struct rows){(const uint16_t *)a->data + at, a->pixel, (uintptr_t)a->data + (uintptr_t)(2 * at + (w->back ? -w->ahead : w->ahead))};
  if (a->dtype == UNIC_F32 && t->width % LANES == 0) return (struct rows){(const float *)a->data + at, a->pixel, 0};
  for (int r = 0; r < t->rows; r++) unic_channels_load(a, at + r * a->pixel, t->width, buffer + r * w->pitch);
  return (struct rows){buffer, w->pitch, 0};
}

/* Where to write a tile that tile_store will bring to its place. `low` never comes with accumulation. */
INLINE struct rows tile_place(const struct work *w, const unic_place *a, const struct tile *t, float *buffer, bool accumulate, bool low) {
  if (low) return (struct rows){(const uint16_t *)a->data + where(a, t), a->pixel, 0};
  if (a->dtype == UNIC_F32 && t->width % LANES == 0 && !accumulate) return (struct rows){(const float *)a->data + where(a, t), a->pixel, 0};
  return (struct rows){buffer, w->pitch, 0};
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
      if (w->back && w->ahead) step = steps - 1 - step;   /* elsewhere the processor guesses what is next, and guesses ascending rows better */
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

/* Beside row r of a strip, a piece as large of what is to come. Tiles of whole rows are one stretch of memory, and it is asked for in its own order, which is
 * not that of the strips: the processor's own prefetchers see short pieces far apart and guess nothing. Into the second level, whose misses wait in a longer
 * queue (two threads of Zen 4 that read pieces of 128 bytes: 11 GB/s unasked, 14 into the first level, 24 into the second; whole rows 35). */
INLINE void piece_ahead(const int K, const struct tile *t, struct rows x, int r, int c, bool low) {
  enum { PIECE = STRIP * LANES * 2 };
  if (!low || K != STRIP) return;
  const char *p = (const char *)(x.ahead + (uintptr_t)((int64_t)(c / (STRIP * LANES)) * t->rows + r) * PIECE);
  __builtin_prefetch(p, 0, 2);
  if (PIECE > 64) __builtin_prefetch(p + 64, 0, 2);
}

INLINE void strip_set(const int K, struct rows x, int r, int c, const vf *v, bool low, bool past) {
  unic_strip_store(K, (void *)(uintptr_t)x.p, r * x.stride + c, v, low, past);
}

/* Forward: mean and sum of squares about it of the chunk so far, joined with those of the tile. The first tile is gone over twice, in L1; the others
 * once, with sums of x less the mean so far: what that rounds is small beside what the distance of the two means itself adds to the sum of squares. */
INLINE void moments_strip(const int K, int c, const struct work *w, const struct tile *t, struct rows x, float *mean, float *m2, float one, float part, float cross, bool first, bool low) {
  vf from[STRIP], sum[STRIP], squares[STRIP], odd = {0}, odd_squares = {0};
  STRIP_EACH(k) from[k] = first ? (vf){0} : vf_load(mean + c + k * LANES);
  for (int pass = first ? 0 : 1; pass < 2; pass++) {
    STRIP_EACH(k) sum[k] = squares[k] = (vf){0};
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
    for (; r < t->rows; r++) {
      piece_ahead(K, t, x, r, c, low);
      STRIP_EACH(k) {
        vf d = row_get(x, r, c + k * LANES, low) - from[k];
        sum[k] += d;
        squares[k] += d * d;
      }
    }
    if (K == 1) {
      sum[0] += odd;
      squares[0] += odd_squares;
    }
    if (pass == 0) STRIP_EACH(k) from[k] = sum[k] * one;
  }
  STRIP_EACH(k) {
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
  if (w->low) moments(w, t, partial, first, true);
  else moments(w, t, partial, first, false);
}

/* y, and the mask where backward needs one. NaN passes the ReLU, as everywhere. */
INLINE void normalise_strip(const int K, int c, const struct work *w, const struct tile *t, struct rows x, struct rows e, struct rows y, bool residual, bool relu, bool masked, bool low, bool past) {
  vf m[STRIP], s[STRIP], b[STRIP];
  vi bits[STRIP];
  STRIP_EACH(k) {
    m[k] = vf_load(w->mean + t->channel + c + k * LANES);
    s[k] = vf_load(w->scale + t->channel + c + k * LANES);
    b[k] = vf_load(w->bias + t->channel + c + k * LANES);
  }
  EACH_GROUP(t, STRIP_EACH(k) bits[k] = (vi){0}, if (masked) STRIP_EACH(k) bits_put(w, t, t->group + q / ROWS, c + k * LANES, bits[k]),
    vf v[STRIP];
    piece_ahead(K, t, x, q + r, c, low);
    if (residual) piece_ahead(K, t, e, q + r, c, low);
    STRIP_EACH(k) {
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
  if (w->low && w->past) choose_normalise(w, t, true, true);
  else if (w->low) choose_normalise(w, t, true, false);
  else if (w->past) choose_normalise(w, t, false, true);
  else choose_normalise(w, t, false, false);
}

/* The operands of the backward's two passes over a tile. */
struct slopes { struct rows x, dy, dy2, dx, dresidual; };

/* g of one vector: the addends of dy where the ReLU let through. x centred is handed in because both passes need it. */
INLINE vf gate(vf g, vf centred, vf s, vf b, vi bits, int r, bool relu, bool masked) {
  if (masked) return vf_keep_bit(bits, r, g);
  if (relu) return vf_relu(centred * s + b, g);
  return g;
}

/* Backward sums of g and g (x - mean); dresidual on the way where the second pass is not to write it. */
INLINE void sums_strip(const int K, int c, const struct work *w, const struct tile *t, struct slopes o, float *s1, float *s2, bool first, bool two, bool relu, bool masked, bool residual, bool low) {
  vf m[STRIP], s[STRIP], b[STRIP], a1[STRIP], a2[STRIP], odd1 = {0}, odd2 = {0};
  vi bits[STRIP];
  STRIP_EACH(k) {
    m[k] = vf_load(w->mean + t->channel + c + k * LANES);
    s[k] = vf_load(w->scale + t->channel + c + k * LANES);
    b[k] = vf_load(w->bias + t->channel + c + k * LANES);
    a1[k] = a2[k] = (vf){0};
    bits[k] = (vi){0};
  }
  EACH_GROUP(t, if (masked) STRIP_EACH(k) bits[k] = vi_of_bytes(w->mask + (t->group + q / ROWS) * w->padded + t->channel + c + k * LANES), (void)0,
    piece_ahead(K, t, o.x, q + r, c, low);
    piece_ahead(K, t, o.dy, q + r, c, low);
    if (two) piece_ahead(K, t, o.dy2, q + r, c, low);
    STRIP_EACH(k) {
      int at = c + k * LANES;
      vf centred = row_get(o.x, q + r, at, low) - m[k], g = row_get(o.dy, q + r, at, low);
      if (two) g += row_get(o.dy2, q + r, at, low);
      g = gate(g, centred, s[k], b[k], bits[k], r, relu, masked);
      if (residual) row_set(o.dresidual, q + r, at, g, low);
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
  STRIP_EACH(k) {
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
  tile_buffer x_buffer, dy_buffer, dy2_buffer, dresidual_buffer;
  struct slopes o = {.x = tile_load(w, &w->x, t, x_buffer, low), .dy = tile_load(w, &w->dy, t, dy_buffer, low)};
  if (two) o.dy2 = tile_load(w, &w->dy2, t, dy2_buffer, low);
  if (residual) o.dresidual = tile_place(w, &w->dresidual, t, dresidual_buffer, w->accumulate_residual, low);
  float *s1 = partial + t->channel, *s2 = s1 + w->padded;
  EACH_STRIP(t, sums_strip, w, t, o, s1, s2, first, two, relu, masked, residual, low);
  if (residual && !low) tile_store(w, &w->dresidual, t, dresidual_buffer, o.dresidual, w->accumulate_residual);
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
  if (w->low) choose_gradient_sums(w, t, partial, first, true);
  else choose_gradient_sums(w, t, partial, first, false);
}

/* dx, and dresidual where the first pass has not written it. */
INLINE void input_strip(const int K, int c, const struct work *w, const struct tile *t, struct slopes o, bool two, bool relu, bool masked, bool residual, bool low, bool past) {
  vf m[STRIP], s[STRIP], b[STRIP], m1[STRIP], m2[STRIP];
  vi bits[STRIP];
  STRIP_EACH(k) {
    int at = t->channel + c + k * LANES;
    m[k] = vf_load(w->mean + at);
    s[k] = vf_load(w->scale + at);
    b[k] = vf_load(w->bias + at);
    m1[k] = vf_load(w->mean_g + at) * s[k];
    m2[k] = vf_load(w->mean_gx + at) * s[k];
    bits[k] = (vi){0};
  }
  EACH_GROUP(t, if (masked) STRIP_EACH(k) bits[k] = vi_of_bytes(w->mask + (t->group + q / ROWS) * w->padded + t->channel + c + k * LANES), (void)0,
    vf v[STRIP], gated[STRIP];
    piece_ahead(K, t, o.x, q + r, c, low);
    piece_ahead(K, t, o.dy, q + r, c, low);
    if (two) piece_ahead(K, t, o.dy2, q + r, c, low);
    STRIP_EACH(k) {
      int at = c + k * LANES;
      vf centred = row_get(o.x, q + r, at, low) - m[k], g = row_get(o.dy, q + r, at, low);
      if (two) g += row_get(o.dy2, q + r, at, low);
      gated[k] = gate(g, centred, s[k], b[k], bits[k], r, relu, masked);
      v[k] = gated[k] * s[k] - m1[k] - centred * m2[k];
    }
    if (residual) strip_set(K, o.dresidual, q + r, c, gated, low, past);
    strip_set(K, o.dx, q + r, c, v, low, past);)
}

INLINE void input_gradient(const struct work *w, const struct tile *t, bool two, bool relu, bool masked, bool residual, bool low, bool past) {
  tile_buffer x_buffer, dy_buffer, dy2_buffer, dx_buffer, dresidual_buffer;
  struct slopes o = {.x = tile_load(w, &w->x, t, x_buffer, low), .dy = tile_load(w, &w->dy, t, dy_buffer, low), .dx = tile_place(w, &w->dx, t, dx_buffer, w->accumulate, low)};
  if (two) o.dy2 = tile_load(w, &w->dy2, t, dy2_buffer, low);
  if (residual) o.dresidual = tile_place(w, &w->dresidual, t, dresidual_buffer, w->accumulate_residual, low);
  EACH_STRIP(t, input_strip, w, t, o, two, relu, masked, residual, low, past);
  if (low) return;
  tile_store(w, &w->dx, t, dx_buffer, o.dx, w->accumulate);
  if (residual) tile_store(w, &w->dresidual, t, dresidual_buffer, o.dresidual, w->accumulate_residual);
}

INLINE void choose_input_gradient(const struct work *w, const struct tile *t, bool low, bool past) {
  bool two = w->dy2.data != NULL, residual = w->dresidual.data != NULL;
  if (!w->relu && !two && !residual) input_gradient(w, t, false, false, false, false, low, past);
  else if (w->relu && !w->masked && !two) input_gradient(w, t, false, true, false, false, low, past);
  else if (w->masked && !two && !residual) input_gradient(w, t, false, true, true, false, low, past);
  else if (w->masked && two && residual) input_gradient(w, t, true, true, true, true, low, past);
  else input_gradient(w, t, two, w->relu, w->masked, residual, low, past);
}

INLINE void visit_input_gradient(const struct work *w, const struct tile *t, float *partial, bool first) {
  if (w->low && w->past) choose_input_gradient(w, t, true, true);
  else if (w->low) choose_input_gradient(w, t, true, false);
  else if (w->past) choose_input_gradient(w, t, false, true);
  else choose_input_gradient(w, t, false, false);
}

#endif
#endif
