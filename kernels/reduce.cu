/* Reductions on the GPU (kernels/reduce.c): sum mean prod max min any all var std norm logsumexp over any set of dimensions, of any strides.
 *
 * x is seen as kept times reduced elements. Where reduced elements lie closest together a group of 1 to 256 threads takes a row of them (16 bytes at a
 * time where they are dense and aligned), otherwise neighbouring threads take neighbouring columns. Reductions of many elements to few are cut into
 * pieces, by the shape alone, whose totals a second kernel joins; so x is read once. var, std and logsumexp read it twice (mean or maximum first).
 * Totals of floats are f64: groups of 16 bytes are added as a tree in f32 first, squares and products in f64; integers are summed modulo 2^64.
 * The backward prepares two numbers for each kept element and goes over x once more, element by element (walk.cuh). */
#include "convert.cuh"
#include "reduce.cuh"

namespace {

enum { X, DIMS, KEEPDIM, UNBIASED, P = UNBIASED };
enum { SUM, MEAN, PROD, MAX, MIN, ANY, ALL, VAR, NORM, LOGSUMEXP, STD, NORM_ONE, NORM_MOST };
enum { THREADS = 256, TASKS = 1024 };   /* TASKS: blocks that cuts are made for, whatever the device */

/* What one pass over x adds up, and how an element is changed before. */
enum { TOTAL_SUM /* x, or |x| */, TOTAL_SQUARES /* (x - shift)^2 */, TOTAL_EXP /* exp(x - shift) */, TOTAL_MAX /* x, |x|, or their opposites */,
       TOTAL_PROD /* x; or those that are not 0 */, TOTAL_EQUAL /* is x, or |x|, equal to shift, or both NaN? */, TOTAL_ANY /* is x not 0, or is it? */ };
struct how { bool absolute, opposite; };

template <class T, int WHAT> struct totals {
  using W = unic_exact<T>;
  using S = std::conditional_t<unic_is_integer<T>, long long, double>;   /* in scratch */
  using A = std::conditional_t<WHAT == TOTAL_MAX, W, S>;                 /* on the way */

  static __device__ __forceinline__ A neutral() {
    if constexpr (WHAT == TOTAL_MAX) {
      if constexpr (unic_is_integer<T>) return -0x7fffffffffffffffLL - 1;
      else return -INFINITY;
    } else return WHAT == TOTAL_PROD ? 1 : 0;
  }
  static __device__ __forceinline__ A join(A a, A b) {
    if constexpr (WHAT == TOTAL_MAX) return unic_larger(a, b);
    else if constexpr (WHAT == TOTAL_ANY) return a != 0 || b != 0;
    else if constexpr (unic_is_integer<T>)   /* modulo 2^64 */
      return WHAT == TOTAL_PROD ? (A)((unsigned long long)a * (unsigned long long)b) : (A)((unsigned long long)a + (unsigned long long)b);
    else return WHAT == TOTAL_PROD ? a * b : a + b;
  }
  static __device__ __forceinline__ W size(W x, how h) {
    if constexpr (unic_is_integer<T>) return x;
    else return h.absolute ? (x < 0 ? -x : x) : x;
  }
  /* What an element adds; sums of W are joined as W first. */
  static __device__ __forceinline__ auto one(W x, double shift, how h) {
    if constexpr (WHAT == TOTAL_SUM) return size(x, h);
    else if constexpr (WHAT == TOTAL_EXP) return unic_exp((unic_wide<T>)x - (unic_wide<T>)shift);
    else if constexpr (WHAT == TOTAL_SQUARES) {
      double d = (double)x - shift;
      return d * d;
    } else if constexpr (WHAT == TOTAL_MAX) return h.opposite ? unic_opposite(size(x, h)) : size(x, h);
    else if constexpr (WHAT == TOTAL_PROD) return (A)(h.absolute && x == 0 ? 1 : x);
    else if constexpr (WHAT == TOTAL_EQUAL) return (A)(size(x, h) == (W)shift || (x != x && shift != shift));
    else return (A)((x != 0) != h.opposite);
  }
  template <int V> static __device__ __forceinline__ A group(A have, const T *from, double shift, how h) {
    unic_pack<T, V> p = *(const unic_pack<T, V> *)from;
    if constexpr ((WHAT == TOTAL_SUM || WHAT == TOTAL_EXP) && !unic_is_integer<T>) {
      W v[V];
#pragma unroll
      for (int j = 0; j < V; j++) v[j] = one(unic_exactly(p.at[j]), shift, h);
      return have + (A)unic_tree_sum<V>(v);
    } else {
#pragma unroll
      for (int j = 0; j < V; j++) have = join(have, one(unic_exactly(p.at[j]), shift, h));
      return have;
    }
  }
};

/* ---------------------------------------------------------------- what becomes of a total */

enum { STORE, STORE_MEAN, FINISH };   /* into scratch; divided by n, into scratch; the result, into y */
struct finishing {
  int step, kind;
  double share, freedom;   /* 1 / n; 1 / what squares are divided by */
  bool opposite;           /* the total is the maximum of opposites */
  const double *shift;
  void *to;
};

template <class T, int WHAT> __device__ __forceinline__ void finish(const finishing &f, int64_t k, typename totals<T, WHAT>::S total) {
  using S = typename totals<T, WHAT>::S;
  if (f.opposite && WHAT == TOTAL_MAX) total = unic_opposite(total);
  if (f.step == STORE) { ((S *)f.to)[k] = total; return; }
  if constexpr (WHAT == TOTAL_ANY) {
    ((unsigned char *)f.to)[k] = f.opposite ? total == 0 : total != 0;
  } else if constexpr (unic_is_integer<T>) {
    if constexpr (WHAT == TOTAL_MAX) ((T *)f.to)[k] = (T)total;
    else ((long long *)f.to)[k] = total;
  } else {
    double v = total;
    if (f.step == STORE_MEAN) { ((double *)f.to)[k] = v * f.share; return; }
    switch (f.kind) {
      case MEAN: v *= f.share; break;
      case VAR: v *= f.freedom; break;
      case STD: v = sqrt(v * f.freedom); break;
      case NORM: v = sqrt(v); break;
      case LOGSUMEXP: v = f.shift[k] - f.shift[k] == 0 ? f.shift[k] + log(v) : f.shift[k]; break;   /* an infinite or missing maximum is the result */
      default: break;
    }
    ((T *)f.to)[k] = unic_convert<T>(v);
  }
}

/* ---------------------------------------------------------------- one pass over x */

struct cutting {
  unic_axes<1> kept, reduced;
  unic_split pieces;         /* how reduced elements are cut: how many pieces ... */
  int64_t piece;             /* ... of so many */
  int width;                 /* rows: threads for one; columns: threads along them */
  bool rows;
};

/* Groups of `width` threads (a power of two up to 32, or all of the block), each for one piece of a row. partial: [kept, pieces], when there are several. */
template <class T, int WHAT, int V>
__global__ void row_totals(const T *x, cutting c, const double *shift, how h, finishing f, typename totals<T, WHAT>::S *partial) {
  using O = totals<T, WHAT>;
  using A = typename O::A;
  UNIC_SHARED(A, room, [32]);
  const int groups = THREADS / c.width, lane = threadIdx.x & (c.width - 1), group = threadIdx.x / c.width;
  const int64_t tasks = c.kept.count * c.pieces.by;
  for (int64_t begin = (int64_t)blockIdx.x * groups; begin < tasks; begin += (int64_t)gridDim.x * groups) {
    const int64_t task = begin + group;
    const bool mine = task < tasks;
    const int64_t k = unic_outer(c.pieces, task), first = (task - k * c.pieces.by) * c.piece;
    const int64_t last = !mine ? first : first + c.piece < c.reduced.count ? first + c.piece : c.reduced.count;
    const T *row = x + (mine ? unic_axes_at(c.kept, k) : 0);
    const double by = shift && mine ? shift[k] : 0;
    A a = O::neutral();
    if (V > 1) {
#pragma unroll 4
      for (int64_t r = first + lane * V; r < last; r += c.width * V) a = O::template group<V>(a, row + r, by, h);
    } else if (c.reduced.ndim == 1) {
      const int64_t stride = c.reduced.stride[0][0];
#pragma unroll 4
      for (int64_t r = first + lane; r < last; r += c.width) a = O::template group<1>(a, row + r * stride, by, h);
    } else {
      for (int64_t r = first + lane; r < last; r += c.width) a = O::template group<1>(a, row + unic_axes_at(c.reduced, r), by, h);
    }
    for (int o = (c.width < 32 ? c.width : 32) >> 1; o; o >>= 1) a = O::join(a, __shfl_xor_sync(0xffffffffu, a, o));
    if (c.width > 32) {
      const int warps = c.width >> 5;
      if ((lane & 31) == 0) room[lane >> 5] = a;
      __syncthreads();
      a = (lane & 31) < warps ? room[lane & 31] : O::neutral();
      for (int o = warps >> 1; o; o >>= 1) a = O::join(a, __shfl_xor_sync(0xffffffffu, a, o));
      __syncthreads();
    }
    if (lane == 0 && mine) {
      if (c.pieces.by > 1) partial[task] = a;
      else finish<T, WHAT>(f, k, a);
    }
  }
}

/* Blocks of width x THREADS / width threads: a thread has V neighbouring columns (kept elements) and every so many-th reduced element of a piece. */
template <class T, int WHAT, int V>
__global__ void column_totals(const T *x, cutting c, unic_split tiles, const double *shift, how h, finishing f, typename totals<T, WHAT>::S *partial) {
  using O = totals<T, WHAT>;
  using A = typename O::A;
  UNIC_SHARED(A, room, [THREADS * V]);
  const int tx = threadIdx.x & (c.width - 1), ty = threadIdx.x / c.width, high = THREADS / c.width;
  for (int64_t item = blockIdx.x; item < tiles.by * c.pieces.by; item += gridDim.x) {
    const int64_t piece = unic_outer(tiles, item), k = ((item - piece * tiles.by) * c.width + tx) * V, first = piece * c.piece;
    const bool mine = k < c.kept.count;
    const int64_t last = !mine ? first : first + c.piece < c.reduced.count ? first + c.piece : c.reduced.count;
    const T *column = x + (mine ? unic_axes_at(c.kept, k) : 0);
    double by[V];
    A a[V];
#pragma unroll
    for (int j = 0; j < V; j++) {
      by[j] = shift && mine ? shift[k + j] : 0;
      a[j] = O::neutral();
    }
#pragma unroll 4
    for (int64_t r = first + ty; r < last; r += high) {
      const T *at = column + (c.reduced.ndim == 1 ? r * c.reduced.stride[0][0] : unic_axes_at(c.reduced, r));
      unic_pack<T, V> p = *(const unic_pack<T, V> *)at;
#pragma unroll
      for (int j = 0; j < V; j++) a[j] = O::join(a[j], (A)O::one(unic_exactly(p.at[j]), by[j], h));
    }
#pragma unroll
    for (int j = 0; j < V; j++) room[j * THREADS + threadIdx.x] = a[j];
    for (int half = high >> 1; half; half >>= 1) {
      __syncthreads();
      if (ty < half) {
#pragma unroll
        for (int j = 0; j < V; j++) {
          A *here = room + j * THREADS + threadIdx.x;
          *here = O::join(*here, here[half * c.width]);
        }
      }
    }
    if (ty == 0 && mine) {
#pragma unroll
      for (int j = 0; j < V; j++) {
        A total = room[j * THREADS + threadIdx.x];
        if (c.pieces.by > 1) partial[(k + j) * c.pieces.by + piece] = total;
        else finish<T, WHAT>(f, k + j, total);
      }
    }
    __syncthreads();
  }
}

/* A warp joins the pieces of one kept element. */
template <class T, int WHAT> __global__ void join_pieces(const typename totals<T, WHAT>::S *partial, int64_t kept, int64_t pieces, finishing f) {
  using O = totals<T, WHAT>;
  using A = typename O::A;
  const int lane = threadIdx.x & 31, warps = THREADS >> 5;
  for (int64_t k = blockIdx.x * (int64_t)warps + (threadIdx.x >> 5); k < kept; k += (int64_t)gridDim.x * warps) {
    A a = O::neutral();
    for (int64_t p = lane; p < pieces; p += 32) a = O::join(a, (A)partial[k * pieces + p]);
    for (int o = 16; o; o >>= 1) a = O::join(a, __shfl_xor_sync(0xffffffffu, a, o));
    if (lane == 0) finish<T, WHAT>(f, k, a);
  }
}

/* ---------------------------------------------------------------- how x is cut: by shape and strides alone */

uint32_t reduced_mask(const unic_value *dims, int ndim) {
  uint32_t mask = 0;
  for (int64_t i = 0; i < dims->integer; i++) mask |= UINT32_C(1) << unic_dim_of(dims->ints[i], ndim);
  return dims->integer == 0 ? (UINT32_C(1) << ndim) - 1 : mask;
}

/* Do reduced elements lie closer together than kept ones? */
bool reduced_inside(const unic_view *x, uint32_t mask) {
  int best = -1;
  for (int d = 0; d < x->ndim; d++) {
    if (x->shape[d] == 1) continue;
    if (best < 0 || llabs(x->stride[d]) < llabs(x->stride[best])) best = d;
  }
  return best < 0 || (mask >> best & 1);
}

int64_t clamp(int64_t v, int64_t low, int64_t high) { return v < low ? low : v > high ? high : v; }

cutting cut(const unic_view *x, uint32_t mask) {
  cutting c;
  const unic_view *const views[1] = {x};
  c.kept = unic_axes_of(~mask & ((UINT32_C(1) << x->ndim) - 1), views);
  c.reduced = unic_axes_of(mask, views);
  c.rows = reduced_inside(x, mask);
  const int64_t reduced = c.reduced.count, kept = c.kept.count;
  int64_t least, tasks;   /* reduced elements of a piece at least; blocks when nothing is cut */
  if (c.rows) {
    const int64_t loads = (reduced + 3) / 4;   /* for groups of four, whatever the type */
    for (c.width = 1; c.width < 32 && c.width < loads; c.width *= 2) {}
    if (loads > 512) c.width = THREADS;
    least = 16384;
    tasks = kept;
  } else {
    for (c.width = 1; c.width < 32 && c.width < kept; c.width *= 2) {}
    least = 16 * (THREADS / c.width);
    tasks = (kept + c.width - 1) / c.width;
  }
  int64_t pieces = clamp((reduced + least - 1) / least, 1, clamp(tasks ? TASKS / tasks : 1, 1, TASKS));
  c.piece = (reduced + pieces - 1) / pieces;
  c.piece = (c.piece + 63) / 64 * 64;   /* whole groups */
  c.pieces = unic_split_of(reduced ? (reduced + c.piece - 1) / c.piece : 1);
  return c;
}

/* Bytes for the totals of pieces. */
int64_t room_of(const cutting &c) { return c.pieces.by > 1 ? c.kept.count * c.pieces.by * 8 : 0; }

/* Whether V elements side by side can be read at once: rows along the reduced dimensions, columns along the kept ones. */
template <class T> bool grouped(const cutting &c, const T *x, int V) {
  const unic_axes<1> &inside = c.rows ? c.reduced : c.kept, &outside = c.rows ? c.kept : c.reduced;
  const int last = inside.ndim - 1;
  if ((c.rows && last > 0) || inside.stride[0][last] != 1 || inside.shape[last].by % V || (uintptr_t)x % (V * sizeof(T) < 16 ? V * sizeof(T) : 16)) return false;
  for (int d = 0; d < last; d++) if (inside.stride[0][d] % V) return false;
  for (int d = 0; d < outside.ndim; d++) if (outside.shape[d].by > 1 && outside.stride[0][d] % V) return false;
  return true;
}

/* Totals of x, each finished as f says. */
template <class T, int WHAT> void total(const unic_kernel *k, const cutting &c, const T *x, const double *shift, how h, finishing f, void *scratch) {
  using S = typename totals<T, WHAT>::S;
  S *partial = (S *)scratch;
  cudaStream_t stream = unic_cuda_stream(k);
  f.opposite = h.opposite;
  if (c.rows) {
    constexpr int V = unic_vector<T> < 8 ? unic_vector<T> : 8;
    unsigned grid = unic_blocks(k, c.kept.count * c.pieces.by * c.width, THREADS);
    if (grouped(c, x, V)) UNIC_LAUNCH((row_totals<T, WHAT, V>), grid, THREADS, 0, stream, x, c, shift, h, f, partial);
    else UNIC_LAUNCH((row_totals<T, WHAT, 1>), grid, THREADS, 0, stream, x, c, shift, h, f, partial);
  } else {
    constexpr int V = WHAT == TOTAL_SUM && sizeof(T) < 8 ? 4 : 1;
    const bool several = V > 1 && c.kept.count >= 128 && grouped(c, x, V);
    const int64_t wide = c.width * (several ? V : 1);
    const unic_split tiles = unic_split_of((c.kept.count + wide - 1) / wide);
    unsigned grid = unic_blocks(k, tiles.by * c.pieces.by * THREADS, THREADS);
    if (several) UNIC_LAUNCH((column_totals<T, WHAT, V>), grid, THREADS, 0, stream, x, c, tiles, shift, h, f, partial);
    else UNIC_LAUNCH((column_totals<T, WHAT, 1>), grid, THREADS, 0, stream, x, c, tiles, shift, h, f, partial);
  }
  if (c.pieces.by > 1) UNIC_LAUNCH((join_pieces<T, WHAT>), unic_blocks(k, c.kept.count * 32, THREADS), THREADS, 0, stream, (const S *)partial, c.kept.count, c.pieces.by, f);
}

/* ---------------------------------------------------------------- forward */

int kind_of(const unic_kernel *k) {
  static const char *const names[] = {"sum", "mean", "prod", "max", "min", "any", "all", "var", "norm", "logsumexp", "std"};
  const char *name = unic_cuda_host->op_name(k->op);
  int i = 0;
  while (i < STD && strcmp(name, names[i]) != 0) i++;
  return i != NORM || k->arg[P].number == 2 ? i : k->arg[P].number == 1 ? NORM_ONE : NORM_MOST;
}

bool is_spread(int kind) { return kind == VAR || kind == STD; }

/* What the squares of var and std are divided by; 0 (the result is NaN) where there are too few elements. */
double freedom(const unic_kernel *k, int64_t reduced) {
  double n = (double)reduced - (k->arg[UNBIASED].integer ? 1 : 0);
  return n > 0 ? n : 0;
}

/* Scratch: totals of pieces; a double for each kept element; in backward two more. */
unic_status plan(const unic_kernel *k, unic_plan *p) {
  const unic_view *x = &k->in[X];
  int kind = kind_of(k);
  cutting c = cut(x, reduced_mask(&k->arg[DIMS], x->ndim));
  bool shifted = is_spread(kind) || kind == LOGSUMEXP;
  if (!k->backward) p->scratch = room_of(c) + (shifted ? c.kept.count * 8 : 0);
  else if (kind != SUM && kind != MEAN) p->scratch = room_of(c) + c.kept.count * 32;
  return UNIC_OK;
}

template <class T> void forward_as(const unic_kernel *k, int kind) {
  const unic_view *x = &k->in[X];
  const cutting c = cut(x, reduced_mask(&k->arg[DIMS], x->ndim));
  const T *from = (const T *)x->data;
  double *shift = (double *)k->scratch;
  void *room = shift;
  finishing f = {FINISH, kind, 1 / (double)c.reduced.count, 1 / freedom(k, c.reduced.count), false, nullptr, k->out[0].data};
  switch (kind) {
    case PROD: return total<T, TOTAL_PROD>(k, c, from, nullptr, {false, false}, f, room);
    case MAX: case MIN: return total<T, TOTAL_MAX>(k, c, from, nullptr, {false, kind == MIN}, f, room);
    case ANY: case ALL: return total<T, TOTAL_ANY>(k, c, from, nullptr, {false, kind == ALL}, f, room);
    case SUM: return total<T, TOTAL_SUM>(k, c, from, nullptr, {false, false}, f, room);
    default: break;
  }
  if constexpr (!unic_is_integer<T>) {
    if (kind == MEAN || kind == NORM_ONE) return total<T, TOTAL_SUM>(k, c, from, nullptr, {kind == NORM_ONE, false}, f, room);
    if (kind == NORM_MOST) return total<T, TOTAL_MAX>(k, c, from, nullptr, {true, false}, f, room);
    if (kind == NORM) return total<T, TOTAL_SQUARES>(k, c, from, nullptr, {false, false}, f, room);
    room = shift + c.kept.count;
    finishing first = f;
    first.step = kind == LOGSUMEXP ? STORE : STORE_MEAN;
    first.to = shift;
    f.shift = shift;
    if (kind == LOGSUMEXP) {
      total<T, TOTAL_MAX>(k, c, from, nullptr, {false, false}, first, room);
      total<T, TOTAL_EXP>(k, c, from, shift, {false, false}, f, room);
    } else {
      total<T, TOTAL_SUM>(k, c, from, nullptr, {false, false}, first, room);
      total<T, TOTAL_SQUARES>(k, c, from, shift, {false, false}, f, room);
    }
  }
}

unic_status forward(const unic_kernel *k) {
  if (k->out[0].numel == 0) return UNIC_OK;
  int kind = kind_of(k);
  unic_types(k->in[X].dtype, [&](auto t) { forward_as<decltype(t)>(k, kind); });
  return UNIC_OK;
}

/* ---------------------------------------------------------------- backward */

/* Beside every kept element: p, what its gradient is multiplied with, and q, what x is compared with. */
template <class T, class Q> __global__ void prepare(int kind, const T *dy, const T *y, const double *mean, const double *count, int64_t kept, double degrees, Q *p, Q *q) {
  for (int64_t k = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; k < kept; k += (int64_t)gridDim.x * blockDim.x) {
    double g = (double)unic_widen(dy[k]), at = y ? (double)unic_widen(y[k]) : 0;
    switch (kind) {
      case VAR: case STD: {
        double by = kind == VAR ? 2 : at == 0 ? 0 : 1 / at;   /* std: 0 where all are equal */
        g = by == 0 ? 0 : by * g / degrees;
        at = mean[k];
        break;
      }
      case MAX: case MIN: case NORM_MOST: g /= count[k]; break;
      case PROD:   /* mean: the product of what is not 0; count: the zeros */
        at = count[k];
        g = at < 2 ? g * mean[k] : 0;
        break;
      default: break;
    }
    p[k] = (Q)g;
    q[k] = (Q)at;
  }
}

template <class T> __global__ void doubles(const T *from, double *to, int64_t n) {
  for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < n; i += (int64_t)gridDim.x * blockDim.x) to[i] = (double)unic_widen(from[i]);
}

