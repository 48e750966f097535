// Tile scores: the largest patch distance, re-weighted (equations 4.8 and 4.9 of the thesis).
#include "search/score.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "base/float_environment.hpp"
#include "base/guard.hpp"
#include "base/parallel.hpp"

namespace kad {
namespace {

kad_score_options checked(const kad_score_options* given) {
  const kad_score_options options =
      read_struct(given, KAD_FIRST_SIZE(kad_score_options, n_neighbors), "kad_score_options");
  const int32_t form = options.reweighting;
  if (form == KAD_REWEIGHT_NONE) return options;
  if (form != KAD_REWEIGHT_THESIS && form != KAD_REWEIGHT_PAPER) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "reweighting must be one of KAD_REWEIGHT_* (0 to 2), got %d",
         form);
  }
  if (options.n_neighbors < 1 || options.n_neighbors > options.neighbor_columns) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "n_neighbors must be 1 to %lld, the columns of the table of neighbors, got %lld",
         static_cast<long long>(options.neighbor_columns),
         static_cast<long long>(options.n_neighbors));
  }
  check_pointer(options.neighbors, "options->neighbors");
  return options;
}

// The rows m_i of the re-weighting. The paper counts m* itself, which is not in the table.
std::vector<const float*> neighbour_rows(const kad_index& index, const kad_score_options& options,
                                         int64_t nearest) {
  std::vector<const float*> rows;
  if (options.reweighting == KAD_REWEIGHT_PAPER) rows.push_back(index.row(nearest));
  const int64_t* neighbors = options.neighbors + nearest * options.neighbor_columns;
  for (int64_t i = 0; i < options.n_neighbors; ++i) {
    if (neighbors[i] < 0 || neighbors[i] >= index.rows) {
      fail(KAD_ERROR_INVALID_ARGUMENT,
           "neighbors of bank row %lld hold %lld, which is no row of the bank (0 to %lld)",
           static_cast<long long>(nearest), static_cast<long long>(neighbors[i]),
           static_cast<long long>(index.rows - 1));
    }
    rows.push_back(index.row(neighbors[i]));
  }
  return rows;
}

// w = 1 - exp(s* / a) / sum_i exp(d_i / a). The largest exponent is taken out, so that nothing
// overflows; where a distance to a neighbour overflows float32, w is 1, its limit.
double weight(float score, const std::vector<float>& dist, double a) {
  const auto largest = static_cast<double>(*std::max_element(dist.begin(), dist.end()));
  if (std::isinf(largest)) return 1.0;
  const double shift = std::max(static_cast<double>(score), largest);
  double sum = 0.0;
  for (const float d : dist) sum += std::exp((static_cast<double>(d) - shift) / a);
  return 1.0 - std::exp((static_cast<double>(score) - shift) / a) / sum;
}

float tile_score(const kad_index& index, const kad_score_options& options, const FeatureMaps& maps,
                 int64_t tile, const float* dist, const int64_t* rows) {
  const int64_t patch = std::max_element(dist, dist + maps.patches()) - dist;
  return patch_score(index, options, maps, tile, patch, dist[patch], rows[patch]);
}

}  // namespace

kad_score_options check_score_options(const kad_score_options* given) { return checked(given); }

float patch_score(const kad_index& index, const kad_score_options& options, const FeatureMaps& maps,
                  int64_t tile, int64_t patch, float score, int64_t row) {
  if (options.reweighting == KAD_REWEIGHT_NONE || std::isinf(score)) return score;
  const std::vector<const float*> neighbours = neighbour_rows(index, options, row);
  std::vector<float> values(static_cast<size_t>(index.dims));
  maps.patch_feature(tile, patch, values.data());
  const std::vector<const float*> feature(neighbours.size(), values.data());
  std::vector<float> distances(neighbours.size());
  search_kernels(current_level())
      .distances(feature.data(), neighbours.data(), static_cast<int64_t>(neighbours.size()),
                 index.dims, distances.data());
  const bool paper = options.reweighting == KAD_REWEIGHT_PAPER;
  const double a = paper ? 1.0 : std::sqrt(static_cast<double>(index.dims));
  return static_cast<float>(weight(score, distances, a) * static_cast<double>(score));
}

}  // namespace kad

extern "C" kad_status kad_score_tiles(const kad_index* index, const kad_base_maps* maps,
                                      const kad_score_options* options, int32_t n_threads,
                                      float* out_dist, int64_t* out_index, float* out_score) {
  return kad::guard([&] {
    kad::check_pointer(index, "index");
    const kad::FeatureMaps features(maps);
    const kad_score_options given = kad::checked(options);
    kad::check_threads(n_threads);
    kad::check_dims(*index, features);
    if (features.n_tiles() == 0) return;
    kad::check_pointer(out_dist, "out_dist");
    kad::check_pointer(out_index, "out_index");
    kad::check_pointer(out_score, "out_score");
    kad::search_maps(*index, features, 1, n_threads, out_dist, out_index);
    kad::parallel_for(features.n_tiles(), n_threads, [&](int64_t tile, int32_t) {
      const kad::FloatEnvironment environment;
      const int64_t first = tile * features.patches();
      out_score[tile] =
          kad::tile_score(*index, given, features, tile, out_dist + first, out_index + first);
    });
  });
}
