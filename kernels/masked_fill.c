/* masked_fill, masked_fill_ (in place): y = mask ? value : x, the mask broadcasting to x's shape; dx = mask ? 0 : dy. Saved: mask.
 * Any dtype of x, any strides; y has x's layout. Moves only: any number of threads gives the same bits. */
#include "walk.h"

enum { X, MASK, VALUE };

struct masked {
  unic_walk walk;              /* y, x, mask; backward: dx, dy, mask */
  void *to;
  const void *from;
  const uint8_t *mask;
  int dtype, size;
  uint64_t value;              /* in x's dtype */
  int accumulate;
};

#if UNIC_LOOPS

#define FILL_ROW(type) \
  do { \
    const type *p = x; type *q = y, v;   /* the same row when it is in place */ \
    memcpy(&v, &s->value, sizeof v); \
    for (int64_t i = 0; i < n; i++) q[i] = m[i] ? v : p[i]; \
  } while (0)

UNIC_LOOP(masked_fill_rows) {
  const struct masked *s = context;
  uint64_t xb[UNIC_ROW], yb[UNIC_ROW];
  uint8_t mb[UNIC_ROW];
  for (int64_t at = begin; at < end; at += UNIC_ROW) {
    int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW;
    const void *x = unic_walk_row(&s->walk, 1, at, n, s->from, s->dtype, xb);
    const uint8_t *m = unic_walk_row(&s->walk, 2, at, n, s->mask, UNIC_BOOL, mb);
    void *y = unic_walk_target(&s->walk, 0, at, n, s->to, s->dtype, yb);
    switch (s->size) {
      case 1: FILL_ROW(uint8_t); break;
      case 2: FILL_ROW(uint16_t); break;
      case 4: FILL_ROW(uint32_t); break;
      default: FILL_ROW(uint64_t);
    }
    unic_walk_put(&s->walk, 0, at, n, s->to, s->dtype, y, yb);
  }
}

