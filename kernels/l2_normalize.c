/* l2_normalize: vectors of length one along a dimension.
 *
 *   y = x / max(|x|, eps),  |x| = sqrt(sum x^2) along the dimension
 *   dx = (dy - x (sum x dy) / |x|^2) / |x|, or dy / eps where |x| <= eps
 *
 * x, y: any shape, row-major or channels-last, seen in memory as [outer, n, inner]; norm [outer inner].
 * Squares are summed in f64: any f32 vector has a norm, none overflows or vanishes on the way.
 *
 * Saved: x, norm. Bits: equal at any thread count. */
#include "loops.h"

enum { X, DIM, EPS };
enum { Y, NORM };
enum { COLUMNS = 64 };

struct normalize { const void *x, *dy; void *to; float *norm; int64_t n, inner; int dtype, accumulate; double eps; };

#if UNIC_LOOPS

UNIC_LOOP(l2_rows) {
  const struct normalize *s = context;
  float buffer[UNIC_ROW], out[UNIC_ROW];
  for (int64_t r = begin; r < end; r++) {
    int64_t at = r * s->n;
    double sum = 0;
    for (int64_t j = 0; j < s->n; j += UNIC_ROW) {
      int64_t c = s->n - j < UNIC_ROW ? s->n - j : UNIC_ROW;
      const float *x = unic_row_load(s->x, s->dtype, at + j, c, buffer);
      #pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < c; i++) sum += (double)x[i] * x[i];
    }
    double norm = sqrt(sum), f = 1 / (norm > s->eps || norm != norm ? norm : s->eps);
    if (s->norm) s->norm[r] = (float)norm;
    for (int64_t j = 0; j < s->n; j += UNIC_ROW) {
      int64_t c = s->n - j < UNIC_ROW ? s->n - j : UNIC_ROW;
      const float *x = unic_row_load(s->x, s->dtype, at + j, c, buffer);
      float *y = unic_row_place(s->to, s->dtype, at + j, out);
      #pragma omp simd
      for (int64_t i = 0; i < c; i++) y[i] = (float)(x[i] * f);
      unic_row_store(s->to, s->dtype, at + j, c, y);
    }
  }
}

/* Item: 64 columns. */
UNIC_LOOP(l2_columns) {
  const struct normalize *s = context;
  int64_t blocks = (s->inner + COLUMNS - 1) / COLUMNS;
  float buffer[COLUMNS], out[COLUMNS];
  double sum[COLUMNS];
  for (int64_t item = begin; item < end; item++) {
    int64_t first = item % blocks * COLUMNS, slab = item / blocks, at = slab * s->n * s->inner + first;
    int64_t c = s->inner - first < COLUMNS ? s->inner - first : COLUMNS;
    for (int64_t i = 0; i < c; i++) sum[i] = 0;
    for (int64_t j = 0; j < s->n; j++) {
      const float *x = unic_row_load(s->x, s->dtype, at + j * s->inner, c, buffer);
      #pragma omp simd
      for (int64_t i = 0; i < c; i++) sum[i] += (double)x[i] * x[i];
    }
    for (int64_t i = 0; i < c; i++) {
      double norm = sqrt(sum[i]);
      if (s->norm) s->norm[slab * s->inner + first + i] = (float)norm;
      sum[i] = 1 / (norm > s->eps || norm != norm ? norm : s->eps);
    }
    for (int64_t j = 0; j < s->n; j++) {
      const float *x = unic_row_load(s->x, s->dtype, at + j * s->inner, c, buffer);
      float *y = unic_row_place(s->to, s->dtype, at + j * s->inner, out);
      #pragma omp simd
      for (int64_t i = 0; i < c; i++) y[i] = (float)(x[i] * sum[i]);
      unic_row_store(s->to, s->dtype, at + j * s->inner, c, y);
    }
  }
}

