#include "search.hpp"

#include <algorithm>
#include <limits>
#include <memory>

#include "float_environment.hpp"
#include "guard.hpp"
#include "parallel.hpp"

namespace kad {
namespace {

constexpr int64_t kSeeds = 8;
constexpr int64_t kGroupFloats = int64_t{8} << 20;  // features held at once, 32 MiB

int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

}  // namespace

bool NearestRows::offer(float dist, int64_t row) {
  int32_t place = count_;
  for (int32_t i = 0; i < count_; ++i) {
    if (row_[i] == row) return false;
    const bool better = dist < dist_[i] || (dist == dist_[i] && row < row_[i]);
    if (better && place == count_) place = i;
  }
  if (place == k_) return false;
  count_ = std::min(count_ + 1, k_);
  for (int32_t i = count_ - 1; i > place; --i) {
    dist_[i] = dist_[i - 1];
    row_[i] = row_[i - 1];
  }
  dist_[place] = dist;
  row_[place] = row;
  return true;
}

BlockSearch::BlockSearch(const kad_index& index, const SearchKernels& kernels, int32_t k)
    : index_(index), kernels_(kernels), k_(k) {
  panel_.resize(static_cast<size_t>(index.dims * kernels.panel_rows));
}

void BlockSearch::run(const float* queries, int64_t n, float* out_dist, int64_t* out_index) {
  const FloatEnvironment environment;
  prepare(queries, n);
  for (int64_t q = 0; q < n; ++q) seed(q);
  for (int64_t r = 0; r < index_.rows; r += kernels_.panel_rows) screen_panel(r);
  for (int64_t q = 0; q < n; ++q) {
    const NearestRows& nearest = nearest_[static_cast<size_t>(q)];
    for (int32_t i = 0; i < k_; ++i) {
      out_dist[q * k_ + i] = nearest.dist(i);
      out_index[q * k_ + i] = nearest.row(i);
    }
  }
}

void BlockSearch::prepare(const float* queries, int64_t n) {
  const int64_t dims = index_.dims, step = kernels_.tile_queries;
  const auto padded = static_cast<size_t>(round_up(n, step));
  n_ = n;
  queries_ = queries;
  packed_.resize(padded * static_cast<size_t>(dims));
  norms2_.resize(padded);
  terms_.assign(padded, std::numeric_limits<float>::infinity());
  nearest_.resize(padded);
  for (int64_t q = 0; q < n; q += step) {
    kernels_.pack(queries + q * dims, dims, std::min(step, n - q), step, dims, index_.centre.data(),
                  packed_.data() + q * dims);
  }
  for (int64_t q = 0; q < n; ++q) {
    norms2_[static_cast<size_t>(q)] = centred_norm2(queries + q * dims, index_.centre.data(), dims);
    nearest_[static_cast<size_t>(q)].clear(k_);
    update_term(q);
  }
}

// A few rows spread over the bank give the first limit.
void BlockSearch::seed(int64_t query) {
  int64_t rows[std::max<int64_t>(kSeeds, kMostNeighbours)];
  const int64_t n_seeds = std::min(index_.rows, std::max<int64_t>(kSeeds, k_));
  for (int64_t i = 0; i < n_seeds; ++i) rows[i] = i * (index_.rows / n_seeds);
  decide_rows(query, rows, n_seeds);
}

void BlockSearch::screen_panel(int64_t first_row) {
  const int64_t dims = index_.dims, step = kernels_.tile_queries;
  const int64_t n_rows = std::min(kernels_.panel_rows, index_.rows - first_row);
  const uint64_t present = ~uint64_t{0} >> (64 - n_rows);
  kernels_.pack(index_.row(first_row), dims, n_rows, kernels_.panel_rows, dims,
                index_.centre.data(), panel_.data());
  uint64_t masks[kMaxTileQueries];
  for (int64_t q = 0; q < n_; q += step) {
    kernels_.screen(packed_.data() + q * dims, panel_.data(), dims,
                    index_.row_terms.data() + first_row, terms_.data() + q, masks);
    for (int64_t i = 0; i < std::min(step, n_ - q); ++i) {
      if ((masks[i] & present) != 0) decide(q + i, first_row, masks[i] & present);
    }
  }
}

void BlockSearch::decide(int64_t query, int64_t first_row, uint64_t mask) {
  int64_t rows[kMaxPanelRows];
  int64_t n_rows = 0;
  for (int64_t r = 0; mask != 0; ++r, mask >>= 1) {
    if ((mask & 1) != 0) rows[n_rows++] = first_row + r;
  }
  decide_rows(query, rows, n_rows);
}

void BlockSearch::decide_rows(int64_t query, const int64_t* rows, int64_t n_rows) {
  const float* values[kMaxPanelRows] = {};
  float dist[kMaxPanelRows];
  for (int64_t i = 0; i < n_rows; ++i) values[i] = index_.row(rows[i]);
  kernels_.distances(queries_ + query * index_.dims, values, n_rows, index_.dims, dist);
  bool changed = false;
  for (int64_t i = 0; i < n_rows; ++i) {
    changed |= nearest_[static_cast<size_t>(query)].offer(dist[i], rows[i]);
  }
  if (changed) update_term(query);
}

void BlockSearch::update_term(int64_t query) {
  const auto q = static_cast<size_t>(query);
  const double limit = nearest_[q].full() ? squared_limit(nearest_[q].worst(), index_.dims)
                                          : std::numeric_limits<double>::infinity();
  terms_[q] = query_term(norms2_[q], limit, index_.dims);
}

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

void check_features(const float* features, int64_t first_tile, int64_t n_tiles, int64_t patches,
                    int64_t dims) {
  for (int64_t i = 0; i < n_tiles * patches; ++i) {
    if (has_non_finite(features + i * dims, dims)) {
      fail(KAD_ERROR_NOT_FINITE,
           "the base maps of tile %lld hold NaN or Inf at patch %lld: every value must be finite",
           static_cast<long long>(first_tile + i / patches), static_cast<long long>(i % patches));
    }
  }
}

void search(const kad_index& index, const float* queries, int64_t n, int32_t k, int32_t n_threads,
            float* out_dist, int64_t* out_index) {
  const SearchKernels& kernels = search_kernels(current_level());
  // Blocks as large as possible, because each of them packs the whole bank, but one for each
  // thread.
  const int64_t share = round_up((n + n_threads - 1) / n_threads, kernels.tile_queries);
  const int64_t block = std::clamp<int64_t>(share, 1, BlockSearch::kMostQueries);
  const int64_t n_blocks = (n + block - 1) / block;
  std::vector<std::unique_ptr<BlockSearch>> workers(
      static_cast<size_t>(worker_count(n_blocks, n_threads)));
  for (auto& worker : workers) worker = std::make_unique<BlockSearch>(index, kernels, k);
  parallel_for(n_blocks, n_threads, [&](int64_t task, int32_t worker) {
    const int64_t first = task * block;
    workers[static_cast<size_t>(worker)]->run(queries + first * index.dims,
                                              std::min(block, n - first), out_dist + first * k,
                                              out_index + first * k);
  });
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
    for (int64_t i = 0; i < n; ++i) {
      if (kad::has_non_finite(queries + i * index->dims, index->dims)) {
        kad::fail(KAD_ERROR_NOT_FINITE, "query %lld holds NaN or Inf: every value must be finite",
                  static_cast<long long>(i));
      }
    }
    kad::search(*index, queries, n, k, n_threads, out_dist, out_index);
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
      kad::search(*index, queries, n * patches, k, n_threads, out_dist + first * patches * k,
                  out_index + first * patches * k);
    });
  });
}

}  // extern "C"
