/* bert_adam on the GPU (kernels/bert_adam.c): with clipping, a pass over the gradients for one f64 sum of squares per chunk, a block per tensor that makes
 * its factor of them, and the update (multi.cuh); without, the update alone: 28 bytes per f32 parameter. lr and scale are read where they lie. */
#include "multi.cuh"

namespace {

enum { PARAMS, GRADS, EXP_AVG, EXP_AVG_SQ, LR, SCALE, BETA1, BETA2, EPS, WEIGHT_DECAY, MAX_NORM };

template <class W> struct bert_adam_update {
  using wide = W;
  static constexpr int sums = 1;
  unic_scalar by, lr;
  double most, decay;
  double *scales;                  /* [n]: scale and clip coefficient of each tensor; NULL: nothing is clipped */
  W beta1, beta2, one_beta1, one_beta2, eps, keep, rate, scale;
  __device__ __forceinline__ bool start(int tensor, bool) {
    const double s = by.value(), step = lr.value();
    scale = (W)(scales ? scales[tensor] : s);
    rate = (W)step;
    keep = (W)(1 - step * decay);
    return isfinite(s);
  }
  __device__ __forceinline__ void operator()(W &p, W g, W (&kept)[2]) const {
    const W d = g * scale, m = beta1 * kept[0] + one_beta1 * d, v = beta2 * kept[1] + one_beta2 * d * d;
    kept[0] = m;
    kept[1] = v;
    p = p * keep - rate * m / (sqrt(v) + eps);
  }
  /* What a gradient is multiplied by, from the sum of its squares. */
  __device__ __forceinline__ void total(int tensor, bool, double (&squares)[1]) const {
    const double s = by.value(), coefficient = most / (fabs(s) * sqrt(squares[0]) + 1e-6);
    scales[tensor] = coefficient >= 1 ? s : s * coefficient;
  }
};

/* The squares of the gradients alone: parameters are not read. */
template <class W> struct bert_adam_squares {
  using wide = W;
  static constexpr int sums = 1;
  __device__ __forceinline__ bool start(int, bool) { return true; }
  __device__ __forceinline__ void add(double (&sum)[1], W, W g) const { sum[0] += (double)g * (double)g; }
};

/* Scratch: scales, sums. */
unic_status plan(const unic_kernel *k, unic_plan *p) {
  const int64_t n = k->arg[PARAMS].integer;
  if (k->arg[MAX_NORM].number > 0) p->scratch = (n + unic_multi_chunks(k->list[PARAMS], n)) * (int64_t)sizeof(double);
  return UNIC_OK;
}

unic_status forward(const unic_kernel *k) {
  const double beta1 = k->arg[BETA1].number, beta2 = k->arg[BETA2].number;
  const int64_t n = k->arg[PARAMS].integer;
  const bool clips = k->arg[MAX_NORM].number > 0;
  double *scales = clips ? (double *)k->scratch : nullptr, *sums = scales + (clips ? n : 0);
  unic_view *const lists[4] = {k->list[PARAMS], k->list[GRADS], k->list[EXP_AVG], k->list[EXP_AVG_SQ]};
  auto run = [&](auto w) {
    using W = decltype(w);
    bert_adam_update<W> op = {.by = unic_scalar_of(&k->in[SCALE]), .lr = unic_scalar_of(&k->in[LR]), .most = k->arg[MAX_NORM].number, .decay = k->arg[WEIGHT_DECAY].number,
                              .scales = scales, .beta1 = (W)beta1, .beta2 = (W)beta2, .one_beta1 = (W)(1 - beta1), .one_beta2 = (W)(1 - beta2), .eps = (W)k->arg[EPS].number};
    unic_multi_launch<4>(n, lists, [&](const unic_multi<4> &m, unsigned chunks, const unic_walk *walk) {
      if (clips) {
        unic_multi_launch_sums(k, m, chunks, walk, bert_adam_squares<W>(), sums);
        UNIC_LAUNCH((unic_multi_totals<bert_adam_update<W>, 4>), (unsigned)m.count, UNIC_MULTI_THREADS, 0, unic_cuda_stream(k), m, op, sums);
      }
      unic_multi_launch_update(k, m, chunks, walk, op);
    });
  };
  if (k->type == UNIC_F64) run(double());
  else run(float());
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(bert_adam, {"bert_adam", {.forward = forward, .plan = plan}});
