/* Element-wise functions of one tensor: y = f(x), dx = f'(x) dy. The rows stand in maths.h; this file turns each into an op.
 *
 * x of any dense layout; y and dx have the same. Saved: x or y, whichever the gradient is shorter in. Bits: any_threads.
 * f32, bf16 and f16 run vectorised in f32; f64 in f64 with the C library's functions. Every row has a form in place, x of any strides. */
#include "maths.h"
#include "walk.h"

enum { X };

struct unary {
  unic_walk walk;            /* forward: y, x; backward: dx, dy, saved */
  void *to;
  const void *from, *saved;
  int dtype, accumulate;
};

#if UNIC_LOOPS

#define F(name) m_##name##_f32
#define R(c) ((float)(c))

#define UNARY(op, saves, value, gradient, doc) \
  UNIC_LOOP(unary_##op##_forward) { \
    const struct unary *u = context; \
    float bx[UNIC_ROW], by[UNIC_ROW]; \
    uint16_t raw[UNIC_ROW]; \
    for (int64_t at = begin; at < end; at += UNIC_ROW) { \
      int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW; \
      const float *xs = unic_walk_load(&u->walk, 1, at, n, u->from, u->dtype, bx, raw); \
      float *ys = unic_walk_float_target(&u->walk, 0, at, n, u->to, u->dtype, by); \
      for (int64_t i = 0; i < n; i++) { const float x = xs[i]; ys[i] = (value); } \
      unic_walk_store(&u->walk, 0, at, n, u->to, u->dtype, ys, by, raw); \
    } \
  } \
  UNIC_LOOP(unary_##op##_backward) { \
    const struct unary *u = context; \
    float bd[UNIC_ROW], bs[UNIC_ROW], bx[UNIC_ROW], bo[UNIC_ROW]; \
    uint16_t raw[UNIC_ROW]; \
    for (int64_t at = begin; at < end; at += UNIC_ROW) { \
      int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW; \
      const float *dys = unic_walk_load(&u->walk, 1, at, n, u->from, u->dtype, bd, raw); \
      const float *ss = u->saved ? unic_walk_load(&u->walk, 2, at, n, u->saved, u->dtype, bs, raw) : dys; \
      for (int64_t i = 0; i < n; i++) { const float x = ss[i], y = ss[i], dy = dys[i]; (void)x; (void)y; bx[i] = (gradient); } \
      if (u->accumulate) { \
        const float *old = unic_walk_load(&u->walk, 0, at, n, u->to, u->dtype, bo, raw); \
        for (int64_t i = 0; i < n; i++) bx[i] += old[i]; \
      } \
      float *dxs = unic_walk_float_target(&u->walk, 0, at, n, u->to, u->dtype, bo); \
      memcpy(dxs, bx, (size_t)n * sizeof *bx); \
      unic_walk_store(&u->walk, 0, at, n, u->to, u->dtype, dxs, bo, raw); \
    } \
  }
UNIC_UNARY_ROWS(UNARY)

#else

#define F(name) m_##name##_f64
#define R(c) ((double)(c))

static unic_status shape(unic_call *c) {
  unic_out_like(c, 0, c->in[X]);
  return UNIC_OK;
}

static unic_status forward(const unic_kernel *k, unic_body *loop) {
  const unic_view *y = unic_result(k);
  if (y->numel == 0) return UNIC_OK;
  struct unary u;   /* not cleared: the walk is long, and all of it that is read is set */
  u.to = y->data;
  u.from = k->in[X].data;
  u.dtype = k->type;
  const unic_view *const views[2] = {y, &k->in[X]};
  unic_walk_init(&u.walk, 2, views);
  unic_parallel_for(u.walk.numel, UNIC_WALK_CHUNK, loop, &u);
  return UNIC_OK;
}

