/* Moving elements inside of other kernels: what the services copy, accumulate and fill do, on views of any strides (negative ones too).
 * `from` broadcasts to the shape of `to`; nothing may overlap. Blocked views are welcome. */
#ifndef UNIC_MOVE_H
#define UNIC_MOVE_H

#include "op.h"
#include "strides.h"

void unic_move(const unic_view *to, const unic_view *from);       /* to = from, converting (copy.c) */
void unic_move_add(const unic_view *to, const unic_view *from);   /* to += from, floating types (accumulate.c) */
void unic_move_fill(const unic_view *to, double value);           /* to = value (fill.c) */

/* to = (or +=) the sum of `from` (strides may be 0) over its dimensions in the bit set `mask`: `to` has from's other dimensions, in order. Pieces
 * are fixed by shape and strides alone. `scratch` has unic_move_sum_scratch bytes, from the plan (reduce.c). */
int64_t unic_move_sum_scratch(const unic_view *from, uint32_t mask);
void unic_move_sum(const unic_view *to, const unic_view *from, uint32_t mask, int accumulate, void *scratch);

/* dx = (or +=) g. */
static inline void unic_move_gradient(const unic_view *dx, const unic_view *g, int accumulate) {
  if (accumulate) unic_move_add(dx, g);
  else unic_move(dx, g);
}

#endif
