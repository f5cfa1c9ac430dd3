// OpenVINO on the processor, through its C API; set up as engines/ov.py sets it up.
#include <cstring>
#include <mutex>

#include "engine.hpp"
#include "failure.hpp"
#include "library.hpp"
#include "processor.hpp"

namespace tinyseg {
namespace {

const LibraryPlaces kPlaces{"openvino", "TINYSEG_OPENVINO", "openvino/libs", "libopenvino_c.so",
                            {"libopenvino_c.so"}, "pip install 'tinyseg[openvino]'"};

// The functions of OpenVINO's C API that are called, with the types that they have in 2024.0 and later.
extern "C" {
struct ov_core;
struct ov_model;
struct ov_compiled_model;
struct ov_infer_request;
struct ov_tensor;
struct ov_output_const_port;
struct ov_dimension {
  int64_t min, max;
};
struct ov_shape {
  int64_t rank;
  int64_t* dims;
};
struct ov_partial_shape {
  ov_dimension rank;
  ov_dimension* dims;
};
struct ov_version {
  const char* buildNumber;
  const char* description;
};
}
struct Api {
  int (*get_openvino_version)(ov_version*);
  void (*version_free)(ov_version*);
  const char* (*get_error_info)(int);
  const char* (*get_last_err_msg)();
  void (*free)(const char*);
  int (*core_create)(ov_core**);
  int (*core_get_property)(const ov_core*, const char*, const char*, char**);
  int (*core_read_model_from_memory_buffer)(const ov_core*, const char*, size_t, const ov_tensor*, ov_model**);
  int (*core_compile_model)(const ov_core*, const ov_model*, const char*, size_t, ov_compiled_model**, ...);
  void (*model_free)(ov_model*);
  int (*model_reshape)(const ov_model*, const char**, const ov_partial_shape*, size_t);
  int (*partial_shape_create_static)(int64_t, const int64_t*, ov_partial_shape*);
  void (*partial_shape_free)(ov_partial_shape*);
  int (*compiled_model_outputs_size)(const ov_compiled_model*, size_t*);
  int (*compiled_model_input_by_name)(const ov_compiled_model*, const char*, ov_output_const_port**);
  int (*port_get_element_type)(const ov_output_const_port*, int*);
  void (*output_const_port_free)(ov_output_const_port*);
  int (*compiled_model_create_infer_request)(const ov_compiled_model*, ov_infer_request**);
  void (*compiled_model_free)(ov_compiled_model*);
  int (*tensor_create_from_host_ptr)(int, ov_shape, void*, ov_tensor**);
  int (*tensor_get_byte_size)(const ov_tensor*, size_t*);
  void (*tensor_free)(ov_tensor*);
  int (*infer_request_set_tensor)(ov_infer_request*, const char*, const ov_tensor*);
  int (*infer_request_infer)(ov_infer_request*);
  void (*infer_request_free)(ov_infer_request*);

