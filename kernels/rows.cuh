/* Rows of dense memory on the GPU: elements 16 bytes at a time, sums of the threads that share a row, and scalars of either width. */
#ifndef UNIC_ROWS_CUH
#define UNIC_ROWS_CUH

#include "cuda.cuh"

#include <math.h>   /* for sqrt, exp, fma, ... of float and double under one name */

/* V elements at p (aligned to V of them) as wide values, and back; with `add`, onto what is there. */
template <class T, int V> static __device__ __forceinline__ void unic_load_wide(const T *p, unic_wide<T> (&v)[V]) {
  const unic_pack<T, V> raw = *reinterpret_cast<const unic_pack<T, V> *>(p);
#pragma unroll
  for (int i = 0; i < V; i++) v[i] = unic_widen(raw.at[i]);
}
template <class T, int V> static __device__ __forceinline__ void unic_store_wide(T *p, const unic_wide<T> (&v)[V], bool add = false) {
  unic_pack<T, V> raw;
  if (add) {
    raw = *reinterpret_cast<const unic_pack<T, V> *>(p);
#pragma unroll
    for (int i = 0; i < V; i++) raw.at[i] = unic_narrow<T>(unic_widen(raw.at[i]) + v[i]);
  } else {
#pragma unroll
    for (int i = 0; i < V; i++) raw.at[i] = unic_narrow<T>(v[i]);
  }
  *reinterpret_cast<unic_pack<T, V> *>(p) = raw;
}

/* The sum over the GROUP threads of a row: a warp (several rows to a block), or the whole block; known to all of them. */
template <int GROUP, class W> static __device__ __forceinline__ W unic_group_sum(W v, W *room) {
  if constexpr (GROUP == 32) return unic_warp_sum(v);
  else return unic_block_sum(v, room);
}
template <int GROUP, class W> static __device__ __forceinline__ W unic_group_max(W v, W *room) {
  if constexpr (GROUP == 32) return unic_warp_max(v);
  else return unic_block_max(v, room);
}

/* The elements of a row wherever it begins: f(column, v[V]) for the packs between two 16-byte boundaries, f(column, v[1]) before and after.
 * Thread t of `step` (at least V) takes every step-th. V: unic_vector<T>, or 1. */
template <class T, int V, class F> static __device__ __forceinline__ void unic_row_each(const T *row, int64_t n, int t, int step, F f) {
  using W = unic_wide<T>;
  int64_t head = V == 1 ? 0 : (int64_t)((16 - ((uintptr_t)row & 15)) & 15) / (int)sizeof(T);
  if (head > n) head = n;
  const int64_t packs = (n - head) / V, tail = head + packs * V;
  if (t < head) {
    W v[1] = {unic_widen(row[t])};
    f((int64_t)t, v);
  }
  /* All threads go round equally often: what reconverges often needs no room to remember who has to wait for whom. */
#pragma unroll 1
  for (int64_t first = 0; first < packs; first += step) {
    if (first + t >= packs) continue;
    W v[V];
    unic_load_wide<T, V>(row + head + (first + t) * V, v);
    f(head + (first + t) * V, v);
  }
  if (t < n - tail) {
    W v[1] = {unic_widen(row[tail + t])};
    f(tail + t, v);
  }
}

/* A scalar in device memory that is f32 or f64. */
struct unic_scalar {
  const void *data;
  bool wide;
  __device__ __forceinline__ double value(void) const { return wide ? *(const double *)data : (double)*(const float *)data; }
};
static inline unic_scalar unic_scalar_of(const unic_view *v) { return {v->data, v->dtype == UNIC_F64}; }

#endif
