// A block of queries and the best rows found for them so far.
#pragma once

#include <cstdint>
#include <vector>

#include "search/index.hpp"
#include "search/search_kernels.hpp"

namespace kad {

constexpr int32_t kMostNeighbours = 16;

/// Rows kept beyond the k nearest: good first guesses for a neighbouring query.
constexpr int32_t kSpareRows = 1;

/// The best rows found so far, nearest first, ties by the lowest row.
class NearestRows {
 public:
  void clear(int32_t capacity) {
    capacity_ = capacity;
    count_ = 0;
  }
  /// Offer a row, also one that was offered before.
  void offer(float dist, int64_t row);
  int32_t count() const { return count_; }
  float dist(int32_t i) const { return dist_[i]; }
  int64_t row(int32_t i) const { return row_[i]; }

 private:
  int32_t capacity_ = 0;
  int32_t count_ = 0;
  float dist_[kMostNeighbours + kSpareRows];
  int64_t row_[kMostNeighbours + kSpareRows];
};

/// A query of a block and a row of the bank.
struct RowPair {
  int32_t query;
  int64_t row;
};

class QueryBlock {
 public:
  static constexpr int64_t kMostQueries = 1024;

  QueryBlock(const kad_index& index, const SearchKernels& kernels, int32_t k)
      : index_(index), kernels_(kernels), k_(k) {}

  /// Begin with n <= kMostQueries queries (n, D). False when one of them is not finite.
  bool load(const float* queries, int64_t n);

  int64_t n() const { return n_; }
  int32_t k() const { return k_; }
  const float* query(int64_t q) const { return queries_ + q * index_.dims; }
  double norm2(int64_t q) const { return norms2_[static_cast<size_t>(q)]; }  // centred
  const double* norms2() const { return norms2_.data(); }
  const NearestRows& nearest(int64_t q) const { return nearest_[static_cast<size_t>(q)]; }

  /// T of the screening bound (index.hpp), infinite as long as fewer than k rows are known.
  double limit(int64_t q) const { return limits_[static_cast<size_t>(q)]; }

  /// The root of T, rounded up.
  double reach(int64_t q) const { return reaches_[static_cast<size_t>(q)]; }

  /// Offer rows to queries, by their distance in the defined arithmetic.
  void decide(const RowPair* pairs, int64_t n);

  /// Write the results of all queries, (n, k), or of some.
  void store(float* out_dist, int64_t* out_index) const { store(0, n_, out_dist, out_index); }
  void store(int64_t first, int64_t n, float* out_dist, int64_t* out_index) const;

 private:
  void offer(const RowPair& pair, float dist);

  const kad_index& index_;
  const SearchKernels& kernels_;
  int32_t k_;
  int64_t n_ = 0;
  const float* queries_ = nullptr;
  std::vector<double> norms2_;
  std::vector<double> limits_;
  std::vector<double> reaches_;
  std::vector<float> worst_;  // (n,) distance of the k-th nearest row
  std::vector<NearestRows> nearest_;
};

}  // namespace kad
