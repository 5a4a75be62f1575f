/* What the kernels of attention.cu share: where q, k, v lie, tiles on their way to shared memory, masks and dropout for a tile.
 *
 * A tile has `queries` rows and `keys` columns of scores. What the mask adds to it lies in shared memory as f32 (one row when all queries share it), and
 * its dropout as one word per query and 32 keys: a thread makes a whole word, eight or nine blocks of Philox, instead of a block for every two scores. */
#ifndef UNIC_ATTENTION_CUH
#define UNIC_ATTENTION_CUH

#include "cuda.cuh"
#include "random.h"

namespace {

/* [B, rows, H, D] in memory; col is the stride of D. wide: rows of whole 16-byte pieces, all aligned. */
struct heads { void *data; int64_t batch, row, head, col; bool wide; };

struct attention {
  int batches, heads, queries, keys, depth;              /* B H S L D */
  int blocks;                                            /* of one head, in this launch */
  struct heads q, k, v, y, dy, dq, dk, dv;
  const void *mask;
  int64_t mask_batch, mask_head, mask_query;             /* strides; keys are contiguous */
  int mask_dtype;
  bool mask_chooses;                                     /* bool or u8 */
  bool causal, drop_all, accumulate_q, accumulate_k, accumulate_v;
  double scale;
  double keep;                                           /* 1/(1 - dropout) */
  uint32_t threshold;                                    /* numbers below it are dropped; 0: no dropout */
  const long long *state;                                /* seed and counter, on the device */
  void *lse;                                             /* [B,H,S], wide; NULL: not wanted */
  void *sums;                                            /* [B,H,S], wide: sum_j p dp of each query */
};

/* One head of a tensor. */
template <class T> struct side { T *data; int64_t row, col; bool wide; };

template <class T> __device__ __forceinline__ side<T> side_of(const heads &x, int b, int h) { return {(T *)x.data + b * x.batch + h * x.head, x.row, x.col, x.wide}; }

/* Keys of a head that any query up to last_query may attend to: all later ones are never read. Every thread of the block calls it. */
template <int THREADS> __device__ __forceinline__ int keys_needed(const attention &a, int b, int h, int last_query) {
  UNIC_SHARED(int, room, [32]);
  int n = a.drop_all ? 0 : a.keys;
  if (a.causal && last_query + 1 < n) n = last_query + 1;
  if (a.mask && a.mask_query == 0 && a.mask_chooses) {
    const unsigned char *m = (const unsigned char *)a.mask + b * a.mask_batch + h * a.mask_head;
    int last = 0;
    for (int j = threadIdx.x; j < n; j += THREADS) if (m[j]) last = j + 1;
    n = unic_block_max(last, room);
  }
  return n;
}

/* Rows first .. first + ROWS of a head to shared memory, LD elements apart; 0 from row `rows` on and behind `depth`. Whole pieces are on their way after
 * this (unic_copy_commit, unic_copy_wait), the rest is there. */
template <class T, int ROWS, int DEPTH, int LD, int THREADS> __device__ __forceinline__ void load_tile(T *to, const side<T> &x, int first, int rows, int depth) {
  constexpr int V = unic_vector<T>, PIECES = DEPTH / V, ACROSS = PIECES % 8 ? 4 : 8, STEP = THREADS / ACROSS;
  static_assert(PIECES % ACROSS == 0 && ROWS % STEP == 0, "whole turns");
  if (x.wide) {
    int r = threadIdx.x / ACROSS, c = threadIdx.x % ACROSS * V;
    const T *from = x.data + (first + r) * x.row + c;
    T *p = to + r * LD + c;
#pragma unroll
    for (int i = 0; i < ROWS; i += STEP) {
      bool inside = first + r + i < rows;
#pragma unroll
      for (int e = 0; e < DEPTH; e += ACROSS * V)
        if (inside && c + e < depth) unic_copy_async16(p + i * LD + e, from + e);
        else *(uint4 *)(p + i * LD + e) = make_uint4(0, 0, 0, 0);
      from += STEP * x.row;
    }
    return;
  }
#pragma unroll 1
  for (int i = threadIdx.x; i < ROWS * DEPTH; i += THREADS) {
    int r = i / DEPTH, c = i % DEPTH;
    to[r * LD + c] = first + r < rows && c < depth ? x.data[(first + r) * x.row + c * x.col] : unic_narrow<T>(0);
  }
}

/* What the mask adds to a score; -inf where it forbids. */
template <class W> __device__ __forceinline__ W mask_value(const attention &a, int64_t at) {
  switch (a.mask_dtype) {
    case UNIC_F32: return ((const float *)a.mask)[at];
    case UNIC_F64: return (W)((const double *)a.mask)[at];
    case UNIC_BF16: return unic_widen(((const __nv_bfloat16 *)a.mask)[at]);
    case UNIC_F16: return unic_widen(((const __half *)a.mask)[at]);
    default: return ((const unsigned char *)a.mask)[at] ? W(0) : -W(INFINITY);
  }
}

/* The mask of a tile times `factor`, rows LD apart; its first row only where all queries share it. */
template <int QUERIES, int KEYS, int LD, int THREADS> __device__ __forceinline__ void stage_mask(const attention &a, float *to, int b, int h, int query, int key, float factor) {
  int64_t base = b * a.mask_batch + h * a.mask_head;
  int rows = a.mask_query ? QUERIES : 1;
  for (int i = threadIdx.x; i < rows * KEYS; i += THREADS) {
    int r = i / KEYS, c = i % KEYS;
    to[r * LD + c] = query + r < a.queries && key + c < a.keys ? mask_value<float>(a, base + (query + r) * a.mask_query + key + c) * factor : 0.0f;
  }
}

/* A score and its mask: what a mask of bools forbids is forbidden whatever the score is. */
__device__ __forceinline__ float masked(const attention &a, float s, float m) { return a.mask_chooses && m < 0 ? m : s + m; }

/* Which of 32 elements of the stream from e on are kept, lowest bit first. */
__device__ __forceinline__ uint32_t kept_word(const attention &a, uint64_t seed, uint64_t counter, int64_t e) {
  int ahead = (int)(e & 3), count = ahead ? 9 : 8;
  uint64_t bits = 0, block = counter + (uint64_t)(e >> 2);
#pragma unroll 1
  for (int n = 0; n < count; n++) {
    uint32_t x[4];
    unic_philox(seed, block + n, x);
    uint32_t four = (x[0] >= a.threshold) | (x[1] >= a.threshold) << 1 | (x[2] >= a.threshold) << 2 | (x[3] >= a.threshold) << 3;
    bits |= (uint64_t)four << (4 * n);
  }
  return (uint32_t)(bits >> ahead);
}

/* The dropout of a tile: word r KEYS/32 + c of `to` is for query r and keys 32 c .. of it. */
template <int QUERIES, int KEYS, int THREADS> __device__ __forceinline__ void stage_kept(const attention &a, uint32_t *to, int head, int query, int key) {
  constexpr int WORDS = KEYS / 32;
  uint64_t seed = (uint64_t)a.state[0], counter = (uint64_t)a.state[1];
  for (int i = threadIdx.x; i < QUERIES * WORDS; i += THREADS)
    to[i] = kept_word(a, seed, counter, ((int64_t)head * a.queries + query + i / WORDS) * a.keys + key + i % WORDS * 32);
}

}

#endif
