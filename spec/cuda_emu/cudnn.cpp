/* The emulated device's cuDNN: exactly the entry points that runtime/cuda/dnn.c uses, compiled against NVIDIA's own headers.
 *
 * Descriptors keep their attributes. Where the real libcudnn is at hand (EMU_CUDNN=path, else the one the build found; EMU_CUDNN=off: not wanted), every
 * descriptor has a twin there, made for a GPU that is only described (in props; EMU_GPU=a100, h100, ... chooses): NVIDIA's code checks the graph, answers the heuristics,
 * builds the plan and says the workspace; what it refuses is refused here. Engines that are compiled when a plan is built need a CUDA driver, and so are
 * refused where there is none. Without the library every graph that makes sense is accepted, the heuristics offer a nondeterministic engine, one with
 * tensor cores and a plain one, in this order, and running one that is not allowed is an error.
 *
 * Over 500 lines: descriptors, their twins and the loops know one another's attributes.
 *
 * EMU_PLANS=FILE: what was asked for and what came of it, lines "asked GRAPH", "refused GRAPH | ENGINE | REASON", "planned GRAPH | ENGINE | WORKSPACE" and,
 * whenever a plan runs, "runs GRAPH | ENGINE | WORKSPACE" (spec/check/cudnn_deviceless.lua reads it).
 *
 * A plan runs as plain loops in f64 on the emulated stream, after checks of identifiers, of pointers (device memory, all of the tensor, aligned) and of the
 * workspace, which is spoilt. */
#include <cudnn.h>

#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include <dlfcn.h>

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "stream.h"

struct cudnnContext { cudaStream_t stream = nullptr; };

namespace {

thread_local std::string last;

cudnnStatus_t refuse(cudnnStatus_t s, const char *format, ...) __attribute__((format(printf, 2, 3)));
cudnnStatus_t refuse(cudnnStatus_t s, const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  last = text;
  return s;
}

/* ---------------------------------------------------------------- the real library */

struct Real {
  decltype(&::cudnnBackendCreateDescriptor) create = nullptr;
  decltype(&::cudnnBackendDestroyDescriptor) destroy = nullptr;
  decltype(&::cudnnBackendSetAttribute) set = nullptr;
  decltype(&::cudnnBackendGetAttribute) get = nullptr;
  decltype(&::cudnnBackendFinalize) finalize = nullptr;
  decltype(&::cudnnGetLastErrorString) message = nullptr;
  cudnnBackendDescriptor_t device = nullptr;   /* the GPU that is described */

  Real() {
    const char *path = getenv("EMU_CUDNN");
#ifdef UNIC_EMU_CUDNN
    if (!path) path = UNIC_EMU_CUDNN;
#endif
    if (!path || strcmp(path, "off") == 0) return;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      if (getenv("EMU_CUDNN")) fprintf(stderr, "[cuda-emu] EMU_CUDNN: %s\n", dlerror());
      return;
    }
    find(library, "cudnnBackendCreateDescriptor", create);
    find(library, "cudnnBackendDestroyDescriptor", destroy);
    find(library, "cudnnBackendSetAttribute", set);
    find(library, "cudnnBackendGetAttribute", get);
    find(library, "cudnnBackendFinalize", finalize);
    find(library, "cudnnGetLastErrorString", message);
    const char *gpu = getenv("EMU_GPU");
    std::ifstream file(std::string(UNIC_EMU_FOLDER "/props/") + (gpu ? gpu : "a100") + ".json");
    std::stringstream json;
    json << file.rdbuf();
    const std::string text = json.str();
    bool good = create && destroy && set && get && finalize && message && !text.empty();
    good = good && create(CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR, &device) == CUDNN_STATUS_SUCCESS;
    good = good && set(device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, (int64_t)text.size(), text.data()) == CUDNN_STATUS_SUCCESS;
    if (!good || finalize(device) != CUDNN_STATUS_SUCCESS) {
      fprintf(stderr, "[cuda-emu] %s does not take the description of a GPU; going on without it\n", path);
      device = nullptr;
    }
  }
  template <class F> static void find(void *library, const char *name, F &f) { f = reinterpret_cast<F>(dlsym(library, name)); }
  explicit operator bool() const { return device != nullptr; }
  cudnnStatus_t pass(cudnnStatus_t s) const {
    if (s == CUDNN_STATUS_SUCCESS) return s;
    char text[512] = {};
    message(text, sizeof text);
    last = text;
    return s;
  }
};

