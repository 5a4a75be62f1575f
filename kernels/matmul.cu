/* matmul on the GPU (kernels/matmul.c): a plan turns the leading dimensions into loops and sums of one product each for y, da and db (runtime/cuda/blas.h),
 * which says how it is launched. Operands of any strides are read where they lie. A broadcast operand's gradient is summed by the product over those
 * dimensions, folded into K where the strides allow. f64 goes the same way. */
#include "product.cuh"

#include <cstdlib>

namespace {

enum { A, B };

/* The operands of a call as matrices over y's leading dimensions. */
struct frame { int lead; int64_t m, n, k, shape[UNIC_MAX_RANK]; bool a_vector, b_vector; };
/* Strides of an operand over the frame's leading dimensions (0: broadcast), its rows and its columns. */
struct look { int64_t lead[UNIC_MAX_RANK], row, col; bool broadcast[UNIC_MAX_RANK]; };

frame frame_of(const unic_view *a, const unic_view *b, const unic_view *y) {
  frame f = {};
  f.a_vector = a->ndim == 1;
  f.b_vector = b->ndim == 1;
  f.lead = y->ndim - !f.a_vector - !f.b_vector;
  for (int d = 0; d < f.lead; d++) f.shape[d] = y->shape[d];
  f.k = a->shape[a->ndim - 1];
  f.m = f.a_vector ? 1 : a->shape[a->ndim - 2];
  f.n = f.b_vector ? 1 : b->shape[b->ndim - 1];
  return f;
}

look look_at(const unic_view *v, const frame &f, bool vector, bool left) {
  look l = {};
  int own = vector ? 0 : v->ndim - 2;
  for (int d = 0; d < f.lead; d++) {
    int i = d - (f.lead - own);
    l.broadcast[d] = i < 0 || (v->shape[i] == 1 && f.shape[d] != 1);
    l.lead[d] = l.broadcast[d] ? 0 : v->stride[i];
  }
  if (vector) {
    l.row = left ? 0 : v->stride[0];
    l.col = left ? v->stride[0] : 0;
  } else {
    l.row = v->stride[v->ndim - 2];
    l.col = v->stride[v->ndim - 1];
  }
  return l;
}

look look_at_y(const unic_view *v, const frame &f) {
  look l = {};
  for (int d = 0; d < f.lead; d++) l.lead[d] = v->stride[d];
  int d = f.lead;
  l.row = f.a_vector ? 0 : v->stride[d++];
  l.col = f.b_vector ? 0 : v->stride[d];
  return l;
}

look turned(look l) {
  int64_t row = l.row;
  l.row = l.col;
  l.col = row;
  return l;
}

struct matmul_plan { unic_cuda_product y, da, db; };

void matmul_plan_free(void *data) {
  matmul_plan *plan = (matmul_plan *)data;
  unic_cuda_product_free(&plan->y);
  unic_cuda_product_free(&plan->da);
  unic_cuda_product_free(&plan->db);
  free(plan);
}

/* D = A B over the frame's leading dimensions; those in which D is broadcast are summed. */
unic_status plan_one(const unic_kernel *k, unic_cuda_product *p, const frame &f, int64_t m, int64_t n, int64_t inner, const look &a, const look &b, const look &d, int accumulate) {
  p->m = m; p->n = n; p->k = inner;
  p->a_row = a.row; p->a_col = a.col; p->b_row = b.row; p->b_col = b.col; p->d_row = d.row; p->d_col = d.col;
  p->dtype = p->d_dtype = (uint8_t)k->type;
  p->alpha = 1;
  p->beta = accumulate;
  for (int l = 0; l < f.lead; l++) {
    if (d.broadcast[l]) {
      int i = p->sums++;
      p->sum[i] = f.shape[l]; p->a_sum[i] = a.lead[l]; p->b_sum[i] = b.lead[l];
    } else {
      int i = p->loops++;
      p->count[i] = f.shape[l]; p->a_loop[i] = a.lead[l]; p->b_loop[i] = b.lead[l]; p->d_loop[i] = d.lead[l];
    }
  }
  return unic_cuda_product_plan(k, p);
}

unic_status matmul_plan_make(const unic_kernel *k, unic_plan *p) {
  matmul_plan *plan = (matmul_plan *)calloc(1, sizeof *plan);
  if (!plan) return unic_cuda_host->fail("[matmul] no memory for its plan");
  p->data = plan;
  p->free = matmul_plan_free;
  frame f = frame_of(&k->in[A], &k->in[B], &k->out[0]);
  look a = look_at(&k->in[A], f, f.a_vector, true), b = look_at(&k->in[B], f, f.b_vector, false);
  if (!k->backward) {
    UNIC_TRY(plan_one(k, &plan->y, f, f.m, f.n, f.k, a, b, look_at_y(&k->out[0], f), 0));
  } else {
    look y = look_at_y(&k->dout[0], f);
    if (k->din[A].present)
      UNIC_TRY(plan_one(k, &plan->da, f, f.m, f.k, f.n, y, turned(b), look_at(&k->din[A], f, f.a_vector, true), k->accumulate[A]));
    if (k->din[B].present)
      UNIC_TRY(plan_one(k, &plan->db, f, f.k, f.n, f.m, turned(a), y, look_at(&k->din[B], f, f.b_vector, false), k->accumulate[B]));
  }
  for (const unic_cuda_product *q : {&plan->y, &plan->da, &plan->db}) if (q->scratch > p->scratch) p->scratch = q->scratch;
  return UNIC_OK;
}

unic_status matmul_forward(const unic_kernel *k) {
  const matmul_plan *plan = (const matmul_plan *)k->plan;
  return unic_cuda_product_run(k, &plan->y, k->in[A].data, k->in[B].data, k->out[0].data, nullptr, k->scratch);
}

unic_status matmul_backward(const unic_kernel *k) {
  const matmul_plan *plan = (const matmul_plan *)k->plan;
  if (k->din[A].present) UNIC_TRY(unic_cuda_product_run(k, &plan->da, k->dout[0].data, k->in[B].data, k->din[A].data, nullptr, k->scratch));
  if (k->din[B].present) UNIC_TRY(unic_cuda_product_run(k, &plan->db, k->in[A].data, k->dout[0].data, k->din[B].data, nullptr, k->scratch));
  return UNIC_OK;
}

}

UNIC_CUDA_OPS(matmul, {"matmul", {.forward = matmul_forward, .backward = matmul_backward, .plan = matmul_plan_make}});
