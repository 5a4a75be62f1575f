/* embedding: y[i, :] = table[ids[i], :].
 *
 * ids [N] (any shape), i32 or i64, counted from 0; table [V, C]; y [ids..., C]. Saved: ids.
 * Backward: dtable[ids[i], :] += dy[i, :] for i = 0, 1, ... in that order; rows whose id equals `padding` get nothing. The gradient of the table is
 * sparse in rows: the kernel always adds, and touches only the rows that occur, never all V of them. Threads divide the columns, not the rows of
 * dy, so every element is summed by one thread in the order of the ids: no atomics, no scratch, and the same bits at any number of threads.
 * An id outside 0..V-1 gives zeros in y and a sentence that names the first one. */
#include "loops.h"

enum { IDS, TABLE, PADDING };
enum { Y };

struct embedding {
  const void *ids;
  bool wide;               /* ids are i64 */
  int64_t count, rows, columns, padding;
  int dtype, size;         /* of table, y, dy */
  const void *table, *dy;
  void *y;
  float *dtable;           /* [V, C]: gradients of parameters are f32 */
  int64_t bad;             /* position of the first id out of range; INT64_MAX: none */
};

static inline int64_t id_at(const struct embedding *e, int64_t i) { return e->wide ? ((const int64_t *)e->ids)[i] : ((const int32_t *)e->ids)[i]; }

#if UNIC_LOOPS

