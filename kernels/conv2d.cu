/* conv2d and conv_transpose2d on the GPU (kernels/conv2d.c), channels-last.
 *
 * cuDNN (runtime/cuda/dnn.h) does the products in f32 (no TF32), bf16 and f16, with sums in f32 and equal bits from run to run; planned once per shape.
 *   - Filters are row-major f32 parameters, cuDNN wants [O, Kh, Kw, I] in the images' type: packed into scratch before use, or a derived form where nothing
 *     is trained. A 1x1 filter of the images' own type is read as it lies.
 *   - The weight gradient comes as f32 [O, Kh, Kw, I] (cuDNN makes it of the f32 sums by a cast in the same graph; where it cannot, in the half type) and is
 *     put, or added, into the row-major gradient.
 *   - In a half type an image whose channels do not come by eights (a picture's 3) is padded in scratch: cuDNN would do that itself, with more workspace.
 *   - The bias is added in the same graph where cuDNN can, else in a pass over the result.
 * A 1x1 convolution of every pixel in f32 is one product of cuBLASLt's over memory as it lies, filters and their gradient too: of channels-last f32 images
 * cuDNN makes copies in another layout (a workspace of both images, 490 MiB in ResNet-50's first stage at batch 128).
 * Own kernels: all of f64, what cuDNN refuses, and memory that is not 16-byte aligned: the same products by tiles of 32 x 32 that gather the image on the way
 * to shared memory, sums in the wide type, 16 terms at a time. The bias gradient is a sum down columns, chunks joined in f64.
 *
 * The transposed op is the same with image and result in each other's places: its forward is the data gradient of conv2d (`roles`).
 * Over 500 lines: the library's way and the own one serve the same two ops, and which of them runs is decided in one place. */
#include "images.cuh"

#include "cuda/blas.h"
#include "cuda/dnn.h"

#include <cstdlib>

