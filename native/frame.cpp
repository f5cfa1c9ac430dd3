#include "frame.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "simd.hpp"

namespace tinyseg {
namespace {

// Which source samples make one output sample, and how much of each.
struct Taps {
  std::vector<int> first;      // per output
  std::vector<int> count;      // per output
  std::vector<float> weights;  // `stride` per output, normalised to sum 1, zero beyond count
  int stride = 0;
};

Taps make_taps(int source, int target) {
  const double scale = double(source) / target;
  const double support = std::max(scale, 1.0);
  Taps taps;
  taps.stride = int(std::ceil(support)) * 2 + 1;
  taps.first.resize(target);
  taps.count.resize(target);
  taps.weights.assign(size_t(target) * taps.stride, 0.0f);
  std::vector<double> weight(taps.stride);
  for (int i = 0; i < target; ++i) {
    const double centre = (i + 0.5) * scale;
    const int lo = std::max(0, int(std::floor(centre - support)));
    const int hi = std::min(source, int(std::ceil(centre + support)));
    int first = -1, last = -1;
    double total = 0.0;
    for (int s = lo; s < hi; ++s) {
      const double w = 1.0 - std::abs((s + 0.5 - centre) / support);
      if (w <= 0.0) continue;
      if (first < 0) first = s;
      last = s;
      weight[s - first] = w;
      total += w;
    }
    taps.first[i] = first;
    taps.count[i] = last - first + 1;
    for (int k = 0; k <= last - first; ++k)
      taps.weights[size_t(i) * taps.stride + k] = float(weight[k] / total);
  }
  return taps;
}

// accumulator[x] += weight * row[x] over n bytes.
TINYSEG_CLONES
void add_row(const uint8_t* __restrict row, float weight, float* __restrict accumulator, int n) {
  for (int x = 0; x < n; ++x) accumulator[x] += weight * float(row[x]);
}

TINYSEG_CLONES
void set_row(const uint8_t* __restrict row, float weight, float* __restrict accumulator, int n) {
  for (int x = 0; x < n; ++x) accumulator[x] = weight * float(row[x]);
}

// Two rows at once: half the traffic on the accumulator.
TINYSEG_CLONES
void add_two_rows(const uint8_t* __restrict a, float wa, const uint8_t* __restrict b, float wb,
                  float* __restrict accumulator, int n) {
  for (int x = 0; x < n; ++x) accumulator[x] += wa * float(a[x]) + wb * float(b[x]);
}

// Horizontal pass of one row whose pixels are `pitch` floats apart; three planes out. Four lanes per pixel (the
// fourth is the next pixel's first channel and is dropped), so that one load and one multiply-add serve a tap.
TINYSEG_CLONES
void resample_row(const float* __restrict row, int pitch, const int* __restrict first, const int* __restrict count,
                  const float* __restrict weights, int stride, int n, float scale, float shift,
                  float* __restrict p0, float* __restrict p1, float* __restrict p2) {
  for (int x = 0; x < n; ++x) {
    const float* source = row + ptrdiff_t(first[x]) * pitch;
    const float* w = weights + ptrdiff_t(x) * stride;
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    for (int k = 0; k < count[x]; ++k, source += pitch)
      for (int c = 0; c < 4; ++c) sum[c] += w[k] * source[c];
    p0[x] = sum[0] * scale + shift;
    p1[x] = sum[1] * scale + shift;
    p2[x] = sum[2] * scale + shift;
  }
}

// Rows that are not plain interleaved bytes (slices with steps, planar or transposed arrays) are gathered first.
const uint8_t* packed_row(const FrameView& frame, int y, std::vector<uint8_t>& buffer) {
  const uint8_t* row = frame.data + ptrdiff_t(y) * frame.row_stride;
  if (frame.column_stride == frame.channels && (frame.channels == 1 || frame.channel_stride == 1)) return row;
  uint8_t* out = buffer.data();
  for (int x = 0; x < frame.width; ++x)
    for (int c = 0; c < frame.channels; ++c)
      *out++ = row[x * frame.column_stride + c * frame.channel_stride];
  return buffer.data();
}

}  // namespace

void prepare(const FrameView& frame, const InputView& input, float mean, float std) {
  const int n = frame.width * frame.channels;
  const size_t plane = size_t(input.height) * input.width;
  const Taps across = make_taps(frame.width, input.content_width);
  const Taps down = make_taps(frame.height, input.content_height);
  std::vector<float> accumulator(size_t(n) + 4, 0.0f);  // resample_row reads up to three floats past a pixel
  std::vector<uint8_t> buffer_a(n), buffer_b(n);
  const float scale = 1.0f / std, shift = -mean / std;

  for (int y = 0; y < input.content_height; ++y) {
    const float* w = &down.weights[size_t(y) * down.stride];
    const int first = down.first[y], count = down.count[y];
    set_row(packed_row(frame, first, buffer_a), w[0], accumulator.data(), n);
    int k = 1;
    for (; k + 1 < count; k += 2) {
      const uint8_t* a = packed_row(frame, first + k, buffer_a);
      const uint8_t* b = packed_row(frame, first + k + 1, buffer_b);
      add_two_rows(a, w[k], b, w[k + 1], accumulator.data(), n);
    }
    if (k < count) add_row(packed_row(frame, first + k, buffer_a), w[k], accumulator.data(), n);

    float* red = input.data + size_t(y) * input.width;
    float* green = red + plane;
    float* blue = green + plane;
    float* first_plane = frame.bgr ? blue : red;
    float* third_plane = frame.bgr ? red : blue;
    resample_row(accumulator.data(), frame.channels, across.first.data(), across.count.data(), across.weights.data(),
                 across.stride, input.content_width, scale, shift, first_plane, green, third_plane);
    if (frame.channels == 1) {  // the other two lanes held neighbouring pixels
      std::memcpy(green, first_plane, sizeof(float) * input.content_width);
      std::memcpy(third_plane, first_plane, sizeof(float) * input.content_width);
    }
    for (float* row : {red, green, blue})
      std::fill(row + input.content_width, row + input.width, 0.0f);
  }
  for (int c = 0; c < 3; ++c)
    std::fill(input.data + c * plane + size_t(input.content_height) * input.width, input.data + (c + 1) * plane, 0.0f);
}

void prepare_reference(const FrameView& frame, const InputView& input, float mean, float std) {
  const double scale_x = double(frame.width) / input.content_width;
  const double scale_y = double(frame.height) / input.content_height;
  const double support_x = std::max(scale_x, 1.0), support_y = std::max(scale_y, 1.0);
  for (int c = 0; c < 3; ++c) {
    const int channel = frame.channels == 1 ? 0 : (frame.bgr ? 2 - c : c);
    for (int y = 0; y < input.height; ++y) {
      for (int x = 0; x < input.width; ++x) {
        float& out = input.data[(size_t(c) * input.height + y) * input.width + x];
        out = 0.0f;
        if (y >= input.content_height || x >= input.content_width) continue;
        const double centre_x = (x + 0.5) * scale_x, centre_y = (y + 0.5) * scale_y;
        double sum = 0.0, total = 0.0;
        for (int sy = std::max(0, int(centre_y - support_y) - 1);
             sy < std::min(frame.height, int(centre_y + support_y) + 2); ++sy) {
          const double wy = 1.0 - std::abs((sy + 0.5 - centre_y) / support_y);
          if (wy <= 0.0) continue;
          for (int sx = std::max(0, int(centre_x - support_x) - 1);
               sx < std::min(frame.width, int(centre_x + support_x) + 2); ++sx) {
            const double wx = 1.0 - std::abs((sx + 0.5 - centre_x) / support_x);
            if (wx <= 0.0) continue;
            const uint8_t value =
                frame.data[sy * frame.row_stride + sx * frame.column_stride + channel * frame.channel_stride];
            sum += wx * wy * value;
            total += wx * wy;
          }
        }
        out = float((sum / total - mean) / std);
      }
    }
  }
}

}  // namespace tinyseg
