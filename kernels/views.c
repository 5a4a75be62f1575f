/* Views: other looks at the same memory. No forward kernel; the gradient is a look at dy wherever that is possible.
 *
 *   reshape(x [s...]) -> y [shape...]        row-major order of elements; copies first when the strides allow no view
 *   permute(x [s1..sr], dims) -> y           y's dimension i is x's dims[i]
 *   transpose(x, dim1, dim2) -> y
 *   expand(x, shape) -> y                    dimensions of size 1 (and missing leading ones) repeated without copying; dx sums over them
 *   narrow(x, dim, start, length, step) -> y elements start, start+step, ... of a dimension; dx is zero elsewhere
 *   select(x, dim, index) -> y               one position, dimension dropped; dx is zero elsewhere
 *   contiguous(x)                           x itself in row-major memory
 *   squeeze(x, dim), unsqueeze(x, dim), flatten(x, first)
 * Saved: nothing. Bits: any_threads (dx of expand is summed in fixed pieces). */
#include "move.h"
#include "views.h"

#include <string.h>

/* ---------------------------------------------------------------- helpers */

static void keep(unic_call *c, int ndim, const int64_t *shape, const int64_t *stride, int64_t offset) {
  unic_meta *m = &c->out[0];
  unic_out(c, 0, c->in[X]->dtype, ndim, shape);
  m->layout = UNIC_LAYOUT_KEEP;
  m->offset = offset;
  for (int d = 0; d < ndim; d++) m->stride[d] = stride[d];
}

/* Strides for looking at (shape, stride) as `to`; false when elements would have to move. */
static bool reshaped_strides(int ndim, const int64_t *shape, const int64_t *stride, int to_ndim, const int64_t *to, int64_t *out) {
  int d = ndim - 1;
  int64_t block = 1, base = d >= 0 ? stride[d] : 1, chunk = 1;   /* elements of `to` matched in the present chunk of x; its innermost stride; its size */
  int t = to_ndim - 1;
  while (d >= 0) {
    chunk *= shape[d];
    bool ends = d == 0 || (shape[d - 1] != 1 && stride[d - 1] != chunk * base);
    if (ends) {
      while (t >= 0 && (block < chunk || to[t] == 1)) {
        out[t] = block * base;
        block *= to[t];
        t--;
      }
      if (block != chunk) return false;
      if (d > 0) {
        base = stride[d - 1];
        block = chunk = 1;
      }
    }
    d--;
  }
  if (ndim == 0) for (; t >= 0; t--) out[t] = 1;
  return t < 0;
}

static int64_t numel(const unic_tensor *t) { return unic_tensor_numel(t); }

/* Look at x as `shape`, or (no KEEP) ask dispatch for a row-major copy first. */
static unic_status look_as(unic_call *c, int ndim, const int64_t *shape) {
  const unic_tensor *x = c->in[X];
  int64_t stride[UNIC_MAX_RANK];
  if (numel(x) == 0) {
    unic_stride_fill(ndim, shape, UNIC_CONTIGUOUS, stride);
    keep(c, ndim, shape, stride, x->offset);
  } else if (reshaped_strides(x->ndim, x->shape, x->stride, ndim, shape, stride)) {
    keep(c, ndim, shape, stride, x->offset);
  } else {
    unic_out(c, 0, x->dtype, ndim, shape);
  }
  return UNIC_OK;
}

/* dy as x's shape; a copy when dy's strides allow no look. */
static unic_status unreshape(const unic_call *c, unic_tensor *dy, unic_tensor **out) {
  const unic_tensor *x = c->in[X];
  int64_t stride[UNIC_MAX_RANK];
  if (unic_shape_numel(x->ndim, x->shape) == 0 || !reshaped_strides(dy->ndim, dy->shape, dy->stride, x->ndim, x->shape, stride)) {
    if (unic_tensor_is_contiguous(dy)) unic_stride_fill(x->ndim, x->shape, UNIC_CONTIGUOUS, stride);
    else { *out = NULL; return UNIC_OK; }   /* the tape makes dy row-major and asks again */
  }
  return unic_tensor_view(dy, x->ndim, x->shape, stride, dy->offset, out);
}

/* ---------------------------------------------------------------- contiguous */

