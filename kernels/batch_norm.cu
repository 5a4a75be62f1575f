/* batch_norm on the GPU (kernels/batch_norm.c), channels-last [R, C], R = N H W.
 *
 * Own kernels, not cuDNN's: they are bound by memory and move it once per pass, take every type (cuDNN's have no f64), statistics and ReLU masks in
 * the form that the op saves, two addends of dy, and a residual with its gradient; cuDNN would need its engines compiled at run time for the same.
 *
 * Forward in training: `moments` reads x; `join` makes mean, rstd and the running statistics of the partial results; `normalise` reads x (and the
 * residual) and writes y (and the ReLU's bits). Otherwise join and normalise alone. Backward: `gradient_sums` reads x and dy (both addends, or the
 * bits) and writes dresidual; `join_sums`; `input_gradient` reads x and dy (or dresidual, which is the masked sum) and writes dx.
 * So 3 and 5 passes over tensors of x's size, with the residual 4 and 6.
 *
 * A block holds 256 threads: threads side by side take V channels each (16 bytes where C allows), those above one another take rows of the block's chunk.
 * Statistics: a thread's rows by Welford's rule after the chunk's first row is taken off, so that neither a large mean nor an outlier costs digits; threads
 * and chunks are joined from their means and squares, chunks in f64. Chunks are cut by shape alone: equal bits from run to run. The mask has a byte
 * for 8 rows of a channel, bit r for row r, as the CPU's.
 * A little over 500 lines: forward and backward are cut alike and share how. */
#include "images.cuh"

