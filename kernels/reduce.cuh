/* What kernels that sum, search and sort share: places of lines and of their elements, elements loaded in groups and widened, exponentials by type, and
 * sums over part of a warp.
 * Sums of a whole warp and of a block stand in cuda.cuh. Every sum is a tree or a chain that the shapes fix. */
#ifndef UNIC_REDUCE_CUH
#define UNIC_REDUCE_CUH

#include "cuda.cuh"
#include "strides.h"
#include "walk.cuh"

#include <math.h>

static __host__ __device__ __forceinline__ float unic_exp(float x) { return expf(x); }
static __host__ __device__ __forceinline__ double unic_exp(double x) { return exp(x); }
static __host__ __device__ __forceinline__ float unic_log(float x) { return logf(x); }
static __host__ __device__ __forceinline__ double unic_log(double x) { return log(x); }

/* ---------------------------------------------------------------- places along some of the dimensions */

/* Numbers split into outer * by + inner by a multiplication: exact while the number times `by` stays below 2^64. */
struct unic_split { int64_t by; uint64_t multiply; };
static inline unic_split unic_split_of(int64_t by) { return {by, by > 1 ? ~UINT64_C(0) / (uint64_t)by + 1 : 0}; }
static __device__ __forceinline__ int64_t unic_outer(const unic_split &s, int64_t i) {
  return s.by == 1 ? i : (int64_t)(((unsigned __int128)(uint64_t)i * s.multiply) >> 64);
}

/* Some dimensions of N views of one shape, merged where all of them allow it; outermost first. Indices count their elements row by row. */
template <int N> struct unic_axes {
  int64_t count;                         /* elements along them together */
  int64_t stride[N][UNIC_MAX_RANK];
  unic_split shape[UNIC_MAX_RANK];
  int32_t ndim;                          /* at least 1 */
};

/* Where element i lies in each view, from its first element. */
template <int N> static __device__ __forceinline__ void unic_axes_find(const unic_axes<N> &a, int64_t i, int64_t (&at)[N]) {
#pragma unroll
  for (int o = 0; o < N; o++) at[o] = 0;
  for (int d = a.ndim - 1; d > 0; d--) {
    int64_t above = unic_outer(a.shape[d], i), here = i - above * a.shape[d].by;
#pragma unroll
    for (int o = 0; o < N; o++) at[o] += here * a.stride[o][d];
    i = above;
  }
#pragma unroll
  for (int o = 0; o < N; o++) at[o] += i * a.stride[o][0];
}
static __device__ __forceinline__ int64_t unic_axes_at(const unic_axes<1> &a, int64_t i) {
  int64_t at[1];
  unic_axes_find(a, i, at);
  return at[0];
}

/* The dimensions in `mask` of views that have the shape of the first one (only strides are read of the others). */
template <int N> static inline unic_axes<N> unic_axes_of(uint32_t mask, const unic_view *const (&views)[N]) {
  unic_axes<N> a = {};
  int64_t shape[UNIC_MAX_RANK] = {1};
  a.count = 1;
  for (int d = 0; d < views[0]->ndim; d++) {
    int64_t n = views[0]->shape[d];
    if (!(mask >> d & 1)) continue;
    a.count *= n;
    if (n == 1) continue;
    bool joins = a.ndim > 0;
    for (int o = 0; joins && o < N; o++) joins = a.stride[o][a.ndim - 1] == views[o]->stride[d] * n;
    if (joins) shape[a.ndim - 1] *= n;
    else shape[a.ndim++] = n;
    for (int o = 0; o < N; o++) a.stride[o][a.ndim - 1] = views[o]->stride[d];
  }
  if (a.ndim == 0) a.ndim = 1;
  for (int d = 0; d < a.ndim; d++) a.shape[d] = unic_split_of(shape[d]);
  return a;
}
/* All dimensions but one. */
static inline uint32_t unic_other_dims(int ndim, int dim) { return ((UINT32_C(1) << ndim) - 1) & ~(UINT32_C(1) << dim); }

/* ---------------------------------------------------------------- elements */

/* What elements of any type are compared and added in: integers exactly. */
template <class T> using unic_exact = std::conditional_t<unic_is_integer<T>, long long, unic_wide<T>>;
template <class T> static __device__ __forceinline__ unic_exact<T> unic_exactly(T x) {
  if constexpr (unic_is_integer<T>) return x;
  else return unic_widen(x);
}

/* What turns the order round: for the smallest by way of the largest. */
template <class W> static __host__ __device__ __forceinline__ W unic_opposite(W x) {
  if constexpr (unic_is_integer<W>) return ~x;   /* without overflow */
  else return -x;
}

/* N elements from an address aligned for them, widened; and back, rounded, or added to what is there. */
template <int N, class T> static __device__ __forceinline__ void unic_load(const T *from, unic_wide<T> *to) {
  unic_pack<T, N> p = *(const unic_pack<T, N> *)from;
#pragma unroll
  for (int j = 0; j < N; j++) to[j] = unic_widen(p.at[j]);
}
template <int N, class T> static __device__ __forceinline__ void unic_store(T *to, const unic_wide<T> *from, int accumulate = 0) {
  unic_pack<T, N> p = {};
  if (accumulate) p = *(const unic_pack<T, N> *)to;
#pragma unroll
  for (int j = 0; j < N; j++) p.at[j] = unic_narrow<T>(accumulate ? unic_widen(p.at[j]) + from[j] : from[j]);
  *(unic_pack<T, N> *)to = p;
}

/* The sum over groups of `width` neighbouring lanes (a power of two, 32 at most), known to all of them; every lane of the warp takes part. */
template <class W> static __device__ __forceinline__ W unic_group_sum(W v, int width) {
  for (int o = width >> 1; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}

/* The sum of n elements as a tree: with n a power of two, unrolled. */
template <int N, class W> static __device__ __forceinline__ W unic_tree_sum(const W *v) {
  if constexpr (N == 1) return v[0];
  else return unic_tree_sum<N / 2>(v) + unic_tree_sum<N - N / 2>(v + N / 2);
}

#endif
