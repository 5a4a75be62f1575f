/* Recording nodes and walking back through them. One long file, because the walk reads everything that recording writes; what is computed again is in
 * recompute.c and remake.c. */
#include "tape.h"
#include "dispatch.h"
#include "ready.h"
#include "recompute.h"
#include "remake.h"
#include "watch.h"
#include "replay.h"
#include "structures.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

unic_tape_calls unic_tape_lua;

static uint64_t last_seq, last_mark;
static bool recording_on = true;

bool unic_grad_mode(void) { return recording_on; }
bool unic_grad_mode_set(bool on) {
  bool was = recording_on;
  recording_on = on;
  return was;
}

/* ---------------------------------------------------------------- life of a node */

unic_node *unic_node_ref(unic_node *n) {
  if (n) atomic_fetch_add_explicit(&n->refs, 1, memory_order_relaxed);
  return n;
}

static void drop_grads(unic_made *o) {
  for (int g = 0; g < o->ngrads; g++) unic_tensor_unref(o->grads[g]);
  o->ngrads = 0;
}

static void drop_saved(unic_node *n) {
  for (int e = 0; e < n->nedges; e++) {
    unic_tensor_let_go(n->edges[e].saved);
    n->edges[e].saved = NULL;
    unic_remake_release(&n->edges[e]);
  }
  for (int j = 0; j < n->nouts; j++) {
    unic_tensor_let_go(n->outs[j].saved);
    n->outs[j].saved = NULL;
  }
}

/* Nodes whose last reference went are put on a list and freed one after the other: a chain of 100,000 ops must not recurse. */
void unic_node_unref(unic_node *n) {
  static unic_node *dead;
  static bool draining;
  if (!n || !unic_last_ref(&n->refs)) return;
  n->next_dead = dead;
  dead = n;
  if (draining) return;
  draining = true;
  while (dead) {
    unic_node *d = dead;
    dead = d->next_dead;
    drop_saved(d);
    unic_frame_leave(d);
    for (int e = 0; e < d->nedges; e++) {
      unic_tensor_unref(d->edges[e].leaf);
      unic_node_unref(d->edges[e].node);
    }
    for (int j = 0; j < d->nouts; j++) {
      drop_grads(&d->outs[j]);
      unic_delete(d->outs[j].grads);
      unic_tensor_unref(d->outs[j].again);
    }
    unic_delete_sized(d, d->bytes);
  }
  draining = false;
}

void unic_node_forget(unic_node *n, const unic_tensor *t) {
  if (n->outs[t->output].tensor == t) n->outs[t->output].tensor = NULL;
}

/* rest: words of attributes and looks. */
static unic_node *node_new(int nedges, int nouts, size_t rest) {
  const size_t bytes = sizeof(unic_node) + (size_t)nedges * sizeof(unic_edge) + (size_t)nouts * sizeof(unic_made) + rest * sizeof(int64_t);
  unic_node *n = unic_new(bytes);
  if (!n) return NULL;
  n->bytes = bytes;
  n->refs = 1;   /* the caller's */
  n->seq = ++last_seq;
  n->edges = (unic_edge *)(n + 1);
  n->outs = (unic_made *)(n->edges + nedges);
  n->rest = (int64_t *)(n->outs + nouts);
  n->nedges = nedges;
  n->nouts = nouts;
  n->module = unic_watch_module;
  n->piece = unic_frame_number();
  if (unic_call_up.line) n->line = unic_call_up.line();
  return n;
}

/* t as the kernel saw it; its sizes go to `at`. Returns where the next go. */
static int64_t *look_at(unic_look *l, const unic_tensor *t, int64_t *at) {
  l->ndim = t->ndim;
  l->dtype = t->dtype;
  l->block = t->block;
  l->present = 1;
  l->shape = at;
  l->stride = at + t->ndim;
  for (int d = 0; d < t->ndim; d++) {
    at[d] = t->shape[d];
    at[t->ndim + d] = t->stride[d];
  }
  return at + 2 * t->ndim;
}

void unic_look_view(const unic_look *l, unic_view *v) {
  v->data = NULL;
  v->ndim = l->ndim;
  v->dtype = l->dtype;
  v->block = l->block;
  v->present = l->present;
  v->numel = l->present ? 1 : 0;
  for (int d = 0; d < l->ndim; d++) {
    v->shape[d] = l->shape[d];
    v->stride[d] = l->stride[d];
    v->numel *= l->shape[d];
  }
}

/* Attributes as they are kept: number, integer and whether it was given; the integers of a list behind them. A tensor has none. */
typedef struct kept_value { double number; int64_t integer, given; } kept_value;
enum { KEPT = sizeof(kept_value) / sizeof(int64_t) };

