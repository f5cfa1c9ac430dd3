#include "mask.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "simd.hpp"

namespace tinyseg {
namespace {

void make_sampling(int samples, float content, int cells, Sampling& s) {
  s.cell.resize(samples);
  s.fraction.resize(samples);
  const double scale = double(content) / samples;  // finite, as the callers' contract says
  for (int i = 0; i < samples; ++i) {
    const double position = std::clamp((i + 0.5) * scale - 0.5, 0.0, double(cells - 1));
    const int cell = std::min(int(position), std::max(cells - 2, 0));
    s.cell[i] = cell;
    s.fraction[i] = float(position - cell);
  }
}

// a + f * (b - a) for a whole grid row.
TINYSEG_CLONES
void blend_rows(const float* __restrict a, const float* __restrict b, float f, float* __restrict out, int n) {
  for (int i = 0; i < n; ++i) out[i] = a[i] + f * (b[i] - a[i]);
}

enum Kind : uint8_t { kOut, kIn, kMixed };

void make_spans(const Sampling& s, std::vector<Span>& spans) {
  spans.clear();
  for (int x = 0; x < int(s.cell.size()); ++x) {
    if (spans.empty() || spans.back().cell != s.cell[x]) spans.push_back({x, x + 1, s.cell[x], kMixed});
    else spans.back().end = x + 1;
  }
}

// Interpolation stays between its four corners. Where all of them are clearly in or out, so is every pixel between, for
// all frame rows between these two grid rows: most of a mask is filled without looking. A logit that is no number makes
// every comparison false: whatever it touches is looked at, and is out.
void classify(const std::vector<Span>& spans, const float* top, const float* bottom, int right, float offset,
              std::vector<Span>& runs) {
  runs.clear();
  for (const Span& span : spans) {
    const float a = top[span.cell], b = top[span.cell + right], c = bottom[span.cell], d = bottom[span.cell + right];
    const bool in = a > offset && b > offset && c > offset && d > offset;
    const bool out = a <= -offset && b <= -offset && c <= -offset && d <= -offset;
    const Kind kind = in ? kIn : (out ? kOut : kMixed);
    if (kind != kMixed && !runs.empty() && runs.back().kind == kind) runs.back().end = span.end;
    else runs.push_back({span.begin, span.end, span.cell, kind});
  }
}

TINYSEG_CLONES
void mixed_span(float a, float b, const float* __restrict fraction, int n, float offset, uint8_t* __restrict out,
                int* __restrict counts) {
  int in = 0, above = 0, below = 0;
  for (int i = 0; i < n; ++i) {
    const float v = a + fraction[i] * (b - a);
    out[i] = v > 0.0f;
    in += v > 0.0f;
    above += v > offset;
    below += v > -offset;
  }
  counts[0] = in;
  counts[1] = above;
  counts[2] = below;
}

}  // namespace

MaskStats threshold(const float* logits, int rows, int columns, const MaskPlacement& place, float offset,
                    uint8_t* mask, MaskScratch& scratch) {
  MaskStats stats;
  const int width = place.x1 - place.x0, height = place.y1 - place.y0;
  const Sampling &across = scratch.across, &down = scratch.down;
  make_sampling(width, place.content_width, columns, scratch.across);
  make_sampling(height, place.content_height, rows, scratch.down);
  std::vector<Span>&spans = scratch.spans, &runs = scratch.runs;
  spans.reserve(columns);  // as many as there can be, so that no later frame grows them
  runs.reserve(columns);
  make_spans(across, spans);
  const int right = columns > 1 ? 1 : 0, below_row = rows > 1 ? columns : 0;
  std::vector<float>& row = scratch.row;
  row.resize(columns);
  int classified = -1;
  int min_x = width, max_x = -1, min_y = -1, max_y = -1;

  if (place.y0 > 0) std::memset(mask, 0, size_t(place.y0) * place.frame_width);
  for (int y = 0; y < height; ++y) {
    const float* top = logits + size_t(down.cell[y]) * columns;
    blend_rows(top, top + below_row, down.fraction[y], row.data(), columns);
    uint8_t* line = mask + size_t(place.y0 + y) * place.frame_width;
    if (place.x0 > 0) std::memset(line, 0, place.x0);
    if (place.x1 < place.frame_width) std::memset(line + place.x1, 0, place.frame_width - place.x1);
    line += place.x0;

    if (down.cell[y] != classified) {
      classified = down.cell[y];
      classify(spans, top, top + below_row, right, offset, runs);
    }
    int first = -1, last = -1;
    for (const Span& run : runs) {
      const int n = run.end - run.begin;
      if (run.kind == kOut) {
        std::memset(line + run.begin, 0, n);
      } else if (run.kind == kIn) {
        std::memset(line + run.begin, 1, n);
        stats.area += n;
        stats.area_above += n;
        stats.area_below += n;
        if (first < 0) first = run.begin;
        last = run.end - 1;
      } else {
        int counts[3];
        mixed_span(row[run.cell], row[run.cell + right], &across.fraction[run.begin], n, offset, line + run.begin,
                   counts);
        stats.area += counts[0];
        stats.area_above += counts[1];
        stats.area_below += counts[2];
        if (counts[0] > 0) {
          if (first < 0) {
            first = run.begin;
            while (!line[first]) ++first;
          }
          last = run.end - 1;
          while (!line[last]) --last;
        }
      }
    }
    if (first >= 0) {
      min_x = std::min(min_x, first);
      max_x = std::max(max_x, last);
      if (min_y < 0) min_y = y;
      max_y = y;
    }
  }
  const int bottom = place.frame_height - place.y1;
  if (bottom > 0) std::memset(mask + size_t(place.y1) * place.frame_width, 0, size_t(bottom) * place.frame_width);
  if (max_x >= 0) {
    stats.x0 = place.x0 + min_x;
    stats.y0 = place.y0 + min_y;
    stats.x1 = place.x0 + max_x + 1;
    stats.y1 = place.y0 + max_y + 1;
  }
  return stats;
}

MaskStats threshold_reference(const float* logits, int rows, int columns, const MaskPlacement& place, float offset,
                              uint8_t* mask) {
  MaskStats stats;
  bool empty = true;
  for (int y = 0; y < place.frame_height; ++y) {
    for (int x = 0; x < place.frame_width; ++x) {
      uint8_t& out = mask[size_t(y) * place.frame_width + x];
      out = 0;
      if (x < place.x0 || x >= place.x1 || y < place.y0 || y >= place.y1) continue;
      const double gx = (x - place.x0 + 0.5) * double(place.content_width) / (place.x1 - place.x0) - 0.5;
      const double gy = (y - place.y0 + 0.5) * double(place.content_height) / (place.y1 - place.y0) - 0.5;
      const double cx = std::clamp(gx, 0.0, columns - 1.0), cy = std::clamp(gy, 0.0, rows - 1.0);
      const int ix = int(cx), iy = int(cy);
      const int jx = std::min(ix + 1, columns - 1), jy = std::min(iy + 1, rows - 1);
      const double fx = cx - ix, fy = cy - iy;
      const double top = logits[iy * columns + ix] * (1 - fx) + logits[iy * columns + jx] * fx;
      const double bottom = logits[jy * columns + ix] * (1 - fx) + logits[jy * columns + jx] * fx;
      const float value = float(top * (1 - fy) + bottom * fy);
      stats.area_above += value > offset;
      stats.area_below += value > -offset;
      if (!(value > 0.0f)) continue;
      out = 1;
      ++stats.area;
      stats.x0 = empty ? x : std::min(stats.x0, x);
      stats.y0 = empty ? y : std::min(stats.y0, y);
      stats.x1 = empty ? x + 1 : std::max(stats.x1, x + 1);
      stats.y1 = empty ? y + 1 : std::max(stats.y1, y + 1);
      empty = false;
    }
  }
  return stats;
}

TINYSEG_CLONES
static void spread_row(const float* __restrict row, const int* __restrict cell, const float* __restrict fraction,
                       int right, float* __restrict out, int n) {
  for (int x = 0; x < n; ++x) {
    const float a = row[cell[x]], b = row[cell[x] + right];
    out[x] = a + fraction[x] * (b - a);
  }
}

void upsample(const float* logits, int rows, int columns, const MaskPlacement& place, float outside, float* out) {
  const int width = place.x1 - place.x0, height = place.y1 - place.y0;
  Sampling across, down;
  make_sampling(width, place.content_width, columns, across);
  make_sampling(height, place.content_height, rows, down);
  std::vector<float> row(columns);
  std::fill(out, out + size_t(place.y0) * place.frame_width, outside);
  for (int y = 0; y < height; ++y) {
    const float* top = logits + size_t(down.cell[y]) * columns;
    blend_rows(top, top + (rows > 1 ? columns : 0), down.fraction[y], row.data(), columns);
    float* line = out + size_t(place.y0 + y) * place.frame_width;
    std::fill(line, line + place.x0, outside);
    spread_row(row.data(), across.cell.data(), across.fraction.data(), columns > 1 ? 1 : 0, line + place.x0, width);
    std::fill(line + place.x1, line + place.frame_width, outside);
  }
  std::fill(out + size_t(place.y1) * place.frame_width, out + size_t(place.frame_height) * place.frame_width, outside);
}

}  // namespace tinyseg
