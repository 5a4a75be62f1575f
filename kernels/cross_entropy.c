/* cross_entropy: softmax and negative log-likelihood in one op: weighted mean over the rows that count, sum, or every row's own (0 if ignored).
 *
 *   row i with label t:  l_i = (1 - s) w_t (lse_i - x_it) + (s / K) sum_c w_c (lse_i - x_ic)       lse_i = log sum_c exp(x_ic)
 *   loss = sum l_i / sum w_t   over rows whose label is not ignore_index; 0 when there is none
 *   dx_ic = dloss / sum w_t * ((w_t (1 - s) + (s / K) sum w) p_ic - w_t (1 - s) [c = t] - (s / K) w_c)
 *
 * x [N,K] logits, target [N] labels from 0, weight [K] (absent: ones), s = smoothing. As PyTorch's, but for the empty mean (NaN there).
 * x may be bf16 or f16; sums and loss are f32 (rows) and f64 (over rows).
 *
 * Saved: x, target, weight, lse [N], total (the sum of w_t). Bits: equal at any thread count (sums in fixed chunks of rows). */
#include "loops.h"

enum { X, TARGET, WEIGHT, IGNORE_INDEX, SMOOTHING, REDUCTION };
enum { LOSS, LSE, TOTAL };
enum { MEAN, SUM, NONE };

struct entropy {
  const void *x, *target;
  const float *weight;
  float *lse;
  float *each;               /* forward: every row's own loss; NULL: sums */
  const float *dloss;        /* backward of those; NULL: `scale` for all */
  void *dx;
  double *sums;              /* one per chunk of rows */
  int64_t classes, chunk, ignore;
  double weights;            /* sum of weight over the classes */
  float smoothing, scale;    /* scale: dloss / total */
  int dtype, target_dtype, accumulate;
};

static inline int64_t label(const void *target, int dtype, int64_t i) { return dtype == UNIC_I64 ? ((const int64_t *)target)[i] : ((const int32_t *)target)[i]; }

#if UNIC_LOOPS

UNIC_LOOP(entropy_forward) {
  const struct entropy *s = context;
  float buffer[UNIC_ROW];
  int64_t n = s->classes, piece = s->dtype == UNIC_F32 ? n : UNIC_ROW;
  double total = 0;
  for (int64_t r = begin; r < end; r++) {
    int64_t at = r * n, t = label(s->target, s->target_dtype, r);
    if (t == s->ignore) {
      if (s->lse) s->lse[r] = 0;
      if (s->each) s->each[r] = 0;
      continue;
    }
    float m = -INFINITY, sum = 0, logits = 0;   /* logits: sum_c w_c (m - x_c), for smoothing */
    for (int64_t j = 0; j < n; j += piece) {
      int64_t c = n - j < piece ? n - j : piece;
      const float *x = unic_row_load(s->x, s->dtype, at + j, c, buffer);
      #pragma omp simd reduction(max : m)
      for (int64_t i = 0; i < c; i++) m = x[i] > m ? x[i] : m;
    }
    for (int64_t j = 0; j < n; j += piece) {
      int64_t c = n - j < piece ? n - j : piece;
      const float *x = n <= piece && s->dtype != UNIC_F32 ? buffer : unic_row_load(s->x, s->dtype, at + j, c, buffer);
      #pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < c; i++) sum += unic_exp_fallingf(x[i] - m);
      if (s->smoothing > 0) {
        if (s->weight) {
          const float *w = s->weight + j;
          #pragma omp simd reduction(+ : logits)
          for (int64_t i = 0; i < c; i++) logits += w[i] * (m - x[i]);
        } else {
          #pragma omp simd reduction(+ : logits)
          for (int64_t i = 0; i < c; i++) logits += m - x[i];
        }
      }
    }
    float xt, ls = logf(sum);
    xt = unic_row_load(s->x, s->dtype, at + t, 1, &xt)[0];
    if (s->lse) s->lse[r] = m + ls;
    double w = s->weight ? s->weight[t] : 1, own = (1 - (double)s->smoothing) * w * (((double)m - xt) + ls);
    if (s->smoothing > 0) own += (double)s->smoothing / (double)n * (s->weights * ls + logits);
    total += own;
    if (s->each) s->each[r] = (float)own;
  }
  if (s->sums) s->sums[begin / s->chunk] = total;
}

