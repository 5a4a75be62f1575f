/* batch_norm: y = relu?((x - mean_c) rstd_c weight_c + bias_c + residual?) over all but the channels.
 *
 * Shapes: x, residual, y [N,C] or [N,C,H,W]; weight, bias, running_mean, running_var, mean, rstd [C]. R = N H W rows of C channels.
 * training: mean and (biased) variance of x; running_mean and running_var (unbiased) move by `momentum`, and num_batches_tracked counts (here, because an
 * op of its own for a single number costs ResNet-50 53 launches a step). Otherwise the running ones normalise.
 * Saved: x, weight, bias, mean, rstd, and a bit mask of the ReLU where a residual makes recomputing it from x impossible (1/32 of an f32
 * activation; without a residual the mask is recomputed from x). y itself is made again from these and the residual (remake.h).
 * Gradients: with g = the sum of dy's addends where the ReLU let through,
 *   dresidual = g, dbias = sum g, dweight = rstd sum g (x - mean), dx = weight rstd (g - dbias/R - (x - mean) rstd dweight/R).
 * Bits: any_threads. Rows are cut into fixed chunks with one partial result each, joined in order in f64. A chunk's statistics are those of its tiles joined by
 * the rule of Chan, Golub and LeVeque (1983): the first tile is gone over twice, in L1, the others once with the mean so far taken off, so that neither a
 * large mean nor an outlier costs digits.
 *
 * Memory is channels-last or channels in blocks of 8 or 16, each operand on its own. It is bound by memory. Blocked, the two passes of the forward and of the
 * backward are made over so many channels at a time that the second one finds them in the last-level cache. Channels-last, where some channels of every row are
 * pieces far apart, which arrive half as fast as whole rows do, each pass goes over everything, the second from the end on. Results that no cache would hold
 * are written past them. ResNet-50 b16, all 53, two threads: f32 71 + 127 ms on AVX2 before any of that, 44 + 95 with it; bf16 on Zen 4, and again: 55 + 94 + 19
 * when channels-last passes went by channels too and only results of 12 MB past the caches, 37 + 67 + 11 as it is.
 *
 * This op is where a network enters the blocked layout (f32, channels divisible): its result is blocked whatever x is, for nothing, and the
 * convolutions that follow keep the layout of what they are given. Measured with oneDNN 2.6 and AVX2, ResNet-50's convolutions take 15 % less
 * time blocked than channels-last.
 *
 * Over 500 lines: the kernels around five loops (batch_norm.h has what is inside them) and the plain f64 form belong to one op. */
#include "batch_norm.h"

enum { X, WEIGHT, BIAS, RUNNING_MEAN, RUNNING_VAR, RESIDUAL, TRACKED, TRAINING, MOMENTUM, EPS, RELU };
enum { Y, MEAN, RSTD, MASK };

#if UNIC_LOOPS

UNIC_LOOP(batch_norm_moments) {
  const struct work *w = context;
  each_tile(w, begin, end, visit_moments);
}

UNIC_LOOP(batch_norm_normalise) {
  const struct work *w = context;
  each_tile(w, begin, end, visit_normalise);
  if (w->past) vf_store_past_end();
}

UNIC_LOOP(batch_norm_gradient_sums) {
  const struct work *w = context;
  each_tile(w, begin, end, visit_gradient_sums);
}

UNIC_LOOP(batch_norm_input_gradient) {
  const struct work *w = context;
  each_tile(w, begin, end, visit_input_gradient);
  if (w->past) vf_store_past_end();
}

