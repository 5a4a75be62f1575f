/* Matrix products for the kernels that need one: C[M,N] = A[M,K] B[K,N], with any strides and storage types.
 *
 * unic_gemm is oneDNN's f32 product with the zero sizes taken care of. unic_product stands above it: operands that oneDNN can read in place
 * (f32, one dimension with stride 1) are read in place, all others are brought into f32 panels of bounded size in scratch; half-precision
 * results leave through an f32 tile, rounded once. Where oneDNN multiplies half-precision matrices itself (bf16 from AVX-512 BF16 on),
 * unic_product_native plans that instead. Both live in matmul.c. */
#ifndef UNIC_GEMM_H
#define UNIC_GEMM_H

#include "op.h"

/* Wakes oneDNN; to be called (by plans) before a team may call unic_gemm. */
void unic_gemm_start(void);

/* C = alpha op(A) op(B) + beta C, row-major, on the team, or on the calling thread alone (where the same bits are wanted at any thread count,
 * or many products run side by side). 'N' or 'T' as in BLAS. Sizes may be zero; C is not read when beta is 0. False: oneDNN refused. */
bool unic_gemm(bool alone, char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
               float beta, float *c, int64_t ldc);

typedef struct unic_product {
  /* What is asked. Strides in elements; c's elements do not overlap. */
  int64_t m, n, k;
  int64_t a_row, a_col, b_row, b_col, c_row, c_col;
  uint8_t a_dtype, b_dtype, c_dtype;       /* f32, bf16 or f16 */
  bool alone;                              /* on the calling thread only */
  int sums;                                /* C is the sum of this product over these dimensions (a broadcast operand's gradient) */
  int64_t sum[UNIC_MAX_RANK], sum_a[UNIC_MAX_RANK], sum_b[UNIC_MAX_RANK];
  bool tiled;                              /* results go to the `store` of unic_product_run, c is not written */
  /* What unic_product_plan makes of it. */
  bool swapped;                            /* C's columns are the contiguous ones: C' = B' A' is computed */
  bool a_copy, b_copy, c_copy;
  char a_form, b_form;
  int64_t lda, ldb, ldc, pm, pn, pk;
  int64_t scratch;                         /* floats, a multiple of 16 */
  void *native;                            /* oneDNN's primitive for all of it; owned */
} unic_product;

/* Where tiles of results go: rows i .. i+m-1, columns j .. j+n-1 of C as tile[m][n]. Never with a swapped plan. */
typedef void unic_product_store(void *context, const float *tile, int64_t i, int64_t m, int64_t j, int64_t n);

void unic_product_plan(unic_product *p);
/* Plan p as one half-precision product of oneDNN's, for exactly these sizes: operands of one half type with a unit stride each, C row-major,
 * not alone, no sums. bias: an f32 row is added (passed to the run in the place of `context`); accumulate: that of every run. *planned false: not
 * to be had here, and p is as before. A failure (no memory) is none of that: another way to compute it would give other bits. `op` is for the
 * sentence. */
unic_status unic_product_native(const char *op, unic_product *p, bool bias, int accumulate, bool *planned);
void unic_product_free(unic_product *p);
/* accumulate: C += instead of C =. */
bool unic_product_run(const unic_product *p, const void *a, const void *b, void *c, int accumulate, float *scratch, unic_product_store *store, void *context);

/* `count` elements on from p, in a storage of that type. */
static inline void *unic_at(const void *p, int dtype, int64_t count) { return (char *)p + count * (dtype == UNIC_F64 ? 8 : dtype == UNIC_F32 ? 4 : 2); }

#endif
