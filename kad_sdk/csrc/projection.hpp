// The leading principal directions of a bank, as a linear map that provably lengthens no vector.
#pragma once

#include <cstdint>
#include <vector>

#include "search_kernels.hpp"

namespace kad {

class Projection {
 public:
  /// Directions of rows (n, dims) around `centre`, found by subspace iteration on a sample. width
  /// is a multiple of kMaxColumns and at most dims. The result depends on the rows alone.
  Projection(const float* rows, int64_t n, int64_t dims, const float* centre, int64_t width,
             int32_t n_threads);

  int64_t dims() const { return dims_; }
  int64_t width() const { return width_; }

  /// Largest error of a coordinate that `apply` computes, relative to the length of the vector.
  double coordinate_error() const;

  /// The directions as `multiply` of these kernels wants them.
  std::vector<float> packed(const SearchKernels& kernels) const;

  /// Coordinates of n vectors less the centre, out (n, width). scratch is grown as needed.
  void apply(const SearchKernels& kernels, const std::vector<float>& packed, const float* values,
             int64_t n, const float* centre, std::vector<float>& scratch, float* out) const;

 private:
  int64_t dims_;
  int64_t width_;
  std::vector<float> directions_;  // (width, dims), spectral norm at most 1
};

}  // namespace kad
