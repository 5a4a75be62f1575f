/* softmax, log_softmax along one dimension.
 *
 *   softmax:      y = exp(x - m) / sum exp(x - m)          dx = y (dy - sum y dy)
 *   log_softmax:  y = x - m - log sum exp(x - m)           dx = dy - exp(y) sum dy            m = max x, sums along the dimension
 *
 * x, y: any shape, row-major or channels-last, seen in memory as [outer, n, inner] with the dimension in the middle.
 * A row (inner = 1) is worked through in one piece; otherwise 64 neighbouring columns side by side.
 *
 * Saved: y. Bits: equal at any thread count (a row or column belongs to one thread). */
#include "loops.h"

enum { X, DIM };
enum { Y };
enum { COLUMNS = 64 };

struct softmax { const void *x, *y, *dy; void *to; int64_t n, inner; int dtype, accumulate; bool log; };

#if UNIC_LOOPS

static inline float largest(const float *restrict x, int64_t n, float m) {
  #pragma omp simd reduction(max : m)
  for (int64_t j = 0; j < n; j++) m = x[j] > m ? x[j] : m;
  return m;
}

static inline float exp_sum(const float *restrict x, int64_t n, float m) {
  float sum = 0;
  #pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; j++) sum += unic_exp_fallingf(x[j] - m);
  return sum;
}

static inline void finish(const struct softmax *s, const float *x, float *y, int64_t n, float m, float sum) {
  if (s->log) {
    float l = logf(sum);
    #pragma omp simd
    for (int64_t j = 0; j < n; j++) y[j] = x[j] - m - l;
  } else {
    float f = 1.0f / sum;
    #pragma omp simd
    for (int64_t j = 0; j < n; j++) y[j] = unic_exp_fallingf(x[j] - m) * f;
  }
}

UNIC_LOOP(softmax_rows) {
  const struct softmax *s = context;
  float buffer[UNIC_ROW], out[UNIC_ROW];
  /* f32 rows are used where they lie, in one piece however long. */
  int64_t piece = s->dtype == UNIC_F32 ? s->n : UNIC_ROW;
  for (int64_t r = begin; r < end; r++) {
    int64_t at = r * s->n;
    if (s->n <= piece) {
      const float *x = unic_row_load(s->x, s->dtype, at, s->n, buffer);
      float *y = unic_row_place(s->to, s->dtype, at, out), m = largest(x, s->n, -INFINITY);
      if (s->log) {
        finish(s, x, y, s->n, m, exp_sum(x, s->n, m));
      } else {
        float sum = 0;
        #pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < s->n; j++) {
          float e = unic_exp_fallingf(x[j] - m);
          y[j] = e;
          sum += e;
        }
        float f = 1.0f / sum;
        #pragma omp simd
        for (int64_t j = 0; j < s->n; j++) y[j] *= f;
      }
      unic_row_store(s->to, s->dtype, at, s->n, y);
      continue;
    }
    float m = -INFINITY, sum = 0;
    for (int64_t j = 0; j < s->n; j += piece) {
      int64_t c = s->n - j < piece ? s->n - j : piece;
      m = largest(unic_row_load(s->x, s->dtype, at + j, c, buffer), c, m);
    }
    for (int64_t j = 0; j < s->n; j += piece) {
      int64_t c = s->n - j < piece ? s->n - j : piece;
      sum += exp_sum(unic_row_load(s->x, s->dtype, at + j, c, buffer), c, m);
    }
    for (int64_t j = 0; j < s->n; j += piece) {
      int64_t c = s->n - j < piece ? s->n - j : piece;
      finish(s, unic_row_load(s->x, s->dtype, at + j, c, buffer), out, c, m, sum);
      unic_row_store(s->to, s->dtype, at + j, c, out);
    }
  }
}

