#include "coreset/kcenter.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <limits>
#include <memory>

#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "base/stopwatch.hpp"

namespace {

using kad::Candidate;

constexpr int64_t kInner = 512;
constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kTaken = -1.0F;  // in place of a chosen point's distance: it is never chosen twice
constexpr Candidate kNobody = {-kInfinity, std::numeric_limits<int64_t>::max()};

using Stopwatch = kad::StopwatchOf<std::chrono::duration<int64_t, std::nano>>;

}  // namespace

kad_kcenter::kad_kcenter(const kad_directions* directions, const float* rows, int64_t n_rows,
                         const float* first_dist, int64_t n_skipped, int32_t n_threads)
    : space_(directions),
      kernels_(kad::search_kernels(kad::current_level())),
      points_(rows),
      n_(n_rows),
      skipped_(std::min(n_skipped, n_rows)),
      block_floats_(kad::packed_floats(space_, kernels_, kad::kBlockPoints)) {
  kad::check_count(n_, space_.dims(), "n");
  kad::check_finite_rows(rows, n_, space_.dims(), n_threads, "point");
  kad::check_distances(first_dist, n_);
  const int64_t n_blocks = (n_ + kad::kBlockPoints - 1) / kad::kBlockPoints;
  dist_.assign(first_dist, first_dist + n_);
  half_norms_.resize(static_cast<size_t>(n_));
  terms_.assign(static_cast<size_t>(n_ + kad::kMaxTileQueries), kInfinity);
  sketches_.resize(static_cast<size_t>(n_blocks * block_floats_));
  std::vector<std::vector<float>> scratch(
      static_cast<size_t>(kad::worker_count(n_blocks, n_threads)));
  kad::parallel_for(n_blocks, n_threads, [&](int64_t block, int32_t worker) {
    const int64_t first = block * kad::kBlockPoints;
    const int64_t last = std::min(first + kad::kBlockPoints, n_);
    kad::pack_sketches(space_, kernels_, row(first), last - first,
                       scratch[static_cast<size_t>(worker)],
                       sketches_.data() + block * block_floats_, half_norms_.data() + first);
    for (int64_t i = first; i < last; ++i) {
      const auto at = static_cast<size_t>(i);
      terms_[at] = space_.point_term(half_norms_[at], dist_[at]);
    }
  });
}

void kad_kcenter::pick(int64_t wanted, const Candidate& outside, int32_t n_threads,
                       int64_t* out_rows, float* out_dist, int64_t* out_count) {
  while (*out_count < wanted) {
    if (!drawn_) {
      flush(n_threads);
      draw();
    }
    const Candidate best = find();
    if (!best.precedes(others_)) {
      if (pending_.empty()) break;  // every point is chosen or skipped
      drawn_ = false;
      continue;
    }
    if (!best.precedes(outside)) break;
    take(best);
    out_rows[*out_count] = best.row;
    out_dist[(*out_count)++] = best.dist;
  }
}

void kad_kcenter::flush(int32_t n_threads) {
  if (pending_.empty()) return;
  const Stopwatch watch(&stats.flush_ns);
  const int64_t dims = space_.dims();
  std::vector<float> rows(pending_.size() * static_cast<size_t>(dims));
  for (size_t i = 0; i < pending_.size(); ++i) {
    std::copy_n(row(pending_[i]), dims, rows.data() + i * static_cast<size_t>(dims));
  }
  const kad::Centres centres(space_, kernels_, rows.data(), static_cast<int64_t>(pending_.size()));
  const int64_t n_blocks = (n_ + kad::kBlockPoints - 1) / kad::kBlockPoints;
  std::atomic<int64_t> decided{0};
  kad::parallel_for(n_blocks, n_threads, [&](int64_t block, int32_t) {
    const int64_t first = block * kad::kBlockPoints;
    decided +=
        kad::lower_distances(space_, kernels_, centres,
                             {row(first), std::min(kad::kBlockPoints, n_ - first),
                              sketches_.data() + block * block_floats_, half_norms_.data() + first,
                              dist_.data() + first, terms_.data() + first});
  });
  stats.flushes += 1;
  stats.screened_pairs += n_ * centres.n();
  stats.decided_pairs += decided;
  pending_.clear();
}

// The inner points precede all others; among those that tie at the edge the lowest rows are inner.
void kad_kcenter::draw() {
  const Stopwatch watch(&stats.draw_ns);
  const int64_t dims = space_.dims();
  const int64_t size = std::min(n_, std::max(kInner, 2 * (skipped_ + 1)));
  found_.assign(dist_.begin(), dist_.end());
  const auto edge_at = found_.begin() + (size - 1);
  std::nth_element(found_.begin(), edge_at, found_.end(), std::greater<>());
  const float edge = *edge_at;
  int64_t ties =
      size - std::count_if(dist_.begin(), dist_.end(), [&](float x) { return x > edge; });
  inner_.clear();
  others_ = kNobody;
  for (int64_t i = 0; i < n_; ++i) {
    const float dist = dist_[static_cast<size_t>(i)];
    if (dist > edge || (dist == edge && ties-- > 0)) {
      inner_.push_back(i);
    } else if (const Candidate other = {dist, i}; other.precedes(others_)) {
      others_ = other;
    }
  }
  inner_points_.resize(static_cast<size_t>(size * dims));
  inner_rows_.resize(static_cast<size_t>(size));
  inner_dist_.resize(static_cast<size_t>(size));
  for (int64_t i = 0; i < size; ++i) {
    const int64_t from = inner_[static_cast<size_t>(i)];
    inner_rows_[static_cast<size_t>(i)] = inner_points_.data() + i * dims;
    std::copy_n(row(from), dims, inner_points_.data() + i * dims);
    inner_dist_[static_cast<size_t>(i)] = dist_[static_cast<size_t>(from)];
  }
  drawn_ = true;
}

