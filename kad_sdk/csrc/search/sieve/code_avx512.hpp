// Code kernels that the two AVX-512 levels share. Private to each file that includes it.
#pragma once

#include <immintrin.h>

#include "search/sieve/code_kernels.hpp"
#include "search/sieve/code_pairs.hpp"
#include "search/sieve/code_sums.hpp"

namespace kad {
namespace {

static_assert(kCodeRows == 32 && kCodeTile == 4, "layout of a panel and of a tile");

inline __m512i load(const void* from) { return _mm512_loadu_si512(from); }

/// Mixes of 32 products.
template <bool half>
inline __m512i mixed(__m512i near, __m512i far) {
  const __m512i middle = _mm512_avg_epu16(near, far);
  return half ? middle : _mm512_avg_epu16(middle, near);
}

template <bool half>
void mix_all(const uint16_t* near, const uint16_t* far, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; i += 32) {
    _mm512_storeu_si512(out + i, mixed<half>(load(near + i), load(far + i)));
  }
}

void mix(const uint16_t* near, const uint16_t* far, bool half, int64_t n, uint16_t* out) {
  (half ? mix_all<true> : mix_all<false>)(near, far, n, out);
}

/// Of a panel's terms the lower halves.
inline __m512i lower_terms(const int32_t* terms) {
  const __m256i first = _mm512_cvtepi32_epi16(load(terms));
  const __m256i second = _mm512_cvtepi32_epi16(load(terms + 16));
  return _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
}

void keep_best(const uint16_t* products, const int32_t* terms, int64_t n, uint16_t panel,
               int16_t* best, uint16_t* panels) {
  const __m512i number = _mm512_set1_epi16(static_cast<int16_t>(panel));
  const __m512i lower = lower_terms(terms);
  for (int64_t i = 0; i < n * kCodeRows; i += kCodeRows) {
    const __m512i value = _mm512_sub_epi16(load(products + i), lower);
    const __m512i old = load(best + i);
    const __mmask32 better = _mm512_cmpgt_epi16_mask(value, old);
    _mm512_storeu_si512(best + i, _mm512_max_epi16(value, old));
    _mm512_mask_storeu_epi16(panels + i, better, number);
  }
}

enum Mixing { kNone, kHalves, kQuarters };

/// The mixed products of a query, raised.
template <Mixing mixing>
inline __m512i mixed_products(const MatchTask& task, int64_t q) {
  const __m512i near = load(task.mixed + task.near[q] * kCodeRows);
  const __m512i far = load(task.mixed + task.far[q] * kCodeRows);
  return mixed<mixing == kHalves>(near, far);
}

/// Pair::add(query, row, sums) adds the products of two 16-bit codes in each lane.
template <class Pair>
void multiply_pairs(const int16_t* const* queries, const int16_t* const* rows, int64_t width,
                    int32_t* products) {
  __m512i sums[kPairs];
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  for (int64_t i = 0; i < width; i += kWideBlock) {
    for (int p = 0; p < kPairs; ++p) Pair::add(load(queries[p] + i), load(rows[p] + i), sums[p]);
  }
  __m256i halves[kPairs];
  for (int p = 0; p < kPairs; ++p) {
    halves[p] =
        _mm256_add_epi32(_mm512_castsi512_si256(sums[p]), _mm512_extracti64x4_epi64(sums[p], 1));
  }
  store_sums(halves, products);
}

}  // namespace
}  // namespace kad
