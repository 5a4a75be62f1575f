/* matmul: y = a b, as PyTorch's matmul.
 *
 *   y[..., i, j] = sum_k a[..., i, k] b[..., k, j]
 *
 * a [..., M, K] or [K], b [..., K, N] or [K]; leading dimensions broadcast; a vector's dimension of 1 does not appear in y.
 * Gradients: da = dy b', db = a' dy, summed over the dimensions in which the operand was broadcast.
 *
 * The plan merges the leading dimensions and folds them into M, N or K where the strides allow (a batch times one matrix is one product).
 * What is left is a loop of products: many or small ones are spread over the team with each on one thread, few large ones run one after the
 * other with the whole team on each. Operands with one dimension of stride 1 are read where they are (transposed views cost nothing).
 *
 * Saved: a, b. Bits: equal for equal thread counts (oneDNN splits a large product by threads).
 *
 * This file also holds the general product that other kernels use (gemm.h), and is over 500 lines for it: a file in this folder is an op, and
 * this is the op that the product belongs to. */
#include "loops.h"
#include "gemm.h"

enum { A, B };

/* A panel between storage of any type and strides and plain f32 rows. */
struct panel { const void *from; void *to; int dtype, accumulate; int64_t outer_stride, inner_stride, inner, ld; };

#if UNIC_LOOPS

/* to[o][i] = from[o*outer_stride + i*inner_stride], rows `begin` to `end`. */
UNIC_LOOP(panel_load) {
  const struct panel *p = context;
  for (int64_t o = begin; o < end; o++) {
    float *restrict to = (float *)p->to + o * p->ld;
    int64_t at = o * p->outer_stride, n = p->inner, s = p->inner_stride;
    if (s == 1) {
      if (p->dtype == UNIC_F32) {
        const float *restrict from = (const float *)p->from + at;
        for (int64_t i = 0; i < n; i++) to[i] = from[i];
      } else if (p->dtype == UNIC_BF16) {
        const uint16_t *restrict from = (const uint16_t *)p->from + at;
        for (int64_t i = 0; i < n; i++) to[i] = unic_float_of_bf16(from[i]);
      } else {
        const uint16_t *restrict from = (const uint16_t *)p->from + at;
        for (int64_t i = 0; i < n; i++) to[i] = unic_float_of_f16(from[i]);
      }
    } else if (p->dtype == UNIC_F32) {
      const float *from = (const float *)p->from + at;
      for (int64_t i = 0; i < n; i++) to[i] = from[i * s];
    } else {
      const uint16_t *from = (const uint16_t *)p->from + at;
      bool bf16 = p->dtype == UNIC_BF16;
      for (int64_t i = 0; i < n; i++) to[i] = bf16 ? unic_float_of_bf16(from[i * s]) : unic_float_of_f16(from[i * s]);
    }
  }
}

/* to[o*outer_stride + i*inner_stride] = (or +=) from[o][i], rows `begin` to `end`. */
UNIC_LOOP(panel_store) {
  const struct panel *p = context;
  for (int64_t o = begin; o < end; o++) {
    const float *from = (const float *)p->from + o * p->ld;
    int64_t at = o * p->outer_stride, n = p->inner, s = p->inner_stride;
    if (s == 1) {
      unic_row_put(p->to, p->dtype, at, n, from, p->accumulate);
    } else {
      for (int64_t i = 0; i < n; i++) unic_row_put(p->to, p->dtype, at + i * s, 1, from + i, p->accumulate);
    }
  }
}

#else

#include "dnnl.h"
#include <string.h>

UNIC_LOOP_TABLE(panel_load);
UNIC_LOOP_TABLE(panel_store);

/* ---------------------------------------------------------------- the general product */

void unic_gemm_start(void) { unic_dnnl_start(); }

bool unic_gemm(bool alone, char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
               float beta, float *c, int64_t ldc) {
  if (m <= 0 || n <= 0) return true;
  if (k <= 0) {
    if (beta == 0) for (int64_t i = 0; i < m; i++) memset(c + i * ldc, 0, (size_t)n * sizeof *c);
    else if (beta != 1) for (int64_t i = 0; i < m; i++) for (int64_t j = 0; j < n; j++) c[i * ldc + j] *= beta;
    return true;
  }
  /* oneDNN takes the whole team unless it is called from inside one. A lone product outside of a team (one chunk of work, or a team of one)
   * must get the same bits as inside, so the team is put away for the call. */
  int team = alone && !omp_in_parallel() ? omp_get_max_threads() : 1;
  if (team > 1) omp_set_num_threads(1);
  bool ok = unic_dnnl_sgemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) == dnnl_success;
  if (team > 1) omp_set_num_threads(team);
  return ok;
}

