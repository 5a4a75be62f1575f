/* layer_norm:      y = (x - mean) rstd w + b over the last dimension, mean and biased variance per row, rstd = (var + eps)^-1/2.
 * add_layer_norm:  h = residual + dropout(x), y = layer_norm(h); both are outputs, because the next residual connection starts from h.
 *
 * x, residual, h, y [R, C] (R: all leading dimensions); w, b [C]; mean, rstd [R].
 * Saved: x (or h), w, mean, rstd; for dropout the generator's state, from which the mask is made again (element i of the call is dropped when
 * number i of the stream is below p 2^32, kept ones are scaled by 1/(1-p)).
 * y is made again from these and b (remake.h).
 * Backward, with g = dy w and xhat = (x - mean) rstd:
 *   dx = rstd (g - mean_C(g) - xhat mean_C(g xhat)),  dw = sum_R dy xhat,  db = sum_R dy;
 *   dresidual = dh + dx of the norm, and dx = the same through the mask.
 * Rows are cut into a number of chunks that depends on R alone; each keeps its own sums for dw and db, added up in order: the bits do not depend
 * on the number of threads. Source: Ba et al. 2016; mean and variance in two passes over a row that is in cache.
 *
 * Over 500 lines: both ops share the loops, and each has a plain f64 form. */
#include "rows.h"

enum { X, WEIGHT, BIAS, EPS };                                                                   /* layer_norm */
enum { Y, MEAN, RSTD };
enum { ADD_X, ADD_RESIDUAL, ADD_WEIGHT, ADD_BIAS, ADD_DROPOUT, ADD_EPS, ADD_RNG };               /* add_layer_norm */
enum { ADD_Y, ADD_H, ADD_MEAN, ADD_RSTD, ADD_STATE };

struct norm {
  int64_t rows, columns;
  int dtype;                       /* of x, residual, h, y and their gradients */
  bool fused;                      /* add_layer_norm: the row is h */
  const void *x, *residual;
  const float *weight, *bias;      /* NULL: 1 and 0 */
  void *y, *h;
  float *mean, *rstd;              /* forward: NULL when no gradient is needed */
  float eps;
  /* dropout */
  uint64_t seed, counter, threshold;
  float scale;
  /* backward */
  const void *dy, *dh;             /* NULL: zero */
  void *dx, *dresidual;            /* NULL: not wanted */
  int add_x, add_residual;
  int64_t chunk;                   /* rows per chunk */
  float *partial;                  /* [chunks, 2, C]: sums for dw and db; NULL when neither is wanted */
  float *dweight, *dbias;
  int add_weight, add_bias;
};

#if UNIC_LOOPS

/* factor[i] = 0 or 1/(1-p) for elements at .. at+n-1. */
static void mask_row(const struct norm *s, int64_t at, int64_t n, float *restrict factor) {
  uint32_t bits[UNIC_ROW];
  unic_random_row(s->seed, s->counter, at, n, bits);
  if (s->threshold > 0xffffffffu) {
    for (int64_t i = 0; i < n; i++) factor[i] = 0;
    return;
  }
  uint32_t threshold = (uint32_t)s->threshold;
  float scale = s->scale;
  for (int64_t i = 0; i < n; i++) factor[i] = bits[i] < threshold ? 0.0f : scale;
}

/* A piece of the row that is normalised: x itself, or h = residual + dropout(x), which is also stored. */
static const float *forward_piece(const struct norm *s, int64_t at, int64_t n, float *buffer) {
  const float *x = unic_row_load(s->x, s->dtype, at, n, buffer);
  if (!s->fused) return x;
  float other[UNIC_ROW];
  const float *restrict residual = unic_row_load(s->residual, s->dtype, at, n, other);
  float *h = unic_row_place(s->h, s->dtype, at, buffer);
  if (s->threshold) {
    float factor[UNIC_ROW];
    mask_row(s, at, n, factor);
    #pragma GCC ivdep   /* h may be x, element by element */
    for (int64_t i = 0; i < n; i++) h[i] = residual[i] + x[i] * factor[i];
  } else {
    #pragma GCC ivdep
    for (int64_t i = 0; i < n; i++) h[i] = residual[i] + x[i];
  }
  unic_row_store(s->h, s->dtype, at, n, h);
  /* Normalise what was stored, so that forward and backward see the same h. */
  return unic_row_load(s->h, s->dtype, at, n, buffer);
}

