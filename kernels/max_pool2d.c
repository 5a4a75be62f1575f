/* max_pool2d: y[n,c,i,j] = max over u,v of x[n,c, i S - P + u, j S - P + v], pixels outside of x not counting.
 *
 * Shapes: x [N,C,H,W], y [N,C,Oh,Ow], Oh = floor((H + 2P - Kh) / S) + 1; index like y: which pixel of its window (u Kw + v) won, u8 while a window
 * has at most 256 pixels, else i32. Saved: index alone. The first of equal maxima wins; NaN wins over everything.
 * Gradients: each input pixel gathers dy of the windows that hold it and were won by it, so that nothing is written twice. Bits: any_threads. */
#include "channels.h"

enum { X, KERNEL, STRIDE, PADDING };
enum { Y, INDEX };

struct pool {
  unic_place x, y;                 /* values, or in backward their gradients */
  uint8_t *bytes;                  /* index, one of the two; NULL: not wanted */
  int32_t *words;
  int64_t channels, width;
  int64_t kernel[2], stride[2], padding[2], in[2], out[2];
  bool accumulate;
  bool past;                       /* dx is written past the caches */
};

#if UNIC_LOOPS

/* Windows of one output pixel: rows and columns of x that exist. */
static inline void window(const struct pool *p, int d, int64_t o, int64_t *first, int64_t *last) {
  int64_t from = o * p->stride[d] - p->padding[d];
  *first = from < 0 ? -from : 0;
  *last = p->in[d] - from < p->kernel[d] ? p->in[d] - from : p->kernel[d];
}

static inline void index_store(const struct pool *p, int64_t at, int c, int width, vi best) {
  int n = width - c < LANES ? width - c : LANES;
  if (p->bytes && n == LANES) vi_store_bytes(p->bytes + at + c, best);
  else if (p->bytes) for (int l = 0; l < n; l++) p->bytes[at + c + l] = (uint8_t)best[l];
  else if (p->words && n == LANES) vi_store(p->words + at + c, best);
  else if (p->words) for (int l = 0; l < n; l++) p->words[at + c + l] = best[l];
}

static inline vi index_load(const struct pool *p, int64_t at, int c, int width) {
  int n = width - c < LANES ? width - c : LANES;
  if (n == LANES) return p->bytes ? vi_of_bytes(p->bytes + at + c) : vi_load(p->words + at + c);
  vi v = {0};
  for (int l = 0; l < n; l++) v[l] = p->bytes ? p->bytes[at + c + l] : p->words[at + c + l];
  return v;
}

/* A vector in place, of f32 or (low) bf16. */
static inline vf in_place_get(const unic_place *a, int64_t at, bool low) { return low ? vf_of_bf16((const uint16_t *)a->data + at) : vf_load((const float *)a->data + at); }
static inline bool in_place(const struct pool *p, int width) { return width % LANES == 0 && (p->x.dtype == UNIC_F32 || p->x.dtype == UNIC_BF16); }

#define INLINE static inline __attribute__((always_inline))

/* Rows u0 .. u1 and columns v0 .. v1: of the pixels of a window behind the last, of the windows that hold a pixel the last. */
struct box { int64_t u0, u1, v0, v1; };

/* The larger of best and a, a NaN being larger than all, and whose it is. AVX-512 has registers for the verdicts, which the compiler does not use. */
INLINE void win(vf *best, vi *which, vf a, int32_t here) {
#if defined(__AVX512F__)
  __mmask16 wins = _mm512_cmp_ps_mask((__m512)a, (__m512)*best, _CMP_GT_OQ) | _mm512_cmp_ps_mask((__m512)a, (__m512)a, _CMP_UNORD_Q);
  *best = (vf)_mm512_mask_mov_ps((__m512)*best, wins, (__m512)a);
  *which = (vi)_mm512_mask_set1_epi32((__m512i)*which, wins, here);
#else
  vi wins = (a > *best) | (a != a);
  *best = vf_choose(wins, a, *best);
  *which = vi_choose(wins, (vi){0} + here, *which);
#endif
}

