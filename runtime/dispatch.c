/* Dispatch. In order: device and dtype of the call, autocast, the generator, what the op accepts as layouts, the shape rule, outputs, plan,
 * launch, versions, tape. Everything that can be wrong with shapes, dtypes and devices is said before the device works. One long file, because
 * these are the steps of one call, which share what it holds meanwhile (`work`). */
#include "dispatch.h"
#include "recompute.h"
#include "watch.h"
#include "replay.h"
#include "tape.h"

#include <string.h>

static unic_dtype autocast_low = UNIC_F32;

unic_dtype unic_autocast_set(unic_dtype low) {
  unic_dtype was = autocast_low;
  autocast_low = low;
  return was;
}
unic_dtype unic_autocast_get(void) { return autocast_low; }

void unic_call_begin(unic_call *c, const unic_op_info *info) {
  c->op = info->op;
  c->device = NULL;
  c->grad = false;
  c->type = UNIC_F32;
  for (int i = 0; i < info->nargs; i++) {
    c->in[i] = NULL;
    c->list[i] = NULL;
    const unic_value *v = &info->args[i].fallback;
    c->arg[i].number = v->number;
    c->arg[i].integer = v->integer;
    c->arg[i].given = false;
    if (info->args[i].kind == UNIC_KIND_INTS) memcpy(c->arg[i].ints, v->ints, sizeof v->ints);
  }
}

/* ---------------------------------------------------------------- views and launches */

void unic_view_of(const unic_tensor *t, unic_view *v) {
  v->data = unic_tensor_data(t);
  v->ndim = t->ndim;
  v->dtype = t->dtype;
  v->block = t->block;
  v->present = 1;
  int64_t n = 1;
  for (int d = 0; d < t->ndim; d++) {
    v->shape[d] = t->shape[d];
    v->stride[d] = t->stride[d];
    n *= t->shape[d];
  }
  v->numel = n;
}

/* A plan's `make` is not a kernel by itself; these two are, one per slot. */
static unic_status make_first(const unic_kernel *k) { return k->whole_plan->derive[0].make(k, 0, k->derived[0]); }
static unic_status make_second(const unic_kernel *k) { return k->whole_plan->derive[1].make(k, 1, k->derived[1]); }

unic_status unic_launch(unic_device *d, unic_kernel_fn *fn, const unic_kernel *k) {
  if (unic_recording_id(d)) UNIC_TRY(unic_record_launch(d, fn, k));
  if (unic_profiling) return unic_profile_launch(d, fn, k, fn == make_first || fn == make_second);
  return d->api->launch(d, fn, k);
}

/* The device's function for a launch, and its plan function (NULL: it has none). */
static unic_status find_kernel(const unic_op_info *info, const unic_kernel *k, unic_kernel_fn **out, unic_plan_fn **plan) {
  const unic_op_kernels *found = k->device->api->find(k->device, info->op);
  unic_kernel_fn *fn = NULL;
  *plan = found ? found->plan : NULL;
  if (found) {
    if (k->remake) fn = k->type == UNIC_F64 && found->reference_remake ? found->reference_remake : found->remake;
    else if (k->backward) fn = k->type == UNIC_F64 && found->reference_backward ? found->reference_backward : found->backward;
    else fn = k->type == UNIC_F64 && found->reference ? found->reference : found->forward;
  }
  if (!fn) return unic_fail("[%s] there is no %s kernel for %s", info->op->name, k->remake ? "remake" : k->backward ? "backward" : "forward", k->device->name);
  *out = fn;
  return UNIC_OK;
}

