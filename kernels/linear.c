/* linear: a matrix product with bias and activation.
 *
 *   z[m, o] = sum_i x[m, i] weight[o, i] + bias[o]        y = z, max(z, 0), or gelu(z) = z (1 + erf(z / sqrt 2)) / 2
 *
 * x [..., I] seen as [M, I], weight [O, I], bias [O], y [..., O].
 * Gradients: dz = dy act'(z), dx = dz weight, dweight = dz' x, dbias = sum over m of dz.
 *
 * f32: one oneDNN product into y (or z), then bias and activation in one pass over it; backward makes dz in scratch and sums dbias in the same
 * pass, then two products. bf16 and f16: operands in f32 panels (gemm.h), bias and activation on the f32 tile before it is rounded once; or,
 * where the processor multiplies pairs of bf16, own products (pairs.h, conv_weights.h), a pass for the activation, and backward with dz in bf16.
 *
 * Saved: x, weight, and z: the value before a GELU, or for a ReLU one byte that says whether it let the value through. y = gelu(z) is made again from
 * z, which for that is rounded before the GELU is taken; where memory is short, y and z are made again from x (remake.h).
 * A weight may be f32 beside x in a half type: it is rounded into scratch right before the products that read it, so that no copy of it lives
 * from the forward to the backward. Without a tape and for few rows, which would not pay for that, the rounded form is kept: a derived form of the
 * weight.
 * Bits: equal for equal thread counts (oneDNN splits a product by threads); bias, activation and dbias are the same at any thread count.
 *
 * Over 500 lines: one op with its activations, each product planned for three ways of computing it. */
#include "conv_weights.h"
#include "gemm.h"
#include "loops.h"
#include "pairs.h"

enum { X, WEIGHT, BIAS, ACTIVATION };   /* inputs */
enum { Y, Z };                          /* outputs */
enum { NONE, GELU, RELU };

/* Rows of z without bias (from, f32 or as y) become rows of y and of z. */
struct finish { const void *from; const float *bias; void *y, *z; int64_t from_ld, ld, columns; int from_dtype, dtype, activation; };
/* Rows of dy become rows of dz, and each chunk of them a row of sums. */
struct start { const void *dy, *z; void *dz; float *sums; int64_t columns, chunk; int dtype, dz_dtype, activation; };
/* A weight rounded as it lies. */
struct rounding { const float *from; void *to; int dtype; };
/* The bias gradient out of the chunks' sums. */
struct gather { const float *sums; float *dbias; int64_t columns, chunks; int accumulate; };

#if UNIC_LOOPS

static inline float gelu(float z) {
  float a = fabsf(z) * 0.707106781f, tail = 0.5f * unic_erfcxf(a) * unic_exp_fallingf(-a * a);
  return z * (z > 0 ? 1.0f - tail : tail);
}

/* gelu' = cdf + z pdf; both need exp(-z^2/2), taken once. */
static inline float gelu_slope(float z) {
  float a = fabsf(z) * 0.707106781f, e = unic_exp_fallingf(-a * a), tail = 0.5f * unic_erfcxf(a) * e;
  /* z pdf is 0 at infinity, where the product would be NaN. */
  float density = e == 0 ? 0.0f : z * e * 0.398942280f;
  return (z > 0 ? 1.0f - tail : tail) + density;
}

