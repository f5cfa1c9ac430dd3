#include "specks.hpp"

#include <algorithm>

namespace tinyseg {
namespace {

int32_t root(std::vector<int32_t>& parents, int32_t i) {
  while (parents[i] != i) i = parents[i] = parents[parents[i]];
  return i;
}

// Connected cells with inside == value: labels 1, 2, ... in the order of their first cells, 0 elsewhere, and how many cells
// each has (areas[0]: those elsewhere). Returns how many labels there are, 0 counted.
int label_cells(int rows, int columns, uint8_t value, bool diagonals, SpeckScratch& s) {
  const size_t cells = size_t(rows) * columns;
  s.labels.resize(cells);
  s.parents.resize(cells + 1);
  s.areas.resize(cells + 1);
  s.small.resize(cells + 1);
  std::vector<int32_t>& parents = s.parents;
  parents[0] = 0;
  int count = 1;
  for (int y = 0; y < rows; ++y) {
    const uint8_t* line = &s.inside[size_t(y) * columns];
    int32_t* labels = &s.labels[size_t(y) * columns];
    const int32_t* above = y > 0 ? labels - columns : nullptr;
    for (int x = 0; x < columns; ++x) {
      if (line[x] != value) {
        labels[x] = 0;
        continue;
      }
      int32_t label = x > 0 ? labels[x - 1] : 0;
      const auto join = [&](int32_t other) {
        if (!other || other == label) return;
        if (!label) {
          label = other;
          return;
        }
        const int32_t a = root(parents, label), b = root(parents, other);
        parents[std::max(a, b)] = std::min(a, b);
      };
      if (above) {
        if (above[x]) join(above[x]);  // in which its neighbours have been joined already
        else if (diagonals) {
          if (x > 0) join(above[x - 1]);
          if (x + 1 < columns) join(above[x + 1]);
        }
      }
      if (!label) {
        label = count;
        parents[count] = count;
        ++count;
      }
      labels[x] = label;
    }
  }
  // Roots come before what hangs on them: one pass numbers them anew.
  int found = 1;
  for (int32_t i = 1; i < count; ++i) parents[i] = parents[i] == i ? found++ : parents[parents[i]];
  std::fill(s.areas.begin(), s.areas.begin() + found, 0);
  for (size_t i = 0; i < cells; ++i) {
    s.labels[i] = parents[s.labels[i]];
    ++s.areas[s.labels[i]];
  }
  return found;
}

// The sign of the small regions that no click of `label` points at is changed. Returns whether there were any.
bool flip(const float* logits, int rows, int columns, int found, const ClickedCell* clicks, size_t count, int32_t label,
          bool changed, float* out, SpeckScratch& s) {
  for (size_t i = 0; i < count; ++i)
    if (clicks[i].label == label) s.small[s.labels[size_t(clicks[i].row) * columns + clicks[i].column]] = 0;
  if (std::find(s.small.begin(), s.small.begin() + found, 1) == s.small.begin() + found) return changed;
  const size_t cells = size_t(rows) * columns;
  if (!changed) std::copy(logits, logits + cells, out);
  for (size_t i = 0; i < cells; ++i)
    if (s.small[s.labels[i]]) out[i] = -logits[i];
  return true;
}

}  // namespace

bool without_specks(const float* logits, int rows, int columns, const ClickedCell* clicks, size_t count, float* out,
                    SpeckScratch& s) {
  const size_t cells = size_t(rows) * columns;
  s.inside.resize(cells);
  for (size_t i = 0; i < cells; ++i) s.inside[i] = logits[i] > 0.0f;
  bool changed = false;
  int found = label_cells(rows, columns, 1, true, s);
  if (found > 2) {  // more than the ground and one part
    const double least = kLeastPart * *std::max_element(s.areas.begin() + 1, s.areas.begin() + found);
    for (int i = 0; i < found; ++i) s.small[i] = i > 0 && s.areas[i] < least;
    changed = flip(logits, rows, columns, found, clicks, count, 1, changed, out, s);
  }
  found = label_cells(rows, columns, 0, false, s);
  if (found > 2) {  // more than the mask and one ground
    const double least = kLeastHole * s.areas[0];
    for (int i = 0; i < found; ++i) s.small[i] = i > 0 && s.areas[i] < least;
    for (int x = 0; x < columns; ++x) s.small[s.labels[x]] = s.small[s.labels[cells - 1 - x]] = 0;
    for (int y = 0; y < rows; ++y)
      s.small[s.labels[size_t(y) * columns]] = s.small[s.labels[size_t(y + 1) * columns - 1]] = 0;
    changed = flip(logits, rows, columns, found, clicks, count, 0, changed, out, s);
  }
  return changed;
}

}  // namespace tinyseg