/* Item: 64 columns (the last ones of a slab fewer). */
UNIC_LOOP(softmax_columns) {
  const struct softmax *s = context;
  int64_t blocks = (s->inner + COLUMNS - 1) / COLUMNS;
  float buffer[COLUMNS], m[COLUMNS], sum[COLUMNS], out[COLUMNS];
  bool kept = s->dtype == UNIC_F32 && !s->log;   /* f32 keeps the exponentials where the result goes; elsewhere they would be rounded twice */
  for (int64_t item = begin; item < end; item++) {
    int64_t first = item % blocks * COLUMNS, at = item / blocks * s->n * s->inner + first;
    int64_t c = s->inner - first < COLUMNS ? s->inner - first : COLUMNS;
    for (int64_t i = 0; i < c; i++) { m[i] = -INFINITY; sum[i] = 0; }
    for (int64_t j = 0; j < s->n; j++) {
      const float *x = unic_row_load(s->x, s->dtype, at + j * s->inner, c, buffer);
      #pragma omp simd
      for (int64_t i = 0; i < c; i++) m[i] = x[i] > m[i] ? x[i] : m[i];
    }
    for (int64_t j = 0; j < s->n; j++) {
      const float *x = unic_row_load(s->x, s->dtype, at + j * s->inner, c, buffer);
      if (kept) {
        float *restrict y = (float *)s->to + at + j * s->inner;
        #pragma omp simd
        for (int64_t i = 0; i < c; i++) {
          float e = unic_exp_fallingf(x[i] - m[i]);
          y[i] = e;
          sum[i] += e;
        }
      } else {
        #pragma omp simd
        for (int64_t i = 0; i < c; i++) sum[i] += unic_exp_fallingf(x[i] - m[i]);
      }
    }
    for (int64_t i = 0; i < c; i++) sum[i] = s->log ? logf(sum[i]) : 1.0f / sum[i];
    for (int64_t j = 0; j < s->n; j++) {
      if (kept) {
        float *restrict y = (float *)s->to + at + j * s->inner;
        #pragma omp simd
        for (int64_t i = 0; i < c; i++) y[i] *= sum[i];
        continue;
      }
      const float *x = unic_row_load(s->x, s->dtype, at + j * s->inner, c, buffer);
      float *y = unic_row_place(s->to, s->dtype, at + j * s->inner, out);
      if (s->log) {
        #pragma omp simd
        for (int64_t i = 0; i < c; i++) y[i] = x[i] - m[i] - sum[i];
      } else {
        #pragma omp simd
        for (int64_t i = 0; i < c; i++) y[i] = unic_exp_fallingf(x[i] - m[i]) * sum[i];
      }
      unic_row_store(s->to, s->dtype, at + j * s->inner, c, y);
    }
  }
}

UNIC_LOOP(softmax_rows_backward) {
  const struct softmax *s = context;
  float ybuffer[UNIC_ROW], dbuffer[UNIC_ROW], out[UNIC_ROW];
  for (int64_t r = begin; r < end; r++) {
    int64_t at = r * s->n;
    float sum = 0;
    for (int64_t j = 0; j < s->n; j += UNIC_ROW) {
      int64_t c = s->n - j < UNIC_ROW ? s->n - j : UNIC_ROW;
      const float *y = unic_row_load(s->y, s->dtype, at + j, c, ybuffer), *dy = unic_row_load(s->dy, s->dtype, at + j, c, dbuffer);
      if (s->log) {
        #pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < c; i++) sum += dy[i];
      } else {
        #pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < c; i++) sum += y[i] * dy[i];
      }
    }
    for (int64_t j = 0; j < s->n; j += UNIC_ROW) {
      int64_t c = s->n - j < UNIC_ROW ? s->n - j : UNIC_ROW;
      const float *y = unic_row_load(s->y, s->dtype, at + j, c, ybuffer), *dy = unic_row_load(s->dy, s->dtype, at + j, c, dbuffer);
      if (s->log) {
        #pragma omp simd
        for (int64_t i = 0; i < c; i++) out[i] = dy[i] - unic_exp_fallingf(y[i]) * sum;
      } else {
        #pragma omp simd
        for (int64_t i = 0; i < c; i++) out[i] = y[i] * (dy[i] - sum);
      }
      unic_row_put(s->to, s->dtype, at + j, c, out, s->accumulate);
    }
  }
}

