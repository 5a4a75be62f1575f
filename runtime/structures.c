/* Host structures (headers, nodes), and the fault injection that they share with the arenas. */
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

bool unic_allocation_fails(void) {
  if (!__atomic_load_n(&fail_armed, __ATOMIC_RELAXED)) return false;
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
enum { SPARE_UNIT = 64, SPARE_SIZES = 24, SPARE_BYTES = 1 << 21 };   /* structures of up to 1.5 KB, 2 MB of each size */

typedef struct spare { struct spare *next; } spare;
static struct { spare *first; int64_t bytes; } spares[SPARE_SIZES + 1];
static pthread_t spares_thread;
static bool spares_on;

__attribute__((constructor)) static void spares_begin(void) {
  spares_thread = pthread_self();
  spares_on = !UNIC_ARENA_BYPASS;
}

static bool has_spares(void) { return spares_on && pthread_equal(pthread_self(), spares_thread); }

void *unic_new(size_t bytes) {
  void *p = NULL;
  if (__builtin_expect(!unic_allocation_fails(), 1)) {
    const size_t size = (bytes + SPARE_UNIT - 1) / SPARE_UNIT;
    if (size > SPARE_SIZES || !has_spares()) {
      p = calloc(1, bytes);
    } else {
      spare *s = spares[size].first;
      if (s) {
        spares[size].first = s->next;
        spares[size].bytes -= (int64_t)(size * SPARE_UNIT);
        p = s;
      } else {
        p = malloc(size * SPARE_UNIT);
      }
      if (p) memset(p, 0, size * SPARE_UNIT);
    }
  }
  if (!p) unic_fail_memory("[memory] no host memory for a structure of %zu bytes", bytes);
  return p;
}

void unic_delete(void *p) {
  if (!p) return;
  const size_t size = has_spares() ? malloc_usable_size(p) / SPARE_UNIT : 0;
  if (size == 0 || size > SPARE_SIZES || spares[size].bytes >= SPARE_BYTES) {
    free(p);
    return;
  }
  spare *s = p;
  s->next = spares[size].first;
  spares[size].first = s;
  spares[size].bytes += (int64_t)(size * SPARE_UNIT);
}
