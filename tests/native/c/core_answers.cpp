// What the core makes of a frame and of logits, for a processor that Python's build of it is not for.
//   core_answers FRAME LOGITS OUT     FRAME: 3 bytes a pixel, BGR; LOGITS: float32 on the frame's grid
// The view is of the whole frame at 256, the second one a crop of it. OUT: the input (float32), the mask (bytes), seven int64
// of its statistics, the logits without specks, and those on the crop's grid (float32).
#include <cstdio>
#include <vector>

#include "../../../native/frame.hpp"
#include "../../../native/geometry.hpp"
#include "../../../native/mask.hpp"
#include "../../../native/resample.hpp"
#include "../../../native/specks.hpp"

namespace {

template <typename T>
std::vector<T> read(const char* path, size_t count) {
  std::vector<T> values(count);
  std::FILE* file = std::fopen(path, "rb");
  if (!file || std::fread(values.data(), sizeof(T), count, file) != count) values.clear();
  if (file) std::fclose(file);
  return values;
}

template <typename T>
void write(std::FILE* file, const std::vector<T>& values) {
  std::fwrite(values.data(), sizeof(T), values.size(), file);
}

}  // namespace

int main(int argc, char** argv) {
  using namespace tinyseg;
  constexpr int kWidth = 451, kHeight = 300;
  const View view = letterbox({kWidth, kHeight}, {0, 0, kWidth, kHeight}, 256, false);
  const View crop = letterbox({kWidth, kHeight}, {100, 50, 260, 210}, 256, true);
  const size_t cells = size_t(view.rows()) * view.columns();
  if (argc != 4) return 2;
  const auto frame = read<uint8_t>(argv[1], size_t(kWidth) * kHeight * 3);
  const auto logits = read<float>(argv[2], cells);
  std::FILE* out = std::fopen(argv[3], "wb");
  if (frame.empty() || logits.empty() || !out) return 1;

  std::vector<float> input(size_t(3) * view.input.width * view.input.height);
  FrameScratch frames;
  prepare({frame.data(), kWidth * 3, 3, 1, kHeight, kWidth, 3, true},
          {input.data(), view.input.height, view.input.width, view.content.height, view.content.width}, kMean, kStd, frames);
  write(out, input);

  std::vector<uint8_t> mask(size_t(kWidth) * kHeight);
  MaskScratch masks;
  const MaskStats s = threshold(logits.data(), view.rows(), view.columns(), placement(view), 1.0f, mask.data(), masks);
  write(out, mask);
  write(out, std::vector<int64_t>{s.x0, s.y0, s.x1, s.y1, s.area, s.area_above, s.area_below});

  std::vector<float> clean(cells), seen(size_t(crop.rows()) * crop.columns());
  SpeckScratch specks;
  if (!without_specks(logits.data(), view.rows(), view.columns(), nullptr, 0, clean.data(), specks)) clean = logits;
  write(out, clean);
  ResampleScratch scratch;
  resample_grid(logits.data(), view, crop, seen.data(), scratch);
  write(out, seen);
  return std::fclose(out) == 0 ? 0 : 1;
}
