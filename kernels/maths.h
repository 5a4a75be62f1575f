/* The functions that the rows of element-wise maths (maths_rows.h) are written in, on the CPU: m_exp_f32, m_exp_f64 and so on. */
#ifndef UNIC_MATHS_H
#define UNIC_MATHS_H

#include "maths_rows.h"
#include "precise.h"

UNIC_PRECISE float m_exp_f32(float x) { return unic_expf(x); }
UNIC_PRECISE double m_exp_f64(double x) { return exp(x); }
UNIC_PRECISE float m_log_f32(float x) { return unic_logf(x); }
UNIC_PRECISE double m_log_f64(double x) { return log(x); }
UNIC_PRECISE float m_log1p_f32(float x) { return unic_log1pf(x); }
UNIC_PRECISE double m_log1p_f64(double x) { return log1p(x); }
UNIC_PRECISE float m_sqrt_f32(float x) { return sqrtf(x); }
UNIC_PRECISE double m_sqrt_f64(double x) { return sqrt(x); }
UNIC_PRECISE float m_sin_f32(float x) { return unic_sinf(x); }
UNIC_PRECISE double m_sin_f64(double x) { return sin(x); }
UNIC_PRECISE float m_cos_f32(float x) { return unic_cosf(x); }
UNIC_PRECISE double m_cos_f64(double x) { return cos(x); }
UNIC_PRECISE float m_tanh_f32(float x) { return unic_tanhf(x); }
UNIC_PRECISE double m_tanh_f64(double x) { return tanh(x); }
UNIC_PRECISE float m_sigmoid_f32(float x) { return unic_sigmoidf(x); }
UNIC_PRECISE double m_sigmoid_f64(double x) { return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x)); }
UNIC_PRECISE float m_cdf_f32(float x) { return unic_normal_cdff(x); }
UNIC_PRECISE double m_cdf_f64(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
UNIC_PRECISE float m_pdf_f32(float x) { return unic_normal_pdff(x); }
UNIC_PRECISE double m_pdf_f64(double x) { return 0.39894228040143267794 * exp(-0.5 * x * x); }
UNIC_PRECISE float m_erf_f32(float x) { return unic_erff(x); }
UNIC_PRECISE double m_erf_f64(double x) { return erf(x); }
UNIC_PRECISE float m_pow_f32(float a, float b) { return unic_powf(a, b); }
UNIC_PRECISE double m_pow_f64(double a, double b) { return pow(a, b); }
UNIC_PRECISE float m_floor_f32(float x) { return floorf(x); }
UNIC_PRECISE double m_floor_f64(double x) { return floor(x); }
UNIC_PRECISE float m_ceil_f32(float x) { return ceilf(x); }
UNIC_PRECISE double m_ceil_f64(double x) { return ceil(x); }
UNIC_PRECISE float m_round_f32(float x) { return rintf(x); }
UNIC_PRECISE double m_round_f64(double x) { return rint(x); }
UNIC_PRECISE float m_abs_f32(float x) { return fabsf(x); }
UNIC_PRECISE double m_abs_f64(double x) { return fabs(x); }
/* a modulo b with the sign of b, exactly. The quotient of two floats, in f64, is rounded across a whole number only where it is far above 2^24, and
 * its product with b has no error below 2^29; beyond that, fmod. */
UNIC_PRECISE double m_remainder_f64(double a, double b) {
  double r = fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
UNIC_PRECISE float m_remainder_f32(float a, float b) {
  double q = floor((double)a / (double)b);
  if (!(fabs(q) < 16777216.0) || isinf(b)) return (float)m_remainder_f64((double)a, (double)b);
  return (float)((double)a - q * (double)b);
}
UNIC_PRECISE int64_t m_remainder_i64(int64_t a, int64_t b) {
  if (b == 0 || b == -1) return 0;   /* by -1: the smallest integer has no quotient */
  int64_t r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}
#define M_REMAINDER(a, b) _Generic((a), float: m_remainder_f32, double: m_remainder_f64, default: m_remainder_i64)(a, b)
/* d/da a^b and d/db a^b with the conventions 0^0 = 1, and no NaN from 0 * inf where the factor is 0. */
UNIC_PRECISE float m_powa_f32(float a, float b) { return b == 0 ? 0 : b * unic_powf(a, b - 1); }
UNIC_PRECISE double m_powa_f64(double a, double b) { return b == 0 ? 0 : b * pow(a, b - 1); }
UNIC_PRECISE float m_powb_f32(float a, float b) { return a == 0 && b >= 0 ? 0 : unic_powf(a, b) * unic_logf(a); }
UNIC_PRECISE double m_powb_f64(double a, double b) { return a == 0 && b >= 0 ? 0 : pow(a, b) * log(a); }

#endif