/* Join the chunks' partial results of this pass's channels begin .. end-1 into joined[0] and joined[1]: mean and biased variance, or the two sums. */
UNIC_LOOP(batch_norm_join) {
  const struct work *w = context;
  double a[PAD], b[PAD];
  for (int64_t from = w->from + begin; from < w->from + end; from += PAD) {
    for (int i = 0; i < PAD; i++) a[i] = b[i] = 0;
    double count = 0;
    for (int64_t g = 0; g < w->all; g += w->chunk) {
      const float *restrict p = w->partial + g / w->chunk * 2 * w->padded + from, *restrict q = p + w->padded;
      if (w->backward) {
        for (int i = 0; i < PAD; i++) { a[i] += (double)p[i]; b[i] += (double)q[i]; }
        continue;
      }
      double n = (double)rows_of(w, g, g + w->chunk < w->all ? g + w->chunk : w->all), total = count + n, part = n / total, cross = count * part;
      for (int i = 0; i < PAD; i++) {
        double d = (double)p[i] - a[i];
        a[i] += d * part;
        b[i] += (double)q[i] + d * d * cross;
      }
      count = total;
    }
    for (int i = 0; i < PAD; i++) {
      w->joined[from + i] = (float)a[i];
      w->joined[w->padded + from + i] = (float)(w->backward ? b[i] : b[i] / w->rows);
    }
  }
}

#else

UNIC_LOOP_TABLE(batch_norm_moments);
UNIC_LOOP_TABLE(batch_norm_normalise);
UNIC_LOOP_TABLE(batch_norm_gradient_sums);
UNIC_LOOP_TABLE(batch_norm_input_gradient);
UNIC_LOOP_TABLE(batch_norm_join);

/* ---------------------------------------------------------------- shapes */

static int64_t up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Blocks of 8 may be narrower than a vector, which then reads into the next block's channels or, after the last one, into the padding. */
static int64_t padded_channels(int64_t channels, bool blocked) { return up(channels, PAD) + (blocked ? PAD : 0); }

/* Planes, pixels of a plane, groups of rows. Channels-last memory is one plane of all rows; blocked memory has a plane per image. */
static void rows_shape(int64_t n, int64_t pixels, bool blocked, int64_t *planes, int64_t *per_plane, int64_t *groups) {
  *planes = blocked ? n : 1;
  *per_plane = blocked ? pixels : n * pixels;
  *groups = (*per_plane + ROWS - 1) / ROWS;
}