/* K vectors of an output pixel, whose winners stay in registers; x_at and corner as below. */
INLINE void pixel_strip(const int K, const struct pool *p, int64_t x_at, int64_t corner, int64_t y_at, struct box b, int c, int width, bool low) {
  vf best[STRIP];
  vi which[STRIP];
  STRIP_EACH(k) {
    best[k] = in_place_get(&p->x, x_at + (corner + b.u0 * p->in[1] + b.v0) * p->x.pixel + c + k * LANES, low);
    which[k] = (vi){0} + (int32_t)(b.u0 * p->kernel[1] + b.v0);
  }
  for (int64_t u = b.u0; u < b.u1; u++)
    for (int64_t v = b.v0; v < b.v1; v++) {
      int64_t at = x_at + (corner + u * p->in[1] + v) * p->x.pixel + c;
      STRIP_EACH(k) win(&best[k], &which[k], in_place_get(&p->x, at + k * LANES, low), (int32_t)(u * p->kernel[1] + v));
    }
  unic_strip_store(K, p->y.data, y_at + c, best, low, false);
  STRIP_EACH(k) index_store(p, y_at, c + k * LANES, width, which[k]);
}

INLINE void pixel_in_place(const struct pool *p, int64_t x_at, int64_t corner, int64_t y_at, struct box b, int width, bool low) {
  int c = 0;
  for (; c + STRIP * LANES <= width; c += STRIP * LANES) pixel_strip(STRIP, p, x_at, corner, y_at, b, c, width, low);
  for (; c < width; c += LANES) pixel_strip(1, p, x_at, corner, y_at, b, c, width, low);
}

/* Output rows begin .. end-1, counted over the batch. */
UNIC_LOOP(max_pool2d_rows) {
  const struct pool *p = context;
  float buffer[UNIC_CHANNELS], best[UNIC_CHANNELS] = {0}, out[UNIC_CHANNELS];
  int32_t which[UNIC_CHANNELS] = {0};
  for (int64_t row = begin; row < end; row++) {
    int64_t n = row / p->out[0], i = row - n * p->out[0], u0, u1;
    window(p, 0, i, &u0, &u1);
    for (int64_t channel = 0; channel < p->channels; channel += p->width) {
      int width = (int)(p->channels - channel < p->width ? p->channels - channel : p->width);
      bool direct = in_place(p, width), low = p->x.dtype == UNIC_BF16;
      for (int64_t j = 0; j < p->out[1]; j++) {
        int64_t v0, v1, y_at = unic_place_at(&p->y, n, i * p->out[1] + j, channel);
        window(p, 1, j, &v0, &v1);
        int64_t corner = (i * p->stride[0] - p->padding[0]) * p->in[1] + j * p->stride[1] - p->padding[1];   /* may lie outside; its window does not */
        int64_t x_at = unic_place_at(&p->x, n, 0, channel);
        float *y = unic_channels_place(&p->y, y_at, width, out, false);
        if (direct) {
          if (low) pixel_in_place(p, x_at, corner, y_at, (struct box){u0, u1, v0, v1}, width, true);
          else pixel_in_place(p, x_at, corner, y_at, (struct box){u0, u1, v0, v1}, width, false);
          continue;
        }
        for (int64_t u = u0; u < u1; u++)
          for (int64_t v = v0; v < v1; v++) {
            const float *x = unic_channels_load(&p->x, x_at + (corner + u * p->in[1] + v) * p->x.pixel, width, buffer);
            int32_t here = (int32_t)(u * p->kernel[1] + v);
            for (int c = 0; c < width; c += LANES) {
              vf a = vf_load(x + c), b = vf_load(best + c);
              vi wins = (a > b) | (a != a);
              if (u == u0 && v == v0) wins = ~(vi){0};
              vf_store(best + c, vf_choose(wins, a, b));
              vi_store(which + c, vi_choose(wins, (vi){0} + here, vi_load(which + c)));
            }
          }
        for (int c = 0; c < width; c += LANES) {
          vf_store(y + c, vf_load(best + c));
          index_store(p, y_at, c, width, vi_load(which + c));
        }
        unic_channels_store(&p->y, y_at, width, y, out, false);
      }
    }
  }
}

