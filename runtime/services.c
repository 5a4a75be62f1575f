/* What the runtime itself asks of a device's kernels: copies, fills and sums, tensors in another form or on another device, the default generator. */
#include "dispatch.h"

#include <string.h>

static unic_status service(const char *name, unic_tensor *to, const unic_tensor *from, double value) {
  unic_op_info *info;
  UNIC_TRY(unic_op_info_find(name, &info));
  unic_kernel k;
  memset(&k.arg, 0, sizeof k.arg);
  memset(k.list, 0, sizeof k.list);
  memset(k.dlist, 0, sizeof k.dlist);
  k.op = info->op;
  k.device = unic_tensor_device(to);
  k.backward = k.grad = false;
  k.remake = 0;
  k.type = UNIC_F32;
  unic_view_of(to, &k.in[0]);
  if (from) unic_view_of(from, &k.in[1]);
  else { k.in[1].present = 0; k.in[1].data = NULL; k.arg[1].number = value; }
  UNIC_TRY(unic_run(info, &k, NULL));
  unic_storage_touch(to->storage, 0);
  return UNIC_OK;
}

unic_status unic_service_copy(unic_tensor *to, const unic_tensor *from) { return service("copy", to, from, 0); }
unic_status unic_service_fill(unic_tensor *to, double value) { return service("fill", to, NULL, value); }
unic_status unic_service_accumulate(unic_tensor *to, const unic_tensor *from) { return service("accumulate", to, from, 0); }

unic_status unic_tensor_convert(const unic_tensor *t, unic_dtype dtype, unic_layout layout, unic_tensor **out) {
  unic_tensor *made;
  if (layout == UNIC_LAYOUT_KEEP && !t->block && unic_tensor_is_dense(t)) UNIC_TRY(unic_tensor_new_strided(unic_tensor_device(t), dtype, t->ndim, t->shape, t->stride, &made));
  else if (layout == UNIC_LAYOUT_KEEP && t->block) UNIC_TRY(unic_tensor_new(unic_tensor_device(t), dtype, t->ndim, t->shape, UNIC_BLOCKED, t->block, &made));
  else UNIC_TRY(unic_tensor_new(unic_tensor_device(t), dtype, t->ndim, t->shape, layout == UNIC_LAYOUT_KEEP ? UNIC_CONTIGUOUS : layout, 0, &made));
  unic_status status = unic_service_copy(made, t);
  if (status != UNIC_OK) {
    unic_tensor_unref(made);
    return status;
  }
  *out = made;
  return UNIC_OK;
}

unic_status unic_tensor_to_device(const unic_tensor *t, unic_device *device, unic_tensor **out) {
  unic_device *from = unic_tensor_device(t);
  unic_tensor *dense = NULL, *made = NULL;
  UNIC_TRY(unic_tensor_convert(t, t->dtype, t->block ? UNIC_CHANNELS_LAST : UNIC_LAYOUT_KEEP, &dense));
  if (from == device) { *out = dense; return UNIC_OK; }
  unic_status status = unic_tensor_new_strided(device, t->dtype, t->ndim, dense->shape, dense->stride, &made);
  int64_t bytes = unic_tensor_bytes(t);
  if (status == UNIC_OK && bytes > 0 && !device->abstract) {
    if (from->host) status = device->api->upload(device, unic_tensor_data(made), unic_tensor_data(dense), bytes);
    else if (device->host) status = from->api->download(from, unic_tensor_data(made), unic_tensor_data(dense), bytes);
    else {
      void *middle = unic_new((size_t)bytes);
      status = middle ? from->api->download(from, middle, unic_tensor_data(dense), bytes) : UNIC_MEMORY;
      if (status == UNIC_OK) status = device->api->upload(device, unic_tensor_data(made), middle, bytes);
      unic_delete(middle);
    }
  }
  unic_tensor_unref(dense);
  if (status != UNIC_OK) {
    unic_tensor_unref(made);
    return status;
  }
  *out = made;
  return UNIC_OK;
}

unic_status unic_device_rng(unic_device *d, unic_tensor **out) {
  if (!d->rng) {
    unic_tensor *t;
    int64_t two = 2;
    UNIC_TRY(unic_tensor_new(d, UNIC_I64, 1, &two, UNIC_CONTIGUOUS, 0, &t));
    if (!d->abstract) {
      unic_status status = unic_service_fill(t, 0);
      if (status != UNIC_OK) {
        unic_tensor_unref(t);
        return status;
      }
    }
    t->keep = 1;
    d->rng = t;
  }
  *out = d->rng;
  return UNIC_OK;
}
