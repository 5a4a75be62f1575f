/* The tape: reference-counted nodes that know how an output was made, and the walk back through them.
 *
 * A node is held by its outputs' tensors and by the nodes that used them; a loss that is never backwarded is just freed. Nodes carry a
 * sequence number, which is a topological order. Nothing here names an op: what to do stands in the descriptor. */
#ifndef UNIC_TAPE_H
#define UNIC_TAPE_H

#include "op_info.h"

typedef struct unic_node unic_node;
struct unic_frame;

/* A tensor as a kernel saw it: a unic_view without data, in the room that it needs. A node is read and written as a whole, and what that costs is
 * lines of memory. */
typedef struct unic_look {
  const int64_t *shape, *stride;   /* behind the node, ndim of each */
  uint8_t ndim, dtype, block, present;
} unic_look;

/* One input of a recorded call. */
typedef struct unic_edge {
  unic_node *node;            /* who made it (held), or ... */
  unic_tensor *leaf;          /* ... the leaf that wants its gradient (held); both NULL: no gradient */
  unic_tensor *saved;         /* its value, if the op's backward reads it (an alias, held) */
  uint64_t version;           /* of the saved storage at the time */
  int16_t output;             /* of `node` */
  int16_t arg, member;        /* position in the signature; member of a list or -1 */
  uint8_t dtype;              /* of the tensor itself; the kernel may have seen a cast form */
  uint8_t recipe;             /* `saved` is made again by `node` when it is needed (remake.h) */
  unic_look view;             /* as the kernel saw it */
} unic_edge;

/* One output of a recorded call. */
typedef struct unic_made {
  unic_look view;
  unic_tensor *saved;         /* alias, held */
  uint64_t version;
  unic_tensor *tensor;        /* the user's tensor (not held; NULL once it is gone): retain_grad and hooks */
  unic_tensor **grads;        /* addends received in the present backward (held) */
  int ngrads, room;
  int64_t hook;
  /* remake.h */
  unic_tensor *again;         /* the value that was made again (held) */
  int users;                  /* edges that are recipes for it */
  uint8_t depth;              /* length of the chain of recipes that makes it; 0: it cannot be made again */
  uint8_t dropped;            /* hidden and not saved: made again for the own backward */
  uint8_t kept;               /* an edge has saved it as it is */
} unic_made;

struct unic_node {
  _Atomic int32_t refs;
  uint32_t line;              /* recipe line */
  uint32_t module;            /* that ran it (watch.h) */
  uint64_t seq;
  uint64_t mark;              /* of the walk that visits it */
  const unic_op_info *info;   /* NULL: a node of Lua */
  int64_t lua;                /* key of the Lua backward in the graph environment */
  unic_device *device;
  unic_dtype type;
  int nedges, nouts;
  uint8_t consumed, needed;
  uint16_t kept;              /* bit i: argument i has attributes in `rest`; without, it is a tensor or absent */
  unic_edge *edges;
  unic_made *outs;
  size_t bytes;               /* of all this and what lies behind it */
  int64_t *rest;              /* attributes, read by unic_node_args; then what looks point at */
  struct unic_frame *frame;   /* the piece that is computed again, in which it was made (recompute.h); NULL mostly */
  int slot;                   /* its place there */
  uint64_t piece;             /* which run of which piece made it; 0: none */
  int64_t offset;             /* of a view, in elements from the start of what it looks at */
  unic_node *next_dead;
};

/* What unic_tensor_hold does, without an alias: for a tensor that no node made, which keeps nothing else alive. */
unic_tensor *unic_tensor_hold_itself(unic_tensor *t);
/* What either of them gave, let go. */
void unic_tensor_let_go(unic_tensor *t);
/* The view of a look; its data are NULL. */
void unic_look_view(const unic_look *l, unic_view *v);
/* The attributes that a node was recorded with, info->nargs of them. */
void unic_node_args(const unic_node *n, unic_value *args);

unic_node *unic_node_ref(unic_node *n);
void unic_node_unref(unic_node *n);
/* The tensor is going: the node forgets it. */
void unic_node_forget(unic_node *n, const unic_tensor *t);

/* A node for a call that has run. `origin` are the tensors as the user gave them (before casts and layout changes), `c->in` as the kernel saw
 * them; outs all outputs, hidden ones too. Sets the visible outputs' node. */
unic_status unic_node_record(const unic_call *c, const unic_op_info *info, unic_tensor *const *origin, unic_tensor **outs);

/* A node made by Lua (unic.fn): inputs are edges, backward calls unic_tape_lua with the key. Sets outs' node. */
unic_status unic_node_record_lua(int64_t key, int ninputs, unic_tensor *const *inputs, int nouts, unic_tensor **outs);

/* Who waits for leaves: call(context, i) comes in the walk as soon as leaves[i] is ready (ready.h) and has a gradient; a failure ends the walk. */
typedef struct unic_ready {
  int n;
  unic_tensor *const *leaves;
  unic_status (*call)(void *context, int leaf);
  void *context;
} unic_ready;

/* Gradients of `root` into the leaves (or, with targets, into results[] without touching any leaf's grad; NULL where none flows).
 * dy: gradient of root, NULL = ones (root must have one element). keep: the graph can be walked again. ready: NULL, or without targets. */
unic_status unic_backward(unic_tensor *root, unic_tensor *dy, bool keep, int ntargets, unic_tensor *const *targets, unic_tensor **results, const unic_ready *ready);

/* Recording on or off (unic.no_grad); returns what it was. */
bool unic_grad_mode(void);
bool unic_grad_mode_set(bool on);

/* Upward calls for Lua nodes and hooks, registered by the door; gradients in and out are held references. */
typedef struct unic_tape_calls {
  unic_status (*backward)(int64_t key, int nouts, unic_tensor *const *douts, int ninputs, unic_tensor **dins);
  unic_status (*hook)(int64_t key, unic_tensor *grad, unic_tensor **replacement);   /* replacement NULL: unchanged */
  unic_status (*recompute)(int64_t key);                                            /* run a checkpointed function again */
} unic_tape_calls;
extern unic_tape_calls unic_tape_lua;

#endif
