/* attention, self_attention: scaled dot-product attention with mask, causality and dropout.
 *
 *   s[b,h,i,j] = scale sum_d q[b,i,h,d] k[b,j,h,d] + mask      p = softmax over j of s      y[b,i,h,d] = sum_j drop(p)[b,h,i,j] v[b,j,h,d]
 *
 * q, y [B,S,H,D], k, v [B,L,H,D]; self_attention takes them packed, qkv [B,S,3,H,D], and its gradient is one packed buffer.
 * mask: [B,L], [B,S,L] or [B,H,S,L] (leading sizes may be 1); bool or u8: nonzero = attend; a floating type is added to s. It has no gradient.
 * causal: query i attends to keys 0 .. i. A query that may attend to nothing gives y = 0 and no gradient.
 * dropout: element e = ((b H + h) S + i) L + j of p is dropped by number e of the generator's stream, kept ones are divided by 1 - dropout.
 *
 * Fast form: for one head and a block of queries the scores stay in the L2 cache (q k' by oneDNN, softmax, p v by oneDNN); the S x L matrix
 * never exists. Backward computes p again from the saved log-sum-exp:
 *   dv = drop(p)' dy    dp = drop(dy v')    ds = scale p (dp - sum_j p dp)    dq = ds k    dk = ds' q
 * q, k, v, y and their gradients are read and written where they are when D is contiguous and f32; otherwise head by head through scratch.
 * Keys behind the last one that a key mask or causality lets through are not computed. On AVX-512 the products are attention_tiles.h's, where
 * depths are whole vectors.
 *
 * Saved: q, k, v, mask, lse [B,H,S] (log of the sum of exp(s); +inf where nothing is attended to), state of the generator. y is made again from these (remake.h).
 * Bits: equal at any thread count: a head (backward) or a block of queries (forward) belongs to one thread, products inside run on that thread.
 * The file is over 500 lines because both ops and their plain f64 forms share one description of strides, masks and numbers.
 * Source: T. Dao et al., FlashAttention (2022), for the recomputation. */
#include "loops.h"
#include "gemm.h"

enum { PACKED = 1 };

/* [B, rows, H, D] in memory; col is the stride of D. */
struct heads { void *data; int64_t batch, row, head, col; int dtype; };

struct attention {
  int64_t batches, heads, queries, keys, depth;         /* B H S L D */
  struct heads q, k, v, y, dy, dq, dk, dv;
  const void *mask;
  int64_t mask_batch, mask_head, mask_query;            /* strides; keys are contiguous */
  int mask_dtype;
  float *lse;
  float scale, keep;                                    /* keep: 1/(1 - dropout) */
  bool causal, drop_all;
  bool tiles, low;                                      /* products by attention_tiles.h; in bf16 */
  uint32_t threshold;                                   /* numbers below it are dropped; 0: no dropout */
  uint64_t seed, counter;
  int accumulate_q, accumulate_k, accumulate_v;
  int64_t rows, blocks, ld;                             /* queries per block, blocks per head, floats between rows of scores */
  float *scratch;
  int64_t scratch_floats;                               /* of one thread */
  _Atomic int failed;
};

static inline int64_t attention_padded(int64_t floats) { return (floats + 15) & ~(int64_t)15; }

/* Numbers that row_bits makes for a row of that many keys, at most. */
#define BITS_ROOM(keys) attention_padded(attention_padded(keys) + 34)

/* Can oneDNN use a head of this as it lies? */
static inline bool heads_plain(const struct heads *h, int64_t depth) { return h->dtype == UNIC_F32 && h->col == 1 && h->row >= depth; }

#if UNIC_LOOPS

#include <float.h>

static inline void *head_at(const struct heads *x, int64_t b, int64_t h, int64_t row) {
  return unic_at(x->data, x->dtype, b * x->batch + h * x->head + row * x->row);
}

/* rows x depth of a head as f32, row after row; in place when that is possible. Returns the data and its leading dimension. */
static const float *head_load(const struct heads *x, int64_t b, int64_t h, int64_t first, int64_t rows, int64_t depth, float *buffer, int64_t *ld) {
  if (heads_plain(x, depth)) {
    *ld = x->row;
    return head_at(x, b, h, first);
  }
  *ld = depth;
  for (int64_t r = 0; r < rows; r++) {
    const void *from = head_at(x, b, h, first + r);
    float *restrict to = buffer + r * depth;
    if (x->col != 1) {
      for (int64_t d = 0; d < depth; d++) {
        float one;
        to[d] = unic_row_load(from, x->dtype, d * x->col, 1, &one)[0];
      }
    } else if (x->dtype == UNIC_F32) {
      const float *f = from;
      for (int64_t d = 0; d < depth; d++) to[d] = f[d];
    } else {
      unic_row_load(from, x->dtype, 0, depth, to);
    }
  }
  return buffer;
}

/* The way back for results in scratch, with accumulation. */
static void head_store(const struct heads *x, int64_t b, int64_t h, int64_t first, int64_t rows, int64_t depth, const float *from, int accumulate) {
  for (int64_t r = 0; r < rows; r++) {
    void *to = head_at(x, b, h, first + r);
    if (x->col == 1) unic_row_put(to, x->dtype, 0, depth, from + r * depth, accumulate);
    else for (int64_t d = 0; d < depth; d++) unic_row_put(to, x->dtype, d * x->col, 1, from + r * depth + d, accumulate);
  }
}

