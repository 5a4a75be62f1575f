/* How the convolution kernels of conv2d.c are planned: which of the three products a launch is made of, who computes each, in which type and layout, and
 * what lies where in scratch. Part of conv2d.c. */
#ifndef UNIC_CONV_PLAN_H
#define UNIC_CONV_PLAN_H

/* The image and the result of the convolution, and which of its three products this launch is made of. */
struct roles {
  const unic_view *image, *result;
  bool transposed, forward, data, weights;
};

static struct roles roles_of(const unic_kernel *k) {
  struct roles r = {.transposed = k->op->shape == conv_transpose2d_shape, .weights = k->backward && k->din[WEIGHT].present};
  bool straight = !k->backward, back = k->backward && k->din[X].present;
  r.image = r.transposed ? &k->out[Y] : &k->in[X];
  r.result = r.transposed ? &k->in[X] : &k->out[Y];
  r.forward = r.transposed ? back : straight;
  r.data = r.transposed ? straight : back;
  return r;
}

struct plan {
  unic_dnnl_primitive forward, data, weights;   /* the convolutions; data and weights are the two gradients */
  unic_dnnl_primitive pack, unpack;             /* plain weights -> the layout of `forward` or `data`; gradient's layout -> plain */
  unic_dnnl_primitive x_in, y_in, x_out, y_out; /* blocked <-> channels-last, where a convolution has no blocked form of one of its images */
  struct winograd tiled;                        /* tiles > 0: in the place of `forward` or `data` */
  unic_pairs rows;                              /* m > 0: likewise, a product of pixels as rows */
  bool narrow;                                  /* bf16 or f16 by way of f32 copies */
  bool owns;                                    /* the weight gradient is `own`, not a convolution */
  unic_conv_weights own;
  /* Places in scratch, bytes; the second row: reordered images. */
  int64_t x, w, packed, y, dx, dw, work, sums;
  int64_t x_last, y_last, dx_last;
};

static void unmake(struct plan *p) {
  unic_dnnl_primitive *all[] = {&p->forward, &p->data, &p->weights, &p->pack, &p->unpack, &p->x_in, &p->y_in, &p->x_out, &p->y_out};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) unic_dnnl_primitive_free(all[i]);
}

static void plan_free(void *data) {
  unmake(data);
  unic_delete(data);
}

static int64_t place(unic_plan *p, int64_t bytes) {
  int64_t at = p->scratch;
  p->scratch += (bytes + 63) / 64 * 64;
  return at;
}

/* Weights as oneDNN counts their dimensions: groups are one of their own. */
static int weight_dims(const unic_kernel *k, int64_t *dims) {
  const unic_view *w = &k->in[WEIGHT];
  int64_t groups = k->arg[GROUPS].integer;
  int n = 0;
  if (groups > 1) dims[n++] = groups;
  dims[n++] = w->shape[0] / groups;
  for (int d = 1; d < 4; d++) dims[n++] = w->shape[d];
  return n;
}

/* An image as it lies, or as channels-last; strides from the shape, so that sizes of 1 leave no doubt about the layout. */
static dnnl_status_t image_desc(unic_dnnl_desc *d, const unic_view *v, unic_dtype dtype, bool last) {
  int64_t stride[4];
  if (v->block && !last) {
    unic_view typed = *v;
    typed.dtype = (uint8_t)dtype;
    return unic_dnnl_desc_view(d, &typed);
  }
  unic_stride_fill(4, v->shape, UNIC_CHANNELS_LAST, stride);
  return unic_dnnl_desc_strided(d, dtype, 4, v->shape, stride);
}

static unic_dnnl_geometry geometry(const unic_kernel *k, const struct roles *r) {
  unic_dnnl_geometry g = {.winograd = false};
  for (int d = 0; d < 2; d++) {
    int64_t in = r->image->shape[2 + d], out = r->result->shape[2 + d], span = effective(k->in[WEIGHT].shape[2 + d], k->arg[DILATION].ints[d]);
    g.stride[d] = k->arg[STRIDE].ints[d];
    g.dilation[d] = k->arg[DILATION].ints[d];
    g.before[d] = k->arg[PADDING].ints[d];
    g.after[d] = (out - 1) * g.stride[d] + span - in - g.before[d];   /* the stride may leave pixels over: then less than `before` */
  }
  return g;
}

/* A convolution that oneDNN only has as plain loops is worse than none: another type or layout has a fast one. */
static bool usable(const unic_dnnl_primitive *p) { return strncmp(unic_dnnl_primitive_name(p), "ref", 3) != 0; }

