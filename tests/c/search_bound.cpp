// Checks every bound of the search against the true distance, for every pair of a query and a row,
// and the answers of searches by codes against the distances of all rows.
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
#include <iterator>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "base/level.hpp"
#include "kad/kad.h"
#include "search/features.hpp"
#include "search/index.hpp"
#include "search/search.hpp"
#include "search/search_kernels.hpp"
#include "search/sieve/narrow_pass.hpp"
#include "search/sieve/query_block.hpp"
#include "search/sieve/query_coordinates.hpp"
#include "search/sieve/sieve.hpp"
#include "search/sieve/sieve_search.hpp"
#include "search/split.hpp"
#include "search/statistics.hpp"
#include "search_bounds.hpp"
#include "search_families.hpp"

namespace {

using namespace bounds;
using families::Data;

size_t size(int64_t value) { return static_cast<size_t>(value); }

// All bounds of one bank and its queries at one level.
class BoundCheck {
 public:
  BoundCheck(const Data& data, bool stores, kad::Level level, Ledgers& ledgers)
      : BoundCheck(data, kad::SplitLayout(data.dims), nullptr, stores, level, ledgers) {}

  /// The queries are the patches of a tile.
  BoundCheck(const Data& data, const kad::FeatureMaps& maps, bool stores, kad::Level level,
             Ledgers& ledgers)
      : BoundCheck(data, kad::SplitLayout(maps), &maps, stores, level, ledgers) {}

  void run() {
    if (index_.sieve) {
      for (const int32_t k : {1, 4}) check_answers(k);
    }
    for (int64_t row = 0; row < data_.rows; ++row) {
      find(row);
      check_limit();
      if (row % kernels_.panel_rows == 0) pack_panel(row);
      check_dense(row);
      if (!index_.sieve) continue;
      for (Pass& pass : passes_) check_narrow(row, pass);
      check_wide(row);
    }
  }

 private:
  struct Pass {
    kad::NarrowPass codes;
    Kind kind;
  };

  BoundCheck(const Data& data, const kad::SplitLayout& layout, const kad::FeatureMaps* maps,
             bool stores, kad::Level level, Ledgers& ledgers)
      : data_(data),
        ledgers_(ledgers),
        tested_(data, layout, stores),
        index_(tested_.index()),
        kernels_(kad::search_kernels(level)),
        block_(index_, kernels_, 1),
        true2_(size(data.n)) {
    block_.load(data.queries.data(), data.n);
    pack_queries();
    if (index_.sieve) encode_queries(maps);
  }

  // The search by codes, whatever it costs: products of all rows are made so dear that nothing is
  // left to them but what codes cannot hold. And the search as everyone calls it.
  void check_answers(int32_t k) {
    kad::SearchKernels kernels = kernels_;
    kernels.dim_cost = 1e30;
    kad::Tally tally;
    kad::QueryBlock block(index_, kernels, k);
    kad::SieveSearch search(index_, kernels, tally);
    block.load(data_.queries.data(), data_.n);
    const std::vector<int32_t>& left = search.run(block, window_ ? &coarse_ : nullptr);
    const auto n_found = size(data_.n * k);
    std::vector<float> dist(n_found);
    std::vector<int64_t> rows(n_found);
    kad::search(index_, data_.queries.data(), data_.n, k, kThreads, dist.data(), rows.data());
    kad::QueryBlock every(index_, kernels, k);
    every.load(data_.queries.data(), data_.n);
    for (int32_t q = 0; q < data_.n; ++q) {
      const bool coded = std::find(left.begin(), left.end(), q) == left.end();
      std::vector<kad::RowPair> pairs;
      for (int64_t row = 0; row < data_.rows; ++row) pairs.push_back({q, row});
      every.decide(pairs.data(), data_.rows);
      const kad::NearestRows &right = every.nearest(q), &found = block.nearest(q);
      bool same = !coded || found.count() >= k;
      for (int32_t i = 0; i < k && same; ++i) {
        const size_t place = size(q * k + i);
        same = rows[place] == right.row(i) && dist[place] == right.dist(i) &&
               (!coded || (found.row(i) == right.row(i) && found.dist(i) == right.dist(i)));
      }
      ledgers_.answers += coded ? 1 : 0;
      if (!same) ++ledgers_.wrong_answers;
    }
  }

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
      kernels_.multiply(queries, step, columns_.data(), kernels_.columns, data_.dims,
                        products.data(), kernels_.columns);
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

