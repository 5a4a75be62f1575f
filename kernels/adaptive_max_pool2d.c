/* adaptive_max_pool2d: y[n,c,i,j] = the largest of x[n,c,h,w] over h = floor(i H / Oh) .. ceil((i+1) H / Oh) - 1, and w likewise.
 *
 * Shapes: x [N,C,H,W], y [N,C,Oh,Ow]; index like y, i32: which pixel h W + w won. Saved: index alone. The first of equal maxima wins; NaN wins over
 * everything. Windows may share pixels. Gradient: each input pixel gathers dy of the windows that hold it and were won by it, so that nothing is
 * written twice. Bits: any_threads. */
#include "channels.h"

enum { X, SIZE };
enum { Y, INDEX };

struct pool {
  unic_place x, y;                 /* values, or in backward their gradients */
  int32_t *index;                  /* NULL: not wanted */
  int64_t channels, width;
  int64_t in[2], out[2];
  bool accumulate;
};

/* Window i of `out` over `in` pixels. */
static inline int64_t first_of(int64_t in, int64_t out, int64_t i) { return i * in / out; }
static inline int64_t end_of(int64_t in, int64_t out, int64_t i) { return ((i + 1) * in + out - 1) / out; }

#if UNIC_LOOPS

/* Output rows begin .. end-1, counted over the batch. */
UNIC_LOOP(adaptive_max_pool2d_rows) {
  const struct pool *p = context;
  float buffer[UNIC_CHANNELS], out[UNIC_CHANNELS], best[UNIC_CHANNELS];
  int32_t which[UNIC_CHANNELS];
  for (int64_t row = begin; row < end; row++) {
    int64_t n = row / p->out[0], i = row - n * p->out[0], h0 = first_of(p->in[0], p->out[0], i), h1 = end_of(p->in[0], p->out[0], i);
    for (int64_t channel = 0; channel < p->channels; channel += p->width) {
      int width = (int)(p->channels - channel < p->width ? p->channels - channel : p->width);
      for (int64_t j = 0; j < p->out[1]; j++) {
        int64_t w0 = first_of(p->in[1], p->out[1], j), w1 = end_of(p->in[1], p->out[1], j), y_at = unic_place_at(&p->y, n, i * p->out[1] + j, channel);
        for (int c = 0; c < width; c += LANES) {
          vf_store(best + c, (vf){0} - INFINITY);
          vi_store(which + c, (vi){0} + (int32_t)(h0 * p->in[1] + w0));
        }
        for (int64_t h = h0; h < h1; h++)
          for (int64_t w = w0; w < w1; w++) {
            const float *x = unic_channels_load(&p->x, unic_place_at(&p->x, n, h * p->in[1] + w, channel), width, buffer);
            vi here = (vi){0} + (int32_t)(h * p->in[1] + w);
            for (int c = 0; c < width; c += LANES) {
              vf v = vf_load(x + c), old = vf_load(best + c);
              vi wins = (v > old) | (v != v);
              vf_store(best + c, vf_choose(wins, v, old));
              vi_store(which + c, vi_choose(wins, here, vi_load(which + c)));
            }
          }
        float *y = unic_channels_place(&p->y, y_at, width, out, false);
        for (int c = 0; c < width; c += LANES) vf_store(y + c, vf_load(best + c));
        unic_channels_store(&p->y, y_at, width, y, out, false);
        if (p->index) memcpy(p->index + y_at, which, (size_t)width * sizeof *which);
      }
    }
  }
}

/* Input rows begin .. end-1: pixel h is in the windows floor(h Oh / H) .. ceil((h+1) Oh / H) - 1, whose borders are where i H / Oh crosses h. */
UNIC_LOOP(adaptive_max_pool2d_gather) {
  const struct pool *p = context;
  float buffer[UNIC_CHANNELS], out[UNIC_CHANNELS];
  int32_t which[UNIC_CHANNELS] = {0};
  for (int64_t row = begin; row < end; row++) {
    int64_t n = row / p->in[0], h = row - n * p->in[0];
    int64_t i0 = first_of(p->out[0], p->in[0], h), i1 = end_of(p->out[0], p->in[0], h);
    for (int64_t channel = 0; channel < p->channels; channel += p->width) {
      int width = (int)(p->channels - channel < p->width ? p->channels - channel : p->width);
      for (int64_t w = 0; w < p->in[1]; w++) {
        int64_t j0 = first_of(p->out[1], p->in[1], w), j1 = end_of(p->out[1], p->in[1], w), x_at = unic_place_at(&p->x, n, h * p->in[1] + w, channel);
        vi here = (vi){0} + (int32_t)(h * p->in[1] + w);
        float *dx = unic_channels_place(&p->x, x_at, width, out, p->accumulate);
        for (int c = 0; c < width; c += LANES) vf_store(dx + c, (vf){0});
        for (int64_t i = i0; i < i1; i++)
          for (int64_t j = j0; j < j1; j++) {
            int64_t y_at = unic_place_at(&p->y, n, i * p->out[1] + j, channel);
            const float *dy = unic_channels_load(&p->y, y_at, width, buffer);
            memcpy(which, p->index + y_at, (size_t)width * sizeof *which);
            for (int c = 0; c < width; c += LANES) vf_store(dx + c, vf_load(dx + c) + vf_keep(vi_load(which + c) == here, vf_load(dy + c)));
          }
        unic_channels_store(&p->x, x_at, width, dx, out, p->accumulate);
      }
    }
  }
}

#else

UNIC_LOOP_TABLE(adaptive_max_pool2d_rows);
UNIC_LOOP_TABLE(adaptive_max_pool2d_gather);

