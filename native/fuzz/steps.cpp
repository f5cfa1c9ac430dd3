// What lies between the engines: any frame, region, prompt and logits. Views fit their inputs, crops lie in their frames, laid out
// points in their content, resampled logits between their source's, and nothing beyond the arrays is touched (the address
// sanitizer looks).
#include <algorithm>
#include <vector>

#include "../answer.hpp"
#include "../geometry.hpp"
#include "../prompt.hpp"
#include "../resample.hpp"
#include "../specks.hpp"
#include "bytes.hpp"

using namespace tinyseg;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes in{data, size};
  const Size frame{in.between(1, 3000), in.between(1, 3000)};
  const View view = letterbox(frame, {0, 0, frame.width, frame.height}, 32 * in.between(1, 6), false);
  check(view.content.width <= view.input.width && view.content.height <= view.input.height, "content does not fit its input");

  const auto position = [&] { return double(in.take<int16_t>()) / 8; };
  const Box asked{position(), position(), position(), position()};
  const Region crop = crop_around(asked, in.positive(), frame, kLeastCropSide);
  check(0 <= crop.x0 && crop.x0 < crop.x1 && crop.x1 <= frame.width && 0 <= crop.y0 && crop.y0 < crop.y1 && crop.y1 <= frame.height,
        "a crop leaves its frame");
  const View look = letterbox(frame, crop, 32 * in.between(1, 4), true);

  std::vector<double> points, labels;
  for (int i = in.between(0, 6); i > 0; --i) {
    points.insert(points.end(), {position(), position()});
    labels.push_back(in.between(0, 1));
  }
  Prompt prompt{points.data(), labels.data(), labels.size(), false, {}};
  prompt.has_box = asked.x0 < asked.x1 && asked.y0 < asked.y1 && cut_box(asked, view.region, &prompt.box);
  std::vector<float> slots(2 * 8), marks(8);
  for (const View& seen : {view, look}) {
    lay_out(prompt, view, seen, slots.data(), marks.data(), marks.size());
    for (size_t i = 0; i < marks.size(); ++i) {
      check(slots[2 * i] >= 0 && slots[2 * i] <= float(seen.content.width), "a point lies outside the content");
      check(slots[2 * i + 1] >= 0 && slots[2 * i + 1] <= float(seen.content.height), "a point lies outside the content");
      check(marks[i] >= kLabelPadding && marks[i] <= kLabelBottomRight, "a label is none");
    }
  }

  const size_t cells = size_t(view.rows()) * view.columns();
  std::vector<float> logits(kMasks * cells), clean(cells), other(size_t(look.rows()) * look.columns());
  for (float& v : logits) v = float(in.take<int8_t>()) / 8.0f;
  std::vector<ClickedCell> clicks;
  for (size_t i = 0; i < labels.size(); ++i) {
    ClickedCell cell;
    if (!clicked_cell(view, points[2 * i], points[2 * i + 1], labels[i], &cell)) continue;
    check(cell.row >= 0 && cell.row < view.rows() && cell.column >= 0 && cell.column < view.columns(), "a click lies off the grid");
    clicks.push_back(cell);
  }
  static SpeckScratch specks;
  if (without_specks(logits.data(), view.rows(), view.columns(), clicks.data(), clicks.size(), clean.data(), specks))
    for (size_t i = 0; i < cells; ++i) check(clean[i] == logits[i] || clean[i] == -logits[i], "a logit has another size");
  static HintScratch hints;
  lay_out_hint(logits.data(), view, look, other.data(), hints);
  for (const float v : other) check(v >= -kHintLimit && v <= kHintLimit, "a hint leaves its limits");
  int chosen[kReadings];
  choose_readings(logits.data(), cells, chosen);
  check(std::count(chosen, chosen + kReadings, 0) == 1, "mask 0 is not one of the readings");
  return 0;
}
