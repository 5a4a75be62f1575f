/* The stand-in for cuBLASLt on the emulated device: exactly the calls that runtime/cuda/blas.c makes, against NVIDIA's own header, so that a wrong
 * prototype does not compile.
 *
 * It accepts what NVIDIA's documentation of cublasLtMatmul says the library takes and refuses the rest with a reason: types of operands, output, sums and
 * scales; leading dimensions; sizes that agree; batches whose outputs do not overlap; pointers into the device's memory, as far as the matrices reach;
 * the alignment that the algorithm was asked for; an algorithm that was chosen for another problem; a workspace that is too small, not aligned, or that
 * overlaps a matrix; alpha and beta in host memory; an output over an operand. Misuse also sets the device's last error, so that a caller that goes on
 * some other way is found out.
 *
 * The product runs late, in its stream's queue. Sums are f32 (f64 for f64), in slices of K that are summed and then added, which is how a GPU does it:
 * sums in double would hide what f32 loses. Where K is long and the workspace allows, K is split and the parts meet in the workspace, so that one that
 * is used by two at a time gives wrong numbers. */
#include "stream.h"

#include <cublasLt.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace {

/* ---------------------------------------------------------------- what the handles stand for */

struct Handle { int device; };
struct Layout { int type; int64_t rows, columns, ld, batch, step; };
struct Desc { cublasComputeType_t compute; int scale; int32_t turn_a, turn_b; uint32_t epilogue; const void *bias; };
struct Wish { uint64_t workspace; uint32_t schemes, alignment[4]; };
/* In a cublasLtMatmulAlgo_t's 64 bytes. */
struct Algo { uint64_t mark, problem, workspace; uint32_t alignment[4], bias_alignment, splits; };
constexpr uint64_t MARK = 0x756E69635F656D75ull;
static_assert(sizeof(Algo) <= sizeof(cublasLtMatmulAlgo_t));

Layout *of(cublasLtMatrixLayout_t p) { return reinterpret_cast<Layout *>(p); }
Desc *of(cublasLtMatmulDesc_t p) { return reinterpret_cast<Desc *>(p); }
Wish *of(cublasLtMatmulPreference_t p) { return reinterpret_cast<Wish *>(p); }
Handle *of(cublasLtHandle_t p) { return reinterpret_cast<Handle *>(p); }

cublasStatus_t misuse(cublasStatus_t status) {
  emu::set_error(cudaErrorInvalidValue);
  return status;
}
#define REFUSE(...) return emu::fail(__VA_ARGS__), misuse(CUBLAS_STATUS_INVALID_VALUE)

int64_t size_of(int type) { return type == CUDA_R_64F ? 8 : type == CUDA_R_32F ? 4 : 2; }

/* ---------------------------------------------------------------- what is allowed */

/* The table of compute type, scale type, A and B, C and D (cuBLAS' documentation, cublasLtMatmul, regular formats of those that exist here). */
bool types_agree(const Desc *d, const Layout *a, const Layout *b, const Layout *c) {
  if (a->type != b->type) return false;
  switch (d->compute) {
    case CUBLAS_COMPUTE_64F: return d->scale == CUDA_R_64F && a->type == CUDA_R_64F && c->type == CUDA_R_64F;
    case CUBLAS_COMPUTE_32F_FAST_TF32: return d->scale == CUDA_R_32F && a->type == CUDA_R_32F && c->type == CUDA_R_32F;
    case CUBLAS_COMPUTE_32F:
      if (d->scale != CUDA_R_32F) return false;
      if (a->type == CUDA_R_32F) return c->type == CUDA_R_32F;
      return (a->type == CUDA_R_16BF || a->type == CUDA_R_16F) && (c->type == a->type || c->type == CUDA_R_32F);
    default: return false;
  }
}

int64_t reach(const Layout *l) { return (l->batch - 1) * l->step + l->ld * (l->columns - 1) + l->rows; }

