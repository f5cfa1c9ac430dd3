#include "session.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "failure.hpp"
#include "processor.hpp"

namespace tinyseg {
namespace {

// Compiled decoder shapes: prompts and point slots are padded up to one of these (tinyseg/graphs/shapes.py).
constexpr size_t kBatches[] = {1, 2, 4, 8, 16, 32, 64};
constexpr size_t kSlots[] = {4, 16, 64, 256};
constexpr size_t kMostBatch = 64, kMostPoints = 254;
constexpr size_t kCompiled = 64;  // compiled graphs kept by a model, of both roles
constexpr size_t kEncoders = 8;   // input sizes kept by a session
constexpr int kMostSide = 16384;
constexpr ptrdiff_t kMostStride = PTRDIFF_MAX / kMostSide;  // what rows are counted with does not overflow
constexpr float kStabilityOffset = 1.0f;

template <size_t N>
size_t at_least(size_t needed, const size_t (&sizes)[N]) {
  return *std::find_if(std::begin(sizes), std::end(sizes), [&](size_t size) { return size >= needed; });
}

Dimensions dimensions_of(const Size& input, size_t prompts, size_t points) {
  const int64_t rows = input.height / kLogitStride, columns = input.width / kLogitStride;
  return {int64_t(prompts), int64_t(points), input.height, input.width, rows, columns, rows / 2, columns / 2, rows / 4, columns / 4};
}

size_t values_of(const std::vector<int64_t>& shape) {
  size_t count = 1;
  for (const int64_t d : shape) count *= size_t(d);
  return count;
}

Tensor tensor(const TensorSpec& spec, const Dimensions& dimensions, const Floats& memory) {
  Tensor t{spec.name.c_str(), concrete(spec.shape, dimensions), memory.data(), memory.size()};
  if (values_of(t.shape) != t.count)
    fail(TINYSEG_MODEL_ERROR, "the model's ", spec.name, " has another size in encoder and decoder; get the model again");
  return t;
}

FrameView frame_of(const tinyseg_image& image) {
  static constexpr int kChannels[] = {1, 3, 3, 4, 4};
  require(image.data != nullptr, "image.data is NULL; give the frame's first pixel");
  if (image.format < TINYSEG_GRAY || image.format > TINYSEG_RGBA)
    fail(TINYSEG_INVALID_ARGUMENT, "image.format must be one of tinyseg_format, but is ", std::to_string(image.format));
  if (image.width < 1 || image.height < 1 || image.width > kMostSide || image.height > kMostSide)
    fail(TINYSEG_INVALID_ARGUMENT, "a frame has 1 to 16384 pixels a side, but this one is ", std::to_string(image.width), " x ",
         std::to_string(image.height));
  const int channels = kChannels[image.format];
  const ptrdiff_t packed = ptrdiff_t(image.width) * channels;
  const bool short_row = image.row_stride < packed && image.row_stride > -packed;
  if (image.row_stride != 0 && (short_row || image.row_stride > kMostStride || image.row_stride < -kMostStride))
    fail(TINYSEG_INVALID_ARGUMENT, "image.row_stride is ", std::to_string(image.row_stride), " bytes, but a row takes ",
         std::to_string(packed), "; give 0 where rows follow each other");
  const bool bgr = image.format == TINYSEG_BGR || image.format == TINYSEG_BGRA;
  return {image.data, image.row_stride ? image.row_stride : packed, channels, 1, image.height, image.width, channels, bgr};
}

std::string shown(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%g", value);
  return text;
}

std::string size_of(const Size& size) { return std::to_string(size.width) + " x " + std::to_string(size.height); }

template <typename... Parts>
[[noreturn]] void bad_prompt(size_t i, size_t count, const Parts&... parts) {
  fail(TINYSEG_INVALID_ARGUMENT, count > 1 ? "prompt " + std::to_string(i) + ": " : std::string(), parts...);
}

}  // namespace

OpenModel::OpenModel(const char* folder, const EngineOptions& options, const std::string& engine)
    : model(open_model(folder, options.precision)) {
  if (!model.compiled_engine.empty() && (model.compiled_engine != engine || model.compiled_precision != options.precision))
    fail(TINYSEG_WRONG_DEVICE, folder, " was compiled for ", model.compiled_engine, " in ", model.compiled_precision, ", not for ",
         engine, " in ", options.precision, "; ask for these, or open the model that it was compiled from");
  if (engine == "onnxruntime") engine_ = open_onnxruntime(options);
  else if (engine == "openvino") engine_ = open_openvino(options);
#ifdef TINYSEG_TENSORRT
  else if (engine == "tensorrt") engine_ = open_tensorrt(options, model);
#else
  else if (engine == "tensorrt")
    fail(TINYSEG_ENGINE_MISSING, "this libtinyseg was built without TensorRT; build it where TensorRT's headers are: "
                                 "cmake -S native -B build/c -DTINYSEG_TENSORRT=ON (docs/c.md)");
#endif
  else fail(TINYSEG_INVALID_ARGUMENT, "there is no engine ", engine.substr(0, 60), "; known are onnxruntime, openvino and tensorrt");
  require_device();
  description = "model " + model.name + " (" + model.sha256.substr(0, 12) + ") on " + engine_->name + " " + engine_->version + ", " +
                engine_->precision + ", " +
                (engine_->threads == 0 ? engine_->identity.at("device")
                                       : std::to_string(engine_->threads) + (engine_->threads == 1 ? " thread" : " threads"));
}

// A folder that was compiled elsewhere is refused, though its graphs would run: who ships it means its engines.
void OpenModel::require_device() const {
  if (model.compiled_engine.empty()) return;
  std::map<std::string, std::string> here = engine_->identity;
  here.emplace("device", processor_fingerprint());
  here.emplace("version", engine_->version);
  std::string different;
  for (const auto& [key, now] : here) {
    const auto told = model.compiled_for.find(key);
    // TensorRT's Python says 10.3.0.26 where its library says 10.3.0.
    if (told == model.compiled_for.end() || told->second == now || (key == "version" && told->second.rfind(now + ".", 0) == 0)) continue;
    different += (different.empty() ? "" : "; ") + key + " was " + told->second + ", here it is " + now;
  }
  if (!different.empty())
    fail(TINYSEG_WRONG_DEVICE, "the model folder was compiled for another device or setting (", different,
         "); compile the model again here: tinyseg compile MODEL --engine ", engine_->name, " --precision ", engine_->precision,
         " --out DIR, or open the model itself");
}

std::shared_ptr<Compiled> OpenModel::compiled(bool decoder, const Dimensions& dimensions) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = std::find_if(kept_.begin(), kept_.end(), [&](const Kept& k) {
    return k.decoder == decoder && k.dimensions == dimensions;
  });
  if (found != kept_.end()) {
    kept_.splice(kept_.begin(), kept_, found);
  } else {
    kept_.push_front({decoder, dimensions, engine_->compile(decoder ? model.decoder : model.encoder, dimensions)});
    if (kept_.size() > kCompiled) kept_.pop_back();
  }
  return kept_.front().graph;
}

