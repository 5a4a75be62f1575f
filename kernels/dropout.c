/* dropout:    y[i] = x[i] keep(i) / (1 - p), keep(i) = number i of the stream is at least p 2^32; i counts elements row by row.
 * drop_path:  the same for whole samples: y[n, ...] = x[n, ...] keep(n) / (1 - p) (stochastic depth, Huang et al. 2016).
 *
 * Saved: the generator's state, from which the backward draws the mask again; no mask is stored. y is made again by it too, where x is there (remake.h). Any number of threads gives the same bits. */
#include "loops.h"

enum { X, P, RNG };
enum { Y, STATE };

struct dropout {
  const void *from;          /* x, or dy */
  void *to;                  /* y, or dx */
  int dtype, accumulate;
  uint64_t seed, counter, threshold;
  float scale;
  int64_t sample;            /* elements per sample; dropout: 1 */
};

#if UNIC_LOOPS

static void give(const struct dropout *d, int64_t at, int64_t n, const float *restrict row) {
  unic_row_put(d->to, d->dtype, at, n, row, d->accumulate);
}

UNIC_LOOP(dropout_rows) {
  const struct dropout *d = context;
  float x_buffer[UNIC_ROW], y[UNIC_ROW];
  uint32_t bits[UNIC_ROW];
  /* p = 1 needs a threshold beyond 32 bits: the scale is 0 then, and nothing else matters. */
  const uint32_t threshold = (uint32_t)(d->threshold > 0xffffffffu ? 0xffffffffu : d->threshold);
  const float scale = d->scale;
  for (int64_t at = begin; at < end; at += UNIC_ROW) {
    int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW;
    const float *restrict x = unic_row_load(d->from, d->dtype, at, n, x_buffer);
    unic_random_row(d->seed, d->counter, at, n, bits);
    for (int64_t i = 0; i < n; i++) y[i] = bits[i] < threshold ? 0.0f : x[i] * scale;
    if (scale == 0) memset(y, 0, sizeof y);
    give(d, at, n, y);
  }
}

UNIC_LOOP(drop_path_rows) {
  const struct dropout *d = context;
  float x_buffer[UNIC_ROW], y[UNIC_ROW];
  for (int64_t at = begin; at < end;) {
    int64_t number = at / d->sample, left = (number + 1) * d->sample - at, n = end - at < UNIC_ROW ? end - at : UNIC_ROW;
    n = left < n ? left : n;
    bool dropped = d->scale == 0 || unic_random_bits(d->seed, d->counter, number) < d->threshold;
    if (dropped) {
      memset(y, 0, sizeof y);
    } else {
      const float *restrict x = unic_row_load(d->from, d->dtype, at, n, x_buffer);
      for (int64_t i = 0; i < n; i++) y[i] = x[i] * d->scale;
    }
    give(d, at, n, y);
    at += n;
  }
}

#else

UNIC_LOOP_TABLE(dropout_rows);
UNIC_LOOP_TABLE(drop_path_rows);

static unic_status shape(unic_call *c) {
  double p = c->arg[P].number;
  if (!(p >= 0 && p <= 1)) return unic_fail_arg(c, P, "%g was given, a probability from 0 to 1 is expected", p);
  unic_out_like(c, Y, c->in[X]);
  unic_out(c, STATE, UNIC_I64, 1, (const int64_t[]){2});
  return UNIC_OK;
}

static unic_status path_shape(unic_call *c) {
  if (c->in[X]->ndim == 0) return unic_fail_arg(c, X, "it has no dimensions, the samples are expected along the first");
  return shape(c);
}

static int64_t sample_size(const unic_view *x) { return x->ndim && x->shape[0] ? x->numel / x->shape[0] : 0; }

/* Keep the state for backward and leave the generator behind the numbers that were used. */
static void leave_generator(const unic_kernel *k, int64_t numbers) {
  int64_t *rng = k->in[RNG].data, *state = k->out[STATE].data;
  if (state) { state[0] = rng[0]; state[1] = rng[1]; }
  if (k->arg[P].number > 0) rng[1] += unic_random_blocks(numbers);
}

static struct dropout common(const unic_kernel *k, const int64_t *state, const unic_view *from, const unic_view *to) {
  double p = k->arg[P].number;
  return (struct dropout){
    .from = from->data, .to = to->data, .dtype = to->dtype, .accumulate = k->backward ? k->accumulate[X] : 0, .seed = (uint64_t)state[0],
    .counter = (uint64_t)state[1], .threshold = unic_random_threshold(p), .scale = p < 1 ? (float)(1 / (1 - p)) : 0, .sample = sample_size(to),
  };
}

static unic_remake_price remakes(const unic_call *c, int j) {
  (void)c;
  return j == Y ? UNIC_REMAKE_CHEAP : UNIC_REMAKE_NEVER;
}

/* y again, by the generator's state as it was. */
static unic_status remake(const unic_kernel *k) {
  struct dropout d = common(k, k->out[STATE].data, &k->in[X], &k->out[Y]);
  UNIC_RUN(dropout_rows, k->in[X].numel, 8 * UNIC_ROW, &d);
  return UNIC_OK;
}