UNIC_LOOP(embedding_forward) {
  struct embedding *e = context;
  int64_t bytes = e->columns * e->size;
  for (int64_t i = begin; i < end; i++) {
    int64_t id = id_at(e, i);
    char *to = (char *)e->y + i * bytes;
    if (id >= 0 && id < e->rows) {
      memcpy(to, (const char *)e->table + id * bytes, (size_t)bytes);
    } else {
      memset(to, 0, (size_t)bytes);
      int64_t seen = __atomic_load_n(&e->bad, __ATOMIC_RELAXED);
      while (i < seen && !__atomic_compare_exchange_n(&e->bad, &seen, i, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
    }
  }
}

/* Columns begin .. end-1 of every row. */
UNIC_LOOP(embedding_backward) {
  const struct embedding *e = context;
  float buffer[UNIC_ROW];
  enum { AHEAD = 4 };   /* the rows that ids will point to are nowhere near each other: fetch them early */
  for (int64_t at = begin; at < end; at += UNIC_ROW) {
    int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW;
    for (int64_t i = 0; i < e->count; i++) {
      if (i + AHEAD < e->count) {
        int64_t next = id_at(e, i + AHEAD);
        if (next >= 0 && next < e->rows)
          for (int64_t c = 0; c < n; c += 16) __builtin_prefetch(e->dtable + next * e->columns + at + c, 1);
      }
      int64_t id = id_at(e, i);
      if (id < 0 || id >= e->rows || id == e->padding) continue;
      const float *dy = unic_row_load(e->dy, e->dtype, i * e->columns + at, n, buffer);
      unic_row_put(e->dtable, UNIC_F32, id * e->columns + at, n, dy, 1);
    }
  }
}

#else

UNIC_LOOP_TABLE(embedding_forward);
UNIC_LOOP_TABLE(embedding_backward);

static unic_status shape(unic_call *c) {
  const unic_tensor *ids = c->in[IDS], *table = c->in[TABLE];
  int64_t padding = c->arg[PADDING].integer;
  if (padding < -1 || padding >= table->shape[0])
    return unic_fail_arg(c, PADDING, "%lld was given, the table has rows 0..%lld (or -1: no padding)", (long long)padding, (long long)table->shape[0] - 1);
  if (ids->ndim + 1 > UNIC_MAX_RANK) return unic_fail_arg(c, IDS, "it has %d dimensions, at most %d are possible", ids->ndim, UNIC_MAX_RANK - 1);
  int64_t dims[UNIC_MAX_RANK];
  for (int d = 0; d < ids->ndim; d++) dims[d] = ids->shape[d];
  dims[ids->ndim] = table->shape[1];
  unic_out(c, Y, c->type, ids->ndim + 1, dims);
  return UNIC_OK;
}

static struct embedding common(const unic_kernel *k) {
  return (struct embedding){
    .ids = k->in[IDS].data, .wide = k->in[IDS].dtype == UNIC_I64, .count = k->in[IDS].numel, .rows = k->in[TABLE].shape[0], .columns = k->in[TABLE].shape[1],
    .padding = k->arg[PADDING].integer, .dtype = k->in[TABLE].dtype, .size = (int)unic_dtype_size(k->in[TABLE].dtype), .bad = INT64_MAX,
  };
}

static unic_status complain(const struct embedding *e) {
  return unic_fail("[embedding] argument 'ids': value %lld at position %lld is outside 0..%lld, the rows of the table",
                   (long long)id_at(e, e->bad), (long long)e->bad, (long long)e->rows - 1);
}

static unic_status forward(const unic_kernel *k) {
  struct embedding e = common(k);
  e.table = k->in[TABLE].data;
  e.y = k->out[Y].data;
  if (e.count == 0 || e.columns == 0) return UNIC_OK;
  int64_t chunk = 16 * UNIC_ROW / e.columns;
  UNIC_RUN(embedding_forward, e.count, chunk < 1 ? 1 : chunk, &e);
  return e.bad == INT64_MAX ? UNIC_OK : complain(&e);
}

static unic_status backward(const unic_kernel *k) {
  struct embedding e = common(k);
  e.dy = k->dout[Y].data;
  e.dtable = k->din[TABLE].data;
  if (!e.dy || !e.dtable || e.count == 0 || e.columns == 0) return UNIC_OK;
  /* As many pieces as threads, in whole cache lines: where columns are cut changes no bit of the result. */
  int64_t chunk = (e.columns + unic_threads() - 1) / unic_threads();
  chunk = (chunk + 15) / 16 * 16;
  UNIC_RUN(embedding_backward, e.columns, chunk, &e);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

static unic_status reference(const unic_kernel *k) {
  const unic_view *ids = &k->in[IDS], *table = &k->in[TABLE];
  int64_t columns = table->shape[1], bad = -1;
  const double *from = table->data;
  double *y = k->out[Y].data;
  for (int64_t i = 0; i < ids->numel; i++) {
    int64_t id = ids->dtype == UNIC_I64 ? ((const int64_t *)ids->data)[i] : ((const int32_t *)ids->data)[i];
    bool inside = id >= 0 && id < table->shape[0];
    if (!inside && bad < 0) bad = i;
    for (int64_t c = 0; c < columns; c++) y[i * columns + c] = inside ? from[id * columns + c] : 0;
  }
  if (bad < 0) return UNIC_OK;
  struct embedding e = common(k);
  e.bad = bad;
  return complain(&e);
}

static unic_status reference_backward(const unic_kernel *k) {
  const unic_view *ids = &k->in[IDS], *table = &k->in[TABLE];
  int64_t columns = table->shape[1];
  const double *dy = k->dout[Y].data;
  double *dtable = k->din[TABLE].data;
  for (int64_t i = 0; dy && dtable && i < ids->numel; i++) {
    int64_t id = ids->dtype == UNIC_I64 ? ((const int64_t *)ids->data)[i] : ((const int32_t *)ids->data)[i];
    if (id < 0 || id >= table->shape[0] || id == k->arg[PADDING].integer) continue;
    for (int64_t c = 0; c < columns; c++) dtable[id * columns + c] += dy[i * columns + c];
  }
  return UNIC_OK;
}

static const unic_op op_embedding = {
  .name = "embedding",
  .signature = "ids: tensor<int>, table: tensor[V,C], padding: int = -1 -> y",
  .doc = "Look up rows of a table: y[..., :] = table[ids[...], :].\n"
         "ids      row numbers from 0, any shape\n"
         "table    one row per id\n"
         "padding  the id whose row gets no gradient; -1 for none",
  .saves = "ids",
  .grads = "table:wide|rows",
  .shape = shape,
  .cpu = {.forward = forward, .backward = backward, .reference = reference, .reference_backward = reference_backward},
};

UNIC_OPS(embedding, &op_embedding);

#endif
