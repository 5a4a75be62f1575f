/* The arena: segregated best fit with coalescing over large mappings that are never given back.
 *
 * Why not malloc: returning and re-faulting pages costs more than everything else the runtime adds to a step. Why not size classes: activations
 * of a network have a few hundred distinct sizes, and best fit with coalescing leaves little unused, as long as what outlives a step keeps out of
 * the way: gradients, which are made while activations go, would each split a hole that the large activations of early layers need again. They go
 * to the far end of what was used so far (unic_memory_lasting). A little over 500 lines: bins, slabs and pools are one structure under one lock. */
#define _GNU_SOURCE
#include "memory.h"
#include "device.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#ifndef UNIC_ARENA_BYPASS
#define UNIC_ARENA_BYPASS 0   /* 1: every block of host memory is a malloc of its own, so that AddressSanitizer sees its bounds */
#endif

enum { UNIT = 64, BINS = 176, LOOK = 24 };   /* LOOK: free blocks of one bin looked at for the best fit */
enum { SMALL = 1024, SMALL_SIZES = SMALL / UNIT, PIECES = 32 };   /* blocks of up to SMALL bytes are pieces of larger ones, PIECES in each */

typedef struct slab {
  struct slab *next;
  char *base;
  int64_t bytes;
  int64_t high;          /* bytes from base that were ever handed out */
  unic_block *first;     /* blocks in address order */
  unic_block *parent;    /* of a private pool: the block of the main pool this slab lies in */
} slab;

struct unic_memory_pool {
  unic_memory *memory;
  slab *slabs;
  unic_block *bins[BINS];
  uint64_t filled[(BINS + 63) / 64];
  unic_block *small[SMALL_SIZES];   /* free pieces by size, linked by bin_next */
  struct chunk *chunks;
  int64_t live;
  bool orphan;           /* pool_free was called while blocks were out: the last one frees the slabs */
};

struct unic_block {
  unic_block *prev, *next;            /* neighbours in the slab; NULL in a piece */
  unic_block *bin_prev, *bin_next;    /* free list */
  slab *home;                         /* NULL: a piece of a chunk */
  unic_memory_pool *pool;
  char *data;
  int64_t bytes;
  void *owner;
  uint64_t epoch;                     /* the garbage collection before it was handed out */
  uint64_t owed;                      /* the one before it became debt; 0: it is none */
  bool free;
};

/* Scalars and biases come from blocks cut into equal pieces, which stay cut: a piece is had and given back by one link of a list, and small
 * blocks do not lie scattered between the large ones, which then grow together again. */
typedef struct chunk {
  struct chunk *next;
  unic_block pieces[PIECES];
} chunk;

struct unic_memory {
  unic_device *device;
  pthread_mutex_t lock;
  unic_memory_pool main;
  unic_memory_pool *current;   /* where blocks come from: &main or a private pool */
  unic_memory_stats stats;
  uint64_t epoch;              /* counts garbage collections, from 1 */
  bool poison;
  unic_block *all;             /* live blocks outside the arena, linked by prev/next */
  int64_t beside, beside_ever; /* unic_memory_beside: those there are, less those that other threads let go; all there were. Written by the calls' thread */
};

/* Memory that the CPU cannot read stays in the arena: a sanitizer sees nothing of it, and it can only be had in a few large pieces. */
static bool bypass(const unic_memory *m) { return UNIC_ARENA_BYPASS && m->device->host; }

/* ---------------------------------------------------------------- budget */

static int64_t read_number(const char *path) {
  FILE *f = fopen(path, "r");
  if (!f) return -1;
  long long value = -1;
  if (fscanf(f, "%lld", &value) != 1) value = -1;   /* "max" means no limit */
  fclose(f);
  return value;
}

