/* Multi-tensor kernels on the GPU (kernels/multi.h): one launch over lists of tensors (parameters, gradients, moments).
 *
 * The addresses of as many tensors as fit into 4 KB of kernel arguments go with a launch (88 for four lists), so a model of hundreds takes a few. Tensors
 * are cut into chunks of UNIC_MULTI_CHUNK elements, a block takes one, and finds its tensor by halving. Lists that share a dense layout are walked flat,
 * 16 bytes of each at a time; a tensor whose lists lie differently (strides.h) has launches of its own and goes element by element.
 * Position 0 are parameters and positions 2 and on what is kept for them, all of the wide type; position 1 are gradients of any floating type (of lists
 * of one position alone, position 0). Sums are one f64 per chunk, added up in order: no bits depend on the device. */
#ifndef UNIC_MULTI_CUH
#define UNIC_MULTI_CUH

#include "rows.cuh"
#include "strides.h"

enum { UNIC_MULTI_CHUNK = 8192, UNIC_MULTI_THREADS = 256 };

/* What one launch is told of N lists. */
template <int N> struct unic_multi {
  static constexpr int MOST = (4096 - 256) / (8 * N + 19);   /* the rest is for further arguments */
  int32_t count;
  int64_t chunk;                     /* number of its first chunk among those of all launches */
  void *data[N][MOST];
  int64_t numel[MOST];
  int32_t index[MOST], first[MOST];  /* position in the list; number of its first chunk in this launch */
  uint8_t dtype[MOST], wide[MOST], small[MOST];   /* of the gradient; 16 bytes at a time; at most one dimension */
};

static inline int64_t unic_multi_chunks_of(int64_t numel) { return (numel + UNIC_MULTI_CHUNK - 1) / UNIC_MULTI_CHUNK; }
/* Chunks of a list of tensors, for plans. */
static inline int64_t unic_multi_chunks(const unic_view *list, int64_t n) {
  int64_t chunks = 0;
  for (int64_t i = 0; i < n; i++) chunks += unic_multi_chunks_of(list[i].numel);
  return chunks;
}

/* Call launch(m, chunks, walk) until all tensors have had their turn; walk is NULL, or the one tensor's (w->operands = N) whose lists lie differently. */
template <int N, class F> static inline void unic_multi_launch(int64_t n, unic_view *const (&lists)[N], F launch) {
  unic_multi<N> m, alone;
  unic_walk walk;
  int64_t chunks = 0;                /* of this launch */
  m.count = 0;
  m.chunk = 0;
  for (int64_t i = 0; i < n; i++) {
    const unic_view *views[N];
    for (int o = 0; o < N; o++) views[o] = &lists[o][i];
    if (views[0]->numel == 0) continue;
    unic_walk_init(&walk, N, views);
    const bool flat = unic_walk_flat(&walk);
    const int64_t own = unic_multi_chunks_of(walk.numel);
    if (m.count && (!flat || m.count == unic_multi<N>::MOST || chunks + own > 1 << 30)) {
      launch(m, (unsigned)chunks, (const unic_walk *)nullptr);
      m.chunk += chunks;
      m.count = 0;
      chunks = 0;
    }
    unic_multi<N> *to = flat ? &m : &alone;
    int t = flat ? m.count++ : 0;
    uintptr_t low = 0;
    for (int o = 0; o < N; o++) {
      to->data[o][t] = views[o]->data;
      low |= (uintptr_t)views[o]->data;
    }
    to->numel[t] = walk.numel;
    to->index[t] = (int32_t)i;
    to->first[t] = flat ? (int32_t)chunks : 0;
    to->dtype[t] = views[N > 1 ? 1 : 0]->dtype;
    to->wide[t] = flat && (low & 15) == 0;
    to->small[t] = views[0]->ndim <= 1;
    if (flat) {
      chunks += own;
    } else {
      alone.count = 1;
      alone.chunk = m.chunk;
      launch(alone, (unsigned)own, (const unic_walk *)&walk);
      m.chunk += own;
    }
  }
  if (m.count) launch(m, (unsigned)chunks, (const unic_walk *)nullptr);
}

/* ---------------------------------------------------------------- on the device */

/* The tensor of this block's chunk, and the chunk's elements [*begin, *end). */
template <int N> static __device__ __forceinline__ int unic_multi_find(const unic_multi<N> &m, int64_t *begin, int64_t *end) {
  int low = 0, high = m.count - 1;
  while (low < high) {
    int middle = (low + high + 1) / 2;
    if (m.first[middle] <= (int)blockIdx.x) low = middle;
    else high = middle - 1;
  }
  *begin = (int64_t)((int)blockIdx.x - m.first[low]) * UNIC_MULTI_CHUNK;
  *end = *begin + UNIC_MULTI_CHUNK < m.numel[low] ? *begin + UNIC_MULTI_CHUNK : m.numel[low];
  return low;
}

