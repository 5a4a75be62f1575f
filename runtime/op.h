/* What an op is: one descriptor per op, one file per op (kernels/<op>.c), the folder is the registry.
 *
 * An op is a pure function of its arguments except for what its signature marks with '!'. A file holds, in this order: header comment
 * (formula, shapes in one-letter dimensions, what is saved, determinism, source), shape rule, plan (optional), forward, backward, descriptor.
 *
 * SIGNATURE, one string:
 *   "x: tensor[N,C,H,W], weight: tensor[O,I,Kh,Kw], bias: tensor<wide>?[O], stride: int[2] = 1, groups: int = 1 -> y, (mean, rstd)"
 * Kinds of argument:
 *   tensor          the op's float type T: all arguments of this kind have one dtype (f32, bf16, f16 or f64)
 *   tensor<wide>    f32, or f64 when T is f64 (statistics, norm parameters, biases, losses)
 *   tensor<float>   any floating type, on its own        tensor<int>  i64 or i32        tensor<any>  any type
 *   tensor<f32> ... exactly that type
 *   tensor...?      may be absent (nil)                  tensor...[]  written `tensors`: a list of tensors; tensors<float> and so on likewise
 *   operand         a tensor of type T, or a number (then arg[i].number holds it and in[i].present is 0)
 *   number int bool int[n] (a single int is repeated n times) ints (a list of any length <= 8) choice(a|b|c)
 *   dtype           a dtype name (arg[i].integer)
 *   scalar          a 0-d wide tensor (f32; f64 when T is f64) or a number (uploaded): what changes from step to step
 *   rng             the generator state, i64 [2] = {seed, counter} on the device; the device's own when absent; mutated
 *   name!: ...      the op writes to this argument (version raised)
 * Dimensions in [..] are checked by the door before the shape rule: a letter binds at its first use and must agree afterwards, a number must
 * match, "..." stands for any leading dimensions (their sizes are not compared). No [..] means any rank.
 * `= value` gives the default of an attribute; arguments after the tensors may be given by name in one options table.
 * Outputs follow "->"; those in parentheses are hidden: made only when a gradient will be needed, seen only by the op's own backward.
 */
#ifndef UNIC_OP_H
#define UNIC_OP_H

#include "cpu.h"
#include "device.h"
#include "kernel.h"
#include "status.h"
#include "tensor.h"
#include "threads.h"

/* ---------------------------------------------------------------- what the shape rule sees */

/* An output to be made. */
typedef struct unic_meta {
  uint8_t dtype, ndim, block;
  uint8_t layout;                  /* unic_layout; UNIC_LAYOUT_KEEP: stride[] is filled in */
  int64_t shape[UNIC_MAX_RANK], stride[UNIC_MAX_RANK], offset;   /* offset: views only */
} unic_meta;

/* A call before it runs; indices are positions in the signature. */
typedef struct unic_call {
  const struct unic_op *op;
  unic_tensor *in[UNIC_MAX_ARGS];          /* NULL: absent or not a tensor; borrowed */
  unic_tensor **list[UNIC_MAX_ARGS];       /* tensor lists; arg[i].integer members; borrowed */
  unic_value arg[UNIC_MAX_ARGS];
  unic_device *device;
  unic_dtype type;                         /* T; UNIC_F32 when there is no argument of type T */
  bool grad;                               /* a tape node will be made */
  unic_meta out[UNIC_MAX_OUTS];            /* the shape rule fills all of them, hidden ones too */
} unic_call;

/* Outputs, for shape rules. Row-major unless changed afterwards. */
void unic_out(unic_call *c, int j, unic_dtype dtype, int ndim, const int64_t *shape);
/* Shape, dtype and (when t is dense) layout of t. */
void unic_out_like(unic_call *c, int j, const unic_tensor *t);
/* Broadcast of several tensors' shapes, as NumPy does; false when they do not fit. */
bool unic_shape_broadcast(int *ndim, int64_t *shape, int more_ndim, const int64_t *more);
/* A dimension counted from 1 (or from the end, -1) as an index from 0; a sentence naming op and argument otherwise. `ndim` >= 1. */
unic_status unic_dim(const unic_call *c, int arg, int64_t dim, int ndim, int *out);
/* "[op] argument 'name': " + the sentence. */
unic_status unic_fail_arg(const unic_call *c, int arg, const char *format, ...) __attribute__((format(printf, 3, 4), cold));

/* ---------------------------------------------------------------- the descriptor */

typedef enum unic_autocast {
  UNIC_CAST_NONE,      /* runs in whatever it is given; with mixed T arguments the widest */
  UNIC_CAST_LOW,       /* products: bf16/f16 under autocast */
  UNIC_CAST_FULL       /* f32 under autocast: losses, sums, softmax on its own */
} unic_autocast;

