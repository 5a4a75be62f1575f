/* grid_sample on the GPU (kernels/grid_sample.c). Places are worked out in f64 (a few operations), weights in the wide type.
 *
 * Forward: a thread makes V channels of one place: x is gathered, y written once. dgrid: 1 to 32 lanes per place go over its channels; x and dy are read once.
 * dx: places meet in any order, so the sums are made in 64-bit integers, where order does not matter: one launch finds the largest |dy|, a second adds
 * dy times the weights, by integer atomics, a third turns the sums into dx. All places of an image may meet at one pixel: the unit is the smallest
 * power of two that leaves room for that, 2^-42 of the largest |dy| for 224 x 224 places, 2^-38 for a million. So f32 loses nothing, and f64 is good to
 * about 1e-12 of the largest. A place with an infinite or undefined gradient makes its pixels NaN. */
#include "images.cuh"

namespace {

enum { X, GRID, MODE, PADDING, ALIGN };
enum { Y };
enum { BILINEAR, NEAREST, BICUBIC };
enum { ZEROS, BORDER, REFLECTION };
enum { THREADS = 256, LARGEST_BLOCKS = 256 };

struct sample {
  int in[2], places, channels, padding;
  double turns[2];   /* 1 / the way between two mirrors */
  bool align;
  int64_t images;
  unsigned items;
  unic_divider vectors;
};

constexpr int taps_of(int mode) { return mode == BICUBIC ? 4 : mode == BILINEAR ? 2 : 1; }

/* A place moved into the image as padding says; *slope is multiplied by its derivative. */
__device__ __forceinline__ double moved(double s, int size, double turns, int padding, bool align, double *slope) {
  const double most = (double)(size - 1);
  if (padding == ZEROS) return s;
  if (padding == REFLECTION) {
    const double low = align ? 0 : -0.5, span = align ? most : (double)size;
    if (span <= 0) {
      *slope = 0;
      return 0;
    }
    double t = s - low, sign = 1;
    if (t < 0) {
      t = -t;
      sign = -1;
    }
    const double flips = floor(t * turns), extra = t - flips * span;
    const bool even = flips - 2 * floor(flips * 0.5) == 0;
    s = even ? extra + low : span - extra + low;
    *slope *= even ? sign : -sign;
  }
  if (!(s > 0) || s >= most) *slope = 0;
  return !(s > 0) ? 0 : s >= most ? most : s;
}

template <class W> __device__ __forceinline__ W keys(W t) {
  const W a = W(-0.75);
  t = t < 0 ? -t : t;
  return t <= 1 ? ((a + 2) * t - (a + 3)) * t * t + 1 : t < 2 ? (((t - 5) * t + 8) * t - 4) * a : W(0);
}
template <class W> __device__ __forceinline__ W keys_slope(W t) {
  const W a = W(-0.75), u = t < 0 ? -t : t, d = u <= 1 ? (3 * (a + 2) * u - 2 * (a + 3)) * u : u < 2 ? ((3 * u - 10) * u + 8) * a : W(0);
  return t < 0 ? -d : d;
}

/* One dimension: pixels with weights and their derivatives; pixel -1: outside, counts as zero. */
template <class W, int M> struct along {
  int pixel[taps_of(M)];
  W weight[taps_of(M)], slope[taps_of(M)];
  __device__ __forceinline__ along(double g, int size, double turns, int padding, bool align) {
    double rate = align ? (double)(size - 1) / 2 : (double)size / 2;
    if (g != g) g = -1;
    double s = align ? (g + 1) * rate : ((g + 1) * (double)size - 1) / 2;
    if (M != BICUBIC) s = moved(s, size, turns, padding, align, &rate);
    bool out = !(s > -4 && s < (double)size + 4);
    if (out && M == BICUBIC && padding != ZEROS && fabs(s) < 1e15) out = false;   /* no number to speak of otherwise */
    if (M == NEAREST) {
      const double r = out ? -1 : rint(s);
      pixel[0] = r >= 0 && r < (double)size ? (int)r : -1;
      weight[0] = 1;
      slope[0] = 0;
      return;
    }
    const double base = floor(s);
    const W f = (W)(s - base);
#pragma unroll
    for (int t = 0; t < taps_of(M); t++) {
      const int step = t - (M == BICUBIC);
      double none = 0, at = base + step;
      if (M == BICUBIC) at = moved(at, size, turns, padding, align, &none);
      pixel[t] = !out && at >= 0 && at < (double)size ? (int)at : -1;
      weight[t] = M == BICUBIC ? keys(f - (W)step) : t == 0 ? 1 - f : f;
      slope[t] = (M == BICUBIC ? keys_slope(f - (W)step) : t == 0 ? W(-1) : W(1)) * (W)rate;
    }
  }
};

template <class T, int V, int M> __global__ void __launch_bounds__(THREADS, 2) forward_kernel(sample s, const T *x, const unic_wide<T> *grid, T *y) {
  using W = unic_wide<T>;
  for (int64_t n = blockIdx.y; n < s.images; n += gridDim.y)
    for (unsigned item = blockIdx.x * blockDim.x + threadIdx.x; item < s.items; item += gridDim.x * blockDim.x) {
      unsigned vector;
      const unsigned place = unic_divide_rest(item, s.vectors, &vector);
      const W *g = grid + (n * s.places + place) * 2;
      const along<W, M> column((double)g[0], s.in[1], s.turns[1], s.padding, s.align), row((double)g[1], s.in[0], s.turns[0], s.padding, s.align);
      const T *from = x + n * s.in[0] * s.in[1] * s.channels + vector * V;
      W sum[V], value[V];
#pragma unroll
      for (int l = 0; l < V; l++) sum[l] = 0;
#pragma unroll
      for (int r = 0; r < taps_of(M); r++) {
#pragma unroll
        for (int c = 0; c < taps_of(M); c++) {
          if (row.pixel[r] < 0 || column.pixel[c] < 0) continue;
          const W weight = row.weight[r] * column.weight[c];
          unic_get<T, V>(from + ((int64_t)row.pixel[r] * s.in[1] + column.pixel[c]) * s.channels, value);
#pragma unroll
          for (int l = 0; l < V; l++) sum[l] += value[l] * weight;
        }
      }
      unic_put<T, V>(y + (n * s.places + place) * s.channels + vector * V, sum, false);
    }
}

/* dgrid: 1 << shift lanes per place, s.items = lanes; whole warps stay together. */
template <class T, int M> __global__ void __launch_bounds__(THREADS, 2) places_kernel(sample s, const T *x, const unic_wide<T> *grid, const T *dy, unic_wide<T> *dgrid, int shift, bool add) {
  using W = unic_wide<T>;
  const unsigned whole = (s.items + 31) / 32 * 32;
  const int lanes = 1 << shift, lane = threadIdx.x & (lanes - 1);
  for (int64_t n = blockIdx.y; n < s.images; n += gridDim.y)
    for (unsigned item = blockIdx.x * blockDim.x + threadIdx.x; item < whole; item += gridDim.x * blockDim.x) {
      const unsigned place = item >> shift;
      const bool there = item < s.items;
      double across = 0, down = 0;
      if (there) {
        const W *g = grid + (n * s.places + place) * 2;
        const along<W, M> column((double)g[0], s.in[1], s.turns[1], s.padding, s.align), row((double)g[1], s.in[0], s.turns[0], s.padding, s.align);
        const T *from = x + n * s.in[0] * s.in[1] * s.channels, *gradient = dy + (n * s.places + place) * s.channels;
#pragma unroll
        for (int r = 0; r < taps_of(M); r++) {
#pragma unroll
          for (int c = 0; c < taps_of(M); c++) {
            if (M == NEAREST || row.pixel[r] < 0 || column.pixel[c] < 0) continue;
            const T *at = from + ((int64_t)row.pixel[r] * s.in[1] + column.pixel[c]) * s.channels;
            W dot = 0;
            for (int channel = lane; channel < s.channels; channel += lanes) dot += unic_widen(at[channel]) * unic_widen(gradient[channel]);
            across += (double)(dot * (row.weight[r] * column.slope[c]));
            down += (double)(dot * (row.slope[r] * column.weight[c]));
          }
        }
      }
      for (int o = lanes / 2; o; o >>= 1) {
        across += __shfl_xor_sync(0xffffffffu, across, o);
        down += __shfl_xor_sync(0xffffffffu, down, o);
      }
      if (!there || lane) continue;
      W *to = dgrid + (n * s.places + place) * 2;
      to[0] = (add ? to[0] : W(0)) + (W)across;
      to[1] = (add ? to[1] : W(0)) + (W)down;
    }
}

/* ---------------------------------------------------------------- dx */

/* The largest finite |dy|, as the bits of a double (which order as numbers do). */
template <class T> __global__ void __launch_bounds__(THREADS) largest_kernel(const T *dy, int64_t n, unsigned long long *largest) {
  UNIC_SHARED(double, room, [32]);
  double most = 0;
  for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
    const double v = fabs((double)unic_widen(dy[i]));
    if (v <= 1.7976931348623157e308 && v > most) most = v;
  }
  most = unic_block_max(most, room);
  unsigned long long bits;
  memcpy(&bits, &most, 8);
  if (threadIdx.x == 0) atomicMax(largest, bits);
}

