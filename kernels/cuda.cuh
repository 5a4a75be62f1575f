/* What every kernels/<op>.cu includes: how kernels are written so that nvcc makes GPU code of them and g++ makes them run on the emulated device
 * (spec/cuda_emu), where each thread is a fiber.
 *
 * A file holds: header comment (which kernels, bytes moved, determinism) -> kernels -> host functions, which are what the CPU's are (unic_kernel_fn:
 * read k->in, launch on unic_cuda_stream(k), allocate nothing, wait for nothing) -> UNIC_CUDA_OPS with one entry per op of kernels/<op>.c.
 *
 * Four rules make a kernel run in both places:
 *   - launches go through UNIC_LAUNCH, static shared arrays through UNIC_SHARED, dynamic ones through UNIC_DYNAMIC;
 *   - PTX stands only in this file;
 *   - warp operations name their mask (__shfl_xor_sync and so on), and every lane named takes part;
 *   - no warp-synchronous guessing: what another thread wrote is read after __syncthreads or __syncwarp.
 * Sums are made in an order that shapes alone decide, so that runs have equal bits: no floating atomics. */
#ifndef UNIC_CUDA_CUH
#define UNIC_CUDA_CUH

#include "cuda/cuda.h"

#ifdef UNIC_CUDA_EMU
#include "emu.h"   /* the same names, on fibers */
#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

/* UNIC_SHARED(float, tile, [8][33]) */
#define UNIC_SHARED(T, name, dims) __shared__ T name dims
/* The dynamic shared memory of the launch as an array of T. */
#define UNIC_DYNAMIC(T, name) extern __shared__ __align__(1024) unsigned char unic_dynamic_[]; T *name = reinterpret_cast<T *>(unic_dynamic_)
/* UNIC_LAUNCH((kernel<T, 4>), grid, block, bytes of dynamic shared memory, stream, arguments...). More than 48 KB of it: unic_allow_shared first. */
#define UNIC_LAUNCH(kernel, grid, block, shared, stream, ...) \
  do { auto unic_kernel_ = &kernel; unic_kernel_<<<(grid), (block), (shared), (stream)>>>(__VA_ARGS__); } while (0)

static __device__ __forceinline__ uint32_t unic_shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* D (16x8, f32) += A (16x16, row-major) * B (16x8, column-major), fragments as the PTX ISA lays them out for mma.m16n8k16: lane = 4 g + t has
 * A: a[0] = (g, 2t..2t+1), a[1] = (g+8, same), a[2] = (g, 2t+8..), a[3] = (g+8, 2t+8..);  B: b[0] = (k 2t..2t+1, column g), b[1] = (k 2t+8.., g);
 * D: d[0..1] = (g, 2t..2t+1), d[2..3] = (g+8, same). */
static __device__ __forceinline__ void unic_mma(float d[4], const uint32_t a[4], const uint32_t b[2], __nv_bfloat16) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
static __device__ __forceinline__ void unic_mma(float d[4], const uint32_t a[4], const uint32_t b[2], __half) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
/* Four 8x8 matrices of 16-bit elements from shared memory: lane 8 j + r gives the address of row r of matrix j (16-byte aligned); r[j] is this lane's
 * part of matrix j: row lane/4, elements 2 (lane%4) and the next; transposed: of the matrix's transpose. */
