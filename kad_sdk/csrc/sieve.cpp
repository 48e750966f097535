#include "sieve.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "float_environment.hpp"
#include "index.hpp"
#include "parallel.hpp"

namespace kad {
namespace {

constexpr int64_t kLeastRows = 1024;
constexpr int64_t kLeastDims = 64;
constexpr int64_t kBlockRows = 512;  // rows of one task
constexpr float kNarrowLimit = 127.0F;
constexpr double kWideLength = 32000.0;  // of a coded vector: products stay below 2^31
constexpr double kUp = 1.0 + 0x1p-19;    // room for the rounding of float arithmetic on bounds
constexpr double kDown = 1.0 - 0x1p-19;

size_t size(int64_t value) { return static_cast<size_t>(value); }

int64_t blocks_of(int64_t rows) { return (rows + kBlockRows - 1) / kBlockRows; }

// About a third of the dimensions, so that the sieve is small beside the bank.
int64_t projection_width(int64_t dims) {
  const int64_t third = (dims + 48) / 96 * 32;
  return std::clamp<int64_t>(third, kMaxColumns, 256);
}

// Round to the nearest integer, for |value| < 2^22: the sum leaves no bits for a fraction.
float nearest_integer(float value) {
  constexpr float kShift = 12582912.0F;  // 1.5 * 2^23
  return (value + kShift) - kShift;
}

}  // namespace

struct Sieve::Bank {
  std::vector<float> coordinates;  // (rows, width)
  std::vector<double> norms2;      // (rows,)
  std::vector<Rests> rests;        // (rows,)
  std::vector<float> magnitudes;   // (rows,) largest number that narrow codes must hold
  double floor = 0.0;              // smaller magnitudes count as this
};

float largest_magnitude(const float* values, int64_t n, float start) {
  float lanes[8] = {start};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    for (int64_t j = 0; j < 8; ++j) {
      const float magnitude = std::fabs(values[i + j]);
      lanes[j] = magnitude > lanes[j] ? magnitude : lanes[j];
    }
  }
  for (; i < n; ++i) lanes[0] = std::max(lanes[0], std::fabs(values[i]));
  return *std::max_element(lanes, lanes + 8);
}

void encode_narrow(const float* values, int64_t n, float scale, int8_t* codes, double& error2) {
  const float inverse = 1.0F / scale;
  double sums[4] = {error2};
  for (int64_t i = 0; i < n; ++i) {
    const float code =
        std::clamp(nearest_integer(values[i] * inverse), -kNarrowLimit, kNarrowLimit);
    codes[i] = static_cast<int8_t>(code);
    const double error =
        static_cast<double>(values[i]) - static_cast<double>(scale) * static_cast<double>(code);
    sums[i % 4] += error * error;
  }
  error2 = (sums[0] + sums[1]) + (sums[2] + sums[3]);
}

std::unique_ptr<const Sieve> Sieve::make(const kad_index& index, int32_t n_threads) {
  if (index.rows < kLeastRows || index.rows > std::numeric_limits<int32_t>::max() ||
      index.dims < kLeastDims) {
    return nullptr;
  }
  const auto terms = std::minmax_element(index.row_terms.begin(), index.row_terms.end());
  const double longest2 = 2.0 * static_cast<double>(*terms.second);
  if (*terms.first < 0.0F || !(longest2 > kSmallestCoordinate * kSmallestCoordinate) ||
      !(longest2 < kLargestCoordinate * kLargestCoordinate)) {
    return nullptr;
  }
  std::unique_ptr<Sieve> sieve(new Sieve(index, projection_width(index.dims), n_threads));
  if (!sieve->encode(index, n_threads)) return nullptr;
  return sieve;
}

Sieve::Sieve(const kad_index& index, int64_t width, int32_t n_threads)
    : projection_(index.bank, index.rows, index.dims, index.centre.data(), width, n_threads) {
  while (n_depths_ < kMostDepths && kDepths[n_depths_] <= width) ++n_depths_;
  steps_ = kDepths[n_depths_ - 1] / kStepDims;
}

