/* fill on the GPU (fill.c): every element of `to` = value. One write per byte, 16 bytes at a time where rows are dense. */
#include "convert.cuh"
#include "move.cuh"
#include "walk.cuh"

namespace {

enum { TO, VALUE };

template <class T> struct constant {
  T value;
  __device__ __forceinline__ T operator()() const { return value; }
};

unic_status forward(const unic_kernel *k) {
  unic_cuda_move_fill(k, &k->in[TO], k->arg[VALUE].number);
  return UNIC_OK;
}

}

void unic_cuda_move_fill(const unic_kernel *k, const unic_view *to, double value) {
  if (to->numel == 0) return;
  unic_walk w;
  const unic_view *const views[1] = {to};
  unic_walk_init(&w, 1, views);
  unic_raw(unic_size_of(to->dtype), [&](auto t) {
    using T = decltype(t);
    unic_map(k, &w, 0, constant<T>{(T)unic_bits(value, to->dtype)}, (T *)to->data);
  });
}

UNIC_CUDA_OPS(fill, {"fill", {.forward = forward}});
