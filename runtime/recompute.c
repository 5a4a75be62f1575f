/* Pieces of the tape that are computed again. */
#include "recompute.h"
#include "dispatch.h"
#include "remake.h"

#include <string.h>

enum { MAX_GENERATORS = 8 };

struct unic_frame {
  int refs;                  /* its nodes, and whoever runs it */
  enum { RUNNING, DROPPED, AGAIN, FILLED } state;
  uint64_t birth;            /* storages with larger numbers came into being inside */
  uint64_t again;            /* the same for the second run */
  uint64_t number;           /* of the present or last run */
  int64_t key;
  unic_dtype autocast;
  bool costly;               /* unic_remake_costly */
  unic_node **nodes;         /* in the order they were made; NULL: freed since */
  int n, room, at;           /* at: how many the second run has made */
  uint64_t *reads;           /* memory from outside that is read inside, by the numbers of its storages */
  int64_t nreads, reads_room;
  int generators;
  struct { unic_tensor *state, *before, *now; } generator[MAX_GENERATORS];   /* held */
};

unic_frame *unic_frame_current;
static uint64_t last_number;

uint64_t unic_frame_number(void) { return unic_frame_current ? unic_frame_current->number : 0; }

static void let_go(unic_frame *f) {
  if (--f->refs > 0) return;
  for (int i = 0; i < f->generators; i++) {
    unic_tensor_unref(f->generator[i].state);
    unic_tensor_unref(f->generator[i].before);
  }
  unic_delete(f->nodes);
  unic_delete(f->reads);
  unic_delete(f);
}

unic_status unic_frame_begin(unic_frame **out) {
  *out = NULL;
  if (unic_frame_current) return UNIC_OK;
  unic_frame *f = unic_new(sizeof *f);
  if (!f) return UNIC_MEMORY;
  f->refs = 1;
  f->state = RUNNING;
  f->birth = unic_storage_newest();
  f->autocast = unic_autocast_get();
  f->costly = unic_remake_is_costly();
  f->number = ++last_number;
  *out = unic_frame_current = f;
  return UNIC_OK;
}

static bool drop(const unic_frame *f, unic_tensor **saved) {
  if (!*saved || (*saved)->storage->born <= f->birth) return false;
  unic_tensor_let_go(*saved);
  *saved = NULL;
  return true;
}

static void drop_inside(unic_frame *f) {
  bool any = false;
  for (int i = 0; i < f->n; i++) {
    unic_node *n = f->nodes[i];
    if (!n) continue;
    for (int e = 0; e < n->nedges; e++) any |= drop(f, &n->edges[e].saved);
    for (int j = 0; j < n->nouts; j++) any |= drop(f, &n->outs[j].saved);
  }
  if (any) f->state = DROPPED;
}

void unic_frame_end(unic_frame *f, int64_t key) {
  unic_frame_current = NULL;
  f->key = key;
  f->state = FILLED;   /* unless something went */
  drop_inside(f);
  let_go(f);
}

static unic_status append(unic_frame *f, unic_node *n) {
  if (f->n == f->room) {
    int room = f->room ? 2 * f->room : 64;
    unic_node **grown = unic_new((size_t)room * sizeof *grown);
    if (!grown) return UNIC_MEMORY;
    if (f->n) memcpy(grown, f->nodes, (size_t)f->n * sizeof *grown);
    unic_delete(f->nodes);
    f->nodes = grown;
    f->room = room;
  }
  n->frame = f;
  n->slot = f->n;
  f->nodes[f->n++] = n;
  f->refs++;
  return UNIC_OK;
}

static const char *name_of(const unic_node *n) { return n->info ? n->info->op->name : "unic.fn"; }

/* What the second run saved becomes what the first has saved; both are there for memory from outside, which must be the same. */
static unic_status take(const unic_node *n, unic_tensor **to, uint64_t *version, unic_tensor *from, uint64_t from_version) {
  if (!from) return UNIC_OK;
  if (!*to) {
    *version = from_version;
    return unic_tensor_hold(from, to);
  }
  if ((*to)->storage != from->storage)
    return unic_fail("[checkpoint] argument 'fn': %s read another tensor when it was run again; what changes between the runs is to be an argument: unic.checkpoint(fn, x)", name_of(n));
  return UNIC_OK;
}

static unic_status fill(unic_frame *f, const unic_node *from) {
  if (f->at >= f->n) return unic_fail("[checkpoint] argument 'fn': it did more when it was run again: a %s after its end", name_of(from));
  unic_node *to = f->nodes[f->at++];
  if (!to) return UNIC_OK;
  bool same = to->info == from->info && to->nedges == from->nedges && to->nouts == from->nouts;
  for (int j = 0; same && j < to->nouts; j++)
    same = to->outs[j].view.ndim == from->outs[j].view.ndim &&
           memcmp(to->outs[j].view.shape, from->outs[j].view.shape, to->outs[j].view.ndim * sizeof(int64_t)) == 0;
  /* What is made again instead of kept is decided by what was recorded before it, which is the same. */
  for (int e = 0; same && e < to->nedges; e++) same = to->edges[e].recipe == from->edges[e].recipe;
  for (int j = 0; same && j < to->nouts; j++) same = to->outs[j].dropped == from->outs[j].dropped;
  if (!same)
    return unic_fail("[checkpoint] argument 'fn': it did something else when it was run again: a %s (or other shapes) where there was a %s", name_of(from), name_of(to));
  for (int e = 0; e < to->nedges; e++) UNIC_TRY(take(to, &to->edges[e].saved, &to->edges[e].version, from->edges[e].saved, from->edges[e].version));
  for (int j = 0; j < to->nouts; j++) UNIC_TRY(take(to, &to->outs[j].saved, &to->outs[j].version, from->outs[j].saved, from->outs[j].version));
  return UNIC_OK;
}

