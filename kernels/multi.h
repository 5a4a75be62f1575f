/* Multi-tensor kernels: one launch over lists of tensors (parameters, gradients, moments).
 *
 * The tensors of one position are walked together; every walk is cut into chunks of UNIC_MULTI_CHUNK elements, and all chunks of all tensors form
 * one parallel loop, so that a model of many small tensors and few large ones keeps every thread busy and enters one parallel region. */
#ifndef UNIC_MULTI_H
#define UNIC_MULTI_H

#include "walk.h"

enum { UNIC_MULTI_CHUNK = 8 * UNIC_ROW };   /* 32 KB of each f32 operand */

typedef struct unic_multi_item {
  unic_walk walk;
  void *data[UNIC_WALK_OPERANDS];
  uint8_t dtype[UNIC_WALK_OPERANDS];
  int64_t first;                     /* number of its first chunk */
} unic_multi_item;

/* Bytes of scratch for lists of n tensors. */
static inline int64_t unic_multi_scratch(int64_t n) { return n * (int64_t)sizeof(unic_multi_item); }

/* Fill items[0 .. n-1] from lists[operand][i] (all lists have n members); returns the number of chunks. */
static inline int64_t unic_multi_init(unic_multi_item *items, int64_t n, int operands, unic_view *const *lists) {
  int64_t chunks = 0;
  for (int64_t i = 0; i < n; i++) {
    const unic_view *views[UNIC_WALK_OPERANDS];
    for (int o = 0; o < operands; o++) {
      views[o] = &lists[o][i];
      items[i].data[o] = lists[o][i].data;
      items[i].dtype[o] = lists[o][i].dtype;
    }
    unic_walk_init(&items[i].walk, operands, views);
    items[i].first = chunks;
    chunks += (items[i].walk.numel + UNIC_MULTI_CHUNK - 1) / UNIC_MULTI_CHUNK;
  }
  return chunks;
}

/* The item of a chunk, and its elements [*begin, *end). */
static inline const unic_multi_item *unic_multi_find(const unic_multi_item *items, int64_t n, int64_t chunk, int64_t *begin, int64_t *end) {
  int64_t low = 0, high = n - 1;
  while (low < high) {
    int64_t middle = (low + high + 1) / 2;
    if (items[middle].first <= chunk) low = middle;
    else high = middle - 1;
  }
  const unic_multi_item *item = &items[low];
  *begin = (chunk - item->first) * UNIC_MULTI_CHUNK;
  *end = *begin + UNIC_MULTI_CHUNK < item->walk.numel ? *begin + UNIC_MULTI_CHUNK : item->walk.numel;
  return item;
}

#if UNIC_LOOPS
typedef double unic_multi_lanes __attribute__((vector_size(32)));

/* The sum of the squares of a row, in f64: the square of any f32 fits. Eight partial sums keep the adders busy. */
static inline double unic_multi_squares(const float *x, int64_t n) {
  unic_multi_lanes s[2] = {{0}};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const float *restrict p = x + i;
    unic_multi_lanes a = {p[0], p[1], p[2], p[3]}, b = {p[4], p[5], p[6], p[7]};
    s[0] += a * a;
    s[1] += b * b;
  }
  double sum = 0;
  for (; i < n; i++) sum += (double)x[i] * (double)x[i];
  s[0] += s[1];
  return sum + ((s[0][0] + s[0][2]) + (s[0][1] + s[0][3]));
}
#else
/* Chunks of a list of tensors, for plans. */
static inline int64_t unic_multi_chunks(const unic_view *list, int64_t n) {
  int64_t chunks = 0;
  for (int64_t i = 0; i < n; i++) chunks += (list[i].numel + UNIC_MULTI_CHUNK - 1) / UNIC_MULTI_CHUNK;
  return chunks;
}

/* Where element i (row-major) of a strided view lies; for plain forms. */
static inline int64_t unic_view_place(const unic_view *v, int64_t i) {
  int64_t at = 0;
  for (int d = v->ndim - 1; d >= 0; d--) { at += i % v->shape[d] * v->stride[d]; i /= v->shape[d]; }
  return at;
}

/* For shape rules: list `arg` has as many tensors as list `like`, of the same shapes. */
static inline unic_status unic_multi_check(const unic_call *c, int arg, int like, const char *like_name) {
  if (c->arg[arg].integer != c->arg[like].integer)
    return unic_fail_arg(c, arg, "it has %lld tensors, %s has %lld", (long long)c->arg[arg].integer, like_name, (long long)c->arg[like].integer);
  for (int64_t i = 0; i < c->arg[arg].integer; i++) {
    const unic_tensor *a = c->list[arg][i], *b = c->list[like][i];
    bool same = a->ndim == b->ndim;
    for (int d = 0; same && d < a->ndim; d++) same = a->shape[d] == b->shape[d];
    if (!same) {
      char x[128], y[128];
      return unic_fail_arg(c, arg, "tensor %lld has shape %s, %s has %s there", (long long)i + 1, unic_shape_describe(a->ndim, a->shape, x, sizeof x),
                           like_name, unic_shape_describe(b->ndim, b->shape, y, sizeof y));
    }
  }
  return UNIC_OK;
}
#endif

#endif
