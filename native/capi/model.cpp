#include "model.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string_view>

#include "../third_party/yyjson/yyjson.h"
#include "failure.hpp"
#include "sha256.hpp"

namespace tinyseg {

const char* const kDimensionNames[kDimensions] = {"prompts", "points",   "height", "width",    "rows4",
                                                  "columns4", "rows8", "columns8", "rows16", "columns16"};

std::vector<int64_t> concrete(const std::vector<int64_t>& shape, const Dimensions& dimensions) {
  std::vector<int64_t> out = shape;
  for (int64_t& d : out)
    if (d < 0) d = dimensions[-1 - d];
  return out;
}

namespace {

constexpr const char* kCard = "model.json";
constexpr int kFormat = 1;
constexpr size_t kMostCardBytes = size_t(4) << 20, kMostFileBytes = size_t(1) << 30;
constexpr size_t kMostDepth = 32, kMostValues = 200000, kLongestName = 200;
constexpr int kLargestSide = 4096;  // of the encoder's input: 16 million pixels are more than any model was made for
constexpr int64_t kLargestDimension = 1 << 20;
constexpr size_t kMostTensors = 64, kMostRank = 8, kMostEngines = 10000;
// By this key an ONNX tensor names a file for its values, which engines would read wherever it lies.
constexpr std::string_view kExternal = "location";

struct Closed {
  int handle;
  ~Closed() { close(handle); }
};

[[noreturn]] void bad_model(const std::string& folder, const std::string& what) {
  fail(TINYSEG_MODEL_ERROR, folder, ": ", what);
}

bool is_plain_name(std::string_view name) {
  const auto alphanumeric = [](char c) { return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); };
  return !name.empty() && name.size() <= 100 && alphanumeric(name[0]) &&
         std::all_of(name.begin(), name.end(), [&](char c) { return alphanumeric(c) || c == '.' || c == '_' || c == '-'; });
}

// Text that a terminal shows and does not obey.
bool is_printable(std::string_view text) {
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    const bool second_page = c == 0xc2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xa0;
    if (c < 0x20 || c == 0x7f || second_page) return false;
  }
  return true;
}

std::string shown(std::string_view text) {
  return is_printable(text) ? std::string(text.substr(0, 60)) : std::string("a text that cannot be printed");
}

std::string read_file(const std::string& folder, const std::string& name, size_t most) {
  const std::string path = folder + "/" + name;
  struct stat facts;
  // Looked at before it is opened: opening a pipe waits.
  if (lstat(path.c_str(), &facts) != 0) {
    if (errno == ENOENT || errno == ENOTDIR)
      bad_model(folder, "it holds no " + name + "; a model is a folder with model.json and its graphs");
    bad_model(folder, name + " cannot be read (" + std::strerror(errno) + ")");
  }
  if (!S_ISREG(facts.st_mode)) bad_model(folder, name + " is a link or no regular file; put the file itself there");
  const int handle = open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (handle < 0) bad_model(folder, name + " cannot be read (" + std::strerror(errno) + ")");
  const Closed closed{handle};
  if (fstat(handle, &facts) != 0 || !S_ISREG(facts.st_mode)) bad_model(folder, name + " is no regular file");
  if (size_t(facts.st_size) > most)
    bad_model(folder, name + " has " + std::to_string(facts.st_size) + " bytes, more than the " + std::to_string(most) +
                          " that such a file may have");
  std::string data(size_t(facts.st_size), '\0');
  size_t done = 0;
  while (done < data.size()) {
    const ssize_t got = read(handle, &data[done], data.size() - done);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) bad_model(folder, name + " ends early, or cannot be read");
    done += size_t(got);
  }
  return data;
}

// The values of a card, each checked as it is taken.
class Card {
 public:
  Card(const std::string& folder, std::string& data) : folder_(folder) {
    if (!shallow(data)) bad("model.json is nested deeper than " + std::to_string(kMostDepth));
    yyjson_read_err error;
    document_.reset(yyjson_read_opts(&data[0], data.size(), YYJSON_READ_NOFLAG, nullptr, &error));
    if (!document_) bad(std::string("model.json is not valid JSON (") + error.msg + " at byte " + std::to_string(error.pos) + ")");
    if (yyjson_doc_get_val_count(document_.get()) > kMostValues) bad("model.json has more than 200,000 values");
    root_ = yyjson_doc_get_root(document_.get());
    if (!yyjson_is_obj(root_)) bad("model.json holds no object");
  }

  yyjson_val* root() const { return root_; }

  [[noreturn]] void bad(const std::string& what) const { bad_model(folder_, what + "; get the model again"); }

  yyjson_val* get(yyjson_val* row, const char* key, const std::string& where) const {
    yyjson_val* value = yyjson_obj_get(row, key);
    if (!value) bad(where + " lacks " + key);
    return value;
  }

