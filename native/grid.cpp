#include "grid.hpp"

#include <algorithm>
#include <bitset>
#include <vector>

#include "simd.hpp"

namespace tinyseg {
namespace {

TINYSEG_CLONES
void count_row(const float* __restrict row, int n, float offset, int* __restrict counts) {
  int in = 0, above = 0, below = 0;
  for (int i = 0; i < n; ++i) {
    in += row[i] > 0.0f;
    above += row[i] > offset;
    below += row[i] > -offset;
  }
  counts[0] = in;
  counts[1] = above;
  counts[2] = below;
}

TINYSEG_CLONES
int64_t count_common(const uint64_t* __restrict a, const uint64_t* __restrict b, size_t words) {
  int64_t n = 0;
  for (size_t i = 0; i < words; ++i) n += int64_t(std::bitset<64>(a[i] & b[i]).count());
  return n;
}

float box_overlap(const float* a, const float* b) {
  const float width = std::min(a[2], b[2]) - std::max(a[0], b[0]);
  const float height = std::min(a[3], b[3]) - std::max(a[1], b[1]);
  if (!(width > 0.0f && height > 0.0f)) return 0.0f;
  const float common = width * height;
  const float all = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - common;
  return all > 0.0f ? common / all : 0.0f;
}

// As make_sampling in mask.cpp, for the samples [begin, end) of all `samples`.
void sample(int begin, int end, int samples, float content, int cells, std::vector<int>& cell,
            std::vector<float>& fraction) {
  cell.resize(end - begin);
  fraction.resize(end - begin);
  const double scale = double(content) / samples;
  for (int i = begin; i < end; ++i) {
    const double position = std::clamp((i + 0.5) * scale - 0.5, 0.0, double(cells - 1));
    cell[i - begin] = std::min(int(position), std::max(cells - 2, 0));
    fraction[i - begin] = float(position - cell[i - begin]);
  }
}

TINYSEG_CLONES
void blend(const float* __restrict a, const float* __restrict b, float f, float* __restrict out, int n) {
  for (int i = 0; i < n; ++i) out[i] = a[i] + f * (b[i] - a[i]);
}

TINYSEG_CLONES
int draw_row(const float* __restrict row, const int* __restrict cell, const float* __restrict fraction, int right,
             uint8_t* __restrict out, int n) {
  int area = 0;
  for (int x = 0; x < n; ++x) {
    const float a = row[cell[x]], b = row[cell[x] + right];
    const bool in = a + fraction[x] * (b - a) > 0.0f;
    out[x] = in;
    area += in;
  }
  return area;
}

}  // namespace

void grid_stats(const float* logits, size_t count, int rows, int columns, int content_rows, int content_columns,
                float offset, GridStats* stats) {
  for (size_t k = 0; k < count; ++k) {
    const float* mask = logits + k * size_t(rows) * columns;
    GridStats s{content_columns, 0, 0, 0, 0, 0, 0};
    for (int y = 0; y < content_rows; ++y) {
      const float* row = mask + size_t(y) * columns;
      int counts[3];
      count_row(row, content_columns, offset, counts);
      s.area_above += counts[1];
      s.area_below += counts[2];
      if (counts[0] == 0) continue;
      if (s.area == 0) s.y0 = y;
      s.y1 = y + 1;
      s.area += counts[0];
      int first = 0, last = content_columns - 1;
      while (first < s.x0 && !(row[first] > 0.0f)) ++first;  // no further than what other rows reached already
      while (last >= s.x1 && !(row[last] > 0.0f)) --last;
      s.x0 = std::min(s.x0, first);
      s.x1 = std::max(s.x1, last + 1);
    }
    if (s.area == 0) s.x0 = 0;
    stats[k] = s;
  }
}

void grid_stats_reference(const float* logits, size_t count, int rows, int columns, int content_rows,
                          int content_columns, float offset, GridStats* stats) {
  for (size_t k = 0; k < count; ++k) {
    GridStats s{0, 0, 0, 0, 0, 0, 0};
    for (int y = 0; y < content_rows; ++y) {
      for (int x = 0; x < content_columns; ++x) {
        const float value = logits[(k * rows + y) * columns + x];
        s.area_above += value > offset;
        s.area_below += value > -offset;
        if (!(value > 0.0f)) continue;
        const bool first = s.area == 0;
        s.x0 = first ? x : std::min(s.x0, x);
        s.y0 = first ? y : std::min(s.y0, y);
        s.x1 = first ? x + 1 : std::max(s.x1, x + 1);
        s.y1 = first ? y + 1 : std::max(s.y1, y + 1);
        ++s.area;
      }
    }
    stats[k] = s;
  }
}

void suppress(const float* boxes, const uint64_t* bits, const int32_t* areas, size_t count, size_t words,
              float box_iou, float mask_iou, uint8_t* keep) {
  std::vector<size_t> kept;
  for (size_t i = 0; i < count; ++i) {
    bool stays = true;
    for (size_t k = 0; k < kept.size() && stays; ++k) {
      const size_t j = kept[k];
      const float overlap = box_overlap(boxes + 4 * i, boxes + 4 * j);
      if (overlap > box_iou) stays = false;
      if (!stays || overlap <= 0.0f) continue;
      // No two sets overlap by more than the smaller one's share of the larger one.
      const float small = float(std::min(areas[i], areas[j])), large = float(std::max(areas[i], areas[j]));
      if (!(small > mask_iou * large)) continue;
      const float common = float(count_common(bits + i * words, bits + j * words, words));
      if (common > mask_iou * (small + large - common)) stays = false;
    }
    keep[i] = stays;
    if (stays) kept.push_back(i);
  }
}

void suppress_reference(const float* boxes, const uint64_t* bits, const int32_t* areas, size_t count, size_t words,
                        float box_iou, float mask_iou, uint8_t* keep) {
  for (size_t i = 0; i < count; ++i) {
    keep[i] = 1;
    for (size_t j = 0; j < i; ++j) {
      if (!keep[j]) continue;
      if (box_overlap(boxes + 4 * i, boxes + 4 * j) > box_iou) keep[i] = 0;
      int64_t common = 0;
      for (size_t w = 0; w < words; ++w) {
        for (int b = 0; b < 64; ++b) common += (bits[i * words + w] >> b) & (bits[j * words + w] >> b) & 1;
      }
      const float all = float(areas[i]) + float(areas[j]) - float(common);
      if (common > 0 && float(common) > mask_iou * all) keep[i] = 0;
    }
  }
}

MaskStats threshold_window(const float* logits, int rows, int columns, const MaskPlacement& place,
                           const Window& window, uint8_t* mask) {
  MaskStats stats;
  const int width = window.x1 - window.x0, height = window.y1 - window.y0;
  std::vector<int> across, down;
  std::vector<float> across_fraction, down_fraction, row(columns);
  sample(window.x0 - place.x0, window.x1 - place.x0, place.x1 - place.x0, place.content_width, columns, across,
         across_fraction);
  sample(window.y0 - place.y0, window.y1 - place.y0, place.y1 - place.y0, place.content_height, rows, down,
         down_fraction);
  const int right = columns > 1 ? 1 : 0, below = rows > 1 ? columns : 0;
  const int first_cell = across.front(), cells = across.back() + right - first_cell + 1;
  for (int& cell : across) cell -= first_cell;
  int min_x = width, max_x = -1, min_y = -1, max_y = -1;
  for (int y = 0; y < height; ++y) {
    const float* top = logits + size_t(down[y]) * columns + first_cell;
    blend(top, top + below, down_fraction[y], row.data(), cells);
    uint8_t* line = mask + size_t(y) * width;
    const int area = draw_row(row.data(), across.data(), across_fraction.data(), right, line, width);
    if (area == 0) continue;
    stats.area += area;
    if (min_y < 0) min_y = y;
    max_y = y;
    int first = 0, last = width - 1;
    while (first < min_x && !line[first]) ++first;
    while (last > max_x && !line[last]) --last;
    min_x = std::min(min_x, first);
    max_x = std::max(max_x, last);
  }
  if (max_x >= 0) {
    stats.x0 = window.x0 + min_x;
    stats.y0 = window.y0 + min_y;
    stats.x1 = window.x0 + max_x + 1;
    stats.y1 = window.y0 + max_y + 1;
  }
  return stats;
}

}  // namespace tinyseg
