/* interpolate: y[n,c,i,j] = sum over h,w of A[i,h] B[j,w] x[n,c,h,w], images of another size.
 * adaptive_avg_pool2d: the same with the means over windows floor(i H / Oh) .. ceil((i+1) H / Oh) as rows of A and B.
 *
 * Shapes: x [N,C,H,W], y [N,C,Oh,Ow]. A row of A has its few numbers side by side:
 *   nearest   1 at floor(i H / Oh), in integers: no rounding decides
 *   bilinear  position s = (i + 0.5) H / Oh - 0.5, at least 0, or i (H-1)/(Oh-1) with align_corners; 1 - f and f at floor(s) and the pixel after it
 *   bicubic   the same s, not cut off; four pixels around it with Keys' kernel, a = -0.75; pixels beyond the border are the border's
 * Saved: nothing. Gradient: dx = A^T dy B, the same loop with the rows of the transposed matrices, which are bands too: both gather, so bits are
 * any_threads. The plan holds A and B. Source: Keys 1981; conventions as PyTorch's interpolate and adaptive_avg_pool2d. */
#include "channels.h"

enum { X, SIZE, MODE, ALIGN };
enum { Y };
enum { NEAREST, BILINEAR, BICUBIC, MEANS };

/* Rows of a sparse matrix whose numbers stand side by side: row i is number[start[i] ..] for columns first[i] .. first[i] + count[i] - 1. */
struct band {
  int64_t rows;
  int64_t *first, *count, *start;
  float *number;
};

struct resample {
  unic_place from, to;
  const struct band *bands;        /* [2]: rows and columns */
  int64_t channels, width, in[2], out[2];
  bool accumulate;
};

#if UNIC_LOOPS

/* Fewer channels than a vector: pixel by pixel. */
static void few_channels(const struct resample *p, int64_t n, int64_t i) {
  const struct band *a = &p->bands[0], *b = &p->bands[1];
  int64_t channels = p->channels;
  const float *x = (const float *)p->from.data + n * p->from.plane;
  float *y = (float *)p->to.data + n * p->to.plane + i * p->out[1] * channels;
  for (int64_t j = 0; j < p->out[1]; j++)
    for (int64_t c = 0; c < channels; c++) {
      float total = 0;
      for (int64_t u = 0; u < a->count[i]; u++) {
        const float *row = x + ((a->first[i] + u) * p->in[1] + b->first[j]) * channels + c, *weight = b->number + b->start[j];
        float sum = 0;
        for (int64_t v = 0; v < b->count[j]; v++) sum += weight[v] * row[v * channels];
        total += a->number[a->start[i] + u] * sum;
      }
      float *to = y + j * channels + c;
      *to = p->accumulate ? *to + total : total;
    }
}

/* f32 in whole vectors, and windows small enough that their pixels are read side by side: a vector of the result stays in a register. */
enum { NEAR = 16 };
static inline void near_pixels(const struct resample *p, int64_t n, int64_t i, int64_t j, int64_t channel, int width) {
  const struct band *a = &p->bands[0], *b = &p->bands[1];
  const float *tap[NEAR];
  float weight[NEAR];
  int taps = 0;
  for (int64_t u = 0; u < a->count[i]; u++)
    for (int64_t v = 0; v < b->count[j]; v++) {
      tap[taps] = (const float *)p->from.data + unic_place_at(&p->from, n, (a->first[i] + u) * p->in[1] + b->first[j] + v, channel);
      weight[taps++] = a->number[a->start[i] + u] * b->number[b->start[j] + v];
    }
  float *y = (float *)p->to.data + unic_place_at(&p->to, n, i * p->out[1] + j, channel);
  for (int c = 0; c < width; c += LANES) {
    vf sum = p->accumulate ? vf_load(y + c) : (vf){0};
    for (int k = 0; k < taps; k++) sum += vf_load(tap[k] + c) * weight[k];
    vf_store(y + c, sum);
  }
}

