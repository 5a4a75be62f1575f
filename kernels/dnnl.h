/* oneDNN through its C API, for major versions 2 and 3.
 *
 * One engine and one stream per process, made at first use. Everything a primitive needs is decided when it is created (in an op's plan);
 * executing it takes pointers only: memory descriptors come from the primitive itself, scratchpads from the caller (user mode), so that their
 * bytes come from the arena. Creating returns oneDNN's own status, because "unimplemented" is an answer a plan acts on (another type, another
 * layout); unic_dnnl_fail turns any other into a sentence.
 *
 * A primitive is planned for the number of threads at its creation. Executing it under another number is safe: it runs on as many threads as
 * it was made for. */
#ifndef UNIC_DNNL_H
#define UNIC_DNNL_H

#include "op.h"
#include <oneapi/dnnl/dnnl.h>
#include <oneapi/dnnl/dnnl_debug.h>
#include <oneapi/dnnl/dnnl_version.h>
#include <omp.h>
#include <pthread.h>

#if DNNL_VERSION_MAJOR < 2 || DNNL_VERSION_MAJOR > 3
#error "oneDNN 2.x or 3.x is needed"
#endif

/* ---------------------------------------------------------------- engine and stream */

typedef struct unic_dnnl_state {
  pthread_once_t once;
  dnnl_status_t status;
  dnnl_engine_t engine;
  dnnl_stream_t stream;
} unic_dnnl_state;

/* Weak, so that the files which include this header share one. */
extern unic_dnnl_state unic_dnnl;
__attribute__((weak, visibility("hidden"))) unic_dnnl_state unic_dnnl = {.once = PTHREAD_ONCE_INIT};

static inline void unic_dnnl_begin(void) {
  unic_threads();   /* the team's size, before oneDNN asks OpenMP for it */
  unic_isa isa = unic_isa_current();
  if (isa < unic_isa_best()) {
    static const dnnl_cpu_isa_t levels[UNIC_ISAS] = {dnnl_cpu_isa_sse41, dnnl_cpu_isa_avx2, dnnl_cpu_isa_avx512_core, dnnl_cpu_isa_avx512_core_bf16};
    dnnl_set_max_cpu_isa(levels[isa]);   /* may be refused by builds without the dispatcher control: then the library decides */
  }
  unic_dnnl.status = dnnl_engine_create(&unic_dnnl.engine, dnnl_cpu, 0);
  if (unic_dnnl.status == dnnl_success) unic_dnnl.status = dnnl_stream_create(&unic_dnnl.stream, unic_dnnl.engine, dnnl_stream_default_flags);
}

/* Engine and stream are there; call it before the first use of oneDNN in a kernel or plan (every creator below does). */
static inline dnnl_status_t unic_dnnl_start(void) {
  pthread_once(&unic_dnnl.once, unic_dnnl_begin);
  return unic_dnnl.status;
}

/* A failure as a sentence: "[op] oneDNN could not <what>: <its status>". dnnl_success gives UNIC_OK. */
static inline unic_status unic_dnnl_fail(const char *op, const char *what, dnnl_status_t status) {
  if (status == dnnl_success) return UNIC_OK;
  if (status == dnnl_out_of_memory) return unic_fail_memory("[%s] oneDNN could not %s: out of memory", op, what);
  return unic_fail("[%s] oneDNN could not %s: %s (oneDNN %d.%d.%d)", op, what, dnnl_status2str(status), DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH);
}

/* ---------------------------------------------------------------- memory descriptors */

#if DNNL_VERSION_MAJOR == 2
typedef const dnnl_memory_desc_t *unic_dnnl_md;                       /* borrowed */
typedef struct unic_dnnl_desc { dnnl_memory_desc_t own; } unic_dnnl_desc;
static inline unic_dnnl_md unic_dnnl_desc_md(const unic_dnnl_desc *d) { return &d->own; }
static inline void unic_dnnl_desc_free(unic_dnnl_desc *d) { memset(d, 0, sizeof *d); }
#else
typedef const_dnnl_memory_desc_t unic_dnnl_md;
typedef struct unic_dnnl_desc { dnnl_memory_desc_t own; } unic_dnnl_desc;
static inline unic_dnnl_md unic_dnnl_desc_md(const unic_dnnl_desc *d) { return d->own; }
static inline void unic_dnnl_desc_free(unic_dnnl_desc *d) {
  if (d->own) dnnl_memory_desc_destroy(d->own);
  d->own = NULL;
}
#endif

