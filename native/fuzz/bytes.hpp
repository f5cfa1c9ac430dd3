// Bytes of a fuzzer, read as numbers; zeros follow the last one.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

struct Bytes {
  const uint8_t* data;
  size_t left;

  template <class T>
  T take() {
    T value{};
    const size_t n = left < sizeof(T) ? left : sizeof(T);
    if (n) std::memcpy(&value, data, n);  // an input of no bytes may have no address
    data += n;
    left -= n;
    return value;
  }

  int between(int low, int high) { return low + int(take<uint16_t>() % unsigned(high - low + 1)); }

  // Finite and positive, of any size.
  float positive() {
    const float value = std::fabs(take<float>());
    return std::isfinite(value) && value > 0.0f ? value : 1.0f;
  }
};

inline void check(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}
