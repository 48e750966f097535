// Code kernels for AVX-512 with VNNI. vpdpbusd takes codes of 8 bits and sums them in 32.
#include "search/sieve/code_avx512.hpp"
#include "search/sieve/code_collect.hpp"
#include "search/sieve/code_encode.hpp"

namespace kad {
namespace {

constexpr int64_t kStepDims = 4;
constexpr int64_t kVectors = 2;  // of 16 rows

using Sums = __m512i[kCodeTile][kVectors];

// As _mm512_dpbusd_epi32, whose sums GCC 12 copies around and spills: half the speed.
inline __attribute__((always_inline)) void multiply_add(__m512i rows, __m512i query,
                                                        __m512i& sums) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(rows), "v"(query));
}

inline __attribute__((always_inline)) void add_products(const PanelCodes& rows,
                                                        const int8_t* queries, Sums& sums) {
  for (int piece = 0; piece < 2; ++piece) {
    const uint8_t* codes = rows.piece[piece];
    const uint8_t* end = codes + rows.steps[piece] * kCodeRows * kStepDims;
    for (; codes != end; codes += kCodeRows * kStepDims, queries += kCodeTile * kStepDims) {
      const __m512i rows_0 = load(codes), rows_1 = load(codes + 64);
#pragma GCC unroll 4
      for (int64_t q = 0; q < kCodeTile; ++q) {
        int32_t step = 0;
        __builtin_memcpy(&step, queries + q * kStepDims, sizeof(step));
        const __m512i query = _mm512_set1_epi32(step);
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
      sums[q][0] = sums[q][1] = _mm512_set1_epi32(starts[i + q]);
    add_products(rows, vectors, sums);
#pragma GCC unroll 4
    for (int64_t q = 0; q < kCodeTile; ++q) {
#pragma GCC unroll 2
      for (int64_t v = 0; v < kVectors; ++v) {
        auto* to = reinterpret_cast<__m256i*>(out + (i + q) * kCodeRows + 16 * v);
        _mm256_storeu_si256(to, _mm512_cvtepi32_epi16(sums[q][v]));
      }
    }
  }
}

template <Mixing mixing>
inline __attribute__((always_inline)) void start(const MatchTask& task, int64_t q,
                                                 const __m512i terms[kVectors],
                                                 __m512i sums[kVectors]) {
  if (mixing == kNone) {
    sums[0] = sums[1] = _mm512_setzero_si512();
  } else {
    // Flipping the highest bit takes 2^15 off.
    const __m512i products =
        _mm512_xor_si512(mixed_products<mixing>(task, q), _mm512_set1_epi16(INT16_MIN));
    sums[0] = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(products));
    sums[1] = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(products, 1));
  }
  sums[0] = _mm512_sub_epi32(sums[0], terms[0]);
  sums[1] = _mm512_sub_epi32(sums[1], terms[1]);
}

template <Mixing mixing>
void match_rows(const MatchTask& task, uint32_t* masks) {
  const __m512i terms[kVectors] = {load(task.terms), load(task.terms + 16)};
  const int64_t tile_bytes = (task.rows.steps[0] + task.rows.steps[1]) * kCodeTile * kStepDims;
  const int8_t* queries = task.queries;
  for (int64_t i = 0; i < task.n; i += kCodeTile, queries += tile_bytes) {
    Sums sums;
#pragma GCC unroll 4
    for (int64_t q = 0; q < kCodeTile; ++q) start<mixing>(task, i + q, terms, sums[q]);
    add_products(task.rows, queries, sums);
#pragma GCC unroll 4
    for (int64_t q = 0; q < kCodeTile; ++q) {
      const __m512i limit = _mm512_set1_epi32(task.limits[i + q].limit);
      const uint32_t below_0 = _mm512_movepi32_mask(_mm512_sub_epi32(sums[q][0], limit));
      const uint32_t below_1 = _mm512_movepi32_mask(_mm512_sub_epi32(sums[q][1], limit));
      masks[i + q] = ~(below_0 | below_1 << 16);
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
    sums = _mm512_dpwssd_epi32(sums, query, row);
  }
};

void pair_products(const int16_t* queries, const int16_t* rows, const CodePair* pairs, int64_t n,
                   int64_t width, int32_t* products) {
  products_with(multiply_pairs<Pair>, queries, rows, pairs, n, width, products);
}

}  // namespace

const CodeKernels kAvx512VnniCodeKernels = {kStepDims,
                                            127,
                                            0,
                                            1.0 / 80.0,
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