static void normalize_piece(const struct norm *s, int64_t row, int64_t at, int64_t n, const float *restrict x, float mean, float rstd) {
  float buffer[UNIC_ROW];
  float *restrict y = unic_row_place(s->y, s->dtype, row * s->columns + at, buffer);
  const float *restrict w = s->weight + at, *restrict b = s->bias + at;
  if (s->weight && s->bias) for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd * w[i] + b[i];
  else if (s->weight) for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd * w[i];
  else if (s->bias) for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd + b[i];
  else for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd;
  unic_row_store(s->y, s->dtype, row * s->columns + at, n, y);
}

UNIC_LOOP(norm_forward) {
  const struct norm *s = context;
  int64_t columns = s->columns;
  float buffer[UNIC_ROW];
  for (int64_t row = begin; row < end; row++) {
    const float *x = NULL;
    float sum = 0, squares = 0;
    #define VALUE(L) (L(x))
    #define DEVIATION(L) ((L(x) - mean) * (L(x) - mean))
    for (int64_t at = 0; at < columns; at += UNIC_ROW) {
      int64_t n = columns - at < UNIC_ROW ? columns - at : UNIC_ROW;
      x = forward_piece(s, row * columns + at, n, buffer);
      UNIC_ROW_SUM(sum, n, VALUE);
    }
    float mean = sum / (float)columns;
    /* A row of one piece is still in `x`; longer ones are read again. */
    const void *stored = s->fused ? s->h : s->x;
    for (int64_t at = 0; at < columns; at += UNIC_ROW) {
      int64_t n = columns - at < UNIC_ROW ? columns - at : UNIC_ROW;
      if (columns > UNIC_ROW) x = unic_row_load(stored, s->dtype, row * columns + at, n, buffer);
      UNIC_ROW_SUM(squares, n, DEVIATION);
    }
    float rstd = 1.0f / sqrtf(squares / (float)columns + s->eps);
    for (int64_t at = 0; at < columns; at += UNIC_ROW) {
      int64_t n = columns - at < UNIC_ROW ? columns - at : UNIC_ROW;
      if (columns > UNIC_ROW) x = unic_row_load(stored, s->dtype, row * columns + at, n, buffer);
      normalize_piece(s, row, at, n, x, mean, rstd);
    }
    if (s->mean) { s->mean[row] = mean; s->rstd[row] = rstd; }
  }
}

/* y again from the saved mean and rstd. */
UNIC_LOOP(norm_remake) {
  const struct norm *s = context;
  const void *stored = s->fused ? s->h : s->x;
  float buffer[UNIC_ROW];
  for (int64_t row = begin; row < end; row++)
    for (int64_t at = 0; at < s->columns; at += UNIC_ROW) {
      int64_t n = s->columns - at < UNIC_ROW ? s->columns - at : UNIC_ROW;
      const float *x = unic_row_load(stored, s->dtype, row * s->columns + at, n, buffer);
      normalize_piece(s, row, at, n, x, s->mean[row], s->rstd[row]);
    }
}

/* The gradient of a piece of h (already complete in `d`) into dresidual and, through the mask, into dx. */
static void give_piece(const struct norm *s, int64_t at, int64_t n, float *restrict d) {
  if (s->dresidual) unic_row_put(s->dresidual, s->dtype, at, n, d, s->add_residual);
  if (!s->dx) return;
  if (s->threshold) {
    float factor[UNIC_ROW];
    mask_row(s, at, n, factor);
    for (int64_t i = 0; i < n; i++) d[i] *= factor[i];
  }
  unic_row_put(s->dx, s->dtype, at, n, d, s->add_x);
}