View OpenModel::view(int width, int height) const {
  return letterbox({width, height}, {0, 0, width, height}, model.long_side, false);
}

Session::Encoder& Session::encoder(std::list<std::unique_ptr<Encoder>>& kept, const Size& input) {
  const auto found = std::find_if(kept.begin(), kept.end(), [&](const auto& e) { return e->input == input; });
  if (found != kept.end()) {
    kept.splice(kept.begin(), kept, found);
    return *kept.front();
  }
  const Dimensions dimensions = dimensions_of(input, 0, 0);
  const Graph& graph = model_->model.encoder;
  const std::shared_ptr<Compiled> compiled = model_->compiled(false, dimensions);
  std::unique_ptr<Encoder> made(new Encoder{input, Floats(size_t(3) * input.height * input.width), {}, nullptr, {}});
  std::vector<Tensor> features;
  for (const TensorSpec& spec : graph.outputs) {
    made->features.emplace_back(values_of(concrete(spec.shape, dimensions)));
    features.push_back(tensor(spec, dimensions, made->features.back()));
  }
  made->run = compiled->bind({tensor(graph.inputs[0], dimensions, made->image)}, features);
  kept.push_front(std::move(made));
  if (kept.size() > kEncoders) kept.pop_back();
  return *kept.front();
}

