/* Matrix products on the device, by cuBLASLt where it takes them and by an own kernel (kernels/product.cuh) where it does not. Read by C and by C++.
 *
 *   D = alpha * sum over `sums` of A B + beta * D (+ bias),   A [m, k], B [k, n], D [m, n], once for every index of `loops`
 *
 * in row-major wording: a step is the way from an element to the next along that dimension, in elements, so a transposed operand is one with its steps
 * exchanged; any steps are taken, 0 and negative ones too (D's elements must not overlap). A and B have one floating type; D has that one, or f32
 * beside bf16 and f16. Sums are f32 (f64 for f64), their order hangs on shapes, types and steps alone.
 *
 * An op's plan function fills one in and calls unic_cuda_product_plan, keeps it in its plan's data, adds product.scratch to the plan's scratch, and its
 * kernel runs it; the plan's free calls unic_cuda_product_free. */
#ifndef UNIC_CUDA_BLAS_H
#define UNIC_CUDA_BLAS_H

#include "cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct unic_cuda_product {
  /* What is asked. */
  int64_t m, n, k;
  int64_t a_row, a_col, b_row, b_col, d_row, d_col;
  int loops;                            /* outermost first */
  int64_t count[UNIC_MAX_RANK], a_loop[UNIC_MAX_RANK], b_loop[UNIC_MAX_RANK], d_loop[UNIC_MAX_RANK];
  int sums;
  int64_t sum[UNIC_MAX_RANK], a_sum[UNIC_MAX_RANK], b_sum[UNIC_MAX_RANK];
  uint8_t dtype, d_dtype;               /* of A and B; of D */
  double alpha, beta;                   /* beta 0: D is not read */
  bool bias;                            /* wished: a row of n elements of D's type is added to every row; asked of a D with d_col 1 */
  /* What unic_cuda_product_plan makes of it (the sizes and steps above become those of merged dimensions). */
  bool adds_bias;                       /* the wish is granted; otherwise the op adds it */
  int64_t scratch;                      /* bytes that unic_cuda_product_run needs, 256-byte pieces */
  int form;
  int batch;                            /* which loop goes into one launch; -1: none */
  int64_t chunk;                        /* sums at a time */
  struct unic_cuda_lt *lt;              /* owned */
} unic_cuda_product;

/* One product of dense row-major matrices, 'N' or 'T' as in BLAS ('T': A lies as [k, m], B as [n, k]). */
static inline unic_cuda_product unic_cuda_product_of(char ta, char tb, int64_t m, int64_t n, int64_t k, int dtype, int d_dtype) {
  unic_cuda_product p;
  for (unsigned i = 0; i < sizeof p; i++) ((char *)&p)[i] = 0;
  p.m = m;
  p.n = n;
  p.k = k;
  p.a_row = ta == 'N' ? k : 1;
  p.a_col = ta == 'N' ? 1 : m;
  p.b_row = tb == 'N' ? n : 1;
  p.b_col = tb == 'N' ? 1 : k;
  p.d_row = n;
  p.d_col = 1;
  p.dtype = (uint8_t)dtype;
  p.d_dtype = (uint8_t)d_dtype;
  p.alpha = 1;
  return p;
}

/* Chooses how; the first one on a device starts cuBLASLt. Fails when that does. */
unic_status unic_cuda_product_plan(const unic_kernel *k, unic_cuda_product *p);
void unic_cuda_product_free(unic_cuda_product *p);
/* Launches it. `bias`: read when adds_bias; `scratch`: p->scratch bytes, 256-byte aligned, free again after the launch. */
unic_status unic_cuda_product_run(const unic_kernel *k, const unic_cuda_product *p, const void *a, const void *b, void *d, const void *bias, void *scratch);

/* cuBLASLt's part of a device is let go. */
void unic_cuda_blas_close(unic_cuda *c);

/* The own kernels (kernels/product.cuh, compiled with kernels/matmul.cu): all of p, from operands of any steps, ... */
unic_status unic_cuda_product_own(const unic_kernel *k, const unic_cuda_product *p, const void *a, const void *b, void *d, const void *bias);
/* ... and D = beta D + the sum of `parts` row-major matrices [m, n] that lie one after the other, in D's wide type. */
unic_status unic_cuda_product_settle(const unic_kernel *k, const unic_cuda_product *p, const void *parts, int64_t count, void *d, double beta);

#ifdef __cplusplus
}
#endif

#endif
