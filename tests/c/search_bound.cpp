// Checks every bound of the search against the true distance, for every pair of a query and a row.
//
//   search_bound [--seed N] [--seconds S] [--sharpness X]
//
// Each stage drops a row when it proves that the row lies beyond what the query has found so far.
// So for every pair the query is told that the row itself is what it has found: then no stage may
// drop the row, at any level. How far a stage was from dropping it, as a share of the true squared
// distance, is the bound's margin. True distances are sums in long double, good to 2^-50.
//
// --sharpness X also checks the check: when each kind of bound is raised by its smallest margin, so
// that it touches the truth, a raise by X less must find nothing and one by X more must be noticed.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <limits>
#include <vector>

#include "base/level.hpp"
#include "kad/kad.h"
#include "search/index.hpp"
#include "search/search_kernels.hpp"
#include "search/sieve/query_block.hpp"
#include "search/sieve/sieve.hpp"
#include "search/sieve/sieve_pass.hpp"
#include "search_families.hpp"

namespace {

using families::Data;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

size_t size(int64_t value) { return static_cast<size_t>(value); }

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

enum Kind { kLimit, kDense, kNarrow, kWide, kKinds };

struct Ledgers {
  Ledger of[kKinds] = {{"limit"}, {"dense"}, {"narrow"}, {"wide"}};
};

double true_distance2(const float* a, const float* b, int64_t dims) {
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
  int64_t lane;     // of the row that must come through
  int64_t place;    // of the tile's first query
  double row_unit;  // scale of the row's codes
  std::vector<double> slack;
} watch;

void match_watched(const kad::CodeTile& tile, uint64_t* masks) {
  watch.kernels->match(tile, masks);
  for (int64_t q = 0; q < kad::kCodeQueries; ++q, ++watch.place) {
    if (watch.place >= static_cast<int64_t>(watch.slack.size())) continue;
    int64_t product = 0;
    for (int64_t step = 0; step <= tile.steps; ++step) {
      const uint8_t* codes =
          step < tile.steps ? tile.rows + step * kad::kCodeRows * kad::kStepDims : tile.last;
      for (int64_t i = 0; i < kad::kStepDims; ++i) {
        product += int64_t{codes[watch.lane * kad::kStepDims + i]} *
                   tile.queries[(step * kad::kCodeQueries + q) * kad::kStepDims + i];
      }
    }
    const double least =
        static_cast<double>(tile.slopes[q]) * static_cast<double>(tile.row_terms[watch.lane]) +
        static_cast<double>(tile.limits[q]);
    const double unit2 = 2.0 * watch.row_unit / static_cast<double>(tile.slopes[q]);
    const bool kept = ((masks[q] >> watch.lane) & 1) != 0;
    const double slack = (static_cast<double>(product) - least) * unit2;
    watch.slack[size(watch.place)] = kept ? std::max(slack, 0.0) : -kInfinity;
  }
}

// All bounds of one bank and its queries at one level.
class BoundCheck {
 public:
  BoundCheck(const Data& data, kad::Level level, Ledgers& ledgers)
      : data_(data),
        ledgers_(ledgers),
        index_(data.bank.data(), data.rows, data.dims, 1),
        kernels_(kad::search_kernels(level)),
        codes_(kad::code_kernels(level)),
        block_(index_, kernels_, 1),
        true2_(size(data.n)) {
    watched_ = codes_;
    watched_.match = match_watched;
    block_.load(data.queries.data(), data.n);
    pack_queries();
    if (index_.sieve) encode_queries();
  }

  void run() {
    for (int64_t row = 0; row < data_.rows; ++row) {
      find(row);
      check_limit();
      if (row % kernels_.panel_rows == 0) pack_panel(row);
      check_dense(row);
      if (!index_.sieve) continue;
      for (kad::SievePass& pass : passes_) check_narrow(row, pass);
      check_wide(row);
    }
  }

 private:
  // Let this row be all that the queries have found.
  void find(int64_t row) {
    block_.load(data_.queries.data(), data_.n);
    std::vector<kad::RowPair> pairs;
    for (int64_t q = 0; q < data_.n; ++q) {
      pairs.push_back({static_cast<int32_t>(q), row});
      true2_[size(q)] = true_distance2(block_.query(q), index_.row(row), data_.dims);
    }
    block_.decide(pairs.data(), data_.n);
  }

  void check_limit() {
    for (int64_t q = 0; q < data_.n; ++q) {
      const double limit = block_.limit(q), reach = block_.reach(q);
      ledgers_.of[kLimit].enter(std::min(limit, reach * reach) - true2_[size(q)], true2_[size(q)]);
    }
  }

