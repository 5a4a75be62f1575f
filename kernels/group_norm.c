/* group_norm: y = (x - mean) rstd w + b; mean and biased variance per image and group of channels, rstd = (var + eps)^-1/2.
 *
 * x, y [N,C,...] (P: all dimensions after the channels), D = C / groups channels in a group; w, b [C]; mean, rstd [N,G].
 * Saved: x, w, mean, rstd. Backward, with A = sum_P dy and B = sum_P dy (x - mean) per image and channel:
 *   dw = sum_N rstd B,  db = sum_N A,
 *   dx = rstd (w dy - sum_D(w A) / (D P) - (x - mean) rstd^2 sum_D(w B) / (D P)).
 *
 * Memory is seen as planes of P pixels of K channels: row-major is N C planes of one channel, channels-last N planes of C, channels in blocks
 * N C / K planes of K; channel c of image n is always number n C + c. Planes are cut into slices of a size that depends on the shape alone; each
 * gives a mean and a sum of squares about it (or A and B) per channel, which are joined in order in f64: the bits do not depend on the number of
 * threads, and neither a large mean nor a long plane costs digits (Chan, Golub, LeVeque 1983). x is read twice from memory, in forward and in
 * backward. Source: Wu and He 2018. */
#include "rows.h"

enum { X, GROUPS, WEIGHT, BIAS, EPS };
enum { Y, MEAN, RSTD };

/* Elements of a slice: 64 KB of f32, so that the second pass over it finds it in cache; channels of a tile; rows narrower than NARROW are taken
 * several at a time, as one row of up to TILE lanes. */
enum { SLICE = 16384, TILE = 256, NARROW = 64 };

struct norm {
  int64_t images, channels, groups, per;   /* per: channels of a group */
  int64_t pixels, width;                   /* of a plane; its channels */
  int64_t rows, slices;                    /* pixels of a slice, slices of a plane */
  int dtype;
  const void *x, *dy;                      /* dy NULL: forward */
  void *to;                                /* y or dx */
  int accumulate;
  const float *weight, *bias;              /* NULL: 1 and 0 */
  float eps;
  float *mean, *rstd;                      /* [N,G]; forward: NULL when no gradient is needed */
  float *partial;                          /* [planes, slices, 2, width] */
  /* Per image and channel, [N,C]. Forward: y = (x - center) scale + shift. Backward: dx = dy scale - (x - center) slope - shift. */
  float *center, *scale, *shift, *slope;
  float *sum_dy, *sum_dyx;                 /* A and B [N,C] */
  float *dweight, *dbias;
  int add_weight, add_bias;
};

/* The slice number `item`: its plane, its first pixel's place in memory, its pixels. */
struct slice { int64_t plane, at, rows; };

static inline struct slice slice_of(const struct norm *s, int64_t item) {
  int64_t plane = item / s->slices, first = (item - plane * s->slices) * s->rows;
  return (struct slice){plane, (plane * s->pixels + first) * s->width, s->pixels - first < s->rows ? s->pixels - first : s->rows};
}

#if UNIC_LOOPS

/* Rows that are taken at once. */
static inline int64_t together(const struct norm *s) { return s->width < NARROW ? TILE / s->width : 1; }

/* The first `channels` lanes are the channels; further ones repeat them. Sums of the repetitions go to the channel, values are repeated. */
static void fold(float *lanes, int64_t channels, int64_t count) {
  for (int64_t at = channels; at < count; at += channels)
    for (int64_t c = 0; c < channels; c++) lanes[c] += lanes[at + c];
}
static void spread(float *lanes, int64_t channels, int64_t count) {
  for (int64_t i = channels; i < count; i++) lanes[i] = lanes[i - channels];
}
/* A row of lanes from a value per channel: in place where a tile is one row. */
static const float *lanes_of(const float *values, int64_t channels, int64_t count, float *buffer) {
  if (count == channels) return values;
  for (int64_t c = 0; c < channels; c++) buffer[c] = values[c];
  spread(buffer, channels, count);
  return buffer;
}

/* Every tile of channels of a slice: `first`, `channels` of it, and its lanes. */
#define EACH_TILE(s, span) \
  for (int64_t first = 0, step_ = together(s), channels = (s)->width < TILE ? (s)->width : TILE, \
       count = channels * ((span).rows < step_ ? (span).rows : step_); \
       first < (s)->width; \
       first += TILE, channels = (s)->width - first < TILE ? (s)->width - first : TILE, count = channels)