typedef enum unic_remake_price {
  UNIC_REMAKE_NEVER,
  UNIC_REMAKE_OWN,     /* about one pass over what the op saved of its own outputs */
  UNIC_REMAKE_CHEAP,   /* about one pass over memory, inputs among it */
  UNIC_REMAKE_COSTLY   /* a product: only where memory is scarcer than time */
} unic_remake_price;

enum {
  UNIC_OP_VIEW = 1,          /* out[0] looks at in[0]'s storage; no kernel in forward (backward kernel writes din[0]) */
  UNIC_OP_NO_GRAD = 2,       /* no backward: refused when a gradient would be needed (float outputs) */
  UNIC_OP_SAME_THREADS = 4,  /* a library inside: bits equal only for equal thread counts; otherwise any_threads */
  UNIC_OP_SERVICE = 8,       /* for the runtime, not for Lua */
  UNIC_OP_INPLACE = 16,      /* returns its first mutated argument, has no output of its own */
  UNIC_OP_METHOD = 32,       /* also a tensor method x:op(...) (first argument is a tensor) */
  UNIC_OP_INTS = 64,         /* T may be an integer type too */
  UNIC_OP_PLAN_BACKWARD = 128   /* only the backward has a plan: the forward is launched without looking for one */
};

typedef struct unic_op {
  const char *name, *signature;
  const char *doc;                       /* what `? op` shows: a sentence or more, then one line per argument */
  const char *saves;                     /* names of inputs, outputs and hidden outputs kept for backward: "x weight mean" */
  const char *grads;                     /* inputs that have a gradient, with flags: "x weight:wide bias:wide table:rows"
                                            wide: written in f32 even when T is bf16/f16; write_only: the kernel cannot accumulate;
                                            over: may be written where an addend of out[0]'s gradient lies, if nobody else needs that and both have one
                                            layout and type; the kernel reads an element before it writes it. over_wide: not in bf16 and f16
                                            rows: sparse rows (the kernel always adds into a zeroed or kept gradient) */
  /* Outputs that need not be kept for other ops' backward (remake.h): at what price output j of this call can be made again from what is saved and
     from `again`, by cpu.remake, with the bits of the forward. NULL: never. A hidden output with a price is not saved either when that price is paid. */
  unic_remake_price (*remakes)(const unic_call *c, int j);
  const char *again;                     /* names of inputs that remaking reads and the backward does not */
  const char *layouts;                   /* what inputs may be, per name: "x:any" (any strides), "x:dense" (all inputs marked dense share one dense
                                            layout), "x:channels_last", "x:channels_last|blocked"; unnamed inputs are made row-major */
  unic_status (*shape)(unic_call *c);
  unic_op_kernels cpu;                   /* reference: the plain f64 form; when NULL, forward serves f64 too */
  /* Views and pass-through gradients: the gradient of in[0] as a look at dy's storage (*out new; left NULL when dy's
     strides allow none, and it is asked again with a row-major dy). NULL: the backward kernel is used. */
  unic_status (*grad_view)(const unic_call *c, unic_tensor *dy, unic_tensor **out);
  uint32_t flags;
  unic_autocast autocast;
  int addends;                           /* gradients of an output that the backward kernel sums itself: 0 or 1 = one, 2 = two */
  /* Flops of the launch; in backward of the products that are done, by the gradients that are wanted (unic_products). NULL: memory-bound */
  double (*flops)(const unic_kernel *k);
} unic_op;

/* For `flops` of an op that multiplies in[a] and in[b]: products as large as the forward's that this launch does. A backward does one for each of
   the two whose gradient is wanted: none for the picture of a first layer, none for a frozen weight. */
static inline double unic_products(const unic_kernel *k, int a, int b) { return k->backward ? k->din[a].present + k->din[b].present : 1; }

/* What an element-wise kernel writes: its output, or its first argument when the op works in place. */
static inline const unic_view *unic_result(const unic_kernel *k) { return k->op->flags & UNIC_OP_INPLACE ? &k->in[0] : &k->out[0]; }

/* Every kernels/<op>.c ends in this: UNIC_OPS(add, &op_add) defines the file's list. */
#define UNIC_OPS(file, ...) \
  extern const unic_op *const unic_ops_##file[]; \
  const unic_op *const unic_ops_##file[] = { __VA_ARGS__, 0 }

/* The op table: all files' lists, made by the build. */
extern const unic_op *const *const unic_op_files[];
/* An op by name; NULL when there is none. */
const unic_op *unic_op_find(const char *name);

#endif
