/* grad_norm: the L2 norm of all elements of a list of tensors, (sum_m sum_i x_m[i]^2)^1/2.
 *
 * Squares are summed in f64 (the square of any f32 fits, so the norm overflows only when it is itself out of range), one partial sum per fixed
 * chunk (multi.h), added up in order: any number of threads gives the same bits. One pass over the memory. */
#include "multi.h"

enum { TENSORS };

struct grad_norm {
  const unic_multi_item *items;
  int64_t n;
  double *partial;   /* [chunks] */
};

#if UNIC_LOOPS

UNIC_LOOP(grad_norm_chunks) {
  const struct grad_norm *s = context;
  float buffer[UNIC_ROW];
  double wide[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  for (int64_t chunk = begin; chunk < end; chunk++) {
    int64_t first, last;
    const unic_multi_item *t = unic_multi_find(s->items, s->n, chunk, &first, &last);
    double sum = 0;
    for (int64_t at = first; at < last; at += UNIC_ROW) {
      int64_t n = last - at < UNIC_ROW ? last - at : UNIC_ROW;
      if (t->dtype[0] == UNIC_F64) {
        const double *x = unic_walk_row(&t->walk, 0, at, n, t->data[0], UNIC_F64, wide);
        for (int64_t i = 0; i < n; i++) sum += x[i] * x[i];
      } else {
        sum += unic_multi_squares(unic_walk_load(&t->walk, 0, at, n, t->data[0], t->dtype[0], buffer, raw), n);
      }
    }
    s->partial[chunk] = sum;
  }
}

#else

UNIC_LOOP_TABLE(grad_norm_chunks);

static unic_status shape(unic_call *c) {
  bool wide = false;
  for (int64_t i = 0; i < c->arg[TENSORS].integer; i++) wide = wide || c->list[TENSORS][i]->dtype == UNIC_F64;
  unic_out(c, 0, wide ? UNIC_F64 : UNIC_F32, 0, NULL);
  return UNIC_OK;
}

static unic_status plan(const unic_kernel *k, unic_plan *p) {
  int64_t chunks = unic_multi_chunks(k->list[TENSORS], k->arg[TENSORS].integer);
  p->scratch = unic_multi_scratch(k->arg[TENSORS].integer) + chunks * (int64_t)sizeof(double);
  return UNIC_OK;
}

static unic_status forward(const unic_kernel *k) {
  unic_view *const lists[1] = {k->list[TENSORS]};
  struct grad_norm s = {.items = k->scratch, .n = k->arg[TENSORS].integer};
  s.partial = (double *)((char *)k->scratch + unic_multi_scratch(s.n));
  int64_t chunks = unic_multi_init(k->scratch, s.n, 1, lists);
  UNIC_RUN(grad_norm_chunks, chunks, 1, &s);
  double sum = 0;
  for (int64_t i = 0; i < chunks; i++) sum += s.partial[i];
  unic_element_set(k->out[0].data, k->out[0].dtype, 0, sqrt(sum));
  return UNIC_OK;
}

static unic_status reference(const unic_kernel *k) {
  double sum = 0;
  for (int64_t n = 0; n < k->arg[TENSORS].integer; n++) {
    const unic_view *x = &k->list[TENSORS][n];
    for (int64_t i = 0; i < x->numel; i++) {
      double v = unic_element_get(x->data, x->dtype, unic_view_place(x, i));
      sum += v * v;
    }
  }
  unic_element_set(k->out[0].data, k->out[0].dtype, 0, sqrt(sum));
  return UNIC_OK;
}

static const unic_op op_grad_norm = {
  .name = "grad_norm",
  .signature = "tensors: tensors<float> -> norm",
  .doc = "The L2 norm of all elements of a list of tensors together, as a tensor without dimensions. It has no gradient.\n"
         "tensors  any shapes and floating dtypes; 0 for an empty list",
  .layouts = "tensors:any",
  .shape = shape,
  .cpu = {.forward = forward, .reference = reference, .plan = plan},
  .flags = UNIC_OP_NO_GRAD,
};

UNIC_OPS(grad_norm, &op_grad_norm);

#endif
