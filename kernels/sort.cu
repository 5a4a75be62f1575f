/* sort, topk, randperm on the GPU (kernels/sort.c), and the sorting of keys that other kernels use (sort.cuh).
 *
 * Every element becomes an unsigned key that compares like it (as many bits as the type has). Lines of up to 2048 keys are sorted in the shared memory of one
 * block (a bitonic network; equal keys by their places, so it is stable). Longer lines go through one pass for every eight bits: count the digits of each
 * tile of 2048 keys, add the counts up, move every key to its place: two reads and one write of keys and places a pass. Values are then fetched by their
 * places. Nothing depends on the order in which blocks run.
 * Backward: each element of the gradient goes to where its value came from; no place is written twice. */
#include "move.cuh"
#include "reduce.cuh"
#include "sort.cuh"

#include "random.h"

namespace {

enum { X };
enum { SORT_DIM = 1, SORT_DESCENDING };
enum { TOP_K = 1, TOP_DIM, TOP_LARGEST };
enum { PERM_N, PERM_RNG };
enum { VALUES, IDS };
enum { SHORT = 2048, THREADS = 256, WARPS = THREADS / 32, ITEMS = 8, TILE = THREADS * ITEMS, DIGITS = 256, SCAN = 1024 };

/* ---------------------------------------------------------------- short lines: one block each, `size` a power of two not below length */

template <class Key> __global__ void sort_short(Key *keys, uint32_t *ids, int64_t lines, int length, int size) {
  UNIC_DYNAMIC(Key, key);
  uint32_t *id = (uint32_t *)(key + size);
  for (int64_t line = blockIdx.x; line < lines; line += gridDim.x) {
    for (int i = threadIdx.x; i < size; i += blockDim.x) {
      key[i] = i < length ? keys[line * length + i] : ~Key(0);
      id[i] = (uint32_t)i;   /* what fills up comes last, also among the largest keys */
    }
    for (int run = 2; run <= size; run *= 2)
      for (int step = run / 2; step; step /= 2) {
        __syncthreads();
        for (int p = threadIdx.x; p < size / 2; p += blockDim.x) {
          int i = 2 * p - (p & (step - 1)), j = i + step;
          Key a = key[i], b = key[j];
          uint32_t u = id[i], v = id[j];
          bool above = a > b || (a == b && u > v);
          if (above == ((i & run) == 0)) { key[i] = b; key[j] = a; id[i] = v; id[j] = u; }
        }
      }
    __syncthreads();
    for (int i = threadIdx.x; i < length; i += blockDim.x) {
      keys[line * length + i] = key[i];
      ids[line * length + i] = id[i];
    }
    __syncthreads();
  }
}

/* ---------------------------------------------------------------- long lines, eight bits at a time; counts [lines, DIGITS, tiles] */

template <class Key> __global__ void count_digits(const Key *keys, uint32_t *counts, int64_t lines, int64_t length, unic_split tiles, int shift) {
  UNIC_SHARED(uint32_t, count, [DIGITS]);
  for (int64_t item = blockIdx.x; item < lines * tiles.by; item += gridDim.x) {
    const int64_t line = unic_outer(tiles, item), tile = item - line * tiles.by;
    count[threadIdx.x] = 0;
    __syncthreads();
    for (int j = 0; j < ITEMS; j++) {
      int64_t i = tile * TILE + j * THREADS + threadIdx.x;
      if (i < length) atomicAdd(&count[(uint32_t)(keys[line * length + i] >> shift) & 0xff], 1u);
    }
    __syncthreads();
    counts[(line * DIGITS + threadIdx.x) * tiles.by + tile] = count[threadIdx.x];
    __syncthreads();
  }
}

/* Every count becomes the sum of those before it in its line. */
__global__ void add_up(uint32_t *counts, int64_t lines, int64_t n) {
  UNIC_SHARED(uint32_t, room, [32]);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int64_t line = blockIdx.x; line < lines; line += gridDim.x) {
    uint32_t before = 0;
    for (int64_t at = 0; at < n; at += SCAN) {
      const int64_t i = at + threadIdx.x;
      const uint32_t own = i < n ? counts[line * n + i] : 0;
      uint32_t sum = own;
      for (int o = 1; o < 32; o *= 2) {
        uint32_t other = __shfl_up_sync(0xffffffffu, sum, o);
        if (lane >= o) sum += other;
      }
      if (lane == 31) room[warp] = sum;
      __syncthreads();
      uint32_t all = room[lane];
      for (int o = 1; o < 32; o *= 2) {
        uint32_t other = __shfl_up_sync(0xffffffffu, all, o);
        if (lane >= o) all += other;
      }
      const uint32_t warps_before = __shfl_sync(0xffffffffu, all, warp > 0 ? warp - 1 : 0), total = __shfl_sync(0xffffffffu, all, 31);
      if (i < n) counts[line * n + i] = before + (warp > 0 ? warps_before : 0) + sum - own;
      before += total;
      __syncthreads();
    }
  }
}