namespace {

enum { X, WEIGHT, BIAS, RUNNING_MEAN, RUNNING_VAR, RESIDUAL, TRACKED, TRAINING, MOMENTUM, EPS, RELU };
enum { Y, MEAN, RSTD, MASK };
enum { THREADS = UNIC_CUT_THREADS, ROWS = UNIC_CUT_ROWS, AHEAD = 4, JOIN_ACROSS = 8, JOIN_DOWN = 32 };

/* ---------------------------------------------------------------- statistics */

/* partial[chunk][0][c], [1][c]: mean of the chunk and sum of squared distances from it. */
template <class T, int V> __global__ void __launch_bounds__(THREADS) moments_kernel(unic_cut c, const T *x, double *partial) {
  using W = unic_wide<T>;
  UNIC_SHARED(W, means, [THREADS * V]);
  UNIC_SHARED(W, squares, [THREADS * V]);
  const unic_seat<V> s(c);
  W base[V], mean[V], square[V];
#pragma unroll
  for (int i = 0; i < V; i++) base[i] = mean[i] = square[i] = 0;
  if (s.in) {
    const T *from = x + s.channel;
    unic_get<T, V>(from + s.begin * c.channels, base);
    W n = 0;
    for (int64_t row = s.begin + s.down; row < s.end; row += (int64_t)AHEAD * s.step) {
      typename unic_bits<T, V>::type bits[AHEAD];
#pragma unroll
      for (int u = 0; u < AHEAD; u++)
        if (row + u * s.step < s.end) bits[u] = unic_get_bits<T, V>(from + (row + u * s.step) * c.channels);
#pragma unroll
      for (int u = 0; u < AHEAD; u++) {
        if (row + u * s.step >= s.end) continue;
        W v[V];
        unic_open<T, V>(bits[u], v);
        n += 1;
        const W part = 1 / n;
#pragma unroll
        for (int i = 0; i < V; i++) {
          const W d = v[i] - base[i], off = d - mean[i];
          mean[i] += off * part;
          square[i] += off * (d - mean[i]);
        }
      }
    }
  }
  const int line = c.across * V, at = s.down * line + (threadIdx.x & (c.across - 1)) * V;
#pragma unroll
  for (int i = 0; i < V; i++) {
    means[at + i] = mean[i];
    squares[at + i] = square[i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < line; i += THREADS) {
    const int channel = (int)(blockIdx.x << c.shift) * V + i;
    if (channel >= c.channels) continue;
    W sum = 0, total = 0;
    for (int d = 0; d < s.step; d++) sum += (W)s.count(d) * means[d * line + i];
    const W middle = sum / (W)(s.end - s.begin);
    for (int d = 0; d < s.step; d++) {
      const W off = means[d * line + i] - middle;
      total += squares[d * line + i] + (W)s.count(d) * off * off;
    }
    double *to = partial + (int64_t)blockIdx.y * 2 * c.channels + channel;
    to[0] = (double)unic_widen(x[s.begin * c.channels + channel]) + (double)middle;
    to[c.channels] = (double)total;
  }
}

template <class W> struct join {
  const double *partial;
  W *mean, *rstd, *running_mean, *running_var;
  long long *tracked;   /* NULL: nobody counts */
  double eps, momentum;
  bool training;
};

static __device__ __forceinline__ double column_sum(double v, double *room) {
  const int across = threadIdx.x % JOIN_ACROSS, down = threadIdx.x / JOIN_ACROSS;
  room[down * JOIN_ACROSS + across] = v;
  __syncthreads();
  for (int half = JOIN_DOWN / 2; half; half >>= 1) {
    if (down < half) room[down * JOIN_ACROSS + across] += room[(down + half) * JOIN_ACROSS + across];
    __syncthreads();
  }
  v = room[across];
  __syncthreads();
  return v;
}

/* Mean and rstd of JOIN_ACROSS channels, and the running statistics' step; the first thread counts the batch. */
/* The 1: rather fewer threads on a processor than the few bytes that ptxas would spill for a full one (sm_86, sm_89, f64). */
template <class W> __global__ void __launch_bounds__(JOIN_ACROSS *JOIN_DOWN, 1) join_kernel(unic_cut c, join<W> j) {
  UNIC_SHARED(double, room, [JOIN_ACROSS * JOIN_DOWN]);
  const int channel = blockIdx.x * JOIN_ACROSS + threadIdx.x % JOIN_ACROSS, down = threadIdx.x / JOIN_ACROSS;
  const bool in = channel < c.channels;
  double mean = 0, var = 0;
  if (j.tracked && blockIdx.x == 0 && threadIdx.x == 0) ++*j.tracked;
  if (j.training) {
    double sum = 0, squares = 0;
    for (unsigned g = down; in && g < c.chunks; g += JOIN_DOWN) {
      const int64_t left = c.rows - g * c.per_chunk;
      sum += (double)(left < c.per_chunk ? left : c.per_chunk) * j.partial[(int64_t)g * 2 * c.channels + channel];
    }
    mean = column_sum(sum, room);
    if (c.rows) mean /= (double)c.rows;
    for (unsigned g = down; in && g < c.chunks; g += JOIN_DOWN) {
      const int64_t left = c.rows - g * c.per_chunk;
      const double *from = j.partial + (int64_t)g * 2 * c.channels + channel, off = from[0] - mean;
      squares += from[c.channels] + (double)(left < c.per_chunk ? left : c.per_chunk) * off * off;
    }
    squares = column_sum(squares, room);
    if (c.rows) var = squares / (double)c.rows;
    if (in && down == 0 && j.running_mean && c.rows) {
      const double unbiased = squares / (double)(c.rows > 1 ? c.rows - 1 : 1);
      j.running_mean[channel] = (W)((1 - j.momentum) * (double)j.running_mean[channel] + j.momentum * mean);
      j.running_var[channel] = (W)((1 - j.momentum) * (double)j.running_var[channel] + j.momentum * unbiased);
    }
  } else if (in && down == 0) {
    mean = (double)j.running_mean[channel];
    var = (double)j.running_var[channel];
  }
  if (!in || down) return;
  j.mean[channel] = (W)mean;
  j.rstd[channel] = (W)(1 / sqrt(var + j.eps));
}

/* ---------------------------------------------------------------- y */

/* What makes the value before the residual of x: fma((x - mean), scale, bias), always in this form, so that a mask made again is the one there was. */
template <class W, int V> struct affine {
  W mean[V], scale[V], bias[V];
  __device__ __forceinline__ affine(int channel, const W *means, const W *rstd, const W *weight, const W *biases) {
#pragma unroll
    for (int i = 0; i < V; i++) {
      mean[i] = means[channel + i];
      scale[i] = weight ? weight[channel + i] * rstd[channel + i] : rstd[channel + i];
      bias[i] = biases ? biases[channel + i] : W(0);
    }
  }
  __device__ __forceinline__ W of(W x, int i) const {
    if constexpr (sizeof(W) == 4) return fmaf(x - mean[i], scale[i], bias[i]);
    else return fma(x - mean[i], scale[i], bias[i]);
  }
};

template <class T> struct norm {
  using W = unic_wide<T>;
  const T *x, *residual;
  T *y;
  unsigned char *mask;   /* NULL: none is kept */
  int64_t pitch;
  const W *mean, *rstd, *weight, *bias;
  bool relu;
};

/* Rows of a thread: `ROWS` at a time, side by side where a byte of the mask holds them, else `step` apart. */
template <class T, int V> __global__ void __launch_bounds__(THREADS) normalise_kernel(unic_cut c, norm<T> a) {
  using W = unic_wide<T>;
  const unic_seat<V> s(c);
  if (!s.in) return;
  const affine<W, V> f(s.channel, a.mean, a.rstd, a.weight, a.bias);
  const int apart = a.mask ? 1 : s.step;
  for (int64_t first = s.begin; first < s.end; first += ROWS * s.step) {
    const int64_t row = first + (a.mask ? s.down * ROWS : s.down);
    unic_pack<unsigned char, V> open = {};
#pragma unroll 1
    for (int r = 0; r < ROWS; r += AHEAD) {
      typename unic_bits<T, V>::type x[AHEAD], residual[AHEAD];
#pragma unroll
      for (int u = 0; u < AHEAD; u++) {
        const int64_t here = row + (r + u) * apart;
        if (here >= s.end) continue;
        x[u] = unic_get_bits<T, V>(a.x + here * c.channels + s.channel);
        if (a.residual) residual[u] = unic_get_bits<T, V>(a.residual + here * c.channels + s.channel);
      }
#pragma unroll
      for (int u = 0; u < AHEAD; u++) {
        const int64_t here = row + (r + u) * apart;
        if (here >= s.end) continue;
        W v[V], more[V];
        unic_open<T, V>(x[u], v);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = f.of(v[i], i);
        if (a.residual) {
          unic_open<T, V>(residual[u], more);
#pragma unroll
          for (int i = 0; i < V; i++) v[i] += more[i];
        }
        if (a.relu) {
#pragma unroll
          for (int i = 0; i < V; i++) {
            const bool shut = v[i] <= 0;   /* NaN stays */
            if (!shut) open.at[i] |= (unsigned char)(1 << (r + u));
            v[i] = shut ? W(0) : v[i];
          }
        }
        unic_put<T, V>(a.y + here * c.channels + s.channel, v, false);
      }
    }
    if (a.mask && row < s.end) *reinterpret_cast<unic_pack<unsigned char, V> *>(a.mask + row / ROWS * a.pitch + s.channel) = open;
  }
}

/* ---------------------------------------------------------------- gradients */

template <class T> struct gradient {
  using W = unic_wide<T>;
  const T *x, *dy, *dy2;
  const unsigned char *mask;   /* NULL: what the ReLU let through is worked out from x */
  int64_t pitch;
  const W *mean, *rstd, *weight, *bias;
  bool relu;
  T *dresidual, *dx;           /* each NULL where it is not written */
  bool add;                    /* to what is there */
  const W *mean_g, *mean_gx;
  double *partial;
};

/* Visit g = the masked sum of dy's addends and x of this thread's rows: visit(row, g, x). */
template <class T, int V, class F> static __device__ __forceinline__ void each_gradient(const unic_cut &c, const gradient<T> &a, const unic_seat<V> &s, const affine<unic_wide<T>, V> &f, F visit) {
  using W = unic_wide<T>;
  enum { TWO = 2 };
  const int apart = a.mask ? 1 : s.step;
  for (int64_t first = s.begin; first < s.end; first += ROWS * s.step) {
    const int64_t row = first + (a.mask ? s.down * ROWS : s.down);
    if (row >= s.end) break;
    unic_pack<unsigned char, V> open = {};
    if (a.mask) open = *reinterpret_cast<const unic_pack<unsigned char, V> *>(a.mask + row / ROWS * a.pitch + s.channel);
#pragma unroll 1
    for (int r = 0; r < ROWS; r += TWO) {
      typename unic_bits<T, V>::type x[TWO], dy[TWO], dy2[TWO];
#pragma unroll
      for (int u = 0; u < TWO; u++) {
        const int64_t here = row + (r + u) * apart, at = here * c.channels + s.channel;
        if (here >= s.end) continue;
        x[u] = unic_get_bits<T, V>(a.x + at);
        dy[u] = unic_get_bits<T, V>(a.dy + at);
        if (a.dy2) dy2[u] = unic_get_bits<T, V>(a.dy2 + at);
      }
#pragma unroll
      for (int u = 0; u < TWO; u++) {
        const int64_t here = row + (r + u) * apart;
        if (here >= s.end) continue;
        W v[V], g[V], more[V];
        unic_open<T, V>(x[u], v);
        unic_open<T, V>(dy[u], g);
        if (a.dy2) {
          unic_open<T, V>(dy2[u], more);
#pragma unroll
          for (int i = 0; i < V; i++) g[i] += more[i];
        }
        if (a.relu) {
#pragma unroll
          for (int i = 0; i < V; i++) {
            const bool shut = a.mask ? !(open.at[i] >> (r + u) & 1) : f.of(v[i], i) <= 0;
            g[i] = shut ? W(0) : g[i];
          }
        }
        visit(here, g, v);
      }
    }
  }
}

/* partial[chunk][0][c], [1][c]: sums of g and of g (x - mean); dresidual = g. */
template <class T, int V> __global__ void __launch_bounds__(THREADS) gradient_sums_kernel(unic_cut c, gradient<T> a) {
  using W = unic_wide<T>;
  UNIC_SHARED(W, sums, [THREADS * V]);
  UNIC_SHARED(W, products, [THREADS * V]);
  const unic_seat<V> s(c);
  W sum[V], product[V];
#pragma unroll
  for (int i = 0; i < V; i++) sum[i] = product[i] = 0;
  if (s.in) {
    const affine<W, V> f(s.channel, a.mean, a.rstd, a.weight, a.bias);
    each_gradient<T, V>(c, a, s, f, [&](int64_t row, const W(&g)[V], const W(&x)[V]) {
#pragma unroll
      for (int i = 0; i < V; i++) {
        sum[i] += g[i];
        product[i] += g[i] * (x[i] - f.mean[i]);
      }
      if (a.dresidual) unic_put<T, V>(a.dresidual + row * c.channels + s.channel, g, a.add);
    });
  }
  const int line = c.across * V, at = s.down * line + (threadIdx.x & (c.across - 1)) * V;
#pragma unroll
  for (int i = 0; i < V; i++) {
    sums[at + i] = sum[i];
    products[at + i] = product[i];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < line; i += THREADS) {
    const int channel = (int)(blockIdx.x << c.shift) * V + i;
    if (channel >= c.channels) continue;
    double total = 0, total_x = 0;
    for (int d = 0; d < s.step; d++) {
      total += (double)sums[d * line + i];
      total_x += (double)products[d * line + i];
    }
    double *to = a.partial + (int64_t)blockIdx.y * 2 * c.channels + channel;
    to[0] = total;
    to[c.channels] = total_x;
  }
}

template <class W> struct join_sums {
  const double *partial;
  const W *rstd;
  W *dweight, *dbias, *mean_g, *mean_gx;
  bool add_weight, add_bias, training;
};

template <class W> __global__ void __launch_bounds__(JOIN_ACROSS *JOIN_DOWN) join_sums_kernel(unic_cut c, join_sums<W> j) {
  UNIC_SHARED(double, room, [JOIN_ACROSS * JOIN_DOWN]);
  const int channel = blockIdx.x * JOIN_ACROSS + threadIdx.x % JOIN_ACROSS, down = threadIdx.x / JOIN_ACROSS;
  const bool in = channel < c.channels;
  double g = 0, gx = 0;
  for (unsigned i = down; in && i < c.chunks; i += JOIN_DOWN) {
    const double *from = j.partial + (int64_t)i * 2 * c.channels + channel;
    g += from[0];
    gx += from[c.channels];
  }
  g = column_sum(g, room);
  gx = column_sum(gx, room);
  if (!in || down) return;
  const double rstd = (double)j.rstd[channel];
  if (j.dbias) j.dbias[channel] = (j.add_bias ? j.dbias[channel] : W(0)) + (W)g;
  if (j.dweight) j.dweight[channel] = (j.add_weight ? j.dweight[channel] : W(0)) + (W)(rstd * gx);
  j.mean_g[channel] = j.training && c.rows ? (W)(g / (double)c.rows) : W(0);
  j.mean_gx[channel] = j.training && c.rows ? (W)(gx / (double)c.rows * rstd * rstd) : W(0);
}

/* dx = scale (g - mean_g - (x - mean) mean_gx). */
template <class T, int V> __global__ void __launch_bounds__(THREADS) input_gradient_kernel(unic_cut c, gradient<T> a) {
  using W = unic_wide<T>;
  const unic_seat<V> s(c);
  if (!s.in) return;
  const affine<W, V> f(s.channel, a.mean, a.rstd, a.weight, a.bias);
  W mean_g[V], mean_gx[V];
#pragma unroll
  for (int i = 0; i < V; i++) {
    mean_g[i] = a.mean_g ? a.mean_g[s.channel + i] : W(0);
    mean_gx[i] = a.mean_gx ? a.mean_gx[s.channel + i] : W(0);
  }
  each_gradient<T, V>(c, a, s, f, [&](int64_t row, const W(&g)[V], const W(&x)[V]) {
    W d[V];
#pragma unroll
    for (int i = 0; i < V; i++) d[i] = f.scale[i] * (g[i] - mean_g[i] - (x[i] - f.mean[i]) * mean_gx[i]);
    unic_put<T, V>(a.dx + row * c.channels + s.channel, d, a.add);
  });
}

/* ---------------------------------------------------------------- launches */

/* Scratch: the partial results as doubles for either width of vectors, then four values per channel. */
int64_t partial_bytes(const unic_view *x, int dtype) {
  unsigned chunks = 1;
  for (int V = 1; V <= 16 / (int)unic_dtype_size((unic_dtype)dtype); V *= 2) {
    unic_cut c = unic_cut_of(x, V);
    if (c.chunks > chunks) chunks = c.chunks;
  }
  return (int64_t)chunks * 2 * x->shape[1] * (int64_t)sizeof(double);
}

unic_status batch_norm_plan(const unic_kernel *k, unic_plan *p) {
  p->scratch = partial_bytes(&k->in[X], k->type) + 4 * k->in[X].shape[1] * (int64_t)sizeof(double);
  return UNIC_OK;
}

template <class T> norm<T> norm_of(const unic_kernel *k, const unic_wide<T> *mean, const unic_wide<T> *rstd) {
  using W = unic_wide<T>;
  norm<T> a = {};
  a.x = (const T *)k->in[X].data;
  a.residual = k->in[RESIDUAL].present ? (const T *)k->in[RESIDUAL].data : nullptr;
  a.y = (T *)k->out[Y].data;
  a.pitch = k->out[MASK].shape[1];
  a.mean = mean;
  a.rstd = rstd;
  a.weight = (const W *)k->in[WEIGHT].data;
  a.bias = (const W *)k->in[BIAS].data;
  a.relu = k->arg[RELU].integer;
  return a;
}

bool vectors_of(const unic_kernel *k, bool gradients) {
  if (!unic_channel_vectors(k->type, k->in[X].shape[1], (const char *)k->in[X].data, (const char *)k->in[RESIDUAL].data, (const char *)k->out[Y].data, (const char *)k->out[MASK].data))
    return false;
  /* What belongs to gradients is undefined in a forward and a remake: garbage there once decided how sums are cut, and with it their bits. */
  return !gradients || unic_aligned16((const char *)k->dout[Y].data, (const char *)k->dout2[Y].data, (const char *)k->din[X].data, (const char *)k->din[RESIDUAL].data);
}

unic_status batch_norm_forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  cudaStream_t stream = unic_cuda_stream(k);
  if (x->shape[1] == 0) return UNIC_OK;
  unic_vectors(k->type, vectors_of(k, false), [&](auto t, auto v) {
    using T = decltype(t);
    using W = unic_wide<T>;
    constexpr int V = decltype(v)::value;
    const unic_cut c = unic_cut_of(x, V);
    join<W> j = {};
    W *spare = (W *)((char *)k->scratch + partial_bytes(x, k->type));
    j.partial = (const double *)k->scratch;
    j.mean = k->out[MEAN].data ? (W *)k->out[MEAN].data : spare;
    j.rstd = k->out[RSTD].data ? (W *)k->out[RSTD].data : spare + c.channels;
    j.running_mean = (W *)k->in[RUNNING_MEAN].data;
    j.running_var = (W *)k->in[RUNNING_VAR].data;
    j.tracked = k->arg[TRAINING].integer && k->in[TRACKED].present ? (long long *)k->in[TRACKED].data : nullptr;
    j.eps = k->arg[EPS].number;
    j.momentum = k->arg[MOMENTUM].number;
    j.training = k->arg[TRAINING].integer;
    const dim3 grid(c.tiles, c.chunks);
    if (j.training && c.rows) UNIC_LAUNCH((moments_kernel<T, V>), grid, THREADS, 0, stream, c, (const T *)x->data, (double *)k->scratch);
    UNIC_LAUNCH((join_kernel<W>), (unsigned)((c.channels + JOIN_ACROSS - 1) / JOIN_ACROSS), JOIN_ACROSS * JOIN_DOWN, 0, stream, c, j);
    if (!c.rows) return;
    norm<T> a = norm_of<T>(k, j.mean, j.rstd);
    if (a.relu && a.residual && k->grad) a.mask = (unsigned char *)k->out[MASK].data;
    UNIC_LAUNCH((normalise_kernel<T, V>), grid, THREADS, 0, stream, c, a);
  });
  return UNIC_OK;
}

/* y again: the last pass of the forward. */
unic_status batch_norm_remake(const unic_kernel *k) {
  if (k->in[X].numel == 0) return UNIC_OK;
  unic_vectors(k->type, vectors_of(k, false), [&](auto t, auto v) {
    using T = decltype(t);
    constexpr int V = decltype(v)::value;
    const unic_cut c = unic_cut_of(&k->in[X], V);
    const norm<T> a = norm_of<T>(k, (const unic_wide<T> *)k->out[MEAN].data, (const unic_wide<T> *)k->out[RSTD].data);
    UNIC_LAUNCH((normalise_kernel<T, V>), dim3(c.tiles, c.chunks), THREADS, 0, unic_cuda_stream(k), c, a);
  });
  return UNIC_OK;
}

unic_status batch_norm_backward(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  cudaStream_t stream = unic_cuda_stream(k);
  if (x->numel == 0 || !k->dout[Y].data) {
    for (int i = X; i <= RESIDUAL; i++)
      if (i == X || i == WEIGHT || i == BIAS || i == RESIDUAL) UNIC_TRY(unic_zero_gradient(k, i));
    return UNIC_OK;
  }
  unic_vectors(k->type, vectors_of(k, true), [&](auto t, auto v) {
    using T = decltype(t);
    using W = unic_wide<T>;
    constexpr int V = decltype(v)::value;
    const unic_cut c = unic_cut_of(x, V);
    const dim3 grid(c.tiles, c.chunks);
    gradient<T> a = {};
    W *spare = (W *)((char *)k->scratch + partial_bytes(x, k->type));
    a.x = (const T *)x->data;
    a.dy = (const T *)k->dout[Y].data;
    a.dy2 = (const T *)k->dout2[Y].data;
    a.pitch = k->out[MASK].shape[1];
    a.mean = (const W *)k->out[MEAN].data;
    a.rstd = (const W *)k->out[RSTD].data;
    a.weight = (const W *)k->in[WEIGHT].data;
    a.bias = (const W *)k->in[BIAS].data;
    a.relu = k->arg[RELU].integer;
    a.mask = a.relu && k->in[RESIDUAL].present ? (const unsigned char *)k->out[MASK].data : nullptr;
    a.partial = (double *)k->scratch;
    const bool training = k->arg[TRAINING].integer, want_x = k->din[X].present, want_residual = k->din[RESIDUAL].present;
    if (k->din[WEIGHT].present || k->din[BIAS].present || want_residual || (training && want_x)) {
      gradient<T> first = a;
      first.dresidual = want_residual ? (T *)k->din[RESIDUAL].data : nullptr;
      first.add = k->accumulate[RESIDUAL];
      UNIC_LAUNCH((gradient_sums_kernel<T, V>), grid, THREADS, 0, stream, c, first);
      join_sums<W> j = {};
      j.partial = (const double *)k->scratch;
      j.rstd = a.rstd;
      j.dweight = k->din[WEIGHT].present ? (W *)k->din[WEIGHT].data : nullptr;
      j.dbias = k->din[BIAS].present ? (W *)k->din[BIAS].data : nullptr;
      j.add_weight = k->accumulate[WEIGHT];
      j.add_bias = k->accumulate[BIAS];
      j.mean_g = spare;
      j.mean_gx = spare + c.channels;
      j.training = training;
      UNIC_LAUNCH((join_sums_kernel<W>), (unsigned)((c.channels + JOIN_ACROSS - 1) / JOIN_ACROSS), JOIN_ACROSS * JOIN_DOWN, 0, stream, c, j);
      a.mean_g = j.mean_g;
      a.mean_gx = j.mean_gx;
    }
    if (!want_x) return;
    if (want_residual && !k->accumulate[RESIDUAL] && (sizeof(T) >= 4 || !a.dy2)) {
      /* dresidual is g: it is read instead of the addends and the mask (it may lie over one of them, and dx over the other; where a half type has rounded
         the sum of two, the addends are read again, and are still there). */
      a.dy = (const T *)k->din[RESIDUAL].data;
      a.dy2 = nullptr;
      a.mask = nullptr;
      a.relu = false;
    }
    a.dx = (T *)k->din[X].data;
    a.add = k->accumulate[X];
    UNIC_LAUNCH((input_gradient_kernel<T, V>), grid, THREADS, 0, stream, c, a);
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(batch_norm, {"batch_norm", {.forward = batch_norm_forward, .backward = batch_norm_backward, .remake = batch_norm_remake, .plan = batch_norm_plan}});
