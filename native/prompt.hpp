// What a user points with, placed in a frame and laid out as the decoder takes it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "geometry.hpp"
#include "resample.hpp"

namespace tinyseg {

// Labels of the decoder's point slots, as in SAM's ONNX export.
constexpr float kLabelPadding = -1.0f, kLabelNegative = 0.0f, kLabelPositive = 1.0f, kLabelTopLeft = 2.0f,
                kLabelBottomRight = 3.0f;
// Logits of a hint are clipped to this; the student saw no larger ones in training.
constexpr float kHintLimit = 16.0f;

struct Prompt {
  const double* points;  // (count, 2) x, y: names of pixels, finite
  const double* labels;  // (count,) 1 on the object, 0 off it
  size_t count;
  bool has_box;
  Box box;
};

// The first point that lies outside a view's region (its edges included), -1 if there is none.
ptrdiff_t outside_point(const Prompt& prompt, const Region& region);

// The part of a box that lies in a region; false where nothing remains.
bool cut_box(const Box& box, const Region& region, Box* cut);

// The box that a prompt states by itself, widened to its points; false if only a look can tell.
bool prompted_box(const Prompt& prompt, Box* box);

// A placed prompt for a decoder that sees `view`, in a frame that was encoded as `frame`: points (slots, 2) in model pixels
// and labels (slots,), the rest padding; slots hold count + 2. Points outside the view (a second look at a part of the
// frame) are left out, the box is cut to it.
void lay_out(const Prompt& prompt, const View& frame, const View& view, float* points, float* labels, size_t slots);

struct HintScratch {
  std::vector<float> clipped;
  ResampleScratch resample;
};

// Logits of an earlier answer on the grid of `frame`, as the decoder takes them on the grid of `view`.
void lay_out_hint(const float* logits, const View& frame, const View& view, float* out, HintScratch& scratch);

// The cell of the logit grid under a click; false where the view does not show it.
struct ClickedCell {
  int32_t row, column, label;
};
bool clicked_cell(const View& view, double x, double y, double label, ClickedCell* cell);

}  // namespace tinyseg
