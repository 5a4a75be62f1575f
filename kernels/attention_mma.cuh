/* Attention in bf16 and f16 on tensor cores, depths up to 128: one block of four warps for 64 queries (forward, dq) or 64 keys (dk, dv) of a head.
 *
 * A warp owns 16 rows; the scores of its tile are accumulators of mma.m16n8k16 and become the left operand of the next product where they are. Weights are
 * powers of 2: scores carry a factor log2 e. Tiles lie in shared memory with rows DEPTH + 8 elements apart, so that ldmatrix meets no bank twice.
 * Depth is padded with zeros to DEPTH = 32, 64, 96 or 128.
 *
 *   forward  loads keys while it works on values and the other way round; q read once, k and v once per block of queries, y written once
 *   dq       goes over the keys twice: for sum_j p dp, which it leaves for dk and dv, and for dq = scale ds k
 *   dk, dv   works on transposed tiles, keys by queries, so that p' and ds' are left operands too; queries stream by in two buffers */
#ifndef UNIC_ATTENTION_MMA_CUH
#define UNIC_ATTENTION_MMA_CUH

#include "attention.cuh"

namespace {

constexpr int MMA_THREADS = 128, MMA_ROWS = 64;
constexpr float LOG2E = 1.44269504088896341f, LN2 = 0.693147180559945309f;

/* Keys (or queries) of the tiles that stream by in backward: fewer where rows are long, for registers. */
template <int DEPTH> constexpr int mma_stream = DEPTH <= 64 ? 64 : 32;
constexpr int mma_mask_ld(int keys) { return keys + 8; }

__device__ __forceinline__ uint32_t pair_of(float low, float high, __nv_bfloat16) {
  __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
  uint32_t u;
  memcpy(&u, &v, 4);
  return u;
}
__device__ __forceinline__ uint32_t pair_of(float low, float high, __half) {
  __half2 v = __floats2half2_rn(low, high);
  uint32_t u;
  memcpy(&u, &v, 4);
  return u;
}

/* A warp's 16 rows of a tile, columns 16 kk .. , as a left operand. */
template <int LD, class T> __device__ __forceinline__ void left_operand(uint32_t a[4], const T *rows, int kk) {
  int lane = threadIdx.x & 31;
  unic_ldmatrix_x4(a, rows + (lane & 15) * LD + kk * 16 + (lane >> 4) * 8);
}

/* s[rows of this warp][N rows of `right`] = left * right', both DEPTH wide; `held`: the left operand where registers allow to keep it. */
template <int N, int DEPTH, int LD, class T> __device__ __forceinline__ void scores(float (&s)[N / 8][4], const T *left, const uint32_t (*held)[4], const T *right) {
  int lane = threadIdx.x & 31;
#pragma unroll
  for (int i = 0; i < N / 8; i++) s[i][0] = s[i][1] = s[i][2] = s[i][3] = 0;
#pragma unroll
  for (int kk = 0; kk < DEPTH / 16; kk++) {
    uint32_t a[4];
    if (held) for (int e = 0; e < 4; e++) a[e] = held[kk][e];
    else left_operand<LD>(a, left, kk);
#pragma unroll
    for (int i = 0; i < N / 8; i += 2) {
      uint32_t b[4];
      unic_ldmatrix_x4(b, right + (i * 8 + (lane >> 4) * 8 + (lane & 7)) * LD + kk * 16 + ((lane >> 3) & 1) * 8);
      unic_mma(s[i], a, b, T());
      unic_mma(s[i + 1], a, b + 2, T());
    }
  }
}

/* o[rows of this warp][DEPTH] += s * right, s [rows][N] rounded to T, right [N][DEPTH]. */
template <int N, int DEPTH, int LD, class T> __device__ __forceinline__ void weigh(float (&o)[DEPTH / 8][4], const float (&s)[N / 8][4], const T *right) {
  int lane = threadIdx.x & 31;
#pragma unroll
  for (int kk = 0; kk < N / 16; kk++) {
    uint32_t a[4] = {pair_of(s[2 * kk][0], s[2 * kk][1], T()), pair_of(s[2 * kk][2], s[2 * kk][3], T()), pair_of(s[2 * kk + 1][0], s[2 * kk + 1][1], T()),
                     pair_of(s[2 * kk + 1][2], s[2 * kk + 1][3], T())};
#pragma unroll
    for (int i = 0; i < DEPTH / 8; i += 2) {
      uint32_t b[4];
      unic_ldmatrix_x4_trans(b, right + (kk * 16 + (lane & 15)) * LD + i * 8 + (lane >> 4) * 8);
      unic_mma(o[i], a, b, T());
      unic_mma(o[i + 1], a, b + 2, T());
    }
  }
}

/* A warp's rows first .. of a result: o times the factor of each half's row; `room`: 16 rows of shared memory that only this warp uses. */
template <int DEPTH, int LD, class T>
__device__ __forceinline__ void store_rows(const side<T> &x, T *room, const float (&o)[DEPTH / 8][4], const float factor[2], int first, int rows, int depth, bool accumulate) {
  int lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  if (x.wide && !accumulate) {
    __syncwarp();
#pragma unroll
    for (int i = 0; i < DEPTH / 8; i++)
#pragma unroll
      for (int half = 0; half < 2; half++)
        *(uint32_t *)(room + (g + 8 * half) * LD + i * 8 + 2 * t) = pair_of(o[i][2 * half] * factor[half], o[i][2 * half + 1] * factor[half], T());
    __syncwarp();
#pragma unroll
    for (int i = lane; i < 16 * DEPTH / 8; i += 32) {
      int r = i / (DEPTH / 8), c = i % (DEPTH / 8) * 8;
      if (first + r < rows && c < depth) *(uint4 *)(x.data + (first + r) * x.row + c) = *(const uint4 *)(room + r * LD + c);
    }
    return;
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    int row = first + g + 8 * half;
    if (row >= rows) continue;
#pragma unroll
    for (int i = 0; i < DEPTH / 8; i++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        int c = i * 8 + 2 * t + e;
        if (c >= depth) continue;
        T *p = x.data + row * x.row + c * x.col;
        float v = o[i][2 * half + e] * factor[half];
        *p = unic_narrow<T>(accumulate ? unic_widen(*p) + v : v);
      }
  }
}

/* Bytes of shared memory of a block whose tiles are 64 own rows by N. */
template <class T, int DEPTH> static inline size_t mma_shared(const attention &a, int own, int streamed, int queries, int keys) {
  size_t mask = a.mask ? (size_t)(a.mask_query ? queries : 1) * mma_mask_ld(keys) * 4 : 0, kept = a.threshold ? (size_t)queries * keys / 32 * 4 : 0;
  return (size_t)(own + streamed) * (DEPTH + 8) * sizeof(T) + mask + kept;
}

template <class T, int DEPTH, bool MORE> __global__ void __launch_bounds__(MMA_THREADS, DEPTH <= 64 ? 3 : 2) attention_mma_forward(const attention a) {
  const bool masks = MORE && a.mask, drops = MORE && a.threshold;
  constexpr int LD = DEPTH + 8, N = 64, HELD = DEPTH <= 64 ? DEPTH / 16 : 1, MASK_LD = mma_mask_ld(N);
  UNIC_DYNAMIC(T, q_tile);
  T *k_tile = q_tile + MMA_ROWS * LD, *v_tile = k_tile + N * LD;
  float *mask_tile = (float *)(v_tile + N * LD);
  uint32_t *kept = (uint32_t *)(mask_tile + (masks ? (a.mask_query ? MMA_ROWS : 1) * MASK_LD : 0));
  int head = blockIdx.x / a.blocks, b = head / a.heads, h = head % a.heads;
  int first = (a.blocks - 1 - blockIdx.x % a.blocks) * MMA_ROWS;   /* under causality the longest blocks begin first */
  int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3;
  int n = keys_needed<MMA_THREADS>(a, b, h, min(first + MMA_ROWS, a.queries) - 1), tiles = (n + N - 1) / N;
  side<T> q = side_of<T>(a.q, b, h), k = side_of<T>(a.k, b, h), v = side_of<T>(a.v, b, h);
  T *own = q_tile + warp * 16 * LD;
  int row = first + warp * 16 + g;
  float scale = (float)a.scale * LOG2E, o[DEPTH / 8][4] = {}, most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  uint32_t held[HELD][4];
  if (tiles) {
    load_tile<T, MMA_ROWS, DEPTH, LD, MMA_THREADS>(q_tile, q, first, a.queries, a.depth);
    load_tile<T, N, DEPTH, LD, MMA_THREADS>(k_tile, k, 0, n, a.depth);
    unic_copy_commit();
  }
  for (int j = 0; j < tiles; j++) {
    int key = j * N;
    unic_copy_wait<0>();
    __syncthreads();   /* keys are there, nobody needs the last values */
    load_tile<T, N, DEPTH, LD, MMA_THREADS>(v_tile, v, key, n, a.depth);
    unic_copy_commit();
    if (masks) stage_mask<MMA_ROWS, N, MASK_LD, MMA_THREADS>(a, mask_tile, b, h, first, key, LOG2E);
    if (drops) stage_kept<MMA_ROWS, N, MMA_THREADS>(a, kept, head, first, key);
    if constexpr (DEPTH <= 64) {
      if (j == 0)
#pragma unroll
        for (int kk = 0; kk < HELD; kk++) left_operand<LD>(held[kk], own, kk);
    }
    float s[N / 8][4];
    if constexpr (DEPTH <= 64) scores<N, DEPTH, LD>(s, own, held, k_tile);
    else scores<N, DEPTH, LD>(s, own, nullptr, k_tile);
    unic_copy_wait<0>();
    __syncthreads();   /* values are there, nobody needs these keys */
    if (j + 1 < tiles) {
      load_tile<T, N, DEPTH, LD, MMA_THREADS>(k_tile, k, key + N, n, a.depth);
      unic_copy_commit();
    }
    bool edge = key + N > n || (a.causal && key + N - 1 > first + warp * 16);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float *mask = mask_tile + (a.mask_query ? warp * 16 + g + 8 * half : 0) * MASK_LD + 2 * t;
      int last = a.causal ? min(n - 1, row + 8 * half) : n - 1;
      float m = most[half];
#pragma unroll
      for (int i = 0; i < N / 8; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          float x = s[i][2 * half + e] * scale;
          if (masks) x = masked(a, x, mask[i * 8 + e]);
          if (edge && key + i * 8 + 2 * t + e > last) x = -INFINITY;
          s[i][2 * half + e] = x;
          m = fmaxf(m, x);
        }
      m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
      m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
      float from = m == -INFINITY ? 0.0f : m, shrink = unic_exp2(most[half] - from), total = 0;
      most[half] = m;
#pragma unroll
      for (int i = 0; i < N / 8; i++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
          float p = unic_exp2(s[i][2 * half + e] - from);
          s[i][2 * half + e] = p;
          total += p;
        }
      sum[half] = sum[half] * shrink + total;
#pragma unroll
      for (int i = 0; i < DEPTH / 8; i++) {
        o[i][2 * half] *= shrink;
        o[i][2 * half + 1] *= shrink;
      }
      if (drops) {
#pragma unroll
        for (int w = 0; w < N / 32; w++) {
          uint32_t bits = kept[(warp * 16 + g + 8 * half) * (N / 32) + w] >> (2 * t);
#pragma unroll
          for (int i = 0; i < 4; i++)
#pragma unroll
            for (int e = 0; e < 2; e++) if (!(bits >> (i * 8 + e) & 1)) s[w * 4 + i][2 * half + e] = 0;
        }
      }
    }
    weigh<N, DEPTH, LD>(o, s, v_tile);
  }
  float factor[2];
#pragma unroll
  for (int half = 0; half < 2; half++) {
    float l = sum[half];
    l += __shfl_xor_sync(0xffffffffu, l, 1);
    l += __shfl_xor_sync(0xffffffffu, l, 2);
    factor[half] = l == 0 ? 0.0f : (float)a.keep / l;
    if (a.lse && t == 0 && row + 8 * half < a.queries)
      ((float *)a.lse)[(int64_t)head * a.queries + row + 8 * half] = l == 0 ? INFINITY : (most[half] + log2f(l)) * LN2;
  }
  store_rows<DEPTH, LD>(side_of<T>(a.y, b, h), own, o, factor, first + warp * 16, a.queries, a.depth, false);
}

