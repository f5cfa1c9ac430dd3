#include "geometry.hpp"

#include <algorithm>
#include <cmath>

namespace tinyseg {
namespace {

int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

// Half to even, as Python rounds.
int rounded(double value) { return int(std::nearbyint(value)); }

}  // namespace

View letterbox(const Size& frame, const Region& region, int long_side, bool square) {
  const int width = region.x1 - region.x0, height = region.y1 - region.y0;
  const double scale = double(long_side) / std::max(width, height);
  const Size content{std::max(1, rounded(width * scale)), std::max(1, rounded(height * scale))};
  const Size filled = square ? Size{long_side, long_side} : content;
  return {frame, region, content, {round_up(filled.width, kInputMultiple), round_up(filled.height, kInputMultiple)}};
}

Region crop_around(const Box& box, double factor, const Size& frame, int least_side) {
  // In doubles until it is cut to the frame: a box may be anywhere.
  const double asked = std::nearbyint(std::max(box.x1 - box.x0, box.y1 - box.y0) * factor);
  const double side = std::max(asked, double(least_side));
  const double width = std::min(side, double(frame.width)), height = std::min(side, double(frame.height));
  const double left = std::nearbyint((box.x0 + box.x1) / 2 - width / 2);
  const double top = std::nearbyint((box.y0 + box.y1) / 2 - height / 2);
  const int x0 = int(std::min(std::max(left, 0.0), frame.width - width));
  const int y0 = int(std::min(std::max(top, 0.0), frame.height - height));
  return {x0, y0, x0 + int(width), y0 + int(height)};
}

Point to_model(const View& view, double x, double y) {
  return {float((x - view.region.x0) * view.scale_x()), float((y - view.region.y0) * view.scale_y())};
}

bool second_look(const Box& box, const View& view, const ZoomRule& rule, View* look) {
  const Size& frame = view.frame;
  if (std::max(box.x1 - box.x0, box.y1 - box.y0) >= rule.below * std::max(frame.width, frame.height)) return false;
  *look = letterbox(frame, crop_around(box, rule.factor, frame, kLeastCropSide), rule.side, true);
  // Only worth it if it really shows more detail than the first look.
  return look->scale_x() > 1.2 * view.scale_x();
}

}  // namespace tinyseg
