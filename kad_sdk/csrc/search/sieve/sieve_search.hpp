// The search through a sieve: narrow codes for all rows, wide codes for those that come through,
// the defined arithmetic for those that come through these too.
#pragma once

#include <cstdint>
#include <vector>

#include "search/sieve/candidates.hpp"
#include "search/sieve/code_kernels.hpp"
#include "search/sieve/narrow_pass.hpp"
#include "search/sieve/query_block.hpp"
#include "search/sieve/query_coordinates.hpp"
#include "search/sieve/query_grid.hpp"
#include "search/sieve/seeds.hpp"
#include "search/sieve/sieve.hpp"
#include "search/statistics.hpp"

namespace kad {

class SieveSearch {
 public:
  SieveSearch(const kad_index& index, const SearchKernels& kernels, Tally& tally);

  /// Find the nearest rows of the block's queries: plain vectors, or the patches of a window with
  /// coarse maps below them. Returns those it left, because one of them is of extreme size or
  /// because so much comes through that products of all rows are cheaper; the rows that were found
  /// for them so far stay.
  const std::vector<int32_t>& run(QueryBlock& block, const CoarseWindow* coarse);

 private:
  using Queries = std::vector<int32_t>;

  /// Pairs that were compared, that came through the narrow codes, and that were decided.
  struct Trial {
    int64_t pairs;
    int64_t matched;
    int64_t decided;
  };

  void take_seeds(QueryBlock& block);
  int32_t fitting_exponent(const QueryBlock& block, const Queries& queries, double share) const;
  int64_t best_depth(QueryBlock& block, const Queries& queries, int32_t exponent, double dim_share);
  Trial try_depth(QueryBlock& block, const Queries& sample, int32_t exponent, int64_t depth,
                  bool decides);
  void search(QueryBlock& block, NarrowPass& pass);
  bool hopeless(int64_t pairs, int64_t matched, int64_t decided) const;
  void leave(const NarrowPass& pass);
  void leave_missing(const QueryBlock& block);

  const kad_index& index_;
  const Sieve& sieve_;
  Tally& tally_;
  double dense_cost_;  // of a pair in the product of all rows, in cycles
  QueryCoordinates queries_;
  Seeds seeds_;
  Candidates candidates_;
  std::vector<CodePair> matches_;  // that the narrow codes leave
  Queries left_;
};

}  // namespace kad
