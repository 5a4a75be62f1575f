/* Uploads that do not wait for the device: host memory -> pinned piece -> device piece, by a stream of their own, beside the kernels that run; then into
 * place on the compute stream, in the order of the launches.
 *
 * The way by a piece in the device's memory is what lets the slow part overlap: the target may be memory that kernels still in the queue read (the arena
 * gives it out again in the order of the stream), so nothing may be written there earlier. The caller waits only for a piece that is still on its way,
 * that is, when it is PIECES pieces ahead. Short uploads go straight: CUDA copies those at once into a buffer of its own. */
#include "cuda.h"

#include <stdlib.h>
#include <string.h>

enum { PIECES = 4, PIECE = 16 << 20, SHORT = 64 << 10 };

struct unic_cuda_ring {
  cudaStream_t stream;
  struct { void *host, *device; cudaEvent_t arrived, used; } piece[PIECES];
  int next;
};

void unic_cuda_ring_close(unic_cuda *c) {
  struct unic_cuda_ring *r = c->ring;
  if (!r) return;
  for (int i = 0; i < PIECES; i++) {
    if (r->piece[i].used) { cudaEventSynchronize(r->piece[i].used); cudaEventDestroy(r->piece[i].used); }
    if (r->piece[i].arrived) cudaEventDestroy(r->piece[i].arrived);
    if (r->piece[i].device) cudaFree(r->piece[i].device);
    if (r->piece[i].host) cudaFreeHost(r->piece[i].host);
  }
  if (r->stream) cudaStreamDestroy(r->stream);
  free(r);
  c->ring = NULL;
}

static unic_status start(unic_cuda *c) {
  struct unic_cuda_ring *r = c->ring = calloc(1, sizeof *r);
  if (!r) return unic_cuda_host->fail("[cuda] no host memory for uploads");
  UNIC_TRY(unic_cuda_check(cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking), "cudaStreamCreate"));
  for (int i = 0; i < PIECES; i++) {
    UNIC_TRY(unic_cuda_check(cudaMallocHost(&r->piece[i].host, PIECE), "pinned memory for uploads"));
    UNIC_TRY(unic_cuda_check(cudaMalloc(&r->piece[i].device, PIECE), "device memory for uploads"));
    UNIC_TRY(unic_cuda_check(cudaEventCreateWithFlags(&r->piece[i].arrived, cudaEventDisableTiming), "cudaEventCreate"));
    UNIC_TRY(unic_cuda_check(cudaEventCreateWithFlags(&r->piece[i].used, cudaEventDisableTiming), "cudaEventCreate"));
  }
  return UNIC_OK;
}

/* At most PIECE bytes. */
static unic_status upload_piece(unic_cuda *c, void *to, const void *from, size_t bytes) {
  struct unic_cuda_ring *r = c->ring;
  int i = r->next;
  r->next = (i + 1) % PIECES;
  UNIC_TRY(unic_cuda_check(cudaEventSynchronize(r->piece[i].used), "waiting for a piece of an upload"));   /* one that was never recorded is over */
  memcpy(r->piece[i].host, from, bytes);
  UNIC_TRY(unic_cuda_check(cudaMemcpyAsync(r->piece[i].device, r->piece[i].host, bytes, cudaMemcpyHostToDevice, r->stream), "copy to the device"));
  UNIC_TRY(unic_cuda_check(cudaEventRecord(r->piece[i].arrived, r->stream), "cudaEventRecord"));
  UNIC_TRY(unic_cuda_check(cudaStreamWaitEvent(c->stream, r->piece[i].arrived, 0), "cudaStreamWaitEvent"));
  UNIC_TRY(unic_cuda_check(cudaMemcpyAsync(to, r->piece[i].device, bytes, cudaMemcpyDeviceToDevice, c->stream), "copy within the device"));
  return unic_cuda_check(cudaEventRecord(r->piece[i].used, c->stream), "cudaEventRecord");
}

unic_status unic_cuda_upload(unic_cuda *c, void *to, const void *from, int64_t bytes) {
  if (bytes <= SHORT) return unic_cuda_check(cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyHostToDevice, c->stream), "copy to the device");
  if (!c->ring) {
    unic_status status = start(c);
    if (status != UNIC_OK) {
      unic_cuda_ring_close(c);
      return status;
    }
  }
  for (int64_t at = 0; at < bytes; at += PIECE)
    UNIC_TRY(upload_piece(c, (char *)to + at, (const char *)from + at, (size_t)(bytes - at < PIECE ? bytes - at : PIECE)));
  return UNIC_OK;
}