UNIC_LOOP(l2_rows_backward) {
  const struct normalize *s = context;
  float xbuffer[UNIC_ROW], dbuffer[UNIC_ROW], out[UNIC_ROW];
  for (int64_t r = begin; r < end; r++) {
    int64_t at = r * s->n;
    double dot = 0, norm = s->norm[r], f = 1 / s->eps;
    if (norm > s->eps || norm != norm) {
      for (int64_t j = 0; j < s->n; j += UNIC_ROW) {
        int64_t c = s->n - j < UNIC_ROW ? s->n - j : UNIC_ROW;
        const float *x = unic_row_load(s->x, s->dtype, at + j, c, xbuffer), *dy = unic_row_load(s->dy, s->dtype, at + j, c, dbuffer);
        #pragma omp simd reduction(+ : dot)
        for (int64_t i = 0; i < c; i++) dot += (double)x[i] * dy[i];
      }
      f = 1 / norm;
      dot = dot * f * f;
    }
    for (int64_t j = 0; j < s->n; j += UNIC_ROW) {
      int64_t c = s->n - j < UNIC_ROW ? s->n - j : UNIC_ROW;
      const float *x = unic_row_load(s->x, s->dtype, at + j, c, xbuffer), *dy = unic_row_load(s->dy, s->dtype, at + j, c, dbuffer);
      #pragma omp simd
      for (int64_t i = 0; i < c; i++) out[i] = (float)((dy[i] - x[i] * dot) * f);
      unic_row_put(s->to, s->dtype, at + j, c, out, s->accumulate);
    }
  }
}

UNIC_LOOP(l2_columns_backward) {
  const struct normalize *s = context;
  int64_t blocks = (s->inner + COLUMNS - 1) / COLUMNS;
  float xbuffer[COLUMNS], dbuffer[COLUMNS], out[COLUMNS];
  double dot[COLUMNS], f[COLUMNS];
  for (int64_t item = begin; item < end; item++) {
    int64_t first = item % blocks * COLUMNS, slab = item / blocks, at = slab * s->n * s->inner + first;
    int64_t c = s->inner - first < COLUMNS ? s->inner - first : COLUMNS;
    for (int64_t i = 0; i < c; i++) dot[i] = 0;
    for (int64_t j = 0; j < s->n; j++) {
      const float *x = unic_row_load(s->x, s->dtype, at + j * s->inner, c, xbuffer), *dy = unic_row_load(s->dy, s->dtype, at + j * s->inner, c, dbuffer);
      #pragma omp simd
      for (int64_t i = 0; i < c; i++) dot[i] += (double)x[i] * dy[i];
    }
    for (int64_t i = 0; i < c; i++) {
      double norm = s->norm[slab * s->inner + first + i];
      bool live = norm > s->eps || norm != norm;
      f[i] = 1 / (live ? norm : s->eps);
      dot[i] = live ? dot[i] * f[i] * f[i] : 0;
    }
    for (int64_t j = 0; j < s->n; j++) {
      const float *x = unic_row_load(s->x, s->dtype, at + j * s->inner, c, xbuffer), *dy = unic_row_load(s->dy, s->dtype, at + j * s->inner, c, dbuffer);
      #pragma omp simd
      for (int64_t i = 0; i < c; i++) out[i] = (float)((dy[i] - x[i] * dot[i]) * f[i]);
      unic_row_put(s->to, s->dtype, at + j * s->inner, c, out, s->accumulate);
    }
  }
}

#else

UNIC_LOOP_TABLE(l2_rows);
UNIC_LOOP_TABLE(l2_columns);
UNIC_LOOP_TABLE(l2_rows_backward);
UNIC_LOOP_TABLE(l2_columns_backward);

static unic_status l2_normalize_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int dim;
  if (x->ndim == 0) return unic_fail_arg(c, X, "it has no dimension, at least one is expected");
  UNIC_TRY(unic_dim(c, DIM, c->arg[DIM].integer, x->ndim, &dim));
  if (!(c->arg[EPS].number > 0)) return unic_fail_arg(c, EPS, "%g was given, expected a number above 0", c->arg[EPS].number);
  unic_out_like(c, Y, x);
  int64_t vectors = 1;
  for (int d = 0; d < x->ndim; d++) if (d != dim) vectors *= x->shape[d];
  unic_out(c, NORM, unic_dtype_wide(c->type), 1, &vectors);
  return UNIC_OK;
}

/* [outer, n, inner] of a dense tensor around one of its dimensions. */
static void around(const unic_view *v, int64_t dim, int64_t *outer, int64_t *n, int64_t *inner) {
  int d = (int)(dim > 0 ? dim - 1 : v->ndim + dim);
  *n = v->shape[d];
  *inner = *n > 1 ? v->stride[d] : 1;
  *outer = *n * *inner > 0 ? v->numel / (*n * *inner) : 0;
}

