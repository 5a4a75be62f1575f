/* Element-wise functions of two operands, with NumPy broadcasting: y = f(a, b). The rows stand in maths.h.
 *
 * Either operand may be a number. Operands of one dense layout run as one flat row; anything else goes through gathered rows. The gradient of a
 * broadcast operand is summed over the repeated positions in fixed chunks (any_threads). Saved: a and b where the gradient needs them.
 * f32, bf16, f16 in f32; f64 in f64; add, sub, mul, maximum, minimum on integers in 64 bits. */
#include "maths.h"
#include "move.h"
#include "walk.h"

enum { A, B, ALPHA };

struct binary {
  unic_walk walk;              /* forward: y, a, b; backward: dx, dy, a, b (reduced dimensions first when dx is broadcast) */
  void *to;
  const void *a, *b, *dy;
  double number;               /* stands for the operand that is no tensor */
  double alpha;                /* add_, sub_: b times this; 1 */
  int dtype, accumulate;
  /* of a broadcast gradient: its elements, how often each is repeated; repeats per piece, pieces; kept elements per task, blocks of them */
  int64_t kept, repeats, rows, pieces, block, blocks;
  double *partial;             /* [pieces, kept] */
};

/* One operand as a row of floats: a number, nothing saved, or gathered. */
static inline const float *operand_row(const struct binary *s, int o, int64_t at, int64_t n, const void *base, float *buffer, uint16_t *raw, bool is_number) {
  if (is_number || !base) {
    float v = is_number ? (float)s->number : 0;
    for (int64_t i = 0; i < n; i++) buffer[i] = v;
    return buffer;
  }
  return unic_walk_load(&s->walk, o, at, n, base, s->dtype, buffer, raw);
}

#if UNIC_LOOPS

#define F(name) m_##name##_f32
#define R(c) ((float)(c))

/* Rows of the gradient's terms: read a, b, dy at `at`, and let BODY see them as floats. */
#define GRADIENT_ROW(expression) \
  const float *dys = unic_walk_load(&s->walk, 1, at, n, s->dy, s->dtype, bd, raw); \
  const float *as = operand_row(s, 2, at, n, s->a, ba, raw, false); \
  const float *bs = operand_row(s, 3, at, n, s->b, bb, raw, false); \
  for (int64_t i = 0; i < n; i++) { const float a = as[i], b = bs[i], dy = dys[i]; (void)a; (void)b; term[i] = (expression); }

#define GRADIENT_LOOPS(op, side, expression) \
  UNIC_LOOP(binary_##op##_##side) { \
    const struct binary *s = context; \
    float ba[UNIC_ROW], bb[UNIC_ROW], bd[UNIC_ROW], term[UNIC_ROW], bo[UNIC_ROW]; \
    uint16_t raw[UNIC_ROW]; \
    for (int64_t at = begin, n; at < end; at += n) { \
      n = unic_walk_step(&s->walk, at, end); \
      GRADIENT_ROW(expression) \
      if (s->accumulate) { \
        const float *old = unic_walk_load(&s->walk, 0, at, n, s->to, s->dtype, bo, raw); \
        for (int64_t i = 0; i < n; i++) term[i] += old[i]; \
      } \
      float *to = unic_walk_float_target(&s->walk, 0, at, n, s->to, s->dtype, bo); \
      memcpy(to, term, (size_t)n * sizeof *term); \
      unic_walk_store(&s->walk, 0, at, n, s->to, s->dtype, to, bo, raw); \
    } \
  } \
  /* Tasks (piece of the repeats, block of kept elements): the sums of each kept element over the piece. */ \
  UNIC_LOOP(binary_##op##_##side##_sum) { \
    const struct binary *s = context; \
    float ba[UNIC_ROW], bb[UNIC_ROW], bd[UNIC_ROW], term[UNIC_ROW]; \
    uint16_t raw[UNIC_ROW]; \
    for (int64_t task = begin; task < end; task++) { \
      int64_t piece = task / s->blocks, k = task % s->blocks * s->block, width = s->kept - k < s->block ? s->kept - k : s->block; \
      int64_t first = piece * s->rows, last = first + s->rows < s->repeats ? first + s->rows : s->repeats; \
      double *restrict sum = s->partial + piece * s->kept + k; \
      memset(sum, 0, (size_t)width * sizeof *sum); \
      int64_t several = width == s->kept ? UNIC_ROW / width : 1; \
      for (int64_t r = first; r < last; r += several) { \
        int64_t rows = last - r < several ? last - r : several, at = r * s->kept + k, n = rows * width; \
        GRADIENT_ROW(expression) \
        if (width == 1) { \
          float all = 0; \
          _Pragma("omp simd reduction(+ : all)") \
          for (int64_t j = 0; j < n; j++) all += term[j]; \
          sum[0] += (double)all; \
        } else { \
          for (int64_t i = 0; i < rows; i++) \
            for (int64_t j = 0; j < width; j++) sum[j] += (double)term[i * width + j]; \
        } \
      } \
    } \
  }

