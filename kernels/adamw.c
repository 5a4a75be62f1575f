/* adamw: one step for all parameters, in place (Loshchilov and Hutter 2019, as PyTorch writes it):
 *   t += 1,  g' = scale g,  p *= 1 - lr decay,  m = b1 m + (1 - b1) g',  v = b2 v + (1 - b2) g'^2,
 *   p -= lr / (1 - b1^t) m / (sqrt(v / (1 - b2^t)) + eps)
 *
 * lr, scale (clip coefficient, loss scale) and t are scalar tensors on the device, so a recorded step replays. Parameters and moments are f32 (or
 * f64), gradients any floating type. 28 bytes of memory traffic per f32 parameter (p, m, v read and written, g read) bound the speed.
 * All tensors are cut into fixed chunks that form one parallel loop (multi.h); there are no sums: any number of threads gives the same bits. */
#include "multi.h"

enum { PARAMS, GRADS, EXP_AVG, EXP_AVG_SQ, LR, STEP, SCALE, BETA1, BETA2, EPS, WEIGHT_DECAY, COUNTED };

struct adamw {
  const unic_multi_item *items;
  int64_t n;
  float keep, rate, scale, beta1, beta2, one_beta1, one_beta2, eps, root_correction;   /* keep = 1 - lr decay, rate = lr / (1 - b1^t) */
};

#if UNIC_LOOPS

static void update(const struct adamw *a, int64_t n, float *restrict p, const float *restrict g, float *restrict m, float *restrict v) {
  const float keep = a->keep, rate = a->rate, scale = a->scale, b1 = a->beta1, b2 = a->beta2, c1 = a->one_beta1, c2 = a->one_beta2;
  const float eps = a->eps, root = a->root_correction;
  for (int64_t i = 0; i < n; i++) {
    float d = g[i] * scale;
    float mi = b1 * m[i] + c1 * d, vi = b2 * v[i] + c2 * d * d;
    m[i] = mi;
    v[i] = vi;
    p[i] = p[i] * keep - rate * mi / (sqrtf(vi) * root + eps);
  }
}

