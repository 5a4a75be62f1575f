/* Record and replay: the launches of a step, kept with the memory they use, and run again.
 *
 * While a recording goes on, blocks come from a private pool, so that the addresses in the recorded launches stay valid until the recording is
 * freed. What changes from step to step lies in tensors on the device, so a replayed step gives the bits of the eager one. */
#ifndef UNIC_REPLAY_H
#define UNIC_REPLAY_H

#include "op_info.h"
#include "plan.h"

typedef struct unic_recording unic_recording;

unic_status unic_record_begin(unic_device *d, unic_recording **out);
void unic_record_end(unic_recording *r);
unic_status unic_replay(unic_recording *r);
void unic_recording_free(unic_recording *r);
int64_t unic_recording_launches(const unic_recording *r);

/* For dispatch: the id of the recording on this device (0: none), and one launch into it. */
uint64_t unic_recording_id(const unic_device *d);
unic_status unic_record_launch(unic_device *d, unic_kernel_fn *fn, const unic_kernel *k);
/* The storage must outlive the recording on d (foreign memory, inputs made before it). */
unic_status unic_record_hold(unic_device *d, unic_storage *s);
unic_status unic_record_hold_plan(unic_device *d, unic_cached_plan *p);

#endif
