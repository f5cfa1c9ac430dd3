// A model folder, read as what a stranger wrote: names, kinds, sizes and checksums of its files and the types and ranges of
// everything in model.json that is used (docs/security.md; tinyseg/graphs/card.py has the whole list).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "../geometry.hpp"
#include "engine.hpp"

namespace tinyseg {

// An engine that `tinyseg compile --out` wrote for a graph of fixed shapes.
struct EngineFile {
  std::string graph, file, sha256;
  Dimensions dimensions;  // 0 where the graph has no such dimension
};

struct Model {
  std::string folder, name;
  std::string sha256;  // of the graphs' own sums: tells what runs apart
  int long_side = 0;   // of the encoder's input for a whole frame
  ZoomRule zoom{};
  Graph encoder, decoder;
  // Of a folder that `tinyseg compile` wrote: what it was made for and with; empty otherwise.
  std::map<std::string, std::string> compiled_for;
  std::string compiled_engine, compiled_precision;
  std::vector<EngineFile> engines;
};

// The graphs of a precision that the model carries; those of fp32 for precisions that engines make of them. Throws Failure.
Model open_model(const std::string& folder, const std::string& precision);

// The folder's engine of a graph for these dimensions. Throws Failure where it holds none, or a damaged one.
std::string read_engine(const Model& model, const Graph& graph, const Dimensions& dimensions);

}  // namespace tinyseg
