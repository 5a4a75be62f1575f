/* adamw on the GPU (kernels/adamw.c): lr, scale and step are read where they lie, by a kernel of one thread that works out the step's coefficients and
 * counts the step; then every parameter once (multi.cuh): p, m, v read and written, g read, 28 bytes per f32 parameter. */
#include "multi.cuh"

namespace {

enum { PARAMS, GRADS, EXP_AVG, EXP_AVG_SQ, LR, STEP, SCALE, BETA1, BETA2, EPS, WEIGHT_DECAY, COUNTED };

/* What the first kernel leaves in scratch. */
struct coefficients { double live, keep, rate, scale, root; };   /* keep = 1 - lr decay, rate = lr / (1 - b1^t), root = (1 - b2^t)^-1/2; live 0: nothing changes */

__global__ void adamw_coefficients(coefficients *to, float *step, unic_scalar lr, unic_scalar scale, double beta1, double beta2, double decay, bool counted) {
  const double by = scale.value(), rate = lr.value(), t = (double)*step + (counted ? 0 : 1);
  to->live = isfinite(by) ? 1 : 0;
  if (!isfinite(by)) return;
  to->keep = 1 - rate * decay;
  to->rate = rate / (1 - pow(beta1, t));
  to->scale = by;
  to->root = 1 / sqrt(1 - pow(beta2, t));
  *step = (float)t;
}

template <class W> struct adamw_update {
  using wide = W;
  const coefficients *from;
  W beta1, beta2, one_beta1, one_beta2, eps, keep, rate, scale, root;
  __device__ __forceinline__ bool start(int, bool) {
    keep = (W)from->keep;
    rate = (W)from->rate;
    scale = (W)from->scale;
    root = (W)from->root;
    return from->live != 0;
  }
  __device__ __forceinline__ void operator()(W &p, W g, W (&kept)[2]) const {
    const W d = g * scale, m = beta1 * kept[0] + one_beta1 * d, v = beta2 * kept[1] + one_beta2 * d * d;
    kept[0] = m;
    kept[1] = v;
    p = p * keep - rate * m / (sqrt(v) * root + eps);
  }
};

unic_status plan(const unic_kernel *k, unic_plan *p) {
  p->scratch = sizeof(coefficients);
  return UNIC_OK;
}

unic_status forward(const unic_kernel *k) {
  coefficients *c = (coefficients *)k->scratch;
  const double beta1 = k->arg[BETA1].number, beta2 = k->arg[BETA2].number;
  UNIC_LAUNCH(adamw_coefficients, 1, 1, 0, unic_cuda_stream(k), c, (float *)k->in[STEP].data, unic_scalar_of(&k->in[LR]), unic_scalar_of(&k->in[SCALE]), beta1, beta2,
              k->arg[WEIGHT_DECAY].number, (bool)k->arg[COUNTED].integer);
  unic_view *const lists[4] = {k->list[PARAMS], k->list[GRADS], k->list[EXP_AVG], k->list[EXP_AVG_SQ]};
  auto run = [&](auto w) {
    using W = decltype(w);
    adamw_update<W> op = {.from = c, .beta1 = (W)beta1, .beta2 = (W)beta2, .one_beta1 = (W)(1 - beta1), .one_beta2 = (W)(1 - beta2), .eps = (W)k->arg[EPS].number};
    unic_multi_launch<4>(k->arg[PARAMS].integer, lists, [&](const unic_multi<4> &m, unsigned chunks, const unic_walk *walk) { unic_multi_launch_update(k, m, chunks, walk, op); });
  };
  if (k->type == UNIC_F64) run(double());
  else run(float());
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(adamw, {"adamw", {.forward = forward, .plan = plan}});