cublasStatus_t check_problem(const Handle *h, const Desc *d, const Layout *a, const Layout *b, const Layout *c, const Layout *out) {
  int device = -1;
  if (!h || !d || !a || !b || !c || !out) REFUSE("cuBLASLt: a descriptor is missing");
  if (cudaGetDevice(&device) != cudaSuccess || device != h->device) REFUSE("cuBLASLt: the handle is of device %d, the current one is %d", h->device, device);
  if (!types_agree(d, a, b, c)) REFUSE("cuBLASLt: types A %d, B %d, C %d, compute %d, scale %d do not go together", a->type, b->type, c->type, d->compute, d->scale);
  if (std::memcmp(c, out, sizeof *c) != 0) REFUSE("cuBLASLt: C and D lie in one place here and have different layouts");
  for (const Layout *l : {a, b, c}) {
    if (l->rows < 1 || l->columns < 1) REFUSE("cuBLASLt: a matrix of %lld x %lld", (long long)l->rows, (long long)l->columns);
    if (l->ld < l->rows) REFUSE("cuBLASLt: leading dimension %lld of a matrix with %lld rows", (long long)l->ld, (long long)l->rows);
    if (l->batch < 1 || l->batch != c->batch) REFUSE("cuBLASLt: batches of %lld and %lld", (long long)l->batch, (long long)c->batch);
    if (l->step < 0) REFUSE("cuBLASLt: a negative step from one matrix of a batch to the next");
  }
  int64_t m = d->turn_a == CUBLAS_OP_N ? a->rows : a->columns, k = d->turn_a == CUBLAS_OP_N ? a->columns : a->rows;
  int64_t k2 = d->turn_b == CUBLAS_OP_N ? b->rows : b->columns, n = d->turn_b == CUBLAS_OP_N ? b->columns : b->rows;
  if (k != k2 || m != c->rows || n != c->columns)
    REFUSE("cuBLASLt: [%lld, %lld] by [%lld, %lld] is not [%lld, %lld]", (long long)m, (long long)k, (long long)k2, (long long)n, (long long)c->rows, (long long)c->columns);
  /* Rows of one matrix of the batch may lie between those of another (a head's columns); elements may not meet. */
  bool between = c->step >= c->rows && c->step * (c->batch - 1) + c->rows <= c->ld, apart = c->step >= c->ld * (c->columns - 1) + c->rows;
  if (c->batch > 1 && !between && !apart) {
    bool meets = true;
    if (c->step > 0 && c->step < c->ld * c->columns) {   /* neither: compare all pairs of distances */
      meets = false;
      for (int64_t i = 1; i < c->batch && !meets; i++) {
        int64_t distance = i * c->step, column = distance / c->ld, row = distance % c->ld;
        meets = (column < c->columns && row < c->rows) || (column + 1 < c->columns && c->ld - row < c->rows);
      }
    }
    if (meets) REFUSE("cuBLASLt: the outputs of a batch overlap: step %lld, %lld columns of %lld", (long long)c->step, (long long)c->columns, (long long)c->ld);
  }
  if (d->epilogue != CUBLASLT_EPILOGUE_DEFAULT && d->epilogue != CUBLASLT_EPILOGUE_BIAS) REFUSE("cuBLASLt: epilogue %u is not one that the backend uses", d->epilogue);
  if (d->epilogue == CUBLASLT_EPILOGUE_BIAS && !d->bias) REFUSE("cuBLASLt: a bias epilogue without its pointer");
  if (d->epilogue == CUBLASLT_EPILOGUE_BIAS && c->type == CUDA_R_64F) {
    emu::fail("cuBLASLt: no bias in f64");
    return CUBLAS_STATUS_NOT_SUPPORTED;
  }
  return CUBLAS_STATUS_SUCCESS;
}

uint64_t problem_of(const Desc *d, const Layout *a, const Layout *b, const Layout *c) {
  uint64_t h = 14695981039346656037ull;
  auto add = [&](int64_t v) { h = (h ^ (uint64_t)v) * 1099511628211ull; };
  for (int64_t v : {(int64_t)d->compute, (int64_t)d->scale, (int64_t)d->turn_a, (int64_t)d->turn_b, (int64_t)d->epilogue}) add(v);
  for (const Layout *l : {a, b, c}) for (int64_t v : {(int64_t)l->type, l->rows, l->columns, l->ld, l->batch, l->step}) add(v);
  return h;
}