/* The channels of v whose windows `here` won; AVX-512 compares the bytes as they are. */
INLINE vf won(const struct pool *p, int64_t at, int32_t here, vf v, bool bytes) {
  if (!bytes) return vf_keep(vi_load(p->words + at) == here, v);
#if defined(__AVX512BW__)
  return (vf)_mm512_maskz_mov_ps(_mm_cmpeq_epi8_mask(_mm_loadu_si128((const __m128i *)(const void *)(p->bytes + at)), _mm_set1_epi8((char)here)), (__m512)v);
#else
  return vf_keep(vi_of_bytes(p->bytes + at) == here, v);
#endif
}

/* K vectors of the gradient of an input pixel: the sum over the windows that it won, in registers. */
INLINE void gather_strip(const int K, const struct pool *p, int64_t x_at, int64_t y_at, int64_t code, struct box b, bool low, bool bytes) {
  vf sum[STRIP];
  STRIP_EACH(k) sum[k] = (vf){0};
  for (int64_t i = b.u0; i <= b.u1; i++)
    for (int64_t j = b.v0; j <= b.v1; j++) {
      int64_t at = y_at + (i * p->out[1] + j) * p->y.pixel;
      int32_t here = (int32_t)(code - i * p->stride[0] * p->kernel[1] - j * p->stride[1]);
      STRIP_EACH(k) sum[k] += won(p, at + k * LANES, here, in_place_get(&p->y, at + k * LANES, low), bytes);
    }
  unic_strip_store(K, p->x.data, x_at, sum, low, p->past);
}

INLINE void gather_in_place(const struct pool *p, int64_t x_at, int64_t y_at, int64_t code, struct box b, int width, bool low, bool bytes) {
  int c = 0;
  for (; c + STRIP * LANES <= width; c += STRIP * LANES) gather_strip(STRIP, p, x_at + c, y_at + c, code, b, low, bytes);
  for (; c < width; c += LANES) gather_strip(1, p, x_at + c, y_at + c, code, b, low, bytes);
}

/* Input rows begin .. end-1. */
UNIC_LOOP(max_pool2d_gather) {
  const struct pool *p = context;
  float buffer[UNIC_CHANNELS], out[UNIC_CHANNELS];
  for (int64_t row = begin; row < end; row++) {
    int64_t n = row / p->in[0], h = row - n * p->in[0];
    int64_t i0 = h + p->padding[0] - p->kernel[0], i1 = (h + p->padding[0]) / p->stride[0];
    i0 = i0 < 0 ? 0 : i0 / p->stride[0] + 1;
    if (i1 >= p->out[0]) i1 = p->out[0] - 1;
    for (int64_t channel = 0; channel < p->channels; channel += p->width) {
      int width = (int)(p->channels - channel < p->width ? p->channels - channel : p->width);
      bool direct = in_place(p, width) && !p->accumulate, low = p->x.dtype == UNIC_BF16;
      int64_t j0 = 0, next = 0;   /* the first window that still holds w, the first one behind it */
      for (int64_t w = 0; w < p->in[1]; w++) {
        while (j0 * p->stride[1] + p->kernel[1] <= w + p->padding[1]) j0++;
        while (next < p->out[1] && next * p->stride[1] <= w + p->padding[1]) next++;
        int64_t j1 = next - 1, x_at = unic_place_at(&p->x, n, h * p->in[1] + w, channel);
        float *dx = unic_channels_place(&p->x, x_at, width, out, p->accumulate);
        int64_t y_at = unic_place_at(&p->y, n, 0, channel), code = (h + p->padding[0]) * p->kernel[1] + w + p->padding[1];
        if (direct) {
          if (low && p->bytes) gather_in_place(p, x_at, y_at, code, (struct box){i0, i1, j0, j1}, width, true, true);
          else if (p->bytes) gather_in_place(p, x_at, y_at, code, (struct box){i0, i1, j0, j1}, width, false, true);
          else gather_in_place(p, x_at, y_at, code, (struct box){i0, i1, j0, j1}, width, low, false);
          continue;
        }
        for (int c = 0; c < width; c += LANES) vf_store(dx + c, (vf){0});
        for (int64_t i = i0; i <= i1; i++)
          for (int64_t j = j0; j <= j1; j++) {
            int64_t at = y_at + (i * p->out[1] + j) * p->y.pixel;
            int32_t here = (int32_t)(code - i * p->stride[0] * p->kernel[1] - j * p->stride[1]);
            const float *dy = unic_channels_load(&p->y, at, width, buffer);
            for (int c = 0; c < width; c += LANES) vf_store(dx + c, vf_load(dx + c) + vf_keep(index_load(p, at, c, width) == here, vf_load(dy + c)));
          }
        unic_channels_store(&p->x, x_at, width, dx, out, p->accumulate);
      }
    }
  }
  if (p->past) vf_store_past_end();
}

