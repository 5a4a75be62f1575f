/* l2_normalize on the GPU (kernels/l2_normalize.c), x in memory as [outer, n, inner].
 *
 * inner = 1: a vector belongs to a warp, or to a block when it is long; 16 bytes at a time. Otherwise a block takes 32 neighbouring vectors, eight threads
 * each. x (and dy) are read twice, the second time from cache where a vector fits there. Sums and quotients are f64, as on the CPU: any f32 vector has a
 * norm. The order of a sum depends on shapes alone. */
#include "rows.cuh"
#include "strides.h"

namespace {

enum { X, DIM, EPS };
enum { Y, NORM };
enum { BLOCK = 256, ROWS = 4, LONG = 2048 };

template <int GROUP> constexpr int threads_of = GROUP == 32 ? 32 * ROWS : BLOCK;

template <class T> struct vectors {
  const T *x, *dy;               /* dy NULL: forward */
  T *to;
  unic_wide<T> *norm;            /* forward: NULL when no gradient is needed */
  int64_t outer, n, inner;
  double eps;
  bool accumulate;
};

/* What a vector is multiplied by, and in backward the share of x that is taken off dy first. */
template <class T> __device__ __forceinline__ double factor_of(const vectors<T> &s, double norm, double *dot) {
  const bool live = norm > s.eps || norm != norm;
  const double f = 1 / (live ? norm : s.eps);
  *dot = live ? *dot * f * f : 0;
  return f;
}

template <class T, int GROUP, int V, bool BACKWARD> __global__ void __launch_bounds__(threads_of<GROUP>) normalize_rows(const vectors<T> s) {
  using W = unic_wide<T>;
  constexpr int PER = threads_of<GROUP> / GROUP;
  UNIC_SHARED(double, room, [32]);
  const int lane = threadIdx.x % GROUP;
  for (int64_t row = blockIdx.x * (int64_t)PER + threadIdx.x / GROUP; row < s.outer; row += (int64_t)gridDim.x * PER) {
    const T *x = s.x + row * s.n, *dy = s.dy + (BACKWARD ? row * s.n : 0);
    double sum = 0;
    unic_row_each<T, V>(x, s.n, lane, GROUP, [&]<int M>(int64_t c, const W(&v)[M]) {
      W g[M];
      if (BACKWARD) unic_load_wide<T, M>(dy + c, g);
#pragma unroll
      for (int i = 0; i < M; i++) sum += (double)v[i] * (double)(BACKWARD ? g[i] : v[i]);
    });
    sum = unic_group_sum<GROUP>(sum, room);
    double dot = BACKWARD ? sum : 0, norm = BACKWARD ? (double)s.norm[row] : sqrt(sum);
    const double f = factor_of(s, norm, &dot);
    if (!BACKWARD && s.norm && lane == 0) s.norm[row] = (W)norm;
    T *to = s.to + row * s.n;
    unic_row_each<T, V>(x, s.n, lane, GROUP, [&]<int M>(int64_t c, const W(&v)[M]) {
      W g[M], out[M];
      if (BACKWARD) unic_load_wide<T, M>(dy + c, g);
#pragma unroll
      for (int i = 0; i < M; i++) out[i] = (W)(BACKWARD ? ((double)g[i] - (double)v[i] * dot) * f : (double)v[i] * f);
      unic_store_wide<T, M>(to + c, out, BACKWARD && s.accumulate);
    });
  }
}

template <class T, bool BACKWARD> __global__ void __launch_bounds__(256) normalize_columns(const vectors<T> s) {
  using W = unic_wide<T>;
  UNIC_SHARED(double, part, [8][33]);
  const int lane = threadIdx.x & 31, turn = threadIdx.x >> 5;
  const int64_t blocks = (s.inner + 31) / 32;
  for (int64_t item = blockIdx.x; item < s.outer * blocks; item += gridDim.x) {
    const int64_t slab = item / blocks, column = (item - slab * blocks) * 32 + lane, at = slab * s.n * s.inner + column;
    const bool in = column < s.inner;
    double sum = 0;
    for (int64_t j = turn; in && j < s.n; j += 8) {
      const double v = (double)unic_widen(s.x[at + j * s.inner]);
      sum += BACKWARD ? v * (double)unic_widen(s.dy[at + j * s.inner]) : v * v;
    }
    part[turn][lane] = sum;
    __syncthreads();
    sum = 0;
    for (int i = 0; i < 8; i++) sum += part[i][lane];
    __syncthreads();
    double dot = BACKWARD ? sum : 0, norm = !BACKWARD ? sqrt(sum) : in ? (double)s.norm[slab * s.inner + column] : 0;
    const double f = factor_of(s, norm, &dot);
    if (!BACKWARD && s.norm && in && turn == 0) s.norm[slab * s.inner + column] = (W)norm;
    for (int64_t j = turn; in && j < s.n; j += 8) {
      const double v = (double)unic_widen(s.x[at + j * s.inner]);
      W out[1] = {(W)(BACKWARD ? ((double)unic_widen(s.dy[at + j * s.inner]) - v * dot) * f : v * f)};
      unic_store_wide<T, 1>(s.to + at + j * s.inner, out, BACKWARD && s.accumulate);
    }
  }
}

template <bool BACKWARD, int V, class T> void rows(const unic_kernel *k, const vectors<T> &s) {
  if (s.n > LONG) UNIC_LAUNCH((normalize_rows<T, BLOCK, V, BACKWARD>), unic_blocks(k, s.outer * BLOCK, threads_of<BLOCK>), threads_of<BLOCK>, 0, unic_cuda_stream(k), s);
  else UNIC_LAUNCH((normalize_rows<T, 32, V, BACKWARD>), unic_blocks(k, s.outer * 32, threads_of<32>), threads_of<32>, 0, unic_cuda_stream(k), s);
}

template <bool BACKWARD, class T> void run(const unic_kernel *k, vectors<T> s) {
  const unic_view *x = &k->in[X];
  const int d = unic_dim_of(k->arg[DIM].integer, x->ndim);
  if (x->numel == 0) return;
  s.n = x->shape[d];
  s.inner = s.n > 1 ? x->stride[d] : 1;
  s.outer = x->numel / (s.n * s.inner);
  s.eps = k->arg[EPS].number;
  if (s.inner > 1) {
    UNIC_LAUNCH((normalize_columns<T, BACKWARD>), unic_blocks(k, s.outer * ((s.inner + 31) / 32) * 256, 256), 256, 0, unic_cuda_stream(k), s);
    return;
  }
  /* Packs of all have the same boundaries, or there are none. */
  const uintptr_t apart = ((uintptr_t)s.x ^ (uintptr_t)s.to) | (BACKWARD ? (uintptr_t)s.x ^ (uintptr_t)s.dy : 0);
  if ((apart & 15) == 0) rows<BACKWARD, unic_vector<T>>(k, s);
  else rows<BACKWARD, 1>(k, s);
}

unic_status forward(const unic_kernel *k) {
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    run<false, T>(k, {.x = (const T *)k->in[X].data, .to = (T *)k->out[Y].data, .norm = k->grad ? (unic_wide<T> *)k->out[NORM].data : nullptr});
  });
  return UNIC_OK;
}

unic_status backward(const unic_kernel *k) {
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    run<true, T>(k, {.x = (const T *)k->in[X].data, .dy = (const T *)k->dout[Y].data, .to = (T *)k->din[X].data, .norm = (unic_wide<T> *)k->out[NORM].data, .accumulate = (bool)k->accumulate[X]});
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(l2_normalize, {"l2_normalize", {.forward = forward, .backward = backward}});
