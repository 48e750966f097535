#include "search/split.hpp"

#include <algorithm>
#include <cstddef>

#include "base/guard.hpp"

namespace kad {
namespace {

constexpr int64_t kVectorStep = 32;  // positions come in whole vectors of every level

// False where the axis is resampled in another way.
bool find_mix(const AxisTaps& taps, AxisMix& mix) {
  bool quarters = false;
  for (size_t i = 0; i < taps.first.size(); ++i) {
    const int32_t first = taps.first[i];
    const float* weight = taps.weight.data() + i * static_cast<size_t>(taps.most);
    if (taps.count[i] > 2) return false;
    const float second = taps.count[i] == 2 ? weight[1] : 0.0F;
    if (weight[0] + second != 1.0F) return false;
    if (second != 0.0F && second != 0.25F && second != 0.5F && second != 0.75F) return false;
    mix.half = mix.half || second == 0.5F;
    quarters = quarters || second == 0.25F || second == 0.75F;
    const bool second_is_near = second == 0.75F;
    mix.near.push_back(second_is_near ? first + 1 : first);
    mix.far.push_back(second == 0.0F || second_is_near ? first : first + 1);
  }
  return !(mix.half && quarters);
}

bool is_coarse(const LayerView& layer, int64_t patches) {
  AxisMix rows, columns;
  return 2 * layer.positions() <= patches && find_mix(layer.rows, rows) &&
         find_mix(layer.columns, columns);
}

// Outputs [first, first + n) of a mix, of inputs counted from `origin`.
AxisMix part_of(const AxisTaps& taps, int64_t first, int64_t n, int64_t origin) {
  AxisMix whole, part;
  find_mix(taps, whole);
  part.half = whole.half;
  for (auto i = static_cast<size_t>(first); i < static_cast<size_t>(first + n); ++i) {
    part.near.push_back(whole.near[i] - static_cast<int32_t>(origin));
    part.far.push_back(whole.far[i] - static_cast<int32_t>(origin));
  }
  return part;
}

}  // namespace

SplitLayout::SplitLayout(const FeatureMaps& maps) : dims_(maps.dims()) {
  const std::vector<LayerView>& layers = maps.layers();
  const auto same_size = [&](size_t a, size_t b) {
    return layers[a].height == layers[b].height && layers[a].width == layers[b].width;
  };
  int64_t first_dim = 0, run_dims = 0;
  // Runs of layers of one size, that leave a single run of others before or behind them.
  for (size_t begin = 0, end = 0; begin < layers.size(); begin = end, first_dim += run_dims) {
    run_dims = 0;
    for (; end < layers.size() && same_size(begin, end); ++end) run_dims += layers[end].channels;
    const bool at_an_end = (begin == 0) != (end == layers.size());
    if (!at_an_end || !is_coarse(layers[begin], maps.patches())) continue;
    const double share =
        static_cast<double>(layers[begin].positions()) / static_cast<double>(maps.patches());
    if (n_layers_ > 0 && share >= coarse_share_) continue;
    coarse_first_ = first_dim;
    coarse_dims_ = run_dims;
    coarse_share_ = share;
    first_layer_ = begin;
    n_layers_ = end - begin;
  }
}

SplitLayout layout_of(const kad_base_maps* given) {
  kad_base_maps maps = read_struct(given, KAD_FIRST_SIZE(kad_base_maps, widths), "kad_base_maps");
  maps.n_tiles = 0;
  return SplitLayout(FeatureMaps(&maps));
}

bool SplitLayout::matches(const SplitLayout& other) const {
  return coarse_dims_ > 0 && other.dims_ == dims_ && other.coarse_first_ == coarse_first_ &&
         other.coarse_dims_ == coarse_dims_;
}

void CoarseWindow::load(const SplitLayout& layout, const FeatureMaps& maps, const Window& window,
                        const float* centre) {
  const LayerView& shape = maps.layers()[layout.first_layer_];
  const Region& patches = window.patches;
  int64_t first_row = 0, first_column = 0;
  input_range(shape.rows, patches.first_row, patches.n_rows, &first_row, &n_rows_);
  input_range(shape.columns, patches.first_column, patches.n_columns, &first_column, &n_columns_);
  rows_ = part_of(shape.rows, patches.first_row, patches.n_rows, first_row);
  columns_ = part_of(shape.columns, patches.first_column, patches.n_columns, first_column);
  stride_ = (n_positions() + kVectorStep - 1) / kVectorStep * kVectorStep;
  values_.assign(static_cast<size_t>(layout.coarse_dims_ * stride_), 0.0F);
  const float* offset = centre + layout.coarse_first_;
  float* out = values_.data();
  for (size_t l = layout.first_layer_; l < layout.first_layer_ + layout.n_layers_; ++l) {
    const LayerView& layer = maps.layers()[l];
    for (int64_t c = 0; c < layer.channels; ++c, ++offset, out += stride_) {
      const float* channel = layer.map(window.tile) + c * layer.positions();
      for (int64_t y = 0; y < n_rows_; ++y) {
        const float* from = channel + (first_row + y) * layer.width + first_column;
        for (int64_t x = 0; x < n_columns_; ++x) out[y * n_columns_ + x] = from[x] - *offset;
      }
    }
  }
}

}  // namespace kad
