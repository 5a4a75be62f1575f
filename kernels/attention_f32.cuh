/* Attention in f32, depths up to 128, without tensor cores: what they take of an f32 number (TF32) is a tenth of it.
 *
 * A block of 256 threads, 16 x 16, owns ROWS rows and lets tiles of 32 go by. Both kinds of product are of tiles in shared memory that are row-major: a
 * thread makes rows ty, ty + 16, .. by columns tx, tx + 16, .., four steps of the contraction at a time, so that it reads 16 bytes at once and no bank
 * twice. Weights go through shared memory to the threads of the same rows, which are half a warp. The kernels and their passes are attention_mma.cuh's. */
#ifndef UNIC_ATTENTION_F32_CUH
#define UNIC_ATTENTION_F32_CUH

#include "attention.cuh"

namespace {

constexpr int F32_THREADS = 256, F32_STREAM = 32, F32_WEIGHTS_LD = F32_STREAM + 4;
/* Own rows of a block: as many as 99 KB of shared memory take. */
template <int DEPTH> constexpr int f32_rows_forward = 64;
template <int DEPTH> constexpr int f32_rows_backward = DEPTH <= 64 ? 64 : 32;

/* Columns of a result that a thread makes: groups of V that lie side by side. */
template <int DEPTH> struct f32_columns {
  static constexpr int V = DEPTH % 64 == 0 ? 4 : 2, GROUPS = DEPTH / 16 / V;
  static __device__ __forceinline__ int at(int c) { return (int)(threadIdx.x & 15) * V + c / V * 16 * V + c % V; }
};

__device__ __forceinline__ float four(const float4 &v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

/* s[i][j] = sum_d left[ty + 16 i][d] right[tx + 16 j][d] */
template <int ROWS, int COLUMNS, int DEPTH> __device__ __forceinline__ void f32_scores(float (&s)[ROWS / 16][COLUMNS / 16], const float *left, const float *right) {
  constexpr int LD = DEPTH + 4;
  int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
#pragma unroll
  for (int i = 0; i < ROWS / 16; i++)
#pragma unroll
    for (int j = 0; j < COLUMNS / 16; j++) s[i][j] = 0;
#pragma unroll 1
  for (int d = 0; d < DEPTH; d += 4) {
    float4 l[ROWS / 16], r[COLUMNS / 16];
#pragma unroll
    for (int i = 0; i < ROWS / 16; i++) l[i] = *(const float4 *)(left + (ty + 16 * i) * LD + d);
#pragma unroll
    for (int j = 0; j < COLUMNS / 16; j++) r[j] = *(const float4 *)(right + (tx + 16 * j) * LD + d);
#pragma unroll
    for (int e = 0; e < 4; e++)
#pragma unroll
      for (int i = 0; i < ROWS / 16; i++)
#pragma unroll
        for (int j = 0; j < COLUMNS / 16; j++) s[i][j] += four(l[i], e) * four(r[j], e);
  }
}

/* o[i][c] += sum_k weights[ty + 16 i][k] right[k][column c]; weights from s by way of shared memory, where only these threads use the rows. */
template <int ROWS, int DEPTH> __device__ __forceinline__ void f32_weigh(float (&o)[ROWS / 16][DEPTH / 16], const float (&s)[ROWS / 16][F32_STREAM / 16], float *weights, const float *right) {
  using columns = f32_columns<DEPTH>;
  constexpr int LD = DEPTH + 4, V = columns::V;
  int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
  __syncwarp();
#pragma unroll
  for (int i = 0; i < ROWS / 16; i++)
#pragma unroll
    for (int j = 0; j < F32_STREAM / 16; j++) weights[(ty + 16 * i) * F32_WEIGHTS_LD + tx + 16 * j] = s[i][j];
  __syncwarp();
#pragma unroll 1
  for (int k = 0; k < F32_STREAM; k += 4) {
    float4 w[ROWS / 16];
#pragma unroll
    for (int i = 0; i < ROWS / 16; i++) w[i] = *(const float4 *)(weights + (ty + 16 * i) * F32_WEIGHTS_LD + k);
#pragma unroll
    for (int e = 0; e < 4; e++)
#pragma unroll
      for (int group = 0; group < columns::GROUPS; group++) {
        unic_pack<float, V> v = *(const unic_pack<float, V> *)(right + (k + e) * LD + columns::at(group * V));
#pragma unroll
        for (int i = 0; i < ROWS / 16; i++)
#pragma unroll
          for (int c = 0; c < V; c++) o[i][group * V + c] += four(w[i], e) * v.at[c];
      }
  }
}

/* Over the 16 threads of a row. */
__device__ __forceinline__ float row_sum(float v) {
  for (int o = 8; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}
__device__ __forceinline__ float row_max(float v) {
  for (int o = 8; o; o >>= 1) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}

template <int ROWS, int DEPTH>
__device__ __forceinline__ void f32_store(const side<float> &x, const float (&o)[ROWS / 16][DEPTH / 16], const float (&factor)[ROWS / 16], int first, int rows, int depth, bool accumulate) {
  using columns = f32_columns<DEPTH>;
  constexpr int V = columns::V;
  int ty = threadIdx.x >> 4;
#pragma unroll
  for (int i = 0; i < ROWS / 16; i++) {
    int row = first + ty + 16 * i;
    if (row >= rows) continue;
#pragma unroll
    for (int group = 0; group < columns::GROUPS; group++) {
      int c = columns::at(group * V);
      if (x.wide && c < depth) {   /* depth is whole groups */
        unic_pack<float, V> *p = (unic_pack<float, V> *)(x.data + row * x.row + c), v;
        if (accumulate) v = *p;
#pragma unroll
        for (int e = 0; e < V; e++) v.at[e] = accumulate ? v.at[e] + o[i][group * V + e] * factor[i] : o[i][group * V + e] * factor[i];
        *p = v;
      } else {
#pragma unroll
        for (int e = 0; e < V; e++)
          if (c + e < depth) {
            float *p = x.data + row * x.row + (c + e) * x.col, v = o[i][group * V + e] * factor[i];
            *p = accumulate ? *p + v : v;
          }
      }
    }
  }
}

constexpr int f32_mask_ld(int keys) { return keys + 1; }

/* Bytes of shared memory: rows of tiles, rows of weights, and what masks and dropout of a queries x keys tile take. */
template <int DEPTH> static inline size_t f32_shared(const attention &a, int rows, int weights, int queries, int keys) {
  size_t mask = a.mask ? (size_t)(a.mask_query ? queries : 1) * f32_mask_ld(keys) * 4 : 0, kept = a.threshold ? (size_t)queries * keys / 32 * 4 : 0;
  return (size_t)rows * (DEPTH + 4) * 4 + (size_t)weights * F32_WEIGHTS_LD * 4 + mask + kept;
}

template <int DEPTH> __global__ void __launch_bounds__(F32_THREADS, 2) attention_f32_forward(const attention a) {
  constexpr int ROWS = f32_rows_forward<DEPTH>, LD = DEPTH + 4, N = F32_STREAM, MASK_LD = f32_mask_ld(N), I = ROWS / 16, J = N / 16;
  UNIC_DYNAMIC(float, q_tile);
  float *k_tile = q_tile + ROWS * LD, *v_tile = k_tile + N * LD, *weights = v_tile + N * LD, *mask_tile = weights + ROWS * F32_WEIGHTS_LD;
  uint32_t *kept = (uint32_t *)(mask_tile + (a.mask ? (a.mask_query ? ROWS : 1) * MASK_LD : 0));
  int head = blockIdx.x / a.blocks, b = head / a.heads, h = head % a.heads, first = (a.blocks - 1 - blockIdx.x % a.blocks) * ROWS;
  int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
  int n = keys_needed<F32_THREADS>(a, b, h, min(first + ROWS, a.queries) - 1), tiles = (n + N - 1) / N;
  side<float> k = side_of<float>(a.k, b, h), v = side_of<float>(a.v, b, h);
  float scale = (float)a.scale, o[I][DEPTH / 16] = {}, most[I], sum[I];
#pragma unroll
  for (int i = 0; i < I; i++) { most[i] = -INFINITY; sum[i] = 0; }
  if (tiles) {
    load_tile<float, ROWS, DEPTH, LD, F32_THREADS>(q_tile, side_of<float>(a.q, b, h), first, a.queries, a.depth);
    load_tile<float, N, DEPTH, LD, F32_THREADS>(k_tile, k, 0, n, a.depth);
    unic_copy_commit();
  }
  for (int j = 0; j < tiles; j++) {
    int key = j * N;
    unic_copy_wait<0>();
    __syncthreads();   /* keys are there, nobody needs the last values */
    load_tile<float, N, DEPTH, LD, F32_THREADS>(v_tile, v, key, n, a.depth);
    unic_copy_commit();
    if (a.mask) stage_mask<ROWS, N, MASK_LD, F32_THREADS>(a, mask_tile, b, h, first, key, 1);
    if (a.threshold) stage_kept<ROWS, N, F32_THREADS>(a, kept, head, first, key);
    float s[I][J];
    f32_scores<ROWS, N, DEPTH>(s, q_tile, k_tile);
    unic_copy_wait<0>();
    __syncthreads();   /* values are there, nobody needs these keys */
    if (j + 1 < tiles) {
      load_tile<float, N, DEPTH, LD, F32_THREADS>(k_tile, k, key + N, n, a.depth);
      unic_copy_commit();
    }
#pragma unroll
    for (int i = 0; i < I; i++) {
      int r = ty + 16 * i, last = a.causal ? min(n - 1, first + r) : n - 1;
      float m = most[i];
#pragma unroll
      for (int c = 0; c < J; c++) {
        float x = s[i][c] * scale;
        if (a.mask) x = masked(a, x, mask_tile[(a.mask_query ? r : 0) * MASK_LD + tx + 16 * c]);
        if (key + tx + 16 * c > last) x = -INFINITY;
        s[i][c] = x;
        m = fmaxf(m, x);
      }
      m = row_max(m);
      float from = m == -INFINITY ? 0.0f : m, shrink = expf(most[i] - from), total = 0;
      most[i] = m;
      uint32_t bits = a.threshold ? kept[r] >> tx : 0;
#pragma unroll
      for (int c = 0; c < J; c++) {
        float p = expf(s[i][c] - from);
        total += p;
        s[i][c] = a.threshold && !(bits >> (16 * c) & 1) ? 0 : p;
      }
      sum[i] = sum[i] * shrink + total;
#pragma unroll
      for (int c = 0; c < DEPTH / 16; c++) o[i][c] *= shrink;
    }
    f32_weigh<ROWS, DEPTH>(o, s, weights, v_tile);
  }
  float factor[I];
#pragma unroll
  for (int i = 0; i < I; i++) {
    float l = row_sum(sum[i]);
    int row = first + ty + 16 * i;
    factor[i] = l == 0 ? 0.0f : (float)a.keep / l;
    if (a.lse && tx == 0 && row < a.queries) ((float *)a.lse)[(int64_t)head * a.queries + row] = l == 0 ? INFINITY : most[i] + logf(l);
  }
  f32_store<ROWS, DEPTH>(side_of<float>(a.y, b, h), o, factor, first, a.queries, a.depth, false);
}

template <int DEPTH> __global__ void __launch_bounds__(F32_THREADS, 2) attention_f32_backward_q(const attention a) {
  constexpr int ROWS = f32_rows_backward<DEPTH>, LD = DEPTH + 4, N = F32_STREAM, MASK_LD = f32_mask_ld(N), I = ROWS / 16, J = N / 16;
  UNIC_DYNAMIC(float, q_tile);
  float *dy_tile = q_tile + ROWS * LD, *k_tile = dy_tile + ROWS * LD, *v_tile = k_tile + N * LD, *weights = v_tile + N * LD, *mask_tile = weights + ROWS * F32_WEIGHTS_LD;
  uint32_t *kept = (uint32_t *)(mask_tile + (a.mask ? (a.mask_query ? ROWS : 1) * MASK_LD : 0));
  int head = blockIdx.x / a.blocks, b = head / a.heads, h = head % a.heads, first = (a.blocks - 1 - blockIdx.x % a.blocks) * ROWS;
  int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
  int n = keys_needed<F32_THREADS>(a, b, h, min(first + ROWS, a.queries) - 1), tiles = (n + N - 1) / N;
  side<float> k = side_of<float>(a.k, b, h), v = side_of<float>(a.v, b, h);
  float scale = (float)a.scale, keep = (float)a.keep, dq[I][DEPTH / 16] = {}, lse[I], sum[I], factor[I];
#pragma unroll
  for (int i = 0; i < I; i++) {
    int row = first + ty + 16 * i;
    lse[i] = row < a.queries ? ((const float *)a.lse)[(int64_t)head * a.queries + row] : INFINITY;
    sum[i] = 0;
    factor[i] = scale;
  }
  if (tiles) {
    load_tile<float, ROWS, DEPTH, LD, F32_THREADS>(q_tile, side_of<float>(a.q, b, h), first, a.queries, a.depth);
    load_tile<float, ROWS, DEPTH, LD, F32_THREADS>(dy_tile, side_of<float>(a.dy, b, h), first, a.queries, a.depth);
  }
  /* Twice over the keys: first for the sums, then for dq. */
  int rounds = a.dq.data ? 2 * tiles : tiles;
  for (int turn = 0; turn < rounds; turn++) {
    bool summing = turn < tiles;
    int key = (summing ? turn : turn - tiles) * N;
    __syncthreads();   /* nobody needs the last tile */
    load_tile<float, N, DEPTH, LD, F32_THREADS>(k_tile, k, key, n, a.depth);
    load_tile<float, N, DEPTH, LD, F32_THREADS>(v_tile, v, key, n, a.depth);
    unic_copy_commit();
    if (a.mask) stage_mask<ROWS, N, MASK_LD, F32_THREADS>(a, mask_tile, b, h, first, key, 1);
    if (a.threshold) stage_kept<ROWS, N, F32_THREADS>(a, kept, head, first, key);
    unic_copy_wait<0>();
    __syncthreads();
    float s[I][J], dp[I][J];
    f32_scores<ROWS, N, DEPTH>(s, q_tile, k_tile);
    f32_scores<ROWS, N, DEPTH>(dp, dy_tile, v_tile);
#pragma unroll
    for (int i = 0; i < I; i++) {
      int r = ty + 16 * i, last = a.causal ? min(n - 1, first + r) : n - 1;
      uint32_t bits = a.threshold ? kept[r] >> tx : 0;
#pragma unroll
      for (int c = 0; c < J; c++) {
        float x = s[i][c] * scale, d = dp[i][c];
        if (a.mask) x = masked(a, x, mask_tile[(a.mask_query ? r : 0) * MASK_LD + tx + 16 * c]);
        if (a.threshold) d = bits >> (16 * c) & 1 ? keep * d : 0;
        float p = expf(x - lse[i]);
        bool behind = key + tx + 16 * c > last;
        if (summing) sum[i] += behind ? 0 : p * d;
        else s[i][c] = behind ? 0 : p * (d - sum[i]);
      }
      if (turn == tiles - 1) sum[i] = row_sum(sum[i]);
    }
    if (!summing) f32_weigh<ROWS, DEPTH>(dq, s, weights, k_tile);
  }
#pragma unroll
  for (int i = 0; i < I; i++) {
    int row = first + ty + 16 * i;
    if (tx == 0 && row < a.queries) ((float *)a.sums)[(int64_t)head * a.queries + row] = sum[i];
  }
  if (a.dq.data) f32_store<ROWS, DEPTH>(side_of<float>(a.dq, b, h), dq, factor, first, a.queries, a.depth, a.accumulate_q);
}

template <int DEPTH> __global__ void __launch_bounds__(F32_THREADS, DEPTH <= 96 ? 2 : 1) attention_f32_backward_kv(const attention a) {
  constexpr int ROWS = f32_rows_backward<DEPTH>, LD = DEPTH + 4, N = F32_STREAM, MASK_LD = f32_mask_ld(ROWS), I = ROWS / 16, J = N / 16;
  UNIC_SHARED(float, lses, [F32_STREAM]);
  UNIC_SHARED(float, sums, [F32_STREAM]);
  UNIC_DYNAMIC(float, k_tile);
  float *v_tile = k_tile + ROWS * LD, *q_tile = v_tile + ROWS * LD, *dy_tile = q_tile + N * LD, *weights = dy_tile + N * LD, *mask_tile = weights + ROWS * F32_WEIGHTS_LD;
  uint32_t *kept = (uint32_t *)(mask_tile + (a.mask ? (a.mask_query ? N : 1) * MASK_LD : 0));
  int head = blockIdx.x / a.blocks, b = head / a.heads, h = head % a.heads, first = blockIdx.x % a.blocks * ROWS;
  int tx = threadIdx.x & 15, ty = threadIdx.x >> 4;
  int n = keys_needed<F32_THREADS>(a, b, h, a.queries - 1);
  int begin = a.causal ? first / N : 0, end = first < n ? (a.queries + N - 1) / N : 0;   /* tiles of queries */
  side<float> q = side_of<float>(a.q, b, h), dy = side_of<float>(a.dy, b, h);
  float scale = (float)a.scale, keep = (float)a.keep, dk[I][DEPTH / 16] = {}, dv[I][DEPTH / 16] = {}, factor_k[I], factor_v[I];
  const float *all_lse = (const float *)a.lse + (int64_t)head * a.queries, *all_sums = (const float *)a.sums + (int64_t)head * a.queries;
  bool want_k = a.dk.data;
#pragma unroll
  for (int i = 0; i < I; i++) { factor_k[i] = scale; factor_v[i] = keep; }
  if (begin < end) {
    load_tile<float, ROWS, DEPTH, LD, F32_THREADS>(k_tile, side_of<float>(a.k, b, h), first, n, a.depth);
    load_tile<float, ROWS, DEPTH, LD, F32_THREADS>(v_tile, side_of<float>(a.v, b, h), first, n, a.depth);
  }
  for (int turn = begin; turn < end; turn++) {
    int query = turn * N;
    __syncthreads();   /* nobody needs the last tile */
    load_tile<float, N, DEPTH, LD, F32_THREADS>(q_tile, q, query, a.queries, a.depth);
    load_tile<float, N, DEPTH, LD, F32_THREADS>(dy_tile, dy, query, a.queries, a.depth);
    unic_copy_commit();
    if (threadIdx.x < N) {
      bool inside = query + (int)threadIdx.x < a.queries;
      lses[threadIdx.x] = inside ? all_lse[query + threadIdx.x] : INFINITY;
      sums[threadIdx.x] = inside && want_k ? all_sums[query + threadIdx.x] : 0;
    }
    if (a.mask) stage_mask<N, ROWS, MASK_LD, F32_THREADS>(a, mask_tile, b, h, query, first, 1);
    if (a.threshold) stage_kept<N, ROWS, F32_THREADS>(a, kept, head, query, first);
    unic_copy_wait<0>();
    __syncthreads();
    float s[I][J], dp[I][J];
    f32_scores<ROWS, N, DEPTH>(s, k_tile, q_tile);
    if (want_k) f32_scores<ROWS, N, DEPTH>(dp, v_tile, dy_tile);
    uint32_t dropped = 0;   /* bit i J + c */
    if (a.threshold) {
#pragma unroll
      for (int c = 0; c < J; c++)
#pragma unroll
        for (int i = 0; i < I; i++)
          dropped |= (~kept[(tx + 16 * c) * (ROWS / 32) + i / 2] >> (ty + i % 2 * 16) & 1) << (i * J + c);
    }
    if (a.mask) {
#pragma unroll
      for (int c = 0; c < J; c++)
#pragma unroll
        for (int i = 0; i < I; i++) s[i][c] = masked(a, s[i][c] * scale, mask_tile[(a.mask_query ? tx + 16 * c : 0) * MASK_LD + ty + 16 * i]);
    }
    float factor = a.mask ? 1.0f : scale;
#pragma unroll
    for (int c = 0; c < J; c++) {
      int r = tx + 16 * c, last = a.causal ? min(n - 1, query + r) : n - 1;   /* the query, its last key */
      float lse = lses[r], sum = sums[r];
#pragma unroll
      for (int i = 0; i < I; i++) {
        bool drop = dropped >> (i * J + c) & 1, behind = first + ty + 16 * i > last;
        float p = expf(s[i][c] * factor - lse);
        if (want_k) dp[i][c] = behind ? 0 : p * ((drop ? 0 : keep * dp[i][c]) - sum);
        s[i][c] = behind || drop ? 0 : p;
      }
    }
    if (a.dv.data) f32_weigh<ROWS, DEPTH>(dv, s, weights, dy_tile);
    if (want_k) f32_weigh<ROWS, DEPTH>(dk, dp, weights, q_tile);
  }
  if (want_k) f32_store<ROWS, DEPTH>(side_of<float>(a.dk, b, h), dk, factor_k, first, a.keys, a.depth, a.accumulate_k);
  if (a.dv.data) f32_store<ROWS, DEPTH>(side_of<float>(a.dv, b, h), dv, factor_v, first, a.keys, a.depth, a.accumulate_v);
}

/* The smallest DEPTH for a depth of at most 128: f(std::integral_constant<int, DEPTH>). */
template <class F> static inline unic_status f32_depth(int depth, F f) {
  if (depth <= 32) return f(std::integral_constant<int, 32>());
  if (depth <= 64) return f(std::integral_constant<int, 64>());
  if (depth <= 96) return f(std::integral_constant<int, 96>());
  return f(std::integral_constant<int, 128>());
}

unic_status f32_forward(const unic_kernel *k, attention a) {
  return f32_depth(a.depth, [&](auto depth) {
    constexpr int DEPTH = decltype(depth)::value, ROWS = f32_rows_forward<DEPTH>, N = F32_STREAM;
    size_t shared = f32_shared<DEPTH>(a, ROWS + 2 * N, ROWS, ROWS, N);
    a.blocks = (a.queries + ROWS - 1) / ROWS;
    UNIC_TRY(unic_allow_shared((attention_f32_forward<DEPTH>), shared));
    UNIC_LAUNCH((attention_f32_forward<DEPTH>), (unsigned)(a.batches * a.heads * a.blocks), F32_THREADS, shared, unic_cuda_stream(k), a);
    return UNIC_OK;
  });
}

unic_status f32_backward(const unic_kernel *k, attention a) {
  return f32_depth(a.depth, [&](auto depth) {
    constexpr int DEPTH = decltype(depth)::value, ROWS = f32_rows_backward<DEPTH>, N = F32_STREAM;
    if (a.queries > 0 && (a.dq.data || a.dk.data)) {
      size_t shared = f32_shared<DEPTH>(a, 2 * ROWS + 2 * N, ROWS, ROWS, N);
      a.blocks = (a.queries + ROWS - 1) / ROWS;
      UNIC_TRY(unic_allow_shared((attention_f32_backward_q<DEPTH>), shared));
      UNIC_LAUNCH((attention_f32_backward_q<DEPTH>), (unsigned)(a.batches * a.heads * a.blocks), F32_THREADS, shared, unic_cuda_stream(k), a);
    }
    if (a.keys > 0 && (a.dk.data || a.dv.data)) {
      size_t shared = f32_shared<DEPTH>(a, 2 * ROWS + 2 * N, ROWS, N, ROWS);
      a.blocks = (a.keys + ROWS - 1) / ROWS;
      UNIC_TRY(unic_allow_shared((attention_f32_backward_kv<DEPTH>), shared));
      UNIC_LAUNCH((attention_f32_backward_kv<DEPTH>), (unsigned)(a.batches * a.heads * a.blocks), F32_THREADS, shared, unic_cuda_stream(k), a);
    }
    return UNIC_OK;
  });
}

}

#endif
