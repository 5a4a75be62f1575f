/* The emulated CUDA runtime: the entry points that the plug-in uses, compiled against NVIDIA's own header, so that a wrong prototype does not compile.
 *
 * There are two devices. What goes into a stream waits in its queue and runs late: at a synchronisation, a copy to the host, or when the queue is
 * long, in order. Device memory is unreadable except while a queue runs, so that a look from the host faults at once; small allocations are NaN.
 * Every pointer is checked to be of the device or of the host, as the call says. The first failure of a job is the answer of the next synchronisation;
 * what waits then is dropped, and the device is good again (a GPU's context would be lost).
 * Over 500 lines: memory, streams, events and graphs are one state under one lock.
 * EMU_FAIL_MALLOC=n: the n-th cudaMalloc of the process and all after it find no memory.
 * EMU_DRY=1: everything is checked and nothing runs (stream.h). */
#include "emu.h"

#undef gridDim
#undef blockDim

#include <chrono>
#include <climits>
#include <cstdarg>
#include <cstdio>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(p, n) ((void)0)
#define ASAN_UNPOISON_MEMORY_REGION(p, n) ((void)0)
#endif

typedef std::vector<std::shared_ptr<emu::Job>> Jobs;

struct CUstream_st {
  int device;
  std::deque<std::shared_ptr<emu::Job>> queue;
  uint64_t submitted = 0, done = 0;
  std::shared_ptr<Jobs> capture;   /* what is submitted goes here while the stream captures */
  bool spoilt = false;             /* something was asked that a capture cannot hold */
};

struct CUevent_st {
  cudaStream_t stream = nullptr;   /* NULL: never recorded, and so over */
  uint64_t after = 0;              /* it has happened when so many jobs of the stream are done */
  std::shared_ptr<double> at;      /* milliseconds of the host's clock when it happened; NULL: made without timing */
};

struct CUgraph_st { std::shared_ptr<Jobs> jobs; };
struct CUgraphExec_st { int device; std::shared_ptr<Jobs> jobs; };

