/* Products of bf16 rows with f32 or bf16 weights, rounded and packed right before: linear's forward and data gradient, and those of 1x1 convolutions. */
#ifndef UNIC_PAIRS_H
#define UNIC_PAIRS_H

#include "op.h"

/* c[m, n] (+)= sum over k of a[m, k] b[k, n] + bias[n]. */
typedef struct unic_pairs {
  int64_t m, n, k;
  int64_t k_step, n_step;   /* of the weight b, in elements; one of them is 1 */
} unic_pairs;

/* Whether this processor multiplies pairs of bf16, and a's rows are made of whole ones. */
bool unic_pairs_takes(int64_t k);
/* Bytes of the packed weight. */
int64_t unic_pairs_bytes(const unic_pairs *p);
/* What tells its packed forms apart, if it is to be kept with the weight. */
static inline uint64_t unic_pairs_tag(const unic_pairs *p) { return ((uint64_t)p->k << 32 | (uint64_t)p->n << 1 | (p->k_step == 1)) * 0x9E3779B97F4A7C15ull; }
/* The weight, of that type, packed: [n / 64][k / 2][64] pairs along k, zeros past n. Rounded as by a cast, but for subnormal
 * numbers, which are 0: the product takes them for that anyway. to: 64-byte aligned. */
void unic_pairs_pack(const unic_pairs *p, const void *weight, int dtype, void *to);
/* a and c: rows of k and n bf16 numbers without gaps; bias: f32, or NULL; accumulate: c +=. Bits: any_threads. */
void unic_pairs_run(const unic_pairs *p, const void *a, const void *packed, const float *bias, void *c, bool accumulate);
/* The same from a weight that is to be packed on the way; scratch: unic_pairs_scratch(p) bytes, for the number of threads of now, 64-byte aligned. */
int64_t unic_pairs_scratch(const unic_pairs *p);
void unic_pairs_multiply(const unic_pairs *p, const void *a, const void *weight, int dtype, const float *bias, void *c, bool accumulate, void *scratch);

#endif