/* oneDNN's name of a type; dnnl_data_type_undef where it has none (f64 and i64 among them). */
static inline dnnl_data_type_t unic_dnnl_type(unic_dtype d) {
  switch (d) {
    case UNIC_F32: return dnnl_f32;
    case UNIC_BF16: return dnnl_bf16;
    case UNIC_F16: return dnnl_f16;
    case UNIC_I32: return dnnl_s32;
    case UNIC_U8: return dnnl_u8;
    default: return dnnl_data_type_undef;
  }
}

/* Any strides (elements). *d is to be freed with unic_dnnl_desc_free; a zeroed *d may be freed too. */
static inline dnnl_status_t unic_dnnl_desc_strided(unic_dnnl_desc *d, unic_dtype dtype, int ndim, const int64_t *shape, const int64_t *stride) {
  dnnl_dims_t dims = {0}, strides = {0};
  for (int i = 0; i < ndim; i++) { dims[i] = shape[i]; strides[i] = stride[i]; }
#if DNNL_VERSION_MAJOR == 2
  return dnnl_memory_desc_init_by_strides(&d->own, ndim, dims, unic_dnnl_type(dtype), strides);
#else
  return dnnl_memory_desc_create_with_strides(&d->own, ndim, dims, unic_dnnl_type(dtype), strides);
#endif
}

static inline dnnl_status_t unic_dnnl_desc_tag(unic_dnnl_desc *d, unic_dtype dtype, int ndim, const int64_t *shape, dnnl_format_tag_t tag) {
  dnnl_dims_t dims = {0};
  for (int i = 0; i < ndim; i++) dims[i] = shape[i];
#if DNNL_VERSION_MAJOR == 2
  return dnnl_memory_desc_init_by_tag(&d->own, ndim, dims, unic_dnnl_type(dtype), tag);
#else
  return dnnl_memory_desc_create_with_tag(&d->own, ndim, dims, unic_dnnl_type(dtype), tag);
#endif
}

/* The primitive chooses the layout; ask it with unic_dnnl_primitive_md afterwards. */
static inline dnnl_status_t unic_dnnl_desc_any(unic_dnnl_desc *d, unic_dtype dtype, int ndim, const int64_t *shape) {
  return unic_dnnl_desc_tag(d, dtype, ndim, shape, dnnl_format_tag_any);
}

/* Row-major. */
static inline dnnl_status_t unic_dnnl_desc_plain(unic_dnnl_desc *d, unic_dtype dtype, int ndim, const int64_t *shape) {
  int64_t stride[UNIC_MAX_RANK];
  unic_stride_fill(ndim, shape, UNIC_CONTIGUOUS, stride);
  return unic_dnnl_desc_strided(d, dtype, ndim, shape, stride);
}

/* As a view lies in memory: strided, or [N,C,H,W] with channels blocked by 8 or 16. */
static inline dnnl_status_t unic_dnnl_desc_view(unic_dnnl_desc *d, const unic_view *v) {
  if (v->block) {
    if (v->ndim != 4 || (v->block != 8 && v->block != 16)) return dnnl_invalid_arguments;
    return unic_dnnl_desc_tag(d, (unic_dtype)v->dtype, 4, v->shape, v->block == 8 ? dnnl_aBcd8b : dnnl_aBcd16b);
  }
  return unic_dnnl_desc_strided(d, (unic_dtype)v->dtype, v->ndim, v->shape, v->stride);
}

static inline bool unic_dnnl_md_equal(unic_dnnl_md a, unic_dnnl_md b) { return dnnl_memory_desc_equal(a, b) != 0; }
static inline int64_t unic_dnnl_md_bytes(unic_dnnl_md m) { return (int64_t)dnnl_memory_desc_get_size(m); }

static inline uint64_t unic_dnnl_mix(uint64_t hash, const void *data, size_t bytes) {
  const unsigned char *p = data;
  for (size_t i = 0; i < bytes; i++) hash = (hash ^ p[i]) * 0x100000001b3ull;   /* FNV-1a */
  return hash;
}