unic_status unic_frame_add(unic_node *n) {
  unic_frame *f = unic_frame_current;
  return f->state == AGAIN ? fill(f, n) : append(f, n);
}

void unic_frame_leave(unic_node *n) {
  if (!n->frame) return;
  n->frame->nodes[n->slot] = NULL;
  let_go(n->frame);
  n->frame = NULL;
}

unic_status unic_frame_rng(unic_tensor *rng) {
  unic_frame *f = unic_frame_current;
  if (f->state != RUNNING) return UNIC_OK;
  for (int i = 0; i < f->generators; i++)
    if (f->generator[i].state->storage == rng->storage) return UNIC_OK;
  if (f->generators == MAX_GENERATORS) return unic_fail("[checkpoint] argument 'fn': it draws from more than %d generators", MAX_GENERATORS);
  unic_tensor *before;
  UNIC_TRY(unic_tensor_convert(rng, rng->dtype, UNIC_CONTIGUOUS, &before));
  f->generator[f->generators].state = unic_tensor_ref(rng);
  f->generator[f->generators++].before = before;
  return UNIC_OK;
}

unic_status unic_frame_read(const unic_tensor *t) {
  unic_frame *f = unic_frame_current;
  uint64_t born = t->storage->born;
  if (f->state != RUNNING || born > f->birth) return UNIC_OK;
  for (int64_t i = f->nreads; i-- > 0;)
    if (f->reads[i] == born) return UNIC_OK;
  if (f->nreads == f->reads_room) {
    int64_t room = f->reads_room ? 2 * f->reads_room : 32;
    uint64_t *grown = unic_new((size_t)room * sizeof *grown);
    if (!grown) return UNIC_MEMORY;
    if (f->nreads) memcpy(grown, f->reads, (size_t)f->nreads * sizeof *grown);
    unic_delete(f->reads);
    f->reads = grown;
    f->reads_room = room;
  }
  f->reads[f->nreads++] = born;
  return UNIC_OK;
}

unic_status unic_frame_call(const unic_call *c, const unic_op_info *info) {
  for (int i = 0; i < info->nargs; i++) {
    if (info->args[i].kind == UNIC_KIND_TENSORS)
      for (int64_t m = 0; m < c->arg[i].integer; m++) UNIC_TRY(unic_frame_read(c->list[i][m]));
    else if (c->in[i]) UNIC_TRY(unic_frame_read(c->in[i]));
  }
  return UNIC_OK;
}

const uint64_t *unic_frame_reads(const unic_node *n, int64_t *count) {
  *count = n->frame->nreads;
  return n->frame->reads;
}

bool unic_frame_keeps(const unic_tensor *t) { return unic_frame_current->state == AGAIN && t->storage->born <= unic_frame_current->again; }

bool unic_frame_drops(const unic_tensor *t) { return unic_frame_current->state == RUNNING && t->storage->born > unic_frame_current->birth; }

static unic_status generators_back(unic_frame *f) {
  for (int i = 0; i < f->generators; i++) {
    UNIC_TRY(unic_tensor_convert(f->generator[i].state, f->generator[i].state->dtype, UNIC_CONTIGUOUS, &f->generator[i].now));
    UNIC_TRY(unic_service_copy(f->generator[i].state, f->generator[i].before));
  }
  return UNIC_OK;
}

static unic_status generators_on(unic_frame *f) {
  unic_status status = UNIC_OK;
  for (int i = 0; i < f->generators; i++) {
    if (f->generator[i].now && status == UNIC_OK) status = unic_service_copy(f->generator[i].state, f->generator[i].now);
    unic_tensor_unref(f->generator[i].now);
    f->generator[i].now = NULL;
  }
  return status;
}

unic_status unic_frame_need(unic_node *n) {
  unic_frame *f = n->frame;
  if (!f || f->state != DROPPED) return UNIC_OK;
  if (!unic_tape_lua.recompute) return unic_fail("[checkpoint] no Lua state to run its function in");
  unic_frame *outer = unic_frame_current;
  bool mode = unic_grad_mode_set(true);
  unic_dtype low = unic_autocast_set(f->autocast);
  bool costly = unic_remake_costly(f->costly);
  f->refs++;
  f->state = AGAIN;
  f->at = 0;
  unic_status status = generators_back(f);
  f->again = unic_storage_newest();
  f->number = ++last_number;
  unic_frame_current = f;
  if (status == UNIC_OK) status = unic_tape_lua.recompute(f->key);
  unic_frame_current = outer;
  unic_status restored = generators_on(f);
  if (status == UNIC_OK) status = restored;
  unic_autocast_set(low);
  unic_remake_costly(costly);
  unic_grad_mode_set(mode);
  if (status == UNIC_OK && f->at < f->n) {
    const unic_node *missing = f->nodes[f->at];
    status = unic_fail("[checkpoint] argument 'fn': it did less when it was run again: %d of %d ops; the next was a %s", f->at, f->n, missing ? name_of(missing) : "freed one");
  }
  f->state = status == UNIC_OK ? FILLED : DROPPED;
  if (status != UNIC_OK) drop_inside(f);   /* what was filled in so far */
  let_go(f);
  return status;
}
