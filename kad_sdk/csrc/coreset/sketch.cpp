#include "coreset/sketch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/guard.hpp"
#include "base/rounding.hpp"
#include "search/index.hpp"

namespace kad {
namespace {

constexpr double kUnit = 0x1p-24;
constexpr double kSmallestNorm2 = 1e-30;
constexpr double kMostError = 0.01;  // of orthonormality
constexpr float kInfinity = std::numeric_limits<float>::infinity();

double chain_roundings(int64_t dims) {
  const int64_t chains = (dims + kChainLength - 1) / kChainLength;
  return static_cast<double>(std::min(dims, kChainLength) + chains + 1);
}

double dot(const float* a, const float* b, int64_t n) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return sum;
}

// |Q Q^T - I|, Frobenius.
double distance_from_orthonormal(const float* rows, int64_t n, int64_t dims) {
  double sum = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      const double error = dot(rows + i * dims, rows + j * dims, dims) - (i == j ? 1.0 : 0.0);
      sum += (i == j ? 1.0 : 2.0) * error * error;
    }
  }
  return std::sqrt(sum);
}

}  // namespace

SketchSpace::SketchSpace(const kad_directions* given) {
  const kad_directions directions =
      read_struct(given, KAD_FIRST_SIZE(kad_directions, rows), "kad_directions");
  check_reserved(directions.reserved, "kad_directions");
  dims_ = directions.dims;
  n_directions_ = directions.n;
  if (dims_ < 1 || n_directions_ < 0 || n_directions_ > dims_) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "kad_directions: expected dims >= 1 and n between 0 and dims, got %lld and %lld",
         static_cast<long long>(dims_), static_cast<long long>(n_directions_));
  }
  check_count(dims_, 1, "dims");
  check_count(n_directions_, dims_, "n");
  if (directions.centre != nullptr) centre_.assign(directions.centre, directions.centre + dims_);
  if (n_directions_ > 0) {
    check_pointer(directions.rows, "directions->rows");
    directions_.assign(directions.rows, directions.rows + n_directions_ * dims_);
  }
  if (has_non_finite(centre_.data(), static_cast<int64_t>(centre_.size())) ||
      has_non_finite(directions_.data(), n_directions_ * dims_)) {
    fail(KAD_ERROR_NOT_FINITE, "kad_directions: the centre or a direction holds NaN or Inf");
  }
  orthonormality_error_ = distance_from_orthonormal(directions_.data(), n_directions_, dims_);
  if (!(orthonormality_error_ <= kMostError)) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "kad_directions: rows must be orthonormal up to rounding, |Q Q^T - I| is %g",
         orthonormality_error_);
  }
  if (n_directions_ > 0) {
    projection_error_ =
        1.1 * chain_roundings(dims_) * kUnit * std::sqrt(static_cast<double>(n_directions_));
  }
  slack_ = (3.0 * chain_roundings(width()) + 16.0) * kUnit + 3.0 * projection_error_ +
           2.0 * orthonormality_error_;
}

void SketchSpace::project(const SearchKernels& kernels, const float* rows, int64_t n,
                          float* out) const {
  const int64_t step = kernels.tile_queries, columns = kernels.columns;
  std::vector<float> tile(static_cast<size_t>(step * dims_));
  std::vector<float> panel(static_cast<size_t>(columns * dims_));
  std::vector<float> products(static_cast<size_t>(step * columns));
  const float* centre = centre_.empty() ? nullptr : centre_.data();
  for (int64_t first = 0; first < n_directions_; first += columns) {
    const int64_t n_columns = std::min(columns, n_directions_ - first);
    kernels.pack(directions_.data() + first * dims_, dims_, n_columns, columns, dims_, nullptr,
                 panel.data());
    for (int64_t i = 0; i < n; i += step) {
      const int64_t count = std::min(step, n - i);
      kernels.pack(rows + i * dims_, dims_, count, step, dims_, centre, tile.data());
      kernels.multiply(tile.data(), step, panel.data(), columns, dims_, products.data(), columns);
      for (int64_t q = 0; q < count; ++q) {
        std::copy_n(products.data() + q * columns, n_columns, out + (i + q) * width() + first);
      }
    }
  }
}

void SketchSpace::apply(const SearchKernels& kernels, const float* rows, int64_t n, float* out,
                        double* half_norms) const {
  const float* centre = centre_.empty() ? nullptr : centre_.data();
  project(kernels, rows, n, out);
  for (int64_t i = 0; i < n; ++i) {
    const float* row = rows + i * dims_;
    float* sketch = out + i * width();
    const double norm2 = kernels.norm2(row, centre, dims_);
    const bool trusted = norm2 >= kSmallestNorm2 && norm2 < kLargestNorm2;
    half_norms[i] = trusted ? (1.0 - slack_) * norm2 / 2.0 : -HUGE_VAL;
    if (n_directions_ == 0) {
      for (int64_t d = 0; d < dims_; ++d) sketch[d] = centre_.empty() ? row[d] : row[d] - centre[d];
      continue;
    }
    const double error = 2.0 * orthonormality_error_ + 3.0 * projection_error_;
    const double rest = norm2 * (1.0 + error) - dot(sketch, sketch, n_directions_);
    sketch[n_directions_] = trusted ? round_to(std::sqrt(std::max(rest, 0.0)), kInfinity) : 0.0F;
  }
}

float SketchSpace::centre_term(double half_norm) { return round_to(half_norm, -kInfinity); }

float SketchSpace::point_term(double half_norm, float dist) const {
  if (dist <= 0.0F) return kInfinity;
  const double limit = squared_limit(dist, dims_);
  if (!(limit < kLargestNorm2)) return -kInfinity;
  return round_to(half_norm - (1.0 + slack_) * limit / 2.0, -kInfinity);
}

}  // namespace kad