/* A tag for unic_plan.derive: equal descriptors have equal tags. */
static inline uint64_t unic_dnnl_md_tag(unic_dnnl_md m) {
  uint64_t h = 0xcbf29ce484222325ull;
  int64_t bytes = unic_dnnl_md_bytes(m);
#if DNNL_VERSION_MAJOR == 2
  size_t n = (size_t)m->ndims * sizeof m->dims[0];
  h = unic_dnnl_mix(h, &m->data_type, sizeof m->data_type);
  h = unic_dnnl_mix(h, &m->format_kind, sizeof m->format_kind);
  h = unic_dnnl_mix(h, m->dims, n);
  h = unic_dnnl_mix(h, m->padded_dims, n);
  if (m->format_kind == dnnl_blocked) {
    const dnnl_blocking_desc_t *b = &m->format_desc.blocking;
    size_t k = (size_t)b->inner_nblks * sizeof b->inner_blks[0];
    h = unic_dnnl_mix(h, b->strides, n);
    h = unic_dnnl_mix(h, b->inner_blks, k);
    h = unic_dnnl_mix(h, b->inner_idxs, k);
  }
#else
  int ndim = 0, blocks = 0;
  dnnl_data_type_t type = dnnl_data_type_undef;
  dnnl_format_kind_t kind = dnnl_format_kind_undef;
  const dnnl_dims_t *list = NULL;
  dnnl_memory_desc_query(m, dnnl_query_ndims_s32, &ndim);
  dnnl_memory_desc_query(m, dnnl_query_data_type, &type);
  dnnl_memory_desc_query(m, dnnl_query_format_kind, &kind);
  h = unic_dnnl_mix(h, &type, sizeof type);
  h = unic_dnnl_mix(h, &kind, sizeof kind);
  const dnnl_query_t what[3] = {dnnl_query_dims, dnnl_query_padded_dims, dnnl_query_strides};
  for (int i = 0; i < 3; i++)
    if (dnnl_memory_desc_query(m, what[i], &list) == dnnl_success && list) h = unic_dnnl_mix(h, *list, (size_t)ndim * sizeof (*list)[0]);
  if (dnnl_memory_desc_query(m, dnnl_query_inner_nblks_s32, &blocks) == dnnl_success && blocks > 0) {
    if (dnnl_memory_desc_query(m, dnnl_query_inner_blks, &list) == dnnl_success && list) h = unic_dnnl_mix(h, *list, (size_t)blocks * sizeof (*list)[0]);
    if (dnnl_memory_desc_query(m, dnnl_query_inner_idxs, &list) == dnnl_success && list) h = unic_dnnl_mix(h, *list, (size_t)blocks * sizeof (*list)[0]);
  }
#endif
  return unic_dnnl_mix(h, &bytes, sizeof bytes);
}

/* ---------------------------------------------------------------- primitives */

/* Zeroed: nothing there; may be freed. */
typedef struct unic_dnnl_primitive {
  dnnl_primitive_t primitive;
  dnnl_primitive_desc_t desc;
  int64_t scratch;   /* bytes of scratchpad, to be counted into unic_plan.scratch */
  int threads;       /* the team it was planned for */
} unic_dnnl_primitive;

static inline void unic_dnnl_primitive_free(unic_dnnl_primitive *p) {
  if (p->primitive) dnnl_primitive_destroy(p->primitive);
  if (p->desc) dnnl_primitive_desc_destroy(p->desc);
  memset(p, 0, sizeof *p);
}

/* What is done to the result besides; NULL means nothing. */
typedef struct unic_dnnl_attr {
  float sum;                 /* destination = result + sum * destination; 0: overwrite */
  dnnl_alg_kind_t eltwise;   /* applied last: dnnl_eltwise_relu, dnnl_eltwise_gelu_erf, ...; 0: none */
} unic_dnnl_attr;

static inline dnnl_status_t unic_dnnl_attr_make(const unic_dnnl_attr *a, dnnl_primitive_attr_t *out) {
  dnnl_post_ops_t ops = NULL;
  dnnl_status_t s = dnnl_primitive_attr_create(out);
  if (s == dnnl_success) s = dnnl_primitive_attr_set_scratchpad_mode(*out, dnnl_scratchpad_mode_user);
  if (s != dnnl_success || !a || (a->sum == 0 && a->eltwise == dnnl_alg_kind_undef)) return s;
  s = dnnl_post_ops_create(&ops);
#if DNNL_VERSION_MAJOR == 2
  if (s == dnnl_success && a->sum != 0) s = dnnl_post_ops_append_sum(ops, a->sum);
  if (s == dnnl_success && a->eltwise != dnnl_alg_kind_undef) s = dnnl_post_ops_append_eltwise(ops, 1.0f, a->eltwise, 0.0f, 0.0f);
#else
  if (s == dnnl_success && a->sum != 0) s = dnnl_post_ops_append_sum(ops, a->sum, 0, dnnl_data_type_undef);
  if (s == dnnl_success && a->eltwise != dnnl_alg_kind_undef) s = dnnl_post_ops_append_eltwise(ops, a->eltwise, 0.0f, 0.0f);
#endif
  if (s == dnnl_success) s = dnnl_primitive_attr_set_post_ops(*out, ops);
  if (ops) dnnl_post_ops_destroy(ops);
  return s;
}

