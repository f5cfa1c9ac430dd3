// TensorRT on an NVIDIA GPU, through its C++ API and the driver's, on engines that `tinyseg compile --engine tensorrt --out DIR`
// built on this device; bound and run as engines/trt.py does it. Built with TINYSEG_TENSORRT alone, for the TensorRT whose
// headers are there. Nothing is linked: objects come from one function of its library, and everything else is virtual.
//
// Compiled against the headers of TensorRT 10.3 and 11.1 and run on a stand-in: not run on an NVIDIA GPU yet.
#include <NvInferRuntime.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <mutex>

#include "engine.hpp"
#include "failure.hpp"
#include "library.hpp"
#include "model.hpp"

#define TEXT_OF(number) #number
#define VERSION_TEXT(number) TEXT_OF(number)
#define TENSORRT_MAJOR VERSION_TEXT(NV_TENSORRT_MAJOR)

namespace tinyseg {
namespace {

using nvinfer1::ICudaEngine;
using nvinfer1::IExecutionContext;

const LibraryPlaces kPlaces{"tensorrt", "TINYSEG_TENSORRT", "tensorrt_libs", "libnvinfer.so." TENSORRT_MAJOR,
                            {"libnvinfer.so." TENSORRT_MAJOR}, "pip install tensorrt (on a Jetson: sudo apt-get install tensorrt)"};
const LibraryPlaces kDriverPlaces{"CUDA's driver", "TINYSEG_CUDA", nullptr, nullptr, {"libcuda.so.1"},
                                  "the driver of the GPU (on a Jetson it comes with JetPack)"};

// What is called of CUDA's driver, which every driver since CUDA 11 exports under these names. It works on the first GPU's
// primary context, which other users of the GPU in the same process share.
constexpr int kOutOfMemory = 2, kMajor = 75, kMinor = 76;  // of CUresult and CUdevice_attribute
using DeviceAddress = unsigned long long;                  // CUdeviceptr
struct Driver {
  int (*init)(unsigned);
  int (*get_version)(int*);
  int (*error_text)(int, const char**);
  int (*device_count)(int*);
  int (*device_name)(char*, int, int);
  int (*device_attribute)(int*, int, int);
  int (*retain_context)(void**, int);
  int (*push_context)(void*);
  int (*pop_context)(void**);
  int (*allocate)(DeviceAddress*, size_t);
  int (*release)(DeviceAddress);
  int (*copy_in)(DeviceAddress, const void*, size_t, cudaStream_t);
  int (*copy_out)(void*, DeviceAddress, size_t, cudaStream_t);
  int (*stream_new)(cudaStream_t*, unsigned);
  int (*stream_free)(cudaStream_t);
  int (*stream_wait)(cudaStream_t);

  void check(int status, const char* doing) const {
    if (status == 0) return;
    if (status == kOutOfMemory)
      fail(TINYSEG_OUT_OF_MEMORY, "the GPU's memory is full while ", doing, "; use fewer sessions, sizes or prompts at once");
    const char* why = nullptr;
    if (error_text(status, &why) != 0 || !why) why = "an error that the driver has no words for";
    fail(TINYSEG_ENGINE_ERROR, "CUDA failed while ", doing, ": ", why, " (", std::to_string(status), ")");
  }
};

// TensorRT's functions return no reason; its log holds one. Written from any thread, without allocating.
class Log final : public nvinfer1::ILogger {
 public:
  void log(Severity severity, const char* message) noexcept override {
    if (severity > Severity::kERROR) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    std::snprintf(last_, sizeof(last_), "%s", message ? message : "");
  }
  std::string take() noexcept(false) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::string told = last_;
    last_[0] = '\0';
    for (char& c : told)
      if (c == '\n') c = ' ';
    return told.empty() ? "TensorRT gave no reason" : told;
  }

