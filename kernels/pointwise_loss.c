/* Losses of one element each: mse, smooth_l1, kl_div, focal.
 *
 *   mse        (x - t)^2
 *   smooth_l1  d^2 / (2 beta) where d = |x - t| < beta, d - beta / 2 elsewhere; beta = 0 is |x - t|
 *   kl_div     t (log t - x), 0 where t = 0; with log_target e^t (t - x), 0 where e^t = 0           x: logarithms of probabilities
 *   focal      a q^gamma ce on logits: q = 1 - the probability of the target = p (1 - t) + t (1 - p), p = sigmoid(x),
 *              ce = binary cross-entropy, a = alpha t + (1 - alpha) (1 - t), or 1 when alpha < 0      (Lin et al. 2017)
 *
 * x, t of one shape; loss: their mean, their sum, the sum over the first dimension's size (batchmean), or every element (none, x's shape), in f32
 * (f64 for f64). The mean of nothing is 0. Gradients: x, and the target but for focal. d q / dx = p (1 - p) (1 - 2 t), and as q is at least the
 * smaller of p and 1 - p, q^(gamma - 1) p (1 - p) is written q^gamma (p (1 - p) / q): bounded for every gamma.
 *
 * Inputs share any dense layout: everything is one flat row. Saved: x, target. Bits: equal at any thread count (sums in fixed chunks). */
#include "precise.h"

enum { X, TARGET };
enum { LOSS };
enum { MSE, SMOOTH_L1, KL_DIV, FOCAL };
enum { MEAN, SUM, NONE, BATCHMEAN };
enum { CHUNK = 1 << 14 };

struct pointwise {
  const void *x, *target;
  const float *dloss;          /* backward: one element, or one per element of x (none) */
  float *each;                 /* forward with none: where the losses go */
  void *to;                    /* backward: the gradient of `side` */
  double *sums;                /* forward: one per chunk */
  float scale, alpha, gamma, beta;
  int kind, side, dtype, accumulate;
  bool log_target;
};

#if UNIC_LOOPS

static void powers(float gamma, int64_t n, const float *restrict q, float *restrict out) {
  if (gamma == 2) for (int64_t i = 0; i < n; i++) out[i] = q[i] * q[i];
  else if (gamma == 1) for (int64_t i = 0; i < n; i++) out[i] = q[i];
  else if (gamma == 0) for (int64_t i = 0; i < n; i++) out[i] = 1;
  else for (int64_t i = 0; i < n; i++) out[i] = unic_powf(q[i], gamma);
}

/* q = 1 - the probability of the target. */
static void misses(int64_t n, const float *restrict x, const float *restrict t, float *restrict q) {
  for (int64_t i = 0; i < n; i++) q[i] = unic_sigmoidf(x[i]) * (1 - t[i]) + t[i] * unic_sigmoidf(-x[i]);
}

static inline float binary_entropy(float x, float t) { return (1 - t) * x + unic_log1pf(unic_expf(-fabsf(x))) + (x < 0 ? -x : 0.0f); }

static void losses(const struct pointwise *s, int64_t n, const float *restrict x, const float *restrict t, float *restrict out) {
  switch (s->kind) {
    case MSE: for (int64_t i = 0; i < n; i++) { float d = x[i] - t[i]; out[i] = d * d; } break;
    case SMOOTH_L1: {
      float beta = s->beta, half = 0.5f * beta, by = beta > 0 ? 0.5f / beta : 0;
      for (int64_t i = 0; i < n; i++) { float d = fabsf(x[i] - t[i]); out[i] = d < beta ? by * d * d : d - half; }
      break;
    }
    case KL_DIV:
      if (s->log_target) for (int64_t i = 0; i < n; i++) { float e = unic_expf(t[i]); out[i] = e == 0 ? 0 : e * (t[i] - x[i]); }
      else for (int64_t i = 0; i < n; i++) out[i] = t[i] == 0 ? 0 : t[i] * (unic_logf(t[i]) - x[i]);
      break;
    default: {
      float q[UNIC_ROW], alpha = s->alpha;
      bool plain = alpha < 0;
      misses(n, x, t, q);
      powers(s->gamma, n, q, out);
      for (int64_t i = 0; i < n; i++) out[i] *= binary_entropy(x[i], t[i]) * (plain ? 1 : alpha * t[i] + (1 - alpha) * (1 - t[i]));
    }
  }
}