/* Takes desc over (also when it fails). */
static inline dnnl_status_t unic_dnnl_primitive_take(unic_dnnl_primitive *p, dnnl_primitive_desc_t desc) {
  memset(p, 0, sizeof *p);
  p->desc = desc;
  dnnl_status_t s = dnnl_primitive_create(&p->primitive, desc);
  if (s != dnnl_success) {
    p->primitive = NULL;
    unic_dnnl_primitive_free(p);
    return s;
  }
  p->scratch = unic_dnnl_md_bytes(dnnl_primitive_desc_query_md(desc, dnnl_query_scratchpad_md, 0));
  p->threads = omp_get_max_threads();
  return dnnl_success;
}

/* The layout a primitive uses for an argument (DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, ...); lives as long as the primitive. */
static inline unic_dnnl_md unic_dnnl_primitive_md(const unic_dnnl_primitive *p, int arg) {
  return dnnl_primitive_desc_query_md(p->desc, dnnl_query_exec_arg_md, arg);
}

/* Which implementation was chosen ("jit:avx2", "gemm:jit", ...). */
static inline const char *unic_dnnl_desc_name(const_dnnl_primitive_desc_t desc) {
  const char *name = "";
  dnnl_primitive_desc_query(desc, dnnl_query_impl_info_str, 0, &name);
  return name;
}
static inline const char *unic_dnnl_primitive_name(const unic_dnnl_primitive *p) { return unic_dnnl_desc_name(p->desc); }

/* The geometry of a convolution. */
typedef struct unic_dnnl_geometry {
  int64_t stride[2], dilation[2] /* 1: dense */, before[2], after[2];
  bool winograd;   /* Winograd's algorithm instead of the direct one */
  bool not_1x1;    /* without the implementations for 1x1 kernels alone */
} unic_dnnl_geometry;

static inline bool unic_dnnl_is_1x1(const_dnnl_primitive_desc_t desc) { return strstr(unic_dnnl_desc_name(desc), "1x1") != NULL; }