UNIC_LOOP(linear_finish) {
  const struct finish *f = context;
  float row[UNIC_ROW], before[UNIC_ROW], buffer[UNIC_ROW];
  for (int64_t m = begin; m < end; m++) {
    for (int64_t j = 0; j < f->columns; j += UNIC_ROW) {
      int64_t n = f->columns - j < UNIC_ROW ? f->columns - j : UNIC_ROW, at = m * f->ld + j;
      const float *from = unic_row_load(f->from, f->from_dtype, m * f->from_ld + j, n, buffer), *bias = f->bias ? f->bias + j : NULL;
      /* f32 works where the row lies: from may be y or z itself, element by element. */
      float *z = f->z && f->activation == GELU ? unic_row_place(f->z, f->dtype, at, before) : before;
      float *y = unic_row_place(f->y, f->dtype, at, row);
      if (f->activation == GELU) {
        if (f->dtype != f->from_dtype) {   /* gelu of the z that is stored, which must give this y once more */
          uint16_t half[UNIC_ROW];
          for (int64_t i = 0; i < n; i++) z[i] = from[i] + (bias ? bias[i] : 0.0f);
          unic_row_store(half, f->dtype, 0, n, z);
          z = (float *)(uintptr_t)unic_row_load(half, f->dtype, 0, n, before);
          #pragma omp simd
          for (int64_t i = 0; i < n; i++) y[i] = gelu(z[i]);
        } else if (bias) {
          #pragma omp simd
          for (int64_t i = 0; i < n; i++) { float v = from[i] + bias[i]; z[i] = v; y[i] = gelu(v); }
        } else {
          #pragma omp simd
          for (int64_t i = 0; i < n; i++) { float v = from[i]; z[i] = v; y[i] = gelu(v); }
        }
        if (f->z) unic_row_store(f->z, f->dtype, at, n, z);
      } else {
        if (bias) {
          #pragma omp simd
          for (int64_t i = 0; i < n; i++) y[i] = from[i] + bias[i];
        } else if (y != from) {
          #pragma omp simd
          for (int64_t i = 0; i < n; i++) y[i] = from[i];
        }
        if (f->activation == RELU) {
          if (f->z) {
            uint8_t *restrict passed = (uint8_t *)f->z + at;
            for (int64_t i = 0; i < n; i++) passed[i] = !(y[i] <= 0);
          }
          #pragma omp simd
          for (int64_t i = 0; i < n; i++) y[i] = y[i] < 0 ? 0 : y[i];   /* NaN stays */
        }
      }
      unic_row_store(f->y, f->dtype, at, n, y);
    }
  }
}

UNIC_LOOP(linear_start) {
  const struct start *s = context;
  float slope[UNIC_ROW], row[UNIC_ROW], out[UNIC_ROW];
  float *sums = s->sums ? s->sums + begin / s->chunk * s->columns : NULL;
  if (sums) for (int64_t j = 0; j < s->columns; j++) sums[j] = 0;
  for (int64_t m = begin; m < end; m++) {
    for (int64_t j = 0; j < s->columns; j += UNIC_ROW) {
      int64_t n = s->columns - j < UNIC_ROW ? s->columns - j : UNIC_ROW, at = m * s->columns + j;
      const float *dy = unic_row_load(s->dy, s->dtype, at, n, row), *dz = dy;
      if (s->dz) {
        float *restrict to = unic_row_place(s->dz, s->dz_dtype, at, out);
        if (s->activation == GELU) {
          const float *z = unic_row_load(s->z, s->dtype, at, n, slope);
          #pragma omp simd
          for (int64_t i = 0; i < n; i++) to[i] = dy[i] * gelu_slope(z[i]);
        } else if (s->activation == RELU) {
          const uint8_t *passed = (const uint8_t *)s->z + at;
          #pragma omp simd
          for (int64_t i = 0; i < n; i++) to[i] = passed[i] ? dy[i] : 0.0f;
        } else {
          #pragma omp simd
          for (int64_t i = 0; i < n; i++) to[i] = dy[i];
        }
        unic_row_store(s->dz, s->dz_dtype, at, n, to);
        dz = to;
      }
      if (sums) {
        float *restrict sum = sums + j;
        #pragma omp simd
        for (int64_t i = 0; i < n; i++) sum[i] += dz[i];
      }
    }
  }
}

UNIC_LOOP(linear_round) {
  const struct rounding *s = context;
  for (int64_t i = begin; i < end; i += UNIC_ROW) unic_row_store(s->to, s->dtype, i, end - i < UNIC_ROW ? end - i : UNIC_ROW, s->from + i);
}

UNIC_LOOP(linear_gather) {
  const struct gather *g = context;
  float sum[UNIC_ROW];
  for (int64_t j = begin; j < end; j += UNIC_ROW) {
    int64_t n = end - j < UNIC_ROW ? end - j : UNIC_ROW;
    for (int64_t i = 0; i < n; i++) sum[i] = 0;
    for (int64_t c = 0; c < g->chunks; c++) {
      const float *from = g->sums + c * g->columns + j;
      #pragma omp simd
      for (int64_t i = 0; i < n; i++) sum[i] += from[i];
    }
    unic_row_put(g->dbias, UNIC_F32, j, n, sum, g->accumulate);
  }
}

#else

