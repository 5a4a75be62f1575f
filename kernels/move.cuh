/* Moving elements inside of other kernels on the GPU (move.h is the CPU's): views of any strides, `from` broadcasts to the shape of `to`. */
#ifndef UNIC_MOVE_CUH
#define UNIC_MOVE_CUH

#include "cuda.cuh"
#include "strides.h"

void unic_cuda_move(const unic_kernel *k, const unic_view *to, const unic_view *from);       /* to = from, converting (copy.cu) */
void unic_cuda_move_add(const unic_kernel *k, const unic_view *to, const unic_view *from);   /* to += from, floating types (accumulate.cu) */
void unic_cuda_move_fill(const unic_kernel *k, const unic_view *to, double value);           /* to = value (fill.cu) */

/* dx = (or +=) g. */
static inline void unic_cuda_move_gradient(const unic_kernel *k, const unic_view *dx, const unic_view *g, int accumulate) {
  if (accumulate) unic_cuda_move_add(k, dx, g);
  else unic_cuda_move(k, dx, g);
}

#endif