unic_status unic_run(const unic_op_info *info, unic_kernel *k, unic_tensor *const *tensors) {
  if (k->device->abstract) {
    if (unic_profiling) unic_profile_abstract(k);
    return UNIC_OK;
  }
  unic_kernel_fn *fn = NULL;
  unic_plan_fn *plan = NULL;
  UNIC_TRY(find_kernel(info, k, &fn, &plan));
  k->plan = NULL;
  k->whole_plan = NULL;
  k->scratch = NULL;
  if (!plan || (info->op->flags & UNIC_OP_PLAN_BACKWARD && !k->backward)) return unic_launch(k->device, fn, k);

  uint64_t recording = unic_recording_id(k->device);
  unic_cached_plan *cached;
  UNIC_TRY(unic_plan_get((unic_op_info *)info, k, plan, &cached));
  unic_storage *scratch = NULL, *held[UNIC_MAX_DERIVED] = {NULL};
  unic_status status = UNIC_OK;
  k->plan = cached->plan.data;
  k->whole_plan = &cached->plan;
  if (recording) status = unic_record_hold_plan(k->device, cached);
  for (int i = 0; i < cached->plan.derives && status == UNIC_OK; i++) {
    unic_tensor *t = tensors ? tensors[cached->plan.derive[i].arg] : NULL;
    if (!t) { k->derived[i] = NULL; continue; }
    /* The form belongs to the whole storage; a look at a part of it gets a tag of its own. */
    uint64_t tag = cached->plan.derive[i].tag ^ ((uint64_t)t->offset * 0x9E3779B97F4A7C15ull);
    unic_storage *form = unic_storage_derived_get(t->storage, tag, recording);
    if (!form) {
      status = unic_storage_derived_make(t->storage, tag, recording, cached->plan.derive[i].bytes, &form);
      if (status != UNIC_OK) break;
      unic_storage_ref(form);
      held[i] = form;
      k->derived[i] = form->data;
      status = unic_launch(k->device, i == 0 ? make_first : make_second, k);
      if (status != UNIC_OK) unic_storage_drop_derived(t->storage);   /* half-made */
    } else {
      unic_storage_ref(form);
      held[i] = form;
      k->derived[i] = form->data;
    }
    if (recording && status == UNIC_OK) status = unic_record_hold(k->device, form);
  }
  if (status == UNIC_OK && cached->plan.scratch > 0) {
    status = unic_storage_new(k->device, cached->plan.scratch, &scratch);
    if (status == UNIC_OK) k->scratch = scratch->data;
  }
  if (status == UNIC_OK) status = unic_launch(k->device, fn, k);
  unic_storage_unref(scratch);   /* stream-ordered: whoever gets it next runs later */
  for (int i = 0; i < UNIC_MAX_DERIVED; i++) unic_storage_unref(held[i]);
  unic_plan_release(cached);
  return status;
}

/* ---------------------------------------------------------------- one call */

/* What a call holds while it runs; everything in `held` is let go at the end. */
typedef struct work {
  unic_call *c;
  unic_op_info *info;
  unic_tensor *origin[UNIC_MAX_ARGS];   /* as the user gave them */
  unic_tensor *held[3 * UNIC_MAX_ARGS];
  int nheld;
  unic_tensor **lists[UNIC_MAX_ARGS];   /* prepared list members (owned arrays of owned tensors); NULL: the caller's */
} work;

static void hold(work *w, int i, unic_tensor *t) {
  w->held[w->nheld++] = t;
  w->c->in[i] = t;
}

static const char *describe(const unic_tensor *t, char buffer[256]) { return unic_tensor_describe(t, buffer, 256); }

/* Device and T. */
static unic_status find_type(work *w) {
  unic_call *c = w->c;
  int typed = -1, fallback = -1;
  unic_tensor *first = NULL;
  for (int i = 0; i < w->info->nargs; i++) {
    const unic_arg_info *a = &w->info->args[i];
    int64_t members = a->kind == UNIC_KIND_TENSORS ? c->arg[i].integer : a->is_tensor && c->in[i] ? 1 : 0;
    for (int64_t m = 0; m < members; m++) {
      unic_tensor *t = a->kind == UNIC_KIND_TENSORS ? c->list[i][m] : c->in[i];
      if (!c->device) c->device = unic_tensor_device(t);
      else if (unic_tensor_device(t) != c->device && a->kind != UNIC_KIND_SCALAR)
        return unic_fail_arg(c, i, "it is on %s and the tensors before it are on %s; t:to(\"%s\") moves it", unic_tensor_device(t)->name, c->device->name, c->device->name);
      if (a->type_class == UNIC_CLASS_T && a->kind != UNIC_KIND_SCALAR && typed < 0) { typed = i; first = t; }
      if ((a->type_class == UNIC_CLASS_FLOAT || a->type_class == UNIC_CLASS_ANY) && fallback < 0) { fallback = i; if (typed < 0) first = t; }
    }
  }
  if (typed >= 0) {
    const unic_arg_info *a = &w->info->args[typed];
    first = a->kind == UNIC_KIND_TENSORS ? c->list[typed][0] : c->in[typed];
  }
  if (first) c->type = first->dtype;
  if (!c->device) c->device = unic_device_cpu();
  return UNIC_OK;
}

static unic_status cast_on_tape(unic_tensor *t, unic_dtype to, unic_tensor **made) {
  unic_op_info *cast;
  UNIC_TRY(unic_op_info_find("cast", &cast));
  unic_call call;
  unic_call_begin(&call, cast);
  call.in[0] = t;
  call.arg[1].integer = to;
  call.arg[1].given = true;
  return unic_dispatch(&call, cast, made);
}

/* A list of the work's own, so that members can be replaced. */
static unic_status own_list(work *w, int i) {
  unic_call *c = w->c;
  if (w->lists[i]) return UNIC_OK;
  w->lists[i] = unic_new((size_t)c->arg[i].integer * sizeof *w->lists[i]);
  if (!w->lists[i]) return UNIC_MEMORY;
  for (int64_t n = 0; n < c->arg[i].integer; n++) w->lists[i][n] = unic_tensor_ref(c->list[i][n]);
  c->list[i] = w->lists[i];
  return UNIC_OK;
}

