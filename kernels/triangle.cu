/* tril, triu on the GPU (triangle.c): the part of matrices on and below (above) a diagonal, zeros elsewhere; the gradient is the same cut of dy.
 * All matrices are row-major. What stays is read once, everything is written once (accumulate: what is cut off is left alone). */
#include "walk.cuh"

namespace {

enum { X, DIAGONAL };

struct cut {
  int64_t units;                    /* of `unit` elements: V of them, or 1 where rows are no whole number of V */
  int32_t unit, accumulate;
  unic_divider columns, rows;       /* units in a row; rows of a matrix */
  int64_t diagonal;
  bool lower, narrow;               /* narrow: units fit into 31 bits */
};

template <int V, class T> __global__ void __launch_bounds__(UNIC_MAP_THREADS) triangle_kernel(cut s, T *to, const T *from) {
  for (int64_t u = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; u < s.units; u += (int64_t)gridDim.x * blockDim.x) {
    uint32_t i, j;
    if (s.narrow) {
      const uint32_t line = unic_divide((uint32_t)u, s.columns), matrix = unic_divide(line, s.rows);
      j = (uint32_t)u - line * s.columns.by;
      i = line - matrix * s.rows.by;
    } else {
      const int64_t line = u / s.columns.by;
      j = (uint32_t)(u - line * s.columns.by);
      i = (uint32_t)(line % s.rows.by);
    }
    const int n = s.unit, mode = n == V ? UNIC_GET_WIDE : UNIC_GET_STRIDED;
    /* The element right of (left of, for the upper part) the last one that stays, from the unit's first one. */
    const int64_t edge = (int64_t)i + s.diagonal + (s.lower ? 1 : 0) - (int64_t)j * n;
    const bool all = s.lower ? edge >= n : edge <= 0, none = s.lower ? edge <= 0 : edge >= n;
    if (none && s.accumulate) continue;
    unic_row<T, V> row = unic_get<V>(from + u * n, none ? (int)UNIC_GET_NOTHING : mode, 1, n);
    if (!all && !none) {
#pragma unroll
      for (int e = 0; e < V; e++)
        if ((e < edge) != s.lower) row.at[e] = T(0.0f);
    }
    if constexpr (!unic_is_integer<T>) {
      if (s.accumulate) {
        const unic_row<T, V> old = unic_get<V>(to + u * n, mode, 1, n);
#pragma unroll
        for (int e = 0; e < V; e++) row.at[e] = unic_narrow<T>(unic_widen(old.at[e]) + unic_widen(row.at[e]));
      }
    }
    unic_put<V>(to + u * n, mode, 1, n, row);
  }
}

template <bool lower> unic_status run(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *from = k->backward ? &k->dout[0] : x, *to = k->backward ? &k->din[X] : &k->out[0];
  if (to->numel == 0 || (k->backward && !to->present)) return UNIC_OK;
  unic_types(to->dtype, [&](auto t) {
    using T = decltype(t);
    constexpr int V = unic_vector<T>;
    const int64_t columns = x->shape[x->ndim - 1];
    cut s = {};
    s.unit = columns % V == 0 && unic_aligned16(from->data, to->data) ? V : 1;
    s.units = to->numel / s.unit;
    s.accumulate = k->backward && k->accumulate[X];
    s.columns = unic_divider_of((uint32_t)(columns / s.unit));
    s.rows = unic_divider_of((uint32_t)x->shape[x->ndim - 2]);
    s.diagonal = k->arg[DIAGONAL].integer;
    s.lower = lower;
    s.narrow = s.units < INT64_C(1) << 31;
    UNIC_LAUNCH((triangle_kernel<V, T>), unic_blocks(k, s.units, UNIC_MAP_THREADS), UNIC_MAP_THREADS, 0, unic_cuda_stream(k), s, (T *)to->data, (const T *)from->data);
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(triangle, {"tril", {.forward = run<true>, .backward = run<true>}}, {"triu", {.forward = run<false>, .backward = run<false>}});
