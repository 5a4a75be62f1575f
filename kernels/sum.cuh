/* Sums over some dimensions on the GPU: to = (or +=) the sum of f(from...) over the dimensions in a bit set; the other dimensions are kept.
 *
 * Neighbouring threads take kept elements where those lie side by side in memory (a bias gradient: columns), and elements of one sum where those do
 * (rows). Terms are made in the wide type, a few of them are added in it, the rest in f64. Where few elements are kept, the dimensions summed over are
 * cut into pieces whose sums (f64) go through scratch and are added up by a second launch. Pieces and order are fixed by shapes and strides, so bits are
 * the same from run to run. Each operand is read once. */
#ifndef UNIC_SUM_CUH
#define UNIC_SUM_CUH

#include "convert.cuh"
#include "move.cuh"
#include "walk.cuh"

enum { UNIC_SUM_THREADS = 256, UNIC_SUM_BLOCKS = 1024 };

/* ---------------------------------------------------------------- kernels */

/* How the work is cut. */
struct unic_sum_cut {
  uint32_t pieces, piece;     /* of the dimensions summed over; units of each */
  int32_t shift;              /* columns: 2^shift kept units side by side in a block; rows: 2^shift threads for one sum */
  int32_t accumulate;
};

/* V sums, of kept elements from at on: into `to`, or into partial[at]. */
template <class To> static __device__ __forceinline__ void unic_sum_put(double sum, int accumulate, To *to) {
  *to = unic_convert<To>(accumulate ? sum + (double)unic_widen(*to) : sum);
}

template <int V, class W, class F, class... From, size_t... o, int N, int M>
static __device__ __forceinline__ void unic_sum_terms(const F &f, const unic_places<M> &places, const int32_t (&at)[N], int n, W (&term)[V], std::index_sequence<o...>, const From *...from) {
  [&](const auto &...row) {
#pragma unroll
    for (int j = 0; j < V; j++) term[j] = f(row.at[j]...);
  }(unic_get<V>(from + at[o], places.mode[o], places.inner[o], n)...);
}

/* The last operand of `kept` is `to`; the ones before it, and those of `reduced`, are `from`. */
/* The 1: rather fewer threads on a processor than the few bytes that ptxas would spill for a full one (sm_100, sm_120, divisions). */
template <int V, class F, class To, class... From>
__global__ void __launch_bounds__(UNIC_SUM_THREADS, 1) unic_sum_columns(F f, unic_places<1 + sizeof...(From)> kept, unic_places<sizeof...(From)> reduced, unic_sum_cut cut, To *to,
                                                                     double *partial, const From *...from) {
  constexpr int N = sizeof...(From), AT_ONCE = V > 4 ? 2 : 4;
  using W = decltype(f(from[0]...));
  UNIC_SHARED(double, room, [V][UNIC_SUM_THREADS]);
  const uint32_t t = threadIdx.x, width = 1u << cut.shift, rows = UNIC_SUM_THREADS >> cut.shift, blocks = (kept.units + width - 1) >> cut.shift;
  for (uint32_t b = blockIdx.x; b < blocks * cut.pieces; b += gridDim.x) {
    const uint32_t piece = b / blocks, unit = ((b - piece * blocks) << cut.shift) + (t & (width - 1));
    int32_t base[N + 1] = {};
    int n = 0;
    double sum[V];
#pragma unroll
    for (int j = 0; j < V; j++) sum[j] = 0;
    if (unit < kept.units) {
      unic_places_find(kept, unit, base);
      n = unic_places_count(kept, unit);
      const uint32_t first = piece * cut.piece, last = first + cut.piece < reduced.units ? first + cut.piece : reduced.units;
      for (uint32_t r = first + (t >> cut.shift); r < last; r += AT_ONCE * rows) {
        W some[V];
#pragma unroll
        for (int j = 0; j < V; j++) some[j] = 0;
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
          if (r + i * rows >= last) continue;
          int32_t at[N];
          W term[V];
          unic_places_find(reduced, r + i * rows, at);
#pragma unroll
          for (int o = 0; o < N; o++) at[o] += base[o];
          unic_sum_terms<V>(f, kept, at, n, term, std::index_sequence_for<From...>(), from...);
#pragma unroll
          for (int j = 0; j < V; j++) some[j] += term[j];
        }
#pragma unroll
        for (int j = 0; j < V; j++) sum[j] += (double)some[j];
      }
    }
#pragma unroll
    for (int j = 0; j < V; j++) room[j][t] = sum[j];
    for (uint32_t half = UNIC_SUM_THREADS / 2; half >= width; half >>= 1) {
      __syncthreads();
      if (t < half) {
#pragma unroll
        for (int j = 0; j < V; j++) room[j][t] += room[j][t + half];
      }
    }
    if (t < width) {
#pragma unroll
      for (int j = 0; j < V; j++)
        if (j < n) {
          if (partial) partial[(int64_t)piece * kept.numel + unit * (uint32_t)kept.unit + j] = room[j][t];
          else unic_sum_put(room[j][t], cut.accumulate, to + base[N] + j * kept.inner[N]);
        }
    }
    __syncthreads();
  }
}