namespace {

enum { X, WEIGHT, BIAS, STRIDE, PADDING, DILATION, GROUPS };
enum { Y };
enum { THREADS = 256 };
enum { CONV, DATA, FILTER };
const int64_t WORKSPACE = INT64_C(512) << 20;   /* of a plan of cuDNN's, at most */

/* ---------------------------------------------------------------- own products */

enum { TILE = 32, DEEP = 16, TILE_THREADS = 64, EACH = 4 };

struct geometry {
  int in[2], out[2], kernel[2], stride[2], dilation[2], before[2];   /* image, result, ... */
  int groups, ci, co;               /* channels of the image and of the result, per group */
  int64_t images;
  unsigned m, n, deep;              /* the product's size per group */
  unic_divider in_pixels, in_columns, out_pixels, out_columns, kernel_columns, channels;   /* channels: of one side's, per group, for the deep index (FILTER: for n) */
};

/* The image's element under pixel (i, j) of the result and tap (u, v); -1: in the padding. */
__device__ __forceinline__ int64_t under(const geometry &q, int64_t image, int i, int j, int u, int v) {
  const int h = i * q.stride[0] - q.before[0] + u * q.dilation[0], w = j * q.stride[1] - q.before[1] + v * q.dilation[1];
  if (h < 0 || h >= q.in[0] || w < 0 || w >= q.in[1]) return -1;
  return ((image * q.in[0] + h) * q.in[1] + w) * q.groups * q.ci;
}

/* The pixel of the result that saw pixel (h, w) of the image through tap (u, v); -1: none. */
__device__ __forceinline__ int64_t over(const geometry &q, int64_t image, int h, int w, int u, int v) {
  const int down = h + q.before[0] - u * q.dilation[0], right = w + q.before[1] - v * q.dilation[1];
  if (down < 0 || right < 0) return -1;
  const int i = down / q.stride[0], j = right / q.stride[1];
  if (i * q.stride[0] != down || j * q.stride[1] != right || i >= q.out[0] || j >= q.out[1]) return -1;
  return ((image * q.out[0] + i) * q.out[1] + j) * q.groups * q.co;
}

/* A tap and a channel, channels fastest. */
__device__ __forceinline__ int tap_of(const geometry &q, unsigned at, int *u, int *v, unsigned *channel) {
  unsigned column;
  const unsigned tap = unic_divide_rest(at, q.channels, channel);
  *u = (int)unic_divide_rest(tap, q.kernel_columns, &column);
  *v = (int)column;
  return (int)tap;
}

/* The 1: rather fewer threads on a processor than the few bytes that ptxas would spill for a full one (sm_89). */
template <class T, class U, int KIND> __global__ void __launch_bounds__(TILE_THREADS, 1) product_kernel(geometry q, const T *image, const T *result, const U *weight, const unic_wide<T> *bias, T *y,
                                                                                                     unic_wide<T> *dw, bool add) {
  using W = unic_wide<T>;
  UNIC_SHARED(W, as, [DEEP][TILE + 1]);
  UNIC_SHARED(W, bs, [DEEP][TILE + 1]);
  const int t = threadIdx.x, row = t / 8 * EACH, column = t % 8 * EACH, group = blockIdx.z, taps = q.kernel[0] * q.kernel[1];
  const unsigned m0 = blockIdx.x * TILE, n0 = blockIdx.y * TILE;
  W total[EACH][EACH], sum[EACH][EACH];
#pragma unroll
  for (int i = 0; i < EACH; i++)
#pragma unroll
    for (int j = 0; j < EACH; j++) total[i][j] = 0;
  for (unsigned k0 = 0; k0 < q.deep; k0 += DEEP) {
    for (int l = t; l < DEEP * TILE; l += TILE_THREADS) {
      /* What lies side by side in memory is read by threads side by side. */
      const unsigned mk = KIND == FILTER ? (unsigned)l / TILE : (unsigned)l % DEEP, mm = KIND == FILTER ? (unsigned)l % TILE : (unsigned)l / DEEP, k = k0 + mk, m = m0 + mm;
      W value = 0;
      if (k < q.deep && m < q.m) {
        int u, v;
        unsigned channel, rest, j;
        if constexpr (KIND == FILTER) {
          value = unic_widen(result[(int64_t)k * q.groups * q.co + group * q.co + m]);
        } else if constexpr (KIND == CONV) {
          const int64_t n = unic_divide_rest(m, q.out_pixels, &rest);
          const int i = (int)unic_divide_rest(rest, q.out_columns, &j);
          tap_of(q, k, &u, &v, &channel);
          const int64_t at = under(q, n, i, (int)j, u, v);
          if (at >= 0) value = unic_widen(image[at + group * q.ci + channel]);
        } else {
          const int64_t n = unic_divide_rest(m, q.in_pixels, &rest);
          const int i = (int)unic_divide_rest(rest, q.in_columns, &j);
          tap_of(q, k, &u, &v, &channel);
          const int64_t at = over(q, n, i, (int)j, u, v);
          if (at >= 0) value = unic_widen(result[at + group * q.co + channel]);
        }
      }
      as[mk][mm] = value;
    }
    for (int l = t; l < DEEP * TILE; l += TILE_THREADS) {
      const unsigned nk = KIND == FILTER ? (unsigned)l / TILE : (unsigned)l % DEEP, nn = KIND == FILTER ? (unsigned)l % TILE : (unsigned)l / DEEP, k = k0 + nk, n = n0 + nn;
      W value = 0;
      if (k < q.deep && n < q.n) {
        int u, v;
        unsigned channel, rest, j;
        if constexpr (KIND == FILTER) {
          const int64_t picture = unic_divide_rest(k, q.out_pixels, &rest);
          const int i = (int)unic_divide_rest(rest, q.out_columns, &j);
          tap_of(q, n, &u, &v, &channel);
          const int64_t at = under(q, picture, i, (int)j, u, v);
          if (at >= 0) value = unic_widen(image[at + group * q.ci + channel]);
        } else {
          const int tap = tap_of(q, k, &u, &v, &channel);
          const int64_t o = group * q.co + (KIND == CONV ? n : channel), c = KIND == CONV ? channel : n;
          value = (W)unic_widen(weight[(o * q.ci + c) * taps + tap]);
        }
      }
      bs[nk][nn] = value;
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
      for (int j = 0; j < EACH; j++) sum[i][j] = 0;
#pragma unroll
    for (int k = 0; k < DEEP; k++) {
      W a[EACH], b[EACH];
#pragma unroll
      for (int i = 0; i < EACH; i++) {
        a[i] = as[k][row + i];
        b[i] = bs[k][column + i];
      }
#pragma unroll
      for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int j = 0; j < EACH; j++) sum[i][j] += a[i] * b[j];
    }
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
      for (int j = 0; j < EACH; j++) total[i][j] += sum[i][j];
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < EACH; i++)
#pragma unroll
    for (int j = 0; j < EACH; j++) {
      const unsigned m = m0 + row + i, n = n0 + column + j;
      if (m >= q.m || n >= q.n) continue;
      if constexpr (KIND == FILTER) {
        int u, v;
        unsigned channel;
        const int tap = tap_of(q, n, &u, &v, &channel);
        W *to = dw + ((int64_t)(group * q.co + m) * q.ci + channel) * taps + tap;
        *to = (add ? *to : W(0)) + total[i][j];
      } else {
        const int wide = KIND == CONV ? q.co : q.ci, channel = group * wide + n;
        y[(int64_t)m * q.groups * wide + channel] = unic_narrow<T>(total[i][j] + (bias ? bias[channel] : W(0)));
      }
    }
}

/* ---------------------------------------------------------------- forms of filters and images */

/* Filters [O, I, taps] -> [O, taps, P], zeros where P > I. */
template <class U, class T> __global__ void __launch_bounds__(THREADS) pack_kernel(const U *from, T *to, int64_t n, unic_divider channels, int in, unic_divider taps) {
  for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
    unsigned c, tap;
    const unsigned rest = unic_divide_rest((unsigned)i, channels, &c), o = unic_divide_rest(rest, taps, &tap);
    to[i] = unic_narrow<T>((int)c < in ? (float)unic_widen(from[((int64_t)o * in + c) * taps.by + tap]) : 0.0f);
  }
}