/* The unit is 2 to the power of this: sums of up to 2^room times the largest stay below 2^60. */
__device__ __forceinline__ int unit_of(unsigned long long largest, int room) {
  double most;
  memcpy(&most, &largest, 8);
  return most > 0 ? ilogb(most) + 1 - (60 - room) : 0;
}

enum { POISON_BIT = 62 };
template <class T, int M> __global__ void __launch_bounds__(THREADS, 2) spread_kernel(sample s, const unic_wide<T> *grid, const T *dy, long long *sums, const unsigned long long *largest, int room) {
  using W = unic_wide<T>;
  const int unit = unit_of(*largest, room);
  for (int64_t n = blockIdx.y; n < s.images; n += gridDim.y)
    for (unsigned item = blockIdx.x * blockDim.x + threadIdx.x; item < s.items; item += gridDim.x * blockDim.x) {
      unsigned channel;
      const unsigned place = unic_divide_rest(item, s.vectors, &channel);
      const W *g = grid + (n * s.places + place) * 2;
      const along<W, M> column((double)g[0], s.in[1], s.turns[1], s.padding, s.align), row((double)g[1], s.in[0], s.turns[0], s.padding, s.align);
      const double value = scalbn((double)unic_widen(dy[(n * s.places + place) * s.channels + channel]), -unit);
      const bool finite = fabs(value) < 1e300;
      long long *to = sums + n * s.in[0] * s.in[1] * s.channels + channel;
#pragma unroll
      for (int r = 0; r < taps_of(M); r++) {
#pragma unroll
        for (int c = 0; c < taps_of(M); c++) {
          if (row.pixel[r] < 0 || column.pixel[c] < 0) continue;
          long long *at = to + ((int64_t)row.pixel[r] * s.in[1] + column.pixel[c]) * s.channels;
          if (finite) atomicAdd((unsigned long long *)at, (unsigned long long)llrint(value * (double)(row.weight[r] * column.weight[c])));
          else atomicMax(at, 3LL << (POISON_BIT - 1));   /* no sum comes near, and none that is added to it leaves it */
        }
      }
    }
}