// The inner point that comes after the first `skipped_` ones.
Candidate kad_kcenter::find() {
  const auto size = static_cast<int64_t>(inner_.size());
  if (skipped_ >= size) return kNobody;
  int64_t at = std::max_element(inner_dist_.begin(), inner_dist_.end()) - inner_dist_.begin();
  if (skipped_ > 0) {
    order_.resize(static_cast<size_t>(size));
    for (int64_t i = 0; i < size; ++i) order_[static_cast<size_t>(i)] = static_cast<int32_t>(i);
    const auto before = [&](int32_t a, int32_t b) {
      const float x = inner_dist_[static_cast<size_t>(a)], y = inner_dist_[static_cast<size_t>(b)];
      return x > y || (x == y && a < b);
    };
    std::nth_element(order_.begin(), order_.begin() + skipped_, order_.end(), before);
    at = order_[static_cast<size_t>(skipped_)];
  }
  const float dist = inner_dist_[static_cast<size_t>(at)];
  if (dist < 0.0F) return kNobody;
  return {dist, inner_[static_cast<size_t>(at)]};
}

// What can run out of memory comes first: a point is taken as a whole, or not at all.
void kad_kcenter::take(const Candidate& chosen) {
  const Stopwatch watch(&stats.inner_ns);
  const auto size = static_cast<int64_t>(inner_.size());
  const auto at = static_cast<size_t>(chosen.row);
  queries_.assign(inner_.size(), row(chosen.row));
  found_.resize(inner_.size());
  pending_.push_back(chosen.row);
  dist_[at] = kTaken;
  terms_[at] = kInfinity;
  kernels_.distances(queries_.data(), inner_rows_.data(), size, space_.dims(), found_.data());
  for (size_t i = 0; i < inner_.size(); ++i) {
    inner_dist_[i] = std::min(inner_dist_[i], found_[i]);
    if (inner_[i] == chosen.row) inner_dist_[i] = kTaken;
  }
  stats.inner_pairs += size;
}

extern "C" {

kad_status kad_kcenter_create(const kad_directions* directions, const float* points, int64_t n,
                              const float* dist, int64_t n_skipped, int32_t n_threads,
                              kad_kcenter** out_kcenter) {
  return kad::guard([&] {
    kad::check_pointer(out_kcenter, "out_kcenter");
    *out_kcenter = nullptr;
    kad::check_pointer(points, "points");
    kad::check_pointer(dist, "dist");
    kad::check_threads(n_threads);
    if (n < 1 || n_skipped < 0) {
      kad::fail(KAD_ERROR_INVALID_ARGUMENT,
                "n must be at least 1 and n_skipped at least 0, got %lld and %lld",
                static_cast<long long>(n), static_cast<long long>(n_skipped));
    }
    *out_kcenter =
        std::make_unique<kad_kcenter>(directions, points, n, dist, n_skipped, n_threads).release();
  });
}

void kad_kcenter_close(kad_kcenter* kcenter) { delete kcenter; }

kad_status kad_kcenter_pick(kad_kcenter* kcenter, int64_t wanted, float outside_dist,
                            int64_t outside_row, int32_t n_threads, int64_t* out_rows,
                            float* out_dist, int64_t* out_count) {
  return kad::guard([&] {
    kad::check_pointer(kcenter, "kcenter");
    kad::check_pointer(out_count, "out_count");
    *out_count = 0;
    kad::check_threads(n_threads);
    kad::check_count(wanted, 1, "wanted");
    if (std::isnan(outside_dist)) {
      kad::fail(
          KAD_ERROR_NOT_FINITE,
          "outside_dist is NaN: expected the distance of the farthest point outside, -INFINITY "
          "where there is none");
    }
    if (wanted == 0) return;
    kad::check_pointer(out_rows, "out_rows");
    kad::check_pointer(out_dist, "out_dist");
    kcenter->pick(wanted, {outside_dist, outside_row}, n_threads, out_rows, out_dist, out_count);
  });
}

kad_status kad_kcenter_info(const kad_kcenter* kcenter, kad_kcenter_stats* out_stats) {
  return kad::guard([&] {
    kad::check_pointer(kcenter, "kcenter");
    kad::check_pointer(out_stats, "out_stats");
    kad::write_struct(kcenter->stats, out_stats, KAD_FIRST_SIZE(kad_kcenter_stats, inner_ns),
                      "kad_kcenter_stats");
  });
}

}  // extern "C"
