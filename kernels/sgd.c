/* sgd: one step of gradient descent with momentum for all parameters, in place, as PyTorch writes it:
 *   g' = scale g + decay p;  with momentum: b = momentum b + (1 - dampening) g',  g' = nesterov ? g' + momentum b : b;  p -= lr g'
 *
 * A buffer that starts at zero gives (1 - dampening) g' at its first step; who wants g' itself there (PyTorch does) passes dampening = 0 once.
 * lr and scale are scalar tensors on the device, so a recorded step replays. Parameters and buffers are f32 (or f64), gradients any floating type.
 * All tensors are cut into fixed chunks that form one parallel loop (multi.h); there are no sums: any number of threads gives the same bits. */
#include "multi.h"

enum { PARAMS, GRADS, BUFFERS, LR, SCALE, MOMENTUM, DAMPENING, WEIGHT_DECAY, NESTEROV };

struct sgd {
  const unic_multi_item *items;
  int64_t n;
  float rate, scale, momentum, take, decay;   /* take = 1 - dampening */
  bool buffered, nesterov;
};

#if UNIC_LOOPS

static void update_plain(const struct sgd *s, int64_t n, float *restrict p, const float *restrict g) {
  const float rate = s->rate, scale = s->scale, decay = s->decay;
  for (int64_t i = 0; i < n; i++) p[i] -= rate * (g[i] * scale + decay * p[i]);
}

static void update_momentum(const struct sgd *s, int64_t n, float *restrict p, const float *restrict g, float *restrict b) {
  const float rate = s->rate, scale = s->scale, decay = s->decay, momentum = s->momentum, take = s->take;
  /* The step is g' + momentum b for Nesterov, b otherwise. */
  const float of_g = s->nesterov ? 1.0f : 0.0f, of_b = s->nesterov ? momentum : 1.0f;
  for (int64_t i = 0; i < n; i++) {
    float d = g[i] * scale + decay * p[i], bi = momentum * b[i] + take * d;
    b[i] = bi;
    p[i] -= rate * (of_g * d + of_b * bi);
  }
}

