/* The emulated GPU as kernels see it: included by kernels/cuda.cuh in place of CUDA's device side when UNIC_CUDA_EMU is set, with the same names.
 *
 * A CUDA thread is a fiber (emu.cpp): it runs until it waits for other threads of its block or warp, then another one goes on. float4, __half,
 * __nv_bfloat16 and their host conversions are NVIDIA's own headers'. What helps to find errors:
 *   - shared memory is new for every block, filled with NaN, and aligned no better than its type asks;
 *   - unic_copy_async16 delivers at its wait, and the target holds NaN until then;
 *   - EMU_ORDER=forward|reverse|random (EMU_SEED=n) says in which order threads and blocks run;
 *   - masks, exited lanes, alignment, sizes of blocks and grids, pointers among the arguments, and threads that wait for ever are checked.
 * A failed check ends the launch with a sentence that names kernel, block and thread; the next synchronisation returns it.
 *
 * Not modelled: the speed of anything, bank conflicts, the approximations of __expf and its like (they are exact here), orders of memory finer than
 * barriers. Spinning until another thread writes never ends. */
#ifndef UNIC_EMU_H
#define UNIC_EMU_H

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <tuple>
#include <type_traits>
#include <vector>

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "stream.h"

namespace emu {

/* ---------------------------------------------------------------- the running thread */

extern uint3 thread_index, block_index;
extern dim3 block_size, grid_size;
extern int lane;   /* of the running thread in its warp */

/* For checkers. */
struct Now {
  int thread = -1;                     /* in its block; -1: no kernel runs */
  uint64_t launches = 0, blocks = 0;   /* begun, of the process */
  unsigned barriers = 0, syncs = 0;    /* that the block passed; __syncwarp's that the thread passed */
  const void *stacks = nullptr, *room = nullptr, *room_end = nullptr;   /* threads' stacks end where shared memory begins */
};
extern Now now;

/* Ends the launch: the sentence, with kernel, block and thread before it, becomes the error of the next synchronisation. Never returns. */
[[noreturn]] void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* Wait for the whole block; the answer is how many threads came with a true `value`. */
int barrier(bool value);

/* Wait for the lanes of `mask`. Each brings a request of its own; the last one to come runs finish, which reads and fills all of them
 * (requests[lane]; only the lanes of the mask have one). One finish is one kind of operation: lanes that meet with different ones are an error. */
typedef void meet_fn(void *const *requests, unsigned mask);
void meet(unsigned mask, void *request, meet_fn *finish);

/* A static shared array of this block: the same for all threads that come with the same key. */
void *shared_array(const void *key, size_t bytes, size_t alignment, const char *name);
unsigned char *dynamic_shared(void);
/* Where p lies in the shared memory of the block; an error when it does not. */
uint32_t shared_address(const void *p, size_t bytes);

/* A copy that was begun and is not there yet. */
struct Copy { void *to; const void *from; int group; };
struct Copies { std::vector<Copy> waiting; int group = 0; };
Copies &copies(void);

/* ---------------------------------------------------------------- launches */

/* A launch in the queue of its stream, with its arguments. */
struct Launch : Job {
  dim3 grid, block;
  size_t shared;
  const char *name;
  virtual void thread() const = 0;   /* what one thread does */
  bool run() override;
};

/* What a launch is refused for at once, as a sentence; sets the error that cudaGetLastError returns. */
void launch(std::unique_ptr<Launch> l, const void *kernel, cudaStream_t stream);
/* An argument that is a pointer has to be one into the device's memory, or NULL. */
bool launch_pointer(const char *name, int position, const void *p, cudaStream_t stream);

template <class... P> class Kernel {
 public:
  Kernel(void (*function)(P...), const char *name) : function(function), name(name) {}
  /* P by value: arguments are converted as by a call of the kernel. */
  void operator()(dim3 grid, dim3 block, size_t shared, cudaStream_t stream, P... arguments) const {
    int position = 0;
    if (!(check(++position, arguments, stream) && ...)) return;
    auto l = std::make_unique<Call>();
    l->grid = grid;
    l->block = block;
    l->shared = shared;
    l->name = name;
    l->function = function;
    l->arguments = std::make_unique<std::tuple<P...>>(arguments...);
    launch(std::move(l), (const void *)function, stream);
  }

 private:
  struct Call : Launch {
    void (*function)(P...);
    std::unique_ptr<std::tuple<P...>> arguments;
    void thread() const override { std::apply(function, *arguments); }
  };
  template <class A> bool check(int position, const A &a, cudaStream_t stream) const {
    if constexpr (std::is_pointer_v<A>) return launch_pointer(name, position, (const void *)a, stream);
    return true;
  }
  void (*function)(P...);
  const char *name;
};

}

