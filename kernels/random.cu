/* Random fills on the GPU (kernels/random.c): uniform_, normal_, randint_, bernoulli_.
 *
 * A thread draws four numbers of the stream, which lie side by side in row-major order, and writes them (16 bytes of f32 at once where x is dense). The
 * generator's state {seed, counter} is read where it lies, and a kernel of one thread moves the counter on afterwards. Bytes: x written once. The numbers
 * are the CPU's: Philox's words, turned into values by the same arithmetic in f64. */
#include "cuda.cuh"
#include "precise64.h"
#include "random.h"

namespace {

enum { X, A, B, RNG };
enum { RNG_BERNOULLI = 2 };

/* x in the order of the stream: its dimensions as they are, merged where one goes on where the next ends. */
struct places {
  int64_t numel, shape[UNIC_MAX_RANK], stride[UNIC_MAX_RANK];
  int ndim;
};

__device__ __forceinline__ int64_t place(const places &p, int64_t i) {
  int64_t at = 0;
  for (int d = p.ndim - 1; d > 0; d--) {
    int64_t above = i / p.shape[d];
    at += (i - above * p.shape[d]) * p.stride[d];
    i = above;
  }
  return at + i * p.stride[0];
}

/* f64 is rounded once, also to bf16 and f16. */
template <class T> __device__ __forceinline__ T stored(double v) { return (T)v; }
template <> __device__ __forceinline__ __nv_bfloat16 stored<__nv_bfloat16>(double v) { return __double2bfloat16(v); }
template <> __device__ __forceinline__ __half stored<__half>(double v) { return __double2half(v); }
template <class T> __device__ __forceinline__ T stored(long long v) {
  if constexpr (unic_is_integer<T>) return (T)v;
  else return stored<T>((double)v);
}

/* The distributions: values 4 block .. 4 block + 3 of a stream. */
struct uniform {
  using value = double;
  double low, width;   /* width of one of the 2^kept steps */
  int drop;
  __device__ __forceinline__ void four(uint64_t seed, uint64_t counter, int64_t block, double v[4]) const {
    uint32_t bits[4];
    unic_philox(seed, counter + (uint64_t)block, bits);
#pragma unroll
    for (int j = 0; j < 4; j++) v[j] = low + width * (double)(int32_t)(bits[j] >> drop);
  }
};

/* 53 bits of two numbers as a whole number in f64. */
__device__ __forceinline__ double whole53(uint32_t high, uint32_t low) { return (double)high * 2097152.0 + (double)(int32_t)(low >> 11); }

struct normal {
  using value = double;
  double mean, std;
  __device__ __forceinline__ void four(uint64_t seed, uint64_t counter, int64_t block, double v[4]) const {
#pragma unroll
    for (int j = 0; j < 4; j += 2) {   /* a block of the generator makes two */
      uint32_t bits[4];
      unic_philox(seed, counter + (uint64_t)(2 * block + j / 2), bits);
      double u = (whole53(bits[0], bits[1]) + 1) * 0x1p-53, w = whole53(bits[2], bits[3]) * 0x1p-53, sine, cosine;
      double r = std * sqrt(-2 * unic_log_normal(u));
      unic_sincos_turns(w, &sine, &cosine);
      v[j] = mean + r * cosine;
      v[j + 1] = mean + r * sine;
    }
  }
};

struct integers {
  using value = long long;
  long long low;
  uint64_t range;   /* at most 2^32: the product fits */
  bool truth;       /* x is of bools */
  __device__ __forceinline__ void four(uint64_t seed, uint64_t counter, int64_t block, long long v[4]) const {
    uint32_t bits[4];
    unic_philox(seed, counter + (uint64_t)block, bits);
#pragma unroll
    for (int j = 0; j < 4; j++) {
      v[j] = low + (long long)((range * bits[j]) >> 32);
      if (truth) v[j] = v[j] != 0;
    }
  }
};

struct bernoulli {
  using value = long long;
  uint64_t threshold;
  __device__ __forceinline__ void four(uint64_t seed, uint64_t counter, int64_t block, long long v[4]) const {
    uint32_t bits[4];
    unic_philox(seed, counter + (uint64_t)block, bits);
#pragma unroll
    for (int j = 0; j < 4; j++) v[j] = bits[j] < threshold;
  }
};

/* x: numel elements at their places; DENSE: one after the other, aligned to 16 bytes. */
template <class T, class D, bool DENSE> __global__ void draw(T *x, places p, D d, const int64_t *state) {
  const uint64_t seed = (uint64_t)state[0], counter = (uint64_t)state[1];
  const int64_t blocks = (p.numel + 3) / 4;
  for (int64_t b = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; b < blocks; b += (int64_t)gridDim.x * blockDim.x) {
    typename D::value v[4];
    d.four(seed, counter, b, v);
    if (DENSE && 4 * b + 4 <= p.numel) {
      unic_pack<T, 4> out;
#pragma unroll
      for (int j = 0; j < 4; j++) out.at[j] = stored<T>(v[j]);
      ((unic_pack<T, 4> *)x)[b] = out;
    } else {
#pragma unroll
      for (int j = 0; j < 4; j++)
        if (4 * b + j < p.numel) x[DENSE ? 4 * b + j : place(p, 4 * b + j)] = stored<T>(v[j]);
    }
  }
}

__global__ void move_on(int64_t *state, int64_t blocks) { state[1] += blocks; }

template <class T, class D> void launch(const unic_kernel *k, int rng, const D &d, int64_t blocks) {
  const unic_view *x = &k->in[X];
  if (x->numel == 0) return;
  places p = {};
  p.numel = x->numel;
  for (int i = 0; i < x->ndim; i++) {
    if (x->shape[i] == 1) continue;
    if (p.ndim && p.stride[p.ndim - 1] == x->stride[i] * x->shape[i]) {
      p.shape[p.ndim - 1] *= x->shape[i];
      p.stride[p.ndim - 1] = x->stride[i];
    } else {
      p.shape[p.ndim] = x->shape[i];
      p.stride[p.ndim++] = x->stride[i];
    }
  }
  if (p.ndim == 0) { p.ndim = 1; p.shape[0] = p.stride[0] = 1; }
  T *data = (T *)x->data;
  int64_t *state = (int64_t *)k->in[rng].data;
  cudaStream_t stream = unic_cuda_stream(k);
  unsigned grid = unic_blocks(k, (p.numel + 3) / 4, 256);
  if (p.ndim == 1 && p.stride[0] == 1 && unic_aligned16(data)) UNIC_LAUNCH((draw<T, D, true>), grid, 256, 0, stream, data, p, d, (const int64_t *)state);
  else UNIC_LAUNCH((draw<T, D, false>), grid, 256, 0, stream, data, p, d, (const int64_t *)state);
  UNIC_LAUNCH(move_on, 1, 1, 0, stream, state, blocks);
}

unic_status uniform_forward(const unic_kernel *k) {
  const int dtype = k->in[X].dtype, kept = dtype == UNIC_BF16 ? 8 : dtype == UNIC_F16 ? 11 : 24;
  uniform d = {k->arg[A].number, (k->arg[B].number - k->arg[A].number) / (double)(1 << kept), 32 - kept};
  unic_floats(dtype, [&](auto t) { launch<decltype(t)>(k, RNG, d, unic_random_blocks(k->in[X].numel)); });
  return UNIC_OK;
}

unic_status normal_forward(const unic_kernel *k) {
  normal d = {k->arg[A].number, k->arg[B].number};
  unic_floats(k->in[X].dtype, [&](auto t) { launch<decltype(t)>(k, RNG, d, (k->in[X].numel + 1) / 2); });
  return UNIC_OK;
}

unic_status randint_forward(const unic_kernel *k) {
  integers d = {k->arg[A].integer, (uint64_t)(k->arg[B].integer - k->arg[A].integer), k->in[X].dtype == UNIC_BOOL};
  unic_types(k->in[X].dtype, [&](auto t) { launch<decltype(t)>(k, RNG, d, unic_random_blocks(k->in[X].numel)); });
  return UNIC_OK;
}

unic_status bernoulli_forward(const unic_kernel *k) {
  bernoulli d = {unic_random_threshold(k->arg[A].number)};
  unic_types(k->in[X].dtype, [&](auto t) { launch<decltype(t)>(k, RNG_BERNOULLI, d, unic_random_blocks(k->in[X].numel)); });
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(random, {"uniform_", {.forward = uniform_forward}}, {"normal_", {.forward = normal_forward}}, {"randint_", {.forward = randint_forward}},
              {"bernoulli_", {.forward = bernoulli_forward}});
