// 8-connected components of a map above a threshold, found from runs of pixels in one pass, without
// a label image.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/guard.hpp"

namespace kad {

/// Raise KAD_ERROR_INVALID_ARGUMENT when the least area of a region is below 1.
inline void check_area(int64_t min_area_px) {
  if (min_area_px >= 1) return;
  fail(KAD_ERROR_INVALID_ARGUMENT, "min_area_px must be at least 1, got %lld",
       static_cast<long long>(min_area_px));
}

struct Component {
  int64_t parent;
  int32_t left, top, right, bottom;  // right and bottom exclusive
  int32_t peak_x, peak_y;
  float peak;
  int64_t area;
};

/// The higher peak; of equal ones the first in reading order.
inline bool peak_before(const Component& a, const Component& b) {
  if (a.peak != b.peak) return a.peak > b.peak;
  if (a.peak_y != b.peak_y) return a.peak_y < b.peak_y;
  return a.peak_x < b.peak_x;
}

class Labeller {
 public:
  /// Label a map; not all of it once a component has `enough` pixels.
  Labeller(const float* map, int32_t height, int32_t width, float threshold,
           int64_t enough = std::numeric_limits<int64_t>::max())
      : width_(width), threshold_(threshold) {
    for (int32_t y = 0; y < height && largest_area_ < enough; ++y) {
      add_row(map + int64_t{y} * width, y);
    }
  }

  int64_t largest_area() const { return largest_area_; }

  std::vector<Component> components(int64_t min_area) const {
    std::vector<Component> found;
    for (size_t i = 0; i < components_.size(); ++i) {
      const Component& component = components_[i];
      const bool is_root = component.parent == static_cast<int64_t>(i);
      if (is_root && component.area >= min_area) found.push_back(component);
    }
    std::sort(found.begin(), found.end(), peak_before);
    return found;
  }

 private:
  struct Run {
    int32_t begin;
    int32_t end;  // exclusive
    int64_t component;
  };

  void add_row(const float* row, int32_t y) {
    current_.clear();
    for (int32_t x = next_above(row, 0); x < width_; x = next_above(row, x)) {
      const int32_t begin = x;
      while (x < width_ && row[x] >= threshold_) ++x;
      current_.push_back({begin, x, new_component(row, begin, x, y)});
    }
    connect_rows();
    previous_.swap(current_);
  }

  // Next pixel from x on that is at the threshold or above; most blocks of a board hold none.
  int32_t next_above(const float* row, int32_t x) const {
    constexpr int32_t kBlock = 16;
    for (; x + kBlock <= width_; x += kBlock) {
      int32_t n_above = 0;
      for (int32_t i = 0; i < kBlock; ++i) n_above += row[x + i] >= threshold_ ? 1 : 0;
      if (n_above > 0) break;
    }
    while (x < width_ && !(row[x] >= threshold_)) ++x;
    return x;
  }

  int64_t new_component(const float* row, int32_t begin, int32_t end, int32_t y) {
    const auto number = static_cast<int64_t>(components_.size());
    const float* peak = std::max_element(row + begin, row + end);
    components_.push_back({number, begin, y, end, y + 1, static_cast<int32_t>(peak - row), y, *peak,
                           int64_t{end} - begin});
    largest_area_ = std::max<int64_t>(largest_area_, end - begin);
    return number;
  }

  // Unite runs that touch, also at corners, a run of the row above.
  void connect_rows() {
    auto above = previous_.begin();
    for (const Run& run : current_) {
      while (above != previous_.end() && above->end < run.begin) ++above;
      for (auto other = above; other != previous_.end() && other->begin <= run.end; ++other) {
        unite(run.component, other->component);
      }
    }
  }

  Component& at(int64_t number) { return components_[static_cast<size_t>(number)]; }

  int64_t root(int64_t number) {
    while (at(number).parent != number) {
      at(number).parent = at(at(number).parent).parent;
      number = at(number).parent;
    }
    return number;
  }

  void unite(int64_t a, int64_t b) {
    const int64_t first = std::min(root(a), root(b));
    const int64_t second = std::max(root(a), root(b));
    if (first == second) return;
    Component& into = at(first);
    const Component& from = at(second);
    if (peak_before(from, into)) {
      into.peak = from.peak;
      into.peak_x = from.peak_x;
      into.peak_y = from.peak_y;
    }
    into.left = std::min(into.left, from.left);
    into.top = std::min(into.top, from.top);
    into.right = std::max(into.right, from.right);
    into.bottom = std::max(into.bottom, from.bottom);
    into.area += from.area;
    largest_area_ = std::max(largest_area_, into.area);
    at(second).parent = first;
  }

  int32_t width_;
  float threshold_;
  int64_t largest_area_ = 0;
  std::vector<Run> previous_;
  std::vector<Run> current_;
  std::vector<Component> components_;
};

}  // namespace kad
