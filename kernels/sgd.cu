/* sgd on the GPU (kernels/sgd.c): every parameter once (multi.cuh); lr and scale are read where they lie. p (and its buffer) read and written, g read: 20
 * bytes per f32 parameter with momentum, 12 without. */
#include "multi.cuh"

namespace {

enum { PARAMS, GRADS, BUFFERS, LR, SCALE, MOMENTUM, DAMPENING, WEIGHT_DECAY, NESTEROV };

template <class W> struct sgd_rates {
  using wide = W;
  unic_scalar by, lr;
  W decay, momentum, take, of_g, of_b;   /* take = 1 - dampening; the step is of_g g' + of_b b */
  W scale, rate;
  __device__ __forceinline__ bool start(int, bool) {
    const double s = by.value();
    scale = (W)s;
    rate = (W)lr.value();
    return isfinite(s);
  }
};
template <class W> struct sgd_plain : sgd_rates<W> {
  __device__ __forceinline__ void operator()(W &p, W g, W (&)[1]) const { p -= this->rate * (g * this->scale + this->decay * p); }
};
template <class W> struct sgd_buffered : sgd_rates<W> {
  __device__ __forceinline__ void operator()(W &p, W g, W (&kept)[1]) const {
    const W d = g * this->scale + this->decay * p, b = this->momentum * kept[0] + this->take * d;
    kept[0] = b;
    p -= this->rate * (this->of_g * d + this->of_b * b);
  }
};

unic_status forward(const unic_kernel *k) {
  const double momentum = k->arg[MOMENTUM].number;
  const int64_t n = k->arg[PARAMS].integer;
  auto run = [&](auto w) {
    using W = decltype(w);
    const bool ahead = k->arg[NESTEROV].integer;
    sgd_rates<W> rates = {.by = unic_scalar_of(&k->in[SCALE]), .lr = unic_scalar_of(&k->in[LR]), .decay = (W)k->arg[WEIGHT_DECAY].number, .momentum = (W)momentum,
                          .take = (W)(1 - k->arg[DAMPENING].number), .of_g = ahead ? W(1) : W(0), .of_b = ahead ? (W)momentum : W(1)};
    if (momentum != 0) {
      unic_view *const lists[3] = {k->list[PARAMS], k->list[GRADS], k->list[BUFFERS]};
      unic_multi_launch<3>(n, lists, [&](const unic_multi<3> &m, unsigned chunks, const unic_walk *walk) { unic_multi_launch_update(k, m, chunks, walk, sgd_buffered<W>{rates}); });
    } else {
      unic_view *const lists[2] = {k->list[PARAMS], k->list[GRADS]};
      unic_multi_launch<2>(n, lists, [&](const unic_multi<2> &m, unsigned chunks, const unic_walk *walk) { unic_multi_launch_update(k, m, chunks, walk, sgd_plain<W>{rates}); });
    }
  };
  if (k->type == UNIC_F64) run(double());
  else run(float());
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(sgd, {"sgd", {.forward = forward}});
