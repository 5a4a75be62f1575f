/* argmax, argmin on the GPU (kernels/argmax.c): the place of the largest (smallest) element along a dimension; the first of equals, and of NaNs, wins.
 *
 * Where the searched elements lie closest together a group of 1 to 256 threads takes a line, otherwise neighbouring threads take neighbouring lines, and 8
 * of them share one. x is read once. A pair (value, place) wins over another by its value, then by the smaller place: the result depends on no order. */
#include "reduce.cuh"

namespace {

enum { X, DIM, KEEPDIM };
enum { THREADS = 256, COLUMNS = 32, PARTS = THREADS / COLUMNS };

template <class W> struct found {
  W value;
  long long at;            /* -1: nothing yet */
};

template <class W> __device__ __forceinline__ found<W> better(found<W> a, found<W> b) {
  if (a.at < 0 || b.at < 0) return a.at < 0 ? b : a;
  const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
  if (a_nan != b_nan) return a_nan ? a : b;
  if (!a_nan && a.value != b.value) return a.value > b.value ? a : b;
  return a.at < b.at ? a : b;
}

template <class W> __device__ __forceinline__ found<W> from_lane(found<W> v, int mask) {
  return {__shfl_xor_sync(0xffffffffu, v.value, mask), __shfl_xor_sync(0xffffffffu, v.at, mask)};
}

template <class T> __global__ void search_rows(const T *x, unic_axes<1> lines, int64_t length, int64_t stride, int width, bool smallest, long long *to) {
  using W = unic_exact<T>;
  UNIC_SHARED(W, values, [32]);
  UNIC_SHARED(long long, places, [32]);
  const int groups = THREADS / width, lane = threadIdx.x & (width - 1), group = threadIdx.x / width;
  for (int64_t begin = (int64_t)blockIdx.x * groups; begin < lines.count; begin += (int64_t)gridDim.x * groups) {
    const int64_t line = begin + group;
    const bool mine = line < lines.count;
    const T *row = x + (mine ? unic_axes_at(lines, line) : 0);
    found<W> best = {0, -1};
    for (int64_t i = lane; mine && i < length; i += width) {
      W v = unic_exactly(row[i * stride]);
      best = better(best, {smallest ? unic_opposite(v) : v, i});
    }
    for (int o = (width < 32 ? width : 32) >> 1; o; o >>= 1) best = better(best, from_lane(best, o));
    if (width > 32) {
      const int warps = width >> 5;
      if ((lane & 31) == 0) { values[lane >> 5] = best.value; places[lane >> 5] = best.at; }
      __syncthreads();
      best = {values[(lane & 31) % warps], places[(lane & 31) % warps]};
      for (int o = warps >> 1; o; o >>= 1) best = better(best, from_lane(best, o));
      __syncthreads();
    }
    if (lane == 0 && mine) to[line] = best.at;
  }
}

template <class T> __global__ void search_columns(const T *x, unic_axes<1> lines, int64_t length, int64_t stride, bool smallest, long long *to) {
  using W = unic_exact<T>;
  UNIC_SHARED(W, values, [PARTS][COLUMNS]);
  UNIC_SHARED(long long, places, [PARTS][COLUMNS]);
  const int tx = threadIdx.x, part = threadIdx.y;
  for (int64_t begin = (int64_t)blockIdx.x * COLUMNS; begin < lines.count; begin += (int64_t)gridDim.x * COLUMNS) {
    const int64_t line = begin + tx;
    const bool mine = line < lines.count;
    const T *column = x + (mine ? unic_axes_at(lines, line) : 0);
    found<W> best = {0, -1};
    for (int64_t i = part; mine && i < length; i += PARTS) {
      W v = unic_exactly(column[i * stride]);
      best = better(best, {smallest ? unic_opposite(v) : v, i});
    }
    values[part][tx] = best.value;
    places[part][tx] = best.at;
    __syncthreads();
    if (part == 0 && mine) {
#pragma unroll
      for (int p = 1; p < PARTS; p++) best = better(best, {values[p][tx], places[p][tx]});
      to[line] = best.at;
    }
    __syncthreads();
  }
}

unic_status search(const unic_kernel *k, bool smallest) {
  const unic_view *x = &k->in[X];
  if (k->out[0].numel == 0) return UNIC_OK;
  const int dim = unic_dim_of(k->arg[DIM].integer, x->ndim);
  const unic_view *const views[1] = {x};
  const unic_axes<1> lines = unic_axes_of(unic_other_dims(x->ndim, dim), views);
  const int64_t length = x->shape[dim], stride = x->stride[dim];
  bool inside = true;
  for (int d = 0; d < x->ndim; d++) inside = inside && (d == dim || x->shape[d] == 1 || llabs(x->stride[d]) >= llabs(stride));
  unic_types(x->dtype, [&](auto t) {
    using T = decltype(t);
    const T *from = (const T *)x->data;
    long long *to = (long long *)k->out[0].data;
    if (inside) {
      int width = 1;
      while (width < 32 && width < length) width *= 2;
      if (length > 2048) width = THREADS;
      UNIC_LAUNCH((search_rows<T>), unic_blocks(k, lines.count * width, THREADS), THREADS, 0, unic_cuda_stream(k), from, lines, length, stride, width, smallest, to);
    } else {
      UNIC_LAUNCH((search_columns<T>), unic_blocks(k, (lines.count + COLUMNS - 1) / COLUMNS * THREADS, THREADS), dim3(COLUMNS, PARTS), 0, unic_cuda_stream(k), from, lines, length, stride,
                  smallest, to);
    }
  });
  return UNIC_OK;
}

unic_status argmax_forward(const unic_kernel *k) { return search(k, false); }
unic_status argmin_forward(const unic_kernel *k) { return search(k, true); }

}

UNIC_CUDA_OPS(argmax, {"argmax", {.forward = argmax_forward}}, {"argmin", {.forward = argmin_forward}});