int64_t unic_memory_budget_host(void) {
  const char *text = getenv("UNIC_MEMORY");
  if (text && *text) {
    char *end;
    double value = strtod(text, &end);
    double unit = *end == 'G' || *end == 'g' ? 1e9 : *end == 'M' || *end == 'm' ? 1e6 : *end == 'K' || *end == 'k' ? 1e3 : 1;
    if (value > 0) return (int64_t)(value * unit);
  }
  int64_t available = INT64_C(4) << 30;
  FILE *f = fopen("/proc/meminfo", "r");
  if (f) {
    char line[128];
    long long kb;
    while (fgets(line, sizeof line, f))
      if (sscanf(line, "MemAvailable: %lld", &kb) == 1) available = kb * 1024;
    fclose(f);
  }
  int64_t limit = read_number("/sys/fs/cgroup/memory.max");
  if (limit <= 0) limit = read_number("/sys/fs/cgroup/memory/memory.limit_in_bytes");
  if (limit > 0 && limit < available) available = limit;
  int64_t reserve = INT64_C(1) << 30;
  return available > 2 * reserve ? available - reserve : available / 2;
}

/* ---------------------------------------------------------------- bins */

static int bin_of(int64_t bytes) {
  int e = 63 - __builtin_clzll((unsigned long long)bytes);        /* bytes >= 64: e >= 6 */
  int bin = (e - 6) * 4 + (int)((bytes >> (e - 2)) & 3);
  return bin < BINS ? bin : BINS - 1;
}

static void bin_insert(unic_memory_pool *p, unic_block *b) {
  int i = bin_of(b->bytes);
  b->free = true;
  b->bin_prev = NULL;
  b->bin_next = p->bins[i];
  if (b->bin_next) b->bin_next->bin_prev = b;
  p->bins[i] = b;
  p->filled[i >> 6] |= UINT64_C(1) << (i & 63);
}

static void bin_remove(unic_memory_pool *p, unic_block *b) {
  int i = bin_of(b->bytes);
  if (b->bin_prev) b->bin_prev->bin_next = b->bin_next;
  else p->bins[i] = b->bin_next;
  if (b->bin_next) b->bin_next->bin_prev = b->bin_prev;
  if (!p->bins[i]) p->filled[i >> 6] &= ~(UINT64_C(1) << (i & 63));
  b->free = false;
}

static unic_block *bin_search(unic_memory_pool *p, int64_t bytes) {
  for (int i = bin_of(bytes); i < BINS;) {
    uint64_t word = p->filled[i >> 6] >> (i & 63);
    if (!word) { i = (i | 63) + 1; continue; }
    i += __builtin_ctzll(word);
    unic_block *best = NULL;
    int seen = 0;
    for (unic_block *b = p->bins[i]; b && seen < LOOK; b = b->bin_next, seen++)
      if (b->bytes >= bytes && (!best || b->bytes < best->bytes || (b->bytes == best->bytes && b->data < best->data))) best = b;
    if (best) return best;
    i++;
  }
  return NULL;
}

/* ---------------------------------------------------------------- slabs */

static unic_status slab_add(unic_memory_pool *p, char *base, int64_t bytes, unic_block *parent) {
  slab *s = unic_new(sizeof *s);
  unic_block *b = s ? unic_new(sizeof *b) : NULL;
  if (!b) { unic_delete(s); return UNIC_MEMORY; }
  *s = (slab){.next = p->slabs, .base = base, .bytes = bytes, .first = b, .parent = parent};
  *b = (unic_block){.home = s, .pool = p, .data = base, .bytes = bytes};
  p->slabs = s;
  bin_insert(p, b);
  return UNIC_OK;
}

static unic_block *take_from(unic_memory_pool *p, int64_t bytes, void *owner);
static void give_to(unic_memory_pool *p, unic_block *b);

