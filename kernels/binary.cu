/* Element-wise functions of two operands on the GPU (binary.c): y = f(a, b) with broadcasting, and a = f(a, b) in place. The rows stand in maths_rows.h.
 *
 * Forward reads a and b once (a repeated operand lies in the cache) and writes y once; an operand that is a number is an argument of the kernel. The
 * gradient of a repeated operand is summed as it is made (sum.cuh): its terms never lie in memory. f32, bf16, f16 in f32; f64 in f64; integers exactly. */
#include "maths.cuh"
#include "move.cuh"
#include "sum.cuh"
#include "walk.cuh"

namespace {

enum { A, B, ALPHA };

template <class W> struct numbers {
  W a, b, alpha;               /* for operands that are no tensors; b times alpha */
  bool has_a, has_b, truth;    /* truth: integers are bool's */
  int side;                    /* of the gradient */
};

template <class W> numbers<W> numbers_of(const unic_kernel *k, double alpha) {
  numbers<W> n = {};
  n.a = (W)k->arg[A].number;
  n.b = (W)k->arg[B].number;
  n.alpha = (W)alpha;
  n.has_a = k->in[A].present;
  n.has_b = k->in[B].present;
  n.truth = k->type == UNIC_BOOL;
  return n;
}

template <class T> static __device__ __forceinline__ T put_integer(unic_math_integer v, bool truth) {
  if (sizeof(T) == 1 && truth) return (T)((long long)v != 0);
  return (T)(long long)v;
}

/* ---------------------------------------------------------------- the rows as functors */

#define F(name) unic_math_##name
#define R(c) ((W)(c))
#define M_REMAINDER(a, b) unic_math_remainder(a, b)
#define BINARY(op, saves, value, da, db, ints, doc) \
  template <class T> struct op##_value : numbers<unic_wide<T>> { \
    using W = unic_wide<T>; \
    __device__ __forceinline__ W operator()(T raw_a, T raw_b) const { \
      const W a = this->has_a ? unic_widen(raw_a) : this->a, b = this->alpha * (this->has_b ? unic_widen(raw_b) : this->b); \
      return (value); \
    } \
  }; \
  template <class T> struct op##_integer : numbers<long long> { \
    __device__ __forceinline__ T operator()(T raw_a, T raw_b) const { \
      using W = std::conditional_t<sizeof(T) != 0, unic_math_integer, void>; \
      const W a = this->has_a ? (W)raw_a : (W)this->a, b = (W)this->alpha * (this->has_b ? (W)raw_b : (W)this->b); \
      return put_integer<T>(value, this->truth); \
    } \
  }; \
  template <class T> struct op##_gradient : numbers<unic_wide<T>> { \
    using W = unic_wide<T>; \
    __device__ __forceinline__ W operator()(T raw_dy, T raw_a, T raw_b) const { \
      const W dy = unic_widen(raw_dy); \
      [[maybe_unused]] const W a = this->has_a ? unic_widen(raw_a) : this->a, b = this->has_b ? unic_widen(raw_b) : this->b; \
      return this->side == A ? (da) : (db); \
    } \
  };
UNIC_BINARY_ROWS(BINARY)
#undef BINARY
#undef F
#undef R

/* ---------------------------------------------------------------- on the host */

template <template <class> class Value, template <class> class Integer, bool ints, bool in_place, bool has_alpha> unic_status forward(const unic_kernel *k) {
  const unic_view *y = in_place ? &k->in[A] : &k->out[0], *a = &k->in[A], *b = &k->in[B];
  double alpha = in_place && has_alpha ? k->arg[ALPHA].number : 1;
  if (y->numel == 0) return UNIC_OK;
  unic_walk w;
  const unic_view *const views[3] = {y, a->present ? a : y, b->present ? b : y};
  unic_walk_init(&w, 3, views);
  auto run = [&](auto t, const auto &f) {
    using T = decltype(t);
    unic_map(k, &w, 0, f, (T *)y->data, (const T *)(a->present ? a->data : nullptr), (const T *)(b->present ? b->data : nullptr));
  };
  if (unic_dtype_is_float(k->type)) {
    unic_floats(k->type, [&](auto t) { run(t, Value<decltype(t)>{numbers_of<unic_wide<decltype(t)>>(k, alpha)}); });
  } else if constexpr (ints) {
    unic_types(k->type, [&](auto t) {
      if constexpr (unic_is_integer<decltype(t)>) run(t, Integer<decltype(t)>{numbers_of<long long>(k, alpha)});
    });
  }
  return UNIC_OK;
}

bool is_repeated(const unic_kernel *k, int side) { return k->in[side].numel != k->out[0].numel; }

/* dy, a, b; a number (and what is not saved) has dy's shape, and no data. */
struct operands { const unic_view *views[3]; const void *a, *b; };
operands operands_of(const unic_kernel *k) {
  const unic_view *dy = &k->dout[0], *a = &k->in[A], *b = &k->in[B];
  return {{dy, a->present ? a : dy, b->present ? b : dy}, a->present ? a->data : nullptr, b->present ? b->data : nullptr};
}

unic_status plan(const unic_kernel *k, unic_plan *p) {
  if (!k->backward) return UNIC_OK;
  operands s = operands_of(k);
  for (int side = A; side <= B; side++) {
    if (!k->din[side].present || !is_repeated(k, side)) continue;
    int64_t bytes = unic_sum_scratch(&k->din[side], 3, s.views, unic_view_repeated(&k->din[side], &k->dout[0]));
    if (bytes > p->scratch) p->scratch = bytes;
  }
  return UNIC_OK;
}

template <template <class> class Gradient> unic_status backward(const unic_kernel *k) {
  const unic_view *dy = &k->dout[0];
  operands s = operands_of(k);
  for (int side = A; side <= B; side++) {
    const unic_view *dx = &k->din[side];
    if (!dx->present || dx->numel == 0) continue;
    if (dy->numel == 0) {
      if (!k->accumulate[side]) unic_cuda_move_fill(k, dx, 0);
      continue;
    }
    unic_floats(k->type, [&](auto t) {
      using T = decltype(t);
      Gradient<T> f = {numbers_of<unic_wide<T>>(k, 1)};
      f.side = side;
      if (is_repeated(k, side)) {
        unic_sum(k, dx, s.views, unic_view_repeated(dx, dy), k->accumulate[side], f, k->scratch, (T *)dx->data, (const T *)dy->data, (const T *)s.a, (const T *)s.b);
        return;
      }
      unic_walk w;
      const unic_view *const views[4] = {dx, s.views[0], s.views[1], s.views[2]};
      unic_walk_init(&w, 4, views);
      unic_map(k, &w, k->accumulate[side], f, (T *)dx->data, (const T *)dy->data, (const T *)s.a, (const T *)s.b);
    });
  }
  return UNIC_OK;
}

constexpr bool is_name(const char *a, const char *b) {
  while (*a && *a == *b) a++, b++;
  return *a == *b;
}

}

#define BINARY(op, saves, value, da, db, ints, doc) \
  {#op, {.forward = forward<op##_value, op##_integer, ints, false, false>, .backward = backward<op##_gradient>, .plan = plan}}, \
  {#op "_", {.forward = forward<op##_value, op##_integer, ints, true, is_name(#op, "add") || is_name(#op, "sub")>}},
UNIC_CUDA_OPS(binary, UNIC_BINARY_ROWS(BINARY) {nullptr, {}});