static bool is_kept(const unic_call *c, const unic_op_info *info, int i) {
  return info->args[i].is_tensor ? !c->in[i] && info->args[i].kind != UNIC_KIND_TENSOR : true;
}

static size_t args_words(const unic_call *c, const unic_op_info *info) {
  size_t words = 0;
  for (int i = 0; i < info->nargs; i++) {
    if (is_kept(c, info, i)) words += KEPT;
    if (info->args[i].kind == UNIC_KIND_INTS) words += (size_t)c->arg[i].integer;
  }
  return words;
}

static int64_t *keep_args(unic_node *n, const unic_call *c) {
  int64_t *at = n->rest;
  for (int i = 0; i < n->info->nargs; i++) {
    if (!is_kept(c, n->info, i)) continue;
    const kept_value v = {c->arg[i].number, c->arg[i].integer, c->arg[i].given};
    n->kept |= (uint16_t)(1u << i);
    memcpy(at, &v, sizeof v);
    at += KEPT;
    if (n->info->args[i].kind != UNIC_KIND_INTS) continue;
    for (int64_t m = 0; m < v.integer; m++) *at++ = c->arg[i].ints[m];
  }
  return at;
}

void unic_node_args(const unic_node *n, unic_value *args) {
  const int64_t *at = n->rest;
  for (int i = 0; i < n->info->nargs; i++) {
    kept_value v = {.given = 1};
    if (n->kept >> i & 1) {
      memcpy(&v, at, sizeof v);
      at += KEPT;
    }
    args[i].number = v.number;
    args[i].integer = v.integer;
    args[i].given = v.given;
    if (n->info->args[i].kind != UNIC_KIND_INTS) continue;
    for (int64_t m = 0; m < v.integer; m++) args[i].ints[m] = *at++;
  }
}

static void edge_to(unic_edge *e, unic_tensor *t) {
  e->dtype = t->dtype;
  if (t->node) {
    e->node = unic_node_ref(t->node);
    e->output = t->output;
  } else if (t->requires_grad) {
    e->leaf = unic_tensor_ref(t);
  }
}

static void made_by(unic_node *n, int j, unic_tensor *t) {
  unic_made *o = &n->outs[j];
  o->tensor = t;
  t->node = unic_node_ref(n);
  t->output = (int16_t)j;
  t->requires_grad = 1;
}

/* own: an output of the node that saves it, which is about to hold the node. */
static unic_status save(unic_tensor *t, bool own, unic_tensor **saved, uint64_t *version) {
  *version = t->storage->version;
  if (unic_profiling && !(unic_frame_current && unic_frame_drops(t))) unic_profile_saved(t);
  if (own || t->node) return unic_tensor_hold(t, saved);
  *saved = unic_tensor_hold_itself(t);
  return UNIC_OK;
}

unic_status unic_node_record(const unic_call *c, const unic_op_info *info, unic_tensor *const *origin, unic_tensor **outs) {
  int nedges = 0;
  size_t words = args_words(c, info);
  for (int i = 0; i < info->nargs; i++) {
    if (info->args[i].kind == UNIC_KIND_TENSORS) {
      nedges += (int)c->arg[i].integer;
      for (int64_t m = 0; m < c->arg[i].integer; m++) words += 2 * (size_t)c->list[i][m]->ndim;
    } else if (info->args[i].is_tensor && c->in[i]) {
      nedges++;
      words += 2 * (size_t)c->in[i]->ndim;
    }
  }
  for (int j = 0; j < info->nouts; j++) if (outs[j]) words += 2 * (size_t)outs[j]->ndim;
  unic_node *n = node_new(nedges, info->nouts, words);
  if (!n) return UNIC_MEMORY;
  n->info = info;
  n->device = c->device;
  n->type = c->type;
  int64_t *at = keep_args(n, c);
  unic_status status = UNIC_OK;
  unic_edge *e = n->edges;
  for (int i = 0; i < info->nargs && status == UNIC_OK; i++) {
    const unic_arg_info *a = &info->args[i];
    bool list = a->kind == UNIC_KIND_TENSORS;
    int64_t members = list ? c->arg[i].integer : a->is_tensor && c->in[i] ? 1 : 0;
    for (int64_t m = 0; m < members && status == UNIC_OK; m++, e++) {
      unic_tensor *seen = list ? c->list[i][m] : c->in[i];
      unic_tensor *given = list ? seen : origin[i] ? origin[i] : seen;
      e->arg = (int16_t)i;
      e->member = (int16_t)(list ? m : -1);
      if (a->grad) edge_to(e, given);
      else e->dtype = given->dtype;
      at = look_at(&e->view, seen, at);
    }
  }
  status = unic_remake_plan(n, c, origin, outs);
  for (int i = 0; i < nedges && status == UNIC_OK; i++) {
    e = &n->edges[i];
    if (!info->args[e->arg].saved) continue;
    unic_tensor *seen = e->member >= 0 ? c->list[e->arg][e->member] : c->in[e->arg];
    unic_tensor *given = e->member < 0 && origin[e->arg] ? origin[e->arg] : seen;
    if (!unic_remake_promised(n, e, seen, given)) status = save(seen, false, &e->saved, &e->version);
  }
  for (int j = 0; j < info->nouts && status == UNIC_OK; j++) {
    if (!outs[j]) continue;
    at = look_at(&n->outs[j].view, outs[j], at);
    if (info->outs[j].saved && !unic_remake_drops(n, j)) status = save(outs[j], true, &n->outs[j].saved, &n->outs[j].version);
    if (!info->outs[j].hidden && unic_dtype_is_float(outs[j]->dtype) && status == UNIC_OK) made_by(n, j, outs[j]);
  }
  if (status == UNIC_OK && unic_frame_current) status = unic_frame_add(n);
  if (status != UNIC_OK)
    for (int j = 0; j < info->nouts; j++)
      if (outs[j] && outs[j]->node == n) {
        outs[j]->node = NULL;
        outs[j]->requires_grad = 0;
        unic_node_unref(n);
      }
  unic_node_unref(n);
  return status;
}

