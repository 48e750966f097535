// What an index has done. A worker counts for itself and adds its counts to the index's totals once
// for each block of queries.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace kad {

/// The fields of kad_search_stats, in their order.
enum Count : int32_t {
  kQueries,
  kDenseQueries,
  kNarrowPairs,
  kNarrowProducts,
  kWidePairs,
  kDecidedPairs,
  kDensePairs,
  kDenseDecidedPairs,
  kPrepareTime,
  kNarrowTime,
  kWideTime,
  kDecideTime,
  kDenseTime,
  kSeedProducts,
  kSeedTime,
  kCounts
};

/// One worker's counts. Time runs: each lap gives what has passed since the last one to a stage.
class Tally {
 public:
  void start() {
    std::fill(values_, values_ + kCounts, 0);
    last_ = Clock::now();
  }
  void add(Count count, int64_t n) { values_[count] += n; }
  void lap(Count stage) {
    const Clock::time_point now = Clock::now();
    add(stage, std::chrono::duration_cast<std::chrono::nanoseconds>(now - last_).count());
    last_ = now;
  }
  int64_t of(Count count) const { return values_[count]; }

 private:
  using Clock = std::chrono::steady_clock;

  int64_t values_[kCounts] = {};
  Clock::time_point last_;
};

class TotalCounts {
 public:
  void add(const Tally& tally) {
    for (int32_t i = 0; i < kCounts; ++i) {
      totals_[i].fetch_add(tally.of(static_cast<Count>(i)), std::memory_order_relaxed);
    }
  }
  int64_t of(Count count) const { return totals_[count].load(std::memory_order_relaxed); }

 private:
  std::atomic<int64_t> totals_[kCounts] = {};
};

}  // namespace kad
