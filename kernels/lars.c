/* lars: one step of layer-wise adaptive rate scaling for all parameters, in place (You, Gitman and Ginsburg 2017, as self-supervised recipes write it):
 *   g' = scale g + decay p,  g' *= eta |p| / |g'| where both norms are above 0,  b = momentum b + g',  p -= lr b
 *
 * Norms are those of each tensor. Tensors of at most one dimension (biases, norms) go without decay, or without the factor, on demand.
 * lr and scale are scalar tensors on the device, so a recorded step replays. Parameters and buffers are f32 (or f64), gradients any floating type.
 * All tensors are cut into fixed chunks (multi.h): one parallel loop for the norms (sums in f64, added up in order), one for the update: any number of
 * threads gives the same bits. */
#include "multi.h"

enum { PARAMS, GRADS, BUFFERS, LR, SCALE, MOMENTUM, WEIGHT_DECAY, ETA, SKIP_DECAY, SKIP_ADAPT };

struct lars {
  const unic_multi_item *items;
  int64_t n;
  double *sums;              /* [chunks][2]: squares of p, of g' */
  const double *factor;      /* [n] */
  const double *decay;       /* [n] */
  float rate, scale, momentum;
};

#if UNIC_LOOPS

/* A row of scale g + decay p. */
static void decayed(const struct lars *s, double decay, int64_t n, const float *restrict g, const float *restrict p, float *restrict out) {
  const float scale = s->scale, by = (float)decay;
  for (int64_t i = 0; i < n; i++) out[i] = g[i] * scale + by * p[i];
}