static unic_status contiguous_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  if (unic_tensor_is_contiguous(x)) keep(c, x->ndim, x->shape, x->stride, x->offset);
  else unic_out(c, 0, x->dtype, x->ndim, x->shape);   /* dispatch copies, and this looks at the copy */
  return UNIC_OK;
}

static unic_status same(const unic_call *c, unic_tensor *dy, unic_tensor **out) { return unic_tensor_alias(dy, out); }

/* ---------------------------------------------------------------- reshape, flatten, squeeze, unsqueeze */

static unic_status reshape_shape(unic_call *c) {
  const unic_value *v = &c->arg[A];
  int64_t shape[UNIC_MAX_RANK], known = 1, n = numel(c->in[X]);
  int free = -1;
  for (int d = 0; d < v->integer; d++) {
    shape[d] = v->ints[d];
    if (shape[d] == -1) {
      if (free >= 0) return unic_fail_arg(c, A, "-1 was given twice, it can stand for one dimension only");
      free = d;
    } else if (shape[d] < 0) {
      return unic_fail_arg(c, A, "dimension %d is %lld, expected 0 or more, or -1 for what is left", d + 1, (long long)shape[d]);
    } else if (__builtin_mul_overflow(known, shape[d], &known)) {
      return unic_fail_arg(c, A, "it holds more elements than 64 bits can count");
    }
  }
  char text[160];
  if (free >= 0) {
    if (known == 0 || n % known != 0) return unic_fail_arg(c, A, "%lld elements cannot be spread over it: x is %s", (long long)n, unic_shape_describe(c->in[X]->ndim, c->in[X]->shape, text, sizeof text));
    shape[free] = n / known;
  } else if (known != n) {
    return unic_fail_arg(c, A, "it holds %lld elements, x %s has %lld", (long long)known, unic_shape_describe(c->in[X]->ndim, c->in[X]->shape, text, sizeof text), (long long)n);
  }
  return look_as(c, (int)v->integer, shape);
}

static unic_status flatten_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int64_t shape[UNIC_MAX_RANK], rest = 1;
  int first = 0;
  if (x->ndim == 0) {
    shape[0] = 1;
    return look_as(c, 1, shape);
  }
  UNIC_TRY(unic_dim(c, A, c->arg[A].integer, x->ndim, &first));
  for (int d = 0; d < first; d++) shape[d] = x->shape[d];
  for (int d = first; d < x->ndim; d++) rest *= x->shape[d];
  shape[first] = rest;
  return look_as(c, first + 1, shape);
}

static unic_status squeeze_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int64_t shape[UNIC_MAX_RANK] = {0}, stride[UNIC_MAX_RANK] = {0};
  int n = 0, only = -1;
  if (c->arg[A].given) {
    UNIC_TRY(unic_dim(c, A, c->arg[A].integer, x->ndim, &only));
    if (x->shape[only] != 1) return unic_fail_arg(c, A, "dimension %d has size %lld, only a dimension of size 1 can go", only + 1, (long long)x->shape[only]);
  }
  for (int d = 0; d < x->ndim; d++) {
    if (only >= 0 ? d == only : x->shape[d] == 1) continue;
    shape[n] = x->shape[d];
    stride[n++] = x->stride[d];
  }
  keep(c, n, shape, stride, x->offset);
  return UNIC_OK;
}

static unic_status unsqueeze_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int64_t shape[UNIC_MAX_RANK + 1], stride[UNIC_MAX_RANK + 1];
  int at;
  if (x->ndim == UNIC_MAX_RANK) return unic_fail_arg(c, X, "it has %d dimensions already, no more are possible", UNIC_MAX_RANK);
  UNIC_TRY(unic_dim(c, A, c->arg[A].integer, x->ndim + 1, &at));
  for (int d = 0; d <= x->ndim; d++) {
    int from = d < at ? d : d - 1;
    shape[d] = d == at ? 1 : x->shape[from];
    stride[d] = d == at ? (at < x->ndim ? x->shape[at] * x->stride[at] : 1) : x->stride[from];
  }
  keep(c, x->ndim + 1, shape, stride, x->offset);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- permute, transpose */

