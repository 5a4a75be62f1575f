/* conv2d: y[n,o,i,j] = bias[o] + sum over c,u,v of x[n, g I + c, i S - P + u D, j S - P + v D] weight[o,c,u,v], g = o's group.
 *
 * Shapes: x [N,C,H,W], weight [O,I,Kh,Kw] with I = C / groups, bias [O], y [N,O,Oh,Ow], Oh = floor((H + 2P - D (Kh - 1) - 1) / S) + 1.
 * conv_transpose2d: the same numbers the other way, y[n,o,i S - P + u D, j S - P + v D] += x[n,c,i,j] weight[c,o,u,v], which is conv2d's gradient with
 * respect to its image; so x and its gradient take the places of conv2d's y and dy, and both share everything below (`roles`).
 *   x [N,I,H,W], weight [I,O/groups,Kh,Kw], y [N,O,Oh,Ow], Oh = (H - 1) S - 2P + D (Kh - 1) + output_padding + 1.
 * Saved: x and weight. Bits: same_threads (oneDNN inside); the bias gradient alone is any_threads.
 *
 * oneDNN does the work, on channels-last memory or channels in blocks, as x comes (batch_norm is where a network enters the blocked layout);
 * where it has only slow loops for a blocked image, the image passes through scratch; dense 3x3 convolutions in f32 on blocks and in bf16 have a kernel of their own
 * (winograd.h) for all but the weight gradient, 1x1 ones in bf16 are products (pairs.h); conv_plan.h says when. Weights are plain row-major parameters. The packed layout that a
 * primitive wants is made in scratch right before its use where the weights are about to change (a training step: as fast, and half the weight
 * memory); without a tape it is a derived form, rebuilt when the weight's version moves. Weight gradients are own kernels' (conv_weights.c), or
 * computed in oneDNN's layout and unpacked, or added, into the plain f32 gradient. bf16 and f16 run natively where oneDNN has such a convolution for
 * this processor, otherwise through f32 scratch. The f64 form is plain loops.
 *
 * Over 500 lines: two ops of three products each, and their plain forms. */
#include "walk.h"
#include "conv_weights.h"
#include "pairs.h"
#include "winograd.h"

enum { X, WEIGHT, BIAS, STRIDE, PADDING, DILATION, GROUPS, OUTPUT_PADDING };
enum { Y };

enum { BIAS_CHUNKS = 64 };   /* partial sums of the bias gradient: more than any machine's share of threads needs to balance */

struct convert { const void *from; void *to; int from_dtype, to_dtype; };

/* Sums of dy over all but the channels. dy is [N, G, P, B] in memory: channels-last has G = 1, B = O. One partial row per chunk of pixels. */
struct bias_sum {
  const void *dy;
  int dtype;
  int64_t groups, pixels, block, chunk;
  float *partial;
};

/* bias[c] added to rows of channels. */
struct bias_add { void *y; const float *bias; int64_t channels; int dtype; };

#if UNIC_LOOPS

UNIC_LOOP(conv2d_add_bias) {
  const struct bias_add *s = context;
  for (int64_t row = begin; row < end; row++)
    for (int64_t c = 0; c < s->channels; c += UNIC_ROW) {
      int64_t n = s->channels - c < UNIC_ROW ? s->channels - c : UNIC_ROW;
      unic_row_put(s->y, s->dtype, row * s->channels + c, n, s->bias + c, 1);
    }
}

UNIC_LOOP(conv2d_convert) {
  const struct convert *c = context;
  int from_size = unic_size_of(c->from_dtype), to_size = unic_size_of(c->to_dtype);
  for (int64_t i = begin; i < end; i += UNIC_ROW) {
    int64_t n = end - i < UNIC_ROW ? end - i : UNIC_ROW;
    unic_row_convert((const char *)c->from + i * from_size, c->from_dtype, (char *)c->to + i * to_size, c->to_dtype, n);
  }
}

UNIC_LOOP(conv2d_bias_sum) {
  const struct bias_sum *s = context;
  float buffer[UNIC_ROW], *sum = s->partial + begin / s->chunk * s->groups * s->block;
  for (int64_t c = 0; c < s->groups * s->block; c++) sum[c] = 0;
  for (int64_t i = begin; i < end; i++) {
    int64_t n = i / s->pixels, p = i - n * s->pixels;
    for (int64_t g = 0; g < s->groups; g++)
      for (int64_t c = 0; c < s->block; c += UNIC_ROW) {
        int64_t m = s->block - c < UNIC_ROW ? s->block - c : UNIC_ROW;
        const float *restrict row = unic_row_load(s->dy, s->dtype, ((n * s->groups + g) * s->pixels + p) * s->block + c, m, buffer);
        float *restrict to = sum + g * s->block + c;
        for (int64_t e = 0; e < m; e++) to[e] += row[e];
      }
  }
}

