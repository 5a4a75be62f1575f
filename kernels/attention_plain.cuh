/* Attention of any type and depth, no tiles: f64, and depths above 128. A block of 128 threads makes one query (or key) and up to 512 of its columns;
 * scores and weights are made by one thread per pair, 128 pairs at a time, and again for every 512 columns. */
#ifndef UNIC_ATTENTION_PLAIN_CUH
#define UNIC_ATTENTION_PLAIN_CUH

#include "attention.cuh"

namespace {

constexpr int PLAIN_THREADS = 128, PLAIN_EACH = 4, PLAIN_COLUMNS = PLAIN_THREADS * PLAIN_EACH;

/* The product of two rows, in four sums. */
template <class T> __device__ __forceinline__ unic_wide<T> plain_product(const side<T> &x, int i, const side<T> &y, int j, int depth) {
  using W = unic_wide<T>;
  const T *p = x.data + i * x.row, *q = y.data + j * y.row;
  W s[4] = {};
  int d = 0;
  for (; d + 4 <= depth; d += 4)
#pragma unroll
    for (int e = 0; e < 4; e++) s[e] += unic_widen(p[(d + e) * x.col]) * unic_widen(q[(d + e) * y.col]);
  for (; d < depth; d++) s[0] += unic_widen(p[d * x.col]) * unic_widen(q[d * y.col]);
  return s[0] + s[1] + (s[2] + s[3]);
}

/* A score; -inf when the query may not attend to the key. */
template <class T> __device__ __forceinline__ unic_wide<T> plain_score(const attention &a, const side<T> &q, const side<T> &k, int b, int h, int i, int j) {
  using W = unic_wide<T>;
  if (a.causal && j > i) return -W(INFINITY);
  W s = (W)a.scale * plain_product(q, i, k, j, a.depth);
  if (!a.mask) return s;
  W m = mask_value<W>(a, b * a.mask_batch + h * a.mask_head + i * a.mask_query + j);
  return a.mask_chooses && m < 0 ? m : s + m;
}

/* 1/(1 - dropout) or 0. */
template <class W> __device__ __forceinline__ W plain_kept(const attention &a, int head, int i, int j) {
  if (!a.threshold) return 1;
  return unic_random_bits((uint64_t)a.state[0], (uint64_t)a.state[1], ((int64_t)head * a.queries + i) * a.keys + j) < a.threshold ? W(0) : (W)a.keep;
}

/* Sums of a block's columns: column (c) of thread t is at(c). */
struct plain_columns {
  int first, depth;
  __device__ __forceinline__ int at(int c) const { return first + c * PLAIN_THREADS + (int)threadIdx.x; }
  /* acc[c] += sum over `count` weights of weight[j] x[row + j][column] */
  template <class T> __device__ __forceinline__ void add(unic_wide<T> (&acc)[PLAIN_EACH], const unic_wide<T> *weight, const side<T> &x, int row, int count) const {
#pragma unroll
    for (int c = 0; c < PLAIN_EACH; c++) {
      int d = at(c);
      if (d >= depth) continue;
      const T *p = x.data + row * x.row + d * x.col;
      unic_wide<T> s = 0;
      for (int j = 0; j < count; j++) s += weight[j] * unic_widen(p[j * x.row]);
      acc[c] += s;
    }
  }
  template <class T> __device__ __forceinline__ void store(const side<T> &x, int row, const unic_wide<T> (&acc)[PLAIN_EACH], unic_wide<T> factor, bool accumulate) const {
#pragma unroll
    for (int c = 0; c < PLAIN_EACH; c++) {
      int d = at(c);
      if (d >= depth) continue;
      T *p = x.data + row * x.row + d * x.col;
      *p = unic_narrow<T>(accumulate ? unic_widen(*p) + acc[c] * factor : acc[c] * factor);
    }
  }
};

template <class T> __global__ void __launch_bounds__(PLAIN_THREADS, 2) attention_plain_forward(const attention a) {
  using W = unic_wide<T>;
  UNIC_SHARED(W, weights, [PLAIN_THREADS]);
  UNIC_SHARED(W, room, [32]);
  int chunks = a.blocks, i = blockIdx.x / chunks % a.queries, head = blockIdx.x / chunks / a.queries, b = head / a.heads, h = head % a.heads;
  plain_columns columns = {(int)(blockIdx.x % chunks) * PLAIN_COLUMNS, a.depth};
  side<T> q = side_of<T>(a.q, b, h), k = side_of<T>(a.k, b, h), v = side_of<T>(a.v, b, h);
  int n = keys_needed<PLAIN_THREADS>(a, b, h, i);
  W most = -W(INFINITY), sum = 0, acc[PLAIN_EACH] = {};
  for (int first = 0; first < n; first += PLAIN_THREADS) {
    int j = first + threadIdx.x, count = min(PLAIN_THREADS, n - first);
    W s = j < n ? plain_score(a, q, k, b, h, i, j) : -W(INFINITY), m = unic_larger(most, unic_block_max(s, room));
    W from = m == -W(INFINITY) ? W(0) : m, p = exp(s - from), shrink = exp(most - from);
    most = m;
    sum = sum * shrink + unic_block_sum(p, room);
    weights[threadIdx.x] = j < n ? p * plain_kept<W>(a, head, i, j) : 0;
    __syncthreads();
#pragma unroll
    for (int c = 0; c < PLAIN_EACH; c++) acc[c] *= shrink;
    columns.add(acc, weights, v, first, count);
    __syncthreads();
  }
  columns.store(side_of<T>(a.y, b, h), i, acc, sum == 0 ? W(0) : W(1) / sum, false);
  if (a.lse && columns.first == 0 && threadIdx.x == 0) ((W *)a.lse)[(int64_t)head * a.queries + i] = sum == 0 ? W(INFINITY) : most + log(sum);
}

template <class T> __global__ void __launch_bounds__(PLAIN_THREADS, 2) attention_plain_backward_q(const attention a) {
  using W = unic_wide<T>;
  UNIC_SHARED(W, weights, [PLAIN_THREADS]);
  UNIC_SHARED(W, room, [32]);
  int chunks = a.blocks, i = blockIdx.x / chunks % a.queries, head = blockIdx.x / chunks / a.queries, b = head / a.heads, h = head % a.heads;
  plain_columns columns = {(int)(blockIdx.x % chunks) * PLAIN_COLUMNS, a.depth};
  side<T> q = side_of<T>(a.q, b, h), k = side_of<T>(a.k, b, h), v = side_of<T>(a.v, b, h), dy = side_of<T>(a.dy, b, h);
  int n = keys_needed<PLAIN_THREADS>(a, b, h, i);
  W lse = ((const W *)a.lse)[(int64_t)head * a.queries + i], sum = 0, acc[PLAIN_EACH] = {};
  for (int j = threadIdx.x; j < n; j += PLAIN_THREADS)
    sum += exp(plain_score(a, q, k, b, h, i, j) - lse) * plain_kept<W>(a, head, i, j) * plain_product(dy, i, v, j, a.depth);
  sum = unic_block_sum(sum, room);
  if (columns.first == 0 && threadIdx.x == 0) ((W *)a.sums)[(int64_t)head * a.queries + i] = sum;
  if (!a.dq.data) return;
  for (int first = 0; first < n; first += PLAIN_THREADS) {
    int j = first + threadIdx.x, count = min(PLAIN_THREADS, n - first);
    if (j < n) weights[threadIdx.x] = exp(plain_score(a, q, k, b, h, i, j) - lse) * (plain_kept<W>(a, head, i, j) * plain_product(dy, i, v, j, a.depth) - sum);
    __syncthreads();
    columns.add(acc, weights, k, first, count);
    __syncthreads();
  }
  columns.store(side_of<T>(a.dq, b, h), i, acc, (W)a.scale, a.accumulate_q);
}

template <class T> __global__ void __launch_bounds__(PLAIN_THREADS, 2) attention_plain_backward_kv(const attention a) {
  using W = unic_wide<T>;
  UNIC_SHARED(W, weights, [PLAIN_THREADS]);
  UNIC_SHARED(W, slopes, [PLAIN_THREADS]);
  int chunks = a.blocks, j = blockIdx.x / chunks % a.keys, head = blockIdx.x / chunks / a.keys, b = head / a.heads, h = head % a.heads;
  plain_columns columns = {(int)(blockIdx.x % chunks) * PLAIN_COLUMNS, a.depth};
  side<T> q = side_of<T>(a.q, b, h), k = side_of<T>(a.k, b, h), v = side_of<T>(a.v, b, h), dy = side_of<T>(a.dy, b, h);
  bool needed = j < keys_needed<PLAIN_THREADS>(a, b, h, a.queries - 1), want_k = a.dk.data;
  W acc_k[PLAIN_EACH] = {}, acc_v[PLAIN_EACH] = {};
  for (int first = a.causal ? j : 0; needed && first < a.queries; first += PLAIN_THREADS) {
    int i = first + threadIdx.x, count = min(PLAIN_THREADS, a.queries - first);
    if (i < a.queries) {
      int64_t at = (int64_t)head * a.queries + i;
      W p = exp(plain_score(a, q, k, b, h, i, j) - ((const W *)a.lse)[at]), kept = plain_kept<W>(a, head, i, j);
      weights[threadIdx.x] = p * kept;
      if (want_k) slopes[threadIdx.x] = p * (kept * plain_product(dy, i, v, j, a.depth) - ((const W *)a.sums)[at]);
    }
    __syncthreads();
    if (a.dv.data) columns.add(acc_v, weights, dy, first, count);
    if (want_k) columns.add(acc_k, slopes, q, first, count);
    __syncthreads();
  }
  if (want_k) columns.store(side_of<T>(a.dk, b, h), j, acc_k, (W)a.scale, a.accumulate_k);
  if (a.dv.data) columns.store(side_of<T>(a.dv, b, h), j, acc_v, W(1), a.accumulate_v);
}

template <class T> unic_status plain_forward(const unic_kernel *k, attention a) {
  a.blocks = (a.depth + PLAIN_COLUMNS - 1) / PLAIN_COLUMNS;
  UNIC_LAUNCH((attention_plain_forward<T>), (unsigned)(a.batches * a.heads * a.queries * a.blocks), PLAIN_THREADS, 0, unic_cuda_stream(k), a);
  return UNIC_OK;
}

template <class T> unic_status plain_backward(const unic_kernel *k, attention a) {
  a.blocks = (a.depth + PLAIN_COLUMNS - 1) / PLAIN_COLUMNS;
  unsigned heads = (unsigned)(a.batches * a.heads);
  if (a.queries > 0 && (a.dq.data || a.dk.data))
    UNIC_LAUNCH((attention_plain_backward_q<T>), heads * (unsigned)(a.queries * a.blocks), PLAIN_THREADS, 0, unic_cuda_stream(k), a);
  if (a.keys > 0 && (a.dk.data || a.dv.data))
    UNIC_LAUNCH((attention_plain_backward_kv<T>), heads * (unsigned)(a.keys * a.blocks), PLAIN_THREADS, 0, unic_cuda_stream(k), a);
  return UNIC_OK;
}

}

#endif