/* Keys of a head that any of the queries [first, first + rows) may attend to: all later ones are left out of the products. */
static int64_t keys_needed(const struct attention *a, int64_t b, int64_t h, int64_t last_query) {
  int64_t n = a->keys;
  if (a->causal && last_query + 1 < n) n = last_query + 1;
  if (a->mask && a->mask_query == 0 && (a->mask_dtype == UNIC_BOOL || a->mask_dtype == UNIC_U8)) {
    const uint8_t *m = (const uint8_t *)a->mask + b * a->mask_batch + h * a->mask_head;
    while (n > 0 && !m[n - 1]) n--;
  }
  return n;
}

/* Scores of query i: the mask comes in and columns n .. all become -inf. */
static void row_mask(const struct attention *a, int64_t b, int64_t h, int64_t i, float *restrict s, int64_t n) {
  int64_t at = b * a->mask_batch + h * a->mask_head + i * a->mask_query;
  if (a->mask_dtype == UNIC_BOOL || a->mask_dtype == UNIC_U8) {
    const uint8_t *restrict m = (const uint8_t *)a->mask + at;
    #pragma omp simd
    for (int64_t j = 0; j < n; j++) s[j] = m[j] ? s[j] : -INFINITY;
  } else if (a->mask_dtype == UNIC_F64) {
    const double *restrict m = (const double *)a->mask + at;
    for (int64_t j = 0; j < n; j++) s[j] += (float)m[j];
  } else {
    float buffer[UNIC_ROW];
    for (int64_t j = 0; j < n; j += UNIC_ROW) {
      int64_t c = n - j < UNIC_ROW ? n - j : UNIC_ROW;
      const float *m = unic_row_load(a->mask, a->mask_dtype, at + j, c, buffer);
      float *restrict t = s + j;
      #pragma omp simd
      for (int64_t e = 0; e < c; e++) t[e] += m[e];
    }
  }
}

/* Rows of scores are worked on in whole vectors, up to a multiple of 16 that the compiler can see: the last few elements one by one would take as long as
 * a hundred before them. */
static inline int64_t whole(int64_t n) { return n & ~(int64_t)15; }

static inline float row_max(const float *restrict s, int64_t wide) {
  float m = -INFINITY;
  #pragma omp simd reduction(max : m)
  for (int64_t j = 0; j < whole(wide); j++) m = s[j] > m ? s[j] : m;
  return m;
}

/* The first n numbers of query i's row of the [B,H,S,L] stream. A row begins anywhere in a block of four, and numbers come cheapest in whole
 * runs of 32 (eight blocks side by side): a few more than needed are made on both sides. */
static inline const uint32_t *row_bits(const struct attention *a, int64_t b, int64_t h, int64_t i, int64_t n, uint32_t *buffer) {
  int64_t first = ((b * a->heads + h) * a->queries + i) * a->keys, ahead = first & 3;
  unic_random_row(a->seed, a->counter, first - ahead, (ahead + n + 31) & ~(int64_t)31, buffer);
  return buffer + ahead;
}

static inline void row_fill(float *restrict s, int64_t from, int64_t to, float value) { for (int64_t j = from; j < to; j++) s[j] = value; }

/* s[0, wide) = exp(s - m), dropped and not yet normalised; returns the sum before dropout. */
static float row_exp(const struct attention *a, float *restrict s, int64_t wide, float m, const uint32_t *restrict bits) {
  float sum = 0;
  #pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < whole(wide); j++) {
    float e = unic_exp_fallingf(s[j] - m);
    s[j] = e;
    sum += e;
  }
  if (bits) {
    uint32_t threshold = a->threshold;
    #pragma omp simd
    for (int64_t j = 0; j < whole(wide); j++) s[j] = bits[j] < threshold ? 0.0f : s[j];
  }
  return sum;
}

/* The n scores s of query i become exp(s - max), dropped; 0 behind its last key, up to whole vectors; the log-sum-exp is noted. Returns what y is to be
 * multiplied with. */
static float forward_row(const struct attention *a, int64_t b, int64_t h, int64_t i, float *restrict s, int64_t n, uint32_t *bits) {
  int64_t own = a->causal && i + 1 < n ? i + 1 : n, wide = attention_padded(n);
  if (a->mask) row_mask(a, b, h, i, s, own);
  row_fill(s, own, wide, -INFINITY);
  float m = row_max(s, wide), sum = 0;
  bool nothing = m == -INFINITY;
  if (nothing) for (int64_t j = 0; j < own; j++) nothing = nothing && s[j] == s[j];   /* NaN is not "masked" */
  if (nothing) own = 0;
  else sum = row_exp(a, s, wide, m, a->threshold ? row_bits(a, b, h, i, wide, bits) : NULL);
  row_fill(s, own, wide, 0);
  if (a->lse) a->lse[(b * a->heads + h) * a->queries + i] = nothing ? INFINITY : m + logf(sum);
  return nothing || a->drop_all ? 0 : a->keep / sum;
}

