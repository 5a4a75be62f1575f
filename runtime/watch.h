/* What looks on while ops run: the profiler and anomaly mode. When they are off they cost one test each. */
#ifndef UNIC_WATCH_H
#define UNIC_WATCH_H

#include "tape.h"

/* One launch. */
typedef struct unic_event {
  const unic_op *op;
  enum { UNIC_EVENT_FORWARD, UNIC_EVENT_BACKWARD, UNIC_EVENT_FORM, UNIC_EVENT_AGAIN } kind;   /* FORM: a derived form (packed weight) is made; AGAIN: remake.h */
  double begin, seconds;      /* begin: since the profiler was started */
  double flops, bytes;        /* of the arguments as they stand; flops 0: the descriptor counts none */
  double made, saved;         /* bytes of the outputs; bytes that the tape keeps from here on (parameters, and what was kept before, left out) */
  uint32_t line, module;      /* of the recipe; of a backward those of the forward */
  uint8_t dtype, ndim;
  int64_t shape[UNIC_MAX_RANK];   /* of the first output (of its gradient in backward) */
} unic_event;

extern bool unic_profiling;
void unic_profile_start(void);
/* The events so far, in order, until the next start. */
const unic_event *unic_profile_stop(int64_t *count);
/* Run, wait for the device, note. */
unic_status unic_profile_launch(unic_device *d, unic_kernel_fn *fn, const unic_kernel *k, bool form);

/* A launch on a device that computes nothing: noted, with no time. */
void unic_profile_abstract(const unic_kernel *k);
/* The tape keeps this tensor for the backward of the op that was noted last. */
void unic_profile_saved(const unic_tensor *t);

/* The module that runs, by the number that the door gave it; 0: none. During a backward the one of the forward, and its line. */
extern uint32_t unic_watch_module, unic_watch_line;

/* Called after every op with its outputs, and for every gradient that a backward made; a failure ends the call. NULL: off. */
typedef struct unic_watch_calls {
  unic_status (*forward)(const unic_call *c, const unic_op_info *info, unic_tensor *const *outs);
  unic_status (*backward)(const unic_node *n, const unic_edge *e, unic_tensor *grad);
} unic_watch_calls;
extern const unic_watch_calls *unic_watch;

#endif
