/* Element-wise walks (strides.h) on the CPU, and rows of any dtype: parallel loops cut the numbers of a walk's elements into fixed chunks and
 * read `unic_walk_load`, a dense row of up to UNIC_ROW elements from wherever they lie. */
#ifndef UNIC_WALK_H
#define UNIC_WALK_H

#include "loops.h"
#include "strides.h"

enum { UNIC_WALK_CHUNK = 16 * UNIC_ROW };   /* elements per parallel chunk of cheap element-wise work: 64 KB of f32 */

/* How many elements from `at` on to take at once: UNIC_ROW at most, and not beyond the innermost row when that is long enough to be worth its own
 * turn (rows that lie side by side are then used in place). */
static inline int64_t unic_walk_step(const unic_walk *w, int64_t at, int64_t end) {
  int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW, inner = w->shape[w->ndim - 1];
  if (w->ndim == 1 || inner < 128) return n;
  int64_t left = inner - at % inner;
  return left < n ? left : n;
}

/* Where element `at` of the walk lies in operand o; *left: how many elements follow in its innermost row (itself included). */
static inline int64_t unic_walk_find(const unic_walk *w, int o, int64_t at, int64_t *index, int64_t *left) {
  int64_t where = 0;
  for (int d = w->ndim - 1; d > 0; d--) {
    int64_t q = at / w->shape[d];
    index[d] = at - q * w->shape[d];
    where += index[d] * w->stride[o][d];
    at = q;
  }
  index[0] = at;
  *left = w->shape[w->ndim - 1] - index[w->ndim - 1];
  return where + at * w->stride[o][0];
}

/* Step from the end of one innermost row to the start of the next; returns the new place. */
static inline int64_t unic_walk_next_row(const unic_walk *w, int o, int64_t *index) {
  index[w->ndim - 1] = 0;
  for (int d = w->ndim - 2; d >= 0; d--) {
    if (++index[d] < w->shape[d] || d == 0) break;
    index[d] = 0;
  }
  int64_t where = 0;
  for (int d = 0; d < w->ndim; d++) where += index[d] * w->stride[o][d];
  return where;
}

/* Elements at .. at+n-1 of operand o as a dense row: the place itself when they lie side by side (NULL in *buffer terms), else copied. */
#define UNIC_WALK_MOVE(name, type) \
  static inline void unic_walk_gather_##name(const unic_walk *w, int o, int64_t at, int64_t n, const type *restrict from, type *restrict to) { \
    int64_t index[UNIC_MAX_RANK], left, s = w->stride[o][w->ndim - 1]; \
    int64_t where = unic_walk_find(w, o, at, index, &left); \
    while (n > 0) { \
      int64_t m = left < n ? left : n; \
      const type *restrict p = from + where; \
      if (s == 1) for (int64_t i = 0; i < m; i++) to[i] = p[i]; \
      else if (s == 0) { type v = *p; for (int64_t i = 0; i < m; i++) to[i] = v; } \
      else for (int64_t i = 0; i < m; i++) to[i] = p[i * s]; \
      to += m; \
      n -= m; \
      left = w->shape[w->ndim - 1]; \
      if (n > 0) where = unic_walk_next_row(w, o, index); \
    } \
  } \
  static inline void unic_walk_scatter_##name(const unic_walk *w, int o, int64_t at, int64_t n, type *restrict to, const type *restrict from) { \
    int64_t index[UNIC_MAX_RANK], left, s = w->stride[o][w->ndim - 1]; \
    int64_t where = unic_walk_find(w, o, at, index, &left); \
    while (n > 0) { \
      int64_t m = left < n ? left : n; \
      type *restrict p = to + where; \
      if (s == 1) for (int64_t i = 0; i < m; i++) p[i] = from[i]; \
      else for (int64_t i = 0; i < m; i++) p[i * s] = from[i]; \
      from += m; \
      n -= m; \
      left = w->shape[w->ndim - 1]; \
      if (n > 0) where = unic_walk_next_row(w, o, index); \
    } \
  }
UNIC_WALK_MOVE(1, uint8_t)
UNIC_WALK_MOVE(2, uint16_t)
UNIC_WALK_MOVE(4, uint32_t)
UNIC_WALK_MOVE(8, uint64_t)
#undef UNIC_WALK_MOVE

