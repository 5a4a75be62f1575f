/* avg_pool2d: y[n,c,i,j] = (sum over u,v of x[n,c, i S - P + u, j S - P + v]) / count, pixels outside of x being 0.
 * global_avg_pool2d: y[n,c] = mean over all pixels of x[n,c].
 *
 * Shapes: x [N,C,H,W], y [N,C,Oh,Ow] with Oh = floor((H + 2P - Kh) / S) + 1, or [N,C]. count = Kh Kw, or the pixels of the window that exist when
 * count_include_pad is false. Saved: nothing. Gradients: each input pixel gathers dy / count of the windows that hold it.
 * Bits: any_threads. Sums are f32 over at most 64 pixels at a time, and sums of those sums. */
#include "channels.h"

enum { X, KERNEL, STRIDE, PADDING, INCLUDE };
enum { Y };
enum { RUN = 64 };   /* pixels per partial sum */

struct pool {
  unic_place x, y;                 /* values, or in backward their gradients */
  int64_t channels, width;
  int64_t kernel[2], stride[2], padding[2], in[2], out[2];
  bool include, accumulate;
};

/* First and last + 1 pixel of window o that exist in x. */
static inline void window(const struct pool *p, int d, int64_t o, int64_t *first, int64_t *last) {
  int64_t from = o * p->stride[d] - p->padding[d], to = from + p->kernel[d];
  *first = from < 0 ? 0 : from;
  *last = to > p->in[d] ? p->in[d] : to;
  if (*last < *first) *last = *first;   /* a window wholly in the padding */
}

static inline float share(const struct pool *p, int64_t h0, int64_t h1, int64_t w0, int64_t w1) {
  int64_t count = p->include ? p->kernel[0] * p->kernel[1] : (h1 - h0) * (w1 - w0);
  return count > 0 ? 1.0f / (float)count : 0.0f;
}

#if UNIC_LOOPS

/* Output rows begin .. end-1, counted over the batch. */
UNIC_LOOP(avg_pool2d_rows) {
  const struct pool *p = context;
  float buffer[UNIC_CHANNELS], sum[UNIC_CHANNELS], total[UNIC_CHANNELS], out[UNIC_CHANNELS];
  for (int64_t row = begin; row < end; row++) {
    int64_t n = row / p->out[0], i = row - n * p->out[0], h0, h1, w0, w1;
    window(p, 0, i, &h0, &h1);
    for (int64_t channel = 0; channel < p->channels; channel += p->width) {
      int width = (int)(p->channels - channel < p->width ? p->channels - channel : p->width);
      for (int64_t j = 0; j < p->out[1]; j++) {
        int64_t y_at = unic_place_at(&p->y, n, i * p->out[1] + j, channel), run = 0;
        window(p, 1, j, &w0, &w1);
        for (int c = 0; c < width; c += LANES) {
          vf_store(sum + c, (vf){0});
          vf_store(total + c, (vf){0});
        }
        for (int64_t h = h0; h < h1; h++)
          for (int64_t w = w0; w < w1; w++) {
            const float *x = unic_channels_load(&p->x, unic_place_at(&p->x, n, h * p->in[1] + w, channel), width, buffer);
            for (int c = 0; c < width; c += LANES) vf_store(sum + c, vf_load(sum + c) + vf_load(x + c));
            if (++run < RUN) continue;
            run = 0;
            for (int c = 0; c < width; c += LANES) {
              vf_store(total + c, vf_load(total + c) + vf_load(sum + c));
              vf_store(sum + c, (vf){0});
            }
          }
        float part = share(p, h0, h1, w0, w1), *y = unic_channels_place(&p->y, y_at, width, out, false);
        for (int c = 0; c < width; c += LANES) vf_store(y + c, (vf_load(total + c) + vf_load(sum + c)) * part);
        unic_channels_store(&p->y, y_at, width, y, out, false);
      }
    }
  }
}