static unic_status shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int64_t shape[4] = {x->shape[0], x->shape[1]};
  char text[256];
  for (int d = 0; d < 2; d++) {
    int64_t size = c->arg[SIZE].ints[d];
    if (size < 1) return unic_fail_arg(c, SIZE, "%lld was given, expected at least 1", (long long)size);
    shape[2 + d] = size;
  }
  int64_t pixels;
  if (__builtin_mul_overflow(x->shape[2], x->shape[3], &pixels) || pixels < 1 || pixels > INT32_MAX)
    return unic_fail_arg(c, X, "%s was given, expected at least one pixel and fewer than 2^31", unic_tensor_describe(x, text, sizeof text));
  for (int j = Y; j <= INDEX; j++) {
    unic_out(c, j, j == Y ? c->type : UNIC_I32, 4, shape);
    c->out[j].layout = x->block ? UNIC_BLOCKED : UNIC_CHANNELS_LAST;
    c->out[j].block = x->block;
  }
  return UNIC_OK;
}

static struct pool pool_of(const unic_kernel *k, const unic_view *x, const unic_view *y) {
  struct pool p = {.channels = x->shape[1], .width = unic_channels_width(x), .index = k->out[INDEX].data};
  for (int d = 0; d < 2; d++) {
    p.in[d] = x->shape[2 + d];
    p.out[d] = y->shape[2 + d];
  }
  p.x = unic_place_of(x, p.in[0] * p.in[1]);
  p.y = unic_place_of(y, p.out[0] * p.out[1]);
  return p;
}

/* Rows per chunk: about 16,000 elements. */
static int64_t chunk_of(int64_t row) { return row > 0 && row < 16384 ? 16384 / row : 1; }

static unic_status forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *y = &k->out[Y];
  struct pool p = pool_of(k, x, y);
  if (y->numel > 0) UNIC_RUN(adaptive_max_pool2d_rows, y->shape[0] * y->shape[2], chunk_of(x->numel / (y->shape[0] * y->shape[2])), &p);
  return UNIC_OK;
}

static unic_status zero(const unic_kernel *k) {
  if (!k->accumulate[X]) memset(k->din[X].data, 0, (size_t)(k->din[X].numel * unic_dtype_size(k->type)));
  return UNIC_OK;
}

static unic_status backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X];
  if (dx->numel == 0) return UNIC_OK;
  if (!k->dout[Y].data) return zero(k);
  struct pool p = pool_of(k, dx, &k->dout[Y]);
  p.accumulate = k->accumulate[X];
  UNIC_RUN(adaptive_max_pool2d_gather, dx->shape[0] * dx->shape[2], chunk_of(dx->shape[1] * dx->shape[3]), &p);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the f64 forms */

static int64_t offset(const unic_view *v, int64_t n, int64_t c, int64_t h, int64_t w) { return n * v->stride[0] + c * v->stride[1] + h * v->stride[2] + w * v->stride[3]; }

static unic_status reference(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *y = &k->out[Y];
  const double *from = x->data;
  int32_t *index = k->out[INDEX].data;
  for (int64_t n = 0; n < y->shape[0]; n++)
    for (int64_t c = 0; c < y->shape[1]; c++)
      for (int64_t i = 0; i < y->shape[2]; i++)
        for (int64_t j = 0; j < y->shape[3]; j++) {
          int64_t h0 = (int64_t)floor((double)(i * x->shape[2]) / (double)y->shape[2]), h1 = (int64_t)ceil((double)((i + 1) * x->shape[2]) / (double)y->shape[2]);
          int64_t w0 = (int64_t)floor((double)(j * x->shape[3]) / (double)y->shape[3]), w1 = (int64_t)ceil((double)((j + 1) * x->shape[3]) / (double)y->shape[3]);
          int64_t at = offset(y, n, c, i, j), won = h0 * x->shape[3] + w0;
          double best = -INFINITY;
          for (int64_t h = h0; h < h1; h++)
            for (int64_t w = w0; w < w1; w++) {
              double v = from[offset(x, n, c, h, w)];
              if (!(v > best) && v == v) continue;
              best = v;
              won = h * x->shape[3] + w;
            }
          ((double *)y->data)[at] = best;
          if (index) index[at] = (int32_t)won;
        }
  return UNIC_OK;
}

static unic_status reference_backward(const unic_kernel *k) {
  const unic_view *dx = &k->din[X], *dy = &k->dout[Y];
  UNIC_TRY(zero(k));
  for (int64_t n = 0; n < dy->shape[0] && dy->data; n++)
    for (int64_t c = 0; c < dy->shape[1]; c++)
      for (int64_t i = 0; i < dy->shape[2]; i++)
        for (int64_t j = 0; j < dy->shape[3]; j++) {
          int64_t at = offset(dy, n, c, i, j), won = ((const int32_t *)k->out[INDEX].data)[at];
          ((double *)dx->data)[offset(dx, n, c, won / dx->shape[3], won % dx->shape[3])] += ((const double *)dy->data)[at];
        }
  return UNIC_OK;
}

static const unic_op op_adaptive_max_pool2d = {
  .name = "adaptive_max_pool2d",
  .signature = "x: tensor[N,C,H,W], size: int[2] -> y, (index)",
  .doc = "Maxima over as many windows as the result has pixels: window i of n over H rows is floor(i H / n) .. ceil((i + 1) H / n), i from 0.\n"
         "The result lies channels-last in memory.\n"
         "x: images [N, C, H, W]\n"
         "size: of the result, one number or {rows, columns}",
  .saves = "index",
  .grads = "x",
  .layouts = "x:channels_last|blocked",
  .shape = shape,
  .cpu = {forward, backward, reference, reference_backward},
  .flags = UNIC_OP_METHOD,
};

UNIC_OPS(adaptive_max_pool2d, &op_adaptive_max_pool2d);

#endif
