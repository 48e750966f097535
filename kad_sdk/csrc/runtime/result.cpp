#include "runtime/result.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/stage.hpp"

namespace kad {
namespace {

constexpr float kNoScore = -std::numeric_limits<float>::infinity();  // below every score

// 1 / (1 + exp(-(score - tau) / scale)), unoverflown.
double normalised(double score, double tau, double scale) {
  if (std::isnan(score)) return 0.0;  // a tile that is not judged
  return 0.5 * (1.0 + std::tanh(0.5 * (score - tau) / scale));
}

void check_number(int64_t i, size_t n, const char* what) {
  if (i >= 0 && i < static_cast<int64_t>(n)) return;
  fail(KAD_ERROR_INVALID_ARGUMENT,
       "%s %lld: the result has %zu, numbered from 0; kad_result_info says how many", what,
       static_cast<long long>(i), n);
}

kad_tile_result tile_of(const Result& result, size_t i) {
  const ThresholdSettings& settings = result.detector->artifact.thresholds;
  const double score = static_cast<double>(result.judged(i));
  const double tau = result.facts.tile_threshold;
  kad_tile_result tile = {};
  tile.x = result.xy[2 * i];
  tile.y = result.xy[2 * i + 1];
  tile.score = result.scores[i];
  tile.normalised_score = normalised(score, tau, settings.tile_scale);
  tile.anomalous = score >= tau ? 1 : 0;
  tile.factor = result.factors.empty() ? 1.0 : static_cast<double>(result.factors[i]);
  return tile;
}

}  // namespace

float Result::judged(size_t i) const {
  if (factors.empty()) return scores[i];
  return factors[i] > 0.0F ? scores[i] / factors[i] : std::numeric_limits<float>::quiet_NaN();
}

void Result::decide(float peak) {
  const ThresholdSettings& settings = detector->artifact.thresholds;
  const bool by_map = detector->decides_by_map();
  facts.score = by_map ? peak : kNoScore;
  for (size_t i = 0; i < scores.size() && !by_map; ++i) {
    facts.score = std::max(facts.score, judged(i));  // NaN is never the larger one
  }
  if (!(facts.score > kNoScore)) {
    fail(KAD_ERROR_ANNOTATION,
         "the rules set on site leave nothing to judge of this board of %d x %d px: see them with "
         "kad rules, and give back a part of the ignored places or of the edge margin",
         facts.image_width, facts.image_height);
  }
  facts.threshold = detector->threshold();
  facts.tile_threshold = detector->tile_threshold;
  facts.map_threshold = detector->map_threshold;
  const double scale = by_map ? settings.map_scale : settings.tile_scale;
  const double score = static_cast<double>(facts.score);
  facts.normalised_score = normalised(score, facts.threshold, scale);
  facts.anomalous = score >= facts.threshold ? 1 : 0;
}

void Result::add_region(const kad_region& region) {
  const double sy = static_cast<double>(facts.image_height) / facts.frame_height;
  const double sx = static_cast<double>(facts.image_width) / facts.frame_width;
  const auto end = [](double edge, int32_t side) {
    return std::min(static_cast<int32_t>(std::ceil(edge)), side);
  };
  kad_region_result out = {};
  out.x = static_cast<int32_t>(std::floor(region.x * sx));
  out.y = static_cast<int32_t>(std::floor(region.y * sy));
  out.width = end((region.x + region.width) * sx, facts.image_width) - out.x;
  out.height = end((region.y + region.height) * sy, facts.image_height) - out.y;
  out.peak_x = static_cast<int32_t>((region.peak_x + 0.5) * sx);
  out.peak_y = static_cast<int32_t>((region.peak_y + 0.5) * sy);
  out.peak = region.peak;
  out.distance = region.distance;
  const double area = std::nearbyint(static_cast<double>(region.area_px) * sx * sy);
  out.area_px = std::max<int64_t>(1, static_cast<int64_t>(area));
  if (region.bank_row >= 0) {
    const Tensors& bank = detector->artifact.bank;
    const int32_t image = bank.at("source_image").ints()[region.bank_row];
    const int32_t* centre = bank.at("source_xy").ints() + 2 * region.bank_row;
    out.nearest_image = detector->manifest().bank.images[static_cast<size_t>(image)].c_str();
    out.nearest_x = centre[0];
    out.nearest_y = centre[1];
  }
  regions.push_back(out);
}

}  // namespace kad

extern "C" {

void kad_result_close(kad_result* result) { delete result; }

kad_status kad_result_info(const kad_result* result, kad_result_facts* out_facts) {
  return kad::guard([&] {
    kad::check_pointer(result, "result");
    kad_result_facts facts = result->facts;
    facts.n_tiles = static_cast<int64_t>(result->scores.size());
    facts.n_regions = static_cast<int64_t>(result->regions.size());
    facts.map = result->map.get();
    facts.embeddings = result->embeddings.empty() ? nullptr : result->embeddings.data();
    kad::write_struct(facts, out_facts, KAD_FIRST_SIZE(kad_result_facts, total_ms),
                      "kad_result_facts");
  });
}

kad_status kad_result_tile(const kad_result* result, int64_t i, kad_tile_result* out_tile) {
  return kad::guard([&] {
    kad::check_pointer(result, "result");
    kad::check_number(i, result->scores.size(), "tile");
    kad::write_struct(kad::tile_of(*result, static_cast<size_t>(i)), out_tile,
                      KAD_FIRST_SIZE(kad_tile_result, normalised_score), "kad_tile_result");
  });
}

kad_status kad_result_region(const kad_result* result, int64_t i, kad_region_result* out_region) {
  return kad::guard([&] {
    kad::check_pointer(result, "result");
    kad::check_number(i, result->regions.size(), "region");
    kad::write_struct(result->regions[static_cast<size_t>(i)], out_region,
                      KAD_FIRST_SIZE(kad_region_result, nearest_image), "kad_region_result");
  });
}

}  // extern "C"