/* Lanes with the same digit as this one. */
__device__ __forceinline__ uint32_t same_digit(uint32_t digit, bool there) {
  uint32_t same = __ballot_sync(0xffffffffu, there);
#pragma unroll
  for (int b = 0; b < 8; b++) {
    uint32_t set = __ballot_sync(0xffffffffu, digit >> b & 1);
    same &= digit >> b & 1 ? set : ~set;
  }
  return same;
}

/* Warp w of a tile has its keys 256 w .. 256 w + 255, in eight turns, so that keys keep their order. `ids` NULL: places are counted here. */
template <class Key>
__global__ void move_keys(const Key *keys, const uint32_t *ids, Key *to_keys, uint32_t *to_ids, const uint32_t *counts, int64_t lines, int64_t length, unic_split tiles, int shift) {
  UNIC_SHARED(uint32_t, place, [WARPS][DIGITS]);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int64_t item = blockIdx.x; item < lines * tiles.by; item += gridDim.x) {
    const int64_t line = unic_outer(tiles, item), tile = item - line * tiles.by, first = tile * TILE + warp * (32 * ITEMS) + lane;
    Key key[ITEMS];
    uint32_t rank[ITEMS];
    for (int w = 0; w < WARPS; w++) place[w][threadIdx.x] = 0;
    __syncthreads();
#pragma unroll
    for (int j = 0; j < ITEMS; j++) {
      const int64_t i = first + 32 * j;
      const bool there = i < length;
      key[j] = there ? keys[line * length + i] : 0;
      const uint32_t digit = (uint32_t)(key[j] >> shift) & 0xff, same = same_digit(digit, there), before = __popc(same & ((1u << lane) - 1));
      rank[j] = there ? place[warp][digit] + before : 0;
      __syncwarp();
      if (there && before == 0) place[warp][digit] += __popc(same);
      __syncwarp();
    }
    __syncthreads();
    uint32_t at = counts[(line * DIGITS + threadIdx.x) * tiles.by + tile];   /* of digit threadIdx.x */
    for (int w = 0; w < WARPS; w++) {
      uint32_t own = place[w][threadIdx.x];
      place[w][threadIdx.x] = at;
      at += own;
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < ITEMS; j++) {
      const int64_t i = first + 32 * j;
      if (i >= length) continue;
      const int64_t to = line * length + place[warp][(uint32_t)(key[j] >> shift) & 0xff] + rank[j];
      to_keys[to] = key[j];
      to_ids[to] = ids ? ids[line * length + i] : (uint32_t)i;
    }
    __syncthreads();
  }
}

int64_t whole(int64_t bytes) { return (bytes + 255) / 256 * 256; }

template <class Key> unic_sorted sort_keys(const unic_kernel *k, void *scratch, int64_t lines, int64_t length, int bits) {
  cudaStream_t stream = unic_cuda_stream(k);
  const int64_t all = lines * length;
  char *next = (char *)scratch;
  Key *keys = (Key *)next;
  next += whole(all * (int64_t)sizeof(Key));
  uint32_t *ids = (uint32_t *)next;
  next += whole(all * 4);
  if (length <= SHORT) {
    int size = 2;
    while (size < length) size *= 2;
    int threads = size / 2 < 32 ? 32 : size / 2;
    UNIC_LAUNCH((sort_short<Key>), unic_blocks(k, lines * threads, threads), threads, size * (sizeof(Key) + 4), stream, keys, ids, lines, (int)length, size);
    return {keys, ids};
  }
  Key *other_keys = (Key *)next;
  next += whole(all * (int64_t)sizeof(Key));
  uint32_t *other_ids = (uint32_t *)next, *counts = (uint32_t *)(next + whole(all * 4));
  const unic_split tiles = unic_split_of((length + TILE - 1) / TILE);
  unsigned grid = unic_blocks(k, lines * tiles.by * THREADS, THREADS);
  if (bits < 1) bits = 1;   /* all are equal: their places still have to be written */
  for (int shift = 0; shift < bits; shift += 8) {
    UNIC_LAUNCH((count_digits<Key>), grid, THREADS, 0, stream, (const Key *)keys, counts, lines, length, tiles, shift);
    UNIC_LAUNCH(add_up, unic_blocks(k, lines * SCAN, SCAN), SCAN, 0, stream, counts, lines, DIGITS * tiles.by);
    UNIC_LAUNCH((move_keys<Key>), grid, THREADS, 0, stream, (const Key *)keys, shift ? (const uint32_t *)ids : nullptr, other_keys, other_ids, (const uint32_t *)counts, lines, length, tiles, shift);
    std::swap(keys, other_keys);
    std::swap(ids, other_ids);
  }
  return {keys, ids};
}