/* ---------------------------------------------------------------- the words of kernels */

#undef __shared__
#define __shared__ shared_arrays_are_made_by_UNIC_SHARED
#undef __launch_bounds__
#define __launch_bounds__(...)

#define threadIdx (emu::thread_index)
#define blockIdx (emu::block_index)
#define blockDim (emu::block_size)
#define gridDim (emu::grid_size)
static constexpr int warpSize = 32;

#define UNIC_SHARED(T, name, dims)                                                                                          \
  typedef T name##_type_ dims;                                                                                              \
  static char name##_key_;                                                                                                  \
  name##_type_ &name = *static_cast<name##_type_ *>(emu::shared_array(&name##_key_, sizeof(name##_type_), alignof(name##_type_), #name))
#define UNIC_DYNAMIC(T, name) T *name = reinterpret_cast<T *>(emu::dynamic_shared())
#define UNIC_LAUNCH(kernel, grid, block, shared, stream, ...) emu::Kernel(&kernel, #kernel)((grid), (block), (shared), (stream), __VA_ARGS__)

static inline uint32_t unic_shared_address(const void *p) { return emu::shared_address(p, 1); }

static inline void __syncthreads(void) { emu::barrier(false); }
static inline int __syncthreads_count(int value) { return emu::barrier(value != 0); }
static inline int __syncthreads_or(int value) { return emu::barrier(value != 0) != 0; }
static inline int __syncthreads_and(int value) { return emu::barrier(value == 0) == 0; }
static inline void __threadfence(void) {}
static inline void __threadfence_block(void) {}

/* ---------------------------------------------------------------- warps */

namespace emu {

void sync_warp(unsigned mask);

template <class T> struct Shuffle {
  T value;
  int source;
  T result;
  static void finish(void *const *requests, unsigned mask) {
    for (unsigned m = mask; m; m &= m - 1) {
      Shuffle *mine = static_cast<Shuffle *>(requests[std::countr_zero(m)]);
      /* What a lane outside the mask holds is undefined: NaN. */
      if (mask >> mine->source & 1) std::memcpy((void *)&mine->result, (const void *)&static_cast<Shuffle *>(requests[mine->source])->value, sizeof(T));
      else std::memset((void *)&mine->result, 0xff, sizeof(T));
    }
  }
};

template <class T> T shuffle(unsigned mask, T value, int source) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8), "CUDA shuffles 2, 4 and 8 bytes");
  Shuffle<T> s{value, source, value};
  meet(mask, &s, Shuffle<T>::finish);
  return s.result;
}

static inline void check_width(int width) {
  if (width < 1 || width > 32 || (width & (width - 1))) die("the width of a shuffle is %d, not a power of two up to 32", width);
}

enum class Vote { ballot, equal, least, most, sum, all_bits, any_bits, odd_bits };