/* Room for `bytes` more: the main pool maps, a private pool takes a block of the main pool. */
static unic_status pool_grow(unic_memory_pool *p, int64_t bytes) {
  unic_memory *m = p->memory;
  if (p != &m->main) {
    int64_t want = bytes > (INT64_C(32) << 20) ? bytes : INT64_C(32) << 20;
    unic_block *parent = take_from(&m->main, want, NULL);
    if (!parent && want > bytes) parent = take_from(&m->main, want = bytes, NULL);
    if (!parent) return UNIC_MEMORY;
    unic_status status = slab_add(p, parent->data, parent->bytes, parent);
    if (status != UNIC_OK) give_to(&m->main, parent);
    return status;
  }
  /* One mapping for the whole budget, so that there is one address order; smaller ones where address space is short. */
  int64_t step = m->device->api->step, want = step ? step : p->slabs ? bytes : m->stats.budget + (INT64_C(64) << 20);
  if (want < bytes) want = bytes;
  want = (want + 0xfffff) & ~INT64_C(0xfffff);
  void *base = NULL;
  for (;;) {
    if (m->device->api->reserve(m->device, want, &base) == UNIC_OK) break;
    if (want / 2 < bytes && step)
      return unic_fail_memory("[memory] %s: %lld bytes asked for, the device has no room for them beside the %lld MB taken so far", m->device->name, (long long)bytes,
                              (long long)((m->stats.active + m->stats.cached) >> 20));
    if (want / 2 < bytes) return unic_fail_memory("[memory] %s has no address space for %lld bytes", m->device->name, (long long)bytes);
    want /= 2;
  }
  return slab_add(p, base, want, NULL);
}

static bool lasting;

bool unic_memory_lasting(bool on) {
  bool was = lasting;
  lasting = on;
  return was;
}

/* The free block with the highest address that has room below what was ever handed out, and the end of that room. NULL: none. */
static unic_block *last_fit(unic_memory_pool *p, int64_t bytes, int64_t *end) {
  unic_block *best = NULL;
  for (int i = bin_of(bytes); i < BINS; i++)
    for (unic_block *b = p->filled[i >> 6] >> (i & 63) & 1 ? p->bins[i] : NULL; b; b = b->bin_next) {
      int64_t begin = b->data - b->home->base, stop = begin + b->bytes;
      if (stop > b->home->high) stop = b->home->high;
      if (stop - begin < bytes || (best && b->data < best->data)) continue;
      best = b;
      *end = stop;
    }
  return best;
}

/* Cut the first `bytes` off a free block, which stays free; the rest, free too, is returned. */
static unic_block *cut(unic_memory_pool *p, unic_block *b, int64_t bytes) {
  unic_block *rest = unic_new(sizeof *rest);
  if (!rest) return NULL;
  bin_remove(p, b);
  *rest = (unic_block){.prev = b, .next = b->next, .home = b->home, .pool = p, .data = b->data + bytes, .bytes = b->bytes - bytes};
  if (rest->next) rest->next->prev = rest;
  b->next = rest;
  b->bytes = bytes;
  bin_insert(p, b);
  bin_insert(p, rest);
  return rest;
}

static unic_block *take_from(unic_memory_pool *p, int64_t bytes, void *owner) {
  unic_block *b = NULL;
  if (lasting) {
    int64_t end = 0;
    b = last_fit(p, bytes, &end);
    int64_t before = b ? end - bytes - (b->data - b->home->base) : 0;
    if (before > 0) {
      b = cut(p, b, before);
      if (!b) return NULL;
    }
  }
  if (!b) b = bin_search(p, bytes);
  if (!b) {
    if (pool_grow(p, bytes) != UNIC_OK) return NULL;
    b = bin_search(p, bytes);
    if (!b) return NULL;
  }
  if (b->bytes - bytes >= UNIT && !cut(p, b, bytes)) return NULL;
  bin_remove(p, b);
  int64_t end = b->data + b->bytes - b->home->base;
  if (end > b->home->high) b->home->high = end;
  b->owner = owner;
  p->live++;
  return b;
}

