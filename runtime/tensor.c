/* Storage and tensors: reference counts, views, versions, derived forms. */
#include "tensor.h"
#include "device.h"
#include "replay.h"
#include "structures.h"
#include "tape.h"

#ifndef UNIC_ARENA_BYPASS
#define UNIC_ARENA_BYPASS 0
#endif

#include <stdio.h>
#include <stdlib.h>

unic_callbacks unic_call_up;

/* Storages with derived forms. Touched by the Lua thread only, as everything that makes or drops derived forms is. */
static unic_storage *with_derived;

/* ---------------------------------------------------------------- storage */

enum { BESIDE_AT = (sizeof(unic_storage) + UNIC_BESIDE - 1) / UNIC_BESIDE * UNIC_BESIDE };   /* unic_memory_beside */

/* Collections are asked for when there may be enough to give back; the door knows the rule. */
static void pay_debt(struct unic_device *device) {
  if (unic_call_up.collect) unic_call_up.collect(device, false);
}

/* Counted by the calls' thread alone: what another makes is as old as its newest. */
static _Atomic uint64_t newest;
uint64_t unic_storage_newest(void) { return atomic_load_explicit(&newest, memory_order_relaxed); }
static uint64_t birth(void) {
  uint64_t n = unic_storage_newest();
  if (unic_on_call_thread()) atomic_store_explicit(&newest, ++n, memory_order_relaxed);
  return n;
}

unic_status unic_storage_new(struct unic_device *device, int64_t bytes, unic_storage **out) {
  const bool beside = unic_memory_beside(device->memory, bytes);
  unic_storage *s = unic_new(beside ? BESIDE_AT + UNIC_BESIDE : sizeof *s);
  if (!s) {
    if (beside) unic_memory_gone(device->memory);
    return UNIC_MEMORY;
  }
  s->refs = 1;
  s->device = device;
  s->bytes = bytes;
  s->born = birth();
  if (beside) {
    s->beside = true;
    s->data = (char *)s + BESIDE_AT;
  } else if (!device->abstract) {
    if (bytes >= (1 << 16)) pay_debt(device);
    s->block = unic_memory_take(device->memory, bytes, s);
    if (!s->block) {
      if (unic_call_up.collect) unic_call_up.collect(device, true);
      unic_storage_drop_all_derived();
      s->block = unic_memory_take(device->memory, bytes, s);
      if (!s->block) {
        unic_delete(s);
        return UNIC_MEMORY;
      }
    }
    s->data = unic_block_data(s->block);
    if (UNIC_ARENA_BYPASS && device->host && unic_recording_id(device)) {   /* no private pool there: a recording holds what was made in it instead */
      unic_status status = unic_record_hold(device, s);
      if (status != UNIC_OK) {
        unic_storage_unref(s);
        return status;
      }
    }
    if (bytes >= (1 << 20) && unic_call_up.line) s->line = unic_call_up.line();
  }
  *out = s;
  return UNIC_OK;
}

void unic_storage_unref(unic_storage *s) {
  if (!s || !unic_last_ref(&s->refs)) return;
  unic_storage_drop_derived(s);
  if (s->block) unic_memory_give(s->block);
  if (s->beside) unic_memory_gone(s->device->memory);
  if (s->release) s->release(s->release_context);
  unic_delete_sized(s, s->beside ? BESIDE_AT + UNIC_BESIDE : sizeof *s);
}

void unic_storage_show(unic_storage *s) {
  s->shown = true;
  if (s->block && !s->held && !s->lasting) unic_memory_owe(s->block);
}

void unic_storage_last(unic_storage *s) {
  s->lasting = true;
  if (s->block && s->shown) unic_memory_paid(s->block);
}

void unic_storage_touch(unic_storage *s, uint32_t line) {
  atomic_fetch_add_explicit(&s->version, 1, memory_order_relaxed);
  if (line) s->mutation_line = line;
}

