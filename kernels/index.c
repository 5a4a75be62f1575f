/* Elements by positions that stand in a tensor (counted from 0): index_select, gather, scatter_add.
 *
 *   index_select  x [.., D, ..], ids [K]            y[.., j, ..] = x[.., ids[j], ..]
 *   gather        x [.., D, ..], ids [same rank]    y[.., j, ..] = x[.., ids[.., j, ..], ..]     y has the shape of ids
 *   scatter_add   x, ids, src [shape of ids]        y = x, then y[.., ids[.., j, ..], ..] += src[.., j, ..]
 * Saved: ids. Gradients: of index_select and gather a sum over all j that point to an element; of scatter_add dy itself and gather(dy).
 * Sums run in the order of j within one line of the dimension, and lines are never shared between threads: no atomics, and any number of threads
 * gives the same bits. bf16 and f16 gradients are summed in f32 scratch. A position outside 0..D-1 is a sentence that names the first one. */
#include "move.h"
#include "walk.h"

enum { X, DIM, IDS, SRC };

struct lines {
  unic_view x, y, ids;         /* what is indexed; what has the positions' shape; the positions (stride 0 where index_select has none) */
  int dim, size;
  int64_t count, length;       /* positions in a line; elements of x in a line */
  int64_t bad;                 /* number of the first position out of range among all of ids; INT64_MAX: none */
};

static inline int64_t id_at(const unic_view *ids, int64_t at) { return ids->dtype == UNIC_I64 ? ((const int64_t *)ids->data)[at] : ((const int32_t *)ids->data)[at]; }

/* Where line `line` (the other dimensions of y in order) begins in x, y and ids. */
static void line_places(const struct lines *s, int64_t line, int64_t *x, int64_t *y, int64_t *ids) {
  *x = *y = *ids = 0;
  for (int d = s->y.ndim - 1; d >= 0; d--) {
    if (d == s->dim) continue;
    int64_t p = line % s->y.shape[d];
    line /= s->y.shape[d];
    *x += p * s->x.stride[d];
    *y += p * s->y.stride[d];
    *ids += p * s->ids.stride[d];
  }
}