#define BINARY(op, saves, value, da_, db_, ints, doc) \
  UNIC_LOOP(binary_##op##_forward) { \
    const struct binary *s = context; \
    float ba[UNIC_ROW], bb[UNIC_ROW], by[UNIC_ROW]; \
    uint16_t raw[UNIC_ROW]; \
    for (int64_t at = begin, n; at < end; at += n) { \
      n = unic_walk_step(&s->walk, at, end); \
      const float *as = operand_row(s, 1, at, n, s->a, ba, raw, !s->a); \
      const float *bs = operand_row(s, 2, at, n, s->b, bb, raw, !s->b); \
      if (s->alpha != 1) { \
        const float alpha = (float)s->alpha; \
        for (int64_t i = 0; i < n; i++) bb[i] = alpha * bs[i]; \
        bs = bb; \
      } \
      float *ys = unic_walk_float_target(&s->walk, 0, at, n, s->to, s->dtype, by); \
      for (int64_t i = 0; i < n; i++) { const float a = as[i], b = bs[i]; ys[i] = (value); } \
      unic_walk_store(&s->walk, 0, at, n, s->to, s->dtype, ys, by, raw); \
    } \
  } \
  GRADIENT_LOOPS(op, da, da_) \
  GRADIENT_LOOPS(op, db, db_)
UNIC_BINARY_ROWS(BINARY)

#else

/* A number beside integers must be one itself: it would be cut off silently. */
static unic_status check_whole(const unic_call *c, int i) {
  double number = c->arg[i].number;
  if (c->in[i] || unic_dtype_is_float(c->type) || number == floor(number)) return UNIC_OK;
  return unic_fail_arg(c, i, "%g was given beside %s, expected a whole number; t:cast(\"f32\") converts the tensor", number, unic_dtype_name(c->type));
}

static unic_status shape(unic_call *c) {
  const unic_tensor *a = c->in[A], *b = c->in[B];
  if (!a && !b) return unic_fail_arg(c, A, "both operands are numbers, expected at least one tensor");
  if (!a || !b) {
    UNIC_TRY(check_whole(c, a ? B : A));
    unic_out_like(c, 0, a ? a : b);
    return UNIC_OK;
  }
  int ndim = a->ndim, same = 0;
  while (a->ndim == b->ndim && same < ndim && a->shape[same] == b->shape[same]) same++;
  if (a->ndim == b->ndim && same == ndim) {
    unic_out_like(c, 0, a);
    return UNIC_OK;
  }
  int64_t dims[UNIC_MAX_RANK];
  memcpy(dims, a->shape, sizeof dims);
  if (!unic_shape_broadcast(&ndim, dims, b->ndim, b->shape)) {
    char one[160], two[160];
    return unic_fail_arg(c, B, "shapes %s and %s do not broadcast: from the right, sizes must be equal or 1", unic_shape_describe(a->ndim, a->shape, one, sizeof one),
                         unic_shape_describe(b->ndim, b->shape, two, sizeof two));
  }
  /* The result takes the layout of an operand that has its full shape. */
  const unic_tensor *lead = a->ndim == ndim && memcmp(a->shape, dims, (size_t)ndim * sizeof *dims) == 0 ? a
                          : b->ndim == ndim && memcmp(b->shape, dims, (size_t)ndim * sizeof *dims) == 0 ? b : NULL;
  if (lead) unic_out_like(c, 0, lead);
  else unic_out(c, 0, c->type, ndim, dims);
  return UNIC_OK;
}

