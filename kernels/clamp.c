/* clamp, clamp_ (in place): y = min(max(x, min), max); dx = dy where min <= x <= max, 0 elsewhere (NaN passes through). Saved: x. Bits: any_threads. */
#include "walk.h"

enum { X, LOW, HIGH };

struct clamp {
  unic_walk walk;              /* forward: y, x; backward: dx, dy, x */
  void *to;
  const void *from, *x;
  int dtype, accumulate;
  double low, high;
};

#if UNIC_LOOPS

UNIC_LOOP(clamp_forward) {
  const struct clamp *s = context;
  float bx[UNIC_ROW], by[UNIC_ROW], low = (float)s->low, high = (float)s->high;
  uint16_t raw[UNIC_ROW];
  for (int64_t at = begin; at < end; at += UNIC_ROW) {
    int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW;
    const float *x = unic_walk_load(&s->walk, 1, at, n, s->from, s->dtype, bx, raw);
    float *y = unic_walk_float_target(&s->walk, 0, at, n, s->to, s->dtype, by);
    for (int64_t i = 0; i < n; i++) y[i] = x[i] < low ? low : x[i] > high ? high : x[i];
    unic_walk_store(&s->walk, 0, at, n, s->to, s->dtype, y, by, raw);
  }
}

UNIC_LOOP(clamp_backward) {
  const struct clamp *s = context;
  float bx[UNIC_ROW], bd[UNIC_ROW], bo[UNIC_ROW], term[UNIC_ROW], low = (float)s->low, high = (float)s->high;
  uint16_t raw[UNIC_ROW];
  for (int64_t at = begin; at < end; at += UNIC_ROW) {
    int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW;
    const float *dy = unic_walk_load(&s->walk, 1, at, n, s->from, s->dtype, bd, raw);
    const float *x = unic_walk_load(&s->walk, 2, at, n, s->x, s->dtype, bx, raw);
    for (int64_t i = 0; i < n; i++) term[i] = x[i] < low || x[i] > high ? 0 : dy[i];
    if (s->accumulate) {
      const float *old = unic_walk_load(&s->walk, 0, at, n, s->to, s->dtype, bo, raw);
      for (int64_t i = 0; i < n; i++) term[i] += old[i];
    }
    float *to = unic_walk_float_target(&s->walk, 0, at, n, s->to, s->dtype, bo);
    memcpy(to, term, (size_t)n * sizeof *term);
    unic_walk_store(&s->walk, 0, at, n, s->to, s->dtype, to, bo, raw);
  }
}

#else

UNIC_LOOP_TABLE(clamp_forward);
UNIC_LOOP_TABLE(clamp_backward);

static unic_status clamp_shape(unic_call *c) {
  if (!c->arg[LOW].given && !c->arg[HIGH].given) return unic_fail_arg(c, LOW, "neither min nor max was given, expected at least one");
  if (c->arg[LOW].given && c->arg[HIGH].given && !(c->arg[LOW].number <= c->arg[HIGH].number))
    return unic_fail_arg(c, LOW, "%g was given, expected at most max = %g", c->arg[LOW].number, c->arg[HIGH].number);
  if (!(c->op->flags & UNIC_OP_INPLACE)) unic_out_like(c, 0, c->in[X]);
  return UNIC_OK;
}

static void limits(const unic_kernel *k, struct clamp *s) {
  s->low = k->arg[LOW].given ? k->arg[LOW].number : -INFINITY;
  s->high = k->arg[HIGH].given ? k->arg[HIGH].number : INFINITY;
}

static void forward_f64(void *context, int64_t begin, int64_t end) {
  const struct clamp *s = context;
  int64_t index[UNIC_MAX_RANK], left;
  for (int64_t i = begin; i < end; i++) {
    double x = ((const double *)s->from)[unic_walk_find(&s->walk, 1, i, index, &left)];
    ((double *)s->to)[unic_walk_find(&s->walk, 0, i, index, &left)] = x < s->low ? s->low : x > s->high ? s->high : x;
  }
}

static void backward_f64(void *context, int64_t begin, int64_t end) {
  const struct clamp *s = context;
  int64_t index[UNIC_MAX_RANK], left;
  for (int64_t i = begin; i < end; i++) {
    double dy = ((const double *)s->from)[unic_walk_find(&s->walk, 1, i, index, &left)];
    double x = ((const double *)s->x)[unic_walk_find(&s->walk, 2, i, index, &left)];
    double *to = (double *)s->to + unic_walk_find(&s->walk, 0, i, index, &left);
    *to = (s->accumulate ? *to : 0) + (x < s->low || x > s->high ? 0 : dy);
  }
}

static unic_status forward(const unic_kernel *k, unic_body *loop) {
  const unic_view *y = unic_result(k);
  struct clamp s = {.to = y->data, .from = k->in[X].data, .dtype = k->type};
  if (y->numel == 0) return UNIC_OK;
  limits(k, &s);
  const unic_view *const views[2] = {y, &k->in[X]};
  unic_walk_init(&s.walk, 2, views);
  unic_parallel_for(s.walk.numel, UNIC_WALK_CHUNK, loop, &s);
  return UNIC_OK;
}

static unic_status backward(const unic_kernel *k, unic_body *loop) {
  struct clamp s = {.to = k->din[X].data, .from = k->dout[0].data, .x = k->in[X].data, .dtype = k->type, .accumulate = k->accumulate[X]};
  if (!k->din[X].present || k->din[X].numel == 0) return UNIC_OK;
  limits(k, &s);
  const unic_view *const views[3] = {&k->din[X], &k->dout[0], &k->in[X]};
  unic_walk_init(&s.walk, 3, views);
  unic_parallel_for(s.walk.numel, UNIC_WALK_CHUNK, loop, &s);
  return UNIC_OK;
}

static unic_status clamp_run(const unic_kernel *k) { return forward(k, clamp_forward[unic_isa_current()]); }
static unic_status clamp_back(const unic_kernel *k) { return backward(k, clamp_backward[unic_isa_current()]); }
static unic_status clamp_reference(const unic_kernel *k) { return forward(k, forward_f64); }
static unic_status clamp_reference_back(const unic_kernel *k) { return backward(k, backward_f64); }

static const unic_op op_clamp = {
  .name = "clamp", .signature = "x: tensor, min: number?, max: number? -> y",
  .doc = "Element by element: x, but at least min and at most max. The gradient is 0 outside.\n  min, max  numbers; either may be left out",
  .saves = "x", .grads = "x", .layouts = "x:dense", .shape = clamp_shape, .cpu = {clamp_run, clamp_back, clamp_reference, clamp_reference_back},
  .flags = UNIC_OP_METHOD};

static const unic_op op_clamp_in_place = {
  .name = "clamp_", .signature = "x!: tensor, min: number?, max: number?",
  .doc = "x becomes, element by element and in place: x, but at least min and at most max.\n  min, max  numbers; either may be left out",
  .layouts = "x:any", .shape = clamp_shape, .cpu = {.forward = clamp_run, .reference = clamp_reference},
  .flags = UNIC_OP_METHOD | UNIC_OP_INPLACE | UNIC_OP_NO_GRAD};

UNIC_OPS(clamp, &op_clamp, &op_clamp_in_place);

#endif
