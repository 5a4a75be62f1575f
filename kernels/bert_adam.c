/* bert_adam: one step of BERT's Adam for all parameters, in place (Devlin et al. 2019):
 *   g' = scale g, each tensor clipped to norm max_norm,  m = b1 m + (1 - b1) g',  v = b2 v + (1 - b2) g'^2,  p -= lr (m / (sqrt(v) + eps) + decay p)
 *
 * There is no bias correction: the first steps are larger than Adam's, which is what the warm-up is for. Clipping multiplies a tensor's gradient by
 * max_norm / (norm + 1e-6) where that is below 1. lr and scale are scalar tensors on the device, so a recorded step replays. Parameters and moments are
 * f32 (or f64), gradients any floating type. All tensors are cut into fixed chunks (multi.h): one parallel loop for the norms (sums in f64, added up in
 * order), one for the update: any number of threads gives the same bits. */
#include "multi.h"

enum { PARAMS, GRADS, EXP_AVG, EXP_AVG_SQ, LR, SCALE, BETA1, BETA2, EPS, WEIGHT_DECAY, MAX_NORM };

struct bert_adam {
  const unic_multi_item *items;
  int64_t n;
  double *sums;              /* [chunks]: squares of g */
  const double *scales;      /* [n]: scale and clip coefficient of each tensor */
  float keep, rate, beta1, beta2, one_beta1, one_beta2, eps;   /* keep = 1 - lr decay */
};

#if UNIC_LOOPS

