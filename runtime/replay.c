/* Recorded launches. A launch is copied with everything it points to that is not device memory. */
#include "replay.h"
#include "dispatch.h"

#include <stdlib.h>
#include <string.h>

typedef struct launch {
  unic_kernel_fn *fn;
  unic_kernel kernel;
  unic_view *views;      /* the lists' members */
} launch;

struct unic_recording {
  unic_device *device;
  unic_memory_pool *pool;
  uint64_t id;
  launch *launches;
  int64_t n, room;
  unic_storage **held;
  int64_t nheld, held_room;
  unic_cached_plan **plans;
  int64_t nplans, plans_room;
  void *piece;           /* all launches as one, where the device can (a CUDA graph) */
  bool open;
};

static unic_recording *current;
static uint64_t last_id;

static unic_status grow(void **array, int64_t *room, int64_t used, size_t item) {
  if (used < *room) return UNIC_OK;
  int64_t more = *room ? 2 * *room : 256;
  void *grown = unic_new((size_t)more * item);
  if (!grown) return UNIC_MEMORY;
  if (used) memcpy(grown, *array, (size_t)used * item);
  unic_delete(*array);
  *array = grown;
  *room = more;
  return UNIC_OK;
}

uint64_t unic_recording_id(const unic_device *d) { return current && current->device == d ? current->id : 0; }
int64_t unic_recording_launches(const unic_recording *r) { return r->n; }

unic_status unic_record_begin(unic_device *d, unic_recording **out) {
  if (current) return unic_fail("[record] a recording is going on already");
  if (d->abstract) return unic_fail("[record] argument 'device': %s runs nothing that could be recorded", d->name);
  unic_recording *r = unic_new(sizeof *r);
  if (!r) return UNIC_MEMORY;
  r->device = d;
  r->pool = unic_memory_pool_begin(d->memory);
  if (!r->pool) { unic_delete(r); return UNIC_MEMORY; }
  r->id = ++last_id;
  r->open = true;
  current = r;
  *out = r;
  return UNIC_OK;
}

static unic_status launch_all(void *context) {
  unic_recording *r = context;
  for (int64_t i = 0; i < r->n; i++) UNIC_TRY(r->device->api->launch(r->device, r->launches[i].fn, &r->launches[i].kernel));
  return UNIC_OK;
}

void unic_record_end(unic_recording *r) {
  if (!r->open) return;
  r->open = false;
  current = NULL;
  unic_memory_pool_end(r->device->memory);
}

unic_status unic_record_hold(unic_device *d, unic_storage *s) {
  unic_recording *r = current;
  (void)d;
  if (r->nheld && r->held[r->nheld - 1] == s) return UNIC_OK;
  /* Memory of the recording's own pool must be reusable inside it; what came from outside must stay. */
  if (s->block && s->refs > 0 && unic_block_in_pool(s->block, r->pool)) return UNIC_OK;
  UNIC_TRY(grow((void **)&r->held, &r->held_room, r->nheld, sizeof *r->held));
  unic_storage_ref(s);
  r->held[r->nheld++] = s;
  return UNIC_OK;
}

unic_status unic_record_hold_plan(unic_device *d, unic_cached_plan *p) {
  unic_recording *r = current;
  (void)d;
  UNIC_TRY(grow((void **)&r->plans, &r->plans_room, r->nplans, sizeof *r->plans));
  r->plans[r->nplans++] = unic_plan_ref(p);
  return UNIC_OK;
}

unic_status unic_record_launch(unic_device *d, unic_kernel_fn *fn, const unic_kernel *k) {
  unic_recording *r = current;
  (void)d;
  UNIC_TRY(grow((void **)&r->launches, &r->room, r->n, sizeof *r->launches));
  unic_op_info *info;
  UNIC_TRY(unic_op_info_find(k->op->name, &info));
  launch *l = &r->launches[r->n];
  l->fn = fn;
  l->kernel = *k;
  l->views = NULL;
  int64_t members = 0;
  for (int i = 0; i < info->nargs; i++)
    if (info->args[i].kind == UNIC_KIND_TENSORS) members += k->arg[i].integer;
  if (members) {
    l->views = unic_new(2 * (size_t)members * sizeof *l->views);
    if (!l->views) return UNIC_MEMORY;
    unic_view *at = l->views;
    for (int i = 0; i < info->nargs; i++) {
      if (info->args[i].kind != UNIC_KIND_TENSORS) continue;
      int64_t n = k->arg[i].integer;
      memcpy(at, k->list[i], (size_t)n * sizeof *at);
      l->kernel.list[i] = at;
      at += n;
      if (k->backward && k->dlist[i]) {
        memcpy(at, k->dlist[i], (size_t)n * sizeof *at);
        l->kernel.dlist[i] = at;
      }
      at += n;
    }
  }
  r->n++;
  return UNIC_OK;
}

unic_status unic_replay(unic_recording *r) {
  if (r->open) return unic_fail("[replay] the recording is still going on");
  const unic_device_api *api = r->device->api;
  if (!api->capture) return launch_all(r);
  if (!r->piece) UNIC_TRY(api->capture(r->device, launch_all, r, &r->piece));
  return api->capture_launch(r->device, r->piece);
}

void unic_recording_free(unic_recording *r) {
  if (!r) return;
  unic_record_end(r);
  if (r->piece) r->device->api->capture_free(r->device, r->piece);
  for (int64_t i = 0; i < r->n; i++) unic_delete(r->launches[i].views);
  for (int64_t i = 0; i < r->nheld; i++) unic_storage_unref(r->held[i]);
  for (int64_t i = 0; i < r->nplans; i++) unic_plan_release(r->plans[i]);
  unic_delete(r->launches);
  unic_delete(r->held);
  unic_delete(r->plans);
  unic_memory_pool_free(r->device->memory, r->pool);
  unic_delete(r);
}
