/* index_select, gather, scatter_add on the GPU (kernels/index.c).
 *
 * Taking (their forwards, and scatter_add's gradient of src): one thread per element of the result, which is written in order; whole rows behind the
 * dimension are moved 16 bytes at a time where they are contiguous. Positions are checked by a pass of their own over the ids.
 * Adding (the gradients of index_select and gather, and scatter_add): the positions of a line are sorted (sort.cuh), equal ones in their order; one thread
 * takes a position's first place in that order and adds up everything that goes there, beginning with what is there: the CPU's order, one rounding, no
 * atomics. Positions out of range come last and add nothing. */
#include "convert.cuh"
#include "ids.cuh"
#include "move.cuh"
#include "reduce.cuh"
#include "sort.cuh"

#include <stdio.h>

namespace {

enum { X, DIM, IDS, SRC };
enum { THREADS = 256 };

struct alignas(16) chunk { unsigned long long a, b; };

/* ---------------------------------------------------------------- positions */

__global__ void check_ids(unic_ids ids, unic_axes<1> places, int64_t length, int dim, unic_cuda_flag *flag, int site) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < places.count; i += (int64_t)gridDim.x * blockDim.x) {
    int64_t id = unic_id(ids, unic_axes_at(places, i));
    if (id < 0 || id >= length) unic_note_first(flag, site, ids, i, length, dim, [&places](int64_t j) { return unic_axes_at(places, j); });
  }
}

void check(const unic_kernel *k, int64_t length) {
  const unic_view *ids = &k->in[IDS];
  if (ids->numel == 0) return;
  char sentence[160];
  snprintf(sentence, sizeof sentence, "[%s] argument 'ids': value %%lld at position %%lld is outside 0..%%lld, the places of dimension %%lld", unic_cuda_host->op_name(k->op));
  const unic_view *const views[1] = {ids};
  UNIC_LAUNCH(check_ids, unic_blocks(k, ids->numel, THREADS), THREADS, 0, unic_cuda_stream(k), unic_ids_of(ids), unic_axes_of((UINT32_C(1) << ids->ndim) - 1, views), length,
              unic_dim_of(k->arg[DIM].integer, k->in[X].ndim) + 1, unic_cuda_of(k)->flag, unic_cuda_site(sentence));
}

bool selects(const unic_kernel *k) { return unic_cuda_host->op_name(k->op)[0] == 'i'; }

/* A view with y's shape: the ids (of index_select along the dimension alone), or x without its dimension (stride 0 there). */
unic_view spread_ids(const unic_kernel *k, const unic_view *y, int dim) {
  const unic_view *ids = &k->in[IDS];
  if (!selects(k)) return *ids;
  unic_view v = *y;
  v.data = ids->data;
  v.dtype = ids->dtype;
  for (int d = 0; d < y->ndim; d++) v.stride[d] = d == dim ? ids->stride[0] : 0;
  return v;
}
unic_view without_dim(const unic_view *x, int dim) {
  unic_view v = *x;
  v.stride[dim] = 0;
  return v;
}

/* ---------------------------------------------------------------- taking */

/* y[i] = (or +=) x[.. id ..]; places: y, x without the dimension, ids, over all of y. A position out of range reads the first one. */
template <class T, bool ADD> __global__ void take_elements(T *y, const T *x, unic_ids ids, unic_axes<3> places, int64_t length, int64_t stride) {
  for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < places.count; i += (int64_t)gridDim.x * THREADS) {
    int64_t at[3];
    unic_axes_find(places, i, at);
    int64_t id = unic_id(ids, at[2]);
    if (id < 0 || id >= length) id = 0;
    const T v = x[at[1] + id * stride];
    if constexpr (ADD) y[at[0]] = unic_narrow<T>(unic_widen(y[at[0]]) + unic_widen(v));
    else y[at[0]] = v;
  }
}

/* Rows of `inner` pieces: y [outer, count, inner], x [outer, length, inner], both row-major. */
template <class R> __global__ void take_rows(R *y, const R *x, unic_ids ids, int64_t step, unic_split inner, unic_split count, int64_t length, int64_t n) {
  for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
    const int64_t row = unic_outer(inner, i), outer = unic_outer(count, row);
    int64_t id = unic_id(ids, (row - outer * count.by) * step);
    if (id < 0 || id >= length) id = 0;
    y[i] = x[(outer * length + id) * inner.by + i - row * inner.by];
  }
}

