/* One element of any type into another, as the CPU does it (walk.h): floats to integers towards zero, saturating, NaN -> 0; integers to narrower
 * integers wrap; to bool: not zero; f64 and i64 to half types are rounded once. */
#ifndef UNIC_CONVERT_CUH
#define UNIC_CONVERT_CUH

#include "cuda.cuh"

/* bool's storage, where it must be told from u8. */
struct unic_truth { unsigned char is; };

static __host__ __device__ __forceinline__ long long unic_whole(double x) {
  return x != x ? 0 : x >= 9223372036854775807.0 ? 0x7fffffffffffffffLL : x <= -9223372036854775808.0 ? -0x7fffffffffffffffLL - 1 : (long long)x;
}

template <class To> struct unic_converter {   /* To: an integer type */
  static __host__ __device__ __forceinline__ To from(double x) {
    if constexpr (sizeof(To) == 8) return unic_whole(x);
    else if constexpr (sizeof(To) == 4) return x != x ? 0 : x >= 2147483647.0 ? 2147483647 : x <= -2147483648.0 ? -2147483647 - 1 : (int)x;
    else return (To)(x > 0 ? (x < 255.0 ? (int)x : 255) : 0);
  }
  static __host__ __device__ __forceinline__ To from(float x) {
    if constexpr (sizeof(To) == 8) return unic_whole((double)x);
    else if constexpr (sizeof(To) == 4) return x != x ? 0 : x >= 2147483648.0f ? 2147483647 : x <= -2147483648.0f ? -2147483647 - 1 : (int)x;
    else return (To)(x > 0 ? (x < 255.0f ? (int)x : 255) : 0);
  }
  static __host__ __device__ __forceinline__ To from(long long x) { return (To)x; }
  static __host__ __device__ __forceinline__ To from(int x) { return (To)x; }
  static __host__ __device__ __forceinline__ To from(unsigned char x) { return (To)x; }
};
template <> struct unic_converter<unic_truth> {
  template <class From> static __host__ __device__ __forceinline__ unic_truth from(From x) { return {(unsigned char)(x != 0)}; }
};
template <> struct unic_converter<float> {
  template <class From> static __host__ __device__ __forceinline__ float from(From x) { return (float)x; }
};
template <> struct unic_converter<double> {
  template <class From> static __host__ __device__ __forceinline__ double from(From x) { return (double)x; }
};
template <> struct unic_converter<__nv_bfloat16> {
  static __host__ __device__ __forceinline__ __nv_bfloat16 from(double x) { return __double2bfloat16(x); }
  static __host__ __device__ __forceinline__ __nv_bfloat16 from(float x) { return __float2bfloat16_rn(x); }
  static __host__ __device__ __forceinline__ __nv_bfloat16 from(long long x) { return __double2bfloat16((double)x); }
  static __host__ __device__ __forceinline__ __nv_bfloat16 from(int x) { return __float2bfloat16_rn((float)x); }
  static __host__ __device__ __forceinline__ __nv_bfloat16 from(unsigned char x) { return __float2bfloat16_rn((float)x); }
};
template <> struct unic_converter<__half> {
  static __host__ __device__ __forceinline__ __half from(double x) { return __double2half(x); }
  static __host__ __device__ __forceinline__ __half from(float x) { return __float2half_rn(x); }
  static __host__ __device__ __forceinline__ __half from(long long x) { return __double2half((double)x); }
  static __host__ __device__ __forceinline__ __half from(int x) { return __float2half_rn((float)x); }
  static __host__ __device__ __forceinline__ __half from(unsigned char x) { return __float2half_rn((float)x); }
};

/* x as a To. */
template <class To, class From> static __host__ __device__ __forceinline__ To unic_convert(From x) {
  if constexpr (std::is_same_v<To, From>) return x;
  else if constexpr (std::is_same_v<From, __nv_bfloat16> || std::is_same_v<From, __half>) return unic_converter<To>::from(unic_widen(x));
  else return unic_converter<To>::from(x);
}

/* unic_types with bool told apart. */
template <class F> static inline auto unic_all_types(int dtype, F f) {
  return dtype == UNIC_BOOL ? f(unic_truth()) : unic_types(dtype, f);
}

/* An unsigned type of as many bytes, for moving elements as they are: unic_raw(size, [&](auto t) { ... }). */
template <class F> static inline auto unic_raw(int size, F f) {
  switch (size) {
    case 1: return f((unsigned char)0);
    case 2: return f((unsigned short)0);
    case 4: return f((unsigned int)0);
    default: return f((unsigned long long)0);
  }
}

/* A number as an element of a dtype: the lowest bytes of the result. */
static inline unsigned long long unic_bits(double number, int dtype) {
  unsigned long long bits = 0;
  unic_all_types(dtype, [&](auto t) {
    using T = decltype(t);
    T value = unic_convert<T>(number);
    memcpy(&bits, &value, sizeof value);
  });
  return bits;
}

#endif