const Real &real() {
  static const Real r;
  return r;
}

/* ---------------------------------------------------------------- descriptors */

struct Descriptor;
typedef std::shared_ptr<Descriptor> Held;

struct Attribute {
  cudnnBackendAttributeType_t type;
  int64_t count = 0;
  std::vector<unsigned char> bytes;
  std::vector<Held> held;
};

struct Program;

struct Descriptor {
  cudnnBackendDescriptorType_t type;
  bool finished = false;
  std::map<int, Attribute> attributes;
  cudnnBackendDescriptor_t twin = nullptr;
  /* What an answer belongs to: a configuration's graph and place in the list, an engine's configuration. */
  Held of;
  int rank = 0;
  std::shared_ptr<const Program> program;   /* a plan's */
  std::string about;                        /* a plan's, for the record */
  int64_t workspace = 0;

  ~Descriptor() { if (twin) real().destroy(twin); }
  const Attribute *find(int name) const {
    auto at = attributes.find(name);
    return at == attributes.end() ? nullptr : &at->second;
  }
  template <class T> T value(int name, T otherwise) const {
    const Attribute *a = find(name);
    T v = otherwise;
    if (a && a->bytes.size() >= sizeof v) memcpy(&v, a->bytes.data(), sizeof v);
    return v;
  }
  std::vector<int64_t> integers(int name) const {
    const Attribute *a = find(name);
    std::vector<int64_t> v(a ? (size_t)a->count : 0);
    if (a) memcpy(v.data(), a->bytes.data(), v.size() * sizeof(int64_t));
    return v;
  }
  Held held(int name) const {
    const Attribute *a = find(name);
    return a && !a->held.empty() ? a->held[0] : nullptr;
  }
};

Held &held(cudnnBackendDescriptor_t d) { return *static_cast<Held *>(d); }

size_t size_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE: return 8;
    case CUDNN_TYPE_BOOLEAN:
    case CUDNN_TYPE_CHAR: return 1;
    case CUDNN_TYPE_BACKEND_DESCRIPTOR: return sizeof(void *);
    default: return 4;   /* enumerations, int32, float */
  }
}

/* ---------------------------------------------------------------- what a plan does */

struct Tensor {
  int64_t uid = 0;
  cudnnDataType_t type = CUDNN_DATA_FLOAT;
  bool between = false;
  std::vector<int64_t> dim, stride;
  size_t element() const { return type == CUDNN_DATA_DOUBLE ? 8 : type == CUDNN_DATA_FLOAT ? 4 : 2; }
  int64_t numel() const {
    int64_t n = 1;
    for (int64_t d : dim) n *= d;
    return n;
  }
  size_t extent() const {   /* bytes */
    int64_t most = 0;
    for (size_t i = 0; i < dim.size(); i++) most += (dim[i] - 1) * stride[i];
    return (size_t)(most + 1) * element();
  }
};

struct Op {
  int kind = 0;   /* the descriptor's type */
  cudnnPointwiseMode_t mode = CUDNN_POINTWISE_IDENTITY;
  int a = -1, b = -1, c = -1;   /* tensors: image, filter, result; or operands and sum */
  std::vector<int64_t> stride, dilation, before;
};

struct Program {
  std::vector<Tensor> tensors;
  std::vector<Op> ops;
  bool forbidden = false;   /* an engine that must not be chosen */
};

double load(const void *p, int64_t i, cudnnDataType_t type) {
  switch (type) {
    case CUDNN_DATA_DOUBLE: return static_cast<const double *>(p)[i];
    case CUDNN_DATA_HALF: return __half2float(static_cast<const __half *>(p)[i]);
    case CUDNN_DATA_BFLOAT16: return __bfloat162float(static_cast<const __nv_bfloat16 *>(p)[i]);
    default: return static_cast<const float *>(p)[i];
  }
}

