/* What the processor and its memory do at best: run as `probe THREADS`, writes one JSON object of rates a second.
 *
 *   {"f32": {"avx512": flops, "avx2": flops, ...}, "bf16": {"avx512_bf16": flops}, "bytes": {"in_place": bytes, "triad": bytes}}
 *
 * Arithmetic: chains of multiply-adds that depend on nothing but themselves, as many as hide the latency. Memory: vectors far larger than any cache, each
 * thread on pages that it touched first; in_place reads and writes one vector, triad reads two and writes a third past the cache. The best of many short
 * rounds counts (a few milliseconds each: something else may run meanwhile): this is a limit, not a habit. A function for each instruction set is compiled into the one program and run where the processor has it. */
#include <immintrin.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { MOST_THREADS = 256, ROUNDS = 30, MEMORY_ROUNDS = 10, REPEATS = 1000000, FLOATS = 48 << 20 };   /* a vector: 192 MiB, all threads together */

typedef struct job {
  void (*run)(const struct job *);
  float *a, *b, *c;
  long n;
  pthread_barrier_t *barrier;
  double begin, end;
} job;

static volatile float sink;

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---------------------------------------------------------------- arithmetic: CHAINS accumulators, REPEATS rounds */

#define CHAINS 14   /* 2 units x latency of 4 to 5, and the registers of AVX2 (16) hold them and the factor */
#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13)

typedef float vector4 __attribute__((vector_size(16)));

static void base(const job *j) {
  (void)j;
  vector4 s[CHAINS], x = {1, 1, 1, 1};
  for (int i = 0; i < CHAINS; i++) s[i] = x;
#define STEP(i) s[i] = s[i] * x + x;
  for (long r = 0; r < REPEATS; r++) {
    EACH(STEP)
    __asm__ volatile("" : "+x"(x));
  }
#undef STEP
  for (int i = 0; i < CHAINS; i++) sink = s[i][0];
}

__attribute__((target("avx2,fma"))) static void avx2(const job *j) {
  (void)j;
  __m256 s[CHAINS], x = _mm256_set1_ps(.5f);
  for (int i = 0; i < CHAINS; i++) s[i] = x;
#define STEP(i) s[i] = _mm256_fmadd_ps(s[i], x, x);
  for (long r = 0; r < REPEATS; r++) {
    EACH(STEP)
    __asm__ volatile("" : "+x"(x));
  }
#undef STEP
  for (int i = 0; i < CHAINS; i++) sink = _mm256_cvtss_f32(s[i]);
}

__attribute__((target("avx512f"))) static void avx512(const job *j) {
  (void)j;
  __m512 s[CHAINS], x = _mm512_set1_ps(.5f);
  for (int i = 0; i < CHAINS; i++) s[i] = x;
#define STEP(i) s[i] = _mm512_fmadd_ps(s[i], x, x);
  for (long r = 0; r < REPEATS; r++) {
    EACH(STEP)
    __asm__ volatile("" : "+v"(x));
  }
#undef STEP
  for (int i = 0; i < CHAINS; i++) sink = _mm512_cvtss_f32(s[i]);
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512bf16"))) static void avx512_bf16(const job *j) {
  (void)j;
  __m512 s[CHAINS], x = _mm512_set1_ps(.5f);
  __m512bh h = _mm512_cvtne2ps_pbh(x, x);
  for (int i = 0; i < CHAINS; i++) s[i] = x;
#define STEP(i) s[i] = _mm512_dpbf16_ps(s[i], h, h);
  for (long r = 0; r < REPEATS; r++) {
    EACH(STEP)
    __asm__ volatile("" : "+v"(h));
  }
#undef STEP
  for (int i = 0; i < CHAINS; i++) sink = _mm512_cvtss_f32(s[i]);
}

/* ---------------------------------------------------------------- memory */

static void touch(const job *j) {
  for (long i = 0; i < j->n; i++) j->a[i] = j->b[i] = j->c[i] = 1;
}