unic_status unic_node_record_lua(int64_t key, int ninputs, unic_tensor *const *inputs, int nouts, unic_tensor **outs) {
  size_t words = 0;
  for (int i = 0; i < ninputs; i++) words += 2 * (size_t)inputs[i]->ndim;
  for (int j = 0; j < nouts; j++) words += 2 * (size_t)outs[j]->ndim;
  unic_node *n = node_new(ninputs, nouts, words);
  if (!n) return UNIC_MEMORY;
  int64_t *at = n->rest;
  n->lua = key;
  n->device = nouts ? unic_tensor_device(outs[0]) : unic_device_cpu();
  for (int i = 0; i < ninputs; i++) {
    n->edges[i].arg = (int16_t)i;
    n->edges[i].member = -1;
    if (unic_dtype_is_float(inputs[i]->dtype)) edge_to(&n->edges[i], inputs[i]);
    else n->edges[i].dtype = inputs[i]->dtype;
    at = look_at(&n->edges[i].view, inputs[i], at);
  }
  for (int j = 0; j < nouts; j++) {
    at = look_at(&n->outs[j].view, outs[j], at);
    if (unic_dtype_is_float(outs[j]->dtype)) made_by(n, j, outs[j]);
  }
  unic_status status = unic_frame_current ? unic_frame_add(n) : UNIC_OK;
  unic_node_unref(n);
  return status;
}

/* ---------------------------------------------------------------- the walk */

typedef struct walk {
  unic_node **nodes;     /* reachable nodes (held), later by descending seq */
  int n, room;
  bool keep;
  int ntargets;
  unic_tensor *const *targets;
  unic_tensor **results;
  const unic_ready *ready;
} walk;

static unic_status visit(walk *w, unic_node *n, uint64_t mark) {
  if (n->mark == mark) return UNIC_OK;
  n->mark = mark;
  if (w->n == w->room) {
    int room = w->room ? 2 * w->room : 256;
    unic_node **grown = unic_new((size_t)room * sizeof *grown);
    if (!grown) return UNIC_MEMORY;
    if (w->n) memcpy(grown, w->nodes, (size_t)w->n * sizeof *grown);
    unic_delete(w->nodes);
    w->nodes = grown;
    w->room = room;
  }
  w->nodes[w->n++] = unic_node_ref(n);
  return UNIC_OK;
}

static int by_seq_descending(const void *a, const void *b) {
  uint64_t x = (*(unic_node *const *)a)->seq, y = (*(unic_node *const *)b)->seq;
  return x < y ? 1 : x > y ? -1 : 0;
}

static int target_index(const walk *w, const unic_tensor *t) {
  for (int i = 0; i < w->ntargets; i++) if (w->targets[i] == t) return i;
  return -1;
}

static bool edge_wanted(const walk *w, const unic_edge *e) {
  if (e->node) return e->node->needed;
  if (!e->leaf) return false;
  return w->ntargets == 0 || target_index(w, e->leaf) >= 0;
}

