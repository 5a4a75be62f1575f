/* lerp_: into += weight (from - into) for lists of tensors, in place: the exponential moving average of a model's weights.
 *
 * weight is a scalar tensor on the device, so a recorded step replays. Computed in f32 (f64 for f64) and rounded once into the type of `into`.
 * All tensors are cut into fixed chunks that form one parallel loop (multi.h); there are no sums: any number of threads gives the same bits. */
#include "multi.h"

enum { INTO, FROM, WEIGHT };

struct lerp {
  const unic_multi_item *items;
  int64_t n;
  float weight;
};

#if UNIC_LOOPS

UNIC_LOOP(lerp_chunks) {
  const struct lerp *s = context;
  float a[UNIC_ROW], b[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  const float weight = s->weight;
  for (int64_t chunk = begin; chunk < end; chunk++) {
    int64_t first, last;
    const unic_multi_item *t = unic_multi_find(s->items, s->n, chunk, &first, &last);
    const unic_walk *w = &t->walk;
    for (int64_t at = first; at < last; at += UNIC_ROW) {
      int64_t n = last - at < UNIC_ROW ? last - at : UNIC_ROW;
      const float *restrict from = unic_walk_load(w, 1, at, n, t->data[1], t->dtype[1], b, raw);
      float *restrict into = (float *)(uintptr_t)unic_walk_load(w, 0, at, n, t->data[0], t->dtype[0], a, raw);
      for (int64_t i = 0; i < n; i++) into[i] += weight * (from[i] - into[i]);
      unic_walk_store(w, 0, at, n, t->data[0], t->dtype[0], into, a, raw);
    }
  }
}

#else

UNIC_LOOP_TABLE(lerp_chunks);

static unic_status shape(unic_call *c) { return unic_multi_check(c, FROM, INTO, "into"); }

static unic_status plan(const unic_kernel *k, unic_plan *p) {
  p->scratch = unic_multi_scratch(k->arg[INTO].integer);
  return UNIC_OK;
}

static unic_status forward(const unic_kernel *k) {
  unic_view *const lists[2] = {k->list[INTO], k->list[FROM]};
  struct lerp s = {.items = k->scratch, .n = k->arg[INTO].integer, .weight = (float)unic_element_get(k->in[WEIGHT].data, k->in[WEIGHT].dtype, 0)};
  UNIC_RUN(lerp_chunks, unic_multi_init(k->scratch, s.n, 2, lists), 1, &s);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

static unic_status reference(const unic_kernel *k) {
  double weight = unic_element_get(k->in[WEIGHT].data, k->in[WEIGHT].dtype, 0);
  for (int64_t n = 0; n < k->arg[INTO].integer; n++) {
    const unic_view *into = &k->list[INTO][n], *from = &k->list[FROM][n];
    for (int64_t i = 0; i < into->numel; i++) {
      double *x = (double *)into->data + unic_view_place(into, i), y = ((const double *)from->data)[unic_view_place(from, i)];
      *x = (1 - weight) * *x + weight * y;
    }
  }
  return UNIC_OK;
}

static const unic_op op_lerp = {
  .name = "lerp_",
  .signature = "into!: tensors, from: tensors, weight: scalar",
  .doc = "Move every tensor of a list a part of the way towards another list, in place: into += weight (from - into).\n"
         "into, from  lists of the same shapes and dtype\n"
         "weight      the part of the way, 0 to 1",
  .layouts = "into:any from:any",
  .shape = shape,
  .cpu = {.forward = forward, .reference = reference, .plan = plan},
  .flags = UNIC_OP_NO_GRAD | UNIC_OP_INPLACE,
};

UNIC_OPS(lerp_, &op_lerp);

#endif