static void gradients(const struct pointwise *s, int64_t n, const float *restrict x, const float *restrict t, float *restrict out) {
  const bool first = s->side == X;
  switch (s->kind) {
    case MSE: { float by = first ? 2 : -2; for (int64_t i = 0; i < n; i++) out[i] = by * (x[i] - t[i]); break; }
    case SMOOTH_L1: {
      float beta = s->beta, side = first ? 1 : -1, by = beta > 0 ? 1 / beta : 0;
      for (int64_t i = 0; i < n; i++) { float d = x[i] - t[i]; out[i] = side * (fabsf(d) < beta ? by * d : d > 0 ? 1 : d < 0 ? -1 : d); }
      break;
    }
    case KL_DIV:
      if (s->log_target) {
        if (first) for (int64_t i = 0; i < n; i++) out[i] = -unic_expf(t[i]);
        else for (int64_t i = 0; i < n; i++) { float e = unic_expf(t[i]); out[i] = e == 0 ? 0 : e * (t[i] - x[i] + 1); }
      } else if (first) {
        for (int64_t i = 0; i < n; i++) out[i] = -t[i];
      } else {
        for (int64_t i = 0; i < n; i++) out[i] = t[i] == 0 ? 0 : unic_logf(t[i]) + 1 - x[i];
      }
      break;
    default: {
      float q[UNIC_ROW], alpha = s->alpha, gamma = s->gamma;
      bool plain = alpha < 0;
      misses(n, x, t, q);
      powers(gamma, n, q, out);
      for (int64_t i = 0; i < n; i++) {
        float p = unic_sigmoidf(x[i]), both = q[i] == 0 ? 0 : p * unic_sigmoidf(-x[i]) / q[i];
        float a = plain ? 1 : alpha * t[i] + (1 - alpha) * (1 - t[i]);
        /* p - t as p (1 - t) - (1 - p) t: no digits are lost where p is close to t = 1. */
        float off = p * (1 - t[i]) - unic_sigmoidf(-x[i]) * t[i];
        out[i] *= a * (off + gamma * binary_entropy(x[i], t[i]) * both * (1 - 2 * t[i]));
      }
    }
  }
}

UNIC_LOOP(pointwise_forward) {
  const struct pointwise *s = context;
  float xb[UNIC_ROW], tb[UNIC_ROW], out[UNIC_ROW];
  double total = 0;
  for (int64_t j = begin; j < end; j += UNIC_ROW) {
    int64_t n = end - j < UNIC_ROW ? end - j : UNIC_ROW;
    const float *x = unic_row_load(s->x, s->dtype, j, n, xb), *t = unic_row_load(s->target, s->dtype, j, n, tb);
    if (s->each) {
      losses(s, n, x, t, s->each + j);
      continue;
    }
    losses(s, n, x, t, out);
    float sum = 0;
    #pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < n; i++) sum += out[i];
    total += (double)sum;
  }
  if (s->sums) s->sums[begin / CHUNK] = total;
}

UNIC_LOOP(pointwise_backward) {
  const struct pointwise *s = context;
  float xb[UNIC_ROW], tb[UNIC_ROW], out[UNIC_ROW];
  for (int64_t j = begin; j < end; j += UNIC_ROW) {
    int64_t n = end - j < UNIC_ROW ? end - j : UNIC_ROW;
    const float *x = unic_row_load(s->x, s->dtype, j, n, xb), *t = unic_row_load(s->target, s->dtype, j, n, tb);
    gradients(s, n, x, t, out);
    if (s->dloss) for (int64_t i = 0; i < n; i++) out[i] *= s->dloss[j + i];
    else for (int64_t i = 0; i < n; i++) out[i] *= s->scale;
    unic_row_put(s->to, s->dtype, j, n, out, s->accumulate);
  }
}

#else

#include <string.h>

UNIC_LOOP_TABLE(pointwise_forward);
UNIC_LOOP_TABLE(pointwise_backward);

/* Where the attributes of each op stand; 0: it has none of that name. */
static const struct { const char *name; int reduction, beta, log_target, alpha, gamma; } attributes[] = {
  {"mse", 2, 0, 0, 0, 0}, {"smooth_l1", 2, 3, 0, 0, 0}, {"kl_div", 2, 0, 3, 0, 0}, {"focal", 4, 0, 0, 2, 3},
};

static int kind_of(const unic_op *op) {
  int i = 0;
  while (i < FOCAL && strcmp(op->name, attributes[i].name) != 0) i++;
  return i;
}

