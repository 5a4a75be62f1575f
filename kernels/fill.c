/* fill: every element of `to` = value, any strides, any dtype, blocked or strided. Values become integers as `copy` makes them. */
#include "move.h"
#include "walk.h"

enum { TO, VALUE };

struct fill {
  unic_walk walk;
  void *to;
  int dtype, size;
  bool zero;                 /* all bytes 0 */
  uint64_t row[UNIC_ROW];    /* the value repeated, in the dtype of `to` */
};

#if UNIC_LOOPS

UNIC_LOOP(fill_rows) {
  const struct fill *f = context;
  if (f->zero && unic_walk_flat(&f->walk)) {
    memset((char *)f->to + begin * f->size, 0, (size_t)((end - begin) * f->size));
    return;
  }
  for (int64_t i = begin; i < end; i += UNIC_ROW) {
    int64_t n = end - i < UNIC_ROW ? end - i : UNIC_ROW;
    void *place = unic_walk_place(&f->walk, 0, i, n, f->to, f->size);
    if (place) memcpy(place, f->row, (size_t)(n * f->size));
    else unic_walk_put(&f->walk, 0, i, n, f->to, f->dtype, f->row, f->row);
  }
}

#else

UNIC_LOOP_TABLE(fill_rows);

static unic_status shape(unic_call *c) { return UNIC_OK; }

void unic_move_fill(const unic_view *to, double value) {
  struct fill f = {.to = to->data, .dtype = to->dtype};
  if (to->numel == 0) return;
  const unic_view *const views[1] = {to};
  unic_walk_init(&f.walk, 1, views);
  f.size = unic_size_of(f.dtype);
  uint64_t one = 0;
  unic_row_convert(&value, UNIC_F64, &one, f.dtype, 1);
  f.zero = one == 0;
  for (int i = 0; i < UNIC_ROW; i++) memcpy((char *)f.row + i * f.size, &one, (size_t)f.size);
  UNIC_RUN(fill_rows, f.walk.numel, UNIC_WALK_CHUNK, &f);
}

static unic_status forward(const unic_kernel *k) {
  unic_move_fill(&k->in[TO], k->arg[VALUE].number);
  return UNIC_OK;
}

static const unic_op op_fill = {
  .name = "fill",
  .signature = "to!: tensor<any>, value: number",
  .doc = "Set every element of `to` to a value.",
  .layouts = "to:any|blocked",
  .shape = shape,
  .cpu = {.forward = forward},
  .flags = UNIC_OP_NO_GRAD | UNIC_OP_SERVICE | UNIC_OP_INPLACE,
};

UNIC_OPS(fill, &op_fill);

#endif
