/* cross_correlation: redundancy reduction between two views (the CTR terms of Med-UniC; Barlow Twins' loss on correlations).
 *
 *   features: column j of a and b is standardised over the K rows,    z = (x - mu) / (sqrt(K) sqrt(var + eps)),  C = Za' Zb [D,D], n = D
 *   samples:  row i of a and b is standardised over its D features,   z = (x - mu) / (sqrt(D) sqrt(var + eps)),  C = Za Zb' [K,K], n = K
 *   loss = 1/n [ sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2 ]
 *
 * var is the biased variance, so C holds correlations; eps keeps vectors of (almost) no variance at zero correlation instead of NaN, and costs a
 * correlation of 1 about eps / var.
 *   dC_ii = -2/n (1 - C_ii), dC_ij = 2 lambda/n C_ij;  dZa = Zb dC' (features) or dC Zb (samples), dZb likewise;
 *   dx = r (dz - mean dz - z sum z dz),  r = 1 / (sqrt(m) sqrt(var + eps)) over the m elements of a vector
 *
 * a, b [K,D]. C is made in panels of at most 16 MB of rows. Saved: a, b (statistics and C are cheap to make again).
 * Bits: equal for equal thread counts (oneDNN). Source: Wan et al., Med-UniC (2023), section 3.4; Zbontar et al., Barlow Twins (2021). */
#include "loops.h"
#include "gemm.h"

enum { A, B, ALONG, LAMBDA, EPS };
enum { LOSS };
enum { FEATURES, SAMPLES };
enum { COLUMNS = 64 };

struct standard { const void *x; float *z, *r; const float *dz; void *dx; int64_t rows, columns; int dtype, accumulate; double eps; };
struct correlation { float *c; double *part; int64_t first, columns; float lambda, scale; };

#if UNIC_LOOPS

UNIC_LOOP(standard_columns) {
  const struct standard *s = context;
  float buffer[COLUMNS];
  double sum[COLUMNS], mean[COLUMNS], f[COLUMNS];
  for (int64_t j = begin; j < end; j += COLUMNS) {
    int64_t n = end - j < COLUMNS ? end - j : COLUMNS;
    for (int64_t i = 0; i < n; i++) sum[i] = 0;
    for (int64_t r = 0; r < s->rows; r++) {
      const float *x = unic_row_load(s->x, s->dtype, r * s->columns + j, n, buffer);
      #pragma omp simd
      for (int64_t i = 0; i < n; i++) sum[i] += x[i];
    }
    for (int64_t i = 0; i < n; i++) { mean[i] = sum[i] / (double)s->rows; sum[i] = 0; }
    for (int64_t r = 0; r < s->rows; r++) {
      const float *x = unic_row_load(s->x, s->dtype, r * s->columns + j, n, buffer);
      #pragma omp simd
      for (int64_t i = 0; i < n; i++) sum[i] += (x[i] - mean[i]) * (x[i] - mean[i]);
    }
    for (int64_t i = 0; i < n; i++) {
      f[i] = 1 / sqrt(sum[i] + (double)s->rows * s->eps);   /* sqrt(m) sqrt(var + eps) */
      s->r[j + i] = (float)f[i];
    }
    for (int64_t r = 0; r < s->rows; r++) {
      const float *x = unic_row_load(s->x, s->dtype, r * s->columns + j, n, buffer);
      float *restrict z = s->z + r * s->columns + j;
      #pragma omp simd
      for (int64_t i = 0; i < n; i++) z[i] = (float)((x[i] - mean[i]) * f[i]);
    }
  }
}

UNIC_LOOP(standard_rows) {
  const struct standard *s = context;
  float buffer[UNIC_ROW];
  int64_t columns = s->columns;
  for (int64_t r = begin; r < end; r++) {
    double sum = 0, squares = 0;
    for (int64_t j = 0; j < columns; j += UNIC_ROW) {
      int64_t n = columns - j < UNIC_ROW ? columns - j : UNIC_ROW;
      const float *x = unic_row_load(s->x, s->dtype, r * columns + j, n, buffer);
      #pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < n; i++) sum += x[i];
    }
    double mean = sum / (double)columns;
    for (int64_t j = 0; j < columns; j += UNIC_ROW) {
      int64_t n = columns - j < UNIC_ROW ? columns - j : UNIC_ROW;
      const float *x = unic_row_load(s->x, s->dtype, r * columns + j, n, buffer);
      #pragma omp simd reduction(+ : squares)
      for (int64_t i = 0; i < n; i++) squares += (x[i] - mean) * (x[i] - mean);
    }
    double f = 1 / sqrt(squares + (double)columns * s->eps);
    s->r[r] = (float)f;
    for (int64_t j = 0; j < columns; j += UNIC_ROW) {
      int64_t n = columns - j < UNIC_ROW ? columns - j : UNIC_ROW;
      const float *x = unic_row_load(s->x, s->dtype, r * columns + j, n, buffer);
      float *restrict z = s->z + r * columns + j;
      #pragma omp simd
      for (int64_t i = 0; i < n; i++) z[i] = (float)((x[i] - mean) * f);
    }
  }
}