  void pack_queries() {
    const int64_t step = kernels_.tile_queries;
    const int64_t padded = (data_.n + step - 1) / step * step;
    packed_.resize(size(padded * data_.dims));
    for (int64_t q = 0; q < data_.n; q += step) {
      kernels_.pack(block_.query(q), data_.dims, std::min(step, data_.n - q), step, data_.dims,
                    index_.centre.data(), packed_.data() + q * data_.dims);
    }
    panel_.resize(size(kernels_.panel_rows * data_.dims));
    columns_.resize(size(kernels_.columns * data_.dims));
  }

  void pack_panel(int64_t row) {
    const int64_t count = std::min(kernels_.panel_rows, data_.rows - row);
    kernels_.pack(index_.row(row), data_.dims, count, kernels_.panel_rows, data_.dims,
                  index_.centre.data(), panel_.data());
  }

  void check_dense(int64_t row) {
    const int64_t step = kernels_.tile_queries, lane = row % kernels_.panel_rows;
    const float* row_terms = index_.row_terms.data() + (row - lane);
    kernels_.pack(index_.row(row), data_.dims, 1, kernels_.columns, data_.dims,
                  index_.centre.data(), columns_.data());
    std::vector<float> products(size(step * kernels_.columns));
    for (int64_t first = 0; first < data_.n; first += step) {
      float terms[kad::kMaxTileQueries];
      uint64_t masks[kad::kMaxTileQueries];
      const int64_t count = std::min(step, data_.n - first);
      std::fill_n(terms, kad::kMaxTileQueries, 0.0F);
      for (int64_t i = 0; i < count; ++i) {
        terms[i] = kad::query_term(block_.norm2(first + i), block_.limit(first + i), data_.dims);
      }
      const float* queries = packed_.data() + first * data_.dims;
      kernels_.screen(queries, panel_.data(), data_.dims, row_terms, terms, masks);
      kernels_.multiply(queries, columns_.data(), data_.dims, products.data(), kernels_.columns);
      for (int64_t i = 0; i < count; ++i) {
        const float least = row_terms[lane] + terms[i];
        if (!std::isfinite(least)) continue;  // nothing is claimed: the row is always decided
        const bool kept = ((masks[i] >> lane) & 1) != 0;
        const auto product = static_cast<double>(products[size(i * kernels_.columns)]);
        const double slack = 2.0 * (product - static_cast<double>(least));
        ledgers_.of[kDense].enter(kept ? std::max(slack, 0.0) : -kInfinity,
                                  true2_[size(first + i)]);
      }
    }
  }

  void encode_queries() {
    const kad::Sieve& sieve = *index_.sieve;
    const int64_t n = data_.n, width = sieve.width();
    coordinates_.resize(size(n * width));
    errors_.resize(size(n));
    wide_codes_.resize(size(n * width));
    sieve.projection().apply(codes_, block_.query(0), block_.norms2(), n, index_.centre.data(),
                             coordinates_.data(), errors_.data());
    for (int64_t q = 0; q < n; ++q) {
      all_.push_back(static_cast<int32_t>(q));
      const float* coordinates = coordinates_.data() + q * width;
      rests_.push_back(sieve.rests(coordinates, block_.norm2(q), errors_[size(q)]));
      wide_.push_back(sieve.encode_wide(codes_, coordinates, block_.norm2(q), rests_.back(),
                                        wide_codes_.data() + q * width));
    }
    matches_.resize(size(n * kad::kCodeRows + 1));
    for (int64_t depth = 0; depth < sieve.n_depths(); ++depth) {
      passes_.emplace_back(sieve, watched_, all_, depth, coordinates_.data(), rests_.data());
    }
  }

  void check_narrow(int64_t row, kad::SievePass& pass) {
    const kad::Sieve& sieve = *index_.sieve;
    const int64_t slot = sieve.slot(row), panel = slot / kad::kCodeRows;
    const kad::SieveGroup& group = sieve.group_of(panel);
    watch = {&codes_, slot % kad::kCodeRows, 0, static_cast<double>(group.scale),
             std::vector<double>(size(data_.n))};
    pass.set_limits(block_, group);
    pass.match(panel, matches_.data());
    for (int64_t q = 0; q < data_.n; ++q) {
      ledgers_.of[kNarrow].enter(watch.slack[size(q)], true2_[size(q)]);
    }
  }

  // As SieveSearch::screen_matches has it.
  void check_wide(int64_t row) {
    const kad::Sieve& sieve = *index_.sieve;
    const int32_t slot = sieve.slot(row);
    const kad::WideVector& coded = sieve.wide_row(slot);
    for (int32_t q = 0; q < data_.n; ++q) {
      const kad::WideVector& query = wide_[size(q)];
      const kad::CodePair pair = {q, slot};
      int32_t product = 0;
      codes_.pair_products(wide_codes_.data(), sieve.wide_codes(), &pair, 1, sieve.width(),
                           &product);
      const double beyond = (1.0 + 0x1p-19) * (block_.reach(q) + static_cast<double>(query.error));
      const float reach = static_cast<float>(beyond) + coded.error;
      const float distance2 = (query.norm2 + coded.norm2) -
                              2.0F * query.scale * coded.scale * static_cast<float>(product);
      ledgers_.of[kWide].enter(static_cast<double>(reach * reach) - static_cast<double>(distance2),
                               true2_[size(q)]);
    }
  }

