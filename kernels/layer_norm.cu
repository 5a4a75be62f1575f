/* layer_norm and add_layer_norm on the GPU (kernels/layer_norm.c).
 *
 * A row lies in the registers of a warp (up to 1024 elements) or of a block (up to 8192): forward reads x (and residual) once and writes y (and h) once,
 * backward reads x and dy once and writes dx once. Longer rows, rows that 16-byte pieces do not fit, and f64 go element by element and are read again
 * from cache.
 * Gradients of weight and bias: a block adds up the rows of its chunk, in registers, and writes one row of sums for each; a second kernel adds those up
 * in f64. Chunks are cut by the number of rows alone. At most 512 of them: 8 C bytes each, beside 2 to 4 C bytes per row of x and of dy.
 * The mask of the dropout is drawn again in the backward from the saved state; a kernel of one thread moves the generator on after the forward.
 * Over 500 lines: two ops in three widths of rows, whose expressions must be the same to the bit. */
#include "random.h"
#include "rows.cuh"

#include <type_traits>

namespace {

enum { X, WEIGHT, BIAS, EPS };                                                                   /* layer_norm */
enum { Y, MEAN, RSTD };
enum { ADD_X, ADD_RESIDUAL, ADD_WEIGHT, ADD_BIAS, ADD_DROPOUT, ADD_EPS, ADD_RNG };               /* add_layer_norm */
enum { ADD_Y, ADD_H, ADD_MEAN, ADD_RSTD, ADD_STATE };

template <class T> struct norm {
  using W = unic_wide<T>;
  int64_t rows, columns;
  const T *x, *residual;           /* residual NULL: layer_norm */
  const W *weight, *bias;          /* NULL: 1 and 0 */
  T *y, *h;                        /* h: what is normalised, of add_layer_norm */
  W *mean, *rstd, eps;             /* forward: NULL when no gradient is needed */
  /* dropout */
  const int64_t *rng;              /* {seed, counter}: forward the generator, backward the saved state */
  int64_t *state;
  uint64_t threshold;              /* 0: none */
  W scale;
  /* backward */
  const T *dy, *dh;                /* NULL: zero */
  T *dx, *dresidual;               /* NULL: not wanted */
  bool add_x, add_residual;
  int64_t chunk;                   /* rows of a block */
  W *partial;                      /* [chunks, 2, C]: sums for dw and db; NULL when neither is wanted */
};

enum { BLOCK = 256, ROWS = 4 };    /* threads of a block that has a row; warps of one that has a row each */

template <int GROUP> constexpr int threads_of = GROUP == 32 ? 32 * ROWS : BLOCK;

/* One expression for forward and remaking: fma says where it is rounded, so that both have the same bits. */
template <class W> __device__ __forceinline__ W normalized(W x, W mean, W rstd, bool scales, W w, bool shifts, W b) {
  W centered = x - mean;
  if (!scales) return shifts ? fma(centered, rstd, b) : centered * rstd;
  W hat = centered * rstd;
  return shifts ? fma(hat, w, b) : hat * w;
}

/* Factors 0 or 1/(1-p) of V elements from `at` on; at is a multiple of V. */
template <class T, int V> __device__ __forceinline__ void factors(const norm<T> &s, int64_t at, unic_wide<T> (&f)[V]) {
  using W = unic_wide<T>;
  const uint64_t seed = (uint64_t)s.rng[0], counter = (uint64_t)s.rng[1];
  if constexpr (V % 4 == 0) {
#pragma unroll
    for (int i = 0; i < V; i += 4) {
      uint32_t bits[4];
      unic_philox(seed, counter + (uint64_t)((at + i) >> 2), bits);
#pragma unroll
      for (int j = 0; j < 4; j++) f[i + j] = bits[j] < s.threshold ? W(0) : s.scale;
    }
  } else {
#pragma unroll
    for (int i = 0; i < V; i++) f[i] = unic_random_bits(seed, counter, at + i) < s.threshold ? W(0) : s.scale;
  }
}

/* V elements from `at` on of what is normalised: x, or h = residual + dropout(x), which is stored and then taken as it was rounded. */
template <class T, int V> __device__ __forceinline__ void take(const norm<T> &s, int64_t at, unic_wide<T> (&v)[V]) {
  using W = unic_wide<T>;
  unic_load_wide<T, V>(s.x + at, v);
  if (!s.residual) return;
  W residual[V], factor[V];
  unic_load_wide<T, V>(s.residual + at, residual);
  if (s.threshold) {
    factors<T, V>(s, at, factor);
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = residual[i] + v[i] * factor[i];
  } else {
#pragma unroll
    for (int i = 0; i < V; i++) v[i] = residual[i] + v[i];
  }
  unic_store_wide<T, V>(s.h + at, v);
#pragma unroll
  for (int i = 0; i < V; i++) v[i] = unic_widen(unic_narrow<T>(v[i]));
}

template <class T, int V> __device__ __forceinline__ void put_y(const norm<T> &s, int64_t at, int64_t column, const unic_wide<T> (&v)[V], unic_wide<T> mean, unic_wide<T> rstd) {
  using W = unic_wide<T>;
  W w[V], b[V], y[V];
  if (s.weight) unic_load_wide<W, V>(s.weight + column, w);
  if (s.bias) unic_load_wide<W, V>(s.bias + column, b);
#pragma unroll
  for (int i = 0; i < V; i++) y[i] = normalized<W>(v[i], mean, rstd, s.weight, s.weight ? w[i] : W(1), s.bias, s.bias ? b[i] : W(0));
  unic_store_wide<T, V>(s.y + at, y);
}

/* Without dropout the generator stands still, and its state needs no kernel of its own. */
template <class T> __device__ __forceinline__ void keep_state(const norm<T> &s) {
  if (s.state && !s.threshold && blockIdx.x == 0 && threadIdx.x == 0) {
    s.state[0] = s.rng[0];
    s.state[1] = s.rng[1];
  }
}

template <class T, int VALUES, int GROUP> __global__ void __launch_bounds__(threads_of<GROUP>) norm_forward(const norm<T> s) {
  using W = unic_wide<T>;
  constexpr int V = unic_vector<T>, PACKS = VALUES / V, PER = threads_of<GROUP> / GROUP;
  UNIC_SHARED(W, room, [32]);
  const int lane = threadIdx.x % GROUP, columns = (int)s.columns;
  keep_state(s);
  for (int64_t row = blockIdx.x * (int64_t)PER + threadIdx.x / GROUP; row < s.rows; row += (int64_t)gridDim.x * PER) {
    W v[PACKS][V], sum = 0, squares = 0;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
      const int at = (p * GROUP + lane) * V;
      if (at < columns) {
        take<T, V>(s, row * columns + at, v[p]);
#pragma unroll
        for (int i = 0; i < V; i++) sum += v[p][i];
      }
    }
    const W mean = unic_group_sum<GROUP>(sum, room) / (W)columns;
#pragma unroll
    for (int p = 0; p < PACKS; p++)
      if ((p * GROUP + lane) * V < columns) {
#pragma unroll
        for (int i = 0; i < V; i++) squares += (v[p][i] - mean) * (v[p][i] - mean);
      }
    const W rstd = W(1) / sqrt(unic_group_sum<GROUP>(squares, room) / (W)columns + s.eps);
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
      const int at = (p * GROUP + lane) * V;
      if (at < columns) put_y<T, V>(s, row * columns + at, at, v[p], mean, rstd);
    }
    if (s.mean && lane == 0) {
      s.mean[row] = mean;
      s.rstd[row] = rstd;
    }
  }
}

