/* softmax, log_softmax on the GPU (kernels/softmax.c). x is seen in memory as [outer, n, inner] with the dimension in the middle.
 *
 * Rows (inner = 1) of up to 1024 elements (f64: 256) are held in the registers of one warp: x read once, y written once, 16 bytes at a time where rows
 * are aligned; longer ones belong to a block, which reads them twice (running maximum and sum, then the values). Otherwise 32 neighbouring columns by
 * 8 threads each, twice too. The backward is the same with one sum: of y dy, or of dy for the logarithm. Sums in f32 (f64 in f64), in trees. */
#include "reduce.cuh"
#include "strides.h"

namespace {

enum { X, DIM };
enum { Y };
enum { LONG_ROW = 512, COLUMNS = 32, PARTS = 8 };   /* threads for a long row; threads along and across the columns */

/* ---------------------------------------------------------------- rows in registers: lane l has elements (32 j + l) V .. + V - 1 */

template <class T, int E, int V> __global__ void short_rows(const T *x, T *y, int64_t rows, int n, bool logarithm) {
  using W = unic_wide<T>;
  const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  for (int64_t row = blockIdx.x * (int64_t)warps + (threadIdx.x >> 5); row < rows; row += (int64_t)gridDim.x * warps) {
    W v[E] = {}, most = -INFINITY, sum = 0;
#pragma unroll
    for (int j = 0; j < E; j += V) {
      int at = 32 * j + lane * V;
      if (at < n) unic_load<V>(x + row * n + at, v + j);
#pragma unroll
      for (int l = 0; l < V; l++) if (at < n) most = v[j + l] > most ? v[j + l] : most;
    }
    most = unic_warp_max(most);
#pragma unroll
    for (int j = 0; j < E; j++) {
      if (32 * (j - j % V) + lane * V >= n) continue;
      W e = unic_exp(v[j] - most);
      sum += e;
      v[j] = logarithm ? v[j] - most : e;
    }
    sum = unic_warp_sum(sum);
    const W by = logarithm ? unic_log(sum) : 1 / sum;
#pragma unroll
    for (int j = 0; j < E; j += V) {
      int at = 32 * j + lane * V;
      if (at >= n) continue;
#pragma unroll
      for (int l = 0; l < V; l++) v[j + l] = logarithm ? v[j + l] - by : v[j + l] * by;
      unic_store<V>(y + row * n + at, v + j);
    }
  }
}

template <class T, int E, int V> __global__ void short_rows_backward(const T *y, const T *dy, T *dx, int64_t rows, int n, bool logarithm, int accumulate) {
  using W = unic_wide<T>;
  const int lane = threadIdx.x & 31, warps = blockDim.x >> 5;
  for (int64_t row = blockIdx.x * (int64_t)warps + (threadIdx.x >> 5); row < rows; row += (int64_t)gridDim.x * warps) {
    W v[E] = {}, d[E] = {}, sum = 0;
#pragma unroll
    for (int j = 0; j < E; j += V) {
      int at = 32 * j + lane * V;
      if (at >= n) continue;
      unic_load<V>(y + row * n + at, v + j);
      unic_load<V>(dy + row * n + at, d + j);
#pragma unroll
      for (int l = 0; l < V; l++) sum += logarithm ? d[j + l] : v[j + l] * d[j + l];
    }
    sum = unic_warp_sum(sum);
#pragma unroll
    for (int j = 0; j < E; j += V) {
      int at = 32 * j + lane * V;
      if (at >= n) continue;
#pragma unroll
      for (int l = 0; l < V; l++) v[j + l] = logarithm ? d[j + l] - unic_exp(v[j + l]) * sum : v[j + l] * (d[j + l] - sum);
      unic_store<V>(dx + row * n + at, v + j, accumulate);
    }
  }
}

/* ---------------------------------------------------------------- the maximum so far, and the sum of exp(x - maximum) */

template <class W> __device__ __forceinline__ void take(W x, W &most, W &sum) {
  if (x > most) {
    sum = sum * unic_exp(most - x) + 1;
    most = x;
  } else if (x != -INFINITY) {   /* exp(-inf) is 0, and -inf - -inf is not a number */
    sum += unic_exp(x - most);
  }
}
/* A sum against another maximum. */
template <class W> __device__ __forceinline__ W against(W sum, W most, W all) { return most == all ? sum : sum * unic_exp(most - all); }

/* ---------------------------------------------------------------- a block for a row */

template <class T, int V> __global__ void long_rows(const T *x, T *y, int64_t rows, int64_t n, bool logarithm) {
  using W = unic_wide<T>;
  UNIC_SHARED(W, room, [32]);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const T *from = x + row * n;
    W v[V], most = -INFINITY, sum = 0;
    for (int64_t at = (int64_t)threadIdx.x * V; at < n; at += LONG_ROW * V) {
      unic_load<V>(from + at, v);
#pragma unroll
      for (int l = 0; l < V; l++) take(v[l], most, sum);
    }
    const W all = unic_block_max(most, room);
    sum = unic_block_sum(against(sum, most, all), room);
    const W by = logarithm ? unic_log(sum) : 1 / sum;
    for (int64_t at = (int64_t)threadIdx.x * V; at < n; at += LONG_ROW * V) {
      unic_load<V>(from + at, v);
#pragma unroll
      for (int l = 0; l < V; l++) v[l] = logarithm ? v[l] - all - by : unic_exp(v[l] - all) * by;
      unic_store<V>(y + row * n + at, v);
    }
  }
}

