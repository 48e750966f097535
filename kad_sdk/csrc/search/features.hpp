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
  int64_t height;
  int64_t width;
  AxisTaps rows;
  AxisTaps columns;

  int64_t positions() const { return height * width; }
  const float* map(int64_t tile) const { return data + tile * channels * positions(); }
};

/// Rows and columns of a map, or of the grid of patches.
struct Region {
  int64_t first_row;
  int64_t n_rows;
  int64_t first_column;
  int64_t n_columns;

  int64_t size() const { return n_rows * n_columns; }
};

/// A part of a tile's grid of patches that is searched at once.
struct Window {
  int64_t tile;
  Region patches;
};

/// A caller's base maps, checked, with the weights of their resampling.
class FeatureMaps {
 public:
  explicit FeatureMaps(const kad_base_maps* maps);

  int64_t n_tiles() const { return n_tiles_; }
  int64_t grid_height() const { return grid_height_; }
  int64_t grid_width() const { return grid_width_; }
  int64_t patches() const { return grid_height_ * grid_width_; }  // P
  int64_t dims() const { return dims_; }                          // D
  const std::vector<LayerView>& layers() const { return layers_; }

  /// Every tile cut into windows of at most `most` patches, if possible one for each thread.
  std::vector<Window> windows(int64_t most, int32_t n_threads) const;

  /// The whole of a tile.
  Window whole(int64_t tile) const { return {tile, {0, grid_height_, 0, grid_width_}}; }

  /// Patch features of a window, out (patches, D). `scratch` is kept from call to call.
  void features(const Window& window, const SearchKernels& kernels, std::vector<float>& scratch,
                float* out) const;

  /// What `features` gives for one patch of a tile, out (D,).
  void patch_feature(int64_t tile, int64_t patch, float* out) const;

 private:
  void add_layer(const kad_base_maps& maps, int64_t number);

  int64_t n_tiles_;
  int64_t grid_height_;
  int64_t grid_width_;
  int64_t dims_ = 0;
  std::vector<LayerView> layers_;
};

/// The inputs that outputs [first, first + n) of an axis are made of: the first, and how many.
void input_range(const AxisTaps& taps, int64_t first, int64_t n, int64_t* out_first,
                 int64_t* out_n);

}  // namespace kad