double rounded(double v, cudnnDataType_t type) {
  switch (type) {
    case CUDNN_DATA_DOUBLE: return v;
    case CUDNN_DATA_HALF: return __half2float(__float2half_rn((float)v));
    case CUDNN_DATA_BFLOAT16: return __bfloat162float(__float2bfloat16_rn((float)v));
    default: return (float)v;
  }
}

void store(void *p, int64_t i, cudnnDataType_t type, double v) {
  switch (type) {
    case CUDNN_DATA_DOUBLE: static_cast<double *>(p)[i] = v; break;
    case CUDNN_DATA_HALF: static_cast<__half *>(p)[i] = __float2half_rn((float)v); break;
    case CUDNN_DATA_BFLOAT16: static_cast<__nv_bfloat16 *>(p)[i] = __float2bfloat16_rn((float)v); break;
    default: static_cast<float *>(p)[i] = (float)v; break;
  }
}

/* Visit a tensor in the order N, H, W, C: visit(place in that order, offset in memory). */
template <class F> void each(const Tensor &t, F visit) {
  int64_t at = 0;
  for (int64_t n = 0; n < t.dim[0]; n++)
    for (int64_t h = 0; h < t.dim[2]; h++)
      for (int64_t w = 0; w < t.dim[3]; w++)
        for (int64_t c = 0; c < t.dim[1]; c++) visit(at++, n * t.stride[0] + c * t.stride[1] + h * t.stride[2] + w * t.stride[3]);
}

typedef std::vector<double> Values;   /* in the order N, H, W, C (filters: O, Kh, Kw, I) */

/* One of the three products of a convolution; what it makes is zero before. */
void convolve(const Program &p, const Op &op, std::vector<Values> &values) {
  const Tensor &image = p.tensors[op.a], &filter = p.tensors[op.b], &result = p.tensors[op.c];
  const int64_t C = image.dim[1], H = image.dim[2], W = image.dim[3], O = filter.dim[0], I = filter.dim[1], Kh = filter.dim[2], Kw = filter.dim[3], groups = C / I, per = O / groups;
  double *x = values[op.a].data(), *f = values[op.b].data(), *y = values[op.c].data();
  for (int64_t n = 0; n < result.dim[0]; n++)
    for (int64_t i = 0; i < result.dim[2]; i++)
      for (int64_t j = 0; j < result.dim[3]; j++)
        for (int64_t u = 0; u < Kh; u++)
          for (int64_t v = 0; v < Kw; v++) {
            const int64_t h = i * op.stride[0] - op.before[0] + u * op.dilation[0], w = j * op.stride[1] - op.before[1] + v * op.dilation[1];
            if (h < 0 || h >= H || w < 0 || w >= W) continue;
            for (int64_t o = 0; o < O; o++) {
              double *xs = x + ((n * H + h) * W + w) * C + o / per * I, *fs = f + ((o * Kh + u) * Kw + v) * I, *to = y + ((n * result.dim[2] + i) * result.dim[3] + j) * O + o;
              if (op.kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR) {
                double sum = 0;
                for (int64_t c = 0; c < I; c++) sum += xs[c] * fs[c];
                *to += sum;
              } else if (op.kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR) {
                for (int64_t c = 0; c < I; c++) xs[c] += *to * fs[c];
              } else {
                for (int64_t c = 0; c < I; c++) fs[c] += *to * xs[c];
              }
            }
          }
}

