// Coordinates of vectors along a bank's principal directions, fine dimensions and coarse ones apart
// (split.hpp), so that the coordinates of the coarse part can be resampled like the maps
// themselves.
#pragma once

#include <cstdint>
#include <vector>

#include "search/search_kernels.hpp"
#include "search/sieve/projection.hpp"
#include "search/split.hpp"

struct kad_index;

namespace kad {

constexpr int64_t kMostWidth = 256;

/// Vectors that are brought into coordinates together.
constexpr int64_t kPackedVectors = 32;

class Basis {
 public:
  /// Directions of an index's bank: of the fine and the coarse dimensions those that vary most.
  Basis(const kad_index& index, int64_t width, const SearchKernels& kernels, int32_t n_threads);

  /// Maps that were found before (Projection::columns). Raises KAD_ERROR_ARTIFACT_TENSORS when they
  /// may lengthen a vector.
  Basis(const SplitLayout& layout, int64_t fine_width, const float* fine_columns,
        int64_t coarse_width, const float* coarse_columns);

  /// Coordinates of a vector: the fine ones, then the coarse ones.
  int64_t width() const { return fine_.width() + coarse_.width(); }
  int64_t fine_width() const { return fine_.width(); }
  int64_t coarse_width() const { return coarse_.width(); }
  const Projection& fine() const { return fine_; }
  const Projection& coarse() const { return coarse_; }
  int64_t coarse_first() const { return coarse_first_; }

  /// Variance of the bank along each of the coordinates, falling within each part; empty for maps
  /// that were found before.
  const std::vector<double>& variance() const { return variance_; }

  int64_t bytes() const { return fine_.bytes() + coarse_.bytes(); }

  /// Coordinates of n <= kPackedVectors vectors (dims, kPackedVectors) less the centre, out
  /// (kPackedVectors, width).
  void apply(const SearchKernels& kernels, const float* packed, int64_t n, float* out) const;

  /// How far the coordinates of a vector of this length may be off, all together.
  double error(double length) const;

 private:
  int64_t fine_first_, coarse_first_;
  Projection fine_, coarse_;
  std::vector<double> variance_;
};

}  // namespace kad