#else

#include "dnnl.h"

UNIC_LOOP_TABLE(conv2d_convert);
UNIC_LOOP_TABLE(conv2d_bias_sum);
UNIC_LOOP_TABLE(conv2d_add_bias);

/* ---------------------------------------------------------------- shapes */

static int64_t effective(int64_t kernel, int64_t dilation) { return dilation * (kernel - 1) + 1; }

/* Weights are of the type of x, or f32 beside images in a half type: they are rounded when they are packed. */
static unic_status check_weight(const unic_call *c) {
  unic_dtype own = (unic_dtype)c->in[WEIGHT]->dtype;
  if (own == c->type || (own == UNIC_F32 && unic_dtype_is_half(c->type))) return UNIC_OK;
  return unic_fail_arg(c, WEIGHT, "it is %s and the tensor before it is %s; t:cast(\"%s\") converts it", unic_dtype_name(own), unic_dtype_name(c->type), unic_dtype_name(c->type));
}

static unic_status conv2d_shape(unic_call *c) {
  const unic_tensor *x = c->in[X], *w = c->in[WEIGHT];
  int64_t groups = c->arg[GROUPS].integer;
  char text[256];
  UNIC_TRY(check_weight(c));
  if (groups < 1) return unic_fail_arg(c, GROUPS, "%lld was given, expected at least 1", (long long)groups);
  if (x->shape[1] % groups) return unic_fail_arg(c, GROUPS, "%lld was given, which does not divide the %lld channels of 'x'", (long long)groups, (long long)x->shape[1]);
  if (w->shape[0] % groups) return unic_fail_arg(c, GROUPS, "%lld was given, which does not divide the %lld output channels of 'weight'", (long long)groups, (long long)w->shape[0]);
  if (w->shape[1] * groups != x->shape[1])
    return unic_fail_arg(c, WEIGHT, "%s was given, its second dimension must be %lld: 'x' has %lld channels in %lld group%s", unic_tensor_describe(w, text, sizeof text),
                         (long long)(x->shape[1] / groups), (long long)x->shape[1], (long long)groups, groups == 1 ? "" : "s");
  if (unic_tensor_numel(w) == 0) return unic_fail_arg(c, WEIGHT, "%s was given, expected no dimension of size 0", unic_tensor_describe(w, text, sizeof text));
  int64_t shape[4] = {x->shape[0], w->shape[0]};
  for (int d = 0; d < 2; d++) {
    int64_t stride = c->arg[STRIDE].ints[d], padding = c->arg[PADDING].ints[d], dilation = c->arg[DILATION].ints[d];
    if (stride < 1) return unic_fail_arg(c, STRIDE, "%lld was given, expected at least 1", (long long)stride);
    if (padding < 0) return unic_fail_arg(c, PADDING, "%lld was given, expected at least 0", (long long)padding);
    if (dilation < 1) return unic_fail_arg(c, DILATION, "%lld was given, expected at least 1", (long long)dilation);
    int64_t reach = x->shape[2 + d] + 2 * padding, span = effective(w->shape[2 + d], dilation);
    if (reach < span)
      return unic_fail_arg(c, WEIGHT, "its kernel spans %lld pixels in dimension %d and the padded 'x' has %lld; expected a smaller kernel or more padding", (long long)span, 3 + d, (long long)reach);
    shape[2 + d] = (reach - span) / stride + 1;
  }
  unic_out(c, Y, (unic_dtype)x->dtype, 4, shape);
  /* The layout of x stays where the output's channels fill its blocks (and the blocks do not straddle groups). */
  int64_t in = w->shape[1], out = w->shape[0] / groups;
  bool blocked = x->block && w->shape[0] % x->block == 0 && (groups == 1 || (in % x->block == 0 && out % x->block == 0) || (in == 1 && out == 1));
  c->out[Y].layout = blocked ? UNIC_BLOCKED : UNIC_CHANNELS_LAST;
  c->out[Y].block = blocked ? x->block : 0;
  return UNIC_OK;
}

