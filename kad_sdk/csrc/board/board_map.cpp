// The board map: sums divided by how many tiles cover each pixel.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "board/board.hpp"

namespace kad {
namespace {

constexpr int32_t kStripRows = 64;

/// How many tiles cover each pixel of a row, for rows in rising order. Counts are not kept with the
/// sums: a row's counts change only where a tile begins or ends.
class RowCoverage {
 public:
  /// `by_y` holds the corners sorted by y.
  RowCoverage(const std::vector<TileCorner>& by_y, int32_t tile, int32_t width, int32_t row)
      : by_y_(by_y),
        tile_(tile),
        change_(static_cast<size_t>(width) + 1, 0),
        count_(static_cast<size_t>(width)),
        row_(row) {
    for (auto corner = from(row - tile + 1); corner != from(row + 1); ++corner) apply(*corner, 1);
    sum_up();
  }

  const float* counts() const { return count_.data(); }

  void advance() {
    ++row_;
    const auto ended = from(row_ - tile_);
    const auto still_on = from(row_ - tile_ + 1);
    const auto begun = from(row_);
    const auto not_yet = from(row_ + 1);
    for (auto corner = ended; corner != still_on; ++corner) apply(*corner, -1);
    for (auto corner = begun; corner != not_yet; ++corner) apply(*corner, 1);
    if (ended != still_on || begun != not_yet) sum_up();
  }

 private:
  using Iterator = std::vector<TileCorner>::const_iterator;

  // First corner whose y is at least `row`.
  Iterator from(int32_t row) const {
    return std::lower_bound(by_y_.begin(), by_y_.end(), row,
                            [](const TileCorner& corner, int32_t y) { return corner.y < y; });
  }

  void apply(const TileCorner& corner, int64_t sign) {
    change_[static_cast<size_t>(corner.x)] += sign;
    change_[static_cast<size_t>(corner.x) + static_cast<size_t>(tile_)] -= sign;
  }

  void sum_up() {
    int64_t running = 0;
    for (size_t x = 0; x < count_.size(); ++x) {
      running += change_[x];
      count_[x] = static_cast<float>(running);
    }
  }

  const std::vector<TileCorner>& by_y_;
  int32_t tile_;
  std::vector<int64_t> change_;  // (width + 1,)
  std::vector<float> count_;     // (width,)
  int32_t row_;
};

void average_row(const float* sum, const float* count, int32_t width, float* out) {
  constexpr float kUncovered = std::numeric_limits<float>::quiet_NaN();
  for (int32_t x = 0; x < width; ++x) {
    const float mean = sum[x] / std::max(count[x], 1.0F);
    out[x] = count[x] > 0.0F ? mean : kUncovered;
  }
}

void map(const kad_board* board, int32_t n_threads, float* out) {
  check_pointer(board, "board");
  check_threads(n_threads);
  check_pointer(out, "out_map");
  std::vector<TileCorner> by_y = board->corners;
  std::sort(by_y.begin(), by_y.end(),
            [](const TileCorner& a, const TileCorner& b) { return a.y < b.y; });
  const int32_t height = board->options.image_height;
  const int32_t width = board->options.image_width;
  const int32_t n_strips = (height - 1) / kStripRows + 1;
  parallel_for(n_strips, n_threads, [&](int64_t strip, int32_t) {
    const auto begin = static_cast<int32_t>(strip) * kStripRows;
    const int32_t end = begin + std::min(kStripRows, height - begin);
    RowCoverage coverage(by_y, board->options.tile, width, begin);
    for (int32_t y = begin; y < end; ++y) {
      if (y > begin) coverage.advance();
      const int64_t row = int64_t{y} * width;
      average_row(board->sum.get() + row, coverage.counts(), width, out + row);
    }
  });
}

}  // namespace
}  // namespace kad

extern "C" kad_status kad_board_map(const kad_board* board, int32_t n_threads, float* out_map) {
  return kad::guard([&] { kad::map(board, n_threads, out_map); });
}
