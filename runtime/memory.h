/* Device memory: one arena per device that never gives memory back, a budget, and counters.
 *
 * Best fit with coalescing over a large reserved mapping. Reuse is stream-ordered: a block freed while queued work still reads it may be
 * handed out again, because whoever gets it can only touch it through the same queue. Block headers live outside the arena, so that it can
 * stand for memory the CPU cannot read. */
#ifndef UNIC_MEMORY_H
#define UNIC_MEMORY_H

#include "status.h"
#include <stddef.h>

typedef struct unic_memory unic_memory;
typedef struct unic_block unic_block;
struct unic_device;

typedef struct unic_memory_stats {
  int64_t active;       /* bytes handed out now */
  int64_t peak;         /* largest `active` since unic_memory_peak_reset */
  int64_t cached;       /* bytes taken from the system and not handed out */
  int64_t budget;       /* what `active` may not exceed */
  int64_t fresh;        /* bytes handed out since the last garbage collection (unic_memory_settle) that are not back */
  int64_t debt;         /* those of them that Lua alone holds (unic_memory_owe): what a collection can give back */
  int64_t settled;      /* `active` right after the last garbage collection */
  int64_t allocations;  /* number of blocks handed out since the start */
  int64_t blocks;       /* number of blocks handed out now */
} unic_memory_stats;

/* A new arena for a device; budget in bytes. NULL when even the header cannot be had. */
unic_memory *unic_memory_new(struct unic_device *device, int64_t budget);
void unic_memory_free(unic_memory *m);

/* A block of at least `bytes` (64-byte aligned, contents undefined), or NULL with UNIC_MEMORY's sentence. `owner` is what the out-of-memory report
 * lists. Zero bytes give a block too. */
unic_block *unic_memory_take(unic_memory *m, int64_t bytes, void *owner);
void unic_memory_give(unic_block *b);
/* Blocks taken from here on will be there for long (gradients, state of optimisers) and are kept apart from the others; returns what it was. */
bool unic_memory_lasting(bool on);
/* A few bytes need no block: they lie in the structure that owns them, behind its own (unic_new gives lines of UNIC_BESIDE bytes). Whether that is
 * possible now: the calls' thread, memory that the CPU reads, no recording. If so they are counted as a block of that size until unic_memory_gone. */
enum { UNIC_BESIDE = 64 };
bool unic_memory_beside(unic_memory *m, int64_t bytes);
void unic_memory_gone(unic_memory *m);
void *unic_block_data(const unic_block *b);
int64_t unic_block_bytes(const unic_block *b);

unic_memory_stats unic_memory_read(unic_memory *m);
void unic_memory_peak_reset(unic_memory *m);
/* A block is held by Lua's handles alone from now on, or no longer: it counts as debt, or does not. Small blocks never do: what Lua holds beside them
 * is of their size, and paces the collector. */
void unic_memory_owe(unic_block *b);
void unic_memory_paid(unic_block *b);
/* The door has collected garbage: debt starts again from here. */
void unic_memory_settle(unic_memory *m);
void unic_memory_budget_set(unic_memory *m, int64_t bytes);
/* Called with every live block's owner and size. */
void unic_memory_each(unic_memory *m, void (*visit)(void *context, void *owner, int64_t bytes), void *context);

/* Private pools for recorded steps (replay.h): between begin and end, blocks come from a pool of their own and go back to it, so that the
 * addresses a recording holds stay its own until unic_memory_pool_free. */
typedef struct unic_memory_pool unic_memory_pool;
unic_memory_pool *unic_memory_pool_begin(unic_memory *m);
void unic_memory_pool_end(unic_memory *m);
bool unic_block_in_pool(const unic_block *b, const unic_memory_pool *pool);
void unic_memory_pool_free(unic_memory *m, unic_memory_pool *pool);

/* The bytes a process may use here: the lower of cgroup limit and available memory, less 1 GB; UNIC_MEMORY overrides ("4G", "800M"). */
int64_t unic_memory_budget_host(void);

/* Host structures (headers, nodes), zeroed, under the same fault injection; on the thread that runs the calls they begin at a line of UNIC_BESIDE bytes. */
void *unic_new(size_t bytes);
void unic_delete(void *p);
/* Whether this is the thread that loaded the module, which runs the calls. */
bool unic_on_call_thread(void);
/* For the arenas: is this allocation to fail? */
bool unic_allocation_fails(void);

/* Fault injection: the n-th allocation from now (arena blocks and unic_new alike, n >= 1) and the times - 1 after it fail; n = 0 switches it off.
 * A block is asked for twice, with a collection in between: only two failures in a row are one for the caller. Returns the number of allocations
 * counted since the last call. */
int64_t unic_memory_fail_after(int64_t n, int64_t times);

#endif
