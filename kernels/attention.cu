/* attention, self_attention on the GPU (kernels/attention.c): scaled dot-product attention with mask, causality and dropout. The S x L matrix never exists.
 *
 *   bf16, f16, depth <= 128   attention_mma.cuh: tensor cores, sums in f32, weights rounded to the type between the two products
 *   f32, depth <= 128         attention_f32.cuh: f32 throughout
 *   f64; any deeper           attention_plain.cuh
 *
 * Forward is one launch: q and y move once, k and v once per block of 64 queries. Backward is two: blocks of queries first (the sums sum_j p dp of each
 * query into scratch, and dq), then blocks of keys (dk, dv). Nothing is added to from two blocks and all orders are those of the shapes: the bits are
 * equal from run to run. y is made again by the same launch, and with dropout a thread then moves the generator on.
 * What is not of whole aligned 16-byte rows is read and written element by element; the arithmetic is the same. */
#include "attention.cuh"
#include "attention_f32.cuh"
#include "attention_mma.cuh"
#include "attention_plain.cuh"

#include <math.h>

namespace {

/* Where the arguments of the two ops stand. */
struct places { int q, k, v, mask, scale, causal, dropout, rng; };
const places of_three = {0, 1, 2, 3, 4, 5, 6, 7}, of_packed = {0, 0, 0, 1, 2, 3, 4, 5};
enum { Y, LSE, STATE };
enum { FAST_DEPTH = 128 };

/* q (0), k (1) or v (2) of a packed tensor [B,S,3,H,D], or all of [B,S,H,D]. */
heads heads_of(const unic_view *v, bool packed, int which) {
  int h = packed ? 3 : 2, d = h + 1;
  heads x = {v->data, v->stride[0], v->stride[1], v->stride[h], v->shape[d] == 1 ? 1 : v->stride[d], false};
  int64_t size = unic_dtype_size((unic_dtype)v->dtype), offset = packed ? which * v->stride[2] * size : 0;
  if (!x.data) return x;
  x.data = (char *)x.data + offset;
  /* A dimension of 1 may carry any stride. */
  if (v->shape[0] <= 1) x.batch = 0;
  if (v->shape[1] <= 1) x.row = 0;
  if (v->shape[h] <= 1) x.head = 0;
  int64_t piece = 16 / size;
  x.wide = x.col == 1 && v->shape[d] % piece == 0 && x.batch % piece == 0 && x.row % piece == 0 && x.head % piece == 0 && (uintptr_t)x.data % 16 == 0;
  return x;
}

attention describe(const unic_kernel *k, const places &at) {
  bool packed = at.k == at.q;
  const unic_view *q = &k->in[at.q], *mask = &k->in[at.mask];
  attention a = {};
  a.batches = (int)q->shape[0];
  a.queries = (int)q->shape[1];
  a.keys = packed ? a.queries : (int)k->in[at.k].shape[1];
  a.heads = (int)q->shape[packed ? 3 : 2];
  a.depth = (int)q->shape[packed ? 4 : 3];
  heads *in[3] = {&a.q, &a.k, &a.v}, *din[3] = {&a.dq, &a.dk, &a.dv};
  int from[3] = {at.q, at.k, at.v};
  for (int i = 0; i < 3; i++) {
    *in[i] = heads_of(&k->in[from[i]], packed, i);
    if (k->backward && k->din[from[i]].present) *din[i] = heads_of(&k->din[from[i]], packed, i);
  }
  if (k->backward) {
    a.dy = heads_of(&k->dout[Y], false, 0);
    a.accumulate_q = k->accumulate[at.q];
    a.accumulate_k = k->accumulate[at.k];
    a.accumulate_v = k->accumulate[at.v];
  } else {
    a.y = heads_of(&k->out[Y], false, 0);
  }
  if (mask->present && mask->data) {
    int n = mask->ndim;
    a.mask = mask->data;
    a.mask_dtype = mask->dtype;
    a.mask_chooses = !unic_dtype_is_float((unic_dtype)mask->dtype);
    a.mask_batch = mask->shape[0] == 1 ? 0 : mask->stride[0];
    a.mask_head = n < 4 || mask->shape[1] == 1 ? 0 : mask->stride[1];
    a.mask_query = n < 3 || mask->shape[n - 2] == 1 ? 0 : mask->stride[n - 2];
  }
  double scale = k->arg[at.scale].number, dropout = k->arg[at.dropout].number;
  a.scale = scale != 0 ? scale : 1 / sqrt((double)(a.depth > 0 ? a.depth : 1));
  a.causal = k->arg[at.causal].integer;
  uint64_t threshold = unic_random_threshold(dropout);
  a.drop_all = threshold > UINT32_MAX;
  a.threshold = a.drop_all ? UINT32_MAX : (uint32_t)threshold;
  a.keep = a.drop_all ? 0 : 1 / (1 - dropout);
  return a;
}

/* Where the generator was when this op began, for its backward; and on past this op's numbers. */
__global__ void attention_numbers(long long *rng, long long *state, long long blocks) {
  if (state) {
    state[0] = rng[0];
    state[1] = rng[1];
  }
  rng[1] += blocks;
}

unic_status forward(const unic_kernel *k, const places &at) {
  attention a = describe(k, at);
  long long *state = (long long *)k->out[STATE].data, *rng = (long long *)k->in[at.rng].data;
  a.state = k->remake ? state : rng;
  a.lse = k->grad && !k->remake ? k->out[LSE].data : nullptr;
  unic_status status = UNIC_OK;
  if ((int64_t)a.batches * a.heads * a.queries * a.depth > 0) {
    bool fast = a.depth <= FAST_DEPTH;
    status = unic_floats(k->type, [&](auto t) {
      using T = decltype(t);
      if constexpr (sizeof(T) == 2) { if (fast) return mma_forward<T>(k, a); }
      if constexpr (sizeof(T) == 4) { if (fast) return f32_forward(k, a); }
      return plain_forward<T>(k, a);
    });
  }
  if (status == UNIC_OK && !k->remake && a.threshold)
    UNIC_LAUNCH((attention_numbers), 1, 1, 0, unic_cuda_stream(k), rng, k->grad ? state : nullptr,
                unic_random_blocks((int64_t)a.batches * a.heads * a.queries * a.keys));
  return status;
}

unic_status backward(const unic_kernel *k, const places &at) {
  attention a = describe(k, at);
  a.state = (const long long *)k->out[STATE].data;
  a.lse = k->out[LSE].data;
  a.sums = k->scratch;
  if ((int64_t)a.batches * a.heads * a.depth == 0) return UNIC_OK;
  bool fast = a.depth <= FAST_DEPTH;
  return unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) == 2) { if (fast) return mma_backward<T>(k, a); }
    if constexpr (sizeof(T) == 4) { if (fast) return f32_backward(k, a); }
    return plain_backward<T>(k, a);
  });
}

unic_status plan(const unic_kernel *k, unic_plan *p, const places &at) {
  attention a = describe(k, at);
  p->scratch = k->backward ? (int64_t)a.batches * a.heads * a.queries * unic_dtype_size(unic_dtype_wide(k->type)) : 0;
  return UNIC_OK;
}

unic_status attention_forward(const unic_kernel *k) { return forward(k, of_three); }
unic_status attention_backward(const unic_kernel *k) { return backward(k, of_three); }
unic_status attention_plan(const unic_kernel *k, unic_plan *p) { return plan(k, p, of_three); }
unic_status self_attention_forward(const unic_kernel *k) { return forward(k, of_packed); }
unic_status self_attention_backward(const unic_kernel *k) { return backward(k, of_packed); }
unic_status self_attention_plan(const unic_kernel *k, unic_plan *p) { return plan(k, p, of_packed); }

}

UNIC_CUDA_OPS(attention,
  {"attention", {.forward = attention_forward, .backward = attention_backward, .remake = attention_forward, .plan = attention_plan}},
  {"self_attention", {.forward = self_attention_forward, .backward = self_attention_backward, .remake = self_attention_forward, .plan = self_attention_plan}});
