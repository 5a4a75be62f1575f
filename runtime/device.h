/* The device table: what the runtime asks of whoever holds the bytes and runs the kernels.
 *
 * `cpu` and `meta` are built in; every other device (far, cuda, cuda-emu) is a plug-in, build/unic_<kind>.so, that exports
 *   const unic_device_api *unic_plugin(const unic_host *host, const char **reason);
 * and sees the runtime only through `unic_host`. */
#ifndef UNIC_DEVICE_H
#define UNIC_DEVICE_H

#include "kernel.h"
#include "memory.h"
#include "status.h"

struct unic_tensor;

typedef struct unic_device_api {
  const char *kind;
  int64_t step;                                   /* memory is reserved in pieces of at least so many bytes; 0: all of the budget at once */
  bool blocked;                                   /* its kernels take channels in blocks (op.h, layouts) */
  /* How many there are; a sentence in *reason when none. */
  int (*count)(const char **reason);
  unic_status (*open)(unic_device *d);            /* sets d->state */
  void (*close)(unic_device *d);
  int64_t (*budget)(unic_device *d);
  /* A mapping of exactly `bytes` for the arena, never given back before close. */
  unic_status (*reserve)(unic_device *d, int64_t bytes, void **base);
  /* The kernels of an op; NULL: the device has none, and dispatch says so. */
  const unic_op_kernels *(*find)(unic_device *d, const struct unic_op *op);
  /* Run fn(k) after everything launched before. *k is the caller's and may change right after the call. */
  unic_status (*launch)(unic_device *d, unic_kernel_fn *fn, const struct unic_kernel *k);
  unic_status (*upload)(unic_device *d, void *to, const void *from_host, int64_t bytes);     /* ordered with launches; the host memory is free on return */
  unic_status (*download)(unic_device *d, void *to_host, const void *from, int64_t bytes);   /* waits for what was launched */
  unic_status (*synchronize)(unic_device *d);     /* raises value errors noted by kernels */
  /* Optional: launch, wait, and say how long the device worked on it; without one the host's clock is read around both. */
  unic_status (*timed)(unic_device *d, unic_kernel_fn *fn, const struct unic_kernel *k, double *seconds);
  /* Optional: the launches that run(context) makes, none of them done now, as one piece; and that piece once more, ordered with launches. */
  unic_status (*capture)(unic_device *d, unic_status (*run)(void *context), void *context, void **piece);
  unic_status (*capture_launch)(unic_device *d, void *piece);
  void (*capture_free)(unic_device *d, void *piece);
  void (*taken)(unic_device *d, void *data, int64_t bytes);   /* optional: a block was handed out (a test device poisons it) */
  int64_t margin;                                 /* bytes that nobody uses behind every block (a sanitizer's red zone) */
} unic_device_api;

struct unic_device {
  const unic_device_api *api;
  char name[48];        /* "cpu", "cuda:1" */
  int index;
  bool host;            /* the CPU may read and write its memory directly */
  bool abstract;        /* meta: shapes only */
  unic_memory *memory;
  struct unic_tensor *rng;   /* default generator: i64 [2] = {seed, counter} on the device, made at first use */
  void *state;
};

/* What a plug-in may use of the runtime. */
typedef struct unic_host {
  int version;
  unic_status (*fail)(const char *format, ...);
  const char *(*message)(void);
  const unic_op_kernels *(*cpu_kernels)(const struct unic_op *op);
  int64_t (*budget_host)(void);
  const char *(*op_name)(const struct unic_op *op);
  /* A launch that runs late must keep its plan: k->whole_plan, held and let go. */
  const struct unic_plan *(*plan_hold)(const struct unic_plan *p);
  void (*plan_release)(const struct unic_plan *p);
} unic_host;
enum { UNIC_HOST_VERSION = 4 };

/* The device of a name: "cpu", "meta", "far", "far:1", "cuda" (= "cuda:0"). Opened at first use; an error sentence when it is not there. */
unic_status unic_device_open(const char *name, unic_device **out);
unic_device *unic_device_cpu(void);
/* Every opened device, in the order of opening. */
int unic_device_count(void);
unic_device *unic_device_at(int i);
/* Folder in which plug-ins lie (the folder of unic.so); set by the door. */
void unic_device_plugin_folder(const char *path);

#endif
