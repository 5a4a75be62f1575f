/* sort, topk, randperm: elements in order, and where they stood.
 *
 *   sort      values, ids along a dimension, ascending or descending; equal elements keep their order; NaN counts as the largest
 *   topk      the first k of that order, largest first (or smallest first)
 *   randperm  0 .. n-1 in random order: sorted by 64 bits of Philox each (numbers 2i and 2i+1 of the stream)
 * ids [same shape] are i64 and count from 0. Saved: ids; the gradient goes to where the values came from (each place at most once).
 * Every element becomes a 64-bit key that compares like it; lines are sorted by eight-bit digits (only those that differ), short ones by
 * insertion. One line belongs to one thread: any number of threads gives the same bits. */
#include "move.h"
#include "walk.h"

enum { X };
enum { SORT_DIM = 1, SORT_DESCENDING };
enum { TOP_K = 1, TOP_DIM, TOP_LARGEST };
enum { PERM_N, PERM_RNG };
enum { VALUES, IDS };
enum { TASKS = 16, SHORT = 48 };   /* lines are dealt out to this many tasks, each with its own scratch; insertion sort below SHORT */

struct entry { uint64_t key; int64_t id; };

struct sort {
  unic_view x, values, ids;    /* the dimension last */
  int64_t lines, length, k;
  bool descending;
  struct entry *room;          /* [tasks, 2, length] */
  int64_t tasks;
};

/* ---------------------------------------------------------------- keys */

/* A key that compares as unsigned the way elements compare: -0 equals 0, NaN is above everything. */
static uint64_t key_of(const void *data, int dtype, int64_t at) {
  if (dtype == UNIC_I64) return (uint64_t)((const int64_t *)data)[at] ^ 0x8000000000000000u;
  double x = unic_element_get(data, (unic_dtype)dtype, at);
  if (x != x) return UINT64_MAX;
  if (x == 0) x = 0;
  uint64_t u;
  memcpy(&u, &x, 8);
  return u >> 63 ? ~u : u | 0x8000000000000000u;
}

/* a[0 .. n-1] by key, stable; `b` is as large. The result is in a. */
static void sort_entries(struct entry *a, struct entry *b, int64_t n) {
  if (n < SHORT) {
    for (int64_t i = 1; i < n; i++) {
      struct entry e = a[i];
      int64_t j = i;
      for (; j > 0 && a[j - 1].key > e.key; j--) a[j] = a[j - 1];
      a[j] = e;
    }
    return;
  }
  uint64_t all = UINT64_MAX, any = 0;
  for (int64_t i = 0; i < n; i++) { all &= a[i].key; any |= a[i].key; }
  struct entry *from = a, *to = b;
  for (int shift = 0; shift < 64; shift += 8) {
    if (((all ^ any) >> shift & 0xff) == 0) continue;   /* this digit is the same everywhere */
    int64_t count[256] = {0}, sum = 0;
    for (int64_t i = 0; i < n; i++) count[from[i].key >> shift & 0xff]++;
    for (int d = 0; d < 256; d++) { int64_t c = count[d]; count[d] = sum; sum += c; }
    for (int64_t i = 0; i < n; i++) to[count[from[i].key >> shift & 0xff]++] = from[i];
    struct entry *t = from;
    from = to;
    to = t;
  }
  if (from != a) memcpy(a, from, (size_t)n * sizeof *a);
}

/* The k smallest keys of a line, in order, without sorting all of it: a[0 .. k-1] is kept in order, others are dropped. */
static void smallest_entries(struct entry *a, int64_t n, int64_t k) {
  int64_t have = 0;
  for (int64_t i = 0; i < n; i++) {
    struct entry e = a[i];
    if (have == k && e.key >= a[k - 1].key) continue;
    int64_t j = have < k ? have++ : k - 1;
    for (; j > 0 && a[j - 1].key > e.key; j--) a[j] = a[j - 1];
    a[j] = e;
  }
}

/* ---------------------------------------------------------------- lines */

static int64_t line_place(const unic_view *v, int64_t line) {
  int64_t at = 0;
  for (int d = v->ndim - 2; d >= 0; d--) { at += line % v->shape[d] * v->stride[d]; line /= v->shape[d]; }
  return at;
}

static void move_element(const unic_view *to, int64_t t, const unic_view *from, int64_t f) {
  switch (unic_size_of(to->dtype)) {
    case 1: ((uint8_t *)to->data)[t] = ((const uint8_t *)from->data)[f]; break;
    case 2: ((uint16_t *)to->data)[t] = ((const uint16_t *)from->data)[f]; break;
    case 4: ((uint32_t *)to->data)[t] = ((const uint32_t *)from->data)[f]; break;
    default: ((uint64_t *)to->data)[t] = ((const uint64_t *)from->data)[f];
  }
}