static unic_status in_place_shape(unic_call *c) {
  const unic_tensor *a = c->in[A], *b = c->in[B];
  int ndim = a->ndim;
  int64_t dims[UNIC_MAX_RANK];
  memcpy(dims, a->shape, sizeof dims);
  UNIC_TRY(check_whole(c, B));
  if (b && (!unic_shape_broadcast(&ndim, dims, b->ndim, b->shape) || ndim != a->ndim || memcmp(dims, a->shape, (size_t)ndim * sizeof *dims) != 0)) {
    char one[160], two[160];
    return unic_fail_arg(c, B, "%s does not broadcast to a's shape %s, which stays as it is", unic_shape_describe(b->ndim, b->shape, one, sizeof one),
                         unic_shape_describe(a->ndim, a->shape, two, sizeof two));
  }
  return UNIC_OK;
}

/* add_, sub_: b comes times alpha. */
static unic_status alpha_shape(unic_call *c) {
  double alpha = c->arg[ALPHA].number;
  if (!unic_dtype_is_float(c->type) && !(alpha == floor(alpha) && fabs(alpha) < 0x1p53))
    return unic_fail_arg(c, ALPHA, "%g was given, expected a whole number beside %s", alpha, unic_dtype_name(c->type));
  return in_place_shape(c);
}

static unic_status forward(const unic_kernel *k, unic_body *loop, bool has_alpha) {
  const unic_view *y = unic_result(k);
  if (y->numel == 0) return UNIC_OK;
  struct binary s;   /* 480 bytes, most of them for broadcast gradients: what is not read is not cleared */
  s.to = y->data;
  s.a = k->in[A].data;
  s.b = k->in[B].data;
  s.dtype = k->type;
  s.alpha = 1;
  s.number = k->in[A].present ? k->arg[B].number : k->arg[A].number;
  if (has_alpha && k->op->flags & UNIC_OP_INPLACE) s.alpha = k->arg[ALPHA].number;
  const unic_view *const views[3] = {y, k->in[A].present ? &k->in[A] : y, k->in[B].present ? &k->in[B] : y};
  unic_walk_init(&s.walk, 3, views);
  unic_parallel_for(s.walk.numel, UNIC_WALK_CHUNK, loop, &s);
  return UNIC_OK;
}

/* A scalar operand that was a number takes no part in the walk but must be seen by the other's gradient: it is filled in as a constant. */
static const void *constant_operand(const unic_kernel *k, int side, double *place, unic_view *view, const unic_view *like) {
  if (k->in[side].present) { *view = k->in[side]; return k->in[side].data; }
  *view = *like;
  for (int d = 0; d < view->ndim; d++) view->stride[d] = 0;
  view->block = 0;
  switch (k->type) {
    case UNIC_F64: *place = k->arg[side].number; break;
    case UNIC_F32: { float f = (float)k->arg[side].number; memcpy(place, &f, sizeof f); break; }
    case UNIC_BF16: { uint16_t h = unic_bf16_of_float((float)k->arg[side].number); memcpy(place, &h, sizeof h); break; }
    default: { uint16_t h = unic_f16_of_float((float)k->arg[side].number); memcpy(place, &h, sizeof h); }
  }
  return place;
}

/* Does the gradient of `side` have to be summed over repeated positions? */
static bool is_broadcast(const unic_kernel *k, int side) { return k->in[side].numel != k->out[0].numel; }

enum { TASKS = 64 };

/* How the sums of a broadcast gradient are cut: about TASKS tasks, blocks of kept elements first, pieces of the repeats where those are few. */
static void cut(const unic_kernel *k, int side, struct binary *s) {
  s->kept = k->in[side].numel;
  s->repeats = s->kept ? k->out[0].numel / s->kept : 0;
  s->block = s->kept < UNIC_ROW ? (s->kept ? s->kept : 1) : UNIC_ROW;
  s->blocks = (s->kept + s->block - 1) / s->block;
  int64_t wanted = s->blocks && s->blocks < TASKS ? TASKS / s->blocks : 1, least = 2 * UNIC_WALK_CHUNK / s->block;
  s->rows = (s->repeats + wanted - 1) / wanted;
  if (s->rows < least) s->rows = least;
  s->pieces = s->repeats ? (s->repeats + s->rows - 1) / s->rows : 1;
}

