/* Which way a product goes, and cuBLASLt's descriptors and algorithms for those that go there.
 *
 * A plan merges loops, folds them into m, n or k where the steps allow (a batch times one matrix is one product), and takes the first that fits:
 *   one launch of cuBLASLt       at most one loop left, each matrix with a unit step, rows that do not overlap
 *   one launch per outer index   more loops, of large products
 *   sums as a batch              a broadcast operand's gradient: one launch of products into f32 in scratch, one that adds them up
 *   the own kernel               everything else: other steps, small products in many loops, nothing to sum, and what cuBLASLt declines
 *
 * cuBLASLt is column-major: a row-major D is its transpose there, D' = B' A', and costs nothing. The algorithm is the heuristic's first answer for the
 * shape, asked once per plan with what the arena promises of alignment; a look at an odd place gets a second algorithm at its first run. Equal runs have
 * equal bits: split sums only through the workspace (no atomics, no "in place"), in the compute type.
 * Epilogues: the bias only. cuBLASLt's GELU is the tanh form and ours is exact, its ReLU does not say what it does to NaN, and its bias gradients come
 * in the output's type: those are own kernels (linear.cu).
 * f32 multiplies in f32. UNIC_TF32=1 lets it round its operands to 10 bits of mantissa for the sake of tensor cores. */
#include "blas.h"

#include <cublasLt.h>
#include <stdlib.h>
#include <string.h>

enum { NOTHING, WHOLE, EACH, PARTS, OWN };
/* WORKSPACE: what NVIDIA recommends for its newest architectures. ALIGNED: bytes; whatever the arena gives is aligned to 64. */
enum { WORKSPACE = 32 << 20, ALIGNED = 16, PARTS_MOST = 64 << 20, LAUNCHES = 64 };
/* Flops from which a launch of cuBLASLt is worth its start beside one own launch for everything. */
#define LARGE 8e6

struct unic_cuda_blas { cublasLtHandle_t handle; };

/* Column-major: Dc [rows, columns] = X Y. */
struct unic_cuda_lt {
  cublasLtMatmulDesc_t desc;
  cublasLtMatrixLayout_t x, y, d;
  bool swapped;                         /* X is B' and Y is A' */
  bool loose_known;
  cublasLtMatmulAlgo_t aligned, loose;
  size_t aligned_bytes, loose_bytes;    /* of workspace */
};

static unic_status check(cublasStatus_t status, const char *what) {
  return status == CUBLAS_STATUS_SUCCESS ? UNIC_OK : unic_cuda_host->fail("[cuda] %s: %s", what, cublasLtGetStatusString(status));
}

static unic_status start(unic_cuda *c) {
  UNIC_TRY(unic_cuda_check(cudaSetDevice(c->ordinal), "cudaSetDevice"));
  if (c->blas) return UNIC_OK;
  struct unic_cuda_blas *b = calloc(1, sizeof *b);
  if (!b) return unic_cuda_host->fail("[cuda] no host memory for cuBLAS");
  unic_status status = check(cublasLtCreate(&b->handle), "cublasLtCreate");
  if (status == UNIC_OK) c->blas = b;
  else free(b);
  return status;
}

void unic_cuda_blas_close(unic_cuda *c) {
  if (!c->blas) return;
  cublasLtDestroy(c->blas->handle);
  free(c->blas);
  c->blas = NULL;
}

/* ---------------------------------------------------------------- descriptors */

static cudaDataType_t type_of(int dtype) {
  return dtype == UNIC_F64 ? CUDA_R_64F : dtype == UNIC_BF16 ? CUDA_R_16BF : dtype == UNIC_F16 ? CUDA_R_16F : CUDA_R_32F;
}
static int wide_of(int dtype) { return dtype == UNIC_F64 ? UNIC_F64 : UNIC_F32; }
static int64_t size_of(int dtype) { return dtype == UNIC_F64 ? 8 : dtype == UNIC_F32 ? 4 : 2; }

