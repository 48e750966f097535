// Code kernels for AVX2.
//
// vpmaddubsw adds two products into 16 bits and saturates, so a query's codes keep to 6 bits and a
// sign: 2 * 254 * 63 < 2^15. Sums are then modulo 2^16, which takes no further instruction.
#include <immintrin.h>

#include "search/sieve/code_collect.hpp"
#include "search/sieve/code_encode.hpp"
#include "search/sieve/code_kernels.hpp"
#include "search/sieve/code_pairs.hpp"
#include "search/sieve/code_sums.hpp"

namespace kad {
namespace {

constexpr int64_t kStepDims = 2;
constexpr int64_t kVectors = 2;  // of 16 rows
static_assert(kCodeRows == 16 * kVectors, "layout of a panel");

using Sums = __m256i[kCodeTile][kVectors];

inline __m256i load(const void* from) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

inline void store(void* to, __m256i value) {
  _mm256_storeu_si256(static_cast<__m256i*>(to), value);
}

// As _mm256_add_epi16(sums, _mm256_maddubs_epi16(rows, query)), whose sums GCC 12 copies around and
// spills: two thirds of the speed.
inline __attribute__((always_inline)) void multiply_add(__m256i rows, __m256i query,
                                                        __m256i& sums) {
  __m256i products;
  __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
          : "+x"(sums), "=&x"(products)
          : "x"(rows), "x"(query));
}

inline __attribute__((always_inline)) void add_products(const PanelCodes& rows,
                                                        const int8_t* queries, Sums& sums) {
  for (int piece = 0; piece < 2; ++piece) {
    const uint8_t* codes = rows.piece[piece];
    const uint8_t* end = codes + rows.steps[piece] * kCodeRows * kStepDims;
    for (; codes != end; codes += kCodeRows * kStepDims, queries += kCodeTile * kStepDims) {
      const __m256i rows_0 = load(codes), rows_1 = load(codes + 32);
#pragma GCC unroll 4
      for (int64_t q = 0; q < kCodeTile; ++q) {
        int16_t step = 0;
        __builtin_memcpy(&step, queries + q * kStepDims, sizeof(step));
        const __m256i query = _mm256_set1_epi16(step);
        multiply_add(rows_0, query, sums[q][0]);
        multiply_add(rows_1, query, sums[q][1]);
      }
    }
  }
}

void products(const PanelCodes& rows, const int8_t* vectors, const int16_t* starts, int64_t n,
              uint16_t* out) {
  const int64_t tile_bytes = (rows.steps[0] + rows.steps[1]) * kCodeTile * kStepDims;
  for (int64_t i = 0; i < n; i += kCodeTile, vectors += tile_bytes) {
    Sums sums;
#pragma GCC unroll 4
    for (int64_t q = 0; q < kCodeTile; ++q)
      sums[q][0] = sums[q][1] = _mm256_set1_epi16(starts[i + q]);
    add_products(rows, vectors, sums);
#pragma GCC unroll 4
    for (int64_t q = 0; q < kCodeTile; ++q) {
      store(out + (i + q) * kCodeRows, sums[q][0]);
      store(out + (i + q) * kCodeRows + 16, sums[q][1]);
    }
  }
}

template <bool half>
inline __m256i mixed(__m256i near, __m256i far) {
  const __m256i middle = _mm256_avg_epu16(near, far);
  return half ? middle : _mm256_avg_epu16(middle, near);
}

template <bool half>
void mix_all(const uint16_t* near, const uint16_t* far, int64_t n, uint16_t* out) {
  for (int64_t i = 0; i < n; i += 16) store(out + i, mixed<half>(load(near + i), load(far + i)));
}

void mix(const uint16_t* near, const uint16_t* far, bool half, int64_t n, uint16_t* out) {
  (half ? mix_all<true> : mix_all<false>)(near, far, n, out);
}

// Of 16 terms the lower halves.
inline __m256i lower_terms(const int32_t* terms) {
  const __m256i halves = _mm256_set1_epi32(0xFFFF);
  const __m256i both = _mm256_packus_epi32(_mm256_and_si256(load(terms), halves),
                                           _mm256_and_si256(load(terms + 8), halves));
  return _mm256_permute4x64_epi64(both, 0xD8);
}

enum Mixing { kNone, kHalves, kQuarters };

template <Mixing mixing>
inline __attribute__((always_inline)) void start(const MatchTask& task, int64_t q,
                                                 const __m256i terms[kVectors],
                                                 __m256i sums[kVectors]) {
#pragma GCC unroll 2
  for (int64_t v = 0; v < kVectors; ++v) {
    sums[v] = _mm256_setzero_si256();
    if (mixing != kNone) {
      const __m256i near = load(task.mixed + task.near[q] * kCodeRows + 16 * v);
      const __m256i far = load(task.mixed + task.far[q] * kCodeRows + 16 * v);
      sums[v] = mixed<mixing == kHalves>(near, far);
    }
    sums[v] = _mm256_sub_epi16(sums[v], terms[v]);
  }
}

template <Mixing mixing>
void match_rows(const MatchTask& task, uint32_t* masks) {
  // What is mixed is raised by 2^15.
  const __m256i raise = _mm256_set1_epi16(mixing == kNone ? 0 : INT16_MIN);
  const __m256i terms[kVectors] = {_mm256_sub_epi16(lower_terms(task.terms), raise),
                                   _mm256_sub_epi16(lower_terms(task.terms + 16), raise)};
  const int64_t tile_bytes = (task.rows.steps[0] + task.rows.steps[1]) * kCodeTile * kStepDims;
  const int8_t* queries = task.queries;
  for (int64_t i = 0; i < task.n; i += kCodeTile, queries += tile_bytes) {
    Sums sums;
#pragma GCC unroll 4
    for (int64_t q = 0; q < kCodeTile; ++q) start<mixing>(task, i + q, terms, sums[q]);
    add_products(task.rows, queries, sums);
#pragma GCC unroll 4
    for (int64_t q = 0; q < kCodeTile; ++q) {
      const __m256i base = _mm256_set1_epi16(task.limits[i + q].base);
      const __m256i top = _mm256_set1_epi16(task.limits[i + q].top);
      const __m256i kept_0 = _mm256_cmpgt_epi16(_mm256_sub_epi16(sums[q][0], base), top);
      const __m256i kept_1 = _mm256_cmpgt_epi16(_mm256_sub_epi16(sums[q][1], base), top);
      const __m256i bytes = _mm256_permute4x64_epi64(_mm256_packs_epi16(kept_0, kept_1), 0xD8);
      masks[i + q] = static_cast<uint32_t>(_mm256_movemask_epi8(bytes));
    }
  }
}

void match(const MatchTask& task, uint32_t* masks) {
  if (task.mixed == nullptr) {
    match_rows<kNone>(task, masks);
  } else if (task.half) {
    match_rows<kHalves>(task, masks);
  } else {
    match_rows<kQuarters>(task, masks);
  }
}

void keep_best(const uint16_t* products, const int32_t* terms, int64_t n, uint16_t panel,
               int16_t* best, uint16_t* panels) {
  const __m256i number = _mm256_set1_epi16(static_cast<int16_t>(panel));
  const __m256i lower[kVectors] = {lower_terms(terms), lower_terms(terms + 16)};
  for (int64_t i = 0; i < n * kCodeRows; i += 16) {
    const __m256i value = _mm256_sub_epi16(load(products + i), lower[i / 16 % kVectors]);
    const __m256i old = load(best + i);
    const __m256i better = _mm256_cmpgt_epi16(value, old);
    store(best + i, _mm256_max_epi16(value, old));
    store(panels + i, _mm256_blendv_epi8(load(panels + i), number, better));
  }
}

void multiply_pairs(const int16_t* const* queries, const int16_t* const* rows, int64_t width,
                    int32_t* products) {
  __m256i sums[kPairs];
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  for (int64_t i = 0; i < width; i += 16) {
    for (int p = 0; p < kPairs; ++p) {
      sums[p] =
          _mm256_add_epi32(sums[p], _mm256_madd_epi16(load(queries[p] + i), load(rows[p] + i)));
    }
  }
  store_sums(sums, products);
}

void pair_products(const int16_t* queries, const int16_t* rows, const CodePair* pairs, int64_t n,
                   int64_t width, int32_t* products) {
  products_with(multiply_pairs, queries, rows, pairs, n, width, products);
}

}  // namespace

const CodeKernels kAvx2CodeKernels = {kStepDims,
                                      63,
                                      1,
                                      1.0 / 48.0,
                                      products,
                                      mix,
                                      match,
                                      keep_best,
                                      collect,
                                      pair_products,
                                      encode_narrow,
                                      encode_wide,
                                      compare_codes,
                                      largest_magnitude};

}  // namespace kad
