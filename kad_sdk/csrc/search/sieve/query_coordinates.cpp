#include "search/sieve/query_coordinates.hpp"

#include <algorithm>
#include <cmath>

#include "search/index.hpp"

namespace kad {
namespace {

constexpr double kUnit = 0x1p-24;

// The largest length of vectors (dims, stride), rounded up.
double largest_length(const float* values, int64_t dims, int64_t stride) {
  std::vector<float> sums(static_cast<size_t>(stride));
  for (int64_t d = 0; d < dims; ++d, values += stride) {
    for (int64_t i = 0; i < stride; ++i) sums[static_cast<size_t>(i)] += values[i] * values[i];
  }
  const double largest = static_cast<double>(*std::max_element(sums.begin(), sums.end()));
  return 1.001 * std::sqrt(largest) + 1e-18;
}

}  // namespace

void QueryCoordinates::load(const QueryBlock& block) {
  n_ = block.n();
  coarse_ = nullptr;
  const int64_t padded = (n_ + kPackedVectors - 1) / kPackedVectors * kPackedVectors;
  packed_.resize(static_cast<size_t>(index_.dims * kPackedVectors));
  values_.resize(static_cast<size_t>(padded * sieve_.width()));
  errors_.resize(static_cast<size_t>(n_));
  lengths_.resize(static_cast<size_t>(n_));
  for (int64_t q = 0; q < n_; ++q) {
    lengths_[static_cast<size_t>(q)] = std::sqrt(block.norm2(q)) * (1.0 + 1e-9);
    errors_[static_cast<size_t>(q)] = sieve_.basis().error(length(q)) + kUnit * length(q);
  }
  for (int64_t first = 0; first < n_; first += kPackedVectors) {
    const int64_t count = std::min(kPackedVectors, n_ - first);
    kernels_.pack(block.query(first), index_.dims, count, kPackedVectors, index_.dims,
                  index_.centre.data(), packed_.data());
    sieve_.basis().apply(kernels_, packed_.data(), count, values_.data() + first * sieve_.width());
  }
  encode_wide(block);
}

bool QueryCoordinates::load_positions(const CoarseWindow& coarse) {
  const Projection& map = sieve_.basis().coarse();
  if (!(largest_length(coarse.values(), map.dims(), coarse.stride()) < kLongest)) return false;
  coarse_ = &coarse;
  positions_.resize(static_cast<size_t>(coarse.stride() * map.width()));
  map.apply(kernels_, coarse.values(), coarse.stride(), coarse.n_positions(), positions_.data(),
            map.width());
  return true;
}

void QueryCoordinates::mix_positions(const float* values, int64_t stride, int64_t patch, int64_t n,
                                     float* out) const {
  const AxisMix &rows = coarse_->rows(), &columns = coarse_->columns();
  const auto width = static_cast<int64_t>(columns.near.size());
  const auto y = static_cast<size_t>(patch / width), x = static_cast<size_t>(patch % width);
  const float near_row = rows.half ? 0.5F : 0.75F, near_column = columns.half ? 0.5F : 0.75F;
  const float weights[4] = {near_row * near_column, near_row * (1.0F - near_column),
                            (1.0F - near_row) * near_column,
                            (1.0F - near_row) * (1.0F - near_column)};
  const auto at = [&](int32_t row, int32_t column) {
    return values + (row * coarse_->n_columns() + column) * stride;
  };
  const float* sources[4] = {at(rows.near[y], columns.near[x]), at(rows.near[y], columns.far[x]),
                             at(rows.far[y], columns.near[x]), at(rows.far[y], columns.far[x])};
  kernels_.combine(sources, weights, 4, n, out);
}

void QueryCoordinates::encode_wide(const QueryBlock& block) {
  wide_codes_.resize(static_cast<size_t>(n_ * sieve_.width()));
  wide_.resize(static_cast<size_t>(n_));
  for (int64_t q = 0; q < n_; ++q) {
    const Rest rest = sieve_.rest(of(q), block.norm2(q), error(q));
    wide_[static_cast<size_t>(q)] = sieve_.encode_wide(sieve_.codes(), of(q), block.norm2(q), rest,
                                                       wide_codes_.data() + q * sieve_.width());
  }
}

}  // namespace kad
