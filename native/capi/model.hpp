// A model folder, read as what a stranger wrote: names, kinds, sizes and checksums of its files and the types and ranges of
// everything in model.json that is used (docs/security.md; tinyseg/graphs/card.py has the whole list).
#pragma once

#include <map>
#include <string>

#include "../geometry.hpp"
#include "engine.hpp"

namespace tinyseg {

struct Model {
  std::string name;
  std::string sha256;  // of the graphs' own sums: tells what runs apart
  int long_side = 0;   // of the encoder's input for a whole frame
  ZoomRule zoom{};
  Graph encoder, decoder;
  // Of a folder that `tinyseg compile` wrote: what it was made for and with; empty otherwise.
  std::map<std::string, std::string> compiled_for;
  std::string compiled_engine, compiled_precision;
};

// The graphs of a precision that the model carries; those of fp32 for precisions that engines make of them. Throws Failure.
Model open_model(const std::string& folder, const std::string& precision);

}  // namespace tinyseg
