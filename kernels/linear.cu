/* linear on the GPU (kernels/linear.c).
 *
 * Forward: one product of cuBLASLt with the bias in its epilogue (runtime/cuda/blas.h); a GELU or ReLU is one pass after it, because cuBLASLt's GELU is
 * the tanh form and ours is exact, and its ReLU's mask is not the byte per element that is saved. The pass reads z and writes y (for a ReLU in place,
 * with a byte of mask). Beside half types the epilogue adds the bias rounded to that type; y = gelu(z) is taken from the z that is stored, as on the CPU;
 * and a ReLU in a half type decides by an f32 product with an f32 bias, in scratch, as a GELU need not.
 * Backward: one pass makes dz in scratch out of dy and z and sums dbias on the way (without activation it reads dy and writes only sums), then a product
 * each for dx and, in f32, for dweight.
 * A weight in f32 beside a half type, and such a bias, are rounded once per version: derived forms, shared by forward, backward and every call.
 *
 * Bits: dbias is summed in chunks of rows that the shape decides, inside one by eight threads a column; the products as blas.h says. */
#include "cuda.cuh"
#include "cuda/blas.h"

#include <cstdlib>

namespace {

enum { X, WEIGHT, BIAS, ACTIVATION };
enum { Y, Z };
enum { NONE, GELU, RELU };
enum { LANES = 32, LINES = 8 };   /* a block of the backward pass: 32 columns (times a vector) by 8 rows */

__device__ __forceinline__ float gelu(float z) { return z * (0.5f * erfcf(-0.707106781f * z)); }
__device__ __forceinline__ double gelu(double z) { return z * (0.5 * erfc(-0.70710678118654752440 * z)); }
/* cdf + z pdf; the second is 0 far out, where the product would be NaN. */
__device__ __forceinline__ float gelu_slope(float z) {
  float e = expf(-0.5f * z * z);
  return 0.5f * erfcf(-0.707106781f * z) + (e == 0 ? 0.0f : z * e * 0.398942280f);
}
__device__ __forceinline__ double gelu_slope(double z) {
  double e = exp(-0.5 * z * z);
  return 0.5 * erfc(-0.70710678118654752440 * z) + (e == 0 ? 0.0 : z * e * 0.39894228040143267794);
}

/* ---------------------------------------------------------------- passes */

/* V elements, 16 bytes at a time. */
template <class T, int V> __device__ __forceinline__ unic_pack<T, V> load(const T *from) {
  if constexpr (sizeof(T) * V <= 16) return *reinterpret_cast<const unic_pack<T, V> *>(from);
  unic_pack<T, V> out;
  constexpr int PART = 16 / (int)sizeof(T);
#pragma unroll
  for (int i = 0; i < V; i += PART) {
    unic_pack<T, PART> part = *reinterpret_cast<const unic_pack<T, PART> *>(from + i);
#pragma unroll
    for (int j = 0; j < PART; j++) out.at[i + j] = part.at[j];
  }
  return out;
}

/* Elements of T that a thread of a pass has at a time. f64 is for comparisons, and two GELU slopes of it spill. */
template <class T> constexpr int at_once = sizeof(T) == 8 ? 1 : unic_vector<T>;

/* y and z (a GELU's; NULL: not kept) or `passed` (a ReLU's) out of the product `from`, which may be where y or z lies. bias: of what the product left out.
 * F: T, or f32 before a ReLU. */
template <class F, class T, int ACT, int V>
__global__ void finish_kernel(const F *from, const unic_wide<T> *bias, T *y, T *z, unsigned char *passed, long long n, long long columns) {
  using W = unic_wide<T>;
  for (long long e = (blockIdx.x * (long long)blockDim.x + threadIdx.x) * V; e < n; e += (long long)gridDim.x * blockDim.x * V) {
    unic_pack<F, V> v = load<F, V>(from + e);
    unic_pack<T, V> out;
    unic_pack<unsigned char, V> through;
    const W *row = bias ? bias + e % columns : nullptr;
#pragma unroll
    for (int i = 0; i < V; i++) {
      if (row) v.at[i] = unic_narrow<F>(unic_widen(v.at[i]) + row[i]);
      W x = unic_widen(v.at[i]);
      if (ACT == GELU) x = gelu(x);
      if (ACT == RELU) {
        through.at[i] = !(x <= 0);
        x = x < 0 ? W(0) : x;   /* NaN stays */
      }
      out.at[i] = unic_narrow<T>(x);
    }
    if constexpr (ACT == GELU) if (z && row) *reinterpret_cast<unic_pack<T, V> *>(z + e) = v;
    if (ACT == RELU && passed) *reinterpret_cast<unic_pack<unsigned char, V> *>(passed + e) = through;
    *reinterpret_cast<unic_pack<T, V> *>(y + e) = out;
  }
}

/* dz = dy act'(z), and of each chunk of rows (blockIdx.y) the sum of dz. `z`: T for a GELU, bytes for a ReLU. sums[chunks][columns] or NULL. */
template <class T, int ACT, int V>
__global__ void __launch_bounds__(LANES *LINES) start_kernel(const T *dy, const void *z, T *dz, unic_wide<T> *sums, long long rows, long long columns, long long chunk) {
  using W = unic_wide<T>;
  UNIC_SHARED(W, room, [LINES][LANES * V + 1]);
  int lane = threadIdx.x % LANES, line = threadIdx.x / LANES;
  long long column = ((long long)blockIdx.x * LANES + lane) * V, begin = blockIdx.y * chunk, end = begin + chunk < rows ? begin + chunk : rows;
  W sum[V] = {};
  if (column < columns)
    for (long long r = begin + line; r < end; r += LINES) {
      long long at = r * columns + column;
      unic_pack<T, V> in = *reinterpret_cast<const unic_pack<T, V> *>(dy + at), before, out;
      unic_pack<unsigned char, V> passed;
      if (ACT == GELU) before = *reinterpret_cast<const unic_pack<T, V> *>((const T *)z + at);
      if (ACT == RELU) passed = *reinterpret_cast<const unic_pack<unsigned char, V> *>((const unsigned char *)z + at);
#pragma unroll
      for (int i = 0; i < V; i++) {
        W v = unic_widen(in.at[i]);
        if (ACT == GELU) v *= gelu_slope(unic_widen(before.at[i]));
        if (ACT == RELU && !passed.at[i]) v = 0;
        out.at[i] = unic_narrow<T>(v);
        sum[i] += v;
      }
      if (ACT != NONE) *reinterpret_cast<unic_pack<T, V> *>(dz + at) = out;
    }
  if (!sums) return;
#pragma unroll
  for (int i = 0; i < V; i++) room[line][lane * V + i] = sum[i];
  __syncthreads();
  for (int c = threadIdx.x; c < LANES * V; c += LANES * LINES) {
    long long at = (long long)blockIdx.x * LANES * V + c;
    if (at >= columns) continue;
    W pair[LINES / 2];
#pragma unroll
    for (int l = 0; l < LINES / 2; l++) pair[l] = room[2 * l][c] + room[2 * l + 1][c];
    sums[blockIdx.y * columns + at] = (pair[0] + pair[1]) + (pair[2] + pair[3]);
  }
}

/* dbias = (dbias +) the sum over the chunks. */
template <class W> __global__ void __launch_bounds__(LANES *LINES) gather_kernel(const W *sums, W *dbias, long long chunks, long long columns, int accumulate) {
  UNIC_SHARED(W, room, [LINES][LANES + 1]);
  int lane = threadIdx.x % LANES, line = threadIdx.x / LANES;
  long long column = (long long)blockIdx.x * LANES + lane;
  W sum = 0;
  if (column < columns) for (long long c = line; c < chunks; c += LINES) sum += sums[c * columns + column];
  room[line][lane] = sum;
  __syncthreads();
  if (line || column >= columns) return;
  W pair[LINES / 2];
#pragma unroll
  for (int l = 0; l < LINES / 2; l++) pair[l] = room[2 * l][lane] + room[2 * l + 1][lane];
  sum = (pair[0] + pair[1]) + (pair[2] + pair[3]);
  dbias[column] = accumulate ? dbias[column] + sum : sum;
}

template <class T, int V> __global__ void round_kernel(const float *from, T *to, long long n) {
  for (long long e = (blockIdx.x * (long long)blockDim.x + threadIdx.x) * V; e < n; e += (long long)gridDim.x * blockDim.x * V) {
    unic_pack<float, V> v = *reinterpret_cast<const unic_pack<float, V> *>(from + e);
    unic_pack<T, V> out;
#pragma unroll
    for (int i = 0; i < V; i++) out.at[i] = unic_narrow<T>(v.at[i]);
    *reinterpret_cast<unic_pack<T, V> *>(to + e) = out;
  }
}

/* ---------------------------------------------------------------- plan */

struct linear_plan {
  int64_t m, i, o;
  int64_t chunk, chunks;                       /* rows per row of bias sums */
  unic_cuda_product y, dx, dweight;
  int64_t sums_at, product_at;                 /* bytes into scratch; dz, or the f32 before a ReLU, is at 0 */
  bool through;                                /* the product goes to f32 in scratch */
  int weight_form, bias_form;                  /* which derived form; -1: as it is */
};

void linear_plan_free(void *data) {
  linear_plan *l = (linear_plan *)data;
  unic_cuda_product_free(&l->y);
  unic_cuda_product_free(&l->dx);
  unic_cuda_product_free(&l->dweight);
  free(l);
}

unic_status make_rounded(const unic_kernel *k, int i, void *to) {
  const unic_view *v = &k->in[k->whole_plan->derive[i].arg];
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) == 2) {
      if (v->numel % 4 == 0 && unic_aligned16(v->data, to))
        UNIC_LAUNCH((round_kernel<T, 4>), unic_blocks(k, v->numel / 4, 256), 256, 0, unic_cuda_stream(k), (const float *)v->data, (T *)to, (long long)v->numel);
      else
        UNIC_LAUNCH((round_kernel<T, 1>), unic_blocks(k, v->numel, 256), 256, 0, unic_cuda_stream(k), (const float *)v->data, (T *)to, (long long)v->numel);
    }
  });
  return UNIC_OK;
}

