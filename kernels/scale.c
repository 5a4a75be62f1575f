/* scale_: every tensor of a list times one scalar, in place (gradient clipping, loss-scale removal). The factor is a tensor on the
 * device, so that a recorded step reads the value of the day.
 *
 *   values[m][i] *= by          computed in f32 (f64 for f64)
 * Bits: any_threads. */
#include "loops.h"

enum { VALUES, BY };

struct scale { void *data; int dtype; double by; };

#if UNIC_LOOPS

UNIC_LOOP(scale_rows) {
  const struct scale *s = context;
  if (s->dtype == UNIC_F64) {
    double *restrict x = s->data;
    for (int64_t i = begin; i < end; i++) x[i] *= s->by;
    return;
  }
  float by = (float)s->by, buffer[UNIC_ROW];
  for (int64_t i = begin; i < end; i += UNIC_ROW) {
    int64_t n = end - i < UNIC_ROW ? end - i : UNIC_ROW;
    if (s->dtype == UNIC_F32) {
      float *restrict x = (float *)s->data + i;
      for (int64_t j = 0; j < n; j++) x[j] *= by;
      continue;
    }
    unic_row_load(s->data, s->dtype, i, n, buffer);
    for (int64_t j = 0; j < n; j++) buffer[j] *= by;
    unic_row_store(s->data, s->dtype, i, n, buffer);
  }
}

#else

UNIC_LOOP_TABLE(scale_rows);

static unic_status no_shape(unic_call *c) { return UNIC_OK; }

static unic_status scale_forward(const unic_kernel *k) {
  double by = unic_element_get(k->in[BY].data, k->in[BY].dtype, 0);
  if (by == 1) return UNIC_OK;
  for (int64_t m = 0; m < k->arg[VALUES].integer; m++) {
    const unic_view *v = &k->list[VALUES][m];
    struct scale s = {v->data, v->dtype, by};
    UNIC_RUN(scale_rows, v->numel, 1 << 15, &s);
  }
  return UNIC_OK;
}

static const unic_op op_scale = {
  .name = "scale_", .signature = "values!: tensors<float>, by: scalar ->",
  .doc = "Multiply every tensor of a list by one number, in place.\n  values  a list of tensors\n  by  a number or a tensor without dimensions",
  .layouts = "values:dense", .shape = no_shape, .cpu = {.forward = scale_forward}, .flags = UNIC_OP_INPLACE | UNIC_OP_NO_GRAD};

UNIC_OPS(scale, &op_scale);

#endif