UNIC_LOOP(norm_backward) {
  const struct norm *s = context;
  int64_t columns = s->columns;
  float dy_buffer[UNIC_ROW], x_buffer[UNIC_ROW], ones[UNIC_ROW], d[UNIC_ROW];
  const void *stored = s->fused ? s->h : s->x;
  float *pw = NULL, *pb = NULL;
  if (s->partial) {
    pw = s->partial + begin / s->chunk * 2 * columns;
    pb = pw + columns;
    memset(pw, 0, (size_t)(2 * columns) * sizeof *pw);
  }
  if (!s->weight) for (int i = 0; i < UNIC_ROW; i++) ones[i] = 1;
  for (int64_t row = begin; row < end; row++) {
    const float *dy = NULL, *x = NULL;
    float mean = s->mean[row], rstd = s->rstd[row], sum_g = 0, sum_gx = 0;
    #define G(L) (L(dy) * L(w))
    #define GX(L) (L(dy) * L(w) * (L(x) - mean))
    for (int64_t at = 0; at < columns; at += UNIC_ROW) {
      int64_t n = columns - at < UNIC_ROW ? columns - at : UNIC_ROW;
      dy = unic_row_load(s->dy, s->dtype, row * columns + at, n, dy_buffer);
      x = unic_row_load(stored, s->dtype, row * columns + at, n, x_buffer);
      const float *w = s->weight ? s->weight + at : ones;
      UNIC_ROW_SUM(sum_g, n, G);
      UNIC_ROW_SUM(sum_gx, n, GX);
      if (pw) {
        float *restrict qw = pw + at, *restrict qb = pb + at;
        const float *restrict dyr = dy, *restrict xr = x;
        for (int64_t i = 0; i < n; i++) { qw[i] += dyr[i] * ((xr[i] - mean) * rstd); qb[i] += dyr[i]; }
      }
    }
    if (!s->dx && !s->dresidual) continue;
    /* rstd (g - a - xhat b) with xhat = (x - mean) rstd. */
    float a = sum_g / (float)columns, b = sum_gx * rstd * rstd / (float)columns;
    for (int64_t at = 0; at < columns; at += UNIC_ROW) {
      int64_t n = columns - at < UNIC_ROW ? columns - at : UNIC_ROW, here = row * columns + at;
      if (columns > UNIC_ROW) {
        dy = unic_row_load(s->dy, s->dtype, here, n, dy_buffer);
        x = unic_row_load(stored, s->dtype, here, n, x_buffer);
      }
      const float *restrict dyr = dy, *restrict xr = x, *restrict w = s->weight ? s->weight + at : ones;
      if (s->dtype == UNIC_F32 && !s->fused && !s->add_x) {   /* the common plain case: straight into place */
        float *restrict dx = (float *)s->dx + here;
        for (int64_t i = 0; i < n; i++) dx[i] = rstd * (dyr[i] * w[i] - a - (xr[i] - mean) * b);
        continue;
      }
      for (int64_t i = 0; i < n; i++) d[i] = rstd * (dyr[i] * w[i] - a - (xr[i] - mean) * b);
      if (s->dh) {
        const float *restrict dh = unic_row_load(s->dh, s->dtype, here, n, dy_buffer);
        for (int64_t i = 0; i < n; i++) d[i] += dh[i];
      }
      give_piece(s, here, n, d);
    }
  }
}

/* Only dh came back: it passes straight to residual and x. */
UNIC_LOOP(norm_pass) {
  const struct norm *s = context;
  float buffer[UNIC_ROW], d[UNIC_ROW];
  for (int64_t at = begin; at < end; at += UNIC_ROW) {
    int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW;
    const float *restrict dh = unic_row_load(s->dh, s->dtype, at, n, buffer);
    for (int64_t i = 0; i < n; i++) d[i] = dh[i];
    give_piece(s, at, n, d);
  }
}