/* The place of elements at .. at+n-1 of operand o when they lie side by side in memory, NULL otherwise. */
static inline void *unic_walk_place(const unic_walk *w, int o, int64_t at, int64_t n, const void *base, int size) {
  if (w->stride[o][w->ndim - 1] != 1) return NULL;
  int64_t index[UNIC_MAX_RANK], left;
  int64_t where = unic_walk_find(w, o, at, index, &left);
  return left < n ? NULL : (char *)(uintptr_t)base + where * size;
}

/* A dense row of operand o in its own dtype: in place where possible, otherwise gathered into `buffer` (n elements). */
static inline const void *unic_walk_row(const unic_walk *w, int o, int64_t at, int64_t n, const void *base, int dtype, void *buffer) {
  int size = unic_size_of(dtype);
  const void *place = unic_walk_place(w, o, at, n, base, size);
  if (place) return place;
  switch (size) {
    case 1: unic_walk_gather_1(w, o, at, n, base, buffer); break;
    case 2: unic_walk_gather_2(w, o, at, n, base, buffer); break;
    case 4: unic_walk_gather_4(w, o, at, n, base, buffer); break;
    default: unic_walk_gather_8(w, o, at, n, base, buffer);
  }
  return buffer;
}

/* Where to write a row of operand o in its own dtype: the place itself, or `buffer`, which unic_walk_put then brings to its places. */
static inline void *unic_walk_target(const unic_walk *w, int o, int64_t at, int64_t n, void *base, int dtype, void *buffer) {
  void *place = unic_walk_place(w, o, at, n, base, unic_size_of(dtype));
  return place ? place : buffer;
}
static inline void unic_walk_put(const unic_walk *w, int o, int64_t at, int64_t n, void *base, int dtype, const void *row, const void *buffer) {
  if (row != buffer) return;
  switch (unic_size_of(dtype)) {
    case 1: unic_walk_scatter_1(w, o, at, n, base, row); break;
    case 2: unic_walk_scatter_2(w, o, at, n, base, row); break;
    case 4: unic_walk_scatter_4(w, o, at, n, base, row); break;
    default: unic_walk_scatter_8(w, o, at, n, base, row);
  }
}

/* The same for operands of f32, bf16 or f16 storage, as floats. `raw` holds n elements of storage on the way. */
static inline const float *unic_walk_load(const unic_walk *w, int o, int64_t at, int64_t n, const void *base, int dtype, float *buffer, uint16_t *raw) {
  if (dtype == UNIC_F32) return unic_walk_row(w, o, at, n, base, dtype, buffer);
  return unic_row_load(unic_walk_row(w, o, at, n, base, dtype, raw), dtype, 0, n, buffer);
}
static inline float *unic_walk_float_target(const unic_walk *w, int o, int64_t at, int64_t n, void *base, int dtype, float *buffer) {
  return dtype == UNIC_F32 ? unic_walk_target(w, o, at, n, base, dtype, buffer) : buffer;
}
static inline void unic_walk_store(const unic_walk *w, int o, int64_t at, int64_t n, void *base, int dtype, const float *row, const float *buffer, uint16_t *raw) {
  if (dtype == UNIC_F32) { unic_walk_put(w, o, at, n, base, dtype, row, buffer); return; }
  void *target = unic_walk_target(w, o, at, n, base, dtype, raw);
  unic_row_store(target, dtype, 0, n, row);
  unic_walk_put(w, o, at, n, base, dtype, target, raw);
}

/* ---------------------------------------------------------------- rows of one dtype into another */