  void encode_queries(const kad::FeatureMaps* maps) {
    const kad::Sieve& sieve = *index_.sieve;
    queries_ = std::make_unique<kad::QueryCoordinates>(index_, kernels_);
    queries_->load(block_);
    if (maps != nullptr) {
      const kad::SplitLayout layout(*maps);
      if (index_.layout.matches(layout)) {
        coarse_.load(layout, *maps, maps->whole(0), index_.centre.data());
        window_ = queries_->load_positions(coarse_);
      }
    }
    watched_ = sieve.codes();
    watched_.match = match_watched;
    std::vector<int32_t> all(size(data_.n));
    std::iota(all.begin(), all.end(), 0);
    const int32_t finest = watched_.query_bits;
    for (int64_t depth = 0; depth < sieve.n_depths(); ++depth) {
      for (const int32_t exponent : {finest, finest + 2, finest + 9}) {
        kad::NarrowPass pass(sieve, watched_, *queries_, depth, exponent);
        if (window_ && pass.take_window()) passes_.push_back({pass, kWindow});
        pass.take(all);
        passes_.push_back({pass, kNarrow});
      }
    }
  }

  void check_narrow(int64_t row, Pass& pass) {
    const kad::Sieve& sieve = *index_.sieve;
    const int64_t slot = sieve.slot(row), panel = slot / kad::kCodeRows;
    const kad::SieveGroup& group = sieve.group_of(panel);
    const int64_t n_places = pass.codes.n_places();
    watch = {&sieve.codes(), slot % kad::kCodeRows, sieve.codes().step_dims, {}};
    matches_.resize(size(n_places * kad::kCodeRows + 4));
    kept_.assign(size(data_.n), false);
    pass.codes.set_limits(block_, group);
    const int64_t n_matches = pass.codes.match(panel, matches_.data());
    for (int64_t i = 0; i < n_matches; ++i) {
      const kad::CodePair& pair = matches_[size(i)];
      if (pair.slot == slot) kept_[size(pair.query)] = true;
    }
    const double unit2 = 2.0 * pass.codes.scale() * group.scale;
    for (int64_t place = 0; place < n_places; ++place) {
      const int32_t q = pass.codes.query(place);
      if (q < 0) continue;
      const int64_t above = watch.above[size(place)];
      const double slack = above == kNoClaim ? kInfinity : static_cast<double>(above) * unit2;
      ledgers_.of[pass.kind].enter(kept_[size(q)] ? slack : -kInfinity, true2_[size(q)]);
    }
  }

  // As Candidates has it.
  void check_wide(int64_t row) {
    const kad::Sieve& sieve = *index_.sieve;
    const int32_t slot = sieve.slot(row);
    const kad::WideVector& coded = sieve.wide_row(slot);
    for (int32_t q = 0; q < data_.n; ++q) {
      const kad::WideVector& query = queries_->wide(q);
      const kad::CodePair pair = {q, slot};
      int32_t product = 0;
      sieve.codes().pair_products(queries_->wide_codes(), sieve.wide_codes(), &pair, 1,
                                  sieve.width(), &product);
      const auto limit = static_cast<float>((1.0 + 0x1p-19) *
                                            (block_.reach(q) + static_cast<double>(query.error)));
      const float reach = limit + coded.error;
      const float distance2 = (query.norm2 + coded.norm2) -
                              2.0F * query.scale * coded.scale * static_cast<float>(product);
      const bool kept = !(distance2 > reach * reach) &&
                        std::sqrt(std::max(distance2, 0.0F)) - coded.error <= limit;
      const double slack = static_cast<double>(reach * reach) - static_cast<double>(distance2);
      ledgers_.of[kWide].enter(kept ? slack : -kInfinity, true2_[size(q)]);
    }
  }

  const Data& data_;
  Ledgers& ledgers_;
  TestedIndex tested_;
  const kad_index& index_;
  const kad::SearchKernels& kernels_;
  kad::CodeKernels watched_ = {};
  kad::QueryBlock block_;
  std::vector<double> true2_;  // (n,) to the present row
  std::vector<float> packed_, panel_, columns_;
  kad::CoarseWindow coarse_;
  bool window_ = false;  // whether the queries are its patches
  std::unique_ptr<kad::QueryCoordinates> queries_;
  std::vector<Pass> passes_;
  std::vector<kad::CodePair> matches_;
  std::vector<bool> kept_;  // (n,) whether the present row came through
};

// A tile whose patches are hard: what the family's queries hold lies in a fine map, and in a coarse
// one that makes up the last dimensions.
class Tile {
 public:
  Tile(const Data& data, int32_t coarse_dims, int32_t resampling) {
    const bool bilinear = resampling == KAD_RESAMPLE_BILINEAR;
    const int32_t sides[4] = {bilinear ? 6 : 7, 4, 3, 2};  // of the grid, of the coarse map
    const auto fine_dims = static_cast<int32_t>(data.dims) - coarse_dims;
    heights_[0] = sides[0];
    widths_[0] = sides[1];
    heights_[1] = sides[2];
    widths_[1] = sides[3];
    channels_[0] = fine_dims;
    channels_[1] = coarse_dims;
    fill(data, 0, 0);
    fill(data, 1, fine_dims);
    const float* maps[2] = {values_[0].data(), values_[1].data()};
    kad_base_maps view = {};
    view.struct_size = sizeof(view);
    view.resampling = resampling;
    view.grid_height = sides[0];
    view.grid_width = sides[1];
    view.n_tiles = 1;
    view.n_layers = 2;
    view.data = maps;
    view.channels = channels_;
    view.heights = heights_;
    view.widths = widths_;
    maps_ = std::make_unique<kad::FeatureMaps>(&view);
  }