/* V elements of any floating type from element `at` on. */
template <class W, int V> static __device__ __forceinline__ void unic_load_any(const void *p, int dtype, int64_t at, W (&v)[V]) {
  if (dtype == UNIC_F32) {
    float x[V];
    unic_load_wide<float, V>((const float *)p + at, x);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = (W)x[i];
  } else if (dtype == UNIC_BF16) {
    float x[V];
    unic_load_wide<__nv_bfloat16, V>((const __nv_bfloat16 *)p + at, x);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = (W)x[i];
  } else if (dtype == UNIC_F16) {
    float x[V];
    unic_load_wide<__half, V>((const __half *)p + at, x);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = (W)x[i];
  } else {
    double x[V];
    unic_load_wide<double, V>((const double *)p + at, x);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = (W)x[i];
  }
}

/* Where element i of a walk lies in each of N operands. */
template <int N> static __device__ __forceinline__ void unic_walk_places(const unic_walk &w, int64_t i, int64_t (&at)[N]) {
#pragma unroll
  for (int o = 0; o < N; o++) at[o] = 0;
#pragma unroll 1
  for (int d = w.ndim - 1; d >= 0; d--) {
    const int64_t above = i / w.shape[d], r = i - above * w.shape[d];
#pragma unroll
    for (int o = 0; o < N; o++) at[o] += r * w.stride[o][d];
    i = above;
  }
}

/* V elements: parameters and what is kept for them read, changed by op(p, g, kept), and written. */
template <class OP, int N, int V> static __device__ __forceinline__ void unic_multi_step(const unic_multi<N> &m, int t, const OP &op, const int64_t (&at)[N]) {
  using W = typename OP::wide;
  constexpr int KEPT = N > 2 ? N - 2 : 1;
  W p[V], g[V], kept[KEPT][V];
  unic_load_wide<W, V>((const W *)m.data[0][t] + at[0], p);
  unic_load_any<W, V>(m.data[1][t], m.dtype[t], at[1], g);
#pragma unroll
  for (int s = 0; s < N - 2; s++) unic_load_wide<W, V>((const W *)m.data[2 + s][t] + at[2 + s], kept[s]);
#pragma unroll
  for (int i = 0; i < V; i++) {
    W one[KEPT];
#pragma unroll
    for (int s = 0; s < N - 2; s++) one[s] = kept[s][i];
    op(p[i], g[i], one);
#pragma unroll
    for (int s = 0; s < N - 2; s++) kept[s][i] = one[s];
  }
  unic_store_wide<W, V>((W *)m.data[0][t] + at[0], p);
#pragma unroll
  for (int s = 0; s < N - 2; s++) unic_store_wide<W, V>((W *)m.data[2 + s][t] + at[2 + s], kept[s]);
}

/* op.start(tensor, small) says whether anything changes (and looks up what it needs); then op(p, g, kept) for every element. */
template <class OP, int N> __global__ void __launch_bounds__(UNIC_MULTI_THREADS) unic_multi_update(UNIC_ARGUMENT unic_multi<N> m, OP given) {
  constexpr int V = unic_vector<typename OP::wide>;
  OP op = given;
  int64_t begin, end, at[N];
  const int t = unic_multi_find(m, &begin, &end);
  if (!op.start(m.index[t], m.small[t])) return;
  const int64_t stop = m.wide[t] ? begin + (end - begin) / V * V : begin;
  for (int64_t i = begin + threadIdx.x * V; i < stop; i += UNIC_MULTI_THREADS * V) {
#pragma unroll
    for (int o = 0; o < N; o++) at[o] = i;
    unic_multi_step<OP, N, V>(m, t, op, at);
  }
  for (int64_t i = stop + threadIdx.x; i < end; i += UNIC_MULTI_THREADS) {
#pragma unroll
    for (int o = 0; o < N; o++) at[o] = i;
    unic_multi_step<OP, N, 1>(m, t, op, at);
  }
}

template <class OP, int N> __global__ void __launch_bounds__(UNIC_MULTI_THREADS) unic_multi_update_strided(UNIC_ARGUMENT unic_multi<N> m, UNIC_ARGUMENT unic_walk w, OP given) {
  OP op = given;
  int64_t begin, end, at[N];
  const int t = unic_multi_find(m, &begin, &end);
  if (!op.start(m.index[t], m.small[t])) return;
  for (int64_t i = begin + threadIdx.x; i < end; i += UNIC_MULTI_THREADS) {
    unic_walk_places<N>(w, i, at);
    unic_multi_step<OP, N, 1>(m, t, op, at);
  }
}

/* V elements: op.add(sum, p, g). */
template <class OP, int N, int V> static __device__ __forceinline__ void unic_multi_add(const unic_multi<N> &m, int t, const OP &op, const int64_t (&at)[N], double (&sum)[OP::sums]) {
  using W = typename OP::wide;
  W p[V], g[V];
  if constexpr (N > 1) unic_load_wide<W, V>((const W *)m.data[0][t] + at[0], p);
  unic_load_any<W, V>(m.data[N > 1 ? 1 : 0][t], m.dtype[t], at[N > 1 ? 1 : 0], g);
#pragma unroll
  for (int i = 0; i < V; i++) op.add(sum, N > 1 ? p[i] : W(0), g[i]);
}