template <class T, int DEPTH, bool MORE> __global__ void __launch_bounds__(MMA_THREADS, DEPTH <= 32 ? 3 : 2) attention_mma_backward_q(const attention a) {
  const bool masks = MORE && a.mask, drops = MORE && a.threshold;
  constexpr int LD = DEPTH + 8, N = mma_stream<DEPTH>, MASK_LD = mma_mask_ld(N);
  UNIC_DYNAMIC(T, q_tile);
  T *dy_tile = q_tile + MMA_ROWS * LD, *k_tiles = dy_tile + MMA_ROWS * LD, *v_tiles = k_tiles + 2 * N * LD;
  float *mask_tile = (float *)(v_tiles + 2 * N * LD);
  uint32_t *kept = (uint32_t *)(mask_tile + (masks ? (a.mask_query ? MMA_ROWS : 1) * MASK_LD : 0));
  int head = blockIdx.x / a.blocks, b = head / a.heads, h = head % a.heads, first = (a.blocks - 1 - blockIdx.x % a.blocks) * MMA_ROWS;
  int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, row = first + warp * 16 + g;
  int n = keys_needed<MMA_THREADS>(a, b, h, min(first + MMA_ROWS, a.queries) - 1), tiles = (n + N - 1) / N;
  side<T> k = side_of<T>(a.k, b, h), v = side_of<T>(a.v, b, h);
  T *own = q_tile + warp * 16 * LD, *own_dy = dy_tile + warp * 16 * LD;
  float scale = (float)a.scale * LOG2E, keep = (float)a.keep, dq[DEPTH / 8][4] = {}, sum[2] = {0, 0}, lse[2];
  for (int half = 0; half < 2; half++) lse[half] = row + 8 * half < a.queries ? ((const float *)a.lse)[(int64_t)head * a.queries + row + 8 * half] * LOG2E : INFINITY;
  if (tiles) {
    load_tile<T, MMA_ROWS, DEPTH, LD, MMA_THREADS>(q_tile, side_of<T>(a.q, b, h), first, a.queries, a.depth);
    load_tile<T, MMA_ROWS, DEPTH, LD, MMA_THREADS>(dy_tile, side_of<T>(a.dy, b, h), first, a.queries, a.depth);
    load_tile<T, N, DEPTH, LD, MMA_THREADS>(k_tiles, k, 0, n, a.depth);
    load_tile<T, N, DEPTH, LD, MMA_THREADS>(v_tiles, v, 0, n, a.depth);
    unic_copy_commit();
  }
  /* Twice over the keys: first for the sums, then for dq. */
  int rounds = a.dq.data ? 2 * tiles : tiles;
  for (int j = 0, turn = 0; turn < rounds; turn++) {
    int key = j * N, next = j + 1 < tiles ? j + 1 : 0;
    const T *k_tile = k_tiles + (turn & 1) * N * LD, *v_tile = v_tiles + (turn & 1) * N * LD;
    bool summing = turn < tiles;
    unic_copy_wait<0>();
    __syncthreads();   /* this tile is there, nobody needs the other buffers */
    if (turn + 1 < rounds) {
      load_tile<T, N, DEPTH, LD, MMA_THREADS>(k_tiles + (~turn & 1) * N * LD, k, next * N, n, a.depth);
      load_tile<T, N, DEPTH, LD, MMA_THREADS>(v_tiles + (~turn & 1) * N * LD, v, next * N, n, a.depth);
      unic_copy_commit();
    }
    if (masks) stage_mask<MMA_ROWS, N, MASK_LD, MMA_THREADS>(a, mask_tile, b, h, first, key, LOG2E);
    if (drops) stage_kept<MMA_ROWS, N, MMA_THREADS>(a, kept, head, first, key);
    if (masks || drops) __syncthreads();
    if (turn == tiles) {
#pragma unroll
      for (int half = 0; half < 2; half++) {
        sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 1);
        sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 2);
      }
    }
    float s[N / 8][4], dp[N / 8][4];
    scores<N, DEPTH, LD>(s, own, nullptr, k_tile);
    scores<N, DEPTH, LD>(dp, own_dy, nullptr, v_tile);
    bool edge = key + N > n || (a.causal && key + N - 1 > first + warp * 16);