template <class W> __global__ void __launch_bounds__(THREADS) settle_kernel(const long long *sums, int64_t n, W *dx, const unsigned long long *largest, int room, bool add) {
  const int unit = unit_of(*largest, room);
  for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
    const long long sum = sums[i];
    const W v = sum >= 1LL << POISON_BIT ? (W)nan("") : (W)scalbn((double)sum, unit);
    dx[i] = add ? dx[i] + v : v;
  }
}

/* ---------------------------------------------------------------- launches */

sample sample_of(const unic_kernel *k, const unic_view *y) {
  const unic_view *x = &k->in[X];
  sample s = {};
  for (int d = 0; d < 2; d++) s.in[d] = (int)x->shape[2 + d];
  s.places = (int)(y->shape[2] * y->shape[3]);
  s.channels = (int)x->shape[1];
  s.padding = (int)k->arg[PADDING].integer;
  s.align = k->arg[ALIGN].integer;
  for (int d = 0; d < 2; d++) s.turns[d] = s.align && s.in[d] == 1 ? 0 : 1.0 / (double)(s.in[d] - s.align);
  s.images = x->shape[0];
  return s;
}

template <class F> void modes(const unic_kernel *k, F f) {
  switch (k->arg[MODE].integer) {
    case BILINEAR: return f(std::integral_constant<int, BILINEAR>());
    case NEAREST: return f(std::integral_constant<int, NEAREST>());
    default: return f(std::integral_constant<int, BICUBIC>());
  }
}