/* Every row of lanes of a tile: where it lies and how many elements it has. */
#define EACH_ROW(s, span) \
  for (int64_t row_ = 0, at = (span).at + first, n = count; row_ < (span).rows; \
       row_ += count / channels, at += count / channels * (s)->width, n = (span).rows - row_ < count / channels ? ((span).rows - row_) * channels : count)

UNIC_LOOP(group_norm_moments) {
  const struct norm *s = context;
  float buffer[UNIC_ROW];
  for (int64_t item = begin; item < end; item++) {
    struct slice span = slice_of(s, item);
    float *to = s->partial + item * 2 * s->width;
    if (s->width == 1) {
      double mean = 0, m2 = 0;
      for (int64_t done = 0; done < span.rows; done += UNIC_ROW) {
        int64_t n = span.rows - done < UNIC_ROW ? span.rows - done : UNIC_ROW;
        const float *x = unic_row_load(s->x, s->dtype, span.at + done, n, buffer);
        float sum = 0, squares = 0;
        #define VALUE(L) (L(x))
        UNIC_ROW_SUM(sum, n, VALUE);
        const float middle = sum / (float)n;
        #define DEVIATION(L) ((L(x) - middle) * (L(x) - middle))
        UNIC_ROW_SUM(squares, n, DEVIATION);
        double delta = middle - mean, part = (double)n / (double)(done + n);
        mean += delta * part;
        m2 += squares + delta * delta * part * (double)done;
      }
      to[0] = (float)mean;
      to[1] = (float)m2;
      continue;
    }
    EACH_TILE(s, span) {
      float sum[TILE] = {0}, squares[TILE] = {0};
      EACH_ROW(s, span) {
        const float *restrict x = unic_row_load(s->x, s->dtype, at, n, buffer);
        for (int64_t i = 0; i < n; i++) sum[i] += x[i];
      }
      fold(sum, channels, count);
      for (int64_t c = 0; c < channels; c++) sum[c] /= (float)span.rows;
      spread(sum, channels, count);
      EACH_ROW(s, span) {
        const float *restrict x = unic_row_load(s->x, s->dtype, at, n, buffer);
        for (int64_t i = 0; i < n; i++) squares[i] += (x[i] - sum[i]) * (x[i] - sum[i]);
      }
      fold(squares, channels, count);
      for (int64_t c = 0; c < channels; c++) {
        to[first + c] = sum[c];
        to[s->width + first + c] = squares[c];
      }
    }
  }
}

/* Slices to statistics of the groups begin .. end-1 of all images, and from them what every channel needs. */
UNIC_LOOP(group_norm_join) {
  const struct norm *s = context;
  double elements = (double)s->per * (double)s->pixels;
  for (int64_t group = begin; group < end; group++) {
    double mean = 0, m2 = 0;
    for (int pass = 0; pass < 2; pass++) {
      double sum = 0;
      for (int64_t c = group * s->per; c < (group + 1) * s->per; c++) {
        const float *p = s->partial + c / s->width * s->slices * 2 * s->width + c % s->width;
        for (int64_t k = 0; k < s->slices; k++, p += 2 * s->width) {
          double rows = (double)(s->pixels - k * s->rows < s->rows ? s->pixels - k * s->rows : s->rows);
          sum += pass ? p[s->width] + rows * ((double)p[0] - mean) * ((double)p[0] - mean) : rows * p[0];
        }
      }
      if (pass) m2 = sum;
      else mean = sum / elements;
    }
    float center = (float)mean, rstd = (float)(1 / sqrt(m2 / elements + (double)s->eps));
    if (s->mean) {
      s->mean[group] = center;
      s->rstd[group] = rstd;
    }
    const int64_t at = group * s->per, own = at % s->channels;
    for (int64_t c = 0; c < s->per; c++) {
      s->center[at + c] = center;
      s->scale[at + c] = s->weight ? rstd * s->weight[own + c] : rstd;
      s->shift[at + c] = s->bias ? s->bias[own + c] : 0;
    }
  }
}