namespace emu {
namespace {

enum { DEVICES = 2, QUEUE = 64, PROCESSORS = 4 };
constexpr size_t MEMORY = (size_t)8 << 30, MEMORY_DRY = (size_t)80 << 30, FILLED = (size_t)16 << 20, PAGE = 4096, LARGE_PAGE = 2 << 20;
constexpr size_t SHARED_USUAL = 48 << 10, SHARED_MOST = 163 << 10;   /* capability 8.0 */

struct Device {
  std::map<uintptr_t, size_t> memory;   /* allocations: address -> bytes */
  std::map<uintptr_t, uintptr_t> blocks;   /* that the runtime handed out of them: from -> to */
  size_t used = 0;
  std::set<cudaStream_t> streams;
  bool failed = false;
  std::string why;
};

std::recursive_mutex lock;
typedef std::lock_guard<std::recursive_mutex> Guard;
Device devices[DEVICES];
std::map<uintptr_t, size_t> pinned;   /* host memory of cudaMallocHost */
std::unordered_map<const void *, size_t> allowed_shared;
int opened;                           /* how many times memory was made readable */

thread_local int chosen;              /* cudaSetDevice */
thread_local cudaError_t last_error;
thread_local cudaError_t explained;   /* the error that the sentence belongs to */
thread_local char text[1024];

/* The error that a call returns, with a sentence. */
cudaError_t refuse(cudaError_t error, const char *format, ...) __attribute__((format(printf, 2, 3)));
cudaError_t refuse(cudaError_t error, const char *format, ...) {
  char local[sizeof text];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(local, sizeof local, format, arguments);
  va_end(arguments);
  memcpy(text, local, sizeof text);
  set_error(error);
  return error;
}

/* ---------------------------------------------------------------- memory */

/* The allocation of `memory` in which [p, p + bytes) lies. */
bool within(const std::map<uintptr_t, size_t> &memory, const void *p, size_t bytes) {
  auto next = memory.upper_bound((uintptr_t)p);
  if (next == memory.begin()) return false;
  const auto &[base, size] = *--next;
  return (uintptr_t)p - base <= size && bytes <= size - ((uintptr_t)p - base);
}

/* Which device p is of; -1: of none. */
int device_of(const void *p) {
  for (int i = 0; i < DEVICES; i++)
    if (within(devices[i].memory, p, 1)) return i;
  return -1;
}

void protect(int how) {
  for (const Device &d : devices)
    for (const auto &[base, size] : d.memory) mprotect((void *)base, size, how);
}

/* Device memory can be read and written while one of these lives. */
struct Access {
  Access() { if (opened++ == 0) protect(PROT_READ | PROT_WRITE); }
  ~Access() { if (--opened == 0) protect(PROT_NONE); }
};

/* ---------------------------------------------------------------- queues */

bool known(cudaStream_t s) {
  for (const Device &d : devices)
    if (d.streams.count(s)) return true;
  return false;
}

/* Run the first `until` jobs of a stream, as far as they have not run. */
void run(cudaStream_t s, uint64_t until = UINT64_MAX) {
  if (s->queue.empty() || s->done >= until) return;
  Access access;
  while (s->done < until && !s->queue.empty()) {
    std::shared_ptr<Job> job = std::move(s->queue.front());
    s->queue.pop_front();
    Device &d = devices[s->device];
    if (!d.failed && !job->run()) {
      d.failed = true;
      d.why = text;
    }
    s->done++;
  }
}

/* What failed in the queues of a device since the last time. */
cudaError_t raise(int device) {
  Device &d = devices[device];
  if (!d.failed) return cudaSuccess;
  d.failed = false;
  cudaError_t error = refuse(cudaErrorLaunchFailure, "%s", d.why.c_str());
  last_error = cudaSuccess;   /* told, and over */
  return error;
}

cudaError_t check_stream(cudaStream_t s) {
  if (!s) return refuse(cudaErrorInvalidResourceHandle, "the default stream, which waits for no other one here: work goes on streams of one's own");
  if (!known(s)) return refuse(cudaErrorInvalidResourceHandle, "%p is no stream", (void *)s);
  return cudaSuccess;
}

/* Whether a stream of the chosen device captures, in which what `call` does is not allowed: the capture is spoilt then. */
cudaError_t no_capture(const char *call) {
  for (cudaStream_t s : devices[chosen].streams)
    if (s->capture) {
      s->spoilt = true;
      return refuse(cudaErrorStreamCaptureUnsupported, "%s while a stream captures", call);
    }
  return cudaSuccess;
}

struct Function : Job {
  const char *name;
  std::function<bool()> work;
  bool always;   /* in a dry run, too: it touches no memory of the device */
  Function(const char *name, std::function<bool()> work, bool always = false) : name(name), work(std::move(work)), always(always) {}
  bool run() override {
    if (dry() && !always) return true;
    if (work()) return true;
    std::string why = text;
    return fail("%s: %s", name, why.c_str());
  }
};

/* From allocation n of the process on there is no memory. */
bool out_of_memory_now(void) {
  static const char *number = getenv("EMU_FAIL_MALLOC");
  static long left = number ? atol(number) : LONG_MAX;
  return left <= 1 || --left == 0;
}

}

bool fail(const char *format, ...) {
  char local[sizeof text];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(local, sizeof local, format, arguments);
  va_end(arguments);
  memcpy(text, local, sizeof text);
  return false;
}

const char *sentence(void) { return text; }

void set_error(cudaError_t error) { last_error = explained = error; }

cudaError_t submit(cudaStream_t s, std::unique_ptr<Job> job) {
  Guard guard(lock);
  cudaError_t error = check_stream(s);
  if (error != cudaSuccess) return error;
  if (s->device != chosen)
    return refuse(cudaErrorInvalidResourceHandle, "the stream is of device %d, and device %d is chosen (cudaSetDevice)", s->device, chosen);
  if (s->capture) {
    s->capture->push_back(std::move(job));
    return cudaSuccess;
  }
  s->queue.push_back(std::move(job));
  s->submitted++;
  if (s->queue.size() >= QUEUE) run(s);
  return cudaSuccess;
}

cudaError_t submit(cudaStream_t s, const char *name, std::function<bool()> work) { return submit(s, std::make_unique<Function>(name, std::move(work))); }
static cudaError_t submit_always(cudaStream_t s, const char *name, std::function<bool()> work) { return submit(s, std::make_unique<Function>(name, std::move(work), true)); }

bool dry(void) {
  static const char *text = getenv("EMU_DRY");
  return text && *text == '1';
}

bool device_range(cudaStream_t s, const void *p, size_t bytes) {
  Guard guard(lock);
  return known(s) && within(devices[s->device].memory, p, bytes);
}

bool device_memory(const void *p, uintptr_t *from, uintptr_t *to) {
  for (const Device &d : devices) {
    auto next = d.memory.upper_bound((uintptr_t)p);
    if (next == d.memory.begin()) continue;
    const auto &[base, size] = *--next;
    if ((uintptr_t)p - base >= size) continue;
    *from = base;
    *to = base + size;
    return true;
  }
  return false;
}

/* ---------------------------------------------------------------- launches */

bool launch_pointer(const char *name, int position, const void *p, cudaStream_t s) {
  if (!p || !s || device_range(s, p, 0)) return true;   /* no stream: refused in a moment */
  int other = device_of(p);
  if (other >= 0) refuse(cudaErrorInvalidValue, "kernel %s: argument %d points to the memory of device %d", name, position, other);
  else refuse(cudaErrorInvalidValue, "kernel %s: argument %d (%p) is no pointer to the device's memory", name, position, p);
  return false;
}

void launch(std::unique_ptr<Launch> l, const void *kernel, cudaStream_t stream) {
  Guard guard(lock);
  const dim3 &g = l->grid, &b = l->block;
  uint64_t threads = (uint64_t)b.x * b.y * b.z;
  if (threads == 0 || threads > 1024 || b.z > 64) {
    refuse(cudaErrorInvalidConfiguration, "kernel %s: a block of %u x %u x %u threads", l->name, b.x, b.y, b.z);
    return;
  }
  if (g.x == 0 || g.y == 0 || g.z == 0 || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535) {
    refuse(cudaErrorInvalidConfiguration, "kernel %s: a grid of %u x %u x %u blocks", l->name, g.x, g.y, g.z);
    return;
  }
  auto a = allowed_shared.find(kernel);
  size_t most = a == allowed_shared.end() ? SHARED_USUAL : a->second;
  if (l->shared > most) {
    refuse(cudaErrorInvalidValue, "kernel %s: %zu bytes of dynamic shared memory, %zu are allowed (unic_allow_shared)", l->name, l->shared, most);
    return;
  }
  submit(stream, std::move(l));
}

}

