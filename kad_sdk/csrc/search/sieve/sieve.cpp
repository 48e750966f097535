#include "search/sieve/sieve.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "base/float_environment.hpp"
#include "base/parallel.hpp"
#include "search/index.hpp"
#include "search/search_kernels.hpp"

namespace kad {
namespace {

constexpr int64_t kLeastRows = 1024;
constexpr int64_t kLeastDims = 64;
constexpr int64_t kMostDims = 65536;     // of which the error terms allow for
constexpr int64_t kBlockRows = 512;      // rows of one task
constexpr double kWideLength = 32000.0;  // of a coded vector: products stay below 2^31
constexpr double kUnderflow = 1e-20;     // what squares of errors may lose
constexpr double kUp = 1.0 + 0x1p-19;    // room for the rounding of float arithmetic on bounds
constexpr double kDown = 1.0 - 0x1p-19;

size_t size(int64_t value) { return static_cast<size_t>(value); }

int64_t blocks_of(int64_t rows) { return (rows + kBlockRows - 1) / kBlockRows; }

// Half of the dimensions, in 16 bits: a quarter of the bank.
int64_t projection_width(int64_t dims) {
  const int64_t half = (dims + kProjectColumns) / (2 * kProjectColumns) * kProjectColumns;
  return std::clamp(half, kProjectColumns, kMostWidth);
}

}  // namespace

float total_error(const Coded& coded, double length, float error) {
  const double rounding = std::sqrt(static_cast<double>(coded.error2)) + 0x1p-20 * length;
  return static_cast<float>(kUp * (rounding + kUnderflow + static_cast<double>(error)));
}

struct Sieve::Bank {
  std::vector<float> coordinates;  // (rows, width)
  std::vector<double> norms2;      // (rows,)
  std::vector<float> errors;       // (rows,) of the coordinates
  std::vector<Rests> rests;        // (rows,)
  std::vector<float> magnitudes;   // (rows,) largest number that narrow codes must hold
  double floor = 0.0;              // smaller magnitudes count as this
};

std::unique_ptr<const Sieve> Sieve::make(const kad_index& index, int32_t n_threads) {
  if (index.rows < kLeastRows || index.rows > std::numeric_limits<int32_t>::max() ||
      index.dims < kLeastDims || index.dims > kMostDims) {
    return nullptr;
  }
  const auto terms = std::minmax_element(index.row_terms.begin(), index.row_terms.end());
  const double longest2 = 2.0 * static_cast<double>(*terms.second);
  if (*terms.first < 0.0F || !(longest2 > kShortest * kShortest) ||
      !(longest2 < kLongest * kLongest)) {
    return nullptr;
  }
  std::unique_ptr<Sieve> sieve(new Sieve(index, projection_width(index.dims), n_threads));
  sieve->encode(index, n_threads);
  return sieve;
}

Sieve::Sieve(const kad_index& index, int64_t width, int32_t n_threads)
    : projection_(index.bank, index.rows, index.dims, index.centre.data(), width, n_threads) {
  while (n_depths_ < kMostDepths && kDepths[n_depths_] <= width) ++n_depths_;
  steps_ = kDepths[n_depths_ - 1] / kStepDims - 1;
}

void Sieve::encode(const kad_index& index, int32_t n_threads) {
  Bank bank;
  measure(index, bank, n_threads);
  arrange(bank);
  narrow_codes_.assign(size(n_panels() * (steps_ + n_depths_) * kCodeRows * kStepDims), 128);
  row_terms_.assign(size(n_panels() * n_depths_ * kCodeRows), 0.0F);
  wide_codes_.resize(size(n_panels() * kCodeRows * width()));
  wide_rows_.resize(size(n_panels() * kCodeRows));
  const CodeKernels& kernels = code_kernels(current_level());
  parallel_for(static_cast<int64_t>(groups_.size()), n_threads, [&](int64_t number, int32_t) {
    const FloatEnvironment environment;
    SieveGroup& group = groups_[size(number)];
    for (int64_t panel = group.first_panel; panel < group.first_panel + group.n_panels; ++panel) {
      for (int64_t r = 0; r < panel_rows(panel); ++r) {
        encode_row(kernels, bank, panel * kCodeRows + r, group);
      }
    }
  });
}

// Coordinates of every row, the lengths of their rests, and the shifts that centre those.
void Sieve::measure(const kad_index& index, Bank& bank, int32_t n_threads) {
  const SearchKernels& kernels = search_kernels(current_level());
  const CodeKernels& codes = code_kernels(current_level());
  const int64_t rows = index.rows, n_blocks = blocks_of(rows);
  bank.coordinates.resize(size(rows * width()));
  bank.norms2.resize(size(rows));
  bank.errors.resize(size(rows));
  bank.rests.resize(size(rows));
  bank.magnitudes.resize(size(rows));
  const auto coordinates = [&](int64_t r) { return bank.coordinates.data() + r * width(); };
  const auto take_rests = [&](int64_t r) {
    bank.rests[size(r)] = rests(coordinates(r), bank.norms2[size(r)], bank.errors[size(r)]);
  };
  parallel_for(n_blocks, n_threads, [&](int64_t block, int32_t) {
    const FloatEnvironment environment;
    const int64_t first = block * kBlockRows, count = std::min(kBlockRows, rows - first);
    for (int64_t r = first; r < first + count; ++r) {
      bank.norms2[size(r)] = kernels.norm2(index.row(r), index.centre.data(), index.dims);
    }
    projection_.apply(codes, index.row(first), bank.norms2.data() + first, count,
                      index.centre.data(), coordinates(first), bank.errors.data() + first);
    for (int64_t r = first; r < first + count; ++r) take_rests(r);
  });
  double sums[kMostDepths + 1] = {};
  for (const Rests& rest : bank.rests) {
    for (int64_t i = 0; i <= kMostDepths; ++i) sums[i] += static_cast<double>(rest.length[i]);
  }
  for (int64_t i = 0; i <= kMostDepths; ++i) shift_[i] = sums[i] / static_cast<double>(rows);
  for (int64_t r = 0; r < rows; ++r) {
    take_rests(r);
    bank.magnitudes[size(r)] =
        std::max(codes.largest_magnitude(coordinates(r), kDepths[n_depths_ - 1] - 1),
                 codes.largest_magnitude(bank.rests[size(r)].length, n_depths_));
  }
  bank.floor =
      1e-4 * static_cast<double>(*std::max_element(bank.magnitudes.begin(), bank.magnitudes.end()));
}

Rests Sieve::rests(const float* coordinates, double norm2, float error) const {
  const double length = std::sqrt(norm2), off = static_cast<double>(error);
  const double off2 = off * (2.0 * length + off) + norm2 * 1e-12;  // of a sum of squares
  Rests rests = {};
  // `sum` is that of the squares up to and including the coordinate that makes way for the rest.
  const auto fill = [&](int64_t i, double sum, float last) {
    const double kept = sum - static_cast<double>(last) * static_cast<double>(last);
    const double rest = std::sqrt(std::max(0.0, norm2 - kept));
    const double rest_off = std::min(std::sqrt(off2), off2 / std::max(rest, 1e-300));
    const double rounding = 0x1p-24 * (length + std::fabs(rest - shift_[i]));
    rests.length[i] = static_cast<float>(rest - shift_[i]);
    rests.error[i] =
        static_cast<float>(kUp * (std::sqrt(off * off + rest_off * rest_off) + rounding));
  };
  double sum = 0.0;
  int64_t depth = 0;
  for (int64_t end = 16; end <= width(); end += 16) {
    double lanes[4] = {};
    for (int64_t i = end - 16; i < end; ++i) {
      lanes[i % 4] += static_cast<double>(coordinates[i]) * static_cast<double>(coordinates[i]);
    }
    sum += (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    if (depth < n_depths_ && end == kDepths[depth]) fill(depth++, sum, coordinates[end - 1]);
  }
  fill(kMostDepths, sum, coordinates[width() - 1]);
  return rests;
}

// Rows by rising magnitude, cut into groups in which it rises less than twofold.
void Sieve::arrange(const Bank& bank) {
  const auto magnitude = [&](int32_t row) {
    return std::max(static_cast<double>(bank.magnitudes[size(row)]), bank.floor);
  };
  std::vector<int32_t> order(bank.magnitudes.size());
  for (size_t r = 0; r < order.size(); ++r) order[r] = static_cast<int32_t>(r);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const double left = magnitude(a), right = magnitude(b);
    return left != right ? left < right : a < b;
  });
  for (size_t begin = 0; begin < order.size();) {
    size_t end = begin;
    const double limit = 2.0 * magnitude(order[begin]);
    while (end < order.size() && end - begin < size(kGroupRows) && magnitude(order[end]) <= limit) {
      ++end;
    }
    SieveGroup group = {};
    group.first_panel = static_cast<int64_t>(panel_rows_.size());
    group.scale = static_cast<float>(std::max(magnitude(order[end - 1]), kShortest) / 127.0);
    std::sort(order.begin() + static_cast<std::ptrdiff_t>(begin),
              order.begin() + static_cast<std::ptrdiff_t>(end));
    for (size_t r = begin; r < end; r += size(kCodeRows)) {
      const auto count = static_cast<int64_t>(std::min(end - r, size(kCodeRows)));
      panel_rows_.push_back(count);
      rows_.insert(rows_.end(), order.begin() + static_cast<std::ptrdiff_t>(r),
                   order.begin() + static_cast<std::ptrdiff_t>(r) + count);
      rows_.resize(panel_rows_.size() * size(kCodeRows), 0);
    }
    group.n_panels = static_cast<int64_t>(panel_rows_.size()) - group.first_panel;
    groups_.push_back(group);
    begin = end;
  }
  slots_.resize(order.size());
  for (int64_t panel = 0; panel < n_panels(); ++panel) {
    for (int64_t slot = panel * kCodeRows; slot < panel * kCodeRows + panel_rows(panel); ++slot) {
      slots_[size(row(slot))] = static_cast<int32_t>(slot);
    }
  }
}

