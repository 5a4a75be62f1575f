/* Strides: how views of one shape are walked together, and views of a part of a tensor. Read by C and by CUDA C++ alike.
 *
 * A walk visits the elements of up to four operands that broadcast to the shape of the first. Dimensions are sorted by the strides of the
 * first operand and merged where every operand allows it, so operands that share one dense layout (row-major, channels-last, blocked, any
 * transposition) become one flat row. Elements are numbered 0 .. numel-1 in that order. */
#ifndef UNIC_STRIDES_H
#define UNIC_STRIDES_H

#include "kernel.h"

/* Bytes of an element, without a call into the runtime. */
static inline int unic_size_of(int dtype) {
  static const uint8_t size[UNIC_DTYPES] = {4, 2, 2, 8, 8, 4, 1, 1};
  return size[dtype];
}

/* ---------------------------------------------------------------- walks */

enum { UNIC_WALK_OPERANDS = 4 };

typedef struct unic_walk {
  int ndim, operands;
  int64_t numel;
  int64_t shape[UNIC_MAX_RANK];
  int64_t stride[UNIC_WALK_OPERANDS][UNIC_MAX_RANK];
} unic_walk;

/* Shape and strides of a view as plain strided dimensions. A blocked view (N, C/b, H, W, b in memory) has its channels split in two, and so
 * must every other operand of its walk: `block` says by how much (0: nothing is split). Returns the number of dimensions. */
static inline int unic_walk_dims(const unic_view *v, int block, int64_t *shape, int64_t *stride) {
  if (!block) {
    for (int d = 0; d < v->ndim; d++) { shape[d] = v->shape[d]; stride[d] = v->stride[d]; }
    return v->ndim;
  }
  int64_t n = v->shape[0], c = v->shape[1], h = v->shape[2], w = v->shape[3];
  int64_t blocks = c == 1 ? 1 : c / block, inside = c == 1 ? 1 : block;   /* c == 1: broadcast */
  const int64_t dims[5] = {n, blocks, inside, h, w};
  for (int d = 0; d < 5; d++) shape[d] = dims[d];
  if (v->block) {
    stride[0] = c * h * w; stride[1] = h * w * block; stride[2] = 1; stride[3] = w * block; stride[4] = block;
  } else {
    stride[0] = v->stride[0]; stride[1] = v->stride[1] * block; stride[2] = v->stride[1]; stride[3] = v->stride[2]; stride[4] = v->stride[3];
  }
  return 5;
}

/* Sort and merge. Called once every operand's strides stand in w->stride over w->shape. */
static inline void unic_walk_merge(unic_walk *w) {
  /* Dimensions of size 1 say nothing. */
  int n = 0;
  w->numel = 1;
  for (int d = 0; d < w->ndim; d++) {
    w->numel *= w->shape[d];
    if (w->shape[d] == 1) continue;
    w->shape[n] = w->shape[d];
    for (int o = 0; o < w->operands; o++) w->stride[o][n] = w->stride[o][d];
    n++;
  }
  w->ndim = n;
  /* Insertion sort, widest stride of the first operand outermost; where it does not tell (broadcast), the next operand does. */
  for (int d = 1; d < n; d++)
    for (int e = d; e > 0; e--) {
      int order = 0;
      for (int o = 0; o < w->operands && !order; o++) {
        int64_t a = w->stride[o][e - 1], b = w->stride[o][e];
        a = a < 0 ? -a : a;
        b = b < 0 ? -b : b;
        if (a && b) order = (a < b) - (a > b);
      }
      if (order <= 0) break;
      int64_t s = w->shape[e]; w->shape[e] = w->shape[e - 1]; w->shape[e - 1] = s;
      for (int o = 0; o < w->operands; o++) { s = w->stride[o][e]; w->stride[o][e] = w->stride[o][e - 1]; w->stride[o][e - 1] = s; }
    }
  int m = 0;
  for (int d = 0; d < n; d++) {
    bool joins = m > 0;
    for (int o = 0; joins && o < w->operands; o++) joins = w->stride[o][m - 1] == w->stride[o][d] * w->shape[d];
    if (joins) {
      w->shape[m - 1] *= w->shape[d];
      for (int o = 0; o < w->operands; o++) w->stride[o][m - 1] = w->stride[o][d];
    } else {
      w->shape[m] = w->shape[d];
      for (int o = 0; o < w->operands; o++) w->stride[o][m] = w->stride[o][d];
      m++;
    }
  }
  if (m == 0) {
    m = 1;
    w->shape[0] = 1;
    for (int o = 0; o < w->operands; o++) w->stride[o][0] = 1;
  }
  w->ndim = m;
}