  yyjson_val* object(yyjson_val* row, const char* key, const std::string& where) const {
    yyjson_val* value = get(row, key, where);
    if (!yyjson_is_obj(value)) bad(where + "." + key + " must be an object");
    return value;
  }

  int64_t whole(yyjson_val* row, const char* key, const std::string& where, int64_t low, int64_t high) const {
    yyjson_val* value = get(row, key, where);
    if (!is_whole(value, low, high))
      bad(where + "." + key + " must be a whole number from " + std::to_string(low) + " to " + std::to_string(high));
    return yyjson_get_sint(value);
  }

  double number(yyjson_val* row, const char* key, const std::string& where, double low, double high) const {
    yyjson_val* value = get(row, key, where);
    const double found = yyjson_is_num(value) ? yyjson_get_num(value) : low - 1;
    if (!(found >= low && found <= high))
      bad(where + "." + key + " must be a number from " + std::to_string(low) + " to " + std::to_string(high));
    return found;
  }

  std::string text(yyjson_val* row, const char* key, const std::string& where) const {
    const std::string_view found = string_of(get(row, key, where));
    if (found.empty() || found.size() > kLongestName || !is_printable(found))
      bad(where + "." + key + " must be a line of 1 to 200 characters");
    return std::string(found);
  }

  static std::string_view string_of(yyjson_val* value) {
    return yyjson_is_str(value) ? std::string_view(yyjson_get_str(value), yyjson_get_len(value)) : std::string_view();
  }

  static bool is_whole(yyjson_val* value, int64_t low, int64_t high) {
    if (yyjson_is_uint(value) && yyjson_get_uint(value) > uint64_t(INT64_MAX)) return false;
    return yyjson_is_int(value) && yyjson_get_sint(value) >= low && yyjson_get_sint(value) <= high;
  }

  // Tensors in the order in which they are written, which is the engines' own.
  std::vector<TensorSpec> tensors(yyjson_val* row, const char* side, const std::string& where, bool decoder) const {
    yyjson_val* rows = object(row, side, where);
    const std::string place = where + "." + side;
    if (yyjson_obj_size(rows) == 0 || yyjson_obj_size(rows) > kMostTensors) bad(place + " must have 1 to 64 shapes");
    std::vector<TensorSpec> found;
    yyjson_obj_iter each = yyjson_obj_iter_with(rows);
    while (yyjson_val* key = yyjson_obj_iter_next(&each)) {
      yyjson_val* shape = yyjson_obj_iter_get_val(key);
      TensorSpec tensor{std::string(string_of(key)), {}};
      if (!is_plain_name(tensor.name) || !yyjson_is_arr(shape) || yyjson_arr_size(shape) > kMostRank)
        bad(place + "." + shown(tensor.name) + " must be a list of at most 8 dimensions");
      for (const TensorSpec& other : found)
        if (other.name == tensor.name) bad(place + " has " + tensor.name + " twice");
      yyjson_arr_iter dimensions = yyjson_arr_iter_with(shape);
      while (yyjson_val* d = yyjson_arr_iter_next(&dimensions)) {
        int64_t entry = is_whole(d, 1, kLargestDimension) ? yyjson_get_sint(d) : 0;
        for (int k = 0; k < kDimensions && yyjson_is_str(d); ++k) {
          const bool of_role = decoder ? k != kHeight && k != kWidth : k != kPrompts && k != kPoints;
          if (of_role && string_of(d) == kDimensionNames[k]) entry = -1 - k;
        }
        if (entry == 0) bad(place + "." + tensor.name + " has an unknown dimension");
        tensor.shape.push_back(entry);
      }
      found.push_back(std::move(tensor));
    }
    return found;
  }

 private:
  // yyjson does not recurse, but what is read is walked through: depth is bounded before.
  static bool shallow(const std::string& data) {
    size_t depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < data.size(); ++i) {
      const char c = data[i];
      if (quoted) {
        if (c == '\\') ++i;
        else if (c == '"') quoted = false;
      } else if (c == '"') {
        quoted = true;
      } else if (c == '{' || c == '[') {
        if (++depth > kMostDepth) return false;
      } else if ((c == '}' || c == ']') && depth > 0) {
        --depth;
      }
    }
    return true;
  }

  struct Free {
    void operator()(yyjson_doc* document) const { yyjson_doc_free(document); }
  };
  const std::string& folder_;
  std::unique_ptr<yyjson_doc, Free> document_;
  yyjson_val* root_ = nullptr;
};

