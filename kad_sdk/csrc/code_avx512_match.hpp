// CodeKernels::match for the two AVX-512 levels, around what differs: how a step is multiplied.
// Private to each file that includes it.
#pragma once

#include <immintrin.h>

#include "code_kernels.hpp"

namespace kad {
namespace {

constexpr int kCodeVectors = 3;  // of 16 rows
static_assert(kCodeRows == 16 * kCodeVectors && kCodeQueries == 8, "layout of the tile");

using CodeSums = __m512i[kCodeQueries][kCodeVectors];

/// The 4 codes of a query's step in every lane.
inline __m512i broadcast_step(const int8_t* codes) {
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
    Step::add(step < tile.steps ? rows : tile.rest, queries, sums);
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

}  // namespace
}  // namespace kad