static unic_status conv_transpose2d_shape(unic_call *c) {
  const unic_tensor *x = c->in[X], *w = c->in[WEIGHT];
  int64_t groups = c->arg[GROUPS].integer;
  char text[256];
  UNIC_TRY(check_weight(c));
  if (groups < 1) return unic_fail_arg(c, GROUPS, "%lld was given, expected at least 1", (long long)groups);
  if (x->shape[1] % groups) return unic_fail_arg(c, GROUPS, "%lld was given, which does not divide the %lld channels of 'x'", (long long)groups, (long long)x->shape[1]);
  if (w->shape[0] != x->shape[1])
    return unic_fail_arg(c, WEIGHT, "%s was given, its first dimension must be %lld, the channels of 'x'", unic_tensor_describe(w, text, sizeof text), (long long)x->shape[1]);
  if (unic_tensor_numel(w) == 0) return unic_fail_arg(c, WEIGHT, "%s was given, expected no dimension of size 0", unic_tensor_describe(w, text, sizeof text));
  int64_t shape[4] = {x->shape[0], w->shape[1] * groups};
  if (c->in[BIAS] && c->in[BIAS]->shape[0] != shape[1])
    return unic_fail_arg(c, BIAS, "it has %lld elements, the result has %lld channels", (long long)c->in[BIAS]->shape[0], (long long)shape[1]);
  for (int d = 0; d < 2; d++) {
    int64_t stride = c->arg[STRIDE].ints[d], padding = c->arg[PADDING].ints[d], dilation = c->arg[DILATION].ints[d], more = c->arg[OUTPUT_PADDING].ints[d];
    const int64_t most = (int64_t)1 << 30;   /* of any of them: the size below cannot overflow */
    if (stride < 1 || stride > most) return unic_fail_arg(c, STRIDE, "%lld was given, expected at least 1", (long long)stride);
    if (padding < 0 || padding > most) return unic_fail_arg(c, PADDING, "%lld was given, expected at least 0", (long long)padding);
    if (dilation < 1 || dilation > most) return unic_fail_arg(c, DILATION, "%lld was given, expected at least 1", (long long)dilation);
    if (more < 0 || more >= stride) return unic_fail_arg(c, OUTPUT_PADDING, "%lld was given, expected 0 or more, and less than the stride", (long long)more);
    if (x->shape[2 + d] < 1 || x->shape[2 + d] > most || w->shape[2 + d] > most)
      return unic_fail_arg(c, X, "%s was given, expected at least one pixel", unic_tensor_describe(x, text, sizeof text));
    shape[2 + d] = (x->shape[2 + d] - 1) * stride - 2 * padding + effective(w->shape[2 + d], dilation) + more;
    if (shape[2 + d] < 1) return unic_fail_arg(c, PADDING, "%lld was given, which leaves nothing of the result in dimension %d", (long long)padding, 3 + d);
  }
  unic_out(c, Y, (unic_dtype)x->dtype, 4, shape);
  c->out[Y].layout = UNIC_CHANNELS_LAST;
  return UNIC_OK;
}

/* Of one product. */
static double conv2d_size(const unic_kernel *k) {
  const unic_view *w = &k->in[WEIGHT];
  return 2.0 * (double)k->out[Y].numel * (double)(w->shape[1] * w->shape[2] * w->shape[3]);
}

static double conv2d_flops(const unic_kernel *k) { return conv2d_size(k) * unic_products(k, X, WEIGHT); }

static double conv_transpose2d_flops(const unic_kernel *k) {
  const unic_view *w = &k->in[WEIGHT];
  return 2.0 * (double)k->in[X].numel * (double)(w->shape[1] * w->shape[2] * w->shape[3]) * unic_products(k, X, WEIGHT);
}

#include "conv_plan.h"

/* ---------------------------------------------------------------- fast forms */

static void *at(const unic_kernel *k, int64_t offset) { return (char *)k->scratch + offset; }

/* The weights in the layout that `forward` or `data` reads. */
static unic_status weights_in(const unic_kernel *k, const struct plan *p, const void **out) {
  const void *w = k->in[WEIGHT].data;
  *out = w;
  if (p->narrow) {
    int64_t n = k->in[WEIGHT].numel;
    if (k->in[WEIGHT].dtype == UNIC_F32) {   /* rounded as everywhere, so that the result does not depend on what the processor has */
      convert(w, UNIC_F32, at(k, p->w + 4 * n), k->type, n);
      w = at(k, p->w + 4 * n);
    }
    convert(w, k->type, at(k, p->w), UNIC_F32, n);
    *out = at(k, p->w);
  }
  if (!p->pack.primitive && !p->tiled.tiles) return UNIC_OK;
  if (packs_once(k, p)) {
    *out = k->derived[0];
    return UNIC_OK;
  }
  w = *out;
  *out = at(k, p->packed);
  return pack(k, p, w, at(k, p->packed), at(k, p->work));
}

