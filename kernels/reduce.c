/* Reductions over any set of dimensions: sum mean prod max min any all var norm (L2) logsumexp.
 *
 *   y[kept] = f(x[kept, reduced]);  dims = {} reduces all; keepdim leaves size 1 where a dimension was reduced
 * x is walked with the kept dimensions outside and the reduced ones inside when memory lies so, the other way round (rows of kept elements)
 * when a kept dimension is innermost. Sums run in f64 over fixed pieces of UNIC_ROW elements of f32 lanes: any_threads, and close to exact.
 * Saved: x (max, min, prod, var, norm, logsumexp) and y (max, min, norm, logsumexp, prod). Ties of max and min share the gradient. */
#include "walk.h"

#include <stdlib.h>

enum { X, DIMS, KEEPDIM, UNBIASED };
enum { SUM, MEAN, PROD, MAX, MIN, ANY, ALL, VAR, NORM, LOGSUMEXP };

struct reduce {
  unic_walk walk;              /* shape and strides of x (operand 0) and y (operand 1, stride 0 where reduced); kept dimensions first */
  int kind, dtype, out_dtype, accumulate;
  int kept_dims;               /* how many of the walk's dimensions are kept */
  int64_t kept, reduced;
  const void *x, *y, *dy;
  void *to;
  double correction;           /* of var */
  unic_view dx;
};

#if UNIC_LOOPS

/* Sum of n floats in 16 lanes, in f64 per row. */
static inline double row_sum(const float *restrict x, int64_t n) {
  float s = 0;
  #pragma omp simd reduction(+ : s)
  for (int64_t i = 0; i < n; i++) s += x[i];
  return (double)s;
}