UNIC_LOOP_TABLE(linear_finish);
UNIC_LOOP_TABLE(linear_start);
UNIC_LOOP_TABLE(linear_gather);
UNIC_LOOP_TABLE(linear_round);

static unic_status linear_shape(unic_call *c) {
  const unic_tensor *x = c->in[X], *weight = c->in[WEIGHT];
  unic_dtype own = (unic_dtype)weight->dtype;
  if (own != c->type && !(own == UNIC_F32 && unic_dtype_is_half(c->type)))
    return unic_fail_arg(c, WEIGHT, "it is %s and the tensor before it is %s; t:cast(\"%s\") converts it", unic_dtype_name(own), unic_dtype_name(c->type), unic_dtype_name(c->type));
  int64_t shape[UNIC_MAX_RANK], none = 0;
  for (int d = 0; d < x->ndim; d++) shape[d] = x->shape[d];
  shape[x->ndim - 1] = weight->shape[0];
  unic_out(c, Y, c->type, x->ndim, shape);
  switch (c->arg[ACTIVATION].integer) {
    case GELU: unic_out(c, Z, c->type, x->ndim, shape); break;
    case RELU: unic_out(c, Z, UNIC_U8, x->ndim, shape); break;
    default: unic_out(c, Z, c->type, 1, &none);
  }
  return UNIC_OK;
}

/* ---------------------------------------------------------------- plan */

typedef struct linear_plan {
  int64_t m, i, o;
  int64_t chunk, chunks;            /* rows per row of bias sums */
  int64_t rows;                     /* rows of dz made at a time */
  uint8_t dz_dtype;
  bool made;                        /* dz is not dy itself */
  unic_product y, dx, dweight;
  unic_pairs own;                   /* m > 0: y, or dx, by pairs.h */
  unic_conv_weights own_dweight;    /* images > 0: dweight by conv_weights.h */
  int64_t sums_at, product_at;      /* floats into scratch; dz is at 0 */
  bool copied, kept;                /* the products read a rounded or packed copy of the weight, which is derived */
  int64_t weight_at;                /* bytes into scratch: that copy */
} linear_plan;

static void linear_plan_free(void *data) {
  linear_plan *l = data;
  unic_product_free(&l->y);
  unic_product_free(&l->dx);
  unic_product_free(&l->dweight);
  unic_delete(l);
}

static void sizes(const unic_kernel *k, int64_t *m, int64_t *i, int64_t *o) {
  const unic_view *x = &k->in[X];
  *i = x->shape[x->ndim - 1];
  *o = k->in[WEIGHT].shape[0];
  *m = 1;
  for (int d = 0; d < x->ndim - 1; d++) *m *= x->shape[d];
}

static int64_t weight_bytes(const unic_kernel *k, const linear_plan *l) {
  if (l->own.m) return l->kept ? unic_pairs_bytes(&l->own) : unic_pairs_scratch(&l->own);
  return k->in[WEIGHT].numel * 2;
}

static void copy_weight(const unic_kernel *k, const linear_plan *l, void *to) {
  const unic_view *w = &k->in[WEIGHT];
  struct rounding rounding = {.from = w->data, .to = to, .dtype = k->type};
  if (l->own.m) unic_pairs_pack(&l->own, w->data, w->dtype, to);
  else UNIC_RUN(linear_round, w->numel, 16 * UNIC_ROW, &rounding);
}

static unic_status make_weight(const unic_kernel *k, int i, void *to) {
  (void)i;
  copy_weight(k, k->plan, to);
  return UNIC_OK;
}

/* The weight as oneDNN's products read it, or as it is kept. */
static const void *weight_in(const unic_kernel *k) {
  const linear_plan *l = k->plan;
  if (!l->copied || (l->own.m && !l->kept)) return k->in[WEIGHT].data;
  if (l->kept) return k->derived[0];
  void *to = (char *)k->scratch + l->weight_at;
  copy_weight(k, l, to);
  return to;
}

/* The own product, y or dx, of rows of a. */
static void own_product(const unic_kernel *k, const void *a, const void *weight, const float *bias, void *c, bool accumulate) {
  const linear_plan *l = k->plan;
  if (l->kept) unic_pairs_run(&l->own, a, weight, bias, c, accumulate);
  else unic_pairs_multiply(&l->own, a, weight, k->in[WEIGHT].dtype, bias, c, accumulate, (char *)k->scratch + l->weight_at);
}

