/* Element-wise functions of one tensor on the GPU (unary.c): y = f(x), dx = (or +=) f'(x) dy, and x = f(x) in place. The rows stand in maths_rows.h.
 *
 * Each byte is read and written once: 2 tensors in forward, 3 in backward (2 where nothing is saved). f32, bf16 and f16 in f32, f64 in f64. */
#include "maths.cuh"
#include "walk.cuh"

namespace {

enum { X };

/* F: a template of functors over the storage type. */
template <template <class> class F, bool in_place> unic_status forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *y = in_place ? x : &k->out[0];
  if (y->numel == 0) return UNIC_OK;
  unic_walk w;
  const unic_view *const views[2] = {y, x};
  unic_walk_init(&w, 2, views);
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    unic_map(k, &w, 0, F<T>(), (T *)y->data, (const T *)x->data);
  });
  return UNIC_OK;
}

template <template <class> class F> unic_status backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X], *saved = k->in[X].data ? &k->in[X] : &k->out[0];
  if (!dx->present || dx->numel == 0) return UNIC_OK;
  unic_walk w;
  const unic_view *const views[3] = {dx, &k->dout[0], saved->data ? saved : dx};
  unic_walk_init(&w, 3, views);
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    unic_map(k, &w, k->accumulate[X], F<T>(), (T *)dx->data, (const T *)k->dout[0].data, (const T *)saved->data);
  });
  return UNIC_OK;
}

#define F(name) unic_math_##name
#define R(c) ((W)(c))
#define UNARY(op, saves, value, gradient, doc) \
  template <class T> struct op##_value { \
    using W = unic_wide<T>; \
    __device__ __forceinline__ W operator()(T raw) const { \
      const W x = unic_widen(raw); \
      return (value); \
    } \
  }; \
  template <class T> struct op##_gradient { \
    using W = unic_wide<T>; \
    __device__ __forceinline__ W operator()(T raw_dy, T raw) const { \
      [[maybe_unused]] const W dy = unic_widen(raw_dy), x = unic_widen(raw), y = x; \
      return (gradient); \
    } \
  };
UNIC_UNARY_ROWS(UNARY)
#undef UNARY
#undef F
#undef R

}

#define UNARY(op, saves, value, gradient, doc) \
  {#op, {.forward = forward<op##_value, false>, .backward = backward<op##_gradient>, .remake = sizeof(saves) > 1 ? forward<op##_value, false> : nullptr}}, \
  {#op "_", {.forward = forward<op##_value, true>}},

UNIC_CUDA_OPS(unary, UNIC_UNARY_ROWS(UNARY) {nullptr, {}});
