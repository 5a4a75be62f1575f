/* Reductions over any set of dimensions: sum mean prod max min any all var std norm (L1, L2, max) logsumexp.
 *
 *   y[kept] = f(x[kept, reduced]);  dims = {} reduces all; keepdim leaves size 1 where a dimension was reduced.
 *
 * Fast forms (f32, bf16, f16) make one f64 total per kept element in scratch, then convert. var, std and logsumexp go over x twice (mean or maximum
 * first). Where reduced elements lie side by side they are summed by rows, otherwise rows of kept elements are added up; long reductions to few
 * elements are cut into at most PIECES fixed pieces whose totals are joined in order: any number of threads gives the same bits.
 * Backward is one element-wise pass over x with y and dy broadcast along the reduced dimensions.
 * Saved: x and y where the gradient reads them. Ties of max, min and the max norm share the gradient; NaN wins. f64 and integers take the plain forms.
 * One long file, because eleven reductions share every loop of it: fast forms first, the plain ones that they are compared with at the end. */
#include "move.h"
#include "rows.h"
#include "walk.h"

enum { X, DIMS, KEEPDIM, UNBIASED, P = UNBIASED };
enum { SUM, MEAN, PROD, MAX, MIN, ANY, ALL, VAR, NORM, LOGSUMEXP, STD, OPS, NORM_ONE = OPS, NORM_MOST, KINDS };
enum { PIECES = 64 };

/* What one pass over x adds up. */
enum { TOTAL_SUM, TOTAL_SQUARES /* (x - shift)^2 */, TOTAL_EXP /* exp(x - shift) */, TOTAL_MAX, TOTAL_MIN, TOTAL_PROD, TOTAL_EQUAL /* x == shift, or both NaN */,
       TOTAL_ABS, TOTAL_MOST /* the largest |x| */, TOTAL_EQUAL_ABS };

struct totals {
  unic_walk walk;              /* of x: kept dimensions outside for rows, inside for columns */
  int what, dtype;
  const void *x;
  int64_t kept, reduced;
  int64_t pieces, piece;       /* how the reduced elements are cut: number of pieces, elements in each */
  const double *shift;         /* [kept] or NULL (0) */
  double *to;                  /* rows: [kept, pieces]; columns: [pieces, kept] */
  int64_t block;               /* columns: kept elements per task */
};

struct gradient {
  unic_walk walk;              /* dx, x, p, q: p and q broadcast along the reduced dimensions */
  int kind, dtype, accumulate;
  void *dx;
  const void *x;               /* NULL: not needed */
  const float *p, *q;          /* p: dy with its factor; q: y, or the mean for var and std */
};

#if UNIC_LOOPS

typedef int32_t mask8 __attribute__((vector_size(32)));

/* The largest (sign 1) or smallest (sign -1) of a row; NaN when there is one. */
static double row_extreme(const float *x, int64_t n, double have, bool most) {
  int64_t i = 0;
  double best = have;
  if (n >= 16) {
    unic_f8 m = UNIC_F8_LOAD(x);
    mask8 nan = m != m;
    for (i = 8; i + 8 <= n; i += 8) {
      unic_f8 v = UNIC_F8_LOAD(x + i);
      mask8 take = most ? v > m : v < m;
      nan |= v != v;
      m = (unic_f8)((take & (mask8)v) | (~take & (mask8)m));
    }
    for (int l = 0; l < 8; l++) {
      if (nan[l]) return (double)NAN;
      best = (most ? (double)m[l] > best : (double)m[l] < best) ? (double)m[l] : best;
    }
  }
  for (; i < n; i++) {
    double v = (double)x[i];
    best = v != v || (most ? v > best : v < best) ? v : best;
  }
  return have != have ? have : best;
}

/* `have` joined with the n elements of a row. */
static double row_total(int what, const float *x, int64_t n, double shift, double have) {
  switch (what) {
    case TOTAL_SUM: {
      float sum = 0;
      #define ITSELF(L) (L(x))
      UNIC_ROW_SUM(sum, n, ITSELF);
      return have + (double)sum;
    }
    case TOTAL_SQUARES: {
      /* In f64: squares of large values do not overflow, and a shift close to x costs no digits. */
      double s[4] = {0};
      int64_t i = 0;
      for (; i + 4 <= n; i += 4)
        for (int l = 0; l < 4; l++) { double d = (double)x[i + l] - shift; s[l] += d * d; }
      for (; i < n; i++) { double d = (double)x[i] - shift; s[0] += d * d; }
      return have + ((s[0] + s[2]) + (s[1] + s[3]));
    }
    case TOTAL_EXP: {
      float sum = 0, by = (float)shift;
      #pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < n; i++) sum += unic_expf(x[i] - by);
      return have + (double)sum;
    }
    case TOTAL_ABS: {
      float sum = 0;
      #pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < n; i++) sum += fabsf(x[i]);
      return have + (double)sum;
    }
    case TOTAL_MOST: {
      double high = row_extreme(x, n, -(double)INFINITY, true), low = -row_extreme(x, n, (double)INFINITY, false);
      double most = high > low || high != high ? high : low;
      return have != have || most < have ? have : most;
    }
    case TOTAL_EQUAL_ABS:
      for (int64_t i = 0; i < n; i++) have += fabs((double)x[i]) == shift || (x[i] != x[i] && shift != shift);
      return have;
    case TOTAL_MAX: return row_extreme(x, n, have, true);
    case TOTAL_MIN: return row_extreme(x, n, have, false);
    case TOTAL_EQUAL:
      for (int64_t i = 0; i < n; i++) have += (double)x[i] == shift || (x[i] != x[i] && shift != shift);
      return have;
    default:
      for (int64_t i = 0; i < n; i++) have *= (double)x[i];
      return have;
  }
}