void unic_storage_drop_derived(unic_storage *s) {
  if (!s->derived) return;
  if (s->derived_prev) s->derived_prev->derived_next = s->derived_next;
  else with_derived = s->derived_next;
  if (s->derived_next) s->derived_next->derived_prev = s->derived_prev;
  s->derived_prev = s->derived_next = NULL;
  unic_derived *d = s->derived;
  s->derived = NULL;
  while (d) {
    unic_derived *next = d->next;
    unic_storage_unref(d->form);
    unic_delete(d);
    d = next;
  }
}

void unic_storage_drop_all_derived(void) {
  while (with_derived) unic_storage_drop_derived(with_derived);
}

unic_storage *unic_storage_derived_get(unic_storage *s, uint64_t tag, uint64_t recording) {
  if (s->pinned) return NULL;   /* an FFI pointer may have written behind our back */
  for (unic_derived *d = s->derived; d; d = d->next)
    if (d->tag == tag) return d->version == s->version && (!recording || d->recording == recording) ? d->form : NULL;
  return NULL;
}

unic_status unic_storage_derived_make(unic_storage *s, uint64_t tag, uint64_t recording, int64_t bytes, unic_storage **out) {
  unic_derived *d = s->derived;
  while (d && d->tag != tag) d = d->next;
  if (!d || d->form->bytes != bytes || d->form->refs > 1) {   /* a form that the tape still reads is left to it */
    unic_storage *form;
    UNIC_TRY(unic_storage_new(s->device, bytes, &form));
    for (d = s->derived; d && d->tag != tag;) d = d->next;    /* making room may have dropped the forms */
    if (d) {
      unic_storage_unref(d->form);
      d->form = form;
    } else {
      d = unic_new(sizeof *d);
      if (!d) {
        unic_storage_unref(form);
        return UNIC_MEMORY;
      }
      d->tag = tag;
      d->form = form;
      if (!s->derived) {
        s->derived_next = with_derived;
        if (with_derived) with_derived->derived_prev = s;
        with_derived = s;
      }
      d->next = s->derived;
      s->derived = d;
    }
  }
  d->version = s->version;
  d->recording = recording;
  *out = d->form;
  return UNIC_OK;
}

/* ---------------------------------------------------------------- shapes */

int64_t unic_shape_numel(int ndim, const int64_t *shape) {
  int64_t n = 1;
  for (int d = 0; d < ndim; d++) n *= shape[d];
  return n;
}

void unic_stride_fill(int ndim, const int64_t *shape, unic_layout layout, int64_t *stride) {
  int64_t s = 1;
  if (layout == UNIC_CHANNELS_LAST && ndim == 4) {
    static const int order[4] = {1, 3, 2, 0};
    for (int i = 0; i < 4; i++) {
      stride[order[i]] = s;
      s *= shape[order[i]] > 0 ? shape[order[i]] : 1;
    }
    return;
  }
  for (int d = ndim - 1; d >= 0; d--) {
    stride[d] = s;
    s *= shape[d] > 0 ? shape[d] : 1;
  }
}

/* ---------------------------------------------------------------- tensors */

static unic_status tensor_on(unic_storage *s, unic_dtype dtype, int ndim, const int64_t *shape, unic_tensor **out) {
  unic_tensor *t = unic_new(sizeof *t);
  if (!t) return UNIC_MEMORY;
  t->refs = 1;
  t->dtype = (uint8_t)dtype;
  t->ndim = (uint8_t)ndim;
  for (int d = 0; d < ndim; d++) t->shape[d] = shape[d];
  t->storage = s;
  *out = t;
  return UNIC_OK;
}

static unic_status checked_bytes(unic_dtype dtype, int ndim, const int64_t *shape, int64_t *bytes) {
  if (ndim < 0 || ndim > UNIC_MAX_RANK) return unic_fail("[tensor] argument 'shape': %d dimensions, at most %d are possible", ndim, UNIC_MAX_RANK);
  int64_t n = unic_dtype_size(dtype);
  for (int d = 0; d < ndim; d++) {
    if (shape[d] < 0) return unic_fail("[tensor] argument 'shape': dimension %d is %lld, expected 0 or more", d + 1, (long long)shape[d]);
    if (__builtin_mul_overflow(n, shape[d], &n)) return unic_fail("[tensor] argument 'shape': more elements than 64 bits can count");
  }
  *bytes = n;
  return UNIC_OK;
}

