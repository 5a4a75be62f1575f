/* Names of the element types; single elements as doubles. */
#include "dtype.h"

static const char *const names[UNIC_DTYPES] = {
  [UNIC_F32] = "f32", [UNIC_BF16] = "bf16", [UNIC_F16] = "f16", [UNIC_F64] = "f64", [UNIC_I64] = "i64", [UNIC_I32] = "i32", [UNIC_U8] = "u8", [UNIC_BOOL] = "bool",
};

const char *unic_dtype_name(unic_dtype d) { return names[d]; }

unic_dtype unic_dtype_of_name(const char *name) {
  for (int d = 0; d < UNIC_DTYPES; d++)
    if (strcmp(names[d], name) == 0) return (unic_dtype)d;
  return UNIC_DTYPES;
}

double unic_element_get(const void *data, unic_dtype d, int64_t i) {
  switch (d) {
    case UNIC_F32: return ((const float *)data)[i];
    case UNIC_BF16: return unic_float_of_bf16(((const uint16_t *)data)[i]);
    case UNIC_F16: return unic_float_of_f16(((const uint16_t *)data)[i]);
    case UNIC_F64: return ((const double *)data)[i];
    case UNIC_I64: return (double)((const int64_t *)data)[i];
    case UNIC_I32: return ((const int32_t *)data)[i];
    default: return ((const uint8_t *)data)[i];
  }
}

void unic_element_set(void *data, unic_dtype d, int64_t i, double value) {
  switch (d) {
    case UNIC_F32: ((float *)data)[i] = (float)value; break;
    case UNIC_BF16: ((uint16_t *)data)[i] = unic_bf16_of_float((float)value); break;
    case UNIC_F16: ((uint16_t *)data)[i] = unic_f16_of_float((float)value); break;
    case UNIC_F64: ((double *)data)[i] = value; break;
    case UNIC_I64: ((int64_t *)data)[i] = (int64_t)value; break;
    case UNIC_I32: ((int32_t *)data)[i] = (int32_t)value; break;
    case UNIC_BOOL: ((uint8_t *)data)[i] = value != 0; break;
    default: ((uint8_t *)data)[i] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value); break;
  }
}
