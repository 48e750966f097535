// From a grid of patch distances D to the tile map U D U': enlarged bilinearly, then smoothed.
//
// Enlarging (half-pixel centres) and smoothing (Gaussian, reflect-101 at the tile's edge) are both
// linear and separable, so one matrix per axis, U = (tile x grid), does both. It is banded: an
// output pixel depends on the few patches within the Gaussian's reach.
#pragma once

#include <cstdint>
#include <vector>

namespace kad {

/// The matrix of one axis, in the two layouts that the two passes read.
struct AxisMatrix {
  int32_t tile = 0;  // px
  int32_t grid = 0;

  // Row i: weights[offset[i] ... + count[i]) for patches first[i], first[i] + 1, ...
  std::vector<int32_t> first;
  std::vector<int32_t> count;
  std::vector<int64_t> offset;
  std::vector<float> weights;

  // The same, transposed, for blocks of kBlock output pixels: for each patch from block_first, one
  // vector of kBlock weights.
  std::vector<int32_t> block_first;
  std::vector<int32_t> block_count;
  std::vector<int64_t> block_offset;
  std::vector<float> block_weights;
};

/// Check a Gaussian's radius and, where that is above 0, its sigma, px.
void check_smoothing(int32_t radius, float sigma);

/// Computed in double, stored as float32. radius 0: enlarging only.
AxisMatrix make_axis_matrix(int32_t tile, int32_t grid, double sigma, int32_t radius);

/// The same for an axis of `length` px that begins at px `start` of a board whose patches are cells
/// of `cell` px, the board's first at px 0: of the `grid` patches from number `first` on.
AxisMatrix make_cell_matrix(int32_t start, int32_t length, int32_t cell, int32_t first,
                            int32_t grid, double sigma, int32_t radius);

}  // namespace kad
