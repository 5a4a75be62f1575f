/* info_nce: contrastive loss over pairs of rows.
 *
 *   u_i = a_i / max(|a_i|, eps), v_j = b_j / max(|b_j|, eps), eps = 1e-12      c_ij = u_i . v_j      s = scale c
 *   rows: r = mean_i (log sum_j exp(s_ij) - s_ii)     columns: q = mean_j (log sum_i exp(s_ij) - s_jj)     loss = (r + q) / 2, or r alone
 *   ds_ij = dloss / K (f_r exp(s_ij - lse_r_i) + f_q exp(s_ij - lse_q_j) - [i = j])     f_r = f_q = 1/2, or 1 and 0
 *   du = scale ds v    dv = scale ds' u    dscale = sum ds c    da_i = (du_i - u_i (u_i . du_i)) / |a_i|  (du_i / eps where |a_i| <= eps)
 *
 * a, b [K,D], scale a scalar (1 / temperature), differentiable. Equal embeddings give exactly log K.
 * s is made in panels of at most 4 MB of rows; the column sums run along from panel to panel, so K x K is never stored.
 *
 * Saved: a, b, scale, lse [2,K] (rows, columns). Bits: equal for equal thread counts (oneDNN). */
#include "loops.h"
#include "gemm.h"

enum { A, B, SCALE, SYMMETRIC };
enum { LOSS, LSE };

#define EPS 1e-12

struct unit { const void *x; float *unit, *inverse; const float *dunit; void *dx; int64_t depth; int dtype, accumulate; };
struct nce {
  float *s;                                /* a panel: rows first .. first + rows of c, later of scale ds; [rows][pairs] */
  float *diagonal, *row_lse, *most, *sum, *column_lse;
  double *row_part, *scale_part;           /* per row: its loss; its part of dscale */
  int64_t pairs, first, rows;
  float scale, row_factor, column_factor;  /* backward: f / K dloss */
};

#if UNIC_LOOPS

UNIC_LOOP(nce_unit) {
  const struct unit *u = context;
  float buffer[UNIC_ROW];
  for (int64_t r = begin; r < end; r++) {
    double sum = 0;
    for (int64_t j = 0; j < u->depth; j += UNIC_ROW) {
      int64_t c = u->depth - j < UNIC_ROW ? u->depth - j : UNIC_ROW;
      const float *x = unic_row_load(u->x, u->dtype, r * u->depth + j, c, buffer);
      #pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < c; i++) sum += (double)x[i] * x[i];
    }
    double norm = sqrt(sum), f = 1 / (norm > EPS || norm != norm ? norm : EPS);
    /* The sign carries whether the norm is its own (and so has a gradient). */
    u->inverse[r] = norm > EPS || norm != norm ? (float)f : -(float)f;
    for (int64_t j = 0; j < u->depth; j += UNIC_ROW) {
      int64_t c = u->depth - j < UNIC_ROW ? u->depth - j : UNIC_ROW;
      const float *x = unic_row_load(u->x, u->dtype, r * u->depth + j, c, buffer);
      float *restrict y = u->unit + r * u->depth + j;
      #pragma omp simd
      for (int64_t i = 0; i < c; i++) y[i] = (float)(x[i] * f);
    }
  }
}

UNIC_LOOP(nce_unit_backward) {
  const struct unit *u = context;
  float out[UNIC_ROW];
  for (int64_t r = begin; r < end; r++) {
    const float *y = u->unit + r * u->depth, *d = u->dunit + r * u->depth;
    float f = fabsf(u->inverse[r]);
    double dot = 0;
    if (!(u->inverse[r] < 0)) {
      #pragma omp simd reduction(+ : dot)
      for (int64_t i = 0; i < u->depth; i++) dot += (double)y[i] * d[i];
    }
    for (int64_t j = 0; j < u->depth; j += UNIC_ROW) {
      int64_t c = u->depth - j < UNIC_ROW ? u->depth - j : UNIC_ROW;
      float along = (float)dot;
      #pragma omp simd
      for (int64_t i = 0; i < c; i++) out[i] = (d[j + i] - y[j + i] * along) * f;
      unic_row_put(u->dx, u->dtype, r * u->depth + j, c, out, u->accumulate);
    }
  }
}