/* One row of scores s and of dp = dy v' becomes drop(p) and ds. */
static void row_backward(const struct attention *a, float *restrict s, float *restrict dp, int64_t wide, float lse, const uint32_t *restrict bits) {
  float sum = 0, scale = a->scale;
  if (!bits) {
    #pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < whole(wide); j++) {
      float p = unic_exp_fallingf(s[j] - lse);
      s[j] = p;
      sum += p * dp[j];
    }
    #pragma omp simd
    for (int64_t j = 0; j < whole(wide); j++) dp[j] = scale * s[j] * (dp[j] - sum);
    return;
  }
  uint32_t threshold = a->threshold;
  float keep = a->keep;
  #pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < whole(wide); j++) {
    float p = unic_exp_fallingf(s[j] - lse), d = bits[j] < threshold ? 0.0f : keep * dp[j];
    s[j] = p;
    dp[j] = d;
    sum += p * d;
  }
  #pragma omp simd
  for (int64_t j = 0; j < whole(wide); j++) {
    float p = s[j];
    dp[j] = scale * p * (dp[j] - sum);
    s[j] = bits[j] < threshold ? 0.0f : keep * p;
  }
}

/* The same with mask and dropout for query i; 0 behind its last key, where neither NaN nor Inf of the row may go. */
static void backward_row(const struct attention *a, int64_t b, int64_t h, int64_t i, float *restrict s, float *restrict dp, int64_t n, uint32_t *bits) {
  int64_t own = a->causal && i + 1 < n ? i + 1 : n, wide = attention_padded(n);
  if (a->drop_all) own = 0;
  if (a->mask) row_mask(a, b, h, i, s, own);
  row_fill(s, own, wide, -INFINITY);
  row_fill(dp, own, wide, 0);
  if (own > 0) row_backward(a, s, dp, wide, a->lse[(b * a->heads + h) * a->queries + i], a->threshold ? row_bits(a, b, h, i, wide, bits) : NULL);
  row_fill(s, own, wide, 0);
  row_fill(dp, own, wide, 0);
}

#if defined(__AVX512F__)
#include "attention_tiles.h"
#endif

/* Blocks of queries, item = (b H + h) blocks + block. */
UNIC_LOOP(attention_forward_heads) {
  struct attention *a = context;
#if defined(__AVX512F__)
  if (a->tiles) {
    tiles_forward(a, begin, end);
    return;
  }
#endif
  int64_t depth = a->depth, now = -1, ldk = 0, ldv = 0, ldq = 0, ldy = a->y.row;
  float *scores = a->scratch + unic_thread_index() * a->scratch_floats, *free = scores + attention_padded(a->rows * a->ld);
  uint32_t *bits = NULL;
  float *k_buffer = NULL, *v_buffer = NULL, *q_buffer = NULL, *y_buffer = NULL;
  if (a->threshold) { bits = (uint32_t *)free; free += BITS_ROOM(a->keys); }
  if (!heads_plain(&a->k, depth)) { k_buffer = free; free += attention_padded(a->keys * depth); }
  if (!heads_plain(&a->v, depth)) { v_buffer = free; free += attention_padded(a->keys * depth); }
  if (!heads_plain(&a->q, depth)) { q_buffer = free; free += attention_padded(a->rows * depth); }
  if (!heads_plain(&a->y, depth)) { y_buffer = free; ldy = depth; }
  const float *k = NULL, *v = NULL;
  for (int64_t item = begin; item < end; item++) {
    int64_t head = item / a->blocks, b = head / a->heads, h = head % a->heads, first = item % a->blocks * a->rows;
    int64_t rows = a->queries - first < a->rows ? a->queries - first : a->rows;
    if (head != now) {
      int64_t all = k_buffer || v_buffer ? keys_needed(a, b, h, a->queries - 1) : 0;
      k = head_load(&a->k, b, h, 0, all, depth, k_buffer, &ldk);
      v = head_load(&a->v, b, h, 0, all, depth, v_buffer, &ldv);
      now = head;
    }
    int64_t n = keys_needed(a, b, h, first + rows - 1);
    const float *q = head_load(&a->q, b, h, first, rows, depth, q_buffer, &ldq);
    float *y = y_buffer ? y_buffer : head_at(&a->y, b, h, first);
    if (!unic_gemm(true, 'N', 'T', rows, n, depth, a->scale, q, ldq, k, ldk, 0, scores, a->ld)) a->failed = 1;
    float share[UNIC_ROW];   /* what each row is multiplied with after the second product; rows <= UNIC_ROW */
    for (int64_t r = 0; r < rows; r++) share[r] = forward_row(a, b, h, first + r, scores + r * a->ld, n, bits);
    if (!unic_gemm(true, 'N', 'N', rows, depth, n, 1, scores, a->ld, v, ldv, 0, y, ldy)) a->failed = 1;
    for (int64_t r = 0; r < rows; r++) {
      float *restrict to = y + r * ldy, f = share[r];
      #pragma omp simd
      for (int64_t d = 0; d < depth; d++) to[d] *= f;
    }
    if (y_buffer) head_store(&a->y, b, h, first, rows, depth, y_buffer, 0);
  }
}

