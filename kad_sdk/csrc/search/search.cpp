#include "search/search.hpp"

#include <algorithm>
#include <atomic>
#include <memory>
#include <numeric>

#include "base/float_environment.hpp"
#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "search/dense_search.hpp"
#include "search/sieve/query_block.hpp"
#include "search/sieve/sieve_search.hpp"

namespace kad {
namespace {

constexpr int64_t kGroupFloats = int64_t{8} << 20;  // features held at once, 32 MiB

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// One worker's searches: its scratch, kept from one block of queries to the next.
class BlockSearch {
 public:
  BlockSearch(const kad_index& index, const SearchKernels& kernels, const CodeKernels& codes,
              int32_t k)
      : index_(index), block_(index, kernels, k), dense_(index, kernels, tally_) {
    if (index.sieve) sieve_ = std::make_unique<SieveSearch>(index, codes, tally_);
  }

  bool run(const float* queries, int64_t n, float* out_dist, int64_t* out_index) {
    const FloatEnvironment environment;
    tally_.start();
    if (!block_.load(queries, n)) return false;
    tally_.add(kQueries, n);
    if (sieve_) {
      dense_.run(block_, sieve_->run(block_));
    } else {
      all_.resize(static_cast<size_t>(n));
      std::iota(all_.begin(), all_.end(), 0);
      dense_.run(block_, all_);
    }
    block_.store(out_dist, out_index);
    index_.totals.add(tally_);
    return true;
  }

 private:
  const kad_index& index_;
  Tally tally_;
  QueryBlock block_;
  DenseSearch dense_;
  std::unique_ptr<SieveSearch> sieve_;
  std::vector<int32_t> all_;
};

// The first of n vectors (n, dims) that holds NaN or Inf.
int64_t first_not_finite(const float* values, int64_t n, int64_t dims) {
  for (int64_t i = 0; i < n; ++i) {
    if (has_non_finite(values + i * dims, dims)) return i;
  }
  return n;
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
  const CodeKernels& codes = code_kernels(current_level());
  // Blocks as large as possible, because each of them goes through the whole bank, but one for each
  // thread.
  const int64_t share = round_up((n + n_threads - 1) / n_threads, kernels.tile_queries);
  const int64_t block = std::clamp<int64_t>(share, 1, QueryBlock::kMostQueries);
  const int64_t n_blocks = (n + block - 1) / block;
  std::vector<std::unique_ptr<BlockSearch>> workers(
      static_cast<size_t>(worker_count(n_blocks, n_threads)));
  for (auto& worker : workers) worker = std::make_unique<BlockSearch>(index, kernels, codes, k);
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

void search_features(const kad_index& index, const float* features, int64_t first_tile,
                     int64_t n_tiles, int64_t patches, int32_t k, int32_t n_threads,
                     float* out_dist, int64_t* out_index) {
  const int64_t n = n_tiles * patches;
  if (search(index, features, n, k, n_threads, out_dist, out_index)) return;
  const int64_t bad = first_not_finite(features, n, index.dims);
  fail(KAD_ERROR_NOT_FINITE,
       "the base maps of tile %lld hold NaN or Inf at patch %lld: every value must be finite",
       static_cast<long long>(first_tile + bad / patches), static_cast<long long>(bad % patches));
}

void compute_features(const FeatureMaps& maps, int64_t first, int64_t n, int32_t n_threads,
                      float* out) {
  const SearchKernels& kernels = search_kernels(current_level());
  parallel_for(n, n_threads, [&](int64_t tile, int32_t) {
    const FloatEnvironment environment;
    std::vector<float> scratch(static_cast<size_t>(maps.scratch_size()));
    maps.tile(first + tile, kernels, scratch.data(), out + tile * maps.patches() * maps.dims());
  });
}

int64_t group_tiles(const FeatureMaps& maps, int32_t n_threads) {
  const int64_t fitting = kGroupFloats / std::max<int64_t>(1, maps.patches() * maps.dims());
  return std::clamp<int64_t>(fitting, std::min<int64_t>(n_threads, maps.n_tiles()),
                             std::max<int64_t>(1, maps.n_tiles()));
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
    const int64_t patches = features.patches();
    kad::for_each_group(features, n_threads, [&](int64_t first, int64_t n, const float* queries) {
      kad::search_features(*index, queries, first, n, patches, k, n_threads,
                           out_dist + first * patches * k, out_index + first * patches * k);
    });
  });
}

}  // extern "C"