template <class T> struct spread {   /* sum, mean */
  unic_wide<T> n;
  __device__ __forceinline__ unic_wide<T> operator()(T dy) const { return unic_widen(dy) / n; }
};

template <class T, class Q> struct gradient {
  int kind;
  __device__ __forceinline__ unic_wide<T> operator()(T at, Q p, Q q) const {
    const Q x = (Q)unic_widen(at), size = x < 0 ? -x : x, turned = x > 0 ? p : x < 0 ? -p : p * x;
    switch (kind) {
      case PROD: return (unic_wide<T>)(q == 0 ? p / x : q == 1 && x == 0 ? p : Q(0));
      case NORM: return (unic_wide<T>)(q == 0 ? Q(0) : p * x / q);
      case NORM_ONE: return (unic_wide<T>)turned;
      case NORM_MOST: return (unic_wide<T>)(size == q || (x != x && q != q) ? turned : Q(0));
      case VAR: case STD: return (unic_wide<T>)(p * (x - q));
      case LOGSUMEXP: return (unic_wide<T>)(p * unic_exp(x - q));
      default: return (unic_wide<T>)(x == q || (x != x && q != q) ? p : Q(0));   /* max, min */
    }
  }
};

/* An array of one value per kept element, seen under x's shape: strides 0 along the reduced dimensions. */
unic_view kept_view(const unic_view *x, uint32_t mask) {
  unic_view v = *x;
  int64_t stride = 1;
  for (int d = x->ndim - 1; d >= 0; d--) {
    v.stride[d] = mask >> d & 1 ? 0 : stride;
    if (!(mask >> d & 1)) stride *= x->shape[d];
  }
  return v;
}

