/* Dispatch: from a checked call to launched kernels. */
#ifndef UNIC_DISPATCH_H
#define UNIC_DISPATCH_H

#include "op_info.h"

/* Run a call. The caller fills op, in, list, arg (defaults included) and, for ops without tensors, device. outs receives the visible outputs
 * (new references); an in-place op gives its first mutated tensor, or nothing when that is a list. */
unic_status unic_dispatch(unic_call *c, unic_op_info *info, unic_tensor **outs);

/* Set a call's attributes to their defaults. */
void unic_call_begin(unic_call *c, const unic_op_info *info);

/* A tensor as a kernel sees it. */
void unic_view_of(const unic_tensor *t, unic_view *v);

/* Launch a kernel: into the recording that is going on, and on the device. */
unic_status unic_launch(unic_device *d, unic_kernel_fn *fn, const unic_kernel *k);
/* Make sure that plan, derived forms and scratch of k are there, run, and let the scratch go. tensors[i]: what holds in[i]'s storage (for derived forms; may be NULL). */
unic_status unic_run(const unic_op_info *info, unic_kernel *k, unic_tensor *const *tensors);

/* Service kernels. Any strides and dtypes; never recorded on the tape. */
unic_status unic_service_copy(unic_tensor *to, const unic_tensor *from);
unic_status unic_service_fill(unic_tensor *to, double value);
unic_status unic_service_accumulate(unic_tensor *to, const unic_tensor *from);

/* For what is written in place: a sentence when several elements of t lie in one place; whether a and b share memory otherwise than element by element. */
unic_status unic_refuse_expanded(const char *op, const char *arg, const unic_tensor *t);
bool unic_tensors_cross(const unic_tensor *a, const unic_tensor *b);
/* A new tensor with t's values, dense in the given layout (KEEP: t's own strides when dense), in another dtype if asked for. */
unic_status unic_tensor_convert(const unic_tensor *t, unic_dtype dtype, unic_layout layout, unic_tensor **out);
/* From one device to another; host memory in between. */
unic_status unic_tensor_to_device(const unic_tensor *t, unic_device *device, unic_tensor **out);

/* The default generator's state of a device, i64 [2] = {seed, counter} (borrowed). */
unic_status unic_device_rng(unic_device *d, unic_tensor **out);

/* Autocast: UNIC_F32 = off. Returns what it was. */
unic_dtype unic_autocast_set(unic_dtype low);
unic_dtype unic_autocast_get(void);

#endif