#if DNNL_VERSION_MAJOR == 2
static inline dnnl_status_t unic_dnnl_convolution_desc(dnnl_primitive_desc_t *out, dnnl_prop_kind_t kind, unic_dnnl_md x, unic_dnnl_md w, unic_dnnl_md b,
                                                       unic_dnnl_md y, const unic_dnnl_geometry *g, dnnl_primitive_attr_t attr, dnnl_primitive_desc_t hint) {
  dnnl_dims_t stride = {g->stride[0], g->stride[1]}, dilate = {g->dilation[0] - 1, g->dilation[1] - 1};
  dnnl_dims_t before = {g->before[0], g->before[1]}, after = {g->after[0], g->after[1]};
  dnnl_alg_kind_t algorithm = g->winograd ? dnnl_convolution_winograd : dnnl_convolution_direct;
  dnnl_convolution_desc_t d;
  dnnl_status_t s;
  if (kind == dnnl_backward_data) s = dnnl_dilated_convolution_backward_data_desc_init(&d, algorithm, x, w, y, stride, dilate, before, after);
  else if (kind == dnnl_backward_weights) s = dnnl_dilated_convolution_backward_weights_desc_init(&d, algorithm, x, w, b, y, stride, dilate, before, after);
  else s = dnnl_dilated_convolution_forward_desc_init(&d, kind, algorithm, x, w, b, y, stride, dilate, before, after);
  if (s != dnnl_success || !g->not_1x1) return s != dnnl_success ? s : dnnl_primitive_desc_create(out, &d, attr, unic_dnnl.engine, hint);
  dnnl_primitive_desc_iterator_t each;
  s = dnnl_primitive_desc_iterator_create(&each, &d, attr, unic_dnnl.engine, hint);
  while (s == dnnl_success) {
    *out = dnnl_primitive_desc_iterator_fetch(each);
    if (*out && !unic_dnnl_is_1x1(*out)) break;
    if (*out) dnnl_primitive_desc_destroy(*out);
    *out = NULL;
    s = dnnl_primitive_desc_iterator_next(each);
  }
  if (each) dnnl_primitive_desc_iterator_destroy(each);
  return s == dnnl_iterator_ends ? dnnl_unimplemented : s;
}
#else
static inline dnnl_status_t unic_dnnl_convolution_desc(dnnl_primitive_desc_t *out, dnnl_prop_kind_t kind, unic_dnnl_md x, unic_dnnl_md w, unic_dnnl_md b,
                                                       unic_dnnl_md y, const unic_dnnl_geometry *g, dnnl_primitive_attr_t attr, dnnl_primitive_desc_t hint) {
  dnnl_dims_t stride = {g->stride[0], g->stride[1]}, dilate = {g->dilation[0] - 1, g->dilation[1] - 1};
  dnnl_dims_t before = {g->before[0], g->before[1]}, after = {g->after[0], g->after[1]};
  dnnl_alg_kind_t algorithm = g->winograd ? dnnl_convolution_winograd : dnnl_convolution_direct;
  dnnl_status_t s;
  if (kind == dnnl_backward_data)
    s = dnnl_convolution_backward_data_primitive_desc_create(out, unic_dnnl.engine, algorithm, x, w, y, stride, dilate, before, after, hint, attr);
  else if (kind == dnnl_backward_weights)
    s = dnnl_convolution_backward_weights_primitive_desc_create(out, unic_dnnl.engine, algorithm, x, w, b, y, stride, dilate, before, after, hint, attr);
  else
    s = dnnl_convolution_forward_primitive_desc_create(out, unic_dnnl.engine, kind, algorithm, x, w, b, y, stride, dilate, before, after, attr);
  while (s == dnnl_success && g->not_1x1 && unic_dnnl_is_1x1(*out)) {
    s = dnnl_primitive_desc_next_impl(*out);
    if (s == dnnl_success) continue;
    dnnl_primitive_desc_destroy(*out);
    *out = NULL;
  }
  return s == dnnl_last_impl_reached ? dnnl_unimplemented : s;
}
#endif

/* Convolution. kind: dnnl_forward_training, dnnl_forward_inference, dnnl_backward_data, dnnl_backward_weights. x, w, b, y are
 * the activations, the weights ([G,]O,I,Kh,Kw), the bias (NULL: none) and the result, or their gradients where the kind computes those; any of
 * them may be an 'any' descriptor. The types of the forward hint that backward kinds need are worked out from the same descriptors. */
static inline dnnl_status_t unic_dnnl_convolution(unic_dnnl_primitive *p, dnnl_prop_kind_t kind, unic_dnnl_md x, unic_dnnl_md w, unic_dnnl_md b, unic_dnnl_md y,
                                                  const unic_dnnl_geometry *g, unic_dnnl_md hint_w) {
  dnnl_primitive_attr_t attr = NULL;
  dnnl_primitive_desc_t hint = NULL, desc = NULL;
  memset(p, 0, sizeof *p);
  dnnl_status_t s = unic_dnnl_start();
  if (s == dnnl_success) s = unic_dnnl_attr_make(NULL, &attr);
  if (s == dnnl_success && (kind == dnnl_backward_data || kind == dnnl_backward_weights))
    s = unic_dnnl_convolution_desc(&hint, dnnl_forward_training, x, hint_w ? hint_w : w, NULL, y, g, attr, NULL);
  if (s == dnnl_success) s = unic_dnnl_convolution_desc(&desc, kind, x, w, b, y, g, attr, hint);
  if (hint) dnnl_primitive_desc_destroy(hint);
  if (attr) dnnl_primitive_attr_destroy(attr);
  return s != dnnl_success ? s : unic_dnnl_primitive_take(p, desc);
}