/* The weight gradient of a dense 3x3 convolution in f32 and blocked memory by Winograd's algorithm, F(4x4, 3x3), where oneDNN has it (2.x, AVX-512): 1.2 to
 * 2 times as fast, within the 1e-6 that f32 is allowed (measured at ResNet-50's shapes, two images, against f64, of the largest value: 4.9e-7 to 8.6e-7;
 * the direct one, whose sums over all pixels are long, 2.6e-7 to 8.8e-7). The forward and the data gradient would gain as much and leave it (1.1e-6 to
 * 1.9e-6 against 2e-7): winograd.h has smaller tiles for them. Its scratch grows with the channels, not with the batch: 56 MB for 256, 131 MB for 512, too much at
 * the moment when all activations of a network are still alive. */
enum { WINOGRAD_SCRATCH = 64 << 20 };
static bool winograd(const unic_kernel *k, unic_dtype dtype, bool last) {
  if (dtype != UNIC_F32 || last || !k->in[X].block || k->arg[GROUPS].integer != 1 || conv2d_flops(k) < 5e7) return false;
  for (int d = 0; d < 2; d++) if (k->in[WEIGHT].shape[2 + d] != 3 || k->arg[STRIDE].ints[d] != 1 || k->arg[DILATION].ints[d] != 1) return false;
  return true;
}

/* Whether the weight gradient is made by own kernels (conv_weights.c): of dense convolutions in bf16 and channels-last memory, and of 1x1 ones in f32 and
 * blocks of 16. From 64 channels on each side: with fewer most of what those kernels gather is used too seldom (bf16, 56 x 56 pixels, 3x3, GFLOP/s of
 * oneDNN and of these: 32 to 64 channels 798 and 674, 64 to 16 683 and 624, 64 to 64 806 and 871; 1x1: 32 to 32 611 and 279). */
static bool own_weights(const unic_kernel *k, struct plan *p, const struct roles *r, unic_dtype dtype, const unic_dnnl_geometry *g) {
  const unic_view *x = r->image, *y = r->result, *w = &k->in[WEIGHT];
  unic_conv_weights *own = &p->own;
  *own = (unic_conv_weights){.images = x->shape[0], .in = w->shape[1], .out = w->shape[0], .blocked = x->block == 16 && y->block == 16};
  if (k->arg[GROUPS].integer != 1 || dtype != (own->blocked ? UNIC_F32 : UNIC_BF16) || (!own->blocked && (x->block || y->block))) return false;
  for (int d = 0; d < 2; d++) {
    own->size[d] = x->shape[2 + d];
    own->pixels[d] = y->shape[2 + d];
    own->kernel[d] = w->shape[2 + d];
    own->stride[d] = g->stride[d];
    own->padding[d] = g->before[d];
    own->dilation[d] = g->dilation[d];
  }
  if (own->in < 64 || own->out < 64 || (own->blocked && own->kernel[0] * own->kernel[1] > 1)) return false;
  return unic_conv_weights_plan(own);
}

/* The forward or the data gradient by winograd.h, where that is faster. */
static struct winograd tiled(const unic_kernel *k, const struct roles *r, unic_dtype dtype, bool last) {
  bool take = !last && dtype == k->type && !r->transposed && k->arg[GROUPS].integer == 1 && (r->forward || r->data);
  for (int d = 0; d < 2; d++) take = take && k->arg[STRIDE].ints[d] == 1 && k->arg[DILATION].ints[d] == 1;
  if (!take) return (struct winograd){.tiles = 0};
  return winograd_plan(r->data ? r->result : r->image, r->data ? r->image : r->result, &k->in[WEIGHT], k->arg[PADDING].ints, r->data);
}

/* The forward or the data gradient of a dense 1x1 convolution in bf16 and channels-last memory: a product whose rows are pixels. */
static unic_pairs pixels_as_rows(const unic_kernel *k, const struct roles *r, unic_dtype dtype, bool last) {
  const unic_view *w = &k->in[WEIGHT];
  int64_t in = w->shape[1], out = w->shape[0], depth = r->data ? out : in;
  bool take = !last && dtype == UNIC_BF16 && !r->image->block && !r->result->block && k->arg[GROUPS].integer == 1 && (r->forward || r->data) && !r->transposed;
  for (int d = 0; d < 2; d++) take = take && w->shape[2 + d] == 1 && k->arg[STRIDE].ints[d] == 1 && k->arg[PADDING].ints[d] == 0;
  if (!take || !unic_pairs_takes(depth)) return (unic_pairs){.m = 0};
  return (unic_pairs){.m = r->result->numel / out, .n = r->data ? in : out, .k = depth, .k_step = r->data ? in : 1, .n_step = r->data ? 1 : in};
}

