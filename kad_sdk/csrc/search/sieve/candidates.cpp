#include "search/sieve/candidates.hpp"

#include <algorithm>
#include <cmath>

#include "base/prefetch.hpp"
#include "search/index.hpp"

namespace kad {
namespace {

constexpr int64_t kPrefetchBytes = 512;  // of a row: the processor goes on by itself
constexpr int64_t kScreenBatch = 64;     // pairs whose products are taken at once
constexpr double kUp = 1.0 + 0x1p-19;    // room for the float arithmetic of `screen`

}  // namespace

void Candidates::begin(const QueryBlock& block) {
  reaches_.resize(static_cast<size_t>(block.n()));
  first_.assign(static_cast<size_t>(block.n()), -1);
  candidates_.clear();
  active_.clear();
}

float Candidates::reach(const QueryBlock& block, int64_t query) const {
  const auto error = static_cast<double>(queries_.wide(query).error);
  return static_cast<float>(kUp * (block.reach(query) + error));
}

void Candidates::set_reaches(const QueryBlock& block) {
  for (int64_t q = 0; q < block.n(); ++q) reaches_[static_cast<size_t>(q)] = reach(block, q);
}

void Candidates::screen(const CodePair* pairs, int64_t n) {
  const int64_t width = sieve_.width();
  const int64_t row_bytes =
      std::min(index_.dims * static_cast<int64_t>(sizeof(float)), kPrefetchBytes);
  int32_t products[kScreenBatch];
  for (int64_t begin = 0; begin < n; begin += kScreenBatch, pairs += kScreenBatch) {
    const int64_t count = std::min(kScreenBatch, n - begin);
    sieve_.codes().pair_products(queries_.wide_codes(), sieve_.wide_codes(), pairs, count, width,
                                 products);
    for (int64_t i = 0; i < count; ++i) {
      const auto q = static_cast<size_t>(pairs[i].query);
      const WideVector& query = queries_.wide(pairs[i].query);
      const WideVector& row = sieve_.wide_row(pairs[i].slot);
      const float reach = reaches_[q] + row.error;
      const float product = 2.0F * query.scale * row.scale * static_cast<float>(products[i]);
      const float distance2 = (query.norm2 + row.norm2) - product;
      if (distance2 > reach * reach) continue;
      const float bound = std::sqrt(std::max(0.0F, distance2)) - row.error;
      const int32_t row_number = sieve_.row(pairs[i].slot);
      prefetch_far(index_.row(row_number), row_bytes);
      if (first_[q] < 0) active_.push_back(pairs[i].query);
      candidates_.push_back({bound, row_number, first_[q]});
      first_[q] = static_cast<int32_t>(candidates_.size()) - 1;
    }
  }
}

// One row of each query at a time, so that limits tighten on the way and distances of many queries
// are computed side by side.
int64_t Candidates::decide(QueryBlock& block) {
  for (const int32_t q : active_) sort(q);
  int64_t n_decided = 0;
  while (!active_.empty()) {
    decided_.clear();
    for (const int32_t q : active_) {
      int32_t& next = first_[static_cast<size_t>(q)];
      const float limit = reach(block, q);
      int32_t missing = std::max(block.k() - block.nearest(q).count(), 1);
      while (next >= 0 && missing-- > 0) {
        const Candidate& candidate = candidates_[static_cast<size_t>(next)];
        const bool within = candidate.bound <= limit;
        if (within) decided_.push_back({q, candidate.row});
        next = within ? candidate.next : -1;
      }
    }
    block.decide(decided_.data(), static_cast<int64_t>(decided_.size()));
    n_decided += static_cast<int64_t>(decided_.size());
    active_.erase(std::remove_if(active_.begin(), active_.end(),
                                 [&](int32_t q) { return first_[static_cast<size_t>(q)] < 0; }),
                  active_.end());
  }
  candidates_.clear();
  return n_decided;
}

// Link a query's candidates by rising bound.
void Candidates::sort(int32_t query) {
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

}  // namespace kad