#pragma unroll
    for (int half = 0; half < 2; half++) {
      const float *mask = mask_tile + (a.mask_query ? warp * 16 + g + 8 * half : 0) * MASK_LD + 2 * t;
      int last = a.causal ? min(n - 1, row + 8 * half) : n - 1;
#pragma unroll
      for (int i = 0; i < N / 8; i++) {
        uint32_t bits = drops ? kept[(warp * 16 + g + 8 * half) * (N / 32) + i / 4] >> (2 * t + i % 4 * 8) : 0;
#pragma unroll
        for (int e = 0; e < 2; e++) {
          float x = s[i][2 * half + e] * scale, d = dp[i][2 * half + e];
          if (masks) x = masked(a, x, mask[i * 8 + e]);
          if (drops) d = bits >> e & 1 ? keep * d : 0;
          float p = unic_exp2(x - lse[half]);
          if (edge && key + i * 8 + 2 * t + e > last) p = d = 0;
          if (summing) sum[half] += p * d;
          else s[i][2 * half + e] = edge && key + i * 8 + 2 * t + e > last ? 0 : p * (d - sum[half]);
        }
      }
    }
    if (!summing) weigh<N, DEPTH, LD>(dq, s, k_tile);
    j = next;
  }
#pragma unroll
  for (int half = 0; half < 2; half++) {
    if (rounds == tiles) {   /* not summed over the four threads of a row yet */
      sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 1);
      sum[half] += __shfl_xor_sync(0xffffffffu, sum[half], 2);
    }
    if (t == 0 && row + 8 * half < a.queries) ((float *)a.sums)[(int64_t)head * a.queries + row + 8 * half] = sum[half];
  }
  if (a.dq.data) {
    float factor[2] = {(float)a.scale, (float)a.scale};
    store_rows<DEPTH, LD>(side_of<T>(a.dq, b, h), own, dq, factor, first + warp * 16, a.queries, a.depth, a.accumulate_q);
  }
}