/* op(M) [rows, columns] in column-major words: as it lies ('N') or transposed. False: no unit step, or rows that overlap. */
static bool lies(int64_t rows, int64_t columns, int64_t row_step, int64_t column_step, bool *turned, int64_t *ld) {
  if ((row_step == 1 || rows == 1) && (columns == 1 || column_step >= rows)) {
    *turned = false;
    *ld = columns == 1 ? rows : column_step;
    return true;
  }
  if ((column_step == 1 || columns == 1) && (rows == 1 || row_step >= columns)) {
    *turned = true;
    *ld = rows == 1 ? columns : row_step;
    return true;
  }
  return false;
}

typedef struct form { bool swapped, x_turned, y_turned; int64_t rows, columns, ldx, ldy, ldd; } form;

static bool form_of(const unic_cuda_product *p, form *f) {
  bool turned;
  if ((p->d_col == 1 || p->n == 1) && (p->m == 1 || p->d_row >= p->n)) {
    *f = (form){.swapped = true, .rows = p->n, .columns = p->m, .ldd = p->m == 1 ? p->n : p->d_row};
    return lies(p->n, p->k, p->b_col, p->b_row, &f->x_turned, &f->ldx) && lies(p->k, p->m, p->a_col, p->a_row, &f->y_turned, &f->ldy);
  }
  *f = (form){.rows = p->m, .columns = p->n};
  return !p->bias && lies(p->m, p->n, p->d_row, p->d_col, &turned, &f->ldd) && !turned && lies(p->m, p->k, p->a_row, p->a_col, &f->x_turned, &f->ldx) &&
         lies(p->k, p->n, p->b_row, p->b_col, &f->y_turned, &f->ldy);
}

static cublasStatus_t layout(cublasLtMatrixLayout_t *out, int dtype, int64_t rows, int64_t columns, bool turned, int64_t ld, int64_t batch, int64_t step) {
  cublasStatus_t s = cublasLtMatrixLayoutCreate(out, type_of(dtype), (uint64_t)(turned ? columns : rows), (uint64_t)(turned ? rows : columns), ld);
  if (s != CUBLAS_STATUS_SUCCESS || batch == 1) return s;
  int32_t count = (int32_t)batch;
  s = cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
  if (s == CUBLAS_STATUS_SUCCESS) s = cublasLtMatrixLayoutSetAttribute(*out, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &step, sizeof step);
  return s;
}

/* The heuristic's first answer for pointers of that alignment. NOT_SUPPORTED: it has none. */
static cublasStatus_t choose(const unic_cuda *c, const struct unic_cuda_lt *lt, uint32_t alignment, size_t workspace, cublasLtMatmulAlgo_t *algo, size_t *bytes) {
  static const cublasLtMatmulPreferenceAttributes_t sides[4] = {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                                                                CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES};
  cublasLtMatmulPreference_t wish;
  cublasStatus_t s = cublasLtMatmulPreferenceCreate(&wish);
  if (s != CUBLAS_STATUS_SUCCESS) return s;
  uint32_t schemes = CUBLASLT_REDUCTION_SCHEME_NONE | CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
  uint64_t most = workspace;
  s = cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &most, sizeof most);
  if (s == CUBLAS_STATUS_SUCCESS) s = cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &schemes, sizeof schemes);
  for (int i = 0; i < 4 && s == CUBLAS_STATUS_SUCCESS; i++) s = cublasLtMatmulPreferenceSetAttribute(wish, sides[i], &alignment, sizeof alignment);
  cublasLtMatmulHeuristicResult_t found;
  memset(&found, 0, sizeof found);
  int count = 0;
  if (s == CUBLAS_STATUS_SUCCESS) s = cublasLtMatmulAlgoGetHeuristic(c->blas->handle, lt->desc, lt->x, lt->y, lt->d, lt->d, wish, 1, &found, &count);
  if (s == CUBLAS_STATUS_SUCCESS && count < 1) s = CUBLAS_STATUS_NOT_SUPPORTED;
  if (s == CUBLAS_STATUS_SUCCESS) s = found.state;
  cublasLtMatmulPreferenceDestroy(wish);
  *algo = found.algo;
  *bytes = found.workspaceSize;
  return s;
}