/* The same for rows of any length, element by element. A thread reads of h what it wrote itself. */
template <class T, int GROUP> __global__ void __launch_bounds__(threads_of<GROUP>) norm_forward_any(const norm<T> s) {
  using W = unic_wide<T>;
  constexpr int PER = threads_of<GROUP> / GROUP;
  UNIC_SHARED(W, room, [32]);
  const int lane = threadIdx.x % GROUP;
  keep_state(s);
  for (int64_t row = blockIdx.x * (int64_t)PER + threadIdx.x / GROUP; row < s.rows; row += (int64_t)gridDim.x * PER) {
    const int64_t from = row * s.columns;
    const T *stored = s.residual ? s.h : s.x;
    W sum = 0, squares = 0, v[1];
    /* All threads go round the loop equally often: a block's barriers want them together. */
#pragma unroll 1
    for (int64_t first = 0; first < s.columns; first += GROUP) {
      if (first + lane >= s.columns) continue;
      take<T, 1>(s, from + first + lane, v);
      sum += v[0];
    }
    const W mean = unic_group_sum<GROUP>(sum, room) / (W)s.columns;
    for (int64_t i = lane; i < s.columns; i += GROUP) {
      const W d = unic_widen(stored[from + i]) - mean;
      squares += d * d;
    }
    const W rstd = W(1) / sqrt(unic_group_sum<GROUP>(squares, room) / (W)s.columns + s.eps);
    for (int64_t i = lane; i < s.columns; i += GROUP) {
      v[0] = unic_widen(stored[from + i]);
      put_y<T, 1>(s, from + i, i, v, mean, rstd);
    }
    if (s.mean && lane == 0) {
      s.mean[row] = mean;
      s.rstd[row] = rstd;
    }
  }
}

