/* Checkpointed pieces of the tape (Chen et al. 2016): a piece ("frame") keeps its nodes and lets go of what they saved; the walk back runs
 * it a second time, and the nodes of that run give what they saved to those of the first. Gradients, hooks and targets work as if nothing
 * had happened, to the bit, because
 *   - the second run starts from the state that every generator had at its first use inside,
 *   - what the piece changes outside itself (running statistics, counters) is changed by the first run alone,
 *   - autocast is as it was.
 * Only memory that came into being inside is let go: parameters and the piece's inputs stay saved, and their versions are checked.
 * Inside a piece another one is part of it. */
#ifndef UNIC_RECOMPUTE_H
#define UNIC_RECOMPUTE_H

#include "tape.h"

typedef struct unic_frame unic_frame;

/* The piece that is being run, for the first or the second time; NULL: none. */
extern unic_frame *unic_frame_current;

/* The number of the run that is going on, no two runs have the same; 0: none. */
uint64_t unic_frame_number(void);

/* A new piece begins; *out NULL: one is running already. */
unic_status unic_frame_begin(unic_frame **out);
/* It ends, also after an error. key: of the Lua function that runs it again; 0: no gradient flows through it. */
void unic_frame_end(unic_frame *f, int64_t key);

/* From the tape: a node was recorded; it is about to be freed; its backward is about to read what it saved. */
unic_status unic_frame_add(unic_node *n);
void unic_frame_leave(unic_node *n);
unic_status unic_frame_need(unic_node *n);

/* From dispatch: a generator is about to be used; a tensor is from outside and the second run must not change it; an op's
 * arguments are about to be read. From the door: a tensor is read. */
unic_status unic_frame_rng(unic_tensor *rng);
unic_status unic_frame_call(const unic_call *c, const unic_op_info *info);
unic_status unic_frame_read(const unic_tensor *t);
bool unic_frame_keeps(const unic_tensor *t);
/* Whether what the running piece saves is let go at its end. */
bool unic_frame_drops(const unic_tensor *t);

/* From the tape: what the piece of a node (it has one) reads of memory that was there before it: the numbers of the storages. */
const uint64_t *unic_frame_reads(const unic_node *n, int64_t *count);

#endif