#else

UNIC_LOOP_TABLE(max_pool2d_rows);
UNIC_LOOP_TABLE(max_pool2d_gather);

static int64_t stride_of(const unic_value *arg, int d) { return arg[STRIDE].ints[d] ? arg[STRIDE].ints[d] : arg[KERNEL].ints[d]; }

static unic_status max_pool2d_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int64_t shape[4] = {x->shape[0], x->shape[1]};
  for (int d = 0; d < 2; d++) {
    int64_t kernel = c->arg[KERNEL].ints[d], stride = c->arg[STRIDE].ints[d], padding = c->arg[PADDING].ints[d], reach = x->shape[2 + d] + 2 * padding;
    if (kernel < 1) return unic_fail_arg(c, KERNEL, "%lld was given, expected at least 1", (long long)kernel);
    if (stride < 0) return unic_fail_arg(c, STRIDE, "%lld was given, expected at least 1 (or 0 for the kernel's size)", (long long)stride);
    if (padding < 0 || padding > kernel / 2)
      return unic_fail_arg(c, PADDING, "%lld was given, expected 0 to %lld (half the kernel)", (long long)padding, (long long)(kernel / 2));
    if (reach < kernel)
      return unic_fail_arg(c, KERNEL, "%lld was given and the padded 'x' has %lld pixels in dimension %d; expected a smaller kernel", (long long)kernel, (long long)reach, 3 + d);
    shape[2 + d] = (reach - kernel) / stride_of(c->arg, d) + 1;
  }
  int64_t pixels = c->arg[KERNEL].ints[0] * c->arg[KERNEL].ints[1];
  if (pixels > INT32_MAX) return unic_fail_arg(c, KERNEL, "a window of %lld pixels was given, expected less than 2^31", (long long)pixels);
  unic_out(c, Y, c->type, 4, shape);
  unic_out(c, INDEX, pixels <= 256 ? UNIC_U8 : UNIC_I32, 4, shape);
  for (int j = Y; j <= INDEX; j++) {
    c->out[j].layout = x->block ? UNIC_BLOCKED : UNIC_CHANNELS_LAST;
    c->out[j].block = x->block;
  }
  return UNIC_OK;
}

static struct pool pool_of(const unic_kernel *k, const unic_view *x, const unic_view *y) {
  struct pool p = {.channels = x->shape[1], .width = unic_channels_width(x)};
  for (int d = 0; d < 2; d++) {
    p.kernel[d] = k->arg[KERNEL].ints[d];
    p.stride[d] = stride_of(k->arg, d);
    p.padding[d] = k->arg[PADDING].ints[d];
    p.in[d] = x->shape[2 + d];
    p.out[d] = y->shape[2 + d];
  }
  p.x = unic_place_of(x, p.in[0] * p.in[1]);
  p.y = unic_place_of(y, p.out[0] * p.out[1]);
  if (k->out[INDEX].dtype == UNIC_U8) p.bytes = k->out[INDEX].data;
  else p.words = k->out[INDEX].data;
  return p;
}

/* Rows per chunk: about 16,000 elements. */
static int64_t chunk_of(int64_t row) { return row > 0 && row < 16384 ? 16384 / row : 1; }

static unic_status max_pool2d_forward(const unic_kernel *k) {
  const unic_view *y = &k->out[Y];
  struct pool p = pool_of(k, &k->in[X], y);
  if (y->numel > 0) UNIC_RUN(max_pool2d_rows, y->shape[0] * y->shape[2], chunk_of(y->shape[1] * y->shape[3]), &p);
  return UNIC_OK;
}