template <class OP, int N> static __device__ __forceinline__ void unic_multi_store_sums(const unic_multi<N> &m, double (&sum)[OP::sums], double *room, double *sums) {
#pragma unroll
  for (int j = 0; j < OP::sums; j++) {
    const double all = unic_block_sum(sum[j], room);
    if (threadIdx.x == 0) sums[(m.chunk + blockIdx.x) * OP::sums + j] = all;
  }
}

/* OP::sums numbers per chunk into sums[chunk][OP::sums]. */
template <class OP, int N> __global__ void __launch_bounds__(UNIC_MULTI_THREADS) unic_multi_sums(UNIC_ARGUMENT unic_multi<N> m, OP given, double *sums) {
  constexpr int V = 16 / sizeof(typename OP::wide);
  UNIC_SHARED(double, room, [32]);
  OP op = given;
  int64_t begin, end, at[N];
  const int t = unic_multi_find(m, &begin, &end);
  double sum[OP::sums] = {};
  op.start(m.index[t], m.small[t]);
  const int64_t stop = m.wide[t] ? begin + (end - begin) / V * V : begin;
  for (int64_t i = begin + threadIdx.x * V; i < stop; i += UNIC_MULTI_THREADS * V) {
#pragma unroll
    for (int o = 0; o < N; o++) at[o] = i;
    unic_multi_add<OP, N, V>(m, t, op, at, sum);
  }
  for (int64_t i = stop + threadIdx.x; i < end; i += UNIC_MULTI_THREADS) {
#pragma unroll
    for (int o = 0; o < N; o++) at[o] = i;
    unic_multi_add<OP, N, 1>(m, t, op, at, sum);
  }
  unic_multi_store_sums<OP, N>(m, sum, room, sums);
}

template <class OP, int N> __global__ void __launch_bounds__(UNIC_MULTI_THREADS) unic_multi_sums_strided(UNIC_ARGUMENT unic_multi<N> m, UNIC_ARGUMENT unic_walk w, OP given, double *sums) {
  UNIC_SHARED(double, room, [32]);
  OP op = given;
  int64_t begin, end, at[N];
  const int t = unic_multi_find(m, &begin, &end);
  double sum[OP::sums] = {};
  op.start(m.index[t], m.small[t]);
  for (int64_t i = begin + threadIdx.x; i < end; i += UNIC_MULTI_THREADS) {
    unic_walk_places<N>(w, i, at);
    unic_multi_add<OP, N, 1>(m, t, op, at, sum);
  }
  unic_multi_store_sums<OP, N>(m, sum, room, sums);
}

/* The sums of n chunks, known to all threads of the block. */
template <int SUMS> static __device__ __forceinline__ void unic_multi_join(const double *sums, int64_t n, double *room, double (&all)[SUMS]) {
#pragma unroll
  for (int j = 0; j < SUMS; j++) {
    double sum = 0;
    for (int64_t c = threadIdx.x; c < n; c += blockDim.x) sum += sums[c * SUMS + j];
    all[j] = unic_block_sum(sum, room);
  }
}

/* A block per tensor of the launch: op.total(tensor, small, its sums). */
template <class OP, int N> __global__ void __launch_bounds__(UNIC_MULTI_THREADS) unic_multi_totals(UNIC_ARGUMENT unic_multi<N> m, OP op, const double *sums) {
  UNIC_SHARED(double, room, [32]);
  const int t = blockIdx.x;
  double all[OP::sums];
  unic_multi_join<OP::sums>(sums + (m.chunk + m.first[t]) * OP::sums, (m.numel[t] + UNIC_MULTI_CHUNK - 1) / UNIC_MULTI_CHUNK, room, all);
  if (threadIdx.x == 0) op.total(m.index[t], m.small[t], all);
}

/* ---------------------------------------------------------------- launches */

template <class OP, int N> static inline void unic_multi_launch_update(const unic_kernel *k, const unic_multi<N> &m, unsigned chunks, const unic_walk *w, const OP &op) {
  if (w) UNIC_LAUNCH((unic_multi_update_strided<OP, N>), chunks, UNIC_MULTI_THREADS, 0, unic_cuda_stream(k), m, *w, op);
  else UNIC_LAUNCH((unic_multi_update<OP, N>), chunks, UNIC_MULTI_THREADS, 0, unic_cuda_stream(k), m, op);
}
template <class OP, int N> static inline void unic_multi_launch_sums(const unic_kernel *k, const unic_multi<N> &m, unsigned chunks, const unic_walk *w, const OP &op, double *sums) {
  if (w) UNIC_LAUNCH((unic_multi_sums_strided<OP, N>), chunks, UNIC_MULTI_THREADS, 0, unic_cuda_stream(k), m, *w, op, sums);
  else UNIC_LAUNCH((unic_multi_sums<OP, N>), chunks, UNIC_MULTI_THREADS, 0, unic_cuda_stream(k), m, op, sums);
}

#endif
