/* Losses of one element each on the GPU: what bce_with_logits.cu and pointwise_loss.cu share.
 *
 * A loss is a structure F<W> with device functions loss(x, t, i) and gradient<SIDE>(x, t, i), SIDE 0 of x, 1 of the target; i is the element's number.
 * Elements go 16 bytes at a time where x, target and what is written are aligned. Sums: every block adds up its chunk, which the number of elements
 * alone cuts, in f64 past 8 elements of a thread; one block adds up the chunks' sums in order. x and target are read once, a gradient is written once. */
#ifndef UNIC_LOSSES_CUH
#define UNIC_LOSSES_CUH

#include "rows.cuh"

enum { UNIC_LOSS_THREADS = 256, UNIC_LOSS_PIECE = UNIC_LOSS_THREADS * 8, UNIC_LOSS_CHUNKS = 1024 };

/* Elements of a chunk: whole pieces, and not more than so many chunks. */
static inline int64_t unic_loss_chunk(int64_t n) {
  int64_t chunk = (n + UNIC_LOSS_CHUNKS - 1) / UNIC_LOSS_CHUNKS;
  if (chunk < 1) chunk = 1;
  return (chunk + UNIC_LOSS_PIECE - 1) / UNIC_LOSS_PIECE * UNIC_LOSS_PIECE;
}
static inline int64_t unic_loss_chunks(int64_t n) {
  int64_t chunk = unic_loss_chunk(n);
  return (n + chunk - 1) / chunk;
}

/* Elements begin .. end-1 of x and target: f(i, x[V], t[V]); V at a time, then one by one. Begin is a multiple of V. */
template <class T, int V, class F> static __device__ __forceinline__ void unic_loss_each(const T *x, const T *target, int64_t begin, int64_t end, int t, int step, F f) {
  using W = unic_wide<T>;
  const int64_t stop = begin + (end - begin) / V * V;
  for (int64_t i = begin + (int64_t)t * V; i < stop; i += (int64_t)step * V) {
    W xs[V], ts[V];
    unic_load_wide<T, V>(x + i, xs);
    unic_load_wide<T, V>(target + i, ts);
    f(i, xs, ts);
  }
  for (int64_t i = stop + t; i < end; i += step) {
    W xs[1] = {unic_widen(x[i])}, ts[1] = {unic_widen(target[i])};
    f(i, xs, ts);
  }
}