  void check(int status, const std::string& doing) const {
    if (status == 0) return;
    const char* why = get_last_err_msg();
    if (!why || !*why) why = get_error_info(status);
    std::string told = why ? why : "";
    told.erase(told.find_last_not_of(" \n") + 1);
    for (char& c : told)
      if (c == '\n') c = ' ';
    fail(TINYSEG_ENGINE_ERROR, "openvino failed while ", doing, ": ", told.substr(0, 500));
  }
};

// One Core a process, never freed: of two, the first one freed takes away the signal stack that the other one still has.
struct Library {
  Api api;
  ov_core* core;
  std::string version, capabilities, given;
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
  auto made = std::make_unique<Library>();
  made->given = given;
  Api& api = made->api;
  const auto take = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(symbol(handle, kPlaces.engine, name));
  };
  take(api.get_openvino_version, "ov_get_openvino_version");
  take(api.version_free, "ov_version_free");
  take(api.get_error_info, "ov_get_error_info");
  take(api.get_last_err_msg, "ov_get_last_err_msg");
  take(api.free, "ov_free");
  take(api.core_create, "ov_core_create");
  take(api.core_get_property, "ov_core_get_property");
  take(api.core_read_model_from_memory_buffer, "ov_core_read_model_from_memory_buffer");
  take(api.core_compile_model, "ov_core_compile_model");
  take(api.model_free, "ov_model_free");
  take(api.model_reshape, "ov_model_reshape");
  take(api.partial_shape_create_static, "ov_partial_shape_create_static");
  take(api.partial_shape_free, "ov_partial_shape_free");
  take(api.compiled_model_outputs_size, "ov_compiled_model_outputs_size");
  take(api.compiled_model_input_by_name, "ov_compiled_model_input_by_name");
  take(api.port_get_element_type, "ov_port_get_element_type");
  take(api.output_const_port_free, "ov_output_const_port_free");
  take(api.compiled_model_create_infer_request, "ov_compiled_model_create_infer_request");
  take(api.compiled_model_free, "ov_compiled_model_free");
  take(api.tensor_create_from_host_ptr, "ov_tensor_create_from_host_ptr");
  take(api.tensor_get_byte_size, "ov_tensor_get_byte_size");
  take(api.tensor_free, "ov_tensor_free");
  take(api.infer_request_set_tensor, "ov_infer_request_set_tensor");
  take(api.infer_request_infer, "ov_infer_request_infer");
  take(api.infer_request_free, "ov_infer_request_free");
  ov_version version{};
  api.check(api.get_openvino_version(&version), "telling its version");
  made->version = version.buildNumber ? version.buildNumber : "";
  api.version_free(&version);
  api.check(api.core_create(&made->core), "starting");
  char* value = nullptr;
  api.check(api.core_get_property(made->core, "CPU", "OPTIMIZATION_CAPABILITIES", &value), "asking the processor for its precisions");
  made->capabilities = std::string(" ") + value + " ";
  api.free(value);
  library = made.release();
  return *library;
}

struct Request {
  const Api& api;
  ov_infer_request* handle = nullptr;
  std::vector<ov_tensor*> tensors;
  ~Request() {
    if (handle) api.infer_request_free(handle);
    for (ov_tensor* t : tensors) api.tensor_free(t);
  }
};

struct OvModel {
  const Api& api;
  ov_compiled_model* handle = nullptr;
  int float32 = 0;  // the number of the type, which has changed between versions: read from a graph whose tensors have it
  ~OvModel() {
    if (handle) api.compiled_model_free(handle);
  }
};

class OvRun final : public Run {
 public:
  OvRun(std::shared_ptr<OvModel> model, const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs)
      : model_(std::move(model)), request_{model_->api, nullptr, {}} {
    const Api& api = model_->api;
    api.check(api.compiled_model_create_infer_request(model_->handle, &request_.handle), "making an infer request");
    for (const auto* tensors : {&inputs, &outputs}) {
      for (const Tensor& t : *tensors) {
        ov_tensor* made = nullptr;
        std::vector<int64_t> shape = t.shape;
        api.check(api.tensor_create_from_host_ptr(model_->float32, {int64_t(shape.size()), shape.data()}, t.data, &made),
                  "binding a tensor");
        request_.tensors.push_back(made);
        size_t bytes = 0;
        api.check(api.tensor_get_byte_size(made, &bytes), "binding a tensor");
        if (bytes != t.count * sizeof(float))
          fail(TINYSEG_ENGINE_ERROR, "openvino takes ", std::to_string(bytes), " bytes for ", t.name, ", not float32");
        api.check(api.infer_request_set_tensor(request_.handle, t.name, made), "binding a tensor");
      }
    }
  }

  void operator()() override {
    model_->api.check(model_->api.infer_request_infer(request_.handle), "running a graph");
  }

 private:
  std::shared_ptr<OvModel> model_;
  Request request_;
};

class OvCompiled final : public Compiled {
 public:
  explicit OvCompiled(std::shared_ptr<OvModel> model) : model_(std::move(model)) {}
  std::unique_ptr<Run> bind(const std::vector<Tensor>& inputs, const std::vector<Tensor>& outputs) override {
    return std::make_unique<OvRun>(model_, inputs, outputs);
  }

