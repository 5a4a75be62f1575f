/* where: y = cond ? a : b, all three broadcasting; da = cond ? dy : 0, db = cond ? 0 : dy, summed over the positions at which a side was repeated.
 *
 * Either value may be a number. Any dtype and strides; y takes the layout of a tensor that has its full shape, row-major otherwise. Saved: cond.
 * The gradient of a repeated side goes through an f32 (f64) copy of dy's shape in scratch, then the fixed sums of unic_move_sum: any number of
 * threads gives the same bits. */
#include "move.h"
#include "walk.h"

enum { COND, A, B };

struct where {
  unic_walk walk;              /* y, cond, a, b; backward: dx, cond, dy */
  void *to;
  const uint8_t *cond;
  const void *a, *b;           /* NULL: the number */
  uint64_t number_a, number_b; /* in y's dtype */
  int dtype, size, to_dtype;   /* to_dtype: of dx or of the scratch copy */
  uint8_t keep;                /* backward: where cond is this, dy passes */
  int accumulate;
};

#if UNIC_LOOPS

/* A row of a side: the tensor's, or the number repeated. */
static const void *side_row(const struct where *s, int o, int64_t at, int64_t n, const void *base, uint64_t number, uint64_t *buffer) {
  if (base) return unic_walk_row(&s->walk, o, at, n, base, s->dtype, buffer);
  switch (s->size) {
    case 1: memset(buffer, (int)number, (size_t)n); break;
    case 2: for (int64_t i = 0; i < n; i++) ((uint16_t *)(void *)buffer)[i] = (uint16_t)number; break;
    case 4: for (int64_t i = 0; i < n; i++) ((uint32_t *)(void *)buffer)[i] = (uint32_t)number; break;
    default: for (int64_t i = 0; i < n; i++) buffer[i] = number;
  }
  return buffer;
}

#define CHOOSE(type) \
  do { \
    const type *restrict p = a, *restrict q = b; type *restrict r = y; \
    for (int64_t i = 0; i < n; i++) r[i] = c[i] ? p[i] : q[i]; \
  } while (0)

UNIC_LOOP(where_rows) {
  const struct where *s = context;
  uint64_t ab[UNIC_ROW], bb[UNIC_ROW], yb[UNIC_ROW];
  uint8_t cb[UNIC_ROW];
  for (int64_t at = begin, n; at < end; at += n) {
    n = unic_walk_step(&s->walk, at, end);
    const uint8_t *c = unic_walk_row(&s->walk, 1, at, n, s->cond, UNIC_BOOL, cb);
    const void *a = side_row(s, 2, at, n, s->a, s->number_a, ab), *b = side_row(s, 3, at, n, s->b, s->number_b, bb);
    void *y = unic_walk_target(&s->walk, 0, at, n, s->to, s->dtype, yb);
    switch (s->size) {
      case 1: CHOOSE(uint8_t); break;
      case 2: CHOOSE(uint16_t); break;
      case 4: CHOOSE(uint32_t); break;
      default: CHOOSE(uint64_t);
    }
    unic_walk_put(&s->walk, 0, at, n, s->to, s->dtype, y, yb);
  }
}

