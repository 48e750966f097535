// Defect regions of a board that was scored in windows, and the patch that explains each.
#include "base/guard.hpp"
#include "board/regions.hpp"
#include "windows/windows.hpp"

namespace kad {
namespace {

bool covers(const kad_rect& rect, int32_t x, int32_t y) {
  return x >= rect.x && y >= rect.y && x - rect.x < rect.width && y - rect.y < rect.height;
}

// The patch that a peak lies in; of several areas the one with the largest distance.
int64_t find_patch(const kad_windows& board, const kad_region& region) {
  int64_t found = -1;
  for (const Area& area : board.areas) {
    if (!covers(area.rect, region.peak_x, region.peak_y)) continue;
    const int64_t patch = patch_at(board, area, region.peak_x, region.peak_y);
    const auto at = static_cast<size_t>(patch);
    if (board.live[at] == 0) continue;
    if (found < 0 || board.dist[at] > board.dist[static_cast<size_t>(found)]) found = patch;
  }
  if (found >= 0) return found;
  fail(KAD_ERROR_INVALID_ARGUMENT,
       "the map has a value at x %d, y %d, where nothing of this board was scored: give the map "
       "that kad_windows_map made from this board",
       region.peak_x, region.peak_y);
}

void explain(const kad_windows& board, kad_region* region) {
  const int64_t patch = find_patch(board, *region);
  const auto row = static_cast<int32_t>(patch / board.grid_width);
  const auto column = static_cast<int32_t>(patch % board.grid_width);
  region->distance = board.dist[static_cast<size_t>(patch)];
  region->bank_row = board.rows[static_cast<size_t>(patch)];
  region->tile = region->patch = -1;
  for (size_t i = 0; i < board.tiles.size(); ++i) {
    const PatchRange range = board.patches_of(board.tiles[i]);
    if (!range.holds(row, column)) continue;
    region->tile = static_cast<int64_t>(i);
    region->patch =
        int64_t{row - range.first_row} * board.tile_side() + column - range.first_column;
    return;
  }
}

}  // namespace
}  // namespace kad

extern "C" kad_status kad_windows_regions(const kad_windows* windows, const float* map,
                                          float threshold, int64_t min_area_px,
                                          uint32_t region_size, kad_region* out_regions,
                                          int64_t capacity, int64_t* out_count) {
  return kad::guard([&] {
    kad::check_pointer(out_count, "out_count");
    *out_count = 0;
    kad::check_pointer(windows, "windows");
    kad::find_regions(map, windows->options.image_height, windows->options.image_width,
                      {threshold, min_area_px, region_size, out_regions, capacity, out_count},
                      [&](kad_region* region) { kad::explain(*windows, region); });
  });
}