/* The chunks' sums, in order, into dw and db: columns begin .. end-1. */
UNIC_LOOP(norm_parameters) {
  const struct norm *s = context;
  int64_t columns = s->columns, chunks = s->partial ? (s->rows + s->chunk - 1) / s->chunk : 0;
  for (int which = 0; which < 2; which++) {
    float *restrict to = which ? s->dbias : s->dweight;
    if (!to) continue;
    if (!(which ? s->add_bias : s->add_weight)) for (int64_t c = begin; c < end; c++) to[c] = 0;
    for (int64_t c = begin; c < end; c += 256) {
      int64_t n = end - c < 256 ? end - c : 256;
      float sum[256] = {0};
      for (int64_t k = 0; k < chunks; k++) {
        const float *restrict p = s->partial + (2 * k + which) * columns + c;
        for (int64_t i = 0; i < n; i++) sum[i] += p[i];
      }
      for (int64_t i = 0; i < n; i++) to[c + i] += sum[i];
    }
  }
}

#else

UNIC_LOOP_TABLE(norm_forward);
UNIC_LOOP_TABLE(norm_remake);
UNIC_LOOP_TABLE(norm_backward);
UNIC_LOOP_TABLE(norm_pass);
UNIC_LOOP_TABLE(norm_parameters);

static int64_t row_count(const unic_view *x) {
  int64_t rows = 1;
  for (int d = 0; d + 1 < x->ndim; d++) rows *= x->shape[d];
  return rows;
}

/* Rows per chunk of the backward: at most 64 chunks, so that their sums stay small beside the rows, and at least 8 rows. */
static int64_t chunk_rows(int64_t rows) {
  int64_t chunk = (rows + 63) / 64;
  return chunk < 8 ? 8 : chunk;
}

static unic_status shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  unic_out(c, Y, c->type, x->ndim, x->shape);
  unic_out(c, MEAN, unic_dtype_wide(c->type), x->ndim - 1, x->shape);
  unic_out(c, RSTD, unic_dtype_wide(c->type), x->ndim - 1, x->shape);
  return UNIC_OK;
}

static unic_status add_shape(unic_call *c) {
  const unic_tensor *x = c->in[ADD_X], *residual = c->in[ADD_RESIDUAL];
  bool same = x->ndim == residual->ndim;
  for (int d = 0; same && d < x->ndim; d++) same = x->shape[d] == residual->shape[d];
  if (!same) {
    char a[128], b[128];
    return unic_fail_arg(c, ADD_RESIDUAL, "its shape is %s, x has %s; they are added element by element",
                         unic_shape_describe(residual->ndim, residual->shape, a, sizeof a), unic_shape_describe(x->ndim, x->shape, b, sizeof b));
  }
  double p = c->arg[ADD_DROPOUT].number;
  if (!(p >= 0 && p <= 1)) return unic_fail_arg(c, ADD_DROPOUT, "%g was given, a probability from 0 to 1 is expected", p);
  unic_out(c, ADD_Y, c->type, x->ndim, x->shape);
  unic_out(c, ADD_H, c->type, x->ndim, x->shape);
  unic_out(c, ADD_MEAN, unic_dtype_wide(c->type), x->ndim - 1, x->shape);
  unic_out(c, ADD_RSTD, unic_dtype_wide(c->type), x->ndim - 1, x->shape);
  unic_out(c, ADD_STATE, UNIC_I64, 1, (const int64_t[]){2});
  return UNIC_OK;
}

static void run_forward(struct norm *s) {
  int64_t chunk = s->columns ? 16 * UNIC_ROW / s->columns : s->rows;
  UNIC_RUN(norm_forward, s->rows, chunk < 1 ? 1 : chunk, s);
}

static unic_status forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  struct norm s = {
    .rows = row_count(x), .columns = x->shape[x->ndim - 1], .dtype = x->dtype, .x = x->data, .weight = k->in[WEIGHT].data, .bias = k->in[BIAS].data,
    .y = k->out[Y].data, .mean = k->out[MEAN].data, .rstd = k->out[RSTD].data, .eps = (float)k->arg[EPS].number,
  };
  run_forward(&s);
  return UNIC_OK;
}