/* y again from the saved mean and rstd: V elements of a row a thread. */
template <class T, int V> __global__ void norm_remake(const norm<T> s) {
  using W = unic_wide<T>;
  const int64_t per = s.columns / V, n = s.rows * per;
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
    const int64_t row = i / per, column = (i - row * per) * V;
    W v[V];
    unic_load_wide<T, V>(s.x + i * V, v);
    put_y<T, V>(s, i * V, column, v, s.mean[row], s.rstd[row]);
  }
}

/* The gradient of V elements of h into dresidual and, through the mask, into dx. */
template <class T, int V> __device__ __forceinline__ void give(const norm<T> &s, int64_t at, unic_wide<T> (&d)[V]) {
  using W = unic_wide<T>;
  if (s.dresidual) unic_store_wide<T, V>(s.dresidual + at, d, s.add_residual);
  if (!s.dx) return;
  if (s.threshold) {
    W factor[V];
    factors<T, V>(s, at, factor);
#pragma unroll
    for (int i = 0; i < V; i++) d[i] *= factor[i];
  }
  unic_store_wide<T, V>(s.dx + at, d, s.add_x);
}

/* d of V elements: rstd (dy w - a - (x - mean) b), and dh. */
template <class T, int V> __device__ __forceinline__ void complete(const norm<T> &s, int64_t at, const unic_wide<T> (&x)[V], const unic_wide<T> (&dy)[V], const unic_wide<T> (&w)[V],
                                                                   unic_wide<T> mean, unic_wide<T> rstd, unic_wide<T> a, unic_wide<T> b) {
  using W = unic_wide<T>;
  W d[V], dh[V];
#pragma unroll
  for (int i = 0; i < V; i++) d[i] = rstd * (dy[i] * w[i] - a - (x[i] - mean) * b);
  if (s.dh) {
    unic_load_wide<T, V>(s.dh + at, dh);
#pragma unroll
    for (int i = 0; i < V; i++) d[i] += dh[i];
  }
  give<T, V>(s, at, d);
}

template <class T, int V> __device__ __forceinline__ void weights(const norm<T> &s, int64_t column, unic_wide<T> (&w)[V]) {
  using W = unic_wide<T>;
  if (s.weight) {
    unic_load_wide<W, V>(s.weight + column, w);
  } else {
#pragma unroll
    for (int i = 0; i < V; i++) w[i] = 1;
  }
}

