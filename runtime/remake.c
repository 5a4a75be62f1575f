/* Recipes: values that a backward makes again. */
#include "remake.h"
#include "dispatch.h"
#include "recompute.h"

#include <string.h>

/* What a link adds to the depth of a chain of recipes; views and copies are links too, of which some may stand between any two others. Longer chains have more
 * values at once when the first of them is asked for, shorter ones keep more all the time. In a ResNet's stage, one link keeps every second block's
 * output (ResNet-50 b16 f32: 1,170 MB, 1,078 ms), two every third (1,036 MB, 1,109 ms). */
enum { THIN_LINK = 1, LINK = 8, CHEAP_DEPTH = 2 * LINK - 1, COSTLY_DEPTH = 4 * LINK + LINK - 1 };

static bool costly;

bool unic_remake_is_costly(void) { return costly; }
bool unic_remake_costly(bool on) {
  bool was = costly;
  costly = on;
  return was;
}

/* ---------------------------------------------------------------- what can be made again */

/* The edge's value is exactly what its node made, in the same piece of the tape (recompute.h: pieces are let go separately). */
static unic_made *maker(const unic_node *n, const unic_edge *e, const unic_tensor *seen, const unic_tensor *given) {
  if (!e->node || seen != given || e->node->piece != n->piece) return NULL;
  return &e->node->outs[e->output];
}

static bool promised(const unic_made *o, const unic_tensor *seen) { return o && o->depth && o->version == seen->storage->version; }

bool unic_remake_promised(unic_node *n, unic_edge *e, const unic_tensor *seen, const unic_tensor *given) {
  unic_made *o = maker(n, e, seen, given);
  if (!promised(o, seen)) {
    if (o) o->kept = 1;
    return false;
  }
  e->recipe = 1;
  o->users++;
  return true;
}

bool unic_remake_drops(const unic_node *n, int output) { return n->outs[output].dropped; }

/* An input that only a remake reads may be held where that costs nothing: parameters, small things, and what another edge keeps for longer. */
static bool holds_free(const unic_edge *e, const unic_made *o, const unic_tensor *seen, const unic_tensor *out) {
  if (e->leaf || seen->keep || (o && o->kept)) return true;
  return unic_tensor_bytes(seen) * 16 <= unic_tensor_bytes(out);
}

unic_status unic_remake_plan(unic_node *n, const unic_call *c, unic_tensor *const *origin, unic_tensor *const *outs) {
  const unic_op_info *info = n->info;
  const unic_op *op = info->op;
  bool view = op->flags & UNIC_OP_VIEW && c->in[0] == origin[0];
  if (!op->remakes && !view) return UNIC_OK;
  int price[UNIC_MAX_OUTS] = {0}, depth = 0, most = costly ? UNIC_REMAKE_COSTLY : UNIC_REMAKE_CHEAP;
  bool any = false, own = !view;   /* own: no input is read */
  for (int j = 0; j < info->nouts; j++) {
    price[j] = view ? UNIC_REMAKE_CHEAP : outs[j] ? op->remakes(c, j) : UNIC_REMAKE_NEVER;
    if (price[j] > most) price[j] = UNIC_REMAKE_NEVER;
    any = any || price[j] != UNIC_REMAKE_NEVER;
    own = own && price[j] <= UNIC_REMAKE_OWN;
  }
  if (!any) return UNIC_OK;
  for (int i = 0; i < n->nedges && !own; i++) {
    unic_edge *e = &n->edges[i];
    const unic_arg_info *a = &info->args[e->arg];
    if (e->member >= 0) continue;
    bool extra = a->again || view;   /* read by the remake alone */
    if (!a->saved && !extra) continue;
    const unic_made *o = maker(n, e, c->in[e->arg], origin[e->arg]);
    if (promised(o, c->in[e->arg])) depth = o->depth > depth ? o->depth : depth;
    else if (view || (extra && !a->saved && !holds_free(e, o, c->in[e->arg], outs[0]))) return UNIC_OK;
  }
  depth += view || !op->saves ? THIN_LINK : LINK;   /* what saves nothing of its own is a copy */
  if (depth > (costly ? COSTLY_DEPTH : CHEAP_DEPTH)) return UNIC_OK;
  for (int i = 0; i < n->nedges && !own; i++) {
    unic_edge *e = &n->edges[i];
    const unic_arg_info *a = &info->args[e->arg];
    if (e->member >= 0 || a->saved || !(a->again || view)) continue;
    unic_tensor *seen = c->in[e->arg];
    if (unic_remake_promised(n, e, seen, origin[e->arg])) continue;
    e->version = seen->storage->version;
    UNIC_TRY(unic_tensor_hold(seen, &e->saved));
  }
  for (int j = 0; j < info->nouts; j++) {
    if (price[j] == UNIC_REMAKE_NEVER) continue;
    unic_made *o = &n->outs[j];
    o->depth = (uint8_t)depth;
    o->version = outs[j]->storage->version;
    o->dropped = info->outs[j].hidden && info->outs[j].saved;
    if (view) n->offset = outs[j]->offset - c->in[0]->offset;
  }
  return UNIC_OK;
}

/* ---------------------------------------------------------------- making it again */

static unic_status again(unic_node *reader, const char *name, unic_node *n, int j, unic_tensor **out);

static void forget(unic_made *o) {
  unic_tensor_unref(o->again);
  o->again = NULL;
}