 private:
  std::mutex mutex_;
  char last_[500] = "";
};

// The driver, its context and TensorRT's runtime: one a process, never freed.
struct Library {
  Driver driver{};
  void* context = nullptr;
  Log log;
  nvinfer1::IRuntime* runtime = nullptr;
  std::string version, given;
  std::map<std::string, std::string> device;  // as Python's TrtEngine.identity() tells it
};

// The GPU's context for this thread, and afterwards what was current before.
class Current {
 public:
  explicit Current(const Library& library) : driver_(library.driver) {
    driver_.check(driver_.push_context(library.context), "using the GPU");
  }
  Current(const Current&) = delete;
  ~Current() {
    void* ours;
    driver_.pop_context(&ours);
  }

 private:
  const Driver& driver_;
};

void open_driver(Library& made) {
  void* handle = open_library(kDriverPlaces, "");
  Driver& d = made.driver;
  const auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol(handle, kDriverPlaces.engine, name));
  };
  find(d.init, "cuInit");
  find(d.get_version, "cuDriverGetVersion");
  find(d.error_text, "cuGetErrorString");
  find(d.device_count, "cuDeviceGetCount");
  find(d.device_name, "cuDeviceGetName");
  find(d.device_attribute, "cuDeviceGetAttribute");
  find(d.retain_context, "cuDevicePrimaryCtxRetain");
  find(d.push_context, "cuCtxPushCurrent_v2");
  find(d.pop_context, "cuCtxPopCurrent_v2");
  find(d.allocate, "cuMemAlloc_v2");
  find(d.release, "cuMemFree_v2");
  find(d.copy_in, "cuMemcpyHtoDAsync_v2");
  find(d.copy_out, "cuMemcpyDtoHAsync_v2");
  find(d.stream_new, "cuStreamCreate");
  find(d.stream_free, "cuStreamDestroy_v2");
  find(d.stream_wait, "cuStreamSynchronize");
  int count = 0, version = 0, major = 0, minor = 0;
  char name[256] = "";
  const char* opening = "opening the GPU";
  d.check(d.init(0), opening);
  d.check(d.device_count(&count), opening);
  if (count == 0) fail(TINYSEG_ENGINE_ERROR, "CUDA sees no GPU; check nvidia-smi, and CUDA_VISIBLE_DEVICES");
  // The first device's handle is 0, as its number is.
  d.check(d.get_version(&version), opening);
  d.check(d.device_name(name, sizeof(name), 0), opening);
  d.check(d.device_attribute(&major, kMajor, 0), opening);
  d.check(d.device_attribute(&minor, kMinor, 0), opening);
  d.check(d.retain_context(&made.context, 0), opening);
  made.device = {{"device", name}, {"compute_capability", std::to_string(major) + "." + std::to_string(minor)},
                 {"driver", std::to_string(version)}, {"dla", "none"}};
}

void open_runtime(Library& made) {
  void* handle = open_library(kPlaces, made.given);
  const auto version = reinterpret_cast<int32_t (*)()>(symbol(handle, kPlaces.engine, "getInferLibVersion"))();
  const auto create = reinterpret_cast<void* (*)(void*, int32_t)>(symbol(handle, kPlaces.engine, "createInferRuntime_INTERNAL"));
  made.version = std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." + std::to_string(version % 100);
  // Virtual functions are called by their place in a table, which is one of a major version.
  if (version / 10000 != NV_TENSORRT_MAJOR)
    fail(TINYSEG_ENGINE_MISSING, "this libtinyseg was built for TensorRT " TENSORRT_MAJOR ", but the library that was opened is ",
         made.version, "; build it with the headers of that version");
  const Current current(made);
  made.runtime = static_cast<nvinfer1::IRuntime*>(create(static_cast<nvinfer1::ILogger*>(&made.log), NV_TENSORRT_VERSION));
  if (!made.runtime) fail(TINYSEG_ENGINE_ERROR, "TensorRT does not start: ", made.log.take());
}

Library& opened(const std::string& given) {
  static std::mutex mutex;
  static Library* library = nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  if (!library) {
    auto made = std::make_unique<Library>();
    made->given = given;
    open_driver(*made);
    open_runtime(*made);
    library = made.release();
  } else if (!given.empty() && given != library->given) {
    fail(TINYSEG_INVALID_ARGUMENT, "this process has opened another library of ", kPlaces.engine, " already; ", given,
         " would have to come first");
  }
  return *library;
}

