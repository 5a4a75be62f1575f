/* cat:    y = xs[1], xs[2], ... one after the other along a dimension; the other dimensions agree.
 * stack:  y[..., m, ...] = xs[m] along a new dimension.
 *
 * Any dtype, any strides; images that are all channels-last give a channels-last y (skip connections). Saved: nothing; the gradient of each
 * member is its window of dy. Moves only: any number of threads gives the same bits. */
#include "move.h"

enum { XS, DIM };

/* All members channels-last (and rank 4)? Then so is y. */
static bool all_channels_last(const unic_call *c) {
  for (int64_t m = 0; m < c->arg[XS].integer; m++) {
    const unic_tensor *t = c->list[XS][m];
    if (t->ndim != 4 || t->block || !unic_tensor_is_channels_last(t) || unic_tensor_is_contiguous(t)) return false;
  }
  return true;
}

static unic_status cat_shape(unic_call *c) {
  if (c->arg[XS].integer == 0) return unic_fail_arg(c, XS, "the list is empty, expected at least one tensor");
  const unic_tensor *first = c->list[XS][0];
  if (first->ndim == 0) return unic_fail_arg(c, XS, "its members have no dimensions; stack joins those");
  int dim;
  UNIC_TRY(unic_dim(c, DIM, c->arg[DIM].integer, first->ndim, &dim));
  int64_t shape[UNIC_MAX_RANK], total = 0;
  memcpy(shape, first->shape, sizeof shape);
  for (int64_t m = 0; m < c->arg[XS].integer; m++) {
    const unic_tensor *t = c->list[XS][m];
    bool fits = t->ndim == first->ndim;
    for (int d = 0; fits && d < t->ndim; d++) fits = d == dim || t->shape[d] == first->shape[d];
    if (!fits) {
      char a[128], b[128];
      return unic_fail_arg(c, XS, "member %lld has shape %s, the first has %s; they may differ in dimension %d alone", (long long)m + 1,
                           unic_shape_describe(t->ndim, t->shape, a, sizeof a), unic_shape_describe(first->ndim, first->shape, b, sizeof b), dim + 1);
    }
    total += t->shape[dim];
  }
  shape[dim] = total;
  unic_out(c, 0, c->type, first->ndim, shape);
  if (all_channels_last(c)) c->out[0].layout = UNIC_CHANNELS_LAST;
  return UNIC_OK;
}

static unic_status stack_shape(unic_call *c) {
  if (c->arg[XS].integer == 0) return unic_fail_arg(c, XS, "the list is empty, expected at least one tensor");
  const unic_tensor *first = c->list[XS][0];
  if (first->ndim == UNIC_MAX_RANK) return unic_fail_arg(c, XS, "its members have %d dimensions, no more are possible", UNIC_MAX_RANK);
  int dim;
  UNIC_TRY(unic_dim(c, DIM, c->arg[DIM].integer, first->ndim + 1, &dim));
  for (int64_t m = 1; m < c->arg[XS].integer; m++) {
    const unic_tensor *t = c->list[XS][m];
    bool same = t->ndim == first->ndim;
    for (int d = 0; same && d < t->ndim; d++) same = t->shape[d] == first->shape[d];
    if (!same) {
      char a[128], b[128];
      return unic_fail_arg(c, XS, "member %lld has shape %s, the first has %s", (long long)m + 1, unic_shape_describe(t->ndim, t->shape, a, sizeof a),
                           unic_shape_describe(first->ndim, first->shape, b, sizeof b));
    }
  }
  int64_t shape[UNIC_MAX_RANK];
  for (int d = 0; d <= first->ndim; d++) shape[d] = d < dim ? first->shape[d] : d == dim ? c->arg[XS].integer : first->shape[d - 1];
  unic_out(c, 0, c->type, first->ndim + 1, shape);
  return UNIC_OK;
}

/* Every member beside its window of y (or dy). */
static unic_status each(const unic_kernel *k, bool stack) {
  const unic_view *y = k->backward ? &k->dout[0] : &k->out[0];
  int dim = unic_dim_of(k->arg[DIM].integer, y->ndim);
  int64_t at = 0;
  for (int64_t m = 0; m < k->arg[XS].integer; m++) {
    const unic_view *x = k->backward ? &k->dlist[XS][m] : &k->list[XS][m];
    int64_t length = stack ? 1 : k->list[XS][m].shape[dim];
    unic_view window = stack ? unic_view_select(y, dim, at) : unic_view_narrow(y, dim, at, length);
    at += length;
    if (!k->backward) unic_move(&window, x);
    else if (x->present) unic_move(x, &window);
  }
  return UNIC_OK;
}

static unic_status cat(const unic_kernel *k) { return each(k, false); }
static unic_status stack(const unic_kernel *k) { return each(k, true); }

static const unic_op op_cat = {
  .name = "cat",
  .signature = "xs: tensors, dim: int = 1 -> y",
  .doc = "Tensors one after the other along a dimension.\n"
         "xs   a list; shapes agree but for that dimension, dtypes are equal\n"
         "dim  the dimension, counted from 1 or from the end",
  .grads = "xs",
  .layouts = "xs:any",
  .shape = cat_shape,
  .cpu = {.forward = cat, .backward = cat},
  .flags = UNIC_OP_INTS,
};

static const unic_op op_stack = {
  .name = "stack",
  .signature = "xs: tensors, dim: int = 1 -> y",
  .doc = "Tensors of one shape side by side along a new dimension.\n"
         "xs   a list; shapes and dtypes are equal\n"
         "dim  where the new dimension stands in the result",
  .grads = "xs",
  .layouts = "xs:any",
  .shape = stack_shape,
  .cpu = {.forward = stack, .backward = stack},
  .flags = UNIC_OP_INTS,
};

UNIC_OPS(cat, &op_cat, &op_stack);
