// From the largest patch distance of a tile to the tile's score.
#pragma once

#include <cstdint>

#include "search/search.hpp"

namespace kad {

/// Read a caller's options; raises KAD_ERROR_INVALID_ARGUMENT.
kad_score_options check_score_options(const kad_score_options* given);

/// The score of a tile whose most anomalous patch is number `patch` of the maps' tile `tile`, at
/// `dist` from its nearest bank row, `row`.
float patch_score(const kad_index& index, const kad_score_options& options, const FeatureMaps& maps,
                  int64_t tile, int64_t patch, float dist, int64_t row);

}  // namespace kad