/* The form of an f32 argument rounded to T as it lies; -1 where there is nothing to round. */
int derive_rounded(const unic_kernel *k, unic_plan *p, int arg) {
  const unic_view *v = &k->in[arg];
  if (!unic_dtype_is_half(k->type) || v->dtype != UNIC_F32 || v->numel == 0) return -1;
  int i = p->derives++;
  p->derive[i].arg = arg;
  p->derive[i].tag = ((uint64_t)v->numel << 8 | (uint64_t)k->type) * 0x9E3779B97F4A7C15ull ^ 0x526F756E64ull;
  p->derive[i].bytes = v->numel * 2;
  p->derive[i].make = make_rounded;
  return i;
}

int64_t room_for(int64_t bytes) { return (bytes + 255) / 256 * 256; }

unic_status linear_plan_make(const unic_kernel *k, unic_plan *p) {
  linear_plan *l = (linear_plan *)calloc(1, sizeof *l);
  if (!l) return unic_cuda_host->fail("[linear] no memory for its plan");
  p->data = l;
  p->free = linear_plan_free;
  const unic_view *x = &k->in[X];
  l->i = x->shape[x->ndim - 1];
  l->o = k->in[WEIGHT].shape[0];
  l->m = 1;
  for (int d = 0; d < x->ndim - 1; d++) l->m *= x->shape[d];
  l->weight_form = l->bias_form = -1;
  int wide = k->type == UNIC_F64 ? UNIC_F64 : UNIC_F32;
  if (!k->backward) {
    /* A half bias or a half product would turn a ReLU's decision where z is small, and with it a gradient from all to nothing. */
    l->through = k->arg[ACTIVATION].integer == RELU && unic_dtype_is_half(k->type);
    l->y = unic_cuda_product_of('N', 'T', l->m, l->o, l->i, k->type, l->through ? UNIC_F32 : k->type);
    l->y.bias = k->in[BIAS].present;
    UNIC_TRY(unic_cuda_product_plan(k, &l->y));
    l->weight_form = derive_rounded(k, p, WEIGHT);
    if (l->y.adds_bias && !l->through) l->bias_form = derive_rounded(k, p, BIAS);
    l->product_at = l->through ? room_for(l->m * l->o * 4) : 0;
    p->scratch = l->product_at + l->y.scratch;
    return UNIC_OK;
  }
  if (k->din[X].present) {
    l->dx = unic_cuda_product_of('N', 'N', l->m, l->i, l->o, k->type, k->type);
    l->dx.beta = k->accumulate[X];
    UNIC_TRY(unic_cuda_product_plan(k, &l->dx));
    l->weight_form = derive_rounded(k, p, WEIGHT);
  }
  if (k->din[WEIGHT].present) {
    l->dweight = unic_cuda_product_of('T', 'N', l->o, l->i, l->m, k->type, wide);
    l->dweight.beta = k->accumulate[WEIGHT];
    UNIC_TRY(unic_cuda_product_plan(k, &l->dweight));
  }
  /* At most 256 rows of sums: with 32 columns or more a block, enough blocks for any GPU, and little beside what they sum. */
  l->chunk = (l->m + 255) / 256 > 32 ? (l->m + 255) / 256 : 32;
  l->chunks = (l->m + l->chunk - 1) / l->chunk;
  bool made = k->arg[ACTIVATION].integer != NONE;   /* dz is not dy itself */
  l->sums_at = made ? room_for(l->m * l->o * (int64_t)unic_dtype_size(k->type)) : 0;
  l->product_at = l->sums_at + (k->din[BIAS].present ? room_for(l->chunks * l->o * (int64_t)unic_dtype_size((unic_dtype)wide)) : 0);
  p->scratch = l->product_at + (l->dx.scratch > l->dweight.scratch ? l->dx.scratch : l->dweight.scratch);
  return UNIC_OK;
}

