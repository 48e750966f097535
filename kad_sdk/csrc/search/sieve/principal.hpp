// Principal directions of a bank, approximately: they decide how much a sieve leaves, never what is
// found.
#pragma once

#include <cstdint>
#include <vector>

#include "search/search_kernels.hpp"

namespace kad {

struct PrincipalDirections {
  std::vector<float> rows;       // (width, dims), orthonormal up to rounding
  std::vector<double> variance;  // (width,) of the bank along each, falling
};

/// Directions of values[r * stride + d] around centre[d], r < n and d < dims. width is a multiple
/// of 32 and at most dims, rounded up to a multiple of 32; what goes beyond the rank is zero.
PrincipalDirections principal_directions(const float* values, int64_t n, int64_t stride,
                                         int64_t dims, const float* centre, int64_t width,
                                         const SearchKernels& kernels, int32_t n_threads);

}  // namespace kad