template <class T, int V> __global__ void long_rows_backward(const T *y, const T *dy, T *dx, int64_t rows, int64_t n, bool logarithm, int accumulate) {
  using W = unic_wide<T>;
  UNIC_SHARED(W, room, [32]);
  for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
    W v[V], d[V], sum = 0;
    for (int64_t at = (int64_t)threadIdx.x * V; at < n; at += LONG_ROW * V) {
      unic_load<V>(dy + row * n + at, d);
      if (!logarithm) unic_load<V>(y + row * n + at, v);
#pragma unroll
      for (int l = 0; l < V; l++) d[l] = logarithm ? d[l] : v[l] * d[l];
      sum += unic_tree_sum<V>(d);
    }
    sum = unic_block_sum(sum, room);
    for (int64_t at = (int64_t)threadIdx.x * V; at < n; at += LONG_ROW * V) {
      unic_load<V>(y + row * n + at, v);
      unic_load<V>(dy + row * n + at, d);
#pragma unroll
      for (int l = 0; l < V; l++) v[l] = logarithm ? d[l] - unic_exp(v[l]) * sum : v[l] * (d[l] - sum);
      unic_store<V>(dx + row * n + at, v, accumulate);
    }
  }
}

/* ---------------------------------------------------------------- columns: thread (i, p) has elements p, p + PARTS, ... of its column */

template <class T> __global__ void columns(const T *x, T *y, int64_t outer, int64_t n, int64_t inner, bool logarithm) {
  using W = unic_wide<T>;
  UNIC_SHARED(W, mosts, [PARTS][COLUMNS]);
  UNIC_SHARED(W, sums, [PARTS][COLUMNS]);
  const int i = threadIdx.x, part = threadIdx.y;
  const int64_t blocks = (inner + COLUMNS - 1) / COLUMNS;
  for (int64_t item = blockIdx.x; item < outer * blocks; item += gridDim.x) {
    const int64_t slab = item / blocks, column = (item - slab * blocks) * COLUMNS + i, first = slab * n * inner + column;
    const bool mine = column < inner;
    W most = -INFINITY, sum = 0;
    if (mine) for (int64_t j = part; j < n; j += PARTS) take(unic_widen(x[first + j * inner]), most, sum);
    mosts[part][i] = most;
    sums[part][i] = sum;
    __syncthreads();
    W all = mosts[0][i];
#pragma unroll
    for (int p = 1; p < PARTS; p++) all = unic_larger(all, mosts[p][i]);
    sum = 0;
#pragma unroll
    for (int p = 0; p < PARTS; p++) sum += against(sums[p][i], mosts[p][i], all);
    __syncthreads();
    const W by = logarithm ? unic_log(sum) : 1 / sum;
    if (!mine) continue;
    for (int64_t j = part; j < n; j += PARTS) {
      W v = unic_widen(x[first + j * inner]) - all;
      y[first + j * inner] = unic_narrow<T>(logarithm ? v - by : unic_exp(v) * by);
    }
  }
}