const void *weight_in(const unic_kernel *k, const linear_plan *l) { return l->weight_form < 0 ? k->in[WEIGHT].data : k->derived[l->weight_form]; }

/* f(V, activation) as compile-time constants. */
template <int N> struct constant { static constexpr int value = N; };
template <class F> void with_activation(int activation, F f) {
  if (activation == GELU) f(constant<GELU>());
  else if (activation == RELU) f(constant<RELU>());
  else f(constant<NONE>());
}

/* ---------------------------------------------------------------- forward */

template <class F, class T, int ACT> void launch_finish(const unic_kernel *k, const linear_plan *l, const void *from, const void *bias, void *y, void *z) {
  constexpr int V = at_once<T>;
  int64_t n = l->m * l->o;
  T *kept = ACT == GELU ? (T *)z : nullptr;
  unsigned char *passed = ACT == RELU ? (unsigned char *)z : nullptr;
  if (l->o % V == 0 && unic_aligned16(from, y, z))
    UNIC_LAUNCH((finish_kernel<F, T, ACT, V>), unic_blocks(k, n / V, 256), 256, 0, unic_cuda_stream(k), (const F *)from, (const unic_wide<T> *)bias, (T *)y, kept, passed,
                (long long)n, (long long)l->o);
  else
    UNIC_LAUNCH((finish_kernel<F, T, ACT, 1>), unic_blocks(k, n, 256), 256, 0, unic_cuda_stream(k), (const F *)from, (const unic_wide<T> *)bias, (T *)y, kept, passed,
                (long long)n, (long long)l->o);
}