static unic_status collect(walk *w, unic_node *root) {
  uint64_t mark = ++last_mark;
  UNIC_TRY(visit(w, root, mark));
  for (int i = 0; i < w->n; i++)
    for (int e = 0; e < w->nodes[i]->nedges; e++)
      if (w->nodes[i]->edges[e].node) UNIC_TRY(visit(w, w->nodes[i]->edges[e].node, mark));
  qsort(w->nodes, (size_t)w->n, sizeof *w->nodes, by_seq_descending);
  for (int i = w->n - 1; i >= 0; i--) {
    unic_node *n = w->nodes[i];
    n->needed = w->ntargets == 0;
    for (int e = 0; e < n->nedges && !n->needed; e++) n->needed = edge_wanted(w, &n->edges[e]);
    for (int j = 0; j < n->nouts && !n->needed; j++) n->needed = n->outs[j].tensor && target_index(w, n->outs[j].tensor) >= 0;
    for (int j = 0; j < n->nouts; j++) drop_grads(&n->outs[j]);   /* left over from a walk that failed */
  }
  return UNIC_OK;
}

/* Takes over the reference to g. */
static unic_status push_grad(unic_made *o, unic_tensor *g) {
  if (o->ngrads == o->room) {
    int room = o->room ? 2 * o->room : 2;
    unic_tensor **grown = unic_new((size_t)room * sizeof *grown);
    if (!grown) {
      unic_tensor_unref(g);
      return UNIC_MEMORY;
    }
    if (o->ngrads) memcpy(grown, o->grads, (size_t)o->ngrads * sizeof *grown);
    unic_delete(o->grads);
    o->grads = grown;
    o->room = room;
  }
  o->grads[o->ngrads++] = g;
  return UNIC_OK;
}

static bool view_layout_is(const unic_look *v, const unic_tensor *t) {
  if (v->block != t->block || v->ndim != t->ndim) return false;
  for (int d = 0; d < t->ndim; d++)
    if (v->shape[d] != t->shape[d] || (!t->block && t->shape[d] != 1 && v->stride[d] != t->stride[d])) return false;
  return true;
}

/* The elements of a view fill one piece of memory. */
static bool view_is_dense(const unic_look *v) {
  if (v->block) return true;
  unic_tensor t = {.ndim = v->ndim};
  memcpy(t.shape, v->shape, v->ndim * sizeof *t.shape);
  memcpy(t.stride, v->stride, v->ndim * sizeof *t.stride);
  return unic_tensor_is_dense(&t);
}

static unic_status new_like_view(unic_device *d, const unic_look *v, unic_dtype dtype, unic_tensor **out) {
  if (v->block) return unic_tensor_new(d, dtype, v->ndim, v->shape, UNIC_BLOCKED, v->block, out);
  if (view_is_dense(v)) return unic_tensor_new_strided(d, dtype, v->ndim, v->shape, v->stride, out);
  return unic_tensor_new(d, dtype, v->ndim, v->shape, UNIC_CONTIGUOUS, 0, out);
}

/* A gradient nobody else looks at: its memory may be written. */
static bool owned(const unic_tensor *t) { return t->refs == 1 && t->storage->refs == 1 && !t->node; }

/* Bring the addends of an output down to `most`, each in the output's dtype and (unless any_layout) layout. */
static unic_status settle(unic_device *d, unic_made *o, int most, bool any_layout) {
  while (o->ngrads > most) {
    unic_tensor *last = o->grads[o->ngrads - 1], **into = &o->grads[0];
    for (int g = 0; g < o->ngrads - 1; g++)
      if (owned(o->grads[g]) && unic_tensor_is_dense(o->grads[g])) { into = &o->grads[g]; break; }
    if (!owned(*into) || !unic_tensor_is_dense(*into)) {
      if (owned(last) && unic_tensor_is_dense(last) && last->dtype == o->view.dtype) {
        unic_tensor *t = *into;
        *into = last;
        last = o->grads[o->ngrads - 1] = t;
      } else {
        unic_tensor *sum;
        UNIC_TRY(new_like_view(d, &o->view, o->view.dtype, &sum));
        unic_status status = unic_service_copy(sum, *into);
        unic_tensor_unref(*into);
        *into = sum;
        UNIC_TRY(status);
      }
    }
    UNIC_TRY(unic_service_accumulate(*into, last));
    unic_tensor_unref(last);
    o->ngrads--;
  }
  for (int g = 0; g < o->ngrads; g++) {
    unic_tensor *t = o->grads[g];
    if (t->dtype == o->view.dtype && (any_layout ? !t->block : (view_layout_is(&o->view, t) || (!view_is_dense(&o->view) && unic_tensor_is_contiguous(t))))) continue;
    unic_tensor *made;
    UNIC_TRY(new_like_view(d, &o->view, o->view.dtype, &made));
    unic_status status = unic_service_copy(made, t);
    unic_tensor_unref(t);
    o->grads[g] = made;
    UNIC_TRY(status);
  }
  return UNIC_OK;
}