/* Can a matrix product read this [rows, cols] matrix where it lies? */
static bool readable(int64_t rows, int64_t cols, int64_t rs, int64_t cs, char *form, int64_t *ld) {
  if ((cs == 1 || cols <= 1) && (rs >= cols || rows <= 1)) {
    *form = 'N';
    *ld = rows <= 1 ? (cols > 0 ? cols : 1) : rs > 0 ? rs : 1;
    return rows <= 1 || rs > 0;
  }
  if ((rs == 1 || rows <= 1) && (cs >= rows || cols <= 1)) {
    *form = 'T';
    *ld = cols <= 1 ? (rows > 0 ? rows : 1) : cs > 0 ? cs : 1;
    return cols <= 1 || cs > 0;
  }
  return false;
}

static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }
static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t padded(int64_t floats) { return (floats + 15) & ~(int64_t)15; }

/* The size of equal pieces of n, none above `limit`. */
static int64_t piece(int64_t n, int64_t limit) {
  limit = most(limit, 1);
  int64_t pieces = most((n + limit - 1) / limit, 1);
  return most((n + pieces - 1) / pieces, 1);
}

/* A readable matrix as oneDNN's descriptor. */
static dnnl_status_t describe(unic_dnnl_desc *d, int dtype, int64_t rows, int64_t cols, char form, int64_t ld) {
  int64_t shape[2] = {rows, cols}, stride[2] = {form == 'N' ? ld : 1, form == 'N' ? 1 : ld};
  return unic_dnnl_desc_strided(d, (unic_dtype)dtype, 2, shape, stride);
}

unic_status unic_product_native(const char *op, unic_product *p, bool bias, int accumulate, bool *planned) {
  *planned = false;
  /* Below AVX-512 BF16 oneDNN either refuses, emulates or falls back to plain loops: slower than converting. */
  if (!unic_dtype_is_half((unic_dtype)p->a_dtype) || unic_isa_best() < UNIC_ISA_AVX512_BF16) return UNIC_OK;
  char form[3];
  int64_t ld[3];
  if (p->a_dtype != p->b_dtype || (p->c_dtype != p->a_dtype && p->c_dtype != UNIC_F32) || p->alone || p->sums || p->m < 1 || p->n < 1 || p->k < 1) return UNIC_OK;
  if (!readable(p->m, p->k, p->a_row, p->a_col, &form[0], &ld[0]) || !readable(p->k, p->n, p->b_row, p->b_col, &form[1], &ld[1])) return UNIC_OK;
  if (!readable(p->m, p->n, p->c_row, p->c_col, &form[2], &ld[2]) || form[2] != 'N') return UNIC_OK;
  unic_dnnl_desc a = {0}, b = {0}, c = {0}, row = {0};
  unic_dnnl_primitive *made = unic_new(sizeof *made);
  if (!made) return unic_fail_memory("[%s] no memory for its plan", op);
  dnnl_status_t s = describe(&a, p->a_dtype, p->m, p->k, form[0], ld[0]);
  if (s == dnnl_success) s = describe(&b, p->b_dtype, p->k, p->n, form[1], ld[1]);
  if (s == dnnl_success) s = describe(&c, p->c_dtype, p->m, p->n, 'N', ld[2]);
  if (s == dnnl_success && bias) s = describe(&row, UNIC_F32, 1, p->n, 'N', p->n);
  unic_dnnl_attr attr = {.sum = accumulate ? 1 : 0};
  if (s == dnnl_success)
    s = unic_dnnl_matmul(made, unic_dnnl_desc_md(&a), unic_dnnl_desc_md(&b), bias ? unic_dnnl_desc_md(&row) : NULL, unic_dnnl_desc_md(&c), &attr);
  unic_dnnl_desc_free(&a);
  unic_dnnl_desc_free(&b);
  unic_dnnl_desc_free(&c);
  unic_dnnl_desc_free(&row);
  if (s != dnnl_success || strncmp(unic_dnnl_primitive_name(made), "ref", 3) == 0) {
    unic_dnnl_primitive_free(made);
    unic_delete(made);
    return s == dnnl_out_of_memory ? unic_dnnl_fail(op, "plan a product", s) : UNIC_OK;
  }
  p->native = made;
  p->swapped = false;
  p->scratch = padded((made->scratch + 3) / 4);
  *planned = true;
  return UNIC_OK;
}

