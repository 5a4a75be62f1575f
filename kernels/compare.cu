/* Truths on the GPU (compare.c): of two operands with broadcasting, and of one. Operands are read once; one byte per element is written.
 * Integers against integers exactly; against a number (which may have a fraction) as doubles. */
#include "convert.cuh"
#include "maths_rows.h"
#include "walk.cuh"

namespace {

enum { A, B };

/* What operands of type T are compared in beside each other, and beside a number. */
template <class T, bool integer = unic_is_integer<T>> struct comparison { using both = unic_wide<T>; using number = unic_wide<T>; };
template <class T> struct comparison<T, true> { using both = long long; using number = double; };

template <class W, class T> static __device__ __forceinline__ W as(T x) {
  if constexpr (unic_is_integer<T>) return (W)x;
  else return (W)unic_widen(x);
}

#define COMPARE(op, value, doc) \
  template <class T> struct op##_truth { \
    double number; \
    bool has_a, has_b; \
    __device__ __forceinline__ unic_truth operator()(T raw_a, T raw_b) const { \
      if (has_a && has_b) { \
        const auto a = as<typename comparison<T>::both>(raw_a), b = as<typename comparison<T>::both>(raw_b); \
        return {(value)}; \
      } \
      using W = typename comparison<T>::number; \
      const W a = has_a ? as<W>(raw_a) : (W)number, b = has_b ? as<W>(raw_b) : (W)number; \
      return {(value)}; \
    } \
  };
UNIC_COMPARE_ROWS(COMPARE)
#undef COMPARE

template <template <class> class F> unic_status forward(const unic_kernel *k) {
  const unic_view *y = &k->out[0], *a = &k->in[A], *b = &k->in[B];
  if (y->numel == 0) return UNIC_OK;
  unic_walk w;
  const unic_view *const views[3] = {y, a->present ? a : y, b->present ? b : y};
  unic_walk_init(&w, 3, views);
  unic_types(k->type, [&](auto t) {
    using T = decltype(t);
    unic_map(k, &w, 0, F<T>{a->present ? k->arg[B].number : k->arg[A].number, (bool)a->present, (bool)b->present}, (unic_truth *)y->data,
             (const T *)(a->present ? a->data : nullptr), (const T *)(b->present ? b->data : nullptr));
  });
  return UNIC_OK;
}

/* ---------------------------------------------------------------- of one tensor */

template <class T> struct is_zero {
  __device__ __forceinline__ unic_truth operator()(T x) const { return {as<typename comparison<T>::both>(x) == 0}; }
};
template <class T> struct is_nan {
  __device__ __forceinline__ unic_truth operator()(T raw) const {
    const auto x = as<typename comparison<T>::both>(raw);
    return {x != x};
  }
};
/* x - x is NaN for NaN and for infinities. */
template <class T> struct is_infinite {
  __device__ __forceinline__ unic_truth operator()(T raw) const {
    const auto x = as<typename comparison<T>::both>(raw);
    return {x == x && x - x != 0};
  }
};
template <class T> struct is_finite {
  __device__ __forceinline__ unic_truth operator()(T raw) const {
    const auto x = as<typename comparison<T>::both>(raw);
    return {x - x == 0};
  }
};

template <template <class> class F> unic_status one_forward(const unic_kernel *k) {
  const unic_view *y = &k->out[0], *x = &k->in[A];
  if (y->numel == 0) return UNIC_OK;
  unic_walk w;
  const unic_view *const views[2] = {y, x};
  unic_walk_init(&w, 2, views);
  unic_types(x->dtype, [&](auto t) {
    using T = decltype(t);
    unic_map(k, &w, 0, F<T>(), (unic_truth *)y->data, (const T *)x->data);
  });
  return UNIC_OK;
}

}

#define COMPARE(op, value, doc) {#op, {.forward = forward<op##_truth>}},
UNIC_CUDA_OPS(compare, UNIC_COMPARE_ROWS(COMPARE) {"logical_not", {.forward = one_forward<is_zero>}}, {"isnan", {.forward = one_forward<is_nan>}},
              {"isinf", {.forward = one_forward<is_infinite>}}, {"isfinite", {.forward = one_forward<is_finite>}});
