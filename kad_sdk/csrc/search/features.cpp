#include "search/features.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "base/float_environment.hpp"
#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "image/image.hpp"

namespace kad {
namespace {

constexpr int32_t kLargestSide = 1 << 16;
constexpr int32_t kMostChannels = 1 << 20;
constexpr int64_t kFewPatches = 128;  // a window is not cut further to occupy another thread

void check_side(int32_t side, const char* name) {
  if (side < 1 || side > kLargestSide) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "%s must be 1 to %d, got %d", name, kLargestSide, side);
  }
}

kad_base_maps checked(const kad_base_maps* given) {
  const kad_base_maps maps =
      read_struct(given, KAD_FIRST_SIZE(kad_base_maps, widths), "kad_base_maps");
  check_side(maps.grid_height, "grid_height");
  check_side(maps.grid_width, "grid_width");
  if (maps.n_layers < 1) {
    fail(KAD_ERROR_INVALID_ARGUMENT, "n_layers must be at least 1, got %lld",
         static_cast<long long>(maps.n_layers));
  }
  if (maps.n_tiles > 0) check_pointer(maps.data, "maps->data");
  check_pointer(maps.channels, "maps->channels");
  check_pointer(maps.heights, "maps->heights");
  check_pointer(maps.widths, "maps->widths");
  return maps;
}

// Two inputs for each of g outputs, weighed by where output i lies among the n: place(i), clamped
// to the first.
template <typename Place>
AxisTaps linear_taps(int32_t n, int32_t g, Place place) {
  AxisTaps taps;
  taps.most = 2;
  for (int32_t i = 0; i < g; ++i) {
    const double at = std::max(0.0, place(i));
    const auto first = std::min(static_cast<int32_t>(at), n - 1);
    const auto second = static_cast<float>(first + 1 < n ? at - first : 0.0);
    taps.first.push_back(first);
    taps.count.push_back(second > 0.0F ? 2 : 1);
    taps.weight.push_back(1.0F - second);
    taps.weight.push_back(second);
  }
  return taps;
}

// Half-pixel centres: output i lies at (i + 0.5) n / g - 0.5.
AxisTaps bilinear_taps(int32_t n, int32_t g) {
  return linear_taps(n, g, [=](int32_t i) { return (i + 0.5) * n / g - 0.5; });
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

// Half-pixel centres, every input g / n outputs wide, where that is taken up to a power of 2: the
// last input of a map whose sides are no whole multiples is cut off, not squeezed.
AxisTaps aligned_taps(int32_t n, int32_t g) {
  int32_t step = 1;
  while (int64_t{step} * n < g) step *= 2;
  return linear_taps(n, g, [=](int32_t i) { return (i + 0.5) / step - 0.5; });
}

// The positions of a layer that a patch is made of, in the order of the sum, and their weights.
struct Sources {
  std::vector<int64_t> positions;
  std::vector<float> weights;

  // Positions count from a row and a column on, in rows of `pitch`.
  void find(const LayerView& layer, int64_t row, int64_t column, int64_t first_row,
            int64_t first_column, int64_t pitch) {
    positions.clear();
    weights.clear();
    const AxisTaps &rows = layer.rows, &columns = layer.columns;
    const auto i = static_cast<size_t>(row), j = static_cast<size_t>(column);
    for (int32_t y = 0; y < rows.count[i]; ++y) {
      const float weight = rows.weight[i * static_cast<size_t>(rows.most) + static_cast<size_t>(y)];
      for (int32_t x = 0; x < columns.count[j]; ++x) {
        positions.push_back((rows.first[i] + y - first_row) * pitch + columns.first[j] + x -
                            first_column);
        weights.push_back(
            weight *
            columns.weight[j * static_cast<size_t>(columns.most) + static_cast<size_t>(x)]);
      }
    }
  }
};

// A layer's part of the patch features of a window: out has `stride` values a patch.
void layer_features(const LayerView& layer, const Window& window, const SearchKernels& kernels,
                    std::vector<float>& scratch, int64_t stride, float* out) {
  const Region& patches = window.patches;
  int64_t first_row = 0, n_rows = 0, first_column = 0, n_columns = 0;
  input_range(layer.rows, patches.first_row, patches.n_rows, &first_row, &n_rows);
  input_range(layer.columns, patches.first_column, patches.n_columns, &first_column, &n_columns);
  // Channels last: the values of one position side by side, (positions, channels).
  scratch.resize(static_cast<size_t>(n_rows * n_columns * layer.channels));
  const float* from = layer.map(window.tile) + first_row * layer.width + first_column;
  // Whole rows lie one behind another, parts of rows do not.
  const int64_t pieces = n_columns == layer.width ? 1 : n_rows;
  const int64_t piece = n_rows * n_columns / pieces;
  for (int64_t i = 0; i < pieces; ++i) {
    kernels.pack(from + i * layer.width, layer.positions(), layer.channels, layer.channels, piece,
                 nullptr, scratch.data() + i * piece * layer.channels);
  }
  Sources sources;
  std::vector<const float*> values;
  for (int64_t y = patches.first_row; y < patches.first_row + patches.n_rows; ++y) {
    for (int64_t x = patches.first_column; x < patches.first_column + patches.n_columns; ++x) {
      sources.find(layer, y, x, first_row, first_column, n_columns);
      values.clear();
      for (const int64_t position : sources.positions) {
        values.push_back(scratch.data() + position * layer.channels);
      }
      kernels.combine(values.data(), sources.weights.data(), static_cast<int64_t>(values.size()),
                      layer.channels, out);
      out += stride;
    }
  }
}

}  // namespace

