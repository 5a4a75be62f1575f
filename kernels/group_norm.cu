/* group_norm on the GPU (kernels/group_norm.c), for row-major planes and channels-last.
 *
 * Planes and slices are the CPU's: row-major is N C planes of one channel, channels-last N planes of C; channel c of image n is number n C + c. A slice of
 * a plane gives a mean and a sum of squares about it (backward: A and B) per channel; a warp per group joins them in order in f64. Row-major: a warp has a
 * slice of 1024 pixels in registers. Channels-last: a block has some pixels of up to 32 packs of channels, a thread the same pack of 16 pixels of them.
 * x (and dy) are read twice, y (dx) is written once. Slices depend on shapes alone, and so do all sums. */
#include "rows.cuh"

#include <type_traits>

namespace {

enum { X, GROUPS, WEIGHT, BIAS, EPS };
enum { Y, MEAN, RSTD };
constexpr int SLICE = 1024, VALUES = SLICE / 32, WARPS = 4, BLOCK = 256, KEPT = 16;

template <class T> struct norm {
  using W = unic_wide<T>;
  int64_t images, channels, groups, per;   /* per: channels of a group */
  int64_t pixels, width;                   /* of a plane; its channels: 1 or all */
  int64_t rows, slices;                    /* pixels of a slice, slices of a plane */
  const T *x, *dy;
  T *to;                                   /* y or dx */
  bool accumulate;
  const W *weight, *bias;                  /* NULL: 1 and 0 */
  double eps;
  W *mean, *rstd;                          /* [N,G] */
  W *partial;                              /* [planes, slices, 2, width] */
  W *slope, *shift;                        /* backward, [N,G]: dx = dy rstd w - (x - mean) slope - shift */
  W *sum_dy, *sum_dyx;                     /* A and rstd B [N,C] */
};

/* ---------------------------------------------------------------- row-major: a warp per slice */

struct span { int64_t plane, at; int count; };

template <class T> __device__ __forceinline__ span span_of(const norm<T> &s, int64_t item) {
  const int64_t plane = item / s.slices, first = (item - plane * s.slices) * SLICE, left = s.pixels - first;
  return {plane, plane * s.pixels + first, (int)(left < SLICE ? left : SLICE)};
}
#define EACH_ITEM(s) \
  for (int64_t item = blockIdx.x * (int64_t)WARPS + (threadIdx.x >> 5); item < (s).images * (s).channels * (s).slices; item += (int64_t)gridDim.x * WARPS)

template <class T, int V> __global__ void __launch_bounds__(32 * WARPS) plane_moments(const norm<T> s) {
  using W = unic_wide<T>;
  const int lane = threadIdx.x & 31;
  EACH_ITEM(s) {
    const span here = span_of(s, item);
    W v[VALUES / V][V], sum = 0, squares = 0;
#pragma unroll
    for (int p = 0; p < VALUES / V; p++)
      if ((p * 32 + lane) * V < here.count) {
        unic_load_wide<T, V>(s.x + here.at + (p * 32 + lane) * V, v[p]);
#pragma unroll
        for (int i = 0; i < V; i++) sum += v[p][i];
      }
    const W mean = unic_warp_sum(sum) / (W)here.count;
#pragma unroll
    for (int p = 0; p < VALUES / V; p++)
      if ((p * 32 + lane) * V < here.count) {
#pragma unroll
        for (int i = 0; i < V; i++) squares += (v[p][i] - mean) * (v[p][i] - mean);
      }
    squares = unic_warp_sum(squares);
    if (lane == 0) {
      s.partial[2 * item] = mean;
      s.partial[2 * item + 1] = squares;
    }
  }
}

/* A and B of a slice. */
template <class T, int V> __global__ void __launch_bounds__(32 * WARPS) plane_sums(const norm<T> s) {
  using W = unic_wide<T>;
  const int lane = threadIdx.x & 31;
  EACH_ITEM(s) {
    const span here = span_of(s, item);
    const W mean = s.mean[here.plane / s.per];
    W sum = 0, products = 0;
#pragma unroll 2
    for (int j = lane * V; j < here.count; j += 32 * V) {
      W x[V], dy[V];
      unic_load_wide<T, V>(s.x + here.at + j, x);
      unic_load_wide<T, V>(s.dy + here.at + j, dy);
#pragma unroll
      for (int i = 0; i < V; i++) {
        sum += dy[i];
        products += dy[i] * (x[i] - mean);
      }
    }
    sum = unic_warp_sum(sum);
    products = unic_warp_sum(products);
    if (lane == 0) {
      s.partial[2 * item] = sum;
      s.partial[2 * item + 1] = products;
    }
  }
}

/* What a channel's elements are changed by: y = (x - mean) scale + shift, dx = dy scale - (x - mean) slope - shift. */
template <class W> struct change { W mean, scale, shift, slope; };

template <bool BACKWARD, class T> __device__ __forceinline__ change<unic_wide<T>> change_of(const norm<T> &s, int64_t number) {
  using W = unic_wide<T>;
  const int64_t group = number / s.per, channel = number % s.channels;
  const W scale = s.rstd[group] * (s.weight ? s.weight[channel] : W(1));
  if constexpr (BACKWARD) return {s.mean[group], scale, s.shift[group], s.slope[group]};
  else return {s.mean[group], scale, s.bias ? s.bias[channel] : W(0), W(0)};
}

template <class T, int V, bool BACKWARD> __global__ void __launch_bounds__(32 * WARPS) plane_change(const norm<T> s) {
  using W = unic_wide<T>;
  const int lane = threadIdx.x & 31;
  EACH_ITEM(s) {
    const span here = span_of(s, item);
    const change<W> c = change_of<BACKWARD>(s, here.plane);
#pragma unroll 2
    for (int j = lane * V; j < here.count; j += 32 * V) {
      W x[V], dy[V], out[V];
      unic_load_wide<T, V>(s.x + here.at + j, x);
      if (BACKWARD) unic_load_wide<T, V>(s.dy + here.at + j, dy);
#pragma unroll
      for (int i = 0; i < V; i++) out[i] = BACKWARD ? dy[i] * c.scale - (x[i] - c.mean) * c.slope - c.shift : (x[i] - c.mean) * c.scale + c.shift;
      unic_store_wide<T, V>(s.to + here.at + j, out, BACKWARD && s.accumulate);
    }
  }
}

/* ---------------------------------------------------------------- channels-last: a block per slice and tile of channels */

/* `across` threads (a power of two) lie along the channels, V channels each; the others take further pixels. */
struct tile {
  int across, down, lane, turn;
  int64_t channel, plane, at, rows;        /* first channel of this thread, first element of the slice, its pixels */
  bool in;
};

template <int V, class T> __device__ __forceinline__ tile tile_of(const norm<T> &s, int across) {
  tile t;
  t.across = across;
  t.down = BLOCK / across;
  t.lane = threadIdx.x % across;
  t.turn = threadIdx.x / across;
  t.channel = (blockIdx.y * (int64_t)across + t.lane) * V;
  t.in = t.channel < s.channels;
  t.plane = blockIdx.x / s.slices;
  const int64_t first = (blockIdx.x - t.plane * s.slices) * s.rows;
  t.at = (t.plane * s.pixels + first) * s.channels + t.channel;
  t.rows = s.pixels - first < s.rows ? s.pixels - first : s.rows;
  return t;
}

/* The sums over the block of each channel, in v of every thread; `room` holds BLOCK packs. */
template <int V, class W> __device__ __forceinline__ void over_pixels(const tile &t, W (&v)[V], unic_pack<W, V> *room) {
#pragma unroll
  for (int i = 0; i < V; i++) room[threadIdx.x].at[i] = v[i];
  __syncthreads();
  for (int half = t.down / 2; half; half /= 2) {
    if (t.turn < half) {
#pragma unroll
      for (int i = 0; i < V; i++) room[threadIdx.x].at[i] += room[threadIdx.x + half * t.across].at[i];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < V; i++) v[i] = room[t.lane].at[i];
  __syncthreads();
}

template <class T, int V> __global__ void __launch_bounds__(BLOCK) last_moments(const norm<T> s, int across) {
  using W = unic_wide<T>;
  using piece = unic_pack<W, V>;
  UNIC_SHARED(piece, room, [BLOCK]);
  const tile t = tile_of<V>(s, across);
  W sum[V] = {}, squares[V] = {};
  if constexpr (V > 1) {                   /* BLOCK KEPT V elements: a thread has KEPT packs at most */
    unic_pack<T, V> kept[KEPT];
#pragma unroll
    for (int j = 0; j < KEPT; j++)
      if (t.in && t.turn + j * t.down < t.rows) {
        kept[j] = *reinterpret_cast<const unic_pack<T, V> *>(s.x + t.at + (t.turn + (int64_t)j * t.down) * s.channels);
#pragma unroll
        for (int i = 0; i < V; i++) sum[i] += unic_widen(kept[j].at[i]);
      }
    over_pixels<V>(t, sum, room);
#pragma unroll
    for (int i = 0; i < V; i++) sum[i] /= (W)t.rows;
#pragma unroll
    for (int j = 0; j < KEPT; j++)
      if (t.in && t.turn + j * t.down < t.rows) {
#pragma unroll
        for (int i = 0; i < V; i++) {
          const W d = unic_widen(kept[j].at[i]) - sum[i];
          squares[i] += d * d;
        }
      }
  } else {
    for (int64_t r = t.turn; t.in && r < t.rows; r += t.down) sum[0] += unic_widen(s.x[t.at + r * s.channels]);
    over_pixels<V>(t, sum, room);
    sum[0] /= (W)t.rows;
    for (int64_t r = t.turn; t.in && r < t.rows; r += t.down) {
      const W d = unic_widen(s.x[t.at + r * s.channels]) - sum[0];
      squares[0] += d * d;
    }
  }
  over_pixels<V>(t, squares, room);
  if (t.in && t.turn == 0) {
    W *to = s.partial + blockIdx.x * 2 * s.channels + t.channel;
    unic_store_wide<W, V>(to, sum);
    unic_store_wide<W, V>(to + s.channels, squares);
  }
}

template <class T, int V> __global__ void __launch_bounds__(BLOCK) last_sums(const norm<T> s, int across) {
  using W = unic_wide<T>;
  using piece = unic_pack<W, V>;
  UNIC_SHARED(piece, room, [BLOCK]);
  const tile t = tile_of<V>(s, across);
  W sum[V] = {}, products[V] = {}, mean[V];
#pragma unroll
  for (int i = 0; i < V; i++) mean[i] = t.in ? s.mean[(t.plane * s.channels + t.channel + i) / s.per] : W(0);
#pragma unroll 2
  for (int64_t r = t.turn; r < t.rows; r += t.down) {
    if (!t.in) continue;
    W x[V], dy[V];
    unic_load_wide<T, V>(s.x + t.at + r * s.channels, x);
    unic_load_wide<T, V>(s.dy + t.at + r * s.channels, dy);
#pragma unroll
    for (int i = 0; i < V; i++) {
      sum[i] += dy[i];
      products[i] += dy[i] * (x[i] - mean[i]);
    }
  }
  over_pixels<V>(t, sum, room);
  over_pixels<V>(t, products, room);
  if (t.in && t.turn == 0) {
    W *to = s.partial + blockIdx.x * 2 * s.channels + t.channel;
    unic_store_wide<W, V>(to, sum);
    unic_store_wide<W, V>(to + s.channels, products);
  }
}

template <class T, int V, bool BACKWARD> __global__ void __launch_bounds__(BLOCK) last_change(const norm<T> s, int across) {
  using W = unic_wide<T>;
  const tile t = tile_of<V>(s, across);
  if (!t.in) return;
  change<W> c[V];
#pragma unroll
  for (int i = 0; i < V; i++) c[i] = change_of<BACKWARD>(s, t.plane * s.channels + t.channel + i);
#pragma unroll 2
  for (int64_t r = t.turn; r < t.rows; r += t.down) {
    const int64_t at = t.at + r * s.channels;
    W x[V], dy[V], out[V];
    unic_load_wide<T, V>(s.x + at, x);
    if (BACKWARD) unic_load_wide<T, V>(s.dy + at, dy);
#pragma unroll
    for (int i = 0; i < V; i++) out[i] = BACKWARD ? dy[i] * c[i].scale - (x[i] - c[i].mean) * c[i].slope - c[i].shift : (x[i] - c[i].mean) * c[i].scale + c[i].shift;
    unic_store_wide<T, V>(s.to + at, out, BACKWARD && s.accumulate);
  }
}

/* ---------------------------------------------------------------- joining: a warp per image and group */

/* The warp's lanes: `across` channels (a power of two) at once, the others take further slices. */
struct joiner { int across, lane, turn; };

template <class T> __device__ __forceinline__ joiner joiner_of(const norm<T> &s) {
  int across = 1;
  while (across < 32 && across < s.per) across *= 2;
  return {across, (int)(threadIdx.x & 31) % across, (int)(threadIdx.x & 31) / across};
}

template <class T> __device__ __forceinline__ const unic_wide<T> *partial_of(const norm<T> &s, int64_t number, int64_t slice) {
  return s.partial + (number / s.width * s.slices + slice) * 2 * s.width + number % s.width;
}

template <class T> __global__ void __launch_bounds__(32 * WARPS) join_moments(const norm<T> s) {
  using W = unic_wide<T>;
  const joiner j = joiner_of(s);
  const double elements = (double)s.per * (double)s.pixels;
  for (int64_t group = blockIdx.x * (int64_t)WARPS + (threadIdx.x >> 5); group < s.images * s.groups; group += (int64_t)gridDim.x * WARPS) {
    double mean = 0, m2 = 0;
    for (int pass = 0; pass < 2; pass++) {
      double sum = 0;
      for (int64_t c = j.lane; c < s.per; c += j.across)
        for (int64_t k = j.turn; k < s.slices; k += 32 / j.across) {
          const W *p = partial_of(s, group * s.per + c, k);
          const double rows = (double)(s.pixels - k * s.rows < s.rows ? s.pixels - k * s.rows : s.rows);
          sum += pass ? (double)p[s.width] + rows * ((double)p[0] - mean) * ((double)p[0] - mean) : rows * (double)p[0];
        }
      sum = unic_warp_sum(sum);
      if (pass) m2 = sum;
      else mean = sum / elements;
    }
    if ((threadIdx.x & 31) == 0) {
      s.mean[group] = (W)mean;
      s.rstd[group] = (W)(1 / sqrt(m2 / elements + s.eps));
    }
  }
}

template <class T> __global__ void __launch_bounds__(32 * WARPS) join_sums(const norm<T> s) {
  using W = unic_wide<T>;
  const joiner j = joiner_of(s);
  const double elements = (double)s.per * (double)s.pixels;
  for (int64_t group = blockIdx.x * (int64_t)WARPS + (threadIdx.x >> 5); group < s.images * s.groups; group += (int64_t)gridDim.x * WARPS) {
    const double rstd = (double)s.rstd[group];
    double all = 0, all_x = 0;
    for (int64_t first = 0; first < s.per; first += j.across) {
      const int64_t number = group * s.per + first + j.lane;
      const bool in = first + j.lane < s.per;
      double a = 0, b = 0;
      for (int64_t k = j.turn; in && k < s.slices; k += 32 / j.across) {
        const W *p = partial_of(s, number, k);
        a += (double)p[0];
        b += (double)p[s.width];
      }
      for (int o = j.across; o < 32; o *= 2) {
        a += __shfl_xor_sync(0xffffffffu, a, o);
        b += __shfl_xor_sync(0xffffffffu, b, o);
      }
      if (in && j.turn == 0) {
        const double w = s.weight ? (double)s.weight[number % s.channels] : 1;
        s.sum_dy[number] = (W)a;
        s.sum_dyx[number] = (W)(b * rstd);
        all += a * w;
        all_x += b * w;
      }
    }
    all = unic_warp_sum(all);
    all_x = unic_warp_sum(all_x);
    if ((threadIdx.x & 31) == 0) {
      s.shift[group] = (W)(rstd * all / elements);
      s.slope[group] = (W)(rstd * rstd * rstd * all_x / elements);
    }
  }
}

/* to[c] = or += the sum over images, of dw (blockIdx.y = 0) and db (1). */
template <class W> __global__ void over_images(const W *dyx, const W *dy, int64_t images, int64_t channels, W *dweight, bool add_weight, W *dbias, bool add_bias) {
  const int64_t c = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  W *to = blockIdx.y ? dbias : dweight;
  const W *values = blockIdx.y ? dy : dyx;
  if (!to || c >= channels) return;
  double sum = (blockIdx.y ? add_bias : add_weight) ? (double)to[c] : 0;
  for (int64_t n = 0; n < images; n++) sum += (double)values[n * channels + c];
  to[c] = (W)sum;
}

/* ---------------------------------------------------------------- host */

/* Threads along `packs` of channels. */
int across_of(int64_t packs) {
  int across = 1;
  while (across < 32 && across < packs) across *= 2;
  return across;
}

template <class T> norm<T> norm_of(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  norm<T> s = {.images = x->shape[0], .channels = x->shape[1], .groups = k->arg[GROUPS].integer, .pixels = 1};
  for (int d = 2; d < x->ndim; d++) s.pixels *= x->shape[d];
  s.per = s.channels / s.groups;
  const bool last = s.pixels == 1 || (x->ndim == 4 && s.channels > 1 && x->stride[1] == 1);
  s.width = last ? s.channels : 1;
  s.rows = last ? BLOCK / across_of((s.channels + unic_vector<T> - 1) / unic_vector<T>) * KEPT : SLICE;
  s.slices = (s.pixels + s.rows - 1) / s.rows;
  return s;
}

/* The parts of scratch; their size. */
template <class T> int64_t lay_out(norm<T> *s, const unic_kernel *k, void *scratch) {
  using W = unic_wide<T>;
  const int64_t groups = (s->images * s->groups + 3) & ~(int64_t)3, each = (s->images * s->channels + 3) & ~(int64_t)3;
  W *at = (W *)scratch;
  s->partial = at;
  at += (s->images * s->channels * s->slices * 2 + 3) & ~(int64_t)3;
  if (!k->backward) {
    s->mean = at;
    s->rstd = at + groups;
    at += 2 * groups;
  } else {
    s->slope = at;
    s->shift = at + groups;
    s->sum_dy = at + 2 * groups;
    s->sum_dyx = at + 2 * groups + each;
    at += 2 * groups + 2 * each;
  }
  return (int64_t)((char *)at - (char *)scratch);
}

unic_status plan(const unic_kernel *k, unic_plan *p) {
  if (k->in[X].numel == 0) return UNIC_OK;
  unic_floats(k->type, [&](auto t) {
    norm<decltype(t)> s = norm_of<decltype(t)>(k);
    p->scratch = lay_out(&s, k, nullptr);
  });
  return UNIC_OK;
}

unic_status zero(const unic_kernel *k, const unic_view *v) {
  if (!v->data || v->numel == 0) return UNIC_OK;
  return unic_cuda_check(cudaMemsetAsync(v->data, 0, (size_t)(v->numel * unic_dtype_size((unic_dtype)v->dtype)), unic_cuda_stream(k)), "cudaMemset");
}

/* 16 bytes at a time where everything allows it, otherwise element by element: f(V). */
template <class T, class F> void vectorised(const norm<T> &s, F f) {
  constexpr int V = unic_vector<T>;
  const int64_t row = s.width > 1 ? s.channels : s.pixels;
  if (row % V == 0 && unic_aligned16(s.x, s.dy, s.to)) f(std::integral_constant<int, V>());
  else f(std::integral_constant<int, 1>());
}

template <class T> unsigned warps(const unic_kernel *k, const norm<T> &s) { return unic_blocks(k, s.images * s.channels * s.slices * 32, 32 * WARPS); }

/* Grid of the channels-last kernels. */
template <int V, class T> dim3 tiles(const norm<T> &s, int across) { return dim3((unsigned)(s.images * s.slices), (unsigned)((s.channels + across * V - 1) / (across * V))); }

unic_status forward(const unic_kernel *k) {
  if (k->in[X].numel == 0) {   /* statistics of nothing; the backward does not look at them */
    UNIC_TRY(zero(k, &k->out[MEAN]));
    return zero(k, &k->out[RSTD]);
  }
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    using W = unic_wide<T>;
    norm<T> s = norm_of<T>(k);
    lay_out(&s, k, k->scratch);
    s.x = (const T *)k->in[X].data;
    s.to = (T *)k->out[Y].data;
    s.weight = (const W *)k->in[WEIGHT].data;
    s.bias = (const W *)k->in[BIAS].data;
    s.eps = k->arg[EPS].number;
    if (k->out[MEAN].data) {
      s.mean = (W *)k->out[MEAN].data;
      s.rstd = (W *)k->out[RSTD].data;
    }
    cudaStream_t stream = unic_cuda_stream(k);
    vectorised<T>(s, [&](auto v) {
      constexpr int V = decltype(v)::value;
      const int across = across_of((s.channels + V - 1) / V);
      if (s.width > 1) UNIC_LAUNCH((last_moments<T, V>), (tiles<V>(s, across)), BLOCK, 0, stream, s, across);
      else UNIC_LAUNCH((plane_moments<T, V>), warps(k, s), 32 * WARPS, 0, stream, s);
      UNIC_LAUNCH((join_moments<T>), unic_blocks(k, s.images * s.groups * 32, 32 * WARPS), 32 * WARPS, 0, stream, s);
      if (s.width > 1) UNIC_LAUNCH((last_change<T, V, false>), (tiles<V>(s, across)), BLOCK, 0, stream, s, across);
      else UNIC_LAUNCH((plane_change<T, V, false>), warps(k, s), 32 * WARPS, 0, stream, s);
    });
  });
  return UNIC_OK;
}