static void sort_task(void *context, int64_t begin, int64_t end) {
  const struct sort *s = context;
  for (int64_t task = begin; task < end; task++) {
    struct entry *a = s->room + task * 2 * s->length, *b = a + s->length;
    for (int64_t line = s->lines * task / s->tasks; line < s->lines * (task + 1) / s->tasks; line++) {
      int last = s->x.ndim - 1;
      int64_t x = line_place(&s->x, line), v = line_place(&s->values, line), id = line_place(&s->ids, line);
      for (int64_t i = 0; i < s->length; i++) {
        uint64_t key = key_of(s->x.data, s->x.dtype, x + i * s->x.stride[last]);
        a[i] = (struct entry){s->descending ? ~key : key, i};
      }
      if (s->k < s->length && s->k <= SHORT) smallest_entries(a, s->length, s->k);
      else sort_entries(a, b, s->length);
      for (int64_t i = 0; i < s->k; i++) {
        move_element(&s->values, v + i * s->values.stride[last], &s->x, x + a[i].id * s->x.stride[last]);
        ((int64_t *)s->ids.data)[id + i * s->ids.stride[last]] = a[i].id;
      }
    }
  }
}

/* The view with dimension dim moved to the end. */
static unic_view dim_last(const unic_view *v, int dim) {
  unic_view w = *v;
  for (int d = dim; d + 1 < v->ndim; d++) { w.shape[d] = v->shape[d + 1]; w.stride[d] = v->stride[d + 1]; }
  w.shape[v->ndim - 1] = v->shape[dim];
  w.stride[v->ndim - 1] = v->stride[dim];
  return w;
}

static int dim_arg(const unic_kernel *k) { return unic_dim_of(k->arg[k->op->name[0] == 't' ? TOP_DIM : SORT_DIM].integer, k->in[X].ndim); }

static int64_t task_count(int64_t lines) { return lines < TASKS ? lines : TASKS; }

static unic_status plan(const unic_kernel *k, unic_plan *p) {
  if (k->backward || k->in[X].numel == 0) return UNIC_OK;
  int64_t length = k->in[X].shape[dim_arg(k)];
  p->scratch = task_count(k->in[X].numel / length) * 2 * length * (int64_t)sizeof(struct entry);
  return UNIC_OK;
}

static unic_status forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  bool top = k->op->name[0] == 't';
  int dim = dim_arg(k);
  struct sort s = {.x = dim_last(x, dim), .values = dim_last(&k->out[VALUES], dim), .ids = dim_last(&k->out[IDS], dim), .length = x->shape[dim],
                   .k = k->out[VALUES].shape[dim], .descending = top ? k->arg[TOP_LARGEST].integer : k->arg[SORT_DESCENDING].integer, .room = k->scratch};
  if (x->numel == 0 || s.k == 0) return UNIC_OK;
  s.lines = x->numel / s.length;
  s.tasks = task_count(s.lines);
  unic_parallel_for(s.tasks, 1, sort_task, &s);
  return UNIC_OK;
}

/* dx[ids] (+)= dvalues. */
static void give_lines(void *context, int64_t begin, int64_t end) {
  const struct sort *s = context;   /* x: dx; values: dy */
  int last = s->x.ndim - 1;
  for (int64_t line = begin; line < end; line++) {
    int64_t x = line_place(&s->x, line), v = line_place(&s->values, line), id = line_place(&s->ids, line);
    for (int64_t i = 0; i < s->k; i++) {
      int64_t to = x + ((const int64_t *)s->ids.data)[id + i * s->ids.stride[last]] * s->x.stride[last];
      double g = unic_element_get(s->values.data, (unic_dtype)s->values.dtype, v + i * s->values.stride[last]);
      unic_element_set(s->x.data, (unic_dtype)s->x.dtype, to, g + unic_element_get(s->x.data, (unic_dtype)s->x.dtype, to));
    }
  }
}

static unic_status backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X], *dy = &k->dout[VALUES];
  int dim = dim_arg(k);
  if (dx->numel == 0) return UNIC_OK;
  if (!k->accumulate[X]) unic_move_fill(dx, 0);
  if (!dy->data || dy->numel == 0) return UNIC_OK;
  struct sort s = {.x = dim_last(dx, dim), .values = dim_last(dy, dim), .ids = dim_last(&k->out[IDS], dim), .k = dy->shape[dim]};
  int64_t chunk = UNIC_WALK_CHUNK / s.k;
  unic_parallel_for(dy->numel / s.k, chunk < 1 ? 1 : chunk, give_lines, &s);
  return UNIC_OK;
}

