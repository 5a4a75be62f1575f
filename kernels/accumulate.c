/* accumulate: to += from for floating types, any strides and dtypes, blocked or strided; `from` broadcasts to the shape of `to`.
 *
 * The sum is taken in f32 (f64 when either side is f64) and rounded once into the dtype of `to`. */
#include "move.h"
#include "walk.h"

enum { TO, FROM };

struct accumulate {
  unic_walk walk;
  void *to;
  const void *from;
  int to_dtype, from_dtype;
};

#if UNIC_LOOPS

UNIC_LOOP(accumulate_rows) {
  const struct accumulate *c = context;
  const unic_walk *w = &c->walk;
  float a[UNIC_ROW], b[UNIC_ROW], y[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  for (int64_t i = begin; i < end; i += UNIC_ROW) {
    int64_t n = end - i < UNIC_ROW ? end - i : UNIC_ROW;
    const float *restrict p = unic_walk_load(w, 1, i, n, c->from, c->from_dtype, b, raw);
    float *place = c->to_dtype == UNIC_F32 ? unic_walk_place(w, 0, i, n, c->to, 4) : NULL;
    if (place) {
      float *restrict t = place;
      for (int64_t j = 0; j < n; j++) t[j] += p[j];
      continue;
    }
    const float *restrict q = unic_walk_load(w, 0, i, n, c->to, c->to_dtype, a, raw);
    for (int64_t j = 0; j < n; j++) y[j] = q[j] + p[j];
    unic_walk_store(w, 0, i, n, c->to, c->to_dtype, y, y, raw);
  }
}

UNIC_LOOP(accumulate_rows_f64) {
  const struct accumulate *c = context;
  const unic_walk *w = &c->walk;
  double a[UNIC_ROW], b[UNIC_ROW];
  uint64_t raw[UNIC_ROW];
  for (int64_t i = begin; i < end; i += UNIC_ROW) {
    int64_t n = end - i < UNIC_ROW ? end - i : UNIC_ROW;
    unic_row_convert(unic_walk_row(w, 0, i, n, c->to, c->to_dtype, raw), c->to_dtype, a, UNIC_F64, n);
    unic_row_convert(unic_walk_row(w, 1, i, n, c->from, c->from_dtype, raw), c->from_dtype, b, UNIC_F64, n);
    for (int64_t j = 0; j < n; j++) a[j] += b[j];
    void *y = unic_walk_target(w, 0, i, n, c->to, c->to_dtype, raw);
    unic_row_convert(a, UNIC_F64, y, c->to_dtype, n);
    unic_walk_put(w, 0, i, n, c->to, c->to_dtype, y, raw);
  }
}

#else

UNIC_LOOP_TABLE(accumulate_rows);
UNIC_LOOP_TABLE(accumulate_rows_f64);

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

void unic_move_add(const unic_view *to, const unic_view *from) {
  struct accumulate c = {.to = to->data, .from = from->data, .to_dtype = to->dtype, .from_dtype = from->dtype};
  if (to->numel == 0) return;
  const unic_view *const views[2] = {to, from};
  unic_walk_init(&c.walk, 2, views);
  if (c.to_dtype == UNIC_F64 || c.from_dtype == UNIC_F64) UNIC_RUN(accumulate_rows_f64, c.walk.numel, UNIC_WALK_CHUNK, &c);
  else UNIC_RUN(accumulate_rows, c.walk.numel, UNIC_WALK_CHUNK, &c);
}

static unic_status forward(const unic_kernel *k) {
  unic_move_add(&k->in[TO], &k->in[FROM]);
  return UNIC_OK;
}

static const unic_op op_accumulate = {
  .name = "accumulate",
  .signature = "to!: tensor<float>, from: tensor<float>",
  .doc = "Add `from` to `to`, whatever their dtypes and layouts; `from` broadcasts.",
  .layouts = "to:any|blocked from:any|blocked",
  .shape = shape,
  .cpu = {.forward = forward},
  .flags = UNIC_OP_NO_GRAD | UNIC_OP_SERVICE | UNIC_OP_INPLACE,
};

UNIC_OPS(accumulate, &op_accumulate);

#endif
