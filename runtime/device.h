/* The device table: what the runtime asks of whoever holds the bytes and runs the kernels.
 *
 * `cpu` and `meta` are built in; every other device (far, cuda, cuda-emu) is a plug-in, build/unic_<kind>.so, that exports
 *   const unic_device_api *unic_plugin(const unic_host *host, const char **reason);
 * and sees the runtime only through `unic_host`. */
#ifndef UNIC_DEVICE_H
#define UNIC_DEVICE_H

#include "memory.h"
#include "status.h"

struct unic_op;
struct unic_kernel;
struct unic_tensor;
typedef struct unic_device unic_device;
typedef unic_status unic_kernel_fn(const struct unic_kernel *k);

/* The kernels of one op on one device; NULL members are not there. */
typedef struct unic_op_kernels {
  unic_kernel_fn *forward, *backward;
  unic_kernel_fn *reference, *reference_backward;   /* the f64 form where it is a function of its own */
  unic_kernel_fn *remake, *reference_remake;        /* outputs again, from what was saved (op.h, `remakes`) */
} unic_op_kernels;

typedef struct unic_device_api {
  const char *kind;
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
  void (*taken)(unic_device *d, void *data, int64_t bytes);   /* optional: a block was handed out (a test device poisons it) */
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
  /* A launch that runs late must keep its plan: k->whole_plan, held and let go. */
  const struct unic_plan *(*plan_hold)(const struct unic_plan *p);
  void (*plan_release)(const struct unic_plan *p);
} unic_host;
enum { UNIC_HOST_VERSION = 2 };

/* The device of a name: "cpu", "meta", "far", "far:1", "cuda" (= "cuda:0"). Opened at first use; an error sentence when it is not there. */
unic_status unic_device_open(const char *name, unic_device **out);
unic_device *unic_device_cpu(void);
/* Every opened device, in the order of opening. */
int unic_device_count(void);
unic_device *unic_device_at(int i);
/* Folder in which plug-ins lie (the folder of unic.so); set by the door. */
void unic_device_plugin_folder(const char *path);

#endif