static unic_status sort_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int dim;
  if (x->ndim == 0) return unic_fail_arg(c, X, "it has no dimensions to sort along");
  UNIC_TRY(unic_dim(c, SORT_DIM, c->arg[SORT_DIM].integer, x->ndim, &dim));
  unic_out(c, VALUES, x->dtype, x->ndim, x->shape);
  unic_out(c, IDS, UNIC_I64, x->ndim, x->shape);
  return UNIC_OK;
}

static unic_status top_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int dim;
  int64_t shape[UNIC_MAX_RANK], k = c->arg[TOP_K].integer;
  if (x->ndim == 0) return unic_fail_arg(c, X, "it has no dimensions to search");
  UNIC_TRY(unic_dim(c, TOP_DIM, c->arg[TOP_DIM].integer, x->ndim, &dim));
  if (k < 0 || k > x->shape[dim]) return unic_fail_arg(c, TOP_K, "%lld was given, dimension %d has %lld elements", (long long)k, dim + 1, (long long)x->shape[dim]);
  memcpy(shape, x->shape, sizeof shape);
  shape[dim] = k;
  unic_out(c, VALUES, x->dtype, x->ndim, shape);
  unic_out(c, IDS, UNIC_I64, x->ndim, shape);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- randperm */

static unic_status perm_shape(unic_call *c) {
  int64_t n = c->arg[PERM_N].integer;
  if (n < 0) return unic_fail_arg(c, PERM_N, "%lld was given, expected 0 or more", (long long)n);
  unic_out(c, 0, UNIC_I64, 1, &n);
  return UNIC_OK;
}

static unic_status perm_plan(const unic_kernel *k, unic_plan *p) {
  p->scratch = k->arg[PERM_N].integer * 2 * (int64_t)sizeof(struct entry);
  return UNIC_OK;
}

static unic_status perm_forward(const unic_kernel *k) {
  int64_t n = k->arg[PERM_N].integer, *rng = k->in[PERM_RNG].data, *to = k->out[0].data;
  struct entry *a = k->scratch;
  for (int64_t i = 0; i < n; i++) {
    uint32_t four[4];
    unic_philox((uint64_t)rng[0], (uint64_t)rng[1] + (uint64_t)(i >> 1), four);
    a[i] = (struct entry){(uint64_t)four[2 * (i & 1)] << 32 | four[2 * (i & 1) + 1], i};
  }
  sort_entries(a, a + n, n);
  for (int64_t i = 0; i < n; i++) to[i] = a[i].id;
  rng[1] += unic_random_blocks(2 * n);
  return UNIC_OK;
}

static const unic_op op_sort = {
  .name = "sort",
  .signature = "x: tensor, dim: int = -1, descending: bool = false -> values, ids",
  .doc = "Elements in order along a dimension, and where they stood (i64, counted from 0). Equal ones keep their order; NaN counts as the largest.\n"
         "dim         the dimension, counted from 1 or from the end\n"
         "descending  the largest first",
  .saves = "ids", .grads = "x", .layouts = "x:any", .shape = sort_shape, .cpu = {.forward = forward, .backward = backward, .plan = plan},
  .flags = UNIC_OP_METHOD | UNIC_OP_INTS};

static const unic_op op_topk = {
  .name = "topk",
  .signature = "x: tensor, k: int, dim: int = -1, largest: bool = true -> values, ids",
  .doc = "The k largest (or smallest) elements along a dimension in order, and where they stood (i64, counted from 0).\n"
         "k        how many\n"
         "dim      the dimension, counted from 1 or from the end\n"
         "largest  false: the smallest",
  .saves = "ids", .grads = "x", .layouts = "x:any", .shape = top_shape, .cpu = {.forward = forward, .backward = backward, .plan = plan},
  .flags = UNIC_OP_METHOD | UNIC_OP_INTS};

static const unic_op op_randperm = {
  .name = "randperm",
  .signature = "n: int, rng: rng -> y",
  .doc = "The numbers 0 .. n-1 in random order (i64).\n"
         "n    how many\n"
         "rng  a generator; the device's own when absent",
  .shape = perm_shape, .cpu = {.forward = perm_forward, .plan = perm_plan}, .flags = UNIC_OP_NO_GRAD};

UNIC_OPS(sort, &op_sort, &op_topk, &op_randperm);
