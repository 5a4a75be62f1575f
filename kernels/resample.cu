/* interpolate and adaptive_avg_pool2d on the GPU (kernels/resample.c): y = A x B^T per channel, A and B with few numbers in a row.
 *
 * A small launch writes A's and B's rows into scratch (a place and up to four numbers each, in f64 before they are rounded, so that no digit of a position
 * is lost), and for each pixel of x the range of rows that hold it. Then a thread makes V channels of one pixel: forward from its row's pixels, backward from
 * the rows in its range. Both gather: x (dy) is read, overlaps from the caches, y (dx) is written once; the order of a sum is the order of pixels. */
#include "images.cuh"

namespace {

enum { X, SIZE, MODE, ALIGN };
enum { Y };
enum { NEAREST, BILINEAR, BICUBIC, MEANS };
enum { THREADS = 256, TAPS = 4 };

/* Row of A: columns first .. first + count - 1; a mean's numbers are all number[0]. */
template <class W> struct band {
  int first, count;
  W number[TAPS];
};
struct range { int first, end; };

template <class W> struct bands {
  band<W> *row[2];      /* [out] each */
  range *of[2];         /* [in] each: the rows that hold a pixel */
  int in[2], out[2], mode;
  double step[2];       /* pixels of x per pixel of y, between the centres that are held in place */
  bool align;
};

__device__ __forceinline__ double keys(double t) {
  const double a = -0.75;
  t = fabs(t);
  return t <= 1 ? ((a + 2) * t - (a + 3)) * t * t + 1 : t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

/* Block d: dimension d. */
template <class W> __global__ void __launch_bounds__(THREADS, 3) bands_kernel(bands<W> b) {
  const bool down = blockIdx.x == 0;   /* no array of the argument is indexed by a number that is not known here: that would copy it to local memory */
  const int in = down ? b.in[0] : b.in[1], out = down ? b.out[0] : b.out[1];
  band<W> *const rows = down ? b.row[0] : b.row[1];
  range *const of = down ? b.of[0] : b.of[1];
  const double scale = down ? b.step[0] : b.step[1];
  for (int i = threadIdx.x; i < out; i += THREADS) {
    band<W> *to = &rows[i];
    int first = (int)((int64_t)i * in / out), count = 1;
    if (b.mode == NEAREST) {
      to->number[0] = 1;
    } else if (b.mode == MEANS) {
      count = (int)(((int64_t)(i + 1) * in + out - 1) / out) - first;
      to->number[0] = W(1) / (W)count;
    } else {
      double s = b.align ? (double)i * scale : ((double)i + 0.5) * scale - 0.5;
      if (!b.align && b.mode == BILINEAR && s < 0) s = 0;
      const double base = floor(s);
      const int low = (int)base - (b.mode == BICUBIC), taps = b.mode == BICUBIC ? 4 : 2;
      first = min(max(low, 0), in - 1);
      count = min(max(low + taps - 1, 0), in - 1) - first + 1;
#pragma unroll 1
      for (int q = 0; q < TAPS; q++) {   /* what lies beyond the border is added to the border's pixel */
        double number = 0;
#pragma unroll 1
        for (int t = low; t < low + taps; t++)
          if (min(max(t, 0), in - 1) == first + q) number += b.mode == BICUBIC ? keys(s - (double)t) : t == low ? 1 - (s - base) : s - base;
        to->number[q] = (W)number;
      }
    }
    to->first = first;
    to->count = count;
  }
  __syncthreads();
  /* Both ends of a row grow with it: the first row that ends behind r, and the first that begins behind it. */
  for (int r = threadIdx.x; r < in && of; r += THREADS) {
    int low = 0, high = out;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (rows[middle].first + rows[middle].count > r) high = middle;
      else low = middle + 1;
    }
    const int first = low;
    high = out;
    while (low < high) {
      const int middle = (low + high) / 2;
      if (rows[middle].first > r) high = middle;
      else low = middle + 1;
    }
    of[r].first = first;
    of[r].end = low;
  }
}

struct pixels {
  int in[2], out[2], channels;
  unsigned items;
  int64_t images;
  unic_divider vectors, columns;
  bool means, add;
};

template <class W> __device__ __forceinline__ W number_of(const band<W> *b, int t, bool means) { return b->number[means ? 0 : t]; }

template <class T, int V> __global__ void __launch_bounds__(THREADS, 3) forward_kernel(pixels p, bands<unic_wide<T>> b, const T *x, T *y) {
  using W = unic_wide<T>;
  for (int64_t n = blockIdx.y; n < p.images; n += gridDim.y)
    for (unsigned item = blockIdx.x * blockDim.x + threadIdx.x; item < p.items; item += gridDim.x * blockDim.x) {
      unsigned vector, j;
      const unsigned pixel = unic_divide_rest(item, p.vectors, &vector), i = unic_divide_rest(pixel, p.columns, &j);
      const band<W> *rows = &b.row[0][i], *columns = &b.row[1][j];
      const int h0 = rows->first, h = rows->count, w0 = columns->first, w = columns->count;
      const T *from = x + ((n * p.in[0] + h0) * p.in[1] + w0) * p.channels + vector * V;
      W total[V], sum[V], value[V];
#pragma unroll
      for (int l = 0; l < V; l++) total[l] = 0;
      for (int u = 0; u < h; u++) {
#pragma unroll
        for (int l = 0; l < V; l++) sum[l] = 0;
        for (int v = 0; v < w; v++) {
          const W number = number_of(columns, v, p.means);
          unic_get<T, V>(from + ((int64_t)u * p.in[1] + v) * p.channels, value);
#pragma unroll
          for (int l = 0; l < V; l++) sum[l] += value[l] * number;
        }
        const W number = number_of(rows, u, p.means);
#pragma unroll
        for (int l = 0; l < V; l++) total[l] += sum[l] * number;
      }
      unic_put<T, V>(y + (n * p.out[0] * p.out[1] + pixel) * p.channels + vector * V, total, false);
    }
}

template <class T, int V> __global__ void __launch_bounds__(THREADS, 3) gather_kernel(pixels p, bands<unic_wide<T>> b, T *dx, const T *dy) {
  using W = unic_wide<T>;
  for (int64_t n = blockIdx.y; n < p.images; n += gridDim.y)
    for (unsigned item = blockIdx.x * blockDim.x + threadIdx.x; item < p.items; item += gridDim.x * blockDim.x) {
      unsigned vector, w;
      const unsigned pixel = unic_divide_rest(item, p.vectors, &vector), h = unic_divide_rest(pixel, p.columns, &w);
      const range rows = b.of[0][h], columns = b.of[1][w];
      W total[V], sum[V], value[V];
#pragma unroll
      for (int l = 0; l < V; l++) total[l] = 0;
      for (int i = rows.first; i < rows.end; i++) {
#pragma unroll
        for (int l = 0; l < V; l++) sum[l] = 0;
        for (int j = columns.first; j < columns.end; j++) {
          const W number = number_of(&b.row[1][j], (int)w - b.row[1][j].first, p.means);
          unic_get<T, V>(dy + ((n * p.out[0] + i) * p.out[1] + j) * p.channels + vector * V, value);
#pragma unroll
          for (int l = 0; l < V; l++) sum[l] += value[l] * number;
        }
        const W number = number_of(&b.row[0][i], (int)h - b.row[0][i].first, p.means);
#pragma unroll
        for (int l = 0; l < V; l++) total[l] += sum[l] * number;
      }
      unic_put<T, V>(dx + (n * p.in[0] * p.in[1] + pixel) * p.channels + vector * V, total, p.add);
    }
}

/* ---------------------------------------------------------------- launches */

unic_status plan(const unic_kernel *k, unic_plan *p) {
  const unic_view *x = &k->in[X], *y = &k->out[Y];
  p->scratch = (y->shape[2] + y->shape[3]) * (int64_t)sizeof(band<double>) + (x->shape[2] + x->shape[3]) * (int64_t)sizeof(range);
  return UNIC_OK;
}

/* Fill the tables in scratch. */
template <class W> bands<W> write_bands(const unic_kernel *k, int mode, bool align) {
  const unic_view *x = &k->in[X], *y = &k->out[Y];
  bands<W> b = {};
  char *at = (char *)k->scratch;
  for (int d = 0; d < 2; d++) {
    b.in[d] = (int)x->shape[2 + d];
    b.out[d] = (int)y->shape[2 + d];
    b.step[d] = align ? b.out[d] > 1 ? (double)(b.in[d] - 1) / (double)(b.out[d] - 1) : 0 : (double)b.in[d] / (double)b.out[d];
    b.row[d] = (band<W> *)at;
    at += y->shape[2 + d] * (int64_t)sizeof(band<double>);
  }
  for (int d = 0; d < 2 && k->backward; d++) {
    b.of[d] = (range *)at;
    at += x->shape[2 + d] * (int64_t)sizeof(range);
  }
  b.mode = mode;
  b.align = align;
  UNIC_LAUNCH((bands_kernel<W>), 2, THREADS, 0, unic_cuda_stream(k), b);
  return b;
}

pixels pixels_of(const unic_kernel *k, const unic_view *threads, int V, int mode) {
  pixels p = {};
  for (int d = 0; d < 2; d++) {
    p.in[d] = (int)k->in[X].shape[2 + d];
    p.out[d] = (int)k->out[Y].shape[2 + d];
  }
  p.channels = (int)threads->shape[1];
  p.images = threads->shape[0];
  p.items = (unsigned)(threads->shape[2] * threads->shape[3] * (p.channels / V));
  p.vectors = unic_divider_of(p.channels / V);
  p.columns = unic_divider_of(threads->shape[3]);
  p.means = mode == MEANS;
  return p;
}

unic_status forward(const unic_kernel *k, int mode, bool align) {
  const unic_view *x = &k->in[X], *y = &k->out[Y];
  if (y->numel == 0) return UNIC_OK;
  unic_vectors(k->type, unic_channel_vectors(k->type, x->shape[1], (char *)x->data, (char *)y->data), [&](auto t, auto v) {
    using T = decltype(t);
    constexpr int V = decltype(v)::value;
    const auto b = write_bands<unic_wide<T>>(k, mode, align);
    const pixels p = pixels_of(k, y, V, mode);
    UNIC_LAUNCH((forward_kernel<T, V>), unic_image_grid(k, p.images, p.items, THREADS), THREADS, 0, unic_cuda_stream(k), p, b, (const T *)x->data, (T *)y->data);
  });
  return UNIC_OK;
}

unic_status backward(const unic_kernel *k, int mode, bool align) {
  const unic_view *dx = &k->din[X], *dy = &k->dout[Y];
  if (dx->numel == 0 || !dy->data) return unic_zero_gradient(k, X);
  unic_vectors(k->type, unic_channel_vectors(k->type, dx->shape[1], (char *)dx->data, (char *)dy->data), [&](auto t, auto v) {
    using T = decltype(t);
    constexpr int V = decltype(v)::value;
    const auto b = write_bands<unic_wide<T>>(k, mode, align);
    pixels p = pixels_of(k, dx, V, mode);
    p.add = k->accumulate[X];
    UNIC_LAUNCH((gather_kernel<T, V>), unic_image_grid(k, p.images, p.items, THREADS), THREADS, 0, unic_cuda_stream(k), p, b, (T *)dx->data, (const T *)dy->data);
  });
  return UNIC_OK;
}

unic_status interpolate_forward(const unic_kernel *k) { return forward(k, (int)k->arg[MODE].integer, k->arg[ALIGN].integer); }
unic_status interpolate_backward(const unic_kernel *k) { return backward(k, (int)k->arg[MODE].integer, k->arg[ALIGN].integer); }
unic_status means_forward(const unic_kernel *k) { return forward(k, MEANS, false); }
unic_status means_backward(const unic_kernel *k) { return backward(k, MEANS, false); }

}

UNIC_CUDA_OPS(resample, {"interpolate", {.forward = interpolate_forward, .backward = interpolate_backward, .plan = plan}},
              {"adaptive_avg_pool2d", {.forward = means_forward, .backward = means_backward, .plan = plan}});
