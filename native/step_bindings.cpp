// Python face of geometry.cpp, prompt.cpp, specks.cpp, answer.cpp and resample.cpp. Arguments are checked here once, as far as
// memory depends on them; their Python callers word the errors for users.
#include "step_bindings.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <stdexcept>
#include <tuple>
#include <vector>

#include "answer.hpp"
#include "geometry.hpp"
#include "prompt.hpp"
#include "resample.hpp"
#include "specks.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using Sides = std::tuple<int, int>;
using Corners = std::tuple<int, int, int, int>;
using Edges = std::tuple<double, double, double, double>;
using ViewNumbers = std::tuple<Sides, Corners, Sides, Sides>;  // frame, region, content, input
using Cell = std::tuple<int, int, int>;                        // row, column, label

using Positions = nb::ndarray<const double, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
using Labels = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Placed = nb::ndarray<float, nb::shape<-1, 2>, nb::c_contig, nb::device::cpu>;
using Slots = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Grid = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using GridOut = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Grids = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using GridsOut = nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Values = nb::ndarray<const float, nb::c_contig, nb::device::cpu>;

constexpr int kMostSide = 32768;

void require(bool holds, const char* message) {
  if (!holds) throw std::invalid_argument(message);
}

bool is_side(int side) { return 0 < side && side <= kMostSide; }

tinyseg::Size sides(const Sides& size, const char* message) {
  const auto [width, height] = size;
  require(is_side(width) && is_side(height), message);
  return {width, height};
}

tinyseg::Region region_in(const Corners& corners, const tinyseg::Size& frame) {
  const auto [x0, y0, x1, y1] = corners;
  require(0 <= x0 && x0 < x1 && x1 <= frame.width && 0 <= y0 && y0 < y1 && y1 <= frame.height,
          "region must lie in the frame");
  return {x0, y0, x1, y1};
}

tinyseg::Box finite_box(const Edges& edges) {
  const auto [x0, y0, x1, y1] = edges;
  require(std::isfinite(x0) && std::isfinite(y0) && std::isfinite(x1) && std::isfinite(y1), "box must be finite");
  return {x0, y0, x1, y1};
}

tinyseg::View view_of(const ViewNumbers& numbers) {
  const auto& [frame, region, content, input] = numbers;
  tinyseg::View view;
  view.frame = sides(frame, "frame sides must be 1 to 32768");
  view.region = region_in(region, view.frame);
  view.content = sides(content, "content sides must be 1 to 32768");
  view.input = sides(input, "input sides must be 1 to 32768");
  require(view.rows() > 0 && view.columns() > 0, "input must hold a cell");
  return view;
}

ViewNumbers numbers_of(const tinyseg::View& v) {
  return {{v.frame.width, v.frame.height},
          {v.region.x0, v.region.y0, v.region.x1, v.region.y1},
          {v.content.width, v.content.height},
          {v.input.width, v.input.height}};
}

template <typename Array>
void require_grid(const Array& grid, const tinyseg::View& view, const char* message) {
  require(grid.shape(0) == size_t(view.rows()) && grid.shape(1) == size_t(view.columns()), message);
}

tinyseg::Prompt prompt_of(const Positions& points, const Labels& labels, const std::optional<Edges>& box) {
  require(points.shape(0) == labels.shape(0), "labels must be as many as points");
  tinyseg::Prompt prompt{points.data(), labels.data(), points.shape(0), box.has_value(), {}};
  for (size_t i = 0; i < 2 * prompt.count; ++i) require(std::isfinite(prompt.points[i]), "points must be finite");
  if (box) prompt.box = finite_box(*box);
  return prompt;
}

ViewNumbers letterbox(Sides frame, Corners region, int long_side, bool square) {
  const auto size = sides(frame, "frame sides must be 1 to 32768");
  require(is_side(long_side), "long_side must be 1 to 32768");
  return numbers_of(tinyseg::letterbox(size, region_in(region, size), long_side, square));
}

Corners crop_around(Edges box, double factor, Sides frame, int least_side) {
  require(std::isfinite(factor), "factor must be finite");
  require(is_side(least_side), "least_side must be 1 to 32768");
  const auto r = tinyseg::crop_around(finite_box(box), factor, sides(frame, "frame sides must be 1 to 32768"), least_side);
  return {r.x0, r.y0, r.x1, r.y1};
}

void to_model(Positions xy, ViewNumbers numbers, double shift, Placed out) {
  require(out.shape(0) == xy.shape(0), "out must have a row for every position");
  const auto view = view_of(numbers);
  for (size_t i = 0; i < xy.shape(0); ++i) {
    const auto p = tinyseg::to_model(view, xy.data()[2 * i] + shift, xy.data()[2 * i + 1] + shift);
    out.data()[2 * i] = p.x;
    out.data()[2 * i + 1] = p.y;
  }
}

