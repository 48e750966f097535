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

/// Search the patches of some windows of base maps: out_dist and out_index are (n_tiles, P, k), of
/// which those of other patches are left as they are. False when a feature is not finite.
bool search_windows(const kad_index& index, const FeatureMaps& maps,
                    const std::vector<Window>& windows, int32_t k, int32_t n_threads,
                    float* out_dist, int64_t* out_index);

/// Search the patch features of base maps: out_dist and out_index are (n_tiles, P, k). Raises
/// KAD_ERROR_NOT_FINITE that names tile and patch.
void search_maps(const kad_index& index, const FeatureMaps& maps, int32_t k, int32_t n_threads,
                 float* out_dist, int64_t* out_index);

}  // namespace kad