static unic_status tensor_make(struct unic_device *device, unic_dtype dtype, int ndim, const int64_t *shape, unic_tensor **out) {
  int64_t bytes;
  UNIC_TRY(checked_bytes(dtype, ndim, shape, &bytes));
  unic_storage *s;
  UNIC_TRY(unic_storage_new(device, bytes, &s));
  unic_status status = tensor_on(s, dtype, ndim, shape, out);
  if (status != UNIC_OK) unic_storage_unref(s);
  return status;
}

unic_status unic_tensor_new(struct unic_device *device, unic_dtype dtype, int ndim, const int64_t *shape, unic_layout layout, int block, unic_tensor **out) {
  UNIC_TRY(tensor_make(device, dtype, ndim, shape, out));
  unic_stride_fill(ndim, shape, layout == UNIC_BLOCKED ? UNIC_CHANNELS_LAST : layout, (*out)->stride);
  (*out)->block = layout == UNIC_BLOCKED ? (uint8_t)block : 0;
  return UNIC_OK;
}

unic_status unic_tensor_new_strided(struct unic_device *device, unic_dtype dtype, int ndim, const int64_t *shape, const int64_t *stride, unic_tensor **out) {
  UNIC_TRY(tensor_make(device, dtype, ndim, shape, out));
  for (int d = 0; d < ndim; d++) (*out)->stride[d] = stride[d];
  return UNIC_OK;
}

unic_status unic_tensor_foreign(unic_dtype dtype, int ndim, const int64_t *shape, void *data, void (*release)(void *), void *context, unic_tensor **out) {
  int64_t bytes;
  UNIC_TRY(checked_bytes(dtype, ndim, shape, &bytes));
  unic_storage *s = unic_new(sizeof *s);
  if (!s) return UNIC_MEMORY;
  *s = (unic_storage){.refs = 1, .device = unic_device_cpu(), .data = data, .bytes = bytes, .born = birth()};
  unic_status status = tensor_on(s, dtype, ndim, shape, out);
  if (status != UNIC_OK) {
    unic_storage_unref(s);
    return status;
  }
  s->release = release;
  s->release_context = context;
  unic_stride_fill(ndim, shape, UNIC_CONTIGUOUS, (*out)->stride);
  return UNIC_OK;
}

unic_status unic_tensor_view(const unic_tensor *t, int ndim, const int64_t *shape, const int64_t *stride, int64_t offset, unic_tensor **out) {
  unic_storage_ref(t->storage);
  unic_status status = tensor_on(t->storage, t->dtype, ndim, shape, out);
  if (status != UNIC_OK) {
    unic_storage_unref(t->storage);
    return status;
  }
  for (int d = 0; d < ndim; d++) (*out)->stride[d] = stride[d];
  (*out)->offset = offset;
  (*out)->block = t->block;
  return UNIC_OK;
}

unic_status unic_tensor_alias(const unic_tensor *t, unic_tensor **out) {
  return unic_tensor_view(t, t->ndim, t->shape, t->stride, t->offset, out);
}

static void hold_storage(unic_storage *s) {
  if (s->held++ == 0 && s->shown && s->block) unic_memory_paid(s->block);
}

unic_status unic_tensor_hold(const unic_tensor *t, unic_tensor **out) {
  UNIC_TRY(unic_tensor_alias(t, out));
  (*out)->held = 1;
  hold_storage(t->storage);
  return UNIC_OK;
}

unic_tensor *unic_tensor_hold_itself(unic_tensor *t) {
  hold_storage(t->storage);
  return unic_tensor_ref(t);
}

/* The tape lets go of it: what is left may be a handle that waits for a collection. */
static void held_no_more(unic_storage *s, bool left) {
  if (--s->held == 0 && s->shown && !s->lasting && s->block && left) unic_memory_owe(s->block);
}

