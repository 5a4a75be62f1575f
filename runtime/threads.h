/* Compute threads: one OpenMP team, entered from the Lua thread only.
 *
 * Work is cut into fixed chunks of the data, never by the number of threads, so that a kernel which keeps one partial sum per chunk gives
 * the same bits at any thread count. */
#ifndef UNIC_THREADS_H
#define UNIC_THREADS_H

#include <stdint.h>

/* A piece of work: elements [begin, end) of whatever `context` describes. */
typedef void unic_body(void *context, int64_t begin, int64_t end);

/* Call body once for every chunk [k*chunk, min((k+1)*chunk, n)), k = 0, 1, ..., spread over the team. One chunk (or one thread, or a call
 * from inside a team) runs in place. Chunks are dealt out statically, so that repeated passes over the same data hit the same caches. */
void unic_parallel_for(int64_t n, int64_t chunk, unic_body *body, void *context);

/* The team's size; the number set by unic_threads_set, UNIC_THREADS, or the processors this process may run on. */
int unic_threads(void);
void unic_threads_set(int n);
/* The caller's index in the team, 0 outside of one. For per-thread scratch. */
int unic_thread_index(void);

#endif
