// The map of a board that was scored in windows.
//
// An area's patches D become pixels as a tile's do, U D U' (tile_map.hpp). Where some of them count
// for nothing (M is 0 there, 1 elsewhere) the map is U (D M) U' / U M U': the others share their
// weight.
#include <algorithm>
#include <limits>
#include <vector>

#include "base/float_environment.hpp"
#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "board/board_kernels.hpp"
#include "windows/windows.hpp"

namespace kad {
namespace {

constexpr int32_t kStripRows = 64;
constexpr float kLeastWeight = 1e-6F;  // of the patches that count, for a pixel to have a value

/// Which patches count.
struct Mask {
  const uint8_t* live;  // (grid_height, grid_width)
  bool whole;           // all of every area's
};

/// Pixel rows of one area, enlarged and smoothed, a strip at a time.
class AreaRows {
 public:
  AreaRows(const kad_windows& board, const Area& area, const Mask& mask)
      : board_(board),
        area_(area),
        mask_(mask),
        kernels_(board_kernels()),
        n_blocks_(static_cast<int32_t>(area.columns.block_first.size())),
        stride_(int64_t{n_blocks_} * kBlock),
        values_(static_cast<size_t>(stride_)),
        weights_(mask.whole ? 0 : static_cast<size_t>(stride_)),
        patches_(static_cast<size_t>(area.columns.grid)) {}

  /// Enlarge, along x, the patches that pixel rows [begin, end) of the area are made of.
  void load(int32_t begin, int32_t end) {
    const AxisMatrix& rows = area_.rows;
    int32_t last = 0;
    first_ = rows.grid;
    for (auto row = static_cast<size_t>(begin); row < static_cast<size_t>(end); ++row) {
      first_ = std::min(first_, rows.first[row]);
      last = std::max(last, rows.first[row] + rows.count[row]);
    }
    const auto size = static_cast<size_t>((last - first_) * stride_);
    enlarged_.resize(size);
    if (!mask_.whole) shares_.resize(size);
    for (int32_t g = first_; g < last; ++g) load_row(g);
  }

  /// Add the values of one pixel row to `sum` and 1 to `count`, where there is one.
  void add(int32_t row, float* sum, float* count) {
    smooth(row, enlarged_, &values_);
    if (!mask_.whole) smooth(row, shares_, &weights_);
    const int32_t y = area_.rect.y + row;
    const int32_t patch = board_.options.patch;
    const PatchRange& p = area_.patches;
    const uint8_t* live =
        mask_.live + board_.at(std::clamp(y / patch, p.first_row, p.end_row - 1), 0);
    for (int32_t i = 0; i < area_.rect.width; ++i) {
      const auto at = static_cast<size_t>(i);
      if (mask_.whole) {
        sum[i] += values_[at];
        count[i] += 1.0F;
        continue;
      }
      const int32_t column =
          std::clamp((area_.rect.x + i) / patch, p.first_column, p.end_column - 1);
      if (live[column] == 0 || weights_[at] < kLeastWeight) continue;
      sum[i] += values_[at] / weights_[at];
      count[i] += 1.0F;
    }
  }

 private:
  void enlarge(const float* row, float* out) const {
    const AxisMatrix& columns = area_.columns;
    kernels_.enlarge_row(row, columns.block_first.data(), columns.block_count.data(),
                         columns.block_offset.data(), columns.block_weights.data(), n_blocks_, out);
  }

  void load_row(int32_t g) {
    const int64_t from = board_.at(area_.patches.first_row + g, area_.patches.first_column);
    const auto to = static_cast<size_t>((g - first_) * stride_);
    const float* dist = board_.dist.data() + from;
    if (mask_.whole) {
      enlarge(dist, enlarged_.data() + to);
      return;
    }
    const uint8_t* live = mask_.live + from;
    for (size_t i = 0; i < patches_.size(); ++i) patches_[i] = live[i] != 0 ? dist[i] : 0.0F;
    enlarge(patches_.data(), enlarged_.data() + to);
    for (size_t i = 0; i < patches_.size(); ++i) patches_[i] = live[i] != 0 ? 1.0F : 0.0F;
    enlarge(patches_.data(), shares_.data() + to);
  }

