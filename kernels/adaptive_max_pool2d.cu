/* adaptive_max_pool2d on the GPU (kernels/adaptive_max_pool2d.c). A thread makes V channels of one pixel: forward reads its window and writes y and the
 * index; backward gathers dy of the windows that hold the input pixel and were won by it, so that nothing is written twice. */
#include "pools.cuh"

namespace {

enum { X, SIZE };
enum { Y, INDEX };
enum { THREADS = 256 };

/* Window i of `out` over `in` pixels. */
static __device__ __forceinline__ int first_of(int in, int out, int i) { return (int)((int64_t)i * in / out); }
static __device__ __forceinline__ int end_of(int in, int out, int i) { return (int)(((int64_t)(i + 1) * in + out - 1) / out); }

template <class T, int V> __global__ void __launch_bounds__(THREADS, 2) forward_kernel(unic_pool p, const T *x, T *y, int *index) {
  using W = unic_wide<T>;
  for (int64_t n = blockIdx.y; n < p.images; n += gridDim.y)
    for (unsigned item = blockIdx.x * blockDim.x + threadIdx.x; item < p.items; item += gridDim.x * blockDim.x) {
      unsigned vector, j;
      const unsigned pixel = unic_divide_rest(item, p.vectors, &vector), i = unic_divide_rest(pixel, p.columns, &j);
      const int h0 = first_of(p.in[0], p.out[0], (int)i), h1 = end_of(p.in[0], p.out[0], (int)i);
      const int w0 = first_of(p.in[1], p.out[1], (int)j), w1 = end_of(p.in[1], p.out[1], (int)j), c = (int)vector * V;
      const T *from = x + n * p.in[0] * p.in[1] * p.channels + c;
      W best[V], value[V];
      int won[V];
      unic_get<T, V>(from + ((int64_t)h0 * p.in[1] + w0) * p.channels, best);
#pragma unroll
      for (int l = 0; l < V; l++) won[l] = h0 * p.in[1] + w0;
      for (int h = h0; h < h1; h++)
        for (int w = w0; w < w1; w++) {
          const int here = h * p.in[1] + w;
          unic_get<T, V>(from + (int64_t)here * p.channels, value);
          unic_pool_best(best, won, value, here);
        }
      const int64_t at = (n * p.out[0] * p.out[1] + pixel) * p.channels + c;
      unic_put<T, V>(y + at, best, false);
      if (index) {
#pragma unroll
        for (int l = 0; l < V; l++) index[at + l] = won[l];
      }
    }
}

/* Pixel h is in the windows floor(h Oh / H) .. ceil((h+1) Oh / H) - 1, whose borders are where i H / Oh crosses h. */
template <class T, int V> __global__ void __launch_bounds__(THREADS, 2) gather_kernel(unic_pool p, T *dx, const T *dy, const int *index) {
  using W = unic_wide<T>;
  for (int64_t n = blockIdx.y; n < p.images; n += gridDim.y)
    for (unsigned item = blockIdx.x * blockDim.x + threadIdx.x; item < p.items; item += gridDim.x * blockDim.x) {
      unsigned vector, w;
      const unsigned pixel = unic_divide_rest(item, p.vectors, &vector), h = unic_divide_rest(pixel, p.columns, &w);
      const int i0 = first_of(p.out[0], p.in[0], (int)h), i1 = end_of(p.out[0], p.in[0], (int)h);
      const int j0 = first_of(p.out[1], p.in[1], (int)w), j1 = end_of(p.out[1], p.in[1], (int)w), c = (int)vector * V;
      W sum[V], value[V];
#pragma unroll
      for (int l = 0; l < V; l++) sum[l] = 0;
      for (int i = i0; i < i1; i++)
        for (int j = j0; j < j1; j++) {
          const int64_t at = ((n * p.out[0] + i) * p.out[1] + j) * p.channels + c;
          unic_get<T, V>(dy + at, value);
#pragma unroll
          for (int l = 0; l < V; l++) sum[l] += index[at + l] == (int)pixel ? value[l] : W(0);
        }
      unic_put<T, V>(dx + (n * p.in[0] * p.in[1] + pixel) * p.channels + c, sum, p.add);
    }
}

unic_status adaptive_max_pool2d_forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *y = &k->out[Y];
  if (y->numel == 0) return UNIC_OK;
  unic_vectors(k->type, unic_channel_vectors(k->type, x->shape[1], (char *)x->data, (char *)y->data), [&](auto t, auto v) {
    using T = decltype(t);
    constexpr int V = decltype(v)::value;
    const unic_pool p = unic_pool_of(x, y, y, V);
    UNIC_LAUNCH((forward_kernel<T, V>), unic_image_grid(k, p.images, p.items, THREADS), THREADS, 0, unic_cuda_stream(k), p, (const T *)x->data, (T *)y->data, (int *)k->out[INDEX].data);
  });
  return UNIC_OK;
}

unic_status adaptive_max_pool2d_backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X], *dy = &k->dout[Y];
  if (dx->numel == 0 || !dy->data) return unic_zero_gradient(k, X);
  unic_vectors(k->type, unic_channel_vectors(k->type, dx->shape[1], (char *)dx->data, (char *)dy->data), [&](auto t, auto v) {
    using T = decltype(t);
    constexpr int V = decltype(v)::value;
    unic_pool p = unic_pool_of(dx, dy, dx, V);
    p.add = k->accumulate[X];
    UNIC_LAUNCH((gather_kernel<T, V>), unic_image_grid(k, p.images, p.items, THREADS), THREADS, 0, unic_cuda_stream(k), p, (T *)dx->data, (const T *)dy->data, (const int *)k->out[INDEX].data);
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(adaptive_max_pool2d, {"adaptive_max_pool2d", {.forward = adaptive_max_pool2d_forward, .backward = adaptive_max_pool2d_backward}});
