#include "search/dense_search.hpp"

#include <algorithm>
#include <limits>

namespace kad {
namespace {

constexpr int64_t kSeeds = 8;
constexpr int64_t kFew = 3;  // queries, for which packing a row costs more than their distances

}  // namespace

void DenseSearch::run(QueryBlock& block, const std::vector<int32_t>& queries) {
  if (queries.empty()) return;
  const auto n = static_cast<int64_t>(queries.size());
  if (n <= kFew) {
    decide_all(block, queries);
  } else {
    for (const int32_t q : queries) seed(block, q);
    prepare(block, queries);
    for (int64_t r = 0; r < index_.rows; r += kernels_.panel_rows) screen_panel(block, queries, r);
  }
  tally_.add(kDenseQueries, n);
  tally_.add(kDensePairs, n * index_.rows);
  tally_.lap(kDenseTime);
}

void DenseSearch::decide(QueryBlock& block, const RowPair* pairs, int64_t n) {
  block.decide(pairs, n);
  tally_.add(kDenseDecidedPairs, n);
}

void DenseSearch::decide_all(QueryBlock& block, const std::vector<int32_t>& queries) {
  RowPair pairs[kMaxPanelRows];
  for (int64_t first = 0; first < index_.rows; first += kMaxPanelRows) {
    const int64_t count = std::min(kMaxPanelRows, index_.rows - first);
    for (const int32_t q : queries) {
      for (int64_t i = 0; i < count; ++i) pairs[i] = {q, first + i};
      decide(block, pairs, count);
    }
  }
}

// A few rows spread over the bank give the first limit.
void DenseSearch::seed(QueryBlock& block, int32_t query) {
  if (block.nearest(query).count() >= block.k()) return;
  RowPair pairs[std::max<int64_t>(kSeeds, kMostNeighbours)];
  const int64_t n_seeds = std::min(index_.rows, std::max<int64_t>(kSeeds, block.k()));
  for (int64_t i = 0; i < n_seeds; ++i) pairs[i] = {query, i * (index_.rows / n_seeds)};
  decide(block, pairs, n_seeds);
}

void DenseSearch::prepare(QueryBlock& block, const std::vector<int32_t>& queries) {
  const int64_t dims = index_.dims, step = kernels_.tile_queries;
  const auto n = static_cast<int64_t>(queries.size());
  const int64_t padded = (n + step - 1) / step * step;
  panel_.resize(static_cast<size_t>(dims * kernels_.panel_rows));
  packed_.resize(static_cast<size_t>(padded * dims));
  terms_.assign(static_cast<size_t>(padded), std::numeric_limits<float>::infinity());
  std::vector<float> tile(static_cast<size_t>(step * dims));
  for (int64_t place = 0; place < n; place += step) {
    const int64_t count = std::min(step, n - place);
    for (int64_t i = 0; i < count; ++i) {
      const float* query = block.query(queries[static_cast<size_t>(place + i)]);
      std::copy_n(query, dims, tile.data() + i * dims);
    }
    kernels_.pack(tile.data(), dims, count, step, dims, index_.centre.data(),
                  packed_.data() + place * dims);
  }
  for (int64_t place = 0; place < n; ++place) {
    update_term(block, place, queries[static_cast<size_t>(place)]);
  }
}

void DenseSearch::screen_panel(QueryBlock& block, const std::vector<int32_t>& queries,
                               int64_t first_row) {
  const int64_t dims = index_.dims, step = kernels_.tile_queries;
  const auto n = static_cast<int64_t>(queries.size());
  const int64_t n_rows = std::min(kernels_.panel_rows, index_.rows - first_row);
  const uint64_t present = ~uint64_t{0} >> (64 - n_rows);
  kernels_.pack(index_.row(first_row), dims, n_rows, kernels_.panel_rows, dims,
                index_.centre.data(), panel_.data());
  uint64_t masks[kMaxTileQueries];
  for (int64_t place = 0; place < n; place += step) {
    kernels_.screen(packed_.data() + place * dims, panel_.data(), dims,
                    index_.row_terms.data() + first_row, terms_.data() + place, masks);
    for (int64_t i = place; i < std::min(place + step, n); ++i) {
      const int32_t query = queries[static_cast<size_t>(i)];
      RowPair pairs[kMaxPanelRows];
      int64_t count = 0;
      for (uint64_t mask = masks[i - place] & present, r = 0; mask != 0; mask >>= 1, ++r) {
        if ((mask & 1) != 0) pairs[count++] = {query, first_row + static_cast<int64_t>(r)};
      }
      if (count == 0) continue;
      decide(block, pairs, count);
      update_term(block, i, query);
    }
  }
}

void DenseSearch::update_term(const QueryBlock& block, int64_t place, int64_t query) {
  terms_[static_cast<size_t>(place)] =
      query_term(block.norm2(query), block.limit(query), index_.dims);
}

}  // namespace kad