bool is_row_major(const unic_view *v) {
  int64_t stride = 1;
  for (int d = v->ndim - 1; d >= 0; d--) {
    if (v->shape[d] != 1 && v->stride[d] != stride) return false;
    stride *= v->shape[d];
  }
  return true;
}

/* y = x[ids]. */
void take(const unic_kernel *k, const unic_view *y, const unic_view *x) {
  const int dim = unic_dim_of(k->arg[DIM].integer, x->ndim), size = unic_size_of(x->dtype);
  const int64_t length = x->shape[dim];
  cudaStream_t stream = unic_cuda_stream(k);
  if (y->numel == 0 || x->numel == 0) return;   /* no position can be right in a dimension of size 0 */
  int64_t bytes = size;
  for (int d = dim + 1; d < x->ndim; d++) bytes *= x->shape[d];
  if (selects(k) && bytes % 16 == 0 && is_row_major(x) && is_row_major(y) && unic_aligned16((char *)x->data, (char *)y->data)) {
    const int64_t n = y->numel * size / 16;
    UNIC_LAUNCH((take_rows<chunk>), unic_blocks(k, n, THREADS), THREADS, 0, stream, (chunk *)y->data, (const chunk *)x->data, unic_ids_of(&k->in[IDS]), k->in[IDS].stride[0],
                unic_split_of(bytes / 16), unic_split_of(y->shape[dim]), length, n);
    return;
  }
  const unic_view flat = without_dim(x, dim), ids = spread_ids(k, y, dim);
  const unic_view *const views[3] = {y, &flat, &ids};
  const unic_axes<3> places = unic_axes_of((UINT32_C(1) << y->ndim) - 1, views);
  unic_raw(size, [&](auto t) {
    using T = decltype(t);
    UNIC_LAUNCH((take_elements<T, false>), unic_blocks(k, y->numel, THREADS), THREADS, 0, stream, (T *)y->data, (const T *)x->data, unic_ids_of(&ids), places, length, x->stride[dim]);
  });
}

unic_status take_forward(const unic_kernel *k) {
  check(k, k->in[X].shape[unic_dim_of(k->arg[DIM].integer, k->in[X].ndim)]);
  take(k, &k->out[0], &k->in[X]);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- adding */

/* keys [lines, count]: positions, or `length` where they are out of range; places: of ids, the dimension last. */
__global__ void make_keys(unic_ids ids, unic_axes<1> lines, unic_split count, int64_t step, int64_t n, int64_t length, uint32_t *keys) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
    const int64_t line = unic_outer(count, i), id = unic_id(ids, unic_axes_at(lines, line) + (i - line * count.by) * step);
    keys[i] = (uint32_t)(id < 0 || id >= length ? length : id);
  }
}

/* to[.. id ..] += from[.. j ..] for all j of one id. lines: to and from without the dimension. COMMON: one order for all lines (index_select), lines
 * counted fastest; otherwise each line has its own. */
template <class T, bool COMMON>
__global__ void add_elements(T *to, const T *from, const uint32_t *keys, const uint32_t *order, unic_axes<2> lines, unic_split split, int64_t count, int64_t length,
                                                        int64_t ts, int64_t fs, int64_t n) {
  for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
    const int64_t outer = unic_outer(split, i), rest = i - outer * split.by, line = COMMON ? rest : outer;
    int64_t s = COMMON ? outer : rest;
    const uint32_t *key = keys + (COMMON ? 0 : line * count), *place = order + (COMMON ? 0 : line * count);
    const uint32_t id = key[s];
    if (id >= length || (s > 0 && key[s - 1] == id)) continue;
    int64_t at[2];
    unic_axes_find(lines, line, at);
    T *y = to + at[0] + id * ts;
    unic_exact<T> sum = unic_exactly(*y);
    for (; s < count && key[s] == id; s++) sum += unic_exactly(from[at[1] + place[s] * fs]);
    *y = unic_convert<T>(sum);
  }
}

int64_t lines_of(const unic_kernel *k, const unic_view *from, int dim) { return selects(k) || from->shape[dim] == 0 ? 1 : from->numel / from->shape[dim]; }

/* What has the shape of the positions' values: the gradient of what was taken, or src. */
const unic_view *added(const unic_kernel *k) { return k->backward ? &k->dout[0] : &k->in[SRC]; }

bool adds(const unic_kernel *k) { return (unic_cuda_host->op_name(k->op)[0] == 's') != (bool)k->backward; }