/* ---------------------------------------------------------------- arithmetic */

constexpr int TILE = 64, SLICE = 128;

/* f16 by a table: the header's conversion takes 20 ns. */
const float *halves() {
  static const std::vector<float> table = [] {
    std::vector<float> t(65536);
    for (int i = 0; i < 65536; i++) {
      __half_raw raw;
      raw.x = (unsigned short)i;
      t[i] = __half2float(__half(raw));
    }
    return t;
  }();
  return table.data();
}

float to_tf32(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  if ((bits & 0x7F800000u) != 0x7F800000u) bits = (bits + 0x1000u) & ~0x1FFFu;
  std::memcpy(&x, &bits, 4);
  return x;
}

/* op(M)[outer0.., k0..] into room[k][TILE], zeros beyond the edges. outer_step, k_step: in elements. */
template <class W> void pack(const void *from, int type, bool tf32, int64_t outer, int64_t outer_step, int64_t count, int64_t k_step, W *room) {
  std::fill(room, room + count * TILE, W(0));
  auto walk = [&](auto read) {
    for (int64_t k = 0; k < count; k++) for (int64_t o = 0; o < outer; o++) room[k * TILE + o] = (W)read(k * k_step + o * outer_step);
  };
  if (type == CUDA_R_64F) walk([p = static_cast<const double *>(from)](int64_t i) { return p[i]; });
  else if (type == CUDA_R_32F && tf32) walk([p = static_cast<const float *>(from)](int64_t i) { return to_tf32(p[i]); });
  else if (type == CUDA_R_32F) walk([p = static_cast<const float *>(from)](int64_t i) { return p[i]; });
  else if (type == CUDA_R_16BF) walk([p = static_cast<const uint16_t *>(from)](int64_t i) {
    uint32_t bits = (uint32_t)p[i] << 16;
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
  });
  else walk([p = static_cast<const uint16_t *>(from), t = halves()](int64_t i) { return t[p[i]]; });
}

/* total[m][n] += sum over k of a[k][m] b[k][n], as one sum that is added at the end. */
#define TILE_SUM(W, name)                                                                                                      \
  __attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512"))) void name(const W *a, const W *b, int64_t count, W *total) { \
    typedef W row __attribute__((vector_size(64)));                                                                            \
    constexpr int WIDE = 64 / sizeof(W);                                                                                       \
    for (int m = 0; m < TILE; m += 4)                                                                                          \
      for (int n = 0; n < TILE; n += WIDE) {                                                                                   \
        row s0 = {}, s1 = {}, s2 = {}, s3 = {}, v;                                                                             \
        for (int64_t k = 0; k < count; k++) {                                                                                  \
          std::memcpy(&v, b + k * TILE + n, sizeof v);                                                                         \
          const W *x = a + k * TILE + m;                                                                                       \
          s0 += x[0] * v;                                                                                                      \
          s1 += x[1] * v;                                                                                                      \
          s2 += x[2] * v;                                                                                                      \
          s3 += x[3] * v;                                                                                                      \
        }                                                                                                                      \
        row *sums[4] = {&s0, &s1, &s2, &s3};                                                                                   \
        for (int i = 0; i < 4; i++) for (int j = 0; j < WIDE; j++) total[(m + i) * TILE + n + j] += (*sums[i])[j];             \
      }                                                                                                                        \
  }
TILE_SUM(float, tile_sum32)
TILE_SUM(double, tile_sum64)
void tile_sum(const float *a, const float *b, int64_t count, float *total) { tile_sum32(a, b, count, total); }
void tile_sum(const double *a, const double *b, int64_t count, double *total) { tile_sum64(a, b, count, total); }

