/* Truths of two operands, element by element with NumPy broadcasting: eq ne lt le gt ge logical_and logical_or, and logical_not, isnan, isinf,
 * isfinite of one. The result is bool; there is no gradient. The rows stand in maths.h. Bits: any_threads. */
#include "maths.h"
#include "walk.h"

enum { A, B };

struct compare {
  unic_walk walk;              /* y, a, b */
  void *to;
  const void *a, *b;
  double number;
  int dtype;
};

#if UNIC_LOOPS

static inline const float *operand_row(const struct compare *s, int o, int64_t at, int64_t n, const void *base, float *buffer, uint16_t *raw) {
  if (base) return unic_walk_load(&s->walk, o, at, n, base, s->dtype, buffer, raw);
  for (int64_t i = 0; i < n; i++) buffer[i] = (float)s->number;
  return buffer;
}

#define COMPARE(op, value, doc) \
  UNIC_LOOP(compare_##op) { \
    const struct compare *s = context; \
    float ba[UNIC_ROW], bb[UNIC_ROW]; \
    uint16_t raw[UNIC_ROW]; \
    uint8_t out[UNIC_ROW]; \
    for (int64_t at = begin; at < end; at += UNIC_ROW) { \
      int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW; \
      const float *as = operand_row(s, 1, at, n, s->a, ba, raw); \
      const float *bs = operand_row(s, 2, at, n, s->b, bb, raw); \
      for (int64_t i = 0; i < n; i++) { const float a = as[i], b = bs[i]; out[i] = (value); } \
      uint8_t *to = unic_walk_target(&s->walk, 0, at, n, s->to, UNIC_BOOL, out); \
      if (to != out) memcpy(to, out, (size_t)n); \
      unic_walk_put(&s->walk, 0, at, n, s->to, UNIC_BOOL, to, out); \
    } \
  }
UNIC_COMPARE_ROWS(COMPARE)

#else

static unic_status shape(unic_call *c) {
  const unic_tensor *a = c->in[A], *b = c->in[B];
  if (!a && !b) return unic_fail_arg(c, A, "both operands are numbers, expected at least one tensor");
  if (!a || !b) {
    unic_out_like(c, 0, a ? a : b);
  } else {
    int ndim = a->ndim;
    int64_t dims[UNIC_MAX_RANK];
    memcpy(dims, a->shape, sizeof dims);
    if (!unic_shape_broadcast(&ndim, dims, b->ndim, b->shape)) {
      char one[160], two[160];
      return unic_fail_arg(c, B, "shapes %s and %s do not broadcast: from the right, sizes must be equal or 1", unic_shape_describe(a->ndim, a->shape, one, sizeof one),
                           unic_shape_describe(b->ndim, b->shape, two, sizeof two));
    }
    if (unic_tensor_same_layout(a, b)) unic_out_like(c, 0, a);
    else unic_out(c, 0, UNIC_BOOL, ndim, dims);
  }
  c->out[0].dtype = UNIC_BOOL;
  return UNIC_OK;
}

static unic_status forward(const unic_kernel *k, unic_body *loop) {
  struct compare s = {.to = k->out[0].data, .a = k->in[A].data, .b = k->in[B].data, .dtype = k->type};
  if (k->out[0].numel == 0) return UNIC_OK;
  s.number = k->in[A].present ? k->arg[B].number : k->arg[A].number;
  const unic_view *const views[3] = {&k->out[0], k->in[A].present ? &k->in[A] : &k->out[0], k->in[B].present ? &k->in[B] : &k->out[0]};
  unic_walk_init(&s.walk, 3, views);
  unic_parallel_for(s.walk.numel, UNIC_WALK_CHUNK, loop, &s);
  return UNIC_OK;
}

static inline double as_double(const struct compare *s, int o, int64_t i, const void *base) {
  int64_t index[UNIC_MAX_RANK], left;
  return base ? ((const double *)base)[unic_walk_find(&s->walk, o, i, index, &left)] : s->number;
}

static inline int64_t as_integer(const struct compare *s, int o, int64_t i, const void *base) {
  int64_t index[UNIC_MAX_RANK], left;
  int64_t at = unic_walk_find(&s->walk, o, i, index, &left);
  switch (s->dtype) {
    case UNIC_I64: return ((const int64_t *)base)[at];
    case UNIC_I32: return ((const int32_t *)base)[at];
    default: return ((const uint8_t *)base)[at];
  }
}

