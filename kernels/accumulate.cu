/* accumulate on the GPU (accumulate.c): to += from. Reads both once, writes `to` once; summed in f32 (f64 when either side is), rounded once. */
#include "convert.cuh"
#include "move.cuh"
#include "walk.cuh"

namespace {

enum { TO, FROM };

template <class To, class From> struct sum {
  using wide = std::conditional_t<std::is_same_v<From, double>, double, unic_wide<To>>;
  __device__ __forceinline__ To operator()(To a, From b) const { return unic_convert<To>((wide)unic_widen(a) + (wide)unic_widen(b)); }
};

unic_status forward(const unic_kernel *k) {
  unic_cuda_move_add(k, &k->in[TO], &k->in[FROM]);
  return UNIC_OK;
}

}

void unic_cuda_move_add(const unic_kernel *k, const unic_view *to, const unic_view *from) {
  if (to->numel == 0) return;
  unic_walk w;
  const unic_view *const views[3] = {to, to, from};
  unic_walk_init(&w, 3, views);
  unic_floats(to->dtype, [&](auto t) {
    unic_floats(from->dtype, [&](auto f) {
      using To = decltype(t);
      using From = decltype(f);
      unic_map(k, &w, 0, sum<To, From>(), (To *)to->data, (const To *)to->data, (const From *)from->data);
    });
  });
}

UNIC_CUDA_OPS(accumulate, {"accumulate", {.forward = forward}});