/* Where an image is to be found for the convolution: reordered into scratch if there is a reorder. */
static unic_status image_in(const unic_kernel *k, const struct plan *p, const unic_dnnl_primitive *reorder, int64_t offset, const void **image) {
  if (!reorder->primitive) return UNIC_OK;
  const unic_dnnl_arg args[] = {{DNNL_ARG_FROM, *image}, {DNNL_ARG_TO, at(k, offset)}};
  *image = at(k, offset);
  return unic_dnnl_execute(k->op->name, reorder, 2, args, at(k, p->work));
}

/* The way back: `made` in the convolution's layout to `lies`. */
static unic_status image_out(const unic_kernel *k, const struct plan *p, const unic_dnnl_primitive *reorder, const void *made, void *lies) {
  if (!reorder->primitive) return UNIC_OK;
  const unic_dnnl_arg args[] = {{DNNL_ARG_FROM, made}, {DNNL_ARG_TO, lies}};
  return unic_dnnl_execute(k->op->name, reorder, 2, args, at(k, p->work));
}

/* A 1x1 convolution or its data gradient as a product. */
static void product_of_pixels(const unic_kernel *k, const struct plan *p, const void *from, const void *bias, void *to) {
  if (packs_once(k, p)) unic_pairs_run(&p->rows, from, k->derived[0], bias, to, false);
  else unic_pairs_multiply(&p->rows, from, k->in[WEIGHT].data, k->in[WEIGHT].dtype, bias, to, false, at(k, p->packed));
}

static unic_status conv2d_forward(const unic_kernel *k) {
  const struct plan *p = k->plan;
  if (!p) return UNIC_OK;   /* zero-size */
  const void *x = k->in[X].data, *w;
  void *y = k->out[Y].data;
  if (p->rows.m) {
    product_of_pixels(k, p, x, k->in[BIAS].data, y);
    return UNIC_OK;
  }
  UNIC_TRY(weights_in(k, p, &w));
  if (p->tiled.tiles) {
    winograd_run(&p->tiled, x, w, k->in[BIAS].data, y, at(k, p->work));
    return UNIC_OK;
  }
  if (p->narrow) {
    convert(x, k->type, at(k, p->x), UNIC_F32, k->in[X].numel);
    x = at(k, p->x);
    y = at(k, p->y);
  }
  UNIC_TRY(image_in(k, p, &p->x_in, p->x_last, &x));
  void *made = p->y_out.primitive ? at(k, p->y_last) : y;
  const unic_dnnl_arg args[] = {{DNNL_ARG_SRC, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, made}, {DNNL_ARG_BIAS, k->in[BIAS].data}};
  UNIC_TRY(unic_dnnl_execute(k->op->name, &p->forward, k->in[BIAS].present ? 4 : 3, args, at(k, p->work)));
  UNIC_TRY(image_out(k, p, &p->y_out, made, y));
  if (p->narrow) convert(y, UNIC_F32, k->out[Y].data, k->type, k->out[Y].numel);
  return UNIC_OK;
}

static void zero(const unic_kernel *k, int i) {
  if (k->din[i].present && !k->accumulate[i]) memset(k->din[i].data, 0, (size_t)(k->din[i].numel * unic_dtype_size((unic_dtype)k->din[i].dtype)));
}

static void bias_gradient(const unic_kernel *k, const struct plan *p) {
  const unic_view *v = &k->dout[Y];
  int64_t pixels = v->shape[0] * v->shape[2] * v->shape[3], channels = v->shape[1];
  struct bias_sum s = {.dy = v->data, .dtype = v->dtype, .pixels = v->shape[2] * v->shape[3], .block = v->block ? v->block : channels, .partial = at(k, p->sums)};
  s.groups = channels / s.block;
  s.chunk = (pixels + BIAS_CHUNKS - 1) / BIAS_CHUNKS;
  UNIC_RUN(conv2d_bias_sum, pixels, s.chunk, &s);
  float *db = k->din[BIAS].data;
  for (int64_t c = 0; c < channels; c++) {
    double sum = k->accumulate[BIAS] ? db[c] : 0;
    for (int64_t i = 0; i * s.chunk < pixels; i++) sum += s.partial[i * channels + c];
    db[c] = (float)sum;
  }
}

