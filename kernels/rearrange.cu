/* pad, flip, roll, repeat_ on the GPU (rearrange.c). Forward is moves of views (copy.cu); gradients are moves (roll, flip: every byte once; pad: the
 * window alone) and, for repeat_, a sum over the copies (sum.cuh). */
#include "rearrange.h"
#include "move.cuh"
#include "sum.cuh"

namespace {

unic_status pad_forward(const unic_kernel *k) {
  unic_view window = unic_pad_window(k, &k->out[0]);
  unic_cuda_move_fill(k, &k->out[0], k->arg[PAD_VALUE].number);
  unic_cuda_move(k, &window, &k->in[X]);
  return UNIC_OK;
}

unic_status pad_backward(const unic_kernel *k) {
  unic_view window = unic_pad_window(k, &k->dout[0]);
  unic_cuda_move_gradient(k, &k->din[X], &window, k->accumulate[X]);
  return UNIC_OK;
}

unic_status flip_forward(const unic_kernel *k) {
  unic_view from = unic_flipped(k, &k->in[X]);
  unic_cuda_move(k, &k->out[0], &from);
  return UNIC_OK;
}

unic_status flip_backward(const unic_kernel *k) {
  unic_view from = unic_flipped(k, &k->dout[0]);
  unic_cuda_move_gradient(k, &k->din[X], &from, k->accumulate[X]);
  return UNIC_OK;
}

void roll(const unic_kernel *k, const unic_view *to, const unic_view *from, int sign, int accumulate) {
  if (to->numel == 0) return;
  for (uint32_t piece = 0; piece < unic_roll_pieces(k); piece++) {
    unic_view t = *to, f = *from;
    unic_roll_piece(k, piece, sign, &t, &f);
    unic_cuda_move_gradient(k, &t, &f, accumulate);
  }
}

unic_status roll_forward(const unic_kernel *k) {
  roll(k, &k->out[0], &k->in[X], 1, 0);
  return UNIC_OK;
}

unic_status roll_backward(const unic_kernel *k) {
  roll(k, &k->din[X], &k->dout[0], -1, k->accumulate[X]);
  return UNIC_OK;
}

unic_status repeat_forward(const unic_kernel *k) {
  unic_view y, x;
  if (k->out[0].numel == 0) return UNIC_OK;
  unic_split_copies(&k->out[0], &k->in[X], &y, &x);
  unic_cuda_move(k, &y, &x);
  return UNIC_OK;
}

unic_status repeat_plan(const unic_kernel *k, unic_plan *p) {
  unic_view dy, dx;
  if (!k->backward || k->out[0].numel == 0 || !k->din[X].present) return UNIC_OK;
  uint32_t copies = unic_split_copies(&k->dout[0], &k->din[X], &dy, &dx);
  const unic_view *const views[1] = {&dy};
  p->scratch = unic_sum_scratch(&dx, 1, views, copies);
  return UNIC_OK;
}

unic_status repeat_backward(const unic_kernel *k) {
  unic_view dy, dx;
  if (k->out[0].numel == 0) {   /* not a single copy */
    if (!k->accumulate[X]) unic_cuda_move_fill(k, &k->din[X], 0);
    return UNIC_OK;
  }
  uint32_t copies = unic_split_copies(&k->dout[0], &k->din[X], &dy, &dx);
  unic_sum_views(k, &dx, &dy, copies, k->accumulate[X], k->scratch);
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(rearrange, {"pad", {.forward = pad_forward, .backward = pad_backward}}, {"flip", {.forward = flip_forward, .backward = flip_backward}},
              {"roll", {.forward = roll_forward, .backward = roll_backward}},
              {"repeat_", {.forward = repeat_forward, .backward = repeat_backward, .plan = repeat_plan}});
