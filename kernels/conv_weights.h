/* Weight gradients of convolutions, and in bf16 of linear, by own kernels where oneDNN's stay far below what the processor can do (conv_weights.c says by how much). */
#ifndef UNIC_CONV_WEIGHTS_H
#define UNIC_CONV_WEIGHTS_H

#include "op.h"

/* dw[o,i,u,v] = sum over n,r,c of image[n, i, r S - P + u D, c S - P + v D] result[n, o, r, c]. Pairs are rows and columns. */
typedef struct unic_conv_weights {
  /* What is asked. blocked: f32 with the channels of both images in blocks of 16; otherwise bf16, channels-last. */
  int64_t images, in, out, size[2] /* of the image */, pixels[2] /* of the result */, kernel[2], stride[2], padding[2], dilation[2];
  bool blocked;
  /* What unic_conv_weights_plan makes of it. */
  int64_t plane, part, parts, planes;   /* pixels of the result that lie together; a block is one of the `parts` of `part` pixels each, or several whole planes */
  int64_t step;                         /* floats from packed panel to packed panel */
  int64_t group;                        /* panels of input channels that are gathered at a time */
  int64_t blocks, pieces, slices;       /* blocks in all; sets of blocks, and of output channels, that are summed apart */
  int64_t threads, packed;              /* and bytes of scratch of each; the pieces' sums lie behind them */
  bool in_place;                        /* the image is read where it lies */
  bool direct;                          /* sums go straight into the gradient */
  int64_t scratch;                      /* bytes */
} unic_conv_weights;

/* Whether this processor can do it; then *p is ready to run on the number of threads and the instruction set of now. No size may be zero. */
bool unic_conv_weights_plan(unic_conv_weights *p);
/* dw [O,I,Kh,Kw], row-major f32, = the gradient, or += it. scratch: p->scratch bytes, 64-byte aligned. */
void unic_conv_weights_run(const unic_conv_weights *p, const void *image, const void *result, float *dw, bool accumulate, void *scratch);

#endif