/* Heads, item = b H + h. */
UNIC_LOOP(attention_backward_heads) {
  struct attention *a = context;
#if defined(__AVX512F__)
  if (a->tiles) {
    tiles_backward(a, begin, end);
    return;
  }
#endif
  int64_t depth = a->depth, ldk, ldv, ldq, lddy, lddq = depth, lddk = depth, lddv = depth;
  float *scores = a->scratch + unic_thread_index() * a->scratch_floats, *dp = scores + attention_padded(a->rows * a->ld), *free = dp + attention_padded(a->rows * a->ld);
  uint32_t *bits = NULL;
  float *k_buffer = NULL, *v_buffer = NULL, *q_buffer = NULL, *dy_buffer = NULL, *dq_buffer = NULL, *dk_buffer = NULL, *dv_buffer = NULL;
  if (a->threshold) { bits = (uint32_t *)free; free += BITS_ROOM(a->keys); }
  if (!heads_plain(&a->k, depth)) { k_buffer = free; free += attention_padded(a->keys * depth); }
  if (!heads_plain(&a->v, depth)) { v_buffer = free; free += attention_padded(a->keys * depth); }
  if (!heads_plain(&a->q, depth)) { q_buffer = free; free += attention_padded(a->rows * depth); }
  if (!heads_plain(&a->dy, depth)) { dy_buffer = free; free += attention_padded(a->rows * depth); }
  if (a->dq.data && !heads_plain(&a->dq, depth)) { dq_buffer = free; free += attention_padded(a->rows * depth); }
  if (a->dk.data && !heads_plain(&a->dk, depth)) { dk_buffer = free; free += attention_padded(a->keys * depth); }
  if (a->dv.data && !heads_plain(&a->dv, depth)) { dv_buffer = free; }
  for (int64_t item = begin; item < end; item++) {
    int64_t b = item / a->heads, h = item % a->heads, most = keys_needed(a, b, h, a->queries - 1);
    const float *k = head_load(&a->k, b, h, 0, most, depth, k_buffer, &ldk), *v = head_load(&a->v, b, h, 0, most, depth, v_buffer, &ldv);
    float *dk = dk_buffer, *dv = dv_buffer;
    if (a->dk.data && !dk) { dk = head_at(&a->dk, b, h, 0); lddk = a->dk.row; }
    if (a->dv.data && !dv) { dv = head_at(&a->dv, b, h, 0); lddv = a->dv.row; }
    /* The first block that is computed writes, later ones add; keys that no query needs have gradient zero. */
    float beta_k = !dk_buffer && a->accumulate_k ? 1 : 0, beta_v = !dv_buffer && a->accumulate_v ? 1 : 0;
    int64_t from = a->queries > 0 ? most : 0;
    if (dk && beta_k == 0) for (int64_t j = from; j < a->keys; j++) row_fill(dk + j * lddk, 0, depth, 0);
    if (dv && beta_v == 0) for (int64_t j = from; j < a->keys; j++) row_fill(dv + j * lddv, 0, depth, 0);
    /* The last block first: under causality it is the one that needs all keys. */
    for (int64_t block = a->blocks - 1; block >= 0; block--) {
      int64_t first = block * a->rows, rows = a->queries - first < a->rows ? a->queries - first : a->rows, n = keys_needed(a, b, h, first + rows - 1);
      const float *q = head_load(&a->q, b, h, first, rows, depth, q_buffer, &ldq), *dy = head_load(&a->dy, b, h, first, rows, depth, dy_buffer, &lddy);
      if (!unic_gemm(true, 'N', 'T', rows, n, depth, a->scale, q, ldq, k, ldk, 0, scores, a->ld)) a->failed = 1;
      if (!unic_gemm(true, 'N', 'T', rows, n, depth, 1, dy, lddy, v, ldv, 0, dp, a->ld)) a->failed = 1;
      for (int64_t r = 0; r < rows; r++) backward_row(a, b, h, first + r, scores + r * a->ld, dp + r * a->ld, n, bits);
      if (dv && !unic_gemm(true, 'T', 'N', n, depth, rows, 1, scores, a->ld, dy, lddy, beta_v, dv, lddv)) a->failed = 1;
      if (dk && !unic_gemm(true, 'T', 'N', n, depth, rows, 1, dp, a->ld, q, ldq, beta_k, dk, lddk)) a->failed = 1;
      beta_k = beta_v = 1;
      if (a->dq.data) {
        float *dq = dq_buffer;
        if (!dq) { dq = head_at(&a->dq, b, h, first); lddq = a->dq.row; }
        if (!unic_gemm(true, 'N', 'N', rows, depth, n, 1, dp, a->ld, k, ldk, !dq_buffer && a->accumulate_q ? 1 : 0, dq, lddq)) a->failed = 1;
        if (dq_buffer) head_store(&a->dq, b, h, first, rows, depth, dq_buffer, a->accumulate_q);
      }
    }
    if (dk_buffer) head_store(&a->dk, b, h, 0, a->keys, depth, dk_buffer, a->accumulate_k);
    if (dv_buffer) head_store(&a->dv, b, h, 0, a->keys, depth, dv_buffer, a->accumulate_v);
  }
}

#else

#include <string.h>

UNIC_LOOP_TABLE(attention_forward_heads);
UNIC_LOOP_TABLE(attention_backward_heads);

