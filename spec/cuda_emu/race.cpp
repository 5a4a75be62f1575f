/* A checker of races, for a build of the kernels with -fsanitize=thread that is linked with this file instead of the sanitizer's own library.
 *
 * It knows CUDA's rules: two accesses of one launch are ordered when one thread makes both, when a __syncthreads of their block lies between, or a
 * __syncwarp of their warp. Shuffles and votes order no memory, blocks are never ordered, and atomics do not conflict with atomics. So it finds a missing
 * barrier even where the order of the threads happened to give the right values. A race ends the launch like every other error.
 *
 * For every unit of memory (1, 2 or 4 bytes: the smallest access that was made to its page) it keeps the last write and two reads by threads that are not
 * ordered; a race with a third one can be missed. Accesses inside of library functions (memcpy of a length that the compiler does not know) are not seen. */
#include "emu.h"

#include <unordered_map>

#include <cstdio>
#include <string>

#include <dlfcn.h>

namespace emu {
namespace {

constexpr uintptr_t PAGE = 4096;
enum { CACHED = 256, MOST_PAGES = 1 << 14, SITES = 1 << 16 };

/* An access; site 0: none. */
struct Access { uint32_t block = 0; uint16_t thread : 15 = 0, atomic : 1 = 0, barriers = 0, syncs = 0, site = 0; };
struct Cell { Access write, read, other_read; };

struct Page {
  uint64_t epoch = 0;   /* the launch, in shared memory the block, that the cells tell of */
  unsigned unit = 4;
  std::vector<Cell> cells;
};

std::unordered_map<uintptr_t, Page> pages;
struct { uintptr_t number; Page *page; } cache[CACHED];
uint64_t launch_seen;
uintptr_t device_from, device_to;   /* the allocation of the last access */

/* Places in the code, numbered as they come. */
std::unordered_map<const void *, uint16_t> site_numbers;
const void *sites[SITES];
unsigned sites_used = 1;
struct { const void *pc; uint16_t number; } site_cache[CACHED];   /* a kernel has few places, and comes back to them millions of times */

uint16_t number_of_site(const void *pc) {
  auto &slot = site_cache[(uintptr_t)pc / 4 % CACHED];
  if (slot.pc == pc) return slot.number;
  uint16_t &n = site_numbers[pc];
  if (!n && sites_used < SITES) {
    sites[sites_used] = pc;
    n = (uint16_t)sites_used++;
  }
  slot = {pc, n ? n : (uint16_t)1};
  return slot.number;
}

/* "kernels/softmax.cu:41", or an offset where nobody can say it. */
std::string place_of(const void *pc) {
  Dl_info object;
  if (!dladdr(pc, &object)) return "?";
  char command[1200], line[512] = "";
  snprintf(command, sizeof command, "addr2line -e '%s' %#zx 2>/dev/null", object.dli_fname, (size_t)((const char *)pc - 1 - (const char *)object.dli_fbase));
  FILE *f = popen(command, "r");
  if (f) {
    if (!fgets(line, sizeof line, f)) line[0] = 0;
    pclose(f);
  }
  line[strcspn(line, " \n")] = 0;   /* without a discriminator */
  if (!line[0] || line[0] == '?') snprintf(line, sizeof line, "%s+%#zx", object.dli_fname, (size_t)((const char *)pc - (const char *)object.dli_fbase));
  const char *kernels = strstr(line, "kernels/"), *spec = strstr(line, "spec/");
  return kernels ? kernels : spec ? spec : line;
}

bool ordered(const Access &a, const Access &b) {
  if (a.block != b.block) return false;
  if (a.thread == b.thread || a.barriers != b.barriers) return true;
  return a.thread / 32 == b.thread / 32 && a.syncs != b.syncs;
}

void check(const Access &before, const char *was, const Access &now_made, const char *is, uintptr_t address) {
  if (!before.site || (before.atomic && now_made.atomic) || ordered(before, now_made)) return;
  die("a race: a %s at %s and a %s at %s, by thread %u of block %u and thread %u of block %u (address %#zx)", was, place_of(sites[before.site]).c_str(), is,
      place_of(sites[now_made.site]).c_str(), (unsigned)before.thread, before.block, (unsigned)now_made.thread, now_made.block, (size_t)address);
}

Page *page_of(uintptr_t number, uint64_t epoch) {
  auto &slot = cache[number % CACHED];
  if (slot.number != number || !slot.page) slot = {number, &pages[number]};
  Page *p = slot.page;
  if (p->epoch != epoch) {
    p->epoch = epoch;
    p->unit = 4;
    p->cells.assign(PAGE / 4, Cell());
  }
  return p;
}

/* What was seen of four bytes was seen of each of them. */
void refine(Page *p, unsigned unit) {
  unsigned times = p->unit / unit;
  p->cells.resize(PAGE / unit);
  for (uintptr_t i = PAGE / p->unit; i-- > 0;)
    for (unsigned j = 0; j < times; j++) p->cells[i * times + j] = p->cells[i];
  p->unit = unit;
}

void access(const volatile void *p, size_t bytes, bool write, bool atomic, const void *pc) {
  if (now.thread < 0) return;
  const uintptr_t at = (uintptr_t)p;
  if (at - (uintptr_t)now.stacks < (uintptr_t)now.room - (uintptr_t)now.stacks) return;   /* a thread's own variables */
  const bool shared = at - (uintptr_t)now.room < (uintptr_t)now.room_end - (uintptr_t)now.room;
  if (launch_seen != now.launches) {
    launch_seen = now.launches;
    device_from = device_to = 0;
    if (pages.size() > MOST_PAGES) {
      pages.clear();
      memset((void *)cache, 0, sizeof cache);
    }
  }
  if (!shared && at - device_from >= device_to - device_from && !device_memory((const void *)p, &device_from, &device_to)) return;   /* arguments, constants */
  const uint64_t epoch = shared ? UINT64_C(1) << 63 | now.blocks : now.launches;
  const uint32_t block = block_index.x + grid_size.x * (block_index.y + grid_size.y * block_index.z);
  Access made;
  made.block = block;
  made.thread = (uint16_t)now.thread & 0x7fff;
  made.atomic = atomic;
  made.barriers = (uint16_t)now.barriers;
  made.syncs = (uint16_t)now.syncs;
  made.site = number_of_site(pc);
  const unsigned unit = (at | bytes) % 4 == 0 ? 4 : (at | bytes) % 2 == 0 ? 2 : 1;
  for (uintptr_t a = at, end = at + bytes; a < end;) {
    Page *page = page_of(a / PAGE, epoch);
    if (unit < page->unit) refine(page, unit);
    uintptr_t stop = (a / PAGE + 1) * PAGE;
    if (stop > end) stop = end;
    for (; a < stop; a += page->unit) {
      Cell &c = page->cells[a % PAGE / page->unit];
      check(c.write, "write", made, write ? "write" : "read", a);
      if (write) {
        check(c.read, "read", made, "write", a);
        check(c.other_read, "read", made, "write", a);
        c.write = made;
        c.read = c.other_read = Access();
      } else if (!c.read.site || ordered(c.read, made)) {
        c.read = made;
      } else if (!c.other_read.site || ordered(c.other_read, made)) {
        c.other_read = made;
      }
    }
  }
}

}

void seen(const void *p, size_t bytes, bool write) { access(p, bytes, write, false, __builtin_return_address(0)); }

}

