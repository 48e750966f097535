// From base maps to patch features: every layer is brought to one grid, then they are concatenated.
#pragma once

#include <cstdint>
#include <vector>

#include "kad/kad.h"
#include "search/search_kernels.hpp"

namespace kad {

/// One axis of a resampling: output i is the sum of weight[i][t] * input[first[i] + t].
struct AxisTaps {
  std::vector<int32_t> first;
  std::vector<int32_t> count;
  std::vector<float> weight;  // (outputs, most)
  int64_t most = 0;           // largest count
};

/// Taps of KAD_RESAMPLE_* from n inputs to g outputs.
AxisTaps make_taps(int32_t resampling, int32_t n, int32_t g);

struct LayerView {
  const float* data;  // (n_tiles, channels, height, width)
  int64_t channels;
  int64_t positions;  // height * width
  int64_t width;
  AxisTaps rows;
  AxisTaps columns;
};

/// A caller's base maps, checked, with the weights of their resampling.
class FeatureMaps {
 public:
  explicit FeatureMaps(const kad_base_maps* maps);

  int64_t n_tiles() const { return n_tiles_; }
  int64_t patches() const { return grid_height_ * grid_width_; }  // P
  int64_t dims() const { return dims_; }                          // D

  /// Scratch that `tile` needs, in floats.
  int64_t scratch_size() const { return scratch_size_; }

  /// Patch features of one tile, out (P, D).
  void tile(int64_t number, const SearchKernels& kernels, float* scratch, float* out) const;

 private:
  void add_layer(const kad_base_maps& maps, int64_t number);
  void resample(const LayerView& layer, const float* map, const SearchKernels& kernels,
                float* out) const;

  int64_t n_tiles_;
  int64_t grid_height_;
  int64_t grid_width_;
  int64_t dims_ = 0;
  int64_t scratch_size_ = 0;
  std::vector<LayerView> layers_;
};

}  // namespace kad
