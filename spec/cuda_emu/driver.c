/* A stand-in for the CUDA driver's library, for one purpose: cuDNN compiles some engines while a plan is built, and then loads what it compiled and asks for
 * its occupancy. Here loading succeeds, occupancy is an invented number, everything else answers "no device": no kernel can run, and none is said to have run.
 * spec/check/cudnn_deviceless.lua compiles it, with aliases of `fail` for all other entry points of the toolkit's own stub, into a folder of its own that only
 * the processes of that check see. */
#include <stdlib.h>

enum { DONE = 0, NO_DEVICE = 100, VERSION = 13000, INVENTED_CLUSTERS = 16 };

int fail(void) { return NO_DEVICE; }
int cuInit(unsigned flags) { return NO_DEVICE; }
int cuDriverGetVersion(int *version) { return *version = VERSION, DONE; }
int cuDeviceGetCount(int *count) { return *count = 0, DONE; }
int cuGetErrorString(int error, const char **text) { return *text = "the stand-in driver has no device", DONE; }
int cuGetErrorName(int error, const char **text) { return *text = "NO_DEVICE", DONE; }

static int handle(void **out) { return (*out = malloc(1)) ? DONE : NO_DEVICE; }
int cuLibraryLoadData(void **library, const void *code, void *o, void *v, unsigned n, void *p, void *q, unsigned m) { return handle(library); }
int cuLibraryUnload(void *library) { return free(library), DONE; }
int cuLibraryGetKernel(void **kernel, void *library, const char *name) { return handle(kernel); }
int cuLibraryGetModule(void **module, void *library) { return handle(module); }
int cuKernelGetFunction(void **function, void *kernel) { return *function = kernel, DONE; }
int cuKernelSetAttribute(int attribute, int value, void *kernel, int device) { return DONE; }
int cuKernelGetAttribute(int *value, int attribute, void *kernel, int device) { return *value = 0, DONE; }
int cuModuleLoadData(void **module, const void *code) { return handle(module); }
int cuModuleLoadDataEx(void **module, const void *code, unsigned n, void *options, void **values) { return handle(module); }
int cuModuleUnload(void *module) { return free(module), DONE; }
int cuModuleGetFunction(void **function, void *module, const char *name) { return handle(function); }
int cuFuncSetAttribute(void *function, int attribute, int value) { return DONE; }
int cuFuncGetAttribute(int *value, int attribute, void *function) { return *value = 0, DONE; }
int cuOccupancyMaxActiveClusters(int *clusters, void *function, const void *config) { return *clusters = INVENTED_CLUSTERS, DONE; }
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, void *function, int threads, size_t shared) { return *blocks = 1, DONE; }
int cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks, void *function, int threads, size_t shared, unsigned flags) { return *blocks = 1, DONE; }