static void lt_free(struct unic_cuda_lt *lt) {
  if (!lt) return;
  if (lt->desc) cublasLtMatmulDescDestroy(lt->desc);
  if (lt->x) cublasLtMatrixLayoutDestroy(lt->x);
  if (lt->y) cublasLtMatrixLayoutDestroy(lt->y);
  if (lt->d) cublasLtMatrixLayoutDestroy(lt->d);
  free(lt);
}

/* Descriptors and an algorithm of p as `batch` products with those steps; *out stays NULL where cuBLASLt takes no such product. */
static unic_status lt_make(const unic_cuda *c, const unic_cuda_product *p, bool bias, int64_t batch, int64_t a_step, int64_t b_step, int64_t d_step, struct unic_cuda_lt **out) {
  form f;
  if (!form_of(p, &f)) return UNIC_OK;
  if (batch > 1 && (a_step < 0 || b_step < 0 || d_step < 0 || batch > INT32_MAX)) return UNIC_OK;
  struct unic_cuda_lt *lt = calloc(1, sizeof *lt);
  if (!lt) return unic_cuda_host->fail("[cuda] no host memory for a product");
  lt->swapped = f.swapped;
  bool f64 = p->dtype == UNIC_F64, tf32 = p->dtype == UNIC_F32 && c->tf32;
  int32_t x = f.x_turned ? CUBLAS_OP_T : CUBLAS_OP_N, y = f.y_turned ? CUBLAS_OP_T : CUBLAS_OP_N;
  cublasStatus_t s = cublasLtMatmulDescCreate(&lt->desc, f64 ? CUBLAS_COMPUTE_64F : tf32 ? CUBLAS_COMPUTE_32F_FAST_TF32 : CUBLAS_COMPUTE_32F, f64 ? CUDA_R_64F : CUDA_R_32F);
  if (s == CUBLAS_STATUS_SUCCESS) s = cublasLtMatmulDescSetAttribute(lt->desc, CUBLASLT_MATMUL_DESC_TRANSA, &x, sizeof x);
  if (s == CUBLAS_STATUS_SUCCESS) s = cublasLtMatmulDescSetAttribute(lt->desc, CUBLASLT_MATMUL_DESC_TRANSB, &y, sizeof y);
  if (s == CUBLAS_STATUS_SUCCESS && bias) {
    uint32_t epilogue = CUBLASLT_EPILOGUE_BIAS;
    const void *somewhere = (const void *)(uintptr_t)ALIGNED;   /* the heuristic looks at the address's alignment */
    s = cublasLtMatmulDescSetAttribute(lt->desc, CUBLASLT_MATMUL_DESC_EPILOGUE, &epilogue, sizeof epilogue);
    if (s == CUBLAS_STATUS_SUCCESS) s = cublasLtMatmulDescSetAttribute(lt->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &somewhere, sizeof somewhere);
  }
  if (s == CUBLAS_STATUS_SUCCESS) s = layout(&lt->x, p->dtype, f.rows, p->k, f.x_turned, f.ldx, batch, f.swapped ? b_step : a_step);
  if (s == CUBLAS_STATUS_SUCCESS) s = layout(&lt->y, p->dtype, p->k, f.columns, f.y_turned, f.ldy, batch, f.swapped ? a_step : b_step);
  if (s == CUBLAS_STATUS_SUCCESS) s = layout(&lt->d, p->d_dtype, f.rows, f.columns, false, f.ldd, batch, d_step);
  unic_status status = check(s, "descriptors of a product");
  if (status == UNIC_OK) s = choose(c, lt, ALIGNED, WORKSPACE, &lt->aligned, &lt->aligned_bytes);
  if (status != UNIC_OK || s != CUBLAS_STATUS_SUCCESS) lt_free(lt);   /* declined: another way is found */
  else *out = lt;
  return status;
}