static int64_t partial_bytes(const unic_kernel *k, int side) {
  if (!k->din[side].present || !is_broadcast(k, side)) return 0;
  struct binary s;
  cut(k, side, &s);
  return s.pieces * s.kept * (int64_t)sizeof(double);
}

static unic_status plan(const unic_kernel *k, unic_plan *p) {
  int64_t a = partial_bytes(k, A), b = partial_bytes(k, B);
  p->scratch = a > b ? a : b;
  return UNIC_OK;
}

/* A walk over the output with the repeated dimensions outside and x's own dimensions, in row-major order of x, inside. */
static void repeat_walk(struct binary *s, const unic_view *x, const unic_view *dy, const unic_view *a, const unic_view *b) {
  const unic_view *const views[4] = {dy, dy, a, b};
  unic_walk *w = &s->walk;
  int n = dy->ndim, at = 0;
  w->operands = 4;
  w->numel = dy->numel;
  for (int pass = 0; pass < 2; pass++) {
    bool fresh = true;   /* repeated and kept dimensions never merge: tasks count them apart */
    for (int d = 0; d < n; d++) {
      int from = d - (n - x->ndim);
      bool repeated = from < 0 || (x->shape[from] == 1 && dy->shape[d] != 1);
      if (repeated != (pass == 0) || dy->shape[d] == 1) continue;
      int64_t stride[4];
      bool joins = !fresh;
      for (int o = 0; o < 4; o++) {
        int f = d - (n - views[o]->ndim);
        stride[o] = f < 0 || views[o]->shape[f] == 1 ? 0 : views[o]->stride[f];
        if (joins) joins = w->stride[o][at - 1] == stride[o] * dy->shape[d];
      }
      if (joins) w->shape[at - 1] *= dy->shape[d];
      else w->shape[at++] = dy->shape[d];
      for (int o = 0; o < 4; o++) w->stride[o][at - 1] = stride[o];
      fresh = false;
    }
  }
  w->ndim = at;
  if (at == 0) {
    w->ndim = 1;
    w->shape[0] = 1;
    for (int o = 0; o < 4; o++) w->stride[o][0] = 0;
  }
}

