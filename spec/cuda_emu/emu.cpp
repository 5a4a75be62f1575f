/* Runs kernels: fibers, the scheduler of a block, shared memory, faults.
 *
 * A thread that never waits shares its fiber with the next one, so that a kernel without barriers costs little more than a loop. A thread that waits
 * keeps its fiber and hands over to the next thread that can go on, without a detour. Everything is of one operating-system thread at a time: the
 * emulated runtime (cudart.cpp) holds its lock while a queue runs. x86-64 only: the switch of stacks, and the way out of a fault.
 * A little over 500 lines: a block's scheduler and what its threads wait for are one machine. */
#include "emu.h"

#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <string>

#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define ASAN 1
#else
#define ASAN 0
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)0)
#endif

/* Saves the running context's registers on its stack and its stack in *from, and goes on with `to`. */
extern "C" void unic_emu_switch(void **from, void *to);
extern "C" void unic_emu_resume(void *to);
asm(R"(
  .text
  .p2align 4
  .hidden unic_emu_switch
  .globl unic_emu_switch
unic_emu_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rdi
  .hidden unic_emu_resume
  .globl unic_emu_resume
unic_emu_resume:
  mov %rdi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");

namespace emu {

uint3 thread_index, block_index;
dim3 block_size, grid_size;
int lane;
Now now;

namespace {

enum { THREADS = 1024, WARPS = THREADS / 32, SHARED_ARRAYS = 64 };
constexpr size_t STACK = 256 << 10, PAGE = 4096;
constexpr size_t SHARED_STATIC = 48 << 10, SHARED_ROOM = 256 << 10;   /* room: static arrays at their odd places, dynamic memory behind */

struct Fiber {
  void *context = nullptr;   /* where it stands, while another one runs */
  char *stack = nullptr;
  void *asan = nullptr;
  Copies copies;
};

struct Thread {
  Fiber *fiber;   /* NULL: it has not begun */
  uint3 index;
  unsigned syncs;
};

/* Lanes that wait for each other. */
struct Meeting { unsigned mask, here; meet_fn *finish; };

struct Warp {
  unsigned live, ready, waiting;   /* lanes: not yet at their end; that can go on; at the block's barrier */
  Meeting meetings[32];
  int meetings_used;
  void *requests[32];
};

/* ---------------------------------------------------------------- state of the one launch that runs */

const Launch *launched;
Fiber fibers[THREADS], *spare[THREADS], *running;
int fibers_made, spares;
char *stacks;   /* of all fibers, each behind a page that nobody may touch */
void *main_context;
#if ASAN
const void *main_stack;
size_t main_stack_bytes;
void *main_asan;
bool from_main;

/* The sanitizer learns on which stack we are, and tells where we came from. */
void arrive(void *asan) {
  const void *left;
  size_t bytes;
  __sanitizer_finish_switch_fiber(asan, &left, &bytes);
  if (!from_main) return;
  from_main = false;
  main_stack = left;
  main_stack_bytes = bytes;
}
#endif

Thread threads[THREADS];
Warp warps[WARPS];
unsigned ready_warps;
int current = -1;                  /* the thread that runs; -1: none */
int live, arrived, votes, verdict; /* threads not at their end; at the barrier; of those with a true value; what the last barrier came to */
bool failed;

struct Array { const void *key; unsigned char *at; };
Array arrays[SHARED_ARRAYS];
int arrays_used;
size_t static_used;
unsigned char *room, *dynamic_at;

/* ---------------------------------------------------------------- order */

enum class Order { forward, reverse, random };
Order order;
uint64_t seed;

void choose_order(void) {
  const char *text = getenv("EMU_ORDER"), *number = getenv("EMU_SEED");
  order = !text ? Order::forward : !strcmp(text, "reverse") ? Order::reverse : !strcmp(text, "random") ? Order::random : Order::forward;
  seed = (number ? strtoull(number, nullptr, 10) : 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
}

unsigned random_below(unsigned n) {
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return (unsigned)((seed >> 32) * n >> 32);
}

/* The place of one set bit. */
int pick_bit(unsigned bits) {
  if (order == Order::forward) return std::countr_zero(bits);
  if (order == Order::reverse) return 31 - std::countl_zero(bits);
  for (unsigned k = random_below((unsigned)std::popcount(bits)); k; k--) bits &= bits - 1;
  return std::countr_zero(bits);
}

void make_ready(int warp, unsigned lanes) {
  warps[warp].ready |= lanes;
  ready_warps |= 1u << warp;
}

/* The next thread that can go on, taken off the ready ones; -1: none can. */
int next_thread(void) {
  if (!ready_warps) {
    if (live == 0 || arrived != live) return -1;
    /* Everyone is at the barrier: those at their end count as there, as on the GPU. */
    for (int w = 0; w < WARPS; w++)
      if (warps[w].waiting) {
        make_ready(w, warps[w].waiting);
        warps[w].waiting = 0;
      }
    now.barriers++;
    verdict = votes;
    arrived = votes = 0;
  }
  int w = pick_bit(ready_warps), l = pick_bit(warps[w].ready);
  warps[w].ready &= ~(1u << l);
  if (!warps[w].ready) ready_warps &= ~(1u << w);
  return 32 * w + l;
}

/* ---------------------------------------------------------------- fibers */

void enter(int thread) {
  current = thread;
  thread_index = threads[thread].index;
  lane = thread & 31;
  now.thread = thread;
  now.syncs = threads[thread].syncs;
}

/* Leave `from` (NULL: the main stack) for `to` (NULL: the main stack). */
void change(Fiber *from, Fiber *to) {
  running = to;
#if ASAN
  from_main = !from;
  __sanitizer_start_switch_fiber(from ? &from->asan : &main_asan, to ? to->stack : main_stack, to ? STACK : main_stack_bytes);
#endif
  unic_emu_switch(from ? &from->context : &main_context, to ? to->context : main_context);
#if ASAN
  arrive(from ? from->asan : main_asan);
#endif
}

[[noreturn]] void fiber_main(void);

void prepare(Fiber *f) {
  /* Not all stacks begin at the same place of a page, or they would share a few lines of the cache. */
  void **top = reinterpret_cast<void **>(f->stack + STACK - 64 - (f - fibers) % 61 * 64);
  *--top = nullptr;                                  /* where fiber_main would return to */
  *--top = reinterpret_cast<void *>(&fiber_main);
  for (int i = 0; i < 6; i++) *--top = nullptr;
  f->context = top;
  f->copies.waiting.clear();
}

Fiber *take_fiber(void) {
  if (spares) return spare[--spares];
  Fiber *f = &fibers[fibers_made];
  if (!f->stack) {
    char *guard = stacks + (size_t)fibers_made * (STACK + PAGE);   /* a thread that needs more than STACK faults there */
    mprotect(guard, PAGE, PROT_NONE);
    f->stack = guard + PAGE;
  }
  fibers_made++;
  prepare(f);
  return f;
}

/* Hand over to a thread from the fiber of another one that waits. */
void hand_over(Fiber *from, int thread) {
  enter(thread);
  Fiber *to = threads[thread].fiber;
  if (!to) to = threads[thread].fiber = take_fiber();
  if (to != from) change(from, to);
}

void check_exit(void) {
  Fiber *f = running;
  if (!f->copies.waiting.empty()) die("it ends with copies that unic_copy_wait never waited for");
  f->copies.group = 0;
  Warp &w = warps[current >> 5];
  unsigned bit = 1u << lane;
  for (int i = 0; i < w.meetings_used; i++)
    if (w.meetings[i].mask & bit) die("it ends while lanes of its warp wait for it in an operation with the mask %08x", w.meetings[i].mask);
  w.live &= ~bit;
  live--;
}

[[noreturn]] void stuck(void) {
  int in_warps = 0;
  for (const Warp &w : warps)
    for (int i = 0; i < w.meetings_used; i++) in_warps += std::popcount(w.meetings[i].here);
  die("%d threads wait for ever: %d at __syncthreads, %d in operations of their warps", live, arrived, in_warps);
}

void fiber_main(void) {
#if ASAN
  arrive(nullptr);
#endif
  for (;;) {
    launched->thread();
    check_exit();
    int next = next_thread();
    if (next < 0 && live) stuck();
    Fiber *me = running;
    if (next >= 0 && !threads[next].fiber) {
      enter(next);
      threads[next].fiber = me;
      continue;
    }
    spare[spares++] = me;
    if (next < 0) change(me, nullptr);
    else hand_over(me, next);
  }
}

/* The running thread waits; returns when it is chosen again. */
void wait(void) {
  int me = current;
  Fiber *mine = running;
  int next = next_thread();
  if (next < 0) stuck();
  if (next != me) hand_over(mine, next);
}

/* ---------------------------------------------------------------- failures */

void note_failure(const char *text) {
  uint3 t = current >= 0 ? threads[current].index : uint3{0, 0, 0};
  fail("kernel %s, block (%u, %u, %u), thread (%u, %u, %u): %s", launched->name, block_index.x, block_index.y, block_index.z, t.x, t.y, t.z, text);
  failed = true;
}

/* Leave the launch as it stands: no fiber of it goes on. */
void forget_fibers(void) {
  fibers_made = spares = 0;
  for (Fiber &f : fibers) {
#if ASAN
    if (f.stack) __asan_unpoison_memory_region(f.stack, STACK);
#endif
    f.copies = Copies();
  }
}

/* Faults of a kernel become its error. Sanitizers have handlers of their own, which tell more. */
#if !ASAN
const int signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
struct sigaction before[4];

void on_fault(int number, siginfo_t *info, void *context) {
  if (!running) {
    /* Not a kernel's: as if this handler had never been there. */
    for (int i = 0; i < 4; i++)
      if (signals[i] == number) sigaction(number, &before[i], nullptr);
    return;
  }
  char text[128];
  uintptr_t at = (uintptr_t)info->si_addr, guard = (uintptr_t)running->stack - PAGE;
  if (number == SIGFPE) snprintf(text, sizeof text, "an integer is divided by zero");
  else if (number == SIGILL) snprintf(text, sizeof text, "it comes to where no program goes (a trap, or the end of a function that answers nothing)");
  else if (at - guard < PAGE) snprintf(text, sizeof text, "its local variables need more than %zu KiB", STACK >> 10);
  else if (info->si_code == SI_KERNEL) snprintf(text, sizeof text, "a misaligned access, or one to an address that cannot be");
  else snprintf(text, sizeof text, "an access to %p, where there is no memory that it may use so", info->si_addr);
  note_failure(text);
  greg_t *registers = static_cast<ucontext_t *>(context)->uc_mcontext.gregs;
  running = nullptr;
  registers[REG_RDI] = (greg_t)main_context;
  registers[REG_RIP] = (greg_t)&unic_emu_resume;
}

void catch_faults(bool on) {
  static thread_local char *alternate;
  if (on && !alternate) {
    alternate = static_cast<char *>(malloc(64 << 10));
    stack_t s = {};
    s.ss_sp = alternate;
    s.ss_size = 64 << 10;
    sigaltstack(&s, nullptr);
  }
  struct sigaction mine = {};
  mine.sa_sigaction = on_fault;
  mine.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  for (int i = 0; i < 4; i++) {
    if (on) sigaction(signals[i], &mine, &before[i]);
    else sigaction(signals[i], &before[i], nullptr);
  }
}
#else
void catch_faults(bool) {}
#endif

/* ---------------------------------------------------------------- blocks */

void run_block(int n) {
  arrays_used = 0;
  static_used = 0;
  if (launched->shared) memset(dynamic_at, 0xff, launched->shared);
  ASAN_POISON_MEMORY_REGION(room, dynamic_at - room);
  ready_warps = 0;
  for (int w = 0; w < (n + 31) / 32; w++) {
    Warp &warp = warps[w];
    int lanes = n - 32 * w;
    warp.live = lanes >= 32 ? ~0u : (1u << lanes) - 1;
    warp.waiting = 0;
    warp.meetings_used = 0;
    make_ready(w, warp.live);
  }
  for (int t = 0; t < n; t++) threads[t].fiber = nullptr, threads[t].syncs = 0;
  now.blocks++;
  now.barriers = 0;
  live = n;
  arrived = votes = 0;
  hand_over(nullptr, next_thread());
  current = now.thread = -1;
}

}

void die(const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (!running) {
    fprintf(stderr, "cuda-emu: outside of a kernel: %s\n", text);
    abort();
  }
  note_failure(text);
  running = nullptr;
#if ASAN
  __sanitizer_start_switch_fiber(nullptr, main_stack, main_stack_bytes);
#endif
  unic_emu_resume(main_context);
  __builtin_unreachable();
}

bool Launch::run() {
  if (dry()) return true;
  static bool chosen;
  if (!chosen) {
    choose_order();
    void *both = mmap(nullptr, THREADS * (STACK + PAGE) + SHARED_ROOM + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (both == MAP_FAILED) return fail("the system gives no memory for the stacks of threads");
    stacks = static_cast<char *>(both);
    room = static_cast<unsigned char *>(both) + THREADS * (STACK + PAGE);
    mprotect(room + SHARED_ROOM, PAGE, PROT_NONE);
    now.stacks = stacks;
    now.room = room;
    now.room_end = room + SHARED_ROOM;
    chosen = true;
  }
  launched = this;
  failed = false;
  now.launches++;
  grid_size = grid;
  block_size = block;
  /* The dynamic memory ends where the room ends, so that what runs over faults; its start is aligned as the GPU's. */
  dynamic_at = room + ((SHARED_ROOM - shared) & ~(size_t)1023);
  ASAN_POISON_MEMORY_REGION(room, SHARED_ROOM);
  ASAN_UNPOISON_MEMORY_REGION(dynamic_at, shared);
  int n = (int)(block.x * block.y * block.z);
  for (int t = 0; t < n; t++) threads[t].index = uint3{t % block.x, t / block.x % block.y, t / block.x / block.y};
  for (Warp &w : warps) w = Warp();
  catch_faults(true);
  uint64_t blocks = (uint64_t)grid.x * grid.y * grid.z, first = seed % blocks;
  for (uint64_t i = 0; i < blocks && !failed; i++) {
    /* Random: every block once, in steps of a prime that does not divide their number. */
    uint64_t b = order == Order::forward ? i : order == Order::reverse ? blocks - 1 - i : (i * (blocks % 7919 ? 7919 : 7907) + first) % blocks;
    block_index = uint3{(unsigned)(b % grid.x), (unsigned)(b / grid.x % grid.y), (unsigned)(b / grid.x / grid.y)};
    run_block(n);
  }
  catch_faults(false);
  running = nullptr;
  current = now.thread = -1;
  ASAN_UNPOISON_MEMORY_REGION(room, SHARED_ROOM);
  if (failed) forget_fibers();
  return !failed;
}

/* ---------------------------------------------------------------- what kernels call */

int barrier(bool value) {
  Warp &w = warps[current >> 5];
  w.waiting |= 1u << lane;
  arrived++;
  votes += value;
  wait();
  return verdict;
}

void meet(unsigned mask, void *request, meet_fn *finish) {
  Warp &w = warps[current >> 5];
  unsigned bit = 1u << lane;
  if (!(mask & bit)) die("its own lane %d is not in the mask %08x of a warp operation", lane, mask);
  if (mask & ~w.live) die("the mask %08x of a warp operation names lanes that are at their end or never were (%08x are there)", mask, w.live);
  Meeting *m = nullptr;
  for (int i = 0; i < w.meetings_used; i++) {
    Meeting *other = &w.meetings[i];
    if (other->mask == mask) m = other;
    else if (other->mask & mask) die("lanes of one warp meet with different masks, %08x and %08x", other->mask, mask);
  }
  if (m && m->finish != finish) die("lanes of one warp meet in different operations, mask %08x", mask);
  if (!m) {
    m = &w.meetings[w.meetings_used++];
    *m = Meeting{mask, 0, finish};
  }
  m->here |= bit;
  w.requests[lane] = request;
  if (m->here != mask) {
    wait();
    return;
  }
  if (finish) finish(w.requests, mask);
  *m = w.meetings[--w.meetings_used];
  unsigned others = mask & ~bit;
  if (others) make_ready(current >> 5, others);
  if (order == Order::random) {   /* the last one to come need not be the first one to go on */
    make_ready(current >> 5, bit);
    wait();
  }
}

void sync_warp(unsigned mask) {
  meet(mask, nullptr, nullptr);
  now.syncs = ++threads[current].syncs;
}

void *shared_array(const void *key, size_t bytes, size_t alignment, const char *name) {
  for (int i = 0; i < arrays_used; i++)
    if (arrays[i].key == key) return arrays[i].at;
  if (arrays_used == SHARED_ARRAYS) die("more than %d shared arrays", SHARED_ARRAYS);
  if (static_used + bytes > SHARED_STATIC) die("with %s static shared memory is %zu bytes, more than %zu", name, static_used + bytes, SHARED_STATIC);
  /* As far from a larger alignment as it may be, and apart from its neighbours. */
  unsigned char *end = arrays_used ? arrays[arrays_used - 1].at : room;
  static size_t last_bytes;
  if (arrays_used) end += last_bytes;
  uintptr_t at = ((uintptr_t)end + 63 + 2 * alignment) / (2 * alignment) * (2 * alignment) + alignment;
  last_bytes = bytes;
  static_used += bytes;
  arrays[arrays_used++] = Array{key, reinterpret_cast<unsigned char *>(at)};
  ASAN_UNPOISON_MEMORY_REGION((void *)at, bytes);
  memset((void *)at, 0xff, bytes);
  return (void *)at;
}

unsigned char *dynamic_shared(void) { return dynamic_at; }

uint32_t shared_address(const void *p, size_t bytes) {
  size_t at = (size_t)(static_cast<const unsigned char *>(p) - room);
  if (at + bytes > SHARED_ROOM || at > SHARED_ROOM) die("%p is not in shared memory", p);
  return (uint32_t)at;
}

Copies &copies(void) { return running->copies; }

}
