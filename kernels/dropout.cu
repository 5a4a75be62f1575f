/* dropout and drop_path on the GPU (kernels/dropout.c): forward, backward and remake are one kernel each, from the generator's state as it was.
 *
 * dropout: a thread takes as many elements as 16 bytes hold, and one block of the generator's numbers for each four of them; x read once, y written once.
 * drop_path: a row of blocks works on one sample, every thread draws the sample's number; a dropped sample is not read. Elements are numbered as they lie
 * in memory. The forward's second kernel, of one thread, keeps the state for the backward and moves the generator on. */
#include "cuda.cuh"
#include "random.h"

namespace {

enum { X, P, RNG };
enum { Y, STATE };

/* to[i] = from[i] * scale where number i is kept; N elements at once, where they are aligned (N > 1). */
template <class T, int N> __global__ void dropout_kernel(const T *from, T *to, const int64_t *state, int64_t n, uint32_t threshold, unic_wide<T> scale, int accumulate) {
  using W = unic_wide<T>;
  constexpr int M = N < 4 ? 4 : N;   /* elements of a thread: whole blocks of the generator */
  const uint64_t seed = (uint64_t)state[0], counter = (uint64_t)state[1];
  for (int64_t i = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) * M; i < n; i += (int64_t)gridDim.x * blockDim.x * M) {
    uint32_t bits[M];
#pragma unroll
    for (int j = 0; j < M; j += 4) unic_philox(seed, counter + (uint64_t)(i + j) / 4, bits + j);
    if (N > 1 && i + M <= n) {
#pragma unroll
      for (int j = 0; j < M; j += N) {
        unic_pack<T, N> x = *(const unic_pack<T, N> *)(from + i + j), y = {};
        if (accumulate) y = *(unic_pack<T, N> *)(to + i + j);
#pragma unroll
        for (int l = 0; l < N; l++) {
          W v = scale == 0 || bits[j + l] < threshold ? W(0) : unic_widen(x.at[l]) * scale;
          y.at[l] = unic_narrow<T>(accumulate ? unic_widen(y.at[l]) + v : v);
        }
        *(unic_pack<T, N> *)(to + i + j) = y;
      }
    } else {
#pragma unroll
      for (int j = 0; j < M; j++) {
        if (i + j >= n) continue;
        W v = scale == 0 || bits[j] < threshold ? W(0) : unic_widen(from[i + j]) * scale;
        to[i + j] = unic_narrow<T>(accumulate ? unic_widen(to[i + j]) + v : v);
      }
    }
  }
}

/* The samples blockIdx.y, blockIdx.y + gridDim.y, ...; N divides `size`, the elements of a sample. */
template <class T, int N>
__global__ void drop_path_kernel(const T *from, T *to, const int64_t *state, int64_t samples, int64_t size, uint64_t threshold, unic_wide<T> scale, int accumulate) {
  using W = unic_wide<T>;
  const uint64_t seed = (uint64_t)state[0], counter = (uint64_t)state[1];
  for (int64_t s = blockIdx.y; s < samples; s += gridDim.y) {
    const bool dropped = scale == 0 || unic_random_bits(seed, counter, s) < threshold;
    if (dropped && accumulate) continue;
    for (int64_t i = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) * N; i < size; i += (int64_t)gridDim.x * blockDim.x * N) {
      unic_pack<T, N> x = {}, y = {};
      if (!dropped) x = *(const unic_pack<T, N> *)(from + s * size + i);
      if (accumulate) y = *(unic_pack<T, N> *)(to + s * size + i);
#pragma unroll
      for (int l = 0; l < N; l++) {
        W v = dropped ? W(0) : unic_widen(x.at[l]) * scale;
        y.at[l] = unic_narrow<T>(accumulate ? unic_widen(y.at[l]) + v : v);
      }
      *(unic_pack<T, N> *)(to + s * size + i) = y;
    }
  }
}

__global__ void leave_generator(int64_t *rng, int64_t *state, int64_t blocks) {
  if (state) { state[0] = rng[0]; state[1] = rng[1]; }
  rng[1] += blocks;
}

double scale_of(const unic_kernel *k) { return k->arg[P].number < 1 ? 1 / (1 - k->arg[P].number) : 0; }

