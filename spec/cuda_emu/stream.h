/* The emulated GPU as host code sees it: queues that run late. For emu.cpp, cudart.cpp and the stand-ins for NVIDIA's libraries. */
#ifndef UNIC_EMU_STREAM_H
#define UNIC_EMU_STREAM_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include <cuda_runtime_api.h>

namespace emu {

/* Work in a stream's queue: runs with the device's memory readable, in the order of the stream. */
struct Job {
  virtual ~Job() = default;
  virtual bool run() = 0;   /* false: it failed, and fail() was called with the reason */
};

/* Remembers why a job or a call failed, and returns false. A job's is what the next synchronisation says. */
bool fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
const char *sentence(void);   /* the latest */

/* Puts a job into a stream's queue. An error code where the stream is none, or is of another device than the current one. */
cudaError_t submit(cudaStream_t stream, std::unique_ptr<Job> job);
/* EMU_DRY=1: calls are checked, plans are made, and nothing is computed or copied: full-size models pass in seconds, with memory that nobody touches. */
bool dry(void);
/* The same for a function, which returns what run() does. `name` stands before its sentence. In a dry run it is left out. */
cudaError_t submit(cudaStream_t stream, const char *name, std::function<bool()> work);

/* Whether [p, p + bytes) lies in memory of the stream's device. */
bool device_range(cudaStream_t stream, const void *p, size_t bytes);

/* The allocation of any device's memory in which p lies, as [from, to); false: it lies in none. */
bool device_memory(const void *p, uintptr_t *from, uintptr_t *to);

/* What cudaGetLastError will say; the sentence is that of fail(). */
void set_error(cudaError_t error);

}

#endif