Session::Decoder& Session::decoder(Encoder& encoder, size_t prompts, size_t points) {
  const size_t batch = at_least(prompts, kBatches), slots = at_least(points, kSlots);
  for (const auto& known : encoder.decoders)
    if (known->batch == batch && known->slots == slots) return *known;
  const Dimensions dimensions = dimensions_of(encoder.input, batch, slots);
  const Model& model = model_->model;
  const size_t cells = size_t(dimensions[kRows4]) * size_t(dimensions[kColumns4]);
  const std::shared_ptr<Compiled> compiled = model_->compiled(true, dimensions);
  std::unique_ptr<Decoder> made(new Decoder{batch, slots, Floats(batch * slots * 2), Floats(batch * slots), Floats(batch * cells),
                                            Floats(batch), Floats(batch * kMasks * cells), Floats(batch * kMasks), nullptr});
  const auto memory = [&](const std::string& name) -> const Floats& {
    if (name == "points") return made->points;
    if (name == "labels") return made->labels;
    if (name == "mask") return made->mask;
    if (name == "has_mask") return made->has_mask;
    if (name == "logits") return made->logits;
    if (name == "iou") return made->iou;
    for (size_t i = 0; i < model.encoder.outputs.size(); ++i)
      if (model.encoder.outputs[i].name == name) return encoder.features[i];
    fail(TINYSEG_MODEL_ERROR, "the decoder wants ", name, ", which the encoder does not give; get the model again");
  };
  std::vector<Tensor> inputs, outputs;
  for (const TensorSpec& spec : model.decoder.inputs) inputs.push_back(tensor(spec, dimensions, memory(spec.name)));
  for (const TensorSpec& spec : model.decoder.outputs) outputs.push_back(tensor(spec, dimensions, memory(spec.name)));
  made->run = compiled->bind(inputs, outputs);
  encoder.decoders.push_back(std::move(made));
  return *encoder.decoders.back();
}

void Session::warm_up(int width, int height, size_t prompts, size_t points) {
  if (width < 1 || height < 1 || width > kMostSide || height > kMostSide)
    fail(TINYSEG_INVALID_ARGUMENT, "a frame has 1 to 16384 pixels a side, but ", std::to_string(width), " x ", std::to_string(height),
         " were given");
  if (prompts < 1 || points < 1 || points > kMostPoints + 2)
    fail(TINYSEG_INVALID_ARGUMENT, "warm_up takes 1 or more prompts of 1 to 256 points, but ", std::to_string(prompts), " of ",
         std::to_string(points), " were given");
  const int side = model_->model.zoom.side;
  decoder(encoder(frames_, model_->view(width, height).input), std::min(prompts, kMostBatch), points);
  decoder(encoder(looks_, {side, side}), 1, points);
}

void Session::encode(Encoder& encoder, const View& view) {
  FrameView part = frame_;
  part.data += view.region.y0 * frame_.row_stride + view.region.x0 * frame_.column_stride;
  part.height = view.region.y1 - view.region.y0;
  part.width = view.region.x1 - view.region.x0;
  prepare(part, {encoder.image.data(), view.input.height, view.input.width, view.content.height, view.content.width}, kMean, kStd,
          frame_scratch_);
  (*encoder.run)();
}

