// The C face: arguments that memory depends on are checked, failures become statuses, nothing else leaves.
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <new>

#include "failure.hpp"
#include "processor.hpp"
#include "session.hpp"
#include "tinyseg.h"

struct tinyseg_model {
  std::shared_ptr<tinyseg::OpenModel> opened;
};
struct tinyseg_session {
  tinyseg::Session session;
};

namespace {

using tinyseg::fail;
using tinyseg::require;

constexpr int kMostThreads = 1024;

thread_local char last_error[2048] = "";  // no allocation, also when memory is out

tinyseg_status told(tinyseg_status status, const char* message) {
  std::snprintf(last_error, sizeof(last_error), "%s", message);
  return status;
}

template <typename Work>
tinyseg_status guarded(Work work) noexcept {
  try {
    work();
    return TINYSEG_OK;
  } catch (const tinyseg::Failure& failure) {
    return told(failure.status, failure.message.c_str());
  } catch (const std::bad_alloc&) {
    return told(TINYSEG_OUT_OF_MEMORY, "there is not enough memory; use smaller frames, fewer prompts at once, or fewer sessions");
  } catch (const std::exception& other) {
    return told(TINYSEG_INTERNAL, other.what());
  } catch (...) {
    return told(TINYSEG_INTERNAL, "an unknown exception; please report it");
  }
}

// A member of options that a caller with an older header may not have.
template <typename T>
T option(const tinyseg_options* options, T tinyseg_options::*member, size_t offset) {
  return options && options->size >= offset + sizeof(T) ? options->*member : T();
}

}  // namespace

