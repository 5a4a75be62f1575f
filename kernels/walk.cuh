/* Element-wise kernels over tensors of any strides on the GPU: to[i] = f(from0[i], from1[i], ...) along a walk (strides.h).
 *
 * One kernel serves every layout. A thread takes `unit` elements at a time: V neighbours (16 bytes of the widest operand) where the output's innermost
 * row is dense, a whole number of units long and aligned; one element otherwise, so that neighbouring threads still touch neighbouring memory. Each
 * operand is then read in its own way: 16 bytes at once, one element for all (broadcast), or by its stride. Places are found by multiplications with
 * precomputed reciprocals, in 32 bits; the host cuts a walk that does not fit into 31 bits. Every byte is read and written once, and the value of an
 * element does not depend on how the work was cut. */
#ifndef UNIC_WALK_CUH
#define UNIC_WALK_CUH

#include "cuda.cuh"
#include "strides.h"

#include <type_traits>
#include <utility>

enum { UNIC_MAP_THREADS = 256 };

/* ---------------------------------------------------------------- division by what the host knows */

struct unic_divider { uint32_t by, multiply, shift; };

/* For dividends below 2^31; by >= 1. */
static inline unic_divider unic_divider_of(uint32_t by) {
  uint32_t shift = 0;
  while (((uint64_t)1 << shift) < by) shift++;
  return {by, (uint32_t)((((uint64_t)1 << 32) * (((uint64_t)1 << shift) - by)) / by + 1), shift};
}
static __host__ __device__ __forceinline__ uint32_t unic_divide(uint32_t n, const unic_divider &d) {
  return ((uint32_t)(((uint64_t)n * d.multiply) >> 32) + n) >> d.shift;
}

/* ---------------------------------------------------------------- what a kernel is told */

enum { UNIC_GET_WIDE, UNIC_GET_REPEATED, UNIC_GET_STRIDED, UNIC_GET_NOTHING };

/* Where N operands lie; dimensions from the innermost outwards. */
template <int N> struct unic_places {
  uint32_t numel;                        /* elements */
  uint32_t units;                        /* pieces of `unit` elements; the last one of a flat walk may be shorter */
  int32_t unit, ndim;
  unic_divider shape[UNIC_MAX_RANK];     /* of the innermost dimension in units */
  int32_t stride[N][UNIC_MAX_RANK];      /* per step of that */
  int32_t inner[N];                      /* from one element of a unit to the next */
  uint8_t mode[N];
};

/* The first element of unit i of each operand. */
template <int N> static __device__ __forceinline__ void unic_places_find(const unic_places<N> &s, uint32_t i, int32_t (&at)[N]) {
#pragma unroll
  for (int o = 0; o < N; o++) at[o] = 0;
#pragma unroll
  for (int d = 0; d < UNIC_MAX_RANK; d++) {
    if (d == s.ndim - 1) {
#pragma unroll
      for (int o = 0; o < N; o++) at[o] += (int32_t)i * s.stride[o][d];
      break;
    }
    uint32_t q = unic_divide(i, s.shape[d]);
    int32_t r = (int32_t)(i - q * s.shape[d].by);
#pragma unroll
    for (int o = 0; o < N; o++) at[o] += r * s.stride[o][d];
    i = q;
  }
}

/* Elements of a unit. */
template <int N> static __device__ __forceinline__ int unic_places_count(const unic_places<N> &s, uint32_t i) {
  uint32_t left = s.numel - i * (uint32_t)s.unit;
  return left < (uint32_t)s.unit ? (int)left : s.unit;
}

template <class T, int V> struct unic_row { T at[V]; };

/* n of V elements from p on; the others are 0. */
template <int V, class T> static __device__ __forceinline__ unic_row<T, V> unic_get(const T *p, int mode, int32_t inner, int n) {
  unic_row<T, V> row;
  if (mode == UNIC_GET_WIDE && n == V) {
    unic_pack<T, V> pack = *reinterpret_cast<const unic_pack<T, V> *>(p);
#pragma unroll
    for (int j = 0; j < V; j++) row.at[j] = pack.at[j];
  } else if (mode == UNIC_GET_NOTHING) {
#pragma unroll
    for (int j = 0; j < V; j++) row.at[j] = T(0.0f);
  } else {
    /* One element for all is read with a step of 0. */
#pragma unroll
    for (int j = 0; j < V; j++) {
      if (j < n) row.at[j] = p[j * inner];
      else row.at[j] = T(0.0f);
    }
  }
  return row;
}
template <int V, class T> static __device__ __forceinline__ void unic_put(T *p, int mode, int32_t inner, int n, const unic_row<T, V> &row) {
  if (mode == UNIC_GET_WIDE && n == V) {
    unic_pack<T, V> pack;
#pragma unroll
    for (int j = 0; j < V; j++) pack.at[j] = row.at[j];
    *reinterpret_cast<unic_pack<T, V> *>(p) = pack;
  } else {
#pragma unroll
    for (int j = 0; j < V; j++)
      if (j < n) p[j * inner] = row.at[j];
  }
}

