// Code kernels for AVX-512 without VNNI: those of AVX2 (code_avx2.cpp) on twice the width.
#include "search/sieve/code_avx512.hpp"

#include "search/sieve/code_collect.hpp"
#include "search/sieve/code_encode.hpp"

namespace kad {
namespace {

constexpr int64_t kStepDims = 2;

using Sums = __m512i[kCodeTile];

inline __attribute__((always_inline)) void multiply_add(__m512i rows, __m512i query,
                                                        __m512i& sums) {
  __m512i products;
  __asm__("vpmaddubsw %3, %2, %1\n\tvpaddw %1, %0, %0"
          : "+v"(sums), "=&v"(products)
          : "v"(rows), "v"(query));
}

inline __attribute__((always_inline)) void add_products(const PanelCodes& rows,
                                                        const int8_t* queries, Sums& sums) {
  for (int piece = 0; piece < 2; ++piece) {
    const uint8_t* codes = rows.piece[piece];
    const uint8_t* end = codes + rows.steps[piece] * kCodeRows * kStepDims;
    for (; codes != end; codes += kCodeRows * kStepDims, queries += kCodeTile * kStepDims) {
      const __m512i panel = load(codes);
#pragma GCC unroll 4
      for (int64_t q = 0; q < kCodeTile; ++q) {
        int16_t step = 0;
        __builtin_memcpy(&step, queries + q * kStepDims, sizeof(step));
        multiply_add(panel, _mm512_set1_epi16(step), sums[q]);
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
    for (int64_t q = 0; q < kCodeTile; ++q) sums[q] = _mm512_set1_epi16(starts[i + q]);
    add_products(rows, vectors, sums);
#pragma GCC unroll 4
    for (int64_t q = 0; q < kCodeTile; ++q) _mm512_storeu_si512(out + (i + q) * kCodeRows, sums[q]);
  }
}

template <Mixing mixing>
void match_rows(const MatchTask& task, uint32_t* masks) {
  // What is mixed is raised by 2^15.
  const __m512i raise = _mm512_set1_epi16(mixing == kNone ? 0 : INT16_MIN);
  const __m512i terms = _mm512_sub_epi16(lower_terms(task.terms), raise);
  const int64_t tile_bytes = (task.rows.steps[0] + task.rows.steps[1]) * kCodeTile * kStepDims;
  const int8_t* queries = task.queries;
  for (int64_t i = 0; i < task.n; i += kCodeTile, queries += tile_bytes) {
    Sums sums;
#pragma GCC unroll 4
    for (int64_t q = 0; q < kCodeTile; ++q) {
      sums[q] = mixing == kNone ? _mm512_setzero_si512() : mixed_products<mixing>(task, i + q);
      sums[q] = _mm512_sub_epi16(sums[q], terms);
    }
    add_products(task.rows, queries, sums);
#pragma GCC unroll 4
    for (int64_t q = 0; q < kCodeTile; ++q) {
      const __m512i base = _mm512_set1_epi16(task.limits[i + q].base);
      const __m512i top = _mm512_set1_epi16(task.limits[i + q].top);
      masks[i + q] = _mm512_cmpgt_epi16_mask(_mm512_sub_epi16(sums[q], base), top);
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

struct Pair {
  static inline void add(__m512i query, __m512i row, __m512i& sums) {
    sums = _mm512_add_epi32(sums, _mm512_madd_epi16(query, row));
  }
};

void pair_products(const int16_t* queries, const int16_t* rows, const CodePair* pairs, int64_t n,
                   int64_t width, int32_t* products) {
  products_with(multiply_pairs<Pair>, queries, rows, pairs, n, width, products);
}

}  // namespace

const CodeKernels kAvx512CodeKernels = {kStepDims,
                                        63,
                                        1,
                                        1.0 / 64.0,
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