/* Check every position; note the first bad one. */
static void check_ids(void *context, int64_t begin, int64_t end) {
  struct lines *s = context;
  for (int64_t i = begin; i < end; i++) {
    int64_t rest = i, at = 0;
    for (int d = s->ids.ndim - 1; d >= 0; d--) { at += rest % s->ids.shape[d] * s->ids.stride[d]; rest /= s->ids.shape[d]; }
    int64_t id = id_at(&s->ids, at);
    if (id >= 0 && id < s->length) continue;
    int64_t seen = __atomic_load_n(&s->bad, __ATOMIC_RELAXED);
    while (i < seen && !__atomic_compare_exchange_n(&s->bad, &seen, i, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    return;
  }
}

static unic_status verify(const unic_kernel *k, int64_t length) {
  struct lines s = {.ids = k->in[IDS], .length = length, .bad = INT64_MAX};
  unic_parallel_for(s.ids.numel, UNIC_WALK_CHUNK, check_ids, &s);
  if (s.bad == INT64_MAX) return UNIC_OK;
  int64_t rest = s.bad, at = 0;
  for (int d = s.ids.ndim - 1; d >= 0; d--) { at += rest % s.ids.shape[d] * s.ids.stride[d]; rest /= s.ids.shape[d]; }
  return unic_fail("[%s] argument 'ids': value %lld at position %lld is outside 0..%lld, the places of dimension %d", k->op->name, (long long)id_at(&s.ids, at),
                   (long long)s.bad, (long long)length - 1, unic_dim_of(k->arg[DIM].integer, k->in[X].ndim) + 1);
}

/* y = x[ids], line by line. */
#define TAKE(type) \
  for (int64_t j = 0; j < s->count; j++) ((type *)s->y.data)[y + j * ys] = ((const type *)s->x.data)[x + id_at(&s->ids, ids + j * is) * xs]
static void take_lines(void *context, int64_t begin, int64_t end) {
  const struct lines *s = context;
  int64_t xs = s->x.stride[s->dim], ys = s->y.stride[s->dim], is = s->ids.stride[s->dim];
  for (int64_t line = begin; line < end; line++) {
    int64_t x, y, ids;
    line_places(s, line, &x, &y, &ids);
    switch (s->size) {
      case 1: TAKE(uint8_t); break;
      case 2: TAKE(uint16_t); break;
      case 4: TAKE(uint32_t); break;
      default: TAKE(uint64_t);
    }
  }
}

/* x[ids] += y, line by line; x is f32 or f64. */
static void add_lines(void *context, int64_t begin, int64_t end) {
  const struct lines *s = context;
  int64_t xs = s->x.stride[s->dim], ys = s->y.stride[s->dim], is = s->ids.stride[s->dim];
  for (int64_t line = begin; line < end; line++) {
    int64_t x, y, ids;
    line_places(s, line, &x, &y, &ids);
    for (int64_t j = 0; j < s->count; j++) {
      int64_t to = x + id_at(&s->ids, ids + j * is) * xs, from = y + j * ys;
      switch (s->x.dtype) {
        case UNIC_F32: ((float *)s->x.data)[to] += s->y.dtype == UNIC_F32 ? ((const float *)s->y.data)[from] : (float)unic_element_get(s->y.data, (unic_dtype)s->y.dtype, from); break;
        case UNIC_I64: ((uint64_t *)s->x.data)[to] += ((const uint64_t *)s->y.data)[from]; break;
        default: unic_element_set(s->x.data, (unic_dtype)s->x.dtype, to, unic_element_get(s->x.data, (unic_dtype)s->x.dtype, to) + unic_element_get(s->y.data, (unic_dtype)s->y.dtype, from));
      }
    }
  }
}

/* Whole rows of elements behind the dimension: x [outer, D, inner], contiguous on both sides. */
struct rows {
  const char *x;
  char *y;
  const unic_view *ids;
  int64_t count, length, bytes;
};
static void take_rows(void *context, int64_t begin, int64_t end) {
  const struct rows *s = context;
  for (int64_t i = begin; i < end; i++) {
    int64_t outer = i / s->count, id = id_at(s->ids, i % s->count * s->ids->stride[0]);
    memcpy(s->y + i * s->bytes, s->x + (outer * s->length + id) * s->bytes, (size_t)s->bytes);
  }
}

/* The same for sums in f32: tasks are (outer, block of columns), so that no two touch one element of x. */
struct row_sums {
  float *x;
  const void *y;
  const unic_view *ids;
  int dtype;                   /* of y */
  int64_t count, length, inner, blocks;
};
enum { COLUMNS = 128 };
static void add_rows(void *context, int64_t begin, int64_t end) {
  const struct row_sums *s = context;
  float buffer[COLUMNS];
  for (int64_t task = begin; task < end; task++) {
    int64_t outer = task / s->blocks, first = task % s->blocks * COLUMNS, n = s->inner - first < COLUMNS ? s->inner - first : COLUMNS;
    for (int64_t j = 0; j < s->count; j++) {
      const float *restrict y = unic_row_load(s->y, s->dtype, (outer * s->count + j) * s->inner + first, n, buffer);
      float *restrict x = s->x + (outer * s->length + id_at(s->ids, j * s->ids->stride[0])) * s->inner + first;
      for (int64_t i = 0; i < n; i++) x[i] += y[i];
    }
  }
}

/* ---------------------------------------------------------------- shapes */

static unic_status dim_of(unic_call *c, int *dim) {
  const unic_tensor *x = c->in[X];
  if (x->ndim == 0) return unic_fail_arg(c, X, "it has no dimensions");
  return unic_dim(c, DIM, c->arg[DIM].integer, x->ndim, dim);
}

static unic_status index_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int dim;
  UNIC_TRY(dim_of(c, &dim));
  int64_t shape[UNIC_MAX_RANK];
  memcpy(shape, x->shape, sizeof shape);
  shape[dim] = c->in[IDS]->shape[0];
  unic_out(c, 0, c->type, x->ndim, shape);
  return UNIC_OK;
}

/* ids has x's rank, and no more positions than x along the other dimensions. */
static unic_status check_rank(unic_call *c, int dim) {
  const unic_tensor *x = c->in[X], *ids = c->in[IDS];
  bool fits = x->ndim == ids->ndim;
  for (int d = 0; fits && d < x->ndim; d++) fits = d == dim || ids->shape[d] <= x->shape[d];
  if (fits) return UNIC_OK;
  char a[128], b[128];
  return unic_fail_arg(c, IDS, "its shape is %s, x has %s; as many dimensions are expected, none larger but dimension %d", unic_shape_describe(ids->ndim, ids->shape, a, sizeof a),
                       unic_shape_describe(x->ndim, x->shape, b, sizeof b), dim + 1);
}

static unic_status gather_shape(unic_call *c) {
  int dim;
  UNIC_TRY(dim_of(c, &dim));
  UNIC_TRY(check_rank(c, dim));
  unic_out(c, 0, c->type, c->in[IDS]->ndim, c->in[IDS]->shape);
  return UNIC_OK;
}

static unic_status scatter_shape(unic_call *c) {
  const unic_tensor *ids = c->in[IDS], *src = c->in[SRC];
  int dim;
  UNIC_TRY(dim_of(c, &dim));
  UNIC_TRY(check_rank(c, dim));
  bool same = ids->ndim == src->ndim;
  for (int d = 0; same && d < ids->ndim; d++) same = ids->shape[d] == src->shape[d];
  if (!same) {
    char a[128], b[128];
    return unic_fail_arg(c, SRC, "its shape is %s, ids has %s; one element per position is expected", unic_shape_describe(src->ndim, src->shape, a, sizeof a),
                         unic_shape_describe(ids->ndim, ids->shape, b, sizeof b));
  }
  unic_out(c, 0, c->type, c->in[X]->ndim, c->in[X]->shape);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- runs */

/* The positions of index_select as a view of y's rank. */
static unic_view spread_ids(const unic_kernel *k, const unic_view *y, int dim) {
  const unic_view *ids = &k->in[IDS];
  if (k->op->name[0] != 'i') return *ids;
  unic_view v = *ids;
  v.ndim = y->ndim;
  for (int d = 0; d < y->ndim; d++) { v.shape[d] = y->shape[d]; v.stride[d] = d == dim ? ids->stride[0] : 0; }
  return v;
}

static struct lines make_lines(const unic_kernel *k, const unic_view *x, const unic_view *y) {
  int dim = unic_dim_of(k->arg[DIM].integer, x->ndim);
  return (struct lines){.x = *x, .y = *y, .ids = spread_ids(k, y, dim), .dim = dim, .size = unic_size_of(x->dtype), .count = y->shape[dim], .length = x->shape[dim]};
}

static void run_lines(struct lines *s, unic_body *body) {
  if (s->y.numel == 0) return;
  int64_t chunk = UNIC_WALK_CHUNK / s->count;
  unic_parallel_for(s->y.numel / s->count, chunk < 1 ? 1 : chunk, body, s);
}

static bool is_row_major(const unic_view *v) {
  int64_t stride = 1;
  for (int d = v->ndim - 1; d >= 0; d--) {
    if (v->shape[d] != 1 && v->stride[d] != stride) return false;
    stride *= v->shape[d];
  }
  return true;
}

static unic_status take_forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *y = &k->out[0];
  int dim = unic_dim_of(k->arg[DIM].integer, x->ndim);
  UNIC_TRY(verify(k, x->shape[dim]));
  if (y->numel == 0) return UNIC_OK;
  int64_t inner = 1;
  for (int d = dim + 1; d < x->ndim; d++) inner *= x->shape[d];
  if (k->op->name[0] == 'i' && inner > 1 && is_row_major(x)) {
    struct rows r = {.x = x->data, .y = y->data, .ids = &k->in[IDS], .count = y->shape[dim], .length = x->shape[dim], .bytes = inner * unic_size_of(x->dtype)};
    int64_t chunk = UNIC_WALK_CHUNK / inner;
    unic_parallel_for(y->numel / inner, chunk < 1 ? 1 : chunk, take_rows, &r);
    return UNIC_OK;
  }
  struct lines s = make_lines(k, x, y);
  run_lines(&s, take_lines);
  return UNIC_OK;
}

static unic_view scratch_like(const unic_view *v, void *data) {
  unic_view w = *v;
  int64_t stride = 1;
  w.data = data;
  w.dtype = UNIC_F32;
  for (int d = w.ndim - 1; d >= 0; d--) { w.stride[d] = stride; stride *= w.shape[d]; }
  return w;
}

/* Half-precision sums need an f32 copy of what is added to. */
static unic_status plan(const unic_kernel *k, unic_plan *p) {
  bool adds = k->backward ? k->op->name[0] != 's' : k->op->name[0] == 's';
  if (adds && unic_dtype_is_half((unic_dtype)k->in[X].dtype)) p->scratch = k->in[X].numel * (int64_t)sizeof(float);
  return UNIC_OK;
}

/* to = start (NULL: 0), then to[ids] += from; summed in f32 for bf16 and f16. */
static void add_at(const unic_kernel *k, const unic_view *to, const unic_view *start, const unic_view *from) {
  unic_view sum = unic_dtype_is_half((unic_dtype)to->dtype) ? scratch_like(to, k->scratch) : *to;
  if (!start) unic_move_fill(&sum, 0);
  else if (sum.data != start->data) unic_move(&sum, start);
  int dim = unic_dim_of(k->arg[DIM].integer, to->ndim);
  int64_t inner = 1;
  for (int d = dim + 1; d < to->ndim; d++) inner *= to->shape[d];
  if (k->op->name[0] == 'i' && inner > 1 && sum.dtype == UNIC_F32 && from->dtype != UNIC_F64 && is_row_major(&sum) && is_row_major(from)) {
    struct row_sums r = {.x = sum.data, .y = from->data, .ids = &k->in[IDS], .dtype = from->dtype, .count = from->shape[dim], .length = to->shape[dim],
                         .inner = inner, .blocks = (inner + COLUMNS - 1) / COLUMNS};
    if (from->numel) unic_parallel_for(from->numel / (r.count * inner) * r.blocks, 1, add_rows, &r);
  } else {
    struct lines s = make_lines(k, &sum, from);
    run_lines(&s, add_lines);
  }
  if (sum.data != to->data) unic_move(to, &sum);
}

static unic_status take_backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X];
  if (dx->numel) add_at(k, dx, k->accumulate[X] ? dx : NULL, &k->dout[0]);
  return UNIC_OK;
}