UNIC_LOOP(sgd_chunks) {
  const struct sgd *s = context;
  float gb[UNIC_ROW], pb[UNIC_ROW], bb[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  for (int64_t chunk = begin; chunk < end; chunk++) {
    int64_t first, last;
    const unic_multi_item *t = unic_multi_find(s->items, s->n, chunk, &first, &last);
    for (int64_t at = first; at < last; at += UNIC_ROW) {
      int64_t n = last - at < UNIC_ROW ? last - at : UNIC_ROW;
      const unic_walk *w = &t->walk;
      const float *g = unic_walk_load(w, 1, at, n, t->data[1], t->dtype[1], gb, raw);
      float *p = (float *)(uintptr_t)unic_walk_row(w, 0, at, n, t->data[0], UNIC_F32, pb);
      if (s->buffered) {
        float *b = (float *)(uintptr_t)unic_walk_row(w, 2, at, n, t->data[2], UNIC_F32, bb);
        update_momentum(s, n, p, g, b);
        unic_walk_put(w, 2, at, n, t->data[2], UNIC_F32, b, bb);
      } else {
        update_plain(s, n, p, g);
      }
      unic_walk_put(w, 0, at, n, t->data[0], UNIC_F32, p, pb);
    }
  }
}

#else

UNIC_LOOP_TABLE(sgd_chunks);

static unic_status shape(unic_call *c) {
  if (unic_dtype_is_half(c->type)) return unic_fail_arg(c, PARAMS, "they are %s; parameters that are trained are f32 (or f64)", unic_dtype_name(c->type));
  UNIC_TRY(unic_multi_check(c, GRADS, PARAMS, "params"));
  double momentum = c->arg[MOMENTUM].number;
  if (!(momentum >= 0)) return unic_fail_arg(c, MOMENTUM, "%g was given, 0 or more is expected", momentum);
  if (momentum != 0) UNIC_TRY(unic_multi_check(c, BUFFERS, PARAMS, "params"));
  if (!(c->arg[WEIGHT_DECAY].number >= 0)) return unic_fail_arg(c, WEIGHT_DECAY, "%g was given, 0 or more is expected", c->arg[WEIGHT_DECAY].number);
  if (c->arg[NESTEROV].integer && (momentum == 0 || c->arg[DAMPENING].number != 0))
    return unic_fail_arg(c, NESTEROV, "it needs a momentum above 0 and no dampening; momentum = %g, dampening = %g were given", momentum, c->arg[DAMPENING].number);
  return UNIC_OK;
}

static unic_status plan(const unic_kernel *k, unic_plan *p) {
  p->scratch = unic_multi_scratch(k->arg[PARAMS].integer);
  return UNIC_OK;
}

static unic_status forward(const unic_kernel *k) {
  if (!isfinite(unic_element_get(k->in[SCALE].data, k->in[SCALE].dtype, 0))) return UNIC_OK;
  unic_view *const lists[3] = {k->list[PARAMS], k->list[GRADS], k->list[BUFFERS]};
  unic_multi_item *items = k->scratch;
  struct sgd s = {
    .items = items, .n = k->arg[PARAMS].integer,
    .rate = (float)unic_element_get(k->in[LR].data, k->in[LR].dtype, 0), .scale = (float)unic_element_get(k->in[SCALE].data, k->in[SCALE].dtype, 0),
    .momentum = (float)k->arg[MOMENTUM].number, .take = (float)(1 - k->arg[DAMPENING].number), .decay = (float)k->arg[WEIGHT_DECAY].number,
    .buffered = k->arg[MOMENTUM].number != 0, .nesterov = k->arg[NESTEROV].integer,
  };
  UNIC_RUN(sgd_chunks, unic_multi_init(items, s.n, s.buffered ? 3 : 2, lists), 1, &s);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

static unic_status reference(const unic_kernel *k) {
  double lr = unic_element_get(k->in[LR].data, k->in[LR].dtype, 0), scale = unic_element_get(k->in[SCALE].data, k->in[SCALE].dtype, 0);
  if (!isfinite(scale)) return UNIC_OK;
  double momentum = k->arg[MOMENTUM].number;
  for (int64_t n = 0; n < k->arg[PARAMS].integer; n++) {
    const unic_view *p = &k->list[PARAMS][n], *g = &k->list[GRADS][n];
    for (int64_t i = 0; i < p->numel; i++) {
      double *pi = (double *)p->data + unic_view_place(p, i);
      double d = scale * unic_element_get(g->data, g->dtype, unic_view_place(g, i)) + k->arg[WEIGHT_DECAY].number * *pi;
      if (momentum != 0) {
        const unic_view *b = &k->list[BUFFERS][n];
        double *bi = (double *)b->data + unic_view_place(b, i);
        *bi = momentum * *bi + (1 - k->arg[DAMPENING].number) * d;
        d = k->arg[NESTEROV].integer ? d + momentum * *bi : *bi;
      }
      *pi -= lr * d;
    }
  }
  return UNIC_OK;
}

static const unic_op op_sgd = {
  .name = "sgd",
  .signature = "params!: tensors, grads: tensors<float>, momentum_buffers!: tensors<wide>?, lr: scalar, scale: scalar = 1, momentum: number = 0,"
               " dampening: number = 0, weight_decay: number = 0, nesterov: bool = false",
  .doc = "One step of gradient descent for a list of parameters, in place.\n"
         "params, grads     lists of the same shapes\n"
         "momentum_buffers  likewise, when momentum is above 0; zeros at first\n"
         "lr                learning rate\n"
         "scale             multiplies the gradients (clip coefficient, 1 / loss scale); NaN or infinite: nothing changes (they overflowed)\n"
         "momentum          share of the buffer that stays\n"
         "dampening         share of the gradient that the buffer does not take\n"
         "weight_decay      added to the gradient, times the parameter\n"
         "nesterov          look ahead by one momentum step",
  .layouts = "params:any grads:any momentum_buffers:any",
  .shape = shape,
  .cpu = {.forward = forward, .reference = reference, .plan = plan},
  .flags = UNIC_OP_NO_GRAD | UNIC_OP_INPLACE,
};

UNIC_OPS(sgd, &op_sgd);

#endif