static void give_to(unic_memory_pool *p, unic_block *b) {
  p->live--;
  b->owner = NULL;
  unic_block *next = b->next, *prev = b->prev;
  if (next && next->free) {
    bin_remove(p, next);
    b->bytes += next->bytes;
    b->next = next->next;
    if (b->next) b->next->prev = b;
    unic_delete(next);
  }
  if (prev && prev->free) {
    bin_remove(p, prev);
    prev->bytes += b->bytes;
    prev->next = b->next;
    if (prev->next) prev->next->prev = prev;
    unic_delete(b);
    b = prev;
  }
  bin_insert(p, b);
}

static unic_block *take_small(unic_memory_pool *p, int64_t bytes, void *owner) {
  unic_block **list = &p->small[bytes / UNIT - 1];
  if (!*list) {
    chunk *c = unic_new(sizeof *c);
    unic_block *whole = c ? take_from(p, PIECES * bytes, NULL) : NULL;
    if (!whole) {
      unic_delete(c);
      return NULL;
    }
    p->live--;   /* it goes with the pool's slabs */
    c->next = p->chunks;
    p->chunks = c;
    for (int i = PIECES - 1; i >= 0; i--) {
      c->pieces[i] = (unic_block){.pool = p, .data = whole->data + i * bytes, .bytes = bytes, .free = true, .bin_next = *list};
      *list = &c->pieces[i];
    }
  }
  unic_block *b = *list;
  *list = b->bin_next;
  b->free = false;
  b->owner = owner;
  p->live++;
  return b;
}

static void give_small(unic_memory_pool *p, unic_block *b) {
  unic_block **list = &p->small[b->bytes / UNIT - 1];
  p->live--;
  b->owner = NULL;
  b->free = true;
  b->bin_next = *list;
  *list = b;
}

static void pool_release_slabs(unic_memory_pool *p) {
  for (chunk *c = p->chunks; c;) {
    chunk *next = c->next;
    unic_delete(c);
    c = next;
  }
  p->chunks = NULL;
  memset(p->small, 0, sizeof p->small);
  for (slab *s = p->slabs; s;) {
    slab *next = s->next;
    for (unic_block *b = s->first; b;) {
      unic_block *after = b->next;
      unic_delete(b);
      b = after;
    }
    if (s->parent) give_to(&p->memory->main, s->parent);
    unic_delete(s);
    s = next;
  }
  p->slabs = NULL;
}

/* Outside the arena. */
static unic_block *take_alone(unic_memory *m, int64_t bytes, int64_t rounded, void *owner) {
  void *data = NULL;
  unic_block *b = unic_new(sizeof *b);
  if (b && posix_memalign(&data, UNIT, (size_t)(bytes < 1 ? 1 : bytes)) != 0) {
    unic_delete(b);
    b = NULL;
    unic_fail_memory("[memory] the system has no %lld bytes", (long long)bytes);
  }
  if (!b) return NULL;
  *b = (unic_block){.data = data, .bytes = rounded, .owner = owner, .pool = &m->main, .next = m->all};
  if (m->all) m->all->prev = b;
  m->all = b;
  return b;
}

static void give_alone(unic_memory *m, unic_block *b) {
  if (b->prev) b->prev->next = b->next;
  else m->all = b->next;
  if (b->next) b->next->prev = b->prev;
  free(b->data);
  unic_delete(b);
}

/* ---------------------------------------------------------------- the interface */

unic_memory *unic_memory_new(unic_device *device, int64_t budget) {
  unic_memory *m = unic_new(sizeof *m);
  if (!m) return NULL;
  m->device = device;
  m->stats.budget = budget;
  m->epoch = 1;
  m->main.memory = m;
  m->current = &m->main;
  const char *debug = getenv("UNIC_DEBUG_ALLOC");
  m->poison = debug && strstr(debug, "poison") && device->host;
  pthread_mutex_init(&m->lock, NULL);
  return m;
}

