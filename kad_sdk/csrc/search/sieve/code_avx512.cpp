// Code kernels for AVX-512 without VNNI: codes are widened to 16 bits before they are multiplied.
#include "search/sieve/code_avx512.hpp"

#include "search/sieve/code_encode.hpp"
#include "search/sieve/code_pairs.hpp"
#include "search/sieve/code_sums.hpp"

namespace kad {
namespace {

struct Step {
  static inline __attribute__((always_inline)) void add(const uint8_t* rows, const int8_t* queries,
                                                        CodeSums& sums) {
    __m512i even[kCodeVectors], odd[kCodeVectors];  // codes 0 and 2 of every group of 4; 1 and 3
#pragma GCC unroll 3
    for (int v = 0; v < kCodeVectors; ++v) {
      const __m512i codes = _mm512_loadu_si512(rows + 64 * v);
      even[v] = _mm512_and_si512(codes, _mm512_set1_epi16(0x00FF));
      odd[v] = _mm512_srli_epi16(codes, 8);
    }
#pragma GCC unroll 8
    for (int64_t q = 0; q < kCodeQueries; ++q) {
      const __m512i query = broadcast_step(queries + q * kStepDims);
      const __m512i query_even = _mm512_srai_epi16(_mm512_slli_epi16(query, 8), 8);
      const __m512i query_odd = _mm512_srai_epi16(query, 8);
#pragma GCC unroll 3
      for (int v = 0; v < kCodeVectors; ++v) {
        const __m512i products = _mm512_add_epi32(_mm512_madd_epi16(even[v], query_even),
                                                  _mm512_madd_epi16(odd[v], query_odd));
        sums[q][v] = _mm512_add_epi32(sums[q][v], products);
      }
    }
  }
};

void match(const CodeTile& tile, uint64_t* masks) { match_with<Step>(tile, masks); }

void multiply_pairs(const int16_t* const* queries, const int16_t* const* rows, int64_t width,
                    int32_t* products) {
  __m512i sums[kPairs];
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < width; i += kWideBlock) {
    for (int p = 0; p < kPairs; ++p) {
      const __m512i query = _mm512_loadu_si512(queries[p] + i);
      const __m512i row = _mm512_loadu_si512(rows[p] + i);
      sums[p] = _mm512_add_epi32(sums[p], _mm512_madd_epi16(query, row));
    }
  }
  __m256i halves[kPairs];
  for (int p = 0; p < kPairs; ++p) {
    halves[p] =
        _mm256_add_epi32(_mm512_castsi512_si256(sums[p]), _mm512_extracti64x4_epi64(sums[p], 1));
  }
  store_sums(halves, products);
}

void pair_products(const int16_t* queries, const int16_t* rows, const CodePair* pairs, int64_t n,
                   int64_t width, int32_t* products) {
  products_with(multiply_pairs, queries, rows, pairs, n, width, products);
}

struct Pair {
  static inline __attribute__((always_inline)) void add(__m512i vector, __m512i column,
                                                        __m512i& sums) {
    sums = _mm512_add_epi32(sums, _mm512_madd_epi16(vector, column));
  }
};

void project(const int16_t* vectors, const int16_t* columns, int64_t pairs, int32_t* out,
             int64_t out_stride) {
  project_with<Pair>(vectors, columns, pairs, out, out_stride);
}

}  // namespace

const CodeKernels kAvx512CodeKernels = {0.25,          match,       pair_products,    project,
                                        encode_narrow, encode_wide, largest_magnitude};

}  // namespace kad