static unic_status cast_members(work *w, int i, unic_dtype to) {
  unic_call *c = w->c;
  for (int64_t m = 0; m < c->arg[i].integer; m++) {
    unic_tensor *t = c->list[i][m], *made;
    if (t->dtype == to || !unic_dtype_is_float(t->dtype)) continue;
    UNIC_TRY(own_list(w, i));
    UNIC_TRY(cast_on_tape(t, to, &made));
    unic_tensor_unref(t);
    w->lists[i][m] = made;
  }
  return UNIC_OK;
}

/* A cast that the tape knows about: leaves get a cached form, everything else the op `cast`. */
static unic_status cast_input(work *w, int i, unic_dtype to) {
  unic_call *c = w->c;
  unic_tensor *t = c->in[i], *made = NULL;
  if (!t->node && t->requires_grad && unic_tensor_is_dense(t) && !t->block) {
    uint64_t tag = 0xCA57u + (uint64_t)to * 131u + ((uint64_t)t->dtype << 32) + ((uint64_t)t->offset << 40) + (uint64_t)unic_tensor_numel(t);
    uint64_t recording = unic_recording_id(c->device);
    UNIC_TRY(unic_tensor_view(t, t->ndim, t->shape, t->stride, 0, &made));
    hold(w, i, made);
    unic_storage *form = unic_storage_derived_get(t->storage, tag, recording);
    bool fresh = !form;   /* from here to the copy nothing else may fail: the form counts as made */
    if (fresh) UNIC_TRY(unic_storage_derived_make(t->storage, tag, recording, unic_tensor_numel(t) * unic_dtype_size(to), &form));
    unic_storage_unref(made->storage);
    unic_storage_ref(form);
    made->storage = form;
    made->dtype = (uint8_t)to;
    if (fresh) {
      unic_status status = unic_service_copy(made, t);
      if (status != UNIC_OK) unic_storage_drop_derived(t->storage);
      return status;
    }
    return UNIC_OK;
  }
  UNIC_TRY(cast_on_tape(t, to, &made));
  hold(w, i, made);
  if (t->requires_grad) w->origin[i] = made;   /* the edge goes to the cast, which goes to t */
  return UNIC_OK;
}

static unic_status apply_autocast(work *w) {
  unic_call *c = w->c;
  if (autocast_low == UNIC_F32 || c->type == UNIC_F64 || !unic_dtype_is_float(c->type)) return UNIC_OK;
  unic_dtype want = c->type;
  const unic_arg_info *first = &w->info->args[0];
  if (w->info->nargs && first->mutated && first->kind == UNIC_KIND_TENSOR && first->type_class == UNIC_CLASS_T && c->in[0]) want = c->in[0]->dtype;   /* it stays what it is */
  else if (w->info->op->autocast == UNIC_CAST_LOW) want = autocast_low;
  else if (w->info->op->autocast == UNIC_CAST_FULL) want = UNIC_F32;
  else
    for (int i = 0; i < w->info->nargs; i++) {
      const unic_arg_info *a = &w->info->args[i];
      if (a->type_class != UNIC_CLASS_T) continue;
      if (a->kind == UNIC_KIND_TENSORS)
        for (int64_t m = 0; m < c->arg[i].integer; m++) { if (c->list[i][m]->dtype == UNIC_F32) want = UNIC_F32; }
      else if (a->is_tensor && a->kind != UNIC_KIND_SCALAR && c->in[i] && c->in[i]->dtype == UNIC_F32) want = UNIC_F32;
    }
  for (int i = 0; i < w->info->nargs; i++) {
    const unic_arg_info *a = &w->info->args[i];
    if (a->kind == UNIC_KIND_TENSORS && a->type_class == UNIC_CLASS_T && !a->mutated) UNIC_TRY(cast_members(w, i, want));
    unic_tensor *t = a->is_tensor ? c->in[i] : NULL;
    if (!t || a->mutated || a->type_class != UNIC_CLASS_T || a->kind == UNIC_KIND_SCALAR || t->dtype == want || !unic_dtype_is_float(t->dtype)) continue;
    UNIC_TRY(cast_input(w, i, want));
  }
  for (int i = 0; i < w->info->nargs; i++)   /* wide arguments follow f32 even when a bf16 activation is handed in */
    if (w->info->args[i].is_tensor && c->in[i] && w->info->args[i].type_class == UNIC_CLASS_WIDE && unic_dtype_is_half(c->in[i]->dtype) && !w->info->args[i].mutated)
      UNIC_TRY(cast_input(w, i, UNIC_F32));
  c->type = want;
  return UNIC_OK;
}

