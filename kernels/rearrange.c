/* Elements in other places: pad, flip, roll, repeat_.
 *
 *   pad      y = x in the middle of a larger tensor filled with a value; dx = that window of dy
 *   flip     y[.., i, ..] = x[.., n - 1 - i, ..] along each dimension given; dx = dy flipped back
 *   roll     y[.., (i + shift) mod n, ..] = x[.., i, ..]; dx = dy rolled back
 *   repeat_  y = x laid side by side times[d] times along each dimension; dx = the sum over the copies
 * Any dtype, any strides of x; y is row-major. Saved: nothing. Moves (and fixed sums): any number of threads gives the same bits. */
#include "move.h"
#include "rearrange.h"

/* ---------------------------------------------------------------- pad */

static unic_status pad_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  const unic_value *v = &c->arg[PAD_AMOUNTS];
  if (v->integer % 2 || v->integer > 2 * x->ndim)
    return unic_fail_arg(c, PAD_AMOUNTS, "%lld numbers were given, expected a pair {before, after} for each of the last dimensions, at most %d pairs", (long long)v->integer, x->ndim);
  int64_t shape[UNIC_MAX_RANK];
  for (int d = 0; d < x->ndim; d++) {
    int64_t before, after;
    unic_pad_of(v, x->ndim, d, &before, &after);
    if (before < 0 || after < 0) return unic_fail_arg(c, PAD_AMOUNTS, "%lld was given, expected 0 or more; narrow cuts elements off", (long long)(before < 0 ? before : after));
    shape[d] = x->shape[d] + before + after;
  }
  unic_out(c, 0, c->type, x->ndim, shape);
  return UNIC_OK;
}

static unic_status pad_forward(const unic_kernel *k) {
  unic_view window = unic_pad_window(k, &k->out[0]);
  unic_move_fill(&k->out[0], k->arg[PAD_VALUE].number);
  unic_move(&window, &k->in[X]);
  return UNIC_OK;
}

static unic_status pad_backward(const unic_kernel *k) {
  unic_view window = unic_pad_window(k, &k->dout[0]);
  unic_move_gradient(&k->din[X], &window, k->accumulate[X]);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- flip */

static unic_status flip_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  const unic_value *v = &c->arg[FLIP_DIMS];
  uint32_t seen = 0;
  for (int64_t i = 0; i < v->integer; i++) {
    int d;
    if (x->ndim == 0) return unic_fail_arg(c, FLIP_DIMS, "x has no dimensions to flip");
    UNIC_TRY(unic_dim(c, FLIP_DIMS, v->ints[i], x->ndim, &d));
    if (seen >> d & 1) return unic_fail_arg(c, FLIP_DIMS, "dimension %d was given twice", d + 1);
    seen |= 1u << d;
  }
  unic_out(c, 0, c->type, x->ndim, x->shape);
  return UNIC_OK;
}

static unic_status flip_forward(const unic_kernel *k) {
  unic_view from = unic_flipped(k, &k->in[X]);
  unic_move(&k->out[0], &from);
  return UNIC_OK;
}

static unic_status flip_backward(const unic_kernel *k) {
  unic_view from = unic_flipped(k, &k->dout[0]);
  unic_move_gradient(&k->din[X], &from, k->accumulate[X]);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- roll */

static unic_status roll_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  const unic_value *shifts = &c->arg[ROLL_SHIFTS], *dims = &c->arg[ROLL_DIMS];
  if (shifts->integer != dims->integer) return unic_fail_arg(c, ROLL_DIMS, "%lld dimensions and %lld shifts were given, expected as many", (long long)dims->integer, (long long)shifts->integer);
  uint32_t seen = 0;
  for (int64_t i = 0; i < dims->integer; i++) {
    int d;
    if (x->ndim == 0) return unic_fail_arg(c, ROLL_DIMS, "x has no dimensions to roll");
    UNIC_TRY(unic_dim(c, ROLL_DIMS, dims->ints[i], x->ndim, &d));
    if (seen >> d & 1) return unic_fail_arg(c, ROLL_DIMS, "dimension %d was given twice", d + 1);
    seen |= 1u << d;
  }
  unic_out(c, 0, c->type, x->ndim, x->shape);
  return UNIC_OK;
}

/* to = from rolled by sign x shifts: each rolled dimension falls into two pieces, and so the tensor into 2^dims blocks. */
static void roll(const unic_kernel *k, const unic_view *to, const unic_view *from, int sign, int accumulate) {
  if (to->numel == 0) return;
  for (uint32_t piece = 0; piece < unic_roll_pieces(k); piece++) {
    unic_view t = *to, f = *from;
    unic_roll_piece(k, piece, sign, &t, &f);
    unic_move_gradient(&t, &f, accumulate);
  }
}

