// Exact k nearest rows of many queries.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "search/features.hpp"
#include "search/index.hpp"

namespace kad {

/// Check k against the index; raises KAD_ERROR_INVALID_ARGUMENT.
void check_k(const kad_index& index, int32_t k);

/// Check that the maps' patch features have the index's dimension.
void check_dims(const kad_index& index, const FeatureMaps& maps);

/// Search n queries: out_dist and out_index are (n, k). False when one of them is not finite.
bool search(const kad_index& index, const float* queries, int64_t n, int32_t k, int32_t n_threads,
            float* out_dist, int64_t* out_index);

/// Search the patch features (n_tiles, P, D) of tiles from first_tile on. Raises
/// KAD_ERROR_NOT_FINITE that names tile and patch.
void search_features(const kad_index& index, const float* features, int64_t first_tile,
                     int64_t n_tiles, int64_t patches, int32_t k, int32_t n_threads,
                     float* out_dist, int64_t* out_index);

/// Compute the patch features of the maps group by group, so that memory stays bounded, and call
/// body(first_tile, n_tiles, features), features (n_tiles, P, D).
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
    body(first, n, features.data());
  }
}

}  // namespace kad
