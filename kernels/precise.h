/* Branch-free maths that vectorises, more than what loops.h has: logarithms, sine and cosine, powers, erf.
 *
 * Written out of series: the constants are the coefficients of log((1+s)/(1-s)), sin, cos and exp, and the usual split of ln 2 and pi/2 into parts
 * whose products with small integers are exact. Errors are given where each function stands; NaN and Inf behave as in C's library. */
#ifndef UNIC_PRECISE_H
#define UNIC_PRECISE_H

#include "loops.h"
#include "precise64.h"

/* ---------------------------------------------------------------- f64, for what needs more than f32 on the way */

/* exp of t in [-745, 709] to 1e-14; beyond that 0 or inf as f32 sees them. */
UNIC_PRECISE double unic_exp_wide(double t) {
  double c = t < -700 ? -700 : t > 700 ? 700 : t;
  double k = rint(c * 1.4426950408889634), r = c - k * 6.93147180369123816490e-01;
  r -= k * 1.90821492927058770002e-10;
  double p = 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  uint64_t u = (unic_low_bits(k) + 1023) << 52;
  double scale;
  memcpy(&scale, &u, 8);
  return t != t ? t : p * scale;
}

/* ---------------------------------------------------------------- f32 */

/* log, within 1 ulp. */
UNIC_PRECISE float unic_logf(float x) {
  /* Subnormal numbers are brought into range first. */
  bool tiny = x < 1.17549435e-38f;
  float y = tiny ? x * 8388608.0f : x;
  uint32_t u;
  memcpy(&u, &y, 4);
  uint32_t t = u + (0x3f800000u - 0x3f3504f3u), mantissa = (t & 0x007fffffu) + 0x3f3504f3u;
  float k = (float)((int32_t)(t >> 23) - (tiny ? 150 : 127)), m;
  memcpy(&m, &mantissa, 4);
  float f = m - 1, s = f / (2 + f), z = s * s, half = 0.5f * f * f;
  float r = 2.0f / 11;
  r = r * z + 2.0f / 9;
  r = r * z + 2.0f / 7;
  r = r * z + 2.0f / 5;
  r = r * z + 2.0f / 3;
  r *= z;
  float y1 = k * 6.9313812256e-01f - ((half - (s * (half + r) + k * 9.0580006145e-06f)) - f);
  return x > 0 ? (x < (float)INFINITY ? y1 : x) : x == 0 ? -(float)INFINITY : (float)NAN;
}

/* log(1 + x), within 2 ulp: the rounding of 1 + x is made good. */
UNIC_PRECISE float unic_log1pf(float x) {
  float u = 1 + x, lost = x - (u - 1);
  float y = unic_logf(u) + (u > 0 && u < (float)INFINITY ? lost / u : 0);
  return x == 0 ? x : y;
}

/* x (a float) times 2/pi, modulo 4 quarter turns: 2/pi in pieces of 28 bits, so that each product is exact, and so is its remainder. */
UNIC_PRECISE double unic_quarter_turns(double x) {
  #define PIECE(c) (p = x * (c), p - 4 * rint(0.25 * p))
  double p, sum = PIECE(0xA2F9836p-28);
  sum += PIECE(0xE4E4415p-56);
  sum += PIECE(0x29FC275p-84);
  sum += PIECE(0x7D1F534p-112);
  sum += PIECE(0xDDC0DB6p-140);
  sum += PIECE(0x295993Cp-168);
  sum += PIECE(0x439041Fp-196);
  #undef PIECE
  return sum;
}

/* sin(x + turn pi/2) in f64, rounded once: within 0.51 ulp for |x| <= 1e5, 1 ulp beyond. */
UNIC_PRECISE float unic_sin_quadrant(float x, uint64_t turn) {
  double d = (double)x, q = rint(d * 0.63661977236758134);
  double r = d - q * 1.57079632673412561417e+00;
  r -= q * 6.07710050650619224932e-11;
  double turns = unic_quarter_turns(d), whole = rint(turns);
  bool far = fabsf(x) > 1e5f;
  r = far ? (turns - whole) * 1.5707963267948966 : r;
  q = far ? whole : q;
  uint64_t quadrant = unic_low_bits(q) + turn;
  double s = unic_sin_small(r), c = unic_cos_small(r), v = quadrant & 1 ? c : s;
  return (float)(quadrant & 2 ? -v : v);
}
UNIC_PRECISE float unic_sinf(float x) { return x == 0 ? x : unic_sin_quadrant(x, 0); }
UNIC_PRECISE float unic_cosf(float x) { return unic_sin_quadrant(x, 1); }

/* erf, within 2 ulp: its series near zero, 1 - erfc elsewhere. */
UNIC_PRECISE float unic_erff(float x) {
  float a = fabsf(x), z = x * x;
  float tail = unic_erfcxf(a) * unic_expf(-z), big = 1 - tail;
  float p = -1.0f / 75600.0f;
  p = p * z + 1.0f / 9360.0f;
  p = p * z - 1.0f / 1320.0f;
  p = p * z + 1.0f / 216.0f;
  p = p * z - 1.0f / 42.0f;
  p = p * z + 1.0f / 10.0f;
  p = p * z - 1.0f / 3.0f;
  float small = x * 1.12837917f + x * z * p * 1.12837917f;
  return a < 0.6f ? small : x < 0 ? -big : x > 0 ? big : x;
}

/* a^b, within 1 ulp, with the conventions of C's pow. */
UNIC_PRECISE float unic_powf(float a, float b) {
  double x = fabs((double)a), y = (double)b;
  bool zero = x == 0, infinite = x > 3.5e38, nan = a != a || b != b;
  double l = zero ? -(double)INFINITY : infinite ? (double)INFINITY : unic_log_normal(zero || infinite || nan ? 1.0 : x);
  double t = y * l;
  t = t < -200 ? -200 : t > 200 ? 200 : t;               /* f32 is 0 or inf there; also for infinite b and l */
  float p = (float)unic_exp_wide(t);
  p = t <= -200 ? 0.0f : t >= 200 ? (float)INFINITY : p;
  bool whole = rint(y) == y, odd = whole && rint(0.5 * y) != 0.5 * y;
  bool negative = a < 0;
  p = negative && !whole && !infinite ? (float)NAN : p;
  uint32_t sign;
  memcpy(&sign, &a, 4);
  p = odd && sign >> 31 ? -p : p;
  p = x == 1 && (y > 3.5e38 || y < -3.5e38) ? 1.0f : p;
  p = nan ? a + b : p;
  return b == 0 || a == 1 ? 1.0f : p;
}

#endif
