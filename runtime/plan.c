/* A hash table of plans with a list in order of last use. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

enum { KEEP = 2048, SLOTS = 4096, KEY_MAX = 6144 };

typedef struct entry {
  unic_cached_plan cached;
  struct entry *chain, *newer, *older;
  uint64_t hash;
  int key_bytes;
  unsigned char *key;
} entry;

static entry *slots[SLOTS], *newest, *oldest;
static int kept;

void unic_plan_release(unic_cached_plan *p) {
  if (!p || --p->refs > 0) return;
  if (p->plan.free) p->plan.free(p->plan.data);
  unic_delete(((entry *)p)->key);
  unic_delete(p);
}

unic_cached_plan *unic_plan_ref(unic_cached_plan *p) {
  p->refs++;
  return p;
}

int unic_plan_count(void) { return kept; }

static void unlink_use(entry *e) {
  if (e->newer) e->newer->older = e->older; else newest = e->older;
  if (e->older) e->older->newer = e->newer; else oldest = e->newer;
  e->newer = e->older = NULL;
}

static void link_newest(entry *e) {
  e->older = newest;
  if (newest) newest->newer = e; else oldest = e;
  newest = e;
}

static void forget(entry *e) {
  entry **at = &slots[e->hash & (SLOTS - 1)];
  while (*at != e) at = &(*at)->chain;
  *at = e->chain;
  unlink_use(e);
  kept--;
  unic_plan_release(&e->cached);
}

void unic_plan_clear(void) {
  while (oldest) forget(oldest);
}

/* ---------------------------------------------------------------- keys */

typedef struct plan_key { int used; bool full; unsigned char bytes[KEY_MAX]; } plan_key;

static inline void put(plan_key *k, const void *p, size_t n) {
  if (k->used + (int)n > KEY_MAX) { k->full = true; return; }
  memcpy(k->bytes + k->used, p, n);
  k->used += (int)n;
}

static void put_view(plan_key *k, const unic_view *v) {
  const unsigned char head[4] = {v->present, v->dtype, v->ndim, v->block};
  if (k->used + 4 + 16 * v->ndim > KEY_MAX) { k->full = true; return; }
  unsigned char *at = k->bytes + k->used;
  memcpy(at, head, 4);
  at += 4;
  for (int d = 0; d < v->ndim; d++, at += 16) {   /* sizes that the compiler knows: a key is made for every launch that has a plan */
    memcpy(at, &v->shape[d], 8);
    memcpy(at + 8, &v->stride[d], 8);
  }
  k->used += 4 + 16 * v->ndim;
}

static void make_key(plan_key *key, const unic_op_info *info, const unic_kernel *k) {
  key->used = 0;
  key->full = false;
  unsigned char head[8] = {k->backward, k->grad, (unsigned char)k->type, (unsigned char)unic_isa_current(), k->remake};
  int threads = unic_threads();
  put(key, &info->op, sizeof info->op);
  put(key, &k->device, sizeof k->device);
  put(key, head, sizeof head);
  put(key, &threads, sizeof threads);
  for (int i = 0; i < info->nargs; i++) {
    const unic_arg_info *a = &info->args[i];
    const unic_value *v = &k->arg[i];
    if (a->is_tensor) {
      put_view(key, &k->in[i]);
      if (a->kind == UNIC_KIND_OPERAND && !k->in[i].present) put(key, &v->number, sizeof v->number);
      if (k->backward) {
        unsigned char want[2] = {k->din[i].present, k->accumulate[i]};
        put(key, want, sizeof want);
        if (k->din[i].present) put_view(key, &k->din[i]);
      }
    } else if (a->kind == UNIC_KIND_TENSORS) {
      put(key, &v->integer, sizeof v->integer);
      for (int64_t m = 0; m < v->integer; m++) put_view(key, &k->list[i][m]);
    } else if (a->kind == UNIC_KIND_INTS) {
      put(key, &v->integer, sizeof v->integer);
      put(key, v->ints, (size_t)v->integer * sizeof *v->ints);
    } else if (a->kind == UNIC_KIND_NUMBER) {
      put(key, &v->number, sizeof v->number);
    } else {
      put(key, &v->integer, sizeof v->integer);
    }
  }
  for (int j = 0; j < info->nouts; j++) {
    put_view(key, &k->out[j]);
    if (k->backward) {
      unsigned char addends[2] = {k->dout[j].data != NULL, k->dout2[j].data != NULL};
      put(key, addends, sizeof addends);
    }
  }
}

static uint64_t hash_of(const plan_key *k) {
  uint64_t h = 0x9E3779B97F4A7C15ull;
  int i = 0;
  for (; i + 8 <= k->used; i += 8) {
    uint64_t w;
    memcpy(&w, k->bytes + i, 8);
    h = (h ^ w) * 0xff51afd7ed558ccdull;
    h ^= h >> 32;
  }
  for (; i < k->used; i++) h = (h ^ k->bytes[i]) * 0x100000001b3ull;
  return h ^ (h >> 29);
}

unic_status unic_plan_get(unic_op_info *info, const unic_kernel *k, unic_plan_fn *make, unic_cached_plan **out) {
  static plan_key key;   /* Lua thread only */
  make_key(&key, info, k);
  uint64_t hash = hash_of(&key);
  if (!key.full) {
    for (entry *e = slots[hash & (SLOTS - 1)]; e; e = e->chain)
      if (e->hash == hash && e->key_bytes == key.used && memcmp(e->key, key.bytes, (size_t)key.used) == 0) {
        if (e != newest) { unlink_use(e); link_newest(e); }
        info->plans_hit++;
        *out = unic_plan_ref(&e->cached);
        return UNIC_OK;
      }
  }
  entry *e = unic_new(sizeof *e);
  if (!e) return UNIC_MEMORY;
  unic_status status = make(k, &e->cached.plan);
  if (status == UNIC_OK && !key.full) {
    e->key = unic_new((size_t)key.used);
    if (!e->key) status = UNIC_MEMORY;
  }
  if (status != UNIC_OK) {
    if (e->cached.plan.free) e->cached.plan.free(e->cached.plan.data);
    unic_delete(e);
    return status;
  }
  info->plans_made++;
  e->cached.refs = 1;
  if (!key.full) {   /* a list of hundreds of tensors: its plan lives for one launch */
    memcpy(e->key, key.bytes, (size_t)key.used);
    e->key_bytes = key.used;
    e->hash = hash;
    e->chain = slots[hash & (SLOTS - 1)];
    slots[hash & (SLOTS - 1)] = e;
    link_newest(e);
    e->cached.refs++;
    if (++kept > KEEP) forget(oldest);
  }
  *out = &e->cached;
  return UNIC_OK;
}
