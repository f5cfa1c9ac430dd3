// What an engine is to the C library: graphs of fixed shapes, bound to memory once and run again and again.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace tinyseg {

// The named dimensions of a model's graphs, as model.json writes them.
enum Dimension { kPrompts, kPoints, kHeight, kWidth, kRows4, kColumns4, kRows8, kColumns8, kRows16, kColumns16, kDimensions };
extern const char* const kDimensionNames[kDimensions];
using Dimensions = std::array<int64_t, kDimensions>;

// A tensor as model.json states it: an entry of the shape is a number, or -1 - d for dimension d.
struct TensorSpec {
  std::string name;
  std::vector<int64_t> shape;
};
inline bool operator==(const TensorSpec& a, const TensorSpec& b) { return a.name == b.name && a.shape == b.shape; }

struct Graph {
  std::string name;  // "encoder" or "decoder"
  std::string data;  // ONNX
  std::string sha256;
  std::vector<TensorSpec> inputs, outputs;
};

// float32 values in memory that outlives the run.
struct Tensor {
  const char* name;
  std::vector<int64_t> shape;
  float* data;
  size_t count;
};

// A compiled graph bound to its inputs and outputs; for one thread at a time.
class Run {
 public:
  virtual ~Run() = default;
  virtual void operator()() = 0;
};

// A graph of fixed shapes. Used by several threads.
class Compiled {
 public:
  virtual ~Compiled() = default;
  virtual std::unique_ptr<Run> bind(const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs) = 0;
};

class Engine {
 public:
  virtual ~Engine() = default;
  virtual std::shared_ptr<Compiled> compile(const Graph& graph, const Dimensions& dimensions) = 0;
  std::string name, version, precision;
  int threads = 1;  // 0 on a GPU
  // What compiled folders depend on besides the version, by the names that Python's engines have for it.
  std::map<std::string, std::string> identity;
};

struct EngineOptions {
  std::string precision, library;
  int threads;
};

// Each throws Failure where the library is missing or does not offer the precision.
std::unique_ptr<Engine> open_onnxruntime(const EngineOptions& options);
std::unique_ptr<Engine> open_openvino(const EngineOptions& options);
// In libraries that are built with it. The model outlives the engine.
struct Model;
std::unique_ptr<Engine> open_tensorrt(const EngineOptions& options, const Model& model);

// The numbers of a stated shape.
std::vector<int64_t> concrete(const std::vector<int64_t>& shape, const Dimensions& dimensions);

}  // namespace tinyseg
