// A board: tile maps added up, and the tiles they came from.
#pragma once

#include <cstdint>
#include <vector>

#include "base/zero_memory.hpp"
#include "board/tile_map.hpp"
#include "kad/kad.h"

namespace kad {

struct TileCorner {
  int32_t x;
  int32_t y;
};

}  // namespace kad

struct kad_board {
  kad_board_options options;
  kad::AxisMatrix rows;
  kad::AxisMatrix columns;
  kad::Floats sum;                       // (image_height, image_width)
  std::vector<kad::TileCorner> corners;  // (n,) in the order of kad_board_add
  std::vector<float> dist;               // (n, P)
  std::vector<int64_t> index;            // (n, P), -1 where none was given

  int64_t patches() const { return int64_t{options.grid_height} * options.grid_width; }
};