/* dx += mask ? 0 : dy. */
UNIC_LOOP(masked_add_rows) {
  const struct masked *s = context;
  float db[UNIC_ROW], ob[UNIC_ROW], g[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  uint8_t mb[UNIC_ROW];
  for (int64_t at = begin; at < end; at += UNIC_ROW) {
    int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW;
    const float *dy = unic_walk_load(&s->walk, 1, at, n, s->from, s->dtype, db, raw);
    const uint8_t *m = unic_walk_row(&s->walk, 2, at, n, s->mask, UNIC_BOOL, mb);
    const float *old = unic_walk_load(&s->walk, 0, at, n, s->to, s->dtype, ob, raw);
    for (int64_t i = 0; i < n; i++) g[i] = old[i] + (m[i] ? 0 : dy[i]);
    void *place = s->dtype == UNIC_F32 ? unic_walk_place(&s->walk, 0, at, n, s->to, 4) : NULL;
    if (place) memcpy(place, g, (size_t)n * sizeof *g);
    else unic_walk_store(&s->walk, 0, at, n, s->to, s->dtype, g, g, raw);
  }
}

#else

UNIC_LOOP_TABLE(masked_fill_rows);
UNIC_LOOP_TABLE(masked_add_rows);

static unic_status shape(unic_call *c) {
  const unic_tensor *x = c->in[X], *mask = c->in[MASK];
  int ndim = x->ndim;
  int64_t dims[UNIC_MAX_RANK];
  memcpy(dims, x->shape, sizeof dims);
  bool fits = mask->ndim <= x->ndim && unic_shape_broadcast(&ndim, dims, mask->ndim, mask->shape);
  for (int d = 0; fits && d < ndim; d++) fits = dims[d] == x->shape[d];
  if (!fits) {
    char a[128], b[128];
    return unic_fail_arg(c, MASK, "%s does not broadcast to x's shape %s", unic_shape_describe(mask->ndim, mask->shape, a, sizeof a),
                         unic_shape_describe(x->ndim, x->shape, b, sizeof b));
  }
  if (!(c->op->flags & UNIC_OP_INPLACE)) unic_out_like(c, 0, x);
  return UNIC_OK;
}

static struct masked begin_masked(const unic_kernel *k, const unic_view *to, const unic_view *from) {
  struct masked s = {.to = to->data, .from = from->data, .mask = k->in[MASK].data, .dtype = to->dtype, .size = unic_size_of(to->dtype)};
  const unic_view *const views[3] = {to, from, &k->in[MASK]};
  unic_walk_init(&s.walk, 3, views);
  return s;
}

static unic_status forward(const unic_kernel *k) {
  const unic_view *y = unic_result(k);
  struct masked s = begin_masked(k, y, &k->in[X]);
  unic_row_convert(&k->arg[VALUE].number, UNIC_F64, &s.value, s.dtype, 1);
  if (y->numel) UNIC_RUN(masked_fill_rows, s.walk.numel, UNIC_WALK_CHUNK, &s);
  return UNIC_OK;
}

static unic_status backward(const unic_kernel *k) {
  struct masked s = begin_masked(k, &k->din[X], &k->dout[0]);
  if (k->din[X].numel == 0) return UNIC_OK;
  if (k->accumulate[X]) UNIC_RUN(masked_add_rows, s.walk.numel, UNIC_WALK_CHUNK, &s);
  else UNIC_RUN(masked_fill_rows, s.walk.numel, UNIC_WALK_CHUNK, &s);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

static int64_t place(const unic_view *v, const unic_view *like, int64_t i) {
  int64_t at = 0;
  for (int d = like->ndim - 1; d >= 0; d--) {
    int e = d - (like->ndim - v->ndim);
    int64_t p = i % like->shape[d];
    i /= like->shape[d];
    if (e >= 0 && v->shape[e] != 1) at += p * v->stride[e];
  }
  return at;
}

static unic_status reference(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *mask = &k->in[MASK], *y = unic_result(k);
  for (int64_t i = 0; i < y->numel; i++)
    ((double *)y->data)[place(y, y, i)] = ((const uint8_t *)mask->data)[place(mask, y, i)] ? k->arg[VALUE].number : ((const double *)x->data)[place(x, y, i)];
  return UNIC_OK;
}

static unic_status reference_backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X], *mask = &k->in[MASK], *dy = &k->dout[0];
  for (int64_t i = 0; i < dx->numel; i++) {
    double *to = (double *)dx->data + place(dx, dx, i);
    *to = (k->accumulate[X] ? *to : 0) + (((const uint8_t *)mask->data)[place(mask, dx, i)] ? 0 : ((const double *)dy->data)[place(dy, dx, i)]);
  }
  return UNIC_OK;
}

static const unic_op op_masked_fill = {
  .name = "masked_fill",
  .signature = "x: tensor, mask: tensor<bool>, value: number -> y",
  .doc = "x with a number wherever a mask is true.\n"
         "mask   bool, broadcasts to x's shape\n"
         "value  the number",
  .saves = "mask",
  .grads = "x",
  .layouts = "x:any mask:any",
  .shape = shape,
  .cpu = {.forward = forward, .backward = backward, .reference = reference, .reference_backward = reference_backward},
  .flags = UNIC_OP_METHOD | UNIC_OP_INTS,
};

static const unic_op op_masked_fill_in_place = {
  .name = "masked_fill_",
  .signature = "x!: tensor, mask: tensor<bool>, value: number",
  .doc = "Set x to a number wherever a mask is true, in place.\n"
         "mask   bool, broadcasts to x's shape\n"
         "value  the number",
  .layouts = "x:any mask:any",
  .shape = shape,
  .cpu = {.forward = forward, .reference = reference},
  .flags = UNIC_OP_METHOD | UNIC_OP_INTS | UNIC_OP_INPLACE | UNIC_OP_NO_GRAD,
};

UNIC_OPS(masked_fill, &op_masked_fill, &op_masked_fill_in_place);

#endif
