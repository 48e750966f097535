// Accumulate tile maps on the board and average them.
//
// Work is split into strips of board rows. A strip's worker goes through all tiles in the order in
// which they were added, so every pixel's sum is made in that order whatever the split.
#include "board/board.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "board/board_kernels.hpp"
#include "image/image.hpp"

namespace kad {
namespace {

constexpr int32_t kStripRows = 64;

void check_options(const kad_board_options* options) {
  check_image_size(options->image_height, options->image_width);
  check_tile_side(options->tile, options->image_height, options->image_width);
  const int32_t smallest = std::min(options->grid_height, options->grid_width);
  const int32_t largest = std::max(options->grid_height, options->grid_width);
  if (smallest < 1 || largest > options->tile) {
    fail(
        KAD_ERROR_INVALID_ARGUMENT,
        "grid must be 1 to %d patches a side (the tile's side in px), got %d x %d (height x width)",
        options->tile, options->grid_height, options->grid_width);
  }
  check_smoothing(options->smoothing_radius, options->smoothing_sigma);
}

void create(const kad_board_options* given, kad_board** out_board) {
  check_pointer(out_board, "out_board");
  *out_board = nullptr;
  const kad_board_options options =
      read_struct(given, KAD_FIRST_SIZE(kad_board_options, smoothing_sigma), "kad_board_options");
  check_options(&options);
  check_count(options.image_height, options.image_width, "image_height");
  auto board = std::make_unique<kad_board>();
  board->options = options;
  const auto axis = [&](int32_t grid) {
    return make_axis_matrix(options.tile, grid, static_cast<double>(options.smoothing_sigma),
                            options.smoothing_radius);
  };
  board->rows = axis(options.grid_height);
  board->columns = axis(options.grid_width);
  board->sum = allocate_zeros(int64_t{options.image_height} * options.image_width);
  *out_board = board.release();
}

/// The tiles of one kad_board_add.
struct Addition {
  const int32_t* xy;
  int64_t n_tiles;
  const float* dist;
};

void check_addition(const kad_board& board, const Addition& tiles) {
  const int64_t patches = board.patches();
  for (int64_t i = 0; i < tiles.n_tiles; ++i) {
    check_tile_inside(i, tiles.xy + 2 * i, board.options.tile, board.options.image_height,
                      board.options.image_width);
    const float* dist = tiles.dist + i * patches;
    const float* bad =
        std::find_if(dist, dist + patches, [](float d) { return !std::isfinite(d); });
    if (bad != dist + patches) {
      fail(KAD_ERROR_NOT_FINITE, "dist of tile %lld, patch %lld, is %g: distances must be finite",
           static_cast<long long>(i), static_cast<long long>(bad - dist),
           static_cast<double>(*bad));
    }
  }
}

/// Adds the part of the tile maps that lies in some rows of the board.
class StripAdder {
 public:
  explicit StripAdder(kad_board* board)
      : board_(*board),
        kernels_(board_kernels()),
        n_blocks_(static_cast<int32_t>(board->columns.block_first.size())),
        stride_(int64_t{n_blocks_} * kBlock),
        enlarged_(static_cast<size_t>(board->options.grid_height * stride_)) {}

  void add(const Addition& tiles, int32_t row_begin, int32_t row_end) {
    for (int64_t i = 0; i < tiles.n_tiles; ++i) {
      const int32_t x = tiles.xy[2 * i];
      const int32_t y = tiles.xy[2 * i + 1];
      const int32_t begin = std::max(row_begin, y) - y;
      const int32_t end = std::min(row_end - y, board_.options.tile);
      if (begin < end) add_tile(tiles.dist + i * board_.patches(), x, y, begin, end);
    }
  }

 private:
  // Rows [begin, end) of the tile map of the tile at (x, y).
  void add_tile(const float* dist, int32_t x, int32_t y, int32_t begin, int32_t end) {
    const AxisMatrix& rows = board_.rows;
    enlarge_grid_rows(dist, begin, end);
    for (auto row = static_cast<size_t>(begin); row < static_cast<size_t>(end); ++row) {
      float* sum =
          board_.sum.get() + (y + static_cast<int64_t>(row)) * board_.options.image_width + x;
      kernels_.add_row(enlarged_.data() + rows.first[row] * stride_, stride_,
                       rows.weights.data() + rows.offset[row], rows.count[row], board_.options.tile,
                       sum);
    }
  }

