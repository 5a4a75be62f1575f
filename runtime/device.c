/* The built-in devices, cpu and meta, and the loading of plug-ins. */
#define _GNU_SOURCE
#include "device.h"
#include "op.h"
#include "plan.h"

#include <dlfcn.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { MAX_DEVICES = 32 };
static unic_device *devices[MAX_DEVICES];
static int opened;
static char plugin_folder[1024];

/* ---------------------------------------------------------------- cpu */

static int cpu_count(const char **reason) { *reason = NULL; return 1; }
static unic_status cpu_open(unic_device *d) { d->host = true; return UNIC_OK; }
static void cpu_close(unic_device *d) { (void)d; }
static int64_t cpu_budget(unic_device *d) { (void)d; return unic_memory_budget_host(); }

static unic_status cpu_reserve(unic_device *d, int64_t bytes, void **base) {
  void *p = mmap(NULL, (size_t)bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return unic_fail_memory("[memory] %s: the system gave no mapping of %lld bytes", d->name, (long long)bytes);
  /* Where the system has large pages only for those who ask: 440 MB of weights read into fresh memory take 0.05 s with them, 0.16 s without.
   * A refusal costs nothing. */
  (void)madvise(p, (size_t)bytes, MADV_HUGEPAGE);
  *base = p;
  return UNIC_OK;
}

static const unic_op_kernels *cpu_find(unic_device *d, const struct unic_op *op) { (void)d; return &op->cpu; }
static unic_status cpu_launch(unic_device *d, unic_kernel_fn *fn, const struct unic_kernel *k) { (void)d; return fn(k); }
static unic_status cpu_copy(unic_device *d, void *to, const void *from, int64_t bytes) { (void)d; memcpy(to, from, (size_t)bytes); return UNIC_OK; }
static unic_status cpu_synchronize(unic_device *d) { (void)d; return UNIC_OK; }

static const unic_device_api cpu_api = {
  .kind = "cpu", .blocked = true, .count = cpu_count, .open = cpu_open, .close = cpu_close, .budget = cpu_budget, .reserve = cpu_reserve, .find = cpu_find,
  .launch = cpu_launch, .upload = cpu_copy, .download = cpu_copy, .synchronize = cpu_synchronize,
};

/* ---------------------------------------------------------------- meta: shapes, no bytes */

static unic_status meta_open(unic_device *d) { d->abstract = true; return UNIC_OK; }
static int64_t meta_budget(unic_device *d) { (void)d; return INT64_MAX / 4; }
static unic_status meta_reserve(unic_device *d, int64_t bytes, void **base) { (void)bytes; (void)base; return unic_fail("[device] %s has no memory", d->name); }
static unic_status meta_launch(unic_device *d, unic_kernel_fn *fn, const struct unic_kernel *k) { (void)d; (void)fn; (void)k; return UNIC_OK; }
static unic_status meta_copy(unic_device *d, void *to, const void *from, int64_t bytes) {
  (void)to; (void)from; (void)bytes;
  return unic_fail("[device] a tensor on %s has a shape and no values", d->name);
}

static const unic_device_api meta_api = {
  .kind = "meta", .blocked = true, .count = cpu_count, .open = meta_open, .close = cpu_close, .budget = meta_budget, .reserve = meta_reserve, .find = cpu_find,
  .launch = meta_launch, .upload = meta_copy, .download = meta_copy, .synchronize = cpu_synchronize,
};

/* ---------------------------------------------------------------- plug-ins */

static const unic_op_kernels *host_kernels(const struct unic_op *op) { return &op->cpu; }

static const unic_plan *plan_hold(const unic_plan *p) { return p ? &unic_plan_ref((unic_cached_plan *)(uintptr_t)p)->plan : NULL; }
static void plan_release(const unic_plan *p) { unic_plan_release((unic_cached_plan *)(uintptr_t)p); }

static const char *op_name(const struct unic_op *op) { return op->name; }

static const unic_host host = {
  .version = UNIC_HOST_VERSION, .fail = unic_fail, .message = unic_message, .cpu_kernels = host_kernels, .budget_host = unic_memory_budget_host, .op_name = op_name,
  .plan_hold = plan_hold, .plan_release = plan_release,
};

void unic_device_plugin_folder(const char *path) { snprintf(plugin_folder, sizeof plugin_folder, "%s", path); }

/* "cpu, far, meta": the kinds that can be opened, as the plug-ins' file names tell. */
static void device_kinds(char *out, size_t bytes) {
  char pattern[1200];
  glob_t found = {0};
  size_t used = (size_t)snprintf(out, bytes, "cpu, meta");
  snprintf(pattern, sizeof pattern, "%s/unic_*.so", plugin_folder);
  if (glob(pattern, 0, NULL, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc && used < bytes; i++) {
      const char *name = strrchr(found.gl_pathv[i], '/') + sizeof "/unic_" - 1;
      used += (size_t)snprintf(out + used, bytes - used, ", %.*s", (int)strcspn(name, "."), name);
    }
  }
  globfree(&found);
  for (char *c = out; *c; c++) if (*c == '_') *c = '-';   /* as the device is called, not its file */
}

static unic_status plugin_load(const char *kind, const unic_device_api **api) {
  char path[1200], file[64];
  snprintf(file, sizeof file, "%s", kind);
  for (char *c = file; *c; c++) if (*c == '-') *c = '_';
  snprintf(path, sizeof path, "%s/unic_%s.so", plugin_folder, file);
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char *reason = dlerror();
    if (access(path, F_OK) == 0) return unic_fail("[device] argument 'device': %s cannot be used: %s", kind, reason);
    char kinds[256];
    device_kinds(kinds, sizeof kinds);
    return unic_fail("[device] argument 'device': there is no device '%s' in this build, expected one of: %s", kind, kinds);
  }
  const unic_device_api *(*plugin)(const unic_host *, const char **) = NULL;
  *(void **)&plugin = dlsym(handle, "unic_plugin");
  const char *reason = "it exports no unic_plugin";
  const unic_device_api *found = plugin ? plugin(&host, &reason) : NULL;
  if (!found) return unic_fail("[device] argument 'device': %s cannot be used: %s", kind, reason);
  *api = found;   /* never closed: tensors hold references on their device until the very end */
  return UNIC_OK;
}