// What the runtime feeds and reads; an encoder's outputs are free, and the decoder's further inputs.
const TensorSpec kImage{"image", {1, 3, -1 - kHeight, -1 - kWidth}};
const std::vector<TensorSpec> kPromptInputs{{"points", {-1 - kPrompts, -1 - kPoints, 2}},
                                            {"labels", {-1 - kPrompts, -1 - kPoints}},
                                            {"mask", {-1 - kPrompts, 1, -1 - kRows4, -1 - kColumns4}},
                                            {"has_mask", {-1 - kPrompts}}};
const std::vector<TensorSpec> kAnswers{{"logits", {-1 - kPrompts, 4, -1 - kRows4, -1 - kColumns4}},
                                       {"iou", {-1 - kPrompts, 4}}};

void require_same(const Card& card, std::vector<TensorSpec> found, std::vector<TensorSpec> wanted, const char* where) {
  const auto by_name = [](const TensorSpec& a, const TensorSpec& b) { return a.name < b.name; };
  std::sort(found.begin(), found.end(), by_name);
  std::sort(wanted.begin(), wanted.end(), by_name);
  if (!(found == wanted)) card.bad(std::string(where) + " are not the ones that this version of tinyseg feeds and reads");
}

Graph read_graph(const std::string& folder, const Card& card, yyjson_val* row, yyjson_val* file_row, const std::string& where,
                 bool decoder) {
  Graph graph;
  graph.name = decoder ? "decoder" : "encoder";
  graph.inputs = card.tensors(row, "inputs", where, decoder);
  graph.outputs = card.tensors(row, "outputs", where, decoder);
  const std::string_view file = Card::string_of(card.get(file_row, "file", where));
  if (!is_plain_name(file) || file.size() < 6 || file.substr(file.size() - 5) != ".onnx")
    card.bad(where + ".file must be a plain file name (letters, digits, . _ -) that ends in .onnx");
  const std::string_view sum = Card::string_of(card.get(file_row, "sha256", where));
  graph.data = read_file(folder, std::string(file), kMostFileBytes);
  graph.sha256 = sha256(graph.data.data(), graph.data.size());
  if (graph.sha256 != sum)
    card.bad(std::string(file) + " is damaged (sha256 " + graph.sha256.substr(0, 12) + "..., model.json says " +
             shown(sum.substr(0, 12)) + "...)");
  if (graph.data.find(kExternal) != std::string::npos)
    bad_model(folder, std::string(file) + " seems to keep weights in files beside it (ONNX external data), which engines would "
                                          "read wherever they lie; save the graph with its weights inside");
  return graph;
}

void read_engine_files(const Card& card, yyjson_val* compiled, std::vector<EngineFile>& engines) {
  yyjson_val* rows = card.get(compiled, "engines", "compiled");
  if (!yyjson_is_arr(rows) || yyjson_arr_size(rows) > kMostEngines) card.bad("compiled.engines must be a list of 10,000 at most");
  yyjson_arr_iter each = yyjson_arr_iter_with(rows);
  while (yyjson_val* row = yyjson_arr_iter_next(&each)) {
    const std::string where = "compiled.engines[" + std::to_string(engines.size()) + "]";
    if (!yyjson_is_obj(row)) card.bad(where + " must be an object");
    EngineFile engine{card.text(row, "graph", where), card.text(row, "file", where), card.text(row, "sha256", where), {}};
    if (!is_plain_name(engine.file)) card.bad(where + ".file must be a plain file name (letters, digits, . _ -)");
    yyjson_val* dimensions = card.object(row, "dimensions", where);
    yyjson_obj_iter named = yyjson_obj_iter_with(dimensions);
    while (yyjson_val* key = yyjson_obj_iter_next(&named)) {
      const std::string name(Card::string_of(key));
      const auto known = std::find(std::begin(kDimensionNames), std::end(kDimensionNames), name);
      if (known == std::end(kDimensionNames)) card.bad(where + ".dimensions has the unknown name " + shown(name));
      engine.dimensions[known - std::begin(kDimensionNames)] = card.whole(dimensions, name.c_str(), where + ".dimensions", 1, kLargestDimension);
    }
    engines.push_back(std::move(engine));
  }
}

}  // namespace

