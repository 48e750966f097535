// Code kernels in plain C++.
#include "search/sieve/code_encode.hpp"
#include "search/sieve/code_kernels.hpp"
#include "search/sieve/code_pairs.hpp"

namespace kad {
namespace {

int32_t step_product(const uint8_t* row, const int8_t* query) {
  int32_t sum = 0;
  for (int64_t i = 0; i < kStepDims; ++i) sum += int32_t{row[i]} * int32_t{query[i]};
  return sum;
}

void match(const CodeTile& tile, uint64_t* masks) {
  for (int64_t q = 0; q < kCodeQueries; ++q) {
    masks[q] = 0;
    for (int64_t r = 0; r < kCodeRows; ++r) {
      const int8_t* query = tile.queries + q * kStepDims;
      int32_t product = 0;
      for (int64_t step = 0; step < tile.steps; ++step) {
        product += step_product(tile.rows + (step * kCodeRows + r) * kStepDims, query);
        query += kCodeQueries * kStepDims;
      }
      product += step_product(tile.last + r * kStepDims, query);
      const float limit = tile.slopes[q] * tile.row_terms[r] + tile.limits[q];
      masks[q] |= static_cast<uint64_t>(static_cast<float>(product) >= limit) << r;
    }
  }
}

void multiply_pairs(const int16_t* const* queries, const int16_t* const* rows, int64_t width,
                    int32_t* products) {
  for (int64_t p = 0; p < kPairs; ++p) {
    int32_t sum = 0;
    for (int64_t i = 0; i < width; ++i) sum += int32_t{queries[p][i]} * int32_t{rows[p][i]};
    products[p] = sum;
  }
}

void pair_products(const int16_t* queries, const int16_t* rows, const CodePair* pairs, int64_t n,
                   int64_t width, int32_t* products) {
  products_with(multiply_pairs, queries, rows, pairs, n, width, products);
}

void project(const int16_t* vectors, const int16_t* columns, int64_t pairs, int32_t* out,
             int64_t out_stride) {
  for (int64_t v = 0; v < kCodeQueries; ++v) {
    int32_t sums[kProjectColumns] = {};
    for (int64_t p = 0; p < pairs; ++p) {
      const int16_t* pair = vectors + (p * kCodeQueries + v) * 2;
      const int16_t* row = columns + p * kProjectColumns * 2;
      for (int64_t c = 0; c < kProjectColumns; ++c) {
        sums[c] +=
            int32_t{pair[0]} * int32_t{row[2 * c]} + int32_t{pair[1]} * int32_t{row[2 * c + 1]};
      }
    }
    for (int64_t c = 0; c < kProjectColumns; ++c) out[v * out_stride + c] = sums[c];
  }
}

}  // namespace

const CodeKernels kScalarCodeKernels = {4.0,           match,       pair_products,    project,
                                        encode_narrow, encode_wide, largest_magnitude};

}  // namespace kad
