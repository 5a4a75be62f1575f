/* cuDNN's graphs through its backend interface: descriptors are made from a unic_dnn_graph, the heuristics are asked for engines, the first acceptable
 * one becomes an execution plan. */
#include "dnn.h"

#include <cudnn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEPT = 32, CONFIGS = 64, ALIGNMENT = 16 };

struct unic_cuda_dnn { cudnnHandle_t handle; };

struct unic_dnn_plan {
  cudnnBackendDescriptor_t kept[KEPT];    /* everything that the plan is made of */
  int count;
  cudnnBackendDescriptor_t plan;
  int64_t workspace, uid[UNIC_DNN_TENSORS];
  int place[UNIC_DNN_TENSORS], tensors;   /* of those in memory: index in the graph */
};

static _Thread_local char reason[512];
const char *unic_dnn_reason(void) { return reason; }

/* Remember why cuDNN refused something. */
static cudnnStatus_t note(cudnnStatus_t s, const char *what) {
  if (s == CUDNN_STATUS_SUCCESS) return s;
  char text[384] = {0};
  cudnnGetLastErrorString(text, sizeof text);
  char *line = strchr(text, '\n');
  if (line) *line = 0;
  snprintf(reason, sizeof reason, "%s: %s%s%s", what, cudnnGetErrorString(s), *text ? ", " : "", text);
  return s;
}

static unic_status check(cudnnStatus_t s, const char *what) {
  if (note(s, what) == CUDNN_STATUS_SUCCESS) return UNIC_OK;
  return unic_fail("[cuda] cuDNN, %s", reason);
}

/* ---------------------------------------------------------------- descriptors */

typedef cudnnBackendDescriptor_t desc;

static cudnnStatus_t set(desc d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t n, const void *values) {
  return note(cudnnBackendSetAttribute(d, name, type, n, (void *)(uintptr_t)values), "an attribute");
}
static cudnnStatus_t set_desc(desc d, cudnnBackendAttributeName_t name, desc value) { return set(d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &value); }

/* A new descriptor that lives as long as the plan. */
static cudnnStatus_t make(unic_dnn_plan *p, cudnnBackendDescriptorType_t type, desc *out) {
  if (p->count == KEPT) return note(CUDNN_STATUS_NOT_SUPPORTED, "a graph of too many parts");
  cudnnStatus_t s = note(cudnnBackendCreateDescriptor(type, out), "a descriptor");
  if (s == CUDNN_STATUS_SUCCESS) p->kept[p->count++] = *out;
  return s;
}

#define STEP(call) do { cudnnStatus_t s_ = (call); if (s_ != CUDNN_STATUS_SUCCESS) return s_; } while (0)

static cudnnDataType_t type_of(uint8_t dtype) {
  switch (dtype) {
    case UNIC_BF16: return CUDNN_DATA_BFLOAT16;
    case UNIC_F16: return CUDNN_DATA_HALF;
    case UNIC_F64: return CUDNN_DATA_DOUBLE;
    default: return CUDNN_DATA_FLOAT;
  }
}

static cudnnStatus_t tensor_desc(unic_dnn_plan *p, const unic_dnn_tensor *t, int64_t uid, desc *out) {
  const cudnnDataType_t type = type_of(t->dtype);
  const int64_t alignment = ALIGNMENT;
  STEP(make(p, CUDNN_BACKEND_TENSOR_DESCRIPTOR, out));
  STEP(set(*out, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type));
  STEP(set(*out, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, UNIC_DNN_RANK, t->dim));
  STEP(set(*out, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, UNIC_DNN_RANK, t->stride));
  STEP(set(*out, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &uid));
  STEP(set(*out, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &alignment));
  if (t->between) STEP(set(*out, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, &t->between));
  return note(cudnnBackendFinalize(*out), "a tensor");
}

