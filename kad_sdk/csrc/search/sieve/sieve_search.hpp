// The search through a sieve: narrow codes for all rows, wide codes for those that come through,
// the defined arithmetic for those that come through these too.
#pragma once

#include <cstdint>
#include <vector>

#include "search/sieve/code_kernels.hpp"
#include "search/sieve/query_block.hpp"
#include "search/sieve/query_order.hpp"
#include "search/sieve/sieve.hpp"
#include "search/sieve/sieve_pass.hpp"
#include "search/statistics.hpp"

namespace kad {

class SieveSearch {
 public:
  SieveSearch(const kad_index& index, const CodeKernels& codes, Tally& tally);

  /// Find the nearest rows of the block's queries. Returns those it left, because one of them is of
  /// extreme size or because so much comes through that products of all rows are cheaper; the
  /// rows that were found for them so far stay.
  const std::vector<int32_t>& run(QueryBlock& block);

 private:
  using Queries = std::vector<int32_t>;

  struct Candidate {  // a row that the wide codes leave to a query
    float bound;
    int32_t row;
    int32_t next;  // the query's candidate before this one, or -1
  };

  struct Flow {  // what came through one pass, of `pairs` pairs of a query and a row
    int64_t pairs = 0;
    int64_t matched = 0;
    int64_t decided = 0;
  };

  void encode(const QueryBlock& block);
  void seed(QueryBlock& block, const QueryRound& round);
  void add_seeds(const QueryBlock& block, int32_t query, const QueryRound& round);
  bool search(QueryBlock& block, const Queries& queries, int64_t depth);
  void set_reaches(const QueryBlock& block, const Queries& queries);
  void screen_matches();
  void decide(QueryBlock& block, const Queries& queries, Flow& flow);
  void sort_candidates(int32_t query);
  int64_t best_depth(const QueryBlock& block, const Queries& queries);
  bool hopeless(const Flow& flow) const;

  const kad_index& index_;
  const Sieve& sieve_;
  const CodeKernels& codes_;
  Tally& tally_;
  std::vector<float> coordinates_;   // (n, width)
  std::vector<float> errors_;        // (n,) of the coordinates
  std::vector<Rests> rests_;         // (n,)
  std::vector<int16_t> wide_codes_;  // (n, width)
  std::vector<WideVector> wide_;     // (n,)
  std::vector<float> reaches_;       // (n,) where rows begin to be too far, less their error
  std::vector<CodePair> matches_;    // that the narrow codes leave
  int64_t n_matches_ = 0;
  std::vector<Candidate> candidates_;
  std::vector<int32_t> first_;     // (n,) each query's last candidate, or -1
  std::vector<int32_t> order_;     // scratch of sort_candidates
  std::vector<RowPair> decided_;   // scratch of decide
  std::vector<uint8_t> searched_;  // (n,)
  Queries left_;
};

}  // namespace kad