static unic_status max_pool2d_backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X];
  struct pool p = pool_of(k, dx, &k->dout[Y]);
  p.accumulate = k->accumulate[X];
  int64_t size = unic_dtype_size(k->type);
  bool lines = (uintptr_t)dx->data % 64 == 0 && p.x.block * size % 64 == 0;   /* whole ones of the cache */
  p.past = !p.accumulate && (k->type == UNIC_F32 || k->type == UNIC_BF16) && lines && dx->numel * size > UNIC_CHANNELS_PAST;
  if (dx->numel > 0 && k->dout[Y].data) UNIC_RUN(max_pool2d_gather, dx->shape[0] * dx->shape[2], chunk_of(dx->shape[1] * dx->shape[3]), &p);
  else if (!p.accumulate) memset(dx->data, 0, (size_t)(dx->numel * unic_dtype_size(k->type)));
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the f64 form */

static int64_t offset(const unic_view *v, int64_t n, int64_t c, int64_t h, int64_t w) { return n * v->stride[0] + c * v->stride[1] + h * v->stride[2] + w * v->stride[3]; }

static unic_status max_pool2d_reference(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *y = &k->out[Y];
  const int64_t *kernel = k->arg[KERNEL].ints, *padding = k->arg[PADDING].ints;
  for (int64_t n = 0; n < y->shape[0]; n++)
    for (int64_t c = 0; c < y->shape[1]; c++)
      for (int64_t i = 0; i < y->shape[2]; i++)
        for (int64_t j = 0; j < y->shape[3]; j++) {
          double best = 0;
          int64_t which = -1;
          for (int64_t u = 0; u < kernel[0]; u++)
            for (int64_t v = 0; v < kernel[1]; v++) {
              int64_t h = i * stride_of(k->arg, 0) - padding[0] + u, w = j * stride_of(k->arg, 1) - padding[1] + v;
              if (h < 0 || h >= x->shape[2] || w < 0 || w >= x->shape[3]) continue;
              double value = ((const double *)x->data)[offset(x, n, c, h, w)];
              if (which < 0 || value > best || value != value) {
                best = value;
                which = u * kernel[1] + v;
              }
            }
          int64_t at = offset(y, n, c, i, j);
          ((double *)y->data)[at] = best;
          if (k->out[INDEX].data) unic_element_set(k->out[INDEX].data, (unic_dtype)k->out[INDEX].dtype, at, (double)which);
        }
  return UNIC_OK;
}

static unic_status max_pool2d_reference_backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X], *dy = &k->dout[Y];
  if (!k->accumulate[X]) memset(dx->data, 0, (size_t)dx->numel * sizeof(double));
  if (!dy->data) return UNIC_OK;
  for (int64_t n = 0; n < dy->shape[0]; n++)
    for (int64_t c = 0; c < dy->shape[1]; c++)
      for (int64_t i = 0; i < dy->shape[2]; i++)
        for (int64_t j = 0; j < dy->shape[3]; j++) {
          int64_t which = (int64_t)unic_element_get(k->out[INDEX].data, (unic_dtype)k->out[INDEX].dtype, offset(&k->out[INDEX], n, c, i, j));
          int64_t h = i * stride_of(k->arg, 0) - k->arg[PADDING].ints[0] + which / k->arg[KERNEL].ints[1];
          int64_t w = j * stride_of(k->arg, 1) - k->arg[PADDING].ints[1] + which % k->arg[KERNEL].ints[1];
          ((double *)dx->data)[offset(dx, n, c, h, w)] += ((const double *)dy->data)[offset(dy, n, c, i, j)];
        }
  return UNIC_OK;
}

static const unic_op op_max_pool2d = {
  .name = "max_pool2d",
  .signature = "x: tensor[N,C,H,W], kernel: int[2], stride: int[2] = 0, padding: int[2] = 0 -> y, (index)",
  .doc = "The largest value of each window. The result lies channels-last in memory.\n"
         "x: images [N, C, H, W]\n"
         "kernel: size of the window, one number or {rows, columns}\n"
         "stride: step between windows; 0, the default, means the kernel's size\n"
         "padding: pixels on each side that never win, at most half the kernel",
  .saves = "index",
  .grads = "x",
  .layouts = "x:channels_last|blocked",
  .shape = max_pool2d_shape,
  .cpu = {max_pool2d_forward, max_pool2d_backward, max_pool2d_reference, max_pool2d_reference_backward},
  .flags = UNIC_OP_METHOD,
};

UNIC_OPS(max_pool2d, &op_max_pool2d);

#endif