template <int V, class F, class To, class... From>
__global__ void __launch_bounds__(UNIC_SUM_THREADS, 1) unic_sum_rows(F f, unic_places<1 + sizeof...(From)> kept, unic_places<sizeof...(From)> reduced, unic_sum_cut cut, To *to,
                                                                  double *partial, const From *...from) {
  constexpr int N = sizeof...(From), AT_ONCE = 2;
  using W = decltype(f(from[0]...));
  UNIC_SHARED(double, room, [32]);
  const uint32_t lane = threadIdx.x & ((1u << cut.shift) - 1), sums = UNIC_SUM_THREADS >> cut.shift, all = kept.numel * cut.pieces;
  for (uint32_t begin = blockIdx.x * sums; begin < all; begin += gridDim.x * sums) {
    const uint32_t mine = begin + (threadIdx.x >> cut.shift), piece = mine / kept.numel, element = mine - piece * kept.numel;
    int32_t base[N + 1] = {};
    double sum = 0;
    if (mine < all) {
      unic_places_find(kept, element, base);
      const uint32_t first = piece * cut.piece, last = first + cut.piece < reduced.units ? first + cut.piece : reduced.units, step = 1u << cut.shift;
      for (uint32_t r = first + lane; r < last; r += AT_ONCE * step) {
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
          if (r + i * step >= last) continue;
          int32_t at[N];
          W term[V];
          const int n = unic_places_count(reduced, r + i * step);
          unic_places_find(reduced, r + i * step, at);
#pragma unroll
          for (int o = 0; o < N; o++) at[o] += base[o];
          unic_sum_terms<V>(f, reduced, at, n, term, std::index_sequence_for<From...>(), from...);
#pragma unroll
          for (int j = 0; j < V; j++) if (j >= n) term[j] = 0;
#pragma unroll
          for (int half = V / 2; half; half /= 2)
#pragma unroll
            for (int j = 0; j < half; j++) term[j] += term[j + half];
          sum += (double)term[0];
        }
      }
    }
    sum = cut.shift == 5 ? unic_warp_sum(sum) : unic_block_sum(sum, room);
    if (lane == 0 && mine < all) {
      if (partial) partial[mine] = sum;
      else unic_sum_put(sum, cut.accumulate, to + base[N]);
    }
  }
}

/* ---------------------------------------------------------------- on the host */

/* The walks over what is kept (from..., to) and over what is summed (from...). */
struct unic_sum_walks {
  unic_walk kept, reduced;
  bool columns;
};

/* `from`: n views that broadcast to the shape of the first. `to`: the kept dimensions alone, or a shape that broadcasts to the same. */
static inline unic_sum_walks unic_sum_split(const unic_view *to, int n, const unic_view *const *from, uint32_t mask) {
  unic_sum_walks s = {};
  int ndim = from[0]->ndim, alone = 0;
  for (int d = 0; d < ndim; d++) alone += !(mask >> d & 1);
  s.kept.operands = n + 1;
  s.reduced.operands = n;
  for (int d = 0, at = 0; d < ndim; d++) {
    unic_walk *w = mask >> d & 1 ? &s.reduced : &s.kept;
    int e = w->ndim++;
    w->shape[e] = from[0]->shape[d];
    for (int o = 0; o < n; o++) {
      int f = d - (ndim - from[o]->ndim);
      w->stride[o][e] = f < 0 || from[o]->shape[f] == 1 ? 0 : from[o]->stride[f];
    }
    if (w == &s.reduced) continue;
    int t = to->ndim == alone ? at : d - (ndim - to->ndim);
    at++;
    w->stride[n][e] = t < 0 || to->shape[t] == 1 ? 0 : to->stride[t];
  }
  unic_walk_merge(&s.kept);
  unic_walk_merge(&s.reduced);
  auto densest = [](const unic_walk *w) {
    int64_t least = INT64_MAX;
    for (int d = 0; d < w->ndim; d++) {
      int64_t step = w->stride[0][d] < 0 ? -w->stride[0][d] : w->stride[0][d];
      if (w->shape[d] > 1 && step && step < least) least = step;
    }
    return least;
  };
  s.columns = s.kept.numel > 1 && densest(&s.kept) <= densest(&s.reduced);
  if (s.reduced.numel <= 4) s.columns = true;
  return s;
}