/* A block takes the rows of its chunk, `PER` at a time; s.x is what was normalised. */
template <class T, int VALUES, int GROUP> __global__ void __launch_bounds__(threads_of<GROUP>) norm_backward(const norm<T> s) {
  using W = unic_wide<T>;
  constexpr int V = unic_vector<T>, PACKS = VALUES / V, PER = threads_of<GROUP> / GROUP;
  UNIC_SHARED(W, room, [32]);
  using piece = unic_pack<W, V>;
  constexpr int ROOM = PER > 1 ? 32 * PACKS : 1;
  UNIC_SHARED(piece, joined, [2 * ROOM]);
  const int lane = threadIdx.x % GROUP, columns = (int)s.columns;
  const int64_t begin = blockIdx.x * s.chunk, end = begin + s.chunk < s.rows ? begin + s.chunk : s.rows;
  W sum_w[PACKS][V], sum_b[PACKS][V];
#pragma unroll
  for (int p = 0; p < PACKS; p++)
#pragma unroll
    for (int i = 0; i < V; i++) sum_w[p][i] = sum_b[p][i] = 0;
  for (int64_t row = begin + threadIdx.x / GROUP; row < end; row += PER) {
    unic_pack<T, V> x[PACKS], dy[PACKS];
    const W mean = s.mean[row], rstd = s.rstd[row];
    W sum_g = 0, sum_gx = 0;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
      const int at = (p * GROUP + lane) * V;
      if (at < columns) {
        x[p] = *reinterpret_cast<const unic_pack<T, V> *>(s.x + row * columns + at);
        dy[p] = *reinterpret_cast<const unic_pack<T, V> *>(s.dy + row * columns + at);
      }
    }
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
      const int at = (p * GROUP + lane) * V;
      if (at < columns) {
        W w[V];
        weights<T, V>(s, at, w);
#pragma unroll
        for (int i = 0; i < V; i++) {
          const W d = unic_widen(dy[p].at[i]), centered = unic_widen(x[p].at[i]) - mean;
          sum_g += d * w[i];
          sum_gx += d * w[i] * centered;
          sum_w[p][i] += d * (centered * rstd);
          sum_b[p][i] += d;
        }
      }
    }
    if (!s.dx && !s.dresidual) continue;
    /* rstd (g - a - xhat b') with xhat = (x - mean) rstd. */
    const W a = unic_group_sum<GROUP>(sum_g, room) / (W)columns, b = unic_group_sum<GROUP>(sum_gx, room) * rstd * rstd / (W)columns;
#pragma unroll
    for (int p = 0; p < PACKS; p++) {
      const int at = (p * GROUP + lane) * V;
      if (at < columns) {
        W xs[V], ds[V], w[V];
        weights<T, V>(s, at, w);
#pragma unroll
        for (int i = 0; i < V; i++) {
          xs[i] = unic_widen(x[p].at[i]);
          ds[i] = unic_widen(dy[p].at[i]);
        }
        complete<T, V>(s, row * columns + at, xs, ds, w, mean, rstd, a, b);
      }
    }
  }
  if (!s.partial) return;
  /* The warps' sums, warp by warp; the last one has them all. */
  W *to = s.partial + blockIdx.x * 2 * s.columns;
  for (int turn = 0; turn < PER; turn++) {
    if (threadIdx.x / GROUP == (unsigned)turn) {
#pragma unroll
      for (int p = 0; p < PACKS; p++) {
        const int at = (p * GROUP + lane) * V;
        if (at >= columns) continue;
        const int place = PER > 1 ? p * GROUP + lane : 0;
        if (PER > 1 && turn > 0) {
#pragma unroll
          for (int i = 0; i < V; i++) {
            sum_w[p][i] += joined[place].at[i];
            sum_b[p][i] += joined[ROOM + place].at[i];
          }
        }
        unic_store_wide<W, V>(turn + 1 < PER ? joined[place].at : to + at, sum_w[p]);
        unic_store_wide<W, V>(turn + 1 < PER ? joined[ROOM + place].at : to + s.columns + at, sum_b[p]);
      }
    }
    if (PER > 1) __syncthreads();
  }
}