static unic_status check_class(const unic_call *c, int i, const unic_arg_info *a, const unic_tensor *t) {
  char text[256];
  unic_dtype d = t->dtype;
  switch (a->type_class) {
    case UNIC_CLASS_T:
      if (!unic_dtype_is_float(d) && !(c->op->flags & UNIC_OP_INTS))
        return unic_fail_arg(c, i, "%s was given, expected a floating type; t:cast(\"f32\") converts it", describe(t, text));
      if (d != c->type) return unic_fail_arg(c, i, "it is %s and the tensor before it is %s; t:cast(\"%s\") converts it", unic_dtype_name(d), unic_dtype_name(c->type), unic_dtype_name(c->type));
      return UNIC_OK;
    case UNIC_CLASS_WIDE:
      if (d != unic_dtype_wide(c->type))
        return unic_fail_arg(c, i, "it is %s, expected %s beside %s tensors; t:cast(\"%s\") converts it", unic_dtype_name(d), unic_dtype_name(unic_dtype_wide(c->type)),
                             unic_dtype_name(c->type), unic_dtype_name(unic_dtype_wide(c->type)));
      return UNIC_OK;
    case UNIC_CLASS_FLOAT:
      if (!unic_dtype_is_float(d)) return unic_fail_arg(c, i, "%s was given, expected a floating type; t:cast(\"f32\") converts it", describe(t, text));
      return UNIC_OK;
    case UNIC_CLASS_INT:
      if (d != UNIC_I64 && d != UNIC_I32) return unic_fail_arg(c, i, "%s was given, expected i64 or i32; t:cast(\"i64\") converts it", describe(t, text));
      return UNIC_OK;
    case UNIC_CLASS_ANY:
      return UNIC_OK;
    default:
      if ((int)d != a->type_class - UNIC_CLASS_EXACT) {
        const char *want = unic_dtype_name((unic_dtype)(a->type_class - UNIC_CLASS_EXACT));
        return unic_fail_arg(c, i, "%s was given, expected %s; t:cast(\"%s\") converts it", describe(t, text), want, want);
      }
      return UNIC_OK;
  }
}

typedef struct letters { int n; struct { const char *letter; int64_t size; const char *arg; } bound[24]; } letters;

static unic_status check_dims(const unic_call *c, int i, const unic_arg_info *a, const unic_tensor *t, letters *known) {
  if (!a->dims_given) return UNIC_OK;
  char text[256];
  int rest = -1;
  for (int d = 0; d < a->ndims; d++) if (a->dims[d].rest) rest = d;
  int fixed = a->ndims - (rest >= 0);
  if (rest >= 0 ? t->ndim < fixed : t->ndim != fixed)
    return unic_fail_arg(c, i, "%s was given, expected %d dimension%s%s", describe(t, text), fixed, fixed == 1 ? "" : "s", rest >= 0 ? " or more" : "");
  for (int d = 0; d < a->ndims; d++) {
    const unic_dim_info *dim = &a->dims[d];
    if (dim->rest) continue;
    int at = rest >= 0 && d > rest ? t->ndim - (a->ndims - d) : d;
    int64_t size = t->shape[at];
    if (!dim->letter[0]) {
      if (size != dim->size) return unic_fail_arg(c, i, "%s was given, dimension %d must be %lld", describe(t, text), at + 1, (long long)dim->size);
      continue;
    }
    int l = 0;
    while (l < known->n && strcmp(known->bound[l].letter, dim->letter) != 0) l++;
    if (l < known->n) {
      if (known->bound[l].size != size)
        return unic_fail_arg(c, i, "%s was given, dimension %d (%s) must be %lld as in '%s'", describe(t, text), at + 1, dim->letter, (long long)known->bound[l].size, known->bound[l].arg);
    } else if (known->n < (int)(sizeof known->bound / sizeof *known->bound)) {
      known->bound[known->n].letter = dim->letter;
      known->bound[known->n].size = size;
      known->bound[known->n++].arg = a->name;
    }
  }
  return UNIC_OK;
}

/* Inside a checkpointed piece: generators are noted, and what the second run would change again (running statistics) is a copy. */
static unic_status leave_alone(work *w, int i, const unic_arg_info *a) {
  unic_tensor *t = w->c->in[i], *copy;
  if (a->kind == UNIC_KIND_RNG) return unic_frame_rng(t);
  if (!unic_frame_keeps(t)) return UNIC_OK;
  UNIC_TRY(unic_tensor_convert(t, t->dtype, UNIC_LAYOUT_KEEP, &copy));
  hold(w, i, copy);
  return UNIC_OK;
}