static unic_status permute_dims(const unic_call *c, int ndim, int *dims) {
  const unic_value *v = &c->arg[A];
  bool seen[UNIC_MAX_RANK] = {false};
  if (v->integer != ndim) return unic_fail_arg(c, A, "%lld dimensions were given, x has %d", (long long)v->integer, ndim);
  for (int d = 0; d < ndim; d++) {
    UNIC_TRY(unic_dim(c, A, v->ints[d], ndim, &dims[d]));
    if (seen[dims[d]]) return unic_fail_arg(c, A, "dimension %d was given twice", dims[d] + 1);
    seen[dims[d]] = true;
  }
  return UNIC_OK;
}

static unic_status permute_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int dims[UNIC_MAX_RANK];
  int64_t shape[UNIC_MAX_RANK] = {0}, stride[UNIC_MAX_RANK] = {0};
  UNIC_TRY(permute_dims(c, x->ndim, dims));
  for (int d = 0; d < x->ndim; d++) {
    shape[d] = x->shape[dims[d]];
    stride[d] = x->stride[dims[d]];
  }
  keep(c, x->ndim, shape, stride, x->offset);
  return UNIC_OK;
}

static unic_status unpermute(const unic_call *c, unic_tensor *dy, unic_tensor **out) {
  int dims[UNIC_MAX_RANK];
  int64_t shape[UNIC_MAX_RANK] = {0}, stride[UNIC_MAX_RANK] = {0};
  UNIC_TRY(permute_dims(c, dy->ndim, dims));
  for (int d = 0; d < dy->ndim; d++) {
    shape[dims[d]] = dy->shape[d];
    stride[dims[d]] = dy->stride[d];
  }
  return unic_tensor_view(dy, dy->ndim, shape, stride, dy->offset, out);
}

static unic_status swap(const unic_call *c, int ndim, int64_t *shape, int64_t *stride) {
  int a, b;
  if (ndim == 0) return unic_fail_arg(c, X, "it has no dimensions that could be exchanged");
  UNIC_TRY(unic_dim(c, A, c->arg[A].integer, ndim, &a));
  UNIC_TRY(unic_dim(c, B, c->arg[B].integer, ndim, &b));
  int64_t s = shape[a], t = stride[a];
  shape[a] = shape[b];
  stride[a] = stride[b];
  shape[b] = s;
  stride[b] = t;
  return UNIC_OK;
}

static unic_status transpose_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int64_t shape[UNIC_MAX_RANK] = {0}, stride[UNIC_MAX_RANK] = {0};
  memcpy(shape, x->shape, sizeof shape);
  memcpy(stride, x->stride, sizeof stride);
  UNIC_TRY(swap(c, x->ndim, shape, stride));
  keep(c, x->ndim, shape, stride, x->offset);
  return UNIC_OK;
}

static unic_status untranspose(const unic_call *c, unic_tensor *dy, unic_tensor **out) {
  int64_t shape[UNIC_MAX_RANK] = {0}, stride[UNIC_MAX_RANK] = {0};
  memcpy(shape, dy->shape, sizeof shape);
  memcpy(stride, dy->stride, sizeof stride);
  UNIC_TRY(swap(c, dy->ndim, shape, stride));
  return unic_tensor_view(dy, dy->ndim, shape, stride, dy->offset, out);
}

/* ---------------------------------------------------------------- expand */

static unic_status expand_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  const unic_value *v = &c->arg[A];
  int n = (int)v->integer;
  int64_t shape[UNIC_MAX_RANK] = {0}, stride[UNIC_MAX_RANK] = {0};
  if (n < x->ndim) return unic_fail_arg(c, A, "it has %d dimensions, x has %d", n, x->ndim);
  for (int d = 0; d < n; d++) {
    int from = d - (n - x->ndim);
    int64_t have = from >= 0 ? x->shape[from] : 1, want = v->ints[d];
    if (want == -1 && from >= 0) want = have;
    if (want < 0) return unic_fail_arg(c, A, "dimension %d is %lld, expected 0 or more (or -1 for the size it has)", d + 1, (long long)want);
    if (have != want && have != 1) return unic_fail_arg(c, A, "dimension %d is %lld, x has %lld there; only a dimension of size 1 can be repeated", d + 1, (long long)want, (long long)have);
    shape[d] = want;
    stride[d] = have == want && from >= 0 ? x->stride[from] : 0;
  }
  keep(c, n, shape, stride, x->offset);
  return UNIC_OK;
}

