/* What the three poolings over windows share on the GPU: their geometry, and how a maximum is found. */
#ifndef UNIC_POOLS_CUH
#define UNIC_POOLS_CUH

#include "images.cuh"

struct unic_pool {
  int kernel[2], stride[2], padding[2];   /* zero where windows adapt to the result's size */
  int in[2], out[2];
  int channels;
  unsigned items;                         /* threads of work per image: pixels times vectors of channels */
  int64_t images;
  unic_divider vectors, columns;          /* of the pixels that threads stand for */
  bool add;                               /* gradients are added to what is there */
};

/* x, y: images and pooled images, or their gradients; threads: the one of them whose pixels threads stand for, V channels each. */
static inline unic_pool unic_pool_of(const unic_view *x, const unic_view *y, const unic_view *threads, int V) {
  unic_pool p = {};
  for (int d = 0; d < 2; d++) {
    p.in[d] = (int)x->shape[2 + d];
    p.out[d] = (int)y->shape[2 + d];
  }
  p.channels = (int)x->shape[1];
  p.images = x->shape[0];
  p.items = (unsigned)(threads->shape[2] * threads->shape[3] * (p.channels / V));
  p.vectors = unic_divider_of(p.channels / V);
  p.columns = unic_divider_of(threads->shape[3]);
  return p;
}

/* The same with the op's windows. A stride of 0 is the window's size. */
static inline unic_pool unic_pool_of(const unic_view *x, const unic_view *y, const unic_view *threads, int V, const unic_value &kernel, const unic_value &stride, const unic_value &padding) {
  unic_pool p = unic_pool_of(x, y, threads, V);
  for (int d = 0; d < 2; d++) {
    p.kernel[d] = (int)kernel.ints[d];
    p.stride[d] = (int)(stride.ints[d] ? stride.ints[d] : kernel.ints[d]);
    p.padding[d] = (int)padding.ints[d];
  }
  return p;
}

/* The larger of V values each with where it was; NaN wins, and stays. */
template <class W, int V> static __device__ __forceinline__ void unic_pool_best(W (&best)[V], int (&won)[V], const W (&value)[V], int here) {
#pragma unroll
  for (int l = 0; l < V; l++) {
    const bool wins = value[l] > best[l] || value[l] != value[l];
    best[l] = wins ? value[l] : best[l];
    won[l] = wins ? here : won[l];
  }
}

#endif