/* The values that the edges of n would have saved. all: also those that only its remake reads. */
static unic_status edges_again(unic_node *n, bool all) {
  for (int i = 0; i < n->nedges; i++) {
    unic_edge *e = &n->edges[i];
    if (!e->recipe || e->saved || !(all || n->info->args[e->arg].saved)) continue;
    UNIC_TRY(again(n, n->info->args[e->arg].name, e->node, e->output, &e->saved));
    e->version = e->saved->storage->version;
  }
  return UNIC_OK;
}

/* What a remake alone reads has done its work. A value that nobody else waits for goes (it could be made once more); others are kept for them. */
static void inputs_done(unic_node *n) {
  for (int i = 0; i < n->nedges; i++) {
    unic_edge *e = &n->edges[i];
    if (!e->recipe || n->info->args[e->arg].saved) continue;
    unic_tensor_let_go(e->saved);
    e->saved = NULL;
    unic_made *o = &e->node->outs[e->output];
    if (o->users == 1 && !o->dropped) forget(o);
  }
}

static unic_status view_again(unic_node *n) {
  const unic_look *v = &n->outs[0].view;
  const unic_tensor *base = n->edges[0].saved;
  return unic_tensor_view(base, v->ndim, v->shape, v->stride, base->offset + n->offset, &n->outs[0].again);
}

/* Run the op's remake: fills output j, and with it every hidden output that was dropped. */
static unic_status run_again(unic_node *n, int j) {
  const unic_op_info *info = n->info;
  unic_kernel k;
  unic_tensor *saved[UNIC_MAX_ARGS] = {NULL};
  bool all = false;   /* something that was dropped is missing: everything is made, as the first time */
  memset(&k, 0, sizeof k);
  k.op = info->op;
  k.device = n->device;
  k.type = n->type;
  k.grad = true;
  unic_node_args(n, k.arg);
  for (int i = 0; i < n->nedges; i++) {
    unic_edge *e = &n->edges[i];
    if (e->member >= 0) continue;
    unic_look_view(&e->view, &k.in[e->arg]);
    if (!e->saved) continue;
    UNIC_TRY(unic_tape_check_version(n, info->args[e->arg].name, e->saved, e->version));
    k.in[e->arg].data = unic_tensor_data(e->saved);
    saved[e->arg] = e->saved;
  }
  for (int i = 0; i < n->nouts; i++) all = all || (n->outs[i].dropped && !n->outs[i].saved && !n->outs[i].again);
  for (int i = 0; i < n->nouts; i++) {
    unic_made *o = &n->outs[i];
    unic_look_view(&o->view, &k.out[i]);
    if (o->saved && !(o->depth && i == j)) {
      UNIC_TRY(unic_tape_check_version(n, info->outs[i].name, o->saved, o->version));
      k.out[i].data = unic_tensor_data(o->saved);
    } else if (o->again) {
      k.out[i].data = unic_tensor_data(o->again);
    } else if (o->depth && (all || i == j)) {
      if (o->view.block) UNIC_TRY(unic_tensor_new(n->device, o->view.dtype, o->view.ndim, o->view.shape, UNIC_BLOCKED, o->view.block, &o->again));
      else UNIC_TRY(unic_tensor_new_strided(n->device, o->view.dtype, o->view.ndim, o->view.shape, o->view.stride, &o->again));
      k.remake |= (uint8_t)(1 << i);
      k.out[i].data = unic_tensor_data(o->again);
    }
  }
  return unic_run(info, &k, saved);
}

/* Output j of n for `reader`, which calls it `name` (a new reference). */
static unic_status again(unic_node *reader, const char *name, unic_node *n, int j, unic_tensor **out) {
  unic_made *o = &n->outs[j];
  if (o->tensor && !o->again) {   /* its owner still has it */
    UNIC_TRY(unic_tape_check_version(reader, name, o->tensor, o->version));
    return unic_tensor_hold(o->tensor, out);
  }
  if (!o->again) {
    UNIC_TRY(unic_frame_need(n));
    UNIC_TRY(edges_again(n, true));
    unic_status status = n->info->op->flags & UNIC_OP_VIEW ? view_again(n) : run_again(n, j);
    inputs_done(n);
    if (status != UNIC_OK) {
      for (int i = 0; i < n->nouts; i++) forget(&n->outs[i]);
      return status;
    }
  }
  return unic_tensor_hold(o->again, out);
}

unic_status unic_remake_need(unic_node *n) {
  UNIC_TRY(edges_again(n, false));
  for (int j = 0; j < n->nouts; j++) {
    unic_made *o = &n->outs[j];
    if (!o->dropped || o->saved) continue;
    UNIC_TRY(again(n, n->info->outs[j].name, n, j, &o->saved));
    o->version = o->saved->storage->version;
  }
  return UNIC_OK;
}

void unic_remake_leave(unic_node *n) {
  for (int j = 0; j < n->nouts; j++)
    if (!n->outs[j].dropped) forget(&n->outs[j]);
}

unic_status unic_remake_settle(unic_node *n) {
  for (int j = 0; j < n->nouts; j++) {
    unic_made *o = &n->outs[j];
    if (o->users == 0) {
      forget(o);
      continue;
    }
    if (o->again) continue;
    unic_tensor *value;
    UNIC_TRY(again(n, n->info->outs[j].name, n, j, &value));
    if (o->again) unic_tensor_let_go(value);
    else o->again = value;   /* its owner's */
  }
  return UNIC_OK;
}

void unic_remake_release(unic_edge *e) {
  if (!e->recipe) return;
  unic_made *o = &e->node->outs[e->output];
  e->recipe = 0;
  if (--o->users == 0 && !o->dropped) forget(o);
}