static unic_status lt_run(const unic_cuda *c, struct unic_cuda_lt *lt, int dtype, double alpha, double beta, const void *a, const void *b, void *d, const void *bias, void *scratch) {
  float alpha32 = (float)alpha, beta32 = (float)beta;
  const void *x = lt->swapped ? b : a, *y = lt->swapped ? a : b;
  bool f64 = dtype == UNIC_F64, aligned = (((uintptr_t)a | (uintptr_t)b | (uintptr_t)d | (uintptr_t)bias) & (ALIGNED - 1)) == 0;
  if (bias) UNIC_TRY(check(cublasLtMatmulDescSetAttribute(lt->desc, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias), "the bias of a product"));
  if (!aligned && !lt->loose_known) {   /* the scratch there is was measured for the other one */
    UNIC_TRY(check(choose(c, lt, (uint32_t)(f64 ? 8 : dtype == UNIC_F32 ? 4 : 2), lt->aligned_bytes, &lt->loose, &lt->loose_bytes), "an algorithm for an unaligned product"));
    lt->loose_known = true;
  }
  return check(cublasLtMatmul(c->blas->handle, lt->desc, f64 ? (const void *)&alpha : (const void *)&alpha32, x, lt->x, y, lt->y, f64 ? (const void *)&beta : (const void *)&beta32,
                              d, lt->d, d, lt->d, aligned ? &lt->aligned : &lt->loose, scratch, aligned ? lt->aligned_bytes : lt->loose_bytes, c->stream),
               "cublasLtMatmul");
}

/* ---------------------------------------------------------------- plans */

/* Outermost first: neighbours that step through everything as one dimension become one. */
static int merge(int n, int64_t *count, int64_t *a, int64_t *b, int64_t *d) {
  int to = 0;
  for (int i = 0; i < n; i++) {
    if (count[i] == 1) continue;
    if (to > 0 && a[to - 1] == a[i] * count[i] && b[to - 1] == b[i] * count[i] && d[to - 1] == d[i] * count[i]) {
      count[to - 1] *= count[i];
      a[to - 1] = a[i]; b[to - 1] = b[i]; d[to - 1] = d[i];
    } else {
      count[to] = count[i]; a[to] = a[i]; b[to] = b[i]; d[to] = d[i];
      to++;
    }
  }
  return to;
}

static void simplify(unic_cuda_product *p) {
  int64_t none[UNIC_MAX_RANK] = {0};
  p->loops = merge(p->loops, p->count, p->a_loop, p->b_loop, p->d_loop);
  p->sums = merge(p->sums, p->sum, p->a_sum, p->b_sum, none);
  for (; p->loops > 0; p->loops--) {
    int i = p->loops - 1;
    if (p->b_loop[i] == 0 && (p->m == 1 || (p->a_loop[i] == p->m * p->a_row && p->d_loop[i] == p->m * p->d_row))) {
      if (p->m == 1) { p->a_row = p->a_loop[i]; p->d_row = p->d_loop[i]; }
      p->m *= p->count[i];
    } else if (!p->bias && p->a_loop[i] == 0 && (p->n == 1 || (p->b_loop[i] == p->n * p->b_col && p->d_loop[i] == p->n * p->d_col))) {
      if (p->n == 1) { p->b_col = p->b_loop[i]; p->d_col = p->d_loop[i]; }
      p->n *= p->count[i];
    } else {
      break;
    }
  }
  for (; p->sums > 0; p->sums--) {
    int i = p->sums - 1;
    if (p->k != 1 && !(p->a_sum[i] == p->k * p->a_col && p->b_sum[i] == p->k * p->b_row)) break;
    if (p->k == 1) { p->a_col = p->a_sum[i]; p->b_row = p->b_sum[i]; }
    p->k *= p->sum[i];
  }
}