/* dweight [O, I] is the weight gradient of a 1x1 convolution whose pixels are the rows. With few columns most of its tiles would be used too seldom. */
static bool owns_dweight(linear_plan *l) {
  l->own_dweight = (unic_conv_weights){.images = 1, .in = l->i, .out = l->o, .size = {1, l->m}, .pixels = {1, l->m}, .kernel = {1, 1}, .stride = {1, 1}, .dilation = {1, 1}};
  bool owns = l->m > 0 && l->i >= 64 && l->o >= 64 && unic_conv_weights_plan(&l->own_dweight);
  if (!owns) l->own_dweight.images = 0;
  return owns;
}

static unic_status linear_plan_make(const unic_kernel *k, unic_plan *p) {
  if (k->type == UNIC_F64) return UNIC_OK;
  linear_plan *l = unic_new(sizeof *l);
  if (!l) return unic_fail_memory("[linear] no memory for its plan");
  p->data = l;
  p->free = linear_plan_free;
  sizes(k, &l->m, &l->i, &l->o);
  uint8_t type = (uint8_t)k->type;
  bool low = type != UNIC_F32, wide = low && k->in[WEIGHT].dtype == UNIC_F32;
  if (!k->backward) {
    l->y = (unic_product){.m = l->m, .n = l->o, .k = l->i, .a_row = l->i, .a_col = 1, .b_row = 1, .b_col = l->i, .c_row = l->o, .c_col = 1,
                          .a_dtype = type, .b_dtype = type, .c_dtype = type, .tiled = low};
    bool native = false;
    if (type == UNIC_BF16 && unic_pairs_takes(l->i)) l->own = (unic_pairs){.m = l->m, .n = l->o, .k = l->i, .k_step = 1, .n_step = l->i};
    else UNIC_TRY(unic_product_native("linear", &l->y, k->in[BIAS].present, 0, &native));
    if (!native && !l->own.m) unic_product_plan(&l->y);
    p->scratch = l->y.scratch * 4;
    l->copied = wide || l->own.m;
    if (!l->copied) return UNIC_OK;
    /* The copy takes the time of about 20 rows of the product. */
    l->kept = !k->grad && l->m < 512;
    int64_t bytes = weight_bytes(k, l);
    if (l->kept) {
      p->derives = 1;
      p->derive[0].arg = WEIGHT;
      p->derive[0].tag = l->own.m ? unic_pairs_tag(&l->own) : 0x6c696e656172u ^ (uint64_t)type << 56;
      p->derive[0].bytes = bytes;
      p->derive[0].make = make_weight;
    } else {
      l->weight_at = p->scratch;
      p->scratch += bytes;
    }
    return UNIC_OK;
  }
  /* At most 64 rows of sums, of at least 32 rows each: the sums stay small beside what they sum. */
  l->chunk = (l->m + 63) / 64 > 32 ? (l->m + 63) / 64 : 32;
  l->chunks = (l->m + l->chunk - 1) / l->chunk;
  l->rows = l->m;
  bool made = low || k->arg[ACTIVATION].integer != NONE;   /* dz is not dy itself */
  if (made) {   /* 64 MB of dz at a time */
    int64_t rows = (1 << 24) / (l->o > 0 ? l->o : 1) / l->chunk * l->chunk;
    if (rows < l->chunk) rows = l->chunk;
    if (rows < l->rows) l->rows = rows;
  }
  l->dx = (unic_product){.m = l->rows, .n = l->i, .k = l->o, .a_row = l->o, .a_col = 1, .b_row = l->i, .b_col = 1, .c_row = l->i, .c_col = 1,
                         .a_dtype = UNIC_F32, .b_dtype = type, .c_dtype = type};
  l->dweight = (unic_product){.m = l->o, .n = l->i, .k = l->rows, .a_row = 1, .a_col = l->o, .b_row = l->i, .b_col = 1, .c_row = l->i, .c_col = 1,
                              .a_dtype = UNIC_F32, .b_dtype = type, .c_dtype = UNIC_F32};
  l->dz_dtype = UNIC_F32;
  bool native = low && (k->din[X].present || k->din[WEIGHT].present);
  if (native) {   /* dz in the half type, all of it at once; both products or none */
    unic_product dx = l->dx, dweight = l->dweight;
    dx.a_dtype = dweight.a_dtype = type;
    dx.m = dweight.k = l->m;
    bool own = type == UNIC_BF16 && unic_pairs_takes(l->o);
    if (k->din[X].present && !own) UNIC_TRY(unic_product_native("linear", &dx, false, k->accumulate[X], &native));
    if (native && k->din[WEIGHT].present && !(type == UNIC_BF16 && owns_dweight(l))) {
      unic_status status = unic_product_native("linear", &dweight, false, k->accumulate[WEIGHT], &native);
      if (!native) unic_product_free(&dx);
      UNIC_TRY(status);
    }
    if (native) {
      if (own && k->din[X].present) l->own = (unic_pairs){.m = l->m, .n = l->i, .k = l->o, .k_step = l->i, .n_step = 1};
      l->dx = dx;
      l->dweight = dweight;
      l->dz_dtype = type;
      l->rows = l->m;
      made = k->arg[ACTIVATION].integer != NONE;
    } else {
      l->own_dweight.images = 0;
    }
  }
  if (!native) {
    unic_product_plan(&l->dx);
    unic_product_plan(&l->dweight);
  }
  l->made = made;
  l->sums_at = made ? (l->rows * l->o * (l->dz_dtype == UNIC_F32 ? 4 : 2) + 63) / 64 * 16 : 0;
  l->product_at = l->sums_at + (k->din[BIAS].present ? (l->chunks * l->o + 15) / 16 * 16 : 0);
  int64_t product = 0;
  if (k->din[X].present && l->dx.scratch > product) product = l->dx.scratch;
  if (k->din[WEIGHT].present && l->dweight.scratch > product) product = l->dweight.scratch;
  if (l->own_dweight.images && l->own_dweight.scratch / 4 > product) product = (l->own_dweight.scratch + 63) / 64 * 16;
  l->weight_at = (l->product_at + product) * 4;
  l->copied = k->din[X].present && (wide || l->own.m);
  p->scratch = l->weight_at + (l->copied ? weight_bytes(k, l) : 0);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- forward */

static unic_status refused(const linear_plan *l) {
  return unic_fail("[linear] oneDNN could not compute a product of [%lld, %lld] by [%lld, %lld]", (long long)l->m, (long long)l->i, (long long)l->i, (long long)l->o);
}

/* Rows per piece of a pass over rows of that many columns: about 16k elements. */
static int64_t rows_at_once(int64_t columns) { return columns >= 1 << 14 ? 1 : (1 << 14) / (columns > 0 ? columns : 1); }

static void store_tile(void *context, const float *tile, int64_t i, int64_t m, int64_t j, int64_t n) {
  struct finish f = *(const struct finish *)context;
  int64_t at = i * f.ld + j;
  f.from = tile;
  f.from_dtype = UNIC_F32;
  f.from_ld = f.columns = n;
  if (f.bias) f.bias += j;
  f.y = unic_at(f.y, f.dtype, at);
  if (f.z) f.z = f.activation == RELU ? (void *)((uint8_t *)f.z + at) : unic_at(f.z, f.dtype, at);
  UNIC_RUN(linear_finish, m, rows_at_once(n), &f);
}

static unic_status linear_forward(const unic_kernel *k) {
  const linear_plan *l = k->plan;
  int activation = (int)k->arg[ACTIVATION].integer;
  struct finish f = {.bias = k->in[BIAS].data, .y = k->out[Y].data, .z = k->grad && activation != NONE ? k->out[Z].data : NULL,
                     .ld = l->o, .columns = l->o, .dtype = k->type, .activation = activation};
  const void *weight = weight_in(k);
  if (k->type != UNIC_F32 && !l->y.native && !l->own.m)
    return unic_product_run(&l->y, k->in[X].data, weight, NULL, 0, k->scratch, store_tile, &f) ? UNIC_OK : refused(l);
  void *to = activation == GELU && f.z ? f.z : f.y;
  if (l->own.m) own_product(k, k->in[X].data, weight, k->in[BIAS].data, to, false);
  else if (!unic_product_run(&l->y, k->in[X].data, weight, to, 0, k->scratch, NULL, l->y.native ? k->in[BIAS].data : NULL)) return refused(l);
  if (l->y.native || l->own.m) f.bias = NULL;
  if (!f.bias && activation == NONE) return UNIC_OK;
  f.from = to;
  f.from_dtype = k->type;
  f.from_ld = l->o;
  UNIC_RUN(linear_finish, l->m, rows_at_once(l->o), &f);
  return UNIC_OK;
}

/* y again from the z that a GELU keeps, or, where z or nothing was kept, everything again. */
static unic_status linear_remake(const unic_kernel *k) {
  if (k->arg[ACTIVATION].integer != GELU || !k->out[Z].data || k->remake & 1 << Z) return linear_forward(k);
  int64_t m, i, o;
  sizes(k, &m, &i, &o);
  struct finish f = {.from = k->out[Z].data, .from_dtype = k->type, .from_ld = o, .y = k->out[Y].data, .ld = o, .columns = o, .dtype = k->type, .activation = GELU};
  UNIC_RUN(linear_finish, m, rows_at_once(o), &f);
  return UNIC_OK;
}

static unic_remake_price linear_remakes(const unic_call *c, int j) {
  int64_t activation = c->arg[ACTIVATION].integer;
  if (j == Y) return activation == GELU ? UNIC_REMAKE_OWN : UNIC_REMAKE_COSTLY;
  return activation == NONE ? UNIC_REMAKE_NEVER : UNIC_REMAKE_COSTLY;
}

/* ---------------------------------------------------------------- backward */

static unic_status linear_backward(const unic_kernel *k) {
  const linear_plan *l = k->plan;
  int activation = (int)k->arg[ACTIVATION].integer;
  bool wants_x = k->din[X].present, wants_weight = k->din[WEIGHT].present, wants_bias = k->din[BIAS].present;
  float *scratch = k->scratch, *sums = wants_bias ? scratch + l->sums_at : NULL;
  unic_product dx = l->dx, dweight = l->dweight;
  const void *weight = wants_x ? weight_in(k) : NULL;
  if (l->m == 0 && wants_weight && !unic_product_run(&dweight, NULL, NULL, k->din[WEIGHT].data, k->accumulate[WEIGHT], scratch, NULL, NULL)) return refused(l);
  for (int64_t m = 0; m < l->m; m += l->rows) {
    int64_t rows = l->m - m < l->rows ? l->m - m : l->rows;
    const void *dz = k->dout[Y].data;
    if (l->made || wants_bias) {
      struct start s = {.dy = unic_at(k->dout[Y].data, k->type, m * l->o), .dz = l->made ? scratch : NULL, .sums = sums ? sums + m / l->chunk * l->o : NULL,
                        .columns = l->o, .chunk = l->chunk, .dtype = k->type, .dz_dtype = l->dz_dtype, .activation = activation};
      if (activation == GELU) s.z = unic_at(k->out[Z].data, k->type, m * l->o);
      if (activation == RELU) s.z = (const uint8_t *)k->out[Z].data + m * l->o;
      UNIC_RUN(linear_start, rows, l->chunk, &s);
    }
    if (l->made) dz = scratch;
    dx.m = rows;
    dweight.k = rows;
    if (l->own.m) own_product(k, dz, weight, NULL, k->din[X].data, k->accumulate[X]);
    else if (wants_x && !unic_product_run(&dx, dz, weight, unic_at(k->din[X].data, k->type, m * l->i), k->accumulate[X], scratch + l->product_at, NULL, NULL))
      return refused(l);
    if (l->own_dweight.images) unic_conv_weights_run(&l->own_dweight, k->in[X].data, dz, k->din[WEIGHT].data, k->accumulate[WEIGHT], scratch + l->product_at);
    else if (wants_weight && !unic_product_run(&dweight, dz, unic_at(k->in[X].data, k->type, m * l->i), k->din[WEIGHT].data, m > 0 || k->accumulate[WEIGHT],
                                          scratch + l->product_at, NULL, NULL))
      return refused(l);
  }
  if (wants_bias) {
    struct gather g = {.sums = sums, .dbias = k->din[BIAS].data, .columns = l->o, .chunks = l->chunks, .accumulate = k->accumulate[BIAS]};
    UNIC_RUN(linear_gather, l->o, UNIC_ROW, &g);
  }
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

static double gelu_plain(double z) { return 0.5 * z * (1 + erf(z / sqrt(2))); }

static unic_status linear_reference(const unic_kernel *k) {
  int64_t m, i, o;
  sizes(k, &m, &i, &o);
  const double *x = k->in[X].data, *weight = k->in[WEIGHT].data, *bias = k->in[BIAS].data;
  double *y = k->out[Y].data;
  for (int64_t r = 0; r < m; r++)
    for (int64_t c = 0; c < o; c++) {
      double z = bias ? bias[c] : 0;
      for (int64_t e = 0; e < i; e++) z += x[r * i + e] * weight[c * i + e];
      if (k->arg[ACTIVATION].integer == GELU) {
        if (k->grad) ((double *)k->out[Z].data)[r * o + c] = z;
        z = gelu_plain(z);
      } else if (k->arg[ACTIVATION].integer == RELU) {
        if (k->grad) ((uint8_t *)k->out[Z].data)[r * o + c] = !(z <= 0);
        if (z < 0) z = 0;
      }
      y[r * o + c] = z;
    }
  return UNIC_OK;
}

static unic_status linear_reference_remake(const unic_kernel *k) {
  if (k->arg[ACTIVATION].integer != GELU || !k->out[Z].data || k->remake & 1 << Z) return linear_reference(k);
  const double *z = k->out[Z].data;
  for (int64_t e = 0; e < k->out[Y].numel; e++) ((double *)k->out[Y].data)[e] = gelu_plain(z[e]);
  return UNIC_OK;
}

static unic_status linear_reference_backward(const unic_kernel *k) {
  int64_t m, i, o;
  sizes(k, &m, &i, &o);
  const double *x = k->in[X].data, *weight = k->in[WEIGHT].data, *dy = k->dout[Y].data;
  double *dx = k->din[X].data, *dweight = k->din[WEIGHT].data, *dbias = k->din[BIAS].data;
  if (dx && !k->accumulate[X]) for (int64_t e = 0; e < m * i; e++) dx[e] = 0;
  if (dweight && !k->accumulate[WEIGHT]) for (int64_t e = 0; e < o * i; e++) dweight[e] = 0;
  if (dbias && !k->accumulate[BIAS]) for (int64_t e = 0; e < o; e++) dbias[e] = 0;
  for (int64_t r = 0; r < m; r++)
    for (int64_t c = 0; c < o; c++) {
      double dz = dy[r * o + c];
      if (k->arg[ACTIVATION].integer == GELU) {
        double z = ((const double *)k->out[Z].data)[r * o + c];
        dz *= 0.5 * (1 + erf(z / sqrt(2))) + z * exp(-0.5 * z * z) / sqrt(2 * M_PI);
      } else if (k->arg[ACTIVATION].integer == RELU && !((const uint8_t *)k->out[Z].data)[r * o + c]) {
        dz = 0;
      }
      for (int64_t e = 0; e < i; e++) {
        if (dx) dx[r * i + e] += dz * weight[c * i + e];
        if (dweight) dweight[c * i + e] += dz * x[r * i + e];
      }
      if (dbias) dbias[c] += dz;
    }
  return UNIC_OK;
}

static double linear_flops(const unic_kernel *k) { return 2.0 * (double)k->out[Y].numel * (double)k->in[WEIGHT].shape[1] * unic_products(k, X, WEIGHT); }

static const unic_op op_linear = {
  .name = "linear",
  .signature = "x: tensor[...,I], weight: tensor<float>[O,I], bias: tensor<wide>?[O], activation: choice(none|gelu|relu) = none -> y, (z)",
  .doc = "y = activation(x weight' + bias) over the last dimension of x.\n"
         "x           [..., I]\n"
         "weight      [O, I], of the dtype of x; f32 also beside x in a half type\n"
         "bias        [O], or nil\n"
         "activation  none, gelu (exact, by erf) or relu, in the same pass as the bias",
  .saves = "x weight z",
  .grads = "x weight:wide bias:wide",
  .shape = linear_shape,
  .remakes = linear_remakes,
  .again = "bias",
  .cpu = {linear_forward, linear_backward, linear_reference, linear_reference_backward, linear_remake, linear_reference_remake, .plan = linear_plan_make},
  .flags = UNIC_OP_METHOD | UNIC_OP_SAME_THREADS,
  .autocast = UNIC_CAST_LOW,
  .flops = linear_flops,
};

UNIC_OPS(linear, &op_linear);

#endif
