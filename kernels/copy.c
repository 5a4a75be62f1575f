/* copy: to = from, any strides, any dtypes, blocked or strided; `from` broadcasts to the shape of `to`.
 *
 * Four forms, the first that fits: both one flat row (memcpy or conversion in chunks); rows that are dense on both sides; a transposition of
 * two dimensions in tiles (row-major <-> channels-last, plain <-> blocked); element by element through row buffers. Floats become integers
 * towards zero, saturating, NaN 0; integers wrap; bool is "not zero". Any number of threads gives the same bits (no sums). */
#include "move.h"
#include "walk.h"

enum { TO, FROM };
enum { TILE_A = 32, TILE_B = 64 };   /* elements of a tile along the dense dimension of the source, and of the target */

struct copy {
  unic_walk walk;
  void *to;
  const void *from;
  int to_dtype, from_dtype, size;
  int along;                       /* tiles: the dimension along which `from` is densest */
  int64_t tiles_a, tiles_b;        /* tiles along `along` and along the innermost dimension */
};

#if UNIC_LOOPS

UNIC_LOOP(copy_flat) {
  const struct copy *c = context;
  if (c->to_dtype == c->from_dtype) {
    memcpy((char *)c->to + begin * c->size, (const char *)c->from + begin * c->size, (size_t)((end - begin) * c->size));
    return;
  }
  int from_size = unic_size_of(c->from_dtype);
  for (int64_t i = begin; i < end; i += UNIC_ROW) {
    int64_t n = end - i < UNIC_ROW ? end - i : UNIC_ROW;
    unic_row_convert((const char *)c->from + i * from_size, c->from_dtype, (char *)c->to + i * c->size, c->to_dtype, n);
  }
}

UNIC_LOOP(copy_rows) {
  const struct copy *c = context;
  uint64_t from_buffer[UNIC_ROW], to_buffer[UNIC_ROW];
  for (int64_t i = begin; i < end; i += UNIC_ROW) {
    int64_t n = end - i < UNIC_ROW ? end - i : UNIC_ROW;
    const void *x = unic_walk_row(&c->walk, 1, i, n, c->from, c->from_dtype, from_buffer);
    if (c->from_dtype == c->to_dtype) {
      /* Straight from the source (or its gathered row) to its places. */
      void *y = unic_walk_place(&c->walk, 0, i, n, c->to, c->size);
      if (y) memcpy(y, x, (size_t)(n * c->size));
      else unic_walk_put(&c->walk, 0, i, n, c->to, c->to_dtype, x, x);
      continue;
    }
    void *y = unic_walk_target(&c->walk, 0, i, n, c->to, c->to_dtype, to_buffer);
    unic_row_convert(x, c->from_dtype, y, c->to_dtype, n);
    unic_walk_put(&c->walk, 0, i, n, c->to, c->to_dtype, y, to_buffer);
  }
}

/* One tile: `na` steps along the dimension where `from` is dense (strides fa, ta), `nb` along the one where `to` is (strides fb, tb). */
#define TILE_COPY(type) \
  do { \
    const type *restrict f = from; type *restrict t = to; \
    for (int64_t a = 0; a < na; a++) \
      for (int64_t b = 0; b < nb; b++) t[a * ta + b * tb] = f[a * fa + b * fb]; \
  } while (0)

static void tile_copy(int size, const void *from, int64_t fa, int64_t fb, void *to, int64_t ta, int64_t tb, int64_t na, int64_t nb) {
  if (size == 4) {
    if (fa == 1 && tb == 1) {
      const uint32_t *f = from;
      uint32_t *t = to;
      int64_t a = 0;
      for (; a + 4 <= na; a += 4) {
        int64_t b = 0;
        for (; b + 4 <= nb; b += 4) unic_transpose4(f + a + b * fb, fb, t + a * ta + b, ta);
        for (; b < nb; b++)
          for (int64_t l = 0; l < 4; l++) t[(a + l) * ta + b] = f[a + l + b * fb];
      }
      for (; a < na; a++)
        for (int64_t b = 0; b < nb; b++) t[a * ta + b] = f[a + b * fb];
      return;
    }
    TILE_COPY(uint32_t);
  } else if (size == 2) TILE_COPY(uint16_t);
  else if (size == 1) TILE_COPY(uint8_t);
  else TILE_COPY(uint64_t);
}

