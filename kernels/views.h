/* The windows that narrow and select look through (views.c). Read by C and by CUDA C++ alike. */
#ifndef UNIC_VIEWS_H
#define UNIC_VIEWS_H

#include "strides.h"

enum { X, A, B, C, D };

/* Where the call's y lies in v, a tensor of x's shape. */
static inline unic_view unic_narrow_window(const unic_kernel *k, const unic_view *v) {
  int dim = unic_dim_of(k->arg[A].integer, v->ndim);
  int64_t start = k->arg[B].integer, step = k->arg[D].integer;
  if (start < 0) start += v->shape[dim] + 1;
  unic_view window = unic_view_narrow(v, dim, k->arg[C].integer > 0 ? start - 1 : 0, k->arg[C].integer);
  window.stride[dim] *= step;
  return window;
}
static inline unic_view unic_select_window(const unic_kernel *k, const unic_view *v) {
  int dim = unic_dim_of(k->arg[A].integer, v->ndim);
  int64_t index = k->arg[B].integer;
  return unic_view_select(v, dim, index > 0 ? index - 1 : index + v->shape[dim]);
}

#endif
