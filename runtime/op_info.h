/* A descriptor's strings as tables: what the door, dispatch and the tape read. */
#ifndef UNIC_OP_INFO_H
#define UNIC_OP_INFO_H

#include "op.h"

typedef enum unic_kind {
  UNIC_KIND_TENSOR, UNIC_KIND_TENSORS, UNIC_KIND_OPERAND, UNIC_KIND_SCALAR, UNIC_KIND_RNG,
  UNIC_KIND_NUMBER, UNIC_KIND_INT, UNIC_KIND_BOOL, UNIC_KIND_INTS, UNIC_KIND_CHOICE, UNIC_KIND_DTYPE
} unic_kind;

enum { UNIC_CLASS_T, UNIC_CLASS_WIDE, UNIC_CLASS_FLOAT, UNIC_CLASS_INT, UNIC_CLASS_ANY, UNIC_CLASS_EXACT /* + dtype */ };
enum { UNIC_ACCEPT_CONTIGUOUS = 1, UNIC_ACCEPT_CHANNELS_LAST = 2, UNIC_ACCEPT_BLOCKED = 4, UNIC_ACCEPT_DENSE = 8, UNIC_ACCEPT_ANY = 16 };
enum { UNIC_MAX_CHOICES = 8 };

typedef struct unic_dim_info {
  char letter[8];     /* "" for a number or the rest */
  int64_t size;
  bool rest;          /* "..." */
} unic_dim_info;

typedef struct unic_arg_info {
  char name[32];
  unic_kind kind;
  uint8_t type_class, layouts;
  bool is_tensor;            /* takes a slot of in[] */
  bool optional, mutated, has_default, dims_given;
  bool saved, again, grad, grad_wide, write_only, sparse_rows, over, over_wide;
  int fixed;                 /* int[n] */
  int ndims;
  unic_dim_info dims[UNIC_MAX_RANK];
  int nchoices;
  char choices[UNIC_MAX_CHOICES][24];
  unic_value fallback;
} unic_arg_info;

typedef struct unic_out_info {
  char name[32];
  bool hidden, saved;
} unic_out_info;

typedef struct unic_op_info {
  const unic_op *op;
  int index;
  bool parsed, differentiable, mutates;
  bool lists;                         /* an argument is a list of tensors */
  bool plain;                         /* tensors are of type T, of any rank, may be row-major, and none is written: see is_plain in dispatch.c */
  int nargs, nouts, visible;          /* visible outputs come first */
  unic_arg_info args[UNIC_MAX_ARGS];
  unic_out_info outs[UNIC_MAX_OUTS];
  /* counters for the profiler */
  int64_t calls, plans_hit, plans_made;
} unic_op_info;

/* Build the table of all ops (idempotent). */
unic_status unic_ops_load(void);
int unic_op_count(void);
unic_op_info *unic_op_info_at(int i);
/* The parsed info of an op; parsing is done at first use. */
unic_status unic_op_info_find(const char *name, unic_op_info **out);
unic_status unic_op_info_parse(unic_op_info *info);

#endif
