#include "search/sieve/query_block.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/prefetch.hpp"

namespace kad {
namespace {

constexpr int64_t kBatch = 8;  // distances computed side by side

}  // namespace

void NearestRows::offer(float dist, int64_t row) {
  if (count_ == capacity_ && dist > dist_[count_ - 1]) return;
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
  worst_.assign(static_cast<size_t>(n), -1.0F);
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

void QueryBlock::decide(const RowPair* pairs, int64_t n) {
  const int64_t row_bytes = index_.dims * static_cast<int64_t>(sizeof(float));
  for (int64_t first = 0; first < n; first += kBatch) {
    const int64_t count = std::min(kBatch, n - first);
    const float *queries[kBatch], *rows[kBatch];
    float dist[kBatch];
    for (int64_t i = 0; i < count; ++i) {
      queries[i] = query(pairs[first + i].query);
      rows[i] = index_.row(pairs[first + i].row);
    }
    for (int64_t i = first + count; i < std::min(first + count + kBatch, n); ++i) {
      prefetch(index_.row(pairs[i].row), row_bytes);
    }
    kernels_.distances(queries, rows, count, index_.dims, dist);
    for (int64_t i = 0; i < count; ++i) offer(pairs[first + i], dist[i]);
  }
}

void QueryBlock::offer(const RowPair& pair, float dist) {
  const auto q = static_cast<size_t>(pair.query);
  NearestRows& nearest = nearest_[q];
  nearest.offer(dist, pair.row);
  if (nearest.count() < k_ || nearest.dist(k_ - 1) == worst_[q]) return;
  worst_[q] = nearest.dist(k_ - 1);
  limits_[q] = squared_limit(worst_[q], index_.dims);
  reaches_[q] = std::sqrt(limits_[q]) * (1.0 + 1e-12);
}

void QueryBlock::store(int64_t first, int64_t n, float* out_dist, int64_t* out_index) const {
  for (int64_t q = first; q < first + n; ++q) {
    for (int32_t i = 0; i < k_; ++i) {
      *out_dist++ = nearest(q).dist(i);
      *out_index++ = nearest(q).row(i);
    }
  }
}

}  // namespace kad