/* dx (and dresidual) of rows of any length, element by element. */
template <class T, int GROUP> __global__ void __launch_bounds__(threads_of<GROUP>) norm_backward_any(const norm<T> s) {
  using W = unic_wide<T>;
  constexpr int PER = threads_of<GROUP> / GROUP;
  UNIC_SHARED(W, room, [32]);
  const int lane = threadIdx.x % GROUP;
  for (int64_t row = blockIdx.x * (int64_t)PER + threadIdx.x / GROUP; row < s.rows; row += (int64_t)gridDim.x * PER) {
    const int64_t from = row * s.columns;
    const W mean = s.mean[row], rstd = s.rstd[row];
    W sum_g = 0, sum_gx = 0, x[1], dy[1], w[1];
    for (int64_t i = lane; i < s.columns; i += GROUP) {
      weights<T, 1>(s, i, w);
      const W g = unic_widen(s.dy[from + i]) * w[0];
      sum_g += g;
      sum_gx += g * (unic_widen(s.x[from + i]) - mean);
    }
    const W a = unic_group_sum<GROUP>(sum_g, room) / (W)s.columns, b = unic_group_sum<GROUP>(sum_gx, room) * rstd * rstd / (W)s.columns;
    for (int64_t i = lane; i < s.columns; i += GROUP) {
      weights<T, 1>(s, i, w);
      x[0] = unic_widen(s.x[from + i]);
      dy[0] = unic_widen(s.dy[from + i]);
      complete<T, 1>(s, from + i, x, dy, w, mean, rstd, a, b);
    }
  }
}

/* The sums over a chunk of rows for dw and db, a column a thread. */
template <class T> __global__ void norm_parameters_any(const norm<T> s) {
  using W = unic_wide<T>;
  const int64_t c = blockIdx.x * (int64_t)blockDim.x + threadIdx.x, begin = blockIdx.y * s.chunk, end = begin + s.chunk < s.rows ? begin + s.chunk : s.rows;
  if (c >= s.columns) return;
  W sum_w = 0, sum_b = 0;
  for (int64_t row = begin; row < end; row++) {
    const W d = unic_widen(s.dy[row * s.columns + c]);
    sum_w += d * ((unic_widen(s.x[row * s.columns + c]) - s.mean[row]) * s.rstd[row]);
    sum_b += d;
  }
  s.partial[blockIdx.y * 2 * s.columns + c] = sum_w;
  s.partial[(blockIdx.y * 2 + 1) * s.columns + c] = sum_b;
}

/* Only dh came back: it passes straight to residual and x. */
template <class T, int V> __global__ void norm_pass(const norm<T> s) {
  using W = unic_wide<T>;
  const int64_t n = s.rows * s.columns / V;
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) {
    W d[V];
    unic_load_wide<T, V>(s.dh + i * V, d);
    give<T, V>(s, i * V, d);
  }
}

/* The chunks' sums into dw (blockIdx.y = 0) and db (1): 32 columns a block, eight threads a column. */
template <class W> __global__ void __launch_bounds__(256) norm_parameters(const W *partial, int64_t chunks, int64_t columns, W *dweight, bool add_weight, W *dbias, bool add_bias) {
  UNIC_SHARED(double, part, [8][33]);
  W *to = blockIdx.y ? dbias : dweight;
  if (!to) return;
  const int lane = threadIdx.x & 31, turn = threadIdx.x >> 5;
  const int64_t c = blockIdx.x * 32ll + lane;
  double sum = 0;
  if (c < columns)
    for (int64_t k = turn; k < chunks; k += 8) sum += partial[(2 * k + blockIdx.y) * columns + c];
  part[turn][lane] = sum;
  __syncthreads();
  if (turn != 0 || c >= columns) return;
  for (int i = 1; i < 8; i++) sum += part[i][lane];
  to[c] = (W)(sum + ((blockIdx.y ? add_bias : add_weight) ? (double)to[c] : 0.0));
}

/* Keep the state for backward and leave the generator behind the numbers that were used. */
__global__ void leave_generator(int64_t *rng, int64_t *state, int64_t blocks) {
  if (state) {
    state[0] = rng[0];
    state[1] = rng[1];
  }
  rng[1] += blocks;
}

