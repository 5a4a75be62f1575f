/* cuDNN's graphs, in plain C: a graph is described, planned once (in an op's plan) and run many times. cuDNN is opened at the first graph.
 *
 * What may run is chosen so that bits are equal from run to run and sums are made in f32: engines that say otherwise are passed over. */
#ifndef UNIC_CUDA_DNN_H
#define UNIC_CUDA_DNN_H

#include "cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { UNIC_DNN_TENSORS = 6, UNIC_DNN_OPS = 3, UNIC_DNN_RANK = 4 };

typedef struct unic_dnn_tensor {
  uint8_t dtype;                       /* unic_dtype */
  bool between;                        /* passed from op to op, never in memory */
  int64_t dim[UNIC_DNN_RANK], stride[UNIC_DNN_RANK];   /* N, C, H, W, elements */
} unic_dnn_tensor;

typedef enum unic_dnn_kind {
  UNIC_DNN_CONV,                       /* tensors: image, filter [O, C/groups, Kh, Kw], result */
  UNIC_DNN_CONV_DATA,                  /* the image's gradient from the filter and the result's; the same three places */
  UNIC_DNN_CONV_FILTER,                /* the filter's gradient from the image and the result's */
  UNIC_DNN_ADD,                        /* tensors: a, b (dimensions of 1 are repeated), sum */
  UNIC_DNN_CAST                        /* tensors: a, (none), the same in another type */
} unic_dnn_kind;

typedef struct unic_dnn_op {
  unic_dnn_kind kind;
  int tensor[3];
  int64_t stride[2], dilation[2], before[2], after[2];   /* of a convolution; pixels of padding before and after */
} unic_dnn_op;

typedef struct unic_dnn_graph {
  int tensors, ops;
  unic_dnn_tensor tensor[UNIC_DNN_TENSORS];
  unic_dnn_op op[UNIC_DNN_OPS];
  int64_t workspace_most;              /* bytes that a plan may ask for */
} unic_dnn_graph;

typedef struct unic_dnn_plan unic_dnn_plan;

/* The first engine that fits, in the order of cuDNN's heuristics. *out NULL and UNIC_OK: cuDNN has none, and unic_dnn_reason says why. */
unic_status unic_dnn_plan_new(unic_cuda *c, const unic_dnn_graph *g, unic_dnn_plan **out);
void unic_dnn_plan_free(unic_dnn_plan *p);
int64_t unic_dnn_workspace(const unic_dnn_plan *p);
/* What cuDNN said about the latest graph that it has no plan for. */
const char *unic_dnn_reason(void);
/* Put the plan on the device's stream; memory[i] is where tensor i lies (16-byte aligned; of one `between`: anything). */
unic_status unic_dnn_run(unic_cuda *c, const unic_dnn_plan *p, void *const *memory, void *workspace);

/* Of a device that is closed. */
void unic_dnn_close(unic_cuda *c);

#ifdef __cplusplus
}
#endif

#endif
