/* The profiler's notes. */
#include "watch.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST_EVENTS = 1 << 22 };

bool unic_profiling;
uint32_t unic_watch_module, unic_watch_line;
const unic_watch_calls *unic_watch;

static unic_event *events;
static int64_t count, room;
static double started;
static uint32_t profile;   /* number of the present one */

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void unic_profile_start(void) {
  free(events);
  events = NULL;
  count = room = 0;
  profile++;
  started = now();
  unic_profiling = true;
}

const unic_event *unic_profile_stop(int64_t *n) {
  unic_profiling = false;
  *n = count;
  return events;
}

/* Bytes of a view that a launch reads or writes. On a device without bytes there are no addresses to tell what is there: `kept` does. */
static double bytes_of(const unic_kernel *k, const unic_view *v, bool kept) {
  return v->data || (k->device->abstract && v->present && kept) ? (double)v->numel * (double)unic_dtype_size((unic_dtype)v->dtype) : 0;
}

static double moved(const unic_op_info *info, const unic_kernel *k) {
  double bytes = 0;
  bool again = k->backward || k->remake;
  for (int i = 0; i < info->nargs; i++) {
    const unic_arg_info *a = &info->args[i];
    bool kept = !again || a->saved || (k->remake && a->again);
    if (a->kind == UNIC_KIND_TENSORS) {
      for (int64_t m = 0; k->list[i] && m < k->arg[i].integer; m++) bytes += bytes_of(k, &k->list[i][m], kept) * (a->mutated ? 2 : 1);
      for (int64_t m = 0; k->backward && k->dlist[i] && m < k->arg[i].integer; m++) bytes += bytes_of(k, &k->dlist[i][m], true);
    } else if (a->is_tensor) {
      bytes += bytes_of(k, &k->in[i], kept) * (a->mutated && !k->backward ? 2 : 1);
      if (k->backward) bytes += bytes_of(k, &k->din[i], true) * (k->accumulate[i] ? 2 : 1);
    }
  }
  for (int j = 0; j < info->nouts; j++) {
    bool kept = k->remake ? k->remake >> j & 1 || info->outs[j].saved : k->backward ? info->outs[j].saved : j < info->visible || k->grad;
    bytes += bytes_of(k, &k->out[j], kept);
    if (k->backward) bytes += bytes_of(k, &k->dout[j], true) + bytes_of(k, &k->dout2[j], true);
  }
  return bytes;
}

static void note(const unic_kernel *k, bool form, double begin, double end) {
  if (count == room) {
    int64_t more = room ? 2 * room : 4096;
    unic_event *grown = more <= MOST_EVENTS ? realloc(events, (size_t)more * sizeof *grown) : NULL;
    if (!grown) return;
    events = grown;
    room = more;
  }
  unic_op_info *info;
  if (unic_op_info_find(k->op->name, &info) != UNIC_OK) return;
  unic_event *e = &events[count++];
  const unic_view *first = info->nouts ? &k->out[0] : &k->in[0];
  *e = (unic_event){
    .op = k->op, .kind = form ? UNIC_EVENT_FORM : k->remake ? UNIC_EVENT_AGAIN : k->backward ? UNIC_EVENT_BACKWARD : UNIC_EVENT_FORWARD, .begin = begin - started, .seconds = end - begin,
    .line = (k->backward || k->remake) && unic_watch_line ? unic_watch_line : unic_call_up.line ? unic_call_up.line() : 0, .module = unic_watch_module,
    .dtype = first->dtype, .ndim = first->ndim,
  };
  memcpy(e->shape, first->shape, first->ndim * sizeof *e->shape);
  if (form) return;
  for (int j = 0; j < info->visible; j++) e->made += (double)k->out[j].numel * (double)unic_dtype_size((unic_dtype)k->out[j].dtype);
  e->bytes = moved(info, k);
  if (k->op->flops) e->flops = k->op->flops(k);
}

void unic_profile_abstract(const unic_kernel *k) {
  double at = now();
  note(k, false, at, at);
}

void unic_profile_saved(const unic_tensor *t) {
  /* Parameters are there anyway, and what looks at them. */
  if (count == 0 || t->storage->lasting || (t->requires_grad && !t->node) || t->storage->profile == profile) return;
  t->storage->profile = profile;
  events[count - 1].saved += (double)t->storage->bytes;
}

unic_status unic_profile_launch(unic_device *d, unic_kernel_fn *fn, const unic_kernel *k, bool form) {
  double begin = now(), seconds = 0;
  unic_status status;
  if (d->api->timed) {
    status = d->api->timed(d, fn, k, &seconds);
  } else {
    status = d->api->launch(d, fn, k);
    if (status == UNIC_OK && !d->host) status = d->api->synchronize(d);
    seconds = now() - begin;
  }
  note(k, form, begin, begin + seconds);
  return status;
}