/* Input rows begin .. end-1. */
UNIC_LOOP(avg_pool2d_gather) {
  const struct pool *p = context;
  float buffer[UNIC_CHANNELS], out[UNIC_CHANNELS];
  for (int64_t row = begin; row < end; row++) {
    int64_t n = row / p->in[0], h = row - n * p->in[0], h0, h1, w0, w1;
    int64_t i0 = h + p->padding[0] - p->kernel[0], i1 = (h + p->padding[0]) / p->stride[0];
    i0 = i0 < 0 ? 0 : i0 / p->stride[0] + 1;
    if (i1 >= p->out[0]) i1 = p->out[0] - 1;
    for (int64_t channel = 0; channel < p->channels; channel += p->width) {
      int width = (int)(p->channels - channel < p->width ? p->channels - channel : p->width);
      for (int64_t w = 0; w < p->in[1]; w++) {
        int64_t j0 = w + p->padding[1] - p->kernel[1], j1 = (w + p->padding[1]) / p->stride[1], x_at = unic_place_at(&p->x, n, h * p->in[1] + w, channel);
        j0 = j0 < 0 ? 0 : j0 / p->stride[1] + 1;
        if (j1 >= p->out[1]) j1 = p->out[1] - 1;
        float *dx = unic_channels_place(&p->x, x_at, width, out, p->accumulate);
        for (int c = 0; c < width; c += LANES) vf_store(dx + c, (vf){0});
        for (int64_t i = i0; i <= i1; i++)
          for (int64_t j = j0; j <= j1; j++) {
            window(p, 0, i, &h0, &h1);
            window(p, 1, j, &w0, &w1);
            float part = share(p, h0, h1, w0, w1);
            const float *dy = unic_channels_load(&p->y, unic_place_at(&p->y, n, i * p->out[1] + j, channel), width, buffer);
            for (int c = 0; c < width; c += LANES) vf_store(dx + c, vf_load(dx + c) + vf_load(dy + c) * part);
          }
        unic_channels_store(&p->x, x_at, width, dx, out, p->accumulate);
      }
    }
  }
}

/* Pieces of channels begin .. end-1 of all images. */
UNIC_LOOP(global_avg_pool2d_pieces) {
  const struct pool *p = context;
  float buffer[UNIC_CHANNELS], sum[UNIC_CHANNELS], total[UNIC_CHANNELS], out[UNIC_CHANNELS];
  int64_t pieces = (p->channels + p->width - 1) / p->width, pixels = p->in[0] * p->in[1];
  for (int64_t piece = begin; piece < end; piece++) {
    int64_t n = piece / pieces, channel = (piece - n * pieces) * p->width, y_at = unic_place_at(&p->y, n, 0, channel);
    int width = (int)(p->channels - channel < p->width ? p->channels - channel : p->width);
    for (int c = 0; c < width; c += LANES) vf_store(total + c, (vf){0});
    for (int64_t from = 0; from < pixels; from += RUN) {
      for (int c = 0; c < width; c += LANES) vf_store(sum + c, (vf){0});
      for (int64_t q = from; q < pixels && q < from + RUN; q++) {
        const float *x = unic_channels_load(&p->x, unic_place_at(&p->x, n, q, channel), width, buffer);
        for (int c = 0; c < width; c += LANES) vf_store(sum + c, vf_load(sum + c) + vf_load(x + c));
      }
      for (int c = 0; c < width; c += LANES) vf_store(total + c, vf_load(total + c) + vf_load(sum + c));
    }
    float part = 1.0f / (float)pixels, *y = unic_channels_place(&p->y, y_at, width, out, false);
    for (int c = 0; c < width; c += LANES) vf_store(y + c, vf_load(total + c) * part);
    unic_channels_store(&p->y, y_at, width, y, out, false);
  }
}

UNIC_LOOP(global_avg_pool2d_spread) {
  const struct pool *p = context;
  float buffer[UNIC_CHANNELS], out[UNIC_CHANNELS], value[UNIC_CHANNELS];
  int64_t pieces = (p->channels + p->width - 1) / p->width, pixels = p->in[0] * p->in[1];
  float part = 1.0f / (float)pixels;
  for (int64_t piece = begin; piece < end; piece++) {
    int64_t n = piece / pieces, channel = (piece - n * pieces) * p->width;
    int width = (int)(p->channels - channel < p->width ? p->channels - channel : p->width);
    const float *dy = unic_channels_load(&p->y, unic_place_at(&p->y, n, 0, channel), width, buffer);
    for (int c = 0; c < width; c += LANES) vf_store(value + c, vf_load(dy + c) * part);
    for (int64_t q = 0; q < pixels; q++) {
      int64_t x_at = unic_place_at(&p->x, n, q, channel);
      float *dx = unic_channels_place(&p->x, x_at, width, out, p->accumulate);
      for (int c = 0; c < width; c += LANES) vf_store(dx + c, vf_load(value + c));
      unic_channels_store(&p->x, x_at, width, dx, out, p->accumulate);
    }
  }
}

#else

UNIC_LOOP_TABLE(avg_pool2d_rows);
UNIC_LOOP_TABLE(avg_pool2d_gather);
UNIC_LOOP_TABLE(global_avg_pool2d_pieces);
UNIC_LOOP_TABLE(global_avg_pool2d_spread);