/* The weight gradient from the image and the result's gradient as the plan wants them. */
static unic_status weight_gradient(const unic_kernel *k, const struct plan *p, const void *image, const void *result) {
  if (p->owns) {
    unic_conv_weights_run(&p->own, image, result, k->din[WEIGHT].data, k->accumulate[WEIGHT], at(k, p->work));
    return UNIC_OK;
  }
  void *dw = p->unpack.primitive ? at(k, p->dw) : k->din[WEIGHT].data;
  const unic_dnnl_arg args[] = {{DNNL_ARG_SRC, image}, {DNNL_ARG_DIFF_DST, result}, {DNNL_ARG_DIFF_WEIGHTS, dw}};
  UNIC_TRY(unic_dnnl_execute(k->op->name, &p->weights, 3, args, at(k, p->work)));
  if (!p->unpack.primitive) return UNIC_OK;
  const unic_dnnl_arg unpack[] = {{DNNL_ARG_FROM, dw}, {DNNL_ARG_TO, k->din[WEIGHT].data}};
  return unic_dnnl_execute(k->op->name, &p->unpack, 2, unpack, at(k, p->work));
}

static unic_status conv2d_backward(const unic_kernel *k) {
  const struct plan *p = k->plan;
  if (!p || !k->dout[Y].data) {
    zero(k, X);
    zero(k, WEIGHT);
    zero(k, BIAS);
    return UNIC_OK;
  }
  const char *name = k->op->name;
  const void *dy = k->dout[Y].data;
  if (k->din[BIAS].present) bias_gradient(k, p);
  if (p->narrow) {
    convert(dy, k->type, at(k, p->y), UNIC_F32, k->dout[Y].numel);
    dy = at(k, p->y);
  }
  UNIC_TRY(image_in(k, p, &p->y_in, p->y_last, &dy));
  if (p->owns || p->weights.primitive) {
    const void *x = k->in[X].data;
    if (p->narrow) {
      convert(x, k->type, at(k, p->x), UNIC_F32, k->in[X].numel);
      x = at(k, p->x);
    }
    UNIC_TRY(image_in(k, p, &p->x_in, p->x_last, &x));
    UNIC_TRY(weight_gradient(k, p, x, dy));
  }
  if (p->rows.m) product_of_pixels(k, p, dy, NULL, k->din[X].data);
  if (p->tiled.tiles) {
    const void *w;
    UNIC_TRY(weights_in(k, p, &w));
    winograd_run(&p->tiled, dy, w, NULL, k->din[X].data, at(k, p->work));
  }
  if (p->data.primitive) {
    const void *w;
    UNIC_TRY(weights_in(k, p, &w));
    void *dx = p->narrow ? at(k, p->dx) : k->din[X].data;
    void *made = p->x_out.primitive ? at(k, p->dx_last) : dx;
    const unic_dnnl_arg args[] = {{DNNL_ARG_DIFF_DST, dy}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DIFF_SRC, made}};
    UNIC_TRY(unic_dnnl_execute(name, &p->data, 3, args, at(k, p->work)));
    UNIC_TRY(image_out(k, p, &p->x_out, made, dx));
    if (p->narrow) convert(dx, UNIC_F32, k->din[X].data, k->type, k->din[X].numel);
  }
  return UNIC_OK;
}

static unic_status conv_transpose2d_forward(const unic_kernel *k) {
  const struct plan *p = k->plan;
  if (!p) return UNIC_OK;   /* zero-size */
  const void *x = k->in[X].data, *w;
  void *y = k->out[Y].data;
  UNIC_TRY(weights_in(k, p, &w));
  if (p->narrow) {
    convert(x, k->type, at(k, p->y), UNIC_F32, k->in[X].numel);
    x = at(k, p->y);
    y = at(k, p->dx);
  }
  const unic_dnnl_arg args[] = {{DNNL_ARG_DIFF_DST, x}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DIFF_SRC, y}};
  UNIC_TRY(unic_dnnl_execute(k->op->name, &p->data, 3, args, at(k, p->work)));
  if (k->in[BIAS].present) {
    const unic_view *v = &k->out[Y];
    struct bias_add s = {.y = y, .bias = k->in[BIAS].data, .channels = v->shape[1], .dtype = p->narrow ? UNIC_F32 : (int)k->type};
    UNIC_RUN(conv2d_add_bias, v->numel / v->shape[1], v->shape[1] < 8192 ? 8192 / v->shape[1] : 1, &s);
  }
  if (p->narrow) convert(y, UNIC_F32, k->out[Y].data, k->type, k->out[Y].numel);
  return UNIC_OK;
}

