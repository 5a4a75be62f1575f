/* For the marked loop part of a kernel file, the only part that is compiled once per instruction set.
 *
 * A file with loops looks like this:
 *   #include "loops.h"
 *   struct scale { const void *x; void *y; int dtype; float a; };      // shared by both halves
 *   #if UNIC_LOOPS
 *   UNIC_LOOP(scale_rows) { const struct scale *s = context; for (int64_t i = begin; i < end; i++) ... }
 *   #else
 *   UNIC_LOOP_TABLE(scale_rows);
 *   ... shape rule, forward (calls UNIC_RUN(scale_rows, n, chunk, &s)), backward, descriptor
 *   #endif
 *
 * Fast forms compute in f32 whatever the storage (f32, bf16, f16): rows are loaded into a small buffer, or used in place when they are f32.
 * Compiled without fast-math: NaN and Inf behave; sums are vectorised by `#pragma omp simd reduction` where order is fixed by the chunking. */
#ifndef UNIC_LOOPS_H
#define UNIC_LOOPS_H

#ifndef UNIC_LOOPS
#define UNIC_LOOPS 0
#endif

#include "op.h"
#include "random.h"
#include <math.h>
#ifdef __AVX2__
#include <immintrin.h>
#endif

#define UNIC_GLUE_(a, b) a##_##b
#define UNIC_GLUE(a, b) UNIC_GLUE_(a, b)

#if UNIC_LOOPS

#define UNIC_LOOP(name) \
  void UNIC_GLUE(name, UNIC_ISA_NAME)(void *context, int64_t begin, int64_t end); \
  void UNIC_GLUE(name, UNIC_ISA_NAME)(void *context, int64_t begin, int64_t end)

#else