/* The gradient [O, taps, P] -> [O, I, taps], put or added. */
template <class T> __global__ void __launch_bounds__(THREADS) unpack_kernel(const T *from, float *to, int64_t n, unic_divider taps, unic_divider in, int padded, bool add) {
  for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
    unsigned c, tap;
    const unsigned rest = unic_divide_rest((unsigned)i, taps, &tap), o = unic_divide_rest(rest, in, &c);
    const float v = unic_widen(from[((int64_t)o * taps.by + tap) * padded + c]);
    to[i] = add ? to[i] + v : v;
  }
}

/* Rows of `from_channels` -> rows of `to_channels`: zeros where there are more, plus a bias where there is one. In place where both are equal. */
template <class T> __global__ void __launch_bounds__(THREADS) channels_kernel(const T *from, T *to, int64_t n, int from_channels, unic_divider to_channels, const float *bias) {
  for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
    const int64_t row = n < INT64_C(1) << 31 ? (int64_t)unic_divide((unsigned)i, to_channels) : i / to_channels.by;
    const int c = (int)(i - row * to_channels.by);
    const float v = c < from_channels ? unic_widen(from[row * from_channels + c]) : 0.0f;
    to[i] = unic_narrow<T>(bias ? v + bias[c] : v);
  }
}

/* ---------------------------------------------------------------- the bias gradient */

template <class T, int V> __global__ void __launch_bounds__(THREADS) columns_kernel(unic_cut c, const T *dy, double *partial) {
  using W = unic_wide<T>;
  UNIC_SHARED(W, sums, [THREADS * V]);
  const unic_seat<V> s(c);
  W sum[V], value[V];
#pragma unroll
  for (int i = 0; i < V; i++) sum[i] = 0;
  if (s.in)
#pragma unroll 4
    for (int64_t row = s.begin + s.down; row < s.end; row += s.step) {
      unic_get<T, V>(dy + row * c.channels + s.channel, value);
#pragma unroll
      for (int i = 0; i < V; i++) sum[i] += value[i];
    }
  const int line = c.across * V, at = s.down * line + (threadIdx.x & (c.across - 1)) * V;
#pragma unroll
  for (int i = 0; i < V; i++) sums[at + i] = sum[i];
  __syncthreads();
  for (int i = threadIdx.x; i < line; i += THREADS) {
    const int channel = (int)(blockIdx.x << c.shift) * V + i;
    if (channel >= c.channels) continue;
    double total = 0;
    for (int d = 0; d < s.step; d++) total += (double)sums[d * line + i];
    partial[(int64_t)blockIdx.y * c.channels + channel] = total;
  }
}