void Sieve::encode_row(const CodeKernels& kernels, const Bank& bank, int64_t slot,
                       SieveGroup& group) {
  const int64_t panel = slot / kCodeRows, lane = slot % kCodeRows, r = row(slot);
  const float* coordinates = bank.coordinates.data() + r * width();
  const Rests& rests = bank.rests[size(r)];
  uint8_t* panel_codes =
      narrow_codes_.data() + panel * (steps_ + n_depths_) * kCodeRows * kStepDims;
  const auto store = [&](int64_t step, const int8_t* codes) {
    for (int64_t i = 0; i < kStepDims; ++i) {
      panel_codes[(step * kCodeRows + lane) * kStepDims + i] = static_cast<uint8_t>(codes[i] + 128);
    }
  };
  for (int64_t depth = 0; depth < n_depths_; ++depth) {
    const int64_t n = kDepths[depth], last = n / kStepDims - 1;
    float values[kDepths[kMostDepths - 1]];
    int8_t codes[kDepths[kMostDepths - 1]];
    std::copy_n(coordinates, n - 1, values);
    values[n - 1] = rests.length[depth];
    const Coded coded = kernels.encode_narrow(values, n, group.scale, codes);
    for (int64_t step = 0; step < last; ++step) store(step, codes + step * kStepDims);
    store(steps_ + depth, codes + last * kStepDims);
    const double term = static_cast<double>(group.scale) * coded.norm2 / 2.0;
    row_terms_[size((panel * n_depths_ + depth) * kCodeRows + lane)] =
        static_cast<float>(kDown * term);
    group.error[depth] = std::max(
        group.error[depth],
        total_error(coded,
                    std::sqrt(bank.norms2[size(r)]) + std::fabs(static_cast<double>(values[n - 1])),
                    rests.error[depth]));
  }
  wide_rows_[size(slot)] = encode_wide(kernels, coordinates, bank.norms2[size(r)], rests,
                                       wide_codes_.data() + slot * width());
}