 private:
  std::shared_ptr<OvModel> model_;
};

class OvEngine final : public Engine {
 public:
  OvEngine(const Library& library, const EngineOptions& options) : library_(library) {
    name = kPlaces.engine;
    version = library.version;
    precision = options.precision;
    threads = options.threads;
    // What an int8 graph leaves in float is computed in bf16 where the processor has it.
    const bool half = library.capabilities.find(" BF16 ") != std::string::npos;
    hint_ = precision == "fp32" ? "f32" : precision == "fp16" ? "f16" : precision == "bf16" || half ? "bf16" : "f32";
  }

  std::shared_ptr<Compiled> compile(const Graph& graph, const Dimensions& dimensions) override {
    const Api& api = library_.api;
    const std::string doing = "compiling the " + graph.name;
    struct Read {
      const Api& api;
      ov_model* handle = nullptr;
      std::vector<ov_partial_shape> shapes;
      ~Read() {
        for (ov_partial_shape& s : shapes) api.partial_shape_free(&s);
        if (handle) api.model_free(handle);
      }
    } read{api, nullptr, {}};
    api.check(api.core_read_model_from_memory_buffer(library_.core, graph.data.data(), graph.data.size(), nullptr, &read.handle), doing);
    std::vector<const char*> names;
    for (const TensorSpec& input : graph.inputs) {
      const std::vector<int64_t> shape = concrete(input.shape, dimensions);
      ov_partial_shape fixed{};
      api.check(api.partial_shape_create_static(int64_t(shape.size()), shape.data(), &fixed), doing);
      read.shapes.push_back(fixed);
      names.push_back(input.name.c_str());
    }
    api.check(api.model_reshape(read.handle, names.data(), read.shapes.data(), names.size()), doing);
    auto model = std::make_shared<OvModel>(OvModel{api, nullptr, 0});
    const std::string count = std::to_string(threads);
    // Bound to cores, the threads of every process that is given a part of them would share the first ones.
    const bool bound = 1 < threads && threads >= available_cores();
    api.check(api.core_compile_model(library_.core, read.handle, "CPU", 10, &model->handle, "PERFORMANCE_HINT", "LATENCY",
                                     "NUM_STREAMS", "1", "INFERENCE_PRECISION_HINT", hint_, "INFERENCE_NUM_THREADS", count.c_str(),
                                     "ENABLE_CPU_PINNING", bound ? "YES" : "NO"),
              doing);
    size_t outputs = 0;
    api.check(api.compiled_model_outputs_size(model->handle, &outputs), doing);
    if (outputs != graph.outputs.size())
      fail(TINYSEG_ENGINE_ERROR, "the ", graph.name, " has ", std::to_string(outputs), " outputs, not ",
           std::to_string(graph.outputs.size()));
    ov_output_const_port* port = nullptr;
    api.check(api.compiled_model_input_by_name(model->handle, names[0], &port), doing);
    const int status = api.port_get_element_type(port, &model->float32);
    api.output_const_port_free(port);
    api.check(status, doing);
    return std::make_shared<OvCompiled>(std::move(model));
  }

 private:
  const Library& library_;
  const char* hint_;
};

}  // namespace

std::unique_ptr<Engine> open_openvino(const EngineOptions& options) {
  const Library& library = opened(options.library);
  const char* capability = options.precision == "fp32" ? " FP32 " : options.precision == "bf16" ? " BF16 "
                           : options.precision == "fp16" ? " FP16 " : " INT8 ";
  if (options.precision == "int8" && int8_saturates())
    fail(TINYSEG_PRECISION_UNAVAILABLE,
         "this processor has no 8-bit dot product (VNNI), and OpenVINO's int8 sums saturate without it, so masks would be wrong; "
         "use precision fp32, or engine onnxruntime, whose int8 is exact here");
  if (library.capabilities.find(capability) == std::string::npos)
    fail(TINYSEG_PRECISION_UNAVAILABLE, "openvino does not offer ", options.precision, " on this processor (it offers",
         library.capabilities.substr(0, library.capabilities.size() - 1), "); use fp32");
  return std::make_unique<OvEngine>(library, options);
}

}  // namespace tinyseg
