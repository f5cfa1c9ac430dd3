// Logits from the grid of one view of a frame to the grid of another.
#pragma once

#include <vector>

#include "geometry.hpp"

namespace tinyseg {

constexpr float kOutsideLogit = -16.0f;  // of cells that the source did not see

// Memory that calls use again: it grows to the largest sizes asked for.
struct ResampleScratch {
  std::vector<float> averaged, upper, lower;
  std::vector<double> sums, running;
  std::vector<int> left;
  std::vector<float> fraction;
};

// logits (source rows, source columns) -> out (target rows, target columns): bilinear between cell centres, the border
// repeated; where several source cells fall into one they are averaged first. Fused multiply-adds are asked for by name
// and everything else is rounded as written, so the result is the same bits on every processor.
void resample_grid(const float* logits, const View& source, const View& target, float* out, ResampleScratch& scratch);

}  // namespace tinyseg
