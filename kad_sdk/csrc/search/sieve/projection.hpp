// The leading principal directions of a bank, as a linear map that provably lengthens no vector.
//
// The map is a matrix of 16-bit integers in units of 1 / 32767. What it should be is only
// approximated, but what it is, is known exactly; vectors are rounded to 16 bits too, by a measured
// distance, and the products are exact. So the coordinates of a vector are off by no more than that
// distance.
#pragma once

#include <cstdint>
#include <vector>

#include "search/sieve/code_kernels.hpp"

namespace kad {

class Projection {
 public:
  /// Directions of rows (n, dims) around `centre`, found by subspace iteration on a sample. width
  /// is a multiple of kProjectColumns and at most dims.
  Projection(const float* rows, int64_t n, int64_t dims, const float* centre, int64_t width,
             int32_t n_threads);

  int64_t width() const { return width_; }
  int64_t bytes() const { return static_cast<int64_t>(columns_.size() * sizeof(int16_t)); }

  /// Coordinates of n vectors less the centre, out (n, width). norms2 are their squared lengths,
  /// at most 1e30. errors[i] is the largest distance of the vector of computed coordinates from
  /// that of the true ones.
  void apply(const CodeKernels& kernels, const float* values, const double* norms2, int64_t n,
             const float* centre, float* out, float* errors) const;

 private:
  void encode_tile(const CodeKernels& kernels, const float* values, const double* norms2, int64_t n,
                   const float* centre, int16_t* codes, float* scales, float* errors) const;

  int64_t dims_;
  int64_t width_;
  int64_t pairs_;                 // of dimensions
  std::vector<int16_t> columns_;  // (width / kProjectColumns, pairs, kProjectColumns, 2)
};

}  // namespace kad
