// How the queries of a block lie beside each other.
#pragma once

#include <cstdint>

namespace kad {

/// Queries in rows, each like those around it, so that what is found for one helps its neighbours.
struct QueryGrid {
  int64_t width;
  int64_t height;
  int64_t cell;  // side of the square cells whose queries are alike; 1 where they are not
};

/// The grid that vectors seem to come from, by their coordinates (n, width).
QueryGrid find_grid(const float* coordinates, int64_t n, int64_t width);

}  // namespace kad