WideVector Sieve::encode_wide(const CodeKernels& kernels, const float* coordinates, double norm2,
                              const Rests& rests, int16_t* out) const {
  const int64_t n = width();
  float values[kMostWidth];
  std::copy_n(coordinates, n - 1, values);
  values[n - 1] = rests.length[kMostDepths];
  const double rest = static_cast<double>(values[n - 1]);
  const double length = std::sqrt(norm2 * (1.0 + 0x1p-10) + rest * rest);
  const auto scale = static_cast<float>(std::max(length, kShortest) / kWideLength);
  const Coded coded = kernels.encode_wide(values, n, scale, out);
  const double unit2 = static_cast<double>(scale) * static_cast<double>(scale);
  return {scale, static_cast<float>(kDown * unit2 * coded.norm2),
          total_error(coded, length, rests.error[kMostDepths])};
}

int64_t Sieve::bytes() const {
  const auto of = [](const auto& values) {
    return static_cast<int64_t>(values.size() * sizeof(values[0]));
  };
  return projection_.bytes() + of(groups_) + of(panel_rows_) + of(rows_) + of(slots_) +
         of(narrow_codes_) + of(row_terms_) + of(wide_codes_) + of(wide_rows_);
}

const SieveGroup& Sieve::group_of(int64_t panel) const {
  const auto after = std::upper_bound(
      groups_.begin(), groups_.end(), panel,
      [](int64_t value, const SieveGroup& group) { return value < group.first_panel; });
  return *(after - 1);
}

void Sieve::aim(int64_t panel, int64_t depth, CodeTile& tile) const {
  constexpr int64_t kStepBytes = kCodeRows * kStepDims;
  tile.rows = narrow_codes_.data() + panel * (steps_ + n_depths_) * kStepBytes;
  tile.last = tile.rows + (steps_ + depth) * kStepBytes;
  tile.steps = kDepths[depth] / kStepDims - 1;
  tile.row_terms = row_terms_.data() + (panel * n_depths_ + depth) * kCodeRows;
}

}  // namespace kad
