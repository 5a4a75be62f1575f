/* The plan cache: what an op works out once per combination of shapes, strides, dtypes and attributes, in one bounded LRU. */
#ifndef UNIC_PLAN_H
#define UNIC_PLAN_H

#include "op_info.h"

typedef struct unic_cached_plan {
  unic_plan plan;      /* first: a plan's address is its cached plan's */
  int refs;
} unic_cached_plan;

/* The plan of a launch (a new reference), made by `make`, the device's plan function of the op, if there is none yet. */
unic_status unic_plan_get(unic_op_info *info, const unic_kernel *k, unic_plan_fn *make, unic_cached_plan **out);
void unic_plan_release(unic_cached_plan *p);
unic_cached_plan *unic_plan_ref(unic_cached_plan *p);
/* Number of plans kept, and forget them all (thread count or instruction set changed). */
int unic_plan_count(void);
void unic_plan_clear(void);

#endif