static __device__ __forceinline__ void unic_ldmatrix_x4(uint32_t r[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(unic_shared_address(row)) : "memory");
}
static __device__ __forceinline__ void unic_ldmatrix_x4_trans(uint32_t r[4], const void *row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(unic_shared_address(row)) : "memory");
}
/* 16 bytes from global to shared memory, both 16-byte aligned; there after unic_copy_wait and a barrier. */
static __device__ __forceinline__ void unic_copy_async16(void *shared, const void *global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(unic_shared_address(shared)), "l"(global) : "memory");
}
static __device__ __forceinline__ void unic_copy_commit(void) { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Wait until at most N of the committed groups are on their way. */
template <int N> static __device__ __forceinline__ void unic_copy_wait(void) { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

#endif

/* 2^x to 2 units in the last place, 0 below 2^-126: one instruction, for weights that are rounded to 16 bits afterwards. */
static __device__ __forceinline__ float unic_exp2(float x) {
#ifdef UNIC_CUDA_EMU
  return exp2f(x);
#else
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
#endif
}

/* An argument that is read where it lies, found by number or not. */
#ifdef UNIC_CUDA_EMU
#define UNIC_ARGUMENT const
#else
#define UNIC_ARGUMENT const __grid_constant__
#endif

/* The table of one file: UNIC_CUDA_OPS(sgd, {"sgd", {.forward = forward}}). */
#define UNIC_CUDA_OPS(file, ...) \
  extern "C" const unic_cuda_op unic_cuda_ops_##file[]; \
  const unic_cuda_op unic_cuda_ops_##file[] = {__VA_ARGS__, {nullptr, {}}}

/* More than 48 KB of dynamic shared memory for a kernel; every launch that needs it calls this before (it costs nothing after the first). */
#define unic_allow_shared(kernel, bytes) \
  unic_cuda_check(cudaFuncSetAttribute((const void *)&kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)(bytes)), "shared memory of " #kernel)

/* ---------------------------------------------------------------- types: what is stored (T), what is computed in (wide) */

template <class T> struct unic_wide_of { using type = float; };
template <> struct unic_wide_of<double> { using type = double; };
template <class T> using unic_wide = typename unic_wide_of<T>::type;
template <class T> constexpr bool unic_is_integer = T(0.5f) == T(0);
template <> constexpr bool unic_is_integer<__nv_bfloat16> = false;
template <> constexpr bool unic_is_integer<__half> = false;

static __host__ __device__ __forceinline__ float unic_widen(float x) { return x; }
static __host__ __device__ __forceinline__ double unic_widen(double x) { return x; }
static __host__ __device__ __forceinline__ float unic_widen(__nv_bfloat16 x) { return __bfloat162float(x); }
static __host__ __device__ __forceinline__ float unic_widen(__half x) { return __half2float(x); }
template <class T> struct unic_narrow_to;
template <> struct unic_narrow_to<float> { static __host__ __device__ __forceinline__ float from(float x) { return x; } };
template <> struct unic_narrow_to<double> { static __host__ __device__ __forceinline__ double from(double x) { return x; } };
template <> struct unic_narrow_to<__nv_bfloat16> { static __host__ __device__ __forceinline__ __nv_bfloat16 from(float x) { return __float2bfloat16_rn(x); } };
template <> struct unic_narrow_to<__half> { static __host__ __device__ __forceinline__ __half from(float x) { return __float2half_rn(x); } };
/* A wide value as T, rounded to nearest even. */
template <class T> static __host__ __device__ __forceinline__ T unic_narrow(unic_wide<T> x) { return unic_narrow_to<T>::from(x); }

/* Call f with a value of the C++ type of a floating dtype: unic_floats(k->type, [&](auto t) { using T = decltype(t); ... }). Returns what f returns. */
template <class F> static inline auto unic_floats(int dtype, F f) {
  switch (dtype) {
    case UNIC_F64: return f(double());
    case UNIC_BF16: return f(__nv_bfloat16());
    case UNIC_F16: return f(__half());
    default: return f(float());
  }
}
/* The same for any dtype; bool is unsigned char, as u8 (told apart by the dtype where it matters). */
template <class F> static inline auto unic_types(int dtype, F f) {
  switch (dtype) {
    case UNIC_I64: return f((long long)0);
    case UNIC_I32: return f((int)0);
    case UNIC_U8:
    case UNIC_BOOL: return f((unsigned char)0);
    default: return unic_floats(dtype, f);
  }
}

/* N elements that move as one (at most 16 bytes at a time). */
template <class T, int N> struct alignas(sizeof(T) * N > 16 ? 16 : sizeof(T) * N) unic_pack { T at[N]; };
/* Elements of T in 16 bytes. */
template <class T> constexpr int unic_vector = 16 / (int)sizeof(T);
/* Whether pointers may be read 16 bytes at a time. */
template <class... P> static inline bool unic_aligned16(const P *...p) { return (((uintptr_t)p | ...) & 15) == 0; }

/* ---------------------------------------------------------------- sums of a warp and of a block */

template <class W> static __device__ __forceinline__ W unic_warp_sum(W v) {
  for (int o = 16; o; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
  return v;
}
/* NaN wins, as everywhere: a maximum that hid it would hide an error. */
template <class W> static __device__ __forceinline__ W unic_larger(W a, W b) { return a > b || a != a ? a : b; }
template <class W> static __device__ __forceinline__ W unic_warp_max(W v) {
  for (int o = 16; o; o >>= 1) v = unic_larger(v, __shfl_xor_sync(0xffffffffu, v, o));
  return v;
}
/* The sum over a one-dimensional block of whole warps (at most 1024 threads), known to every thread. `room`: shared memory for 32 values, free for
 * use again after the call. */
template <class W> static __device__ __forceinline__ W unic_block_sum(W v, W *room) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  v = unic_warp_sum(v);
  if (lane == 0) room[warp] = v;
  __syncthreads();
  v = unic_warp_sum(lane < warps ? room[lane] : W(0));
  __syncthreads();
  return v;
}
template <class W> static __device__ __forceinline__ W unic_block_max(W v, W *room) {
  int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
  v = unic_warp_max(v);
  if (lane == 0) room[warp] = v;
  __syncthreads();
  v = unic_warp_max(room[lane < warps ? lane : 0]);
  __syncthreads();
  return v;
}

/* ---------------------------------------------------------------- launches and values that cannot be */

/* Blocks for n threads of work, at `threads` a block: enough to fill the device a few times over, never more than there is work. Kernels loop over
 * the rest by gridDim.x * blockDim.x. */
static inline unsigned unic_blocks(const unic_kernel *k, int64_t n, int threads) {
  int64_t blocks = (n + threads - 1) / threads, most = (int64_t)unic_cuda_of(k)->processors * (2048 / threads) * 4;
  return (unsigned)(blocks < 1 ? 1 : blocks < most ? blocks : most);
}

/* Note a bad value (the first one since the last synchronisation is told); the kernel goes on with a value that is allowed. */
static __device__ __forceinline__ void unic_note(unic_cuda_flag *flag, int site, long long a, long long b, long long c = 0, long long d = 0) {
  if (atomicCAS(&flag->site, 0, site) != 0) return;
  flag->number[0] = a;
  flag->number[1] = b;
  flag->number[2] = c;
  flag->number[3] = d;
}

#endif
