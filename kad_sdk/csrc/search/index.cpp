#include "search/index.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "base/float_environment.hpp"
#include "base/guard.hpp"
#include "base/parallel.hpp"
#include "search/search_kernels.hpp"

namespace kad {
namespace {

constexpr double kUnit = 0x1p-24;
constexpr double kTiny = 0x1p-149;
constexpr int64_t kBlockRows = 512;  // rows of one task; sums are taken block by block, in order

float round_down(double value) {
  const auto nearest = static_cast<float>(value);
  if (static_cast<double>(nearest) <= value) return nearest;
  return std::nextafter(nearest, -std::numeric_limits<float>::infinity());
}

int64_t blocks_of(int64_t rows) { return (rows + kBlockRows - 1) / kBlockRows; }

int64_t block_end(int64_t block, int64_t rows) { return std::min(rows, (block + 1) * kBlockRows); }

void check_finite(const kad_index& index, int32_t n_threads) {
  const int64_t n_blocks = blocks_of(index.rows);
  std::vector<int64_t> bad(static_cast<size_t>(n_blocks), -1);
  parallel_for(n_blocks, n_threads, [&](int64_t block, int32_t) {
    for (int64_t r = block * kBlockRows; r < block_end(block, index.rows); ++r) {
      if (has_non_finite(index.row(r), index.dims)) {
        bad[static_cast<size_t>(block)] = r;
        return;
      }
    }
  });
  for (const int64_t r : bad) {
    if (r >= 0) {
      fail(KAD_ERROR_NOT_FINITE, "bank row %lld holds NaN or Inf: every value must be finite",
           static_cast<long long>(r));
    }
  }
}

std::vector<float> mean_row(const kad_index& index, int32_t n_threads) {
  const auto dims = static_cast<size_t>(index.dims);
  const int64_t n_blocks = blocks_of(index.rows);
  std::vector<double> sums(static_cast<size_t>(n_blocks) * dims);
  parallel_for(n_blocks, n_threads, [&](int64_t block, int32_t) {
    double* sum = sums.data() + static_cast<size_t>(block) * dims;
    for (int64_t r = block * kBlockRows; r < block_end(block, index.rows); ++r) {
      const float* values = index.row(r);
      for (size_t d = 0; d < dims; ++d) sum[d] += static_cast<double>(values[d]);
    }
  });
  std::vector<float> mean(dims);
  for (size_t d = 0; d < dims; ++d) {
    double sum = 0.0;
    for (int64_t block = 0; block < n_blocks; ++block) {
      sum += sums[static_cast<size_t>(block) * dims + d];
    }
    mean[d] = static_cast<float>(sum / static_cast<double>(index.rows));
  }
  return mean;
}

}  // namespace

double screening_slack(int64_t dims) {
  const int64_t chains = (dims + kChainLength - 1) / kChainLength;
  const int64_t roundings = std::min(dims, kChainLength) + chains + 1;
  return (2.0 * static_cast<double>(roundings) + 16.0) * kUnit;
}

double squared_limit(float dist, int64_t dims) {
  const auto value = static_cast<double>(dist);
  const double roundings = static_cast<double>((dims + 15) / 16) + 8.0;
  return (value * value * (1.0 + 8.0 * kUnit) + static_cast<double>(dims) * kTiny) /
         (1.0 - 2.0 * roundings * kUnit);
}

float row_term(double norm2, int64_t dims) {
  if (!(norm2 < kLargestNorm2)) return -std::numeric_limits<float>::infinity();
  return round_down((1.0 - screening_slack(dims)) * norm2 / 2.0);
}

float query_term(double norm2, double limit, int64_t dims) {
  if (!(norm2 < kLargestNorm2 && limit < kLargestNorm2)) {
    return -std::numeric_limits<float>::infinity();
  }
  const double slack = screening_slack(dims);
  return round_down((1.0 - slack) * norm2 / 2.0 - (1.0 + slack) * limit / 2.0 -
                    2.0 * static_cast<double>(dims) * kTiny);
}

void check_bank_shape(int64_t rows, int64_t dims) {
  if (rows < 1 || dims < 1) {
    fail(KAD_ERROR_INVALID_ARGUMENT,
         "a bank needs at least one row and one dimension, got (%lld, %lld)",
         static_cast<long long>(rows), static_cast<long long>(dims));
  }
  check_count(dims, 1, "dims");
  check_count(rows, dims, "rows");
}

bool has_non_finite(const float* values, int64_t n) {
  constexpr uint32_t kExponent = 0x7F800000u;
  uint32_t found = 0;
  for (int64_t i = 0; i < n; ++i) {
    uint32_t bits = 0;
    std::memcpy(&bits, values + i, sizeof(bits));
    found |= static_cast<uint32_t>((bits & kExponent) == kExponent);
  }
  return found != 0;
}

}  // namespace kad

