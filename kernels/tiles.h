/* The sums that matrix products on AVX-512 keep in registers: 6 rows by 4 vectors of columns, words of a row broadcast one at a time. A word is a float,
 * or (`low`, where the processor has AVX512-BF16) a pair of bf16 numbers along the inner dimension. */
#ifndef UNIC_TILES_H
#define UNIC_TILES_H

#include "loops.h"

enum { TILE_WIDE = 16, TILE_TALL = 6, TILE_BROAD = 4 };   /* columns of a vector; rows and vectors of a tile: 24 of 32 registers */

typedef uint32_t tile_word __attribute__((aligned(2), may_alias));

#if defined(__AVX512F__)

/* sum[rows][vectors] = sum over k < inner of a(row, k) b(k, vector). a: a_row bytes from row to row, a_next along the inner dimension; b: words likewise.
 * hop > 0: memory from `ahead` on is fetched, `hop` bytes a step. */
static inline __attribute__((always_inline)) void tile_sums(const bool low, const int rows, const int vectors, const char *a, const int64_t a_row, const int64_t a_next,
                                                            const tile_word *b, const int64_t b_vector, const int64_t b_next, const int64_t inner,
                                                            const char *ahead, const int64_t hop, __m512 sum[TILE_TALL][TILE_BROAD]) {
  #pragma GCC unroll 6
  for (int r = 0; r < rows; r++)
    #pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) sum[r][v] = _mm512_setzero_ps();
  for (int64_t k = 0; k < inner; k++, a += a_next, b += b_next) {
    __m512i from[TILE_BROAD];
    if (hop) {
      _mm_prefetch(ahead, _MM_HINT_T0);
      ahead += hop;
    }
    #pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) from[v] = _mm512_loadu_si512(b + v * b_vector);
    #pragma GCC unroll 6
    for (int r = 0; r < rows; r++) {
      __m512i by = _mm512_set1_epi32((int32_t)*(const tile_word *)(const void *)(a + r * a_row));
      #pragma GCC unroll 4
      for (int v = 0; v < vectors; v++) {
#if defined(__AVX512BF16__)
        if (low) sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)from[v], (__m512bh)by);
        else
#endif
        sum[r][v] = _mm512_fmadd_ps((__m512)from[v], (__m512)by, sum[r][v]);
      }
    }
  }
}

#endif

/* f(rows, ...) with the number of rows as a constant: 6, or what is left. */
#define TILE_ROWS(rows, f, ...) \
  switch (rows) { \
    case 1: f(1, __VA_ARGS__); break; \
    case 2: f(2, __VA_ARGS__); break; \
    case 3: f(3, __VA_ARGS__); break; \
    case 4: f(4, __VA_ARGS__); break; \
    case 5: f(5, __VA_ARGS__); break; \
    default: f(6, __VA_ARGS__); \
  }

#endif