/* ---------------------------------------------------------------- host */

int64_t row_count(const unic_view *x) {
  int64_t rows = 1;
  for (int d = 0; d + 1 < x->ndim; d++) rows *= x->shape[d];
  return rows;
}

/* Rows of a chunk of the backward: at most 512 chunks, so that their sums stay small beside the rows, and at least 8 rows. */
int64_t chunk_rows(int64_t rows) {
  int64_t chunk = (rows + 511) / 512;
  return chunk < 8 ? 8 : chunk;
}

template <int N> using number = std::integral_constant<int, N>;

/* Call f(values a thread holds, threads of a row) where the row fits into registers in pieces of 16 bytes; false otherwise. */
template <class T, class F> bool in_registers(int64_t columns, bool aligned, F f) {
  if constexpr (sizeof(T) < sizeof(double)) {
    if (!aligned || columns % unic_vector<T> || columns > 8192) return false;
    if (columns <= 256) f(number<8>(), number<32>());
    else if (columns <= 512) f(number<16>(), number<32>());
    else if (columns <= 768) f(number<24>(), number<32>());
    else if (columns <= 1024) f(number<32>(), number<32>());
    else if (columns <= 2048) f(number<8>(), number<BLOCK>());
    else if (columns <= 4096) f(number<16>(), number<BLOCK>());
    else f(number<32>(), number<BLOCK>());
    return true;
  }
  return false;
}

template <class T> norm<T> norm_of(const unic_view *x) { return {.rows = row_count(x), .columns = x->shape[x->ndim - 1]}; }

template <class T> bool aligned(const norm<T> &s) { return unic_aligned16(s.x, s.residual, s.y, s.h, s.weight, s.bias, s.dy, s.dh, s.dx, s.dresidual); }

template <class T> void run_forward(const unic_kernel *k, const norm<T> &s) {
  if (s.rows == 0) return;
  cudaStream_t stream = unic_cuda_stream(k);
  bool done = in_registers<T>(s.columns, aligned(s), [&](auto values, auto group) {
    constexpr int G = decltype(group)::value, threads = threads_of<G>;
    UNIC_LAUNCH((norm_forward<T, decltype(values)::value, G>), unic_blocks(k, s.rows * G, threads), threads, 0, stream, s);
  });
  if (done) return;
  if (s.columns <= 1024) UNIC_LAUNCH((norm_forward_any<T, 32>), unic_blocks(k, s.rows * 32, threads_of<32>), threads_of<32>, 0, stream, s);
  else UNIC_LAUNCH((norm_forward_any<T, BLOCK>), unic_blocks(k, s.rows * BLOCK, BLOCK), BLOCK, 0, stream, s);
}

unic_status forward(const unic_kernel *k) {
  unic_floats(k->in[X].dtype, [&](auto t) {
    using T = decltype(t);
    using W = unic_wide<T>;
    norm<T> s = norm_of<T>(&k->in[X]);
    s.x = (const T *)k->in[X].data;
    s.weight = (const W *)k->in[WEIGHT].data;
    s.bias = (const W *)k->in[BIAS].data;
    s.y = (T *)k->out[Y].data;
    s.mean = (W *)k->out[MEAN].data;
    s.rstd = (W *)k->out[RSTD].data;
    s.eps = (W)k->arg[EPS].number;
    run_forward<T>(k, s);
  });
  return UNIC_OK;
}