static unic_status backward(const unic_kernel *k, unic_body *loop) {
  const unic_view *saved = k->in[X].data ? &k->in[X] : k->out[0].data ? &k->out[0] : NULL;
  struct unary u = {.to = k->din[X].data, .from = k->dout[0].data, .saved = saved ? saved->data : NULL, .dtype = k->type, .accumulate = k->accumulate[X]};
  if (!k->din[X].present || k->din[X].numel == 0) return UNIC_OK;
  const unic_view *const views[3] = {&k->din[X], &k->dout[0], saved};
  unic_walk_init(&u.walk, saved ? 3 : 2, views);
  unic_parallel_for(u.walk.numel, UNIC_WALK_CHUNK, loop, &u);
  return UNIC_OK;
}

static unic_status in_place_shape(unic_call *c) { return UNIC_OK; }

/* A function that saves x gives y again; one that saves y has it. */
static unic_remake_price remakes(const unic_call *c, int j) {
  (void)j;
  return c->op->saves[0] == 'x' ? UNIC_REMAKE_CHEAP : UNIC_REMAKE_NEVER;
}

/* The f64 form: element by element, in the same walk. */
#define UNARY(op, saves_, value, gradient, doc_) \
  UNIC_LOOP_TABLE(unary_##op##_forward); \
  UNIC_LOOP_TABLE(unary_##op##_backward); \
  static void op##_forward_f64(void *context, int64_t begin, int64_t end) { \
    const struct unary *u = context; \
    int64_t index[UNIC_MAX_RANK], left; \
    for (int64_t i = begin; i < end; i++) { \
      const double x = ((const double *)u->from)[unic_walk_find(&u->walk, 1, i, index, &left)]; \
      ((double *)u->to)[unic_walk_find(&u->walk, 0, i, index, &left)] = (value); \
    } \
  } \
  static void op##_backward_f64(void *context, int64_t begin, int64_t end) { \
    const struct unary *u = context; \
    int64_t index[UNIC_MAX_RANK], left; \
    for (int64_t i = begin; i < end; i++) { \
      const double dy = ((const double *)u->from)[unic_walk_find(&u->walk, 1, i, index, &left)]; \
      const double x = u->saved ? ((const double *)u->saved)[unic_walk_find(&u->walk, 2, i, index, &left)] : 0, y = x; \
      double *dx = (double *)u->to + unic_walk_find(&u->walk, 0, i, index, &left); \
      (void)y; \
      *dx = (u->accumulate ? *dx : 0) + (gradient); \
    } \
  } \
  static unic_status op##_forward(const unic_kernel *k) { return forward(k, unary_##op##_forward[unic_isa_current()]); } \
  static unic_status op##_backward(const unic_kernel *k) { return backward(k, unary_##op##_backward[unic_isa_current()]); } \
  static unic_status op##_reference(const unic_kernel *k) { return forward(k, op##_forward_f64); } \
  static unic_status op##_reference_backward(const unic_kernel *k) { return backward(k, op##_backward_f64); } \
  static const unic_op op_##op = { \
    .name = #op, .signature = "x: tensor -> y", .doc = "Element by element: " doc_ ".", .saves = saves_, .grads = "x", .layouts = "x:dense", .shape = shape, \
    .cpu = {op##_forward, op##_backward, op##_reference, op##_reference_backward, op##_forward, op##_reference}, .remakes = sizeof(saves_) > 1 ? remakes : NULL, \
    .flags = UNIC_OP_METHOD}; \
  static const unic_op op_##op##_ = { \
    .name = #op "_", .signature = "x!: tensor", .doc = "x becomes, element by element and in place: " doc_ ".", .layouts = "x:any", .shape = in_place_shape, \
    .cpu = {.forward = op##_forward, .reference = op##_reference}, .flags = UNIC_OP_METHOD | UNIC_OP_INPLACE | UNIC_OP_NO_GRAD};
UNIC_UNARY_ROWS(UNARY)
#undef UNARY

#define UNARY(op, saves, value, gradient, doc) &op_##op, &op_##op##_,
UNIC_OPS(unary, UNIC_UNARY_ROWS(UNARY) 0);

#endif
