// prepare() on frames of any size, stride and channel count: every value of the input is written and in range, and nothing
// beyond the arrays is touched (the address sanitizer looks).
#include <vector>

#include "../frame.hpp"
#include "bytes.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Bytes in{data, size};
  static const int kChannels[] = {1, 3, 4};
  const int height = in.between(1, 80), width = in.between(1, 80), channels = kChannels[in.between(0, 2)];
  const int step = in.between(1, 3);
  const uint8_t flags = in.take<uint8_t>();
  const bool planar = flags & 1, flip = flags & 2, bgr = flags & 4;
  const int input_height = in.between(1, 64), input_width = in.between(1, 64);
  const int content_height = in.between(1, input_height), content_width = in.between(1, input_width);

  std::vector<uint8_t> pixels(size_t(height) * step * width * step * channels);
  for (uint8_t& p : pixels) p = in.take<uint8_t>();
  tinyseg::FrameView frame{pixels.data(), 0, 0, 0, height, width, channels, bgr};
  frame.channel_stride = planar ? ptrdiff_t(height) * step * width * step : 1;
  frame.column_stride = ptrdiff_t(step) * (planar ? 1 : channels);
  frame.row_stride = ptrdiff_t(step) * width * step * (planar ? 1 : channels);
  if (flip) {
    frame.data += (height - 1) * frame.row_stride + (width - 1) * frame.column_stride;
    frame.row_stride = -frame.row_stride;
    frame.column_stride = -frame.column_stride;
  }
  std::vector<float> out(size_t(3) * input_height * input_width), expected(out.size());
  const auto run = [&](auto function, std::vector<float>& to) {
    for (float& v : to) v = NAN;
    function(frame, tinyseg::InputView{to.data(), input_height, input_width, content_height, content_width}, 127.5f, 127.5f);
  };
  static tinyseg::FrameScratch scratch;  // that calls of other sizes have used
  run([](const auto&... arguments) { tinyseg::prepare(arguments..., scratch); }, out);
  run(tinyseg::prepare_reference, expected);
  for (size_t i = 0; i < out.size(); ++i) {
    check(out[i] >= -1.01f && out[i] <= 1.01f, "a value is out of range");
    check(std::fabs(out[i] - expected[i]) < 2e-3f, "it differs from the reference");
  }
  return 0;
}