/* Rows begin .. end-1 of the result, counted over the batch. */
UNIC_LOOP(resample_rows) {
  const struct resample *p = context;
  const struct band *a = &p->bands[0], *b = &p->bands[1];
  float buffer[UNIC_CHANNELS], sum[UNIC_CHANNELS], out[UNIC_CHANNELS], total[UNIC_CHANNELS];
  bool few = p->channels < LANES && p->from.dtype == UNIC_F32 && p->to.dtype == UNIC_F32;
  for (int64_t row = begin; row < end; row++) {
    int64_t n = row / p->out[0], i = row - n * p->out[0];
    if (few) {
      few_channels(p, n, i);
      continue;
    }
    for (int64_t channel = 0; channel < p->channels; channel += p->width) {
      int width = (int)(p->channels - channel < p->width ? p->channels - channel : p->width);
      bool whole = width % LANES == 0 && p->from.dtype == UNIC_F32 && p->to.dtype == UNIC_F32;
      for (int64_t j = 0; j < p->out[1]; j++) {
        if (whole && a->count[i] * b->count[j] <= NEAR) {
          near_pixels(p, n, i, j, channel, width);
          continue;
        }
        for (int c = 0; c < width; c += LANES) vf_store(total + c, (vf){0});
        for (int64_t u = 0; u < a->count[i]; u++) {   /* one line of the window after the other: sums stay short */
          float outer = a->number[a->start[i] + u];
          for (int c = 0; c < width; c += LANES) vf_store(sum + c, (vf){0});
          for (int64_t v = 0; v < b->count[j]; v++) {
            float inner = b->number[b->start[j] + v];
            const float *x = unic_channels_load(&p->from, unic_place_at(&p->from, n, (a->first[i] + u) * p->in[1] + b->first[j] + v, channel), width, buffer);
            for (int c = 0; c < width; c += LANES) vf_store(sum + c, vf_load(sum + c) + vf_load(x + c) * inner);
          }
          for (int c = 0; c < width; c += LANES) vf_store(total + c, vf_load(total + c) + vf_load(sum + c) * outer);
        }
        int64_t at = unic_place_at(&p->to, n, i * p->out[1] + j, channel);
        float *y = unic_channels_place(&p->to, at, width, out, p->accumulate);
        for (int c = 0; c < width; c += LANES) vf_store(y + c, vf_load(total + c));
        unic_channels_store(&p->to, at, width, y, out, p->accumulate);
      }
    }
  }
}

#else

UNIC_LOOP_TABLE(resample_rows);

/* ---------------------------------------------------------------- shapes */

static unic_status resample_shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int64_t shape[4] = {x->shape[0], x->shape[1]};
  char text[256];
  for (int d = 0; d < 2; d++) {
    int64_t size = c->arg[SIZE].ints[d];
    if (size < 1) return unic_fail_arg(c, SIZE, "%lld was given, expected at least 1", (long long)size);
    if (x->shape[2 + d] == 0) return unic_fail_arg(c, X, "%s was given, expected at least one pixel", unic_tensor_describe(x, text, sizeof text));
    shape[2 + d] = size;
  }
  unic_out(c, Y, c->type, 4, shape);
  c->out[Y].layout = x->block ? UNIC_BLOCKED : UNIC_CHANNELS_LAST;
  c->out[Y].block = x->block;
  return UNIC_OK;
}

static unic_status interpolate_shape(unic_call *c) {
  if (c->arg[MODE].integer == NEAREST && c->arg[ALIGN].integer) return unic_fail_arg(c, ALIGN, "nearest has no corners to align; expected false, or mode bilinear or bicubic");
  return resample_shape(c);
}

/* ---------------------------------------------------------------- the numbers */