/* Hooks and retain_grad of an output whose gradient is complete. */
static unic_status finish_output(walk *w, unic_node *n, unic_made *o) {
  unic_tensor *t = o->tensor;
  int target = t ? target_index(w, t) : -1;
  if (o->hook || (t && t->retain_grad) || target >= 0) UNIC_TRY(settle(n->device, o, 1, true));
  if (o->ngrads == 0) return UNIC_OK;
  if (o->hook && unic_tape_lua.hook) {
    unic_tensor *replacement = NULL;
    UNIC_TRY(unic_tape_lua.hook(o->hook, o->grads[0], &replacement));
    if (replacement) {
      unic_tensor_unref(o->grads[0]);
      o->grads[0] = replacement;
    }
  }
  if (target >= 0) {
    unic_tensor_unref(w->results[target]);
    w->results[target] = unic_tensor_ref(o->grads[0]);
  }
  if (t && t->retain_grad && w->ntargets == 0) {
    unic_tensor *sum = unic_tensor_ref(o->grads[0]);
    if (t->grad) {
      unic_tensor_unref(sum);
      UNIC_TRY(unic_service_accumulate(t->grad, o->grads[0]));
    } else {
      t->grad = sum;
    }
  }
  return UNIC_OK;
}

/* Whether a leaf's gradient is there for longer than the walk. */
static bool gradients_last(const walk *w) { return !w->ready; }

/* A finished gradient for a leaf: takes over g. */
static unic_status give_leaf(walk *w, unic_tensor *leaf, unic_tensor *g) {
  if (leaf->hook && unic_tape_lua.hook) {
    unic_tensor *replacement = NULL;
    unic_status status = unic_tape_lua.hook(leaf->hook, g, &replacement);
    if (status != UNIC_OK) { unic_tensor_unref(g); return status; }
    if (replacement) { unic_tensor_unref(g); g = replacement; }
  }
  unic_tensor **slot = &leaf->grad;
  if (w->ntargets) slot = &w->results[target_index(w, leaf)];
  if (*slot) {
    unic_status status = unic_service_accumulate(*slot, g);
    unic_tensor_unref(g);
    return status;
  }
  if (!unic_tensor_is_dense(g) || g->dtype != leaf->dtype || !owned(g)) {   /* a leaf owns its gradient, in its own dtype */
    unic_tensor *made;
    bool was = unic_memory_lasting(gradients_last(w));
    unic_status status = unic_tensor_convert(g, leaf->dtype, UNIC_LAYOUT_KEEP, &made);
    unic_memory_lasting(was);
    unic_tensor_unref(g);
    UNIC_TRY(status);
    g = made;
  }
  g->keep = 1;
  *slot = g;
  return UNIC_OK;
}

/* Where the kernel may write a leaf's gradient straight away: what is there already (accumulate), or nothing. */
static unic_tensor *leaf_target(const walk *w, const unic_edge *e, unic_dtype dtype, bool write_only) {
  if (!e->leaf || e->leaf->hook || write_only) return NULL;
  unic_tensor *there = w->ntargets ? w->results[target_index(w, e->leaf)] : e->leaf->grad;
  if (!there || there->dtype != dtype || !view_layout_is(&e->view, there)) return NULL;
  return there;
}

unic_status unic_tape_check_version(const unic_node *n, const char *name, const unic_tensor *saved, uint64_t version) {
  uint64_t now = saved->storage->version;
  if (now == version) return UNIC_OK;
  const char *made = unic_call_up.line_text && n->line ? unic_call_up.line_text(n->line) : "an earlier line";
  const char *changed = unic_call_up.line_text && saved->storage->mutation_line ? unic_call_up.line_text(saved->storage->mutation_line) : "a later line";
  return unic_fail("[%s] argument '%s': its value was saved for backward at %s and changed in place at %s; clone it before changing it", n->info->op->name, name, made, changed);
}