using namespace emu;

/* ---------------------------------------------------------------- errors */

cudaError_t cudaGetLastError(void) {
  cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}

const char *cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "cudaSuccess";
    case cudaErrorInvalidValue: return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorInvalidConfiguration: return "cudaErrorInvalidConfiguration";
    case cudaErrorInvalidDevice: return "cudaErrorInvalidDevice";
    case cudaErrorInvalidDeviceFunction: return "cudaErrorInvalidDeviceFunction";
    case cudaErrorInvalidResourceHandle: return "cudaErrorInvalidResourceHandle";
    case cudaErrorInvalidMemcpyDirection: return "cudaErrorInvalidMemcpyDirection";
    case cudaErrorNotReady: return "cudaErrorNotReady";
    case cudaErrorLaunchFailure: return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported: return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated: return "cudaErrorStreamCaptureInvalidated";
    case cudaErrorStreamCaptureIsolation: return "cudaErrorStreamCaptureIsolation";
    case cudaErrorIllegalState: return "cudaErrorIllegalState";
    default: return "unrecognized error code";
  }
}

/* NVIDIA's words, and behind them what this device knows more. */
const char *cudaGetErrorString(cudaError_t error) {
  const char *words = "unrecognized error code";
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: words = "invalid argument"; break;
    case cudaErrorMemoryAllocation: words = "out of memory"; break;
    case cudaErrorInvalidConfiguration: words = "invalid configuration argument"; break;
    case cudaErrorInvalidDevice: words = "invalid device ordinal"; break;
    case cudaErrorInvalidDeviceFunction: words = "invalid device function"; break;
    case cudaErrorInvalidResourceHandle: words = "invalid resource handle"; break;
    case cudaErrorInvalidMemcpyDirection: words = "invalid copy direction for memcpy"; break;
    case cudaErrorNotReady: words = "device not ready"; break;
    case cudaErrorLaunchFailure: words = "unspecified launch failure"; break;
    case cudaErrorStreamCaptureUnsupported: words = "operation not permitted when stream is capturing"; break;
    case cudaErrorStreamCaptureInvalidated: words = "operation failed due to a previous error during capture"; break;
    case cudaErrorStreamCaptureIsolation: words = "dependency created on uncaptured work in another stream"; break;
    case cudaErrorIllegalState: words = "the operation cannot be performed in the present state"; break;
    default: break;
  }
  if (error != explained) return words;
  static thread_local char whole[sizeof text + 64];
  snprintf(whole, sizeof whole, "%s: %s", words, text);
  return whole;
}

