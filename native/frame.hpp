// Frames into encoder inputs: colour, antialiased resize, normalisation, padding and layout in one pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tinyseg {

// A frame as numpy shows it: strides are in bytes and may be negative.
struct FrameView {
  const uint8_t* data;
  ptrdiff_t row_stride, column_stride, channel_stride;
  int height, width, channels;  // 1 (grey), 3 or 4 (the fourth is ignored)
  bool bgr;                     // first channel is blue
};

// Planar RGB float input (3, height, width); the content fills its top left.
struct InputView {
  float* data;
  int height, width;
  int content_height, content_width;
};

// Which source samples make one output sample, and how much of each. Every output has the same number of taps (some
// with weight 0), so that loops over them have one length.
struct Taps {
  std::vector<int> first;      // per output
  std::vector<float> weights;  // `count` per output, summing to 1
  int count = 0, source = 0;
  // From output `begin` to `end` the weights of every `period`-th output are the same, `step` source samples farther. 0: nowhere.
  int period = 0, step = 0, begin = 0, end = 0;
};

// What two rows of the output are made of: source rows of which the upper takes the first, and the lower as many from
// `shift` on.
struct RowPair {
  std::vector<const uint8_t*> rows;
  std::vector<uint16_t> weights[2];
  int shift = 0;
  std::vector<uint8_t> gathered;  // rows of a frame whose bytes do not lie side by side
};

// Memory that calls use again: it grows to the largest sizes asked for.
struct FrameScratch {
  Taps across, down;
  RowPair pair;
  std::vector<float> accumulator;
};

// Resize with a triangle filter that widens when shrinking (bilinear when enlarging), write
// (value - mean) / std, and zero outside the content.
void prepare(const FrameView& frame, const InputView& input, float mean, float std, FrameScratch& scratch);

// The same, written as the definition reads; what prepare() is compared with.
void prepare_reference(const FrameView& frame, const InputView& input, float mean, float std);

}  // namespace tinyseg