static unic_status check(work *w) {
  unic_call *c = w->c;
  letters known = {0};
  for (int i = 0; i < w->info->nargs; i++) {
    const unic_arg_info *a = &w->info->args[i];
    if (a->kind == UNIC_KIND_TENSORS) {
      for (int64_t m = 0; m < c->arg[i].integer; m++) {
        UNIC_TRY(check_class(c, i, a, c->list[i][m]));
        UNIC_TRY(check_dims(c, i, a, c->list[i][m], &known));
      }
      continue;
    }
    if (!a->is_tensor) continue;
    if (a->kind == UNIC_KIND_RNG && !c->in[i]) {
      UNIC_TRY(unic_device_rng(c->device, &c->in[i]));
      w->origin[i] = c->in[i];
    }
    if (a->kind == UNIC_KIND_SCALAR) {
      unic_dtype wide = unic_dtype_wide(c->type);
      unic_tensor *t = c->in[i], *made;
      if (t && t->ndim != 0) {
        char text[256];
        return unic_fail_arg(c, i, "%s was given, expected a number or a tensor without dimensions", describe(t, text));
      }
      if (!t) {
        if (a->optional && !c->arg[i].given && !a->has_default) continue;
        UNIC_TRY(unic_tensor_new(c->device, wide, 0, NULL, UNIC_CONTIGUOUS, 0, &made));
        hold(w, i, made);
        UNIC_TRY(unic_service_fill(made, c->arg[i].number));
      } else if (unic_tensor_device(t) != c->device) {
        UNIC_TRY(unic_tensor_to_device(t, c->device, &made));
        hold(w, i, made);
        t = made;
      }
      if (t && t->dtype != wide && unic_dtype_is_float(t->dtype)) UNIC_TRY(cast_input(w, i, wide));
    }
    unic_tensor *t = c->in[i];
    if (!t) {
      if (a->optional || a->kind == UNIC_KIND_OPERAND) continue;
      return unic_fail_arg(c, i, "it is missing, expected a tensor");
    }
    if (a->kind == UNIC_KIND_RNG && (t->dtype != UNIC_I64 || unic_tensor_numel(t) != 2)) {
      char text[256];
      return unic_fail_arg(c, i, "%s was given, expected a generator (i64 [2])", describe(t, text));
    }
    UNIC_TRY(check_class(c, i, a, t));
    UNIC_TRY(check_dims(c, i, a, t, &known));
    if (a->mutated && unic_frame_current) UNIC_TRY(leave_alone(w, i, a));
  }
  return UNIC_OK;
}

/* The usual call of an element-wise op: there is nothing to cast, copy or look up, and one pass says what the steps below would find out one by one.
 * Sets device and T when it is one. */
static bool is_plain(work *w) {
  unic_call *c = w->c;
  const unic_op_info *info = w->info;
  if (!info->plain || autocast_low != UNIC_F32) return false;
  const unic_tensor *first = NULL;
  for (int i = 0; i < info->nargs; i++) {
    const unic_tensor *t = c->in[i];
    if (!t) {
      if (info->args[i].kind == UNIC_KIND_TENSOR && !info->args[i].optional) return false;
      continue;
    }
    if (!unic_tensor_is_contiguous(t)) return false;
    if (!first) first = t;
    else if (t->dtype != first->dtype || unic_tensor_device(t) != unic_tensor_device(first)) return false;
  }
  if (!first || (!unic_dtype_is_float((unic_dtype)first->dtype) && !(info->op->flags & UNIC_OP_INTS))) return false;
  c->device = unic_tensor_device(first);
  c->type = (unic_dtype)first->dtype;
  return true;
}

/* ---------------------------------------------------------------- layouts */

static bool accepted(const unic_tensor *t, uint8_t layouts) {
  if (t->block) return layouts & UNIC_ACCEPT_BLOCKED || (layouts & UNIC_ACCEPT_DENSE);
  if (layouts & UNIC_ACCEPT_ANY) return true;
  if (layouts & UNIC_ACCEPT_DENSE && unic_tensor_is_dense(t)) return true;
  if (layouts & UNIC_ACCEPT_CHANNELS_LAST && (t->ndim == 4 ? unic_tensor_is_channels_last(t) : unic_tensor_is_contiguous(t))) return true;
  if (layouts & UNIC_ACCEPT_CONTIGUOUS && unic_tensor_is_contiguous(t)) return true;
  return false;
}