void finish(const unic_kernel *k, const linear_plan *l, const void *from, const void *bias, void *y, void *z) {
  if (l->m * l->o == 0) return;
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    switch ((int)k->arg[ACTIVATION].integer) {
      case GELU: launch_finish<T, T, GELU>(k, l, from, bias, y, z); break;
      case RELU: launch_finish<unic_wide<T>, T, RELU>(k, l, from, bias, y, z); break;   /* a half product went to f32 */
      default: launch_finish<T, T, NONE>(k, l, from, bias, y, z);
    }
  });
}

unic_status linear_forward(const unic_kernel *k) {
  const linear_plan *l = (const linear_plan *)k->plan;
  int activation = (int)k->arg[ACTIVATION].integer;
  void *y = k->out[Y].data, *z = k->grad && activation != NONE ? k->out[Z].data : nullptr, *to = l->through ? k->scratch : activation == GELU && z ? z : y;
  const void *bias = l->bias_form < 0 ? k->in[BIAS].data : k->derived[l->bias_form];
  UNIC_TRY(unic_cuda_product_run(k, &l->y, k->in[X].data, weight_in(k, l), to, bias, (char *)k->scratch + l->product_at));
  const void *rest = l->y.adds_bias ? nullptr : k->in[BIAS].data;
  if (rest || activation != NONE) finish(k, l, to, rest, y, z);
  return UNIC_OK;
}

