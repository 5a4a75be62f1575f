/* bce_with_logits: binary cross-entropy on logits: mean over all elements, sum, or every element's own (in f32, f64 for f64).
 *
 *   l = (1 - t) x + (1 + (w - 1) t) log(1 + exp(-x))       loss = mean l        w = pos_weight of the column (1 when absent)
 *   dx = dloss / numel * ((1 + (w - 1) t) sigmoid(x) - w t)
 *
 * x, target: any one shape; pos_weight [C] along the last dimension, or [1]. Targets between 0 and 1; no gradient flows to them.
 * log(1 + exp(-x)) = max(-x, 0) + log(1 + exp(-|x|)): no logit overflows.
 *
 * Saved: x, target, pos_weight. Bits: equal at any thread count (sums in fixed chunks). */
#include "loops.h"

enum { X, TARGET, POS_WEIGHT, REDUCTION };
enum { MEAN, SUM, NONE };
enum { LOSS };
enum { CHUNK = 1 << 14 };

struct binary {
  const void *x, *target;
  const float *weight, *dloss;   /* dloss: backward of every element's own loss; NULL: `scale` for all */
  float *each;                   /* forward: every element's own loss; NULL: sums */
  void *dx;
  double *sums;
  int64_t columns;
  float scale;
  int dtype, accumulate;
};

#if UNIC_LOOPS

/* log(1 + e) for 0 <= e <= 1 as 2 atanh(e / (2 + e)); the series' rest is below 2e-9 of it. */
static inline float log_one_plus(float e) {
  float s = e / (2.0f + e), q = s * s;
  float p = 0.0666666667f;
  p = p * q + 0.0769230769f;
  p = p * q + 0.0909090909f;
  p = p * q + 0.111111111f;
  p = p * q + 0.142857143f;
  p = p * q + 0.2f;
  p = p * q + 0.333333333f;
  return 2.0f * s + 2.0f * s * q * p;
}

/* The positive weights that belong to elements at .. at + n. */
static const float *weights_of(const struct binary *b, int64_t at, int64_t n, float *buffer) {
  if (!b->weight) {
    for (int64_t i = 0; i < n; i++) buffer[i] = 1;
  } else if (b->columns == 1) {
    for (int64_t i = 0; i < n; i++) buffer[i] = b->weight[0];
  } else {
    for (int64_t i = 0, c = at % b->columns; i < n; i++) {
      buffer[i] = b->weight[c];
      if (++c == b->columns) c = 0;
    }
  }
  return buffer;
}

UNIC_LOOP(binary_forward) {
  const struct binary *b = context;
  float xbuffer[UNIC_ROW], tbuffer[UNIC_ROW], weights[UNIC_ROW];
  double total = 0;
  for (int64_t j = begin; j < end; j += UNIC_ROW) {
    int64_t n = end - j < UNIC_ROW ? end - j : UNIC_ROW;
    const float *x = unic_row_load(b->x, b->dtype, j, n, xbuffer), *t = unic_row_load(b->target, b->dtype, j, n, tbuffer);
    const float *w = weights_of(b, j, n, weights);
    float sum = 0;
    if (b->each) {
      float *restrict each = b->each + j;
      for (int64_t i = 0; i < n; i++) {
        float v = x[i], soft = log_one_plus(unic_expf(-fabsf(v))) + (v < 0 ? -v : 0.0f);
        each[i] = (1 - t[i]) * v + (1 + (w[i] - 1) * t[i]) * soft;
      }
      continue;
    }
    #pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) {
      float v = x[i], soft = log_one_plus(unic_expf(-fabsf(v))) + (v < 0 ? -v : 0.0f);
      sum += (1 - t[i]) * v + (1 + (w[i] - 1) * t[i]) * soft;
    }
    total += sum;
  }
  if (b->sums) b->sums[begin / CHUNK] = total;
}

UNIC_LOOP(binary_backward) {
  const struct binary *b = context;
  float xbuffer[UNIC_ROW], tbuffer[UNIC_ROW], weights[UNIC_ROW], out[UNIC_ROW];
  for (int64_t j = begin; j < end; j += UNIC_ROW) {
    int64_t n = end - j < UNIC_ROW ? end - j : UNIC_ROW;
    const float *x = unic_row_load(b->x, b->dtype, j, n, xbuffer), *t = unic_row_load(b->target, b->dtype, j, n, tbuffer);
    const float *w = weights_of(b, j, n, weights);
    const float *dloss = b->dloss ? b->dloss + j : NULL;
    #pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] = (dloss ? dloss[i] : b->scale) * ((1 + (w[i] - 1) * t[i]) * unic_sigmoidf(x[i]) - w[i] * t[i]);
    unic_row_put(b->dx, b->dtype, j, n, out, b->accumulate);
  }
}

#else

#include <string.h>

UNIC_LOOP_TABLE(binary_forward);
UNIC_LOOP_TABLE(binary_backward);

static unic_status bce_shape(unic_call *c) {
  const unic_tensor *x = c->in[X], *target = c->in[TARGET], *weight = c->in[POS_WEIGHT];
  char given[256], want[256];
  if (x->ndim != target->ndim || memcmp(x->shape, target->shape, x->ndim * sizeof *x->shape) != 0)
    return unic_fail_arg(c, TARGET, "%s was given, expected the shape of 'x', %s", unic_tensor_describe(target, given, sizeof given),
                         unic_shape_describe(x->ndim, x->shape, want, sizeof want));
  int64_t columns = x->ndim > 0 ? x->shape[x->ndim - 1] : 1;
  if (weight && weight->shape[0] != 1 && weight->shape[0] != columns)
    return unic_fail_arg(c, POS_WEIGHT, "%s was given, expected [%lld] (the last dimension of 'x') or [1]", unic_tensor_describe(weight, given, sizeof given), (long long)columns);
  bool each = c->arg[REDUCTION].integer == NONE;
  unic_out(c, LOSS, unic_dtype_wide(c->type), each ? x->ndim : 0, x->shape);
  return UNIC_OK;
}