template <class T> __global__ void columns_backward(const T *y, const T *dy, T *dx, int64_t outer, int64_t n, int64_t inner, bool logarithm, int accumulate) {
  using W = unic_wide<T>;
  UNIC_SHARED(W, sums, [PARTS][COLUMNS]);
  const int i = threadIdx.x, part = threadIdx.y;
  const int64_t blocks = (inner + COLUMNS - 1) / COLUMNS;
  for (int64_t item = blockIdx.x; item < outer * blocks; item += gridDim.x) {
    const int64_t slab = item / blocks, column = (item - slab * blocks) * COLUMNS + i, first = slab * n * inner + column;
    const bool mine = column < inner;
    W sum = 0;
    if (mine)
      for (int64_t j = part; j < n; j += PARTS) {
        W d = unic_widen(dy[first + j * inner]);
        sum += logarithm ? d : unic_widen(y[first + j * inner]) * d;
      }
    sums[part][i] = sum;
    __syncthreads();
    W all[PARTS];
#pragma unroll
    for (int p = 0; p < PARTS; p++) all[p] = sums[p][i];
    sum = unic_tree_sum<PARTS>(all);
    __syncthreads();
    if (!mine) continue;
    for (int64_t j = part; j < n; j += PARTS) {
      const int64_t at = first + j * inner;
      W v = unic_widen(y[at]), d = unic_widen(dy[at]), g = logarithm ? d - unic_exp(v) * sum : v * (d - sum);
      dx[at] = unic_narrow<T>(accumulate ? unic_widen(dx[at]) + g : g);
    }
  }
}

/* ---------------------------------------------------------------- which of them */

/* [outer, n, inner] of a dense tensor around one of its dimensions. */
void around(const unic_view *v, int64_t dim, int64_t *outer, int64_t *n, int64_t *inner) {
  int d = unic_dim_of(dim, v->ndim);
  *n = v->shape[d];
  *inner = *n > 1 ? v->stride[d] : 1;
  *outer = *n * *inner > 0 ? v->numel / (*n * *inner) : 0;
}

template <class T, int E, int V> void run_short(const unic_kernel *k, const T *y, const T *dy, T *to, int64_t rows, int64_t n, bool logarithm) {
  unsigned grid = unic_blocks(k, rows * 32, 128);
  if (k->backward) UNIC_LAUNCH((short_rows_backward<T, E, V>), grid, 128, 0, unic_cuda_stream(k), y, dy, to, rows, (int)n, logarithm, (int)k->accumulate[X]);
  else UNIC_LAUNCH((short_rows<T, E, V>), grid, 128, 0, unic_cuda_stream(k), y, to, rows, (int)n, logarithm);
}

template <class T, int V> void run_rows(const unic_kernel *k, const T *y, const T *dy, T *to, int64_t rows, int64_t n, bool logarithm) {
  if (n <= 256) return run_short<T, 8, V>(k, y, dy, to, rows, n, logarithm);
  if constexpr (sizeof(T) < 8)
    if (n <= 1024) return run_short<T, 32, V>(k, y, dy, to, rows, n, logarithm);
  unsigned grid = unic_blocks(k, rows * LONG_ROW, LONG_ROW);
  if (k->backward) UNIC_LAUNCH((long_rows_backward<T, V>), grid, LONG_ROW, 0, unic_cuda_stream(k), y, dy, to, rows, n, logarithm, (int)k->accumulate[X]);
  else UNIC_LAUNCH((long_rows<T, V>), grid, LONG_ROW, 0, unic_cuda_stream(k), y, to, rows, n, logarithm);
}

unic_status run(const unic_kernel *k, bool logarithm) {
  int64_t outer, n, inner;
  around(&k->in[X], k->arg[DIM].integer, &outer, &n, &inner);
  if (k->in[X].numel == 0) return UNIC_OK;
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    constexpr int V = unic_vector<T>;
    const T *from = (const T *)(k->backward ? k->out[Y].data : k->in[X].data), *dy = (const T *)(k->backward ? k->dout[Y].data : nullptr);
    T *to = (T *)(k->backward ? k->din[X].data : k->out[Y].data);
    if (inner == 1) {
      if (n % V == 0 && unic_aligned16(from, dy, to)) run_rows<T, V>(k, from, dy, to, outer, n, logarithm);
      else run_rows<T, 1>(k, from, dy, to, outer, n, logarithm);
      return;
    }
    dim3 block(COLUMNS, PARTS);
    unsigned grid = unic_blocks(k, outer * ((inner + COLUMNS - 1) / COLUMNS) * COLUMNS * PARTS, COLUMNS * PARTS);
    if (k->backward) UNIC_LAUNCH((columns_backward<T>), grid, block, 0, unic_cuda_stream(k), from, dy, to, outer, n, inner, logarithm, (int)k->accumulate[X]);
    else UNIC_LAUNCH((columns<T>), grid, block, 0, unic_cuda_stream(k), from, to, outer, n, inner, logarithm);
  });
  return UNIC_OK;
}

unic_status plain(const unic_kernel *k) { return run(k, false); }
unic_status logarithmic(const unic_kernel *k) { return run(k, true); }

}

UNIC_CUDA_OPS(softmax, {"softmax", {.forward = plain, .backward = plain}}, {"log_softmax", {.forward = logarithmic, .backward = logarithmic}});
