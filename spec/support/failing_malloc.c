/* LD_PRELOADed by spec/check/alloc.lua: knows the C library's allocations that unic.so asked for, and only those; counts what is left of them
 * and makes them fail. What libpng, oneDNN, OpenMP or LuaJIT ask for goes through. */
#define _GNU_SOURCE
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *p, size_t bytes);
void __libc_free(void *p);

/* BLOCK: size of the arena's block headers (runtime/memory.c). How many free pieces the arena lies in differs from time to time; blocks that are
 * lost show in unic.memory(). */
enum { ROOM = 1 << 18, BLOCK = 80 };
static struct { void *p; size_t bytes; } live[ROOM];   /* open addressing */
static int64_t live_bytes;
static char lock;

static uintptr_t low, high;                            /* unic.so's code */
static int64_t first, last, counted;                   /* allocations first..last fail */

static void enter(void) { while (__atomic_test_and_set(&lock, __ATOMIC_ACQUIRE)) { } }
static void leave(void) { __atomic_clear(&lock, __ATOMIC_RELEASE); }
static size_t place(const void *p) { return ((uintptr_t)p >> 4) * 0x9E3779B97F4A7C15u >> 46; }

static void *note(void *p, size_t bytes) {
  if (!p || bytes == BLOCK) return p;
  enter();
  size_t i = place(p);
  while (live[i].p) i = (i + 1) % ROOM;
  live[i].p = p;
  live[i].bytes = bytes;
  live_bytes += (int64_t)bytes;
  leave();
  return p;
}

static void forget(const void *p) {
  enter();
  size_t i = place(p);
  while (live[i].p && live[i].p != p) i = (i + 1) % ROOM;
  if (live[i].p) {
    live_bytes -= (int64_t)live[i].bytes;
    for (size_t j = (i + 1) % ROOM; live[j].p; j = (j + 1) % ROOM) {   /* what was pushed past the gap moves up */
      if ((j - place(live[j].p)) % ROOM < (j - i) % ROOM) continue;
      live[i] = live[j];
      i = j;
    }
    live[i].p = NULL;
  }
  leave();
}

static int find(struct dl_phdr_info *info, size_t size, void *context) {
  (void)size;
  (void)context;
  const char *name = strrchr(info->dlpi_name, '/');
  if (!name || strcmp(name, "/unic.so") != 0) return 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    if (info->dlpi_phdr[i].p_type != PT_LOAD || !(info->dlpi_phdr[i].p_flags & PF_X)) continue;
    low = info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
    high = low + info->dlpi_phdr[i].p_memsz;
  }
  return 1;
}

/* Allocations n to n + times - 1 from now fail; n = 0 switches it off. Returns how many there were since the last call. The first call begins to
 * keep account. */
int64_t failing_malloc_after(int64_t n, int64_t times) {
  if (!high) dl_iterate_phdr(find, NULL);
  int64_t was = __atomic_exchange_n(&counted, 0, __ATOMIC_SEQ_CST);
  first = n;
  last = n ? n + times - 1 : 0;
  return was;
}

int64_t failing_malloc_live(void) { return live_bytes; }

static bool ours(const void *caller) { return (uintptr_t)caller >= low && (uintptr_t)caller < high; }

static bool should_fail(void) {
  int64_t at = __atomic_add_fetch(&counted, 1, __ATOMIC_SEQ_CST);
  return at >= first && at <= last;
}

void *malloc(size_t bytes) {
  if (!ours(__builtin_return_address(0))) return __libc_malloc(bytes);
  return should_fail() ? NULL : note(__libc_malloc(bytes), bytes);
}

void *calloc(size_t n, size_t bytes) {
  if (!ours(__builtin_return_address(0))) return __libc_calloc(n, bytes);
  return should_fail() ? NULL : note(__libc_calloc(n, bytes), n * bytes);
}

void *realloc(void *p, size_t bytes) {
  if (!ours(__builtin_return_address(0))) return __libc_realloc(p, bytes);
  if (should_fail()) return NULL;
  if (p) forget(p);
  return note(__libc_realloc(p, bytes), bytes);
}

char *strdup(const char *text) {
  size_t bytes = strlen(text) + 1;
  bool mine = ours(__builtin_return_address(0));
  char *copy = mine && should_fail() ? NULL : __libc_malloc(bytes);
  if (mine) note(copy, bytes);
  return copy ? memcpy(copy, text, bytes) : NULL;
}

void free(void *p) {
  if (p && high) forget(p);
  __libc_free(p);
}