/* Rows of a panel: c becomes s, and the rows' sums are taken. */
UNIC_LOOP(nce_rows) {
  const struct nce *n = context;
  for (int64_t r = begin; r < end; r++) {
    float *restrict s = n->s + r * n->pairs, m = -INFINITY, sum = 0, scale = n->scale;
    #pragma omp simd reduction(max : m)
    for (int64_t j = 0; j < n->pairs; j++) {
      float v = scale * s[j];
      s[j] = v;
      m = v > m ? v : m;
    }
    #pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < n->pairs; j++) sum += unic_exp_fallingf(s[j] - m);
    float own = s[n->first + r], l = logf(sum);
    n->diagonal[n->first + r] = own;
    n->row_part[n->first + r] = (double)(m - own) + l;
    if (n->row_lse) n->row_lse[n->first + r] = m + l;
  }
}

/* Columns begin .. end of a panel: their largest value and sum so far. */
UNIC_LOOP(nce_columns) {
  const struct nce *n = context;
  float *restrict most = n->most, *restrict sum = n->sum;
  enum { BLOCK = 256 };
  float now[BLOCK];
  for (int64_t j = begin; j < end; j += BLOCK) {
    int64_t c = end - j < BLOCK ? end - j : BLOCK;
    for (int64_t i = 0; i < c; i++) now[i] = n->first == 0 ? -INFINITY : most[j + i];
    for (int64_t r = 0; r < n->rows; r++) {
      const float *restrict s = n->s + r * n->pairs + j;
      #pragma omp simd
      for (int64_t i = 0; i < c; i++) now[i] = s[i] > now[i] ? s[i] : now[i];
    }
    for (int64_t i = 0; i < c; i++) {
      sum[j + i] = n->first == 0 ? 0 : sum[j + i] * unic_exp_fallingf(most[j + i] - now[i]);
      most[j + i] = now[i];
    }
    for (int64_t r = 0; r < n->rows; r++) {
      const float *restrict s = n->s + r * n->pairs + j;
      float *restrict into = sum + j;
      #pragma omp simd
      for (int64_t i = 0; i < c; i++) into[i] += unic_exp_fallingf(s[i] - now[i]);
    }
  }
}

/* Rows of a panel: c becomes scale ds. */
UNIC_LOOP(nce_rows_backward) {
  const struct nce *n = context;
  for (int64_t r = begin; r < end; r++) {
    float *restrict c = n->s + r * n->pairs, scale = n->scale, lse = n->row_lse[n->first + r], fr = n->row_factor, fc = n->column_factor;
    const float *restrict columns = n->column_lse;
    double part = 0;
    for (int64_t j = 0; j < n->pairs; j += UNIC_ROW) {
      int64_t end_j = n->pairs - j < UNIC_ROW ? n->pairs : j + UNIC_ROW, own = n->first + r;
      float sum = 0, diagonal = own >= j && own < end_j ? c[own] : 0;
      if (fc != 0) {
        #pragma omp simd reduction(+ : sum)
        for (int64_t i = j; i < end_j; i++) {
          float v = c[i], d = fr * unic_exp_fallingf(scale * v - lse) + fc * unic_exp_fallingf(scale * v - columns[i]);
          sum += d * v;
          c[i] = scale * d;
        }
      } else {
        #pragma omp simd reduction(+ : sum)
        for (int64_t i = j; i < end_j; i++) {
          float v = c[i], d = fr * unic_exp_fallingf(scale * v - lse);
          sum += d * v;
          c[i] = scale * d;
        }
      }
      if (own >= j && own < end_j) {
        c[own] -= scale * (fr + fc);
        sum -= (fr + fc) * diagonal;
      }
      part += sum;
    }
    n->scale_part[n->first + r] = part;
  }
}

#else

UNIC_LOOP_TABLE(nce_unit);
UNIC_LOOP_TABLE(nce_unit_backward);
UNIC_LOOP_TABLE(nce_rows);
UNIC_LOOP_TABLE(nce_columns);
UNIC_LOOP_TABLE(nce_rows_backward);

static unic_status info_nce_shape(unic_call *c) {
  unic_dtype wide = unic_dtype_wide(c->type);
  int64_t lse[2] = {2, c->in[A]->shape[0]};
  unic_out(c, LOSS, wide, 0, NULL);
  unic_out(c, LSE, wide, 2, lse);
  return UNIC_OK;
}

