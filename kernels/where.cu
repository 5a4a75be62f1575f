/* where on the GPU (where.c): y = cond ? a : b, all three broadcasting. Forward reads what it chooses from once and writes y once; a gradient reads cond
 * and dy once, and is summed as it is made where its side was repeated (sum.cuh). */
#include "convert.cuh"
#include "move.cuh"
#include "sum.cuh"
#include "walk.cuh"

namespace {

enum { COND, A, B };

/* Elements as they are; a number stands for a side that is no tensor. */
template <class T> struct chosen {
  T a, b;
  bool has_a, has_b;
  __device__ __forceinline__ T operator()(unsigned char cond, T x, T y) const { return cond ? (has_a ? x : a) : (has_b ? y : b); }
};

template <class T> struct passed {
  bool side;   /* dy passes where cond is this */
  __device__ __forceinline__ unic_wide<T> operator()(T dy, unsigned char cond) const { return (cond != 0) == side ? unic_widen(dy) : unic_wide<T>(0); }
};

unic_status forward(const unic_kernel *k) {
  const unic_view *y = &k->out[0], *a = &k->in[A], *b = &k->in[B];
  if (y->numel == 0) return UNIC_OK;
  unic_walk w;
  const unic_view *const views[4] = {y, &k->in[COND], a->present ? a : y, b->present ? b : y};
  unic_walk_init(&w, 4, views);
  unic_raw(unic_size_of(y->dtype), [&](auto t) {
    using T = decltype(t);
    chosen<T> f = {(T)unic_bits(k->arg[A].number, y->dtype), (T)unic_bits(k->arg[B].number, y->dtype), (bool)a->present, (bool)b->present};
    unic_map(k, &w, 0, f, (T *)y->data, (const unsigned char *)k->in[COND].data, (const T *)(a->present ? a->data : nullptr), (const T *)(b->present ? b->data : nullptr));
  });
  return UNIC_OK;
}

bool is_repeated(const unic_kernel *k, int side) { return k->in[side].numel != k->out[0].numel; }

unic_status plan(const unic_kernel *k, unic_plan *p) {
  if (!k->backward) return UNIC_OK;
  const unic_view *const views[2] = {&k->dout[0], &k->in[COND]};
  for (int side = A; side <= B; side++) {
    if (!k->din[side].present || !is_repeated(k, side)) continue;
    int64_t bytes = unic_sum_scratch(&k->din[side], 2, views, unic_view_repeated(&k->din[side], &k->dout[0]));
    if (bytes > p->scratch) p->scratch = bytes;
  }
  return UNIC_OK;
}

unic_status backward(const unic_kernel *k) {
  const unic_view *dy = &k->dout[0], *cond = &k->in[COND];
  for (int side = A; side <= B; side++) {
    const unic_view *dx = &k->din[side];
    if (!dx->present || dx->numel == 0) continue;
    if (dy->numel == 0) {
      if (!k->accumulate[side]) unic_cuda_move_fill(k, dx, 0);
      continue;
    }
    unic_floats(k->type, [&](auto t) {
      using T = decltype(t);
      passed<T> f = {side == A};
      if (is_repeated(k, side)) {
        unic_sum(k, dx, {dy, cond}, unic_view_repeated(dx, dy), k->accumulate[side], f, k->scratch, (T *)dx->data, (const T *)dy->data, (const unsigned char *)cond->data);
        return;
      }
      unic_walk w;
      const unic_view *const views[3] = {dx, dy, cond};
      unic_walk_init(&w, 3, views);
      unic_map(k, &w, k->accumulate[side], f, (T *)dx->data, (const T *)dy->data, (const unsigned char *)cond->data);
    });
  }
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(where, {"where", {.forward = forward, .backward = backward, .plan = plan}});
