/* The CUDA plug-in's side of the device table: opening, memory, launches on one stream, copies, and value errors. */
#include "cuda.h"
#include "blas.h"
#include "dnn.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef UNIC_CUDA_EMU
#define KIND "cuda-emu"
#else
#define KIND "cuda"
#endif

enum { FLOOR = 80, SITES = 256, OP_SLOTS = 1024, STEP = 256 << 20 };   /* STEP: memory is taken in pieces of so many bytes at least */

const unic_host *unic_cuda_host;

/* ---------------------------------------------------------------- sentences */

unic_status unic_fail(const char *format, ...) {
  char text[2048];
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  return unic_cuda_host->fail("%s", text);
}

unic_status unic_cuda_check(cudaError_t error, const char *what) {
  if (error == cudaSuccess) return UNIC_OK;
  return unic_fail("[" KIND "] %s: %s (%s)", what, cudaGetErrorString(error), cudaGetErrorName(error));
}

static char *sites[SITES];

int unic_cuda_site(const char *sentence) {
  int i = 1;   /* 0 is "nothing happened" */
  for (; i < SITES && sites[i]; i++) if (strcmp(sites[i], sentence) == 0) return i;
  if (i < SITES) sites[i] = strdup(sentence);
  return i < SITES && sites[i] ? i : SITES;
}

/* ---------------------------------------------------------------- devices */

static int cuda_count(const char **reason) {
  static char text[256];
  int n = 0;
  cudaError_t error = cudaGetDeviceCount(&n);
  if (error != cudaSuccess) {   /* n is not written then */
    snprintf(text, sizeof text, "%s", error == cudaErrorInsufficientDriver ? "no NVIDIA driver, or one too old for this build's CUDA runtime" : cudaGetErrorString(error));
    *reason = text;
    return 0;
  }
  *reason = n ? NULL : "the NVIDIA driver sees no GPU";
  return n;
}

static unic_status use(const unic_cuda *c) { return unic_cuda_check(cudaSetDevice(c->ordinal), "cudaSetDevice"); }

static unic_status start(unic_cuda *c) {
  struct cudaDeviceProp p;
  UNIC_TRY(use(c));
  UNIC_TRY(unic_cuda_check(cudaGetDeviceProperties(&p, c->ordinal), "cudaGetDeviceProperties"));
  c->capability = 10 * p.major + p.minor;
  c->processors = p.multiProcessorCount;
  c->shared_most = (int64_t)p.sharedMemPerBlockOptin;
  const char *wish = getenv("UNIC_TF32");
  c->tf32 = wish && strcmp(wish, "1") == 0;
  if (c->capability < FLOOR)
    return unic_fail("[device] argument 'device': %s has compute capability %d.%d, 8.0 or more is needed (A100, RTX 30 and later)", p.name, p.major, p.minor);
  UNIC_TRY(unic_cuda_check(cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "cudaStreamCreate"));
  UNIC_TRY(unic_cuda_check(cudaMalloc((void **)&c->flag, sizeof *c->flag), "cudaMalloc"));
  return unic_cuda_check(cudaMemsetAsync(c->flag, 0, sizeof *c->flag, c->stream), "cudaMemset");
}

static void cuda_close(unic_device *d) {
  unic_cuda *c = d->state;
  if (!c) return;
  unic_cuda_blas_close(c);
  unic_dnn_close(c);
  unic_cuda_ring_close(c);
  if (c->before) cudaEventDestroy(c->before);
  if (c->after) cudaEventDestroy(c->after);
  if (c->flag) cudaFree(c->flag);
  if (c->stream) cudaStreamDestroy(c->stream);
  free(c);
  d->state = NULL;
}

static unic_status cuda_open(unic_device *d) {
  unic_cuda *c = calloc(1, sizeof *c);
  if (!c) return unic_fail("[" KIND "] no host memory");
  d->state = c;
  c->ordinal = d->index;
  unic_status status = start(c);
  if (status != UNIC_OK) cuda_close(d);
  return status;
}