/* The 1: rather fewer threads on a processor than the few bytes that ptxas would spill for a full one (sm_120). */
template <class T, int V, class F> __global__ void __launch_bounds__(UNIC_LOSS_THREADS, 1) unic_loss_sums(F f, const T *x, const T *target, int64_t n, int64_t chunk, double *sums) {
  using W = unic_wide<T>;
  UNIC_SHARED(double, room, [32]);
  const int64_t begin = blockIdx.x * chunk, end = begin + chunk < n ? begin + chunk : n;
  double total = 0;
  unic_loss_each<T, V>(x, target, begin, end, threadIdx.x, UNIC_LOSS_THREADS, [&]<int M>(int64_t i, const W(&xs)[M], const W(&ts)[M]) {
    W sum = 0;
#pragma unroll
    for (int j = 0; j < M; j++) sum += f.loss(xs[j], ts[j], i + j);
    total += (double)sum;
  });
  total = unic_block_sum(total, room);
  if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

/* The chunks' sums by `parts`. */
template <class W> static __global__ void __launch_bounds__(UNIC_LOSS_THREADS) unic_loss_total(const double *sums, int64_t chunks, double parts, W *to) {
  UNIC_SHARED(double, room, [32]);
  double total = 0;
  for (int64_t i = threadIdx.x; i < chunks; i += UNIC_LOSS_THREADS) total += sums[i];
  total = unic_block_sum(total, room);
  if (threadIdx.x == 0) *to = (W)(total / parts);
}

template <class T, int V, class F> __global__ void unic_loss_elements(F f, const T *x, const T *target, int64_t n, unic_wide<T> *each) {
  using W = unic_wide<T>;
  unic_loss_each<T, V>(x, target, 0, n, blockIdx.x * blockDim.x + threadIdx.x, gridDim.x * blockDim.x, [&]<int M>(int64_t i, const W(&xs)[M], const W(&ts)[M]) {
    W out[M];
#pragma unroll
    for (int j = 0; j < M; j++) out[j] = f.loss(xs[j], ts[j], i + j);
    unic_store_wide<W, M>(each + i, out);
  });
}

/* dloss: one value, which is divided by `parts`, or (each) one per element. */
template <class T, int V, int SIDE, class F>
__global__ void unic_loss_gradient(F f, const T *x, const T *target, int64_t n, const unic_wide<T> *dloss, bool each, double parts, T *to, bool accumulate) {
  using W = unic_wide<T>;
  const W all = each ? W(0) : (W)((double)*dloss / parts);
  unic_loss_each<T, V>(x, target, 0, n, blockIdx.x * blockDim.x + threadIdx.x, gridDim.x * blockDim.x, [&]<int M>(int64_t i, const W(&xs)[M], const W(&ts)[M]) {
    W out[M], own[M];
    if (each) unic_load_wide<W, M>(dloss + i, own);
#pragma unroll
    for (int j = 0; j < M; j++) out[j] = f.template gradient<SIDE>(xs[j], ts[j], i + j) * (each ? own[j] : all);
    unic_store_wide<T, M>(to + i, out, accumulate);
  });
}

/* ---------------------------------------------------------------- host; inputs are positions 0 and 1, the loss is output 0 */

/* Reduced: sum / parts into the loss, by way of scratch (8 bytes a chunk). Otherwise every element's own. */
template <class T, class F> static inline void unic_loss_forward(const unic_kernel *k, const F &f, bool each, double parts) {
  using W = unic_wide<T>;
  constexpr int V = unic_vector<T>;
  const T *x = (const T *)k->in[0].data, *target = (const T *)k->in[1].data;
  const int64_t n = k->in[0].numel, chunk = unic_loss_chunk(n), chunks = unic_loss_chunks(n);
  const bool wide = unic_aligned16(x, target, k->out[0].data);
  cudaStream_t stream = unic_cuda_stream(k);
  if (each) {
    W *to = (W *)k->out[0].data;
    if (n == 0) return;
    if (wide) UNIC_LAUNCH((unic_loss_elements<T, V, F>), unic_blocks(k, (n + V - 1) / V, UNIC_LOSS_THREADS), UNIC_LOSS_THREADS, 0, stream, f, x, target, n, to);
    else UNIC_LAUNCH((unic_loss_elements<T, 1, F>), unic_blocks(k, n, UNIC_LOSS_THREADS), UNIC_LOSS_THREADS, 0, stream, f, x, target, n, to);
    return;
  }
  double *sums = (double *)k->scratch;
  if (n > 0 && unic_aligned16(x, target)) UNIC_LAUNCH((unic_loss_sums<T, V, F>), (unsigned)chunks, UNIC_LOSS_THREADS, 0, stream, f, x, target, n, chunk, sums);
  else if (n > 0) UNIC_LAUNCH((unic_loss_sums<T, 1, F>), (unsigned)chunks, UNIC_LOSS_THREADS, 0, stream, f, x, target, n, chunk, sums);
  UNIC_LAUNCH((unic_loss_total<W>), 1, UNIC_LOSS_THREADS, 0, stream, sums, chunks, parts, (W *)k->out[0].data);
}

template <class T, int SIDE, class F> static inline void unic_loss_backward(const unic_kernel *k, const F &f, bool each, double parts) {
  using W = unic_wide<T>;
  constexpr int V = unic_vector<T>;
  const T *x = (const T *)k->in[0].data, *target = (const T *)k->in[1].data;
  const W *dloss = (const W *)k->dout[0].data;
  T *to = (T *)k->din[SIDE].data;
  const int64_t n = k->in[0].numel;
  if (n == 0 || !to) return;
  const bool add = k->accumulate[SIDE];
  if (unic_aligned16(x, target, to) && (!each || unic_aligned16(dloss)))
    UNIC_LAUNCH((unic_loss_gradient<T, V, SIDE, F>), unic_blocks(k, (n + V - 1) / V, UNIC_LOSS_THREADS), UNIC_LOSS_THREADS, 0, unic_cuda_stream(k), f, x, target, n, dloss, each, parts, to, add);
  else
    UNIC_LAUNCH((unic_loss_gradient<T, 1, SIDE, F>), unic_blocks(k, n, UNIC_LOSS_THREADS), UNIC_LOSS_THREADS, 0, unic_cuda_stream(k), f, x, target, n, dloss, each, parts, to, add);
}

/* 1 / (1 + exp(-x)) without overflow, and log(1 + exp(-|x|)) + max(-x, 0) = -log sigmoid(x). */
template <class W> static __device__ __forceinline__ W unic_sigmoid_of(W x) {
  const W e = exp(-fabs(x)), big = W(1) / (W(1) + e);
  return x < 0 ? e * big : x >= 0 ? big : x;
}
template <class W> static __device__ __forceinline__ W unic_softplus_below(W x) { return log1p(exp(-fabs(x))) + (x < 0 ? -x : W(0)); }

#endif