/* oneDNN writes past its workspace in the weight gradient of a 1x1 convolution with a stride over channels-last images of fewer channels than a block (seen
 * with 2.6; uxlfoundation/oneDNN issue 6035): other bits from run to run, a thread that waits for ever, or a crash. Its general implementation takes these. */
static bool overruns(const unic_kernel *k, const struct roles *r, bool last) {
  const unic_view *w = &k->in[WEIGHT];
  return (last || !r->image->block) && w->shape[1] < 16 && w->shape[2] * w->shape[3] == 1 && (k->arg[STRIDE].ints[0] > 1 || k->arg[STRIDE].ints[1] > 1);
}

/* Everything in one type, with the images as they lie or (last) all channels-last. dnnl_unimplemented: not like this. */
static dnnl_status_t make_in(const unic_kernel *k, struct plan *p, unic_dtype dtype, bool last, bool insist) {
  struct roles r = roles_of(k);
  unic_dnnl_geometry g = geometry(k, &r);
  int64_t dims[5], bias = k->in[WEIGHT].shape[0];
  int n = weight_dims(k, dims);
  unic_dnnl_desc x = {0}, y = {0}, w = {0}, b = {0}, plain = {0}, dw = {0}, dplain = {0}, x_lies = {0}, y_lies = {0};
  dnnl_status_t s = image_desc(&x, r.image, dtype, last);
  if (s == dnnl_success) s = image_desc(&y, r.result, dtype, last);
  if (s == dnnl_success) s = image_desc(&x_lies, r.image, dtype, false);
  if (s == dnnl_success) s = image_desc(&y_lies, r.result, dtype, false);
  if (s == dnnl_success) s = unic_dnnl_desc_any(&w, dtype, n, dims);
  if (s == dnnl_success) s = unic_dnnl_desc_any(&dw, UNIC_F32, n, dims);
  if (s == dnnl_success) s = unic_dnnl_desc_plain(&plain, p->narrow ? UNIC_F32 : (unic_dtype)k->in[WEIGHT].dtype, n, dims);
  if (s == dnnl_success) s = unic_dnnl_desc_plain(&dplain, UNIC_F32, n, dims);
  if (s == dnnl_success) s = unic_dnnl_desc_plain(&b, UNIC_F32, 1, &bias);
  unic_dnnl_md mx = unic_dnnl_desc_md(&x), my = unic_dnnl_desc_md(&y), mw = unic_dnnl_desc_md(&w), packed = NULL;
  p->tiled = tiled(k, &r, dtype, last);
  p->rows = pixels_as_rows(k, &r, dtype, last);
  bool own = p->tiled.tiles || p->rows.m;
  if (s == dnnl_success && r.forward && !own) {
    s = unic_dnnl_convolution(&p->forward, dnnl_forward_training, mx, mw, k->in[BIAS].present && !r.transposed ? unic_dnnl_desc_md(&b) : NULL, my, &g, NULL);
    if (s == dnnl_success && !insist && !usable(&p->forward)) s = dnnl_unimplemented;
    if (s == dnnl_success) packed = unic_dnnl_primitive_md(&p->forward, DNNL_ARG_WEIGHTS);
  }
  if (s == dnnl_success && r.data && !own) {
    s = unic_dnnl_convolution(&p->data, dnnl_backward_data, mx, mw, NULL, my, &g, NULL);
    if (s == dnnl_success && !insist && !usable(&p->data)) s = dnnl_unimplemented;
    if (s == dnnl_success) packed = unic_dnnl_primitive_md(&p->data, DNNL_ARG_WEIGHTS);
  }
  p->owns = r.weights && !last && own_weights(k, p, &r, dtype, &g);
  if (s == dnnl_success && r.weights && !p->owns) {
    g.winograd = winograd(k, dtype, last);
    g.not_1x1 = overruns(k, &r, last);
    s = unic_dnnl_convolution(&p->weights, dnnl_backward_weights, mx, unic_dnnl_desc_md(&dw), NULL, my, &g, mw);
    if (g.winograd && (s == dnnl_unimplemented || (s == dnnl_success && p->weights.scratch > WINOGRAD_SCRATCH))) {
      g.winograd = false;
      unic_dnnl_primitive_free(&p->weights);
      s = unic_dnnl_convolution(&p->weights, dnnl_backward_weights, mx, unic_dnnl_desc_md(&dw), NULL, my, &g, mw);
    }
    if (s == dnnl_success && !insist && !usable(&p->weights)) s = dnnl_unimplemented;
    if (s == dnnl_success && (k->accumulate[WEIGHT] || !unic_dnnl_md_equal(unic_dnnl_primitive_md(&p->weights, DNNL_ARG_DIFF_WEIGHTS), unic_dnnl_desc_md(&dplain)))) {
      const unic_dnnl_attr add = {.sum = k->accumulate[WEIGHT] ? 1.0f : 0.0f};
      s = unic_dnnl_reorder(&p->unpack, unic_dnnl_primitive_md(&p->weights, DNNL_ARG_DIFF_WEIGHTS), unic_dnnl_desc_md(&dplain), &add);
    }
  }
  if (s == dnnl_success && packed && !unic_dnnl_md_equal(packed, unic_dnnl_desc_md(&plain))) s = unic_dnnl_reorder(&p->pack, unic_dnnl_desc_md(&plain), packed, NULL);
  if (last && k->in[X].block) {
    if (s == dnnl_success && (p->forward.primitive || p->weights.primitive)) s = unic_dnnl_reorder(&p->x_in, unic_dnnl_desc_md(&x_lies), mx, NULL);
    if (s == dnnl_success && p->data.primitive) s = unic_dnnl_reorder(&p->x_out, mx, unic_dnnl_desc_md(&x_lies), NULL);
  }
  if (last && k->out[Y].block) {
    if (s == dnnl_success && p->forward.primitive) s = unic_dnnl_reorder(&p->y_out, my, unic_dnnl_desc_md(&y_lies), NULL);
    if (s == dnnl_success && (p->data.primitive || p->weights.primitive)) s = unic_dnnl_reorder(&p->y_in, unic_dnnl_desc_md(&y_lies), my, NULL);
  }
  unic_dnnl_desc *all[] = {&x, &y, &w, &b, &plain, &dw, &dplain, &x_lies, &y_lies};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) unic_dnnl_desc_free(all[i]);
  if (s != dnnl_success) unmake(p);
  return s;
}