UNIC_LOOP(group_norm_normalize) {
  const struct norm *s = context;
  float buffer[UNIC_ROW], out[UNIC_ROW];
  for (int64_t item = begin; item < end; item++) {
    struct slice span = slice_of(s, item);
    const float *center = s->center + span.plane * s->width, *scale = s->scale + span.plane * s->width, *shift = s->shift + span.plane * s->width;
    if (s->width == 1) {
      const float c = center[0], f = scale[0], b = shift[0];
      for (int64_t done = 0; done < span.rows; done += UNIC_ROW) {
        int64_t n = span.rows - done < UNIC_ROW ? span.rows - done : UNIC_ROW;
        const float *restrict x = unic_row_load(s->x, s->dtype, span.at + done, n, buffer);
        float *restrict y = unic_row_place(s->to, s->dtype, span.at + done, out);
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - c) * f + b;
        unic_row_store(s->to, s->dtype, span.at + done, n, y);
      }
      continue;
    }
    EACH_TILE(s, span) {
      float centers[TILE], scales[TILE], shifts[TILE];
      const float *restrict c = lanes_of(center + first, channels, count, centers), *restrict f = lanes_of(scale + first, channels, count, scales);
      const float *restrict b = lanes_of(shift + first, channels, count, shifts);
      EACH_ROW(s, span) {
        const float *restrict x = unic_row_load(s->x, s->dtype, at, n, buffer);
        float *restrict y = unic_row_place(s->to, s->dtype, at, out);
        for (int64_t i = 0; i < n; i++) y[i] = (x[i] - c[i]) * f[i] + b[i];
        unic_row_store(s->to, s->dtype, at, n, y);
      }
    }
  }
}

/* A and B of every slice, B about the group's mean. */
UNIC_LOOP(group_norm_sums) {
  const struct norm *s = context;
  float x_buffer[UNIC_ROW], dy_buffer[UNIC_ROW];
  for (int64_t item = begin; item < end; item++) {
    struct slice span = slice_of(s, item);
    float *to = s->partial + item * 2 * s->width;
    const float *center = s->center + span.plane * s->width;
    if (s->width == 1) {
      const float middle = center[0];
      double sum = 0, products = 0;
      for (int64_t done = 0; done < span.rows; done += UNIC_ROW) {
        int64_t n = span.rows - done < UNIC_ROW ? span.rows - done : UNIC_ROW;
        const float *x = unic_row_load(s->x, s->dtype, span.at + done, n, x_buffer), *dy = unic_row_load(s->dy, s->dtype, span.at + done, n, dy_buffer);
        float a = 0, b = 0;
        #define GRADIENT(L) (L(dy))
        #define PRODUCT(L) (L(dy) * (L(x) - middle))
        UNIC_ROW_SUM(a, n, GRADIENT);
        UNIC_ROW_SUM(b, n, PRODUCT);
        sum += a;
        products += b;
      }
      to[0] = (float)sum;
      to[1] = (float)products;
      continue;
    }
    EACH_TILE(s, span) {
      float sum[TILE] = {0}, products[TILE] = {0}, centers[TILE];
      const float *restrict c = lanes_of(center + first, channels, count, centers);
      EACH_ROW(s, span) {
        const float *restrict x = unic_row_load(s->x, s->dtype, at, n, x_buffer), *restrict dy = unic_row_load(s->dy, s->dtype, at, n, dy_buffer);
        for (int64_t i = 0; i < n; i++) {
          sum[i] += dy[i];
          products[i] += dy[i] * (x[i] - c[i]);
        }
      }
      fold(sum, channels, count);
      fold(products, channels, count);
      for (int64_t i = 0; i < channels; i++) {
        to[first + i] = sum[i];
        to[s->width + first + i] = products[i];
      }
    }
  }
}

/* Slices to A and B of the groups begin .. end-1 of all images, and what dx needs of them. */
UNIC_LOOP(group_norm_join_sums) {
  const struct norm *s = context;
  double elements = (double)s->per * (double)s->pixels;
  for (int64_t group = begin; group < end; group++) {
    double all = 0, all_x = 0, rstd = s->rstd[group];
    const int64_t from = group * s->per, own = from % s->channels;
    for (int64_t c = 0; c < s->per; c++) {
      const float *p = s->partial + (from + c) / s->width * s->slices * 2 * s->width + (from + c) % s->width;
      double a = 0, b = 0, w = s->weight ? s->weight[own + c] : 1;
      for (int64_t k = 0; k < s->slices; k++, p += 2 * s->width) {
        a += p[0];
        b += p[s->width];
      }
      s->sum_dy[from + c] = (float)a;
      s->sum_dyx[from + c] = (float)(b * rstd);
      s->scale[from + c] = (float)(rstd * w);
      all += a * w;
      all_x += b * w;
    }
    for (int64_t c = 0; c < s->per; c++) {
      s->shift[from + c] = (float)(rstd * all / elements);
      s->slope[from + c] = (float)(rstd * rstd * rstd * all_x / elements);
    }
  }
}

