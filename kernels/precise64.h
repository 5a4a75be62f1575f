/* The part of precise.h that every device computes by: what normal numbers are made with, so that they agree everywhere. Read by C and by CUDA C++. */
#ifndef UNIC_PRECISE64_H
#define UNIC_PRECISE64_H

#include <math.h>
#include <stdint.h>
#include <string.h>

/* A call left in a loop keeps it from being vectorised, and these are larger than what the compiler takes in by itself. */
#ifdef __CUDACC__
#define UNIC_PRECISE static __host__ __device__ __forceinline__
#else
#define UNIC_PRECISE static inline __attribute__((always_inline))
#endif

/* log of a positive, normal, finite number: within 2 ulp. */
UNIC_PRECISE double unic_log_normal(double x) {
  uint64_t u;
  memcpy(&u, &x, 8);
  /* x = 2^k m with m in [sqrt(1/2), sqrt(2)): shift the exponent's carry to where the mantissa passes sqrt(1/2). */
  uint64_t t = u + (0x3ff0000000000000u - 0x3fe6a09e667f3bcdu), biased = t >> 52, mantissa = (t & 0x000fffffffffffffu) + 0x3fe6a09e667f3bcdu;
  uint64_t as_double = biased | 0x4330000000000000u;   /* 2^52 + biased: AVX2 has no conversion from 64-bit integers */
  double m, k;
  memcpy(&m, &mantissa, 8);
  memcpy(&k, &as_double, 8);
  k -= 4503599627370496.0 + 1023.0;
  double f = m - 1, s = f / (2 + f), z = s * s, half = 0.5 * f * f;
  double r = 2.0 / 23;
  r = r * z + 2.0 / 21;
  r = r * z + 2.0 / 19;
  r = r * z + 2.0 / 17;
  r = r * z + 2.0 / 15;
  r = r * z + 2.0 / 13;
  r = r * z + 2.0 / 11;
  r = r * z + 2.0 / 9;
  r = r * z + 2.0 / 7;
  r = r * z + 2.0 / 5;
  r = r * z + 2.0 / 3;
  r *= z;
  /* log(1+f) = f - (f^2/2 - s (f^2/2 + r)); ln 2 in a part of 33 bits and the rest. */
  return k * 6.93147180369123816490e-01 - ((half - (s * (half + r) + k * 1.90821492927058770002e-10)) - f);
}

/* sin and cos of r in [-pi/4, pi/4], within 1 ulp. */
UNIC_PRECISE double unic_sin_small(double r) {
  double z = r * r, p = -1.0 / 1307674368000.0;
  p = p * z + 1.0 / 6227020800.0;
  p = p * z - 1.0 / 39916800.0;
  p = p * z + 1.0 / 362880.0;
  p = p * z - 1.0 / 5040.0;
  p = p * z + 1.0 / 120.0;
  p = p * z - 1.0 / 6.0;
  return r + r * z * p;
}
UNIC_PRECISE double unic_cos_small(double r) {
  double z = r * r, p = 1.0 / 20922789888000.0;
  p = p * z - 1.0 / 87178291200.0;
  p = p * z + 1.0 / 479001600.0;
  p = p * z - 1.0 / 3628800.0;
  p = p * z + 1.0 / 40320.0;
  p = p * z - 1.0 / 720.0;
  p = p * z + 1.0 / 24.0;
  return 1 - (0.5 * z - z * z * p);
}

/* The quadrant of q (a whole number below 2^51) as an integer, by adding 1.5 2^52: the low bits of the sum are q's. */
UNIC_PRECISE uint64_t unic_low_bits(double q) {
  double shifted = q + 6755399441055744.0;
  uint64_t u;
  memcpy(&u, &shifted, 8);
  return u;
}

/* sin(2 pi w) and cos(2 pi w) for w in [0, 1), within 2 ulp: the reduction is exact. */
UNIC_PRECISE void unic_sincos_turns(double w, double *sine, double *cosine) {
  double q = rint(4 * w), r = (4 * w - q) * 1.5707963267948966;
  uint64_t quadrant = unic_low_bits(q);
  double s = unic_sin_small(r), c = unic_cos_small(r);
  double a = quadrant & 1 ? c : s, b = quadrant & 1 ? s : c;
  *sine = quadrant & 2 ? -a : a;
  *cosine = (quadrant + 1) & 2 ? -b : b;
}

#endif