/* Sums and means of f32, bf16, f16 where the reduced elements of each kept one are read row by row: kept elements [begin, end). */
UNIC_LOOP(reduce_sum_rows) {
  const struct reduce *r = context;
  float buffer[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  for (int64_t k = begin; k < end; k++) {
    double total = 0;
    for (int64_t at = 0; at < r->reduced; at += UNIC_ROW) {
      int64_t n = r->reduced - at < UNIC_ROW ? r->reduced - at : UNIC_ROW;
      total += row_sum(unic_walk_load(&r->walk, 0, k * r->reduced + at, n, r->x, r->dtype, buffer, raw), n);
    }
    ((double *)r->to)[k] = total;
  }
}

/* The same with the reduced dimensions outside: rows of kept elements [begin, end) are added up. */
UNIC_LOOP(reduce_sum_columns) {
  const struct reduce *r = context;
  float buffer[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  for (int64_t k = begin; k < end; k += UNIC_ROW) {
    int64_t n = end - k < UNIC_ROW ? end - k : UNIC_ROW;
    double *restrict total = (double *)r->to + k;
    for (int64_t i = 0; i < n; i++) total[i] = 0;
    for (int64_t j = 0; j < r->reduced; j++) {
      const float *restrict x = unic_walk_load(&r->walk, 0, j * r->kept + k, n, r->x, r->dtype, buffer, raw);
      for (int64_t i = 0; i < n; i++) total[i] += (double)x[i];
    }
  }
}

#else

UNIC_LOOP_TABLE(reduce_sum_rows);
UNIC_LOOP_TABLE(reduce_sum_columns);

static int kind_of(const unic_op *op) {
  static const char *const names[] = {"sum", "mean", "prod", "max", "min", "any", "all", "var", "norm", "logsumexp"};
  for (int i = 0; i < 10; i++) if (strcmp(op->name, names[i]) == 0) return i;
  return SUM;
}

static uint32_t reduced_mask(const unic_value *dims, int ndim) {
  uint32_t mask = 0;
  for (int64_t i = 0; i < dims->integer; i++) mask |= 1u << (dims->ints[i] > 0 ? dims->ints[i] - 1 : dims->ints[i] + ndim);
  return dims->integer == 0 ? (1u << ndim) - 1 : mask;
}

static unic_status shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  const unic_value *dims = &c->arg[DIMS];
  int kind = kind_of(c->op), n = 0;
  uint32_t seen = 0;
  for (int64_t i = 0; i < dims->integer; i++) {
    int d;
    if (x->ndim == 0) return unic_fail_arg(c, DIMS, "the tensor has no dimensions to reduce");
    UNIC_TRY(unic_dim(c, DIMS, dims->ints[i], x->ndim, &d));
    if (seen & (1u << d)) return unic_fail_arg(c, DIMS, "dimension %d was given twice", d + 1);
    seen |= 1u << d;
  }
  uint32_t mask = reduced_mask(dims, x->ndim);
  int64_t out[UNIC_MAX_RANK], reduced = 1;
  for (int d = 0; d < x->ndim; d++) {
    if (mask & (1u << d)) reduced *= x->shape[d];
    if (!(mask & (1u << d))) out[n++] = x->shape[d];
    else if (c->arg[KEEPDIM].integer) out[n++] = 1;
  }
  if (reduced == 0 && (kind == MAX || kind == MIN)) return unic_fail_arg(c, X, "nothing to reduce: the reduced dimensions hold no elements, %s of nothing is undefined", c->op->name);
  if (!unic_dtype_is_float(x->dtype) && kind != SUM && kind != MAX && kind != MIN && kind != ANY && kind != ALL && kind != PROD)
    return unic_fail_arg(c, X, "%s was given, expected a floating type; t:cast(\"f32\") converts it", unic_dtype_name(x->dtype));
  unic_dtype type = x->dtype;
  if (kind == ANY || kind == ALL) type = UNIC_BOOL;
  else if ((kind == SUM || kind == PROD) && !unic_dtype_is_float(type)) type = UNIC_I64;
  unic_out(c, 0, type, n, out);
  return UNIC_OK;
}

/* x's dimensions sorted into kept and reduced; `rows`: reduced innermost. */
static void prepare(const unic_kernel *k, struct reduce *r, bool rows) {
  const unic_view *x = &k->in[X];
  uint32_t mask = reduced_mask(&k->arg[DIMS], x->ndim);
  unic_walk *w = &r->walk;
  w->operands = 1;
  w->ndim = 0;
  w->numel = x->numel;
  r->kept = r->reduced = 1;
  for (int d = 0; d < x->ndim; d++) *(mask & (1u << d) ? &r->reduced : &r->kept) *= x->shape[d];
  for (int pass = 0; pass < 2; pass++)
    for (int d = 0; d < x->ndim; d++) {
      bool reduced = mask & (1u << d);
      if (reduced != ((pass == 1) == rows)) continue;
      /* Merge with the dimension before when memory runs on. */
      if (w->ndim > 0 && d > 0 && (((mask >> (d - 1)) & 1) != 0) == reduced && w->stride[0][w->ndim - 1] == x->stride[d] * x->shape[d]) {
        w->shape[w->ndim - 1] *= x->shape[d];
        w->stride[0][w->ndim - 1] = x->stride[d];
        continue;
      }
      w->shape[w->ndim] = x->shape[d];
      w->stride[0][w->ndim++] = x->stride[d];
    }
  if (w->ndim == 0) {
    w->ndim = 1;
    w->shape[0] = 1;
    w->stride[0][0] = 1;
  }
}

/* Are reduced elements the ones that lie side by side? */
static bool rows_first(const unic_view *x, uint32_t mask) {
  int best = -1;
  for (int d = 0; d < x->ndim; d++)
    if (x->shape[d] != 1 && (best < 0 || llabs(x->stride[d]) < llabs(x->stride[best]))) best = d;
  return best < 0 || (mask & (1u << best));
}

static unic_status plan(const unic_kernel *k, unic_plan *p) {
  int kind = kind_of(k->op);
  int64_t kept = k->out[0].numel;
  /* f64 totals of every kept element; one long sum is cut into pieces. */
  if (!k->backward && (kind == SUM || kind == MEAN)) p->scratch = (kept > 1024 ? kept : 1024) * (int64_t)sizeof(double);
  return UNIC_OK;
}

static double element(const struct reduce *r, int64_t i) {
  int64_t index[UNIC_MAX_RANK], left;
  return unic_element_get(r->x, (unic_dtype)r->dtype, unic_walk_find(&r->walk, 0, i, index, &left));
}

/* Everything but sum and mean, and every f64 form: kept elements [begin, end), one after the other, in f64. */
static void general_rows(void *context, int64_t begin, int64_t end) {
  const struct reduce *r = context;
  for (int64_t k = begin; k < end; k++) {
    int64_t first = k * r->reduced, n = r->reduced;
    double v = 0;
    if (r->dtype == UNIC_I64 && (r->kind == SUM || r->kind == MAX || r->kind == MIN || r->kind == PROD)) {
      int64_t total = r->kind == PROD, index[UNIC_MAX_RANK], left;
      for (int64_t i = 0; i < n; i++) {
        int64_t x = ((const int64_t *)r->x)[unic_walk_find(&r->walk, 0, first + i, index, &left)];
        if (r->kind == SUM) total += x;
        else if (r->kind == PROD) total *= x;
        else if (i == 0 || (r->kind == MAX ? x > total : x < total)) total = x;
      }
      ((int64_t *)r->to)[k] = total;
      continue;
    }
    switch (r->kind) {
      case SUM: case MEAN:
        for (int64_t i = 0; i < n; i++) v += element(r, first + i);
        if (r->kind == MEAN) v /= (double)n;
        break;
      case PROD:
        v = 1;
        for (int64_t i = 0; i < n; i++) v *= element(r, first + i);
        break;
      case MAX: case MIN:
        v = element(r, first);
        for (int64_t i = 1; i < n; i++) {
          double x = element(r, first + i);
          if (x != x || (r->kind == MAX ? x > v : x < v)) v = v != v ? v : x;
        }
        break;
      case ANY:
        for (int64_t i = 0; i < n && v == 0; i++) v = element(r, first + i) != 0;
        break;
      case ALL:
        v = 1;
        for (int64_t i = 0; i < n && v != 0; i++) v = element(r, first + i) != 0;
        break;
      case VAR: {
        double mean = 0;
        for (int64_t i = 0; i < n; i++) mean += element(r, first + i);
        mean /= (double)n;
        for (int64_t i = 0; i < n; i++) { double d = element(r, first + i) - mean; v += d * d; }
        v /= (double)n - r->correction;
        break;
      }
      case NORM:
        for (int64_t i = 0; i < n; i++) { double x = element(r, first + i); v += x * x; }
        v = sqrt(v);
        break;
      default: {
        double most = -INFINITY;
        for (int64_t i = 0; i < n; i++) { double x = element(r, first + i); if (x > most || x != x) most = x; }
        if (isfinite(most)) {
          for (int64_t i = 0; i < n; i++) v += exp(element(r, first + i) - most);
          v = most + log(v);
        } else v = most;
      }
    }
    unic_element_set(r->to, (unic_dtype)r->out_dtype, k, v);
  }
}

static void begin_reduce(const unic_kernel *k, struct reduce *r) {
  r->kind = kind_of(k->op);
  r->dtype = k->in[X].dtype;
  r->out_dtype = k->out[0].dtype;
  r->x = k->in[X].data;
  r->y = k->out[0].data;
  r->to = k->out[0].data;
  r->correction = r->kind == VAR && k->arg[UNBIASED].integer ? 1 : 0;
}

static unic_status reference(const unic_kernel *k) {
  struct reduce r;
  begin_reduce(k, &r);
  prepare(k, &r, true);
  int64_t chunk = r.reduced > 0 ? 16384 / r.reduced : 1;
  unic_parallel_for(r.kept, chunk < 1 ? 1 : chunk, general_rows, &r);
  return UNIC_OK;
}

static unic_status forward(const unic_kernel *k) {
  struct reduce r;
  begin_reduce(k, &r);
  if ((r.kind != SUM && r.kind != MEAN) || !unic_dtype_is_float((unic_dtype)r.dtype)) return reference(k);
  double *totals = k->scratch, scale = 1;
  bool rows = rows_first(&k->in[X], reduced_mask(&k->arg[DIMS], k->in[X].ndim));
  prepare(k, &r, rows);
  if (r.kind == MEAN) scale = 1.0 / (double)r.reduced;
  r.to = totals;
  if (r.kept == 1 && r.reduced > 1024) {
    /* One long sum: at most 1024 fixed pieces take the place of kept elements. */
    int64_t total = r.reduced, piece = (total + 1023) / 1024;
    if (piece < 16 * UNIC_ROW) piece = 16 * UNIC_ROW;
    int64_t whole = total / piece;
    double sum = 0;
    struct reduce part = r;
    part.kept = whole;
    part.reduced = piece;
    UNIC_RUN(reduce_sum_rows, whole, 1, &part);
    for (int64_t i = 0; i < whole; i++) sum += totals[i];
    float buffer[256];
    for (int64_t i = whole * piece; i < total; i += 256) {
      int64_t n = total - i < 256 ? total - i : 256;
      for (int64_t j = 0; j < n; j++) buffer[j] = (float)element(&r, i + j);
      for (int64_t j = 0; j < n; j++) sum += (double)buffer[j];
    }
    totals[0] = sum;
  } else if (rows) {
    int64_t chunk = r.reduced > 0 ? UNIC_WALK_CHUNK / r.reduced : r.kept;
    UNIC_RUN(reduce_sum_rows, r.kept, chunk < 1 ? 1 : chunk, &r);
  } else {
    UNIC_RUN(reduce_sum_columns, r.kept, UNIC_ROW, &r);
  }
  for (int64_t i = 0; i < r.kept; i++) unic_element_set(k->out[0].data, k->out[0].dtype, i, totals[i] * scale);
  return UNIC_OK;
}

/* dx[kept, reduced] from y and dy [kept]: kept elements [begin, end). */
static void backward_rows(void *context, int64_t begin, int64_t end) {
  const struct reduce *r = context;
  int64_t index[UNIC_MAX_RANK], left;
  for (int64_t k = begin; k < end; k++) {
    int64_t first = k * r->reduced, n = r->reduced;
    double dy = unic_element_get(r->dy, (unic_dtype)r->out_dtype, k), y = r->y ? unic_element_get(r->y, (unic_dtype)r->out_dtype, k) : 0;
    double mean = 0, share = 0;
    int64_t zeros = 0;
    double others = 1;
    if (r->kind == VAR) { for (int64_t i = 0; i < n; i++) mean += element(r, first + i); mean /= (double)n; }
    if (r->kind == MAX || r->kind == MIN) for (int64_t i = 0; i < n; i++) { double x = element(r, first + i); share += x == y || (x != x && y != y); }
    if (r->kind == PROD) for (int64_t i = 0; i < n; i++) { double x = element(r, first + i); if (x == 0) zeros++; else others *= x; }
    for (int64_t i = 0; i < n; i++) {
      double x = r->x ? element(r, first + i) : 0, g;
      switch (r->kind) {
        case SUM: g = dy; break;
        case MEAN: g = dy / (double)n; break;
        case PROD: g = zeros == 0 ? dy * y / x : zeros == 1 && x == 0 ? dy * others : 0; break;
        case MAX: case MIN: g = x == y || (x != x && y != y) ? dy / share : 0; break;
        case VAR: g = dy * 2 * (x - mean) / ((double)n - r->correction); break;
        case NORM: g = y == 0 ? 0 : dy * x / y; break;
        default: g = dy * exp(x - y);
      }
      int64_t at = unic_walk_find(&r->walk, 1, first + i, index, &left);
      if (r->accumulate) g += unic_element_get(r->dx.data, r->dx.dtype, at);
      unic_element_set(r->dx.data, r->dx.dtype, at, g);
    }
  }
}

static unic_status backward(const unic_kernel *k) {
  struct reduce r;
  if (!k->din[X].present || k->din[X].numel == 0) return UNIC_OK;
  begin_reduce(k, &r);
  prepare(k, &r, true);
  r.dx = k->din[X];
  r.dy = k->dout[0].data;
  r.accumulate = k->accumulate[X];
  /* dx beside x: the same dimensions in the same order, dx's strides. */
  uint32_t mask = reduced_mask(&k->arg[DIMS], k->in[X].ndim);
  unic_walk *w = &r.walk;
  w->operands = 2;
  int n = 0;
  for (int pass = 0; pass < 2; pass++)
    for (int d = 0; d < k->in[X].ndim; d++) {
      if (((mask >> d) & 1) != (unsigned)pass) continue;
      w->shape[n] = k->in[X].shape[d];
      w->stride[0][n] = k->in[X].stride[d];
      w->stride[1][n++] = k->din[X].stride[d];
    }
  w->ndim = n > 0 ? n : 1;
  if (n == 0) { w->shape[0] = 1; w->stride[0][0] = w->stride[1][0] = 1; }
  int64_t chunk = r.reduced > 0 ? 16384 / r.reduced : 1;
  unic_parallel_for(r.kept, chunk < 1 ? 1 : chunk, backward_rows, &r);
  return UNIC_OK;
}

#define REDUCE(op, saved, graded, extra, doc_, flags_) \
  static const unic_op op_##op = { \
    .name = #op, .signature = "x: tensor, dims: ints = {}, keepdim: bool = false" extra " -> y", \
    .doc = doc_ "\n  dims  which dimensions are reduced, {1, -1} (nil: all)\n  keepdim  leave size 1 where a dimension was reduced", \
    .saves = saved, .grads = graded, .layouts = "x:any", .shape = shape, .plan = plan, .cpu = {forward, backward, reference, backward}, \
    .flags = UNIC_OP_METHOD | UNIC_OP_INTS | (flags_), .autocast = UNIC_CAST_FULL};
