/* argmax, argmin: where the largest (smallest) element of a dimension stands, counted from 0. The first of equals wins; a NaN counts as found,
 * the first of those too. Any dtype and strides; no gradient. Any number of threads gives the same bits. */
#include "move.h"
#include "walk.h"

enum { X, DIM, KEEPDIM };

struct search {
  unic_walk walk;              /* of x, the searched dimension inside */
  const void *x;
  int64_t *to;
  int64_t length;
  int dtype;
  bool most;
};

static unic_status shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int dim, n = 0;
  int64_t out[UNIC_MAX_RANK];
  if (x->ndim == 0) return unic_fail_arg(c, X, "it has no dimensions to search");
  UNIC_TRY(unic_dim(c, DIM, c->arg[DIM].integer, x->ndim, &dim));
  if (x->shape[dim] == 0) return unic_fail_arg(c, X, "dimension %d holds no elements, %s of nothing is undefined", dim + 1, c->op->name);
  for (int d = 0; d < x->ndim; d++)
    if (d != dim) out[n++] = x->shape[d];
    else if (c->arg[KEEPDIM].integer) out[n++] = 1;
  unic_out(c, 0, UNIC_I64, n, out);
  return UNIC_OK;
}

/* One scan for each type that values are compared in: floats and small integers as f64, i64 as it is. */
#define SEARCH(name, type, in_type) \
  static void name(void *context, int64_t begin, int64_t end) { \
    const struct search *s = context; \
    uint64_t raw[UNIC_ROW]; \
    type row[UNIC_ROW]; \
    for (int64_t k = begin; k < end; k++) { \
      type best = 0; \
      int64_t where = -1; \
      for (int64_t at = 0; at < s->length; at += UNIC_ROW) { \
        int64_t n = s->length - at < UNIC_ROW ? s->length - at : UNIC_ROW; \
        unic_row_convert(unic_walk_row(&s->walk, 0, k * s->length + at, n, s->x, s->dtype, raw), s->dtype, row, in_type, n); \
        for (int64_t i = 0; i < n; i++) { \
          type v = row[i]; \
          bool better = where < 0 || (best == best && (v != v || (s->most ? v > best : v < best))); \
          if (better) { best = v; where = at + i; } \
        } \
      } \
      s->to[k] = where; \
    } \
  }
SEARCH(search_floats, double, UNIC_F64)
SEARCH(search_integers, int64_t, UNIC_I64)

static unic_status forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  int dim = unic_dim_of(k->arg[DIM].integer, x->ndim);
  struct search s = {.x = x->data, .to = k->out[0].data, .length = x->shape[dim], .dtype = x->dtype, .most = strcmp(k->op->name, "argmax") == 0};
  unic_walk *w = &s.walk;
  w->operands = 1;
  for (int d = 0; d < x->ndim; d++) {
    if (d == dim) continue;
    w->shape[w->ndim] = x->shape[d];
    w->stride[0][w->ndim++] = x->stride[d];
  }
  w->shape[w->ndim] = x->shape[dim];
  w->stride[0][w->ndim++] = x->stride[dim];
  int64_t chunk = UNIC_WALK_CHUNK / s.length;
  unic_parallel_for(k->out[0].numel, chunk < 1 ? 1 : chunk, unic_dtype_is_float((unic_dtype)x->dtype) ? search_floats : search_integers, &s);
  return UNIC_OK;
}

#define SEARCH_OP(op, doc_) \
  static const unic_op op_##op = { \
    .name = #op, .signature = "x: tensor<any>, dim: int = -1, keepdim: bool = false -> y", \
    .doc = doc_ " The first of equals wins; a NaN counts as found.\n" \
           "dim      the dimension searched, counted from 1 or from the end\nkeepdim  leave size 1 there", \
    .layouts = "x:any", .shape = shape, .cpu = {.forward = forward}, .flags = UNIC_OP_METHOD | UNIC_OP_NO_GRAD};
SEARCH_OP(argmax, "Where the largest element of a dimension stands, counted from 0 (i64).")
SEARCH_OP(argmin, "Where the smallest element of a dimension stands, counted from 0 (i64).")

UNIC_OPS(argmax, &op_argmax, &op_argmin);