UNIC_LOOP(adamw_chunks) {
  const struct adamw *a = context;
  float gb[UNIC_ROW], pb[UNIC_ROW], mb[UNIC_ROW], vb[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  for (int64_t chunk = begin; chunk < end; chunk++) {
    int64_t first, last;
    const unic_multi_item *t = unic_multi_find(a->items, a->n, chunk, &first, &last);
    for (int64_t at = first; at < last; at += UNIC_ROW) {
      int64_t n = last - at < UNIC_ROW ? last - at : UNIC_ROW;
      const unic_walk *w = &t->walk;
      const float *g = unic_walk_load(w, 1, at, n, t->data[1], t->dtype[1], gb, raw);
      /* Parameters and moments are f32: rows in place, or gathered and put back. */
      float *p = (float *)(uintptr_t)unic_walk_row(w, 0, at, n, t->data[0], UNIC_F32, pb);
      float *m = (float *)(uintptr_t)unic_walk_row(w, 2, at, n, t->data[2], UNIC_F32, mb);
      float *v = (float *)(uintptr_t)unic_walk_row(w, 3, at, n, t->data[3], UNIC_F32, vb);
      update(a, n, p, g, m, v);
      unic_walk_put(w, 0, at, n, t->data[0], UNIC_F32, p, pb);
      unic_walk_put(w, 2, at, n, t->data[2], UNIC_F32, m, mb);
      unic_walk_put(w, 3, at, n, t->data[3], UNIC_F32, v, vb);
    }
  }
}

#else

UNIC_LOOP_TABLE(adamw_chunks);

static unic_status shape(unic_call *c) {
  if (unic_dtype_is_half(c->type)) return unic_fail_arg(c, PARAMS, "they are %s; parameters that are trained are f32 (or f64)", unic_dtype_name(c->type));
  UNIC_TRY(unic_multi_check(c, GRADS, PARAMS, "params"));
  UNIC_TRY(unic_multi_check(c, EXP_AVG, PARAMS, "params"));
  UNIC_TRY(unic_multi_check(c, EXP_AVG_SQ, PARAMS, "params"));
  static const int betas[2] = {BETA1, BETA2};
  for (int i = 0; i < 2; i++) {
    double beta = c->arg[betas[i]].number;
    if (!(beta >= 0 && beta < 1)) return unic_fail_arg(c, betas[i], "%g was given, at least 0 and below 1 is expected", beta);
  }
  if (!(c->arg[EPS].number >= 0)) return unic_fail_arg(c, EPS, "%g was given, 0 or more is expected", c->arg[EPS].number);
  if (!(c->arg[WEIGHT_DECAY].number >= 0)) return unic_fail_arg(c, WEIGHT_DECAY, "%g was given, 0 or more is expected", c->arg[WEIGHT_DECAY].number);
  return UNIC_OK;
}

static unic_status plan(const unic_kernel *k, unic_plan *p) {
  p->scratch = unic_multi_scratch(k->arg[PARAMS].integer);
  return UNIC_OK;
}

static unic_status forward(const unic_kernel *k) {
  float *step = k->in[STEP].data;
  double lr = unic_element_get(k->in[LR].data, k->in[LR].dtype, 0), scale = unic_element_get(k->in[SCALE].data, k->in[SCALE].dtype, 0);
  double beta1 = k->arg[BETA1].number, beta2 = k->arg[BETA2].number, t = (double)*step + (k->arg[COUNTED].integer ? 0 : 1);
  if (!isfinite(scale)) return UNIC_OK;
  unic_view *const lists[4] = {k->list[PARAMS], k->list[GRADS], k->list[EXP_AVG], k->list[EXP_AVG_SQ]};
  unic_multi_item *items = k->scratch;
  struct adamw a = {
    .items = items, .n = k->arg[PARAMS].integer,
    .keep = (float)(1 - lr * k->arg[WEIGHT_DECAY].number), .rate = (float)(lr / (1 - pow(beta1, t))), .scale = (float)scale,
    .beta1 = (float)beta1, .beta2 = (float)beta2, .one_beta1 = (float)(1 - beta1), .one_beta2 = (float)(1 - beta2),
    .eps = (float)k->arg[EPS].number, .root_correction = (float)(1 / sqrt(1 - pow(beta2, t))),
  };
  UNIC_RUN(adamw_chunks, unic_multi_init(items, a.n, 4, lists), 1, &a);
  *step = (float)t;
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

static unic_status reference(const unic_kernel *k) {
  float *step = k->in[STEP].data;
  double lr = unic_element_get(k->in[LR].data, k->in[LR].dtype, 0), scale = unic_element_get(k->in[SCALE].data, k->in[SCALE].dtype, 0);
  double b1 = k->arg[BETA1].number, b2 = k->arg[BETA2].number;
  if (!isfinite(scale)) return UNIC_OK;
  if (!k->arg[COUNTED].integer) *step += 1;
  for (int64_t n = 0; n < k->arg[PARAMS].integer; n++) {
    const unic_view *p = &k->list[PARAMS][n], *g = &k->list[GRADS][n], *m = &k->list[EXP_AVG][n], *v = &k->list[EXP_AVG_SQ][n];
    for (int64_t i = 0; i < p->numel; i++) {
      double d = scale * unic_element_get(g->data, g->dtype, unic_view_place(g, i));
      double *pi = (double *)p->data + unic_view_place(p, i), *mi = (double *)m->data + unic_view_place(m, i), *vi = (double *)v->data + unic_view_place(v, i);
      *pi -= lr * k->arg[WEIGHT_DECAY].number * *pi;
      *mi += (1 - b1) * (d - *mi);
      *vi += (1 - b2) * (d * d - *vi);
      double m_hat = *mi / (1 - pow(b1, *step)), v_hat = *vi / (1 - pow(b2, *step));
      *pi -= lr * m_hat / (sqrt(v_hat) + k->arg[EPS].number);
    }
  }
  return UNIC_OK;
}

static const unic_op op_adamw = {
  .name = "adamw",
  .signature = "params!: tensors, grads: tensors<float>, exp_avg!: tensors<wide>, exp_avg_sq!: tensors<wide>, lr: scalar, step!: tensor<f32>[], scale: scalar = 1,"
               " beta1: number = 0.9, beta2: number = 0.999, eps: number = 1e-8, weight_decay: number = 0.01, counted: bool = false",
  .doc = "One AdamW step for a list of parameters, in place; `step` is counted up by one.\n"
         "params, grads, exp_avg, exp_avg_sq  lists of the same shapes\n"
         "lr                                  learning rate\n"
         "step                                number of steps taken, a scalar tensor\n"
         "scale                               multiplies the gradients (clip coefficient, 1 / loss scale); NaN or infinite: nothing changes (they overflowed)\n"
         "beta1, beta2                        decay of the moments\n"
         "eps                                 added to the root\n"
         "weight_decay                        decoupled decay, times lr\n"
         "counted                             `step` has this step in it: other parameters have taken it before these",
  .layouts = "params:any grads:any exp_avg:any exp_avg_sq:any",
  .shape = shape,
  .cpu = {.forward = forward, .reference = reference, .plan = plan},
  .flags = UNIC_OP_NO_GRAD | UNIC_OP_INPLACE,
};

UNIC_OPS(adamw, &op_adamw);

#endif
