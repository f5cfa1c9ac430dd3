// What went wrong inside the library; api.cpp turns it into a status and a message. Nothing of it leaves the library.
#pragma once

#include <string>
#include <utility>

#include "tinyseg.h"

namespace tinyseg {

struct Failure {
  tinyseg_status status;
  std::string message;
};

template <typename... Parts>
[[noreturn]] void fail(tinyseg_status status, const Parts&... parts) {
  std::string message;
  (message.append(parts), ...);
  throw Failure{status, std::move(message)};
}

inline void require(bool holds, const char* message) {
  if (!holds) fail(TINYSEG_INVALID_ARGUMENT, message);
}

}  // namespace tinyseg
