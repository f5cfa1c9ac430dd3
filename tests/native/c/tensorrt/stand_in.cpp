// TensorRT and CUDA's driver without a GPU: "engines" are ONNX graphs that ONNX Runtime runs, and "device memory" is memory whose
// addresses cannot be used here. Strict where the real ones are undefined: a call without a context, a copy past an allocation, or
// a run with an unbound tensor fails.
//
// An engine is text and then a graph: "stand-in NAME D0 ... D9\n", a line "MODE NAME TYPE RANK D..." for each tensor, and "graph\n".
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <sstream>
#include <vector>

#include "../../../../native/capi/engine.hpp"
#include "../../../../native/capi/failure.hpp"
#include "NvInferRuntime.h"

// As native/capi/model.cpp has them, which is not part of this.
const char* const tinyseg::kDimensionNames[kDimensions] = {"prompts", "points",   "height", "width",    "rows4",
                                                           "columns4", "rows8", "columns8", "rows16", "columns16"};

#define EXPORTED extern "C" __attribute__((visibility("default")))

using namespace nvinfer1;
using tinyseg::Dimensions;

namespace {

constexpr unsigned long long kTag = 1ull << 62;  // no address of a process has it
constexpr int kInvalid = 1, kOutOfMemory = 2, kNoContext = 201;

// What is held, and what has happened; read and set by the test through stand_in_facts.
struct Facts {
  int32_t pushed, allocations, streams, engines, contexts, copied_in, copied_out, runs;
  int32_t devices, fail_allocation, fail_run, library_version;
} facts{0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 100300};
std::map<unsigned long long, size_t> memory;  // by tagged address
ILogger* logger;

float* real(unsigned long long address, size_t bytes) {
  const auto found = memory.upper_bound(address);
  if (found == memory.begin()) return nullptr;
  const auto& [start, size] = *std::prev(found);
  return address + bytes <= start + size ? reinterpret_cast<float*>(address ^ kTag) : nullptr;
}

void say(const char* message) { logger->log(ILogger::Severity::kERROR, message); }

struct Slot {
  TensorIOMode mode;
  DataType type;
  Dims dims;
};

struct Description {
  tinyseg::Graph graph;
  Dimensions dimensions{};
  std::map<std::string, Slot> slots;
  std::shared_ptr<tinyseg::Compiled> compiled;
};

struct Context final : IExecutionContext {
  explicit Context(const Description& d) : description(d) { ++facts.contexts; }
  ~Context() override { --facts.contexts; }
  bool setInputShape(const char* name, const Dims& dims) noexcept override {
    const Dims& own = description.slots.at(name).dims;
    return dims.nbDims == own.nbDims && std::memcmp(dims.d, own.d, sizeof(int64_t) * own.nbDims) == 0;
  }
  Dims getTensorShape(const char* name) const noexcept override { return description.slots.at(name).dims; }
  bool setTensorAddress(const char* name, void* data) noexcept override {
    bound[name] = reinterpret_cast<unsigned long long>(data);
    return facts.pushed > 0;
  }
  bool enqueueV3(cudaStream_t stream) noexcept override {
    if (!stream || facts.pushed == 0 || facts.fail_run) {
      say("[executionContext.cpp::enqueue] Error Code 1: the stand-in was told to fail");
      return false;
    }
    ++facts.runs;
    std::vector<tinyseg::Tensor> inputs, outputs;
    for (const auto& [name, slot] : description.slots) {
      const std::vector<int64_t> shape(slot.dims.d, slot.dims.d + slot.dims.nbDims);
      size_t count = 1;
      for (const int64_t d : shape) count *= size_t(d);
      float* data = bound.count(name) ? real(bound[name], count * sizeof(float)) : nullptr;
      if (!data) return false;
      (slot.mode == TensorIOMode::kINPUT ? inputs : outputs).push_back({name.c_str(), shape, data, count});
    }
    try {
      (*description.compiled->bind(inputs, outputs))();
    } catch (const tinyseg::Failure& failure) {
      say(failure.message.c_str());
      return false;
    }
    return true;
  }
  const Description& description;
  std::map<std::string, unsigned long long> bound;
};

struct StandInEngine final : ICudaEngine {
  explicit StandInEngine(Description made) : description(std::move(made)) { ++facts.engines; }
  ~StandInEngine() override { --facts.engines; }
  IExecutionContext* createExecutionContext() noexcept override { return facts.pushed ? new Context(description) : nullptr; }
  int32_t getNbIOTensors() const noexcept override { return int32_t(description.slots.size()); }
  TensorIOMode getTensorIOMode(const char* name) const noexcept override {
    const auto found = description.slots.find(name);
    return found == description.slots.end() ? TensorIOMode::kNONE : found->second.mode;
  }
  DataType getTensorDataType(const char* name) const noexcept override { return description.slots.at(name).type; }
  Description description;
};

struct Runtime final : IRuntime {
  ICudaEngine* deserializeCudaEngine(const void* blob, size_t size) noexcept override {
    const std::string data(static_cast<const char*>(blob), size);
    const size_t end = data.find("graph\n");
    std::istringstream lines(data.substr(0, end));
    std::string word, mode, name;
    Description made;
    lines >> word >> made.graph.name;
    if (facts.pushed == 0 || word != "stand-in" || end == std::string::npos) {
      say("[runtime.cpp::parsePlan] Error Code 1: the plan is of another\nversion");
      return nullptr;
    }
    for (int64_t& d : made.dimensions) lines >> d;
    int type;
    Dims dims{};
    while (lines >> mode >> name >> type >> dims.nbDims) {
      for (int i = 0; i < dims.nbDims; ++i) lines >> dims.d[i];
      made.slots[name] = {mode == "in" ? TensorIOMode::kINPUT : TensorIOMode::kOUTPUT, DataType(type), dims};
      if (mode == "out") made.graph.outputs.push_back({name, {}});
    }
    made.graph.data = data.substr(end + 6);
    try {
      static const std::unique_ptr<tinyseg::Engine> engine = tinyseg::open_onnxruntime({"fp32", "", 1});
      made.compiled = engine->compile(made.graph, made.dimensions);
    } catch (const tinyseg::Failure& failure) {
      say(failure.message.c_str());
      return nullptr;
    }
    return new StandInEngine(std::move(made));
  }
};

}  // namespace