static unic_status expand_plan(const unic_kernel *k, unic_plan *p) {
  if (k->backward) p->scratch = unic_move_sum_scratch(&k->dout[0], unic_view_repeated(&k->in[X], &k->out[0]));
  return UNIC_OK;
}

/* dx = the sums of dy over the repeated positions. */
static unic_status expand_backward(const unic_kernel *k) {
  unic_move_sum(&k->din[X], &k->dout[0], unic_view_repeated(&k->in[X], &k->out[0]), k->accumulate[X], k->scratch);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- narrow, select */

static unic_status narrow_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int64_t shape[UNIC_MAX_RANK], stride[UNIC_MAX_RANK], start = c->arg[B].integer, length = c->arg[C].integer, step = c->arg[D].integer;
  int dim;
  if (x->ndim == 0) return unic_fail_arg(c, X, "it has no dimensions that could be cut");
  UNIC_TRY(unic_dim(c, A, c->arg[A].integer, x->ndim, &dim));
  int64_t size = x->shape[dim];
  if (start == 0) return unic_fail_arg(c, B, "positions count from 1 (or from the end: -1), 0 was given");
  if (start < 0) start += size + 1;
  if (step < 1) return unic_fail_arg(c, D, "%lld was given, expected 1 or more", (long long)step);
  if (length < 0) return unic_fail_arg(c, C, "%lld was given, expected 0 or more", (long long)length);
  if (start < 1 || (length > 0 && start + (length - 1) * step > size) || start > size + 1)
    return unic_fail_arg(c, B, "positions %lld..%lld were asked for, dimension %d has 1..%lld", (long long)start, (long long)(start + (length - 1) * step), dim + 1, (long long)size);
  memcpy(shape, x->shape, sizeof shape);
  memcpy(stride, x->stride, sizeof stride);
  shape[dim] = length;
  stride[dim] *= step;
  keep(c, x->ndim, shape, stride, x->offset + (length > 0 ? (start - 1) * x->stride[dim] : 0));
  return UNIC_OK;
}

static unic_status select_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int64_t shape[UNIC_MAX_RANK] = {0}, stride[UNIC_MAX_RANK] = {0}, index = c->arg[B].integer;
  int dim, n = 0;
  if (x->ndim == 0) return unic_fail_arg(c, X, "it has no dimensions to select from");
  UNIC_TRY(unic_dim(c, A, c->arg[A].integer, x->ndim, &dim));
  int64_t size = x->shape[dim];
  if (index == 0) return unic_fail_arg(c, B, "positions count from 1 (or from the end: -1), 0 was given");
  if (index < -size || index > size) return unic_fail_arg(c, B, "%lld was given, dimension %d has 1..%lld", (long long)index, dim + 1, (long long)size);
  if (index < 0) index += size + 1;
  for (int d = 0; d < x->ndim; d++) {
    if (d == dim) continue;
    shape[n] = x->shape[d];
    stride[n++] = x->stride[d];
  }
  keep(c, n, shape, stride, x->offset + (index - 1) * x->stride[dim]);
  return UNIC_OK;
}

/* dx = 0 outside of the window, dy inside; with accumulate only the window is touched. */
static void window_backward(const unic_kernel *k, const unic_view *window, const unic_view *dy) {
  if (!k->accumulate[X]) unic_move_fill(&k->din[X], 0);
  unic_move_gradient(window, dy, k->accumulate[X]);
}

static unic_status narrow_backward(const unic_kernel *k) {
  unic_view window = unic_narrow_window(k, &k->din[X]);
  window_backward(k, &window, &k->dout[0]);
  return UNIC_OK;
}

