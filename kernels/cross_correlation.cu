/* cross_correlation on the GPU (kernels/cross_correlation.c): a and b standardised in f32 (f64 for f64) with f64 statistics, C panel by panel (panels.cuh),
 * one read of a panel for the loss, one read and one write that make dC of it in backward. Rows belong to a warp; of columns a block has 32, eight
 * threads each. All sums are in a fixed order. */
#include "panels.cuh"

namespace {

enum { A, B, ALONG, LAMBDA, EPS };
enum { LOSS };
enum { FEATURES, SAMPLES };
enum { PANEL, DA, DB };
enum { BLOCK = 256, WARPS = 4 };

/* The vectors of a [K, D] matrix: element t of vector i lies at i * vector + t * element; `across`: vectors lie side by side (columns). */
struct shape { int64_t vectors, length, vector, element; };

/* A vector belongs to a warp: its lanes take every 32nd element. */
struct warp_of_row {
  static constexpr int PER = WARPS, THREADS = 32 * WARPS;
  static __device__ __forceinline__ int64_t vector(void) { return blockIdx.x * (int64_t)WARPS + (threadIdx.x >> 5); }
  static __device__ __forceinline__ int first(void) { return threadIdx.x & 31; }
  static constexpr int step = 32;
  static __device__ __forceinline__ double sum(double v, double *) { return unic_warp_sum(v); }
};
/* A vector belongs to eight threads of different warps, 32 vectors to a block. */
struct block_of_columns {
  static constexpr int PER = 32, THREADS = BLOCK;
  static __device__ __forceinline__ int64_t vector(void) { return blockIdx.x * 32ll + (threadIdx.x & 31); }
  static __device__ __forceinline__ int first(void) { return threadIdx.x >> 5; }
  static constexpr int step = 8;
  static __device__ __forceinline__ double sum(double v, double *room) {
    const int lane = threadIdx.x & 31, turn = threadIdx.x >> 5;
    room[turn * 33 + lane] = v;
    __syncthreads();
    double all = 0;
    for (int i = 0; i < 8; i++) all += room[i * 33 + lane];
    __syncthreads();
    return all;
  }
};

/* z = (x - mu) r,  r = 1 / (sqrt(m) sqrt(var + eps)). */
template <class T, class P> __global__ void __launch_bounds__(P::THREADS) standardise(const T *x, shape s, double eps, unic_wide<T> *z, unic_wide<T> *r) {
  using W = unic_wide<T>;
  UNIC_SHARED(double, room, [8 * 33]);
  const int64_t i = P::vector(), at = i * s.vector;
  const int64_t length = i < s.vectors ? s.length : 0;
  double sum = 0, squares = 0;
  for (int64_t t = P::first(); t < length; t += P::step) sum += (double)unic_widen(x[at + t * s.element]);
  const double mean = P::sum(sum, room) / (double)s.length;
  for (int64_t t = P::first(); t < length; t += P::step) {
    const double d = (double)unic_widen(x[at + t * s.element]) - mean;
    squares += d * d;
  }
  const double f = 1 / sqrt(P::sum(squares, room) + (double)s.length * eps);
  if (i < s.vectors && P::first() == 0) r[i] = (W)f;
  for (int64_t t = P::first(); t < length; t += P::step) z[at + t * s.element] = (W)(((double)unic_widen(x[at + t * s.element]) - mean) * f);
}

/* dx = r (dz - mean dz - z sum z dz). */
template <class T, class P> __global__ void __launch_bounds__(P::THREADS) standardise_backward(const unic_wide<T> *z, const unic_wide<T> *dz, const unic_wide<T> *r, shape s, T *dx, bool add) {
  using W = unic_wide<T>;
  UNIC_SHARED(double, room, [8 * 33]);
  const int64_t i = P::vector(), at = i * s.vector;
  const int64_t length = i < s.vectors ? s.length : 0;
  double sum = 0, dot = 0;
  for (int64_t t = P::first(); t < length; t += P::step) {
    const double d = (double)dz[at + t * s.element];
    sum += d;
    dot += (double)z[at + t * s.element] * d;
  }
  sum = P::sum(sum, room) / (double)s.length;
  dot = P::sum(dot, room);
  for (int64_t t = P::first(); t < length; t += P::step) {
    W out[1] = {r[i] * (W)((double)dz[at + t * s.element] - sum - (double)z[at + t * s.element] * dot)};
    unic_store_wide<T, 1>(dx + at + t * s.element, out, add);
  }
}

/* A block per row of a panel of C: its part of the loss. */
template <class W> __global__ void __launch_bounds__(BLOCK) panel_rows(const W *c, int64_t n, int64_t first, double lambda, double *part) {
  UNIC_SHARED(double, room, [32]);
  const W *row = c + blockIdx.x * n;
  const int64_t own = first + blockIdx.x;
  double sum = 0;
  for (int64_t j = threadIdx.x; j < n; j += BLOCK) sum += j == own ? 0.0 : (double)row[j] * (double)row[j];
  sum = unic_block_sum(sum, room);
  if (threadIdx.x == 0) part[own] = (1 - (double)row[own]) * (1 - (double)row[own]) + lambda * sum;
}

/* C becomes dC. */
template <class W> __global__ void __launch_bounds__(BLOCK) panel_rows_backward(W *c, int64_t n, int64_t first, double lambda, const W *dloss) {
  W *row = c + blockIdx.x * n;
  const int64_t own = first + blockIdx.x;
  const W scale = (W)(2 * (double)*dloss / (double)n), by = (W)lambda * scale;
  for (int64_t j = threadIdx.x; j < n; j += BLOCK) row[j] = j == own ? scale * (row[j] - 1) : row[j] * by;
}

/* ---------------------------------------------------------------- host */

bool along_features(const unic_kernel *k) { return k->arg[ALONG].integer == FEATURES; }

shape shape_of(const unic_kernel *k) {
  const int64_t samples = k->in[A].shape[0], features = k->in[A].shape[1];
  if (along_features(k)) return {features, samples, 1, features};
  return {samples, features, features, 1};
}

bool product(const unic_kernel *k, int which, int64_t rows, bool more, unic_cuda_product *p) {
  const int64_t samples = k->in[A].shape[0], features = k->in[A].shape[1];
  const int dtype = k->type == UNIC_F64 ? UNIC_F64 : UNIC_F32;
  if (samples == 0 || features == 0) return false;
  if (which != PANEL && !(k->backward && k->din[which == DA ? A : B].present)) return false;
  if (along_features(k)) {
    if (which == PANEL) {            /* za[:, first ..]' zb */
      *p = unic_cuda_product_of('T', 'N', rows, features, samples, dtype, dtype);
      p->a_col = features;
    } else if (which == DA) {        /* dza[:, first ..] = zb dC' */
      *p = unic_cuda_product_of('N', 'T', samples, rows, features, dtype, dtype);
      p->d_row = features;
    } else {                         /* dzb += za[:, first ..] dC */
      *p = unic_cuda_product_of('N', 'N', samples, features, rows, dtype, dtype);
      p->a_row = features;
    }
  } else {
    if (which == PANEL) *p = unic_cuda_product_of('N', 'T', rows, samples, features, dtype, dtype);
    else if (which == DA) *p = unic_cuda_product_of('N', 'N', rows, features, samples, dtype, dtype);
    else *p = unic_cuda_product_of('T', 'N', samples, features, rows, dtype, dtype);
  }
  if (which == DB && more) p->beta = 1;
  return true;
}

/* Scratch, in bytes. */
struct room { int64_t z[2], dz[2], r[2], panel, part, products; };

room rooms(const unic_kernel *k, const unic_panels *s, int64_t *bytes) {
  const int64_t size = k->type == UNIC_F64 ? 8 : 4, numel = k->in[A].numel;
  int64_t at = 0;
  auto take = [&](int64_t elements, int64_t each) {
    int64_t here = at;
    at += unic_panel_bytes(elements, each);
    return here;
  };
  room r;
  for (int i = 0; i < 2; i++) {
    r.z[i] = take(numel, size);
    r.dz[i] = take(k->backward ? numel : 0, size);
    r.r[i] = take(s->n, size);
  }
  r.panel = take(s->rows * s->n, size);
  r.part = take(s->n, 8);
  r.products = take(s->scratch, 1);
  *bytes = at;
  return r;
}

unic_status plan(const unic_kernel *k, unic_plan *p) {
  unic_panels *s = nullptr;
  UNIC_TRY(unic_panels_plan(k, shape_of(k).vectors, product, p, &s));
  (void)rooms(k, s, &p->scratch);
  return UNIC_OK;
}

template <class T> struct parts {
  using W = unic_wide<T>;
  const unic_kernel *k;
  const unic_panels *s;
  W *z[2], *dz[2], *r[2], *panel;
  double *part;
  void *products;
  shape of;
  cudaStream_t stream;

  explicit parts(const unic_kernel *kernel) : k(kernel), s((const unic_panels *)kernel->plan), of(shape_of(kernel)), stream(unic_cuda_stream(kernel)) {
    int64_t bytes;
    const room at = rooms(k, s, &bytes);
    char *base = (char *)k->scratch;
    for (int i = 0; i < 2; i++) {
      z[i] = (W *)(base + at.z[i]);
      dz[i] = (W *)(base + at.dz[i]);
      r[i] = (W *)(base + at.r[i]);
    }
    panel = (W *)(base + at.panel);
    part = (double *)(base + at.part);
    products = base + at.products;
  }
  template <class P> unsigned blocks() const { return (unsigned)((of.vectors + P::PER - 1) / P::PER); }
  template <class P> void forwards() const {
    for (int i = 0; i < 2; i++) UNIC_LAUNCH((standardise<T, P>), blocks<P>(), P::THREADS, 0, stream, (const T *)k->in[i].data, of, k->arg[EPS].number, z[i], r[i]);
  }
  template <class P> void backwards() const {
    for (int i = 0; i < 2; i++)
      if (s->made[i == 0 ? DA : DB])
        UNIC_LAUNCH((standardise_backward<T, P>), blocks<P>(), P::THREADS, 0, stream, z[i], dz[i], r[i], of, (T *)k->din[i].data, (bool)k->accumulate[i]);
  }
  /* Where vector `first` of a matrix begins. */
  W *from(W *matrix, int64_t first) const { return matrix + first * of.vector; }
};

template <class T> unic_status run_forward(const unic_kernel *k) {
  using W = unic_wide<T>;
  const parts<T> p(k);
  const int64_t n = k->in[A].numel ? p.of.vectors : 0;
  if (n > 0 && along_features(k)) p.template forwards<block_of_columns>();
  else if (n > 0) p.template forwards<warp_of_row>();
  for (int64_t first = 0; first < n; first += p.s->rows) {
    const int64_t rows = n - first < p.s->rows ? n - first : p.s->rows;
    UNIC_TRY(unic_panels_run(k, p.s, PANEL, first, p.from(p.z[0], first), p.z[1], p.panel, p.products));
    UNIC_LAUNCH((panel_rows<W>), (unsigned)rows, BLOCK, 0, p.stream, p.panel, n, first, k->arg[LAMBDA].number, p.part);
  }
  UNIC_LAUNCH((unic_panels_total<W>), 1, 1024, 0, p.stream, p.part, n, n > 0 ? 1 / (double)n : 0.0, (W *)k->out[LOSS].data, false);
  return UNIC_OK;
}

template <class T> unic_status run_backward(const unic_kernel *k) {
  using W = unic_wide<T>;
  const parts<T> p(k);
  const int64_t n = p.of.vectors;
  if (k->in[A].numel == 0) return UNIC_OK;
  const bool features = along_features(k);
  if (features) p.template forwards<block_of_columns>();
  else p.template forwards<warp_of_row>();
  if (p.s->made[DB] && n > p.s->rows) UNIC_TRY(unic_cuda_check(cudaMemsetAsync(p.dz[1], 0, (size_t)k->in[A].numel * sizeof(W), p.stream), "cudaMemset"));
  for (int64_t first = 0; first < n; first += p.s->rows) {
    const int64_t rows = n - first < p.s->rows ? n - first : p.s->rows;
    UNIC_TRY(unic_panels_run(k, p.s, PANEL, first, p.from(p.z[0], first), p.z[1], p.panel, p.products));
    UNIC_LAUNCH((panel_rows_backward<W>), (unsigned)rows, BLOCK, 0, p.stream, p.panel, n, first, k->arg[LAMBDA].number, (const W *)k->dout[LOSS].data);
    const W *za = p.from(p.z[0], first);
    if (p.s->made[DA]) UNIC_TRY(unic_panels_run(k, p.s, DA, first, features ? p.z[1] : p.panel, features ? p.panel : p.z[1], p.from(p.dz[0], first), p.products));
    if (p.s->made[DB]) UNIC_TRY(unic_panels_run(k, p.s, DB, first, features ? za : p.panel, features ? p.panel : za, p.dz[1], p.products));
  }
  if (features) p.template backwards<block_of_columns>();
  else p.template backwards<warp_of_row>();
  return UNIC_OK;
}

unic_status forward(const unic_kernel *k) {
  return unic_floats(k->type, [&](auto t) { return run_forward<decltype(t)>(k); });
}
unic_status backward(const unic_kernel *k) {
  return unic_floats(k->type, [&](auto t) { return run_backward<decltype(t)>(k); });
}

}

UNIC_CUDA_OPS(cross_correlation, {"cross_correlation", {.forward = forward, .backward = backward, .plan = plan}});
