/* lerp_ on the GPU (lerp_.c): into += weight (from - into) for lists of tensors, in place. One launch for about a hundred tensors (multi.cuh); `into` is
 * read and written once, `from` read once. weight is read on the device, so a recorded step replays. */
#include "multi.cuh"

namespace {

enum { INTO, FROM, WEIGHT };

template <class T, int V> __device__ __forceinline__ void lerp_step(T *into, const T *from, unic_wide<T> weight) {
  unic_wide<T> a[V], b[V];
  unic_load_wide<T, V>(into, a);
  unic_load_wide<T, V>(from, b);
#pragma unroll
  for (int i = 0; i < V; i++) a[i] += weight * (b[i] - a[i]);
  unic_store_wide<T, V>(into, a);
}

template <class T> __global__ void __launch_bounds__(UNIC_MULTI_THREADS) lerp_kernel(UNIC_ARGUMENT unic_multi<2> m, const unic_wide<T> *weight) {
  constexpr int V = unic_vector<T>;
  int64_t begin, end;
  const int t = unic_multi_find(m, &begin, &end);
  T *into = (T *)m.data[0][t];
  const T *from = (const T *)m.data[1][t];
  const unic_wide<T> w = *weight;
  const int64_t stop = m.wide[t] ? begin + (end - begin) / V * V : begin;
  for (int64_t i = begin + threadIdx.x * V; i < stop; i += UNIC_MULTI_THREADS * V) lerp_step<T, V>(into + i, from + i, w);
  for (int64_t i = stop + threadIdx.x; i < end; i += UNIC_MULTI_THREADS) lerp_step<T, 1>(into + i, from + i, w);
}

template <class T> __global__ void __launch_bounds__(UNIC_MULTI_THREADS) lerp_strided_kernel(UNIC_ARGUMENT unic_multi<2> m, UNIC_ARGUMENT unic_walk walk, const unic_wide<T> *weight) {
  int64_t begin, end, at[2];
  const int t = unic_multi_find(m, &begin, &end);
  const unic_wide<T> w = *weight;
  for (int64_t i = begin + threadIdx.x; i < end; i += UNIC_MULTI_THREADS) {
    unic_walk_places<2>(walk, i, at);
    lerp_step<T, 1>((T *)m.data[0][t] + at[0], (const T *)m.data[1][t] + at[1], w);
  }
}

unic_status forward(const unic_kernel *k) {
  unic_view *const lists[2] = {k->list[INTO], k->list[FROM]};
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    const unic_wide<T> *weight = (const unic_wide<T> *)k->in[WEIGHT].data;
    unic_multi_launch(k->arg[INTO].integer, lists, [&](const unic_multi<2> &m, unsigned chunks, const unic_walk *w) {
      if (w) UNIC_LAUNCH((lerp_strided_kernel<T>), chunks, UNIC_MULTI_THREADS, 0, unic_cuda_stream(k), m, *w, weight);
      else UNIC_LAUNCH((lerp_kernel<T>), chunks, UNIC_MULTI_THREADS, 0, unic_cuda_stream(k), m, weight);
    });
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(lerp_, {"lerp_", {.forward = forward}});