static unic_status conv_transpose2d_backward(const unic_kernel *k) {
  const struct plan *p = k->plan;
  if (!p || !k->dout[Y].data) {
    zero(k, X);
    zero(k, WEIGHT);
    zero(k, BIAS);
    return UNIC_OK;
  }
  const void *dy = k->dout[Y].data;
  if (k->din[BIAS].present) bias_gradient(k, p);
  if (p->narrow && (p->owns || p->weights.primitive || p->forward.primitive)) {
    convert(dy, k->type, at(k, p->x), UNIC_F32, k->dout[Y].numel);
    dy = at(k, p->x);
  }
  if (p->owns || p->weights.primitive) {
    const void *x = k->in[X].data;
    if (p->narrow) {
      convert(x, k->type, at(k, p->y), UNIC_F32, k->in[X].numel);
      x = at(k, p->y);
    }
    UNIC_TRY(weight_gradient(k, p, dy, x));
  }
  if (p->forward.primitive) {
    const void *w;
    UNIC_TRY(weights_in(k, p, &w));
    void *dx = p->narrow ? at(k, p->y) : k->din[X].data;   /* the copy of x is not read any more */
    const unic_dnnl_arg args[] = {{DNNL_ARG_SRC, dy}, {DNNL_ARG_WEIGHTS, w}, {DNNL_ARG_DST, dx}};
    UNIC_TRY(unic_dnnl_execute(k->op->name, &p->forward, 3, args, at(k, p->work)));
    if (p->narrow) convert(dx, UNIC_F32, k->din[X].data, k->type, k->din[X].numel);
  }
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the f64 form: loops over the definition */

/* Where input pixel `i S - P + u D` lies, or -1 outside. */
static int64_t source(const unic_kernel *k, int d, int64_t i, int64_t u, int64_t size) {
  int64_t at_ = i * k->arg[STRIDE].ints[d] - k->arg[PADDING].ints[d] + u * k->arg[DILATION].ints[d];
  return at_ >= 0 && at_ < size ? at_ : -1;
}

static int64_t offset4(const unic_view *v, int64_t a, int64_t b, int64_t c, int64_t d) { return a * v->stride[0] + b * v->stride[1] + c * v->stride[2] + d * v->stride[3]; }

/* Calls `term` for every product of the definition that belongs to output channels begin .. end-1. */
typedef void term(const unic_kernel *k, int64_t x_at, int64_t w_at, int64_t y_at);

static inline void each_product(const unic_kernel *k, const unic_view *x, const unic_view *w, const unic_view *y, int64_t begin, int64_t end, term *visit) {
  int64_t per_group = w->shape[0] / k->arg[GROUPS].integer;
  for (int64_t o = begin; o < end; o++)
    for (int64_t n = 0; n < y->shape[0]; n++)
      for (int64_t i = 0; i < y->shape[2]; i++)
        for (int64_t j = 0; j < y->shape[3]; j++)
          for (int64_t u = 0; u < w->shape[2]; u++)
            for (int64_t v = 0; v < w->shape[3]; v++) {
              int64_t row = source(k, 0, i, u, x->shape[2]), column = source(k, 1, j, v, x->shape[3]);
              if (row < 0 || column < 0) continue;
              for (int64_t c = 0; c < w->shape[1]; c++)
                visit(k, offset4(x, n, o / per_group * w->shape[1] + c, row, column), offset4(w, o, c, u, v), offset4(y, n, o, i, j));
            }
}

static inline void add_y(const unic_kernel *k, int64_t x, int64_t w, int64_t y) { ((double *)k->out[Y].data)[y] += ((const double *)k->in[X].data)[x] * ((const double *)k->in[WEIGHT].data)[w]; }
static inline void add_dx(const unic_kernel *k, int64_t x, int64_t w, int64_t y) { ((double *)k->din[X].data)[x] += ((const double *)k->dout[Y].data)[y] * ((const double *)k->in[WEIGHT].data)[w]; }
static inline void add_dw(const unic_kernel *k, int64_t x, int64_t w, int64_t y) { ((double *)k->din[WEIGHT].data)[w] += ((const double *)k->dout[Y].data)[y] * ((const double *)k->in[X].data)[x]; }

static void forward_channels(void *context, int64_t begin, int64_t end) {
  const unic_kernel *k = context;
  const unic_view *y = &k->out[Y];
  const double *b = k->in[BIAS].data;
  for (int64_t n = 0; n < y->shape[0]; n++)
    for (int64_t o = begin; o < end; o++)
      for (int64_t i = 0; i < y->shape[2]; i++)
        for (int64_t j = 0; j < y->shape[3]; j++) ((double *)y->data)[offset4(y, n, o, i, j)] = k->in[BIAS].present ? b[o] : 0;
  each_product(k, &k->in[X], &k->in[WEIGHT], y, begin, end, add_y);
}

/* Output channels per chunk: all of them where waking a second thread would cost more than the loops. */
static int64_t reference_chunk(const unic_kernel *k) { return conv2d_size(k) < 1e6 ? k->in[WEIGHT].shape[0] : 1; }

static unic_status conv2d_reference(const unic_kernel *k) {
  unic_parallel_for(k->in[WEIGHT].shape[0], reference_chunk(k), forward_channels, (void *)(uintptr_t)k);
  return UNIC_OK;
}

static void weight_channels(void *context, int64_t begin, int64_t end) {
  const unic_kernel *k = context;
  each_product(k, &k->in[X], &k->din[WEIGHT], &k->dout[Y], begin, end, add_dw);
}

static unic_status conv2d_reference_backward(const unic_kernel *k) {
  zero(k, X);
  zero(k, WEIGHT);
  zero(k, BIAS);
  const unic_view *dy = &k->dout[Y];
  if (!dy->data) return UNIC_OK;
  if (k->din[X].present) each_product(k, &k->din[X], &k->in[WEIGHT], dy, 0, k->in[WEIGHT].shape[0], add_dx);
  if (k->din[WEIGHT].present) unic_parallel_for(k->in[WEIGHT].shape[0], reference_chunk(k), weight_channels, (void *)(uintptr_t)k);
  if (k->din[BIAS].present)
    for (int64_t n = 0; n < dy->shape[0]; n++)
      for (int64_t o = 0; o < dy->shape[1]; o++)
        for (int64_t i = 0; i < dy->shape[2]; i++)
          for (int64_t j = 0; j < dy->shape[3]; j++) ((double *)k->din[BIAS].data)[o] += ((const double *)dy->data)[offset4(dy, n, o, i, j)];
  return UNIC_OK;
}

/* The transposed form: the same products, where y is the image and x the result of the convolution. */
static inline void add_image(const unic_kernel *k, int64_t y, int64_t w, int64_t x) { ((double *)k->out[Y].data)[y] += ((const double *)k->in[X].data)[x] * ((const double *)k->in[WEIGHT].data)[w]; }
static inline void add_result(const unic_kernel *k, int64_t y, int64_t w, int64_t x) { ((double *)k->din[X].data)[x] += ((const double *)k->dout[Y].data)[y] * ((const double *)k->in[WEIGHT].data)[w]; }
static inline void add_filter(const unic_kernel *k, int64_t y, int64_t w, int64_t x) { ((double *)k->din[WEIGHT].data)[w] += ((const double *)k->dout[Y].data)[y] * ((const double *)k->in[X].data)[x]; }

static unic_status conv_transpose2d_reference(const unic_kernel *k) {
  const unic_view *y = &k->out[Y];
  const double *b = k->in[BIAS].data;
  for (int64_t n = 0; n < y->shape[0]; n++)
    for (int64_t o = 0; o < y->shape[1]; o++)
      for (int64_t i = 0; i < y->shape[2]; i++)
        for (int64_t j = 0; j < y->shape[3]; j++) ((double *)y->data)[offset4(y, n, o, i, j)] = b ? b[o] : 0;
  each_product(k, y, &k->in[WEIGHT], &k->in[X], 0, k->in[WEIGHT].shape[0], add_image);
  return UNIC_OK;
}

static unic_status conv_transpose2d_reference_backward(const unic_kernel *k) {
  const unic_view *dy = &k->dout[Y];
  zero(k, X);
  zero(k, WEIGHT);
  zero(k, BIAS);
  if (!dy->data) return UNIC_OK;
  int64_t filters = k->in[WEIGHT].shape[0];
  if (k->din[X].present) each_product(k, dy, &k->in[WEIGHT], &k->din[X], 0, filters, add_result);
  if (k->din[WEIGHT].present) each_product(k, dy, &k->din[WEIGHT], &k->in[X], 0, filters, add_filter);
  if (k->din[BIAS].present)
    for (int64_t n = 0; n < dy->shape[0]; n++)
      for (int64_t o = 0; o < dy->shape[1]; o++)
        for (int64_t i = 0; i < dy->shape[2]; i++)
          for (int64_t j = 0; j < dy->shape[3]; j++) ((double *)k->din[BIAS].data)[o] += ((const double *)dy->data)[offset4(dy, n, o, i, j)];
  return UNIC_OK;
}

/* Few terms for each number of y make it worth taking again. In ResNet-50 these are the stem, and what widens or narrows in the early stages: 15 % of
 * the forward's operations for half of what is kept. */
static unic_remake_price conv2d_remakes(const unic_call *c, int j) {
  (void)j;
  const unic_tensor *w = c->in[WEIGHT];
  return w->shape[1] * w->shape[2] * w->shape[3] <= 256 ? UNIC_REMAKE_COSTLY : UNIC_REMAKE_NEVER;
}

static const unic_op op_conv2d = {
  .name = "conv2d",
  .signature = "x: tensor[N,C,H,W], weight: tensor<float>[O,I,Kh,Kw], bias: tensor<wide>?[O], stride: int[2] = 1, padding: int[2] = 0, dilation: int[2] = 1, "
               "groups: int = 1 -> y",
  .doc = "Two-dimensional convolution (cross-correlation, as everywhere in deep learning). The result lies channels-last in memory.\n"
         "In bf16, on processors with such instructions, 3x3 filters of stride 1 go by Winograd's algorithm: errors of rounding are up to twice a direct form's.\n"
         "x: images [N, C, H, W]\n"
         "weight: filters [O, C / groups, Kh, Kw], of the dtype of x; f32 also for images in a half type\n"
         "bias: added to every pixel of an output channel [O]\n"
         "stride: step between windows, one number or {rows, columns}\n"
         "padding: zeros on each side, one number or {rows, columns}\n"
         "dilation: step inside a window, one number or {rows, columns}\n"
         "groups: channels are split into that many groups that do not see each other",
  .saves = "x weight",
  .grads = "x:write_only weight:wide bias:wide",
  .layouts = "x:channels_last|blocked",
  .shape = conv2d_shape,
  .remakes = conv2d_remakes,
  .again = "bias",
  .cpu = {conv2d_forward, conv2d_backward, conv2d_reference, conv2d_reference_backward, conv2d_forward, conv2d_reference, .plan = conv2d_plan},
  .flags = UNIC_OP_METHOD | UNIC_OP_SAME_THREADS,
  .autocast = UNIC_CAST_LOW,
  .flops = conv2d_flops,
};

static const unic_op op_conv_transpose2d = {
  .name = "conv_transpose2d",
  .signature = "x: tensor[N,C,H,W], weight: tensor<float>[C,O,Kh,Kw], bias: tensor<wide>?[B], stride: int[2] = 1, padding: int[2] = 0, dilation: int[2] = 1, "
               "groups: int = 1, output_padding: int[2] = 0 -> y",
  .doc = "Transposed convolution: every pixel of x adds its multiple of the kernel to y. The result lies channels-last in memory.\n"
         "x: images [N, C, H, W]\n"
         "weight: filters [C, O / groups, Kh, Kw], of the dtype of x; f32 also for images in a half type\n"
         "bias: added to every pixel of an output channel [O]\n"
         "stride: step in y per pixel of x, one number or {rows, columns}\n"
         "padding: pixels cut off on each side of y, one number or {rows, columns}\n"
         "dilation: step inside a kernel, one number or {rows, columns}\n"
         "groups: channels are split into that many groups that do not see each other\n"
         "output_padding: pixels added below and to the right of y, less than the stride",
  .saves = "x weight",
  .grads = "x:write_only weight:wide bias:wide",
  .layouts = "x:channels_last",
  .shape = conv_transpose2d_shape,
  .cpu = {conv_transpose2d_forward, conv_transpose2d_backward, conv_transpose2d_reference, conv_transpose2d_reference_backward, .plan = conv2d_plan},
  .flags = UNIC_OP_METHOD | UNIC_OP_SAME_THREADS,
  .autocast = UNIC_CAST_LOW,
  .flops = conv_transpose2d_flops,
};

UNIC_OPS(conv2d, &op_conv2d, &op_conv_transpose2d);

#endif
