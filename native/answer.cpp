#include "answer.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "simd.hpp"

namespace tinyseg {
namespace {

TINYSEG_CLONES
void overlap(const float* a, const float* b, size_t cells, uint32_t* both, uint32_t* either) {
  uint32_t shared = 0, all = 0;
  for (size_t i = 0; i < cells; ++i) {
    const uint32_t in_a = a[i] > 0.0f, in_b = b[i] > 0.0f;
    shared += in_a & in_b;
    all += in_a | in_b;
  }
  *both = shared;
  *either = all;
}

TINYSEG_CLONES
uint32_t count_infinite(const float* values, size_t count) {
  uint32_t found = 0;
  for (size_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof(bits));
    found |= uint32_t((bits & 0x7f800000u) == 0x7f800000u);
  }
  return found;
}

}  // namespace

void choose_readings(const float* logits, size_t cells, int chosen[kReadings]) {
  double most = -1.0;
  int alike = 0;
  for (int k = 0; k < kReadings; ++k) {
    chosen[k] = k + 1;
    uint32_t both, either;
    overlap(logits, logits + (k + 1) * cells, cells, &both, &either);
    const double share = double(both) / std::max(either, 1u);
    if (share > most) {
      most = share;
      alike = k;
    }
  }
  chosen[alike] = 0;
}

void add_first_look(const float* first, float* second, size_t cells) {
  for (size_t i = 0; i < cells; ++i) second[i] += kFirstLookWeight * first[i];
}

bool all_finite(const float* values, size_t count) { return count_infinite(values, count) == 0; }

}  // namespace tinyseg