#if defined(__x86_64__)
#define UNIC_LOOP_TABLE(name) \
  extern unic_body name##_base, name##_avx2, name##_avx512, name##_avx512_bf16; \
  static unic_body *const name[UNIC_ISAS] = {name##_base, name##_avx2, name##_avx512, name##_avx512_bf16}
#else
#define UNIC_LOOP_TABLE(name) \
  extern unic_body name##_base; \
  static unic_body *const name[UNIC_ISAS] = {name##_base, name##_base, name##_base, name##_base}
#endif
#define UNIC_RUN(name, n, chunk, context) unic_parallel_for((n), (chunk), name[unic_isa_current()], (context))

#endif

/* ---------------------------------------------------------------- turning words round */

typedef uint32_t unic_word4 __attribute__((vector_size(16), aligned(4), may_alias));

/* to[j * ts + i] = from[i * fs + j], 4 x 4 words. */
static inline void unic_transpose4(const uint32_t *restrict from, int64_t fs, uint32_t *restrict to, int64_t ts) {
  unic_word4 a = *(const unic_word4 *)from, b = *(const unic_word4 *)(from + fs), c = *(const unic_word4 *)(from + 2 * fs), d = *(const unic_word4 *)(from + 3 * fs);
  unic_word4 ab = __builtin_shuffle(a, b, (unic_word4){0, 4, 1, 5}), ab2 = __builtin_shuffle(a, b, (unic_word4){2, 6, 3, 7});
  unic_word4 cd = __builtin_shuffle(c, d, (unic_word4){0, 4, 1, 5}), cd2 = __builtin_shuffle(c, d, (unic_word4){2, 6, 3, 7});
  *(unic_word4 *)to = __builtin_shuffle(ab, cd, (unic_word4){0, 1, 4, 5});
  *(unic_word4 *)(to + ts) = __builtin_shuffle(ab, cd, (unic_word4){2, 3, 6, 7});
  *(unic_word4 *)(to + 2 * ts) = __builtin_shuffle(ab2, cd2, (unic_word4){0, 1, 4, 5});
  *(unic_word4 *)(to + 3 * ts) = __builtin_shuffle(ab2, cd2, (unic_word4){2, 3, 6, 7});
}

/* ---------------------------------------------------------------- rows: f32 views of f32/bf16/f16 storage */

enum { UNIC_ROW = 1024 };   /* floats in a row buffer: 4 KB, so that several stay in L1 */

/* n <= UNIC_ROW elements from element `at` on as floats: in place for f32, converted into buffer otherwise. */
static inline const float *unic_row_load(const void *p, int dtype, int64_t at, int64_t n, float *restrict buffer) {
  if (dtype == UNIC_F32) return (const float *)p + at;
  const uint16_t *restrict h = (const uint16_t *)p + at;
  if (dtype == UNIC_BF16) {
    for (int64_t i = 0; i < n; i++) buffer[i] = unic_float_of_bf16(h[i]);
  } else {
    for (int64_t i = 0; i < n; i++) buffer[i] = unic_float_of_f16(h[i]);
  }
  return buffer;
}

/* Where to write a row that unic_row_store will put into p: the place itself for f32, the buffer otherwise. */
static inline float *unic_row_place(void *p, int dtype, int64_t at, float *buffer) {
  return dtype == UNIC_F32 ? (float *)p + at : buffer;
}

/* Convert a row written at unic_row_place into storage; nothing to do for f32. */
static inline void unic_row_store(void *p, int dtype, int64_t at, int64_t n, const float *restrict row) {
  if (dtype == UNIC_F32) return;
  uint16_t *restrict h = (uint16_t *)p + at;
  if (dtype == UNIC_BF16) {
    for (int64_t i = 0; i < n; i++) h[i] = unic_bf16_of_float(row[i]);
  } else {
    for (int64_t i = 0; i < n; i++) h[i] = unic_f16_of_float(row[i]);
  }
}

/* p[at..at+n) = row, or += row. For gradients that honour `accumulate`. The row must not be the place itself. */
static inline void unic_row_put(void *p, int dtype, int64_t at, int64_t n, const float *restrict row, int accumulate) {
  if (dtype == UNIC_F32) {
    float *restrict f = (float *)p + at;
    if (accumulate) for (int64_t i = 0; i < n; i++) f[i] += row[i];
    else for (int64_t i = 0; i < n; i++) f[i] = row[i];
    return;
  }
  uint16_t *restrict h = (uint16_t *)p + at;
  if (dtype == UNIC_BF16) {
    if (accumulate) for (int64_t i = 0; i < n; i++) h[i] = unic_bf16_of_float(unic_float_of_bf16(h[i]) + row[i]);
    else for (int64_t i = 0; i < n; i++) h[i] = unic_bf16_of_float(row[i]);
  } else {
    if (accumulate) for (int64_t i = 0; i < n; i++) h[i] = unic_f16_of_float(unic_float_of_f16(h[i]) + row[i]);
    else for (int64_t i = 0; i < n; i++) h[i] = unic_f16_of_float(row[i]);
  }
}

/* ---------------------------------------------------------------- random rows */

#ifdef __AVX2__
/* Eight blocks from `block` on: 32 numbers. A counter word sits in the low half of a 64-bit lane, because the product that the cipher wants is
 * 32 x 32 -> 64 bits; what gathers in the high halves is never read. (The compiler's own vectorisation multiplies even and odd words apart and
 * shuffles them back each round: four times slower.) */
#ifdef __AVX512F__
static inline void unic_random_32(uint64_t seed, uint64_t block, uint32_t *restrict out) {
  const __m512i m0 = _mm512_set1_epi64(0xD2511F53), m1 = _mm512_set1_epi64(0xCD9E8D57), w0 = _mm512_set1_epi32((int)0x9E3779B9u), w1 = _mm512_set1_epi32((int)0xBB67AE85u);
  __m512i c0 = _mm512_add_epi64(_mm512_set1_epi64((int64_t)block), _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0)), c1 = _mm512_srli_epi64(c0, 32);
  __m512i c2 = _mm512_setzero_si512(), c3 = c2, k0 = _mm512_set1_epi32((int)(uint32_t)seed), k1 = _mm512_set1_epi32((int)(uint32_t)(seed >> 32));
  enum { XOR = 0x96 };   /* of three */
  #pragma GCC unroll 10
  for (int round = 0; round < 10; round++) {
    const __m512i p = _mm512_mul_epu32(c0, m0), q = _mm512_mul_epu32(c2, m1);
    c0 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(q, 32), c1, k0, XOR);
    c2 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p, 32), c3, k1, XOR);
    c1 = q;
    c3 = p;
    k0 = _mm512_add_epi32(k0, w0);
    k1 = _mm512_add_epi32(k1, w1);
  }
  const __m512i a = _mm512_mask_shuffle_epi32(c0, 0xAAAA, c1, _MM_PERM_CCAA), b = _mm512_mask_shuffle_epi32(c2, 0xAAAA, c3, _MM_PERM_CCAA);
  _mm512_storeu_si512(out, _mm512_permutex2var_epi64(a, _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0), b));
  _mm512_storeu_si512(out + 16, _mm512_permutex2var_epi64(a, _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4), b));
}
#else
static inline void unic_random_32(uint64_t seed, uint64_t block, uint32_t *restrict out) {
  const __m256i m0 = _mm256_set1_epi64x(0xD2511F53), m1 = _mm256_set1_epi64x(0xCD9E8D57), zero = _mm256_setzero_si256();
  __m256i a0 = _mm256_add_epi64(_mm256_set1_epi64x((int64_t)block), _mm256_set_epi64x(3, 2, 1, 0)), b0 = _mm256_add_epi64(a0, _mm256_set1_epi64x(4));
  __m256i a1 = _mm256_srli_epi64(a0, 32), a2 = zero, a3 = zero, b1 = _mm256_srli_epi64(b0, 32), b2 = zero, b3 = zero, p, q;
  uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
  #define ROUND(c0, c1, c2, c3) \
    p = _mm256_mul_epu32(c0, m0); \
    q = _mm256_mul_epu32(c2, m1); \
    c0 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(q, 32), c1), x); \
    c2 = _mm256_xor_si256(_mm256_xor_si256(_mm256_srli_epi64(p, 32), c3), y); \
    c1 = q; \
    c3 = p
  for (int round = 0; round < 10; round++) {
    const __m256i x = _mm256_set1_epi64x(k0), y = _mm256_set1_epi64x(k1);
    ROUND(a0, a1, a2, a3);
    ROUND(b0, b1, b2, b3);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  #undef ROUND
  #define GIVE(c0, c1, c2, c3, to) \
    p = _mm256_blend_epi32(c0, _mm256_slli_epi64(c1, 32), 0xAA); \
    q = _mm256_blend_epi32(c2, _mm256_slli_epi64(c3, 32), 0xAA); \
    c0 = _mm256_unpacklo_epi64(p, q);   /* blocks 0 | 2 and 1 | 3 */ \
    c1 = _mm256_unpackhi_epi64(p, q); \
    _mm256_storeu_si256((__m256i *)(void *)(to), _mm256_permute2x128_si256(c0, c1, 0x20)); \
    _mm256_storeu_si256((__m256i *)(void *)((to) + 8), _mm256_permute2x128_si256(c0, c1, 0x31))
  GIVE(a0, a1, a2, a3, out);
  GIVE(b0, b1, b2, b3, out + 16);
  #undef GIVE
}
#endif
#endif

