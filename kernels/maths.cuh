/* The functions that the rows of element-wise maths (maths_rows.h) are written in, on the GPU: unic_math_exp and so on, for float and for double.
 *
 * Most are CUDA's own in full precision (at most 4 units of the last place). Sine and cosine are not: theirs keep an array in local memory for large
 * arguments. Here an argument is brought to a quarter turn in f64, and only rare, large ones pay for it. */
#ifndef UNIC_MATHS_CUH
#define UNIC_MATHS_CUH

#include "cuda.cuh"
#include "maths_rows.h"
#include "precise64.h"

#define UNIC_MATH static __device__ __forceinline__

UNIC_MATH float unic_math_exp(float x) { return expf(x); }
UNIC_MATH double unic_math_exp(double x) { return exp(x); }
UNIC_MATH float unic_math_log(float x) { return logf(x); }
UNIC_MATH double unic_math_log(double x) { return log(x); }
UNIC_MATH float unic_math_log1p(float x) { return log1pf(x); }
UNIC_MATH double unic_math_log1p(double x) { return log1p(x); }
UNIC_MATH float unic_math_sqrt(float x) { return sqrtf(x); }
UNIC_MATH double unic_math_sqrt(double x) { return sqrt(x); }
UNIC_MATH float unic_math_tanh(float x) { return tanhf(x); }
UNIC_MATH double unic_math_tanh(double x) { return tanh(x); }
UNIC_MATH float unic_math_sigmoid(float x) {
  float e = expf(-fabsf(x)), p = 1.0f / (1.0f + e);
  return x >= 0 ? p : e * p;
}
UNIC_MATH double unic_math_sigmoid(double x) {
  double e = exp(-fabs(x)), p = 1.0 / (1.0 + e);
  return x >= 0 ? p : e * p;
}
/* The standard normal's distribution function, and its density. */
UNIC_MATH float unic_math_cdf(float x) { return 0.5f * erfcf(-x * 0.707106781f); }
UNIC_MATH double unic_math_cdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
UNIC_MATH float unic_math_pdf(float x) { return 0.398942280f * expf(-0.5f * x * x); }
UNIC_MATH double unic_math_pdf(double x) { return 0.39894228040143267794 * exp(-0.5 * x * x); }
UNIC_MATH float unic_math_erf(float x) { return erff(x); }
UNIC_MATH double unic_math_erf(double x) { return erf(x); }
UNIC_MATH float unic_math_pow(float a, float b) { return powf(a, b); }
UNIC_MATH double unic_math_pow(double a, double b) { return pow(a, b); }
UNIC_MATH float unic_math_floor(float x) { return floorf(x); }
UNIC_MATH double unic_math_floor(double x) { return floor(x); }
UNIC_MATH float unic_math_ceil(float x) { return ceilf(x); }
UNIC_MATH double unic_math_ceil(double x) { return ceil(x); }
UNIC_MATH float unic_math_round(float x) { return rintf(x); }
UNIC_MATH double unic_math_round(double x) { return rint(x); }
UNIC_MATH float unic_math_abs(float x) { return fabsf(x); }
UNIC_MATH double unic_math_abs(double x) { return fabs(x); }

