/* cumsum: y[.., i, ..] = x[.., 0, ..] + ... + x[.., i, ..] along a dimension; dx = the sums of dy from the other end.
 *
 * Any strides; y is row-major. Floats are added up in f64 and rounded element by element; integers sum to i64. Each line is added up in order by
 * one thread: any number of threads gives the same bits. */
#include "move.h"
#include "walk.h"

enum { X, DIM };

struct cumsum {
  unic_view from, to;          /* the dimension last */
  int64_t length;
  bool backwards;
  int accumulate;
};

/* Lines [begin, end), in the plain order of the other dimensions. */
#define LINES(name, type, get, put) \
  static void name(void *context, int64_t begin, int64_t end) { \
    const struct cumsum *s = context; \
    int last = s->from.ndim - 1; \
    for (int64_t line = begin; line < end; line++) { \
      int64_t from = 0, to = 0, rest = line, fs = s->from.stride[last], ts = s->to.stride[last]; \
      for (int d = last - 1; d >= 0; d--) { \
        int64_t i = rest % s->from.shape[d]; \
        rest /= s->from.shape[d]; \
        from += i * s->from.stride[d]; \
        to += i * s->to.stride[d]; \
      } \
      if (s->backwards) { from += (s->length - 1) * fs; to += (s->length - 1) * ts; fs = -fs; ts = -ts; } \
      type sum = 0; \
      for (int64_t i = 0; i < s->length; i++, from += fs, to += ts) { sum += (type)(get); put; } \
    } \
  }
LINES(lines_float, double, unic_element_get(s->from.data, (unic_dtype)s->from.dtype, from),
      unic_element_set(s->to.data, (unic_dtype)s->to.dtype, to, (s->accumulate ? unic_element_get(s->to.data, (unic_dtype)s->to.dtype, to) : 0) + sum))
LINES(lines_i64, uint64_t, s->from.dtype == UNIC_I64 ? ((const int64_t *)s->from.data)[from] : (int64_t)unic_element_get(s->from.data, (unic_dtype)s->from.dtype, from),
      ((int64_t *)s->to.data)[to] = (int64_t)sum)

static unic_status shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int dim;
  if (x->ndim == 0) return unic_fail_arg(c, X, "it has no dimensions to sum along");
  UNIC_TRY(unic_dim(c, DIM, c->arg[DIM].integer, x->ndim, &dim));
  unic_out(c, 0, unic_dtype_is_float(x->dtype) ? x->dtype : UNIC_I64, x->ndim, x->shape);
  return UNIC_OK;
}

/* The view with dimension dim moved to the end. */
static unic_view dim_last(const unic_view *v, int dim) {
  unic_view w = *v;
  for (int d = dim; d + 1 < v->ndim; d++) { w.shape[d] = v->shape[d + 1]; w.stride[d] = v->stride[d + 1]; }
  w.shape[v->ndim - 1] = v->shape[dim];
  w.stride[v->ndim - 1] = v->stride[dim];
  return w;
}

static unic_status run(const unic_kernel *k) {
  const unic_view *from = k->backward ? &k->dout[0] : &k->in[X], *to = k->backward ? &k->din[X] : &k->out[0];
  int dim = unic_dim_of(k->arg[DIM].integer, from->ndim);
  struct cumsum s = {.from = dim_last(from, dim), .to = dim_last(to, dim), .length = from->shape[dim], .backwards = k->backward, .accumulate = k->backward ? k->accumulate[X] : 0};
  if (to->numel == 0) return UNIC_OK;
  int64_t chunk = UNIC_WALK_CHUNK / s.length;
  unic_parallel_for(to->numel / s.length, chunk < 1 ? 1 : chunk, unic_dtype_is_float((unic_dtype)from->dtype) ? lines_float : lines_i64, &s);
  return UNIC_OK;
}

static const unic_op op_cumsum = {
  .name = "cumsum",
  .signature = "x: tensor, dim: int = -1 -> y",
  .doc = "Running sums along a dimension (integers sum to i64).\n"
         "dim  the dimension, counted from 1 or from the end",
  .grads = "x",
  .layouts = "x:any",
  .shape = shape,
  .cpu = {.forward = run, .backward = run},
  .flags = UNIC_OP_METHOD | UNIC_OP_INTS,
  .autocast = UNIC_CAST_FULL,
};

UNIC_OPS(cumsum, &op_cumsum);