void unic_product_free(unic_product *p) {
  if (!p->native) return;
  unic_dnnl_primitive_free(p->native);
  unic_delete(p->native);
  p->native = NULL;
}

static bool run_native(const unic_product *p, const void *a, const void *b, void *c, const void *bias, void *scratch) {
  unic_dnnl_arg args[4] = {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}, {DNNL_ARG_BIAS, bias}};
  return unic_dnnl_execute("matmul", p->native, bias ? 4 : 3, args, scratch) == UNIC_OK;
}

void unic_product_plan(unic_product *p) {
  char form;
  int64_t ld;
  unic_gemm_start();
  p->swapped = !p->tiled && p->c_col != 1 && p->c_row == 1 && p->n > 1;
  if (p->swapped) {
    unic_product q = *p;
    p->m = q.n; p->n = q.m;
    p->a_row = q.b_col; p->a_col = q.b_row; p->b_row = q.a_col; p->b_col = q.a_row;
    p->c_row = q.c_col; p->c_col = q.c_row;
    p->a_dtype = q.b_dtype; p->b_dtype = q.a_dtype;
    for (int i = 0; i < p->sums; i++) { p->sum_a[i] = q.sum_b[i]; p->sum_b[i] = q.sum_a[i]; }
  }
  p->a_copy = p->a_dtype != UNIC_F32 || !readable(p->m, p->k, p->a_row, p->a_col, &p->a_form, &p->lda);
  p->b_copy = p->b_dtype != UNIC_F32 || !readable(p->k, p->n, p->b_row, p->b_col, &p->b_form, &p->ldb);
  p->c_copy = p->tiled || p->c_dtype != UNIC_F32 || !readable(p->m, p->n, p->c_row, p->c_col, &form, &ld) || form != 'N';
  if (p->a_copy) p->a_form = p->a_col != 1 && p->a_row == 1 ? 'T' : 'N';
  if (p->b_copy) p->b_form = p->b_col != 1 && p->b_row == 1 ? 'T' : 'N';
  /* Panels: 16 MB each for the whole team, 1 MB each for a single thread (its share of the caches). The conversion of an operand is repeated
   * for each panel of the other one, at one conversion per 2 * pm (or pn) operations: below 1 % at these sizes. */
  int64_t limit = p->alone ? 1 << 18 : 1 << 22;
  p->pk = p->a_copy || p->b_copy ? piece(p->k, p->alone ? 1024 : 4096) : most(p->k, 1);
  p->pn = p->b_copy || p->c_copy ? piece(p->n, limit / p->pk) : most(p->n, 1);
  p->pm = p->a_copy || p->c_copy ? piece(p->m, least(p->a_copy ? limit / p->pk : limit, p->c_copy ? limit / p->pn : limit)) : most(p->m, 1);
  if (!p->c_copy) { if (!p->b_copy) p->pn = most(p->n, 1); if (!p->a_copy) p->pm = most(p->m, 1); }
  if (!p->c_copy) p->ldc = ld;
  p->scratch = (p->a_copy ? padded(p->pm * p->pk) : 0) + (p->b_copy ? padded(p->pk * p->pn) : 0) + (p->c_copy ? padded(p->pm * p->pn) : 0);
}

static void run_rows(unic_body *const *table, bool alone, int64_t rows, int64_t cols, struct panel *context) {
  if (alone) table[unic_isa_current()](context, 0, rows);
  else unic_parallel_for(rows, most(1, (1 << 14) / most(cols, 1)), table[unic_isa_current()], context);
}

/* A panel [rows, cols] of an operand as f32, in the orientation `form` that keeps its contiguous dimension inside. */
static void load(bool alone, const void *data, int dtype, char form, int64_t rows, int64_t cols, int64_t rs, int64_t cs, float *to) {
  struct panel c = {.from = data, .to = to, .dtype = dtype};
  int64_t outer = form == 'N' ? rows : cols;
  c.inner = form == 'N' ? cols : rows;
  c.outer_stride = form == 'N' ? rs : cs;
  c.inner_stride = form == 'N' ? cs : rs;
  c.ld = c.inner;
  run_rows(panel_load, alone, outer, c.inner, &c);
}