UNIC_LOOP(standard_columns_backward) {
  const struct standard *s = context;
  float out[COLUMNS];
  double sum[COLUMNS], dot[COLUMNS];
  for (int64_t j = begin; j < end; j += COLUMNS) {
    int64_t n = end - j < COLUMNS ? end - j : COLUMNS;
    for (int64_t i = 0; i < n; i++) sum[i] = dot[i] = 0;
    for (int64_t r = 0; r < s->rows; r++) {
      const float *restrict z = s->z + r * s->columns + j, *restrict dz = s->dz + r * s->columns + j;
      #pragma omp simd
      for (int64_t i = 0; i < n; i++) { sum[i] += dz[i]; dot[i] += (double)z[i] * dz[i]; }
    }
    for (int64_t i = 0; i < n; i++) sum[i] /= (double)s->rows;
    for (int64_t r = 0; r < s->rows; r++) {
      const float *restrict z = s->z + r * s->columns + j, *restrict dz = s->dz + r * s->columns + j, *restrict f = s->r + j;
      #pragma omp simd
      for (int64_t i = 0; i < n; i++) out[i] = f[i] * (float)(dz[i] - sum[i] - z[i] * dot[i]);
      unic_row_put(s->dx, s->dtype, r * s->columns + j, n, out, s->accumulate);
    }
  }
}

UNIC_LOOP(standard_rows_backward) {
  const struct standard *s = context;
  float out[UNIC_ROW];
  int64_t columns = s->columns;
  for (int64_t r = begin; r < end; r++) {
    const float *restrict z = s->z + r * columns, *restrict dz = s->dz + r * columns;
    double sum = 0, dot = 0;
    #pragma omp simd reduction(+ : sum, dot)
    for (int64_t i = 0; i < columns; i++) { sum += dz[i]; dot += (double)z[i] * dz[i]; }
    sum /= (double)columns;
    for (int64_t j = 0; j < columns; j += UNIC_ROW) {
      int64_t n = columns - j < UNIC_ROW ? columns - j : UNIC_ROW;
      #pragma omp simd
      for (int64_t i = 0; i < n; i++) out[i] = s->r[r] * (float)(dz[j + i] - sum - z[j + i] * dot);
      unic_row_put(s->dx, s->dtype, r * columns + j, n, out, s->accumulate);
    }
  }
}

/* Rows of a panel of C: their part of the loss. */
UNIC_LOOP(correlation_rows) {
  const struct correlation *s = context;
  for (int64_t r = begin; r < end; r++) {
    const float *c = s->c + r * s->columns;
    double total = 0, own = c[s->first + r];
    for (int64_t j = 0; j < s->columns; j += UNIC_ROW) {
      int64_t n = s->columns - j < UNIC_ROW ? s->columns - j : UNIC_ROW;
      float sum = 0;
      #pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < n; i++) sum += i + j == s->first + r ? 0.0f : c[j + i] * c[j + i];
      total += sum;
    }
    s->part[s->first + r] = (1 - own) * (1 - own) + s->lambda * total;
  }
}

/* Rows of a panel: C becomes dC. */
UNIC_LOOP(correlation_rows_backward) {
  const struct correlation *s = context;
  for (int64_t r = begin; r < end; r++) {
    float *restrict c = s->c + r * s->columns, own = c[s->first + r], f = s->lambda * s->scale;
    #pragma omp simd
    for (int64_t j = 0; j < s->columns; j++) c[j] *= f;
    c[s->first + r] = s->scale * (own - 1);
  }
}

#else