static unic_status shape(unic_call *c) {
  const unic_tensor *x = c->in[X], *target = c->in[TARGET];
  int kind = kind_of(c->op), beta = attributes[kind].beta, gamma = attributes[kind].gamma, alpha = attributes[kind].alpha, reduction = attributes[kind].reduction;
  char given[256], want[256];
  if (x->ndim != target->ndim || memcmp(x->shape, target->shape, x->ndim * sizeof *x->shape) != 0)
    return unic_fail_arg(c, TARGET, "%s was given, expected the shape of 'x', %s", unic_tensor_describe(target, given, sizeof given),
                         unic_shape_describe(x->ndim, x->shape, want, sizeof want));
  if (beta && !(c->arg[beta].number >= 0)) return unic_fail_arg(c, beta, "%g was given, 0 or more is expected", c->arg[beta].number);
  if (gamma && !(c->arg[gamma].number >= 0)) return unic_fail_arg(c, gamma, "%g was given, 0 or more is expected", c->arg[gamma].number);
  if (alpha && !(c->arg[alpha].number <= 1)) return unic_fail_arg(c, alpha, "%g was given, expected a share (0 to 1), or a negative number for no weights", c->arg[alpha].number);
  if (c->arg[reduction].integer == BATCHMEAN && x->ndim == 0) return unic_fail_arg(c, reduction, "\"batchmean\" was given, and 'x' has no dimensions: there is no batch");
  if (c->arg[reduction].integer == NONE) {
    unic_out_like(c, LOSS, x);
    c->out[LOSS].dtype = (uint8_t)unic_dtype_wide(c->type);
  } else {
    unic_out(c, LOSS, unic_dtype_wide(c->type), 0, NULL);
  }
  return UNIC_OK;
}

static int reduction_of(const unic_kernel *k) { return (int)k->arg[attributes[kind_of(k->op)].reduction].integer; }

static unic_status plan(const unic_kernel *k, unic_plan *p) {
  if (!k->backward && k->type != UNIC_F64 && reduction_of(k) != NONE) p->scratch = (k->in[X].numel + CHUNK - 1) / CHUNK * 8;
  return UNIC_OK;
}

/* What the sum is divided by. */
static double parts(const unic_kernel *k) {
  int reduction = reduction_of(k);
  double n = reduction == MEAN ? (double)k->in[X].numel : reduction == BATCHMEAN ? (double)k->in[X].shape[0] : 1;
  return n > 0 ? n : 1;
}

static struct pointwise describe(const unic_kernel *k) {
  int kind = kind_of(k->op);
  struct pointwise s = {.x = k->in[X].data, .target = k->in[TARGET].data, .kind = kind, .dtype = k->type};
  if (attributes[kind].beta) s.beta = (float)k->arg[attributes[kind].beta].number;
  if (attributes[kind].log_target) s.log_target = k->arg[attributes[kind].log_target].integer;
  if (kind == FOCAL) { s.alpha = (float)k->arg[attributes[kind].alpha].number; s.gamma = (float)k->arg[attributes[kind].gamma].number; }
  return s;
}

static unic_status forward(const unic_kernel *k) {
  int64_t n = k->in[X].numel;
  struct pointwise s = describe(k);
  if (reduction_of(k) == NONE) {
    s.each = k->out[LOSS].data;
    UNIC_RUN(pointwise_forward, n, CHUNK, &s);
    return UNIC_OK;
  }
  double sum = 0;
  s.sums = k->scratch;
  UNIC_RUN(pointwise_forward, n, CHUNK, &s);
  for (int64_t i = 0; i < (n + CHUNK - 1) / CHUNK; i++) sum += s.sums[i];
  *(float *)k->out[LOSS].data = (float)(sum / parts(k));
  return UNIC_OK;
}