static cudnnStatus_t conv_desc(unic_dnn_plan *p, const unic_dnn_op *o, desc *out) {
  const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
  const cudnnConvolutionMode_t mode = CUDNN_CROSS_CORRELATION;
  const int64_t rank = 2;
  STEP(make(p, CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR, out));
  STEP(set(*out, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &compute));
  STEP(set(*out, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, &mode));
  STEP(set(*out, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, &rank));
  STEP(set(*out, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 2, o->dilation));
  STEP(set(*out, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 2, o->stride));
  STEP(set(*out, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 2, o->before));
  STEP(set(*out, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 2, o->after));
  return note(cudnnBackendFinalize(*out), "a convolution");
}

static cudnnStatus_t op_desc(unic_dnn_plan *p, const unic_dnn_op *o, const desc *tensors, desc *out) {
  /* The names of what the three convolutions have alike. */
  static const struct {
    cudnnBackendDescriptorType_t type;
    cudnnBackendAttributeName_t alpha, beta, conv, tensor[3];
  } names[] = {
    [UNIC_DNN_CONV] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA,
                       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                       {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y}},
    [UNIC_DNN_CONV_DATA] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                            CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                            {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY}},
    [UNIC_DNN_CONV_FILTER] = {CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                              CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                              {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY}},
  };
  const desc a = tensors[o->tensor[0]], b = tensors[o->tensor[1]], c = tensors[o->tensor[2]];
  if (o->kind == UNIC_DNN_ADD || o->kind == UNIC_DNN_CAST) {
    const cudnnPointwiseMode_t mode = o->kind == UNIC_DNN_ADD ? CUDNN_POINTWISE_ADD : CUDNN_POINTWISE_IDENTITY;
    const cudnnDataType_t compute = CUDNN_DATA_FLOAT;
    desc pointwise;
    STEP(make(p, CUDNN_BACKEND_POINTWISE_DESCRIPTOR, &pointwise));
    STEP(set(pointwise, CUDNN_ATTR_POINTWISE_MODE, CUDNN_TYPE_POINTWISE_MODE, 1, &mode));
    STEP(set(pointwise, CUDNN_ATTR_POINTWISE_MATH_PREC, CUDNN_TYPE_DATA_TYPE, 1, &compute));
    STEP(note(cudnnBackendFinalize(pointwise), "an element-wise operation"));
    STEP(make(p, CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR, out));
    STEP(set_desc(*out, CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, pointwise));
    STEP(set_desc(*out, CUDNN_ATTR_OPERATION_POINTWISE_XDESC, a));
    if (o->kind == UNIC_DNN_ADD) STEP(set_desc(*out, CUDNN_ATTR_OPERATION_POINTWISE_BDESC, b));
    STEP(set_desc(*out, CUDNN_ATTR_OPERATION_POINTWISE_YDESC, c));
    return note(cudnnBackendFinalize(*out), "an element-wise operation");
  }
  const float one = 1, zero = 0;
  desc conv;
  STEP(conv_desc(p, o, &conv));
  STEP(make(p, names[o->kind].type, out));
  STEP(set(*out, names[o->kind].alpha, CUDNN_TYPE_FLOAT, 1, &one));
  STEP(set(*out, names[o->kind].beta, CUDNN_TYPE_FLOAT, 1, &zero));
  STEP(set_desc(*out, names[o->kind].conv, conv));
  STEP(set_desc(*out, names[o->kind].tensor[0], a));
  STEP(set_desc(*out, names[o->kind].tensor[1], b));
  STEP(set_desc(*out, names[o->kind].tensor[2], c));
  return note(cudnnBackendFinalize(*out), "an operation");
}

static cudnnStatus_t graph_desc(const struct unic_cuda_dnn *dnn, unic_dnn_plan *p, const unic_dnn_graph *g, desc *out) {
  desc tensors[UNIC_DNN_TENSORS], ops[UNIC_DNN_OPS];
  for (int i = 0; i < g->tensors; i++) {
    STEP(tensor_desc(p, &g->tensor[i], i + 1, &tensors[i]));
    if (g->tensor[i].between) continue;
    p->uid[p->tensors] = i + 1;
    p->place[p->tensors++] = i;
  }
  for (int i = 0; i < g->ops; i++) STEP(op_desc(p, &g->op[i], tensors, &ops[i]));
  STEP(make(p, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, out));
  STEP(set(*out, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &dnn->handle));
  STEP(set(*out, CUDNN_ATTR_OPERATIONGRAPH_OPS, CUDNN_TYPE_BACKEND_DESCRIPTOR, g->ops, ops));
  return note(cudnnBackendFinalize(*out), "a graph");
}