/* Numbers start .. start+n-1 of the stream (seed, counter). */
static inline void unic_random_row(uint64_t seed, uint64_t counter, int64_t start, int64_t n, uint32_t *restrict out) {
  int64_t i = 0;
  for (; i < n && ((start + i) & 3); i++) out[i] = unic_random_bits(seed, counter, start + i);
  uint64_t block = counter + (uint64_t)((start + i) >> 2);
#ifdef __AVX2__
  for (; i + 32 <= n; i += 32, block += 8) unic_random_32(seed, block, out + i);
#endif
  for (; i + 4 <= n; i += 4, block++) unic_philox(seed, block, out + i);
  for (; i < n; i++) out[i] = unic_random_bits(seed, counter, start + i);
}

/* ---------------------------------------------------------------- branch-free maths that vectorises */

/* exp: Cody-Waite reduction and a degree-6 Chebyshev fit (relative error 2.5e-9 before rounding). Overflow -> inf, underflow -> 0, NaN stays. */
static inline float unic_expf(float x) {
  float c = x < -104.0f ? -104.0f : x > 89.0f ? 89.0f : x;
  c = x != x ? x : c;
  float k = rintf(c * 1.44269504f);
  float r = c - k * 0.693145752f;
  r = r - k * 1.42860677e-6f;
  float p = 0.00139411084f;
  p = p * r + 0.0083751264f;
  p = p * r + 0.0416663529f;
  p = p * r + 0.166664155f;
  p = p * r + 0.500000005f;
  p = p * r + 1.00000004f;
  p = p * r + 1.0f;
  /* 2^k in two factors, so that subnormal results and k = 128 come out right. */
  int32_t n = c == c ? (int32_t)k : 0;
  int32_t half = n >> 1;
  union { int32_t i; float f; } a = {(half + 127) << 23}, b = {(n - half + 127) << 23};
  return p * a.f * b.f;
}