UNIC_LOOP(softmax_columns_backward) {
  const struct softmax *s = context;
  int64_t blocks = (s->inner + COLUMNS - 1) / COLUMNS;
  float ybuffer[COLUMNS], dbuffer[COLUMNS], sum[COLUMNS], out[COLUMNS];
  for (int64_t item = begin; item < end; item++) {
    int64_t first = item % blocks * COLUMNS, at = item / blocks * s->n * s->inner + first;
    int64_t c = s->inner - first < COLUMNS ? s->inner - first : COLUMNS;
    for (int64_t i = 0; i < c; i++) sum[i] = 0;
    for (int64_t j = 0; j < s->n; j++) {
      const float *y = unic_row_load(s->y, s->dtype, at + j * s->inner, c, ybuffer), *dy = unic_row_load(s->dy, s->dtype, at + j * s->inner, c, dbuffer);
      if (s->log) {
        #pragma omp simd
        for (int64_t i = 0; i < c; i++) sum[i] += dy[i];
      } else {
        #pragma omp simd
        for (int64_t i = 0; i < c; i++) sum[i] += y[i] * dy[i];
      }
    }
    for (int64_t j = 0; j < s->n; j++) {
      const float *y = unic_row_load(s->y, s->dtype, at + j * s->inner, c, ybuffer), *dy = unic_row_load(s->dy, s->dtype, at + j * s->inner, c, dbuffer);
      if (s->log) {
        #pragma omp simd
        for (int64_t i = 0; i < c; i++) out[i] = dy[i] - unic_exp_fallingf(y[i]) * sum[i];
      } else {
        #pragma omp simd
        for (int64_t i = 0; i < c; i++) out[i] = y[i] * (dy[i] - sum[i]);
      }
      unic_row_put(s->to, s->dtype, at + j * s->inner, c, out, s->accumulate);
    }
  }
}

#else

#include <string.h>

UNIC_LOOP_TABLE(softmax_rows);
UNIC_LOOP_TABLE(softmax_columns);
UNIC_LOOP_TABLE(softmax_rows_backward);
UNIC_LOOP_TABLE(softmax_columns_backward);

static unic_status softmax_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int dim;
  if (x->ndim == 0) return unic_fail_arg(c, X, "it has no dimension, at least one is expected");
  UNIC_TRY(unic_dim(c, DIM, c->arg[DIM].integer, x->ndim, &dim));
  unic_out_like(c, Y, x);
  return UNIC_OK;
}

/* [outer, n, inner] of a dense tensor around one of its dimensions. */
static void around(const unic_view *v, int64_t dim, int64_t *outer, int64_t *n, int64_t *inner) {
  int d = (int)(dim > 0 ? dim - 1 : v->ndim + dim);
  *n = v->shape[d];
  *inner = *n > 1 ? v->stride[d] : 1;
  *outer = *n * *inner > 0 ? v->numel / (*n * *inner) : 0;
}

static unic_status run(const unic_kernel *k, struct softmax *s, unic_body *const *rows, unic_body *const *columns) {
  int64_t outer, isa = unic_isa_current();
  around(&k->in[X], k->arg[DIM].integer, &outer, &s->n, &s->inner);
  s->dtype = k->type;
  s->log = strcmp(k->op->name, "log_softmax") == 0;
  if (k->in[X].numel == 0) return UNIC_OK;
  if (s->inner == 1) {
    unic_parallel_for(outer, s->n >= 1 << 13 ? 1 : (1 << 13) / s->n, rows[isa], s);
  } else {
    int64_t work = s->n * COLUMNS;
    unic_parallel_for(outer * ((s->inner + COLUMNS - 1) / COLUMNS), work >= 1 << 13 ? 1 : (1 << 13) / work, columns[isa], s);
  }
  return UNIC_OK;
}

