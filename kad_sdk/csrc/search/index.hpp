// The search index: what is computed once for a bank.
//
// Screening bound
// ---------------
// u = 2^-24. For a query q and a bank row m let q' = fl(q - c) and m' = fl(m - c) be the vectors
// centred by c, X = |q'| and Y = |m'|, D the dimension. `screen` computes a product p of q' and m'.
//
//   1. The computed distance d of the defined arithmetic is the root of a sum of squares in which
//      every term goes through at most a = ceil(D / 16) + 8 roundings, so the true squared distance
//      t obeys t <= (d^2 (1 + 4u) + D 2^-149) / (1 - 2 a u); the second term covers squares that
//      underflow. Let T be that limit, with 8u for 4u, which leaves room for its own rounding, for
//      the k-th best distance known so far: a row with t > T cannot be among the k nearest, not
//      even by a tie.
//   2. Centring rounds each coordinate once: |q' - m'| <= sqrt(t) + u (X + Y). With
//      2ab <= a^2 + b^2, |q' - m'|^2 <= T (1 + 4u) + 2u (X^2 + Y^2).
//   3. q'.m' = (X^2 + Y^2 - |q' - m'|^2) / 2, and a chain of g roundings, here
//      g = min(D, kChainLength) + ceil(D / kChainLength) + 1, gives
//      |p - q'.m'| <= 2 g u X Y + D 2^-149 <= g u (X^2 + Y^2) + D 2^-149.
//
// Together: a row that may matter has
//   p >= (1 - s) Y^2 / 2 + (1 - s) X^2 / 2 - (1 + s) T / 2 - D 2^-148      with s = (2g + 16) u,
// where the 16 leaves room for the rounding of the two terms, stored as floats rounded down, and of
// their sum. Above kLargestNorm2 a product could overflow, so the term is -inf there: such a row,
// or all rows for such a query, are always decided by the defined arithmetic.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "base/level.hpp"
#include "kad/kad.h"
#include "search/byte_arrays.hpp"
#include "search/sieve/sieve.hpp"
#include "search/split.hpp"
#include "search/statistics.hpp"

struct kad_index {
  /// Built from its bank, with the arithmetic of a level: codes differ in their last bits between
  /// levels, answers do not.
  kad_index(const float* bank_values, int64_t n_rows, const kad::SplitLayout& split_layout,
            kad::Level level, int32_t n_threads);

  /// As `store` wrote it (stored_index.hpp). Borrows those bytes.
  kad_index(const float* bank_values, int64_t n_rows, const kad::SplitLayout& split_layout,
            kad::ByteReader& stored, int32_t n_threads);

  const float* row(int64_t r) const { return bank + r * dims; }

  /// What the index holds beside the bank.
  int64_t bytes() const;

  const float* bank;  // (rows, dims), the caller's
  int64_t rows;
  int64_t dims;
  kad::SplitLayout layout;                  // of the dimensions
  std::vector<float> centre;                // (dims,) mean of the bank
  std::vector<float> row_terms;             // (rows, padded) (1 - s) Y^2 / 2, rounded down
  std::unique_ptr<const kad::Sieve> sieve;  // or null
  mutable kad::TotalCounts totals;
};

namespace kad {

constexpr double kLargestNorm2 = 1e37;

/// s of the screening bound.
double screening_slack(int64_t dims);

/// T of the screening bound: the largest true squared distance of a row whose computed distance is
/// at most `dist`.
double squared_limit(float dist, int64_t dims);

/// (1 - s) norm2 / 2 rounded down; -inf where the screening cannot be trusted.
float row_term(double norm2, int64_t dims);

/// (1 - s) norm2 / 2 - (1 + s) T / 2 - D 2^-148 rounded down; -inf where the screening cannot be
/// trusted, and for an infinite T.
float query_term(double norm2, double limit, int64_t dims);

/// Check that a bank of this shape can be. Raises KAD_ERROR_INVALID_ARGUMENT.
void check_bank_shape(int64_t rows, int64_t dims);

/// Whether a value of the array is NaN or infinite.
bool has_non_finite(const float* values, int64_t n);

}  // namespace kad