unic_status backward(const unic_kernel *k) {
  if (k->in[X].numel == 0 || !k->dout[Y].data) {
    for (int i : {X, WEIGHT, BIAS})
      if (!k->accumulate[i]) UNIC_TRY(zero(k, &k->din[i]));
    return UNIC_OK;
  }
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    using W = unic_wide<T>;
    norm<T> s = norm_of<T>(k);
    lay_out(&s, k, k->scratch);
    s.x = (const T *)k->in[X].data;
    s.dy = (const T *)k->dout[Y].data;
    s.to = (T *)k->din[X].data;
    s.accumulate = k->accumulate[X];
    s.weight = (const W *)k->in[WEIGHT].data;
    s.mean = (W *)k->out[MEAN].data;
    s.rstd = (W *)k->out[RSTD].data;
    cudaStream_t stream = unic_cuda_stream(k);
    vectorised<T>(s, [&](auto v) {
      constexpr int V = decltype(v)::value;
      const int across = across_of((s.channels + V - 1) / V);
      if (s.width > 1) UNIC_LAUNCH((last_sums<T, V>), (tiles<V>(s, across)), BLOCK, 0, stream, s, across);
      else UNIC_LAUNCH((plane_sums<T, V>), warps(k, s), 32 * WARPS, 0, stream, s);
      UNIC_LAUNCH((join_sums<T>), unic_blocks(k, s.images * s.groups * 32, 32 * WARPS), 32 * WARPS, 0, stream, s);
      if (!s.to) return;
      if (s.width > 1) UNIC_LAUNCH((last_change<T, V, true>), (tiles<V>(s, across)), BLOCK, 0, stream, s, across);
      else UNIC_LAUNCH((plane_change<T, V, true>), warps(k, s), 32 * WARPS, 0, stream, s);
    });
    if (k->din[WEIGHT].data || k->din[BIAS].data)
      UNIC_LAUNCH((over_images<W>), dim3((unsigned)((s.channels + 127) / 128), 2), 128, 0, stream, s.sum_dyx, s.sum_dy, s.images, s.channels, (W *)k->din[WEIGHT].data,
                  (bool)k->accumulate[WEIGHT], (W *)k->din[BIAS].data, (bool)k->accumulate[BIAS]);
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(group_norm, {"group_norm", {.forward = forward, .backward = backward, .plan = plan}});