static unic_status prepare_layouts(work *w) {
  unic_call *c = w->c;
  const unic_tensor *lead = NULL;   /* the first input of those that must share one dense layout */
  for (int i = 0; i < w->info->nargs; i++) {
    const unic_arg_info *a = &w->info->args[i];
    if (a->kind == UNIC_KIND_TENSORS) {
      for (int64_t m = 0; m < c->arg[i].integer; m++) {
        unic_tensor *t = c->list[i][m], *made;
        if (accepted(t, a->layouts)) continue;
        if (a->mutated) return unic_fail_arg(c, i, "member %lld is not laid out as the op writes (row-major); t:contiguous() copies it", (long long)m + 1);
        UNIC_TRY(own_list(w, i));
        UNIC_TRY(unic_tensor_convert(t, t->dtype, a->layouts & UNIC_ACCEPT_CHANNELS_LAST ? UNIC_CHANNELS_LAST : UNIC_CONTIGUOUS, &made));
        unic_tensor_unref(w->lists[i][m]);
        w->lists[i][m] = made;
      }
      continue;
    }
    unic_tensor *t = a->is_tensor ? c->in[i] : NULL, *made = NULL;
    if (!t) continue;
    bool fits = accepted(t, a->layouts);
    if ((a->layouts & UNIC_ACCEPT_DENSE) && lead) {
      if (t->ndim == lead->ndim && memcmp(t->shape, lead->shape, t->ndim * sizeof *t->shape) == 0) {
        if (unic_tensor_same_layout(t, lead)) continue;
        if (a->mutated) return unic_fail_arg(c, i, "it is written in place and lies in memory otherwise than the first input; t:contiguous() copies it");
        if (lead->block) UNIC_TRY(unic_tensor_new(c->device, t->dtype, t->ndim, t->shape, UNIC_BLOCKED, lead->block, &made));
        else UNIC_TRY(unic_tensor_new_strided(c->device, t->dtype, t->ndim, t->shape, lead->stride, &made));
        hold(w, i, made);
        UNIC_TRY(unic_service_copy(made, t));
        continue;
      }
      fits = unic_tensor_is_contiguous(t);   /* broadcast: nothing to share */
    } else if (fits && (a->layouts & UNIC_ACCEPT_DENSE)) {
      lead = t;
    }
    if (fits) continue;
    if (a->mutated) {
      char text[256];
      return unic_fail_arg(c, i, "%s is not laid out as the op writes (row-major); t:contiguous() copies it", describe(t, text));
    }
    bool last = t->ndim == 4 && (a->layouts & UNIC_ACCEPT_CHANNELS_LAST || (t->block && a->layouts & (UNIC_ACCEPT_ANY | UNIC_ACCEPT_DENSE)));
    UNIC_TRY(unic_tensor_convert(t, t->dtype, last ? UNIC_CHANNELS_LAST : UNIC_CONTIGUOUS, &made));
    hold(w, i, made);
    if ((a->layouts & UNIC_ACCEPT_DENSE) && !lead) lead = made;
  }
  return UNIC_OK;
}

/* ---------------------------------------------------------------- memory that is written */

unic_status unic_refuse_expanded(const char *op, const char *arg, const unic_tensor *t) {
  char text[256];
  if (t->block || unic_tensor_numel(t) < 2) return UNIC_OK;
  for (int d = 0; d < t->ndim; d++)
    if (t->shape[d] > 1 && t->stride[d] == 0)
      return unic_fail("[%s] argument '%s': %s is expanded, several of its elements lie in one place; t:clone() makes one that can be written", op, arg, describe(t, text));
  return UNIC_OK;
}

/* The first byte of t and the one behind its last, counted from the start of its storage. */
static void extent(const unic_tensor *t, int64_t *first, int64_t *end) {
  int64_t low = t->offset, high = t->offset, size = unic_dtype_size(t->dtype);
  for (int d = 0; d < t->ndim; d++) {
    int64_t way = (t->shape[d] - 1) * t->stride[d];
    if (way < 0) low += way;
    else high += way;
  }
  *first = low * size;
  *end = (high + 1) * size;
}

bool unic_tensors_cross(const unic_tensor *a, const unic_tensor *b) {
  if (a->storage != b->storage || unic_tensor_numel(a) == 0 || unic_tensor_numel(b) == 0) return false;
  if (a->block || b->block) return a->block != b->block;
  if (a->dtype == b->dtype && a->offset == b->offset && a->ndim == b->ndim && memcmp(a->shape, b->shape, a->ndim * sizeof *a->shape) == 0 &&
      memcmp(a->stride, b->stride, a->ndim * sizeof *a->stride) == 0) return false;
  int64_t first, end, other, last;
  extent(a, &first, &end);
  extent(b, &other, &last);
  return first < last && other < end;
}

/* What is written must have a place for each element, and what is read must not change under the kernel: a copy of it then. */
static unic_status part_memory(work *w) {
  unic_call *c = w->c;
  for (int i = 0; i < w->info->nargs; i++) {
    const unic_arg_info *a = &w->info->args[i];
    if (!a->mutated || a->kind == UNIC_KIND_RNG) continue;
    if (a->kind == UNIC_KIND_TENSORS) {
      for (int64_t m = 0; m < c->arg[i].integer; m++) UNIC_TRY(unic_refuse_expanded(c->op->name, a->name, c->list[i][m]));
      continue;
    }
    if (!c->in[i]) continue;
    UNIC_TRY(unic_refuse_expanded(c->op->name, a->name, c->in[i]));
    for (int j = 0; j < w->info->nargs; j++) {
      unic_tensor *made;
      if (j == i || !w->info->args[j].is_tensor || !c->in[j] || w->info->args[j].mutated || !unic_tensors_cross(c->in[i], c->in[j])) continue;
      UNIC_TRY(unic_tensor_convert(c->in[j], c->in[j]->dtype, UNIC_LAYOUT_KEEP, &made));
      hold(w, j, made);
    }
  }
  return UNIC_OK;
}

/* ---------------------------------------------------------------- outputs */

