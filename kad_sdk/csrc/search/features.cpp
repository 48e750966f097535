#include "search/features.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "base/float_environment.hpp"
#include "base/guard.hpp"
#include "base/parallel.hpp"

namespace kad {
namespace {

constexpr int32_t kLargestSide = 1 << 16;
constexpr int32_t kMostChannels = 1 << 20;

void check_side(int32_t side, const char* name) {
  if (side < 1 || side > kLargestSide) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "%s must be 1 to %d, got %d", name, kLargestSide, side);
  }
}

void check_header(const kad_base_maps* maps) {
  check_pointer(maps, "maps");
  check_struct_size(maps->struct_size, KAD_FIRST_SIZE(kad_base_maps, widths), "kad_base_maps");
  check_side(maps->grid_height, "grid_height");
  check_side(maps->grid_width, "grid_width");
  if (maps->n_layers < 1) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "n_layers must be at least 1, got %lld",
         static_cast<long long>(maps->n_layers));
  }
  check_pointer(maps->data, "maps->data");
  check_pointer(maps->channels, "maps->channels");
  check_pointer(maps->heights, "maps->heights");
  check_pointer(maps->widths, "maps->widths");
}

// Half-pixel centres: output i lies at (i + 0.5) n / g - 0.5, clamped to the first input.
AxisTaps bilinear_taps(int32_t n, int32_t g) {
  AxisTaps taps;
  taps.most = 2;
  for (int32_t i = 0; i < g; ++i) {
    const double place = std::max(0.0, (i + 0.5) * n / g - 0.5);
    const auto first = std::min(static_cast<int32_t>(place), n - 1);
    const auto second = static_cast<float>(first + 1 < n ? place - first : 0.0);
    taps.first.push_back(first);
    taps.count.push_back(second > 0.0F ? 2 : 1);
    taps.weight.push_back(1.0F - second);
    taps.weight.push_back(second);
  }
  return taps;
}

// Output i is the mean over [floor(i n / g), ceil((i + 1) n / g)).
AxisTaps adaptive_average_taps(int32_t n, int32_t g) {
  AxisTaps taps;
  for (int64_t i = 0; i < g; ++i) {
    const int64_t first = i * n / g;
    const int64_t end = ((i + 1) * n + g - 1) / g;
    taps.first.push_back(static_cast<int32_t>(first));
    taps.count.push_back(static_cast<int32_t>(end - first));
    taps.most = std::max(taps.most, end - first);
  }
  for (const int32_t count : taps.count) {
    taps.weight.insert(taps.weight.end(), static_cast<size_t>(taps.most),
                       1.0F / static_cast<float>(count));
  }
  return taps;
}

}  // namespace

AxisTaps make_taps(int32_t resampling, int32_t n, int32_t g) {
  switch (resampling) {
    case KAD_RESAMPLE_BILINEAR:
      return bilinear_taps(n, g);
    case KAD_RESAMPLE_ADAPTIVE_AVERAGE:
      return adaptive_average_taps(n, g);
    default:
      fail(KAD_ERROR_INVALID_ARGUMENT, "resampling must be one of KAD_RESAMPLE_* (0 or 1), got %d",
           resampling);
  }
}

FeatureMaps::FeatureMaps(const kad_base_maps* maps) {
  check_header(maps);
  n_tiles_ = maps->n_tiles;
  grid_height_ = maps->grid_height;
  grid_width_ = maps->grid_width;
  check_count(n_tiles_, 1, "n_tiles");
  for (int64_t l = 0; l < maps->n_layers; ++l) add_layer(*maps, l);
  check_count(n_tiles_, patches() * dims_, "n_tiles");
}

void FeatureMaps::add_layer(const kad_base_maps& maps, int64_t number) {
  const int32_t channels = maps.channels[number];
  if (channels < 1 || channels > kMostChannels) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "channels of layer %lld must be 1 to %d, got %d",
         static_cast<long long>(number), kMostChannels, channels);
  }
  const int32_t height = maps.heights[number], width = maps.widths[number];
  check_side(height, "height of a layer");
  check_side(width, "width of a layer");
  if (n_tiles_ > 0) check_pointer(maps.data[number], "maps->data of a layer");
  const int64_t positions = int64_t{height} * width;
  layers_.push_back({maps.data[number], channels, positions, width,
                     make_taps(maps.resampling, height, maps.grid_height),
                     make_taps(maps.resampling, width, maps.grid_width)});
  dims_ += channels;
  check_count(n_tiles_, positions * channels, "n_tiles");
  scratch_size_ = std::max(scratch_size_, positions * channels);
}

void FeatureMaps::resample(const LayerView& layer, const float* map, const SearchKernels& kernels,
                           float* out) const {
  const AxisTaps& rows = layer.rows;
  const AxisTaps& columns = layer.columns;
  std::vector<const float*> sources(static_cast<size_t>(rows.most * columns.most));
  std::vector<float> weights(sources.size());
  for (int64_t patch = 0; patch < patches(); ++patch) {
    const auto i = static_cast<size_t>(patch / grid_width_);
    const auto j = static_cast<size_t>(patch % grid_width_);
    size_t n = 0;
    for (int32_t y = 0; y < rows.count[i]; ++y) {
      const float row_weight =
          rows.weight[i * static_cast<size_t>(rows.most) + static_cast<size_t>(y)];
      for (int32_t x = 0; x < columns.count[j]; ++x, ++n) {
        const int64_t position = (rows.first[i] + y) * layer.width + columns.first[j] + x;
        sources[n] = map + position * layer.channels;
        weights[n] = row_weight *
                     columns.weight[j * static_cast<size_t>(columns.most) + static_cast<size_t>(x)];
      }
    }
    kernels.combine(sources.data(), weights.data(), static_cast<int64_t>(n), layer.channels,
                    out + patch * dims_);
  }
}

void FeatureMaps::tile(int64_t number, const SearchKernels& kernels, float* scratch,
                       float* out) const {
  for (const LayerView& layer : layers_) {
    // Channels last: the values of one position side by side, (positions, channels).
    const float* map = layer.data + number * layer.channels * layer.positions;
    kernels.pack(map, layer.positions, layer.channels, layer.channels, layer.positions, nullptr,
                 scratch);
    resample(layer, scratch, kernels, out);
    out += layer.channels;
  }
}

}  // namespace kad

extern "C" kad_status kad_patch_features(const kad_base_maps* maps, int32_t n_threads, float* out) {
  return kad::guard([&] {
    const kad::FeatureMaps features(maps);
    kad::check_threads(n_threads);
    if (features.n_tiles() == 0) return;
    kad::check_pointer(out, "out");
    const kad::SearchKernels& kernels = kad::search_kernels(kad::current_level());
    kad::parallel_for(features.n_tiles(), n_threads, [&](int64_t tile, int32_t) {
      const kad::FloatEnvironment environment;
      std::vector<float> scratch(static_cast<size_t>(features.scratch_size()));
      features.tile(tile, kernels, scratch.data(),
                    out + tile * features.patches() * features.dims());
    });
  });
}
