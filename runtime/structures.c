/* Host structures (headers, nodes), and the fault injection that they share with the arenas. */
#include "structures.h"
#include "memory.h"

#include <malloc.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#ifndef UNIC_ARENA_BYPASS
#define UNIC_ARENA_BYPASS 0
#endif

/* ---------------------------------------------------------------- fault injection */

static int64_t fail_countdown, fail_times, fail_counted;
static pthread_mutex_t fail_lock = PTHREAD_MUTEX_INITIALIZER;
static bool fail_armed;

static bool armed(void) { return __atomic_load_n(&fail_armed, __ATOMIC_RELAXED); }

bool unic_allocation_fails(void) {
  if (!armed()) return false;
  pthread_mutex_lock(&fail_lock);
  fail_counted++;
  bool fail = fail_countdown > 0 ? --fail_countdown == 0 : fail_times > 0;
  if (fail) fail_times--;
  pthread_mutex_unlock(&fail_lock);
  return fail;
}

int64_t unic_memory_fail_after(int64_t n, int64_t times) {
  pthread_mutex_lock(&fail_lock);
  int64_t counted = fail_counted;
  fail_counted = 0;
  fail_countdown = n > 0 ? n : 0;
  fail_times = n > 0 ? times : 0;
  __atomic_store_n(&fail_armed, n != 0, __ATOMIC_RELAXED);   /* negative: count without failing */
  pthread_mutex_unlock(&fail_lock);
  return counted;
}

/* ---------------------------------------------------------------- host structures */

/* A call makes and drops a handful of structures (tensor, storage, node), and a collection drops thousands of them at once, more than malloc keeps
 * at hand: from its lists they cost several times as much. So the thread that loaded the module, which runs the calls, keeps what it deleted, by
 * size; other threads make few. (Lists of each thread's own would want a thread-local variable, which a module loaded late reads by a call.) */
enum { SPARE_UNIT = UNIC_BESIDE, SPARE_SIZES = 24, SPARE_BYTES = 1 << 21 };   /* structures of up to 1.5 KB, 2 MB of each size */

typedef struct spare_block { struct spare_block *next; } spare_block;
static struct { spare_block *first; int64_t bytes; } spares[SPARE_SIZES + 1];
static void *call_thread;

/* What tells threads apart. pthread_self reads the same register, but by a call, of which an op would do ten. */
static inline void *this_thread(void) {
#if defined(__x86_64__) && __has_builtin(__builtin_thread_pointer)
  return __builtin_thread_pointer();
#else
  return (void *)(uintptr_t)pthread_self();
#endif
}

__attribute__((constructor)) static void spares_begin(void) { call_thread = this_thread(); }

bool unic_on_call_thread(void) { return this_thread() == call_thread; }
static bool has_spares(void) { return !UNIC_ARENA_BYPASS && unic_on_call_thread(); }

void *unic_new(size_t bytes) {
  void *p = NULL;
  if (__builtin_expect(!armed() || !unic_allocation_fails(), 1)) {
    const size_t size = (bytes + SPARE_UNIT - 1) / SPARE_UNIT;
    if (size > SPARE_SIZES || !has_spares()) {
      p = calloc(1, size > SPARE_SIZES ? bytes : size * SPARE_UNIT);   /* whole units: it may end up among the spares */
    } else {
      spare_block *s = spares[size].first;
      if (s) {
        spares[size].first = s->next;
        __builtin_prefetch(s->next, 1);   /* the next call's: a list that a collection has filled is long out of the nearest cache */
        spares[size].bytes -= (int64_t)(size * SPARE_UNIT);
        p = s;
      } else {
        p = aligned_alloc(SPARE_UNIT, size * SPARE_UNIT);
      }
      if (p) memset(p, 0, size * SPARE_UNIT);
    }
  }
  if (!p) unic_fail_memory("[memory] no host memory for a structure of %zu bytes", bytes);
  return p;
}

static void spare(void *p, size_t size) {   /* in units */
  if (size == 0 || size > SPARE_SIZES || spares[size].bytes >= SPARE_BYTES || (uintptr_t)p % SPARE_UNIT) {   /* the last: another thread's */
    free(p);
    return;
  }
  spare_block *s = p;
  s->next = spares[size].first;
  spares[size].first = s;
  spares[size].bytes += (int64_t)(size * SPARE_UNIT);
}

void unic_delete(void *p) {
  if (p) spare(p, has_spares() ? malloc_usable_size(p) / SPARE_UNIT : 0);
}

void unic_delete_sized(void *p, size_t bytes) { spare(p, has_spares() ? (bytes + SPARE_UNIT - 1) / SPARE_UNIT : 0); }
