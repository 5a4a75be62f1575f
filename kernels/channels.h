/* For kernels that work on vectors of channels: batch norm and pooling.
 *
 * Activations lie channels-last (N, H, W, C), as [N, C], or with channels in blocks of 8 or 16 (N, C/b, H, W, b). Channels are handled in pieces
 * of at most UNIC_CHANNELS as whole vectors of floats: in place where storage is f32 and the piece is whole vectors, otherwise converted into a
 * buffer and padded with zeros. Vectors are spelled out because gcc leaves per-channel accumulators scalar otherwise. */
#ifndef UNIC_CHANNELS_H
#define UNIC_CHANNELS_H

#include "loops.h"

enum { UNIC_CHANNELS = 128 };       /* of a piece: 512 bytes of f32, so that several rows of a piece stay in L1 */
enum { UNIC_CHANNELS_PAD = 16 };    /* arrays with a value per channel are padded to whole vectors of any instruction set */

/* Bytes of a result from which on it is written past the caches. From 3 to 6 MB too more is gained by it (nothing is read only to be overwritten, what others
 * need stays) than the next op loses: ResNet-50's convolutions are no slower (two threads of Zen 4, 1 MB and 32 MB of cache). */
enum { UNIC_CHANNELS_PAST = 2 << 20 };

/* Where elements lie: (plane n, pixel p, channel c) at n plane + p pixel + (c / block) group + c % block. */
typedef struct unic_place { void *data; int dtype; int64_t plane, pixel, group, block; } unic_place;

static inline int64_t unic_place_at(const unic_place *a, int64_t plane, int64_t pixel, int64_t channel) {
  return plane * a->plane + pixel * a->pixel + channel / a->block * a->group + channel % a->block;
}

/* A view as planes of `pixels` pixels: one per image, or one for all (channels-last memory and [N, C] only). */
static inline unic_place unic_place_of(const unic_view *v, int64_t pixels) {
  unic_place a = {.data = v->data, .dtype = v->dtype, .block = v->block ? v->block : v->shape[1]};
  a.pixel = a.block;
  a.group = v->block ? pixels * v->block : 0;
  a.plane = pixels * v->shape[1];
  return a;
}

/* Channels per piece for a view. */
static inline int64_t unic_channels_width(const unic_view *v) {
  int64_t channels = v->block ? v->block : v->shape[1];
  return channels < 1 ? 1 : channels < UNIC_CHANNELS ? channels : UNIC_CHANNELS;
}

#if !UNIC_LOOPS
/* LANES below, of the loops that run on this processor. */
static inline int unic_channels_lanes(void) {
  unic_isa isa = unic_isa_current();
  return isa >= UNIC_ISA_AVX512 ? 16 : isa == UNIC_ISA_AVX2 ? 8 : 4;
}

/* The block that oneDNN's f32 convolutions like best on this processor, or 0 where channels do not fill blocks or there is only one pixel
 * (padding would break elementwise kernels; blocks of a single pixel are rows). */
static inline int unic_channels_block(int64_t channels, int64_t pixels) {
  int block = unic_channels_lanes();
  return block >= 8 && pixels > 1 && channels > 0 && channels % block == 0 ? block : 0;
}
#endif

#if UNIC_LOOPS

#if defined(__AVX512F__)
enum { LANES = 16 };
#elif defined(__AVX2__)
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float vf __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t vi __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint8_t vb __attribute__((vector_size(LANES), aligned(1), may_alias));