unic_status plan(const unic_kernel *k, unic_plan *p) {
  if (k->backward && k->din[X].present) p->scratch = (k->in[X].numel + 2) * (int64_t)sizeof(long long);
  return UNIC_OK;
}

unic_status forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *y = &k->out[Y];
  if (y->numel == 0) return UNIC_OK;
  unic_vectors(k->type, unic_channel_vectors(k->type, x->shape[1], (char *)x->data, (char *)y->data), [&](auto t, auto v) {
    using T = decltype(t);
    constexpr int V = decltype(v)::value;
    modes(k, [&](auto m) {
      constexpr int M = decltype(m)::value;
      sample s = sample_of(k, y);
      s.items = (unsigned)s.places * (unsigned)(s.channels / V);
      s.vectors = unic_divider_of(s.channels / V);
      UNIC_LAUNCH((forward_kernel<T, V, M>), unic_image_grid(k, s.images, s.items, THREADS), THREADS, 0, unic_cuda_stream(k), s, (const T *)x->data, (const unic_wide<T> *)k->in[GRID].data, (T *)y->data);
    });
  });
  return UNIC_OK;
}

unic_status backward(const unic_kernel *k) {
  const unic_view *dy = &k->dout[Y];
  if (k->out[Y].numel == 0 || !dy->data) {
    UNIC_TRY(unic_zero_gradient(k, X));
    return unic_zero_gradient(k, GRID);
  }
  cudaStream_t stream = unic_cuda_stream(k);
  const int64_t pixels = k->in[X].numel;
  unsigned long long *largest = (unsigned long long *)k->scratch;
  if (k->din[X].present) UNIC_TRY(unic_cuda_check(cudaMemsetAsync(k->scratch, 0, (size_t)(pixels + 2) * sizeof(long long), stream), "cudaMemset"));
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    using W = unic_wide<T>;
    modes(k, [&](auto m) {
      constexpr int M = decltype(m)::value;
      sample s = sample_of(k, dy);
      const W *grid = (const W *)k->in[GRID].data;
      if (k->din[GRID].present) {
        int shift = 0;
        while (shift < 5 && (1 << shift) < s.channels) shift++;
        s.items = (unsigned)s.places << shift;
        UNIC_LAUNCH((places_kernel<T, M>), unic_image_grid(k, s.images, s.items, THREADS), THREADS, 0, stream, s, (const T *)k->in[X].data, grid, (const T *)dy->data, (W *)k->din[GRID].data, shift,
                    (bool)k->accumulate[GRID]);
      }
      if (!k->din[X].present) return;
      int room = 2;   /* bits for what all taps of a place weigh (1.7 at most, where the border takes all of Keys' kernel) and for the places that meet */
      while ((INT64_C(1) << (room - 2)) < (int64_t)s.places) room++;
      long long *sums = (long long *)k->scratch + 2;
      UNIC_LAUNCH((largest_kernel<T>), (unsigned)min((dy->numel + THREADS - 1) / THREADS, (int64_t)LARGEST_BLOCKS), THREADS, 0, stream, (const T *)dy->data, dy->numel,
                  largest);
      s.items = (unsigned)s.places * (unsigned)s.channels;
      s.vectors = unic_divider_of(s.channels);
      UNIC_LAUNCH((spread_kernel<T, M>), unic_image_grid(k, s.images, s.items, THREADS), THREADS, 0, stream, s, grid, (const T *)dy->data, sums, (const unsigned long long *)largest, room);
      UNIC_LAUNCH((settle_kernel<W>), unic_blocks(k, pixels, THREADS), THREADS, 0, stream, (const long long *)sums, pixels, (W *)k->din[X].data, (const unsigned long long *)largest, room,
                  (bool)k->accumulate[X]);
    });
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(grid_sample, {"grid_sample", {.forward = forward, .backward = backward, .plan = plan}});
