// CodeKernels::collect, for every level. Private to each file that includes it.
#pragma once

#include <cstdint>

#include "search/sieve/code_kernels.hpp"

namespace kad {
namespace {

// Few bits are set, in places that no branch could be predicted from: four pairs are always
// written, and as many kept as there are bits.
inline CodePair* collect(const uint32_t* masks, const int32_t* queries, int64_t n, uint32_t present,
                         int32_t first_slot, CodePair* out) {
  for (int64_t i = 0; i < n; ++i) {
    const int32_t query = queries[i];
    uint32_t mask = query < 0 ? 0 : masks[i] & present;
    int32_t left = __builtin_popcount(mask);
    do {
      for (int j = 0; j < 4; ++j) {
        out[j] = {query, first_slot + __builtin_ctz(mask | 0x80000000u)};
        mask &= mask - 1;
      }
      out += left < 4 ? left : 4;
      left -= 4;
    } while (left > 0);
  }
  return out;
}

}  // namespace
}  // namespace kad
