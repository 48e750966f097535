// A linear map onto few coordinates that provably lengthens no vector.
//
// The map is a matrix of integers in units of 2^-15, held as float32. What it should be is only
// approximated (principal.hpp), but what it is, is known exactly, and so is a bound on its norm.
//
// A coordinate of a vector v is a chain of g roundings (index.hpp) of a row r of the matrix, so it
// is off by at most 2 g u |r| |v|, where |r| <= 1 and u = 2^-24; all `width` of them together by at
// most 2 g u width^(1/2) |v|, and what underflows.
#pragma once

#include <cstdint>
#include <vector>

#include "search/search_kernels.hpp"

namespace kad {

/// Columns of the matrix come in panels of this many, a multiple of every level's `columns`.
constexpr int64_t kProjectColumns = 32;

class Projection {
 public:
  Projection() = default;

  /// The map closest to some orthonormal rows (width, dims); width is a multiple of
  /// kProjectColumns.
  Projection(const float* rows, int64_t width, int64_t dims);

  /// The map that `columns` gave. Raises KAD_ERROR_ARTIFACT_TENSORS unless it is one of integers,
  /// of norm at most 1.
  static Projection from_columns(const float* columns, int64_t width, int64_t dims);

  /// The matrix itself, (width / kProjectColumns, dims, kProjectColumns).
  const std::vector<float>& columns() const { return columns_; }

  int64_t width() const { return width_; }
  int64_t dims() const { return dims_; }
  int64_t bytes() const { return static_cast<int64_t>(columns_.size() * sizeof(float)); }

  /// Coordinates of n vectors[d * stride + i], out[i * out_stride + c]. Vectors up to the next
  /// multiple of kMaxTileQueries are read, and out must have room for them.
  void apply(const SearchKernels& kernels, const float* vectors, int64_t stride, int64_t n,
             float* out, int64_t out_stride) const;

  /// How far the coordinates may be off, for a vector of length 1.
  double relative_error() const;

 private:
  int64_t width_ = 0;
  int64_t dims_ = 0;
  std::vector<float> columns_;
};

}  // namespace kad