void unic_memory_free(unic_memory *m) {
  if (!m) return;
  pool_release_slabs(&m->main);
  pthread_mutex_destroy(&m->lock);
  unic_delete(m);
}

unic_block *unic_memory_take(unic_memory *m, int64_t bytes, void *owner) {
  const int64_t room = bytes + m->device->api->margin;
  int64_t rounded = room < UNIT ? UNIT : (room + UNIT - 1) & ~(int64_t)(UNIT - 1);
  if (bytes < 0 || unic_allocation_fails()) {
    unic_fail_memory("[memory] %s could not give %lld bytes", m->device->name, (long long)bytes);
    return NULL;
  }
  pthread_mutex_lock(&m->lock);
  unic_block *b = NULL;
  const int64_t beside = UNIC_BESIDE * __atomic_load_n(&m->beside, __ATOMIC_RELAXED);
  if (m->stats.active + beside + rounded > m->stats.budget) {
    unic_fail_memory("[memory] %s: %lld MB asked for, %lld MB in use, the budget is %lld MB (UNIC_MEMORY sets it)", m->device->name,
                     (long long)(rounded >> 20), (long long)(m->stats.active >> 20), (long long)(m->stats.budget >> 20));
  } else {
    b = bypass(m) ? take_alone(m, bytes, rounded, owner) : rounded <= SMALL ? take_small(m->current, rounded, owner) : take_from(m->current, rounded, owner);
  }
  if (b) {
    m->stats.active += b->bytes;
    m->stats.fresh += b->bytes;
    b->epoch = m->epoch;
    b->owed = 0;
    m->stats.allocations++;
    m->stats.blocks++;
    if (m->stats.active + beside > m->stats.peak) m->stats.peak = m->stats.active + beside;
    if (m->poison) memset(b->data, 0xff, (size_t)bytes);   /* NaN in every float type, -1 in integers */
  }
  pthread_mutex_unlock(&m->lock);
  if (b && m->device->api->taken) m->device->api->taken(m->device, b->data, bytes);
  return b;
}

void unic_memory_give(unic_block *b) {
  if (!b) return;
  unic_memory_pool *p = b->pool;
  unic_memory *m = p->memory;
  pthread_mutex_lock(&m->lock);
  m->stats.active -= b->bytes;
  if (b->epoch == m->epoch) m->stats.fresh -= b->bytes;
  if (b->owed == m->epoch) m->stats.debt -= b->bytes;
  m->stats.blocks--;
  if (bypass(m)) {
    give_alone(m, b);
  } else {
    if (m->poison) memset(b->data, 0xcb, (size_t)b->bytes);
    if (b->home) give_to(p, b);
    else give_small(p, b);
    if (p->orphan && p->live == 0) {
      pool_release_slabs(p);
      unic_delete(p);
    }
  }
  pthread_mutex_unlock(&m->lock);
}

bool unic_memory_beside(unic_memory *m, int64_t bytes) {
  if (bytes > UNIC_BESIDE || bytes < 0 || UNIC_ARENA_BYPASS || m->poison || m->current != &m->main || !m->device->host || !unic_on_call_thread()) return false;
  __atomic_store_n(&m->beside, m->beside + 1, __ATOMIC_RELAXED);
  __atomic_store_n(&m->beside_ever, m->beside_ever + 1, __ATOMIC_RELAXED);
  return true;
}

void unic_memory_gone(unic_memory *m) {
  if (unic_on_call_thread()) {
    __atomic_store_n(&m->beside, m->beside - 1, __ATOMIC_RELAXED);
    return;
  }
  pthread_mutex_lock(&m->lock);
  m->stats.active -= UNIC_BESIDE;
  m->stats.blocks--;
  pthread_mutex_unlock(&m->lock);
}

void *unic_block_data(const unic_block *b) { return b->data; }
int64_t unic_block_bytes(const unic_block *b) { return b->bytes; }