/* Of both ops: the tables differ in where things lie. */
static unic_status remake_from(const unic_kernel *k, const unic_view *x, int weight, int bias, int mean) {
  bool fused = mean == ADD_MEAN;
  struct norm s = {
    .rows = row_count(x), .columns = x->shape[x->ndim - 1], .dtype = x->dtype, .fused = fused, .x = fused ? NULL : x->data, .h = fused ? x->data : NULL,
    .weight = k->in[weight].data, .bias = k->in[bias].data, .y = k->out[Y].data, .mean = k->out[mean].data, .rstd = k->out[mean + 1].data,
  };
  int64_t chunk = s.columns ? 16 * UNIC_ROW / s.columns : s.rows;
  UNIC_RUN(norm_remake, s.rows, chunk < 1 ? 1 : chunk, &s);
  return UNIC_OK;
}
static unic_status remake(const unic_kernel *k) { return remake_from(k, &k->in[X], WEIGHT, BIAS, MEAN); }
static unic_status add_remake(const unic_kernel *k) { return remake_from(k, &k->out[ADD_H], ADD_WEIGHT, ADD_BIAS, ADD_MEAN); }

static unic_remake_price remakes(const unic_call *c, int j) {
  (void)c;
  return j == Y ? UNIC_REMAKE_CHEAP : UNIC_REMAKE_NEVER;
}

/* The dropout part of the context from probability and state; p = 1 drops everything, whose scale would be infinite. */
static void set_dropout(struct norm *s, double p, const int64_t *state) {
  s->threshold = unic_random_threshold(p);
  s->scale = p < 1 ? (float)(1 / (1 - p)) : 0;
  if (p > 0) { s->seed = (uint64_t)state[0]; s->counter = (uint64_t)state[1]; }
}

/* Keep the state for backward and leave the generator behind the numbers that were used. */
static void leave_generator(const unic_kernel *k, int64_t numel) {
  int64_t *rng = k->in[ADD_RNG].data, *state = k->out[ADD_STATE].data;
  if (state && rng) { state[0] = rng[0]; state[1] = rng[1]; }
  if (k->arg[ADD_DROPOUT].number > 0) rng[1] += unic_random_blocks(numel);
}

static unic_status add_forward(const unic_kernel *k) {
  const unic_view *x = &k->in[ADD_X];
  struct norm s = {
    .rows = row_count(x), .columns = x->shape[x->ndim - 1], .dtype = x->dtype, .fused = true, .x = x->data,
    .residual = k->in[ADD_RESIDUAL].data,
    .weight = k->in[ADD_WEIGHT].data, .bias = k->in[ADD_BIAS].data, .y = k->out[ADD_Y].data, .h = k->out[ADD_H].data,
    .mean = k->out[ADD_MEAN].data, .rstd = k->out[ADD_RSTD].data, .eps = (float)k->arg[ADD_EPS].number,
  };
  set_dropout(&s, k->arg[ADD_DROPOUT].number, k->in[ADD_RNG].data);
  run_forward(&s);
  leave_generator(k, x->numel);
  return UNIC_OK;
}

static unic_status plan_backward(const unic_kernel *k, unic_plan *p, int x, int weight, int bias) {
  if (!k->backward || !(k->din[weight].present || k->din[bias].present)) return UNIC_OK;
  int64_t rows = row_count(&k->in[x]), chunk = chunk_rows(rows), columns = k->in[x].shape[k->in[x].ndim - 1];
  p->scratch = (rows + chunk - 1) / chunk * 2 * columns * (int64_t)sizeof(float);
  return UNIC_OK;
}
static unic_status plan(const unic_kernel *k, unic_plan *p) { return plan_backward(k, p, X, WEIGHT, BIAS); }
static unic_status add_plan(const unic_kernel *k, unic_plan *p) { return plan_backward(k, p, ADD_X, ADD_WEIGHT, ADD_BIAS); }