static unic_status bce_plan(const unic_kernel *k, unic_plan *p) {
  if (!k->backward && k->type != UNIC_F64 && k->arg[REDUCTION].integer != NONE) p->scratch = (k->in[X].numel + CHUNK - 1) / CHUNK * 8;
  return UNIC_OK;
}

/* What the sum is divided by. */
static double parts(const unic_kernel *k) { return k->arg[REDUCTION].integer == MEAN && k->in[X].numel > 0 ? (double)k->in[X].numel : 1; }

static unic_status bce_forward(const unic_kernel *k) {
  int64_t n = k->in[X].numel;
  struct binary b = {.x = k->in[X].data, .target = k->in[TARGET].data, .weight = k->in[POS_WEIGHT].data, .dtype = k->type,
                     .columns = k->in[POS_WEIGHT].present ? k->in[POS_WEIGHT].shape[0] : 1};
  double sum = 0;
  if (k->arg[REDUCTION].integer == NONE) {
    b.each = k->out[LOSS].data;
    UNIC_RUN(binary_forward, n, CHUNK, &b);
    return UNIC_OK;
  }
  b.sums = k->scratch;
  UNIC_RUN(binary_forward, n, CHUNK, &b);
  for (int64_t i = 0; i < (n + CHUNK - 1) / CHUNK; i++) sum += b.sums[i];
  *(float *)k->out[LOSS].data = (float)(sum / parts(k));
  return UNIC_OK;
}

static unic_status bce_backward(const unic_kernel *k) {
  int64_t n = k->in[X].numel;
  struct binary b = {.x = k->in[X].data, .target = k->in[TARGET].data, .weight = k->in[POS_WEIGHT].data, .dx = k->din[X].data, .dtype = k->type,
                     .columns = k->in[POS_WEIGHT].present ? k->in[POS_WEIGHT].shape[0] : 1, .accumulate = k->accumulate[X]};
  if (n == 0) return UNIC_OK;
  if (k->arg[REDUCTION].integer == NONE) b.dloss = k->dout[LOSS].data;
  else b.scale = (float)((double)*(const float *)k->dout[LOSS].data / parts(k));
  UNIC_RUN(binary_backward, n, CHUNK, &b);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form: -w t log p - (1 - t) log(1 - p) */

static double positive(const unic_kernel *k, int64_t i) {
  const unic_view *w = &k->in[POS_WEIGHT];
  return w->present ? ((const double *)w->data)[i % w->shape[0]] : 1;
}

/* log sigmoid(x) */
static double log_sigmoid(double x) { return x < 0 ? x - log1p(exp(x)) : -log1p(exp(-x)); }

static unic_status bce_reference(const unic_kernel *k) {
  const double *x = k->in[X].data, *t = k->in[TARGET].data;
  double sum = 0;
  int64_t n = k->in[X].numel;
  bool each = k->arg[REDUCTION].integer == NONE;
  for (int64_t i = 0; i < n; i++) {
    double loss = -positive(k, i) * t[i] * log_sigmoid(x[i]) - (1 - t[i]) * log_sigmoid(-x[i]);
    if (each) ((double *)k->out[LOSS].data)[i] = loss;
    sum += loss;
  }
  if (!each) *(double *)k->out[LOSS].data = sum / parts(k);
  return UNIC_OK;
}

static unic_status bce_reference_backward(const unic_kernel *k) {
  const double *x = k->in[X].data, *t = k->in[TARGET].data;
  double *dx = k->din[X].data;
  const double *dloss = k->dout[LOSS].data;
  bool each = k->arg[REDUCTION].integer == NONE;
  int64_t n = k->in[X].numel;
  for (int64_t i = 0; i < n; i++) {
    double p = 1 / (1 + exp(-x[i]));
    double d = (each ? dloss[i] : *dloss / parts(k)) * ((1 - t[i]) * p - positive(k, i) * t[i] * (1 - p));
    dx[i] = d + (k->accumulate[X] ? dx[i] : 0);
  }
  return UNIC_OK;
}

static const unic_op op_bce_with_logits = {
  .name = "bce_with_logits",
  .signature = "x: tensor, target: tensor, pos_weight: tensor<wide>?[C], reduction: choice(mean|sum|none) = mean -> loss",
  .doc = "Binary cross-entropy between sigmoid(x) and the targets.\n"
         "x           logits, any shape\n"
         "target      the same shape, between 0 and 1\n"
         "pos_weight  weight of the positive term, one per column (last dimension) or one for all\n"
         "reduction   \"mean\", \"sum\", or \"none\": every element's own loss, in x's shape",
  .saves = "x target pos_weight",
  .grads = "x",
  .shape = bce_shape,
  .cpu = {bce_forward, bce_backward, bce_reference, bce_reference_backward, .plan = bce_plan},
  .flags = UNIC_OP_METHOD,
  .autocast = UNIC_CAST_NONE,   /* computes in f32 whatever the storage: a copy in f32 would bring nothing */
};

UNIC_OPS(bce_with_logits, &op_bce_with_logits);

#endif