static unic_status make_output(const unic_call *c, const unic_meta *m, unic_tensor **out) {
  if (m->layout == UNIC_LAYOUT_KEEP) return unic_tensor_new_strided(c->device, m->dtype, m->ndim, m->shape, m->stride, out);
  return unic_tensor_new(c->device, m->dtype, m->ndim, m->shape, m->layout, m->block, out);
}

/* Before anything is made of them, views included: the sentence names the op. */
static unic_status check_count(const work *w) {
  for (int j = 0; j < w->info->nouts; j++) {
    const unic_meta *m = &w->c->out[j];
    int64_t n = 1;
    for (int d = 0; d < m->ndim; d++)
      if (__builtin_mul_overflow(n, m->shape[d], &n)) return unic_fail("[%s] the result would have more elements than 64 bits can count", w->c->op->name);
  }
  return UNIC_OK;
}

static bool wants_grad(const unic_tensor *t) { return t && (t->requires_grad || t->node); }

static unic_status check_grad(work *w) {
  unic_call *c = w->c;
  c->grad = false;
  if (!unic_grad_mode()) return UNIC_OK;
  for (int i = 0; i < w->info->nargs; i++) {
    const unic_arg_info *a = &w->info->args[i];
    if (a->kind == UNIC_KIND_TENSORS) {
      for (int64_t m = 0; m < c->arg[i].integer; m++) {
        if (!wants_grad(c->list[i][m])) continue;
        if (a->mutated) return unic_fail_arg(c, i, "member %lld needs a gradient and would be overwritten; unic.no_grad(fn) allows it", (long long)m + 1);
        if (a->grad) c->grad = true;
      }
      continue;
    }
    if (!a->is_tensor || !wants_grad(w->origin[i])) continue;
    if (!a->mutated && w->info->op->flags & UNIC_OP_INPLACE)
      return unic_fail_arg(c, i, "it needs a gradient, which what is written in place would lose; t:detach() or unic.no_grad(fn) says that none is wanted");
    if (a->mutated) return unic_fail_arg(c, i, "it needs a gradient and would be overwritten; unic.no_grad(fn) allows it");
    if (a->grad || (w->info->op->flags & UNIC_OP_NO_GRAD)) c->grad = true;
  }
  return UNIC_OK;
}

static void fill_kernel(const work *w, unic_kernel *k, unic_tensor *const *outs) {
  const unic_call *c = w->c;
  k->op = c->op;
  k->device = c->device;
  k->type = c->type;
  k->backward = false;
  k->remake = 0;
  k->grad = c->grad;
  memset(k->list, 0, sizeof k->list);     /* all of them: a launch that runs late copies what is set */
  memset(k->dlist, 0, sizeof k->dlist);
  for (int i = 0; i < w->info->nargs; i++) {
    k->arg[i] = c->arg[i];
    if (c->in[i]) unic_view_of(c->in[i], &k->in[i]);
    else { k->in[i].present = 0; k->in[i].data = NULL; k->in[i].numel = 0; k->in[i].ndim = 0; k->in[i].dtype = 0; k->in[i].block = 0; }
  }
  for (int j = 0; j < w->info->nouts; j++) {
    if (outs[j]) unic_view_of(outs[j], &k->out[j]);
    else {
      k->out[j].present = 0;
      k->out[j].data = NULL;
      k->out[j].ndim = 0;
      k->out[j].dtype = 0;
      k->out[j].block = 0;
    }
  }
}

static unic_status run(work *w, unic_tensor **outs) {
  unic_call *c = w->c;
  const unic_op *op = c->op;
  if (op->flags & UNIC_OP_VIEW) {
    if (c->out[0].layout != UNIC_LAYOUT_KEEP) {   /* the strides allow no view: row-major first */
      unic_tensor *dense;
      UNIC_TRY(unic_tensor_convert(c->in[0], c->in[0]->dtype, UNIC_CONTIGUOUS, &dense));
      hold(w, 0, dense);
      unic_stride_fill(c->out[0].ndim, c->out[0].shape, UNIC_CONTIGUOUS, c->out[0].stride);
      c->out[0].offset = dense->offset;
    }
    return unic_tensor_view(c->in[0], c->out[0].ndim, c->out[0].shape, c->out[0].stride, c->out[0].offset, &outs[0]);
  }
  for (int j = 0; j < w->info->nouts; j++)
    if (!w->info->outs[j].hidden || c->grad) UNIC_TRY(make_output(c, &c->out[j], &outs[j]));
  unic_kernel k;
  fill_kernel(w, &k, outs);
  unic_status status = UNIC_OK;
  unic_view *views = NULL;
  int64_t members = 0;
  for (int i = 0; w->info->lists && i < w->info->nargs; i++) if (w->info->args[i].kind == UNIC_KIND_TENSORS) members += c->arg[i].integer;
  if (members) {
    views = unic_new((size_t)members * sizeof *views);
    if (!views) return UNIC_MEMORY;
    unic_view *at = views;
    for (int i = 0; i < w->info->nargs; i++) {
      if (w->info->args[i].kind != UNIC_KIND_TENSORS) continue;
      k.list[i] = at;
      for (int64_t m = 0; m < c->arg[i].integer; m++) unic_view_of(c->list[i][m], at++);
    }
  }
  if (unic_recording_id(c->device))
    for (int i = 0; i < w->info->nargs && status == UNIC_OK; i++) {
      if (c->in[i]) status = unic_record_hold(c->device, c->in[i]->storage);
      if (w->info->args[i].kind == UNIC_KIND_TENSORS)
        for (int64_t m = 0; m < c->arg[i].integer && status == UNIC_OK; m++) status = unic_record_hold(c->device, c->list[i][m]->storage);
    }
  if (status == UNIC_OK) status = unic_run(w->info, &k, c->in);
  unic_delete(views);
  return status;
}

