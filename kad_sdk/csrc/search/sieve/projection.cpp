#include "search/sieve/projection.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "base/guard.hpp"
#include "search/sieve/dot.hpp"

namespace kad {
namespace {

constexpr double kOne = 32768.0;  // the matrix's integers are in units of its inverse
constexpr double kUnit = 0x1p-24;

using Matrix = std::vector<float>;

size_t size(int64_t value) { return static_cast<size_t>(value); }

// Rows in units of `unit`, rounded: values stay integers, as floats.
Matrix rounded(const float* rows, int64_t n, double unit) {
  Matrix codes(size(n));
  for (int64_t i = 0; i < n; ++i) {
    codes[size(i)] = static_cast<float>(std::nearbyint(static_cast<double>(rows[i]) / unit));
  }
  return codes;
}

// The squared spectral norm is at most the largest absolute row sum of the Gram matrix.
double norm2_limit(const Matrix& rows, int64_t n, int64_t dims) {
  std::vector<double> sums(size(n));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const double product = std::fabs(dot(rows.data() + i * dims, rows.data() + j * dims, dims));
      sums[size(i)] += product;
      if (j < i) sums[size(j)] += product;
    }
  }
  return *std::max_element(sums.begin(), sums.end());
}

// Rows of integers in units of 1 / kOne close to `rows` that make a map of norm at most 1. The sums
// of integers are exact in float64, so this is proved and not estimated.
Matrix contraction(const float* rows, int64_t n, int64_t dims) {
  double unit = 1.0 / kOne;
  for (;;) {
    Matrix codes = rounded(rows, n * dims, unit);
    const double limit = norm2_limit(codes, n, dims);
    if (limit <= kOne * kOne) return codes;
    unit *= (1.0 + 1e-6) * std::sqrt(limit) / kOne;
  }
}

// Where element (c, d) of the map lies among the columns.
size_t place(int64_t c, int64_t d, int64_t dims) {
  return size(c / kProjectColumns * kProjectColumns * dims + d * kProjectColumns +
              c % kProjectColumns);
}

}  // namespace

Projection::Projection(const float* rows, int64_t width, int64_t dims)
    : width_(width), dims_(dims), columns_(size(width * dims)) {
  const Matrix codes = contraction(rows, width, dims);
  for (int64_t c = 0; c < width; ++c) {
    for (int64_t d = 0; d < dims; ++d) {
      columns_[place(c, d, dims)] = codes[size(c * dims + d)] * 0x1p-15F;
    }
  }
}

Projection Projection::from_columns(const float* columns, int64_t width, int64_t dims) {
  Projection map;
  map.width_ = width;
  map.dims_ = dims;
  map.columns_.assign(columns, columns + width * dims);
  Matrix codes(size(width * dims));
  bool integers = true;
  for (int64_t c = 0; c < width; ++c) {
    for (int64_t d = 0; d < dims; ++d) {
      const float code = map.columns_[place(c, d, dims)] * static_cast<float>(kOne);
      integers = integers && std::fabs(code) <= kOne && std::nearbyint(code) == code;
      codes[size(c * dims + d)] = code;
    }
  }
  if (!integers || norm2_limit(codes, width, dims) > kOne * kOne) {
    fail(KAD_ERROR_ARTIFACT_TENSORS,
         "the stored index holds a map that may lengthen vectors, so its bounds would not hold; "
         "export the artifact again");
  }
  return map;
}

void Projection::apply(const SearchKernels& kernels, const float* vectors, int64_t stride,
                       int64_t n, float* out, int64_t out_stride) const {
  for (int64_t c = 0; c < width_; c += kernels.columns) {
    const float* panel =
        columns_.data() + c / kProjectColumns * kProjectColumns * dims_ + c % kProjectColumns;
    for (int64_t i = 0; i < n; i += kernels.tile_queries) {
      kernels.multiply(vectors + i, stride, panel, kProjectColumns, dims_, out + i * out_stride + c,
                       out_stride);
    }
  }
}

double Projection::relative_error() const {
  const int64_t chains = (dims_ + kChainLength - 1) / kChainLength;
  const auto roundings = static_cast<double>(std::min(dims_, kChainLength) + chains + 1);
  return 2.0 * roundings * kUnit * std::sqrt(static_cast<double>(width_));
}

}  // namespace kad
