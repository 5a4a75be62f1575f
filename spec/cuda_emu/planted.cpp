/* Kernels with planted faults, and calls that the runtime has to refuse: what spec/runtime/cuda_spec.lua and `./unic check cuda_race` expect the emulated
 * device to find. unic_emu_planted runs one by its name. */
#include "cuda.cuh"

#include <cstdio>

namespace {

/* Sums 64 numbers by halves; `fault` names the barrier that is left out. */
__global__ void sum_by_halves(const float *x, float *y, int fault) {
  UNIC_SHARED(float, part, [64]);
  int i = threadIdx.x;
  part[i] = x[i];
  if (fault != 1) __syncthreads();
  for (int half = 32; half; half /= 2) {
    if (i < half) part[i] += part[i + half];
    if (fault != 2) __syncthreads();
  }
  if (i == 0) *y = part[0];
}

__global__ void through_the_warp(const float *x, float *y, int fault) {
  UNIC_SHARED(float, part, [32]);
  int i = threadIdx.x;
  part[i] = x[i];
  if (!fault) __syncwarp();
  y[i] = part[i ^ 1];
}

__global__ void blocks_meet(float *y, int fault) { y[fault ? 0 : blockIdx.x] = blockIdx.x; }

__global__ void counts(int *y) { atomicAdd(y, 1); }

__global__ void halves_of_a_word(__half *y) { y[threadIdx.x] = __float2half(1.0f); }

__global__ void beyond_the_array(float *y) {
  UNIC_SHARED(float, part, [32]);
  part[threadIdx.x + 1] = 1.0f;   /* the last one is outside */
  __syncthreads();
  y[threadIdx.x] = part[threadIdx.x];
}

__global__ void beyond_the_tensor(const float *x, float *y, int64_t n) { y[threadIdx.x] = x[threadIdx.x + n - 31]; }

__global__ void without_wait(const float *x, float *y) {
  UNIC_SHARED(__align__(16) float, part, [32]);
  if (threadIdx.x < 8) unic_copy_async16(part + 4 * threadIdx.x, x + 4 * threadIdx.x);
  unic_copy_commit();
  __syncthreads();
  y[threadIdx.x] = part[threadIdx.x];
}

__global__ void absent_lane(int *y) {
  if (threadIdx.x < 16) y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, (int)threadIdx.x, 1);
}

__global__ void outside_its_mask(int *y) { y[threadIdx.x] = __shfl_xor_sync(0xffffu, (int)threadIdx.x, 1); }

__global__ void two_operations(int *y) {
  if (threadIdx.x < 16) __syncwarp();
  else y[0] = __any_sync(0xffffffffu, 1);
}

__global__ void half_at_the_barrier(int *y) {
  if (threadIdx.x < 32) __syncthreads();
  else if (threadIdx.x == 32) __syncwarp(3u);
  else if (threadIdx.x == 33) __syncthreads();
  y[0] = 1;
}

__global__ void far_away(int *) { *reinterpret_cast<volatile int *>(0x1000) = 1; }

__global__ void odd_address(float *y) { atomicAdd(reinterpret_cast<int *>(reinterpret_cast<char *>(y) + 2), 1); }

__global__ void much_static(float *y) {
  UNIC_SHARED(float, part, [13000]);
  part[threadIdx.x] = 0;
  y[threadIdx.x] = part[threadIdx.x];
}

__global__ void nothing(float *) {}

struct Case {
  const char *name;
  void (*run)(float *x, float *y, cudaStream_t s);   /* x: 64 ones, y: 64 zeros */
};

void on_host(float *x, float *y, cudaStream_t s) {
  static float host[4];
  UNIC_LAUNCH(nothing, 1, 32, 0, s, host);
}
void copy_up_from_device(float *x, float *y, cudaStream_t s) { (void)cudaMemcpyAsync(y, x, 16, cudaMemcpyHostToDevice, s); }
void copy_down_to_device(float *x, float *y, cudaStream_t s) { (void)cudaMemcpyAsync(y, x, 16, cudaMemcpyDeviceToHost, s); }
void clear_host(float *x, float *y, cudaStream_t s) {
  static float host[4];
  (void)cudaMemsetAsync(host, 0, sizeof host, s);
}
void wait_in_capture(float *x, float *y, cudaStream_t s) {
  cudaGraph_t graph;
  (void)cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal);
  (void)cudaStreamSynchronize(s);
  (void)cudaStreamEndCapture(s, &graph);
}