/* Floats to integers: towards zero, saturating, NaN -> 0. Integers to narrower integers wrap. To bool: not zero. */
static inline int64_t unic_i64_of_double(double x) { return x != x ? 0 : x >= 9223372036854775807.0 ? INT64_MAX : x <= -9223372036854775808.0 ? INT64_MIN : (int64_t)x; }
static inline int32_t unic_i32_of_float(float x) { return x != x ? 0 : x >= 2147483648.0f ? INT32_MAX : x <= -2147483648.0f ? INT32_MIN : (int32_t)x; }
static inline int32_t unic_i32_of_double(double x) { return x != x ? 0 : x >= 2147483647.0 ? INT32_MAX : x <= -2147483648.0 ? INT32_MIN : (int32_t)x; }
static inline uint8_t unic_u8_of_float(float x) { return (uint8_t)(x > 0 ? (x < 255.0f ? (int32_t)x : 255) : 0); }
static inline uint8_t unic_u8_of_double(double x) { return (uint8_t)(x > 0 ? (x < 255.0 ? (int32_t)x : 255) : 0); }
static inline uint16_t unic_f16_of_double(double x) { _Float16 h = (_Float16)x; uint16_t u; memcpy(&u, &h, 2); return u; }
/* bf16 from f64: rounding to odd in f32 first keeps the second rounding right. */
static inline uint16_t unic_bf16_of_double(double x) {
  float f = (float)x;
  uint32_t u;
  memcpy(&u, &f, 4);
  if ((double)f != x && f == f && !isinf(f) && !(u & 1)) u += fabs((double)f) > fabs(x) ? 0xffffffffu : 1u;
  memcpy(&f, &u, 4);
  return unic_bf16_of_float(f);
}

#define UNIC_ROW_CASE(target, type, expression) \
  case target: { type *restrict t = to; for (int64_t i = 0; i < n; i++) t[i] = (type)(expression); break; }
#define UNIC_ROW_FROM(name, source, f16, bf16, i64, i32, u8) \
  static inline void unic_row_from_##name(const source *restrict x, int64_t n, void *restrict to, int dtype) { \
    switch (dtype) { \
      UNIC_ROW_CASE(UNIC_F32, float, x[i]) \
      UNIC_ROW_CASE(UNIC_BF16, uint16_t, bf16) \
      UNIC_ROW_CASE(UNIC_F16, uint16_t, f16) \
      UNIC_ROW_CASE(UNIC_F64, double, x[i]) \
      UNIC_ROW_CASE(UNIC_I64, int64_t, i64) \
      UNIC_ROW_CASE(UNIC_I32, int32_t, i32) \
      UNIC_ROW_CASE(UNIC_U8, uint8_t, u8) \
      default: { uint8_t *restrict t = to; for (int64_t i = 0; i < n; i++) t[i] = x[i] != 0; } \
    } \
  }
UNIC_ROW_FROM(f32, float, unic_f16_of_float(x[i]), unic_bf16_of_float(x[i]), unic_i64_of_double((double)x[i]), unic_i32_of_float(x[i]), unic_u8_of_float(x[i]))
UNIC_ROW_FROM(f64, double, unic_f16_of_double(x[i]), unic_bf16_of_double(x[i]), unic_i64_of_double(x[i]), unic_i32_of_double(x[i]), unic_u8_of_double(x[i]))
UNIC_ROW_FROM(i64, int64_t, unic_f16_of_double((double)x[i]), unic_bf16_of_double((double)x[i]), x[i], x[i], x[i])
UNIC_ROW_FROM(i32, int32_t, unic_f16_of_float((float)x[i]), unic_bf16_of_float((float)x[i]), x[i], x[i], x[i])
UNIC_ROW_FROM(u8, uint8_t, unic_f16_of_float((float)x[i]), unic_bf16_of_float((float)x[i]), x[i], x[i], x[i])
#undef UNIC_ROW_FROM
#undef UNIC_ROW_CASE

/* n <= UNIC_ROW dense elements of one dtype into another. */
static inline void unic_row_convert(const void *from, int from_dtype, void *to, int to_dtype, int64_t n) {
  if (from_dtype == to_dtype) { memcpy(to, from, (size_t)(n * unic_size_of(to_dtype))); return; }
  switch (from_dtype) {
    case UNIC_F64: unic_row_from_f64(from, n, to, to_dtype); break;
    case UNIC_I64: unic_row_from_i64(from, n, to, to_dtype); break;
    case UNIC_I32: unic_row_from_i32(from, n, to, to_dtype); break;
    case UNIC_U8: case UNIC_BOOL: unic_row_from_u8(from, n, to, to_dtype); break;
    default: {
      float buffer[UNIC_ROW];
      unic_row_from_f32(unic_row_load(from, from_dtype, 0, n, buffer), n, to, to_dtype);
    }
  }
}

#endif
