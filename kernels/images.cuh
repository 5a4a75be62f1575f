/* What the kernels of images share: memory is channels-last, [N, pixels, C] or [rows, C], and a thread deals with V neighbouring channels, which
 * move 16 bytes at a time where C and the pointers allow (V = unic_vector<T>), one by one otherwise (V = 1). */
#ifndef UNIC_IMAGES_CUH
#define UNIC_IMAGES_CUH

#include "cuda.cuh"

#include <type_traits>

/* Division of numbers below 2^31 by a divisor that the host knows: a multiplication and a shift. */
struct unic_divider {
  unsigned by, factor, shift;
};
static inline unic_divider unic_divider_of(int64_t by) {
  unic_divider d = {(unsigned)by, 0, 0};
  while ((INT64_C(1) << d.shift) < by) d.shift++;
  d.factor = (unsigned)((((UINT64_C(1) << d.shift) - (uint64_t)by) << 32) / (uint64_t)by + 1);
  return d;
}
static __device__ __forceinline__ unsigned unic_divide(unsigned n, const unic_divider &d) { return (__umulhi(n, d.factor) + n) >> d.shift; }
/* n / d; *rest is what is left. */
static __device__ __forceinline__ unsigned unic_divide_rest(unsigned n, const unic_divider &d, unsigned *rest) {
  unsigned q = unic_divide(n, d);
  *rest = n - q * d.by;
  return q;
}

/* V neighbours as they lie in memory: several rows are loaded so before the first is used. */
template <class T, int V> struct unic_bits { using type = uint4; };
template <class T> struct unic_bits<T, 1> { using type = T; };
template <class T, int V> static __device__ __forceinline__ typename unic_bits<T, V>::type unic_get_bits(const T *p) {
  static_assert(V == 1 || sizeof(T) * V == 16, "a vector has 16 bytes");
  return *reinterpret_cast<const typename unic_bits<T, V>::type *>(p);
}
template <class T, int V> static __device__ __forceinline__ void unic_open(const typename unic_bits<T, V>::type &bits, unic_wide<T> (&v)[V]) {
  T t[V];
  memcpy(static_cast<void *>(t), &bits, sizeof t);
#pragma unroll
  for (int i = 0; i < V; i++) v[i] = unic_widen(t[i]);
}
/* V neighbours, wide. */
template <class T, int V> static __device__ __forceinline__ void unic_get(const T *p, unic_wide<T> (&v)[V]) { unic_open<T, V>(unic_get_bits<T, V>(p), v); }
/* V neighbours, rounded to T; `add`: to what is there. */
template <class T, int V> static __device__ __forceinline__ void unic_put(T *p, const unic_wide<T> (&v)[V], bool add) {
  unic_wide<T> old[V];
#pragma unroll
  for (int i = 0; i < V; i++) old[i] = 0;
  if (add) unic_get<T, V>(p, old);
  if constexpr (V == 1) {
    *p = unic_narrow<T>(add ? old[0] + v[0] : v[0]);
  } else {
    T t[V];
#pragma unroll
    for (int i = 0; i < V; i++) t[i] = unic_narrow<T>(add ? old[i] + v[i] : v[i]);
    uint4 bits;
    memcpy(&bits, t, 16);
    *reinterpret_cast<uint4 *>(p) = bits;
  }
}

/* f(T, V as an integral constant) for a dtype and whether vectors are possible. */
template <class F> static inline void unic_vectors(int dtype, bool vectors, F f) {
  unic_floats(dtype, [&](auto t) {
    using T = decltype(t);
    if (vectors) f(t, std::integral_constant<int, unic_vector<T>>());
    else f(t, std::integral_constant<int, 1>());
  });
}

/* Whether C channels of every pointer (NULL ones aside) move as vectors. */
template <class... P> static inline bool unic_channel_vectors(int dtype, int64_t channels, const P *...p) {
  return channels % (16 / (int64_t)unic_dtype_size((unic_dtype)dtype)) == 0 && unic_aligned16(p...);
}

/* A launch with `items` threads of work per image: x over the work of an image, y over the images; kernels loop over what is left of both. */
static inline dim3 unic_image_grid(const unic_kernel *k, int64_t images, int64_t items, int threads) {
  unsigned y = (unsigned)(images < 65535 ? images : 65535);
  int64_t most = ((int64_t)unic_cuda_of(k)->processors * (2048 / threads) * 8 + y - 1) / y, blocks = (items + threads - 1) / threads;
  return dim3((unsigned)(blocks < most ? blocks : most), y);
}

/* ---------------------------------------------------------------- sums down columns */

/* How a matrix [R, C] is cut for sums down its columns: a block has 256 threads, those side by side take V channels each, those above one another take rows
 * of the block's chunk (multiples of 8). By shape alone, so that sums have equal bits from run to run. */
enum { UNIC_CUT_THREADS = 256, UNIC_CUT_ROWS = 8, UNIC_CUT_BLOCKS = 1024 };
struct unic_cut {
  int64_t rows, per_chunk;
  int channels, across, shift;     /* threads side by side: 1 << shift */
  unsigned tiles, chunks;
};

static inline unic_cut unic_cut_of(const unic_view *x, int V) {   /* x: [N, C] or [N, C, H, W] */
  unic_cut c = {};
  c.channels = (int)x->shape[1];
  c.rows = x->shape[1] ? x->numel / x->shape[1] : 0;
  int vectors = (c.channels + V - 1) / V;
  while (c.shift < 5 && (1 << c.shift) < vectors) c.shift++;
  c.across = 1 << c.shift;
  c.tiles = (unsigned)((vectors + c.across - 1) / c.across);
  int64_t step = UNIC_CUT_ROWS * (UNIC_CUT_THREADS >> c.shift), pieces = (c.rows + step - 1) / step, most = c.tiles < UNIC_CUT_BLOCKS ? UNIC_CUT_BLOCKS / c.tiles : 1;
  int64_t chunks = pieces < most ? pieces : most;
  if (chunks < 1) chunks = 1;
  c.per_chunk = (pieces + chunks - 1) / chunks * step;
  c.chunks = c.rows ? (unsigned)((c.rows + c.per_chunk - 1) / c.per_chunk) : 0;
  return c;
}

/* This thread's first channel (in[] false: none), its place among the rows, and the rows of its chunk. */
template <int V> struct unic_seat {
  int channel, down, step;
  int64_t begin, end;
  bool in;
  __device__ __forceinline__ unic_seat(const unic_cut &c) {
    channel = (int)((blockIdx.x << c.shift) + (threadIdx.x & (c.across - 1))) * V;
    down = threadIdx.x >> c.shift;
    step = UNIC_CUT_THREADS >> c.shift;
    begin = blockIdx.y * c.per_chunk;
    end = begin + c.per_chunk < c.rows ? begin + c.per_chunk : c.rows;
    in = channel < c.channels;
  }
  /* Rows of thread `d` of the column. */
  __device__ __forceinline__ int count(int d) const { return end - begin > d ? (int)((end - begin - d + step - 1) / step) : 0; }
};

/* Gradients that are zero because nothing depends on the input. */
static inline unic_status unic_zero_gradient(const unic_kernel *k, int i) {
  const unic_view *d = &k->din[i];
  if (!d->present || k->accumulate[i] || d->numel == 0) return UNIC_OK;
  return unic_cuda_check(cudaMemsetAsync(d->data, 0, (size_t)(d->numel * unic_dtype_size((unic_dtype)d->dtype)), unic_cuda_stream(k)), "cudaMemset");
}

#endif