bool Sieve::encode(const kad_index& index, int32_t n_threads) {
  Bank bank;
  measure(index, bank, n_threads);
  const float largest = *std::max_element(bank.magnitudes.begin(), bank.magnitudes.end());
  if (!(largest > kSmallestCoordinate && largest < kLargestCoordinate)) return false;
  bank.floor = 1e-4 * static_cast<double>(largest);
  arrange(bank);
  narrow_codes_.assign(size(n_panels() * (steps_ + 1) * kCodeRows * kStepDims), 128);
  row_terms_.assign(size(n_panels() * n_depths_ * kCodeRows), 0.0F);
  wide_codes_.resize(size(n_panels() * kCodeRows * width()));
  wide_rows_.resize(size(n_panels() * kCodeRows));
  parallel_for(static_cast<int64_t>(groups_.size()), n_threads, [&](int64_t group, int32_t) {
    const FloatEnvironment environment;
    encode_group(bank, groups_[size(group)]);
  });
  return true;
}

// Coordinates of every row, the lengths of their rests, and the shifts that centre those.
void Sieve::measure(const kad_index& index, Bank& bank, int32_t n_threads) {
  const SearchKernels& kernels = search_kernels(current_level());
  const std::vector<float> packed = projection_.packed(kernels);
  const int64_t rows = index.rows, n_blocks = blocks_of(rows);
  bank.coordinates.resize(size(rows * width()));
  bank.norms2.resize(size(rows));
  bank.rests.resize(size(rows));
  bank.magnitudes.resize(size(rows));
  parallel_for(n_blocks, n_threads, [&](int64_t block, int32_t) {
    const FloatEnvironment environment;
    const int64_t first = block * kBlockRows, count = std::min(kBlockRows, rows - first);
    std::vector<float> scratch;
    projection_.apply(kernels, packed, index.row(first), count, index.centre.data(), scratch,
                      bank.coordinates.data() + first * width());
    for (int64_t r = first; r < first + count; ++r) {
      bank.norms2[size(r)] = kernels.norm2(index.row(r), index.centre.data(), index.dims);
      bank.rests[size(r)] = rests(bank.coordinates.data() + r * width(), bank.norms2[size(r)]);
    }
  });
  double sums[kMostDepths + 1] = {};
  for (const Rests& rest : bank.rests) {
    for (int64_t i = 0; i <= kMostDepths; ++i) sums[i] += static_cast<double>(rest.length[i]);
  }
  for (int64_t i = 0; i <= kMostDepths; ++i) shift_[i] = sums[i] / static_cast<double>(rows);
  parallel_for(n_blocks, n_threads, [&](int64_t block, int32_t) {
    const FloatEnvironment environment;
    for (int64_t r = block * kBlockRows; r < std::min(rows, (block + 1) * kBlockRows); ++r) {
      const float* coordinates = bank.coordinates.data() + r * width();
      bank.rests[size(r)] = rests(coordinates, bank.norms2[size(r)]);
      const float rest = largest_magnitude(bank.rests[size(r)].length, n_depths_, 0.0F);
      bank.magnitudes[size(r)] = largest_magnitude(coordinates, kDepths[n_depths_ - 1], rest);
    }
  });
}