static int64_t stride_of(const unic_value *arg, int d) { return arg[STRIDE].ints[d] ? arg[STRIDE].ints[d] : arg[KERNEL].ints[d]; }

static unic_status avg_pool2d_shape(unic_call *c) {
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
  unic_out(c, Y, c->type, 4, shape);
  c->out[Y].layout = x->block ? UNIC_BLOCKED : UNIC_CHANNELS_LAST;
  c->out[Y].block = x->block;
  return UNIC_OK;
}

static unic_status global_avg_pool2d_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  char text[256];
  if (x->shape[2] * x->shape[3] == 0) return unic_fail_arg(c, X, "%s was given, expected at least one pixel", unic_tensor_describe(x, text, sizeof text));
  unic_out(c, Y, c->type, 2, x->shape);
  return UNIC_OK;
}

static struct pool pool_of(const unic_kernel *k, const unic_view *x, const unic_view *y) {
  struct pool p = {.channels = x->shape[1], .width = unic_channels_width(x), .include = k->arg[INCLUDE].integer};
  for (int d = 0; d < 2; d++) {
    p.kernel[d] = k->arg[KERNEL].ints[d];
    p.stride[d] = stride_of(k->arg, d);
    p.padding[d] = k->arg[PADDING].ints[d];
    p.in[d] = x->shape[2 + d];
    p.out[d] = y->shape[2 + d];
  }
  p.x = unic_place_of(x, p.in[0] * p.in[1]);
  p.y = unic_place_of(y, p.out[0] * p.out[1]);
  return p;
}

static struct pool global_of(const unic_view *x, const unic_view *y) {
  struct pool p = {.channels = x->shape[1], .width = unic_channels_width(x), .in = {x->shape[2], x->shape[3]}};
  p.x = unic_place_of(x, p.in[0] * p.in[1]);
  p.y = unic_place_of(y, 1);
  return p;
}

/* Rows per chunk: about 16,000 elements. */
static int64_t chunk_of(int64_t row) { return row > 0 && row < 16384 ? 16384 / row : 1; }
static int64_t pieces_of(const struct pool *p) { return (p->channels + p->width - 1) / p->width; }

static unic_status zero(const unic_kernel *k) {
  if (!k->accumulate[X]) memset(k->din[X].data, 0, (size_t)(k->din[X].numel * unic_dtype_size(k->type)));
  return UNIC_OK;
}

static unic_status avg_pool2d_forward(const unic_kernel *k) {
  const unic_view *y = &k->out[Y];
  struct pool p = pool_of(k, &k->in[X], y);
  if (y->numel > 0) UNIC_RUN(avg_pool2d_rows, y->shape[0] * y->shape[2], chunk_of(y->shape[1] * y->shape[3]), &p);
  return UNIC_OK;
}

static unic_status avg_pool2d_backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X];
  if (dx->numel == 0 || !k->dout[Y].data) return zero(k);
  struct pool p = pool_of(k, dx, &k->dout[Y]);
  p.accumulate = k->accumulate[X];
  UNIC_RUN(avg_pool2d_gather, dx->shape[0] * dx->shape[2], chunk_of(dx->shape[1] * dx->shape[3]), &p);
  return UNIC_OK;
}

static unic_status global_avg_pool2d_forward(const unic_kernel *k) {
  struct pool p = global_of(&k->in[X], &k->out[Y]);
  if (k->in[X].numel > 0) UNIC_RUN(global_avg_pool2d_pieces, k->in[X].shape[0] * pieces_of(&p), 1, &p);
  return UNIC_OK;
}

