#include "projection.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

#include "float_environment.hpp"
#include "parallel.hpp"

namespace kad {
namespace {

constexpr int64_t kSampleRows = 4096;
constexpr int kIterations = 5;
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

// The squared spectral norm is at most the largest absolute row sum of the Gram matrix.
double norm2_limit(const Matrix& rows, int64_t n, int64_t dims) {
  double largest = 0.0;
  for (int64_t i = 0; i < n; ++i) {
    double sum = 0.0;
    for (int64_t j = 0; j < n; ++j) {
      sum += std::fabs(dot(rows.data() + i * dims, rows.data() + j * dims, dims));
    }
    largest = std::max(largest, sum);
  }
  return largest;
}

// Shrink the rows until the computed limit, which is good to 1e-12, proves a norm below 1.
void make_contraction(Matrix& rows, int64_t n, int64_t dims) {
  for (double limit = norm2_limit(rows, n, dims); limit > 1.0 - 1e-9;
       limit = norm2_limit(rows, n, dims)) {
    const double factor = (1.0 - 1e-6) / std::sqrt(limit);
    for (float& value : rows) value = static_cast<float>(factor * static_cast<double>(value));
  }
}

}  // namespace

Projection::Projection(const float* rows, int64_t n, int64_t dims, const float* centre,
                       int64_t width, int32_t n_threads)
    : dims_(dims), width_(width) {
  const FloatEnvironment environment;
  const SearchKernels& kernels = search_kernels(current_level());
  const int64_t n_sample = std::min(n, kSampleRows);
  const int64_t padded = (dims + kMaxColumns - 1) / kMaxColumns * kMaxColumns;
  Matrix sample(size(n_sample * dims));
  for (int64_t i = 0; i < n_sample; ++i) {
    const float* row = rows + i * n / n_sample * dims;
    for (int64_t d = 0; d < dims; ++d) sample[size(i * dims + d)] = row[d] - centre[d];
  }
  Matrix sample_transposed = transposed(kernels, sample, n_sample, dims);  // (dims, n_sample)
  sample_transposed.resize(size(padded * n_sample));
  directions_.assign(size(width * dims), 0.0F);
  for (int64_t i = 0; i < std::min(width, n_sample); ++i) {
    const float* row = sample.data() + i * n_sample / width * dims;
    std::copy(row, row + dims, directions_.data() + i * dims);
  }
  orthonormalise(directions_, width, dims);
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    const Matrix coordinates =
        product(kernels, sample, n_sample, directions_, width, dims, n_threads);
    const Matrix moved = product(kernels, transposed(kernels, coordinates, n_sample, width), width,
                                 sample_transposed, padded, n_sample, n_threads);
    for (int64_t i = 0; i < width; ++i) {
      std::copy_n(moved.data() + i * padded, dims, directions_.data() + i * dims);
    }
    orthonormalise(directions_, width, dims);
  }
  make_contraction(directions_, width, dims);
}

double Projection::coordinate_error() const {
  const int64_t chains = (dims_ + kChainLength - 1) / kChainLength;
  return static_cast<double>(std::min(dims_, kChainLength) + chains + 2) * 0x1p-24;
}

std::vector<float> Projection::packed(const SearchKernels& kernels) const {
  return packed_panels(kernels, directions_.data(), width_, dims_);
}

void Projection::apply(const SearchKernels& kernels, const std::vector<float>& packed,
                       const float* values, int64_t n, const float* centre,
                       std::vector<float>& scratch, float* out) const {
  const int64_t step = kernels.tile_queries;
  scratch.resize(size(step * (dims_ + width_)));
  float* rows = scratch.data();
  float* rest = rows + step * dims_;  // coordinates of a tile that is not full
  for (int64_t first = 0; first < n; first += step) {
    const int64_t count = std::min(step, n - first);
    kernels.pack(values + first * dims_, dims_, count, step, dims_, centre, rows);
    float* tile = count == step ? out + first * width_ : rest;
    for (int64_t c = 0; c < width_; c += kernels.columns) {
      kernels.multiply(rows, packed.data() + c * dims_, dims_, tile + c, width_);
    }
    if (count < step) std::copy_n(rest, count * width_, out + first * width_);
  }
}

}  // namespace kad
