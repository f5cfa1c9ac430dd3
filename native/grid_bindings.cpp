// Python face of grid.cpp. Arguments are checked here once; tinyseg/pixels.py words the errors for users.
#include "grid_bindings.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/tuple.h>

#include <climits>
#include <cmath>
#include <stdexcept>
#include <tuple>

#include "grid.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Grids = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Grid = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Counts = nb::ndarray<int32_t, nb::shape<-1, 7>, nb::c_contig, nb::device::cpu>;
using Boxes = nb::ndarray<const float, nb::shape<-1, 4>, nb::c_contig, nb::device::cpu>;
using Bits = nb::ndarray<const uint64_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Areas = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Flags = nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Pixels = nb::ndarray<uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Region = std::tuple<int, int, int, int>;

static_assert(sizeof(tinyseg::GridStats) == 7 * sizeof(int32_t), "written as rows of seven numbers");

constexpr size_t kMaxSide = 1 << 15;  // of a grid or a frame: products of two stay far from the end of int

void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

template <auto Function>
void grid_stats(Grids logits, std::tuple<int, int> content, float offset, Counts stats) {
  const auto [columns, rows] = content;
  require(logits.shape(1) <= kMaxSide && logits.shape(2) <= kMaxSide, "logits are too large");
  require(rows > 0 && columns > 0 && size_t(rows) <= logits.shape(1) && size_t(columns) <= logits.shape(2),
          "content must fit the logits");
  require(offset >= 0.0f, "offset must not be negative");
  require(stats.shape(0) == logits.shape(0), "stats must have a row for every mask");
  nb::gil_scoped_release release;
  Function(logits.data(), logits.shape(0), int(logits.shape(1)), int(logits.shape(2)), rows, columns, offset,
           reinterpret_cast<tinyseg::GridStats*>(stats.data()));
}

template <auto Function>
void suppress(Boxes boxes, Bits bits, Areas areas, float box_iou, float mask_iou, Flags keep) {
  const size_t count = boxes.shape(0);
  require(bits.shape(0) == count && areas.shape(0) == count && keep.shape(0) == count,
          "boxes, bits, areas and keep must have the same length");
  require(!std::isnan(box_iou) && !std::isnan(mask_iou), "thresholds must be numbers");
  nb::gil_scoped_release release;
  Function(boxes.data(), bits.data(), areas.data(), count, bits.shape(1), box_iou, mask_iou, keep.data());
}

// (x0, y0, x1, y1, area)
std::tuple<int, int, int, int, int64_t> threshold_window(Grid logits, Pixels mask, std::tuple<int, int> frame,
                                                         Region region, std::tuple<float, float> content,
                                                         std::tuple<int, int> corner) {
  const auto [frame_width, frame_height] = frame;
  const auto [x0, y0, x1, y1] = region;
  const auto [content_width, content_height] = content;
  const auto [left, top] = corner;
  require(logits.shape(0) > 0 && logits.shape(1) > 0, "logits are empty");
  require(logits.shape(0) <= kMaxSide && logits.shape(1) <= kMaxSide, "logits are too large");
  require(0 <= x0 && x0 < x1 && x1 <= frame_width && 0 <= y0 && y0 < y1 && y1 <= frame_height,
          "region must lie in the frame");
  require(content_width > 0.0f && content_height > 0.0f && std::isfinite(content_width) &&
              std::isfinite(content_height),
          "content must be positive");
  require(mask.shape(0) > 0 && mask.shape(1) > 0, "mask is empty");
  require(left >= x0 && top >= y0 && mask.shape(1) <= size_t(x1) && mask.shape(0) <= size_t(y1) &&
              left <= x1 - int(mask.shape(1)) && top <= y1 - int(mask.shape(0)),
          "the window must lie in the region");
  const tinyseg::MaskPlacement place{frame_height, frame_width, x0, y0, x1, y1, content_height, content_width};
  const tinyseg::Window window{left, top, left + int(mask.shape(1)), top + int(mask.shape(0))};
  tinyseg::MaskStats s;
  {
    nb::gil_scoped_release release;
    s = tinyseg::threshold_window(logits.data(), int(logits.shape(0)), int(logits.shape(1)), place, window,
                                  mask.data());
  }
  return {s.x0, s.y0, s.x1, s.y1, s.area};
}

}  // namespace

void bind_grid(nb::module_& m) {
  m.def("grid_stats", &grid_stats<tinyseg::grid_stats>, "logits"_a, "content"_a, "offset"_a, "stats"_a,
        "Count (N, h, w) logits on the grid: rows x0, y0, x1, y1, area, area above +offset, area above -offset.");
  m.def("grid_stats_reference", &grid_stats<tinyseg::grid_stats_reference>, "logits"_a, "content"_a, "offset"_a,
        "stats"_a, "grid_stats, written as its definition reads.");
  m.def("suppress", &suppress<tinyseg::suppress>, "boxes"_a, "bits"_a, "areas"_a, "box_iou"_a, "mask_iou"_a,
        "keep"_a, "Greedy non-maximum suppression over boxes and over masks of one bit a cell, the best first.");
  m.def("suppress_reference", &suppress<tinyseg::suppress_reference>, "boxes"_a, "bits"_a, "areas"_a, "box_iou"_a,
        "mask_iou"_a, "keep"_a, "suppress, written as its definition reads.");
  m.def("threshold_window", &threshold_window, "logits"_a, "mask"_a, "frame"_a, "region"_a, "content"_a, "corner"_a,
        "The window of threshold's mask whose top left pixel is corner; returns its box and area.");
}