double read(const void *p, int type, int64_t i) {
  if (type == CUDA_R_64F) return static_cast<const double *>(p)[i];
  if (type == CUDA_R_32F) return static_cast<const float *>(p)[i];
  if (type == CUDA_R_16BF) return __bfloat162float(static_cast<const __nv_bfloat16 *>(p)[i]);
  return halves()[static_cast<const uint16_t *>(p)[i]];
}
void write(void *p, int type, int64_t i, double v) {
  if (type == CUDA_R_64F) static_cast<double *>(p)[i] = v;
  else if (type == CUDA_R_32F) static_cast<float *>(p)[i] = (float)v;
  else if (type == CUDA_R_16BF) static_cast<__nv_bfloat16 *>(p)[i] = __float2bfloat16_rn((float)v);
  else static_cast<__half *>(p)[i] = __float2half_rn((float)v);
}

struct Product {
  Desc desc;
  Layout a, b, d;
  const void *pa, *pb;
  void *pd, *workspace;
  double alpha, beta;
  uint32_t splits;

  template <class W> void multiply() const {
    bool tf32 = desc.compute == CUBLAS_COMPUTE_32F_FAST_TF32;
    int64_t k_all = desc.turn_a == CUBLAS_OP_N ? a.columns : a.rows;
    int64_t a_row = desc.turn_a == CUBLAS_OP_N ? 1 : a.ld, a_k = desc.turn_a == CUBLAS_OP_N ? a.ld : 1;
    int64_t b_k = desc.turn_b == CUBLAS_OP_N ? 1 : b.ld, b_column = desc.turn_b == CUBLAS_OP_N ? b.ld : 1;
    std::vector<W> left(SLICE * TILE), right(SLICE * TILE), total(TILE * TILE);
    int64_t each = ((k_all + splits - 1) / splits + SLICE - 1) / SLICE * SLICE;
    for (int64_t batch = 0; batch < d.batch; batch++)
      for (uint32_t split = 0; split < splits; split++) {
        int64_t begin = split * each, end = std::min<int64_t>(k_all, begin + each);
        for (int64_t m = 0; m < d.rows; m += TILE)
          for (int64_t n = 0; n < d.columns; n += TILE) {
            int64_t rows = std::min<int64_t>(TILE, d.rows - m), columns = std::min<int64_t>(TILE, d.columns - n);
            std::fill(total.begin(), total.end(), W(0));
            for (int64_t k = begin; k < end; k += SLICE) {
              int64_t count = std::min<int64_t>(SLICE, end - k);
              pack<W>(static_cast<const char *>(pa) + (batch * a.step + m * a_row + k * a_k) * size_of(a.type), a.type, tf32, rows, a_row, count, a_k, left.data());
              pack<W>(static_cast<const char *>(pb) + (batch * b.step + n * b_column + k * b_k) * size_of(b.type), b.type, tf32, columns, b_column, count, b_k, right.data());
              tile_sum(left.data(), right.data(), count, total.data());
            }
            if (splits > 1) {
              W *part = static_cast<W *>(workspace) + (split * d.batch + batch) * d.rows * d.columns;
              for (int64_t i = 0; i < rows; i++) for (int64_t j = 0; j < columns; j++) part[(n + j) * d.rows + m + i] = total[i * TILE + j];
            } else {
              for (int64_t i = 0; i < rows; i++) for (int64_t j = 0; j < columns; j++) finish<W>(batch, m + i, n + j, total[i * TILE + j]);
            }
          }
      }
    for (int64_t batch = 0; batch < d.batch && splits > 1; batch++)
      for (int64_t j = 0; j < d.columns; j++)
        for (int64_t i = 0; i < d.rows; i++) {
          W v = 0;
          for (uint32_t split = 0; split < splits; split++) v += static_cast<const W *>(workspace)[((split * d.batch + batch) * d.columns + j) * d.rows + i];
          finish<W>(batch, i, j, v);
        }
  }

  template <class W> void finish(int64_t batch, int64_t i, int64_t j, W v) const {
    int64_t at = batch * d.step + j * d.ld + i;
    v *= (W)alpha;
    if (beta != 0) v += (W)beta * (W)read(pd, d.type, at);
    if (desc.epilogue == CUBLASLT_EPILOGUE_BIAS) v += (W)read(desc.bias, d.type, i);
    write(pd, d.type, at, (double)v);
  }

