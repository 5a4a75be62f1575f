/* grid_sample: y[n,c,i,j] = x[n,c] at the place grid[n,i,j] = (across, down), each -1 .. 1 over the image.
 *
 * Shapes: x [N,C,H,W], grid [N,h,w,2] (f32 however x is stored: a place needs its digits), y [N,C,h,w].
 * A place g is pixel ((g + 1) S - 1) / 2 of S, or (g + 1) (S - 1) / 2 with align_corners. Outside of the image: zeros; border (the place is moved to
 * the border); reflection (it is mirrored at the border, between pixels or, with align_corners, at pixel centres). NaN counts as -1.
 *   nearest   the pixel, halves to the even one           bilinear   the four pixels around
 *   bicubic   sixteen with Keys' kernel, a = -0.75; padding then moves each of the sixteen, not the place
 * Saved: x, grid. Gradients: dx in f32, one task per image and piece of channels (places meet in any order, so a task owns what it adds to);
 * dgrid from dy and the derivative of the weights, per place. Bits: any_threads. Source: Jaderberg et al. 2015; conventions as PyTorch's. */
#include "channels.h"

enum { X, GRID, MODE, PADDING, ALIGN };
enum { Y };
enum { BILINEAR, NEAREST, BICUBIC };
enum { ZEROS, BORDER, REFLECTION };
enum { TAPS = 16, PIECE = 32 };    /* channels per task of dx */

struct sample {
  unic_place x, y;                 /* x: values or their gradient; y likewise */
  unic_place dx;
  const float *grid;
  float *dgrid;
  int mode, padding;
  bool align, add_grid, add_x;
  int64_t channels, width, in[2], out[2];
};

/* The pixels that make a value: where (h W + w), how much, and how much more per step of grid across and down. */
struct taps {
  int count;
  int64_t at[TAPS];
  double weight[TAPS], across[TAPS], down[TAPS];
};

/* A place moved into the image as padding says; *slope is multiplied by its derivative. */
static inline double moved(double s, int64_t size, int padding, bool align, double *slope) {
  double most = (double)(size - 1);
  if (padding == ZEROS) return s;
  if (padding == REFLECTION) {
    double low = align ? 0 : -0.5, span = align ? most : (double)size;
    if (span <= 0) { *slope = 0; return 0; }
    double t = s - low, sign = 1;
    if (t < 0) { t = -t; sign = -1; }
    double flips = floor(t / span), extra = t - flips * span;
    if (fmod(flips, 2) == 0) { s = extra + low; *slope *= sign; }
    else { s = span - extra + low; *slope *= -sign; }
  }
  if (!(s > 0)) { *slope = 0; return 0; }
  if (s >= most) { *slope = 0; return most; }
  return s;
}

static inline double keys(double t) {
  const double a = -0.75;
  t = fabs(t);
  return t <= 1 ? ((a + 2) * t - (a + 3)) * t * t + 1 : t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}
static inline double keys_slope(double t) {
  const double a = -0.75;
  double u = fabs(t), d = u <= 1 ? (3 * (a + 2) * u - 2 * (a + 3)) * u : u < 2 ? ((3 * u - 10) * u + 8) * a : 0;
  return t < 0 ? -d : d;
}

/* One dimension: up to four pixels with weights and their derivatives; pixel -1: outside, counts as zero. */
static inline int along(double g, int64_t size, int mode, int padding, bool align, int64_t *pixel, double *weight, double *slope) {
  double rate = align ? (double)(size - 1) / 2 : (double)size / 2;
  if (g != g) g = -1;
  double s = align ? (g + 1) * rate : ((g + 1) * (double)size - 1) / 2;
  if (mode != BICUBIC) s = moved(s, size, padding, align, &rate);
  if (!(s > -4 && s < (double)size + 4)) {
    if (mode != BICUBIC || padding == ZEROS || !(fabs(s) < 1e15)) return 0;   /* all outside, or no number to speak of */
  }
  if (mode == NEAREST) {
    double r = nearbyint(s);
    pixel[0] = r >= 0 && r < (double)size ? (int64_t)r : -1;
    weight[0] = 1;
    slope[0] = 0;
    return 1;
  }
  double base = floor(s);
  int n = mode == BICUBIC ? 4 : 2;
  for (int t = 0; t < n; t++) {
    double here = base + t - (mode == BICUBIC), none = 0, at = mode == BICUBIC ? moved(here, size, padding, align, &none) : here;
    pixel[t] = at >= 0 && at < (double)size ? (int64_t)at : -1;
    weight[t] = mode == BICUBIC ? keys(s - here) : 1 - fabs(s - here);
    slope[t] = (mode == BICUBIC ? keys_slope(s - here) : t == 0 ? -1 : 1) * rate;
  }
  return n;
}

