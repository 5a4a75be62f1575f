/* mse, smooth_l1, kl_div and focal on the GPU (kernels/pointwise_loss.c): one pass over x and target in forward, one per wanted gradient in backward
 * (losses.cuh). Inputs share a dense layout, so everything is one flat row. */
#include "losses.cuh"

namespace {

enum { X, TARGET };
enum { LOSS };
enum { MEAN, SUM, NONE, BATCHMEAN };

template <class W> struct mse {
  enum { REDUCTION = 2 };
  explicit mse(const unic_kernel *) {}
  __device__ __forceinline__ W loss(W x, W t, int64_t) const { return (x - t) * (x - t); }
  template <int SIDE> __device__ __forceinline__ W gradient(W x, W t, int64_t) const { return (SIDE == X ? W(2) : W(-2)) * (x - t); }
};

template <class W> struct smooth_l1 {
  enum { REDUCTION = 2, BETA = 3 };
  W beta, half, by;              /* by: 1 / beta */
  explicit smooth_l1(const unic_kernel *k) : beta((W)k->arg[BETA].number), half(beta / 2), by(beta > 0 ? 1 / beta : 0) {}
  __device__ __forceinline__ W loss(W x, W t, int64_t) const {
    const W d = fabs(x - t);
    return d < beta ? by / 2 * d * d : d - half;
  }
  template <int SIDE> __device__ __forceinline__ W gradient(W x, W t, int64_t) const {
    const W d = x - t, g = fabs(d) < beta ? by * d : d > 0 ? W(1) : d < 0 ? W(-1) : d;
    return SIDE == X ? g : -g;
  }
};

template <class W> struct kl_div {
  enum { REDUCTION = 2, LOG_TARGET = 3 };
  bool log_target;
  explicit kl_div(const unic_kernel *k) : log_target(k->arg[LOG_TARGET].integer) {}
  __device__ __forceinline__ W loss(W x, W t, int64_t) const {
    const W p = log_target ? exp(t) : t;
    return p == 0 ? W(0) : p * ((log_target ? t : log(t)) - x);
  }
  template <int SIDE> __device__ __forceinline__ W gradient(W x, W t, int64_t) const {
    const W p = log_target ? exp(t) : t;
    if (SIDE == X) return -p;
    return p == 0 ? W(0) : log_target ? p * (t - x + 1) : log(t) + 1 - x;
  }
};

template <class W> struct focal {
  enum { ALPHA = 2, GAMMA = 3, REDUCTION = 4 };
  W alpha, gamma;
  explicit focal(const unic_kernel *k) : alpha((W)k->arg[ALPHA].number), gamma((W)k->arg[GAMMA].number) {}
  __device__ __forceinline__ W power(W q) const { return gamma == 2 ? q * q : gamma == 1 ? q : gamma == 0 ? W(1) : pow(q, gamma); }
  __device__ __forceinline__ W share(W t) const { return alpha < 0 ? W(1) : alpha * t + (1 - alpha) * (1 - t); }
  /* q = 1 - the probability of the target. */
  __device__ __forceinline__ W loss(W x, W t, int64_t) const {
    const W q = unic_sigmoid_of(x) * (1 - t) + t * unic_sigmoid_of(-x);
    return power(q) * ((1 - t) * x + unic_softplus_below(x)) * share(t);
  }
  template <int SIDE> __device__ __forceinline__ W gradient(W x, W t, int64_t) const {
    const W p = unic_sigmoid_of(x), not_p = unic_sigmoid_of(-x), q = p * (1 - t) + t * not_p, both = q == 0 ? W(0) : p * not_p / q;
    /* p - t as p (1 - t) - (1 - p) t: no digits are lost where p is close to t = 1. */
    const W off = p * (1 - t) - not_p * t, entropy = (1 - t) * x + unic_softplus_below(x);
    return power(q) * share(t) * (off + gamma * entropy * both * (1 - 2 * t));
  }
};

/* What the sum is divided by. */
double parts(const unic_kernel *k, int reduction) {
  double n = reduction == MEAN ? (double)k->in[X].numel : reduction == BATCHMEAN ? (double)k->in[X].shape[0] : 1;
  return n > 0 ? n : 1;
}

template <template <class> class F> unic_status plan(const unic_kernel *k, unic_plan *p) {
  if (!k->backward && k->arg[(int)F<float>::REDUCTION].integer != NONE) p->scratch = unic_loss_chunks(k->in[X].numel) * (int64_t)sizeof(double);
  return UNIC_OK;
}

template <template <class> class F> unic_status forward(const unic_kernel *k) {
  const int reduction = (int)k->arg[(int)F<float>::REDUCTION].integer;
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    unic_loss_forward<T>(k, F<unic_wide<T>>(k), reduction == NONE, parts(k, reduction));
  });
  return UNIC_OK;
}

template <template <class> class F, bool BOTH> unic_status backward(const unic_kernel *k) {
  const int reduction = (int)k->arg[(int)F<float>::REDUCTION].integer;
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    const F<unic_wide<T>> f(k);
    if (k->din[X].present) unic_loss_backward<T, X>(k, f, reduction == NONE, parts(k, reduction));
    if constexpr (BOTH)
      if (k->din[TARGET].present) unic_loss_backward<T, TARGET>(k, f, reduction == NONE, parts(k, reduction));
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(pointwise_loss, {"mse", {.forward = forward<mse>, .backward = backward<mse, true>, .plan = plan<mse>}},
              {"smooth_l1", {.forward = forward<smooth_l1>, .backward = backward<smooth_l1, true>, .plan = plan<smooth_l1>}},
              {"kl_div", {.forward = forward<kl_div>, .backward = backward<kl_div, true>, .plan = plan<kl_div>}},
              {"focal", {.forward = forward<focal>, .backward = backward<focal, false>, .plan = plan<focal>}});
