#include "search/sieve/sieve.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <mutex>

#include "base/float_environment.hpp"
#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "search/index.hpp"
#include "search/search_kernels.hpp"

namespace kad {
namespace {

constexpr double kWideLength = 32000.0;  // of a coded vector, see kMostWideNorm
constexpr double kUnderflow = 1e-20;     // what squares of errors may lose
constexpr double kUp = 1.0 + 0x1p-19;    // room for the rounding of float arithmetic on bounds
constexpr double kDown = 1.0 - 0x1p-19;
constexpr double kFitting = 0.93;  // share of the rows whose codes are of the finest scale

// What a depth costs, in coordinates that are compared for every pair. Mixing positions costs as
// much as a few.
constexpr double kDepthCosts[kMostDepths] = {12.0, 20.0, 30.0, 44.0, 64.0};

size_t size(int64_t value) { return static_cast<size_t>(value); }

// A third of the dimensions, in 16 bits.
int64_t coordinate_count(int64_t dims) {
  const int64_t third = (dims / 3 + kProjectColumns / 2) / kProjectColumns * kProjectColumns;
  return std::clamp(third, kProjectColumns, kMostWidth);
}

}  // namespace

float total_error(const Coded& coded, double length, double error) {
  const double rounding = std::sqrt(static_cast<double>(coded.error2)) + 0x1p-20 * length;
  return static_cast<float>(kUp * (rounding + kUnderflow + error));
}

struct Sieve::Bank {
  std::vector<float> coordinates;  // (rows, width)
  std::vector<double> norms2;      // (rows,)
  std::vector<double> errors;      // (rows,) of the coordinates
  std::vector<Rest> rests;         // (rows,)
  std::vector<float> magnitudes;   // (rows,) largest number that narrow codes must hold
};

std::unique_ptr<const Sieve> Sieve::make(const kad_index& index, Level level, int32_t n_threads) {
  if (index.rows < kLeastRows || index.rows > kMostRows || index.dims < kLeastDims ||
      index.dims > kMostDims) {
    return nullptr;
  }
  const auto terms = std::minmax_element(index.row_terms.begin(), index.row_terms.end());
  const double longest2 = 2.0 * static_cast<double>(*terms.second);
  if (*terms.first < 0.0F || !(longest2 > kShortest * kShortest) ||
      !(longest2 < kLongest * kLongest)) {
    return nullptr;
  }
  std::unique_ptr<Sieve> sieve(new Sieve(index, level, coordinate_count(index.dims), n_threads));
  sieve->encode(index, search_kernels(level), n_threads);
  return sieve;
}

Sieve::Sieve(const kad_index& index, Level level, int64_t width, int32_t n_threads)
    : codes_(code_kernels(level)), basis_(index, width, search_kernels(level), n_threads) {
  choose_depths(index.layout.coarse_share());
}

// Take the coordinates that discriminate most for their cost, a step at a time.
void Sieve::choose_depths(double coarse_share) {
  const std::vector<double>& variance = basis_.variance();
  const int64_t most_fine = std::min(kMostNarrow, basis_.fine_width());
  const int64_t most_coarse = std::min(kMostNarrow, basis_.coarse_width());
  const auto gain = [&](int64_t first) {
    double sum = 0.0;
    for (int64_t i = first; i < first + kDepthStep; ++i) sum += variance[size(i)];
    return sum;
  };
  Depth depth = {0, 0};
  double cost = 0.0;
  for (const double budget : kDepthCosts) {
    while (depth.fine < most_fine || depth.coarse < most_coarse) {
      const double fine = depth.fine < most_fine ? gain(depth.fine) : -1.0;
      const double coarse = depth.coarse < most_coarse
                                ? gain(basis_.fine_width() + depth.coarse) / coarse_share
                                : -1.0;
      const double step = kDepthStep * (fine >= coarse ? 1.0 : coarse_share);
      if (cost + step > budget && depth.dims() > 0) break;
      (fine >= coarse ? depth.fine : depth.coarse) += kDepthStep;
      cost += step;
    }
    if (depths_.empty() || depths_.back().dims() != depth.dims()) depths_.push_back(depth);
  }
}

void Sieve::encode(const kad_index& index, const SearchKernels& kernels, int32_t n_threads) {
  Bank bank;
  measure(index, kernels, bank, n_threads);
  arrange(bank);
  const Depth& deepest = depths_.back();
  narrow_codes_.assign(size(n_panels() * deepest.dims() * kCodeRows), kRaise);
  norms2_.assign(size(n_panels() * n_depths() * kCodeRows), 0);
  own_wide_codes_.resize(size(n_panels() * kCodeRows * width()));
  wide_codes_ = own_wide_codes_.data();
  wide_rows_.resize(size(n_panels() * kCodeRows));
  std::mutex mutex;
  parallel_for(static_cast<int64_t>(groups_.size()), n_threads, [&](int64_t number, int32_t) {
    const FloatEnvironment environment;
    float coarse_norms[kMostDepths] = {};
    SieveGroup& group = groups_[size(number)];
    for (int64_t panel = group.first_panel; panel < group.first_panel + group.n_panels; ++panel) {
      for (int64_t r = 0; r < panel_rows(panel); ++r) {
        encode_row(bank, panel * kCodeRows + r, group, coarse_norms);
      }
    }
    const std::lock_guard<std::mutex> lock(mutex);
    for (int64_t i = 0; i < n_depths(); ++i) {
      coarse_norms_[i] = std::max(coarse_norms_[i], static_cast<double>(coarse_norms[i]));
    }
  });
}

// Coordinates of every row, the lengths of their rests, and the shift that centres those.
void Sieve::measure(const kad_index& index, const SearchKernels& kernels, Bank& bank,
                    int32_t n_threads) {
  const int64_t rows = index.rows, n_blocks = (rows + kPackedVectors - 1) / kPackedVectors;
  bank.coordinates.resize(size(n_blocks * kPackedVectors * width()));
  bank.norms2.resize(size(rows));
  bank.errors.resize(size(rows));
  bank.rests.resize(size(rows));
  bank.magnitudes.resize(size(rows));
  const auto coordinates = [&](int64_t r) { return bank.coordinates.data() + r * width(); };
  const auto take_rest = [&](int64_t r) {
    bank.rests[size(r)] = rest(coordinates(r), bank.norms2[size(r)], bank.errors[size(r)]);
  };
  const int32_t n_workers = worker_count(n_blocks, n_threads);
  std::vector<std::vector<float>> packed(static_cast<size_t>(n_workers),
                                         std::vector<float>(size(index.dims * kPackedVectors)));
  const Depth& deepest = depths_.back();
  parallel_for(n_blocks, n_threads, [&](int64_t block, int32_t worker) {
    const FloatEnvironment environment;
    float* columns = packed[static_cast<size_t>(worker)].data();
    const int64_t first = block * kPackedVectors, count = std::min(kPackedVectors, rows - first);
    kernels.pack(index.row(first), index.dims, count, kPackedVectors, index.dims,
                 index.centre.data(), columns);
    basis_.apply(kernels, columns, count, coordinates(first));
    for (int64_t r = first; r < first + count; ++r) {
      bank.norms2[size(r)] = kernels.norm2(index.row(r), index.centre.data(), index.dims);
      bank.errors[size(r)] = basis_.error(std::sqrt(bank.norms2[size(r)]));
      take_rest(r);
      bank.magnitudes[size(r)] =
          std::max(codes_.largest_magnitude(coordinates(r), deepest.fine),
                   codes_.largest_magnitude(coordinates(r) + basis_.fine_width(), deepest.coarse));
    }
  });
  double sum = 0.0;
  for (const Rest& rest : bank.rests) sum += static_cast<double>(rest.length);
  shift_ = sum / static_cast<double>(rows);
  for (int64_t r = 0; r < rows; ++r) take_rest(r);
}

Rest Sieve::rest(const float* coordinates, double norm2, double error) const {
  const int64_t n = width() - 1;  // the last coordinate makes way for the rest
  double lanes[4] = {};
  for (int64_t i = 0; i < n; ++i) {
    lanes[i % 4] += static_cast<double>(coordinates[i]) * static_cast<double>(coordinates[i]);
  }
  const double kept = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
  const double length = std::sqrt(norm2);
  const double off2 = error * (2.0 * length + error) + norm2 * 1e-12;  // of a sum of squares
  const double rest = std::sqrt(std::max(0.0, norm2 - kept));
  const double rest_off = std::min(std::sqrt(off2), off2 / std::max(rest, 1e-300));
  const double rounding = 0x1p-24 * (length + std::fabs(rest - shift_));
  return {static_cast<float>(rest - shift_),
          static_cast<float>(kUp * (std::sqrt(error * error + rest_off * rest_off) + rounding))};
}

// Rows by rising exponent of their scale, those of one exponent cut into groups.
void Sieve::arrange(const Bank& bank) {
  const size_t n = bank.magnitudes.size();
  std::vector<float> magnitudes = bank.magnitudes;
  const auto fitting =
      magnitudes.begin() + static_cast<std::ptrdiff_t>(kFitting * static_cast<double>(n - 1));
  std::nth_element(magnitudes.begin(), fitting, magnitudes.end());
  const double largest = *std::max_element(fitting, magnitudes.end());
  const double fits =
      std::max({static_cast<double>(*fitting), std::ldexp(largest, -kMostRowExponent), kShortest});
  unit_ = static_cast<double>(static_cast<float>(1.000001 * fits / kRowCode));
  std::vector<std::vector<int32_t>> classes(kMostRowExponent + 1);
  for (size_t r = 0; r < n; ++r) {
    int32_t exponent = 0;
    while (static_cast<double>(bank.magnitudes[r]) > kRowCode * std::ldexp(unit_, exponent) &&
           exponent < kMostRowExponent) {
      ++exponent;
    }
    classes[static_cast<size_t>(exponent)].push_back(static_cast<int32_t>(r));
  }
  for (int32_t exponent = 0; exponent <= kMostRowExponent; ++exponent) {
    const std::vector<int32_t>& members = classes[static_cast<size_t>(exponent)];
    for (size_t begin = 0; begin < members.size(); begin += size(kGroupRows)) {
      const size_t end = std::min(members.size(), begin + size(kGroupRows));
      add_group(exponent, members.data() + begin, static_cast<int64_t>(end - begin));
    }
  }
  place_rows(static_cast<int64_t>(n));
}

void Sieve::add_group(int32_t exponent, const int32_t* rows, int64_t n) {
  SieveGroup group = {};
  group.first_panel = n_panels();
  group.exponent = exponent;
  group.scale = std::ldexp(unit_, exponent);
  for (int64_t r = 0; r < n; r += kCodeRows) {
    const int64_t count = std::min(n - r, kCodeRows);
    panel_rows_.push_back(count);
    rows_.insert(rows_.end(), rows + r, rows + r + count);
    rows_.resize(panel_rows_.size() * size(kCodeRows), 0);
  }
  group.n_panels = n_panels() - group.first_panel;
  groups_.push_back(group);
}

// Where each of n rows is.
void Sieve::place_rows(int64_t n) {
  slots_.assign(size(n), -1);
  for (int64_t panel = 0; panel < n_panels(); ++panel) {
    for (int64_t slot = panel * kCodeRows; slot < panel * kCodeRows + panel_rows(panel); ++slot) {
      const int64_t r = row(slot);
      if (r < 0 || r >= n || slots_[size(r)] >= 0) {
        fail(KAD_ERROR_ARTIFACT_TENSORS,
             "the stored index is damaged: it names bank row %lld twice, or there is none; export "
             "the artifact again",
             static_cast<long long>(r));
      }
      slots_[size(r)] = static_cast<int32_t>(slot);
    }
  }
}

void Sieve::encode_row(const Bank& bank, int64_t slot, SieveGroup& group, float* coarse_norms) {
  const int64_t panel = slot / kCodeRows, lane = slot % kCodeRows, r = row(slot);
  const float* coordinates = bank.coordinates.data() + r * width();
  const double norm2 = bank.norms2[size(r)];
  const Depth& deepest = depths_.back();
  const auto scale = static_cast<float>(group.scale);
  int8_t codes[2 * kMostNarrow];
  for (int64_t i = 0; i < n_depths(); ++i) {
    const Depth& depth = depths_[size(i)];
    const Coded fine = codes_.encode_narrow(coordinates, depth.fine, scale, kRowCode, codes);
    const Coded coarse = codes_.encode_narrow(coordinates + basis_.fine_width(), depth.coarse,
                                              scale, kRowCode, codes + depth.fine);
    const Coded both = {fine.error2 + coarse.error2, 0, fine.norm2 + coarse.norm2};
    norms2_[size((panel * n_depths() + i) * kCodeRows + lane)] = static_cast<int32_t>(both.norm2);
    const double known = bank.errors[size(r)] + 0x1p-24 * std::sqrt(norm2);
    group.error[i] = std::max(group.error[i], total_error(both, std::sqrt(norm2), known));
    coarse_norms[i] =
        std::max(coarse_norms[i], std::sqrt(static_cast<float>(coarse.norm2)) * 1.000001F);
  }
  // The last depth's codes are those of all.
  uint8_t* out = narrow_codes_.data() + panel * deepest.dims() * kCodeRows;
  const int64_t step = codes_.step_dims;
  for (int64_t i = 0; i < deepest.dims(); ++i) {
    out[(i / step * kCodeRows + lane) * step + i % step] = static_cast<uint8_t>(codes[i] + kRaise);
  }
  wide_rows_[size(slot)] = encode_wide(codes_, coordinates, norm2, bank.rests[size(r)],
                                       own_wide_codes_.data() + slot * width());
}

WideVector Sieve::encode_wide(const CodeKernels& kernels, const float* coordinates, double norm2,
                              const Rest& rest, int16_t* out) const {
  const int64_t n = width();
  float values[kMostWidth];
  std::copy_n(coordinates, n - 1, values);
  values[n - 1] = rest.length;
  const double last = static_cast<double>(rest.length);
  const double length = std::sqrt(norm2 * (1.0 + 0x1p-10) + last * last);
  const auto scale = static_cast<float>(std::max(length, kShortest) / kWideLength);
  const Coded coded = kernels.encode_wide(values, n, scale, out);
  return {scale, wide_norm2(scale, static_cast<double>(coded.norm2)),
          total_error(coded, length, static_cast<double>(rest.error))};
}

float Sieve::wide_norm2(float scale, double codes_norm2) {
  return static_cast<float>(kDown * static_cast<double>(scale) * static_cast<double>(scale) *
                            codes_norm2);
}

int64_t Sieve::bytes() const {
  const auto of = [](const auto& values) {
    return static_cast<int64_t>(values.size() * sizeof(values[0]));
  };
  return basis_.bytes() + of(groups_) + of(panel_rows_) + of(rows_) + of(slots_) +
         of(narrow_codes_) + of(norms2_) + of(wide_rows_) +
         static_cast<int64_t>(wide_rows_.size() * size(width()) * sizeof(wide_codes_[0]));
}

const SieveGroup& Sieve::group_of(int64_t panel) const {
  const auto after = std::upper_bound(
      groups_.begin(), groups_.end(), panel,
      [](int64_t value, const SieveGroup& group) { return value < group.first_panel; });
  return *(after - 1);
}

PanelCodes Sieve::panel_codes(int64_t panel, int64_t depth) const {
  const Depth &here = depths_[size(depth)], &deepest = depths_.back();
  const uint8_t* fine = narrow_codes_.data() + panel * deepest.dims() * kCodeRows;
  return {{fine, fine + deepest.fine * kCodeRows},
          {here.fine / codes_.step_dims, here.coarse / codes_.step_dims}};
}

}  // namespace kad
