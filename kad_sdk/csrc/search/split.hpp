// The layer split: what of a patch feature comes from a map coarser than the grid of patches.
//
// Pooling, resampling and concatenation are linear, so a product of a patch feature with a bank row
// is the fine layers' part plus the resampled products of the coarse map's positions, of which
// there are far fewer than patches.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "search/features.hpp"

namespace kad {

/// One axis of a resampling that doubles a map, or nearly so. Output i is the input near[i], mixed
/// with far[i] by halves or as three parts to one; near[i] alone where both are the same.
struct AxisMix {
  bool half = false;
  std::vector<int32_t> near;
  std::vector<int32_t> far;
};

/// Which dimensions of patch features come from coarse maps, and from which of their layers.
class SplitLayout {
 public:
  /// Nothing is known of the features: all of them count as fine.
  explicit SplitLayout(int64_t dims) : dims_(dims) {}

  /// The features of such maps.
  explicit SplitLayout(const FeatureMaps& maps);

  int64_t dims() const { return dims_; }

  /// The coarse dimensions, which are the first or the last ones; none where there is no split.
  int64_t coarse_first() const { return coarse_first_; }
  int64_t coarse_dims() const { return coarse_dims_; }

  /// Positions of the coarse maps for each patch.
  double coarse_share() const { return coarse_share_; }

  /// Whether the same dimensions come from coarse maps, if any do. The layers may be others.
  bool matches(const SplitLayout& other) const;

 private:
  friend class CoarseWindow;

  int64_t dims_;
  int64_t coarse_first_ = 0;
  int64_t coarse_dims_ = 0;
  double coarse_share_ = 1.0;
  size_t first_layer_ = 0;  // of the coarse ones
  size_t n_layers_ = 0;
};

/// That of the features of maps, whose values are not looked at: n_tiles and data may be anything.
SplitLayout layout_of(const kad_base_maps* maps);

/// The coarse maps below a window.
class CoarseWindow {
 public:
  /// Take the part of the maps that the window's patches are made of. `layout` is that of these
  /// maps, `centre` that of all dimensions.
  void load(const SplitLayout& layout, const FeatureMaps& maps, const Window& window,
            const float* centre);

  int64_t n_columns() const { return n_columns_; }
  int64_t n_positions() const { return n_rows_ * n_columns_; }

  /// Values less the centre, (coarse dims, stride); zeros behind the last position.
  const float* values() const { return values_.data(); }
  int64_t stride() const { return stride_; }

  /// How the window's rows and columns of patches mix those of the positions.
  const AxisMix& rows() const { return rows_; }
  const AxisMix& columns() const { return columns_; }

 private:
  int64_t n_rows_ = 0;
  int64_t n_columns_ = 0;
  int64_t stride_ = 0;
  std::vector<float> values_;
  AxisMix rows_;
  AxisMix columns_;
};

}  // namespace kad