template <class T, int DEPTH, bool MORE> __global__ void __launch_bounds__(MMA_THREADS, 2) attention_mma_backward_kv(const attention a) {
  const bool masks = MORE && a.mask, drops = MORE && a.threshold;
  constexpr int LD = DEPTH + 8, N = mma_stream<DEPTH>, MASK_LD = mma_mask_ld(MMA_ROWS);
  UNIC_SHARED(float, lses, [2][64]);
  UNIC_SHARED(float, sums, [2][64]);
  UNIC_DYNAMIC(T, k_tile);
  T *v_tile = k_tile + MMA_ROWS * LD, *q_tiles = v_tile + MMA_ROWS * LD, *dy_tiles = q_tiles + 2 * N * LD;
  float *mask_tile = (float *)(dy_tiles + 2 * N * LD);
  uint32_t *kept = (uint32_t *)(mask_tile + (masks ? (a.mask_query ? N : 1) * MASK_LD : 0));
  int head = blockIdx.x / a.blocks, b = head / a.heads, h = head % a.heads, first = blockIdx.x % a.blocks * MMA_ROWS;
  int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, g = lane >> 2, t = lane & 3, row = warp * 16 + g;
  int n = keys_needed<MMA_THREADS>(a, b, h, a.queries - 1);
  int begin = a.causal ? first / N : 0, end = first < n ? (a.queries + N - 1) / N : 0;   /* tiles of queries */
  side<T> q = side_of<T>(a.q, b, h), dy = side_of<T>(a.dy, b, h);
  T *own = k_tile + warp * 16 * LD, *own_v = v_tile + warp * 16 * LD;
  float scale = (float)a.scale * LOG2E, keep = (float)a.keep, dk[DEPTH / 8][4] = {}, dv[DEPTH / 8][4] = {};
  const float *all_lse = (const float *)a.lse + (int64_t)head * a.queries, *all_sums = (const float *)a.sums + (int64_t)head * a.queries;
  bool want_k = a.dk.data;
  auto load = [&](int i, int at) {
    load_tile<T, N, DEPTH, LD, MMA_THREADS>(q_tiles + at * N * LD, q, i * N, a.queries, a.depth);
    load_tile<T, N, DEPTH, LD, MMA_THREADS>(dy_tiles + at * N * LD, dy, i * N, a.queries, a.depth);
    unic_copy_commit();
    int r = threadIdx.x;
    if (r < N) {
      bool inside = i * N + r < a.queries;
      lses[at][r] = inside ? all_lse[i * N + r] * LOG2E : INFINITY;
      sums[at][r] = inside && want_k ? all_sums[i * N + r] : 0;
    }
  };
  if (begin < end) {
    load_tile<T, MMA_ROWS, DEPTH, LD, MMA_THREADS>(k_tile, side_of<T>(a.k, b, h), first, n, a.depth);
    load_tile<T, MMA_ROWS, DEPTH, LD, MMA_THREADS>(v_tile, side_of<T>(a.v, b, h), first, n, a.depth);
    load(begin, 0);
  }
  for (int i = begin; i < end; i++) {
    int at = (i - begin) & 1, query = i * N;
    const T *q_tile = q_tiles + at * N * LD, *dy_tile = dy_tiles + at * N * LD;
    unic_copy_wait<0>();
    __syncthreads();   /* this tile is there, nobody needs the other buffers */
    if (i + 1 < end) load(i + 1, at ^ 1);
    if (masks) stage_mask<N, MMA_ROWS, MASK_LD, MMA_THREADS>(a, mask_tile, b, h, query, first, LOG2E);
    if (drops) stage_kept<N, MMA_ROWS, MMA_THREADS>(a, kept, head, query, first);
    if (masks || drops) __syncthreads();
    float s[N / 8][4], dp[N / 8][4];
    scores<N, DEPTH, LD>(s, own, nullptr, q_tile);
    if (want_k) scores<N, DEPTH, LD>(dp, own_v, nullptr, dy_tile);
    bool edge = first + MMA_ROWS > n || (a.causal && first + MMA_ROWS - 1 > query);
#pragma unroll
    for (int c = 0; c < N / 8; c++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        int r = c * 8 + 2 * t + e;   /* the query */
        float lse = lses[at][r], sum = sums[at][r];
        const float *mask = mask_tile + (a.mask_query ? r : 0) * MASK_LD + row;
        uint32_t bits = drops ? kept[r * (MMA_ROWS / 32) + (warp >> 1)] >> ((warp & 1) * 16 + g) : 0;
        int last = a.causal ? min(n - 1, query + r) : n - 1;
#pragma unroll
        for (int half = 0; half < 2; half++) {
          float x = s[c][2 * half + e] * scale;
          if (masks) x = masked(a, x, mask[8 * half]);
          float p = unic_exp2(x - lse), d = 0, ds = 0;
          if (want_k) {
            d = dp[c][2 * half + e];
            if (drops) d = bits >> (8 * half) & 1 ? keep * d : 0;
            ds = p * (d - sum);
          }
          if (drops && !(bits >> (8 * half) & 1)) p = 0;
          if (edge && first + row + 8 * half > last) p = ds = 0;
          s[c][2 * half + e] = p;
          dp[c][2 * half + e] = ds;
        }
      }
    if (a.dv.data) weigh<N, DEPTH, LD>(dv, s, dy_tile);
    if (want_k) weigh<N, DEPTH, LD>(dk, dp, q_tile);
  }
  float factor_k[2] = {(float)a.scale, (float)a.scale}, factor_v[2] = {keep, keep};
  if (want_k) store_rows<DEPTH, LD>(side_of<T>(a.dk, b, h), own, dk, factor_k, first + warp * 16, a.keys, a.depth, a.accumulate_k);
  if (a.dv.data) store_rows<DEPTH, LD>(side_of<T>(a.dv, b, h), own_v, dv, factor_v, first + warp * 16, a.keys, a.depth, a.accumulate_v);
}