bool unic_product_run(const unic_product *p, const void *a, const void *b, void *c, int accumulate, float *scratch, unic_product_store *store, void *context) {
  if (p->native) return run_native(p, a, b, c, context, scratch);
  if (p->swapped) { const void *t = a; a = b; b = t; }
  float *a_panel = scratch, *b_panel = a_panel + (p->a_copy ? padded(p->pm * p->pk) : 0), *tile = b_panel + (p->b_copy ? padded(p->pk * p->pn) : 0);
  int64_t repeats = 1;
  for (int i = 0; i < p->sums; i++) repeats *= p->sum[i];
  int64_t a_now[3] = {-1, -1, -1}, b_now[3] = {-1, -1, -1};   /* which panels lie in scratch: sum, row, column */
  for (int64_t j = 0; j < p->n; j += p->pn) {
    int64_t n = least(p->pn, p->n - j);
    for (int64_t i = 0; i < p->m; i += p->pm) {
      int64_t m = least(p->pm, p->m - i);
      float *to = p->c_copy ? tile : (float *)c + i * p->c_row + j * (p->n > 1 ? p->c_col : 0);
      int64_t ldc = p->c_copy ? n : p->ldc;
      float beta = !p->c_copy && accumulate ? 1.0f : 0.0f;
      if (repeats == 0 && !unic_gemm(true, 'N', 'N', m, n, 0, 1, NULL, 1, NULL, 1, beta, to, ldc)) return false;
      for (int64_t r = 0; r < repeats; r++) {
        int64_t a_at = 0, b_at = 0, rest = r;
        for (int s = p->sums - 1; s >= 0; s--) {
          a_at += rest % p->sum[s] * p->sum_a[s];
          b_at += rest % p->sum[s] * p->sum_b[s];
          rest /= p->sum[s];
        }
        for (int64_t h = 0; h == 0 || h < p->k; h += p->pk) {
          int64_t k = least(p->pk, p->k - h), lda = p->lda, ldb = p->ldb;
          const float *from_a = unic_at(a, p->a_dtype, a_at + i * p->a_row + h * p->a_col), *from_b = unic_at(b, p->b_dtype, b_at + h * p->b_row + j * p->b_col);
          if (p->a_copy) {
            if (a_now[0] != r || a_now[1] != i || a_now[2] != h) load(p->alone, from_a, p->a_dtype, p->a_form, m, k, p->a_row, p->a_col, a_panel);
            a_now[0] = r; a_now[1] = i; a_now[2] = h;
            from_a = a_panel;
            lda = most(p->a_form == 'N' ? k : m, 1);
          }
          if (p->b_copy) {
            if (b_now[0] != r || b_now[1] != h || b_now[2] != j) load(p->alone, from_b, p->b_dtype, p->b_form, k, n, p->b_row, p->b_col, b_panel);
            b_now[0] = r; b_now[1] = h; b_now[2] = j;
            from_b = b_panel;
            ldb = most(p->b_form == 'N' ? n : k, 1);
          }
          if (!unic_gemm(p->alone, p->a_form, p->b_form, m, n, k, 1, from_a, lda, from_b, ldb, beta, to, ldc)) return false;
          beta = 1;
        }
      }
      if (store) {
        store(context, tile, i, m, j, n);
      } else if (p->c_copy) {
        struct panel s = {.from = tile, .to = unic_at(c, p->c_dtype, i * p->c_row + j * p->c_col), .dtype = p->c_dtype, .accumulate = accumulate,
                          .outer_stride = p->c_row, .inner_stride = p->c_col, .inner = n, .ld = n};
        run_rows(panel_store, p->alone, m, n, &s);
      }
    }
  }
  return true;
}

/* ---------------------------------------------------------------- a loop of products */

typedef struct batch {
  unic_product p;
  int loops;
  int64_t count[UNIC_MAX_RANK], a[UNIC_MAX_RANK], b[UNIC_MAX_RANK], c[UNIC_MAX_RANK];
  int64_t batches, chunk;
  bool wanted, spread;
  int64_t scratch;   /* bytes */
} batch;

/* Outermost first: neighbours that step through all three operands as one dimension become one. */
static int merge(int loops, int64_t *count, int64_t *a, int64_t *b, int64_t *c) {
  int n = 0;
  for (int i = 0; i < loops; i++) {
    if (count[i] == 1) continue;
    if (n > 0 && a[n - 1] == a[i] * count[i] && b[n - 1] == b[i] * count[i] && c[n - 1] == c[i] * count[i]) {
      count[n - 1] *= count[i];
      a[n - 1] = a[i]; b[n - 1] = b[i]; c[n - 1] = c[i];
    } else {
      count[n] = count[i]; a[n] = a[i]; b[n] = b[i]; c[n] = c[i];
      n++;
    }
  }
  return n;
}