UNIC_LOOP(copy_tiles) {
  const struct copy *c = context;
  const unic_walk *w = &c->walk;
  int inner = w->ndim - 1, along = c->along;
  const int64_t *ts = w->stride[0], *fs = w->stride[1];
  for (int64_t k = begin; k < end; k++) {
    int64_t q = k;
    int64_t ta = q % c->tiles_a; q /= c->tiles_a;
    int64_t tb = q % c->tiles_b; q /= c->tiles_b;
    int64_t to_at = ta * TILE_A * ts[along] + tb * TILE_B * ts[inner], from_at = ta * TILE_A * fs[along] + tb * TILE_B * fs[inner];
    for (int d = inner - 1; d >= 0; d--) {
      if (d == along) continue;
      int64_t i = q % w->shape[d];
      q /= w->shape[d];
      to_at += i * ts[d];
      from_at += i * fs[d];
    }
    int64_t na = w->shape[along] - ta * TILE_A, nb = w->shape[inner] - tb * TILE_B;
    tile_copy(c->size, (const char *)c->from + from_at * c->size, fs[along], fs[inner],
              (char *)c->to + to_at * c->size, ts[along], ts[inner], na < TILE_A ? na : TILE_A, nb < TILE_B ? nb : TILE_B);
  }
}

#else

UNIC_LOOP_TABLE(copy_flat);
UNIC_LOOP_TABLE(copy_rows);
UNIC_LOOP_TABLE(copy_tiles);

static unic_status shape(unic_call *c) {
  const unic_tensor *to = c->in[TO], *from = c->in[FROM];
  int ndim = to->ndim;
  int64_t dims[UNIC_MAX_RANK];
  memcpy(dims, to->shape, sizeof dims);
  bool fits = from->ndim <= to->ndim && unic_shape_broadcast(&ndim, dims, from->ndim, from->shape);
  for (int d = 0; fits && d < ndim; d++) fits = dims[d] == to->shape[d];
  if (fits) return UNIC_OK;
  char a[128], b[128];
  return unic_fail_arg(c, FROM, "%s does not broadcast to %s", unic_shape_describe(from->ndim, from->shape, a, sizeof a),
                       unic_shape_describe(to->ndim, to->shape, b, sizeof b));
}

void unic_move(const unic_view *to, const unic_view *from) {
  struct copy c = {.to = to->data, .from = from->data, .to_dtype = to->dtype, .from_dtype = from->dtype};
  if (to->numel == 0) return;
  const unic_view *const views[2] = {to, from};
  unic_walk_init(&c.walk, 2, views);
  const unic_walk *w = &c.walk;
  c.size = unic_size_of(c.to_dtype);
  if (unic_walk_flat(w)) {
    UNIC_RUN(copy_flat, w->numel, UNIC_WALK_CHUNK, &c);
    return;
  }
  /* Where is `from` densest? When that is not where `to` is, rows would fetch one element per cache line: go by tiles. */
  int inner = w->ndim - 1;
  c.along = inner;
  for (int d = 0; d < inner; d++) {
    int64_t s = w->stride[1][d] < 0 ? -w->stride[1][d] : w->stride[1][d], best = w->stride[1][c.along];
    if (s != 0 && s < (best < 0 ? -best : best)) c.along = d;
  }
  if (c.to_dtype == c.from_dtype && c.along != inner && w->stride[1][inner] != 0) {
    c.tiles_a = (w->shape[c.along] + TILE_A - 1) / TILE_A;
    c.tiles_b = (w->shape[inner] + TILE_B - 1) / TILE_B;
    int64_t tiles = c.tiles_a * c.tiles_b;
    for (int d = 0; d < inner; d++) if (d != c.along) tiles *= w->shape[d];
    int64_t per_tile = (w->shape[c.along] < TILE_A ? w->shape[c.along] : TILE_A) * (w->shape[inner] < TILE_B ? w->shape[inner] : TILE_B);
    UNIC_RUN(copy_tiles, tiles, UNIC_WALK_CHUNK / per_tile, &c);
    return;
  }
  UNIC_RUN(copy_rows, w->numel, UNIC_WALK_CHUNK, &c);
}

