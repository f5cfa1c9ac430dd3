// Low-resolution logits into masks of the frame: upsample, threshold, box, area and stability in one pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "geometry.hpp"

namespace tinyseg {

// Where a logit grid lies in a frame. Grid cell g covers continuous grid positions [g, g + 1); the region
// [x0, x1) x [y0, y1) of the frame maps to [0, content_width) x [0, content_height) of the grid.
struct MaskPlacement {
  int frame_height, frame_width;
  int x0, y0, x1, y1;
  float content_height, content_width;
};

inline MaskPlacement placement(const View& view) {
  return {view.frame.height,  view.frame.width,   view.region.x0,
          view.region.y0,     view.region.x1,     view.region.y1,
          float(view.content.height) / kLogitStride, float(view.content.width) / kLogitStride};
}

// Position of every output sample on the grid: the left neighbour and how far towards the right one.
struct Sampling {
  std::vector<int> cell;
  std::vector<float> fraction;
};

// Output columns [begin, end) between the same two grid columns; `kind` tells whether they have to be looked at.
struct Span {
  int begin, end, cell;
  uint8_t kind;
};

// Memory that calls use again: it grows to the largest sizes asked for.
struct MaskScratch {
  Sampling across, down;
  std::vector<Span> spans, runs;
  std::vector<float> row;
};

struct MaskStats {
  int x0 = 0, y0 = 0, x1 = 0, y1 = 0;  // box of the mask, exclusive end; all zero if it is empty
  int64_t area = 0;
  int64_t area_above = 0;  // pixels whose logit exceeds +offset
  int64_t area_below = 0;  // pixels whose logit exceeds -offset
};

// Bilinear interpolation between cell centres, clamped at the grid's border; content is finite and positive. Logits that
// are no numbers are out. `mask` (frame_height, frame_width) is
// written whole: 1 where the logit is above 0, and 0 outside the region.
MaskStats threshold(const float* logits, int rows, int columns, const MaskPlacement& place, float offset,
                    uint8_t* mask, MaskScratch& scratch);
MaskStats threshold_reference(const float* logits, int rows, int columns, const MaskPlacement& place, float offset,
                              uint8_t* mask);

// The interpolated logits themselves; `outside` is written beyond the region.
void upsample(const float* logits, int rows, int columns, const MaskPlacement& place, float outside, float* out);

}  // namespace tinyseg
