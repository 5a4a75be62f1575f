/* info_nce on the GPU (kernels/info_nce.c): rows of length one in f32 (f64 for f64), products of them panel by panel (panels.cuh), and around those one
 * read of the panel for the rows' sums of exponentials, one for the columns', and in backward one read and one write that make scale ds of it.
 * Column sums run along from panel to panel; all sums are in a fixed order. */
#include "panels.cuh"

namespace {

enum { A, B, SCALE, SYMMETRIC };
enum { LOSS, LSE };
enum { PANEL, DU, DV };
enum { BLOCK = 256, WARPS = 4 };

constexpr double EPS = 1e-12;

/* A warp per row: u = x / max(|x|, eps). The sign of `inverse` tells whether the norm is its own (and so has a gradient). */
template <class T> __global__ void __launch_bounds__(32 * WARPS) make_units(const T *x, int64_t rows, int64_t depth, unic_wide<T> *unit, unic_wide<T> *inverse) {
  using W = unic_wide<T>;
  const int lane = threadIdx.x & 31;
  for (int64_t row = blockIdx.x * (int64_t)WARPS + (threadIdx.x >> 5); row < rows; row += (int64_t)gridDim.x * WARPS) {
    double sum = 0;
    for (int64_t i = lane; i < depth; i += 32) {
      const double v = (double)unic_widen(x[row * depth + i]);
      sum += v * v;
    }
    const double norm = sqrt(unic_warp_sum(sum));
    const bool live = norm > EPS || norm != norm;
    const double f = 1 / (live ? norm : EPS);
    if (lane == 0) inverse[row] = live ? (W)f : -(W)f;
    for (int64_t i = lane; i < depth; i += 32) unit[row * depth + i] = (W)((double)unic_widen(x[row * depth + i]) * f);
  }
}

/* dx = (du - u (u . du)) / |x|, or du / eps. */
template <class T>
__global__ void __launch_bounds__(32 * WARPS) units_backward(const unic_wide<T> *unit, const unic_wide<T> *dunit, const unic_wide<T> *inverse, int64_t rows, int64_t depth, T *dx, bool add) {
  using W = unic_wide<T>;
  const int lane = threadIdx.x & 31;
  for (int64_t row = blockIdx.x * (int64_t)WARPS + (threadIdx.x >> 5); row < rows; row += (int64_t)gridDim.x * WARPS) {
    const W *u = unit + row * depth, *d = dunit + row * depth, f = inverse[row];
    double dot = 0;
    if (!(f < 0))
      for (int64_t i = lane; i < depth; i += 32) dot += (double)u[i] * (double)d[i];
    const W along = (W)unic_warp_sum(dot), by = fabs(f);
    for (int64_t i = lane; i < depth; i += 32) {
      W out[1] = {(d[i] - u[i] * along) * by};
      unic_store_wide<T, 1>(dx + row * depth + i, out, add);
    }
  }
}

/* Onto a running maximum and the sum of exponentials below it: another pair of those. */
template <class W> __device__ __forceinline__ void join(W &most, W &sum, W other, W other_sum) {
  const W now = unic_larger(other, most);
  sum = (most == W(-INFINITY) ? W(0) : sum * exp(most - now)) + (other == W(-INFINITY) ? W(0) : other_sum * exp(other - now));
  most = now;
}

/* A block per row of a panel of cosines: the row's part of the loss, its own cosine times scale, its log-sum-exp. */
template <class W>
__global__ void __launch_bounds__(BLOCK) panel_rows(const W *c, const W *scale_at, int64_t pairs, int64_t first, W *diagonal, double *part, W *lse) {
  UNIC_SHARED(W, room, [32]);
  const W *row = c + blockIdx.x * pairs, scale = *scale_at;
  W most = -INFINITY, sum = 0;
  for (int64_t j = threadIdx.x; j < pairs; j += BLOCK) {
    const W v = scale * row[j];
    if (!(v <= most)) {
      sum *= exp(most - v);
      most = v;
    }
    sum += exp(v - most);
  }
  const W all = unic_block_max(most, room);
  sum = unic_block_sum(most == W(-INFINITY) ? W(0) : sum * exp(most - all), room);
  if (threadIdx.x == 0) {
    const int64_t i = first + blockIdx.x;
    const W own = scale * row[i], l = log(sum);
    diagonal[i] = own;
    part[i] = (double)(all - own) + (double)l;
    if (lse) lse[i] = all + l;
  }
}

/* 32 columns a block, eight threads a column: their maximum and sum so far. */
template <class W> __global__ void __launch_bounds__(BLOCK) panel_columns(const W *c, const W *scale_at, int64_t pairs, int64_t rows, bool fresh, W *most_of, W *sum_of) {
  UNIC_SHARED(W, mosts, [8][33]);
  UNIC_SHARED(W, sums, [8][33]);
  const int lane = threadIdx.x & 31, turn = threadIdx.x >> 5;
  const int64_t j = blockIdx.x * 32ll + lane;
  const W scale = *scale_at;
  W most = -INFINITY, sum = 0;
  for (int64_t r = turn; j < pairs && r < rows; r += 8) {
    const W v = scale * c[r * pairs + j];
    if (!(v <= most)) {
      sum *= exp(most - v);
      most = v;
    }
    sum += exp(v - most);
  }
  mosts[turn][lane] = most;
  sums[turn][lane] = sum;
  __syncthreads();
  if (turn != 0 || j >= pairs) return;
  for (int i = 1; i < 8; i++) join(most, sum, mosts[i][lane], sums[i][lane]);
  if (!fresh) join(most, sum, most_of[j], sum_of[j]);
  most_of[j] = most;
  sum_of[j] = sum;
}

/* The columns' parts are added to the rows', and their log-sum-exps kept. */
template <class W> __global__ void columns_end(int64_t pairs, const W *most, const W *sum, const W *diagonal, double *part, W *lse) {
  const int64_t j = blockIdx.x * (int64_t)blockDim.x + threadIdx.x;
  if (j >= pairs) return;
  const double l = log((double)sum[j]);
  part[j] += (double)(most[j] - diagonal[j]) + l;
  if (lse) lse[pairs + j] = (W)((double)most[j] + l);
}

/* A block per row: c becomes scale ds, and the row's sum of ds c is taken. */
/* The 1: rather fewer threads on a processor than the few bytes that ptxas would spill for a full one (sm_100, sm_120, f64). */
template <class W>
__global__ void __launch_bounds__(BLOCK, 1) panel_rows_backward(W *c, const W *scale_at, const W *dloss, const W *lse, int64_t pairs, int64_t first, bool symmetric, double *part) {
  UNIC_SHARED(double, room, [32]);
  W *row = c + blockIdx.x * pairs;
  const int64_t own = first + blockIdx.x;
  const W scale = *scale_at, factor = (W)((double)*dloss / (double)pairs * (symmetric ? 0.5 : 1)), row_lse = lse[own];
  double sum = 0;
#pragma unroll 1
  for (int64_t j = threadIdx.x; j < pairs; j += BLOCK) {
    const W v = row[j];
    W d = factor * exp(scale * v - row_lse);
    if (symmetric) d += factor * exp(scale * v - lse[pairs + j]);
    if (j == own) d -= symmetric ? 2 * factor : factor;
    sum += (double)(d * v);
    row[j] = scale * d;
  }
  sum = unic_block_sum(sum, room);
  if (threadIdx.x == 0) part[own] = sum;
}

/* ---------------------------------------------------------------- host */

bool product(const unic_kernel *k, int which, int64_t rows, bool more, unic_cuda_product *p) {
  const int64_t pairs = k->in[A].shape[0], depth = k->in[A].shape[1];
  const int dtype = k->type == UNIC_F64 ? UNIC_F64 : UNIC_F32;
  if (depth == 0) return false;
  if (which == PANEL) {
    *p = unic_cuda_product_of('N', 'T', rows, pairs, depth, dtype, dtype);
    return true;
  }
  if (!k->backward || !k->din[which == DU ? A : B].present) return false;
  *p = which == DU ? unic_cuda_product_of('N', 'N', rows, depth, pairs, dtype, dtype) : unic_cuda_product_of('T', 'N', pairs, depth, rows, dtype, dtype);
  if (which == DV && more) p->beta = 1;
  return true;
}

/* Scratch, in bytes. */
struct room { int64_t unit[2], dunit[2], inverse[2], panel, diagonal, most, sum, part, products; };

room rooms(const unic_kernel *k, const unic_panels *s, int64_t *bytes) {
  const int64_t size = k->type == UNIC_F64 ? 8 : 4, pairs = k->in[A].shape[0], numel = k->in[A].numel;
  int64_t at = 0;
  auto take = [&](int64_t elements, int64_t each) {
    int64_t here = at;
    at += unic_panel_bytes(elements, each);
    return here;
  };
  room r;
  for (int i = 0; i < 2; i++) {
    r.unit[i] = take(numel, size);
    r.dunit[i] = take(k->backward ? numel : 0, size);
    r.inverse[i] = take(pairs, size);
  }
  r.panel = take(s->rows * pairs, size);
  r.diagonal = take(pairs, size);
  r.most = take(pairs, size);
  r.sum = take(pairs, size);
  r.part = take(pairs, 8);
  r.products = take(s->scratch, 1);
  *bytes = at;
  return r;
}

unic_status plan(const unic_kernel *k, unic_plan *p) {
  unic_panels *s = nullptr;   /* nvcc's host compiler cannot see that it is set */
  UNIC_TRY(unic_panels_plan(k, k->in[A].shape[0], product, p, &s));
  (void)rooms(k, s, &p->scratch);
  return UNIC_OK;
}

template <class T> struct parts {
  using W = unic_wide<T>;
  const unic_kernel *k;
  const unic_panels *s;
  W *unit[2], *dunit[2], *inverse[2], *panel, *diagonal, *most, *sum;
  double *part;
  void *products;
  int64_t pairs, depth;
  cudaStream_t stream;

  explicit parts(const unic_kernel *kernel) : k(kernel), s((const unic_panels *)kernel->plan), pairs(kernel->in[A].shape[0]), depth(kernel->in[A].shape[1]), stream(unic_cuda_stream(kernel)) {
    int64_t bytes;
    const room r = rooms(k, s, &bytes);
    char *base = (char *)k->scratch;
    for (int i = 0; i < 2; i++) {
      unit[i] = (W *)(base + r.unit[i]);
      dunit[i] = (W *)(base + r.dunit[i]);
      inverse[i] = (W *)(base + r.inverse[i]);
    }
    panel = (W *)(base + r.panel);
    diagonal = (W *)(base + r.diagonal);
    most = (W *)(base + r.most);
    sum = (W *)(base + r.sum);
    part = (double *)(base + r.part);
    products = base + r.products;
  }
  unsigned warps() const { return unic_blocks(k, pairs * 32, 32 * WARPS); }
  void units() const {
    for (int i = 0; i < 2; i++) UNIC_LAUNCH((make_units<T>), warps(), 32 * WARPS, 0, stream, (const T *)k->in[i].data, pairs, depth, unit[i], inverse[i]);
  }
  /* Rows `first` and on of the cosines. */
  unic_status cosines(int64_t first, int64_t rows) const {
    if (s->made[PANEL]) return unic_panels_run(k, s, PANEL, first, unit[0] + first * depth, unit[1], panel, products);
    return unic_cuda_check(cudaMemsetAsync(panel, 0, (size_t)(rows * pairs) * sizeof(W), stream), "cudaMemset");   /* of no features */
  }
};

template <class T> unic_status run_forward(const unic_kernel *k) {
  using W = unic_wide<T>;
  const parts<T> p(k);
  const bool symmetric = k->arg[SYMMETRIC].integer;
  const int64_t pairs = p.pairs;
  const W *scale = (const W *)k->in[SCALE].data;
  W *loss = (W *)k->out[LOSS].data, *lse = k->grad ? (W *)k->out[LSE].data : nullptr;
  if (pairs > 0) p.units();
  for (int64_t first = 0; first < pairs; first += p.s->rows) {
    const int64_t rows = pairs - first < p.s->rows ? pairs - first : p.s->rows;
    UNIC_TRY(p.cosines(first, rows));
    UNIC_LAUNCH((panel_rows<W>), (unsigned)rows, BLOCK, 0, p.stream, p.panel, scale, pairs, first, p.diagonal, p.part, lse);
    if (symmetric) UNIC_LAUNCH((panel_columns<W>), (unsigned)((pairs + 31) / 32), BLOCK, 0, p.stream, p.panel, scale, pairs, rows, first == 0, p.most, p.sum);
  }
  if (symmetric && pairs > 0) UNIC_LAUNCH((columns_end<W>), (unsigned)((pairs + 127) / 128), 128, 0, p.stream, pairs, p.most, p.sum, p.diagonal, p.part, lse);
  UNIC_LAUNCH((unic_panels_total<W>), 1, 1024, 0, p.stream, p.part, pairs, pairs > 0 ? (symmetric ? 0.5 : 1) / (double)pairs : 0.0, loss, false);
  return UNIC_OK;
}

template <class T> unic_status run_backward(const unic_kernel *k) {
  using W = unic_wide<T>;
  const parts<T> p(k);
  const bool symmetric = k->arg[SYMMETRIC].integer;
  const int64_t pairs = p.pairs, depth = p.depth;
  const W *scale = (const W *)k->in[SCALE].data, *lse = (const W *)k->out[LSE].data, *dloss = (const W *)k->dout[LOSS].data;
  if (pairs > 0) p.units();
  if (p.s->made[DV] && pairs > p.s->rows) UNIC_TRY(unic_cuda_check(cudaMemsetAsync(p.dunit[1], 0, (size_t)(pairs * depth) * sizeof(W), p.stream), "cudaMemset"));
  for (int64_t first = 0; first < pairs; first += p.s->rows) {
    const int64_t rows = pairs - first < p.s->rows ? pairs - first : p.s->rows;
    UNIC_TRY(p.cosines(first, rows));
    UNIC_LAUNCH((panel_rows_backward<W>), (unsigned)rows, BLOCK, 0, p.stream, p.panel, scale, dloss, lse, pairs, first, symmetric, p.part);
    if (p.s->made[DU]) UNIC_TRY(unic_panels_run(k, p.s, DU, first, p.panel, p.unit[1], p.dunit[0] + first * depth, p.products));
    if (p.s->made[DV]) UNIC_TRY(unic_panels_run(k, p.s, DV, first, p.panel, p.unit[0] + first * depth, p.dunit[1], p.products));
  }
  for (int i = 0; i < 2; i++)
    if (p.s->made[i == 0 ? DU : DV] && pairs > 0)
      UNIC_LAUNCH((units_backward<T>), p.warps(), 32 * WARPS, 0, p.stream, p.unit[i], p.dunit[i], p.inverse[i], pairs, depth, (T *)k->din[i].data, (bool)k->accumulate[i]);
  if (k->din[SCALE].present) UNIC_LAUNCH((unic_panels_total<W>), 1, 1024, 0, p.stream, p.part, pairs, 1.0, (W *)k->din[SCALE].data, (bool)k->accumulate[SCALE]);
  return UNIC_OK;
}

unic_status forward(const unic_kernel *k) {
  return unic_floats(k->type, [&](auto t) { return run_forward<decltype(t)>(k); });
}
unic_status backward(const unic_kernel *k) {
  return unic_floats(k->type, [&](auto t) { return run_backward<decltype(t)>(k); });
}

}

UNIC_CUDA_OPS(info_nce, {"info_nce", {.forward = forward, .backward = backward, .plan = plan}});
