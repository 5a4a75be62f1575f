/* Which elements pad, flip, roll and repeat_ move where (rearrange.c), as views. Read by C and by CUDA C++ alike. */
#ifndef UNIC_REARRANGE_H
#define UNIC_REARRANGE_H

#include "strides.h"

enum { X };
enum { PAD_AMOUNTS = 1, PAD_VALUE };
enum { FLIP_DIMS = 1 };
enum { ROLL_SHIFTS = 1, ROLL_DIMS };
enum { REPEAT_TIMES = 1 };

/* Elements in front of and behind dimension d: pairs count from the last dimension. */
static inline void unic_pad_of(const unic_value *v, int ndim, int d, int64_t *before, int64_t *after) {
  int pair = ndim - 1 - d;
  bool given = 2 * pair + 1 < v->integer;
  *before = given ? v->ints[2 * pair] : 0;
  *after = given ? v->ints[2 * pair + 1] : 0;
}

static inline unic_view unic_pad_window(const unic_kernel *k, const unic_view *y) {
  unic_view w = *y;
  for (int d = 0; d < y->ndim; d++) {
    int64_t before, after;
    unic_pad_of(&k->arg[PAD_AMOUNTS], y->ndim, d, &before, &after);
    w = unic_view_narrow(&w, d, before, k->in[X].shape[d]);
  }
  return w;
}

/* The view from the other end of the flipped dimensions. */
static inline unic_view unic_flipped(const unic_kernel *k, const unic_view *v) {
  unic_view w = *v;
  for (int64_t i = 0; i < k->arg[FLIP_DIMS].integer && w.numel; i++) {
    int d = unic_dim_of(k->arg[FLIP_DIMS].ints[i], v->ndim);
    w.data = unic_view_at(&w, (w.shape[d] - 1) * w.stride[d]);
    w.stride[d] = -w.stride[d];
  }
  return w;
}

/* A roll moves this many blocks: each rolled dimension falls into two pieces. */
static inline uint32_t unic_roll_pieces(const unic_kernel *k) { return UINT32_C(1) << k->arg[ROLL_DIMS].integer; }

/* *to and *from (whole tensors) become one of the blocks that rolling by sign x shifts moves. */
static inline void unic_roll_piece(const unic_kernel *k, uint32_t piece, int sign, unic_view *to, unic_view *from) {
  const unic_value *shifts = &k->arg[ROLL_SHIFTS], *dims = &k->arg[ROLL_DIMS];
  for (int64_t i = 0; i < dims->integer; i++) {
    int d = unic_dim_of(dims->ints[i], to->ndim);
    int64_t n = to->shape[d], s = sign * shifts->ints[i] % n;
    if (s < 0) s += n;
    /* Elements 0 .. n-s-1 go to s .. n-1, the last s ones to the front. */
    bool last = piece >> i & 1;
    *to = unic_view_narrow(to, d, last ? 0 : s, last ? s : n - s);
    *from = unic_view_narrow(from, d, last ? n - s : 0, last ? s : n - s);
  }
}

/* y with each repeated dimension split into (copy, place within x), and x with dimensions of size 1 where copies are counted; the bits of the
 * result mark those. */
static inline uint32_t unic_split_copies(const unic_view *y, const unic_view *x, unic_view *ys, unic_view *xs) {
  int lead = y->ndim - x->ndim, n = 0;
  uint32_t copies = 0;
  *ys = *y;
  *xs = *x;
  for (int d = 0; d < y->ndim; d++) {
    int64_t size = d < lead ? 1 : x->shape[d - lead], times = y->shape[d] / size;
    if (times != 1) {
      copies |= 1u << n;
      ys->shape[n] = times;
      ys->stride[n] = y->stride[d] * size;
      xs->shape[n] = 1;
      xs->stride[n++] = 0;
      if (size == 1) continue;
    }
    ys->shape[n] = xs->shape[n] = size;
    ys->stride[n] = y->stride[d];
    xs->stride[n++] = d < lead ? 0 : x->stride[d - lead];
  }
  ys->ndim = xs->ndim = (uint8_t)n;
  return copies;
}

#endif