void unic_tensor_let_go(unic_tensor *t) {
  if (t && !t->held) held_no_more(t->storage, t->refs > 1 || t->storage->refs > 1);
  unic_tensor_unref(t);
}

void unic_tensor_unref(unic_tensor *t) {
  if (!t || !unic_last_ref(&t->refs)) return;
  unic_tensor *grad = t->grad;
  struct unic_node *node = t->node;
  __builtin_prefetch(t->storage, 1);   /* what goes in a collection is in no near cache: node and storage come at once */
  if (t->held) held_no_more(t->storage, t->storage->refs > 1);
  if (node) unic_node_forget(node, t);
  unic_storage_unref(t->storage);
  unic_delete_sized(t, sizeof *t);
  if (grad) unic_tensor_unref(grad);    /* a gradient has no node: one level deep */
  if (node) unic_node_unref(node);      /* frees chains of nodes in a loop of its own */
}

/* Strides of dimensions of size 1 say nothing and are skipped. */
static bool strides_are(const unic_tensor *t, unic_layout layout) {
  if (t->block) return false;
  int64_t stride[UNIC_MAX_RANK];
  unic_stride_fill(t->ndim, t->shape, layout, stride);
  for (int d = 0; d < t->ndim; d++) {
    if (t->shape[d] == 0) return true;
    if (t->shape[d] != 1 && t->stride[d] != stride[d]) {
      for (int e = d + 1; e < t->ndim; e++) if (t->shape[e] == 0) return true;
      return false;
    }
  }
  return true;
}

bool unic_tensor_is_contiguous(const unic_tensor *t) {
  if (t->block) return false;
  int64_t expect = 1;
  for (int d = t->ndim - 1; d >= 0; d--) {
    if (t->shape[d] != 1 && t->stride[d] != expect) return unic_tensor_numel(t) == 0;
    expect *= t->shape[d];
  }
  return true;
}
bool unic_tensor_is_channels_last(const unic_tensor *t) { return t->ndim == 4 && strides_are(t, UNIC_CHANNELS_LAST); }

bool unic_tensor_is_dense(const unic_tensor *t) {
  if (t->block || unic_tensor_is_contiguous(t)) return true;
  /* Walk dimensions from the smallest stride: each must equal the product of those before it. */
  bool used[UNIC_MAX_RANK] = {false};
  int64_t expect = 1;
  for (int step = 0; step < t->ndim; step++) {
    int best = -1;
    for (int d = 0; d < t->ndim; d++)
      if (!used[d] && (best < 0 || t->stride[d] < t->stride[best] || (t->stride[d] == t->stride[best] && t->shape[d] == 1))) best = d;
    used[best] = true;
    if (t->shape[best] == 0) return true;
    if (t->shape[best] == 1) continue;
    if (t->stride[best] != expect) return false;
    expect *= t->shape[best];
  }
  return true;
}

bool unic_tensor_same_layout(const unic_tensor *a, const unic_tensor *b) {
  if (a->ndim != b->ndim || a->block != b->block) return false;
  for (int d = 0; d < a->ndim; d++)
    if (a->shape[d] != b->shape[d] || (a->shape[d] != 1 && a->stride[d] != b->stride[d] && !a->block)) return false;
  return true;
}

const char *unic_shape_describe(int ndim, const int64_t *shape, char *buffer, size_t bytes) {
  size_t used = (size_t)snprintf(buffer, bytes, "[");
  for (int d = 0; d < ndim && used < bytes; d++) used += (size_t)snprintf(buffer + used, bytes - used, "%s%lld", d ? ", " : "", (long long)shape[d]);
  if (used < bytes) snprintf(buffer + used, bytes - used, "]");
  return buffer;
}

const char *unic_tensor_describe(const unic_tensor *t, char *buffer, size_t bytes) {
  char shape[160];
  unic_shape_describe(t->ndim, t->shape, shape, sizeof shape);
  snprintf(buffer, bytes, "%s %s on %s", unic_dtype_name(t->dtype), shape, t->storage->device->name);
  return buffer;
}