/* exp for arguments of at most 0 (up to rounding) at two thirds of the price, for softmax and its kin: 0 below -87, NaN stays. */
static inline float unic_exp_fallingf(float x) {
  float c = x < -87.0f ? -87.0f : x, k = rintf(c * 1.44269504f), r = c - k * 0.693145752f;
  r = r - k * 1.42860677e-6f;
  float p = 0.00139411084f;
  p = p * r + 0.0083751264f;
  p = p * r + 0.0416663529f;
  p = p * r + 0.166664155f;
  p = p * r + 0.500000005f;
  p = p * r + 1.00000004f;
  p = p * r + 1.0f;
  union { float f; int32_t i; } y = {p};
  y.i += (int32_t)((uint32_t)(int32_t)k << 23);
  return x < -87.0f ? 0.0f : y.f;
}

/* erfc(z) exp(z^2) for z >= 0: a degree-10 Chebyshev fit in 1/(1 + z/2) (relative error 3.2e-8 before rounding). */
static inline float unic_erfcxf(float z) {
  float t = 1.0f / (1.0f + 0.5f * z);
  float p = 0.036262449f;
  p = p * t - 0.258313002f;
  p = p * t + 0.760911248f;
  p = p * t - 1.13781468f;
  p = p * t + 0.838628298f;
  p = p * t - 0.344009982f;
  p = p * t + 0.321946169f;
  p = p * t + 0.213806314f;
  p = p * t + 0.28687132f;
  p = p * t + 0.281697447f;
  p = p * t + 1.44148505e-05f;
  return p;
}

/* The standard normal's distribution function, and its density. */
static inline float unic_normal_cdff(float x) {
  float z = fabsf(x) * 0.707106781f;
  float tail = 0.5f * unic_erfcxf(z) * unic_expf(-z * z);
  return x > 0 ? 1.0f - tail : x != x ? x : tail;
}
static inline float unic_normal_pdff(float x) { return 0.398942280f * unic_expf(-0.5f * x * x); }

/* tanh through exp, with a short series near zero where the difference would cancel. */
static inline float unic_tanhf(float x) {
  float a = fabsf(x);
  float e = unic_expf(-2.0f * a);
  float big = (1.0f - e) / (1.0f + e);
  float s = x * x;
  float small = a * (1.0f + s * (-0.333333333f + s * (0.133333333f - s * 0.0539682540f)));
  float t = a < 0.1f ? small : big;
  return x < 0 ? -t : t;
}

static inline float unic_sigmoidf(float x) {
  float e = unic_expf(-fabsf(x));
  float p = 1.0f / (1.0f + e);
  return x >= 0 ? p : x != x ? x : e * p;
}

#endif
