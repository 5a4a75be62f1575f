/* masked_take on the GPU (kernels/masked_take.c): the elements where the mask is true, in order, and back.
 *
 * Three kernels: true elements are counted by chunks of 4096, one block adds the counts up, and every warp moves its 512 elements to the places that it
 * then knows. Reads the mask twice, x where it is true, writes y once. A mask with another number of true elements than `count` is noted, and nothing is
 * written beyond y. */
#include "convert.cuh"
#include "reduce.cuh"

namespace {

enum { X, MASK, COUNT };
enum { THREADS = 256, WARPS = THREADS / 32, TURNS = 16, CHUNK = THREADS * TURNS, SCAN = 1024 };

/* True elements of this warp's part of a chunk; known to all lanes. */
__device__ __forceinline__ int count_part(const unsigned char *mask, int64_t first, int64_t n) {
  int own = 0;
#pragma unroll
  for (int t = 0; t < TURNS; t++) own += first + 32 * t < n && mask[first + 32 * t];
  for (int o = 16; o; o >>= 1) own += __shfl_xor_sync(0xffffffffu, own, o);
  return own;
}

__global__ void count_chunks(const unsigned char *mask, int64_t n, int64_t chunks, long long *counts) {
  UNIC_SHARED(int, room, [WARPS]);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    int own = count_part(mask, chunk * CHUNK + warp * (32 * TURNS) + lane, n);
    if (lane == 0) room[warp] = own;
    __syncthreads();
    if (threadIdx.x == 0) {
      int all = 0;
      for (int w = 0; w < WARPS; w++) all += room[w];
      counts[chunk] = all;
    }
    __syncthreads();
  }
}

/* Every count becomes the sum of those before it. One block. */
__global__ void add_up(long long *counts, int64_t chunks, long long expected, unic_cuda_flag *flag, int site) {
  UNIC_SHARED(long long, room, [32]);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  long long before = 0;
  for (int64_t at = 0; at < chunks; at += SCAN) {
    const int64_t i = at + threadIdx.x;
    const long long own = i < chunks ? counts[i] : 0;
    long long sum = own;
    for (int o = 1; o < 32; o *= 2) {
      long long other = __shfl_up_sync(0xffffffffu, sum, o);
      if (lane >= o) sum += other;
    }
    if (lane == 31) room[warp] = sum;
    __syncthreads();
    long long warps_before = 0, total = 0;
    for (int w = 0; w < 32; w++) {
      if (w == warp) warps_before = total;
      total += room[w];
    }
    if (i < chunks) counts[i] = before + warps_before + sum - own;
    before += total;
    __syncthreads();
  }
  if (threadIdx.x == 0 && before != expected) unic_note(flag, site, expected, before);
}

/* BACK: dx = (or +=) dy where the mask is true, 0 elsewhere; otherwise y = x. */
template <class T, bool BACK>
__global__ void move_chunks(const unsigned char *mask, const T *from, T *to, int64_t n, int64_t chunks, const long long *places, long long most, int accumulate) {
  UNIC_SHARED(int, room, [WARPS]);
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5;
  for (int64_t chunk = blockIdx.x; chunk < chunks; chunk += gridDim.x) {
    const int64_t first = chunk * CHUNK + warp * (32 * TURNS) + lane;
    int own = count_part(mask, first, n);
    if (lane == 0) room[warp] = own;
    __syncthreads();
    long long at = places[chunk];
    for (int w = 0; w < warp; w++) at += room[w];
    for (int t = 0; t < TURNS; t++) {
      const int64_t i = first + 32 * t;
      const bool is = i < n && mask[i];
      const uint32_t all = __ballot_sync(0xffffffffu, is);
      const long long place = at + __popc(all & ((1u << lane) - 1));
      const bool fits = is && place < most;
      if constexpr (BACK) {
        if (i < n) {
          unic_wide<T> g = fits ? unic_widen(from[place]) : unic_wide<T>(0);
          to[i] = unic_narrow<T>(accumulate ? unic_widen(to[i]) + g : g);
        }
      } else {
        if (fits) to[place] = from[i];
      }
      at += __popc(all);
    }
    __syncthreads();
  }
}

int64_t chunks_of(const unic_kernel *k) { return (k->in[X].numel + CHUNK - 1) / CHUNK; }

unic_status plan(const unic_kernel *k, unic_plan *p) {
  p->scratch = chunks_of(k) * (int64_t)sizeof(long long);
  return UNIC_OK;
}

unic_status run(const unic_kernel *k) {
  const int64_t n = k->in[X].numel, chunks = chunks_of(k), count = k->arg[COUNT].integer;
  const unsigned char *mask = (const unsigned char *)k->in[MASK].data;
  long long *places = (long long *)k->scratch;
  const int site = unic_cuda_site("[masked_take] argument 'count': %lld was given, the mask has %lld true elements");
  cudaStream_t stream = unic_cuda_stream(k);
  unsigned grid = unic_blocks(k, chunks * THREADS, THREADS);
  if (n) UNIC_LAUNCH(count_chunks, grid, THREADS, 0, stream, mask, n, chunks, places);
  UNIC_LAUNCH(add_up, 1, SCAN, 0, stream, places, chunks, (long long)count, unic_cuda_of(k)->flag, site);
  if (n == 0) return UNIC_OK;
  if (k->backward) {
    unic_floats(k->in[X].dtype, [&](auto t) {
      using T = decltype(t);
      UNIC_LAUNCH((move_chunks<T, true>), grid, THREADS, 0, stream, mask, (const T *)k->dout[0].data, (T *)k->din[X].data, n, chunks, (const long long *)places, (long long)count,
                  (int)k->accumulate[X]);
    });
  } else {
    unic_raw(unic_size_of(k->in[X].dtype), [&](auto t) {
      using T = decltype(t);
      UNIC_LAUNCH((move_chunks<T, false>), grid, THREADS, 0, stream, mask, (const T *)k->in[X].data, (T *)k->out[0].data, n, chunks, (const long long *)places, (long long)count, 0);
    });
  }
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(masked_take, {"masked_take", {.forward = run, .backward = run, .plan = plan}});
