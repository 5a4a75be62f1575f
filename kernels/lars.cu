/* lars on the GPU (kernels/lars.c): a pass over parameters and gradients for two f64 sums per chunk, a block per tensor that makes its factor of them, and
 * the update (multi.cuh): 8 and 20 bytes per f32 parameter. lr and scale are read where they lie. */
#include "multi.cuh"

namespace {

enum { PARAMS, GRADS, BUFFERS, LR, SCALE, MOMENTUM, WEIGHT_DECAY, ETA, SKIP_DECAY, SKIP_ADAPT };

template <class W> struct lars_update {
  using wide = W;
  static constexpr int sums = 2;
  unic_scalar by, lr;
  double eta, weight_decay;
  double *factors;                 /* [n] */
  bool skip_decay, skip_adapt;
  W momentum, scale, rate, decay, factor;
  __device__ __forceinline__ bool start(int tensor, bool small) {
    const double s = by.value();
    scale = (W)s;
    rate = (W)lr.value();
    decay = small && skip_decay ? W(0) : (W)weight_decay;
    factor = (W)factors[tensor];
    return isfinite(s);
  }
  __device__ __forceinline__ void operator()(W &p, W g, W (&kept)[1]) const {
    const W d = g * scale + decay * p, b = momentum * kept[0] + factor * d;
    kept[0] = b;
    p -= rate * b;
  }
  /* The squares of p and of the decayed gradient. */
  __device__ __forceinline__ void total(int tensor, bool small, double (&squares)[2]) const {
    const bool plain = (small && skip_adapt) || !(squares[0] > 0) || !(squares[1] > 0);
    factors[tensor] = plain ? 1 : eta * sqrt(squares[0]) / sqrt(squares[1]);
  }
};

template <class W> struct lars_squares {
  using wide = W;
  static constexpr int sums = 2;
  unic_scalar by;
  double weight_decay;
  bool skip_decay;
  W scale, decay;
  __device__ __forceinline__ bool start(int, bool small) {
    scale = (W)by.value();
    decay = small && skip_decay ? W(0) : (W)weight_decay;
    return true;
  }
  __device__ __forceinline__ void add(double (&sum)[2], W p, W g) const {
    const W d = g * scale + decay * p;
    sum[0] += (double)p * (double)p;
    sum[1] += (double)d * (double)d;
  }
};

/* Scratch: factors, sums. */
unic_status plan(const unic_kernel *k, unic_plan *p) {
  const int64_t n = k->arg[PARAMS].integer;
  p->scratch = (n + 2 * unic_multi_chunks(k->list[PARAMS], n)) * (int64_t)sizeof(double);
  return UNIC_OK;
}

unic_status forward(const unic_kernel *k) {
  const int64_t n = k->arg[PARAMS].integer;
  double *factors = (double *)k->scratch, *sums = factors + n;
  unic_view *const lists[3] = {k->list[PARAMS], k->list[GRADS], k->list[BUFFERS]};
  auto run = [&](auto w) {
    using W = decltype(w);
    const unic_scalar by = unic_scalar_of(&k->in[SCALE]);
    const double decay = k->arg[WEIGHT_DECAY].number;
    const bool skip_decay = k->arg[SKIP_DECAY].integer;
    lars_squares<W> squares = {.by = by, .weight_decay = decay, .skip_decay = skip_decay};
    lars_update<W> op = {.by = by, .lr = unic_scalar_of(&k->in[LR]), .eta = k->arg[ETA].number, .weight_decay = decay, .factors = factors, .skip_decay = skip_decay,
                         .skip_adapt = (bool)k->arg[SKIP_ADAPT].integer, .momentum = (W)k->arg[MOMENTUM].number};
    unic_multi_launch<3>(n, lists, [&](const unic_multi<3> &m, unsigned chunks, const unic_walk *walk) {
      unic_multi_launch_sums(k, m, chunks, walk, squares, sums);
      UNIC_LAUNCH((unic_multi_totals<lars_update<W>, 3>), (unsigned)m.count, UNIC_MULTI_THREADS, 0, unic_cuda_stream(k), m, op, sums);
      unic_multi_launch_update(k, m, chunks, walk, op);
    });
  };
  if (k->type == UNIC_F64) run(double());
  else run(float());
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(lars, {"lars", {.forward = forward, .plan = plan}});
