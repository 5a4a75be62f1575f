/* Random fills, in place: uniform_, normal_, randint_, bernoulli_.
 *
 *   x[i] = f(Philox(seed, counter, i)), i counting elements row by row whatever x's layout. Each number of the stream is 32 bits:
 *   uniform_    low + (high - low) u with u = the top 24 bits (bf16: 8, f16: 11, so that u is exact and below 1)
 *   normal_     Box-Muller in f64 on four numbers per two elements: mean + std sqrt(-2 log u) cos, sin(2 pi w), u in (0, 1], w in [0, 1) of 53 bits
 *   randint_    low + (bits (high - low)) / 2^32
 *   bernoulli_  bits < p 2^32
 * The generator's counter moves on by ceil(n / 4) blocks (normal_: ceil(n / 2)). The bits of an element depend on seed, counter and i alone: any
 * number of threads gives the same, and so does every device (normals within 2 ulp). */
#include "precise.h"
#include "walk.h"

enum { X, A, B, RNG };
enum { RNG_BERNOULLI = 2 };

struct draw {
  unic_walk walk;              /* of x, in row-major order */
  void *x;
  int dtype;
  uint64_t seed, counter;
  double a, b;
  int64_t low;
  uint64_t range, threshold;
};

#if UNIC_LOOPS

/* A row of values in their natural type, converted and brought to its places. */
static void put_row(const struct draw *d, int64_t at, int64_t n, const void *values, int dtype) {
  uint64_t raw[UNIC_ROW];
  void *target = unic_walk_target(&d->walk, 0, at, n, d->x, d->dtype, raw);
  unic_row_convert(values, dtype, target, d->dtype, n);
  unic_walk_put(&d->walk, 0, at, n, d->x, d->dtype, target, raw);
}

UNIC_LOOP(draw_uniform) {
  const struct draw *d = context;
  uint32_t bits[UNIC_ROW];
  double v[UNIC_ROW];
  const int kept = d->dtype == UNIC_BF16 ? 8 : d->dtype == UNIC_F16 ? 11 : 24, drop = 32 - kept;
  const double a = d->a, width = (d->b - d->a) / (double)(1 << kept);
  for (int64_t at = begin; at < end; at += UNIC_ROW) {
    int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW;
    unic_random_row(d->seed, d->counter, at, n, bits);
    for (int64_t i = 0; i < n; i++) v[i] = a + width * (double)(int32_t)(bits[i] >> drop);
    put_row(d, at, n, v, UNIC_F64);
  }
}

/* 53 bits of two numbers as a whole number in f64. */
static inline double whole53(uint32_t high, uint32_t low) {
  return ((double)(int32_t)(high ^ 0x80000000u) + 2147483648.0) * 2097152.0 + (double)(int32_t)(low >> 11);
}

UNIC_LOOP(draw_normal) {
  const struct draw *d = context;
  uint32_t bits[2 * UNIC_ROW + 2];
  double v[UNIC_ROW + 1];
  const double mean = d->a, std = d->b;
  for (int64_t at = begin; at < end; at += UNIC_ROW) {   /* chunks begin at even elements */
    int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW, pairs = (n + 1) / 2;
    unic_random_row(d->seed, d->counter, 2 * at, 4 * pairs, bits);
    for (int64_t j = 0; j < pairs; j++) {
      double u = (whole53(bits[4 * j], bits[4 * j + 1]) + 1) * 0x1p-53, w = whole53(bits[4 * j + 2], bits[4 * j + 3]) * 0x1p-53, sine, cosine;
      double r = std * sqrt(-2 * unic_log_normal(u));
      unic_sincos_turns(w, &sine, &cosine);
      v[2 * j] = mean + r * cosine;
      v[2 * j + 1] = mean + r * sine;
    }
    put_row(d, at, n, v, UNIC_F64);
  }
}

UNIC_LOOP(draw_integers) {
  const struct draw *d = context;
  uint32_t bits[UNIC_ROW];
  int64_t v[UNIC_ROW];
  for (int64_t at = begin; at < end; at += UNIC_ROW) {
    int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW;
    unic_random_row(d->seed, d->counter, at, n, bits);
    /* range is at most 2^32: the product fits. */
    for (int64_t i = 0; i < n; i++) v[i] = d->low + (int64_t)((d->range * bits[i]) >> 32);
    put_row(d, at, n, v, UNIC_I64);
  }
}

UNIC_LOOP(draw_bernoulli) {
  const struct draw *d = context;
  uint32_t bits[UNIC_ROW];
  uint8_t v[UNIC_ROW];
  const bool always = d->threshold > 0xffffffffu;
  const uint32_t threshold = (uint32_t)d->threshold;
  for (int64_t at = begin; at < end; at += UNIC_ROW) {
    int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW;
    unic_random_row(d->seed, d->counter, at, n, bits);
    for (int64_t i = 0; i < n; i++) v[i] = always || bits[i] < threshold;
    put_row(d, at, n, v, UNIC_U8);
  }
}

#else

UNIC_LOOP_TABLE(draw_uniform);
UNIC_LOOP_TABLE(draw_normal);
UNIC_LOOP_TABLE(draw_integers);
UNIC_LOOP_TABLE(draw_bernoulli);