/* ---------------------------------------------------------------- devices */

cudaError_t cudaGetDeviceCount(int *n) {
  *n = DEVICES;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= DEVICES) return refuse(cudaErrorInvalidDevice, "there are %d devices, %d is none of them", DEVICES, device);
  chosen = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int *device) {
  *device = chosen;
  return cudaSuccess;
}

/* An A100's, but for few processors: grids are made for them, and every block costs time here. */
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
  if (device < 0 || device >= DEVICES) return refuse(cudaErrorInvalidDevice, "there are %d devices, %d is none of them", DEVICES, device);
  memset(p, 0, sizeof *p);
  snprintf(p->name, sizeof p->name, "emulated GPU %d", device);
  p->major = 8;
  p->minor = 0;
  p->multiProcessorCount = PROCESSORS;
  p->totalGlobalMem = MEMORY;
  p->sharedMemPerBlock = SHARED_USUAL;
  p->sharedMemPerBlockOptin = SHARED_MOST;
  p->sharedMemPerMultiprocessor = 164 << 10;
  p->regsPerBlock = p->regsPerMultiprocessor = 65536;
  p->warpSize = 32;
  p->maxThreadsPerBlock = 1024;
  p->maxThreadsPerMultiProcessor = 2048;
  p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024;
  p->maxThreadsDim[2] = 64;
  p->maxGridSize[0] = 0x7fffffff;
  p->maxGridSize[1] = p->maxGridSize[2] = 65535;
  p->l2CacheSize = 40 << 20;
  p->unifiedAddressing = 1;
  return cudaSuccess;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute what, int value) {
  Guard guard(lock);
  if (what != cudaFuncAttributeMaxDynamicSharedMemorySize) return refuse(cudaErrorInvalidValue, "attribute %d of a kernel is not emulated", (int)what);
  if (value < 0 || (size_t)value > SHARED_MOST) return refuse(cudaErrorInvalidValue, "%d bytes of dynamic shared memory, at most %zu are possible", value, SHARED_MOST);
  allowed_shared[kernel] = (size_t)value;
  return cudaSuccess;
}

/* ---------------------------------------------------------------- streams and events */

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
  Guard guard(lock);
  *s = new CUstream_st();
  (*s)->device = chosen;
  devices[chosen].streams.insert(*s);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t s) {
  Guard guard(lock);
  cudaError_t error = check_stream(s);
  if (error != cudaSuccess) return error;
  run(s);
  devices[s->device].streams.erase(s);
  delete s;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t s) {
  Guard guard(lock);
  cudaError_t error = check_stream(s);
  if (error == cudaSuccess) error = no_capture("cudaStreamSynchronize");
  if (error != cudaSuccess) return error;
  run(s);
  return raise(s->device);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags) {
  *e = new CUevent_st();
  if (!(flags & cudaEventDisableTiming)) (*e)->at = std::make_shared<double>(0);
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t e) {
  delete e;
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s) {
  Guard guard(lock);
  cudaError_t error = submit_always(s, "an event", [at = e->at] {
    if (at) *at = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count();
    return true;
  });
  if (error != cudaSuccess || s->capture) return error;
  e->stream = s;
  e->after = s->submitted;
  return cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t e) {
  Guard guard(lock);
  cudaError_t error = no_capture("cudaEventSynchronize");
  if (error != cudaSuccess || !e->stream || !known(e->stream)) return error;
  run(e->stream, e->after);
  return raise(e->stream->device);
}

cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
  Guard guard(lock);
  if (!from->at || !to->at || !from->stream || !to->stream) return refuse(cudaErrorInvalidResourceHandle, "an event without a time");
  for (cudaEvent_t e : {from, to})
    if (known(e->stream) && e->stream->done < e->after) return cudaErrorNotReady;
  *ms = (float)(*to->at - *from->at);
  return cudaSuccess;
}

/* A queue runs only when somebody needs it, so the stream that waits is the one that makes the other one go on. */
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned) {
  Guard guard(lock);
  if (s && known(s) && s->capture) {
    s->spoilt = true;
    return refuse(cudaErrorStreamCaptureIsolation, "a capture waits for an event from outside");
  }
  if (!e->stream) return cudaSuccess;
  return submit_always(s, "waiting for an event", [from = e->stream, after = e->after] {
    if (known(from)) run(from, after);
    return true;
  });
}

/* ---------------------------------------------------------------- graphs: the queue of a capture, run again and again */

cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
  Guard guard(lock);
  cudaError_t error = check_stream(s);
  if (error != cudaSuccess) return error;
  if (s->capture) return refuse(cudaErrorIllegalState, "the stream captures already");
  s->capture = std::make_shared<Jobs>();
  s->spoilt = false;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *graph) {
  Guard guard(lock);
  *graph = nullptr;
  cudaError_t error = check_stream(s);
  if (error != cudaSuccess) return error;
  if (!s->capture) return refuse(cudaErrorIllegalState, "the stream does not capture");
  std::shared_ptr<Jobs> jobs = std::move(s->capture);
  s->capture = nullptr;
  if (s->spoilt) return refuse(cudaErrorStreamCaptureInvalidated, "%s", std::string(text).c_str());
  *graph = new CUgraph_st{jobs};
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *made, cudaGraph_t graph, unsigned long long) {
  *made = new CUgraphExec_st{chosen, graph->jobs};
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t s) {
  if (graph->device != chosen) return refuse(cudaErrorInvalidValue, "the graph is of device %d, and device %d is chosen", graph->device, chosen);
  return submit_always(s, "a graph", [jobs = graph->jobs] {
    for (const auto &job : *jobs)
      if (!job->run()) return false;
    return true;
  });
}

/* ---------------------------------------------------------------- memory */

cudaError_t cudaMalloc(void **p, size_t bytes) {
  Guard guard(lock);
  Device &d = devices[chosen];
  *p = nullptr;
  cudaError_t error = no_capture("cudaMalloc");
  if (error != cudaSuccess) return error;
  if (bytes == 0) return cudaSuccess;
  size_t whole = (bytes + PAGE - 1) / PAGE * PAGE;
  const size_t all = dry() ? MEMORY_DRY : MEMORY;
  if (out_of_memory_now() || d.used + whole > all) return refuse(cudaErrorMemoryAllocation, "%zu bytes were asked for, %zu of %zu are free", bytes, all - d.used, all);
  /* Large pages, because every drain of a queue changes the protection of all of them twice: 64 MB take 13 us in large pages and 13 ms in small
   * ones (a virtual machine). Something that nobody may touch stays on either side. */
  size_t alignment = whole < LARGE_PAGE ? PAGE : LARGE_PAGE;
  void *mapped = mmap(nullptr, whole + 2 * alignment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return refuse(cudaErrorMemoryAllocation, "the system gave no mapping of %zu bytes", whole);
  char *base = reinterpret_cast<char *>(((uintptr_t)mapped / alignment + 1) * alignment), *end = static_cast<char *>(mapped) + whole + 2 * alignment;
  if (base - PAGE > mapped) munmap(mapped, (size_t)(base - PAGE - static_cast<char *>(mapped)));
  if (end > base + whole + PAGE) munmap(base + whole + PAGE, (size_t)(end - (base + whole + PAGE)));
  if (alignment == LARGE_PAGE) madvise(base, whole, MADV_HUGEPAGE);
  if (bytes <= FILLED && !dry()) {   /* the runtime cuts larger ones into pieces, and those are filled as they are handed out (device.c, `taken`) */
    mprotect(base, whole, PROT_READ | PROT_WRITE);
    memset(base, 0xff, whole);
  }
  mprotect(base, whole, opened ? PROT_READ | PROT_WRITE : PROT_NONE);
  ASAN_POISON_MEMORY_REGION(base + bytes, whole - bytes);
  d.memory[(uintptr_t)base] = whole;
  d.used += whole;
  *p = base;
  return cudaSuccess;
}

cudaError_t cudaFree(void *p) {
  Guard guard(lock);
  if (!p) return cudaSuccess;
  cudaError_t error = no_capture("cudaFree");
  if (error != cudaSuccess) return error;
  for (Device &d : devices) {
    auto found = d.memory.find((uintptr_t)p);
    if (found == d.memory.end()) continue;
    for (cudaStream_t s : d.streams) run(s);   /* as CUDA's: waits for the device */
    ASAN_UNPOISON_MEMORY_REGION(p, found->second);
    munmap(static_cast<char *>(p) - PAGE, found->second + 2 * PAGE);
    d.blocks.erase(d.blocks.lower_bound((uintptr_t)p), d.blocks.lower_bound((uintptr_t)p + found->second));
    d.used -= found->second;
    d.memory.erase(found);
    return cudaSuccess;
  }
  return refuse(cudaErrorInvalidValue, "%p was not given by cudaMalloc", p);
}

cudaError_t cudaMemGetInfo(size_t *available, size_t *all) {
  Guard guard(lock);
  *all = dry() ? MEMORY_DRY : MEMORY;
  *available = *all - devices[chosen].used;
  return cudaSuccess;
}

cudaError_t cudaMallocHost(void **p, size_t bytes) {
  Guard guard(lock);
  *p = aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!*p) return refuse(cudaErrorMemoryAllocation, "%zu bytes of host memory", bytes);
  pinned[(uintptr_t)*p] = bytes;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void *p) {
  Guard guard(lock);
  if (p && !pinned.erase((uintptr_t)p)) return refuse(cudaErrorInvalidValue, "%p was not given by cudaMallocHost", p);
  free(p);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t s) {
  if (bytes && !device_range(s, p, bytes)) return refuse(cudaErrorInvalidValue, "cudaMemset: %p and the %zu bytes from there are not the device's", p, bytes);
  return submit(s, "cudaMemset", [=] {
    memset(p, value, bytes);
    return true;
  });
}

