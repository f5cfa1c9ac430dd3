// Many masks on the logit grid: counted and compared there, and drawn only where and when they are wanted.
#pragma once

#include <cstddef>
#include <cstdint>

#include "mask.hpp"

namespace tinyseg {

// What is counted of one mask on the grid. Boxes have exclusive ends and are zero where the mask is empty.
struct GridStats {
  int32_t x0, y0, x1, y1;
  int32_t area;        // cells whose logit exceeds 0
  int32_t area_above;  // exceeds +offset
  int32_t area_below;  // exceeds -offset
};

// `logits` (count, rows, columns); only the top left content_rows x content_columns cells are counted, the rest is
// padding. One entry of `stats` a mask.
void grid_stats(const float* logits, size_t count, int rows, int columns, int content_rows, int content_columns,
                float offset, GridStats* stats);
void grid_stats_reference(const float* logits, size_t count, int rows, int columns, int content_rows,
                          int content_columns, float offset, GridStats* stats);

// Greedy non-maximum suppression in the order given, the best first: a mask goes when its box overlaps the box of one
// that stays by more than `box_iou`, or its cells those of one that stays by more than `mask_iou` (above 1: never).
// boxes (count, 4); bits (count, words), one bit a cell; areas (count), cells; keep (count) is written: 1 or 0.
void suppress(const float* boxes, const uint64_t* bits, const int32_t* areas, size_t count, size_t words,
              float box_iou, float mask_iou, uint8_t* keep);
void suppress_reference(const float* boxes, const uint64_t* bits, const int32_t* areas, size_t count, size_t words,
                        float box_iou, float mask_iou, uint8_t* keep);

// A window of what threshold() draws: frame pixels [x0, x1) x [y0, y1), inside the region. The box that is returned is
// in frame pixels; areas at +-offset are not counted.
struct Window {
  int x0, y0, x1, y1;
};
MaskStats threshold_window(const float* logits, int rows, int columns, const MaskPlacement& place,
                           const Window& window, uint8_t* mask);

}  // namespace tinyseg
