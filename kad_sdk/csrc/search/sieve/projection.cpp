#include "search/sieve/projection.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "base/float_environment.hpp"
#include "base/parallel.hpp"
#include "search/search_kernels.hpp"

namespace kad {
namespace {

constexpr int64_t kSampleRows = 4096;
constexpr int kIterations = 5;
constexpr double kOne = 32767.0;           // of the directions' integers
constexpr double kVectorLength = 60000.0;  // of a vector's integers: products stay below 2^31
constexpr double kSmallestScale = 1e-24;
constexpr double kUnderflow = 1e-20;      // what squares of errors may lose, for dims up to 65,536
constexpr double kRankTolerance = 1e-10;  // squared length below which a direction is noise

using Matrix = std::vector<float>;

size_t size(int64_t value) { return static_cast<size_t>(value); }

// Sums of float32 products in float64, in 8 chains.
double dot(const float* a, const float* b, int64_t n) {
  double sums[8] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int64_t j = 0; j < 8; ++j) {
      sums[j] += static_cast<double>(a[i + j]) * static_cast<double>(b[i + j]);
    }
  }
  for (; i < n; ++i) sums[0] += static_cast<double>(a[i]) * static_cast<double>(b[i]);
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// (n, m) to (m, n).
Matrix transposed(const SearchKernels& kernels, const Matrix& matrix, int64_t n, int64_t m) {
  Matrix out(matrix.size());
  kernels.pack(matrix.data(), m, n, n, m, nullptr, out.data());
  return out;
}

Matrix packed_panels(const SearchKernels& kernels, const float* rows, int64_t n, int64_t dims) {
  const int64_t columns = kernels.columns;
  const int64_t n_panels = (n + columns - 1) / columns;
  Matrix panels(size(n_panels * columns * dims));
  for (int64_t c = 0; c < n; c += columns) {
    kernels.pack(rows + c * dims, dims, std::min(columns, n - c), columns, dims, nullptr,
                 panels.data() + c * dims);
  }
  return panels;
}

// a (n, dims) times the transpose of b (m, dims): (n, m). m must be a multiple of every `columns`.
Matrix product(const SearchKernels& kernels, const Matrix& a, int64_t n, const Matrix& b, int64_t m,
               int64_t dims, int32_t n_threads) {
  const Matrix panels = packed_panels(kernels, b.data(), m, dims);
  const int64_t step = kernels.tile_queries;
  const int64_t n_tiles = (n + step - 1) / step;
  Matrix out(size(n_tiles * step * m));
  parallel_for(n_tiles, n_threads, [&](int64_t tile, int32_t) {
    const FloatEnvironment environment;
    Matrix rows(size(step * dims));
    const int64_t first = tile * step;
    kernels.pack(a.data() + first * dims, dims, std::min(step, n - first), step, dims, nullptr,
                 rows.data());
    for (int64_t c = 0; c < m; c += kernels.columns) {
      kernels.multiply(rows.data(), panels.data() + c * dims, dims, out.data() + first * m + c, m);
    }
  });
  out.resize(size(n * m));
  return out;
}

void subtract_multiple(float* a, const float* b, double factor, int64_t n) {
  const auto weight = static_cast<float>(factor);
  for (int64_t i = 0; i < n; ++i) a[i] -= weight * b[i];
}

// Modified Gram-Schmidt on the rows. What is left of a dependent row is set to zero.
void orthonormalise(Matrix& rows, int64_t n, int64_t dims) {
  for (int64_t i = 0; i < n; ++i) {
    float* row = rows.data() + i * dims;
    const double before = dot(row, row, dims);
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t j = 0; j < i; ++j) {
        const float* earlier = rows.data() + j * dims;
        subtract_multiple(row, earlier, dot(row, earlier, dims), dims);
      }
    }
    const double left = dot(row, row, dims);
    const bool independent = left > kRankTolerance * before && left > 0.0;
    const double factor = independent ? 1.0 / std::sqrt(left) : 0.0;
    for (int64_t d = 0; d < dims; ++d) {
      row[d] = static_cast<float>(factor * static_cast<double>(row[d]));
    }
  }
}