/* ---------------------------------------------------------------- engines */

/* Whether an engine gives equal bits and makes its sums in f32, of numbers as they are: no TF32 for f32, no other algorithm than the plain sum. */
static bool acceptable(desc config, bool full) {
  desc engine;
  if (cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != CUDNN_STATUS_SUCCESS) return false;
  int64_t n = 0;
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  bool good = cudnnBackendGetAttribute(config, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine) == CUDNN_STATUS_SUCCESS &&
              cudnnBackendGetAttribute(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n, notes) == CUDNN_STATUS_SUCCESS;
  for (int64_t i = 0; good && i < n; i++) {
    switch (notes[i]) {
      case CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC:
      case CUDNN_NUMERICAL_NOTE_REDUCED_PRECISION_REDUCTION:
      case CUDNN_NUMERICAL_NOTE_FFT:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_4x4:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_6x6:
      case CUDNN_NUMERICAL_NOTE_WINOGRAD_TILE_13x13: good = false; break;
      case CUDNN_NUMERICAL_NOTE_TENSOR_CORE:
      case CUDNN_NUMERICAL_NOTE_DOWN_CONVERT_INPUTS: good = good && !full; break;
      default: break;
    }
  }
  cudnnBackendDestroyDescriptor(engine);
  if (!good && !*reason) snprintf(reason, sizeof reason, "no engine gives equal bits and sums in f32");
  return good;
}

/* An execution plan of one engine's configuration, if its workspace is within bounds. */
static bool plan_of(const struct unic_cuda_dnn *dnn, unic_dnn_plan *p, desc config, int64_t most) {
  desc plan;
  int64_t n = 0;
  if (note(cudnnBackendCreateDescriptor(CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &plan), "a plan") != CUDNN_STATUS_SUCCESS) return false;
  bool good = set(plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &dnn->handle) == CUDNN_STATUS_SUCCESS;
  good = good && set_desc(plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, config) == CUDNN_STATUS_SUCCESS && note(cudnnBackendFinalize(plan), "a plan") == CUDNN_STATUS_SUCCESS;
  good = good && note(cudnnBackendGetAttribute(plan, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &p->workspace), "a plan's workspace") == CUDNN_STATUS_SUCCESS;
  if (good && p->workspace > most) {
    snprintf(reason, sizeof reason, "it wants %lld bytes of workspace, %lld are allowed", (long long)p->workspace, (long long)most);
    good = false;
  }
  if (good) p->plan = plan;
  else cudnnBackendDestroyDescriptor(plan);
  return good;
}

/* What the heuristics of one mode offer, until something is good. */
static bool ask(const struct unic_cuda_dnn *dnn, unic_dnn_plan *p, desc graph, cudnnBackendHeurMode_t mode, bool full, int64_t most) {
  desc heuristics, configs[CONFIGS];
  int64_t n = 0;
  int made = 0;
  if (make(p, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &heuristics) != CUDNN_STATUS_SUCCESS) return false;
  if (set_desc(heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, graph) != CUDNN_STATUS_SUCCESS) return false;
  if (set(heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode) != CUDNN_STATUS_SUCCESS) return false;
  if (note(cudnnBackendFinalize(heuristics), "the heuristics") != CUDNN_STATUS_SUCCESS) return false;
  while (made < CONFIGS && cudnnBackendCreateDescriptor(CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &configs[made]) == CUDNN_STATUS_SUCCESS) made++;
  bool found = false;
  if (note(cudnnBackendGetAttribute(heuristics, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR, made, &n, configs), "the heuristics' answer") == CUDNN_STATUS_SUCCESS) {
    if (n > made) n = made;
    for (int64_t i = 0; i < n && !found; i++) {
      found = acceptable(configs[i], full) && plan_of(dnn, p, configs[i], most);
      if (!found || p->count == KEPT) continue;
      p->kept[p->count++] = configs[i];   /* the plan may look at it */
      configs[i] = NULL;
    }
  }
  for (int i = 0; i < made; i++) if (configs[i]) cudnnBackendDestroyDescriptor(configs[i]);
  return found;
}