/* Of both ops: the tables differ in where things lie. */
unic_status remake_from(const unic_kernel *k, const unic_view *x, int weight, int bias, int mean) {
  unic_floats(x->dtype, [&](auto t) {
    using T = decltype(t);
    using W = unic_wide<T>;
    norm<T> s = norm_of<T>(x);
    s.x = (const T *)x->data;
    s.weight = (const W *)k->in[weight].data;
    s.bias = (const W *)k->in[bias].data;
    s.y = (T *)k->out[Y].data;
    s.mean = (W *)k->out[mean].data;
    s.rstd = (W *)k->out[mean + 1].data;
    if (x->numel == 0) return;
    constexpr int V = unic_vector<T>;
    if (s.columns % V == 0 && aligned(s)) UNIC_LAUNCH((norm_remake<T, V>), unic_blocks(k, x->numel / V, 256), 256, 0, unic_cuda_stream(k), s);
    else UNIC_LAUNCH((norm_remake<T, 1>), unic_blocks(k, x->numel, 256), 256, 0, unic_cuda_stream(k), s);
  });
  return UNIC_OK;
}
unic_status remake(const unic_kernel *k) { return remake_from(k, &k->in[X], WEIGHT, BIAS, MEAN); }
unic_status add_remake(const unic_kernel *k) { return remake_from(k, &k->out[ADD_H], ADD_WEIGHT, ADD_BIAS, ADD_MEAN); }

/* p = 1 drops everything, whose scale would be infinite. */
template <class T> void set_dropout(norm<T> *s, double p, const void *state) {
  s->threshold = unic_random_threshold(p);
  s->scale = p < 1 ? (unic_wide<T>)(1 / (1 - p)) : 0;
  s->rng = (const int64_t *)state;
}

unic_status add_forward(const unic_kernel *k) {
  unic_floats(k->in[ADD_X].dtype, [&](auto t) {
    using T = decltype(t);
    using W = unic_wide<T>;
    norm<T> s = norm_of<T>(&k->in[ADD_X]);
    s.x = (const T *)k->in[ADD_X].data;
    s.residual = (const T *)k->in[ADD_RESIDUAL].data;
    s.weight = (const W *)k->in[ADD_WEIGHT].data;
    s.bias = (const W *)k->in[ADD_BIAS].data;
    s.y = (T *)k->out[ADD_Y].data;
    s.h = (T *)k->out[ADD_H].data;
    s.mean = (W *)k->out[ADD_MEAN].data;
    s.rstd = (W *)k->out[ADD_RSTD].data;
    s.eps = (W)k->arg[ADD_EPS].number;
    set_dropout<T>(&s, k->arg[ADD_DROPOUT].number, k->in[ADD_RNG].data);
    s.state = s.rng ? (int64_t *)k->out[ADD_STATE].data : nullptr;
    run_forward<T>(k, s);
    if (k->arg[ADD_DROPOUT].number > 0) UNIC_LAUNCH(leave_generator, 1, 1, 0, unic_cuda_stream(k), (int64_t *)k->in[ADD_RNG].data, s.state, unic_random_blocks(k->in[ADD_X].numel));
  });
  return UNIC_OK;
}

unic_status plan_backward(const unic_kernel *k, unic_plan *p, int x, int weight, int bias) {
  if (!k->backward || !(k->din[weight].present || k->din[bias].present)) return UNIC_OK;
  int64_t rows = row_count(&k->in[x]), chunk = chunk_rows(rows), columns = k->in[x].shape[k->in[x].ndim - 1];
  p->scratch = (rows + chunk - 1) / chunk * 2 * columns * (int64_t)(k->type == UNIC_F64 ? sizeof(double) : sizeof(float));
  return UNIC_OK;
}
unic_status plan(const unic_kernel *k, unic_plan *p) { return plan_backward(k, p, X, WEIGHT, BIAS); }
unic_status add_plan(const unic_kernel *k, unic_plan *p) { return plan_backward(k, p, ADD_X, ADD_WEIGHT, ADD_BIAS); }