void pointwise(const Program &p, const Op &op, std::vector<Values> &values) {
  const Tensor &c = p.tensors[op.c];
  for (int64_t at = 0; at < c.numel(); at++) {
    double v = values[op.a][at];
    if (op.mode == CUDNN_POINTWISE_ADD) {
      const Tensor &b = p.tensors[op.b];
      const int64_t C = c.dim[1], W = c.dim[3], H = c.dim[2], channel = at % C, w = at / C % W, h = at / C / W % H, n = at / C / W / H;
      auto index = [](int64_t i, int64_t d) { return d == 1 ? 0 : i; };
      v += values[op.b][((index(n, b.dim[0]) * b.dim[2] + index(h, b.dim[2])) * b.dim[3] + index(w, b.dim[3])) * b.dim[1] + index(channel, b.dim[1])];
    }
    values[op.c][at] = v;
  }
}

/* Which of an operation's tensors it makes. */
int made(const Op &op) {
  switch (op.kind) {
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR: return op.a;
    case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR: return op.b;
    default: return op.c;
  }
}

void interpret(const Program &p, const std::map<int64_t, void *> &memory) {
  std::vector<Values> values(p.tensors.size());
  std::vector<bool> is_made(p.tensors.size());
  for (const Op &op : p.ops) is_made[made(op)] = true;
  for (size_t i = 0; i < p.tensors.size(); i++) {
    const Tensor &t = p.tensors[i];
    values[i].assign((size_t)t.numel(), 0);
    if (is_made[i]) continue;
    const void *from = memory.at(t.uid);
    each(t, [&](int64_t at, int64_t offset) { values[i][at] = load(from, offset, t.type); });
  }
  for (const Op &op : p.ops) {
    if (op.kind == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR) pointwise(p, op, values);
    else convolve(p, op, values);
    const int out = made(op);
    const Tensor &t = p.tensors[out];
    for (double &v : values[out]) v = rounded(v, t.type);
    if (t.between) continue;
    void *to = memory.at(t.uid);
    each(t, [&](int64_t at, int64_t offset) { store(to, offset, t.type, values[out][at]); });
  }
}

/* ---------------------------------------------------------------- from descriptors to a program */

int tensor_of(Program &p, const Held &d) {
  Tensor t;
  t.uid = d->value<int64_t>(CUDNN_ATTR_TENSOR_UNIQUE_ID, 0);
  t.type = d->value(CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_DATA_FLOAT);
  t.between = d->value<bool>(CUDNN_ATTR_TENSOR_IS_VIRTUAL, false);
  t.dim = d->integers(CUDNN_ATTR_TENSOR_DIMENSIONS);
  t.stride = d->integers(CUDNN_ATTR_TENSOR_STRIDES);
  for (size_t i = 0; i < p.tensors.size(); i++) if (p.tensors[i].uid == t.uid) return (int)i;
  p.tensors.push_back(t);
  return (int)p.tensors.size() - 1;
}

