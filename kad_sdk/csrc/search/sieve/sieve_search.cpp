#include "search/sieve/sieve_search.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "search/index.hpp"

namespace kad {
namespace {

constexpr double kFitting = 0.95;  // share of a window's queries that a scale must fit
constexpr int32_t kMostExponent = 24;
constexpr double kMostSpan = 24000.0;   // of products, for a scale to fit
constexpr double kMostLoss = 0.15;      // of a query's reach, that its codes may be off
constexpr int64_t kSamplePanels = 4;    // panels on which depths are compared,
constexpr int64_t kSampleQueries = 64;  // and queries,
constexpr size_t kDecidedQueries = 16;  // of which so many tell how many rows must be decided
constexpr double kMatchOverhead = 8.0;  // of a pair, in dimensions
constexpr int32_t kSeedExponent = 1;    // below it, far rows' products leave 16 bits, and look near
constexpr int64_t kLeastTried = 128;    // rows, before codes are given up

// Costs of a pair in each stage, in cycles.
constexpr double kWideCost = 25.0;
double decide_cost(int64_t dims) { return 20.0 + 0.25 * static_cast<double>(dims); }

std::vector<int32_t> all_of(int64_t n) {
  std::vector<int32_t> queries(static_cast<size_t>(n));
  std::iota(queries.begin(), queries.end(), 0);
  return queries;
}

}  // namespace

SieveSearch::SieveSearch(const kad_index& index, const SearchKernels& kernels, Tally& tally)
    : index_(index),
      sieve_(*index.sieve),
      tally_(tally),
      dense_cost_(kernels.dim_cost * static_cast<double>(index.dims)),
      queries_(index, kernels),
      seeds_(*index.sieve),
      candidates_(index, queries_) {}

const std::vector<int32_t>& SieveSearch::run(QueryBlock& block, const CoarseWindow* coarse) {
  left_ = all_of(block.n());
  const double longest2 = *std::max_element(block.norms2(), block.norms2() + block.n());
  if (!(longest2 < kLongest * kLongest)) return left_;
  queries_.load(block);
  if (coarse != nullptr && !queries_.load_positions(*coarse)) coarse = nullptr;
  candidates_.begin(block);
  tally_.lap(kPrepareTime);
  take_seeds(block);
  Queries open;
  left_.swap(open);
  // What does not fit the scale that is fine enough for most is searched again with a coarser one.
  for (double share = kFitting; !open.empty(); share = 1.0) {
    const int32_t exponent = fitting_exponent(block, open, share);
    const bool window = coarse != nullptr && share < 1.0;
    const double dim_share = window ? index_.layout.coarse_share() : 1.0;
    const int64_t depth = best_depth(block, open, exponent, dim_share);
    if (depth < 0) {
      left_.insert(left_.end(), open.begin(), open.end());
      break;
    }
    NarrowPass pass(sieve_, sieve_.codes(), queries_, depth, exponent);
    if (!window || !pass.take_window()) pass.take(open);
    Queries unfit;
    // Codes that are not cut off are off by half a unit each.
    const double rounding =
        0.5 * pass.scale() * std::sqrt(static_cast<double>(sieve_.depth(depth).dims()));
    for (int64_t place = 0; place < pass.n_places(); ++place) {
      const int32_t query = pass.query(place);
      if (query < 0 || pass.error(place) <= 1.1 * rounding + kMostLoss * block.reach(query)) {
        continue;
      }
      (share < 1.0 ? unfit : left_).push_back(query);
      pass.drop(place);
    }
    tally_.lap(kPrepareTime);
    search(block, pass);
    open.swap(unfit);
  }
  leave_missing(block);
  return left_;
}

// Rows are lost to wrong bounds only, which a stored index may have that was tampered with: what is
// reported must be rows even then.
void SieveSearch::leave_missing(const QueryBlock& block) {
  for (int32_t q = 0; q < block.n(); ++q) {
    if (block.nearest(q).count() >= block.k()) continue;
    if (std::find(left_.begin(), left_.end(), q) == left_.end()) left_.push_back(q);
  }
}

// Decide the guesses of every query: they give the first limits.
void SieveSearch::take_seeds(QueryBlock& block) {
  const CoarseWindow* coarse = queries_.coarse();
  const auto width = coarse == nullptr ? 0 : static_cast<int64_t>(coarse->columns().near.size());
  const QueryGrid grid = coarse == nullptr ? find_grid(queries_.of(0), block.n(), sieve_.width())
                                           : QueryGrid{width, block.n() / width, 2};
  const int32_t exponent = std::max(kSeedExponent, sieve_.codes().query_bits);
  seeds_.find(queries_, grid, exponent, block.k() + kSpareRows);
  tally_.add(kSeedProducts, seeds_.products());
  tally_.lap(kSeedTime);
  candidates_.set_reaches(block);
  for (int64_t q = 0; q < block.n(); ++q) {
    const std::vector<int32_t>& slots = seeds_.of(q);
    matches_.resize(std::max(matches_.size(), slots.size()));
    for (size_t i = 0; i < slots.size(); ++i) matches_[i] = {static_cast<int32_t>(q), slots[i]};
    candidates_.screen(matches_.data(), static_cast<int64_t>(slots.size()));
    tally_.add(kWidePairs, static_cast<int64_t>(slots.size()));
  }
  tally_.lap(kWideTime);
  tally_.add(kDecidedPairs, candidates_.decide(block));
  tally_.lap(kDecideTime);
}

// The finest scale, as a power of two of the sieve's unit, whose codes hold this share of the
// queries, and in which what they reach spans few enough products.
int32_t SieveSearch::fitting_exponent(const QueryBlock& block, const Queries& queries,
                                      double share) const {
  const CodeKernels& codes = sieve_.codes();
  const Depth& depth = sieve_.depth(sieve_.n_depths() - 1);
  std::vector<int32_t> exponents;
  for (const int32_t q : queries) {
    const float* coordinates = queries_.of(q);
    const float largest =
        std::max(codes.largest_magnitude(coordinates, depth.fine),
                 codes.largest_magnitude(coordinates + sieve_.basis().fine_width(), depth.coarse));
    const double reach = block.reach(q) + queries_.error(q);
    int32_t exponent = codes.query_bits;
    while (exponent < kMostExponent) {
      const double scale = std::ldexp(sieve_.unit(), exponent);
      const bool fits = static_cast<double>(largest) <= codes.query_code * scale &&
                        reach * reach <= kMostSpan * 2.0 * scale * sieve_.unit();
      if (fits) break;
      ++exponent;
    }
    exponents.push_back(exponent);
  }
  const auto chosen = exponents.begin() +
                      static_cast<std::ptrdiff_t>(share * static_cast<double>(queries.size() - 1));
  std::nth_element(exponents.begin(), chosen, exponents.end());
  return *chosen;
}

// The cheapest depth for queries like these, tried on some of them; -1 where products of all rows
// are cheaper, by what the narrow codes leave or by what then has to be decided. `dim_share` is
// what a coarse coordinate costs, against a fine one.
int64_t SieveSearch::best_depth(QueryBlock& block, const Queries& queries, int32_t exponent,
                                double dim_share) {
  Queries sample;
  const auto n = static_cast<int64_t>(queries.size());
  for (int64_t i = 0; i < std::min(n, kSampleQueries); ++i) {
    sample.push_back(queries[static_cast<size_t>(i * n / std::min(n, kSampleQueries))]);
  }
  matches_.resize(std::max(matches_.size(), sample.size() * kCodeRows + 4));
  int64_t best = -1;
  double least = dense_cost_;
  for (int64_t depth = 0; depth < sieve_.n_depths(); ++depth) {
    const Trial trial = try_depth(block, sample, exponent, depth, false);
    const Depth& dims = sieve_.depth(depth);
    const double compared =
        static_cast<double>(dims.fine) + dim_share * static_cast<double>(dims.coarse);
    const double cost =
        (compared + kMatchOverhead) * sieve_.codes().dim_cost +
        kWideCost * static_cast<double>(trial.matched) / static_cast<double>(trial.pairs);
    if (cost < least) {
      least = cost;
      best = depth;
    }
  }
  if (best < 0) return -1;
  sample.resize(std::min(sample.size(), kDecidedQueries));
  const Trial trial = try_depth(block, sample, exponent, best, true);
  return hopeless(trial.pairs, 0, trial.decided) ? -1 : best;
}

SieveSearch::Trial SieveSearch::try_depth(QueryBlock& block, const Queries& sample,
                                          int32_t exponent, int64_t depth, bool decides) {
  NarrowPass pass(sieve_, sieve_.codes(), queries_, depth, exponent);
  pass.take(sample);
  candidates_.set_reaches(block);
  Trial trial = {0, 0, 0};
  for (int64_t i = 0; i < kSamplePanels; ++i) {
    const int64_t panel = (2 * i + 1) * sieve_.n_panels() / (2 * kSamplePanels);
    pass.set_limits(block, sieve_.group_of(panel));
    const int64_t found = pass.match(panel, matches_.data());
    if (decides) candidates_.screen(matches_.data(), found);
    trial.matched += found;
    trial.pairs += sieve_.panel_rows(panel) * static_cast<int64_t>(sample.size());
  }
  trial.decided = candidates_.decide(block);
  tally_.add(kDecidedPairs, trial.decided);
  return trial;
}

void SieveSearch::search(QueryBlock& block, NarrowPass& pass) {
  matches_.resize(std::max(matches_.size(), static_cast<size_t>(pass.n_places() * kCodeRows + 4)));
  int64_t n_queries = 0;
  for (int64_t place = 0; place < pass.n_places(); ++place) n_queries += pass.query(place) >= 0;
  int64_t matched = 0, decided = 0, rows = 0;
  Trial tried = {0, 0, 0};
  bool tightened = false;
  const auto decide = [&] {
    const int64_t n = candidates_.decide(block);
    tally_.lap(kDecideTime);
    decided += n;
    tried.decided += n;
  };
  for (const SieveGroup& group : sieve_.groups()) {
    pass.set_limits(block, group);
    candidates_.set_reaches(block);
    bool lost = false;
    for (int64_t p = group.first_panel; p < group.first_panel + group.n_panels && !lost; ++p) {
      const int64_t found = pass.match(p, matches_.data());
      tally_.lap(kNarrowTime);
      candidates_.screen(matches_.data(), found);
      tally_.lap(kWideTime);
      matched += found;
      rows += sieve_.panel_rows(p);
      tried.pairs += sieve_.panel_rows(p) * n_queries;
      tried.matched += found;
      if (tried.pairs < kLeastTried * n_queries ||
          !hopeless(tried.pairs, tried.matched, tried.decided + candidates_.n())) {
        continue;
      }
      // The first guesses may have been bad ones: once, what was kept is decided, which is less
      // than all of it, and the limits that this gives are tried.
      decide();
      lost = tightened || hopeless(tried.pairs, 0, tried.decided);
      tightened = true;
      tried = {0, 0, 0};
      pass.set_limits(block, group);
      candidates_.set_reaches(block);
    }
    decide();
    if (lost) {
      leave(pass);
      break;
    }
  }
  tally_.add(kNarrowPairs, rows * n_queries);
  tally_.add(kNarrowProducts, rows * pass.products_per_row());
  tally_.add(kWidePairs, matched);
  tally_.add(kDecidedPairs, decided);
}

// Whether rows that came through cost more than products of all rows.
bool SieveSearch::hopeless(int64_t pairs, int64_t matched, int64_t decided) const {
  const double wide = kWideCost * static_cast<double>(matched);
  const double exact = decide_cost(index_.dims) * static_cast<double>(decided);
  return wide + exact > dense_cost_ * static_cast<double>(pairs);
}

void SieveSearch::leave(const NarrowPass& pass) {
  for (int64_t place = 0; place < pass.n_places(); ++place) {
    if (pass.query(place) >= 0) left_.push_back(pass.query(place));
  }
}

}  // namespace kad
