/* Storage and tensors: who owns the bytes, and how a tensor looks at them. */
#ifndef UNIC_TENSOR_H
#define UNIC_TENSOR_H

#include "dtype.h"
#include "memory.h"
#include "status.h"

#include <stdatomic.h>

struct unic_device;
struct unic_node;

/* A form of a storage's contents that a kernel wants (bf16 copy, packed weight): rebuilt when the version moved, dropped first under pressure. */
typedef struct unic_derived {
  struct unic_derived *next;
  uint64_t tag;           /* which form; chosen by the plan that asks */
  uint64_t version;       /* of the storage when it was made */
  uint64_t recording;     /* the recording it was made in (a replay must make it anew); 0: none */
  struct unic_storage *form;
} unic_derived;

typedef struct unic_storage {
  _Atomic int32_t refs;
  struct unic_storage *derived_prev, *derived_next;   /* all storages that have derived forms, to drop them under pressure */
  uint32_t line;             /* interned recipe line that made it (0: not noted) */
  struct unic_device *device;
  unic_block *block;         /* NULL: foreign memory, meta, or beside */
  void *data;                /* NULL on meta */
  int64_t bytes;
  _Atomic uint64_t version;  /* raised by every op that mutates it */
  uint64_t born;             /* number of the storage, counted from the start: later ones are larger */
  uint32_t mutation_line;
  uint32_t profile;          /* the last profile that counted it as saved for a backward */
  bool beside;               /* its bytes lie behind this structure (unic_memory_beside) */
  bool pinned;               /* a data_ptr is out: derived forms are barred until touched() */
  bool shown;                /* Lua has or had a handle on it */
  bool lasting;              /* parameters and the like: held by Lua for good */
  int32_t held;              /* by the tape (unic_tensor_hold), so many times */
  unic_derived *derived;
  void (*release)(void *context);   /* foreign memory's owner */
  void *release_context;
} unic_storage;

typedef struct unic_tensor {
  _Atomic int32_t refs;
  uint8_t dtype, ndim;
  uint8_t block;             /* 0: strided; 8 or 16: channels blocked by that much (N, C/b, H, W, b), opaque to everyone but conv-chain kernels */
  uint8_t requires_grad;     /* set by the user on a leaf, or true because a node made it */
  uint8_t retain_grad;
  uint8_t keep;              /* parameters, buffers, gradients, optimiser state: survive unic.scope */
  uint8_t held;              /* it is one that the tape saved */
  int16_t output;            /* which output of `node` this is */
  int64_t shape[UNIC_MAX_RANK], stride[UNIC_MAX_RANK], offset;   /* in elements */
  unic_storage *storage;
  struct unic_node *node;    /* who made it, when a gradient can flow; NULL on leaves */
  struct unic_tensor *grad;  /* leaves and retain_grad: the accumulated gradient */
  int64_t hook;              /* key of Lua hooks in the graph environment; 0: none */
} unic_tensor;

/* How memory is laid out for a shape. */
typedef enum unic_layout {
  UNIC_CONTIGUOUS,      /* row-major */
  UNIC_CHANNELS_LAST,   /* rank 4: N, H, W, C in memory */
  UNIC_BLOCKED,         /* rank 4: N, C/b, H, W, b */
  UNIC_LAYOUT_KEEP      /* as the given strides say */
} unic_layout;

int64_t unic_shape_numel(int ndim, const int64_t *shape);
/* Strides of a dense layout (rank 4 for UNIC_CHANNELS_LAST, otherwise row-major). */
void unic_stride_fill(int ndim, const int64_t *shape, unic_layout layout, int64_t *stride);

/* A new tensor with undefined contents. layout UNIC_BLOCKED takes its block from `block`. */
unic_status unic_tensor_new(struct unic_device *device, unic_dtype dtype, int ndim, const int64_t *shape, unic_layout layout, int block, unic_tensor **out);
/* The same with given dense strides. */
unic_status unic_tensor_new_strided(struct unic_device *device, unic_dtype dtype, int ndim, const int64_t *shape, const int64_t *stride, unic_tensor **out);
/* A tensor on foreign host memory; `release(context)` runs when the last reference goes. */
unic_status unic_tensor_foreign(unic_dtype dtype, int ndim, const int64_t *shape, void *data, void (*release)(void *), void *context, unic_tensor **out);
/* Another look at t's storage; no gradient link. */
unic_status unic_tensor_view(const unic_tensor *t, int ndim, const int64_t *shape, const int64_t *stride, int64_t offset, unic_tensor **out);
/* The same look without any link to the tape (what the tape itself saves). */
unic_status unic_tensor_alias(const unic_tensor *t, unic_tensor **out);
/* An alias for the tape to save. As long as there is one, a collection gives nothing back of t's memory. */
unic_status unic_tensor_hold(const unic_tensor *t, unic_tensor **out);