/* In one type, by the images' own layout if there is something fast; insist: there is no other type to try. */
static dnnl_status_t make(const unic_kernel *k, struct plan *p, unic_dtype dtype, bool insist) {
  bool blocked = k->in[X].block || k->out[Y].block;
  dnnl_status_t s = dnnl_unimplemented;
  if (k->in[X].block == k->out[Y].block) s = make_in(k, p, dtype, false, insist && !blocked);
  if (s == dnnl_unimplemented && blocked) s = make_in(k, p, dtype, true, insist);
  return s;
}

static void convert(const void *from, int from_dtype, void *to, int to_dtype, int64_t n) {
  struct convert c = {from, to, from_dtype, to_dtype};
  UNIC_RUN(conv2d_convert, n, 16 * UNIC_ROW, &c);
}

/* The packed weights as a derived form; the reorder's own scratchpad lies behind them. */
static int64_t packed_bytes(const struct plan *p) {
  if (p->rows.m) return unic_pairs_bytes(&p->rows);
  return p->tiled.tiles ? winograd_u_bytes(&p->tiled) : (unic_dnnl_md_bytes(unic_dnnl_primitive_md(&p->pack, DNNL_ARG_TO)) + 63) / 64 * 64;
}

/* Whether the packed weights are worth keeping: nothing is trained. */
static bool packs_once(const unic_kernel *k, const struct plan *p) { return !k->backward && !k->grad && !p->narrow; }

/* Winograd's filters are made of f32; half types pass through `work`. */
static int64_t widened_bytes(const unic_kernel *k, const struct plan *p) { return p->tiled.tiles && k->in[WEIGHT].dtype != UNIC_F32 ? 4 * k->in[WEIGHT].numel : 0; }

static unic_status pack(const unic_kernel *k, const struct plan *p, const void *from, void *to, void *work) {
  const unic_dnnl_arg args[] = {{DNNL_ARG_FROM, from}, {DNNL_ARG_TO, to}};
  if (p->rows.m) {
    unic_pairs_pack(&p->rows, from, k->in[WEIGHT].dtype, to);
    return UNIC_OK;
  }
  if (!p->tiled.tiles) return unic_dnnl_execute(k->op->name, &p->pack, 2, args, work);
  if (k->in[WEIGHT].dtype != UNIC_F32) convert(from, k->in[WEIGHT].dtype, work, UNIC_F32, k->in[WEIGHT].numel);
  winograd_run_filters(&p->tiled, k->in[WEIGHT].dtype == UNIC_F32 ? from : work, to);
  return UNIC_OK;
}