/* The descriptor's view backward: the gradient is a look at dy. */
static unic_status view_backward(walk *w, unic_node *n, unic_tensor *dy) {
  unic_call c;
  unic_tensor shell = {.refs = 1};
  unic_edge *e = &n->edges[0];
  c.op = n->info->op;
  c.device = n->device;
  c.type = n->type;
  memset(c.in, 0, sizeof c.in);
  unic_node_args(n, c.arg);
  shell.dtype = e->view.dtype;
  shell.ndim = e->view.ndim;
  memcpy(shell.shape, e->view.shape, e->view.ndim * sizeof *shell.shape);
  memcpy(shell.stride, e->view.stride, e->view.ndim * sizeof *shell.stride);
  shell.storage = dy->storage;
  c.in[e->arg] = &shell;
  unic_tensor *g = NULL;
  UNIC_TRY(n->info->op->grad_view(&c, dy, &g));
  if (!g) {   /* dy's strides allow no such look */
    unic_tensor *dense;
    UNIC_TRY(unic_tensor_convert(dy, dy->dtype, UNIC_CONTIGUOUS, &dense));
    unic_status status = n->info->op->grad_view(&c, dense, &g);
    unic_tensor_unref(dense);
    UNIC_TRY(status);
  }
  if (e->node) return push_grad(&e->node->outs[e->output], g);
  return give_leaf(w, e->leaf, g);
}

/* An addend of out[0]'s gradient that has done its work once the kernel has read it, and where a gradient may be written instead of in new memory.
 * `first`: the next one to look at. */
static unic_tensor *take_over(const unic_node *n, const unic_arg_info *a, const unic_look *want, int *first) {
  const unic_made *o = &n->outs[0];
  if (!a->over || (a->over_wide && unic_dtype_is_half(n->type))) return NULL;
  for (; *first < o->ngrads; ++*first) {
    unic_tensor *t = o->grads[*first];
    if (!owned(t) || t->dtype != want->dtype || !view_is_dense(want) || !view_layout_is(want, t)) continue;
    ++*first;
    return unic_tensor_ref(t);
  }
  return NULL;
}

static unic_status op_backward(walk *w, unic_node *n) {
  const unic_op *op = n->info->op;
  int most = op->addends > 1 ? 2 : 1;
  if (op->grad_view) {
    UNIC_TRY(settle(n->device, &n->outs[0], 1, true));
    return edge_wanted(w, &n->edges[0]) ? view_backward(w, n, n->outs[0].grads[0]) : UNIC_OK;
  }
  UNIC_TRY(unic_remake_need(n));
  unic_kernel k;
  k.op = op;
  k.device = n->device;
  k.type = n->type;
  k.backward = true;
  k.grad = false;
  k.remake = 0;
  unic_tensor *saved[UNIC_MAX_ARGS] = {NULL};
  unic_node_args(n, k.arg);
  for (int i = 0; i < n->info->nargs; i++) {
    k.in[i] = (unic_view){0};
    k.din[i] = (unic_view){0};
    k.accumulate[i] = 0;
  }
  memset(k.list, 0, sizeof k.list);
  memset(k.dlist, 0, sizeof k.dlist);
  for (int j = 0; j < n->nouts; j++) {
    unic_made *o = &n->outs[j];
    unic_look_view(&o->view, &k.out[j]);
    k.dout[j] = k.dout2[j] = k.out[j];
    k.dout[j].present = o->ngrads > 0;
    k.dout2[j].present = o->ngrads > 1;
    if (o->saved) {
      UNIC_TRY(unic_tape_check_version(n, n->info->outs[j].name, o->saved, o->version));
      k.out[j].data = unic_tensor_data(o->saved);
    }
    if (o->ngrads) {
      UNIC_TRY(settle(n->device, o, most, false));
      unic_view_of(o->grads[0], &k.dout[j]);
      if (o->ngrads > 1) unic_view_of(o->grads[1], &k.dout2[j]);
    }
  }

  int lists = 0;
  for (int e = 0; e < n->nedges; e++) if (n->edges[e].member >= 0) lists++;
  unic_view *views = NULL;
  unic_tensor **dests = unic_new((size_t)(n->nedges + 1) * sizeof *dests);   /* where each edge's gradient is written; held */
  bool *direct = unic_new((size_t)(n->nedges + 1) * sizeof *direct);         /* it is the leaf's own gradient, accumulated into */
  unic_status status = dests && direct ? UNIC_OK : UNIC_MEMORY;
  if (status == UNIC_OK && lists) {
    views = unic_new(2 * (size_t)lists * sizeof *views);
    if (!views) status = UNIC_MEMORY;
  }
  int at = 0, spent = 0;
  for (int i = 0; i < n->nedges && status == UNIC_OK; i++) {
    unic_edge *e = &n->edges[i];
    const unic_arg_info *a = &n->info->args[e->arg];
    unic_view *in = &k.in[e->arg], *din = &k.din[e->arg];
    if (e->member >= 0) {
      if (e->member == 0) { k.list[e->arg] = views + at; k.dlist[e->arg] = views + lists + at; }
      in = views + at;
      din = views + lists + at;
      at++;
    }
    unic_look_view(&e->view, in);
    if (e->saved) {
      status = unic_tape_check_version(n, a->name, e->saved, e->version);
      if (status != UNIC_OK) break;
      in->data = unic_tensor_data(e->saved);
      if (e->member < 0) saved[e->arg] = e->saved;
    }
    *din = (unic_view){0};
    if (!a->grad || !edge_wanted(w, e)) continue;
    unic_dtype dtype = a->grad_wide ? unic_dtype_wide(n->type) : (unic_dtype)e->view.dtype;
    unic_tensor *there = e->member < 0 ? leaf_target(w, e, dtype, a->write_only) : NULL;
    for (int f = 0; f < i && there; f++) if (dests[f] == there) there = NULL;   /* one leaf used twice by this op */
    if (there) {
      dests[i] = unic_tensor_ref(there);
      direct[i] = true;
      k.accumulate[e->arg] = 1;
    } else if (!(e->node && e->member < 0 && (dests[i] = take_over(n, a, &e->view, &spent)))) {
      bool was = unic_memory_lasting(e->leaf && gradients_last(w));
      status = new_like_view(n->device, &e->view, dtype, &dests[i]);
      unic_memory_lasting(was);
      if (status == UNIC_OK && a->sparse_rows) status = unic_service_fill(dests[i], 0);
      if (a->sparse_rows) k.accumulate[e->arg] = 1;
    }
    if (status == UNIC_OK) unic_view_of(dests[i], din);
  }
  if (status == UNIC_OK) status = unic_run(n->info, &k, saved);
  for (int i = 0; i < n->nedges && dests; i++) {
    if (!dests[i]) continue;
    unic_edge *e = &n->edges[i];
    unic_tensor *g = dests[i];
    if (unic_watch && status == UNIC_OK) status = unic_watch->backward(n, e, g);
    if (status != UNIC_OK) unic_tensor_unref(g);
    else if (direct[i]) {
      unic_storage_touch(g->storage, 0);
      unic_tensor_unref(g);
    } else if (e->node) {
      status = push_grad(&e->node->outs[e->output], g);
    } else {
      status = give_leaf(w, e->leaf, g);
    }
  }
  unic_delete(dests);
  unic_delete(direct);
  unic_delete(views);
  return status;
}

