/* grad_norm on the GPU (kernels/grad_norm.c): one f64 sum of squares per chunk (multi.cuh), then one block adds them up in order and takes the root. The
 * tensors are read once. */
#include "multi.cuh"

namespace {

enum { TENSORS };

struct squares {
  using wide = double;
  static constexpr int sums = 1;
  __device__ __forceinline__ bool start(int, bool) { return true; }
  __device__ __forceinline__ void add(double (&sum)[1], double, double g) const { sum[0] += g * g; }
};

/* For f32, bf16 and f16 four elements at a time; f64 goes by two. */
struct squares32 {
  using wide = float;
  static constexpr int sums = 1;
  __device__ __forceinline__ bool start(int, bool) { return true; }
  __device__ __forceinline__ void add(double (&sum)[1], float, float g) const { sum[0] += (double)g * (double)g; }
};

template <class W> __global__ void __launch_bounds__(1024) norm_of(const double *sums, int64_t chunks, W *to) {
  UNIC_SHARED(double, room, [32]);
  double all[1];
  unic_multi_join<1>(sums, chunks, room, all);
  if (threadIdx.x == 0) *to = (W)sqrt(all[0]);
}

unic_status plan(const unic_kernel *k, unic_plan *p) {
  p->scratch = unic_multi_chunks(k->list[TENSORS], k->arg[TENSORS].integer) * (int64_t)sizeof(double);
  return UNIC_OK;
}

unic_status forward(const unic_kernel *k) {
  const int64_t n = k->arg[TENSORS].integer, chunks = unic_multi_chunks(k->list[TENSORS], n);
  double *sums = (double *)k->scratch;
  unic_view *const lists[1] = {k->list[TENSORS]};
  const bool wide = k->out[0].dtype == UNIC_F64;
  unic_multi_launch<1>(n, lists, [&](const unic_multi<1> &m, unsigned count, const unic_walk *w) {
    if (wide) unic_multi_launch_sums(k, m, count, w, squares(), sums);
    else unic_multi_launch_sums(k, m, count, w, squares32(), sums);
  });
  if (wide) UNIC_LAUNCH((norm_of<double>), 1, 1024, 0, unic_cuda_stream(k), sums, chunks, (double *)k->out[0].data);
  else UNIC_LAUNCH((norm_of<float>), 1, 1024, 0, unic_cuda_stream(k), sums, chunks, (float *)k->out[0].data);
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(grad_norm, {"grad_norm", {.forward = forward, .plan = plan}});
