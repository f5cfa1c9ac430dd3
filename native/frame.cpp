#include "frame.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "simd.hpp"

namespace tinyseg {
namespace {

// Calls `use(sample, weight)` for the source samples with a share in output sample i, in order.
template <typename Use>
void each_tap(int i, int source, double scale, double support, Use use) {
  const double centre = (i + 0.5) * scale;
  const int lo = std::max(0, int(std::floor(centre - support)));
  const int hi = std::min(source, int(std::ceil(centre + support)));
  for (int s = lo; s < hi; ++s) {
    const double w = 1.0 - std::abs((s + 0.5 - centre) / support);
    if (w > 0.0) use(s, w);
  }
}

void make_taps(int source, int target, Taps& taps) {
  if (taps.source == source && int(taps.first.size()) == target) return;  // as in the last frame
  const double scale = double(source) / target;
  const double support = std::max(scale, 1.0);
  taps.source = source;
  taps.count = 0;
  taps.first.resize(target);
  for (int i = 0; i < target; ++i) {
    int count = 0;
    each_tap(i, source, scale, support, [&](int s, double) {
      if (count++ == 0) taps.first[i] = s;
    });
    taps.count = std::max(taps.count, count);
  }
  taps.weights.assign(size_t(target) * taps.count, 0.0f);
  for (int i = 0; i < target; ++i) {
    double total = 0.0;
    each_tap(i, source, scale, support, [&](int, double w) { total += w; });
    // At the far border the window starts earlier, so that no tap lies beyond the source.
    const int start = std::min(taps.first[i], source - taps.count);
    float* weights = &taps.weights[size_t(i) * taps.count];
    each_tap(i, source, scale, support, [&](int s, double w) { weights[s - start] = float(w / total); });
    taps.first[i] = start;
  }
}

// Vertical pass in 8.8 fixed point: sum += (value * 256 * weight) rounded down, weights in 1/65536. Every tap loses
// less than 1/256 of a grey level, and 16-bit lanes are twice as many as floats. Two rows at once halve the traffic on
// the sums.
TINYSEG_CLONES
void add_rows(const uint8_t* __restrict a, uint16_t wa, const uint8_t* __restrict b, uint16_t wb,
              uint16_t* __restrict sum, int n) {
  for (int x = 0; x < n; ++x) {
    const uint16_t pa = uint16_t((uint32_t(uint16_t(a[x] << 8)) * wa) >> 16);
    const uint16_t pb = uint16_t((uint32_t(uint16_t(b[x] << 8)) * wb) >> 16);
    sum[x] = uint16_t(sum[x] + pa + pb);
  }
}

TINYSEG_CLONES
void widen(const uint16_t* __restrict sum, float* __restrict out, int n) {
  for (int x = 0; x < n; ++x) out[x] = float(sum[x]);
}

TINYSEG_CLONES
void widen_bytes(const uint8_t* __restrict row, float* __restrict out, int n) {
  for (int x = 0; x < n; ++x) out[x] = float(row[x]) * 256.0f;
}

// Four channels of a pixel; the fourth is the next pixel's first and is dropped.
typedef float Lanes __attribute__((vector_size(16)));

inline Lanes load(const float* p) {
  Lanes v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

template <int Count>
inline Lanes weighted(const float* source, int pitch, const float* w, int count) {
  Lanes sum = load(source) * w[0];
  const int n = Count > 0 ? Count : count;
  for (int k = 1; k < n; ++k) sum += load(source + k * pitch) * w[k];
  return sum;
}

// Horizontal pass of one row whose pixels are `pitch` floats apart; three planes out. Count > 0 fixes the number of
// taps, so that the compiler unrolls them.
template <int Count>
void resample_row(const float* row, int pitch, const Taps& taps, int n, float scale, float shift, float* p0, float* p1,
                  float* p2) {
  const int count = Count > 0 ? Count : taps.count;
  const int* first = taps.first.data();
  const float* w = taps.weights.data();
  int x = 0;
  for (; x + 4 <= n; x += 4, w += 4 * count) {
    Lanes s[4];
    for (int i = 0; i < 4; ++i)
      s[i] = weighted<Count>(row + ptrdiff_t(first[x + i]) * pitch, pitch, w + i * count, count);
    const Lanes a = Lanes{s[0][0], s[1][0], s[2][0], s[3][0]} * scale + shift;
    const Lanes b = Lanes{s[0][1], s[1][1], s[2][1], s[3][1]} * scale + shift;
    const Lanes c = Lanes{s[0][2], s[1][2], s[2][2], s[3][2]} * scale + shift;
    std::memcpy(p0 + x, &a, sizeof(a));
    std::memcpy(p1 + x, &b, sizeof(b));
    std::memcpy(p2 + x, &c, sizeof(c));
  }
  for (; x < n; ++x, w += count) {
    const Lanes s = weighted<Count>(row + ptrdiff_t(first[x]) * pitch, pitch, w, count) * scale + shift;
    p0[x] = s[0];
    p1[x] = s[1];
    p2[x] = s[2];
  }
}

using ResampleRow = void (*)(const float*, int, const Taps&, int, float, float, float*, float*, float*);

ResampleRow resample_row_for(int taps) {
  switch (taps) {
    case 1: return resample_row<1>;
    case 2: return resample_row<2>;
    case 3: return resample_row<3>;
    case 4: return resample_row<4>;
    case 5: return resample_row<5>;
    case 6: return resample_row<6>;
    default: return resample_row<0>;
  }
}

uint16_t fixed(float weight) { return uint16_t(std::min(65535.0f, std::round(weight * 65536.0f))); }

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

void prepare(const FrameView& frame, const InputView& input, float mean, float std, FrameScratch& scratch) {
  const int n = frame.width * frame.channels;
  const size_t plane = size_t(input.height) * input.width;
  make_taps(frame.width, input.content_width, scratch.across);
  make_taps(frame.height, input.content_height, scratch.down);
  const Taps &across = scratch.across, &down = scratch.down;
  const ResampleRow resample = resample_row_for(across.count);
  std::vector<uint16_t>& sum = scratch.sum;
  std::vector<float>& accumulator = scratch.accumulator;
  sum.resize(n);
  accumulator.resize(size_t(n) + 4);  // resample_row reads up to three floats past a pixel
  std::fill(accumulator.end() - 4, accumulator.end(), 0.0f);
  scratch.buffer_a.resize(n);
  scratch.buffer_b.resize(n);
  const float scale = 1.0f / (256.0f * std), shift = -mean / std;

  for (int y = 0; y < input.content_height; ++y) {
    const float* w = &down.weights[size_t(y) * down.count];
    const int first = down.first[y], count = down.count;
    if (count == 1) {
      widen_bytes(packed_row(frame, first, scratch.buffer_a), accumulator.data(), n);
    } else {
      // Half of what truncation loses on average, so that flat areas keep their value.
      std::fill(sum.begin(), sum.end(), uint16_t(count / 2));
      for (int k = 0; k < count; k += 2) {
        const bool pair = k + 1 < count;
        const uint8_t* a = packed_row(frame, first + k, scratch.buffer_a);
        const uint8_t* b = pair ? packed_row(frame, first + k + 1, scratch.buffer_b) : a;
        add_rows(a, fixed(w[k]), b, pair ? fixed(w[k + 1]) : uint16_t(0), sum.data(), n);
      }
      widen(sum.data(), accumulator.data(), n);
    }

    float* red = input.data + size_t(y) * input.width;
    float* green = red + plane;
    float* blue = green + plane;
    float* first_plane = frame.bgr ? blue : red;
    float* third_plane = frame.bgr ? red : blue;
    resample(accumulator.data(), frame.channels, across, input.content_width, scale, shift, first_plane, green,
             third_plane);
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
