#include "query_block.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kad {

void NearestRows::offer(float dist, int64_t row) {
  int32_t place = count_;
  for (int32_t i = 0; i < count_; ++i) {
    if (row_[i] == row) return;
    const bool better = dist < dist_[i] || (dist == dist_[i] && row < row_[i]);
    if (better && place == count_) place = i;
  }
  if (place == capacity_) return;
  count_ = std::min(count_ + 1, capacity_);
  for (int32_t i = count_ - 1; i > place; --i) {
    dist_[i] = dist_[i - 1];
    row_[i] = row_[i - 1];
  }
  dist_[place] = dist;
  row_[place] = row;
}

bool QueryBlock::load(const float* queries, int64_t n) {
  n_ = n;
  queries_ = queries;
  norms2_.resize(static_cast<size_t>(n));
  limits_.assign(static_cast<size_t>(n), std::numeric_limits<double>::infinity());
  reaches_ = limits_;
  nearest_.resize(static_cast<size_t>(n));
  for (int64_t q = 0; q < n; ++q) {
    nearest_[static_cast<size_t>(q)].clear(k_ + kSpareRows);
    const double norm2 = kernels_.norm2(query(q), index_.centre.data(), index_.dims);
    norms2_[static_cast<size_t>(q)] = norm2;
    // Finite values far apart may overflow too, so look before refusing them.
    if (!std::isfinite(norm2) && has_non_finite(query(q), index_.dims)) return false;
  }
  return true;
}

bool QueryBlock::decide(int64_t q, const int64_t* rows, int64_t n_rows) {
  const float* values[kMostRows] = {};
  float dist[kMostRows];
  for (int64_t i = 0; i < n_rows; ++i) values[i] = index_.row(rows[i]);
  kernels_.distances(query(q), values, n_rows, index_.dims, dist);
  NearestRows& nearest = nearest_[static_cast<size_t>(q)];
  for (int64_t i = 0; i < n_rows; ++i) nearest.offer(dist[i], rows[i]);
  if (nearest.count() < k_) return false;
  const double limit = squared_limit(nearest.dist(k_ - 1), index_.dims);
  if (limit == this->limit(q)) return false;
  limits_[static_cast<size_t>(q)] = limit;
  reaches_[static_cast<size_t>(q)] = std::sqrt(limit) * (1.0 + 1e-12);
  return true;
}

void QueryBlock::store(float* out_dist, int64_t* out_index) const {
  for (int64_t q = 0; q < n_; ++q) {
    for (int32_t i = 0; i < k_; ++i) {
      *out_dist++ = nearest(q).dist(i);
      *out_index++ = nearest(q).row(i);
    }
  }
}

}  // namespace kad