/* ---------------------------------------------------------------- the kernel */

/* f gives a value of type To, which is stored as it is, or a wide one, which is rounded after what is there was added (accumulate). */
template <int V, class F, class To, int N, class... Row>
static __device__ __forceinline__ void unic_map_unit(const F &f, const unic_places<N> &s, int accumulate, To *to, int n, const Row &...row) {
  using result = decltype(f(row.at[0]...));
  unic_row<To, V> out;
  if constexpr (std::is_same_v<result, To> && !std::is_same_v<To, float> && !std::is_same_v<To, double>) {
#pragma unroll
    for (int j = 0; j < V; j++) out.at[j] = f(row.at[j]...);
  } else {
    unic_row<To, V> old = unic_get<V>(to, accumulate ? s.mode[0] : (int)UNIC_GET_NOTHING, s.inner[0], n);
#pragma unroll
    for (int j = 0; j < V; j++) {
      unic_wide<To> value = f(row.at[j]...);
      out.at[j] = unic_narrow<To>(accumulate ? unic_widen(old.at[j]) + value : value);
    }
  }
  unic_put<V>(to, s.mode[0], s.inner[0], n, out);
}

template <int V, class F, class To, class... From, size_t... o>
static __device__ __forceinline__ void unic_map_at(const F &f, const unic_places<1 + sizeof...(From)> &s, int accumulate, uint32_t i, std::index_sequence<o...>, To *to, const From *...from) {
  int32_t at[1 + sizeof...(From)];
  unic_places_find(s, i, at);
  int n = unic_places_count(s, i);
  unic_map_unit<V>(f, s, accumulate, to + at[0], n, unic_get<V>(from + at[1 + o], s.mode[1 + o], s.inner[1 + o], n)...);
}

template <int V, class F, class To, class... From>
__global__ void __launch_bounds__(UNIC_MAP_THREADS) unic_map_kernel(F f, unic_places<1 + sizeof...(From)> s, int accumulate, To *to, const From *...from) {
  for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < s.units; i += gridDim.x * blockDim.x)
    unic_map_at<V>(f, s, accumulate, i, std::index_sequence_for<From...>(), to, from...);
}

/* ---------------------------------------------------------------- on the host */

/* Whether elements and places of a walk fit into 31 bits; if not, the dimension to be halved. */
static inline bool unic_walk_fits(const unic_walk *w, int *cut) {
  const int64_t most = INT64_C(1) << 30;
  int64_t widest = 0;
  bool fits = w->numel <= most;
  for (int o = 0; o < w->operands; o++) {
    int64_t span = 0;
    for (int d = 0; d < w->ndim; d++) span += (w->stride[o][d] < 0 ? -w->stride[o][d] : w->stride[o][d]) * (w->shape[d] - 1);
    if (span > most) fits = false;
  }
  if (fits) return true;
  for (int d = 0; d < w->ndim; d++) {
    if (w->shape[d] < 2) continue;
    int64_t span = w->shape[d];
    for (int o = 0; o < w->operands; o++) {
      int64_t s = (w->stride[o][d] < 0 ? -w->stride[o][d] : w->stride[o][d]) * (w->shape[d] - 1);
      if (s > span) span = s;
    }
    if (span > widest) { widest = span; *cut = d; }
  }
  return false;
}