static int64_t padded(int64_t floats) { return (floats + 15) & ~(int64_t)15; }

static int64_t panel_rows(int64_t pairs) {
  int64_t rows = (1 << 20) / (pairs > 0 ? pairs : 1);
  if (rows < 16) rows = 16;
  return rows < pairs ? rows : pairs;
}

/* Scratch, in floats. */
typedef struct room { int64_t u, v, du, dv, panel, inverse, rows, parts, total; } room;

static room rooms(const unic_kernel *k) {
  int64_t pairs = k->in[A].shape[0], matrix = padded(pairs * k->in[A].shape[1]), row = padded(pairs);
  room r = {0};
  r.v = matrix;
  r.du = r.v + matrix;
  r.dv = r.du + (k->backward ? matrix : 0);
  r.panel = r.dv + (k->backward ? matrix : 0);
  r.inverse = r.panel + padded(panel_rows(pairs) * pairs);
  r.rows = r.inverse + 2 * row;
  r.parts = r.rows + 3 * row;       /* diagonal, most, sum */
  r.total = r.parts + 2 * row;      /* as doubles */
  return r;
}

static unic_status info_nce_plan(const unic_kernel *k, unic_plan *p) {
  int64_t pairs = k->in[A].shape[0];
  unic_gemm_start();
  p->scratch = k->type == UNIC_F64 ? 2 * pairs * 8 : rooms(k).total * 4;
  return UNIC_OK;
}

static unic_status refused(int64_t pairs, int64_t depth) {
  return unic_fail("[info_nce] oneDNN could not compute a product of [%lld, %lld] by [%lld, %lld]", (long long)pairs, (long long)depth, (long long)depth, (long long)pairs);
}

static int64_t rows_at_once(int64_t columns) { return columns >= 1 << 13 ? 1 : (1 << 13) / (columns > 0 ? columns : 1); }

/* u, v into scratch. */
static void make_units(const unic_kernel *k, float *scratch, const room *at, struct unit unit[2]) {
  int64_t pairs = k->in[A].shape[0];
  for (int i = 0; i < 2; i++) {
    unit[i] = (struct unit){.x = k->in[i].data, .unit = scratch + (i == 0 ? at->u : at->v), .inverse = scratch + at->inverse + i * padded(pairs), .depth = k->in[i].shape[1],
                            .dtype = k->type};
    UNIC_RUN(nce_unit, pairs, rows_at_once(unit[i].depth), &unit[i]);
  }
}

static unic_status info_nce_forward(const unic_kernel *k) {
  int64_t pairs = k->in[A].shape[0], depth = k->in[A].shape[1], rows = panel_rows(pairs);
  bool symmetric = k->arg[SYMMETRIC].integer;
  float *scratch = k->scratch, *loss = k->out[LOSS].data, *lse = k->grad ? k->out[LSE].data : NULL;
  *loss = 0;
  if (pairs == 0) return UNIC_OK;
  room at = rooms(k);
  struct unit unit[2];
  make_units(k, scratch, &at, unit);
  struct nce n = {.s = scratch + at.panel, .diagonal = scratch + at.rows, .row_lse = lse, .most = scratch + at.rows + padded(pairs), .sum = scratch + at.rows + 2 * padded(pairs),
                  .row_part = (double *)(scratch + at.parts), .pairs = pairs, .scale = *(const float *)k->in[SCALE].data};
  for (n.first = 0; n.first < pairs; n.first += rows) {
    n.rows = pairs - n.first < rows ? pairs - n.first : rows;
    if (!unic_gemm(false, 'N', 'T', n.rows, pairs, depth, 1, unit[0].unit + n.first * depth, depth, unit[1].unit, depth, 0, n.s, pairs)) return refused(pairs, depth);
    UNIC_RUN(nce_rows, n.rows, rows_at_once(pairs), &n);
    if (symmetric) UNIC_RUN(nce_columns, pairs, 256, &n);
  }
  double row_sum = 0, column_sum = 0;
  for (int64_t i = 0; i < pairs; i++) row_sum += n.row_part[i];
  for (int64_t j = 0; j < pairs && symmetric; j++) {
    double l = log((double)n.sum[j]);
    column_sum += (double)(n.most[j] - n.diagonal[j]) + l;
    if (lse) lse[pairs + j] = (float)(n.most[j] + l);
  }
  *loss = (float)((symmetric ? 0.5 * (row_sum + column_sum) : row_sum) / (double)pairs);
  return UNIC_OK;
}