REDUCE(sum, "", "x", "", "The sum over some dimensions (integers sum to i64).", 0)
REDUCE(mean, "", "x", "", "The mean over some dimensions.", 0)
REDUCE(prod, "x y", "x", "", "The product over some dimensions.", 0)
REDUCE(max, "x y", "x", "", "The largest value over some dimensions; ties share the gradient.", 0)
REDUCE(min, "x y", "x", "", "The smallest value over some dimensions; ties share the gradient.", 0)
REDUCE(any, "", NULL, "", "Is any element not zero? The result is bool.", UNIC_OP_NO_GRAD)
REDUCE(all, "", NULL, "", "Are all elements not zero? The result is bool.", UNIC_OP_NO_GRAD)
REDUCE(var, "x", "x", ", unbiased: bool = true", "The variance over some dimensions (unbiased: divided by n - 1).", 0)
REDUCE(norm, "x y", "x", "", "The L2 norm over some dimensions; its gradient at 0 is 0.", 0)
REDUCE(logsumexp, "x y", "x", "", "log(sum(exp(x))) over some dimensions, without overflow.", 0)

/* ---------------------------------------------------------------- argmax, argmin */

enum { ARG_DIM = 1, ARG_KEEPDIM };

static unic_status arg_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int dim, n = 0;
  int64_t out[UNIC_MAX_RANK];
  if (x->ndim == 0) return unic_fail_arg(c, X, "it has no dimensions to search");
  UNIC_TRY(unic_dim(c, ARG_DIM, c->arg[ARG_DIM].integer, x->ndim, &dim));
  if (x->shape[dim] == 0) return unic_fail_arg(c, X, "dimension %d holds no elements, the position of the largest is undefined", dim + 1);
  for (int d = 0; d < x->ndim; d++)
    if (d != dim) out[n++] = x->shape[d];
    else if (c->arg[ARG_KEEPDIM].integer) out[n++] = 1;
  unic_out(c, 0, UNIC_I64, n, out);
  return UNIC_OK;
}

