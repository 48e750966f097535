// Queries that go through the narrow codes of a sieve together.
#pragma once

#include <cstdint>
#include <vector>

#include "code_kernels.hpp"
#include "query_block.hpp"
#include "sieve.hpp"

namespace kad {

class SievePass {
 public:
  /// Encode queries of a block for a depth. coordinates (n, width) and rests (n,) are those of the
  /// whole block.
  SievePass(const Sieve& sieve, const CodeKernels& kernels, const std::vector<int32_t>& queries,
            int64_t depth, const float* coordinates, const Rests* rests);

  /// Take each query's present limit, for the rows of a group.
  void set_limits(const QueryBlock& block, const SieveGroup& group);

  /// Call found(place, slot) for every pair that comes through, place < the number of queries.
  template <class F>
  void match(int64_t panel, F&& found) const {
    CodeTile tile = {};
    sieve_.aim(panel, depth_, tile);
    const uint64_t present = ~uint64_t{0} >> (64 - sieve_.panel_rows(panel));
    const auto n = static_cast<int64_t>(queries_.size());
    uint64_t masks[kCodeQueries];
    for (int64_t place = 0; place < n; place += kCodeQueries) {
      tile.queries = codes_.data() + place * (tile.steps + 1) * kStepDims;
      tile.slopes = slopes_.data() + place;
      tile.limits = limits_.data() + place;
      kernels_.match(tile, masks);
      for (int64_t i = 0; i < kCodeQueries; ++i) {
        for (uint64_t mask = masks[i] & present; mask != 0; mask &= mask - 1) {
          found(place + i, panel * kCodeRows + lowest_bit(mask));
        }
      }
    }
  }

 private:
  struct Encoded {  // of a query
    double scale;
    double norm2;   // of the decoded vector
    double raised;  // what raising the rows' codes by 128 adds to every product
    double error;
  };

  static int64_t lowest_bit(uint64_t mask) {
#if defined(__GNUC__)
    return __builtin_ctzll(mask);
#else
    int64_t bit = 0;
    while (((mask >> bit) & 1) == 0) ++bit;
    return bit;
#endif
  }

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