/* The runtime handed out a block of its piece of device memory: NaN from here on, in the order of the stream, and under AddressSanitizer bounded. */
extern "C" cudaError_t unic_emu_taken(void *p, size_t bytes, cudaStream_t s) {
  return submit(s, "a block of memory", [=] {
    Device &d = devices[s->device];
    uintptr_t at = (uintptr_t)p, from, to;
    auto next = d.blocks.upper_bound(at);
    if (next != d.blocks.begin() && std::prev(next)->second > at) --next;
    if (!device_memory(p, &from, &to)) return fail("%p is not the device's", p);
    auto first_of_piece = d.blocks.lower_bound(from);
    if (first_of_piece == d.blocks.end() || first_of_piece->first >= to) ASAN_POISON_MEMORY_REGION((void *)from, to - from);
    while (next != d.blocks.end() && next->first < at + bytes) {   /* what was here before */
      ASAN_POISON_MEMORY_REGION((void *)next->first, next->second - next->first);
      next = d.blocks.erase(next);
    }
    if (bytes) d.blocks[at] = at + bytes;
    ASAN_UNPOISON_MEMORY_REGION(p, bytes);
    memset(p, 0xff, bytes);
    return true;
  });
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind kind, cudaStream_t s) {
  Guard guard(lock);
  cudaError_t error = check_stream(s);
  if (error != cudaSuccess || bytes == 0) return error;
  int of_to = device_of(to), of_from = device_of(from);
  if (kind == cudaMemcpyDefault)
    kind = of_to >= 0 ? of_from >= 0 ? cudaMemcpyDeviceToDevice : cudaMemcpyHostToDevice : of_from >= 0 ? cudaMemcpyDeviceToHost : cudaMemcpyHostToHost;
  bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  if (to_device != (of_to >= 0))
    return refuse(cudaErrorInvalidValue, "cudaMemcpy: the target %p is memory of the %s", to, to_device ? "host, or of nobody" : "device");
  if (from_device != (of_from >= 0))
    return refuse(cudaErrorInvalidValue, "cudaMemcpy: the source %p is memory of the %s", from, from_device ? "host, or of nobody" : "device");
  if (to_device && !within(devices[of_to].memory, to, bytes)) return refuse(cudaErrorInvalidValue, "cudaMemcpy: the target ends before %zu bytes", bytes);
  if (from_device && !within(devices[of_from].memory, from, bytes)) return refuse(cudaErrorInvalidValue, "cudaMemcpy: the source ends before %zu bytes", bytes);
  /* Pinned memory is read and written late, when the copy's turn comes; other host memory is done with when the call returns. */
  bool pageable = (!from_device && !within(pinned, from, bytes)) || (!to_device && !within(pinned, to, bytes));
  if (pageable) error = no_capture("a copy from or to pageable host memory");
  if (error != cudaSuccess) return error;
  if (pageable && !from_device && !dry()) {
    auto held = std::shared_ptr<char[]>(new char[bytes]);
    memcpy(held.get(), from, bytes);
    return submit(s, "cudaMemcpy", [=] {
      memcpy(to, held.get(), bytes);
      return true;
    });
  }
  error = submit(s, "cudaMemcpy", [=] {
    memcpy(to, from, bytes);
    return true;
  });
  if (dry() && !to_device) memset(to, 0, bytes);   /* the host reads something all the same: no error flag is up */
  if (error != cudaSuccess || !pageable) return error;
  run(s);
  return raise(s->device);
}