struct search { unic_view x; int64_t *to; int dim; bool most; };

static void search_rows(void *context, int64_t begin, int64_t end) {
  const struct search *s = context;
  for (int64_t k = begin; k < end; k++) {
    int64_t rest = k, at = 0, best = 0;
    for (int d = s->x.ndim - 1; d >= 0; d--) {
      if (d == s->dim) continue;
      at += rest % s->x.shape[d] * s->x.stride[d];
      rest /= s->x.shape[d];
    }
    double value = unic_element_get(s->x.data, s->x.dtype, at);
    for (int64_t i = 1; i < s->x.shape[s->dim] && value == value; i++) {   /* a NaN wins, the first of equals stays */
      double v = unic_element_get(s->x.data, s->x.dtype, at + i * s->x.stride[s->dim]);
      if (v != v || (s->most ? v > value : v < value)) { value = v; best = i; }
    }
    s->to[k] = best;
  }
}

static unic_status arg_forward(const unic_kernel *k) {
  int64_t dim = k->arg[ARG_DIM].integer;
  struct search s = {k->in[X], k->out[0].data, (int)(dim > 0 ? dim - 1 : dim + k->in[X].ndim), strcmp(k->op->name, "argmax") == 0};
  unic_parallel_for(k->out[0].numel, 256, search_rows, &s);
  return UNIC_OK;
}

#define ARG(op, doc_) \
  static const unic_op op_##op = { \
    .name = #op, .signature = "x: tensor<any>, dim: int = -1, keepdim: bool = false -> y", \
    .doc = doc_ " Positions in the result count from 0; NaN counts as found, the first of equals wins.\n  dim  the dimension searched\n  keepdim  leave size 1 there", \
    .layouts = "x:any", .shape = arg_shape, .cpu = {.forward = arg_forward}, .flags = UNIC_OP_METHOD | UNIC_OP_NO_GRAD};
ARG(argmax, "Where the largest element of a dimension stands (i64).")
ARG(argmin, "Where the smallest element of a dimension stands (i64).")

UNIC_OPS(reduce, &op_sum, &op_mean, &op_prod, &op_max, &op_min, &op_any, &op_all, &op_var, &op_norm, &op_logsumexp, &op_argmax, &op_argmin);

#endif
