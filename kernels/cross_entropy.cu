/* cross_entropy on the GPU (kernels/cross_entropy.c). A row belongs to a warp, or to a block when it is long.
 *
 * Forward reads the logits once: every thread keeps a running maximum and the sum of exponentials below it, and the threads' are joined at the end of the
 * row. A block takes a chunk of rows that their number alone cuts, and leaves the sum of their losses and of their weights, in f64; one block adds those
 * up in order. Backward reads the logits once and writes dx once. Rows begin wherever they do (30522 classes): 16 bytes at a time between boundaries.
 * A label that is no class is noted (unic_note) and its row does not count. */
#include "rows.cuh"

namespace {

enum { X, TARGET, WEIGHT, IGNORE_INDEX, SMOOTHING, REDUCTION };
enum { LOSS, LSE, TOTAL };
enum { MEAN, SUM, NONE };
enum { BLOCK = 256, ROWS = 4, LONG = 1024, CHUNKS = 1024 };

template <int GROUP> constexpr int threads_of = GROUP == 32 ? 32 * ROWS : BLOCK;

template <class T> struct entropy {
  using W = unic_wide<T>;
  const T *x;
  const void *target;
  const W *weight;               /* NULL: 1 */
  int64_t rows, classes, chunk, ignore;
  bool narrow;                   /* labels are i32 */
  double smoothing;
  unic_cuda_flag *flag;
  int site;
  /* forward */
  W *lse, *each;                 /* each: every row's own loss */
  double *sums;                  /* [chunks][2]: losses, weights */
  /* backward */
  const W *dloss, *total;
  bool own;                      /* dloss has one element per row */
  T *dx;
  bool accumulate;
};

/* The label of a row, or -1 where it does not count. */
template <class T> __device__ __forceinline__ int64_t label(const entropy<T> &s, int64_t row, bool notes) {
  const int64_t t = s.narrow ? ((const int32_t *)s.target)[row] : ((const int64_t *)s.target)[row];
  if (t == s.ignore) return -1;
  if (t >= 0 && t < s.classes) return t;
  if (notes) unic_note(s.flag, s.site, t, row, s.classes - 1, s.ignore);
  return -1;
}

/* The sum of the classes' weights, by the whole block; only smoothing asks for it. */
template <class T> __device__ __forceinline__ double all_weights(const entropy<T> &s, double *room) {
  if (!s.weight || s.smoothing == 0) return (double)s.classes;
  double sum = 0;
  for (int64_t c = threadIdx.x; c < s.classes; c += blockDim.x) sum += (double)s.weight[c];
  return unic_block_sum(sum, room);
}

/* The 1: rather fewer threads on a processor than the few bytes that ptxas would spill for a full one (sm_100, sm_120). */
template <class T, int GROUP> __global__ void __launch_bounds__(threads_of<GROUP>, 1) entropy_forward(const entropy<T> s) {
  using W = unic_wide<T>;
  constexpr int PER = threads_of<GROUP> / GROUP;
  UNIC_SHARED(double, wide_room, [32]);
  UNIC_SHARED(W, room, [32]);
  const int lane = threadIdx.x % GROUP, group = threadIdx.x / GROUP;
  const double weights = all_weights(s, wide_room);
  const int64_t begin = blockIdx.x * s.chunk, end = begin + s.chunk < s.rows ? begin + s.chunk : s.rows;
  double losses = 0, counted = 0;
  for (int64_t row = begin + group; row < end; row += PER) {
    const T *x = s.x + row * s.classes;
    const int64_t t = label(s, row, lane == 0);
    if (t < 0) {
      if (lane == 0 && s.lse) s.lse[row] = 0;
      if (lane == 0 && s.each) s.each[row] = 0;
      continue;
    }
    /* What smoothing adds up is taken from the first logit, so that a large common part costs no digits. */
    W most = -INFINITY, sum = 0, off = 0, first = unic_widen(x[0]);
    if (!isfinite(first)) first = 0;
    unic_row_each<T, unic_vector<T>>(x, s.classes, lane, GROUP, [&]<int M>(int64_t c, const W(&v)[M]) {
      W now = most;
#pragma unroll
      for (int i = 0; i < M; i++) now = unic_larger(v[i], now);
      if (!(now <= most)) {
        sum *= exp(most - now);
        most = now;
      }
      if (most != W(-INFINITY)) {
#pragma unroll
        for (int i = 0; i < M; i++) sum += exp(v[i] - most);
      }
      if (s.smoothing > 0) {
#pragma unroll
        for (int i = 0; i < M; i++) off += (s.weight ? s.weight[c + i] : W(1)) * (first - v[i]);
      }
    });
    const W all = unic_group_max<GROUP>(most, room);
    sum = unic_group_sum<GROUP>(most == W(-INFINITY) ? W(0) : sum * exp(most - all), room);
    if (s.smoothing > 0) off = unic_group_sum<GROUP>(off, room);
    if (lane == 0) {
      const W logs = log(sum);
      const double w = s.weight ? (double)s.weight[t] : 1;
      double own = (1 - s.smoothing) * w * (((double)all - (double)unic_widen(x[t])) + (double)logs);
      if (s.smoothing > 0) own += s.smoothing / (double)s.classes * (weights * ((double)logs + ((double)all - (double)first)) + (double)off);
      if (s.lse) s.lse[row] = all + logs;
      if (s.each) s.each[row] = (W)own;
      losses += own;
      counted += w;
    }
  }
  if (!s.sums) return;
  UNIC_SHARED(double, part, [2 * PER]);
  if (lane == 0) {
    part[2 * group] = losses;
    part[2 * group + 1] = counted;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int i = 1; i < PER; i++) {
    losses += part[2 * i];
    counted += part[2 * i + 1];
  }
  s.sums[2 * blockIdx.x] = losses;
  s.sums[2 * blockIdx.x + 1] = counted;
}

/* The loss (NULL: every row has its own) and what it is divided by; 0 when no row counts. */
template <class W> __global__ void __launch_bounds__(BLOCK) entropy_total(const double *sums, int64_t chunks, bool mean, W *loss, W *total) {
  UNIC_SHARED(double, room, [32]);
  double losses = 0, counted = 0;
  for (int64_t i = threadIdx.x; i < chunks; i += BLOCK) {
    losses += sums[2 * i];
    counted += sums[2 * i + 1];
  }
  losses = unic_block_sum(losses, room);
  counted = unic_block_sum(counted, room);
  if (threadIdx.x != 0) return;
  if (!mean) counted = 1;
  if (loss) *loss = counted != 0 ? (W)(losses / counted) : W(0);
  if (total) *total = (W)counted;
}

template <class T, int GROUP, int V> __global__ void __launch_bounds__(threads_of<GROUP>) entropy_backward(const entropy<T> s) {
  using W = unic_wide<T>;
  constexpr int PER = threads_of<GROUP> / GROUP;
  UNIC_SHARED(double, room, [32]);
  const int lane = threadIdx.x % GROUP;
  const W weights = (W)all_weights(s, room), smoothing = (W)s.smoothing;
  const W common = s.own ? W(0) : *s.total != 0 ? *s.dloss / *s.total : W(0);
  for (int64_t row = blockIdx.x * (int64_t)PER + threadIdx.x / GROUP; row < s.rows; row += (int64_t)gridDim.x * PER) {
    const int64_t t = label(s, row, false);
    if (t < 0 && s.accumulate) continue;
    /* even: what smoothing takes off each class, times its weight. */
    const W scale = s.own ? s.dloss[row] : common, even = smoothing / (W)s.classes * scale, lse = s.lse[row];
    const W hit = t < 0 ? W(0) : (s.weight ? s.weight[t] : W(1)) * (1 - smoothing) * scale, all = hit + even * weights;
    const W *weight = s.smoothing > 0 ? s.weight : nullptr;
    T *dx = s.dx + row * s.classes;
    unic_row_each<T, V>(s.x + row * s.classes, s.classes, lane, GROUP, [&]<int M>(int64_t c, const W(&v)[M]) {
      W out[M];
#pragma unroll
      for (int i = 0; i < M; i++) {
        const W off = (weight ? even * weight[c + i] : even) + (c + i == t ? hit : W(0));
        out[i] = t < 0 ? W(0) : all * exp(v[i] - lse) - off;
      }
      unic_store_wide<T, M>(dx + c, out, s.accumulate);
    });
  }
}

/* ---------------------------------------------------------------- host */

bool is_long(const unic_kernel *k) { return k->in[X].shape[1] > LONG; }

/* Rows of a block of the forward. */
int64_t chunk_rows(const unic_kernel *k) {
  int64_t chunk = (k->in[X].shape[0] + CHUNKS - 1) / CHUNKS, least = is_long(k) ? 1 : ROWS;
  return chunk < least ? least : chunk;
}

unic_status plan(const unic_kernel *k, unic_plan *p) {
  int64_t rows = k->in[X].shape[0], chunk = chunk_rows(k);
  if (!k->backward && k->arg[REDUCTION].integer != NONE) p->scratch = (rows + chunk - 1) / chunk * 2 * (int64_t)sizeof(double);
  return UNIC_OK;
}

template <class T> entropy<T> entropy_of(const unic_kernel *k) {
  using W = unic_wide<T>;
  return {.x = (const T *)k->in[X].data, .target = k->in[TARGET].data, .weight = (const W *)k->in[WEIGHT].data, .rows = k->in[X].shape[0], .classes = k->in[X].shape[1],
          .chunk = chunk_rows(k), .ignore = k->arg[IGNORE_INDEX].integer, .narrow = k->in[TARGET].dtype == UNIC_I32, .smoothing = k->arg[SMOOTHING].number,
          .flag = unic_cuda_of(k)->flag,
          .site = unic_cuda_site("[cross_entropy] argument 'target': value %lld at position %lld is outside 0..%lld (and is not ignore_index %lld)")};
}

unic_status forward(const unic_kernel *k) {
  unic_floats(k->type, [&](auto type) {
    using T = decltype(type);
    using W = unic_wide<T>;
    entropy<T> s = entropy_of<T>(k);
    const bool each = k->arg[REDUCTION].integer == NONE;
    const int64_t chunks = (s.rows + s.chunk - 1) / s.chunk;
    s.lse = k->grad ? (W *)k->out[LSE].data : nullptr;
    s.each = each ? (W *)k->out[LOSS].data : nullptr;
    s.sums = each ? nullptr : (double *)k->scratch;
    if (chunks > 0 && is_long(k)) UNIC_LAUNCH((entropy_forward<T, BLOCK>), (unsigned)chunks, threads_of<BLOCK>, 0, unic_cuda_stream(k), s);
    else if (chunks > 0) UNIC_LAUNCH((entropy_forward<T, 32>), (unsigned)chunks, threads_of<32>, 0, unic_cuda_stream(k), s);
    W *loss = each ? nullptr : (W *)k->out[LOSS].data, *total = k->grad ? (W *)k->out[TOTAL].data : nullptr;
    if (loss || total)
      UNIC_LAUNCH((entropy_total<W>), 1, BLOCK, 0, unic_cuda_stream(k), s.sums, each ? 0 : chunks, k->arg[REDUCTION].integer == MEAN, loss, total);
  });
  return UNIC_OK;
}

template <class T, int V> void run_backward(const unic_kernel *k, const entropy<T> &s) {
  if (is_long(k)) UNIC_LAUNCH((entropy_backward<T, BLOCK, V>), unic_blocks(k, s.rows * BLOCK, threads_of<BLOCK>), threads_of<BLOCK>, 0, unic_cuda_stream(k), s);
  else UNIC_LAUNCH((entropy_backward<T, 32, V>), unic_blocks(k, s.rows * 32, threads_of<32>), threads_of<32>, 0, unic_cuda_stream(k), s);
}

unic_status backward(const unic_kernel *k) {
  unic_floats(k->type, [&](auto type) {
    using T = decltype(type);
    using W = unic_wide<T>;
    entropy<T> s = entropy_of<T>(k);
    s.lse = (W *)k->out[LSE].data;
    s.total = (const W *)k->out[TOTAL].data;
    s.dloss = (const W *)k->dout[LOSS].data;
    s.own = k->arg[REDUCTION].integer == NONE;
    s.dx = (T *)k->din[X].data;
    s.accumulate = k->accumulate[X];
    if (k->in[X].numel == 0 || !s.dx) return;
    /* Packs of x and of dx have the same boundaries, or there are none. */
    if ((((uintptr_t)s.x ^ (uintptr_t)s.dx) & 15) == 0) run_backward<T, unic_vector<T>>(k, s);
    else run_backward<T, 1>(k, s);
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(cross_entropy, {"cross_entropy", {.forward = forward, .backward = backward, .plan = plan}});