/* total[i] joined with x[i]. */
static void column_totals(int what, const float *restrict x, int64_t n, const double *restrict shift, double *restrict total) {
  switch (what) {
    case TOTAL_SUM: for (int64_t i = 0; i < n; i++) total[i] += (double)x[i]; break;
    case TOTAL_SQUARES:
      if (shift) for (int64_t i = 0; i < n; i++) { double d = (double)x[i] - shift[i]; total[i] += d * d; }
      else for (int64_t i = 0; i < n; i++) { double d = (double)x[i]; total[i] += d * d; }
      break;
    case TOTAL_EXP: for (int64_t i = 0; i < n; i++) total[i] += (double)unic_expf(x[i] - (float)shift[i]); break;
    case TOTAL_MAX: for (int64_t i = 0; i < n; i++) { double v = (double)x[i], t = total[i]; total[i] = v > t || v != v ? v : t; } break;
    case TOTAL_MIN: for (int64_t i = 0; i < n; i++) { double v = (double)x[i], t = total[i]; total[i] = v < t || v != v ? v : t; } break;
    case TOTAL_ABS: for (int64_t i = 0; i < n; i++) total[i] += fabs((double)x[i]); break;
    case TOTAL_MOST: for (int64_t i = 0; i < n; i++) { double v = fabs((double)x[i]), t = total[i]; total[i] = v > t || v != v ? v : t; } break;
    case TOTAL_EQUAL_ABS: for (int64_t i = 0; i < n; i++) total[i] += fabs((double)x[i]) == shift[i] || (x[i] != x[i] && shift[i] != shift[i]); break;
    case TOTAL_EQUAL: for (int64_t i = 0; i < n; i++) total[i] += (double)x[i] == shift[i] || (x[i] != x[i] && shift[i] != shift[i]); break;
    default: for (int64_t i = 0; i < n; i++) total[i] *= (double)x[i];
  }
}

static inline double neutral(int what) { return what == TOTAL_MAX ? -(double)INFINITY : what == TOTAL_MIN ? (double)INFINITY : what == TOTAL_PROD ? 1 : 0; }