/* Where the arguments of the two ops stand. */
struct places { int q, k, v, mask, scale, causal, dropout, rng; };
static const struct places places[2] = {{0, 1, 2, 3, 4, 5, 6, 7}, {0, 0, 0, 1, 2, 3, 4, 5}};
enum { Y, LSE, STATE };   /* outputs of both */

static const struct places *places_of(const unic_op *op) { return &places[strcmp(op->name, "self_attention") == 0 ? PACKED : 0]; }

/* ---------------------------------------------------------------- shapes */

static unic_status shape_rule(unic_call *c, int64_t batches, int64_t queries, int64_t keys, int64_t heads, int64_t depth) {
  const struct places *at = places_of(c->op);
  const unic_tensor *mask = c->in[at->mask];
  if (mask) {
    char text[256], want[256];
    if (mask->dtype != UNIC_BOOL && mask->dtype != UNIC_U8 && !unic_dtype_is_float((unic_dtype)mask->dtype))
      return unic_fail_arg(c, at->mask, "%s was given, expected bool or u8 (nonzero = attend) or a floating type (added to the scores)",
                           unic_tensor_describe(mask, text, sizeof text));
    int64_t full[4] = {batches, heads, queries, keys}, three[3] = {batches, queries, keys}, two[2] = {batches, keys};
    const int64_t *expected = mask->ndim == 4 ? full : mask->ndim == 3 ? three : two;
    bool fits = mask->ndim >= 2 && mask->ndim <= 4 && mask->shape[mask->ndim - 1] == keys;
    for (int d = 0; fits && d < mask->ndim - 1; d++) fits = mask->shape[d] == expected[d] || mask->shape[d] == 1;
    if (!fits)
      return unic_fail_arg(c, at->mask, "%s was given, expected [%lld, %lld], [%lld, %lld, %lld] or %s (leading sizes may be 1)", unic_tensor_describe(mask, text, sizeof text),
                           (long long)batches, (long long)keys, (long long)batches, (long long)queries, (long long)keys, unic_shape_describe(4, full, want, sizeof want));
  }
  double dropout = c->arg[at->dropout].number;
  if (!(dropout >= 0 && dropout <= 1)) return unic_fail_arg(c, at->dropout, "%g was given, expected a probability (0 to 1)", dropout);
  int64_t y[4] = {batches, queries, heads, depth}, lse[3] = {batches, heads, queries}, two = 2;
  unic_out(c, Y, c->type, 4, y);
  unic_out(c, LSE, unic_dtype_wide(c->type), 3, lse);
  unic_out(c, STATE, UNIC_I64, 1, &two);
  return UNIC_OK;
}

static unic_status attention_shape(unic_call *c) {
  const int64_t *q = c->in[0]->shape, *k = c->in[1]->shape;
  return shape_rule(c, q[0], q[1], k[1], q[2], q[3]);
}

static unic_status self_attention_shape(unic_call *c) {
  const int64_t *x = c->in[0]->shape;
  return shape_rule(c, x[0], x[1], x[1], x[3], x[4]);
}

/* ---------------------------------------------------------------- plan */

static struct heads heads_of(const unic_view *v) {
  return (struct heads){.data = v->data, .batch = v->stride[0], .row = v->stride[1], .head = v->stride[2], .col = v->shape[3] == 1 ? 1 : v->stride[3], .dtype = v->dtype};
}

/* q (0), k (1) or v (2) of a packed tensor. */
static struct heads heads_packed(const unic_view *v, int which) {
  struct heads h = {.data = v->data, .batch = v->stride[0], .row = v->stride[1], .head = v->stride[3], .col = v->shape[4] == 1 ? 1 : v->stride[4], .dtype = v->dtype};
  if (h.data) h.data = unic_at(h.data, h.dtype, which * v->stride[2]);
  return h;
}

/* A dimension of 1 may carry any stride; a row stride must not look too short for the data then. */
static void tidy(struct heads *h, int64_t rows, int64_t depth) { if (rows <= 1) h->row = depth > 0 ? depth : 1; }

/* Can attention_tiles.h compute this? */
static bool tiles_can(const struct attention *a, bool backward) {
  const struct heads *sides[] = {&a->q, &a->k, &a->v, &a->dy};
  for (int i = 0; i < (backward ? 4 : 3); i++) if (sides[i]->dtype != a->q.dtype || sides[i]->col != 1) return false;
  unic_isa needed = a->q.dtype == UNIC_F32 ? UNIC_ISA_AVX512 : a->q.dtype == UNIC_BF16 ? UNIC_ISA_AVX512_BF16 : UNIC_ISAS;
  return unic_isa_current() >= needed && a->depth > 0 && a->depth % 16 == 0;
}