// Rows in units of `unit`, rounded: values stay integers, as floats.
Matrix rounded(const Matrix& rows, double unit) {
  Matrix codes(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) {
    codes[i] = static_cast<float>(std::nearbyint(static_cast<double>(rows[i]) / unit));
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
Matrix contraction(const Matrix& rows, int64_t n, int64_t dims) {
  double unit = 1.0 / kOne;
  for (;;) {
    Matrix codes = rounded(rows, unit);
    const double limit = norm2_limit(codes, n, dims);
    if (limit <= kOne * kOne) return codes;
    unit *= (1.0 + 1e-6) * std::sqrt(limit) / kOne;
  }
}

// Orthonormal rows (width, dims): the principal directions of a sample, after a few steps of
// subspace iteration from rows of the sample.
Matrix principal_directions(const float* rows, int64_t n, int64_t dims, const float* centre,
                            int64_t width, int32_t n_threads) {
  const FloatEnvironment environment;
  const SearchKernels& kernels = search_kernels(current_level());
  const int64_t n_sample = std::min(n, kSampleRows);
  const int64_t padded = (dims + kProjectColumns - 1) / kProjectColumns * kProjectColumns;
  Matrix sample(size(n_sample * dims));
  for (int64_t i = 0; i < n_sample; ++i) {
    const float* row = rows + i * n / n_sample * dims;
    for (int64_t d = 0; d < dims; ++d) sample[size(i * dims + d)] = row[d] - centre[d];
  }
  Matrix sample_transposed = transposed(kernels, sample, n_sample, dims);  // (dims, n_sample)
  sample_transposed.resize(size(padded * n_sample));
  Matrix directions(size(width * dims));
  for (int64_t i = 0; i < std::min(width, n_sample); ++i) {
    const float* row = sample.data() + i * n_sample / width * dims;
    std::copy(row, row + dims, directions.data() + i * dims);
  }
  orthonormalise(directions, width, dims);
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    const Matrix coordinates =
        product(kernels, sample, n_sample, directions, width, dims, n_threads);
    const Matrix moved = product(kernels, transposed(kernels, coordinates, n_sample, width), width,
                                 sample_transposed, padded, n_sample, n_threads);
    for (int64_t i = 0; i < width; ++i) {
      std::copy_n(moved.data() + i * padded, dims, directions.data() + i * dims);
    }
    orthonormalise(directions, width, dims);
  }
  return directions;
}

}  // namespace

Projection::Projection(const float* rows, int64_t n, int64_t dims, const float* centre,
                       int64_t width, int32_t n_threads)
    : dims_(dims), width_(width), pairs_((dims + 1) / 2) {
  const Matrix codes =
      contraction(principal_directions(rows, n, dims, centre, width, n_threads), width, dims);
  columns_.resize(size(width * pairs_ * 2));
  for (int64_t c = 0; c < width; ++c) {
    int16_t* panel = columns_.data() + c / kProjectColumns * kProjectColumns * pairs_ * 2;
    for (int64_t d = 0; d < dims; ++d) {
      panel[(d / 2 * kProjectColumns + c % kProjectColumns) * 2 + d % 2] =
          static_cast<int16_t>(codes[size(c * dims + d)]);
    }
  }
}

void Projection::apply(const CodeKernels& kernels, const float* values, const double* norms2,
                       int64_t n, const float* centre, float* out, float* errors) const {
  std::vector<int16_t> codes(size(kCodeQueries * pairs_ * 2));
  std::vector<int32_t> products(size(kCodeQueries * width_));
  float scales[kCodeQueries];
  for (int64_t first = 0; first < n; first += kCodeQueries) {
    const int64_t count = std::min(kCodeQueries, n - first);
    encode_tile(kernels, values + first * dims_, norms2 + first, count, centre, codes.data(),
                scales, errors + first);
    for (int64_t c = 0; c < width_; c += kProjectColumns) {
      kernels.project(codes.data(), columns_.data() + c * pairs_ * 2, pairs_, products.data() + c,
                      width_);
    }
    for (int64_t v = 0; v < count; ++v) {
      const float unit = scales[v] / static_cast<float>(kOne);
      const int32_t* from = products.data() + v * width_;
      float* to = out + (first + v) * width_;
      for (int64_t c = 0; c < width_; ++c) to[c] = unit * static_cast<float>(from[c]);
    }
  }
}

// Vectors rounded to integers, (pairs, kCodeQueries, 2). `errors` also covers the rounding of the
// products to float32.
void Projection::encode_tile(const CodeKernels& kernels, const float* values, const double* norms2,
                             int64_t n, const float* centre, int16_t* codes, float* scales,
                             float* errors) const {
  std::vector<float> vector(size(dims_));
  std::vector<int16_t> row(size(pairs_ * 2));
  for (int64_t v = 0; v < n; ++v, values += dims_) {
    for (int64_t d = 0; d < dims_; ++d) vector[size(d)] = values[d] - centre[d];
    const double length = std::sqrt(norms2[v]);
    const float largest = kernels.largest_magnitude(vector.data(), dims_);
    const double scale =
        std::max({length / kVectorLength, static_cast<double>(largest) / 32767.0, kSmallestScale});
    scales[v] = static_cast<float>(scale);
    const Coded coded = kernels.encode_wide(vector.data(), dims_, scales[v], row.data());
    errors[v] = static_cast<float>(std::sqrt(static_cast<double>(coded.error2)) * (1.0 + 0x1p-18) +
                                   length * 0x1p-20 + kUnderflow);
    for (int64_t p = 0; p < pairs_; ++p) {
      std::copy_n(row.data() + 2 * p, 2, codes + (p * kCodeQueries + v) * 2);
    }
  }
}

}  // namespace kad