unic_memory_stats unic_memory_read(unic_memory *m) {
  pthread_mutex_lock(&m->lock);
  unic_memory_stats stats = m->stats;
  const int64_t beside = __atomic_load_n(&m->beside, __ATOMIC_RELAXED);
  int64_t high = 0;
  for (slab *s = m->main.slabs; s; s = s->next) high += s->high;
  stats.cached = high > stats.active ? high - stats.active : 0;
  pthread_mutex_unlock(&m->lock);
  stats.active += UNIC_BESIDE * beside;
  stats.blocks += beside;
  stats.allocations += __atomic_load_n(&m->beside_ever, __ATOMIC_RELAXED);
  if (stats.active > stats.peak) stats.peak = stats.active;
  return stats;
}

static void owe(unic_block *b, bool on) {
  if (b->bytes <= SMALL) return;
  unic_memory *m = b->pool->memory;
  pthread_mutex_lock(&m->lock);
  if ((b->owed == m->epoch) != on) m->stats.debt += on ? b->bytes : -b->bytes;
  b->owed = on ? m->epoch : 0;
  pthread_mutex_unlock(&m->lock);
}

void unic_memory_owe(unic_block *b) { owe(b, true); }
void unic_memory_paid(unic_block *b) { owe(b, false); }

void unic_memory_peak_reset(unic_memory *m) {
  pthread_mutex_lock(&m->lock);
  m->stats.peak = m->stats.active + UNIC_BESIDE * __atomic_load_n(&m->beside, __ATOMIC_RELAXED);
  pthread_mutex_unlock(&m->lock);
}

void unic_memory_settle(unic_memory *m) {
  pthread_mutex_lock(&m->lock);
  m->stats.fresh = m->stats.debt = 0;
  m->epoch++;
  m->stats.settled = m->stats.active;
  pthread_mutex_unlock(&m->lock);
}

void unic_memory_budget_set(unic_memory *m, int64_t bytes) {
  pthread_mutex_lock(&m->lock);
  m->stats.budget = bytes;
  pthread_mutex_unlock(&m->lock);
}

void unic_memory_each(unic_memory *m, void (*visit)(void *context, void *owner, int64_t bytes), void *context) {
  pthread_mutex_lock(&m->lock);
  for (unic_block *b = m->all; b; b = b->next) visit(context, b->owner, b->bytes);
  for (slab *s = m->main.slabs; s; s = s->next)
    for (unic_block *b = s->first; b; b = b->next)
      if (!b->free && b->owner) visit(context, b->owner, b->bytes);
  for (chunk *c = m->main.chunks; c; c = c->next)
    for (int i = 0; i < PIECES; i++)
      if (c->pieces[i].owner) visit(context, c->pieces[i].owner, c->pieces[i].bytes);
  pthread_mutex_unlock(&m->lock);
}

unic_memory_pool *unic_memory_pool_begin(unic_memory *m) {
  unic_memory_pool *p = unic_new(sizeof *p);
  if (!p) return NULL;
  p->memory = m;
  pthread_mutex_lock(&m->lock);
  m->current = p;
  pthread_mutex_unlock(&m->lock);
  return p;
}

bool unic_block_in_pool(const unic_block *b, const unic_memory_pool *pool) { return b->pool == pool; }

void unic_memory_pool_end(unic_memory *m) {
  pthread_mutex_lock(&m->lock);
  m->current = &m->main;
  pthread_mutex_unlock(&m->lock);
}

void unic_memory_pool_free(unic_memory *m, unic_memory_pool *p) {
  if (!p) return;
  pthread_mutex_lock(&m->lock);
  if (p->live > 0) {
    p->orphan = true;   /* tensors made in the recording are still held: their blocks bring the pool down */
  } else {
    pool_release_slabs(p);
    unic_delete(p);
  }
  pthread_mutex_unlock(&m->lock);
}
