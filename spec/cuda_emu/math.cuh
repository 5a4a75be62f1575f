/* Part of emu.h: CUDA's mathematical functions and bit operations that the C library lacks. The fast ones (__expf, ...) are exact here. */

/* The C library has functions of its own by some of these names, hence macros. */
#define __expf(x) expf(x)
#define __exp10f(x) powf(10.0f, x)
#define __logf(x) logf(x)
#define __log2f(x) log2f(x)
#define __log10f(x) log10f(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __tanf(x) tanf(x)
#define __powf(x, y) powf(x, y)
#define __fdividef(x, y) ((float)(x) / (float)(y))
#define __sincosf(x, s, c) sincosf(x, s, c)

static inline float rsqrtf(float x) { return (float)(1.0 / std::sqrt((double)x)); }
static inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
static inline float rsqrt(float x) { return rsqrtf(x); }
static inline float rcbrtf(float x) { return 1.0f / std::cbrt(x); }
static inline double rcbrt(double x) { return 1.0 / std::cbrt(x); }
static inline float fdividef(float x, float y) { return x / y; }
static inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1.0f : 0.0f; }   /* NaN gives 0, as on the GPU */

namespace emu {

/* sin and cos of pi x: x reduced exactly first. */
template <class T> T sine_pi(T x) {
  T r = std::fmod(x, T(2));
  if (r > 1) r -= 2;
  if (r < -1) r += 2;
  if (r == 1 || r == -1 || r == 0) return std::copysign(T(0), x);
  if (r > T(0.5)) r = 1 - r;
  else if (r < T(-0.5)) r = -1 - r;
  return (T)std::sin(3.14159265358979323846 * (double)r);
}
template <class T> T cosine_pi(T x) {
  T r = std::fabs(std::fmod(x, T(2)));
  if (r > 1) r = 2 - r;
  if (r == T(0.5)) return T(0);
  return (T)(r < T(0.5) ? std::cos(3.14159265358979323846 * (double)r) : -std::cos(3.14159265358979323846 * (double)(1 - r)));
}

}

static inline float sinpif(float x) { return emu::sine_pi(x); }
static inline float cospif(float x) { return emu::cosine_pi(x); }
static inline double sinpi(double x) { return emu::sine_pi(x); }
static inline double cospi(double x) { return emu::cosine_pi(x); }
static inline void sincospif(float x, float *s, float *c) { *s = sinpif(x), *c = cospif(x); }
static inline void sincospi(double x, double *s, double *c) { *s = sinpi(x), *c = cospi(x); }
static inline float normcdff(float x) { return (float)(0.5 * std::erfc(-(double)x * 0.70710678118654752440)); }
static inline double normcdf(double x) { return 0.5 * std::erfc(-x * 0.70710678118654752440); }

/* Rounded once. */
static inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
static inline double __fma_rn(double x, double y, double z) { return std::fma(x, y, z); }
/* Never fused with a neighbour: the emulated build is for processors without such an instruction. */
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dsub_rn(double x, double y) { return x - y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline double __ddiv_rn(double x, double y) { return x / y; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return std::sqrt(x); }
static inline float __frsqrt_rn(float x) { return rsqrtf(x); }

static inline int __float_as_int(float x) { return std::bit_cast<int>(x); }
static inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
static inline float __int_as_float(int x) { return std::bit_cast<float>(x); }
static inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
static inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
static inline double __longlong_as_double(long long x) { return std::bit_cast<double>(x); }

namespace emu {

/* Conversions to integers stop at the ends of the range, and NaN gives 0 (the 64-bit ones: the lowest number), as on the GPU. */
template <class I, class F> I to_integer(F x) {
  const F end = std::ldexp(F(1), 8 * (int)sizeof(I) - std::is_signed_v<I>);
  if (x != x) return sizeof(I) == 8 ? (I)(UINT64_C(1) << 63) : I(0);
  if (x >= end) return std::numeric_limits<I>::max();
  if (x < (std::is_signed_v<I> ? -end : F(0))) return std::numeric_limits<I>::min();
  return (I)x;
}

}

static inline int __float2int_rn(float x) { return emu::to_integer<int>(std::nearbyint(x)); }
static inline int __float2int_rz(float x) { return emu::to_integer<int>(std::trunc(x)); }
static inline int __float2int_rd(float x) { return emu::to_integer<int>(std::floor(x)); }
static inline int __float2int_ru(float x) { return emu::to_integer<int>(std::ceil(x)); }
static inline unsigned __float2uint_rn(float x) { return emu::to_integer<unsigned>(std::nearbyint(x)); }
static inline unsigned __float2uint_rz(float x) { return emu::to_integer<unsigned>(std::trunc(x)); }
static inline long long __float2ll_rn(float x) { return emu::to_integer<long long>(std::nearbyint(x)); }
static inline long long __float2ll_rz(float x) { return emu::to_integer<long long>(std::trunc(x)); }
static inline int __double2int_rn(double x) { return emu::to_integer<int>(std::nearbyint(x)); }
static inline int __double2int_rz(double x) { return emu::to_integer<int>(std::trunc(x)); }
static inline int __double2int_rd(double x) { return emu::to_integer<int>(std::floor(x)); }
static inline long long __double2ll_rn(double x) { return emu::to_integer<long long>(std::nearbyint(x)); }
static inline long long __double2ll_rz(double x) { return emu::to_integer<long long>(std::trunc(x)); }
static inline float __double2float_rn(double x) { return (float)x; }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline float __ll2float_rn(long long x) { return (float)x; }
static inline double __ll2double_rn(long long x) { return (double)x; }
static inline double __int2double_rn(int x) { return (double)x; }

static inline int __popc(unsigned x) { return std::popcount(x); }
static inline int __popcll(unsigned long long x) { return std::popcount(x); }
static inline int __clz(int x) { return std::countl_zero((unsigned)x); }
static inline int __clzll(long long x) { return std::countl_zero((unsigned long long)x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline unsigned __brev(unsigned x) {
  x = (x & 0x55555555u) << 1 | (x >> 1 & 0x55555555u);
  x = (x & 0x33333333u) << 2 | (x >> 2 & 0x33333333u);
  x = (x & 0x0f0f0f0fu) << 4 | (x >> 4 & 0x0f0f0f0fu);
  return __builtin_bswap32(x);
}
static inline unsigned __umulhi(unsigned x, unsigned y) { return (unsigned)((unsigned long long)x * y >> 32); }
static inline int __mulhi(int x, int y) { return (int)((long long)x * y >> 32); }
static inline unsigned long long __umul64hi(unsigned long long x, unsigned long long y) { return (unsigned long long)((unsigned __int128)x * y >> 64); }
static inline unsigned __byte_perm(unsigned x, unsigned y, unsigned selector) {
  unsigned long long both = (unsigned long long)y << 32 | x;
  unsigned r = 0;
  for (int i = 0; i < 4; i++) r |= (unsigned)(both >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
  return r;
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) { return (unsigned)((((unsigned long long)high << 32 | low) << (by & 31)) >> 32); }
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) { return (unsigned)(((unsigned long long)high << 32 | low) >> (by & 31)); }

/* CUDA's min and max take mixed types; the floating ones let a number win over NaN. */
template <class A, class B> constexpr auto min(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return (T)std::fmin((T)a, (T)b);
  else return (T)a < (T)b ? (T)a : (T)b;
}
template <class A, class B> constexpr auto max(A a, B b) {
  using T = std::common_type_t<A, B>;
  if constexpr (std::is_floating_point_v<T>) return (T)std::fmax((T)a, (T)b);
  else return (T)a > (T)b ? (T)a : (T)b;
}
