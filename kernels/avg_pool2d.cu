/* avg_pool2d and global_avg_pool2d on the GPU (kernels/avg_pool2d.c). Windows: a thread makes V channels of one pixel, forward from its window, backward
 * from the windows that hold it (overlaps from the caches), written once. Global: a block takes the pixels of some channels of one image, threads above one
 * another every few pixels, joined in shared memory in a fixed order; x is read once. Backward: dx written once. f32 sums run over few pixels, and sums of sums. */
#include "pools.cuh"

namespace {

enum { X, KERNEL, STRIDE, PADDING, INCLUDE };
enum { Y };
enum { THREADS = 256 };

struct pool : unic_pool {
  bool include;   /* the padding counts in the mean */
};

/* First and last + 1 pixel of window o that exist in x. */
static __device__ __forceinline__ void window(const pool &p, int d, int o, int *first, int *last) {
  const int from = o * p.stride[d] - p.padding[d];
  *first = max(from, 0);
  *last = max(min(from + p.kernel[d], p.in[d]), *first);   /* a window may lie wholly in the padding */
}
template <class W> static __device__ __forceinline__ W share(const pool &p, int rows, int columns) {
  const int count = p.include ? p.kernel[0] * p.kernel[1] : rows * columns;
  return count > 0 ? W(1) / (W)count : W(0);
}

template <class T, int V> __global__ void __launch_bounds__(THREADS, 3) forward_kernel(pool p, const T *x, T *y) {
  using W = unic_wide<T>;
  for (int64_t n = blockIdx.y; n < p.images; n += gridDim.y)
    for (unsigned item = blockIdx.x * blockDim.x + threadIdx.x; item < p.items; item += gridDim.x * blockDim.x) {
      unsigned vector, j;
      const unsigned pixel = unic_divide_rest(item, p.vectors, &vector), i = unic_divide_rest(pixel, p.columns, &j);
      int h0, h1, w0, w1;
      window(p, 0, (int)i, &h0, &h1);
      window(p, 1, (int)j, &w0, &w1);
      const int c = (int)vector * V;
      const T *from = x + n * p.in[0] * p.in[1] * p.channels + c;
      W total[V], sum[V], value[V];
#pragma unroll
      for (int l = 0; l < V; l++) total[l] = 0;
      for (int h = h0; h < h1; h++) {   /* a line of the window after the other: sums stay short */
#pragma unroll
        for (int l = 0; l < V; l++) sum[l] = 0;
        for (int w = w0; w < w1; w++) {
          unic_get<T, V>(from + ((int64_t)h * p.in[1] + w) * p.channels, value);
#pragma unroll
          for (int l = 0; l < V; l++) sum[l] += value[l];
        }
#pragma unroll
        for (int l = 0; l < V; l++) total[l] += sum[l];
      }
      const W part = share<W>(p, h1 - h0, w1 - w0);
#pragma unroll
      for (int l = 0; l < V; l++) total[l] *= part;
      unic_put<T, V>(y + (n * p.out[0] * p.out[1] + pixel) * p.channels + c, total, false);
    }
}

template <class T, int V> __global__ void __launch_bounds__(THREADS, 3) gather_kernel(pool p, T *dx, const T *dy) {
  using W = unic_wide<T>;
  for (int64_t n = blockIdx.y; n < p.images; n += gridDim.y)
    for (unsigned item = blockIdx.x * blockDim.x + threadIdx.x; item < p.items; item += gridDim.x * blockDim.x) {
      unsigned vector, w;
      const unsigned pixel = unic_divide_rest(item, p.vectors, &vector), h = unic_divide_rest(pixel, p.columns, &w);
      const int c = (int)vector * V, below = (int)h + p.padding[0], right = (int)w + p.padding[1];
      const int i0 = below < p.kernel[0] ? 0 : (below - p.kernel[0]) / p.stride[0] + 1, i1 = min(below / p.stride[0], p.out[0] - 1);
      const int j0 = right < p.kernel[1] ? 0 : (right - p.kernel[1]) / p.stride[1] + 1, j1 = min(right / p.stride[1], p.out[1] - 1);
      W sum[V], value[V];
#pragma unroll
      for (int l = 0; l < V; l++) sum[l] = 0;
#pragma unroll 1
      for (int i = i0; i <= i1; i++) {
        int h0, h1;
        window(p, 0, i, &h0, &h1);
#pragma unroll 1
        for (int j = j0; j <= j1; j++) {
          int w0, w1;
          window(p, 1, j, &w0, &w1);
          const W part = share<W>(p, h1 - h0, w1 - w0);
          unic_get<T, V>(dy + ((n * p.out[0] + i) * p.out[1] + j) * p.channels + c, value);
#pragma unroll
          for (int l = 0; l < V; l++) sum[l] += value[l] * part;
        }
      }
      unic_put<T, V>(dx + (n * p.in[0] * p.in[1] + pixel) * p.channels + c, sum, p.add);
    }
}

/* Block (tile of channels, image): 1 << shift threads side by side. */
template <class T, int V> __global__ void __launch_bounds__(THREADS, 3) global_kernel(const T *x, T *y, int64_t images, int pixels, int channels, int shift) {
  using W = unic_wide<T>;
  UNIC_SHARED(W, sums, [THREADS * V]);
  const int across = 1 << shift, down = THREADS >> shift, side = threadIdx.x & (across - 1), row = threadIdx.x >> shift, c = (int)(blockIdx.x * across + side) * V, line = across * V;
  const W part = W(1) / (W)pixels;
  for (int64_t n = blockIdx.y; n < images; n += gridDim.y) {
    W sum[V], value[V];
#pragma unroll
    for (int l = 0; l < V; l++) sum[l] = 0;
    if (c < channels)
#pragma unroll 4
      for (int q = row; q < pixels; q += down) {
        unic_get<T, V>(x + (n * pixels + q) * channels + c, value);
#pragma unroll
        for (int l = 0; l < V; l++) sum[l] += value[l];
      }
#pragma unroll
    for (int l = 0; l < V; l++) sums[row * line + side * V + l] = sum[l];
    __syncthreads();
    for (int i = threadIdx.x; i < line; i += THREADS) {
      const int channel = (int)(blockIdx.x * across) * V + i;
      if (channel >= channels) continue;
      W total = 0;
      for (int d = 0; d < down; d++) total += sums[d * line + i];
      y[n * channels + channel] = unic_narrow<T>(total * part);
    }
    __syncthreads();
  }
}

template <class T, int V> __global__ void __launch_bounds__(THREADS, 3) spread_kernel(T *dx, const T *dy, int64_t images, int pixels, int channels, unic_divider vectors, unsigned items, bool add) {
  using W = unic_wide<T>;
  const W part = W(1) / (W)pixels;
  for (int64_t n = blockIdx.y; n < images; n += gridDim.y)
    for (unsigned item = blockIdx.x * blockDim.x + threadIdx.x; item < items; item += gridDim.x * blockDim.x) {
      unsigned vector;
      const unsigned pixel = unic_divide_rest(item, vectors, &vector);
      W value[V];
      unic_get<T, V>(dy + n * channels + vector * V, value);
#pragma unroll
      for (int l = 0; l < V; l++) value[l] *= part;
      unic_put<T, V>(dx + (n * pixels + pixel) * channels + vector * V, value, add);
    }
}

pool pool_of(const unic_kernel *k, const unic_view *x, const unic_view *y, const unic_view *threads, int V) {
  return {unic_pool_of(x, y, threads, V, k->arg[KERNEL], k->arg[STRIDE], k->arg[PADDING]), (bool)k->arg[INCLUDE].integer};
}

unic_status avg_pool2d_forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *y = &k->out[Y];
  if (y->numel == 0) return UNIC_OK;
  unic_vectors(k->type, unic_channel_vectors(k->type, x->shape[1], (char *)x->data, (char *)y->data), [&](auto t, auto v) {
    using T = decltype(t);
    constexpr int V = decltype(v)::value;
    const pool p = pool_of(k, x, y, y, V);
    UNIC_LAUNCH((forward_kernel<T, V>), unic_image_grid(k, p.images, p.items, THREADS), THREADS, 0, unic_cuda_stream(k), p, (const T *)x->data, (T *)y->data);
  });
  return UNIC_OK;
}