extern "C" {

TINYSEG_API const char* tinyseg_version(void) { return TINYSEG_VERSION; }

TINYSEG_API int tinyseg_abi(void) { return TINYSEG_ABI; }

TINYSEG_API const char* tinyseg_last_error(void) { return last_error; }

TINYSEG_API const char* tinyseg_status_name(int status) {
  switch (status) {
    case TINYSEG_OK: return "TINYSEG_OK";
    case TINYSEG_INVALID_ARGUMENT: return "TINYSEG_INVALID_ARGUMENT";
    case TINYSEG_MODEL_ERROR: return "TINYSEG_MODEL_ERROR";
    case TINYSEG_ENGINE_MISSING: return "TINYSEG_ENGINE_MISSING";
    case TINYSEG_ENGINE_ERROR: return "TINYSEG_ENGINE_ERROR";
    case TINYSEG_PRECISION_UNAVAILABLE: return "TINYSEG_PRECISION_UNAVAILABLE";
    case TINYSEG_WRONG_DEVICE: return "TINYSEG_WRONG_DEVICE";
    case TINYSEG_NOT_READY: return "TINYSEG_NOT_READY";
    case TINYSEG_OUT_OF_MEMORY: return "TINYSEG_OUT_OF_MEMORY";
    case TINYSEG_INTERNAL: return "TINYSEG_INTERNAL";
  }
  return "an unknown status";
}

TINYSEG_API tinyseg_status tinyseg_open(const char* folder, const tinyseg_options* options, tinyseg_model** model) {
  return guarded([&] {
    require(model != nullptr, "model is NULL; give the address of a tinyseg_model pointer");
    *model = nullptr;
    require(folder != nullptr && *folder != '\0', "folder is NULL or empty; give a model folder");
    require(!options || options->size >= offsetof(tinyseg_options, engine) + sizeof(char*),
            "options.size must be sizeof(tinyseg_options)");
    const auto text = [](const char* given, const char* otherwise) { return std::string(given && *given ? given : otherwise); };
#define OPTION(member) option(options, &tinyseg_options::member, offsetof(tinyseg_options, member))
    const std::string engine = text(OPTION(engine), "onnxruntime"), precision = text(OPTION(precision), "fp32");
    const int threads = OPTION(threads);
    if (precision != "fp32" && precision != "int8" && precision != "bf16" && precision != "fp16")
      fail(TINYSEG_INVALID_ARGUMENT, "precision must be fp32, int8, bf16 or fp16, but is ", precision.substr(0, 60));
    if (threads < 0 || threads > kMostThreads)
      fail(TINYSEG_INVALID_ARGUMENT, "threads must be 0 (all) to 1024, but is ", std::to_string(threads));
    const tinyseg::EngineOptions chosen{precision, text(OPTION(library), ""), threads ? threads : tinyseg::available_cores()};
#undef OPTION
    auto opened = std::make_shared<tinyseg::OpenModel>(folder, chosen, engine);
    *model = new tinyseg_model{std::move(opened)};
  });
}

TINYSEG_API void tinyseg_close(tinyseg_model* model) { delete model; }

TINYSEG_API const char* tinyseg_describe(const tinyseg_model* model) { return model ? model->opened->description.c_str() : ""; }

TINYSEG_API tinyseg_status tinyseg_grid(const tinyseg_model* model, int width, int height, int* rows, int* columns) {
  return guarded([&] {
    require(model && rows && columns, "model, rows and columns must not be NULL");
    require(width >= 1 && height >= 1 && width <= 16384 && height <= 16384, "a frame has 1 to 16384 pixels a side");
    const tinyseg::View view = model->opened->view(width, height);
    *rows = view.rows();
    *columns = view.columns();
  });
}

TINYSEG_API tinyseg_status tinyseg_session_new(tinyseg_model* model, tinyseg_session** session) {
  return guarded([&] {
    require(session != nullptr, "session is NULL; give the address of a tinyseg_session pointer");
    *session = nullptr;
    require(model != nullptr, "model is NULL; open one with tinyseg_open");
    *session = new tinyseg_session{tinyseg::Session(model->opened)};
  });
}

TINYSEG_API void tinyseg_session_free(tinyseg_session* session) { delete session; }

TINYSEG_API tinyseg_status tinyseg_warm_up(tinyseg_session* session, int width, int height, size_t prompts, size_t points) {
  return guarded([&] {
    require(session != nullptr, "session is NULL; make one with tinyseg_session_new");
    session->session.warm_up(width, height, prompts, points);
  });
}

TINYSEG_API tinyseg_status tinyseg_embed(tinyseg_session* session, const tinyseg_image* image) {
  return guarded([&] {
    require(session != nullptr, "session is NULL; make one with tinyseg_session_new");
    require(image != nullptr, "image is NULL");
    session->session.embed(*image);
  });
}

TINYSEG_API tinyseg_status tinyseg_predict(tinyseg_session* session, const tinyseg_prompt* prompt, int zoom,
                                           tinyseg_mask* masks, size_t count) {
  return guarded([&] {
    require(session != nullptr, "session is NULL; make one with tinyseg_session_new");
    require(prompt && masks, "prompt and masks must not be NULL");
    require(zoom == TINYSEG_ZOOM_OFF || zoom == TINYSEG_ZOOM_AUTO, "zoom must be TINYSEG_ZOOM_OFF or TINYSEG_ZOOM_AUTO");
    session->session.predict(*prompt, zoom == TINYSEG_ZOOM_AUTO, masks, count);
  });
}

TINYSEG_API tinyseg_status tinyseg_run(tinyseg_session* session, const tinyseg_image* image, const tinyseg_prompt* prompts,
                                       size_t count, int zoom, tinyseg_mask* masks) {
  return guarded([&] {
    require(session != nullptr, "session is NULL; make one with tinyseg_session_new");
    require(image != nullptr, "image is NULL");
    require(count == 0 || (prompts && masks), "prompts and masks must not be NULL");
    require(zoom == TINYSEG_ZOOM_OFF || zoom == TINYSEG_ZOOM_AUTO, "zoom must be TINYSEG_ZOOM_OFF or TINYSEG_ZOOM_AUTO");
    session->session.run(*image, prompts, count, zoom == TINYSEG_ZOOM_AUTO, masks);
  });
}

}  // extern "C"