static double keys(double t) {
  const double a = -0.75;
  t = fabs(t);
  return t <= 1 ? ((a + 2) * t - (a + 3)) * t * t + 1 : t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

/* Where pixel i of `out` pixels lies among `in` pixels. */
static double position(int mode, bool align, int64_t in, int64_t out, int64_t i) {
  if (align) return out > 1 ? (double)i * (double)(in - 1) / (double)(out - 1) : 0;
  double s = ((double)i + 0.5) * (double)in / (double)out - 0.5;
  return mode == BILINEAR && s < 0 ? 0 : s;
}

/* Row i: its first column and its numbers; the count is returned. `number` has room for 4, or for the window of a mean. */
static int64_t row_of(int mode, bool align, int64_t in, int64_t out, int64_t i, int64_t *first, double *number) {
  if (mode == NEAREST) {
    *first = i * in / out;
    number[0] = 1;
    return 1;
  }
  if (mode == MEANS) {
    int64_t last = ((i + 1) * in + out - 1) / out;
    *first = i * in / out;
    for (int64_t t = *first; t < last; t++) number[t - *first] = 1.0 / (double)(last - *first);
    return last - *first;
  }
  double s = position(mode, align, in, out, i), base = floor(s);
  int64_t low = (int64_t)base - (mode == BICUBIC), taps = mode == BICUBIC ? 4 : 2, count = 0;
  *first = low < 0 ? 0 : low > in - 1 ? in - 1 : low;
  for (int64_t t = low; t < low + taps; t++) {   /* what lies beyond the border is added to the border's pixel */
    double value = mode == BICUBIC ? keys(s - (double)t) : t == low ? 1 - (s - base) : s - base;
    int64_t at = (t < 0 ? 0 : t > in - 1 ? in - 1 : t) - *first;
    if (at == count) number[count++] = 0;
    number[at] += value;
  }
  return count;
}

static void plan_free(void *data) { unic_delete(data); }

/* Rows of the matrix (or, in backward, of its transpose) for both dimensions, in one block of memory: 2 bands, their indices, their numbers. */
static unic_status make_plan(const unic_kernel *k, unic_plan *out, int mode, bool align) {
  const unic_view *x = &k->in[X], *y = &k->out[Y];
  if (k->type == UNIC_F64 || x->numel == 0) return UNIC_OK;
  int64_t indices = 0, numbers = 0, widest = 4;
  for (int d = 0; d < 2; d++) {
    int64_t in = x->shape[2 + d], size = y->shape[2 + d];
    indices += 3 * (k->backward ? in : size);
    numbers += mode == MEANS ? in + 2 * size : 4 * size;
    if (in / size + 2 > widest) widest = in / size + 2;
  }
  struct band *bands = unic_new(2 * sizeof *bands + (size_t)(indices + widest) * 8 + (size_t)numbers * sizeof(float));
  if (!bands) return UNIC_MEMORY;
  out->data = bands;
  out->free = plan_free;
  double *row = (double *)(bands + 2);
  int64_t *index = (int64_t *)(row + widest);
  float *number = (float *)(index + indices);
  for (int d = 0; d < 2; d++) {
    int64_t in = x->shape[2 + d], size = y->shape[2 + d], first, at = 0;
    struct band *b = &bands[d];
    b->rows = k->backward ? in : size;
    b->first = index;
    b->count = index + b->rows;
    b->start = index + 2 * b->rows;
    b->number = number;
    index += 3 * b->rows;
    for (int64_t r = 0; r < b->rows; r++) b->first[r] = b->count[r] = b->start[r] = 0;
    for (int64_t i = 0; i < size; i++) {
      int64_t count = row_of(mode, align, in, size, i, &first, row);
      if (!k->backward) {
        b->first[i] = first;
        b->count[i] = count;
      } else {
        for (int64_t t = 0; t < count; t++)
          if (b->count[first + t]++ == 0) b->first[first + t] = i;
      }
    }
    for (int64_t r = 0; r < b->rows; r++) {
      b->start[r] = at;
      at += b->count[r];
    }
    for (int64_t i = 0; i < size; i++) {
      int64_t count = row_of(mode, align, in, size, i, &first, row);
      for (int64_t t = 0; t < count; t++) {
        if (!k->backward) b->number[b->start[i] + t] = (float)row[t];
        else b->number[b->start[first + t] + i - b->first[first + t]] = (float)row[t];
      }
    }
    number += at;
  }
  return UNIC_OK;
}

static unic_status interpolate_plan(const unic_kernel *k, unic_plan *p) { return make_plan(k, p, (int)k->arg[MODE].integer, k->arg[ALIGN].integer); }
static unic_status means_plan(const unic_kernel *k, unic_plan *p) { return make_plan(k, p, MEANS, false); }

/* ---------------------------------------------------------------- fast forms */

static void resample(const unic_kernel *k, const unic_view *from, const unic_view *to, bool accumulate) {
  struct resample p = {.bands = k->plan, .channels = from->shape[1], .width = unic_channels_width(from), .accumulate = accumulate};
  for (int d = 0; d < 2; d++) {
    p.in[d] = from->shape[2 + d];
    p.out[d] = to->shape[2 + d];
  }
  p.from = unic_place_of(from, p.in[0] * p.in[1]);
  p.to = unic_place_of(to, p.out[0] * p.out[1]);
  int64_t row = to->shape[1] * to->shape[3];
  UNIC_RUN(resample_rows, to->shape[0] * to->shape[2], row > 0 && row < 8192 ? 8192 / row : 1, &p);
}

static unic_status forward(const unic_kernel *k) {
  if (k->out[Y].numel > 0) resample(k, &k->in[X], &k->out[Y], false);
  return UNIC_OK;
}

static unic_status zero(const unic_kernel *k) {
  if (!k->accumulate[X]) memset(k->din[X].data, 0, (size_t)(k->din[X].numel * unic_dtype_size(k->type)));
  return UNIC_OK;
}

static unic_status backward(const unic_kernel *k) {
  if (k->din[X].numel == 0) return UNIC_OK;
  if (!k->dout[Y].data) return zero(k);
  resample(k, &k->dout[Y], &k->din[X], k->accumulate[X]);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the f64 forms: every pixel of y looks at x */

static int64_t offset(const unic_view *v, int64_t n, int64_t c, int64_t h, int64_t w) { return n * v->stride[0] + c * v->stride[1] + h * v->stride[2] + w * v->stride[3]; }
static int64_t inside(int64_t at, int64_t size) { return at < 0 ? 0 : at >= size ? size - 1 : at; }

/* The weight of tap t (of `taps` from `low` on) at position s. */
static double tap(int mode, double s, int64_t at) {
  if (mode == NEAREST) return 1;
  return mode == BILINEAR ? 1 - fabs(s - (double)at) : keys(s - (double)at);
}

/* to_x: add values of y into x, else values of x into y. */
static void each_tap(const unic_kernel *k, const unic_view *x, const unic_view *y, bool to_x, int mode, bool align) {
  const int64_t *in = x->shape + 2, *out = y->shape + 2;
  for (int64_t n = 0; n < y->shape[0]; n++)
    for (int64_t c = 0; c < y->shape[1]; c++)
      for (int64_t i = 0; i < out[0]; i++)
        for (int64_t j = 0; j < out[1]; j++) {
          int64_t low[2], high[2], at[2] = {i, j};
          double s[2] = {0, 0}, share = 1;
          for (int d = 0; d < 2; d++) {
            low[d] = at[d] * in[d] / out[d];
            high[d] = mode == MEANS ? (int64_t)ceil((double)((at[d] + 1) * in[d]) / (double)out[d]) : low[d] + 1;
            if (mode == BILINEAR || mode == BICUBIC) {
              s[d] = position(mode, align, in[d], out[d], at[d]);
              low[d] = (int64_t)floor(s[d]) - (mode == BICUBIC);
              high[d] = low[d] + (mode == BICUBIC ? 4 : 2);
            }
            if (mode == MEANS) share /= (double)(high[d] - low[d]);
          }
          for (int64_t h = low[0]; h < high[0]; h++)
            for (int64_t w = low[1]; w < high[1]; w++) {
              double weight = mode == MEANS ? share : tap(mode, s[0], h) * tap(mode, s[1], w);
              double *a = (double *)x->data + offset(x, n, c, inside(h, in[0]), inside(w, in[1])), *b = (double *)y->data + offset(y, n, c, i, j);
              if (to_x) *a += weight * *b;
              else *b += weight * *a;
            }
        }
  (void)k;
}

static unic_status reference(const unic_kernel *k, int mode, bool align) {
  memset(k->out[Y].data, 0, (size_t)k->out[Y].numel * sizeof(double));
  each_tap(k, &k->in[X], &k->out[Y], false, mode, align);
  return UNIC_OK;
}

static unic_status reference_backward(const unic_kernel *k, int mode, bool align) {
  UNIC_TRY(zero(k));
  if (k->dout[Y].data) each_tap(k, &k->din[X], &k->dout[Y], true, mode, align);
  return UNIC_OK;
}

static unic_status interpolate_reference(const unic_kernel *k) { return reference(k, (int)k->arg[MODE].integer, k->arg[ALIGN].integer); }
static unic_status interpolate_reference_backward(const unic_kernel *k) { return reference_backward(k, (int)k->arg[MODE].integer, k->arg[ALIGN].integer); }
static unic_status means_reference(const unic_kernel *k) { return reference(k, MEANS, false); }
static unic_status means_reference_backward(const unic_kernel *k) { return reference_backward(k, MEANS, false); }

static const unic_op op_interpolate = {
  .name = "interpolate",
  .signature = "x: tensor[N,C,H,W], size: int[2], mode: choice(nearest|bilinear|bicubic) = nearest, align_corners: bool = false -> y",
  .doc = "Images of another size. The result lies channels-last in memory.\n"
         "x: images [N, C, H, W]\n"
         "size: of the result, one number or {rows, columns}\n"
         "mode: nearest, bilinear or bicubic; none of them smooths before it leaves pixels out\n"
         "align_corners: the centres of the corner pixels keep their places, instead of the corners of the image (bilinear and bicubic)",
  .grads = "x",
  .layouts = "x:channels_last|blocked",
  .shape = interpolate_shape,
  .cpu = {forward, backward, interpolate_reference, interpolate_reference_backward, .plan = interpolate_plan},
  .flags = UNIC_OP_METHOD,
};

static const unic_op op_adaptive_avg_pool2d = {
  .name = "adaptive_avg_pool2d",
  .signature = "x: tensor[N,C,H,W], size: int[2] -> y",
  .doc = "Means over as many windows as the result has pixels: window i of n over H rows is floor(i H / n) .. ceil((i + 1) H / n), i from 0.\n"
         "The result lies channels-last in memory.\n"
         "x: images [N, C, H, W]\n"
         "size: of the result, one number or {rows, columns}",
  .grads = "x",
  .layouts = "x:channels_last|blocked",
  .shape = resample_shape,
  .cpu = {forward, backward, means_reference, means_reference_backward, .plan = means_plan},
  .flags = UNIC_OP_METHOD,
};

UNIC_OPS(resample, &op_interpolate, &op_adaptive_avg_pool2d);

#endif