unic_device *unic_device_cpu(void) {
  if (opened == 0) {
    unic_device *d;
    if (unic_device_open("cpu", &d) != UNIC_OK) return NULL;
  }
  return devices[0];
}

int unic_device_count(void) { return opened; }
unic_device *unic_device_at(int i) { return devices[i]; }

unic_status unic_device_open(const char *name, unic_device **out) {
  char kind[24];
  int index = 0, used = 0;
  const char *colon = strchr(name, ':');
  size_t length = colon ? (size_t)(colon - name) : strlen(name);
  if (length == 0 || length >= sizeof kind - 6 ||
      (colon && (sscanf(colon, ":%d%n", &index, &used) != 1 || colon[used] || index < 0 || index > 999)))
    return unic_fail("[device] argument 'device': '%.40s' is no device name, expected cpu, meta, cuda or cuda:1", name);
  memcpy(kind, name, length);
  kind[length] = 0;
  for (size_t i = 0; i < length; i++)
    if (!((kind[i] >= 'a' && kind[i] <= 'z') || kind[i] == '-'))
      return unic_fail("[device] argument 'device': '%.40s' is no device name, expected cpu, meta, cuda or cuda:1", name);

  for (int i = 0; i < opened; i++)
    if (devices[i]->index == index && strcmp(devices[i]->api->kind, kind) == 0) { *out = devices[i]; return UNIC_OK; }
  if (opened == MAX_DEVICES) return unic_fail("[device] argument 'device': %d devices are open, no more are possible", MAX_DEVICES);

  const unic_device_api *api = NULL;
  if (strcmp(kind, "cpu") == 0) api = &cpu_api;
  else if (strcmp(kind, "meta") == 0) api = &meta_api;
  else {
    for (int i = 0; i < opened; i++) if (strcmp(devices[i]->api->kind, kind) == 0) api = devices[i]->api;
    if (!api) UNIC_TRY(plugin_load(kind, &api));
  }
  const char *reason = NULL;
  int count = api->count(&reason);
  if (count == 0) return unic_fail("[device] argument 'device': there is no %s here: %s", kind, reason ? reason : "none found");
  if (index >= count) return unic_fail("[device] argument 'device': '%s' was asked for, there %s %d %s (0..%d)", name, count == 1 ? "is" : "are", count, kind, count - 1);

  if (opened == 0 && strcmp(kind, "cpu") != 0) unic_device_cpu();   /* the CPU is always number one */
  unic_device *d = unic_new(sizeof *d);
  if (!d) return UNIC_MEMORY;
  d->api = api;
  d->index = index;
  if (count > 1 || colon) snprintf(d->name, sizeof d->name, "%s:%d", kind, index);
  else snprintf(d->name, sizeof d->name, "%s", kind);
  unic_status status = api->open(d);
  if (status == UNIC_OK) {
    d->memory = unic_memory_new(d, api->budget(d));
    if (!d->memory) { api->close(d); status = UNIC_MEMORY; }
  }
  if (status != UNIC_OK) {
    unic_delete(d);
    return status;
  }
  devices[opened++] = d;
  *out = d;
  return UNIC_OK;
}
