// Sums over the lanes of four registers, for the files compiled with AVX2 or more. Private to each
// file that includes it.
#pragma once

#include <immintrin.h>

#include <cstdint>

namespace kad {
namespace {

inline void store_sums(const __m256i sums[4], int32_t* out) {
  const __m256i pairs =
      _mm256_hadd_epi32(_mm256_hadd_epi32(sums[0], sums[1]), _mm256_hadd_epi32(sums[2], sums[3]));
  const __m128i total =
      _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), total);
}

}  // namespace
}  // namespace kad
