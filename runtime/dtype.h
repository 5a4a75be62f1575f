/* Element types: their names, sizes and the few conversions that need no kernel. */
#ifndef UNIC_DTYPE_H
#define UNIC_DTYPE_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

enum { UNIC_MAX_RANK = 8 };   /* dimensions of a tensor */

typedef enum unic_dtype {
  UNIC_F32, UNIC_BF16, UNIC_F16, UNIC_F64,   /* floating types first: unic_dtype_is_float relies on it */
  UNIC_I64, UNIC_I32, UNIC_U8, UNIC_BOOL,
  UNIC_DTYPES
} unic_dtype;

static inline bool unic_dtype_is_float(unic_dtype d) { return d <= UNIC_F64; }
static inline bool unic_dtype_is_half(unic_dtype d) { return d == UNIC_BF16 || d == UNIC_F16; }

/* Bytes of one element. */
static inline int64_t unic_dtype_size(unic_dtype d) {
  static const uint8_t size[UNIC_DTYPES] = {4, 2, 2, 8, 8, 4, 1, 1};
  return size[d];
}
/* "f32", "bf16", ... */
const char *unic_dtype_name(unic_dtype d);
/* The type of a name, or UNIC_DTYPES when there is no such name. */
unic_dtype unic_dtype_of_name(const char *name);
/* The type in which statistics, norms and parameters of an op working in d are kept: f64 for f64, f32 otherwise. */
static inline unic_dtype unic_dtype_wide(unic_dtype d) { return d == UNIC_F64 ? UNIC_F64 : UNIC_F32; }

/* bf16: round to nearest even, NaN stays NaN. */
static inline uint16_t unic_bf16_of_float(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40u);
  return (uint16_t)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}
static inline float unic_float_of_bf16(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
#ifndef __cplusplus   /* C++ of this age has no _Float16; CUDA brings its own */
/* f16 through the compiler's _Float16 (hardware where there is F16C). */
static inline uint16_t unic_f16_of_float(float f) {
  _Float16 h = (_Float16)f;
  uint16_t u;
  memcpy(&u, &h, 2);
  return u;
}
static inline float unic_float_of_f16(uint16_t u) {
  _Float16 h;
  memcpy(&h, &u, 2);
  return (float)h;
}
#endif

/* Element i of an array of type d as a double, and back (i64 beyond 2^53 rounds). For single elements, printing and references. */
double unic_element_get(const void *data, unic_dtype d, int64_t i);
void unic_element_set(void *data, unic_dtype d, int64_t i, double value);

#endif
