/* copy, cast, channels_last on the GPU (copy.c): to = from, any strides, any dtypes; `from` broadcasts.
 *
 * Two forms: along the walk of `to`, 16 bytes of the wider type at a time where rows are dense; and, where elements keep their type and `from` is
 * dense along another dimension than `to` (row-major <-> channels-last, matrices transposed), tiles that go through shared memory, so that reads and
 * writes are both coalesced. Each byte is read once and written once. Moves only: nothing depends on an order. */
#include "convert.cuh"
#include "move.cuh"
#include "walk.cuh"

namespace {

enum { TO, FROM };
enum { X, DTYPE };

template <class To, class From> struct converted {
  __device__ __forceinline__ To operator()(From x) const { return unic_convert<To>(x); }
};
template <class T> struct same {
  __device__ __forceinline__ T operator()(T x) const { return x; }
};

/* ---------------------------------------------------------------- tiles */

enum { TILE_THREADS = 256, TILE_LEAST = 8 };   /* fewer elements along either dimension are not worth a tile */

/* Tiles are TILE x TILE elements: a along the dimension where `from` is dense, b along the one where `to` is. */
struct tiles {
  uint32_t tiles, a, b;                      /* tiles in all; elements along a and b */
  unic_divider tiles_a, tiles_b;
  int32_t to_a, to_b, from_a, from_b;        /* strides */
  int32_t ndim;                              /* other dimensions, innermost first */
  unic_divider shape[UNIC_MAX_RANK];
  int32_t to_stride[UNIC_MAX_RANK], from_stride[UNIC_MAX_RANK];
};

template <class T> constexpr int tile_of = sizeof(T) >= 4 ? 32 : 64;

template <class T> __global__ void __launch_bounds__(TILE_THREADS) tile_kernel(tiles s, T *to, const T *from) {
  constexpr int TILE = tile_of<T>, PAD = sizeof(T) < 4 ? 4 / (int)sizeof(T) : 1, WARPS = TILE_THREADS / 32;   /* rows an odd number of words apart: no bank conflicts */
  UNIC_SHARED(T, tile, [TILE][TILE + PAD]);
  const uint32_t lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (uint32_t t = blockIdx.x; t < s.tiles; t += gridDim.x) {
    uint32_t q = unic_divide(t, s.tiles_a), a0 = (t - q * s.tiles_a.by) * TILE, rest = unic_divide(q, s.tiles_b), b0 = (q - rest * s.tiles_b.by) * TILE;
    int32_t to_at = (int32_t)a0 * s.to_a + (int32_t)b0 * s.to_b, from_at = (int32_t)a0 * s.from_a + (int32_t)b0 * s.from_b;
#pragma unroll
    for (int d = 0; d < UNIC_MAX_RANK; d++) {
      if (d == s.ndim) break;
      q = unic_divide(rest, s.shape[d]);
      int32_t r = (int32_t)(rest - q * s.shape[d].by);
      to_at += r * s.to_stride[d];
      from_at += r * s.from_stride[d];
      rest = q;
    }
    const uint32_t na = s.a - a0, nb = s.b - b0;
#pragma unroll
    for (uint32_t b = warp; b < TILE; b += WARPS)
#pragma unroll
      for (uint32_t a = lane; a < TILE; a += 32)
        if (a < na && b < nb) tile[b][a] = from[from_at + (int32_t)a * s.from_a + (int32_t)b * s.from_b];
    __syncthreads();
#pragma unroll
    for (uint32_t a = warp; a < TILE; a += WARPS)
#pragma unroll
      for (uint32_t b = lane; b < TILE; b += 32)
        if (a < na && b < nb) to[to_at + (int32_t)a * s.to_a + (int32_t)b * s.to_b] = tile[b][a];
    __syncthreads();
  }
}

template <class T> void move_tiles(const unic_kernel *k, const unic_walk *walk, int along, T *to, const T *from) {
  const int64_t begin[UNIC_WALK_OPERANDS] = {0};
  unic_walk_pieces(walk, begin, [&](const unic_walk *w, const int64_t *at) {
    constexpr int TILE = tile_of<T>;
    int inner = w->ndim - 1;
    int64_t na = (w->shape[along] + TILE - 1) / TILE, nb = (w->shape[inner] + TILE - 1) / TILE, n = na * nb;
    tiles s = {};
    s.a = (uint32_t)w->shape[along];
    s.b = (uint32_t)w->shape[inner];
    s.tiles_a = unic_divider_of((uint32_t)na);
    s.tiles_b = unic_divider_of((uint32_t)nb);
    s.to_a = (int32_t)w->stride[0][along];
    s.to_b = (int32_t)w->stride[0][inner];
    s.from_a = (int32_t)w->stride[1][along];
    s.from_b = (int32_t)w->stride[1][inner];
    for (int d = inner - 1; d >= 0; d--) {
      if (d == along) continue;
      n *= w->shape[d];
      s.shape[s.ndim] = unic_divider_of((uint32_t)w->shape[d]);
      s.to_stride[s.ndim] = (int32_t)w->stride[0][d];
      s.from_stride[s.ndim++] = (int32_t)w->stride[1][d];
    }
    s.tiles = (uint32_t)n;
    UNIC_LAUNCH((tile_kernel<T>), unic_blocks(k, n * TILE_THREADS, TILE_THREADS), TILE_THREADS, 0, unic_cuda_stream(k), s, to + at[0], from + at[1]);
  });
}

/* ---------------------------------------------------------------- ops */

unic_status copy_forward(const unic_kernel *k) {
  unic_cuda_move(k, &k->in[TO], &k->in[FROM]);
  return UNIC_OK;
}

unic_status move_forward(const unic_kernel *k) {
  unic_cuda_move(k, &k->out[0], &k->in[X]);
  return UNIC_OK;
}

unic_status move_backward(const unic_kernel *k) {
  unic_cuda_move_gradient(k, &k->din[X], &k->dout[0], k->accumulate[X]);
  return UNIC_OK;
}

}