static unic_status batch_norm_shape(unic_call *c) {
  const unic_tensor *x = c->in[X], *residual = c->in[RESIDUAL];
  char text[256], want[256];
  if (x->ndim != 2 && x->ndim != 4) return unic_fail_arg(c, X, "%s was given, expected [N, C] or [N, C, H, W]", unic_tensor_describe(x, text, sizeof text));
  int64_t channels = x->shape[1], pixels = x->ndim == 4 ? x->shape[2] * x->shape[3] : 1;
  for (int i = WEIGHT; i <= RUNNING_VAR; i++) {
    const unic_tensor *t = c->in[i];
    if (t && t->shape[0] != channels)
      return unic_fail_arg(c, i, "%s was given, expected [%lld], one value per channel of 'x'", unic_tensor_describe(t, text, sizeof text), (long long)channels);
  }
  if (residual && (residual->ndim != x->ndim || memcmp(residual->shape, x->shape, x->ndim * sizeof *x->shape) != 0))
    return unic_fail_arg(c, RESIDUAL, "%s was given, expected the shape of 'x', %s", unic_tensor_describe(residual, text, sizeof text),
                         unic_shape_describe(x->ndim, x->shape, want, sizeof want));
  bool training = c->arg[TRAINING].integer;
  if (training && x->shape[0] * pixels == 1)
    return unic_fail_arg(c, X, "%s was given, expected more than 1 value per channel when training", unic_tensor_describe(x, text, sizeof text));
  for (int i = RUNNING_MEAN; i <= RUNNING_VAR; i++) {
    if (!training && !c->in[i]) return unic_fail_arg(c, i, "it is missing, expected the running statistics when training = false");
    if (training && !c->in[i] && c->in[RUNNING_MEAN + RUNNING_VAR - i]) return unic_fail_arg(c, i, "it is missing, expected both running statistics or neither");
  }
  const unic_tensor *tracked = c->in[TRACKED];
  if (tracked && (tracked->dtype != UNIC_I64 || tracked->ndim != 0))
    return unic_fail_arg(c, TRACKED, "%s was given, expected i64 []", unic_tensor_describe(tracked, text, sizeof text));
  if (!(c->arg[EPS].number >= 0)) return unic_fail_arg(c, EPS, "%g was given, expected at least 0", c->arg[EPS].number);
  if (!(c->arg[MOMENTUM].number >= 0 && c->arg[MOMENTUM].number <= 1)) return unic_fail_arg(c, MOMENTUM, "%g was given, expected 0 to 1", c->arg[MOMENTUM].number);

  int block = x->block ? x->block : c->type == UNIC_F32 && x->ndim == 4 && c->device->api->blocked ? unic_channels_block(channels, pixels) : 0;
  unic_dtype wide = unic_dtype_wide(c->type);
  unic_out(c, Y, c->type, x->ndim, x->shape);
  if (x->ndim == 4) c->out[Y].layout = block ? UNIC_BLOCKED : UNIC_CHANNELS_LAST;
  c->out[Y].block = (uint8_t)block;
  unic_out(c, MEAN, wide, 1, &channels);
  unic_out(c, RSTD, wide, 1, &channels);
  bool blocked = block || (residual && residual->block);
  int64_t mask[2] = {0, padded_channels(channels, blocked)}, planes, per_plane, groups;
  rows_shape(x->shape[0], pixels, blocked, &planes, &per_plane, &groups);
  if (c->type == UNIC_F64) {   /* the plain form keeps a byte per element */
    mask[0] = c->arg[RELU].integer ? x->shape[0] * pixels : 0;
    mask[1] = channels;
  } else if (c->arg[RELU].integer && residual) {
    mask[0] = planes * groups;
  }
  unic_out(c, MASK, UNIC_U8, 2, mask);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- plan */

/* Scratch: floats. [scale][bias][mean][mean_g][mean_gx][joined 2] of `padded` each, then the chunks' partial results. */
enum { ARRAYS = 7 };

/* CACHED: bytes of activations that a second pass finds in the last-level cache: in blocked memory, whose blocks of channels lie apart, the two passes of
 * the forward and of the backward are made over so many channels at a time.
 * PAST_BLOCKED: bytes of a blocked gradient from which on it is written past the caches: dx lies over dy, which is still in them (f32 [16,256,14,14] 0.35 ms,
 * past them 0.43).
 * AHEAD: bytes of each operand that are prefetched, whole tiles: from 16 to 64 KB equally good, 8 KB 25 % slower, and three operands must fit the second level.
 * TALL_BYTES: what tiles of whole rows may hold (backward of [16,1024,14,14]: 1.6 ms with 8 rows, 1.9 with 32; of [16,512,28,28] best with 32). */
enum { CACHED = 6 << 20, PAST_BLOCKED = 12 << 20, AHEAD = 32 << 10, TALL_BYTES = 32 << 10 };

struct plan { int64_t planes, pixels, groups, all, chunk, chunks, padded, width, pass; bool blocked; };

static void describe(const unic_kernel *k, struct plan *p) {
  const unic_view *x = &k->in[X];
  int64_t channels = x->shape[1];
  const int blocks[] = {x->block, k->out[Y].block, k->in[RESIDUAL].present ? k->in[RESIDUAL].block : 0};
  int block = 0;
  for (int i = 0; i < 3; i++) if (blocks[i] && (!block || blocks[i] < block)) block = blocks[i];
  p->blocked = block > 0;
  rows_shape(x->shape[0], x->ndim == 4 ? x->shape[2] * x->shape[3] : 1, p->blocked, &p->planes, &p->pixels, &p->groups);
  p->all = p->planes * p->groups;
  p->padded = padded_channels(channels, p->blocked);
  p->width = block ? block : unic_channels_width(x);
  /* Channels-last about 128 KB of f32 per chunk, so that a chunk's partial results are small beside it; at most 1024 rows, which f32 sums of
   * gradients bear. Blocked, where a chunk is a few channels' only, a number of chunks that occupies many threads. */
  p->chunk = p->blocked ? p->all / 128 : 4096 / (channels > 0 ? channels : 1);
  p->chunk = p->chunk < 4 ? 4 : p->chunk > 128 ? 128 : p->chunk;
  p->chunks = (p->all + p->chunk - 1) / p->chunk;
  int64_t bytes = unic_dtype_size(x->dtype) * p->planes * p->pixels * (k->backward ? k->dout2[Y].data ? 3 : 2 : 1);
  p->pass = p->blocked ? CACHED / (bytes > 0 ? bytes : 1) / PAD * PAD : channels;
  if (p->pass < PAD) p->pass = PAD;
}

static unic_status batch_norm_plan(const unic_kernel *k, unic_plan *out) {
  if (k->type == UNIC_F64) return UNIC_OK;
  struct plan *p = unic_new(sizeof *p);
  if (!p) return UNIC_MEMORY;
  describe(k, p);
  out->data = p;
  out->free = unic_delete;
  out->scratch = (ARRAYS + 2 * p->chunks) * p->padded * (int64_t)sizeof(float);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- fast forms */

static struct work work_of(const unic_kernel *k, const struct plan *p) {
  struct work w = {.channels = k->in[X].shape[1], .padded = p->padded, .pixels = p->pixels, .groups = p->groups, .all = p->all, .chunk = p->chunk,
                   .width = p->width, .span = p->blocked ? SPAN : k->type == UNIC_F16 ? 1 : TALL, .pitch = p->blocked ? PAD : UNIC_CHANNELS, .rows_first = !p->blocked,
                   .to = k->in[X].shape[1], .relu = k->arg[RELU].integer, .x = unic_place_of(&k->in[X], p->pixels), .rows = (double)(p->planes * p->pixels)};
  int64_t width = p->blocked ? w.width : w.channels;
  w.low = k->type == UNIC_BF16 && width % unic_channels_lanes() == 0 && !(k->backward && (k->accumulate[X] || k->accumulate[RESIDUAL]));
  if (w.low && !p->blocked) {
    int64_t group = ROWS * width * unic_dtype_size(k->type);
    w.width = width;
    w.span = TALL * group <= TALL_BYTES ? TALL : 1;
    w.ahead = w.span * group > AHEAD ? w.span * group : AHEAD;
  }
  return w;
}

/* Whether a result is to be written past the caches: more than `least` bytes, whole cache lines, and not by way of buffers. */
static bool past_caches(const struct work *w, const unic_place *y, const struct plan *p, int64_t least) {
  int64_t size = unic_dtype_size((unic_dtype)y->dtype);
  if (!(y->dtype == UNIC_F32 ? p->blocked : w->low && !p->blocked)) return false;
  return (uintptr_t)y->data % 64 == 0 && y->block * size % 64 == 0 && size * p->planes * y->plane > least;
}

/* The channels that are dealt with next, from `from` on. */
static void channels_of_pass(struct work *w, const struct plan *p, int64_t channels, int64_t from) {
  w->from = from;
  w->to = from + p->pass < channels ? from + p->pass : channels;
}

static void fill(float *to, const void *from, bool present, float otherwise, int64_t n, int64_t padded) {
  for (int64_t c = 0; c < padded; c++) to[c] = c < n && present ? ((const float *)from)[c] : otherwise;
}

/* One more batch in training. */
static void count(const unic_kernel *k) {
  if (k->arg[TRAINING].integer && k->in[TRACKED].present) ++*(int64_t *)k->in[TRACKED].data;
}

static unic_status batch_norm_forward(const unic_kernel *k) {
  const struct plan *p = k->plan;
  int64_t channels = k->in[X].shape[1], padded = p->padded;
  struct work w = work_of(k, p);
  float *scale = k->scratch, *bias = scale + padded, *mean = bias + padded, *joined = mean + 3 * padded;
  float *mean_out = k->out[MEAN].data, *rstd_out = k->out[RSTD].data;
  const float *weight = k->in[WEIGHT].data;
  float *running_mean = k->in[RUNNING_MEAN].data, *running_var = k->in[RUNNING_VAR].data;
  bool training = k->arg[TRAINING].integer;
  double eps = k->arg[EPS].number, momentum = k->arg[MOMENTUM].number, unbiased = w.rows > 1 ? w.rows / (w.rows - 1) : 1;
  count(k);
  for (int64_t c = 0; c < 2 * padded; c++) joined[c] = 0;
  if (!training) {
    fill(joined, running_mean, true, 0, channels, padded);
    fill(joined + padded, running_var, true, 0, channels, padded);
  }
  fill(bias, k->in[BIAS].data, k->in[BIAS].present, 0, channels, padded);
  bool some = k->in[X].numel > 0;
  float *partial = joined + 2 * padded;
  w.joined = joined;
  w.mean = mean;
  w.scale = scale;
  w.bias = bias;
  w.y = unic_place_of(&k->out[Y], p->pixels);
  if (k->in[RESIDUAL].present) w.residual = unic_place_of(&k->in[RESIDUAL], p->pixels);
  w.mask = k->out[MASK].data;
  w.masked = w.relu && k->in[RESIDUAL].present && k->grad;
  for (int64_t from = 0; from < channels; from += p->pass) {
    channels_of_pass(&w, p, channels, from);
    if (training && some) {
      w.partial = partial;
      UNIC_RUN(batch_norm_moments, p->all, p->chunk, &w);
      UNIC_RUN(batch_norm_join, up(w.to - from, PAD), 64, &w);
      w.partial = NULL;
    }
    int64_t last = w.to == channels ? padded : w.to;
    for (int64_t c = from; c < last; c++) {
      float rstd = (float)(1 / sqrt((double)joined[padded + c] + eps));
      mean[c] = joined[c];
      scale[c] = c < channels ? (weight ? weight[c] * rstd : rstd) : 0;
      if (c < channels && mean_out) mean_out[c] = mean[c];
      if (c < channels && rstd_out) rstd_out[c] = rstd;
    }
    w.back = training && !p->blocked;
    w.past = past_caches(&w, &w.y, p, UNIC_CHANNELS_PAST);
    if (some) UNIC_RUN(batch_norm_normalise, p->all, p->chunk, &w);
    w.back = false;
  }
  for (int64_t c = 0; c < channels && training && some && k->in[RUNNING_MEAN].present; c++) {
    running_mean[c] = (float)((1 - momentum) * (double)running_mean[c] + momentum * (double)joined[c]);
    running_var[c] = (float)((1 - momentum) * (double)running_var[c] + momentum * unbiased * (double)joined[padded + c]);
  }
  return UNIC_OK;
}

/* Mean, scale and bias of every channel from what the forward saved. */
static void set_norm(const unic_kernel *k, struct work *w, float *scale, float *bias, float *mean, int64_t channels, int64_t padded) {
  const float *weight = k->in[WEIGHT].data, *rstd = k->out[RSTD].data;
  for (int64_t c = 0; c < padded; c++) {
    mean[c] = c < channels ? ((const float *)k->out[MEAN].data)[c] : 0;
    scale[c] = c < channels ? (weight ? weight[c] * rstd[c] : rstd[c]) : 0;
  }
  fill(bias, k->in[BIAS].data, k->in[BIAS].present, 0, channels, padded);
  w->mean = mean;
  w->scale = scale;
  w->bias = bias;
}

/* y again from the saved mean and rstd: the last pass of the forward. */
static unic_status batch_norm_remake(const unic_kernel *k) {
  const struct plan *p = k->plan;
  int64_t channels = k->in[X].shape[1], padded = p->padded;
  struct work w = work_of(k, p);
  float *scale = k->scratch, *bias = scale + padded, *mean = bias + padded;
  set_norm(k, &w, scale, bias, mean, channels, padded);
  w.y = unic_place_of(&k->out[Y], p->pixels);
  if (k->in[RESIDUAL].present) w.residual = unic_place_of(&k->in[RESIDUAL], p->pixels);
  w.past = past_caches(&w, &w.y, p, UNIC_CHANNELS_PAST);
  if (k->in[X].numel > 0) UNIC_RUN(batch_norm_normalise, p->all, p->chunk, &w);
  return UNIC_OK;
}

static unic_status batch_norm_backward(const unic_kernel *k) {
  const struct plan *p = k->plan;
  int64_t channels = k->in[X].shape[1], padded = p->padded;
  struct work w = work_of(k, p);
  float *scale = k->scratch, *bias = scale + padded, *mean = bias + padded, *mean_g = mean + padded, *mean_gx = mean_g + padded, *joined = mean_gx + padded;
  const float *rstd = k->out[RSTD].data;
  float *dweight = k->din[WEIGHT].data, *dbias = k->din[BIAS].data;
  bool training = k->arg[TRAINING].integer, want_x = k->din[X].present, want_residual = k->din[RESIDUAL].present;
  bool some = k->in[X].numel > 0 && k->dout[Y].data;
  set_norm(k, &w, scale, bias, mean, channels, padded);
  for (int64_t c = 0; c < padded; c++) mean_g[c] = mean_gx[c] = joined[c] = joined[padded + c] = 0;
  w.mean_g = mean_g;
  w.mean_gx = mean_gx;
  w.backward = true;
  if (some) {
    w.dy = unic_place_of(&k->dout[Y], p->pixels);
    if (k->dout2[Y].data) w.dy2 = unic_place_of(&k->dout2[Y], p->pixels);
    w.mask = k->out[MASK].data;
    w.masked = w.relu && k->in[RESIDUAL].present;
  }
  /* In f32 the first pass writes dresidual, which is g, and the second reads it instead of the addends and the mask (so that it may lie over one of them, and dx
     over the other). In a half type the sum of two is rounded there, so that the second pass must read the addends again; it writes dresidual then, for one
     addend too: that is a stretch of memory past the caches instead of one that is read, written and read again. */
  const bool late = want_x && want_residual && k->din[RESIDUAL].dtype != UNIC_F32;
  const bool sums = some && (dweight || dbias || (want_residual && !late) || (training && want_x));
  const struct work first = w;   /* what the first pass over some channels starts from */
  for (int64_t from = 0; from < channels; from += p->pass) {
    w = first;
    channels_of_pass(&w, p, channels, from);
    w.joined = joined;
    if (sums) {
      w.partial = joined + 2 * padded;
      if (want_residual && !late) w.dresidual = unic_place_of(&k->din[RESIDUAL], p->pixels);
      w.accumulate_residual = k->accumulate[RESIDUAL];
      UNIC_RUN(batch_norm_gradient_sums, p->all, p->chunk, &w);
      UNIC_RUN(batch_norm_join, up(w.to - from, PAD), 64, &w);
      w.partial = NULL;
      if (want_residual && !late && !k->accumulate[RESIDUAL]) {
        w.dy = w.dresidual;
        w.dy2.data = NULL;
        w.relu = w.masked = false;
      }
      w.dresidual.data = NULL;
    }
    for (int64_t c = from; c < w.to; c++) {
      float sum_g = joined[c], sum_gx = joined[padded + c];
      if (dbias) dbias[c] = (k->accumulate[BIAS] ? dbias[c] : 0) + sum_g;
      if (dweight) dweight[c] = (k->accumulate[WEIGHT] ? dweight[c] : 0) + rstd[c] * sum_gx;
      if (training && some) {
        mean_g[c] = (float)((double)sum_g / w.rows);
        mean_gx[c] = (float)((double)sum_gx / w.rows * (double)rstd[c] * (double)rstd[c]);
      }
    }
    if (want_x && some) {
      w.dx = unic_place_of(&k->din[X], p->pixels);
      w.accumulate = k->accumulate[X];
      w.back = sums && !p->blocked;
      if (late) w.dresidual = unic_place_of(&k->din[RESIDUAL], p->pixels);
      w.accumulate_residual = k->accumulate[RESIDUAL];
      int64_t least = p->blocked ? PAST_BLOCKED : UNIC_CHANNELS_PAST;
      w.past = !w.accumulate && past_caches(&w, &w.dx, p, least) && (!late || past_caches(&w, &w.dresidual, p, least));
      UNIC_RUN(batch_norm_input_gradient, p->all, p->chunk, &w);
    }
  }
  for (int i = X; i <= RESIDUAL && !some; i += RESIDUAL - X)
    if (k->din[i].present && !k->accumulate[i]) memset(k->din[i].data, 0, (size_t)(k->din[i].numel * unic_dtype_size(k->type)));
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the f64 form */

static int64_t element(const unic_view *v, int64_t n, int64_t c, int64_t p) {
  int64_t at = n * v->stride[0] + c * v->stride[1];
  return v->ndim == 4 ? at + p / v->shape[3] * v->stride[2] + p % v->shape[3] * v->stride[3] : at;
}

static int64_t pixels_of(const unic_view *v) { return v->ndim == 4 ? v->shape[2] * v->shape[3] : 1; }

/* Value before the ReLU. */
static double before_relu(const unic_kernel *k, int64_t n, int64_t c, int64_t p, double mean, double rstd) {
  const double *w = k->in[WEIGHT].data, *b = k->in[BIAS].data;
  double z = (((const double *)k->in[X].data)[element(&k->in[X], n, c, p)] - mean) * rstd * (w ? w[c] : 1) + (b ? b[c] : 0);
  if (k->in[RESIDUAL].present) z += ((const double *)k->in[RESIDUAL].data)[element(&k->in[RESIDUAL], n, c, p)];
  return z;
}

static unic_status batch_norm_reference(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  int64_t images = x->shape[0], pixels = pixels_of(x), rows = images * pixels;
  double momentum = k->arg[MOMENTUM].number;
  count(k);
  for (int64_t c = 0; c < x->shape[1]; c++) {
    double mean = 0, var = 0, *running_mean = k->in[RUNNING_MEAN].data, *running_var = k->in[RUNNING_VAR].data;
    if (k->arg[TRAINING].integer) {
      for (int64_t i = 0; i < rows; i++) mean += ((const double *)x->data)[element(x, i / pixels, c, i % pixels)];
      mean = rows ? mean / (double)rows : 0;
      for (int64_t i = 0; i < rows; i++) {
        double d = ((const double *)x->data)[element(x, i / pixels, c, i % pixels)] - mean;
        var += d * d;
      }
      if (running_mean && rows) {
        running_mean[c] += momentum * (mean - running_mean[c]);
        running_var[c] += momentum * (var / (double)(rows > 1 ? rows - 1 : 1) - running_var[c]);
      }
      var = rows ? var / (double)rows : 0;
    } else {
      mean = running_mean[c];
      var = running_var[c];
    }
    double rstd = 1 / sqrt(var + k->arg[EPS].number);
    if (k->out[MEAN].data) ((double *)k->out[MEAN].data)[c] = mean;
    if (k->out[RSTD].data) ((double *)k->out[RSTD].data)[c] = rstd;
    for (int64_t i = 0; i < rows; i++) {
      double z = before_relu(k, i / pixels, c, i % pixels, mean, rstd);
      bool shut = k->arg[RELU].integer && z <= 0;
      ((double *)k->out[Y].data)[element(&k->out[Y], i / pixels, c, i % pixels)] = shut ? 0 : z;
      if (k->out[MASK].data && k->arg[RELU].integer) ((uint8_t *)k->out[MASK].data)[i * x->shape[1] + c] = !shut;
    }
  }
  return UNIC_OK;
}

static unic_status batch_norm_reference_remake(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  int64_t pixels = pixels_of(x), rows = x->shape[0] * pixels;
  for (int64_t c = 0; c < x->shape[1]; c++)
    for (int64_t i = 0; i < rows; i++) {
      double z = before_relu(k, i / pixels, c, i % pixels, ((const double *)k->out[MEAN].data)[c], ((const double *)k->out[RSTD].data)[c]);
      ((double *)k->out[Y].data)[element(&k->out[Y], i / pixels, c, i % pixels)] = k->arg[RELU].integer && z <= 0 ? 0 : z;
    }
  return UNIC_OK;
}

static unic_remake_price batch_norm_remakes(const unic_call *c, int j) {
  (void)c;
  return j == Y ? UNIC_REMAKE_CHEAP : UNIC_REMAKE_NEVER;
}

static unic_status batch_norm_reference_backward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *dy = &k->dout[Y], *dy2 = &k->dout2[Y];
  int64_t images = x->shape[0], pixels = pixels_of(x), rows = images * pixels;
  const double *weight = k->in[WEIGHT].data;
  const uint8_t *mask = k->arg[RELU].integer ? k->out[MASK].data : NULL;
  for (int64_t c = 0; c < x->shape[1]; c++) {
    double mean = ((const double *)k->out[MEAN].data)[c], rstd = ((const double *)k->out[RSTD].data)[c], sum = 0, sum_x = 0;
    for (int pass = 0; pass < 2; pass++) {
      for (int64_t i = 0; i < rows; i++) {
        int64_t n = i / pixels, q = i % pixels;
        double g = dy->data ? ((const double *)dy->data)[element(dy, n, c, q)] : 0;
        if (dy2->data) g += ((const double *)dy2->data)[element(dy2, n, c, q)];
        if (mask && !mask[i * x->shape[1] + c]) g = 0;
        double hat = (((const double *)x->data)[element(x, n, c, q)] - mean) * rstd;
        if (pass == 0) {
          sum += g;
          sum_x += g * hat;
          continue;
        }
        if (k->din[RESIDUAL].present) {
          double *to = (double *)k->din[RESIDUAL].data + element(&k->din[RESIDUAL], n, c, q);
          *to = (k->accumulate[RESIDUAL] ? *to : 0) + g;
        }
        if (k->din[X].present) {
          double *to = (double *)k->din[X].data + element(&k->din[X], n, c, q);
          double d = k->arg[TRAINING].integer ? g - sum / (double)rows - hat * sum_x / (double)rows : g;
          *to = (k->accumulate[X] ? *to : 0) + d * rstd * (weight ? weight[c] : 1);
        }
      }
    }
    double *dw = k->din[WEIGHT].data, *db = k->din[BIAS].data;
    if (dw) dw[c] = (k->accumulate[WEIGHT] ? dw[c] : 0) + sum_x;
    if (db) db[c] = (k->accumulate[BIAS] ? db[c] : 0) + sum;
  }
  return UNIC_OK;
}

static const unic_op op_batch_norm = {
  .name = "batch_norm",
  .signature = "x: tensor, weight: tensor<wide>?[C], bias: tensor<wide>?[C], running_mean!: tensor<wide>?[C], running_var!: tensor<wide>?[C], residual: tensor?, "
               "num_batches_tracked!: tensor<int>?, training: bool = true, momentum: number = 0.1, eps: number = 1e-5, relu: bool = false -> y, (mean, rstd, mask)",
  .doc = "Batch normalisation over everything but the channels, with an optional residual and ReLU in the same pass: relu?(norm(x) weight + bias + residual?).\n"
         "x: [N, C] or [N, C, H, W]\n"
         "weight: scale of each channel; 1 when absent\n"
         "bias: shift of each channel; 0 when absent\n"
         "running_mean: moved towards the batch's mean in training, used as the mean otherwise\n"
         "running_var: the same for the variance (unbiased)\n"
         "residual: added before the ReLU, of the shape of x\n"
         "num_batches_tracked: i64 without dimensions, one more after a call in training\n"
         "training: normalise by the batch's statistics (true) or by the running ones\n"
         "momentum: how far the running statistics move, 0 to 1\n"
         "eps: added to the variance under the root\n"
         "relu: negative results become 0",
  .saves = "x weight bias mean rstd mask",
  .grads = "x:over weight:wide bias:wide residual:over_wide",
  .remakes = batch_norm_remakes,
  .again = "residual",
  .layouts = "x:channels_last|blocked residual:channels_last|blocked",
  .shape = batch_norm_shape,
  .cpu = {batch_norm_forward, batch_norm_backward, batch_norm_reference, batch_norm_reference_backward, batch_norm_remake, batch_norm_reference_remake, .plan = batch_norm_plan},
  .flags = UNIC_OP_METHOD,
  .addends = 2,
};

UNIC_OPS(batch_norm, &op_batch_norm);

#endif
