/* cumsum on the GPU (kernels/cumsum.c): running sums along a dimension, and of dy from the other end.
 *
 * Where a line's elements lie closest together a warp (or a block, for long lines) takes it in tiles of four elements a thread: sums within threads, within
 * warps, between warps, and what the tiles before came to. Otherwise a thread takes a line and neighbouring threads neighbouring lines. Reads and writes
 * every element once. Sums of floats in f64, rounded element by element; integers to i64. */
#include "convert.cuh"
#include "reduce.cuh"

namespace {

enum { X, DIM };
enum { THREADS = 256, WARPS = THREADS / 32, ITEMS = 4 };

template <class T> using sum_of = std::conditional_t<unic_is_integer<T>, long long, double>;

template <class To, class S> __device__ __forceinline__ void give(To *to, S sum, int accumulate) {
  if constexpr (std::is_same_v<S, long long>) *to = sum;
  else *to = unic_convert<To>(accumulate ? (double)unic_widen(*to) + sum : sum);
}

/* lines: from, to. WIDE: a block for a line, otherwise a warp. */
template <class T, class To, bool WIDE>
__global__ void scan_lines(const T *from, To *to, unic_axes<2> lines, int64_t length, int64_t fs, int64_t ts, int accumulate) {
  using S = sum_of<T>;
  UNIC_SHARED(S, room, [WARPS]);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, threads = WIDE ? THREADS : 32, thread = WIDE ? (int)threadIdx.x : lane;
  const int64_t step = WIDE ? gridDim.x : (int64_t)gridDim.x * WARPS;
  for (int64_t line = WIDE ? blockIdx.x : blockIdx.x * (int64_t)WARPS + warp; line < lines.count; line += step) {
    int64_t at[2];
    unic_axes_find(lines, line, at);
    S before = 0;
    for (int64_t tile = 0; tile < length; tile += threads * ITEMS) {
      const int64_t first = tile + thread * ITEMS;
      S v[ITEMS];
#pragma unroll
      for (int j = 0; j < ITEMS; j++) {
        v[j] = first + j < length ? (S)unic_exactly(from[at[0] + (first + j) * fs]) : S(0);
        if (j > 0) v[j] += v[j - 1];
      }
      S sum = v[ITEMS - 1];
      for (int o = 1; o < 32; o *= 2) {
        S other = __shfl_up_sync(0xffffffffu, sum, o);
        if (lane >= o) sum += other;
      }
      S mine = __shfl_up_sync(0xffffffffu, sum, 1), total = __shfl_sync(0xffffffffu, sum, 31);
      mine = before + (lane > 0 ? mine : S(0));
      if (WIDE) {
        if (lane == 31) room[warp] = sum;
        __syncthreads();
        total = 0;
        for (int w = 0; w < WARPS; w++) {
          if (w == warp) mine += total;
          total += room[w];
        }
        __syncthreads();
      }
#pragma unroll
      for (int j = 0; j < ITEMS; j++)
        if (first + j < length) give(to + at[1] + (first + j) * ts, mine + v[j], accumulate);
      before += total;
    }
  }
}

template <class T, class To>
__global__ void thread_lines(const T *from, To *to, unic_axes<2> lines, int64_t length, int64_t fs, int64_t ts, int accumulate) {
  using S = sum_of<T>;
  for (int64_t line = blockIdx.x * (int64_t)THREADS + threadIdx.x; line < lines.count; line += (int64_t)gridDim.x * THREADS) {
    int64_t at[2];
    unic_axes_find(lines, line, at);
    S sum = 0;
    for (int64_t i = 0; i < length; i++) {
      sum += (S)unic_exactly(from[at[0] + i * fs]);
      give(to + at[1] + i * ts, sum, accumulate);
    }
  }
}

unic_status run(const unic_kernel *k) {
  const unic_view *from = k->backward ? &k->dout[0] : &k->in[X], *to = k->backward ? &k->din[X] : &k->out[0];
  if (to->numel == 0) return UNIC_OK;
  const int dim = unic_dim_of(k->arg[DIM].integer, from->ndim);
  const unic_view *const views[2] = {from, to};
  const unic_axes<2> lines = unic_axes_of(unic_other_dims(from->ndim, dim), views);
  const int64_t length = from->shape[dim], last = k->backward ? length - 1 : 0;   /* the backward begins at the end */
  int64_t fs = from->stride[dim], ts = to->stride[dim];
  const int accumulate = k->backward ? k->accumulate[X] : 0;
  bool inside = true;
  for (int d = 0; d < from->ndim; d++) inside = inside && (d == dim || from->shape[d] == 1 || llabs(from->stride[d]) >= llabs(fs));
  unic_types(from->dtype, [&](auto t) {
    using T = decltype(t);
    using To = std::conditional_t<unic_is_integer<T>, long long, T>;
    const T *x = (const T *)from->data + last * fs;
    To *y = (To *)to->data + last * ts;
    if (k->backward) { fs = -fs; ts = -ts; }
    cudaStream_t stream = unic_cuda_stream(k);
    if (!inside) UNIC_LAUNCH((thread_lines<T, To>), unic_blocks(k, lines.count, THREADS), THREADS, 0, stream, x, y, lines, length, fs, ts, accumulate);
    else if (length <= 512) UNIC_LAUNCH((scan_lines<T, To, false>), unic_blocks(k, lines.count * 32, THREADS), THREADS, 0, stream, x, y, lines, length, fs, ts, accumulate);
    else UNIC_LAUNCH((scan_lines<T, To, true>), unic_blocks(k, lines.count * THREADS, THREADS), THREADS, 0, stream, x, y, lines, length, fs, ts, accumulate);
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(cumsum, {"cumsum", {.forward = run, .backward = run}});