static unic_status softmax_forward(const unic_kernel *k) {
  struct softmax s = {.x = k->in[X].data, .to = k->out[Y].data};
  return run(k, &s, softmax_rows, softmax_columns);
}

static unic_status softmax_backward(const unic_kernel *k) {
  struct softmax s = {.y = k->out[Y].data, .dy = k->dout[Y].data, .to = k->din[X].data, .accumulate = k->accumulate[X]};
  return run(k, &s, softmax_rows_backward, softmax_columns_backward);
}

static unic_status softmax_reference(const unic_kernel *k) {
  int64_t outer, n, inner;
  around(&k->in[X], k->arg[DIM].integer, &outer, &n, &inner);
  bool logarithm = strcmp(k->op->name, "log_softmax") == 0;
  for (int64_t o = 0; o < outer; o++)
    for (int64_t i = 0; i < inner; i++) {
      const double *x = (const double *)k->in[X].data + o * n * inner + i;
      double *y = (double *)k->out[Y].data + o * n * inner + i, most = -INFINITY, sum = 0;
      for (int64_t j = 0; j < n; j++) if (!(x[j * inner] <= most)) most = x[j * inner];
      for (int64_t j = 0; j < n; j++) sum += exp(x[j * inner] - most);
      for (int64_t j = 0; j < n; j++) y[j * inner] = logarithm ? x[j * inner] - most - log(sum) : exp(x[j * inner] - most) / sum;
    }
  return UNIC_OK;
}

static unic_status softmax_reference_backward(const unic_kernel *k) {
  int64_t outer, n, inner;
  around(&k->in[X], k->arg[DIM].integer, &outer, &n, &inner);
  bool logarithm = strcmp(k->op->name, "log_softmax") == 0;
  for (int64_t o = 0; o < outer; o++)
    for (int64_t i = 0; i < inner; i++) {
      int64_t at = o * n * inner + i;
      const double *y = (const double *)k->out[Y].data + at, *dy = (const double *)k->dout[Y].data + at;
      double *dx = (double *)k->din[X].data + at, sum = 0;
      for (int64_t j = 0; j < n; j++) sum += logarithm ? dy[j * inner] : y[j * inner] * dy[j * inner];
      for (int64_t j = 0; j < n; j++) {
        double d = logarithm ? dy[j * inner] - exp(y[j * inner]) * sum : y[j * inner] * (dy[j * inner] - sum);
        dx[j * inner] = d + (k->accumulate[X] ? dx[j * inner] : 0);
      }
    }
  return UNIC_OK;
}

static const unic_op op_softmax = {
  .name = "softmax",
  .signature = "x: tensor, dim: int = -1 -> y",
  .doc = "exp(x) divided by its sum along a dimension.\n"
         "x    any shape\n"
         "dim  the dimension, counted from 1 or from the end",
  .saves = "y",
  .grads = "x",
  .layouts = "x:contiguous|channels_last",
  .shape = softmax_shape,
  .cpu = {softmax_forward, softmax_backward, softmax_reference, softmax_reference_backward},
  .flags = UNIC_OP_METHOD,
  .autocast = UNIC_CAST_FULL,
};

static const unic_op op_log_softmax = {
  .name = "log_softmax",
  .signature = "x: tensor, dim: int = -1 -> y",
  .doc = "The logarithm of softmax, without its loss of digits.\n"
         "x    any shape\n"
         "dim  the dimension, counted from 1 or from the end",
  .saves = "y",
  .grads = "x",
  .layouts = "x:contiguous|channels_last",
  .shape = softmax_shape,
  .cpu = {softmax_forward, softmax_backward, softmax_reference, softmax_reference_backward},
  .flags = UNIC_OP_METHOD,
  .autocast = UNIC_CAST_FULL,
};

UNIC_OPS(softmax, &op_softmax, &op_log_softmax);

#endif