Rests Sieve::rests(const float* coordinates, double norm2) const {
  const double length = std::sqrt(norm2), w = static_cast<double>(width());
  const double error = std::sqrt(w) * (projection_.coordinate_error() * length +
                                       static_cast<double>(projection_.dims()) * 0x1p-149);
  const double error2 = error * (2.0 * length + error) + norm2 * 1e-12;  // of a sum of squares
  Rests rests = {};
  const auto fill = [&](int64_t i, double sum) {
    const double left = std::sqrt(std::max(0.0, norm2 - sum));
    const double left_error = std::min(std::sqrt(error2), error2 / std::max(left, 1e-300));
    rests.length[i] = static_cast<float>(left - shift_[i]);
    const double rounding = 0x1p-24 * (length + std::fabs(left - shift_[i]));
    rests.error[i] =
        static_cast<float>(kUp * (std::sqrt(error * error + left_error * left_error) + rounding));
  };
  double sum = 0.0;
  int64_t depth = 0;
  for (int64_t begin = 0; begin < width(); begin += 16) {
    double lanes[4] = {};
    for (int64_t i = begin; i < begin + 16; ++i) {
      lanes[i % 4] += static_cast<double>(coordinates[i]) * static_cast<double>(coordinates[i]);
    }
    sum += (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    if (depth < n_depths_ && begin + 16 == kDepths[depth]) fill(depth++, sum);
  }
  const auto last = static_cast<double>(coordinates[width() - 1]);
  fill(kMostDepths, sum - last * last);
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
    group.scale = static_cast<float>(magnitude(order[end - 1])) / kNarrowLimit;
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
}

void Sieve::encode_group(const Bank& bank, SieveGroup& group) {
  for (int64_t panel = group.first_panel; panel < group.first_panel + group.n_panels; ++panel) {
    for (int64_t r = 0; r < panel_rows(panel); ++r) {
      encode_row(bank, panel * kCodeRows + r, group);
    }
  }
}

void Sieve::encode_row(const Bank& bank, int64_t slot, SieveGroup& group) {
  const int64_t panel = slot / kCodeRows, lane = slot % kCodeRows;
  const float* coordinates = bank.coordinates.data() + row(slot) * width();
  const Rests& rests = bank.rests[size(row(slot))];
  uint8_t* steps = narrow_codes_.data() + panel * (steps_ + 1) * kCodeRows * kStepDims;
  const auto store = [&](int64_t step, int64_t i, int8_t code) {
    steps[(step * kCodeRows + lane) * kStepDims + i] = static_cast<uint8_t>(code + 128);
  };
  int8_t codes[kDepths[kMostDepths - 1]];
  double error2 = 0.0, norm2 = 0.0;
  int64_t done = 0;
  for (int64_t depth = 0; depth < n_depths_; ++depth) {
    encode_narrow(coordinates + done, kDepths[depth] - done, group.scale, codes + done, error2);
    for (; done < kDepths[depth]; ++done) {
      store(done / kStepDims, done % kStepDims, codes[done]);
      norm2 += static_cast<double>(codes[done]) * static_cast<double>(codes[done]);
    }
    int8_t rest = 0;
    double with_rest2 = error2;
    encode_narrow(rests.length + depth, 1, group.scale, &rest, with_rest2);
    store(steps_, depth, rest);
    const double term = (norm2 + static_cast<double>(rest) * static_cast<double>(rest)) *
                        static_cast<double>(group.scale) / 2.0;
    row_terms_[size((panel * n_depths_ + depth) * kCodeRows + lane)] =
        static_cast<float>(term * kDown);
    const double error = std::sqrt(with_rest2) + static_cast<double>(rests.error[depth]);
    group.error[depth] = std::max(group.error[depth], static_cast<float>(error * kUp));
  }
  wide_rows_[size(slot)] = encode_wide(coordinates, rests, wide_codes_.data() + slot * width());
}

WideRow Sieve::encode_wide(const float* coordinates, const Rests& rests, int16_t* out) const {
  const int64_t n = width();
  float values[256];
  std::copy_n(coordinates, n - 1, values);
  values[n - 1] = rests.length[kMostDepths];
  double lanes[4] = {};
  for (int64_t i = 0; i < n; ++i) {
    lanes[i % 4] += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  }
  const double length = std::sqrt((lanes[0] + lanes[1]) + (lanes[2] + lanes[3]));
  const double least = kSmallestCoordinate * kSmallestCoordinate;
  const auto scale = static_cast<float>(std::max(length, least) / kWideLength);
  const float inverse = 1.0F / scale;
  double norm2[4] = {}, error2[4] = {};
  for (int64_t i = 0; i < n; ++i) {
    const float code = nearest_integer(values[i] * inverse);
    out[i] = static_cast<int16_t>(code);
    const double decoded = static_cast<double>(scale) * static_cast<double>(code);
    const double error = static_cast<double>(values[i]) - decoded;
    norm2[i % 4] += decoded * decoded;
    error2[i % 4] += error * error;
  }
  const double error = std::sqrt((error2[0] + error2[1]) + (error2[2] + error2[3]));
  const double total = error + static_cast<double>(rests.error[kMostDepths]);
  return {scale, static_cast<float>(kDown * ((norm2[0] + norm2[1]) + (norm2[2] + norm2[3]))),
          static_cast<float>(kUp * total)};
}

const SieveGroup& Sieve::group_of(int64_t panel) const {
  const auto after = std::upper_bound(
      groups_.begin(), groups_.end(), panel,
      [](int64_t value, const SieveGroup& group) { return value < group.first_panel; });
  return *(after - 1);
}

void Sieve::aim(int64_t panel, int64_t depth, CodeTile& tile) const {
  constexpr int64_t kStepBytes = kCodeRows * kStepDims;
  tile.rows = narrow_codes_.data() + panel * (steps_ + 1) * kStepBytes;
  tile.rest = tile.rows + steps_ * kStepBytes;
  tile.steps = kDepths[depth] / kStepDims;
  tile.row_terms = row_terms_.data() + (panel * n_depths_ + depth) * kCodeRows;
}

}  // namespace kad