std::optional<ViewNumbers> second_look(Edges box, ViewNumbers numbers, std::tuple<int, double, double> rule) {
  const auto [side, factor, below] = rule;
  require(is_side(side) && std::isfinite(factor) && std::isfinite(below), "rule must be (side, factor, below)");
  tinyseg::View look;
  if (!tinyseg::second_look(finite_box(box), view_of(numbers), {side, factor, below}, &look)) return std::nullopt;
  return numbers_of(look);
}

int outside_point(Positions points, Labels labels, ViewNumbers numbers) {
  return int(tinyseg::outside_point(prompt_of(points, labels, std::nullopt), view_of(numbers).region));
}

std::optional<Edges> cut_box(Edges box, ViewNumbers numbers) {
  tinyseg::Box cut;
  if (!tinyseg::cut_box(finite_box(box), view_of(numbers).region, &cut)) return std::nullopt;
  return Edges{cut.x0, cut.y0, cut.x1, cut.y1};
}

std::optional<Edges> prompted_box(Positions points, Labels labels, std::optional<Edges> box) {
  tinyseg::Box stated;
  if (!tinyseg::prompted_box(prompt_of(points, labels, box), &stated)) return std::nullopt;
  return Edges{stated.x0, stated.y0, stated.x1, stated.y1};
}

void lay_out(Positions points, Labels labels, std::optional<Edges> box, ViewNumbers frame, ViewNumbers view, Placed out,
             Slots out_labels) {
  const auto prompt = prompt_of(points, labels, box);
  require(out.shape(0) == out_labels.shape(0), "out_labels must be as many as out");
  require(prompt.count + (prompt.has_box ? 2 : 0) <= out.shape(0), "the prompt has more points than there are slots");
  tinyseg::lay_out(prompt, view_of(frame), view_of(view), out.data(), out_labels.data(), out.shape(0));
}

void lay_out_hint(Grid logits, ViewNumbers frame, ViewNumbers view, GridOut out) {
  const auto from = view_of(frame), to = view_of(view);
  require_grid(logits, from, "logits must have the shape of the frame's grid");
  require_grid(out, to, "out must have the shape of the view's grid");
  nb::gil_scoped_release release;
  thread_local tinyseg::HintScratch scratch;
  tinyseg::lay_out_hint(logits.data(), from, to, out.data(), scratch);
}

std::vector<Cell> clicked_cells(Positions points, Labels labels, ViewNumbers numbers) {
  const auto prompt = prompt_of(points, labels, std::nullopt);
  const auto view = view_of(numbers);
  std::vector<Cell> cells;
  for (size_t i = 0; i < prompt.count; ++i) {
    tinyseg::ClickedCell cell;
    if (tinyseg::clicked_cell(view, prompt.points[2 * i], prompt.points[2 * i + 1], prompt.labels[i], &cell))
      cells.emplace_back(cell.row, cell.column, cell.label);
  }
  return cells;
}

bool without_specks(Grids logits, std::vector<Cell> cells, GridsOut out) {
  const size_t count = logits.shape(0), rows = logits.shape(1), columns = logits.shape(2);
  require(rows > 0 && columns > 0 && rows <= size_t(kMostSide) && columns <= size_t(kMostSide),
          "logits sides must be 1 to 32768");
  require(out.shape(0) == count && out.shape(1) == rows && out.shape(2) == columns, "out must have the logits' shape");
  std::vector<tinyseg::ClickedCell> clicks;
  for (const auto& [row, column, label] : cells) {
    require(0 <= row && size_t(row) < rows && 0 <= column && size_t(column) < columns, "cells must lie on the grid");
    clicks.push_back({row, column, label});
  }
  nb::gil_scoped_release release;
  thread_local tinyseg::SpeckScratch scratch;
  bool any = false;
  const size_t size = rows * columns;
  const auto keep = [&](size_t k) { std::copy_n(logits.data() + k * size, size, out.data() + k * size); };
  for (size_t k = 0; k < count; ++k) {
    const bool changed = tinyseg::without_specks(logits.data() + k * size, int(rows), int(columns), clicks.data(),
                                                 clicks.size(), out.data() + k * size, scratch);
    if (changed && !any) {
      for (size_t before = 0; before < k; ++before) keep(before);
    } else if (!changed && any) {
      keep(k);
    }
    any = any || changed;
  }
  return any;
}