/* A warp per channel. */
template <class W> __global__ void __launch_bounds__(THREADS) join_kernel(unic_cut c, const double *partial, W *to, bool add) {
  const int channel = blockIdx.x * (THREADS / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  double sum = 0;
  for (unsigned i = lane; channel < c.channels && i < c.chunks; i += 32) sum += partial[(int64_t)i * c.channels + channel];
  sum = unic_warp_sum(sum);
  if (channel < c.channels && lane == 0) to[channel] = (W)(add ? (double)to[channel] + sum : sum);
}

/* ---------------------------------------------------------------- plan */

/* The image and the result of the convolution as it stands in kernels/conv2d.c, and which products this launch makes. */
struct roles {
  const unic_view *image, *result;
  bool product, filter, sums;
  int kind;                                     /* of the product: CONV or DATA */
};

roles roles_of(const unic_kernel *k, bool transposed) {
  roles r = {};
  r.image = transposed ? &k->out[Y] : &k->in[X];
  r.result = transposed ? &k->in[X] : &k->out[Y];
  r.product = !k->backward || k->din[X].present;
  r.filter = k->backward && k->din[WEIGHT].present;
  r.sums = k->backward && k->din[BIAS].present;
  r.kind = transposed == k->backward ? CONV : DATA;
  return r;
}

struct plan {
  unic_dnn_plan *product, *filter;              /* NULL: own kernels */
  bool plain;                                   /* one matrix product each, in their place: */
  unic_cuda_product values, weights;
  bool fused, packs;                            /* the graph adds the bias; filters are not read as they lie */
  bool narrow;                                  /* the weight gradient comes in the half type */
  int channels;                                 /* of the image, padded, per group */
  int64_t packed, image, dw, work, sums;        /* places in scratch */
};

void plan_free(void *data) {
  plan *p = (plan *)data;
  unic_dnn_plan_free(p->product);
  unic_dnn_plan_free(p->filter);
  unic_cuda_product_free(&p->values);
  unic_cuda_product_free(&p->weights);
  free(p);
}

int64_t place(unic_plan *p, int64_t bytes) {
  int64_t at = p->scratch;
  p->scratch += (bytes + 255) / 256 * 256;
  return at;
}

unic_dnn_tensor tensor_of(int dtype, int64_t n, int64_t c, int64_t h, int64_t w) {
  unic_dnn_tensor t = {};
  const int64_t dim[] = {n, c, h, w}, stride[] = {h * w * c, 1, w * c, c};
  t.dtype = (uint8_t)dtype;
  memcpy(t.dim, dim, sizeof dim);
  memcpy(t.stride, stride, sizeof stride);
  return t;
}

enum { IMAGE, FILTERS, RESULT, MORE, LAST };   /* tensors of a graph */

unic_dnn_graph graph_of(const unic_kernel *k, const roles &r, int channels, unic_dnn_kind kind) {
  const unic_view *w = &k->in[WEIGHT];
  unic_dnn_graph g = {};
  g.tensors = 3;
  g.ops = 1;
  g.workspace_most = WORKSPACE;
  g.tensor[IMAGE] = tensor_of(k->type, r.image->shape[0], channels * k->arg[GROUPS].integer, r.image->shape[2], r.image->shape[3]);
  g.tensor[FILTERS] = tensor_of(k->type, w->shape[0], channels, w->shape[2], w->shape[3]);
  g.tensor[RESULT] = tensor_of(k->type, r.result->shape[0], r.result->shape[1], r.result->shape[2], r.result->shape[3]);
  unic_dnn_op *o = &g.op[0];
  o->kind = kind;
  for (int i = 0; i < 3; i++) o->tensor[i] = i;
  for (int d = 0; d < 2; d++) {
    o->stride[d] = k->arg[STRIDE].ints[d];
    o->dilation[d] = k->arg[DILATION].ints[d];
    o->before[d] = o->after[d] = k->arg[PADDING].ints[d];
  }
  return g;
}

/* The product: with the bias where cuDNN can. */
unic_status plan_product(const unic_kernel *k, const roles &r, plan *p) {
  unic_cuda *c = unic_cuda_of(k);
  unic_dnn_graph g = graph_of(k, r, p->channels, r.kind == CONV ? UNIC_DNN_CONV : UNIC_DNN_CONV_DATA);
  if (!k->backward && k->in[BIAS].present && r.kind == CONV) {
    unic_dnn_graph with = g;
    with.tensors = 5;
    with.ops = 2;
    with.tensor[RESULT].dtype = UNIC_F32;
    with.tensor[RESULT].between = true;
    with.tensor[MORE] = tensor_of(UNIC_F32, 1, g.tensor[RESULT].dim[1], 1, 1);
    with.tensor[LAST] = g.tensor[RESULT];
    with.op[1].kind = UNIC_DNN_ADD;
    with.op[1].tensor[0] = RESULT;
    with.op[1].tensor[1] = MORE;
    with.op[1].tensor[2] = LAST;
    UNIC_TRY(unic_dnn_plan_new(c, &with, &p->product));
    p->fused = p->product != nullptr;
    if (p->fused) return UNIC_OK;
  }
  return unic_dnn_plan_new(c, &g, &p->product);
}

/* The weight gradient: as f32, else in the half type. */
unic_status plan_filter(const unic_kernel *k, const roles &r, plan *p) {
  unic_cuda *c = unic_cuda_of(k);
  unic_dnn_graph g = graph_of(k, r, p->channels, UNIC_DNN_CONV_FILTER);
  if (k->type != UNIC_F32) {
    unic_dnn_graph wide = g;
    wide.tensors = 4;
    wide.ops = 2;
    wide.tensor[FILTERS].dtype = UNIC_F32;
    wide.tensor[MORE] = wide.tensor[FILTERS];
    wide.tensor[FILTERS].between = true;
    wide.op[1].kind = UNIC_DNN_CAST;
    wide.op[1].tensor[0] = wide.op[1].tensor[1] = FILTERS;
    wide.op[1].tensor[2] = MORE;
    UNIC_TRY(unic_dnn_plan_new(c, &wide, &p->filter));
    if (p->filter) return UNIC_OK;
    p->narrow = true;
  }
  return unic_dnn_plan_new(c, &g, &p->filter);
}

/* Filters in cuDNN's form. */
void pack(const unic_kernel *k, const plan *p, void *to) {
  const unic_view *w = &k->in[WEIGHT];
  const int64_t taps = w->shape[2] * w->shape[3], n = w->shape[0] * taps * p->channels;
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) <= 4) {
      auto launch = [&](auto u) {
        using U = decltype(u);
        UNIC_LAUNCH((pack_kernel<U, T>), unic_blocks(k, n, THREADS), THREADS, 0, unic_cuda_stream(k), (const U *)w->data, (T *)to, n, unic_divider_of(p->channels), (int)w->shape[1],
                    unic_divider_of(taps));
      };
      if (w->dtype == UNIC_F32) launch(float());
      else launch(t);
    }
  });
}

