// A sieve as bytes, and back.
#include <algorithm>
#include <cmath>
#include <cstddef>
#include <mutex>

#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "search/index.hpp"
#include "search/sieve/sieve.hpp"

namespace kad {
namespace {

size_t size(int64_t value) { return static_cast<size_t>(value); }

struct StoredGroup {
  int32_t rows;
  int32_t exponent;
  float error[kMostDepths];
};
static_assert(sizeof(StoredGroup) == 28, "no padding");

void check(bool holds, const char* what) {
  if (holds) return;
  fail(KAD_ERROR_ARTIFACT_TENSORS, "the stored index is damaged: %s; export the artifact again",
       what);
}

// Of a size that sums and squares of float32 hold.
bool is_error(float value) { return value >= 0.0F && static_cast<double>(value) < kLongest; }

// Of a row's codes in a panel (dims, kCodeRows), up to a depth.
void add_norms2(const uint8_t* codes, int64_t dims, int32_t* norms2) {
  for (int64_t i = 0; i < dims; ++i, codes += kCodeRows) {
    for (int64_t r = 0; r < kCodeRows; ++r) {
      const int32_t code = int32_t{codes[r]} - kRaise;
      norms2[r] += code * code;
    }
  }
}

// From one code of each row after the other to step_dims of them.
void arrange_steps(const uint8_t* codes, int64_t dims, int64_t step_dims, uint8_t* out) {
  for (int64_t i = 0; i < dims; ++i, codes += kCodeRows) {
    uint8_t* to = out + i / step_dims * step_dims * kCodeRows + i % step_dims;
    for (int64_t r = 0; r < kCodeRows; ++r) to[r * step_dims] = codes[r];
  }
}

int64_t squared_norm(const int16_t* codes, int64_t n) {
  int64_t sum = 0;
  for (int64_t i = 0; i < n; ++i) sum += int32_t{codes[i]} * int32_t{codes[i]};
  return sum;
}

}  // namespace

struct Sieve::Facts {
  int64_t fine_width;
  int64_t coarse_width;
  int64_t n_groups;
  int64_t n_depths;
  Depth depths[kMostDepths];
  double unit;
  double shift;
};

int64_t Sieve::most_stored_bytes() const {
  // An array that ends anywhere takes up to kArrayAlignment bytes more. Each exponent has at most
  // one panel that is not full.
  const auto rows = static_cast<int64_t>(slots_.size());
  const int64_t slots = rows + (kMostRowExponent + 1) * kCodeRows;
  const int64_t of_slot = 2 * kMostNarrow + 2 * width() + 2 * int64_t{sizeof(float)};
  const int64_t groups = rows / kGroupRows + kMostRowExponent + 2;
  return int64_t{sizeof(Facts)} + groups * int64_t{sizeof(StoredGroup)} + rows * 4 +
         slots * of_slot + 2 * basis_.bytes() + 16 * static_cast<int64_t>(kArrayAlignment);
}

void Sieve::store(ByteWriter& out) const {
  Facts facts = {};
  facts.fine_width = basis_.fine_width();
  facts.coarse_width = basis_.coarse_width();
  facts.n_groups = static_cast<int64_t>(groups_.size());
  facts.n_depths = n_depths();
  std::copy(depths_.begin(), depths_.end(), facts.depths);
  facts.unit = unit_;
  facts.shift = shift_;
  out.put(facts);
  std::vector<StoredGroup> groups;
  std::vector<int32_t> rows;
  for (const SieveGroup& group : groups_) {
    StoredGroup stored = {0, group.exponent, {}};
    for (int64_t panel = group.first_panel; panel < group.first_panel + group.n_panels; ++panel) {
      const int32_t* first = rows_.data() + panel * kCodeRows;
      rows.insert(rows.end(), first, first + panel_rows(panel));
      stored.rows += static_cast<int32_t>(panel_rows(panel));
    }
    std::copy_n(group.error, kMostDepths, stored.error);
    groups.push_back(stored);
  }
  out.put(groups.data(), groups.size());
  out.put(rows.data(), rows.size());
  out.put(basis_.fine().columns().data(), basis_.fine().columns().size());
  out.put(basis_.coarse().columns().data(), basis_.coarse().columns().size());
  out.put(narrow_codes_.data(), narrow_codes_.size());
  out.put(wide_codes_, wide_rows_.size() * size(width()));
  std::vector<float> scales, errors;
  for (const WideVector& row : wide_rows_) {
    scales.push_back(row.scale);
    errors.push_back(row.error);
  }
  out.put(scales.data(), scales.size());
  out.put(errors.data(), errors.size());
}

std::unique_ptr<const Sieve> Sieve::restore(const kad_index& index, ByteReader& stored,
                                            int32_t n_threads) {
  const Facts facts = *stored.take<Facts>(1);
  check_facts(facts, index);
  const auto* groups = stored.take<StoredGroup>(facts.n_groups);
  const auto* rows = stored.take<int32_t>(index.rows);
  const auto* fine =
      stored.take<float>(facts.fine_width * (index.dims - index.layout.coarse_dims()));
  const auto* coarse = stored.take<float>(facts.coarse_width * index.layout.coarse_dims());
  std::unique_ptr<Sieve> sieve(
      new Sieve(code_kernels(current_level()),
                Basis(index.layout, facts.fine_width, fine, facts.coarse_width, coarse)));
  sieve->unit_ = facts.unit;
  sieve->shift_ = facts.shift;
  sieve->depths_.assign(facts.depths, facts.depths + facts.n_depths);
  const int32_t* next = rows;
  for (int64_t i = 0; i < facts.n_groups; ++i) {
    const StoredGroup& group = groups[i];
    const bool fits =
        group.rows >= 1 && group.rows <= std::min(kGroupRows, rows + index.rows - next);
    check(fits && group.exponent >= (i > 0 ? groups[i - 1].exponent : 0) &&
              group.exponent <= kMostRowExponent &&
              std::all_of(group.error, group.error + kMostDepths, is_error),
          "a group's rows, scale or errors are out of range");
    sieve->add_group(group.exponent, next, group.rows);
    std::copy_n(group.error, kMostDepths, sieve->groups_.back().error);
    next += group.rows;
  }
  check(next == rows + index.rows, "its groups do not hold all rows");
  sieve->place_rows(index.rows);
  sieve->restore_codes(stored, n_threads);
  return sieve;
}

void Sieve::check_facts(const Facts& facts, const kad_index& index) {
  const int64_t coarse_dims = index.layout.coarse_dims();
  const auto is_width = [](int64_t width, int64_t dims) {
    return width % kProjectColumns == 0 && width >= (dims > 0 ? kProjectColumns : 0) &&
           width <= (dims + kProjectColumns - 1) / kProjectColumns * kProjectColumns;
  };
  check(index.rows >= kLeastRows && index.dims >= kLeastDims,
        "it has codes of a bank that is too small for them");
  check(index.rows <= kMostRows && index.dims <= kMostDims &&
            is_width(facts.fine_width, index.dims - coarse_dims) &&
            is_width(facts.coarse_width, coarse_dims) &&
            facts.fine_width + facts.coarse_width <= kMostWidth,
        "the number of its coordinates is out of range");
  check(facts.n_groups >= 1 && facts.n_groups <= index.rows,
        "the number of its groups is out of range");
  check(facts.n_depths >= 1 && facts.n_depths <= kMostDepths,
        "the number of its depths is out of range");
  Depth before = {0, 0};
  for (int64_t i = 0; i < facts.n_depths; ++i) {
    const Depth& depth = facts.depths[i];
    check(depth.fine >= before.fine && depth.coarse >= before.coarse &&
              depth.fine % kDepthStep == 0 && depth.coarse % kDepthStep == 0 &&
              depth.fine <= std::min(kMostNarrow, facts.fine_width) &&
              depth.coarse <= std::min(kMostNarrow, facts.coarse_width) &&
              depth.dims() > before.dims(),
          "its depths are out of range");
    before = depth;
  }
  check(facts.unit >= kShortest / 1024.0 && facts.unit < kLongest &&
            std::fabs(facts.shift) < kLongest,
        "its scale is out of range");
}

void Sieve::restore_codes(ByteReader& stored, int32_t n_threads) {
  const int64_t n_slots = n_panels() * kCodeRows, dims = depths_.back().dims();
  const auto* narrow = stored.take<uint8_t>(n_slots * dims);
  wide_codes_ = stored.take<int16_t>(n_slots * width());
  const auto* scales = stored.take<float>(n_slots);
  const auto* errors = stored.take<float>(n_slots);
  narrow_codes_.resize(size(n_slots * dims));
  norms2_.assign(size(n_panels() * n_depths() * kCodeRows), 0);
  wide_rows_.resize(size(n_slots));
  std::mutex mutex;
  parallel_for(static_cast<int64_t>(groups_.size()), n_threads, [&](int64_t number, int32_t) {
    const SieveGroup& group = groups_[size(number)];
    double coarse_norms[kMostDepths] = {};
    for (int64_t panel = group.first_panel; panel < group.first_panel + group.n_panels; ++panel) {
      restore_narrow(narrow + panel * dims * kCodeRows, panel, coarse_norms);
      for (int64_t slot = panel * kCodeRows; slot < panel * kCodeRows + panel_rows(panel); ++slot) {
        restore_wide(slot, scales[slot], errors[slot]);
      }
    }
    const std::lock_guard<std::mutex> lock(mutex);
    for (int64_t i = 0; i < n_depths(); ++i) {
      coarse_norms_[i] = std::max(coarse_norms_[i], coarse_norms[i]);
    }
  });
}

void Sieve::restore_narrow(const uint8_t* codes, int64_t panel, double* coarse_norms) {
  const Depth& deepest = depths_.back();
  const auto range = std::minmax_element(codes, codes + deepest.dims() * kCodeRows);
  check(*range.first >= kRaise - kRowCode && *range.second <= kRaise + kRowCode,
        "a narrow code is out of range");
  for (int64_t i = 0; i < n_depths(); ++i) {
    const Depth& depth = depths_[size(i)];
    int32_t coarse[kCodeRows] = {}, *both = norms2_.data() + (panel * n_depths() + i) * kCodeRows;
    add_norms2(codes + deepest.fine * kCodeRows, depth.coarse, coarse);
    std::copy_n(coarse, kCodeRows, both);
    add_norms2(codes, depth.fine, both);
    const int32_t largest = *std::max_element(coarse, coarse + kCodeRows);
    coarse_norms[i] = std::max(coarse_norms[i], 1.000001 * std::sqrt(static_cast<double>(largest)));
  }
  uint8_t* out = narrow_codes_.data() + panel * deepest.dims() * kCodeRows;
  arrange_steps(codes, deepest.dims(), codes_.step_dims, out);
}

void Sieve::restore_wide(int64_t slot, float scale, float error) {
  const int64_t norm2 = squared_norm(wide_codes_ + slot * width(), width());
  check(norm2 <= int64_t{kMostWideNorm} * kMostWideNorm && scale > 0.0F && is_error(scale) &&
            is_error(error),
        "a row's wide codes, scale or error are out of range");
  wide_rows_[size(slot)] = {scale, wide_norm2(scale, static_cast<double>(norm2)), error};
}

}  // namespace kad