UNIC_LOOP(bert_adam_norms) {
  const struct bert_adam *s = context;
  float gb[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  for (int64_t chunk = begin; chunk < end; chunk++) {
    int64_t first, last;
    const unic_multi_item *t = unic_multi_find(s->items, s->n, chunk, &first, &last);
    double sum = 0;
    for (int64_t at = first; at < last; at += UNIC_ROW) {
      int64_t n = last - at < UNIC_ROW ? last - at : UNIC_ROW;
      sum += unic_multi_squares(unic_walk_load(&t->walk, 1, at, n, t->data[1], t->dtype[1], gb, raw), n);
    }
    s->sums[chunk] = sum;
  }
}

static void update(const struct bert_adam *a, float scale, int64_t n, float *restrict p, const float *restrict g, float *restrict m, float *restrict v) {
  const float keep = a->keep, rate = a->rate, b1 = a->beta1, b2 = a->beta2, c1 = a->one_beta1, c2 = a->one_beta2, eps = a->eps;
  for (int64_t i = 0; i < n; i++) {
    float d = g[i] * scale;
    float mi = b1 * m[i] + c1 * d, vi = b2 * v[i] + c2 * d * d;
    m[i] = mi;
    v[i] = vi;
    p[i] = p[i] * keep - rate * mi / (sqrtf(vi) + eps);
  }
}

UNIC_LOOP(bert_adam_chunks) {
  const struct bert_adam *a = context;
  float gb[UNIC_ROW], pb[UNIC_ROW], mb[UNIC_ROW], vb[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  for (int64_t chunk = begin; chunk < end; chunk++) {
    int64_t first, last;
    const unic_multi_item *t = unic_multi_find(a->items, a->n, chunk, &first, &last);
    const unic_walk *w = &t->walk;
    for (int64_t at = first; at < last; at += UNIC_ROW) {
      int64_t n = last - at < UNIC_ROW ? last - at : UNIC_ROW;
      const float *g = unic_walk_load(w, 1, at, n, t->data[1], t->dtype[1], gb, raw);
      /* Parameters and moments are f32: rows in place, or gathered and put back. */
      float *p = (float *)(uintptr_t)unic_walk_row(w, 0, at, n, t->data[0], UNIC_F32, pb);
      float *m = (float *)(uintptr_t)unic_walk_row(w, 2, at, n, t->data[2], UNIC_F32, mb);
      float *v = (float *)(uintptr_t)unic_walk_row(w, 3, at, n, t->data[3], UNIC_F32, vb);
      update(a, (float)a->scales[t - a->items], n, p, g, m, v);
      unic_walk_put(w, 0, at, n, t->data[0], UNIC_F32, p, pb);
      unic_walk_put(w, 2, at, n, t->data[2], UNIC_F32, m, mb);
      unic_walk_put(w, 3, at, n, t->data[3], UNIC_F32, v, vb);
    }
  }
}

#else

UNIC_LOOP_TABLE(bert_adam_norms);
UNIC_LOOP_TABLE(bert_adam_chunks);

static unic_status shape(unic_call *c) {
  if (unic_dtype_is_half(c->type)) return unic_fail_arg(c, PARAMS, "they are %s; parameters that are trained are f32 (or f64)", unic_dtype_name(c->type));
  UNIC_TRY(unic_multi_check(c, GRADS, PARAMS, "params"));
  UNIC_TRY(unic_multi_check(c, EXP_AVG, PARAMS, "params"));
  UNIC_TRY(unic_multi_check(c, EXP_AVG_SQ, PARAMS, "params"));
  static const int betas[2] = {BETA1, BETA2}, positive[3] = {EPS, WEIGHT_DECAY, MAX_NORM};
  for (int i = 0; i < 2; i++) {
    double beta = c->arg[betas[i]].number;
    if (!(beta >= 0 && beta < 1)) return unic_fail_arg(c, betas[i], "%g was given, at least 0 and below 1 is expected", beta);
  }
  for (int i = 0; i < 3; i++)
    if (!(c->arg[positive[i]].number >= 0)) return unic_fail_arg(c, positive[i], "%g was given, 0 or more is expected", c->arg[positive[i]].number);
  return UNIC_OK;
}

/* Scratch: items, scales, sums. */
static unic_status plan(const unic_kernel *k, unic_plan *p) {
  int64_t n = k->arg[PARAMS].integer;
  p->scratch = unic_multi_scratch(n) + (n + unic_multi_chunks(k->list[PARAMS], n)) * (int64_t)sizeof(double);
  return UNIC_OK;
}

/* What a gradient whose squares add up to `squares` is multiplied by. */
static double scale_of(const unic_kernel *k, double scale, double squares) {
  double most = k->arg[MAX_NORM].number, coefficient = most / (fabs(scale) * sqrt(squares) + 1e-6);
  return most > 0 && !(coefficient >= 1) ? scale * coefficient : scale;
}

static unic_status forward(const unic_kernel *k) {
  double lr = unic_element_get(k->in[LR].data, k->in[LR].dtype, 0), scale = unic_element_get(k->in[SCALE].data, k->in[SCALE].dtype, 0);
  double beta1 = k->arg[BETA1].number, beta2 = k->arg[BETA2].number;
  if (!isfinite(scale)) return UNIC_OK;
  unic_view *const lists[4] = {k->list[PARAMS], k->list[GRADS], k->list[EXP_AVG], k->list[EXP_AVG_SQ]};
  unic_multi_item *items = k->scratch;
  int64_t n = k->arg[PARAMS].integer;
  double *scales = (double *)((char *)k->scratch + unic_multi_scratch(n));
  struct bert_adam a = {
    .items = items, .n = n, .scales = scales, .sums = scales + n, .keep = (float)(1 - lr * k->arg[WEIGHT_DECAY].number), .rate = (float)lr,
    .beta1 = (float)beta1, .beta2 = (float)beta2, .one_beta1 = (float)(1 - beta1), .one_beta2 = (float)(1 - beta2), .eps = (float)k->arg[EPS].number,
  };
  int64_t chunks = unic_multi_init(items, n, 4, lists);
  bool clips = k->arg[MAX_NORM].number > 0;
  if (clips) UNIC_RUN(bert_adam_norms, chunks, 1, &a);
  for (int64_t i = 0; i < n; i++) {
    double squares = 0;
    for (int64_t c = items[i].first; clips && c < (i + 1 < n ? items[i + 1].first : chunks); c++) squares += a.sums[c];
    scales[i] = scale_of(k, scale, squares);
  }
  UNIC_RUN(bert_adam_chunks, chunks, 1, &a);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

static unic_status reference(const unic_kernel *k) {
  double lr = unic_element_get(k->in[LR].data, k->in[LR].dtype, 0), scale = unic_element_get(k->in[SCALE].data, k->in[SCALE].dtype, 0);
  double b1 = k->arg[BETA1].number, b2 = k->arg[BETA2].number;
  if (!isfinite(scale)) return UNIC_OK;
  for (int64_t n = 0; n < k->arg[PARAMS].integer; n++) {
    const unic_view *p = &k->list[PARAMS][n], *g = &k->list[GRADS][n], *m = &k->list[EXP_AVG][n], *v = &k->list[EXP_AVG_SQ][n];
    double squares = 0;
    for (int64_t i = 0; i < p->numel; i++) {
      double d = unic_element_get(g->data, g->dtype, unic_view_place(g, i));
      squares += d * d;
    }
    double by = scale_of(k, scale, squares);
    for (int64_t i = 0; i < p->numel; i++) {
      double d = by * unic_element_get(g->data, g->dtype, unic_view_place(g, i));
      double *pi = (double *)p->data + unic_view_place(p, i), *mi = (double *)m->data + unic_view_place(m, i), *vi = (double *)v->data + unic_view_place(v, i);
      *mi = b1 * *mi + (1 - b1) * d;
      *vi = b2 * *vi + (1 - b2) * d * d;
      *pi -= lr * (*mi / (sqrt(*vi) + k->arg[EPS].number) + k->arg[WEIGHT_DECAY].number * *pi);
    }
  }
  return UNIC_OK;
}

static const unic_op op_bert_adam = {
  .name = "bert_adam",
  .signature = "params!: tensors, grads: tensors<float>, exp_avg!: tensors<wide>, exp_avg_sq!: tensors<wide>, lr: scalar, scale: scalar = 1,"
               " beta1: number = 0.9, beta2: number = 0.999, eps: number = 1e-8, weight_decay: number = 0.01, max_norm: number = 1",
  .doc = "One step of BERT's Adam (no bias correction) for a list of parameters, in place.\n"
         "params, grads, exp_avg, exp_avg_sq  lists of the same shapes\n"
         "lr                                  learning rate\n"
         "scale                               multiplies the gradients (clip coefficient, 1 / loss scale); NaN or infinite: nothing changes (they overflowed)\n"
         "beta1, beta2                        decay of the moments\n"
         "eps                                 added to the root\n"
         "weight_decay                        decoupled decay, times lr\n"
         "max_norm                            each tensor's gradient is clipped to this L2 norm; 0: not at all",
  .layouts = "params:any grads:any exp_avg:any exp_avg_sq:any",
  .shape = shape,
  .cpu = {.forward = forward, .reference = reference, .plan = plan},
  .flags = UNIC_OP_NO_GRAD | UNIC_OP_INPLACE,
};

UNIC_OPS(bert_adam, &op_bert_adam);

#endif