unic_status plan(const unic_kernel *k, unic_plan *p) {
  if (!adds(k)) return UNIC_OK;
  const int dim = unic_dim_of(k->arg[DIM].integer, k->in[X].ndim);
  const unic_view *from = k->backward ? &k->out[0] : &k->in[SRC];
  if (from->numel) p->scratch = unic_cuda_sort_bytes(lines_of(k, from, dim), from->shape[dim], 4);
  return UNIC_OK;
}

/* to[ids] += from. */
void add_at(const unic_kernel *k, const unic_view *to, const unic_view *from) {
  const int dim = unic_dim_of(k->arg[DIM].integer, to->ndim);
  if (from->numel == 0) return;
  const bool common = selects(k);
  const int64_t count = from->shape[dim], length = to->shape[dim], others = from->numel / count, lines = common ? 1 : others, n = lines * count;
  cudaStream_t stream = unic_cuda_stream(k);
  const unic_view *ids = &k->in[IDS], *const id_views[1] = {ids};
  const int id_dim = common ? 0 : dim;
  UNIC_LAUNCH(make_keys, unic_blocks(k, n, THREADS), THREADS, 0, stream, unic_ids_of(ids), unic_axes_of(unic_other_dims(ids->ndim, id_dim), id_views), unic_split_of(count), ids->stride[id_dim], n,
              length, (uint32_t *)k->scratch);
  const unic_sorted sorted = unic_cuda_sort(k, k->scratch, lines, count, 4, unic_bits_of(length));
  const unic_view *const views[2] = {from, to};   /* the shape is that of `from`: gather may take less than all lines */
  unic_axes<2> axes = unic_axes_of(unic_other_dims(to->ndim, dim), views);
  for (int d = 0; d < axes.ndim; d++) std::swap(axes.stride[0][d], axes.stride[1][d]);
  unic_types(to->dtype, [&](auto t) {
    using T = decltype(t);
    unsigned grid = unic_blocks(k, from->numel, THREADS);
    if (common)
      UNIC_LAUNCH((add_elements<T, true>), grid, THREADS, 0, stream, (T *)to->data, (const T *)from->data, (const uint32_t *)sorted.keys, sorted.ids, axes, unic_split_of(others), count, length,
                  to->stride[dim], from->stride[dim], from->numel);
    else
      UNIC_LAUNCH((add_elements<T, false>), grid, THREADS, 0, stream, (T *)to->data, (const T *)from->data, (const uint32_t *)sorted.keys, sorted.ids, axes, unic_split_of(count), count, length,
                  to->stride[dim], from->stride[dim], from->numel);
  });
}

unic_status take_backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X];
  if (dx->numel == 0) return UNIC_OK;
  if (!k->accumulate[X]) unic_cuda_move_fill(k, dx, 0);
  add_at(k, dx, added(k));
  return UNIC_OK;
}

unic_status scatter_forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  check(k, x->shape[unic_dim_of(k->arg[DIM].integer, x->ndim)]);
  if (x->numel == 0) return UNIC_OK;
  unic_cuda_move(k, &k->out[0], x);
  add_at(k, &k->out[0], added(k));
  return UNIC_OK;
}

unic_status scatter_backward(const unic_kernel *k) {
  const unic_view *dy = &k->dout[0], *dx = &k->din[X], *dsrc = &k->din[SRC];
  if (dx->present) unic_cuda_move_gradient(k, dx, dy, k->accumulate[X]);
  if (!dsrc->present || dsrc->numel == 0) return UNIC_OK;
  if (!k->accumulate[SRC]) {
    take(k, dsrc, dy);
    return UNIC_OK;
  }
  const int dim = unic_dim_of(k->arg[DIM].integer, dy->ndim);
  const unic_view flat = without_dim(dy, dim), *const views[3] = {dsrc, &flat, &k->in[IDS]};
  const unic_axes<3> places = unic_axes_of((UINT32_C(1) << dsrc->ndim) - 1, views);
  unic_floats(dsrc->dtype, [&](auto t) {
    using T = decltype(t);
    UNIC_LAUNCH((take_elements<T, true>), unic_blocks(k, dsrc->numel, THREADS), THREADS, 0, unic_cuda_stream(k), (T *)dsrc->data, (const T *)dy->data, unic_ids_of(&k->in[IDS]), places,
                dy->shape[dim], dy->stride[dim]);
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(index, {"index_select", {.forward = take_forward, .backward = take_backward, .plan = plan}}, {"gather", {.forward = take_forward, .backward = take_backward, .plan = plan}},
              {"scatter_add", {.forward = scatter_forward, .backward = scatter_backward, .plan = plan}});
