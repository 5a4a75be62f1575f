/* Sums over f32 rows with several accumulators: one would wait for its own additions, four keep both adders busy.
 * Eight lanes whatever the instruction set (the compiler splits or joins them); lanes are added up in a fixed order. */
#ifndef UNIC_ROWS_H
#define UNIC_ROWS_H

#include "loops.h"

typedef float unic_f8 __attribute__((vector_size(32), aligned(4), may_alias));
typedef double unic_d4 __attribute__((vector_size(32), aligned(8), may_alias));

/* Macros, because passing such a vector to a function would depend on the instruction set. */
#define UNIC_F8_LOAD(p) (*(const unic_f8 *)(p))
#define UNIC_F8_SUM(v) ((((v)[0] + (v)[4]) + ((v)[2] + (v)[6])) + (((v)[1] + (v)[5]) + ((v)[3] + (v)[7])))

/* `sum` += the sum over i of EXPRESSION(LOAD), where EXPRESSION is a macro that reads element i of a row p as LOAD(p):
 *   #define SQUARE(L) (L(x) * L(x))
 *   UNIC_ROW_SUM(sum, n, SQUARE); */
#define UNIC_ROW_AT8(p) UNIC_F8_LOAD((p) + i_)
#define UNIC_ROW_AT1(p) ((p)[i_])
#define UNIC_ROW_SUM(sum, n, EXPRESSION) \
  do { \
    unic_f8 s0_ = {0}, s1_ = {0}, s2_ = {0}, s3_ = {0}; \
    int64_t i_ = 0; \
    const int64_t n_ = (n); \
    for (; i_ + 32 <= n_; ) { \
      s0_ += EXPRESSION(UNIC_ROW_AT8); i_ += 8; \
      s1_ += EXPRESSION(UNIC_ROW_AT8); i_ += 8; \
      s2_ += EXPRESSION(UNIC_ROW_AT8); i_ += 8; \
      s3_ += EXPRESSION(UNIC_ROW_AT8); i_ += 8; \
    } \
    for (; i_ + 8 <= n_; i_ += 8) s0_ += EXPRESSION(UNIC_ROW_AT8); \
    float rest_ = 0; \
    for (; i_ < n_; i_++) rest_ += EXPRESSION(UNIC_ROW_AT1); \
    s0_ = (s0_ + s1_) + (s2_ + s3_); \
    (sum) += UNIC_F8_SUM(s0_) + rest_; \
  } while (0)

#endif