template <Vote vote, class T> struct Ballot {
  T value;
  T result;
  static void finish(void *const *requests, unsigned mask) {
    T r{};
    bool first = true;
    for (unsigned m = mask; m; m &= m - 1) {
      int at = std::countr_zero(m);
      T v = static_cast<Ballot *>(requests[at])->value;
      if constexpr (vote == Vote::ballot) r |= (T)(v != 0) << at;
      else if (first) r = v;
      else if constexpr (vote == Vote::least) r = v < r ? v : r;
      else if constexpr (vote == Vote::most) r = v > r ? v : r;
      else if constexpr (vote == Vote::sum) r += v;
      else if constexpr (vote == Vote::all_bits) r &= v;
      else if constexpr (vote == Vote::any_bits) r |= v;
      else if constexpr (vote == Vote::odd_bits) r ^= v;
      first = false;
    }
    for (unsigned m = mask; m; m &= m - 1) static_cast<Ballot *>(requests[std::countr_zero(m)])->result = r;
  }
};

template <Vote vote, class T> T ballot(unsigned mask, T value) {
  Ballot<vote, T> b{value, 0};
  meet(mask, &b, Ballot<vote, T>::finish);
  return b.result;
}

template <class T> struct Match {
  T value;
  unsigned result;
  static void finish(void *const *requests, unsigned mask) {
    for (unsigned m = mask; m; m &= m - 1) {
      Match *mine = static_cast<Match *>(requests[std::countr_zero(m)]);
      mine->result = 0;
      for (unsigned o = mask; o; o &= o - 1)
        if (static_cast<Match *>(requests[std::countr_zero(o)])->value == mine->value) mine->result |= o & -o;
    }
  }
};

}

template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  emu::check_width(width);
  return emu::shuffle(mask, value, (emu::lane & ~(width - 1)) | (source & (width - 1)));
}
/* Of the three that follow, a lane whose source is beyond the end of its group keeps its own value, as the instruction does. */
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
  emu::check_width(width);
  int source = emu::lane ^ bits, last = emu::lane | (width - 1);
  return emu::shuffle(mask, value, source > last ? emu::lane : source);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
  emu::check_width(width);
  int within = emu::lane & (width - 1);
  return emu::shuffle(mask, value, (int)by > within ? emu::lane : emu::lane - (int)by);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
  emu::check_width(width);
  int within = emu::lane & (width - 1);
  return emu::shuffle(mask, value, within + (int)by >= width ? emu::lane : emu::lane + (int)by);
}

static inline void __syncwarp(unsigned mask = ~0u) { emu::sync_warp(mask); }
static inline unsigned __ballot_sync(unsigned mask, int value) { return emu::ballot<emu::Vote::ballot, unsigned>(mask, value != 0); }
static inline int __any_sync(unsigned mask, int value) { return __ballot_sync(mask, value) != 0; }
static inline int __all_sync(unsigned mask, int value) { return __ballot_sync(mask, value) == mask; }
template <class T> unsigned __match_any_sync(unsigned mask, T value) {
  emu::Match<T> m{value, 0};
  emu::meet(mask, &m, emu::Match<T>::finish);
  return m.result;
}
static inline unsigned __reduce_add_sync(unsigned mask, unsigned v) { return emu::ballot<emu::Vote::sum>(mask, v); }
static inline unsigned __reduce_min_sync(unsigned mask, unsigned v) { return emu::ballot<emu::Vote::least>(mask, v); }
static inline unsigned __reduce_max_sync(unsigned mask, unsigned v) { return emu::ballot<emu::Vote::most>(mask, v); }
static inline int __reduce_add_sync(unsigned mask, int v) { return (int)emu::ballot<emu::Vote::sum>(mask, (unsigned)v); }
static inline int __reduce_min_sync(unsigned mask, int v) { return emu::ballot<emu::Vote::least>(mask, v); }
static inline int __reduce_max_sync(unsigned mask, int v) { return emu::ballot<emu::Vote::most>(mask, v); }
static inline unsigned __reduce_and_sync(unsigned mask, unsigned v) { return emu::ballot<emu::Vote::all_bits>(mask, v); }
static inline unsigned __reduce_or_sync(unsigned mask, unsigned v) { return emu::ballot<emu::Vote::any_bits>(mask, v); }
static inline unsigned __reduce_xor_sync(unsigned mask, unsigned v) { return emu::ballot<emu::Vote::odd_bits>(mask, v); }

/* ---------------------------------------------------------------- matrices of a warp (fragments: kernels/cuda.cuh) */