static unic_status one_gradient(const unic_kernel *k, int side, unic_body *loop, unic_body *sum_loop) {
  const unic_view *dx = &k->din[side];
  if (!dx->present || dx->numel == 0) return UNIC_OK;
  double ca = 0, cb = 0;
  unic_view va, vb;
  struct binary s = {.to = dx->data, .dy = k->dout[0].data, .dtype = k->type, .accumulate = k->accumulate[side]};
  s.a = constant_operand(k, A, &ca, &va, &k->out[0]);
  s.b = constant_operand(k, B, &cb, &vb, &k->out[0]);
  if (!is_broadcast(k, side)) {
    const unic_view *const views[4] = {dx, &k->dout[0], &va, &vb};
    unic_walk_init(&s.walk, 4, views);
    unic_parallel_for(s.walk.numel, UNIC_WALK_CHUNK, loop, &s);
    return UNIC_OK;
  }
  cut(k, side, &s);
  s.partial = k->scratch;
  repeat_walk(&s, dx, &k->dout[0], &va, &vb);
  unic_parallel_for(s.pieces * s.blocks, 1, sum_loop, &s);
  for (int64_t p = 1; p < s.pieces; p++)
    for (int64_t e = 0; e < s.kept; e++) s.partial[e] += s.partial[p * s.kept + e];
  /* The sums stand in row-major order of x's shape. */
  unic_view sums = *dx;
  sums.data = s.partial;
  sums.dtype = UNIC_F64;
  unic_stride_fill(dx->ndim, dx->shape, UNIC_CONTIGUOUS, sums.stride);
  unic_move_gradient(dx, &sums, s.accumulate);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- f64 and integers, element by element */

#define F(name) m_##name##_f64
#define R(c) ((double)(c))

static inline double number_or(const struct binary *s, int o, int64_t i, const void *base) {
  int64_t index[UNIC_MAX_RANK], left;
  return base ? ((const double *)base)[unic_walk_find(&s->walk, o, i, index, &left)] : s->number;
}

/* Holds the sum and the product of any two 64-bit integers: results are modulo 2^64, and nothing overflows on the way. */
__extension__ typedef __int128 wide_integer;

static inline int64_t integer_or(const struct binary *s, int o, int64_t i, const void *base) {
  int64_t index[UNIC_MAX_RANK], left;
  if (!base) return (int64_t)s->number;
  int64_t at = unic_walk_find(&s->walk, o, i, index, &left);
  switch (s->dtype) {
    case UNIC_I64: return ((const int64_t *)base)[at];
    case UNIC_I32: return ((const int32_t *)base)[at];
    default: return ((const uint8_t *)base)[at];
  }
}

static inline void integer_put(const struct binary *s, int64_t i, int64_t v) {
  int64_t index[UNIC_MAX_RANK], left, at = unic_walk_find(&s->walk, 0, i, index, &left);
  switch (s->dtype) {
    case UNIC_I64: ((int64_t *)s->to)[at] = v; break;
    case UNIC_I32: ((int32_t *)s->to)[at] = (int32_t)v; break;
    case UNIC_BOOL: ((uint8_t *)s->to)[at] = v != 0; break;
    default: ((uint8_t *)s->to)[at] = (uint8_t)v;
  }
}

static unic_status no_integers(const unic_kernel *k) {
  return unic_fail("[%s] argument 'a': %s was given, expected a floating type; t:cast(\"f32\") converts it", k->op->name, unic_dtype_name(k->type));
}

#define GRADIENT_F64(op, side, expression) \
  static void op##_##side##_f64(void *context, int64_t begin, int64_t end) { \
    const struct binary *s = context; \
    int64_t index[UNIC_MAX_RANK], left; \
    for (int64_t i = begin; i < end; i++) { \
      const double a = number_or(s, 2, i, s->a), b = number_or(s, 3, i, s->b), dy = number_or(s, 1, i, s->dy); \
      double *to = (double *)s->to + unic_walk_find(&s->walk, 0, i, index, &left); \
      (void)a; (void)b; \
      *to = (s->accumulate ? *to : 0) + (expression); \
    } \
  } \
  static void op##_##side##_sum_f64(void *context, int64_t begin, int64_t end) { \
    const struct binary *s = context; \
    for (int64_t task = begin; task < end; task++) { \
      int64_t piece = task / s->blocks, k = task % s->blocks * s->block, width = s->kept - k < s->block ? s->kept - k : s->block; \
      int64_t first = piece * s->rows, last = first + s->rows < s->repeats ? first + s->rows : s->repeats; \
      for (int64_t j = 0; j < width; j++) { \
        double sum = 0; \
        for (int64_t r = first; r < last; r++) { \
          int64_t i = r * s->kept + k + j; \
          const double a = number_or(s, 2, i, s->a), b = number_or(s, 3, i, s->b), dy = number_or(s, 1, i, s->dy); \
          (void)a; (void)b; \
          sum += (expression); \
        } \
        s->partial[piece * s->kept + k + j] = sum; \
      } \
    } \
  }

/* What add_ and sub_ take besides. */
#define ALPHA_ARGUMENT ", alpha: number = 1"
#define ALPHA_DOC "\n  alpha  b is multiplied by it first"
#define HAS_ALPHA_add 1
#define MORE_add ALPHA_ARGUMENT
#define MORE_DOC_add ALPHA_DOC
#define HAS_ALPHA_sub 1
#define MORE_sub ALPHA_ARGUMENT
#define MORE_DOC_sub ALPHA_DOC
#define HAS_ALPHA_mul 0
#define MORE_mul ""
#define MORE_DOC_mul ""
#define HAS_ALPHA_div 0
#define MORE_div ""
#define MORE_DOC_div ""
#define HAS_ALPHA_pow 0
#define MORE_pow ""
#define MORE_DOC_pow ""
#define HAS_ALPHA_remainder 0
#define MORE_remainder ""
#define MORE_DOC_remainder ""
#define HAS_ALPHA_maximum 0
#define MORE_maximum ""
#define MORE_DOC_maximum ""
#define HAS_ALPHA_minimum 0
#define MORE_minimum ""
#define MORE_DOC_minimum ""