/* f(std::integral_constant<int, DEPTH>) with the smallest DEPTH for a depth of at most 128. */
template <class F> static inline unic_status mma_depth(int depth, F f) {
  if (depth <= 32) return f(std::integral_constant<int, 32>());
  if (depth <= 64) return f(std::integral_constant<int, 64>());
  if (depth <= 96) return f(std::integral_constant<int, 96>());
  return f(std::integral_constant<int, 128>());
}

/* One kernel in the form without masks and dropout where there are none. */
#define MMA_LAUNCH(name, rows, own, streamed, queries, columns) \
  do { \
    size_t shared = mma_shared<T, DEPTH>(a, own, streamed, queries, columns); \
    a.blocks = ((rows) + MMA_ROWS - 1) / MMA_ROWS; \
    unsigned grid = (unsigned)(a.batches * a.heads * a.blocks); \
    if (a.mask || a.threshold) { \
      UNIC_TRY(unic_allow_shared((name<T, DEPTH, true>), shared)); \
      UNIC_LAUNCH((name<T, DEPTH, true>), grid, MMA_THREADS, shared, unic_cuda_stream(k), a); \
    } else { \
      UNIC_TRY(unic_allow_shared((name<T, DEPTH, false>), shared)); \
      UNIC_LAUNCH((name<T, DEPTH, false>), grid, MMA_THREADS, shared, unic_cuda_stream(k), a); \
    } \
  } while (0)

template <class T> unic_status mma_forward(const unic_kernel *k, attention a) {
  return mma_depth(a.depth, [&](auto depth) {
    constexpr int DEPTH = decltype(depth)::value;
    MMA_LAUNCH(attention_mma_forward, a.queries, MMA_ROWS, 2 * 64, MMA_ROWS, 64);
    return UNIC_OK;
  });
}

template <class T> unic_status mma_backward(const unic_kernel *k, attention a) {
  return mma_depth(a.depth, [&](auto depth) {
    constexpr int DEPTH = decltype(depth)::value, N = mma_stream<DEPTH>;
    if (a.queries > 0 && (a.dq.data || a.dk.data)) MMA_LAUNCH(attention_mma_backward_q, a.queries, 2 * MMA_ROWS, 4 * N, MMA_ROWS, N);
    if (a.keys > 0 && (a.dk.data || a.dv.data)) MMA_LAUNCH(attention_mma_backward_kv, a.keys, 2 * MMA_ROWS, 4 * N, N, MMA_ROWS);
    return UNIC_OK;
  });
}

#undef MMA_LAUNCH

}

#endif