class DeviceBuffer {
 public:
  DeviceBuffer(Library& library, size_t bytes) : library_(library) {
    library.driver.check(library.driver.allocate(&address_, bytes), "allocating a tensor");
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  ~DeviceBuffer() { library_.driver.release(address_); }
  DeviceAddress address() const { return address_; }

 private:
  Library& library_;
  DeviceAddress address_ = 0;
};
using Buffer = std::shared_ptr<DeviceBuffer>;

// Features stay on the device for the decoders that read them. Which belong together is told by the memory that the caller
// bound: it lives as long as the encoder's run does, and longer than every decoder's.
class Features {
 public:
  void keep(const Tensor& tensor, const Buffer& buffer) {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (auto it = known_.begin(); it != known_.end();) it = it->second.expired() ? known_.erase(it) : std::next(it);
    known_[tensor.data] = buffer;
  }
  Buffer find(const Tensor& tensor) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const auto found = known_.find(tensor.data);
    return found == known_.end() ? nullptr : found->second.lock();
  }

 private:
  std::mutex mutex_;
  std::map<const float*, std::weak_ptr<DeviceBuffer>> known_;
};

nvinfer1::Dims dims_of(const std::vector<int64_t>& shape) {
  nvinfer1::Dims dims{};
  dims.nbDims = int32_t(shape.size());
  std::copy(shape.begin(), shape.end(), dims.d);  // model.json's ranks are 8 at most, as TensorRT's
  return dims;
}

struct Opened {
  Opened(Library& used, ICudaEngine* made, std::string graph, std::shared_ptr<Features> shared)
      : library(used), engine(made), name(std::move(graph)), features(std::move(shared)) {}
  Opened(const Opened&) = delete;
  ~Opened() {
    try {
      const Current current(library);
      delete engine;
    } catch (const Failure&) {  // the context is gone, and what it held with it
    }
  }

  Library& library;
  ICudaEngine* engine;
  std::string name;
  std::shared_ptr<Features> features;
  std::mutex mutex;
};

class TrtRun final : public Run {
 public:
  TrtRun(std::shared_ptr<Opened> opened, const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs)
      : opened_(std::move(opened)), library_(opened_->library) {
    const Current current(library_);
    {
      const std::lock_guard<std::mutex> lock(opened_->mutex);
      context_ = opened_->engine->createExecutionContext();
    }
    if (!context_) fail(TINYSEG_ENGINE_ERROR, "TensorRT makes no execution context of the ", opened_->name, ": ", library_.log.take());
    try {
      bind(inputs, outputs);
      library_.driver.check(library_.driver.stream_new(&stream_, 0), "making a stream");
    } catch (...) {
      free();
      throw;
    }
  }

  TrtRun(const TrtRun&) = delete;
  ~TrtRun() override {
    try {
      const Current current(library_);
      free();
    } catch (const Failure&) {  // as above
    }
  }

  void operator()() override {
    const Current current(library_);
    const Driver& d = library_.driver;
    for (const Copy& c : in_) d.check(d.copy_in(c.device, c.host, c.bytes, stream_), "copying to the GPU");
    if (!context_->enqueueV3(stream_)) {
      d.stream_wait(stream_);
      fail(TINYSEG_ENGINE_ERROR, "TensorRT does not run the ", opened_->name, ": ", library_.log.take());
    }
    for (const Copy& c : out_) d.check(d.copy_out(c.host, c.device, c.bytes, stream_), "copying from the GPU");
    d.check(d.stream_wait(stream_), "running a graph");
  }

 private:
  struct Copy {
    float* host;
    DeviceAddress device;
    size_t bytes;
  };

