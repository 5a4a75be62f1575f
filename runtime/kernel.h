/* What a kernel is given, on every device. Read by C and by CUDA C++ alike, so nothing here needs the rest of the runtime. */
#ifndef UNIC_KERNEL_H
#define UNIC_KERNEL_H

#include "dtype.h"
#include "status.h"

struct unic_op;
typedef struct unic_device unic_device;
typedef struct unic_plan unic_plan;

enum { UNIC_MAX_ARGS = 16, UNIC_MAX_OUTS = 6, UNIC_MAX_INTS = 8, UNIC_MAX_DERIVED = 2 };

/* The value of an attribute. */
typedef struct unic_value {
  double number;                   /* number, operand */
  int64_t integer;                 /* int, bool (0/1), choice (index), dtype; also the number of ints or of list members */
  int64_t ints[UNIC_MAX_INTS];     /* int[n], ints */
  bool given;                      /* false: absent optional, or the default */
} unic_value;

/* A tensor as a kernel sees it. */
typedef struct unic_view {
  void *data;                      /* first element; NULL: absent, not saved, not wanted, zero-size, or meta */
  int64_t shape[UNIC_MAX_RANK], stride[UNIC_MAX_RANK];   /* elements; strides mean nothing when block > 0 */
  int64_t numel;
  uint8_t ndim, dtype, block;
  uint8_t present;                 /* the argument was given / the gradient is wanted */
} unic_view;

/* One launch. In backward, in[] and out[] carry shapes always and data where the descriptor's `saves` lists them. */
typedef struct unic_kernel {
  const struct unic_op *op;
  unic_device *device;
  unic_dtype type;                              /* T */
  bool backward, grad;                          /* grad (forward): hidden outputs are there */
  uint8_t remake;                               /* remake: bit j is set where out[j] is to be filled; other outputs with data have what was saved */
  unic_view in[UNIC_MAX_ARGS];
  unic_view *list[UNIC_MAX_ARGS];
  unic_value arg[UNIC_MAX_ARGS];
  unic_view out[UNIC_MAX_OUTS];
  unic_view dout[UNIC_MAX_OUTS];                /* gradients of outputs, in the outputs' layout and dtype; data NULL = zero */
  unic_view dout2[UNIC_MAX_OUTS];               /* second addend, only for ops with addends = 2; data NULL = none */
  unic_view din[UNIC_MAX_ARGS];                 /* gradients of inputs, in the inputs' layout (row-major if those are not dense); present = wanted */
  uint8_t accumulate[UNIC_MAX_ARGS];            /* 0: overwrite, 1: add to what is there */
  unic_view *dlist[UNIC_MAX_ARGS];              /* gradients of the members of a list: present = wanted; always overwritten */
  const unic_plan *whole_plan;                  /* for the runtime */
  const void *plan;                             /* unic_plan.data */
  void *scratch;                                /* unic_plan.scratch bytes */
  void *derived[UNIC_MAX_DERIVED];              /* unic_plan.derive[i]'s data, up to date */
} unic_kernel;

/* What is worked out once per combination of shapes, strides, dtypes, attributes (and wanted/accumulate flags in backward). */
struct unic_plan {
  void *data;                                   /* the op's own; freed by `free` */
  void (*free)(void *data);
  int64_t scratch;                              /* bytes of scratch per launch */
  int derives;
  struct {
    int arg;                                    /* of this input's storage ... */
    uint64_t tag;                               /* ... this form (equal tags = equal forms) */
    int64_t bytes;
    unic_status (*make)(const unic_kernel *k, int i, void *to);   /* from k->in[arg] into `to` */
  } derive[UNIC_MAX_DERIVED];
};

typedef unic_status unic_kernel_fn(const unic_kernel *k);
typedef unic_status unic_plan_fn(const unic_kernel *k, unic_plan *p);

/* The kernels of one op on one device; NULL members are not there. */
typedef struct unic_op_kernels {
  unic_kernel_fn *forward, *backward;
  unic_kernel_fn *reference, *reference_backward;   /* the f64 form where it is a function of its own */
  unic_kernel_fn *remake, *reference_remake;        /* outputs again, from what was saved (op.h, `remakes`) */
  unic_plan_fn *plan;                               /* NULL: nothing is worked out beforehand, and there is no scratch */
} unic_op_kernels;

#endif
