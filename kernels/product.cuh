/* The matrix product for whatever cuBLASLt is not given (runtime/cuda/blas.c): operands of any steps, loops and sums over several dimensions, nothing to
 * sum. D = alpha A B + beta D + bias.
 *
 * A block makes a tile of 64 x 64 elements of D out of slices of 16 in K, which lie widened in shared memory; a thread has 4 x 4 of them in registers.
 * Sums run along K, slice by slice: a slice's sum is added to the sum of slices, so that rounding grows with both instead of with their product.
 * Every element is read once for each tile row (or column) that needs it, along whichever of its steps is the shorter. */
#ifndef UNIC_PRODUCT_CUH
#define UNIC_PRODUCT_CUH

#include "cuda.cuh"
#include "cuda/blas.h"

namespace unic_product_kernels {

enum { TILE = 64, SLICE = 16, EACH = 4, THREADS = 256 };

/* A product as the kernel reads it. */
struct asked {
  long long m, n, k, a_row, a_col, b_row, b_col, d_row, d_col, rows, columns, tiles;   /* rows, columns: tiles of one product; tiles: of all */
  int loops, sums;
  long long products;   /* summed into one D */
  long long count[UNIC_MAX_RANK], a_loop[UNIC_MAX_RANK], b_loop[UNIC_MAX_RANK], d_loop[UNIC_MAX_RANK], sum[UNIC_MAX_RANK], a_sum[UNIC_MAX_RANK], b_sum[UNIC_MAX_RANK];
  bool a_across, b_across;   /* neighbouring threads read along m, along n */
  double alpha, beta;
};

/* A slice of an operand into room[k][outer]. `across`: threads run along the outer dimension. */
template <class T, class W>
static __device__ __forceinline__ void load(const T *from, W (*room)[TILE + 1], long long outer, long long outer_end, long long outer_step, long long k, long long k_end,
                                            long long k_step, bool across) {
  for (int e = threadIdx.x; e < TILE * SLICE; e += THREADS) {
    int o = across ? e % TILE : e / SLICE, s = across ? e / TILE : e % SLICE;
    bool there = outer + o < outer_end && k + s < k_end;
    room[s][o] = there ? (W)unic_widen(from[(outer + o) * outer_step + (k + s) * k_step]) : W(0);
  }
}

template <class T, class D, class W> __global__ void __launch_bounds__(THREADS) product_kernel(const T *a, const T *b, D *d, const D *bias, const asked q) {
  UNIC_SHARED(W, left, [SLICE][TILE + 1]);
  UNIC_SHARED(W, right, [SLICE][TILE + 1]);
  int row = threadIdx.x / 16, column = threadIdx.x % 16;
  for (long long tile = blockIdx.x; tile < q.tiles; tile += gridDim.x) {
    long long j0 = tile % q.columns * TILE, i0 = tile / q.columns % q.rows * TILE, rest = tile / q.columns / q.rows;
    const T *pa = a, *pb = b;
    D *pd = d;
    for (int l = q.loops - 1; l >= 0; l--) {
      long long index = rest % q.count[l];
      rest /= q.count[l];
      pa += index * q.a_loop[l];
      pb += index * q.b_loop[l];
      pd += index * q.d_loop[l];
    }
    W total[EACH][EACH] = {};
    for (long long p = 0; p < q.products; p++) {
      const T *sa = pa, *sb = pb;
      long long left_over = p;
      for (int l = q.sums - 1; l >= 0; l--) {
        long long index = left_over % q.sum[l];
        left_over /= q.sum[l];
        sa += index * q.a_sum[l];
        sb += index * q.b_sum[l];
      }
      for (long long k = 0; k < q.k; k += SLICE) {
        load(sa, left, i0, q.m, q.a_row, k, q.k, q.a_col, q.a_across);
        load(sb, right, j0, q.n, q.b_col, k, q.k, q.b_row, q.b_across);
        __syncthreads();
        W part[EACH][EACH] = {};
#pragma unroll
        for (int s = 0; s < SLICE; s++) {
          W x[EACH], y[EACH];
#pragma unroll
          for (int e = 0; e < EACH; e++) {
            x[e] = left[s][row + 16 * e];
            y[e] = right[s][column + 16 * e];
          }
#pragma unroll
          for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < EACH; j++) part[i][j] += x[i] * y[j];
        }
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
          for (int j = 0; j < EACH; j++) total[i][j] += part[i][j];
        __syncthreads();
      }
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
      for (int j = 0; j < EACH; j++) {
        long long r = i0 + row + 16 * i, c = j0 + column + 16 * j;
        if (r >= q.m || c >= q.n) continue;
        D *to = pd + r * q.d_row + c * q.d_col;
        W v = (W)q.alpha * total[i][j];
        if (bias) v += (W)unic_widen(bias[c]);
        if (q.beta != 0) v += (W)q.beta * (W)unic_widen(*to);
        *to = unic_narrow<D>(v);
      }
  }
}

/* D = beta D + sum of parts[count][m][n]. 16 bytes or so read per element of D, for count 2 in f32; one thread per element, parts in their order. */
template <class W, class D> __global__ void settle_kernel(const W *parts, long long count, D *d, long long m, long long n, long long d_row, long long d_col, double beta) {
  long long all = m * n;
  for (long long e = blockIdx.x * (long long)blockDim.x + threadIdx.x; e < all; e += (long long)gridDim.x * blockDim.x) {
    W four[4] = {};   /* four sums side by side: shorter chains, smaller rounding */
    long long s = 0;
    for (; s + 4 <= count; s += 4)
#pragma unroll
      for (int j = 0; j < 4; j++) four[j] += parts[(s + j) * all + e];
    for (; s < count; s++) four[0] += parts[s * all + e];
    W v = (four[0] + four[1]) + (four[2] + four[3]);
    D *to = d + e / n * d_row + e % n * d_col;
    if (beta != 0) v += (W)beta * (W)unic_widen(*to);
    *to = unic_narrow<D>(v);
  }
}

template <class T, class D> static void launch_product(const unic_kernel *k, const unic_cuda_product *p, const void *a, const void *b, void *d, const void *bias) {
  asked q = {};
  q.m = p->m; q.n = p->n; q.k = p->k;
  q.a_row = p->a_row; q.a_col = p->a_col; q.b_row = p->b_row; q.b_col = p->b_col; q.d_row = p->d_row; q.d_col = p->d_col;
  q.rows = (p->m + TILE - 1) / TILE;
  q.columns = (p->n + TILE - 1) / TILE;
  q.tiles = q.rows * q.columns;
  q.loops = p->loops;
  q.sums = p->sums;
  q.products = 1;
  for (int l = 0; l < p->loops; l++) {
    q.count[l] = p->count[l]; q.a_loop[l] = p->a_loop[l]; q.b_loop[l] = p->b_loop[l]; q.d_loop[l] = p->d_loop[l];
    q.tiles *= p->count[l];
  }
  for (int l = 0; l < p->sums; l++) {
    q.sum[l] = p->sum[l]; q.a_sum[l] = p->a_sum[l]; q.b_sum[l] = p->b_sum[l];
    q.products *= p->sum[l];
  }
  auto size = [](int64_t step) { return step < 0 ? -step : step; };
  q.a_across = size(p->a_row) < size(p->a_col);
  q.b_across = size(p->b_col) < size(p->b_row);
  q.alpha = p->alpha;
  q.beta = p->beta;
  int64_t most = (int64_t)unic_cuda_of(k)->processors * 32;
  UNIC_LAUNCH((product_kernel<T, D, unic_wide<T>>), (unsigned)(q.tiles < most ? q.tiles : most), THREADS, 0, unic_cuda_stream(k), (const T *)a, (const T *)b, (D *)d, (const D *)bias, q);
}

}

