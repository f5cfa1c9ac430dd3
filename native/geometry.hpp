// How frames, model inputs and masks lie to each other; tinyseg/geometry.py states the conventions.
//
// Files that include this are built without contraction of products and sums (CMakeLists.txt), so that positions are the
// same bits on every processor.
#pragma once

#include <cstdint>

namespace tinyseg {

// The encoder takes RGB scaled to [-1, 1]: (value - kMean) / kStd. Padding is 0 after this.
constexpr float kMean = 127.5f, kStd = 127.5f;
constexpr int kInputMultiple = 32;  // of the encoder input's sides: its deepest stride
constexpr int kLogitStride = 4;     // model pixels a cell of the logit grid
constexpr int kLeastCropSide = 32;  // frame pixels

struct Size {
  int width, height;
};

struct Region {  // frame pixels, ends exclusive
  int x0, y0, x1, y1;
};

struct Box {  // continuous frame positions
  double x0, y0, x1, y1;
};

inline bool operator==(const Size& a, const Size& b) { return a.width == b.width && a.height == b.height; }
inline bool operator==(const Region& a, const Region& b) {
  return a.x0 == b.x0 && a.y0 == b.y0 && a.x1 == b.x1 && a.y1 == b.y1;
}

// A region of a frame in the encoder's input: scaled to `content`, at the top left, padded right and below to `input`.
struct View {
  Size frame;
  Region region;
  Size content, input;  // model pixels

  double scale_x() const { return double(content.width) / (region.x1 - region.x0); }
  double scale_y() const { return double(content.height) / (region.y1 - region.y0); }
  int rows() const { return input.height / kLogitStride; }  // of the logit grid, padding included
  int columns() const { return input.width / kLogitStride; }
};

inline bool operator==(const View& a, const View& b) {
  return a.frame == b.frame && a.region == b.region && a.content == b.content && a.input == b.input;
}
inline bool operator!=(const View& a, const View& b) { return !(a == b); }

struct Point {  // model pixels, continuous
  float x, y;
};

// A region of a frame in an input whose longer side is `long_side`; the other one is padded to a multiple of 32, or both
// are `long_side` where `square`.
View letterbox(const Size& frame, const Region& region, int long_side, bool square);

// A square of `factor` times the box's longer side around it, `least_side` at least, moved into the frame and cut to it.
// The box is finite.
Region crop_around(const Box& box, double factor, const Size& frame, int least_side);

// A continuous frame position in a view's input. Points that users give name pixels: half a pixel is added before.
Point to_model(const View& view, double x, double y);

// When an object is looked at again, in a crop around it: the model's own numbers.
struct ZoomRule {
  int side;       // of the crop's encoder input, model pixels
  double factor;  // crop side over the object's longer side
  double below;   // objects smaller than this share of the frame's longer side are looked at again
};

// Where to look again for an object in `box`; false where the look that `view` gave is good enough.
bool second_look(const Box& box, const View& view, const ZoomRule& rule, View* look);

}  // namespace tinyseg
