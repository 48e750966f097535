// The search without a sieve: float32 products of the queries with every row (bound: index.hpp),
// or, of a few queries, all distances.
#pragma once

#include <cstdint>
#include <vector>

#include "search/sieve/query_block.hpp"
#include "search/statistics.hpp"

namespace kad {

class DenseSearch {
 public:
  DenseSearch(const kad_index& index, const SearchKernels& kernels, Tally& tally)
      : index_(index), kernels_(kernels), tally_(tally) {}

  /// Find the nearest rows of these queries of the block.
  void run(QueryBlock& block, const std::vector<int32_t>& queries);

 private:
  void prepare(QueryBlock& block, const std::vector<int32_t>& queries);
  void decide(QueryBlock& block, const RowPair* pairs, int64_t n);
  void decide_all(QueryBlock& block, const std::vector<int32_t>& queries);
  void seed(QueryBlock& block, int32_t query);
  void screen_panel(QueryBlock& block, const std::vector<int32_t>& queries, int64_t first_row);
  void update_term(const QueryBlock& block, int64_t place, int64_t query);

  const kad_index& index_;
  const SearchKernels& kernels_;
  Tally& tally_;
  std::vector<float> packed_;  // (n / tile_queries, D, tile_queries), centred
  std::vector<float> panel_;   // (D, panel_rows), centred
  std::vector<float> terms_;   // (n,) of the screening bound
};

}  // namespace kad