  const kad::FeatureMaps& maps() const { return *maps_; }

  /// The same bank, and the tile's patch features.
  Data with_patches(const Data& data) const {
    Data out = {data.rows, data.dims, maps_->patches(), data.bank, {}};
    out.queries.resize(size(out.n * out.dims));
    std::vector<float> scratch;
    maps_->features(maps_->whole(0), kad::search_kernels(kad::current_level()), scratch,
                    out.queries.data());
    return out;
  }

 private:
  void fill(const Data& data, size_t layer, int64_t first) {
    const int64_t positions = int64_t{heights_[layer]} * widths_[layer];
    values_[layer].resize(size(channels_[layer] * positions));
    for (int64_t c = 0; c < channels_[layer]; ++c) {
      for (int64_t p = 0; p < positions; ++p) {
        values_[layer][size(c * positions + p)] =
            data.queries[size(p % data.n * data.dims + first + c)];
      }
    }
  }

  int32_t channels_[2], heights_[2], widths_[2];
  std::vector<float> values_[2];
  std::unique_ptr<kad::FeatureMaps> maps_;
};

// Bounds at every level that the processor has.
template <class Check>
void at_every_level(Check check) {
  for (int32_t level = KAD_LEVEL_SCALAR; level <= KAD_LEVEL_AVX512VNNI; ++level) {
    if (kad_cpu_level_force(level) == KAD_OK) check(static_cast<kad::Level>(level));
  }
  kad_cpu_level_force(KAD_LEVEL_AUTO);
}

// By turns with an index that was built and with one that was stored.
bool stores(size_t family, kad::Level level) { return (family + static_cast<size_t>(level)) % 2; }

void check_data(const Data& data, size_t family, Ledgers& ledgers) {
  at_every_level(
      [&](kad::Level level) { BoundCheck(data, stores(family, level), level, ledgers).run(); });
}

void check_tile(const Data& data, size_t family, int32_t coarse_dims, int32_t resampling,
                Ledgers& ledgers) {
  const Tile tile(data, coarse_dims, resampling);
  const Data patches = tile.with_patches(data);
  at_every_level([&](kad::Level level) {
    BoundCheck(patches, tile.maps(), stores(family, level), level, ledgers).run();
  });
}

// Once too small for codes, once large enough, and once as the patches of a tile.
void check_family(size_t number, uint64_t seed, Ledgers& ledgers) {
  const families::Family& family = families::kFamilies[number];
  families::Generator random(seed * std::size(families::kFamilies) + number);
  const int64_t few = 1 + random.below(63), many = 64 + random.below(200);
  check_data(families::make(family, seed, 1 + random.below(150), few, 9), number, ledgers);
  check_data(families::make(family, seed, 1024 + random.below(150), many, 20), number, ledgers);
  const auto coarse_dims = static_cast<int32_t>(8 + random.below(many - 16));
  const int32_t resampling =
      seed % 2 == number % 2 ? KAD_RESAMPLE_BILINEAR : KAD_RESAMPLE_ADAPTIVE_AVERAGE;
  check_tile(families::make(family, seed + 1, 1024, many, 30), number, coarse_dims, resampling,
             ledgers);
}

// All families, and again with other seeds until the time is over.
void check_all(uint64_t seed, double seconds, Ledgers& ledgers) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + std::chrono::duration<double>(seconds);
  do {
    for (size_t i = 0; i < std::size(families::kFamilies); ++i) {
      int64_t before = ledgers.wrong_answers, after = 0;
      for (const Ledger& ledger : ledgers.of) before += ledger.violations;
      check_family(i, seed, ledgers);
      for (const Ledger& ledger : ledgers.of) after += ledger.violations;
      after += ledgers.wrong_answers;
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
  std::printf("answers %11lld from codes, %lld wrong\n", static_cast<long long>(ledgers.answers),
              static_cast<long long>(ledgers.wrong_answers));
  return sound && ledgers.answers > 0 && ledgers.wrong_answers == 0;
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