static inline vf vf_load(const float *p) { return *(const vf *)p; }
static inline void vf_store(float *p, vf v) { *(vf *)p = v; }
/* A store that leaves the caches alone, to memory aligned like the vector; after the last one, vf_store_past_end orders them before what follows. */
#if defined(__AVX512F__)
static inline void vf_store_past(float *p, vf v) { _mm512_stream_ps(p, (__m512)v); }
static inline void vf_store_past_end(void) { _mm_sfence(); }
#elif defined(__AVX2__)
static inline void vf_store_past(float *p, vf v) { _mm256_stream_ps(p, (__m256)v); }
static inline void vf_store_past_end(void) { _mm_sfence(); }
#else
static inline void vf_store_past(float *p, vf v) { vf_store(p, v); }
static inline void vf_store_past_end(void) { }
#endif
/* bf16 memory, widened exactly, and rounded to nearest even as unic_bf16_of_float rounds. */
typedef uint16_t vh __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef uint32_t vu __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
static inline vf vf_of_bf16(const uint16_t *p) { return (vf)(__builtin_convertvector(*(const vh *)p, vu) << 16); }
#if defined(__AVX512BF16__)
/* The instruction takes subnormal numbers for 0. */
static inline void vf_store_bf16(uint16_t *p, vf v) { _mm256_storeu_si256((__m256i *)(void *)p, (__m256i)_mm512_cvtneps_pbh((__m512)v)); }
#else
static inline void vf_store_bf16(uint16_t *p, vf v) {
  vu u = (vu)v, rounded = (u + 0x7fff + ((u >> 16) & 1)) >> 16, nan = (u >> 16) | 0x40;
  vu is_nan = (vu)(v != v);
  *(vh *)p = __builtin_convertvector((is_nan & nan) | (~is_nan & rounded), vh);
}
#endif
#if defined(__AVX512BF16__)
static inline void vf_store_past_bf16(uint16_t *p, vf a, vf b) { _mm512_stream_si512((__m512i *)(void *)p, (__m512i)_mm512_cvtne2ps_pbh((__m512)b, (__m512)a)); }
#else
static inline void vf_store_past_bf16(uint16_t *p, vf a, vf b) {
  vf_store_bf16(p, a);
  vf_store_bf16(p + LANES, b);
}
#endif
/* f16 memory, widened exactly. */
#if defined(__AVX512F__)
static inline vf vf_of_f16(const uint16_t *p) { return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p)); }
#elif defined(__AVX2__)
static inline vf vf_of_f16(const uint16_t *p) { return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)); }
#else
static inline vf vf_of_f16(const uint16_t *p) {
  vf v;
  for (int l = 0; l < LANES; l++) v[l] = unic_float_of_f16(p[l]);
  return v;
}
#endif

/* Loops over vectors of channels go by strips of K side by side: four in channels-last memory, so that rows are read in whole cache lines and sums do not wait
 * for each other; one in a block of channels. Everything is unrolled over k, which is a constant. */
enum { STRIP = 4 };
#define STRIP_EACH(k) _Pragma("GCC unroll 4") for (int k = 0; k < K; k++)

/* K vectors to element `at` of f32 or (low) bf16 memory. past: past the caches, for what is too large to be found in them; in whole cache lines, so bf16 goes
 * by pairs. */
static inline __attribute__((always_inline)) void unic_strip_store(const int K, void *p, int64_t at, const vf *v, bool low, bool past) {
  if (past && low && K == STRIP) {
    vf_store_past_bf16((uint16_t *)p + at, v[0], v[1]);
    vf_store_past_bf16((uint16_t *)p + at + 2 * LANES, v[2], v[3]);
  } else if (past && !low) {
    STRIP_EACH(k) vf_store_past((float *)p + at + k * LANES, v[k]);
  } else if (low) {
    STRIP_EACH(k) vf_store_bf16((uint16_t *)p + at + k * LANES, v[k]);
  } else {
    STRIP_EACH(k) vf_store((float *)p + at + k * LANES, v[k]);
  }
}

static inline vi vi_load(const int32_t *p) { return *(const vi *)p; }
static inline void vi_store(int32_t *p, vi v) { *(vi *)p = v; }
static inline vi vi_of_bytes(const uint8_t *p) { return __builtin_convertvector(*(const vb *)p, vi); }
static inline void vi_store_bytes(uint8_t *p, vi v) { *(vb *)p = __builtin_convertvector(v, vb); }
/* Lanes of v where the mask (0 or -1) is set, 0 elsewhere. */
static inline vf vf_keep(vi mask, vf v) { return (vf)(mask & (vi)v); }
static inline vf vf_choose(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }
/* v where z is above 0 or NaN, 0 elsewhere: ReLU for v = z, its gradient for v = dy. And the same verdict as bit r of every lane, set and read. AVX-512
 * has registers for such verdicts, which the compiler does not use for the plain form. */
