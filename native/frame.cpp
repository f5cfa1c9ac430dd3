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

// Where ratios of small whole numbers repeat themselves: 1280 to 512 has two sets of weights, 640 to 512 four.
void find_period(Taps& taps) {
  const int n = int(taps.first.size());
  const float* weights = taps.weights.data();
  taps.period = taps.begin = taps.end = 0;
  for (int period : {1, 2, 4}) {
    const int middle = n / 2;
    if (middle + period >= n) return;
    const int step = taps.first[middle + period] - taps.first[middle];
    const auto repeats = [&](int i) {
      return taps.first[i + period] - taps.first[i] == step &&
             std::equal(weights + size_t(i) * taps.count, weights + size_t(i + 1) * taps.count,
                        weights + size_t(i + period) * taps.count);
    };
    int begin = middle, end = middle;
    while (begin > 0 && repeats(begin - 1)) --begin;
    while (end + period < n && repeats(end)) ++end;
    if (end - begin < n / 2) continue;
    taps.period = period;
    taps.step = step;
    taps.begin = begin;
    taps.end = end + period;
    return;
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
  find_period(taps);
}

// Two rows of the output are made at a time: their values lie side by side, so that one load brings a pixel of both.

constexpr int BLOCK = 64;  // bytes of a source row that are summed in registers

// Vertical pass in 8.8 fixed point: sum += (value * 256 * weight) rounded down, weights in 1/65536. Every tap loses
// less than 1/256 of a grey level, and 16-bit lanes are twice as many as floats. Bytes are taken in pairs: the lower one
// times 256 is the pair shifted up, the higher one the pair without the lower.
template <int Count>
TINYSEG_INLINE void add_taps(const uint8_t* const* rows, const uint16_t* weights, int x, uint16_t* __restrict even,
                             uint16_t* __restrict odd) {
  const uint8_t* row[Count];
  uint16_t weight[Count];
  for (int k = 0; k < Count; ++k) {
    row[k] = rows[k] + x;
    weight[k] = weights[k];
  }
  for (int i = 0; i < BLOCK / 2; ++i) {
    uint16_t e = even[i], o = odd[i];
    for (int k = 0; k < Count; ++k) {
      uint16_t pair;
      std::memcpy(&pair, row[k] + 2 * i, sizeof(pair));
      e = uint16_t(e + ((uint32_t(uint16_t(pair << 8)) * weight[k]) >> 16));
      o = uint16_t(o + ((uint32_t(uint16_t(pair & 0xff00)) * weight[k]) >> 16));
    }
    even[i] = e;
    odd[i] = o;
  }
}

// The same of two rows that have all source rows but Shift in common: each is read once.
template <int Count, int Shift>
TINYSEG_INLINE void add_common_taps(const RowPair& pair, int x, uint16_t (*__restrict even)[BLOCK / 2],
                                    uint16_t (*__restrict odd)[BLOCK / 2]) {
  const uint8_t* row[Count + Shift];
  uint16_t weight[2][Count];
  for (int k = 0; k < Count + Shift; ++k) row[k] = pair.rows[k] + x;
  for (int k = 0; k < Count; ++k) {
    weight[0][k] = pair.weights[0][k];
    weight[1][k] = pair.weights[1][k];
  }
  for (int i = 0; i < BLOCK / 2; ++i) {
    uint16_t e[2] = {even[0][i], even[1][i]}, o[2] = {odd[0][i], odd[1][i]};
    for (int k = 0; k < Count + Shift; ++k) {
      uint16_t two;
      std::memcpy(&two, row[k] + 2 * i, sizeof(two));
      const uint16_t low = uint16_t(two << 8), high = uint16_t(two & 0xff00);
      for (int r = 0; r < 2; ++r) {
        const int tap = k - r * Shift;
        if (tap < 0 || tap >= Count) continue;
        e[r] = uint16_t(e[r] + ((uint32_t(low) * weight[r][tap]) >> 16));
        o[r] = uint16_t(o[r] + ((uint32_t(high) * weight[r][tap]) >> 16));
      }
    }
    for (int r = 0; r < 2; ++r) {
      even[r][i] = e[r];
      odd[r][i] = o[r];
    }
  }
}

// n values of two rows, in turn. Shift > 0: by how many source rows they differ, where Count is all taps. bias: half of what
// truncation loses on average, so that flat areas keep their value.
template <int Count, int Shift = 0>
TINYSEG_INLINE void sum_rows(const RowPair& pair, int taps, int bias, float* __restrict out, int n) {
  const uint8_t* const* rows[2] = {pair.rows.data(), pair.rows.data() + pair.shift};
  const uint16_t* weights[2] = {pair.weights[0].data(), pair.weights[1].data()};
  int x = 0;
  for (; x + BLOCK <= n; x += BLOCK) {
    uint16_t even[2][BLOCK / 2], odd[2][BLOCK / 2], all[2 * BLOCK];
    for (int r = 0; r < 2; ++r)
      for (int i = 0; i < BLOCK / 2; ++i) even[r][i] = odd[r][i] = uint16_t(bias);
    if constexpr (Shift > 0) {
      add_common_taps<Count, Shift>(pair, x, even, odd);
    } else {
      for (int r = 0; r < 2; ++r)
        for (int k = 0; k < taps; k += Count) add_taps<Count>(rows[r] + k, weights[r] + k, x, even[r], odd[r]);
    }
    for (int i = 0; i < BLOCK / 2; ++i) {
      all[4 * i] = even[0][i];
      all[4 * i + 1] = even[1][i];
      all[4 * i + 2] = odd[0][i];
      all[4 * i + 3] = odd[1][i];
    }
    for (int i = 0; i < 2 * BLOCK; ++i) out[2 * x + i] = float(all[i]);
  }
  for (; x < n; ++x) {
    for (int r = 0; r < 2; ++r) {
      uint16_t sum = uint16_t(bias);
      for (int k = 0; k < taps; ++k)
        sum = uint16_t(sum + ((uint32_t(uint16_t(rows[r][k][x] << 8)) * weights[r][k]) >> 16));
      out[2 * x + r] = float(sum);
    }
  }
}

using SumRows = void (*)(const RowPair&, int, int, float*, int);

// clang-format off
TINYSEG_CLONES void sum_rows_2(const RowPair& pair, int taps, int bias, float* out, int n) { sum_rows<2>(pair, taps, bias, out, n); }
TINYSEG_CLONES void sum_rows_3(const RowPair& pair, int taps, int bias, float* out, int n) { sum_rows<3>(pair, taps, bias, out, n); }
TINYSEG_CLONES void sum_rows_4(const RowPair& pair, int taps, int bias, float* out, int n) { sum_rows<4>(pair, taps, bias, out, n); }
TINYSEG_CLONES void sum_rows_5(const RowPair& pair, int taps, int bias, float* out, int n) { sum_rows<5>(pair, taps, bias, out, n); }
// Of ratios 5/4 and 3/2, 2, and 5/2.
TINYSEG_CLONES void sum_common_3_1(const RowPair& pair, int taps, int bias, float* out, int n) { sum_rows<3, 1>(pair, taps, bias, out, n); }
TINYSEG_CLONES void sum_common_4_2(const RowPair& pair, int taps, int bias, float* out, int n) { sum_rows<4, 2>(pair, taps, bias, out, n); }
TINYSEG_CLONES void sum_common_5_2(const RowPair& pair, int taps, int bias, float* out, int n) { sum_rows<5, 2>(pair, taps, bias, out, n); }
// clang-format on

// So many taps that they are whole groups of those that are summed in registers.
int padded(int taps) { return taps <= 5 ? taps : (taps + 3) / 4 * 4; }

SumRows sum_rows_for(int taps, int shift) {
  switch (10 * taps + shift) {
    case 31: return sum_common_3_1;
    case 42: return sum_common_4_2;
    case 52: return sum_common_5_2;
  }
  switch (taps) {
    case 2: return sum_rows_2;
    case 3: return sum_rows_3;
    case 5: return sum_rows_5;
    default: return sum_rows_4;
  }
}

TINYSEG_CLONES
void widen_rows(const uint8_t* __restrict upper, const uint8_t* __restrict lower, float* __restrict out, int n) {
  for (int x = 0; x < n; ++x) {
    out[2 * x] = float(upper[x]) * 256.0f;
    out[2 * x + 1] = float(lower[x]) * 256.0f;
  }
}

// A pixel of two rows: channel 0 of both, 1 of both, 2 of both; the last two lanes are the next pixel's and are dropped.
typedef float Lanes __attribute__((vector_size(32)));

template <int Count>
TINYSEG_INLINE void weighted(Lanes& sum, const float* source, int pitch, const float* w, int count) {
  Lanes v;
  std::memcpy(&v, source, sizeof(v));
  sum = v * w[0];
  const int n = Count > 0 ? Count : count;
  for (int k = 1; k < n; ++k) {
    std::memcpy(&v, source + k * pitch, sizeof(v));
    sum += v * w[k];
  }
}

TINYSEG_INLINE void store_halves(const Lanes& v, float* low, float* high) {
  std::memcpy(low, &v, sizeof(v) / 2);
  std::memcpy(high, reinterpret_cast<const char*>(&v) + sizeof(v) / 2, sizeof(v) / 2);
}

// Where two rows of the output go, by channel in the frame's order.
struct RowPlanes {
  float* upper[3];
  float* lower[3];
};

// Four pixels of six values each -> four values in each of six planes.
TINYSEG_INLINE void store_pixels(const Lanes* s, int x, float scale, float shift, const RowPlanes& out) {
  const Lanes outer_a = TINYSEG_SHUFFLE(s[0], s[1], 0, 1, 8, 9, 4, 5, 12, 13);
  const Lanes outer_b = TINYSEG_SHUFFLE(s[2], s[3], 0, 1, 8, 9, 4, 5, 12, 13);
  const Lanes inner_a = TINYSEG_SHUFFLE(s[0], s[1], 2, 3, 10, 11, 6, 7, 14, 15);
  const Lanes inner_b = TINYSEG_SHUFFLE(s[2], s[3], 2, 3, 10, 11, 6, 7, 14, 15);
  const Lanes upper_02 = TINYSEG_SHUFFLE(outer_a, outer_b, 0, 2, 8, 10, 4, 6, 12, 14) * scale + shift;
  const Lanes lower_02 = TINYSEG_SHUFFLE(outer_a, outer_b, 1, 3, 9, 11, 5, 7, 13, 15) * scale + shift;
  const Lanes both_1 = TINYSEG_SHUFFLE(inner_a, inner_b, 0, 2, 8, 10, 1, 3, 9, 11) * scale + shift;
  store_halves(upper_02, out.upper[0] + x, out.upper[2] + x);
  store_halves(lower_02, out.lower[0] + x, out.lower[2] + x);
  store_halves(both_1, out.upper[1] + x, out.lower[1] + x);
}

// Which of a row's outputs to make.
struct Columns {
  int begin, end;
};

// Horizontal pass of two rows whose pixels are `pitch` floats apart. Count > 0 fixes the number of taps, so that the
// compiler unrolls them.
template <int Count>
TINYSEG_INLINE void resample_rows(const float* rows, int pitch, const Taps& taps, Columns columns, float scale,
                                  float shift, const RowPlanes& out) {
  const int count = Count > 0 ? Count : taps.count;
  const int* first = taps.first.data();
  const float* w = taps.weights.data() + size_t(columns.begin) * count;
  int x = columns.begin;
  for (; x + 4 <= columns.end; x += 4, w += 4 * count) {
    Lanes s[4];
    for (int i = 0; i < 4; ++i)
      weighted<Count>(s[i], rows + ptrdiff_t(first[x + i]) * pitch, pitch, w + i * count, count);
    store_pixels(s, x, scale, shift, out);
  }
  for (; x < columns.end; ++x, w += count) {
    Lanes s;
    weighted<Count>(s, rows + ptrdiff_t(first[x]) * pitch, pitch, w, count);
    s = s * scale + shift;
    for (int c = 0; c < 3; ++c) {
      out.upper[c][x] = s[2 * c];
      out.lower[c][x] = s[2 * c + 1];
    }
  }
}

constexpr int COLOUR_PITCH = 6;  // floats from one pixel of two rows to the next, in frames of three channels

// The same where weights repeat themselves (Taps::period), which then stay in registers. Starts at taps.begin; returns the
// first output that it did not make.
template <int Count, int Period>
TINYSEG_INLINE int resample_periodic(const float* rows, const Taps& taps, float scale, float shift, const RowPlanes& out) {
  float weights[Period][Count];
  std::memcpy(weights, &taps.weights[size_t(taps.begin) * Count], sizeof(weights));
  ptrdiff_t start[4];
  for (int i = 0; i < 4; ++i)
    start[i] = ptrdiff_t(taps.first[taps.begin + i % Period] + i / Period * taps.step) * COLOUR_PITCH;
  const ptrdiff_t advance = ptrdiff_t(4 / Period) * taps.step * COLOUR_PITCH;
  int x = taps.begin;
  for (; x + 4 <= taps.end; x += 4, rows += advance) {
    Lanes s[4];
    for (int i = 0; i < 4; ++i) {
      const float* source = rows + start[i];
      Lanes v;
      std::memcpy(&v, source, sizeof(v));
      s[i] = v * weights[i % Period][0];
      for (int k = 1; k < Count; ++k) {
        std::memcpy(&v, source + k * COLOUR_PITCH, sizeof(v));
        s[i] += v * weights[i % Period][k];
      }
    }
    store_pixels(s, x, scale, shift, out);
  }
  return x;
}

using ResampleRows = void (*)(const float*, int, const Taps&, Columns, float, float, const RowPlanes&);
using ResamplePeriodic = int (*)(const float*, const Taps&, float, float, const RowPlanes&);

// clang-format off
TINYSEG_CLONES void resample_rows_n(const float* rows, int pitch, const Taps& taps, Columns columns, float scale, float shift, const RowPlanes& out) { resample_rows<0>(rows, pitch, taps, columns, scale, shift, out); }
TINYSEG_CLONES void resample_rows_1(const float* rows, int pitch, const Taps& taps, Columns columns, float scale, float shift, const RowPlanes& out) { resample_rows<1>(rows, pitch, taps, columns, scale, shift, out); }
TINYSEG_CLONES void resample_rows_2(const float* rows, int pitch, const Taps& taps, Columns columns, float scale, float shift, const RowPlanes& out) { resample_rows<2>(rows, pitch, taps, columns, scale, shift, out); }
TINYSEG_CLONES void resample_rows_3(const float* rows, int pitch, const Taps& taps, Columns columns, float scale, float shift, const RowPlanes& out) { resample_rows<3>(rows, pitch, taps, columns, scale, shift, out); }
TINYSEG_CLONES void resample_rows_4(const float* rows, int pitch, const Taps& taps, Columns columns, float scale, float shift, const RowPlanes& out) { resample_rows<4>(rows, pitch, taps, columns, scale, shift, out); }
TINYSEG_CLONES void resample_rows_5(const float* rows, int pitch, const Taps& taps, Columns columns, float scale, float shift, const RowPlanes& out) { resample_rows<5>(rows, pitch, taps, columns, scale, shift, out); }
TINYSEG_CLONES void resample_rows_6(const float* rows, int pitch, const Taps& taps, Columns columns, float scale, float shift, const RowPlanes& out) { resample_rows<6>(rows, pitch, taps, columns, scale, shift, out); }
// Of ratios 2, 3, 3/2, 5/2 and 5/4: more weights than these need more registers than there are.
TINYSEG_CLONES int resample_periodic_4_1(const float* rows, const Taps& taps, float scale, float shift, const RowPlanes& out) { return resample_periodic<4, 1>(rows, taps, scale, shift, out); }
TINYSEG_CLONES int resample_periodic_5_1(const float* rows, const Taps& taps, float scale, float shift, const RowPlanes& out) { return resample_periodic<5, 1>(rows, taps, scale, shift, out); }
TINYSEG_CLONES int resample_periodic_3_2(const float* rows, const Taps& taps, float scale, float shift, const RowPlanes& out) { return resample_periodic<3, 2>(rows, taps, scale, shift, out); }
TINYSEG_CLONES int resample_periodic_5_2(const float* rows, const Taps& taps, float scale, float shift, const RowPlanes& out) { return resample_periodic<5, 2>(rows, taps, scale, shift, out); }
TINYSEG_CLONES int resample_periodic_3_4(const float* rows, const Taps& taps, float scale, float shift, const RowPlanes& out) { return resample_periodic<3, 4>(rows, taps, scale, shift, out); }
// clang-format on

ResampleRows resample_rows_for(int taps) {
  switch (taps) {
    case 1: return resample_rows_1;
    case 2: return resample_rows_2;
    case 3: return resample_rows_3;
    case 4: return resample_rows_4;
    case 5: return resample_rows_5;
    case 6: return resample_rows_6;
    default: return resample_rows_n;
  }
}

// nullptr where there is none for these weights.
ResamplePeriodic resample_periodic_for(const Taps& taps, int channels) {
  if (channels != 3) return nullptr;
  switch (10 * taps.count + taps.period) {
    case 41: return resample_periodic_4_1;
    case 51: return resample_periodic_5_1;
    case 32: return resample_periodic_3_2;
    case 52: return resample_periodic_5_2;
    case 34: return resample_periodic_3_4;
    default: return nullptr;
  }
}

uint16_t fixed(float weight) { return uint16_t(std::min(65535.0f, std::round(weight * 65536.0f))); }

// Rows that are not plain interleaved bytes (slices with steps, planar or transposed arrays) are gathered first.
const uint8_t* packed_row(const FrameView& frame, int y, uint8_t* gathered) {
  const uint8_t* row = frame.data + ptrdiff_t(y) * frame.row_stride;
  if (frame.column_stride == frame.channels && (frame.channels == 1 || frame.channel_stride == 1)) return row;
  uint8_t* out = gathered;
  for (int x = 0; x < frame.width; ++x)
    for (int c = 0; c < frame.channels; ++c)
      *out++ = row[x * frame.column_stride + c * frame.channel_stride];
  return gathered;
}

// The source rows of rows y and `next` of the output; those that pad them weigh nothing.
void collect(const FrameView& frame, const Taps& down, int y, int next, RowPair& pair) {
  const size_t n = size_t(frame.width) * frame.channels;
  const size_t taps = padded(down.count);
  pair.shift = down.first[next] - down.first[y];
  const size_t count = down.count + pair.shift;
  pair.rows.resize(taps + pair.shift);
  pair.gathered.resize(n * count);
  for (size_t k = 0; k < count; ++k) pair.rows[k] = packed_row(frame, down.first[y] + int(k), &pair.gathered[n * k]);
  for (size_t k = count; k < taps + pair.shift; ++k) pair.rows[k] = pair.rows[0];
  for (int r = 0; r < 2; ++r) {
    const float* weights = &down.weights[size_t(r == 0 ? y : next) * down.count];
    pair.weights[r].assign(taps, 0);
    for (int k = 0; k < down.count; ++k) pair.weights[r][k] = fixed(weights[k]);
  }
}

}  // namespace