/* to = (or +=) cond == keep ? dy : 0, for f32, bf16 and f16. */
UNIC_LOOP(where_gradient_rows) {
  const struct where *s = context;
  float db[UNIC_ROW], ob[UNIC_ROW], g[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  uint8_t cb[UNIC_ROW];
  for (int64_t at = begin, n; at < end; at += n) {
    n = unic_walk_step(&s->walk, at, end);
    const uint8_t *c = unic_walk_row(&s->walk, 1, at, n, s->cond, UNIC_BOOL, cb);
    const float *dy = unic_walk_load(&s->walk, 2, at, n, s->a, s->dtype, db, raw);
    for (int64_t i = 0; i < n; i++) g[i] = (c[i] != 0) == s->keep ? dy[i] : 0;
    if (s->accumulate) {
      const float *old = unic_walk_load(&s->walk, 0, at, n, s->to, s->to_dtype, ob, raw);
      for (int64_t i = 0; i < n; i++) g[i] += old[i];
    }
    void *place = s->to_dtype == UNIC_F32 ? unic_walk_place(&s->walk, 0, at, n, s->to, 4) : NULL;
    if (place) memcpy(place, g, (size_t)n * sizeof *g);
    else unic_walk_store(&s->walk, 0, at, n, s->to, s->to_dtype, g, g, raw);
  }
}

#else

UNIC_LOOP_TABLE(where_rows);
UNIC_LOOP_TABLE(where_gradient_rows);

static unic_status shape(unic_call *c) {
  const unic_tensor *cond = c->in[COND];
  int ndim = cond->ndim;
  int64_t dims[UNIC_MAX_RANK];
  if (!c->in[A] && !c->in[B]) return unic_fail_arg(c, A, "both values are numbers, expected at least one tensor");
  memcpy(dims, cond->shape, sizeof dims);
  for (int i = A; i <= B; i++) {
    const unic_tensor *t = c->in[i];
    char text[160], other[160];
    if (t && !unic_shape_broadcast(&ndim, dims, t->ndim, t->shape))
      return unic_fail_arg(c, i, "shapes %s and %s do not broadcast: from the right, sizes must be equal or 1", unic_shape_describe(ndim, dims, other, sizeof other),
                           unic_shape_describe(t->ndim, t->shape, text, sizeof text));
  }
  unic_out(c, 0, c->type, ndim, dims);
  for (int i = A; i <= B; i++) {
    const unic_tensor *t = c->in[i];
    if (t && t->ndim == ndim && memcmp(t->shape, dims, (size_t)ndim * sizeof *dims) == 0) {
      unic_out_like(c, 0, t);
      break;
    }
  }
  return UNIC_OK;
}

static unic_status forward(const unic_kernel *k) {
  const unic_view *y = &k->out[0];
  struct where s = {.to = y->data, .cond = k->in[COND].data, .a = k->in[A].data, .b = k->in[B].data, .dtype = y->dtype, .size = (int)unic_dtype_size((unic_dtype)y->dtype)};
  if (y->numel == 0) return UNIC_OK;
  unic_row_convert(&k->arg[A].number, UNIC_F64, &s.number_a, s.dtype, 1);
  unic_row_convert(&k->arg[B].number, UNIC_F64, &s.number_b, s.dtype, 1);
  const unic_view *const views[4] = {y, &k->in[COND], k->in[A].present ? &k->in[A] : y, k->in[B].present ? &k->in[B] : y};
  unic_walk_init(&s.walk, 4, views);
  UNIC_RUN(where_rows, s.walk.numel, UNIC_WALK_CHUNK, &s);
  return UNIC_OK;
}

static bool is_repeated(const unic_kernel *k, int side) { return k->in[side].numel != k->out[0].numel; }

/* y's shape over scratch, row-major. */
static unic_view copy_of_y(const unic_kernel *k, void *data) {
  unic_view v = k->out[0];
  v.data = data;
  v.dtype = k->type == UNIC_F64 ? UNIC_F64 : UNIC_F32;
  unic_stride_fill(v.ndim, v.shape, UNIC_CONTIGUOUS, v.stride);
  return v;
}

static int64_t copy_bytes(const unic_kernel *k) { return (k->out[0].numel * unic_dtype_size(unic_dtype_wide(k->type)) + 63) / 64 * 64; }

static unic_status plan(const unic_kernel *k, unic_plan *p) {
  for (int side = A; side <= B; side++) {
    if (!k->din[side].present || !is_repeated(k, side)) continue;
    unic_view copy = copy_of_y(k, NULL);
    int64_t bytes = copy_bytes(k) + unic_move_sum_scratch(&copy, unic_view_repeated(&k->in[side], &k->out[0]));
    if (bytes > p->scratch) p->scratch = bytes;
  }
  return UNIC_OK;
}

/* to = (or +=) dy where it was taken from `side`. */
typedef void mask_fn(const unic_kernel *k, int side, const unic_view *to, int accumulate);

static void mask_fast(const unic_kernel *k, int side, const unic_view *to, int accumulate) {
  const unic_view *dy = &k->dout[0];
  struct where s = {.to = to->data, .cond = k->in[COND].data, .a = dy->data, .dtype = dy->dtype, .to_dtype = to->dtype, .keep = side == A, .accumulate = accumulate};
  const unic_view *const views[3] = {to, &k->in[COND], dy};
  unic_walk_init(&s.walk, 3, views);
  UNIC_RUN(where_gradient_rows, s.walk.numel, UNIC_WALK_CHUNK, &s);
}

/* The plain f64 form of the same. */
static void mask_plain(const unic_kernel *k, int side, const unic_view *to, int accumulate) {
  const unic_view *dy = &k->dout[0], *cond = &k->in[COND];
  for (int64_t i = 0; i < to->numel; i++) {
    int64_t rest = i, t = 0, f = 0, c = 0;
    for (int d = to->ndim - 1; d >= 0; d--) {
      int64_t p = rest % to->shape[d];
      int e = d - (to->ndim - cond->ndim);
      rest /= to->shape[d];
      t += p * to->stride[d];
      f += p * dy->stride[d];
      if (e >= 0 && cond->shape[e] != 1) c += p * cond->stride[e];
    }
    bool taken = (((const uint8_t *)cond->data)[c] != 0) == (side == A);
    ((double *)to->data)[t] = (accumulate ? ((double *)to->data)[t] : 0) + (taken ? ((const double *)dy->data)[f] : 0);
  }
}

static unic_status gradients(const unic_kernel *k, mask_fn *mask) {
  for (int side = A; side <= B; side++) {
    const unic_view *dx = &k->din[side];
    if (!dx->present || dx->numel == 0) continue;
    if (k->out[0].numel == 0) {
      if (!k->accumulate[side]) unic_move_fill(dx, 0);
    } else if (is_repeated(k, side)) {
      unic_view copy = copy_of_y(k, k->scratch);
      mask(k, side, &copy, 0);
      unic_move_sum(dx, &copy, unic_view_repeated(&k->in[side], &k->out[0]), k->accumulate[side], (char *)k->scratch + copy_bytes(k));
    } else {
      unic_view full = *dx;   /* fewer dimensions than y are leading ones of size 1 */
      int lead = k->out[0].ndim - dx->ndim;
      for (int d = k->out[0].ndim - 1; d >= 0; d--) {
        full.shape[d] = k->out[0].shape[d];
        full.stride[d] = d < lead ? 0 : dx->stride[d - lead];
      }
      full.ndim = k->out[0].ndim;
      mask(k, side, &full, k->accumulate[side]);
    }
  }
  return UNIC_OK;
}

static unic_status backward(const unic_kernel *k) { return gradients(k, mask_fast); }
static unic_status reference_backward(const unic_kernel *k) { return gradients(k, mask_plain); }

static const unic_op op_where = {
  .name = "where", .signature = "cond: tensor<bool>, a: operand, b: operand -> y",
  .doc = "Element by element, with broadcasting: a where cond is true, b elsewhere.\n"
         "cond  bool\n"
         "a, b  tensors of one dtype, or a tensor and a number",
  .saves = "cond", .grads = "a b", .layouts = "cond:any a:any b:any", .shape = shape,
  .cpu = {.forward = forward, .backward = backward, .reference_backward = reference_backward, .plan = plan},
  .flags = UNIC_OP_METHOD | UNIC_OP_INTS | UNIC_OP_PLAN_BACKWARD};

UNIC_OPS(where, &op_where);

#endif
