// Search the patches of a window; the tiles' scores come of them.
#include <algorithm>
#include <vector>

#include "base/float_environment.hpp"
#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "base/rounding.hpp"
#include "search/score.hpp"
#include "windows/windows.hpp"

namespace kad {
namespace {

constexpr int32_t kBlockSide = 32;  // patches searched at once, a side; even

PatchRange core_of(const kad_windows& board, const kad_window& window) {
  const int32_t patch = board.options.patch;
  const auto end = [&](int32_t start, int32_t length, int32_t grid) {
    return std::min((start + length - 1) / patch + 1, grid);
  };
  return {window.core_y / patch, end(window.core_y, window.core_height, board.grid_height),
          window.core_x / patch, end(window.core_x, window.core_width, board.grid_width)};
}

void check_layer(const LayerView& layer, const kad_window& window,
                 const kad_windows_options& options, size_t number) {
  for (int32_t cell = options.patch; cell <= options.align; cell *= 2) {
    if (layer.height == divide_up(window.height, cell) &&
        layer.width == divide_up(window.width, cell)) {
      return;
    }
  }
  fail(KAD_ERROR_INVALID_ARGUMENT,
       "layer %zu of the maps is %lld x %lld (height x width); a window of %d x %d px has one cell "
       "for every %d to %d px of it: give what the network gives for all of the window",
       number, static_cast<long long>(layer.height), static_cast<long long>(layer.width),
       window.height, window.width, options.patch, options.align);
}

void check_maps(const kad_windows& board, const kad_window& window, const kad_base_maps& given,
                const FeatureMaps& maps) {
  if (given.resampling != KAD_RESAMPLE_ALIGNED_BILINEAR) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "maps->resampling must be KAD_RESAMPLE_ALIGNED_BILINEAR for windows, got %d",
         given.resampling);
  }
  const int32_t patch = board.options.patch;
  const auto height = static_cast<int32_t>(divide_up(window.height, patch));
  const auto width = static_cast<int32_t>(divide_up(window.width, patch));
  if (maps.n_tiles() != 1 || maps.grid_height() != height || maps.grid_width() != width) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "maps: expected one tile with a grid of %d x %d patches (height x width) for a window of "
         "%d x %d px, got %lld tiles of %lld x %lld",
         height, width, window.height, window.width, static_cast<long long>(maps.n_tiles()),
         static_cast<long long>(maps.grid_height()), static_cast<long long>(maps.grid_width()));
  }
  for (size_t i = 0; i < maps.layers().size(); ++i) {
    check_layer(maps.layers()[i], window, board.options, i);
  }
}

/// A window of a board with its base maps; patches are counted on the whole image.
class WindowSearch {
 public:
  WindowSearch(kad_windows* board, const kad_window& window, const kad_index& index,
               const FeatureMaps& maps)
      : board_(*board),
        index_(index),
        maps_(maps),
        core_(core_of(*board, window)),
        first_row_(window.y / board->options.patch),
        first_column_(window.x / board->options.patch),
        dist_(static_cast<size_t>(maps.patches())),
        rows_(static_cast<size_t>(maps.patches())) {}

  /// False when a feature is not finite; then the board is as it was.
  bool search(int32_t n_threads) {
    if (!search_windows(index_, maps_, blocks(), 1, n_threads, dist_.data(), rows_.data())) {
      return false;
    }
    for (int32_t row = core_.first_row; row < core_.end_row; ++row) {
      for (int32_t column = core_.first_column; column < core_.end_column; ++column) {
        const auto at = static_cast<size_t>(board_.at(row, column));
        if (board_.live[at] == 0) continue;
        const auto here = static_cast<size_t>(local(row, column));
        board_.dist[at] = dist_[here];
        board_.rows[at] = rows_[here];
      }
    }
    return true;
  }

  /// Take what is the most anomalous patch of a tile so far.
  void judge_tile(const kad_score_options& options, int64_t tile) {
    const auto number = static_cast<size_t>(tile);
    const PatchRange range = overlap(board_.patches_of(board_.tiles[number]), core_);
    TileBest found;
    for (int32_t row = range.first_row; row < range.end_row; ++row) {
      for (int32_t column = range.first_column; column < range.end_column; ++column) {
        const int64_t at = board_.at(row, column);
        if (board_.live[static_cast<size_t>(at)] == 0) continue;
        const float dist = dist_[static_cast<size_t>(local(row, column))];
        if (dist > found.dist) found = {dist, at, 0.0F};
      }
    }
    TileBest& best = board_.best[number];
    const bool first = found.dist == best.dist && found.patch < best.patch;
    if (found.patch < 0 || !(found.dist > best.dist || first)) return;
    const auto row = static_cast<int32_t>(found.patch / board_.grid_width);
    const auto column = static_cast<int32_t>(found.patch % board_.grid_width);
    const int64_t here = local(row, column);
    found.score =
        patch_score(index_, options, maps_, 0, here, found.dist, rows_[static_cast<size_t>(here)]);
    best = found;
  }