// TensorRT
EXPORTED int32_t getInferLibVersion() { return facts.library_version; }
EXPORTED void* createInferRuntime_INTERNAL(void* given, int32_t version) {
  logger = static_cast<ILogger*>(given);
  return version == NV_TENSORRT_VERSION && facts.pushed > 0 ? static_cast<IRuntime*>(new Runtime) : nullptr;
}

// CUDA's driver
EXPORTED int cuInit(unsigned) { return 0; }
EXPORTED int cuDriverGetVersion(int* version) { return *version = 12060, 0; }
EXPORTED int cuGetErrorString(int, const char** text) { return *text = "the stand-in refuses", 0; }
EXPORTED int cuDeviceGetCount(int* count) { return *count = facts.devices, 0; }
EXPORTED int cuDeviceGetName(char* name, int size, int) { return std::strncpy(name, "Stand-in GPU", size_t(size)), 0; }
EXPORTED int cuDeviceGetAttribute(int* value, int which, int) { return *value = which == 75 ? 8 : 7, 0; }
EXPORTED int cuDevicePrimaryCtxRetain(void** context, int) { return *context = &facts, 0; }
EXPORTED int cuCtxPushCurrent_v2(void* context) { return context == &facts ? ++facts.pushed, 0 : kInvalid; }
EXPORTED int cuCtxPopCurrent_v2(void**) { return facts.pushed > 0 ? --facts.pushed, 0 : kNoContext; }
EXPORTED int cuMemAlloc_v2(unsigned long long* address, size_t bytes) {
  if (facts.pushed == 0) return kNoContext;
  if (facts.fail_allocation) return kOutOfMemory;
  *address = reinterpret_cast<unsigned long long>(std::calloc(1, bytes)) | kTag;
  memory[*address] = bytes;
  return ++facts.allocations, 0;
}
EXPORTED int cuMemFree_v2(unsigned long long address) {
  if (facts.pushed == 0 || !memory.erase(address)) return kInvalid;
  std::free(reinterpret_cast<void*>(address ^ kTag));
  return --facts.allocations, 0;
}
EXPORTED int cuMemcpyHtoDAsync_v2(unsigned long long to, const void* from, size_t bytes, cudaStream_t stream) {
  float* there = real(to, bytes);
  if (facts.pushed == 0 || !stream || !there) return kInvalid;
  std::memcpy(there, from, bytes);
  return ++facts.copied_in, 0;
}
EXPORTED int cuMemcpyDtoHAsync_v2(void* to, unsigned long long from, size_t bytes, cudaStream_t stream) {
  const float* there = real(from, bytes);
  if (facts.pushed == 0 || !stream || !there) return kInvalid;
  std::memcpy(to, there, bytes);
  return ++facts.copied_out, 0;
}
EXPORTED int cuStreamCreate(cudaStream_t* stream, unsigned) {
  if (facts.pushed == 0) return kNoContext;
  *stream = reinterpret_cast<cudaStream_t>(std::malloc(1));
  return ++facts.streams, 0;
}
EXPORTED int cuStreamDestroy_v2(cudaStream_t stream) { return std::free(stream), --facts.streams, 0; }
EXPORTED int cuStreamSynchronize(cudaStream_t stream) { return stream && facts.pushed > 0 ? 0 : kInvalid; }

EXPORTED Facts* stand_in_facts() { return &facts; }