static int64_t round_up(int64_t bytes) { return (bytes + 255) / 256 * 256; }

static unic_status plan_whole(const unic_cuda *c, unic_cuda_product *p) {
  int64_t batch = p->loops ? p->count[0] : 1, a = p->loops ? p->a_loop[0] : 0, b = p->loops ? p->b_loop[0] : 0, d = p->loops ? p->d_loop[0] : 0;
  p->adds_bias = p->bias && p->dtype != UNIC_F64 && batch == 1;
  UNIC_TRY(lt_make(c, p, p->adds_bias, batch, a, b, d, &p->lt));
  if (!p->lt && p->adds_bias) {
    p->adds_bias = false;
    UNIC_TRY(lt_make(c, p, false, batch, a, b, d, &p->lt));
  }
  if (p->lt) p->form = WHOLE;
  return UNIC_OK;
}

/* One loop becomes a batch, the others are launches. */
static unic_status plan_each(const unic_cuda *c, unic_cuda_product *p, double batches, double work) {
  int best = 0;
  for (int i = 1; i < p->loops; i++) if (p->count[i] > p->count[best]) best = i;
  double launches = batches / (double)p->count[best];
  if (p->bias || work / launches < LARGE || (launches > LAUNCHES && work / launches < 8 * LARGE)) return UNIC_OK;
  UNIC_TRY(lt_make(c, p, false, p->count[best], p->a_loop[best], p->b_loop[best], p->d_loop[best], &p->lt));
  if (!p->lt) return UNIC_OK;
  p->form = EACH;
  p->batch = best;
  return UNIC_OK;
}

/* The products of a sum side by side in scratch. */
static unic_status plan_parts(const unic_cuda *c, unic_cuda_product *p, double work) {
  if (p->bias || work < LARGE) return UNIC_OK;
  int64_t one = p->m * p->n * size_of(wide_of(p->dtype)), most = PARTS_MOST / one;
  if (most < 1) most = 1;
  int64_t rounds = (p->sum[0] + most - 1) / most;
  p->chunk = (p->sum[0] + rounds - 1) / rounds;
  if (p->sum[0] % p->chunk) {   /* equal rounds only: a batch count belongs to the algorithm */
    while (p->chunk > 1 && p->sum[0] % p->chunk) p->chunk--;
    if (p->sum[0] / p->chunk > LAUNCHES) return UNIC_OK;
  }
  unic_cuda_product part = *p;
  part.d_row = p->n;
  part.d_col = 1;
  part.d_dtype = (uint8_t)wide_of(p->dtype);
  UNIC_TRY(lt_make(c, &part, false, p->chunk, p->a_sum[0], p->b_sum[0], p->m * p->n, &p->lt));
  if (p->lt) p->form = PARTS;
  return UNIC_OK;
}

unic_status unic_cuda_product_plan(const unic_kernel *k, unic_cuda_product *p) {
  unic_cuda *c = unic_cuda_of(k);
  UNIC_TRY(start(c));
  p->adds_bias = p->bias;
  p->batch = -1;
  p->scratch = 0;
  p->lt = NULL;
  double batches = 1, sums = 1;
  for (int i = 0; i < p->loops; i++) batches *= (double)p->count[i];
  for (int i = 0; i < p->sums; i++) sums *= (double)p->sum[i];
  if (batches == 0 || p->m == 0 || p->n == 0) {
    p->form = NOTHING;
    return UNIC_OK;
  }
  p->form = OWN;
  if (sums == 0 || p->k == 0) return UNIC_OK;
  double work = 2.0 * (double)p->m * (double)p->n * (double)p->k * batches * sums;
  simplify(p);
  batches = 1;
  for (int i = 0; i < p->loops; i++) batches *= (double)p->count[i];
  if (p->sums == 0 && p->loops <= 1) UNIC_TRY(plan_whole(c, p));
  else if (p->sums == 0) UNIC_TRY(plan_each(c, p, batches, work));
  else if (p->sums == 1 && p->loops == 0) UNIC_TRY(plan_parts(c, p, work));
  if (p->form == OWN) p->adds_bias = p->bias;
  if (p->lt) p->scratch = round_up((int64_t)p->lt->aligned_bytes);
  if (p->form == PARTS) {
    int64_t one = p->m * p->n * size_of(wide_of(p->dtype));
    p->scratch += round_up(p->chunk * one) + (p->chunk < p->sum[0] ? round_up(one) : 0);
  }
  return UNIC_OK;
}

