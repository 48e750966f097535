// Vectors of narrow codes, in the order in which the kernels take them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "search/sieve/code_kernels.hpp"

namespace kad {

class NarrowVectors {
 public:
  /// Room for n vectors of `dims` codes, all zero; n is a multiple of kCodeTile.
  void resize(int64_t n, int64_t dims, int64_t step_dims) {
    dims_ = dims;
    step_dims_ = step_dims;
    codes_.assign(static_cast<size_t>(n * dims), 0);
  }

  /// The codes from a place on, the first of a tile.
  const int8_t* from(int64_t place) const { return codes_.data() + place * dims_; }

  /// Put a vector's codes to a place.
  void put(int64_t place, const int8_t* codes) {
    const int64_t lane = place % kCodeTile;
    int8_t* tile = codes_.data() + (place - lane) * dims_ + lane * step_dims_;
    for (int64_t i = 0; i < dims_; i += step_dims_, tile += kCodeTile * step_dims_) {
      for (int64_t j = 0; j < step_dims_; ++j) tile[j] = codes[i + j];
    }
  }

 private:
  int64_t dims_ = 0;
  int64_t step_dims_ = 1;
  std::vector<int8_t> codes_;  // (tiles, dims / step_dims, kCodeTile, step_dims)
};

}  // namespace kad