static unic_status lua_backward(walk *w, unic_node *n) {
  unic_tensor **douts = unic_new((size_t)(n->nouts + n->nedges + 1) * sizeof *douts);
  if (!douts) return UNIC_MEMORY;
  unic_tensor **dins = douts + n->nouts;
  unic_status status = UNIC_OK;
  for (int j = 0; j < n->nouts && status == UNIC_OK; j++) {
    if (!n->outs[j].ngrads) continue;
    status = settle(n->device, &n->outs[j], 1, true);
    if (status == UNIC_OK) douts[j] = n->outs[j].grads[0];
  }
  if (status == UNIC_OK) status = unic_tape_lua.backward ? unic_tape_lua.backward(n->lua, n->nouts, douts, n->nedges, dins) : unic_fail("[fn] no Lua state to run its backward in");
  for (int i = 0; i < n->nedges; i++) {
    unic_edge *e = &n->edges[i];
    unic_tensor *g = dins[i];
    if (!g) continue;
    if (status == UNIC_OK && (g->ndim != e->view.ndim || memcmp(g->shape, e->view.shape, g->ndim * sizeof *g->shape) != 0)) {
      char got[160], want[160];
      status = unic_fail("[fn] gradient %d has shape %s, its input has %s", i + 1, unic_shape_describe(g->ndim, g->shape, got, sizeof got),
                         unic_shape_describe(e->view.ndim, e->view.shape, want, sizeof want));
    }
    if (unic_watch && status == UNIC_OK) status = unic_watch->backward(n, e, g);
    if (status != UNIC_OK || !edge_wanted(w, e)) unic_tensor_unref(g);
    else if (e->node) status = push_grad(&e->node->outs[e->output], g);
    else status = give_leaf(w, e->leaf, g);
  }
  unic_delete(douts);
  return status;
}