static unic_status path_remake(const unic_kernel *k) {
  struct dropout d = common(k, k->out[STATE].data, &k->in[X], &k->out[Y]);
  UNIC_RUN(drop_path_rows, k->in[X].numel, 16 * UNIC_ROW, &d);
  return UNIC_OK;
}

static unic_status forward(const unic_kernel *k) {
  struct dropout d = common(k, k->in[RNG].data, &k->in[X], &k->out[Y]);
  UNIC_RUN(dropout_rows, k->in[X].numel, 8 * UNIC_ROW, &d);
  leave_generator(k, k->in[X].numel);
  return UNIC_OK;
}

static unic_status backward(const unic_kernel *k) {
  struct dropout d = common(k, k->out[STATE].data, &k->dout[Y], &k->din[X]);
  UNIC_RUN(dropout_rows, k->in[X].numel, 8 * UNIC_ROW, &d);
  return UNIC_OK;
}

static unic_status path_forward(const unic_kernel *k) {
  struct dropout d = common(k, k->in[RNG].data, &k->in[X], &k->out[Y]);
  UNIC_RUN(drop_path_rows, k->in[X].numel, 16 * UNIC_ROW, &d);
  leave_generator(k, k->in[X].shape[0]);
  return UNIC_OK;
}

static unic_status path_backward(const unic_kernel *k) {
  struct dropout d = common(k, k->out[STATE].data, &k->dout[Y], &k->din[X]);
  UNIC_RUN(drop_path_rows, k->in[X].numel, 16 * UNIC_ROW, &d);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

static double keep_factor(double p, const int64_t *state, int64_t i) {
  if (p >= 1) return 0;
  return unic_random_bits((uint64_t)state[0], (uint64_t)state[1], i) < unic_random_threshold(p) ? 0 : 1 / (1 - p);
}

/* What the numbers are drawn from: the generator, or what it was. */
static const int64_t *source(const unic_kernel *k) { return k->remake ? k->out[STATE].data : k->in[RNG].data; }

static unic_status reference_remake(const unic_kernel *k) {
  const double *x = k->in[X].data;
  double *y = k->out[Y].data;
  for (int64_t i = 0; i < k->in[X].numel; i++) y[i] = x[i] * keep_factor(k->arg[P].number, source(k), i);
  return UNIC_OK;
}

static unic_status reference(const unic_kernel *k) {
  UNIC_TRY(reference_remake(k));
  leave_generator(k, k->in[X].numel);
  return UNIC_OK;
}

static unic_status reference_backward(const unic_kernel *k) {
  const double *dy = k->dout[Y].data;
  double *dx = k->din[X].data;
  for (int64_t i = 0; i < k->in[X].numel; i++)
    dx[i] = dy[i] * keep_factor(k->arg[P].number, k->out[STATE].data, i) + (k->accumulate[X] ? dx[i] : 0);
  return UNIC_OK;
}

static unic_status path_reference_remake(const unic_kernel *k) {
  const double *x = k->in[X].data;
  double *y = k->out[Y].data;
  for (int64_t i = 0; i < k->in[X].numel; i++) y[i] = x[i] * keep_factor(k->arg[P].number, source(k), i / sample_size(&k->in[X]));
  return UNIC_OK;
}

static unic_status path_reference(const unic_kernel *k) {
  UNIC_TRY(path_reference_remake(k));
  leave_generator(k, k->in[X].shape[0]);
  return UNIC_OK;
}

static unic_status path_reference_backward(const unic_kernel *k) {
  const double *dy = k->dout[Y].data;
  double *dx = k->din[X].data;
  for (int64_t i = 0; i < k->in[X].numel; i++)
    dx[i] = dy[i] * keep_factor(k->arg[P].number, k->out[STATE].data, i / sample_size(&k->in[X])) + (k->accumulate[X] ? dx[i] : 0);
  return UNIC_OK;
}

static const unic_op op_dropout = {
  .name = "dropout",
  .signature = "x: tensor, p: number = 0.5, rng: rng -> y, (state)",
  .doc = "Set elements to 0 with probability p and divide the others by 1 - p. Always at work; nn.Dropout knows training from evaluation.\n"
         "x    any shape\n"
         "p    the probability\n"
         "rng  a generator; the device's own when absent",
  .saves = "state",
  .grads = "x",
  .shape = shape,
  .remakes = remakes,
  .again = "x",
  .cpu = {forward, backward, reference, reference_backward, remake, reference_remake},
  .flags = UNIC_OP_METHOD,
};

static const unic_op op_drop_path = {
  .name = "drop_path",
  .signature = "x: tensor, p: number = 0.1, rng: rng -> y, (state)",
  .doc = "Set whole samples (along the first dimension) to 0 with probability p and divide the others by 1 - p.\n"
         "x    [N, ...]\n"
         "p    the probability\n"
         "rng  a generator; the device's own when absent",
  .saves = "state",
  .grads = "x",
  .layouts = "x:contiguous|channels_last",
  .shape = path_shape,
  .remakes = remakes,
  .again = "x",
  .cpu = {path_forward, path_backward, path_reference, path_reference_backward, path_remake, path_reference_remake},
  .flags = UNIC_OP_METHOD,
};

UNIC_OPS(dropout, &op_dropout, &op_drop_path);

#endif