/* ---------------------------------------------------------------- keys: -0 equals 0, NaN is above everything */

template <class T> using key_of = std::conditional_t<sizeof(T) == 8, unsigned long long, uint32_t>;

template <class T> __device__ __forceinline__ key_of<T> make_key(T x) {
  if constexpr (std::is_same_v<T, unsigned char>) return x;
  else if constexpr (unic_is_integer<T>) return (key_of<T>)x ^ (key_of<T>)1 << (8 * sizeof(T) - 1);
  else {
    using raw = std::conditional_t<sizeof(T) == 8, unsigned long long, std::conditional_t<sizeof(T) == 4, uint32_t, unsigned short>>;
    constexpr raw sign = (raw)((raw)1 << (8 * sizeof(T) - 1));
    const unic_wide<T> wide = unic_widen(x);
    if (wide != wide) return (raw)~raw(0);
    if (wide == 0) return sign;
    raw u;
    memcpy(&u, &x, sizeof u);
    return (raw)(u & sign ? (raw)~u : (raw)(u | sign));
  }
}

/* keys [lines, length]; axes: the other dimensions of x. */
template <class T> __global__ void make_keys(const T *x, unic_axes<3> axes, unic_split split, int64_t stride, int64_t n, bool descending, key_of<T> *keys) {
  constexpr key_of<T> mask = sizeof(T) < 4 ? ((key_of<T>)1 << 8 * sizeof(T)) - 1 : ~(key_of<T>)0;
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
    int64_t line = unic_outer(split, i), at[3];
    unic_axes_find(axes, line, at);
    key_of<T> key = make_key(x[at[0] + (i - line * split.by) * stride]);
    keys[i] = descending ? (key_of<T>)(~key & mask) : key;
  }
}

/* The first k of each line: values and places. */
template <class T>
__global__ void take_sorted(const T *x, T *values, long long *ids, const uint32_t *sorted, unic_axes<3> axes, unic_split split, int64_t length, int64_t xs, int64_t vs, int64_t is, int64_t n) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
    int64_t line = unic_outer(split, i), j = i - line * split.by, at[3];
    unic_axes_find(axes, line, at);
    int64_t id = sorted[line * length + j];
    values[at[1] + j * vs] = x[at[0] + id * xs];
    ids[at[2] + j * is] = id;
  }
}

/* dx[ids] = or += dvalues; axes: dx, dvalues, ids. */
template <class T>
__global__ void give_back(T *dx, const T *dvalues, const long long *ids, unic_axes<3> axes, unic_split split, int64_t xs, int64_t vs, int64_t is, int64_t n, bool add) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
    int64_t line = unic_outer(split, i), j = i - line * split.by, at[3];
    unic_axes_find(axes, line, at);
    T *to = dx + at[0] + ids[at[2] + j * is] * xs;
    const T g = dvalues[at[1] + j * vs];
    *to = add ? unic_narrow<T>(unic_widen(*to) + unic_widen(g)) : g;
  }
}

bool is_top(const unic_kernel *k) { return unic_cuda_host->op_name(k->op)[0] == 't'; }
int dim_arg(const unic_kernel *k) { return unic_dim_of(k->arg[is_top(k) ? (int)TOP_DIM : (int)SORT_DIM].integer, k->in[X].ndim); }

unic_status plan(const unic_kernel *k, unic_plan *p) {
  const unic_view *x = &k->in[X];
  if (k->backward || x->numel == 0) return UNIC_OK;
  int64_t length = x->shape[dim_arg(k)];
  p->scratch = unic_cuda_sort_bytes(x->numel / length, length, unic_size_of(x->dtype) == 8 ? 8 : 4);
  return UNIC_OK;
}

unic_status forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *values = &k->out[VALUES], *ids = &k->out[IDS];
  const int dim = dim_arg(k);
  const int64_t taken = values->shape[dim];
  if (x->numel == 0 || taken == 0) return UNIC_OK;
  const int64_t length = x->shape[dim], lines = x->numel / length, n = lines * taken;
  const bool descending = is_top(k) ? k->arg[TOP_LARGEST].integer : k->arg[SORT_DESCENDING].integer;
  const unic_view *const views[3] = {x, values, ids};
  const unic_axes<3> axes = unic_axes_of(unic_other_dims(x->ndim, dim), views);
  unic_types(x->dtype, [&](auto t) {
    using T = decltype(t);
    UNIC_LAUNCH((make_keys<T>), unic_blocks(k, x->numel, THREADS), THREADS, 0, unic_cuda_stream(k), (const T *)x->data, axes, unic_split_of(length), x->stride[dim], x->numel,
                descending, (key_of<T> *)k->scratch);
    unic_sorted sorted = unic_cuda_sort(k, k->scratch, lines, length, (int)sizeof(key_of<T>), x->dtype == UNIC_BOOL && !descending ? 1 : 8 * (int)sizeof(T));
    UNIC_LAUNCH((take_sorted<T>), unic_blocks(k, n, THREADS), THREADS, 0, unic_cuda_stream(k), (const T *)x->data, (T *)values->data, (long long *)ids->data, sorted.ids, axes,
                unic_split_of(taken), length, x->stride[dim], values->stride[dim], ids->stride[dim], n);
  });
  return UNIC_OK;
}