  void bind(const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs) {
    const bool feeds_others = opened_->name == "encoder";
    for (const Tensor& t : inputs) {
      const Buffer features = opened_->features->find(t);
      add(t, nvinfer1::TensorIOMode::kINPUT, features, features ? nullptr : &in_);
      if (!context_->setInputShape(t.name, dims_of(t.shape))) refuse(t, "was not built for this shape");
    }
    for (const Tensor& t : outputs) {
      add(t, nvinfer1::TensorIOMode::kOUTPUT, nullptr, feeds_others ? nullptr : &out_);
      if (feeds_others) opened_->features->keep(t, buffers_.back());
      // The buffers' sizes are the model's: an engine of another one would write past them.
      const nvinfer1::Dims found = context_->getTensorShape(t.name), expected = dims_of(t.shape);
      if (found.nbDims != expected.nbDims || !std::equal(found.d, found.d + found.nbDims, expected.d)) refuse(t, "gives another shape");
    }
    if (opened_->engine->getNbIOTensors() != int32_t(inputs.size() + outputs.size()))
      fail(TINYSEG_MODEL_ERROR, "the engine of the ", opened_->name, " has other inputs and outputs than its graph; compile the model again");
  }

  void add(const Tensor& t, nvinfer1::TensorIOMode mode, Buffer buffer, std::vector<Copy>* copied) {
    if (opened_->engine->getTensorIOMode(t.name) != mode) refuse(t, "does not have it");
    if (opened_->engine->getTensorDataType(t.name) != nvinfer1::DataType::kFLOAT) refuse(t, "has it in another type than float32");
    const size_t bytes = t.count * sizeof(float);
    if (!buffer) buffer = std::make_shared<DeviceBuffer>(library_, bytes);
    if (!context_->setTensorAddress(t.name, reinterpret_cast<void*>(buffer->address()))) refuse(t, "takes no memory for it");
    if (copied) copied->push_back({t.data, buffer->address(), bytes});
    buffers_.push_back(std::move(buffer));
  }

  [[noreturn]] void refuse(const Tensor& t, const char* why) const {
    fail(TINYSEG_MODEL_ERROR, "tensor ", t.name, ": the engine of the ", opened_->name, " ", why, "; compile the model again");
  }

  void free() {
    if (stream_) library_.driver.stream_free(stream_);
    delete context_;
    buffers_.clear();
  }

  std::shared_ptr<Opened> opened_;
  Library& library_;
  IExecutionContext* context_ = nullptr;
  cudaStream_t stream_ = nullptr;
  std::vector<Buffer> buffers_;
  std::vector<Copy> in_, out_;
};

class TrtCompiled final : public Compiled {
 public:
  explicit TrtCompiled(std::shared_ptr<Opened> opened) : opened_(std::move(opened)) {}
  std::unique_ptr<Run> bind(const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs) override {
    return std::make_unique<TrtRun>(opened_, inputs, outputs);
  }

 private:
  std::shared_ptr<Opened> opened_;
};

class TrtEngine final : public Engine {
 public:
  TrtEngine(Library& library, const EngineOptions& options, const Model& model) : library_(library), model_(model) {
    name = kPlaces.engine;
    version = library.version;
    precision = options.precision;
    threads = 0;
    identity = library.device;
  }

  std::shared_ptr<Compiled> compile(const Graph& graph, const Dimensions& dimensions) override {
    const std::string data = read_engine(model_, graph, dimensions);
    const Current current(library_);
    ICudaEngine* engine = library_.runtime->deserializeCudaEngine(data.data(), data.size());
    if (!engine)
      fail(TINYSEG_ENGINE_ERROR, "TensorRT refuses the engine of the ", graph.name, ": ", library_.log.take(),
           "; compile the model again on this device");
    return std::make_shared<TrtCompiled>(std::make_shared<Opened>(library_, engine, graph.name, features_));
  }

 private:
  Library& library_;
  const Model& model_;
  const std::shared_ptr<Features> features_ = std::make_shared<Features>();
};

}  // namespace

std::unique_ptr<Engine> open_tensorrt(const EngineOptions& options, const Model& model) {
  if (options.precision == "bf16") fail(TINYSEG_PRECISION_UNAVAILABLE, "tensorrt offers fp32, fp16 and int8, not bf16");
  if (model.compiled_engine.empty())
    fail(TINYSEG_MODEL_ERROR, "tensorrt runs folders of engines, and this is a model; build them on this device with: "
                              "tinyseg compile MODEL --engine tensorrt --precision ", options.precision, " --size WxH --out DIR");
  return std::make_unique<TrtEngine>(opened(options.library), options, model);
}

}  // namespace tinyseg
