#include "search/search.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <numeric>
#include <vector>

#include "base/float_environment.hpp"
#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "base/rounding.hpp"
#include "search/dense_search.hpp"
#include "search/sieve/query_block.hpp"
#include "search/sieve/sieve_search.hpp"

namespace kad {
namespace {

// One worker's searches: its scratch, kept from one block of queries to the next.
class BlockSearch {
 public:
  BlockSearch(const kad_index& index, const SearchKernels& kernels, int32_t k)
      : index_(index),
        kernels_(kernels),
        block_(index, kernels, k),
        dense_(index, kernels, tally_) {
    if (index.sieve) sieve_ = std::make_unique<SieveSearch>(index, kernels, tally_);
  }

  /// Search n plain vectors. False when one of them is not finite.
  bool run(const float* queries, int64_t n, float* out_dist, int64_t* out_index) {
    const FloatEnvironment environment;
    tally_.start();
    if (!search(queries, n, nullptr)) return false;
    block_.store(out_dist, out_index);
    index_.totals.add(tally_);
    return true;
  }

  /// Search the patches of a window; the outputs are those of its tile. `split` is the layout of
  /// the maps, NULL where the index's does not match it.
  bool run(const FeatureMaps& maps, const Window& window, const SplitLayout* split, float* out_dist,
           int64_t* out_index) {
    const FloatEnvironment environment;
    tally_.start();
    const Region& patches = window.patches;
    features_.resize(static_cast<size_t>(patches.size() * maps.dims()));
    maps.features(window, kernels_, scratch_, features_.data());
    if (split != nullptr) coarse_.load(*split, maps, window, index_.centre.data());
    if (!search(features_.data(), patches.size(), split != nullptr ? &coarse_ : nullptr)) {
      return false;
    }
    for (int64_t y = 0; y < patches.n_rows; ++y) {
      const int64_t to = (patches.first_row + y) * maps.grid_width() + patches.first_column;
      block_.store(y * patches.n_columns, patches.n_columns, out_dist + to * block_.k(),
                   out_index + to * block_.k());
    }
    index_.totals.add(tally_);
    return true;
  }

 private:
  bool search(const float* queries, int64_t n, const CoarseWindow* coarse) {
    if (!block_.load(queries, n)) return false;
    tally_.add(kQueries, n);
    if (sieve_) {
      dense_.run(block_, sieve_->run(block_, coarse));
    } else {
      all_.resize(static_cast<size_t>(n));
      std::iota(all_.begin(), all_.end(), 0);
      dense_.run(block_, all_);
    }
    return true;
  }

  const kad_index& index_;
  const SearchKernels& kernels_;
  Tally tally_;
  QueryBlock block_;
  DenseSearch dense_;
  std::unique_ptr<SieveSearch> sieve_;
  std::vector<int32_t> all_;
  std::vector<float> features_;  // of a window
  std::vector<float> scratch_;
  CoarseWindow coarse_;
};

std::vector<std::unique_ptr<BlockSearch>> make_workers(const kad_index& index,
                                                       const SearchKernels& kernels, int32_t k,
                                                       int64_t n_tasks, int32_t n_threads) {
  std::vector<std::unique_ptr<BlockSearch>> workers(
      static_cast<size_t>(worker_count(n_tasks, n_threads)));
  for (auto& worker : workers) worker = std::make_unique<BlockSearch>(index, kernels, k);
  return workers;
}

// Blocks as large as possible, because each of them goes through the whole bank, but as many for
// one thread as for another.
int64_t block_size(int64_t n, int32_t n_threads, int64_t step) {
  const int64_t fewest = (n + QueryBlock::kMostQueries - 1) / QueryBlock::kMostQueries;
  const int64_t n_blocks = round_up(fewest, int64_t{n_threads});
  return std::clamp<int64_t>(round_up((n + n_blocks - 1) / n_blocks, step), 1,
                             QueryBlock::kMostQueries);
}

// The first of n vectors (n, dims) that holds NaN or Inf.
int64_t first_not_finite(const float* values, int64_t n, int64_t dims) {
  for (int64_t i = 0; i < n; ++i) {
    if (has_non_finite(values + i * dims, dims)) return i;
  }
  return n;
}

[[noreturn]] void name_not_finite(const FeatureMaps& maps, const SearchKernels& kernels) {
  std::vector<float> scratch, features(static_cast<size_t>(maps.patches() * maps.dims()));
  for (int64_t tile = 0; tile < maps.n_tiles(); ++tile) {
    maps.features(maps.whole(tile), kernels, scratch, features.data());
    const int64_t bad = first_not_finite(features.data(), maps.patches(), maps.dims());
    if (bad == maps.patches()) continue;
    fail(KAD_ERROR_NOT_FINITE,
         "the base maps of tile %lld hold NaN or Inf at patch %lld: every value must be finite",
         static_cast<long long>(tile), static_cast<long long>(bad));
  }
  fail(KAD_ERROR_INTERNAL, "the base maps changed while they were searched");
}

}  // namespace

void check_k(const kad_index& index, int32_t k) {
  if (k < 1 || k > kMostNeighbours || k > index.rows) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "k must be at least 1, at most %d and at most the number of bank rows (%lld), got %d",
         kMostNeighbours, static_cast<long long>(index.rows), k);
  }
}