unic_status avg_pool2d_backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X], *dy = &k->dout[Y];
  if (dx->numel == 0 || !dy->data) return unic_zero_gradient(k, X);
  unic_vectors(k->type, unic_channel_vectors(k->type, dx->shape[1], (char *)dx->data, (char *)dy->data), [&](auto t, auto v) {
    using T = decltype(t);
    constexpr int V = decltype(v)::value;
    pool p = pool_of(k, dx, dy, dx, V);
    p.add = k->accumulate[X];
    UNIC_LAUNCH((gather_kernel<T, V>), unic_image_grid(k, p.images, p.items, THREADS), THREADS, 0, unic_cuda_stream(k), p, (T *)dx->data, (const T *)dy->data);
  });
  return UNIC_OK;
}

unic_status global_avg_pool2d_forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *y = &k->out[Y];
  if (x->numel == 0) return UNIC_OK;
  unic_vectors(k->type, unic_channel_vectors(k->type, x->shape[1], (char *)x->data), [&](auto t, auto v) {
    using T = decltype(t);
    constexpr int V = decltype(v)::value;
    int channels = (int)x->shape[1], vectors = channels / V, shift = 0;
    while (shift < 5 && (1 << shift) < vectors) shift++;
    const dim3 grid((unsigned)((vectors + (1 << shift) - 1) >> shift), (unsigned)(x->shape[0] < 65535 ? x->shape[0] : 65535));
    UNIC_LAUNCH((global_kernel<T, V>), grid, THREADS, 0, unic_cuda_stream(k), (const T *)x->data, (T *)y->data, x->shape[0], (int)(x->shape[2] * x->shape[3]), channels, shift);
  });
  return UNIC_OK;
}

unic_status global_avg_pool2d_backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X], *dy = &k->dout[Y];
  if (dx->numel == 0 || !dy->data) return unic_zero_gradient(k, X);
  unic_vectors(k->type, unic_channel_vectors(k->type, dx->shape[1], (char *)dx->data, (char *)dy->data), [&](auto t, auto v) {
    using T = decltype(t);
    constexpr int V = decltype(v)::value;
    int channels = (int)dx->shape[1], pixels = (int)(dx->shape[2] * dx->shape[3]);
    const unsigned items = (unsigned)pixels * (unsigned)(channels / V);
    UNIC_LAUNCH((spread_kernel<T, V>), unic_image_grid(k, dx->shape[0], items, THREADS), THREADS, 0, unic_cuda_stream(k), (T *)dx->data, (const T *)dy->data, dx->shape[0], pixels, channels,
                unic_divider_of(channels / V), items, (bool)k->accumulate[X]);
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(avg_pool2d, {"avg_pool2d", {.forward = avg_pool2d_forward, .backward = avg_pool2d_backward}},
              {"global_avg_pool2d", {.forward = global_avg_pool2d_forward, .backward = global_avg_pool2d_backward}});