unic_status make_packed(const unic_kernel *k, int, void *to) {
  pack(k, (const plan *)k->plan, to);
  return UNIC_OK;
}

bool packs_once(const unic_kernel *k) { return !k->backward && !k->grad; }

bool is_product(const unic_kernel *k) {
  bool is = k->type == UNIC_F32 && k->arg[GROUPS].integer == 1;
  for (int d = 0; d < 2; d++) is = is && k->in[WEIGHT].shape[2 + d] == 1 && k->arg[STRIDE].ints[d] == 1 && k->arg[PADDING].ints[d] == 0;
  return is;
}

unic_status plan_plain(const unic_kernel *k, const roles &r, plan *p, unic_plan *out) {
  const unic_view *w = &k->in[WEIGHT];
  const int64_t o = w->shape[0], c = w->shape[1], pixels = r.image->numel / c;
  p->plain = true;
  if (r.product) {
    p->values = r.kind == CONV ? unic_cuda_product_of('N', 'T', pixels, o, c, UNIC_F32, UNIC_F32) : unic_cuda_product_of('N', 'N', pixels, c, o, UNIC_F32, UNIC_F32);
    p->values.bias = !k->backward && k->in[BIAS].present;
    UNIC_TRY(unic_cuda_product_plan(k, &p->values));
  }
  if (r.filter) {
    p->weights = unic_cuda_product_of('T', 'N', o, c, pixels, UNIC_F32, UNIC_F32);
    p->weights.beta = k->accumulate[WEIGHT];
    UNIC_TRY(unic_cuda_product_plan(k, &p->weights));
  }
  p->work = place(out, p->values.scratch > p->weights.scratch ? p->values.scratch : p->weights.scratch);
  return UNIC_OK;
}