/* f(walk, where each operand begins) for pieces of a walk that fit into 31 bits: one, unless it is huge. */
template <class F> static void unic_walk_pieces(const unic_walk *w, const int64_t *begin, F f) {
  int cut = 0;
  if (unic_walk_fits(w, &cut)) {
    f(w, begin);
    return;
  }
  unic_walk half = *w;
  int64_t at[UNIC_WALK_OPERANDS] = {0}, n = w->shape[cut], first = n / 2;
  if (first > 64) first -= first % 64;   /* units stay whole */
  half.shape[cut] = first;
  half.numel = w->numel / n * first;
  unic_walk_pieces(&half, begin, f);
  half.shape[cut] = n - first;
  half.numel = w->numel / n * (n - first);
  for (int o = 0; o < w->operands; o++) at[o] = begin[o] + first * w->stride[o][cut];
  unic_walk_pieces(&half, at, f);
}

/* How operand o of a walk can be read when units are V elements of `size` bytes. */
static inline int unic_get_mode(const unic_walk *w, int o, const void *p, int size, int V) {
  int64_t inner = w->stride[o][w->ndim - 1], align = size * V < 16 ? size * V : 16;
  if (!p) return UNIC_GET_NOTHING;
  if (inner == 0) return UNIC_GET_REPEATED;
  if (inner != 1 || (uintptr_t)p % (uintptr_t)align) return UNIC_GET_STRIDED;
  for (int d = 0; d < w->ndim - 1; d++) if (w->stride[o][d] * size % align) return UNIC_GET_STRIDED;
  return UNIC_GET_WIDE;
}

/* A piece of a walk as the kernel wants it; p[o] and size[o]: the first element of each operand (NULL: there is none) and its bytes. */
template <int N> static inline unic_places<N> unic_places_of(const unic_walk *w, const void *const *p, const int *size, int V) {
  unic_places<N> s;
  int inner = w->ndim - 1;
  bool wide = V > 1 && (w->ndim == 1 || w->shape[inner] % V == 0);
  for (int o = 0; o < N; o++) {
    s.mode[o] = (uint8_t)unic_get_mode(w, o, p[o], size[o], V);
    /* A dense row that is not aligned is better read element by element, by neighbouring threads. */
    if (s.mode[o] == UNIC_GET_STRIDED && (o == 0 || w->stride[o][inner] == 1)) wide = false;
    if (o == 0 && s.mode[o] != UNIC_GET_WIDE) wide = false;
  }
  s.unit = wide ? V : 1;
  s.ndim = w->ndim;
  s.numel = (uint32_t)w->numel;
  s.units = (uint32_t)((w->numel + s.unit - 1) / s.unit);
  for (int d = 0; d < w->ndim; d++) {
    int from = inner - d;
    s.shape[d] = unic_divider_of((uint32_t)(d == 0 ? (w->shape[from] + s.unit - 1) / s.unit : w->shape[from]));
    for (int o = 0; o < N; o++) s.stride[o][d] = (int32_t)(w->stride[o][from] * (d == 0 ? s.unit : 1));
  }
  for (int o = 0; o < N; o++) s.inner[o] = (int32_t)w->stride[o][inner];
  return s;
}

template <class... T> constexpr int unic_widest() {
  int most = 1;
  ((most = (int)sizeof(T) > most ? (int)sizeof(T) : most), ...);
  return most;
}

/* to = (or +=) f(from...) along the walk, whose operands are to, from...; a NULL among from gives f zeros. */
template <class F, class To, class... From> static void unic_map(const unic_kernel *k, const unic_walk *w, int accumulate, F f, To *to, const From *...from) {
  constexpr int N = 1 + sizeof...(From), V = 16 / unic_widest<To, From...>();
  static_assert(N <= UNIC_WALK_OPERANDS);
  const int64_t begin[UNIC_WALK_OPERANDS] = {0};
  if (w->numel == 0) return;
  unic_walk_pieces(w, begin, [&](const unic_walk *piece, const int64_t *at) {
    const int size[N] = {(int)sizeof(To), (int)sizeof(From)...};
    [&]<size_t... o>(std::index_sequence<o...>) {
      To *first = to + at[0];
      const void *const places[N] = {first, (from ? from + at[1 + o] : nullptr)...};
      unic_places<N> s = unic_places_of<N>(piece, places, size, V);
      UNIC_LAUNCH((unic_map_kernel<V, F, To, From...>), unic_blocks(k, s.units, UNIC_MAP_THREADS), UNIC_MAP_THREADS, 0, unic_cuda_stream(k), f, s, accumulate, first,
                  (from ? from + at[1 + o] : nullptr)...);
    }(std::index_sequence_for<From...>());
  });
}

#endif