static unic_status select_backward(const unic_kernel *k) {
  unic_view window = unic_select_window(k, &k->din[X]);
  window_backward(k, &window, &k->dout[0]);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- descriptors */

static const unic_op op_reshape = {
  .name = "reshape", .signature = "x: tensor<any>, shape: ints -> y",
  .doc = "The same elements, in row-major order, seen under another shape. A view where the strides allow it, a copy otherwise.\n"
         "  shape  the new sizes; one of them may be -1: whatever is left",
  .grads = "x", .layouts = "x:any", .shape = reshape_shape, .grad_view = unreshape, .flags = UNIC_OP_VIEW | UNIC_OP_METHOD};

static const unic_op op_contiguous = {
  .name = "contiguous", .signature = "x: tensor<any> -> y",
  .doc = "The same elements in row-major memory: x's own when it is row-major already, a copy otherwise.",
  .grads = "x", .layouts = "x:any", .shape = contiguous_shape, .grad_view = same, .flags = UNIC_OP_VIEW | UNIC_OP_METHOD};

static const unic_op op_flatten = {
  .name = "flatten", .signature = "x: tensor<any>, first: int = 1 -> y",
  .doc = "All dimensions from `first` on become one.\n  first  the first dimension that is merged (1: all of them)",
  .grads = "x", .layouts = "x:any", .shape = flatten_shape, .grad_view = unreshape, .flags = UNIC_OP_VIEW | UNIC_OP_METHOD};

static const unic_op op_squeeze = {
  .name = "squeeze", .signature = "x: tensor<any>, dim: int? -> y",
  .doc = "Drop dimensions of size 1: all of them, or the one given.\n  dim  the dimension that goes",
  .grads = "x", .layouts = "x:any", .shape = squeeze_shape, .grad_view = unreshape, .flags = UNIC_OP_VIEW | UNIC_OP_METHOD};

static const unic_op op_unsqueeze = {
  .name = "unsqueeze", .signature = "x: tensor<any>, dim: int -> y",
  .doc = "Put in a dimension of size 1.\n  dim  where it stands in the result",
  .grads = "x", .layouts = "x:any", .shape = unsqueeze_shape, .grad_view = unreshape, .flags = UNIC_OP_VIEW | UNIC_OP_METHOD};

static const unic_op op_permute = {
  .name = "permute", .signature = "x: tensor<any>, dims: ints -> y",
  .doc = "Dimensions in another order.\n  dims  y's dimension i is x's dims[i]",
  .grads = "x", .layouts = "x:any", .shape = permute_shape, .grad_view = unpermute, .flags = UNIC_OP_VIEW | UNIC_OP_METHOD};

static const unic_op op_transpose = {
  .name = "transpose", .signature = "x: tensor<any>, dim1: int, dim2: int -> y",
  .doc = "Exchange two dimensions.\n  dim1, dim2  which",
  .grads = "x", .layouts = "x:any", .shape = transpose_shape, .grad_view = untranspose, .flags = UNIC_OP_VIEW | UNIC_OP_METHOD};

static const unic_op op_expand = {
  .name = "expand", .signature = "x: tensor<any>, shape: ints -> y",
  .doc = "Repeat dimensions of size 1 (and missing leading ones) without copying.\n  shape  the new sizes; -1 leaves a size as it is",
  .grads = "x", .layouts = "x:any", .shape = expand_shape, .cpu = {.backward = expand_backward, .plan = expand_plan}, .flags = UNIC_OP_VIEW | UNIC_OP_METHOD};

static const unic_op op_narrow = {
  .name = "narrow", .signature = "x: tensor<any>, dim: int, start: int, length: int, step: int = 1 -> y",
  .doc = "A window of a dimension.\n  dim  which\n  start  its first position (from 1, or from the end: -1)\n  length  how many positions\n  step  every step-th of them",
  .grads = "x", .layouts = "x:any", .shape = narrow_shape, .cpu = {.backward = narrow_backward}, .flags = UNIC_OP_VIEW | UNIC_OP_METHOD};

static const unic_op op_select = {
  .name = "select", .signature = "x: tensor<any>, dim: int, index: int -> y",
  .doc = "One position of a dimension; the dimension goes.\n  dim  which\n  index  the position (from 1, or from the end: -1)",
  .grads = "x", .layouts = "x:any", .shape = select_shape, .cpu = {.backward = select_backward}, .flags = UNIC_OP_VIEW | UNIC_OP_METHOD};

UNIC_OPS(views, &op_reshape, &op_contiguous, &op_flatten, &op_squeeze, &op_unsqueeze, &op_permute, &op_transpose, &op_expand, &op_narrow, &op_select);