static unic_status info_nce_backward(const unic_kernel *k) {
  int64_t pairs = k->in[A].shape[0], depth = k->in[A].shape[1], rows = panel_rows(pairs);
  bool symmetric = k->arg[SYMMETRIC].integer;
  float *scratch = k->scratch, *lse = k->out[LSE].data;
  double dloss = *(const float *)k->dout[LOSS].data, dscale = 0;
  room at = rooms(k);
  float *du = scratch + at.du, *dv = scratch + at.dv;
  if (pairs > 0) {
    struct unit unit[2];
    make_units(k, scratch, &at, unit);
    struct nce n = {.s = scratch + at.panel, .row_lse = lse, .column_lse = lse + pairs, .scale_part = (double *)(scratch + at.parts), .pairs = pairs,
                    .scale = *(const float *)k->in[SCALE].data};
    n.row_factor = (float)(dloss / (double)pairs * (symmetric ? 0.5 : 1));
    n.column_factor = symmetric ? n.row_factor : 0;
    for (n.first = 0; n.first < pairs; n.first += rows) {
      n.rows = pairs - n.first < rows ? pairs - n.first : rows;
      const float *u = unit[0].unit + n.first * depth;
      if (!unic_gemm(false, 'N', 'T', n.rows, pairs, depth, 1, u, depth, unit[1].unit, depth, 0, n.s, pairs)) return refused(pairs, depth);
      UNIC_RUN(nce_rows_backward, n.rows, rows_at_once(pairs), &n);
      if (k->din[A].present && !unic_gemm(false, 'N', 'N', n.rows, depth, pairs, 1, n.s, pairs, unit[1].unit, depth, 0, du + n.first * depth, depth)) return refused(pairs, depth);
      if (k->din[B].present && !unic_gemm(false, 'T', 'N', pairs, depth, n.rows, 1, n.s, pairs, u, depth, n.first > 0, dv, depth)) return refused(pairs, depth);
    }
    for (int64_t i = 0; i < pairs; i++) dscale += n.scale_part[i];
    for (int i = 0; i < 2; i++) {
      if (!k->din[i].present) continue;
      unit[i].dunit = i == 0 ? du : dv;
      unit[i].dx = k->din[i].data;
      unit[i].accumulate = k->accumulate[i];
      UNIC_RUN(nce_unit_backward, pairs, rows_at_once(depth), &unit[i]);
    }
  }
  if (k->din[SCALE].present) {
    float *d = k->din[SCALE].data;
    *d = (float)dscale + (k->accumulate[SCALE] ? *d : 0);
  }
  return UNIC_OK;
}

/* ---------------------------------------------------------------- the plain f64 form */

static double length(const double *x, int64_t n) {
  double sum = 0;
  for (int64_t d = 0; d < n; d++) sum += x[d] * x[d];
  return sqrt(sum);
}

static double cosine(const unic_kernel *k, const double *la, const double *lb, int64_t i, int64_t j) {
  int64_t n = k->in[A].shape[1];
  const double *a = (const double *)k->in[A].data + i * n, *b = (const double *)k->in[B].data + j * n;
  double dot = 0;
  for (int64_t d = 0; d < n; d++) dot += a[d] * b[d];
  return dot / (fmax(la[i], EPS) * fmax(lb[j], EPS));
}

static void lengths(const unic_kernel *k, double *la, double *lb) {
  int64_t n = k->in[A].shape[1];
  for (int64_t i = 0; i < k->in[A].shape[0]; i++) {
    la[i] = length((const double *)k->in[A].data + i * n, n);
    lb[i] = length((const double *)k->in[B].data + i * n, n);
  }
}