static int64_t cuda_budget(unic_device *d) {
  size_t available = 0, all = 0;
  if (use(d->state) != UNIC_OK || cudaMemGetInfo(&available, &all) != cudaSuccess) return 0;
  /* What cuBLAS, cuDNN and modules take later is not ours to hand out. */
  int64_t rest = (int64_t)available - (INT64_C(1) << 30);
  return rest > 0 ? rest : (int64_t)available / 2;
}

static unic_status cuda_reserve(unic_device *d, int64_t bytes, void **base) {
  UNIC_TRY(use(d->state));
  cudaError_t error = cudaMalloc(base, (size_t)bytes);
  if (error == cudaSuccess) return UNIC_OK;
  (void)cudaGetLastError();
  return unic_cuda_check(error, "cudaMalloc");
}

/* ---------------------------------------------------------------- kernels */

static struct { const char *name; const unic_op_kernels *kernels; } slots[OP_SLOTS];
static pthread_once_t slots_once = PTHREAD_ONCE_INIT;

static unsigned slot_of(const char *name) {
  unsigned h = 2166136261u;
  for (; *name; name++) h = (h ^ (unsigned char)*name) * 16777619u;
  return h % OP_SLOTS;
}

static void fill_slots(void) {
  for (int f = 0; unic_cuda_op_files[f]; f++)
    for (const unic_cuda_op *op = unic_cuda_op_files[f]; op->name; op++) {
      unsigned at = slot_of(op->name);
      while (slots[at].name) at = (at + 1) % OP_SLOTS;
      slots[at].name = op->name;
      slots[at].kernels = &op->kernels;
    }
}

static const unic_op_kernels *cuda_find(unic_device *d, const struct unic_op *op) {
  (void)d;
  pthread_once(&slots_once, fill_slots);
  const char *name = unic_cuda_host->op_name(op);
  for (unsigned at = slot_of(name); slots[at].name; at = (at + 1) % OP_SLOTS)
    if (strcmp(slots[at].name, name) == 0) return slots[at].kernels;
  return NULL;
}

static unic_status cuda_launch(unic_device *d, unic_kernel_fn *fn, const struct unic_kernel *k) {
  UNIC_TRY(use(d->state));
  UNIC_TRY(fn(k));
  return unic_cuda_check(cudaGetLastError(), unic_cuda_host->op_name(k->op));
}

static unic_status cuda_timed(unic_device *d, unic_kernel_fn *fn, const struct unic_kernel *k, double *seconds) {
  unic_cuda *c = d->state;
  float ms = 0;
  UNIC_TRY(use(c));
  if (!c->before) UNIC_TRY(unic_cuda_check(cudaEventCreateWithFlags(&c->before, cudaEventDefault), "cudaEventCreate"));
  if (!c->after) UNIC_TRY(unic_cuda_check(cudaEventCreateWithFlags(&c->after, cudaEventDefault), "cudaEventCreate"));
  UNIC_TRY(unic_cuda_check(cudaEventRecord(c->before, c->stream), "cudaEventRecord"));
  UNIC_TRY(cuda_launch(d, fn, k));
  UNIC_TRY(unic_cuda_check(cudaEventRecord(c->after, c->stream), "cudaEventRecord"));
  UNIC_TRY(unic_cuda_check(cudaEventSynchronize(c->after), "waiting for a launch"));
  UNIC_TRY(unic_cuda_check(cudaEventElapsedTime(&ms, c->before, c->after), "cudaEventElapsedTime"));
  *seconds = (double)ms * 1e-3;
  return UNIC_OK;
}