static unic_status forward(const unic_kernel *k) {
  unic_move(&k->in[TO], &k->in[FROM]);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the forms of it that recipes call: y is x in another dtype or layout */

enum { X, DTYPE };

static unic_status cast_shape(unic_call *c) {
  unic_out_like(c, 0, c->in[X]);
  c->out[0].dtype = (uint8_t)c->arg[DTYPE].integer;
  return UNIC_OK;
}

static unic_status channels_last_shape(unic_call *c) {
  if (c->in[X]->ndim != 4) return unic_fail_arg(c, X, "it has %d dimensions, expected 4: [N,C,H,W]", c->in[X]->ndim);
  unic_out(c, 0, c->in[X]->dtype, 4, c->in[X]->shape);
  c->out[0].layout = UNIC_CHANNELS_LAST;
  return UNIC_OK;
}

static unic_status move_forward(const unic_kernel *k) {
  unic_move(&k->out[0], &k->in[X]);
  return UNIC_OK;
}

static unic_status move_backward(const unic_kernel *k) {
  unic_move_gradient(&k->din[X], &k->dout[0], k->accumulate[X]);
  return UNIC_OK;
}

/* Of a float that is kept anyway, or is a recipe itself: a norm's result, which only products read that want it in a half type. */
static unic_remake_price cast_remakes(const unic_call *c, int j) {
  (void)j;
  return unic_dtype_is_float((unic_dtype)c->in[X]->dtype) && unic_dtype_is_float((unic_dtype)c->arg[DTYPE].integer) ? UNIC_REMAKE_CHEAP : UNIC_REMAKE_NEVER;
}

static const unic_op op_cast = {
  .name = "cast",
  .signature = "x: tensor<any>, dtype: dtype -> y",
  .doc = "The same values in another dtype. Floats become integers towards zero, saturating; bool is \"not zero\".\n"
         "  dtype  \"f32\", \"bf16\", \"f16\", \"f64\", \"i64\", \"i32\", \"u8\" or \"bool\"",
  .grads = "x",
  .remakes = cast_remakes,
  .again = "x",
  .layouts = "x:any|blocked",
  .shape = cast_shape,
  .cpu = {.forward = move_forward, .backward = move_backward, .remake = move_forward},
  .flags = UNIC_OP_METHOD,
};

static const unic_op op_channels_last = {
  .name = "channels_last",
  .signature = "x: tensor<any>[N,C,H,W] -> y",
  .doc = "The same image batch with its channels innermost in memory, the layout in which convolutions run.",
  .grads = "x",
  .layouts = "x:any|blocked",
  .shape = channels_last_shape,
  .cpu = {.forward = move_forward, .backward = move_backward},
  .flags = UNIC_OP_METHOD,
};

static const unic_op op_copy = {
  .name = "copy",
  .signature = "to!: tensor<any>, from: tensor<any>",
  .doc = "Write `from` into `to`, converting between dtypes and layouts; `from` broadcasts.",
  .layouts = "to:any|blocked from:any|blocked",
  .shape = shape,
  .cpu = {.forward = forward},
  .flags = UNIC_OP_NO_GRAD | UNIC_OP_SERVICE | UNIC_OP_INPLACE,
};

UNIC_OPS(copy, &op_copy, &op_cast, &op_channels_last);

#endif