#define BINARY(op, saves_, value, da_, db_, ints, doc_) \
  UNIC_LOOP_TABLE(binary_##op##_forward); \
  UNIC_LOOP_TABLE(binary_##op##_da); \
  UNIC_LOOP_TABLE(binary_##op##_da_sum); \
  UNIC_LOOP_TABLE(binary_##op##_db); \
  UNIC_LOOP_TABLE(binary_##op##_db_sum); \
  static void op##_f64(void *context, int64_t begin, int64_t end) { \
    const struct binary *s = context; \
    int64_t index[UNIC_MAX_RANK], left; \
    for (int64_t i = begin; i < end; i++) { \
      const double a = number_or(s, 1, i, s->a), b = s->alpha * number_or(s, 2, i, s->b); \
      ((double *)s->to)[unic_walk_find(&s->walk, 0, i, index, &left)] = (value); \
    } \
  } \
  static void op##_integers(void *context, int64_t begin, int64_t end) { \
    const struct binary *s = context; \
    for (int64_t i = begin; i < end; i++) { \
      const wide_integer a = integer_or(s, 1, i, s->a), b = (wide_integer)s->alpha * integer_or(s, 2, i, s->b); \
      integer_put(s, i, (int64_t)(b == 0 && !(ints) ? 0 : (value))); \
    } \
  } \
  GRADIENT_F64(op, da, da_) \
  GRADIENT_F64(op, db, db_) \
  static unic_status op##_forward(const unic_kernel *k) { \
    if (!unic_dtype_is_float(k->type)) return (ints) ? forward(k, op##_integers, HAS_ALPHA_##op) : no_integers(k); \
    return forward(k, binary_##op##_forward[unic_isa_current()], HAS_ALPHA_##op); \
  } \
  static unic_status op##_reference(const unic_kernel *k) { return forward(k, op##_f64, HAS_ALPHA_##op); } \
  static unic_status op##_backward(const unic_kernel *k) { \
    UNIC_TRY(one_gradient(k, A, binary_##op##_da[unic_isa_current()], binary_##op##_da_sum[unic_isa_current()])); \
    return one_gradient(k, B, binary_##op##_db[unic_isa_current()], binary_##op##_db_sum[unic_isa_current()]); \
  } \
  static unic_status op##_reference_backward(const unic_kernel *k) { \
    UNIC_TRY(one_gradient(k, A, op##_da_f64, op##_da_sum_f64)); \
    return one_gradient(k, B, op##_db_f64, op##_db_sum_f64); \
  } \
  static const unic_op op_##op = { \
    .name = #op, .signature = "a: operand, b: operand -> y", \
    .doc = "Element by element, with broadcasting: " doc_ ".\n  a, b  tensors of one dtype, or a tensor and a number", \
    .saves = saves_, .grads = "a b", .layouts = "a:dense b:dense", .shape = shape, \
    .cpu = {op##_forward, op##_backward, op##_reference, op##_reference_backward, .plan = plan}, .flags = UNIC_OP_METHOD | UNIC_OP_PLAN_BACKWARD | ((ints) ? UNIC_OP_INTS : 0)}; \
  static const unic_op op_##op##_ = { \
    .name = #op "_", .signature = "a!: tensor, b: operand" MORE_##op, \
    .doc = "a becomes, element by element and in place: " doc_ ".\n  b  a tensor of a's dtype that broadcasts to a's shape, or a number" MORE_DOC_##op, \
    .layouts = "a:any b:any", .shape = HAS_ALPHA_##op ? alpha_shape : in_place_shape, .cpu = {.forward = op##_forward, .reference = op##_reference}, \
    .flags = UNIC_OP_METHOD | UNIC_OP_INPLACE | UNIC_OP_NO_GRAD | ((ints) ? UNIC_OP_INTS : 0)};
UNIC_BINARY_ROWS(BINARY)
#undef BINARY

#define BINARY(op, saves, value, da, db, ints, doc) &op_##op, &op_##op##_,
UNIC_OPS(binary, UNIC_BINARY_ROWS(BINARY) 0);

#endif