static unic_status run_node(walk *w, unic_node *n) {
  bool any = false;
  for (int j = 0; j < n->nouts; j++) {
    if (n->outs[j].ngrads) UNIC_TRY(finish_output(w, n, &n->outs[j]));
    any = any || n->outs[j].ngrads;
  }
  if (!any || !n->needed) return UNIC_OK;
  bool edges = false;
  for (int e = 0; e < n->nedges; e++) edges = edges || edge_wanted(w, &n->edges[e]);
  if (!edges) return UNIC_OK;
  if (n->consumed) {
    const char *line = unic_call_up.line_text && n->line ? unic_call_up.line_text(n->line) : "an earlier line";
    return unic_fail("[backward] the graph made at %s was walked already and its saved tensors are gone; backward{keep = true} keeps them", line);
  }
  UNIC_TRY(unic_frame_need(n));
  uint32_t module = unic_watch_module;
  unic_watch_module = n->module;
  unic_watch_line = n->line;
  unic_status status = n->info ? op_backward(w, n) : lua_backward(w, n);
  unic_watch_module = module;
  unic_watch_line = 0;
  if (unic_interrupted() && status == UNIC_OK) status = unic_fail_interrupted();
  return status;
}

unic_status unic_backward(unic_tensor *root, unic_tensor *dy, bool keep, int ntargets, unic_tensor *const *targets, unic_tensor **results, const unic_ready *ready) {
  char text[256];
  if (!root->node) {
    if (!root->requires_grad) return unic_fail("[backward] argument 'loss': %s needs no gradient: nothing it was made from has requires_grad", unic_tensor_describe(root, text, sizeof text));
  }
  if (!unic_dtype_is_float(root->dtype)) return unic_fail("[backward] argument 'loss': %s was given, expected a floating type", unic_tensor_describe(root, text, sizeof text));
  if (!dy && unic_tensor_numel(root) != 1)
    return unic_fail("[backward] argument 'loss': %s was given, expected one element (or a gradient of the same shape as argument)", unic_tensor_describe(root, text, sizeof text));
  if (dy && (dy->ndim != root->ndim || memcmp(dy->shape, root->shape, root->ndim * sizeof *root->shape) != 0)) {
    char want[256];
    return unic_fail("[backward] argument 'gradient': %s was given, expected the shape of %s", unic_tensor_describe(dy, text, sizeof text), unic_tensor_describe(root, want, sizeof want));
  }
  bool mode = unic_grad_mode_set(false);
  walk w = {.keep = keep, .ntargets = ntargets, .targets = targets, .results = results, .ready = ready};
  unic_ready_plan *plan = NULL;
  unic_status status = UNIC_OK;
  unic_tensor *seed = NULL;
  /* A look at the caller's gradient does where nobody gets to keep it or to change it; what is not owned is never written. A recording must own what it reads. */
  const bool look = dy && root->node && !ready && dy->dtype == root->dtype && unic_tensor_is_dense(dy) && !root->retain_grad && !root->node->outs[root->output].hook && target_index(&w, root) < 0 &&
                    !unic_recording_id(unic_tensor_device(dy));
  if (look) status = unic_tensor_alias(dy, &seed);
  else if (dy) status = unic_tensor_convert(dy, root->dtype, UNIC_LAYOUT_KEEP, &seed);
  else {
    status = unic_tensor_new_strided(unic_tensor_device(root), root->dtype, root->ndim, root->shape, root->stride, &seed);
    if (status == UNIC_OK && !unic_tensor_device(root)->abstract) status = unic_service_fill(seed, 1);
    if (status != UNIC_OK) { unic_tensor_unref(seed); seed = NULL; }
  }
  if (status == UNIC_OK && !root->node) {
    if (ntargets == 0 || target_index(&w, root) >= 0) status = give_leaf(&w, root, seed);
    else unic_tensor_unref(seed);
    for (int i = 0; ready && i < ready->n && status == UNIC_OK; i++)
      if (ready->leaves[i] == root) status = ready->call(ready->context, i);
    unic_grad_mode_set(mode);
    return status;
  }
  if (status == UNIC_OK) status = collect(&w, root->node);
  if (status == UNIC_OK && ready) status = unic_ready_plan_new(w.nodes, w.n, ready, &plan);
  if (status == UNIC_OK) status = push_grad(&root->node->outs[root->output], seed);
  else unic_tensor_unref(seed);
  for (int i = 0; i < w.n; i++) {
    unic_node *n = w.nodes[i];
    unic_remake_leave(n);
    if (status == UNIC_OK) status = run_node(&w, n);
    if (status == UNIC_OK && !keep) status = unic_remake_settle(n);
    for (int j = 0; j < n->nouts; j++) drop_grads(&n->outs[j]);
    if (status == UNIC_OK && !keep) {
      drop_saved(n);
      if (n->info && !n->info->op->grad_view) n->consumed = 1;
      if (!n->info) n->consumed = 1;
    }
    if (status == UNIC_OK && plan) status = unic_ready_after(plan, i);
  }
  unic_ready_plan_free(plan);
  for (int i = 0; i < w.n; i++) unic_node_unref(w.nodes[i]);
  unic_delete(w.nodes);
  unic_grad_mode_set(mode);
  return status;
}
