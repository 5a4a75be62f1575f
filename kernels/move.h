/* Moving elements inside of other kernels: what the services copy, accumulate and fill do, on views of any strides (negative ones too).
 * `from` broadcasts to the shape of `to`; nothing may overlap. Blocked views are welcome. */
#ifndef UNIC_MOVE_H
#define UNIC_MOVE_H

#include "op.h"

void unic_move(const unic_view *to, const unic_view *from);       /* to = from, converting (copy.c) */
void unic_move_add(const unic_view *to, const unic_view *from);   /* to += from, floating types (accumulate.c) */
void unic_move_fill(const unic_view *to, double value);           /* to = value (fill.c) */

/* to = (or +=) the sum of `from` (strides may be 0) over its dimensions in the bit set `mask`: `to` has from's other dimensions, in order. Pieces
 * are fixed by shape and strides alone. `scratch` has unic_move_sum_scratch bytes, from the plan (reduce.c). */
int64_t unic_move_sum_scratch(const unic_view *from, uint32_t mask);
void unic_move_sum(const unic_view *to, const unic_view *from, uint32_t mask, int accumulate, void *scratch);

/* Element `at` of a view's memory (in elements from data). */
static inline void *unic_view_at(const unic_view *v, int64_t at) { return (char *)v->data + at * unic_dtype_size((unic_dtype)v->dtype); }

/* Positions start .. start+length-1 of dimension dim. */
static inline unic_view unic_view_narrow(const unic_view *v, int dim, int64_t start, int64_t length) {
  unic_view w = *v;
  if (w.data) w.data = unic_view_at(v, start * v->stride[dim]);
  w.numel = v->shape[dim] ? v->numel / v->shape[dim] * length : 0;
  w.shape[dim] = length;
  return w;
}

/* The dimension gone: its position `index`. */
static inline unic_view unic_view_select(const unic_view *v, int dim, int64_t index) {
  unic_view w = unic_view_narrow(v, dim, index, 1);
  w.ndim--;
  for (int d = dim; d < w.ndim; d++) { w.shape[d] = w.shape[d + 1]; w.stride[d] = w.stride[d + 1]; }
  return w;
}

/* dx = (or +=) g. */
static inline void unic_move_gradient(const unic_view *dx, const unic_view *g, int accumulate) {
  if (accumulate) unic_move_add(dx, g);
  else unic_move(dx, g);
}

/* A dimension argument that the shape rule has checked, from 0. */
static inline int unic_dim_of(int64_t dim, int ndim) { return (int)(dim > 0 ? dim - 1 : dim + ndim); }

#endif