static unic_status global_avg_pool2d_backward(const unic_kernel *k) {
  if (k->din[X].numel == 0 || !k->dout[Y].data) return zero(k);
  struct pool p = global_of(&k->din[X], &k->dout[Y]);
  p.accumulate = k->accumulate[X];
  UNIC_RUN(global_avg_pool2d_spread, k->din[X].shape[0] * pieces_of(&p), 1, &p);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the f64 forms: a visit to every pixel of every window */

static int64_t offset(const unic_view *v, int64_t n, int64_t c, int64_t h, int64_t w) { return n * v->stride[0] + c * v->stride[1] + h * v->stride[2] + w * v->stride[3]; }

/* to x: add values of y, else to y: add values of x; each times the window's share. */
static void each_pixel(const unic_kernel *k, const unic_view *x, const unic_view *y, bool to_x) {
  const int64_t *kernel = k->arg[KERNEL].ints, *padding = k->arg[PADDING].ints;
  for (int64_t n = 0; n < y->shape[0]; n++)
    for (int64_t c = 0; c < y->shape[1]; c++)
      for (int64_t i = 0; i < y->shape[2]; i++)
        for (int64_t j = 0; j < y->shape[3]; j++) {
          int64_t inside = 0;
          for (int pass = 0; pass < 2; pass++)
            for (int64_t u = 0; u < kernel[0]; u++)
              for (int64_t v = 0; v < kernel[1]; v++) {
                int64_t h = i * stride_of(k->arg, 0) - padding[0] + u, w = j * stride_of(k->arg, 1) - padding[1] + v;
                if (h < 0 || h >= x->shape[2] || w < 0 || w >= x->shape[3]) continue;
                if (pass == 0) {
                  inside++;
                  continue;
                }
                double count = (double)(k->arg[INCLUDE].integer ? kernel[0] * kernel[1] : inside);
                double *a = (double *)x->data + offset(x, n, c, h, w), *b = (double *)y->data + offset(y, n, c, i, j);
                if (to_x) *a += *b / count;
                else *b += *a / count;
              }
        }
}

static unic_status avg_pool2d_reference(const unic_kernel *k) {
  memset(k->out[Y].data, 0, (size_t)k->out[Y].numel * sizeof(double));
  each_pixel(k, &k->in[X], &k->out[Y], false);
  return UNIC_OK;
}

static unic_status avg_pool2d_reference_backward(const unic_kernel *k) {
  UNIC_TRY(zero(k));
  if (k->dout[Y].data) each_pixel(k, &k->din[X], &k->dout[Y], true);
  return UNIC_OK;
}

static unic_status global_avg_pool2d_reference(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *y = &k->out[Y];
  for (int64_t n = 0; n < x->shape[0]; n++)
    for (int64_t c = 0; c < x->shape[1]; c++) {
      double sum = 0;
      for (int64_t h = 0; h < x->shape[2]; h++)
        for (int64_t w = 0; w < x->shape[3]; w++) sum += ((const double *)x->data)[offset(x, n, c, h, w)];
      ((double *)y->data)[n * y->stride[0] + c * y->stride[1]] = sum / (double)(x->shape[2] * x->shape[3]);
    }
  return UNIC_OK;
}

static unic_status global_avg_pool2d_reference_backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X], *dy = &k->dout[Y];
  UNIC_TRY(zero(k));
  for (int64_t n = 0; n < dx->shape[0] && dy->data; n++)
    for (int64_t c = 0; c < dx->shape[1]; c++)
      for (int64_t h = 0; h < dx->shape[2]; h++)
        for (int64_t w = 0; w < dx->shape[3]; w++)
          ((double *)dx->data)[offset(dx, n, c, h, w)] += ((const double *)dy->data)[n * dy->stride[0] + c * dy->stride[1]] / (double)(dx->shape[2] * dx->shape[3]);
  return UNIC_OK;
}

static const unic_op op_avg_pool2d = {
  .name = "avg_pool2d",
  .signature = "x: tensor[N,C,H,W], kernel: int[2], stride: int[2] = 0, padding: int[2] = 0, count_include_pad: bool = true -> y",
  .doc = "The mean of each window. The result lies channels-last in memory.\n"
         "x: images [N, C, H, W]\n"
         "kernel: size of the window, one number or {rows, columns}\n"
         "stride: step between windows; 0, the default, means the kernel's size\n"
         "padding: zeros on each side, at most half the kernel\n"
         "count_include_pad: divide by the kernel's size (true), or by the number of pixels that exist",
  .grads = "x",
  .layouts = "x:channels_last|blocked",
  .shape = avg_pool2d_shape,
  .cpu = {avg_pool2d_forward, avg_pool2d_backward, avg_pool2d_reference, avg_pool2d_reference_backward},
  .flags = UNIC_OP_METHOD,
};

static const unic_op op_global_avg_pool2d = {
  .name = "global_avg_pool2d",
  .signature = "x: tensor[N,C,H,W] -> y",
  .doc = "The mean of each channel over all pixels, [N, C].\n"
         "x: images [N, C, H, W]",
  .grads = "x",
  .layouts = "x:channels_last|blocked",
  .shape = global_avg_pool2d_shape,
  .cpu = {global_avg_pool2d_forward, global_avg_pool2d_backward, global_avg_pool2d_reference, global_avg_pool2d_reference_backward},
  .flags = UNIC_OP_METHOD,
};

UNIC_OPS(avg_pool2d, &op_avg_pool2d, &op_global_avg_pool2d);

#endif