/* Pieces of the sums, so that the device is full: by shapes alone. */
static inline int64_t unic_sum_pieces(const unic_walk *kept, const unic_walk *reduced, bool columns) {
  int64_t blocks, least;
  if (columns) {
    int64_t width = 1;
    while (width < 32 && width < kept->numel) width *= 2;
    blocks = (kept->numel + 127) / 128;
    least = UNIC_SUM_THREADS / width * 16;
  } else {
    blocks = kept->numel;
    least = UNIC_SUM_THREADS * 16;
  }
  int64_t pieces = reduced->numel / least, most = UNIC_SUM_BLOCKS / (blocks ? blocks : 1);
  if (pieces > most) pieces = most;
  return pieces < 1 ? 1 : pieces;
}

/* Call f(kept, where its operands begin, reduced, where its operands begin, number of its pieces before) for parts that fit into 31 bits; `all` is told
 * first how many pieces there are for each kept part. */
static inline int64_t unic_sum_all_pieces(const unic_walk *kept, const unic_sum_walks *s) {
  const int64_t begin[UNIC_WALK_OPERANDS] = {0};
  int64_t pieces = 0;
  unic_walk_pieces(&s->reduced, begin, [&](const unic_walk *r, const int64_t *) { pieces += unic_sum_pieces(kept, r, s->columns); });
  return pieces;
}

/* Bytes of scratch that unic_sum needs. */
static inline int64_t unic_sum_scratch(const unic_view *to, int n, const unic_view *const *from, uint32_t mask) {
  if (from[0]->numel == 0) return 0;
  const int64_t begin[UNIC_WALK_OPERANDS] = {0};
  unic_sum_walks s = unic_sum_split(to, n, from, mask);
  int64_t most = 0;
  unic_walk_pieces(&s.kept, begin, [&](const unic_walk *kept, const int64_t *) {
    int64_t pieces = unic_sum_all_pieces(kept, &s), bytes = pieces > 1 ? pieces * kept->numel * (int64_t)sizeof(double) : 0;
    if (bytes > most) most = bytes;
  });
  return most;
}

/* Every place of operand o is a multiple of 16 bytes (of `size` x V where that is less) away from the first. */
static inline bool unic_walk_even(const unic_walk *w, int o, int size, int V) {
  int align = size * V < 16 ? size * V : 16;
  for (int d = 0; d < w->ndim; d++) if (w->shape[d] > 1 && w->stride[o][d] * size % align) return false;
  return true;
}

template <class T> struct unic_sum_itself {
  __device__ __forceinline__ unic_wide<T> operator()(T x) const { return unic_widen(x); }
};