void resample_grid(Grid logits, ViewNumbers source, ViewNumbers target, GridOut out) {
  const auto from = view_of(source), to = view_of(target);
  require_grid(logits, from, "logits must have the shape of the source's grid");
  require_grid(out, to, "out must have the shape of the target's grid");
  nb::gil_scoped_release release;
  thread_local tinyseg::ResampleScratch scratch;
  tinyseg::resample_grid(logits.data(), from, to, out.data(), scratch);
}

std::tuple<int, int, int> choose_readings(Grids logits) {
  require(logits.shape(0) == tinyseg::kMasks, "logits must be (4, h, w)");
  int chosen[tinyseg::kReadings];
  tinyseg::choose_readings(logits.data(), logits.shape(1) * logits.shape(2), chosen);
  return {chosen[0], chosen[1], chosen[2]};
}

void add_first_look(Grid first, GridOut second) {
  require(first.shape(0) == second.shape(0) && first.shape(1) == second.shape(1), "both must have one shape");
  tinyseg::add_first_look(first.data(), second.data(), first.size());
}

bool all_finite(Values values) {
  const nb::gil_scoped_release release;
  return tinyseg::all_finite(values.data(), values.size());
}

}  // namespace

void bind_step(nb::module_& m) {
  m.attr("MEAN") = tinyseg::kMean;
  m.attr("STD") = tinyseg::kStd;
  m.attr("INPUT_MULTIPLE") = tinyseg::kInputMultiple;
  m.attr("LOGIT_STRIDE") = tinyseg::kLogitStride;
  m.attr("OUTSIDE_LOGIT") = tinyseg::kOutsideLogit;
  m.attr("HINT_LIMIT") = tinyseg::kHintLimit;
  m.attr("FIRST_LOOK_WEIGHT") = tinyseg::kFirstLookWeight;
  m.attr("LABEL_PADDING") = tinyseg::kLabelPadding;
  m.attr("LABEL_NEGATIVE") = tinyseg::kLabelNegative;
  m.attr("LABEL_POSITIVE") = tinyseg::kLabelPositive;
  m.attr("LABEL_BOX_TOP_LEFT") = tinyseg::kLabelTopLeft;
  m.attr("LABEL_BOX_BOTTOM_RIGHT") = tinyseg::kLabelBottomRight;
  // Views are (frame, region, content, input): (width, height), (x0, y0, x1, y1), (width, height), (width, height).
  m.def("letterbox", &letterbox, "frame"_a, "region"_a, "long_side"_a, "square"_a, "The view of a region of a frame.");
  m.def("crop_around", &crop_around, "box"_a, "factor"_a, "frame"_a, "least_side"_a,
        "A square region around a box, moved into the frame.");
  m.def("to_model", &to_model, "xy"_a, "view"_a, "shift"_a, "out"_a,
        "(N, 2) frame positions, shift added -> (N, 2) model positions.");
  m.def("second_look", &second_look, "box"_a, "view"_a, "rule"_a,
        "Where to look again for an object in a box, by rule (side, factor, below); None: nowhere.");
  m.def("outside_point", &outside_point, "points"_a, "labels"_a, "view"_a, "The first point outside the view's region, or -1.");
  m.def("cut_box", &cut_box, "box"_a, "view"_a, "The part of a box in the view's region; None: there is none.");
  m.def("prompted_box", &prompted_box, "points"_a, "labels"_a, "box"_a.none(),
        "The box that a prompt states, widened to its points; None without a box.");
  m.def("lay_out", &lay_out, "points"_a, "labels"_a, "box"_a.none(), "frame"_a, "view"_a, "out"_a, "out_labels"_a,
        "A prompt placed in a frame -> (slots, 2) points and (slots,) labels of a decoder that sees the view.");
  m.def("lay_out_hint", &lay_out_hint, "logits"_a, "frame"_a, "view"_a, "out"_a,
        "Logits of an earlier answer -> the decoder's hint on the view's grid.");
  m.def("clicked_cells", &clicked_cells, "points"_a, "labels"_a, "view"_a,
        "(row, column, label) of the cells under the clicks that a view shows.");
  m.def("without_specks", &without_specks, "logits"_a, "cells"_a, "out"_a,
        "(K, h, w) logits without specks and pinholes into out; False, and out undefined, where there are none.");
  m.def("resample_grid", &resample_grid, "logits"_a, "source"_a, "target"_a, "out"_a,
        "Logits of one view -> logits on another view's grid; OUTSIDE_LOGIT where nothing was seen.");
  m.def("choose_readings", &choose_readings, "logits"_a, "Which three of (4, h, w) logits a user sees.");
  m.def("add_first_look", &add_first_look, "first"_a, "second"_a, "Add the first look's share to a second look's logits.");
  m.def("all_finite", &all_finite, "values"_a, "Whether no value is infinite or NaN.");
}