static inline void find_taps(double across, double down, const int64_t *in, int mode, int padding, bool align, struct taps *t) {
  int64_t column[4], row[4];
  double wc[4], wr[4], sc[4], sr[4];
  int columns = along(across, in[1], mode, padding, align, column, wc, sc), rows = along(down, in[0], mode, padding, align, row, wr, sr);
  t->count = 0;
  for (int r = 0; r < rows; r++)
    for (int c = 0; c < columns; c++) {
      if (row[r] < 0 || column[c] < 0) continue;
      t->at[t->count] = row[r] * in[1] + column[c];
      t->weight[t->count] = wr[r] * wc[c];
      t->across[t->count] = wr[r] * sc[c];
      t->down[t->count++] = sr[r] * wc[c];
    }
}

#if UNIC_LOOPS

/* Rows of places begin .. end-1, counted over the batch. */
UNIC_LOOP(grid_sample_rows) {
  const struct sample *s = context;
  float buffer[UNIC_CHANNELS], out[UNIC_CHANNELS];
  struct taps t;
  for (int64_t row = begin; row < end; row++) {
    int64_t n = row / s->out[0], i = row - n * s->out[0];
    for (int64_t j = 0; j < s->out[1]; j++) {
      const float *g = s->grid + (row * s->out[1] + j) * 2;
      find_taps((double)g[0], (double)g[1], s->in, s->mode, s->padding, s->align, &t);
      if (s->channels < LANES && s->x.dtype == UNIC_F32) {   /* fewer channels than a vector */
        const float *x = (const float *)s->x.data + n * s->x.plane;
        float *y = (float *)s->y.data + (row * s->out[1] + j) * s->channels;
        for (int64_t c = 0; c < s->channels; c++) {
          float sum = 0;
          for (int k = 0; k < t.count; k++) sum += (float)t.weight[k] * x[t.at[k] * s->channels + c];
          y[c] = sum;
        }
        continue;
      }
      for (int64_t channel = 0; channel < s->channels; channel += s->width) {
        int width = (int)(s->channels - channel < s->width ? s->channels - channel : s->width);
        int64_t at = unic_place_at(&s->y, n, i * s->out[1] + j, channel);
        float *y = unic_channels_place(&s->y, at, width, out, false);
        for (int c = 0; c < width; c += LANES) vf_store(y + c, (vf){0});
        for (int k = 0; k < t.count; k++) {
          float weight = (float)t.weight[k];
          const float *x = unic_channels_load(&s->x, unic_place_at(&s->x, n, t.at[k], channel), width, buffer);
          for (int c = 0; c < width; c += LANES) vf_store(y + c, vf_load(y + c) + vf_load(x + c) * weight);
        }
        unic_channels_store(&s->y, at, width, y, out, false);
      }
    }
  }
}

/* dgrid: rows of places begin .. end-1. */
UNIC_LOOP(grid_sample_places) {
  const struct sample *s = context;
  float x_buffer[UNIC_CHANNELS], dy_buffer[UNIC_CHANNELS];
  struct taps t;
  for (int64_t row = begin; row < end; row++) {
    int64_t n = row / s->out[0], i = row - n * s->out[0];
    for (int64_t j = 0; j < s->out[1]; j++) {
      const float *g = s->grid + (row * s->out[1] + j) * 2;
      double across = 0, down = 0;
      find_taps((double)g[0], (double)g[1], s->in, s->mode, s->padding, s->align, &t);
      bool few = s->channels < LANES && s->x.dtype == UNIC_F32;
      for (int64_t c = 0; few && c < s->channels; c++) {
        float dy = ((const float *)s->y.data)[(row * s->out[1] + j) * s->channels + c];
        for (int k = 0; k < t.count; k++) {
          double dot = (double)(dy * ((const float *)s->x.data)[n * s->x.plane + t.at[k] * s->channels + c]);
          across += dot * t.across[k];
          down += dot * t.down[k];
        }
      }
      for (int64_t channel = 0; !few && channel < s->channels && s->mode != NEAREST; channel += s->width) {
        int width = (int)(s->channels - channel < s->width ? s->channels - channel : s->width);
        const float *dy = unic_channels_load(&s->y, unic_place_at(&s->y, n, i * s->out[1] + j, channel), width, dy_buffer);
        for (int k = 0; k < t.count; k++) {
          const float *x = unic_channels_load(&s->x, unic_place_at(&s->x, n, t.at[k], channel), width, x_buffer);
          vf sum = {0};
          for (int c = 0; c < width; c += LANES) sum += vf_load(dy + c) * vf_load(x + c);
          double dot = 0;
          for (int c = 0; c < LANES; c++) dot += (double)sum[c];
          across += dot * t.across[k];
          down += dot * t.down[k];
        }
      }
      float *to = s->dgrid + (row * s->out[1] + j) * 2;
      to[0] = (s->add_grid ? to[0] : 0) + (float)across;
      to[1] = (s->add_grid ? to[1] : 0) + (float)down;
    }
  }
}