unic_status unic_dispatch(unic_call *c, unic_op_info *info, unic_tensor **outs) {
  work w;
  w.c = c;
  w.info = info;
  w.nheld = 0;
  unic_tensor **given[UNIC_MAX_ARGS];
  for (int i = 0; i < info->nargs; i++) {
    w.origin[i] = c->in[i];
    w.lists[i] = NULL;
    given[i] = c->list[i];
  }
  unic_tensor *made[UNIC_MAX_OUTS] = {NULL};
  unic_status status = unic_frame_current ? unic_frame_call(c, info) : UNIC_OK;
  if (is_plain(&w)) {
    if (status == UNIC_OK) status = check_grad(&w);
  } else {
    if (status == UNIC_OK) status = find_type(&w);
    if (status == UNIC_OK) status = apply_autocast(&w);
    if (status == UNIC_OK) status = check(&w);
    if (status == UNIC_OK) status = check_grad(&w);
    if (status == UNIC_OK && info->mutates) status = part_memory(&w);
    if (status == UNIC_OK) status = prepare_layouts(&w);
  }
  if (status == UNIC_OK && info->op->shape) status = info->op->shape(c);
  if (status == UNIC_OK) status = check_count(&w);
  if (status == UNIC_OK && c->grad && (info->op->flags & UNIC_OP_NO_GRAD)) {
    bool real = false;
    for (int j = 0; j < info->visible; j++) real = real || unic_dtype_is_float(c->out[j].dtype);
    if (real) status = unic_fail("[%s] it has no gradient and an input needs one; unic.no_grad(fn) or t:detach() says that none is wanted", info->op->name);
    c->grad = false;
  }
  if (status == UNIC_OK && c->grad) {   /* comparisons and argmax: nothing to differentiate */
    bool real = false;
    for (int j = 0; j < info->visible; j++) real = real || unic_dtype_is_float(c->out[j].dtype);
    if (!real && info->visible) c->grad = false;
  }
  if (status == UNIC_OK) status = run(&w, made);
  if (status == UNIC_OK && unic_watch) status = unic_watch->forward(c, info, made);
  if (status == UNIC_OK && info->mutates) {
    uint32_t line = unic_call_up.line ? unic_call_up.line() : 0;
    for (int i = 0; i < info->nargs; i++) {
      if (!info->args[i].mutated) continue;
      if (info->args[i].kind == UNIC_KIND_TENSORS)
        for (int64_t m = 0; m < c->arg[i].integer; m++) unic_storage_touch(c->list[i][m]->storage, line);
      else if (c->in[i] && info->args[i].kind != UNIC_KIND_RNG) unic_storage_touch(c->in[i]->storage, line);
    }
  }
  if (status == UNIC_OK && (info->op->flags & UNIC_OP_INPLACE)) {
    for (int i = 0; i < info->nargs; i++)
      if (info->args[i].mutated && info->args[i].is_tensor && info->args[i].kind != UNIC_KIND_RNG) { made[0] = unic_tensor_ref(w.origin[i]); break; }
  } else if (status == UNIC_OK && c->grad) {
    status = unic_node_record(c, info, w.origin, made);
  }
  for (int j = 0; j < UNIC_MAX_OUTS; j++) {
    if (j < info->visible || (j == 0 && (info->op->flags & UNIC_OP_INPLACE))) {
      outs[j] = status == UNIC_OK ? made[j] : NULL;
      if (status != UNIC_OK) unic_tensor_unref(made[j]);
    } else {
      unic_tensor_unref(made[j]);
    }
  }
  for (int i = 0; i < w.nheld; i++) unic_tensor_unref(w.held[i]);
  for (int i = 0; i < info->nargs; i++) {
    if (w.lists[i]) {
      for (int64_t m = 0; m < c->arg[i].integer; m++) unic_tensor_unref(w.lists[i][m]);
      unic_delete(w.lists[i]);
    }
    c->list[i] = given[i];
  }
  if (status == UNIC_OK) info->calls++;
  return status;
}