cudnnStatus_t check_convolution(const Program &p, const Op &op) {
  const Tensor &x = p.tensors[op.a], &f = p.tensors[op.b], &y = p.tensors[op.c];
  if (x.dim.size() != 4 || f.dim.size() != 4 || y.dim.size() != 4) return refuse(CUDNN_STATUS_BAD_PARAM, "a convolution of tensors that are not four-dimensional");
  if (f.dim[1] < 1 || x.dim[1] % f.dim[1] || f.dim[0] % (x.dim[1] / f.dim[1]) || y.dim[1] != f.dim[0] || x.dim[0] != y.dim[0])
    return refuse(CUDNN_STATUS_BAD_PARAM, "a convolution of channels or images that do not fit");
  for (int d = 0; d < 2; d++)
    if ((x.dim[2 + d] + 2 * op.before[d] - op.dilation[d] * (f.dim[2 + d] - 1) - 1) / op.stride[d] + 1 != y.dim[2 + d])
      return refuse(CUDNN_STATUS_BAD_PARAM, "a convolution whose result has %lld pixels in dimension %d", (long long)y.dim[2 + d], 3 + d);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t program_of(const Held &graph, Program &p) {
  const Attribute *ops = graph->find(CUDNN_ATTR_OPERATIONGRAPH_OPS);
  if (!ops || ops->held.empty()) return refuse(CUDNN_STATUS_BAD_PARAM, "a graph without operations");
  for (const Held &d : ops->held) {
    Op op;
    op.kind = d->type;
    int conv = 0, names[3] = {};
    switch (d->type) {
      case CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR:
        conv = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC;
        names[0] = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, names[1] = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, names[2] = CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y;
        break;
      case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR:
        conv = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC;
        names[0] = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, names[1] = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, names[2] = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY;
        break;
      case CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR:
        conv = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC;
        names[0] = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, names[1] = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, names[2] = CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY;
        break;
      case CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR:
        names[0] = CUDNN_ATTR_OPERATION_POINTWISE_XDESC, names[2] = CUDNN_ATTR_OPERATION_POINTWISE_YDESC;
        op.mode = d->held(CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR)->value(CUDNN_ATTR_POINTWISE_MODE, CUDNN_POINTWISE_IDENTITY);
        if (op.mode == CUDNN_POINTWISE_ADD) names[1] = CUDNN_ATTR_OPERATION_POINTWISE_BDESC;
        else if (op.mode != CUDNN_POINTWISE_IDENTITY) return refuse(CUDNN_STATUS_NOT_SUPPORTED, "the stand-in knows no pointwise mode %d", (int)op.mode);
        break;
      default: return refuse(CUDNN_STATUS_NOT_SUPPORTED, "the stand-in knows no operation of type %d", (int)d->type);
    }
    int *places[] = {&op.a, &op.b, &op.c};
    for (int i = 0; i < 3; i++) {
      if (!names[i]) continue;
      const Held t = d->held(names[i]);
      if (!t) return refuse(CUDNN_STATUS_BAD_PARAM, "an operation without its tensor %d", i);
      *places[i] = tensor_of(p, t);
    }
    if (conv) {
      const Held c = d->held(conv);
      if (!c) return refuse(CUDNN_STATUS_BAD_PARAM, "a convolution without its description");
      op.stride = c->integers(CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES);
      op.dilation = c->integers(CUDNN_ATTR_CONVOLUTION_DILATIONS);
      op.before = c->integers(CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS);
      if (cudnnStatus_t s = check_convolution(p, op)) return s;
    }
    p.ops.push_back(op);
  }
  return CUDNN_STATUS_SUCCESS;
}

/* ---------------------------------------------------------------- the record of what was asked for */

/* A graph in words: "forward bf16 x 128x8x224x224 w 64x8x7x7 y ... stride 2 padding 3 dilation 1, + cast". */
std::string words(const Program &p) {
  auto tensor = [&](int i) {
    const Tensor &t = p.tensors[i];
    std::string s = t.type == CUDNN_DATA_DOUBLE ? "f64 " : t.type == CUDNN_DATA_HALF ? "f16 " : t.type == CUDNN_DATA_BFLOAT16 ? "bf16 " : "f32 ";
    for (size_t d = 0; d < t.dim.size(); d++) s += (d ? "x" : "") + std::to_string(t.dim[d]);
    return s;
  };
  std::string s;
  for (const Op &op : p.ops) {
    if (!s.empty()) s += ", + ";
    if (op.kind == CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR) {
      s += (op.mode == CUDNN_POINTWISE_ADD ? "bias " : "cast ") + tensor(op.c);
      continue;
    }
    s += op.kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR ? "forward" : op.kind == CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR ? "data" : "filter";
    s += " image " + tensor(op.a) + " filters " + tensor(op.b) + " result " + tensor(op.c);
    s += " stride " + std::to_string(op.stride[0]) + " padding " + std::to_string(op.before[0]) + " dilation " + std::to_string(op.dilation[0]);
  }
  return s;
}

__attribute__((format(printf, 1, 2))) void record(const char *format, ...) {
  static FILE *file = getenv("EMU_PLANS") ? fopen(getenv("EMU_PLANS"), "a") : nullptr;
  if (!file) return;
  va_list arguments;
  va_start(arguments, format);
  vfprintf(file, format, arguments);
  va_end(arguments);
  fflush(file);
}

/* The number of the real library's engine in a configuration, and what it says of it: "12 tensor cores, compiled at run time". */
std::string engine_of(const Held &config) {
  if (!real() || !config || !config->twin) return "stand-in";
  cudnnBackendDescriptor_t engine;
  if (real().create(CUDNN_BACKEND_ENGINE_DESCRIPTOR, &engine) != CUDNN_STATUS_SUCCESS) return "?";
  int64_t n = 0, index = -1;
  cudnnBackendNumericalNote_t notes[CUDNN_NUMERICAL_NOTE_TYPE_COUNT];
  cudnnBackendBehaviorNote_t ways[CUDNN_BEHAVIOR_NOTE_TYPE_COUNT];
  std::string s = "?";
  if (real().get(config->twin, CUDNN_ATTR_ENGINECFG_ENGINE, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &n, &engine) == CUDNN_STATUS_SUCCESS &&
      real().get(engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, &n, &index) == CUDNN_STATUS_SUCCESS) {
    s = std::to_string(index);
    if (real().get(engine, CUDNN_ATTR_ENGINE_NUMERICAL_NOTE, CUDNN_TYPE_NUMERICAL_NOTE, CUDNN_NUMERICAL_NOTE_TYPE_COUNT, &n, notes) == CUDNN_STATUS_SUCCESS)
      for (int64_t i = 0; i < n; i++) s += notes[i] == CUDNN_NUMERICAL_NOTE_TENSOR_CORE ? " tensor cores" : "";
    if (real().get(engine, CUDNN_ATTR_ENGINE_BEHAVIOR_NOTE, CUDNN_TYPE_BEHAVIOR_NOTE, CUDNN_BEHAVIOR_NOTE_TYPE_COUNT, &n, ways) == CUDNN_STATUS_SUCCESS)
      for (int64_t i = 0; i < n; i++) s += ways[i] == CUDNN_BEHAVIOR_NOTE_RUNTIME_COMPILATION ? " compiled" : "";
  }
  real().destroy(engine);
  return s;
}

/* Without the real library: what it would offer, the worst first. */
enum { NONDETERMINISTIC, TENSOR_CORES, PLAIN, OFFERS };
enum { INVENTED_WORKSPACE = 4096 };

bool all_f32(const Program &p) {
  for (const Tensor &t : p.tensors) if (t.type != CUDNN_DATA_FLOAT) return false;
  return true;
}

cudnnStatus_t finish_plan(Descriptor &plan) {
  const Held config = plan.held(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG);
  if (!config || !config->of) return refuse(CUDNN_STATUS_BAD_PARAM, "a plan without a configuration of the heuristics");
  auto p = std::make_shared<Program>();
  if (cudnnStatus_t s = program_of(config->of, *p)) return s;
  plan.workspace = INVENTED_WORKSPACE;
  if (real()) {
    int64_t n = 0;
    if (cudnnStatus_t s = real().get(plan.twin, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1, &n, &plan.workspace)) return real().pass(s);
  } else {
    p->forbidden = config->rank == NONDETERMINISTIC || (config->rank == TENSOR_CORES && all_f32(*p));
  }
  plan.program = p;
  if (getenv("EMU_PLANS")) {
    plan.about = words(*p) + " | " + engine_of(config) + " | " + std::to_string(plan.workspace);
    record("planned %s\n", plan.about.c_str());
  }
  return CUDNN_STATUS_SUCCESS;
}

}

