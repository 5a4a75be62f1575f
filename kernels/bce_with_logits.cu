/* bce_with_logits on the GPU (kernels/bce_with_logits.c): one pass over x and target in both directions (losses.cuh). */
#include "losses.cuh"

namespace {

enum { X, TARGET, POS_WEIGHT, REDUCTION };
enum { MEAN, SUM, NONE };

template <class W> struct binary {
  const W *weight;             /* of the positive term; NULL: 1 */
  int64_t columns;
  __device__ __forceinline__ W positive(int64_t i) const {
    if (!weight) return 1;
    if (columns == 1) return weight[0];
    return weight[(i | columns) >> 32 ? i % columns : (int64_t)((uint32_t)i % (uint32_t)columns)];   /* 64-bit division is a subroutine */
  }
  __device__ __forceinline__ W loss(W x, W t, int64_t i) const { return (1 - t) * x + (1 + (positive(i) - 1) * t) * unic_softplus_below(x); }
  template <int SIDE> __device__ __forceinline__ W gradient(W x, W t, int64_t i) const {
    const W w = positive(i);
    return (1 + (w - 1) * t) * unic_sigmoid_of(x) - w * t;
  }
};

template <class W> binary<W> binary_of(const unic_kernel *k) {
  const unic_view *w = &k->in[POS_WEIGHT];
  return {(const W *)w->data, w->present ? w->shape[0] : 1};
}

/* What the sum is divided by. */
double parts(const unic_kernel *k) { return k->arg[REDUCTION].integer == MEAN && k->in[X].numel > 0 ? (double)k->in[X].numel : 1; }

unic_status plan(const unic_kernel *k, unic_plan *p) {
  if (!k->backward && k->arg[REDUCTION].integer != NONE) p->scratch = unic_loss_chunks(k->in[X].numel) * (int64_t)sizeof(double);
  return UNIC_OK;
}

unic_status forward(const unic_kernel *k) {
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    unic_loss_forward<T>(k, binary_of<unic_wide<T>>(k), k->arg[REDUCTION].integer == NONE, parts(k));
  });
  return UNIC_OK;
}

unic_status backward(const unic_kernel *k) {
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    unic_loss_backward<T, X>(k, binary_of<unic_wide<T>>(k), k->arg[REDUCTION].integer == NONE, parts(k));
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(bce_with_logits, {"bce_with_logits", {.forward = forward, .backward = backward, .plan = plan}});