UNIC_LOOP_TABLE(standard_columns);
UNIC_LOOP_TABLE(standard_rows);
UNIC_LOOP_TABLE(standard_columns_backward);
UNIC_LOOP_TABLE(standard_rows_backward);
UNIC_LOOP_TABLE(correlation_rows);
UNIC_LOOP_TABLE(correlation_rows_backward);

static unic_status cross_correlation_shape(unic_call *c) {
  if (!(c->arg[EPS].number >= 0)) return unic_fail_arg(c, EPS, "%g was given, expected a number of at least 0", c->arg[EPS].number);
  unic_out(c, LOSS, unic_dtype_wide(c->type), 0, NULL);
  return UNIC_OK;
}

static int64_t padded(int64_t floats) { return (floats + 15) & ~(int64_t)15; }

typedef struct sizes { int64_t k, d, vectors, rows; bool features; } sizes;

static sizes sizes_of(const unic_kernel *k) {
  sizes s = {.k = k->in[A].shape[0], .d = k->in[A].shape[1], .features = k->arg[ALONG].integer == FEATURES};
  s.vectors = s.features ? s.d : s.k;
  s.rows = (1 << 22) / (s.vectors > 0 ? s.vectors : 1);
  if (s.rows < 16) s.rows = 16;
  if (s.rows > s.vectors) s.rows = s.vectors;
  return s;
}

/* Scratch, in floats: two standardised inputs (and their gradients), r, a panel, the rows' parts of the loss as doubles. */
typedef struct room { int64_t z[2], dz[2], r[2], panel, parts, total; } room;

static room rooms(const unic_kernel *k) {
  sizes s = sizes_of(k);
  int64_t matrix = padded(s.k * s.d), at = 0;
  room r;
  for (int i = 0; i < 2; i++, at += matrix) r.z[i] = at;
  for (int i = 0; i < 2; i++, at += k->backward ? matrix : 0) r.dz[i] = at;
  for (int i = 0; i < 2; i++, at += padded(s.vectors)) r.r[i] = at;
  r.panel = at;
  r.parts = at + padded(s.rows * s.vectors);
  r.total = r.parts + 2 * padded(s.vectors);
  return r;
}

static unic_status cross_correlation_plan(const unic_kernel *k, unic_plan *p) {
  unic_gemm_start();
  p->scratch = k->type == UNIC_F64 ? 4 * k->in[A].numel * 8 : rooms(k).total * 4;
  return UNIC_OK;
}

static int64_t rows_at_once(int64_t columns) { return columns >= 1 << 13 ? 1 : (1 << 13) / (columns > 0 ? columns : 1); }

static void standardise(const unic_kernel *k, const sizes *s, float *scratch, const room *at, struct standard z[2]) {
  for (int i = 0; i < 2; i++) {
    z[i] = (struct standard){.x = k->in[i].data, .z = scratch + at->z[i], .r = scratch + at->r[i], .rows = s->k, .columns = s->d, .dtype = k->type, .eps = k->arg[EPS].number};
    if (s->features) UNIC_RUN(standard_columns, s->d, COLUMNS, &z[i]);
    else UNIC_RUN(standard_rows, s->k, rows_at_once(s->d), &z[i]);
  }
}

/* Rows first .. first + rows of C. */
static bool panel(const sizes *s, const float *za, const float *zb, int64_t first, int64_t rows, float *c) {
  if (s->features) return unic_gemm(false, 'T', 'N', rows, s->d, s->k, 1, za + first, s->d, zb, s->d, 0, c, s->d);
  return unic_gemm(false, 'N', 'T', rows, s->k, s->d, 1, za + first * s->d, s->d, zb, s->d, 0, c, s->k);
}

static unic_status refused(const sizes *s) {
  return unic_fail("[cross_correlation] oneDNN could not compute a product of two [%lld, %lld]", (long long)s->k, (long long)s->d);
}

static unic_status cross_correlation_forward(const unic_kernel *k) {
  sizes s = sizes_of(k);
  float *scratch = k->scratch, *loss = k->out[LOSS].data;
  *loss = 0;
  if (s.k == 0 || s.d == 0) return UNIC_OK;
  room at = rooms(k);
  struct standard z[2];
  standardise(k, &s, scratch, &at, z);
  struct correlation c = {.c = scratch + at.panel, .part = (double *)(scratch + at.parts), .columns = s.vectors, .lambda = (float)k->arg[LAMBDA].number};
  for (c.first = 0; c.first < s.vectors; c.first += s.rows) {
    int64_t rows = s.vectors - c.first < s.rows ? s.vectors - c.first : s.rows;
    if (!panel(&s, z[0].z, z[1].z, c.first, rows, c.c)) return refused(&s);
    UNIC_RUN(correlation_rows, rows, rows_at_once(s.vectors), &c);
  }
  double sum = 0;
  for (int64_t i = 0; i < s.vectors; i++) sum += c.part[i];
  *loss = (float)(sum / (double)s.vectors);
  return UNIC_OK;
}

