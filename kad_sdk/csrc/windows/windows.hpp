// A board that is scored in windows: the plan, and what was found so far.
#pragma once

#include <cstdint>
#include <vector>

#include "board/board.hpp"
#include "board/tile_map.hpp"
#include "kad/kad.h"

namespace kad {

/// Rows and columns of patches, counted on the whole image; ends are exclusive.
struct PatchRange {
  int32_t first_row;
  int32_t end_row;
  int32_t first_column;
  int32_t end_column;

  bool empty() const { return first_row >= end_row || first_column >= end_column; }
  bool holds(int32_t row, int32_t column) const {
    return row >= first_row && row < end_row && column >= first_column && column < end_column;
  }
};

PatchRange overlap(const PatchRange& a, const PatchRange& b);

/// An active area: its pixels, the patches whose centres lie in it, and how these become pixels.
struct Area {
  kad_rect rect;
  PatchRange patches;
  AxisMatrix rows;
  AxisMatrix columns;
};

/// The most anomalous patch of a tile so far.
struct TileBest {
  float dist = -1.0F;
  int64_t patch = -1;  // on the whole image
  float score = 0.0F;
};

}  // namespace kad

struct kad_windows {
  kad_windows_options options;  // without the caller's arrays
  int32_t grid_height;          // patches of the whole image
  int32_t grid_width;
  std::vector<kad::Area> areas;
  std::vector<kad::TileCorner> tiles;
  std::vector<kad_window> windows;
  std::vector<uint8_t> scored;      // (windows,)
  bool masked = false;              // whether a patch of an area counts for nothing
  std::vector<uint8_t> live;        // (grid_height, grid_width): in an area, and at no label
  std::vector<float> dist;          // (grid_height, grid_width), 0 where not live
  std::vector<int64_t> rows;        // (grid_height, grid_width), -1 where not live
  std::vector<kad::TileBest> best;  // (tiles,)

  int64_t at(int32_t row, int32_t column) const { return int64_t{row} * grid_width + column; }
  /// Patches of a tile, a side.
  int32_t tile_side() const { return options.tile / options.patch; }
  kad::PatchRange patches_of(const kad::TileCorner& tile) const;
};

namespace kad {

/// The patches whose centres lie in a rectangle.
PatchRange patches_in(const kad_rect& rect, int32_t patch);

/// The patch of an area that a pixel of it belongs to.
int64_t patch_at(const kad_windows& windows, const Area& area, int32_t x, int32_t y);

/// Raise KAD_ERROR_INVALID_ARGUMENT unless every window was searched.
void check_all_scored(const kad_windows& windows);

}  // namespace kad