template <class T> void run_backward(const unic_kernel *k, norm<T> s, int weight, int bias) {
  using W = unic_wide<T>;
  cudaStream_t stream = unic_cuda_stream(k);
  W *dweight = (W *)k->din[weight].data, *dbias = (W *)k->din[bias].data;
  const bool wanted = s.dx || s.dresidual, parameters = dweight || dbias;
  if (s.columns == 0) return;
  s.chunk = chunk_rows(s.rows);
  int64_t chunks = s.dy ? (s.rows + s.chunk - 1) / s.chunk : 0;
  s.partial = s.dy && parameters ? (W *)k->scratch : nullptr;
  if (s.rows > 0 && s.dy && (wanted || parameters)) {
    bool done = in_registers<T>(s.columns, aligned(s), [&](auto values, auto group) {
      constexpr int G = decltype(group)::value;
      UNIC_LAUNCH((norm_backward<T, decltype(values)::value, G>), (unsigned)chunks, threads_of<G>, 0, stream, s);
    });
    if (!done) {
      if (wanted && s.columns <= 1024) UNIC_LAUNCH((norm_backward_any<T, 32>), unic_blocks(k, s.rows * 32, threads_of<32>), threads_of<32>, 0, stream, s);
      else if (wanted) UNIC_LAUNCH((norm_backward_any<T, BLOCK>), unic_blocks(k, s.rows * BLOCK, BLOCK), BLOCK, 0, stream, s);
      if (parameters) UNIC_LAUNCH((norm_parameters_any<T>), dim3((unsigned)((s.columns + 127) / 128), (unsigned)chunks), 128, 0, stream, s);
    }
  } else if (s.rows > 0 && s.dh && wanted) {
    constexpr int V = unic_vector<T>;
    const int64_t n = s.rows * s.columns;
    if (n % V == 0 && aligned(s)) UNIC_LAUNCH((norm_pass<T, V>), unic_blocks(k, n / V, 256), 256, 0, stream, s);
    else UNIC_LAUNCH((norm_pass<T, 1>), unic_blocks(k, n, 256), 256, 0, stream, s);
  }
  if (parameters)
    UNIC_LAUNCH((norm_parameters<W>), dim3((unsigned)((s.columns + 31) / 32), 2), 256, 0, stream, (const W *)k->scratch, chunks, s.columns, dweight, (bool)k->accumulate[weight], dbias,
                (bool)k->accumulate[bias]);
}

unic_status backward(const unic_kernel *k) {
  unic_floats(k->in[X].dtype, [&](auto t) {
    using T = decltype(t);
    using W = unic_wide<T>;
    norm<T> s = norm_of<T>(&k->in[X]);
    s.x = (const T *)k->in[X].data;
    s.weight = (const W *)k->in[WEIGHT].data;
    s.mean = (W *)k->out[MEAN].data;
    s.rstd = (W *)k->out[RSTD].data;
    s.dy = (const T *)k->dout[Y].data;
    s.dx = (T *)k->din[X].data;
    s.add_x = k->accumulate[X];
    run_backward<T>(k, s, WEIGHT, BIAS);
  });
  return UNIC_OK;
}

unic_status add_backward(const unic_kernel *k) {
  unic_floats(k->out[ADD_H].dtype, [&](auto t) {
    using T = decltype(t);
    using W = unic_wide<T>;
    norm<T> s = norm_of<T>(&k->out[ADD_H]);
    s.x = (const T *)k->out[ADD_H].data;
    s.weight = (const W *)k->in[ADD_WEIGHT].data;
    s.mean = (W *)k->out[ADD_MEAN].data;
    s.rstd = (W *)k->out[ADD_RSTD].data;
    s.dy = (const T *)k->dout[ADD_Y].data;
    s.dh = (const T *)k->dout[ADD_H].data;
    s.dx = (T *)k->din[ADD_X].data;
    s.add_x = k->accumulate[ADD_X];
    s.dresidual = (T *)k->din[ADD_RESIDUAL].data;
    s.add_residual = k->accumulate[ADD_RESIDUAL];
    set_dropout<T>(&s, k->arg[ADD_DROPOUT].number, k->out[ADD_STATE].data);
    run_backward<T>(k, s, ADD_WEIGHT, ADD_BIAS);
  });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(layer_norm, {"layer_norm", {.forward = forward, .backward = backward, .remake = remake, .plan = plan}},
              {"add_layer_norm", {.forward = add_forward, .backward = add_backward, .remake = add_remake, .plan = add_plan}});