static unic_status scatter_forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  UNIC_TRY(verify(k, x->shape[unic_dim_of(k->arg[DIM].integer, x->ndim)]));
  if (x->numel) add_at(k, &k->out[0], x, &k->in[SRC]);
  return UNIC_OK;
}

static unic_status scatter_backward(const unic_kernel *k) {
  const unic_view *dy = &k->dout[0], *dx = &k->din[X], *dsrc = &k->din[SRC];
  if (dx->present) unic_move_gradient(dx, dy, k->accumulate[X]);
  if (!dsrc->present || dsrc->numel == 0) return UNIC_OK;
  if (!k->accumulate[SRC]) {
    struct lines s = make_lines(k, dy, dsrc);
    run_lines(&s, take_lines);
    return UNIC_OK;
  }
  /* dsrc += dy[ids]: element by element, through the lines of dsrc. */
  struct lines s = make_lines(k, dy, dsrc);
  for (int64_t line = 0; line < dsrc->numel / s.count; line++) {
    int64_t x, y, ids;
    line_places(&s, line, &x, &y, &ids);
    for (int64_t j = 0; j < s.count; j++) {
      int64_t to = y + j * dsrc->stride[s.dim], from = x + id_at(&s.ids, ids + j * s.ids.stride[s.dim]) * dy->stride[s.dim];
      unic_element_set(dsrc->data, (unic_dtype)dsrc->dtype, to, unic_element_get(dsrc->data, (unic_dtype)dsrc->dtype, to) + unic_element_get(dy->data, (unic_dtype)dy->dtype, from));
    }
  }
  return UNIC_OK;
}

