// CodeKernels::match and ::project for the two AVX-512 levels, around what differs: how codes are
// multiplied. Private to each file that includes it.
#pragma once

#include <immintrin.h>

#include "search/sieve/code_kernels.hpp"

namespace kad {
namespace {

constexpr int kCodeVectors = 3;  // of 16 rows
static_assert(kCodeRows == 16 * kCodeVectors && kCodeQueries == 8, "layout of the tile");

using CodeSums = __m512i[kCodeQueries][kCodeVectors];

/// 4 bytes of codes in every lane.
inline __m512i broadcast_step(const void* codes) {
  int32_t step = 0;
  __builtin_memcpy(&step, codes, sizeof(step));
  return _mm512_set1_epi32(step);
}

/// Step::add(rows, queries, sums) adds the products of one step.
template <class Step>
inline __attribute__((always_inline)) void match_with(const CodeTile& tile, uint64_t* masks) {
  CodeSums sums;
#pragma GCC unroll 8
  for (int64_t q = 0; q < kCodeQueries; ++q) {
#pragma GCC unroll 3
    for (int v = 0; v < kCodeVectors; ++v) sums[q][v] = _mm512_setzero_si512();
  }
  const uint8_t* rows = tile.rows;
  const int8_t* queries = tile.queries;
  for (int64_t step = 0; step <= tile.steps; ++step) {
    Step::add(step < tile.steps ? rows : tile.last, queries, sums);
    rows += kCodeRows * kStepDims;
    queries += kCodeQueries * kStepDims;
  }
#pragma GCC unroll 8
  for (int64_t q = 0; q < kCodeQueries; ++q) {
    const __m512 slope = _mm512_set1_ps(tile.slopes[q]), limit = _mm512_set1_ps(tile.limits[q]);
    uint64_t mask = 0;
#pragma GCC unroll 3
    for (int v = 0; v < kCodeVectors; ++v) {
      const __m512 terms = _mm512_loadu_ps(tile.row_terms + 16 * v);
      const __m512 least = _mm512_fmadd_ps(slope, terms, limit);
      const __mmask16 kept = _mm512_cmp_ps_mask(_mm512_cvtepi32_ps(sums[q][v]), least, _CMP_GE_OQ);
      mask |= static_cast<uint64_t>(kept) << (16 * v);
    }
    masks[q] = mask;
  }
}

/// Pair::add(vector, column, sums) adds the products of two 16-bit codes.
template <class Pair>
inline __attribute__((always_inline)) void project_with(const int16_t* vectors,
                                                        const int16_t* columns, int64_t pairs,
                                                        int32_t* out, int64_t out_stride) {
  static_assert(kProjectColumns == 32, "two registers of columns");
  __m512i sums[kCodeQueries][2];
#pragma GCC unroll 8
  for (int64_t v = 0; v < kCodeQueries; ++v) sums[v][0] = sums[v][1] = _mm512_setzero_si512();
  for (int64_t p = 0; p < pairs; ++p) {
    const __m512i column_0 = _mm512_loadu_si512(columns);
    const __m512i column_1 = _mm512_loadu_si512(columns + 32);
#pragma GCC unroll 8
    for (int64_t v = 0; v < kCodeQueries; ++v) {
      const __m512i vector = broadcast_step(vectors + 2 * v);
      Pair::add(vector, column_0, sums[v][0]);
      Pair::add(vector, column_1, sums[v][1]);
    }
    vectors += kCodeQueries * 2;
    columns += kProjectColumns * 2;
  }
#pragma GCC unroll 8
  for (int64_t v = 0; v < kCodeQueries; ++v) {
    _mm512_storeu_si512(out + v * out_stride, sums[v][0]);
    _mm512_storeu_si512(out + v * out_stride + 16, sums[v][1]);
  }
}

}  // namespace
}  // namespace kad
