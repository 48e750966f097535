#include "sieve_search.hpp"

#include <algorithm>
#include <cmath>

#include "index.hpp"

namespace kad {
namespace {

constexpr int64_t kFirstDepth = 2;     // depth before anything is known
constexpr int64_t kSamplePanels = 4;   // panels on which depths are compared,
constexpr size_t kSampleQueries = 64;  // and queries
constexpr int64_t kBatch = 2;          // rows decided between two looks at the limit

// Costs of a pair in each stage, in cycles.
constexpr double kWideCost = 18.0;
double decide_cost(int64_t dims) { return 20.0 + 0.25 * static_cast<double>(dims); }
double dense_cost(int64_t dims) { return static_cast<double>(dims) / 16.0; }

void prefetch(const void* memory, int64_t bytes) {
#if defined(__GNUC__)
  const char* begin = static_cast<const char*>(memory);
  for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(begin + i);
#else
  (void)memory;
  (void)bytes;
#endif
}

}  // namespace

SieveSearch::SieveSearch(const kad_index& index, const CodeKernels& codes)
    : index_(index),
      sieve_(*index.sieve),
      codes_(codes),
      bounds_(static_cast<size_t>(kGroupRows)) {}

const std::vector<int32_t>& SieveSearch::run(QueryBlock& block) {
  left_.clear();
  bool hopeful =
      *std::max_element(block.norms2(), block.norms2() + block.n()) < kLongest * kLongest;
  if (hopeful) encode(block);
  int64_t depth = std::min(kFirstDepth, sieve_.n_depths() - 1);
  searched_.assign(static_cast<size_t>(block.n()), 0);
  const int64_t row = hopeful ? row_length(coordinates_.data(), block.n(), sieve_.width()) : 1;
  for (const QueryRound& round : query_rounds(block.n(), row)) {
    if (hopeful) {
      for (const int32_t q : round.queries) seed(block, q, round);
      hopeful = search(block, round.queries, depth);
    }
    if (!hopeful) left_.insert(left_.end(), round.queries.begin(), round.queries.end());
    for (const int32_t q : round.queries) searched_[static_cast<size_t>(q)] = 1;
    if (hopeful && round.queries.size() >= kSampleQueries / 4)
      depth = best_depth(block, round.queries);
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

// The nearest rows of the neighbours give the first limit.
void SieveSearch::seed(QueryBlock& block, int64_t query, const QueryRound& round) {
  int32_t slots[4 * (kMostNeighbours + kSpareRows)];
  int64_t n = 0;
  for (const int64_t offset : round.neighbours) {
    const int64_t neighbour = query + offset;
    if (neighbour < 0 || neighbour >= block.n() || searched_[static_cast<size_t>(neighbour)] == 0) {
      continue;
    }
    const NearestRows& nearest = block.nearest(neighbour);
    for (int32_t i = 0; i < nearest.count(); ++i) {
      const int32_t slot = sieve_.slot(nearest.row(i));
      if (std::find(slots, slots + n, slot) == slots + n) slots[n++] = slot;
    }
  }
  candidates_.clear();
  add_candidates(block, query, slots, n);
  decide(block, query, candidates_.data(), candidates_.data() + candidates_.size());
}

bool SieveSearch::search(QueryBlock& block, const Queries& queries, int64_t depth) {
  if (queries.empty()) return true;
  SievePass pass(sieve_, codes_, queries, depth, coordinates_.data(), rests_.data());
  matches_.resize(queries.size() * static_cast<size_t>(kGroupRows));
  const int64_t code_bytes = sieve_.width() * static_cast<int64_t>(sizeof(int16_t));
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
          prefetch(sieve_.wide_codes() + slot * sieve_.width(), code_bytes);
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

// First the wide codes of all queries, which bring the rows that are left into the cache, then
// those rows.
void SieveSearch::decide_matches(QueryBlock& block, const Queries& queries, Flow& flow) {
  candidates_.clear();
  ends_.clear();
  for (size_t place = 0; place < queries.size(); ++place) {
    add_candidates(block, queries[place], matches_.data() + place * static_cast<size_t>(kGroupRows),
                   n_matches_[place]);
    ends_.push_back(candidates_.size());
    flow.matched += n_matches_[place];
  }
  size_t begin = 0;
  for (size_t place = 0; place < queries.size(); begin = ends_[place++]) {
    flow.decided += decide(block, queries[place], candidates_.data() + begin,
                           candidates_.data() + ends_[place]);
  }
}

// The float arithmetic of `bounds` is good to a few units of 2^-24.
float SieveSearch::reach(const QueryBlock& block, int64_t query) {
  return static_cast<float>(block.reach(query) * (1.0 + 0x1p-20));
}

void SieveSearch::add_candidates(const QueryBlock& block, int64_t query, const int32_t* slots,
                                 int64_t n) {
  if (n == 0) return;
  const WideRow& wide = wide_[static_cast<size_t>(query)];
  const WideQuery coded = {wide_codes_.data() + query * sieve_.width(), wide.scale, wide.norm2,
                           wide.error};
  codes_.bounds(coded, sieve_.wide_codes(), sieve_.wide_rows(), slots, n, sieve_.width(),
                bounds_.data());
  const float limit = reach(block, query);
  for (int64_t i = 0; i < n; ++i) {
    const float bound = bounds_[static_cast<size_t>(i)];
    if (!(bound <= limit)) continue;
    const int32_t row = sieve_.row(slots[i]);
    candidates_.push_back({bound, row});
    prefetch(index_.row(row), index_.dims * static_cast<int64_t>(sizeof(float)));
  }
}

int64_t SieveSearch::decide(QueryBlock& block, int64_t query, Candidate* begin, Candidate* end) {
  if (begin == end) return 0;
  std::sort(begin, end);
  int64_t decided = 0;
  float limit = reach(block, query);
  while (begin != end && begin->bound <= limit) {
    int64_t rows[kMostNeighbours];
    int64_t n = 0;
    const int64_t most = block.nearest(query).count() < block.k() ? block.k() : kBatch;
    for (; n < most && begin != end && begin->bound <= limit; ++begin) rows[n++] = begin->row;
    if (block.decide(query, rows, n)) limit = reach(block, query);
    decided += n;
  }
  return decided;
}

// The cheapest depth for queries like these, whose limits are settled.
int64_t SieveSearch::best_depth(const QueryBlock& block, const Queries& all) const {
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
