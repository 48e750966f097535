// What search_bound looks into: an index, each bound's ledger, and the narrow stage's kernel.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/level.hpp"
#include "search/index.hpp"
#include "search/sieve/narrow_pass.hpp"
#include "search/split.hpp"
#include "search/stored_index.hpp"
#include "search_families.hpp"

namespace bounds {

inline constexpr int32_t kThreads = 3;
inline constexpr double kInfinity = std::numeric_limits<double>::infinity();

// What has been found out about one kind of bound.
struct Ledger {
  const char* name;
  double raised = 0.0;  // what the bounds are raised by, as a share of the true squared distance
  int64_t comparisons = 0;
  int64_t violations = 0;
  double smallest = kInfinity;  // margin

  // `slack` is how much larger the bound could be, in squared distance.
  void enter(double slack, double true_distance2) {
    ++comparisons;
    const double none = slack < 0.0 ? -kInfinity : kInfinity;
    const double margin = true_distance2 > 0.0 ? slack / true_distance2 : none;
    smallest = std::min(smallest, margin);
    if (!(margin >= raised)) ++violations;
  }
};

enum Kind { kLimit, kDense, kNarrow, kWindow, kWide, kKinds };

struct Ledgers {
  int64_t answers = 0;  // of searches by codes that were compared with all distances
  int64_t wrong_answers = 0;
  Ledger of[kKinds] = {{"limit"}, {"dense"}, {"narrow"}, {"window"}, {"wide"}};
};

inline double true_distance2(const float* a, const float* b, int64_t dims) {
  long double sum = 0.0L;
  for (int64_t d = 0; d < dims; ++d) {
    const long double difference = static_cast<long double>(a[d]) - static_cast<long double>(b[d]);
    sum += difference * difference;
  }
  return static_cast<double>(sum);
}

// The narrow stage calls this instead of a level's own kernel, which gives the masks. A kernel is a
// plain function, so what it is told and what it tells are here.
struct NarrowWatch {
  const kad::CodeKernels* kernels;
  int64_t lane;  // of the row that must come through
  int64_t step_dims;
  std::vector<int64_t> above;  // of each place: product - term - limit
};

inline NarrowWatch watch;

inline constexpr int64_t kNoClaim = std::numeric_limits<int64_t>::max();

inline int64_t mixed_product(const kad::MatchTask& task, int64_t q) {
  if (task.mixed == nullptr) return 0;
  const auto at = [&](const int32_t* positions) {
    return int32_t{task.mixed[positions[q] * kad::kCodeRows + watch.lane]};
  };
  const int32_t near = at(task.near), middle = (near + at(task.far) + 1) / 2;
  return (task.half ? middle : (middle + near + 1) / 2) - kad::kMixRaise;
}

inline void match_watched(const kad::MatchTask& task, uint32_t* masks) {
  watch.kernels->match(task, masks);
  const int64_t step_dims = watch.step_dims;
  const int64_t steps = task.rows.steps[0] + task.rows.steps[1];
  for (int64_t q = 0; q < task.n; ++q) {
    const int8_t* codes =
        task.queries +
        (q / kad::kCodeTile * steps * kad::kCodeTile + q % kad::kCodeTile) * step_dims;
    int64_t product = mixed_product(task, q);
    for (int piece = 0; piece < 2; ++piece) {
      const uint8_t* row = task.rows.piece[piece] + watch.lane * step_dims;
      for (int64_t step = 0; step < task.rows.steps[piece]; ++step) {
        for (int64_t i = 0; i < step_dims; ++i) product += int64_t{row[i]} * codes[i];
        row += kad::kCodeRows * step_dims;
        codes += kad::kCodeTile * step_dims;
      }
    }
    const kad::MatchLimit& limit = task.limits[q];
    const bool no_claim = std::memcmp(&limit, &kad::kNoLimit, sizeof(limit)) == 0;
    // Limits and terms are modulo 2^32.
    const auto above = static_cast<uint32_t>(product - task.terms[watch.lane] - limit.limit);
    watch.above.push_back(no_claim ? kNoClaim : int64_t{static_cast<int32_t>(above)});
  }
}

// An index that was built, or one that was stored and taken in again.
class TestedIndex {
 public:
  TestedIndex(const families::Data& data, const kad::SplitLayout& layout, bool stores)
      : index_(std::make_unique<kad_index>(data.bank.data(), data.rows, layout,
                                           kad::current_level(), kThreads)) {
    const std::string digest(64, '0');
    if (stores) stored_ = kad::store_index(*index_, digest.c_str(), kThreads);
    if (stored_.empty()) return;
    index_ = kad::restore_index(data.bank.data(), data.rows, layout, digest.c_str(), stored_.data(),
                                stored_.size(), kThreads);
  }

  const kad_index& index() const { return *index_; }

 private:
  std::vector<uint8_t> stored_;
  std::unique_ptr<kad_index> index_;
};

}  // namespace bounds
