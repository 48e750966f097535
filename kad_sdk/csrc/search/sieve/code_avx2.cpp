// Code kernels for AVX2. Narrow codes are widened to 16 bits before they are multiplied:
// vpmaddubsw would be shorter, but it saturates.
#include <immintrin.h>

#include "search/sieve/code_encode.hpp"
#include "search/sieve/code_kernels.hpp"
#include "search/sieve/code_pairs.hpp"
#include "search/sieve/code_sums.hpp"

namespace kad {
namespace {

constexpr int64_t kQueries = 4;  // of a part of the tile
constexpr int64_t kVectors = 2;  // of 8 rows
constexpr int64_t kStepBytes = kCodeRows * kStepDims;

// Codes 0 and 2 of every group of 4, as 16-bit numbers, and codes 1 and 3.
__m256i even_codes(__m256i rows) { return _mm256_and_si256(rows, _mm256_set1_epi16(0x00FF)); }
__m256i odd_codes(__m256i rows) { return _mm256_srli_epi16(rows, 8); }
__m256i even_signed(__m256i query) { return _mm256_srai_epi16(_mm256_slli_epi16(query, 8), 8); }
__m256i odd_signed(__m256i query) { return _mm256_srai_epi16(query, 8); }

__m256i broadcast_step(const void* codes) {
  int32_t step = 0;
  __builtin_memcpy(&step, codes, sizeof(step));
  return _mm256_set1_epi32(step);
}

void add_step(const uint8_t* rows, const int8_t* queries, __m256i sums[kQueries][kVectors]) {
  __m256i even[kVectors], odd[kVectors];
  for (int64_t v = 0; v < kVectors; ++v) {
    const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows + 32 * v));
    even[v] = even_codes(codes);
    odd[v] = odd_codes(codes);
  }
  for (int64_t q = 0; q < kQueries; ++q) {
    const __m256i query = broadcast_step(queries + q * kStepDims);
    const __m256i query_even = even_signed(query), query_odd = odd_signed(query);
    for (int64_t v = 0; v < kVectors; ++v) {
      const __m256i products = _mm256_add_epi32(_mm256_madd_epi16(even[v], query_even),
                                                _mm256_madd_epi16(odd[v], query_odd));
      sums[q][v] = _mm256_add_epi32(sums[q][v], products);
    }
  }
}

void match_part(const CodeTile& tile, int64_t first_query, int64_t first_row, uint64_t* masks) {
  __m256i sums[kQueries][kVectors];
  for (auto& row : sums) row[0] = row[1] = _mm256_setzero_si256();
  const uint8_t* rows = tile.rows + first_row * kStepDims;
  const int8_t* queries = tile.queries + first_query * kStepDims;
  for (int64_t step = 0; step < tile.steps; ++step) {
    add_step(rows, queries, sums);
    rows += kStepBytes;
    queries += kCodeQueries * kStepDims;
  }
  add_step(tile.last + first_row * kStepDims, queries, sums);
  for (int64_t q = 0; q < kQueries; ++q) {
    const __m256 slope = _mm256_set1_ps(tile.slopes[first_query + q]);
    const __m256 limit = _mm256_set1_ps(tile.limits[first_query + q]);
    for (int64_t v = 0; v < kVectors; ++v) {
      const __m256 terms = _mm256_loadu_ps(tile.row_terms + first_row + 8 * v);
      const __m256 least = _mm256_fmadd_ps(slope, terms, limit);
      const __m256 kept = _mm256_cmp_ps(_mm256_cvtepi32_ps(sums[q][v]), least, _CMP_GE_OQ);
      masks[first_query + q] |= static_cast<uint64_t>(_mm256_movemask_ps(kept))
                                << (first_row + 8 * v);
    }
  }
}

void match(const CodeTile& tile, uint64_t* masks) {
  for (int64_t q = 0; q < kCodeQueries; ++q) masks[q] = 0;
  for (int64_t r = 0; r < kCodeRows; r += 8 * kVectors) {
    for (int64_t q = 0; q < kCodeQueries; q += kQueries) match_part(tile, q, r, masks);
  }
}

void multiply_pairs(const int16_t* const* queries, const int16_t* const* rows, int64_t width,
                    int32_t* products) {
  __m256i sums[kPairs];
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t i = 0; i < width; i += 16) {
    for (int p = 0; p < kPairs; ++p) {
      const __m256i query = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(queries[p] + i));
      const __m256i row = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(rows[p] + i));
      sums[p] = _mm256_add_epi32(sums[p], _mm256_madd_epi16(query, row));
    }
  }
  store_sums(sums, products);
}

void pair_products(const int16_t* queries, const int16_t* rows, const CodePair* pairs, int64_t n,
                   int64_t width, int32_t* products) {
  products_with(multiply_pairs, queries, rows, pairs, n, width, products);
}

// kQueries vectors and 8 * kVectors columns.
void project_part(const int16_t* vectors, const int16_t* columns, int64_t pairs, int32_t* out,
                  int64_t out_stride) {
  __m256i sums[kQueries][kVectors];
  for (auto& row : sums) row[0] = row[1] = _mm256_setzero_si256();
  for (int64_t p = 0; p < pairs; ++p) {
    const __m256i column_0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns));
    const __m256i column_1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(columns + 16));
    for (int64_t v = 0; v < kQueries; ++v) {
      const __m256i pair = broadcast_step(vectors + 2 * v);
      sums[v][0] = _mm256_add_epi32(sums[v][0], _mm256_madd_epi16(pair, column_0));
      sums[v][1] = _mm256_add_epi32(sums[v][1], _mm256_madd_epi16(pair, column_1));
    }
    vectors += kCodeQueries * 2;
    columns += kProjectColumns * 2;
  }
  for (int64_t v = 0; v < kQueries; ++v) {
    auto* to = reinterpret_cast<__m256i*>(out + v * out_stride);
    _mm256_storeu_si256(to, sums[v][0]);
    _mm256_storeu_si256(to + 1, sums[v][1]);
  }
}

void project(const int16_t* vectors, const int16_t* columns, int64_t pairs, int32_t* out,
             int64_t out_stride) {
  for (int64_t c = 0; c < kProjectColumns; c += 8 * kVectors) {
    for (int64_t v = 0; v < kCodeQueries; v += kQueries) {
      project_part(vectors + 2 * v, columns + 2 * c, pairs, out + v * out_stride + c, out_stride);
    }
  }
}

}  // namespace

const CodeKernels kAvx2CodeKernels = {0.25,          match,       pair_products,    project,
                                      encode_narrow, encode_wide, largest_magnitude};

}  // namespace kad