/* Everything but what the distribution needs. x's dimensions stay in their order: that of the stream. */
static struct draw start(const unic_kernel *k, int rng) {
  const int64_t *state = k->in[rng].data;
  const unic_view *x = &k->in[X];
  struct draw d = {.x = x->data, .dtype = x->dtype, .seed = (uint64_t)state[0], .counter = (uint64_t)state[1]};
  unic_walk *w = &d.walk;
  w->operands = 1;
  w->numel = x->numel;
  for (int i = 0; i < x->ndim; i++) {
    if (x->shape[i] == 1) continue;
    if (w->ndim && w->stride[0][w->ndim - 1] == x->stride[i] * x->shape[i]) {
      w->shape[w->ndim - 1] *= x->shape[i];
      w->stride[0][w->ndim - 1] = x->stride[i];
    } else {
      w->shape[w->ndim] = x->shape[i];
      w->stride[0][w->ndim++] = x->stride[i];
    }
  }
  if (!w->ndim) { w->ndim = 1; w->shape[0] = w->stride[0][0] = 1; }
  return d;
}

static unic_status finish(const unic_kernel *k, int rng, int64_t blocks) {
  ((int64_t *)k->in[rng].data)[1] += blocks;
  return UNIC_OK;
}

static unic_status uniform_forward(const unic_kernel *k) {
  struct draw d = start(k, RNG);
  d.a = k->arg[A].number;
  d.b = k->arg[B].number;
  UNIC_RUN(draw_uniform, k->in[X].numel, UNIC_WALK_CHUNK, &d);
  return finish(k, RNG, unic_random_blocks(k->in[X].numel));
}

static unic_status normal_forward(const unic_kernel *k) {
  struct draw d = start(k, RNG);
  d.a = k->arg[A].number;
  d.b = k->arg[B].number;
  UNIC_RUN(draw_normal, k->in[X].numel, UNIC_WALK_CHUNK, &d);
  return finish(k, RNG, (k->in[X].numel + 1) / 2);
}

static unic_status randint_forward(const unic_kernel *k) {
  struct draw d = start(k, RNG);
  d.low = k->arg[A].integer;
  d.range = (uint64_t)(k->arg[B].integer - k->arg[A].integer);
  UNIC_RUN(draw_integers, k->in[X].numel, UNIC_WALK_CHUNK, &d);
  return finish(k, RNG, unic_random_blocks(k->in[X].numel));
}

static unic_status bernoulli_forward(const unic_kernel *k) {
  struct draw d = start(k, RNG_BERNOULLI);
  d.threshold = unic_random_threshold(k->arg[A].number);
  UNIC_RUN(draw_bernoulli, k->in[X].numel, UNIC_WALK_CHUNK, &d);
  return finish(k, RNG_BERNOULLI, unic_random_blocks(k->in[X].numel));
}

static unic_status uniform_shape(unic_call *c) {
  if (!(c->arg[B].number >= c->arg[A].number)) return unic_fail_arg(c, B, "%g was given, expected at least low = %g", c->arg[B].number, c->arg[A].number);
  return UNIC_OK;
}

static unic_status normal_shape(unic_call *c) {
  if (!(c->arg[B].number >= 0)) return unic_fail_arg(c, B, "%g was given, expected 0 or more", c->arg[B].number);
  return UNIC_OK;
}

static unic_status randint_shape(unic_call *c) {
  if (c->arg[B].integer <= c->arg[A].integer || c->arg[B].integer - c->arg[A].integer > (INT64_C(1) << 32))
    return unic_fail_arg(c, B, "%lld was given, expected more than low = %lld, by 2^32 at most", (long long)c->arg[B].integer, (long long)c->arg[A].integer);
  return UNIC_OK;
}

static unic_status bernoulli_shape(unic_call *c) {
  if (!(c->arg[A].number >= 0 && c->arg[A].number <= 1)) return unic_fail_arg(c, A, "%g was given, expected a probability, 0 to 1", c->arg[A].number);
  return UNIC_OK;
}

static const unic_op op_uniform = {
  .name = "uniform_", .signature = "x!: tensor<float>, low: number = 0, high: number = 1, rng: rng ->",
  .doc = "Fill x with uniform numbers in [low, high), in place.\n"
         "low, high  the interval\n"
         "rng        a generator; the device's own when absent",
  .layouts = "x:any", .shape = uniform_shape, .cpu = {.forward = uniform_forward}, .flags = UNIC_OP_INPLACE | UNIC_OP_METHOD | UNIC_OP_NO_GRAD};

static const unic_op op_normal = {
  .name = "normal_", .signature = "x!: tensor<float>, mean: number = 0, std: number = 1, rng: rng ->",
  .doc = "Fill x with normal numbers, in place.\n"
         "mean, std  mean and standard deviation\n"
         "rng        a generator; the device's own when absent",
  .layouts = "x:any", .shape = normal_shape, .cpu = {.forward = normal_forward}, .flags = UNIC_OP_INPLACE | UNIC_OP_METHOD | UNIC_OP_NO_GRAD};

static const unic_op op_randint = {
  .name = "randint_", .signature = "x!: tensor<any>, low: int, high: int, rng: rng ->",
  .doc = "Fill x with integers in [low, high), in place.\n"
         "low   the smallest\n"
         "high  one more than the largest\n"
         "rng   a generator; the device's own when absent",
  .layouts = "x:any", .shape = randint_shape, .cpu = {.forward = randint_forward}, .flags = UNIC_OP_INPLACE | UNIC_OP_METHOD | UNIC_OP_NO_GRAD};

static const unic_op op_bernoulli = {
  .name = "bernoulli_", .signature = "x!: tensor<any>, p: number = 0.5, rng: rng ->",
  .doc = "Fill x with ones (probability p) and zeros, in place.\n"
         "p    the probability of a one\n"
         "rng  a generator; the device's own when absent",
  .layouts = "x:any", .shape = bernoulli_shape, .cpu = {.forward = bernoulli_forward}, .flags = UNIC_OP_INPLACE | UNIC_OP_METHOD | UNIC_OP_NO_GRAD};

UNIC_OPS(random, &op_uniform, &op_normal, &op_randint, &op_bernoulli);

#endif
