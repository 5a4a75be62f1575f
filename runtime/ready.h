/* When a walk back is through with a leaf: its gradient is complete, and nothing that is still to come reads its value. From then on the leaf may be
 * changed and its gradient dropped, in the middle of the walk (an optimiser that steps there never has all gradients at once).
 *
 * The order of a walk is known before it begins, and so is the last node that has to do with a leaf's memory: as an edge to the leaf; as a value saved
 * for a backward or for a remake, which may look at that memory through a view; as something that a checkpointed piece reads when it is run again
 * (recompute.h). What an op written in Lua reads is not known: no leaf is ready before the last of those. */
#ifndef UNIC_READY_H
#define UNIC_READY_H

#include "tape.h"

typedef struct unic_ready_plan unic_ready_plan;

/* For the nodes of a walk, in its order, and the leaves that somebody waits for. */
unic_status unic_ready_plan_new(unic_node *const *nodes, int n, const unic_ready *ready, unic_ready_plan **out);
/* nodes[i] has been walked and has let go of what it saved: tells of the leaves that are ready now. */
unic_status unic_ready_after(unic_ready_plan *p, int i);
/* NULL is fine. */
void unic_ready_plan_free(unic_ready_plan *p);

#endif