/* ---------------------------------------------------------------- what the compiler calls */

#define PC __builtin_return_address(0)
#define PLAIN(n)                                                                          \
  void __tsan_read##n(void *p) { emu::access(p, n, false, false, PC); }                   \
  void __tsan_write##n(void *p) { emu::access(p, n, true, false, PC); }                   \
  void __tsan_unaligned_read##n(void *p) { emu::access(p, n, false, false, PC); }         \
  void __tsan_unaligned_write##n(void *p) { emu::access(p, n, true, false, PC); }         \
  void __tsan_volatile_read##n(void *p) { emu::access(p, n, false, false, PC); }          \
  void __tsan_volatile_write##n(void *p) { emu::access(p, n, true, false, PC); }
#define ATOMIC(bits, T)                                                                   \
  T __tsan_atomic##bits##_load(const volatile T *p, int) {                                \
    emu::access(p, sizeof(T), false, true, PC);                                           \
    return *p;                                                                            \
  }                                                                                       \
  int __tsan_atomic##bits##_compare_exchange_strong(volatile T *p, T *old, T v, int, int) { \
    emu::access(p, sizeof(T), true, true, PC);                                            \
    if (*p != *old) {                                                                     \
      *old = *p;                                                                          \
      return 0;                                                                           \
    }                                                                                     \
    *p = v;                                                                               \
    return 1;                                                                             \
  }

#pragma GCC diagnostic ignored "-Wmissing-declarations"
extern "C" {
PLAIN(1) PLAIN(2) PLAIN(4) PLAIN(8) PLAIN(16)
ATOMIC(32, uint32_t) ATOMIC(64, uint64_t)
void __tsan_read_range(void *p, size_t n) { emu::access(p, n, false, false, PC); }
void __tsan_write_range(void *p, size_t n) { emu::access(p, n, true, false, PC); }
void __tsan_init(void) {}
void __tsan_func_entry(void *) {}
void __tsan_func_exit(void) {}
void __tsan_vptr_update(void **, void *) {}
void __tsan_vptr_read(void **) {}
}