void Session::set_frame(const tinyseg_image& image) {
  const FrameView frame = frame_of(image);
  embedded_ = false;
  frame_ = frame;
  view_ = model_->view(frame.width, frame.height);
  current_ = &encoder(frames_, view_.input);
}

void Session::embed(const tinyseg_image& image) {
  set_frame(image);
  const size_t row = size_t(frame_.width) * frame_.channels;
  pixels_.resize(row * frame_.height);
  for (int y = 0; y < frame_.height; ++y) std::memcpy(&pixels_[y * row], frame_.data + y * frame_.row_stride, row);
  frame_.data = pixels_.data();
  frame_.row_stride = ptrdiff_t(row);
  encode(*current_, view_);
  embedded_ = true;
}

void Session::predict(const tinyseg_prompt& prompt, bool zoom, tinyseg_mask* masks, size_t count) {
  if (!embedded_) fail(TINYSEG_NOT_READY, "no frame is embedded yet; call tinyseg_embed before tinyseg_predict");
  if (count != 1 && count != size_t(kReadings))
    fail(TINYSEG_INVALID_ARGUMENT, "count must be 1 (one mask) or 3 (three readings), but is ", std::to_string(count));
  place(&prompt, 1, zoom, masks, count);
  answer(masks, count);
}

void Session::run(const tinyseg_image& image, const tinyseg_prompt* prompts, size_t count, bool zoom, tinyseg_mask* masks) {
  set_frame(image);
  place(prompts, count, zoom, masks, 1);
  encode(*current_, view_);
  answer(masks, 1);
}

// Prompts checked against the frame, and where each is looked at, decided before anything is decoded.
void Session::place(const tinyseg_prompt* prompts, size_t count, bool zoom, const tinyseg_mask* masks, size_t readings) {
  size_t points = 0, hints = 0;
  for (size_t i = 0; i < count; ++i) {
    const auto bad = [&](const auto&... parts) { bad_prompt(i, count, parts...); };
    const tinyseg_prompt& p = prompts[i];
    if (p.count == 0 && !p.box && !p.hint) bad("the prompt is empty; give points with labels, a box, a hint, or a mixture of them");
    if (p.count > kMostPoints) bad("at most 254 points can be given, but there are ", std::to_string(p.count));
    if (p.count > 0 && (!p.points || !p.labels)) bad("points and labels must both be given, count times each");
    points += p.count;
    hints += p.hint != nullptr;
  }
  for (size_t i = 0; i < count * readings; ++i) require(masks[i].pixels != nullptr, "masks[i].pixels is NULL; give width * height bytes for each mask");
  placed_.clear();
  placed_.reserve(count);
  labels_.clear();
  labels_.reserve(points);  // prompts point into it
  const Region& whole = view_.region;
  const size_t cells = size_t(view_.rows()) * view_.columns();
  hints_.clear();
  hints_.reserve(hints * cells);
  for (size_t i = 0; i < count; ++i) {
    const tinyseg_prompt& p = prompts[i];
    const auto bad = [&](const auto&... parts) { bad_prompt(i, count, parts...); };
    Placed placed{};
    placed.prompt = {p.points, labels_.data() + labels_.size(), p.count, p.box != nullptr, {}};
    for (size_t k = 0; k < p.count; ++k) {
      if (p.labels[k] != 0 && p.labels[k] != 1) bad("labels must be 1 (on the object) or 0 (off it), but one is ", std::to_string(p.labels[k]));
      if (!std::isfinite(p.points[2 * k]) || !std::isfinite(p.points[2 * k + 1])) bad("points must be finite, but one is NaN or infinite");
      labels_.push_back(p.labels[k]);
    }
    const ptrdiff_t outside = outside_point(placed.prompt, whole);
    if (outside >= 0)
      bad("point (", shown(p.points[2 * outside]), ", ", shown(p.points[2 * outside + 1]), ") lies outside the frame of ", size_of(view_.frame),
          " pixels; points are x, y with 0 <= x <= width and 0 <= y <= height");
    if (p.box) {
      const Box box{p.box[0], p.box[1], p.box[2], p.box[3]};
      if (!std::isfinite(box.x0) || !std::isfinite(box.y0) || !std::isfinite(box.x1) || !std::isfinite(box.y1))
        bad("box must be finite, but holds NaN or infinity");
      if (box.x0 >= box.x1 || box.y0 >= box.y1) bad("box must be x0, y0, x1, y1 with x0 < x1 and y0 < y1");
      if (!cut_box(box, whole, &placed.prompt.box)) bad("the box lies outside the frame of ", size_of(view_.frame), " pixels");
    }
    if (p.hint && !all_finite(p.hint, cells))
      bad("hint must be finite, but holds NaN or infinity (it is ", std::to_string(view_.rows()), " x ", std::to_string(view_.columns()),
          " logits for this frame: tinyseg_grid)");
    if (p.hint) {
      // Copied: the answer may be written to where the hint lies, and a second look takes the hint after the first has answered.
      placed.hint = hints_.data() + hints_.size();
      hints_.insert(hints_.end(), p.hint, p.hint + cells);
    }
    Box stated;
    if (zoom && prompted_box(placed.prompt, &stated)) placed.small = second_look(stated, view_, model_->model.zoom, &placed.crop);
    else placed.undecided = zoom;
    placed_.push_back(placed);
  }
}