static const unic_op op_index_select = {
  .name = "index_select",
  .signature = "x: tensor, dim: int, ids: tensor<int>[K] -> y",
  .doc = "The places of a dimension that a list of positions names, in its order.\n"
         "dim  the dimension, counted from 1 or from the end\n"
         "ids  positions, counted from 0; they may repeat",
  .saves = "ids", .grads = "x", .layouts = "x:any ids:any", .shape = index_shape, .cpu = {.forward = take_forward, .backward = take_backward, .plan = plan},
  .flags = UNIC_OP_METHOD | UNIC_OP_INTS};

static const unic_op op_gather = {
  .name = "gather",
  .signature = "x: tensor, dim: int, ids: tensor<int> -> y",
  .doc = "One element of x per position: y[i][j] = x[i][ids[i][j]] along the last of two dimensions, and so on.\n"
         "dim  the dimension that the positions count\n"
         "ids  positions, counted from 0; as many dimensions as x, the others no larger than x's",
  .saves = "ids", .grads = "x", .layouts = "x:any ids:any", .shape = gather_shape, .cpu = {.forward = take_forward, .backward = take_backward, .plan = plan},
  .flags = UNIC_OP_METHOD | UNIC_OP_INTS};

static const unic_op op_scatter_add = {
  .name = "scatter_add",
  .signature = "x: tensor, dim: int, ids: tensor<int>, src: tensor -> y",
  .doc = "x with the elements of src added at positions: y[i][ids[i][j]] = x[..] + src[i][j] along the last of two dimensions, and so on.\n"
         "dim  the dimension that the positions count\n"
         "ids  positions, counted from 0\n"
         "src  what is added, of the shape of ids",
  .saves = "ids", .grads = "x src", .layouts = "x:any ids:any src:any", .shape = scatter_shape, .cpu = {.forward = scatter_forward, .backward = scatter_backward, .plan = plan},
  .flags = UNIC_OP_METHOD | UNIC_OP_INTS};

UNIC_OPS(index, &op_index_select, &op_gather, &op_scatter_add);
