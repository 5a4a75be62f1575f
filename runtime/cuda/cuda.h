/* The CUDA plug-in, build/unic_cuda.so, from within: what its host code and kernels/<op>.cu share. Read by C and C++.
 *
 * The plug-in sees the runtime through unic_host (device.h) and nothing else. Kernels are found by the names of their ops in a table that the build
 * makes of the .cu files (UNIC_CUDA_OPS, kernels/cuda.cuh). build/unic_cuda_emu.so is the same source on an emulated device (spec/cuda_emu). */
#ifndef UNIC_CUDA_H
#define UNIC_CUDA_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {   /* the runtime's own headers are C's alone */
#endif

#include "device.h"

/* Where a kernel notes a value that it cannot accept (a label or token out of range): the first one since the last synchronisation. In device memory. */
typedef struct unic_cuda_flag {
  int site;                     /* unic_cuda_site of the sentence; 0: nothing happened */
  int reserved;
  long long number[4];          /* what the sentence prints */
} unic_cuda_flag;

/* An opened device: unic_device.state. */
typedef struct unic_cuda {
  int ordinal;
  int capability;               /* 80, 90, ... */
  int processors;               /* streaming multiprocessors */
  int64_t shared_most;          /* bytes of shared memory that a block may ask for */
  bool tf32;                    /* UNIC_TF32=1: products and convolutions in f32 may round what they multiply to 10 bits of mantissa, for tensor cores */
  cudaStream_t stream;          /* everything runs on it, in the order of the calls */
  unic_cuda_flag *flag;
  cudaEvent_t before, after;    /* around a launch that is timed; NULL until the first */
  struct unic_cuda_blas *blas;     /* blas.c; NULL until the first product */
  struct unic_cuda_dnn *dnn;       /* dnn.c; NULL until the first graph */
  struct unic_cuda_ring *ring;     /* upload.c; NULL until the first upload that is not short */
} unic_cuda;

static inline unic_cuda *unic_cuda_of(const unic_kernel *k) { return (unic_cuda *)k->device->state; }
static inline cudaStream_t unic_cuda_stream(const unic_kernel *k) { return unic_cuda_of(k)->stream; }

/* UNIC_OK, or a sentence with CUDA's own words: "[cuda] <what>: out of memory". */
unic_status unic_cuda_check(cudaError_t error, const char *what);
/* The number of a sentence for unic_cuda_flag.site (equal sentences have one number), with up to four %lld:
 * "[embedding] argument 'ids': value %lld at position %lld is outside 0..%lld, the rows of the table". */
int unic_cuda_site(const char *sentence);

/* Host memory to the device, ordered with launches; the host memory is free on return (upload.c). */
unic_status unic_cuda_upload(unic_cuda *c, void *to, const void *from, int64_t bytes);
void unic_cuda_ring_close(unic_cuda *c);

/* One op's kernels; kernels/<op>.cu lists its own (UNIC_CUDA_OPS). */
typedef struct unic_cuda_op { const char *name; unic_op_kernels kernels; } unic_cuda_op;
extern const unic_cuda_op *const unic_cuda_op_files[];

extern const unic_host *unic_cuda_host;

#ifdef __cplusplus
}
#endif

#endif