unic_status plan_of(const unic_kernel *k, unic_plan *out, bool transposed) {
  const roles r = roles_of(k, transposed);
  const unic_view *w = &k->in[WEIGHT];
  if (k->out[Y].numel == 0 || k->in[X].numel == 0) return UNIC_OK;
  plan *p = (plan *)calloc(1, sizeof *p);
  if (!p) return unic_fail("[cuda] no host memory");
  out->data = p;
  out->free = plan_free;
  if (r.sums) {
    unsigned chunks = unic_cut_of(&k->out[Y], 1).chunks, fewer = unic_cut_of(&k->out[Y], 16 / (int)unic_dtype_size(k->type)).chunks;
    p->sums = place(out, (int64_t)(chunks > fewer ? chunks : fewer) * k->out[Y].shape[1] * (int64_t)sizeof(double));
  }
  if (is_product(k)) return plan_plain(k, r, p, out);
  if (k->type == UNIC_F64 || w->numel >= INT64_C(1) << 31) return UNIC_OK;
  const bool half = k->type != UNIC_F32;
  p->channels = (int)w->shape[1];
  if (half && k->arg[GROUPS].integer == 1) p->channels = (p->channels + 7) / 8 * 8;
  if (r.product) UNIC_TRY(plan_product(k, r, p));
  if (r.filter) UNIC_TRY(plan_filter(k, r, p));
  if (!p->product && !p->filter) return UNIC_OK;

  const int64_t size = unic_dtype_size(k->type), taps = w->shape[2] * w->shape[3], filters = w->shape[0] * taps * p->channels;
  const bool padded = p->channels != w->shape[1];
  p->packs = padded || taps > 1 || w->dtype != k->type;
  if (p->product && p->packs) {
    if (packs_once(k)) {
      out->derives = 1;
      out->derive[0].arg = WEIGHT;
      out->derive[0].tag = 0xc0de0000u + (uint64_t)k->type * 0x1000000u + (uint64_t)p->channels * 0x100000000u;
      out->derive[0].bytes = filters * size;
      out->derive[0].make = make_packed;
    } else {
      p->packed = place(out, filters * size);
    }
  }
  if (padded) p->image = place(out, r.image->numel / r.image->shape[1] * p->channels * size);
  if (p->filter) p->dw = place(out, filters * (p->narrow ? size : 4));
  int64_t work = 0;
  if (p->product && unic_dnn_workspace(p->product) > work) work = unic_dnn_workspace(p->product);
  if (p->filter && unic_dnn_workspace(p->filter) > work) work = unic_dnn_workspace(p->filter);
  p->work = place(out, work);
  return UNIC_OK;
}

/* ---------------------------------------------------------------- launches */

void *at(const unic_kernel *k, int64_t offset) { return (char *)k->scratch + offset; }

geometry geometry_of(const unic_kernel *k, const roles &r, int kind) {
  const unic_view *w = &k->in[WEIGHT];
  geometry q = {};
  q.groups = (int)k->arg[GROUPS].integer;
  q.ci = (int)w->shape[1];
  q.co = (int)w->shape[0] / q.groups;
  q.images = r.image->shape[0];
  for (int d = 0; d < 2; d++) {
    q.in[d] = (int)r.image->shape[2 + d];
    q.out[d] = (int)r.result->shape[2 + d];
    q.kernel[d] = (int)w->shape[2 + d];
    q.stride[d] = (int)k->arg[STRIDE].ints[d];
    q.dilation[d] = (int)k->arg[DILATION].ints[d];
    q.before[d] = (int)k->arg[PADDING].ints[d];
  }
  q.in_pixels = unic_divider_of((int64_t)q.in[0] * q.in[1]);
  q.in_columns = unic_divider_of(q.in[1]);
  q.out_pixels = unic_divider_of((int64_t)q.out[0] * q.out[1]);
  q.out_columns = unic_divider_of(q.out[1]);
  q.kernel_columns = unic_divider_of(q.kernel[1]);
  q.channels = unic_divider_of(kind == DATA ? q.co : q.ci);
  const unsigned taps = (unsigned)(q.kernel[0] * q.kernel[1]), in = (unsigned)(q.images * q.in[0] * q.in[1]), out = (unsigned)(q.images * q.out[0] * q.out[1]);
  q.m = kind == CONV ? out : kind == DATA ? in : (unsigned)q.co;
  q.n = kind == CONV ? (unsigned)q.co : kind == DATA ? (unsigned)q.ci : taps * (unsigned)q.ci;
  q.deep = kind == CONV ? taps * (unsigned)q.ci : kind == DATA ? taps * (unsigned)q.co : out;
  return q;
}