const Case cases[] = {
  {"correct", [](float *x, float *y, cudaStream_t s) {
    UNIC_LAUNCH(sum_by_halves, 1, 64, 0, s, x, y, 0);
    UNIC_LAUNCH(through_the_warp, 1, 32, 0, s, x, y, 0);
    UNIC_LAUNCH(blocks_meet, 4, 1, 0, s, y, 0);
    UNIC_LAUNCH(counts, 4, 64, 0, s, (int *)y);
    UNIC_LAUNCH(halves_of_a_word, 1, 64, 0, s, (__half *)y);
  }},
  {"first barrier", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(sum_by_halves, 1, 64, 0, s, x, y, 1); }},
  {"later barriers", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(sum_by_halves, 1, 64, 0, s, x, y, 2); }},
  {"warp", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(through_the_warp, 1, 32, 0, s, x, y, 1); }},
  {"blocks", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(blocks_meet, 4, 1, 0, s, y, 1); }},
  {"beyond the array", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(beyond_the_array, 1, 32, 0, s, y); }},
  {"beyond the tensor", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(beyond_the_tensor, 1, 32, 0, s, x, y, 64); }},
  {"no wait", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(without_wait, 1, 32, 0, s, x, y); }},
  {"absent lane", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(absent_lane, 1, 32, 0, s, (int *)y); }},
  {"own mask", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(outside_its_mask, 1, 32, 0, s, (int *)y); }},
  {"two operations", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(two_operations, 1, 32, 0, s, (int *)y); }},
  {"half at the barrier", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(half_at_the_barrier, 1, 64, 0, s, (int *)y); }},
  {"far away", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(far_away, 1, 32, 0, s, (int *)y); }},
  {"odd address", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(odd_address, 1, 32, 0, s, y); }},
  {"much static", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(much_static, 1, 32, 0, s, y); }},
  {"much dynamic", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(nothing, 1, 32, 50000, s, y); }},
  {"no blocks", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(nothing, 0, 32, 0, s, y); }},
  {"large block", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(nothing, 1, 1025, 0, s, y); }},
  {"no stream", [](float *x, float *y, cudaStream_t s) { UNIC_LAUNCH(nothing, 1, 32, 0, (cudaStream_t) nullptr, y); }},
  {"host pointer", on_host},
  {"copy up from the device", copy_up_from_device},
  {"copy down to the device", copy_down_to_device},
  {"clear the host", clear_host},
  {"wait in a capture", wait_in_capture},
};

}

/* What the device says about a case: "" when nothing. NULL: there is no such case. */
extern "C" __attribute__((visibility("default"))) const char *unic_emu_planted(const char *name);
extern "C" const char *unic_emu_planted(const char *name) {
  static char answer[1024];
  for (const Case &c : cases) {
    if (strcmp(c.name, name) != 0) continue;
    cudaStream_t s;
    float *x, *y, ones[64], zeros[64] = {};
    for (float &v : ones) v = 1.0f;
    (void)cudaSetDevice(0);
    (void)cudaGetLastError();
    (void)cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking);
    (void)cudaMalloc((void **)&x, sizeof ones);
    (void)cudaMalloc((void **)&y, sizeof zeros);
    (void)cudaMemcpyAsync(x, ones, sizeof ones, cudaMemcpyHostToDevice, s);
    (void)cudaMemcpyAsync(y, zeros, sizeof zeros, cudaMemcpyHostToDevice, s);
    c.run(x, y, s);
    cudaError_t error = cudaGetLastError();
    if (error == cudaSuccess) error = cudaStreamSynchronize(s);
    snprintf(answer, sizeof answer, "%s", error == cudaSuccess ? "" : cudaGetErrorString(error));
    (void)cudaFree(x);
    (void)cudaFree(y);
    (void)cudaStreamDestroy(s);
    return answer;
  }
  return nullptr;
}