namespace emu {

static inline float widen(__nv_bfloat16, uint32_t bits) { return std::bit_cast<float>(bits << 16); }
static inline float widen(__half, uint32_t bits) {
  __half_raw raw;
  raw.x = (unsigned short)bits;
  return __half2float(__half(raw));
}

template <class T> struct Multiply {
  float *d;
  const uint32_t *a, *b;
  static void finish(void *const *requests, unsigned) {
    float a[16][16], b[16][8], d[16][8];   /* row and column of the matrices */
    for (int l = 0; l < 32; l++) {
      const Multiply *m = static_cast<const Multiply *>(requests[l]);
      int g = l >> 2, t = 2 * (l & 3);
      for (int half = 0; half < 2; half++) {
        for (int i = 0; i < 4; i++) a[g + 8 * (i & 1)][t + 8 * (i >> 1) + half] = widen(T(), m->a[i] >> 16 * half & 0xffff);
        for (int i = 0; i < 2; i++) b[t + 8 * i + half][g] = widen(T(), m->b[i] >> 16 * half & 0xffff);
        for (int i = 0; i < 2; i++) d[g + 8 * i][t + half] = m->d[2 * i + half];
      }
    }
    for (int i = 0; i < 16; i++)
      for (int k = 0; k < 16; k++)
        for (int j = 0; j < 8; j++) d[i][j] += a[i][k] * b[k][j];
    for (int l = 0; l < 32; l++) {
      const Multiply *m = static_cast<const Multiply *>(requests[l]);
      int g = l >> 2, t = 2 * (l & 3);
      for (int i = 0; i < 4; i++) m->d[i] = d[g + 8 * (i >> 1)][t + (i & 1)];
    }
  }
};

template <class T> void multiply(float d[4], const uint32_t a[4], const uint32_t b[2]) {
  Multiply<T> m{d, a, b};
  meet(~0u, &m, Multiply<T>::finish);
}

struct Load {
  const void *row;
  uint32_t *r;
  template <bool transposed> static void finish(void *const *requests, unsigned) {
    for (int l = 0; l < 32; l++)
      for (int j = 0; j < 4; j++) {
        auto row = [&](int i) { return static_cast<const uint16_t *>(static_cast<const Load *>(requests[8 * j + i])->row); };
        int g = l >> 2, t = 2 * (l & 3);
        static_cast<const Load *>(requests[l])->r[j] = transposed ? row(t)[g] | (uint32_t)row(t + 1)[g] << 16 : row(g)[t] | (uint32_t)row(g)[t + 1] << 16;
      }
  }
};

/* What a checker of races hears of accesses that no instruction of the kernel makes. */
#ifdef UNIC_EMU_RACE
void seen(const void *p, size_t bytes, bool write);
#else
static inline void seen(const void *, size_t, bool) {}
#endif

template <bool transposed> void load_matrix(uint32_t r[4], const void *row) {
  if ((uintptr_t)row & 15) die("unic_ldmatrix: the row's address is not a multiple of 16 bytes");
  shared_address(row, 16);
  seen(row, 16, false);
  Load l{row, r};
  meet(~0u, &l, Load::finish<transposed>);
}

}

static inline void unic_mma(float d[4], const uint32_t a[4], const uint32_t b[2], __nv_bfloat16) { emu::multiply<__nv_bfloat16>(d, a, b); }
static inline void unic_mma(float d[4], const uint32_t a[4], const uint32_t b[2], __half) { emu::multiply<__half>(d, a, b); }
static inline void unic_ldmatrix_x4(uint32_t r[4], const void *row) { emu::load_matrix<false>(r, row); }
static inline void unic_ldmatrix_x4_trans(uint32_t r[4], const void *row) { emu::load_matrix<true>(r, row); }