/* a modulo b with the sign of b, exactly: as the CPU (maths.h). */
UNIC_MATH double unic_math_remainder(double a, double b) {
  double r = fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
UNIC_MATH float unic_math_remainder(float a, float b) {
  double q = floor((double)a / (double)b);
  if (!(fabs(q) < 16777216.0) || fabsf(b) > 3.4028235e38f) return (float)unic_math_remainder((double)a, (double)b);
  return (float)((double)a - q * (double)b);
}
UNIC_MATH long long unic_math_remainder(long long a, long long b) {
  if (b == 0 || b == -1) return 0;   /* by -1: the smallest integer has no quotient */
  long long r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
/* Holds the sum and the product of any two 64-bit integers. */
__extension__ typedef __int128 unic_math_integer;
UNIC_MATH unic_math_integer unic_math_remainder(unic_math_integer a, unic_math_integer b) { return unic_math_remainder((long long)a, (long long)b); }
/* d/da a^b and d/db a^b with the conventions 0^0 = 1, and no NaN from 0 * inf where the factor is 0. */
template <class W> UNIC_MATH W unic_math_powa(W a, W b) { return b == 0 ? W(0) : b * unic_math_pow(a, b - 1); }
template <class W> UNIC_MATH W unic_math_powb(W a, W b) { return a == 0 && b >= 0 ? W(0) : unic_math_pow(a, b) * unic_math_log(a); }

/* ---------------------------------------------------------------- sine and cosine */

/* sin and cos of r in [-pi/4, pi/4]: their series. */
UNIC_MATH double unic_math_sin_small(double r) { return unic_sin_small(r); }
UNIC_MATH double unic_math_cos_small(double r) { return unic_cos_small(r); }
UNIC_MATH float unic_math_sin_small(float r) {
  float z = r * r, p = 1.0f / 362880.0f;
  p = p * z - 1.0f / 5040.0f;
  p = p * z + 1.0f / 120.0f;
  p = p * z - 1.0f / 6.0f;
  return r + r * z * p;
}
UNIC_MATH float unic_math_cos_small(float r) {
  float z = r * r, p = -1.0f / 3628800.0f;
  p = p * z + 1.0f / 40320.0f;
  p = p * z - 1.0f / 720.0f;
  p = p * z + 1.0f / 24.0f;
  return 1 - (0.5f * z - z * z * p);
}

/* x (of at most 24 bits, below 2^128) times 2/pi, modulo 4 quarter turns: 2/pi in pieces of 28 bits, so that each product is exact, and so is its
 * remainder. */
UNIC_MATH double unic_math_quarter_turns(double x) {
  constexpr double piece[7] = {0xA2F9836p-28, 0xE4E4415p-56, 0x29FC275p-84, 0x7D1F534p-112, 0xDDC0DB6p-140, 0x295993Cp-168, 0x439041Fp-196};
  double sum = 0;
#pragma unroll
  for (int i = 0; i < 7; i++) {
    double p = x * piece[i];
    sum += p - 4 * rint(0.25 * p);
  }
  return sum;
}

/* x = q pi/2 + r with |r| <= pi/4; returns r, in *quadrant q modulo 4. x above 1e5 by pieces of 24 bits (f64 beyond 2^128: NaN). */
UNIC_MATH double unic_math_quarter(double x, int *quadrant) {
  if (fabs(x) <= 1e5) {
    double q = rint(x * 0.63661977236758134), r = fma(q, -1.57079632679489655800e+00, x);
    *quadrant = (int)q & 3;
    return fma(q, -6.12323399573676603587e-17, r);
  }
  double turns = 0, rest = x;
#pragma unroll 1
  for (int i = 0; i < 3 && rest != 0; i++) {
    float part = (float)rest;
    turns += unic_math_quarter_turns((double)part);
    turns -= 4 * rint(0.25 * turns);
    rest -= (double)part;
  }
  double whole = rint(turns);
  *quadrant = whole == whole ? (int)whole & 3 : 0;
  return (turns - whole) * 1.5707963267948966;
}

template <class W> UNIC_MATH W unic_math_sin_turned(W x, int turn) {
  int quadrant;
  W r = (W)unic_math_quarter((double)x, &quadrant);
  quadrant += turn;
  W v = quadrant & 1 ? unic_math_cos_small(r) : unic_math_sin_small(r);
  return quadrant & 2 ? -v : v;
}
template <class W> UNIC_MATH W unic_math_sin(W x) { return x == 0 ? x : unic_math_sin_turned(x, 0); }
template <class W> UNIC_MATH W unic_math_cos(W x) { return unic_math_sin_turned(x, 1); }

#endif