static void in_place(const job *j) {
  for (long i = 0; i < j->n; i++) j->a[i] *= .5f;
}

/* SSE2's store past the cache: a line at a time is full however wide the store is. */
static void triad(const job *j) {
  __m128 x = _mm_set1_ps(.5f);
  for (long i = 0; i < j->n; i += 4) _mm_stream_ps(j->a + i, _mm_add_ps(_mm_load_ps(j->b + i), _mm_mul_ps(x, _mm_load_ps(j->c + i))));
  _mm_sfence();
}

/* ---------------------------------------------------------------- all threads at once */

static void *work(void *given) {
  job *j = given;
  pthread_barrier_wait(j->barrier);
  j->begin = now();
  j->run(j);
  j->end = now();
  return NULL;
}

/* The best seconds of `rounds` in which every thread runs `run` once: from the first that began to the last that ended. The caller is one of the
 * threads: with one more than there are cores, somebody would wait for a core while the others already work. */
static double best(int threads, void (*run)(const job *), job *jobs, int rounds) {
  double least = 1e30;
  for (int r = 0; r < rounds; r++) {
    pthread_t ids[MOST_THREADS];
    pthread_barrier_t barrier;
    pthread_barrier_init(&barrier, NULL, (unsigned)threads);
    for (int i = 0; i < threads; i++) {
      jobs[i].run = run;
      jobs[i].barrier = &barrier;
      if (i > 0 && pthread_create(&ids[i], NULL, work, &jobs[i])) {
        fprintf(stderr, "probe: no thread\n");
        exit(1);
      }
    }
    work(&jobs[0]);
    double begin = jobs[0].begin, end = jobs[0].end;
    for (int i = 1; i < threads; i++) {
      pthread_join(ids[i], NULL);
      begin = jobs[i].begin < begin ? jobs[i].begin : begin;
      end = jobs[i].end > end ? jobs[i].end : end;
    }
    pthread_barrier_destroy(&barrier);
    least = end - begin < least ? end - begin : least;
  }
  return least;
}

int main(int count, char **words) {
  int threads = count == 2 ? atoi(words[1]) : 0;
  if (threads < 1 || threads > MOST_THREADS) {
    fprintf(stderr, "usage: probe THREADS (1 to %d)\n", MOST_THREADS);
    return 2;
  }
  static job jobs[MOST_THREADS];
  double chains = 2.0 * CHAINS * REPEATS * threads;
  printf("{\"f32\": {\"base\": %.0f", 4 * chains / best(threads, base, jobs, ROUNDS));
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) printf(", \"avx2\": %.0f", 8 * chains / best(threads, avx2, jobs, ROUNDS));
  if (__builtin_cpu_supports("avx512f")) printf(", \"avx512\": %.0f", 16 * chains / best(threads, avx512, jobs, ROUNDS));
  printf("}, \"bf16\": {");
  if (__builtin_cpu_supports("avx512bf16")) printf("\"avx512_bf16\": %.0f", 32 * chains / best(threads, avx512_bf16, jobs, ROUNDS));

  long n = FLOATS / threads & ~15L;
  float *all = aligned_alloc(64, (size_t)n * (size_t)threads * 3 * sizeof *all);
  if (!all) {
    fprintf(stderr, "probe: no memory for the vectors\n");
    return 1;
  }
  for (int i = 0; i < threads; i++) {
    float *own = all + 3 * n * i;
    jobs[i] = (job){.a = own, .b = own + n, .c = own + 2 * n, .n = n};
  }
  best(threads, touch, jobs, 1);
  double vector = (double)n * threads * sizeof *all;
  printf("}, \"bytes\": {\"in_place\": %.0f", 2 * vector / best(threads, in_place, jobs, MEMORY_ROUNDS));
  printf(", \"triad\": %.0f}}\n", 3 * vector / best(threads, triad, jobs, MEMORY_ROUNDS));
  free(all);
  return 0;
}
