// Defect regions of a board map, and the patch that explains each.
#include "board/regions.hpp"

#include <cstddef>

#include "board/board.hpp"

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

}  // namespace
}  // namespace kad

extern "C" kad_status kad_board_regions(const kad_board* board, const float* map, float threshold,
                                        int64_t min_area_px, uint32_t region_size,
                                        kad_region* out_regions, int64_t capacity,
                                        int64_t* out_count) {
  return kad::guard([&] {
    kad::check_pointer(out_count, "out_count");
    *out_count = 0;
    kad::check_pointer(board, "board");
    kad::find_regions(map, board->options.image_height, board->options.image_width,
                      {threshold, min_area_px, region_size, out_regions, capacity, out_count},
                      [&](kad_region* region) { kad::find_source(*board, region); });
  });
}