static void describe(const unic_kernel *k, struct attention *a) {
  const struct places *at = places_of(k->op);
  const unic_view *q = &k->in[at->q], *mask = &k->in[at->mask];
  bool packed = at->k == at->q;
  *a = (struct attention){.batches = q->shape[0], .queries = q->shape[1]};
  a->keys = packed ? q->shape[1] : k->in[at->k].shape[1];
  a->heads = q->shape[packed ? 3 : 2];
  a->depth = q->shape[packed ? 4 : 3];
  struct heads *in[3] = {&a->q, &a->k, &a->v}, *din[3] = {&a->dq, &a->dk, &a->dv};
  int from[3] = {at->q, at->k, at->v};
  for (int i = 0; i < 3; i++) {
    int64_t rows = i == 0 ? a->queries : a->keys;
    *in[i] = packed ? heads_packed(q, i) : heads_of(&k->in[from[i]]);
    tidy(in[i], rows, a->depth);
    if (!k->backward || !k->din[from[i]].present) continue;
    *din[i] = packed ? heads_packed(&k->din[at->q], i) : heads_of(&k->din[from[i]]);
    tidy(din[i], rows, a->depth);
  }
  if (k->backward) {
    a->dy = heads_of(&k->dout[Y]);
    tidy(&a->dy, a->queries, a->depth);
    a->accumulate_q = k->accumulate[at->q];
    a->accumulate_k = k->accumulate[at->k];
    a->accumulate_v = k->accumulate[at->v];
  } else {
    a->y = heads_of(&k->out[Y]);
    tidy(&a->y, a->queries, a->depth);
  }
  if (mask->present) {
    int n = mask->ndim;
    a->mask = mask->data;
    a->mask_dtype = mask->dtype;
    a->mask_batch = mask->shape[0] == 1 ? 0 : mask->stride[0];
    a->mask_head = n < 4 || mask->shape[1] == 1 ? 0 : mask->stride[1];
    a->mask_query = n < 3 || mask->shape[n - 2] == 1 ? 0 : mask->stride[n - 2];
  }
  double scale = k->arg[at->scale].number, dropout = k->arg[at->dropout].number;
  a->scale = (float)(scale != 0 ? scale : 1 / sqrt((double)(a->depth > 0 ? a->depth : 1)));
  a->causal = k->arg[at->causal].integer;
  uint64_t threshold = unic_random_threshold(dropout);
  a->drop_all = threshold > UINT32_MAX;
  a->threshold = a->drop_all ? UINT32_MAX : (uint32_t)threshold;
  a->keep = dropout < 1 ? (float)(1 / (1 - dropout)) : 0;

  /* Rows of scores start on a cache line, but not a multiple of 1 KB apart: those would share a few sets of the cache. */
  a->ld = attention_padded(a->keys);
  if (a->ld % 256 == 0) a->ld += 16;
  /* 256 KB of scores forward, twice 192 KB backward, beside the operands in an L2 cache of 0.5 to 2 MB. */
  int64_t most = (k->backward ? 48 : 64) * 1024 / (a->ld > 0 ? a->ld : 1);
  if (most < 16) most = 16;
  if (most > UNIC_ROW) most = UNIC_ROW;
  a->blocks = (a->queries + most - 1) / most;
  a->rows = a->blocks > 0 ? (a->queries + a->blocks - 1) / a->blocks : 0;
  a->tiles = tiles_can(a, k->backward);
  a->low = a->tiles && a->q.dtype == UNIC_BF16;
  if (a->tiles) {
    int64_t keys = attention_padded(a->keys), scores = attention_padded(a->rows * a->ld), pair = a->low ? 2 : 1;
    a->scratch_floats = scores + (a->rows + keys / pair) * a->depth + BITS_ROOM(a->keys);
    if (k->backward) a->scratch_floats += scores + (keys * 2 + keys / pair) * a->depth + (a->low ? attention_padded(a->rows * a->ld / 2) : 0);
    if (a->low) a->scratch_floats += attention_padded(((k->backward && a->rows > a->keys ? a->rows : a->keys) + 1) / 2 * a->depth);
    return;
  }
  int64_t floats = attention_padded(a->rows * a->ld) * (k->backward ? 2 : 1);
  if (a->threshold) floats += BITS_ROOM(a->keys);
  struct heads *by_key[4] = {&a->k, &a->v, &a->dk, &a->dv}, *by_query[4] = {&a->q, k->backward ? &a->dy : &a->y, &a->dq};
  bool wanted[3] = {false, false, false};
  for (int i = 0; i < 3 && k->backward; i++) wanted[i] = k->din[from[i]].present;
  for (int i = 0; i < 4; i++)
    if ((i < 2 || (k->backward && wanted[i - 1])) && !heads_plain(by_key[i], a->depth)) floats += attention_padded(a->keys * a->depth);
  for (int i = 0; i < 3; i++)
    if ((i < 2 || (k->backward && wanted[0])) && !heads_plain(by_query[i], a->depth)) floats += attention_padded(a->rows * a->depth);
  a->scratch_floats = floats;
}

static unic_status attention_plan(const unic_kernel *k, unic_plan *p) {
  struct attention a;
  describe(k, &a);
  unic_gemm_start();
  p->scratch = k->type == UNIC_F64 ? 2 * (a.keys + 1) * 8 : a.scratch_floats * 4 * unic_threads();
  return UNIC_OK;
}

/* ---------------------------------------------------------------- forward and backward */

static unic_status outcome(const unic_kernel *k, const struct attention *a) {
  return a->failed ? unic_fail("[%s] oneDNN could not compute a product of [%lld, %lld] by [%lld, %lld]", k->op->name, (long long)a->rows, (long long)a->depth,
                               (long long)a->depth, (long long)a->keys) : UNIC_OK;
}