UNIC_LOOP(group_norm_dx) {
  const struct norm *s = context;
  float x_buffer[UNIC_ROW], dy_buffer[UNIC_ROW], out[UNIC_ROW];
  const bool direct = s->dtype == UNIC_F32 && !s->accumulate;
  for (int64_t item = begin; item < end; item++) {
    struct slice span = slice_of(s, item);
    const int64_t channel = span.plane * s->width;
    if (s->width == 1) {
      const float c = s->center[channel], f = s->scale[channel], b = s->shift[channel], q = s->slope[channel];
      for (int64_t done = 0; done < span.rows; done += UNIC_ROW) {
        int64_t n = span.rows - done < UNIC_ROW ? span.rows - done : UNIC_ROW, at = span.at + done;
        const float *restrict x = unic_row_load(s->x, s->dtype, at, n, x_buffer), *restrict dy = unic_row_load(s->dy, s->dtype, at, n, dy_buffer);
        float *restrict d = direct ? (float *)s->to + at : out;
        for (int64_t i = 0; i < n; i++) d[i] = dy[i] * f - (x[i] - c) * q - b;
        if (!direct) unic_row_put(s->to, s->dtype, at, n, d, s->accumulate);
      }
      continue;
    }
    EACH_TILE(s, span) {
      float centers[TILE], scales[TILE], shifts[TILE], slopes[TILE];
      const float *restrict c = lanes_of(s->center + channel + first, channels, count, centers), *restrict f = lanes_of(s->scale + channel + first, channels, count, scales);
      const float *restrict b = lanes_of(s->shift + channel + first, channels, count, shifts), *restrict q = lanes_of(s->slope + channel + first, channels, count, slopes);
      EACH_ROW(s, span) {
        const float *restrict x = unic_row_load(s->x, s->dtype, at, n, x_buffer), *restrict dy = unic_row_load(s->dy, s->dtype, at, n, dy_buffer);
        float *restrict d = direct ? (float *)s->to + at : out;
        for (int64_t i = 0; i < n; i++) d[i] = dy[i] * f[i] - (x[i] - c[i]) * q[i] - b[i];
        if (!direct) unic_row_put(s->to, s->dtype, at, n, d, s->accumulate);
      }
    }
  }
}

#else

UNIC_LOOP_TABLE(group_norm_moments);
UNIC_LOOP_TABLE(group_norm_join);
UNIC_LOOP_TABLE(group_norm_normalize);
UNIC_LOOP_TABLE(group_norm_sums);
UNIC_LOOP_TABLE(group_norm_join_sums);
UNIC_LOOP_TABLE(group_norm_dx);

static unic_status shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  int64_t groups = c->arg[GROUPS].integer;
  char text[256];
  if (x->ndim < 2) return unic_fail_arg(c, X, "%s was given, expected at least two dimensions, [N, C, ...]", unic_tensor_describe(x, text, sizeof text));
  if (groups < 1) return unic_fail_arg(c, GROUPS, "%lld was given, expected at least 1", (long long)groups);
  if (x->shape[1] % groups)
    return unic_fail_arg(c, GROUPS, "%lld was given, which does not divide the %lld channels of 'x'", (long long)groups, (long long)x->shape[1]);
  for (int i = WEIGHT; i <= BIAS; i++)
    if (c->in[i] && c->in[i]->shape[0] != x->shape[1])
      return unic_fail_arg(c, i, "%s was given, expected one value for each of the %lld channels of 'x'", unic_tensor_describe(c->in[i], text, sizeof text), (long long)x->shape[1]);
  const int64_t statistics[2] = {x->shape[0], groups};
  unic_out_like(c, Y, x);
  unic_out(c, MEAN, unic_dtype_wide(c->type), 2, statistics);
  unic_out(c, RSTD, unic_dtype_wide(c->type), 2, statistics);
  return UNIC_OK;
}

static struct norm norm_of(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  struct norm s = {.images = x->shape[0], .channels = x->shape[1], .groups = k->arg[GROUPS].integer, .pixels = 1, .dtype = x->dtype};
  for (int d = 2; d < x->ndim; d++) s.pixels *= x->shape[d];
  s.per = s.channels / s.groups;
  bool last = s.pixels == 1 || (x->ndim == 4 && s.channels > 1 && x->stride[1] == 1);
  s.width = x->block ? x->block : last ? s.channels : 1;
  s.rows = s.width < SLICE / 8 ? SLICE / (s.width > 0 ? s.width : 1) : 8;
  s.slices = (s.pixels + s.rows - 1) / s.rows;
  return s;
}

