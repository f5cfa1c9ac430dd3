// The core for browsers: the functions of this folder behind plain C calls, compiled to WebAssembly by scripts/web.
// web/src/core.js calls them. Pointers lie in the module's own memory. It runs on one thread, so scratch memory is kept.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "answer.hpp"
#include "frame.hpp"
#include "geometry.hpp"
#include "grid.hpp"
#include "mask.hpp"
#include "prompt.hpp"
#include "resample.hpp"
#include "specks.hpp"

#define TINYSEG_WEB(name) extern "C" __attribute__((export_name(#name)))

namespace {

using namespace tinyseg;

static_assert(sizeof(View) == 10 * sizeof(int32_t), "core.js reads a View as ten integers");
static_assert(sizeof(Box) == 4 * sizeof(double), "core.js reads a Box as four doubles");
static_assert(sizeof(GridStats) == 7 * sizeof(int32_t), "core.js reads GridStats as seven integers");

// points (count, 2) and labels (count,); box is null where there is none.
Prompt prompt_of(const double* points, const double* labels, int count, const Box* box) {
  return {points, labels, size_t(count), box != nullptr, box ? *box : Box{}};
}

// x0, y0, x1, y1, area, area_above, area_below
void write_stats(const MaskStats& stats, int32_t* out) {
  const int64_t values[] = {stats.x0, stats.y0, stats.x1, stats.y1, stats.area, stats.area_above, stats.area_below};
  for (int i = 0; i < 7; ++i) out[i] = int32_t(values[i]);
}

}  // namespace

TINYSEG_WEB(allocate) void* allocate(size_t bytes) { return std::malloc(bytes); }
TINYSEG_WEB(release) void release(void* memory) { std::free(memory); }

TINYSEG_WEB(letterbox)
void web_letterbox(int width, int height, const Region* region, int long_side, int square, View* out) {
  *out = letterbox({width, height}, *region, long_side, square != 0);
}

// rows: the RGBA rows of the view's region, whole rows of the frame; out (3, input height, input width).
TINYSEG_WEB(prepare) void web_prepare(const uint8_t* rows, const View* view, float* out) {
  static FrameScratch scratch;
  const Region& r = view->region;
  const FrameView frame{rows + 4 * ptrdiff_t(r.x0), 4 * ptrdiff_t(view->frame.width), 4, 1, r.y1 - r.y0, r.x1 - r.x0, 4,
                        false};
  const InputView input{out, view->input.height, view->input.width, view->content.height, view->content.width};
  prepare(frame, input, kMean, kStd, scratch);
}

TINYSEG_WEB(second_look)
int web_second_look(const Box* box, const View* view, int side, double factor, double below, View* out) {
  return second_look(*box, *view, {side, factor, below}, out);
}

// The first point outside the view's region, -1 if there is none.
TINYSEG_WEB(outside_point) int web_outside_point(const double* points, int count, const View* view) {
  return int(outside_point(prompt_of(points, nullptr, count, nullptr), view->region));
}

// Cuts a box to the view's region, in place; 0 where nothing remains.
TINYSEG_WEB(cut_box) int web_cut_box(Box* box, const View* view) { return cut_box(*box, view->region, box); }

TINYSEG_WEB(prompted_box)
int web_prompted_box(const double* points, const double* labels, int count, const Box* box, Box* out) {
  return prompted_box(prompt_of(points, labels, count, box), out);
}

// points_out (slots, 2), labels_out (slots,); slots hold count + 2.
TINYSEG_WEB(lay_out)
void web_lay_out(const double* points, const double* labels, int count, const Box* box, const View* frame,
                 const View* view, float* points_out, float* labels_out, int slots) {
  lay_out(prompt_of(points, labels, count, box), *frame, *view, points_out, labels_out, size_t(slots));
}

TINYSEG_WEB(lay_out_hint)
void web_lay_out_hint(const float* logits, const View* frame, const View* view, float* out) {
  static HintScratch scratch;
  lay_out_hint(logits, *frame, *view, out, scratch);
}