  const Data& data_;
  Ledgers& ledgers_;
  kad_index index_;
  const kad::SearchKernels& kernels_;
  const kad::CodeKernels& codes_;
  kad::CodeKernels watched_;
  kad::QueryBlock block_;
  std::vector<double> true2_;  // (n,) to the present row
  std::vector<float> packed_, panel_, columns_, coordinates_, errors_;
  std::vector<int16_t> wide_codes_;
  std::vector<kad::Rests> rests_;
  std::vector<kad::WideVector> wide_;
  std::vector<int32_t> all_;
  std::vector<kad::CodePair> matches_;
  std::vector<kad::SievePass> passes_;
};

void check_data(const Data& data, Ledgers& ledgers) {
  for (int32_t level = KAD_LEVEL_SCALAR; level <= KAD_LEVEL_AVX512VNNI; ++level) {
    if (kad_cpu_level_force(level) != KAD_OK) continue;
    BoundCheck(data, static_cast<kad::Level>(level), ledgers).run();
  }
  kad_cpu_level_force(KAD_LEVEL_AUTO);
}

// Once too small for codes, once large enough.
void check_family(size_t number, uint64_t seed, Ledgers& ledgers) {
  const families::Family& family = families::kFamilies[number];
  families::Generator random(seed * std::size(families::kFamilies) + number);
  const int64_t few = 1 + random.below(63), many = 64 + random.below(200);
  check_data(families::make(family, seed, 1 + random.below(150), few, 9), ledgers);
  check_data(families::make(family, seed, 1024 + random.below(150), many, 20), ledgers);
}

// All families, and again with other seeds until the time is over.
void check_all(uint64_t seed, double seconds, Ledgers& ledgers) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  do {
    for (size_t i = 0; i < std::size(families::kFamilies); ++i) {
      int64_t before = 0, after = 0;
      for (const Ledger& ledger : ledgers.of) before += ledger.violations;
      check_family(i, seed, ledgers);
      for (const Ledger& ledger : ledgers.of) after += ledger.violations;
      if (after > before && ledgers.of[kLimit].raised == 0.0) {
        std::printf("%s, seed %llu: %lld violations\n", families::kFamilies[i].name,
                    static_cast<unsigned long long>(seed), static_cast<long long>(after - before));
      }
    }
    ++seed;
  } while (Clock::now() < end);
}

bool report(const Ledgers& ledgers) {
  bool sound = true;
  for (const Ledger& ledger : ledgers.of) {
    std::printf("%-6s %12lld comparisons, %lld violations, smallest margin %.3g\n", ledger.name,
                static_cast<long long>(ledger.comparisons),
                static_cast<long long>(ledger.violations), ledger.smallest);
    sound = sound && ledger.comparisons > 0 && ledger.violations == 0;
  }
  return sound;
}

// Whether bounds that are raised until they touch the truth, and by `more` besides, are noticed:
// all kinds of them, or none.
bool noticed(const Ledgers& ledgers, uint64_t seed, double more) {
  Ledgers raised;
  for (int i = 0; i < kKinds; ++i) raised.of[i].raised = ledgers.of[i].smallest + more;
  check_all(seed, 0.0, raised);
  int64_t kinds = 0;
  for (const Ledger& ledger : raised.of) kinds += ledger.violations > 0 ? 1 : 0;
  std::printf("tight and raised by %g: %lld of %d kinds violated\n", more,
              static_cast<long long>(kinds), kKinds);
  return kinds == (more > 0.0 ? kKinds : 0);
}

}  // namespace

int main(int count, char** words) {
  uint64_t seed = 0;
  double seconds = 0.0, sharpness = 0.0;
  for (int i = 1; i + 1 < count; i += 2) {
    if (std::strcmp(words[i], "--seed") == 0) seed = std::strtoull(words[i + 1], nullptr, 10);
    if (std::strcmp(words[i], "--seconds") == 0) seconds = std::strtod(words[i + 1], nullptr);
    if (std::strcmp(words[i], "--sharpness") == 0) sharpness = std::strtod(words[i + 1], nullptr);
  }
  Ledgers ledgers;
  check_all(seed, sharpness > 0.0 ? 0.0 : seconds, ledgers);
  bool passed = report(ledgers);
  if (sharpness > 0.0) {
    passed = noticed(ledgers, seed, sharpness) && noticed(ledgers, seed, -sharpness) && passed;
  }
  return passed ? EXIT_SUCCESS : EXIT_FAILURE;
}
