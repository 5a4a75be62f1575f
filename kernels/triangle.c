/* tril, triu: the part of matrices on and below (above) a diagonal, zeros elsewhere.
 *
 *   tril: y[.., i, j] = x[.., i, j] where j - i <= diagonal, 0 elsewhere        triu: where j - i >= diagonal
 *
 * The gradient is the same cut of dy. Any dtype; rows are copied and cleared whole. Saved: nothing. Bits: any number of threads. */
#include "loops.h"

enum { X, DIAGONAL };

struct triangle {
  const void *from;
  void *to;
  int64_t rows, columns, diagonal;   /* rows: of one matrix */
  int dtype, size, accumulate;
  bool lower;
};

#if UNIC_LOOPS

/* Rows [begin, end) of all matrices. */
UNIC_LOOP(triangle_rows) {
  const struct triangle *s = context;
  float buffer[UNIC_ROW];
  for (int64_t r = begin; r < end; r++) {
    int64_t n = s->columns, i = r % s->rows;
    /* Columns [first, last) stay. */
    int64_t edge = i + s->diagonal + (s->lower ? 1 : 0), first, last;
    edge = edge < 0 ? 0 : edge > n ? n : edge;
    first = s->lower ? 0 : edge;
    last = s->lower ? edge : n;
    if (!s->accumulate) {
      const char *from = (const char *)s->from + r * n * s->size;
      char *to = (char *)s->to + r * n * s->size;
      memset(to, 0, (size_t)(first * s->size));
      memcpy(to + first * s->size, from + first * s->size, (size_t)((last - first) * s->size));
      memset(to + last * s->size, 0, (size_t)((n - last) * s->size));
    } else if (s->dtype == UNIC_F64) {
      const double *from = (const double *)s->from + r * n;
      double *to = (double *)s->to + r * n;
      for (int64_t j = first; j < last; j++) to[j] += from[j];
    } else {
      for (int64_t j = first; j < last; j += UNIC_ROW) {
        int64_t c = last - j < UNIC_ROW ? last - j : UNIC_ROW;
        unic_row_put(s->to, s->dtype, r * n + j, c, unic_row_load(s->from, s->dtype, r * n + j, c, buffer), 1);
      }
    }
  }
}

#else

UNIC_LOOP_TABLE(triangle_rows);

static unic_status shape(unic_call *c) {
  unic_out(c, 0, c->in[X]->dtype, c->in[X]->ndim, c->in[X]->shape);
  return UNIC_OK;
}

static unic_status run(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *from = k->backward ? &k->dout[0] : x, *to = k->backward ? &k->din[X] : &k->out[0];
  if (to->numel == 0) return UNIC_OK;
  struct triangle s = {.from = from->data, .to = to->data, .rows = x->shape[x->ndim - 2], .columns = x->shape[x->ndim - 1], .diagonal = k->arg[DIAGONAL].integer,
                       .dtype = x->dtype, .size = unic_dtype_size((unic_dtype)x->dtype), .accumulate = k->backward && k->accumulate[X],
                       .lower = k->op->name[3] == 'l'};
  int64_t chunk = (1 << 15) / s.columns;
  UNIC_RUN(triangle_rows, to->numel / s.columns, chunk < 1 ? 1 : chunk, &s);
  return UNIC_OK;
}

#define TRIANGLE(op, words) \
  static const unic_op op_##op = { \
    .name = #op, .signature = "x: tensor[...,M,N], diagonal: int = 0 -> y", \
    .doc = "The part of matrices on and " words " a diagonal; the rest is 0.\n" \
           "x         matrices, the last two dimensions\ndiagonal  0: the main one; 1: the one above it; -1: the one below it", \
    .grads = "x", .shape = shape, .cpu = {.forward = run, .backward = run}, .flags = UNIC_OP_METHOD | UNIC_OP_INTS};
TRIANGLE(tril, "below")
TRIANGLE(triu, "above")

UNIC_OPS(triangle, &op_tril, &op_triu);

#endif