/* Fold loops into M or N, and sums into K, and decide how the rest is spread over the team. */
static unic_status batch_plan(batch *l, int accumulate) {
  unic_product *p = &l->p;
  int64_t none[UNIC_MAX_RANK] = {0};
  l->loops = merge(l->loops, l->count, l->a, l->b, l->c);
  p->sums = merge(p->sums, p->sum, p->sum_a, p->sum_b, none);
  while (l->loops > 0) {
    int i = l->loops - 1;
    if (l->b[i] == 0 && (p->m == 1 || (l->a[i] == p->m * p->a_row && l->c[i] == p->m * p->c_row))) {
      if (p->m == 1) { p->a_row = l->a[i]; p->c_row = l->c[i]; }
      p->m *= l->count[i];
    } else if (l->a[i] == 0 && (p->n == 1 || (l->b[i] == p->n * p->b_col && l->c[i] == p->n * p->c_col))) {
      if (p->n == 1) { p->b_col = l->b[i]; p->c_col = l->c[i]; }
      p->n *= l->count[i];
    } else {
      break;
    }
    l->loops--;
  }
  while (p->sums > 0) {
    int i = p->sums - 1;
    if (p->k != 1 && !(p->sum_a[i] == p->k * p->a_col && p->sum_b[i] == p->k * p->b_row)) break;
    if (p->k == 1) { p->a_col = p->sum_a[i]; p->b_row = p->sum_b[i]; }
    p->k *= p->sum[i];
    p->sums--;
  }
  l->batches = 1;
  for (int i = 0; i < l->loops; i++) l->batches *= l->count[i];
  double work = 2.0 * (double)p->m * (double)p->n * (double)p->k;
  for (int i = 0; i < p->sums; i++) work *= (double)p->sum[i];
  int threads = unic_threads();
  /* Four products per thread keep the last round from leaving threads idle; below 4 MFLOP the team's start costs more than it brings. */
  l->spread = l->batches > 1 && (l->batches >= 4 * threads || work < 4e6);
  p->alone = l->spread || work < 2e5;
  l->chunk = most(1, l->batches / (8 * threads));
  bool native = false;
  UNIC_TRY(unic_product_native("matmul", p, false, accumulate, &native));
  if (!native) unic_product_plan(p);
  l->scratch = p->scratch * (int64_t)sizeof(float) * (l->spread ? threads : 1);
  return UNIC_OK;
}

struct batch_run { const batch *l; const void *a, *b; void *c; float *scratch; int accumulate; _Atomic int failed; };

static void batch_body(void *context, int64_t begin, int64_t end) {
  struct batch_run *r = context;
  const batch *l = r->l;
  const unic_product *p = &l->p;
  float *scratch = r->scratch + (l->spread ? unic_thread_index() * p->scratch : 0);
  int a_dtype = p->swapped ? p->b_dtype : p->a_dtype, b_dtype = p->swapped ? p->a_dtype : p->b_dtype;
  for (int64_t at = begin; at < end; at++) {
    int64_t a = 0, b = 0, c = 0, rest = at;
    for (int i = l->loops - 1; i >= 0; i--) {
      int64_t index = rest % l->count[i];
      rest /= l->count[i];
      a += index * l->a[i]; b += index * l->b[i]; c += index * l->c[i];
    }
    if (!unic_product_run(p, unic_at(r->a, a_dtype, a), unic_at(r->b, b_dtype, b), unic_at(r->c, p->c_dtype, c), r->accumulate, scratch, NULL, NULL)) r->failed = 1;
  }
}

static unic_status batch_run(const unic_kernel *k, const batch *l, const void *a, const void *b, void *c, int accumulate) {
  struct batch_run r = {.l = l, .a = a, .b = b, .c = c, .scratch = k->scratch, .accumulate = accumulate};
  if (l->spread) unic_parallel_for(l->batches, l->chunk, batch_body, &r);
  else batch_body(&r, 0, l->batches);
  return r.failed ? unic_fail("[%s] oneDNN could not compute a product of [%lld, %lld] by [%lld, %lld]", k->op->name, (long long)l->p.m, (long long)l->p.k,
                              (long long)l->p.k, (long long)l->p.n) : UNIC_OK;
}