static void recall_numbers(const unic_kernel *k, struct attention *a) {
  const int64_t *state = k->out[STATE].data;
  a->seed = (uint64_t)state[0];
  a->counter = (uint64_t)state[1];
}

/* The generator: what it was when this op began, and on past this op's numbers. */
static void take_numbers(const unic_kernel *k, struct attention *a) {
  if (k->remake) {
    recall_numbers(k, a);
    return;
  }
  const struct places *at = places_of(k->op);
  int64_t *rng = k->in[at->rng].data, *state = k->out[STATE].data;
  if (k->grad && state) { state[0] = rng[0]; state[1] = rng[1]; }
  a->seed = (uint64_t)rng[0];
  a->counter = (uint64_t)rng[1];
  if (a->threshold) rng[1] += unic_random_blocks(a->batches * a->heads * a->queries * a->keys);
}

static unic_remake_price attention_remakes(const unic_call *c, int j) {
  (void)c;
  return j == Y ? UNIC_REMAKE_COSTLY : UNIC_REMAKE_NEVER;
}

static unic_status attention_forward(const unic_kernel *k) {
  struct attention a;
  describe(k, &a);
  take_numbers(k, &a);
  a.lse = k->grad ? k->out[LSE].data : NULL;
  a.scratch = k->scratch;
  /* Whole heads are dealt out when there are enough of them, so that converted keys and values serve all blocks of a head. */
  int64_t heads = a.batches * a.heads;
  UNIC_RUN(attention_forward_heads, heads * a.blocks, heads >= 2 * unic_threads() ? a.blocks : 1, &a);
  return outcome(k, &a);
}

static unic_status attention_backward(const unic_kernel *k) {
  struct attention a;
  describe(k, &a);
  recall_numbers(k, &a);
  a.lse = k->out[LSE].data;
  a.scratch = k->scratch;
  if (a.depth == 0) return UNIC_OK;
  UNIC_RUN(attention_backward_heads, a.batches * a.heads, 1, &a);
  return outcome(k, &a);
}

/* ---------------------------------------------------------------- the plain f64 form */

static double get(const struct heads *x, int64_t b, int64_t row, int64_t h, int64_t d) {
  return ((const double *)x->data)[b * x->batch + row * x->row + h * x->head + d * x->col];
}
static double *ref(const struct heads *x, int64_t b, int64_t row, int64_t h, int64_t d) {
  return (double *)x->data + b * x->batch + row * x->row + h * x->head + d * x->col;
}

/* The score of a pair; -inf when the query may not attend to the key. */
static double score(const struct attention *a, double scale, int64_t b, int64_t h, int64_t i, int64_t j) {
  if (a->causal && j > i) return -INFINITY;
  double s = 0;
  for (int64_t d = 0; d < a->depth; d++) s += get(&a->q, b, i, h, d) * get(&a->k, b, j, h, d);
  s *= scale;
  if (a->mask) {
    double m = unic_element_get(a->mask, (unic_dtype)a->mask_dtype, b * a->mask_batch + h * a->mask_head + i * a->mask_query + j);
    if (unic_dtype_is_float((unic_dtype)a->mask_dtype)) s += m;
    else if (m == 0) s = -INFINITY;
  }
  return s;
}

/* 1/(1 - dropout) or 0. */
static double kept(const struct attention *a, double dropout, int64_t b, int64_t h, int64_t i, int64_t j) {
  if (dropout <= 0) return 1;
  if (dropout >= 1) return 0;
  uint32_t bits = unic_random_bits(a->seed, a->counter, ((b * a->heads + h) * a->queries + i) * a->keys + j);
  return bits < unic_random_threshold(dropout) ? 0 : 1 / (1 - dropout);
}

static double exact_scale(const unic_kernel *k, const struct attention *a) {
  double scale = k->arg[places_of(k->op)->scale].number;
  return scale != 0 ? scale : 1 / sqrt((double)(a->depth > 0 ? a->depth : 1));
}

static unic_status attention_reference(const unic_kernel *k) {
  struct attention a;
  describe(k, &a);
  take_numbers(k, &a);
  double dropout = k->arg[places_of(k->op)->dropout].number, scale = exact_scale(k, &a), *p = k->scratch, *lse = k->grad ? k->out[LSE].data : NULL;
  for (int64_t b = 0; b < a.batches; b++)
    for (int64_t h = 0; h < a.heads; h++)
      for (int64_t i = 0; i < a.queries; i++) {
        double most = -INFINITY, sum = 0;
        for (int64_t j = 0; j < a.keys; j++) {
          p[j] = score(&a, scale, b, h, i, j);
          if (!(p[j] <= most)) most = p[j];
        }
        bool nothing = most == -INFINITY;
        for (int64_t j = 0; j < a.keys; j++) {
          p[j] = nothing ? 0 : exp(p[j] - most);
          sum += p[j];
        }
        if (lse) lse[(b * a.heads + h) * a.queries + i] = nothing ? INFINITY : most + log(sum);
        for (int64_t d = 0; d < a.depth; d++) {
          double y = 0;
          for (int64_t j = 0; j < a.keys && !nothing; j++) y += p[j] / sum * kept(&a, dropout, b, h, i, j) * get(&a.v, b, j, h, d);
          *ref(&a.y, b, i, h, d) = y;
        }
      }
  return UNIC_OK;
}

