#include "resample.hpp"

#include <algorithm>
#include <cmath>

#include "simd.hpp"

namespace tinyseg {
namespace {

// source cell = a * target cell + b along an axis.
struct Line {
  double a, b;
};

Line grid_line(double source_scale, double target_scale, int source_start, int target_start) {
  const double a = source_scale / target_scale;
  const double offset = (target_start - source_start) * source_scale / kLogitStride;
  return {a, offset + 0.5 * a - 0.5};
}

int clamped(int i, int count) { return std::min(std::max(i, 0), count - 1); }

// Beyond the outermost cells only their values are repeated, however far.
float inside(float position, int count) { return std::min(std::max(position, -1.0f), float(count)); }

// Mean over a window of width x height cells whose centre (rounded down) is the cell, the border repeated. Sums run along
// rows and columns, so the cost does not depend on the window.
void average(const float* in, int rows, int columns, int width, int height, ResampleScratch& s) {
  s.averaged.resize(size_t(rows) * columns);
  s.sums.resize(size_t(rows) * columns);
  s.running.assign(columns, 0.0);
  const int left = width / 2, top = height / 2;
  for (int y = 0; y < rows; ++y) {
    const float* row = in + size_t(y) * columns;
    double* sums = &s.sums[size_t(y) * columns];
    const auto at = [&](int x) { return double(row[clamped(x - left, columns)]); };
    if (width == 3 || width == 5) {  // short sums are taken afresh, in order
      for (int x = 0; x < columns; ++x) {
        double sum = at(x);
        for (int k = 1; k < width; ++k) sum += at(x + k);
        sums[x] = sum;
      }
      continue;
    }
    double sum = 0.0;
    for (int k = 0; k < width; ++k) sum += at(k);
    sums[0] = sum;
    for (int x = 1; x < columns; ++x) sums[x] = sum += at(x + width - 1) - at(x - 1);
  }
  const auto row_at = [&](int y) { return &s.sums[size_t(clamped(y - top, rows)) * columns]; };
  for (int k = 0; k + 1 < height; ++k) {
    const double* row = row_at(k);
    for (int x = 0; x < columns; ++x) s.running[x] += row[x];
  }
  const double scale = 1.0 / (double(width) * height);
  for (int y = 0; y < rows; ++y) {
    const double *entering = row_at(y + height - 1), *leaving = row_at(y);
    float* out = &s.averaged[size_t(y) * columns];
    for (int x = 0; x < columns; ++x) {
      const double sum = s.running[x] + entering[x];
      out[x] = float(sum * scale);
      s.running[x] = sum - leaving[x];
    }
  }
}

TINYSEG_CLONES
void blend_columns(const float* row, const int* left, const float* fraction, int last, float* __restrict out, int n) {
  for (int x = 0; x < n; ++x) {
    const float a = row[std::min(std::max(left[x], 0), last)], b = row[std::min(std::max(left[x] + 1, 0), last)];
    out[x] = std::fma(fraction[x], b - a, a);
  }
}

TINYSEG_CLONES
void blend_rows(const float* upper, const float* lower, float fraction, float* __restrict out, int n) {
  for (int x = 0; x < n; ++x) out[x] = std::fma(fraction, lower[x] - upper[x], upper[x]);
}

}  // namespace

void resample_grid(const float* logits, const View& source, const View& target, float* out, ResampleScratch& s) {
  const Line across = grid_line(source.scale_x(), target.scale_x(), source.region.x0, target.region.x0);
  const Line down = grid_line(source.scale_y(), target.scale_y(), source.region.y0, target.region.y0);
  const int source_rows = source.rows(), source_columns = source.columns();
  const int rows = target.rows(), columns = target.columns();
  if (std::max(across.a, down.a) > 1.5) {
    const auto window = [](double a) { return std::max(1, int(std::nearbyint(a))); };
    average(logits, source_rows, source_columns, window(across.a), window(down.a), s);
    logits = s.averaged.data();
  }
  s.left.resize(columns);
  s.fraction.resize(columns);
  s.upper.resize(columns);
  s.lower.resize(columns);
  for (int x = 0; x < columns; ++x) {
    const float position = inside(std::fma(float(x), float(across.a), float(across.b)), source_columns);
    const float left = std::floor(position);
    s.left[x] = int(left);
    s.fraction[x] = position - left;
  }
  // Cells whose centre the source saw.
  const Point from = to_model(target, source.region.x0, source.region.y0);
  const Point to = to_model(target, source.region.x1, source.region.y1);
  const auto seen = [](int i, float low, float high) {
    return i + 0.5 >= low / kLogitStride && i + 0.5 <= high / kLogitStride;
  };
  int begin = 0, end = columns;
  while (begin < end && !seen(begin, from.x, to.x)) ++begin;
  while (end > begin && !seen(end - 1, from.x, to.x)) --end;

  bool blended = false;
  int above = 0;  // the source row in s.upper; s.lower holds the next one
  const float a = float(down.a), b = float(down.b);
  for (int y = 0; y < rows; ++y) {
    float* line = out + size_t(y) * columns;
    if (!seen(y, from.y, to.y)) {
      std::fill(line, line + columns, kOutsideLogit);
      continue;
    }
    const float position = inside(float(y) * a + b, source_rows);
    const float top = std::floor(position);
    const int row = int(top);
    if (!blended || row != above) {
      const auto blend = [&](int r, std::vector<float>& into) {
        blend_columns(logits + size_t(clamped(r, source_rows)) * source_columns, s.left.data(), s.fraction.data(),
                      source_columns - 1, into.data(), columns);
      };
      if (blended && row == above + 1) std::swap(s.upper, s.lower);
      else blend(row, s.upper);
      blend(row + 1, s.lower);
      blended = true;
      above = row;
    }
    blend_rows(s.upper.data(), s.lower.data(), position - top, line, columns);
    std::fill(line, line + begin, kOutsideLogit);
    std::fill(line + end, line + columns, kOutsideLogit);
  }
}

}  // namespace tinyseg
