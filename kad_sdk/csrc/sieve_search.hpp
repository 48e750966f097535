// The search through a sieve: narrow codes for all rows, wide codes for those that come through,
// the defined arithmetic for those that come through these too.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "code_kernels.hpp"
#include "query_block.hpp"
#include "query_order.hpp"
#include "sieve.hpp"
#include "sieve_pass.hpp"

namespace kad {

class SieveSearch {
 public:
  SieveSearch(const kad_index& index, const CodeKernels& codes);

  /// Find the nearest rows of the block's queries. Returns those it left, because one of them is of
  /// extreme size or because so much comes through that products of all rows are cheaper; the
  /// rows that were found for them so far stay.
  const std::vector<int32_t>& run(QueryBlock& block);

 private:
  using Queries = std::vector<int32_t>;
  struct Candidate {
    float bound;
    int32_t row;
    bool operator<(const Candidate& other) const {
      return bound != other.bound ? bound < other.bound : row < other.row;
    }
  };
  struct Flow {  // what came through, of `pairs` pairs of a query and a row
    int64_t pairs = 0;
    int64_t matched = 0;
    int64_t decided = 0;
  };

  void encode(const QueryBlock& block);
  void seed(QueryBlock& block, int64_t query, const QueryRound& round);
  bool search(QueryBlock& block, const Queries& queries, int64_t depth);
  void decide_matches(QueryBlock& block, const Queries& queries, Flow& flow);
  void add_candidates(const QueryBlock& block, int64_t query, const int32_t* slots, int64_t n);
  static int64_t decide(QueryBlock& block, int64_t query, Candidate* begin, Candidate* end);
  static float reach(const QueryBlock& block, int64_t query);
  int64_t best_depth(const QueryBlock& block, const Queries& queries) const;
  bool hopeless(const Flow& flow, bool first_group) const;

  const kad_index& index_;
  const Sieve& sieve_;
  const CodeKernels& codes_;
  std::vector<float> coordinates_;     // (n, width)
  std::vector<float> errors_;          // (n,) of the coordinates
  std::vector<Rests> rests_;           // (n,)
  std::vector<int16_t> wide_codes_;    // (n, width)
  std::vector<WideRow> wide_;          // (n,)
  std::vector<int32_t> matches_;       // (n, kGroupRows) slots
  std::vector<int32_t> n_matches_;     // (n,)
  std::vector<float> bounds_;          // (kGroupRows,)
  std::vector<Candidate> candidates_;  // of query after query
  std::vector<size_t> ends_;           // of each query's candidates
  std::vector<uint8_t> searched_;      // (n,)
  Queries left_;
};

}  // namespace kad