static inline void unic_copy_async16(void *shared, const void *global) {
  if (((uintptr_t)shared | (uintptr_t)global) & 15) emu::die("unic_copy_async16: an address is not a multiple of 16 bytes");
  emu::shared_address(shared, 16);
  emu::Copies &c = emu::copies();
  emu::seen(global, 16, false);
  emu::seen(shared, 16, true);
  (void)*(const volatile unsigned char *)global;   /* memory that is not there is an error here, not at the wait */
  std::memset(shared, 0xff, 16);
  c.waiting.push_back({shared, global, c.group});
}
static inline void unic_copy_commit(void) { emu::copies().group++; }
template <int N> static inline void unic_copy_wait(void) {
  emu::Copies &c = emu::copies();
  size_t kept = 0;
  for (const emu::Copy &copy : c.waiting) {
    if (copy.group >= c.group - N) {
      c.waiting[kept++] = copy;
      continue;
    }
    emu::seen(copy.to, 16, true);
    std::memcpy(copy.to, copy.from, 16);
  }
  c.waiting.resize(kept);
}

/* ---------------------------------------------------------------- atomics */

namespace emu {

template <class T> using bits_of = std::conditional_t<sizeof(T) == 4, uint32_t, uint64_t>;

/* *p = change(*p), and what it was. */
template <class T, class F> T atomic(T *p, F change) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8);
  if ((uintptr_t)p % sizeof(T)) die("an atomic's address is not a multiple of %zu bytes", sizeof(T));
  bits_of<T> *bits = reinterpret_cast<bits_of<T> *>(p), old = __atomic_load_n(bits, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(bits, &old, std::bit_cast<bits_of<T>>(change(std::bit_cast<T>(old))), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {}
  return std::bit_cast<T>(old);
}
/* The second argument of an atomic is converted to what the first points to, as by CUDA's overloads. */
template <class T> using same = std::type_identity_t<T>;

}

template <class T> T atomicAdd(T *p, emu::same<T> v) { return emu::atomic(p, [v](T old) { return (T)(old + v); }); }
template <class T> T atomicSub(T *p, emu::same<T> v) { return emu::atomic(p, [v](T old) { return (T)(old - v); }); }
template <class T> T atomicMax(T *p, emu::same<T> v) { static_assert(std::is_integral_v<T>); return emu::atomic(p, [v](T old) { return old > v ? old : v; }); }
template <class T> T atomicMin(T *p, emu::same<T> v) { static_assert(std::is_integral_v<T>); return emu::atomic(p, [v](T old) { return old < v ? old : v; }); }
template <class T> T atomicAnd(T *p, emu::same<T> v) { static_assert(std::is_integral_v<T>); return emu::atomic(p, [v](T old) { return (T)(old & v); }); }
template <class T> T atomicOr(T *p, emu::same<T> v) { static_assert(std::is_integral_v<T>); return emu::atomic(p, [v](T old) { return (T)(old | v); }); }
template <class T> T atomicXor(T *p, emu::same<T> v) { static_assert(std::is_integral_v<T>); return emu::atomic(p, [v](T old) { return (T)(old ^ v); }); }
template <class T> T atomicExch(T *p, emu::same<T> v) { return emu::atomic(p, [v](T) { return v; }); }
template <class T> T atomicCAS(T *p, emu::same<T> expected, emu::same<T> v) {
  static_assert(std::is_integral_v<T>);
  return emu::atomic(p, [expected, v](T old) { return old == expected ? v : old; });
}
static inline unsigned atomicInc(unsigned *p, unsigned most) { return emu::atomic(p, [most](unsigned old) { return old >= most ? 0u : old + 1; }); }

/* ---------------------------------------------------------------- functions that g++ does not know */

template <class T> T __ldg(const T *p) { return *p; }
template <class T> T __ldcs(const T *p) { return *p; }
template <class T> T __ldcg(const T *p) { return *p; }
template <class T> T __ldca(const T *p) { return *p; }
template <class T> void __stcs(T *p, emu::same<T> v) { *p = v; }
template <class T> void __stcg(T *p, emu::same<T> v) { *p = v; }
template <class T> void __stwt(T *p, emu::same<T> v) { *p = v; }

#include "math.cuh"

#endif
