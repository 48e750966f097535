// CodeKernels::pair_products around a function that multiplies 4 pairs. Private to each file that
// includes it.
#pragma once

#include <cstdint>

#include "search/sieve/code_kernels.hpp"

namespace kad {
namespace {

constexpr int kPairs = 4;

/// multiply(queries, rows, width, products) takes kPairs pointers to codes of each kind.
template <class Multiply>
inline void products_with(const Multiply& multiply, const int16_t* queries, const int16_t* rows,
                          const CodePair* pairs, int64_t n, int64_t width, int32_t* products) {
  for (int64_t first = 0; first < n; first += kPairs) {
    const int16_t *query[kPairs], *row[kPairs];
    for (int64_t i = 0; i < kPairs; ++i) {
      const CodePair& pair = pairs[first + i < n ? first + i : first];
      query[i] = queries + pair.query * width;
      row[i] = rows + pair.slot * width;
    }
    int32_t four[kPairs];
    multiply(query, row, width, four);
    for (int64_t i = 0; i < kPairs && first + i < n; ++i) products[first + i] = four[i];
  }
}

}  // namespace
}  // namespace kad