/* Row-major operands of one shape: what merging would make of them, known at a glance. */
static inline bool unic_walk_init_flat(unic_walk *w, int operands, const unic_view *const *views) {
  const unic_view *first = views[0];
  int64_t expect = 1;
  if (first->block) return false;
  for (int d = first->ndim - 1; d >= 0; d--) {
    if (first->shape[d] != 1 && first->stride[d] != expect) return false;
    expect *= first->shape[d];
  }
  for (int o = 1; o < operands; o++) {
    const unic_view *v = views[o];
    if (v == first) continue;
    if (v->block || v->ndim != first->ndim) return false;
    for (int d = 0; d < first->ndim; d++)
      if (v->shape[d] != first->shape[d] || (v->shape[d] != 1 && v->stride[d] != first->stride[d])) return false;
  }
  w->operands = operands;
  w->ndim = 1;
  w->numel = w->shape[0] = expect;
  for (int o = 0; o < operands; o++) w->stride[o][0] = 1;
  return true;
}

/* Operands that broadcast to the shape of views[0]. */
static inline void unic_walk_init(unic_walk *w, int operands, const unic_view *const *views) {
  if (unic_walk_init_flat(w, operands, views)) return;
  int block = 0;
  for (int o = 0; o < operands; o++) if (views[o]->block) block = views[o]->block;
  w->operands = operands;
  w->ndim = unic_walk_dims(views[0], block, w->shape, w->stride[0]);
  for (int o = 1; o < operands; o++) {
    int64_t shape[UNIC_MAX_RANK], stride[UNIC_MAX_RANK];
    /* Beside a blocked operand every other one has four dimensions, or broadcasts from fewer: pad with ones. */
    unic_view padded = *views[o];
    if (block && padded.ndim < 4) {
      int missing = 4 - padded.ndim;
      for (int d = 3; d >= 0; d--) {
        padded.shape[d] = d < missing ? 1 : padded.shape[d - missing];
        padded.stride[d] = d < missing ? 0 : padded.stride[d - missing];
      }
      padded.ndim = 4;
    }
    int n = unic_walk_dims(&padded, block, shape, stride), lead = w->ndim - n;
    for (int d = 0; d < w->ndim; d++) w->stride[o][d] = d < lead || shape[d - lead] == 1 ? 0 : stride[d - lead];
  }
  unic_walk_merge(w);
}

/* Every operand is one dense row in the same order. */
static inline bool unic_walk_flat(const unic_walk *w) {
  if (w->ndim != 1) return false;
  for (int o = 0; o < w->operands; o++) if (w->stride[o][0] != 1) return false;
  return true;
}

/* ---------------------------------------------------------------- parts of a view */

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

/* The dimensions of y, as bits, along which x (which broadcasts to y's shape) is repeated. */
static inline uint32_t unic_view_repeated(const unic_view *x, const unic_view *y) {
  int lead = y->ndim - x->ndim;
  uint32_t mask = 0;
  for (int d = 0; d < y->ndim; d++) if (d < lead || x->shape[d - lead] != y->shape[d]) mask |= 1u << d;
  return mask;
}

/* A dimension argument that the shape rule has checked, from 0. */
static inline int unic_dim_of(int64_t dim, int ndim) { return (int)(dim > 0 ? dim - 1 : dim + ndim); }

#endif