template <class F, class To, class... From, size_t... o>
static void unic_sum_part(const unic_kernel *k, const unic_walk *kept, const unic_walk *reduced, bool columns, int64_t pieces, int accumulate, const F &f, To *to, double *partial,
                          std::index_sequence<o...>, const From *...from) {
  constexpr int N = sizeof...(From), V = 16 / unic_widest<From...>();
  const int size[N + 1] = {(int)sizeof(From)..., (int)sizeof(To)};
  const void *const places[N + 1] = {from..., to};
  const unic_walk *other = columns ? reduced : kept;
  int wide = V;
  for (int i = 0; i < N; i++) if (places[i] && !unic_walk_even(other, i, size[i], V)) wide = 1;
  unic_places<N + 1> kp = unic_places_of<N + 1>(kept, places, size, columns ? wide : 1);
  unic_places<N> rp = unic_places_of<N>(reduced, places, size, columns ? 1 : wide);
  unic_sum_cut cut = {};
  cut.pieces = (uint32_t)pieces;
  cut.piece = (uint32_t)((rp.units + pieces - 1) / pieces);
  cut.accumulate = accumulate;
  if (columns) {
    while (cut.shift < 5 && (1u << cut.shift) < kp.units) cut.shift++;
    int64_t blocks = ((int64_t)kp.units + (1 << cut.shift) - 1) / (1 << cut.shift) * pieces;
    UNIC_LAUNCH((unic_sum_columns<V, F, To, From...>), unic_blocks(k, blocks * UNIC_SUM_THREADS, UNIC_SUM_THREADS), UNIC_SUM_THREADS, 0, unic_cuda_stream(k), f, kp, rp, cut, to, partial,
                from...);
  } else {
    cut.shift = cut.piece <= 128 ? 5 : 8;
    int64_t sums = (int64_t)kp.numel * pieces, blocks = (sums + (UNIC_SUM_THREADS >> cut.shift) - 1) / (UNIC_SUM_THREADS >> cut.shift);
    UNIC_LAUNCH((unic_sum_rows<V, F, To, From...>), unic_blocks(k, blocks * UNIC_SUM_THREADS, UNIC_SUM_THREADS), UNIC_SUM_THREADS, 0, unic_cuda_stream(k), f, kp, rp, cut, to, partial,
                from...);
  }
}

/* to = (or +=) the sum of f(from...) over the dimensions in `mask`. views: of from..., which broadcast to the shape of the first; NULL data among them
 * gives f zeros. */
template <class F, class To, class... From>
static void unic_sum(const unic_kernel *k, const unic_view *to_view, const unic_view *const (&views)[sizeof...(From)], uint32_t mask, int accumulate, const F &f, void *scratch, To *to,
                     const From *...from) {
  constexpr int N = sizeof...(From);
  static_assert(N + 1 <= UNIC_WALK_OPERANDS);
  if (to_view->numel == 0) return;
  unic_sum_walks s = unic_sum_split(to_view, N, views, mask);
  const int64_t begin[UNIC_WALK_OPERANDS] = {0};
  unic_walk_pieces(&s.kept, begin, [&](const unic_walk *kept, const int64_t *kb) {
    int64_t all = unic_sum_all_pieces(kept, &s), before = 0;
    double *partial = all > 1 ? (double *)scratch : nullptr;
    To *first = to + kb[N];
    unic_walk_pieces(&s.reduced, begin, [&](const unic_walk *reduced, const int64_t *rb) {
      int64_t pieces = unic_sum_pieces(kept, reduced, s.columns);
      double *here = partial ? partial + before * kept->numel : nullptr;
      [&]<size_t... o>(std::index_sequence<o...> all_of) {
        unic_sum_part(k, kept, reduced, s.columns, pieces, accumulate, f, first, here, all_of, (from ? from + kb[o] + rb[o] : nullptr)...);
      }(std::index_sequence_for<From...>());
      before += pieces;
    });
    if (!partial) return;
    /* The partial sums lie in the order of the walk. */
    unic_walk join = *kept, over = {};
    join.operands = 2;
    int64_t step = 1;
    for (int d = kept->ndim - 1; d >= 0; d--) {
      join.stride[0][d] = step;
      join.stride[1][d] = kept->stride[N][d];
      step *= kept->shape[d];
    }
    over.operands = over.ndim = 1;
    over.numel = over.shape[0] = all;
    over.stride[0][0] = step;
    unic_sum_part(k, &join, &over, true, 1, accumulate, unic_sum_itself<double>(), first, (double *)nullptr, std::index_sequence<0>(), (const double *)partial);
  });
}

/* to = (or +=) the sum of `from`, of the same floating type, over the dimensions in `mask`; scratch as unic_sum_scratch says. */
static inline void unic_sum_views(const unic_kernel *k, const unic_view *to, const unic_view *from, uint32_t mask, int accumulate, void *scratch) {
  if (from->numel == 0) {
    if (!accumulate) unic_cuda_move_fill(k, to, 0);
    return;
  }
  unic_floats(to->dtype, [&](auto t) {
    using T = decltype(t);
    unic_sum(k, to, {from}, mask, accumulate, unic_sum_itself<T>(), scratch, (T *)to->data, (const T *)from->data);
  });
}

#endif