/* y again from the z that a GELU keeps, or, where z or nothing was kept, everything again. */
unic_status linear_remake(const unic_kernel *k) {
  if (k->arg[ACTIVATION].integer != GELU || !k->out[Z].data || k->remake & 1 << Z) return linear_forward(k);
  finish(k, (const linear_plan *)k->plan, k->out[Z].data, nullptr, k->out[Y].data, nullptr);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- backward */

unic_status linear_backward(const unic_kernel *k) {
  const linear_plan *l = (const linear_plan *)k->plan;
  int activation = (int)k->arg[ACTIVATION].integer;
  char *scratch = (char *)k->scratch;
  bool wants_bias = k->din[BIAS].present;
  void *sums = wants_bias ? scratch + l->sums_at : nullptr, *product = scratch + l->product_at;
  const void *dy = k->dout[Y].data, *z = activation == NONE ? nullptr : k->out[Z].data, *dz = activation == NONE ? dy : scratch;
  if (l->m * l->o > 0 && (wants_bias || activation != NONE))
    unic_floats(k->type, [&](auto t) {
      using T = decltype(t);
      with_activation(activation, [&](auto act) {
        constexpr int ACT = decltype(act)::value, V = at_once<T>;
        bool fast = l->o % V == 0 && unic_aligned16(dy, z, scratch);
        int64_t wide = LANES * (fast ? V : 1);
        dim3 grid((unsigned)((l->o + wide - 1) / wide), (unsigned)l->chunks);
        if (fast)
          UNIC_LAUNCH((start_kernel<T, ACT, V>), grid, LANES * LINES, 0, unic_cuda_stream(k), (const T *)dy, z, (T *)scratch, (unic_wide<T> *)sums, (long long)l->m,
                      (long long)l->o, (long long)l->chunk);
        else
          UNIC_LAUNCH((start_kernel<T, ACT, 1>), grid, LANES * LINES, 0, unic_cuda_stream(k), (const T *)dy, z, (T *)scratch, (unic_wide<T> *)sums, (long long)l->m,
                      (long long)l->o, (long long)l->chunk);
      });
    });
  if (k->din[X].present) UNIC_TRY(unic_cuda_product_run(k, &l->dx, dz, weight_in(k, l), k->din[X].data, nullptr, product));
  if (k->din[WEIGHT].present) UNIC_TRY(unic_cuda_product_run(k, &l->dweight, dz, k->in[X].data, k->din[WEIGHT].data, nullptr, product));
  if (wants_bias && l->o > 0) {
    unsigned blocks = (unsigned)((l->o + LANES - 1) / LANES);
    if (k->type == UNIC_F64)
      UNIC_LAUNCH((gather_kernel<double>), blocks, LANES * LINES, 0, unic_cuda_stream(k), (const double *)sums, (double *)k->din[BIAS].data, (long long)l->chunks, (long long)l->o,
                  (int)k->accumulate[BIAS]);
    else
      UNIC_LAUNCH((gather_kernel<float>), blocks, LANES * LINES, 0, unic_cuda_stream(k), (const float *)sums, (float *)k->din[BIAS].data, (long long)l->chunks, (long long)l->o,
                  (int)k->accumulate[BIAS]);
  }
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(linear, {"linear", {.forward = linear_forward, .backward = linear_backward, .remake = linear_remake, .plan = linear_plan_make}});