/* dx: pieces of channels begin .. end-1 of all images. */
UNIC_LOOP(grid_sample_spread) {
  const struct sample *s = context;
  float buffer[UNIC_CHANNELS];
  struct taps t;
  int64_t pieces = (s->channels + s->width - 1) / s->width;
  for (int64_t piece = begin; piece < end; piece++) {
    int64_t n = piece / pieces, channel = (piece - n * pieces) * s->width;
    int width = (int)(s->channels - channel < s->width ? s->channels - channel : s->width);
    float *base = s->dx.data;
    if (!s->add_x)
      for (int64_t p = 0; p < s->in[0] * s->in[1]; p++) memset(base + unic_place_at(&s->dx, n, p, channel), 0, (size_t)width * sizeof *base);
    for (int64_t place = 0; place < s->out[0] * s->out[1]; place++) {
      const float *g = s->grid + (n * s->out[0] * s->out[1] + place) * 2;
      find_taps((double)g[0], (double)g[1], s->in, s->mode, s->padding, s->align, &t);
      const float *restrict dy = unic_row_load(s->y.data, s->y.dtype, unic_place_at(&s->y, n, place, channel), width, buffer);
      for (int k = 0; k < t.count; k++) {
        float weight = (float)t.weight[k], *restrict dx = base + unic_place_at(&s->dx, n, t.at[k], channel);
        for (int c = 0; c < width; c++) dx[c] += weight * dy[c];
      }
    }
  }
}

#else

UNIC_LOOP_TABLE(grid_sample_rows);
UNIC_LOOP_TABLE(grid_sample_places);
UNIC_LOOP_TABLE(grid_sample_spread);

static unic_status shape(unic_call *c) {
  const unic_tensor *x = c->in[X], *grid = c->in[GRID];
  char text[256];
  if (x->shape[2] == 0 || x->shape[3] == 0) return unic_fail_arg(c, X, "%s was given, expected at least one pixel", unic_tensor_describe(x, text, sizeof text));
  const int64_t shape[4] = {x->shape[0], x->shape[1], grid->shape[1], grid->shape[2]};
  unic_out(c, Y, c->type, 4, shape);
  c->out[Y].layout = x->block ? UNIC_BLOCKED : UNIC_CHANNELS_LAST;
  c->out[Y].block = x->block;
  return UNIC_OK;
}

static struct sample sample_of(const unic_kernel *k, const unic_view *y) {
  const unic_view *x = &k->in[X];
  struct sample s = {.grid = k->in[GRID].data, .mode = (int)k->arg[MODE].integer, .padding = (int)k->arg[PADDING].integer, .align = k->arg[ALIGN].integer,
                     .channels = x->shape[1], .width = unic_channels_width(x)};
  for (int d = 0; d < 2; d++) {
    s.in[d] = x->shape[2 + d];
    s.out[d] = y->shape[2 + d];
  }
  s.x = unic_place_of(x, s.in[0] * s.in[1]);
  s.y = unic_place_of(y, s.out[0] * s.out[1]);
  return s;
}

static int64_t chunk_of(const unic_view *y) {
  int64_t row = y->shape[1] * y->shape[3] + 8 * y->shape[3];
  return row > 0 && row < 8192 ? 8192 / row : 1;
}

static unic_status forward(const unic_kernel *k) {
  const unic_view *y = &k->out[Y];
  struct sample s = sample_of(k, y);
  if (y->numel > 0) UNIC_RUN(grid_sample_rows, y->shape[0] * y->shape[2], chunk_of(y), &s);
  return UNIC_OK;
}