/* ---------------------------------------------------------------- the entry points */

extern "C" {

cudnnStatus_t cudnnCreate(cudnnHandle_t *handle) {
  *handle = new cudnnContext;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnDestroy(cudnnHandle_t handle) {
  delete handle;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnSetStream(cudnnHandle_t handle, cudaStream_t stream) {
  handle->stream = stream;
  return CUDNN_STATUS_SUCCESS;
}

const char *cudnnGetErrorString(cudnnStatus_t status) {
  switch (status) {
    case CUDNN_STATUS_SUCCESS: return "CUDNN_STATUS_SUCCESS";
    case CUDNN_STATUS_BAD_PARAM: return "CUDNN_STATUS_BAD_PARAM";
    case CUDNN_STATUS_NOT_SUPPORTED: return "CUDNN_STATUS_NOT_SUPPORTED";
    default: return "another status of cuDNN's";
  }
}

void cudnnGetLastErrorString(char *message, size_t most) { snprintf(message, most, "%s", last.c_str()); }

cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out) {
  auto d = std::make_shared<Descriptor>();
  d->type = type;
  if (real() && type != CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR)
    if (cudnnStatus_t s = real().create(type, &d->twin)) return real().pass(s);
  *out = new Held(d);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d) {
  delete static_cast<Held *>(d);
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t count, const void *values) {
  Descriptor &d = *held(descriptor);
  if (d.finished) return refuse(CUDNN_STATUS_NOT_INITIALIZED, "attribute %d of a descriptor that is finished", (int)name);
  Attribute a;
  a.type = type;
  a.count = count;
  const unsigned char *bytes = static_cast<const unsigned char *>(values);
  std::vector<cudnnBackendDescriptor_t> twins;
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
    for (int64_t i = 0; i < count; i++) {
      cudnnBackendDescriptor_t member = static_cast<const cudnnBackendDescriptor_t *>(values)[i];
      if (!member || !held(member)->finished) {
        if (!member || held(member)->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR) return refuse(CUDNN_STATUS_BAD_PARAM, "attribute %d is a descriptor that is not finished", (int)name);
      }
      a.held.push_back(held(member));
      twins.push_back(held(member)->twin);
    }
  } else {
    a.bytes.assign(bytes, bytes + (size_t)count * size_of(type));
  }
  d.attributes[name] = a;
  if (!d.twin) return CUDNN_STATUS_SUCCESS;
  if (type == CUDNN_TYPE_HANDLE) {   /* the described GPU stands for it */
    if (name != CUDNN_ATTR_EXECUTION_PLAN_HANDLE) return CUDNN_STATUS_SUCCESS;
    return real().pass(real().set(d.twin, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &real().device));
  }
  return real().pass(real().set(d.twin, name, type, count, twins.empty() ? values : twins.data()));
}

cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t descriptor) {
  Descriptor &d = *held(descriptor);
  if (d.finished) return refuse(CUDNN_STATUS_BAD_PARAM, "a descriptor that is finished is finished again");
  if (d.twin) {
    if (d.type == CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR)
      if (cudnnStatus_t s = real().set(d.twin, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &real().device)) return real().pass(s);
    if (cudnnStatus_t s = real().finalize(d.twin)) {
      real().pass(s);
      const Held config = d.type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR ? d.held(CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG) : nullptr;
      const Held graph = config ? config->of : d.type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR ? held(descriptor) : d.held(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH);
      Program p;
      if (getenv("EMU_PLANS") && graph && program_of(graph, p) == CUDNN_STATUS_SUCCESS)
        record("refused %s | %s | %s\n", words(p).c_str(), config ? engine_of(config).c_str() : "no engine", last.substr(0, last.find('\n')).c_str());
      return s;
    }
  }
  if (d.type == CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR) {
    Program p;
    if (!d.find(CUDNN_ATTR_OPERATIONGRAPH_HANDLE)) return refuse(CUDNN_STATUS_BAD_PARAM, "a graph without a handle");
    if (cudnnStatus_t s = program_of(held(descriptor), p)) return s;
    if (getenv("EMU_PLANS")) record("asked %s\n", words(p).c_str());
  }
  if (d.type == CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR)
    if (cudnnStatus_t s = finish_plan(d)) return s;
  d.finished = true;
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const descriptor, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type, int64_t most, int64_t *count, void *values) {
  const Held &d = held(descriptor);
  cudnnBackendDescriptor_t *members = static_cast<cudnnBackendDescriptor_t *>(values);
  std::vector<cudnnBackendDescriptor_t> twins;
  if (type == CUDNN_TYPE_BACKEND_DESCRIPTOR)
    for (int64_t i = 0; i < most; i++) twins.push_back(held(members[i])->twin);
  if (d->twin) {
    if (cudnnStatus_t s = real().get(d->twin, name, type, most, count, twins.empty() ? values : twins.data())) return real().pass(s);
  } else if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS) {
    *count = OFFERS;
  } else if (name == CUDNN_ATTR_ENGINECFG_ENGINE) {
    *count = 1;
  } else if (name == CUDNN_ATTR_ENGINE_NUMERICAL_NOTE) {
    const int rank = d->of ? d->of->rank : PLAIN;
    *count = rank == PLAIN ? 0 : 1;
    if (*count && most) *static_cast<cudnnBackendNumericalNote_t *>(values) = rank == NONDETERMINISTIC ? CUDNN_NUMERICAL_NOTE_NONDETERMINISTIC : CUDNN_NUMERICAL_NOTE_TENSOR_CORE;
  } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE) {
    *count = 1;
    if (most) *static_cast<int64_t *>(values) = d->workspace;
  } else {
    return refuse(CUDNN_STATUS_NOT_SUPPORTED, "the stand-in knows no answer for attribute %d", (int)name);
  }
  for (int64_t i = 0; type == CUDNN_TYPE_BACKEND_DESCRIPTOR && i < most && i < *count; i++) {
    Descriptor &m = *held(members[i]);
    m.of = name == CUDNN_ATTR_ENGINEHEUR_RESULTS ? d->held(CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH) : d;
    m.rank = (int)i;
  }
  return CUDNN_STATUS_SUCCESS;
}