void check_dims(const kad_index& index, const FeatureMaps& maps) {
  if (maps.dims() != index.dims) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "the base maps have %lld channels together, the bank has %lld dimensions: they must be "
         "equal",
         static_cast<long long>(maps.dims()), static_cast<long long>(index.dims));
  }
}

bool search(const kad_index& index, const float* queries, int64_t n, int32_t k, int32_t n_threads,
            float* out_dist, int64_t* out_index) {
  const SearchKernels& kernels = search_kernels(current_level());
  const int64_t block = block_size(n, n_threads, kernels.tile_queries);
  const int64_t n_blocks = (n + block - 1) / block;
  const auto workers = make_workers(index, kernels, k, n_blocks, n_threads);
  std::atomic<bool> finite{true};
  parallel_for(n_blocks, n_threads, [&](int64_t task, int32_t worker) {
    const int64_t first = task * block;
    if (!workers[static_cast<size_t>(worker)]->run(queries + first * index.dims,
                                                   std::min(block, n - first), out_dist + first * k,
                                                   out_index + first * k)) {
      finite = false;
    }
  });
  return finite;
}

bool search_windows(const kad_index& index, const FeatureMaps& maps,
                    const std::vector<Window>& windows, int32_t k, int32_t n_threads,
                    float* out_dist, int64_t* out_index) {
  const SearchKernels& kernels = search_kernels(current_level());
  const auto n_windows = static_cast<int64_t>(windows.size());
  const auto workers = make_workers(index, kernels, k, n_windows, n_threads);
  const SplitLayout layout(maps);
  const SplitLayout* split = index.sieve && index.layout.matches(layout) ? &layout : nullptr;
  std::atomic<bool> finite{true};
  parallel_for(n_windows, n_threads, [&](int64_t task, int32_t worker) {
    const Window& window = windows[static_cast<size_t>(task)];
    const int64_t first = window.tile * maps.patches() * k;
    if (!workers[static_cast<size_t>(worker)]->run(maps, window, split, out_dist + first,
                                                   out_index + first)) {
      finite = false;
    }
  });
  return finite;
}

void search_maps(const kad_index& index, const FeatureMaps& maps, int32_t k, int32_t n_threads,
                 float* out_dist, int64_t* out_index) {
  const std::vector<Window> windows = maps.windows(QueryBlock::kMostQueries, n_threads);
  if (!search_windows(index, maps, windows, k, n_threads, out_dist, out_index)) {
    name_not_finite(maps, search_kernels(current_level()));
  }
}

}  // namespace kad

extern "C" {

kad_status kad_index_query(const kad_index* index, const float* queries, int64_t n, int32_t k,
                           int32_t n_threads, float* out_dist, int64_t* out_index) {
  return kad::guard([&] {
    kad::check_pointer(index, "index");
    kad::check_threads(n_threads);
    kad::check_k(*index, k);
    kad::check_count(n, std::max<int64_t>(index->dims, k), "n");
    if (n == 0) return;
    kad::check_pointer(queries, "queries");
    kad::check_pointer(out_dist, "out_dist");
    kad::check_pointer(out_index, "out_index");
    if (kad::search(*index, queries, n, k, n_threads, out_dist, out_index)) return;
    kad::fail(KAD_ERROR_NOT_FINITE, "query %lld holds NaN or Inf: every value must be finite",
              static_cast<long long>(kad::first_not_finite(queries, n, index->dims)));
  });
}

kad_status kad_index_query_maps(const kad_index* index, const kad_base_maps* maps, int32_t k,
                                int32_t n_threads, float* out_dist, int64_t* out_index) {
  return kad::guard([&] {
    kad::check_pointer(index, "index");
    const kad::FeatureMaps features(maps);
    kad::check_threads(n_threads);
    kad::check_k(*index, k);
    kad::check_dims(*index, features);
    if (features.n_tiles() == 0) return;
    kad::check_pointer(out_dist, "out_dist");
    kad::check_pointer(out_index, "out_index");
    kad::search_maps(*index, features, k, n_threads, out_dist, out_index);
  });
}

}  // extern "C"