#if defined(__AVX512F__)
static inline vf vf_relu(vf z, vf v) { return (vf)_mm512_maskz_mov_ps(_mm512_cmp_ps_mask((__m512)z, _mm512_setzero_ps(), _CMP_NLE_UQ), (__m512)v); }
static inline void vi_set_bit(vi *bits, vf z, int r) {
  __m512i b = (__m512i)*bits;
  *bits = (vi)_mm512_mask_or_epi32(b, _mm512_cmp_ps_mask((__m512)z, _mm512_setzero_ps(), _CMP_NLE_UQ), b, _mm512_set1_epi32(1 << r));
}
static inline vf vf_keep_bit(vi bits, int r, vf v) { return (vf)_mm512_maskz_mov_ps(_mm512_test_epi32_mask((__m512i)bits, _mm512_set1_epi32(1 << r)), (__m512)v); }
#else
static inline vf vf_relu(vf z, vf v) { return vf_keep(~(z <= 0), v); }
static inline void vi_set_bit(vi *bits, vf z, int r) { *bits |= ~(z <= 0) & (1 << r); }
static inline vf vf_keep_bit(vi bits, int r, vf v) { return vf_keep((bits & (1 << r)) != 0, v); }
#endif
static inline vi vi_choose(vi mask, vi yes, vi no) { return (mask & yes) | (~mask & no); }

/* Rows and columns of LANES x LANES floats change places: in each step the off-diagonal blocks of this size. */
static inline __attribute__((always_inline)) void vf_transpose(vf *rows) {
  vi lane;
  for (int l = 0; l < LANES; l++) lane[l] = l;
  #pragma GCC unroll 4
  for (int step = 1; step < LANES; step *= 2) {
    vi odd = (lane & step) != 0, first = vi_choose(odd, lane - step + LANES, lane), second = vi_choose(odd, lane + LANES, lane + step);
    #pragma GCC unroll 16
    for (int i = 0; i < LANES; i++)
      if (!(i & step)) {
        vf a = rows[i], b = rows[i + step];
        rows[i] = __builtin_shuffle(a, b, first);
        rows[i + step] = __builtin_shuffle(a, b, second);
      }
  }
}

/* `width` channels from element `at` on, readable in whole vectors. */
static inline const float *unic_channels_load(const unic_place *a, int64_t at, int width, float *restrict buffer) {
  if (a->dtype == UNIC_F32 && width % LANES == 0) return (const float *)a->data + at;
  if (a->dtype == UNIC_F16 && width % LANES == 0) {   /* the compiler leaves the general loop scalar: batch norm's backward of [16,64,112,112] 17 ms */
    for (int c = 0; c < width; c += LANES) vf_store(buffer + c, vf_of_f16((const uint16_t *)a->data + at + c));
    return buffer;
  }
  const float *from = unic_row_load(a->data, a->dtype, at, width, buffer);
  if (from != buffer) memcpy(buffer, from, (size_t)width * sizeof *buffer);
  for (int c = width; c % LANES; c++) buffer[c] = 0;
  return buffer;
}

/* Where to write whole vectors that unic_channels_store brings to element `at`: the place itself, or the buffer. */
static inline float *unic_channels_place(const unic_place *a, int64_t at, int width, float *buffer, bool accumulate) {
  return a->dtype == UNIC_F32 && width % LANES == 0 && !accumulate ? (float *)a->data + at : buffer;
}
static inline void unic_channels_store(const unic_place *a, int64_t at, int width, const float *row, const float *buffer, bool accumulate) {
  if (row == buffer) unic_row_put(a->data, a->dtype, at, width, buffer, accumulate);
}

#endif
#endif