static unic_status roll_forward(const unic_kernel *k) {
  roll(k, &k->out[0], &k->in[X], 1, 0);
  return UNIC_OK;
}

static unic_status roll_backward(const unic_kernel *k) {
  roll(k, &k->din[X], &k->dout[0], -1, k->accumulate[X]);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- repeat_ */

static unic_status repeat_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  const unic_value *v = &c->arg[REPEAT_TIMES];
  int ndim = (int)v->integer, needed = 0;
  int64_t shape[UNIC_MAX_RANK];
  if (ndim < x->ndim) return unic_fail_arg(c, REPEAT_TIMES, "%d numbers were given, x has %d dimensions", ndim, x->ndim);
  for (int d = 0; d < ndim; d++) {
    int64_t size = d < ndim - x->ndim ? 1 : x->shape[d - (ndim - x->ndim)];
    if (v->ints[d] < 0) return unic_fail_arg(c, REPEAT_TIMES, "%lld was given, expected 0 or more", (long long)v->ints[d]);
    shape[d] = size * v->ints[d];
    needed += v->ints[d] != 1 && size != 1 ? 2 : 1;
  }
  if (needed > UNIC_MAX_RANK) return unic_fail_arg(c, REPEAT_TIMES, "too many dimensions are repeated at once: copies and places make %d dimensions, at most %d are possible", needed, UNIC_MAX_RANK);
  unic_out(c, 0, c->type, ndim, shape);
  return UNIC_OK;
}

static unic_status repeat_forward(const unic_kernel *k) {
  unic_view y, x;
  if (k->out[0].numel == 0) return UNIC_OK;
  unic_split_copies(&k->out[0], &k->in[X], &y, &x);
  unic_move(&y, &x);
  return UNIC_OK;
}

static unic_status repeat_plan(const unic_kernel *k, unic_plan *p) {
  unic_view dy, x;
  if (k->out[0].numel == 0) return UNIC_OK;
  uint32_t copies = unic_split_copies(&k->dout[0], &k->in[X], &dy, &x);
  p->scratch = unic_move_sum_scratch(&dy, copies);
  return UNIC_OK;
}

static unic_status repeat_backward(const unic_kernel *k) {
  unic_view dy, x;
  if (k->out[0].numel == 0) {   /* not a single copy */
    if (!k->accumulate[X]) unic_move_fill(&k->din[X], 0);
    return UNIC_OK;
  }
  uint32_t copies = unic_split_copies(&k->dout[0], &k->in[X], &dy, &x);
  unic_move_sum(&k->din[X], &dy, copies, k->accumulate[X], k->scratch);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- descriptors */

static const unic_op op_pad = {
  .name = "pad",
  .signature = "x: tensor, amounts: ints, value: number = 0 -> y",
  .doc = "A border around x.\n"
         "amounts  {before, after} of the last dimension, then of the one before it, ...\n"
         "value    what the border is filled with",
  .grads = "x", .layouts = "x:any", .shape = pad_shape, .cpu = {.forward = pad_forward, .backward = pad_backward}, .flags = UNIC_OP_METHOD | UNIC_OP_INTS};

static const unic_op op_flip = {
  .name = "flip",
  .signature = "x: tensor, dims: ints -> y",
  .doc = "The elements of some dimensions in the opposite order.\n"
         "dims  which, counted from 1 or from the end",
  .grads = "x", .layouts = "x:any", .shape = flip_shape, .cpu = {.forward = flip_forward, .backward = flip_backward}, .flags = UNIC_OP_METHOD | UNIC_OP_INTS};

static const unic_op op_roll = {
  .name = "roll",
  .signature = "x: tensor, shifts: ints, dims: ints -> y",
  .doc = "Move elements along dimensions; what leaves at one end comes in at the other.\n"
         "shifts  by how many places, one number per dimension; negative ones go towards the front\n"
         "dims    which dimensions, counted from 1 or from the end",
  .grads = "x", .layouts = "x:any", .shape = roll_shape, .cpu = {.forward = roll_forward, .backward = roll_backward}, .flags = UNIC_OP_METHOD | UNIC_OP_INTS};

static const unic_op op_repeat = {
  .name = "repeat_",
  .signature = "x: tensor, times: ints -> y",
  .doc = "Copies of x side by side (`repeat` alone is a word of Lua's).\n"
         "times  how many along each dimension; more numbers than x has dimensions put new ones in front",
  .grads = "x", .layouts = "x:any", .shape = repeat_shape, .cpu = {.forward = repeat_forward, .backward = repeat_backward, .plan = repeat_plan},
  .flags = UNIC_OP_METHOD | UNIC_OP_INTS | UNIC_OP_PLAN_BACKWARD};

UNIC_OPS(rearrange, &op_pad, &op_flip, &op_roll, &op_repeat);
