// ONNX Runtime on the processor, through its C API; set up as engines/ort.py sets it up.
#include <mutex>

#include "../third_party/onnxruntime/onnxruntime_c_api.h"
#include "engine.hpp"
#include "failure.hpp"
#include "library.hpp"
#include "processor.hpp"

namespace tinyseg {
namespace {

// The table of functions only ever grows: this is the oldest one that has all we call, and every later library serves it.
constexpr uint32_t kApiVersion = 17;

const LibraryPlaces kPlaces{"onnxruntime", "TINYSEG_ONNXRUNTIME", "onnxruntime/capi", "libonnxruntime.so",
                            {"libonnxruntime.so.1", "libonnxruntime.so"}, "pip install onnxruntime"};

struct Api {
  const OrtApi* ort;

  void check(OrtStatus* status, const std::string& doing) const {
    if (!status) return;
    const std::string why = ort->GetErrorMessage(status);
    ort->ReleaseStatus(status);
    fail(TINYSEG_ENGINE_ERROR, "onnxruntime failed while ", doing, ": ", why.substr(0, why.find('\n')).substr(0, 500));
  }
};

// Handles that are given back to the library.
template <typename T>
class Held {
 public:
  explicit Held(void(ORT_API_CALL* release)(T*)) : release_(release) {}
  Held(Held&& other) noexcept : release_(other.release_), value_(other.value_) { other.value_ = nullptr; }
  Held(const Held&) = delete;
  ~Held() {
    if (value_) release_(value_);
  }
  T** into() { return &value_; }
  T* get() const { return value_; }

 private:
  void(ORT_API_CALL* release_)(T*);
  T* value_ = nullptr;
};

class OrtRun final : public Run {
 public:
  OrtRun(const Api& api, std::shared_ptr<Held<OrtSession>> session, const std::vector<Tensor>& inputs,
         const std::vector<Tensor>& outputs)
      : api_(api), session_(std::move(session)), memory_(api.ort->ReleaseMemoryInfo) {
    api_.check(api_.ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, memory_.into()), "naming memory");
    add(inputs, input_names_, inputs_);
    add(outputs, output_names_, outputs_);
  }

  void operator()() override {
    api_.check(api_.ort->Run(session_->get(), nullptr, input_names_.data(), inputs_.data(), inputs_.size(),
                             output_names_.data(), outputs_.size(), outputs_.data()),
               "running a graph");
  }

 private:
  void add(const std::vector<Tensor>& tensors, std::vector<const char*>& names, std::vector<OrtValue*>& values) {
    for (const Tensor& t : tensors) {
      held_.emplace_back(api_.ort->ReleaseValue);
      api_.check(api_.ort->CreateTensorWithDataAsOrtValue(memory_.get(), t.data, t.count * sizeof(float), t.shape.data(),
                                                          t.shape.size(), ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT,
                                                          held_.back().into()),
                 "binding a tensor");
      names.push_back(t.name);
      values.push_back(held_.back().get());
    }
  }

  const Api& api_;
  std::shared_ptr<Held<OrtSession>> session_;
  Held<OrtMemoryInfo> memory_;
  std::vector<Held<OrtValue>> held_;
  std::vector<const char*> input_names_, output_names_;
  std::vector<OrtValue*> inputs_, outputs_;
};

class OrtCompiled final : public Compiled {
 public:
  OrtCompiled(const Api& api, std::shared_ptr<Held<OrtSession>> session) : api_(api), session_(std::move(session)) {}
  std::unique_ptr<Run> bind(const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs) override {
    return std::make_unique<OrtRun>(api_, session_, inputs, outputs);
  }

 private:
  const Api& api_;
  std::shared_ptr<Held<OrtSession>> session_;
};

// One environment a process, as the library wants it; never freed.
struct Library {
  Api api;
  OrtEnv* environment;
  std::string version, given;
};

const Library& opened(const std::string& given) {
  static std::mutex mutex;
  static Library* library = nullptr;
  const std::lock_guard<std::mutex> lock(mutex);
  if (library) {
    if (!given.empty() && given != library->given)
      fail(TINYSEG_INVALID_ARGUMENT, "this process has opened another library of ", kPlaces.engine, " already; ", given,
           " would have to come first");
    return *library;
  }
  void* handle = open_library(kPlaces, given);
  using GetBase = const OrtApiBase*(ORT_API_CALL*)();
  const OrtApiBase* base = reinterpret_cast<GetBase>(symbol(handle, kPlaces.engine, "OrtGetApiBase"))();
  const OrtApi* ort = base->GetApi(kApiVersion);
  if (!ort)
    fail(TINYSEG_ENGINE_MISSING, "onnxruntime ", base->GetVersionString(), " is too old; 1.17 or newer is needed: ", kPlaces.install);
  auto made = std::make_unique<Library>(Library{{ort}, nullptr, base->GetVersionString(), given});
  made->api.check(ort->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "tinyseg", &made->environment), "starting");
  library = made.release();
  return *library;
}

class OrtEngine final : public Engine {
 public:
  OrtEngine(const Library& library, const EngineOptions& options) : library_(library) {
    name = kPlaces.engine;
    version = library.version;
    precision = options.precision;
    threads = options.threads;
  }

  std::shared_ptr<Compiled> compile(const Graph& graph, const Dimensions& dimensions) override {
    const Api& api = library_.api;
    const OrtApi* ort = api.ort;
    Held<OrtSessionOptions> options(ort->ReleaseSessionOptions);
    const std::string doing = "compiling the " + graph.name;
    api.check(ort->CreateSessionOptions(options.into()), doing);
    OrtSessionOptions* o = options.get();
    api.check(ort->SetIntraOpNumThreads(o, threads), doing);
    api.check(ort->SetInterOpNumThreads(o, 1), doing);
    // Idle threads of one session do not spin while the other one runs.
    api.check(ort->AddSessionConfigEntry(o, "session.force_spinning_stop", "1"), doing);
    // Exact sums of 8-bit products; on other processors they are exact, and with AMX the option would double the time.
    if (int8_may_saturate()) api.check(ort->AddSessionConfigEntry(o, "session.x64quantprecision", "1"), doing);
    api.check(ort->SetSessionLogSeverityLevel(o, ORT_LOGGING_LEVEL_ERROR), doing);
    for (int k = 0; k < kDimensions; ++k)
      api.check(ort->AddFreeDimensionOverrideByName(o, kDimensionNames[k], dimensions[k]), doing);
    auto session = std::make_shared<Held<OrtSession>>(ort->ReleaseSession);
    api.check(ort->CreateSessionFromArray(library_.environment, graph.data.data(), graph.data.size(), o, session->into()), doing);
    size_t outputs = 0;
    api.check(ort->SessionGetOutputCount(session->get(), &outputs), doing);
    if (outputs != graph.outputs.size())
      fail(TINYSEG_ENGINE_ERROR, "the ", graph.name, " has ", std::to_string(outputs), " outputs, not ",
           std::to_string(graph.outputs.size()));
    return std::make_shared<OrtCompiled>(api, std::move(session));
  }

 private:
  const Library& library_;
};

}  // namespace

std::unique_ptr<Engine> open_onnxruntime(const EngineOptions& options) {
  if (options.precision != "fp32" && options.precision != "int8")
    fail(TINYSEG_PRECISION_UNAVAILABLE, "onnxruntime offers fp32 and int8 on processors, not ", options.precision);
  return std::make_unique<OrtEngine>(opened(options.library), options);
}

}  // namespace tinyseg
