/* The gradients of views on the GPU that are no looks at dy themselves (views.c): expand sums over the repeated positions (sum.cuh); narrow and select
 * put dy into a window of zeros. */
#include "views.h"
#include "move.cuh"
#include "sum.cuh"

namespace {

unic_status expand_plan(const unic_kernel *k, unic_plan *p) {
  if (!k->backward || !k->din[X].present) return UNIC_OK;
  const unic_view *const views[1] = {&k->dout[0]};
  p->scratch = unic_sum_scratch(&k->din[X], 1, views, unic_view_repeated(&k->in[X], &k->out[0]));
  return UNIC_OK;
}

unic_status expand_backward(const unic_kernel *k) {
  unic_sum_views(k, &k->din[X], &k->dout[0], unic_view_repeated(&k->in[X], &k->out[0]), k->accumulate[X], k->scratch);
  return UNIC_OK;
}

/* dx = 0 outside of the window, dy inside; with accumulate only the window is touched. */
void window_backward(const unic_kernel *k, const unic_view *window) {
  if (!k->accumulate[X]) unic_cuda_move_fill(k, &k->din[X], 0);
  unic_cuda_move_gradient(k, window, &k->dout[0], k->accumulate[X]);
}

unic_status narrow_backward(const unic_kernel *k) {
  unic_view window = unic_narrow_window(k, &k->din[X]);
  window_backward(k, &window);
  return UNIC_OK;
}

unic_status select_backward(const unic_kernel *k) {
  unic_view window = unic_select_window(k, &k->din[X]);
  window_backward(k, &window);
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(views, {"expand", {.backward = expand_backward, .plan = expand_plan}}, {"narrow", {.backward = narrow_backward}}, {"select", {.backward = select_backward}});