Model open_model(const std::string& folder, const std::string& precision) {
  struct stat facts;
  if (stat(folder.c_str(), &facts) != 0)
    fail(TINYSEG_MODEL_ERROR, "there is no model at ", shown(folder),
         "; give a folder with model.json and its graphs (`tinyseg info` prints where the packaged one lies)");
  if (!S_ISDIR(facts.st_mode))
    fail(TINYSEG_MODEL_ERROR, shown(folder), " is no folder; a zipped model is unpacked first: python3 -m zipfile -e MODEL.zip DIR");
  std::string data = read_file(folder, kCard, kMostCardBytes);
  const Card card(folder, data);
  yyjson_val* root = card.root();
  if (card.whole(root, "format", kCard, INT64_MIN, INT64_MAX) != kFormat)
    card.bad("model.json has another format than 1, which this version of tinyseg reads");

  Model model;
  model.folder = folder;
  model.name = card.text(root, "name", kCard);
  model.long_side = int(card.whole(root, "long_side", kCard, kInputMultiple, kLargestSide));
  yyjson_val* zoom = card.object(root, "zoom", kCard);
  model.zoom.side = int(card.whole(zoom, "side", "zoom", kInputMultiple, kLargestSide));
  if (model.zoom.side % kInputMultiple) card.bad("zoom.side must be a multiple of 32");
  model.zoom.factor = card.number(zoom, "factor", "zoom", 1.0, 100.0);
  model.zoom.below = card.number(zoom, "below", "zoom", 0.0, 1.0);

  yyjson_val* graphs = card.object(root, "graphs", kCard);
  yyjson_val* files = graphs;
  std::string where = "graphs";
  const bool lowered = precision == "fp32" || precision == "bf16" || precision == "fp16";
  yyjson_val* carried = yyjson_obj_get(root, "precisions");
  if (carried && !yyjson_is_obj(carried)) card.bad("precisions must be an object");
  yyjson_val* variant = precision == "fp32" ? nullptr : yyjson_obj_get(carried, precision.c_str());
  if (variant) {
    where = "precisions." + precision;
    files = card.object(variant, "graphs", where);
  } else if (!lowered) {
    fail(TINYSEG_PRECISION_UNAVAILABLE, "model ", model.name, " carries no ", precision,
         " graphs; use fp32, or make them with: python -m tinyseg.distill quantize MODEL --data PHOTOS --out DIR");
  }
  for (const bool decoder : {false, true}) {
    const char* name = decoder ? "decoder" : "encoder";
    Graph& graph = decoder ? model.decoder : model.encoder;
    graph = read_graph(folder, card, card.object(graphs, name, "graphs"), card.object(files, name, where), where + "." + name, decoder);
  }
  require_same(card, model.encoder.inputs, {kImage}, "the encoder's inputs");
  std::vector<TensorSpec> wanted = model.encoder.outputs;
  wanted.insert(wanted.end(), kPromptInputs.begin(), kPromptInputs.end());
  require_same(card, model.decoder.inputs, wanted, "the decoder's inputs");
  require_same(card, model.decoder.outputs, kAnswers, "the decoder's outputs");
  const std::string sums = model.decoder.sha256 + model.encoder.sha256;  // in the order of their names
  model.sha256 = sha256(sums.data(), sums.size());

  if (yyjson_val* compiled = yyjson_obj_get(root, "compiled"); compiled && !yyjson_is_null(compiled)) {
    if (!yyjson_is_obj(compiled)) card.bad("compiled must be an object");
    model.compiled_engine = card.text(compiled, "engine", "compiled");
    model.compiled_precision = card.text(compiled, "precision", "compiled");
    yyjson_obj_iter each = yyjson_obj_iter_with(card.object(compiled, "identity", "compiled"));
    while (yyjson_val* key = yyjson_obj_iter_next(&each)) {
      const std::string_view name = Card::string_of(key), value = Card::string_of(yyjson_obj_iter_get_val(key));
      if (name.size() > kLongestName || value.size() > kLongestName || !is_printable(name) || !is_printable(value))
        card.bad("compiled.identity must hold short texts");
      model.compiled_for.emplace(name, value);
    }
    read_engine_files(card, compiled, model.engines);
  }
  return model;
}

std::string read_engine(const Model& model, const Graph& graph, const Dimensions& dimensions) {
  Dimensions used{};
  for (const auto* specs : {&graph.inputs, &graph.outputs})
    for (const TensorSpec& spec : *specs)
      for (const int64_t d : spec.shape)
        if (d < 0) used[-1 - d] = dimensions[-1 - d];
  for (const EngineFile& row : model.engines) {
    if (row.graph != graph.name || row.dimensions != used) continue;
    std::string data = read_file(model.folder, row.file, kMostFileBytes);
    if (sha256(data.data(), data.size()) != row.sha256)
      bad_model(model.folder, row.file + " is damaged; compile the model again with tinyseg compile");
    return data;
  }
  std::string wanted;
  for (int d = 0; d < kDimensions; ++d)
    if (used[d]) wanted += (wanted.empty() ? "" : ", ") + std::string(kDimensionNames[d]) + " " + std::to_string(used[d]);
  bad_model(model.folder, "it holds no engine of the " + graph.name + " for " + wanted +
                              "; compile the model for these frames and prompts: tinyseg compile MODEL --engine " + model.compiled_engine +
                              " --size WxH --prompts N --out DIR (its decoders take 4 points a prompt, and a box counts as two)");
}

}  // namespace tinyseg
