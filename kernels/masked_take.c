/* masked_take: the elements of x where mask is true, in row-major order; dx = dy put back where it came from, 0 elsewhere.
 *
 * A shape rule cannot look at values: `count`, the number of true elements, is given (x:masked_select(mask) counts them first), and a mask with another
 * number is an error. Elements are counted in fixed chunks, every chunk then knows its first place and copies on its own: any number of threads gives
 * the same bits. Saved: mask. */
#include "loops.h"

#include <string.h>

#if !UNIC_LOOPS

enum { X, MASK, COUNT };
enum { CHUNK = 1 << 14 };

struct take {
  const uint8_t *mask;
  const void *from;
  void *to;
  int64_t *first;            /* [chunks]: counts, then the place of each chunk's first element */
  int dtype, size, accumulate;
};

static void count_chunk(void *context, int64_t begin, int64_t end) {
  const struct take *s = context;
  int64_t n = 0;
  for (int64_t i = begin; i < end; i++) n += s->mask[i] != 0;
  s->first[begin / CHUNK] = n;
}

/* Gathered in a buffer of one element more than fits: the write behind the last one is no one else's. */
#define TAKE(type) { \
    type row[UNIC_ROW + 1]; \
    const type *x = s->from; \
    type *y = s->to; \
    int64_t at = s->first[begin / CHUNK]; \
    for (int64_t j = begin; j < end; j += UNIC_ROW) { \
      int64_t last = end - j < UNIC_ROW ? end : j + UNIC_ROW, n = 0; \
      for (int64_t i = j; i < last; i++) { row[n] = x[i]; n += s->mask[i] != 0; } \
      if (n > 0) memcpy(y + at, row, (size_t)n * sizeof *row); \
      at += n; \
    } \
    break; \
  }

static void take_chunk(void *context, int64_t begin, int64_t end) {
  const struct take *s = context;
  switch (s->size) {
    case 1: TAKE(uint8_t)
    case 2: TAKE(uint16_t)
    case 4: TAKE(uint32_t)
    default: TAKE(uint64_t)
  }
}

static void put_chunk(void *context, int64_t begin, int64_t end) {
  const struct take *s = context;
  int64_t at = s->first[begin / CHUNK];
  if (s->dtype == UNIC_F64) {
    const double *dy = s->from;
    double *dx = s->to;
    for (int64_t i = begin; i < end; i++) {
      double d = s->mask[i] ? dy[at++] : 0;
      dx[i] = d + (s->accumulate ? dx[i] : 0);
    }
    return;
  }
  float row[UNIC_ROW], buffer[UNIC_ROW];
  for (int64_t j = begin; j < end; j += UNIC_ROW) {
    int64_t n = end - j < UNIC_ROW ? end - j : UNIC_ROW, taken = 0, used = 0;
    for (int64_t i = 0; i < n; i++) taken += s->mask[j + i] != 0;
    const float *dy = taken ? unic_row_load(s->from, s->dtype, at, taken, buffer) : buffer;
    for (int64_t i = 0; i < n; i++) row[i] = s->mask[j + i] ? dy[used++] : 0;
    unic_row_put(s->to, s->dtype, j, n, row, s->accumulate);
    at += taken;
  }
}

static unic_status shape(unic_call *c) {
  const unic_tensor *x = c->in[X], *mask = c->in[MASK];
  char given[256], want[160];
  if (x->ndim != mask->ndim || memcmp(x->shape, mask->shape, x->ndim * sizeof *x->shape) != 0)
    return unic_fail_arg(c, MASK, "%s was given, expected the shape of 'x', %s", unic_tensor_describe(mask, given, sizeof given),
                         unic_shape_describe(x->ndim, x->shape, want, sizeof want));
  if (c->arg[COUNT].integer < 0) return unic_fail_arg(c, COUNT, "%lld was given, expected 0 or more", (long long)c->arg[COUNT].integer);
  unic_out(c, 0, x->dtype, 1, &c->arg[COUNT].integer);
  return UNIC_OK;
}

static unic_status plan(const unic_kernel *k, unic_plan *p) {
  p->scratch = (k->in[X].numel + CHUNK - 1) / CHUNK * (int64_t)sizeof(int64_t);
  return UNIC_OK;
}

static unic_status run(const unic_kernel *k) {
  int64_t n = k->in[X].numel, total = 0;
  struct take s = {.mask = k->in[MASK].data, .first = k->scratch, .dtype = k->in[X].dtype, .size = unic_dtype_size((unic_dtype)k->in[X].dtype)};
  unic_parallel_for(n, CHUNK, count_chunk, &s);
  for (int64_t i = 0; i < (n + CHUNK - 1) / CHUNK; i++) {
    int64_t own = s.first[i];
    s.first[i] = total;
    total += own;
  }
  if (total != k->arg[COUNT].integer)
    return unic_fail("[masked_take] argument 'count': %lld was given, the mask has %lld true elements", (long long)k->arg[COUNT].integer, (long long)total);
  s.from = k->backward ? k->dout[0].data : k->in[X].data;
  s.to = k->backward ? k->din[X].data : k->out[0].data;
  s.accumulate = k->backward && k->accumulate[X];
  unic_parallel_for(n, CHUNK, k->backward ? put_chunk : take_chunk, &s);
  return UNIC_OK;
}

static const unic_op op_masked_take = {
  .name = "masked_take",
  .signature = "x: tensor, mask: tensor<bool>, count: int -> y",
  .doc = "The elements of x where the mask is true, as a vector in row-major order; x:masked_select(mask) counts them itself.\n"
         "mask   x's shape, bool\n"
         "count  how many elements of the mask are true",
  .saves = "mask",
  .grads = "x",
  .shape = shape,
  .cpu = {.forward = run, .backward = run, .plan = plan},
  .flags = UNIC_OP_METHOD | UNIC_OP_INTS,
};

UNIC_OPS(masked_take, &op_masked_take);

#endif