static unic_status info_nce_reference(const unic_kernel *k) {
  int64_t pairs = k->in[A].shape[0];
  double *la = k->scratch, *lb = la + pairs, scale = *(const double *)k->in[SCALE].data, loss = 0;
  bool symmetric = k->arg[SYMMETRIC].integer;
  lengths(k, la, lb);
  for (int64_t i = 0; i < pairs; i++) {
    double row = 0, column = 0, own = scale * cosine(k, la, lb, i, i);
    for (int64_t j = 0; j < pairs; j++) {
      row += exp(scale * cosine(k, la, lb, i, j) - own);
      if (symmetric) column += exp(scale * cosine(k, la, lb, j, i) - own);
    }
    loss += symmetric ? 0.5 * (log(row) + log(column)) : log(row);
    if (k->grad) {
      ((double *)k->out[LSE].data)[i] = log(row) + own;
      ((double *)k->out[LSE].data)[pairs + i] = symmetric ? log(column) + own : 0;
    }
  }
  *(double *)k->out[LOSS].data = pairs > 0 ? loss / (double)pairs : 0;
  return UNIC_OK;
}

static unic_status info_nce_reference_backward(const unic_kernel *k) {
  int64_t pairs = k->in[A].shape[0], n = k->in[A].shape[1];
  double *la = k->scratch, *lb = la + pairs, scale = *(const double *)k->in[SCALE].data, dloss = *(const double *)k->dout[LOSS].data, dscale = 0;
  const double *a = k->in[A].data, *b = k->in[B].data, *lse = k->out[LSE].data;
  double *da = k->din[A].data, *db = k->din[B].data;
  bool symmetric = k->arg[SYMMETRIC].integer;
  lengths(k, la, lb);
  for (int64_t e = 0; e < pairs * n; e++) {
    if (da && !k->accumulate[A]) da[e] = 0;
    if (db && !k->accumulate[B]) db[e] = 0;
  }
  for (int64_t i = 0; i < pairs; i++)
    for (int64_t j = 0; j < pairs; j++) {
      double c = cosine(k, la, lb, i, j), p = exp(scale * c - lse[i]);
      double ds = symmetric ? 0.5 * (p + exp(scale * c - lse[pairs + j])) - (i == j) : p - (i == j);
      ds *= dloss / (double)pairs;
      dscale += ds * c;
      /* c = a.b / (|a| |b|): dc/da = (b / |b| - c a / |a|) / |a|, without the second term where |a| is held at eps. */
      double ma = fmax(la[i], EPS), mb = fmax(lb[j], EPS);
      for (int64_t d = 0; d < n; d++) {
        double u = a[i * n + d] / ma, v = b[j * n + d] / mb;
        if (da) da[i * n + d] += ds * scale * (v - (la[i] > EPS ? c * u : 0)) / ma;
        if (db) db[j * n + d] += ds * scale * (u - (lb[j] > EPS ? c * v : 0)) / mb;
      }
    }
  if (k->din[SCALE].present) {
    double *d = k->din[SCALE].data;
    *d = dscale + (k->accumulate[SCALE] ? *d : 0);
  }
  return UNIC_OK;
}

static double info_nce_flops(const unic_kernel *k) { return 2.0 * (double)k->in[A].shape[0] * (double)k->in[A].numel * unic_products(k, A, B); }

static const unic_op op_info_nce = {
  .name = "info_nce",
  .signature = "a: tensor[K,D], b: tensor[K,D], scale: scalar, symmetric: bool = true -> loss, (lse)",
  .doc = "Contrastive loss: row i of a belongs to row i of b, all other rows are negatives. Rows are brought to length one first.\n"
         "a          embeddings [K, D]\n"
         "b          the other side's embeddings [K, D]\n"
         "scale      1 / temperature, a number or a 0-d tensor (which gets a gradient)\n"
         "symmetric  mean of both directions, or a against b only",
  .saves = "a b scale lse",
  .grads = "a b scale",
  .shape = info_nce_shape,
  .cpu = {info_nce_forward, info_nce_backward, info_nce_reference, info_nce_reference_backward, .plan = info_nce_plan},
  .flags = UNIC_OP_SAME_THREADS,
  .autocast = UNIC_CAST_NONE,   /* computes in f32 whatever the storage: a copy in f32 would bring nothing */
  .flops = info_nce_flops,
};

UNIC_OPS(info_nce, &op_info_nce);

#endif