/* ---------------------------------------------------------------- the interface */

static unic_status open_dnn(unic_cuda *c) {
  if (c->dnn) return UNIC_OK;
  struct unic_cuda_dnn *dnn = calloc(1, sizeof *dnn);
  if (!dnn) return unic_fail("[cuda] no host memory");
  unic_status status = unic_cuda_check(cudaSetDevice(c->ordinal), "cudaSetDevice");   /* plans are made outside of launches */
  if (status == UNIC_OK) status = check(cudnnCreate(&dnn->handle), "opening it");
  if (status == UNIC_OK) status = check(cudnnSetStream(dnn->handle, c->stream), "its stream");
  if (status != UNIC_OK) {
    if (dnn->handle) cudnnDestroy(dnn->handle);
    free(dnn);
    return status;
  }
  c->dnn = dnn;
  return UNIC_OK;
}

void unic_dnn_close(unic_cuda *c) {
  if (!c->dnn) return;
  cudnnDestroy(c->dnn->handle);
  free(c->dnn);
  c->dnn = NULL;
}

unic_status unic_dnn_plan_new(unic_cuda *c, const unic_dnn_graph *g, unic_dnn_plan **out) {
  *out = NULL;
  UNIC_TRY(open_dnn(c));
  unic_dnn_plan *p = calloc(1, sizeof *p);
  if (!p) return unic_fail("[cuda] no host memory");
  *reason = 0;
  bool full = !c->tf32;   /* whether an f32 tensor beside no half one: products must be f32's own */
  for (int i = 0; i < g->tensors; i++) full = full && !unic_dtype_is_half((unic_dtype)g->tensor[i].dtype);
  desc graph;
  bool found = graph_desc(c->dnn, p, g, &graph) == CUDNN_STATUS_SUCCESS &&
               (ask(c->dnn, p, graph, CUDNN_HEUR_MODE_A, full, g->workspace_most) || ask(c->dnn, p, graph, CUDNN_HEUR_MODE_FALLBACK, full, g->workspace_most));
  if (found) *out = p;
  else unic_dnn_plan_free(p);
  return UNIC_OK;
}

void unic_dnn_plan_free(unic_dnn_plan *p) {
  if (!p) return;
  if (p->plan) cudnnBackendDestroyDescriptor(p->plan);
  while (p->count > 0) cudnnBackendDestroyDescriptor(p->kept[--p->count]);
  free(p);
}

int64_t unic_dnn_workspace(const unic_dnn_plan *p) { return p->workspace; }

static cudnnStatus_t execute(const struct unic_cuda_dnn *dnn, const unic_dnn_plan *p, desc pack, void *const *memory, void *workspace) {
  void *pointers[UNIC_DNN_TENSORS];
  for (int i = 0; i < p->tensors; i++) pointers[i] = memory[p->place[i]];
  STEP(set(pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, p->tensors, pointers));
  STEP(set(pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, p->tensors, p->uid));
  STEP(set(pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace));
  STEP(note(cudnnBackendFinalize(pack), "the arguments of a plan"));
  return note(cudnnBackendExecute(dnn->handle, p->plan, pack), "running a plan");
}

unic_status unic_dnn_run(unic_cuda *c, const unic_dnn_plan *p, void *const *memory, void *workspace) {
  desc pack;
  UNIC_TRY(check(cudnnBackendCreateDescriptor(CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack), "the arguments of a plan"));
  cudnnStatus_t s = execute(c->dnn, p, pack, memory, workspace);
  cudnnBackendDestroyDescriptor(pack);
  return check(s, "running a plan");
}
