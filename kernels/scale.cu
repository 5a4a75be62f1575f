/* scale_ on the GPU (kernels/scale.c): x *= by over a list of dense tensors. The list goes in one launch for
 * about 140 tensors (multi.cuh), of any floating types; 2 bytes are moved per byte of x, none when the factor is 1. */
#include "multi.cuh"

namespace {

enum { VALUES, BY };

template <class T> __device__ __forceinline__ void scale_chunk(T *x, int64_t begin, int64_t end, bool wide, double factor) {
  constexpr int V = unic_vector<T>;
  const unic_wide<T> by = (unic_wide<T>)factor;
  unic_wide<T> v[V];
  const int64_t stop = wide ? begin + (end - begin) / V * V : begin;
  for (int64_t i = begin + threadIdx.x * V; i < stop; i += UNIC_MULTI_THREADS * V) {
    unic_load_wide<T, V>(x + i, v);
#pragma unroll
    for (int j = 0; j < V; j++) v[j] *= by;
    unic_store_wide<T, V>(x + i, v);
  }
  for (int64_t i = stop + threadIdx.x; i < end; i += UNIC_MULTI_THREADS) x[i] = unic_narrow<T>(unic_widen(x[i]) * by);
}

__global__ void __launch_bounds__(UNIC_MULTI_THREADS) scale_kernel(UNIC_ARGUMENT unic_multi<1> m, const float *by32, const double *by64) {
  const double by = by64 ? *by64 : (double)*by32;
  int64_t begin, end;
  const int t = unic_multi_find(m, &begin, &end);
  if (by == 1) return;
  switch (m.dtype[t]) {
    case UNIC_F64: scale_chunk((double *)m.data[0][t], begin, end, m.wide[t], by); break;
    case UNIC_BF16: scale_chunk((__nv_bfloat16 *)m.data[0][t], begin, end, m.wide[t], by); break;
    case UNIC_F16: scale_chunk((__half *)m.data[0][t], begin, end, m.wide[t], by); break;
    default: scale_chunk((float *)m.data[0][t], begin, end, m.wide[t], by);
  }
}

/* The tensors are dense: each is one flat row. */
unic_status scale_forward(const unic_kernel *k) {
  const void *by = k->in[BY].data;
  const bool wide = k->in[BY].dtype == UNIC_F64;
  unic_view *const lists[1] = {k->list[VALUES]};
  unic_multi_launch(k->arg[VALUES].integer, lists, [&](const unic_multi<1> &m, unsigned chunks, const unic_walk *) {
    UNIC_LAUNCH(scale_kernel, chunks, UNIC_MULTI_THREADS, 0, unic_cuda_stream(k), m, wide ? nullptr : (const float *)by, wide ? (const double *)by : nullptr);
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(scale, {"scale_", {.forward = scale_forward}});
