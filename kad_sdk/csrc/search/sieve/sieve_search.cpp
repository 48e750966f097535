#include "search/sieve/sieve_search.hpp"

#include <algorithm>
#include <cmath>

#include "base/prefetch.hpp"
#include "search/index.hpp"

namespace kad {
namespace {

constexpr int64_t kFirstDepth = 3;       // depth before anything is known
constexpr int64_t kSamplePanels = 4;     // panels on which depths are compared,
constexpr size_t kSampleQueries = 64;    // and queries
constexpr int64_t kPrefetchBytes = 512;  // of a row: the processor goes on by itself
constexpr int64_t kScreenBatch = 64;     // pairs whose products are taken at once
constexpr double kUp = 1.0 + 0x1p-19;    // room for the float arithmetic of screen_matches

// Costs of a pair in each stage, in cycles.
constexpr double kMatchCost = 15.0;  // at full speed
constexpr double kWideCost = 60.0;   // with the waiting that a few scattered ones cause
double decide_cost(int64_t dims) { return 20.0 + 0.25 * static_cast<double>(dims); }
double dense_cost(int64_t dims) { return static_cast<double>(dims) / 16.0; }

}  // namespace

SieveSearch::SieveSearch(const kad_index& index, const CodeKernels& codes, Tally& tally)
    : index_(index),
      sieve_(*index.sieve),
      codes_(codes),
      tally_(tally),
      matches_(static_cast<size_t>(QueryBlock::kMostQueries * kCodeRows + 1)) {}

const std::vector<int32_t>& SieveSearch::run(QueryBlock& block) {
  left_.clear();
  bool hopeful =
      *std::max_element(block.norms2(), block.norms2() + block.n()) < kLongest * kLongest;
  if (hopeful) encode(block);
  int64_t depth = std::min(kFirstDepth, sieve_.n_depths() - 1);
  searched_.assign(static_cast<size_t>(block.n()), 0);
  reaches_.resize(static_cast<size_t>(block.n()));
  first_.assign(static_cast<size_t>(block.n()), -1);
  const int64_t row = hopeful ? row_length(coordinates_.data(), block.n(), sieve_.width()) : 1;
  tally_.lap(kPrepareTime);
  for (const QueryRound& round : query_rounds(block.n(), row)) {
    if (hopeful) {
      seed(block, round);
      hopeful = search(block, round.queries, depth);
    }
    if (!hopeful) left_.insert(left_.end(), round.queries.begin(), round.queries.end());
    for (const int32_t q : round.queries) searched_[static_cast<size_t>(q)] = 1;
    if (hopeful && round.queries.size() >= kSampleQueries / 4) {
      depth = best_depth(block, round.queries);
    }
  }
  return left_;
}

void SieveSearch::encode(const QueryBlock& block) {
  const auto n = static_cast<size_t>(block.n());
  const int64_t width = sieve_.width();
  coordinates_.resize(n * static_cast<size_t>(width));
  errors_.resize(n);
  rests_.resize(n);
  wide_codes_.resize(n * static_cast<size_t>(width));
  wide_.resize(n);
  sieve_.projection().apply(codes_, block.query(0), block.norms2(), block.n(), index_.centre.data(),
                            coordinates_.data(), errors_.data());
  for (int64_t q = 0; q < block.n(); ++q) {
    const auto i = static_cast<size_t>(q);
    const float* coordinates = coordinates_.data() + q * width;
    rests_[i] = sieve_.rests(coordinates, block.norm2(q), errors_[i]);
    wide_[i] = sieve_.encode_wide(codes_, coordinates, block.norm2(q), rests_[i],
                                  wide_codes_.data() + q * width);
  }
}

// The nearest rows of the neighbours give the first limits.
void SieveSearch::seed(QueryBlock& block, const QueryRound& round) {
  set_reaches(block, round.queries);
  for (const int32_t query : round.queries) add_seeds(block, query, round);
  tally_.lap(kWideTime);
  Flow flow;
  decide(block, round.queries, flow);
}

void SieveSearch::add_seeds(const QueryBlock& block, int32_t query, const QueryRound& round) {
  n_matches_ = 0;
  const auto known = [&](const CodePair& pair) {
    const auto same = [&](const CodePair& other) { return other.slot == pair.slot; };
    return std::any_of(matches_.data(), matches_.data() + n_matches_, same);
  };
  for (const int64_t offset : round.neighbours) {
    const int64_t neighbour = query + offset;
    if (neighbour < 0 || neighbour >= block.n() || searched_[static_cast<size_t>(neighbour)] == 0) {
      continue;
    }
    const NearestRows& nearest = block.nearest(neighbour);
    for (int32_t i = 0; i < nearest.count(); ++i) {
      const CodePair pair = {query, sieve_.slot(nearest.row(i))};
      if (!known(pair)) matches_[static_cast<size_t>(n_matches_++)] = pair;
    }
  }
  screen_matches();
}

bool SieveSearch::search(QueryBlock& block, const Queries& queries, int64_t depth) {
  if (queries.empty()) return true;
  SievePass pass(sieve_, codes_, queries, depth, coordinates_.data(), rests_.data());
  Flow flow;
  // Of the first rows nothing is concluded: there are no limits yet, so all of them match.
  const int64_t unsettled = kGroupRows * static_cast<int64_t>(queries.size());
  constexpr int64_t kMostPanels = kGroupRows / kCodeRows;
  bool hopeful = true;
  int64_t panels = 1;  // to match before the limits are taken anew
  for (const SieveGroup& group : sieve_.groups()) {
    const int64_t end = group.first_panel + group.n_panels;
    for (int64_t first = group.first_panel; first < end;) {
      pass.set_limits(block, group);
      set_reaches(block, queries);
      for (int64_t p = first; p < std::min(first + panels, end); ++p) {
        n_matches_ = pass.match(p, matches_.data());
        tally_.lap(kNarrowTime);
        screen_matches();
        tally_.lap(kWideTime);
        if (flow.pairs >= unsettled) flow.matched += n_matches_;
        flow.pairs += sieve_.panel_rows(p) * static_cast<int64_t>(queries.size());
      }
      decide(block, queries, flow);
      first += panels;
      panels = std::min(2 * panels, kMostPanels);
    }
    if (flow.pairs >= unsettled && hopeless(flow)) {
      hopeful = false;
      break;
    }
  }
  tally_.add(kNarrowPairs, flow.pairs);
  tally_.add(kNarrowProducts, flow.pairs * kDepths[depth]);
  return hopeful;
}

void SieveSearch::set_reaches(const QueryBlock& block, const Queries& queries) {
  for (const int32_t q : queries) {
    const auto i = static_cast<size_t>(q);
    reaches_[i] = static_cast<float>(kUp * (block.reach(q) + static_cast<double>(wide_[i].error)));
  }
}

// Leave the matches whose bound by the wide codes, |x~ - y~| - e_q - e_m, is within reach.
void SieveSearch::screen_matches() {
  const int64_t width = sieve_.width();
  const int64_t row_bytes =
      std::min(index_.dims * static_cast<int64_t>(sizeof(float)), kPrefetchBytes);
  tally_.add(kWidePairs, n_matches_);
  int32_t products[kScreenBatch];
  for (int64_t begin = 0; begin < n_matches_; begin += kScreenBatch) {
    const CodePair* pairs = matches_.data() + begin;
    const int64_t count = std::min(kScreenBatch, n_matches_ - begin);
    codes_.pair_products(wide_codes_.data(), sieve_.wide_codes(), pairs, count, width, products);
    for (int64_t i = 0; i < count; ++i) {
      const auto q = static_cast<size_t>(pairs[i].query);
      const WideVector& query = wide_[q];
      const WideVector& row = sieve_.wide_row(pairs[i].slot);
      const float reach = reaches_[q] + row.error;
      const float product = 2.0F * query.scale * row.scale * static_cast<float>(products[i]);
      const float distance2 = (query.norm2 + row.norm2) - product;
      if (distance2 > reach * reach) continue;
      const float bound = std::sqrt(std::max(distance2, 0.0F)) - row.error;
      const int32_t row_number = sieve_.row(pairs[i].slot);
      prefetch_far(index_.row(row_number), row_bytes);
      candidates_.push_back({bound, row_number, first_[q]});
      first_[q] = static_cast<int32_t>(candidates_.size()) - 1;
    }
  }
}

// Decide the candidates of every query from the nearest bound on, one of each query at a time, so
// that limits tighten on the way and distances of many queries are computed side by side.
void SieveSearch::decide(QueryBlock& block, const Queries& queries, Flow& flow) {
  Queries active;
  for (const int32_t q : queries) {
    if (first_[static_cast<size_t>(q)] < 0) continue;
    sort_candidates(q);
    active.push_back(q);
  }
  while (!active.empty()) {
    decided_.clear();
    for (const int32_t q : active) {
      int32_t& next = first_[static_cast<size_t>(q)];
      const double reach =
          kUp * (block.reach(q) + static_cast<double>(wide_[static_cast<size_t>(q)].error));
      int32_t missing = std::max(block.k() - block.nearest(q).count(), 1);
      while (next >= 0 && missing-- > 0) {
        const Candidate& candidate = candidates_[static_cast<size_t>(next)];
        const bool within = static_cast<double>(candidate.bound) <= reach;
        if (within) decided_.push_back({q, candidate.row});
        next = within ? candidate.next : -1;
      }
    }
    block.decide(decided_.data(), static_cast<int64_t>(decided_.size()));
    flow.decided += static_cast<int64_t>(decided_.size());
    tally_.add(kDecidedPairs, static_cast<int64_t>(decided_.size()));
    active.erase(std::remove_if(active.begin(), active.end(),
                                [&](int32_t q) { return first_[static_cast<size_t>(q)] < 0; }),
                 active.end());
  }
  tally_.lap(kDecideTime);
  candidates_.clear();
}

// Link a query's candidates by rising bound.
void SieveSearch::sort_candidates(int32_t query) {
  int32_t& first = first_[static_cast<size_t>(query)];
  if (candidates_[static_cast<size_t>(first)].next < 0) return;
  order_.clear();
  for (int32_t i = first; i >= 0; i = candidates_[static_cast<size_t>(i)].next) order_.push_back(i);
  std::sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) {
    const Candidate &left = candidates_[static_cast<size_t>(a)],
                    &right = candidates_[static_cast<size_t>(b)];
    return left.bound != right.bound ? left.bound < right.bound : left.row < right.row;
  });
  first = -1;
  for (auto i = order_.rbegin(); i != order_.rend(); ++i) {
    candidates_[static_cast<size_t>(*i)].next = first;
    first = *i;
  }
}