static unic_status attention_reference_backward(const unic_kernel *k) {
  const struct places *at = places_of(k->op);
  struct attention a;
  describe(k, &a);
  recall_numbers(k, &a);
  double dropout = k->arg[at->dropout].number, scale = exact_scale(k, &a), *p = k->scratch, *dp = p + a.keys;
  const double *lse = k->out[LSE].data;
  int inputs[3] = {at->q, at->k, at->v};
  for (int i = 0; i < (at->k == at->q ? 1 : 3); i++) {
    double *d = k->din[inputs[i]].data;
    if (d && !k->accumulate[inputs[i]]) memset(d, 0, (size_t)k->din[inputs[i]].numel * sizeof *d);
  }
  for (int64_t b = 0; b < a.batches; b++)
    for (int64_t h = 0; h < a.heads; h++)
      for (int64_t i = 0; i < a.queries; i++) {
        double sum = 0;
        for (int64_t j = 0; j < a.keys; j++) {
          double keep = kept(&a, dropout, b, h, i, j);
          p[j] = exp(score(&a, scale, b, h, i, j) - lse[(b * a.heads + h) * a.queries + i]);
          dp[j] = 0;
          for (int64_t d = 0; d < a.depth; d++) {
            double dy = get(&a.dy, b, i, h, d);
            dp[j] += keep * dy * get(&a.v, b, j, h, d);
            if (a.dv.data) *ref(&a.dv, b, j, h, d) += keep * p[j] * dy;
          }
          sum += p[j] * dp[j];
        }
        for (int64_t j = 0; j < a.keys; j++) {
          double ds = scale * p[j] * (dp[j] - sum);
          for (int64_t d = 0; d < a.depth; d++) {
            if (a.dq.data) *ref(&a.dq, b, i, h, d) += ds * get(&a.k, b, j, h, d);
            if (a.dk.data) *ref(&a.dk, b, j, h, d) += ds * get(&a.q, b, i, h, d);
          }
        }
      }
  return UNIC_OK;
}

/* Products over S x L x D: two in forward; dp and one for each wanted gradient in backward (p, made again, is not counted: the forward did it). */
static double attention_flops(const unic_kernel *k) {
  struct attention a;
  describe(k, &a);
  bool packed = places_of(k->op) == &places[PACKED];
  int products = !k->backward ? 2 : packed ? 4 : k->din[0].present + k->din[1].present + k->din[2].present + (k->din[0].present || k->din[1].present);
  return 2.0 * products * (double)a.batches * (double)a.heads * (double)a.queries * (double)a.keys * (double)a.depth;
}

#define ATTENTION_DOC \
  "mask     bool or u8, nonzero = attend, or a floating type that is added to the scores: [B, L], [B, S, L] or [B, H, S, L]; leading sizes may be 1\n" \
  "scale    what the scores are multiplied with; 0 stands for D^-1/2\n" \
  "causal   query i attends to keys 1 .. i only\n" \
  "dropout  probability with which an attention weight is dropped\n" \
  "rng      generator of the dropout; the device's own when absent\n" \
  "A query that may attend to nothing gives zeros."

static const unic_op op_attention = {
  .name = "attention",
  .signature = "q: tensor[B,S,H,D], k: tensor[B,L,H,D], v: tensor[B,L,H,D], mask: tensor<any>?, scale: number = 0, causal: bool = false, dropout: number = 0, rng: rng"
               " -> y, (lse, state)",
  .doc = "Scaled dot-product attention; the S x L scores are never stored.\n"
         "q        queries [B, S, H, D]\n"
         "k        keys [B, L, H, D]\n"
         "v        values [B, L, H, D]\n" ATTENTION_DOC,
  .saves = "q k v mask lse state",
  .grads = "q k v",
  .layouts = "q:any k:any v:any",
  .shape = attention_shape,
  .remakes = attention_remakes,
  .cpu = {attention_forward, attention_backward, attention_reference, attention_reference_backward, attention_forward, attention_reference, .plan = attention_plan},
  .autocast = UNIC_CAST_LOW,
  .flops = attention_flops,
};

static const unic_op op_self_attention = {
  .name = "self_attention",
  .signature = "qkv: tensor[B,S,3,H,D], mask: tensor<any>?, scale: number = 0, causal: bool = false, dropout: number = 0, rng: rng -> y, (lse, state)",
  .doc = "Scaled dot-product attention of a sequence with itself, queries, keys and values packed as one projection makes them.\n"
         "qkv      [B, S, 3, H, D]\n" ATTENTION_DOC,
  .saves = "qkv mask lse state",
  .grads = "qkv",
  .layouts = "qkv:any",
  .shape = self_attention_shape,
  .remakes = attention_remakes,
  .cpu = {attention_forward, attention_backward, attention_reference, attention_reference_backward, attention_forward, attention_reference, .plan = attention_plan},
  .flags = UNIC_OP_METHOD,
  .autocast = UNIC_CAST_LOW,
  .flops = attention_flops,
};

UNIC_OPS(attention, &op_attention, &op_self_attention);

#endif
