// Python face of the pixel core. Arguments are checked here once; tinyseg/pixels.py words the errors for users.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/tuple.h>

#include <cmath>
#include <stdexcept>
#include <tuple>

#include "frame.hpp"
#include "grid_bindings.hpp"
#include "mask.hpp"
#include "step_bindings.hpp"

namespace nb = nanobind;
using namespace nb::literals;

using Frame = nb::ndarray<const uint8_t, nb::ndim<3>, nb::device::cpu>;
using Input = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Logits = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Mask = nb::ndarray<uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Region = std::tuple<int, int, int, int>;
using Size = std::tuple<float, float>;

namespace {

void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

// Sizes are ints inside, and products of two of them must be; larger sides than this are no frames.
constexpr size_t kMostSide = 32768;

void require_sides(size_t height, size_t width, const char* message) {
  require(height > 0 && width > 0 && height <= kMostSide && width <= kMostSide, message);
}

// Each thread's own, so that frame after frame allocates nothing.
thread_local tinyseg::FrameScratch frame_scratch;
thread_local tinyseg::MaskScratch mask_scratch;

void prepare_fast(const tinyseg::FrameView& frame, const tinyseg::InputView& input, float mean, float std) {
  tinyseg::prepare(frame, input, mean, std, frame_scratch);
}

tinyseg::MaskStats threshold_fast(const float* logits, int rows, int columns, const tinyseg::MaskPlacement& place,
                                  float offset, uint8_t* mask) {
  return tinyseg::threshold(logits, rows, columns, place, offset, mask, mask_scratch);
}

template <auto Function>
void prepare(Frame frame, Input input, std::tuple<int, int> content, bool bgr, float mean, float std) {
  const auto [width, height] = content;
  require(frame.shape(2) == 1 || frame.shape(2) == 3 || frame.shape(2) == 4, "frame must have 1, 3 or 4 channels");
  require_sides(frame.shape(0), frame.shape(1), "frame sides must be 1 to 32768");
  require(input.shape(0) == 3, "input must be (3, height, width)");
  require_sides(input.shape(1), input.shape(2), "input sides must be 1 to 32768");
  require(std::isfinite(mean) && std::isfinite(std) && std > 0.0f, "mean must be finite, std positive");
  require(width > 0 && height > 0 && size_t(width) <= input.shape(2) && size_t(height) <= input.shape(1),
          "content must fit the input");
  const tinyseg::FrameView from{frame.data(),          frame.stride(0),       frame.stride(1), frame.stride(2),
                                int(frame.shape(0)),   int(frame.shape(1)),   int(frame.shape(2)), bgr};
  const tinyseg::InputView to{input.data(), int(input.shape(1)), int(input.shape(2)), height, width};
  nb::gil_scoped_release release;
  Function(from, to, mean, std);
}

tinyseg::MaskPlacement placement(size_t height, size_t width, const Region& region, const Size& content) {
  const auto [x0, y0, x1, y1] = region;
  const auto [columns, rows] = content;
  require_sides(height, width, "frame sides must be 1 to 32768");
  // NaN would become an index.
  require(std::isfinite(columns) && std::isfinite(rows) && columns > 0.0f && rows > 0.0f,
          "content must be finite and positive");
  require(0 <= x0 && x0 < x1 && size_t(x1) <= width && 0 <= y0 && y0 < y1 && size_t(y1) <= height,
          "region must lie in the frame");
  return {int(height), int(width), x0, y0, x1, y1, rows, columns};
}

// (x0, y0, x1, y1, area, area above +offset, area above -offset)
using Stats = std::tuple<int, int, int, int, int64_t, int64_t, int64_t>;

template <auto Function>
Stats threshold(Logits logits, Mask mask, Region region, Size content, float offset) {
  require_sides(logits.shape(0), logits.shape(1), "logits sides must be 1 to 32768");
  require(offset >= 0.0f, "offset must not be negative");
  const auto place = placement(mask.shape(0), mask.shape(1), region, content);
  tinyseg::MaskStats s;
  {
    nb::gil_scoped_release release;
    s = Function(logits.data(), int(logits.shape(0)), int(logits.shape(1)), place, offset, mask.data());
  }
  return {s.x0, s.y0, s.x1, s.y1, s.area, s.area_above, s.area_below};
}

void upsample(Logits logits, Floats out, Region region, Size content, float outside) {
  require_sides(logits.shape(0), logits.shape(1), "logits sides must be 1 to 32768");
  const auto place = placement(out.shape(0), out.shape(1), region, content);
  nb::gil_scoped_release release;
  tinyseg::upsample(logits.data(), int(logits.shape(0)), int(logits.shape(1)), place, outside, out.data());
}

}  // namespace

NB_MODULE(_native, m) {
  m.doc() = "The pixel core: frames into encoder inputs, logits into masks. Every function releases the GIL.";
  m.def("prepare", &prepare<prepare_fast>, "frame"_a, "input"_a, "content"_a, "bgr"_a, "mean"_a, "std"_a,
        "Resize (H, W, C) uint8 into the top left of (3, h, w) float32 RGB, normalised; zero elsewhere.");
  m.def("prepare_reference", &prepare<tinyseg::prepare_reference>, "frame"_a, "input"_a, "content"_a, "bgr"_a,
        "mean"_a, "std"_a, "prepare, written as its definition reads.");
  m.def("threshold", &threshold<threshold_fast>, "logits"_a, "mask"_a, "region"_a, "content"_a, "offset"_a,
        "Upsample (h, w) logits into a (H, W) mask of 0 and 1; returns its box, area and areas at +-offset.");
  m.def("threshold_reference", &threshold<tinyseg::threshold_reference>, "logits"_a, "mask"_a, "region"_a,
        "content"_a, "offset"_a, "threshold, written as its definition reads.");
  m.def("upsample", &upsample, "logits"_a, "out"_a, "region"_a, "content"_a, "outside"_a,
        "Upsample (h, w) logits into (H, W) logits of the frame.");
  bind_grid(m);
  bind_step(m);
}