  bool run() const {
    if (desc.compute == CUBLAS_COMPUTE_64F) multiply<double>();
    else multiply<float>();
    return true;
  }
};

bool overlap(const void *p, int64_t p_bytes, const void *q, int64_t q_bytes) {
  uintptr_t a = (uintptr_t)p, b = (uintptr_t)q;
  return a < b + (uintptr_t)q_bytes && b < a + (uintptr_t)p_bytes;
}

}

/* ---------------------------------------------------------------- the calls */

extern "C" {

const char *CUBLASWINAPI cublasLtGetStatusString(cublasStatus_t status) {
  static std::string text;
  const char *name = status == CUBLAS_STATUS_SUCCESS ? "CUBLAS_STATUS_SUCCESS" : status == CUBLAS_STATUS_INVALID_VALUE ? "CUBLAS_STATUS_INVALID_VALUE" :
                     status == CUBLAS_STATUS_NOT_SUPPORTED ? "CUBLAS_STATUS_NOT_SUPPORTED" : status == CUBLAS_STATUS_NOT_INITIALIZED ? "CUBLAS_STATUS_NOT_INITIALIZED" :
                     "CUBLAS_STATUS_EXECUTION_FAILED";
  text = name;
  if (status != CUBLAS_STATUS_SUCCESS && emu::sentence()) text += std::string(" (") + emu::sentence() + ")";
  return text.c_str();
}

cublasStatus_t CUBLASWINAPI cublasLtCreate(cublasLtHandle_t *out) {
  int device = -1;
  if (!out || cudaGetDevice(&device) != cudaSuccess) return CUBLAS_STATUS_NOT_INITIALIZED;
  *out = reinterpret_cast<cublasLtHandle_t>(new Handle{device});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t CUBLASWINAPI cublasLtDestroy(cublasLtHandle_t h) {
  delete of(h);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *out, cudaDataType type, uint64_t rows, uint64_t columns, int64_t ld) {
  *out = reinterpret_cast<cublasLtMatrixLayout_t>(new Layout{(int)type, (int64_t)rows, (int64_t)columns, ld, 1, 0});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t CUBLASWINAPI cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t l) {
  delete of(l);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t CUBLASWINAPI cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t l, cublasLtMatrixLayoutAttribute_t attribute, const void *from, size_t bytes) {
  int32_t count;
  switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
      if (bytes != sizeof count) REFUSE("cuBLASLt: a batch count of %zu bytes", bytes);
      std::memcpy(&count, from, bytes);
      of(l)->batch = count;
      return CUBLAS_STATUS_SUCCESS;
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
      if (bytes != sizeof of(l)->step) REFUSE("cuBLASLt: a batch offset of %zu bytes", bytes);
      std::memcpy(&of(l)->step, from, bytes);
      return CUBLAS_STATUS_SUCCESS;
    default: REFUSE("cuBLASLt: layout attribute %d is not one that the backend uses", (int)attribute);
  }
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *out, cublasComputeType_t compute, cudaDataType_t scale) {
  *out = reinterpret_cast<cublasLtMatmulDesc_t>(new Desc{compute, (int)scale, CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT, nullptr});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t CUBLASWINAPI cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t d) {
  delete of(d);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t CUBLASWINAPI cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t d, cublasLtMatmulDescAttributes_t attribute, const void *from, size_t bytes) {
  void *to;
  size_t size;
  switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA: to = &of(d)->turn_a; size = sizeof of(d)->turn_a; break;
    case CUBLASLT_MATMUL_DESC_TRANSB: to = &of(d)->turn_b; size = sizeof of(d)->turn_b; break;
    case CUBLASLT_MATMUL_DESC_EPILOGUE: to = &of(d)->epilogue; size = sizeof of(d)->epilogue; break;
    case CUBLASLT_MATMUL_DESC_BIAS_POINTER: to = &of(d)->bias; size = sizeof of(d)->bias; break;
    default: REFUSE("cuBLASLt: attribute %d of a product is not one that the backend uses", (int)attribute);
  }
  if (bytes != size) REFUSE("cuBLASLt: attribute %d has %zu bytes, %zu were given", (int)attribute, size, bytes);
  std::memcpy(to, from, bytes);
  if ((of(d)->turn_a != CUBLAS_OP_N && of(d)->turn_a != CUBLAS_OP_T) || (of(d)->turn_b != CUBLAS_OP_N && of(d)->turn_b != CUBLAS_OP_T)) REFUSE("cuBLASLt: an operation that is none");
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *out) {
  *out = reinterpret_cast<cublasLtMatmulPreference_t>(new Wish{0, CUBLASLT_REDUCTION_SCHEME_MASK, {256, 256, 256, 256}});
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t CUBLASWINAPI cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t w) {
  delete of(w);
  return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t CUBLASWINAPI cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t w, cublasLtMatmulPreferenceAttributes_t attribute, const void *from, size_t bytes) {
  void *to;
  size_t size = 4;
  switch (attribute) {
    case CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES: to = &of(w)->workspace; size = 8; break;
    case CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK: to = &of(w)->schemes; break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES: to = &of(w)->alignment[0]; break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES: to = &of(w)->alignment[1]; break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES: to = &of(w)->alignment[2]; break;
    case CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES: to = &of(w)->alignment[3]; break;
    default: REFUSE("cuBLASLt: preference %d is not one that the backend uses", (int)attribute);
  }
  if (bytes != size) REFUSE("cuBLASLt: preference %d has %zu bytes, %zu were given", (int)attribute, size, bytes);
  std::memcpy(to, from, bytes);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t h, cublasLtMatmulDesc_t d, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                                           cublasLtMatrixLayout_t out, cublasLtMatmulPreference_t w, int wanted, cublasLtMatmulHeuristicResult_t results[], int *count) {
  *count = 0;
  if (wanted < 1) REFUSE("cuBLASLt: no algorithm is wanted");
  cublasStatus_t status = check_problem(of(h), of(d), of(a), of(b), of(c), of(out));
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  if (of(w)->schemes & CUBLASLT_REDUCTION_SCHEME_INPLACE) REFUSE("cuBLASLt: sums that are split in place are not promised to have equal bits");
  const Layout *layouts[4] = {of(a), of(b), of(c), of(out)};
  for (int i = 0; i < 4; i++) {
    uint32_t alignment = of(w)->alignment[i];
    if (alignment == 0 || (alignment & (alignment - 1)) || (int64_t)alignment < size_of(layouts[i]->type)) REFUSE("cuBLASLt: %u is no alignment", alignment);
  }
  Algo algo = {MARK, problem_of(of(d), of(a), of(b), of(c)), 0, {}, 0, 1};
  for (int i = 0; i < 4; i++) algo.alignment[i] = of(w)->alignment[i];
  if (of(d)->epilogue == CUBLASLT_EPILOGUE_BIAS) {
    uint32_t lowest = (uint32_t)((uintptr_t)of(d)->bias & -(uintptr_t)of(d)->bias);
    algo.bias_alignment = std::min<uint32_t>(lowest, 16);
  }
  int64_t k = of(d)->turn_a == CUBLAS_OP_N ? of(a)->columns : of(a)->rows, elements = of(c)->rows * of(c)->columns * of(c)->batch;
  uint64_t split = (uint64_t)elements * 2 * (of(c)->type == CUDA_R_64F ? 8 : 4);
  if (k >= 2 * SLICE && (of(w)->schemes & CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE) && split <= of(w)->workspace) {
    algo.splits = 2;
    algo.workspace = split;
  }
  std::memset(&results[0], 0, sizeof results[0]);
  std::memcpy(&results[0].algo, &algo, sizeof algo);
  results[0].workspaceSize = algo.workspace;
  results[0].state = CUBLAS_STATUS_SUCCESS;
  results[0].wavesCount = 1;
  *count = 1;
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t CUBLASWINAPI cublasLtMatmul(cublasLtHandle_t h, cublasLtMatmulDesc_t d, const void *alpha, const void *pa, cublasLtMatrixLayout_t a, const void *pb, cublasLtMatrixLayout_t b,
                                           const void *beta, const void *pc, cublasLtMatrixLayout_t c, void *pd, cublasLtMatrixLayout_t out, const cublasLtMatmulAlgo_t *chosen,
                                           void *workspace, size_t bytes, cudaStream_t stream) {
  cublasStatus_t status = check_problem(of(h), of(d), of(a), of(b), of(c), of(out));
  if (status != CUBLAS_STATUS_SUCCESS) return misuse(status);
  if (!chosen) REFUSE("cuBLASLt: no algorithm; the library would choose another one each time it likes");
  Algo algo;
  std::memcpy(&algo, chosen, sizeof algo);
  if (algo.mark != MARK || algo.problem != problem_of(of(d), of(a), of(b), of(c))) REFUSE("cuBLASLt: the algorithm is none that was chosen for this product");
  if (!alpha || !beta || emu::device_range(stream, alpha, 1) || emu::device_range(stream, beta, 1)) REFUSE("cuBLASLt: alpha and beta have to be in host memory");
  bool f64 = of(d)->scale == CUDA_R_64F;
  double al = f64 ? *static_cast<const double *>(alpha) : *static_cast<const float *>(alpha), be = f64 ? *static_cast<const double *>(beta) : *static_cast<const float *>(beta);
  if (pc != pd) REFUSE("cuBLASLt: the backend's C is its D");
  const void *pointers[4] = {pa, pb, pc, pd};
  const Layout *layouts[4] = {of(a), of(b), of(c), of(out)};
  int64_t reaches[4];
  for (int i = 0; i < 4; i++) {
    reaches[i] = reach(layouts[i]) * size_of(layouts[i]->type);
    if (!emu::device_range(stream, pointers[i], (size_t)reaches[i])) REFUSE("cuBLASLt: matrix %c at %p, %lld bytes, is not in the device's memory", "ABCD"[i], pointers[i], (long long)reaches[i]);
    if ((uintptr_t)pointers[i] % algo.alignment[i]) REFUSE("cuBLASLt: matrix %c at %p, the algorithm was asked for %u bytes of alignment", "ABCD"[i], pointers[i], algo.alignment[i]);
  }
  for (int i = 0; i < 2; i++) if (overlap(pointers[i], reaches[i], pd, reaches[3])) REFUSE("cuBLASLt: D lies over %c", "AB"[i]);
  if (of(d)->epilogue == CUBLASLT_EPILOGUE_BIAS) {
    int64_t length = of(c)->rows * size_of(of(c)->type);
    if (!emu::device_range(stream, of(d)->bias, (size_t)length)) REFUSE("cuBLASLt: the bias at %p is not in the device's memory", of(d)->bias);
    if ((uintptr_t)of(d)->bias % algo.bias_alignment) REFUSE("cuBLASLt: the bias at %p, the algorithm was asked for %u bytes of alignment", of(d)->bias, algo.bias_alignment);
    if (overlap(of(d)->bias, length, pd, reaches[3])) REFUSE("cuBLASLt: D lies over the bias");
  }
  if (bytes < algo.workspace) REFUSE("cuBLASLt: %zu bytes of workspace, the algorithm needs %llu", bytes, (unsigned long long)algo.workspace);
  if (algo.workspace) {
    if (!emu::device_range(stream, workspace, bytes) || (uintptr_t)workspace % 16) REFUSE("cuBLASLt: the workspace at %p is not in the device's memory, or not aligned to 16 bytes", workspace);
    for (int i = 0; i < 4; i++) if (overlap(workspace, (int64_t)bytes, pointers[i], reaches[i])) REFUSE("cuBLASLt: the workspace lies over %c", "ABCD"[i]);
  }
  Product p = {*of(d), *of(a), *of(b), *of(out), pa, pb, pd, workspace, al, be, algo.splits};
  cudaError_t error = emu::submit(stream, "cublasLtMatmul", [p] { return p.run(); });
  return error == cudaSuccess ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_EXECUTION_FAILED;
}

}