  // Enlarge, along x, the grid rows that pixel rows [begin, end) depend on.
  void enlarge_grid_rows(const float* dist, int32_t begin, int32_t end) {
    const AxisMatrix& rows = board_.rows;
    const AxisMatrix& columns = board_.columns;
    int32_t first = rows.grid;
    int32_t last = 0;
    for (auto row = static_cast<size_t>(begin); row < static_cast<size_t>(end); ++row) {
      first = std::min(first, rows.first[row]);
      last = std::max(last, rows.first[row] + rows.count[row]);
    }
    for (int32_t g = first; g < last; ++g) {
      kernels_.enlarge_row(dist + int64_t{g} * columns.grid, columns.block_first.data(),
                           columns.block_count.data(), columns.block_offset.data(),
                           columns.block_weights.data(), n_blocks_, enlarged_.data() + g * stride_);
    }
  }

  kad_board& board_;
  const BoardKernels& kernels_;
  int32_t n_blocks_;
  int64_t stride_;
  std::vector<float> enlarged_;  // (grid_height, stride_)
};

int32_t strip_rows(int32_t rows, int32_t n_threads) {
  return std::clamp(rows / std::min(n_threads, rows) / 4, 16, kStripRows);
}

void add_maps(kad_board* board, const Addition& tiles, int32_t n_threads) {
  int32_t top = board->options.image_height;
  int32_t bottom = 0;
  for (int64_t i = 0; i < tiles.n_tiles; ++i) {
    top = std::min(top, tiles.xy[2 * i + 1]);
    bottom = std::max(bottom, tiles.xy[2 * i + 1] + board->options.tile);
  }
  const int32_t height = strip_rows(bottom - top, n_threads);
  const int32_t n_strips = (bottom - top - 1) / height + 1;  // no sum: boards may be 2^31 - 1 high
  std::vector<StripAdder> adders(static_cast<size_t>(worker_count(n_strips, n_threads)),
                                 StripAdder(board));
  parallel_for(n_strips, n_threads, [&](int64_t strip, int32_t worker) {
    const int32_t begin = top + static_cast<int32_t>(strip) * height;
    const int32_t end = begin + std::min(height, bottom - begin);
    adders[static_cast<size_t>(worker)].add(tiles, begin, end);
  });
}

// Room for n more items, growing geometrically.
template <class T>
void reserve_more(std::vector<T>* items, int64_t n) {
  const size_t wanted = items->size() + static_cast<size_t>(n);
  if (wanted > items->capacity()) items->reserve(std::max(wanted, 2 * items->capacity()));
}

void add(kad_board* board, const int32_t* xy, int64_t n_tiles, const float* dist,
         const int64_t* index, int32_t n_threads) {
  check_pointer(board, "board");
  check_threads(n_threads);
  const int64_t patches = board->patches();
  check_count(n_tiles, patches, "n_tiles");
  if (n_tiles == 0) return;
  check_pointer(xy, "xy");
  check_pointer(dist, "dist");
  const Addition tiles{xy, n_tiles, dist};
  check_addition(*board, tiles);
  // Memory first: after this nothing fails half-way.
  reserve_more(&board->corners, n_tiles);
  reserve_more(&board->dist, n_tiles * patches);
  reserve_more(&board->index, n_tiles * patches);
  add_maps(board, tiles, n_threads);
  for (int64_t i = 0; i < n_tiles; ++i) board->corners.push_back({xy[2 * i], xy[2 * i + 1]});
  board->dist.insert(board->dist.end(), dist, dist + n_tiles * patches);
  if (index != nullptr) {
    board->index.insert(board->index.end(), index, index + n_tiles * patches);
  } else {
    board->index.insert(board->index.end(), static_cast<size_t>(n_tiles * patches), -1);
  }
}

}  // namespace
}  // namespace kad

extern "C" {

kad_status kad_board_create(const kad_board_options* options, kad_board** out_board) {
  return kad::guard([&] { kad::create(options, out_board); });
}

void kad_board_close(kad_board* board) { delete board; }

kad_status kad_board_clear(kad_board* board) {
  return kad::guard([&] {
    kad::check_pointer(board, "board");
    std::fill_n(board->sum.get(), int64_t{board->options.image_height} * board->options.image_width,
                0.0F);
    board->corners.clear();
    board->dist.clear();
    board->index.clear();
  });
}

kad_status kad_board_add(kad_board* board, const int32_t* xy, int64_t n_tiles, const float* dist,
                         const int64_t* index, int32_t n_threads) {
  return kad::guard([&] { kad::add(board, xy, n_tiles, dist, index, n_threads); });
}

}  // extern "C"