  void smooth(int32_t row, const std::vector<float>& from, std::vector<float>* out) const {
    const AxisMatrix& rows = area_.rows;
    const auto r = static_cast<size_t>(row);
    std::fill(out->begin(), out->end(), 0.0F);
    kernels_.add_row(from.data() + (rows.first[r] - first_) * stride_, stride_,
                     rows.weights.data() + rows.offset[r], rows.count[r], area_.rect.width,
                     out->data());
  }

  const kad_windows& board_;
  const Area& area_;
  const Mask& mask_;
  const BoardKernels& kernels_;
  int32_t n_blocks_;
  int64_t stride_;
  int32_t first_ = 0;            // patch row that `enlarged_` begins with
  std::vector<float> enlarged_;  // (patch rows, stride_)
  std::vector<float> shares_;    // the same of M
  std::vector<float> values_;    // (stride_,) of a pixel row
  std::vector<float> weights_;   // the same of M
  std::vector<float> patches_;   // a row of them
};

// Rows [begin, end) of the map.
void make_strip(const kad_windows& board, const Mask& mask, int32_t begin, int32_t end,
                float* out) {
  const int32_t width = board.options.image_width;
  const auto size = static_cast<size_t>(int64_t{end - begin} * width);
  std::fill_n(out, size, 0.0F);
  std::vector<float> count(size, 0.0F);
  for (const Area& area : board.areas) {
    const int32_t first = std::max(begin, area.rect.y) - area.rect.y;
    const int32_t last = std::min(end - area.rect.y, area.rect.height);
    if (first >= last) continue;
    AreaRows rows(board, area, mask);
    rows.load(first, last);
    for (int32_t row = first; row < last; ++row) {
      const int64_t at = int64_t{area.rect.y + row - begin} * width + area.rect.x;
      rows.add(row, out + at, count.data() + at);
    }
  }
  constexpr float kUncovered = std::numeric_limits<float>::quiet_NaN();
  for (size_t i = 0; i < size; ++i) {
    out[i] = count[i] > 0.0F ? out[i] / count[i] : kUncovered;
  }
}

// Patches of the tiles that are kept.
std::vector<uint8_t> kept_patches(const kad_windows& board, const uint8_t* kept) {
  std::vector<uint8_t> live(board.live.size(), 0);
  for (size_t i = 0; i < board.tiles.size(); ++i) {
    if (kept[i] == 0) continue;
    const PatchRange range = board.patches_of(board.tiles[i]);
    for (int32_t row = range.first_row; row < range.end_row; ++row) {
      const int64_t from = board.at(row, range.first_column);
      std::copy_n(board.live.begin() + from, range.end_column - range.first_column,
                  live.begin() + from);
    }
  }
  return live;
}

void map(const kad_windows* board, const uint8_t* kept, int32_t n_threads, float* out) {
  check_pointer(board, "windows");
  check_threads(n_threads);
  check_pointer(out, "out_map");
  check_all_scored(*board);
  std::vector<uint8_t> some;
  if (kept != nullptr) some = kept_patches(*board, kept);
  const Mask mask = {kept != nullptr ? some.data() : board->live.data(),
                     kept == nullptr && !board->masked};
  const int32_t height = board->options.image_height;
  const int32_t n_strips = (height - 1) / kStripRows + 1;
  parallel_for(n_strips, n_threads, [&](int64_t strip, int32_t) {
    const FloatEnvironment environment;
    const auto begin = static_cast<int32_t>(strip) * kStripRows;
    const int32_t end = begin + std::min(kStripRows, height - begin);
    make_strip(*board, mask, begin, end, out + int64_t{begin} * board->options.image_width);
  });
}

}  // namespace
}  // namespace kad

extern "C" kad_status kad_windows_map(const kad_windows* windows, const uint8_t* kept,
                                      int32_t n_threads, float* out_map) {
  return kad::guard([&] { kad::map(windows, kept, n_threads, out_map); });
}
