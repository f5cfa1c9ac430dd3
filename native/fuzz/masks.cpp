// threshold() and upsample() on any logits (NaN and infinities too), any grid, any placement: what was counted is what was
// written, and nothing beyond the arrays is touched (the address sanitizer looks).
#include <vector>

#include "../mask.hpp"
#include "bytes.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes in{data, size};
  const int rows = in.between(1, 24), columns = in.between(1, 24);
  tinyseg::MaskPlacement place{};
  place.frame_height = in.between(1, 96);
  place.frame_width = in.between(1, 96);
  place.x0 = in.between(0, place.frame_width - 1);
  place.y0 = in.between(0, place.frame_height - 1);
  place.x1 = in.between(place.x0 + 1, place.frame_width);
  place.y1 = in.between(place.y0 + 1, place.frame_height);
  place.content_height = in.positive();
  place.content_width = in.positive();
  const bool ordinary = in.take<uint8_t>() & 1;  // logits near 0, as decoders give them
  const float offset = in.positive();
  std::vector<float> logits(size_t(rows) * columns);
  for (float& v : logits) v = ordinary ? float(in.take<int8_t>()) / 8.0f : in.take<float>();

  static tinyseg::MaskScratch scratch;  // that calls of other sizes have used
  for (const bool fast : {true, false}) {
    std::vector<uint8_t> mask(size_t(place.frame_height) * place.frame_width, 7);
    const tinyseg::MaskStats s =
        fast ? tinyseg::threshold(logits.data(), rows, columns, place, offset, mask.data(), scratch)
             : tinyseg::threshold_reference(logits.data(), rows, columns, place, offset, mask.data());
    int64_t area = 0;
    int x0 = place.frame_width, y0 = place.frame_height, x1 = 0, y1 = 0;
    for (int y = 0; y < place.frame_height; ++y) {
      for (int x = 0; x < place.frame_width; ++x) {
        const uint8_t v = mask[size_t(y) * place.frame_width + x];
        check(v <= 1, "a pixel is neither in nor out");
        if (!v) continue;
        check(x >= place.x0 && x < place.x1 && y >= place.y0 && y < place.y1, "a pixel outside the region is in");
        ++area;
        x0 = x < x0 ? x : x0;
        y0 = y < y0 ? y : y0;
        x1 = x + 1 > x1 ? x + 1 : x1;
        y1 = y + 1 > y1 ? y + 1 : y1;
      }
    }
    check(s.area == area, "the area is not the mask's");
    check(s.area_above <= area && area <= s.area_below, "areas do not fall as the threshold rises");
    check(area == 0 ? s.x1 == 0 && s.y1 == 0 : s.x0 == x0 && s.y0 == y0 && s.x1 == x1 && s.y1 == y1, "the box is off");
  }
  std::vector<float> out(size_t(place.frame_height) * place.frame_width);
  tinyseg::upsample(logits.data(), rows, columns, place, -16.0f, out.data());
  return 0;
}
