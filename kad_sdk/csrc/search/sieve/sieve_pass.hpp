// Queries that go through the narrow codes of a sieve together.
#pragma once

#include <cstdint>
#include <vector>

#include "search/sieve/code_kernels.hpp"
#include "search/sieve/query_block.hpp"
#include "search/sieve/sieve.hpp"

namespace kad {

class SievePass {
 public:
  /// Encode queries of a block for a depth. coordinates (n, width) and rests (n,) are those of the
  /// whole block.
  SievePass(const Sieve& sieve, const CodeKernels& kernels, const std::vector<int32_t>& queries,
            int64_t depth, const float* coordinates, const Rests* rests);

  /// Take each query's present limit, for the rows of a group.
  void set_limits(const QueryBlock& block, const SieveGroup& group);

  /// Write the pairs of the panel's rows that come through and return their number. `out` takes
  /// kCodeRows pairs of each query.
  int64_t match(int64_t panel, CodePair* out) const;

 private:
  struct Encoded {  // of a query
    double scale;
    double norm2;   // of the decoded vector
    double raised;  // what raising the rows' codes by 128 adds to every product
    double error;
  };

  void encode(int64_t place, const float* coordinates, const Rests& rests);

  const Sieve& sieve_;
  const CodeKernels& kernels_;
  const std::vector<int32_t>& queries_;
  int64_t depth_;
  std::vector<int8_t> codes_;  // (tiles, steps, kCodeQueries, kStepDims)
  std::vector<float> slopes_;  // (places,)
  std::vector<float> limits_;  // (places,)
  std::vector<Encoded> encoded_;
};

}  // namespace kad