AxisTaps make_taps(int32_t resampling, int32_t n, int32_t g) {
  switch (resampling) {
    case KAD_RESAMPLE_BILINEAR:
      return bilinear_taps(n, g);
    case KAD_RESAMPLE_ADAPTIVE_AVERAGE:
      return adaptive_average_taps(n, g);
    case KAD_RESAMPLE_ALIGNED_BILINEAR:
      return aligned_taps(n, g);
    default:
      fail(KAD_ERROR_INVALID_ARGUMENT, "resampling must be one of KAD_RESAMPLE_* (0 to 2), got %d",
           resampling);
  }
}

void input_range(const AxisTaps& taps, int64_t first, int64_t n, int64_t* out_first,
                 int64_t* out_n) {
  int32_t begin = std::numeric_limits<int32_t>::max(), end = 0;
  for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(first + n); ++i) {
    begin = std::min(begin, taps.first[i]);
    end = std::max(end, taps.first[i] + taps.count[i]);
  }
  *out_first = begin;
  *out_n = end - begin;
}

FeatureMaps::FeatureMaps(const kad_base_maps* given) {
  const kad_base_maps maps = checked(given);
  n_tiles_ = maps.n_tiles;
  grid_height_ = maps.grid_height;
  grid_width_ = maps.grid_width;
  check_count(n_tiles_, 1, "n_tiles");
  for (int64_t l = 0; l < maps.n_layers; ++l) add_layer(maps, l);
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
  const float* data = n_tiles_ > 0 ? maps.data[number] : nullptr;
  if (n_tiles_ > 0) check_pointer(data, "maps->data of a layer");
  layers_.push_back({data, channels, height, width,
                     make_taps(maps.resampling, height, maps.grid_height),
                     make_taps(maps.resampling, width, maps.grid_width)});
  dims_ += channels;
  check_count(n_tiles_, int64_t{height} * width * channels, "n_tiles");
}

std::vector<Window> FeatureMaps::windows(int64_t most, int32_t n_threads) const {
  int64_t height = grid_height_, width = grid_width_, per_tile = 1;
  const auto halve = [](int64_t side) { return (side + 3) / 4 * 2; };  // even, as coarser maps are
  const auto count = [&] {
    return ((grid_height_ + height - 1) / height) * ((grid_width_ + width - 1) / width);
  };
  while (height * width > most ||
         (per_tile * n_tiles_ < n_threads && height * width > kFewPatches)) {
    if (height >= width) {
      height = halve(height);
    } else {
      width = halve(width);
    }
    per_tile = count();
  }
  std::vector<Window> windows;
  for (int64_t tile = 0; tile < n_tiles_; ++tile) {
    for (int64_t y = 0; y < grid_height_; y += height) {
      for (int64_t x = 0; x < grid_width_; x += width) {
        windows.push_back(
            {tile, {y, std::min(height, grid_height_ - y), x, std::min(width, grid_width_ - x)}});
      }
    }
  }
  return windows;
}

void FeatureMaps::features(const Window& window, const SearchKernels& kernels,
                           std::vector<float>& scratch, float* out) const {
  for (const LayerView& layer : layers_) {
    layer_features(layer, window, kernels, scratch, dims_, out);
    out += layer.channels;
  }
}

void FeatureMaps::patch_feature(int64_t tile, int64_t patch, float* out) const {
  Sources sources;
  for (const LayerView& layer : layers_) {
    sources.find(layer, patch / grid_width_, patch % grid_width_, 0, 0, layer.width);
    for (int64_t c = 0; c < layer.channels; ++c) {
      const float* map = layer.map(tile) + c * layer.positions();
      *out = sources.weights[0] * map[sources.positions[0]];
      for (size_t i = 1; i < sources.positions.size(); ++i) {
        *out += sources.weights[i] * map[sources.positions[i]];
      }
      ++out;
    }
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
      std::vector<float> scratch;
      features.features(features.whole(tile), kernels, scratch,
                        out + tile * features.patches() * features.dims());
    });
  });
}

extern "C" kad_status kad_window_features(const kad_base_maps* maps, const kad_rect* patches,
                                          int32_t n_threads, float* out) {
  return kad::guard([&] {
    const kad::FeatureMaps features(maps);
    kad::check_threads(n_threads);
    kad::check_pointer(patches, "patches");
    kad::check_pointer(out, "out");
    const auto height = static_cast<int32_t>(features.grid_height());
    const auto width = static_cast<int32_t>(features.grid_width());
    if (features.n_tiles() != 1 || !kad::lies_inside(*patches, height, width)) {
      kad::fail(KAD_ERROR_INVALID_ARGUMENT,
                "patches (x %d, y %d, width %d, height %d) must be a part of the grid of %d x %d "
                "(height x width) of one tile, got %lld tiles",
                patches->x, patches->y, patches->width, patches->height, height, width,
                static_cast<long long>(features.n_tiles()));
    }
    const kad::SearchKernels& kernels = kad::search_kernels(kad::current_level());
    kad::parallel_for(patches->height, n_threads, [&](int64_t row, int32_t) {
      const kad::FloatEnvironment environment;
      std::vector<float> scratch;
      features.features({0, {patches->y + row, 1, patches->x, patches->width}}, kernels, scratch,
                        out + row * patches->width * features.dims());
    });
  });
}