static unic_status cross_correlation_backward(const unic_kernel *k) {
  sizes s = sizes_of(k);
  float *scratch = k->scratch;
  if (s.k == 0 || s.d == 0) return UNIC_OK;
  room at = rooms(k);
  struct standard z[2];
  standardise(k, &s, scratch, &at, z);
  float *za = z[0].z, *zb = z[1].z, *dza = scratch + at.dz[0], *dzb = scratch + at.dz[1];
  struct correlation c = {.c = scratch + at.panel, .columns = s.vectors, .lambda = (float)k->arg[LAMBDA].number,
                          .scale = (float)(2 * (double)*(const float *)k->dout[LOSS].data / (double)s.vectors)};
  for (c.first = 0; c.first < s.vectors; c.first += s.rows) {
    int64_t rows = s.vectors - c.first < s.rows ? s.vectors - c.first : s.rows;
    float *dc = c.c, more = c.first > 0;
    if (!panel(&s, za, zb, c.first, rows, dc)) return refused(&s);
    UNIC_RUN(correlation_rows_backward, rows, rows_at_once(s.vectors), &c);
    bool ok = true;
    if (s.features) {
      if (k->din[A].present) ok = ok && unic_gemm(false, 'N', 'T', s.k, rows, s.d, 1, zb, s.d, dc, s.d, 0, dza + c.first, s.d);
      if (k->din[B].present) ok = ok && unic_gemm(false, 'N', 'N', s.k, s.d, rows, 1, za + c.first, s.d, dc, s.d, more, dzb, s.d);
    } else {
      if (k->din[A].present) ok = ok && unic_gemm(false, 'N', 'N', rows, s.d, s.k, 1, dc, s.k, zb, s.d, 0, dza + c.first * s.d, s.d);
      if (k->din[B].present) ok = ok && unic_gemm(false, 'T', 'N', s.k, s.d, rows, 1, dc, s.k, za + c.first * s.d, s.d, more, dzb, s.d);
    }
    if (!ok) return refused(&s);
  }
  for (int i = 0; i < 2; i++) {
    if (!k->din[i].present) continue;
    z[i].dz = scratch + at.dz[i];
    z[i].dx = k->din[i].data;
    z[i].accumulate = k->accumulate[i];
    if (s.features) UNIC_RUN(standard_columns_backward, s.d, COLUMNS, &z[i]);
    else UNIC_RUN(standard_rows_backward, s.k, rows_at_once(s.d), &z[i]);
  }
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

/* Element t of vector i in a [K, D] matrix. */
static int64_t element(const sizes *s, int64_t i, int64_t t) { return s->features ? t * s->d + i : i * s->d + t; }

static void reference_standardise(const unic_kernel *k, const sizes *s, int which, double *z) {
  const double *x = k->in[which].data;
  int64_t m = s->features ? s->k : s->d;
  for (int64_t i = 0; i < s->vectors; i++) {
    double mean = 0, var = 0;
    for (int64_t t = 0; t < m; t++) mean += x[element(s, i, t)] / (double)m;
    for (int64_t t = 0; t < m; t++) var += (x[element(s, i, t)] - mean) * (x[element(s, i, t)] - mean) / (double)m;
    for (int64_t t = 0; t < m; t++) z[element(s, i, t)] = (x[element(s, i, t)] - mean) / (sqrt((double)m) * sqrt(var + k->arg[EPS].number));
  }
}

static double reference_correlation(const sizes *s, const double *za, const double *zb, int64_t i, int64_t j) {
  double c = 0;
  for (int64_t t = 0; t < (s->features ? s->k : s->d); t++) c += za[element(s, i, t)] * zb[element(s, j, t)];
  return c;
}

static unic_status cross_correlation_reference(const unic_kernel *k) {
  sizes s = sizes_of(k);
  double *za = k->scratch, *zb = za + s.k * s.d, loss = 0;
  reference_standardise(k, &s, A, za);
  reference_standardise(k, &s, B, zb);
  for (int64_t i = 0; i < s.vectors; i++)
    for (int64_t j = 0; j < s.vectors; j++) {
      double c = reference_correlation(&s, za, zb, i, j);
      loss += i == j ? (1 - c) * (1 - c) : k->arg[LAMBDA].number * c * c;
    }
  *(double *)k->out[LOSS].data = s.k > 0 && s.d > 0 ? loss / (double)s.vectors : 0;
  return UNIC_OK;
}

static unic_status cross_correlation_reference_backward(const unic_kernel *k) {
  sizes s = sizes_of(k);
  int64_t m = s.features ? s.k : s.d;
  double *z[2] = {k->scratch, (double *)k->scratch + s.k * s.d}, *dz[2] = {z[1] + s.k * s.d, z[1] + 2 * s.k * s.d}, dloss = *(const double *)k->dout[LOSS].data;
  reference_standardise(k, &s, A, z[0]);
  reference_standardise(k, &s, B, z[1]);
  for (int64_t e = 0; e < s.k * s.d; e++) dz[0][e] = dz[1][e] = 0;
  for (int64_t i = 0; i < s.vectors; i++)
    for (int64_t j = 0; j < s.vectors; j++) {
      double c = reference_correlation(&s, z[0], z[1], i, j);
      double dc = dloss / (double)s.vectors * (i == j ? -2 * (1 - c) : 2 * k->arg[LAMBDA].number * c);
      for (int64_t t = 0; t < m; t++) {
        dz[0][element(&s, i, t)] += dc * z[1][element(&s, j, t)];
        dz[1][element(&s, j, t)] += dc * z[0][element(&s, i, t)];
      }
    }
  /* z_t = (x_t - mean) g with g = (m (var + eps))^-1/2: dz_t / dx_u = g ([t = u] - 1/m) - z_t z_u g. */
  for (int which = 0; which < 2; which++) {
    const double *x = k->in[which].data;
    double *dx = k->din[which].data;
    for (int64_t i = 0; i < s.vectors && dx; i++) {
      double mean = 0, var = 0;
      for (int64_t t = 0; t < m; t++) mean += x[element(&s, i, t)] / (double)m;
      for (int64_t t = 0; t < m; t++) var += (x[element(&s, i, t)] - mean) * (x[element(&s, i, t)] - mean) / (double)m;
      double g = 1 / sqrt((double)m * (var + k->arg[EPS].number));
      for (int64_t u = 0; u < m; u++) {
        double d = 0;
        for (int64_t t = 0; t < m; t++)
          d += dz[which][element(&s, i, t)] * g * ((t == u) - 1 / (double)m - z[which][element(&s, i, t)] * z[which][element(&s, i, u)]);
        dx[element(&s, i, u)] = d + (k->accumulate[which] ? dx[element(&s, i, u)] : 0);
      }
    }
  }
  return UNIC_OK;
}

static double cross_correlation_flops(const unic_kernel *k) {
  sizes s = sizes_of(k);
  return 2.0 * (double)s.vectors * (double)k->in[A].numel * unic_products(k, A, B);
}

static const unic_op op_cross_correlation = {
  .name = "cross_correlation",
  .signature = "a: tensor[K,D], b: tensor[K,D], along: choice(features|samples) = features, lambda: number = 0.0051, eps: number = 1e-5 -> loss",
  .doc = "Makes corresponding vectors of two views correlated and all others uncorrelated: mean over i of (1 - C_ii)^2 + lambda sum over j of C_ij^2.\n"
         "a       one view [K, D]\n"
         "b       the other view [K, D]\n"
         "along   features: C [D, D] between columns, standardised over the batch; samples: C [K, K] between rows, standardised over their features\n"
         "lambda  weight of the correlations that should vanish\n"
         "eps     added to the variances; a vector of no variance correlates with nothing",
  .saves = "a b",
  .grads = "a b",
  .shape = cross_correlation_shape,
  .cpu = {cross_correlation_forward, cross_correlation_backward, cross_correlation_reference, cross_correlation_reference_backward, .plan = cross_correlation_plan},
  .flags = UNIC_OP_SAME_THREADS,
  .autocast = UNIC_CAST_NONE,   /* computes in f32 whatever the storage: a copy in f32 would bring nothing */
  .flops = cross_correlation_flops,
};

UNIC_OPS(cross_correlation, &op_cross_correlation);

#endif