unic_status backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X], *dy = &k->dout[VALUES], *ids = &k->out[IDS];
  if (dx->numel == 0) return UNIC_OK;
  const int dim = dim_arg(k);
  const bool some = dy->data && dy->numel, all = some && dy->shape[dim] == dx->shape[dim];   /* all: every place is written */
  if (!k->accumulate[X] && !all) unic_cuda_move_fill(k, dx, 0);
  if (!some) return UNIC_OK;
  const unic_view *const views[3] = {dx, dy, ids};
  const unic_axes<3> axes = unic_axes_of(unic_other_dims(dx->ndim, dim), views);
  unic_floats(dx->dtype, [&](auto t) {
    using T = decltype(t);
    UNIC_LAUNCH((give_back<T>), unic_blocks(k, dy->numel, THREADS), THREADS, 0, unic_cuda_stream(k), (T *)dx->data, (const T *)dy->data, (const long long *)ids->data, axes,
                unic_split_of(dy->shape[dim]), dx->stride[dim], dy->stride[dim], ids->stride[dim], dy->numel, (bool)k->accumulate[X]);
  });
  return UNIC_OK;
}

/* ---------------------------------------------------------------- randperm: numbers 2i and 2i+1 of the stream are the key of i */

__global__ void random_keys(const int64_t *rng, unsigned long long *keys, int64_t n) {
  for (int64_t b = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; 2 * b < n; b += (int64_t)gridDim.x * blockDim.x) {
    uint32_t four[4];
    unic_philox((uint64_t)rng[0], (uint64_t)rng[1] + (uint64_t)b, four);
    keys[2 * b] = (unsigned long long)four[0] << 32 | four[1];
    if (2 * b + 1 < n) keys[2 * b + 1] = (unsigned long long)four[2] << 32 | four[3];
  }
}

__global__ void give_order(const uint32_t *sorted, long long *y, int64_t n, int64_t *rng, int64_t blocks) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) y[i] = sorted[i];
  if (blockIdx.x == 0 && threadIdx.x == 0) rng[1] += blocks;
}

unic_status perm_plan(const unic_kernel *k, unic_plan *p) {
  p->scratch = unic_cuda_sort_bytes(1, k->arg[PERM_N].integer, 8);
  return UNIC_OK;
}

unic_status perm_forward(const unic_kernel *k) {
  const int64_t n = k->arg[PERM_N].integer;
  if (n == 0) return UNIC_OK;
  int64_t *rng = (int64_t *)k->in[PERM_RNG].data;
  UNIC_LAUNCH(random_keys, unic_blocks(k, (n + 1) / 2, THREADS), THREADS, 0, unic_cuda_stream(k), (const int64_t *)rng, (unsigned long long *)k->scratch, n);
  unic_sorted sorted = unic_cuda_sort(k, k->scratch, 1, n, 8, 64);
  UNIC_LAUNCH(give_order, unic_blocks(k, n, THREADS), THREADS, 0, unic_cuda_stream(k), sorted.ids, (long long *)k->out[0].data, n, rng, unic_random_blocks(2 * n));
  return UNIC_OK;
}

}

int64_t unic_cuda_sort_bytes(int64_t lines, int64_t length, int key_size) {
  int64_t all = lines * length, one = whole(all * key_size) + whole(all * 4);
  return length <= SHORT ? one : 2 * one + lines * DIGITS * ((length + TILE - 1) / TILE) * 4;
}

unic_sorted unic_cuda_sort(const unic_kernel *k, void *scratch, int64_t lines, int64_t length, int key_size, int bits) {
  return key_size == 8 ? sort_keys<unsigned long long>(k, scratch, lines, length, bits) : sort_keys<uint32_t>(k, scratch, lines, length, bits);
}

UNIC_CUDA_OPS(sort, {"sort", {.forward = forward, .backward = backward, .plan = plan}}, {"topk", {.forward = forward, .backward = backward, .plan = plan}},
              {"randperm", {.forward = perm_forward, .plan = perm_plan}});
