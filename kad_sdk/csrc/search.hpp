// Exact k nearest rows of many queries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "features.hpp"
#include "index.hpp"
#include "search_kernels.hpp"

namespace kad {

constexpr int32_t kMostNeighbours = 16;

/// The k best rows found so far, nearest first, ties by the lowest row.
class NearestRows {
 public:
  void clear(int32_t k) {
    k_ = k;
    count_ = 0;
  }
  /// Offer a row, at most once or repeatedly; true when it entered the list.
  bool offer(float dist, int64_t row);
  bool full() const { return count_ > 0 && count_ == k_; }
  float worst() const { return dist_[count_ - 1]; }  // when count() > 0
  int32_t count() const { return count_; }
  float dist(int32_t i) const { return dist_[i]; }
  int64_t row(int32_t i) const { return row_[i]; }

 private:
  int32_t k_ = 0;
  int32_t count_ = 0;
  float dist_[kMostNeighbours];
  int64_t row_[kMostNeighbours];
};

/// The searches of one worker: its scratch, kept from one block of queries to the next.
class BlockSearch {
 public:
  static constexpr int64_t kMostQueries = 512;

  BlockSearch(const kad_index& index, const SearchKernels& kernels, int32_t k);

  /// Search n <= kMostQueries queries (n, dims), all finite; out_dist and out_index are (n, k).
  void run(const float* queries, int64_t n, float* out_dist, int64_t* out_index);

 private:
  void prepare(const float* queries, int64_t n);
  void seed(int64_t query);
  void screen_panel(int64_t first_row);
  void decide(int64_t query, int64_t first_row, uint64_t mask);
  void decide_rows(int64_t query, const int64_t* rows, int64_t n_rows);
  void update_term(int64_t query);

  const kad_index& index_;
  const SearchKernels& kernels_;
  int32_t k_;
  int64_t n_ = 0;
  const float* queries_ = nullptr;  // (n, D)
  std::vector<float> packed_;       // (n / tile_queries, D, tile_queries), centred
  std::vector<float> panel_;        // (D, panel_rows), centred
  std::vector<double> norms2_;      // (n,) of the centred queries
  std::vector<float> terms_;        // (n,) of the screening bound
  std::vector<NearestRows> nearest_;
};

/// Check k against the index; raises KAD_ERROR_INVALID_ARGUMENT.
void check_k(const kad_index& index, int32_t k);

/// Check that the maps' patch features have the index's dimension.
void check_dims(const kad_index& index, const FeatureMaps& maps);

/// Raise KAD_ERROR_NOT_FINITE for the first patch feature that holds NaN or Inf. first_tile is
/// added to the tile's number in the text.
void check_features(const float* features, int64_t first_tile, int64_t n_tiles, int64_t patches,
                    int64_t dims);

/// Search n finite queries: out_dist and out_index are (n, k).
void search(const kad_index& index, const float* queries, int64_t n, int32_t k, int32_t n_threads,
            float* out_dist, int64_t* out_index);

/// Compute the patch features of the maps group by group, so that memory stays bounded, and call
/// body(first_tile, n_tiles, features), features (n_tiles, P, D) finite.
template <class F>
void for_each_group(const FeatureMaps& maps, int32_t n_threads, F&& body);

/// Patch features of tiles [first, first + n), out (n, P, D).
void compute_features(const FeatureMaps& maps, int64_t first, int64_t n, int32_t n_threads,
                      float* out);

/// Tiles whose features are held at once.
int64_t group_tiles(const FeatureMaps& maps, int32_t n_threads);

template <class F>
void for_each_group(const FeatureMaps& maps, int32_t n_threads, F&& body) {
  const int64_t most = group_tiles(maps, n_threads);
  std::vector<float> features(static_cast<size_t>(most * maps.patches() * maps.dims()));
  for (int64_t first = 0; first < maps.n_tiles(); first += most) {
    const int64_t n = maps.n_tiles() - first < most ? maps.n_tiles() - first : most;
    compute_features(maps, first, n, n_threads, features.data());
    check_features(features.data(), first, n, maps.patches(), maps.dims());
    body(first, n, features.data());
  }
}

}  // namespace kad