static int64_t items(const struct norm *s) { return s->images * s->channels / s->width * s->slices; }

/* Slices per parallel chunk, groups per parallel chunk: about as many elements as a slice. */
static int64_t slices_at_once(const struct norm *s) {
  int64_t one = (s->pixels < s->rows ? s->pixels : s->rows) * s->width;
  return one < SLICE ? SLICE / one : 1;
}
static int64_t groups_at_once(const struct norm *s) {
  int64_t one = s->per * s->slices;
  return one < SLICE / 8 ? SLICE / 8 / one : 1;
}

static unic_status plan(const unic_kernel *k, unic_plan *p) {
  if (k->type == UNIC_F64 || k->in[X].numel == 0) return UNIC_OK;
  struct norm s = norm_of(k);
  p->scratch = (items(&s) * 2 * s.width + (k->backward ? 6 : 3) * s.images * s.channels) * (int64_t)sizeof(float);
  return UNIC_OK;
}

/* The parts of scratch. */
static void lay_out(struct norm *s, const unic_kernel *k) {
  int64_t each = s->images * s->channels;
  s->partial = k->scratch;
  s->center = s->partial + items(s) * 2 * s->width;
  s->scale = s->center + each;
  s->shift = s->scale + each;
  if (!k->backward) return;
  s->slope = s->shift + each;
  s->sum_dy = s->slope + each;
  s->sum_dyx = s->sum_dy + each;
}

static unic_status forward(const unic_kernel *k) {
  if (k->in[X].numel == 0) {   /* statistics of nothing; the backward does not look at them */
    for (int j = MEAN; j <= RSTD; j++)
      if (k->out[j].data) memset(k->out[j].data, 0, (size_t)(k->out[j].numel * unic_dtype_size((unic_dtype)k->out[j].dtype)));
    return UNIC_OK;
  }
  struct norm s = norm_of(k);
  s.x = k->in[X].data;
  s.to = k->out[Y].data;
  s.weight = k->in[WEIGHT].data;
  s.bias = k->in[BIAS].data;
  s.eps = (float)k->arg[EPS].number;
  s.mean = k->out[MEAN].data;
  s.rstd = k->out[RSTD].data;
  lay_out(&s, k);
  UNIC_RUN(group_norm_moments, items(&s), slices_at_once(&s), &s);
  UNIC_RUN(group_norm_join, s.images * s.groups, groups_at_once(&s), &s);
  UNIC_RUN(group_norm_normalize, items(&s), slices_at_once(&s), &s);
  return UNIC_OK;
}

static void zero(const unic_kernel *k, int i) {
  if (k->din[i].data && !k->accumulate[i]) memset(k->din[i].data, 0, (size_t)(k->din[i].numel * unic_dtype_size((unic_dtype)k->din[i].dtype)));
}

/* to[c] = or += the sum over images. */
static void over_images(const unic_kernel *k, int i, const float *values, int64_t images, int64_t channels) {
  float *to = k->din[i].data;
  for (int64_t c = 0; to && c < channels; c++) {
    double sum = k->accumulate[i] ? to[c] : 0;
    for (int64_t n = 0; n < images; n++) sum += values[n * channels + c];
    to[c] = (float)sum;
  }
}

static unic_status nothing(const unic_kernel *k) {
  zero(k, X);
  zero(k, WEIGHT);
  zero(k, BIAS);
  return UNIC_OK;
}

