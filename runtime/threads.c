/* unic_parallel_for over OpenMP's team. */
#define _GNU_SOURCE
#include "threads.h"

#include <omp.h>
#include <sched.h>
#include <stdlib.h>

static int team;

int unic_threads(void) {
  if (team == 0) {
    const char *text = getenv("UNIC_THREADS");
    int n = text ? atoi(text) : 0;
    if (n <= 0) {
      cpu_set_t set;
      n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    }
    unic_threads_set(n);
  }
  return team;
}

void unic_threads_set(int n) {
  team = n < 1 ? 1 : n;
  omp_set_num_threads(team);   /* oneDNN sizes its own regions by this too */
}

int unic_thread_index(void) { return omp_get_thread_num(); }

void unic_parallel_for(int64_t n, int64_t chunk, unic_body *body, void *context) {
  if (n <= 0) return;
  if (chunk < 1) chunk = 1;
  if (n <= chunk) {   /* of one chunk there is nothing to share out */
    body(context, 0, n);
    return;
  }
  int64_t chunks = (n + chunk - 1) / chunk;
  int threads = unic_threads();
  if (chunks < threads) threads = (int)chunks;
  if (threads == 1 || omp_in_parallel()) {
    for (int64_t begin = 0; begin < n; begin += chunk) body(context, begin, begin + chunk < n ? begin + chunk : n);
    return;
  }
  #pragma omp parallel num_threads(threads)
  {
    int64_t me = omp_get_thread_num(), all = omp_get_num_threads();
    int64_t first = chunks * me / all, last = chunks * (me + 1) / all;
    for (int64_t k = first; k < last; k++) body(context, k * chunk, (k + 1) * chunk < n ? (k + 1) * chunk : n);
  }
}