/* Tasks (kept element, piece), numbered kept * pieces + piece. */
UNIC_LOOP(totals_rows) {
  const struct totals *s = context;
  float buffer[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  if (s->pieces == 1 && s->reduced <= UNIC_ROW / 4) {
    /* Short rows: several from one load. */
    int64_t several = UNIC_ROW / s->reduced;
    for (int64_t k = begin; k < end; k += several) {
      int64_t n = end - k < several ? end - k : several;
      const float *x = unic_walk_load(&s->walk, 0, k * s->reduced, n * s->reduced, s->x, s->dtype, buffer, raw);
      for (int64_t i = 0; i < n; i++) s->to[k + i] = row_total(s->what, x + i * s->reduced, s->reduced, s->shift ? s->shift[k + i] : 0, neutral(s->what));
    }
    return;
  }
  for (int64_t task = begin; task < end; task++) {
    int64_t k = task / s->pieces, first = (task % s->pieces) * s->piece, last = first + s->piece < s->reduced ? first + s->piece : s->reduced;
    double total = neutral(s->what), shift = s->shift ? s->shift[k] : 0;
    for (int64_t at = first; at < last; at += UNIC_ROW) {
      int64_t n = last - at < UNIC_ROW ? last - at : UNIC_ROW;
      total = row_total(s->what, unic_walk_load(&s->walk, 0, k * s->reduced + at, n, s->x, s->dtype, buffer, raw), n, shift, total);
    }
    s->to[task] = total;
  }
}

/* Tasks (piece, block of kept elements), numbered piece * blocks + block. */
UNIC_LOOP(totals_columns) {
  const struct totals *s = context;
  float buffer[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  int64_t blocks = (s->kept + s->block - 1) / s->block;
  for (int64_t task = begin; task < end; task++) {
    int64_t piece = task / blocks, k = (task % blocks) * s->block, width = s->kept - k < s->block ? s->kept - k : s->block;
    int64_t first = piece * s->piece, last = first + s->piece < s->reduced ? first + s->piece : s->reduced;
    double *total = s->to + piece * s->kept + k;
    const double *shift = s->shift ? s->shift + k : NULL;
    for (int64_t i = 0; i < width; i++) total[i] = neutral(s->what);
    /* Narrow rows of kept elements: several from one load (width is all of kept then). */
    int64_t several = width == s->kept ? UNIC_ROW / width : 1;
    for (int64_t r = first; r < last; r += several) {
      int64_t rows = last - r < several ? last - r : several;
      const float *x = unic_walk_load(&s->walk, 0, r * s->kept + k, rows * width, s->x, s->dtype, buffer, raw);
      for (int64_t i = 0; i < rows; i++) column_totals(s->what, x + i * width, width, shift, total);
    }
  }
}

/* A kept-shaped operand of the gradient as a row. */
static inline const float *kept_row(const struct gradient *s, int o, int64_t at, int64_t n, const float *base, float *buffer) {
  return unic_walk_row(&s->walk, o, at, n, base, UNIC_F32, buffer);
}

UNIC_LOOP(gradient_rows) {
  const struct gradient *s = context;
  float xb[UNIC_ROW], pb[UNIC_ROW], qb[UNIC_ROW], g[UNIC_ROW], old[UNIC_ROW];
  uint16_t raw[UNIC_ROW];
  for (int64_t at = begin; at < end; at += UNIC_ROW) {
    int64_t n = end - at < UNIC_ROW ? end - at : UNIC_ROW;
    const float *restrict p = kept_row(s, 2, at, n, s->p, pb);
    if (s->kind == SUM) {
      memcpy(g, p, (size_t)n * sizeof *g);
    } else {
      const float *restrict x = unic_walk_load(&s->walk, 1, at, n, s->x, s->dtype, xb, raw);
      const float *restrict q = kept_row(s, 3, at, n, s->q, qb);
      switch (s->kind) {
        case NORM: for (int64_t i = 0; i < n; i++) g[i] = q[i] == 0 ? 0 : p[i] * x[i] / q[i]; break;
        case NORM_ONE: for (int64_t i = 0; i < n; i++) g[i] = x[i] > 0 ? p[i] : x[i] < 0 ? -p[i] : p[i] * x[i]; break;
        case NORM_MOST:
          for (int64_t i = 0; i < n; i++)
            g[i] = fabsf(x[i]) == q[i] || (x[i] != x[i] && q[i] != q[i]) ? (x[i] > 0 ? p[i] : x[i] < 0 ? -p[i] : p[i] * x[i]) : 0;
          break;
        case VAR: case STD: for (int64_t i = 0; i < n; i++) g[i] = p[i] * (x[i] - q[i]); break;
        case LOGSUMEXP: for (int64_t i = 0; i < n; i++) g[i] = p[i] * unic_expf(x[i] - q[i]); break;
        default: for (int64_t i = 0; i < n; i++) g[i] = x[i] == q[i] || (x[i] != x[i] && q[i] != q[i]) ? p[i] : 0;   /* max, min */
      }
    }
    if (s->accumulate) {
      const float *restrict o = unic_walk_load(&s->walk, 0, at, n, s->dx, s->dtype, old, raw);
      for (int64_t i = 0; i < n; i++) g[i] += o[i];
    }
    if (s->dtype == UNIC_F32) {
      void *place = unic_walk_place(&s->walk, 0, at, n, s->dx, 4);
      if (place) memcpy(place, g, (size_t)n * sizeof *g);
      else unic_walk_put(&s->walk, 0, at, n, s->dx, UNIC_F32, g, g);
    } else {
      unic_walk_store(&s->walk, 0, at, n, s->dx, s->dtype, g, g, raw);
    }
  }
}

#else

UNIC_LOOP_TABLE(totals_rows);
UNIC_LOOP_TABLE(totals_columns);
UNIC_LOOP_TABLE(gradient_rows);

/* ---------------------------------------------------------------- one pass: totals of x over the dimensions in `mask` */

/* x's dimensions, kept ones in order and reduced ones in order; rows: reduced ones inside. Returns the kept and reduced elements. */
static void sort_dims(unic_walk *w, const unic_view *x, uint32_t mask, bool rows, int64_t *kept, int64_t *reduced) {
  *kept = *reduced = 1;
  w->operands = 1;
  w->ndim = 0;
  w->numel = x->numel;
  for (int pass = 0; pass < 2; pass++) {
    bool want = (pass == 1) == rows;   /* this pass takes the reduced dimensions */
    bool fresh = true;                 /* kept and reduced dimensions never merge: tasks count them apart */
    for (int d = 0; d < x->ndim; d++) {
      if ((((mask >> d) & 1) != 0) != want) continue;
      *(want ? reduced : kept) *= x->shape[d];
      if (x->shape[d] == 1) continue;
      if (!fresh && w->stride[0][w->ndim - 1] == x->stride[d] * x->shape[d]) {
        w->shape[w->ndim - 1] *= x->shape[d];
        w->stride[0][w->ndim - 1] = x->stride[d];
      } else {
        w->shape[w->ndim] = x->shape[d];
        w->stride[0][w->ndim++] = x->stride[d];
      }
      fresh = false;
    }
  }
  if (w->ndim == 0) { w->ndim = 1; w->shape[0] = 1; w->stride[0][0] = 1; }
}

/* Do reduced elements lie closer together than kept ones? */
static bool reduced_inside(const unic_view *x, uint32_t mask) {
  int best = -1;
  for (int d = 0; d < x->ndim; d++) {
    if (x->shape[d] == 1) continue;
    int64_t s = x->stride[d] < 0 ? -x->stride[d] : x->stride[d], t = best < 0 ? 0 : x->stride[best] < 0 ? -x->stride[best] : x->stride[best];
    if (best < 0 || s < t) best = d;
  }
  return best < 0 || (mask >> best & 1);
}

/* How x is cut, from its shape and strides alone. */
static void cut(struct totals *s, const unic_view *x, uint32_t mask, bool *rows) {
  *rows = reduced_inside(x, mask);
  sort_dims(&s->walk, x, mask, *rows, &s->kept, &s->reduced);
  s->block = *rows || s->kept < UNIC_ROW ? (s->kept ? s->kept : 1) : UNIC_ROW;
  /* About PIECES tasks in all: kept elements (or blocks of them) first, and pieces of the reduced ones where those are few. */
  int64_t tasks = *rows ? s->kept : (s->kept + s->block - 1) / s->block, wanted = tasks && tasks < PIECES ? PIECES / tasks : 1;
  int64_t least = *rows ? 2 * UNIC_WALK_CHUNK : 2 * UNIC_WALK_CHUNK / s->block;
  s->piece = (s->reduced + wanted - 1) / wanted;
  if (s->piece < least) s->piece = least;
  s->pieces = s->reduced ? (s->reduced + s->piece - 1) / s->piece : 1;
}

/* Doubles of scratch that `total` needs. */
static int64_t total_room(const unic_view *x, uint32_t mask) {
  struct totals s;
  bool rows;
  cut(&s, x, mask, &rows);
  return s.kept * s.pieces;
}

/* to[0 .. kept-1] = the totals, kept elements in row-major order; `to` has total_room doubles. */
static void total(int what, const unic_view *x, uint32_t mask, const double *shift, double *to) {
  struct totals s = {.what = what, .dtype = x->dtype, .x = x->data, .shift = shift, .to = to};
  bool rows;
  cut(&s, x, mask, &rows);
  if (s.kept == 0) return;
  if (rows) {
    int64_t chunk = s.pieces > 1 ? 1 : s.reduced ? UNIC_WALK_CHUNK / s.reduced : s.kept;
    if (s.reduced == 0) {
      for (int64_t k = 0; k < s.kept; k++) to[k] = what == TOTAL_PROD ? 1 : 0;
      return;
    }
    UNIC_RUN(totals_rows, s.kept * s.pieces, chunk < 1 ? 1 : chunk, &s);
  } else {
    int64_t blocks = (s.kept + s.block - 1) / s.block;
    UNIC_RUN(totals_columns, s.pieces * blocks, 1, &s);
  }
  /* Join the pieces, in order. `to` shrinks in place: element k is written after everything before it was read. */
  if (s.pieces == 1) return;
  for (int64_t k = 0; k < s.kept; k++) {
    double all = rows ? to[k * s.pieces] : to[k];
    for (int64_t p = 1; p < s.pieces; p++) {
      double v = rows ? to[k * s.pieces + p] : to[p * s.kept + k];
      if (what == TOTAL_MAX || what == TOTAL_MOST) all = v > all || v != v ? v : all;
      else if (what == TOTAL_MIN) all = v < all || v != v ? v : all;
      else if (what == TOTAL_PROD) all *= v;
      else all += v;
    }
    to[k] = all;
  }
}

/* A dense f64 array seen under a view's shape. */
static unic_view doubles_like(const unic_view *like, double *data) {
  unic_view v = *like;
  int64_t stride = 1;
  v.data = data;
  v.dtype = UNIC_F64;
  v.block = 0;
  for (int d = v.ndim - 1; d >= 0; d--) { v.stride[d] = stride; stride *= v.shape[d]; }
  return v;
}

int64_t unic_move_sum_scratch(const unic_view *from, uint32_t mask) { return from->dtype == UNIC_F64 ? 0 : total_room(from, mask) * (int64_t)sizeof(double); }

void unic_move_sum(const unic_view *to, const unic_view *from, uint32_t mask, int accumulate, void *scratch) {
  if (to->numel == 0) return;
  if (from->dtype == UNIC_F64) {
    /* The plain form: kept elements one after the other. */
    struct totals s;
    sort_dims(&s.walk, from, mask, true, &s.kept, &s.reduced);
    int64_t index[UNIC_MAX_RANK], left;
    for (int64_t k = 0; k < s.kept; k++) {
      double sum = 0;
      for (int64_t i = 0; i < s.reduced; i++) sum += ((const double *)from->data)[unic_walk_find(&s.walk, 0, k * s.reduced + i, index, &left)];
      int64_t at = 0, rest = k;
      for (int d = to->ndim - 1; d >= 0; d--) { at += rest % to->shape[d] * to->stride[d]; rest /= to->shape[d]; }
      if (accumulate) sum += unic_element_get(to->data, to->dtype, at);
      unic_element_set(to->data, to->dtype, at, sum);
    }
    return;
  }
  total(TOTAL_SUM, from, mask, NULL, scratch);
  unic_view sums = doubles_like(to, scratch);
  unic_move_gradient(to, &sums, accumulate);
}

/* ---------------------------------------------------------------- shapes */

static int kind_of(const unic_op *op, const unic_value *arg) {
  static const char *const names[OPS] = {"sum", "mean", "prod", "max", "min", "any", "all", "var", "norm", "logsumexp", "std"};
  int i = 0;
  while (i < OPS - 1 && strcmp(op->name, names[i]) != 0) i++;
  return i != NORM || arg[P].number == 2 ? i : arg[P].number == 1 ? NORM_ONE : NORM_MOST;
}

static uint32_t reduced_mask(const unic_value *dims, int ndim) {
  uint32_t mask = 0;
  for (int64_t i = 0; i < dims->integer; i++) mask |= 1u << unic_dim_of(dims->ints[i], ndim);
  return dims->integer == 0 ? (1u << ndim) - 1 : mask;
}

static unic_status shape(unic_call *c) {
  const unic_tensor *x = c->in[X];
  const unic_value *dims = &c->arg[DIMS];
  int kind = kind_of(c->op, c->arg), n = 0;
  uint32_t seen = 0;
  for (int64_t i = 0; i < dims->integer; i++) {
    int d;
    if (x->ndim == 0) return unic_fail_arg(c, DIMS, "the tensor has no dimensions to reduce");
    UNIC_TRY(unic_dim(c, DIMS, dims->ints[i], x->ndim, &d));
    if (seen & (1u << d)) return unic_fail_arg(c, DIMS, "dimension %d was given twice", d + 1);
    seen |= 1u << d;
  }
  uint32_t mask = reduced_mask(dims, x->ndim);
  int64_t out[UNIC_MAX_RANK], reduced = 1;
  for (int d = 0; d < x->ndim; d++) {
    if (mask & (1u << d)) reduced *= x->shape[d];
    if (!(mask & (1u << d))) out[n++] = x->shape[d];
    else if (c->arg[KEEPDIM].integer) out[n++] = 1;
  }
  if (kind == NORM_MOST && c->arg[P].number != (double)INFINITY) return unic_fail_arg(c, P, "%g was given, expected 1, 2 or math.huge", c->arg[P].number);
  if (reduced == 0 && (kind == MAX || kind == MIN || kind == NORM_MOST))
    return unic_fail_arg(c, X, "nothing to reduce: the reduced dimensions hold no elements, %s of nothing is undefined", c->op->name);
  if (!unic_dtype_is_float(x->dtype) && kind != SUM && kind != MAX && kind != MIN && kind != ANY && kind != ALL && kind != PROD)
    return unic_fail_arg(c, X, "%s was given, expected a floating type; t:cast(\"f32\") converts it", unic_dtype_name(x->dtype));
  unic_dtype type = x->dtype;
  if (kind == ANY || kind == ALL) type = UNIC_BOOL;
  else if ((kind == SUM || kind == PROD) && !unic_dtype_is_float(type)) type = UNIC_I64;
  unic_out(c, 0, type, n, out);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- fast forms */

static bool is_fast(int kind, const unic_view *x) { return x->dtype <= UNIC_F16 && kind != ANY && kind != ALL; }

/* Scratch: totals (and pieces), a second array of kept doubles for the shift, two arrays of kept floats for the gradient. */
static unic_status plan(const unic_kernel *k, unic_plan *p) {
  const unic_view *x = &k->in[X];
  int kind = kind_of(k->op, k->arg);
  if (!is_fast(kind, x) || (k->backward && kind == PROD)) return UNIC_OK;
  uint32_t mask = reduced_mask(&k->arg[DIMS], x->ndim);
  int64_t kept = k->out[0].numel, room = 0;
  bool passes = !k->backward || kind == VAR || kind == STD || kind == MAX || kind == MIN || kind == NORM_MOST;
  if (passes) room = total_room(x, mask) * (int64_t)sizeof(double);
  if (k->backward) room += 2 * kept * (int64_t)sizeof(float);
  if (kind == VAR || kind == STD || kind == LOGSUMEXP || k->backward) room += kept * (int64_t)sizeof(double);
  p->scratch = room;
  return UNIC_OK;
}

/* What the squares of var and std are divided by; 0 (the result is NaN) where there are too few elements. */
static double freedom(const unic_kernel *k, int64_t reduced) {
  double n = (double)reduced - (k->arg[UNBIASED].integer ? 1 : 0);
  return n > 0 ? n : 0;
}

static unic_status forward(const unic_kernel *k) {
  const unic_view *x = &k->in[X];
  int kind = kind_of(k->op, k->arg);
  uint32_t mask = reduced_mask(&k->arg[DIMS], x->ndim);
  int64_t kept = k->out[0].numel, reduced = kept ? x->numel / kept : 0;
  double *to = k->scratch, *shift = NULL, n = (double)reduced;
  if (kept == 0) return UNIC_OK;
  bool spread = kind == VAR || kind == STD;
  if (spread || kind == LOGSUMEXP) {
    shift = to;
    to += kept;
    total(spread ? TOTAL_SUM : TOTAL_MAX, x, mask, NULL, to);
    for (int64_t i = 0; i < kept; i++) shift[i] = spread ? to[i] / n : to[i];
    if (reduced == 0 && kind == LOGSUMEXP) for (int64_t i = 0; i < kept; i++) shift[i] = -(double)INFINITY;
  }
  static const int what[KINDS] = {TOTAL_SUM, TOTAL_SUM, TOTAL_PROD, TOTAL_MAX, TOTAL_MIN, 0, 0, TOTAL_SQUARES, TOTAL_SQUARES, TOTAL_EXP,
                                  TOTAL_SQUARES, TOTAL_ABS, TOTAL_MOST};
  total(what[kind], x, mask, shift, to);
  switch (kind) {
    case MEAN: for (int64_t i = 0; i < kept; i++) to[i] /= n; break;
    case VAR: for (int64_t i = 0; i < kept; i++) to[i] /= freedom(k, reduced); break;
    case STD: for (int64_t i = 0; i < kept; i++) to[i] = sqrt(to[i] / freedom(k, reduced)); break;
    case NORM: for (int64_t i = 0; i < kept; i++) to[i] = sqrt(to[i]); break;
    case LOGSUMEXP: for (int64_t i = 0; i < kept; i++) to[i] = isfinite(shift[i]) ? shift[i] + log(to[i]) : shift[i]; break;
    default: break;
  }
  unic_view totals = doubles_like(&k->out[0], to);
  unic_move(&k->out[0], &totals);
  return UNIC_OK;
}

/* An array of one value per kept element, seen under x's shape: strides 0 along the reduced dimensions. */
static unic_view kept_view(const unic_view *x, uint32_t mask, float *data) {
  unic_view v = *x;
  int64_t stride = 1;
  v.data = data;
  v.dtype = UNIC_F32;
  for (int d = x->ndim - 1; d >= 0; d--) {
    v.stride[d] = mask >> d & 1 ? 0 : stride;
    if (!(mask >> d & 1)) stride *= x->shape[d];
  }
  return v;
}

/* A result-shaped view as dense floats. */
static void to_floats(const unic_view *from, float *to) {
  unic_view v = doubles_like(from, NULL);
  v.data = to;
  v.dtype = UNIC_F32;
  unic_move(&v, from);
}

static unic_status backward(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *dx = &k->din[X];
  int kind = kind_of(k->op, k->arg);
  uint32_t mask = reduced_mask(&k->arg[DIMS], x->ndim);
  int64_t kept = k->out[0].numel, reduced = kept ? x->numel / kept : 0;
  if (!dx->present || dx->numel == 0) return UNIC_OK;
  double *doubles = k->scratch;                     /* shift [kept] */
  float *p = (float *)(doubles + kept), *q = p + kept;
  double *room = doubles + 2 * kept;                /* totals; p and q together are kept doubles */
  to_floats(&k->dout[0], p);
  switch (kind) {
    case MEAN: for (int64_t i = 0; i < kept; i++) p[i] = (float)((double)p[i] / (double)reduced); break;
    case VAR: case STD:
      total(TOTAL_SUM, x, mask, NULL, room);
      if (kind == STD) to_floats(&k->out[0], q);
      for (int64_t i = 0; i < kept; i++) {
        double by = kind == VAR ? 2 : q[i] == 0 ? 0 : 1 / (double)q[i];   /* std: 0 where all are equal */
        q[i] = (float)(room[i] / (double)reduced);
        p[i] = by == 0 ? 0 : (float)(by * (double)p[i] / freedom(k, reduced));
      }
      break;
    case MAX: case MIN: case NORM_MOST:
      to_floats(&k->out[0], q);
      for (int64_t i = 0; i < kept; i++) doubles[i] = (double)q[i];
      total(kind == NORM_MOST ? TOTAL_EQUAL_ABS : TOTAL_EQUAL, x, mask, doubles, room);
      for (int64_t i = 0; i < kept; i++) p[i] = (float)((double)p[i] / room[i]);
      break;
    case NORM: case LOGSUMEXP: to_floats(&k->out[0], q); break;
    default: break;
  }
  unic_view shaped = *x, pv = kept_view(x, mask, p), qv = kept_view(x, mask, q);
  const unic_view *const views[4] = {dx, &shaped, &pv, &qv};
  struct gradient s = {.kind = kind == MEAN ? SUM : kind, .dtype = dx->dtype, .accumulate = k->accumulate[X], .dx = dx->data, .x = x->data, .p = p, .q = q};
  unic_walk_init(&s.walk, 4, views);
  UNIC_RUN(gradient_rows, s.walk.numel, UNIC_WALK_CHUNK, &s);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- plain forms: f64, integers, and the gradient of prod */

struct plain {
  unic_walk walk;              /* of x, and beside it dx; reduced dimensions inside */
  int kind, dtype, out_dtype, accumulate;
  int64_t reduced;
  const void *x, *y, *dy;
  void *to;                    /* y, or dx */
  int to_dtype;
  double freedom;
};

static double element(const struct plain *r, int64_t i) {
  int64_t index[UNIC_MAX_RANK], left;
  return unic_element_get(r->x, (unic_dtype)r->dtype, unic_walk_find(&r->walk, 0, i, index, &left));
}

static int64_t integer_element(const struct plain *r, int64_t i) {
  int64_t index[UNIC_MAX_RANK], left, at = unic_walk_find(&r->walk, 0, i, index, &left);
  return r->dtype == UNIC_I64 ? ((const int64_t *)r->x)[at] : (int64_t)unic_element_get(r->x, (unic_dtype)r->dtype, at);
}

static void plain_rows(void *context, int64_t begin, int64_t end) {
  const struct plain *r = context;
  for (int64_t k = begin; k < end; k++) {
    int64_t first = k * r->reduced, n = r->reduced;
    double v = 0;
    if (!unic_dtype_is_float((unic_dtype)r->dtype) && r->kind != ANY && r->kind != ALL) {   /* exactly, modulo 2^64 */
      int64_t all = r->kind == PROD;
      for (int64_t i = 0; i < n; i++) {
        int64_t x = integer_element(r, first + i);
        if (r->kind == SUM) all = (int64_t)((uint64_t)all + (uint64_t)x);
        else if (r->kind == PROD) all = (int64_t)((uint64_t)all * (uint64_t)x);
        else if (i == 0 || (r->kind == MAX ? x > all : x < all)) all = x;
      }
      if (r->out_dtype == UNIC_I64) ((int64_t *)r->to)[k] = all;
      else unic_element_set(r->to, (unic_dtype)r->out_dtype, k, (double)all);
      continue;
    }
    switch (r->kind) {
      case SUM: case MEAN:
        for (int64_t i = 0; i < n; i++) v += element(r, first + i);
        if (r->kind == MEAN) v /= (double)n;
        break;
      case PROD:
        v = 1;
        for (int64_t i = 0; i < n; i++) v *= element(r, first + i);
        break;
      case MAX: case MIN:
        v = element(r, first);
        for (int64_t i = 1; i < n; i++) {
          double x = element(r, first + i);
          if (x != x || (r->kind == MAX ? x > v : x < v)) v = v != v ? v : x;
        }
        break;
      case ANY:
        for (int64_t i = 0; i < n && v == 0; i++) v = element(r, first + i) != 0;
        break;
      case ALL:
        v = 1;
        for (int64_t i = 0; i < n && v != 0; i++) v = element(r, first + i) != 0;
        break;
      case VAR: case STD: {
        double mean = 0;
        for (int64_t i = 0; i < n; i++) mean += element(r, first + i);
        mean /= (double)n;
        for (int64_t i = 0; i < n; i++) { double d = element(r, first + i) - mean; v += d * d; }
        v /= r->freedom;
        if (r->kind == STD) v = sqrt(v);
        break;
      }
      case NORM:
        for (int64_t i = 0; i < n; i++) { double x = element(r, first + i); v += x * x; }
        v = sqrt(v);
        break;
      case NORM_ONE:
        for (int64_t i = 0; i < n; i++) v += fabs(element(r, first + i));
        break;
      case NORM_MOST:
        for (int64_t i = 0; i < n; i++) { double x = fabs(element(r, first + i)); if (x > v || x != x) v = x; }
        break;
      default: {
        double most = -(double)INFINITY;
        for (int64_t i = 0; i < n; i++) { double x = element(r, first + i); if (x > most || x != x) most = x; }
        if (isfinite(most)) {
          for (int64_t i = 0; i < n; i++) v += exp(element(r, first + i) - most);
          v = most + log(v);
        } else v = most;
      }
    }
    unic_element_set(r->to, (unic_dtype)r->out_dtype, k, v);
  }
}

static void plain_gradient_rows(void *context, int64_t begin, int64_t end) {
  const struct plain *r = context;
  int64_t index[UNIC_MAX_RANK], left;
  for (int64_t k = begin; k < end; k++) {
    int64_t first = k * r->reduced, n = r->reduced, zeros = 0;
    double dy = unic_element_get(r->dy, (unic_dtype)r->out_dtype, k), y = r->y ? unic_element_get(r->y, (unic_dtype)r->out_dtype, k) : 0;
    double mean = 0, share = 0, others = 1;
    for (int64_t i = 0; (r->kind == VAR || r->kind == STD) && i < n; i++) mean += element(r, first + i) / (double)n;
    for (int64_t i = 0; (r->kind == MAX || r->kind == MIN) && i < n; i++) { double x = element(r, first + i); share += x == y || (x != x && y != y); }
    for (int64_t i = 0; r->kind == NORM_MOST && i < n; i++) { double x = fabs(element(r, first + i)); share += x == y || (x != x && y != y); }
    for (int64_t i = 0; r->kind == PROD && i < n; i++) { double x = element(r, first + i); if (x == 0) zeros++; else others *= x; }
    for (int64_t i = 0; i < n; i++) {
      double x = r->x ? element(r, first + i) : 0, g;
      switch (r->kind) {
        case SUM: g = dy; break;
        case MEAN: g = dy / (double)n; break;
        case PROD: g = zeros == 0 ? dy * others / x : zeros == 1 && x == 0 ? dy * others : 0; break;
        case MAX: case MIN: g = x == y || (x != x && y != y) ? dy / share : 0; break;
        case VAR: g = dy * 2 * (x - mean) / r->freedom; break;
        case STD: g = y == 0 ? 0 : dy * (x - mean) / (r->freedom * y); break;
        case NORM_ONE: g = x > 0 ? dy : x < 0 ? -dy : dy * x; break;
        case NORM_MOST: g = fabs(x) == y || (x != x && y != y) ? (x > 0 ? dy : x < 0 ? -dy : dy * x) / share : 0; break;
        case NORM: g = y == 0 ? 0 : dy * x / y; break;
        default: g = dy * exp(x - y);
      }
      int64_t at = unic_walk_find(&r->walk, 1, first + i, index, &left);
      if (r->accumulate) g += unic_element_get(r->to, (unic_dtype)r->to_dtype, at);
      unic_element_set(r->to, (unic_dtype)r->to_dtype, at, g);
    }
  }
}

static unic_status run_plain(const unic_kernel *k) {
  const unic_view *x = &k->in[X], *to = k->backward ? &k->din[X] : &k->out[0];
  uint32_t mask = reduced_mask(&k->arg[DIMS], x->ndim);
  int kind = kind_of(k->op, k->arg);
  struct plain r = {.kind = kind, .dtype = x->dtype, .out_dtype = k->out[0].dtype, .to_dtype = to->dtype, .accumulate = k->accumulate[X], .x = x->data,
                    .y = k->out[0].data, .dy = k->dout[0].data, .to = to->data};
  if (to->numel == 0) return UNIC_OK;
  unic_walk *w = &r.walk;
  int64_t kept = 1;
  r.reduced = 1;
  w->operands = 2;
  for (int pass = 0; pass < 2; pass++)
    for (int d = 0; d < x->ndim; d++) {
      if ((int)(mask >> d & 1) != pass) continue;
      *(pass ? &r.reduced : &kept) *= x->shape[d];
      w->shape[w->ndim] = x->shape[d];
      w->stride[0][w->ndim] = x->stride[d];
      w->stride[1][w->ndim++] = k->backward ? to->stride[d] : 0;
    }
  if (w->ndim == 0) { w->ndim = 1; w->shape[0] = 1; }
  r.freedom = freedom(k, r.reduced);
  int64_t chunk = r.reduced > 0 ? 16384 / r.reduced : kept;
  unic_parallel_for(kept, chunk < 1 ? 1 : chunk, k->backward ? plain_gradient_rows : plain_rows, &r);
  return UNIC_OK;
}

static unic_status run_forward(const unic_kernel *k) { return is_fast(kind_of(k->op, k->arg), &k->in[X]) ? forward(k) : run_plain(k); }
static unic_status run_backward(const unic_kernel *k) { return kind_of(k->op, k->arg) == PROD ? run_plain(k) : backward(k); }

/* ---------------------------------------------------------------- descriptors */

#define REDUCE(op, saved, graded, extra, doc_, help, flags_) \
  static const unic_op op_##op = { \
    .name = #op, .signature = "x: tensor, dims: ints = {}, keepdim: bool = false" extra " -> y", \
    .doc = doc_ "\ndims     which dimensions are reduced, counted from 1 or from the end; all when absent\nkeepdim  leave size 1 where a dimension was reduced" help, \
    .saves = saved, .grads = graded, .layouts = "x:any", .shape = shape, \
    .cpu = {run_forward, run_backward, run_plain, run_plain, .plan = plan}, .flags = UNIC_OP_METHOD | UNIC_OP_INTS | (flags_), .autocast = UNIC_CAST_FULL};
REDUCE(sum, "", "x", "", "The sum over some dimensions (integers sum to i64).", "", 0)
REDUCE(mean, "", "x", "", "The mean over some dimensions.", "", 0)
REDUCE(prod, "x", "x", "", "The product over some dimensions (integers multiply to i64).", "", 0)
REDUCE(max, "x y", "x", "", "The largest value over some dimensions; ties share the gradient, a NaN wins.", "", 0)
REDUCE(min, "x y", "x", "", "The smallest value over some dimensions; ties share the gradient, a NaN wins.", "", 0)
REDUCE(any, "", NULL, "", "Is any element not zero? The result is bool.", "", UNIC_OP_NO_GRAD)
REDUCE(all, "", NULL, "", "Are all elements not zero? The result is bool.", "", UNIC_OP_NO_GRAD)
REDUCE(var, "x", "x", ", unbiased: bool = true", "The variance over some dimensions.", "\nunbiased  divide by n - 1 instead of n", 0)
REDUCE(std, "x y", "x", ", unbiased: bool = true", "The standard deviation over some dimensions; its gradient where all elements are equal is 0.",
       "\nunbiased  divide by n - 1 instead of n", 0)
REDUCE(norm, "x y", "x", ", p: number = 2", "The norm over some dimensions; its gradient at 0 is 0, ties of the largest share it.",
       "\np         2: Euclidean; 1: sum of absolute values; math.huge: the largest absolute value", 0)
REDUCE(logsumexp, "x y", "x", "", "log(sum(exp(x))) over some dimensions, without overflow.", "", 0)

UNIC_OPS(reduce, &op_sum, &op_mean, &op_prod, &op_max, &op_min, &op_any, &op_all, &op_var, &op_std, &op_norm, &op_logsumexp);

#endif