void unic_cuda_product_free(unic_cuda_product *p) {
  lt_free(p->lt);
  p->lt = NULL;
}

/* ---------------------------------------------------------------- runs */

static void *at(const void *p, int dtype, int64_t elements) { return (char *)p + elements * size_of(dtype); }

static unic_status run_each(const unic_cuda *c, const unic_cuda_product *p, const void *a, const void *b, void *d, void *scratch) {
  int64_t launches = 1;
  for (int i = 0; i < p->loops; i++) if (i != p->batch) launches *= p->count[i];
  for (int64_t l = 0; l < launches; l++) {
    int64_t rest = l, ao = 0, bo = 0, to = 0;
    for (int i = p->loops - 1; i >= 0; i--) {
      if (i == p->batch) continue;
      int64_t index = rest % p->count[i];
      rest /= p->count[i];
      ao += index * p->a_loop[i]; bo += index * p->b_loop[i]; to += index * p->d_loop[i];
    }
    UNIC_TRY(lt_run(c, p->lt, p->dtype, p->alpha, p->beta, at(a, p->dtype, ao), at(b, p->dtype, bo), at(d, p->d_dtype, to), NULL, scratch));
  }
  return UNIC_OK;
}

/* Several rounds are added up in the wide type, so that D is rounded once. */
static unic_status run_parts(const unic_kernel *k, const unic_cuda_product *p, const void *a, const void *b, void *d, void *scratch) {
  char *parts = (char *)scratch + round_up((int64_t)p->lt->aligned_bytes);
  char *total = p->chunk < p->sum[0] ? parts + round_up(p->chunk * p->m * p->n * size_of(wide_of(p->dtype))) : parts;
  unic_cuda_product wide = *p;
  wide.d_row = p->n;
  wide.d_col = 1;
  wide.d_dtype = (uint8_t)wide_of(p->dtype);
  for (int64_t s = 0; s < p->sum[0]; s += p->chunk) {
    UNIC_TRY(lt_run(unic_cuda_of(k), p->lt, p->dtype, p->alpha, 0, at(a, p->dtype, s * p->a_sum[0]), at(b, p->dtype, s * p->b_sum[0]), parts, NULL, scratch));
    if (total != parts) UNIC_TRY(unic_cuda_product_settle(k, &wide, parts, p->chunk, total, s ? 1.0 : 0.0));
  }
  return unic_cuda_product_settle(k, p, total, total == parts ? p->chunk : 1, d, p->beta);
}

unic_status unic_cuda_product_run(const unic_kernel *k, const unic_cuda_product *p, const void *a, const void *b, void *d, const void *bias, void *scratch) {
  const unic_cuda *c = unic_cuda_of(k);
  if (!p->adds_bias) bias = NULL;
  switch (p->form) {
    case NOTHING: return UNIC_OK;
    case WHOLE: return lt_run(c, p->lt, p->dtype, p->alpha, p->beta, a, b, d, bias, scratch);
    case EACH: return run_each(c, p, a, b, d, scratch);
    case PARTS: return run_parts(k, p, a, b, d, scratch);
    default: return unic_cuda_product_own(k, p, a, b, d, bias);
  }
}
