/* `far`: a device behind the plug-in door that is as unlike the CPU as a CPU can make it, to prove the door before there is a GPU.
 *
 * Its memory is protected except while a launch runs, so that any look from the host faults at once; launches wait in a queue and run late
 * (at a download, a synchronisation, or when the queue is long); what is handed out is filled with NaN by the queue, in order; there are two
 * of it. The kernels are the CPU's, so values are equal to the bit. An error of a late launch is raised at the next synchronisation. */
#define _GNU_SOURCE
#include "op.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { QUEUE = 48, SLABS = 64, TEXT = 2048 };

typedef struct job {
  enum { RUN, WRITE, POISON } kind;
  unic_kernel_fn *fn;
  unic_kernel kernel;
  unic_view *views;
  void *to;
  char *bytes;
  int64_t size;
} job;

typedef struct far {
  struct { void *base; size_t bytes; } slabs[SLABS];
  int slabs_used;
  job *queue[QUEUE];
  int waiting;
  bool draining;
  unic_status failed;
  char sentence[TEXT];
} far;

static const unic_host *host;

static int far_count(const char **reason) {
  *reason = NULL;
  return 2;
}

static unic_status far_open(unic_device *d) {
  d->state = calloc(1, sizeof(far));
  return d->state ? UNIC_OK : host->fail("[far] no host memory");
}

static void far_close(unic_device *d) {
  free(d->state);
  d->state = NULL;
}

static int64_t far_budget(unic_device *d) {
  (void)d;
  int64_t all = host->budget_host(), most = INT64_C(8) << 30;
  return all < most ? all : most;
}

static unic_status far_reserve(unic_device *d, int64_t bytes, void **base) {
  far *f = d->state;
  if (f->slabs_used == SLABS) return host->fail("[far] no more mappings");
  void *p = mmap(NULL, (size_t)bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return host->fail("[far] the system gave no mapping of %lld bytes", (long long)bytes);
  f->slabs[f->slabs_used].base = p;
  f->slabs[f->slabs_used++].bytes = (size_t)bytes;
  *base = p;
  return UNIC_OK;
}

static void protect(far *f, int how) {
  for (int i = 0; i < f->slabs_used; i++) mprotect(f->slabs[i].base, f->slabs[i].bytes, how);
}

static void free_job(job *j) {
  if (j->kind == RUN) host->plan_release(j->kernel.whole_plan);
  free(j->views);
  free(j->bytes);
  free(j);
}

static void drain(far *f) {
  if (f->draining || f->waiting == 0) return;
  f->draining = true;
  protect(f, PROT_READ | PROT_WRITE);
  for (int i = 0; i < f->waiting; i++) {
    job *j = f->queue[i];
    if (j->kind == WRITE) memcpy(j->to, j->bytes, (size_t)j->size);
    else if (j->kind == POISON) memset(j->to, 0xff, (size_t)j->size);
    else if (f->failed == UNIC_OK) {
      f->failed = j->fn(&j->kernel);
      if (f->failed != UNIC_OK) snprintf(f->sentence, sizeof f->sentence, "%s", host->message());
    }
    free_job(j);
  }
  f->waiting = 0;
  protect(f, PROT_NONE);
  f->draining = false;
}

static unic_status put(far *f, job *j) {
  if (f->waiting == QUEUE) drain(f);
  f->queue[f->waiting++] = j;
  return UNIC_OK;
}

static unic_status raise_late(far *f) {
  if (f->failed == UNIC_OK) return UNIC_OK;
  f->failed = UNIC_OK;
  return host->fail("%s", f->sentence);
}

static const unic_op_kernels *far_find(unic_device *d, const struct unic_op *op) {
  (void)d;
  return host->cpu_kernels(op);
}

static unic_status far_launch(unic_device *d, unic_kernel_fn *fn, const struct unic_kernel *k) {
  far *f = d->state;
  job *j = calloc(1, sizeof *j);
  if (!j) return host->fail("[far] no host memory");
  j->kind = RUN;
  j->fn = fn;
  j->kernel = *k;
  int64_t members = 0;
  for (int i = 0; i < UNIC_MAX_ARGS; i++) if (k->list[i]) members += k->arg[i].integer;
  if (members) {
    j->views = calloc(2 * (size_t)members, sizeof *j->views);
    if (!j->views) { free(j); return host->fail("[far] no host memory"); }
    unic_view *at = j->views;
    for (int i = 0; i < UNIC_MAX_ARGS; i++) {
      if (!k->list[i]) continue;
      size_t n = (size_t)k->arg[i].integer;
      j->kernel.list[i] = memcpy(at, k->list[i], n * sizeof *at);
      at += n;
      if (k->dlist[i]) {
        j->kernel.dlist[i] = memcpy(at, k->dlist[i], n * sizeof *at);
        at += n;
      }
    }
  }
  host->plan_hold(k->whole_plan);
  return put(f, j);
}

static unic_status far_upload(unic_device *d, void *to, const void *from, int64_t bytes) {
  job *j = calloc(1, sizeof *j);
  if (j) j->bytes = malloc((size_t)bytes);
  if (!j || !j->bytes) { free(j); return host->fail("[far] no host memory"); }
  memcpy(j->bytes, from, (size_t)bytes);
  j->kind = WRITE;
  j->to = to;
  j->size = bytes;
  return put(d->state, j);
}

static void far_taken(unic_device *d, void *data, int64_t bytes) {
  job *j = calloc(1, sizeof *j);
  if (!j) return;
  j->kind = POISON;
  j->to = data;
  j->size = bytes;
  put(d->state, j);
}

static unic_status far_download(unic_device *d, void *to, const void *from, int64_t bytes) {
  far *f = d->state;
  drain(f);
  protect(f, PROT_READ);
  memcpy(to, from, (size_t)bytes);
  protect(f, PROT_NONE);
  return raise_late(f);
}

static unic_status far_synchronize(unic_device *d) {
  far *f = d->state;
  drain(f);
  return raise_late(f);
}

static const unic_device_api api = {
  .kind = "far", .blocked = true, .count = far_count, .open = far_open, .close = far_close, .budget = far_budget, .reserve = far_reserve, .find = far_find,
  .launch = far_launch, .upload = far_upload, .download = far_download, .synchronize = far_synchronize, .taken = far_taken,
};

__attribute__((visibility("default"))) const unic_device_api *unic_plugin(const unic_host *h, const char **reason);

const unic_device_api *unic_plugin(const unic_host *h, const char **reason) {
  if (h->version != UNIC_HOST_VERSION) {
    *reason = "it was built for another version of the runtime";
    return NULL;
  }
  host = h;
  return &api;
}