// The cheapest depth for queries like these, whose limits are settled.
int64_t SieveSearch::best_depth(const QueryBlock& block, const Queries& all) {
  const Queries queries(
      all.begin(), all.begin() + static_cast<std::ptrdiff_t>(std::min(all.size(), kSampleQueries)));
  const auto n_panels = sieve_.n_panels();
  int64_t best = 0;
  double least = 0.0;
  for (int64_t depth = 0; depth < sieve_.n_depths(); ++depth) {
    SievePass pass(sieve_, codes_, queries, depth, coordinates_.data(), rests_.data());
    int64_t pairs = 0, matched = 0;
    for (int64_t i = 0; i < kSamplePanels; ++i) {
      const int64_t panel = (2 * i + 1) * n_panels / (2 * kSamplePanels);
      pass.set_limits(block, sieve_.group_of(panel));
      matched += pass.match(panel, matches_.data());
      pairs += sieve_.panel_rows(panel) * static_cast<int64_t>(queries.size());
    }
    const double steps = static_cast<double>(kDepths[depth] / kStepDims) + 3.0;
    const double cost = steps * codes_.step_cost +
                        kWideCost * static_cast<double>(matched) / static_cast<double>(pairs);
    if (depth == 0 || cost < least) {
      least = cost;
      best = depth;
    }
  }
  tally_.lap(kPrepareTime);
  return best;
}

// Rows that came through cost about this much where products of all rows cost `dense_cost`.
bool SieveSearch::hopeless(const Flow& flow) const {
  const double matched = kMatchCost * static_cast<double>(flow.matched);
  const double decided = decide_cost(index_.dims) * static_cast<double>(flow.decided);
  return matched + decided > dense_cost(index_.dims) * static_cast<double>(flow.pairs);
}

}  // namespace kad
