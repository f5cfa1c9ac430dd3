#include "prompt.hpp"

#include <algorithm>
#include <cmath>

namespace tinyseg {
namespace {

Point point_to_model(const View& view, double x, double y) { return to_model(view, x + 0.5, y + 0.5); }

Point clipped(const View& view, const Point& p) {
  return {std::min(std::max(p.x, 0.0f), float(view.content.width)),
          std::min(std::max(p.y, 0.0f), float(view.content.height))};
}

}  // namespace

ptrdiff_t outside_point(const Prompt& prompt, const Region& region) {
  for (size_t i = 0; i < prompt.count; ++i) {
    const double x = prompt.points[2 * i], y = prompt.points[2 * i + 1];
    if (!(x >= region.x0 && x <= region.x1 && y >= region.y0 && y <= region.y1)) return ptrdiff_t(i);
  }
  return -1;
}

bool cut_box(const Box& box, const Region& region, Box* cut) {
  const auto within = [](double v, int low, int high) { return std::min(std::max(v, double(low)), double(high)); };
  *cut = {within(box.x0, region.x0, region.x1), within(box.y0, region.y0, region.y1),
          within(box.x1, region.x0, region.x1), within(box.y1, region.y0, region.y1)};
  return cut->x1 - cut->x0 > 0 && cut->y1 - cut->y0 > 0;
}

bool prompted_box(const Prompt& prompt, Box* box) {
  if (!prompt.has_box) return false;
  *box = prompt.box;
  for (size_t i = 0; i < prompt.count; ++i) {
    const double x = prompt.points[2 * i], y = prompt.points[2 * i + 1];
    *box = {std::min(box->x0, x), std::min(box->y0, y), std::max(box->x1, x + 1), std::max(box->y1, y + 1)};
  }
  return true;
}

void lay_out(const Prompt& prompt, const View& frame, const View& view, float* points, float* labels, size_t slots) {
  size_t slot = 0;
  const auto put = [&](const Point& p, float label) {
    points[2 * slot] = p.x;
    points[2 * slot + 1] = p.y;
    labels[slot++] = label;
  };
  if (prompt.has_box) {
    put(clipped(view, to_model(view, prompt.box.x0, prompt.box.y0)), kLabelTopLeft);
    put(clipped(view, to_model(view, prompt.box.x1, prompt.box.y1)), kLabelBottomRight);
  }
  const bool all = view == frame;
  for (size_t i = 0; i < prompt.count; ++i) {
    const Point placed = point_to_model(view, prompt.points[2 * i], prompt.points[2 * i + 1]);
    const Point kept = clipped(view, placed);  // the frame's very edge is its last pixel's edge
    if (all || (kept.x == placed.x && kept.y == placed.y)) put(kept, float(prompt.labels[i]));
  }
  while (slot < slots) put({0.0f, 0.0f}, kLabelPadding);
}

void lay_out_hint(const float* logits, const View& frame, const View& view, float* out, HintScratch& scratch) {
  const size_t cells = size_t(frame.rows()) * frame.columns();
  const auto clip = [](float v) { return std::min(std::max(v, -kHintLimit), kHintLimit); };
  if (view == frame) {
    std::transform(logits, logits + cells, out, clip);
    return;
  }
  scratch.clipped.resize(cells);
  std::transform(logits, logits + cells, scratch.clipped.begin(), clip);
  resample_grid(scratch.clipped.data(), frame, view, out, scratch.resample);
}

bool clicked_cell(const View& view, double x, double y, double label, ClickedCell* cell) {
  const Point p = point_to_model(view, x, y);
  const float row = std::floor(p.y / kLogitStride), column = std::floor(p.x / kLogitStride);
  const int rows = view.rows(), columns = view.columns();
  // The frame's very edge belongs to its last cell.
  if (!(row >= 0 && row <= float(rows) && column >= 0 && column <= float(columns))) return false;
  *cell = {std::min(int(row), rows - 1), std::min(int(column), columns - 1), label == 1.0};
  return true;
}

}  // namespace tinyseg
