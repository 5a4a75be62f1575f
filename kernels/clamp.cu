/* clamp, clamp_ on the GPU (clamp.c): y = min(max(x, min), max); dx = dy inside, 0 outside. Each byte is read and written once. */
#include "walk.cuh"

namespace {

enum { X, LOW, HIGH };

template <class W> struct limits { W low, high; };

template <class T> struct clamped : limits<unic_wide<T>> {
  __device__ __forceinline__ unic_wide<T> operator()(T raw) const {
    const unic_wide<T> x = unic_widen(raw);
    return x < this->low ? this->low : x > this->high ? this->high : x;
  }
};
template <class T> struct inside : limits<unic_wide<T>> {
  __device__ __forceinline__ unic_wide<T> operator()(T dy, T raw) const {
    const unic_wide<T> x = unic_widen(raw);
    return x < this->low || x > this->high ? unic_wide<T>(0) : unic_widen(dy);
  }
};

template <class W> limits<W> limits_of(const unic_kernel *k) {
  return {k->arg[LOW].given ? (W)k->arg[LOW].number : -(W)INFINITY, k->arg[HIGH].given ? (W)k->arg[HIGH].number : (W)INFINITY};
}

template <bool in_place> unic_status forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *y = in_place ? x : &k->out[0];
  if (y->numel == 0) return UNIC_OK;
  unic_walk w;
  const unic_view *const views[2] = {y, x};
  unic_walk_init(&w, 2, views);
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    unic_map(k, &w, 0, clamped<T>{limits_of<unic_wide<T>>(k)}, (T *)y->data, (const T *)x->data);
  });
  return UNIC_OK;
}

unic_status backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X];
  if (!dx->present || dx->numel == 0) return UNIC_OK;
  unic_walk w;
  const unic_view *const views[3] = {dx, &k->dout[0], &k->in[X]};
  unic_walk_init(&w, 3, views);
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    unic_map(k, &w, k->accumulate[X], inside<T>{limits_of<unic_wide<T>>(k)}, (T *)dx->data, (const T *)k->dout[0].data, (const T *)k->in[X].data);
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(clamp, {"clamp", {.forward = forward<false>, .backward = backward}}, {"clamp_", {.forward = forward<true>}});