static unic_status make_packed(const unic_kernel *k, int i, void *to) { return pack(k, k->plan, k->in[WEIGHT].data, to, (char *)to + packed_bytes(k->plan)); }

static unic_status conv2d_plan(const unic_kernel *k, unic_plan *out) {
  if (k->type == UNIC_F64 || k->out[Y].numel == 0) return UNIC_OK;   /* plain loops; nothing to do */
  bool sums = k->backward && k->din[BIAS].present;
  if (k->backward && !k->din[X].present && !k->din[WEIGHT].present && !sums) return UNIC_OK;
  struct plan *p = unic_new(sizeof *p);
  if (!p) return UNIC_MEMORY;
  out->data = p;
  out->free = plan_free;
  bool half = unic_dtype_is_half(k->type);
  dnnl_status_t s = make(k, p, k->type, !half);
  if (s == dnnl_unimplemented && half) {
    p->narrow = true;
    s = make(k, p, UNIC_F32, true);
  }
  if (s != dnnl_success) return unic_dnnl_fail(k->op->name, k->backward ? "plan the gradient of a convolution" : "plan a convolution", s);

  struct roles r = roles_of(k);
  bool reads_weight = p->forward.primitive || p->data.primitive, weights = p->owns || p->weights.primitive, reads_x = p->forward.primitive || weights;
  if (p->narrow) {
    if (reads_x) p->x = place(out, r.image->numel * 4);
    if (reads_weight) p->w = place(out, k->in[WEIGHT].numel * (k->in[WEIGHT].dtype == UNIC_F32 ? 6 : 4));
    if (p->data.primitive) p->dx = place(out, r.image->numel * 4);
    if (reads_weight || weights) p->y = place(out, r.result->numel * 4);
  }
  if ((p->pack.primitive || p->tiled.tiles || p->rows.m) && packs_once(k, p)) {
    out->derives = 1;
    out->derive[0].arg = WEIGHT;
    out->derive[0].tag = p->rows.m ? unic_pairs_tag(&p->rows) : p->tiled.tiles ? winograd_tag(&p->tiled) : unic_dnnl_md_tag(unic_dnnl_primitive_md(&p->pack, DNNL_ARG_TO));
    out->derive[0].bytes = packed_bytes(p) + p->pack.scratch + widened_bytes(k, p);
    out->derive[0].make = make_packed;
  } else if (p->rows.m) {
    p->packed = place(out, unic_pairs_scratch(&p->rows));
  } else if (p->pack.primitive) {
    p->packed = place(out, packed_bytes(p));
  }
  int64_t size = p->narrow ? 4 : unic_dtype_size(k->type);
  if (p->x_in.primitive) p->x_last = place(out, r.image->numel * size);
  if (p->x_out.primitive) p->dx_last = place(out, r.image->numel * size);
  if (p->y_in.primitive || p->y_out.primitive) p->y_last = place(out, r.result->numel * size);
  if (p->unpack.primitive) p->dw = place(out, unic_dnnl_md_bytes(unic_dnnl_primitive_md(&p->weights, DNNL_ARG_DIFF_WEIGHTS)));
  if (sums) p->sums = place(out, (int64_t)BIAS_CHUNKS * k->out[Y].shape[1] * 4);
  const unic_dnnl_primitive *all[] = {&p->forward, &p->data, &p->weights, &p->pack, &p->unpack, &p->x_in, &p->y_in, &p->x_out, &p->y_out};
  int64_t work = 0;
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) if (all[i]->scratch > work) work = all[i]->scratch;
  if (p->owns && p->own.scratch > work) work = p->own.scratch;
  int64_t tiles = p->tiled.tiles ? winograd_scratch_bytes(&p->tiled) : 0, u = p->tiled.tiles && !packs_once(k, p) ? packed_bytes(p) : 0;
  if (tiles < widened_bytes(k, p)) tiles = (widened_bytes(k, p) + 63) / 64 * 64;
  p->work = place(out, tiles + u > work ? tiles + u : work);   /* the weight gradient is done with it when the tiles begin */
  if (u) p->packed = p->work + tiles;
  return UNIC_OK;
}

#endif