void Session::lay_out_prompt(Decoder& d, size_t row, const Placed& placed, const View& view) {
  const size_t cells = size_t(view.rows()) * view.columns();
  lay_out(placed.prompt, view_, view, d.points.data() + row * d.slots * 2, d.labels.data() + row * d.slots, d.slots);
  float* mask = d.mask.data() + row * cells;
  if (placed.hint) lay_out_hint(placed.hint, view_, view, mask, hint_scratch_);
  else std::fill(mask, mask + cells, 0.0f);
  d.has_mask.data()[row] = placed.hint ? 1.0f : 0.0f;
}

void Session::decode(Decoder& d) {
  (*d.run)();
  if (!all_finite(d.logits.data(), d.logits.size()) || !all_finite(d.iou.data(), d.iou.size()))
    fail(TINYSEG_ENGINE_ERROR, "the decoder answered with values that are no finite numbers; use precision fp32, and see where they "
                               "come from with: tinyseg compile --bisect");
}

void Session::answer(tinyseg_mask* masks, size_t readings) {
  // As many slots as the largest of all prompts needs, in every call.
  size_t points = 1, whole = 0;
  const auto slots = [](const Placed& p) { return std::max<size_t>(p.prompt.count + (p.prompt.has_box ? 2 : 0), 1); };
  for (const Placed& p : placed_) {
    if (p.small) continue;
    points = std::max(points, slots(p));
    ++whole;
  }
  const size_t cells = size_t(view_.rows()) * view_.columns();
  for (size_t next = 0; whole > 0;) {
    const size_t batch = std::min(whole, kMostBatch);
    Decoder& d = decoder(*current_, batch, points);
    const size_t begin = next;
    for (size_t row = 0; row < batch; ++next)
      if (!placed_[next].small) lay_out_prompt(d, row++, placed_[next], view_);
    // Rows that pad the batch: no points, no hint.
    const Placed nothing{};
    for (size_t row = batch; row < d.batch; ++row) lay_out_prompt(d, row, nothing, view_);
    decode(d);
    for (size_t i = begin, row = 0; i < next; ++i) {
      const Placed& p = placed_[i];
      if (p.small) continue;
      const float* logits = d.logits.data() + row * kMasks * cells;
      int chosen[kReadings] = {0, 0, 0};
      if (readings > 1) choose_readings(logits, cells, chosen);
      tinyseg_mask* own = masks + i * readings;
      size_t best = 0;
      for (size_t k = 0; k < readings; ++k) {
        draw(view_, p, logits + chosen[k] * cells, d.iou.data()[row * kMasks + chosen[k]], own[k]);
        if (own[k].score > own[best].score) best = k;
      }
      if (p.undecided && own[best].area > 0) {
        const int* b = own[best].box;
        Placed again = p;
        if (second_look({double(b[0]), double(b[1]), double(b[2]), double(b[3])}, view_, model_->model.zoom, &again.crop))
          look_again(again, logits, own, readings);
      }
      ++row;
    }
    whole -= batch;
  }
  for (size_t i = 0; i < placed_.size(); ++i)
    if (placed_[i].small) look_again(placed_[i], nullptr, masks + i * readings, readings);
}