template <class T, class Q> void backward_as(const unic_kernel *k, int kind) {
  const unic_view *x = &k->in[X], *dx = &k->din[X];
  const uint32_t mask = reduced_mask(&k->arg[DIMS], x->ndim);
  const unic_view shaped = *x, narrow = kept_view(x, mask);
  const T *dy = (const T *)k->dout[0].data, *y = (const T *)k->out[0].data, *from = (const T *)x->data;
  T *to = (T *)dx->data;
  unic_walk w;
  if (kind == SUM || kind == MEAN) {
    const unic_view *const views[2] = {dx, &narrow};
    unic_walk_init(&w, 2, views);
    unic_map(k, &w, k->accumulate[X], spread<T>{kind == MEAN ? (unic_wide<T>)((double)x->numel / (double)k->out[0].numel) : 1}, to, dy);
    return;
  }
  const cutting c = cut(x, mask);
  const int64_t kept = c.kept.count;
  double *mean = (double *)k->scratch, *count = mean + kept;
  Q *p = (Q *)(count + kept), *q = (Q *)((double *)p + kept);
  void *room = (double *)q + kept;
  finishing f = {STORE, kind, 1 / (double)c.reduced.count, 0, false, nullptr, mean};
  unsigned grid = unic_blocks(k, kept, THREADS);
  switch (kind) {
    case VAR: case STD:
      f.step = STORE_MEAN;
      total<T, TOTAL_SUM>(k, c, from, nullptr, {false, false}, f, room);
      break;
    case PROD:
      total<T, TOTAL_PROD>(k, c, from, nullptr, {true, false}, f, room);
      f.to = count;
      total<T, TOTAL_EQUAL>(k, c, from, nullptr, {false, false}, f, room);
      break;
    case MAX: case MIN: case NORM_MOST:
      UNIC_LAUNCH((doubles<T>), grid, THREADS, 0, unic_cuda_stream(k), y, mean, kept);
      f.to = count;
      total<T, TOTAL_EQUAL>(k, c, from, mean, {kind == NORM_MOST, false}, f, room);
      break;
    default: break;
  }
  UNIC_LAUNCH((prepare<T, Q>), grid, THREADS, 0, unic_cuda_stream(k), kind, dy, y, (const double *)mean, (const double *)count, kept, freedom(k, c.reduced.count), p, q);
  const unic_view *const views[4] = {dx, &shaped, &narrow, &narrow};
  unic_walk_init(&w, 4, views);
  unic_map(k, &w, k->accumulate[X], gradient<T, Q>{kind}, to, from, (const Q *)p, (const Q *)q);
}

unic_status backward(const unic_kernel *k) {
  if (!k->din[X].present || k->din[X].numel == 0) return UNIC_OK;
  int kind = kind_of(k);
  unic_floats(k->in[X].dtype, [&](auto t) {
    using T = decltype(t);
    if (kind == PROD) backward_as<T, double>(k, kind);
    else backward_as<T, unic_wide<T>>(k, kind);
  });
  return UNIC_OK;
}

}

#define REDUCE(op) {#op, {.forward = forward, .backward = backward, .plan = plan}}
UNIC_CUDA_OPS(reduce, REDUCE(sum), REDUCE(mean), REDUCE(prod), REDUCE(max), REDUCE(min), REDUCE(any), REDUCE(all), REDUCE(var), REDUCE(std), REDUCE(norm), REDUCE(logsumexp));