kad_index::kad_index(const float* bank_values, int64_t n_rows, const kad::SplitLayout& split_layout,
                     kad::Level level, int32_t n_threads)
    : bank(bank_values), rows(n_rows), dims(split_layout.dims()), layout(split_layout) {
  kad::check_finite(*this, n_threads);
  centre = kad::mean_row(*this, n_threads);
  row_terms.assign(static_cast<size_t>(rows + kad::kMaxPanelRows), 0.0F);
  const kad::SearchKernels& kernels = kad::search_kernels(level);
  kad::parallel_for(kad::blocks_of(rows), n_threads, [&](int64_t block, int32_t) {
    const kad::FloatEnvironment environment;
    for (int64_t r = block * kad::kBlockRows; r < kad::block_end(block, rows); ++r) {
      row_terms[static_cast<size_t>(r)] =
          kad::row_term(kernels.norm2(row(r), centre.data(), dims), dims);
    }
  });
  sieve = kad::Sieve::make(*this, level, n_threads);
}

kad_index::kad_index(const float* bank_values, int64_t n_rows, const kad::SplitLayout& split_layout,
                     kad::ByteReader& stored, int32_t n_threads)
    : bank(bank_values), rows(n_rows), dims(split_layout.dims()), layout(split_layout) {
  const auto* mean = stored.take<float>(dims);
  const auto* terms = stored.take<float>(rows);
  if (kad::has_non_finite(mean, dims) || kad::has_non_finite(terms, rows)) {
    kad::fail(KAD_ERROR_ARTIFACT_TENSORS,
              "the stored index holds NaN or Inf; export the artifact again");
  }
  centre.assign(mean, mean + dims);
  row_terms.assign(terms, terms + rows);
  row_terms.resize(static_cast<size_t>(rows + kad::kMaxPanelRows), 0.0F);
  sieve = kad::Sieve::restore(*this, stored, n_threads);
}

int64_t kad_index::bytes() const {
  const size_t floats = centre.size() + row_terms.size();
  return static_cast<int64_t>(floats * sizeof(float)) + (sieve ? sieve->bytes() : 0);
}

namespace {

void create(const float* bank, int64_t rows, const kad::SplitLayout& layout, int32_t n_threads,
            kad_index** out_index) {
  kad::check_pointer(bank, "bank");
  kad::check_threads(n_threads);
  kad::check_bank_shape(rows, layout.dims());
  *out_index =
      std::make_unique<kad_index>(bank, rows, layout, kad::current_level(), n_threads).release();
}

}  // namespace

extern "C" {

kad_status kad_index_create(const float* bank, int64_t rows, int64_t dims, int32_t n_threads,
                            kad_index** out_index) {
  return kad::guard([&] {
    kad::check_pointer(out_index, "out_index");
    *out_index = nullptr;
    create(bank, rows, kad::SplitLayout(dims), n_threads, out_index);
  });
}

kad_status kad_index_create_for_maps(const float* bank, int64_t rows, const kad_base_maps* maps,
                                     int32_t n_threads, kad_index** out_index) {
  return kad::guard([&] {
    kad::check_pointer(out_index, "out_index");
    *out_index = nullptr;
    create(bank, rows, kad::layout_of(maps), n_threads, out_index);
  });
}

void kad_index_close(kad_index* index) { delete index; }

}  // extern "C"
