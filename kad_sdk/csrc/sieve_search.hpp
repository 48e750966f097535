// The search through a sieve: narrow codes for all rows, wide codes for those that come through,
// the defined arithmetic for those that come through these too.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "code_kernels.hpp"
#include "query_block.hpp"
#include "sieve.hpp"
#include "sieve_pass.hpp"

namespace kad {

class SieveSearch {
 public:
  SieveSearch(const kad_index& index, const SearchKernels& kernels, const CodeKernels& codes);

  /// Find the nearest rows of the block's queries. Returns those it left, because their values are
  /// of extreme size or because so much comes through that products of all rows are cheaper; the
  /// rows that were found for them so far stay.
  const std::vector<int32_t>& run(QueryBlock& block);

 private:
  using Queries = std::vector<int32_t>;
  struct Flow {  // what came through, of `pairs` pairs of a query and a row
    int64_t pairs = 0;
    int64_t matched = 0;
    int64_t decided = 0;
  };

  void encode(const QueryBlock& block);
  void seed(QueryBlock& block, int64_t query, int64_t spacing);
  bool search(QueryBlock& block, const Queries& queries, int64_t depth);
  void decide_matches(QueryBlock& block, const Queries& queries, Flow& flow);
  void decide_matches_of(QueryBlock& block, int64_t query, int32_t* slots, int64_t n, Flow& flow);
  int64_t best_depth(const QueryBlock& block, const Queries& queries) const;
  bool hopeless(const Flow& flow, bool first_group) const;

  const kad_index& index_;
  const Sieve& sieve_;
  const SearchKernels& kernels_;
  const CodeKernels& codes_;
  std::vector<float> directions_;  // packed for `kernels`
  std::vector<float> scratch_;
  std::vector<float> coordinates_;                     // (n, width)
  std::vector<Rests> rests_;                           // (n,)
  std::vector<int16_t> wide_codes_;                    // (n, width)
  std::vector<WideRow> wide_;                          // (n,)
  std::vector<int32_t> matches_;                       // (n, kGroupRows) slots
  std::vector<int32_t> n_matches_;                     // (n,)
  std::vector<float> bounds_;                          // (kGroupRows,)
  std::vector<std::pair<float, int64_t>> candidates_;  // bound, row
  Queries left_;
};

}  // namespace kad