/* Own kernels: what has no place in this kind of product is NULL. */
template <int KIND> void own(const unic_kernel *k, const roles &r, const void *image, const void *result, void *to) {
  const geometry q = geometry_of(k, r, KIND);
  const dim3 grid((q.m + TILE - 1) / TILE, (q.n + TILE - 1) / TILE, (unsigned)q.groups);
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    using W = unic_wide<T>;
    auto launch = [&](auto u) {
      using U = decltype(u);
      UNIC_LAUNCH((product_kernel<T, U, KIND>), grid, TILE_THREADS, 0, unic_cuda_stream(k), q, (const T *)image, (const T *)result, KIND == FILTER ? nullptr : (const U *)k->in[WEIGHT].data,
                  !k->backward && k->in[BIAS].present ? (const W *)k->in[BIAS].data : nullptr, KIND == FILTER ? nullptr : (T *)to, KIND == FILTER ? (W *)to : nullptr,
                  KIND == FILTER && k->accumulate[WEIGHT]);
    };
    if (k->in[WEIGHT].dtype == k->type) launch(t);
    else if constexpr (sizeof(T) == 2) launch(float());
  });
}

/* Images of other numbers of channels, or y plus its bias. */
void channels(const unic_kernel *k, const void *from, int64_t from_channels, void *to, int64_t to_channels, int64_t rows, const float *bias) {
  unic_floats(k->type, [&](auto t) {
    using T = decltype(t);
    if constexpr (sizeof(T) <= 4)
      UNIC_LAUNCH((channels_kernel<T>), unic_blocks(k, rows * to_channels, THREADS), THREADS, 0, unic_cuda_stream(k), (const T *)from, (T *)to, rows * to_channels, (int)from_channels,
                  unic_divider_of(to_channels), bias);
  });
}

/* The image's or the result's values or gradient from the other's; y with its bias. */
unic_status product(const unic_kernel *k, const roles &r, const void *from, void *to) {
  const plan *p = (const plan *)k->plan;
  const unic_view *w = &k->in[WEIGHT];
  const bool padded = p->channels != w->shape[1], bias = !k->backward && k->in[BIAS].present;
  if (p->plain) {
    const void *row = bias ? k->in[BIAS].data : nullptr;
    UNIC_TRY(unic_cuda_product_run(k, &p->values, from, w->data, to, row, at(k, p->work)));
    const int64_t across = k->out[Y].shape[1];
    if (bias && !p->values.adds_bias) channels(k, to, across, to, across, k->out[Y].numel / across, (const float *)row);
    return UNIC_OK;
  }
  if (!p->product || !unic_aligned16((const char *)from, (const char *)to) || (!p->packs && !unic_aligned16((const char *)w->data)) ||
      (p->fused && !unic_aligned16((const char *)k->in[BIAS].data))) {
    if (r.kind == CONV) own<CONV>(k, r, from, nullptr, to);
    else own<DATA>(k, r, nullptr, from, to);
    return UNIC_OK;
  }
  void *filters = w->data, *memory[UNIC_DNN_TENSORS] = {};
  if (p->packs) {
    filters = packs_once(k) ? k->derived[0] : at(k, p->packed);
    if (!packs_once(k)) pack(k, p, filters);
  }
  const int64_t pixels = r.image->numel / r.image->shape[1];
  memory[FILTERS] = filters;
  memory[IMAGE] = padded ? at(k, p->image) : r.kind == CONV ? (void *)(uintptr_t)from : to;
  memory[p->fused ? LAST : RESULT] = r.kind == CONV ? to : (void *)(uintptr_t)from;
  if (p->fused) memory[MORE] = k->in[BIAS].data;
  if (padded && r.kind == CONV) channels(k, from, w->shape[1], memory[IMAGE], p->channels, pixels, nullptr);
  UNIC_TRY(unic_dnn_run(unic_cuda_of(k), p->product, memory, at(k, p->work)));
  const float *b = bias && !p->fused ? (const float *)k->in[BIAS].data : nullptr;
  if (padded && r.kind == DATA) channels(k, memory[IMAGE], p->channels, to, r.image->shape[1], pixels, b);
  else if (b) channels(k, to, k->out[Y].shape[1], to, k->out[Y].shape[1], k->out[Y].numel / k->out[Y].shape[1], b);
  return UNIC_OK;
}