void prepare(const FrameView& frame, const InputView& input, float mean, float std, FrameScratch& scratch) {
  const int n = frame.width * frame.channels;
  const size_t plane = size_t(input.height) * input.width;
  make_taps(frame.width, input.content_width, scratch.across);
  make_taps(frame.height, input.content_height, scratch.down);
  const Taps &across = scratch.across, &down = scratch.down;
  const int taps = padded(down.count);
  const ResampleRows resample = resample_rows_for(across.count);
  const ResamplePeriodic periodic = resample_periodic_for(across, frame.channels);
  std::vector<float>& accumulator = scratch.accumulator;
  accumulator.resize(2 * size_t(n) + 8);  // resample_rows reads a little past the last pixel
  std::fill(accumulator.end() - 8, accumulator.end(), 0.0f);
  RowPair& pair = scratch.pair;
  const float scale = 1.0f / (256.0f * std), shift = -mean / std;

  for (int y = 0; y < input.content_height; y += 2) {
    const int last = std::min(y + 1, input.content_height - 1);  // of an odd number, the last row is made twice
    collect(frame, down, y, last, pair);
    if (down.count == 1)
      widen_rows(pair.rows[0], pair.rows[pair.shift], accumulator.data(), n);
    else
      sum_rows_for(taps, pair.shift)(pair, taps, down.count / 2, accumulator.data(), n);

    float* red[2] = {input.data + size_t(y) * input.width, input.data + size_t(last) * input.width};
    RowPlanes planes;
    for (int c = 0; c < 3; ++c) {
      const size_t offset = plane * (frame.bgr ? 2 - c : c);
      planes.upper[c] = red[0] + offset;
      planes.lower[c] = red[1] + offset;
    }
    const float* rows = accumulator.data();
    const int pitch = 2 * frame.channels, width = input.content_width;
    if (periodic == nullptr) {
      resample(rows, pitch, across, {0, width}, scale, shift, planes);
    } else {
      resample(rows, pitch, across, {0, across.begin}, scale, shift, planes);
      const int made = periodic(rows, across, scale, shift, planes);
      resample(rows, pitch, across, {made, width}, scale, shift, planes);
    }
    for (float* first_plane : red) {
      const float* grey = first_plane + (frame.bgr ? 2 * plane : 0);
      for (float* row : {first_plane, first_plane + plane, first_plane + 2 * plane}) {
        // Of a grey frame, the other lanes held neighbouring pixels.
        if (frame.channels == 1 && row != grey) std::memcpy(row, grey, sizeof(float) * input.content_width);
        std::fill(row + input.content_width, row + input.width, 0.0f);
      }
    }
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