// Masks from a crop. first (4, rows, columns): the logits of the look at the whole frame, null if there was none.
void Session::look_again(const Placed& placed, const float* first, tinyseg_mask* masks, size_t readings) {
  const View& crop = placed.crop;
  Encoder& e = encoder(looks_, crop.input);
  encode(e, crop);
  const size_t points = std::max<size_t>(placed.prompt.count + (placed.prompt.has_box ? 2 : 0), 1);
  Decoder& d = decoder(e, 1, points);
  lay_out_prompt(d, 0, placed, crop);
  decode(d);
  const size_t cells = size_t(crop.rows()) * crop.columns(), frame_cells = size_t(view_.rows()) * view_.columns();
  int chosen[kReadings] = {0, 0, 0};
  if (readings > 1) choose_readings(d.logits.data(), cells, chosen);
  mixed_.resize(cells);
  seen_.resize(cells);
  for (size_t k = 0; k < readings; ++k) {
    const float* logits = d.logits.data() + chosen[k] * cells;
    if (first && !placed.hint) {  // a hint has brought the first look along already
      std::copy(logits, logits + cells, mixed_.begin());
      resample_grid(first + chosen[k] * frame_cells, view_, crop, seen_.data(), resample_scratch_);
      add_first_look(seen_.data(), mixed_.data(), cells);
      logits = mixed_.data();
    }
    draw(crop, placed, logits, d.iou.data()[chosen[k]], masks[k]);
  }
}

void Session::draw(const View& view, const Placed& placed, const float* logits, float score, tinyseg_mask& mask) {
  const int rows = view.rows(), columns = view.columns();
  clicks_.clear();
  clicks_.reserve(placed.prompt.count);
  for (size_t i = 0; i < placed.prompt.count; ++i) {
    ClickedCell cell;
    if (clicked_cell(view, placed.prompt.points[2 * i], placed.prompt.points[2 * i + 1], placed.prompt.labels[i], &cell))
      clicks_.push_back(cell);
  }
  clean_.resize(size_t(rows) * columns);
  if (without_specks(logits, rows, columns, clicks_.data(), clicks_.size(), clean_.data(), speck_scratch_)) logits = clean_.data();
  const MaskStats stats = threshold(logits, rows, columns, placement(view), kStabilityOffset, mask.pixels, mask_scratch_);
  mask.score = score;
  mask.stability = stats.area_below ? float(double(stats.area_above) / double(stats.area_below)) : 0.0f;
  mask.area = stats.area;
  const int box[4] = {stats.x0, stats.y0, stats.x1, stats.y1};
  std::copy(box, box + 4, mask.box);
  mask.zoomed = view != view_;
  const int region[4] = {view.region.x0, view.region.y0, view.region.x1, view.region.y1}, none[4] = {0, 0, 0, 0};
  std::copy(mask.zoomed ? region : none, (mask.zoomed ? region : none) + 4, mask.zoom);
  if (!mask.logits) return;
  if (mask.zoomed) resample_grid(logits, view, view_, mask.logits, resample_scratch_);
  else std::copy(logits, logits + size_t(rows) * columns, mask.logits);
}

}  // namespace tinyseg