/* Integers against integers exactly; against a number (which may have a fraction) as doubles. */
#define COMPARE(op, value, doc_) \
  UNIC_LOOP_TABLE(compare_##op); \
  static void op##_f64(void *context, int64_t begin, int64_t end) { \
    const struct compare *s = context; \
    int64_t index[UNIC_MAX_RANK], left; \
    for (int64_t i = begin; i < end; i++) { \
      const double a = as_double(s, 1, i, s->a), b = as_double(s, 2, i, s->b); \
      ((uint8_t *)s->to)[unic_walk_find(&s->walk, 0, i, index, &left)] = (value); \
    } \
  } \
  static void op##_integers(void *context, int64_t begin, int64_t end) { \
    const struct compare *s = context; \
    int64_t index[UNIC_MAX_RANK], left; \
    for (int64_t i = begin; i < end; i++) { \
      uint8_t *to = (uint8_t *)s->to + unic_walk_find(&s->walk, 0, i, index, &left); \
      if (s->a && s->b) { \
        const int64_t a = as_integer(s, 1, i, s->a), b = as_integer(s, 2, i, s->b); \
        *to = (value); \
      } else { \
        const double a = s->a ? (double)as_integer(s, 1, i, s->a) : s->number, b = s->b ? (double)as_integer(s, 2, i, s->b) : s->number; \
        *to = (value); \
      } \
    } \
  } \
  static unic_status op##_forward(const unic_kernel *k) { return forward(k, unic_dtype_is_float(k->type) ? compare_##op[unic_isa_current()] : op##_integers); } \
  static unic_status op##_reference(const unic_kernel *k) { return forward(k, op##_f64); } \
  static const unic_op op_##op = { \
    .name = #op, .signature = "a: operand, b: operand -> y", \
    .doc = "Element by element, with broadcasting: " doc_ "? The result is bool.\n  a, b  tensors of one dtype, or a tensor and a number", \
    .layouts = "a:dense b:dense", .shape = shape, .cpu = {.forward = op##_forward, .reference = op##_reference}, \
    .flags = UNIC_OP_METHOD | UNIC_OP_INTS | UNIC_OP_NO_GRAD};
UNIC_COMPARE_ROWS(COMPARE)
#undef COMPARE

/* ---------------------------------------------------------------- of one tensor */

static unic_status one_shape(unic_call *c) {
  unic_out_like(c, 0, c->in[A]);
  c->out[0].dtype = UNIC_BOOL;
  return UNIC_OK;
}

static void not_rows(void *context, int64_t begin, int64_t end) {
  const struct compare *s = context;
  for (int64_t i = begin; i < end; i++) ((uint8_t *)s->to)[i] = unic_element_get(s->a, (unic_dtype)s->dtype, i) == 0;
}
static void nan_rows(void *context, int64_t begin, int64_t end) {
  const struct compare *s = context;
  for (int64_t i = begin; i < end; i++) ((uint8_t *)s->to)[i] = isnan(unic_element_get(s->a, (unic_dtype)s->dtype, i)) != 0;
}
static void inf_rows(void *context, int64_t begin, int64_t end) {
  const struct compare *s = context;
  for (int64_t i = begin; i < end; i++) ((uint8_t *)s->to)[i] = isinf(unic_element_get(s->a, (unic_dtype)s->dtype, i)) != 0;
}
static void finite_rows(void *context, int64_t begin, int64_t end) {
  const struct compare *s = context;
  for (int64_t i = begin; i < end; i++) ((uint8_t *)s->to)[i] = isfinite(unic_element_get(s->a, (unic_dtype)s->dtype, i)) != 0;
}

/* x is dense and y has its layout: element i of one is element i of the other. */
static unic_status one_forward(const unic_kernel *k, unic_body *rows) {
  struct compare s = {.to = k->out[0].data, .a = k->in[A].data, .dtype = k->in[A].dtype};
  unic_parallel_for(k->out[0].numel, 1 << 14, rows, &s);
  return UNIC_OK;
}
static unic_status not_forward(const unic_kernel *k) { return one_forward(k, not_rows); }
static unic_status nan_forward(const unic_kernel *k) { return one_forward(k, nan_rows); }
static unic_status inf_forward(const unic_kernel *k) { return one_forward(k, inf_rows); }
static unic_status finite_forward(const unic_kernel *k) { return one_forward(k, finite_rows); }

#define ONE(op, fn, doc_) \
  static const unic_op op_##op = { \
    .name = #op, .signature = "x: tensor<any> -> y", .doc = "Element by element: " doc_ "? The result is bool.", .layouts = "x:dense", .shape = one_shape, \
    .cpu = {.forward = fn}, .flags = UNIC_OP_METHOD | UNIC_OP_NO_GRAD};
ONE(logical_not, not_forward, "is it zero")
ONE(isnan, nan_forward, "is it not a number")
ONE(isinf, inf_forward, "is it infinite")
ONE(isfinite, finite_forward, "is it neither infinite nor NaN")

#define COMPARE(op, value, doc) &op_##op,
UNIC_OPS(compare, UNIC_COMPARE_ROWS(COMPARE) &op_logical_not, &op_isnan, &op_isinf, &op_isfinite);

#endif
