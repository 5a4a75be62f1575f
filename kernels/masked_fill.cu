/* masked_fill, masked_fill_ on the GPU (masked_fill.c): y = mask ? value : x; dx = mask ? 0 : dy. Each byte is read and written once. */
#include "convert.cuh"
#include "walk.cuh"

namespace {

enum { X, MASK, VALUE };

template <class T> struct filled {
  T value;
  __device__ __forceinline__ T operator()(T x, unsigned char mask) const { return mask ? value : x; }
};
template <class T> struct passed {
  __device__ __forceinline__ unic_wide<T> operator()(T dy, unsigned char mask) const { return mask ? unic_wide<T>(0) : unic_widen(dy); }
};

template <bool in_place> unic_status forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *y = in_place ? x : &k->out[0];
  if (y->numel == 0) return UNIC_OK;
  unic_walk w;
  const unic_view *const views[3] = {y, x, &k->in[MASK]};
  unic_walk_init(&w, 3, views);
  unic_raw(unic_size_of(y->dtype), [&](auto t) {
    using T = decltype(t);
    unic_map(k, &w, 0, filled<T>{(T)unic_bits(k->arg[VALUE].number, y->dtype)}, (T *)y->data, (const T *)x->data, (const unsigned char *)k->in[MASK].data);
  });
  return UNIC_OK;
}

unic_status backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X];
  if (!dx->present || dx->numel == 0) return UNIC_OK;
  unic_walk w;
  const unic_view *const views[3] = {dx, &k->dout[0], &k->in[MASK]};
  unic_walk_init(&w, 3, views);
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    unic_map(k, &w, k->accumulate[X], passed<T>(), (T *)dx->data, (const T *)k->dout[0].data, (const unsigned char *)k->in[MASK].data);
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(masked_fill, {"masked_fill", {.forward = forward<false>, .backward = backward}}, {"masked_fill_", {.forward = forward<true>}});