/* A recorded step as one CUDA graph: its launches go to the stream while that captures. */
static unic_status cuda_capture(unic_device *d, unic_status (*run)(void *), void *context, void **piece) {
  unic_cuda *c = d->state;
  cudaGraph_t graph = NULL;
  cudaGraphExec_t made = NULL;
  UNIC_TRY(use(c));
  UNIC_TRY(unic_cuda_check(cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture"));
  unic_status status = run(context);
  cudaError_t ended = cudaStreamEndCapture(c->stream, &graph);   /* always: the stream must leave the capture */
  if (status == UNIC_OK) status = unic_cuda_check(ended, "cudaStreamEndCapture");
  if (status == UNIC_OK) status = unic_cuda_check(cudaGraphInstantiate(&made, graph, 0), "cudaGraphInstantiate");
  if (graph) cudaGraphDestroy(graph);
  if (status != UNIC_OK) (void)cudaGetLastError();
  *piece = made;
  return status;
}

static unic_status cuda_capture_launch(unic_device *d, void *piece) {
  unic_cuda *c = d->state;
  UNIC_TRY(use(c));
  return unic_cuda_check(cudaGraphLaunch((cudaGraphExec_t)piece, c->stream), "cudaGraphLaunch");
}

static void cuda_capture_free(unic_device *d, void *piece) {
  if (use(d->state) == UNIC_OK) cudaGraphExecDestroy((cudaGraphExec_t)piece);
}

/* ---------------------------------------------------------------- copies and waiting */

static unic_status cuda_upload(unic_device *d, void *to, const void *from, int64_t bytes) {
  unic_cuda *c = d->state;
  UNIC_TRY(use(c));
  return unic_cuda_upload(c, to, from, bytes);
}

/* Values that kernels could not accept. A copy to memory that is not pinned is over when the call returns; what went wrong in a launch comes with the wait. */
static unic_status raise_noted(unic_cuda *c) {
  unic_cuda_flag f;
  UNIC_TRY(unic_cuda_check(cudaMemcpyAsync(&f, c->flag, sizeof f, cudaMemcpyDeviceToHost, c->stream), "copy of the value errors"));
  UNIC_TRY(unic_cuda_check(cudaStreamSynchronize(c->stream), "waiting for the device"));
  if (f.site == 0) return UNIC_OK;
  UNIC_TRY(unic_cuda_check(cudaMemsetAsync(c->flag, 0, sizeof *c->flag, c->stream), "cudaMemset"));
  if (f.site < 0 || f.site >= SITES || !sites[f.site]) return unic_fail("[" KIND "] a kernel met a value that it cannot accept");
  char text[1024];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
  snprintf(text, sizeof text, sites[f.site], f.number[0], f.number[1], f.number[2], f.number[3]);
#pragma GCC diagnostic pop
  return unic_fail("%s", text);
}

static unic_status cuda_download(unic_device *d, void *to, const void *from, int64_t bytes) {
  unic_cuda *c = d->state;
  UNIC_TRY(use(c));
  UNIC_TRY(unic_cuda_check(cudaMemcpyAsync(to, from, (size_t)bytes, cudaMemcpyDeviceToHost, c->stream), "copy from the device"));
  return raise_noted(c);
}

static unic_status cuda_synchronize(unic_device *d) {
  UNIC_TRY(use(d->state));
  return raise_noted(d->state);
}

#ifdef UNIC_CUDA_EMU
cudaError_t unic_emu_taken(void *p, size_t bytes, cudaStream_t stream);   /* spec/cuda_emu/cudart.cpp */

/* What is handed out holds NaN, so that a kernel that reads what nobody wrote shows. */
static void cuda_taken(unic_device *d, void *data, int64_t bytes) {
  unic_cuda *c = d->state;
  if (use(c) == UNIC_OK) (void)unic_emu_taken(data, (size_t)bytes, c->stream);
}
#endif

static const unic_device_api api = {
#ifdef UNIC_CUDA_EMU
  .taken = cuda_taken,
#ifdef __SANITIZE_ADDRESS__
  .margin = 64,
#endif
#endif
  .kind = KIND, .step = STEP, .count = cuda_count, .open = cuda_open, .close = cuda_close, .budget = cuda_budget, .reserve = cuda_reserve,
  .find = cuda_find, .launch = cuda_launch, .timed = cuda_timed, .capture = cuda_capture, .capture_launch = cuda_capture_launch, .capture_free = cuda_capture_free,
  .upload = cuda_upload, .download = cuda_download, .synchronize = cuda_synchronize,
};

__attribute__((visibility("default"))) const unic_device_api *unic_plugin(const unic_host *h, const char **reason);

const unic_device_api *unic_plugin(const unic_host *h, const char **reason) {
  if (h->version != UNIC_HOST_VERSION) {
    *reason = "it was built for another version of the runtime";
    return NULL;
  }
  unic_cuda_host = h;
  return &api;
}