UNIC_LOOP(entropy_backward) {
  const struct entropy *s = context;
  float buffer[UNIC_ROW], out[UNIC_ROW];
  int64_t n = s->classes;
  for (int64_t r = begin; r < end; r++) {
    float scale = s->dloss ? s->dloss[r] : s->scale, even = s->smoothing / (float)n * scale;   /* even: what smoothing takes off each class, times its weight */
    int64_t at = r * n, t = label(s->target, s->target_dtype, r);
    bool counts = t != s->ignore;
    if (!counts && s->accumulate) continue;
    float hit = counts ? (s->weight ? s->weight[t] : 1.0f) * (1 - s->smoothing) * scale : 0, lse = s->lse[r];
    float all = counts ? hit + even * (float)s->weights : 0;
    for (int64_t j = 0; j < n; j += UNIC_ROW) {
      int64_t c = n - j < UNIC_ROW ? n - j : UNIC_ROW;
      if (!counts) {
        for (int64_t i = 0; i < c; i++) out[i] = 0;
      } else {
        const float *x = unic_row_load(s->x, s->dtype, at + j, c, buffer);
        if (s->smoothing > 0 && s->weight) {
          const float *w = s->weight + j;
          #pragma omp simd
          for (int64_t i = 0; i < c; i++) out[i] = all * unic_exp_fallingf(x[i] - lse) - even * w[i];
        } else {
          float off = s->smoothing > 0 ? even : 0;
          #pragma omp simd
          for (int64_t i = 0; i < c; i++) out[i] = all * unic_exp_fallingf(x[i] - lse) - off;
        }
        if (t >= j && t < j + c) out[t - j] -= hit;
      }
      unic_row_put(s->dx, s->dtype, at + j, c, out, s->accumulate);
    }
  }
}

#else

UNIC_LOOP_TABLE(entropy_forward);
UNIC_LOOP_TABLE(entropy_backward);

static unic_status cross_entropy_shape(unic_call *c) {
  const int64_t *x = c->in[X]->shape;
  double s = c->arg[SMOOTHING].number;
  if (!(s >= 0 && s <= 1)) return unic_fail_arg(c, SMOOTHING, "%g was given, expected a share (0 to 1)", s);
  if (x[0] > 0 && x[1] == 0) return unic_fail_arg(c, X, "it has no classes, expected at least one");
  unic_dtype wide = unic_dtype_wide(c->type);
  unic_out(c, LOSS, wide, c->arg[REDUCTION].integer == NONE ? 1 : 0, x);
  unic_out(c, LSE, wide, 1, x);
  unic_out(c, TOTAL, wide, 0, NULL);
  return UNIC_OK;
}

/* Rows per partial sum: about 16k logits. */
static int64_t rows_at_once(int64_t classes) { return classes >= 1 << 14 ? 1 : (1 << 14) / (classes > 0 ? classes : 1); }

static unic_status cross_entropy_plan(const unic_kernel *k, unic_plan *p) {
  int64_t rows = k->in[X].shape[0], chunk = rows_at_once(k->in[X].shape[1]);
  if (!k->backward && k->type != UNIC_F64 && k->arg[REDUCTION].integer != NONE) p->scratch = (rows + chunk - 1) / chunk * 8;
  return UNIC_OK;
}

/* Labels looked at before anything is read with them, and the sum of their weights. */
static unic_status take_labels(const unic_kernel *k, double *total) {
  int64_t rows = k->in[X].shape[0], classes = k->in[X].shape[1], ignore = k->arg[IGNORE_INDEX].integer;
  const void *weight = k->in[WEIGHT].data;
  *total = 0;
  for (int64_t i = 0; i < rows; i++) {
    int64_t t = label(k->in[TARGET].data, k->in[TARGET].dtype, i);
    if (t == ignore) continue;
    if (t < 0 || t >= classes)
      return unic_fail("[cross_entropy] argument 'target': value %lld at position %lld is outside 0..%lld (and is not ignore_index %lld)", (long long)t, (long long)i,
                       (long long)classes - 1, (long long)ignore);
    *total += weight ? unic_element_get(weight, (unic_dtype)k->in[WEIGHT].dtype, t) : 1;
  }
  return UNIC_OK;
}

static void describe(const unic_kernel *k, struct entropy *s) {
  *s = (struct entropy){.x = k->in[X].data, .target = k->in[TARGET].data, .weight = k->in[WEIGHT].data, .classes = k->in[X].shape[1], .ignore = k->arg[IGNORE_INDEX].integer,
                        .smoothing = (float)k->arg[SMOOTHING].number, .dtype = k->type, .target_dtype = k->in[TARGET].dtype};
  s->chunk = rows_at_once(s->classes);
  s->weights = (double)s->classes;
  if (s->weight) {
    s->weights = 0;
    for (int64_t c = 0; c < s->classes; c++) s->weights += s->weight[c];
  }
}

static unic_status cross_entropy_forward(const unic_kernel *k) {
  struct entropy s;
  double total, sum = 0;
  int64_t rows = k->in[X].shape[0];
  UNIC_TRY(take_labels(k, &total));
  describe(k, &s);
  s.lse = k->grad ? k->out[LSE].data : NULL;
  bool each = k->arg[REDUCTION].integer == NONE;
  if (each) s.each = k->out[LOSS].data;
  else s.sums = k->scratch;
  UNIC_RUN(entropy_forward, rows, s.chunk, &s);
  if (k->arg[REDUCTION].integer != MEAN) total = 1;
  if (k->grad) *(float *)k->out[TOTAL].data = (float)total;
  if (each) return UNIC_OK;
  for (int64_t i = 0; i < (rows + s.chunk - 1) / s.chunk; i++) sum += s.sums[i];
  *(float *)k->out[LOSS].data = total != 0 ? (float)(sum / total) : 0;
  return UNIC_OK;
}

