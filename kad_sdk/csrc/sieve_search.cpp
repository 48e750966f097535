#include "sieve_search.hpp"

#include <algorithm>
#include <cmath>

#include "index.hpp"

namespace kad {
namespace {

// Queries are searched in three rounds, every 64th, every 8th, all: those of a round begin with the
// nearest rows of their neighbours in the round before. Neighbours in a batch are mostly
// neighbouring patches.
constexpr int64_t kSpacings[] = {64, 16, 4, 1};
constexpr int64_t kFirstDepth = 2;    // depth before anything is known
constexpr int64_t kSamplePanels = 6;  // panels on which depths are compared
constexpr int64_t kBatch = 4;         // rows decided between two looks at the limit

// Costs of a pair in each stage, in cycles.
constexpr double kWideCost = 18.0;
double decide_cost(int64_t dims) { return 20.0 + 0.25 * static_cast<double>(dims); }
double dense_cost(int64_t dims) { return static_cast<double>(dims) / 16.0; }

}  // namespace

SieveSearch::SieveSearch(const kad_index& index, const SearchKernels& kernels,
                         const CodeKernels& codes)
    : index_(index),
      sieve_(*index.sieve),
      kernels_(kernels),
      codes_(codes),
      directions_(sieve_.projection().packed(kernels)),
      bounds_(static_cast<size_t>(kGroupRows)) {}

const std::vector<int32_t>& SieveSearch::run(QueryBlock& block) {
  encode(block);
  left_.clear();
  std::vector<bool> fit(static_cast<size_t>(block.n()));
  for (int64_t q = 0; q < block.n(); ++q) {
    fit[static_cast<size_t>(q)] = block.norm2(q) < kLargestCoordinate * kLargestCoordinate;
    if (!fit[static_cast<size_t>(q)]) left_.push_back(static_cast<int32_t>(q));
  }
  int64_t depth = std::min(kFirstDepth, sieve_.n_depths() - 1);
  int64_t earlier = 0;
  bool hopeful = true;
  for (const int64_t spacing : kSpacings) {
    Queries queries;
    for (int64_t q = 0; q < block.n(); q += spacing) {
      if ((earlier == 0 || q % earlier != 0) && fit[static_cast<size_t>(q)]) {
        queries.push_back(static_cast<int32_t>(q));
      }
    }
    if (hopeful && earlier != 0) {
      for (const int32_t q : queries) seed(block, q, earlier);
    }
    hopeful = hopeful && search(block, queries, depth);
    if (!hopeful) left_.insert(left_.end(), queries.begin(), queries.end());
    if (hopeful && spacing > 1 && !queries.empty()) depth = best_depth(block, queries);
    earlier = spacing;
  }
  return left_;
}

void SieveSearch::encode(const QueryBlock& block) {
  const auto n = static_cast<size_t>(block.n());
  const int64_t width = sieve_.width();
  coordinates_.resize(n * static_cast<size_t>(width));
  rests_.resize(n);
  wide_codes_.resize(n * static_cast<size_t>(width));
  wide_.resize(n);
  sieve_.projection().apply(kernels_, directions_, block.query(0), block.n(), index_.centre.data(),
                            scratch_, coordinates_.data());
  for (int64_t q = 0; q < block.n(); ++q) {
    const float* coordinates = coordinates_.data() + q * width;
    if (!(block.norm2(q) < kLargestCoordinate * kLargestCoordinate)) continue;
    rests_[static_cast<size_t>(q)] = sieve_.rests(coordinates, block.norm2(q));
    wide_[static_cast<size_t>(q)] = sieve_.encode_wide(coordinates, rests_[static_cast<size_t>(q)],
                                                       wide_codes_.data() + q * width);
  }
}

void SieveSearch::seed(QueryBlock& block, int64_t query, int64_t spacing) {
  int64_t rows[2 * (kMostNeighbours + kSpareRows)];
  int64_t n_rows = 0;
  const int64_t before = query - query % spacing;
  for (const int64_t neighbour : {before, std::min(before + spacing, block.n() - 1)}) {
    const NearestRows& nearest = block.nearest(neighbour);
    for (int32_t i = 0; i < nearest.count(); ++i) {
      if (std::find(rows, rows + n_rows, nearest.row(i)) == rows + n_rows) {
        rows[n_rows++] = nearest.row(i);
      }
    }
  }
  if (n_rows > 0) block.decide(query, rows, n_rows);
}

bool SieveSearch::search(QueryBlock& block, const Queries& queries, int64_t depth) {
  if (queries.empty()) return true;
  SievePass pass(sieve_, codes_, queries, depth, coordinates_.data(), rests_.data());
  matches_.resize(queries.size() * static_cast<size_t>(kGroupRows));
  Flow flow;
  constexpr int64_t kMostPanels = kGroupRows / kCodeRows;
  int64_t panels = 1;  // to match before the limits are taken anew
  for (const SieveGroup& group : sieve_.groups()) {
    const int64_t end = group.first_panel + group.n_panels;
    for (int64_t first = group.first_panel; first < end;) {
      pass.set_limits(block, group);
      n_matches_.assign(queries.size(), 0);
      for (int64_t p = first; p < std::min(first + panels, end); ++p) {
        pass.match(p, [&](int64_t place, int64_t slot) {
          int32_t& count = n_matches_[static_cast<size_t>(place)];
          matches_[static_cast<size_t>(place * kGroupRows + count++)] = static_cast<int32_t>(slot);
        });
        flow.pairs += sieve_.panel_rows(p) * static_cast<int64_t>(queries.size());
      }
      decide_matches(block, queries, flow);
      first += panels;
      panels = std::min(2 * panels, kMostPanels);
    }
    if (hopeless(flow, &group == &sieve_.groups().front())) return false;
  }
  return true;
}

void SieveSearch::decide_matches(QueryBlock& block, const Queries& queries, Flow& flow) {
  for (size_t place = 0; place < queries.size(); ++place) {
    if (n_matches_[place] == 0) continue;
    decide_matches_of(block, queries[place],
                      matches_.data() + place * static_cast<size_t>(kGroupRows), n_matches_[place],
                      flow);
  }
}

void SieveSearch::decide_matches_of(QueryBlock& block, int64_t query, int32_t* slots, int64_t n,
                                    Flow& flow) {
  const WideRow& wide = wide_[static_cast<size_t>(query)];
  const WideQuery coded = {wide_codes_.data() + query * sieve_.width(), wide.scale, wide.norm2,
                           wide.error};
  codes_.bounds(coded, sieve_.wide_codes(), sieve_.wide_rows(), slots, n, sieve_.width(),
                bounds_.data());
  // The float arithmetic of `bounds` is good to a few units of 2^-24.
  const auto reached = [&] { return block.reach(query) * (1.0 + 0x1p-20); };
  double reach = reached();
  candidates_.clear();
  for (int64_t i = 0; i < n; ++i) {
    const float bound = bounds_[static_cast<size_t>(i)];
    if (static_cast<double>(bound) <= reach) candidates_.emplace_back(bound, sieve_.row(slots[i]));
  }
  std::sort(candidates_.begin(), candidates_.end());
  flow.matched += n;
  for (size_t i = 0;
       i < candidates_.size() && static_cast<double>(candidates_[i].first) <= reach;) {
    int64_t rows[kMostNeighbours + kBatch];
    int64_t n_rows = 0;
    const int64_t batch =
        block.nearest(query).count() >= block.k() ? kBatch : std::max<int64_t>(kBatch, block.k());
    for (; n_rows < batch && i < candidates_.size(); ++i) rows[n_rows++] = candidates_[i].second;
    if (block.decide(query, rows, n_rows)) reach = reached();
    flow.decided += n_rows;
  }
}

// The cheapest depth for queries like these, whose limits are settled.
int64_t SieveSearch::best_depth(const QueryBlock& block, const Queries& queries) const {
  const auto n_panels = sieve_.n_panels();
  int64_t best = 0;
  double least = 0.0;
  for (int64_t depth = 0; depth < sieve_.n_depths(); ++depth) {
    SievePass pass(sieve_, codes_, queries, depth, coordinates_.data(), rests_.data());
    int64_t pairs = 0, matched = 0;
    for (int64_t i = 0; i < kSamplePanels; ++i) {
      const int64_t panel = (2 * i + 1) * n_panels / (2 * kSamplePanels);
      pass.set_limits(block, sieve_.group_of(panel));
      pass.match(panel, [&](int64_t, int64_t) { ++matched; });
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
  return best;
}

bool SieveSearch::hopeless(const Flow& flow, bool first_group) const {
  // In the first group there are no limits yet, so all rows match.
  const double matched = first_group ? 0.0 : kWideCost * static_cast<double>(flow.matched);
  const double decided = decide_cost(index_.dims) * static_cast<double>(flow.decided);
  return matched + decided > dense_cost(index_.dims) * static_cast<double>(flow.pairs);
}

}  // namespace kad