void unic_cuda_move(const unic_kernel *k, const unic_view *to, const unic_view *from) {
  if (to->numel == 0) return;
  unic_walk w;
  const unic_view *const views[2] = {to, from};
  unic_walk_init(&w, 2, views);
  if (to->dtype != from->dtype) {
    unic_all_types(to->dtype, [&](auto t) {
      unic_types(from->dtype, [&](auto f) {
        using To = decltype(t);
        using From = decltype(f);
        if constexpr (!std::is_same_v<To, From>) unic_map(k, &w, 0, converted<To, From>(), (To *)to->data, (const From *)from->data);
        else if constexpr (sizeof(To) == 1) unic_map(k, &w, 0, same<To>(), (To *)to->data, (const To *)from->data);   /* bool as u8 */
      });
    });
    return;
  }
  /* Where is `from` densest? */
  int inner = w.ndim - 1, along = inner;
  auto step = [&](int d) { return w.stride[1][d] < 0 ? -w.stride[1][d] : w.stride[1][d]; };
  for (int d = 0; d < inner; d++) if (step(d) != 0 && step(d) < step(along)) along = d;
  bool by_tiles = along != inner && step(inner) != 0 && w.shape[along] >= TILE_LEAST && w.shape[inner] >= TILE_LEAST;
  unic_raw(unic_size_of(to->dtype), [&](auto t) {
    using T = decltype(t);
    if (by_tiles) move_tiles(k, &w, along, (T *)to->data, (const T *)from->data);
    else unic_map(k, &w, 0, same<T>(), (T *)to->data, (const T *)from->data);
  });
}

UNIC_CUDA_OPS(copy, {"copy", {.forward = copy_forward}}, {"cast", {.forward = move_forward, .backward = move_backward, .remake = move_forward}},
              {"channels_last", {.forward = move_forward, .backward = move_backward}});