/* ---------------------------------------------------------------- shapes */

/* The operands of a call as matrices over y's leading dimensions. */
typedef struct frame {
  int lead;                              /* leading dimensions of y */
  int64_t m, n, k, shape[UNIC_MAX_RANK];
  bool a_vector, b_vector;
} frame;

/* Strides of an operand over the frame's leading dimensions (0: broadcast), its rows and its columns. */
typedef struct look { int64_t lead[UNIC_MAX_RANK], row, col; bool broadcast[UNIC_MAX_RANK]; } look;

static void look_at(const unic_view *v, const frame *f, bool vector, bool is_a, look *l) {
  int own = vector ? 0 : v->ndim - 2;
  for (int d = 0; d < f->lead; d++) {
    int i = d - (f->lead - own);
    l->broadcast[d] = i < 0 || (v->shape[i] == 1 && f->shape[d] != 1);
    l->lead[d] = l->broadcast[d] ? 0 : v->stride[i];
  }
  if (vector) {
    l->row = is_a ? 0 : v->stride[0];
    l->col = is_a ? v->stride[0] : 0;
  } else {
    l->row = v->stride[v->ndim - 2];
    l->col = v->stride[v->ndim - 1];
  }
}

static void look_at_y(const unic_view *v, const frame *f, look *l) {
  for (int d = 0; d < f->lead; d++) { l->lead[d] = v->stride[d]; l->broadcast[d] = false; }
  int d = f->lead;
  l->row = f->a_vector ? 0 : v->stride[d++];
  l->col = f->b_vector ? 0 : v->stride[d];
}

static void frame_of(const unic_view *a, const unic_view *b, const unic_view *y, frame *f) {
  f->a_vector = a->ndim == 1;
  f->b_vector = b->ndim == 1;
  f->lead = y->ndim - !f->a_vector - !f->b_vector;
  for (int d = 0; d < f->lead; d++) f->shape[d] = y->shape[d];
  f->k = a->shape[a->ndim - 1];
  f->m = f->a_vector ? 1 : a->shape[a->ndim - 2];
  f->n = f->b_vector ? 1 : b->shape[b->ndim - 1];
}