/* Let go of a reference: true when it was the last. A sole owner sees the count of one and has nobody to be atomic against. */
static inline bool unic_last_ref(_Atomic int32_t *refs) {
  return atomic_load_explicit(refs, memory_order_acquire) == 1 || atomic_fetch_sub_explicit(refs, 1, memory_order_acq_rel) == 1;
}
static inline unic_tensor *unic_tensor_ref(unic_tensor *t) {
  if (t) atomic_fetch_add_explicit(&t->refs, 1, memory_order_relaxed);
  return t;
}
void unic_tensor_unref(unic_tensor *t);   /* NULL is fine; graphs of any depth are freed without recursion */

static inline int64_t unic_tensor_numel(const unic_tensor *t) {
  int64_t n = 1;
  for (int d = 0; d < t->ndim; d++) n *= t->shape[d];
  return n;
}
/* Bytes of its elements. */
static inline int64_t unic_tensor_bytes(const unic_tensor *t) { return unic_tensor_numel(t) * unic_dtype_size((unic_dtype)t->dtype); }
/* Its first element; a device pointer, NULL on meta. */
static inline void *unic_tensor_data(const unic_tensor *t) {
  return t->storage->data ? (char *)t->storage->data + t->offset * unic_dtype_size((unic_dtype)t->dtype) : NULL;
}
bool unic_tensor_is_contiguous(const unic_tensor *t);
bool unic_tensor_is_channels_last(const unic_tensor *t);
/* True when the elements fill one piece of memory without holes or overlap, in any order of dimensions. Blocked tensors are dense. */
bool unic_tensor_is_dense(const unic_tensor *t);
bool unic_tensor_same_layout(const unic_tensor *a, const unic_tensor *b);   /* shape, strides, block */
static inline struct unic_device *unic_tensor_device(const unic_tensor *t) { return t->storage->device; }

/* The number of the newest storage. */
uint64_t unic_storage_newest(void);
static inline void unic_storage_ref(unic_storage *s) { atomic_fetch_add_explicit(&s->refs, 1, memory_order_relaxed); }
void unic_storage_unref(unic_storage *s);
/* Lua has a handle on it: when that is all there is, it is what a collection may give back. */
void unic_storage_show(unic_storage *s);
/* It is there for good. */
void unic_storage_last(unic_storage *s);
/* An op has written to it: version up, derived forms stale, `line` noted. */
void unic_storage_touch(unic_storage *s, uint32_t line);
void unic_storage_drop_derived(unic_storage *s);
void unic_storage_drop_all_derived(void);
/* New memory on a device; on an exhausted budget the pressure callback is asked once before it fails. */
unic_status unic_storage_new(struct unic_device *device, int64_t bytes, unic_storage **out);
/* The form `tag` of s at its present version (borrowed), or NULL. */
unic_storage *unic_storage_derived_get(unic_storage *s, uint64_t tag, uint64_t recording);
/* Room for the form (replacing an old one), to be filled by the caller. */
unic_status unic_storage_derived_make(unic_storage *s, uint64_t tag, uint64_t recording, int64_t bytes, unic_storage **out);

/* Upward calls, registered by the door. */
typedef struct unic_callbacks {
  /* Before an allocation: bytes were handed out since the last collection; may collect garbage. `must` when the budget is exhausted. */
  void (*collect)(struct unic_device *device, bool must);
  /* The interned line of the recipe that is running now; 0 when unknown. */
  uint32_t (*line)(void);
  /* Its text, "recipes/x.lua:12". */
  const char *(*line_text)(uint32_t line);
} unic_callbacks;
extern unic_callbacks unic_call_up;

/* "f32 [2, 3] on cpu" into a buffer, for sentences; returns the buffer. */
const char *unic_tensor_describe(const unic_tensor *t, char *buffer, size_t bytes);
const char *unic_shape_describe(int ndim, const int64_t *shape, char *buffer, size_t bytes);

#endif