extern "C" unic_status unic_cuda_product_own(const unic_kernel *k, const unic_cuda_product *p, const void *a, const void *b, void *d, const void *bias) {
  using namespace unic_product_kernels;
  bool wide = p->d_dtype == UNIC_F32;
  switch (p->dtype) {
    case UNIC_F64: launch_product<double, double>(k, p, a, b, d, bias); break;
    case UNIC_BF16: wide ? launch_product<__nv_bfloat16, float>(k, p, a, b, d, bias) : launch_product<__nv_bfloat16, __nv_bfloat16>(k, p, a, b, d, bias); break;
    case UNIC_F16: wide ? launch_product<__half, float>(k, p, a, b, d, bias) : launch_product<__half, __half>(k, p, a, b, d, bias); break;
    default: launch_product<float, float>(k, p, a, b, d, bias);
  }
  return UNIC_OK;
}

extern "C" unic_status unic_cuda_product_settle(const unic_kernel *k, const unic_cuda_product *p, const void *parts, int64_t count, void *d, double beta) {
  using namespace unic_product_kernels;
  unic_floats(p->d_dtype, [&](auto t) {
    using D = decltype(t);
    using W = unic_wide<D>;
    UNIC_LAUNCH((settle_kernel<W, D>), unic_blocks(k, p->m * p->n, 256), 256, 0, unic_cuda_stream(k), (const W *)parts, (long long)count, (D *)d, (long long)p->m, (long long)p->n,
                (long long)p->d_row, (long long)p->d_col, beta);
  });
  return UNIC_OK;
}

#endif