/* dst = src x weights (+ bias), batched over leading dimensions as oneDNN's matmul does. bias NULL: none (else the rank of dst, sizes 1 or equal). */
static inline dnnl_status_t unic_dnnl_matmul(unic_dnnl_primitive *p, unic_dnnl_md src, unic_dnnl_md weights, unic_dnnl_md bias, unic_dnnl_md dst,
                                             const unic_dnnl_attr *a) {
  dnnl_primitive_attr_t attr = NULL;
  dnnl_primitive_desc_t desc = NULL;
  memset(p, 0, sizeof *p);
  dnnl_status_t s = unic_dnnl_start();
  if (s == dnnl_success) s = unic_dnnl_attr_make(a, &attr);
#if DNNL_VERSION_MAJOR == 2
  dnnl_matmul_desc_t d;
  if (s == dnnl_success) s = dnnl_matmul_desc_init(&d, src, weights, bias, dst);
  if (s == dnnl_success) s = dnnl_primitive_desc_create(&desc, &d, attr, unic_dnnl.engine, NULL);
#else
  if (s == dnnl_success) s = dnnl_matmul_primitive_desc_create(&desc, unic_dnnl.engine, src, weights, bias, dst, attr);
#endif
  if (attr) dnnl_primitive_attr_destroy(attr);
  return s != dnnl_success ? s : unic_dnnl_primitive_take(p, desc);
}

/* Change of layout and type; arguments DNNL_ARG_FROM and DNNL_ARG_TO. */
static inline dnnl_status_t unic_dnnl_reorder(unic_dnnl_primitive *p, unic_dnnl_md from, unic_dnnl_md to, const unic_dnnl_attr *a) {
  dnnl_primitive_attr_t attr = NULL;
  dnnl_primitive_desc_t desc = NULL;
  memset(p, 0, sizeof *p);
  dnnl_status_t s = unic_dnnl_start();
  if (s == dnnl_success) s = unic_dnnl_attr_make(a, &attr);
  if (s == dnnl_success) s = dnnl_reorder_primitive_desc_create(&desc, from, unic_dnnl.engine, to, unic_dnnl.engine, attr);
  if (attr) dnnl_primitive_attr_destroy(attr);
  return s != dnnl_success ? s : unic_dnnl_primitive_take(p, desc);
}

/* ---------------------------------------------------------------- execution */

typedef struct unic_dnnl_arg { int arg; const void *data; } unic_dnnl_arg;
enum { UNIC_DNNL_ARGS = 7 };

/* Run p with up to UNIC_DNNL_ARGS arguments; scratch: at least p->scratch bytes, 64-byte aligned. Returns when it is done. */
static inline unic_status unic_dnnl_execute(const char *op, const unic_dnnl_primitive *p, int n, const unic_dnnl_arg *args, void *scratch) {
  dnnl_exec_arg_t list[UNIC_DNNL_ARGS + 1];
  int made = 0, threads = omp_get_max_threads();
  dnnl_status_t s = n <= UNIC_DNNL_ARGS ? dnnl_success : dnnl_invalid_arguments;
  for (int i = 0; s == dnnl_success && i < n + (p->scratch > 0); i++) {
    list[i].arg = i < n ? args[i].arg : DNNL_ARG_SCRATCHPAD;
    unic_dnnl_md md = i < n ? unic_dnnl_primitive_md(p, args[i].arg) : dnnl_primitive_desc_query_md(p->desc, dnnl_query_scratchpad_md, 0);
    s = dnnl_memory_create(&list[i].memory, md, unic_dnnl.engine, i < n ? (void *)(uintptr_t)args[i].data : scratch);
    made += s == dnnl_success;
  }
  if (s == dnnl_success) {
    if (threads != p->threads) omp_set_num_threads(p->threads);
    s = dnnl_primitive_execute(p->primitive, unic_dnnl.stream, made, list);
    if (s == dnnl_success) s = dnnl_stream_wait(unic_dnnl.stream);
    if (threads != p->threads) omp_set_num_threads(threads);
  }
  for (int i = 0; i < made; i++) dnnl_memory_destroy(list[i].memory);
  return unic_dnnl_fail(op, "run", s);
}

/* C = alpha op(A) op(B) + beta C, row-major f32: op(A) is M x K, op(B) K x N; ta, tb: 'N' or 'T'. Uses the whole team, or one thread when called
 * from inside a team (call unic_dnnl_start before opening it). */
static inline dnnl_status_t unic_dnnl_sgemm(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda, const float *b,
                                            int64_t ldb, float beta, float *c, int64_t ldc) {
  dnnl_status_t s = unic_dnnl_start();
  return s != dnnl_success ? s : dnnl_sgemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

#endif