static unic_status run(const unic_kernel *k, struct normalize *s, unic_body *const *rows, unic_body *const *columns) {
  int64_t outer, isa = unic_isa_current();
  around(&k->in[X], k->arg[DIM].integer, &outer, &s->n, &s->inner);
  s->dtype = k->type;
  s->eps = k->arg[EPS].number;
  if (k->in[X].numel == 0) return UNIC_OK;
  if (s->inner == 1) {
    unic_parallel_for(outer, s->n >= 1 << 14 ? 1 : (1 << 14) / s->n, rows[isa], s);
  } else {
    int64_t work = s->n * COLUMNS;
    unic_parallel_for(outer * ((s->inner + COLUMNS - 1) / COLUMNS), work >= 1 << 14 ? 1 : (1 << 14) / work, columns[isa], s);
  }
  return UNIC_OK;
}

static unic_status l2_normalize_forward(const unic_kernel *k) {
  struct normalize s = {.x = k->in[X].data, .to = k->out[Y].data, .norm = k->grad ? k->out[NORM].data : NULL};
  return run(k, &s, l2_rows, l2_columns);
}

static unic_status l2_normalize_backward(const unic_kernel *k) {
  struct normalize s = {.x = k->in[X].data, .dy = k->dout[Y].data, .to = k->din[X].data, .norm = k->out[NORM].data, .accumulate = k->accumulate[X]};
  return run(k, &s, l2_rows_backward, l2_columns_backward);
}

static unic_status l2_normalize_reference(const unic_kernel *k) {
  int64_t outer, n, inner;
  around(&k->in[X], k->arg[DIM].integer, &outer, &n, &inner);
  for (int64_t o = 0; o < outer; o++)
    for (int64_t i = 0; i < inner; i++) {
      const double *x = (const double *)k->in[X].data + o * n * inner + i;
      double *y = (double *)k->out[Y].data + o * n * inner + i, sum = 0;
      for (int64_t j = 0; j < n; j++) sum += x[j * inner] * x[j * inner];
      double norm = sqrt(sum), length = norm < k->arg[EPS].number ? k->arg[EPS].number : norm;
      if (k->grad) ((double *)k->out[NORM].data)[o * inner + i] = norm;
      for (int64_t j = 0; j < n; j++) y[j * inner] = x[j * inner] / length;
    }
  return UNIC_OK;
}

static unic_status l2_normalize_reference_backward(const unic_kernel *k) {
  int64_t outer, n, inner;
  around(&k->in[X], k->arg[DIM].integer, &outer, &n, &inner);
  for (int64_t o = 0; o < outer; o++)
    for (int64_t i = 0; i < inner; i++) {
      int64_t at = o * n * inner + i;
      const double *x = (const double *)k->in[X].data + at, *dy = (const double *)k->dout[Y].data + at;
      double *dx = (double *)k->din[X].data + at, norm = ((const double *)k->out[NORM].data)[o * inner + i], dot = 0, eps = k->arg[EPS].number;
      for (int64_t j = 0; j < n; j++) dot += x[j * inner] * dy[j * inner];
      for (int64_t j = 0; j < n; j++) {
        double d = norm <= eps ? dy[j * inner] / eps : dy[j * inner] / norm - x[j * inner] * dot / (norm * norm * norm);
        dx[j * inner] = d + (k->accumulate[X] ? dx[j * inner] : 0);
      }
    }
  return UNIC_OK;
}

static const unic_op op_l2_normalize = {
  .name = "l2_normalize",
  .signature = "x: tensor, dim: int = -1, eps: number = 1e-12 -> y, (norm)",
  .doc = "x divided by its Euclidean norm along a dimension.\n"
         "x    any shape\n"
         "dim  the dimension, counted from 1 or from the end\n"
         "eps  the least length that is divided by",
  .saves = "x norm",
  .grads = "x",
  .layouts = "x:contiguous|channels_last",
  .shape = l2_normalize_shape,
  .cpu = {l2_normalize_forward, l2_normalize_backward, l2_normalize_reference, l2_normalize_reference_backward},
  .flags = UNIC_OP_METHOD,
  .autocast = UNIC_CAST_FULL,
};

UNIC_OPS(l2_normalize, &op_l2_normalize);

#endif