cudnnStatus_t cudnnBackendExecute(cudnnHandle_t handle, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t arguments) {
  const Held &p = held(plan), &pack = held(arguments);
  if (!p->finished || !pack->finished || !p->program) return refuse(CUDNN_STATUS_BAD_PARAM, "a plan or its arguments are not finished");
  if (p->program->forbidden) return refuse(CUDNN_STATUS_NOT_SUPPORTED, "an engine was chosen that is nondeterministic, or computes in TF32");
  const std::vector<int64_t> ids = pack->integers(CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS), pointers = pack->integers(CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS);
  if (ids.size() != pointers.size()) return refuse(CUDNN_STATUS_BAD_PARAM, "%zu identifiers and %zu pointers", ids.size(), pointers.size());
  std::map<int64_t, void *> memory;
  for (size_t i = 0; i < ids.size(); i++) memory[ids[i]] = (void *)(uintptr_t)pointers[i];
  for (const Tensor &t : p->program->tensors) {
    if (t.between) continue;
    auto at = memory.find(t.uid);
    if (at == memory.end()) return refuse(CUDNN_STATUS_BAD_PARAM, "tensor %lld has no memory", (long long)t.uid);
    if (!emu::device_range(handle->stream, at->second, t.extent())) return refuse(CUDNN_STATUS_BAD_PARAM, "tensor %lld does not lie in the device's memory", (long long)t.uid);
    if ((uintptr_t)at->second % 16) return refuse(CUDNN_STATUS_BAD_PARAM, "tensor %lld is not aligned", (long long)t.uid);
  }
  void *workspace = (void *)(uintptr_t)pack->value<int64_t>(CUDNN_ATTR_VARIANT_PACK_WORKSPACE, 0);
  const size_t bytes = (size_t)p->workspace;
  if (bytes && !emu::device_range(handle->stream, workspace, bytes)) return refuse(CUDNN_STATUS_BAD_PARAM, "the workspace has fewer than %zu bytes of the device's memory", bytes);
  if (!p->about.empty()) record("runs %s\n", p->about.c_str());
  const std::shared_ptr<const Program> program = p->program;
  cudaError_t error = emu::submit(handle->stream, "cudnnBackendExecute", [=] {
    if (bytes) memset(workspace, 0xff, bytes < 1 << 20 ? bytes : 1 << 20);
    interpret(*program, memory);
    return true;
  });
  return error == cudaSuccess ? CUDNN_STATUS_SUCCESS : refuse(CUDNN_STATUS_EXECUTION_FAILED, "%s", emu::sentence());
}

}