 private:
  int64_t local(int32_t row, int32_t column) const {
    return (row - first_row_) * maps_.grid_width() + column - first_column_;
  }

  bool any_live(const PatchRange& range) const {
    for (int32_t row = range.first_row; row < range.end_row; ++row) {
      const auto* begin = board_.live.data() + board_.at(row, range.first_column);
      const auto* end = begin + (range.end_column - range.first_column);
      if (std::find(begin, end, 1) != end) return true;
    }
    return false;
  }

  // The core in blocks that begin at whole cells of the coarse layers; none of nothing but labels.
  std::vector<Window> blocks() const {
    std::vector<Window> found;
    for (int32_t y = core_.first_row; y < core_.end_row; y += kBlockSide) {
      for (int32_t x = core_.first_column; x < core_.end_column; x += kBlockSide) {
        const PatchRange range = overlap({y, y + kBlockSide, x, x + kBlockSide}, core_);
        if (!any_live(range)) continue;
        found.push_back(
            {0, {y - first_row_, range.end_row - y, x - first_column_, range.end_column - x}});
      }
    }
    return found;
  }

  kad_windows& board_;
  const kad_index& index_;
  const FeatureMaps& maps_;
  PatchRange core_;
  int32_t first_row_;  // of the maps, on the whole image
  int32_t first_column_;
  std::vector<float> dist_;  // (P,) of the maps
  std::vector<int64_t> rows_;
};

void score(kad_windows* board, int64_t i, const kad_index* index, const kad_base_maps* given,
           const kad_score_options* given_options, int32_t n_threads) {
  check_pointer(board, "windows");
  check_pointer(index, "index");
  const auto n_windows = static_cast<int64_t>(board->windows.size());
  if (i < 0 || i >= n_windows) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "i must be 0 to %lld, a window's number, got %lld",
         static_cast<long long>(n_windows - 1), static_cast<long long>(i));
  }
  if (board->scored[static_cast<size_t>(i)] != 0) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "window %lld was searched before: expected each window once, as a tile keeps the largest "
         "distance of all searches; create the board anew for other maps",
         static_cast<long long>(i));
  }
  const kad_window& window = board->windows[static_cast<size_t>(i)];
  const FeatureMaps maps(given);
  const kad_score_options options = check_score_options(given_options);
  check_threads(n_threads);
  check_maps(*board, window, *given, maps);
  check_dims(*index, maps);
  WindowSearch search(board, window, *index, maps);
  if (!search.search(n_threads)) {
    fail(KAD_ERROR_NOT_FINITE,
         "the base maps of window %lld hold NaN or Inf: every value must be "
         "finite",
         static_cast<long long>(i));
  }
  parallel_for(static_cast<int64_t>(board->tiles.size()), n_threads, [&](int64_t tile, int32_t) {
    const FloatEnvironment environment;
    search.judge_tile(options, tile);
  });
  board->scored[static_cast<size_t>(i)] = 1;
}

void tiles(const kad_windows* board, float* out_score, float* out_dist, int64_t* out_index) {
  check_pointer(board, "windows");
  check_all_scored(*board);
  const int32_t side = board->tile_side();
  for (size_t i = 0; i < board->tiles.size(); ++i) {
    if (out_score != nullptr) out_score[i] = board->best[i].score;
    const PatchRange range = board->patches_of(board->tiles[i]);
    for (int32_t row = 0; row < side; ++row) {
      const int64_t from = board->at(range.first_row + row, range.first_column);
      const auto to = (static_cast<int64_t>(i) * side + row) * side;
      if (out_dist != nullptr) std::copy_n(board->dist.begin() + from, side, out_dist + to);
      if (out_index != nullptr) std::copy_n(board->rows.begin() + from, side, out_index + to);
    }
  }
}

}  // namespace
}  // namespace kad

extern "C" {

kad_status kad_windows_score(kad_windows* windows, int64_t i, const kad_index* index,
                             const kad_base_maps* maps, const kad_score_options* options,
                             int32_t n_threads) {
  return kad::guard([&] { kad::score(windows, i, index, maps, options, n_threads); });
}

kad_status kad_windows_tiles(const kad_windows* windows, float* out_score, float* out_dist,
                             int64_t* out_index) {
  return kad::guard([&] { kad::tiles(windows, out_score, out_dist, out_index); });
}

}  // extern "C"