void drop(const unic_kernel *k, const void *state, const unic_view *from, const unic_view *to, int accumulate) {
  int64_t n = to->numel;
  if (n == 0) return;
  uint64_t threshold = unic_random_threshold(k->arg[P].number);
  if (threshold > 0xffffffffu) threshold = 0xffffffffu;   /* p = 1: the scale is 0, and nothing else matters */
  unic_floats(to->dtype, [&](auto t) {
    using T = decltype(t);
    constexpr int N = unic_vector<T>, M = N < 4 ? 4 : N;
    const T *x = (const T *)from->data;
    T *y = (T *)to->data;
    unsigned grid = unic_blocks(k, (n + M - 1) / M, 256);
    auto scale = (unic_wide<T>)scale_of(k);
    if (unic_aligned16(x, y))
      UNIC_LAUNCH((dropout_kernel<T, N>), grid, 256, 0, unic_cuda_stream(k), x, y, (const int64_t *)state, n, (uint32_t)threshold, scale, accumulate);
    else UNIC_LAUNCH((dropout_kernel<T, 1>), grid, 256, 0, unic_cuda_stream(k), x, y, (const int64_t *)state, n, (uint32_t)threshold, scale, accumulate);
  });
}

void drop_samples(const unic_kernel *k, const void *state, const unic_view *from, const unic_view *to, int accumulate) {
  if (to->numel == 0) return;
  int64_t samples = to->shape[0], size = to->numel / samples;
  unic_floats(to->dtype, [&](auto t) {
    using T = decltype(t);
    constexpr int N = unic_vector<T>;
    const T *x = (const T *)from->data;
    T *y = (T *)to->data;
    uint64_t threshold = unic_random_threshold(k->arg[P].number);
    auto scale = (unic_wide<T>)scale_of(k);
    bool whole = size % N == 0 && unic_aligned16(x, y);
    unsigned rows = samples < 65535 ? (unsigned)samples : 65535u, all = unic_blocks(k, to->numel / (whole ? N : 1), 256), most = (unsigned)((size / (whole ? N : 1) + 255) / 256);
    dim3 grid((all + rows - 1) / rows < most ? (all + rows - 1) / rows : most, rows);
    if (whole) UNIC_LAUNCH((drop_path_kernel<T, N>), grid, 256, 0, unic_cuda_stream(k), x, y, (const int64_t *)state, samples, size, threshold, scale, accumulate);
    else UNIC_LAUNCH((drop_path_kernel<T, 1>), grid, 256, 0, unic_cuda_stream(k), x, y, (const int64_t *)state, samples, size, threshold, scale, accumulate);
  });
}

void leave(const unic_kernel *k, int64_t numbers) {
  UNIC_LAUNCH(leave_generator, 1, 1, 0, unic_cuda_stream(k), (int64_t *)k->in[RNG].data, (int64_t *)k->out[STATE].data,
              k->arg[P].number > 0 ? unic_random_blocks(numbers) : INT64_C(0));
}

unic_status dropout_forward(const unic_kernel *k) {
  drop(k, k->in[RNG].data, &k->in[X], &k->out[Y], 0);
  leave(k, k->in[X].numel);
  return UNIC_OK;
}

unic_status dropout_remake(const unic_kernel *k) {
  drop(k, k->out[STATE].data, &k->in[X], &k->out[Y], 0);
  return UNIC_OK;
}

unic_status dropout_backward(const unic_kernel *k) {
  drop(k, k->out[STATE].data, &k->dout[Y], &k->din[X], k->accumulate[X]);
  return UNIC_OK;
}

unic_status path_forward(const unic_kernel *k) {
  drop_samples(k, k->in[RNG].data, &k->in[X], &k->out[Y], 0);
  leave(k, k->in[X].shape[0]);
  return UNIC_OK;
}

unic_status path_remake(const unic_kernel *k) {
  drop_samples(k, k->out[STATE].data, &k->in[X], &k->out[Y], 0);
  return UNIC_OK;
}

unic_status path_backward(const unic_kernel *k) {
  drop_samples(k, k->out[STATE].data, &k->dout[Y], &k->din[X], k->accumulate[X]);
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(dropout, {"dropout", {.forward = dropout_forward, .backward = dropout_backward, .remake = dropout_remake}},
              {"drop_path", {.forward = path_forward, .backward = path_backward, .remake = path_remake}});