static unic_status backward(const unic_kernel *k) {
  struct pointwise s = describe(k);
  if (k->in[X].numel == 0) return UNIC_OK;
  if (reduction_of(k) == NONE) s.dloss = k->dout[LOSS].data;
  else s.scale = (float)((double)*(const float *)k->dout[LOSS].data / parts(k));
  for (int side = X; side <= TARGET; side++) {
    if (!k->din[side].present) continue;
    s.side = side;
    s.to = k->din[side].data;
    s.accumulate = k->accumulate[side];
    UNIC_RUN(pointwise_backward, k->in[X].numel, CHUNK, &s);
  }
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

static double number(const unic_kernel *k, int at) { return at ? k->arg[at].number : 0; }
static double log_sigmoid(double x) { return x < 0 ? x - log1p(exp(x)) : -log1p(exp(-x)); }

/* The loss of one element; *dx and *dt are its derivatives. */
static double plain(const unic_kernel *k, double x, double t, double *dx, double *dt) {
  int kind = kind_of(k->op);
  double d = x - t, beta = number(k, attributes[kind].beta);
  *dt = 0;
  switch (kind) {
    case MSE: *dx = 2 * d; *dt = -2 * d; return d * d;
    case SMOOTH_L1:
      *dx = fabs(d) < beta ? d / beta : d > 0 ? 1 : d < 0 ? -1 : d;
      *dt = -*dx;
      return fabs(d) < beta ? d * d / (2 * beta) : fabs(d) - beta / 2;
    case KL_DIV: {
      double p = k->arg[attributes[kind].log_target].integer ? exp(t) : t, log_p = k->arg[attributes[kind].log_target].integer ? t : log(t);
      *dx = -p;
      if (p == 0) return 0;
      *dt = (k->arg[attributes[kind].log_target].integer ? p : 1) * (log_p - x + 1);
      return p * (log_p - x);
    }
    default: {
      double alpha = number(k, attributes[kind].alpha), gamma = number(k, attributes[kind].gamma);
      double p = exp(log_sigmoid(x)), not_p = exp(log_sigmoid(-x)), q = p * (1 - t) + t * not_p;
      double entropy = -t * log_sigmoid(x) - (1 - t) * log_sigmoid(-x), a = alpha < 0 ? 1 : alpha * t + (1 - alpha) * (1 - t);
      *dx = a * (pow(q, gamma) * (p - t) + (q == 0 ? 0 : gamma * pow(q, gamma - 1) * entropy * p * not_p * (1 - 2 * t)));
      return a * pow(q, gamma) * entropy;
    }
  }
}

static unic_status reference(const unic_kernel *k) {
  const double *x = k->in[X].data, *t = k->in[TARGET].data;
  double sum = 0, dx, dt, *to = k->out[LOSS].data;
  bool each = reduction_of(k) == NONE;
  for (int64_t i = 0; i < k->in[X].numel; i++) {
    double loss = plain(k, x[i], t[i], &dx, &dt);
    if (each) to[i] = loss;
    else sum += loss;
  }
  if (!each) *to = sum / parts(k);
  return UNIC_OK;
}

static unic_status reference_backward(const unic_kernel *k) {
  const double *x = k->in[X].data, *t = k->in[TARGET].data, *dloss = k->dout[LOSS].data;
  bool each = reduction_of(k) == NONE;
  for (int64_t i = 0; i < k->in[X].numel; i++) {
    double d[2], by = each ? dloss[i] : *dloss / parts(k);
    plain(k, x[i], t[i], &d[0], &d[1]);
    for (int side = X; side <= TARGET; side++) {
      double *to = k->din[side].data;
      if (k->din[side].present) to[i] = by * d[side] + (k->accumulate[side] ? to[i] : 0);
    }
  }
  return UNIC_OK;
}

/* ---------------------------------------------------------------- descriptors */

#define REDUCTION_DOC "\nreduction  \"mean\", \"sum\", or \"none\": every element's own loss, in x's shape"
#define LOSS_OP(op, attributes_, doc_, grads_) \
  static const unic_op op_##op = { \
    .name = #op, .signature = "x: tensor, target: tensor" attributes_ " -> loss", .doc = doc_ REDUCTION_DOC, \
    .saves = "x target", .grads = grads_, .layouts = "x:dense target:dense", .shape = shape, \
    .cpu = {forward, backward, reference, reference_backward, .plan = plan}, .flags = UNIC_OP_METHOD, .autocast = UNIC_CAST_NONE};
LOSS_OP(mse, ", reduction: choice(mean|sum|none) = mean", "The squared difference of x and target, (x - target)^2.\nx, target   tensors of one shape", "x target")
LOSS_OP(smooth_l1, ", reduction: choice(mean|sum|none) = mean, beta: number = 1",
        "The absolute difference of x and target, rounded to a parabola where it is below beta.\nx, target   tensors of one shape\n"
        "beta       where the parabola ends; 0: |x - target|", "x target")
LOSS_OP(kl_div, ", reduction: choice(mean|sum|none|batchmean) = mean, log_target: bool = false",
        "The Kullback-Leibler divergence of the distribution x from the distribution target: target (log target - x), element by element.\n"
        "x           logarithms of probabilities\ntarget      probabilities, of the same shape\nlog_target  the target's are logarithms too\n"
        "reduction  also \"batchmean\": the sum by the size of the first dimension, which is the divergence per sample", "x target")
LOSS_OP(focal, ", alpha: number = 0.25, gamma: number = 2, reduction: choice(mean|sum|none) = mean",
        "Focal loss: binary cross-entropy on logits, times (1 - probability of the target)^gamma, which quiets easy examples.\nx           logits, any shape\n"
        "target      the same shape, between 0 and 1\nalpha       weight of the positives, 1 - alpha that of the negatives; negative: no weights\n"
        "gamma       0: cross-entropy itself", "x")

UNIC_OPS(pointwise_loss, &op_mse, &op_smooth_l1, &op_kl_div, &op_focal);

#endif
