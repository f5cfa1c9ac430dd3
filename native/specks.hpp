// Specks and pinholes, which a small network leaves on texture and reflections, are taken out of its logits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "prompt.hpp"

namespace tinyseg {

constexpr double kLeastPart = 0.05;  // of the largest part's area
constexpr double kLeastHole = 0.01;  // of the mask's area

// Memory that calls use again: it grows to the largest sizes asked for.
struct SpeckScratch {
  std::vector<uint8_t> inside;
  std::vector<int32_t> labels, parents, areas;
  std::vector<uint8_t> small;
};

// logits (rows, columns) -> out: a part (8 neighbours) much smaller than the largest one and a hole (4 neighbours) that is
// tiny and does not reach the border have changed sign; what a positive click points at stays a part, what a negative one
// points at stays a hole. False, and out untouched, where there is nothing to take out. Logits that are no numbers are out.
bool without_specks(const float* logits, int rows, int columns, const ClickedCell* clicks, size_t count, float* out,
                    SpeckScratch& scratch);

}  // namespace tinyseg