static void run_backward(struct norm *s, const unic_kernel *k) {
  bool parameters = s->dweight || s->dbias;
  s->chunk = chunk_rows(s->rows);
  if (s->dy) {
    if (parameters) s->partial = k->scratch;
    UNIC_RUN(norm_backward, s->rows, s->chunk, s);
  } else if (s->dh) {
    UNIC_RUN(norm_pass, s->rows * s->columns, 16 * UNIC_ROW, s);
  }
  if (parameters) UNIC_RUN(norm_parameters, s->columns, 256, s);
}

static unic_status backward(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  struct norm s = {
    .rows = row_count(x), .columns = x->shape[x->ndim - 1], .dtype = x->dtype, .x = x->data, .weight = k->in[WEIGHT].data,
    .mean = k->out[MEAN].data, .rstd = k->out[RSTD].data, .dy = k->dout[Y].data,
    .dx = k->din[X].data, .add_x = k->accumulate[X], .dweight = k->din[WEIGHT].data, .add_weight = k->accumulate[WEIGHT],
    .dbias = k->din[BIAS].data, .add_bias = k->accumulate[BIAS],
  };
  run_backward(&s, k);
  return UNIC_OK;
}

static unic_status add_backward(const unic_kernel *k) {
  const unic_view *h = &k->out[ADD_H];
  struct norm s = {
    .rows = row_count(h), .columns = h->shape[h->ndim - 1], .dtype = h->dtype, .fused = true, .h = h->data, .weight = k->in[ADD_WEIGHT].data,
    .mean = k->out[ADD_MEAN].data, .rstd = k->out[ADD_RSTD].data, .dy = k->dout[ADD_Y].data, .dh = k->dout[ADD_H].data,
    .dx = k->din[ADD_X].data, .add_x = k->accumulate[ADD_X], .dresidual = k->din[ADD_RESIDUAL].data, .add_residual = k->accumulate[ADD_RESIDUAL],
    .dweight = k->din[ADD_WEIGHT].data, .add_weight = k->accumulate[ADD_WEIGHT], .dbias = k->din[ADD_BIAS].data, .add_bias = k->accumulate[ADD_BIAS],
  };
  set_dropout(&s, k->arg[ADD_DROPOUT].number, k->out[ADD_STATE].data);
  run_backward(&s, k);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

static void normalize_plain(const double *x, int64_t n, const double *w, const double *b, double mean, double rstd, double *y) {
  for (int64_t i = 0; i < n; i++) y[i] = (x[i] - mean) * rstd * (w ? w[i] : 1) + (b ? b[i] : 0);
}

static void norm_plain(const double *x, int64_t n, const double *w, const double *b, double eps, double *y, double *mean_out, double *rstd_out) {
  double mean = 0, var = 0;
  for (int64_t i = 0; i < n; i++) mean += x[i];
  mean /= (double)n;
  for (int64_t i = 0; i < n; i++) var += (x[i] - mean) * (x[i] - mean);
  double rstd = 1 / sqrt(var / (double)n + eps);
  normalize_plain(x, n, w, b, mean, rstd, y);
  if (mean_out) { *mean_out = mean; *rstd_out = rstd; }
}

static unic_status reference(const unic_kernel *k) {
  int64_t rows = row_count(&k->in[X]), n = k->in[X].shape[k->in[X].ndim - 1];
  const double *x = k->in[X].data;
  double *y = k->out[Y].data, *mean = k->out[MEAN].data, *rstd = k->out[RSTD].data;
  for (int64_t r = 0; r < rows; r++)
    norm_plain(x + r * n, n, k->in[WEIGHT].data, k->in[BIAS].data, k->arg[EPS].number, y + r * n, mean ? mean + r : NULL, rstd ? rstd + r : NULL);
  return UNIC_OK;
}

static unic_status reference_remake_from(const unic_kernel *k, const unic_view *x, int weight, int bias, int mean) {
  int64_t rows = row_count(x), n = x->shape[x->ndim - 1];
  for (int64_t r = 0; r < rows; r++)
    normalize_plain((const double *)x->data + r * n, n, k->in[weight].data, k->in[bias].data, ((const double *)k->out[mean].data)[r],
                    ((const double *)k->out[mean + 1].data)[r], (double *)k->out[Y].data + r * n);
  return UNIC_OK;
}
static unic_status reference_remake(const unic_kernel *k) { return reference_remake_from(k, &k->in[X], WEIGHT, BIAS, MEAN); }
static unic_status add_reference_remake(const unic_kernel *k) { return reference_remake_from(k, &k->out[ADD_H], ADD_WEIGHT, ADD_BIAS, ADD_MEAN); }

static double keep_factor(double p, const int64_t *state, int64_t i) {
  if (p <= 0) return 1;
  return unic_random_bits((uint64_t)state[0], (uint64_t)state[1], i) < unic_random_threshold(p) ? 0 : 1 / (1 - p);
}

static unic_status add_reference(const unic_kernel *k) {
  int64_t rows = row_count(&k->in[ADD_X]), n = k->in[ADD_X].shape[k->in[ADD_X].ndim - 1];
  const double *x = k->in[ADD_X].data, *residual = k->in[ADD_RESIDUAL].data;
  double *y = k->out[ADD_Y].data, *h = k->out[ADD_H].data, *mean = k->out[ADD_MEAN].data, *rstd = k->out[ADD_RSTD].data;
  for (int64_t i = 0; i < rows * n; i++) h[i] = residual[i] + x[i] * keep_factor(k->arg[ADD_DROPOUT].number, k->in[ADD_RNG].data, i);
  for (int64_t r = 0; r < rows; r++)
    norm_plain(h + r * n, n, k->in[ADD_WEIGHT].data, k->in[ADD_BIAS].data, k->arg[ADD_EPS].number, y + r * n, mean ? mean + r : NULL, rstd ? rstd + r : NULL);
  leave_generator(k, rows * n);
  return UNIC_OK;
}

/* d[i] += the gradient of row x through the norm. */
static void norm_plain_backward(const double *x, const double *dy, int64_t n, const double *w, double mean, double rstd, double *d) {
  double sum_g = 0, sum_gx = 0;
  for (int64_t i = 0; i < n; i++) {
    double g = dy[i] * (w ? w[i] : 1);
    sum_g += g;
    sum_gx += g * (x[i] - mean) * rstd;
  }
  for (int64_t i = 0; i < n; i++) {
    double g = dy[i] * (w ? w[i] : 1), xhat = (x[i] - mean) * rstd;
    d[i] += rstd * (g - sum_g / (double)n - xhat * sum_gx / (double)n);
  }
}

static void parameters_plain(const unic_kernel *k, const double *x, const double *dy, const double *mean, const double *rstd, int64_t rows, int64_t n, int weight, int bias) {
  double *dw = k->din[weight].data, *db = k->din[bias].data;
  for (int64_t i = 0; i < n; i++) {
    double sw = 0, sb = 0;
    for (int64_t r = 0; dy && r < rows; r++) {
      sw += dy[r * n + i] * (x[r * n + i] - mean[r]) * rstd[r];
      sb += dy[r * n + i];
    }
    if (dw) dw[i] = sw + (k->accumulate[weight] ? dw[i] : 0);
    if (db) db[i] = sb + (k->accumulate[bias] ? db[i] : 0);
  }
}

static unic_status reference_backward(const unic_kernel *k) {
  int64_t rows = row_count(&k->in[X]), n = k->in[X].shape[k->in[X].ndim - 1];
  const double *x = k->in[X].data, *dy = k->dout[Y].data, *mean = k->out[MEAN].data, *rstd = k->out[RSTD].data;
  double *dx = k->din[X].data;
  if (dx && !k->accumulate[X]) for (int64_t i = 0; i < rows * n; i++) dx[i] = 0;
  for (int64_t r = 0; dx && dy && r < rows; r++) norm_plain_backward(x + r * n, dy + r * n, n, k->in[WEIGHT].data, mean[r], rstd[r], dx + r * n);
  parameters_plain(k, x, dy, mean, rstd, rows, n, WEIGHT, BIAS);
  return UNIC_OK;
}

static unic_status add_reference_backward(const unic_kernel *k) {
  int64_t rows = row_count(&k->out[ADD_H]), n = k->out[ADD_H].shape[k->out[ADD_H].ndim - 1];
  const double *h = k->out[ADD_H].data, *dy = k->dout[ADD_Y].data, *dh = k->dout[ADD_H].data, *mean = k->out[ADD_MEAN].data, *rstd = k->out[ADD_RSTD].data;
  double *dx = k->din[ADD_X].data, *dresidual = k->din[ADD_RESIDUAL].data;
  for (int64_t r = 0; r < rows; r++) {
    /* One element at a time needs no row buffer: the row's two sums are taken again for each (slow on purpose, and independent of the fast form). */
    double sum_g = 0, sum_gx = 0;
    const double *w = k->in[ADD_WEIGHT].data;
    for (int64_t i = 0; dy && i < n; i++) {
      double g = dy[r * n + i] * (w ? w[i] : 1);
      sum_g += g;
      sum_gx += g * (h[r * n + i] - mean[r]) * rstd[r];
    }
    for (int64_t i = 0; i < n; i++) {
      int64_t at = r * n + i;
      double d = dh ? dh[at] : 0;
      if (dy) d += rstd[r] * (dy[at] * (w ? w[i] : 1) - sum_g / (double)n - (h[at] - mean[r]) * rstd[r] * sum_gx / (double)n);
      if (dresidual) dresidual[at] = d + (k->accumulate[ADD_RESIDUAL] ? dresidual[at] : 0);
      if (dx) dx[at] = d * keep_factor(k->arg[ADD_DROPOUT].number, k->out[ADD_STATE].data, at) + (k->accumulate[ADD_X] ? dx[at] : 0);
    }
  }
  parameters_plain(k, h, dy, mean, rstd, rows, n, ADD_WEIGHT, ADD_BIAS);
  return UNIC_OK;
}

static const unic_op op_layer_norm = {
  .name = "layer_norm",
  .signature = "x: tensor[...,C], weight: tensor<wide>?[C], bias: tensor<wide>?[C], eps: number = 1e-5 -> y, (mean, rstd)",
  .doc = "Normalise the last dimension to mean 0 and variance 1 (biased), then scale and shift.\n"
         "x             any leading dimensions\n"
         "weight, bias  scale and shift per element of the last dimension; 1 and 0 when absent\n"
         "eps           added to the variance inside the root",
  .saves = "x weight mean rstd",
  .grads = "x weight:wide bias:wide",
  .remakes = remakes,
  .again = "bias",
  .shape = shape,
  .cpu = {forward, backward, reference, reference_backward, remake, reference_remake, .plan = plan},
  .flags = UNIC_OP_METHOD,
};

static const unic_op op_add_layer_norm = {
  .name = "add_layer_norm",
  .signature = "x: tensor[...,C], residual: tensor[...,C], weight: tensor<wide>?[C], bias: tensor<wide>?[C], dropout: number = 0, eps: number = 1e-5, rng: rng"
               " -> y, h, (mean, rstd, state)",
  .doc = "h = residual + dropout(x), y = layer_norm(h), in one pass. Returns y and h.\n"
         "x, residual   equal shapes\n"
         "weight, bias  scale and shift of the norm; 1 and 0 when absent\n"
         "dropout       probability with which an element of x is dropped\n"
         "eps           added to the variance inside the root\n"
         "rng           generator; the device's own when absent",
  .saves = "weight h mean rstd state",
  .grads = "x residual weight:wide bias:wide",
  .remakes = remakes,
  .again = "bias",
  .shape = add_shape,
  .cpu = {add_forward, add_backward, add_reference, add_reference_backward, add_remake, add_reference_remake, .plan = add_plan},
  .flags = UNIC_OP_METHOD,
};

UNIC_OPS(layer_norm, &op_layer_norm, &op_add_layer_norm);

#endif