TINYSEG_WEB(choose_readings) void web_choose_readings(const float* logits, int cells, int32_t* chosen) {
  int found[kReadings];
  choose_readings(logits, size_t(cells), found);
  for (int i = 0; i < kReadings; ++i) chosen[i] = found[i];
}

TINYSEG_WEB(add_first_look) void web_add_first_look(const float* first, float* second, int cells) {
  add_first_look(first, second, size_t(cells));
}

TINYSEG_WEB(all_finite) int web_all_finite(const float* values, int count) { return all_finite(values, size_t(count)); }

TINYSEG_WEB(resample) void web_resample(const float* logits, const View* source, const View* target, float* out) {
  static ResampleScratch scratch;
  resample_grid(logits, *source, *target, out, scratch);
}

// logits (rows, columns) of a view, in place; 1 where something was taken out.
TINYSEG_WEB(without_specks)
int web_without_specks(float* logits, const View* view, const double* points, const double* labels, int count) {
  static SpeckScratch scratch;
  static std::vector<ClickedCell> cells;
  static std::vector<float> out;
  cells.clear();
  ClickedCell cell;
  for (int i = 0; i < count; ++i)
    if (clicked_cell(*view, points[2 * i], points[2 * i + 1], labels[i], &cell)) cells.push_back(cell);
  const size_t n = size_t(view->rows()) * view->columns();
  out.resize(n);
  if (!without_specks(logits, view->rows(), view->columns(), cells.data(), cells.size(), out.data(), scratch)) return 0;
  std::copy(out.begin(), out.end(), logits);
  return 1;
}

// mask (frame height, frame width); stats as write_stats() says.
TINYSEG_WEB(threshold) void web_threshold(const float* logits, const View* view, float offset, uint8_t* mask,
                                          int32_t* stats) {
  static MaskScratch scratch;
  write_stats(threshold(logits, view->rows(), view->columns(), placement(*view), offset, mask, scratch), stats);
}

// mask (window height, window width)
TINYSEG_WEB(threshold_window)
void web_threshold_window(const float* logits, const View* view, const Window* window, uint8_t* mask, int32_t* stats) {
  write_stats(threshold_window(logits, view->rows(), view->columns(), placement(*view), *window, mask), stats);
}

// logits (count, rows, columns); stats (count, 7), counted where the view's content lies.
TINYSEG_WEB(grid_stats) void web_grid_stats(const float* logits, int count, const View* view, float offset,
                                            GridStats* stats) {
  const int rows = (view->content.height + kLogitStride - 1) / kLogitStride;
  const int columns = (view->content.width + kLogitStride - 1) / kLogitStride;
  grid_stats(logits, size_t(count), view->rows(), view->columns(), rows, columns, offset, stats);
}

// boxes (count, 4); logits (count, rows, columns) of a view; keep (count) is written: 1 or 0.
TINYSEG_WEB(suppress)
void web_suppress(const float* boxes, const float* logits, int count, const View* view, float box_iou, float mask_iou,
                  uint8_t* keep) {
  const size_t cells = size_t(view->rows()) * view->columns(), words = (cells + 63) / 64;
  const int rows = (view->content.height + kLogitStride - 1) / kLogitStride;
  const int columns = (view->content.width + kLogitStride - 1) / kLogitStride;
  std::vector<uint64_t> bits(count * words, 0);
  std::vector<int32_t> areas(count, 0);
  for (int i = 0; i < count; ++i) {
    const float* one = logits + i * cells;
    for (int y = 0; y < rows; ++y) {
      for (int x = 0; x < columns; ++x) {
        const size_t cell = size_t(y) * view->columns() + x;
        if (!(one[cell] > 0.0f)) continue;
        bits[i * words + cell / 64] |= uint64_t(1) << (cell % 64);
        ++areas[i];
      }
    }
  }
  suppress(boxes, bits.data(), areas.data(), size_t(count), words, box_iou, mask_iou, keep);
}
