/* Random fills, in place: uniform_, normal_, randint_, bernoulli_.
 *
 *   x[i] = f(Philox(seed, counter, i)), i in row-major order; the generator's counter moves on by ceil(n/4) blocks (normal_: by ceil(n/2),
 *   as Box-Muller turns two numbers into two and uses one pair per two elements).
 * The bits of an element depend on seed, counter and i alone: any_threads, and equal on every device (normals within 2 ulp there).
 * Normal numbers are computed in f64 and rounded to x's type. */
#include "op.h"
#include "random.h"

#include <math.h>

enum { X, A, B, RNG };
enum { RNG_BERNOULLI = 2 };

struct draw {
  unic_view x;
  uint64_t seed, counter;
  double a, b;
  int64_t low, range;
  int kind;                       /* 0 uniform, 1 normal, 2 integers, 3 bernoulli */
};

static void draw_rows(void *context, int64_t begin, int64_t end) {
  const struct draw *d = context;
  const unic_view *x = &d->x;
  for (int64_t i = begin; i < end; i++) {
    int64_t at = 0, rest = i;
    for (int dim = x->ndim - 1; dim >= 0; dim--) {
      at += rest % x->shape[dim] * x->stride[dim];
      rest /= x->shape[dim];
    }
    double v;
    if (d->kind == 1) {
      uint32_t four[4];
      unic_philox(d->seed, d->counter + (uint64_t)(i >> 1), four);
      /* Two 53-bit uniforms in (0, 1] and [0, 1). */
      double u = ((double)(((uint64_t)four[0] << 21) ^ (four[1] >> 11)) + 1) * 0x1p-53;
      double w = (double)(((uint64_t)four[2] << 21) ^ (four[3] >> 11)) * 0x1p-53;
      double r = sqrt(-2 * log(u)), angle = 6.283185307179586 * w;
      v = d->a + d->b * r * ((i & 1) ? sin(angle) : cos(angle));
    } else {
      uint32_t bits = unic_random_bits(d->seed, d->counter, i);
      if (d->kind == 0) v = d->a + (d->b - d->a) * (double)unic_random_uniform(bits);
      else if (d->kind == 2) v = (double)(d->low + (int64_t)(((unsigned __int128)(uint64_t)d->range * bits) >> 32));
      else v = (uint64_t)bits < unic_random_threshold(d->a) ? 1 : 0;
    }
    if (x->dtype == UNIC_I64) ((int64_t *)x->data)[at] = (int64_t)v;
    else unic_element_set(x->data, x->dtype, at, v);
  }
}

static unic_status run(const unic_kernel *k, int kind, int rng, struct draw *d) {
  int64_t *state = k->in[rng].data, n = k->in[X].numel;
  d->x = k->in[X];
  d->seed = (uint64_t)state[0];
  d->counter = (uint64_t)state[1];
  d->kind = kind;
  unic_parallel_for(n, 1 << 14, draw_rows, d);
  state[1] += kind == 1 ? (n + 1) / 2 : unic_random_blocks(n);
  return UNIC_OK;
}

static unic_status uniform_forward(const unic_kernel *k) {
  struct draw d = {.a = k->arg[A].number, .b = k->arg[B].number};
  return run(k, 0, RNG, &d);
}

static unic_status normal_forward(const unic_kernel *k) {
  struct draw d = {.a = k->arg[A].number, .b = k->arg[B].number};
  return run(k, 1, RNG, &d);
}

static unic_status randint_forward(const unic_kernel *k) {
  struct draw d = {.low = k->arg[A].integer, .range = k->arg[B].integer - k->arg[A].integer};
  return run(k, 2, RNG, &d);
}

static unic_status bernoulli_forward(const unic_kernel *k) {
  struct draw d = {.a = k->arg[A].number};
  return run(k, 3, RNG_BERNOULLI, &d);
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
  .doc = "Fill x with uniform numbers in [low, high), in place.\n  low, high  the interval\n  rng  a generator (nil: the device's)",
  .layouts = "x:any", .shape = uniform_shape, .cpu = {.forward = uniform_forward}, .flags = UNIC_OP_INPLACE | UNIC_OP_METHOD | UNIC_OP_NO_GRAD};

static const unic_op op_normal = {
  .name = "normal_", .signature = "x!: tensor<float>, mean: number = 0, std: number = 1, rng: rng ->",
  .doc = "Fill x with normal numbers, in place.\n  mean, std  mean and standard deviation\n  rng  a generator (nil: the device's)",
  .layouts = "x:any", .shape = normal_shape, .cpu = {.forward = normal_forward}, .flags = UNIC_OP_INPLACE | UNIC_OP_METHOD | UNIC_OP_NO_GRAD};

static const unic_op op_randint = {
  .name = "randint_", .signature = "x!: tensor<any>, low: int, high: int, rng: rng ->",
  .doc = "Fill x with integers in [low, high), in place.\n  low  the smallest\n  high  one more than the largest\n  rng  a generator (nil: the device's)",
  .layouts = "x:any", .shape = randint_shape, .cpu = {.forward = randint_forward}, .flags = UNIC_OP_INPLACE | UNIC_OP_METHOD | UNIC_OP_NO_GRAD};

static const unic_op op_bernoulli = {
  .name = "bernoulli_", .signature = "x!: tensor<any>, p: number = 0.5, rng: rng ->",
  .doc = "Fill x with ones (probability p) and zeros, in place.\n  p  the probability of a one\n  rng  a generator (nil: the device's)",
  .layouts = "x:any", .shape = bernoulli_shape, .cpu = {.forward = bernoulli_forward}, .flags = UNIC_OP_INPLACE | UNIC_OP_METHOD | UNIC_OP_NO_GRAD};

UNIC_OPS(random, &op_uniform, &op_normal, &op_randint, &op_bernoulli);