UNIC_LOOP(lars_norms) {
  const struct lars *s = context;
  float gb[UNIC_ROW], pb[UNIC_ROW], d[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  for (int64_t chunk = begin; chunk < end; chunk++) {
    int64_t first, last;
    const unic_multi_item *t = unic_multi_find(s->items, s->n, chunk, &first, &last);
    double of_p = 0, of_g = 0;
    for (int64_t at = first; at < last; at += UNIC_ROW) {
      int64_t n = last - at < UNIC_ROW ? last - at : UNIC_ROW;
      const float *g = unic_walk_load(&t->walk, 1, at, n, t->data[1], t->dtype[1], gb, raw), *p = unic_walk_row(&t->walk, 0, at, n, t->data[0], UNIC_F32, pb);
      decayed(s, s->decay[t - s->items], n, g, p, d);
      of_p += unic_multi_squares(p, n);
      of_g += unic_multi_squares(d, n);
    }
    s->sums[2 * chunk] = of_p;
    s->sums[2 * chunk + 1] = of_g;
  }
}

static void update(const struct lars *s, float factor, int64_t n, float *restrict p, const float *restrict d, float *restrict b) {
  const float rate = s->rate, momentum = s->momentum;
  for (int64_t i = 0; i < n; i++) {
    float bi = momentum * b[i] + factor * d[i];
    b[i] = bi;
    p[i] -= rate * bi;
  }
}

UNIC_LOOP(lars_chunks) {
  const struct lars *s = context;
  float gb[UNIC_ROW], pb[UNIC_ROW], bb[UNIC_ROW], d[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  for (int64_t chunk = begin; chunk < end; chunk++) {
    int64_t first, last;
    const unic_multi_item *t = unic_multi_find(s->items, s->n, chunk, &first, &last);
    const unic_walk *w = &t->walk;
    for (int64_t at = first; at < last; at += UNIC_ROW) {
      int64_t n = last - at < UNIC_ROW ? last - at : UNIC_ROW;
      const float *g = unic_walk_load(w, 1, at, n, t->data[1], t->dtype[1], gb, raw);
      float *p = (float *)(uintptr_t)unic_walk_row(w, 0, at, n, t->data[0], UNIC_F32, pb);
      float *b = (float *)(uintptr_t)unic_walk_row(w, 2, at, n, t->data[2], UNIC_F32, bb);
      decayed(s, s->decay[t - s->items], n, g, p, d);
      update(s, (float)s->factor[t - s->items], n, p, d, b);
      unic_walk_put(w, 0, at, n, t->data[0], UNIC_F32, p, pb);
      unic_walk_put(w, 2, at, n, t->data[2], UNIC_F32, b, bb);
    }
  }
}

#else

UNIC_LOOP_TABLE(lars_norms);
UNIC_LOOP_TABLE(lars_chunks);

static unic_status shape(unic_call *c) {
  if (unic_dtype_is_half(c->type)) return unic_fail_arg(c, PARAMS, "they are %s; parameters that are trained are f32 (or f64)", unic_dtype_name(c->type));
  UNIC_TRY(unic_multi_check(c, GRADS, PARAMS, "params"));
  UNIC_TRY(unic_multi_check(c, BUFFERS, PARAMS, "params"));
  static const int positive[3] = {MOMENTUM, WEIGHT_DECAY, ETA};
  for (int i = 0; i < 3; i++)
    if (!(c->arg[positive[i]].number >= 0)) return unic_fail_arg(c, positive[i], "%g was given, 0 or more is expected", c->arg[positive[i]].number);
  return UNIC_OK;
}

/* Scratch: items, factors, decays, sums. */
static unic_status plan(const unic_kernel *k, unic_plan *p) {
  int64_t n = k->arg[PARAMS].integer;
  p->scratch = unic_multi_scratch(n) + (2 * n + 2 * unic_multi_chunks(k->list[PARAMS], n)) * (int64_t)sizeof(double);
  return UNIC_OK;
}

static bool is_small(const unic_view *p) { return p->ndim <= 1; }
static double decay_of(const unic_kernel *k, const unic_view *p) { return is_small(p) && k->arg[SKIP_DECAY].integer ? 0 : k->arg[WEIGHT_DECAY].number; }

static double factor_of(const unic_kernel *k, const unic_view *p, double squares_of_p, double squares_of_g) {
  if ((is_small(p) && k->arg[SKIP_ADAPT].integer) || !(squares_of_p > 0) || !(squares_of_g > 0)) return 1;
  return k->arg[ETA].number * sqrt(squares_of_p) / sqrt(squares_of_g);
}

static unic_status forward(const unic_kernel *k) {
  if (!isfinite(unic_element_get(k->in[SCALE].data, k->in[SCALE].dtype, 0))) return UNIC_OK;
  unic_view *const lists[3] = {k->list[PARAMS], k->list[GRADS], k->list[BUFFERS]};
  unic_multi_item *items = k->scratch;
  int64_t n = k->arg[PARAMS].integer;
  double *factor = (double *)((char *)k->scratch + unic_multi_scratch(n)), *decay = factor + n;
  struct lars s = {
    .items = items, .n = n, .sums = decay + n, .factor = factor, .decay = decay,
    .rate = (float)unic_element_get(k->in[LR].data, k->in[LR].dtype, 0), .scale = (float)unic_element_get(k->in[SCALE].data, k->in[SCALE].dtype, 0),
    .momentum = (float)k->arg[MOMENTUM].number,
  };
  int64_t chunks = unic_multi_init(items, n, 3, lists);
  for (int64_t i = 0; i < n; i++) decay[i] = decay_of(k, &k->list[PARAMS][i]);
  UNIC_RUN(lars_norms, chunks, 1, &s);
  for (int64_t i = 0; i < n; i++) {
    double of_p = 0, of_g = 0;
    for (int64_t c = items[i].first; c < (i + 1 < n ? items[i + 1].first : chunks); c++) {
      of_p += s.sums[2 * c];
      of_g += s.sums[2 * c + 1];
    }
    factor[i] = factor_of(k, &k->list[PARAMS][i], of_p, of_g);
  }
  UNIC_RUN(lars_chunks, chunks, 1, &s);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

static unic_status reference(const unic_kernel *k) {
  double lr = unic_element_get(k->in[LR].data, k->in[LR].dtype, 0), scale = unic_element_get(k->in[SCALE].data, k->in[SCALE].dtype, 0);
  if (!isfinite(scale)) return UNIC_OK;
  for (int64_t n = 0; n < k->arg[PARAMS].integer; n++) {
    const unic_view *p = &k->list[PARAMS][n], *g = &k->list[GRADS][n], *b = &k->list[BUFFERS][n];
    double decay = decay_of(k, p), of_p = 0, of_g = 0;
    for (int64_t i = 0; i < p->numel; i++) {
      double pi = ((double *)p->data)[unic_view_place(p, i)], d = scale * unic_element_get(g->data, g->dtype, unic_view_place(g, i)) + decay * pi;
      of_p += pi * pi;
      of_g += d * d;
    }
    double factor = factor_of(k, p, of_p, of_g);
    for (int64_t i = 0; i < p->numel; i++) {
      double *pi = (double *)p->data + unic_view_place(p, i), *bi = (double *)b->data + unic_view_place(b, i);
      double d = scale * unic_element_get(g->data, g->dtype, unic_view_place(g, i)) + decay * *pi;
      *bi = k->arg[MOMENTUM].number * *bi + factor * d;
      *pi -= lr * *bi;
    }
  }
  return UNIC_OK;
}

static const unic_op op_lars = {
  .name = "lars",
  .signature = "params!: tensors, grads: tensors<float>, buffers!: tensors<wide>, lr: scalar, scale: scalar = 1, momentum: number = 0.9, weight_decay: number = 0,"
               " eta: number = 0.001, skip_decay: bool = false, skip_adapt: bool = false",
  .doc = "One LARS step for a list of parameters, in place: SGD with momentum whose steps have a length in proportion to each tensor's own norm.\n"
         "params, grads, buffers  lists of the same shapes; buffers hold the momentum\n"
         "lr                      learning rate\n"
         "scale                   multiplies the gradients (clip coefficient, 1 / loss scale); NaN or infinite: nothing changes (they overflowed)\n"
         "momentum                share of the buffers that stays\n"
         "weight_decay            times the parameter, added to the gradient before its norm is taken\n"
         "eta                     trust coefficient: gradients are scaled to eta times the parameter's norm\n"
         "skip_decay, skip_adapt  tensors of at most one dimension: no weight decay, no scaling by norms",
  .layouts = "params:any grads:any buffers:any",
  .shape = shape,
  .cpu = {.forward = forward, .reference = reference, .plan = plan},
  .flags = UNIC_OP_NO_GRAD | UNIC_OP_INPLACE,
};

UNIC_OPS(lars, &op_lars);

#endif