static unic_status cross_entropy_backward(const unic_kernel *k) {
  struct entropy s;
  float total = *(const float *)k->out[TOTAL].data;
  describe(k, &s);
  s.lse = k->out[LSE].data;
  s.dx = k->din[X].data;
  s.accumulate = k->accumulate[X];
  if (k->arg[REDUCTION].integer == NONE) s.dloss = k->dout[LOSS].data;
  else s.scale = total != 0 ? *(const float *)k->dout[LOSS].data / total : 0;
  UNIC_RUN(entropy_backward, k->in[X].shape[0], s.chunk, &s);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

/* The log-sum-exp of a row. */
static double row_lse(const double *x, int64_t n) {
  double most = -INFINITY, sum = 0;
  for (int64_t c = 0; c < n; c++) if (!(x[c] <= most)) most = x[c];
  for (int64_t c = 0; c < n; c++) sum += exp(x[c] - most);
  return most + log(sum);
}

static unic_status cross_entropy_reference(const unic_kernel *k) {
  double total, sum = 0, smoothing = k->arg[SMOOTHING].number;
  int reduction = (int)k->arg[REDUCTION].integer;
  const double *weight = k->in[WEIGHT].data;
  int64_t n = k->in[X].shape[1];
  UNIC_TRY(take_labels(k, &total));
  for (int64_t i = 0; i < k->in[X].shape[0]; i++) {
    const double *x = (const double *)k->in[X].data + i * n;
    int64_t t = label(k->in[TARGET].data, k->in[TARGET].dtype, i);
    double lse = t == k->arg[IGNORE_INDEX].integer ? 0 : row_lse(x, n);
    if (k->grad) ((double *)k->out[LSE].data)[i] = lse;
    double loss = 0;
    if (t != k->arg[IGNORE_INDEX].integer) {
      loss += (1 - smoothing) * (weight ? weight[t] : 1) * (lse - x[t]);
      for (int64_t c = 0; c < n && smoothing > 0; c++) loss += smoothing / (double)n * (weight ? weight[c] : 1) * (lse - x[c]);
    }
    if (reduction == NONE) ((double *)k->out[LOSS].data)[i] = loss;
    sum += loss;
  }
  if (reduction != MEAN) total = 1;
  if (reduction != NONE) *(double *)k->out[LOSS].data = total != 0 ? sum / total : 0;
  if (k->grad) *(double *)k->out[TOTAL].data = total;
  return UNIC_OK;
}

static unic_status cross_entropy_reference_backward(const unic_kernel *k) {
  double total = *(const double *)k->out[TOTAL].data, smoothing = k->arg[SMOOTHING].number;
  const double *weight = k->in[WEIGHT].data;
  int64_t n = k->in[X].shape[1];
  for (int64_t i = 0; i < k->in[X].shape[0]; i++) {
    const double *x = (const double *)k->in[X].data + i * n;
    double *dx = (double *)k->din[X].data + i * n;
    int64_t t = label(k->in[TARGET].data, k->in[TARGET].dtype, i);
    for (int64_t c = 0; c < n; c++) {
      double d = 0;
      if (t != k->arg[IGNORE_INDEX].integer && total != 0) {
        double p = exp(x[c] - ((const double *)k->out[LSE].data)[i]);
        d = (1 - smoothing) * (weight ? weight[t] : 1) * (p - (c == t));
        for (int64_t e = 0; e < n && smoothing > 0; e++) d += smoothing / (double)n * (weight ? weight[e] : 1) * (p - (c == e));
        d *= ((const double *)k->dout[LOSS].data)[k->arg[REDUCTION].integer == NONE ? i : 0] / total;
      }
      dx[c] = d + (k->accumulate[X] ? dx[c] : 0);
    }
  }
  return UNIC_OK;
}

static const unic_op op_cross_entropy = {
  .name = "cross_entropy",
  .signature = "x: tensor[N,K], target: tensor<int>[N], weight: tensor<wide>?[K], ignore_index: int = -100, smoothing: number = 0, reduction: choice(mean|sum|none) = mean -> loss, (lse, total)",
  .doc = "Negative log-likelihood of the labels under softmax(x); its mean is 0 when no row counts.\n"
         "x             logits [N, K]\n"
         "target        labels from 0 [N], i64 or i32\n"
         "weight        weight of each class [K]; the mean is weighted by it\n"
         "ignore_index  the label of rows that do not count\n"
         "smoothing     share of the target that is spread evenly over all classes\n"
         "reduction     \"mean\" (by the weights of the labels), \"sum\", or \"none\": every row's own loss [N]",
  .saves = "x target weight lse total",
  .grads = "x",
  .shape = cross_entropy_shape,
  .cpu = {cross_entropy_forward, cross_entropy_backward, cross_entropy_reference, cross_entropy_reference_backward, .plan = cross_entropy_plan},
  .flags = UNIC_OP_METHOD,
  .autocast = UNIC_CAST_NONE,   /* computes in f32 whatever the storage: a copy in f32 would bring nothing */
};

UNIC_OPS(cross_entropy, &op_cross_entropy);

#endif
