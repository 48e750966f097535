#include "search/sieve/principal.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <numeric>

#include "base/float_environment.hpp"
#include "base/parallel.hpp"
#include "base/rounding.hpp"
#include "search/search_kernels.hpp"
#include "search/sieve/dot.hpp"
#include "search/sieve/projection.hpp"

namespace kad {
namespace {

constexpr int64_t kSampleValues = int64_t{1} << 21;
constexpr int64_t kMostSampleRows = 4096;
constexpr int kIterations = 5;
constexpr double kRankTolerance = 1e-10;  // squared length below which a direction is noise
constexpr int64_t kBlock = kProjectColumns;

size_t size(int64_t value) { return static_cast<size_t>(value); }

// Rows of floats. Some columns are added behind the used ones, so that rows begin on different
// lines of the cache, and whole vectors can be read.
struct Matrix {
  int64_t n;
  int64_t stride;
  std::vector<float> values;

  Matrix(int64_t rows, int64_t columns)
      : n(rows), stride(round_up(columns, kBlock) + 16), values(size((rows + kBlock) * stride)) {}
  float* row(int64_t i) { return values.data() + i * stride; }
  const float* row(int64_t i) const { return values.data() + i * stride; }
};

// out[i, c] = sum over s < n of a[s, i] b[s, c], for i < rows and c < columns, a multiple of
// kBlock.
void multiply(const SearchKernels& kernels, const Matrix& a, const Matrix& b, int64_t n,
              int64_t rows, int64_t columns, int32_t n_threads, Matrix& out) {
  parallel_for((rows + kBlock - 1) / kBlock, n_threads, [&](int64_t task, int32_t) {
    const FloatEnvironment environment;
    for (int64_t c = 0; c < columns; c += kernels.columns) {
      for (int64_t i = task * kBlock; i < std::min(rows, (task + 1) * kBlock);
           i += kernels.tile_queries) {
        kernels.multiply(a.row(0) + i, a.stride, b.row(0) + c, b.stride, n, out.row(i) + c,
                         out.stride);
      }
    }
  });
}

Matrix transposed(const SearchKernels& kernels, const Matrix& matrix, int64_t rows,
                  int64_t columns) {
  Matrix out(columns, rows);
  kernels.pack(matrix.row(0), matrix.stride, rows, out.stride, columns, nullptr, out.row(0));
  return out;
}

void subtract_multiple(float* a, const float* b, double factor, int64_t n) {
  const auto weight = static_cast<float>(factor);
  for (int64_t i = 0; i < n; ++i) a[i] -= weight * b[i];
}

// Modified Gram-Schmidt on rows [begin, end), twice. What is left of a dependent row is set to
// zero; `before` are the squared lengths that "dependent" refers to.
void orthonormalise_block(Matrix& rows, int64_t begin, int64_t end, int64_t dims,
                          const std::vector<double>& before) {
  for (int64_t i = begin; i < end; ++i) {
    float* row = rows.row(i);
    for (int pass = 0; pass < 2; ++pass) {
      for (int64_t j = begin; j < i; ++j) {
        subtract_multiple(row, rows.row(j), dot(row, rows.row(j), dims), dims);
      }
    }
    const double left = dot(row, row, dims);
    const bool independent = left > kRankTolerance * before[size(i)] && left > 0.0;
    const double factor = independent ? 1.0 / std::sqrt(left) : 0.0;
    for (int64_t d = 0; d < dims; ++d) {
      row[d] = static_cast<float>(factor * static_cast<double>(row[d]));
    }
  }
}

// Gram-Schmidt on the rows (width, dims), block by block: what earlier blocks hold of a block is
// taken out by matrix products.
void orthonormalise(const SearchKernels& kernels, Matrix& rows, int64_t width, int64_t dims,
                    int32_t n_threads) {
  std::vector<double> before(size(width));
  for (int64_t i = 0; i < width; ++i) before[size(i)] = dot(rows.row(i), rows.row(i), dims);
  for (int64_t begin = 0; begin < width; begin += kBlock) {
    const int64_t end = std::min(width, begin + kBlock);
    for (int pass = 0; pass < 2 && begin > 0; ++pass) {
      const Matrix columns = transposed(kernels, rows, end, dims);  // (dims, end)
      Matrix block(dims, kBlock), shares(begin, kBlock), held(kBlock, dims);
      for (int64_t d = 0; d < dims; ++d) {
        std::copy_n(columns.row(d) + begin, end - begin, block.row(d));
      }
      multiply(kernels, columns, block, dims, begin, kBlock, n_threads, shares);
      multiply(kernels, shares, rows, begin, end - begin, round_up(dims, kBlock), n_threads, held);
      for (int64_t i = begin; i < end; ++i) {
        subtract_multiple(rows.row(i), held.row(i - begin), 1.0, dims);
      }
    }
    orthonormalise_block(rows, begin, end, dims, before);
  }
}

Matrix centred_sample(const float* values, int64_t n, int64_t stride, int64_t dims,
                      const float* centre) {
  const int64_t most = std::clamp<int64_t>(kSampleValues / dims, 1024, kMostSampleRows);
  Matrix sample(std::min(n, most), dims);
  for (int64_t i = 0; i < sample.n; ++i) {
    const float* row = values + i * n / sample.n * stride;
    for (int64_t d = 0; d < dims; ++d) sample.row(i)[d] = row[d] - centre[d];
  }
  return sample;
}

// Rows by falling variance.
PrincipalDirections sorted(const Matrix& rows, const std::vector<double>& variance, int64_t width,
                           int64_t dims) {
  std::vector<int64_t> order(size(width));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int64_t a, int64_t b) { return variance[size(a)] > variance[size(b)]; });
  PrincipalDirections found;
  for (const int64_t i : order) {
    found.variance.push_back(variance[size(i)]);
    found.rows.insert(found.rows.end(), rows.row(i), rows.row(i) + dims);
  }
  return found;
}

}  // namespace

PrincipalDirections principal_directions(const float* values, int64_t n, int64_t stride,
                                         int64_t dims, const float* centre, int64_t width,
                                         const SearchKernels& kernels, int32_t n_threads) {
  const FloatEnvironment environment;
  const Matrix sample = centred_sample(values, n, stride, dims, centre);
  const Matrix columns = transposed(kernels, sample, sample.n, dims);  // (dims, samples)
  Matrix rows(width, dims), coordinates(sample.n, width);
  for (int64_t i = 0; i < std::min({width, sample.n, dims}); ++i) {
    const float* row = sample.row(i * sample.n / width);
    std::copy_n(row, dims, rows.row(i));
  }
  orthonormalise(kernels, rows, width, dims, n_threads);
  // Subspace iteration. The last turn only measures.
  for (int iteration = 0; iteration <= kIterations; ++iteration) {
    multiply(kernels, columns, transposed(kernels, rows, width, dims), dims, sample.n, width,
             n_threads, coordinates);
    if (iteration == kIterations) break;
    Matrix moved(dims, width);
    multiply(kernels, sample, coordinates, sample.n, dims, width, n_threads, moved);
    rows = transposed(kernels, moved, dims, width);
    orthonormalise(kernels, rows, width, dims, n_threads);
  }
  std::vector<double> variance(size(width));
  for (int64_t i = 0; i < sample.n; ++i) {
    for (int64_t c = 0; c < width; ++c) {
      const auto value = static_cast<double>(coordinates.row(i)[c]);
      variance[size(c)] += value * value / static_cast<double>(sample.n);
    }
  }
  return sorted(rows, variance, width, dims);
}

}  // namespace kad
