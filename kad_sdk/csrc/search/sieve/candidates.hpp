// Rows that may be near: screened by their wide codes, then decided from the nearest on.
#pragma once

#include <cstdint>
#include <vector>

#include "search/sieve/code_kernels.hpp"
#include "search/sieve/query_block.hpp"
#include "search/sieve/query_coordinates.hpp"
#include "search/sieve/sieve.hpp"

namespace kad {

class Candidates {
 public:
  Candidates(const kad_index& index, const QueryCoordinates& queries)
      : index_(index), sieve_(*index.sieve), queries_(queries) {}

  /// Begin with a block, of which nothing is known.
  void begin(const QueryBlock& block);

  /// Take every query's present limit.
  void set_reaches(const QueryBlock& block);

  /// Keep the pairs whose bound by the wide codes, |x~ - y~| - e_q - e_m, is within reach.
  void screen(const CodePair* pairs, int64_t n);

  /// How many are kept.
  int64_t n() const { return static_cast<int64_t>(candidates_.size()); }

  /// Decide what was kept, and forget it; the number of distances that it took.
  int64_t decide(QueryBlock& block);

 private:
  struct Candidate {
    float bound;
    int32_t row;
    int32_t next;  // the query's candidate before this one, or -1
  };

  float reach(const QueryBlock& block, int64_t query) const;
  void sort(int32_t query);

  const kad_index& index_;
  const Sieve& sieve_;
  const QueryCoordinates& queries_;
  std::vector<float> reaches_;  // (n,) where rows begin to be too far, less their own error
  std::vector<Candidate> candidates_;
  std::vector<int32_t> first_;    // (n,) each query's last candidate, or -1
  std::vector<int32_t> active_;   // queries that have candidates
  std::vector<int32_t> order_;    // scratch of sort
  std::vector<RowPair> decided_;  // scratch of decide
};

}  // namespace kad