static unic_status matmul_shape(unic_call *c) {
  const unic_tensor *a = c->in[A], *b = c->in[B];
  if (a->ndim == 0) return unic_fail_arg(c, A, "it has no dimension, a vector, a matrix or a batch of matrices is expected");
  if (b->ndim == 0) return unic_fail_arg(c, B, "it has no dimension, a vector, a matrix or a batch of matrices is expected");
  int64_t ka = a->shape[a->ndim - 1], kb = b->shape[b->ndim == 1 ? 0 : b->ndim - 2];
  if (ka != kb) {
    char sa[128], sb[128];
    return unic_fail_arg(c, B, "its %s dimension is %lld (shape %s), but the last dimension of 'a' is %lld (shape %s)", b->ndim == 1 ? "only" : "last but one",
                         (long long)kb, unic_shape_describe(b->ndim, b->shape, sb, sizeof sb), (long long)ka, unic_shape_describe(a->ndim, a->shape, sa, sizeof sa));
  }
  int la = a->ndim > 2 ? a->ndim - 2 : 0, lb = b->ndim > 2 ? b->ndim - 2 : 0, ndim = la;
  int64_t shape[UNIC_MAX_RANK];
  memcpy(shape, a->shape, sizeof shape);
  if (!unic_shape_broadcast(&ndim, shape, lb, b->shape)) {
    char sa[128], sb[128];
    return unic_fail_arg(c, B, "its leading dimensions (shape %s) do not broadcast with those of 'a' (shape %s)",
                         unic_shape_describe(b->ndim, b->shape, sb, sizeof sb), unic_shape_describe(a->ndim, a->shape, sa, sizeof sa));
  }
  if (a->ndim > 1) shape[ndim++] = a->shape[a->ndim - 2];
  if (b->ndim > 1) shape[ndim++] = b->shape[b->ndim - 1];
  unic_out(c, 0, c->type, ndim, shape);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- plan, forward, backward */

typedef struct matmul_plan { batch y, da, db; } matmul_plan;

static void matmul_plan_free(void *data) {
  matmul_plan *plan = data;
  unic_product_free(&plan->y.p);
  unic_product_free(&plan->da.p);
  unic_product_free(&plan->db.p);
  unic_delete(plan);
}

/* C = A B over the frame's leading dimensions; those in which C is broadcast are summed. */
static unic_status batch_fill(batch *l, const frame *f, int64_t m, int64_t n, int64_t k, const look *a, int a_dtype, const look *b, int b_dtype, const look *c, int c_dtype,
                       int accumulate) {
  *l = (batch){.wanted = true, .p = {.m = m, .n = n, .k = k, .a_row = a->row, .a_col = a->col, .b_row = b->row, .b_col = b->col, .c_row = c->row, .c_col = c->col,
                                     .a_dtype = (uint8_t)a_dtype, .b_dtype = (uint8_t)b_dtype, .c_dtype = (uint8_t)c_dtype}};
  for (int d = 0; d < f->lead; d++) {
    if (c->broadcast[d]) {
      int i = l->p.sums++;
      l->p.sum[i] = f->shape[d]; l->p.sum_a[i] = a->lead[d]; l->p.sum_b[i] = b->lead[d];
    } else {
      int i = l->loops++;
      l->count[i] = f->shape[d]; l->a[i] = a->lead[d]; l->b[i] = b->lead[d]; l->c[i] = c->lead[d];
    }
  }
  return batch_plan(l, accumulate);
}

static void turn(look *l) { int64_t t = l->row; l->row = l->col; l->col = t; }

static unic_status matmul_plan_make(const unic_kernel *k, unic_plan *p) {
  if (k->type == UNIC_F64) return UNIC_OK;
  matmul_plan *plan = unic_new(sizeof *plan);
  if (!plan) return unic_fail_memory("[matmul] no memory for its plan");
  p->data = plan;
  p->free = matmul_plan_free;
  frame f;
  look a, b, y, d;
  frame_of(&k->in[A], &k->in[B], &k->out[0], &f);
  look_at(&k->in[A], &f, f.a_vector, true, &a);
  look_at(&k->in[B], &f, f.b_vector, false, &b);
  if (!k->backward) {
    look_at_y(&k->out[0], &f, &y);
    UNIC_TRY(batch_fill(&plan->y, &f, f.m, f.n, f.k, &a, k->in[A].dtype, &b, k->in[B].dtype, &y, k->out[0].dtype, 0));
  } else {
    look_at_y(&k->dout[0], &f, &y);
    int type = k->dout[0].dtype;
    if (k->din[A].present) {
      look_at(&k->din[A], &f, f.a_vector, true, &d);
      turn(&b);
      UNIC_TRY(batch_fill(&plan->da, &f, f.m, f.k, f.n, &y, type, &b, k->in[B].dtype, &d, k->din[A].dtype, k->accumulate[A]));
    }
    if (k->din[B].present) {
      look_at(&k->din[B], &f, f.b_vector, false, &d);
      turn(&a);
      UNIC_TRY(batch_fill(&plan->db, &f, f.k, f.n, f.m, &a, k->in[A].dtype, &y, type, &d, k->din[B].dtype, k->accumulate[B]));
    }
  }
  p->scratch = most(plan->y.scratch, most(plan->da.scratch, plan->db.scratch));
  return UNIC_OK;
}

static unic_status matmul_forward(const unic_kernel *k) {
  const matmul_plan *plan = k->plan;
  return batch_run(k, &plan->y, k->in[A].data, k->in[B].data, k->out[0].data, 0);
}

static unic_status matmul_backward(const unic_kernel *k) {
  const matmul_plan *plan = k->plan;
  if (plan->da.wanted) UNIC_TRY(batch_run(k, &plan->da, k->dout[0].data, k->in[B].data, k->din[A].data, k->accumulate[A]));
  if (plan->db.wanted) UNIC_TRY(batch_run(k, &plan->db, k->in[A].data, k->dout[0].data, k->din[B].data, k->accumulate[B]));
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

/* Every element of y with the offsets of the row of a and the column of b that make it. */
static void reference_walk(const frame *f, const look *a, const look *b, const look *y, void (*visit)(void *, int64_t, int64_t, int64_t), void *context) {
  int64_t total = f->m * f->n;
  for (int d = 0; d < f->lead; d++) total *= f->shape[d];
  for (int64_t e = 0; e < total; e++) {
    int64_t j = e % f->n, i = e / f->n % f->m, rest = e / f->n / f->m;
    int64_t oa = i * a->row, ob = j * b->col, oy = i * y->row + j * y->col;
    for (int d = f->lead - 1; d >= 0; d--) {
      int64_t index = rest % f->shape[d];
      rest /= f->shape[d];
      oa += index * a->lead[d]; ob += index * b->lead[d]; oy += index * y->lead[d];
    }
    visit(context, oa, ob, oy);
  }
}

struct reference { const double *a, *b, *dy; double *y, *d; int64_t k, a_step, b_step, d_step; };

static void reference_dot(void *context, int64_t oa, int64_t ob, int64_t oy) {
  struct reference *r = context;
  double s = 0;
  for (int64_t i = 0; i < r->k; i++) s += r->a[oa + i * r->a_step] * r->b[ob + i * r->b_step];
  r->y[oy] = s;
}

/* The gradient of one operand: its elements (offset od, in the place of the operand's own) get dy times the other one's. */
static void reference_spread_a(void *context, int64_t od, int64_t ob, int64_t oy) {
  struct reference *r = context;
  for (int64_t i = 0; i < r->k; i++) r->d[od + i * r->d_step] += r->dy[oy] * r->b[ob + i * r->b_step];
}
static void reference_spread_b(void *context, int64_t oa, int64_t od, int64_t oy) {
  struct reference *r = context;
  for (int64_t i = 0; i < r->k; i++) r->d[od + i * r->d_step] += r->dy[oy] * r->a[oa + i * r->a_step];
}

static unic_status matmul_reference(const unic_kernel *k) {
  frame f;
  look a, b, y;
  frame_of(&k->in[A], &k->in[B], &k->out[0], &f);
  look_at(&k->in[A], &f, f.a_vector, true, &a);
  look_at(&k->in[B], &f, f.b_vector, false, &b);
  look_at_y(&k->out[0], &f, &y);
  struct reference r = {.a = k->in[A].data, .b = k->in[B].data, .y = k->out[0].data, .k = f.k, .a_step = a.col, .b_step = b.row};
  reference_walk(&f, &a, &b, &y, reference_dot, &r);
  return UNIC_OK;
}

static unic_status matmul_reference_backward(const unic_kernel *k) {
  frame f;
  look a, b, y, d;
  frame_of(&k->in[A], &k->in[B], &k->out[0], &f);
  look_at(&k->in[A], &f, f.a_vector, true, &a);
  look_at(&k->in[B], &f, f.b_vector, false, &b);
  look_at_y(&k->dout[0], &f, &y);
  struct reference r = {.a = k->in[A].data, .b = k->in[B].data, .dy = k->dout[0].data, .k = f.k, .a_step = a.col, .b_step = b.row};
  for (int i = A; i <= B; i++) {
    const unic_view *v = &k->din[i];
    if (!v->present) continue;
    r.d = v->data;
    /* Dense in some order of dimensions, so that all of it is one piece. */
    if (!k->accumulate[i]) for (int64_t e = 0; e < v->numel; e++) r.d[e] = 0;
    look_at(v, &f, i == A ? f.a_vector : f.b_vector, i == A, &d);
    r.d_step = i == A ? d.col : d.row;
    if (i == A) reference_walk(&f, &d, &b, &y, reference_spread_a, &r);
    else reference_walk(&f, &a, &d, &y, reference_spread_b, &r);
  }
  return UNIC_OK;
}

static double matmul_flops(const unic_kernel *k) {
  return 2.0 * (double)k->out[0].numel * (double)k->in[A].shape[k->in[A].ndim - 1] * unic_products(k, A, B);
}

static const unic_op op_matmul = {
  .name = "matmul",
  .signature = "a: tensor, b: tensor -> y",
  .doc = "The matrix product of the last two dimensions: [..., M, K] by [..., K, N] gives [..., M, N]; leading dimensions broadcast.\n"
         "A vector counts as a row on the left and as a column on the right; that dimension does not appear in the result.\n"
         "a  vector, matrix or batch of matrices\n"
         "b  likewise; its last but one dimension (a vector's only one) is as long as a's last",
  .saves = "a b",
  .grads = "a b",
  .layouts = "a:any b:any",
  .shape = matmul_shape,
  .cpu = {matmul_forward, matmul_backward, matmul_reference, matmul_reference_backward, .plan = matmul_plan_make},
  .flags = UNIC_OP_METHOD | UNIC_OP_SAME_THREADS,
  .autocast = UNIC_CAST_LOW,
  .flops = matmul_flops,
};

UNIC_OPS(matmul, &op_matmul);

#endif
