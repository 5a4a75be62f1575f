/* The rows of element-wise maths: one row per function, shared by all devices.
 *
 *   UNARY(name, saves, value, gradient, doc)     value in terms of x; gradient in terms of x and y (as far as saved) and dy
 *   BINARY(name, saves, value, da, db, ints, doc) value in terms of a and b; da, db in terms of a, b, y (as far as saved) and dy;
 *                                                ints: 1 when it is defined on integers too
 *   COMPARE(name, value, doc)                    a truth in terms of a and b
 * F(exp)(x) is the f32 or the f64 form of a function, R(0.5) a constant of that type; M_REMAINDER(a, b) chooses by the type of a. The functions
 * stand in maths.h (CPU) and maths.cuh (GPU). A new activation is one row here and one row in spec/kernels/unary_spec.lua. */
#ifndef UNIC_MATHS_ROWS_H
#define UNIC_MATHS_ROWS_H

#define UNIC_UNARY_ROWS(UNARY) \
  UNARY(neg,        "",  -x,                                            -dy, "-x") \
  UNARY(abs,        "x", F(abs)(x),                                     x > 0 ? dy : x < 0 ? -dy : dy * x, "|x|; its gradient at 0 is 0") \
  UNARY(exp,        "y", F(exp)(x),                                     dy * y, "e^x") \
  UNARY(log,        "x", F(log)(x),                                     dy / x, "the natural logarithm of x") \
  UNARY(log1p,      "x", F(log1p)(x),                                   dy / (R(1) + x), "log(1 + x), exact for small x") \
  UNARY(sqrt,       "y", F(sqrt)(x),                                    dy * R(0.5) / y, "the square root of x") \
  UNARY(rsqrt,      "x", R(1) / F(sqrt)(x),                             R(-0.5) * dy / (x * F(sqrt)(x)), "1 / sqrt(x)") \
  UNARY(reciprocal, "x", R(1) / x,                                      -dy / (x * x), "1 / x") \
  UNARY(square,     "x", x * x,                                         R(2) * dy * x, "x^2") \
  UNARY(sin,        "x", F(sin)(x),                                     dy * F(cos)(x), "the sine of x (radians)") \
  UNARY(cos,        "x", F(cos)(x),                                     -dy * F(sin)(x), "the cosine of x (radians)") \
  UNARY(tanh,       "y", F(tanh)(x),                                    dy * (R(1) - y * y), "the hyperbolic tangent of x") \
  UNARY(sigmoid,    "y", F(sigmoid)(x),                                 dy * y * (R(1) - y), "1 / (1 + e^-x)") \
  UNARY(relu,       "y", x < 0 ? R(0) : x,                              y > 0 ? dy : y == 0 ? R(0) : dy * y, "max(x, 0); its gradient at 0 is 0") \
  UNARY(gelu,       "x", x * F(cdf)(x),                                 dy * (F(cdf)(x) + x * F(pdf)(x)), "x times the normal distribution function of x (the exact form)") \
  UNARY(silu,       "x", x * F(sigmoid)(x),                             dy * F(sigmoid)(x) * (R(1) + x * (R(1) - F(sigmoid)(x))), "x * sigmoid(x)") \
  UNARY(softplus,   "x", (x > 0 ? x : R(0)) + F(log1p)(F(exp)(-F(abs)(x))), dy * F(sigmoid)(x), "log(1 + e^x)") \
  UNARY(erf,        "x", F(erf)(x),                                     dy * R(1.1283791670955126) * F(exp)(-x * x), "the error function of x") \
  UNARY(sign,       "",  x > 0 ? R(1) : x < 0 ? R(-1) : x,              dy * R(0), "-1, 0 or 1") \
  UNARY(floor,      "",  F(floor)(x),                                   dy * R(0), "the largest whole number not above x") \
  UNARY(ceil,       "",  F(ceil)(x),                                    dy * R(0), "the smallest whole number not below x") \
  UNARY(round,      "",  F(round)(x),                                   dy * R(0), "the nearest whole number; halves go to the even one")

#define UNIC_BINARY_ROWS(BINARY) \
  BINARY(add,     "",    a + b,                        dy,                 dy,                          1, "a + b") \
  BINARY(sub,     "",    a - b,                        dy,                 -dy,                         1, "a - b") \
  BINARY(mul,     "a b", a * b,                        dy * b,             dy * a,                      1, "a * b") \
  BINARY(div,     "a b", a / b,                        dy / b,             -dy * a / (b * b),           0, "a / b") \
  BINARY(pow,     "a b", F(pow)(a, b),                 dy * F(powa)(a, b), dy * F(powb)(a, b),          0, "a to the power of b") \
  BINARY(remainder, "a b", M_REMAINDER(a, b),          dy,                 -dy * F(floor)(a / b),       1, \
         "a modulo b, with the sign of b; integers modulo 0 are 0") \
  BINARY(maximum, "a b", a > b || a != a ? a : b,      a > b || a != a ? dy : a == b ? R(0.5) * dy : R(0), b > a || b != b ? dy : a == b ? R(0.5) * dy : R(0), 1, \
         "the larger of a and b; equal ones share the gradient") \
  BINARY(minimum, "a b", a < b || a != a ? a : b,      a < b || a != a ? dy : a == b ? R(0.5) * dy : R(0), b < a || b != b ? dy : a == b ? R(0.5) * dy : R(0), 1, \
         "the smaller of a and b; equal ones share the gradient")

#define UNIC_COMPARE_ROWS(COMPARE) \
  COMPARE(eq, a == b, "a equals b") \
  COMPARE(ne, a != b, "a differs from b") \
  COMPARE(lt, a < b, "a is below b") \
  COMPARE(le, a <= b, "a is at most b") \
  COMPARE(gt, a > b, "a is above b") \
  COMPARE(ge, a >= b, "a is at least b") \
  COMPARE(logical_and, a != 0 && b != 0, "both are not zero") \
  COMPARE(logical_or, a != 0 || b != 0, "at least one is not zero")

#endif