static unic_status backward(const unic_kernel *k) {
  if (k->in[X].numel == 0 || !k->dout[Y].data) return nothing(k);
  struct norm s = norm_of(k);
  s.x = k->in[X].data;
  s.dy = k->dout[Y].data;
  s.to = k->din[X].data;
  s.accumulate = k->accumulate[X];
  s.weight = k->in[WEIGHT].data;
  s.mean = k->out[MEAN].data;
  s.rstd = k->out[RSTD].data;
  lay_out(&s, k);
  for (int64_t group = 0; group < s.images * s.groups; group++)
    for (int64_t c = group * s.per; c < (group + 1) * s.per; c++) s.center[c] = s.mean[group];
  UNIC_RUN(group_norm_sums, items(&s), slices_at_once(&s), &s);
  UNIC_RUN(group_norm_join_sums, s.images * s.groups, groups_at_once(&s), &s);
  if (s.to) UNIC_RUN(group_norm_dx, items(&s), slices_at_once(&s), &s);
  over_images(k, WEIGHT, s.sum_dyx, s.images, s.channels);
  over_images(k, BIAS, s.sum_dy, s.images, s.channels);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form: group by group, element by element */

/* Where pixel p of channel c of image n lies. */
static int64_t place(const struct norm *s, int64_t n, int64_t c, int64_t p) {
  int64_t channel = n * s->channels + c;
  return (channel / s->width * s->pixels + p) * s->width + channel % s->width;
}

#define EACH_ELEMENT for (int64_t c = g * s.per; c < (g + 1) * s.per; c++) for (int64_t p = 0, at = place(&s, n, c, 0); p < s.pixels; p++, at += s.width)

static unic_status reference(const unic_kernel *k) {
  if (k->in[X].numel == 0) return forward(k);
  struct norm s = norm_of(k);
  const double *x = k->in[X].data, *w = k->in[WEIGHT].data, *b = k->in[BIAS].data;
  double *y = k->out[Y].data, *means = k->out[MEAN].data, *rstds = k->out[RSTD].data, count = (double)(s.per * s.pixels);
  for (int64_t n = 0; n < s.images; n++)
    for (int64_t g = 0; g < s.groups; g++) {
      double mean = 0, var = 0;
      EACH_ELEMENT mean += x[at];
      mean /= count;
      EACH_ELEMENT var += (x[at] - mean) * (x[at] - mean);
      double rstd = 1 / sqrt(var / count + k->arg[EPS].number);
      EACH_ELEMENT y[at] = (x[at] - mean) * rstd * (w ? w[c] : 1) + (b ? b[c] : 0);
      if (means) {
        means[n * s.groups + g] = mean;
        rstds[n * s.groups + g] = rstd;
      }
    }
  return UNIC_OK;
}

static unic_status reference_backward(const unic_kernel *k) {
  nothing(k);
  if (k->in[X].numel == 0 || !k->dout[Y].data) return UNIC_OK;
  struct norm s = norm_of(k);
  const double *x = k->in[X].data, *dy = k->dout[Y].data, *w = k->in[WEIGHT].data, *means = k->out[MEAN].data, *rstds = k->out[RSTD].data;
  double *dx = k->din[X].data, *dw = k->din[WEIGHT].data, *db = k->din[BIAS].data, count = (double)(s.per * s.pixels);
  for (int64_t n = 0; n < s.images; n++)
    for (int64_t g = 0; g < s.groups; g++) {
      double mean = means[n * s.groups + g], rstd = rstds[n * s.groups + g], sum_g = 0, sum_gx = 0;
      EACH_ELEMENT {
        double xhat = (x[at] - mean) * rstd, gradient = dy[at] * (w ? w[c] : 1);
        sum_g += gradient;
        sum_gx += gradient * xhat;
        if (dw) dw[c] += dy[at] * xhat;
        if (db) db[c] += dy[at];
      }
      if (!dx) continue;
      EACH_ELEMENT dx[at] += rstd * (dy[at] * (w ? w[c] : 1) - sum_g / count - (x[at] - mean) * rstd * sum_gx / count);
    }
  return UNIC_OK;
}

static const unic_op op_group_norm = {
  .name = "group_norm",
  .signature = "x: tensor, groups: int, weight: tensor<wide>?[C], bias: tensor<wide>?[C], eps: number = 1e-5 -> y, (mean, rstd)",
  .doc = "Normalise each group of channels of each image to mean 0 and variance 1 (biased), then scale and shift each channel. y lies in memory as x does.\n"
         "x             [N, C, ...]\n"
         "groups        the C channels are split into that many groups, in order; C is a multiple of it\n"
         "weight, bias  scale and shift of each channel [C]; 1 and 0 when absent\n"
         "eps           added to the variance inside the root",
  .saves = "x weight mean rstd",
  .grads = "x weight:wide bias:wide",
  .layouts = "x:contiguous|channels_last|blocked",
  .shape = shape,
  .cpu = {.forward = forward, .backward = backward, .reference = reference, .reference_backward = reference_backward, .plan = plan},
  .flags = UNIC_OP_METHOD,
};

UNIC_OPS(group_norm, &op_group_norm);

#endif
