/* max_pool2d on the GPU (kernels/max_pool2d.c). A thread makes V channels of one pixel: forward reads the window (its overlaps from the caches) and
 * writes y and the index; backward gathers dy of the windows that hold the input pixel and were won by it, so that nothing is written twice and no order
 * is left to chance: dy and index read (overlaps from the caches), dx written once. */
#include "pools.cuh"

namespace {

enum { X, KERNEL, STRIDE, PADDING };
enum { Y, INDEX };
enum { THREADS = 256 };

template <class T, class I, int V> __global__ void __launch_bounds__(THREADS, 3) forward_kernel(unic_pool p, const T *x, T *y, I *index) {
  using W = unic_wide<T>;
  for (int64_t n = blockIdx.y; n < p.images; n += gridDim.y)
    for (unsigned item = blockIdx.x * blockDim.x + threadIdx.x; item < p.items; item += gridDim.x * blockDim.x) {
      unsigned vector, j;
      const unsigned pixel = unic_divide_rest(item, p.vectors, &vector), i = unic_divide_rest(pixel, p.columns, &j);
      const int h = (int)i * p.stride[0] - p.padding[0], w = (int)j * p.stride[1] - p.padding[1], c = (int)vector * V;
      const int u0 = h < 0 ? -h : 0, v0 = w < 0 ? -w : 0, u1 = min(p.kernel[0], p.in[0] - h), v1 = min(p.kernel[1], p.in[1] - w);
      W best[V], value[V];
      int won[V];
      const T *from = x + ((n * p.in[0] + h) * p.in[1] + w) * p.channels + c;
      unic_get<T, V>(from + ((int64_t)u0 * p.in[1] + v0) * p.channels, best);
#pragma unroll
      for (int l = 0; l < V; l++) won[l] = u0 * p.kernel[1] + v0;
      for (int u = u0; u < u1; u++)
        for (int v = v0; v < v1; v++) {
          unic_get<T, V>(from + ((int64_t)u * p.in[1] + v) * p.channels, value);
          const int here = u * p.kernel[1] + v;
          unic_pool_best(best, won, value, here);
        }
      const int64_t at = (n * p.out[0] * p.out[1] + pixel) * p.channels + c;
      unic_put<T, V>(y + at, best, false);
      if (index) {
        unic_pack<I, V> codes;
#pragma unroll
        for (int l = 0; l < V; l++) codes.at[l] = (I)won[l];
        *reinterpret_cast<unic_pack<I, V> *>(index + at) = codes;
      }
    }
}

template <class T, class I, int V> __global__ void __launch_bounds__(THREADS, 3) gather_kernel(unic_pool p, T *dx, const T *dy, const I *index) {
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
      for (int i = i0; i <= i1; i++)
        for (int j = j0; j <= j1; j++) {
          const int64_t at = ((n * p.out[0] + i) * p.out[1] + j) * p.channels + c;
          const int here = (below - i * p.stride[0]) * p.kernel[1] + right - j * p.stride[1];
          const unic_pack<I, V> codes = *reinterpret_cast<const unic_pack<I, V> *>(index + at);
          unic_get<T, V>(dy + at, value);
#pragma unroll
          for (int l = 0; l < V; l++) sum[l] += (int)codes.at[l] == here ? value[l] : W(0);
        }
      unic_put<T, V>(dx + (n * p.in[0] * p.in[1] + pixel) * p.channels + c, sum, p.add);
    }
}

/* f(T, V, I): the index is u8 or i32. */
template <class F> void kinds(const unic_kernel *k, bool vectors, F f) {
  unic_vectors(k->type, vectors, [&](auto t, auto v) {
    if (k->out[INDEX].dtype == UNIC_U8) f(t, v, (unsigned char)0);
    else f(t, v, (int)0);
  });
}

unic_status max_pool2d_forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *y = &k->out[Y];
  if (y->numel == 0) return UNIC_OK;
  kinds(k, unic_channel_vectors(k->type, x->shape[1], (char *)x->data, (char *)y->data, (char *)k->out[INDEX].data), [&](auto t, auto v, auto i) {
    using T = decltype(t);
    using I = decltype(i);
    constexpr int V = decltype(v)::value;
    const unic_pool p = unic_pool_of(x, y, y, V, k->arg[KERNEL], k->arg[STRIDE], k->arg[PADDING]);
    UNIC_LAUNCH((forward_kernel<T, I, V>), unic_image_grid(k, p.images, p.items, THREADS), THREADS, 0, unic_cuda_stream(k), p, (const T *)x->data, (T *)y->data, (I *)k->out[INDEX].data);
  });
  return UNIC_OK;
}

unic_status max_pool2d_backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X], *dy = &k->dout[Y];
  if (dx->numel == 0 || !dy->data) return unic_zero_gradient(k, X);
  kinds(k, unic_channel_vectors(k->type, dx->shape[1], (char *)dx->data, (char *)dy->data, (char *)k->out[INDEX].data), [&](auto t, auto v, auto i) {
    using T = decltype(t);
    using I = decltype(i);
    constexpr int V = decltype(v)::value;
    unic_pool p = unic_pool_of(dx, dy, dx, V, k->arg[KERNEL], k->arg[STRIDE], k->arg[PADDING]);
    p.add = k->accumulate[X];
    UNIC_LAUNCH((gather_kernel<T, I, V>), unic_image_grid(k, p.images, p.items, THREADS), THREADS, 0, unic_cuda_stream(k), p, (T *)dx->data, (const T *)dy->data, (const I *)k->out[INDEX].data);
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(max_pool2d, {"max_pool2d", {.forward = max_pool2d_forward, .backward = max_pool2d_backward}});
