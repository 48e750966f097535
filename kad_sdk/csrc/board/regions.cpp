// Defect regions of a board map, and the patch that explains each.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "base/guard.hpp"
#include "board/board.hpp"
#include "board/labeller.hpp"

namespace kad {
namespace {

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
  check_area(min_area_px);
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
  auto* out = reinterpret_cast<unsigned char*>(out_regions);
  for (const Component& component : components) {
    copy_struct(to_region(component, *board), out, region_size);
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