static void zero(const unic_kernel *k, int i) {
  if (k->din[i].present && !k->accumulate[i]) memset(k->din[i].data, 0, (size_t)(k->din[i].numel * unic_dtype_size((unic_dtype)k->din[i].dtype)));
}

static unic_status backward(const unic_kernel *k) {
  const unic_view *dy = &k->dout[Y];
  if (k->out[Y].numel == 0 || !dy->data) {
    zero(k, X);
    zero(k, GRID);
    return UNIC_OK;
  }
  struct sample s = sample_of(k, dy);
  s.add_x = k->accumulate[X];
  s.add_grid = k->accumulate[GRID];
  if (k->din[GRID].present) {
    s.dgrid = k->din[GRID].data;
    UNIC_RUN(grid_sample_places, dy->shape[0] * dy->shape[2], chunk_of(dy), &s);
  }
  if (k->din[X].present) {
    s.dx = unic_place_of(&k->din[X], s.in[0] * s.in[1]);
    if (s.width > PIECE) s.width = PIECE;
    UNIC_RUN(grid_sample_spread, dy->shape[0] * ((s.channels + s.width - 1) / s.width), 1, &s);
  }
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the f64 forms: channel by channel, in f64 throughout */

static int64_t offset(const unic_view *v, int64_t n, int64_t c, int64_t p) { return n * v->stride[0] + c * v->stride[1] + p / v->shape[3] * v->stride[2] + p % v->shape[3] * v->stride[3]; }

static void each_place(const unic_kernel *k, const unic_view *y, double *dx, double *dgrid) {
  const unic_view *x = &k->in[X];
  const double *grid = k->in[GRID].data, *from = x->data;
  double *to = y->data;
  struct taps t;
  int64_t places = y->shape[2] * y->shape[3];
  for (int64_t n = 0; n < y->shape[0]; n++)
    for (int64_t p = 0; p < places; p++) {
      const double *g = grid + (n * places + p) * 2;
      find_taps(g[0], g[1], x->shape + 2, (int)k->arg[MODE].integer, (int)k->arg[PADDING].integer, k->arg[ALIGN].integer, &t);
      for (int64_t c = 0; c < y->shape[1]; c++) {
        double *here = to + offset(y, n, c, p);
        if (!k->backward) *here = 0;
        for (int i = 0; i < t.count; i++) {
          int64_t at = offset(x, n, c, t.at[i]);
          if (!k->backward) *here += t.weight[i] * from[at];
          if (dx) dx[offset(&k->din[X], n, c, t.at[i])] += t.weight[i] * *here;
          if (dgrid) dgrid[(n * places + p) * 2] += t.across[i] * from[at] * *here;
          if (dgrid) dgrid[(n * places + p) * 2 + 1] += t.down[i] * from[at] * *here;
        }
      }
    }
}

static unic_status reference(const unic_kernel *k) {
  each_place(k, &k->out[Y], NULL, NULL);
  return UNIC_OK;
}

static unic_status reference_backward(const unic_kernel *k) {
  zero(k, X);
  zero(k, GRID);
  if (k->dout[Y].data && k->dout[Y].numel > 0) each_place(k, &k->dout[Y], k->din[X].data, k->din[GRID].data);
  return UNIC_OK;
}

static const unic_op op_grid_sample = {
  .name = "grid_sample",
  .signature = "x: tensor[N,C,H,W], grid: tensor<wide>[N,h,w,2], mode: choice(bilinear|nearest|bicubic) = bilinear, "
               "padding: choice(zeros|border|reflection) = zeros, align_corners: bool = false -> y",
  .doc = "The image's values at places of one's own. The result lies channels-last in memory.\n"
         "x: images [N, C, H, W]\n"
         "grid: places [N, h, w, 2], (across, down), each -1 at the first and 1 at the last border of the image; unic.affine_grid makes such\n"
         "mode: bilinear, nearest or bicubic\n"
         "padding: what lies outside: zeros, the border's pixels, or the image mirrored\n"
         "align_corners: -1 and 1 are the centres of the border's pixels, not their outer edges",
  .saves = "x grid",
  .grads = "x:wide grid:wide",
  .layouts = "x:channels_last|blocked",
  .shape = shape,
  .cpu = {forward, backward, reference, reference_backward},
  .flags = UNIC_OP_METHOD,
};

UNIC_OPS(grid_sample, &op_grid_sample);

#endif
