// A model on an engine, and the way of one frame through it: the same parts, in the same order, as tinyseg/predict/ walks.
#pragma once

#include <cstdlib>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "../answer.hpp"
#include "../frame.hpp"
#include "../mask.hpp"
#include "../prompt.hpp"
#include "../specks.hpp"
#include "engine.hpp"
#include "model.hpp"
#include "tinyseg.h"

namespace tinyseg {

// Values that start where vectors and engines want them.
class Floats {
 public:
  explicit Floats(size_t count) : count_(count) {
    data_ = static_cast<float*>(std::aligned_alloc(kAlignment, (count * sizeof(float) + kAlignment - 1) / kAlignment * kAlignment));
    if (!data_) throw std::bad_alloc();
  }
  Floats(Floats&& other) noexcept : data_(other.data_), count_(other.count_) { other.data_ = nullptr; }
  Floats(const Floats&) = delete;
  ~Floats() { std::free(data_); }
  float* data() const { return data_; }
  size_t size() const { return count_; }

 private:
  static constexpr size_t kAlignment = 64;
  float* data_;
  size_t count_;
};

// A model opened on an engine. Graphs are compiled as shapes are asked for; safe to use from several threads.
class OpenModel {
 public:
  OpenModel(const char* folder, const EngineOptions& options, const std::string& engine);
  std::shared_ptr<Compiled> compiled(bool decoder, const Dimensions& dimensions);
  View view(int width, int height) const;

  Model model;
  std::string description;

 private:
  void require_device() const;

  struct Kept {
    bool decoder;
    Dimensions dimensions;
    std::shared_ptr<Compiled> graph;
  };
  std::unique_ptr<Engine> engine_;
  std::mutex mutex_;
  std::list<Kept> kept_;  // the least recently used last
};

// One frame in flight; for one thread at a time.
class Session {
 public:
  explicit Session(std::shared_ptr<OpenModel> model) : model_(std::move(model)) {}
  void warm_up(int width, int height, size_t prompts, size_t points);
  void embed(const tinyseg_image& image);
  void predict(const tinyseg_prompt& prompt, bool zoom, tinyseg_mask* masks, size_t count);
  void run(const tinyseg_image& image, const tinyseg_prompt* prompts, size_t count, bool zoom, tinyseg_mask* masks);

 private:
  struct Decoder {  // a decoder of a batch of prompts with so many point slots, its inputs and its answers
    size_t batch, slots;
    Floats points, labels, mask, has_mask, logits, iou;
    std::unique_ptr<Run> run;
  };
  struct Encoder {  // of inputs of a size: its input, its features, and the decoders that read these
    Size input;
    Floats image;
    std::vector<Floats> features;
    std::unique_ptr<Run> run;
    std::vector<std::unique_ptr<Decoder>> decoders;
  };
  struct Placed {
    Prompt prompt;
    const float* hint;
    bool small, undecided;  // answered by a crop alone; or by one if the first answer turns out small
    View crop;
  };

  Encoder& encoder(std::list<std::unique_ptr<Encoder>>& kept, const Size& input);
  Decoder& decoder(Encoder& encoder, size_t prompts, size_t points);
  void encode(Encoder& encoder, const View& view);
  void place(const tinyseg_prompt* prompts, size_t count, bool zoom, const tinyseg_mask* masks, size_t readings);
  void answer(tinyseg_mask* masks, size_t readings);
  void lay_out_prompt(Decoder& decoder, size_t row, const Placed& placed, const View& view);
  void decode(Decoder& decoder);
  void look_again(const Placed& placed, const float* first, tinyseg_mask* masks, size_t readings);
  void draw(const View& view, const Placed& placed, const float* logits, float score, tinyseg_mask& mask);
  void set_frame(const tinyseg_image& image);

  std::shared_ptr<OpenModel> model_;
  bool embedded_ = false;
  FrameView frame_{};  // the caller's, or kept_
  std::vector<uint8_t> pixels_;
  View view_{};
  Encoder* current_ = nullptr;
  // Second looks have features of their own: a frame that is asked again still needs its own.
  std::list<std::unique_ptr<Encoder>> frames_, looks_;
  std::vector<Placed> placed_;
  std::vector<double> labels_;
  std::vector<float> hints_;
  std::vector<ClickedCell> clicks_;
  std::vector<float> mixed_, clean_, seen_;
  FrameScratch frame_scratch_;
  MaskScratch mask_scratch_;
  HintScratch hint_scratch_;
  ResampleScratch resample_scratch_;
  SpeckScratch speck_scratch_;
};

}  // namespace tinyseg
