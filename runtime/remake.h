/* Values that are made again instead of kept (Chen et al. 2016; Jain et al. 2020 for the choice op by op).
 *
 * A descriptor says which of its op's outputs can be made again from what the op saves, and at what price. An edge that would save such an output
 * keeps the node that made it instead (it holds the node anyway): a *recipe*. When a backward needs the value, it is made again, once for all edges
 * that need it, and goes when the last of them is done. The bits are those of the value that was let go.
 *
 * Cheap values (one pass over memory) are always made again, costly ones (products) only under unic_remake_costly. What a remake reads may be a
 * recipe itself, up to a chain of one link, or four (views and casts between them are not counted). A value that its owner still has is used as it is, under the same check for changes as a saved one. */
#ifndef UNIC_REMAKE_H
#define UNIC_REMAKE_H

#include "tape.h"

/* Whether nodes recorded from here on let costly values go too; returns what it was. */
bool unic_remake_costly(bool on);
bool unic_remake_is_costly(void);

/* While a node is recorded, its edges set but for what they save: find out which outputs it can make again, and remember what that takes. */
unic_status unic_remake_plan(unic_node *n, const unic_call *c, unic_tensor *const *origin, unic_tensor *const *outs);
/* Whether the value of an edge can be made again by who made it; if so, the edge is a recipe from now on. */
bool unic_remake_promised(unic_node *n, unic_edge *e, const unic_tensor *seen, const unic_tensor *given);
/* Whether a hidden output need not be saved. */
bool unic_remake_drops(const unic_node *n, int output);

/* Before n's backward: make again what it reads. After this edges and outputs have what they would have saved. */
unic_status unic_remake_need(unic_node *n);
/* n's turn has come in the walk: nobody in it reads its outputs any more. */
void unic_remake_leave(unic_node *n);
/* What n saved is about to go: nodes outside this walk that rely on it get their values now. */
unic_status unic_remake_settle(unic_node *n);
/* An edge lets its recipe go. */
void unic_remake_release(unic_edge *e);

/* [op] argument 'name': the sentence for a value that was changed since it was saved for the backward of n. */
unic_status unic_tape_check_version(const unic_node *n, const char *name, const unic_tensor *saved, uint64_t version);

#endif
