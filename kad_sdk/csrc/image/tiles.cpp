// Which tiles of an image are looked at.
#include <algorithm>
#include <cstdint>
#include <unordered_set>
#include <utility>
#include <vector>

#include "base/guard.hpp"
#include "image/image.hpp"

namespace kad {
namespace {

struct Point {
  int32_t x;
  int32_t y;
};

kad_tile_grid check_grid(const kad_tile_grid* given) {
  const kad_tile_grid grid =
      read_struct(given, KAD_FIRST_SIZE(kad_tile_grid, n_labels), "kad_tile_grid");
  check_image_size(grid.image_height, grid.image_width);
  if (grid.stride < 1) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "stride must be at least 1 px, got %d", grid.stride);
  }
  if (grid.cover_edges != 0 && grid.cover_edges != 1) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "cover_edges must be 0 or 1, got %d", grid.cover_edges);
  }
  check_tile_side(grid.tile, grid.image_height, grid.image_width);
  check_rectangles(grid.borders, grid.n_borders, "borders", grid.image_height, grid.image_width);
  check_rectangles(grid.labels, grid.n_labels, "labels", grid.image_height, grid.image_width);
  return grid;
}

// Tile starts along one axis: floor((length - tile) / stride) + 1 of them, and, to cover the edge,
// one more that ends where the axis does.
struct Axis {
  int32_t start;
  int32_t last;  // offset of the tile that ends where the axis does
  int32_t stride;
  int64_t regular;
  int64_t count;

  Axis(int32_t axis_start, int32_t length, const kad_tile_grid& grid)
      : start(axis_start), last(length - grid.tile), stride(grid.stride) {
    regular = last / stride + 1;
    count = regular + (grid.cover_edges && last % stride != 0 ? 1 : 0);
  }

  int32_t at(int64_t i) const {
    return start + (i < regular ? static_cast<int32_t>(i * stride) : last);
  }
};

bool touches_label(Point tile, const kad_tile_grid& grid) {
  return std::any_of(grid.labels, grid.labels + grid.n_labels, [&](const kad_rect& label) {
    return tile.x < label.x + label.width && label.x - tile.x < grid.tile &&
           tile.y < label.y + label.height && label.y - tile.y < grid.tile;
  });
}

class Planner {
 public:
  explicit Planner(const kad_tile_grid& grid) : grid_(grid) {}

  void add_area(const kad_rect& area) {
    const Axis columns(area.x, area.width, grid_);
    const Axis rows(area.y, area.height, grid_);
    examined_ += columns.count * rows.count;
    if (examined_ > INT32_MAX) {
      fail(KAD_ERROR_INVALID_ARGUMENT,
           "the grid has more than %d tiles: use a larger stride than %d px", INT32_MAX,
           grid_.stride);
    }
    for (int64_t row = 0; row < rows.count; ++row) {
      for (int64_t column = 0; column < columns.count; ++column) {
        add_tile({columns.at(column), rows.at(row)});
      }
    }
  }

  std::vector<Point> take() { return std::move(tiles_); }

 private:
  void add_tile(Point tile) {
    if (touches_label(tile, grid_)) return;
    const bool may_repeat = grid_.n_borders > 1;
    const uint64_t key = (static_cast<uint64_t>(tile.y) << 32) | static_cast<uint32_t>(tile.x);
    if (may_repeat && !seen_.insert(key).second) return;
    tiles_.push_back(tile);
  }

  const kad_tile_grid& grid_;
  std::vector<Point> tiles_;
  std::unordered_set<uint64_t> seen_;
  int64_t examined_ = 0;
};

std::vector<Point> plan(const kad_tile_grid& grid) {
  Planner planner(grid);
  if (grid.n_borders == 0) planner.add_area({0, 0, grid.image_width, grid.image_height});
  for (int64_t i = 0; i < grid.n_borders; ++i) {
    check_border(grid.borders[i], i, grid.tile);
    planner.add_area(grid.borders[i]);
  }
  return planner.take();
}

void plan_into(const kad_tile_grid* grid, int32_t* out_xy, int64_t capacity, int64_t* out_count) {
  check_pointer(out_count, "out_count");
  *out_count = 0;
  const kad_tile_grid checked = check_grid(grid);
  check_count(capacity, 1, "capacity");
  if (capacity > 0) check_pointer(out_xy, "out_xy");
  const std::vector<Point> tiles = plan(checked);
  *out_count = static_cast<int64_t>(tiles.size());
  check_room(capacity, *out_count, "out_xy", "tiles");
  for (size_t i = 0; i < tiles.size(); ++i) {
    out_xy[2 * i] = tiles[i].x;
    out_xy[2 * i + 1] = tiles[i].y;
  }
}

}  // namespace
}  // namespace kad

extern "C" kad_status kad_tiles_plan(const kad_tile_grid* grid, int32_t* out_xy, int64_t capacity,
                                     int64_t* out_count) {
  return kad::guard([&] { kad::plan_into(grid, out_xy, capacity, out_count); });
}