unic_status filter_gradient(const unic_kernel *k, const roles &r, const void *image, const void *result) {
  const plan *p = (const plan *)k->plan;
  const unic_view *w = &k->in[WEIGHT];
  if (p->plain) return unic_cuda_product_run(k, &p->weights, result, image, k->din[WEIGHT].data, nullptr, at(k, p->work));
  if (!p->filter || !unic_aligned16((const char *)image, (const char *)result)) {
    own<FILTER>(k, r, image, result, k->din[WEIGHT].data);
    return UNIC_OK;
  }
  void *memory[UNIC_DNN_TENSORS] = {};
  const bool wide = k->type != UNIC_F32 && !p->narrow;
  memory[IMAGE] = (void *)(uintptr_t)image;
  if (p->channels != w->shape[1]) {
    memory[IMAGE] = at(k, p->image);
    channels(k, image, w->shape[1], memory[IMAGE], p->channels, r.image->numel / r.image->shape[1], nullptr);
  }
  memory[RESULT] = (void *)(uintptr_t)result;
  memory[wide ? MORE : FILTERS] = at(k, p->dw);
  UNIC_TRY(unic_dnn_run(unic_cuda_of(k), p->filter, memory, at(k, p->work)));
  auto unpack = [&](auto t) {
    using T = decltype(t);
    UNIC_LAUNCH((unpack_kernel<T>), unic_blocks(k, w->numel, THREADS), THREADS, 0, unic_cuda_stream(k), (const T *)at(k, p->dw), (float *)k->din[WEIGHT].data, w->numel,
                unic_divider_of(w->shape[2] * w->shape[3]), unic_divider_of(w->shape[1]), p->channels, (bool)k->accumulate[WEIGHT]);
  };
  if (!p->narrow) unpack(float());
  else if (k->type == UNIC_BF16) unpack(__nv_bfloat16());
  else unpack(__half());
  return UNIC_OK;
}

void bias_gradient(const unic_kernel *k) {
  const unic_view *dy = &k->dout[Y];
  double *partial = (double *)at(k, ((const plan *)k->plan)->sums);
  unic_vectors(k->type, unic_channel_vectors(k->type, dy->shape[1], (char *)dy->data), [&](auto t, auto v) {
    using T = decltype(t);
    using W = unic_wide<T>;
    constexpr int V = decltype(v)::value;
    const unic_cut c = unic_cut_of(dy, V);
    UNIC_LAUNCH((columns_kernel<T, V>), dim3(c.tiles, c.chunks), THREADS, 0, unic_cuda_stream(k), c, (const T *)dy->data, partial);
    UNIC_LAUNCH((join_kernel<W>), (unsigned)(c.channels * 32 + THREADS - 1) / THREADS, THREADS, 0, unic_cuda_stream(k), c, (const double *)partial, (W *)k->din[BIAS].data,
                (bool)k->accumulate[BIAS]);
  });
}

unic_status forward(const unic_kernel *k, bool transposed) {
  if (!k->plan) return UNIC_OK;   /* zero-size */
  return product(k, roles_of(k, transposed), k->in[X].data, k->out[Y].data);
}

unic_status backward(const unic_kernel *k, bool transposed) {
  const roles r = roles_of(k, transposed);
  const void *dy = k->dout[Y].data, *x = k->in[X].data;
  if (!k->plan || !dy) {
    UNIC_TRY(unic_zero_gradient(k, X));
    UNIC_TRY(unic_zero_gradient(k, WEIGHT));
    return unic_zero_gradient(k, BIAS);
  }
  if (r.sums) bias_gradient(k);
  if (r.filter) UNIC_TRY(transposed ? filter_gradient(k, r, dy, x) : filter_gradient(k, r, x, dy));
  return r.product ? product(k, r, dy, k->din[X].data) : UNIC_OK;
}

unic_status conv2d_plan(const unic_kernel *k, unic_plan *p) { return plan_of(k, p, false); }
unic_status conv2d_forward(const unic_kernel *k) { return forward(k, false); }
unic_status conv2d_backward(const unic_kernel *k) { return backward(k, false); }
unic_status conv_transpose2d_plan(const unic_kernel *k, unic_plan *p) { return plan_of(k, p, true); }
unic_status conv_transpose2d_forward(const unic_kernel *k) { return forward(k, true); }
unic_status conv_transpose2d_backward(const unic_kernel *k) { return backward(k, true); }

}

UNIC_CUDA_OPS(conv2d, {"conv2d", {.forward = conv2d_forward, .backward = conv2d_backward, .remake = conv2d_forward, .plan = conv2d_plan}},
              {"conv_transpose2d", {.forward = conv_transpose2d_forward, .backward = conv_transpose2d_backward, .plan = conv_transpose2d_plan}});
