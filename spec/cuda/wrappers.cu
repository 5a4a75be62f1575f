/* Each PTX wrapper of kernels/cuda.cuh alone, against values worked out on the host: mma (bf16, f16), ldmatrix and its transposed form, cp.async.
 * A program of its own: `./unic check gpu` builds it with nvcc and runs it on the GPU; .ci/run compiles it so, and runs it on the emulated device.
 * Prints a line per wrapper, `pass|short wrappers.NAME error limit`. */
#include "cuda.cuh"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <vector>

namespace {

int bad = 0;
cudaStream_t stream;

void tell(const char *name, double error, double most) {
  bool ok = error <= most;   /* false for NaN */
  printf("%s wrappers.%s %.3g <=%.3g\n", ok ? "pass" : "short", name, error, most);
  bad += !ok;
}

void check(cudaError_t e, const char *what) {
  if (e == cudaSuccess) return;
  printf("short wrappers.%s %s\n", what, cudaGetErrorString(e));
  exit(1);
}

template <class T> struct array {
  T *device = nullptr;
  std::vector<T> host;
  explicit array(size_t n) : host(n) { check(cudaMalloc((void **)&device, n * sizeof(T)), "cudaMalloc"); }
  ~array() { cudaFree(device); }
  void up() { check(cudaMemcpyAsync(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice, stream), "upload"); }
  void down() {
    check(cudaMemcpyAsync(host.data(), device, host.size() * sizeof(T), cudaMemcpyDeviceToHost, stream), "download");
    check(cudaStreamSynchronize(stream), "synchronize");
  }
};

/* D = A B + D: A 16x16 row by row, B 16x8 row by row, D 16x8, from and to plain memory by the layout that cuda.cuh states. */
template <class T> __global__ void mma_kernel(const T *a, const T *b, float *d) {
  int lane = threadIdx.x, g = lane >> 2, t = lane & 3;
  auto two = [](T low, T high) {
    T both[2] = {low, high};
    uint32_t word;
    memcpy(&word, both, 4);
    return word;
  };
  uint32_t fa[4], fb[2];
  for (int i = 0; i < 4; i++) {
    int row = g + (i & 1) * 8, column = 2 * t + (i >> 1) * 8;
    fa[i] = two(a[row * 16 + column], a[row * 16 + column + 1]);
  }
  for (int i = 0; i < 2; i++) fb[i] = two(b[(2 * t + 8 * i) * 8 + g], b[(2 * t + 8 * i + 1) * 8 + g]);
  float f[4] = {d[g * 8 + 2 * t], d[g * 8 + 2 * t + 1], d[(g + 8) * 8 + 2 * t], d[(g + 8) * 8 + 2 * t + 1]};
  unic_mma(f, fa, fb, T());
  d[g * 8 + 2 * t] = f[0];
  d[g * 8 + 2 * t + 1] = f[1];
  d[(g + 8) * 8 + 2 * t] = f[2];
  d[(g + 8) * 8 + 2 * t + 1] = f[3];
}

template <class T> void try_mma(const char *name) {
  array<T> a(256), b(128);
  array<float> d(128);
  for (int i = 0; i < 256; i++) a.host[i] = unic_narrow<T>((float)((i * 37 % 61) - 30) / 16);
  for (int i = 0; i < 128; i++) b.host[i] = unic_narrow<T>((float)((i * 53 % 47) - 23) / 32);
  for (int i = 0; i < 128; i++) d.host[i] = (float)(i % 13) - 6;
  double want[128];
  for (int r = 0; r < 16; r++)
    for (int c = 0; c < 8; c++) {
      want[r * 8 + c] = d.host[r * 8 + c];
      for (int k = 0; k < 16; k++) want[r * 8 + c] += (double)unic_widen(a.host[r * 16 + k]) * (double)unic_widen(b.host[k * 8 + c]);
    }
  a.up();
  b.up();
  d.up();
  UNIC_LAUNCH((mma_kernel<T>), 1, 32, 0, stream, a.device, b.device, d.device);
  d.down();
  double error = 0;
  for (int i = 0; i < 128; i++) error = fmax(error, std::isnan(d.host[i]) ? INFINITY : fabs(d.host[i] - want[i]));
  tell(name, error, 0);   /* all products and sums are exact in f32 */
}

/* What each lane gets, four words a lane. */
__global__ void ldmatrix_kernel(const uint16_t *from, uint32_t *to, int transposed) {
  struct alignas(16) row { uint16_t at[8]; };
  UNIC_SHARED(row, tile, [32]);
  for (int i = 0; i < 8; i++) tile[threadIdx.x].at[i] = from[threadIdx.x * 8 + i];
  __syncthreads();
  uint32_t r[4];
  if (transposed) unic_ldmatrix_x4_trans(r, &tile[threadIdx.x]);
  else unic_ldmatrix_x4(r, &tile[threadIdx.x]);
  for (int i = 0; i < 4; i++) to[threadIdx.x * 4 + i] = r[i];
}

void try_ldmatrix(int transposed) {
  array<uint16_t> from(256);
  array<uint32_t> to(128);
  for (int i = 0; i < 256; i++) from.host[i] = (uint16_t)(i * 7 + 1);
  from.up();
  UNIC_LAUNCH(ldmatrix_kernel, 1, 32, 0, stream, from.device, to.device, transposed);
  to.down();
  int wrong = 0;
  for (int lane = 0; lane < 32; lane++)
    for (int j = 0; j < 4; j++)
      for (int half = 0; half < 2; half++) {
        int row = lane / 4, column = 2 * (lane % 4) + half;
        uint16_t want = from.host[(8 * j + (transposed ? column : row)) * 8 + (transposed ? row : column)];
        wrong += (uint16_t)(to.host[lane * 4 + j] >> (16 * half)) != want;
      }
  tell(transposed ? "ldmatrix_trans_wrong" : "ldmatrix_wrong", wrong, 0);
}

/* Three groups of copies on their way at once, waited for one by one. */
__global__ void copy_kernel(const float4 *from, float4 *to) {
  UNIC_SHARED(float4, tile, [3][64]);
  for (int g = 0; g < 3; g++) {
    unic_copy_async16(&tile[g][threadIdx.x], &from[g * 64 + threadIdx.x]);
    unic_copy_commit();
  }
  unic_copy_wait<2>();
  __syncthreads();
  to[threadIdx.x] = tile[0][63 - threadIdx.x];
  unic_copy_wait<1>();
  __syncthreads();
  to[64 + threadIdx.x] = tile[1][63 - threadIdx.x];
  unic_copy_wait<0>();
  __syncthreads();
  to[128 + threadIdx.x] = tile[2][63 - threadIdx.x];
}

void try_copy() {
  array<float4> from(192), to(192);
  for (int i = 0; i < 192; i++) from.host[i] = make_float4((float)i, (float)-i, (float)i * 2, (float)i / 2);
  from.up();
  UNIC_LAUNCH(copy_kernel, 1, 64, 0, stream, from.device, to.device);
  to.down();
  int wrong = 0;
  for (int i = 0; i < 192; i++) wrong += memcmp(&to.host[i], &from.host[i / 64 * 64 + 63 - i % 64], sizeof(float4)) != 0;
  tell("copy_async_wrong", wrong, 0);
}

}

int main() {
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  try_mma<__nv_bfloat16>("mma_bf16_error");
  try_mma<__half>("mma_f16_error");
  try_ldmatrix(0);
  try_ldmatrix(1);
  try_copy();
  return bad > 0;
}
