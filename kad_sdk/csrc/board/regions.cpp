// Defect regions: 8-connected components of the map above a threshold, found from runs of pixels in
// one pass, without a label image.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "base/guard.hpp"
#include "board/board.hpp"

namespace kad {
namespace {

struct Component {
  int64_t parent;
  int32_t left, top, right, bottom;  // right and bottom exclusive
  int32_t peak_x, peak_y;
  float peak;
  int64_t area;
};

// The higher peak; of equal ones the first in reading order.
bool peak_before(const Component& a, const Component& b) {
  if (a.peak != b.peak) return a.peak > b.peak;
  if (a.peak_y != b.peak_y) return a.peak_y < b.peak_y;
  return a.peak_x < b.peak_x;
}

struct Run {
  int32_t begin;
  int32_t end;  // exclusive
  int64_t component;
};

class Labeller {
 public:
  Labeller(const float* map, int32_t height, int32_t width, float threshold)
      : width_(width), threshold_(threshold) {
    for (int32_t y = 0; y < height; ++y) add_row(map + int64_t{y} * width, y);
  }

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
    at(second).parent = first;
  }

  int32_t width_;
  float threshold_;
  std::vector<Run> previous_;
  std::vector<Run> current_;
  std::vector<Component> components_;
};

// The patch with the largest distance of those that cover a pixel; of equal ones the first added.
void find_source(const kad_board& board, kad_region* region) {
  const kad_board_options& options = board.options;
  region->tile = -1;
  for (size_t i = 0; i < board.corners.size(); ++i) {
    const int64_t x = int64_t{region->peak_x} - board.corners[i].x;
    const int64_t y = int64_t{region->peak_y} - board.corners[i].y;
    if (x < 0 || y < 0 || x >= options.tile || y >= options.tile) continue;
    const int64_t patch = y * options.grid_height / options.tile * options.grid_width +
                          x * options.grid_width / options.tile;
    const auto at = i * static_cast<size_t>(board.patches()) + static_cast<size_t>(patch);
    if (region->tile >= 0 && board.dist[at] <= region->distance) continue;
    region->tile = static_cast<int64_t>(i);
    region->patch = patch;
    region->distance = board.dist[at];
    region->bank_row = board.index[at];
  }
  if (region->tile < 0) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "the map has a value at x %d, y %d, where no tile of this board lies: give the map that "
         "kad_board_map made from this board",
         region->peak_x, region->peak_y);
  }
}

kad_region to_region(const Component& component, const kad_board& board) {
  kad_region region = {};
  region.x = component.left;
  region.y = component.top;
  region.width = component.right - component.left;
  region.height = component.bottom - component.top;
  region.peak_x = component.peak_x;
  region.peak_y = component.peak_y;
  region.peak = component.peak;
  region.area_px = component.area;
  find_source(board, &region);
  return region;
}

void check_arguments(const kad_board* board, const float* map, float threshold, int64_t min_area_px,
                     uint32_t region_size) {
  check_pointer(board, "board");
  check_pointer(map, "map");
  check_struct_size(region_size, KAD_FIRST_SIZE(kad_region, bank_row), "kad_region");
  if (std::isnan(threshold)) fail(KAD_ERROR_NOT_FINITE, "threshold is NaN");
  if (min_area_px < 1) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "min_area_px must be at least 1, got %lld",
         static_cast<long long>(min_area_px));
  }
}

void regions(const kad_board* board, const float* map, float threshold, int64_t min_area_px,
             uint32_t region_size, kad_region* out_regions, int64_t capacity, int64_t* out_count) {
  check_pointer(out_count, "out_count");
  *out_count = 0;
  check_arguments(board, map, threshold, min_area_px, region_size);
  check_count(capacity, region_size, "capacity");
  if (capacity > 0) check_pointer(out_regions, "out_regions");
  const Labeller labeller(map, board->options.image_height, board->options.image_width, threshold);
  const std::vector<Component> components = labeller.components(min_area_px);
  *out_count = static_cast<int64_t>(components.size());
  if (*out_count > capacity) {
    fail(KAD_ERROR_BUFFER_TOO_SMALL, "out_regions holds %lld regions, the map has %lld",
         static_cast<long long>(capacity), static_cast<long long>(*out_count));
  }
  // A caller with a newer, larger struct finds zeros in the fields that this version lacks; one
  // with an older, smaller struct gets the fields that it knows.
  auto* out = reinterpret_cast<unsigned char*>(out_regions);
  for (const Component& component : components) {
    const kad_region region = to_region(component, *board);
    std::memset(out, 0, region_size);
    std::memcpy(out, &region, std::min<size_t>(region_size, sizeof(region)));
    out += region_size;
  }
}

}  // namespace
}  // namespace kad

extern "C" kad_status kad_board_regions(const kad_board* board, const float* map, float threshold,
                                        int64_t min_area_px, uint32_t region_size,
                                        kad_region* out_regions, int64_t capacity,
                                        int64_t* out_count) {
  return kad::guard([&] {
    kad::regions(board, map, threshold, min_area_px, region_size, out_regions, capacity, out_count);
  });
}
